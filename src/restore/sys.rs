#![allow(unsafe_code)]
//! The system calls that `std` does not offer, as safe functions.
//!
//! Names are opened, made, moved and removed relative to an open directory, one component at a time;
//! metadata goes to an open inode. No call follows a symbolic link: with `openat2` the kernel is told
//! so for every component, without it `O_NOFOLLOW` says the same of the one component there is.
//! `/proc/self/fd` links are used where the kernel takes no `O_PATH` descriptor; they lead to the very
//! inode that is open, whatever its names have become.

use std::ffi::{CStr, CString, c_int, c_uint};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::base::{FileTime, limits};

/// A directory, to make names in.
pub(super) const DIRECTORY: c_int = libc::O_RDONLY | libc::O_DIRECTORY;
/// An inode of any kind, to set its metadata.
pub(super) const INODE: c_int = libc::O_PATH;
/// A new regular file; refused when the name is taken.
pub(super) const NEW: c_int = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
/// A regular file, to read. Never waits for the other end of a FIFO.
pub(super) const READ: c_int = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;

/// How often an open is tried again that the kernel gave up because names moved meanwhile.
const AGAIN_MAX: u32 = 16;

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn done(result: c_int) -> io::Result<()> {
    check(i64::from(result)).map(drop)
}

/// # Errors
/// `EINVAL` when `bytes` contain a zero byte.
pub(super) fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The path at which `/proc` shows an open descriptor.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn proc_link(fd: BorrowedFd<'_>) -> io::Result<CString> {
    c_string(proc_path(fd).as_bytes())
}

fn owned(result: i64) -> io::Result<OwnedFd> {
    let fd = c_int::try_from(check(result)?).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just given us this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens the single component `name` in `dir`; a file that is made gets mode 0600.
pub(super) fn open_beneath(dir: BorrowedFd<'_>, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    open_within(dir, name, flags, 0)
}

fn open_within(dir: BorrowedFd<'_>, name: &CStr, flags: c_int, more: u64) -> io::Result<OwnedFd> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    match open_resolving(dir, name, flags, resolve | more) {
        // An older kernel, or a sandbox that does not know the call.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            open_plainly(dir, name, flags)
        }
        other => other,
    }
}

/// As [`open_beneath`], but fails with `EXDEV` where something is mounted on the name, and asks nothing of that. An older
/// kernel does not notice.
pub(super) fn open_unmounted(dir: BorrowedFd<'_>, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    open_within(dir, name, flags, libc::RESOLVE_NO_XDEV)
}

/// The directory above `dir`, wherever that is.
pub(super) fn open_parent(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_plainly(dir, c"..", DIRECTORY)
}

fn open_resolving(dir: BorrowedFd<'_>, name: &CStr, flags: c_int, resolve: u64) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: a struct of integers, for which all zero is a value.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = u64::from(flags.cast_unsigned());
    how.mode = if flags & libc::O_CREAT == 0 { 0 } else { 0o600 };
    how.resolve = resolve;
    let mut again = 0;
    loop {
        // SAFETY: `name` is NUL-terminated, `how` is readable for the size given; both live through the call.
        let result = unsafe {
            libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), name.as_ptr(), &raw const how, size_of_val(&how))
        };
        match owned(result) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && again < AGAIN_MAX => again += 1,
            other => return other,
        }
    }
}

fn open_plainly(dir: BorrowedFd<'_>, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mode: c_uint = 0o600;
    loop {
        // SAFETY: `name` is NUL-terminated and lives through the call.
        let fd = unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, mode) };
        match owned(i64::from(fd)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What `stat` says of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Type and permissions.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Bytes.
    pub(super) size: u64,
    /// Names.
    pub(super) links: u64,
    /// Major and minor number of a device node.
    pub(super) node: (u32, u32),
    /// Filesystem and inode: which inode it is.
    pub(super) identity: (u64, u64),
    /// Last change of content.
    pub(super) mtime: FileTime,
    /// Last change of the inode.
    pub(super) ctime: FileTime,
}

impl Stat {
    /// Its type, such as `S_IFREG`.
    pub(super) fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }
}

