//! The desk: takes batches of commands, and shows what became of them.
//!
//! Several mounts of one repository have a desk each, over one journal. A desk holds a lock on a file
//! of its own in `desks/` while it lives; a job names the desk that accepted it. When that lock is
//! free the desk is gone, and another takes its jobs over: it starts those that wait, and watches or
//! judges those that run (`runner.rs`).
//!
//! Invariants: a batch is accepted whole or not at all, and is in the journal, on disk, before the
//! write that carried it returns; of two requests for the same work at the same time one is refused,
//! whichever mount they reach; nothing here waits for a source or a store, but that a line which deletes a
//! point or brings it back has the source's log asked first, while nothing is locked.
//!
//! Crash behaviour: what was accepted is in the journal; what was not leaves no trace.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde_json::{Map, Value, json};

use super::board::Board;
use super::child::Program;
use super::control::{Caller, Content, Control, DeskFile, JobFile, JobId, Reason, Refusal};
use super::error::JobError;
use super::help;
use super::journal::{self, Journal};
use super::line;
use super::outcome::Testimony;
use super::page::timestamp;
use super::record::{Accepted, Entry, Table};
use super::request::{Command, Request};
use super::runner::{self, Core};
use super::state::State;
use super::witness::Witness;
use crate::base::suggest::did_you_mean;
use crate::base::{Env, Instant, hex, limits};
use crate::format::ids::RepoId;

/// What the desk asks of the mount around it.
pub trait Site: Send + Sync + 'static {
    /// Names of the sources that the configuration defines now. Must not wait for a store.
    ///
    /// # Errors
    /// Why there is no configuration to go by, in words.
    fn sources(&self) -> Result<Vec<String>, String>;

    /// Why the repository cannot be written now, in words; none where it can, as far as that can be told without
    /// waiting for a store.
    fn read_only(&self) -> Option<String> {
        None
    }

    /// The point of `source` that the capture for exactly this `job` committed, if it did. May wait for the store.
    ///
    /// # Errors
    /// Why that cannot be found out, in words.
    fn testimony(&self, source: &str, job: &Witness) -> Result<Option<Testimony>, String>;

    /// Why this deletion or undeletion cannot be accepted, as the source's log stands now: no such point, or others
    /// that depend on it. May wait for the store.
    ///
    /// # Errors
    /// The reason, and in words what would be right.
    fn judge(&self, _request: &Request) -> Result<(), (Reason, String)> {
        Ok(())
    }

    /// A job has changed the points of `source`: whoever now reads the job's state must see it in the
    /// mount as well. May wait for the store.
    fn committed(&self, _source: &str) {}

    /// Counters for `metrics`, each name in the form `amberfs_…`.
    fn metrics(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// More members for `status.json`.
    fn status(&self) -> Map<String, Value> {
        Map::new()
    }
}

/// What a desk is to know.
#[derive(Debug, Clone)]
pub struct DeskOptions {
    /// The repository.
    pub repo: RepoId,
    /// Where journals are kept.
    pub state_dir: PathBuf,
    /// The mount's owner; beside root the only one who may.
    pub owner: u32,
    /// What is run for a job.
    pub program: Program,
    /// Jobs that run at once; the others wait.
    pub at_once: usize,
    /// How much a job's priority is lowered, 0 to 19.
    pub niceness: i32,
    /// How long a process may take to end before it is killed, and how long the kernel may take then.
    pub grace: Duration,
}

impl DeskOptions {
    /// The usual: two jobs at once, at a low priority, ten seconds to end.
    pub fn new(repo: RepoId, state_dir: impl Into<PathBuf>, owner: u32, program: Program) -> DeskOptions {
        DeskOptions {
            repo,
            state_dir: state_dir.into(),
            owner,
            program,
            at_once: limits::JOBS_AT_ONCE,
            niceness: limits::JOB_NICENESS,
            grace: limits::JOB_GRACE,
        }
    }
}

/// What the desk, its dispatcher and the watchers of its jobs share. Locks are taken in the order
/// core, board.
pub(super) struct Shared {
    pub(super) options: DeskOptions,
    pub(super) dir: PathBuf,
    pub(super) name: String,
    pub(super) env: Env,
    pub(super) site: Arc<dyn Site>,
    pub(super) core: Mutex<Core>,
    pub(super) wake: Condvar,
    pub(super) board: Mutex<Board>,
    since: Instant,
}

