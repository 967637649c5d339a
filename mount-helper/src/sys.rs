#![allow(unsafe_code)]
//! Who this process is, and becoming who called it.

use std::io;

/// Whether this process acts as root.
pub(crate) fn is_root() -> bool {
    // SAFETY: no preconditions, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Gives up what a setuid or setgid bit gave, for good; whether there was anything.
pub(crate) fn drop_borrowed_privileges() -> io::Result<bool> {
    // SAFETY: no preconditions, cannot fail.
    let (uid, gid, euid, egid, secure) =
        unsafe { (libc::getuid(), libc::getgid(), libc::geteuid(), libc::getegid(), libc::getauxval(libc::AT_SECURE)) };
    if secure == 0 && uid == euid && gid == egid {
        return Ok(false);
    }
    // SAFETY: no pointers. The group goes first: without the user's privileges it could not.
    let dropped = unsafe { libc::setresgid(gid, gid, gid) == 0 && libc::setresuid(uid, uid, uid) == 0 };
    if dropped { Ok(true) } else { Err(io::Error::last_os_error()) }
}
