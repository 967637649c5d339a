//! What a refused request answers, and which refusals are faults.
//!
//! The promise held here: a fault never looks like absence. ENOENT is said only when a directory was
//! read and has no such name. An object that should exist and does not is EIO.

use crate::base::Class;
use crate::view::namespace::{ViewError, WrongKind};

/// A positive error number of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    pub(crate) const ENOENT: Errno = Errno(libc::ENOENT);
    pub(crate) const EIO: Errno = Errno(libc::EIO);
    pub(crate) const ETIMEDOUT: Errno = Errno(libc::ETIMEDOUT);
    pub(crate) const EROFS: Errno = Errno(libc::EROFS);
    pub(crate) const EACCES: Errno = Errno(libc::EACCES);
    pub(crate) const EINVAL: Errno = Errno(libc::EINVAL);
    pub(crate) const ENODATA: Errno = Errno(libc::ENODATA);
    pub(crate) const ERANGE: Errno = Errno(libc::ERANGE);
    pub(crate) const ENOTDIR: Errno = Errno(libc::ENOTDIR);
    pub(crate) const EISDIR: Errno = Errno(libc::EISDIR);
    pub(crate) const ENXIO: Errno = Errno(libc::ENXIO);
    pub(crate) const ESTALE: Errno = Errno(libc::ESTALE);
    pub(crate) const EBADF: Errno = Errno(libc::EBADF);
    pub(crate) const EFBIG: Errno = Errno(libc::EFBIG);
    pub(crate) const ENAMETOOLONG: Errno = Errno(libc::ENAMETOOLONG);
    pub(crate) const ENOSYS: Errno = Errno(libc::ENOSYS);
}

/// Why a request is refused, and what to record about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What the caller gets.
    pub(crate) errno: Errno,
    /// For faults of stored bytes, store or machine: what `.amberfs/errors` will say.
    pub(crate) fault: Option<String>,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure { errno, fault: None }
    }
}

impl Failure {
    /// A fault that is recorded.
    pub(crate) fn fault(errno: Errno, message: impl Into<String>) -> Failure {
        Failure { errno, fault: Some(message.into()) }
    }

    /// The refusal for `error`, met while looking up a name.
    pub(crate) fn by_name(error: &ViewError) -> Failure {
        Failure::of(error, Errno::ENOENT)
    }

    /// The refusal for `error`, met while asking about a node that the kernel already knows. A node
    /// that is gone since (its point was deleted, its content has a newer version) is ESTALE: the
    /// kernel then looks its path up once more before it bothers the caller.
    pub(crate) fn by_node(error: &ViewError) -> Failure {
        Failure::of(error, Errno::ESTALE)
    }

    fn of(error: &ViewError, absent: Errno) -> Failure {
        match error {
            ViewError::NotFound => absent.into(),
            ViewError::WrongKind(kind) => match kind {
                WrongKind::NotDirectory => Errno::ENOTDIR.into(),
                WrongKind::IsDirectory => Errno::EISDIR.into(),
                WrongKind::NotSymlink | WrongKind::NotRegular => Errno::EINVAL.into(),
            },
            ViewError::NoSuchOffset => Errno::ENXIO.into(),
            ViewError::Invalid(_) => Errno::EINVAL.into(),
            ViewError::Fault { cause, .. } => Failure::fault(of_fault(cause.class()), error.to_string()),
        }
    }
}

/// The errno of something that exists and could not be had.
fn of_fault(class: Class) -> Errno {
    match class {
        // What a point needs and the store does not have is damage, not absence.
        Class::NotFound | Class::Corrupt | Class::Transient => Errno::EIO,
        Class::Timeout => Errno::ETIMEDOUT,
        Class::Conflict => Errno(libc::EBUSY),
        Class::Denied => Errno::EACCES,
        Class::Unsupported => Errno(libc::EOPNOTSUPP),
        Class::Invalid => Errno::EINVAL,
        Class::Exhausted => Errno(libc::ENOSPC),
        Class::Cancelled => Errno(libc::EINTR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Classed;

    #[derive(Debug, thiserror::Error)]
    #[error("pack 7 is gone")]
    struct Lost(Class);
    impl Classed for Lost {
        fn class(&self) -> Class {
            self.0
        }
    }

    #[test]
    fn a_missing_object_is_not_a_missing_file() {
        let error = ViewError::fault("read frame 3 of home/a", Lost(Class::NotFound));
        let failure = Failure::by_name(&error);
        assert_eq!(failure.errno, Errno::EIO);
        assert_eq!(failure.fault.as_deref(), Some("read frame 3 of home/a: pack 7 is gone"));
    }

    #[test]
    fn absence_is_no_fault_and_depends_on_the_question() {
        assert_eq!(Failure::by_name(&ViewError::NotFound), Errno::ENOENT.into());
        assert_eq!(Failure::by_node(&ViewError::NotFound), Errno::ESTALE.into());
    }

    #[test]
    fn no_fault_is_ever_absence() {
        for class in [
            Class::NotFound,
            Class::Corrupt,
            Class::Transient,
            Class::Timeout,
            Class::Conflict,
            Class::Denied,
            Class::Unsupported,
            Class::Invalid,
            Class::Exhausted,
            Class::Cancelled,
        ] {
            assert_ne!(of_fault(class), Errno::ENOENT);
        }
        assert_eq!(of_fault(Class::Timeout), Errno::ETIMEDOUT);
    }
}
