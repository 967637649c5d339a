//! Reads a source as it is now and yields one committed point or nothing.
//!
//! ```text
//!  directory, stat, sys      an open directory and what the kernel says
//!  walk, exclude, boundary   what is there, in order, and what is left out
//!  census                    how much that is, for who watches a first capture
//!  merge, change, links      what of it is new, beside the parent point
//!  planner, worker, recorder units of work, done side by side, written down in order
//!  later                     what the walk comes back to at its end
//!  chunk, large, frames      where files are cut and how chunks share frames
//!  device, known             what a disk is, and what the parent has of it
//!  attempt, tree, stream, disk  a capture from the choice of its parent to its commit
//! ```

mod ahead;
mod attempt;
mod attributes;
mod boundary;
mod census;
mod change;
mod chunk;
mod claims;
mod content;
mod counts;
mod device;
mod directory;
mod disk;
mod error;
mod exclude;
mod frames;
mod identities;
mod known;
mod large;
mod later;
mod links;
mod merge;
mod options;
mod parent;
mod pipeline;
mod planner;
mod progress;
mod read;
mod recorder;
mod single;
mod stat;
mod stream;
mod sys;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod unit;
mod walk;
mod worker;

pub use attempt::Outcome;
pub use boundary::Barrier;
pub use change::RACY;
pub use counts::NotEntered;
pub use device::{loops_over, mounts_of};
pub use disk::{can_capture_disk, capture_disk};
pub use error::CaptureError;
pub use exclude::{CACHE_TAG, Excludes, is_cache_tag};
pub use options::Options;
pub use progress::{Phase, Progress};
pub use stream::capture_stream;
pub use tree::capture_tree;

use crate::format::log::{SourceKind, SourceRecord};

/// Refuses a source that is not of this kind.
fn must_be(source: &SourceRecord, wanted: SourceKind) -> Result<(), CaptureError> {
    let (kind, advice) = match source.kind {
        kind if kind == wanted => return Ok(()),
        SourceKind::Tree => ("tree", "capture it without --disk or --stdin"),
        SourceKind::Stream => ("stream", "capture it with --stdin"),
        SourceKind::Disk => ("disk", "capture it with --disk"),
    };
    Err(CaptureError::Kind { name: source.name.clone(), kind, advice })
}
