//! Frozen repositories: what an earlier amberfs has written stays readable.
//!
//! `tests/golden/v<version>/` and `v<version>-encrypted/`, which `key` opens, hold a repository and, beside it, what its points held when it was
//! written. Version 0 may be written anew as long as the format is not frozen:
//! `AMBERFS_GOLDEN=write cargo test --test it golden::write -- --ignored` (as root, for devices and owners),
//! after deleting the old one.
//!
//! It has every kind of frame, of entry in both logs, of file and of content; checkpoints, a tree with inner
//! nodes, and what only a later release will write. `it_has_every_kind_of_entry_and_of_frame` counts them.

mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use amberfs::base::{Env, FileTime, Instant};
use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::chain::{RepoLog, SourceLog};
use amberfs::format::envelope::FORMAT_VERSION;
use amberfs::format::frame::FrameKind;
use amberfs::format::log::{LogBody, RepoBody, SourceBody, decode_entry};
use amberfs::format::object::LogId;
use amberfs::format::{LogNumber, PackId, PackOrdinal};
use amberfs::repo::{CacheSizes, Closed, Credential, Repo, read_footer};
use amberfs::store::Store;
use amberfs::verify;
use amberfs::view::MountView;
use amberfs::view::namespace::{FileKind, Namespace, NodeId, SeekTo};
use serde_json::{Value, json};

use crate::world::{Manifest, names, node, shown, zero_settings};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The written repository's clock: later than its files' times, so that none of them is too young to be trusted.
const WRITTEN: Instant = Instant::from_nanos(4_000_000_000_000_000_000);

fn summary(view: &MountView, root: NodeId) -> Value {
    let manifest: Manifest = shown(view, root, 100_000);
    let rows = manifest.iter().map(|(path, seen)| {
        let at = path
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
            .fold(root, |directory, name| view.lookup(directory, name).unwrap().attr.node);
        let attr = view.attr(at).unwrap().attr;
        let time = |time: FileTime| format!("{}.{:09}", time.seconds, time.nanos);
        let data = if seen.kind == FileKind::Regular { data(view, at) } else { String::new() };
        // One line each: it is long enough as it is.
        Value::from(format!(
            "{} {:?} {:04o} {}:{} size={} blocks={} mtime={} atime={} ctime={} links={} first={} device={}:{} blake3={} \
             data={data} attributes={}",
            path.escape_ascii(),
            seen.kind,
            seen.permissions,
            seen.owner.0,
            seen.owner.1,
            seen.size,
            attr.blocks,
            time(seen.mtime),
            time(attr.atime),
            time(seen.ctime),
            seen.links,
            seen.first.escape_ascii(),
            seen.device.0,
            seen.device.1,
            &seen.hash().to_hex()[..32],
            attributes(view, at),
        ))
    });
    rows.collect()
}

/// The extended attributes, and the time of birth, which is read like one.
fn attributes(view: &MountView, node: NodeId) -> Value {
    let mut names = view.xattr_names(node).unwrap();
    names.push(b"user.amberfs.btime".to_vec());
    let value = |name: &Vec<u8>| {
        let value = view.xattr(node, name).unwrap()?;
        Some((name.escape_ascii().to_string(), Value::from(value.escape_ascii().to_string())))
    };
    Value::Object(names.iter().filter_map(value).collect())
}

/// The stretches of a file that are no holes: where each begins and ends.
fn data(view: &MountView, node: NodeId) -> String {
    let (mut found, mut offset) = (Vec::new(), 0);
    while let Ok(begin) = view.seek(node, offset, SeekTo::Data) {
        offset = view.seek(node, begin, SeekTo::Hole).unwrap();
        found.push(format!("{begin}-{offset}"));
    }
    found.join(",")
}

/// The links beside a source's points, with where they lead.
fn links(view: &MountView, directory: NodeId, at: &str, found: &mut serde_json::Map<String, Value>) {
    for (name, node) in names(view, directory) {
        let path = format!("{at}/{}", name.escape_ascii());
        match view.attr(node).unwrap().attr.kind {
            FileKind::Symlink => {
                let target = view.read_link(node).unwrap();
                found.insert(path, Value::from(target.escape_ascii().to_string()));
            }
            FileKind::Directory if name != b"points" => links(view, node, &path, found),
            _ => {}
        }
    }
}

/// What the entries of a log are, in order. A match without a wildcard, so that a new kind is not forgotten.
fn words<B: LogBody>(repo: &Repo, log: LogId, word: impl Fn(&B) -> &'static str) -> Vec<&'static str> {
    let entry = |number| {
        let name = amberfs::format::object::Object::Entry(log, LogNumber(number)).name();
        let bytes = repo.store().get(&name, 1 << 20).ok()?;
        Some(word(&decode_entry::<B>(repo.realm(), log, LogNumber(number), &bytes).unwrap().0.body))
    };
    (1..).map_while(entry).collect()
}

fn repo_word(body: &RepoBody) -> &'static str {
    match body {
        RepoBody::AddSource { .. } => "add source",
        RepoBody::MoveSource { .. } => "move source",
        RepoBody::RemoveSource { .. } => "remove source",
        RepoBody::RevokeKey { .. } => "revoke key",
        RepoBody::Epoch { .. } => "epoch",
        RepoBody::Pin { .. } => "pin",
    }
}

