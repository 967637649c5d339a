#![allow(unsafe_code)]
//! The system calls that the standard library does not have: mount and unmount, receiving a
//! descriptor, signals as something to read and to hold back, leaving a terminal, and waiting for a process by descriptor.
//! Each function is a plain translation: no policy here.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The real user and group of this process.
pub(crate) fn real_ids() -> (u32, u32) {
    // SAFETY: these calls have no preconditions and cannot fail.
    unsafe { (libc::getuid(), libc::getgid()) }
}

/// Whether this process acts as root.
pub(crate) fn is_root() -> bool {
    // SAFETY: no preconditions, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// mount(2).
pub(crate) fn mount(source: &OsStr, target: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, target) = (c_string(source)?, c_string(target.as_os_str())?);
    let (kind, data) = (c_string(OsStr::new(kind))?, c_string(OsStr::new(data))?);
    // SAFETY: all pointers are to strings that end in zero and live through the call.
    checked(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast::<libc::c_void>())
    })?;
    Ok(())
}

/// umount2(2) of whatever is on top at `target`; `lazy` takes it out of the tree although it is in use.
pub(crate) fn unmount(target: &Path, lazy: bool) -> io::Result<()> {
    let target = c_string(target.as_os_str())?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    // SAFETY: the pointer is to a string that ends in zero and lives through the call.
    checked(unsafe { libc::umount2(target.as_ptr(), flags) })?;
    Ok(())
}

/// Receives one descriptor over `socket`; none if the other side hung up.
pub(crate) fn receive_descriptor(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    #[repr(align(8))]
    struct Ancillary([u8; 64]);
    let (mut byte, mut ancillary) = ([0u8; 1], Ancillary([0; 64]));
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: all-zero is a valid msghdr (null pointers with zero lengths).
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    message.msg_controllen = ancillary.0.len();
    let received = loop {
        // SAFETY: `message` points to buffers that live through the call, with their true lengths.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if received >= 0 {
            break received;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    if received == 0 {
        return Ok(None);
    }
    // SAFETY: `message` was filled by recvmsg, so its control part is well formed; the header that is
    // returned lies within it or is null.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: checked for null; the kernel wrote a whole header.
    let header = match unsafe { header.as_ref() } {
        Some(header) if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS => header,
        _ => return Ok(None),
    };
    // SAFETY: an SCM_RIGHTS message carries at least one descriptor; it may be unaligned.
    let fd = unsafe { libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned() };
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok((fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Where the signal handler writes; -1 before there is one.
static SIGNALLED: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(_: libc::c_int) {
    let one = 1u64;
    // SAFETY: write(2) is async-signal-safe; errno is restored, so the interrupted code sees its own.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(SIGNALLED.load(Ordering::Acquire), (&raw const one).cast(), size_of::<u64>());
        *errno = before;
    }
}

/// The signals that ask a process to end.
const ENDING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocks or unblocks them for this thread.
fn mask_ending_signals(how: libc::c_int) -> io::Result<()> {
    // SAFETY: all-zero is a valid set to be initialised; the set lives through the calls, all of which are
    // async-signal-safe.
    let error = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in ENDING {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Lets SIGTERM, SIGINT and SIGHUP to the process that `command` starts wait until it has called
/// [`catch_ending_signals`]: one that came earlier would end it as if it had died of a defect.
pub(crate) fn hold_ending_signals(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions run, and nothing is allocated.
    unsafe { command.pre_exec(|| mask_ending_signals(libc::SIG_BLOCK)) };
}

/// From now on SIGTERM, SIGINT and SIGHUP end nothing by themselves but make [`await_signal`] return, and
/// writing to a process that is gone is an error and no signal. Those that were held back until now arrive.
pub(crate) fn catch_ending_signals() -> io::Result<()> {
    static ONCE: OnceLock<Result<(), i32>> = OnceLock::new();
    let install = || -> io::Result<()> {
        // SAFETY: no pointers; the descriptor stays open for the life of the process.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        SIGNALLED.store(fd, Ordering::Release);
        // SAFETY: no pointers; ignoring a signal runs no code.
        if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        for signal in ENDING {
            // SAFETY: all-zero is a valid sigaction; the handler only does what is async-signal-safe.
            checked(unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigemptyset(&raw mut action.sa_mask);
                libc::sigaction(signal, &raw const action, std::ptr::null_mut())
            })?;
        }
        mask_ending_signals(libc::SIG_UNBLOCK)
    };
    let installed = ONCE.get_or_init(|| install().map_err(|e| e.raw_os_error().unwrap_or(libc::EIO)));
    installed.map_err(io::Error::from_raw_os_error)
}

/// Blocks until one of the caught signals comes.
pub(crate) fn await_signal() -> io::Result<()> {
    let mut count = [0u8; 8];
    loop {
        // SAFETY: the buffer is as long as said and lives through the call.
        let read = unsafe { libc::read(SIGNALLED.load(Ordering::Acquire), count.as_mut_ptr().cast(), count.len()) };
        if read >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Leaves terminal and session.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: no preconditions.
    checked(unsafe { libc::setsid() })?;
    Ok(())
}

/// Makes descriptor `number` the same open file as `file`.
pub(crate) fn replace_descriptor(file: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: `file` is open; what `number` stood for is closed by the kernel in the same step, and is a standard
    // stream, which nothing in this process owns.
    checked(unsafe { libc::dup2(file.as_raw_fd(), number) })?;
    Ok(())
}

/// A descriptor that stands for process `pid`.
pub(crate) fn process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until the process of `process` has ended; false if it has not within `limit`.
pub(crate) fn await_end(process: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let millis = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one entry, which lives through the call.
    let ready = checked(unsafe { libc::poll(&raw mut poll, 1, millis) })?;
    Ok(ready > 0)
}

/// The value of the extended attribute `name` of `path`, at most 64 bytes.
pub(crate) fn short_xattr(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (c_string(path.as_os_str())?, c_string(OsStr::new(name))?);
    let mut value = vec![0u8; 64];
    // SAFETY: both strings end in zero; the buffer is as long as said.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let size = usize::try_from(size).map_err(|_| io::Error::last_os_error())?;
    value.truncate(size);
    Ok(value)
}
