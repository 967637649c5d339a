//! Points come and go, in every order and with every answer to what depends on them; what is left reads as it
//! was, always, and what deleted points hold is what a naive count says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amberfs::base::Env;
use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::chain::state::{Dependents, Refusal, SourceGoal};
use amberfs::chain::weight::weigh;
use amberfs::chain::{ChainError, DeletionPlan, Point, RepoLog, SourceLog, SourceState, origin};
use amberfs::format::entry::{Body, Content};
use amberfs::format::leaf::{Entries, Maps, Usage};
use amberfs::format::log::SourceKind;
use amberfs::format::node::{Branch, Node, TreeKind};
use amberfs::format::{FrameOrdinal, FrameRef, PackId, PointId, frame};
use amberfs::repo::Reader;
use amberfs::store::Store;
use amberfs::store::fault::{Fault, Faults};
use amberfs::verify;
use amberfs::view::MountView;
use amberfs::view::namespace::{Namespace, NodeId};

use crate::history::{Dice, change, each, next_tick, paths};
use crate::world::{self, Manifest, World, later, names, node, real, same, shown, zero_settings};

/// What a point is, to somebody who keeps a copy of everything.
struct Kept {
    id: PointId,
    name: String,
    parent: Option<PointId>,
    chain: u32,
    deleted: bool,
    copy: Manifest,
}

/// The source's history, naively.
#[derive(Default)]
struct History {
    points: Vec<Kept>,
    head: Option<PointId>,
}

impl History {
    fn get(&self, id: PointId) -> &Kept {
        self.points.iter().find(|point| point.id == id).unwrap()
    }

    fn living(&self) -> impl Iterator<Item = &Kept> {
        self.points.iter().filter(|point| !point.deleted)
    }

    /// The nearest that lives, from `id` itself upwards.
    fn alive_from(&self, id: Option<PointId>) -> Option<PointId> {
        let point = self.get(id?);
        if point.deleted { self.alive_from(point.parent) } else { Some(point.id) }
    }

    fn descends(&self, point: &Kept, ancestors: &BTreeSet<PointId>) -> bool {
        point.parent.is_some_and(|parent| ancestors.contains(&parent) || self.descends(self.get(parent), ancestors))
    }

    /// Living points that descend from `ancestors` and are none of them.
    fn dependents(&self, ancestors: &BTreeSet<PointId>) -> BTreeSet<PointId> {
        let below = self.living().filter(|point| !ancestors.contains(&point.id) && self.descends(point, ancestors));
        below.map(|point| point.id).collect()
    }
}

/// Every point that is left is shown, whole, and nothing else; log, lineage and head are as the history has them.
fn compare(world: &World, history: &History, what: &str) {
    let log = SourceLog::open(world.repo.store().clone(), world.env.clone(), world.repo.realm(), world.source.id);
    for state in [world.log.refresh().unwrap(), log.load().unwrap()] {
        let ids: Vec<PointId> = state.points().iter().map(|point| point.id).collect();
        assert_eq!(ids, history.living().map(|point| point.id).collect::<Vec<_>>(), "{what}");
        let trash: Vec<PointId> = state.trash().map(|(point, _)| point.id).collect();
        assert_eq!(trash, history.points.iter().filter(|p| p.deleted).map(|p| p.id).collect::<Vec<_>>(), "{what}");
        assert_eq!(state.head().map(|head| head.id), history.alive_from(history.head), "{what}: the head");
        for point in history.living() {
            let parent = state.parent(state.point(point.id).unwrap()).map(|parent| parent.id);
            assert_eq!(parent, history.alive_from(point.parent), "{what}: the parent of {}", point.id);
        }
    }
    let view = world.mount();
    let listed: Vec<String> = names(&view, node(&view, "home/points"))
        .into_iter()
        .map(|(name, _)| String::from_utf8(name).unwrap())
        .collect();
    assert_eq!(listed, history.living().map(|point| point.name.clone()).collect::<Vec<_>>(), "{what}");
    for point in history.living() {
        let root = node(&view, &format!("home/points/{}", point.name));
        same(&point.copy, &shown(&view, root, 1 << 20), &format!("{what}: {}", point.name));
    }
    for point in history.points.iter().filter(|point| point.deleted) {
        view.lookup(node(&view, "home/points"), point.name.as_bytes()).unwrap_err();
    }
}

