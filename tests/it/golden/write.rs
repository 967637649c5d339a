//! Writes the golden repository of this version, by hand when the format changes; see the head of `mod.rs`.

use std::ffi::OsStr;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::time::Duration;

use amberfs::capture::capture_stream;
use amberfs::chain::state::{Dependents, LogState, RepoGoal, SourceGoal};
use amberfs::chain::{Point, name};
use amberfs::format::author::Author;
use amberfs::format::frame;
use amberfs::format::log::{
    Checkpoint, Commit, DiskFacts, LogEntry, Method, Origin, Problem, ProblemKind, Scope, SourceKind, SourceRecord,
    Stats, Stillness, encode_checkpoint, encode_entry,
};
use amberfs::format::{ChainId, Epoch, KeyId, Nonce, problems};
use amberfs::repo::Session;
use amberfs::seal::derive::Cost;

use super::*;
use crate::world::{real, same};

/// The source of the golden repository in its first state: something of every kind.
fn arrange(root: &Path) {
    let write = |name: &str, content: &[u8]| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    write("empty", b"");
    write("inline", b"a few bytes");
    for n in 0..30 {
        write(&format!("small/file {n}"), format!("line {n}\n").repeat(40 * n).as_bytes());
    }
    let noise: Vec<u8> =
        (0..60_000u64).flat_map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40).to_le_bytes()).take(60_000).collect();
    write("chunk", &noise);
    write("cut", &"the quick brown fox jumps over the lazy dog\n".repeat(80_000).into_bytes());
    // Long enough to have a chunk map, and nearly all of it a hole.
    let mapped = std::fs::File::create(root.join("mapped")).unwrap();
    mapped.set_len(300 << 20).unwrap();
    for n in 0..20u64 {
        mapped.write_all_at(format!("page {n} ").repeat(100).as_bytes(), n * (13 << 20)).unwrap();
    }
    std::fs::hard_link(root.join("chunk"), root.join("small/linked")).unwrap();
    symlink("small/file 1", root.join("symlink")).unwrap();
    write("deep/a/b/c/d/e/f/g", b"down here");
    write("name with \u{fc}ml\u{e4}uts and spaces", b"x");
    // More names than a leaf holds.
    for n in 0..150u32 {
        let unlike = blake3::hash(&n.to_le_bytes()).to_hex();
        write(&format!("many/{unlike} {unlike}"), b"");
    }
    std::fs::write(root.join(OsStr::from_bytes(b"no \xff\xfe utf-8")), "y").unwrap();
    let status = Command::new("sh")
        .arg("-c")
        .arg("cd \"$0\" && mkfifo fifo && mknod null c 1 3 && mknod loop b 7 0 && chown 1234:5678 inline && chmod 4750 inline && touch -d '1969-07-20T20:17:40.123456789Z' empty \
            && setfattr -n user.colour -v amber inline && setfattr -n user.empty inline \
            && setfattr -n user.long -v 0123456789012345678901234567890123456789 small \
            && setfattr -h -n trusted.link -v followed-by-nobody symlink")
        .arg(root)
        .status()
        .unwrap();
    assert!(status.success(), "writing the golden repository needs root");
}

/// Writes the golden repository of this version where there is none yet.
#[test]
#[ignore = "writes into the source tree; run by hand when the format changes, see this file's head"]
fn write() {
    if std::env::var_os("AMBERFS_GOLDEN").is_none_or(|value| value != "write") {
        return;
    }
    for (folder, is_sealed) in folders(FORMAT_VERSION).into_iter().zip([false, true]) {
        write_repository(&golden().join(folder), is_sealed);
    }
}

