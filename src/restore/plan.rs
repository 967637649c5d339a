//! Cuts a restore into units of work, by where contents are stored.
//!
//! Directories are made at once, on the way down. Files gather in a window, which is sorted by the
//! frames that hold them and handed out in units; files that share a frame are in one unit, so it is
//! decoded once while it is in the cache. Windows and the queue of units are bounded, and with them
//! memory and open directories.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;

use super::claim::Claim;
use super::directory::{Directory, Name};
use super::error::RestoreError;
use super::outcome::{Report, count};

use super::trail::Trail;
use super::walk::{Place, Visitor};
use crate::base::Class;
use crate::format::entry::{Body, Content};
use crate::format::{FrameOrdinal, PackId};
use crate::view::Inode;
use crate::view::namespace::ViewError;

/// Names in a window.
const WINDOW_NAMES: usize = 1024;
/// Bytes of content in a window: workers are not kept waiting for names.
const WINDOW_BYTES: u64 = 64 << 20;
/// Names in a unit, from which on it ends with its frame.
const UNIT_NAMES: usize = 64;
/// Bytes of content in a unit, from which on it ends with its frame.
const UNIT_BYTES: u64 = 4 << 20;
/// Names, and bytes of content, after which what was restored is made durable.
const SYNC_AFTER: (u64, u64) = (200_000, 8 << 30);

/// A name that is to be restored or compared.
#[derive(Debug)]
pub(super) struct Job {
    /// Where.
    pub(super) directory: Arc<Directory>,
    /// Under which name.
    pub(super) name: Name,
    /// Relative to the target, for messages.
    pub(super) path: Vec<u8>,
    /// Which item of its directory it is.
    pub(super) number: u64,
    /// What.
    pub(super) inode: Inode,
}

/// Jobs that one worker does in order.
pub(super) type Unit = Vec<Job>;

/// What a walk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// To make what is not there.
    Make,
    /// To read what was made.
    Compare,
}

/// Follows a walk and hands out units.
pub(super) struct Planner<'a> {
    pub(super) aim: Aim,
    pub(super) claim: &'a Claim,
    pub(super) report: &'a Report<'a>,
    pub(super) trail: Trail,
    pub(super) units: Sender<Unit>,
    window: Vec<Job>,
    window_bytes: u64,
    /// Names and bytes that were restored when everything was made durable last.
    synced: (u64, u64),
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        aim: Aim,
        claim: &'a Claim,
        report: &'a Report<'a>,
        target: &Arc<Directory>,
        units: Sender<Unit>,
    ) -> Planner<'a> {
        let trail = Trail::new(Arc::clone(target));
        Planner { aim, claim, report, trail, units, window: Vec::new(), window_bytes: 0, synced: (0, 0) }
    }

    /// Takes a name into the window.
    ///
    /// # Errors
    /// Why the restore has to end.
    pub(super) fn add(&mut self, job: Job) -> Result<(), RestoreError> {
        self.window_bytes += job.inode.entry().data_bytes();
        self.window.push(job);
        if self.window.len() >= WINDOW_NAMES || self.window_bytes >= WINDOW_BYTES { self.flush() } else { Ok(()) }
    }

    /// Hands out what is in the window.
    ///
    /// # Errors
    /// Why the restore has to end.
    pub(super) fn flush(&mut self) -> Result<(), RestoreError> {
        self.report.check()?;
        let mut window: Vec<(Option<(PackId, FrameOrdinal)>, Job)> =
            self.window.drain(..).map(|job| (frame(&job), job)).collect();
        self.window_bytes = 0;
        window.sort_by_key(|(frame, _)| *frame);
        let mut unit = Unit::new();
        let (mut bytes, mut last) = (0, None);
        for (frame, job) in window {
            let full = unit.len() >= UNIT_NAMES || bytes >= UNIT_BYTES;
            if full && (frame.is_none() || frame != last) {
                self.hand_out(std::mem::take(&mut unit));
                bytes = 0;
            }
            bytes += job.inode.entry().data_bytes();
            last = frame;
            unit.push(job);
        }
        self.hand_out(unit);
        self.make_durable()
    }

    fn hand_out(&self, unit: Unit) {
        // Fails only when all workers are gone, which the next check finds.
        if !unit.is_empty() {
            drop(self.units.send(unit));
        }
    }

    /// From time to time makes durable what was restored so far.
    fn make_durable(&mut self) -> Result<(), RestoreError> {
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let now = (of(&self.report.files), of(&self.report.bytes));
        let due = now.0 - self.synced.0 >= SYNC_AFTER.0 || now.1 - self.synced.1 >= SYNC_AFTER.1;
        if self.aim == Aim::Compare || !due {
            return Ok(());
        }
        self.synced = now;
        let failed = |source| RestoreError::Write { action: "synchronise", path: String::new(), source };
        self.claim.synchronise().map_err(failed)
    }

    /// The directory `name` in the current one, made if it is missing; none if that cannot be.
    fn directory(&self, name: &Name, path: &[u8]) -> Option<Directory> {
        let here = self.trail.here();
        if self.aim == Aim::Compare {
            // What could not be made has been told.
            return here.open_dir(name).ok();
        }
        let made = match here.make_dir(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.existing(name, path)?,
            made => made,
        };
        match made {
            Ok(directory) => {
                count(&self.report.directories);
                Some(directory)
            }
            Err(error) => {
                self.report.refused(path, "make the directory", error);
                None
            }
        }
    }

    /// What already has the name of a directory: that directory, or something in its way.
    fn existing(&self, name: &Name, path: &[u8]) -> Option<io::Result<Directory>> {
        let here = self.trail.here();
        let stat = match here.stat(name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Some(here.make_dir(name)),
            Err(error) => return Some(Err(error)),
        };
        if stat.is_dir() && (self.claim.may_replace() || name.bytes() == b"lost+found") {
            return Some(here.open_dir(name).and_then(|directory| directory.make_usable().map(|()| directory)));
        }
        if !self.claim.may_replace() {
            self.report.problem(path, Class::Conflict, in_the_way());
            return None;
        }
        // Whatever it is, a symbolic link too: only the name goes.
        Some(here.unlink(name).and_then(|()| here.make_dir(name)))
    }
}

