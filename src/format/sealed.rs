//! Sealed packs: frames, footer and trailer as a store sees them in an encrypted repository.
//!
//! ```text
//! header    168 bytes: the 72 of every pack, with flag 1 and the epoch as key id; then what the session was
//!           sealed with (32), and the commitments of the pack's tree key and data key (32 each)
//! frame     its 32-byte header, sealed with the tree key (48 bytes); its body, sealed with the data key if it
//!           holds content, with the tree key else (16 bytes more)
//! footer    a frame; behind its body, inside the seal, zeros up to the padded length of the pack
//! trailer   sealed with the tree key (48 bytes)
//! ```
//! So nothing but the total length of a pack can be seen: not where frames end, nor what they hold. What is
//! sealed is bound to the header before the commitments, so to the repository, the source, the pack and the session's
//! keys, and to its ordinal. The hash that a reference carries is over a frame as stored: it is checked first, and without any key.

use bytes::{Buf, Bytes};

use super::error::{FormatError, malformed, refused};
use super::frame::{self, EncodedFrame, FrameKind, Header};
use super::ids::{FrameOrdinal, FrameRef, PackId, RepoId, SourceId};
use super::keyring::{SessionSeal, SessionSecrets};
use super::pack;
use crate::base::hex;
use crate::seal::aead::{Counter, Key, TAG_BYTES};
use crate::seal::derive;

/// Bytes of a sealed pack's header.
pub const HEADER_BYTES: usize = pack::HEADER_BYTES + 96;
/// Bytes of a sealed pack's trailer.
pub const TRAILER_BYTES: usize = pack::TRAILER_BYTES + TAG_BYTES;
/// Bytes of a frame's header, sealed.
const FRAME_HEADER_BYTES: usize = frame::HEADER_BYTES + TAG_BYTES;
const WHAT: &str = "frame";

/// Which of a pack's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The frame with this ordinal.
    Frame(FrameOrdinal),
    /// The footer's frame.
    Footer,
}

impl Place {
    fn counters(self) -> (Counter, Counter) {
        let (head, body, ordinal) = match self {
            Place::Frame(ordinal) => (1, 2, u64::from(ordinal.0)),
            Place::Footer => (3, 4, 0),
        };
        (Counter { part: head, ordinal }, Counter { part: body, ordinal })
    }
}

const TRAILER: Counter = Counter { part: 5, ordinal: 0 };

/// The keys of one pack, as far as the holder can have them.
#[derive(Debug)]
pub struct PackKeys {
    /// The pack's header as it must stand in the store.
    header: Vec<u8>,
    tree: Option<Key>,
    data: Option<Key>,
}

/// Bytes of a header before the commitments: what the pack's messages are bound to.
const PLACE_BYTES: usize = pack::HEADER_BYTES + 32;

impl PackKeys {
    pub(super) fn place(&self) -> &[u8] {
        self.header.get(..PLACE_BYTES).unwrap_or_default()
    }

    /// The keys that follow from the secrets of the pack's session.
    pub(super) fn new(repo: RepoId, source: SourceId, pack: PackId, session: &SessionSecrets) -> PackKeys {
        let plain = pack::header(repo, source, pack);
        let key = |secret: &crate::seal::Secret, purpose: &[u8]| {
            Key::new(&derive::secret(secret, b"", &[b"amberfs pack ", purpose, b" ", &plain]))
        };
        let tree = session.tree.as_ref().map(|secret| key(secret, b"tree"));
        let data = session.data.as_ref().map(|secret| key(secret, b"data"));
        let header = header(&plain, session.seal, tree.as_ref(), data.as_ref());
        PackKeys { header, tree, data }
    }

