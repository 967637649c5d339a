//! Seals bytes to a place and opens them again; keyed hashes and cuts, signatures and derivations. The only
//! home of `aws-lc-rs` and `argon2`.
//!
//! Everything here is a thin, typed layer over published algorithms: AES-256-GCM (NIST SP 800-38D),
//! HKDF-SHA256 (RFC 5869), X25519 (RFC 7748), Ed25519 (RFC 8032), Argon2id (RFC 9106), keyed BLAKE3. What is
//! sealed with which key, and to which place, the format says (`format::keyring`). Pure: randomness is given.

pub mod aead;
pub mod chunker;
pub mod derive;
pub mod exchange;
pub mod observe;
pub mod padme;
mod secret;
pub mod sign;

pub use secret::Secret;

/// Why bytes cannot be opened, or a key not be used. It never says more: what failed must not help who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The tag does not fit: another key, another place, or altered bytes.
    #[error("it was altered, moved, or sealed with another key")]
    Refused,
    /// The signature is not by that key over those bytes.
    #[error("its signature is not valid")]
    Signature,
    /// A key's bytes are no key.
    #[error("a key is malformed")]
    Key,
    /// The parameters of a derivation are outside what is accepted.
    #[error("the parameters of the key derivation are outside what is accepted")]
    Parameters,
}
