//! Makes one name equal to the point's: under a temporary name first, complete, then renamed.
//!
//! Crash behaviour: a name is either as it was before or complete with all its metadata. What cannot
//! be read from the repository is never made: no file is short, and none has zeros where data were.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::attributes;
use super::claim::Claim;
use super::directory::Name;
use super::links::Turns;
use super::options::Policy;
use super::outcome::{Report, count};
use super::plan::{Job, Unit, in_the_way};
use super::sys::{Handle, Stat};
use crate::base::Class;
use crate::format::entry::{Body, Content, Entry};
use crate::format::{ChunkRef, FileId};
use crate::view::namespace::ViewError;
use crate::view::{Inode, PointView};

/// Makes names. Shared by all workers.
pub(super) struct Writer<'a> {
    pub(super) view: &'a PointView,
    pub(super) claim: &'a Claim,
    pub(super) policy: Policy,
    pub(super) report: &'a Report<'a>,
    pub(super) turns: Turns,
    /// Threads for the content of one large file.
    pub(super) workers: usize,
}

/// Bytes of content from which on a file is written by several threads.
const SIDE_BY_SIDE_BYTES: u64 = 64 << 20;

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
fn contradiction(what: &str) -> Stop {
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
        let made = self.make_inode(job, temporary);
        if made.is_err() {
            // Nothing may have been made at all.
            drop(job.directory.unlink(temporary));
        }
        made
    }

    fn make_inode(&self, job: &Job, temporary: &Name) -> Result<(), Stop> {
        let entry = job.inode.entry();
        let counter = match &entry.body {
            Body::File(content) => {
                let file = job.directory.new_file(temporary).map_err(refused("create the file"))?;
                let bytes = self.write(&job.inode, content, &file)?;
                self.report.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.set(job, entry, Handle::Open(file.as_fd()));
                &self.report.files
            }
            Body::Symlink(target) => {
                let made = job.directory.new_symlink(temporary, target);
                let inode = made.map_err(refused("create the symbolic link"))?;
                self.set(job, entry, Handle::Path(inode.as_fd()));
                &self.report.symlinks
            }
            Body::BlockDevice(major, minor) => self.make_node(job, temporary, libc::S_IFBLK, (*major, *minor))?,
            Body::CharDevice(major, minor) => self.make_node(job, temporary, libc::S_IFCHR, (*major, *minor))?,
            Body::Fifo => self.make_node(job, temporary, libc::S_IFIFO, (0, 0))?,
            Body::Socket => self.make_node(job, temporary, libc::S_IFSOCK, (0, 0))?,
            Body::Directory { .. } | Body::Link(_) => return Err(contradiction("it has the kind of a name")),
        };
        if self.report.is_halted() {
            return Err(Stop::Halted);
        }
        count(counter);
        Ok(())
    }

    fn make_node(
        &self,
        job: &Job,
        temporary: &Name,
        kind: u32,
        node: (u32, u32),
    ) -> Result<&std::sync::atomic::AtomicU64, Stop> {
        let made = job.directory.new_node(temporary, kind, node);
        let inode = made.map_err(refused("create the special file"))?;
        self.set(job, job.inode.entry(), Handle::Path(inode.as_fd()));
        Ok(&self.report.specials)
    }

    fn set(&self, job: &Job, entry: &Entry, of: Handle<'_>) {
        attributes::set(of, entry, &self.policy, self.report, &job.path);
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

    /// Writes the content of `inode` into the empty `file`, holes as holes; how many bytes that took.
    fn write(&self, inode: &Inode, content: &Content, file: &File) -> Result<u64, Stop> {
        let size = inode.entry().meta.size;
        let (written, end) = match content {
            Content::Hole => (0, 0),
            Content::Inline(bytes) if bytes.len() as u64 == size => {
                file.write_all_at(bytes, 0).map_err(refused("write"))?;
                self.report.progress.add_bytes(size);
                (size, size)
            }
            Content::Inline(_) => return Err(contradiction("it is not as long as the file")),
            Content::Mapped { data_bytes, .. } if *data_bytes >= SIDE_BY_SIDE_BYTES => {
                self.write_side_by_side(inode, file)?
            }
            Content::Extents(_) | Content::Mapped { .. } => {
                self.each_chunk(inode, |at, chunk| self.write_chunk(file, at, chunk))?
            }
        };
        if end < size {
            file.set_len(size).map_err(refused("set the size"))?;
            self.report.progress.add_bytes(size - end);
        }
        Ok(written)
    }

    /// Hands over the chunks of `inode` in order, refusing those that contradict one another; how many bytes they
    /// have, and where the last one ends.
    fn each_chunk(
        &self,
        inode: &Inode,
        mut take: impl FnMut(u64, &ChunkRef) -> Result<(), Stop>,
    ) -> Result<(u64, u64), Stop> {
        let size = inode.entry().meta.size;
        let (mut written, mut end) = (0, 0);
        self.view.each_chunk(inode, |at, chunk| {
            if self.report.is_halted() {
                return Err(Stop::Halted);
            }
            let upto = at.checked_add(u64::from(chunk.bytes)).filter(|upto| at >= end && *upto <= size);
            let upto = upto.ok_or_else(|| contradiction("its extents overlap or exceed the file"))?;
            take(at, chunk)?;
            self.report.progress.add_bytes(upto - end);
            written += u64::from(chunk.bytes);
            end = upto;
            Ok(true)
        })?;
        Ok((written, end))
    }

    fn write_chunk(&self, file: &File, at: u64, chunk: &ChunkRef) -> Result<(), Stop> {
        let frame = self.view.frame(chunk)?;
        let data = chunk_of(&frame, chunk).ok_or_else(|| contradiction("a chunk exceeds its frame"))?;
        file.write_all_at(data, at).map_err(refused("write"))
    }

    /// As [`Writer::each_chunk`] with [`Writer::write_chunk`], by several threads: one file can be all there is.
    fn write_side_by_side(&self, inode: &Inode, file: &File) -> Result<(u64, u64), Stop> {
        let (send, receive) = crossbeam_channel::bounded::<(u64, ChunkRef)>(4 * self.workers);
        let failed = Mutex::new(None);
        let told = std::thread::scope(|scope| {
            for _ in 0..self.workers {
                let (receive, failed) = (receive.clone(), &failed);
                scope.spawn(move || {
                    for (at, chunk) in receive {
                        if let Err(stop) = self.write_chunk(file, at, &chunk) {
                            // The others notice when nobody takes what they send.
                            failed.lock().get_or_insert(stop);
                            return;
                        }
                    }
                });
            }
            drop(receive);
            let told = self.each_chunk(inode, |at, chunk| {
                // Not asked in the condition itself: whoever waits to send must not hold the lock.
                let ended = failed.lock().is_some();
                if ended { Err(Stop::Halted) } else { send.send((at, *chunk)).map_err(|_| Stop::Halted) }
            });
            drop(send);
            told
        });
        match failed.into_inner() {
            Some(stop) => Err(stop),
            None => told,
        }
    }
}

/// The size of a regular file, for the progress; all else counts nothing.
pub(super) fn file_bytes(job: &Job) -> u64 {
    match &job.inode.entry().body {
        Body::File(_) => job.inode.entry().meta.size,
        _ => 0,
    }
}

/// The bytes of `chunk` in its decoded frame.
pub(super) fn chunk_of<'f>(frame: &'f [u8], chunk: &ChunkRef) -> Option<&'f [u8]> {
    let start = usize::try_from(chunk.start).ok()?;
    frame.get(start..start.checked_add(usize::try_from(chunk.bytes).ok()?)?)
}
