//! `init` and the commands on an empty repository, or where there is none.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::bench::{Bench, Ran};

#[test]
fn a_repository_is_created_once_and_only_where_it_harms_nothing() {
    let bench = Bench::new();
    bench.run(["init"]).fails(12, "there is no terminal to ask at").fails(12, "or say --unencrypted");
    assert!(!bench.path("repo").exists());
    assert!(bench.good(["init", "--unencrypted"]).starts_with("repository "));
    bench.run(["init", "--unencrypted"]).fails(11, "repo");

    fs::create_dir(bench.path("empty")).unwrap();
    let json = bench.run(["-r", "empty", "init", "--unencrypted", "--json"]).json();
    assert_eq!(json[0]["message_type"], "initialized");
    assert_eq!(json[0]["id"].as_str().unwrap().len(), 32);

    fs::create_dir(bench.path("full")).unwrap();
    fs::write(bench.path("full/file"), "x").unwrap();
    let ran = bench.run(["-r", "full", "init", "--unencrypted"]);
    assert!(ran.code != 0 && ran.err.contains("full"), "{ran:?}");
    assert_eq!(fs::read_dir(bench.path("full")).unwrap().count(), 1);
}

#[test]
fn nobody_else_can_write_to_a_new_repository_or_read_its_objects() {
    let bench = Bench::new();
    let mode = |name: &str| fs::metadata(bench.path(name)).unwrap().mode() & 0o7777;
    let make = |name: &str, mode: u32| {
        fs::create_dir(bench.path(name)).unwrap();
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for (name, made, becomes) in
        [("mine", 0o700, 0o700), ("read", 0o755, 0o755), ("group", 0o770, 0o700), ("all", 0o777, 0o700)]
    {
        make(name, made);
        let ran = bench.run(["-r", name, "init", "--unencrypted"]);
        assert_eq!((ran.code, mode(name)), (0, becomes), "{ran:?}");
        assert_eq!(ran.err.contains("others could write to this directory"), made != becomes, "{ran:?}");
        assert_eq!(mode(&format!("{name}/amberfs")), 0o600);
    }
    // Root makes one for everybody, and somebody else uses it.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        let others = tempfile::tempdir().unwrap();
        fs::set_permissions(others.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let place = others.path().to_str().unwrap();
        let ran = Ran::of(bench.unprivileged(["-r", place, "init", "--unencrypted"]).output().unwrap());
        ran.fails(1, "can be written to by others (mode 1777)");
        assert_eq!(fs::read_dir(others.path()).unwrap().count(), 0);
    }
}

#[test]
fn without_a_repository_commands_end_with_10_and_say_how_to_get_one() {
    let bench = Bench::new();
    for command in ["points", "chains", "status"] {
        bench.run([command]).fails(10, "there is no repository at").fails(10, "hint: amberfs init");
        fs::create_dir_all(bench.path("elsewhere")).unwrap();
        bench.run(["-r", "elsewhere", command]).fails(10, "there is no repository at");
        bench.run(["-r", "ftp://host", command]).fails(1, "no such kind of store");
    }
    let ran = Ran::of(bench.command(["status"]).env_remove("AMBERFS_REPOSITORY").output().unwrap());
    ran.fails(10, "no repository is given").fails(10, "hint: name one with -r REPO, AMBERFS_REPOSITORY");
}

#[test]
fn the_repository_can_stand_in_the_configuration() {
    let bench = Bench::new();
    bench.good(["init", "--unencrypted", "-q"]);
    fs::write(bench.path("config.toml"), format!("[repository]\nurl = {:?}\n", bench.path("repo"))).unwrap();
    let ran = Ran::of(bench.command(["status", "--json"]).env("AMBERFS_REPOSITORY", "").output().unwrap());
    assert_eq!(ran.json()[0]["sources"], serde_json::json!([]));
    fs::write(bench.path("config.toml"), "[repository]\nurl = \"repo\"\n").unwrap();
    let ran = Ran::of(bench.command(["status"]).env_remove("AMBERFS_REPOSITORY").output().unwrap());
    ran.fails(2, "must be an absolute path");
}

#[test]
fn an_empty_repository_has_no_points_and_says_what_to_do() {
    let bench = Bench::new();
    bench.good(["init", "--unencrypted", "--quiet"]);
    assert_eq!(bench.good(["points"]), "");
    assert_eq!(bench.good(["chains"]), "");
    assert!(bench.good(["status"]).contains("amberfs capture NAME=PATH"));
    bench.run(["points", "home"]).fails(1, "no source \"home\"");
}

#[test]
fn status_counts_what_killed_writers_left() {
    let bench = Bench::new();
    bench.good(["init", "--unencrypted", "-q"]);
    fs::create_dir(bench.path("tree")).unwrap();
    bench.good(["capture", "home=tree", "-q"]);
    assert!(!bench.good(["status"]).contains("unfinished"));
    assert!(bench.run(["status", "--json"]).json()[0].get("unfinished").is_none());
    fs::write(bench.path("repo/log/00000000000000000002#1"), "half").unwrap();
    fs::create_dir_all(bench.path("repo/source/00000001/chain/000009")).unwrap();
    fs::write(bench.path("repo/source/00000001/chain/000009/0.pack#7"), vec![0; 1000]).unwrap();
    // Neither is what merely resembles one.
    fs::write(bench.path("repo/log/notes#"), "mine").unwrap();
    let status = bench.run(["status", "--json"]).json();
    assert_eq!(status[0]["unfinished"], serde_json::json!({ "files": 2, "bytes": 1004 }));
    let text = bench.good(["status"]);
    assert!(text.contains("unfinished  2 files, "), "{text}");
}

/// A store that shows an older state, or another repository, is found out by whoever was there before.
#[test]
fn a_repository_that_was_put_back_or_replaced_is_named_until_that_is_accepted() {
    let bench = Bench::new();
    bench.good(["init", "--new-keyfile", "key", "-q"]);
    let run = |words: &[&str]| bench.run(["--keyfile", "key"].iter().chain(words).copied());
    let swap = |from: &str| {
        if bench.path("repo").exists() {
            fs::remove_dir_all(bench.path("repo")).unwrap();
        }
        let copied = std::process::Command::new("cp").arg("-a").arg(bench.path(from)).arg(bench.path("repo")).status();
        assert!(copied.unwrap().success());
    };
    let keep = |to: &str| fs::rename(bench.path("repo"), bench.path(to)).unwrap();
    fs::create_dir(bench.path("tree")).unwrap();
    fs::write(bench.path("tree/file"), "x").unwrap();
    assert_eq!(run(&["capture", "home=tree"]).code, 0);
    keep("old");
    swap("old");
    assert_eq!(run(&["capture", "home=tree"]).code, 0);
    keep("new");

    // Put back: what is there can be read, and nothing is added.
    swap("old");
    let points = run(&["points", "home"]);
    assert!(points.code == 0 && points.err.contains("this host has seen entry 3"), "{points:?}");
    let refused = run(&["capture", "home=tree"]);
    assert!(refused.code == 13 && refused.err.contains("nothing is written behind it"), "{refused:?}");
    assert_eq!(refused.err.matches("WARN").count(), 1, "{refused:?}");
    assert_eq!(run(&["repo", "accept-history"]).code, 0);
    let points = run(&["points", "home"]);
    assert!(points.code == 0 && points.err.is_empty(), "{points:?}");
    assert_eq!(run(&["capture", "home=tree"]).code, 0);

    // Another history from there on: another entry stands under a number that was seen.
    swap("new");
    let points = run(&["points", "home"]);
    assert!(points.code == 0 && points.err.contains("this host has seen another entry here"), "{points:?}");
    let refused = run(&["capture", "home=tree"]);
    assert!(refused.code == 13 && refused.err.contains("accept-history"), "{refused:?}");

    // Another repository, which everybody could read: refused with a key, and without one.
    bench.good(["-r", "other", "init", "--unencrypted", "-q"]);
    swap("other");
    run(&["capture", "home=tree"]).fails(13, "is not the one that this host has used there before");
    bench.run(["capture", "home=tree"]).fails(13, "accept-history");
}
