#![allow(unsafe_code)]
//! Signals, waiting and priorities: what the standard library does not offer for processes.

use std::io;

/// Sends `signal` to every process of a group.
///
/// # Errors
/// What kill(2) says; `ESRCH` when the group is empty.
pub(super) fn signal_group(group: u32, signal: i32) -> io::Result<()> {
    let group = pid(group)?;
    // SAFETY: kill takes two numbers and touches no memory. A group of 0 or 1 would mean others than ours: refused by `pid`.
    succeed(unsafe { libc::kill(-group, signal) })
}

/// Waits until a child has ended, and leaves it to be reaped, so that its number stays its own.
///
/// # Errors
/// What waitid(2) says; `ECHILD` when it is no child of ours.
pub(super) fn await_exit(child: u32) -> io::Result<()> {
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `info` is writable memory of the type that waitid fills; nothing is read from it.
        let answer = unsafe { libc::waitid(libc::P_PID, child, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) };
        match succeed(answer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Lowers the CPU priority of a process group and makes its reads and writes yield to others'
/// (best effort, lowest level: see ioprio_set(2)).
///
/// # Errors
/// What setpriority(2) or ioprio_set(2) says.
pub(super) fn lower_priority(group: u32, niceness: i32) -> io::Result<()> {
    const IOPRIO_WHO_PGRP: libc::c_int = 2;
    const BEST_EFFORT_LOWEST: libc::c_int = (2 << 13) | 7;
    let who = pid(group)?;
    // SAFETY: both calls take numbers only and touch no memory.
    succeed(unsafe { libc::setpriority(libc::PRIO_PGRP, group, niceness) })?;
    // SAFETY: as above.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PGRP, who, BEST_EFFORT_LOWEST) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn pid(number: u32) -> io::Result<libc::pid_t> {
    match libc::pid_t::try_from(number) {
        Ok(pid) if pid > 1 => Ok(pid),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn succeed(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_reaches_processes_that_are_not_meant() {
        for number in [0, 1, u32::MAX, 1 << 31] {
            assert_eq!(signal_group(number, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert_eq!(lower_priority(number, 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(await_exit(std::process::id()).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
}
