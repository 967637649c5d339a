#![allow(unsafe_code)]
//! The few questions to the operating system that the standard library does not ask.

/// The effective user id of this process.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory of ours and cannot fail.
    unsafe { libc::geteuid() }
}

/// The effective group id of this process.
pub fn effective_gid() -> u32 {
    // SAFETY: getegid takes nothing, touches no memory of ours and cannot fail.
    unsafe { libc::getegid() }
}
