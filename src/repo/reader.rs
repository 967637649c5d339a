//! Follows references to frames: from cache, or by one ranged read, checked before it is believed.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::blocks::Blocks;
use super::cache::Cache;
use super::session::Unfinished;
use super::streams::Pattern;
use super::{Repo, RepoError};
use crate::base::{Class, Classed, limits};
use crate::format::frame::{self, FrameKind};
use crate::format::log::NodeRef;
use crate::format::node::{Child, Node, TreeKind};
use crate::format::object::{Object, ObjectName};
use crate::format::sealed::{self, PackKeys};
use crate::format::{FrameRef, PackId, SourceId};

/// How much a repository's readers may keep in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSizes {
    /// Bytes of decoded data frames.
    pub frames: usize,
    /// Bytes of decoded tree nodes, kept apart so that bulk reads do not evict metadata.
    pub nodes: usize,
}

impl Default for CacheSizes {
    fn default() -> CacheSizes {
        CacheSizes { frames: limits::FRAME_CACHE_BYTES, nodes: limits::NODE_CACHE_BYTES }
    }
}

type NodeValue = Arc<dyn Any + Send + Sync>;

/// The caches that all readers of a repository share.
#[derive(Debug)]
pub(super) struct Caches {
    frames: Cache<(SourceId, FrameRef), Bytes>,
    nodes: Cache<(SourceId, FrameRef), NodeValue>,
}

impl Caches {
    pub(super) fn new(sizes: CacheSizes) -> Caches {
        Caches { frames: Cache::new(sizes.frames), nodes: Cache::new(sizes.nodes) }
    }

    pub(super) fn weights(&self) -> (usize, usize) {
        (self.frames.weight(), self.nodes.weight())
    }
}

/// Reads the frames of one source; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    repo: Arc<Repo>,
    source: SourceId,
    /// A writer also sees what its own session has not put into the store yet.
    unfinished: Option<Arc<Unfinished>>,
}

impl Reader {
    pub(super) fn new(repo: Arc<Repo>, source: SourceId) -> Reader {
        Reader { repo, source, unfinished: None }
    }

    pub(super) fn with_unfinished(self, unfinished: Arc<Unfinished>) -> Reader {
        Reader { unfinished: Some(unfinished), ..self }
    }

    /// The repository.
    pub fn repo(&self) -> &Arc<Repo> {
        &self.repo
    }

    /// The source.
    pub fn source(&self) -> SourceId {
        self.source
    }

    /// The decoded data frame behind `pointer`.
    ///
    /// # Errors
    /// [`RepoError`] naming the pack; a missing pack is damage, not absence.
    pub fn data(&self, pointer: &FrameRef) -> Result<Bytes, RepoError> {
        self.repo.caches.frames.get_or(&(self.source, *pointer), || {
            let raw = self.load(pointer, FrameKind::Data)?;
            let weight = raw.len();
            Ok((raw, weight))
        })
    }

    /// The decoded node behind `pointer`.
    ///
    /// # Errors
    /// As [`Reader::data`].
    pub fn node<K: TreeKind>(&self, pointer: &NodeRef) -> Result<Arc<Node<K>>, RepoError> {
        let value = self.repo.caches.nodes.get_or(&(self.source, pointer.frame), || {
            let node: Arc<Node<K>> = Arc::new(self.fresh_node(pointer)?);
            let weight = match &*node {
                Node::Leaf(items) => items.iter().map(|(key, value)| K::held(key, value)).sum(),
                Node::Inner(children) => children.iter().map(Child::held).sum(),
            };
            Ok((node as NodeValue, weight))
        })?;
        match value.downcast::<Node<K>>() {
            Ok(node) => Ok(node),
            // One frame cannot be a node of two kinds: its header says which, so decoding tells.
            Err(_) => self.fresh_node(pointer).map(Arc::new),
        }
    }

    fn fresh_node<K: TreeKind>(&self, pointer: &NodeRef) -> Result<Node<K>, RepoError> {
        let payload = self.load(&pointer.frame, K::FRAME)?;
        let object = Object::Pack(self.source, pointer.frame.pack).name();
        Node::decode(&payload, pointer).map_err(RepoError::object(&object))
    }

