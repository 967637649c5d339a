use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::{Env, Instant};
use crate::base::{FileTime, limits};
use crate::format::entry::{Body, Content, Entry, Meta};
use crate::format::leaf::{Entries, Usage};
use crate::format::log::NodeRef;
use crate::format::node::{Branch, Node, TreeKind};
use crate::format::{
    ChainId, FileId, FrameOrdinal, FrameRef, Key, LogNumber, Nonce, PackId, PackOrdinal, SessionId, SourceId,
};
use crate::repo::{Repo, Session};
use crate::store::Store;

fn repo() -> Arc<Repo> {
    Repo::init(Store::memory(), Env::seeded(1, Instant::from_nanos(0))).unwrap()
}

fn session(repo: &Arc<Repo>, base: u64) -> Session {
    let id = SessionId { base: LogNumber(base), random: Nonce(repo.env().random()) };
    Session::begin(repo, SourceId(1), ChainId(0), id).unwrap()
}

/// Keys and values by numbers, keys in the order of theirs.
trait Numbered: TreeKind {
    fn key(n: u32) -> Key;
    fn value(n: u64) -> Self::Value;
}

impl Numbered for Usage {
    fn key(n: u32) -> Key {
        let session = SessionId { base: LogNumber(0), random: Nonce([7; 16]) };
        let pack = PackId { chain: ChainId(0), session, ordinal: PackOrdinal(n >> 8) };
        Key::usage(pack, FrameOrdinal(n & 255))
    }

    fn value(n: u64) -> u64 {
        n
    }
}

impl Numbered for Entries {
    fn key(n: u32) -> Key {
        Key::entry(FileId(5), format!("file-{n:09}").as_bytes())
    }

    fn value(n: u64) -> Entry {
        let mtime = FileTime { seconds: n.cast_signed(), nanos: 0 };
        Entry { meta: Meta { mtime, ..Meta::default() }, xattrs: Vec::new(), body: Body::File(Content::Hole) }
    }
}

fn key(n: u32) -> Key {
    Usage::key(n)
}

type Model = BTreeMap<u32, u64>;
type Batch<'a> = &'a [(u32, Option<u64>)];

