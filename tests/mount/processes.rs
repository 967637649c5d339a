//! Toy mounts as processes: this binary plays command, supervisor and server, as `amberfs mount` does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amberfs::base::Class;
use amberfs::fuse::{self, Contents, Failed, Launch, Role};

use crate::sys;
use crate::toy::{ToyControl, ToyTree};

/// When this is set, the binary is a process of a mount and no test.
pub(crate) const AS_MOUNT: &str = "AMBERFS_TOY_MOUNT";
/// Exit code of a mount that fails because what it shows cannot be opened.
pub(crate) const CANNOT_OPEN: i32 = 10;

/// Arguments: role, mountpoint, options (or `broken`), `fg` or `bg`, directory of a repository or nothing.
pub(crate) fn play() -> i32 {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let text = |at: usize| arguments.get(at).and_then(|a| a.to_str()).unwrap_or_default().to_owned();
    let (role, options, broken) = (text(0), text(2), text(2) == "broken");
    let code = |class| if class == Class::Conflict { 11 } else { 1 };
    let outcome = role.parse::<Role>().map_err(|e| e.to_string()).and_then(|role| {
        let mut parsed = fuse::MountOptions { source: "toy, with a comma".to_owned(), ..Default::default() };
        parsed.apply(if broken { "" } else { &options }).map_err(|e| e.to_string())?;
        let again = |place: &Path, role: Role| {
            let mut again = arguments.clone();
            again[0] = role.to_string().into();
            again[1] = place.into();
            again
        };
        Ok(Launch {
            role,
            mountpoint: PathBuf::from(arguments.get(1).cloned().unwrap_or_default()),
            repository: Some(text(4)).filter(|r| !r.is_empty()).map(PathBuf::from),
            options: parsed,
            foreground: text(3) == "fg",
            log: None,
            arguments: &again,
            heirloom: None,
        })
        .map(|launch| fuse::mount(&launch, || open(broken), code))
    });
    match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(Failed { code, message, .. })) => {
            if !message.is_empty() {
                eprintln!("toy: {message}");
            }
            i32::from(code)
        }
        Err(message) => {
            eprintln!("toy: {message}");
            2
        }
    }
}

fn open(broken: bool) -> Result<Contents, Failed> {
    if broken {
        return Err(Failed { code: CANNOT_OPEN as u8, message: "no repository here".to_owned(), advice: None });
    }
    Ok(Contents { namespace: Arc::new(ToyTree::new()), control: Some(Arc::new(ToyControl::new())) })
}

/// A directory for a mount; unmounted and removed in the end, whatever the test did.
pub(crate) struct Toy {
    dir: tempfile::TempDir,
    user: Option<u32>,
}

impl Toy {
    /// A place without a mount.
    pub(crate) fn unmounted() -> Toy {
        assert!(
            Path::new("/dev/fuse").exists(),
            "no /dev/fuse: these tests need a kernel with FUSE; `modprobe fuse`, or allow the device in this container"
        );
        let dir = tempfile::Builder::new().prefix("amberfs-mount-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("m")).unwrap();
        Toy { dir, user: None }
    }

    /// A mount by this user, in the background.
    pub(crate) fn mounted(options: &str) -> Toy {
        let toy = Toy::unmounted();
        toy.mount(options);
        toy
    }

    /// A place of `user`, without a mount.
    pub(crate) fn of_user(user: u32) -> Toy {
        let mut toy = Toy::unmounted();
        toy.user = Some(user);
        for path in [toy.dir.path().to_owned(), toy.path()] {
            std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
        }
        toy
    }

    pub(crate) fn mount(&self, options: &str) {
        let output = self.try_mount(options);
        assert!(output.status.success(), "{output:?}");
    }

    pub(crate) fn try_mount(&self, options: &str) -> Output {
        self.command("command", options, "bg").output().unwrap()
    }

    /// A mount whose supervisor is a child of the test.
    pub(crate) fn foreground(&self, options: &str) -> Child {
        let child = self.command("command", options, "fg").stdout(Stdio::null()).spawn().unwrap();
        eventually("the mount answers", || self.join("tree").exists());
        child
    }

    pub(crate) fn command(&self, role: &str, options: &str, ground: &str) -> Command {
        let this = std::env::current_exe().unwrap();
        let mut command = match self.user {
            None => Command::new(this),
            Some(user) => {
                // The build directory may be closed to others.
                let copy = self.dir.path().join("toy");
                if !copy.exists() {
                    crate::program::copy_program(&this, &copy);
                }
                let mut command = as_user(user);
                command.arg(copy);
                command
            }
        };
        command.env(AS_MOUNT, "1").arg(role).arg(self.path()).args([options, ground]);
        command
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("m")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.join(".amberfs/control")
    }

    /// The process that serves the mount.
    pub(crate) fn server(&self) -> Option<u32> {
        self.process("server")
    }

    /// The process of this mount in `role`.
    pub(crate) fn process(&self, role: &str) -> Option<u32> {
        let place = self.path();
        std::fs::read_dir("/proc").unwrap().find_map(|entry| {
            let pid = entry.unwrap().file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let arguments: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            let of_place = arguments.contains(&place.as_os_str().as_encoded_bytes());
            let role =
                |argument: &&[u8]| argument.strip_prefix(b"--role=").unwrap_or(argument).starts_with(role.as_bytes());
            (of_place && arguments.iter().any(role) && !zombie(pid)).then_some(pid)
        })
    }

    /// Whether anything is mounted there, by the table of mounts.
    pub(crate) fn is_mounted(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().any(|line| line.split(' ').nth(4) == self.path().to_str())
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        for _ in 0..4 {
            if self.is_mounted() && fuse::unmount(&self.path(), true).is_err() {
                sys::unmount_lazily(&self.path());
            }
        }
        for role in ["server", "supervisor", "successor"] {
            if let Some(pid) = self.process(role) {
                sys::end(pid);
            }
        }
    }
}

fn zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// A command that runs as another user without groups; its program is the first argument.
pub(crate) fn as_user(user: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}")]).args(["--clear-groups", "--"]);
    command
}

/// Waits for other processes, which give no sign of their own.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < patience, "never: {what}");
        std::thread::yield_now();
    }
}

/// Kills a server; `gone` must hold of its mount within the two seconds that are promised.
#[track_caller]
pub(crate) fn killed_and_gone(server: u32, gone: impl FnMut() -> bool) {
    let since = Instant::now();
    sys::kill(server, libc::SIGKILL);
    eventually("the dead mount is gone", gone);
    let took = since.elapsed();
    assert!(took < Duration::from_secs(2), "a dead mount for {took:?}");
}

/// Runs a script; its output and exit code.
pub(crate) fn shell(program: &str, script: &str, mount: &Toy) -> (String, i32) {
    let output = Command::new(program)
        .args(["-c", script])
        .env("LC_ALL", "C")
        .env("TZ", "UTC0")
        .current_dir(mount.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.code().unwrap_or(-1))
}
