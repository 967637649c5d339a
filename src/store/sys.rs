#![allow(unsafe_code)]
//! The few system calls of a local store that the standard library does not offer: everything
//! relative to a directory that is already open, and reads that do not wait for the disk.
//!
//! Every descriptor is opened with `O_CLOEXEC` and `O_NOFOLLOW`: captures run in child processes, and no
//! symbolic link in a repository is ever followed.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use libc::c_int;

/// What an open file or a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) links: u64,
    pub(super) bytes: u64,
    pub(super) kind: Kind,
    /// The user whose it is.
    pub(super) owner: u32,
    /// Who may do what: the twelve lowest bits.
    pub(super) mode: u32,
    /// Bytes on the disk.
    pub(super) allocated: u64,
    /// When it was changed last: seconds and nanoseconds since 1970.
    pub(super) modified: (i64, i64),
}

/// The kinds of file that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// Symbolic links, devices, FIFOs and sockets.
    Other,
}

/// Opens the directory `name` in `parent`.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    open(parent, name, libc::O_RDONLY | libc::O_DIRECTORY)
}

/// Opens the file `name` in `parent` for reading; never waits for the writer of a FIFO.
pub(super) fn open_file(parent: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    open(parent, name, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY)
}

/// Opens the file `name` in `parent` for reading and writing, and makes it for its owner alone if it is not there; never waits
/// for the reader of a FIFO.
pub(super) fn open_to_write(parent: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    open(parent, name, libc::O_RDWR | libc::O_CREAT | libc::O_NONBLOCK | libc::O_NOCTTY)
}

