//! Why a capture yields no point.

use std::io;
use std::path::PathBuf;

use crate::base::{Class, Classed};
use crate::chain::ChainError;
use crate::repo::RepoError;

/// A capture that failed as a whole. What fails for single files is a `Problem` of the point instead.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The source's root cannot be opened or listed.
    #[error("cannot read the source {}: {source}; check that it exists and is readable", String::from_utf8_lossy(path))]
    Root {
        /// The root, in bytes.
        path: Vec<u8>,
        /// What the system said.
        source: io::Error,
    },
    /// The machine has no descriptors or no memory left: that says nothing of the file that was to be read.
    #[error(
        "cannot read {}: {source}; allow more (`ulimit -n`) or run fewer programs at once; nothing was committed",
        String::from_utf8_lossy(path)
    )]
    Machine {
        /// Relative to the source's root, in bytes.
        path: Vec<u8>,
        /// What the system said.
        source: io::Error,
    },
    /// The source lies in an amberfs mount.
    #[error("{} lies in an amberfs mount: capture the original instead", path.display())]
    InsideAmberfs {
        /// The source's root.
        path: PathBuf,
    },
    /// The source is the repository, or lies in it.
    #[error("{} lies in the repository itself: a repository cannot be captured into itself", path.display())]
    InsideRepository {
        /// The source's root.
        path: PathBuf,
    },
    /// An exclude pattern has no meaning.
    #[error("the exclude pattern `{pattern}` is wrong: {why}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of exclude patterns cannot be read.
    #[error("cannot read the exclude file {}: {source}", path.display())]
    PatternFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The repository could not be read or written.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The source's log could not be read or written.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The source is of another kind.
    #[error("{name} is a {kind}: {advice}")]
    Kind {
        /// The source's name.
        name: String,
        /// What it is.
        kind: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// A disk cannot be read to its end, or is none.
    #[error("cannot read the disk {}: {source}; nothing was committed", path.display())]
    Disk {
        /// The disk.
        path: PathBuf,
        /// What the system said, and where.
        source: io::Error,
    },
    /// A chunk of a disk cannot have this size.
    #[error("a disk's chunks cannot have {given} bytes: give a power of two from 16 KiB to 1 MiB")]
    ChunkBytes {
        /// As given.
        given: u32,
    },
    /// A stream's file name cannot be one.
    #[error("{name:?} cannot be a file's name: give 1 to 255 bytes without `/` that are not `.` or `..`")]
    StreamName {
        /// As given.
        name: String,
    },
    /// The stream that was to be captured failed.
    #[error("cannot read the stream: {source}; nothing was committed")]
    Stream {
        /// What the system said.
        source: io::Error,
    },
    /// The parent turned out damaged when the stream had been read, and a stream cannot be read twice.
    #[error("the stream was read, and nothing was committed: {why}; send it again with --full")]
    StreamSpent {
        /// What is wrong with the parent.
        why: String,
    },
    /// Somebody asked for the capture to stop.
    #[error("the capture was cancelled; nothing was committed")]
    Cancelled,
}

impl Classed for CaptureError {
    fn class(&self) -> Class {
        match self {
            CaptureError::Root { source, .. }
            | CaptureError::Machine { source, .. }
            | CaptureError::PatternFile { source, .. }
            | CaptureError::Disk { source, .. }
            | CaptureError::Stream { source } => Class::of_io(source),
            CaptureError::InsideAmberfs { .. }
            | CaptureError::InsideRepository { .. }
            | CaptureError::Pattern { .. } => Class::Invalid,
            CaptureError::Repo(source) => source.class(),
            CaptureError::Chain(source) => source.class(),
            CaptureError::Kind { .. } | CaptureError::StreamName { .. } | CaptureError::ChunkBytes { .. } => {
                Class::Invalid
            }
            CaptureError::StreamSpent { .. } => Class::Corrupt,
            CaptureError::Cancelled => Class::Cancelled,
        }
    }
}
