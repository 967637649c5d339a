//! Who wrote an entry, and the certificate by which everybody can tell.
//!
//! Whoever has a repository's full key signs with the key of the repository. A host that only captures has a
//! signing key of its own, and a certificate by the repository's key that says what it may do.

use bincode::{BorrowDecode, Decode, Encode};

use super::codec;
use super::ids::{Epoch, KeyId, RepoId};
use crate::base::Instant;
use crate::seal::SealError;
use crate::seal::sign::{SIGNATURE_BYTES, Signer, Verifier};

/// Who wrote an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Author {
    /// The generation of keys under which it was signed; 0 where nothing is encrypted.
    pub epoch: Epoch,
    /// What its key may do.
    pub role: Role,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub enum Role {
    /// Everything; so may everybody where nothing is encrypted.
    #[default]
    Full,
    /// Read metadata, delete and collect; not read content.
    Collector(KeyId),
    /// Add points to its own sources; not read, not delete.
    Writer(KeyId),
    /// Nothing: the signature is not valid, or not by whom the entry names.
    Nobody,
}

impl Author {
    /// An entry that nobody is known to have written.
    pub const NOBODY: Author = Author { epoch: Epoch(0), role: Role::Nobody };
}

/// Which of the lesser roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Grade {
    /// See [`Role::Collector`].
    Collector,
    /// See [`Role::Writer`].
    Writer,
}

/// That a key may act in a role, said by the repository's key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Certificate {
    /// Under which generation of keys.
    pub epoch: Epoch,
    /// The role.
    pub grade: Grade,
    /// The public half of the signing key.
    pub key: [u8; 32],
    /// Its name, for people.
    pub name: String,
    /// When it was made.
    pub issued: Instant,
    signature: [u8; SIGNATURE_BYTES],
}

/// The identity of a signing key.
pub fn key_id(verifier: &Verifier) -> KeyId {
    let mut id = [0u8; 16];
    blake3::Hasher::new().update(&verifier.0).finalize_xof().fill(&mut id);
    KeyId(id)
}

impl Certificate {
    /// A certificate for the key `key`, made with the repository's key of `epoch`.
    pub fn issue(
        repo: RepoId,
        admin: &Signer,
        epoch: Epoch,
        grade: Grade,
        key: &Verifier,
        name: &str,
        issued: Instant,
    ) -> Certificate {
        let name = name.to_owned();
        let mut certificate = Certificate { epoch, grade, key: key.0, name, issued, signature: [0; SIGNATURE_BYTES] };
        certificate.signature = admin.sign(&certificate.message(repo));
        certificate
    }

    fn message(&self, repo: RepoId) -> Vec<u8> {
        let mut message = b"amberfs certificate".to_vec();
        message.extend_from_slice(&repo.0);
        let unsigned = Certificate { signature: [0; SIGNATURE_BYTES], ..self.clone() };
        message.extend_from_slice(&codec::encode(&unsigned));
        message
    }

    /// The role that it gives, if the repository's key of its epoch made it.
    ///
    /// # Errors
    /// [`SealError::Signature`].
    pub fn check(&self, repo: RepoId, admin: &Verifier) -> Result<Author, SealError> {
        admin.check(&self.message(repo), &self.signature)?;
        let id = key_id(&Verifier(self.key));
        let role = match self.grade {
            Grade::Collector => Role::Collector(id),
            Grade::Writer => Role::Writer(id),
        };
        Ok(Author { epoch: self.epoch, role })
    }
}

/// Something that was written into a log, with who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Signed<'a> {
    /// The generation of keys.
    pub epoch: Epoch,
    /// Of a lesser key.
    pub certificate: Option<Certificate>,
    /// Over [`Signed::message`].
    pub signature: [u8; SIGNATURE_BYTES],
    /// What was written, in the codec's bytes.
    pub payload: &'a [u8],
}

impl Signed<'_> {
    /// What is signed: the payload by its hash, and where it stands. Ed25519 hashes what it checks with SHA-512, and
    /// what it signs twice: of the checkpoint of 10,000 points that was a sixth of what reading it took.
    pub fn message(repo: RepoId, kind: u8, name: &str, payload: &[u8]) -> Vec<u8> {
        let mut message = b"amberfs entry".to_vec();
        message.extend_from_slice(&repo.0);
        message.push(kind);
        message.extend_from_slice(&(name.len() as u64).to_le_bytes());
        message.extend_from_slice(name.as_bytes());
        message.extend_from_slice(blake3::hash(payload).as_bytes());
        message
    }
}
