//! Puts frames into packs.
//!
//! Data frames and metadata frames go to packs of their own, so that listing a directory never
//! drags file contents along. Data packs stream up in parts while they grow; metadata packs are
//! small and stay in memory until they are full, because the tree writer may need a node again that
//! it has just written ([`Unfinished`]). A session that wrote little puts both into one pack, so
//! that a small incremental costs one pack and one log entry; that pack stays in memory as well.
//!
//! A pack ends before the frame with which it would have more than so many bytes, footer and all, and at so many frames and
//! chunks: its footer lists them all. The bytes are a power of two, because just above one, padding takes a thirty-second.
//!
//! Crash behaviour: packs that a session wrote mean nothing until a commit names the session. A
//! session that is dropped, killed or fails leaves orphans, which no reader sees. [`Session::finish`]
//! returns only when every pack is durable.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::reader::Reader;
use super::{Repo, RepoError};
use crate::base::limits;
use crate::format::frame::{self, EncodedFrame, FrameKind, HEADER_BYTES};
use crate::format::keyring::SessionSeal;
use crate::format::object::Object;
use crate::format::pack::{self, Footer, PackedChunk, PackedFrame};
use crate::format::sealed::{PackKeys, Place};
use crate::format::{ChainId, FormatError, FrameOrdinal, FrameRef, PackId, PackOrdinal, Realm, SessionId, SourceId};
use crate::seal::{Secret, padme};
use crate::store::{Created, Upload};

/// Padding beyond so many bytes gets a frame of its own.
const PADDING_IN_FOOTER: u64 = 4 << 10;
/// What a footer takes for a frame or chunk as a rule: a hash of 16 or 32 bytes, and some numbers. Where it takes more, a pack
/// may become longer than it should, and is padded all the same.
const FOOTER_ITEM_BYTES_USUAL: u64 = 40;

/// What a finished session has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionTotals {
    /// Packs, with ordinals from 0 up to this.
    pub packs: u32,
    /// Bytes of all packs.
    pub stored_bytes: u64,
}

/// Writes the packs of one capture. Shared by its threads; appending is cheap next to encoding.
#[derive(Debug)]
pub struct Session {
    repo: Arc<Repo>,
    source: SourceId,
    chain: ChainId,
    id: SessionId,
    /// From what the secrets of its packs follow, in an encrypted repository.
    seal: Option<SessionSeal>,
    /// Frames and chunks at which a pack is closed.
    items_max: usize,
    unfinished: Arc<Unfinished>,
}

/// The packs that are being written.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    data: Option<OpenPack>,
    meta: Option<OpenPack>,
    /// Metadata goes into the open data pack from now on.
    mixed: bool,
    totals: SessionTotals,
    failed: Option<String>,
    /// A data pack on its way; at most one, so that memory stays bounded.
    closing: Option<JoinHandle<Result<(), RepoError>>>,
}

struct OpenPack {
    id: PackId,
    header: Vec<u8>,
    /// In an encrypted repository, with what it is sealed.
    keys: Option<Arc<PackKeys>>,
    footer: Footer,
    /// Frames and chunks in it.
    items: usize,
    /// Bytes of the pack so far.
    bytes: u64,
    /// The end of the pack that has not been handed to `upload`; all of it while there is none.
    tail: Vec<u8>,
    upload: Option<Upload>,
}

impl std::fmt::Debug for OpenPack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenPack({:?}, {} bytes)", self.id, self.bytes)
    }
}

impl OpenPack {
    /// About how many bytes it has at its end, padding apart, if these are the last ones in it.
    fn bytes_with(&self, frame: &EncodedFrame, chunks: &[PackedChunk]) -> u64 {
        let frames = self.bytes + (frame.bytes.len() + PackKeys::FRAME_OVERHEAD) as u64;
        // The frame itself, and one more for the footer's own header and the trailer.
        let footer = ((self.items + chunks.len()) as u64 + 2) * FOOTER_ITEM_BYTES_USUAL;
        frames + footer + slack(footer)
    }

