//! The real command on a real repository: that `amberfs mount` plays its roles as the toy does.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::processes::{Toy, eventually, shell};
use crate::sys;

/// A repository beside a place to mount it.
struct Real {
    toy: Toy,
}

impl Real {
    fn new() -> Real {
        let real = Real { toy: Toy::unmounted() };
        real.succeeds(&["init", "--unencrypted"]);
        real
    }

    fn repository(&self) -> PathBuf {
        self.toy.beside("repository")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amberfs"));
        command
            .env("AMBERFS_CONFIG", self.toy.beside("config.toml"))
            .env("AMBERFS_STATE_DIR", self.toy.beside("state"))
            .env("AMBERFS_CACHE_DIR", self.toy.beside("cache"))
            .env_remove("AMBERFS_REPOSITORY")
            .arg("-r")
            .arg(self.repository())
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn place(&self) -> String {
        self.toy.path().to_str().unwrap().to_owned()
    }

    fn mount(&self) {
        self.succeeds(&["mount", &self.place()]);
    }
}

#[test]
fn a_repository_is_mounted_and_unmounted() {
    let real = Real::new();
    real.mount();
    let status = std::fs::read_to_string(real.toy.join(".amberfs/status.json")).unwrap();
    assert!(status.contains(&format!("file://{}", real.repository().display())), "{status}");
    let (text, code) = shell("bash", "echo 'capture home' > .amberfs/control; cat .amberfs/control", &real.toy);
    assert_eq!(code, 0);
    assert!(text.contains("home"), "{text}");
    let again = real.run(&["mount", &real.place()]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("already"), "{again:?}");
    real.succeeds(&["umount", &real.place()]);
    assert!(!real.toy.is_mounted() && real.toy.server().is_none());
    assert!(!real.run(&["umount", &real.place()]).status.success());
}

#[test]
fn the_processes_of_a_real_mount_clear_up_after_each_other() {
    let real = Real::new();
    real.mount();
    sys::kill(real.toy.process("supervisor").unwrap(), libc::SIGKILL);
    eventually("a successor", || real.toy.process("successor").is_some());
    sys::kill(real.toy.server().unwrap(), libc::SIGKILL);
    eventually("the dead mount is gone", || !real.toy.is_mounted());

    let place = real.place();
    let mut foreground = real.command(&["mount", "--foreground", &place]).spawn().unwrap();
    eventually("the mount answers", || real.toy.control().exists());
    sys::kill(foreground.id(), libc::SIGTERM);
    assert_eq!(foreground.wait().unwrap().code(), Some(0));
    assert!(!real.toy.is_mounted());
}

#[test]
fn a_mount_that_would_harm_the_repository_is_refused() {
    let real = Real::new();
    let inside = real.repository().join("inside");
    std::fs::create_dir(&inside).unwrap();
    for (place, words) in
        [(inside.to_str().unwrap(), "inside the repository"), (real.toy.beside("").to_str().unwrap(), "hide it")]
    {
        let output = real.run(&["mount", "-o", "nonempty", place]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(words), "{text}");
    }
    std::fs::remove_dir_all(real.repository()).unwrap();
    let output = real.run(&["mount", &real.place()]);
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    assert!(!real.toy.is_mounted());
}
