//! Where the blocks are: the files of a disk cache, opened one component after another from a directory that is ours alone.
//!
//! Others may have made the directory, or put something there while it was open to them. So it must belong to us and to
//! nobody else each time that it is used, no link is followed below it, no FIFO waited for, and only plain files of ours
//! are read or written.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::sys::effective_uid;
use crate::store::sys::{self, Kind};

/// Beside the repositories' directories: how often what was asked for was there, and was not.
const COUNTS: &str = "counts";

/// The files of one repository in a disk cache.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    repository: String,
}

/// A slab, of whichever repository.
pub(super) struct Slab {
    repository: String,
    object: String,
    name: String,
    pub(super) bytes: u64,
    /// When it was used last.
    pub(super) used: (i64, i64),
}

impl Files {
    pub(super) fn new(directory: PathBuf, repository: String) -> Files {
        Files { directory, repository }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of all repositories, if it is ours alone.
    fn open(&self) -> io::Result<OwnedFd> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let directory = OwnedFd::from(OpenOptions::new().read(true).custom_flags(flags).open(&self.directory)?);
        let status = sys::status(directory.as_fd())?;
        let refused = |why: String| Err(io::Error::new(ErrorKind::PermissionDenied, why));
        if status.owner != effective_uid() {
            return refused(format!("it is user {}'s", status.owner));
        }
        if status.mode & 0o077 != 0 {
            return refused(format!("others can use it (mode {:04o}); chmod 700, or remove it", status.mode));
        }
        Ok(directory)
    }

    /// A slab to read.
    pub(super) fn slab(&self, object: &str, slab: u64) -> io::Result<File> {
        let repository = sys::open_directory(self.open()?.as_fd(), &self.repository)?;
        let object = sys::open_directory(repository.as_fd(), object)?;
        ours(sys::open_file(object.as_fd(), &slab.to_string())?)
    }

    /// A slab to read and write, made if it is not there.
    pub(super) fn slab_to_write(&self, object: &str, slab: u64) -> io::Result<File> {
        let directory = match self.open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
                self.open()?
            }
            opened => opened?,
        };
        let below = |parent: &OwnedFd, name: &str| match sys::open_directory(parent.as_fd(), name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                sys::make_directory(parent.as_fd(), name)?;
                sys::open_directory(parent.as_fd(), name)
            }
            opened => opened,
        };
        let object = below(&below(&directory, &self.repository)?, object)?;
        ours(sys::open_to_write(object.as_fd(), &slab.to_string())?)
    }

    /// All slabs of all repositories. What goes meanwhile is not there.
    pub(super) fn all(&self) -> Vec<Slab> {
        let mut found = Vec::new();
        let Ok(directory) = self.open() else { return found };
        for (repository, of_repository) in directories(&directory) {
            for (object, of_object) in directories(&of_repository) {
                for name in names(&of_object) {
                    let Ok(status) = sys::status_of(of_object.as_fd(), &name) else { continue };
                    if status.kind == Kind::File {
                        let (repository, object) = (repository.clone(), object.clone());
                        let (bytes, used) = (status.allocated, status.modified);
                        found.push(Slab { repository, object, name, bytes, used });
                    }
                }
            }
        }
        found
    }

    /// Removes a slab, and its directory with the last one. Gone already, by another process, is as good.
    pub(super) fn remove(&self, slab: &Slab) {
        let remove = || -> io::Result<()> {
            let repository = sys::open_directory(self.open()?.as_fd(), &slab.repository)?;
            let object = sys::open_directory(repository.as_fd(), &slab.object)?;
            sys::remove_file(object.as_fd(), &slab.name)?;
            sys::remove_directory(repository.as_fd(), &slab.object)
        };
        drop(remove());
    }

    /// How often blocks were there and were not, for as long as the directory has been: about, for processes that end at the
    /// same moment count for one.
    pub(super) fn counts(&self) -> io::Result<(u64, u64)> {
        let mut counts = [0; 16];
        ours(sys::open_file(self.open()?.as_fd(), COUNTS)?)?.read_exact_at(&mut counts, 0)?;
        let (hits, misses) = counts.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        Ok((number(hits), number(misses)))
    }

    /// Adds to [`Files::counts`], where there is a cache.
    pub(super) fn add_counts(&self, hits: u64, misses: u64) -> io::Result<()> {
        let (before, without) = self.counts().unwrap_or_default();
        let counts = [before.saturating_add(hits).to_le_bytes(), without.saturating_add(misses).to_le_bytes()].concat();
        ours(sys::open_to_write(self.open()?.as_fd(), COUNTS)?)?.write_all_at(&counts, 0)
    }
}

/// The file, if it is a plain one and ours.
fn ours(file: OwnedFd) -> io::Result<File> {
    let status = sys::status(file.as_fd())?;
    if status.kind == Kind::File && status.owner == effective_uid() {
        Ok(File::from(file))
    } else {
        Err(io::Error::new(ErrorKind::InvalidData, "what stands there is no file of ours"))
    }
}

fn names(directory: &OwnedFd) -> Vec<String> {
    let listed = sys::open_directory(directory.as_fd(), ".").and_then(sys::names);
    listed.unwrap_or_default().into_iter().map(|name| name.text).collect()
}

fn directories(directory: &OwnedFd) -> Vec<(String, OwnedFd)> {
    let open = |name: String| sys::open_directory(directory.as_fd(), &name).ok().map(|opened| (name, opened));
    names(directory).into_iter().filter_map(open).collect()
}
