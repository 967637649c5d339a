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

pub(crate) fn unmount_lazily(path: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a string that ends in zero.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}
