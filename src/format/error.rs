//! Why bytes were refused.

use super::ids::Epoch;
use crate::base::{Class, Classed};
use crate::seal::SealError;

/// Bytes that are not what the format says, or values that the format cannot hold.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum FormatError {
    /// The bytes end too early, go on too long, or hold a value that cannot be.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// The structure that was decoded.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A checksum or hash over the bytes is not the recorded one.
    #[error("{what} has been altered: its checksum is {actual}, recorded is {expected}")]
    Altered {
        /// The structure that was checked.
        what: &'static str,
        /// Recorded, in hexadecimal.
        expected: String,
        /// Found, in hexadecimal.
        actual: String,
    },
    /// The bytes belong to another object or place than the one they were read for.
    #[error("{what} belongs elsewhere: it says {actual}, expected {expected}")]
    Misplaced {
        /// The structure that was checked.
        what: &'static str,
        /// Where it was read.
        expected: String,
        /// Where it says it belongs.
        actual: String,
    },
    /// Written by a newer amberfs.
    #[error("{what} has version {found}; this amberfs reads up to {newest}: use a newer one")]
    Newer {
        /// The structure.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The newest version that this build reads.
        newest: u32,
    },
    /// It cannot be opened with the key that it says it was sealed with, or its signature is not valid.
    #[error("{what} is not what was sealed: {source}")]
    Seal {
        /// The structure.
        what: &'static str,
        /// What failed.
        source: SealError,
    },
    /// It is sealed with a key that this key ring does not have.
    #[error("{what} is sealed with {key}, which the key that was given does not open")]
    NoKey {
        /// The structure.
        what: &'static str,
        /// What would open it.
        key: String,
    },
    /// It is sealed with keys of a generation that this key ring does not have.
    #[error("{what} is sealed with keys of epoch {epoch}, which the key that was given does not open")]
    NoEpoch {
        /// The structure.
        what: &'static str,
        /// The generation.
        epoch: Epoch,
    },
    /// It is not sealed, in a repository where everything is.
    #[error("{what} is not encrypted, and this repository is: somebody else put it there")]
    NotSealed {
        /// The structure.
        what: &'static str,
    },
    /// A value exceeds what the format can hold.
    #[error("{what} is too large: {size} bytes, at most {limit}")]
    TooLarge {
        /// The structure.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        limit: u64,
    },
}

impl Classed for FormatError {
    fn class(&self) -> Class {
        match self {
            FormatError::Malformed { .. }
            | FormatError::Altered { .. }
            | FormatError::Misplaced { .. }
            | FormatError::Seal { .. }
            | FormatError::NotSealed { .. } => Class::Corrupt,
            FormatError::NoKey { .. } | FormatError::NoEpoch { .. } => Class::Denied,
            FormatError::Newer { .. } => Class::Unsupported,
            FormatError::TooLarge { .. } => Class::Invalid,
        }
    }
}

/// Shorthand for [`FormatError::Malformed`].
pub(crate) fn malformed(what: &'static str, why: impl Into<String>) -> FormatError {
    FormatError::Malformed { what, why: why.into() }
}

/// Shorthand for [`FormatError::Seal`].
pub(crate) fn refused(what: &'static str) -> impl Fn(SealError) -> FormatError {
    move |source| FormatError::Seal { what, source }
}
