//! The layers of `docs/architecture.md` as a test: who may import whom, where each third-party crate
//! may be named, which modules are pure, where `unsafe` may stand, how long a file may be.
//!
//! A rule that nothing checks decays. Each rule here is also run against a planted violation, so a
//! checker that has gone blind fails too. What it does not see: paths assembled by macros.

use std::fs;
use std::path::Path;

use crate::rust_source::{paths, tokens};

/// Layers from the bottom up. A module may import what stands in a lower row, and itself.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["seal"],
    &["format"],
    &["store"],
    &["repo"],
    &["chain"],
    &["capture", "view"],
    &["restore", "verify"],
    &["job"],
    &["fuse", "cli"],
];

/// Imports beside the rows: `amberfs mount` starts the adapter that serves the kernel.
const EXTRA_IMPORTS: &[(&str, &str)] = &[("cli", "fuse")];

/// Crates that have one home, so that each can be replaced or watched in one place.
const HOMES: &[(&str, &[&str])] = &[
    ("fuser", &["src/fuse/adapter.rs"]),
    ("object_store", &["src/store/"]),
    ("hdfs_native_object_store", &["src/store/backend/hdfs.rs"]),
    ("object_store_opendal", &["src/store/backend/"]),
    ("opendal", &["src/store/backend/"]),
    ("url", &["src/store/address.rs"]),
    ("zstd", &["src/format/frame.rs"]),
    ("anyhow", &["src/cli/", "src/main.rs"]),
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("clap_mangen", &["src/cli/"]),
    ("indicatif", &["src/cli/"]),
    ("tracing_subscriber", &["src/cli/", "src/main.rs"]),
    ("getrandom", &["src/base/env.rs"]),
    ("tokio", &["src/store/"]),
    ("futures", &["src/store/"]),
    ("async_trait", &["src/store/"]),
    ("fastcdc", &["src/capture/chunk.rs"]),
    ("aws_lc_rs", &["src/seal/"]),
    ("aes", &["src/seal/chunker.rs"]),
    ("argon2", &["src/seal/derive.rs"]),
    ("rpassword", &["src/cli/"]),
    ("ignore", &["src/capture/exclude.rs"]),
    ("shlex", &["src/job/", "src/cli/ctl.rs", "src/cli/credential.rs"]),
    ("toml", &["src/job/"]),
    ("bincode", &["src/format/codec.rs"]),
];

/// Derives that may be named outside their crate's home.
const DERIVES: &[(&str, &[&str], &[&str])] =
    &[("bincode", &["Encode", "Decode", "BorrowDecode"], &["src/base/", "src/format/"])];

/// What may name `std::process::Command`: what starts this program once more, and what starts others without what opens a
/// repository. Tests are free.
const STARTERS: &[&str] = &[
    "src/base/foreign.rs",
    "src/base/heirloom.rs",
    "src/base/sys.rs",
    "src/cli/demo/mod.rs",
    "src/fuse/launch.rs",
    "src/fuse/sys.rs",
    "src/job/child.rs",
];

/// Modules that compute and do nothing else, by a prefix of the path; and every file whose header says
/// that it is pure ([`CLAIMS`]). Their tests are free.
const PURE: &[&str] =
    &["src/base/limits.rs", "src/format/", "src/chain/state", "src/chain/protocol", "src/job/line.rs"];

/// How a header says that its file is pure: a claim that nothing checks is none.
const CLAIMS: &[&str] = &["Pure.", "Pure:", "is pure"];

/// What a pure module may not name: the outside world and the clock.
const IMPURE: &[&[&str]] = &[
    &["std", "fs"],
    &["std", "net"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "env"],
    &["std", "os"],
    &["std", "time", "SystemTime"],
    &["std", "time", "Instant"],
    &["libc"],
    &["crate", "base", "Env"],
    &["crate", "base", "env"],
];

const FILE_LINES_MAX: usize = 800;

