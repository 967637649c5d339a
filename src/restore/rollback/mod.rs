//! Puts a source itself back to one of its points, by the difference only.
//!
//! ```text
//!  hook        stops and starts what uses the source
//!  unfinished  the note that a rollback is under way
//!  disk        a device or image, by the hashes in the point's map
//!  tree        a directory, by the difference between the safety point and the point
//!  change      one name of it
//!  doubt       what a point does not know
//! ```
//!
//! ```text
//! stop hook → open for nobody else → fence → safety point → all that is needed can be read → note
//!   → write what differs → synchronise → fence → new head → remove the note → start hook
//! ```
//!
//! Crash behaviour: nothing is written before the safety point stands in the log and the note on disk.
//! Killed at any moment after that, the same rollback continues without another safety point, unless
//! somebody has used the source meanwhile. The start hook runs unless the source is half one point and
//! half another: while the note stands, nothing is started.
//!
//! The fences (floors of the log) are there because a capture that reads the source while it is rolled
//! back has read a mixture: it must not become the head.

mod change;
mod disk;
mod doubt;
mod hook;
mod tree;
mod unfinished;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::disk::{Disk, Held, no_safety};
use self::doubt::Doubts;
use self::hook::Hook;
use self::unfinished::Desk;
use super::directory::Directory;
use super::error::RestoreError;
use super::progress::Progress;
use crate::capture;
use crate::chain::state::{Dependents, SourceGoal};
use crate::chain::{Point, SourceLog, SourceState};
use crate::format::PointId;
use crate::format::log::SourceRecord;
use crate::repo::Repo;
use crate::view::PointView;
use crate::view::disk::DiskView;
use crate::view::namespace::ViewError;

pub use self::disk::DiskRolled;
pub use self::tree::TreeRolled;
pub use self::unfinished::{Unfinished, unfinished};

/// The label of the point that holds what a source was before a rollback.
pub const SAFETY_LABEL: &str = "before-rollback";
/// How long a hook may take unless told otherwise.
pub const HOOK_LIMIT: Duration = Duration::from_secs(300);

/// What is to be rolled back, and to what.
#[derive(Debug, Clone, Copy)]
pub struct WantedRollback<'a> {
    /// The repository.
    pub repo: &'a Arc<Repo>,
    /// The source's log.
    pub log: &'a SourceLog,
    /// The source; never a stream.
    pub source: &'a SourceRecord,
    /// The point.
    pub point: &'a Point,
    /// Where the source is on this machine.
    pub place: &'a Path,
    /// The words that the point was asked for with: see [`Unfinished::asked`].
    pub asked: &'a str,
}

/// How a rollback is wanted.
#[derive(Debug, Clone)]
pub struct RollbackOptions {
    /// Keep a point of what the source was before. A tree is captured in any case, because the difference is made
    /// against that; the point is deleted afterwards then.
    pub safety_point: bool,
    /// Replace and remove also what no point has a copy of, or may not have; take a device of another size for the source.
    pub force: bool,
    /// Count only, change nothing. Of a tree, against the newest point, and at most.
    pub dry_run: bool,
    /// Read back what was written.
    pub verify: bool,
    /// How the source is captured. What the point's own capture left out is left alone besides.
    pub capture: capture::Options,
    /// The program, with its arguments, that stops what uses the source; may be empty.
    pub stop: Vec<String>,
    /// The program that lets it go on.
    pub start: Vec<String>,
    /// How long each of them may take.
    pub hook_limit: Duration,
    /// Where notes are kept.
    pub state: PathBuf,
    /// Threads that decode and write; none lets the machine's size decide.
    pub workers: Option<usize>,
}

/// How far a rollback is.
#[derive(Debug, Default)]
pub struct RollbackProgress {
    /// Of the safety point's capture.
    pub capture: capture::Progress,
    /// Of what comes then.
    pub writing: Progress,
    captured: AtomicBool,
}

