//! Captures asked for through the control file of a real mount, carried out by the real program.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::processes::{eventually, killed_and_gone};
use crate::sys;

/// A repository, a configured source `home`, and a mount; unmounted and removed in the end.
struct Live {
    dir: tempfile::TempDir,
}

impl Live {
    /// A mount whose source holds `files` files.
    fn mounted(files: usize) -> Live {
        let live = Live { dir: tempfile::Builder::new().prefix("amberfs-jobs-").tempdir().unwrap() };
        let source = live.path("src");
        std::fs::create_dir(&source).unwrap();
        for file in 0..files {
            let dir = source.join(format!("d{}", file / 100));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(format!("f{file}")), format!("content of {file}\n").repeat(50)).unwrap();
        }
        std::fs::write(source.join("a"), "hello\n").unwrap();
        std::fs::create_dir(live.path("m")).unwrap();
        live.done(&["init", "--unencrypted"]);
        live.done(&["source", "add", "home", source.to_str().unwrap()]);
        live.mount();
        live
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_amberfs"))
            .args(arguments)
            .env("AMBERFS_REPOSITORY", self.path("repo"))
            .env("AMBERFS_CONFIG", self.path("config.toml"))
            .env("AMBERFS_STATE_DIR", self.path("state"))
            .env("AMBERFS_CACHE_DIR", self.path("cache"))
            .output()
            .unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn mount(&self) {
        self.done(&["mount", self.path("m").to_str().unwrap()]);
    }

    fn unmount(&self) {
        self.done(&["umount", self.path("m").to_str().unwrap()]);
    }

    /// Runs a script in the mount; its output and exit code.
    fn shell(&self, program: &str, script: &str) -> (String, i32) {
        let output =
            Command::new(program).args(["-c", script]).env("LC_ALL", "C").current_dir(self.path("m")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.code().unwrap_or(-1))
    }

    fn file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path("m").join(path)).ok()
    }

    fn state(&self, job: &str) -> String {
        self.file(&format!(".amberfs/jobs/{job}/state")).unwrap_or_default().trim().to_owned()
    }

    /// Waits for a job's end; which it is.
    fn end_of(&self, job: &str) -> String {
        let ends = ["committed", "partial", "failed", "cancelled", "timed-out", "verified"];
        eventually("the job has ended", || ends.contains(&self.state(job).as_str()));
        self.state(job)
    }

    fn committed(&self, job: &str) -> String {
        let end = self.end_of(job);
        let told = |file: &str| self.file(&format!(".amberfs/jobs/{job}/{file}")).unwrap_or_default();
        assert_eq!(end, "committed", "{}{}", told("error"), told("log"));
        told("result").trim().to_owned()
    }

    fn points(&self) -> usize {
        match std::fs::read_dir(self.path("m/home/points")) {
            Ok(names) => names.count(),
            Err(error) => {
                // Before its first capture a configured source is not in the repository.
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                0
            }
        }
    }

    /// The process that serves the mount, as `status.json` names it.
    fn server(&self) -> u32 {
        let status: serde_json::Value = serde_json::from_str(&self.file(".amberfs/status.json").unwrap()).unwrap();
        u32::try_from(status["pid"].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mount = self.path("m");
        let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        if mounted.lines().any(|line| line.split(' ').nth(4) == mount.to_str()) {
            drop(self.run(&["umount", "--lazy", mount.to_str().unwrap()]));
        }
    }
}

#[test]
fn a_point_is_in_the_mount_when_its_job_says_committed() {
    let live = Live::mounted(10);
    for (n, (program, script)) in [
        ("bash", "echo 'capture home label=one job=bash' > .amberfs/control"),
        ("dash", "printf 'capture home job=dash' > .amberfs/control"),
        ("bash", "echo 'capture home job=tee' | tee .amberfs/control > /dev/null"),
        ("bash", "python3 -c 'open(\".amberfs/control\", \"w\").write(\"capture home job=python\")'"),
        ("bash", "exec 3<>.amberfs/control; echo 'capture home job=both' >&3; cat <&3 > /dev/null"),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(live.path("src/a"), format!("version {n}\n")).unwrap();
        assert_eq!(live.shell(program, script), (String::new(), 0), "{script}");
        let job = ["bash", "dash", "tee", "python", "both"][n];
        let point = live.committed(job);
        assert_eq!(live.file("home/latest/a"), Some(format!("version {n}\n")));
        assert_eq!(live.file(&format!("home/points/{point}/a")), Some(format!("version {n}\n")));
        assert_eq!(live.points(), n + 1);
    }
    assert_eq!(live.file("home/labels/one/a").as_deref(), Some("version 0\n"));
    let (listed, _) = live.shell("bash", "ls .amberfs/jobs | sort | tr '\\n' ' '");
    assert_eq!(listed, "bash both dash python tee ");
    // The point itself names its job.
    assert!(live.done(&["jobs"]).contains("capture home label=one"));
}

