//! A crash at every single call to the store while a directory or a disk is rolled back, and single calls that fail.
//!
//! Whatever was interrupted: every point reads as it was, what the source was before is there or in a point, and
//! the same rollback, run again, makes the source what the point says.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use amberfs::base::{Env, FileTime};
use amberfs::capture::{Excludes, Options, Outcome, Progress, capture_disk, capture_tree};
use amberfs::chain::{Point, RepoLog, SourceLog, SourceState, origin};
use amberfs::format::PointId;
use amberfs::format::log::{SourceKind, SourceRecord};
use amberfs::repo::Repo;
use amberfs::restore::rollback::{RollbackOptions, RollbackProgress, Rolled, SAFETY_LABEL, unfinished};
use amberfs::store::fault::{Fault, Faults, Rule};
use amberfs::store::{Operation, Store};
use amberfs::view::MountView;
use amberfs::view::namespace::{FileKind, Namespace};

use super::{Ended, plain, roll_back};
use crate::disks::{self, CELL};
use crate::history::{Dice, next_tick_in};
use crate::world::{self, Manifest, later, node, real, same, shown, zero_settings};

/// What a source is at a time, as far as a rollback can put it back.
#[derive(Clone, PartialEq, Eq)]
enum State {
    Tree(Manifest),
    Disk(Vec<u8>),
}

struct Scenario {
    dir: tempfile::TempDir,
    env: Env,
    store: Store,
    source: SourceRecord,
    /// The points, and what the source was at each.
    points: Vec<(PointId, State)>,
    /// What it is now, which no point has.
    before: State,
}

impl State {
    fn of(mut tree: Manifest) -> State {
        for seen in tree.values_mut() {
            seen.ctime = FileTime { seconds: 0, nanos: 0 };
            seen.size = if seen.kind == FileKind::Directory { 0 } else { seen.size };
        }
        State::Tree(tree)
    }

    #[track_caller]
    fn same(&self, other: &State, what: &str) {
        match (self, other) {
            (State::Tree(expected), State::Tree(actual)) => same(expected, actual, what),
            (State::Disk(expected), State::Disk(actual)) => assert!(expected == actual, "{what}: other bytes"),
            _ => panic!("{what}: another kind of source"),
        }
    }
}

impl Scenario {
    fn new(kind: SourceKind) -> Scenario {
        let (dir, env, store) = (tempfile::tempdir().unwrap(), Env::seeded(7, later()), Store::memory());
        let repo = world::init(store.clone(), env.clone()).unwrap();
        let sources = RepoLog::open(store.clone(), env.clone(), repo.realm());
        let source = sources.add_source("it", kind, origin::here(b"/it")).unwrap();
        let mut scenario = Scenario { dir, env, store, source, points: Vec::new(), before: State::Disk(Vec::new()) };
        for step in 0..4 {
            scenario.arrange(step);
            next_tick_in(scenario.dir.path());
            let state = scenario.look();
            if step == 3 {
                scenario.before = state;
            } else {
                let point = scenario.capture(&repo, step == 2).point;
                scenario.points.push((point.id, state));
            }
        }
        scenario
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("place")
    }

    fn is_disk(&self) -> bool {
        self.source.kind == SourceKind::Disk
    }

    /// Brings the source into the state of a step.
    fn arrange(&self, step: u64) {
        let (place, mut dice) = (self.place(), Dice(step));
        if self.is_disk() {
            let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(place).unwrap();
            file.set_len([40, 70, 20, 50][step as usize] * CELL + 700).unwrap();
            file.write_all_at(&dice.bytes(5 * CELL), (3 + 2 * step) * CELL).unwrap();
            return file.write_all_at(&vec![0; CELL as usize], (4 + step) * CELL).unwrap();
        }
        let write = |name: &str, bytes: &[u8]| std::fs::write(place.join(name), bytes).unwrap();
        match step {
            0 => {
                std::fs::create_dir_all(place.join("d/sub")).unwrap();
                (0..6u64).for_each(|n| write(&format!("d/f{n}"), &dice.bytes(n * 700)));
                write("d/sub/large", &dice.bytes(300_000));
                std::fs::hard_link(place.join("d/f3"), place.join("d/sub/link")).unwrap();
                std::os::unix::fs::symlink("f1", place.join("d/symlink")).unwrap();
            }
            1 => {
                write("d/f5", b"changed");
                write("d/f1", &dice.bytes(700));
                std::fs::remove_file(place.join("d/sub/link")).unwrap();
            }
            2 => {
                std::fs::remove_dir_all(place.join("d/sub")).unwrap();
                write("d/sub", b"no directory any more");
            }
            _ => {
                std::fs::create_dir_all(place.join("new/below")).unwrap();
                write("new/below/file", &dice.bytes(50_000));
                write("d/f2", b"unsaved");
                write("d/left.tmp", b"left out");
                std::fs::remove_file(place.join("d/symlink")).unwrap();
            }
        }
    }