    /// The header to begin a new pack with.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Refuses `bytes` unless they begin with this pack's header, as far as these keys say what it must be.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn check_header(&self, bytes: &[u8]) -> Result<(), FormatError> {
        let found = bytes.get(..HEADER_BYTES).ok_or_else(|| malformed("pack", "shorter than its header"))?;
        let (plain, keys) = found.split_at(PLACE_BYTES);
        let known = [(0..32, &self.tree), (32..64, &self.data)].into_iter().all(|(range, key)| {
            key.as_ref().is_none_or(|key| keys.get(range).is_some_and(|part| part == key.commitment()))
        });
        if known && self.header.starts_with(plain) {
            return Ok(());
        }
        let (expected, actual) = (hex::encode(&self.header), hex::encode(found));
        Err(FormatError::Misplaced { what: "pack", expected, actual })
    }

    fn tree(&self) -> Result<&Key, FormatError> {
        self.tree.as_ref().ok_or_else(|| no_key("trees"))
    }

    fn of(&self, kind: FrameKind) -> Result<&Key, FormatError> {
        match kind {
            FrameKind::Data => self.data.as_ref().ok_or_else(|| no_key("content")),
            FrameKind::Entries
            | FrameKind::Maps
            | FrameKind::Usage
            | FrameKind::Problems
            | FrameKind::Footer
            | FrameKind::Padding => self.tree(),
        }
    }

    /// `frame` as it is stored at `place`, with `padding` zeros behind its body, inside the seal.
    ///
    /// # Errors
    /// [`FormatError::NoKey`]: whoever seals has made the keys.
    pub fn seal(&self, place: Place, frame: &EncodedFrame, padding: usize) -> Result<EncodedFrame, FormatError> {
        let (head_at, body_at) = place.counters();
        let (head, body) = frame.bytes.split_at(frame::HEADER_BYTES.min(frame.bytes.len()));
        let mut bytes = Vec::with_capacity(frame.bytes.len() + padding + 2 * TAG_BYTES);
        bytes.extend_from_slice(head);
        self.tree()?.seal(head_at, self.place(), &mut bytes);
        let start = bytes.len();
        bytes.extend_from_slice(body);
        bytes.resize(start + body.len() + padding, 0);
        self.of(frame.kind)?.seal_from(start, body_at, self.place(), &mut bytes);
        let hash = *blake3::hash(&bytes).as_bytes();
        Ok(EncodedFrame { bytes, kind: frame.kind, raw_bytes: frame.raw_bytes, hash })
    }

    /// Bytes that sealing adds to a frame.
    pub const FRAME_OVERHEAD: usize = 2 * TAG_BYTES;

    /// The header of the frame that begins at `bytes`, without a look at its body.
    ///
    /// # Errors
    /// [`FormatError`] when none begins there.
    pub fn frame_header(&self, place: Place, bytes: &[u8]) -> Result<Header, FormatError> {
        let sealed = bytes.get(..FRAME_HEADER_BYTES).ok_or_else(|| malformed(WHAT, "shorter than its header"))?;
        let mut head = sealed.to_vec();
        self.tree()?.open(place.counters().0, self.place(), &mut head).map_err(refused(WHAT))?;
        frame::header(&head)
    }

    /// The header and the decoded body of the whole frame `bytes`, whose memory is used if nobody else holds it.
    ///
    /// # Errors
    /// [`FormatError`] when it is not the frame that was sealed for this place.
    pub fn open(&self, place: Place, bytes: Bytes) -> Result<(Header, Bytes), FormatError> {
        let head = self.frame_header(place, &bytes)?;
        let mut sealed = bytes;
        sealed.advance(FRAME_HEADER_BYTES);
        let mut body = self.of(head.kind)?.opened(place.counters().1, self.place(), sealed).map_err(refused(WHAT))?;
        if body.len() < head.stored_bytes as usize {
            return Err(malformed(WHAT, "shorter than recorded"));
        }
        body.truncate(head.stored_bytes as usize);
        Ok((head, frame::open(&head, body)?))
    }

    /// What the frame `bytes`, read through `pointer`, holds.
    ///
    /// # Errors
    /// [`FormatError`] when it is not the very frame that the pointer means.
    pub fn decode(&self, bytes: Bytes, pointer: &FrameRef, kind: FrameKind) -> Result<Bytes, FormatError> {
        check_hash(&bytes, &pointer.hash.0)?;
        let (head, raw) = self.open(Place::Frame(pointer.ordinal), bytes)?;
        if head.kind != kind || head.raw_bytes != pointer.raw_bytes {
            return Err(malformed(WHAT, "its header is not what its pointer says"));
        }
        Ok(raw)
    }

    /// The trailer, sealed.
    ///
    /// # Errors
    /// As [`PackKeys::seal`].
    pub(super) fn seal_trailer(&self, mut trailer: Vec<u8>) -> Result<Vec<u8>, FormatError> {
        self.tree()?.seal(TRAILER, self.place(), &mut trailer);
        Ok(trailer)
    }

    /// The trailer at the end of `tail`.
    ///
    /// # Errors
    /// [`FormatError`] when there is none.
    pub(super) fn open_trailer(&self, tail: &[u8]) -> Result<Vec<u8>, FormatError> {
        let cut_off = || malformed("pack", "ends without a trailer: it was cut off, or never completed");
        let start = tail.len().checked_sub(TRAILER_BYTES).ok_or_else(cut_off)?;
        let mut trailer = tail.get(start..).unwrap_or_default().to_vec();
        self.tree()?.open(TRAILER, self.place(), &mut trailer).map_err(|_| cut_off())?;
        Ok(trailer)
    }
}

