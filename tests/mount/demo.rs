//! `amberfs demo`: what a newcomer runs first.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::program::copy_program;
use crate::sys;

/// Runs the demo with its files below `dir`.
fn demo(dir: &Path, program: &Path, before: &[&str], arguments: &[&str]) -> Output {
    let mut words = before.iter().map(|word| (*word).into()).chain([program.as_os_str().to_owned()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg("demo").args(arguments).env("TMPDIR", dir).env("HOME", dir).current_dir(dir);
    // As who follows the README has it for his own repository.
    command.env("AMBERFS_KEYFILE", dir.join("backup.key"));
    if sys::is_root() && !before.is_empty() {
        command.uid(65534).gid(65534);
    }
    command.output().unwrap()
}

fn tree(dir: &Path) -> String {
    for name in ["tree/a", "tree/b", "tree/c"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
        std::fs::write(dir.join(name).join("file"), format!("text of {name}\n")).unwrap();
    }
    dir.join("tree").to_str().unwrap().to_owned()
}

#[test]
fn the_demo_shows_the_main_job_and_leaves_nothing_behind_when_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    let program = Path::new(env!("CARGO_BIN_EXE_amberfs"));
    let ran = demo(dir.path(), program, &[], &["--remove", "--tree", &tree]);
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    for wanted in [
        "3 files",
        "full: first capture of this source",
        "renamed b to renamed-by-the-demo",
        "incremental",
        "text of tree/c",
        "- c/file",
        "+ amberfs-demo.txt",
        "committed",
        "How to go on",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(left, ["tree"]);
}

#[test]
fn without_a_way_to_mount_the_demo_says_what_is_missing_and_shows_the_past_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    let program = dir.path().join("amberfs");
    copy_program(Path::new(env!("CARGO_BIN_EXE_amberfs")), &program);
    if sys::is_root() {
        std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    }
    // The helper that mounts for users is setuid; without new privileges it cannot.
    let ran = demo(dir.path(), &program, &["setpriv", "--no-new-privs"], &["--remove", "--tree", &tree]);
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    for wanted in ["nothing can be mounted here", "/dev/fuse", "text of tree/c", "How to go on"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}
