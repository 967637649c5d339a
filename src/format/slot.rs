//! Key slots: what a passphrase or a key file opens.
//!
//! A slot's name and its key both follow from what opens it ([`Unlock`]), so whoever has that finds the slot
//! without a trial at each. The slot is sealed with its key, and nobody else can open it, nor make one that it opens: a
//! rotation cannot hand new keys to slots whose passphrases it does not know, and so not to one that was removed
//! either. What a slot is called and gives is sealed once more, for whoever has the repository's full key, together with a
//! hash of what the slot's own key opens: who cannot open a slot can still tell whether its holder will be able to.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::author::{Certificate, Grade, key_id};
use super::error::{FormatError, malformed, refused};
use super::ids::{Epoch, KeyId, Nonce, RepoId, SlotId};
use super::keyring::{ChunkKeys, EpochKeys, Keyring, admin, admin_seed};
use super::object::{Object, ObjectName};
use super::{codec, envelope};
use crate::base::{Instant, limits};
use crate::seal::aead::{Counter, Key, TAG_BYTES};
use crate::seal::exchange::{Pair, Recipient};
use crate::seal::sign::{Signer, Verifier};
use crate::seal::{Secret, derive};

const WHAT: &str = "key slot";
const ONLY: Counter = Counter { part: 0, ordinal: 0 };
/// What each part of a slot's object is bound to.
const ABOUT: &[u8] = b"slot directory";
const CONTENTS: &[u8] = b"slot contents";
const BEGUN: &[u8] = b"slot rotation";
const REMOVAL: &[u8] = b"slot removal";

/// What opens a slot: a stretched passphrase, or the secret of a key file.
#[derive(Debug, Clone)]
pub struct Unlock(pub Secret);

impl Unlock {
    /// The slot that it opens, if there is one.
    pub fn slot(&self, repo: RepoId) -> SlotId {
        SlotId(derive::expand(self.0.bytes(), &repo.0, &[b"amberfs slot id"]))
    }

    /// The slot's key.
    pub fn key(&self, repo: RepoId) -> Secret {
        derive::secret(&self.0, &repo.0, &[b"amberfs slot key"])
    }
}

/// What a slot holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name, for people.
    pub name: String,
    /// When it was made.
    pub created: Instant,
    /// What it gives.
    pub access: Access,
}

/// What a slot gives, by role.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub enum Access {
    /// Everything: the master secret of every epoch, from the first.
    Full(Vec<[u8; 32]>),
    /// See [`super::author::Role::Collector`].
    Collector(Vec<CollectorEpoch>, Lesser),
    /// See [`super::author::Role::Writer`].
    Writer(Vec<WriterEpoch>, WriterChunks, Lesser),
}

/// What signs for a lesser role.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct Lesser {
    /// Of its signing key.
    pub seed: [u8; 32],
    /// By the repository's newest key; it stands in every entry, so it is no secret.
    #[zeroize(skip)]
    pub certificate: Certificate,
}

/// The keys of an epoch that a collector has.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct CollectorEpoch {
    log: [u8; 32],
    tree_private: [u8; 32],
    data: [u8; 32],
    admin: [u8; 32],
}

/// The keys of an epoch that a writer has.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct WriterEpoch {
    log: [u8; 32],
    tree: [u8; 32],
    data: [u8; 32],
    admin: [u8; 32],
}

/// The keys of chunks that a writer has.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
pub struct WriterChunks {
    ids: [u8; 32],
    cuts: [u8; 32],
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({:?}, {})", self.name, role_name(&self.access))
    }
}

/// The word for a role, for people.
pub fn role_name(access: &Access) -> &'static str {
    match access {
        Access::Full(_) => "full",
        Access::Collector(..) => "collector",
        Access::Writer(..) => "writer",
    }
}

/// What is stored, inside a slot's envelope.
#[derive(Encode, Decode)]
struct Stored {
    /// What the slot is called and gives, sealed for whoever has the full key of the epoch.
    about: Sealed,
    /// Name, creation and access, sealed with the slot's key.
    contents: Sealed,
    /// Of an object with which a rotation begins: the contents' hash, sealed for whoever has the full key of the epoch
    /// that is left. The keys of the new epoch are drawn by whoever begins, so nobody else could tell it from junk.
    begun: Option<Sealed>,
}

