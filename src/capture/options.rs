//! How a capture is wanted.

use super::exclude::Excludes;

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
    /// Threads that read and compress; none lets the machine's size decide.
    pub workers: Option<usize>,
}