/// Of `name` in `dir`, itself and not what it links to.
pub(super) fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `name` is NUL-terminated, `stat` is writable and of the size that the kernel fills.
    done(unsafe { libc::fstatat(dir.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), flags) })?;
    // SAFETY: zeroed and then filled; every bit pattern is a value of this struct of integers.
    let stat = unsafe { stat.assume_init() };
    let time = |seconds, nanos| FileTime { seconds, nanos: u32::try_from(nanos).unwrap_or(0) };
    Ok(Stat {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        #[allow(clippy::useless_conversion)] // 32 bits on some machines
        links: u64::from(stat.st_nlink),
        node: (libc::major(stat.st_rdev), libc::minor(stat.st_rdev)),
        identity: (stat.st_dev, stat.st_ino),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
    })
}

/// Of an open inode.
pub(super) fn stat_fd(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    stat_at(fd, c"")
}

/// Makes a directory that only its owner may enter.
pub(super) fn make_dir(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is NUL-terminated and lives through the call.
    done(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), 0o700) })
}

/// Makes a symbolic link.
pub(super) fn make_symlink(dir: BorrowedFd<'_>, name: &CStr, target: &CStr) -> io::Result<()> {
    // SAFETY: both strings are NUL-terminated and live through the call.
    done(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) })
}

/// Makes a device node, FIFO or socket that only its owner may use.
pub(super) fn make_node(dir: BorrowedFd<'_>, name: &CStr, kind: u32, (major, minor): (u32, u32)) -> io::Result<()> {
    let device = libc::makedev(major, minor);
    // SAFETY: `name` is NUL-terminated and lives through the call.
    done(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), kind | 0o600, device) })
}

/// Gives the inode `from` in `from_dir` another name.
pub(super) fn link(from_dir: BorrowedFd<'_>, from: &CStr, to_dir: BorrowedFd<'_>, to: &CStr) -> io::Result<()> {
    // SAFETY: both strings are NUL-terminated and live through the call. Without flags nothing is followed.
    done(unsafe { libc::linkat(from_dir.as_raw_fd(), from.as_ptr(), to_dir.as_raw_fd(), to.as_ptr(), 0) })
}

/// Renames within `dir`, over whatever is there; never over a directory.
pub(super) fn rename_over(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
    // SAFETY: both strings are NUL-terminated and live through the call.
    done(unsafe { libc::renameat(dir.as_raw_fd(), from.as_ptr(), dir.as_raw_fd(), to.as_ptr()) })
}

/// Renames within `dir`, and fails with `EEXIST` when the new name is taken.
pub(super) fn rename_new(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
    let fd = dir.as_raw_fd();
    // SAFETY: both strings are NUL-terminated and live through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_renameat2, fd, from.as_ptr(), fd, to.as_ptr(), libc::RENAME_NOREPLACE) };
    match check(result) {
        // A filesystem without that flag: a second name can be given without replacing, too.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            link(dir, from, dir, to)?;
            unlink(dir, from)
        }
        other => other.map(drop),
    }
}

/// Removes a name that is no directory.
pub(super) fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is NUL-terminated and lives through the call.
    done(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) })
}

/// Removes an empty directory.
pub(super) fn remove_dir(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is NUL-terminated and lives through the call.
    done(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) })
}

/// Where the symbolic link `name` points; cut off behind what a link can hold.
pub(super) fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let mut target = vec![0u8; limits::SYMLINK_BYTES_MAX];
    // SAFETY: `name` is NUL-terminated, the buffer is writable for the length given.
    let length = check(unsafe {
        libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len()) as i64
    })?;
    target.truncate(usize::try_from(length).unwrap_or(0));
    Ok(target)
}

/// An open inode, by the way in which its metadata is reached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handle<'a> {
    /// A regular file or a directory, opened for use.
    Open(BorrowedFd<'a>),
    /// Anything, opened with [`INODE`].
    Path(BorrowedFd<'a>),
}

impl<'a> Handle<'a> {
    /// The descriptor.
    pub(super) fn fd(self) -> BorrowedFd<'a> {
        match self {
            Handle::Open(fd) | Handle::Path(fd) => fd,
        }
    }
}

