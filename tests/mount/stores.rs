//! The main job on repositories that are no directory: captures, mounts, orders through the control file, restores,
//! rollbacks and deletions, over a real protocol.
//!
//! Here on moto, an S3 emulator; `.ci/long` does the same on every server that there is, with the Linux source.

use crate::processes::eventually;
use crate::servers::{Server, moto, s3_environment};
use crate::walk_in::WalkIn;
use crate::{skip, sys};

/// A tree with files of every size that matters to packs and parts, and a change to it.
const TREE: &str = r#"
mkdir -p source/sub/deep
for n in $(seq 300); do seq $n >source/sub/$n; done
head -c 20000000 /dev/urandom >source/large
head -c 70000000 /dev/zero | tr '\0' 'x' >source/long
ln source/large source/sub/large; ln -s sub/1 source/link; mkfifo source/fifo; setfattr -n user.a -v b source/sub/7
"#;
const CHANGE: &str =
    "echo more >>source/sub/5; rm source/sub/9; mv source/sub/deep source/sub/deeper; echo new >source/new";

/// All of it on the repository that `walk_in` is at.
fn main_job(walk_in: &WalkIn, fill: &str, change: &str) {
    walk_in.sh(fill);
    let first = walk_in.capture(&["--label", "first"]);
    walk_in.sh(change);
    let second = walk_in.capture(&[]);
    walk_in.mount();
    for name in [&first, &second] {
        walk_in.is_as_it_was(name);
    }
    // A job reaches the repository as its mount does, with the credentials of its mounter's environment.
    walk_in.sh(
        "cp -a source kept/third; echo third >source/third; cp -a source/third kept/third/; touch -r source kept/third",
    );
    walk_in.sh("printf 'capture home\\n' >mnt/.amberfs/control");
    eventually("the point of the job is there", || walk_in.points().len() == 3);
    let third = walk_in.points().pop().unwrap();
    eventually("the mount shows it", || walk_in.path(&format!("mnt/home/points/{third}/third")).exists());
    assert_eq!(walk_in.sh(&format!("rsync -aHAXn --checksum -i --delete kept/third/ mnt/home/points/{third}/")), "");
    walk_in.amberfs(&["verify", "--read-data"]);
    walk_in.amberfs(&["delete", &format!("home@{third}"), "--yes"]);
    eventually("the deleted point is gone", || !walk_in.path(&format!("mnt/home/points/{third}")).exists());
    walk_in.amberfs(&["undelete", &format!("home@{third}")]);
    walk_in.amberfs(&["restore", &format!("home@{first}"), "--to", "restored"]);
    assert_eq!(walk_in.sh(&format!("rsync -aHAXn --checksum -i --delete kept/{first}/ restored/")), "");
    walk_in.amberfs(&["rollback", &format!("home@{second}"), "--yes"]);
    assert_eq!(walk_in.sh(&format!("rsync -aHAXn --checksum -i --delete kept/{second}/ source/")), "");
    walk_in.unmount();
    walk_in.amberfs(&["verify"]);
}

/// Adds the source to the configuration, for the control file.
fn configured(walk_in: &WalkIn) {
    let source = walk_in.path("source");
    std::fs::create_dir_all(&source).unwrap();
    walk_in.amberfs(&["source", "add", "home", source.to_str().unwrap()]);
}

#[test]
fn a_repository_on_s3_goes_through_the_main_job() {
    if !sys::is_root() {
        return skip::skipped("needs root, to keep copies with their owners; run the tests as root");
    }
    let server = moto();
    let url = |place: &str| format!("s3://amber/main/{place}?endpoint={}", server.endpoint());
    let plain = WalkIn::at(&url("plain"), s3_environment(server));
    let encrypted = WalkIn::encrypted_at(&url("encrypted"), s3_environment(server));
    for walk_in in [plain, encrypted] {
        configured(&walk_in);
        main_job(&walk_in, TREE, CHANGE);
    }
}

#[test]
fn what_a_mount_is_told_of_its_store_its_jobs_are_told_too() {
    let server = Server::start("deaf");
    let url = format!("s3://amber/mode?endpoint={}", server.endpoint());
    let keys = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let walk_in = WalkIn::single_writer_at(&url, keys.map(|(name, value)| (name, value.to_owned())).to_vec());
    configured(&walk_in);
    walk_in.sh("echo text >source/file");
    walk_in.amberfs(&["--single-writer", "--no-cache", "--metadata-timeout=20", "--read-timeout=60", "mount", "mnt"]);
    walk_in.sh("printf 'capture home job=n1\\n' >mnt/.amberfs/control");
    eventually("the job has ended", || {
        let state = walk_in.sh("cat mnt/.amberfs/jobs/n1/state");
        assert_ne!(state.trim(), "failed", "{}", walk_in.sh("cat mnt/.amberfs/jobs/n1/log"));
        state.trim() == "committed"
    });
    // A second capture reads what the first has stored.
    walk_in.sh("echo more >>source/file; printf 'capture home job=n2\\n' >mnt/.amberfs/control");
    eventually("the second job has ended", || walk_in.sh("cat mnt/.amberfs/jobs/n2/state").trim() == "committed");
    let blocks = walk_in.path("cache/blocks");
    assert!(!blocks.exists(), "neither the mount nor its jobs keep anything");
    walk_in.sh("echo more >>source/file");
    walk_in.amberfs(&["--single-writer", "capture", &format!("home={}", walk_in.path("source").display())]);
    assert!(blocks.exists(), "whoever is not told so does");
}

/// The main job on a server of longer campaigns, encrypted, with the Linux source where there is one.
fn on_server(name: &str, repository: impl FnOnce(&Server) -> (String, Vec<(&'static str, String)>)) {
    let servers = std::env::var("AMBERFS_SERVERS").unwrap_or_default();
    if !servers.split_whitespace().any(|server| server == name) {
        return skip::untried(&format!("the main job on {name}; .ci/long does, or AMBERFS_SERVERS={name}"));
    }
    if !sys::is_root() {
        return skip::skipped("needs root, to keep copies with their owners; run the tests as root");
    }
    let server = Server::start(name);
    let (url, environment) = repository(&server);
    let walk_in = WalkIn::encrypted_at(&url, environment);
    configured(&walk_in);
    match std::env::var("AMBERFS_LINUX_SOURCE") {
        Ok(tree) => {
            let change =
                "echo more >>source/Makefile; rm source/README; mv source/lib source/library; echo new >source/new";
            main_job(&walk_in, &format!("mkdir -p source; cp -a {tree}/. source/"), change);
        }
        Err(_) => main_job(&walk_in, TREE, CHANGE),
    }
}

#[test]
fn a_repository_on_ceph_goes_through_the_main_job() {
    on_server("radosgw", |server| {
        (format!("s3://amber/main/job?endpoint={}", server.endpoint()), s3_environment(server))
    });
}

#[test]
fn a_repository_on_azurite_goes_through_the_main_job() {
    on_server("azurite", |server| {
        let url = format!("az://amber/main/job?endpoint={}", server.endpoint());
        let keys = [("AZURE_STORAGE_ACCOUNT", &server.words[1]), ("AZURE_STORAGE_KEY", &server.words[2])];
        (url, keys.map(|(name, value)| (name, value.clone())).to_vec())
    });
}

#[test]
fn a_repository_on_hdfs_goes_through_the_main_job() {
    on_server("hdfs", |server| (format!("{}/main/job", server.endpoint()), Vec::new()));
}
