//! Runs the jobs of a desk: each in a process of its own, each once.
//!
//! One dispatcher thread starts jobs in the order of their acceptance, ends those that were cancelled
//! or take too long (SIGTERM, after a grace SIGKILL, after another grace it is given up), and takes
//! over what a desk that is gone has left. Each process has watchers: one for each of its outputs, and
//! one that waits for its end and judges it (`outcome.rs`).
//!
//! Invariant: a process is started after `started` is in the journal on disk and only then, so a job
//! runs at most once. A job that has begun ends in the journal, sooner or later: what could not be
//! written is kept and tried again.
//!
//! Crash behaviour: processes outlive us. A job that had begun is an orphan to the next desk: as long
//! as its process holds its lock it is watched (cancelling and timing out go by the process's number
//! and start time), and when the lock is free the source's log decides what became of it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant as Monotonic};

use parking_lot::{Mutex, MutexGuard};

use super::child::{self, Child};
use super::control::JobId;
use super::desk::Shared;
use super::error::JobError;
use super::journal::{self, Journal};
use super::outcome::{self, Exit, Said, Stop, Verdict};
use super::protocol::Message;
use super::record::{Ending, Entry, Process, Record};
use super::request::Request;
use super::state::State;
use crate::base::limits;

/// How often a desk with work in hand looks at the journal and at processes that are not its own.
const TICK: Duration = Duration::from_millis(500);
/// How long the outputs of a process that has ended may stay open, held by something that left its group.
const DRAIN: Duration = Duration::from_secs(5);

/// What the dispatcher works on.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) journal: Journal,
    dir: PathBuf,
    /// Something has changed that the dispatcher should look at.
    pub(super) woken: bool,
    running: HashMap<JobId, Running>,
    /// Entries that the journal could not take yet.
    unwritten: VecDeque<Entry>,
    /// Held while the desk lives; none once it has left.
    presence: Option<File>,
    /// The last complaint about the journal, so that one trouble is told of once.
    complaint: Option<String>,
}

/// A job that has begun, as this desk looks after it.
#[derive(Debug)]
struct Running {
    /// None for an orphan, whose process another desk started.
    child: Option<Arc<Child>>,
    /// When it takes too long.
    deadline: Monotonic,
    stop: Option<Stop>,
    /// When the next harsher step is taken: kill, then give up.
    harsher_at: Option<Monotonic>,
    killed: bool,
    /// A thread judges it.
    judged: bool,
}

impl Core {
    pub(super) fn new(journal: Journal, dir: PathBuf, presence: File) -> Core {
        Core {
            journal,
            dir,
            woken: false,
            running: HashMap::new(),
            unwritten: VecDeque::new(),
            presence: Some(presence),
            complaint: None,
        }
    }

    /// The desk is no more: nothing is written or started from here on.
    pub(super) fn leave(&mut self) {
        self.presence = None;
        self.woken = true;
    }

    fn has_left(&self) -> bool {
        self.presence.is_none()
    }

    /// Tells of trouble with the journal, once for each trouble.
    pub(super) fn complain(&mut self, error: &JobError) {
        let words = error.to_string();
        if self.complaint.as_ref() != Some(&words) {
            tracing::warn!(error = words, "jobs wait for the journal; it is tried again");
            self.complaint = Some(words);
        }
    }

    /// Writes what the journal could not take before. False when it still cannot.
    fn catch_up(&mut self) -> bool {
        match self.write_down() {
            Ok(()) => {
                self.complaint = None;
                true
            }
            Err(error) => {
                self.complain(&error);
                false
            }
        }
    }

    fn write_down(&mut self) -> Result<(), JobError> {
        if self.unwritten.is_empty() {
            self.journal.refresh()?;
            return Ok(());
        }
        let mut locked = self.journal.locked()?;
        while let Some(entry) = self.unwritten.front() {
            locked.append(entry.clone())?;
            if let Some(Entry::Ended { job, .. }) = self.unwritten.pop_front() {
                child::release(&self.dir, &job);
            }
        }
        locked.tidy()
    }
}