impl RollbackProgress {
    /// Of a rollback that has not begun.
    pub fn new() -> RollbackProgress {
        RollbackProgress::default()
    }

    /// Whether the safety point is behind it.
    pub fn is_captured(&self) -> bool {
        self.captured.load(Ordering::Relaxed)
    }

    /// Asks it to stop soon; it can be continued.
    pub fn cancel(&self) {
        self.writing.cancel();
        self.capture.cancel();
    }
}

/// How a rollback went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rolled {
    /// Whether an interrupted one was continued.
    pub resumed: bool,
    /// Whether it is through. If not, the same command makes up for what the repository did not give.
    pub complete: bool,
    /// The point that holds what the source was before, if it was kept.
    pub safety: Option<String>,
    /// Files that are not in it as they were, and were therefore left alone.
    pub safety_problems: u64,
    /// Selectors of the points that hold what the source was before rollbacks that had not ended.
    pub earlier: Vec<String>,
    /// What was done, of a disk.
    pub disk: Option<DiskRolled>,
    /// What was done, of a tree.
    pub tree: Option<TreeRolled>,
    /// Why what uses the source was not started, or may not have been.
    pub not_started: Option<String>,
}

/// Puts the source back.
///
/// # Errors
/// [`RestoreError`] when nothing was done, or when it could not go on; the same call continues then.
pub fn rollback(
    wanted: &WantedRollback<'_>,
    options: &RollbackOptions,
    progress: &RollbackProgress,
) -> Result<Rolled, RestoreError> {
    let capture = scoped(&options.capture, wanted.point)?;
    let subject = Subject::find(wanted)?;
    if options.dry_run {
        return subject.dry_run(wanted, options, &capture, progress);
    }
    let desk = Desk::take(&options.state, wanted.repo.id(), wanted.source.id, wanted.place)?;
    if let (Subject::Disk(disk, _), true) = (&subject, options.stop.is_empty()) {
        // With a hook it may still be in use: ending that is what the hook is for.
        disk.refuse_used()?;
    }
    let run = Run { wanted, options, capture, progress, desk: &desk };
    let hook = |which, command| Hook { which, command, limit: options.hook_limit };
    let stopped = hook("stop", &options.stop).run(|| progress.writing.is_cancelled());
    let done = stopped.and_then(|()| run.write());
    if desk.read().is_some() && !options.start.is_empty() {
        let why = "it is not whole yet, and what uses it was left stopped";
        return done.map(|rolled| Rolled { not_started: Some(why.to_owned()), ..rolled });
    }
    let started = hook("start", &options.start).run(|| false);
    match (done, started) {
        (Ok(rolled), Ok(())) => Ok(rolled),
        (Ok(rolled), Err(error)) => Ok(Rolled { not_started: Some(error.to_string()), ..rolled }),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(also)) => {
            tracing::error!(%also, "the source's start hook failed, too");
            Err(error)
        }
    }
}

/// How the source is captured so that nothing is in the safety point which the point's own capture left out: it may
/// have been there at the time.
fn scoped(options: &capture::Options, point: &Point) -> Result<capture::Options, RestoreError> {
    let mut options = options.clone();
    if let Some(scope) = &point.commit.scope {
        options.excludes =
            options.excludes.and(scope.excludes.as_deref().unwrap_or_default()).map_err(RestoreError::Safety)?;
        options.exclude_caches |= scope.exclude_caches;
        options.cross_filesystems &= scope.cross_filesystems;
    }
    Ok(options)
}

/// What is rolled back.
enum Subject {
    Disk(Disk, Box<DiskView>),
    Tree(Box<PointView>),
}

/// The same, open for writing.
enum Opened {
    Disk(Disk, Box<DiskView>, Held),
    Tree(Box<PointView>, Arc<Directory>),
}

