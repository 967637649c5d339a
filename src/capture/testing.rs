//! A repository, a source and a naive reader of points, for the tests of captures.
//!
//! Points are read back through the trees alone, and every point that is read is held against the
//! rules that no capture may break: usage is what entries and pages refer to, every link has its
//! inode's record and every record a link, every directory knows where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::{Excludes, Options, Outcome, Progress, capture_tree};
use crate::base::{Env, Instant};
use crate::chain::{Point, RepoLog, SourceLog, origin};
use crate::format::entry::{Body, Content, Entry};
use crate::format::leaf::{Entries, Maps, Usage};
use crate::format::log::{Problem, Roots, SourceKind, SourceRecord};
use crate::format::{ChunkRef, FileId, Key};
use crate::repo::tree::Tree;
use crate::repo::{Reader, Repo};
use crate::store::Store;

/// A source directory and a repository in memory.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) env: Env,
    pub(super) repo: Arc<Repo>,
    pub(super) source: SourceRecord,
    pub(super) log: SourceLog,
    pub(super) options: Options,
}

impl World {
    pub(super) fn new() -> World {
        World::over(Store::memory(), SourceKind::Tree)
    }

    pub(super) fn over(store: Store, kind: SourceKind) -> World {
        let dir = tempfile::tempdir().unwrap();
        // Ten seconds after all that has happened so far: then no file is racily clean.
        let now = Env::system().now();
        let env = Env::seeded(1, Instant::from_nanos(now.nanos() + 10_000_000_000));
        let repo = Repo::init(store.clone(), env.clone()).unwrap();
        let logs = RepoLog::open(store.clone(), env.clone(), repo.realm());
        let source = logs.add_source("source", kind, origin::here(b"/source")).unwrap();
        let log = SourceLog::open(store, env.clone(), repo.realm(), source.id);
        let options = Options { workers: Some(3), ..Options::default() };
        World { dir, env, repo, source, log, options }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// A capture a minute after the last, checked.
    pub(super) fn capture(&self) -> Outcome {
        self.env.advance(Duration::from_secs(60));
        let outcome =
            capture_tree(&self.repo, &self.log, &self.source, self.dir.path(), &self.options, &Progress::new())
                .unwrap();
        self.seen(&outcome.point);
        outcome
    }

    /// A capture that must have nothing to complain of.
    pub(super) fn capture_cleanly(&self) -> Arc<Point> {
        let outcome = self.capture();
        assert_eq!(outcome.problems, Vec::<Problem>::new());
        outcome.point
    }

    /// All that a point holds.
    pub(super) fn seen(&self, point: &Point) -> Seen {
        Seen::of(&self.repo.reader(self.source.id), &point.commit.roots)
    }

    /// Captures, and compares the point with the directory.
    pub(super) fn capture_exactly(&self) -> Arc<Point> {
        let point = self.capture_cleanly();
        self.assert_exact(&point);
        point
    }

    pub(super) fn assert_exact(&self, point: &Point) {
        let seen = self.seen(point);
        let expected = super::tests::expect::tree(self.dir.path());
        let names = |paths: Vec<&Vec<u8>>| paths.into_iter().map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>();
        assert_eq!(names(seen.files.keys().collect()), names(expected.keys().collect()));
        for (path, file) in &expected {
            super::tests::expect::same(path, file, &seen.files[path]);
        }
    }

    pub(super) fn excluding(mut self, patterns: &[&str]) -> World {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        self.options.excludes = Excludes::new(&patterns, &[]).unwrap();
        self
    }
}

/// A file of a point, links followed.
#[derive(Debug, Clone)]
pub(super) struct SeenFile {
    pub(super) entry: Entry,
    /// Which inode: the key of its record, or its own.
    pub(super) inode: Key,
    /// Content of a regular file without its holes.
    pub(super) bytes: Vec<u8>,
    /// Stretches of data, joined.
    pub(super) data: Vec<(u64, u64)>,
}

/// All that a point holds.
pub(super) struct Seen {
    pub(super) files: BTreeMap<Vec<u8>, SeenFile>,
}

impl Seen {
    pub(super) fn of(reader: &Reader, roots: &Roots) -> Seen {
        let entries = Tree::<Entries>::new(reader.clone(), Some(roots.entries));
        let maps = Tree::<Maps>::new(reader.clone(), roots.maps);
        let usage = Tree::<Usage>::new(reader.clone(), roots.usage);
        let mut by_directory: BTreeMap<FileId, Vec<(Key, Vec<u8>, Entry)>> = BTreeMap::new();
        let mut used: BTreeMap<Key, u64> = BTreeMap::new();
        let mut use_chunk =
            |chunk: &ChunkRef| *used.entry(Key::usage(chunk.frame.pack, chunk.frame.ordinal)).or_default() += 1;
        let mut mapped = BTreeSet::new();
        for item in entries.scan(0) {
            let item = item.unwrap();
            let (directory, name) = item.key().split().unwrap();
            let entry = item.value().clone();
            match &entry.body {
                Body::File(Content::Extents(extents)) => extents.iter().for_each(|extent| use_chunk(&extent.chunk)),
                Body::File(Content::Mapped { id, .. }) => assert!(mapped.insert(*id), "a map of two files"),
                _ => {}
            }
            by_directory.entry(directory).or_default().push((item.key().clone(), name.to_vec(), entry));
        }
        let mut pages: BTreeMap<FileId, Vec<(u64, ChunkRef)>> = BTreeMap::new();
        for item in maps.scan(0) {
            let item = item.unwrap();
            let (file, start) = item.key().split_page().unwrap();
            assert!(mapped.contains(&file), "pages of no file");
            assert!(item.value().extents.first().unwrap().offset >= start);
            for extent in &item.value().extents {
                use_chunk(&extent.chunk);
                pages.entry(file).or_default().push((extent.offset, extent.chunk));
            }
        }
        assert!(mapped.iter().all(|file| pages.contains_key(file)), "a map without pages");
        let counted: BTreeMap<Key, u64> =
            usage.scan(0).map(|item| item.map(|item| (item.key().clone(), *item.value())).unwrap()).collect();
        assert_eq!(counted, used, "usage is what is referred to");

        let records: BTreeMap<Key, Entry> = by_directory
            .remove(&FileId::HARDLINKS)
            .unwrap_or_default()
            .into_iter()
            .map(|(key, _, entry)| (key, entry))
            .collect();
        let top = by_directory.remove(&FileId::TOP).unwrap();
        assert_eq!(top.len(), 1);
        let mut files = BTreeMap::new();
        let mut linked = BTreeSet::new();
        let mut open = vec![(Vec::new(), top[0].0.clone(), Key::root(), top[0].2.clone())];
        while let Some((path, key, above, entry)) = open.pop() {
            let (inode, entry) = match &entry.body {
                Body::Link(file) => {
                    let key = Key::inode(*file);
                    linked.insert(key.clone());
                    let record = records.get(&key).unwrap_or_else(|| panic!("{} has no record", path.escape_ascii()));
                    (key, record.clone())
                }
                _ => (key, entry),
            };
            if let Body::Directory { id, parent } = &entry.body {
                assert_eq!(*parent, above, "{}", path.escape_ascii());
                for (key, name, entry) in by_directory.remove(id).unwrap_or_default() {
                    let mut below = path.clone();
                    if !below.is_empty() {
                        below.push(b'/');
                    }
                    below.extend_from_slice(&name);
                    open.push((below, key, inode.clone(), entry));
                }
            }
            let extents: Vec<(u64, ChunkRef)> = match &entry.body {
                Body::File(Content::Extents(extents)) => extents.iter().map(|e| (e.offset, e.chunk)).collect(),
                Body::File(Content::Mapped { id, .. }) => pages[id].clone(),
                _ => Vec::new(),
            };
            let file = content(reader, entry, inode, extents);
            assert!(files.insert(path, file).is_none());
        }
        assert!(by_directory.is_empty(), "directories that nothing names: {by_directory:?}");
        assert_eq!(records.keys().collect::<Vec<_>>(), linked.iter().collect::<Vec<_>>(), "records without names");
        Seen { files }
    }

