//! Walks a source depth first and tells, in order, what is there.
//!
//! For each directory: [`Step::Enter`], a [`Step::Name`] for each name in the order of its bytes,
//! [`Step::Listed`], then the same for each subdirectory in order, then [`Step::Leave`]. Names that
//! are subdirectories are announced in their place and entered (or [`Step::Lost`]) later, in the same
//! order, so whoever follows needs a queue and no search.
//!
//! Invariants: one step looks at one inode; at most [`OPEN_MAX`] directories of the path are held
//! open, whatever its depth; memory follows the names on the path, not the tree. A directory that was
//! closed is found again through `..` of the one below, or by its names from the root, and must then
//! be the same inode.
//!
//! The walk does not read files, and what changes behind it is noticed by whoever reads.

use std::io;
use std::sync::Arc;

use super::boundary::Boundary;
use super::directory::{Directory, Hint, Names, Place, fits, shown};
use super::error::CaptureError;
use super::exclude::Excludes;
use super::stat::{Kind, Stat};
use super::sys::Ask;
use crate::base::FileTime;
use crate::format::entry::Meta;
use crate::format::log::{Problem, ProblemKind};

/// Directories of the current path that are held open.
const OPEN_MAX: usize = 48;
/// Bytes of names that one system call may yield.
const LISTING_BYTES: usize = 64 << 10;
/// The file that marks a directory as a cache, and how it must begin (<https://bford.info/cachedir/>).
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

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
}

/// A directory that was entered.
#[derive(Debug)]
pub(super) struct Entered {
    /// Its name in the directory above; empty for the root.
    pub(super) name: Vec<u8>,
    /// What it is.
    pub(super) stat: Stat,
    /// The directory itself; none if it lies behind the boundary and counts as empty.
    pub(super) open: Option<Arc<Directory>>,
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
    rules: Rules,
    boundary: Boundary,
    buffer: Vec<u8>,
    stack: Vec<Level>,
    /// The root, until it has been entered.
    start: Option<Arc<Directory>>,
}

/// One directory of the current path.
struct Level {
    /// None while it is closed, and when it is behind the boundary.
    open: Option<Arc<Directory>>,
    place: Place,
    names: Names,
    /// The next name to tell.
    next: usize,
    /// Subdirectories that were announced, as indexes of names, and the next to enter.
    announced: Vec<usize>,
    entered: usize,
    listed: bool,
}

impl Walk {
    /// A walk of everything below `root`.
    pub(super) fn new(root: Directory, boundary: Boundary, rules: Rules) -> Walk {
        Walk { rules, boundary, buffer: vec![0; LISTING_BYTES], stack: Vec::new(), start: Some(Arc::new(root)) }
    }

    /// The next step; none at the end.
    ///
    /// # Errors
    /// [`CaptureError::Root`] when the root itself cannot be listed; nothing below it is fatal.
    pub(super) fn step(&mut self) -> Result<Option<Step>, CaptureError> {
        if let Some(root) = self.start.take() {
            let names = self
                .list(&root)
                .map_err(|source| CaptureError::Root { path: root.absolute().unwrap_or_default(), source })?;
            return Ok(Some(self.enter(Vec::new(), root, names)));
        }
        let Some(level) = self.stack.last_mut() else { return Ok(None) };
        while let Some((name, hint)) = level.names.get(level.next) {
            let index = level.next;
            level.next += 1;
            let Some(open) = &level.open else { continue };
            if let Some(step) = look(open, name, hint, &self.rules, &self.boundary) {
                if matches!(step, Step::Announce(_)) {
                    level.announced.push(index);
                }
                return Ok(Some(step));
            }
        }
        if !level.listed {
            level.listed = true;
            return Ok(Some(Step::Listed));
        }
        let next = level.announced.get(level.entered).and_then(|index| level.names.get(*index));
        if let Some((name, _)) = next {
            level.entered += 1;
            let (name, above, place) = (name.to_vec(), level.open.clone(), level.place.clone());
            return Ok(Some(match above {
                Some(above) => self.descend(&above, name),
                None => {
                    let problem = problem(place.path_of(&name), &io::Error::from_raw_os_error(libc::ESTALE));
                    Step::Lost(name, problem)
                }
            }));
        }
        self.ascend();
        Ok(Some(Step::Leave))
    }

