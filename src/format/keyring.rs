//! The keys of an encrypted repository that one person or host has, and what each is for.
//!
//! ```text
//! passphrase --Argon2id--> or key file --HKDF--> slot key: opens a slot, which holds, by role,
//!   full        the master secret of every epoch, from which all else follows
//!   collector   log keys, the private tree keys, a signing key and its certificate
//!   writer      log keys, the public tree and data keys, the chunk keys, a signing key and its certificate
//!
//! master of an epoch --HKDF--> log key         seals log entries and checkpoints
//!                              tree key pair   what packs' trees are sealed to (X25519)
//!                              data key pair   what packs' contents are sealed to (X25519)
//!                              signing key     the repository's own (Ed25519)
//!                              directory key   seals what the slots are called, for whoever lists them
//! master of epoch 1 --HKDF--> id key (keyed BLAKE3: names of chunks), cutting key (where chunks end)
//!
//! session: a key pair that is made once; shared with the tree key, and with the data key: two session
//! secrets --HKDF, with the pack's whole name--> a tree key and a data key for each pack
//! ```
//! A writer makes session secrets and cannot make old ones again: it keeps the *tree* secrets of its own
//! sessions, sealed, on its host ([`Keyring::admit`]), so that it can compare and never read content back.
//!
//! What a session's secrets follow from is in its commit entry, so a reader needs no request for them; the
//! pack's header has it too.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use bincode::{Decode, Encode};
use lru::LruCache;
use parking_lot::Mutex;

use super::author::{Author, Certificate, Role, Signed, key_id};
use super::envelope::Kind;
use super::error::{FormatError, refused};
use super::ids::{ChunkHash, Epoch, KeyId, PackId, RepoId, SessionId, SourceId};
use super::log::Pin;
use super::object::ObjectName;
use super::sealed::PackKeys;
use crate::seal::chunker::ChunkerKey;
use crate::seal::exchange::{Pair, Recipient};
use crate::seal::sign::{Signer, Verifier};
use crate::seal::{Secret, derive};

/// Keys of packs that are kept ready.
const PACKS_READY: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

/// The keys of one epoch, as far as the holder has them.
#[derive(Debug, Clone)]
pub struct EpochKeys {
    /// Seals log entries and checkpoints.
    pub log: Secret,
    /// What trees are sealed to.
    pub tree: Recipient,
    /// What contents are sealed to.
    pub data: Recipient,
    /// Opens what is sealed to `tree`.
    pub tree_pair: Option<Pair>,
    /// Opens what is sealed to `data`.
    pub data_pair: Option<Pair>,
    /// The repository's signing key.
    pub admin: Verifier,
    /// Seals what slots are called.
    pub directory: Option<Secret>,
}

impl EpochKeys {
    /// Everything that follows from a master secret.
    ///
    /// # Errors
    /// [`FormatError::Seal`] never, in practice.
    pub fn of_master(repo: RepoId, master: &Secret) -> Result<EpochKeys, FormatError> {
        let derived = |purpose: &[u8]| derive::secret(master, &repo.0, &[b"amberfs ", purpose]);
        let pair = |purpose: &[u8]| Pair::new(derived(purpose)).map_err(refused("master secret"));
        let (tree_pair, data_pair) = (pair(b"tree pair")?, pair(b"data pair")?);
        Ok(EpochKeys {
            log: derived(b"log"),
            tree: tree_pair.public(),
            data: data_pair.public(),
            tree_pair: Some(tree_pair),
            data_pair: Some(data_pair),
            admin: admin(repo, master)?.verifier(),
            directory: Some(derived(b"directory")),
        })
    }
}

/// From what the repository's own signing key follows.
pub(super) fn admin_seed(repo: RepoId, master: &Secret) -> Secret {
    derive::secret(master, &repo.0, &[b"amberfs signing"])
}

/// The repository's own signing key.
pub(super) fn admin(repo: RepoId, master: &Secret) -> Result<Signer, FormatError> {
    Signer::new(&admin_seed(repo, master)).map_err(refused("master secret"))
}