/// The text of `about`.
#[derive(Encode, Decode)]
struct Told {
    about: About,
    /// [`Sealed::hash`] of the contents.
    contents: [u8; 32],
}

/// A salt, which is a keyed hash over the text so that no two texts share a key; the key's commitment; the sealed text.
#[derive(Encode, Decode)]
struct Sealed {
    salt: [u8; 32],
    commitment: [u8; 32],
    text: Vec<u8>,
}

impl Sealed {
    fn hash(&self) -> [u8; 32] {
        *blake3::Hasher::new().update(&self.salt).update(&self.commitment).update(&self.text).finalize().as_bytes()
    }
}

#[derive(Encode, Decode)]
struct Contents {
    name: String,
    created: Instant,
    access: Access,
}

/// What a slot is called and gives.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct About {
    /// Its name, for people.
    pub name: String,
    /// When it was made.
    pub created: Instant,
    /// The lesser role and its signing key; none gives everything.
    pub lesser: Option<(Grade, KeyId)>,
}

impl About {
    /// The word for its role, for people.
    pub fn role(&self) -> &'static str {
        match self.lesser {
            None => "full",
            Some((Grade::Collector, _)) => "collector",
            Some((Grade::Writer, _)) => "writer",
        }
    }
}

/// What somebody who cannot open a slot finds out about one of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What it is called and gives.
    pub about: About,
    /// Whether what the slot's own key opens is what was sealed.
    pub is_whole: bool,
}

/// What the mark of a removal says: that whoever has the full key of the epoch relies on the slot no more.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Removal {
    /// What the slot is called that it was begun with.
    pub by: String,
    /// When, by the clock of whoever began.
    pub begun: Instant,
}

/// Where the mark of a removal stands. Each removal has its own, which nobody else makes, finds in his way, or takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The slot, and the epoch whose directory key seals the mark.
    pub at: At,
    /// The removal.
    pub removal: Nonce,
}

impl Mark {
    /// The object's name.
    pub fn name(&self) -> ObjectName {
        Object::Removal(self.at.slot, self.at.epoch, self.removal).name()
    }

    /// The object; `directory` is the epoch's key.
    pub fn encode(&self, removal: &Removal, directory: &Secret) -> Vec<u8> {
        let sealed = self.at.seal(directory, &self.purpose(), &codec::encode(removal));
        envelope::seal(self.at.repo, &self.name(), envelope::Kind::Removal, &codec::encode(&sealed), None)
    }

    /// What `bytes`, the object, say.
    ///
    /// # Errors
    /// [`FormatError`] when nobody with the full key of the epoch has written it.
    pub fn decode(&self, directory: &Secret, bytes: &[u8]) -> Result<Removal, FormatError> {
        const WHAT: &str = "mark of a removal";
        let limit = limits::KEY_SLOT_BYTES_MAX;
        let body = envelope::open(self.at.repo, &self.name(), envelope::Kind::Removal, WHAT, bytes, limit, None)?;
        let text = self.at.open(directory, &self.purpose(), codec::decode(WHAT, &body, limit)?)?;
        codec::decode(WHAT, &text, limit)
    }

    fn purpose(&self) -> Vec<u8> {
        [REMOVAL, &self.removal.0].concat()
    }
}

/// Where a slot stands, and so to what its parts are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The repository.
    pub repo: RepoId,
    /// The slot.
    pub slot: SlotId,
    /// The epoch.
    pub epoch: Epoch,
}

impl At {
    /// The object's name.
    pub fn name(&self) -> ObjectName {
        Object::Slot(self.slot, self.epoch).name()
    }

    fn key(&self, secret: &Secret, purpose: &[u8], salt: &[u8; 32]) -> Key {
        let name = self.name();
        let info: [&[u8]; 5] = [b"amberfs ", purpose, b" ", &self.repo.0, name.as_str().as_bytes()];
        Key::new(&derive::secret(secret, salt, &info))
    }

