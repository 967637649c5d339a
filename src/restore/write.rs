//! Makes one name equal to the point's: under a temporary name first, complete, then renamed.
//!
//! Crash behaviour: a name is either as it was before or complete with all its metadata. What cannot
//! be read from the repository is never made: no file is short, and none has zeros where data were.

use std::io;

use super::attributes;
use super::claim::Claim;
use super::content::Contents;
use super::directory::Name;
use super::links::Turns;
use super::options::Policy;
use super::outcome::{Report, count};
use super::plan::{Job, Unit, in_the_way};
use super::sys::Stat;
use crate::base::Class;
use crate::format::FileId;
use crate::format::entry::Body;
use crate::view::namespace::ViewError;

/// Makes names. Shared by all workers.
pub(super) struct Writer<'a> {
    pub(super) contents: Contents<'a>,
    pub(super) claim: &'a Claim,
    pub(super) policy: Policy,
    pub(super) report: &'a Report<'a>,
    pub(super) turns: Turns,
}

/// Why a name was not made.
#[derive(Debug)]
pub(super) enum Stop {
    /// The repository does not give the content.
    Fault(ViewError),
    /// The target's filesystem refuses, while doing this.
    Refused(&'static str, io::Error),
    /// Something has the name that may not be replaced.
    InTheWay,
    /// The restore ends.
    Halted,
}

impl From<ViewError> for Stop {
    fn from(error: ViewError) -> Stop {
        Stop::Fault(error)
    }
}

/// For `map_err`: the filesystem refused to do this.
pub(super) fn refused(action: &'static str) -> impl Fn(io::Error) -> Stop {
    move |error| Stop::Refused(action, error)
}

/// Stored content that contradicts its own metadata.
pub(super) fn contradiction(what: &str) -> Stop {
    Stop::Fault(ViewError::contradiction(what))
}

impl Writer<'_> {
    /// Does the jobs of a unit.
    pub(super) fn unit(&self, unit: Unit) {
        for job in unit {
            if self.report.is_halted() {
                return;
            }
            match self.job(&job) {
                Ok(()) => self.report.reached(),
                Err(Stop::Fault(error)) => self.report.fault(&job.path, "cannot read the content", &error),
                Err(Stop::Refused(action, error)) => self.report.refused(&job.path, action, error),
                Err(Stop::InTheWay) => self.report.problem(&job.path, Class::Conflict, in_the_way()),
                Err(Stop::Halted) => {}
            }
            self.report.progress.add_file();
        }
    }

    fn job(&self, job: &Job) -> Result<(), Stop> {
        let body = &job.inode.entry().body;
        let wanted = match body {
            Body::BlockDevice(..) | Body::CharDevice(..) => self.policy.devices,
            Body::Fifo | Body::Socket => self.policy.special,
            Body::Directory { .. } | Body::File(_) | Body::Symlink(_) | Body::Link(_) => true,
        };
        if !wanted {
            count(&self.report.left_specials);
            return Ok(());
        }
        match job.inode.key().split() {
            Ok((FileId::HARDLINKS, _)) => self.hard_link(job),
            Ok(_) | Err(_) => self.single(job),
        }
    }

    /// A name with an inode of its own.
    fn single(&self, job: &Job) -> Result<(), Stop> {
        if self.is_finished(job)? {
            count(&self.report.kept);
            self.report.progress.add_bytes(file_bytes(job));
            return Ok(());
        }
        let temporary = self.temporary(job)?;
        self.make(job, &temporary)?;
        self.settle(job, &temporary)
    }

    /// Whether an earlier run has finished this name.
    pub(super) fn is_finished(&self, job: &Job) -> Result<bool, Stop> {
        if !self.claim.is_resumed() {
            return Ok(false);
        }
        let stat = job.directory.stat(&job.name).map_err(refused("look at"))?;
        Ok(stat.is_some_and(|stat| self.is_finished_as(job, &stat)))
    }

    fn is_finished_as(&self, job: &Job, stat: &Stat) -> bool {
        let entry = job.inode.entry();
        self.claim.has_finished(stat)
            && attributes::are_set(stat, entry, &self.policy)
            && match &entry.body {
                Body::Symlink(target) => job.directory.read_link(&job.name).is_ok_and(|found| found == *target),
                _ => true,
            }
    }

    pub(super) fn temporary(&self, job: &Job) -> Result<Name, Stop> {
        let none = || Stop::Refused("name a temporary file", io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        self.claim.temporary(job.number).ok_or_else(none)
    }

    /// Makes the inode of `job`, complete, under `temporary`; nothing is left there on failure.
    pub(super) fn make(&self, job: &Job, temporary: &Name) -> Result<(), Stop> {
        let made = self.contents.make(&job.directory, temporary, &job.inode, &job.path, &self.policy);
        if made.is_err() {
            // Nothing may have been made at all.
            drop(job.directory.unlink(temporary));
        }
        made.map(|made| count(made.counter))
    }

    /// Gives what stands under `temporary` its name.
    pub(super) fn settle(&self, job: &Job, temporary: &Name) -> Result<(), Stop> {
        let Job { directory, name, .. } = job;
        let settled = if self.claim.may_replace() {
            match directory.rename_over(temporary, name) {
                // Of directories in the way only empty ones go: what is in others is in no backup of ours.
                Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {
                    directory.remove_dir(name).and_then(|()| directory.rename_over(temporary, name))
                }
                other => other,
            }
        } else {
            directory.rename_new(temporary, name)
        };
        settled.map_err(|error| {
            drop(directory.unlink(temporary));
            match error.raw_os_error() {
                Some(libc::EEXIST) => Stop::InTheWay,
                _ => Stop::Refused("put in place", error),
            }
        })
    }
}

/// The size of a regular file, for the progress; all else counts nothing.
pub(super) fn file_bytes(job: &Job) -> u64 {
    match &job.inode.entry().body {
        Body::File(_) => job.inode.entry().meta.size,
        _ => 0,
    }
}
