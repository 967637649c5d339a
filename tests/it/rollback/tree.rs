//! Random histories of a directory that is rolled back: to any point, of its chain or another, after crashes as
//! well; what is then there is what a naive memory says, and what is left out of captures is as it was.
//!
//! A failing history prints its seed; `AMBERFS_HISTORIES` sets how many are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amberfs::base::{Env, FileTime};
use amberfs::capture::{Excludes, Options, Outcome};
use amberfs::chain::Point;
use amberfs::format::PointId;
use amberfs::repo::Repo;
use amberfs::restore::rollback::{RollbackOptions, RollbackProgress, Rolled, SAFETY_LABEL, Unfinished, unfinished};
use amberfs::store::Store;
use amberfs::store::fault::{Fault, Faults};
use amberfs::verify;
use amberfs::view::namespace::FileKind;

use super::changes::{ENDINGS, random};
use super::{Ended, plain, roll_back};
use crate::history::{Dice, each, next_tick};
use crate::world::{self, Manifest, Seen, World, later, node, real, same, shown};

/// Of [`ENDINGS`], the first so many are left out.
type Scope = usize;

/// A point as it must be.
struct Kept {
    id: PointId,
    name: String,
    scope: Scope,
    copy: Manifest,
    chain: u32,
}

impl Kept {
    fn title(&self) -> String {
        format!("home#{}", self.id)
    }
}

struct History {
    world: World,
    dice: Dice,
    kept: Vec<Kept>,
    /// The point that was captured last or rolled back to since.
    head: Option<usize>,
    /// Whether a file ever had several names: those are known by their inode, which may be a new one.
    linked: bool,
}

/// How often each kind of thing came up, so that a campaign that tries nothing fails.
#[derive(Debug, Default)]
struct Met {
    rollbacks: u64,
    other_chains: u64,
    linked: u64,
    left_out: u64,
    lingering: u64,
    other_scopes: u64,
    untouched: u64,
    interrupted: u64,
    resumed: u64,
    superseded: u64,
    captured_meanwhile: u64,
    /// Resumed rollbacks of what somebody had gone on to work on, and what was new then.
    used: u64,
    spared: u64,
    unsafe_ones: u64,
    /// Captures right behind a rollback that had nothing to store again.
    known: u64,
}

fn is_left_out(path: &[u8], scope: Scope) -> bool {
    path.split(|byte| *byte == b'/').any(|name| ENDINGS[..scope].iter().any(|end| name.ends_with(end.as_bytes())))
}

/// The part of a tree that `wanted` says, with the links that are within it.
fn part(tree: &Manifest, wanted: impl Fn(&[u8]) -> bool) -> Manifest {
    let mut found: Manifest =
        tree.iter().filter(|(path, _)| wanted(path)).map(|(p, s)| (p.clone(), s.clone())).collect();
    let mut names: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for (path, seen) in &found {
        names.entry(seen.first.clone()).or_default().push(path.clone());
    }
    for group in names.into_values() {
        for path in &group {
            let seen = found.get_mut(path).unwrap();
            seen.first = group[0].clone();
            // Subdirectories count as links of a directory, those that are left out as well.
            seen.links = if seen.kind == FileKind::Directory { 0 } else { group.len() as u64 };
        }
    }
    found
}

/// Without what nobody can put back.
fn settable(tree: &Manifest) -> Manifest {
    let mut tree = tree.clone();
    for seen in tree.values_mut() {
        seen.ctime = FileTime { seconds: 0, nanos: 0 };
        if seen.kind == FileKind::Directory {
            seen.size = 0;
        }
    }
    tree
}

fn patterns(scope: Scope) -> Excludes {
    Excludes::new(&ENDINGS[..scope].iter().map(|end| format!("*{end}")).collect::<Vec<_>>(), &[]).unwrap()
}

/// The directories above a path, the root excepted.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

