//! Walks the difference of two points of a tree: what the source is now, and what it shall be again.
//!
//! Both points list a directory's names in the same order, so they are gone through side by side; a name
//! that both have with the same content and metadata costs nothing and is not even looked at in the source.
//! Of each directory the files come first, then one subdirectory after the other, then its own metadata.
//!
//! Invariants: what is in neither point is never touched, nor what is excluded, though a point may have it; what
//! cannot be read of what the source is now ends everything, and of what it was the work in its directory, because a name
//! that is not known must not be taken for one that was removed; a name of which only the inode of then cannot be read is
//! left alone; nothing is entered that is mounted below the root, unless that is asked for.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::super::attributes;
use super::super::content::Contents;
use super::super::directory::{Directory, Identity, Name};
use super::super::error::RestoreError;
use super::super::options::{Options, Policy};
use super::super::outcome::{Counts, Problem, Report, count};
use super::super::progress::Progress;
use super::super::run::workers;
use super::super::sys::{self, Handle};
use super::super::trail::Trail;
use super::super::walk::{circle, push};
use super::RollbackOptions;
use super::change::Made;
use super::doubt::Doubts;
use crate::base::{Class, Instant};
use crate::capture::{self, CACHE_TAG, Excludes, is_cache_tag};
use crate::chain::Point;
use crate::format::Key;
use crate::view::namespace::{FileKind, ViewError};
use crate::view::point::{Listed, Listing};
use crate::view::{Inode, PointView};

/// Why something is kept that the point does not have.
pub(super) const UNKNOWN: &str = "left as it is: the point does not know whether it was there, because its capture could not tell; --force removes it";

/// Descriptors that a rollback may need at once.
const DESCRIPTORS: u64 = 1024;

/// What was done to a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeRolled {
    /// Whether all that the repository holds could be had.
    pub complete: bool,
    /// What was made or put in place of something else.
    pub counts: Counts,
    /// Names that were removed, directories included.
    pub removed: u64,
    /// Files and directories that got their metadata back, and nothing else.
    pub metadata: u64,
    /// What could not be done, or was left alone.
    pub problems: Vec<Problem>,
}

impl TreeRolled {
    /// What it means as a whole; none when all was done.
    pub fn failure(&self) -> Option<Class> {
        if self.counts.damaged > 0 {
            return Some(Class::Corrupt);
        }
        self.problems.first().map(|problem| problem.class)
    }
}

/// How a tree is rolled back.
#[derive(Debug)]
pub(super) struct How {
    pub(super) policy: Policy,
    /// Replace and remove also what no point has a copy of, or may not have.
    pub(super) force: bool,
    pub(super) verify: bool,
    /// Whether a part of the names may be done already.
    pub(super) resumed: bool,
    /// What is left alone in any case.
    pub(super) excludes: Excludes,
    /// Of tagged caches, leave all but the tag alone.
    pub(super) exclude_caches: bool,
    /// Whether other filesystems below the root belong to the source.
    pub(super) cross: bool,
    /// Directories that are never entered.
    pub(super) spared: Vec<Identity>,
    /// What the point does not have but may have had.
    pub(super) removal: Doubts,
    /// What the safety point does not have as it is.
    pub(super) copies: Doubts,
    /// When the safety point's capture began.
    pub(super) started: Instant,
    pub(super) workers: usize,
}

impl How {
    /// Of a source that is what `now` is, with nothing in doubt.
    pub(super) fn of(options: &RollbackOptions, capture: &capture::Options, now: &Point) -> How {
        // In place nobody else gets what they did not have: set-id bits of one's own files are kept.
        let policy = Policy::of_process(&Options { set_id: Some(true), ..Options::default() });
        How {
            policy,
            force: options.force,
            verify: options.verify,
            resumed: false,
            excludes: capture.excludes.clone(),
            exclude_caches: capture.exclude_caches,
            cross: capture.cross_filesystems,
            spared: Vec::new(),
            removal: Doubts::default(),
            copies: Doubts::default(),
            started: now.commit.started,
            workers: workers(options.workers),
        }
    }
}

