//! How a repository comes to be, and how it is opened.
//!
//! Requests: one GET for the marker; of an encrypted one also a LIST and a GET for the key slot, whose name
//! follows from the key, so that nothing is tried out: side by side over a network, and one GET more where keys were
//! rotated. What a store holds under that name and the key does not open is passed over with a warning: an older
//! object of the slot opens what it always did, and whether it is too old to write with, the log says.
//!
//! Crash behaviour: the marker is created last, and makes the prefix a repository. Before it, there may be a key slot,
//! which means nothing.

use std::sync::{Arc, OnceLock};

use super::blocks::Blocks;
use super::credential::Credential;
use super::reader::{CacheSizes, Caches};
use super::{Repo, RepoError, slots};
use crate::base::{Class, Classed, Env, Instant, limits};
use crate::format::keyring::Keyring;
use crate::format::marker::{Encryption, Marker};
use crate::format::object::{LogId, Object, entries_prefix, slot_prefix};
use crate::format::slot::{At, Masters, Slot};
use crate::format::{Epoch, FormatError, Realm, RepoId, SlotId};
use crate::seal::Secret;
use crate::seal::derive::Cost;
use crate::store::{CreateSupport, Created, Store};

/// The slot that a repository was opened with.
#[derive(Debug)]
pub(super) struct OpenedBy {
    pub(super) id: SlotId,
    pub(super) key: Secret,
    pub(super) slot: Slot,
}

/// A repository that was found and is not open yet.
#[derive(Debug)]
pub struct Closed {
    store: Store,
    marker: Marker,
}

impl Closed {
    /// The repository behind `store`: one request.
    ///
    /// # Errors
    /// [`RepoError::Absent`] when there is none.
    pub fn find(store: Store) -> Result<Closed, RepoError> {
        let name = Object::Marker.name();
        let bytes = match store.get(&name, limits::LOG_ENTRY_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.class() == Class::NotFound => {
                // A repository that has lost its marker is damaged; one without a log has never been.
                let log = store.list(&entries_prefix(LogId::Repo), None, Some(1));
                return Err(match log.map_err(RepoError::store("open the repository"))?.is_empty() {
                    true => RepoError::Absent { store: store.describe() },
                    false => RepoError::Missing { object: name },
                });
            }
            Err(source) => return Err(RepoError::Store { context: "open the repository", source }),
        };
        let marker = Marker::decode(&bytes).map_err(RepoError::object(&name))?;
        Ok(Closed { store, marker })
    }

