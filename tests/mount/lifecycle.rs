//! The processes of a mount: how it comes, and that it goes whatever happens to them.

use std::fs::File;
use std::process::Output;

use amberfs::fuse::{self, MountError};

use crate::processes::{CANNOT_OPEN, Toy, eventually, killed_and_gone};
use crate::sys;

#[track_caller]
fn refused(output: &Output, code: i32, words: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "{text}");
    assert_eq!(text.lines().count(), 1, "said once: {text}");
}

#[track_caller]
fn all_gone(toy: &Toy) {
    eventually("the mount is gone", || !toy.is_mounted());
    for role in ["server", "supervisor", "successor"] {
        eventually("its processes are gone", || toy.process(role).is_none());
    }
    assert_eq!(std::fs::read_dir(toy.path()).unwrap().count(), 0);
}

#[test]
fn a_signal_to_either_process_unmounts() {
    for (role, signal) in [("server", libc::SIGTERM), ("supervisor", libc::SIGTERM), ("supervisor", libc::SIGINT)] {
        let toy = Toy::mounted("");
        sys::kill(toy.process(role).unwrap(), signal);
        all_gone(&toy);
    }
}

#[test]
fn in_the_foreground_a_signal_ends_with_success() {
    for role in ["server", "command"] {
        let toy = Toy::unmounted();
        let mut supervisor = toy.foreground("");
        sys::kill(toy.process(role).unwrap(), libc::SIGTERM);
        assert_eq!(supervisor.wait().unwrap().code(), Some(0), "signal to {role}");
        all_gone(&toy);
    }
}

#[test]
fn a_signal_unmounts_also_what_is_in_use() {
    let toy = Toy::mounted("");
    let file = File::open(toy.join("tree/hello")).unwrap();
    sys::kill(toy.server().unwrap(), libc::SIGTERM);
    all_gone(&toy);
    drop(file);
}

#[test]
fn a_killed_server_leaves_no_dead_mount() {
    let toy = Toy::mounted("");
    let file = File::open(toy.join("tree/hello")).unwrap();
    killed_and_gone(toy.server().unwrap(), || !toy.is_mounted());
    all_gone(&toy);
    drop(file);

    let toy = Toy::unmounted();
    let mut supervisor = toy.foreground("");
    killed_and_gone(toy.server().unwrap(), || !toy.is_mounted());
    assert_eq!(supervisor.wait().unwrap().code(), Some(1));
    all_gone(&toy);
}

#[test]
fn a_server_killed_while_it_mounts_leaves_nothing_either() {
    for _ in 0..10 {
        let toy = Toy::unmounted();
        let mut command = toy.command("command", "", "bg").stderr(std::process::Stdio::null()).spawn().unwrap();
        eventually("a server", || toy.server().is_some() || toy.is_mounted());
        if let Some(server) = toy.server() {
            sys::kill(server, libc::SIGKILL);
        }
        command.wait().unwrap();
        all_gone(&toy);
    }
}

#[test]
fn a_killed_supervisor_has_a_successor() {
    let toy = Toy::mounted("");
    sys::kill(toy.process("supervisor").unwrap(), libc::SIGKILL);
    eventually("a successor", || toy.process("successor").is_some());
    let first = toy.process("successor").unwrap();
    sys::kill(first, libc::SIGKILL);
    eventually("another", || toy.process("successor").is_some_and(|pid| pid != first));
    assert_eq!(std::fs::read(toy.join("tree/hello")).unwrap(), b"hello\n");
    killed_and_gone(toy.server().unwrap(), || !toy.is_mounted());
    all_gone(&toy);
}

#[test]
fn a_signal_in_the_first_moment_of_a_successor_unmounts() {
    for _ in 0..10 {
        let toy = Toy::mounted("");
        sys::kill(toy.process("supervisor").unwrap(), libc::SIGKILL);
        let mut successor = None;
        eventually("a successor", || {
            successor = toy.process("successor");
            successor.is_some()
        });
        sys::kill(successor.unwrap(), libc::SIGTERM);
        all_gone(&toy);
    }
}

/// Kills both processes so that neither can act on the other's end.
fn dead_mount(toy: &Toy) {
    let (server, supervisor) = (toy.server().unwrap(), toy.process("supervisor").unwrap());
    sys::kill(server, libc::SIGSTOP);
    sys::kill(supervisor, libc::SIGKILL);
    sys::kill(server, libc::SIGKILL);
    eventually("a dead mount", || {
        std::fs::metadata(toy.path()).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    });
}

#[test]
fn a_dead_mount_is_cleared_by_the_next_one_and_by_unmounting() {
    let toy = Toy::mounted("");
    dead_mount(&toy);
    toy.mount("");
    assert_eq!(std::fs::read(toy.join("tree/hello")).unwrap(), b"hello\n");
    dead_mount(&toy);
    fuse::unmount(&toy.path(), false).unwrap();
    all_gone(&toy);
}

#[test]
fn unmounting_waits_for_the_server_and_respects_users() {
    let toy = Toy::mounted("");
    let file = File::open(toy.join("tree/hello")).unwrap();
    assert!(matches!(fuse::unmount(&toy.path(), false), Err(MountError::Busy { .. })));
    assert_eq!(std::fs::read(toy.join("tree/hello")).unwrap(), b"hello\n");
    drop(file);
    let server = toy.server().unwrap();
    fuse::unmount(&toy.path(), false).unwrap();
    assert!(toy.server() != Some(server), "the server has ended when unmounting returns");
    all_gone(&toy);
    assert!(matches!(fuse::unmount(&toy.path(), false), Err(MountError::NotMounted { .. })));

    let toy = Toy::mounted("");
    let mut file = File::open(toy.join("tree/hello")).unwrap();
    fuse::unmount(&toy.path(), true).unwrap();
    assert!(!toy.is_mounted());
    assert_eq!(std::io::read_to_string(&mut file).unwrap(), "hello\n", "who uses it may go on");
    drop(file);
    all_gone(&toy);
}

#[test]
fn failures_reach_the_command_with_their_exit_code() {
    let toy = Toy::unmounted();
    refused(&toy.try_mount("broken"), CANNOT_OPEN, "no repository here");
    all_gone(&toy);
    let output = toy.command("command", "broken", "fg").output().unwrap();
    refused(&output, CANNOT_OPEN, "no repository here");
    refused(&toy.try_mount("alow_other"), 2, "alow_other");
    toy.mount("");
    refused(&toy.try_mount(""), 11, "already");
    assert!(toy.join("tree").exists());
}

#[test]
fn places_that_will_not_do_are_refused() {
    let toy = Toy::unmounted();
    let repository = toy.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    let mount = |options: &str, repository: &std::path::Path| {
        toy.command("command", options, "bg").arg(repository).output().unwrap()
    };
    refused(&mount("", std::path::Path::new("/nowhere")), 1, "not empty");
    refused(&mount("nonempty", &repository), 1, "would hide it");
    refused(&mount("", toy.path().parent().unwrap()), 1, "inside the repository");
    assert!(!toy.is_mounted());
    std::fs::remove_dir(&repository).unwrap();
    std::fs::write(toy.path().join("file"), b"hidden").unwrap();
    toy.mount("nonempty");
    assert!(toy.join("tree").exists() && !toy.join("file").exists());
    fuse::unmount(&toy.path(), false).unwrap();
    std::fs::remove_file(toy.join("file")).unwrap();
    std::fs::remove_dir(toy.path()).unwrap();
    std::fs::write(toy.path(), b"").unwrap();
    refused(&toy.try_mount(""), 1, "not a directory");
}
