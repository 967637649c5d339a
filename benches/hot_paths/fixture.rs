//! Data that looks like what is captured, and a repository in memory that holds some of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use amberfs::base::{Env, Instant};
use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::chain::{RepoLog, SourceLog, origin};
use amberfs::format::log::{Commit, SourceKind, SourceRecord};
use amberfs::repo::{CacheSizes, Closed, Credential, Repo};
use amberfs::seal::Secret;
use amberfs::seal::derive::Cost;
use amberfs::store::Store;
use amberfs::view::{MountSettings, MountView};

/// Text that compresses as program text does, about 4 to 1.
pub(crate) fn words(seed: usize, bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["struct", "return", "static int", "unsigned", "\n\t", "if (ret)", "goto out;", "->"];
    let mut text = String::with_capacity(bytes + 32);
    let mut at = seed;
    while text.len() < bytes {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(at >> 33) % WORDS.len()]);
        text.push_str(&format!(" v{} ", at >> 57));
    }
    text.truncate(bytes);
    text.into_bytes()
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// A source, and a repository in memory.
pub(crate) struct World {
    place: tempfile::TempDir,
    env: Env,
    pub(crate) repo: Arc<Repo>,
    pub(crate) source: SourceRecord,
    log: SourceLog,
}

impl World {
    pub(crate) fn new(encrypted: bool) -> World {
        let place = tempfile::tempdir().expect("make a directory");
        let env = Env::seeded(1, Instant::from_nanos(Env::system().now().nanos() + 60_000_000_000));
        let store = Store::memory();
        if encrypted {
            Repo::init_encrypted(store.clone(), env.clone(), &key(), "bench", Cost::STANDARD)
                .expect("make a repository");
        } else {
            Repo::init(store.clone(), env.clone()).expect("make a repository");
        }
        let repo = open(store, &env, CacheSizes::default());
        let sources = RepoLog::open(repo.store().clone(), env.clone(), repo.realm());
        let source = sources.add_source("home", SourceKind::Tree, origin::here(b"/home")).expect("add a source");
        let log = SourceLog::open(repo.store().clone(), env.clone(), repo.realm(), source.id);
        World { place, env, repo, source, log }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.place.path().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
        std::fs::write(path, content).expect("write a file");
    }

    pub(crate) fn capture(&self) {
        self.capture_of(&self.root());
    }

    /// Captures another directory than its own.
    pub(crate) fn capture_of(&self, root: &Path) {
        self.env.advance(Duration::from_secs(60));
        capture_tree(&self.repo, &self.log, &self.source, root, &Options::default(), &Progress::new())
            .expect("capture");
    }

    pub(crate) fn commit(&self) -> Commit {
        let state = self.log.refresh().expect("read the log");
        state.newest().expect("a point").commit.as_ref().clone()
    }

    /// The repository once more, with nothing in its caches.
    pub(crate) fn reopened(&self, sizes: CacheSizes) -> Arc<Repo> {
        open(self.repo.store().clone(), &self.env, sizes)
    }

    /// What a mount would show, with nothing in its caches.
    pub(crate) fn mount(&self, sizes: CacheSizes) -> MountView {
        let zone = || jiff::tz::TimeZone::UTC;
        let refresh = Duration::from_secs(3600);
        let settings = MountSettings { owner: (0, 0), own_all: false, refresh, zone, sum_up: false };
        MountView::open(self.reopened(sizes), settings).expect("open a view")
    }
}

fn key() -> Credential {
    Credential::KeyFile(Secret::new([7; 32]))
}

fn open(store: Store, env: &Env, sizes: CacheSizes) -> Arc<Repo> {
    let closed = Closed::find(store).expect("find the repository");
    let key = closed.is_encrypted().then(key);
    closed.open(env.clone(), sizes, key.as_ref()).expect("open the repository")
}

/// Runs `bench` on a repository of each kind, with the name of the kind.
pub(crate) fn both(bench: impl Fn(&World, &str)) {
    for (encrypted, name) in [(false, "plain"), (true, "encrypted")] {
        bench(&World::new(encrypted), name);
    }
}
