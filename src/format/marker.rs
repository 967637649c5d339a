//! The object that makes a prefix a repository, and says how it was made.

use bincode::{Decode, Encode};

use super::error::FormatError;
use super::ids::RepoId;
use super::object::Object;
use super::{codec, envelope};
use crate::base::{Instant, limits};

/// The repository's marker.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Marker {
    /// The repository's identity; every other object is bound to it.
    pub repo: RepoId,
    /// When it was made.
    pub created: Instant,
    /// The amberfs that made it.
    pub writer: String,
}

impl Marker {
    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        envelope::seal(RepoId([0; 16]), &Object::Marker.name(), envelope::Kind::Marker, &codec::encode(self))
    }

    /// From the object's bytes.
    ///
    /// # Errors
    /// [`FormatError`] when they are no marker.
    pub fn decode(bytes: &[u8]) -> Result<Marker, FormatError> {
        let body = envelope::open(
            RepoId([0; 16]),
            &Object::Marker.name(),
            envelope::Kind::Marker,
            "repository marker",
            bytes,
            limits::LOG_ENTRY_BYTES_MAX,
        )?;
        codec::decode("repository marker", &body, limits::LOG_ENTRY_BYTES_MAX)
    }
}