    fn seal(&self, secret: &Secret, purpose: &[u8], text: &[u8]) -> Sealed {
        let name = self.name();
        let salt = *blake3::Hasher::new_keyed(derive::secret(secret, b"", &[b"amberfs salt"]).bytes())
            .update(&self.repo.0)
            .update(name.as_str().as_bytes())
            .update(purpose)
            .update(text)
            .finalize()
            .as_bytes();
        // The lengths of names are nobody's business.
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let padded_len = text.len() + PADDED_TO - text.len() % PADDED_TO;
        // Room for all that follows: what grows leaves copies behind.
        let mut padded = Vec::with_capacity(padded_len + 4 + TAG_BYTES);
        padded.extend_from_slice(text);
        padded.resize(padded_len, 0);
        padded.extend_from_slice(&length.to_le_bytes());
        let key = self.key(secret, purpose, &salt);
        key.seal(ONLY, purpose, &mut padded);
        Sealed { salt, commitment: *key.commitment(), text: padded }
    }

    fn open(&self, secret: &Secret, purpose: &[u8], sealed: Sealed) -> Result<Zeroizing<Vec<u8>>, FormatError> {
        let key = self.key(secret, purpose, &sealed.salt);
        if sealed.commitment != *key.commitment() {
            return Err(refused(WHAT)(crate::seal::SealError::Refused));
        }
        let mut text = Zeroizing::new(sealed.text);
        key.open(ONLY, purpose, &mut text).map_err(refused(WHAT))?;
        let short = || malformed(WHAT, "shorter than its length");
        let length = text.split_last_chunk::<4>().map(|(_, length)| u32::from_le_bytes(*length)).ok_or_else(short)?;
        if length as usize + 4 > text.len() {
            return Err(short());
        }
        text.truncate(length as usize);
        Ok(text)
    }

    fn stored(&self, bytes: &[u8]) -> Result<Stored, FormatError> {
        let limit = limits::KEY_SLOT_BYTES_MAX;
        let body = envelope::open(self.repo, &self.name(), envelope::Kind::Slot, WHAT, bytes, limit, None)?;
        codec::decode(WHAT, &body, limit)
    }
}

impl Slot {
    /// What it is called and gives.
    pub fn about(&self) -> About {
        let lesser = match &self.access {
            Access::Full(_) => None,
            Access::Collector(_, lesser) | Access::Writer(_, _, lesser) => {
                Some((lesser.certificate.grade, key_id(&Verifier(lesser.certificate.key))))
            }
        };
        About { name: self.name.clone(), created: self.created, lesser }
    }

    /// The object at `at` that holds this slot. `key` is the slot's own, `directory` the epoch's; `left` is the directory
    /// key of the epoch that a rotation leaves with this object.
    pub fn encode(&self, at: At, key: &Secret, directory: &Secret, left: Option<&Secret>) -> Vec<u8> {
        let contents = Contents { name: self.name.clone(), created: self.created, access: self.access.clone() };
        let contents = at.seal(key, CONTENTS, &Zeroizing::new(codec::encode(&contents)));
        let hash = contents.hash();
        let told = Told { about: self.about(), contents: hash };
        let stored = Stored {
            about: at.seal(directory, ABOUT, &codec::encode(&told)),
            contents,
            begun: left.map(|left| at.seal(left, BEGUN, &hash)),
        };
        envelope::seal(at.repo, &at.name(), envelope::Kind::Slot, &codec::encode(&stored), None)
    }

    /// The slot that `bytes`, the object at `at`, hold.
    ///
    /// # Errors
    /// [`FormatError`] when `key` does not open it.
    pub fn decode(at: At, key: &Secret, bytes: &[u8]) -> Result<Slot, FormatError> {
        let text = at.open(key, CONTENTS, at.stored(bytes)?.contents)?;
        let contents: Contents = codec::decode(WHAT, &text, limits::KEY_SLOT_BYTES_MAX)?;
        Ok(Slot { name: contents.name, created: contents.created, access: contents.access })
    }

