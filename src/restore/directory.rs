//! An open directory of the target: the only way in which a restore reaches anything.
//!
//! Whatever is made or changed is named by one component below an open directory, so a symbolic link
//! that stands in the target, was restored into it, or is swapped in while the restore runs leads
//! nowhere. A name is checked again here although the format has refused all others.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::sys::{self, Handle, Stat};
use crate::base::{limits, sys::effective_uid};

/// A single component of a path: not empty, not `.` or `..`, without `/` and zero bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(CString);

impl Name {
    /// `bytes` as a name, unless they are none.
    pub(super) fn new(bytes: &[u8]) -> Option<Name> {
        let good =
            !matches!(bytes, b"" | b"." | b"..") && bytes.len() <= limits::NAME_BYTES_MAX && !bytes.contains(&b'/');
        CString::new(bytes).ok().filter(|_| good).map(Name)
    }

    /// Without its closing zero byte.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.to_bytes()
    }

    fn c(&self) -> &CStr {
        &self.0
    }
}

/// Which inode something is: its filesystem and its number there.
pub(super) type Identity = (u64, u64);

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    identity: Identity,
}

impl Directory {
    /// The directory at `path`, which may lead through symbolic links: it is the caller's word.
    ///
    /// # Errors
    /// Those of opening.
    pub(super) fn at(path: &Path) -> io::Result<Directory> {
        let real = std::fs::canonicalize(path)?;
        let file = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(real)?;
        Directory::of(file.into())
    }

    fn of(fd: OwnedFd) -> io::Result<Directory> {
        let stat = sys::stat_fd(fd.as_fd())?;
        if !stat.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        Ok(Directory { fd, identity: stat.identity })
    }