/// What the log of every repository can hold, and then what only an encrypted one has.
const REPO_WORDS: [&str; 6] = ["add source", "move source", "remove source", "revoke key", "epoch", "pin"];

fn source_word(body: &SourceBody) -> &'static str {
    match body {
        SourceBody::OpenChain { .. } => "open chain",
        SourceBody::Commit(_) => "commit",
        SourceBody::Abort { .. } => "abort",
        SourceBody::Floor { .. } => "floor",
        SourceBody::Seal => "seal",
        SourceBody::Delete { .. } => "delete",
        SourceBody::Undelete { .. } => "undelete",
        SourceBody::Head { .. } => "head",
        SourceBody::Writer { .. } => "writer",
        SourceBody::Epoch { .. } => "epoch",
    }
}

const SOURCE_WORDS: [&str; 10] =
    ["open chain", "commit", "abort", "floor", "seal", "delete", "undelete", "head", "writer", "epoch"];

fn frame_word(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Data => "data",
        FrameKind::Entries => "entries",
        FrameKind::Maps => "maps",
        FrameKind::Usage => "usage",
        FrameKind::Problems => "problems",
        FrameKind::Footer => "footer",
        FrameKind::Padding => "padding",
    }
}

/// The footer is where the others are listed, and is not listed itself.
const FRAME_WORDS: [&str; 6] = ["data", "entries", "maps", "usage", "problems", "padding"];

/// How many of these words belong to encrypted repositories alone; they stand last.
const SEALED_WORDS: (usize, usize, usize) = (3, 2, 1);

/// What opens the encrypted ones.
fn key() -> Credential {
    Credential::of_key_file(&std::fs::read_to_string(golden().join("key")).unwrap()).unwrap()
}

/// The folders of a version: its repository, and its encrypted one.
fn folders(version: u8) -> [String; 2] {
    [format!("v{version}"), format!("v{version}-encrypted")]
}

fn reopened(store: Store, env: Env) -> Arc<Repo> {
    let closed = Closed::find(store).unwrap();
    let key = closed.is_encrypted().then(key);
    closed.open(env, CacheSizes::default(), key.as_ref()).unwrap()
}

fn open(repo: &Path) -> (Arc<Repo>, RepoLog) {
    let repo = reopened(Store::local(repo).unwrap(), Env::seeded(1, WRITTEN));
    let sources = RepoLog::open(repo.store().clone(), repo.env().clone(), repo.realm());
    (repo, sources)
}

/// What a repository holds: its sources, their logs, and every point with all that a reader can learn of it.
fn contents(repo: &Path) -> Value {
    let (repo, sources) = open(repo);
    let view = MountView::open(Arc::clone(&repo), zero_settings()).unwrap();
    let mut told = serde_json::Map::new();
    for record in sources.load().unwrap().records() {
        let log = SourceLog::open(repo.store().clone(), repo.env().clone(), repo.realm(), record.id);
        let (state, audit) = (log.load().unwrap(), log.audit().unwrap());
        assert_eq!(audit.damage, []);
        let mut about = json!({
            "name": record.name, "kind": format!("{:?}", record.kind), "removed": record.removed,
            "origin": [record.origin.machine, record.origin.host, record.origin.path.escape_ascii().to_string()],
            "entries": words(&repo, LogId::Source(record.id), source_word),
            "void": audit.void.iter().map(|(number, _)| number.0).collect::<Vec<_>>(),
            "checkpoints": audit.checkpoints,
            "commits": audit.state.points().iter().map(|point| json!({
                "id": point.id.0, "chain": point.chain().0, "parent": point.commit.parent.map(|parent| parent.0),
                "labels": point.commit.labels, "problems": point.commit.stats.problems,
                "disk": point.commit.disk.as_ref().map(|disk| format!("{disk:?}")),
            })).collect::<Vec<_>>(),
        });
        assert_eq!(state.points(), audit.state.points(), "with the checkpoint and without");
        if !record.removed {
            let root = node(&view, &record.name);
            let points = names(&view, node(&view, &format!("{}/points", record.name)));
            let points: serde_json::Map<String, Value> = (points.into_iter())
                .map(|(name, root)| (String::from_utf8(name).unwrap(), summary(&view, root)))
                .collect();
            about["points"] = Value::Object(points);
            let mut found = serde_json::Map::new();
            links(&view, root, &record.name, &mut found);
            about["links"] = Value::Object(found);
        }
        told.insert(record.id.to_string(), about);
    }
    let audit = sources.audit().unwrap();
    json!({
        "sources": told, "entries": words(&repo, LogId::Repo, repo_word),
        "checkpoints": audit.checkpoints, "void": audit.void.len(),
    })
}

