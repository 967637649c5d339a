//! Hard-linked files: the first name met makes the inode, all others link to it.
//!
//! A complete inode gets a name in the claim as well, from which further names are linked, so nothing
//! has to be remembered about names already made, and an interrupted restore finds the inode again.
//! One worker at a time deals with an inode; the others wait for it.

use std::collections::HashSet;
use std::io;

use parking_lot::{Condvar, Mutex};

use super::claim::Claim;
use super::directory::Name;
use super::outcome::count;
use super::plan::Job;
use super::write::{Stop, Writer, file_bytes, refused};
use crate::base::Class;
use crate::format::{FileId, Key};

/// Which inodes are being dealt with.
#[derive(Debug, Default)]
pub(super) struct Turns {
    taken: Mutex<HashSet<Key>>,
    ended: Condvar,
}

/// The right to deal with an inode.
struct Turn<'a> {
    turns: &'a Turns,
    inode: &'a Key,
}

impl Turns {
    fn wait<'a>(&'a self, inode: &'a Key) -> Turn<'a> {
        let mut taken = self.taken.lock();
        while !taken.insert(inode.clone()) {
            self.ended.wait(&mut taken);
        }
        Turn { turns: self, inode }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken.lock().remove(self.inode);
        self.turns.ended.notify_all();
    }
}

/// Whether the filesystem cannot give this inode another name, whatever the name is.
pub(super) fn cannot_link(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EPERM | libc::EOPNOTSUPP | libc::EMLINK))
}

impl Writer<'_> {
    /// One of several names of an inode.
    pub(super) fn hard_link(&self, job: &Job) -> Result<(), Stop> {
        let _turn = self.turns.wait(job.inode.key());
        let Some(kept) = kept_name(job.inode.key()) else {
            return Err(Stop::Refused("name the inode", io::Error::from_raw_os_error(libc::EINVAL)));
        };
        let inodes = self.claim.inodes();
        let Some(inode) = inodes.stat(&kept).map_err(refused("look for the inode of"))? else {
            return self.first_name(job, &kept);
        };
        if self.claim.is_resumed()
            && job.directory.stat(&job.name).map_err(refused("look at"))?.is_some_and(|s| s.identity == inode.identity)
        {
            count(&self.report.kept);
            return Ok(());
        }
        match self.further_name(job, &kept) {
            Err(Stop::Refused(_, error)) if cannot_link(&error) => {
                self.copied(job, &error);
                let temporary = self.temporary(job)?;
                self.make(job, &temporary)?;
                self.settle(job, &temporary)
            }
            other => other,
        }
    }

    /// The first name that is met: makes the inode, and keeps it for the others.
    fn first_name(&self, job: &Job, kept: &Name) -> Result<(), Stop> {
        let inodes = self.claim.inodes();
        if self.is_finished(job)? {
            count(&self.report.kept);
            self.report.progress.add_bytes(file_bytes(job));
            return match job.directory.link(&job.name, inodes, kept) {
                Err(error) if cannot_link(&error) => Ok(()),
                other => other.map_err(refused("link")),
            };
        }
        let temporary = self.temporary(job)?;
        self.make(job, &temporary)?;
        match job.directory.link(&temporary, inodes, kept) {
            Err(error) if cannot_link(&error) => self.copied(job, &error),
            Err(error) => {
                drop(job.directory.unlink(&temporary));
                return Err(Stop::Refused("link", error));
            }
            Ok(()) => {}
        }
        self.settle(job, &temporary)
    }

    /// Another name of an inode that is complete.
    fn further_name(&self, job: &Job, kept: &Name) -> Result<(), Stop> {
        let inodes = self.claim.inodes();
        if self.claim.may_replace() {
            let temporary = self.temporary(job)?;
            // A killed run may have left this very link, and renaming one name of an inode to another does nothing.
            match job.directory.unlink(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Stop::Refused("clear", error)),
                Ok(()) | Err(_) => {}
            }
            inodes.link(kept, &job.directory, &temporary).map_err(refused("link"))?;
            self.settle(job, &temporary)?;
            drop(job.directory.unlink(&temporary));
        } else {
            inodes.link(kept, &job.directory, &job.name).map_err(|error| match error.raw_os_error() {
                Some(libc::EEXIST) => Stop::InTheWay,
                _ => Stop::Refused("link", error),
            })?;
        }
        count(&self.report.links);
        Ok(())
    }

    fn copied(&self, job: &Job, error: &io::Error) {
        let detail = format!("restored as a file of its own, because it cannot be linked to its other names: {error}");
        self.report.problem(&job.path, Class::Unsupported, detail);
    }
}

/// The name of an inode in the claim.
fn kept_name(inode: &Key) -> Option<Name> {
    let (_, id) = inode.split().ok()?;
    Claim::inode_name(FileId(u64::from_be_bytes(id.try_into().ok()?)))
}
