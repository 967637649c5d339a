//! Makes units of what the walk finds, and holds the walk back while too much is under way.

use std::sync::Arc;

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex};

use super::directory::Directory;
use super::error::CaptureError;
use super::large::Slicer;
use super::later::{Deferred, Later};
use super::progress::Progress;
use super::stat::Kind;
use super::unit::{Job, Unit};
use crate::base::limits;
use crate::repo::RepoError;
use crate::seal::chunker::ChunkerKey;

/// Jobs in a unit.
const UNIT_JOBS_MAX: usize = 512;
/// Bytes of file content in a unit of names.
const UNIT_BYTES: usize = 2 << 20;
/// Bytes in a unit of names that will share frames: enough files that reading the first of them, which is waited for, is one wait of many.
const UNIT_GROUPED_BYTES: usize = 4 * limits::GROUP_FRAME_BYTES;
/// Directories that a unit may keep open.
const UNIT_DIRECTORIES_MAX: usize = 48;
/// What a job weighs besides its file's bytes.
const JOB_BYTES: usize = 512;

/// Why the walk ends early.
#[derive(Debug)]
pub(super) enum Halt {
    /// It has failed.
    Failed(CaptureError),
    /// Another part of the capture has failed, and says why.
    Elsewhere,
}

impl From<CaptureError> for Halt {
    fn from(error: CaptureError) -> Halt {
        Halt::Failed(error)
    }
}

impl From<RepoError> for Halt {
    fn from(error: RepoError) -> Halt {
        Halt::Failed(error.into())
    }
}

/// Bounds the units under way, by number and by bytes.
#[derive(Debug)]
pub(super) struct Gate {
    units_max: usize,
    bytes_max: usize,
    state: Mutex<Traffic>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Traffic {
    units: usize,
    bytes: usize,
    closed: bool,
}

impl Gate {
    /// Lets `units_max` units of together about `bytes_max` bytes be under way.
    pub(super) fn new(units_max: usize, bytes_max: usize) -> Gate {
        Gate { units_max, bytes_max, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits until a unit of `weight` fits; whether it may go.
    fn enter(&self, weight: usize) -> bool {
        let mut state = self.state.lock();
        // One unit always fits, however heavy.
        while !state.closed
            && state.units > 0
            && (state.units >= self.units_max || state.bytes + weight > self.bytes_max)
        {
            self.changed.wait(&mut state);
        }
        state.units += 1;
        state.bytes += weight;
        !state.closed
    }

    /// A unit of `weight` has been recorded.
    pub(super) fn leave(&self, weight: usize) {
        let mut state = self.state.lock();
        state.units = state.units.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(weight);
        drop(state);
        self.changed.notify_all();
    }

    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits until no unit is under way; whether more may enter.
    fn empty(&self) -> bool {
        let mut state = self.state.lock();
        while !state.closed && state.units > 0 {
            self.changed.wait(&mut state);
        }
        !state.closed
    }

    /// Nothing more shall enter.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

/// Closes the gate when its thread panics, so that nobody waits for it.
pub(super) struct CloseOnPanic<'a>(pub(super) &'a Gate);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

/// Makes units and sends them to the workers.
pub(super) struct Planner<'a> {
    gate: &'a Gate,
    queue: Sender<Unit>,
    progress: &'a Progress,
    later: &'a Later,
    /// What decides where chunks end, in an encrypted repository.
    cuts: Option<&'a ChunkerKey>,
    next: u64,
    jobs: Vec<Job>,
    weight: usize,
    /// Bytes that will share frames.
    grouped: usize,
    directories: usize,
    last_directory: Option<Arc<Directory>>,
}

impl<'a> Planner<'a> {
    /// Sends units through `gate` to `queue`; what comes back to be done later is in `later`.
    pub(super) fn new(
        gate: &'a Gate,
        queue: Sender<Unit>,
        progress: &'a Progress,
        later: &'a Later,
        cuts: Option<&'a ChunkerKey>,
    ) -> Planner<'a> {
        Planner {
            gate,
            queue,
            progress,
            later,
            cuts,
            next: 0,
            jobs: Vec::new(),
            weight: 0,
            grouped: 0,
            directories: 0,
            last_directory: None,
        }
    }

    /// So many bytes may stand in an entry. In an encrypted repository content is sealed apart from trees, the smallest too.
    pub(super) fn inline_bytes_max(&self) -> usize {
        if self.cuts.is_some() { 0 } else { limits::INLINE_BYTES_MAX }
    }

    /// What cuts a file by its content.
    pub(super) fn slicer(&self) -> Slicer {
        Slicer::new(self.cuts)
    }

    /// Refuses when somebody has asked to stop.
    ///
    /// # Errors
    /// [`CaptureError::Cancelled`].
    pub(super) fn check(&self) -> Result<(), Halt> {
        if self.progress.is_cancelled() { Err(CaptureError::Cancelled.into()) } else { Ok(()) }
    }

    /// Adds a job to the unit that is being filled.
    ///
    /// # Errors
    /// [`Halt`] when the capture ends early.
    pub(super) fn add(&mut self, job: Job) -> Result<(), Halt> {
        self.weight += JOB_BYTES;
        if let Job::Read(read) = &job {
            if self.last_directory.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &read.directory)) {
                self.directories += 1;
                self.last_directory = Some(Arc::clone(&read.directory));
            }
            if read.stat.kind == Kind::File {
                let bytes = usize::try_from(read.stat.meta.size).unwrap_or(usize::MAX);
                self.weight = self.weight.saturating_add(bytes);
                if bytes > limits::INLINE_BYTES_MAX && bytes <= limits::GROUPED_CHUNK_BYTES_MAX {
                    self.grouped += bytes;
                }
            }
        }
        self.jobs.push(job);
        let full = self.grouped >= UNIT_GROUPED_BYTES
            || self.weight >= UNIT_BYTES
            || self.jobs.len() >= UNIT_JOBS_MAX
            || self.directories >= UNIT_DIRECTORIES_MAX;
        if full { self.flush() } else { Ok(()) }
    }

    /// Sends the unit that is being filled.
    ///
    /// # Errors
    /// As [`Planner::add`].
    pub(super) fn flush(&mut self) -> Result<(), Halt> {
        let (jobs, weight) = (std::mem::take(&mut self.jobs), std::mem::take(&mut self.weight));
        self.grouped = 0;
        self.directories = 0;
        self.last_directory = None;
        if jobs.is_empty() { Ok(()) } else { self.send(jobs, weight) }
    }

    /// Sends all there is and waits until it has been recorded; what came back.
    ///
    /// # Errors
    /// As [`Planner::add`].
    pub(super) fn settle(&mut self) -> Result<Vec<Deferred>, Halt> {
        self.flush()?;
        if self.gate.empty() { Ok(self.later.take()) } else { Err(Halt::Elsewhere) }
    }

    /// Sends a unit of its own: parts of a large file, whose bytes are `weight`.
    ///
    /// # Errors
    /// As [`Planner::add`].
    pub(super) fn send_alone(&mut self, jobs: Vec<Job>, weight: usize) -> Result<(), Halt> {
        self.send(jobs, weight + JOB_BYTES)
    }

    fn send(&mut self, jobs: Vec<Job>, weight: usize) -> Result<(), Halt> {
        self.check()?;
        if !self.gate.enter(weight) {
            return Err(Halt::Elsewhere);
        }
        let unit = Unit { number: self.next, weight, jobs };
        self.next += 1;
        self.queue.send(unit).map_err(|_| Halt::Elsewhere)
    }
}