/// Everything that the rules find wrong in one file; `path` is relative to the repository.
fn violations(path: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut complain = |line: usize, what: String| found.push(format!("{path}:{line}: {what}"));

    let lines = source.lines().count();
    if lines > FILE_LINES_MAX {
        complain(FILE_LINES_MAX, format!("{lines} lines; split it by nouns, at most {FILE_LINES_MAX}"));
    }
    // What a tests.rs is for, its folder says.
    if !path.ends_with("/tests.rs")
        && !source.trim_start_matches("#![allow(unsafe_code)]\n").trim_start().starts_with("//!")
    {
        complain(1, "no `//!` header that says what the file is for".to_owned());
    }
    if !path.ends_with("/sys.rs") {
        for token in tokens(source).iter().filter(|t| t.text == "unsafe") {
            complain(token.line, "`unsafe` outside a sys.rs".to_owned());
        }
    }

    let module = path
        .strip_prefix("src/")
        .map(|p| p.trim_end_matches(".rs").trim_end_matches("/mod"))
        .filter(|p| *p != "lib" && *p != "main");
    let segments: Vec<&str> = module.map(|m| m.split('/').collect()).unwrap_or_default();
    let layer = segments.first().copied();
    let claims = || source.lines().take_while(|l| l.starts_with("//!")).any(|l| CLAIMS.iter().any(|c| l.contains(c)));
    let listed = PURE.iter().any(|prefix| path.starts_with(prefix));
    let pure = path.starts_with("src/") && !path.ends_with("/tests.rs") && (listed || claims());
    if let Some(layer) = layer
        && rank(layer).is_none()
    {
        complain(1, format!("module `{layer}` is in no layer: give it a row in LAYERS"));
    }

    for named in paths(source, &segments) {
        let path_named = named.segments.join("::");
        let first = named.segments.first().map_or("", String::as_str);
        let second = named.segments.get(1).map_or("", String::as_str);
        if let (Some(layer), "crate") = (layer, first)
            && !may_import(layer, second)
        {
            complain(named.line, format!("`{layer}` may not import `{path_named}`: imports go downward only"));
        }
        if path == "src/main.rs" && first == "amberfs" && second != "cli" {
            complain(named.line, format!("main.rs names `{path_named}`; it may only start the command line"));
        }
        if path.starts_with("src/") && !at_home(path, &named.segments) {
            complain(named.line, format!("`{path_named}` is named outside the home of `{first}`"));
        }
        let is_test = named.in_test || path.contains("/tests") || path.ends_with("/testing.rs");
        if path.starts_with("src/")
            && path_named.starts_with("std::process::Command")
            && !is_test
            && !STARTERS.contains(&path)
        {
            complain(named.line, format!("`{path_named}`: programs of others are started by base::foreign"));
        }
        let reaches =
            |impure: &&&[&str]| impure.iter().enumerate().all(|(i, s)| named.segments.get(i).is_some_and(|n| n == s));
        if pure && !named.in_test && IMPURE.iter().any(|i| reaches(&i)) {
            complain(named.line, format!("`{path_named}` in a module that must be pure"));
        }
        if path.starts_with("mount-helper/")
            && !["std", "core", "libc", "crate", "self", "super"].contains(&first)
            && is_crate(first)
        {
            complain(named.line, format!("`{path_named}`: the mount helper depends on libc and nothing else"));
        }
    }
    found
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn may_import(from: &str, to: &str) -> bool {
    from == to || EXTRA_IMPORTS.contains(&(from, to)) || matches!((rank(from), rank(to)), (Some(a), Some(b)) if b < a)
}

fn at_home(path: &str, segments: &[String]) -> bool {
    let first = segments.first().map_or("", String::as_str);
    let Some((_, homes)) = HOMES.iter().find(|(name, _)| *name == first) else { return true };
    let item = segments.get(1).map_or("", String::as_str);
    let derive = |(name, items, allowed): &(&str, &[&str], &[&str])| {
        *name == first && items.contains(&item) && allowed.iter().any(|a| path.starts_with(a))
    };
    homes.iter().any(|home| path.starts_with(home)) || DERIVES.iter().any(derive)
}

/// Crates that the main package depends on and the mount helper must not.
fn is_crate(name: &str) -> bool {
    name == "amberfs" || HOMES.iter().any(|(home, _)| *home == name) || ["serde", "serde_json"].contains(&name)
}

/// Calls `each` with the relative path and text of every Rust file below `dir`.
fn each_source(root: &Path, dir: &str, each: &mut dyn FnMut(&str, &str)) {
    let Ok(items) = fs::read_dir(root.join(dir)) else { return };
    let mut names: Vec<String> = items.map(|i| i.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for name in names {
        let path = format!("{dir}/{name}");
        if root.join(&path).is_dir() {
            each_source(root, &path, each);
        } else if name.ends_with(".rs") {
            each(&path, &fs::read_to_string(root.join(&path)).unwrap());
        }
    }
}

#[test]
fn every_file_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut files) = (Vec::new(), 0);
    for dir in ["src", "mount-helper/src", "tests", "benches"] {
        each_source(root, dir, &mut |path, source| {
            files += 1;
            found.extend(violations(path, source));
        });
    }
    assert!(files > 20, "only {files} files seen: the walk is broken");
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

/// A row for a file that has moved away checks nothing.
#[test]
fn every_row_of_the_tables_applies_to_something() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    each_source(root, "src", &mut |path, _| files.push(path.to_owned()));
    let homes = HOMES.iter().flat_map(|(_, homes)| *homes).chain(PURE).chain(STARTERS);
    let stale: Vec<_> = homes.filter(|prefix| !files.iter().any(|f| f.starts_with(**prefix))).collect();
    assert_eq!(stale, Vec::<&&str>::new(), "these paths of the tables exist no longer");
}

/// Asserts that `source` at `path` breaks a rule whose complaint contains `what`.
#[track_caller]
fn planted(path: &str, source: &str, what: &str) {
    let source = format!("//! Header.\n{source}\n");
    let found = violations(path, &source);
    assert!(found.len() == 1 && found[0].contains(what), "planted in {path}: {source:?} gave {found:#?}");
}

#[track_caller]
fn clean(path: &str, source: &str) {
    let source = format!("//! Header.\n{source}\n");
    assert_eq!(violations(path, &source), Vec::<String>::new(), "in {path}: {source:?}");
}

