//! What a failure means to whoever has to act on it.
//!
//! Every layer has its own error enum; each says its [`Class`]. The errno that a mount answers, the
//! decision to retry and the exit code of a command are derived from the class alone, in a `match`
//! without a wildcard arm, so that a new class cannot be forgotten anywhere.

/// The kinds of failure that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The named thing does not exist. Never used for a thing that should exist and cannot be read.
    NotFound,
    /// Stored bytes are missing or are not what they must be.
    Corrupt,
    /// The store, the network or the machine failed; the same request may succeed later.
    Transient,
    /// The request ended at its deadline.
    Timeout,
    /// Something else got there first, or is in the way.
    Conflict,
    /// The caller, or amberfs itself, is not allowed to do this.
    Denied,
    /// This build cannot do it, or the data was written by a newer one.
    Unsupported,
    /// The request makes no sense as given.
    Invalid,
    /// No space, quota or descriptors are left.
    Exhausted,
    /// Stopped because somebody asked for it.
    Cancelled,
}

/// An error that knows its [`Class`].
pub trait Classed: std::error::Error {
    /// What this failure means to whoever has to act on it.
    fn class(&self) -> Class;
}

impl Class {
    /// The class of an error of the operating system.
    pub fn of_io(error: &std::io::Error) -> Class {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::NotFound => Class::NotFound,
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Class::Denied,
            Kind::AlreadyExists | Kind::ResourceBusy | Kind::DirectoryNotEmpty => Class::Conflict,
            Kind::StorageFull | Kind::QuotaExceeded | Kind::OutOfMemory => Class::Exhausted,
            Kind::TimedOut => Class::Timeout,
            Kind::Unsupported => Class::Unsupported,
            Kind::InvalidInput => Class::Invalid,
            Kind::InvalidData | Kind::UnexpectedEof => Class::Corrupt,
            _ => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => Class::Exhausted,
                _ => Class::Transient,
            },
        }
    }
}