/// What a rollback makes of `now`: the tree it shall be, and directories in the way that cannot go because of what is
/// left out in them.
fn expected(now: &Manifest, kept: &Kept, scope: Scope) -> (Manifest, BTreeSet<Vec<u8>>) {
    let mut wanted = part(&kept.copy, |path| !is_left_out(path, scope));
    let mut lingering = BTreeSet::new();
    for path in now.keys().filter(|path| is_left_out(path, scope)) {
        for directory in above(path).filter(|path| !is_left_out(path, scope)) {
            if wanted.get(directory).is_none_or(|seen| seen.kind != FileKind::Directory) {
                wanted.remove(directory);
                lingering.insert(directory.to_vec());
            }
        }
    }
    (part(&wanted, |_| true), lingering)
}

/// What is left out was not touched, the metadata excepted of what shares its inode with what is not.
#[track_caller]
fn left_out_is_as_it_was(before: &Manifest, after: &Manifest, scope: Scope, what: &str) {
    let left_out = |tree: &Manifest| {
        let shared: BTreeSet<Vec<u8>> =
            tree.iter().filter(|(path, _)| !is_left_out(path, scope)).map(|(_, seen)| seen.first.clone()).collect();
        let found = tree.iter().filter(|(path, _)| is_left_out(path, scope));
        found.map(|(path, seen)| (path.clone(), (shared.contains(&seen.first), seen.clone()))).collect::<Vec<_>>()
    };
    let (old, new) = (left_out(before), left_out(after));
    assert!(old.iter().map(|(path, _)| path).eq(new.iter().map(|(path, _)| path)), "{what}: what is left out");
    for ((path, (is_shared, seen)), (_, (_, now))) in old.iter().zip(&new) {
        let path = path.escape_ascii();
        assert!(seen.content == now.content && seen.kind == now.kind, "{what}: {path} was left out, and differs");
        if !is_shared {
            let all = |seen: &Seen| (seen.mtime, seen.ctime, seen.permissions, seen.owner, seen.xattrs.clone());
            assert_eq!(all(seen), all(now), "{what}: {path} was left out");
        }
    }
}

impl History {
    fn scope(&mut self) -> Scope {
        1 + usize::from(self.dice.roll(4) == 0)
    }

    fn random_changes(&mut self, most: u64) {
        for _ in 0..self.dice.roll(most + 1) {
            let old = self.dice.pick(&self.kept).map(|kept| &kept.copy);
            random(&self.world, &mut self.dice, old);
        }
    }

    fn options(&mut self, scope: Scope) -> Options {
        Options { full: self.dice.roll(6) == 0, excludes: patterns(scope), workers: Some(2), ..Options::default() }
    }

    fn capture(&mut self, scope: Scope) -> Outcome {
        let before = real(&self.world.root());
        let options = self.options(scope);
        let outcome = self.world.capture(&options);
        assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
        let parent = self.head.filter(|_| !options.full).map(|head| &self.kept[head].name);
        assert_eq!(outcome.parent.as_ref(), parent, "{}", outcome.point.commit.reason);
        self.keep(&outcome.point, before, scope);
        self.head = Some(self.kept.len() - 1);
        outcome
    }

    fn keep(&mut self, point: &Point, before: Manifest, scope: Scope) {
        let copy = part(&before, |path| !is_left_out(path, scope));
        self.linked |= before.values().any(|seen| seen.kind == FileKind::Regular && seen.links > 1);
        let (id, name, chain) = (point.id, point.name().to_owned(), point.chain().0);
        let kept = Kept { id, name, scope, copy, chain };
        self.reads_as_it_was(&kept);
        self.kept.push(kept);
    }

    fn reads_as_it_was(&self, kept: &Kept) {
        let view = self.world.mount();
        let root = node(&view, &format!("home/points/{}", kept.name));
        same(&kept.copy, &part(&shown(&view, root, 1 << 20), |_| true), &format!("the point {}", kept.name));
    }

    /// The rollback by way of `repo`, whose store may fail.
    fn rolled(
        &self,
        repo: &Arc<Repo>,
        to: usize,
        options: &RollbackOptions,
        progress: &RollbackProgress,
    ) -> Result<Rolled, Ended> {
        let World { env, source, .. } = &self.world;
        roll_back((repo, env), source, (&self.world.root(), self.kept[to].id), options, progress)
    }