    /// Enters the directory `name` of `above`, or tells why not.
    fn descend(&mut self, above: &Arc<Directory>, name: Vec<u8>) -> Step {
        if self.boundary.has_mounts() && self.boundary.bars_path(&above.path_of(&name)) {
            let stat = match above.stat_of(&name, Ask::Kernel) {
                Ok(stat) if stat.kind == Kind::Directory => stat,
                _ => unknown_mountpoint(above.stat()),
            };
            return self.pass_by(above, name, stat);
        }
        let opened = above.open(&name).and_then(|directory| {
            if self.boundary.bars(directory.stat()) {
                return Ok(Err(*directory.stat()));
            }
            let names = self.list(&directory)?;
            Ok(Ok((directory, names)))
        });
        match opened {
            Ok(Ok((directory, names))) => self.enter(name, Arc::new(directory), names),
            Ok(Err(stat)) => self.pass_by(above, name, stat),
            Err(error) => {
                let problem = problem(above.path_of(&name), &error);
                Step::Lost(name, problem)
            }
        }
    }

    fn enter(&mut self, name: Vec<u8>, directory: Arc<Directory>, names: Names) -> Step {
        let entered = Entered { name, stat: *directory.stat(), open: Some(Arc::clone(&directory)) };
        // The root stays open: from there, lost ways are found again.
        let far = self.stack.len().checked_sub(OPEN_MAX).filter(|index| *index > 0);
        if let Some(far) = far.and_then(|index| self.stack.get_mut(index)) {
            far.open = None;
        }
        let place = directory.place();
        self.stack.push(Level {
            open: Some(directory),
            place,
            names,
            next: 0,
            announced: Vec::new(),
            entered: 0,
            listed: false,
        });
        Step::Enter(entered)
    }

    /// Counts a directory behind the boundary as empty.
    fn pass_by(&mut self, above: &Directory, name: Vec<u8>, stat: Stat) -> Step {
        let place = above.place();
        self.stack.push(Level {
            open: None,
            place,
            names: Names::none(),
            next: 0,
            announced: Vec::new(),
            entered: 0,
            listed: false,
        });
        Step::Enter(Entered { name, stat, open: None })
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

    /// The names of a directory; of a tagged cache the tag only, if so ruled.
    fn list(&mut self, directory: &Directory) -> io::Result<Names> {
        let mut names = directory.names(&mut self.buffer)?;
        if self.rules.skip_caches && names.contains(CACHE_TAG) && is_cache(directory) {
            names.keep_only(CACHE_TAG);
        }
        Ok(names)
    }
}

/// What stands under one name; none when it is left out.
fn look(directory: &Directory, name: &[u8], hint: Hint, rules: &Rules, boundary: &Boundary) -> Option<Step> {
    let excluded = |kind: Hint| {
        !rules.excludes.is_empty() && rules.excludes.exclude(&directory.path_of(name), kind == Hint::Directory)
    };
    // Known kinds are judged before anything is asked of the inode.
    if hint != Hint::Unknown && excluded(hint) {
        return None;
    }
    if !fits(name) {
        let detail = format!("its name has {} bytes, at most 255 can be stored: rename it", name.len());
        let path = directory.path_of(name);
        return Some(Step::Failed(name.to_vec(), Problem { path, kind: ProblemKind::Unsupported, detail }));
    }
    if hint == Hint::Directory {
        return Some(Step::Announce(name.to_vec()));
    }
    // A mountpoint can be a file too, and its server as dead.
    let barred = boundary.has_mounts() && boundary.bars_path(&directory.path_of(name));
    let ask = if barred { Ask::Kernel } else { Ask::Filesystem };
    match directory.stat_of(name, ask) {
        Ok(stat) => {
            let kind = if stat.kind == Kind::Directory { Hint::Directory } else { Hint::Other };
            if hint != kind && excluded(kind) {
                None
            } else if kind == Hint::Directory {
                Some(Step::Announce(name.to_vec()))
            } else {
                Some(Step::Name(name.to_vec(), stat))
            }
        }
        Err(error) => Some(Step::Failed(name.to_vec(), problem(directory.path_of(name), &error))),
    }
}

/// Whether the directory's tag is a true one.
fn is_cache(directory: &Directory) -> bool {
    use std::os::unix::fs::FileExt;
    let mut head = [0u8; CACHE_SIGNATURE.len()];
    directory
        .open_file(CACHE_TAG)
        .and_then(|(file, _)| file.read_exact_at(&mut head, 0))
        .is_ok_and(|()| head == CACHE_SIGNATURE)
}

/// What stands for a mountpoint whose server does not answer: an empty directory as new as its surroundings.
fn unknown_mountpoint(above: &Stat) -> Stat {
    let times = above.meta;
    Stat {
        kind: Kind::Directory,
        meta: Meta {
            permissions: 0o755,
            links: 2,
            size: 0,
            inode: 0,
            btime: None,
            atime: FileTime::default(),
            ..times
        },
        ..*above
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