    /// Whether a key is needed.
    pub fn is_encrypted(&self) -> bool {
        self.marker.encryption.is_some()
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its marker.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Opens it with `credential`, which is needed if it is encrypted and refused if it is not: whoever has a key does
    /// not mean a repository that somebody has put in the place of his own.
    ///
    /// # Errors
    /// [`RepoError::Locked`], [`RepoError::WrongKey`], [`RepoError::NotEncrypted`]; the store; a slot of which no object
    /// opens.
    pub fn open(self, env: Env, sizes: CacheSizes, credential: Option<&Credential>) -> Result<Arc<Repo>, RepoError> {
        let Closed { store, marker } = self;
        let at_store = || store.describe();
        let (opened_by, realm) = match (&marker.encryption, credential) {
            (None, None) => (None, Realm::from(marker.repo)),
            (None, Some(_)) => return Err(RepoError::NotEncrypted { store: at_store() }),
            (Some(_), None) => return Err(RepoError::Locked { store: at_store() }),
            (Some(encryption), Some(credential)) => {
                let (opened, keys) = unlock(&store, marker.repo, encryption, credential)?;
                (Some(opened), Realm::sealed(Arc::new(keys)))
            }
        };
        Ok(Repo::assemble(store, env, marker, realm, opened_by, sizes))
    }
}

/// The newest object of the slot of `credential` that opens, and the key ring that it gives.
fn unlock(
    store: &Store,
    repo: RepoId,
    encryption: &Encryption,
    credential: &Credential,
) -> Result<(OpenedBy, Keyring), RepoError> {
    let parameters = |source| RepoError::Damaged {
        object: Object::Marker.name(),
        source: FormatError::Seal { what: "repository marker", source },
    };
    let unlock = credential.unlock(encryption).map_err(parameters)?;
    let (id, key) = (unlock.slot(repo), unlock.key(repo));
    let mut newest = None;
    // Where keys were never changed, the slot has one object, whose name needs no listing.
    let first = At { repo, slot: id, epoch: Epoch(1) };
    let (objects, mut ahead) = store.beside(
        || slots::listing(store, repo, &slot_prefix(id)).map(|listing| listing.slots),
        || open_slot(store, first, &key),
    );
    let mut objects: Vec<At> = objects?.into_values().flatten().collect();
    if objects.is_empty() {
        // A listing may lag behind, and must not make the right key a wrong one.
        objects.push(first);
    }
    for at in objects {
        let opened = ahead.take_if(|_| at == first);
        match opened.unwrap_or_else(|| open_slot(store, at, &key)) {
            Ok((slot, keys)) => {
                if let Some(error) = newest {
                    tracing::warn!(
                        "the key opens an older object of its slot, of epoch {}, for {error}; `amberfs verify` says whether \
                         anything needs newer keys",
                        at.epoch
                    );
                }
                return Ok((OpenedBy { id, key, slot }, keys));
            }
            // Somebody has just removed it.
            Err(RepoError::Store { source, .. }) if source.class() == Class::NotFound => {}
            Err(error @ RepoError::Damaged { .. }) => {
                newest.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(newest.unwrap_or_else(|| RepoError::WrongKey { store: store.describe(), given: credential.kind() }))
}

fn open_slot(store: &Store, at: At, key: &Secret) -> Result<(Slot, Keyring), RepoError> {
    let name = at.name();
    if !slots::is_plausible(at.epoch) {
        let source = FormatError::Malformed { what: "key slot", why: slots::NO_EPOCH.to_owned() };
        return Err(RepoError::Damaged { object: name, source });
    }
    let bytes = store.get(&name, limits::KEY_SLOT_BYTES_MAX as u64).map_err(|source| match source.class() {
        // Larger than any slot, or no file: as good as altered.
        Class::Corrupt => RepoError::Damaged {
            object: name.clone(),
            source: FormatError::Malformed { what: "key slot", why: source.to_string() },
        },
        _ => RepoError::Store { context: "open a key slot", source },
    })?;
    let slot = Slot::decode(at, key, &bytes).map_err(RepoError::object(&name))?;
    let keys = slot.keyring(at.repo).map_err(RepoError::object(&name))?;
    Ok((slot, keys))
}

impl Repo {
    /// Makes the empty prefix behind `store` a repository in which nothing is encrypted.
    ///
    /// # Errors
    /// [`RepoError::Exists`] when there is one already, [`RepoError::Unsafe`] when the store does not
    /// honour conditional creation, which every commit relies on.
    pub fn init(store: Store, env: Env) -> Result<Arc<Repo>, RepoError> {
        prove(&store, &env)?;
        let marker =
            Marker { repo: RepoId(env.random()), created: env.now(), writer: WRITER.to_owned(), encryption: None };
        create_marker(&store, &marker)?;
        let realm = Realm::from(marker.repo);
        Ok(Repo::assemble(store, env, marker, realm, None, CacheSizes::default()))
    }

    /// Makes the empty prefix behind `store` an encrypted repository that `credential` opens, by a slot named `name`.
    ///
    /// # Errors
    /// As [`Repo::init`].
    pub fn init_encrypted(
        store: Store,
        env: Env,
        credential: &Credential,
        name: &str,
        cost: Cost,
    ) -> Result<Arc<Repo>, RepoError> {
        prove(&store, &env)?;
        let marker = Marker {
            repo: RepoId(env.random()),
            created: Instant::from_nanos(0),
            writer: WRITER.to_owned(),
            encryption: Some(Encryption::new(env.random(), cost)),
        };
        if matches!(Closed::find(store.clone()), Ok(_) | Err(RepoError::Missing { .. })) {
            return Err(RepoError::Exists { store: store.describe() });
        }
        let masters = Masters::first(env.random());
        let slot = masters.full(name, env.now());
        if let Some(encryption) = &marker.encryption {
            let (id, key) = slots::unlock(marker.repo, encryption, credential)?;
            slots::write(&store, At { repo: marker.repo, slot: id, epoch: masters.epoch() }, &key, &masters, &slot)?;
        }
        // From here on the credential may be what opens a repository, unless another one stands there.
        let in_doubt = |error| match error {
            RepoError::Exists { .. } => error,
            error => RepoError::SlotInDoubt { name: name.to_owned(), source: Box::new(error) },
        };
        create_marker(&store, &marker).map_err(in_doubt)?;
        Closed { store, marker }.open(env, CacheSizes::default(), Some(credential)).map_err(in_doubt)
    }

    /// Opens the repository behind `store`, which is not encrypted: one request.
    ///
    /// # Errors
    /// As [`Closed::find`] and [`Closed::open`].
    pub fn open(store: Store, env: Env) -> Result<Arc<Repo>, RepoError> {
        Repo::open_with(store, env, CacheSizes::default())
    }

    /// As [`Repo::open`], with caches of these sizes.
    ///
    /// # Errors
    /// As [`Repo::open`].
    pub fn open_with(store: Store, env: Env, sizes: CacheSizes) -> Result<Arc<Repo>, RepoError> {
        Closed::find(store)?.open(env, sizes, None)
    }

    fn assemble(
        store: Store,
        env: Env,
        marker: Marker,
        realm: Realm,
        opened_by: Option<OpenedBy>,
        sizes: CacheSizes,
    ) -> Arc<Repo> {
        let blocks = store.is_remote().then(|| Blocks::new(store.clone(), store.disk_cache(marker.repo, &env)));
        let fresh_blocks = store.is_remote().then(|| Blocks::new(store.clone(), None));
        let (caches, kept_in) = (Caches::new(sizes), OnceLock::new());
        Arc::new(Repo { store, env, marker, realm, opened_by, kept_in, caches, blocks, fresh_blocks })
    }
}

const WRITER: &str = concat!("amberfs ", env!("CARGO_PKG_VERSION"));

fn prove(store: &Store, env: &Env) -> Result<(), RepoError> {
    match store.probe_anew(env).map_err(RepoError::store("probe the store"))? {
        CreateSupport::Honoured | CreateSupport::Leased => Ok(()),
        CreateSupport::Ignored => Err(RepoError::Unsafe { store: store.describe() }),
    }
}

fn create_marker(store: &Store, marker: &Marker) -> Result<(), RepoError> {
    let created = store.create(&Object::Marker.name(), marker.encode());
    match created.map_err(RepoError::store("create the repository"))? {
        Created::New => {
            store.make_private(&Object::Marker.name());
            Ok(())
        }
        Created::Exists => Err(RepoError::Exists { store: store.describe() }),
    }
}
