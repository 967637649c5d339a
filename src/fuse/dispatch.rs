//! Runs requests so that each one ends by its deadline and none keeps the others waiting.
//!
//! Why: the kernel cannot take a request back from us (the FUSE library in use answers interrupts
//! with ENOSYS), so a caller is stuck until we reply, whatever signal it gets. Therefore the reply of
//! every request lies in a slot; whoever takes it out first, the result or the deadline, answers, and
//! the other is dropped.
//!
//! Where the work runs: a receiving thread does it itself as long as enough other receivers are
//! idle, because a hand-over costs more than most requests. When they are not, the work goes to
//! workers, which come up to a bound and go again. So at least [`SPARE_RECEIVERS`] threads always
//! read requests.
//!
//! Each kind of request ([`Budget`]) has workers and a queue of its own: contents that hang keep no
//! name waiting, names in one point not the way to others, and nothing keeps `.amberfs` waiting, where one would look
//! for the cause.
//!
//! A panic in the work is an EIO for its caller and an entry in the log, nothing more.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::errno::{Errno, Failure};
use crate::base::limits;

/// Receiving threads that never do work themselves.
pub(crate) const SPARE_RECEIVERS: usize = 2;

/// How long an idle worker stays.
const WORKER_LINGER: Duration = Duration::from_secs(10);

/// A kind of request: how long it may take, and whose turn it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    /// Names, attributes, listings in points.
    Metadata,
    /// Content of files.
    Data,
    /// What is made of logs: the directories of sources and points. Takes no longer than [`Budget::Metadata`].
    Points,
    /// What needs no store: the root itself and all in `.amberfs`. Takes no longer than [`Budget::Metadata`].
    Desk,
}

/// How many workers each kind may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workers {
    /// For [`Budget::Metadata`].
    pub(crate) metadata: usize,
    /// For [`Budget::Data`].
    pub(crate) data: usize,
    /// For [`Budget::Points`].
    pub(crate) points: usize,
    /// For [`Budget::Desk`].
    pub(crate) desk: usize,
}

/// The bounds of one dispatcher.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Deadline of all but [`Budget::Data`].
    pub(crate) metadata: Duration,
    /// Deadline of [`Budget::Data`].
    pub(crate) data: Duration,
    /// Receiving threads that may do work themselves at the same time.
    pub(crate) inline: usize,
    /// Workers.
    pub(crate) workers: Workers,
    /// Requests of each kind that may wait for a worker.
    pub(crate) queue: usize,
}

impl Bounds {
    /// The bounds for `receivers` threads that read requests.
    pub(crate) fn for_receivers(receivers: usize, metadata: Duration, data: Duration) -> Bounds {
        Bounds {
            metadata,
            data,
            inline: receivers.saturating_sub(SPARE_RECEIVERS),
            workers: Workers {
                metadata: limits::MOUNT_METADATA_WORKERS_MAX,
                data: limits::MOUNT_DATA_WORKERS_MAX,
                points: limits::MOUNT_POINTS_WORKERS_MAX,
                desk: limits::MOUNT_DESK_WORKERS_MAX,
            },
            queue: limits::MOUNT_QUEUE_MAX,
        }
    }
}

/// What a caller waits for.
pub(crate) trait Reply: Send + 'static {
    /// Ends the request with an error.
    fn refuse(self, errno: Errno);
}

/// Told of every fault, before the caller is.
pub(crate) type OnFault = Arc<dyn Fn(u64, &str) + Send + Sync>;

/// A request under way: its reply, until somebody takes it.
pub(crate) struct Pending<R> {
    reply: Mutex<Option<R>>,
    node: u64,
    on_fault: OnFault,
}

impl<R: Reply> Pending<R> {
    /// Answers, unless the deadline did already.
    pub(crate) fn answer(&self, with: impl FnOnce(R)) {
        let reply = self.reply.lock().take();
        if let Some(reply) = reply {
            with(reply);
        }
    }

    /// Lends the reply, for one that is filled piece by piece; none if the deadline has passed.
    pub(crate) fn lend<T>(&self, to: impl FnOnce(&mut R) -> T) -> Option<T> {
        self.reply.lock().as_mut().map(to)
    }