/// The desk behind the control file of one mount.
///
/// Dropping it ends the desk as the end of its process would: jobs that run go on, and the next desk
/// finds them.
pub struct Desk {
    shared: Arc<Shared>,
    dispatcher: Option<JoinHandle<()>>,
}

impl Desk {
    /// Opens the journal, takes over what others left, and starts to work.
    ///
    /// # Errors
    /// [`JobError`] when the journal cannot be opened or locked.
    pub fn open(options: DeskOptions, site: Arc<dyn Site>, env: Env) -> Result<Desk, JobError> {
        let dir = journal::directory(&options.state_dir, options.repo);
        let mut journal = Journal::open(&dir)?;
        let name = format!("{}-{}", std::process::id(), hex::encode(&env.random::<6>()));
        let presence = journal.attend(&name)?;
        let now = env.now();
        let mut board = Board::new(now);
        board.follow(journal.table(), now, true);
        board.events.add(now, json!({ "event": "mounted", "repository": options.repo.to_string() }));
        let core = Core::new(journal, dir.clone(), presence);
        let shared = Arc::new(Shared {
            options,
            dir,
            name,
            env,
            site,
            core: Mutex::new(core),
            wake: Condvar::new(),
            board: Mutex::new(board),
            since: now,
        });
        let dispatcher = std::thread::Builder::new()
            .name("jobs".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || runner::dispatch(&shared)
            })
            .map_err(JobError::io("start a thread for", &shared.dir))?;
        Ok(Desk { shared, dispatcher: Some(dispatcher) })
    }

    /// Takes a batch; what was done, in words.
    fn take(&self, caller: Caller, batch: &[u8]) -> Result<String, Refusal> {
        if !self.permits(caller) {
            let message = format!("user {} is neither the mount's owner nor root", caller.uid);
            return Err(refusal(Reason::Access, None, message));
        }
        if batch.len() > limits::CONTROL_BATCH_BYTES_MAX {
            let message = format!("{} bytes in one write; at most {}", batch.len(), limits::CONTROL_BATCH_BYTES_MAX);
            return Err(refusal(Reason::TooLong, None, message));
        }
        let commands = line::parse(batch).map_err(|error| refusal(error.reason, Some(error.line), error.message))?;
        let names_sources = commands
            .iter()
            .any(|(_, command)| matches!(command, Command::Run { request, .. } if request.source().is_some()));
        let sources = if names_sources {
            self.shared.site.sources().map_err(|why| refusal(Reason::Io, None, why))?
        } else {
            Vec::new()
        };

        let writes =
            commands.iter().any(|(_, command)| matches!(command, Command::Run { request, .. } if request.writes()));
        let read_only = if writes { self.shared.site.read_only() } else { None };
        let judged: Vec<Result<(), (Reason, String)>> = commands
            .iter()
            .map(|(_, command)| match command {
                Command::Run { request, .. }
                    if request.point().is_some()
                        && read_only.is_none()
                        && request.source().is_some_and(|source| sources.iter().any(|known| known == source)) =>
                {
                    self.shared.site.judge(request)
                }
                _ => Ok(()),
            })
            .collect();

        let now = self.shared.env.now();
        let mut core = self.shared.core.lock();
        let mut locked = core.journal.locked().map_err(|error| refusal(error.reason(), None, error.to_string()))?;
        let mut plan = Plan {
            shared: &self.shared,
            sources: &sources,
            read_only: read_only.as_deref(),
            accepted: vec![],
            cancelled: vec![],
            words: vec![],
        };
        for ((line, command), judged) in commands.into_iter().zip(judged) {
            plan.add(locked.table(), command, judged, now)
                .map_err(|(reason, message)| refusal(reason, Some(line), message))?;
        }
        let Plan { accepted, cancelled, words, .. } = plan;
        if !accepted.is_empty() || !cancelled.is_empty() {
            let entry = Entry::Batch { at: now.nanos(), uid: caller.uid, accepted, cancelled };
            locked.append(entry).map_err(|error| refusal(error.reason(), None, error.to_string()))?;
        }
        drop(locked);
        self.shared.board.lock().follow(core.journal.table(), now, false);
        core.woken = true;
        self.shared.wake.notify_all();
        Ok(if words.is_empty() { "ok nothing to do".to_owned() } else { words.join("\n") })
    }

    /// Looks whether another mount has changed the journal, unless that would mean to wait.
    fn catch_up(&self) {
        let Some(mut core) = self.shared.core.try_lock() else { return };
        match core.journal.refresh() {
            Ok(true) => {
                self.shared.board.lock().follow(core.journal.table(), self.shared.env.now(), false);
                core.woken = true;
                self.shared.wake.notify_all();
            }
            Ok(false) => {}
            Err(error) => core.complain(&error),
        }
    }

    fn status(&self, board: &Board, read_only: bool, more: Map<String, Value>) -> Vec<u8> {
        let options = &self.shared.options;
        let census: Map<String, Value> =
            board.census().iter().map(|(state, count)| (state.word().to_owned(), (*count).into())).collect();
        let under_way: Vec<Value> = board
            .under_way()
            .into_iter()
            .map(|(job, state, progress)| json!({ "job": job, "state": state, "progress": progress }))
            .collect();
        let mut status = Map::new();
        status.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        status.insert("repository".into(), options.repo.to_string().into());
        status.insert("mounted".into(), timestamp(self.shared.since).into());
        status.insert("pid".into(), std::process::id().into());
        status.insert("owner".into(), options.owner.into());
        status.insert("read_only".into(), read_only.into());
        status.insert("faults".into(), board.faults.total().into());
        status.insert("jobs".into(), census.into());
        status.insert("under_way".into(), under_way.into());
        status.extend(more);
        let mut bytes = Value::Object(status).to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }

    fn metrics(board: &Board, site: Vec<(String, u64)>) -> Vec<u8> {
        let mut metrics: Vec<(String, u64)> = board
            .census()
            .iter()
            .map(|(state, count)| (format!("amberfs_jobs_{}", state.word().replace('-', "_")), *count))
            .collect();
        metrics.push(("amberfs_batches_accepted_total".to_owned(), board.accepted));
        metrics.push(("amberfs_batches_refused_total".to_owned(), board.refused));
        metrics.push(("amberfs_faults_total".to_owned(), board.faults.total()));
        metrics.push(("amberfs_events_dropped_total".to_owned(), board.events.lines_gone()));
        metrics.push(("amberfs_errors_dropped_total".to_owned(), board.faults.lines_gone()));
        metrics.push(("amberfs_journal_damaged_lines".to_owned(), board.damaged));
        metrics.extend(site);
        metrics.iter().flat_map(|(name, value)| format!("{name} {value}\n").into_bytes()).collect()
    }
}

