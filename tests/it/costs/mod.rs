//! What the hot paths cost, in numbers that a slow machine does not change: allocations, bytes from the heap, system calls.
//!
//! `baseline.txt` has what they cost; a figure that grows by more than a twentieth fails here, and so does one that
//! shrinks by more than a fifth, so that what was gained is written down and kept:
//!
//! ```sh
//! AMBERFS_COSTS=write cargo test --locked --all-features --test it costs::
//! ```
//!
//! Times are measured by `cargo bench` and `benches/compare`; requests to a store are counted by `requests.rs` and `remote_reads.rs`.

mod sys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use amberfs::base::Env;
use amberfs::capture::Options;
use amberfs::chain::SourceLog;
use amberfs::format::frame::FrameKind;
use amberfs::format::leaf::Entries;
use amberfs::format::log::NodeRef;
use amberfs::format::node::Node;
use amberfs::store::Store;
use amberfs::view::MountView;
use amberfs::view::namespace::{Namespace, NodeId};
use bytes::Bytes;

use crate::skip::skipped;
use crate::world::{self, World, later, node};
use sys::{Taken, taken};

const BASELINE: &str = include_str!("baseline.txt");

/// Figures of one test against those that are recorded.
struct Costs {
    figures: BTreeMap<String, f64>,
}

impl Costs {
    fn new() -> Costs {
        Costs { figures: BTreeMap::new() }
    }

    /// `count` for each of `of` things.
    fn add(&mut self, what: &str, count: u64, of: u64) {
        let mode = if world::is_encrypted() { "encrypted, " } else { "" };
        self.figures.insert(format!("{mode}{what}"), count as f64 / of as f64);
    }

    /// Fails when one of them is not what it was; or writes them down.
    #[track_caller]
    fn judge(self) {
        if std::env::var_os("AMBERFS_COSTS").is_some_and(|word| word == "write") {
            let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/costs/baseline.txt");
            // One test at a time, whatever processes they run in.
            let lock = std::fs::File::open(&place).unwrap();
            lock.lock().unwrap();
            let mut known = recorded(&std::fs::read_to_string(&place).unwrap());
            known.extend(self.figures);
            let lines: String = known.iter().map(|(what, figure)| format!("{what} = {figure:.3}\n")).collect();
            return std::fs::write(place, lines).unwrap();
        }
        let known = recorded(BASELINE);
        let wrong: Vec<String> = self
            .figures
            .iter()
            .filter_map(|(what, figure)| match known.get(what) {
                None => Some(format!("{what}: {figure:.3}, and nothing is recorded")),
                // Half of one in a thousand is rounding.
                Some(was) if *figure > was * 1.05 + 0.001 => Some(format!("{what}: {figure:.3}, was {was:.3}")),
                Some(was) if *figure < was * 0.8 - 0.001 => {
                    Some(format!("{what}: {figure:.3}, was {was:.3}: better, so write it down"))
                }
                Some(_) => None,
            })
            .collect();
        assert!(wrong.is_empty(), "costs are not what they were (see the head of this file):\n{}", wrong.join("\n"));
    }
}

fn recorded(text: &str) -> BTreeMap<String, f64> {
    let line = |line: &str| {
        let (what, figure) = line.rsplit_once(" = ").unwrap();
        (what.to_owned(), figure.parse().unwrap())
    };
    text.lines().map(line).collect()
}

/// Text that compresses as text does, other in every file.
fn words(seed: usize, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    let mut at = seed;
    while text.len() < bytes {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(["lorem", "ipsum", "dolor", "sit", "amet", "\n"][(at >> 33) % 6]);
        text.push_str(&format!(" {} ", at >> 52));
    }
    text.truncate(bytes);
    text
}

const FILES: u64 = 1000;
const LARGE: usize = 8 << 20;

/// A directory of many small files, and a large file, captured.
fn world_of_files() -> World {
    let world = World::new(Store::memory(), Env::seeded(1, later()));
    for n in 0..usize::try_from(FILES).unwrap() {
        world.write(&format!("many/a-name-as-files-have-them-{n:04}.c"), words(n, 3000 + n));
    }
    world.write("large", words(1_000_000, LARGE));
    world.capture(&Options::default());
    world
}

/// The first leaf with names under `node`, with the reference to it.
fn leaf_of(world: &World, mut node: NodeRef) -> (NodeRef, Bytes) {
    let reader = world.repo.reader(world.source.id);
    loop {
        let payload = reader.fetch(&node.frame, FrameKind::Entries).unwrap();
        match Node::<Entries>::decode(&payload, &node).unwrap() {
            Node::Leaf(_) => return (node, payload),
            Node::Inner(children) => node = children[0].branch.node,
        }
    }
}

#[test]
fn nodes_are_decoded_and_encoded_at_what_they_cost_before() {
    let world = world_of_files();
    let log = SourceLog::open(world.repo.store().clone(), world.env.clone(), world.repo.realm(), world.source.id);
    let roots = log.load().unwrap().newest().unwrap().commit.roots;
    let (pointer, payload) = leaf_of(&world, roots.entries);
    let mut costs = Costs::new();
    let (decoding, leaf) = taken(|| Node::<Entries>::decode(&payload, &pointer).unwrap());
    costs.add("decoding a leaf, allocations for each entry", decoding.times, pointer.items);
    costs.add("decoding a leaf, bytes for each entry", decoding.bytes, pointer.items);
    let (encoding, again) = taken(|| leaf.encode(0));
    assert_eq!(again, payload);
    costs.add("encoding a leaf, allocations for each entry", encoding.times, pointer.items);
    costs.judge();
}