    fn push(&mut self, frame: EncodedFrame, chunks: &[PackedChunk]) -> Result<FrameRef, FormatError> {
        let ordinal = FrameOrdinal(u32::try_from(self.footer.frames.len()).unwrap_or(u32::MAX));
        let frame = match &self.keys {
            Some(keys) => keys.seal(Place::Frame(ordinal), &frame, 0)?,
            None => frame,
        };
        let packed = PackedFrame {
            kind: frame.kind,
            offset: self.bytes,
            stored_bytes: frame.stored_bytes(),
            raw_bytes: frame.raw_bytes,
            hash: frame.hash,
            chunks: chunks.to_vec(),
        };
        let pointer = packed.pointer(self.id, ordinal);
        self.footer.frames.push(packed);
        self.items += 1 + chunks.len();
        self.bytes += frame.bytes.len() as u64;
        self.tail.extend_from_slice(&frame.bytes);
        Ok(pointer)
    }

    /// Footer and trailer, and in an encrypted repository what makes the pack's length say little.
    fn end(&mut self) -> Result<Vec<u8>, FormatError> {
        let Some(keys) = self.keys.clone() else { return Ok(self.footer.encode(&self.header, self.bytes)) };
        let bare = self.footer.sealed_bytes();
        let slack = slack(bare);
        let missing = padme::padded_len(self.bytes + bare + slack) - self.bytes - bare;
        if missing > PADDING_IN_FOOTER + slack {
            // A frame of its own, so that whoever reads the footer need not read all of the padding.
            let zeros = usize::try_from(missing - slack).unwrap_or(usize::MAX);
            let zeros = zeros.saturating_sub(HEADER_BYTES + PackKeys::FRAME_OVERHEAD);
            self.push(frame::encode(FrameKind::Padding, &vec![0; zeros], 0), &[])?;
        }
        let bytes = self.bytes + self.footer.sealed_bytes();
        let rest = padme::padded_len(bytes) - bytes;
        self.footer.encode_sealed(&keys, self.bytes, usize::try_from(rest).unwrap_or(0))
    }

    /// The bytes of the frame behind `pointer`, if they are still here.
    fn get(&self, pointer: &FrameRef) -> Option<Vec<u8>> {
        if pointer.pack != self.id {
            return None;
        }
        let begin = self.bytes - self.tail.len() as u64;
        let start = usize::try_from(pointer.offset.checked_sub(begin)?).ok()?;
        let length = HEADER_BYTES + pointer.stored_bytes as usize;
        Some(self.tail.get(start..start.checked_add(length)?)?.to_vec())
    }

    /// Makes the pack durable: footer, then one create or the last part of the upload.
    fn close(mut self, repo: &Repo, source: SourceId) -> Result<(), RepoError> {
        let name = Object::Pack(source, self.id).name();
        let end = self.end().map_err(RepoError::object(&name))?;
        self.tail.extend_from_slice(&end);
        match self.upload.take() {
            Some(mut upload) => {
                upload.write(self.tail).map_err(RepoError::store("write a pack"))?;
                upload.finish().map_err(RepoError::store("complete a pack"))
            }
            None => match repo.store().create(&name, self.tail).map_err(RepoError::store("write a pack"))? {
                Created::New => Ok(()),
                Created::Exists => Err(RepoError::PackTaken { object: name }),
            },
        }
    }
}

/// By how much a footer of so many bytes may grow because it lists a frame of padding. It may have been worth compressing, by a
/// twentieth, and be so no longer.
fn slack(footer: u64) -> u64 {
    256 + footer / 16
}

impl Unfinished {
    /// The stored bytes of a frame that is not in the store yet.
    pub(super) fn get(&self, pointer: &FrameRef) -> Option<Vec<u8>> {
        let state = self.state.lock();
        [&state.data, &state.meta].into_iter().flatten().find_map(|pack| pack.get(pointer))
    }
}