/// What to say of a name that is taken by something that appeared while the restore ran, or that the target's
/// filesystem does not tell apart from another.
pub(super) fn in_the_way() -> String {
    "something with this name is there already: another process made it, or the filesystem ignores case".to_owned()
}

/// The frame that holds a job's first bytes, as far as its entry tells.
fn frame(job: &Job) -> Option<(PackId, FrameOrdinal)> {
    match &job.inode.entry().body {
        Body::File(Content::Extents(extents)) => {
            extents.first().map(|extent| (extent.chunk.frame.pack, extent.chunk.frame.ordinal))
        }
        _ => None,
    }
}

impl Visitor for Planner<'_> {
    fn enter(&mut self, place: Place<'_>, _: &Inode) -> Result<bool, RestoreError> {
        self.report.check()?;
        let Some(name) = self.name(&place) else { return Ok(false) };
        let Some(directory) = self.directory(&name, place.path) else { return Ok(false) };
        self.report.progress.at(place.path);
        let directory = Arc::new(directory);
        self.claim.touches(&directory);
        self.trail.enter(directory);
        Ok(true)
    }

    fn file(&mut self, place: Place<'_>, inode: Inode) -> Result<(), RestoreError> {
        let Some(name) = self.name(&place) else { return Ok(()) };
        let directory = Arc::clone(self.trail.here());
        self.add(Job { directory, name, path: place.path.to_vec(), number: place.number, inode })
    }

    fn leave(&mut self, path: &[u8], _: &Inode) -> Result<(), RestoreError> {
        let lost = |source| RestoreError::Write {
            action: "go back up from",
            path: String::from_utf8_lossy(path).into_owned(),
            source,
        };
        self.trail.leave().map_err(lost)
    }

    fn fault(&mut self, path: &[u8], what: &str, error: &ViewError) -> Result<(), RestoreError> {
        if self.aim == Aim::Make {
            self.report.fault(path, what, error);
        }
        self.report.check()
    }
}

impl Planner<'_> {
    /// The name of `place`, unless it is none or one of ours.
    fn name(&self, place: &Place<'_>) -> Option<Name> {
        let name = Name::new(place.name).filter(|name| !self.claim.is_own(name));
        if name.is_none() && self.aim == Aim::Make {
            self.report.problem(place.path, Class::Corrupt, "this is no file name".to_owned());
        }
        name
    }
}