#[test]
fn every_version_has_its_golden_repository() {
    let mut found: Vec<String> =
        std::fs::read_dir(golden()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let mut expected: Vec<String> = (0..=FORMAT_VERSION).flat_map(folders).collect();
    expected.insert(0, "key".to_owned());
    assert_eq!(found, expected);
}

#[test]
fn every_golden_repository_reads_as_it_was_written_and_can_be_built_on() {
    for version in (0..=FORMAT_VERSION).flat_map(folders) {
        let frozen = golden().join(&version);
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repository");
        assert!(Command::new("cp").arg("-r").arg(frozen.join("repository")).arg(&repo).status().unwrap().success());
        let recorded: Value = serde_json::from_slice(&std::fs::read(frozen.join("contents.json")).unwrap()).unwrap();
        let found = contents(&repo);
        for (source, about) in recorded["sources"].as_object().unwrap() {
            for (point, rows) in about["points"].as_object().into_iter().flatten() {
                let actual = found["sources"][source]["points"][point].as_array().unwrap();
                for (expected, actual) in rows.as_array().unwrap().iter().zip(actual) {
                    assert_eq!(expected, actual, "v{version} {source} {point}");
                }
            }
        }
        assert_eq!(found, recorded, "v{version}");

        let options = verify::Options { read_data: true, ..verify::Options::default() };
        let report = verify::verify(&open(&repo).0, &options, &verify::Progress::new()).unwrap();
        assert_eq!(report.findings, [], "v{version}");

        let env = Env::seeded(99, Instant::from_nanos(WRITTEN.nanos() + 1_000_000_000_000));
        let repo = reopened(Store::local(&repo).unwrap(), env.clone());
        let sources = RepoLog::open(repo.store().clone(), env.clone(), repo.realm());
        let source = sources.sources().unwrap().remove(0);
        let log = SourceLog::open(repo.store().clone(), env, repo.realm(), source.id);
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), "newer").unwrap();
        let outcome = capture_tree(&repo, &log, &source, &tree, &Options::default(), &Progress::new()).unwrap();
        let view = MountView::open(repo, zero_settings()).unwrap();
        let file = node(&view, &format!("home/points/{}/file", outcome.point.name()));
        assert_eq!(view.read(file, 0, 100).unwrap(), "newer");
    }
}

/// What the newest golden repository lacks would be frozen unseen.
#[test]
fn it_has_every_kind_of_entry_and_of_frame() {
    for (folder, is_sealed) in folders(FORMAT_VERSION).into_iter().zip([false, true]) {
        has_every_kind(&golden().join(folder).join("repository"), is_sealed);
    }
}

fn has_every_kind(repository: &Path, is_sealed: bool) {
    fn set<const N: usize>(words: [&'static str; N], sealed: usize, is_sealed: bool) -> BTreeSet<&'static str> {
        words.into_iter().take(if is_sealed { N } else { N - sealed }).collect()
    }
    let (repo, sources) = open(repository);
    let repo_words: BTreeSet<&str> = words(&repo, LogId::Repo, repo_word).into_iter().collect();
    assert_eq!(repo_words, set(REPO_WORDS, SEALED_WORDS.0, is_sealed));
    let (mut source_words, mut frame_words, mut levels) = (BTreeSet::new(), BTreeSet::new(), 0);
    assert_eq!(sources.audit().unwrap().checkpoints, 1);
    let mut checkpoints = 0;
    for record in sources.load().unwrap().records() {
        source_words.extend(words(&repo, LogId::Source(record.id), source_word));
        let log = SourceLog::open(repo.store().clone(), repo.env().clone(), repo.realm(), record.id);
        let audit = log.audit().unwrap();
        checkpoints += audit.checkpoints;
        for point in audit.state.points() {
            levels = levels.max(point.commit.roots.entries.level);
            for ordinal in 0..point.commit.packs {
                let pack =
                    PackId { chain: point.chain(), session: point.commit.session, ordinal: PackOrdinal(ordinal) };
                let footer = read_footer(&repo.reader(record.id), pack).unwrap();
                frame_words.extend(footer.frames.iter().map(|frame| frame_word(frame.kind)));
            }
        }
    }
    assert_eq!(source_words, set(SOURCE_WORDS, SEALED_WORDS.1, is_sealed));
    assert_eq!(frame_words, set(FRAME_WORDS, SEALED_WORDS.2, is_sealed));
    assert!(levels > 0, "no tree has an inner node");
    assert!(checkpoints > 0);
}
