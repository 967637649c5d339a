//! How far a restore is, for whoever watches, and the way to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Shared between a restore and those who watch it; all methods may be called from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    problems: AtomicU64,
    verifying: AtomicBool,
    cancelled: AtomicBool,
    path: Mutex<Vec<u8>>,
    /// Behind so many names it is cancelled; 0: not.
    #[cfg(test)]
    cancelled_behind: u64,
}

impl Progress {
    /// Of a restore that has not begun.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Of a restore that is asked to stop when it has dealt with so many names.
    #[cfg(test)]
    pub(super) fn cancelled_behind(files: u64) -> Progress {
        let cancelled = AtomicBool::new(files == 0);
        Progress { cancelled_behind: files, cancelled, ..Progress::default() }
    }

    /// Names dealt with, directories not counted; from the start again when verifying begins.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes of the files dealt with, holes included; from the start again when verifying begins.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Problems so far.
    pub fn problems(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// Whether what was written is being read back.
    pub fn is_verifying(&self) -> bool {
        self.verifying.load(Ordering::Relaxed)
    }

    /// The directory that is being restored, relative to the target, in bytes.
    pub fn path(&self) -> Vec<u8> {
        self.path.lock().clone()
    }

    /// Asks the restore to stop soon; it can be continued.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked it to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        if self.files() == self.cancelled_behind {
            self.cancel();
        }
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_problem(&self) {
        self.problems.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn at(&self, path: &[u8]) {
        let mut shown = self.path.lock();
        shown.clear();
        shown.extend_from_slice(path);
    }

    pub(super) fn begin_verifying(&self) {
        self.files.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.verifying.store(true, Ordering::Relaxed);
    }
}