fn write<K: Numbered>(
    repo: &Arc<Repo>,
    root: Option<NodeRef>,
    base: u64,
    budget: usize,
    batches: &[Batch<'_>],
) -> Option<NodeRef> {
    let session = session(repo, base);
    let mut writer = TreeWriter::<K>::with_budget(&session, root, budget);
    for batch in batches {
        writer.apply(batch.iter().map(|(n, value)| (K::key(*n), value.map(K::value))).collect()).unwrap();
    }
    let root = writer.finish().unwrap();
    session.finish().unwrap();
    root
}

fn apply(model: &mut Model, batch: Batch<'_>) {
    for (n, value) in batch {
        match value {
            Some(value) => model.insert(*n, *value),
            None => model.remove(n),
        };
    }
}

fn check<K: Numbered>(repo: &Arc<Repo>, root: Option<NodeRef>, model: &Model) {
    let tree = Tree::<K>::new(repo.reader(SourceId(1)), root);
    assert_eq!(tree.items(), model.len() as u64);
    let all = tree.scan(0).map(|item| item.map(|i| (i.key().clone(), i.value().clone())).unwrap());
    assert!(all.eq(model.iter().map(|(n, value)| (K::key(*n), K::value(*value)))));
    for (rank, (n, value)) in model.iter().enumerate().step_by(97) {
        let (key, rank) = (K::key(*n), rank as u64);
        let found = tree.get(&key).unwrap().unwrap();
        assert_eq!((found.rank(), found.value()), (rank, &K::value(*value)));
        assert_eq!(tree.at(rank).unwrap().unwrap().key(), &key);
        assert_eq!(tree.floor(&key).unwrap().unwrap().key(), &key);
        // What is not there, though a leaf may have it still.
        let next = n + 1;
        if !model.contains_key(&next) {
            assert!(tree.get(&K::key(next)).unwrap().is_none());
            assert_eq!(tree.floor(&K::key(next)).unwrap().unwrap().key(), &key);
            assert_eq!(tree.rank(&K::key(next)).unwrap(), rank + 1);
        }
    }
    assert!(tree.at(model.len() as u64).unwrap().is_none());
}

/// All leaves of a tree, by inner node: what each has of which leaf.
fn branches<K: TreeKind>(repo: &Arc<Repo>, root: NodeRef) -> Vec<Vec<Branch>> {
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(node) = open.pop() {
        let Node::Inner(children) = &*repo.reader(SourceId(1)).node::<K>(&node).unwrap() else {
            panic!("a leaf without a node above it");
        };
        assert!(children.len() <= limits::INNER_CHILDREN_MAX);
        if node.level == 1 {
            found.push(children.iter().map(|child| child.branch).collect());
        } else {
            open.extend(children.iter().map(|child| child.branch.node));
        }
    }
    found
}

fn leaves<K: TreeKind>(repo: &Arc<Repo>, root: NodeRef) -> BTreeMap<FrameOrder, Branch> {
    branches::<K>(repo, root).into_iter().flatten().map(|branch| (order(&branch.node.frame), branch)).collect()
}

type FrameOrder = (LogNumber, PackOrdinal, FrameOrdinal);

fn order(frame: &FrameRef) -> FrameOrder {
    (frame.pack.session.base, frame.pack.ordinal, frame.ordinal)
}

#[test]
fn a_tree_of_several_levels_is_built_in_order_and_changed_in_place() {
    let repo = repo();
    let mut model = Model::new();
    let all: Vec<(u32, Option<u64>)> = (0..900_000).map(|n| (n * 2, Some(u64::from(n) + 1))).collect();
    apply(&mut model, &all);
    let first = write::<Usage>(&repo, None, 0, 64 << 10, &all.chunks(5_000).collect::<Vec<_>>());
    assert!(first.unwrap().level >= 2);
    check::<Usage>(&repo, first, &model);

    let edits = [(4, None), (700_001, Some(5)), (800_000, Some(9))];
    let second = write::<Usage>(&repo, first, 1, 64 << 10, &[&edits]);
    let mut changed = model.clone();
    apply(&mut changed, &edits);
    check::<Usage>(&repo, second, &changed);
    check::<Usage>(&repo, first, &model);
}

#[test]
fn an_edit_that_changes_nothing_yields_the_same_root_and_writes_nothing() {
    let repo = repo();
    let batch: Vec<(u32, Option<u64>)> = (0..10_000).map(|n| (n, Some(3))).collect();
    let root = write::<Usage>(&repo, None, 0, 1 << 20, &[&batch]);
    let session = session(&repo, 1);
    let mut writer = TreeWriter::<Usage>::new(&session, root);
    writer.apply(vec![(key(5), Some(3)), (key(20_000), None)]).unwrap();
    assert_eq!(writer.finish().unwrap(), root);
    assert_eq!(session.finish().unwrap().packs, 0);
}

#[test]
fn removing_everything_leaves_the_empty_tree() {
    let repo = repo();
    let put: Vec<(u32, Option<u64>)> = (0..50_000).map(|n| (n, Some(1))).collect();
    let gone: Vec<(u32, Option<u64>)> = (0..50_000).map(|n| (n, None)).collect();
    let root = write::<Usage>(&repo, None, 0, 1 << 20, &[&put]);
    assert_eq!(write::<Usage>(&repo, root, 1, 1 << 20, &[&gone]), None);
    let root = write::<Entries>(&repo, None, 2, 1 << 20, &[&put]);
    assert_eq!(write::<Entries>(&repo, root, 3, 1 << 20, &[&gone]), None);
}

#[test]
fn counts_add_up_and_never_fall_below_nothing() {
    let repo = repo();
    let session = session(&repo, 0);
    let mut writer = TreeWriter::<Usage>::new(&session, None);
    writer.apply(vec![(key(1), Delta(2)), (key(2), Delta(1))]).unwrap();
    writer.apply(vec![(key(1), Delta(3)), (key(2), Delta(-1))]).unwrap();
    assert!(writer.apply(vec![(key(2), Delta(-1))]).is_err());
    drop(writer);
    let mut writer = TreeWriter::<Usage>::new(&session, None);
    writer.apply(vec![(key(1), Delta(2))]).unwrap();
    let root = writer.finish().unwrap();
    let tree = Tree::<Usage>::new(session.reader(), root);
    assert_eq!(tree.get(&key(1)).unwrap().map(|item| *item.value()), Some(2));
}

#[test]
fn ranks_and_floors_between_items() {
    let repo = repo();
    let put: Vec<(u32, Option<u64>)> = (0..20_000).map(|n| (n * 10 + 5, Some(1))).collect();
    let root = write::<Usage>(&repo, None, 0, 1 << 20, &[&put]);
    let tree = Tree::<Usage>::new(repo.reader(SourceId(1)), root);
    assert_eq!(tree.rank(&key(0)).unwrap(), 0);
    assert!(tree.floor(&key(0)).unwrap().is_none());
    for n in (0..20_000).step_by(61) {
        assert_eq!(tree.rank(&key(n * 10 + 6)).unwrap(), u64::from(n) + 1);
        assert_eq!(tree.floor(&key(n * 10 + 9)).unwrap().unwrap().key(), &key(n * 10 + 5));
        assert!(tree.get(&key(n * 10 + 6)).unwrap().is_none());
    }
    assert_eq!(Tree::<Entries>::new(repo.reader(SourceId(1)), None).items(), 0);
}

/// A tree of so many entries.
fn entries(repo: &Arc<Repo>, count: u32) -> (NodeRef, Model) {
    let put: Vec<(u32, Option<u64>)> = (0..count).map(|n| (n, Some(1))).collect();
    let mut model = Model::new();
    apply(&mut model, &put);
    (write::<Entries>(repo, None, 0, 1 << 20, &[&put]).unwrap(), model)
}

#[test]
fn what_changes_a_few_entries_stores_these_and_no_neighbours() {
    let repo = repo();
    let (first, mut model) = entries(&repo, 30_000);
    let before = leaves::<Entries>(&repo, first);
    let edits =
        [(5_000, Some(2)), (5_100, None), (7_000, Some(2)), (7_001, Some(2)), (29_999, Some(2)), (40_000, Some(2))];
    let second = write::<Entries>(&repo, Some(first), 1, 1 << 20, &[&edits]).unwrap();
    apply(&mut model, &edits);
    check::<Entries>(&repo, Some(second), &model);
    let new: Vec<Branch> = leaves::<Entries>(&repo, second)
        .into_iter()
        .filter(|(frame, _)| !before.contains_key(frame))
        .map(|(_, b)| b)
        .collect();
    let stored: u64 = new.iter().map(|branch| branch.node.items).sum();
    // One more than the five: what is left before the end of the last leaf may be few.
    assert!(
        new.len() <= 2 && (5..5 + limits::PART_ITEMS_MIN as u64).contains(&stored),
        "{} leaves of {stored} items",
        new.len()
    );
}

#[test]
fn whoever_deletes_entries_stores_none() {
    let repo = repo();
    let (first, mut model) = entries(&repo, 5_000);
    let before = leaves::<Entries>(&repo, first);
    let edits = [(0, None), (2_000, None), (2_050, None)];
    let second = write::<Entries>(&repo, Some(first), 1, 1 << 20, &[&edits]).unwrap();
    apply(&mut model, &edits);
    check::<Entries>(&repo, Some(second), &model);
    assert!(leaves::<Entries>(&repo, second).keys().all(|frame| before.contains_key(frame)));
    // All that is left is a part of a leaf.
    let edits: Vec<(u32, Option<u64>)> =
        model.keys().filter(|n| !(1_000..1_020).contains(*n)).map(|n| (*n, None)).collect();
    let third = write::<Entries>(&repo, Some(second), 2, 1 << 20, &[&edits]).unwrap();
    apply(&mut model, &edits);
    assert_eq!(model.len(), 20);
    check::<Entries>(&repo, Some(third), &model);
    let fourth = write::<Entries>(&repo, Some(third), 3, 1 << 20, &[&[(1_010, Some(7))]]).unwrap();
    apply(&mut model, &[(1_010, Some(7))]);
    check::<Entries>(&repo, Some(fourth), &model);
}

#[test]
fn many_points_later_entries_are_not_scattered() {
    let repo = repo();
    let (mut root, mut model) = entries(&repo, 20_000);
    let needed = leaves::<Entries>(&repo, root).len();
    for base in 1..=300u32 {
        let edits: BTreeMap<u32, Option<u64>> =
            (0..5).map(|n| ((base * 5 + n).wrapping_mul(2_654_435_761) % 20_000, Some(u64::from(base)))).collect();
        let edits: Vec<_> = edits.into_iter().collect();
        root = write::<Entries>(&repo, Some(root), u64::from(base), 1 << 20, &[&edits]).unwrap();
        apply(&mut model, &edits);
        for children in branches::<Entries>(&repo, root) {
            let distinct: BTreeSet<FrameOrder> = children.iter().map(|branch| order(&branch.node.frame)).collect();
            let share = |branch: &Branch| u64::from(branch.node.frame.raw_bytes) * branch.items / branch.node.items;
            let bytes: u64 = children.iter().map(share).sum();
            let full = children.iter().map(|branch| u64::from(branch.node.frame.raw_bytes)).max().unwrap();
            let needed = usize::try_from(bytes.div_ceil(full.max(limits::LEAF_BYTES as u64 / 4))).unwrap();
            // A split leaves what was counted as one in two nodes, and the patch is one more.
            assert!(
                distinct.len() <= 2 * (2 * (needed + 1) + limits::SPARE_LEAVES) + 1,
                "{} of {needed}",
                distinct.len()
            );
        }
    }
    check::<Entries>(&repo, Some(root), &model);
    let now = leaves::<Entries>(&repo, root).len();
    assert!(now <= 4 * needed, "{now} leaves for {needed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any history of edits, whatever the budget, gives what a map gives, at every step.
    #[test]
    fn a_tree_is_a_map(
        history in prop::collection::vec(
            prop::collection::vec((0u32..60_000, prop::option::weighted(0.6, 1u64..1000)), 1..3_000), 1..6),
        budget in prop::sample::select(vec![0usize, 40_000, 10 << 20]),
    ) {
        is_a_map::<Usage>(&history, budget);
    }

    /// As above, where leaves have parts: of a full tree of which more or less changes.
    #[test]
    fn a_tree_with_parts_is_a_map(
        full in 1u32..9_000,
        history in prop::collection::vec(
            prop::sample::select(vec![2usize, 20, 200, 3_000]).prop_flat_map(|most| {
                prop::collection::vec((0u32..10_000, prop::option::weighted(0.6, 1u64..1000)), 1..most)
            }), 1..9),
        budget in prop::sample::select(vec![0usize, 40_000, 10 << 20]),
    ) {
        let mut all = vec![(0..full).map(|n| (n, Some(0))).collect()];
        all.extend(history);
        is_a_map::<Entries>(&all, budget);
    }
}

fn is_a_map<K: Numbered>(history: &[Vec<(u32, Option<u64>)>], budget: usize) {
    let repo = repo();
    let mut model = Model::new();
    let mut roots = Vec::new();
    for (base, edits) in history.iter().enumerate() {
        let batch: BTreeMap<u32, Option<u64>> = edits.iter().copied().collect();
        let batch: Vec<_> = batch.into_iter().collect();
        apply(&mut model, &batch);
        let (left, right) = batch.split_at(batch.len() / 2);
        let root = write::<K>(&repo, roots.last().and_then(|(root, _)| *root), base as u64, budget, &[left, right]);
        check::<K>(&repo, root, &model);
        roots.push((root, model.clone()));
    }
    // What came before is as it was.
    roots.iter().for_each(|(root, model)| check::<K>(&repo, *root, model));
}

#[test]
fn what_no_reader_would_accept_is_not_written() {
    let repo = repo();
    let session = session(&repo, 0);
    let mut writer = TreeWriter::<Entries>::new(&session, None);
    let entry = Entry { meta: Meta::default(), xattrs: Vec::new(), body: Body::Symlink(Vec::new()) };
    writer.apply(vec![(Key::entry(FileId::ROOT, b"link"), Some(entry))]).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, crate::repo::RepoError::Defect { .. }), "{error}");
}
