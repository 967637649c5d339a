//! Gives the directories their metadata, from the bottom up: whatever is made in a directory changes
//! its times, and permissions may forbid to make anything.

use std::sync::Arc;

use super::attributes;
use super::directory::{Directory, Name};
use super::error::RestoreError;
use super::options::Policy;
use super::outcome::Report;
use super::sys::Handle;
use super::trail::Trail;
use super::walk::{Place, Visitor};
use crate::view::Inode;
use crate::view::namespace::ViewError;

/// Follows a walk and sets the metadata of directories.
pub(super) struct Finisher<'a> {
    policy: Policy,
    report: &'a Report<'a>,
    trail: Trail,
}

impl<'a> Finisher<'a> {
    pub(super) fn new(policy: Policy, report: &'a Report<'a>, target: &Arc<Directory>) -> Finisher<'a> {
        Finisher { policy, report, trail: Trail::new(Arc::clone(target)) }
    }
}

impl Visitor for Finisher<'_> {
    fn enter(&mut self, place: Place<'_>, _: &Inode) -> Result<bool, RestoreError> {
        // What could not be made has been told.
        let Some(directory) = Name::new(place.name).and_then(|name| self.trail.here().open_dir(&name).ok()) else {
            return Ok(false);
        };
        self.trail.enter(Arc::new(directory));
        Ok(true)
    }

    fn file(&mut self, _: Place<'_>, _: Inode) -> Result<(), RestoreError> {
        Ok(())
    }

    fn leave(&mut self, path: &[u8], directory: &Inode) -> Result<(), RestoreError> {
        let here = Arc::clone(self.trail.here());
        // The way back up leads through it, which its permissions may forbid.
        let lost = |source| RestoreError::Write {
            action: "go back up from",
            path: String::from_utf8_lossy(path).into_owned(),
            source,
        };
        self.trail.leave().map_err(lost)?;
        attributes::set(Handle::Open(here.fd()), directory.entry(), &self.policy, self.report, path);
        self.report.check()
    }

    fn fault(&mut self, _: &[u8], _: &str, _: &ViewError) -> Result<(), RestoreError> {
        self.report.check()
    }
}
