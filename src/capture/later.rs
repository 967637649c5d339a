//! What the walk comes back to when it has been everywhere.
//!
//! A hard-linked inode is read through the name that was met first. If that name is gone or leads elsewhere by
//! then, the inode is read through another. A file that has outgrown what a worker reads whole is read in
//! slices. Both are rare and known only to the recorder, so they wait here for the walk's end.
//!
//! Memory follows the names that wait; no directory is kept open for them.

use parking_lot::Mutex;

use super::stat::Stat;
use super::unit::LinkJob;
use crate::format::Key;
use crate::format::entry::Entry;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Later(Mutex<Vec<Deferred>>);

/// Something to come back to.
#[derive(Debug)]
pub(super) enum Deferred {
    /// A file that was too large for a worker.
    File(Box<Grown>),
    /// A name of an inode whose record could not be read through another name.
    Link(Box<LinkJob>),
}

/// A file that was too large for a worker.
#[derive(Debug)]
pub(super) struct Grown {
    /// Relative to the root, in bytes.
    pub(super) path: Vec<u8>,
    /// As it was counted.
    pub(super) stat: Stat,
    /// Where its entry goes.
    pub(super) key: Key,
    /// What the parent has there.
    pub(super) old: Option<Entry>,
}

impl Later {
    /// Lets something wait.
    pub(super) fn push(&self, deferred: Deferred) {
        self.0.lock().push(deferred);
    }

    /// All that waits, in the order in which it came.
    pub(super) fn take(&self) -> Vec<Deferred> {
        std::mem::take(&mut self.0.lock())
    }
}
