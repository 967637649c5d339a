#![allow(unsafe_code)]
//! Signals as questions: has somebody asked to stop, or to see how far the work is?
//!
//! The signals are blocked, in all threads because in the first one, and fetched when somebody asks. So
//! whoever asks knows of every signal sent before: a stream whose end was caused by the signal that was sent
//! to its writer and to us is never taken for a whole one. Handlers could not promise that, because the
//! kernel runs them in any thread, any time later.
//!
//! The second request to stop ends the process at once; that loses nothing that was acknowledged. Programs
//! that are started get an empty mask from the standard library.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use parking_lot::Mutex;

static STOP: AtomicI32 = AtomicI32::new(0);
static SHOW: AtomicBool = AtomicBool::new(false);
/// Held while signals are fetched, so that one that is fetched is also noted before the next asks.
static FETCH: Mutex<()> = Mutex::new(());

const STOPPING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
const SHOWING: libc::c_int = libc::SIGUSR1;

/// From now on SIGINT, SIGTERM, SIGHUP and SIGUSR1 wait to be asked for. To be called before there is a
/// second thread: a thread that exists already would be ended by them, and with it the process.
///
/// # Errors
/// When the system refuses, which it does for no signal of these.
pub fn hold_signals() -> io::Result<()> {
    let set = signals();
    // SAFETY: reads the set, which is initialised, and changes this thread's mask only.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The signal that asked to stop, if one has been sent by now.
pub fn asked_to_stop() -> Option<i32> {
    fetch();
    match STOP.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(signal),
    }
}

/// Whether somebody has asked for the progress since the last call.
pub fn asked_to_show() -> bool {
    fetch();
    SHOW.swap(false, Ordering::SeqCst)
}

/// Notes all signals that wait. Those that are not held never wait.
fn fetch() {
    let _one_at_a_time = FETCH.lock();
    let set = signals();
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: both structures are initialised and only read; no information is asked for.
        let signal = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const at_once) };
        match signal {
            SHOWING => SHOW.store(true, Ordering::SeqCst),
            signal if signal > 0 => {
                if STOP.swap(signal, Ordering::SeqCst) != 0 {
                    std::process::exit(super::exit::Exit::Cancelled as i32);
                }
            }
            _ => return,
        }
    }
}

fn signals() -> libc::sigset_t {
    // SAFETY: the set is plain data that sigemptyset initialises; the numbers are those of signals.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in STOPPING.into_iter().chain([SHOWING]) {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}
