//! Reads packs: header and footer, and with contents every frame, against their hashes.
//!
//! A pack is read once from front to back in stretches of a few megabytes; memory is one stretch for
//! each thread. Without contents, a pack costs two small requests.

use bytes::Bytes;

use super::findings::Findings;
use super::report::Harm;
use super::{Progress, VerifyError};
use crate::base::limits;
use crate::format::frame::{self, HEADER_BYTES};
use crate::format::object::{Object, ObjectName};
use crate::format::pack::{self, Footer, PackedFrame};
use crate::format::sealed::{self, Place};
use crate::format::{FormatError, FrameOrdinal, PackId, Realm};
use crate::repo::{Reader, RepoError, locate_footer};

/// Bytes that are read at once; a single frame may be larger.
const STRETCH_BYTES: u64 = 8 << 20;

/// Checks one pack and notes what is wrong with it.
pub(super) struct PackCheck<'a> {
    pub(super) reader: &'a Reader,
    pub(super) pack: PackId,
    pub(super) read_data: bool,
    pub(super) findings: &'a Findings<'a>,
    pub(super) progress: &'a Progress,
}

impl PackCheck<'_> {
    pub(super) fn run(&self) -> Result<(), VerifyError> {
        self.progress.check()?;
        let object = Object::Pack(self.reader.source(), self.pack).name();
        self.progress.at(|| object.to_string());
        if self.header(&object)? {
            match locate_footer(self.reader, self.pack) {
                Ok((footer, offset, bytes)) => {
                    self.progress.add_bytes(bytes - offset);
                    self.frames(&object, &footer, offset)?;
                }
                // Which of its frames can be read shows when points refer to them.
                Err(error) => self.findings.note_error(&object, None, error)?,
            }
        }
        self.progress.add_objects(1);
        Ok(())
    }

    /// Whether there is a pack to go on with.
    fn header(&self, object: &ObjectName) -> Result<bool, VerifyError> {
        let header_bytes = self.header_bytes() as u64;
        let bytes = self.reader.repo().store().get_range(object, 0..header_bytes);
        let bytes = match bytes.map_err(|source| RepoError::reading(object, source)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let missing = matches!(error, RepoError::Missing { .. });
                self.findings.note_error(object, None, error)?;
                if missing {
                    self.findings.lose_pack(self.reader.source(), self.pack);
                }
                return Ok(!missing);
            }
        };
        self.progress.add_bytes(bytes.len() as u64);
        let checked = match self.reader.pack_keys(self.pack) {
            Ok(Some(keys)) => keys.check_header(&bytes).map_err(RepoError::object(object)),
            Ok(None) => pack::check_header(&bytes, self.reader.repo().id(), self.reader.source(), self.pack)
                .map_err(RepoError::object(object)),
            Err(error) => Err(error),
        };
        if let Err(error) = checked {
            self.findings.note_error(object, Some(0), error)?;
        }
        Ok(true)
    }

    fn header_bytes(&self) -> usize {
        match self.reader.repo().realm().keys() {
            Some(_) => sealed::HEADER_BYTES,
            None => pack::HEADER_BYTES,
        }
    }

    fn frames(&self, object: &ObjectName, footer: &Footer, footer_offset: u64) -> Result<(), VerifyError> {
        let end = footer.frames.last().map_or(self.header_bytes() as u64, end);
        if end != footer_offset {
            let what = format!("its footer begins at byte {footer_offset}, but the frames that it lists end at {end}");
            self.findings.note(object, Harm::Contradiction, Some(footer_offset), what);
        }
        if !self.read_data {
            return Ok(());
        }
        let mut frames = footer.frames.as_slice();
        let mut ordinal = 0u32;
        while let Some(first) = frames.first() {
            self.progress.check()?;
            let count = frames.iter().take_while(|frame| end_within(first, frame)).count().max(1);
            let (stretch, rest) = frames.split_at(count);
            self.stretch(object, stretch, ordinal)?;
            ordinal = ordinal.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            frames = rest;
        }
        Ok(())
    }

    /// Reads neighbouring frames with one request; when that fails, one by one, to tell which are lost.
    fn stretch(&self, object: &ObjectName, frames: &[PackedFrame], ordinal: u32) -> Result<(), VerifyError> {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return Ok(()) };
        let plausible = frames.iter().all(|frame| frame.stored_bytes as usize <= limits::FRAME_STORED_BYTES_MAX);
        let store = self.reader.repo().store();
        let whole = if plausible { store.get_range(object, first.offset..end(last)).ok() } else { None };
        self.progress.add_bytes(whole.as_ref().map_or(0, |bytes| bytes.len() as u64));
        let keys = self.reader.pack_keys(self.pack)?;
        let check = |bytes: &Bytes, frame: &PackedFrame, ordinal| {
            let opened = match &keys {
                Some(keys) => sealed::check_hash(bytes, &frame.hash)
                    .and_then(|()| keys.open(Place::Frame(ordinal), bytes.clone()))
                    .map(|(head, raw)| (head, frame.hash, raw)),
                None => open_plain(bytes),
            };
            check_frame(self.reader.repo().realm(), opened?, frame)
        };
        for (frame, ordinal) in frames.iter().zip(ordinal..) {
            let ordinal = FrameOrdinal(ordinal);
            let within = |bytes: &Bytes| {
                let start = usize::try_from(frame.offset - first.offset).ok()?;
                let end = start.checked_add(HEADER_BYTES + frame.stored_bytes as usize)?;
                (end <= bytes.len()).then(|| bytes.slice(start..end))
            };
            let checked = match whole.as_ref().and_then(within) {
                Some(bytes) => check(&bytes, frame, ordinal).map_err(RepoError::object(object)),
                None => self.reader.fetch(&frame.pointer(self.pack, ordinal), frame.kind).map(drop),
            };
            if let Err(error) = checked {
                self.findings.note_error(object, Some(frame.offset), error)?;
                self.findings.lose_frame(self.reader.source(), self.pack, ordinal);
            }
        }
        Ok(())
    }
}