    /// Refuses, unless the deadline did already; records a fault first, so that the caller finds it.
    pub(crate) fn fail(&self, failure: Failure) {
        let reply = self.reply.lock().take();
        let Some(reply) = reply else { return };
        if let Some(message) = &failure.fault {
            (self.on_fault)(self.node, message);
        }
        reply.refuse(failure.errno);
    }

    fn open(&self) -> bool {
        self.reply.lock().is_some()
    }
}

/// The deadline's view of a request.
trait Expire: Send + Sync {
    fn expire(&self);
}

impl<R: Reply> Expire for Pending<R> {
    fn expire(&self) {
        self.fail(Failure::fault(Errno::ETIMEDOUT, "the request reached its deadline; is the store reachable?"));
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The workers of one kind of request, and what waits for them.
struct Pool {
    workers_max: usize,
    queued_max: usize,
    crew: Mutex<Crew>,
    work_came: Condvar,
}

#[derive(Default)]
struct Crew {
    jobs: VecDeque<Job>,
    workers: usize,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Watch {
    next: u64,
    in_flight: HashMap<u64, (Instant, Arc<dyn Expire>)>,
    /// The watcher sleeps without an end: the next request must wake it.
    unattended: bool,
    closed: bool,
}

struct Shared {
    bounds: Bounds,
    inline: AtomicUsize,
    metadata: Arc<Pool>,
    data: Arc<Pool>,
    points: Arc<Pool>,
    desk: Arc<Pool>,
    watch: Mutex<Watch>,
    watch_changed: Condvar,
    on_fault: OnFault,
}

/// See the head of this file.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
}

impl Dispatcher {
    /// Starts the thread that watches deadlines; workers start when needed.
    ///
    /// # Errors
    /// When that thread cannot be started.
    pub(crate) fn start(bounds: Bounds, on_fault: OnFault) -> std::io::Result<Dispatcher> {
        let shared = Arc::new(Shared {
            bounds,
            inline: AtomicUsize::new(0),
            metadata: Pool::new(bounds.workers.metadata, bounds.queue),
            data: Pool::new(bounds.workers.data, bounds.queue),
            points: Pool::new(bounds.workers.points, bounds.queue),
            desk: Pool::new(bounds.workers.desk, bounds.queue),
            watch: Mutex::default(),
            watch_changed: Condvar::new(),
            on_fault,
        });
        let watcher = Arc::clone(&shared);
        std::thread::Builder::new().name("deadlines".into()).spawn(move || watcher.watch_deadlines())?;
        Ok(Dispatcher { shared })
    }

    /// Does `work`, which is to answer `reply`, within `budget`; here or in a worker.
    pub(crate) fn run<R: Reply>(
        &self,
        budget: Budget,
        node: u64,
        reply: R,
        work: impl FnOnce(&Pending<R>) + Send + 'static,
    ) {
        let shared = &self.shared;
        let pending =
            Arc::new(Pending { reply: Mutex::new(Some(reply)), node, on_fault: Arc::clone(&shared.on_fault) });
        let ticket = shared.register(budget, Arc::clone(&pending) as Arc<dyn Expire>);
        if shared.may_run_inline() {
            attempt(&pending, work);
            shared.inline.fetch_sub(1, Ordering::AcqRel);
            shared.unregister(ticket);
            return;
        }
        let in_worker = Arc::clone(&pending);
        let of_worker = Arc::clone(shared);
        let job: Job = Box::new(move || {
            if in_worker.open() {
                attempt(&in_worker, work);
            }
            of_worker.unregister(ticket);
        });
        if !Pool::enqueue(shared.pool(budget), job) {
            pending.fail(Failure::fault(Errno::EIO, "too many requests wait already; is the store reachable?"));
            shared.unregister(ticket);
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        for pool in [&self.shared.metadata, &self.shared.data, &self.shared.points, &self.shared.desk] {
            pool.close();
        }
        self.shared.watch.lock().closed = true;
        self.shared.watch_changed.notify_all();
    }
}

/// Does the work; a panic, or work that forgot to answer, becomes EIO.
fn attempt<R: Reply>(pending: &Pending<R>, work: impl FnOnce(&Pending<R>)) {
    // Nothing that the work shares outlives a panic half-changed: its locks guard whole updates.
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| work(pending)));
    if let Err(cause) = outcome {
        let text = cause
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| cause.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(node = pending.node, "a request panicked: {text}");
        pending.fail(Failure::fault(Errno::EIO, format!("a defect in amberfs, please report it: {text}")));
    } else if pending.open() {
        pending.fail(Failure::fault(Errno::EIO, "a defect in amberfs, please report it: a request went unanswered"));
    }
}

impl Shared {
    fn pool(&self, budget: Budget) -> &Arc<Pool> {
        match budget {
            Budget::Metadata => &self.metadata,
            Budget::Data => &self.data,
            Budget::Points => &self.points,
            Budget::Desk => &self.desk,
        }
    }

