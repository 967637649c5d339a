//! Hands out file identities: each once in the life of a chain.

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
