//! How a capture is wanted.

use std::num::NonZeroU32;

use super::exclude::Excludes;
use crate::base::limits;
use crate::format::log::Scope;

/// How a capture is wanted; [`Options::default`] takes all of one filesystem, incrementally if it can.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Start a new chain even if there is a point to build on.
    pub full: bool,
    /// The point's labels.
    pub labels: Vec<String>,
    /// Paths that are left out.
    pub excludes: Excludes,
    /// Of directories with a valid `CACHEDIR.TAG`, keep the tag only. Off by default, as in other tools.
    pub exclude_caches: bool,
    /// Enter other filesystems below the root.
    pub cross_filesystems: bool,
    /// The job that asked for the capture, if one did.
    pub job: Option<String>,
    /// Count the source ahead of a first capture, for who watches: see [`super::Progress::expected`].
    pub census: bool,
    /// Start a new chain when the one to build on has this many points.
    pub chain_max_points: Option<NonZeroU32>,
    /// Bytes of a disk's chunk, a power of two in [`limits::DISK_CHUNK_BYTES`]; none is 64 KiB.
    pub disk_chunk_bytes: Option<u32>,
    /// Threads that read and compress; none lets the machine's size decide.
    pub workers: Option<usize>,
}

impl Options {
    /// What of this a point records.
    pub(super) fn scope(&self) -> Scope {
        let lines = self.excludes.lines();
        let bytes: usize = lines.iter().map(String::len).sum();
        Scope {
            excludes: (bytes <= limits::SCOPE_BYTES_MAX).then(|| lines.to_vec()),
            exclude_caches: self.exclude_caches,
            cross_filesystems: self.cross_filesystems,
        }
    }
}