    fn options(&self) -> Options {
        let excludes =
            if self.is_disk() { Excludes::none() } else { Excludes::new(&["*.tmp".to_owned()], &[]).unwrap() };
        Options { excludes, workers: Some(1), ..Options::default() }
    }

    fn capture(&self, repo: &Arc<Repo>, full: bool) -> Outcome {
        let log = SourceLog::open(repo.store().clone(), self.env.clone(), repo.realm(), self.source.id);
        let options = Options { full, ..self.options() };
        self.env.advance(Duration::from_secs(60));
        let capture = if self.is_disk() { capture_disk } else { capture_tree };
        capture(repo, &log, &self.source, &self.place(), &options, &Progress::new()).unwrap()
    }

    /// What the source is.
    fn look(&self) -> State {
        if self.is_disk() {
            return State::Disk(std::fs::read(self.place()).unwrap());
        }
        let mut tree = real(&self.place());
        let left_out = tree.remove(&b"d/left.tmp"[..]);
        assert_eq!(left_out.map(|seen| seen.content), self.left_out().then(|| b"left out".to_vec()));
        State::of(tree)
    }

    /// Whether there is something that captures leave out.
    fn left_out(&self) -> bool {
        !self.is_disk() && self.points.len() == 3
    }

    /// What a point holds.
    fn shown(&self, point: &Point) -> State {
        let repo = world::open(self.store.clone(), self.env.clone()).unwrap();
        let view = MountView::open(repo, zero_settings()).unwrap();
        let root = node(&view, &format!("it/points/{}", point.name()));
        if self.is_disk() {
            return State::Disk(disks::content(&view, view.lookup(root, b"disk.raw").unwrap().attr.node, 1 << 20));
        }
        State::of(shown(&view, root, 1 << 20))
    }

    fn state(&self) -> Arc<SourceState> {
        let repo = world::open(self.store.clone(), self.env.clone()).unwrap();
        let log = SourceLog::open(self.store.clone(), self.env.clone(), repo.realm(), self.source.id);
        log.load().unwrap()
    }

    /// Rolls it back by way of `store`; what starts the source leaves a trace.
    fn roll_back(&self, store: Store, to: PointId, safety_point: bool) -> Option<Result<Rolled, Ended>> {
        let repo = world::open(store, self.env.clone()).ok()?;
        let start = vec!["touch".to_owned(), self.started().to_str().unwrap().to_owned()];
        let state = self.dir.path().join("state");
        let options =
            RollbackOptions { safety_point, capture: self.options(), start, workers: Some(1), ..plain(&state) };
        drop(std::fs::remove_file(self.started()));
        let (env, place) = (&self.env, self.place());
        Some(roll_back((&repo, env), &self.source, (&place, to), &options, &RollbackProgress::new()))
    }

    fn started(&self) -> PathBuf {
        self.dir.path().join("started")
    }

    fn is_unfinished(&self) -> bool {
        let repo = world::open(self.store.clone(), self.env.clone()).unwrap();
        unfinished(&self.dir.path().join("state"), repo.id(), self.source.id).is_some()
    }

    /// Every point there was is there; those that rollbacks have made besides.
    fn safety_points(&self, what: &str) -> Vec<Arc<Point>> {
        let state = self.state();
        let ids: Vec<PointId> = state.points().iter().map(|point| point.id).collect();
        let old: Vec<PointId> = self.points.iter().map(|(id, _)| *id).collect();
        assert!(ids.starts_with(&old), "{what}: {ids:?}");
        let new = state.points()[old.len()..].to_vec();
        assert!(new.iter().all(|point| point.has_label(SAFETY_LABEL)), "{what}: points that nobody asked for");
        new
    }

