//! What a point with few changes writes of its tree of entries, and what reading all of it takes after many such points.
//!
//! `cargo bench --bench changed_leaves [-- quick] [CHANGES…]`; the figures in `docs/decisions/106-parts-of-leaves.md` come from here. A tree of
//! as many entries as the Linux source has, and points of which each changes some of them. It prints what a point stores, what the
//! walk of the newest point reads, and its time as a ratio to that of a new full, and asserts nothing. It uses only what a tree of any version
//! has: run it on two commits to compare them. The only other load is the memory store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use amberfs::base::{Env, FileTime, Instant as Moment};
use amberfs::format::entry::{Body, Content, Entry, Extent, Meta};
use amberfs::format::leaf::Entries;
use amberfs::format::log::NodeRef;
use amberfs::format::{
    ChainId, ChunkRef, FileId, FrameHash, FrameOrdinal, FrameRef, Key, LogNumber, Nonce, PackId, PackOrdinal,
    SessionId, SourceId,
};
use amberfs::repo::Repo;
use amberfs::repo::tree::{Tree, TreeWriter};
use amberfs::store::{Operation, Store};

const SOURCE: SourceId = SourceId(1);
/// Entries of a directory.
const DIRECTORY: u32 = 16;

/// A number that looks random, of a number.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (n ^ (n >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 16
}

fn key(n: u32) -> Key {
    let directory = FileId(u64::from(n / DIRECTORY) + 2);
    Key::entry(
        directory,
        format!("{}-{:x}.c", ["driver", "core", "test", "main"][n as usize % 4], n % DIRECTORY).as_bytes(),
    )
}

/// The entry `n` as the point of `session` has written it: a small file in a frame with its neighbours.
fn entry(n: u32, base: u64) -> Entry {
    let dice = mixed(u64::from(n) << 20 | base);
    let session =
        SessionId { base: LogNumber(base), random: Nonce(mixed(base).to_le_bytes().repeat(2).try_into().expect("16")) };
    let frame = n / 10;
    let hash = [mixed(u64::from(frame) + base), mixed(u64::from(frame) + base + 7)].map(u64::to_le_bytes).concat();
    let frame = FrameRef {
        pack: PackId { chain: ChainId(0), session, ordinal: PackOrdinal(0) },
        ordinal: FrameOrdinal(frame),
        offset: u64::from(frame) * 31_000,
        stored_bytes: 30_000,
        raw_bytes: 128 << 10,
        hash: FrameHash(hash.try_into().expect("16 bytes")),
    };
    let bytes = 500 + u32::try_from(dice % 20_000).expect("few");
    let chunk = ChunkRef { frame, start: (n % 10) * 12_000, bytes };
    let seconds =
        1_700_000_000 + i64::try_from(if base == 1 { u64::from(n) / 2000 } else { base * 3600 }).expect("a time");
    let time = FileTime { seconds, nanos: u32::try_from(dice % 1_000_000_000).expect("nanoseconds") };
    let meta = Meta { permissions: 0o644, size: u64::from(bytes), mtime: time, ctime: time, ..Meta::default() };
    Entry { meta, xattrs: Vec::new(), body: Body::File(Content::Extents(vec![Extent { offset: 0, chunk }])) }
}

/// Which file a point changes, by the point and the number of the change.
type Pattern<'a> = &'a dyn Fn(u64, u32) -> u32;

struct World {
    repo: Arc<Repo>,
}

impl World {
    fn new() -> World {
        World { repo: Repo::init(Store::memory(), Env::seeded(1, Moment::from_nanos(0))).expect("a repository") }
    }

    /// Writes a point of these entries over its parent: its tree, and the bytes that it has stored.
    fn point(&self, parent: Option<NodeRef>, base: u64, changed: impl Iterator<Item = u32>) -> (NodeRef, u64) {
        let id = SessionId { base: LogNumber(base), random: Nonce(self.repo.env().random()) };
        let session = amberfs::repo::Session::begin(&self.repo, SOURCE, ChainId(0), id).expect("a session");
        let mut writer = TreeWriter::<Entries>::new(&session, parent);
        let mut changes: Vec<(Key, Option<Entry>)> = changed.map(|n| (key(n), Some(entry(n, base)))).collect();
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        for batch in changes.chunks(4096) {
            writer.apply(batch.to_vec()).expect("a batch");
        }
        let root = writer.finish().expect("a tree").expect("entries");
        (root, session.finish().expect("packs").stored_bytes)
    }

