#![allow(unsafe_code)]
//! The few questions to the operating system that the standard library does not ask.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Time since the machine started, also that in which it was suspended: what a lease of another machine's time is measured
/// with. `CLOCK_MONOTONIC`, which [`std::time::Instant`] reads, stands still meanwhile.
pub fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for what the kernel writes. Every kernel that has FUSE has this clock, so it cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

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

/// Whether this process may write to `path`: not where the mode, an ACL or a read-only mount forbids it.
///
/// # Errors
/// Why not, as access(2) says.
pub fn may_write(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the string ends in zero and lives through the call.
    let answer = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK, libc::AT_EACCESS) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// <linux/fs.h>; libc lacks them.
const BLKSSZGET: libc::Ioctl = 0x1268;
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;
const BLKFLSBUF: libc::Ioctl = 0x1261;
const BLKRRPART: libc::Ioctl = 0x125f;

/// Bytes of a block device.
///
/// # Errors
/// Those of asking; `ENOTTY` when it is no block device.
pub fn device_bytes(device: &File) -> io::Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: `bytes` is writable and of the size that this request fills.
    match unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) } {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes of a logical sector of a block device.
///
/// # Errors
/// Those of asking; `ENOTTY` when it is no block device.
pub fn sector_bytes(device: &File) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is writable and of the size that this request fills.
    match unsafe { libc::ioctl(device.as_raw_fd(), BLKSSZGET, &raw mut bytes) } {
        0 => u32::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes back a block device's own pages and drops them, so that reading asks the device. Who may not ask
/// for that drops what nobody else uses.
pub fn forget_pages(device: &File) {
    // SAFETY: no memory is passed.
    unsafe {
        if libc::ioctl(device.as_raw_fd(), BLKFLSBUF) != 0 {
            libc::posix_fadvise(device.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
        }
    }
}

/// Lets the kernel read a block device's partition table again. That there is none to read, or that a partition is in
/// use, is no failure: what cannot be read again stands as it was.
pub fn reread_partitions(device: &File) {
    // SAFETY: no memory is passed.
    unsafe { libc::ioctl(device.as_raw_fd(), BLKRRPART) };
}

/// Bounds what the allocator keeps of what was freed: by the number of its heaps, each of which keeps what was freed in it for its
/// own threads; and by the size from which an allocation is a mapping of its own, which goes back to the system when it is freed.
/// Left to itself, glibc raises that size up to 32 MiB by what it has seen, and growing vectors leave holes behind.
pub fn bound_heap(arenas_max: i32, mapped_from: i32, trimmed_from: i32) {
    // SAFETY: no memory is passed, and no other thread runs yet that could allocate meanwhile.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas_max);
        libc::mallopt(libc::M_MMAP_THRESHOLD, mapped_from);
        libc::mallopt(libc::M_TRIM_THRESHOLD, trimmed_from);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = (arenas_max, mapped_from, trimmed_from);
}

/// A file without a name that holds `bytes`, which its owner alone may read; closed on exec. It stays open until the
/// process ends.
///
/// # Errors
/// Those of memfd_create(2) and write(2).
pub(super) fn nameless_file(bytes: &[u8]) -> io::Result<RawFd> {
    use std::io::Write;
    use std::os::fd::{FromRawFd, IntoRawFd};
    use std::os::unix::fs::PermissionsExt;
    // SAFETY: the name is a constant with a NUL at its end.
    let fd = unsafe { libc::memfd_create(c"amberfs passphrase".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made here and belongs to nobody else.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    Ok(file.into_raw_fd())
}

/// Has a descriptor closed in every program that is started from now on.
///
/// # Errors
/// `EBADF` when there is none of that number.
pub(super) fn close_on_exec(number: RawFd) -> io::Result<()> {
    set_descriptor_flags(number, libc::FD_CLOEXEC)
}

/// Has the descriptor `number` stay open in the process that `command` starts, and in no other.
pub(super) fn keep_over_exec(command: &mut Command, number: RawFd) {
    // SAFETY: between fork and exec runs one fcntl(2), which is async-signal-safe; it allocates nothing. It changes
    // the child's own table of descriptors.
    unsafe { command.pre_exec(move || set_descriptor_flags(number, 0)) };
}

fn set_descriptor_flags(number: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: two numbers are passed and no memory; whether a descriptor outlives an exec is nothing that its owner
    // in this process could be hurt by.
    match unsafe { libc::fcntl(number, libc::F_SETFD, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// From now on the kernel writes no core of this process, and nobody but root may trace it or look at its memory, its
/// environment or its open files. Programs that it starts are as they would have been.
///
/// # Errors
/// What prctl(2) says.
pub fn hide_memory() -> io::Result<()> {
    let no: libc::c_ulong = 0;
    // SAFETY: numbers are passed and no memory.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, no) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
