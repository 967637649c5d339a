//! Sealing to a reader without being one: X25519 with a key pair that is made once and thrown away.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};

use super::{SealError, Secret, derive};

/// Whoever has the private half reads what was sealed to the public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recipient(pub [u8; 32]);

/// A key pair.
#[derive(Debug, Clone)]
pub struct Pair {
    private: Secret,
    public: Recipient,
}

impl Pair {
    /// The pair with this private half; any 32 bytes are one.
    ///
    /// # Errors
    /// [`SealError::Key`] never, in practice.
    pub fn new(private: Secret) -> Result<Pair, SealError> {
        let key = PrivateKey::from_private_key(&X25519, private.bytes()).map_err(|_| SealError::Key)?;
        let public = key.compute_public_key().map_err(|_| SealError::Key)?;
        let public = Recipient(public.as_ref().try_into().map_err(|_| SealError::Key)?);
        Ok(Pair { private, public })
    }

    /// The public half.
    pub fn public(&self) -> Recipient {
        self.public
    }

    /// The private half.
    pub fn private(&self) -> &Secret {
        &self.private
    }

    /// What this pair and `other` share, for one purpose: the same from both sides. Both public halves are bound in.
    ///
    /// # Errors
    /// [`SealError::Key`] when `other` is no point that an honest party has.
    pub fn shared(&self, other: &Recipient, maker: &Recipient, info: &[&[u8]]) -> Result<Secret, SealError> {
        let reader = if self.public == *maker { other } else { &self.public };
        self.agreed(other, |shared| {
            let mut bound: Vec<&[u8]> = vec![b"amberfs exchange", &maker.0, &reader.0];
            bound.extend_from_slice(info);
            Secret::new(derive::expand(shared, b"", &bound))
        })
    }

    /// What `derive` makes of that which X25519 gives for this private half and `other`.
    fn agreed<T>(&self, other: &Recipient, derive: impl FnOnce(&[u8]) -> T) -> Result<T, SealError> {
        let key = PrivateKey::from_private_key(&X25519, self.private.bytes()).map_err(|_| SealError::Key)?;
        agree(&key, UnparsedPublicKey::new(&X25519, other.0), SealError::Key, |shared| Ok(derive(shared)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hex;

    // Section 6.1: public halves, and the private ones that they are of.
    const ALICE: &str = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    const BOB: &str = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";

    fn of(private: &str) -> Pair {
        Pair::new(Secret::new(hex::decode(private).unwrap())).unwrap()
    }

    fn alice() -> Pair {
        of("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    }

    fn bob() -> Pair {
        of("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    }

    #[test]
    fn both_sides_share_the_same_and_nobody_else_does() {
        let maker = Pair::new(Secret::new([1; 32])).unwrap();
        let reader = Pair::new(Secret::new([2; 32])).unwrap();
        let by_maker = maker.shared(&reader.public(), &maker.public(), &[b"x"]).unwrap();
        let by_reader = reader.shared(&maker.public(), &maker.public(), &[b"x"]).unwrap();
        assert_eq!(by_maker, by_reader);
        assert_ne!(by_maker, maker.shared(&reader.public(), &maker.public(), &[b"y"]).unwrap());
        let other = Pair::new(Secret::new([3; 32])).unwrap();
        assert_ne!(by_maker, other.shared(&maker.public(), &maker.public(), &[b"x"]).unwrap());
    }

    #[test]
    fn a_public_half_is_as_rfc_7748_has_it() {
        for (pair, public) in [(alice(), ALICE), (bob(), BOB)] {
            assert_eq!(hex::encode(&pair.public().0), public);
        }
    }

    #[test]
    fn what_two_share_is_as_rfc_7748_has_it() {
        let shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
        for (own, other) in [(alice(), bob()), (bob(), alice())] {
            let found = own.agreed(&other.public(), hex::encode).unwrap();
            assert_eq!(found, shared);
        }
    }

    #[test]
    fn a_point_of_small_order_is_refused() {
        let maker = Pair::new(Secret::new([1; 32])).unwrap();
        assert_eq!(maker.shared(&Recipient([0; 32]), &maker.public(), &[]), Err(SealError::Key));
    }
}
