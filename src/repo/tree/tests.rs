use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::{Env, Instant};
use crate::format::leaf::{Entries, Usage};
use crate::format::log::NodeRef;
use crate::format::{ChainId, FrameOrdinal, Key, LogNumber, Nonce, PackId, PackOrdinal, SessionId, SourceId};
use crate::repo::{Repo, Session};
use crate::store::Store;

fn repo() -> Arc<Repo> {
    Repo::init(Store::memory(), Env::seeded(1, Instant::from_nanos(0))).unwrap()
}

fn session(repo: &Arc<Repo>, base: u64) -> Session {
    let id = SessionId { base: LogNumber(base), random: Nonce(repo.env().random()) };
    Session::begin(repo, SourceId(1), ChainId(0), id).unwrap()
}

fn key(n: u32) -> Key {
    let session = SessionId { base: LogNumber(0), random: Nonce([7; 16]) };
    let pack = PackId { chain: ChainId(0), session, ordinal: PackOrdinal(n >> 8) };
    Key::usage(pack, FrameOrdinal(n & 255))
}

type Model = BTreeMap<Key, u64>;

fn write(
    repo: &Arc<Repo>,
    root: Option<NodeRef>,
    base: u64,
    budget: usize,
    batches: &[Vec<(Key, Option<u64>)>],
) -> Option<NodeRef> {
    let session = session(repo, base);
    let mut writer = TreeWriter::<Usage>::with_budget(&session, root, budget);
    for batch in batches {
        writer.apply(batch.clone()).unwrap();
    }
    let root = writer.finish().unwrap();
    session.finish().unwrap();
    root
}

fn check(repo: &Arc<Repo>, root: Option<NodeRef>, model: &Model) {
    let tree = Tree::<Usage>::new(repo.reader(SourceId(1)), root);
    assert_eq!(tree.items(), model.len() as u64);
    let all: Vec<(Key, u64)> = tree.scan(0).map(|item| item.map(|i| (i.key().clone(), *i.value())).unwrap()).collect();
    assert_eq!(all, model.iter().map(|(k, v)| (k.clone(), *v)).collect::<Vec<_>>());
    for (rank, (key, value)) in model.iter().enumerate().step_by(97) {
        let found = tree.get(key).unwrap().unwrap();
        assert_eq!((found.rank(), found.value()), (rank as u64, value));
        assert_eq!(tree.at(rank as u64).unwrap().unwrap().key(), key);
        assert_eq!(tree.floor(key).unwrap().unwrap().key(), key);
    }
    assert!(tree.at(model.len() as u64).unwrap().is_none());
}

#[test]
fn a_tree_of_several_levels_is_built_in_order_and_changed_in_place() {
    let repo = repo();
    let mut model = Model::new();
    let all: Vec<(Key, Option<u64>)> = (0..900_000).map(|n| (key(n * 2), Some(u64::from(n) + 1))).collect();
    let batches: Vec<_> = all.chunks(5_000).map(<[_]>::to_vec).collect();
    model.extend(all.iter().map(|(key, value)| (key.clone(), value.unwrap())));
    let first = write(&repo, None, 0, 64 << 10, &batches);
    assert!(first.unwrap().level >= 2);
    check(&repo, first, &model);

    let edits = vec![vec![(key(4), None), (key(700_001), Some(5)), (key(800_000), Some(9))]];
    let second = write(&repo, first, 1, 64 << 10, &edits);
    let mut changed = model.clone();
    changed.remove(&key(4));
    changed.insert(key(700_001), 5);
    changed.insert(key(800_000), 9);
    check(&repo, second, &changed);
    check(&repo, first, &model);
}

#[test]
fn an_edit_that_changes_nothing_yields_the_same_root_and_writes_nothing() {
    let repo = repo();
    let batch: Vec<(Key, Option<u64>)> = (0..10_000).map(|n| (key(n), Some(3))).collect();
    let root = write(&repo, None, 0, 1 << 20, &[batch]);
    let session = session(&repo, 1);
    let mut writer = TreeWriter::<Usage>::new(&session, root);
    writer.apply(vec![(key(5), Some(3)), (key(20_000), None)]).unwrap();
    assert_eq!(writer.finish().unwrap(), root);
    assert_eq!(session.finish().unwrap().packs, 0);
}

#[test]
fn removing_everything_leaves_the_empty_tree() {
    let repo = repo();
    let put: Vec<(Key, Option<u64>)> = (0..50_000).map(|n| (key(n), Some(1))).collect();
    let root = write(&repo, None, 0, 1 << 20, &[put]);
    let gone: Vec<(Key, Option<u64>)> = (0..50_000).map(|n| (key(n), None)).collect();
    assert_eq!(write(&repo, root, 1, 1 << 20, &[gone]), None);
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
    let put: Vec<(Key, Option<u64>)> = (0..20_000).map(|n| (key(n * 10 + 5), Some(1))).collect();
    let root = write(&repo, None, 0, 1 << 20, &[put]);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any history of edits, whatever the budget, gives what a map gives, at every step.
    #[test]
    fn a_tree_is_a_map(
        history in prop::collection::vec(
            prop::collection::vec((0u32..60_000, prop::option::weighted(0.6, 1u64..1000)), 1..3_000), 1..6),
        budget in prop::sample::select(vec![0usize, 40_000, 10 << 20]),
    ) {
        let repo = repo();
        let mut model = Model::new();
        let mut root = None;
        for (base, edits) in history.iter().enumerate() {
            let batch: BTreeMap<Key, Option<u64>> = edits.iter().map(|(n, value)| (key(*n), *value)).collect();
            for (key, value) in &batch {
                match value {
                    Some(value) => model.insert(key.clone(), *value),
                    None => model.remove(key),
                };
            }
            let batch: Vec<_> = batch.into_iter().collect();
            let middle = batch.len() / 2;
            let (left, right) = batch.split_at(middle);
            root = write(&repo, root, base as u64, budget, &[left.to_vec(), right.to_vec()]);
            check(&repo, root, &model);
        }
    }
}

#[test]
fn what_no_reader_would_accept_is_not_written() {
    let repo = repo();
    let session = session(&repo, 0);
    let mut writer = TreeWriter::<Entries>::new(&session, None);
    let body = crate::format::entry::Body::Symlink(Vec::new());
    let entry = crate::format::entry::Entry { meta: crate::format::entry::Meta::default(), xattrs: Vec::new(), body };
    writer.apply(vec![(Key::entry(crate::format::FileId::ROOT, b"link"), Some(entry))]).unwrap();
    let error = writer.finish().unwrap_err();
    assert!(matches!(error, crate::repo::RepoError::Defect { .. }), "{error}");
}
