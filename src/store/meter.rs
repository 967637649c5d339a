//! How many requests of which kind went to the store, and how many bytes they moved.
//!
//! Requests are what a remote store charges and waits for, so their number is a promise that tests
//! assert. One call of a [`Store`](super::Store) method is one request, except that an upload is
//! one per part plus beginning and end, and that a remote listing goes by pages.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Write a whole object that must not exist yet.
    Create,
    /// Read a whole object.
    Get,
    /// Read a range.
    Range,
    /// Read the last bytes.
    Tail,
    /// Ask for the size.
    Size,
    /// List names.
    List,
    /// Begin an upload in parts.
    Begin,
    /// Send one part.
    Part,
    /// Make the uploaded object visible.
    Finish,
    /// Give an upload up.
    Abort,
    /// Delete an object.
    Delete,
}

impl Operation {
    /// All of them, in the order of their declaration.
    pub const ALL: [Operation; 11] = [
        Operation::Create,
        Operation::Get,
        Operation::Range,
        Operation::Tail,
        Operation::Size,
        Operation::List,
        Operation::Begin,
        Operation::Part,
        Operation::Finish,
        Operation::Abort,
        Operation::Delete,
    ];

    /// A stable lower-case name, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Get => "get",
            Operation::Range => "range",
            Operation::Tail => "tail",
            Operation::Size => "size",
            Operation::List => "list",
            Operation::Begin => "begin",
            Operation::Part => "part",
            Operation::Finish => "finish",
            Operation::Abort => "abort",
            Operation::Delete => "delete",
        }
    }

    /// Whether it reads one object, so that "no such file" speaks of that object.
    pub(super) fn names_one_to_read(self) -> bool {
        !self.writes() && self != Operation::List
    }

    /// Whether it changes what the store holds or will hold.
    pub fn writes(self) -> bool {
        match self {
            Operation::Create
            | Operation::Begin
            | Operation::Part
            | Operation::Finish
            | Operation::Abort
            | Operation::Delete => true,
            Operation::Get | Operation::Range | Operation::Tail | Operation::Size | Operation::List => false,
        }
    }
}

impl fmt::Display for Operation {
    /// As a verb that an object's name can follow.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Create => "create",
            Operation::Get => "read",
            Operation::Range => "read a range of",
            Operation::Tail => "read the end of",
            Operation::Size => "ask the size of",
            Operation::List => "list",
            Operation::Begin => "begin to upload",
            Operation::Part => "upload a part of",
            Operation::Finish => "finish the upload of",
            Operation::Abort => "give up the upload of",
            Operation::Delete => "delete",
        })
    }
}

/// Counters that many threads add to.
#[derive(Debug, Default)]
pub struct Meter {
    counters: [Counter; Operation::ALL.len()],
}

#[derive(Debug, Default)]
struct Counter {
    requests: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
    hedges: AtomicU64,
}

impl Meter {
    /// Counts a request, when it is made.
    pub(super) fn request(&self, operation: Operation) {
        self.counter(operation).requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that a request moved, either way.
    pub(super) fn moved(&self, operation: Operation, bytes: u64) {
        self.counter(operation).bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a request that ended in an error.
    pub(super) fn failure(&self, operation: Operation) {
        self.counter(operation).failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that failed, and the one that is made in its place.
    pub(super) fn retry(&self, operation: Operation) {
        self.failure(operation);
        self.request(operation);
        self.counter(operation).retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that is made because another is slow.
    pub(super) fn hedge(&self, operation: Operation) {
        self.request(operation);
        self.counter(operation).hedges.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts at this moment.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counts: Operation::ALL.map(|operation| {
                let counter = self.counter(operation);
                Count {
                    requests: counter.requests.load(Ordering::Relaxed),
                    failures: counter.failures.load(Ordering::Relaxed),
                    bytes: counter.bytes.load(Ordering::Relaxed),
                    retries: counter.retries.load(Ordering::Relaxed),
                    hedges: counter.hedges.load(Ordering::Relaxed),
                }
            }),
        }
    }

    fn counter(&self, operation: Operation) -> &Counter {
        // The discriminants are the places in `ALL`; a test compares them.
        &self.counters[operation as usize]
    }
}

/// The counts of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests made.
    pub requests: u64,
    /// Those that ended in an error; a missing object is one.
    pub failures: u64,
    /// Bytes moved, either way.
    pub bytes: u64,
    /// Of the requests, those made because an earlier one had failed.
    pub retries: u64,
    /// Of the requests, those made because an earlier one was slow.
    pub hedges: u64,
}

/// All counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    counts: [Count; Operation::ALL.len()],
}

impl Snapshot {
    /// The counts of `operation`.
    pub fn of(&self, operation: Operation) -> Count {
        self.counts[operation as usize]
    }

    /// Requests of any kind.
    pub fn requests(&self) -> u64 {
        self.counts.iter().map(|count| count.requests).sum()
    }

    /// Bytes read from the store.
    pub fn bytes_read(&self) -> u64 {
        self.sum_bytes(false)
    }

    /// Bytes written to the store.
    pub fn bytes_written(&self) -> u64 {
        self.sum_bytes(true)
    }

    /// What has been added since `earlier`.
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        let mut counts = self.counts;
        for (count, before) in counts.iter_mut().zip(&earlier.counts) {
            count.requests = count.requests.saturating_sub(before.requests);
            count.failures = count.failures.saturating_sub(before.failures);
            count.bytes = count.bytes.saturating_sub(before.bytes);
            count.retries = count.retries.saturating_sub(before.retries);
            count.hedges = count.hedges.saturating_sub(before.hedges);
        }
        Snapshot { counts }
    }

    fn sum_bytes(&self, writes: bool) -> u64 {
        Operation::ALL.iter().filter(|op| op.writes() == writes).map(|op| self.of(*op).bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_counter_of_its_own() {
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(place, operation as usize);
        }
    }

    #[test]
    fn a_difference_counts_what_came_between() {
        let meter = Meter::default();
        meter.request(Operation::Get);
        let before = meter.snapshot();
        meter.request(Operation::Get);
        meter.moved(Operation::Get, 7);
        meter.request(Operation::Create);
        meter.moved(Operation::Create, 5);
        meter.failure(Operation::Create);
        let between = meter.snapshot().since(&before);
        assert_eq!(between.of(Operation::Get), Count { requests: 1, failures: 0, bytes: 7, ..Count::default() });
        assert_eq!(between.of(Operation::Create), Count { requests: 1, failures: 1, bytes: 5, ..Count::default() });
        assert_eq!((between.requests(), between.bytes_read(), between.bytes_written()), (2, 7, 5));
    }
}
