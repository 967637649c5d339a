//! How many requests things cost: on an object store, this is their speed.
//!
//! The numbers are exact: who makes one of them larger has to say so here, and why in
//! `docs/decisions/025-requests-of-a-log.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use amberfs::base::Env;
use amberfs::capture::Options;
use amberfs::chain::SourceLog;
use amberfs::format::log::{Checkpoint, Commit, EntryHash, SourceBody, SourceSnapshot, encode_checkpoint};
use amberfs::format::object::LogId;
use amberfs::format::{LogNumber, Nonce, PointId, SessionId};
use amberfs::store::record::Recorder;
use amberfs::store::{Operation, Store};
use amberfs::view::MountView;
use amberfs::view::namespace::{Namespace, NodeId};

use crate::world::{self, World, later, names, node, zero_settings};

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
            .find(|part| ["log", "checkpoint", "chain", "amberfs", "key"].contains(part))
            .map_or("?", |part| *part)
            .to_owned()
    };
    recorder
        .take()
        .into_iter()
        .map(|call| format!("{} {}", call.operation.name(), kind(&call.object.to_string())))
        .collect()
}

/// Equal requests counted: `2 get log, 1 list log`.
fn counted(calls: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls {
        *counts.entry(call).or_default() += 1;
    }
    counts.iter().map(|(call, count)| format!("{count} {call}")).collect::<Vec<_>>().join(", ")
}

/// What a mount costs: of an encrypted repository also a LIST of its slot's epochs, and a GET of the newest.
fn mounted() -> &'static str {
    match world::is_encrypted() {
        true => "1 get amberfs, 1 get key, 2 get log, 1 list checkpoint, 1 list key, 1 list log",
        false => "1 get amberfs, 2 get log, 1 list checkpoint, 1 list log",
    }
}

fn creates(calls: &[String]) -> Vec<&String> {
    calls.iter().filter(|call| call.starts_with(Operation::Create.name())).collect()
}

#[test]
fn an_unchanged_capture_creates_its_log_entry_and_nothing_else() {
    let (world, recorder) = recorded();
    world.capture(&Options::default());
    let calls = since(&recorder);
    assert_eq!(counted(&calls), "1 create log, 4 get log, 2 list log, 5 range chain");
}

#[test]
fn a_small_incremental_creates_one_pack_and_its_log_entry() {
    let (world, recorder) = recorded();
    world.write("d7/sub/deep/f3", "changed");
    world.capture(&Options::default());
    let calls = since(&recorder);
    let name = Operation::Create.name();
    assert_eq!(creates(&calls), [&format!("{name} chain"), &format!("{name} log")], "{calls:#?}");
    // Content of an encrypted repository never stands in its entry, so the chunk is looked for among the chain's.
    let looked = if world::is_encrypted() { ", 1 tail chain" } else { "" };
    assert_eq!(counted(&calls), format!("1 create chain, 1 create log, 4 get log, 2 list log, 6 range chain{looked}"));
}

#[test]
fn mounting_reads_the_repository_log_only() {
    let (world, recorder) = recorded();
    let view = world.mount();
    names(&view, NodeId::ROOT);
    let calls = since(&recorder);
    // Marker; checkpoints and entries listed; one entry; the head proved. Listing asks for nothing more.
    assert_eq!(counted(&calls), mounted());
    assert!(recorder.calls().is_empty());
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
    assert_eq!(counted(&first_ls), "2 range chain");
    let file = ["d31", "sub", "deep", "f17"]
        .iter()
        .fold(root, |dir, name| view.lookup(dir, name.as_bytes()).unwrap().attr.node);
    let deep_stat = since(&recorder);
    assert_eq!(counted(&deep_stat), "1 range chain");
    assert!(!view.read(file, 0, 1).unwrap().is_empty());
    let first_byte = since(&recorder);
    assert_eq!(counted(&first_byte), "1 range chain");
    view.read(file, 100, 50).unwrap();
    assert_eq!(since(&recorder), Vec::<String>::new(), "the frame is kept");
}

#[test]
fn what_is_beside_a_small_file_has_come_with_it() {
    let (world, recorder) = recorded();
    let view = world.mount();
    let (_, root) = names(&view, node(&view, "home/points")).pop().unwrap();
    // The kernel knows the files of a walk; so are the tree's leaves known here.
    let below = |dir, name: &str| view.lookup(dir, name.as_bytes()).unwrap().attr.node;
    let files: Vec<NodeId> = names(&view, root)
        .into_iter()
        .flat_map(|(_, dir)| names(&view, below(below(dir, "sub"), "deep")))
        .map(|(_, file)| file)
        .collect();
    let first = files[100];
    view.read(first, 0, 1).unwrap();
    since(&recorder);
    let mut beside = Vec::new();
    let mut all = |node, content| {
        beside.push((node, content));
        true
    };
    view.beside(first, &mut all).unwrap();
    // Whole files, in their order, to the end of the frame.
    let nodes: Vec<NodeId> = beside.iter().map(|(node, _)| *node).collect();
    assert_eq!(nodes, files[101..][..beside.len()]);
    assert!((20..=250).contains(&beside.len()), "{} files", beside.len());
    for (node, content) in &beside {
        assert_eq!(*content, view.read(*node, 0, 1 << 20).unwrap());
    }
    assert_eq!(since(&recorder), Vec::<String>::new());
    view.read(files[101 + beside.len()], 0, 1).unwrap();
    assert_eq!(counted(&since(&recorder)), "1 range chain", "the next frame");

    let mut told = 0;
    let mut three = |_, _| {
        told += 1;
        told < 3
    };
    view.beside(first, &mut three).unwrap();
    view.beside(root, &mut three).unwrap();
    assert_eq!(told, 3);
}

