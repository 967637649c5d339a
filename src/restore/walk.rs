//! Walks a part of a point depth first: of each directory the files first, then one subdirectory after
//! the other, which is the order in which a capture stores them.
//!
//! Invariants: the walk ends whatever the trees say, because it meets no more names than there are
//! entries; memory follows the subdirectories on the path, not the tree. What cannot be read is told
//! and passed over: names in a damaged leaf are lost, those behind it are not; of a damaged inode each name is told.

use super::error::RestoreError;
use crate::repo::RepoError;
use crate::view::namespace::{FileKind, ViewError};
use crate::view::{Inode, PointView};

/// What is lost with a part of a directory.
const NAMES: &str = "cannot read the names";
/// What is lost with the inode of a name.
const INODE: &str = "cannot read its inode";

/// A name that the walk meets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Relative to where the walk began.
    pub(super) path: &'a [u8],
    /// The last component of it.
    pub(super) name: &'a [u8],
    /// Which item of its directory it is, from 1.
    pub(super) number: u64,
}

/// Whoever follows a walk. An error ends it.
pub(super) trait Visitor {
    /// A directory; whether to enter it.
    fn enter(&mut self, place: Place<'_>, directory: &Inode) -> Result<bool, RestoreError>;
    /// Anything else.
    fn file(&mut self, place: Place<'_>, inode: Inode) -> Result<(), RestoreError>;
    /// A directory that was entered has been told, with all below it.
    fn leave(&mut self, path: &[u8], directory: &Inode) -> Result<(), RestoreError>;
    /// `what` is the matter at `path`: something cannot be read.
    fn fault(&mut self, path: &[u8], what: &str, error: &ViewError) -> Result<(), RestoreError>;
}

struct Level {
    directory: Inode,
    /// Places of the subdirectories that are still to be entered.
    below: std::vec::IntoIter<u64>,
    /// Bytes of the path of the directory above.
    path_above: usize,
}

struct Walk<'a, V> {
    view: &'a PointView,
    visitor: &'a mut V,
    path: Vec<u8>,
    /// Names that may still be met.
    left: u64,
}

/// Walks everything below `root`, which is itself neither entered nor left.
///
/// # Errors
/// Those of the visitor.
pub(super) fn walk(view: &PointView, root: &Inode, visitor: &mut impl Visitor) -> Result<(), RestoreError> {
    let mut walk = Walk { view, visitor, path: Vec::new(), left: view.entries().items() };
    let below = walk.files(root)?.into_iter();
    let mut levels = vec![Level { directory: root.clone(), below, path_above: 0 }];
    while let Some(level) = levels.last_mut() {
        let Some(skip) = level.below.next() else {
            let Some(level) = levels.pop().filter(|_| !levels.is_empty()) else { break };
            walk.visitor.leave(&walk.path, &level.directory)?;
            walk.path.truncate(level.path_above);
            continue;
        };
        let listed = match view.list(&level.directory, skip).map(|mut listing| listing.next()) {
            Ok(Some(Ok(listed))) => listed,
            Ok(None) => continue,
            Ok(Some(Err(error))) | Err(error) => {
                walk.visitor.fault(&walk.path, NAMES, &error)?;
                continue;
            }
        };
        let path_above = walk.path.len();
        push(&mut walk.path, &listed.name);
        let place = Place { path: &walk.path, name: &listed.name, number: listed.next };
        match listed.inode {
            Ok(directory) if walk.visitor.enter(place, &directory)? => {
                let below = walk.files(&directory)?.into_iter();
                levels.push(Level { directory, below, path_above });
                continue;
            }
            Ok(_) => {}
            Err(error) => walk.visitor.fault(&walk.path, INODE, &error)?,
        }
        walk.path.truncate(path_above);
    }
    Ok(())
}

impl<V: Visitor> Walk<'_, V> {
    /// Tells of the files in `directory`; how many items to skip to reach each of its subdirectories.
    fn files(&mut self, directory: &Inode) -> Result<Vec<u64>, RestoreError> {
        let mut below = Vec::new();
        let mut skip = 0;
        let length = self.path.len();
        loop {
            let listing = match self.view.list(directory, skip) {
                Ok(listing) => listing,
                Err(error) => {
                    self.visitor.fault(&self.path, NAMES, &error)?;
                    return Ok(below);
                }
            };
            let mut failed = None;
            for item in listing {
                let listed = match item {
                    Ok(listed) => listed,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                };
                self.left = self.left.checked_sub(1).ok_or_else(circle)?;
                push(&mut self.path, &listed.name);
                let place = Place { path: &self.path, name: &listed.name, number: listed.next };
                match listed.inode {
                    Ok(inode) if inode.kind() == FileKind::Directory => below.push(skip),
                    Ok(inode) => self.visitor.file(place, inode)?,
                    Err(error) => self.visitor.fault(&self.path, INODE, &error)?,
                }
                self.path.truncate(length);
                skip = listed.next;
            }
            let Some(error) = failed else { return Ok(below) };
            self.visitor.fault(&self.path, NAMES, &error)?;
            match self.readable_behind(directory, skip) {
                Some(next) => skip = next,
                None => return Ok(below),
            }
        }
    }

    /// The first item behind `bad` that can be read, or the end of the directory. A damaged leaf takes a run of items
    /// with it whose length nobody knows: twice as far each time, then back by halves.
    fn readable_behind(&self, directory: &Inode, bad: u64) -> Option<u64> {
        let is_readable = |skip| match self.view.list(directory, skip).map(|mut listing| listing.next()) {
            Ok(None | Some(Ok(_))) => true,
            Ok(Some(Err(_))) | Err(_) => false,
        };
        let (mut low, mut step) = (bad, 1);
        let mut high = loop {
            let next = bad.checked_add(step)?;
            if is_readable(next) {
                break next;
            }
            if step > self.view.entries().items() {
                return None;
            }
            (low, step) = (next, step * 2);
        };
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if is_readable(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }
}

/// More names than entries: directories lead in circles.
pub(super) fn circle() -> RestoreError {
    let what = "a point has more names than entries, so its directories lead in circles".to_owned();
    RestoreError::View(ViewError::fault("walk the point", RepoError::Inconsistent { what }))
}

/// Appends a name to a path.
pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
