//! Packs: objects that hold frames, with a footer that lists them.
//!
//! ```text
//! header    72 bytes: magic `AMBRPACK`, version, flags (bit 0: sealed), two zero bytes, key id (the epoch; 0: not sealed),
//!           repository, source, chain, ordinal, session (base, random)
//! frames    one behind the other
//! footer    a frame of kind Footer: the frames and the chunks in them
//! trailer   32 bytes: the footer's offset, its frame's length, four zero bytes, BLAKE3 over header, footer frame and
//!           these 16 bytes (8 bytes of it), magic `AMBRTAIL`
//! ```
//! The footer serves writers (dedup) and verification; no reader needs it, since every reference is
//! complete in itself. When it is lost, a walk from the header by frame headers finds all frames.

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::codec;
use super::envelope::FORMAT_VERSION;
use super::error::{FormatError, malformed};
use super::frame::{self, EncodedFrame, FrameKind};
use super::ids::{ChunkHash, FrameOrdinal, FrameRef, PackId, RepoId, SourceId};
use super::sealed::{self, PackKeys, Place};
use crate::base::{hex, limits};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 72;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 32;
pub(super) const MAGIC: [u8; 8] = *b"AMBRPACK";
/// Set in the flags of a sealed pack's header.
pub(super) const FLAG_SEALED: u8 = 1;
const TAIL_MAGIC: [u8; 8] = *b"AMBRTAIL";
const WHAT: &str = "pack";

/// The header of a pack.
pub fn header(repo: RepoId, source: SourceId, pack: PackId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[FORMAT_VERSION, 0, 0, 0]);
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&repo.0);
    bytes.extend_from_slice(&source.0.to_le_bytes());
    bytes.extend_from_slice(&pack.chain.0.to_le_bytes());
    bytes.extend_from_slice(&pack.ordinal.0.to_le_bytes());
    bytes.extend_from_slice(&pack.session.base.0.to_le_bytes());
    bytes.extend_from_slice(&pack.session.random.0);
    bytes
}

/// Refuses `bytes` unless they begin with exactly this pack's header.
///
/// # Errors
/// [`FormatError`] that tells a newer version, another place and damage apart.
pub fn check_header(bytes: &[u8], repo: RepoId, source: SourceId, pack: PackId) -> Result<(), FormatError> {
    let found = bytes.get(..HEADER_BYTES).ok_or_else(|| malformed(WHAT, "shorter than its header"))?;
    if !found.starts_with(&MAGIC) {
        return Err(malformed(WHAT, "not a pack"));
    }
    match found.get(8) {
        Some(version) if *version > FORMAT_VERSION => {
            return Err(FormatError::Newer {
                what: WHAT,
                found: u32::from(*version),
                newest: u32::from(FORMAT_VERSION),
            });
        }
        Some(_) | None => {}
    }
    let expected = header(repo, source, pack);
    if found == expected {
        return Ok(());
    }
    Err(FormatError::Misplaced { what: WHAT, expected: hex::encode(&expected), actual: hex::encode(found) })
}

/// A chunk as a footer lists it: a range of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedChunk {
    /// Identity of the content.
    pub hash: ChunkHash,
    /// First byte within the decoded frame.
    pub start: u32,
    /// Bytes.
    pub bytes: u32,
}

/// A frame as a footer lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedFrame {
    /// What it holds.
    pub kind: FrameKind,
    /// Where its header starts in the pack.
    pub offset: u64,
    /// Bytes of its body as stored.
    pub stored_bytes: u32,
    /// Bytes decoded.
    pub raw_bytes: u32,
    /// Over header and body as stored.
    pub hash: [u8; 32],
    /// The chunks in it.
    pub chunks: Vec<PackedChunk>,
}

impl PackedFrame {
    /// The reference that leads to this frame.
    pub fn pointer(&self, pack: PackId, ordinal: FrameOrdinal) -> FrameRef {
        FrameRef {
            pack,
            ordinal,
            offset: self.offset,
            stored_bytes: self.stored_bytes,
            raw_bytes: self.raw_bytes,
            hash: frame::short_hash(&self.hash),
        }
    }
}