fn write_repository(place: &Path, is_sealed: bool) {
    assert!(!place.exists(), "delete {} first", place.display());
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    arrange(root);
    let repo = place.join("repository");
    std::fs::create_dir_all(&repo).unwrap();
    let env = Env::seeded(20_261_120, WRITTEN);
    let store = Store::local(&repo).unwrap();
    let opened = match is_sealed {
        true => Repo::init_encrypted(store, env.clone(), &key(), "golden", Cost::STANDARD).unwrap(),
        false => Repo::init(store, env.clone()).unwrap(),
    };
    let origin = |host: &str| Origin { machine: host.into(), host: host.into(), path: b"/home".to_vec() };
    let sources = RepoLog::open(opened.store().clone(), env.clone(), opened.realm());
    let source = sources.add_source("home", SourceKind::Tree, origin("golden")).unwrap();
    let dump = sources.add_source("dump", SourceKind::Stream, origin("golden")).unwrap();
    let gone = sources.add_source("gone", SourceKind::Tree, origin("golden")).unwrap();
    sources.add_source("disk", SourceKind::Disk, origin("golden")).unwrap();
    let dump = SourceRecord { origin: origin("other"), ..dump };
    sources.claim_source("dump", SourceKind::Stream, origin("other"), true).unwrap();
    let log_of =
        |source: &SourceRecord| SourceLog::open(opened.store().clone(), env.clone(), opened.realm(), source.id);
    for content in ["a stream\n", "another stream\n"] {
        env.advance(Duration::from_secs(3600));
        let text = content.repeat(40_000);
        let options = Options { workers: Some(1), ..Options::default() };
        let mut stream = Cursor::new(text.as_bytes());
        capture_stream(&opened, &log_of(&dump), &dump, "dump.sql", &mut stream, &options, &Progress::new()).unwrap();
    }
    let state = sources.refresh().unwrap();
    let (number, hash) = (state.read().number, state.read().hash.unwrap());
    let checkpoint = Checkpoint { number, hash, state: state.snapshot() };
    let (name, bytes) = encode_checkpoint::<RepoBody>(opened.realm(), LogId::Repo, &checkpoint);
    opened.store().create(&name, bytes).unwrap();
    sources.remove_source(gone.id).unwrap();
    let log = SourceLog::open(opened.store().clone(), env.clone(), opened.realm(), source.id);
    let capture = |full: bool, labels: &[&str]| {
        env.advance(Duration::from_secs(3600));
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let options = Options { full, labels, workers: Some(1), ..Options::default() };
        let expected = real(root);
        let outcome = capture_tree(&opened, &log, &source, root, &options, &Progress::new()).unwrap();
        // Sockets apart, the naive reader must see what the mount shows before it is frozen.
        let view = MountView::open(reopened(opened.store().clone(), env.clone()), zero_settings()).unwrap();
        let seen = shown(&view, node(&view, &format!("home/points/{}", outcome.point.name())), 1 << 20);
        same(&expected, &seen, outcome.point.name());
        outcome.point
    };
    let first = capture(false, &["first"]);
    std::fs::write(root.join("small/file 7"), "changed").unwrap();
    std::fs::remove_file(root.join("small/file 9")).unwrap();
    std::fs::rename(root.join("deep/a"), root.join("deep/z")).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(root.join("mapped"))
        .unwrap()
        .write_all_at(b"rewritten", 26 << 20)
        .unwrap();
    let second = capture(false, &["second", "kept"]);
    let third = capture(false, &[]);
    capture(true, &["other chain"]);
    // What no command does yet, or no writer at all.
    log.append(SourceGoal::Abort(log.begin().unwrap())).unwrap();
    log.append(SourceGoal::Floor(log.refresh().unwrap().read().number)).unwrap();
    log.append(SourceGoal::Delete(vec![second.id], Dependents::Keep)).unwrap();
    log.append(SourceGoal::Undelete(vec![second.id])).unwrap();
    let state = log.refresh().unwrap();
    let (number, hash) = (state.read().number, state.read().hash.unwrap());
    let checkpoint = Checkpoint { number, hash, state: state.snapshot() };
    let (name, bytes) = encode_checkpoint::<SourceBody>(opened.realm(), LogId::Source(source.id), &checkpoint);
    opened.store().create(&name, bytes).unwrap();
    let void = LogEntry {
        number: state.read().next(),
        nonce: Nonce(env.random()),
        previous: hash,
        written: env.now(),
        author: opened.realm().keys().map_or(Author::default(), |keys| keys.author()),
        body: SourceBody::OpenChain { chain: ChainId(77) },
    };
    let (name, bytes, _) = encode_entry(opened.realm(), LogId::Source(source.id), &void);
    opened.store().create(&name, bytes).unwrap();
    log.append(SourceGoal::Delete(vec![third.id], Dependents::Keep)).unwrap();
    log.append(SourceGoal::Head(first.id)).unwrap();
    let newest = capture(false, &["rolled back"]);
    partial(&opened, &log, &source, &newest);
    if is_sealed {
        let log_of = |opened: &Arc<Repo>, source: &SourceRecord| {
            SourceLog::open(opened.store().clone(), env.clone(), opened.realm(), source.id)
        };
        let key = KeyId([0xab; 16]);
        sources.append(RepoGoal::Revoke(key)).unwrap();
        log.append(SourceGoal::Writer(Some(key))).unwrap();
        let epoch = opened.begin_rotation(Epoch(0)).unwrap().epoch;
        let opened = reopened(opened.store().clone(), env.clone());
        let sources = RepoLog::open(opened.store().clone(), env.clone(), opened.realm());
        assert!(sources.raise_epoch(epoch).unwrap().is_empty());
        opened.finish_rotation().unwrap();
        // One of two lengths half a step of the padding apart is padded by more than a footer takes.
        for (from, to) in [(0, 200_000u64), (500_000, 702_000)] {
            env.advance(Duration::from_secs(3600));
            let noise: Vec<u8> = (from..to).flat_map(word).collect();
            let options = Options { workers: Some(1), ..Options::default() };
            let (log, mut stream) = (log_of(&opened, &dump), Cursor::new(&noise[..]));
            capture_stream(&opened, &log, &dump, "dump.sql", &mut stream, &options, &Progress::new()).unwrap();
        }
    }
    let text = serde_json::to_string_pretty(&contents(&repo)).unwrap();
    std::fs::write(place.join("contents.json"), text + "\n").unwrap();
}