    /// What the slot in `bytes`, the object at `at`, is called and gives, for whoever has the full key of its epoch.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn listed(at: At, directory: &Secret, bytes: &[u8]) -> Result<Listed, FormatError> {
        let stored = at.stored(bytes)?;
        let text = at.open(directory, ABOUT, stored.about)?;
        let told: Told = codec::decode(WHAT, &text, limits::KEY_SLOT_BYTES_MAX)?;
        Ok(Listed { about: told.about, is_whole: told.contents == stored.contents.hash() })
    }

    /// Whether somebody who has the full key of an earlier epoch, whose directory key is `left`, has begun a rotation with
    /// the object `bytes` at `at`.
    pub fn begins_rotation(at: At, left: &Secret, bytes: &[u8]) -> bool {
        let Ok(Stored { contents, begun: Some(begun), .. }) = at.stored(bytes) else { return false };
        at.open(left, BEGUN, begun).is_ok_and(|hash| hash[..] == contents.hash())
    }

    /// The key ring that it gives.
    ///
    /// # Errors
    /// [`FormatError`] when what it holds does not fit together.
    pub fn keyring(&self, repo: RepoId) -> Result<Keyring, FormatError> {
        let numbered = |at: usize| Epoch(u32::try_from(at + 1).unwrap_or(u32::MAX));
        let mut epochs = BTreeMap::new();
        match &self.access {
            Access::Full(masters) => {
                for (at, master) in masters.iter().enumerate() {
                    epochs.insert(numbered(at), EpochKeys::of_master(repo, &Secret::new(*master))?);
                }
                let (first, last) =
                    masters.first().zip(masters.last()).ok_or_else(|| malformed(WHAT, "it is empty"))?;
                let chunks = ChunkKeys::of_master(repo, &Secret::new(*first));
                Keyring::new(repo, epochs, Some(chunks), &admin_seed(repo, &Secret::new(*last)), None)
            }
            Access::Collector(keys, lesser) => {
                for (at, keys) in keys.iter().enumerate() {
                    let pair = Pair::new(Secret::new(keys.tree_private)).map_err(refused(WHAT))?;
                    let keys = EpochKeys {
                        log: Secret::new(keys.log),
                        tree: pair.public(),
                        data: Recipient(keys.data),
                        tree_pair: Some(pair),
                        data_pair: None,
                        admin: Verifier(keys.admin),
                        directory: None,
                    };
                    epochs.insert(numbered(at), keys);
                }
                Keyring::new(repo, epochs, None, &Secret::new(lesser.seed), Some(lesser.certificate.clone()))
            }
            Access::Writer(keys, chunks, lesser) => {
                for (at, keys) in keys.iter().enumerate() {
                    let keys = EpochKeys {
                        log: Secret::new(keys.log),
                        tree: Recipient(keys.tree),
                        data: Recipient(keys.data),
                        tree_pair: None,
                        data_pair: None,
                        admin: Verifier(keys.admin),
                        directory: None,
                    };
                    epochs.insert(numbered(at), keys);
                }
                let chunks = ChunkKeys { ids: Secret::new(chunks.ids), cuts: Secret::new(chunks.cuts) };
                Keyring::new(repo, epochs, Some(chunks), &Secret::new(lesser.seed), Some(lesser.certificate.clone()))
            }
        }
    }
}

/// A slot's contents have a multiple of so many bytes.
const PADDED_TO: usize = 512;

/// The master secrets of all epochs: what a full slot holds, and from which every other is made.
#[derive(Clone, Zeroize)]
#[zeroize(drop)]
pub struct Masters(Vec<[u8; 32]>);

impl std::fmt::Debug for Masters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masters of {} epochs", self.0.len())
    }
}

impl Masters {
    /// A new repository's.
    pub fn first(master: [u8; 32]) -> Masters {
        Masters(vec![master])
    }

    /// Those of a full slot; no other has them.
    pub fn of(slot: &Slot) -> Option<Masters> {
        match &slot.access {
            Access::Full(masters) => Some(Masters(masters.clone())),
            Access::Collector(..) | Access::Writer(..) => None,
        }
    }

