//! What a tree holds under a name: an inode's metadata and where its content is.

use super::ids::{ChunkRef, FileId};
use super::key::Key;
use crate::base::FileTime;

/// Everything that `stat` says of a file and that amberfs gives back, except what its kind implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits with set-id and sticky, `mode & 0o7777`.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `st_size` as it was, in bytes (of a directory too).
    pub size: u64,
    /// Last change of content.
    pub mtime: FileTime,
    /// Last change of the inode.
    pub ctime: FileTime,
    /// Last access.
    pub atime: FileTime,
    /// Birth, where the filesystem tells.
    pub btime: Option<FileTime>,
    /// Link count as it was at the source.
    pub links: u32,
    /// Inode number at the source: for change detection only, never shown.
    pub inode: u64,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct Xattr {
    /// Full name with its namespace, such as `user.colour`.
    pub name: Vec<u8>,
    /// Value; may be empty.
    pub value: Vec<u8>,
}

/// One name in a directory, or one inode record of a hard-linked file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Metadata; all zero in an [`Body::Link`].
    pub meta: Meta,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Kind and content.
    pub body: Body,
}

/// The kind of an entry, with what only that kind has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A directory.
    Directory {
        /// Under this its own entries are keyed.
        id: FileId,
        /// The key of the directory that holds it; of the root, its own.
        parent: Key,
    },
    /// A regular file with one link, or the inode record of one with several.
    File(Content),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// One of several names of an inode, whose record stands under [`Key::inode`].
    Link(FileId),
}

/// Where a regular file's bytes are. Bytes that no extent covers are a hole and read as zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing stored: empty, or one hole of the file's size.
    Hole,
    /// In the entry itself; as long as the file's size.
    Inline(Vec<u8>),
    /// A few extents, ascending and disjoint.
    Extents(Vec<Extent>),
    /// Pages in the point's map tree.
    Mapped {
        /// Under this the pages are keyed.
        id: FileId,
        /// Bytes that the extents cover, for `st_blocks`.
        data_bytes: u64,
    },
}

/// A stretch of a file that is one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte in the file.
    pub offset: u64,
    /// The chunk; the extent is as long as it is.
    pub chunk: ChunkRef,
}

impl Entry {
    /// Bytes of content that are stored, for `st_blocks`.
    pub fn data_bytes(&self) -> u64 {
        match &self.body {
            Body::File(Content::Inline(bytes)) => bytes.len() as u64,
            Body::File(Content::Extents(extents)) => extents.iter().map(|e| u64::from(e.chunk.bytes)).sum(),
            Body::File(Content::Mapped { data_bytes, .. }) => *data_bytes,
            Body::Symlink(target) => target.len() as u64,
            Body::File(Content::Hole)
            | Body::Directory { .. }
            | Body::BlockDevice(..)
            | Body::CharDevice(..)
            | Body::Fifo
            | Body::Socket
            | Body::Link(_) => 0,
        }
    }
}
