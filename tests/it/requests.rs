//! How many requests things cost: on an object store, this is their speed.

use std::sync::Arc;

use amberfs::base::Env;
use amberfs::capture::Options;
use amberfs::format::log::{Checkpoint, Commit, EntryHash, SourceBody, SourceSnapshot, encode_checkpoint};
use amberfs::format::object::LogId;
use amberfs::format::{LogNumber, Nonce, PointId, SessionId};
use amberfs::store::record::Recorder;
use amberfs::store::{Operation, Store};
use amberfs::view::namespace::{Namespace, NodeId};

use crate::world::{World, later, names, node};

/// A world whose requests are recorded, with a tree of some depth captured once.
fn recorded() -> (World, Recorder) {
    let recorder = Recorder::new();
    let world = World::new(recorder.around(&Store::memory()), Env::seeded(1, later()));
    for dir in 0..40 {
        for file in 0..30 {
            world.write(&format!("d{dir}/sub/deep/f{file}"), format!("{dir} {file} ").repeat(100));
        }
    }
    world.capture(&Options::default());
    recorder.take();
    (world, recorder)
}

/// The recorded requests since the last look, each as its operation and the kind of object.
fn since(recorder: &Recorder) -> Vec<String> {
    let kind = |object: &str| {
        let parts: Vec<&str> = object.split('/').collect();
        parts
            .iter()
            .find(|part| ["log", "checkpoint", "chain", "amberfs"].contains(part))
            .map_or("?", |part| *part)
            .to_owned()
    };
    recorder
        .take()
        .into_iter()
        .map(|call| format!("{} {}", call.operation.name(), kind(&call.object.to_string())))
        .collect()
}

fn creates(calls: &[String]) -> Vec<&String> {
    calls.iter().filter(|call| call.starts_with(Operation::Create.name())).collect()
}

#[test]
fn an_unchanged_capture_creates_its_log_entry_and_nothing_else() {
    let (world, recorder) = recorded();
    world.capture(&Options::default());
    let calls = since(&recorder);
    assert_eq!(creates(&calls), [&format!("{} log", Operation::Create.name())], "{calls:#?}");
}

#[test]
fn a_small_incremental_creates_one_pack_and_its_log_entry() {
    let (world, recorder) = recorded();
    world.write("d7/sub/deep/f3", "changed");
    world.capture(&Options::default());
    let calls = since(&recorder);
    let name = Operation::Create.name();
    assert_eq!(creates(&calls), [&format!("{name} chain"), &format!("{name} log")], "{calls:#?}");
}

#[test]
fn mounting_reads_the_repository_log_only() {
    let (world, recorder) = recorded();
    let view = world.mount();
    names(&view, NodeId::ROOT);
    let calls = since(&recorder);
    // Marker; checkpoints and entries listed; one entry; the head proved; one refresh for the listing.
    assert!(calls.len() <= 7, "{calls:#?}");
    assert!(recorder.calls().is_empty());
    assert!(!calls.iter().any(|call| call.ends_with("chain")), "{calls:#?}");
}

#[test]
fn looking_into_a_point_costs_a_node_for_each_level_and_reading_a_file_one_frame_more() {
    let (world, recorder) = recorded();
    let view = world.mount();
    let points = node(&view, "home/points");
    since(&recorder);
    let (_, root) = names(&view, points).pop().unwrap();
    names(&view, root);
    let first_ls: Vec<String> = since(&recorder).into_iter().filter(|call| call.ends_with("chain")).collect();
    assert!(first_ls.len() <= 2, "the first ls of a point: {first_ls:#?}");
    let file = ["d31", "sub", "deep", "f17"]
        .iter()
        .fold(root, |dir, name| view.lookup(dir, name.as_bytes()).unwrap().attr.node);
    let deep_stat = since(&recorder);
    assert!(deep_stat.len() <= 3, "stat of a deep path: {deep_stat:#?}");
    assert!(!view.read(file, 0, 1).unwrap().is_empty());
    let first_byte = since(&recorder);
    assert_eq!(first_byte.len(), 1, "a file's first byte: {first_byte:#?}");
    view.read(file, 100, 50).unwrap();
    assert_eq!(since(&recorder), Vec::<String>::new(), "the frame is kept");
}

/// Lets a checkpoint say that the source has ten thousand points, all with the first one's trees.
fn tell_of_ten_thousand(world: &World) {
    let first = Arc::clone(world.log.refresh().unwrap().newest().unwrap());
    let points = (0..10_000u64).map(|n| {
        let id = PointId(first.id.0 + n);
        let name = if n == 0 { first.commit.name.clone() } else { format!("{}+{}", first.commit.name, n + 1) };
        let session = SessionId { base: LogNumber(id.0 - 1), random: Nonce(world.env.random()) };
        (id, first.committed, Commit { session, name, parent: (n > 0).then_some(first.id), ..first.commit.clone() })
    });
    let state = SourceSnapshot { chains: 1, points: points.collect(), ..SourceSnapshot::default() };
    let number = LogNumber(first.id.0 + 9_999);
    let checkpoint = Checkpoint { number, hash: EntryHash([1; 16]), state };
    let (name, bytes) = encode_checkpoint::<SourceBody>(world.repo.id(), LogId::Source(world.source.id), &checkpoint);
    world.repo.store().create(&name, bytes).unwrap();
}

#[test]
fn ten_thousand_points_cost_as_many_requests_as_one() {
    let (world, recorder) = recorded();
    tell_of_ten_thousand(&world);
    since(&recorder);
    let view = world.mount();
    let mounted = since(&recorder);
    assert!(mounted.len() <= 6, "mounting: {mounted:#?}");
    let points = node(&view, "home/points");
    let looked = since(&recorder);
    assert!(looked.len() <= 8, "the first look at the source: {looked:#?}");
    let listed = names(&view, points);
    assert_eq!(listed.len(), 10_000);
    let calls = since(&recorder);
    // Each look asks whether the log has grown, and no point is read.
    let asked = &calls;
    assert!(asked.iter().all(|call| call.ends_with("log")), "{asked:#?}");
    names(&view, listed[7_777].1);
    let first_ls = since(&recorder);
    assert!(first_ls.len() <= 2, "the first ls of a point: {first_ls:#?}");
}

/// Commits `count` points that all share the first one's trees.
fn fill(world: &World, count: usize) {
    let first: Arc<_> = Arc::clone(world.log.refresh().unwrap().newest().unwrap());
    for _ in 0..count {
        let session = world.log.begin().unwrap();
        let commit = Commit { session, parent: Some(first.id), packs: 0, ..first.commit.clone() };
        world.log.commit(commit).unwrap();
    }
}

#[test]
fn the_first_look_at_a_source_does_not_depend_on_how_many_points_it_has() {
    let mut costs = Vec::new();
    for count in [1, 500] {
        let (world, recorder) = recorded();
        fill(&world, count);
        let view = world.mount();
        since(&recorder);
        let listed = names(&view, node(&view, "home/labels")).len();
        assert_eq!(listed, 0);
        let calls = since(&recorder);
        costs.push(calls.len());
        // At most: two listings, a checkpoint, the entries since it, and the proof of the head; a refresh for each look.
        assert!(calls.len() <= 64 + 10, "{count} points: {}", calls.len());
    }
    assert!(costs[1] <= costs[0] + 64, "{costs:?}");
}