fn refusal(reason: Reason, line: Option<usize>, message: String) -> Refusal {
    Refusal { reason, message: line.map_or(message.clone(), |line| format!("line {line}: {message}")) }
}

/// A batch under examination, against the table and what its earlier lines will add to it.
struct Plan<'a> {
    shared: &'a Shared,
    sources: &'a [String],
    /// Why nothing can be written.
    read_only: Option<&'a str>,
    accepted: Vec<Accepted>,
    cancelled: Vec<JobId>,
    words: Vec<String>,
}

impl Plan<'_> {
    fn add(
        &mut self,
        table: &Table,
        command: Command,
        judged: Result<(), (Reason, String)>,
        now: Instant,
    ) -> Result<(), (Reason, String)> {
        match command {
            Command::Run { request, job } => self.run(table, request, job, judged, now),
            Command::Cancel { job } => self.cancel(table, job),
        }
    }

    fn run(
        &mut self,
        table: &Table,
        request: Request,
        job: Option<JobId>,
        judged: Result<(), (Reason, String)>,
        now: Instant,
    ) -> Result<(), (Reason, String)> {
        // A repeat is answered before anything else: by now its source may be gone, or busy with this very job.
        if let Some(job) = &job {
            let planned = self.accepted.iter().find(|planned| planned.job == *job);
            let known = table.get(job).map(|record| (&record.request, record.state));
            if let Some((known, state)) = known.or(planned.map(|planned| (&planned.request, State::Queued))) {
                if *known != request {
                    return Err((Reason::Taken, format!("job {job} stands for `{known}`; choose another id")));
                }
                self.words.push(format!("ok {request} job={job} (known already: {state})"));
                return Ok(());
            }
        }
        if let Some(source) = request.source()
            && !self.sources.iter().any(|known| known == source)
        {
            let hint = did_you_mean(source, self.sources.iter().map(String::as_str));
            let hint = if hint.is_empty() {
                format!("; `amberfs source add {source} PATH` on the command line defines it")
            } else {
                hint
            };
            return Err((Reason::NoSuch, format!("no source {source:?} in the configuration{hint}")));
        }
        if let Some(why) = self.read_only.filter(|_| request.writes()) {
            return Err((Reason::ReadOnly, format!("the repository cannot be written: {why}")));
        }
        judged?;
        let open = table.open().map(|record| (&record.job, &record.request));
        let planned = self.accepted.iter().map(|planned| (&planned.job, &planned.request));
        if let Some((other, request)) = open.chain(planned).find(|(_, open)| open.conflicts(&request)) {
            return Err((Reason::Busy, format!("job {other} (`{request}`) is under way; await or cancel it")));
        }
        let queued = table.open().filter(|record| record.state == State::Queued).count() + self.accepted.len();
        if queued >= limits::JOBS_QUEUED_MAX {
            return Err((Reason::QueueFull, format!("{queued} jobs wait already; try again later")));
        }
        let job = job.unwrap_or_else(|| self.invent(now));
        self.words.push(format!("ok {request} job={job}"));
        self.accepted.push(Accepted { job, desk: self.shared.name.clone(), request });
        Ok(())
    }

    fn cancel(&mut self, table: &Table, job: JobId) -> Result<(), (Reason, String)> {
        let planned = self.accepted.iter().any(|planned| planned.job == job);
        match table.get(&job) {
            Some(record) if record.state.is_end() => {
                self.words.push(format!("ok cancel {job} (ended already: {})", record.state));
                Ok(())
            }
            None if !planned => {
                let known = table.open().map(|record| record.job.0.as_str());
                Err((Reason::NoSuch, format!("no job {:?}{}", job.0, did_you_mean(&job.0, known))))
            }
            _ => {
                self.words.push(format!("ok cancel {job}"));
                self.cancelled.push(job);
                Ok(())
            }
        }
    }

    /// A handle for a job whose client chose none; it sorts by time.
    fn invent(&self, now: Instant) -> JobId {
        let time: String = timestamp(now).chars().take_while(|c| *c != '.').collect();
        JobId(format!("{}Z-{}", time.replace(':', "-"), hex::encode(&self.shared.env.random::<4>())))
    }
}

