//! Walks a source depth first and tells, in order, what is there.
//!
//! For each directory: [`Step::Enter`], a [`Step::Name`] for each name in the order of its bytes,
//! [`Step::Listed`], then the same for each subdirectory in order, then [`Step::Leave`]. Names that
//! are subdirectories are announced in their place and entered (or [`Step::Lost`]) later, in the same
//! order, so whoever follows needs a queue and no search.
//!
//! Scouts look ahead: at the next names of the directory that is being told, and at its next
//! subdirectories. What they find changes how long the walk takes and nothing else.
//!
//! Invariants: at most [`OPEN_MAX`] directories of the path are held open, whatever its depth, and a
//! bounded number ahead of it; memory follows the names on the path, not the tree. A directory that was
//! closed is found again through `..` of the one below, or by its names from the root, and must then
//! be the same inode.
//!
//! The walk does not read files, and what changes behind it is noticed by whoever reads.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use self::ground::{Ground, Listed, RUN, Run, Survey};
use self::scouts::{Ahead, FRESH, LISTING_BYTES, Scouts};
use super::boundary::{Barrier, Boundary};
use super::directory::{Directory, Names, Place, shown};
use super::error::CaptureError;
use super::exclude::Excludes;
use super::stat::Stat;
use crate::format::log::{Problem, ProblemKind};

mod ground;
mod scouts;

/// Directories of the current path that are held open.
const OPEN_MAX: usize = 48;
/// Runs of names of one directory that are looked at ahead.
const RUNS_AHEAD: usize = 8;
/// Subdirectories of one directory that are looked at ahead.
const SUBDIRECTORIES_AHEAD: usize = 16;
/// Names of a directory that is held before it is entered.
const NAMES_AHEAD_MAX: usize = 1 << 14;

/// What the walk comes across.
#[derive(Debug)]
pub(super) enum Step {
    /// A directory begins; all names up to [`Step::Listed`] are its own.
    Enter(Entered),
    /// A name that is no directory.
    Name(Vec<u8>, Stat),
    /// A name that is a directory, which will be entered or lost later.
    Announce(Vec<u8>),
    /// A name that is there, or was when the directory was listed, and cannot be captured.
    Failed(Vec<u8>, Problem),
    /// All names of the directory have been told.
    Listed,
    /// An announced directory that will not be entered after all.
    Lost(Vec<u8>, Problem),
    /// A directory and all below it are done.
    Leave,
    /// The walk cannot go on. Never told: it is the walk's failure.
    Halted(CaptureError),
}

/// A directory that was entered.
#[derive(Debug)]
pub(super) struct Entered {
    /// Its name in the directory above; empty for the root.
    pub(super) name: Vec<u8>,
    /// What it is.
    pub(super) stat: Stat,
    /// The directory itself, or why it counts as empty.
    pub(super) open: Result<Arc<Directory>, Barrier>,
}

/// What a walk leaves out, besides what its boundary bars.
#[derive(Debug)]
pub(super) struct Rules {
    /// Paths that do not count.
    pub(super) excludes: Excludes,
    /// Whether of a directory tagged as a cache only the tag counts.
    pub(super) skip_caches: bool,
}

/// A walk under way.
pub(super) struct Walk {
    ground: Arc<Ground>,
    scouts: Scouts,
    buffer: Vec<u8>,
    stack: Vec<Level>,
    /// The root, until it has been entered.
    start: Option<Directory>,
}

/// One directory of the current path.
struct Level {
    /// None while it is closed, and when it is behind the boundary.
    open: Option<Arc<Directory>>,
    place: Place,
    names: Arc<Names>,
    /// What stands under the names from `told` on, as far as it is known.
    run: std::vec::IntoIter<Option<Step>>,
    /// When it was found: what is too old is looked at again.
    found: Instant,
    /// The next name to tell.
    told: usize,
    /// What follows `run`, as far as it has been asked for.
    runs: VecDeque<Ahead<Run>>,
    /// Subdirectories that were announced, as indexes of names, and the next to enter.
    announced: Vec<usize>,
    entered: usize,
    /// What the next to enter are, as far as it has been asked for.
    surveys: VecDeque<Ahead<Survey>>,
    listed: bool,
}

impl Level {
    fn new(open: Option<Arc<Directory>>, place: Place, names: Arc<Names>, first: Run) -> Level {
        Level {
            open,
            place,
            names,
            run: first.into_iter(),
            found: Instant::now(),
            told: 0,
            runs: VecDeque::new(),
            announced: Vec::new(),
            entered: 0,
            surveys: VecDeque::new(),
            listed: false,
        }
    }

