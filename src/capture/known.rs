//! What the parent has of a large file, in order, for who reads that file from its start to its end.

use std::collections::VecDeque;
use std::ops::Range;

use super::content::OldPages;
use super::unit::BeginJob;
use crate::format::leaf::Maps;
use crate::format::map::MapExtent;
use crate::repo::RepoError;
use crate::repo::tree::Tree;

/// What the parent has of a file, handed out part by part.
pub(super) struct Known {
    pages: Option<OldPages>,
    ahead: VecDeque<MapExtent>,
}

impl Known {
    /// Of the file that begins with `begin`, in the parent's `maps`.
    ///
    /// # Errors
    /// [`RepoError`] when they cannot be read.
    pub(super) fn of(maps: &Tree<Maps>, begin: BeginJob) -> Result<Known, RepoError> {
        let pages = if begin.mapped { Some(OldPages::of(maps, begin.map)?) } else { None };
        Ok(Known { pages, ahead: VecDeque::new() })
    }

    /// The extents that begin in `part`; what lies before it is forgotten.
    ///
    /// # Errors
    /// [`RepoError`] when they cannot be read.
    pub(super) fn within(&mut self, part: &Range<u64>) -> Result<Vec<MapExtent>, RepoError> {
        let mut found = Vec::new();
        loop {
            while let Some(extent) = self.ahead.front() {
                if extent.offset >= part.end {
                    return Ok(found);
                }
                found.extend(self.ahead.pop_front().filter(|extent| extent.offset >= part.start));
            }
            let Some(pages) = &mut self.pages else { return Ok(found) };
            match pages.next_below(None)? {
                Some((_, page)) => self.ahead.extend(page.extents),
                None => self.pages = None,
            }
        }
    }
}
