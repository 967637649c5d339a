//! Sources that are put back to their points.
//!
//! ```text
//!  tree     random histories of a directory that is rolled back, against a naive memory of it
//!  changes  what only a rollback finds hard
//!  crash    every call to the store fails while a directory or a disk is rolled back
//! ```
//!
//! Random histories of disks that are rolled back are in `disks/model.rs`.

mod changes;
mod crash;
mod tree;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amberfs::base::Env;
use amberfs::capture::Options;
use amberfs::chain::SourceLog;
use amberfs::format::PointId;
use amberfs::format::log::{Commit, SourceRecord};
use amberfs::repo::Repo;
use amberfs::restore::rollback::{HOOK_LIMIT, RollbackOptions, RollbackProgress, Rolled, WantedRollback, rollback};
use amberfs::store::Store;

use crate::world::{World, later};

/// A rollback as it is unless somebody wants it otherwise, with its notes in `state`.
pub(crate) fn plain(state: &Path) -> RollbackOptions {
    RollbackOptions {
        safety_point: true,
        force: false,
        dry_run: false,
        verify: false,
        capture: Options { workers: Some(2), ..Options::default() },
        stop: Vec::new(),
        start: Vec::new(),
        hook_limit: HOOK_LIMIT,
        state: state.to_owned(),
        workers: Some(2),
    }
}

/// Why a rollback did not come to its end.
pub(crate) type Ended = Box<dyn std::error::Error>;

/// Rolls the source at `place` back to a point, as a process of its own would.
pub(crate) fn roll_back(
    (repo, env): (&Arc<Repo>, &Env),
    source: &SourceRecord,
    (place, to): (&Path, PointId),
    options: &RollbackOptions,
    progress: &RollbackProgress,
) -> Result<Rolled, Ended> {
    env.advance(Duration::from_secs(60));
    let log = SourceLog::open(repo.store().clone(), env.clone(), repo.id(), source.id);
    let state = log.load()?;
    let point = state.point(to).expect("an acknowledged point is gone");
    let wanted = WantedRollback { repo, log: &log, source, point, place, asked: "it" };
    Ok(rollback(&wanted, options, progress)?)
}

/// Who has read a source while it was put back has read a mixture of two points.
#[test]
fn a_capture_that_overlaps_a_rollback_does_not_commit() {
    let world = World::new(Store::memory(), Env::seeded(7, later()));
    let capture = |name: &str| {
        world.write("file", name);
        world.capture(&Options::default()).point
    };
    let (first, second) = (capture("first"), capture("second"));
    let early = world.log.begin().unwrap();
    let notes = tempfile::tempdir().unwrap();
    roll_back(
        (&world.repo, &world.env),
        &world.source,
        (&world.root(), first.id),
        &plain(notes.path()),
        &RollbackProgress::new(),
    )
    .unwrap();
    let commit = Commit { session: early, parent: Some(second.id), packs: 0, ..second.commit.clone() };
    let refused = world.log.commit(commit).unwrap_err().to_string();
    assert!(refused.contains("the oldest that may still commit"), "{refused}");
    let state = world.log.refresh().unwrap();
    assert_eq!(state.head().unwrap().id, first.id);
    // Whoever begins now builds on the point that it was put back to.
    assert_eq!(capture("third").commit.parent, Some(first.id));
}