    /// Points that the history does not know yet: the source was `before` when they were captured.
    fn keep_new(&mut self, before: &Manifest, scope: Scope) -> usize {
        let state = self.world.log.refresh().unwrap();
        let known: BTreeSet<PointId> = self.kept.iter().map(|kept| kept.id).collect();
        let new: Vec<Arc<Point>> = state.points().iter().filter(|point| !known.contains(&point.id)).cloned().collect();
        for point in &new {
            assert!(point.has_label(SAFETY_LABEL));
            self.keep(point, before.clone(), scope);
        }
        new.len()
    }

    fn roll_back(&mut self, met: &mut Met) {
        let Some(mut to) = self.any() else { return };
        let scope = self.scope();
        let state = self.world.dir.path().join("state");
        let mut options = RollbackOptions {
            safety_point: self.dice.roll(4) != 0,
            verify: self.dice.roll(2) == 0,
            capture: Options { excludes: patterns(scope), workers: Some(2), ..Options::default() },
            ..plain(&state)
        };
        let mut begun = None;
        if self.dice.roll(2) == 0 {
            options.safety_point = true;
            met.interrupted += 1;
            for _ in 0..=self.dice.roll(2) {
                self.interrupt(to, &options, scope);
            }
            // One that got as far as the head is through, though its note may stand.
            begun = unfinished(&state, self.world.repo.id(), self.world.source.id).filter(|_| self.head != Some(to));
            match self.dice.roll(6) {
                0 => to = self.any().unwrap(),
                1 | 2 => {
                    next_tick(&self.world);
                    let scope = self.scope();
                    self.capture(scope);
                    // By its head alone it does not look done any more.
                    begun = unfinished(&state, self.world.repo.id(), self.world.source.id);
                    met.captured_meanwhile += u64::from(begun.is_some());
                }
                3 | 4 => {
                    let resumed = self.roll_back_what_somebody_uses(to, scope, &options, met);
                    begun = begun.filter(|_| !resumed && self.head != Some(to));
                }
                _ => {}
            }
        }
        let safety = |note: &Unfinished| self.kept.iter().position(|kept| note.safety == Some(kept.title()));
        let safety = begun.as_ref().map(|note| safety(note).unwrap());
        let resumes = begun.as_ref().is_some_and(|note| note.point == self.kept[to].id.0) && self.head == safety;
        met.resumed += u64::from(resumes);
        met.superseded += u64::from(begun.is_some() && !resumes);
        let rolled = self.whole(to, scope, &options, resumes, met);
        let earlier = begun.filter(|_| !resumes).and_then(|note| note.safety);
        assert_eq!(rolled.earlier, Vec::from_iter(earlier), "what was before is not forgotten");
        if let Some(safety) = safety.filter(|_| self.dice.roll(2) == 0) {
            self.whole(safety, scope, &RollbackOptions { safety_point: false, ..options }, false, met);
        }
    }

    /// Somebody goes on to work after a rollback was interrupted, and then it is run again: whether it continued. What
    /// is new is not lost.
    fn roll_back_what_somebody_uses(
        &mut self,
        to: usize,
        scope: Scope,
        options: &RollbackOptions,
        met: &mut Met,
    ) -> bool {
        let root = self.world.root();
        let old = real(&root);
        next_tick(&self.world);
        self.random_changes(15);
        next_tick(&self.world);
        let now = real(&root);
        let rolled = match self.rolled(&self.world.repo, to, options, &RollbackProgress::new()) {
            Ok(rolled) => rolled,
            Err(error) => {
                assert!(now.len() == 1 && real(&root) == now, "{error}");
                return false;
            }
        };
        assert!(rolled.complete);
        let either = scope.max(self.kept[to].scope);
        assert_eq!(self.keep_new(&now, either), usize::from(!rolled.resumed));
        self.head = Some(to);
        if rolled.resumed {
            met.used += 1;
            let after = real(&root);
            let is_known = |seen: &Seen| old.values().any(|old| old.content == seen.content);
            let new = now.iter().filter(|(_, seen)| seen.kind == FileKind::Regular && !is_known(seen));
            for (path, seen) in new {
                let what = format!("{}: {rolled:?}", path.escape_ascii());
                assert!(after.get(path).is_some_and(|after| after.content == seen.content), "work is lost: {what}");
                met.spared += 1;
            }
        }
        rolled.resumed
    }