/// One random deletion, undeletion or move of the head.
fn act(world: &World, history: &mut History, dice: &mut Dice) -> String {
    let ids: Vec<PointId> = history.points.iter().map(|point| point.id).collect();
    let mut some = |most: u64| -> BTreeSet<PointId> {
        (0..=dice.roll(most + 1)).filter_map(|_| dice.pick(&ids).copied()).collect()
    };
    let (chosen, one) = (some(2), some(0).into_iter().next());
    match dice.roll(6) {
        0 => {
            let goal = SourceGoal::Undelete(chosen.iter().copied().collect());
            world.log.append(goal).unwrap();
            history
                .points
                .iter_mut()
                .filter(|point| chosen.contains(&point.id))
                .for_each(|point| point.deleted = false);
            format!("undelete {chosen:?}")
        }
        1 => {
            let Some(head) = one else { return String::new() };
            let moved = world.log.append(SourceGoal::Head(head));
            assert_eq!(moved.is_ok(), !history.get(head).deleted, "{moved:?}");
            if moved.is_ok() {
                history.head = Some(head);
            }
            format!("head {head}")
        }
        roll => {
            // More of a run deletes than brings back.
            let mode = [Dependents::Refuse, Dependents::Cascade, Dependents::Keep][roll as usize % 3];
            let state = world.log.refresh().unwrap();
            let plan = DeletionPlan::plan(&state, &Vec::from_iter(chosen.iter().copied()), mode).unwrap();
            let named: BTreeSet<PointId> = chosen.iter().copied().filter(|id| !history.get(*id).deleted).collect();
            let below = history.dependents(&named);
            assert_eq!(plan.dependents.iter().map(|point| point.id).collect::<BTreeSet<_>>(), below);
            let refused = mode == Dependents::Refuse && !below.is_empty();
            assert_eq!(plan.is_refused(), refused);
            let gone: BTreeSet<PointId> = match mode {
                Dependents::Cascade => named.union(&below).copied().collect(),
                _ => named,
            };
            assert_eq!(plan.points().iter().map(|point| point.id).collect::<BTreeSet<_>>(), gone);
            weights_agree(world, &state, &Vec::from_iter(gone.iter().copied()));
            match plan.carry_out(&world.log) {
                Ok(()) => {
                    assert!(!refused);
                    history.points.iter_mut().filter(|p| gone.contains(&p.id)).for_each(|point| point.deleted = true);
                }
                Err(error) => assert!(refused && DeletionPlan::is_outdated_by(&error), "{error}"),
            }
            format!("delete {chosen:?} {mode:?}")
        }
    }
}

fn history(seed: u64) {
    let mut dice = Dice(seed);
    let world = World::new(Store::memory(), Env::seeded(seed, later()));
    let mut history = History::default();
    for step in 0..8 + dice.roll(10) {
        if step < 2 || dice.roll(2) == 0 {
            for _ in 0..dice.roll(5) {
                change(&world, &mut dice);
            }
            // Every copy is kept in memory.
            for huge in paths(&world, |stat| stat.is_file() && stat.len() > 64 << 20) {
                std::fs::remove_file(huge).unwrap();
            }
            let copy = real(&world.root());
            let full = dice.roll(6) == 0;
            let point = world.capture(&Options { full, workers: Some(2), ..Options::default() }).point;
            let parent = if full { None } else { history.alive_from(history.head) };
            assert_eq!(point.commit.parent, parent, "it builds on the head, or on what is left of that");
            let chain = point.chain().0;
            assert_eq!(Some(chain), parent.map_or(Some(chain), |parent| Some(history.get(parent).chain)));
            history.head = Some(point.id);
            let name = point.name().to_owned();
            history.points.push(Kept { id: point.id, name, parent, chain, deleted: false, copy });
            next_tick(&world);
        } else {
            let what = act(&world, &mut history, &mut dice);
            compare(&world, &history, &format!("step {step}: {what}"));
        }
    }
    compare(&world, &history, "the end");
    let report = verify::verify(
        &world.repo,
        &verify::Options { read_data: true, workers: Some(1), ..verify::Options::default() },
        &verify::Progress::new(),
    );
    assert_eq!(report.unwrap().findings, []);
}