/// Walks the frames of a whole sealed pack from its header on. Where a header cannot be opened the walk ends: without
/// it, nothing says where the next frame begins. A damaged body is passed over.
pub fn scan(keys: &PackKeys, pack: &[u8]) -> Vec<pack::Scanned> {
    let mut found = Vec::new();
    let mut at = HEADER_BYTES;
    let mut ordinal = 0;
    while let Some(rest) = pack.get(at..).filter(|rest| rest.len() > TRAILER_BYTES) {
        let place = Place::Frame(FrameOrdinal(ordinal));
        let Ok(head) = keys.frame_header(place, rest) else {
            if keys.frame_header(Place::Footer, rest).is_err() {
                found.push(Err((at as u64, malformed(WHAT, "no frame can be opened here, nor behind it"))));
            }
            break;
        };
        let length = frame::HEADER_BYTES + PackKeys::FRAME_OVERHEAD + head.stored_bytes as usize;
        let whole = rest.get(..length).ok_or_else(|| malformed(WHAT, "cut off"));
        let opened = whole.and_then(|bytes| match keys.open(place, Bytes::copy_from_slice(bytes)) {
            // The walk itself needs no content: whoever may not read it finds the frames all the same.
            Ok(_) | Err(FormatError::NoKey { .. }) => Ok(head),
            Err(error) => Err(error),
        });
        found.push(opened.map(|head| (at as u64, head)).map_err(|error| (at as u64, error)));
        at += length;
        ordinal += 1;
    }
    found
}

/// Refuses `bytes` unless the hash over them begins with `expected`.
///
/// # Errors
/// [`FormatError::Altered`].
pub fn check_hash(bytes: &[u8], expected: &[u8]) -> Result<(), FormatError> {
    let hash = blake3::hash(bytes);
    if hash.as_bytes().starts_with(expected) {
        return Ok(());
    }
    let actual = hex::encode(hash.as_bytes().get(..expected.len()).unwrap_or_default());
    Err(FormatError::Altered { what: WHAT, expected: hex::encode(expected), actual })
}

fn no_key(what: &str) -> FormatError {
    FormatError::NoKey { what: WHAT, key: format!("the key to the pack's {what}") }
}

fn header(plain: &[u8], seal: SessionSeal, tree: Option<&Key>, data: Option<&Key>) -> Vec<u8> {
    let mut bytes = plain.to_vec();
    if let Some(flags) = bytes.get_mut(9) {
        *flags = pack::FLAG_SEALED;
    }
    if let Some(key) = bytes.get_mut(12..16) {
        key.copy_from_slice(&seal.epoch.0.to_le_bytes());
    }
    bytes.extend_from_slice(&seal.public);
    for key in [tree, data] {
        bytes.extend_from_slice(&key.map_or([0; 32], |key| *key.commitment()));
    }
    bytes
}

