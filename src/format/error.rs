//! Why bytes were refused.

use crate::base::{Class, Classed};

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
            FormatError::Malformed { .. } | FormatError::Altered { .. } | FormatError::Misplaced { .. } => {
                Class::Corrupt
            }
            FormatError::Newer { .. } => Class::Unsupported,
            FormatError::TooLarge { .. } => Class::Invalid,
        }
    }
}

/// Shorthand for [`FormatError::Malformed`].
pub(crate) fn malformed(what: &'static str, why: impl Into<String>) -> FormatError {
    FormatError::Malformed { what, why: why.into() }
}