    pub(super) fn get(&self, path: &str) -> &SeenFile {
        self.files.get(path.as_bytes()).unwrap_or_else(|| panic!("{path} is not in the point"))
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.files.keys().map(|path| path.escape_ascii().to_string()).collect()
    }
}

fn content(reader: &Reader, entry: Entry, inode: Key, extents: Vec<(u64, ChunkRef)>) -> SeenFile {
    let mut bytes = Vec::new();
    let mut data: Vec<(u64, u64)> = Vec::new();
    if let Body::File(content) = &entry.body {
        if let Content::Inline(inline) = content {
            assert_eq!(inline.len() as u64, entry.meta.size);
            bytes.extend_from_slice(inline);
            data.push((0, entry.meta.size));
        }
        for (offset, chunk) in &extents {
            let frame = reader.data(&chunk.frame).unwrap();
            bytes.extend_from_slice(&frame[chunk.start as usize..][..chunk.bytes as usize]);
            let end = offset + u64::from(chunk.bytes);
            assert!(end <= entry.meta.size, "data beyond the end");
            match data.last_mut() {
                Some(last) if last.1 == *offset => last.1 = end,
                last => {
                    assert!(last.is_none_or(|last| last.1 < *offset), "extents ascend");
                    data.push((*offset, end));
                }
            }
        }
        assert_eq!(entry.data_bytes(), bytes.len() as u64, "st_blocks");
    }
    SeenFile { entry, inode, bytes, data }
}

/// Runs a program that must succeed.
#[track_caller]
pub(super) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the tests run as root.
pub(super) fn is_root() -> bool {
    crate::base::sys::effective_uid() == 0
}

/// Reproducible bytes that do not compress.
pub(super) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0u8; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

/// The text of a path.
pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
