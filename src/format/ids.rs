//! Every identifier, offset, length and ordinal as its own type, so that none is taken for another.

use std::fmt;

use bincode::{Decode, Encode};

use crate::base::hex;

/// A number as a type of its own, with the field's name in its `Debug`.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
        pub struct $name(pub $int);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

/// Random bytes as a type of its own, shown in hexadecimal.
macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident[$len:expr]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), hex::encode(&self.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(&self.0))
            }
        }
    };
}

bytes_id! {
    /// A repository, for ever.
    RepoId[16]
}
number! {
    /// A generation of a repository's keys, from 1; 0 where nothing is encrypted.
    Epoch(u32)
}
number! {
    /// A source: the number of the repository log entry that added it.
    SourceId(u64)
}
number! {
    /// A chain of a source, counted from 0 in the order of their `open-chain` entries.
    ChainId(u32)
}
number! {
    /// A place in a log; the first entry is 1. 0 stands for "before the first".
    LogNumber(u64)
}
number! {
    /// A point: the number of its commit entry in its source's log.
    PointId(u64)
}
number! {
    /// A pack's place among those of its session, from 0.
    PackOrdinal(u32)
}
number! {
    /// A frame's place in its pack, from 0.
    FrameOrdinal(u32)
}
number! {
    /// The identity of a directory, a hard-linked or a mapped file within a source; see [`FileId::ROOT`].
    FileId(u64)
}
number! {
    /// The place of an entry among all of its point, in key order, from 0.
    EntryOrdinal(u64)
}
bytes_id! {
    /// BLAKE3 over a chunk's content: its identity for dedup.
    ChunkHash[32]
}
bytes_id! {
    /// BLAKE3 over a frame as stored, truncated.
    FrameHash[16]
}
bytes_id! {
    /// A signing key: the first 16 bytes of BLAKE3 over its public half.
    KeyId[16]
}
bytes_id! {
    /// A key slot; follows from what opens it.
    SlotId[16]
}
bytes_id! {
    /// The random part of a session's identity, and of a log entry's (its nonce).
    Nonce[16]
}

impl FileId {
    /// The directory that holds only the root's own entry, under the empty name.
    pub const TOP: FileId = FileId(0);
    /// The root directory of a tree.
    pub const ROOT: FileId = FileId(1);
    /// The first identity that a capture hands out.
    pub const FIRST: FileId = FileId(2);
    /// The pseudo-directory of inode records of files with several links, keyed by file id.
    pub const HARDLINKS: FileId = FileId(u64::MAX);
}

/// A stretch of work on one log that may end in a commit.
///
/// The log is implied by where the value stands. A commit counts only while its session is neither
/// aborted nor below the log's floor (`chain::state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct SessionId {
    /// The newest log entry that the session had read when it began.
    pub base: LogNumber,
    /// Chosen at random, so that two sessions never share a pack's name.
    pub random: Nonce,
}

/// A pack of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PackId {
    /// The chain it belongs to.
    pub chain: ChainId,
    /// The session that wrote it.
    pub session: SessionId,
    /// Its place among the session's packs.
    pub ordinal: PackOrdinal,
}

/// Where a frame is and what it must hash to: all that a reader needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct FrameRef {
    /// The pack.
    pub pack: PackId,
    /// Its place in the pack.
    pub ordinal: FrameOrdinal,
    /// Where its header starts in the pack, in bytes.
    pub offset: u64,
    /// Bytes of its body as stored, without the header.
    pub stored_bytes: u32,
    /// Bytes of its body decoded.
    pub raw_bytes: u32,
    /// Over header and body as stored.
    pub hash: FrameHash,
}

/// A chunk: a range of a decoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ChunkRef {
    /// The frame.
    pub frame: FrameRef,
    /// First byte within the decoded frame.
    pub start: u32,
    /// Bytes.
    pub bytes: u32,
}
