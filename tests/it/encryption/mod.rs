//! Encrypted repositories, as somebody meets them who may look at, copy and change every stored object; and as the holder
//! of each kind of key does.
//!
//! ```text
//!  secrecy    what can be seen of stored objects: their names, their bytes, their lengths; that no key seals twice
//!  tampering  objects that were altered, moved, or put in another's place; keys that are not the right ones
//!  roles      what a writer and a collector can do, by trying, with the program's help and without it
//!  slots      key slots beside junk, or lost answers
//!  removals   removals, changes and rotations that meet, or break off: a key stays
//!  pins       what a lost key gets back by taking entries away: nothing
//!  authenticity  for which objects a verification answers, and that it names all others
//!  rotation   new passphrases, new keys, removed keys; rotations that are interrupted, or meet
//! ```

mod authenticity;
mod pins;
mod removals;
mod roles;
mod rotation;
mod secrecy;
mod slots;
mod tampering;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amberfs::base::Env;
use amberfs::capture::{CaptureError, Options, Outcome, Progress, capture_tree};
use amberfs::chain::{Point, RepoLog, SourceLog, origin};
use amberfs::format::frame::FrameKind;
use amberfs::format::log::{SourceKind, SourceRecord};
use amberfs::format::object::{Object, ObjectName};
use amberfs::repo::{CacheSizes, Closed, Credential, Repo, RepoError, SlotRole};
use amberfs::seal::Secret;
use amberfs::seal::derive::Cost;
use amberfs::store::Store;
use amberfs::view::MountView;
use amberfs::view::namespace::Namespace;

use crate::nonces;
use crate::world::{self, Manifest, later, node, real, shown, zero_settings};

/// The keys that these repositories have.
const FULL: u8 = 1;
const OTHER_FULL: u8 = 2;
const WRITER: u8 = 3;
const OTHER_WRITER: u8 = 4;
const COLLECTOR: u8 = 5;

/// A key file for each number.
fn key(n: u8) -> Credential {
    Credential::KeyFile(Secret::new([n; 32]))
}

/// An encrypted repository in memory, and a directory to capture.
struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    env: Env,
}

impl Bench {
    /// With [`FULL`] as its only key.
    fn new() -> Bench {
        // Every one is another repository, with other keys, although it opens with the same key files.
        static SEED: AtomicU64 = AtomicU64::new(1);
        nonces::watch();
        let env = Env::seeded(SEED.fetch_add(1, Ordering::Relaxed), later());
        let bench = Bench { dir: tempfile::tempdir().unwrap(), store: Store::memory(), env };
        Repo::init_encrypted(bench.store.clone(), bench.env.clone(), &key(FULL), "first", Cost::STANDARD).unwrap();
        std::fs::create_dir(bench.root()).unwrap();
        bench
    }

    /// With a key of every sort.
    fn with_keys() -> Bench {
        let bench = Bench::new();
        let keys = [
            (OTHER_FULL, SlotRole::Full),
            (WRITER, SlotRole::Writer),
            (OTHER_WRITER, SlotRole::Writer),
            (COLLECTOR, SlotRole::Collector),
        ];
        for (n, role) in keys {
            bench.open(FULL).add_slot(&format!("key {n}"), role, &key(n)).unwrap();
        }
        bench
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("source")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.root().join(name).parent().unwrap()).unwrap();
        std::fs::write(self.root().join(name), content).unwrap();
    }

    /// As a process that has just been started opens it.
    fn open(&self, n: u8) -> Arc<Repo> {
        self.try_open(n).unwrap()
    }

    fn try_open(&self, n: u8) -> Result<Arc<Repo>, RepoError> {
        nonces::judge();
        open(&self.store, &self.env, &key(n))
    }

    /// Captures the directory into a source with this key.
    fn try_capture(&self, repo: &Arc<Repo>, source: &str, options: &Options) -> Result<Outcome, CaptureError> {
        self.env.advance(Duration::from_secs(60));
        let record = sources(repo).claim_source(source, SourceKind::Tree, origin::here(b"/x"), false)?;
        let log = log(repo, &record);
        capture_tree(repo, &log, &record, &self.root(), options, &Progress::new())
    }

    #[track_caller]
    fn capture(&self, n: u8, source: &str) -> Arc<Point> {
        self.try_capture(&self.open(n), source, &Options { workers: Some(1), ..Options::default() }).unwrap().point
    }
}

