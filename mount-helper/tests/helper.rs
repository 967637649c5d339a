//! The helper as mount(8) calls it. `amberfs` is a script here that notes how it was called and mounts
//! an empty filesystem, so that mount(8) and umount(8) act on something.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/support/program.rs"]
mod program;
#[path = "../../tests/support/skip.rs"]
mod skip;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Reports what is in its way: arguments go to `calls`, and the exit code is what `code` says.
const AMBERFS: &str = "#!/bin/sh\nhere=$(dirname \"$0\")\necho \"$@\" >> \"$here/calls\"\nenv > \"$here/environment\"\n\
    [ -f \"$here/code\" ] && exit \"$(cat \"$here/code\")\"\nfor last; do :; done\nexec mount -t tmpfs amberfs \"$last\"\n";

struct Bench {
    dir: PathBuf,
    /// The type under which mount(8) finds this bench's helper.
    kind: String,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let kind = format!("amberfs-test-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(&kind);
        std::fs::create_dir_all(dir.join("m")).unwrap();
        program::copy_program(Path::new(env!("CARGO_BIN_EXE_mount-amberfs")), &dir.join("mount.amberfs"));
        std::fs::write(dir.join("amberfs.sh"), AMBERFS).unwrap();
        program::copy_program(&dir.join("amberfs.sh"), &dir.join("amberfs"));
        Bench { dir, kind }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn helper(&self, arguments: &[&str]) -> Output {
        Command::new(self.path("mount.amberfs")).args(arguments).output().unwrap()
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    /// Lets mount(8) find the helper, which looks for it in /sbin alone.
    fn install(&self) -> bool {
        let may = std::os::unix::fs::symlink(self.path("mount.amberfs"), self.installed());
        if may.is_err() {
            skip::skipped("needs root, to put a helper into /sbin and to mount; run the tests as root");
        }
        may.is_ok()
    }

    fn installed(&self) -> PathBuf {
        Path::new("/sbin").join(format!("mount.{}", self.kind))
    }

    fn mounted(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.contains(&format!(" {} ", self.path("m").display()))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.mounted() {
            let _unmounted = Command::new("umount").arg(self.path("m")).status();
        }
        let _was_there = std::fs::remove_file(self.installed());
        let _was_there = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn mount_and_umount_by_type() {
    let bench = Bench::new("type");
    if !bench.install() {
        return;
    }
    let mount = Command::new("mount")
        .args(["-t", &bench.kind, "/srv/my repo"])
        .arg(bench.path("m"))
        .args(["-o", "ro,nofail,owner=me"])
        .output()
        .unwrap();
    assert!(mount.status.success(), "{mount:?}");
    assert!(bench.mounted());
    let directory = bench.path("m");
    assert_eq!(bench.calls(), format!("--repository=/srv/my repo mount -oro,owner=me -- {}\n", directory.display()));
    assert!(Command::new("umount").arg(directory).status().unwrap().success());
    assert!(!bench.mounted());
}

#[test]
fn a_line_in_fstab() {
    let bench = Bench::new("fstab");
    if !bench.install() {
        return;
    }
    let directory = bench.path("m");
    let line = format!(
        "/srv/my\\040repo {} {} noauto,user,_netdev,x-systemd.automount,ro,allow_other 0 0\n",
        directory.display(),
        bench.kind
    );
    std::fs::write(bench.path("fstab"), line).unwrap();
    let mount = Command::new("mount").arg("-T").arg(bench.path("fstab")).arg(&directory).output().unwrap();
    assert!(mount.status.success(), "{mount:?}");
    let calls = bench.calls();
    assert!(calls.starts_with("--repository=/srv/my repo mount -o"), "{calls}");
    // A line that users may mount implies more; what matters here is all there is left.
    let options = calls.split(" mount -o").nth(1).unwrap().split(" -- ").next().unwrap();
    let mut options: Vec<&str> = options.split(',').collect();
    options.sort_unstable();
    assert_eq!(options, ["allow_other", "nodev", "noexec", "nosuid", "ro"], "{calls}");
}

#[test]
fn a_failure_is_a_mount_failure() {
    let bench = Bench::new("failure");
    for (code, expected) in [("0", 0), ("2", 1), ("1", 32), ("10", 32)] {
        std::fs::write(bench.path("code"), code).unwrap();
        assert_eq!(bench.helper(&["/srv/repo", "/mnt"]).status.code(), Some(expected), "for {code}");
    }
    let usage = bench.helper(&["/srv/repo"]);
    assert_eq!(usage.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&usage.stderr).contains("usage: mount.amberfs"));
}

#[test]
fn a_fake_mount_says_what_it_would_do() {
    let bench = Bench::new("fake");
    let output = bench.helper(&["/srv/repo", "/mnt", "-fv", "-o", "ro"]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--repository=/srv/repo") && text.contains("-oro"), "{text}");
    assert_eq!(bench.calls(), "");
}

#[test]
fn a_setuid_helper_gives_its_privileges_up() {
    let bench = Bench::new("setuid");
    let helper = bench.path("mount.amberfs");
    if std::os::unix::fs::chown(&helper, Some(0), Some(0)).is_err() {
        skip::skipped("needs root, to make a setuid file; run the tests as root");
        return;
    }
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::set_permissions(&bench.dir, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(bench.path("amberfs.sh"), "#!/bin/sh\nid -u > \"${0%/*}/user\"\nenv > \"${0%/*}/environment\"\n")
        .unwrap();
    program::copy_program(&bench.path("amberfs.sh"), &bench.path("amberfs"));
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&helper)
        .args(["/srv/repo", "/mnt"])
        .env("SECRET", "of the caller")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_to_string(bench.path("user")).unwrap(), "65534\n");
    assert!(!std::fs::read_to_string(bench.path("environment")).unwrap().contains("SECRET"));
}
