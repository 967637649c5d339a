//! Frames: the unit of compression, checksum and encryption; the smallest thing ever decoded.
//!
//! 32 bytes of header, then the body. Header: magic `AFRM`, kind, flags (bit 0: the body is zstd;
//! bit 1: reserved), two zero bytes, key id (always 0), raw length, stored
//! length, count of chunks, and the first 8 bytes of the frame's hash: BLAKE3 over the first 24
//! header bytes and the body as stored. Pointers carry 16 bytes of the same hash, so a reader needs
//! no more than pointer and frame; the 8 bytes serve the forward scan of a pack without its footer.

use std::cell::RefCell;

use bytes::Bytes;

use super::error::{FormatError, malformed};
use super::ids::{FrameHash, FrameRef};
use crate::base::{hex, limits};

/// What a frame holds; the number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Chunks of files.
    Data = 1,
    /// A node of the entries tree.
    Entries = 2,
    /// A node of the map tree.
    Maps = 3,
    /// A node of the usage tree.
    Usage = 4,
    /// A point's list of problems.
    Problems = 5,
    /// A pack's footer.
    Footer = 6,
    /// Nothing: it makes a sealed pack's length say little.
    Padding = 7,
}

impl FrameKind {
    pub(crate) fn from_number(number: u8) -> Option<FrameKind> {
        const ALL: [FrameKind; 7] = [
            FrameKind::Data,
            FrameKind::Entries,
            FrameKind::Maps,
            FrameKind::Usage,
            FrameKind::Problems,
            FrameKind::Footer,
            FrameKind::Padding,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Raw bytes that a frame of this kind may have.
    pub fn raw_bytes_max(self) -> usize {
        match self {
            FrameKind::Footer => limits::FOOTER_BYTES_MAX,
            FrameKind::Data
            | FrameKind::Entries
            | FrameKind::Maps
            | FrameKind::Usage
            | FrameKind::Problems
            | FrameKind::Padding => limits::FRAME_RAW_BYTES_MAX,
        }
    }
}

/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
/// What every frame begins with.
pub const MAGIC: [u8; 4] = *b"AFRM";
const HASHED_HEADER_BYTES: usize = 24;
const FLAG_ZSTD: u8 = 1;
const LEVEL: i32 = 3;

/// A frame's header, decoded and plausible, not yet checked against the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it holds.
    pub kind: FrameKind,
    /// Whether the body is zstd.
    pub compressed: bool,
    /// Bytes decoded.
    pub raw_bytes: u32,
    /// Bytes stored.
    pub stored_bytes: u32,
    /// Chunks inside; 0 for metadata.
    pub chunks: u32,
    /// First bytes of the hash.
    pub check: [u8; 8],
}

/// A frame ready to be appended to a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    /// Header and body.
    pub bytes: Vec<u8>,
    /// What it holds.
    pub kind: FrameKind,
    /// Bytes decoded.
    pub raw_bytes: u32,
    /// The whole hash.
    pub hash: [u8; 32],
}

impl EncodedFrame {
    /// Bytes of the body.
    pub fn stored_bytes(&self) -> u32 {
        u32::try_from(self.bytes.len().saturating_sub(HEADER_BYTES)).unwrap_or(u32::MAX)
    }
}

thread_local! {
    // A zstd context costs hundreds of kilobytes to set up: one of each kind per thread.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// `raw` as one zstd frame.
pub fn compress(raw: &[u8]) -> Vec<u8> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        slot.as_mut().and_then(|compressor| compressor.compress(raw).ok()).unwrap_or_else(|| raw.to_vec())
    })
}

/// What the zstd frame `stored` holds, if it is at most `limit` bytes.
///
/// # Errors
/// [`FormatError::Malformed`] when it is no zstd frame or longer.
pub fn decompress(what: &'static str, stored: &[u8], limit: usize) -> Result<Vec<u8>, FormatError> {
    let claimed = match zstd::zstd_safe::get_frame_content_size(stored) {
        Ok(Some(size)) => usize::try_from(size).unwrap_or(usize::MAX),
        Ok(None) | Err(_) => return Err(malformed(what, "not a zstd frame of known size")),
    };
    if claimed > limit {
        return Err(FormatError::TooLarge { what, size: claimed as u64, limit: limit as u64 });
    }
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Decompressor::new().ok();
        }
        let raw = match slot.as_mut() {
            Some(decompressor) => {
                decompressor.decompress(stored, claimed).map_err(|e| malformed(what, e.to_string()))?
            }
            None => return Err(malformed(what, "no decompressor")),
        };
        if raw.len() == claimed { Ok(raw) } else { Err(malformed(what, "shorter than its frame says")) }
    })
}

fn hash(head: &[u8], body: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(head).update(body).finalize().as_bytes()
}