/// What a pack holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Footer {
    /// Its frames in order, without the footer itself.
    pub frames: Vec<PackedFrame>,
}

#[derive(Encode, Decode)]
struct Columns {
    kind: Vec<u8>,
    stored_bytes: Vec<u32>,
    raw_bytes: Vec<u32>,
    hash: Vec<u8>,
    chunks: Vec<u32>,
    chunk_start: Vec<u32>,
    chunk_bytes: Vec<u32>,
    chunk_hash: Vec<u8>,
}

impl Footer {
    /// The footer's frame and the trailer, to be appended at `offset` of a pack with this `header`.
    pub fn encode(&self, header: &[u8], offset: u64) -> Vec<u8> {
        let mut bytes = self.frame().bytes;
        let tail = trailer(header, &bytes, offset);
        bytes.extend_from_slice(&tail);
        bytes
    }

    /// As [`Footer::encode`], of a sealed pack; behind the footer, inside the seal, come `padding` zeros.
    ///
    /// # Errors
    /// As [`PackKeys::seal`].
    pub fn encode_sealed(&self, keys: &PackKeys, offset: u64, padding: usize) -> Result<Vec<u8>, FormatError> {
        let mut bytes = keys.seal(Place::Footer, &self.frame(), padding)?.bytes;
        let tail = keys.seal_trailer(trailer(keys.place(), &bytes, offset))?;
        bytes.extend_from_slice(&tail);
        Ok(bytes)
    }

    /// Bytes of the sealed footer and trailer, without padding.
    pub fn sealed_bytes(&self) -> u64 {
        (self.frame().bytes.len() + PackKeys::FRAME_OVERHEAD + sealed::TRAILER_BYTES) as u64
    }

    /// The footer as a frame, not sealed.
    fn frame(&self) -> EncodedFrame {
        let mut c = Columns {
            kind: Vec::new(),
            stored_bytes: Vec::new(),
            raw_bytes: Vec::new(),
            hash: Vec::new(),
            chunks: Vec::new(),
            chunk_start: Vec::new(),
            chunk_bytes: Vec::new(),
            chunk_hash: Vec::new(),
        };
        for packed in &self.frames {
            c.kind.push(packed.kind as u8);
            c.stored_bytes.push(packed.stored_bytes);
            c.raw_bytes.push(packed.raw_bytes);
            c.hash.extend_from_slice(&packed.hash);
            c.chunks.push(u32::try_from(packed.chunks.len()).unwrap_or(u32::MAX));
            for chunk in &packed.chunks {
                c.chunk_start.push(chunk.start);
                c.chunk_bytes.push(chunk.bytes);
                c.chunk_hash.extend_from_slice(&chunk.hash.0);
            }
        }
        frame::encode(FrameKind::Footer, &codec::encode(&c), 0)
    }

    /// Where the footer's frame lies in a pack of `pack_bytes` bytes, by its last bytes: offset and length.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] when there is no trailer.
    pub fn locate(tail: &[u8], pack_bytes: u64) -> Result<(u64, u32), FormatError> {
        place_of(tail, pack_bytes, (HEADER_BYTES, TRAILER_BYTES))
    }

    /// As [`Footer::locate`], in a sealed pack.
    ///
    /// # Errors
    /// As [`Footer::locate`]; [`FormatError::NoKey`].
    pub fn locate_sealed(keys: &PackKeys, tail: &[u8], pack_bytes: u64) -> Result<(u64, u32), FormatError> {
        let trailer = keys.open_trailer(tail)?;
        place_of(&trailer, pack_bytes, (sealed::HEADER_BYTES, sealed::TRAILER_BYTES))
    }

