//! Ed25519: who wrote what.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::{SealError, Secret};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The public half of a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verifier(pub [u8; 32]);

impl Verifier {
    /// Whether `signature` was made over `message` with the private half.
    ///
    /// # Errors
    /// [`SealError::Signature`].
    pub fn check(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<(), SealError> {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).map_err(|_| SealError::Signature)
    }
}

/// A signing key.
pub struct Signer {
    pair: Ed25519KeyPair,
    verifier: Verifier,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({:?})", self.verifier)
    }
}

impl Signer {
    /// The key that follows from `seed`.
    ///
    /// # Errors
    /// [`SealError::Key`] never, in practice: any 32 bytes are a seed.
    pub fn new(seed: &Secret) -> Result<Signer, SealError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.bytes()).map_err(|_| SealError::Key)?;
        let verifier = Verifier(pair.public_key().as_ref().try_into().map_err(|_| SealError::Key)?);
        Ok(Signer { pair, verifier })
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        self.verifier
    }

    /// A signature over `message`.
    ///
    /// # Panics
    /// Never: an Ed25519 signature has 64 bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.pair.sign(message);
        signature.as_ref().try_into().unwrap_or_else(|_| unreachable!("an Ed25519 signature has 64 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hex;

    #[test]
    fn a_signature_is_as_rfc_8032_has_it() {
        // Section 7.1, test 2.
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let signer = Signer::new(&Secret::new(seed)).unwrap();
        let public: [u8; 32] = hex::decode("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c").unwrap();
        assert_eq!(signer.verifier(), Verifier(public));
        let signature = signer.sign(&[0x72]);
        assert_eq!(
            hex::encode(&signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert_eq!(signer.verifier().check(&[0x72], &signature), Ok(()));
        assert_eq!(signer.verifier().check(&[0x73], &signature), Err(SealError::Signature));
        assert_eq!(Verifier([0; 32]).check(&[0x72], &signature), Err(SealError::Signature));
    }
}
