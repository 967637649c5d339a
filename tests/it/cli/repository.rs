//! `init` and the commands on an empty repository, or where there is none.

use std::fs;

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
