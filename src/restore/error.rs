//! Why a restore ends before it is through.

use std::io;
use std::path::PathBuf;

use crate::base::{Class, Classed};
use crate::view::namespace::ViewError;

/// A restore that failed as a whole. What fails for single files is a `Problem` of the outcome instead.
///
/// After each of these the same command continues where it ended.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target cannot be opened, made or listed.
    #[error("cannot use {} as the target: {source}", path.display())]
    Target {
        /// The target.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The target has something in it that this restore did not put there.
    #[error(
        "{} is not empty: name a new or empty directory, or use --force to replace what has the same names",
        path.display()
    )]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// What is to be restored has the name of something in the target.
    #[error("{} exists already: use --force to replace it", path.display())]
    Exists {
        /// The name in the target.
        path: PathBuf,
    },
    /// The target holds a restore of something else that was interrupted.
    #[error(
        "{} holds an unfinished restore of {of}: finish it by restoring that again, or use --force to restore over it",
        path.display()
    )]
    Unfinished {
        /// The target.
        path: PathBuf,
        /// What was being restored there.
        of: String,
    },
    /// The device is mounted, or used by something else.
    #[error("{} is in use: unmount it, and stop what else uses it (swap, RAID, LVM) or its partitions", path.display())]
    InUse {
        /// The device.
        path: PathBuf,
    },
    /// The device has less room than the disk had.
    #[error("{} has {has} bytes, the disk needs {needs}: restore to a larger one", path.display())]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its bytes.
        has: u64,
        /// Bytes of what is to be restored.
        needs: u64,
    },
    /// The device holds something.
    #[error("{} is not empty: wipe it (wipefs, blkdiscard), or use --force to overwrite it", path.display())]
    DeviceNotEmpty {
        /// The device.
        path: PathBuf,
    },
    /// What was written is not what was read back.
    #[error("read back, the disk differs at byte {at} from what was written: the target cannot be trusted")]
    Differs {
        /// The first such byte of the disk, or of its chunk.
        at: u64,
    },
    /// Another process restores into the target now.
    #[error("another restore into {} is under way: wait for its end", path.display())]
    Busy {
        /// The target.
        path: PathBuf,
    },
    /// The target is the repository, or lies in it.
    #[error("{} lies in the repository itself: restore to another directory", path.display())]
    InsideRepository {
        /// The target.
        path: PathBuf,
    },
    /// What is to be restored cannot be found in the point.
    #[error("cannot read what is to be restored: {0}")]
    View(#[from] ViewError),
    /// The target's filesystem, or the process, cannot go on.
    #[error("cannot {action} {path}: {source}; after the cause is removed, the same command continues")]
    Write {
        /// What was being done, as a verb.
        action: &'static str,
        /// Relative to the target.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The repository answers no more.
    #[error("the repository cannot be read any more: {why}; the same command continues later")]
    Unreachable {
        /// The last failure.
        why: String,
        /// Its class.
        class: Class,
    },
    /// Somebody asked for the restore to stop.
    #[error("the restore was cancelled; the same command continues it")]
    Cancelled,
}

impl Classed for RestoreError {
    fn class(&self) -> Class {
        match self {
            RestoreError::Target { source, .. } | RestoreError::Write { source, .. } => Class::of_io(source),
            RestoreError::NotEmpty { .. }
            | RestoreError::Exists { .. }
            | RestoreError::Unfinished { .. }
            | RestoreError::DeviceNotEmpty { .. }
            | RestoreError::InUse { .. }
            | RestoreError::Busy { .. } => Class::Conflict,
            RestoreError::TooSmall { .. } => Class::Exhausted,
            RestoreError::Differs { .. } => Class::Transient,
            RestoreError::InsideRepository { .. } => Class::Invalid,
            RestoreError::View(error) => error.class(),
            RestoreError::Unreachable { class, .. } => *class,
            RestoreError::Cancelled => Class::Cancelled,
        }
    }
}