/// Makes the tree at `root`, which is what `now` is, what `then` is; without a root, counts only.
pub(super) fn roll_back(
    now: &PointView,
    then: &PointView,
    root: Option<&Arc<Directory>>,
    how: &How,
    progress: &Progress,
) -> Result<TreeRolled, RestoreError> {
    let report = Report::new(progress);
    sys::allow_descriptors(DESCRIPTORS);
    let mut walk = Walk {
        now,
        then,
        how,
        report: &report,
        contents: Contents { view: then, report: &report, workers: how.workers },
        root,
        trail: root.map(|root| Trail::new(Arc::clone(root))),
        devices: HashMap::new(),
        path: Vec::new(),
        levels: Vec::new(),
        made: HashMap::new(),
        taken: HashSet::new(),
        removed: 0,
        metadata: 0,
        left: now.entries().items().saturating_add(then.entries().items()).saturating_mul(2),
    };
    walk.run()?;
    let (removed, metadata) = (walk.removed, walk.metadata);
    walk.synchronise()?;
    report.check()?;
    let complete = !report.may_succeed_later();
    let outcome = report.outcome(how.resumed, complete);
    Ok(TreeRolled { complete, counts: outcome.counts, removed, metadata, problems: outcome.problems })
}

/// A directory on the way.
pub(super) struct Level {
    name: Vec<u8>,
    now: Option<Inode>,
    /// What it shall be: a directory, nothing, or something else when it has gone.
    then: Option<Inode>,
    /// Names of subdirectories in either point that are still to be entered.
    below: std::vec::IntoIter<Vec<u8>>,
    path_above: usize,
    /// Whether a name in it was changed.
    pub(super) touched: bool,
    /// Whether it was made just now.
    made: bool,
    /// Whether the point may have had names here that it does not know.
    doubted: bool,
}

pub(super) struct Walk<'a> {
    pub(super) now: &'a PointView,
    pub(super) then: &'a PointView,
    pub(super) how: &'a How,
    pub(super) report: &'a Report<'a>,
    pub(super) contents: Contents<'a>,
    pub(super) root: Option<&'a Arc<Directory>>,
    trail: Option<Trail>,
    /// A directory of each filesystem that was written to.
    devices: HashMap<u64, Arc<Directory>>,
    pub(super) path: Vec<u8>,
    levels: Vec<Level>,
    /// The inode of each hard-linked file that has one. Memory follows the number of those.
    pub(super) made: HashMap<Key, Made>,
    /// Inodes that have been given to a name, where others may have them, too.
    pub(super) taken: HashSet<Identity>,
    pub(super) removed: u64,
    pub(super) metadata: u64,
    /// Names that may still be met.
    left: u64,
}

fn is_directory(inode: &Inode) -> bool {
    inode.kind() == FileKind::Directory
}

/// What cannot be read of what the source is now ends everything: nothing may be removed for want of a name.
fn unknown(error: ViewError) -> RestoreError {
    RestoreError::View(error)
}

impl<'a> Walk<'a> {
    fn run(&mut self) -> Result<(), RestoreError> {
        let now = self.now.root().map_err(unknown)?;
        let then = self.then.root().map_err(unknown)?;
        self.push(Vec::new(), Some(now), Some(then), false)?;
        while let Some(level) = self.levels.last_mut() {
            self.report.check()?;
            match level.below.next() {
                Some(name) => {
                    let (now, then) = (level.now.clone(), level.then.clone());
                    self.enter(name, now.as_ref(), then.as_ref())?;
                }
                None => self.leave()?,
            }
        }
        Ok(())
    }

    /// The directory that is being gone through; none when only counting.
    pub(super) fn here(&self) -> Option<Arc<Directory>> {
        self.trail.as_ref().map(|trail| Arc::clone(trail.here()))
    }