/// The keys that give chunks their names and their ends; the same in all epochs.
#[derive(Debug, Clone)]
pub struct ChunkKeys {
    /// Keyed BLAKE3.
    pub ids: Secret,
    /// Where chunks end.
    pub cuts: Secret,
}

impl ChunkKeys {
    /// What follows from the master secret of the first epoch.
    pub fn of_master(repo: RepoId, master: &Secret) -> ChunkKeys {
        let derived = |purpose: &[u8]| derive::secret(master, &repo.0, &[b"amberfs ", purpose]);
        ChunkKeys { ids: derived(b"chunk ids"), cuts: derived(b"chunk cuts") }
    }
}

/// From what a session's secrets follow, for whom its packs were sealed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SessionSeal {
    /// The generation of keys.
    pub epoch: Epoch,
    /// The public half of the pair that the session was sealed with.
    pub public: [u8; 32],
}

/// The secrets of a session, as far as the holder can have them.
#[derive(Debug, Clone)]
pub struct SessionSecrets {
    /// From what they follow.
    pub seal: SessionSeal,
    /// Opens its trees.
    pub tree: Option<Secret>,
    /// Opens its contents.
    pub data: Option<Secret>,
}

/// What a source's own log does not say of it, and the repository's does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// The writer key that added it, if one did.
    pub owner: Option<KeyId>,
    /// The generation of keys from which on entries count.
    pub epoch: Epoch,
    /// An entry that stands in it, and what holds behind that.
    pub pin: Option<Pin>,
}

/// The keys of an encrypted repository that somebody has.
#[derive(Debug)]
pub struct Keyring {
    repo: RepoId,
    epochs: BTreeMap<Epoch, EpochKeys>,
    current: Epoch,
    chunks: Option<ChunkKeys>,
    cuts: Option<ChunkerKey>,
    /// Seals what a host keeps to itself.
    local: Secret,
    signer: Signer,
    /// None of whoever signs with the repository's own key.
    certificate: Option<Certificate>,
    author: Author,
    newest: EpochKeys,
    sessions: Mutex<HashMap<(SourceId, SessionId), SessionSecrets>>,
    seals: Mutex<HashMap<(SourceId, SessionId), SessionSeal>>,
    sources: Mutex<HashMap<SourceId, Told>>,
    packs: Mutex<LruCache<(SourceId, PackId), Arc<PackKeys>>>,
}

impl Keyring {
    /// A ring of these keys.
    ///
    /// # Errors
    /// [`FormatError`] when they do not fit together.
    pub fn new(
        repo: RepoId,
        epochs: BTreeMap<Epoch, EpochKeys>,
        chunks: Option<ChunkKeys>,
        seed: &Secret,
        certificate: Option<Certificate>,
    ) -> Result<Keyring, FormatError> {
        let signer = Signer::new(seed).map_err(refused("signing key"))?;
        let local = derive::secret(seed, &repo.0, &[b"amberfs local state"]);
        let what = "key ring";
        let (current, newest) = epochs
            .last_key_value()
            .map(|(epoch, keys)| (*epoch, keys.clone()))
            .ok_or_else(|| FormatError::Malformed { what, why: "it has no keys".to_owned() })?;
        let author = match &certificate {
            Some(certificate) => certificate.check(repo, &newest.admin).map_err(refused("certificate"))?,
            None => Author { epoch: current, role: Role::Full },
        };
        let own = match &certificate {
            Some(certificate) => certificate.key,
            None => newest.admin.0,
        };
        if signer.verifier().0 != own {
            return Err(FormatError::Malformed { what, why: "its signing key is another's".to_owned() });
        }
        Ok(Keyring {
            repo,
            epochs,
            newest,
            current,
            cuts: chunks.as_ref().map(|keys| ChunkerKey::new(*keys.cuts.bytes())),
            chunks,
            local,
            signer,
            certificate,
            author,
            sessions: Mutex::default(),
            seals: Mutex::default(),
            sources: Mutex::default(),
            packs: Mutex::new(LruCache::new(PACKS_READY)),
        })
    }

