//! AES-256-GCM with nonces that are counted, never drawn.
//!
//! A [`Key`] is used for one object, or for one pack whose frames have ordinals: so a nonce is a small number
//! that says what is sealed (its *part*) and which one (its *ordinal*), and no two messages under one key share
//! it. GCM does not commit to its key, so each object carries [`Key::commitment`], which is checked first.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::{Bytes, BytesMut};

use super::observe::{self, Sealing};
use super::{SealError, Secret, derive};

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// A key for one object.
pub struct Key {
    key: LessSafeKey,
    commitment: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// Which message of an object: a number for the kind of part, and a count within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Counter {
    /// The kind of part.
    pub part: u32,
    /// Which one.
    pub ordinal: u64,
}

impl Counter {
    fn nonce(self) -> Nonce {
        let mut bytes = [0u8; 12];
        let (part, ordinal) = bytes.split_at_mut(4);
        part.copy_from_slice(&self.part.to_be_bytes());
        ordinal.copy_from_slice(&self.ordinal.to_be_bytes());
        Nonce::assume_unique_for_key(bytes)
    }
}

impl Key {
    /// The key that `secret` is for.
    pub fn new(secret: &Secret) -> Key {
        let bytes = derive::secret(secret, b"", &[b"amberfs aead key"]);
        let unbound = UnboundKey::new(&AES_256_GCM, bytes.bytes())
            .unwrap_or_else(|_| unreachable!("AES-256-GCM takes any 32 bytes"));
        let commitment = derive::expand(secret.bytes(), b"", &[b"amberfs key commitment"]);
        Key { key: LessSafeKey::new(unbound), commitment }
    }

    /// What only this key has: whoever opens an object compares it with the one that the object carries.
    pub fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// Seals `bytes` in place, and appends the tag. `place` is what they are bound to.
    ///
    /// The caller sees to it that `counter` is used once with this key.
    pub fn seal(&self, counter: Counter, place: &[u8], bytes: &mut Vec<u8>) {
        self.seal_from(0, counter, place, bytes);
    }

    /// As [`Key::seal`], of what stands in `bytes` from `start` on.
    pub fn seal_from(&self, start: usize, counter: Counter, place: &[u8], bytes: &mut Vec<u8>) {
        let text = bytes.get_mut(start..).unwrap_or_default();
        observe::tell(&Sealing { commitment: &self.commitment, counter, place, text });
        let tag = self
            .key
            .seal_in_place_separate_tag(counter.nonce(), Aad::from(place), text)
            .unwrap_or_else(|_| unreachable!("{} bytes are within GCM's limit", bytes.len()));
        bytes.extend_from_slice(tag.as_ref());
    }

    /// As [`Key::open`], in the memory of `sealed` itself where nobody else holds that, and in a copy where somebody does.
    ///
    /// # Errors
    /// [`SealError::Refused`].
    pub fn opened(&self, counter: Counter, place: &[u8], sealed: Bytes) -> Result<Bytes, SealError> {
        let mut own = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        let opened =
            self.key.open_in_place(counter.nonce(), Aad::from(place), &mut own).map_err(|_| SealError::Refused)?.len();
        own.truncate(opened);
        Ok(own.freeze())
    }

    /// Opens what was sealed, in place; the tag is taken off.
    ///
    /// # Errors
    /// [`SealError::Refused`].
    pub fn open(&self, counter: Counter, place: &[u8], bytes: &mut Vec<u8>) -> Result<(), SealError> {
        let opened =
            self.key.open_in_place(counter.nonce(), Aad::from(place), bytes).map_err(|_| SealError::Refused)?.len();
        bytes.truncate(opened);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hex;

    fn raw(key: &[u8; 32]) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap())
    }

    #[test]
    fn gcm_answers_as_its_specification_has_it() {
        // Test case 16 of "The Galois/Counter Mode of Operation" (McGrew and Viega).
        let bytes = |text: &str| -> Vec<u8> {
            text.as_bytes()
                .chunks(2)
                .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
                .collect()
        };
        let key: [u8; 32] =
            bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308").try_into().unwrap();
        let nonce: [u8; 12] = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
        let mut text = bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let aad = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        raw(&key).seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text).unwrap();
        assert_eq!(
            hex::encode(&text),
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
        );
    }

    #[test]
    fn only_the_same_key_counter_and_place_open() {
        let key = Key::new(&Secret::new([1; 32]));
        let counter = Counter { part: 2, ordinal: 3 };
        let mut sealed = b"content".to_vec();
        key.seal(counter, b"here", &mut sealed);
        assert_eq!(sealed.len(), 7 + TAG_BYTES);
        let open = |key: &Key, counter, place: &[u8], mut bytes: Vec<u8>| {
            let held = Bytes::from(bytes.clone());
            // Others hold it, and it stays as it is; nobody does; nobody does, and it is the end of something larger.
            let beside = key.opened(counter, place, held.clone());
            assert_eq!(held, bytes);
            let behind = Bytes::from([b"head", bytes.as_slice()].concat()).slice(4..);
            for within in [held, behind] {
                assert_eq!(key.opened(counter, place, within), beside);
            }
            let within = key.open(counter, place, &mut bytes).map(|()| bytes);
            assert_eq!(within.clone().map(Bytes::from), beside);
            within
        };
        assert_eq!(open(&key, counter, b"here", sealed.clone()), Ok(b"content".to_vec()));
        let other = Key::new(&Secret::new([2; 32]));
        assert_ne!(other.commitment(), key.commitment());
        assert_eq!(open(&other, counter, b"here", sealed.clone()), Err(SealError::Refused));
        for wrong in [Counter { part: 1, ..counter }, Counter { ordinal: 4, ..counter }] {
            assert_eq!(open(&key, wrong, b"here", sealed.clone()), Err(SealError::Refused));
        }
        assert_eq!(open(&key, counter, b"there", sealed.clone()), Err(SealError::Refused));
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key, counter, b"here", altered), Err(SealError::Refused), "bit {bit}");
        }
        assert_eq!(open(&key, counter, b"here", Vec::new()), Err(SealError::Refused));
    }

    /// Changes with the derivation and with nothing else: what is stored depends on it.
    #[test]
    fn a_sealed_message_is_what_it_was_when_the_format_was_written_down() {
        let key = Key::new(&Secret::new([7; 32]));
        let mut bytes = b"amberfs".to_vec();
        key.seal(Counter { part: 1, ordinal: 2 }, b"place", &mut bytes);
        let found = format!("{} {}", hex::encode(key.commitment()), hex::encode(&bytes));
        assert_eq!(
            found,
            "778e031b4caebe9ea185bd9d5f39da767fe3e475b8e0a03166a5de651697f4c7 da3436386e81fa35a2a129b298d37359394753bee37467"
        );
    }
}
