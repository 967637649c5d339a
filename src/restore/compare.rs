//! Reads back what was restored and compares it with the point.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::attributes;
use super::content::chunk_of;
use super::options::Policy;
use super::outcome::{Report, count};
use super::plan::{Job, Unit};
use super::sys;
use crate::format::entry::{Body, Content};
use crate::view::namespace::ViewError;
use crate::view::{Inode, PointView};

/// Compares names. Shared by all workers.
pub(super) struct Comparer<'a> {
    pub(super) view: &'a PointView,
    pub(super) policy: Policy,
    pub(super) report: &'a Report<'a>,
    /// Whether something was left out before, of which it is not to be told again.
    pub(super) incomplete: bool,
}

/// Bytes that are compared with nothing at once.
const GAP_BYTES: usize = 64 << 10;

/// Why a file cannot be compared, or does not compare.
pub(super) enum Unequal {
    Content(u64),
    Repository(ViewError),
    Target(io::Error),
    Halted,
}

impl From<ViewError> for Unequal {
    fn from(error: ViewError) -> Unequal {
        Unequal::Repository(error)
    }
}

impl From<io::Error> for Unequal {
    fn from(error: io::Error) -> Unequal {
        Unequal::Target(error)
    }
}

impl Comparer<'_> {
    /// Does the jobs of a unit.
    pub(super) fn unit(&self, unit: Unit) {
        for job in unit {
            if self.report.is_halted() {
                return;
            }
            self.job(&job);
            self.report.progress.add_file();
        }
    }

    fn job(&self, job: &Job) {
        let Body::File(content) = &job.inode.entry().body else { return };
        let (file, stat) = match job.directory.open_file(&job.name) {
            Ok(opened) => opened,
            Err(_) if self.incomplete => return,
            Err(error) => return self.report.refused(&job.path, "read back", error),
        };
        if stat.size != job.inode.entry().meta.size {
            return self.report.differs(&job.path, "read back, it has another size".to_owned());
        }
        if !self.incomplete && !attributes::are_set(&stat, job.inode.entry(), &self.policy) {
            self.report.differs(&job.path, "read back, its owner, permissions or times are others".to_owned());
        }
        match compare_content(self.view, self.report, &job.inode, content, &file) {
            Ok(()) => count(&self.report.verified),
            Err(Unequal::Content(at)) => {
                self.report.differs(&job.path, format!("read back, it differs at byte {at}"));
            }
            Err(Unequal::Repository(_)) if self.incomplete => {}
            Err(Unequal::Repository(error)) => self.report.fault(&job.path, "cannot read the content", &error),
            Err(Unequal::Target(error)) => self.report.refused(&job.path, "read back", error),
            Err(Unequal::Halted) => {}
        }
    }
}

/// Reads `file` back and compares it with `content` of `inode`, which is as long.
pub(super) fn compare_content(
    view: &PointView,
    report: &Report<'_>,
    inode: &Inode,
    content: &Content,
    file: &File,
) -> Result<(), Unequal> {
    sys::forget_content(file.as_fd());
    let size = inode.entry().meta.size;
    if let Content::Inline(bytes) = content {
        return equal(file, 0, bytes);
    }
    let mut end = 0;
    view.each_chunk(inode, |at, chunk| {
        if report.is_halted() {
            return Err(Unequal::Halted);
        }
        empty(file, end, at)?;
        let frame = view.frame(chunk)?;
        equal(file, at, chunk_of(&frame, chunk).unwrap_or_default())?;
        end = at.saturating_add(u64::from(chunk.bytes));
        report.progress.add_bytes(u64::from(chunk.bytes));
        Ok(true)
    })?;
    empty(file, end, size)
}

/// Whether `file` has `bytes` at `at`.
fn equal(file: &File, at: u64, bytes: &[u8]) -> Result<(), Unequal> {
    let mut found = vec![0; bytes.len()];
    file.read_exact_at(&mut found, at)?;
    match found.iter().zip(bytes).position(|(a, b)| a != b) {
        Some(place) => Err(Unequal::Content(at + place as u64)),
        None => Ok(()),
    }
}

/// Whether `file` has nothing but zeros from `from` up to `to`; holes need not be read.
fn empty(file: &File, mut from: u64, to: u64) -> Result<(), Unequal> {
    let mut buffer = [0; GAP_BYTES];
    while from < to {
        match sys::seek_data(file, from)? {
            Some(data) if data < to => from = data,
            Some(_) | None => return Ok(()),
        }
        let length = usize::try_from(to - from).unwrap_or(GAP_BYTES).min(GAP_BYTES);
        let piece = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(piece, from)?;
        if let Some(place) = piece.iter().position(|byte| *byte != 0) {
            return Err(Unequal::Content(from + place as u64));
        }
        from += length as u64;
    }
    Ok(())
}