    /// The repository.
    pub fn repo(&self) -> RepoId {
        self.repo
    }

    /// As whom its holder signs.
    pub fn author(&self) -> Author {
        self.author
    }

    /// The newest epoch.
    pub fn current(&self) -> Epoch {
        self.current
    }

    /// The keys of an epoch.
    pub fn epoch(&self, epoch: Epoch) -> Option<&EpochKeys> {
        self.epochs.get(&epoch)
    }

    /// The keys of the newest epoch.
    pub(super) fn newest(&self) -> &EpochKeys {
        &self.newest
    }

    /// `payload`, signed as what stands at `name`.
    pub(super) fn sign<'a>(&self, kind: Kind, name: &ObjectName, payload: &'a [u8]) -> Signed<'a> {
        let signature = self.signer.sign(&Signed::message(self.repo, kind as u8, name.as_str(), payload));
        Signed { epoch: self.author.epoch, certificate: self.certificate.clone(), signature, payload }
    }

    /// Whether content can be read with it.
    pub fn reads_content(&self) -> bool {
        self.epochs.values().any(|keys| keys.data_pair.is_some())
    }

    /// Whether any tree can be read with it, not only those that it was made to remember.
    pub fn reads_trees(&self) -> bool {
        self.epochs.values().any(|keys| keys.tree_pair.is_some())
    }

    /// Seals what a host keeps to itself.
    pub(super) fn local(&self) -> &Secret {
        &self.local
    }

    /// The name of a chunk.
    pub fn chunk_hash(&self, content: &[u8]) -> ChunkHash {
        let key = self.chunks.as_ref().map_or(&[0; 32], |keys| keys.ids.bytes());
        ChunkHash(*blake3::keyed_hash(key, content).as_bytes())
    }

    /// What decides where chunks end.
    pub fn cuts(&self) -> Option<&ChunkerKey> {
        self.cuts.as_ref()
    }

    /// Takes what the repository's log says of a source. A pin that was known stays known, whoever shows an older log.
    pub fn tell(&self, source: SourceId, told: Told) {
        let mut sources = self.sources.lock();
        let known = sources.get(&source).and_then(|known| known.pin);
        let pin = told.pin.into_iter().chain(known).max_by_key(|pin| pin.number);
        sources.insert(source, Told { pin, ..told });
    }

    /// What the repository's log says of a source.
    pub fn told_of(&self, source: SourceId) -> Told {
        self.sources.lock().get(&source).copied().unwrap_or_default()
    }

    /// Secrets for a new session, from `seed`, 32 bytes that are drawn for it and thrown away.
    ///
    /// # Errors
    /// [`FormatError::NoKey`] to whoever does not capture: without the keys of chunks their names would tell of them.
    pub fn begin(&self, source: SourceId, session: SessionId, seed: Secret) -> Result<SessionSecrets, FormatError> {
        let what = "session";
        if self.chunks.is_none() {
            return Err(FormatError::NoKey { what, key: "the keys of chunks".to_owned() });
        }
        let pair = Pair::new(seed).map_err(refused(what))?;
        let public = pair.public();
        let share = |reader: &Recipient, purpose: &'static [u8]| {
            pair.shared(reader, &public, &purposes(purpose)).map_err(refused(what))
        };
        let secrets = SessionSecrets {
            seal: SessionSeal { epoch: self.current, public: public.0 },
            tree: Some(share(&self.newest.tree, TREE)?),
            data: Some(share(&self.newest.data, DATA)?),
        };
        self.sessions.lock().insert((source, session), secrets.clone());
        Ok(secrets)
    }

    /// Takes from a commit in the source's log from what the session's secrets follow. It counts more than what a pack says.
    pub fn learn(&self, source: SourceId, session: SessionId, seal: SessionSeal) {
        let before = self.seals.lock().insert((source, session), seal);
        if before.is_some_and(|before| before != seal) {
            self.sessions.lock().remove(&(source, session));
            self.packs.lock().clear();
        }
    }

    /// Takes the same from the header of a pack, which nobody has signed, where no commit is known to say it.
    pub fn learn_of_pack(&self, source: SourceId, session: SessionId, seal: SessionSeal) {
        self.seals.lock().entry((source, session)).or_insert(seal);
    }

    /// Takes the secrets of a session that its writer has kept.
    pub fn admit(&self, source: SourceId, session: SessionId, secrets: SessionSecrets) {
        self.sessions.lock().entry((source, session)).or_insert(secrets);
    }

    /// The secrets of a session that was begun here or is known from what it left.
    ///
    /// # Errors
    /// [`FormatError::NoKey`] when nothing is known of it, [`FormatError::NoEpoch`] when its epoch is not on this ring.
    pub fn session(&self, source: SourceId, session: SessionId) -> Result<SessionSecrets, FormatError> {
        if let Some(secrets) = self.sessions.lock().get(&(source, session)) {
            return Ok(secrets.clone());
        }
        let what = "pack";
        let unknown = || FormatError::NoKey { what, key: format!("the keys of session {}", session.random) };
        let seal = self.seals.lock().get(&(source, session)).copied().ok_or_else(unknown)?;
        let keys = self.epochs.get(&seal.epoch).ok_or(FormatError::NoEpoch { what, epoch: seal.epoch })?;
        let maker = Recipient(seal.public);
        let share = |pair: &Option<Pair>, purpose: &'static [u8]| {
            pair.as_ref().map(|pair| pair.shared(&maker, &maker, &purposes(purpose)).map_err(refused(what))).transpose()
        };
        let secrets = SessionSecrets { seal, tree: share(&keys.tree_pair, TREE)?, data: share(&keys.data_pair, DATA)? };
        if secrets.tree.is_some() {
            self.sessions.lock().insert((source, session), secrets.clone());
        }
        Ok(secrets)
    }

    /// Whether something is known of the session, so that its packs' headers need not be asked.
    pub fn knows(&self, source: SourceId, session: SessionId) -> bool {
        let of = (source, session);
        self.sessions.lock().contains_key(&of) || self.seals.lock().contains_key(&of)
    }

    /// The keys of a pack.
    ///
    /// # Errors
    /// As [`Keyring::session`].
    pub fn pack(&self, source: SourceId, pack: PackId) -> Result<Arc<PackKeys>, FormatError> {
        if let Some(keys) = self.packs.lock().get(&(source, pack)) {
            return Ok(Arc::clone(keys));
        }
        let keys = Arc::new(PackKeys::new(self.repo, source, pack, &self.session(source, pack.session)?));
        self.packs.lock().put((source, pack), Arc::clone(&keys));
        Ok(keys)
    }

    /// Who signed `message`.
    pub(super) fn author_of(&self, signed: &Signed<'_>, message: &[u8]) -> Author {
        let Some(keys) = self.epochs.get(&signed.epoch) else { return Author::NOBODY };
        let found = match &signed.certificate {
            None => {
                keys.admin.check(message, &signed.signature).map(|()| Author { epoch: signed.epoch, role: Role::Full })
            }
            Some(certificate) if certificate.epoch == signed.epoch => certificate
                .check(self.repo, &keys.admin)
                .and_then(|author| Verifier(certificate.key).check(message, &signed.signature).map(|()| author)),
            Some(_) => return Author::NOBODY,
        };
        found.unwrap_or(Author::NOBODY)
    }

    /// The identity of the key that its holder signs with.
    pub fn key_id(&self) -> KeyId {
        key_id(&self.signer.verifier())
    }
}

const TREE: &[u8] = b"tree";
const DATA: &[u8] = b"data";

fn purposes(purpose: &'static [u8]) -> [&'static [u8]; 2] {
    [b"amberfs session ", purpose]
}
