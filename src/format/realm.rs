//! A repository's identity, and the keys to what it holds.

use std::sync::Arc;

use super::ids::{ChunkHash, RepoId};
use super::keyring::Keyring;
use crate::seal::chunker::ChunkerKey;

/// What every object of a repository is bound to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Realm {
    id: RepoId,
    keys: Option<Arc<Keyring>>,
}

impl From<RepoId> for Realm {
    /// A repository in which nothing is encrypted.
    fn from(id: RepoId) -> Realm {
        Realm { id, keys: None }
    }
}

impl From<&Realm> for Realm {
    fn from(realm: &Realm) -> Realm {
        realm.clone()
    }
}

impl Realm {
    /// An encrypted repository.
    pub fn sealed(keys: Arc<Keyring>) -> Realm {
        Realm { id: keys.repo(), keys: Some(keys) }
    }

    /// The repository's identity.
    pub fn id(&self) -> RepoId {
        self.id
    }

    /// The name of a chunk with this content.
    pub fn chunk_hash(&self, content: &[u8]) -> ChunkHash {
        match &self.keys {
            Some(keys) => keys.chunk_hash(content),
            None => ChunkHash(*blake3::hash(content).as_bytes()),
        }
    }

    /// What decides where chunks of large files end; none where everybody may know.
    pub fn cuts(&self) -> Option<&ChunkerKey> {
        self.keys.as_ref().and_then(|keys| keys.cuts())
    }

    /// The keys; none where nothing is encrypted.
    pub fn keys(&self) -> Option<&Arc<Keyring>> {
        self.keys.as_ref()
    }
}
