//! The directories that a mount shows, as a trait: what `fuse` serves and what tests read without a kernel.
//!
//! A [`NodeId`] is both the kernel's node id and `st_ino`. Three kinds share the 64 bits:
//!
//! ```text
//! 0 | source 11 bits | point 20 bits | entry ordinal 32 bits    content; the same in every mount
//! 10 | slot 22 bits | entry ordinal 40 bits                     content whose numbers exceed the above; per mount
//! 110 | 61 bits                                                 generated: directories of points, links, info.json
//! 111 | 61 bits                                                 the mount's own: `.amberfs` (never in a namespace)
//! 1                                                             the root of the mount
//! ```
//! Content never changes under its id. A generated thing gets a new id for each version of its
//! content, because the kernel caches link targets and sizes per node.

use bytes::Bytes;

use crate::base::{Class, Classed, FileTime};
use crate::format::FormatError;

/// A node of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of the mount.
    pub const ROOT: NodeId = NodeId(1);

    /// The bits that mark a generated node of the view.
    pub const GENERATED: u64 = 0b110 << 61;

    /// The bits that mark a node of the mount's own directory, which no namespace has.
    pub const DESK: u64 = 0b111 << 61;

    /// Whether this is content of a point: what it holds never changes under this id.
    pub fn is_content(self) -> bool {
        self != NodeId::ROOT && self.0 >> 62 != 0b11
    }

    /// Whether this is a node of the mount's own directory.
    pub fn is_desk(self) -> bool {
        self.0 >> 61 == 0b111
    }
}

/// File types, as `stat` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What `stat` says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// The node; also `st_ino`.
    pub node: NodeId,
    /// Type.
    pub kind: FileKind,
    /// `mode & 0o7777`.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes that hold data.
    pub blocks: u64,
    /// Link count.
    pub links: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Last change of content.
    pub mtime: FileTime,
    /// Last access.
    pub atime: FileTime,
    /// Last change of the inode.
    pub ctime: FileTime,
}

/// A node with what the kernel may remember about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The node.
    pub attr: Attr,
    /// Whether name and attributes stay as they are for ever; otherwise they are asked for every time.
    pub immutable: bool,
}

/// One item of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name.
    pub name: Vec<u8>,
    /// Pass this to continue behind this item; stable for as long as the directory's node id is.
    /// Between 1 and 2^62: a mount adds offsets of its own, and the kernel's are signed.
    pub next: u64,
    /// What it is; or the node of one whose inode is damaged: who asks for that is told why.
    pub found: Result<Found, NodeId>,
}

/// Where a seek goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// The first byte at or behind the offset that is stored.
    Data,
    /// The first byte at or behind the offset that is in a hole; the end of the file counts as one.
    Hole,
}

/// Why a node could not be answered for.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The directory has no such name, or the node does not exist. Never said of what cannot be read.
    #[error("no such file or directory")]
    NotFound,
    /// The operation does not apply to this kind of node.
    #[error("{0}")]
    WrongKind(WrongKind),
    /// A seek beyond the last data, or past the end.
    #[error("no data or hole at or behind this offset")]
    NoSuchOffset,
    /// A selector or time that means nothing.
    #[error("{0}")]
    Invalid(String),
    /// Stored bytes could not be had or are wrong; the text names object, point and path as far as known.
    #[error("{context}: {cause}")]
    Fault {
        /// What was being read.
        context: String,
        /// What failed.
        cause: Box<dyn ClassedError>,
    },
}

/// How an operation and a node disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongKind {
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// A symbolic link was needed.
    #[error("not a symbolic link")]
    NotSymlink,
    /// A regular file was needed.
    #[error("not a regular file")]
    NotRegular,
}

/// A classed error that can be kept and sent.
pub trait ClassedError: Classed + Send + Sync + 'static {}
impl<E: Classed + Send + Sync + 'static> ClassedError for E {}

impl Classed for ViewError {
    fn class(&self) -> Class {
        match self {
            ViewError::NotFound => Class::NotFound,
            ViewError::WrongKind(_) | ViewError::NoSuchOffset | ViewError::Invalid(_) => Class::Invalid,
            ViewError::Fault { cause, .. } => cause.class(),
        }
    }
}

impl ViewError {
    /// Stored content that contradicts its own metadata.
    pub(crate) fn contradiction(why: &str) -> ViewError {
        ViewError::from(FormatError::Malformed { what: "file content", why: why.to_owned() })
    }

    /// A fault while doing `context`.
    pub fn fault(context: impl Into<String>, cause: impl ClassedError) -> ViewError {
        ViewError::Fault { context: context.into(), cause: Box::new(cause) }
    }
}

impl From<FormatError> for ViewError {
    fn from(error: FormatError) -> ViewError {
        ViewError::fault("decode stored bytes", error)
    }
}

/// What a mount shows. Calls may come from many threads, block while they read from the store, and
/// end by the store's own deadlines.
pub trait Namespace: Send + Sync + 'static {
    /// The attributes of `node`.
    fn attr(&self, node: NodeId) -> Result<Found, ViewError>;

    /// The node `name` in the directory `dir`.
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Found, ViewError>;

    /// Hands the items of `dir` behind `after` (0: from the start) to `take`, in a stable order,
    /// until it returns false or the directory ends. `.` and `..` are not among them. In a generated
    /// directory only name, node and type of an item are certain; its other attributes are asked for.
    fn read_dir(&self, dir: NodeId, after: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), ViewError>;

    /// The directory that holds the directory `dir`; of the root, itself.
    fn parent(&self, dir: NodeId) -> Result<NodeId, ViewError>;

    /// The target of the symbolic link `node`.
    fn read_link(&self, node: NodeId) -> Result<Vec<u8>, ViewError>;

    /// Up to `bytes` bytes of the regular file `node` from `offset`; fewer only at its end.
    fn read(&self, node: NodeId, offset: u64, bytes: usize) -> Result<Bytes, ViewError>;

    /// Hands whole small files that stand behind the regular file `node` and have come with its content, so that no content has
    /// to be fetched for them, to `take`, in their order, until it returns false.
    fn beside(&self, _node: NodeId, _take: &mut dyn FnMut(NodeId, Bytes) -> bool) -> Result<(), ViewError> {
        Ok(())
    }

    /// All of the generated file `node`, shared with whoever else reads this version of it.
    fn read_generated(&self, node: NodeId) -> Result<Bytes, ViewError> {
        let size = usize::try_from(self.attr(node)?.attr.size).unwrap_or(usize::MAX);
        self.read(node, 0, size)
    }

    /// The first offset of data or hole at or behind `offset` in the regular file `node`.
    fn seek(&self, node: NodeId, offset: u64, to: SeekTo) -> Result<u64, ViewError>;

    /// The names of the extended attributes of `node`.
    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>, ViewError>;

    /// The value of the extended attribute `name` of `node`, or none if it has no such.
    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>, ViewError>;
}
