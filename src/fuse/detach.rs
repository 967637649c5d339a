//! Takes mounts away: cleanly for a user who asks, at once for a mount whose server is gone.
//!
//! Invariant: only a mount of ours is ever touched, and the one on top only, because that is what
//! umount2(2) takes away. An ordinary user's mounts are taken away by fusermount3, as they were made.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::error::MountError;
use super::mountinfo::{self, DeviceId};
use super::place::resolve;
use super::sys;
use crate::base::foreign;

/// How long a server may take to end after its mount is gone.
const SERVER_END: Duration = Duration::from_secs(10);

/// The attribute of a mount's root that says which process serves it. It is in no list of attributes.
pub(crate) const SERVER_ATTRIBUTE: &str = "user.amberfs.server";

/// The helper that mounts and unmounts for ordinary users.
pub(crate) fn fusermount() -> Result<PathBuf, MountError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fixed = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(fixed)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("fusermount3"))
        .find(|program| program.is_file())
        .ok_or(MountError::NoHelper)
}

/// Unmounts `mountpoint` for a user, and waits until its server has ended.
///
/// # Errors
/// [`MountError::NotMounted`], [`MountError::Busy`] (not with `lazy`), or why it could not be done.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let place = resolve(mountpoint).map_err(|cause| MountError::Place { path: mountpoint.to_owned(), cause })?;
    let entry = mountinfo::topmost(&place).map_err(|cause| MountError::Unmount { path: place.clone(), cause })?;
    let Some(entry) = entry.filter(mountinfo::MountEntry::is_ours) else {
        return Err(MountError::NotMounted { path: place });
    };
    let server = server_of(&place);
    let dead = std::fs::metadata(&place).is_err_and(|error| super::place::is_dead(&error));
    if dead {
        return detach(&place, entry.device);
    }
    take_away(&place, lazy)?;
    match server {
        // With `lazy` the server stays for as long as somebody uses the mount.
        Some((pid, process)) if !lazy => match sys::await_end(std::os::fd::AsFd::as_fd(&process), SERVER_END) {
            Ok(true) | Err(_) => Ok(()),
            Ok(false) => Err(MountError::Lingers { path: place, pid }),
        },
        _ => Ok(()),
    }
}

/// Takes the mount with `device` away from `place` at once, used or not, if it is there and ours.
pub(crate) fn detach(place: &Path, device: DeviceId) -> Result<(), MountError> {
    let top = mountinfo::topmost(place).map_err(|cause| MountError::Unmount { path: place.to_owned(), cause })?;
    match top {
        Some(entry) if entry.is_ours() && entry.device == device => take_away(place, true),
        _ => Ok(()),
    }
}

/// Unmounts what is on top at `place`.
pub(crate) fn take_away(place: &Path, lazy: bool) -> Result<(), MountError> {
    let failed = |cause: io::Error| match cause.raw_os_error() {
        Some(libc::EBUSY) => MountError::Busy { path: place.to_owned() },
        _ => MountError::Unmount { path: place.to_owned(), cause },
    };
    if sys::is_root() {
        match sys::unmount(place, lazy) {
            // In a user namespace, a root that did not make the mount.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            outcome => return outcome.map_err(failed),
        }
    }
    let mut command = foreign::program(fusermount()?);
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(place)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| MountError::Process { doing: "run fusermount3", cause })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if message.contains("busy") {
        return Err(MountError::Busy { path: place.to_owned() });
    }
    Err(MountError::Helper { message })
}

/// The process that serves the mount at `place`, held so that its number cannot come to mean another.
fn server_of(place: &Path) -> Option<(u32, std::os::fd::OwnedFd)> {
    let pid = String::from_utf8(sys::short_xattr(place, SERVER_ATTRIBUTE).ok()?).ok()?.parse().ok()?;
    Some((pid, sys::process(pid).ok()?))
}
