//! The frame around every small object: marker, log entries, checkpoints, key slots.
//!
//! 32 bytes of header, then the body. Header: magic `AMBR`, kind, format version, flags (bit 0: the
//! body is zstd; bit 1: it is sealed), one zero byte, key id (the epoch; 0: not sealed), body
//! length, and 16 bytes of BLAKE3 over repository id, object name, the first 16 header bytes and the
//! body as stored. Because the hash covers where the object stands, an object that was swapped with
//! a sibling is as recognisable as one that was altered.
//!
//! A sealed body is a salt (32), the commitment of the object's key (32), and the sealed text: four bytes of length,
//! as many bytes of (compressed) body, zeros up to a padded length. The object's key follows from the key that
//! is given, the salt and the object's name; the salt is a keyed hash over name and body, so that the same object is
//! the same bytes whoever writes it, and no two different ones ever share a key.

use super::error::{FormatError, malformed, refused};
use super::ids::{Epoch, RepoId};
use super::object::ObjectName;
use crate::base::hex;
use crate::seal::aead::{Counter, Key, TAG_BYTES};
use crate::seal::{Secret, derive, padme};

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
    /// A key slot.
    Slot = 6,
    /// That the removal of a key slot has begun.
    Removal = 7,
}

/// The newest format version that this build writes and reads; 0 until the format is frozen.
pub const FORMAT_VERSION: u8 = 0;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"AMBR";
const FLAG_ZSTD: u8 = 1;
const FLAG_SEALED: u8 = 2;
/// Bodies of at least this many bytes are compressed.
const COMPRESS_BYTES_MIN: usize = 1024;
/// Bytes of a sealed body before the sealed text.
const SALT_BYTES: usize = 32;
const SEALED_BYTES_MIN: usize = SALT_BYTES + 32 + TAG_BYTES + 4;
const ONLY: Counter = Counter { part: 0, ordinal: 0 };

/// With what an object is sealed.
#[derive(Debug, Clone, Copy)]
pub struct With<'a> {
    /// The generation of keys, which the object tells.
    pub epoch: Epoch,
    /// The key for objects of its sort.
    pub key: &'a Secret,
}

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
pub fn seal(repo: RepoId, name: &ObjectName, kind: Kind, body: &[u8], with: Option<With<'_>>) -> Vec<u8> {
    let packed =
        (body.len() >= COMPRESS_BYTES_MIN).then(|| super::frame::compress(body)).filter(|p| p.len() < body.len());
    let (mut flags, stored) = match &packed {
        Some(packed) => (FLAG_ZSTD, packed.as_slice()),
        None => (0, body),
    };
    let sealed = with.map(|with| {
        flags |= FLAG_SEALED;
        seal_body(repo, name, kind, flags, stored, with)
    });
    let stored = sealed.as_deref().unwrap_or(stored);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + stored.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind as u8, FORMAT_VERSION, flags, 0]);
    bytes.extend_from_slice(&with.map_or(0, |with| with.epoch.0).to_le_bytes());
    bytes.extend_from_slice(&(u32::try_from(stored.len()).unwrap_or(u32::MAX)).to_le_bytes());
    let hash = hash(repo, name, &bytes, stored);
    bytes.extend_from_slice(&hash);
    bytes.extend_from_slice(stored);
    bytes
}

/// What a sealed body is bound to beside its key: kind, version and flags.
fn bound(kind: u8, flags: u8) -> [u8; 3] {
    [kind, FORMAT_VERSION, flags]
}

fn object_key(repo: RepoId, name: &ObjectName, key: &Secret, salt: &[u8]) -> Key {
    Key::new(&derive::secret(key, salt, &[b"amberfs object", &repo.0, name.as_str().as_bytes()]))
}

