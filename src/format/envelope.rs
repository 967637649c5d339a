//! The frame around every small object: marker, log entries, checkpoints.
//!
//! 32 bytes of header, then the body. Header: magic `AMBR`, kind, format version, flags (bit 0: the
//! body is zstd; bit 1: sealed, reserved for encryption), one zero byte, key id (0: none), body
//! length, and 16 bytes of BLAKE3 over repository id, object name, the first 16 header bytes and the
//! body as stored. Because the hash covers where the object stands, an object that was swapped with
//! a sibling is as recognisable as one that was altered.

use super::error::{FormatError, malformed};
use super::ids::RepoId;
use super::object::ObjectName;
use crate::base::hex;

/// What an enveloped object is; the number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The repository's marker.
    Marker = 1,
    /// An entry of the repository log.
    RepoEntry = 2,
    /// An entry of a source's log.
    SourceEntry = 3,
    /// A checkpoint of the repository log.
    RepoCheckpoint = 4,
    /// A checkpoint of a source's log.
    SourceCheckpoint = 5,
}

/// The newest format version that this build writes and reads; 0 until the format is frozen.
pub const FORMAT_VERSION: u8 = 0;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"AMBR";
const FLAG_ZSTD: u8 = 1;
/// Bodies of at least this many bytes are compressed.
const COMPRESS_BYTES_MIN: usize = 1024;

fn hash(repo: RepoId, name: &ObjectName, head: &[u8], body: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&repo.0);
    hasher.update(&(name.as_str().len() as u64).to_le_bytes());
    hasher.update(name.as_str().as_bytes());
    hasher.update(head);
    hasher.update(body);
    let mut short = [0u8; 16];
    hasher.finalize_xof().fill(&mut short);
    short
}

/// The bytes of an object that holds `body` and stands at `name`.
pub fn seal(repo: RepoId, name: &ObjectName, kind: Kind, body: &[u8]) -> Vec<u8> {
    let packed =
        (body.len() >= COMPRESS_BYTES_MIN).then(|| super::frame::compress(body)).filter(|p| p.len() < body.len());
    let (flags, stored) = match &packed {
        Some(packed) => (FLAG_ZSTD, packed.as_slice()),
        None => (0, body),
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + stored.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind as u8, FORMAT_VERSION, flags, 0]);
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&(u32::try_from(stored.len()).unwrap_or(u32::MAX)).to_le_bytes());
    let hash = hash(repo, name, &bytes, stored);
    bytes.extend_from_slice(&hash);
    bytes.extend_from_slice(stored);
    bytes
}

/// The body of the object `bytes` that was read from `name`; at most `limit` bytes when decoded.
///
/// # Errors
/// [`FormatError`]: altered, elsewhere, newer or malformed.
pub fn open(
    repo: RepoId,
    name: &ObjectName,
    kind: Kind,
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<Vec<u8>, FormatError> {
    let (header, stored) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| malformed(what, "shorter than its header"))?;
    let [m0, m1, m2, m3, found_kind, version, flags, zero, k0, k1, k2, k3, l0, l1, l2, l3, recorded @ ..] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(malformed(what, "not an amberfs object"));
    }
    if version > FORMAT_VERSION {
        return Err(FormatError::Newer { what, found: u32::from(version), newest: u32::from(FORMAT_VERSION) });
    }
    let (head, _) = header.split_at(16);
    let actual = hash(repo, name, head, stored);
    if actual != recorded {
        return Err(FormatError::Altered { what, expected: hex::encode(&recorded), actual: hex::encode(&actual) });
    }
    if found_kind != kind as u8 || zero != 0 || [k0, k1, k2, k3] != [0; 4] || flags & !FLAG_ZSTD != 0 {
        return Err(malformed(what, "its header has values that this version does not know"));
    }
    if u32::from_le_bytes([l0, l1, l2, l3]) as usize != stored.len() {
        return Err(malformed(what, "its length is not the recorded one"));
    }
    if flags & FLAG_ZSTD == 0 {
        return if stored.len() <= limit {
            Ok(stored.to_vec())
        } else {
            Err(FormatError::TooLarge { what, size: stored.len() as u64, limit: limit as u64 })
        };
    }
    super::frame::decompress(what, stored, limit)
}
