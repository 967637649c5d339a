//! The system calls that `std` does not offer, as safe functions.
//!
//! Everything here works relative to an open directory or on an open file, on one name at a time, and
//! never follows a symbolic link. A single name holds no `/` and is never `..` except where
//! [`PARENT`] is meant, so nothing here can leave the directory that it is given.
//!
//! Nothing here retries, judges or remembers: that is `directory.rs` and `content.rs`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::base::limits;

/// The directory that holds another.
pub(super) const PARENT: &CStr = c"..";

/// What every open of this module adds.
const ALWAYS: c_int = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
/// A directory, to list and to open names in.
pub(super) const DIRECTORY: c_int = libc::O_RDONLY | libc::O_DIRECTORY;
/// A regular file, to read. `O_NONBLOCK` (always set) keeps a FIFO that was swapped in from blocking.
pub(super) const READ: c_int = libc::O_RDONLY;
/// An inode of any kind, to ask about and not to read.
pub(super) const PATH: c_int = libc::O_PATH;

/// `name` as the kernel takes it.
///
/// # Errors
/// `EINVAL` when it contains a zero byte; no directory yields such a name.
pub(super) fn c_name(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// A result that is negative on failure.
fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Opens `name` in `dir`, without marking it as accessed where we may.
pub(super) fn open_at(dir: BorrowedFd<'_>, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    // O_NOATIME is refused with EPERM to all but the owner, and is not for O_PATH.
    let quiet = if flags & libc::O_PATH == 0 { libc::O_NOATIME } else { 0 };
    match open_once(dir, name, flags | quiet) {
        Err(error) if quiet != 0 && error.raw_os_error() == Some(libc::EPERM) => open_once(dir, name, flags),
        other => other,
    }
}

fn open_once(dir: BorrowedFd<'_>, name: &CStr, flags: c_int) -> io::Result<OwnedFd> {
    loop {
        // SAFETY: `name` is NUL-terminated and lives through the call; `dir` is open for as long as it is borrowed.
        let fd = unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags | ALWAYS) };
        match check(i64::from(fd)) {
            // SAFETY: the kernel has just given us this descriptor and nobody else owns it.
            Ok(_) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The regular file behind `path` (opened with [`PATH`]), to read, waiting for a lease on it to be given up.
pub(super) fn reopen(path: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let link = proc_link(path)?;
    // SAFETY: `link` is NUL-terminated and lives through the call. It names an open descriptor of
    // ours, so the kernel resolves nothing that anybody else can move.
    let fd = unsafe { libc::open(link.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    check(i64::from(fd))?;
    // SAFETY: the kernel has just given us this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The name under which `/proc` shows an open descriptor: the way to attributes of what cannot be opened to read.
fn proc_link(fd: BorrowedFd<'_>) -> io::Result<CString> {
    c_name(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_bytes())
}

/// How far a question about an inode may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// To its filesystem.
    Filesystem,
    /// No further than the kernel's memory: a dead network or FUSE server cannot make this wait.
    Kernel,
}

/// What `statx` says of `name` in `dir`, itself, not what it links to. An empty name means `dir` itself.
pub(super) fn stat_at(dir: BorrowedFd<'_>, name: &CStr, ask: Ask) -> io::Result<libc::statx> {
    let sync = match ask {
        Ask::Filesystem => libc::AT_STATX_SYNC_AS_STAT,
        Ask::Kernel => libc::AT_STATX_DONT_SYNC,
    };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH | sync;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` is NUL-terminated, `stat` is writable and of the size that the kernel fills.
    let result = unsafe { libc::statx(dir.as_raw_fd(), name.as_ptr(), flags, mask, stat.as_mut_ptr()) };
    check(i64::from(result))?;
    // SAFETY: zeroed and then filled; every bit pattern is a value of this struct of integers.
    Ok(unsafe { stat.assume_init() })
}

/// What `statx` says of an open file.
pub(super) fn stat_fd(fd: BorrowedFd<'_>) -> io::Result<libc::statx> {
    stat_at(fd, c"", Ask::Filesystem)
}

/// The fixed part of a record that `getdents64` yields; the name follows.
#[repr(C)]
struct RecordHead {
    inode: u64,
    offset: i64,
    length: u16,
    kind: u8,
}

/// Where the name begins in such a record: behind the kind, without the padding of the struct.
const RECORD_NAME: usize = std::mem::offset_of!(RecordHead, kind) + 1;

/// Reads on in a directory and gives each name, with its `d_type`, to `each`; whether there was any.
/// `.` and `..` are passed on like all others.
///
/// # Errors
/// Those of `getdents64`; `EIO` when the kernel's records do not add up.
pub(super) fn read_names(dir: BorrowedFd<'_>, buffer: &mut [u8], mut each: impl FnMut(&[u8], u8)) -> io::Result<bool> {
    // SAFETY: the buffer is writable for the length given.
    let filled =
        check(unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })?;
    let bad = || io::Error::from_raw_os_error(libc::EIO);
    let mut rest = buffer.get(..usize::try_from(filled).map_err(|_| bad())?).ok_or_else(bad)?;
    let any = !rest.is_empty();
    while !rest.is_empty() {
        if rest.len() < size_of::<RecordHead>() {
            return Err(bad());
        }
        // SAFETY: the bytes are there, need no alignment for this read, and any pattern is a value.
        let head = unsafe { rest.as_ptr().cast::<RecordHead>().read_unaligned() };
        let record = rest.get(..usize::from(head.length)).ok_or_else(bad)?;
        let name = record.get(RECORD_NAME..).ok_or_else(bad)?;
        let name = CStr::from_bytes_until_nul(name).map_err(|_| bad())?;
        each(name.to_bytes(), head.kind);
        rest = rest.get(usize::from(head.length)..).ok_or_else(bad)?;
    }
    Ok(any)
}

/// Where the symbolic link `link` (opened with [`PATH`]) points.
///
/// # Errors
/// Those of `readlinkat`; `ENAMETOOLONG` beyond [`limits::SYMLINK_BYTES_MAX`].
pub(super) fn read_link(link: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut target = vec![0u8; limits::SYMLINK_BYTES_MAX + 1];
    // SAFETY: the empty name is NUL-terminated, the buffer is writable for the length given.
    let length = check(unsafe {
        libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), target.as_mut_ptr().cast(), target.len()) as i64
    })?;
    let length = usize::try_from(length).unwrap_or(0);
    if length > limits::SYMLINK_BYTES_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    target.truncate(length);
    Ok(target)
}

/// Through what an inode's attributes are reached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attributes<'a> {
    /// A file or directory that is open to read.
    Open(BorrowedFd<'a>),
    /// Anything, opened with [`PATH`]: asked for through `/proc`, because the kernel takes no such
    /// descriptor here. The link there leads to the very inode and is not followed further.
    Path(BorrowedFd<'a>),
}

/// The names of an inode's extended attributes, each closed by a zero byte.
pub(super) fn list_attributes(of: Attributes<'_>) -> io::Result<Vec<u8>> {
    grown(|buffer| {
        let (at, size) = (buffer.as_mut_ptr().cast(), buffer.len());
        match of {
            // SAFETY: the buffer is writable for the length given.
            Attributes::Open(fd) => check(unsafe { libc::flistxattr(fd.as_raw_fd(), at, size) } as i64),
            Attributes::Path(fd) => {
                let link = proc_link(fd)?;
                // SAFETY: `link` is NUL-terminated, the buffer is writable for the length given.
                check(unsafe { libc::listxattr(link.as_ptr(), at, size) } as i64)
            }
        }
    })
}

/// The value of one extended attribute.
pub(super) fn attribute(of: Attributes<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    grown(|buffer| {
        let (at, size) = (buffer.as_mut_ptr().cast(), buffer.len());
        match of {
            // SAFETY: `name` is NUL-terminated, the buffer is writable for the length given.
            Attributes::Open(fd) => check(unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), at, size) } as i64),
            Attributes::Path(fd) => {
                let link = proc_link(fd)?;
                // SAFETY: `link` and `name` are NUL-terminated, the buffer is writable for the length given.
                check(unsafe { libc::getxattr(link.as_ptr(), name.as_ptr(), at, size) } as i64)
            }
        }
    })
}

/// Calls `fill` with a buffer that holds nearly everything, and with the largest that Linux can need if it does not.
fn grown(fill: impl Fn(&mut [u8]) -> io::Result<i64>) -> io::Result<Vec<u8>> {
    let mut small = [0u8; 512];
    match fill(&mut small) {
        Ok(length) => Ok(small.iter().take(usize::try_from(length).unwrap_or(0)).copied().collect()),
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {
            let mut large = vec![0u8; limits::XATTR_VALUE_BYTES_MAX.max(limits::XATTR_LIST_BYTES_MAX)];
            let length = fill(&mut large)?;
            large.truncate(usize::try_from(length).unwrap_or(0));
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

/// The first byte at or behind `offset` that is data; none when only a hole is left.
pub(super) fn seek_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, offset, libc::SEEK_DATA)
}

/// The first byte at or behind `offset` that is in a hole; the end of the file counts as one.
pub(super) fn seek_hole(file: &File, offset: u64) -> io::Result<Option<u64>> {
    seek(file, offset, libc::SEEK_HOLE)
}

fn seek(file: &File, offset: u64, whence: c_int) -> io::Result<Option<u64>> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: no memory is passed. The file's position, which this moves, is used by nobody: all reads say where.
    match check(unsafe { libc::lseek(file.as_raw_fd(), offset, whence) }) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Brings all that is in memory of the filesystem of `file` to its disk.
pub(super) fn sync_filesystem(file: &File) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(i64::from(unsafe { libc::syncfs(file.as_raw_fd()) })).map(drop)
}

/// Tells the kernel that `file` will be read from start to end. A hint: failure means nothing.
pub(super) fn will_read_on(file: &File) {
    // SAFETY: no memory is passed.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL) };
}

/// Asks the kernel to read the bytes `part` of `file`, and does not wait for them. A hint: failure means nothing.
pub(super) fn will_read(file: &File, part: Range<u64>) {
    let (Ok(start), Ok(length)) = (i64::try_from(part.start), i64::try_from(part.end.saturating_sub(part.start)))
    else {
        return;
    };
    if length > 0 {
        // SAFETY: no memory is passed.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), start, length, libc::POSIX_FADV_WILLNEED) };
    }
}

/// Raises the number of descriptors that this process may have open to `wanted`, as far as it may. Where
/// that is not enough, opening fails later and says so.
pub(super) fn allow_descriptors(wanted: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable and of the type that is filled.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 || limit.rlim_cur >= wanted {
        return;
    }
    limit.rlim_cur = wanted.min(limit.rlim_max);
    // SAFETY: `limit` is a valid value that the kernel only reads.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// What only tests need to ask of the kernel.
#[cfg(test)]
pub(super) mod tests_only {
    use super::{CStr, c_name, check, io};

    /// `mount(2)`.
    pub(in crate::capture) fn mount(source: &CStr, target: &CStr, kind: &CStr, options: &str) -> io::Result<()> {
        let options = c_name(options.as_bytes())?;
        // SAFETY: all five are NUL-terminated or numbers, and live through the call.
        let result = unsafe {
            libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), libc::MS_NODEV, options.as_ptr().cast())
        };
        check(i64::from(result)).map(drop)
    }

    /// Makes the calling thread another user, for good; those that it starts follow it. The C library's
    /// function would change all threads of the process.
    pub(in crate::capture) fn become_user(user: u32) -> io::Result<()> {
        for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
            // SAFETY: only numbers are passed; the kernel changes this thread alone.
            check(unsafe { libc::syscall(call, user, user, user) })?;
        }
        Ok(())
    }
}