impl Session {
    /// Begins a session that `chain::SourceLog::begin` has announced.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] never, in practice: the keys of an encrypted repository are at hand.
    pub fn begin(repo: &Arc<Repo>, source: SourceId, chain: ChainId, id: SessionId) -> Result<Session, RepoError> {
        let items_max = limits::PACK_ITEMS_MAX;
        let seal = match repo.realm().keys() {
            Some(keys) => {
                let secrets = keys.begin(source, id, Secret::new(repo.env().random()));
                Some(secrets.map_err(RepoError::object(&Object::Marker.name()))?.seal)
            }
            None => None,
        };
        Ok(Session { repo: Arc::clone(repo), source, chain, id, seal, items_max, unfinished: Arc::default() })
    }

    /// From what the secrets of its packs follow, for the commit to tell; none where nothing is encrypted.
    pub fn seal(&self) -> Option<SessionSeal> {
        self.seal
    }

    #[cfg(test)]
    fn with_items_max(self, items_max: usize) -> Session {
        Session { repo: Arc::clone(&self.repo), unfinished: Arc::clone(&self.unfinished), items_max, ..self }
    }

    /// The session's identity.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The repository that it writes to, and its keys.
    pub fn realm(&self) -> &Realm {
        self.repo.realm()
    }

    /// The chain that it writes to.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// A reader that also sees what this session has written.
    pub fn reader(&self) -> Reader {
        self.repo.reader(self.source).with_unfinished(Arc::clone(&self.unfinished))
    }

    /// Appends a frame; `chunks` say what a data frame holds.
    ///
    /// # Errors
    /// [`RepoError`] when a pack cannot be written; the session is unusable then.
    pub fn append(&self, frame: EncodedFrame, chunks: &[PackedChunk]) -> Result<FrameRef, RepoError> {
        let mut state = self.unfinished.state.lock();
        if let Some(why) = &state.failed {
            return Err(RepoError::Poisoned { why: why.clone() });
        }
        let result = self.append_locked(&mut state, frame, chunks);
        if let Err(error) = &result {
            state.failed = Some(error.to_string());
        }
        result
    }

    fn append_locked(
        &self,
        state: &mut State,
        frame: EncodedFrame,
        chunks: &[PackedChunk],
    ) -> Result<FrameRef, RepoError> {
        let is_data = frame.kind == FrameKind::Data;
        let may_share = |pack: &OpenPack| pack.bytes <= limits::MIXED_PACK_BYTES && pack.items < self.items_max;
        if is_data || (state.mixed && state.data.as_ref().is_some_and(may_share)) {
            let mut pack = match state.data.take() {
                Some(pack) if self.has_room(&pack, &frame, chunks, limits::DATA_PACK_BYTES) => pack,
                Some(full) => {
                    self.close_behind(state, full)?;
                    self.open(state)?
                }
                None => self.open(state)?,
            };
            let pointer = self.push(&mut pack, frame, chunks)?;
            // What may be, or has become, a mixed pack is handed away as a whole.
            if is_data && (pack.upload.is_some() || pack.bytes > limits::MIXED_PACK_BYTES) {
                self.send_parts(&mut pack)?;
            }
            state.data = Some(pack);
            return Ok(pointer);
        }
        let mut pack = match state.meta.take() {
            Some(pack) if self.has_room(&pack, &frame, chunks, limits::META_PACK_BYTES) => pack,
            Some(full) => {
                self.account(state, &full);
                full.close(&self.repo, self.source)?;
                self.open(state)?
            }
            None => self.open(state)?,
        };
        let pointer = self.push(&mut pack, frame, chunks)?;
        state.meta = Some(pack);
        Ok(pointer)
    }

    fn has_room(&self, pack: &OpenPack, frame: &EncodedFrame, chunks: &[PackedChunk], bytes_max: u64) -> bool {
        pack.items < self.items_max && (pack.items == 0 || pack.bytes_with(frame, chunks) <= bytes_max)
    }

    fn push(&self, pack: &mut OpenPack, frame: EncodedFrame, chunks: &[PackedChunk]) -> Result<FrameRef, RepoError> {
        pack.push(frame, chunks).map_err(RepoError::object(&Object::Pack(self.source, pack.id).name()))
    }

