//! Stores each chunk once and never lets a published object refer to a missing one.
//!
//! A [`Repo`] is an open repository: its store, its identity and the caches of everything read from
//! it. Writing goes through a [`Session`], which puts frames into packs; reading through a
//! [`Reader`], which follows references from frame to frame. What makes packs *mean* anything is
//! the log above (`chain`): a pack that no commit names is an orphan and invisible.

mod blocks;
mod cache;
mod dedup;
mod error;
mod reader;
mod session;
mod streams;
pub mod tree;

use std::sync::Arc;

pub use blocks::BlockCounts;
pub use dedup::{Dedup, locate_footer, read_footer};
pub use error::RepoError;
pub use reader::{CacheSizes, Reader};
pub use session::{Session, SessionTotals};

use blocks::Blocks;

use crate::base::{Env, limits};
use crate::format::marker::Marker;
use crate::format::object::{LogId, Object, entries_prefix};
use crate::format::{RepoId, SourceId};
use crate::store::{CacheUsage, CreateSupport, Created, DiskCache, Store};

/// An open repository; cheap to share.
#[derive(Debug)]
pub struct Repo {
    store: Store,
    env: Env,
    marker: Marker,
    caches: reader::Caches,
    /// Stored bytes of packs; absent where a store is no journey away.
    blocks: Option<Blocks>,
    /// The same for verification: only what comes from the store now, and nothing of the disk.
    fresh_blocks: Option<Blocks>,
}

impl Repo {
    /// Makes the empty prefix behind `store` a repository.
    ///
    /// # Errors
    /// [`RepoError::Exists`] when there is one already, [`RepoError::Unsafe`] when the store does not
    /// honour conditional creation, which every commit relies on.
    pub fn init(store: Store, env: Env) -> Result<Arc<Repo>, RepoError> {
        match store.probe_anew(&env).map_err(RepoError::store("probe the store"))? {
            CreateSupport::Honoured | CreateSupport::Leased => {}
            CreateSupport::Ignored => return Err(RepoError::Unsafe { store: store.describe() }),
        }
        let marker = Marker {
            repo: RepoId(env.random()),
            created: env.now(),
            writer: concat!("amberfs ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let created =
            store.create(&Object::Marker.name(), marker.encode()).map_err(RepoError::store("create the repository"))?;
        match created {
            Created::New => Ok(Repo::assemble(store, env, marker, CacheSizes::default())),
            Created::Exists => Err(RepoError::Exists { store: store.describe() }),
        }
    }

    /// Opens the repository behind `store`: one request.
    ///
    /// # Errors
    /// [`RepoError::Absent`] when there is none.
    pub fn open(store: Store, env: Env) -> Result<Arc<Repo>, RepoError> {
        Repo::open_with(store, env, CacheSizes::default())
    }

    /// As [`Repo::open`], with caches of these sizes.
    ///
    /// # Errors
    /// As [`Repo::open`].
    pub fn open_with(store: Store, env: Env, sizes: CacheSizes) -> Result<Arc<Repo>, RepoError> {
        let name = Object::Marker.name();
        let bytes = match store.get(&name, limits::LOG_ENTRY_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if crate::base::Classed::class(&error) == crate::base::Class::NotFound => {
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
        Ok(Repo::assemble(store, env, marker, sizes))
    }

    fn assemble(store: Store, env: Env, marker: Marker, sizes: CacheSizes) -> Arc<Repo> {
        let blocks = store.is_remote().then(|| Blocks::new(store.clone(), store.disk_cache(marker.repo, &env)));
        let fresh_blocks = store.is_remote().then(|| Blocks::new(store.clone(), None));
        Arc::new(Repo { store, env, marker, caches: reader::Caches::new(sizes), blocks, fresh_blocks })
    }

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

    /// What this machine's disk keeps of repositories; none where nothing is kept.
    pub fn disk_cache_usage(&self) -> Option<CacheUsage> {
        self.blocks.as_ref()?.disk().map(DiskCache::usage)
    }

    /// How many blocks this process had from the disk, and how many not; none where nothing is kept.
    pub fn disk_cache_hits(&self) -> Option<(u64, u64)> {
        self.blocks.as_ref()?.disk().map(DiskCache::hits)
    }

    /// Reads the frames of `source`.
    pub fn reader(self: &Arc<Repo>, source: SourceId) -> Reader {
        Reader::new(Arc::clone(self), source)
    }
}
