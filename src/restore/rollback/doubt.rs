//! What a point does not know: names that could not be captured as they were, or were not wanted.
//!
//! A name that a point has not, because it could not be read when the point was captured, may have been there;
//! so it is not removed. A name that the safety point has not as it is now has no copy; so it is left alone.

use std::collections::HashSet;

use super::super::error::RestoreError;
use crate::chain::Point;
use crate::format::frame::FrameKind;
use crate::format::problems;
use crate::repo::{Reader, RepoError};

/// The names that are in doubt. Memory is bounded by [`crate::base::limits::PROBLEMS_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Doubts {
    all: bool,
    paths: HashSet<Vec<u8>>,
}

impl Doubts {
    /// Of what `then` does not have: whether it was there all the same.
    ///
    /// # Errors
    /// [`RestoreError::Problems`] when its problems cannot be read.
    pub(super) fn of_removal(reader: &Reader, then: &Point) -> Result<Doubts, RestoreError> {
        let (listed, all) = listed(reader, then)?;
        let is_scope_known = then.commit.scope.as_ref().is_some_and(|scope| scope.excludes.is_some());
        Ok(Doubts { all: all || !is_scope_known, paths: listed })
    }

    /// Of what the source is now: whether `safety` has it.
    ///
    /// # Errors
    /// [`RestoreError::Problems`] when its problems cannot be read.
    pub(super) fn of_copies(reader: &Reader, safety: &Point) -> Result<Doubts, RestoreError> {
        let (paths, all) = listed(reader, safety)?;
        Ok(Doubts { all, paths })
    }

    /// Whether nothing is certain.
    pub(super) fn is_all(&self) -> bool {
        self.all
    }

    /// Whether `path` itself is in doubt.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.all || self.paths.contains(path)
    }
}

/// The paths with problems, and whether there are more of them than are listed.
fn listed(reader: &Reader, point: &Point) -> Result<(HashSet<Vec<u8>>, bool), RestoreError> {
    let Some(frame) = &point.commit.problems else {
        return Ok((HashSet::new(), point.commit.stats.problems > 0));
    };
    let payload = reader.fetch(frame, FrameKind::Problems).map_err(RestoreError::Problems)?;
    let list = problems::decode(&payload).map_err(|error| {
        RestoreError::Problems(RepoError::Inconsistent { what: format!("a point's list of problems: {error}") })
    })?;
    let all = point.commit.stats.problems > list.len() as u64;
    Ok((list.into_iter().map(|problem| problem.path).collect(), all))
}
