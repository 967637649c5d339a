//! The process of a job: `amberfs capture …` beside the mount, not inside it.
//!
//! A process of its own has its own memory bound, priority and fate: a capture that is killed by
//! the kernel takes no mount with it, and a mount that ends leaves its captures running.
//!
//! Its standard input is an empty file, `running/<job>`, on which we hold a lock (flock(2)). The lock
//! belongs to the open file, which only the process (and what it starts itself) has after the start, so
//! it is held as long as the process lives, whatever becomes of us: the next mount needs to know no more.
//! Descriptors of ours are closed on exec, so no other process can hold it by accident.
//!
//! It leads a process group of its own; when it has ended, whatever it left in that group is killed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;

use super::control::JobId;
use super::error::JobError;
use super::outcome::Exit;
use super::record::Process;
use super::sys;
use crate::base::Bequest;

/// How often a process is asked whether it has ended when it cannot be waited for.
const ASKING: Duration = Duration::from_millis(200);

/// What is run for a job; the request's arguments follow.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Arguments before those of the request.
    pub arguments: Vec<OsString>,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// With what it comes by the key of the repository, before the request's arguments.
    pub keys: Bequest,
}

impl Program {
    /// This very program, on the repository at `repository` and with the configuration in `config`.
    /// Jobs run in `/`, so the repository must not be named by a relative path.
    ///
    /// # Errors
    /// [`JobError::Io`] when the system does not say which program this is, or where.
    pub fn this(repository: impl Into<OsString>, config: &Path) -> Result<Program, JobError> {
        let path = std::env::current_exe().map_err(JobError::io("find the program", Path::new("/proc/self/exe")))?;
        let config = std::path::absolute(config).map_err(JobError::io("find", config))?;
        // After an upgrade the running program has no name any more; the new one has its old name.
        let path = path.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map_or(path.clone(), PathBuf::from);
        let environment = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(passes)).collect();
        let arguments = vec!["-r".into(), repository.into(), "--config".into(), config.into()];
        Ok(Program { path, arguments, environment, keys: Bequest::default() })
    }

    /// The same, with options beside those.
    #[must_use]
    pub fn with_options(mut self, options: Vec<OsString>) -> Program {
        self.arguments.extend(options);
        self
    }

    /// The same, with what the key of the repository comes by.
    #[must_use]
    pub fn with(self, keys: Bequest) -> Program {
        Program { keys, ..self }
    }
}

/// Whether a variable reaches a job: what says where things are, the language and time zone, and what the ecosystems of
/// stores read their credentials and configuration from, without which a job could not reach the repository that its
/// mount shows (docs/stores.md lists them).
fn passes(name: &str) -> bool {
    const NAMES: [&str; 9] =
        ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    const PREFIXES: [&str; 3] = ["AMBERFS_", "XDG_", "LC_"];
    const STORES: [&str; 9] =
        ["AWS_", "AZURE_", "GOOGLE_", "HADOOP_", "KRB5", "ALIBABA_CLOUD_", "OSS_", "TENCENTCLOUD_", "COS_"];
    // Azure's managed identity, and the proxies that every client of HTTP goes by, in either case.
    const MORE: [&str; 8] = [
        "IDENTITY_ENDPOINT",
        "IDENTITY_HEADER",
        "MSI_ENDPOINT",
        "MSI_SECRET",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
    ];
    NAMES.contains(&name)
        || PREFIXES.iter().chain(&STORES).any(|prefix| name.starts_with(prefix))
        || MORE.iter().any(|more| more.eq_ignore_ascii_case(name))
}

/// A process that we started.
#[derive(Debug)]
pub(super) struct Child {
    /// How it is found again.
    pub(super) process: Process,
    /// None once it has been reaped: its number may then be another's.
    unreaped: Mutex<Option<std::process::Child>>,
}

/// Starts the process of `job`.
pub(super) fn start(
    dir: &Path,
    job: &JobId,
    program: &Program,
    arguments: Vec<String>,
    niceness: i32,
) -> Result<(Child, ChildStdout, ChildStderr), JobError> {
    let claim = claim(dir, job)?;
    let mut command = Command::new(&program.path);
    command.args(&program.arguments);
    program.keys.pass_to(&mut command);
    let mut child = command
        .args(arguments)
        .env_clear()
        .envs(program.environment.iter().cloned())
        .current_dir("/")
        .stdin(Stdio::from(claim))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(JobError::io("start", &program.path))?;
    let pid = child.id();
    if niceness > 0
        && let Err(error) = sys::lower_priority(pid, niceness)
    {
        tracing::debug!(pid, %error, "a job keeps its priority");
    }
    let missing = || JobError::io("start", &program.path)(std::io::ErrorKind::BrokenPipe.into());
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let process = Process { pid, ticks: start_ticks(pid).unwrap_or(0) };
    Ok((Child { process, unreaped: Mutex::new(Some(child)) }, stdout, stderr))
}

impl Child {
    /// Sends a signal to the process and all that it started; nothing once it has been reaped.
    pub(super) fn signal(&self, signal: i32) {
        let unreaped = self.unreaped.lock();
        if unreaped.is_some()
            && let Err(error) = sys::signal_group(self.process.pid, signal)
        {
            tracing::warn!(pid = self.process.pid, signal, %error, "cannot signal a job's process");
        }
    }

