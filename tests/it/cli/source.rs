//! `amberfs source`, and the configuration file that it writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::bench::{Bench, Ran};

#[test]
fn sources_are_added_listed_and_removed() {
    let bench = Bench::new();
    fs::create_dir(bench.path("photos")).unwrap();
    assert_eq!(bench.good(["source", "list"]), "");
    let added = bench.good(["source", "add", "photos", "photos", "--exclude", "*.raw", "-l", "nightly"]);
    assert!(added.contains("source photos = "), "{added}");
    bench.good(["source", "add", "-q", "etc", "/etc", "--exclude-caches", "--cross-filesystems"]);

    let listed = bench.good(["source", "list"]);
    let photos = bench.path("photos");
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("NAME"), "{listed}");
    assert!(lines[1].contains(photos.to_str().unwrap()) && lines[1].ends_with("1 exclude, %nightly"), "{listed}");
    assert!(lines[2].ends_with("no caches, across filesystems"), "{listed}");

    let json = bench.run(["--json", "source", "list"]).json();
    assert_eq!(json[0]["name"], "photos");
    assert_eq!(json[0]["path"], photos.to_str().unwrap());
    assert_eq!(json[0]["exclude"][0], "*.raw");
    assert_eq!(json[1]["one_file_system"], false);

    let removed = bench.run(["--json", "source", "remove", "photos"]).json();
    assert_eq!((&removed[0]["message_type"], &removed[0]["name"]), (&"source-removed".into(), &"photos".into()));
    assert_eq!(bench.run(["--json", "source", "list"]).json().len(), 1);
    let added = bench.run(["--json", "source", "add", "photos", "photos"]).json();
    assert_eq!((&added[0]["message_type"], &added[0]["name"]), (&"source-added".into(), &"photos".into()));
}

#[test]
fn what_only_the_repository_has_is_listed_and_marked() {
    let bench = Bench::new();
    fs::create_dir(bench.path("photos")).unwrap();
    bench.good(["init", "--unencrypted"]);
    bench.good(["source", "add", "photos", "photos"]);
    bench.good(["capture", "photos"]);
    bench.good(["capture", "adhoc=photos"]);
    let listed = bench.good(["source", "list"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(
        lines[2].starts_with("adhoc ") && lines[2].ends_with("not configured: a tree of the repository"),
        "{listed}"
    );
    let json = bench.run(["--json", "source", "list"]).json();
    assert_eq!((&json[0]["configured"], &json[1]["configured"]), (&true.into(), &false.into()));
    // A repository that cannot be read hides nothing of the configuration.
    fs::write(bench.path("repo/amberfs"), "nonsense").unwrap();
    let ran = bench.run(["source", "list"]);
    assert!(ran.code == 13 && ran.out.contains("photos"), "{ran:?}");
}

#[test]
fn what_cannot_be_configured_is_refused_with_advice() {
    let bench = Bench::new();
    bench.good(["source", "add", "etc", "/etc"]);
    bench.run(["source", "add", "etc", "/usr"]).fails(11, "already configured");
    bench.run(["source", "add", "a/b", "/usr"]).fails(2, "cannot name a source");
    bench.run(["source", "add", "gone", "nowhere"]).fails(2, "is no directory");
    bench.run(["source", "remove", "ect"]).fails(1, "did you mean \"etc\"?");
    let ran = bench.run(["source", "remove", "ect", "--json"]);
    ran.fails(1, "no source \"ect\"");
    assert_eq!(ran.json()[0]["message_type"], "error");
    assert_eq!(ran.json()[0]["class"], "not-found");
}

#[test]
fn a_configuration_that_others_could_have_written_is_not_used() {
    let bench = Bench::new();
    bench.good(["source", "add", "etc", "/etc"]);
    fs::set_permissions(bench.path("config.toml"), fs::Permissions::from_mode(0o666)).unwrap();
    bench.run(["source", "list"]).fails(1, "everybody can write to it").fails(1, "chmod go-w");
}

#[test]
fn the_configuration_can_be_another() {
    let bench = Bench::new();
    bench.good(["--config", "other.toml", "source", "add", "etc", "/etc"]);
    assert!(!bench.path("config.toml").exists());
    assert_eq!(bench.run(["--config", "other.toml", "source", "list", "--json"]).json().len(), 1);
    fs::write(bench.path("other.toml"), "[[source]]\nnmae = \"x\"\n").unwrap();
    bench
        .run(["--config", "other.toml", "source", "list"])
        .fails(2, "line 2: unknown key \"nmae\"; did you mean \"name\"?");
    let nowhere = Ran::of(bench.command(["source", "list"]).env("AMBERFS_CONFIG", "relative").output().unwrap());
    nowhere.fails(2, "AMBERFS_CONFIG is \"relative\": it must be an absolute path");
}