fn open(store: &Store, env: &Env, key: &Credential) -> Result<Arc<Repo>, RepoError> {
    Closed::find(store.clone())?.open(env.clone(), CacheSizes::default(), Some(key))
}

fn sources(repo: &Arc<Repo>) -> RepoLog {
    RepoLog::open(repo.store().clone(), repo.env().clone(), repo.realm())
}

fn log(repo: &Arc<Repo>, source: &SourceRecord) -> SourceLog {
    SourceLog::open(repo.store().clone(), repo.env().clone(), repo.realm(), source.id)
}

/// A source and its log, as this key sees them.
fn source(repo: &Arc<Repo>, name: &str) -> (SourceRecord, SourceLog) {
    let record = sources(repo).load().unwrap().by_name(name).unwrap().clone();
    let log = log(repo, &record);
    (record, log)
}

/// Everything that is stored.
fn objects(store: &Store) -> BTreeMap<ObjectName, Vec<u8>> {
    let listed = store.list("", None, None).unwrap();
    listed.into_iter().map(|object| (object.name.clone(), store.get(&object.name, 1 << 30).unwrap().to_vec())).collect()
}

/// A store with these objects.
fn filled(objects: &BTreeMap<ObjectName, Vec<u8>>) -> Store {
    let store = Store::memory();
    for (name, bytes) in objects {
        store.create(name, bytes.clone()).unwrap();
    }
    store
}

/// Puts bytes in the place of an object, or of none.
fn put(store: &Store, name: &ObjectName, bytes: &[u8]) {
    if objects(store).contains_key(name) {
        store.delete(name).unwrap();
    }
    store.create(name, bytes.to_vec()).unwrap();
}

/// The names of objects of a sort.
fn names_of(objects: &BTreeMap<ObjectName, Vec<u8>>, sort: impl Fn(Object) -> bool) -> Vec<ObjectName> {
    objects.keys().filter(|name| Object::parse(name).is_some_and(&sort)).cloned().collect()
}

/// What a mount shows of a point.
fn shown_point(repo: &Arc<Repo>, source: &str, point: &str) -> Manifest {
    let view = MountView::open(Arc::clone(repo), zero_settings()).unwrap();
    let root = node(&view, &format!("{source}/points/{point}"));
    assert!(view.attr(root).is_ok());
    shown(&view, root, 1 << 20)
}

/// That this key reads a point, and that it is as the directory is now.
#[track_caller]
fn reads(bench: &Bench, n: u8, source: &str, point: &Point) {
    world::same(&real(&bench.root()), &shown_point(&bench.open(n), source, point.name()), source);
}

/// How many frames of all packs of a source this key can read, by kind of content: of trees, and of data; and how many
/// there are. [`FULL`] tells what there is.
fn readable(bench: &Bench, n: u8, name: &str) -> [(usize, usize); 2] {
    let (full, own) = (bench.open(FULL), bench.open(n));
    let (record, log) = source(&full, name);
    log.load().unwrap();
    source(&own, name).1.load().unwrap();
    let all = objects(&bench.store);
    let mut counts = [(0, 0); 2];
    for object in names_of(&all, |object| matches!(object, Object::Pack(of, _) if of == record.id)) {
        let Some(Object::Pack(_, pack)) = Object::parse(&object) else { continue };
        for (at, frame) in world::footer(&full, &object, &all[&object]).1.frames.iter().enumerate() {
            let pointer = frame.pointer(pack, amberfs::format::FrameOrdinal(u32::try_from(at).unwrap()));
            let count = match frame.kind {
                FrameKind::Data => &mut counts[1],
                FrameKind::Padding => continue,
                _ => &mut counts[0],
            };
            full.reader(record.id).fetch(&pointer, frame.kind).unwrap();
            count.0 += usize::from(own.reader(record.id).fetch(&pointer, frame.kind).is_ok());
            count.1 += 1;
        }
    }
    assert!(counts[0].1 > 0 && counts[1].1 > 0, "{name} has frames of both sorts: {counts:?}");
    counts
}

/// Bytes that do not compress.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0u8; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

/// Something of every size in the directory.
fn fill(root: &Path) {
    let write = |name: &str, content: &[u8]| {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::write(root.join(name), content).unwrap();
    };
    write("short", b"short enough for its entry");
    for n in 0..20 {
        write(&format!("sub/{n}"), &noise(700 + n * 50, n as u64));
    }
    write("large", &noise(300_000, 100));
}
