//! An open directory of the source: the only way in which capture reaches anything.
//!
//! Names are opened one at a time below an open directory and never through a path, so a path may be
//! of any length, and whoever renames or swaps directories underneath cannot lead capture elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::stat::{Kind, Stat};
use super::sys::{self, Ask};
use crate::base::limits;

/// An open directory and where it lies.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    /// Relative to the source's root, without a leading `/`; empty for the root. For messages and patterns only.
    path: Vec<u8>,
    stat: Stat,
}

impl Directory {
    /// The source's root. The path given may lead through symbolic links: it is the caller's word.
    ///
    /// # Errors
    /// Those of opening; `ENOTDIR` when it is no directory.
    pub(super) fn root(path: &Path) -> io::Result<Directory> {
        // Resolved first, so that the open itself needs to follow nothing.
        let real = std::fs::canonicalize(path)?;
        let fd = File::open(&real)?;
        let fd = sys::open_at(fd.as_fd(), c".", sys::DIRECTORY)?;
        let stat = Stat::of(fd.as_fd())?;
        Ok(Directory { fd, path: Vec::new(), stat })
    }

    /// The directory `name` in this one.
    ///
    /// # Errors
    /// Those of opening; `ENOTDIR` or `ELOOP` when it is something else.
    pub(super) fn open(&self, name: &[u8]) -> io::Result<Directory> {
        let fd = sys::open_at(self.fd.as_fd(), &sys::c_name(name)?, sys::DIRECTORY)?;
        let stat = Stat::of(fd.as_fd())?;
        Ok(Directory { fd, path: self.path_of(name), stat })
    }

    /// The directory that holds this one, if it is still the one that `place` tells of.
    ///
    /// # Errors
    /// Those of opening; `ESTALE` when another directory holds this one by now.
    pub(super) fn reopen_parent(&self, place: &Place) -> io::Result<Directory> {
        let fd = sys::open_at(self.fd.as_fd(), sys::PARENT, sys::DIRECTORY)?;
        let stat = Stat::of(fd.as_fd())?;
        if stat.identity != place.stat.identity {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        Ok(Directory { fd, path: place.path.clone(), stat: place.stat })
    }

    /// What is left of it when it is closed.
    pub(super) fn place(&self) -> Place {
        Place { path: self.path.clone(), stat: self.stat }
    }

    /// The descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// As it was when it was opened.
    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Relative to the root, in bytes.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path of `name` in it, relative to the root.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path, name)
    }

    /// What `name` in it is.
    ///
    /// # Errors
    /// As [`Stat::at`].
    pub(super) fn stat_of(&self, name: &[u8], ask: Ask) -> io::Result<Stat> {
        Stat::at(self.fd.as_fd(), &sys::c_name(name)?, ask)
    }

    /// The regular file `name`, open to read, and what it was at that moment. Never waits for a FIFO's
    /// writer and never opens what `O_NOFOLLOW` would have to follow.
    ///
    /// # Errors
    /// Those of opening; `ESTALE` when it is no regular file.
    pub(super) fn open_file(&self, name: &[u8]) -> io::Result<(File, Stat)> {
        let name = sys::c_name(name)?;
        let fd = match sys::open_at(self.fd.as_fd(), &name, sys::READ) {
            // Somebody holds a lease on it (Samba does) and must be waited for; only a file can have one.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let path = sys::open_at(self.fd.as_fd(), &name, sys::PATH)?;
                if Stat::of(path.as_fd())?.kind != Kind::File {
                    return Err(io::Error::from_raw_os_error(libc::ESTALE));
                }
                sys::reopen(path.as_fd())?
            }
            // A socket, or a device without a driver.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV | libc::ELOOP)) => {
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
            other => other?,
        };
        let stat = Stat::of(fd.as_fd())?;
        if stat.kind != Kind::File {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        Ok((File::from(fd), stat))
    }

    /// Whatever `name` is, opened to be asked about only.
    ///
    /// # Errors
    /// Those of opening.
    pub(super) fn open_path(&self, name: &[u8]) -> io::Result<(OwnedFd, Stat)> {
        let fd = sys::open_at(self.fd.as_fd(), &sys::c_name(name)?, sys::PATH)?;
        let stat = Stat::of(fd.as_fd())?;
        Ok((fd, stat))
    }

    /// Its absolute path as the kernel shows it, where that is short enough to be shown.
    pub(super) fn absolute(&self) -> Option<Vec<u8>> {
        use std::os::fd::AsRawFd;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).ok()?;
        Some(link.as_os_str().as_bytes().to_vec())
    }

    /// All names in it, sorted by their bytes; none if there are more than about `most`. To be asked once.
    ///
    /// # Errors
    /// Those of reading it.
    pub(super) fn names(&self, buffer: &mut [u8], most: usize) -> io::Result<Option<Names>> {
        let mut names = Names::none();
        while sys::read_names(self.fd.as_fd(), buffer, |name, kind| names.push(name, kind))? {
            if names.len() > most {
                return Ok(None);
            }
        }
        names.sort();
        Ok(Some(names))
    }
}

