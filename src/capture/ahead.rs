//! Opens the files of a unit before it is their turn, and tells the kernel that they will be read.
//!
//! Who reads many small files one by one, none of them in memory, sleeps once for each: the processor goes idle and is woken, which
//! costs more than the reading. What is asked for in advance is on its way while files before it are read.

use std::collections::VecDeque;
use std::fs::File;

use super::stat::{Kind, Stat};
use super::sys;
use super::unit::{Job, ReadJob};
use crate::base::limits;

/// Files at the head of a queue of jobs that are open already: one place for each job.
#[derive(Debug, Default)]
pub(super) struct Ahead(VecDeque<Option<(File, Stat)>>);

impl Ahead {
    /// The first of `jobs` leaves the queue, with its file where that is open.
    pub(super) fn next(&mut self, jobs: &mut VecDeque<Job>) -> Option<(Job, Option<(File, Stat)>)> {
        for job in jobs.iter().skip(self.0.len()).take(limits::CAPTURE_FILES_AHEAD.saturating_sub(self.0.len())) {
            self.0.push_back(match job {
                Job::Read(job) if job.stat.kind == Kind::File => opened(job),
                _ => None,
            });
        }
        Some((jobs.pop_front()?, self.0.pop_front().flatten()))
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.0.iter().flatten().count()
    }
}

/// The file of `job`, which the kernel has begun to read. What cannot be opened is opened again in its turn, which tells why.
fn opened(job: &ReadJob) -> Option<(File, Stat)> {
    let (file, stat) = job.directory.open_file(&job.name).ok()?;
    sys::will_read(&file, 0..stat.meta.size.min(limits::WHOLE_FILE_BYTES_MAX));
    Some((file, stat))
}