/// A point like its parent, that tells of problems and has facts of a disk.
fn partial(repo: &Arc<Repo>, log: &SourceLog, source: &SourceRecord, parent: &Point) {
    repo.env().advance(Duration::from_secs(3600));
    let id = log.begin().unwrap();
    let session = Session::begin(repo, source.id, parent.chain(), id).unwrap();
    let kinds = [ProblemKind::Unreadable, ProblemKind::Vanished, ProblemKind::Changed, ProblemKind::Unsupported];
    let list = kinds.map(|kind| Problem { path: b"a/\xff".to_vec(), kind, detail: format!("{kind:?}") });
    let frame = session.append(frame::encode(FrameKind::Problems, &problems::encode(&list), 0), &[]).unwrap();
    let seal = session.seal();
    let packs = session.finish().unwrap().packs;
    let started = repo.env().now();
    let disk = DiskFacts {
        bytes: 1 << 40,
        chunk_bytes: 1 << 16,
        sector_bytes: 512,
        method: Method::Compared,
        stillness: Stillness::MountedReadOnly,
        changed_bytes: 5,
    };
    let commit = Commit {
        session: id,
        parent: Some(parent.id),
        name: name::of_instant(started),
        labels: vec!["partial".into()],
        started,
        captured: started,
        job: Some("n-1".into()),
        problems: Some(frame),
        packs,
        seal,
        disk: Some(disk),
        scope: Some(Scope {
            excludes: Some(vec!["*.tmp".into(), "!keep.tmp".into()]),
            exclude_caches: true,
            cross_filesystems: false,
        }),
        stats: Stats { problems: 4, ..parent.commit.stats },
        ..(*parent.commit).clone()
    };
    log.commit(commit).unwrap();
}

/// Four bytes that do not compress.
fn word(number: u64) -> [u8; 4] {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).to_le_bytes()[..4].try_into().unwrap()
}