/// Names in `directory`, counted.
fn listed(view: &MountView, directory: NodeId) -> u64 {
    let mut names = 0;
    view.read_dir(directory, 0, &mut |item| {
        names += u64::from(item.found.is_ok());
        true
    })
    .unwrap();
    names
}

/// Reads all of a file in pieces as the kernel asks for them.
fn read_through(view: &MountView, file: NodeId, bytes: usize) {
    for at in (0..bytes).step_by(128 << 10) {
        assert_eq!(view.read(file, at as u64, 128 << 10).unwrap().len(), (128 << 10).min(bytes - at));
    }
}

#[test]
fn what_a_mount_is_asked_costs_what_it_did_before() {
    let world = world_of_files();
    let view = world.mount();
    let directory = node(&view, "home/points");
    let (_, point) = world::names(&view, directory).pop().unwrap();
    let many = view.lookup(point, b"many").unwrap().attr.node;
    let large = view.lookup(point, b"large").unwrap().attr.node;
    let mut costs = Costs::new();
    let mut add = |what: &str, taken: Taken, of: u64| {
        costs.add(&format!("{what}, allocations"), taken.times, of);
        costs.add(&format!("{what}, bytes"), taken.bytes, of);
    };

    let (cold, names) = taken(|| listed(&view, many));
    assert_eq!(names, FILES);
    add("listing names for the first time, each", cold, FILES);
    add("listing names once more, each", taken(|| listed(&view, many)).0, FILES);

    let name = b"a-name-as-files-have-them-0500.c";
    let (looking, file) = taken(|| view.lookup(many, name).unwrap().attr);
    add("looking up a name", looking, 1);
    add("asking for attributes", taken(|| view.attr(file.node).unwrap()).0, 1);

    let (first, _) = taken(|| view.read(file.node, 0, 4096).unwrap());
    add("the first read of a small file", first, 1);
    let (next, bytes) = taken(|| view.read(file.node, 0, 4096).unwrap());
    assert_eq!(bytes.len() as u64, file.size.min(4096));
    add("a read of what is in memory", next, 1);

    let (through, ()) = taken(|| read_through(&view, large, LARGE));
    add("reading a large file, each 128 KiB", through, (LARGE / (128 << 10)) as u64);
    costs.judge();
}

/// Files that the program captures.
const CAPTURED: usize = 500;

/// System calls that have to do with files, by which a capture's speed is decided.
const CALLS: &str = "trace=open,openat,openat2,read,pread64,readv,close,fstat,newfstatat,statx,lseek,getdents64,\
    flistxattr,listxattr,llistxattr,fgetxattr,getxattr,lgetxattr,readlinkat,fadvise64";

/// Calls of each kind that `command` makes, all its threads together.
fn calls_of(mut command: Command, directory: &Path) -> BTreeMap<String, u64> {
    let counts = directory.join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-c", "-U", "calls,name", "-e", CALLS, "-e", "signal=none", "-o"]).arg(&counts);
    strace.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        strace.env(name, value.unwrap());
    }
    let output = strace.output().unwrap();
    assert!(output.status.success(), "{:?}: {}", command.output(), String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(counts).unwrap();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let count = words.next()?.parse().ok()?;
        Some((words.next()?.to_owned(), count))
    };
    // Of a thread that ends within a call strace counts what it cannot name, as `???(`.
    let is_call = |name: &str| name != "total" && !name.contains('?');
    text.lines().filter_map(line).filter(|(name, _)| is_call(name)).collect()
}

#[test]
fn capturing_a_file_costs_the_system_calls_that_it_did_before() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skipped("no strace: apt-get install strace");
    }
    let place = tempfile::tempdir().unwrap();
    let directory = |name: &str| {
        let path: PathBuf = place.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let source = directory("source");
    // So few that nothing ever waits for the workers: what waits too long is looked at again, and that would count a
    // slow machine's time.
    for n in 0..CAPTURED {
        let below = directory(&format!("source/d{}", n / 100));
        std::fs::write(below.join(format!("f{n}")), words(n, 2000)).unwrap();
    }
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amberfs"));
        command.args(arguments).env("AMBERFS_REPOSITORY", place.path().join("repository"));
        command.env("AMBERFS_CONFIG", place.path().join("config.toml")).env("AMBERFS_TRACEABLE", "1");
        command.env("AMBERFS_STATE_DIR", directory("state")).env("AMBERFS_CACHE_DIR", directory("cache"));
        world::tell_key(&mut command, place.path());
        command
    };
    let mut init = program(world::how_to_init());
    assert!(init.status().unwrap().success());
    // What was written this moment is read again by the next capture; this tree has been there for long.
    let old = std::time::SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(&source).unwrap().flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap()) {
        std::fs::File::open(entry.unwrap().path()).unwrap().set_modified(old).unwrap();
    }
    std::thread::sleep(amberfs::capture::RACY);
    let shown = format!("home={}", source.display());
    let mut costs = Costs::new();
    for what in ["full", "unchanged"] {
        let calls = calls_of(program(&["capture", &shown]), place.path());
        // Shown when the test fails.
        eprintln!("{what}: {calls:?}");
        let all: u64 = calls.values().sum();
        costs.add(&format!("{what} capture of {CAPTURED} files, system calls about files, each"), all, CAPTURED as u64);
    }
    costs.judge();
}