/// `raw` as a frame: compressed where that pays, hashed.
///
/// # Panics
/// When `raw` exceeds what the kind may hold: the caller cuts to [`limits`].
pub fn encode(kind: FrameKind, raw: &[u8], chunks: u32) -> EncodedFrame {
    assert!(raw.len() <= kind.raw_bytes_max(), "a {kind:?} frame of {} bytes", raw.len());
    // Raw where compression saves less than about 5 %: decoding costs more than it gains. Padding is for its length.
    let packed = (kind != FrameKind::Padding).then(|| compress(raw));
    let packed = packed.filter(|packed| packed.len() < raw.len() - raw.len() / 20);
    let (flags, body) = match &packed {
        Some(packed) => (FLAG_ZSTD, packed.as_slice()),
        None => (0, raw),
    };
    let raw_bytes = u32::try_from(raw.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind as u8, flags, 0, 0]);
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&raw_bytes.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&chunks.to_le_bytes());
    let hash = hash(&bytes, body);
    let (check, _) = hash.split_at(8);
    bytes.extend_from_slice(check);
    bytes.extend_from_slice(body);
    EncodedFrame { bytes, kind, raw_bytes, hash }
}

/// The header at the start of `bytes`.
///
/// # Errors
/// [`FormatError::Malformed`] when it cannot be one.
pub fn header(bytes: &[u8]) -> Result<Header, FormatError> {
    let (header, _) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| malformed("frame", "shorter than its header"))?;
    let [
        m0,
        m1,
        m2,
        m3,
        kind,
        flags,
        z0,
        z1,
        k0,
        k1,
        k2,
        k3,
        r0,
        r1,
        r2,
        r3,
        s0,
        s1,
        s2,
        s3,
        c0,
        c1,
        c2,
        c3,
        check @ ..,
    ] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(malformed("frame", "no frame starts here"));
    }
    let kind = FrameKind::from_number(kind).ok_or_else(|| malformed("frame", format!("unknown kind {kind}")))?;
    if flags & !FLAG_ZSTD != 0 || [z0, z1] != [0; 2] || [k0, k1, k2, k3] != [0; 4] {
        return Err(malformed("frame", "its header has values that this version does not know"));
    }
    let header = Header {
        kind,
        compressed: flags & FLAG_ZSTD != 0,
        raw_bytes: u32::from_le_bytes([r0, r1, r2, r3]),
        stored_bytes: u32::from_le_bytes([s0, s1, s2, s3]),
        chunks: u32::from_le_bytes([c0, c1, c2, c3]),
        check,
    };
    if header.raw_bytes as usize > kind.raw_bytes_max() || header.stored_bytes > header.raw_bytes {
        return Err(malformed("frame", "its lengths cannot be"));
    }
    Ok(header)
}

/// The 32-byte hash of the whole frame `bytes` (header and body), after checking that header and
/// length agree with it.
///
/// # Errors
/// [`FormatError`] when the frame is damaged.
pub fn check(bytes: &[u8]) -> Result<(Header, [u8; 32]), FormatError> {
    let head = header(bytes)?;
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    if body.len() != head.stored_bytes as usize {
        return Err(malformed("frame", format!("{} bytes, recorded are {}", body.len(), head.stored_bytes)));
    }
    let hash = hash(bytes.get(..HASHED_HEADER_BYTES).unwrap_or_default(), body);
    if !hash.starts_with(&head.check) {
        return Err(altered(&head.check, &hash));
    }
    Ok((head, hash))
}

fn altered(expected: &[u8], actual: &[u8; 32]) -> FormatError {
    FormatError::Altered {
        what: "frame",
        expected: hex::encode(expected),
        actual: hex::encode(actual.get(..expected.len()).unwrap_or(actual)),
    }
}

/// What the frame `bytes` (header and body), read through `pointer`, holds.
///
/// # Errors
/// [`FormatError`] when it is not the very frame that the pointer means.
pub fn decode(bytes: &Bytes, pointer: &FrameRef, kind: FrameKind) -> Result<Bytes, FormatError> {
    let (head, hash) = check(bytes)?;
    if !hash.starts_with(&pointer.hash.0) {
        return Err(altered(&pointer.hash.0, &hash));
    }
    if head.kind != kind || head.raw_bytes != pointer.raw_bytes || head.stored_bytes != pointer.stored_bytes {
        return Err(malformed("frame", "its header is not what its pointer says"));
    }
    open(&head, body_of(bytes))
}

/// The body of the whole frame `bytes`, without a copy.
pub fn body_of(bytes: &Bytes) -> Bytes {
    bytes.slice(HEADER_BYTES.min(bytes.len())..)
}

/// The decoded body of a frame whose header has been checked against it; the very bytes where they are not compressed.
///
/// # Errors
/// [`FormatError::Malformed`] when it does not decode to the recorded length.
pub fn open(head: &Header, body: Bytes) -> Result<Bytes, FormatError> {
    let raw = if head.compressed { decompress("frame", &body, head.raw_bytes as usize)?.into() } else { body };
    if raw.len() != head.raw_bytes as usize {
        return Err(malformed("frame", "decodes to another length than recorded"));
    }
    Ok(raw)
}

/// The part of a frame's hash that pointers carry.
pub fn short_hash(hash: &[u8; 32]) -> FrameHash {
    let mut short = [0u8; 16];
    for (to, from) in short.iter_mut().zip(hash) {
        *to = *from;
    }
    FrameHash(short)
}
