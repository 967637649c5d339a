//! What the kernel says of an inode, in the format's words.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use super::sys::{self, Ask};
use crate::base::FileTime;
use crate::format::entry::Meta;

/// The kinds of inode that a tree can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A device and an inode number: what tells two files of one machine apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity {
    /// The filesystem's device, as the kernel numbers it.
    pub device: (u32, u32),
    /// The inode.
    pub inode: u64,
}

/// An inode as it was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its kind.
    pub kind: Kind,
    /// Which inode it is.
    pub identity: Identity,
    /// Of a device node: the device that it stands for.
    pub node: (u32, u32),
    /// What is kept of it.
    pub meta: Meta,
}

impl Stat {
    /// Of `name` in `dir`, itself and not what it links to.
    ///
    /// # Errors
    /// Those of `statx`; `EOPNOTSUPP` for a kind that Linux does not document.
    pub(super) fn at(dir: BorrowedFd<'_>, name: &CStr, ask: Ask) -> io::Result<Stat> {
        Stat::from_kernel(&sys::stat_at(dir, name, ask)?)
    }

    /// Of an open file.
    ///
    /// # Errors
    /// As [`Stat::at`].
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Stat> {
        Stat::from_kernel(&sys::stat_fd(fd)?)
    }

    fn from_kernel(stat: &libc::statx) -> io::Result<Stat> {
        let mode = u32::from(stat.stx_mode);
        let kind = match mode & libc::S_IFMT {
            libc::S_IFDIR => Kind::Directory,
            libc::S_IFREG => Kind::File,
            libc::S_IFLNK => Kind::Symlink,
            libc::S_IFBLK => Kind::BlockDevice,
            libc::S_IFCHR => Kind::CharDevice,
            libc::S_IFIFO => Kind::Fifo,
            libc::S_IFSOCK => Kind::Socket,
            _ => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        };
        // Some filesystems say what no inode can have. The nearest that it can have is kept.
        let time = |t: &libc::statx_timestamp| FileTime { seconds: t.tv_sec, nanos: t.tv_nsec.min(999_999_999) };
        let meta = Meta {
            permissions: stat.stx_mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size.min(i64::MAX.cast_unsigned()),
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
            atime: time(&stat.stx_atime),
            btime: (stat.stx_mask & libc::STATX_BTIME != 0).then(|| time(&stat.stx_btime)),
            links: stat.stx_nlink,
            inode: stat.stx_ino,
        };
        Ok(Stat {
            kind,
            identity: Identity { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino },
            node: (stat.stx_rdev_major, stat.stx_rdev_minor),
            meta,
        })
    }

    /// Whether `later`, asked of the same inode, shows no sign that its content changed in between.
    pub(super) fn same_content(&self, later: &Stat) -> bool {
        self.kind == later.kind
            && self.identity == later.identity
            && self.meta.size == later.meta.size
            && self.meta.mtime == later.meta.mtime
            && self.meta.ctime == later.meta.ctime
    }

    /// Whether several names may lead to this inode. A directory's link count says something else.
    pub(super) fn has_links(&self) -> bool {
        self.kind != Kind::Directory && self.meta.links > 1
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_no_inode_can_have_is_brought_into_bounds() {
        let file = tempfile::tempfile().unwrap();
        let mut stat = sys::stat_fd(file.as_fd()).unwrap();
        stat.stx_mtime.tv_nsec = u32::MAX;
        stat.stx_size = u64::MAX;
        let meta = Stat::from_kernel(&stat).unwrap().meta;
        assert_eq!((meta.mtime.nanos, meta.size), (999_999_999, i64::MAX.cast_unsigned()));
    }
}