    /// Waits for its end, ends what it left behind, and reaps it.
    pub(super) fn wait(&self) -> Exit {
        if let Err(error) = sys::await_exit(self.process.pid) {
            tracing::warn!(pid = self.process.pid, %error, "cannot wait for a job's process; asking now and then");
            let is_running =
                || matches!(self.unreaped.lock().as_mut().map(std::process::Child::try_wait), Some(Ok(None)));
            while is_running() {
                std::thread::sleep(ASKING);
            }
        }
        let mut unreaped = self.unreaped.lock();
        let Some(mut child) = unreaped.take() else { return Exit::Unseen };
        // Its number is still its own: it has not been reaped. An empty group is none of our concern.
        drop(sys::signal_group(self.process.pid, libc::SIGKILL));
        match child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unseen,
            },
            Err(_) => Exit::Unseen,
        }
    }
}

/// Signals a process that another mount started; nothing when it is not that process any more.
pub(super) fn signal_stranger(process: Process, signal: i32) {
    if start_ticks(process.pid) == Some(process.ticks)
        && let Err(error) = sys::signal_group(process.pid, signal)
    {
        tracing::warn!(pid = process.pid, signal, %error, "cannot signal a job's process");
    }
}

/// When a process started, as `/proc/<pid>/stat` has it (proc_pid_stat(5), field 22).
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, and may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The locked, empty file that becomes the standard input of a job's process.
fn claim(dir: &Path, job: &JobId) -> Result<File, JobError> {
    let path = path(dir, job);
    let claiming = || JobError::io("claim", &path);
    release(dir, job);
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(claiming())?);
    let file = File::open(&path).map_err(claiming())?;
    file.lock().map_err(claiming())?;
    Ok(file)
}

/// Forgets the file of a job that has ended.
pub(super) fn release(dir: &Path, job: &JobId) {
    match std::fs::remove_file(path(dir, job)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%job, %error, "cannot remove the lock of a job that has ended");
        }
        _ => {}
    }
}

fn path(dir: &Path, job: &JobId) -> PathBuf {
    dir.join("running").join(&job.0)
}

/// Hands every line of `from` to `hear` until its end; of a line longer than `longest`, its beginning.
pub(super) fn each_line(from: impl Read, longest: usize, mut hear: impl FnMut(&str)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        let (used, ended) = match from.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
                let room = longest.saturating_sub(line.len()).min(part.len());
                line.extend_from_slice(part.get(..room).unwrap_or_default());
                (part.len() + usize::from(end.is_some()), end.is_some())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        from.consume(used);
        if ended {
            hear(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    if !line.is_empty() {
        hear(&String::from_utf8_lossy(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_bounded_and_never_lost() {
        let mut heard = Vec::new();
        let long = "x".repeat(20_000);
        let text = format!("a\n\nü\n{long}\nlast");
        each_line(text.as_bytes(), 10, |line| heard.push(line.to_owned()));
        assert_eq!(heard, ["a", "", "ü", "xxxxxxxxxx", "last"]);
        heard.clear();
        each_line(&b"\xff\n"[..], 10, |line| heard.push(line.to_owned()));
        assert_eq!(heard, ["\u{fffd}"]);
    }

    #[test]
    fn the_lock_of_a_job_is_held_for_as_long_as_its_process_lives() {
        use super::super::journal::is_running;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("running")).unwrap();
        let job = JobId("j".into());
        let program = Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".into()],
            environment: vec![],
            keys: Bequest::default(),
        };
        assert!(!is_running(dir.path(), &job));
        let arguments = vec!["echo ready; sleep 600".to_owned()];
        let (child, stdout, _stderr) = start(dir.path(), &job, &program, arguments, 5).unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        assert!(is_running(dir.path(), &job));
        assert_eq!(start_ticks(child.process.pid), Some(child.process.ticks));
        // Another process with that number is not touched.
        signal_stranger(Process { ticks: child.process.ticks + 1, ..child.process }, libc::SIGKILL);
        assert!(is_running(dir.path(), &job));
        child.signal(libc::SIGTERM);
        assert_eq!(child.wait(), Exit::Signal(libc::SIGTERM));
        // `sleep` holds it for as long as the kernel takes to end it, as would a process that another
        // test is about to start.
        while is_running(dir.path(), &job) {
            std::thread::yield_now();
        }
        child.signal(libc::SIGKILL);
        assert_eq!(child.wait(), Exit::Unseen);
    }

    #[test]
    fn secrets_of_the_mounter_do_not_reach_a_job_by_accident() {
        for (name, passed) in [
            ("PATH", true),
            ("AMBERFS_CONFIG", true),
            ("LC_ALL", true),
            ("SSH_AUTH_SOCK", false),
            ("LD_PRELOAD", false),
            ("AWS_SECRET_ACCESS_KEY", true),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", true),
            ("AZURE_STORAGE_CONNECTION_STRING", true),
            ("GOOGLE_APPLICATION_CREDENTIALS", true),
            ("HADOOP_CONF_DIR", true),
            ("KRB5CCNAME", true),
            ("https_proxy", true),
            ("NO_PROXY", true),
            ("PGPASSWORD", false),
        ] {
            assert_eq!(passes(name), passed, "{name}");
        }
    }
}
