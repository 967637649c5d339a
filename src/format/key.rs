//! Keys of the trees: byte strings whose order is the order of what they name.
//!
//! Entries: the directory's id in 8 big-endian bytes, then the name. Inode records of hard-linked
//! files: [`FileId::HARDLINKS`], then the file's id. Map pages: the file's id, then the first byte's
//! offset. Usage: the pack and frame, all numbers big-endian.

use std::fmt;

use bincode::{Decode, Encode};

use super::error::{FormatError, malformed};
use super::ids::{ChainId, FileId, FrameOrdinal, LogNumber, Nonce, PackId, PackOrdinal, SessionId};
use crate::base::limits;

/// A key of a tree; compared as bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Key(pub Vec<u8>);

/// Longest key: an identity and a name.
pub const KEY_BYTES_MAX: usize = 8 + limits::NAME_BYTES_MAX;

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

impl Key {
    /// The entry `name` in the directory `dir`.
    pub fn entry(dir: FileId, name: &[u8]) -> Key {
        let mut bytes = Vec::with_capacity(8 + name.len());
        bytes.extend_from_slice(&dir.0.to_be_bytes());
        bytes.extend_from_slice(name);
        Key(bytes)
    }

    /// The root directory's own entry.
    pub fn root() -> Key {
        Key::entry(FileId::TOP, b"")
    }

    /// The inode record of the hard-linked file `file`.
    pub fn inode(file: FileId) -> Key {
        Key::entry(FileId::HARDLINKS, &file.0.to_be_bytes())
    }

    /// The first key behind all entries of `dir`.
    pub fn after(dir: FileId) -> Key {
        Key(dir.0.saturating_add(1).to_be_bytes().to_vec())
    }

    /// The map page of `file` that begins at byte `offset`.
    pub fn page(file: FileId, offset: u64) -> Key {
        Key::entry(file, &offset.to_be_bytes())
    }

    /// The usage of one frame.
    pub fn usage(pack: PackId, frame: FrameOrdinal) -> Key {
        let mut bytes = Vec::with_capacity(36);
        bytes.extend_from_slice(&pack.chain.0.to_be_bytes());
        bytes.extend_from_slice(&pack.session.base.0.to_be_bytes());
        bytes.extend_from_slice(&pack.session.random.0);
        bytes.extend_from_slice(&pack.ordinal.0.to_be_bytes());
        bytes.extend_from_slice(&frame.0.to_be_bytes());
        Key(bytes)
    }

    /// Identity and rest, of an entry's or a page's key.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] below 8 bytes.
    pub fn split(&self) -> Result<(FileId, &[u8]), FormatError> {
        match self.0.split_first_chunk::<8>() {
            Some((id, rest)) => Ok((FileId(u64::from_be_bytes(*id)), rest)),
            None => Err(malformed("key", "shorter than an identity")),
        }
    }

    /// File and first byte's offset, of a page's key.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] if not 16 bytes.
    pub fn split_page(&self) -> Result<(FileId, u64), FormatError> {
        let (file, rest) = self.split()?;
        let offset: [u8; 8] = rest.try_into().map_err(|_| malformed("page key", "not 16 bytes"))?;
        Ok((file, u64::from_be_bytes(offset)))
    }

    /// Pack and frame, of a usage key.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] if not 36 bytes.
    pub fn split_usage(&self) -> Result<(PackId, FrameOrdinal), FormatError> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], FormatError> {
            let (head, rest) = bytes.split_first_chunk::<N>().ok_or_else(|| malformed("usage key", "too short"))?;
            *bytes = rest;
            Ok(*head)
        }
        let mut rest = self.0.as_slice();
        let chain = ChainId(u32::from_be_bytes(take(&mut rest)?));
        let base = LogNumber(u64::from_be_bytes(take(&mut rest)?));
        let random = Nonce(take(&mut rest)?);
        let ordinal = PackOrdinal(u32::from_be_bytes(take(&mut rest)?));
        let frame = FrameOrdinal(u32::from_be_bytes(take(&mut rest)?));
        if !rest.is_empty() {
            return Err(malformed("usage key", "too long"));
        }
        Ok((PackId { chain, session: SessionId { base, random }, ordinal }, frame))
    }
}