    /// A name in the current directory is about to change.
    pub(super) fn touch(&mut self) {
        let Some(here) = self.here() else { return };
        if let Some(level) = self.levels.last_mut().filter(|level| !level.touched) {
            level.touched = true;
            // What forbids it shows in what is tried next.
            drop(here.make_usable());
        }
        self.write_to(&here);
    }

    /// Its filesystem has to be synchronised.
    pub(super) fn write_to(&mut self, directory: &Arc<Directory>) {
        self.devices.entry(directory.identity().0).or_insert_with(|| Arc::clone(directory));
    }

    /// Deals with the files of a directory that is open, and puts it on the way.
    fn push(&mut self, name: Vec<u8>, now: Option<Inode>, then: Option<Inode>, made: bool) -> Result<(), RestoreError> {
        let path_above = self.path.len();
        if !name.is_empty() {
            push(&mut self.path, &name);
        }
        self.report.progress.at(&self.path);
        let doubted = self.levels.last().is_some_and(|above| above.doubted) || self.how.removal.has(&self.path);
        let level = Level { name, now, then, below: Vec::new().into_iter(), path_above, touched: false, made, doubted };
        let (now, then) = (level.now.clone(), level.then.clone());
        self.levels.push(level);
        let below = self.files(now.as_ref(), then.as_ref().filter(|then| is_directory(then)))?;
        if let Some(level) = self.levels.last_mut() {
            level.below = below.into_iter();
        }
        Ok(())
    }

    /// Changes what is no directory in either point; the names of what is one.
    fn files(&mut self, now: Option<&Inode>, then: Option<&Inode>) -> Result<Vec<Vec<u8>>, RestoreError> {
        let mut below = Vec::new();
        let is_cache = self.how.exclude_caches && self.here().is_some_and(|here| is_tagged(&here));
        let mut old = Names::of(self.now, now.filter(|now| is_directory(now))).map_err(unknown)?;
        let mut new = match Names::of(self.then, then) {
            Ok(names) => names,
            Err(error) => {
                self.report.fault(&self.path, "cannot read the names", &error);
                return Ok(below);
            }
        };
        loop {
            self.report.check()?;
            self.left = self.left.checked_sub(1).ok_or_else(circle)?;
            let is = old.peek().map_err(unknown)?.map(|listed| listed.name.clone());
            let shall = match new.peek() {
                Ok(listed) => listed.map(|listed| listed.name.clone()),
                Err(error) => {
                    self.report.fault(&self.path, "cannot read the names from here on", &error);
                    return Ok(below);
                }
            };
            let name = match (&is, &shall) {
                (None, None) => return Ok(below),
                (Some(name), None) | (None, Some(name)) => name.clone(),
                (Some(is), Some(shall)) => is.min(shall).clone(),
            };
            let a = if is.as_ref() == Some(&name) { old.take() } else { None };
            let b = if shall.as_ref() == Some(&name) { new.take() } else { None };
            let a = a.map(|listed| listed.inode).transpose().map_err(unknown)?;
            let b = b.map(|listed| listed.inode).transpose();
            if is_cache && name != CACHE_TAG {
                continue;
            }
            let length = self.path.len();
            push(&mut self.path, &name);
            match b {
                _ if self.is_excluded(a.as_ref()) => {}
                Ok(b) if self.is_excluded(b.as_ref()) => {}
                Ok(b) if a.as_ref().is_some_and(is_directory) || b.as_ref().is_some_and(is_directory) => {
                    below.push(name);
                }
                Ok(b) => self.file(&name, a.as_ref(), b.as_ref()),
                // A hard link: one to a directory there is none.
                Err(_) if self.how.excludes.exclude(&self.path, false) => {}
                Err(error) => self.report.fault(&self.path, "left as it is: cannot read what it was", &error),
            }
            self.path.truncate(length);
        }
    }

    /// Whether what is at the path, if it is this, is to be left alone.
    fn is_excluded(&self, inode: Option<&Inode>) -> bool {
        inode.is_some_and(|inode| self.how.excludes.exclude(&self.path, is_directory(inode)))
    }