    /// Holds what a rollback has left to its promises, and runs it again. Whether there was anything to do.
    fn check(&self, (to, then): &(PointId, State), first: Option<Result<Rolled, Ended>>, what: &str) -> bool {
        let new = self.safety_points(what);
        assert!(new.len() <= 1, "{what}: one safety point at most");
        let (now, begun) = (self.look(), self.is_unfinished());
        let complete = matches!(&first, Some(Ok(rolled)) if rolled.complete);
        assert!(!(complete && begun), "{what}: {first:?}");
        if complete {
            then.same(&now, what);
        } else if !begun && now != *then {
            self.before.same(&now, &format!("{what}: nothing is written before the note"));
        }
        if now != self.before {
            assert_eq!(new.len(), 1, "{what}: something was written without a safety point");
        }
        assert!(!(begun && self.started().exists()), "{what}: started while it was half of it");

        let head = self.state().head().map(|head| head.id);
        let again = self.roll_back(self.store.clone(), *to, true).unwrap();
        let rolled = again.unwrap_or_else(|error| panic!("{what}: again: {error:?}"));
        assert!(rolled.complete && rolled.not_started.is_none() && self.started().exists(), "{what}: {rolled:?}");
        assert_eq!(rolled.resumed, begun && head != Some(*to), "{what}");
        assert!(rolled.tree.as_ref().is_none_or(|tree| tree.problems.is_empty()), "{what}: {rolled:?}");
        then.same(&self.look(), &format!("{what}: again"));
        assert!(!self.is_unfinished(), "{what}");
        assert_eq!(self.state().head().map(|head| head.id), Some(*to), "{what}: the head");
        let all = self.safety_points(what);
        assert_eq!(all.len(), new.len() + usize::from(!rolled.resumed), "{what}: safety points");
        let safety = |point: &Point| Some(format!("it#{}", point.id)) == rolled.safety;
        assert!(safety(all.last().unwrap()), "{what}: {rolled:?}");
        if !rolled.resumed {
            now.same(&self.shown(all.last().unwrap()), &format!("{what}: the safety point"));
        }

        // The oldest is what the source was before, and takes it there.
        self.before.same(&self.shown(&all[0]), &format!("{what}: the oldest safety point"));
        let back = self.roll_back(self.store.clone(), all[0].id, false).unwrap().unwrap();
        assert!(back.complete && back.safety.is_none(), "{what}: {back:?}");
        self.before.same(&self.look(), &format!("{what}: there and back"));
        assert_eq!(self.safety_points(what).len(), all.len(), "{what}");
        let repo = world::open(self.store.clone(), self.env.clone()).unwrap();
        let next = self.capture(&repo, false);
        assert_eq!(next.point.commit.parent, Some(all[0].id), "{what}: the next capture");
        self.before.same(&self.shown(&next.point), &format!("{what}: the next capture"));
        let state = self.state();
        for (id, expected) in &self.points {
            expected.same(&self.shown(state.point(*id).unwrap()), &format!("{what}: point {id}"));
        }
        !complete
    }
}

/// A fault at each call that a rollback makes, or at each that writes.
fn faults_at(kind: SourceKind, fault: Fault, only_writes: bool) -> Vec<Rule> {
    let scenario = Scenario::new(kind);
    let faults = Faults::new();
    let store = faults.around(&scenario.store);
    let before = store.meter().snapshot();
    let whole = scenario.roll_back(store.clone(), scenario.points[0].0, true);
    assert!(whole.unwrap().unwrap().complete);
    if !only_writes {
        return (1..=faults.calls()).map(|nth| Rule::new(fault).nth(nth)).collect();
    }
    let count = |of: Operation| store.meter().snapshot().of(of).requests - before.of(of).requests;
    let writing = Operation::ALL.into_iter().filter(|operation| operation.writes());
    writing.flat_map(|of| (1..=count(of)).map(move |nth| Rule::new(fault).on(of).nth(nth))).collect()
}

/// Rolls back once with each fault; how many were cut short, and after writing had begun.
fn campaign(kind: SourceKind, rules: Vec<Rule>) -> (usize, usize) {
    assert!(rules.len() > 4, "{rules:?}");
    let (mut cut_short, mut begun) = (0, 0);
    for rule in rules {
        let what = format!("{rule:?}");
        let scenario = Scenario::new(kind);
        let faults = Faults::new();
        faults.plan(rule);
        let first = scenario.roll_back(faults.around(&scenario.store), scenario.points[0].0, true);
        assert!(faults.hits() > 0, "{what} never happened");
        begun += usize::from(scenario.is_unfinished());
        cut_short += usize::from(scenario.check(&scenario.points[0], first, &what));
    }
    (cut_short, begun)
}

/// A read that fails does so before, after and half-way; only writes are tried in each way.
fn crashes(kind: SourceKind) {
    for (fault, only_writes) in [(Fault::Before, false), (Fault::After, true), (Fault::Half, true)] {
        let rules = faults_at(kind, fault, only_writes).into_iter().map(Rule::then_crash).collect();
        let (cut_short, begun) = campaign(kind, rules);
        assert!(cut_short > 4 && begun > 1, "{fault:?} cut only {cut_short} runs short, {begun} of them late");
    }
}

#[test]
fn a_directory_is_rolled_back_after_a_crash_at_any_call() {
    crashes(SourceKind::Tree);
}

#[test]
fn a_disk_is_rolled_back_after_a_crash_at_any_call() {
    crashes(SourceKind::Disk);
}

#[test]
fn one_lost_answer_anywhere_is_survived_by_a_rollback() {
    for (kind, only_writes) in [(SourceKind::Tree, false), (SourceKind::Disk, true)] {
        campaign(kind, faults_at(kind, Fault::After, only_writes));
    }
}
