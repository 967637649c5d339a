//! Why a verification did not get to its end. What it finds on the way is no error but a `Finding`.

use crate::base::{Class, Classed};
use crate::chain::ChainError;
use crate::repo::RepoError;

/// A verification that could not be carried through.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store does not answer, so that nothing can be said about what it holds.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// A log could not be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// There is no source of this name.
    #[error("no source {name:?} in this repository{suggestion}")]
    NoSource {
        /// As asked for.
        name: String,
        /// What may have been meant, in words.
        suggestion: String,
    },
    /// The system gives no thread to work with.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody asked for the verification to stop.
    #[error("the verification was cancelled; what it had read so far says nothing about the rest")]
    Cancelled,
}

impl Classed for VerifyError {
    fn class(&self) -> Class {
        match self {
            VerifyError::Repo(source) => source.class(),
            VerifyError::Chain(source) => source.class(),
            VerifyError::NoSource { .. } => Class::NotFound,
            VerifyError::Thread { source } => Class::of_io(source),
            VerifyError::Cancelled => Class::Cancelled,
        }
    }
}