    fn any(&mut self) -> Option<usize> {
        let all: Vec<usize> = (0..self.kept.len()).collect();
        self.dice.pick(&all).copied()
    }

    /// A rollback that ends somewhere, or does not.
    fn interrupt(&mut self, to: usize, options: &RollbackOptions, scope: Scope) {
        let before = real(&self.world.root());
        let done = if self.dice.roll(2) == 0 { self.crash(to, options) } else { self.cancel(to, options) };
        // A safety point has nothing that either leaves out.
        assert!(self.keep_new(&before, scope.max(self.kept[to].scope)) <= 1, "one safety point at most");
        if done.is_ok_and(|rolled| rolled.complete) {
            self.head = Some(to);
        } else {
            self.head = self.head_now();
        }
    }

    fn crash(&mut self, to: usize, options: &RollbackOptions) -> Result<Rolled, Ended> {
        let faults = Faults::new();
        let repo = world::open(faults.around(self.world.repo.store()), self.world.env.clone()).unwrap();
        let fault = [Fault::Before, Fault::After, Fault::Half][self.dice.roll(3) as usize];
        faults.crash_at(20 + self.dice.roll(30), fault);
        self.rolled(&repo, to, options, &RollbackProgress::new())
    }

    /// Stops it when it has dealt with some names.
    fn cancel(&mut self, to: usize, options: &RollbackOptions) -> Result<Rolled, Ended> {
        let names = self.dice.roll(5);
        let (progress, ended) = (RollbackProgress::new(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let due = || progress.is_captured() && progress.writing.files() >= names;
                while !due() && !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                progress.cancel();
            });
            let done = self.rolled(&self.world.repo, to, options, &progress);
            ended.store(true, Ordering::Relaxed);
            done
        })
    }

    fn head_now(&self) -> Option<usize> {
        let state = self.world.log.refresh().unwrap();
        self.kept.iter().position(|kept| Some(kept.id) == state.head().map(|head| head.id))
    }

    /// A rollback that nothing disturbs.
    fn whole(&mut self, to: usize, scope: Scope, options: &RollbackOptions, resumes: bool, met: &mut Met) -> Rolled {
        let root = self.world.root();
        let before = real(&root);
        let kept = &self.kept[to];
        let either = scope.max(kept.scope);
        let (wanted, lingering) = expected(&before, kept, either);
        met.rollbacks += 1;
        met.other_chains += u64::from(self.head.is_some_and(|head| self.kept[head].chain != kept.chain));
        met.linked += u64::from(wanted.values().any(|seen| seen.kind == FileKind::Regular && seen.links > 1));
        met.left_out += u64::from(before.keys().any(|path| is_left_out(path, either)));
        met.lingering += u64::from(!lingering.is_empty());
        met.other_scopes += u64::from(kept.scope != scope);
        met.unsafe_ones += u64::from(!options.safety_point);
        let asked = RollbackOptions { dry_run: true, ..options.clone() };
        assert!(self.rolled(&self.world.repo, to, &asked, &RollbackProgress::new()).unwrap().complete);
        assert!(real(&root) == before, "who only asks changes nothing");
        next_tick(&self.world);
        let mut options = options.clone();
        let had = |head: usize| self.kept[head].copy.values().any(|seen| seen.kind != FileKind::Directory);
        if before.len() == 1 && !resumes && self.head.is_some_and(had) {
            let refused = self.rolled(&self.world.repo, to, &options, &RollbackProgress::new());
            assert!(refused.is_err() && real(&root) == before, "an empty directory is no source: {refused:?}");
            options.force = true;
        }
        let rolled = self.rolled(&self.world.repo, to, &options, &RollbackProgress::new()).unwrap();
        let what = format!("rolled back to {} ({rolled:?})", self.kept[to].name);
        let tree = rolled.tree.as_ref().unwrap();
        assert!(rolled.complete && tree.complete && rolled.not_started.is_none(), "{what}");
        assert_eq!((rolled.resumed, rolled.safety_problems), (resumes, 0), "{what}");
        assert_eq!(tree.problems.is_empty(), lingering.is_empty(), "{what}: {lingering:?}");

        let after = real(&root);
        let mut actual = part(&after, |path| !is_left_out(path, either) && !lingering.contains(path));
        for directory in &lingering {
            assert_eq!(after.get(directory).map(|seen| seen.kind), Some(FileKind::Directory), "{what}");
        }
        same(&settable(&wanted), &settable(&actual), &what);
        left_out_is_as_it_was(&before, &after, either, &what);
        // What was as it must be was not touched.
        for (path, seen) in actual.iter_mut().filter(|(_, seen)| seen.kind != FileKind::Directory) {
            let Some(then) = before.get(path) else { continue };
            let mine = self.kept[to].copy[path].clone();
            if then.links == 1 && mine.links == 1 && then.ctime == mine.ctime && then.content == mine.content {
                assert_eq!(seen.ctime, then.ctime, "{what}: {} was touched", path.escape_ascii());
                met.untouched += 1;
            }
        }

        let new = self.keep_new(&before, either);
        assert_eq!(new, usize::from(options.safety_point && !resumes), "{what}");
        assert_eq!(rolled.safety.is_some(), options.safety_point, "{what}");
        if new == 1 {
            assert_eq!(rolled.safety, Some(self.kept.last().unwrap().title()));
        }
        assert!(unfinished(&options.state, self.world.repo.id(), self.world.source.id).is_none());
        let state = self.world.log.refresh().unwrap();
        assert_eq!(state.head().map(|head| head.id), Some(self.kept[to].id), "{what}");
        self.head = Some(to);
        if self.dice.roll(2) == 0 {
            next_tick(&self.world);
            let outcome = self.capture(scope);
            let alike = self.kept[to].scope == scope && lingering.is_empty();
            let stats = &outcome.point.commit.stats;
            assert!(
                outcome.parent.is_none() || !alike || stats.new_bytes == 0 || self.linked,
                "{what}: stored again: {stats:?}"
            );
            met.known += u64::from(outcome.parent.is_some() && alike && !self.linked);
        }
        rolled
    }
}

