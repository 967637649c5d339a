//! A place to run `amberfs` in: its own home, configuration, state and repository, and nothing of this machine's.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::program::copy_program;

/// A temporary home.
pub(super) struct Bench {
    directory: tempfile::TempDir,
}

/// What a run of the command gave.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench { directory: tempfile::tempdir().unwrap() }
    }

    /// A path below the temporary home.
    pub(super) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command, not yet run. Everything that it could take from the environment is set or removed.
    pub(super) fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amberfs"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.directory.path())
            .env("TZ", "UTC")
            .env("AMBERFS_CONFIG", self.path("config.toml"))
            .env("AMBERFS_STATE_DIR", self.path("state"))
            .env("AMBERFS_CACHE_DIR", self.path("cache"))
            .env("AMBERFS_REPOSITORY", self.path("repo"))
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// The command for a user whom permissions concern: root becomes nobody, who is given everything here.
    pub(super) fn unprivileged<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        const NOBODY: u32 = 65534;
        let command = self.command(arguments);
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            return command;
        }
        // The build's directories may be root's alone.
        let program = self.path("amberfs");
        if !program.exists() {
            copy_program(Path::new(env!("CARGO_BIN_EXE_amberfs")), &program);
        }
        give(self.directory.path(), NOBODY);
        let mut nobody = Command::new(program);
        nobody.args(command.get_args()).env_clear().current_dir(self.directory.path()).stdin(Stdio::null());
        nobody.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        nobody.uid(NOBODY).gid(NOBODY);
        nobody
    }

    /// Runs it to its end.
    pub(super) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Runs it to its good end and gives what it printed.
    pub(super) fn good<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        ran.out
    }
}

impl Ran {
    pub(super) fn of(output: Output) -> Ran {
        Ran {
            code: output.status.code().expect("not killed by a signal"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The lines of standard output as JSON.
    pub(super) fn json(&self) -> Vec<Value> {
        json_lines(&self.out)
    }

    /// Asserts the exit code, and that the message is `amberfs: …` on one line with `text` in it, perhaps with a hint.
    #[track_caller]
    pub(super) fn fails(&self, code: i32, text: &str) -> &Ran {
        assert_eq!(self.code, code, "{self:?}");
        let lines: Vec<&str> = self.err.lines().collect();
        assert!(lines.len() <= 2 && lines.iter().skip(1).all(|line| line.starts_with("hint: ")), "{self:?}");
        assert!(self.err.starts_with("amberfs: ") && self.err.contains(text), "{self:?}");
        self
    }
}

/// Each line as JSON.
pub(super) fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Makes `user` the owner of `path` and all below it.
fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for item in fs::read_dir(path).unwrap() {
            give(&item.unwrap().path(), user);
        }
    }
}
