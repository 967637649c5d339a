//! Why a restore ends before it is through.

use std::io;
use std::path::PathBuf;

use crate::base::{Class, Classed};
use crate::capture::CaptureError;
use crate::chain::ChainError;
use crate::repo::RepoError;
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
    /// There is nothing where the source was.
    #[error("there is no {} any more: amberfs restore SELECTOR --to {} makes it anew", path.display(), path.display())]
    NoSource {
        /// Where the source was.
        path: PathBuf,
    },
    /// The source has lost all of its files.
    #[error(
        "{} is empty, and its newest point is not: mount what belongs there, or use --force to fill what is there now",
        path.display()
    )]
    Vanished {
        /// Where the source is.
        path: PathBuf,
    },
    /// Something else took the source's place while it was captured.
    #[error("{} was replaced by another while its safety point was captured: nothing was written; try again", path.display())]
    Moved {
        /// Where the source is.
        path: PathBuf,
    },
    /// The device is not as large as the source was.
    #[error("{} has {has} bytes, and had {had} when it was captured last: if it is the source all the same, use --force", path.display())]
    Another {
        /// The device.
        path: PathBuf,
        /// Its bytes.
        has: u64,
        /// Bytes of the newest point.
        had: u64,
    },
    /// The point was deleted.
    #[error("{title} is not there any more: it was deleted (amberfs points --trash, amberfs undelete)")]
    Gone {
        /// The selector that names it.
        title: String,
    },
    /// What the source is now cannot be kept, because too much of it cannot be read.
    #[error(
        "{problems} files of the source cannot be captured as they are, too many to leave each of them alone: \
             make them readable, or use --force to roll them back without a copy"
    )]
    Unreadable {
        /// How many.
        problems: u64,
    },
    /// A loop device shows the image.
    #[error("{} is in use: {} shows it (losetup --detach)", path.display(), device.display())]
    Shown {
        /// The image.
        path: PathBuf,
        /// The loop device.
        device: PathBuf,
    },
    /// Another process rolls the source back now.
    #[error("another rollback of {} is under way: wait for its end", path.display())]
    Rolling {
        /// Where the source is.
        path: PathBuf,
    },
    /// A program has locked the image.
    #[error("{} is in use: a program has locked it (QEMU does); stop it, or give the source a stop hook", path.display())]
    Locked {
        /// The image.
        path: PathBuf,
    },
    /// A program that had to stop or start what uses the source did not do it.
    #[error("the {which} hook of the source, {program}, {why}")]
    Hook {
        /// `stop` or `start`.
        which: &'static str,
        /// The program.
        program: String,
        /// How it ended.
        why: String,
    },
    /// The point that would bring back what the source is now cannot be made.
    #[error("the source was left as it is, because its safety point cannot be captured: {0}")]
    Safety(#[source] CaptureError),
    /// The list of what a point could not capture cannot be read.
    #[error("the source was left as it is, because the problems of a point cannot be read: {0}")]
    Problems(#[source] RepoError),
    /// The source's log cannot be read, or takes no entry.
    #[error(transparent)]
    Log(#[from] ChainError),
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
    #[error("cancelled; the same command continues")]
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
            | RestoreError::Locked { .. }
            | RestoreError::Rolling { .. }
            | RestoreError::Vanished { .. }
            | RestoreError::Moved { .. }
            | RestoreError::Another { .. }
            | RestoreError::Unreadable { .. }
            | RestoreError::Shown { .. }
            | RestoreError::Busy { .. } => Class::Conflict,
            RestoreError::NoSource { .. } | RestoreError::Gone { .. } => Class::NotFound,
            RestoreError::Hook { .. } => Class::Transient,
            RestoreError::Safety(error) => error.class(),
            RestoreError::Problems(error) => error.class(),
            RestoreError::Log(error) => error.class(),
            RestoreError::TooSmall { .. } => Class::Exhausted,
            RestoreError::Differs { .. } => Class::Transient,
            RestoreError::InsideRepository { .. } => Class::Invalid,
            RestoreError::View(error) => error.class(),
            RestoreError::Unreachable { class, .. } => *class,
            RestoreError::Cancelled => Class::Cancelled,
        }
    }
}