    /// The footer of a pack with this `header`, from its frame and the trailer behind it.
    ///
    /// # Errors
    /// [`FormatError`] when they are damaged or list what cannot be.
    pub fn decode(header: &[u8], bytes: &[u8]) -> Result<Footer, FormatError> {
        let (footer, trailer) = bytes
            .split_at_checked(bytes.len().saturating_sub(TRAILER_BYTES))
            .ok_or_else(|| malformed(WHAT, "shorter than its trailer"))?;
        check_tail(header, footer, trailer)?;
        let (head, _) = frame::check(footer)?;
        if head.kind != FrameKind::Footer {
            return Err(malformed(WHAT, "its footer is another kind of frame"));
        }
        let raw = frame::open(&head, Bytes::copy_from_slice(footer.get(frame::HEADER_BYTES..).unwrap_or_default()))?;
        Footer::of_columns(&raw, HEADER_BYTES)
    }

    /// As [`Footer::decode`], of a sealed pack.
    ///
    /// # Errors
    /// As [`Footer::decode`]; [`FormatError::NoKey`].
    pub fn decode_sealed(keys: &PackKeys, bytes: &[u8]) -> Result<Footer, FormatError> {
        let trailer = keys.open_trailer(bytes)?;
        let footer = bytes.get(..bytes.len().saturating_sub(sealed::TRAILER_BYTES)).unwrap_or_default();
        check_tail(keys.place(), footer, &trailer)?;
        let (head, raw) = keys.open(Place::Footer, Bytes::copy_from_slice(footer))?;
        if head.kind != FrameKind::Footer {
            return Err(malformed(WHAT, "its footer is another kind of frame"));
        }
        Footer::of_columns(&raw, sealed::HEADER_BYTES)
    }

    /// From the decoded body of its frame; the first frame begins behind a header of `header_bytes`.
    fn of_columns(raw: &[u8], header_bytes: usize) -> Result<Footer, FormatError> {
        let c: Columns = codec::decode("pack footer", raw, limits::FOOTER_BYTES_MAX)?;
        let (hashes, left) = c.hash.as_chunks::<32>();
        let (chunk_hashes, chunks_left) = c.chunk_hash.as_chunks::<32>();
        let count = c.kind.len();
        let chunk_count: usize = c.chunks.iter().map(|n| *n as usize).fold(0, usize::saturating_add);
        if [c.stored_bytes.len(), c.raw_bytes.len(), hashes.len(), c.chunks.len()].iter().any(|n| *n != count)
            || [c.chunk_start.len(), c.chunk_bytes.len(), chunk_hashes.len()].iter().any(|n| *n != chunk_count)
            || !left.is_empty()
            || !chunks_left.is_empty()
        {
            return Err(malformed("pack footer", "columns differ in length"));
        }
        let mut chunks = c.chunk_start.iter().zip(&c.chunk_bytes).zip(chunk_hashes);
        let mut offset = header_bytes as u64;
        let mut frames = Vec::with_capacity(count);
        for ((((kind, stored), raw), hash), inside) in
            c.kind.iter().zip(&c.stored_bytes).zip(&c.raw_bytes).zip(hashes).zip(&c.chunks)
        {
            let kind =
                FrameKind::from_number(*kind).ok_or_else(|| malformed("pack footer", "an unknown kind of frame"))?;
            let chunks = chunks
                .by_ref()
                .take(*inside as usize)
                .map(|((start, bytes), hash)| PackedChunk { hash: ChunkHash(*hash), start: *start, bytes: *bytes })
                .collect();
            frames.push(PackedFrame { kind, offset, stored_bytes: *stored, raw_bytes: *raw, hash: *hash, chunks });
            offset = offset.saturating_add(frame::HEADER_BYTES as u64).saturating_add(u64::from(*stored));
        }
        Ok(Footer { frames })
    }
}