/// The dispatcher's thread: looks, acts, waits until there is something to look at.
pub(super) fn dispatch(shared: &Arc<Shared>) {
    let mut core = shared.core.lock();
    while !core.has_left() {
        core.woken = false;
        let wait = shared.turn(&mut core);
        if core.woken {
            continue;
        }
        match wait {
            Some(wait) => {
                shared.wake.wait_for(&mut core, wait);
            }
            None => shared.wake.wait(&mut core),
        }
    }
}

impl Shared {
    /// Does all that is due; how long nothing else will be, unless woken.
    fn turn(self: &Arc<Self>, core: &mut MutexGuard<'_, Core>) -> Option<Duration> {
        let written = core.catch_up();
        if written {
            self.take_over(core);
            self.start_queued(core);
        }
        self.show(core);
        self.press(core);
        let open = core.journal.table().open().next().is_some();
        let due =
            core.running.values().flat_map(|running| [Some(running.deadline), running.harsher_at]).flatten().min();
        let due = due.map(|due| due.saturating_duration_since(Monotonic::now()));
        let tick = (open || !core.unwritten.is_empty() || !written).then_some(TICK);
        match (due, tick) {
            (Some(due), Some(tick)) => Some(due.min(tick)),
            (due, tick) => due.or(tick),
        }
    }

    fn show(&self, core: &Core) {
        let mut board = self.board.lock();
        board.follow(core.journal.table(), self.env.now(), false);
        board.damaged = core.journal.damaged();
    }

    /// Takes the jobs of desks that are gone, and looks after those that had begun.
    fn take_over(self: &Arc<Self>, core: &mut Core) {
        let is_left = |record: &&Record| record.desk != self.name && !journal::is_attended(&self.dir, &record.desk);
        let left: Vec<JobId> = core.journal.table().open().filter(is_left).map(|record| record.job.clone()).collect();
        if !left.is_empty() {
            let taken = core.journal.locked().and_then(|mut locked| {
                for job in left {
                    // Another desk may have been faster.
                    let still = locked.table().get(&job).is_some_and(|record| is_left(&record));
                    if still {
                        locked.append(Entry::Taken { job, desk: self.name.clone() })?;
                    }
                }
                Ok(())
            });
            if let Err(error) = taken {
                core.complain(&error);
            }
        }
        let orphans: Vec<(JobId, Duration)> = core
            .journal
            .table()
            .open()
            .filter(|record| record.desk == self.name && record.state != State::Queued)
            .filter(|record| !core.running.contains_key(&record.job))
            .map(|record| (record.job.clone(), self.time_left(record)))
            .collect();
        for (job, left) in orphans {
            let running = Running {
                child: None,
                deadline: Monotonic::now() + left,
                stop: None,
                harsher_at: None,
                killed: false,
                judged: false,
            };
            core.running.insert(job, running);
        }
    }

    fn time_left(&self, record: &Record) -> Duration {
        let began = record.started.unwrap_or(record.accepted);
        let passed = u64::try_from(self.env.now().nanos().saturating_sub(began)).unwrap_or(0);
        record.request.timeout().saturating_sub(Duration::from_nanos(passed))
    }

    /// Starts what waits, as far as there is room.
    fn start_queued(self: &Arc<Self>, core: &mut Core) {
        while core.running.len() < self.options.at_once.max(1) {
            let mine = |record: &&Record| record.desk == self.name && record.state == State::Queued;
            let Some(record) = core.journal.table().open().find(mine).cloned() else { return };
            let now = self.env.now().nanos();
            let begun = core.journal.locked().and_then(|mut locked| {
                // Somebody may have cancelled it through another mount.
                if !locked.table().get(&record.job).is_some_and(|record| mine(&record)) {
                    return Ok(false);
                }
                locked.append(Entry::Started { job: record.job.clone(), at: now })?;
                Ok(true)
            });
            match begun {
                Ok(true) => self.start(core, &record),
                Ok(false) => {}
                Err(error) => {
                    core.complain(&error);
                    return;
                }
            }
        }
    }