/// What another process of this machine does to the repository in `directory`, and what that costs.
fn in_another_process(world: &World, directory: &Path, work: impl Fn(&World, Store)) -> String {
    let store = Store::local(&directory.join("repository")).unwrap();
    store.keep_proof_in(directory.join("state/proven"));
    work(world, store.clone());
    let counts = store.meter().snapshot();
    let made = Operation::ALL.iter().filter(|operation| counts.of(**operation).requests > 0);
    made.map(|operation| format!("{} {}", counts.of(*operation).requests, operation.name()))
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
fn a_store_is_probed_before_the_first_append_and_then_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::new(Store::create_local(&directory.path().join("repository")).unwrap(), Env::seeded(1, later()));
    world.write("file", "content");
    world.capture(&Options::default());
    let read = |world: &World, store: Store| {
        let view = MountView::open(world::open(store, world.env.clone()).unwrap(), zero_settings()).unwrap();
        assert_eq!(names(&view, node(&view, "home/points")).len(), 1);
    };
    let append = |world: &World, store: Store| {
        let log = SourceLog::open(store, world.env.clone(), world.repo.realm(), world.source.id);
        log.begin().unwrap();
        log.begin().unwrap();
    };
    // A slot is one LIST and one GET more.
    let expected = if world::is_encrypted() { "7 get, 5 list" } else { "6 get, 4 list" };
    assert_eq!(in_another_process(&world, directory.path(), read), expected);
    assert_eq!(in_another_process(&world, directory.path(), append), "18 create, 7 get, 4 list, 2 delete");
    assert_eq!(in_another_process(&world, directory.path(), append), "5 get, 4 list");
}

/// Lets a checkpoint say that the source has ten thousand points, all with the first one's trees.
fn tell_of_ten_thousand(world: &World) {
    let first = Arc::clone(world.log.refresh().unwrap().newest().unwrap());
    let points = (0..10_000u64).map(|n| {
        let id = PointId(first.id.0 + n);
        let name = if n == 0 { first.commit.name.clone() } else { format!("{}+{}", first.commit.name, n + 1) };
        // The first stays who wrote the packs: of an encrypted one it says how they are sealed.
        let session = match n {
            0 => first.commit.session,
            _ => SessionId { base: LogNumber(id.0 - 1), random: Nonce(world.env.random()) },
        };
        let commit = Commit { session, name, parent: (n > 0).then_some(first.id), ..(*first.commit).clone() };
        (id, first.committed, Arc::new(commit))
    });
    let state = SourceSnapshot { chains: 1, points: points.collect(), ..SourceSnapshot::default() };
    let number = LogNumber(first.id.0 + 9_999);
    let checkpoint = Checkpoint { number, hash: EntryHash([1; 16]), state };
    let (name, bytes) =
        encode_checkpoint::<SourceBody>(world.repo.realm(), LogId::Source(world.source.id), &checkpoint);
    world.repo.store().create(&name, bytes).unwrap();
}

#[test]
fn ten_thousand_points_cost_as_many_requests_as_one() {
    let (world, recorder) = recorded();
    tell_of_ten_thousand(&world);
    since(&recorder);
    let view = world.mount();
    assert_eq!(counted(&since(&recorder)), mounted());
    let points = node(&view, "home/points");
    let looked = since(&recorder);
    assert_eq!(counted(&looked), "1 get checkpoint, 1 get log, 1 list checkpoint, 1 list log");
    let listed = names(&view, points);
    assert_eq!(listed.len(), 10_000);
    assert_eq!(counted(&since(&recorder)), "");
    names(&view, listed[7_777].1);
    assert_eq!(counted(&since(&recorder)), "2 range chain");
}

/// Commits `count` points that all share the first one's trees.
fn fill(world: &World, count: usize) {
    let first: Arc<_> = Arc::clone(world.log.refresh().unwrap().newest().unwrap());
    for _ in 0..count {
        let session = world.log.begin().unwrap();
        let commit = Commit { session, parent: Some(first.id), packs: 0, ..(*first.commit).clone() };
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
        costs.push(counted(&calls));
    }
    assert_eq!(
        costs,
        ["4 get log, 1 list checkpoint, 1 list log", "1 get checkpoint, 55 get log, 1 list checkpoint, 1 list log"]
    );
}
