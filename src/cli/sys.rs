#![allow(unsafe_code)]
//! Signals as flags: a request to stop, and a request to say how far the work is.
//!
//! The handlers touch atomics only, which is all that signal-safety(7) leaves them. The first request
//! to stop lets the work end cleanly; a second one ends the process at once, which loses nothing that
//! was acknowledged.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

static STOP: AtomicI32 = AtomicI32::new(0);
static SHOW: AtomicBool = AtomicBool::new(false);

extern "C" fn on_stop(signal: libc::c_int) {
    if STOP.swap(signal, Ordering::SeqCst) != 0 {
        // SAFETY: _exit takes a number, is async-signal-safe and does not return.
        unsafe { libc::_exit(128 + signal) }
    }
}

extern "C" fn on_show(_: libc::c_int) {
    SHOW.store(true, Ordering::SeqCst);
}

/// Turns SIGINT, SIGTERM and SIGHUP into requests to stop, SIGUSR1 into one to show progress.
///
/// # Errors
/// When the system refuses, which it does for no signal of these.
pub fn catch_signals() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        handle(signal, on_stop)?;
    }
    handle(libc::SIGUSR1, on_show)
}

/// The signal that asked to stop, if one has.
pub fn asked_to_stop() -> Option<i32> {
    match STOP.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(signal),
    }
}

/// Whether somebody has asked for the progress since the last call.
pub fn asked_to_show() -> bool {
    SHOW.swap(false, Ordering::SeqCst)
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    // SAFETY: both structures are plain data, for which all zero is a value; the calls read and write
    // only them, and the handler is async-signal-safe.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        // What nohup or a shell has made us ignore stays ignored.
        if before.sa_sigaction == libc::SIG_IGN {
            return Ok(());
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        match libc::sigaction(signal, &raw const action, std::ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
