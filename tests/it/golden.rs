//! Frozen repositories: what an earlier amberfs has written stays readable.
//!
//! `tests/golden/v<version>/` holds a repository and, beside it, what its points held when it was
//! written. Version 0 may be written anew as long as the format is not frozen:
//! `AMBERFS_GOLDEN=write cargo test --test it golden::write` (as root, for devices and owners),
//! after deleting the old one.

use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use amberfs::base::{Env, Instant};
use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::chain::{RepoLog, SourceLog};
use amberfs::format::envelope::FORMAT_VERSION;
use amberfs::format::log::{Origin, SourceKind};
use amberfs::repo::Repo;
use amberfs::store::Store;
use amberfs::view::MountView;
use amberfs::view::namespace::Namespace;
use serde_json::{Value, json};

use crate::world::{Manifest, names, node, real, shown, zero_settings};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The written repository's clock: later than its files' times, so that none of them is too young to be trusted.
const WRITTEN: Instant = Instant::from_nanos(4_000_000_000_000_000_000);

fn summary(manifest: &Manifest) -> Value {
    let rows = manifest.iter().map(|(path, seen)| {
        json!({
            "path": path.escape_ascii().to_string(),
            "kind": format!("{:?}", seen.kind),
            "permissions": format!("{:04o}", seen.permissions),
            "owner": [seen.owner.0, seen.owner.1],
            "size": seen.size,
            "mtime": [seen.mtime.seconds, i64::from(seen.mtime.nanos)],
            "ctime": [seen.ctime.seconds, i64::from(seen.ctime.nanos)],
            "links": seen.links,
            "device": [seen.device.0, seen.device.1],
            "blake3": blake3::hash(&seen.content).to_hex().to_string(),
            "first": seen.first.escape_ascii().to_string(),
        })
    });
    rows.collect()
}

/// What a repository's points hold, with the links that lead to them.
fn contents(repo: &Path) -> Value {
    let env = Env::seeded(1, WRITTEN);
    let view = MountView::open(Repo::open(Store::local(repo).unwrap(), env).unwrap(), zero_settings()).unwrap();
    let points: serde_json::Map<String, Value> = names(&view, node(&view, "home/points"))
        .into_iter()
        .map(|(name, root)| (String::from_utf8(name).unwrap(), summary(&shown(&view, root, 100_000))))
        .collect();
    let links: serde_json::Map<String, Value> =
        ["home/labels/first", "home/latest", "home/chains/0/001-incremental", "home/chains/1/000-full"]
            .into_iter()
            .map(|path| {
                let target = view.read_link(node(&view, path)).unwrap();
                (path.to_owned(), Value::from(String::from_utf8(target).unwrap()))
            })
            .collect();
    json!({ "points": points, "links": links })
}

#[test]
fn every_version_has_its_golden_repository() {
    let mut found: Vec<String> =
        std::fs::read_dir(golden()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let expected: Vec<String> = (0..=FORMAT_VERSION).map(|version| format!("v{version}")).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_golden_repository_reads_as_it_was_written_and_can_be_built_on() {
    for version in 0..=FORMAT_VERSION {
        let frozen = golden().join(format!("v{version}"));
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repository");
        assert!(Command::new("cp").arg("-r").arg(frozen.join("repository")).arg(&repo).status().unwrap().success());
        let recorded: Value = serde_json::from_slice(&std::fs::read(frozen.join("contents.json")).unwrap()).unwrap();
        let found = contents(&repo);
        for (point, rows) in recorded["points"].as_object().unwrap() {
            for (expected, actual) in rows.as_array().unwrap().iter().zip(found["points"][point].as_array().unwrap()) {
                assert_eq!(expected, actual, "v{version} {point}");
            }
        }
        assert_eq!(found, recorded, "v{version}");

        let env = Env::seeded(99, Instant::from_nanos(WRITTEN.nanos() + 1_000_000_000_000));
        let repo = Repo::open(Store::local(&repo).unwrap(), env.clone()).unwrap();
        let sources = RepoLog::open(repo.store().clone(), env.clone(), repo.id());
        let source = sources.sources().unwrap().remove(0);
        let log = SourceLog::open(repo.store().clone(), env, repo.id(), source.id);
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), "newer").unwrap();
        let outcome = capture_tree(&repo, &log, &source, &tree, &Options::default(), &Progress::new()).unwrap();
        let view = MountView::open(repo, zero_settings()).unwrap();
        let file = node(&view, &format!("home/points/{}/file", outcome.point.name()));
        assert_eq!(view.read(file, 0, 100).unwrap(), b"newer");
    }
}

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
    let status = Command::new("sh")
        .arg("-c")
        .arg("cd \"$0\" && mkfifo fifo && mknod null c 1 3 && mknod loop b 7 0 && chown 1234:5678 inline && chmod 4750 inline && touch -d '1969-07-20T20:17:40.123456789Z' empty")
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
    let place = golden().join(format!("v{FORMAT_VERSION}"));
    assert!(!place.exists(), "delete {} first", place.display());
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    arrange(root);
    let repo = place.join("repository");
    std::fs::create_dir_all(&repo).unwrap();
    let env = Env::seeded(20_261_120, WRITTEN);
    let opened = Repo::init(Store::local(&repo).unwrap(), env.clone()).unwrap();
    let origin = Origin { machine: "golden".into(), host: "golden".into(), path: b"/home".to_vec() };
    let sources = RepoLog::open(opened.store().clone(), env.clone(), opened.id());
    let source = sources.add_source("home", SourceKind::Tree, origin).unwrap();
    let log = SourceLog::open(opened.store().clone(), env.clone(), opened.id(), source.id);
    let capture = |full: bool, labels: &[&str]| {
        env.advance(std::time::Duration::from_secs(3600));
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let options = Options { full, labels, workers: Some(1), ..Options::default() };
        let expected = real(root);
        let outcome = capture_tree(&opened, &log, &source, root, &options, &Progress::new()).unwrap();
        // Sockets apart, the naive reader must see what the mount shows before it is frozen.
        let view = MountView::open(Repo::open(opened.store().clone(), env.clone()).unwrap(), zero_settings()).unwrap();
        let seen = shown(&view, node(&view, &format!("home/points/{}", outcome.point.name())), 1 << 20);
        crate::world::same(&expected, &seen, outcome.point.name());
    };
    capture(false, &["first"]);
    std::fs::write(root.join("small/file 7"), "changed").unwrap();
    std::fs::remove_file(root.join("small/file 9")).unwrap();
    std::fs::rename(root.join("deep/a"), root.join("deep/z")).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(root.join("mapped"))
        .unwrap()
        .write_all_at(b"rewritten", 26 << 20)
        .unwrap();
    capture(false, &["second", "kept"]);
    capture(false, &[]);
    capture(true, &["other chain"]);
    let text = serde_json::to_string_pretty(&contents(&repo)).unwrap();
    std::fs::write(place.join("contents.json"), text + "\n").unwrap();
}