    /// Whether the point may have had what it does not know at the path, which is not entered.
    pub(super) fn is_doubted(&self) -> bool {
        self.levels.last().is_some_and(|level| level.doubted) || self.how.removal.has(&self.path)
    }

    /// Goes down to `name`, which is a directory in one of the points.
    fn enter(&mut self, name: Vec<u8>, now: Option<&Inode>, then: Option<&Inode>) -> Result<(), RestoreError> {
        let find = |view: &PointView, directory: Option<&Inode>| match directory.filter(|inode| is_directory(inode)) {
            None => Ok(None),
            Some(directory) => match view.lookup(directory, &name) {
                Ok(inode) => Ok(Some(inode)),
                Err(ViewError::NotFound) => Ok(None),
                Err(error) => Err(error),
            },
        };
        let now = find(self.now, now).map_err(unknown)?;
        let then = match find(self.then, then) {
            Ok(then) => then,
            Err(error) => {
                self.report.fault(&self.path, "cannot read a name", &error);
                return Ok(());
            }
        };
        let Some(here) = self.here() else {
            return self.push(name, now, then, false);
        };
        let Some(plain) = Name::new(&name) else { return Ok(()) };
        let wanted = then.as_ref().is_some_and(is_directory);
        let length = self.path.len();
        push(&mut self.path, &name);
        let entered = self.directory(&here, &plain, now.as_ref(), then.as_ref(), wanted);
        let found = match entered {
            Ok(found) => found,
            Err(error) => {
                self.report.refused(&self.path, "open the directory", error);
                None
            }
        };
        self.path.truncate(length);
        let Some((directory, made)) = found else { return Ok(()) };
        if let Some(trail) = &mut self.trail {
            trail.enter(Arc::new(directory));
        }
        let now = now.filter(|now| is_directory(now) && !made);
        self.push(name, now, then, made)
    }

