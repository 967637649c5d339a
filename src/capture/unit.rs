//! Units: the pieces into which a capture's work is cut, and what comes out of them.
//!
//! The walk makes units in traversal order and numbers them; workers take them in any order; the
//! recorder takes the results in order again. A unit holds either names whose files together fill
//! a few frames, or a slice of one large file, so memory is bounded by the units under way.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::chunk::Grid;
use super::directory::Directory;
use super::error::CaptureError;
use super::stat::Stat;
use crate::format::entry::{Entry, Xattr};
use crate::format::frame::EncodedFrame;
use crate::format::log::Problem;
use crate::format::map::MapExtent;
use crate::format::pack::PackedChunk;
use crate::format::{ChunkHash, ChunkRef, FileId, FrameOrdinal, Key, PackId};

/// A frame of the chain, as dedup thinks of it.
pub(super) type FrameId = (PackId, FrameOrdinal);

/// The frame that holds `chunk`.
pub(super) fn frame_of(chunk: &ChunkRef) -> FrameId {
    (chunk.frame.pack, chunk.frame.ordinal)
}

/// A place in the tree with what stands there before and what shall stand there after.
#[derive(Debug)]
pub(super) struct Change {
    /// Where.
    pub(super) key: Key,
    /// The parent's entry.
    pub(super) old: Option<Entry>,
    /// The point's entry; none to remove it.
    pub(super) new: Option<Entry>,
}

/// A piece of work.
#[derive(Debug)]
pub(super) struct Unit {
    /// Its place in traversal order.
    pub(super) number: u64,
    /// Bytes that it may hold in memory, for the bound on all units under way.
    pub(super) weight: usize,
    /// What is to be done, in order.
    pub(super) jobs: Vec<Job>,
}

/// One thing to be done.
#[derive(Debug)]
pub(super) enum Job {
    /// Known already; only to be recorded.
    Change(Change),
    /// Something could not be captured; what stood there goes.
    Failed(FailedOutcome),
    /// Something was captured, but not all of it.
    Problem(Problem),
    /// One of several names of an inode.
    Link(LinkJob),
    /// A name to be opened and read whole.
    Read(Box<ReadJob>),
    /// The beginning of a large file or stream; its slices and its end follow before any other begins.
    Begin(BeginJob),
    /// A part of a large file or stream.
    Slice(SliceJob),
    /// The end of a large file or stream.
    End(Box<EndJob>),
}

/// One of several names of an inode whose record is read in this capture: it stands or falls with it.
#[derive(Debug)]
pub(super) struct LinkJob {
    /// The name's entry.
    pub(super) change: Change,
    /// The inode.
    pub(super) inode: FileId,
    /// What it was when it was listed.
    pub(super) stat: Stat,
    /// For messages.
    pub(super) path: Vec<u8>,
}

/// A name to be opened and read whole: anything but a directory or a large file.
#[derive(Debug)]
pub(super) struct ReadJob {
    /// Where it is.
    pub(super) directory: Arc<Directory>,
    /// Its name there.
    pub(super) name: Vec<u8>,
    /// How many names the walk had passed when it came here.
    pub(super) position: u64,
    /// What it was when it was listed.
    pub(super) stat: Stat,
    /// Where its entry goes.
    pub(super) key: Key,
    /// What the parent has there.
    pub(super) old: Option<Entry>,
    /// Whether the entry is the record of an inode with several names: then it must be that very inode.
    pub(super) inode: Option<FileId>,
    /// Whether metadata says that content is likely the parent's.
    pub(super) touched: bool,
    /// Whether the walk has come back to it: then what can be read is taken.
    pub(super) again: bool,
}

/// The beginning of a large file or stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct BeginJob {
    /// Under this its pages are kept, should it have any.
    pub(super) map: FileId,
    /// The grid, if it is cut at fixed offsets.
    pub(super) grid: Option<Grid>,
    /// Whether the parent keeps pages under the same identity.
    pub(super) mapped: bool,
}

/// A part of a large file or stream.
#[derive(Debug)]
pub(super) enum SliceJob {
    /// Read and cut by content already.
    Cut {
        /// The bytes.
        data: Vec<u8>,
        /// The chunks in them.
        cuts: Vec<Cut>,
    },
    /// To be read, cut at fixed offsets.
    Fixed {
        /// The file.
        file: Arc<File>,
        /// The part of it.
        part: Range<u64>,
        /// What the parent has in this part, ascending.
        known: Vec<MapExtent>,
        /// How it is cut.
        grid: Grid,
    },
    /// As the parent has it: not read.
    Kept(Vec<MapExtent>),
}

