//! Counts a source ahead of its first capture, so that whoever watches learns how long it will take.
//!
//! A later capture expects what the point before it had, and needs no census.

use std::collections::HashSet;

use super::progress::Progress;
use super::stat::Kind;
use super::walk::{Step, Walk};

/// Walks to the end and tells `progress` what to expect; gives up without a word once `over` says so.
pub(super) fn count(mut walk: Walk, progress: &Progress, over: impl Fn() -> bool) {
    let (mut files, mut bytes) = (0, 0);
    // A file of several names is read once.
    let mut linked = HashSet::new();
    // A root that cannot be listed is the capture's to tell.
    while let Ok(Some(step)) = walk.step() {
        if over() {
            return;
        }
        if let Step::Name(_, stat) = step {
            files += 1;
            if !stat.has_links() || linked.insert(stat.identity) {
                bytes += if stat.kind == Kind::File { stat.meta.size } else { 0 };
            }
        }
    }
    progress.expect(files, bytes);
}