fn seal_body(repo: RepoId, name: &ObjectName, kind: Kind, flags: u8, body: &[u8], with: With<'_>) -> Vec<u8> {
    let salt = *blake3::Hasher::new_keyed(derive::secret(with.key, b"", &[b"amberfs salt"]).bytes())
        .update(&repo.0)
        .update(&(name.as_str().len() as u64).to_le_bytes())
        .update(name.as_str().as_bytes())
        .update(&bound(kind as u8, flags))
        .update(body)
        .finalize()
        .as_bytes();
    let key = object_key(repo, name, with.key, &salt);
    let padded = usize::try_from(padme::padded_len(body.len() as u64 + 4)).unwrap_or(usize::MAX);
    let mut text = Vec::with_capacity(padded.saturating_add(TAG_BYTES));
    text.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    text.extend_from_slice(body);
    text.resize(padded, 0);
    key.seal(ONLY, &bound(kind as u8, flags), &mut text);
    [&salt, key.commitment(), text.as_slice()].concat()
}

fn open_body(
    repo: RepoId,
    name: &ObjectName,
    what: &'static str,
    bound: [u8; 3],
    stored: &[u8],
    key: &Secret,
) -> Result<Vec<u8>, FormatError> {
    if stored.len() < SEALED_BYTES_MIN {
        return Err(malformed(what, "shorter than anything that is sealed"));
    }
    let (salt, rest) = stored.split_at(SALT_BYTES);
    let (commitment, text) = rest.split_at(32);
    let key = object_key(repo, name, key, salt);
    if commitment != key.commitment() {
        return Err(refused(what)(crate::seal::SealError::Refused));
    }
    let mut text = text.to_vec();
    key.open(ONLY, &bound, &mut text).map_err(refused(what))?;
    let (length, body) = text.split_first_chunk::<4>().ok_or_else(|| malformed(what, "shorter than its length"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (_, padding) =
        body.split_at_checked(length).ok_or_else(|| malformed(what, "shorter than its recorded length"))?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(malformed(what, "something follows its end"));
    }
    text.truncate(4 + length);
    text.drain(..4);
    Ok(text)
}

/// The body of the object `bytes` that was read from `name`; at most `limit` bytes when decoded. `key` gives what an
/// epoch's objects of its sort are sealed with; none where nothing is sealed.
///
/// # Errors
/// [`FormatError`]: altered, elsewhere, newer or malformed; sealed with a key that is not at hand, or not sealed although
/// it must be.
pub fn open(
    repo: RepoId,
    name: &ObjectName,
    kind: Kind,
    what: &'static str,
    bytes: &[u8],
    limit: usize,
    key: Option<&dyn Fn(Epoch) -> Option<Secret>>,
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
    let epoch = Epoch(u32::from_le_bytes([k0, k1, k2, k3]));
    let is_sealed = flags & FLAG_SEALED != 0;
    if found_kind != kind as u8
        || zero != 0
        || flags & !(FLAG_ZSTD | FLAG_SEALED) != 0
        || is_sealed != (epoch != Epoch(0))
    {
        return Err(malformed(what, "its header has values that this version does not know"));
    }
    if u32::from_le_bytes([l0, l1, l2, l3]) as usize != stored.len() {
        return Err(malformed(what, "its length is not the recorded one"));
    }
    let opened = match (is_sealed, key) {
        (false, None) => None,
        (false, Some(_)) => return Err(FormatError::NotSealed { what }),
        (true, key) => {
            let key = key.and_then(|key| key(epoch)).ok_or(FormatError::NoEpoch { what, epoch })?;
            Some(open_body(repo, name, what, bound(found_kind, flags), stored, &key)?)
        }
    };
    let body = opened.as_deref().unwrap_or(stored);
    if flags & FLAG_ZSTD == 0 {
        return if body.len() <= limit {
            Ok(body.to_vec())
        } else {
            Err(FormatError::TooLarge { what, size: body.len() as u64, limit: limit as u64 })
        };
    }
    super::frame::decompress(what, body, limit)
}