    /// The descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Which inode it is.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// What it is now.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub(super) fn stat_self(&self) -> io::Result<Stat> {
        sys::stat_fd(self.fd())
    }

    /// The directory `name`. One that its owner, the caller, has closed to himself is opened up: its
    /// permissions are set at the end in any case.
    ///
    /// # Errors
    /// Those of opening; `ENOTDIR` or `ELOOP` when it is something else.
    pub(super) fn open_dir(&self, name: &Name) -> io::Result<Directory> {
        self.open_dir_by(name, sys::open_beneath)
    }

    /// As [`Directory::open_dir`], if nothing is mounted there; `EXDEV` otherwise, where the kernel can tell.
    ///
    /// # Errors
    /// As said.
    pub(super) fn open_unmounted_dir(&self, name: &Name) -> io::Result<Directory> {
        self.open_dir_by(name, sys::open_unmounted)
    }

    fn open_dir_by(
        &self,
        name: &Name,
        open: fn(BorrowedFd<'_>, &CStr, libc::c_int) -> io::Result<OwnedFd>,
    ) -> io::Result<Directory> {
        match open(self.fd(), name.c(), sys::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let inode = open(self.fd(), name.c(), sys::INODE)?;
                let stat = sys::stat_fd(inode.as_fd())?;
                if !stat.is_dir() || stat.uid != effective_uid() {
                    return Err(error);
                }
                sys::chmod(sys::Handle::Path(inode.as_fd()), 0o700)?;
                let opened = Directory::of(open(self.fd(), name.c(), sys::DIRECTORY)?)?;
                if opened.identity == stat.identity { Ok(opened) } else { Err(error) }
            }
            other => Directory::of(other?),
        }
    }

    /// Makes the directory `name`, for its owner alone.
    ///
    /// # Errors
    /// `EEXIST` when the name is taken.
    pub(super) fn make_dir(&self, name: &Name) -> io::Result<Directory> {
        sys::make_dir(self.fd(), name.c())?;
        Directory::of(sys::open_beneath(self.fd(), name.c(), sys::DIRECTORY)?)
    }

    /// Lets its owner, the caller, make names in it; its permissions are set at the end. Nothing else is changed.
    ///
    /// # Errors
    /// Those of changing its permissions.
    pub(super) fn make_usable(&self) -> io::Result<()> {
        let stat = self.stat_self()?;
        let user = effective_uid();
        if user != 0 && user == stat.uid && stat.mode & 0o700 != 0o700 {
            sys::chmod(Handle::Open(self.fd()), stat.mode & 0o7777 | 0o700)?;
        }
        Ok(())
    }

    /// The directory that holds this one, if it is the one expected.
    ///
    /// # Errors
    /// Those of opening; `ESTALE` when another directory holds this one by now.
    pub(super) fn parent(&self, expected: Identity) -> io::Result<Directory> {
        let above = self.above()?;
        if above.identity != expected {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        Ok(above)
    }

    /// Whatever directory holds this one.
    ///
    /// # Errors
    /// Those of opening.
    pub(super) fn above(&self) -> io::Result<Directory> {
        Directory::of(sys::open_parent(self.fd())?)
    }

    /// What `name` is; none if there is no such name.
    ///
    /// # Errors
    /// Those of `fstatat`.
    pub(super) fn stat(&self, name: &Name) -> io::Result<Option<Stat>> {
        match sys::stat_at(self.fd(), name.c()) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes something under the temporary name `name`, over what an interrupted restore has left there.
    fn make<T>(&self, name: &Name, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.unlink(name)?;
                make()
            }
            other => other,
        }
    }

    /// A new regular file under the temporary name `name`, for its owner alone.
    ///
    /// # Errors
    /// Those of creating it.
    pub(super) fn new_file(&self, name: &Name) -> io::Result<File> {
        self.make(name, || sys::open_beneath(self.fd(), name.c(), sys::NEW)).map(File::from)
    }

    /// A new symbolic link under the temporary name `name`.
    ///
    /// # Errors
    /// Those of creating it.
    pub(super) fn new_symlink(&self, name: &Name, target: &[u8]) -> io::Result<OwnedFd> {
        let target = sys::c_string(target)?;
        self.make(name, || sys::make_symlink(self.fd(), name.c(), &target))?;
        self.just_made(name, libc::S_IFLNK)
    }

    /// A new device node, FIFO or socket under the temporary name `name`.
    ///
    /// # Errors
    /// Those of creating it; `EPERM` for devices unless the caller may make them.
    pub(super) fn new_node(&self, name: &Name, kind: u32, node: (u32, u32)) -> io::Result<OwnedFd> {
        self.make(name, || sys::make_node(self.fd(), name.c(), kind, node))?;
        self.just_made(name, kind)
    }

    /// The inode that was just made under `name`, if nobody has put another one there since: in a directory that
    /// others may write to, metadata must not end up on their files.
    fn just_made(&self, name: &Name, kind: u32) -> io::Result<OwnedFd> {
        let inode = sys::open_beneath(self.fd(), name.c(), sys::INODE)?;
        let stat = sys::stat_fd(inode.as_fd())?;
        if stat.kind() != kind || stat.links != 1 {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        Ok(inode)
    }

    /// The regular file `name`, to read; what it is, beside.
    ///
    /// # Errors
    /// Those of opening; `ESTALE` when it is no regular file.
    pub(super) fn open_file(&self, name: &Name) -> io::Result<(File, Stat)> {
        let quiet = sys::READ | libc::O_NOATIME;
        let fd = match sys::open_beneath(self.fd(), name.c(), quiet) {
            // Only the owner may leave the time of last access alone.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                sys::open_beneath(self.fd(), name.c(), sys::READ)?
            }
            other => other?,
        };
        let stat = sys::stat_fd(fd.as_fd())?;
        if stat.kind() != libc::S_IFREG {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        Ok((File::from(fd), stat))
    }

    /// The inode `name` of any kind, to set its metadata.
    ///
    /// # Errors
    /// Those of opening.
    pub(super) fn open_inode(&self, name: &Name) -> io::Result<OwnedFd> {
        sys::open_beneath(self.fd(), name.c(), sys::INODE)
    }

    /// Where the symbolic link `name` points.
    ///
    /// # Errors
    /// Those of `readlinkat`.
    pub(super) fn read_link(&self, name: &Name) -> io::Result<Vec<u8>> {
        sys::read_link(self.fd(), name.c())
    }

    /// Gives the inode `name` the further name `to` in `other`.
    ///
    /// # Errors
    /// Those of `linkat`; `EEXIST` when the name is taken.
    pub(super) fn link(&self, name: &Name, other: &Directory, to: &Name) -> io::Result<()> {
        sys::link(self.fd(), name.c(), other.fd(), to.c())
    }

    /// Renames within this directory, over what is there (never a directory).
    ///
    /// # Errors
    /// Those of `renameat`.
    pub(super) fn rename_over(&self, from: &Name, to: &Name) -> io::Result<()> {
        sys::rename_over(self.fd(), from.c(), to.c())
    }

    /// Renames within this directory; `EEXIST` when the name is taken.
    ///
    /// # Errors
    /// Those of `renameat2`.
    pub(super) fn rename_new(&self, from: &Name, to: &Name) -> io::Result<()> {
        sys::rename_new(self.fd(), from.c(), to.c())
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// Those of `unlinkat`.
    pub(super) fn unlink(&self, name: &Name) -> io::Result<()> {
        sys::unlink(self.fd(), name.c())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of `unlinkat`.
    pub(super) fn remove_dir(&self, name: &Name) -> io::Result<()> {
        sys::remove_dir(self.fd(), name.c())
    }

    /// All names in it.
    ///
    /// # Errors
    /// Those of reading it.
    pub(super) fn names(&self) -> io::Result<Vec<Name>> {
        let mut names = Vec::new();
        for item in std::fs::read_dir(sys::proc_path(self.fd()))? {
            names.extend(Name::new(&item?.file_name().into_vec()));
        }
        Ok(names)
    }

    /// Makes what was done to names in it durable.
    ///
    /// # Errors
    /// Those of `fsync`.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::from(self.fd.try_clone()?).sync_all()
    }
}