/// From what the secrets of the pack's session follow, by the pack's own header.
///
/// # Errors
/// [`FormatError`] when `bytes` are not the beginning of a sealed pack.
pub fn seal_of(bytes: &[u8]) -> Result<SessionSeal, FormatError> {
    let found = bytes.get(..HEADER_BYTES).ok_or_else(|| malformed("pack", "shorter than its header"))?;
    if !found.starts_with(&pack::MAGIC) || found.get(9) != Some(&pack::FLAG_SEALED) {
        return Err(FormatError::NotSealed { what: "pack" });
    }
    let part = |range: std::ops::Range<usize>| found.get(range).unwrap_or_default();
    let epoch = part(12..16).try_into().map(u32::from_le_bytes).unwrap_or_default();
    let public = part(pack::HEADER_BYTES..pack::HEADER_BYTES + 32).try_into().unwrap_or_default();
    Ok(SessionSeal { epoch: super::ids::Epoch(epoch), public })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::{Footer, PackedFrame};
    use crate::format::{ChainId, Epoch, LogNumber, Nonce, PackOrdinal, SessionId};
    use crate::seal::Secret;

    const REPO: RepoId = RepoId([3; 16]);
    const SOURCE: SourceId = SourceId(7);

    fn id(ordinal: u32) -> PackId {
        let session = SessionId { base: LogNumber(4), random: Nonce([9; 16]) };
        PackId { chain: ChainId(1), session, ordinal: PackOrdinal(ordinal) }
    }

    fn keys(ordinal: u32, tree: bool, data: bool) -> PackKeys {
        let secrets = SessionSecrets {
            seal: SessionSeal { epoch: Epoch(1), public: [5; 32] },
            tree: tree.then(|| Secret::new([1; 32])),
            data: data.then(|| Secret::new([2; 32])),
        };
        PackKeys::new(REPO, SOURCE, id(ordinal), &secrets)
    }

    fn raw(n: usize) -> Vec<u8> {
        (0..n * 997 + 1).map(|i| (i * i % 251) as u8).collect()
    }

    fn sealed_pack(keys: &PackKeys, padding: usize) -> (Vec<u8>, Footer) {
        let mut bytes = keys.header().to_vec();
        let mut footer = Footer::default();
        for n in 0..20usize {
            let kind = if n % 3 == 0 { FrameKind::Entries } else { FrameKind::Data };
            let place = Place::Frame(FrameOrdinal(n as u32));
            let frame = keys.seal(place, &frame::encode(kind, &raw(n), 1), 0).unwrap();
            let (stored_bytes, raw_bytes, hash) = (frame.stored_bytes(), frame.raw_bytes, frame.hash);
            let offset = bytes.len() as u64;
            footer.frames.push(PackedFrame { kind, offset, stored_bytes, raw_bytes, hash, chunks: Vec::new() });
            bytes.extend_from_slice(&frame.bytes);
        }
        let offset = bytes.len() as u64;
        bytes.extend(footer.encode_sealed(keys, offset, padding).unwrap());
        (bytes, footer)
    }

    fn footer(keys: &PackKeys, bytes: &[u8]) -> Result<Footer, FormatError> {
        let (offset, _) = Footer::locate_sealed(keys, &bytes[bytes.len().saturating_sub(100)..], bytes.len() as u64)?;
        Footer::decode_sealed(keys, bytes.get(offset as usize..).unwrap_or_default())
    }

    #[test]
    fn a_sealed_pack_gives_back_what_was_put_in_and_shows_nothing_of_it() {
        let keys_all = keys(2, true, true);
        let (bytes, listed) = sealed_pack(&keys_all, 1000);
        keys_all.check_header(&bytes).unwrap();
        assert_eq!(footer(&keys_all, &bytes).unwrap(), listed);
        for (n, frame) in listed.frames.iter().enumerate() {
            let pointer = frame.pointer(id(2), FrameOrdinal(n as u32));
            let from = frame.offset as usize;
            let stored = &bytes[from..from + frame::HEADER_BYTES + frame.stored_bytes as usize];
            assert_eq!(keys_all.decode(Bytes::copy_from_slice(stored), &pointer, frame.kind).unwrap(), raw(n));
        }
        for magic in [&frame::MAGIC[..], b"AMBRTAIL"] {
            assert!(!bytes.windows(magic.len()).any(|window| window == magic));
        }
    }

    #[test]
    fn whoever_has_only_the_tree_key_reads_trees_and_no_content() {
        let (bytes, listed) = sealed_pack(&keys(2, true, true), 0);
        let keys = keys(2, true, false);
        keys.check_header(&bytes).unwrap();
        assert_eq!(footer(&keys, &bytes).unwrap(), listed);
        for (n, frame) in listed.frames.iter().enumerate() {
            let pointer = frame.pointer(id(2), FrameOrdinal(n as u32));
            let from = frame.offset as usize;
            let stored = &bytes[from..from + frame::HEADER_BYTES + frame.stored_bytes as usize];
            let opened = keys.decode(Bytes::copy_from_slice(stored), &pointer, frame.kind);
            match frame.kind {
                FrameKind::Data => assert!(matches!(opened, Err(FormatError::NoKey { .. })), "{opened:?}"),
                _ => assert_eq!(opened.unwrap(), raw(n)),
            }
        }
        assert_eq!(scan(&keys, &bytes).len(), listed.frames.len());
    }

    #[test]
    fn a_frame_opens_at_its_own_place_only() {
        let keys_2 = keys(2, true, true);
        let frame = keys_2.seal(Place::Frame(FrameOrdinal(4)), &frame::encode(FrameKind::Data, &raw(3), 1), 0).unwrap();
        let bytes = Bytes::from(frame.bytes);
        assert!(keys_2.open(Place::Frame(FrameOrdinal(4)), bytes.clone()).is_ok());
        for place in [Place::Frame(FrameOrdinal(5)), Place::Footer] {
            assert!(keys_2.open(place, bytes.clone()).is_err());
        }
        assert!(keys(3, true, true).open(Place::Frame(FrameOrdinal(4)), bytes).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_pack_is_noticed() {
        let keys = keys(2, true, true);
        let (bytes, listed) = sealed_pack(&keys, 37);
        let intact = |bytes: &[u8]| {
            let Ok(found) = footer(&keys, bytes) else { return false };
            keys.check_header(bytes).is_ok()
                && found == listed
                && scan(&keys, bytes).iter().filter(|frame| frame.is_ok()).count() == listed.frames.len()
        };
        assert!(intact(&bytes));
        for at in (0..bytes.len()).step_by(7).chain(bytes.len() - 200..bytes.len()).chain(0..HEADER_BYTES) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(!intact(&damaged), "byte {at}");
        }
    }

    #[test]
    fn without_its_footer_a_pack_still_gives_its_frames_up_to_a_damaged_header() {
        let keys = keys(2, true, true);
        let (bytes, listed) = sealed_pack(&keys, 0);
        let end = listed.frames.last().map(|f| f.offset as usize + frame::HEADER_BYTES + f.stored_bytes as usize);
        let mut cut = bytes[..end.unwrap()].to_vec();
        cut.extend_from_slice(&[0; TRAILER_BYTES]);
        assert_eq!(scan(&keys, &cut).iter().filter(|frame| frame.is_ok()).count(), listed.frames.len());
        // A damaged body is one frame lost.
        let mut damaged = cut.clone();
        damaged[listed.frames[5].offset as usize + FRAME_HEADER_BYTES] ^= 1;
        let found = scan(&keys, &damaged);
        assert_eq!((found.len(), found.iter().filter(|f| f.is_err()).count()), (listed.frames.len(), 1));
    }
}