#[test]
fn upward_and_sideways_imports_are_found() {
    planted("src/store/mod.rs", "use crate::chain::Point;", "`store` may not import");
    planted("src/seal/mod.rs", "use crate::format::ids;", "`seal` may not import");
    planted("src/repo/pack.rs", "use crate::{base::Env, chain};", "`repo` may not import");
    planted("src/repo/pack.rs", "fn f() { crate::view::open() }", "`repo` may not import");
    planted("src/repo/pack.rs", "use super::super::view::X;", "`repo` may not import");
    planted("src/repo/pack.rs", "mod tests { use super::super::super::view::X; }", "`repo` may not import");
    planted("src/view/mod.rs", "use crate::capture::Walk;", "`view` may not import");
    planted("src/fuse/mod.rs", "use crate::cli::args;", "`fuse` may not import");
    planted("src/base/mod.rs", "use crate::*;", "`base` may not import");
    planted("src/main.rs", "use amberfs::chain::Point;", "only start the command line");
    planted("src/utils/mod.rs", "", "in no layer");
    clean("src/chain/point.rs", "use crate::repo::X; use crate::{base::Env, format::ids}; use super::lineage;");
    clean("src/cli/mount.rs", "use crate::fuse::Mount;");
    clean("src/lib.rs", "pub mod base; pub use crate::base::Env;");
}

#[test]
fn crates_away_from_home_are_found() {
    planted("src/fuse/ops.rs", "use fuser::FileAttr;", "outside the home of `fuser`");
    planted("src/fuse/ops.rs", "fn f(x: ::fuser::FileAttr) {}", "outside the home of `fuser`");
    planted("src/fuse/ops.rs", "use fuser as f;", "outside the home of `fuser`");
    planted("src/fuse/ops.rs", "extern crate fuser;", "outside the home of `fuser`");
    planted("src/repo/frame.rs", "use aws_lc_rs::aead;", "outside the home of `aws_lc_rs`");
    planted("src/repo/mod.rs", "use {object_store::path::Path};", "outside the home of `object_store`");
    planted("src/format/entry.rs", "fn f() { bincode::encode_to_vec(1) }", "outside the home of `bincode`");
    planted("src/format/entry.rs", "use bincode::{Encode, config};", "outside the home of `bincode`");
    planted("src/chain/state.rs", "#[derive(bincode::Encode)] struct S;", "outside the home of `bincode`");
    planted("src/format/codec.rs", "use zstd::bulk;", "outside the home of `zstd`");
    planted("src/job/run.rs", "fn f() -> anyhow::Result<()> {}", "outside the home of `anyhow`");
    planted("mount-helper/src/main.rs", "use serde::Serialize;", "libc and nothing else");
    clean("src/fuse/adapter.rs", "use fuser::FileAttr;");
    clean("src/format/entry.rs", "use bincode::{Encode, Decode}; // bincode::config is not used");
    clean("src/format/codec.rs", "use bincode::config::Configuration;");
    clean("src/store/local.rs", "use object_store::ObjectStore;");
}

#[test]
fn programs_that_would_get_a_key_are_found() {
    planted("src/restore/hook.rs", "use std::process::{Command, Stdio};", "started by base::foreign");
    planted("src/view/disk.rs", "fn f() { std::process::Command::new(\"sfdisk\") }", "started by base::foreign");
    clean("src/view/disk.rs", "use std::process::Stdio; #[cfg(test)] mod tests { use std::process::Command; }");
    clean("src/job/child.rs", "use std::process::Command;");
}

#[test]
fn impurity_is_found() {
    planted("src/format/entry.rs", "use std::{fmt, fs};", "must be pure");
    planted("src/format/entry.rs", "fn f() { std::thread::yield_now() }", "must be pure");
    planted("src/chain/state.rs", "use std::time::{Duration, SystemTime};", "must be pure");
    planted("src/chain/protocol/fence.rs", "use std::process::exit;", "must be pure");
    planted("src/job/line.rs", "use std::net::TcpStream;", "must be pure");
    planted("src/chain/state.rs", "use crate::base::{Env, limits};", "must be pure");
    planted("src/view/name.rs", "//! Pure.\nuse std::fs;", "must be pure");
    clean("src/format/entry.rs", "use std::time::Duration; #[cfg(test)] mod tests { use std::fs; }");
    clean("src/chain/point.rs", "use std::fs;");
}

#[test]
fn unsafe_length_and_missing_headers_are_found() {
    planted("src/capture/walk.rs", "fn f() { unsafe { g() } }", "outside a sys.rs");
    clean("src/capture/sys.rs", "fn f() { unsafe { g() } }");
    clean("src/capture/walk.rs", "#![deny(unsafe_code)] // unsafe\nconst S: &str = \"unsafe\";");
    planted("src/capture/walk.rs", &"\n".repeat(FILE_LINES_MAX), "split it by nouns");
    assert_eq!(violations("src/capture/walk.rs", "fn f() {}\n").len(), 1, "a missing header");
}
