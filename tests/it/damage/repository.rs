//! A small repository, what its points must hold, and copies to damage.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use amberfs::base::Env;
use amberfs::chain::Point;
use amberfs::format::log::{Roots, SourceRecord};
use amberfs::format::object::{LogId, Object, ObjectName};
use amberfs::format::{LogNumber, PointId, SourceId};
use amberfs::repo::Repo;
use amberfs::store::{Listed, Store};

use super::actions::Damage;
use crate::world::{self, Manifest, World};

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

impl Repository {
    /// The repository with what it has in its store by now.
    pub(super) fn of(world: World, truths: Vec<Truth>) -> Repository {
        let store = world.repo.store().clone();
        let listed = store.list("", None, None).unwrap();
        let whole = |listed: Listed| (listed.name.clone(), store.get(&listed.name, listed.bytes).unwrap().to_vec());
        let objects = listed.into_iter().map(whole).collect();
        // What its writers knew is forgotten.
        let repo = world::open(store.clone(), world.env.clone()).unwrap();
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
}

impl Truth {
    pub(super) fn of(source: &SourceRecord, point: &Point, manifest: Manifest) -> Truth {
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