    /// With one epoch more.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] beyond what a slot holds.
    pub fn rotated(&self, master: [u8; 32]) -> Result<Masters, FormatError> {
        if self.0.len() >= limits::KEY_EPOCHS_MAX {
            let (size, limit) = (self.0.len() as u64 + 1, limits::KEY_EPOCHS_MAX as u64);
            return Err(FormatError::TooLarge { what: "list of key epochs", size, limit });
        }
        let mut masters = self.clone();
        masters.0.push(master);
        Ok(masters)
    }

    /// The newest epoch.
    pub fn epoch(&self) -> Epoch {
        Epoch(u32::try_from(self.0.len()).unwrap_or(u32::MAX))
    }

    /// What seals the names of slots in the newest epoch.
    ///
    /// # Errors
    /// [`FormatError`] never, in practice.
    pub fn directory(&self, repo: RepoId) -> Result<Secret, FormatError> {
        let newest = self.0.last().ok_or_else(|| malformed(WHAT, "it is empty"))?;
        EpochKeys::of_master(repo, &Secret::new(*newest))?
            .directory
            .ok_or_else(|| malformed(WHAT, "it has no directory key"))
    }

    /// A slot that gives everything.
    pub fn full(&self, name: &str, created: Instant) -> Slot {
        Slot { name: name.to_owned(), created, access: Access::Full(self.0.clone()) }
    }

    /// A slot for a lesser role, whose signing key follows from `seed`.
    ///
    /// # Errors
    /// [`FormatError`] never, in practice.
    pub fn lesser(
        &self,
        repo: RepoId,
        grade: Grade,
        name: &str,
        created: Instant,
        seed: [u8; 32],
    ) -> Result<Slot, FormatError> {
        let (first, newest) = self.0.first().zip(self.0.last()).ok_or_else(|| malformed(WHAT, "it is empty"))?;
        let signer = Signer::new(&Secret::new(seed)).map_err(refused(WHAT))?;
        let admin = admin(repo, &Secret::new(*newest))?;
        let certificate = Certificate::issue(repo, &admin, self.epoch(), grade, &signer.verifier(), name, created);
        let lesser = Lesser { seed, certificate };
        let epochs = self.0.iter().map(|master| EpochKeys::of_master(repo, &Secret::new(*master)));
        let access = match grade {
            Grade::Collector => {
                let epochs = epochs.map(|keys| {
                    let keys = keys?;
                    let private = keys.tree_pair.as_ref().map(|pair| *pair.private().bytes()).unwrap_or_default();
                    let (log, data, admin) = (*keys.log.bytes(), keys.data.0, keys.admin.0);
                    Ok(CollectorEpoch { log, tree_private: private, data, admin })
                });
                Access::Collector(epochs.collect::<Result<_, FormatError>>()?, lesser)
            }
            Grade::Writer => {
                let epochs = epochs.map(|keys| {
                    let keys = keys?;
                    let (log, admin) = (*keys.log.bytes(), keys.admin.0);
                    Ok(WriterEpoch { log, tree: keys.tree.0, data: keys.data.0, admin })
                });
                let chunks = ChunkKeys::of_master(repo, &Secret::new(*first));
                let chunks = WriterChunks { ids: *chunks.ids.bytes(), cuts: *chunks.cuts.bytes() };
                Access::Writer(epochs.collect::<Result<_, FormatError>>()?, chunks, lesser)
            }
        };
        Ok(Slot { name: name.to_owned(), created, access })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPO: RepoId = RepoId([3; 16]);

    fn at(unlock: &Unlock, epoch: u32) -> At {
        At { repo: REPO, slot: unlock.slot(REPO), epoch: Epoch(epoch) }
    }

    fn instant() -> Instant {
        Instant::from_nanos(7)
    }

    #[test]
    fn a_slot_opens_with_its_own_key_at_its_own_place() {
        let masters = Masters::first([1; 32]);
        let unlock = Unlock(Secret::new([2; 32]));
        let slot = masters.full("mine", instant());
        let bytes = slot.encode(at(&unlock, 1), &unlock.key(REPO), &masters.directory(REPO).unwrap(), None);
        assert_eq!(Slot::decode(at(&unlock, 1), &unlock.key(REPO), &bytes).unwrap(), slot);
        let other = Unlock(Secret::new([3; 32]));
        assert_ne!(other.slot(REPO), unlock.slot(REPO));
        assert!(Slot::decode(at(&unlock, 1), &other.key(REPO), &bytes).is_err());
        assert!(Slot::decode(at(&unlock, 2), &unlock.key(REPO), &bytes).is_err());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains("mine"));
        // Whoever has the full key of the epoch learns its name, and nobody else.
        let listed = |masters: &Masters| Slot::listed(at(&unlock, 1), &masters.directory(REPO).unwrap(), &bytes);
        assert_eq!(listed(&masters).unwrap(), Listed { about: slot.about(), is_whole: true });
        assert!(listed(&Masters::first([9; 32])).is_err());
        // No two texts share a key.
        let other = masters.full("other", instant());
        let again = other.encode(at(&unlock, 1), &unlock.key(REPO), &masters.directory(REPO).unwrap(), None);
        assert!(!bytes.windows(32).any(|salt| again.windows(32).any(|other| salt == other && salt != [0; 32])));
    }

