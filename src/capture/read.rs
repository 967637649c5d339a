//! Reads one name of the source whole: what it is, its attributes and its bytes.
//!
//! What counts is the inode that was opened, not the one that was listed: `fstat` before and after
//! tells whether what was read is one state of it. If not, it is read once more; if that does not
//! help, the point has what was read, of a size that agrees with it, and a problem says so.
//!
//! An entry with a problem keeps no inode number, so the next capture reads it again, and tells again
//! what it cannot read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::attributes;
use super::chunk::stretches;
use super::error::CaptureError;
use super::stat::{Kind, Stat};
use super::sys::{self, Attributes};
use super::unit::ReadJob;
use super::walk::trouble;
use crate::base::limits;
use crate::format::entry::{Body, Content, Entry, Meta, Xattr};
use crate::format::log::{Problem, ProblemKind};

/// Stretches of a file's data: the first byte's offset, and where the bytes are in a buffer.
pub(super) type Stretches = Vec<(u64, Range<usize>)>;

/// What was read.
#[derive(Debug)]
pub(super) struct Reading {
    /// The entry; a file's content is a hole until its stretches are placed.
    pub(super) entry: Entry,
    /// A file's data.
    pub(super) stretches: Stretches,
    /// What did not go well.
    pub(super) problem: Option<Problem>,
}

/// Why a name was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The problem that keeps it out of the point.
    Problem(Problem),
    /// It has grown beyond what is read whole.
    Grown,
    /// The machine cannot go on.
    Machine(CaptureError),
}

/// Times that a file is read before its changing becomes a problem.
const ATTEMPTS: usize = 2;

/// Reads the name of `job`; a file's bytes are added to `buffer`. It may have been `opened` already.
///
/// # Errors
/// Why it was not read.
pub(super) fn read(job: &ReadJob, mut opened: Option<(File, Stat)>, buffer: &mut Vec<u8>) -> Result<Reading, Unread> {
    let failed = |error: &io::Error| {
        trouble(job.directory.path_of(&job.name), error).map_or_else(Unread::Machine, Unread::Problem)
    };
    let start = buffer.len();
    let mut kind = job.stat.kind;
    for _ in 0..ATTEMPTS {
        buffer.truncate(start);
        let read = if kind == Kind::File { read_file(job, opened.take(), buffer) } else { read_other(job, kind) };
        match read {
            // It has become something else since it was listed.
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
                let stat = job.directory.stat_of(&job.name, sys::Ask::Filesystem).map_err(|error| failed(&error))?;
                kind = stat.kind;
            }
            Err(error) if error.raw_os_error() == Some(libc::EFBIG) && !job.again => return Err(Unread::Grown),
            other => return other.map_err(|error| failed(&error)),
        }
    }
    buffer.truncate(start);
    Err(failed(&io::Error::from_raw_os_error(libc::ESTALE)))
}

