//! A small repository with a little of everything, what its points must hold, and copies to damage.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amberfs::base::Env;
use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::chain::state::SourceGoal;
use amberfs::chain::{Point, RepoLog, SourceLog, origin};
use amberfs::format::entry::{Body, Content};
use amberfs::format::log::{Roots, SourceKind, SourceRecord};
use amberfs::format::object::{LogId, Object, ObjectName};
use amberfs::format::{LogNumber, Nonce, PointId, SessionId, SourceId};
use amberfs::repo::Repo;
use amberfs::store::Store;
use amberfs::view::PointView;

use super::actions::Damage;
use crate::world::{self, Manifest, World, later, real};

/// A point and what it must hold.
pub(super) struct Truth {
    pub(super) source: SourceId,
    pub(super) source_name: String,
    pub(super) id: PointId,
    pub(super) name: String,
    pub(super) roots: Roots,
    pub(super) manifest: Manifest,
}

pub(super) struct Repository {
    world: World,
    pub(super) truths: Vec<Truth>,
    pub(super) objects: BTreeMap<ObjectName, Vec<u8>>,
}

/// Bytes that do not compress.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0u8; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

/// From one stretch of a sparse file to the next: with a hole between them, and few zeros to compare each time that it is read.
const SPOT_GAP: u64 = 3 * 4096;

fn fill(world: &World) {
    world.write("plain/inline", b"short enough to stand in its entry");
    world.write("plain/empty", b"");
    for number in 0..8 {
        world.write(&format!("plain/grouped-{number}"), noise(160, number));
    }
    // Names that are long enough for several leaves.
    for number in 0..70 {
        let name = format!("leaves/{}/{number:03}-{}", number / 30, "long-name-".repeat(20));
        let content = if number % 7 == 0 { noise(150, 100 + number) } else { number.to_string().into_bytes() };
        world.write(&name, content);
    }
    // Too large to share a frame; small once it is compressed. Nothing here is larger than it must be, because every bit is damaged.
    world.write("alone", noise(300, 200).repeat(240));
    // A map: more extents than an entry holds.
    std::fs::create_dir_all(world.root().join("sparse")).unwrap();
    for (name, seed) in [("sparse/disk", 300), ("sparse/other", 400)] {
        let file = std::fs::File::create(world.root().join(name)).unwrap();
        for spot in 0..12 {
            file.write_all_at(&noise(40, seed + spot), spot * SPOT_GAP).unwrap();
        }
        file.set_len(12 * SPOT_GAP + 5000).unwrap();
    }
    std::fs::hard_link(world.root().join("plain/grouped-0"), world.root().join("plain/second-name")).unwrap();
    std::fs::hard_link(world.root().join("plain/grouped-0"), world.root().join("sparse/third-name")).unwrap();
    std::fs::hard_link(world.root().join("sparse/disk"), world.root().join("linked-disk")).unwrap();
    std::os::unix::fs::symlink("plain/inline", world.root().join("symlink")).unwrap();
    std::fs::create_dir_all(world.root().join("leaves/empty")).unwrap();
}