fn history(seed: u64, met: &mut Met) {
    let mut dice = Dice(seed);
    let trusting = dice.roll(2) == 0;
    let env = if trusting { Env::seeded(seed, later()) } else { Env::system() };
    let world = World::new(Store::memory(), env);
    let mut history = History { world, dice, kept: Vec::new(), head: None, linked: false };
    for step in 0..4 + history.dice.roll(5) {
        history.random_changes(if step == 0 { 25 } else { 8 });
        if trusting {
            next_tick(&history.world);
        }
        if step < 2 || history.dice.roll(2) == 0 {
            let scope = history.scope();
            history.capture(scope);
        } else {
            history.roll_back(met);
        }
        if trusting {
            next_tick(&history.world);
        }
    }
    for kept in &history.kept {
        history.reads_as_it_was(kept);
    }
    let options = verify::Options { read_data: true, workers: Some(1), ..verify::Options::default() };
    let report = verify::verify(&history.world.repo, &options, &verify::Progress::new()).unwrap();
    assert_eq!(report.findings, []);
}

#[test]
fn a_directory_is_what_any_point_of_it_says_when_it_was_rolled_back() {
    let mut met = Met::default();
    let histories = each(1, |seed| history(seed, &mut met));
    let Met { rollbacks, other_chains, linked, left_out, lingering, other_scopes, .. } = met;
    let Met {
        untouched, interrupted, resumed, superseded, captured_meanwhile, used, spared, unsafe_ones, known, ..
    } = met;
    let all = [rollbacks, other_chains, linked, left_out, lingering, other_scopes];
    let mut all = all.into_iter().chain([
        untouched,
        interrupted,
        resumed,
        superseded,
        captured_meanwhile,
        used,
        spared,
        unsafe_ones,
        known,
    ]);
    assert!(histories < 40 || all.all(|times| times > 0), "too seldom to be tried: {met:?}");
}
