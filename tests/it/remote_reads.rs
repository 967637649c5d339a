//! What reading and writing cost over a network, in requests and bytes: on any machine, that is their speed.
//!
//! The store counts as one over a network, so that what is read is read ahead, together and from the caches; it lies in
//! memory, so that nothing here depends on time. How far ahead a reader is varies, so some figures are bounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use amberfs::base::{Env, limits};
use amberfs::capture::{Options, Progress, capture_disk};
use amberfs::chain::{RepoLog, SourceLog, origin};
use amberfs::format::log::SourceKind;
use amberfs::repo::Repo;
use amberfs::store::fault::{Fault, Faults, Rule};
use amberfs::store::record::{Recorded, Recorder};
use amberfs::store::{Operation, Store};
use amberfs::view::MountView;
use amberfs::view::namespace::{FileKind, Namespace, NodeId};

use crate::world::{self, World, later, names, node, real, same, shown, zero_settings};

/// Bytes that do not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

fn world() -> (World, Recorder) {
    let recorder = Recorder::new();
    let env = Env::seeded(1, later());
    (World::new(recorder.around(&Store::memory_as_remote(env.clone())), env), recorder)
}

/// 4,000 files of 6,000 bytes in 200 directories, captured: 24 MB in about 190 frames.
fn many_files() -> (World, Recorder) {
    let (world, recorder) = world();
    for n in 0..4000u64 {
        world.write(&format!("d{}/e{}/file-with-a-name-{n}", n / 400, n / 20), noise(n, 6000));
    }
    world.capture(&Options::default());
    recorder.take();
    (world, recorder)
}

/// The repository as another process of another machine sees it: nothing in memory, nothing on disk.
fn opened(world: &World) -> (Arc<Repo>, MountView) {
    let repo = world::open(world.repo.store().clone(), world.env.clone()).unwrap();
    let view = MountView::open(Arc::clone(&repo), zero_settings()).unwrap();
    (repo, view)
}

/// The requests for packs since the last look, when nothing is on its way any more.
fn of_packs(repo: &Repo, recorder: &Recorder) -> Vec<Recorded> {
    while repo.block_counts().unwrap().on_their_way > 0 {
        std::thread::yield_now();
    }
    recorder.take().into_iter().filter(|call| call.object.contains("/chain/")).collect()
}

fn bytes_of(calls: &[Recorded]) -> u64 {
    calls.iter().map(|call| call.bytes).sum()
}

/// The newest point of a source.
fn newest(view: &MountView, source: &str) -> NodeId {
    names(view, node(view, &format!("{source}/points"))).pop().unwrap().1
}

/// The node at `path` below the directory `dir`.
fn below(view: &MountView, dir: NodeId, path: &str) -> NodeId {
    path.split('/').fold(dir, |dir, name| view.lookup(dir, name.as_bytes()).unwrap().attr.node)
}

/// Everything below `dir`, as `find` goes through it.
fn walk(view: &MountView, dir: NodeId, found: &mut Vec<NodeId>) {
    for (_, node) in names(view, dir) {
        match view.attr(node).unwrap().attr.kind {
            FileKind::Directory => walk(view, node, found),
            _ => found.push(node),
        }
    }
}

#[test]
fn looking_into_a_point_costs_one_request_and_a_file_one_more() {
    let (world, recorder) = many_files();
    let (repo, view) = opened(&world);
    let root = newest(&view, "home");
    assert_eq!(names(&view, root).len(), 10);
    let first_ls = of_packs(&repo, &recorder);
    assert_eq!(first_ls.len(), 1, "{first_ls:?}");
    let file = below(&view, root, "d5/e107/file-with-a-name-2151");
    let deep = of_packs(&repo, &recorder);
    assert!(deep.len() <= 1, "{deep:?}");
    assert!(view.read(file, 0, 4096).unwrap()[..] == noise(2151, 6000)[..4096]);
    let first_byte = of_packs(&repo, &recorder);
    assert_eq!(first_byte.len(), 1, "{first_byte:?}");
    assert!(bytes_of(&first_byte) < 3 * limits::GROUP_FRAME_BYTES as u64 / 2);
}

#[test]
fn a_walk_of_a_tree_is_a_few_requests() {
    let (world, recorder) = many_files();
    let (repo, view) = opened(&world);
    let mut files = Vec::new();
    walk(&view, newest(&view, "home"), &mut files);
    assert_eq!(files.len(), 4000);
    let calls = of_packs(&repo, &recorder);
    assert!(calls.len() <= 4, "{} leaves and nodes by {calls:?}", 4000 * 60 / limits::LEAF_BYTES);
}

