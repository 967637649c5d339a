//! Repositories as captures of many files would leave them, without the files.

use std::path::Path;
use std::sync::Arc;

use amberfs::base::{Env, FileTime, limits};
use amberfs::chain::{RepoLog, SourceLog, origin};
use amberfs::format::entry::{Body, Content, Entry, Extent, Meta};
use amberfs::format::frame::{self, FrameKind};
use amberfs::format::leaf::{Entries, Usage};
use amberfs::format::log::{Commit, Roots, SourceKind, SourceRecord, Stats};
use amberfs::format::pack::PackedChunk;
use amberfs::format::{ChunkRef, FileId, Key};
use amberfs::repo::tree::{Delta, TreeWriter};
use amberfs::repo::{CacheSizes, Closed, Repo, Session};
use amberfs::store::Store;

/// Files in a directory.
pub(crate) const EACH: u64 = 1000;
/// Bytes of a file.
const FILE_BYTES: u32 = 100;
/// Files whose contents share a frame.
const TOGETHER: u64 = 500;

/// The repository in `place`, made if it is not there, with its one source and its log.
pub(crate) fn opened(place: &Path) -> (Arc<Repo>, SourceRecord, SourceLog) {
    let env = Env::system();
    if !place.exists() {
        let repo =
            Repo::init(Store::create_local(place).expect("make a store"), env.clone()).expect("make a repository");
        let sources = RepoLog::open(repo.store().clone(), env.clone(), repo.realm());
        sources.add_source("bench", SourceKind::Tree, origin::here(b"/bench")).expect("add a source");
    }
    let store = Store::local(place).expect("open the store");
    let repo =
        Closed::find(store).and_then(|closed| closed.open(env.clone(), CacheSizes::default(), None)).expect("open");
    let sources = RepoLog::open(repo.store().clone(), env.clone(), repo.realm());
    let source = sources.load().expect("read the log").by_name("bench").expect("the source").clone();
    let log = SourceLog::open(repo.store().clone(), env, repo.realm(), source.id);
    (repo, source, log)
}

/// The name of the directory `number`.
pub(crate) fn directory_name(number: u64) -> String {
    format!("d{number:05}")
}

/// The name of the file `number` in its directory.
pub(crate) fn file_name(number: u64) -> String {
    format!("file-{number:06}.txt")
}

fn meta(permissions: u16, size: u64, inode: u64) -> Meta {
    let time = FileTime { seconds: 1_700_000_000 + i64::try_from(inode % 1_000_000).unwrap_or(0), nanos: 123_456_789 };
    Meta { permissions, size, mtime: time, ctime: time, atime: time, links: 1, inode, ..Meta::default() }
}

/// Commits a point of `entries` files in directories of [`EACH`].
pub(crate) fn fill(place: &Path, entries: u64) {
    let (repo, source, log) = opened(place);
    let id = log.begin().expect("begin");
    let chain = log.open_chain(&id).expect("open a chain");
    let session = Session::begin(&repo, source.id, chain, id).expect("begin a session");
    let mut names = TreeWriter::<Entries>::new(&session, None);
    let mut usage = TreeWriter::<Usage>::new(&session, None);
    let directories = entries.div_ceil(EACH);
    let directory = |id: FileId, parent: Key, inode| Entry {
        meta: meta(0o755, 4096, inode),
        xattrs: Vec::new(),
        body: Body::Directory { id, parent },
    };
    let root = FileId::ROOT;
    let mut batch = vec![(Key::root(), Some(directory(root, Key::root(), 2)))];
    for number in 0..directories {
        let id = FileId(FileId::FIRST.0 + number);
        batch
            .push((Key::entry(root, directory_name(number).as_bytes()), Some(directory(id, Key::root(), 10 + number))));
    }
    names.apply(batch).expect("write directories");
    let mut text = Vec::new();
    for number in 0..directories {
        let within = FileId(FileId::FIRST.0 + number);
        let files = EACH.min(entries - number * EACH);
        for first in (0..files).step_by(TOGETHER as usize) {
            let many = TOGETHER.min(files - first);
            text.clear();
            let chunks: Vec<PackedChunk> = (0..many)
                .map(|file| {
                    let start = text.len() as u32;
                    let content = format!("{number:>20} {:>20} {:>57}\n", first + file, "content");
                    assert_eq!(content.len(), FILE_BYTES as usize);
                    text.extend_from_slice(content.as_bytes());
                    PackedChunk { hash: repo.realm().chunk_hash(content.as_bytes()), start, bytes: FILE_BYTES }
                })
                .collect();
            assert!(text.len() <= limits::GROUP_FRAME_BYTES);
            let frame = session.append(frame::encode(FrameKind::Data, &text, many as u32), &chunks).expect("append");
            usage.apply(vec![(Key::usage(frame.pack, frame.ordinal), Delta(many as i64))]).expect("count");
            let batch = (0..many).map(|file| {
                let chunk = ChunkRef { frame, start: FILE_BYTES * file as u32, bytes: FILE_BYTES };
                let inode = 1_000_000 + number * EACH + first + file;
                let content = Content::Extents(vec![Extent { offset: 0, chunk }]);
                let entry = Entry {
                    meta: meta(0o644, u64::from(FILE_BYTES), inode),
                    xattrs: Vec::new(),
                    body: Body::File(content),
                };
                (Key::entry(within, file_name(first + file).as_bytes()), Some(entry))
            });
            names.apply(batch.collect()).expect("write names");
        }
    }
    session.data_complete();
    let roots = Roots {
        entries: names.finish().expect("finish").expect("names"),
        maps: None,
        usage: usage.finish().expect("finish"),
    };
    let totals = session.finish().expect("finish the session");
    let now = repo.env().now();
    let stats = Stats {
        files: entries,
        directories: directories + 1,
        bytes: entries * u64::from(FILE_BYTES),
        stored_bytes: totals.stored_bytes,
        ..Stats::default()
    };
    log.commit(Commit {
        session: id,
        chain,
        parent: None,
        name: amberfs::chain::name::of_instant(now),
        labels: Vec::new(),
        started: now,
        captured: now,
        origin: origin::here(b"/bench"),
        writer: "bench".to_owned(),
        reason: "full: synthetic".to_owned(),
        job: None,
        roots,
        next_file: FileId(FileId::FIRST.0 + directories),
        packs: totals.packs,
        stats,
        problems: None,
        disk: None,
        scope: None,
        seal: None,
    })
    .expect("commit");
}

/// Commits points until there are `points`, all with the first one's trees, of [`EACH`] files.
pub(crate) fn repeat(place: &Path, points: u64) {
    fill(place, EACH);
    let (_, _, log) = opened(place);
    let first = Arc::clone(log.refresh().expect("read the log").newest().expect("a point"));
    for _ in 1..points {
        let session = log.begin().expect("begin");
        let commit = Commit { session, parent: Some(first.id), packs: 0, ..(*first.commit).clone() };
        log.commit(commit).expect("commit");
    }
}