    /// Has these data frames fetched at the same time, as far as they are not at hand: for whoever will read them next. Does
    /// not wait, and does nothing where a store is no journey away.
    pub fn expect<'f>(&self, frames: impl Iterator<Item = &'f FrameRef>) {
        let Some(blocks) = &self.repo.blocks else { return };
        let mut packs: BTreeMap<PackId, Vec<Range<u64>>> = BTreeMap::new();
        for frame in frames.filter(|frame| !self.repo.caches.frames.has(&(self.source, **frame))) {
            packs.entry(frame.pack).or_default().push(stored(frame));
        }
        // A single frame is fetched by whoever reads it.
        if packs.values().map(Vec::len).sum::<usize>() > 1 {
            packs.into_iter().for_each(|(pack, ranges)| blocks.expect((self.source, pack), ranges));
        }
    }

    /// The decoded frame behind `pointer`, past all caches: for verification. Over a network its bytes may have come ahead
    /// of this, for verification as well.
    ///
    /// # Errors
    /// As [`Reader::data`].
    pub fn fetch(&self, pointer: &FrameRef, kind: FrameKind) -> Result<Bytes, RepoError> {
        self.through(self.repo.fresh_blocks.as_ref(), pointer, kind)
    }

    /// As [`Reader::fetch`], by way of what was fetched before and with what will be wanted next.
    fn load(&self, pointer: &FrameRef, kind: FrameKind) -> Result<Bytes, RepoError> {
        self.through(self.repo.blocks.as_ref(), pointer, kind)
    }

    fn through(&self, blocks: Option<&Blocks>, pointer: &FrameRef, kind: FrameKind) -> Result<Bytes, RepoError> {
        let straight = || {
            self.decoded(pointer, kind, |object| {
                let read = self.repo.store.get_range(object, stored(pointer));
                let read = read.map_err(|source| RepoError::reading(object, source))?;
                // What came over a network may be a part of something larger, which a frame that is kept must not hold.
                Ok(if self.repo.store.is_remote() { Bytes::copy_from_slice(&read) } else { read })
            })
        };
        let Some(blocks) = blocks else { return straight() };
        let pattern = match kind {
            FrameKind::Data => Pattern::Data,
            FrameKind::Entries
            | FrameKind::Maps
            | FrameKind::Usage
            | FrameKind::Problems
            | FrameKind::Footer
            | FrameKind::Padding => Pattern::Nodes,
        };
        let pack = (self.source, pointer.pack);
        let loaded = self.decoded(pointer, kind, |object| {
            blocks.read(pack, &stored(pointer), pattern).map_err(|source| RepoError::reading(object, source))
        });
        match loaded {
            // What was kept may be wrong; what the store says decides.
            Err(error) if error.class() == Class::Corrupt => {
                blocks.forget(pack, &stored(pointer));
                straight()
            }
            loaded => loaded,
        }
    }

    /// The frame in the bytes that `read` yields, checked: the only place where bytes become a frame.
    fn decoded(
        &self,
        pointer: &FrameRef,
        kind: FrameKind,
        read: impl FnOnce(&ObjectName) -> Result<Bytes, RepoError>,
    ) -> Result<Bytes, RepoError> {
        let object = Object::Pack(self.source, pointer.pack).name();
        let stored_bytes = pointer.stored_bytes as usize;
        if pointer.raw_bytes as usize > kind.raw_bytes_max() || stored_bytes > limits::FRAME_STORED_BYTES_MAX {
            let error = crate::format::FormatError::TooLarge {
                what: "frame",
                size: u64::from(pointer.raw_bytes),
                limit: kind.raw_bytes_max() as u64,
            };
            return Err(RepoError::Damaged { object, source: error });
        }
        let bytes = match self.unfinished.as_ref().and_then(|unfinished| unfinished.get(pointer)) {
            Some(bytes) => Bytes::from(bytes),
            None => read(&object)?,
        };
        self.decode(&object, bytes, pointer, kind)
    }

    /// What the stored bytes of a frame hold.
    fn decode(
        &self,
        object: &ObjectName,
        bytes: Bytes,
        pointer: &FrameRef,
        kind: FrameKind,
    ) -> Result<Bytes, RepoError> {
        let decoded = match self.pack_keys(pointer.pack)? {
            Some(keys) => keys.decode(bytes, pointer, kind),
            None => frame::decode(&bytes, pointer, kind),
        };
        decoded.map_err(RepoError::object(object))
    }

    /// The keys of a pack; none where nothing is encrypted. A session of which no log tells is asked of the pack itself.
    ///
    /// # Errors
    /// [`RepoError`] when there are none at hand.
    pub fn pack_keys(&self, pack: PackId) -> Result<Option<Arc<PackKeys>>, RepoError> {
        let Some(keys) = self.repo.realm.keys() else { return Ok(None) };
        let object = Object::Pack(self.source, pack).name();
        if !keys.knows(self.source, pack.session) {
            let header = self.repo.store.get_range(&object, 0..sealed::HEADER_BYTES as u64);
            let header = header.map_err(|source| RepoError::reading(&object, source))?;
            keys.learn_of_pack(
                self.source,
                pack.session,
                sealed::seal_of(&header).map_err(RepoError::object(&object))?,
            );
        }
        keys.pack(self.source, pack).map(Some).map_err(RepoError::object(&object))
    }
}

/// Where the frame's bytes are in its pack.
fn stored(pointer: &FrameRef) -> Range<u64> {
    let bytes = frame::HEADER_BYTES as u64 + u64::from(pointer.stored_bytes);
    pointer.offset..pointer.offset.saturating_add(bytes)
}