/// Sets owner and group.
pub(super) fn chown(of: Handle<'_>, uid: u32, gid: u32) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the empty name is NUL-terminated.
    done(unsafe { libc::fchownat(of.fd().as_raw_fd(), c"".as_ptr(), uid, gid, flags) })
}

/// Sets the permissions; never of a symbolic link, which has none.
pub(super) fn chmod(of: Handle<'_>, permissions: u32) -> io::Result<()> {
    match of {
        // SAFETY: no memory is passed.
        Handle::Open(fd) => done(unsafe { libc::fchmod(fd.as_raw_fd(), permissions) }),
        Handle::Path(fd) => {
            let link = proc_link(fd)?;
            // SAFETY: `link` is NUL-terminated and lives through the call.
            done(unsafe { libc::chmod(link.as_ptr(), permissions) })
        }
    }
}

/// Sets last access and last change of content.
pub(super) fn set_times(of: Handle<'_>, atime: FileTime, mtime: FileTime) -> io::Result<()> {
    let time = |time: FileTime| {
        // SAFETY: a struct of integers, for which all zero is a value.
        let mut spec: libc::timespec = unsafe { MaybeUninit::zeroed().assume_init() };
        spec.tv_sec = time.seconds;
        spec.tv_nsec = i64::from(time.nanos);
        spec
    };
    let times = [time(atime), time(mtime)];
    match of {
        // SAFETY: two readable times are passed.
        Handle::Open(fd) => done(unsafe { libc::futimens(fd.as_raw_fd(), times.as_ptr()) }),
        Handle::Path(fd) => {
            let link = proc_link(fd)?;
            // SAFETY: `link` is NUL-terminated, two readable times are passed. The link in /proc is
            // followed to the inode that is open, and no further.
            done(unsafe { libc::utimensat(libc::AT_FDCWD, link.as_ptr(), times.as_ptr(), 0) })
        }
    }
}

/// The names of the extended attributes, each closed by a zero byte.
pub(super) fn list_attributes(of: Handle<'_>) -> io::Result<Vec<u8>> {
    let link = proc_link(of.fd())?;
    grown(limits::XATTR_LIST_BYTES_MAX, |buffer| {
        let (at, size) = (buffer.as_mut_ptr().cast(), buffer.len());
        check(match of {
            // SAFETY: the buffer is writable for the length given.
            Handle::Open(fd) => unsafe { libc::flistxattr(fd.as_raw_fd(), at, size) },
            // SAFETY: `link` is NUL-terminated, the buffer is writable for the length given.
            Handle::Path(_) => unsafe { libc::listxattr(link.as_ptr(), at, size) },
        } as i64)
    })
}

/// The value of an extended attribute.
pub(super) fn attribute(of: Handle<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let link = proc_link(of.fd())?;
    grown(limits::XATTR_VALUE_BYTES_MAX, |buffer| {
        let (at, size) = (buffer.as_mut_ptr().cast(), buffer.len());
        check(match of {
            // SAFETY: `name` is NUL-terminated, the buffer is writable for the length given.
            Handle::Open(fd) => unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), at, size) },
            // SAFETY: both strings are NUL-terminated, the buffer is writable for the length given.
            Handle::Path(_) => unsafe { libc::getxattr(link.as_ptr(), name.as_ptr(), at, size) },
        } as i64)
    })
}

/// Calls `fill` with a buffer that holds nearly everything, and with the largest that Linux can need if it does not.
fn grown(most: usize, fill: impl Fn(&mut [u8]) -> io::Result<i64>) -> io::Result<Vec<u8>> {
    let mut small = [0u8; 256];
    match fill(&mut small) {
        Ok(length) => Ok(small.iter().take(usize::try_from(length).unwrap_or(0)).copied().collect()),
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {
            let mut large = vec![0u8; most];
            let length = fill(&mut large)?;
            large.truncate(usize::try_from(length).unwrap_or(0));
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

/// Sets an extended attribute, whether or not it is there.
pub(super) fn set_attribute(of: Handle<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (at, size) = (value.as_ptr().cast(), value.len());
    match of {
        // SAFETY: `name` is NUL-terminated, the value is readable for the length given.
        Handle::Open(fd) => done(unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), at, size, 0) }),
        Handle::Path(fd) => {
            let link = proc_link(fd)?;
            // SAFETY: both strings are NUL-terminated, the value is readable for the length given.
            done(unsafe { libc::setxattr(link.as_ptr(), name.as_ptr(), at, size, 0) })
        }
    }
}