#[test]
fn whatever_is_deleted_and_brought_back_the_rest_reads_as_it_was() {
    each(1, history);
}

#[test]
fn branches_that_use_the_same_identities_are_sound() {
    let world = World::new(Store::memory(), Env::seeded(1, later()));
    world.write("a/file", "1");
    let first = world.capture(&Options::default()).point;
    for n in 0..5 {
        world.write(&format!("b/{n}/file"), "2");
    }
    world.capture(&Options::default());
    world.log.append(SourceGoal::Head(first.id)).unwrap();
    std::fs::remove_dir_all(world.root().join("b")).unwrap();
    world.write("c/file", "3");
    let branch = world.capture(&Options::default()).point;
    assert_eq!(branch.commit.parent, Some(first.id));
    let report = verify::verify(&world.repo, &verify::Options::default(), &verify::Progress::new()).unwrap();
    assert_eq!(report.findings, []);
}

/// Frames with their stored bytes.
type Frames = BTreeMap<(PackId, FrameOrdinal), u64>;

/// Every node below `root`, shared or not, and every data frame that a leaf refers to.
fn frames_of<K: TreeKind>(
    reader: &Reader,
    root: Option<Branch>,
    frames: &mut Frames,
    data: &dyn Fn(&K::Value) -> Vec<FrameRef>,
) {
    let Some(root) = root else { return };
    let mut add = |frame: &FrameRef| {
        let bytes = frame::HEADER_BYTES as u64 + u64::from(frame.stored_bytes);
        frames.insert((frame.pack, frame.ordinal), bytes);
    };
    add(&root.node.frame);
    match &*reader.node::<K>(&root.node).unwrap() {
        Node::Leaf(items) => root.of(items).iter().flat_map(|(_, value)| data(value)).for_each(|frame| add(&frame)),
        Node::Inner(children) => {
            children.iter().for_each(|child| frames_of::<K>(reader, Some(child.branch), frames, data));
        }
    }
}

/// All that a point refers to, by what its entries and maps say.
fn frames(reader: &Reader, point: &Point) -> Frames {
    let mut frames = Frames::new();
    let roots = &point.commit.roots;
    frames_of::<Entries>(reader, Some(Branch::whole(roots.entries)), &mut frames, &|entry| match &entry.body {
        Body::File(Content::Extents(extents)) => extents.iter().map(|extent| extent.chunk.frame).collect(),
        _ => Vec::new(),
    });
    frames_of::<Maps>(reader, roots.maps.map(Branch::whole), &mut frames, &|page| {
        page.extents.iter().map(|extent| extent.chunk.frame).collect()
    });
    frames_of::<Usage>(reader, roots.usage.map(Branch::whole), &mut frames, &|_| Vec::new());
    if let Some(problems) = &point.commit.problems {
        let bytes = frame::HEADER_BYTES as u64 + u64::from(problems.stored_bytes);
        frames.insert((problems.pack, problems.ordinal), bytes);
    }
    frames
}

#[track_caller]
fn weights_agree(world: &World, state: &SourceState, gone: &[PointId]) {
    let reader = world::open(world.repo.store().clone(), world.env.clone()).unwrap().reader(world.source.id);
    let weight = weigh(&reader, state, gone).unwrap();
    let mut alone = Frames::new();
    for point in gone {
        alone.extend(frames(&reader, state.ever(*point).unwrap()));
    }
    for point in state.points().iter().filter(|point| !gone.contains(&point.id)) {
        let held = frames(&reader, point);
        alone.retain(|frame, _| !held.contains_key(frame));
    }
    assert_eq!((weight.frames, weight.bytes()), (alone.len() as u64, alone.values().sum()), "{gone:?}");
}