#[test]
fn copying_many_small_files_is_a_stream_of_packs() {
    let (world, recorder) = many_files();
    let (repo, view) = opened(&world);
    let mut files = Vec::new();
    walk(&view, newest(&view, "home"), &mut files);
    of_packs(&repo, &recorder);
    for file in &files {
        assert_eq!(view.read(*file, 0, 1 << 17).unwrap().len(), 6000);
    }
    let calls = of_packs(&repo, &recorder);
    assert!(calls.len() <= 16, "24 MB by {} requests: {calls:?}", calls.len());
    assert!(bytes_of(&calls) < 26_000_000, "{}", bytes_of(&calls));
    let counts = repo.block_counts().unwrap();
    assert!(repo.block_bytes() <= limits::BLOCK_CACHE_BYTES, "{counts:?}");
}

#[test]
fn a_random_read_of_a_disk_is_one_request_of_one_frame() {
    let recorder = Recorder::new();
    let env = Env::seeded(1, later());
    let repo = world::init(recorder.around(&Store::memory_as_remote(env.clone())), env.clone()).unwrap();
    let sources = RepoLog::open(repo.store().clone(), env.clone(), repo.realm());
    let source = sources.add_source("vm", SourceKind::Disk, origin::here(b"/dev/vm")).unwrap();
    let log = SourceLog::open(repo.store().clone(), env.clone(), repo.realm(), source.id);
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    let content = noise(1, 96 << 20);
    std::fs::write(&image, &content).unwrap();
    capture_disk(&repo, &log, &source, &image, &Options::default(), &Progress::new()).unwrap();

    let repo = world::open(repo.store().clone(), env).unwrap();
    let view = MountView::open(Arc::clone(&repo), zero_settings()).unwrap();
    let disk = below(&view, newest(&view, "vm"), "disk.raw");
    of_packs(&repo, &recorder);
    let (mut requests, mut bytes) = (0, 0);
    const READS: u64 = 100;
    for n in 0..READS {
        let at = (n * 7919 % 1536) << 16 | 0x3000;
        let read = view.read(disk, at, 4096).unwrap();
        assert!(read[..] == content[at as usize..][..4096]);
        let calls = of_packs(&repo, &recorder);
        assert!((1..=2).contains(&calls.len()), "read {n}: {calls:?}");
        requests += calls.len() as u64;
        bytes += bytes_of(&calls);
    }
    assert!(requests * 10 <= READS * 13, "{requests} requests for {READS} reads");
    assert!(bytes < READS * (100 << 10), "{bytes} bytes for {READS} reads");
}

#[test]
fn captures_over_a_network_cost_what_they_store() {
    let (world, recorder) = world();
    for n in 0..500u64 {
        world.write(&format!("d{}/{n}", n / 50), noise(n, 1000));
    }
    let counted = |world: &World| {
        world.capture(&Options::default());
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for call in recorder.take() {
            *counts.entry(call.operation.name().to_owned()).or_default() += 1;
        }
        counts.iter().map(|(operation, count)| format!("{count} {operation}")).collect::<Vec<_>>().join(", ")
    };
    recorder.take();
    let full = counted(&world);
    assert!(full.starts_with("3 create"), "a chain, a pack, a commit: {full}");
    // All nodes of the parent, and what the log gained.
    assert_eq!(counted(&world), "1 create, 4 get, 2 list, 1 range");
    assert_eq!(counted(&world), "1 create, 4 get, 2 list", "the parent is at hand");
}

#[test]
fn a_capture_rides_out_a_fault_of_any_request_and_nobody_hears_of_it() {
    for fault in [Fault::Before, Fault::After, Fault::Half] {
        // Until a run has no request with that number any more.
        for nth in 1.. {
            let env = Env::seeded(1, later());
            let faults = Faults::new();
            let world = World::new(faults.around(&Store::memory_as_remote(env.clone())), env);
            for n in 0..30u64 {
                world.write(&format!("d{}/{n}", n % 3), noise(n, 900));
            }
            world.capture(&Options::default());
            world.write("d1/4", "changed");
            faults.clear();
            faults.plan(Rule::new(fault).nth(nth));
            world.capture(&Options::default());
            let (_repo, view) = opened(&world);
            same(&real(&world.root()), &shown(&view, newest(&view, "home"), 5000), &format!("{fault:?} of {nth}"));
            assert_eq!(names(&view, node(&view, "home/points")).len(), 2, "{fault:?} of {nth}");
            if faults.hits() == 0 {
                assert!(nth > 15, "only {nth} requests");
                break;
            }
        }
    }
}

