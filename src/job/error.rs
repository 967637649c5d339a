//! Why the desk cannot do its own work; why it refuses somebody else's is [`super::control::Refusal`].

use std::io;
use std::path::{Path, PathBuf};

use super::control::Reason;
use crate::base::{Class, Classed};

/// A failure of the journal, of a job's process, or on the way to a control file.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The operating system refused something.
    #[error("cannot {doing} {}: {error}", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        #[source]
        error: io::Error,
    },
    /// Another process holds the journal for longer than a write can take.
    #[error("another mount holds {} for too long; if it hangs, end it", path.display())]
    Held {
        /// The lock.
        path: PathBuf,
    },
    /// A newer amberfs has written the journal.
    #[error("{} has version {found}, this amberfs reads up to {newest}: use a newer one", path.display())]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that is understood.
        newest: u32,
    },
    /// The journal does not begin as one.
    #[error("{} is no journal of jobs: move it away, and a new one is begun", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The mount refused the commands.
    #[error("{reply}")]
    Refused {
        /// The errno that write(2) gave.
        errno: i32,
        /// What the mount says about it.
        reply: String,
    },
    /// Commands that would not reach the mount in one piece.
    #[error("{bytes} bytes of commands are too many: at most {limit} go in one batch")]
    TooLong {
        /// Bytes given.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
}

impl JobError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JobError {
        let path = path.to_owned();
        move |error| JobError::Io { doing, path, error }
    }

    /// What a caller of the control file is told when this stopped the command.
    pub fn reason(&self) -> Reason {
        match self.class() {
            Class::Exhausted => Reason::NoSpace,
            Class::NotFound
            | Class::Corrupt
            | Class::Transient
            | Class::Timeout
            | Class::Conflict
            | Class::Denied
            | Class::Unsupported
            | Class::Invalid
            | Class::Cancelled => Reason::Io,
        }
    }
}

impl Classed for JobError {
    fn class(&self) -> Class {
        match self {
            JobError::Io { error, .. } => Class::of_io(error),
            JobError::Held { .. } => Class::Conflict,
            JobError::Newer { .. } => Class::Unsupported,
            JobError::Foreign { .. } => Class::Corrupt,
            JobError::TooLong { .. } => Class::Invalid,
            JobError::Refused { errno, .. } => match *errno {
                libc::ENOENT => Class::NotFound,
                libc::EEXIST | libc::EBUSY | libc::ENOTEMPTY => Class::Conflict,
                libc::EACCES | libc::EPERM | libc::EROFS => Class::Denied,
                libc::EAGAIN => Class::Transient,
                libc::ENOSPC => Class::Exhausted,
                libc::EIO => Class::Transient,
                libc::ETIMEDOUT => Class::Timeout,
                _ => Class::Invalid,
            },
        }
    }
}
