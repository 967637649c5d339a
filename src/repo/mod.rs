//! Stores each chunk once and never lets a published object refer to a missing one.
//!
//! A [`Repo`] is an open repository: its store, its identity and the caches of everything read from
//! it. Writing goes through a [`Session`], which puts frames into packs; reading through a
//! [`Reader`], which follows references from frame to frame. What makes packs *mean* anything is
//! the log above (`chain`): a pack that no commit names is an orphan and invisible.

mod blocks;
mod cache;
mod credential;
mod dedup;
mod error;
mod kept;
pub mod nested;
mod open;
mod reader;
mod removal;
mod rotation;
mod session;
mod slots;
mod streams;
pub mod tree;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

pub use blocks::BlockCounts;
pub use credential::Credential;
pub use dedup::{Dedup, locate_footer, read_footer};
pub use error::RepoError;
pub use open::Closed;
pub use reader::{CacheSizes, Reader};
pub use rotation::Rotation;
pub use session::{Session, SessionTotals};
pub use slots::{Changed, SlotFault, SlotInfo, SlotRole};

use blocks::Blocks;
use open::OpenedBy;

use crate::base::Env;
use crate::format::marker::Marker;
use crate::format::object::Object;
use crate::format::slot::Slot;
use crate::format::{Realm, RepoId, SourceId};
use crate::store::{CacheUsage, CreateSupport, DiskCache, Store};

/// An open repository; cheap to share.
#[derive(Debug)]
pub struct Repo {
    store: Store,
    env: Env,
    marker: Marker,
    realm: Realm,
    /// What it was opened with, if it is encrypted.
    opened_by: Option<OpenedBy>,
    /// Where a host that only captures keeps what it needs of its sessions.
    kept_in: OnceLock<PathBuf>,
    caches: reader::Caches,
    /// Stored bytes of packs; absent where a store is no journey away.
    blocks: Option<Blocks>,
    /// The same for verification: only what comes from the store now, and nothing of the disk.
    fresh_blocks: Option<Blocks>,
}

impl Repo {
    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its clock and dice.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Its identity.
    pub fn id(&self) -> RepoId {
        self.marker.repo
    }

    /// Its identity, and the keys to what it holds.
    pub fn realm(&self) -> &Realm {
        &self.realm
    }

    /// The key slot that it was opened with, if it is encrypted.
    pub fn slot(&self) -> Option<&Slot> {
        self.opened_by.as_ref().map(|opened| &opened.slot)
    }

    /// The object of that slot.
    pub fn own_slot(&self) -> Option<Object> {
        let (opened, keys) = (self.opened_by.as_ref()?, self.realm.keys()?);
        Some(Object::Slot(opened.id, keys.current()))
    }

    /// How it was made.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// Bytes that the caches of data frames and of tree nodes hold now.
    pub fn cached_bytes(&self) -> (usize, usize) {
        self.caches.weights()
    }

    /// Bytes of packs in memory as they are stored; none of a local store.
    pub fn block_bytes(&self) -> usize {
        self.blocks.as_ref().map_or(0, Blocks::weight)
    }

    /// How often stored bytes were at hand; none of a local store.
    pub fn block_counts(&self) -> Option<BlockCounts> {
        self.blocks.as_ref().map(Blocks::counts)
    }

    /// What this machine's disk keeps of repositories, about, and without waiting for it; none where nothing is kept.
    pub fn disk_cache_usage(&self) -> Option<CacheUsage> {
        self.blocks.as_ref()?.disk().map(DiskCache::usage)
    }

    /// The same, added up now, with the hits of all processes so far.
    pub fn disk_cache_measured(&self) -> Option<CacheUsage> {
        self.blocks.as_ref()?.disk().map(DiskCache::measured)
    }

    /// How many blocks this process had from the disk, and how many not; none where nothing is kept.
    pub fn disk_cache_hits(&self) -> Option<(u64, u64)> {
        self.blocks.as_ref()?.disk().map(DiskCache::hits)
    }

    /// Sees that the store honours what new objects rest on, or that this process alone may write to it, before any is
    /// written or removed.
    fn prove_store(&self) -> Result<(), RepoError> {
        match self.store.create_support(&self.env).map_err(RepoError::store("probe the store"))? {
            CreateSupport::Honoured | CreateSupport::Leased => Ok(()),
            CreateSupport::Ignored => Err(RepoError::Unsafe { store: self.store.describe() }),
        }
    }

    /// Reads the frames of `source`.
    pub fn reader(self: &Arc<Repo>, source: SourceId) -> Reader {
        Reader::new(Arc::clone(self), source)
    }
}