    #[test]
    fn whoever_lists_a_slot_sees_whether_its_holder_can_open_it() {
        let masters = Masters::first([1; 32]);
        let directory = masters.directory(REPO).unwrap();
        let (unlock, other) = (Unlock(Secret::new([2; 32])), Unlock(Secret::new([3; 32])));
        let place = at(&unlock, 1);
        let slot = masters.full("mine", instant());
        let mut stored = place.stored(&slot.encode(place, &unlock.key(REPO), &directory, None)).unwrap();
        // Whoever can write to the store computes every checksum that is not keyed.
        let forge =
            |stored: &Stored| envelope::seal(REPO, &place.name(), envelope::Kind::Slot, &codec::encode(stored), None);
        assert!(Slot::listed(place, &directory, &forge(&stored)).unwrap().is_whole);
        let sealed = stored.contents;
        for at in 0..3 {
            let mut contents = Sealed { text: sealed.text.clone(), ..sealed };
            match at {
                0 => contents.salt[0] ^= 1,
                1 => contents.commitment[0] ^= 1,
                _ => contents.text[0] ^= 1,
            }
            stored.contents = contents;
            let forged = forge(&stored);
            assert!(Slot::decode(place, &unlock.key(REPO), &forged).is_err());
            assert!(!Slot::listed(place, &directory, &forged).unwrap().is_whole, "part {at}");
        }
        // And what another's key opens.
        let theirs = slot.encode(place, &other.key(REPO), &directory, None);
        stored.contents = place.stored(&theirs).unwrap().contents;
        assert!(!Slot::listed(place, &directory, &forge(&stored)).unwrap().is_whole);
    }

    #[test]
    fn the_beginning_of_a_rotation_is_told_from_junk_by_whoever_has_the_keys_that_it_leaves() {
        let (before, stranger) = (Masters::first([1; 32]), Masters::first([9; 32]));
        let after = before.rotated([2; 32]).unwrap();
        let unlock = Unlock(Secret::new([2; 32]));
        let place = at(&unlock, 2);
        let left = |masters: &Masters| masters.directory(REPO).unwrap();
        let encode = |begun: Option<&Secret>| {
            after.full("mine", instant()).encode(place, &unlock.key(REPO), &left(&after), begun)
        };
        let begun = encode(Some(&left(&before)));
        assert!(Slot::begins_rotation(place, &left(&before), &begun));
        assert!(!Slot::begins_rotation(place, &left(&stranger), &begun));
        assert!(!Slot::begins_rotation(at(&unlock, 3), &left(&before), &begun));
        assert!(!Slot::begins_rotation(place, &left(&before), &encode(Some(&left(&stranger)))));
        assert!(!Slot::begins_rotation(place, &left(&before), &encode(None)));
        assert!(!Slot::begins_rotation(place, &left(&before), b"junk"));
        assert_eq!(Slot::decode(place, &unlock.key(REPO), &begun).unwrap(), after.full("mine", instant()));
    }

