//! What a capture counts while it runs, and the problems that it lists.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::boundary::Barrier;
use super::stat::{Kind, Stat};
use crate::base::limits;
use crate::format::log::{Problem, Stats};

/// Directories that were not entered, though they lie in the source: each is an empty one in the point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotEntered {
    /// How many.
    pub count: u64,
    /// The first ones, relative to the root, in bytes, and why.
    pub first: Vec<(Vec<u8>, Barrier)>,
}

/// How many directories that were not entered are told by name.
const NOT_ENTERED_LISTED: usize = 10;

/// Counts of names and bytes; the walk adds, the recorder takes back what failed.
#[derive(Debug, Default)]
pub(super) struct Counts {
    not_entered: Mutex<NotEntered>,
    files: AtomicU64,
    directories: AtomicU64,
    others: AtomicU64,
    bytes: AtomicU64,
    changed_bytes: AtomicU64,
}

impl Counts {
    fn of(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::File => &self.files,
            Kind::Directory => &self.directories,
            Kind::Symlink | Kind::BlockDevice | Kind::CharDevice | Kind::Fifo | Kind::Socket => &self.others,
        }
    }

    /// Counts a name.
    pub(super) fn add_name(&self, kind: Kind) {
        self.of(kind).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a directory that is not entered.
    pub(super) fn bar(&self, path: Vec<u8>, barrier: Barrier) {
        let mut not_entered = self.not_entered.lock();
        not_entered.count += 1;
        if not_entered.first.len() < NOT_ENTERED_LISTED {
            not_entered.first.push((path, barrier));
        }
    }

    /// The directories that were not entered.
    pub(super) fn not_entered(&self) -> NotEntered {
        self.not_entered.lock().clone()
    }

    /// Counts an inode's bytes.
    pub(super) fn add_bytes(&self, stat: &Stat) {
        if stat.kind == Kind::File {
            self.bytes.fetch_add(stat.meta.size, Ordering::Relaxed);
        }
    }

    /// Counts bytes of a file cut at fixed offsets that are not as the parent has them.
    pub(super) fn add_changed(&self, bytes: u64) {
        self.changed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that are not as the parent has them.
    pub(super) fn changed(&self) -> u64 {
        self.changed_bytes.load(Ordering::Relaxed)
    }

    /// Takes a name back.
    pub(super) fn drop_name(&self, kind: Kind) {
        self.of(kind).fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes an inode's bytes back.
    pub(super) fn drop_bytes(&self, stat: &Stat) {
        if stat.kind == Kind::File {
            self.bytes.fetch_sub(stat.meta.size, Ordering::Relaxed);
        }
    }

    /// A file was of another size when it was read than when it was listed.
    pub(super) fn resize(&self, listed: u64, read: u64) {
        self.bytes.fetch_add(read.wrapping_sub(listed), Ordering::Relaxed);
    }

    /// The counts as a point keeps them.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            files: self.files.load(Ordering::Relaxed),
            directories: self.directories.load(Ordering::Relaxed),
            others: self.others.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }
}

/// The problems of a capture: the first ones by name, all of them counted.
#[derive(Debug, Default)]
pub(super) struct Problems {
    listed: Vec<Problem>,
    bytes: usize,
    count: u64,
}

impl Problems {
    /// Adds one.
    pub(super) fn add(&mut self, problem: Problem) {
        self.count += 1;
        let bytes = problem.path.len() + problem.detail.len();
        if self.listed.len() < limits::PROBLEMS_MAX && self.bytes + bytes <= limits::PROBLEMS_BYTES_MAX {
            self.bytes += bytes;
            self.listed.push(problem);
        }
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Those that are listed.
    pub(super) fn listed(&self) -> &[Problem] {
        &self.listed
    }

    /// Those that are listed.
    pub(super) fn into_listed(self) -> Vec<Problem> {
        self.listed
    }
}