    fn open(&self, state: &mut State) -> Result<OpenPack, RepoError> {
        let id = PackId { chain: self.chain, session: self.id, ordinal: PackOrdinal(state.totals.packs) };
        state.totals.packs += 1;
        let keys = match self.repo.realm().keys() {
            Some(keys) => {
                let object = Object::Pack(self.source, id).name();
                Some(keys.pack(self.source, id).map_err(RepoError::object(&object))?)
            }
            None => None,
        };
        let header = match &keys {
            Some(keys) => keys.header().to_vec(),
            None => pack::header(self.repo.id(), self.source, id),
        };
        Ok(OpenPack {
            id,
            keys,
            bytes: header.len() as u64,
            tail: header.clone(),
            header,
            footer: Footer::default(),
            items: 0,
            upload: None,
        })
    }

    fn send_parts(&self, pack: &mut OpenPack) -> Result<(), RepoError> {
        while pack.tail.len() >= limits::UPLOAD_PART_BYTES {
            if pack.upload.is_none() {
                let name = Object::Pack(self.source, pack.id).name();
                let upload = self.repo.store().upload(&name).map_err(RepoError::store("begin a pack"))?;
                pack.upload = Some(upload);
            }
            let rest = pack.tail.split_off(limits::UPLOAD_PART_BYTES);
            let part = std::mem::replace(&mut pack.tail, rest);
            if let Some(upload) = &mut pack.upload {
                upload.write(part).map_err(RepoError::store("write a pack"))?;
            }
        }
        Ok(())
    }

    fn account(&self, state: &mut State, pack: &OpenPack) {
        // The footer is small next to the frames and known only at the end.
        state.totals.stored_bytes += pack.bytes;
    }

    /// Completes a full data pack behind the scenes: its fsync must not stop the compressors.
    fn close_behind(&self, state: &mut State, pack: OpenPack) -> Result<(), RepoError> {
        self.account(state, &pack);
        Self::settle(state)?;
        let (repo, source) = (Arc::clone(&self.repo), self.source);
        let closing = std::thread::Builder::new()
            .name("amberfs-pack".to_owned())
            .spawn(move || pack.close(&repo, source))
            .map_err(|error| RepoError::Poisoned { why: format!("no thread to complete a pack: {error}") })?;
        state.closing = Some(closing);
        Ok(())
    }

    fn settle(state: &mut State) -> Result<(), RepoError> {
        match state.closing.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(RepoError::Poisoned { why: "completing a pack panicked".to_owned() }),
        }
    }

    /// Says that all data has been appended: metadata may share the last pack if that is small.
    pub fn data_complete(&self) {
        let mut state = self.unfinished.state.lock();
        let small =
            state.data.as_ref().is_some_and(|pack| pack.upload.is_none() && pack.bytes <= limits::MIXED_PACK_BYTES);
        state.mixed = small && state.meta.is_none() && state.totals.packs == 1;
    }

    /// Completes all packs; they are durable when this returns.
    ///
    /// # Errors
    /// [`RepoError`] when one could not be written: the session must not be committed then.
    pub fn finish(self) -> Result<SessionTotals, RepoError> {
        let mut state = self.unfinished.state.lock();
        if let Some(why) = &state.failed {
            return Err(RepoError::Poisoned { why: why.clone() });
        }
        for pack in [state.data.take(), state.meta.take()].into_iter().flatten() {
            self.account(&mut state, &pack);
            pack.close(&self.repo, self.source)?;
        }
        Self::settle(&mut state)?;
        Ok(state.totals)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut state = self.unfinished.state.lock();
        for pack in [state.data.take(), state.meta.take()].into_iter().flatten() {
            if let Some(upload) = pack.upload {
                upload.abort();
            }
        }
        // What an unfinished session has completed so far is an orphan; its outcome interests nobody.
        drop(Self::settle(&mut state));
    }
}

#[cfg(test)]
mod tests;