fn open(parent: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<OwnedFd> {
    let name = c_name(name)?;
    let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // Of what is made, if anything is.
    let mode: libc::c_uint = 0o600;
    loop {
        // SAFETY: `name` is a C string that lives through the call, `parent` is open.
        let fd = unsafe { libc::openat(parent.as_raw_fd(), name.as_ptr(), flags, mode) };
        match check(fd) {
            // SAFETY: the kernel just gave us this descriptor, and nobody else knows of it.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes the directory `name` in `parent` for its owner alone; `false` when the name is taken.
pub(super) fn make_directory(parent: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let name = c_name(name)?;
    // SAFETY: `name` is a C string that lives through the call, `parent` is open.
    match check(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o700) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes everything durable that is on the filesystem of `directory`.
pub(super) fn sync_filesystem(directory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `directory` is open; nothing of ours is handed over.
    check(unsafe { libc::syncfs(directory.as_raw_fd()) }).map(|_| ())
}

/// Removes the file `name` from `parent`.
pub(super) fn remove_file(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let name = c_name(name)?;
    // SAFETY: `name` is a C string that lives through the call, `parent` is open.
    check(unsafe { libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), 0) }).map(|_| ())
}

/// Removes the directory `name` from `parent`, if it is empty.
pub(super) fn remove_directory(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let name = c_name(name)?;
    // SAFETY: `name` is a C string that lives through the call, `parent` is open.
    check(unsafe { libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) }).map(|_| ())
}

/// What is open as `file`.
pub(super) fn status(file: BorrowedFd<'_>) -> io::Result<Status> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has room for what the kernel writes, `file` is open.
    check(unsafe { libc::fstat(file.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel has filled `stat`.
    Ok(Status::from(&unsafe { stat.assume_init() }))
}

/// The type of the filesystem that holds what is open as `file`: the magic number of statfs(2).
pub(super) fn filesystem(file: BorrowedFd<'_>) -> io::Result<i64> {
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `found` has room for what the kernel writes, `file` is open.
    check(unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel has filled `found`.
    Ok(unsafe { found.assume_init() }.f_type)
}

/// What `name` in `parent` is, a symbolic link being itself.
pub(super) fn status_of(parent: BorrowedFd<'_>, name: &str) -> io::Result<Status> {
    let name = c_name(name)?;
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `name` is a C string, `stat` has room for what the kernel writes, `parent` is open.
    check(unsafe { libc::fstatat(parent.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), flags) })?;
    // SAFETY: the call succeeded, so the kernel has filled `stat`.
    Ok(Status::from(&unsafe { stat.assume_init() }))
}

/// Appends up to `bytes` bytes of `file` from `offset` on to `buffer`; fewer at the file's end. With
/// `ready_only`, only what is in memory already: it ends early, with `WouldBlock` if nothing is, instead of
/// waiting.
pub(super) fn read_at(
    file: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    bytes: usize,
    offset: u64,
    ready_only: bool,
) -> io::Result<()> {
    buffer.reserve(bytes);
    let flags = if ready_only { libc::RWF_NOWAIT } else { 0 };
    let mut left = bytes;
    while left > 0 {
        let done = bytes - left;
        let at = i64::try_from(offset + done as u64).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let room = buffer.spare_capacity_mut();
        let slice = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: left.min(room.len()) };
        // SAFETY: `slice` names writable memory of `iov_len` bytes within the vector's capacity.
        let got = unsafe { libc::preadv2(file.as_raw_fd(), &raw const slice, 1, at, flags) };
        match usize::try_from(got) {
            Ok(0) => return Ok(()),
            Ok(got) => {
                // SAFETY: the kernel has written `got` bytes, at most `iov_len`, behind the vector's end.
                unsafe { buffer.set_len(buffer.len() + got) };
                left -= got;
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.kind() == io::ErrorKind::WouldBlock && left < bytes => return Ok(()),
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// Has the kernel read this part of `file` into memory, as far as it likes to; a hint, so that failing costs nothing.
pub(super) fn will_need(file: BorrowedFd<'_>, range: Range<u64>) {
    // Of a longer part, it would read what its own reading ahead is limited to, and leave out the rest.
    const PIECE: usize = 128 << 10;
    for start in range.clone().step_by(PIECE) {
        let length = (range.end - start).min(PIECE as u64);
        if let (Ok(offset), Ok(length)) = (i64::try_from(start), i64::try_from(length)) {
            // SAFETY: no memory is passed.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, length, libc::POSIX_FADV_WILLNEED) };
        }
    }
}

/// A name in a directory, with its kind where the directory itself tells it.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) kind: Option<Kind>,
}

/// All names in `directory` but `.`, `..` and what is not UTF-8, in no order.
pub(super) fn names(directory: OwnedFd) -> io::Result<Vec<Name>> {
    let raw = directory.into_raw_fd();
    // SAFETY: `raw` is an open directory that we own; on success the stream owns it.
    let stream = unsafe { libc::fdopendir(raw) };
    if stream.is_null() {
        let error = io::Error::last_os_error();
        // SAFETY: the stream was not made, so the descriptor is still ours.
        drop(unsafe { OwnedFd::from_raw_fd(raw) });
        return Err(error);
    }
    let stream = Stream(stream);
    let mut names = Vec::new();
    loop {
        // SAFETY: errno is this thread's own.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: the stream is open and used by this thread alone.
        let entry = unsafe { libc::readdir(stream.0) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(names) } else { Err(error) };
        }
        // SAFETY: the entry is valid until the next readdir; its name ends in a zero byte.
        let (name, kind) = unsafe { (CStr::from_ptr((*entry).d_name.as_ptr()), (*entry).d_type) };
        let Ok(text) = name.to_str() else { continue };
        if text != "." && text != ".." {
            let kind = match kind {
                libc::DT_UNKNOWN => None,
                libc::DT_REG => Some(Kind::File),
                libc::DT_DIR => Some(Kind::Directory),
                _ => Some(Kind::Other),
            };
            names.push(Name { text: text.to_owned(), kind });
        }
    }
}

struct Stream(*mut libc::DIR);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is open and nobody else has it.
        unsafe { libc::closedir(self.0) };
    }
}

impl From<&libc::stat> for Status {
    fn from(stat: &libc::stat) -> Status {
        Status {
            device: stat.st_dev,
            inode: stat.st_ino,
            links: stat.st_nlink,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            owner: stat.st_uid,
            mode: stat.st_mode & 0o7777,
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            kind: match stat.st_mode & libc::S_IFMT {
                libc::S_IFREG => Kind::File,
                libc::S_IFDIR => Kind::Directory,
                _ => Kind::Other,
            },
        }
    }
}

fn c_name(name: &str) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