#[test]
fn a_capture_of_several_parts_rides_out_a_fault_of_any_request() {
    for fault in [Fault::Before, Fault::After] {
        for operation in [Operation::Begin, Operation::Part, Operation::Finish] {
            for nth in 1..=2 {
                let env = Env::seeded(1, later());
                let faults = Faults::new();
                let world = World::new(faults.around(&Store::memory_as_remote(env.clone())), env);
                world.write("large", noise(1, 2 * limits::UPLOAD_PART_BYTES + (1 << 20)));
                faults.plan(Rule::new(fault).on(operation).nth(nth));
                world.capture(&Options::default());
                let hit = operation == Operation::Part || nth == 1;
                assert_eq!(faults.hits() > 0, hit, "{fault:?} of {operation:?} {nth}");
                let (_repo, view) = opened(&world);
                let what = format!("{fault:?} of {operation:?} {nth}");
                same(&real(&world.root()), &shown(&view, newest(&view, "home"), 1 << 20), &what);
            }
        }
    }
}

#[test]
fn what_is_read_ahead_is_what_was_captured() {
    let (world, _recorder) = world();
    for n in 0..300u64 {
        world.write(&format!("small/{}/{n}", n % 7), noise(n, (n * 97 % 5000) as usize));
    }
    world.write("large", noise(9, 12 << 20));
    for changed in 0..4u64 {
        world.capture(&Options::default());
        for n in (0..300u64).filter(|n| n % 5 == changed) {
            world.write(&format!("small/{}/{n}", n % 7), noise(n + 1000, 3000));
        }
        let mut large = noise(9, 12 << 20);
        large[(changed as usize) << 20..][..4096].fill(changed as u8);
        world.write("large", large);
    }
    world.capture(&Options::default());
    let expected = real(&world.root());
    let check = |what| {
        let (_repo, view) = opened(&world);
        same(&expected, &shown(&view, newest(&view, "home"), 100_000), what);
    };
    check("without a disk cache");
    let directory = tempfile::tempdir().unwrap();
    world.repo.store().keep_blocks_in(directory.path().join("cache"), 0);
    check("into a disk cache");
    check("out of a disk cache");
    let (repo, view) = opened(&world);
    let mut files = Vec::new();
    walk(&view, newest(&view, "home"), &mut files);
    let usage = repo.disk_cache_measured().unwrap();
    assert!(usage.hits > 0 && usage.bytes > Some(12 << 20), "{usage:?}");
    let repositories = std::fs::read_dir(directory.path().join("cache")).unwrap();
    assert_eq!(repositories.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 1);
}

#[test]
fn what_the_disk_keeps_is_read_without_a_request_for_packs() {
    let (world, recorder) = many_files();
    let directory = tempfile::tempdir().unwrap();
    world.repo.store().keep_blocks_in(directory.path().join("cache"), 0);
    let read_all = |before: &dyn Fn(&Path)| {
        before(&directory.path().join("cache"));
        let (repo, view) = opened(&world);
        let mut files = Vec::new();
        walk(&view, newest(&view, "home"), &mut files);
        for (n, file) in files.iter().enumerate().step_by(3) {
            assert_eq!(view.read(*file, 0, 1 << 17).unwrap().len(), 6000, "file {n}");
        }
        of_packs(&repo, &recorder)
    };
    assert!(!read_all(&|_| {}).is_empty());
    assert_eq!(read_all(&|_| {}), []);
    // A cache that somebody deletes, and one that is anything but what was written, are no cache.
    let fresh = read_all(&|cache| std::fs::remove_dir_all(cache).unwrap());
    assert!(fresh.iter().all(|call| call.operation == Operation::Range) && !fresh.is_empty());
    assert!(!read_all(&|cache| overwrite(cache)).is_empty());
    assert_eq!(read_all(&|_| {}), []);
}

/// Fills all files below `directory` with something else.
fn overwrite(directory: &Path) {
    for item in std::fs::read_dir(directory).unwrap() {
        let path = item.unwrap().path();
        match path.is_dir() {
            true => overwrite(&path),
            false => {
                let bytes = std::fs::metadata(&path).unwrap().len();
                std::fs::write(&path, noise(bytes, bytes as usize)).unwrap();
            }
        }
    }
}
