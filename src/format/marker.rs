//! The object that makes a prefix a repository, and says how it was made.

use bincode::{Decode, Encode};

use super::error::FormatError;
use super::ids::RepoId;
use super::object::Object;
use super::{codec, envelope};
use crate::base::{Instant, limits};
use crate::seal::derive::Cost;

/// The repository's marker.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Marker {
    /// The repository's identity; every other object is bound to it.
    pub repo: RepoId,
    /// When it was made; 0 in an encrypted one, which does not tell.
    pub created: Instant,
    /// The amberfs that made it.
    pub writer: String,
    /// How passphrases open it; none: nothing is encrypted.
    pub encryption: Option<Encryption>,
}

/// The one way in which repositories are encrypted so far: AES-256-GCM, HKDF-SHA256, X25519, Ed25519, Argon2id, BLAKE3.
pub const SUITE: u8 = 1;

/// How a repository is encrypted, as far as everybody may know.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Encryption {
    /// Which algorithms; see [`SUITE`].
    pub suite: u8,
    /// Goes into every derivation from a passphrase.
    pub salt: [u8; 16],
    /// Memory of Argon2id, in KiB.
    pub memory_kib: u32,
    /// Its passes.
    pub passes: u32,
    /// Its lanes.
    pub lanes: u32,
}

impl Encryption {
    /// A new repository's.
    pub fn new(salt: [u8; 16], cost: Cost) -> Encryption {
        let Cost { memory_kib, passes, lanes } = cost;
        Encryption { suite: SUITE, salt, memory_kib, passes, lanes }
    }

    /// What a passphrase costs.
    pub fn cost(&self) -> Cost {
        Cost { memory_kib: self.memory_kib, passes: self.passes, lanes: self.lanes }
    }
}

impl Marker {
    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        envelope::seal(RepoId([0; 16]), &Object::Marker.name(), envelope::Kind::Marker, &codec::encode(self), None)
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
            None,
        )?;
        let marker: Marker = codec::decode("repository marker", &body, limits::LOG_ENTRY_BYTES_MAX)?;
        match &marker.encryption {
            Some(encryption) if encryption.suite != SUITE => Err(FormatError::Newer {
                what: "repository's encryption",
                found: u32::from(encryption.suite),
                newest: u32::from(SUITE),
            }),
            Some(encryption) if !encryption.cost().is_acceptable() => {
                Err(super::error::refused("repository marker")(crate::seal::SealError::Parameters))
            }
            Some(_) | None => Ok(marker),
        }
    }
}
