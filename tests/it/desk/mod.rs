//! The desk with processes that are shell scripts: what is accepted, what runs, what survives.
//!
//! A script waits for the test by reading from a FIFO, so nothing here depends on how fast anything is.

mod commands;
mod process;
mod restart;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amberfs::base::Env;
use amberfs::format::ids::RepoId;
use amberfs::job::control::{Caller, Control, DeskFile, JobFile, JobId, Reason};
use amberfs::job::request::Request;
use amberfs::job::witness::{Witness, job_of};
use amberfs::job::{Desk, DeskOptions, Program, Site, Testimony};
use parking_lot::Mutex;

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1 };
const OWNER: Caller = Caller { uid: 1000, gid: 1000, pid: 2 };
const STRANGER: Caller = Caller { uid: 1001, gid: 1001, pid: 3 };

/// The surroundings: the sources that are configured, and what the sources' logs hold.
#[derive(Default)]
struct TestSite {
    trouble: Mutex<Option<String>>,
    read_only: Mutex<Option<String>>,
    points: Mutex<HashMap<String, Testimony>>,
    refreshed: Mutex<Vec<String>>,
    /// Why nothing may be deleted.
    judgement: Mutex<Option<(Reason, String)>>,
}

impl Site for TestSite {
    fn sources(&self) -> Result<Vec<String>, String> {
        match self.trouble.lock().clone() {
            Some(trouble) => Err(trouble),
            None => Ok(["home", "etc", "photos"]
                .map(str::to_owned)
                .into_iter()
                .chain((0..300).map(|n| format!("s{n}")))
                .collect()),
        }
    }

    fn read_only(&self) -> Option<String> {
        self.read_only.lock().clone()
    }

    fn testimony(&self, _source: &str, job: &Witness) -> Result<Option<Testimony>, String> {
        match self.trouble.lock().clone() {
            Some(trouble) => Err(trouble),
            None => Ok(self.points.lock().get(job.job()).cloned()),
        }
    }

    fn judge(&self, _request: &Request) -> Result<(), (Reason, String)> {
        self.judgement.lock().clone().map_or(Ok(()), Err)
    }

    fn committed(&self, source: &str) {
        self.refreshed.lock().push(source.to_owned());
    }

    fn metrics(&self) -> Vec<(String, u64)> {
        vec![("amberfs_store_gets_total".to_owned(), 7)]
    }
}

/// A directory with a state directory, a script, and FIFOs by which the script waits.
struct Stage {
    dir: tempfile::TempDir,
    site: Arc<TestSite>,
}

impl Stage {
    fn new(script: &str) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("script"), script).unwrap();
        Stage { dir, site: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self) -> DeskOptions {
        let program = Program {
            path: "/bin/sh".into(),
            arguments: vec![self.path("script").into()],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("STAGE".into(), self.dir.path().into())],
            keys: Default::default(),
        };
        let mut options = DeskOptions::new(RepoId([5; 16]), self.path("state"), OWNER.uid, program);
        options.grace = Duration::from_millis(200);
        options
    }

    fn desk(&self) -> Desk {
        self.desk_with(self.options())
    }

    fn desk_with(&self, options: DeskOptions) -> Desk {
        Desk::open(options, Arc::clone(&self.site) as Arc<dyn Site>, Env::system()).unwrap()
    }

    /// A FIFO on which a script waits with `read x < $STAGE/NAME`.
    fn gate(&self, name: &str) -> Gate {
        let path = self.path(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        Gate { path }
    }

    /// How often a script ran for a job, if it begins with `echo $* >> $STAGE/runs`; of the job only its id.
    fn runs(&self) -> Vec<String> {
        let runs = std::fs::read_to_string(self.path("runs")).unwrap_or_default();
        runs.lines().map(|run| run.split(' ').map(job_of).collect::<Vec<_>>().join(" ")).collect()
    }
}

struct Gate {
    path: PathBuf,
}

impl Gate {
    /// Waits until a script stands at the gate, and lets it pass.
    fn open(&self) {
        std::fs::OpenOptions::new().write(true).open(&self.path).unwrap().write_all(b"go\n").unwrap();
    }
}

fn id(job: &str) -> JobId {
    JobId(job.to_owned())
}

fn text(desk: &Desk, job: &str, file: JobFile) -> String {
    desk.job_file(&id(job), file).map_or_else(
        || "no such job".to_owned(),
        |content| String::from_utf8(content.bytes.to_vec()).unwrap().trim_end().to_owned(),
    )
}

fn page(desk: &Desk, file: DeskFile) -> String {
    String::from_utf8(desk.file(file).bytes.to_vec()).unwrap()
}

fn state(desk: &Desk, job: &str) -> String {
    text(desk, job, JobFile::State)
}

/// Waits for something that must become true.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < patience, "never: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn await_state(desk: &Desk, job: &str, wanted: &str) {
    let is_end = |state: &str| {
        ["committed", "partial", "verified", "deleted", "undeleted", "failed", "cancelled", "timed-out"]
            .contains(&state)
    };
    eventually(&format!("{job} is {wanted}"), || {
        let now = state(desk, job);
        assert!(now == wanted || !is_end(&now), "{job} is {now}: {}", text(desk, job, JobFile::Error));
        now == wanted
    });
}

fn submit(desk: &Desk, commands: &str) -> Result<String, (Reason, String)> {
    let taken = desk.submit(OWNER, commands.as_bytes());
    let reply = String::from_utf8(desk.reply(OWNER)).unwrap();
    assert!(reply.ends_with('\n'));
    match taken {
        Ok(()) => Ok(reply),
        Err(refusal) => {
            assert_eq!(reply, format!("err {} {}\n", refusal.reason.name(), refusal.message));
            Err((refusal.reason, refusal.message))
        }
    }
}

fn refused(desk: &Desk, commands: &str) -> Reason {
    submit(desk, commands).unwrap_err().0
}

fn summary(problems: u32) -> String {
    format!(
        r#"echo '{{"message_type":"summary","source":"home","point":"2026-11-20T12-00-00Z","kind":"full","reason":"full: first capture of this source","problems":{problems}}}'"#
    )
}

fn progress(phase: &str) -> String {
    format!(r#"echo '{{"message_type":"progress","phase":"{phase}","files":3,"bytes":4}}'"#)
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}