    fn may_run_inline(&self) -> bool {
        self.inline
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |busy| (busy < self.bounds.inline).then_some(busy + 1))
            .is_ok()
    }

    fn register(&self, budget: Budget, request: Arc<dyn Expire>) -> u64 {
        let allowed = match budget {
            Budget::Metadata | Budget::Points | Budget::Desk => self.bounds.metadata,
            Budget::Data => self.bounds.data,
        };
        let mut watch = self.watch.lock();
        let ticket = watch.next;
        watch.next += 1;
        watch.in_flight.insert(ticket, (Instant::now() + allowed, request));
        if watch.unattended {
            watch.unattended = false;
            self.watch_changed.notify_one();
        }
        ticket
    }

    fn unregister(&self, ticket: u64) {
        self.watch.lock().in_flight.remove(&ticket);
    }

    /// Sleeps until the earliest deadline of the requests that were under way when it looked. A later
    /// request may have an earlier deadline only by the difference of the two budgets, so the sleep
    /// is never longer than the shorter budget.
    fn watch_deadlines(&self) {
        let shorter = self.bounds.metadata.min(self.bounds.data);
        let mut watch = self.watch.lock();
        while !watch.closed {
            let now = Instant::now();
            let due: Vec<u64> =
                watch.in_flight.iter().filter(|(_, (at, _))| *at <= now).map(|(ticket, _)| *ticket).collect();
            let expired: Vec<_> = due.iter().filter_map(|ticket| watch.in_flight.remove(ticket)).collect();
            if !expired.is_empty() {
                // Answering writes to the kernel and to `errors`: not under the lock of all requests.
                parking_lot::MutexGuard::unlocked(&mut watch, || {
                    for (_, request) in expired {
                        request.expire();
                    }
                });
                continue;
            }
            match watch.in_flight.values().map(|(at, _)| *at).min() {
                None => {
                    watch.unattended = true;
                    self.watch_changed.wait(&mut watch);
                    watch.unattended = false;
                }
                Some(earliest) => {
                    let _timed_out = self.watch_changed.wait_until(&mut watch, earliest.min(now + shorter));
                }
            }
        }
    }
}

impl Pool {
    fn new(workers_max: usize, queued_max: usize) -> Arc<Pool> {
        Arc::new(Pool { workers_max, queued_max, crew: Mutex::default(), work_came: Condvar::new() })
    }

    fn close(&self) {
        self.crew.lock().closed = true;
        self.work_came.notify_all();
    }

    fn enqueue(pool: &Arc<Pool>, job: Job) -> bool {
        let mut crew = pool.crew.lock();
        if crew.closed || crew.jobs.len() >= pool.queued_max {
            return false;
        }
        crew.jobs.push_back(job);
        if crew.jobs.len() > crew.idle && crew.workers < pool.workers_max {
            let of_worker = Arc::clone(pool);
            let spawned = std::thread::Builder::new().name("request".into()).spawn(move || of_worker.work());
            match spawned {
                Ok(_) => crew.workers += 1,
                // With no worker at all nobody would ever take the job.
                Err(_) if crew.workers == 0 => {
                    crew.jobs.pop_back();
                    return false;
                }
                Err(_) => {}
            }
        }
        drop(crew);
        pool.work_came.notify_one();
        true
    }

    fn work(&self) {
        let mut crew = self.crew.lock();
        loop {
            if let Some(job) = crew.jobs.pop_front() {
                parking_lot::MutexGuard::unlocked(&mut crew, job);
                continue;
            }
            if crew.closed {
                break;
            }
            crew.idle += 1;
            let waited = self.work_came.wait_for(&mut crew, WORKER_LINGER);
            crew.idle -= 1;
            if waited.timed_out() && crew.jobs.is_empty() {
                break;
            }
        }
        crew.workers -= 1;
    }
}

#[cfg(test)]
mod tests;
