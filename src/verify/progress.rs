//! How far a verification is, for whoever watches, and the way to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::VerifyError;

/// Shared between a verification and those who watch it; all methods may be called from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    objects: AtomicU64,
    expected_objects: AtomicU64,
    bytes: AtomicU64,
    expected_bytes: AtomicU64,
    points: AtomicU64,
    problems: AtomicU64,
    cancelled: AtomicBool,
    place: Mutex<String>,
}

impl Progress {
    /// Of a verification that has not begun.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Objects checked: log entries, checkpoints and packs.
    pub fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }

    /// Objects to check, as far as known; none before anything is.
    pub fn expected_objects(&self) -> Option<u64> {
        Some(self.expected_objects.load(Ordering::Relaxed)).filter(|objects| *objects > 0)
    }

    /// Bytes read.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes to read, when file contents are read too.
    pub fn expected_bytes(&self) -> Option<u64> {
        Some(self.expected_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Points whose trees have been walked.
    pub fn points(&self) -> u64 {
        self.points.load(Ordering::Relaxed)
    }

    /// Damaged objects found so far.
    pub fn problems(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// The object or point that is being looked at.
    pub fn place(&self) -> String {
        self.place.lock().clone()
    }

    /// Asks the verification to stop soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Ends the work when somebody asked for it.
    pub(super) fn check(&self) -> Result<(), VerifyError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(VerifyError::Cancelled) } else { Ok(()) }
    }

    pub(super) fn expect(&self, objects: u64, bytes: u64) {
        self.expected_objects.fetch_add(objects, Ordering::Relaxed);
        self.expected_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_objects(&self, objects: u64) {
        self.objects.fetch_add(objects, Ordering::Relaxed);
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_point(&self) {
        self.points.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_problem(&self) {
        self.problems.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn at(&self, place: impl FnOnce() -> String) {
        *self.place.lock() = place();
    }
}
