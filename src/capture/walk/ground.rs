//! What the walk asks of a source: what stands under a name, and what is in a directory.
//!
//! Nothing here knows where the walk stands, so any thread may ask, earlier than the walk needs to know.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{Rules, Step, trouble};
use crate::base::FileTime;
use crate::capture::boundary::{Barrier, Boundary};
use crate::capture::directory::{Directory, Hint, Names, fits};
use crate::capture::error::CaptureError;
use crate::capture::exclude::{CACHE_TAG, is_cache_tag};
use crate::capture::stat::{Kind, Stat};
use crate::capture::sys::Ask;
use crate::format::entry::Meta;
use crate::format::log::{Problem, ProblemKind};

/// Names that are looked at in one go.
pub(super) const RUN: usize = 256;

/// What stands under a run of names; none where a name is left out.
pub(super) type Run = Vec<Option<Step>>;

/// The rules and the boundary of a walk.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) rules: Rules,
    pub(super) boundary: Boundary,
}

/// What a subdirectory turned out to be.
pub(super) enum Survey {
    /// To be entered.
    Open(Listed),
    /// Behind the boundary: it counts as empty.
    Barred(Stat, Barrier),
    /// Gone, replaced, or not to be read.
    Lost(Problem),
    /// Not to be told: the machine cannot.
    Halted(CaptureError),
    /// Too large to be held before it is entered.
    Large,
}

/// An open directory, its names, and what stands under the first of them.
pub(super) struct Listed {
    pub(super) directory: Arc<Directory>,
    pub(super) names: Arc<Names>,
    pub(super) first: Run,
}

impl Ground {
    /// What `name` in `above`, announced as a directory, is. One of more than about `most` names is [`Survey::Large`].
    pub(super) fn survey(&self, above: &Directory, name: &[u8], buffer: &mut [u8], most: usize) -> Survey {
        let known = self.boundary.has_mounts().then(|| self.boundary.bars_path(&above.path_of(name)));
        if let Some(barrier) = known.flatten() {
            let stat = match above.stat_of(name, Ask::Kernel) {
                Ok(stat) if stat.kind == Kind::Directory => stat,
                _ => unknown_mountpoint(above.stat()),
            };
            return Survey::Barred(stat, barrier);
        }
        let opened = above.open(name).and_then(|directory| {
            if let Some(barrier) = self.boundary.bars(directory.stat()) {
                return Ok(Survey::Barred(*directory.stat(), barrier));
            }
            Ok(self.list(directory, buffer, most)?.map_or(Survey::Large, Survey::Open))
        });
        opened.unwrap_or_else(|error| trouble(above.path_of(name), &error).map_or_else(Survey::Halted, Survey::Lost))
    }

    /// What is in `directory`, of a tagged cache the tag only, if so ruled; none if it has more than about `most` names.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub(super) fn list(&self, directory: Directory, buffer: &mut [u8], most: usize) -> io::Result<Option<Listed>> {
        let Some(mut names) = directory.names(buffer, most)? else { return Ok(None) };
        if self.rules.skip_caches && names.contains(CACHE_TAG) && is_cache(&directory) {
            names.keep_only(CACHE_TAG);
        }
        let first = self.run(&directory, &names, 0..RUN.min(names.len()));
        Ok(Some(Listed { directory: Arc::new(directory), names: Arc::new(names), first }))
    }

    /// What stands under the names in `range`.
    pub(super) fn run(&self, directory: &Directory, names: &Names, range: Range<usize>) -> Run {
        range.map_while(|index| names.get(index)).map(|(name, hint)| self.look(directory, name, hint)).collect()
    }

    /// What stands under one name; none when it is left out.
    fn look(&self, directory: &Directory, name: &[u8], hint: Hint) -> Option<Step> {
        let Ground { rules, boundary } = self;
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
        let barred = boundary.has_mounts() && boundary.bars_path(&directory.path_of(name)).is_some();
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
            Err(error) => Some(match trouble(directory.path_of(name), &error) {
                Ok(problem) => Step::Failed(name.to_vec(), problem),
                Err(error) => Step::Halted(error),
            }),
        }
    }
}

/// Whether the directory's tag is a true one.
fn is_cache(directory: &Directory) -> bool {
    directory.open_file(CACHE_TAG).is_ok_and(|(file, _)| is_cache_tag(&file))
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
