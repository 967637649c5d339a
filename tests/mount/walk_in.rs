//! A source, a repository and its mount by the real command, for tests that compare what users see.
//!
//! Other people's tools are the judges: `rsync`, `tar`, `git`, `getfacl`, `getcap`, and a manifest made
//! by Python's system calls.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::sys;

/// The program under test: `AMBERFS_BIN` where a test of a big tree wants the optimised one.
fn program() -> PathBuf {
    std::env::var_os("AMBERFS_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_amberfs")), PathBuf::from)
}

pub(crate) struct WalkIn {
    dir: tempfile::TempDir,
    repository: OsString,
    environment: Vec<(&'static str, String)>,
}

impl WalkIn {
    pub(crate) fn new() -> WalkIn {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("repository").into();
        WalkIn::made(WalkIn { dir, repository, environment: Vec::new() })
    }

    /// The same with a repository somewhere else, whose store wants this environment.
    pub(crate) fn at(repository: &str, environment: Vec<(&'static str, String)>) -> WalkIn {
        WalkIn::made(WalkIn { dir: tempfile::tempdir().unwrap(), repository: repository.into(), environment })
    }

    /// The same, in single-writer mode.
    pub(crate) fn single_writer_at(repository: &str, environment: Vec<(&'static str, String)>) -> WalkIn {
        let walk_in = WalkIn { dir: tempfile::tempdir().unwrap(), repository: repository.into(), environment };
        WalkIn::made_with(walk_in, &["--single-writer", "init", "--unencrypted"])
    }

    /// The same, encrypted, and opened with a key file.
    pub(crate) fn encrypted_at(repository: &str, environment: Vec<(&'static str, String)>) -> WalkIn {
        let walk_in = WalkIn { dir: tempfile::tempdir().unwrap(), repository: repository.into(), environment };
        let mut made = WalkIn::made_with(walk_in, &["init", "--new-keyfile", "key"]);
        let key = made.path("key").to_str().unwrap().to_owned();
        made.environment.push(("AMBERFS_KEYFILE", key));
        made
    }

    /// The same with an encrypted repository. `ask` is a program that prints its passphrase and leaves a line in `asked`
    /// each time; commands ask it unless they are told otherwise.
    pub(crate) fn encrypted(passphrase: &str) -> WalkIn {
        let dir = tempfile::tempdir().unwrap();
        let ask = dir.path().join("ask");
        let program = format!("#!/bin/sh\necho asked >>{}\necho {passphrase}\n", dir.path().join("asked").display());
        std::fs::write(&ask, program).unwrap();
        std::fs::set_permissions(&ask, std::fs::Permissions::from_mode(0o700)).unwrap();
        let repository = dir.path().join("repository").into();
        let environment = vec![("AMBERFS_PASSWORD_COMMAND", ask.to_str().unwrap().to_owned())];
        WalkIn::made_with(WalkIn { dir, repository, environment }, &["init"])
    }

    fn made(walk_in: WalkIn) -> WalkIn {
        WalkIn::made_with(walk_in, &["init", "--unencrypted"])
    }

    fn made_with(walk_in: WalkIn, init: &[&str]) -> WalkIn {
        for name in ["source", "mnt", "kept"] {
            std::fs::create_dir(walk_in.path(name)).unwrap();
        }
        walk_in.amberfs(init);
        walk_in
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn try_amberfs(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The command, with pipes for what it says.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .current_dir(self.dir.path())
            .env("AMBERFS_REPOSITORY", &self.repository)
            .env("AMBERFS_CONFIG", self.path("config.toml"))
            .env("AMBERFS_STATE_DIR", self.path("state"))
            .env("AMBERFS_CACHE_DIR", self.path("cache"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    #[track_caller]
    pub(crate) fn amberfs(&self, arguments: &[&str]) -> String {
        let output = self.try_amberfs(arguments);
        assert!(output.status.success(), "amberfs {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a script in the directory that holds `source`, `kept` and `mnt`; returns what it says on both outputs.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{script}\n{said}");
        said
    }

    /// Keeps a copy and a manifest of the source, captures it, and returns the point's name.
    #[track_caller]
    pub(crate) fn capture(&self, arguments: &[&str]) -> String {
        let number = std::fs::read_dir(self.path("kept")).unwrap().count();
        self.sh(&format!("cp -a source kept/{number}"));
        let before = self.manifest(&self.path("source"));
        let source = format!("home={}", self.path("source").display());
        self.amberfs(&[&["capture", &source], arguments].concat());
        let points = self.points();
        let name = points.last().unwrap().clone();
        std::fs::write(self.path(&format!("manifest-{name}")), before).unwrap();
        std::fs::rename(self.path(&format!("kept/{number}")), self.path(&format!("kept/{name}"))).unwrap();
        name
    }

    /// Captures `what`, as `capture` takes it, and returns the point's name.
    #[track_caller]
    pub(crate) fn capture_of(&self, what: &[&str], arguments: &[&str]) -> String {
        let said = self.amberfs(&[&["capture", "--json"], what, arguments].concat());
        let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        last["point"].as_str().unwrap().to_owned()
    }

    pub(crate) fn points(&self) -> Vec<String> {
        let listed = self.amberfs(&["points", "--json"]);
        let rows = serde_json::from_str::<serde_json::Value>(&listed).map_or_else(
            |_| listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            |value| value.as_array().cloned().unwrap_or_else(|| vec![value]),
        );
        rows.iter().filter_map(|row| row["name"].as_str().map(str::to_owned)).collect()
    }

    pub(crate) fn mount(&self) {
        self.amberfs(&["mount", "mnt"]);
    }

    pub(crate) fn unmount(&self) {
        self.amberfs(&["umount", "mnt"]);
    }

    pub(crate) fn point(&self, name: &str) -> PathBuf {
        self.path("mnt/home/points").join(name)
    }

    #[track_caller]
    pub(crate) fn manifest(&self, root: &Path) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mount/manifest.py");
        let output = Command::new("python3").arg(script).arg(root).output().unwrap();
        assert!(output.status.success(), "{root:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The point in the mount is what the source was when it was captured, by every judge.
    #[track_caller]
    pub(crate) fn is_as_it_was(&self, name: &str) {
        let expected = std::fs::read_to_string(self.path(&format!("manifest-{name}"))).unwrap();
        let shown = self.manifest(&self.point(name));
        for (expected, shown) in expected.lines().zip(shown.lines()) {
            assert_eq!(expected, shown, "{name}");
        }
        assert_eq!(expected.lines().count(), shown.lines().count(), "{name}");
        let (kept, point) = (format!("kept/{name}"), format!("mnt/home/points/{name}"));
        let differs = "rsync -aHAXn --checksum --itemize-changes --delete";
        assert_eq!(self.sh(&format!("{differs} {kept}/ {point}/")), "", "{name}");
        assert_eq!(self.sh(&format!("{differs} {point}/ {kept}/")), "", "{name}");
        // tar does not keep sockets; it says so.
        let compared = self.sh(&format!("tar -C {kept} -cf - . 2>/dev/null | tar -C {point} --compare -f -"));
        assert_eq!(compared, "", "{name}");
        for judge in ["getcap -r . | sort", "find . -print0 | sort -z | xargs -0 getfacl -P -p -n --", "find . | wc -l"]
        {
            let of = |place: &str| self.sh(&format!("cd {place}; {judge}"));
            assert_eq!(of(&kept), of(&point), "{name}: {judge}");
        }
    }
}

impl Drop for WalkIn {
    fn drop(&mut self) {
        sys::unmount_lazily(&self.path("mnt"));
    }
}