/// A chunk in a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// First byte in the file.
    pub(super) offset: u64,
    /// Where it is in the buffer.
    pub(super) place: Range<usize>,
}

/// The end of a large file or stream.
#[derive(Debug)]
pub(super) struct EndJob {
    /// Where its entry goes.
    pub(super) key: Key,
    /// What the parent has there.
    pub(super) old: Option<Entry>,
    /// The file, to be asked whether it changed meanwhile; a stream has none.
    pub(super) file: Option<Arc<File>>,
    /// What it was when it was opened; of a stream, what it is now.
    pub(super) stat: Stat,
    /// Its attributes.
    pub(super) xattrs: Vec<Xattr>,
    /// For messages.
    pub(super) path: Vec<u8>,
    /// Why it could not be read to its end, if so.
    pub(super) failed: Option<Problem>,
    /// Whether the entry is an inode's record.
    pub(super) inode: Option<FileId>,
    /// Whether metadata says that content is likely the parent's.
    pub(super) touched: bool,
    /// Whether an entry with the parent's content stays as it is, times included.
    pub(super) only_content: bool,
}

/// What has become of a unit.
#[derive(Debug)]
pub(super) struct Done {
    /// The unit's number.
    pub(super) number: u64,
    /// The unit's weight.
    pub(super) weight: usize,
    /// Frames to be appended, in order.
    pub(super) frames: Vec<NewFrame>,
    /// Results, in the order of the jobs.
    pub(super) results: Vec<Outcome>,
    /// Bytes read from the source.
    pub(super) read_bytes: u64,
    /// Bytes of cells that are not as the parent has them.
    pub(super) changed_bytes: u64,
}

/// A frame to be appended.
#[derive(Debug)]
pub(super) struct NewFrame {
    /// The frame.
    pub(super) frame: EncodedFrame,
    /// What it holds.
    pub(super) chunks: Vec<PackedChunk>,
}

/// What has become of a job.
#[derive(Debug)]
pub(super) enum Outcome {
    /// To be recorded as it is.
    Change(Change),
    /// To be removed, and listed as a problem; what it was counted as, if it was.
    Failed(FailedOutcome),
    /// To be listed.
    Problem(Problem),
    /// One of several names of an inode.
    Link(LinkJob),
    /// A name that was read.
    Read(Box<ReadOutcome>),
    /// A file that has grown beyond what is read whole since it was listed.
    Grown(Box<ReadJob>),
    /// The capture cannot go on.
    Halted(CaptureError),
    /// A large file begins.
    Begin(BeginJob),
    /// A part of the large file under way, and why it is not all of it.
    Slice(Vec<Piece>, Option<io::Error>),
    /// A part of the large file under way that is as the parent has it.
    Kept(Vec<MapExtent>),
    /// Its end.
    End(Box<EndJob>),
}

/// Something that could not be captured.
#[derive(Debug)]
pub(super) struct FailedOutcome {
    /// What stood there goes.
    pub(super) change: Change,
    /// Why.
    pub(super) problem: Problem,
    /// What it was counted as.
    pub(super) counted: Option<Stat>,
    /// The inode whose names fall with it.
    pub(super) inode: Option<FileId>,
}

/// A name that was read.
#[derive(Debug)]
pub(super) struct ReadOutcome {
    /// What was to be read.
    pub(super) job: ReadJob,
    /// Its entry, complete but for content in chunks.
    pub(super) entry: Entry,
    /// Content in chunks.
    pub(super) pieces: Vec<Piece>,
    /// What did not go well though something was read.
    pub(super) problem: Option<Problem>,
}

/// A chunk of a file and where it will be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// First byte in the file.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) bytes: u32,
    /// Its identity.
    pub(super) hash: ChunkHash,
    /// Where it is.
    pub(super) place: Place,
}

/// Where a chunk is, as far as a worker can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In the chain.
    Known(ChunkRef),
    /// In a frame of this unit: its index there, and the first byte in it.
    New(usize, u32),
    /// In a frame of an earlier unit that was under way at the same time.
    Claimed,
}