impl Repository {
    pub(super) fn build() -> Repository {
        let place = tempfile::tempdir().unwrap();
        let store = Store::create_local(&place.path().join("repository")).unwrap();
        let world = World::new(store, Env::seeded(7, later()));
        // The world's own directory goes with it; the repository is read into memory below.
        fill(&world);
        let mut truths = Vec::new();
        let mut capture = |world: &World, full: bool| {
            let outcome = world.capture(&Options { full, workers: Some(2), ..Options::default() });
            assert_eq!(outcome.problems, Vec::new());
            truths.push(Truth::of(&world.source, &outcome.point, real(&world.root())));
        };
        capture(&world, false);
        world.write("plain/grouped-1", noise(170, 1001));
        world.write("plain/new", noise(200, 1002));
        std::fs::remove_file(world.root().join("plain/grouped-2")).unwrap();
        capture(&world, false);
        std::fs::rename(world.root().join("leaves/1"), world.root().join("leaves/moved")).unwrap();
        std::fs::File::options()
            .write(true)
            .open(world.root().join("sparse/disk"))
            .unwrap()
            .write_all_at(&noise(40, 1003), 3 * SPOT_GAP)
            .unwrap();
        capture(&world, false);
        capture(&world, true);
        world.write("plain/grouped-4", noise(190, 1004));
        capture(&world, false);
        // Entries enough for a checkpoint, and some behind it.
        for number in 0..58 {
            let random = Nonce([number; 16]);
            world.log.append(SourceGoal::Abort(SessionId { base: LogNumber(1), random })).unwrap();
        }
        world.write("plain/last", noise(180, 1005));
        capture(&world, false);
        let last = SessionId { base: LogNumber(1), random: Nonce([99; 16]) };
        world.log.append(SourceGoal::Abort(last)).unwrap();

        let logs = RepoLog::open(world.repo.store().clone(), world.env.clone(), world.repo.realm());
        let other = logs.add_source("other", SourceKind::Tree, origin::here(b"/other")).unwrap();
        let log = SourceLog::open(world.repo.store().clone(), world.env.clone(), world.repo.realm(), other.id);
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("file"), noise(210, 1006)).unwrap();
        std::fs::write(tree.path().join("note"), b"a note").unwrap();
        world.env.advance(Duration::from_secs(60));
        let options = Options { workers: Some(1), ..Options::default() };
        let outcome = capture_tree(&world.repo, &log, &other, tree.path(), &options, &Progress::new()).unwrap();
        truths.push(Truth::of(&other, &outcome.point, real(tree.path())));
        log.append(SourceGoal::Abort(last)).unwrap();
        logs.add_source("spare", SourceKind::Tree, origin::here(b"/spare")).unwrap();

        let mut objects = BTreeMap::new();
        for listed in world.repo.store().list("", None, None).unwrap() {
            let bytes = std::fs::read(place.path().join("repository").join(listed.name.as_str())).unwrap();
            objects.insert(listed.name, bytes);
        }
        let copy = tempfile::tempdir_in(world.dir.path()).unwrap().keep();
        write_objects(&copy, &objects);
        let repo = world::open(Store::local(&copy).unwrap(), world.env.clone()).unwrap();
        Repository { world: World { repo, ..world }, truths, objects }
    }

    /// The repository, as it was built.
    pub(super) fn repo(&self) -> &Arc<Repo> {
        &self.world.repo
    }

    pub(super) fn env(&self) -> &Env {
        &self.world.env
    }

    /// Whether an entry is the last of its log, and no checkpoint covers it.
    pub(super) fn is_newest_entry(&self, object: &ObjectName) -> bool {
        let Some(Object::Entry(log, number)) = Object::parse(object) else { return false };
        !self.objects.keys().any(|other| match Object::parse(other) {
            Some(Object::Entry(of, other)) => of == log && other > number,
            Some(Object::Checkpoint(of, covered)) => of == log && covered >= number,
            _ => false,
        })
    }

    /// The newest checkpoint of a log.
    pub(super) fn checkpoint(&self, log: LogId) -> Option<(ObjectName, LogNumber)> {
        let of_log = self.objects.keys().filter_map(|name| match Object::parse(name) {
            Some(Object::Checkpoint(of, number)) if of == log => Some((name.clone(), number)),
            _ => None,
        });
        of_log.max_by_key(|(_, number)| *number)
    }

    /// That it holds what the campaign claims to damage.
    pub(super) fn assert_varied(&self) {
        let first = &self.truths[0];
        assert!(first.roots.entries.level >= 1, "several leaves");
        let view = PointView::new(self.repo(), first.source, &first.roots);
        let body = |path: &str| {
            let inode = view.walk(path.split('/').map(str::as_bytes)).unwrap();
            inode.entry().body.clone()
        };
        assert!(matches!(body("sparse/disk"), Body::File(Content::Mapped { .. })));
        // Content of an encrypted repository never stands in its entry.
        let is_inline = matches!(body("plain/inline"), Body::File(Content::Inline(_)));
        assert_eq!(is_inline, !world::is_encrypted());
        assert!(matches!(body("plain/grouped-0"), Body::File(Content::Extents(_))));
        let chains: std::collections::BTreeSet<_> = self.objects.keys().filter_map(Object::parse).collect();
        let packs = chains.iter().filter(|object| matches!(object, Object::Pack(..))).count();
        assert!(packs >= 7, "{packs} packs");
        assert!(self.checkpoint(LogId::Source(first.source)).is_some(), "a checkpoint");
        assert!(self.objects.values().map(Vec::len).sum::<usize>() < 1 << 20, "small");
    }
}

