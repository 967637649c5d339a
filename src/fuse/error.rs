//! What can go wrong when a mount is made or taken away.

use std::io;
use std::path::PathBuf;

use super::options::OptionError;
use crate::base::{Class, Classed};

/// See the head of this file. Messages say what to do about it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MountError {
    /// An option that cannot be had.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The place cannot be looked at.
    #[error("cannot use {path} as a mountpoint: {cause}")]
    Place { path: PathBuf, cause: io::Error },
    /// The place is a file.
    #[error("{path} is not a directory; a mountpoint must be one")]
    NotDirectory { path: PathBuf },
    /// The place has files that the mount would hide.
    #[error("{path} is not empty; choose an empty directory, or say `-o nonempty` to hide what is in it")]
    NotEmpty { path: PathBuf },
    /// The place is in use already, by us.
    #[error("{path} is an amberfs mount of {source_name} already; `amberfs umount {path}` first")]
    Mounted { path: PathBuf, source_name: String },
    /// The place holds the dead mount of another filesystem.
    #[error("{path} is a dead mount of {filesystem}, not ours to clear; `umount {path}` first")]
    DeadMount { path: PathBuf, filesystem: String },
    /// Writing the repository would write into its own view.
    #[error("{path} is inside the repository {repository}; choose a mountpoint outside")]
    InsideRepository { path: PathBuf, repository: PathBuf },
    /// The mount would hide the repository that it reads, and wait for itself.
    #[error("the repository {repository} is inside {path}; mounting there would hide it; choose another mountpoint")]
    HidesRepository { path: PathBuf, repository: PathBuf },
    /// No FUSE in this kernel or container.
    #[error(
        "cannot open /dev/fuse: {cause}; load the kernel module (`modprobe fuse`), or allow the device in this container"
    )]
    NoDevice { cause: io::Error },
    /// Not root, and no helper to act for us.
    #[error("an ordinary user needs `fusermount3` to mount; install the package fuse3, or mount as root")]
    NoHelper,
    /// The helper refused.
    #[error("fusermount3 refused: {message}")]
    Helper { message: String },
    /// The kernel refused.
    #[error("cannot mount at {path}: {cause}")]
    Kernel { path: PathBuf, cause: io::Error },
    /// The connection to the kernel broke.
    #[error("the connection to the kernel for {path} broke: {cause}")]
    Session { path: PathBuf, cause: io::Error },
    /// Nothing to unmount.
    #[error("{path} is not an amberfs mount")]
    NotMounted { path: PathBuf },
    /// Something uses the mount.
    #[error("{path} is in use; see who with `fuser -vm {path}`, or say `--lazy` to take it away when they are done")]
    Busy { path: PathBuf },
    /// It could not be unmounted.
    #[error("cannot unmount {path}: {cause}")]
    Unmount { path: PathBuf, cause: io::Error },
    /// Unmounted, but its server goes on.
    #[error("{path} is unmounted, but its server (process {pid}) has not ended yet")]
    Lingers { path: PathBuf, pid: u32 },
    /// A process or channel of ours could not be had.
    #[error("cannot {doing}: {cause}")]
    Process { doing: &'static str, cause: io::Error },
    /// The processes of a mount told each other something impossible.
    #[error("{0}")]
    Protocol(String),
}

impl Classed for MountError {
    fn class(&self) -> Class {
        match self {
            MountError::Option(_)
            | MountError::NotDirectory { .. }
            | MountError::NotEmpty { .. }
            | MountError::InsideRepository { .. }
            | MountError::HidesRepository { .. }
            | MountError::NotMounted { .. } => Class::Invalid,
            MountError::Mounted { .. } | MountError::DeadMount { .. } | MountError::Busy { .. } => Class::Conflict,
            MountError::NoHelper => Class::Unsupported,
            MountError::Helper { .. } => Class::Denied,
            MountError::Lingers { .. } => Class::Timeout,
            MountError::Protocol(_) => Class::Transient,
            MountError::Place { cause, .. }
            | MountError::NoDevice { cause }
            | MountError::Kernel { cause, .. }
            | MountError::Session { cause, .. }
            | MountError::Unmount { cause, .. }
            | MountError::Process { cause, .. } => Class::of_io(cause),
        }
    }
}