impl Control for Desk {
    fn submit(&self, caller: Caller, batch: &[u8]) -> Result<(), Refusal> {
        let taken = self.take(caller, batch);
        let mut board = self.shared.board.lock();
        match &taken {
            Ok(words) => {
                board.accepted += 1;
                board.set_reply(caller.uid, format!("{words}\n"));
            }
            Err(refusal) => {
                board.refused += 1;
                // Others cannot read it, and must not be able to fill our memory.
                if self.permits(caller) {
                    board.set_reply(caller.uid, format!("err {} {}\n", refusal.reason.name(), refusal.message));
                }
            }
        }
        taken.map(drop)
    }

    fn reply(&self, caller: Caller) -> Vec<u8> {
        self.shared.board.lock().reply(caller.uid)
    }

    fn permits(&self, caller: Caller) -> bool {
        caller.uid == 0 || caller.uid == self.shared.options.owner
    }

    fn file(&self, file: DeskFile) -> Content {
        self.catch_up();
        let now = self.shared.env.now();
        // The site is asked before the board is held.
        match file {
            DeskFile::Status => {
                let (read_only, more) = (self.shared.site.read_only().is_some(), self.shared.site.status());
                let mut board = self.shared.board.lock();
                let bytes = self.status(&board, read_only, more);
                board.status.become_bytes(bytes, now)
            }
            DeskFile::Metrics => {
                let site = self.shared.site.metrics();
                let mut board = self.shared.board.lock();
                let bytes = Desk::metrics(&board, site);
                board.metrics.become_bytes(bytes, now)
            }
            DeskFile::Help => self.shared.board.lock().help.become_bytes(help::text().into_bytes(), self.shared.since),
            DeskFile::Events => self.shared.board.lock().events.content(),
            DeskFile::Errors => self.shared.board.lock().faults.content(),
        }
    }

    fn jobs(&self) -> Vec<JobId> {
        self.catch_up();
        self.shared.board.lock().jobs()
    }

    fn job_file(&self, job: &JobId, file: JobFile) -> Option<Content> {
        self.catch_up();
        self.shared.board.lock().job_file(job, file)
    }

    fn fault(&self, node: u64, message: &str) {
        let now = self.shared.env.now();
        self.shared.board.lock().faults.add(now, node, message);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        {
            let mut core = self.shared.core.lock();
            core.leave();
            self.shared.wake.notify_all();
        }
        if let Some(dispatcher) = self.dispatcher.take()
            && dispatcher.join().is_err()
        {
            tracing::warn!("the dispatcher of jobs had ended by itself");
        }
    }
}