    /// Reads all entries with caches as they are by default, and nothing in them: requests, bytes, and seconds.
    fn walk(&self, root: NodeRef) -> (u64, u64, f64) {
        let mut seconds = f64::INFINITY;
        let mut counts = (0, 0);
        for _ in 0..3 {
            let repo =
                Repo::open(self.repo.store().clone(), Env::seeded(1, Moment::from_nanos(0))).expect("the repository");
            let (before, began) = (repo.store().meter().snapshot(), Instant::now());
            let tree = Tree::<Entries>::new(repo.reader(SOURCE), Some(root));
            let items = tree.scan(0).inspect(|item| assert!(item.is_ok(), "an entry")).count();
            assert_eq!(items as u64, root.items);
            seconds = seconds.min(began.elapsed().as_secs_f64());
            let since = repo.store().meter().snapshot().since(&before).of(Operation::Range);
            counts = (since.requests, since.bytes);
        }
        (counts.0, counts.1, seconds)
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|word| word == "quick")
        || (std::env::var_os("CARGO").is_some() && !words.iter().any(|word| word == "--bench"));
    let (files, most) = if quick { (4_000, 20) } else { (78_000, 500) };
    println!(
        "{:<11} {:>8} {:>7} {:>12} {:>12} {:>9} {:>9} {:>6}",
        "changes", "a point", "points", "KiB, first", "KiB, mean", "reads", "KiB read", "time"
    );
    let wanted =
        |changes: u32| !words.iter().any(|word| word.parse::<u32>().is_ok()) || words.contains(&changes.to_string());
    for changes in [1, files / 1000, files / 100].into_iter().filter(|changes| wanted(*changes)) {
        let patterns: [(&str, Pattern<'_>); 3] = [
            ("uniform", &|base, n| u32::try_from(mixed(base << 32 | u64::from(n)) % u64::from(files)).expect("a file")),
            ("hot set", &|base, n| {
                let dice = mixed(base << 32 | u64::from(n));
                let hot = u64::from(files) / 50;
                let file = if dice.is_multiple_of(10) {
                    mixed(dice) % u64::from(files)
                } else {
                    mixed(mixed(dice) % hot) % u64::from(files)
                };
                u32::try_from(file).expect("a file")
            }),
            ("directories", &|base, n| {
                let first = mixed(base << 32 | u64::from(n / DIRECTORY)) % u64::from(files / DIRECTORY);
                (u32::try_from(first).expect("a file")) * DIRECTORY + n % DIRECTORY
            }),
        ];
        for (name, file) in patterns {
            let world = World::new();
            let (full, _) = world.point(None, 1, 0..files);
            let perfect = world.walk(full);
            let (mut root, mut written, mut first) = (full, 0, 0);
            let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
            for base in 2..2 + most {
                let changed: BTreeSet<u32> = (0..changes).map(|n| file(base, n)).collect();
                newest.extend(changed.iter().map(|n| (*n, base)));
                let (next, bytes) = world.point(Some(root), base, changed.into_iter());
                root = next;
                written += bytes;
                if base == 2 {
                    first = bytes;
                }
                let points = base - 1;
                if [10, 100, most].contains(&points) {
                    let (reads, bytes, seconds) = world.walk(root);
                    println!(
                        "{name:<11} {changes:>8} {points:>7} {:>12.1} {:>12.1} {:>9.2} {:>9} {:>6.2}",
                        first as f64 / 1024.0,
                        written as f64 / points as f64 / 1024.0,
                        reads as f64 / perfect.0 as f64,
                        bytes >> 10,
                        seconds / perfect.2
                    );
                }
            }
        }
    }
}