fn end(frame: &PackedFrame) -> u64 {
    frame.offset.saturating_add(HEADER_BYTES as u64).saturating_add(u64::from(frame.stored_bytes))
}

fn end_within(first: &PackedFrame, frame: &PackedFrame) -> bool {
    end(frame) - first.offset <= STRETCH_BYTES
}

/// A frame's header, its hash as stored, and what it holds.
type Opened = (frame::Header, [u8; 32], Bytes);

fn open_plain(bytes: &Bytes) -> Result<Opened, FormatError> {
    let (head, hash) = frame::check(bytes)?;
    let raw = frame::open(&head, frame::body_of(bytes))?;
    Ok((head, hash, raw))
}

/// Whether a frame is the one that its footer lists, down to the chunks in it.
fn check_frame(realm: &Realm, frame: Opened, listed: &PackedFrame) -> Result<(), FormatError> {
    let (head, hash, raw) = frame;
    let malformed = |why: String| FormatError::Malformed { what: "frame", why };
    if hash != listed.hash || head.kind != listed.kind || head.raw_bytes != listed.raw_bytes {
        return Err(malformed("it is not the one that the pack's footer lists".to_owned()));
    }
    if head.chunks as usize != listed.chunks.len() {
        return Err(malformed(format!("{} chunks, its footer lists {}", head.chunks, listed.chunks.len())));
    }
    for chunk in &listed.chunks {
        let start = chunk.start as usize;
        let content = raw.get(start..start.saturating_add(chunk.bytes as usize));
        if content.is_none_or(|content| realm.chunk_hash(content) != chunk.hash) {
            return Err(malformed(format!("bytes {}+{} are not the chunk of their hash", chunk.start, chunk.bytes)));
        }
    }
    Ok(())
}