#[test]
fn what_only_a_point_holds_is_counted_exactly() {
    let world = World::new(Store::memory(), Env::seeded(1, later()));
    let mut noise = vec![0; 3_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    for n in 0..300 {
        world.write(&format!("d{}/f{n}", n % 7), format!("content {n} ").repeat(n % 50));
    }
    world.write("big", &noise);
    let mut ids = Vec::new();
    for step in 0..4usize {
        noise[step * 700_000] ^= 1;
        world.write("big", &noise);
        world.write(&format!("d{step}/f{step}"), format!("changed {step}"));
        next_tick(&world);
        ids.push(world.capture(&Options { full: step == 3, workers: Some(2), ..Options::default() }).point.id);
    }
    let state = world.log.refresh().unwrap();
    for gone in [&ids[..], &ids[..1], &ids[1..2], &ids[2..3], &ids[3..], &ids[..3], &ids[1..3], &[]] {
        weights_agree(&world, &state, gone);
    }
    // Two that share what no third one has weigh more together than each alone.
    let reader = world.repo.reader(world.source.id);
    let bytes = |gone: &[PointId]| weigh(&reader, &state, gone).unwrap().bytes();
    assert!(bytes(&ids[..3]) > ids[..3].iter().map(|id| bytes(&[*id])).sum::<u64>() + 1_000_000);
    assert!(bytes(&ids[1..2]) < bytes(&ids[3..]) / 2, "an incremental holds little alone");
    // What is in the trash counts as gone.
    world.log.append(SourceGoal::Delete(ids[..2].to_vec(), Dependents::Keep)).unwrap();
    let state = world.log.refresh().unwrap();
    let all = weigh(&reader, &state, &ids[..3]).unwrap().bytes();
    assert_eq!(weigh(&reader, &state, &ids[2..3]).unwrap().bytes() + bytes(&ids[..2]), all);
    weights_agree(&world, &state, &ids[2..3]);
}

#[test]
fn a_point_that_is_committed_after_the_plan_was_made_is_noticed() {
    let world = World::new(Store::memory(), Env::seeded(1, later()));
    world.write("file", "1");
    let first = world.capture(&Options::default()).point;
    let state = world.log.refresh().unwrap();
    for mode in [Dependents::Refuse, Dependents::Cascade] {
        let plan = DeletionPlan::plan(&state, &[first.id], mode).unwrap();
        assert_eq!(plan.points().len(), 1);
        let other = SourceLog::open(world.repo.store().clone(), world.env.clone(), world.repo.realm(), world.source.id);
        world.env.advance(Duration::from_secs(60));
        let (root, progress) = (world.root(), Progress::new());
        let second =
            capture_tree(&world.repo, &other, &world.source, &root, &Options::default(), &progress).unwrap().point;
        assert!(matches!(
            plan.carry_out(&world.log),
            Err(ChainError::Refused { refusal: Refusal::Dependents { dependents, .. }, .. }) if dependents.contains(&second.id)
        ));
        assert_eq!(world.log.refresh().unwrap().trash().count(), 0);
    }
    // Whoever keeps what depends on it needs not know of it.
    DeletionPlan::plan(&state, &[first.id], Dependents::Keep).unwrap().carry_out(&world.log).unwrap();
    assert_eq!(world.log.refresh().unwrap().points().len(), 2);
}

/// Captures, deletes in each mode and undeletes until a call to the store fails. Says what was acknowledged:
/// the numbers of the living points after each step.
fn scenario(dir: &std::path::Path, store: &Store, env: &Env, copies: &mut Vec<Manifest>) -> Vec<Vec<usize>> {
    let mut steps = vec![Vec::new()];
    let mut run = || -> Option<()> {
        let repo = world::init(store.clone(), env.clone()).ok()?;
        let sources = RepoLog::open(store.clone(), env.clone(), repo.realm());
        let source = sources.claim_source("home", SourceKind::Tree, origin::here(b"/home"), false).ok()?;
        let log = SourceLog::open(store.clone(), env.clone(), repo.realm(), source.id);
        let mut ids = Vec::new();
        for text in ["a", "b", "c", "d"] {
            std::fs::write(dir.join("file"), text.repeat(9000)).unwrap();
            copies.push(real(dir));
            env.advance(Duration::from_secs(60));
            let options = Options { workers: Some(1), ..Options::default() };
            ids.push(capture_tree(&repo, &log, &source, dir, &options, &Progress::new()).ok()?.point.id);
            steps.push((0..ids.len()).collect());
        }
        let mut delete = |at: usize, mode, left: &[usize]| {
            let state = log.refresh().ok()?;
            let plan = DeletionPlan::plan(&state, &[*ids.get(at)?], mode).ok()?;
            weigh(&repo.reader(source.id), &state, &[*ids.get(at)?]).ok()?;
            plan.carry_out(&log).ok()?;
            steps.push(left.to_vec());
            Some(())
        };
        delete(0, Dependents::Keep, &[1, 2, 3])?;
        delete(2, Dependents::Cascade, &[1])?;
        delete(1, Dependents::Refuse, &[])?;
        log.append(SourceGoal::Undelete(vec![*ids.get(2)?])).ok()?;
        steps.push(vec![2]);
        Some(())
    };
    run();
    steps
}

#[test]
fn a_crash_at_any_call_of_a_deletion_deletes_all_of_it_or_nothing() {
    let whole = {
        let (dir, faults) = (tempfile::tempdir().unwrap(), Faults::new());
        let steps = scenario(dir.path(), &faults.around(&Store::memory()), &Env::seeded(7, later()), &mut Vec::new());
        assert_eq!(steps.len(), 9, "the scenario runs through when nothing fails");
        (faults.calls(), steps)
    };
    for (fault, nth) in
        [Fault::Before, Fault::After, Fault::Half].iter().flat_map(|f| (1..=whole.0).map(move |n| (f, n)))
    {
        let what = format!("{fault:?} at call {nth}");
        let (dir, faults, store) = (tempfile::tempdir().unwrap(), Faults::new(), Store::memory());
        let (env, mut copies) = (Env::seeded(7, later()), Vec::new());
        faults.crash_at(nth, *fault);
        let steps = scenario(dir.path(), &faults.around(&store), &env, &mut copies);
        let Ok(repo) = world::open(store.clone(), env.clone()) else { continue };
        let view = MountView::open(Arc::clone(&repo), zero_settings()).unwrap();
        if names(&view, NodeId::ROOT).is_empty() {
            assert_eq!(steps.len(), 1, "{what}");
            continue;
        }
        let points = names(&view, node(&view, "home/points"));
        // What was acknowledged, or the step that was under way as well; never a part of it.
        let possible: Vec<&Vec<usize>> = whole.1.iter().skip(steps.len() - 1).take(2).collect();
        let matches = |living: &&Vec<usize>| {
            living.len() == points.len()
                && living
                    .iter()
                    .zip(&points)
                    .all(|(at, (_, root))| copies.get(*at).is_some_and(|copy| *copy == shown(&view, *root, 1 << 20)))
        };
        assert!(possible.into_iter().any(|living| matches(&living)), "{what}: {} points are left", points.len());
        // And nothing keeps the next capture from its work.
        let sources = RepoLog::open(store.clone(), env.clone(), repo.realm());
        let source = sources.claim_source("home", SourceKind::Tree, origin::here(b"/home"), false).unwrap();
        let log = SourceLog::open(store, env.clone(), repo.realm(), source.id);
        env.advance(Duration::from_secs(60));
        let options = Options { workers: Some(1), ..Options::default() };
        capture_tree(&repo, &log, &source, dir.path(), &options, &Progress::new()).unwrap();
    }
}