/// Where a directory was, after it has been closed.
#[derive(Debug, Clone)]
pub(super) struct Place {
    path: Vec<u8>,
    stat: Stat,
}

impl Place {
    /// Its name in the directory above.
    pub(super) fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// As it was when it was opened.
    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }

    /// The path of `name` in it, relative to the root.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path, name)
    }
}

/// `name` behind `path`.
fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    joined.extend_from_slice(path);
    if !path.is_empty() && !name.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

/// The path as people read it: `.` for the root.
pub(super) fn shown(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}

/// What a listing says of a name's kind, without a look at the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// A directory.
    Directory,
    /// Something else.
    Other,
    /// The filesystem does not say.
    Unknown,
}

/// The names in one directory, packed: a directory of a million names costs some tens of megabytes.
#[derive(Debug)]
pub(super) struct Names {
    bytes: Vec<u8>,
    items: Vec<Name>,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    start: usize,
    bytes: u16,
    hint: Hint,
}

impl Names {
    /// Of a directory that counts as empty.
    pub(super) fn none() -> Names {
        Names { bytes: Vec::new(), items: Vec::new() }
    }

    fn push(&mut self, name: &[u8], kind: u8) {
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            return;
        }
        let hint = match kind {
            libc::DT_DIR => Hint::Directory,
            libc::DT_UNKNOWN => Hint::Unknown,
            _ => Hint::Other,
        };
        // The kernel's records are shorter than 64 KiB, so every name fits.
        let bytes = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.items.push(Name { start: self.bytes.len(), bytes, hint });
        self.bytes.extend_from_slice(name);
    }

    fn sort(&mut self) {
        let Names { bytes, items } = self;
        let name = |item: &Name| bytes.get(item.start..item.start + usize::from(item.bytes)).unwrap_or_default();
        items.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        // Some filesystems repeat a name when a directory changes while it is read.
        items.dedup_by(|a, b| name(a) == name(b));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The name at `index`.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], Hint)> {
        let item = self.items.get(index)?;
        Some((self.bytes.get(item.start..item.start + usize::from(item.bytes))?, item.hint))
    }

    /// Whether `name` is among them.
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.items
            .binary_search_by(|item| {
                self.bytes.get(item.start..item.start + usize::from(item.bytes)).unwrap_or_default().cmp(name)
            })
            .is_ok()
    }

    /// Drops all names but `name`.
    pub(super) fn keep_only(&mut self, name: &[u8]) {
        let Names { bytes, items } = self;
        items.retain(|item| bytes.get(item.start..item.start + usize::from(item.bytes)) == Some(name));
    }
}

/// Whether the format can hold `name`.
pub(super) fn fits(name: &[u8]) -> bool {
    name.len() <= limits::NAME_BYTES_MAX
}