/// Removes an extended attribute.
pub(super) fn remove_attribute(of: Handle<'_>, name: &CStr) -> io::Result<()> {
    match of {
        // SAFETY: `name` is NUL-terminated and lives through the call.
        Handle::Open(fd) => done(unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) }),
        Handle::Path(fd) => {
            let link = proc_link(fd)?;
            // SAFETY: both strings are NUL-terminated and live through the call.
            done(unsafe { libc::removexattr(link.as_ptr(), name.as_ptr()) })
        }
    }
}

/// Writes everything that the filesystem of `fd` holds in memory to its disk.
pub(super) fn sync_filesystem(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no memory is passed.
    done(unsafe { libc::syncfs(fd.as_raw_fd()) })
}

/// The first byte at or behind `offset` that is data; none when only a hole is left.
pub(super) fn seek_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: no memory is passed. The file's position, which this moves, is used by nobody: all reads say where.
    match check(unsafe { libc::lseek(file.as_raw_fd(), offset, libc::SEEK_DATA) }) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes `range` of a file a hole, or of a device zeros without writing them; whether the filesystem or device can.
pub(super) fn punch(file: &File, range: std::ops::Range<u64>) -> io::Result<bool> {
    let offset = |at: u64| libc::off_t::try_from(at).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW));
    let (start, length) = (offset(range.start)?, offset(range.end - range.start)?);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no memory is passed.
    match done(unsafe { libc::fallocate(file.as_raw_fd(), mode, start, length) }) {
        Ok(()) => Ok(true),
        // A device takes whole sectors only.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a file another name, and fails with `EEXIST` when that is taken.
pub(super) fn rename_file_new(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_string(from.as_os_str().as_bytes())?, c_string(to.as_os_str().as_bytes())?);
    // SAFETY: the descriptor stands for the working directory and is never closed.
    let here = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };
    rename_new(here, &from, &to)
}

/// Lets the kernel forget what it holds of a file's content, so that the next read is from the disk.
/// A hint: failure means nothing.
pub(super) fn forget_content(fd: BorrowedFd<'_>) {
    // SAFETY: no memory is passed.
    unsafe { libc::posix_fadvise(fd.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Raises the number of descriptors that this process may have towards `wanted`; the number that it may have then.
pub(super) fn allow_descriptors(wanted: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and of the type that is filled.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 || limit.rlim_cur >= wanted {
        return limit.rlim_cur;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = wanted.min(limit.rlim_max);
    // SAFETY: `limit` is a valid value that the kernel only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 { limit.rlim_cur } else { before }
}

/// Locks all of `file` against whoever uses such locks, as QEMU does with its images; whether nobody else has a lock on any
/// part of it: another process, or another opening of it in this one.
pub(super) fn lock_whole(file: &File) -> io::Result<bool> {
    match ask_lock(file, libc::F_WRLCK) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        // A filesystem without locks has none of them taken.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Takes back [`lock_whole`], even if a child that is just being started has a copy of the descriptor.
pub(super) fn unlock_whole(file: &File) {
    // Closing it comes next, so failure means nothing.
    drop(ask_lock(file, libc::F_UNLCK));
}

fn ask_lock(file: &File, kind: c_int) -> io::Result<()> {
    // SAFETY: a struct of integers, for which all zero is a value: the whole file.
    let mut lock: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    lock.l_type = kind as libc::c_short;
    // SAFETY: `lock` is a valid request that the kernel only reads.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) })
}

/// Kills the processes of a group that was started as one; that it is gone already is no failure.
pub(super) fn kill_group(leader: u32) {
    if let Ok(leader) = libc::pid_t::try_from(leader) {
        // SAFETY: no memory is passed. The leader has not been waited for, so its number is still its own.
        unsafe { libc::kill(-leader, libc::SIGKILL) };
    }
}
