//! The README's examples, run as they stand there.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::processes::{Toy, eventually};
use crate::{skip, sys};

/// The blocks of commands, or of `language`, in the README's section `title`.
fn blocks(title: &str, language: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme.split(&format!("\n## {title}\n")).nth(1).expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let begin = format!("\n```{language}\n");
    let blocks = section.split(&begin).skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap().to_owned()).collect()
}

#[test]
fn what_the_readme_says_to_type_works() {
    let place = Toy::unmounted();
    let dir = place.beside("");
    let dir = dir.to_str().unwrap().trim_end_matches('/');
    fs::create_dir_all(format!("{dir}/me/projects/one")).unwrap();
    fs::write(format!("{dir}/me/projects/one/file"), "text\n").unwrap();
    // Its paths, and the only time that a repository of this minute cannot have; a second point for `~1`.
    let script = blocks("Use it", "sh")[0]
        .replace("/srv/backup", &format!("{dir}/repository"))
        .replace("/home/me", &format!("{dir}/me"))
        .replace("/mnt/backups", &format!("{dir}/m"))
        .replace("/tmp/projects", &format!("{dir}/restored"))
        .replace("at/yesterday", "at/now");
    let capture = script.lines().find(|line| line.contains(" capture ")).unwrap();
    let script = script.replacen(capture, &format!("{capture}\n{capture}"), 1);
    let program = Path::new(env!("CARGO_BIN_EXE_amberfs")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let ran = Command::new("bash")
        .args(["-euxc", &script])
        .env("PATH", path)
        .env("AMBERFS_CONFIG", format!("{dir}/config.toml"))
        .env("AMBERFS_STATE_DIR", format!("{dir}/state"))
        .env("AMBERFS_CACHE_DIR", format!("{dir}/cache"))
        .env_remove("AMBERFS_REPOSITORY")
        // Nobody sits at a terminal.
        .env("AMBERFS_PASSWORD", "of the readme")
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for copy in ["restored", "me/projects-as-captured"] {
        assert_eq!(fs::read_to_string(format!("{dir}/{copy}/one/file")).unwrap(), "text\n", "{copy}");
    }
    assert!(!place.is_mounted());
}

/// A file of the system that a test installs.
struct Installed(String);

impl Drop for Installed {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

#[test]
fn what_the_readme_says_to_install_mounts_by_type_and_by_fstab() {
    let built = Path::new(env!("CARGO_BIN_EXE_amberfs")).parent().unwrap();
    if !sys::is_root() || !Command::new("unshare").args(["-m", "true"]).status().unwrap().success() {
        return skip::skipped("needs root, to install and to mount; run the tests as root");
    }
    if !built.join("mount-amberfs").exists() {
        return skip::skipped("mount-amberfs is not built; run the tests of the whole workspace");
    }
    let place = Toy::unmounted();
    let dir = place.beside("");
    let dir = dir.to_str().unwrap().trim_end_matches('/');
    // mount(8) looks for helpers in /sbin alone; a type of this test's own hides no installed one.
    let kind = format!("amberfs-test-readme-{}", std::process::id());
    let _installed = Installed(format!("/sbin/mount.{kind}"));
    let here = |text: &str| {
        text.replace("mount.amberfs", &format!("mount.{kind}"))
            .replace("-t amberfs", &format!("-t {kind}"))
            .replace("  amberfs  ", &format!("  {kind}  "))
            .replace("target/release", built.to_str().unwrap())
            .replace("/srv/backup", &format!("{dir}/repository"))
            .replace("/mnt/backups", &format!("{dir}/m"))
            .replace("/etc/amberfs/config.toml", &format!("{dir}/config.toml"))
            .replace("umount ", &format!("test -e {dir}/m/.amberfs/control; umount "))
    };
    let commands: Vec<String> = blocks("Install", "sh").iter().map(|block| here(block)).collect();
    let [install, mount] = commands.as_slice() else { panic!("{commands:?}") };
    let install: Vec<&str> = install.lines().filter(|line| !line.starts_with("cargo build")).collect();
    fs::write(format!("{dir}/fstab"), here(&blocks("Install", "fstab")[0]) + "\n").unwrap();
    fs::write(format!("{dir}/config.toml"), "").unwrap();
    fs::create_dir(format!("{dir}/bin")).unwrap();
    // In a namespace of mounts, so that nothing is left in /usr/local/bin.
    let script = format!(
        "mount --bind {dir}/bin /usr/local/bin; hash -r\n{}\n\
         /usr/local/bin/amberfs -r {dir}/repository init --unencrypted\n{mount}\n\
         mount -T {dir}/fstab {dir}/m; {}\n",
        install.join("\n"),
        here("umount /mnt/backups")
    );
    let ran = Command::new("unshare")
        .args(["-m", "bash", "-euxc", &script])
        .env("AMBERFS_STATE_DIR", format!("{dir}/state"))
        .env("AMBERFS_CACHE_DIR", format!("{dir}/cache"))
        .env_remove("AMBERFS_REPOSITORY")
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    eventually("the servers have ended", || place.server().is_none());
}