    /// The directory `name` in the source, whether it was made just now; none when there is nothing to enter. The path
    /// leads to it already.
    fn directory(
        &mut self,
        here: &Arc<Directory>,
        name: &Name,
        now: Option<&Inode>,
        then: Option<&Inode>,
        wanted: bool,
    ) -> io::Result<Option<(Directory, bool)>> {
        let opened = if self.how.cross { here.open_dir(name) } else { here.open_unmounted_dir(name) };
        match opened {
            Ok(directory) if self.how.spared.contains(&directory.identity()) => return Ok(None),
            // A subvolume is mounted nowhere.
            Ok(directory) if !self.how.cross && directory.identity().0 != here.identity().0 => {
                self.foreign(now, then);
                return Ok(None);
            }
            Ok(directory) => return Ok(Some((directory, false))),
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                self.foreign(now, then);
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                // Something else has the name; what it is when a directory is wanted, or what is wanted instead.
                if !wanted {
                    let then = then.filter(|then| !is_directory(then));
                    self.file(name.bytes(), now, then);
                    return Ok(None);
                }
                let before = self.removed;
                self.file(name.bytes(), now, None);
                if self.removed == before {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
        if !wanted {
            if let Some(then) = then {
                self.file(name.bytes(), None, Some(then));
            }
            return Ok(None);
        }
        self.touch();
        let directory = here.make_dir(name)?;
        count(&self.report.directories);
        Ok(Some((directory, true)))
    }

    /// Another filesystem is at the path.
    fn foreign(&self, now: Option<&Inode>, then: Option<&Inode>) {
        if self.has_names(self.now, now) || self.has_names(self.then, then) {
            let what = "another filesystem is mounted there, which was left as it is".to_owned();
            self.report.problem(&self.path, Class::Conflict, what);
        }
    }

    fn has_names(&self, view: &PointView, directory: Option<&Inode>) -> bool {
        directory
            .filter(|inode| is_directory(inode))
            .is_some_and(|inode| view.list(inode, 0).is_ok_and(|mut listing| listing.next().is_some()))
    }

    /// Comes back up: the directory gets its metadata, or goes.
    fn leave(&mut self) -> Result<(), RestoreError> {
        let (Some(level), here) = (self.levels.pop(), self.here()) else { return Ok(()) };
        let top = self.levels.is_empty();
        if let Some(trail) = self.trail.as_mut().filter(|_| !top) {
            trail.leave().map_err(|source| RestoreError::Write {
                action: "go back up from",
                path: String::from_utf8_lossy(&self.path).into_owned(),
                source,
            })?;
        }
        match &level.then {
            Some(then) if is_directory(then) => self.metadata_of(&level, then, here.as_deref()),
            then => self.gone(&level, then.as_ref()),
        }
        self.path.truncate(level.path_above);
        Ok(())
    }

    fn metadata_of(&mut self, level: &Level, then: &Inode, directory: Option<&Directory>) {
        let differs = level.now.as_ref().is_none_or(|now| !super::change::same_metadata(now.entry(), then.entry()));
        let Some(directory) = directory else {
            self.metadata += u64::from(differs && level.now.is_some());
            if level.now.is_none() {
                count(&self.report.directories);
            }
            return;
        };
        let unfinished = self.how.resumed
            && !directory.stat_self().is_ok_and(|stat| attributes::are_set(&stat, then.entry(), &self.how.policy));
        if differs || level.touched || level.made || unfinished {
            self.metadata += u64::from(differs && !level.made);
            let of = Handle::Open(directory.fd());
            attributes::set(of, then.entry(), &self.how.policy, self.report, &self.path);
        }
    }

    /// A directory that shall not be is empty now, if it held nothing else than what the points know.
    fn gone(&mut self, level: &Level, then: Option<&Inode>) {
        let Some(name) = Name::new(&level.name) else { return };
        if then.is_none() && level.doubted && !self.how.force {
            return self.report.problem(&self.path, Class::Conflict, UNKNOWN.to_owned());
        }
        if let Some(here) = self.here() {
            self.touch();
            match here.remove_dir(&name) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => {
                    let what = "not removed, because it holds what is in neither point: excluded, or made since";
                    return self.report.problem(&self.path, Class::Conflict, what.to_owned());
                }
                Err(error) => return self.report.refused(&self.path, "remove the directory", error),
            }
        }
        self.removed += 1;
        if let Some(then) = then {
            self.file(&level.name, None, Some(then));
        }
    }

    /// The directory at `path` below the root.
    pub(super) fn find(&self, path: &[u8]) -> io::Result<Arc<Directory>> {
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        let mut directory = Arc::clone(self.root.ok_or_else(missing)?);
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let name = Name::new(name).ok_or_else(missing)?;
            directory = Arc::new(directory.open_dir(&name)?);
        }
        Ok(directory)
    }

    /// Brings all that was written to the disk.
    fn synchronise(&self) -> Result<(), RestoreError> {
        for directory in self.devices.values().chain(self.root) {
            sys::sync_filesystem(directory.fd()).map_err(|source| RestoreError::Write {
                action: "synchronise",
                path: Path::new(".").to_string_lossy().into_owned(),
                source,
            })?;
        }
        Ok(())
    }
}

/// The names of a directory of a point, one ahead.
struct Names<'a> {
    listing: Option<Listing<'a>>,
    next: Option<Listed>,
}

impl<'a> Names<'a> {
    fn of(view: &'a PointView, directory: Option<&Inode>) -> Result<Names<'a>, ViewError> {
        let listing = directory.map(|directory| view.list(directory, 0)).transpose()?;
        Ok(Names { listing, next: None })
    }

    fn peek(&mut self) -> Result<Option<&Listed>, ViewError> {
        if self.next.is_none()
            && let Some(listing) = &mut self.listing
        {
            self.next = listing.next().transpose()?;
        }
        Ok(self.next.as_ref())
    }

    fn take(&mut self) -> Option<Listed> {
        self.next.take()
    }
}

/// Whether the tag of a cache is in the directory.
fn is_tagged(directory: &Directory) -> bool {
    Name::new(CACHE_TAG).and_then(|tag| directory.open_file(&tag).ok()).is_some_and(|(file, _)| is_cache_tag(&file))
}