/// Where the footer's frame lies, by a trailer at the end of `tail`; `around` are the bytes of a header and of a trailer.
fn place_of(tail: &[u8], pack_bytes: u64, around: (usize, usize)) -> Result<(u64, u32), FormatError> {
    let start = tail.len().checked_sub(TRAILER_BYTES).ok_or_else(|| malformed(WHAT, "shorter than its trailer"))?;
    let trailer: &[u8; TRAILER_BYTES] =
        tail.get(start..).unwrap_or_default().try_into().map_err(|_| malformed(WHAT, "no trailer"))?;
    let [o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, z @ ..] = *trailer;
    if !z.starts_with(&[0; 4]) || !z.ends_with(&TAIL_MAGIC) {
        return Err(malformed(WHAT, "ends without a trailer: it was cut off, or never completed"));
    }
    let offset = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if offset.checked_add(u64::from(length)).and_then(|end| end.checked_add(around.1 as u64)) != Some(pack_bytes)
        || offset < around.0 as u64
    {
        return Err(malformed(WHAT, "its trailer points elsewhere"));
    }
    Ok((offset, length))
}

fn trailer(header: &[u8], footer: &[u8], offset: u64) -> Vec<u8> {
    let length = u32::try_from(footer.len()).unwrap_or(u32::MAX);
    let mut tail = Vec::with_capacity(TRAILER_BYTES);
    tail.extend_from_slice(&offset.to_le_bytes());
    tail.extend_from_slice(&length.to_le_bytes());
    tail.extend_from_slice(&[0; 4]);
    let hash = tail_hash(header, footer, &tail);
    tail.extend_from_slice(&hash);
    tail.extend_from_slice(&TAIL_MAGIC);
    tail
}

/// Refuses a footer that is not the one that the trailer was made for.
fn check_tail(header: &[u8], footer: &[u8], trailer: &[u8]) -> Result<(), FormatError> {
    let (place, rest) = trailer.split_at_checked(16).ok_or_else(|| malformed(WHAT, "shorter than its trailer"))?;
    let hash = tail_hash(header, footer, place);
    if rest.starts_with(&hash) {
        return Ok(());
    }
    Err(FormatError::Altered {
        what: "pack footer",
        expected: hex::encode(rest.get(..8).unwrap_or_default()),
        actual: hex::encode(&hash),
    })
}

fn tail_hash(header: &[u8], footer: &[u8], place: &[u8]) -> [u8; 8] {
    let mut hash = [0u8; 8];
    blake3::Hasher::new().update(header).update(footer).update(place).finalize_xof().fill(&mut hash);
    hash
}

/// A frame that a walk without the footer found.
pub type Scanned = Result<(u64, frame::Header), (u64, FormatError)>;