    #[test]
    fn only_whoever_has_the_full_key_of_the_epoch_says_that_a_slot_is_being_removed() {
        let (masters, stranger) = (Masters::first([1; 32]), Masters::first([9; 32]));
        let place = at(&Unlock(Secret::new([2; 32])), 1);
        let mark = Mark { at: place, removal: Nonce([5; 16]) };
        let removal = Removal { by: "first".to_owned(), begun: instant() };
        let directory = masters.directory(REPO).unwrap();
        let bytes = mark.encode(&removal, &directory);
        assert_eq!(mark.decode(&directory, &bytes).unwrap(), removal);
        assert!(!bytes.windows(5).any(|text| text == b"first"));
        assert!(mark.decode(&stranger.directory(REPO).unwrap(), &bytes).is_err());
        let elsewhere = at(&Unlock(Secret::new([3; 32])), 1);
        for other in [Mark { at: elsewhere, ..mark }, Mark { removal: Nonce([6; 16]), ..mark }] {
            let kind = envelope::Kind::Removal;
            let moved = envelope::seal(REPO, &other.name(), kind, &bytes[envelope::HEADER_BYTES..], None);
            assert!(other.decode(&directory, &moved).is_err());
        }
    }

    /// Compiles only as long as they are.
    #[test]
    fn what_a_slot_gives_is_overwritten_when_it_is_dropped() {
        fn is_wiped<T: ZeroizeOnDrop>() {}
        is_wiped::<Access>();
        is_wiped::<Lesser>();
        is_wiped::<CollectorEpoch>();
        is_wiped::<WriterEpoch>();
        is_wiped::<WriterChunks>();
    }

    #[test]
    fn a_role_has_what_it_needs_and_no_more() {
        let masters = Masters::first([1; 32]).rotated([2; 32]).unwrap();
        let full = masters.full("admin", instant()).keyring(REPO).unwrap();
        assert_eq!((full.current(), full.reads_trees(), full.reads_content()), (Epoch(2), true, true));
        let lesser = |grade| masters.lesser(REPO, grade, "web1", instant(), [5; 32]).unwrap().keyring(REPO).unwrap();
        let writer = lesser(Grade::Writer);
        assert_eq!((writer.current(), writer.reads_trees(), writer.reads_content()), (Epoch(2), false, false));
        assert_eq!(writer.chunk_hash(b"x"), full.chunk_hash(b"x"));
        let collector = lesser(Grade::Collector);
        assert_eq!((collector.reads_trees(), collector.reads_content()), (true, false));
        assert!(collector.cuts().is_none());
        // A rotation keeps chunks' names.
        let before = Masters::first([1; 32]).full("admin", instant()).keyring(REPO).unwrap();
        assert_eq!(before.chunk_hash(b"x"), full.chunk_hash(b"x"));
    }

    #[test]
    fn whoever_reads_shares_the_secrets_of_a_writers_session_and_the_writer_forgets_them() {
        use crate::format::{LogNumber, Nonce, SessionId, SourceId};
        let masters = Masters::first([1; 32]);
        let writer = || masters.lesser(REPO, Grade::Writer, "web1", instant(), [5; 32]).unwrap().keyring(REPO).unwrap();
        let session = SessionId { base: LogNumber(1), random: Nonce([4; 16]) };
        let made = writer().begin(SourceId(1), session, Secret::new([8; 32])).unwrap();
        let full = masters.full("admin", instant()).keyring(REPO).unwrap();
        assert!(matches!(full.session(SourceId(1), session), Err(FormatError::NoKey { .. })));
        full.learn(SourceId(1), session, made.seal);
        let read = full.session(SourceId(1), session).unwrap();
        assert_eq!((read.tree, read.data), (made.tree.clone(), made.data));
        let later = writer();
        later.learn(SourceId(1), session, made.seal);
        let read = later.session(SourceId(1), session).unwrap();
        assert_eq!((read.tree, read.data), (None, None));
        let collector =
            masters.lesser(REPO, Grade::Collector, "gc", instant(), [6; 32]).unwrap().keyring(REPO).unwrap();
        collector.learn(SourceId(1), session, made.seal);
        let read = collector.session(SourceId(1), session).unwrap();
        assert_eq!((read.tree, read.data), (made.tree, None));
    }
}