    /// Closes the directory, and all that was opened through it.
    fn close(&mut self) {
        self.open = None;
        self.surveys.clear();
    }
}

impl Walk {
    /// A walk of everything below `root`, with `scouts` threads that look ahead.
    pub(super) fn new(root: Directory, boundary: Boundary, rules: Rules, scouts: usize) -> Walk {
        Walk {
            ground: Arc::new(Ground { rules, boundary }),
            scouts: Scouts::new(scouts),
            buffer: vec![0; LISTING_BYTES],
            stack: Vec::new(),
            start: Some(root),
        }
    }

    /// The next step; none at the end.
    ///
    /// # Errors
    /// [`CaptureError::Root`] when the root itself cannot be listed; nothing below it is fatal but
    /// [`CaptureError::Machine`].
    pub(super) fn step(&mut self) -> Result<Option<Step>, CaptureError> {
        match self.next()? {
            Some(Step::Halted(error)) => Err(error),
            other => Ok(other),
        }
    }

    fn next(&mut self) -> Result<Option<Step>, CaptureError> {
        if let Some(root) = self.start.take() {
            let path = root.absolute().unwrap_or_default();
            let listed = self
                .ground
                .list(root, &mut self.buffer, usize::MAX)
                .map_err(|source| CaptureError::Root { path, source })?;
            return Ok(listed.map(|listed| self.enter(Vec::new(), listed)));
        }
        if self.stack.is_empty() {
            return Ok(None);
        }
        if let Some(step) = self.name() {
            return Ok(Some(step));
        }
        let Some(level) = self.stack.last_mut() else { return Ok(None) };
        if !level.listed {
            level.listed = true;
            return Ok(Some(Step::Listed));
        }
        if let Some(step) = self.descend() {
            return Ok(Some(step));
        }
        self.ascend();
        Ok(Some(Step::Leave))
    }

    /// What stands under the next name of the deepest directory that is not left out.
    fn name(&mut self) -> Option<Step> {
        loop {
            let level = self.stack.last_mut()?;
            if level.run.len() > 0 && level.found.elapsed() > FRESH {
                let open = level.open.as_ref()?;
                let rest = level.told..level.told + level.run.len();
                level.run = self.ground.run(open, &level.names, rest).into_iter();
                level.found = Instant::now();
            }
            for step in level.run.by_ref() {
                let index = level.told;
                level.told += 1;
                if let Some(step) = step {
                    if matches!(step, Step::Announce(_)) {
                        level.announced.push(index);
                    }
                    return Some(step);
                }
            }
            let open = level.open.as_ref().filter(|_| level.told < level.names.len())?;
            let ahead = level.runs.pop_front().and_then(|ahead| ahead.take(&mut self.buffer));
            let next = level.told..level.told + RUN;
            let run = ahead.unwrap_or_else(|| self.ground.run(open, &level.names, next));
            level.run = run.into_iter();
            level.found = Instant::now();
            self.look_ahead();
        }
    }

    /// Asks for the next names of the deepest directory.
    fn look_ahead(&mut self) {
        let depth = self.stack.len();
        let Some(level) = self.stack.last_mut() else { return };
        let Some(open) = &level.open else { return };
        while level.runs.len() < RUNS_AHEAD {
            let start = level.told + level.run.len() + level.runs.len() * RUN;
            if start >= level.names.len() {
                break;
            }
            let (ground, open, names) = (Arc::clone(&self.ground), Arc::clone(open), Arc::clone(&level.names));
            let run = self.scouts.ask(depth, move |_| ground.run(&open, &names, start..start + RUN));
            match run {
                Some(run) => level.runs.push_back(run),
                None => break,
            }
        }
    }

    /// Asks for the next subdirectories of the deepest directory.
    fn survey_ahead(&mut self) {
        let depth = self.stack.len();
        let Some(level) = self.stack.last_mut() else { return };
        let Some(open) = &level.open else { return };
        while level.surveys.len() < SUBDIRECTORIES_AHEAD {
            let Some(index) = level.announced.get(level.entered + level.surveys.len()).copied() else { break };
            let (ground, open, names) = (Arc::clone(&self.ground), Arc::clone(open), Arc::clone(&level.names));
            let survey = self.scouts.ask(depth, move |buffer| {
                let name = names.get(index).map_or(&b""[..], |(name, _)| name);
                ground.survey(&open, name, buffer, NAMES_AHEAD_MAX)
            });
            match survey {
                Some(survey) => level.surveys.push_back(survey),
                None => break,
            }
        }
    }