/// Walks the frames of a whole pack from its header on, checking each; a damaged stretch is
/// reported once, and the walk goes on at the next place where a frame begins that checks out.
pub fn scan(pack: &[u8]) -> Vec<Scanned> {
    let mut found = Vec::new();
    let mut at = HEADER_BYTES;
    let mut lost: Option<(usize, FormatError)> = None;
    while let Some(rest) = pack.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.len() == TRAILER_BYTES && rest.ends_with(&TAIL_MAGIC) {
            break;
        }
        let checked = frame::header(rest).and_then(|head| {
            let length = frame::HEADER_BYTES + head.stored_bytes as usize;
            let bytes = rest.get(..length).ok_or_else(|| malformed("frame", "cut off"))?;
            frame::check(bytes).map(|_| (head, length))
        });
        match checked {
            Ok((head, length)) => {
                if let Some((from, error)) = lost.take() {
                    found.push(Err((from as u64, error)));
                }
                found.push(Ok((at as u64, head)));
                at += length;
            }
            Err(error) => {
                lost.get_or_insert((at, error));
                let behind = rest.get(1..).unwrap_or_default();
                match behind.windows(frame::MAGIC.len()).position(|window| window == frame::MAGIC) {
                    Some(step) => at += 1 + step,
                    None => break,
                }
            }
        }
    }
    if let Some((from, error)) = lost {
        found.push(Err((from as u64, error)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{ChainId, LogNumber, Nonce, PackOrdinal, SessionId};

    const REPO: RepoId = RepoId([3; 16]);
    const SOURCE: SourceId = SourceId(7);

    fn id() -> PackId {
        let session = SessionId { base: LogNumber(4), random: Nonce([9; 16]) };
        PackId { chain: ChainId(1), session, ordinal: PackOrdinal(2) }
    }

    /// A pack of frames of many sizes, with its footer as written.
    fn pack() -> (Vec<u8>, Footer) {
        let mut bytes = header(REPO, SOURCE, id());
        let head = bytes.clone();
        let mut footer = Footer::default();
        for n in 0..40usize {
            let raw: Vec<u8> = (0..n * 997 + 1).map(|i| (i * i % 251) as u8).collect();
            let frame = frame::encode(if n % 3 == 0 { FrameKind::Entries } else { FrameKind::Data }, &raw, 1);
            let chunks = vec![PackedChunk { hash: ChunkHash([n as u8; 32]), start: 0, bytes: raw.len() as u32 }];
            footer.frames.push(PackedFrame {
                kind: frame.kind,
                offset: bytes.len() as u64,
                stored_bytes: frame.stored_bytes(),
                raw_bytes: frame.raw_bytes,
                hash: frame.hash,
                chunks,
            });
            bytes.extend_from_slice(&frame.bytes);
        }
        let offset = bytes.len() as u64;
        bytes.extend(footer.encode(&head, offset));
        (bytes, footer)
    }

    #[test]
    fn the_footer_comes_back_from_the_end_of_the_pack() {
        let (bytes, footer) = pack();
        check_header(&bytes, REPO, SOURCE, id()).unwrap();
        let (offset, _) = Footer::locate(&bytes[bytes.len() - 100..], bytes.len() as u64).unwrap();
        let found = Footer::decode(&header(REPO, SOURCE, id()), &bytes[offset as usize..]).unwrap();
        assert_eq!(found, footer);
    }

    #[test]
    fn a_pack_without_its_footer_still_gives_its_frames() {
        let (bytes, footer) = pack();
        let offset = Footer::locate(&bytes, bytes.len() as u64).unwrap().0 as usize;
        let found: Vec<u64> = scan(&bytes[..offset]).into_iter().map(|frame| frame.unwrap().0).collect();
        assert_eq!(found, footer.frames.iter().map(|frame| frame.offset).collect::<Vec<_>>());
        // With one frame damaged, all others are found.
        let mut damaged = bytes[..offset].to_vec();
        damaged[footer.frames[5].offset as usize + frame::HEADER_BYTES] ^= 1;
        let found = scan(&damaged);
        assert_eq!(found.iter().filter(|frame| frame.is_ok()).count(), footer.frames.len() - 1);
        assert!(found.iter().any(|frame| matches!(frame, Err((at, _)) if *at == footer.frames[5].offset)));
    }

    #[test]
    fn every_flipped_bit_of_header_and_footer_is_noticed() {
        let (bytes, _) = pack();
        let offset = Footer::locate(&bytes, bytes.len() as u64).unwrap().0 as usize;
        let head = header(REPO, SOURCE, id());
        for at in (0..HEADER_BYTES).chain(offset..bytes.len()) {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let noticed = check_header(&changed, REPO, SOURCE, id()).is_err()
                    || Footer::locate(&changed, changed.len() as u64)
                        .and_then(|(found, _)| Footer::decode(&head, &changed[found as usize..]))
                        .is_err();
                assert!(noticed, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let raw: Vec<u8> = (0..500u32).flat_map(u32::to_le_bytes).collect();
        let frame = frame::encode(FrameKind::Data, &raw, 1);
        let pointer = FrameRef {
            pack: id(),
            ordinal: FrameOrdinal(0),
            offset: 72,
            stored_bytes: frame.stored_bytes(),
            raw_bytes: frame.raw_bytes,
            hash: frame::short_hash(&frame.hash),
        };
        let whole = Bytes::from(frame.bytes);
        assert_eq!(frame::decode(&whole, &pointer, FrameKind::Data).unwrap(), raw);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.to_vec();
                changed[at] ^= 1 << bit;
                assert!(frame::decode(&changed.into(), &pointer, FrameKind::Data).is_err(), "bit {bit} of byte {at}");
            }
        }
        for length in 0..whole.len() {
            assert!(frame::decode(&whole.slice(..length), &pointer, FrameKind::Data).is_err());
        }
    }
}