    fn start(self: &Arc<Self>, core: &mut Core, record: &Record) {
        let job = &record.job;
        let arguments = record.request.arguments(&record.witness());
        let started = child::start(&self.dir, job, &self.options.program, arguments, self.options.niceness);
        let (child, stdout, stderr) = match started {
            Ok(started) => started,
            Err(error) => {
                let verdict = Verdict { state: State::Failed, result: None, error: Some(error.to_string()) };
                self.write_end(core, job, verdict);
                return;
            }
        };
        let child = Arc::new(child);
        let process = child.process;
        let noted = core.journal.locked().and_then(|mut l| l.note(Entry::Runs { job: job.clone(), process }));
        if let Err(error) = noted {
            core.complain(&error);
        }
        let running = Running {
            child: Some(Arc::clone(&child)),
            deadline: Monotonic::now() + record.request.timeout(),
            stop: None,
            harsher_at: None,
            killed: false,
            judged: true,
        };
        core.running.insert(job.clone(), running);
        self.show(core);
        let (shared, request, name) = (Arc::clone(self), record.request.clone(), job.clone());
        let watch = move || shared.watch(&name, &request, &child, stdout, stderr);
        if let Err(error) = std::thread::Builder::new().name("job".to_owned()).spawn(watch) {
            // Nobody would reap it: it becomes an orphan of this very desk.
            tracing::warn!(%job, %error, "no thread to watch a job; it is watched by its lock");
            if let Some(running) = core.running.get_mut(job) {
                running.child = None;
                running.judged = false;
            }
        }
    }

    /// Ends what was cancelled or takes too long, and has orphans judged once they have ended.
    fn press(self: &Arc<Self>, core: &mut Core) {
        let now = Monotonic::now();
        let mut over = Vec::new();
        let Core { journal, running, .. } = core;
        for (job, running) in running.iter_mut() {
            let Some(record) = journal.table().get(job) else { continue };
            if running.child.is_none() && !running.judged && !journal::is_running(&self.dir, job) {
                running.judged = true;
                running.harsher_at = None;
                over.push((job.clone(), record.request.clone(), running.stop, String::new()));
                continue;
            }
            if running.stop.is_none() {
                running.stop = match (record.cancelled, now >= running.deadline) {
                    (true, _) => Some(Stop::Cancelled),
                    (false, true) => Some(Stop::TimedOut),
                    (false, false) => None,
                };
                if running.stop.is_some() {
                    running.signal(record.process, libc::SIGTERM);
                    running.harsher_at = Some(now + self.options.grace);
                    // From here on only `harsher_at` counts.
                    running.deadline = now + limits::JOB_TIMEOUT_MAX;
                }
            } else if running.harsher_at.is_some_and(|at| now >= at) {
                if running.killed {
                    running.harsher_at = None;
                    running.judged = true;
                    let remark = "its process does not end although it was killed: the kernel holds it".to_owned();
                    over.push((job.clone(), record.request.clone(), running.stop, remark));
                } else {
                    running.signal(record.process, libc::SIGKILL);
                    running.killed = true;
                    running.harsher_at = Some(now + self.options.grace);
                }
            }
        }
        for (job, request, stop, remark) in over {
            if !remark.is_empty() {
                self.board.lock().remark(&job, &remark, self.env.now());
            }
            let shared = Arc::clone(self);
            let name = job.clone();
            let judge = move || shared.judge(&name, &request, &Said::default(), Exit::Unseen, stop);
            if let Err(error) = std::thread::Builder::new().name("job".to_owned()).spawn(judge) {
                tracing::warn!(%job, %error, "no thread to judge a job; it is tried again");
                if let Some(running) = core.running.get_mut(&job) {
                    running.judged = running.child.is_some();
                }
            }
        }
    }

