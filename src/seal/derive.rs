//! Keys from keys (HKDF-SHA256) and from passphrases (Argon2id).

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hkdf;
use zeroize::Zeroize;

use super::{SealError, Secret};

struct Bytes(usize);

impl hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

/// `N` bytes for one purpose, from `secret`. `salt` may be public; `info` names the purpose and the place.
///
/// # Panics
/// Never: `N` is far below what HKDF yields.
pub fn expand<const N: usize>(secret: &[u8], salt: &[u8], info: &[&[u8]]) -> [u8; N] {
    let mut out = [0u8; N];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let okm = prk.expand(info, Bytes(N)).unwrap_or_else(|_| unreachable!("{N} bytes are within HKDF's limit"));
    okm.fill(&mut out).unwrap_or_else(|_| unreachable!("the buffer has the length that was asked for"));
    out
}

/// A key for one purpose, from `secret`.
pub fn secret(secret: &Secret, salt: &[u8], info: &[&[u8]]) -> Secret {
    let mut bytes = expand::<32>(secret.bytes(), salt, info);
    let derived = Secret::new(bytes);
    bytes.zeroize();
    derived
}

/// How much work a passphrase costs whoever guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// RFC 9106's second recommended choice: 64 MiB, three passes, four lanes.
    pub const STANDARD: Cost = Cost { memory_kib: 64 << 10, passes: 3, lanes: 4 };

    /// Whether a repository may ask for it: not so little that guessing is cheap, not so much that opening is an attack.
    pub fn is_acceptable(&self) -> bool {
        (32 << 10..=1 << 20).contains(&self.memory_kib)
            && (1..=16).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
    }
}

/// What a passphrase amounts to (Argon2id, version 1.3).
///
/// # Errors
/// [`SealError::Parameters`] for a cost that is not accepted.
pub fn passphrase(passphrase: &[u8], salt: &[u8; 16], cost: Cost) -> Result<Secret, SealError> {
    if !cost.is_acceptable() {
        return Err(SealError::Parameters);
    }
    argon2id(passphrase, salt, cost)
}

fn argon2id(passphrase: &[u8], salt: &[u8], cost: Cost) -> Result<Secret, SealError> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| SealError::Parameters)?;
    let mut bytes = [0u8; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut bytes)
        .map_err(|_| SealError::Parameters)?;
    let secret = Secret::new(bytes);
    bytes.zeroize();
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hex;

    #[test]
    fn hkdf_answers_as_rfc_5869_has_it() {
        // Test case 1 of appendix A.
        let ikm = [0x0b; 22];
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let okm = expand::<42>(&ikm, &salt, &[&info]);
        assert_eq!(
            hex::encode(&okm),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
        // The parts of the purpose are one after the other: whoever calls makes them unambiguous.
        assert_eq!(expand::<42>(&ikm, &salt, &[&info[..3], &info[3..]]), okm);
    }

    #[test]
    fn argon2id_answers_as_the_reference_implementation_does() {
        // From test.c of the reference implementation: version 0x13, t = 2, m = 2^16, p = 1.
        let cost = Cost { memory_kib: 1 << 16, passes: 2, lanes: 1 };
        let found = argon2id(b"password", b"somesalt", cost).unwrap();
        assert_eq!(hex::encode(found.bytes()), "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7");
    }

    #[test]
    fn a_cost_that_is_too_small_or_too_large_is_refused() {
        let standard = Cost::STANDARD;
        for cost in [
            Cost { memory_kib: (32 << 10) - 1, ..standard },
            Cost { memory_kib: (1 << 20) + 1, ..standard },
            Cost { passes: 0, ..standard },
            Cost { passes: 17, ..standard },
            Cost { lanes: 0, ..standard },
            Cost { lanes: 17, ..standard },
        ] {
            assert_eq!(passphrase(b"x", &[0; 16], cost), Err(SealError::Parameters), "{cost:?}");
        }
        assert!(standard.is_acceptable());
    }
}
