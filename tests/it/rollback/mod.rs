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

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amberfs::base::{Class, Env};
use amberfs::capture::Options;
use amberfs::chain::SourceLog;
use amberfs::format::PointId;
use amberfs::format::log::{Commit, SourceRecord};
use amberfs::repo::Repo;
use amberfs::restore::rollback::{HOOK_LIMIT, RollbackOptions, RollbackProgress, Rolled, WantedRollback, rollback};
use amberfs::store::Store;

use crate::world::{self, MANY_LINKS, World, later, lose_inode_of};

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
    let log = SourceLog::open(repo.store().clone(), env.clone(), repo.realm(), source.id);
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
    let commit = Commit { session: early, parent: Some(second.id), packs: 0, ..(*second.commit).clone() };
    let refused = world.log.commit(commit).unwrap_err().to_string();
    assert!(refused.contains("the oldest that may still commit"), "{refused}");
    let state = world.log.refresh().unwrap();
    assert_eq!(state.head().unwrap().id, first.id);
    // Whoever begins now builds on the point that it was put back to.
    assert_eq!(capture("third").commit.parent, Some(first.id));
}

/// Of what the source was, an inode that is lost costs its names; of what it is, everything, because nothing may be
/// changed of which nobody knows what it is.
#[test]
fn an_inode_that_is_lost_leaves_its_names_alone() {
    let place = tempfile::tempdir().unwrap();
    let repository = place.path().join("repository");
    let world = World::new(Store::create_local(&repository).unwrap(), Env::seeded(7, later()));
    let made = std::process::Command::new("bash").args(["-euc", MANY_LINKS]).current_dir(world.root()).status();
    assert!(made.unwrap().success());
    let capture = || world.capture(&Options { workers: Some(2), ..Options::default() }).point;
    let first = capture();
    for name in ["late/a", "late/b", "late/c"] {
        world.write(name, format!("{name} is longer now"));
    }
    capture();
    lose_inode_of(&repository, "late/b", 1);
    let rolled = |options: &RollbackOptions| {
        let repo = world::open(Store::local(&repository).unwrap(), world.env.clone()).unwrap();
        let there = (world.root(), first.id);
        roll_back((&repo, &world.env), &world.source, (&there.0, there.1), options, &RollbackProgress::new())
    };
    let notes = tempfile::tempdir().unwrap();
    let done = rolled(&plain(notes.path())).unwrap();
    let tree = done.tree.unwrap();
    // Beside it in the leaf stand inodes of `early`.
    let told: BTreeSet<_> = tree.problems.iter().map(|p| String::from_utf8_lossy(&p.path).into_owned()).collect();
    assert!(told.contains("late/b") && told.contains("other/b"), "{told:?}");
    let others = told.iter().filter(|path| !path.starts_with("early"));
    assert_eq!((others.count(), tree.removed), (2, 0), "{told:?}");
    assert_eq!(tree.failure(), Some(Class::Corrupt));
    let read = |name: &str| std::fs::read_to_string(world.root().join(name)).unwrap();
    assert_eq!((read("late/a"), read("late/c")), ("a\n".to_owned(), "c\n".to_owned()));
    assert_eq!((read("late/b"), read("other/b")), ("late/b is longer now".to_owned(), read("late/b")));

    // Without a safety point the newest one stands for what the source is.
    world.capture(&Options { full: true, ..Options::default() });
    lose_inode_of(&repository, "late/b", 0);
    let counted = rolled(&RollbackOptions { dry_run: true, ..plain(notes.path()) }).unwrap_err().to_string();
    assert!(counted.contains("read a hard link's inode") && counted.contains(".pack"), "{counted}");
}
