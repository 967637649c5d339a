//! What opens an encrypted repository: a passphrase, or a key file.
//!
//! A key file is one line, `amberfs-key-1` and 64 hexadecimal digits. Its secret is random, so it is not
//! stretched: opening with it costs nothing, where a passphrase costs 64 MiB and a tenth of a second or more.

use zeroize::{Zeroize, Zeroizing};

use crate::base::hex;
use crate::format::marker::Encryption;
use crate::format::slot::Unlock;
use crate::seal::{SealError, Secret, derive};

/// The first word of a key file.
const MAGIC: &str = "amberfs-key-1";

/// What opens a slot.
#[derive(Clone)]
pub enum Credential {
    /// A passphrase, as it was typed.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The secret of a key file.
    KeyFile(Secret),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl Credential {
    /// A passphrase.
    pub fn passphrase(text: impl Into<Vec<u8>>) -> Credential {
        Credential::Passphrase(Zeroizing::new(text.into()))
    }

    /// What a key file holds, if it is one.
    pub fn of_key_file(text: &str) -> Option<Credential> {
        let digits = text.trim().strip_prefix(MAGIC)?.trim();
        let mut secret: [u8; 32] = hex::decode(digits)?;
        let credential = Credential::KeyFile(Secret::new(secret));
        secret.zeroize();
        Some(credential)
    }

    /// The text of a new key file with this secret, which is random.
    pub fn key_file(secret: &Secret) -> Zeroizing<String> {
        let digits = Zeroizing::new(hex::encode(secret.bytes()));
        // Room for all of it: what grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(MAGIC.len() + 1 + digits.len() + 1));
        for part in [MAGIC, " ", &digits, "\n"] {
            text.push_str(part);
        }
        text
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Credential::Passphrase(_) => "passphrase",
            Credential::KeyFile(_) => "key file",
        }
    }

    /// What it amounts to in this repository.
    ///
    /// # Errors
    /// [`SealError::Parameters`] when the repository asks for a cost that is not accepted.
    pub(super) fn unlock(&self, encryption: &Encryption) -> Result<Unlock, SealError> {
        match self {
            Credential::Passphrase(text) => derive::passphrase(text, &encryption.salt, encryption.cost()).map(Unlock),
            Credential::KeyFile(secret) => Ok(Unlock(secret.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_read_back_and_nothing_else_is_taken_for_one() {
        let secret = Secret::new([0xab; 32]);
        let text = Credential::key_file(&secret);
        assert!(matches!(Credential::of_key_file(&text), Some(Credential::KeyFile(read)) if read == secret));
        for text in ["", "amberfs-key-1", "amberfs-key-1 abcd", "amberfs-key-2 00", &format!("{:0>64}", 1)] {
            assert!(Credential::of_key_file(text).is_none(), "{text}");
        }
        assert_eq!(format!("{:?}", Credential::passphrase("secret")), "passphrase");
    }
}