    /// Enters the next announced directory, or tells why not; none when there is no other.
    fn descend(&mut self) -> Option<Step> {
        self.survey_ahead();
        let level = self.stack.last_mut()?;
        let (name, _) = level.announced.get(level.entered).and_then(|index| level.names.get(*index))?;
        let name = name.to_vec();
        level.entered += 1;
        let Some(above) = level.open.clone() else {
            let problem = problem(level.place.path_of(&name), &io::Error::from_raw_os_error(libc::ESTALE));
            return Some(Step::Lost(name, problem));
        };
        let ahead = level.surveys.pop_front().and_then(|ahead| ahead.take(&mut self.buffer));
        let survey = match ahead {
            None | Some(Survey::Large | Survey::Halted(_)) => {
                self.ground.survey(&above, &name, &mut self.buffer, usize::MAX)
            }
            Some(survey) => survey,
        };
        Some(match survey {
            Survey::Open(listed) => self.enter(name, listed),
            Survey::Barred(stat, barrier) => {
                // Counts as empty.
                self.stack.push(Level::new(None, above.place(), Arc::new(Names::none()), Run::new()));
                Step::Enter(Entered { name, stat, open: Err(barrier) })
            }
            Survey::Lost(problem) => Step::Lost(name, problem),
            Survey::Halted(error) => Step::Halted(error),
            // No directory has more names than can be counted.
            Survey::Large => {
                Step::Lost(name, problem(above.path().to_vec(), &io::Error::from_raw_os_error(libc::EFBIG)))
            }
        })
    }

    fn enter(&mut self, name: Vec<u8>, listed: Listed) -> Step {
        let Listed { directory, names, first } = listed;
        let entered = Entered { name, stat: *directory.stat(), open: Ok(Arc::clone(&directory)) };
        // The root stays open: from there, lost ways are found again.
        let far = self.stack.len().checked_sub(OPEN_MAX).filter(|index| *index > 0);
        if let Some(far) = far.and_then(|index| self.stack.get_mut(index)) {
            far.close();
        }
        let place = directory.place();
        self.stack.push(Level::new(Some(directory), place, names, first));
        self.look_ahead();
        Step::Enter(entered)
    }

    /// Leaves the deepest directory; the one above is opened again if it had been closed.
    fn ascend(&mut self) {
        let Some(below) = self.stack.pop() else { return };
        let Some(above) = self.stack.last() else { return };
        if above.open.is_none() {
            let up = below.open.and_then(|below| below.reopen_parent(&above.place).ok()).map(Arc::new);
            // A failure shows in every directory that is still to be entered there.
            let open = up.or_else(|| self.find_again());
            if let Some(above) = self.stack.last_mut() {
                above.open = open;
            }
        }
    }

    /// The deepest directory of the path, by its names from the root, if all are still the same inodes.
    fn find_again(&self) -> Option<Arc<Directory>> {
        let (root, path) = self.stack.split_first()?;
        let mut at = Arc::clone(root.open.as_ref()?);
        for level in path {
            let next = at.open(level.place.name()).ok()?;
            if next.stat().identity != level.place.stat().identity {
                return None;
            }
            at = Arc::new(next);
        }
        Some(at)
    }
}

/// What a failure means for the file at `path`, unless it is no fault of the file.
///
/// # Errors
/// [`CaptureError::Machine`] when descriptors or memory have run out: then files are left out for no reason of their own.
pub(super) fn trouble(path: Vec<u8>, error: &io::Error) -> Result<Problem, CaptureError> {
    match error.raw_os_error() {
        Some(code @ (libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
            Err(CaptureError::Machine { path, source: io::Error::from_raw_os_error(code) })
        }
        _ => Ok(problem(path, error)),
    }
}

/// What a failure means for the file at `path`.
pub(super) fn problem(path: Vec<u8>, error: &io::Error) -> Problem {
    let (kind, detail) = match error.raw_os_error() {
        Some(libc::ENOENT) => {
            (ProblemKind::Vanished, "was removed or renamed while the source was captured".to_owned())
        }
        Some(libc::ESTALE | libc::ENOTDIR | libc::ELOOP) => {
            (ProblemKind::Changed, "was replaced by another file while the source was captured".to_owned())
        }
        Some(libc::EOPNOTSUPP) => (ProblemKind::Unsupported, "is of a kind that cannot be stored".to_owned()),
        _ => (ProblemKind::Unreadable, format!("cannot be read: {error}")),
    };
    tracing::debug!(path = %shown(&path), ?kind, %detail, "not captured");
    Problem { path, kind, detail }
}

#[cfg(test)]
mod tests;
