//! How far a capture is, for whoever watches, and the way to stop it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Where a capture stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Not begun.
    Queued = 0,
    /// Reading the source, which must hold still for an exact point.
    Quiescing = 1,
    /// The source has been read and may change again.
    Captured = 2,
    /// What was read is on its way into the repository.
    Uploading = 3,
    /// The point exists.
    Committed = 4,
}

/// Shared between a capture and those who watch it; all methods may be called from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    files: AtomicU64,
    bytes: AtomicU64,
    problems: AtomicU64,
    stored_bytes: AtomicU64,
    expected_files: AtomicU64,
    expected_bytes: AtomicU64,
    cancelled: AtomicBool,
    path: Mutex<Vec<u8>>,
}

impl Progress {
    /// Of a capture that has not begun.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Queued,
            1 => Phase::Quiescing,
            2 => Phase::Captured,
            3 => Phase::Uploading,
            _ => Phase::Committed,
        }
    }

    /// Files dealt with, read or found unchanged.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes of the files dealt with.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Problems so far.
    pub fn problems(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// Bytes handed to the repository so far.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Files and bytes to expect: those of the previous point, or what a census has counted; none as long as nobody knows.
    pub fn expected(&self) -> Option<(u64, u64)> {
        let files = self.expected_files.load(Ordering::Relaxed);
        (files > 0).then(|| (files, self.expected_bytes.load(Ordering::Relaxed)))
    }

    /// The directory that is being walked, relative to the source, in bytes.
    pub fn path(&self) -> Vec<u8> {
        self.path.lock().clone()
    }

    /// Asks the capture to stop soon, without a point.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked it to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn expect(&self, files: u64, bytes: u64) {
        self.expected_bytes.store(bytes, Ordering::Relaxed);
        self.expected_files.store(files, Ordering::Relaxed);
    }

    pub(super) fn add_files(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_stored(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_problem(&self) {
        self.problems.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn at(&self, path: &[u8]) {
        let mut shown = self.path.lock();
        shown.clear();
        shown.extend_from_slice(path);
    }

    /// Starts over: the attempt so far has come to nothing.
    pub(super) fn restart(&self) {
        for count in [&self.files, &self.bytes, &self.problems, &self.stored_bytes, &self.expected_files] {
            count.store(0, Ordering::Relaxed);
        }
    }
}