impl Subject {
    fn find(wanted: &WantedRollback<'_>) -> Result<Subject, RestoreError> {
        let view = PointView::new(wanted.repo, wanted.source.id, &wanted.point.commit.roots);
        match &wanted.point.commit.disk {
            Some(facts) => {
                let disk = DiskView::new(view, None, facts)?;
                Ok(Subject::Disk(Disk::find(wanted.place, &disk)?, Box::new(disk)))
            }
            None => {
                place(wanted.place, Path::metadata(wanted.place))?;
                Ok(Subject::Tree(Box::new(view)))
            }
        }
    }

    fn open(self, wanted: &WantedRollback<'_>) -> Result<Opened, RestoreError> {
        Ok(match self {
            Subject::Disk(disk, view) => {
                let file = disk.open()?;
                Opened::Disk(disk, view, file)
            }
            Subject::Tree(view) => Opened::Tree(view, Arc::new(place(wanted.place, Directory::at(wanted.place))?)),
        })
    }

    fn dry_run(
        &self,
        wanted: &WantedRollback<'_>,
        options: &RollbackOptions,
        capture: &capture::Options,
        progress: &RollbackProgress,
    ) -> Result<Rolled, RestoreError> {
        progress.captured.store(true, Ordering::Relaxed);
        let mut rolled = Rolled { complete: true, ..Rolled::default() };
        match self {
            Subject::Disk(disk, view) => rolled.disk = Some(disk.dry_run(view, &progress.writing)?),
            Subject::Tree(view) => {
                let state = wanted.log.load()?;
                let newest = state.head().or_else(|| state.newest()).map_or(wanted.point, |head| head);
                let now = PointView::new(wanted.repo, wanted.source.id, &newest.commit.roots);
                let how = tree::How {
                    removal: Doubts::of_removal(&wanted.repo.reader(wanted.source.id), wanted.point)?,
                    ..tree::How::of(options, capture, newest)
                };
                rolled.tree = Some(tree::roll_back(&now, view, None, &how, &progress.writing)?);
            }
        }
        Ok(rolled)
    }
}

/// What was asked of the source's place, with advice when it is not there.
fn place<T>(path: &Path, asked: std::io::Result<T>) -> Result<T, RestoreError> {
    asked.map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => RestoreError::NoSource { path: path.to_owned() },
        _ => RestoreError::Target { path: path.to_owned(), source },
    })
}

/// A rollback while what uses the source stands still.
struct Run<'a> {
    wanted: &'a WantedRollback<'a>,
    options: &'a RollbackOptions,
    /// How the source is captured.
    capture: capture::Options,
    progress: &'a RollbackProgress,
    desk: &'a Desk,
}

/// How a rollback begins.
#[derive(Default)]
struct Start {
    resumed: bool,
    /// What is there was captured as this, when writing began.
    safety: Option<Arc<Point>>,
    earlier: Vec<String>,
}