#[test]
fn refusals_reach_the_shell_and_their_words_the_reader() {
    let live = Live::mounted(0);
    let (text, code) = live.shell("bash", "echo 'capture hom' > .amberfs/control");
    assert!(code == 1 && text.contains("No such file or directory"), "{text}");
    let (text, _) = live.shell("bash", "cat .amberfs/control");
    assert_eq!(text, "err ENOENT line 1: no source \"hom\" in the configuration; did you mean \"home\"?\n");
    // A source that is configured while the mount runs is known at once.
    std::fs::create_dir(live.path("hom")).unwrap();
    live.done(&["source", "add", "hom", live.path("hom").to_str().unwrap()]);
    let (text, code) = live.shell("bash", "echo 'capture hom job=h' > .amberfs/control");
    assert_eq!((text.as_str(), code), ("", 0));
    live.committed("h");
    assert!(live.path("m/hom/latest/.").is_dir());
    let output = live.run(&["ctl", live.path("m").to_str().unwrap(), "cancel nothing"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        live.done(&["ctl", live.path("m").to_str().unwrap(), "cancel", "h"]),
        "ok cancel h (ended already: committed)\n"
    );
}

/// Makes a directory read-only for whoever runs the tests, until it is dropped.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn made(path: PathBuf) -> ReadOnly {
        if sys::is_root() {
            // Modes do not bind root.
            ReadOnly::mount(&["--bind".as_ref(), path.as_os_str(), path.as_os_str()]);
            ReadOnly::mount(&["-o".as_ref(), "remount,bind,ro".as_ref(), path.as_os_str()]);
        } else {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o500)).unwrap();
        }
        ReadOnly(path)
    }

    fn mount(arguments: &[&std::ffi::OsStr]) {
        assert!(Command::new("mount").args(arguments).status().unwrap().success());
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        if sys::is_root() {
            sys::unmount_lazily(&self.0);
        } else {
            std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
}

#[test]
fn a_repository_that_cannot_be_written_takes_no_captures_until_it_can() {
    let live = Live::mounted(0);
    let read_only = || {
        let status: serde_json::Value = serde_json::from_str(&live.file(".amberfs/status.json").unwrap()).unwrap();
        status["read_only"].as_bool().unwrap()
    };
    let repository = ReadOnly::made(live.path("repo"));
    let (text, code) = live.shell("bash", "echo 'capture home job=n' > .amberfs/control");
    assert!(code == 1 && text.contains("Read-only file system"), "{text}");
    let (text, _) = live.shell("bash", "cat .amberfs/control");
    assert!(text.starts_with("err EROFS line 1: the repository cannot be written: "), "{text}");
    assert!(read_only() && live.state("n").is_empty());
    // It is read all the same.
    live.unmount();
    live.mount();
    assert!(read_only());
    assert_eq!(live.shell("bash", "echo 'verify job=v' > .amberfs/control"), (String::new(), 0));
    assert_eq!(live.end_of("v"), "verified");
    drop(repository);
    assert!(!read_only());
    assert_eq!(live.shell("bash", "echo 'capture home job=n' > .amberfs/control"), (String::new(), 0));
    live.committed("n");
}

#[test]
fn what_is_lost_with_a_mount_is_found_by_the_next_one() {
    let live = Live::mounted(3000);
    live.shell("bash", "echo 'capture home job=n' > .amberfs/control");
    eventually("it has begun", || !["", "queued"].contains(&live.state("n").as_str()));
    killed_and_gone(live.server(), || std::fs::read_dir(live.path("m")).is_ok_and(|mut names| names.next().is_none()));
    live.mount();
    let point = live.committed("n");
    assert_eq!(live.points(), 1);
    assert_eq!(live.file(&format!("home/points/{point}/a")).as_deref(), Some("hello\n"));
    // The same command again is the same job.
    assert_eq!(live.shell("bash", "echo 'capture home job=n' > .amberfs/control"), (String::new(), 0));
    assert_eq!(live.points(), 1);
    live.unmount();
    live.mount();
    assert_eq!(live.committed("n"), point);
}

#[test]
fn a_cancelled_capture_leaves_nothing_visible() {
    let live = Live::mounted(3000);
    live.shell("bash", "echo 'capture home job=n' > .amberfs/control");
    eventually("it has begun", || !["", "queued"].contains(&live.state("n").as_str()));
    assert_eq!(live.shell("bash", "echo 'cancel n' > .amberfs/control"), (String::new(), 0));
    // It may have been faster; then its point is there.
    let expected = usize::from(live.end_of("n") == "committed");
    assert_eq!(live.points(), expected);
    live.shell("bash", "echo 'capture home job=m' > .amberfs/control");
    live.committed("m");
    assert_eq!(live.points(), expected + 1);
}
