//! Makes a mount in the kernel and returns the channel to serve it by: by mount(2) as root, otherwise by
//! fusermount3, which may do it for us.
//!
//! We do this ourselves rather than by the FUSE library for two reasons. As root the library's mounts
//! have the bare type `fuse`, and ours must be recognisable in the table of mounts, or a dead one could
//! not be told from another program's. And it unmounts by path when it is dropped, which can hit a later
//! mount at the same place.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use super::detach::fusermount;
use super::error::MountError;
use super::mountinfo::FILESYSTEM;
use super::options::MountOptions;
use super::sys;
use crate::base::foreign;

/// Mounts at `place`, which must be canonical.
pub(crate) fn attach(place: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if sys::is_root() {
        match attach_directly(place, options) {
            // Root in a container may not mount, but may have the helper.
            Err(MountError::Kernel { cause, .. }) if cause.raw_os_error() == Some(libc::EPERM) => {}
            outcome => return outcome,
        }
    }
    attach_by_helper(place, options)
}

/// Opens the device that a channel begins with.
pub(crate) fn open_device() -> Result<File, MountError> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|cause| MountError::NoDevice { cause })
}

fn attach_directly(place: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = open_device()?;
    let (uid, gid) = sys::real_ids();
    let mut data = format!("fd={},rootmode={:o},user_id={uid},group_id={gid}", device.as_raw_fd(), libc::S_IFDIR);
    if options.allow_other {
        data.push_str(",default_permissions,allow_other");
    }
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
    if options.read_only {
        flags |= libc::MS_RDONLY;
    }
    if options.no_exec {
        flags |= libc::MS_NOEXEC;
    }
    sys::mount(OsStr::new(&options.source), place, FILESYSTEM, flags, &data)
        .map_err(|cause| MountError::Kernel { path: place.to_owned(), cause })?;
    Ok(device.into())
}

fn attach_by_helper(place: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let failed = |doing| move |cause| MountError::Process { doing, cause };
    // Commas and backslashes would end the option.
    let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut list =
        format!("{}nosuid,nodev,subtype=amberfs,fsname={source}", if options.read_only { "ro," } else { "rw," });
    if options.allow_other {
        list.push_str(",default_permissions,allow_other");
    }
    if options.no_exec {
        list.push_str(",noexec");
    }
    let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket for fusermount3"))?;
    let mut helper = foreign::program(fusermount()?)
        .args(["-o", &list, "--"])
        .arg(place)
        // It sends the channel over the descriptor named here: its standard input.
        .env("_FUSE_COMMFD", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("run fusermount3"))?;
    let channel = sys::receive_descriptor(ours.as_fd()).map_err(failed("receive from fusermount3"));
    let mut message = String::new();
    if let Some(mut stderr) = helper.stderr.take() {
        // Whatever can be read of its words helps; that it failed shows in the missing channel.
        let _read = stderr.read_to_string(&mut message);
    }
    let _status = helper.wait().map_err(failed("wait for fusermount3"))?;
    channel?.ok_or_else(|| helper_refused(message.trim()))
}

fn helper_refused(message: &str) -> MountError {
    let message = message.strip_prefix("fusermount3: ").unwrap_or(message);
    let remedy = if message.contains("user_allow_other") {
        "; an administrator can allow it there, or mount as root"
    } else if message.contains("/dev/fuse") {
        "; users may open it where `chmod 0666 /dev/fuse` was done, as udev does, and the kernel has FUSE"
    } else if message.contains("write access") {
        "; choose a directory of your own"
    } else {
        ""
    };
    MountError::Helper { message: format!("{message}{remedy}") }
}