/// Refuses another inode where the entry is the record of one with several names.
fn same_inode(job: &ReadJob, stat: &Stat) -> io::Result<()> {
    if job.inode.is_some() && stat.identity != job.stat.identity {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    Ok(())
}

fn read_file(job: &ReadJob, mut opened: Option<(File, Stat)>, buffer: &mut Vec<u8>) -> io::Result<Reading> {
    let start = buffer.len();
    let path = || job.directory.path_of(&job.name);
    for attempt in 1..=ATTEMPTS {
        buffer.truncate(start);
        let (file, before) = opened.take().map_or_else(|| job.directory.open_file(&job.name), Ok)?;
        same_inode(job, &before)?;
        let most = before.meta.size.min(limits::WHOLE_FILE_BYTES_MAX);
        if most < before.meta.size && !job.again {
            // It has grown since it was listed. No read of ours yields this error.
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let (stretches, whole) =
            if most == 0 { read_unmeasured(&file, buffer)? } else { read_stretches(&file, most, buffer)? };
        let (xattrs, failed) = attributes::read(Attributes::Open(file.as_fd()));
        let after = Stat::of(file.as_fd())?;
        let steady = whole && most == before.meta.size && before.same_content(&after);
        if !steady && attempt < ATTEMPTS {
            continue;
        }
        let mut meta = before.meta;
        let problem = if steady {
            let read = stretches.last().map_or(0, |(offset, bytes)| offset + bytes.len() as u64);
            meta.size = meta.size.max(read);
            failed.map(|error| unread_attributes(path(), &error))
        } else {
            let end = stretches.last().map_or(0, |(offset, bytes)| offset + bytes.len() as u64);
            meta.size = most.min(after.meta.size).max(end);
            Some(changed(path()))
        };
        if problem.is_some() {
            meta = doubtful(meta);
        }
        let entry = Entry { meta, xattrs, body: Body::File(Content::Hole) };
        return Ok(Reading { entry, stretches, problem });
    }
    Err(io::Error::from_raw_os_error(libc::ESTALE))
}

/// What a file holds that has no bytes by its metadata: some filesystems do not know before it is read. Whether
/// that was all of it.
fn read_unmeasured(file: &File, buffer: &mut Vec<u8>) -> io::Result<(Stretches, bool)> {
    let most = usize::try_from(limits::WHOLE_FILE_BYTES_MAX).unwrap_or(usize::MAX);
    let start = buffer.len();
    // Nearly all of them are empty indeed.
    let mut wanted = 4096;
    loop {
        buffer.resize(start + wanted, 0);
        let got = read_full_at(file, buffer.get_mut(start..).unwrap_or_default(), 0)?;
        buffer.truncate(start + got.min(most));
        if got < wanted || wanted > most {
            let read = if got == 0 { Vec::new() } else { vec![(0, start..buffer.len())] };
            return Ok((read, got <= most));
        }
        wanted = most + 1;
    }
}

/// The stretches of data below `most`; whether all of them were read.
fn read_stretches(file: &File, most: u64, buffer: &mut Vec<u8>) -> io::Result<(Stretches, bool)> {
    let wanted = usize::try_from(most).unwrap_or(usize::MAX);
    let start = buffer.len();
    buffer.resize(start + wanted, 0);
    let got = read_full_at(file, buffer.get_mut(start..).unwrap_or_default(), 0)?;
    buffer.truncate(start + got);
    let whole = got == wanted;
    if got == 0 {
        return Ok((Vec::new(), whole));
    }
    if !may_have_holes(buffer.get(start..).unwrap_or_default()) {
        return Ok((vec![(0, start..start + got)], whole));
    }
    // What was read of holes is left out; nothing is read twice.
    let place = |stretch: Range<u64>| {
        let at = |offset| start + usize::try_from(offset).unwrap_or(usize::MAX);
        (stretch.start, at(stretch.start)..at(stretch.end))
    };
    let read: io::Result<_> = stretches(file, 0..got as u64).map(|stretch| stretch.map(place)).collect();
    Ok((read?, whole))
}

/// Whether zeros in `data` could be a hole, which only the kernel can tell. A hole is zeros, and none that a filesystem makes lies within
/// less than a block of 512 bytes or the end of a file.
fn may_have_holes(data: &[u8]) -> bool {
    data.chunks(512).any(|block| block.iter().all(|byte| *byte == 0))
}

/// Fills `buffer` from `offset` on, as far as the file goes.
pub(super) fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn read_other(job: &ReadJob, kind: Kind) -> io::Result<Reading> {
    let (path, stat) = job.directory.open_path(&job.name)?;
    same_inode(job, &stat)?;
    if stat.kind != kind {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    let body = match kind {
        Kind::Symlink => Body::Symlink(target(sys::read_link(path.as_fd())?)?),
        Kind::BlockDevice => Body::BlockDevice(stat.node.0, stat.node.1),
        Kind::CharDevice => Body::CharDevice(stat.node.0, stat.node.1),
        Kind::Fifo => Body::Fifo,
        Kind::Socket => Body::Socket,
        // A directory where a file was listed has nobody to walk it.
        Kind::Directory | Kind::File => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    };
    let (xattrs, failed) = attributes::read(Attributes::Path(path.as_fd()));
    let problem = failed.map(|error| unread_attributes(job.directory.path_of(&job.name), &error));
    let meta = if problem.is_some() { doubtful(stat.meta) } else { stat.meta };
    Ok(Reading { entry: Entry { meta, xattrs, body }, stretches: Vec::new(), problem })
}

/// The metadata of an entry that does not hold all there is: no later capture takes it for unchanged.
pub(super) fn doubtful(meta: Meta) -> Meta {
    Meta { inode: 0, ..meta }
}

/// A symbolic link's target, unless no link that could be made again has it.
fn target(target: Vec<u8>) -> io::Result<Vec<u8>> {
    let fits = !target.is_empty() && !target.contains(&0);
    if fits { Ok(target) } else { Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)) }
}

/// The attributes of an open file or directory, with the problem of those that could not be read.
pub(super) fn attributes_of(fd: impl AsFd, path: impl FnOnce() -> Vec<u8>) -> (Vec<Xattr>, Option<Problem>) {
    let (xattrs, failed) = attributes::read(Attributes::Open(fd.as_fd()));
    (xattrs, failed.map(|error| unread_attributes(path(), &error)))
}

fn unread_attributes(path: Vec<u8>, error: &io::Error) -> Problem {
    let detail = format!("was captured without an extended attribute that cannot be read: {error}");
    Problem { path, kind: ProblemKind::Unsupported, detail }
}

/// The problem of a file that did not hold still.
pub(super) fn changed(path: Vec<u8>) -> Problem {
    let detail = "changed while it was read: the point has what was read, which may be no state that it ever had";
    Problem { path, kind: ProblemKind::Changed, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_could_not_be_made_again_is_of_a_kind_that_cannot_be_stored() {
        assert_eq!(target(b"x".to_vec()).unwrap(), b"x");
        for bad in [&b""[..], b"a\0b"] {
            let error = target(bad.to_vec()).unwrap_err();
            assert_eq!(crate::capture::walk::problem(b"link".to_vec(), &error).kind, ProblemKind::Unsupported);
        }
    }
}