impl Truth {
    fn of(source: &SourceRecord, point: &Point, manifest: Manifest) -> Truth {
        Truth {
            source: source.id,
            source_name: source.name.clone(),
            id: point.id,
            name: point.name().to_owned(),
            roots: point.commit.roots,
            manifest,
        }
    }
}

fn write_objects(root: &Path, objects: &BTreeMap<ObjectName, Vec<u8>>) {
    for (name, bytes) in objects {
        let path = root.join(name.as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// A repository to damage, for one thread.
pub(super) enum Copy {
    Directory(tempfile::TempDir),
    Memory(Store),
}

impl Copy {
    /// Files, which each reader opens anew.
    pub(super) fn in_directory(repository: &Repository) -> Copy {
        let dir = tempfile::tempdir().unwrap();
        write_objects(dir.path(), &repository.objects);
        Copy::Directory(dir)
    }

    /// The same bytes in memory, for many cases.
    pub(super) fn in_memory(repository: &Repository) -> Copy {
        let store = Store::memory();
        for (name, bytes) in &repository.objects {
            store.create(name, bytes.clone()).unwrap();
        }
        Copy::Memory(store)
    }

    /// The store to open it in: in a directory one that has read nothing yet, in memory always the same.
    pub(super) fn store(&self) -> Store {
        match self {
            Copy::Directory(dir) => Store::local(dir.path()).unwrap(),
            Copy::Memory(store) => store.clone(),
        }
    }

    pub(super) fn apply(&self, damage: &Damage) {
        for (object, bytes) in &damage.changes {
            self.put(object, bytes.as_deref());
        }
    }

    pub(super) fn restore(&self, repository: &Repository, damage: &Damage) {
        for (object, _) in &damage.changes {
            self.put(object, Some(&repository.objects[object]));
        }
    }

    /// Puts these bytes in the object's place; none takes it away.
    fn put(&self, object: &ObjectName, bytes: Option<&[u8]>) {
        match (self, bytes) {
            (Copy::Directory(dir), Some(bytes)) => overwrite(&dir.path().join(object.as_str()), bytes),
            (Copy::Directory(dir), None) => std::fs::remove_file(dir.path().join(object.as_str())).unwrap(),
            (Copy::Memory(store), bytes) => {
                store.delete(object).unwrap();
                if let Some(bytes) = bytes {
                    store.create(object, bytes.to_vec()).unwrap();
                }
            }
        }
    }
}

fn overwrite(path: &Path, bytes: &[u8]) {
    match std::fs::read(path) {
        // Most damage is one bit of many: nothing else is written.
        Ok(now) if now.len() == bytes.len() => {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            let differs = |at: &usize| now[*at] != bytes[*at];
            let Some(first) = (0..now.len()).find(differs) else { return };
            let end = (0..now.len()).rfind(differs).map_or(first, |last| last + 1);
            file.write_all_at(&bytes[first..end], first as u64).unwrap();
        }
        Ok(_) | Err(_) => std::fs::write(path, bytes).unwrap(),
    }
}
