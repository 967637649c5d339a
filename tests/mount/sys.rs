#![allow(unsafe_code)]
//! Runs this test binary as a process of a toy mount, before the test harness gets to its arguments,
//! if the environment says so; and the few system calls that tests need.

use std::path::Path;

/// Called by the C library before `main`.
extern "C" fn before_main() {
    if std::env::var_os(crate::processes::AS_MOUNT).is_some() {
        // SAFETY: what Rust's own start does before `main`; no thread exists yet.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        std::process::exit(crate::processes::play());
    }
}

// SAFETY: the section holds pointers to functions of this type, which the C library calls in turn.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

pub(crate) fn is_root() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::geteuid() == 0 }
}

pub(crate) fn kill(pid: u32, signal: i32) {
    // SAFETY: no preconditions; the processes are ours.
    let result = unsafe { libc::kill(pid as libc::pid_t, signal) };
    assert_eq!(result, 0, "kill {pid}: {}", std::io::Error::last_os_error());
}

/// Ends a process that may have ended by itself since it was seen.
pub(crate) fn end(pid: u32) {
    // SAFETY: no preconditions; the process is ours, or was.
    let result = unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
    let error = std::io::Error::last_os_error();
    assert!(result == 0 || error.raw_os_error() == Some(libc::ESRCH), "kill {pid}: {error}");
}

pub(crate) fn unmount_lazily(path: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a string that ends in zero.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

/// Size or error number of getxattr(2) into a buffer of `room` bytes.
pub(crate) fn getxattr(path: &Path, name: &str, room: usize) -> Result<usize, i32> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    let mut buffer = vec![0u8; room];
    // SAFETY: strings that end in zero, a buffer as long as said.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), room) };
    usize::try_from(size).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap())
}

/// lseek(2).
pub(crate) fn seek(file: &std::fs::File, offset: i64, whence: i32) -> Result<i64, i32> {
    use std::os::fd::AsRawFd;
    // SAFETY: an open descriptor.
    let at = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    if at < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(at) }
}

/// Reads a directory, noting its position before each name; then seeks to each position, last first,
/// and reads one name there. Both lists in the order of the first reading.
pub(crate) fn names_by_position(path: &Path) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a string that ends in zero; the stream is used by this function alone and closed once; names are
    // copied before the next call.
    unsafe {
        let stream = libc::opendir(path.as_ptr());
        assert!(!stream.is_null());
        let next = || {
            let entry = libc::readdir(stream);
            (!entry.is_null()).then(|| std::ffi::CStr::from_ptr((*entry).d_name.as_ptr()).to_bytes().to_vec())
        };
        let (mut names, mut positions) = (Vec::new(), Vec::new());
        loop {
            let position = libc::telldir(stream);
            let Some(name) = next() else { break };
            names.push(name);
            positions.push(position);
        }
        let mut again = Vec::new();
        for position in positions.iter().rev() {
            libc::seekdir(stream, *position);
            again.push(next().expect("a name where there was one"));
        }
        again.reverse();
        libc::closedir(stream);
        (names, again)
    }
}

/// How many pages of `file`, which is not empty, are in the kernel's memory.
pub(crate) fn pages_in_memory(file: &std::fs::File) -> usize {
    use std::os::fd::AsRawFd;
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut pages = vec![0u8; length.div_ceil(4096)];
    // SAFETY: a new mapping at a place of the kernel's choice; of what it holds nothing is read. `pages` has a byte for each of its pages.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let result = libc::mincore(at, length, pages.as_mut_ptr());
        assert_eq!(result, 0, "mincore: {}", std::io::Error::last_os_error());
        libc::munmap(at, length);
    }
    pages.iter().filter(|page| **page & 1 == 1).count()
}
