//! Hands out file identities: each once in a point and in the line of its parents.
//!
//! What a point and its parent both have under one identity is one file. Between points of different
//! lines an identity says nothing: every full point begins anew, and of two captures that go on from
//! the same parent at the same time, each gives out the same numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::FileId;

/// The next identity that nothing has used.
#[derive(Debug)]
pub(super) struct Identities {
    next: AtomicU64,
}

impl Identities {
    /// From `next` on.
    pub(super) fn from(next: FileId) -> Identities {
        Identities { next: AtomicU64::new(next.0.max(FileId::FIRST.0)) }
    }

    /// One that nothing has used.
    pub(super) fn fresh(&self) -> FileId {
        FileId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The first that is left.
    pub(super) fn next(&self) -> FileId {
        FileId(self.next.load(Ordering::Relaxed))
    }
}