    /// Listens to a process until it has ended, and judges.
    fn watch(
        self: &Arc<Self>,
        job: &JobId,
        request: &Request,
        child: &Child,
        stdout: impl Read + Send + 'static,
        stderr: impl Read + Send + 'static,
    ) {
        let said = Arc::new(Mutex::new(Said::default()));
        let (open, drained) = mpsc::channel::<()>();
        self.listen(job, stdout, Some(Arc::clone(&said)), open.clone());
        self.listen(job, stderr, None, open);
        let exit = child.wait();
        // Both listeners let go of their end when their output is closed.
        match drained.recv_timeout(DRAIN) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(%job, "something that a job started holds its output open; the rest is not heard");
            }
            Err(RecvTimeoutError::Disconnected) | Ok(()) => {}
        }
        let said = said.lock().clone();
        let stop = self.core.lock().running.get(job).and_then(|running| running.stop);
        self.judge(job, request, &said, exit, stop);
    }

    fn listen(
        self: &Arc<Self>,
        job: &JobId,
        output: impl Read + Send + 'static,
        said: Option<Arc<Mutex<Said>>>,
        open: mpsc::Sender<()>,
    ) {
        let (shared, name) = (Arc::clone(self), job.clone());
        let listen = move || {
            child::each_line(output, limits::JOB_LINE_BYTES_MAX, |line| shared.hear(&name, line, said.as_deref()));
            drop(open);
        };
        if let Err(error) = std::thread::Builder::new().name("job-output".to_owned()).spawn(listen) {
            tracing::warn!(%job, %error, "no thread to hear a job; its result is looked up in the log");
        }
    }

    /// Takes in one line; `said` is given for the output that speaks the protocol.
    fn hear(&self, job: &JobId, line: &str, said: Option<&Mutex<Said>>) {
        let now = self.env.now();
        let message = said.and_then(|said| Message::of_line(line).map(|message| (said, message)));
        let Some((said, message)) = message else {
            if !line.trim().is_empty() {
                self.board.lock().remark(job, line, now);
            }
            return;
        };
        let step = match &message {
            Message::Progress(progress) => Some(progress.phase.state()),
            Message::Problem(_)
            | Message::Summary(_)
            | Message::Verified(_)
            | Message::Deleted(_)
            | Message::Undeleted(_)
            | Message::Error(_) => None,
        };
        said.lock().hear(message.clone());
        let stands = {
            let mut board = self.board.lock();
            board.hear(job, message, now);
            board.state(job)
        };
        if let (Some(step), Some(stands)) = (step, stands)
            && stands.may_become(step)
        {
            let mut core = self.core.lock();
            if core.has_left() {
                return;
            }
            // A step that is not written is shown by the next one; none is worth waiting for.
            let noted =
                core.journal.locked().and_then(|mut l| l.note(Entry::Stepped { job: job.clone(), state: step }));
            if let Err(error) = noted {
                core.complain(&error);
            }
            self.show(&core);
        }
    }

    /// Decides how a job ended, with a look into the source's log where needed, and writes it down.
    fn judge(&self, job: &JobId, request: &Request, said: &Said, exit: Exit, stop: Option<Stop>) {
        let witness = {
            let core = self.core.lock();
            // The next desk judges what ends after this one has left.
            if core.has_left() {
                return;
            }
            core.journal.table().get(job).map(Record::witness)
        };
        let source = request.source().unwrap_or_default();
        let ask = || witness.as_ref().map_or(Ok(None), |witness| self.site.testimony(source, witness));
        let verdict = outcome::judge(request, said, exit, stop, ask);
        if verdict.state.changed_points() {
            self.site.committed(source);
        }
        let mut core = self.core.lock();
        if core.has_left() {
            return;
        }
        self.write_end(&mut core, job, verdict);
        core.running.remove(job);
        core.woken = true;
        self.wake.notify_all();
    }

    fn write_end(&self, core: &mut Core, job: &JobId, verdict: Verdict) {
        let (log, progress) = self.board.lock().kept(job);
        let ending = Ending {
            at: self.env.now().nanos(),
            state: verdict.state,
            result: verdict.result,
            error: verdict.error,
            log,
            progress,
        };
        core.unwritten.push_back(Entry::Ended { job: job.clone(), ending });
        core.catch_up();
        self.show(core);
    }
}

impl Running {
    fn signal(&self, process: Option<Process>, signal: i32) {
        match (&self.child, process) {
            (Some(child), _) => child.signal(signal),
            (None, Some(process)) => child::signal_stranger(process, signal),
            (None, None) => {}
        }
    }
}