impl Run<'_> {
    fn write(&self) -> Result<Rolled, RestoreError> {
        // Found again, because the hook may have brought another device to the place. Held from before the safety point,
        // so that nothing comes between it and the rollback.
        let opened = Subject::find(self.wanted)?.open(self.wanted)?;
        let state = self.fence()?;
        if state.point(self.wanted.point.id).is_none() {
            return Err(RestoreError::Gone { title: self.title(self.wanted.point) });
        }
        let start = self.start(&opened, &state)?;
        self.progress.captured.store(true, Ordering::Relaxed);
        let mut rolled = Rolled {
            resumed: start.resumed,
            safety_problems: start.safety.as_ref().map_or(0, |point| point.commit.stats.problems),
            earlier: start.earlier.clone(),
            ..Rolled::default()
        };
        rolled.complete = match &opened {
            Opened::Disk(disk, view, file) => {
                disk.rehearse(file, view, &self.progress.writing)?;
                rolled.safety = self.begin(&start)?;
                let (workers, verify) = (self.options.workers, self.options.verify);
                rolled.disk = Some(disk.write(file, view, workers, verify, &self.progress.writing)?);
                true
            }
            Opened::Tree(view, root) => {
                let none = || ViewError::contradiction("a directory is rolled back without a safety point");
                let safety = start.safety.as_ref().ok_or_else(none)?;
                let how = self.how(root, safety, start.resumed)?;
                rolled.safety = self.begin(&start)?;
                let now = PointView::new(self.wanted.repo, self.wanted.source.id, &safety.commit.roots);
                let tree = tree::roll_back(&now, view, Some(root), &how, &self.progress.writing)?;
                let complete = tree.complete;
                rolled.tree = Some(tree);
                complete
            }
        };
        if rolled.complete {
            self.fence()?;
            self.wanted.log.append(SourceGoal::Head(self.wanted.point.id))?;
            if let Some(unwanted) = start.safety.filter(|_| rolled.safety.is_none()) {
                rolled.safety = self.forget(&unwanted);
            }
            self.desk.clear()?;
        }
        Ok(rolled)
    }

    fn title(&self, point: &Point) -> String {
        format!("{}#{}", self.wanted.source.name, point.id)
    }

    /// Makes void what captures commit that have begun already, and so shows as well that the log takes entries.
    fn fence(&self) -> Result<Arc<SourceState>, RestoreError> {
        let next = self.wanted.log.refresh()?.read().next();
        self.wanted.log.append(SourceGoal::Floor(next))?;
        Ok(self.wanted.log.refresh()?)
    }

    /// Continues what has begun, or captures what the source is.
    fn start(&self, opened: &Opened, state: &SourceState) -> Result<Start, RestoreError> {
        let Some(before) = self.desk.read() else { return self.anew(opened, state, Vec::new()) };
        let head = state.head().map_or(0, |head| head.id.0);
        let captured = before.captured.and_then(|id| state.point(PointId(id)));
        if head == before.point && head != before.head {
            // All of it was done but taking the note away.
            if let (None, Some(unwanted)) = (&before.safety, captured) {
                self.forget(unwanted);
            }
            self.desk.clear()?;
            return self.anew(opened, state, Vec::new());
        }
        let is_ours = before.point == self.wanted.point.id.0 && before.place == self.wanted.place;
        let newest = state.committed().last().map_or(0, |newest| newest.id.0);
        let is_known = head == before.head && newest == before.newest;
        let earlier = || before.earlier.iter().cloned();
        if is_ours && is_known && self.is_unused(opened, captured)? {
            return Ok(Start { resumed: true, safety: captured.cloned(), earlier: earlier().collect() });
        }
        self.anew(opened, state, earlier().chain(before.safety.clone()).collect())
    }

    /// Whether nobody but a rollback has written to the source since its safety point. Of a tree that is judged name by
    /// name.
    fn is_unused(&self, opened: &Opened, safety: Option<&Arc<Point>>) -> Result<bool, RestoreError> {
        let WantedRollback { repo, source, .. } = *self.wanted;
        match (opened, safety) {
            (Opened::Tree(..), safety) => Ok(safety.is_some()),
            // What it was is not kept in any case.
            (Opened::Disk(..), None) => Ok(!self.options.safety_point),
            (Opened::Disk(disk, view, _), Some(safety)) => {
                let Some(facts) = &safety.commit.disk else { return Ok(false) };
                let was = DiskView::new(PointView::new(repo, source.id, &safety.commit.roots), None, facts)?;
                disk.is_on_its_way(&was, view, &self.progress.writing)
            }
        }
    }

    fn anew(&self, opened: &Opened, state: &SourceState, earlier: Vec<String>) -> Result<Start, RestoreError> {
        let WantedRollback { repo, log, source, place: path, .. } = *self.wanted;
        let mut options = self.capture.clone();
        options.labels.push(SAFETY_LABEL.to_owned());
        let progress = &self.progress.capture;
        let head = state.head();
        let captured = match opened {
            Opened::Disk(disk, ..) => {
                let facts = head.and_then(|head| head.commit.disk.as_ref());
                if let Some(facts) = facts.filter(|_| !self.options.force) {
                    disk.refuse_another(facts.bytes)?;
                }
                if !self.options.safety_point {
                    return Ok(Start { earlier, ..Start::default() });
                }
                options.disk_chunk_bytes = options.disk_chunk_bytes.or(facts.map(|facts| facts.chunk_bytes));
                capture::capture_disk(repo, log, source, path, &options, progress)
            }
            Opened::Tree(_, root) => {
                let had = head.is_some_and(|head| head.commit.stats.files + head.commit.stats.others > 0);
                if had && !self.options.force && place(path, root.names())?.is_empty() {
                    return Err(RestoreError::Vanished { path: path.to_owned() });
                }
                capture::capture_tree(repo, log, source, path, &options, progress)
            }
        };
        let safety = captured.map(|outcome| outcome.point).map_err(no_safety)?;
        // The path led where it leads now; so the capture is of what is open.
        let is_same = match opened {
            Opened::Disk(disk, _, file) => disk.is_open_as(file, path),
            Opened::Tree(_, root) => Directory::at(path).is_ok_and(|now| now.identity() == root.identity()),
        };
        if !is_same {
            return Err(RestoreError::Moved { path: path.to_owned() });
        }
        Ok(Start { resumed: false, safety: Some(safety), earlier })
    }

    /// Leaves the note; the selector of the safety point, if it is to stay.
    fn begin(&self, start: &Start) -> Result<Option<String>, RestoreError> {
        if start.resumed {
            return Ok(self.desk.read().and_then(|before| before.safety));
        }
        let kept = start.safety.as_deref().filter(|_| self.options.safety_point).map(|point| self.title(point));
        let state = self.wanted.log.refresh()?;
        let id = |point: Option<&Arc<Point>>| point.map_or(0, |point| point.id.0);
        self.desk.write(&Unfinished {
            asked: self.wanted.asked.to_owned(),
            title: self.title(self.wanted.point),
            point: self.wanted.point.id.0,
            safety: kept.clone(),
            earlier: start.earlier.clone(),
            captured: start.safety.as_ref().map(|point| point.id.0),
            newest: id(state.committed().last()),
            head: id(state.head()),
            place: self.wanted.place.to_owned(),
        })?;
        Ok(kept)
    }

    /// Deletes a safety point that is not wanted any more; its selector if it stays all the same.
    fn forget(&self, unwanted: &Point) -> Option<String> {
        let deleted = self.wanted.log.append(SourceGoal::Delete(vec![unwanted.id], Dependents::Refuse));
        deleted.err().map(|error| {
            tracing::warn!(%error, "the rollback's safety point could not be deleted");
            self.title(unwanted)
        })
    }

    fn how(&self, root: &Directory, safety: &Point, resumed: bool) -> Result<tree::How, RestoreError> {
        let WantedRollback { repo, source, point, .. } = *self.wanted;
        let reader = repo.reader(source.id);
        // What is written to meanwhile by ourselves, wherever it lies in the source.
        let own = [Some(self.options.state.as_path()), repo.store().local_root()];
        let own = own.into_iter().flatten().filter_map(|path| Some(Directory::at(path).ok()?.identity()));
        let copies = Doubts::of_copies(&reader, safety)?;
        if copies.is_all() && !self.options.force {
            return Err(RestoreError::Unreadable { problems: safety.commit.stats.problems });
        }
        Ok(tree::How {
            resumed,
            spared: own.filter(|own| *own != root.identity()).collect(),
            removal: Doubts::of_removal(&reader, point)?,
            copies,
            ..tree::How::of(self.options, &self.capture, safety)
        })
    }
}
