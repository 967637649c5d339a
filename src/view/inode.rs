//! A file of a point: its entry with its place in key order, links already followed.

use crate::format::EntryOrdinal;
use crate::format::entry::{Body, Content, Entry};
use crate::format::leaf::Entries;
use crate::repo::tree::Item;
use crate::view::namespace::{Attr, FileKind, NodeId};

/// A file of a point. Never a link: the inode record behind it.
#[derive(Debug, Clone)]
pub struct Inode {
    item: Item<Entries>,
}

/// What `st_blksize` and `st_blocks` assume that a filesystem allocates at once, in bytes.
const BLOCK_BYTES: u64 = 4096;

impl Inode {
    pub(super) fn new(item: Item<Entries>) -> Inode {
        Inode { item }
    }

    /// Its place among all entries of the point.
    pub fn ordinal(&self) -> EntryOrdinal {
        EntryOrdinal(self.item.rank())
    }

    /// Its entry.
    pub fn entry(&self) -> &Entry {
        self.item.value()
    }

    /// Its key.
    pub fn key(&self) -> &crate::format::Key {
        self.item.key()
    }

    /// Its type.
    pub fn kind(&self) -> FileKind {
        match self.entry().body {
            Body::Directory { .. } => FileKind::Directory,
            // A link never gets here; a hostile tree that makes one point to another shows an empty file.
            Body::File(_) | Body::Link(_) => FileKind::Regular,
            Body::Symlink(_) => FileKind::Symlink,
            Body::BlockDevice(..) => FileKind::BlockDevice,
            Body::CharDevice(..) => FileKind::CharDevice,
            Body::Fifo => FileKind::Fifo,
            Body::Socket => FileKind::Socket,
        }
    }

    /// What `stat` says of it, under the node id `node`.
    pub fn attr(&self, node: NodeId) -> Attr {
        let entry = self.entry();
        let meta = &entry.meta;
        let blocks = match &entry.body {
            Body::Directory { .. } => meta.size.div_ceil(512),
            Body::File(Content::Hole) => 0,
            Body::File(_) => entry.data_bytes().div_ceil(BLOCK_BYTES) * (BLOCK_BYTES / 512),
            Body::Symlink(_)
            | Body::BlockDevice(..)
            | Body::CharDevice(..)
            | Body::Fifo
            | Body::Socket
            | Body::Link(_) => 0,
        };
        let device = match entry.body {
            Body::BlockDevice(major, minor) | Body::CharDevice(major, minor) => (major, minor),
            _ => (0, 0),
        };
        Attr {
            node,
            kind: self.kind(),
            permissions: meta.permissions,
            uid: meta.uid,
            gid: meta.gid,
            size: meta.size,
            blocks,
            links: meta.links,
            device,
            mtime: meta.mtime,
            atime: meta.atime,
            ctime: meta.ctime,
        }
    }
}
