//! Who gets in, as two users; and mounts by users who are not root.

use crate::processes::{Toy, as_user, eventually, killed_and_gone};
use crate::{skip, sys};

const NOBODY: u32 = 65534;

/// Runs a command line as `user` in the mount; whether it succeeded, and what it said.
fn run(user: u32, script: &str, toy: &Toy) -> (bool, String) {
    let output =
        as_user(user).args(["sh", "-c", &format!("cd {} && {script}", toy.path().display())]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// These tests act as other users, which only root can.
fn as_root() -> bool {
    if !sys::is_root() {
        skip::skipped("needs root, to act as two users; run the tests as root");
        return false;
    }
    // What udev does where it runs.
    std::fs::set_permissions("/dev/fuse", std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    true
}

/// Lets others reach the mountpoint.
fn opened(toy: Toy, options: &str) -> Toy {
    let above = toy.path().parent().unwrap().to_owned();
    std::fs::set_permissions(above, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    toy.mount(options);
    toy
}

#[test]
fn nobody_but_the_mounter_gets_in() {
    if !as_root() {
        return;
    }
    let toy = opened(Toy::unmounted(), "");
    let output = as_user(NOBODY).arg("cat").arg(toy.join("tree/hello")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("Permission denied"), "{text}");
    // The mounter reads everything, whatever the modes say.
    assert!(std::fs::read(toy.join("tree/secret")).is_ok());
}

#[test]
fn with_allow_other_modes_and_acls_decide() {
    if !as_root() {
        return;
    }
    let toy = opened(Toy::unmounted(), "allow_other");
    assert_eq!(run(NOBODY, "cat tree/hello", &toy), (true, "hello\n".to_owned()));
    assert!(!run(NOBODY, "cat tree/secret", &toy).0);
    assert_eq!(run(NOBODY, "cat tree/acl", &toy), (true, "for one user\n".to_owned()));
    assert!(!run(NOBODY - 1, "cat tree/acl", &toy).0);
    assert!(!run(NOBODY, "ls .amberfs", &toy).0);
    assert!(!run(NOBODY, "echo capture home > .amberfs/control", &toy).0);
    assert_eq!(std::fs::read(toy.join(".amberfs/events")).unwrap(), b"");
    std::fs::write(toy.control(), "capture home").unwrap();
}

#[test]
fn with_owner_me_everything_is_the_mounters() {
    if !as_root() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let toy = opened(Toy::unmounted(), "owner=me");
    let hello = toy.join("tree/hello").metadata().unwrap();
    assert_eq!((hello.uid(), hello.gid()), (0, 0));
}

#[test]
fn an_ordinary_user_mounts_commands_and_is_cleared_up_after() {
    if !as_root() {
        return;
    }
    let toy = Toy::of_user(NOBODY);
    toy.mount("");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(toy.path().to_str().unwrap())).unwrap();
    assert!(line.contains("- fuse.amberfs toy,\\040with\\040a\\040comma") && line.contains("nosuid,nodev"), "{line}");
    assert_eq!(run(NOBODY, "cat tree/secret", &toy), (true, "only root\n".to_owned()));
    assert_eq!(
        run(NOBODY, "echo capture home > .amberfs/control && cat .amberfs/control", &toy).1,
        "accepted 1 for 65534\n"
    );
    assert_eq!(run(NOBODY, "stat -c %u .amberfs/control", &toy).1, "65534\n");
    assert!(std::fs::metadata(toy.join("tree")).is_err(), "not even root");
    killed_and_gone(toy.server().unwrap(), || !toy.is_mounted());
    eventually("its processes are gone", || toy.process("supervisor").is_none());

    toy.mount("ro");
    sys::kill(toy.process("supervisor").unwrap(), libc::SIGTERM);
    eventually("unmounted by fusermount3", || !toy.is_mounted());

    toy.mount("");
    assert!(as_user(NOBODY).args(["fusermount3", "-u"]).arg(toy.path()).status().unwrap().success());
    eventually("its processes are gone", || toy.server().is_none() && toy.process("supervisor").is_none());
}

#[test]
fn an_ordinary_user_is_told_what_is_not_his_to_decide() {
    if !as_root() {
        return;
    }
    let toy = Toy::of_user(NOBODY);
    if !std::fs::read_to_string("/etc/fuse.conf").is_ok_and(|text| text.lines().any(|line| line == "user_allow_other"))
    {
        let output = toy.try_mount("allow_other");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("user_allow_other"), "{text}");
    }
    std::os::unix::fs::chown(toy.path(), Some(0), Some(0)).unwrap();
    let output = toy.try_mount("");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("a directory of your own"), "{text}");
    assert!(!toy.is_mounted());
}
