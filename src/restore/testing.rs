//! Points made by hand for the unit tests of this layer, honest ones and others.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Env, FileTime, Instant};
use crate::format::entry::{Body, Content, Entry, Extent, Meta, Xattr};
use crate::format::frame::{self, FrameKind};
use crate::format::leaf::{Entries, Maps};
use crate::format::log::Roots;
use crate::format::map::{MapExtent, MapPage};
use crate::format::pack::PackedChunk;
use crate::format::{ChainId, ChunkHash, ChunkRef, FileId, Key, LogNumber, Nonce, SessionId, SourceId};
use crate::repo::tree::TreeWriter;
use crate::repo::{Repo, Session};
use crate::store::Store;
use crate::view::PointView;

/// A point under construction.
pub(super) struct Builder {
    pub(super) repo: Arc<Repo>,
    session: Session,
    entries: BTreeMap<Key, Entry>,
    pages: BTreeMap<Key, MapPage>,
    next: u64,
}

/// Metadata that no filesystem would give by itself.
pub(super) fn meta(permissions: u16) -> Meta {
    let time = |seconds| FileTime { seconds, nanos: 123_456_789 };
    Meta {
        permissions,
        uid: crate::base::sys::effective_uid(),
        gid: crate::base::sys::effective_gid(),
        mtime: time(1_000_000_000),
        ctime: time(1_000_000_001),
        atime: time(1_000_000_002),
        links: 1,
        ..Meta::default()
    }
}

pub(super) fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().to_vec(), value: value.to_vec() }
}

impl Builder {
    pub(super) fn new() -> Builder {
        let repo = Repo::init(Store::memory(), Env::system()).unwrap();
        Builder::over(&repo)
    }

    pub(super) fn over(repo: &Arc<Repo>) -> Builder {
        let id = SessionId { base: LogNumber(0), random: Nonce(repo.env().random()) };
        let session = Session::begin(repo, SourceId(1), ChainId(0), id).unwrap();
        let mut entries = BTreeMap::new();
        let root = Body::Directory { id: FileId::ROOT, parent: Key::root() };
        entries.insert(Key::root(), Entry { meta: meta(0o750), xattrs: Vec::new(), body: root });
        Builder { repo: Arc::clone(repo), session, entries, pages: BTreeMap::new(), next: FileId::FIRST.0 }
    }

    pub(super) fn id(&mut self) -> FileId {
        self.next += 1;
        FileId(self.next - 1)
    }

    pub(super) fn entry(&mut self, directory: FileId, name: &[u8], entry: Entry) {
        self.entries.insert(Key::entry(directory, name), entry);
    }

    pub(super) fn put(&mut self, directory: FileId, name: &str, permissions: u16, body: Body) {
        self.entry(directory, name.as_bytes(), Entry { meta: meta(permissions), xattrs: Vec::new(), body });
    }

    /// Changes an entry that is there.
    pub(super) fn change(&mut self, directory: FileId, name: &str, change: impl FnOnce(&mut Entry)) {
        change(self.entries.get_mut(&Key::entry(directory, name.as_bytes())).unwrap());
    }

    pub(super) fn directory(&mut self, parent: FileId, name: &str) -> FileId {
        let id = self.id();
        let key = if parent == FileId::ROOT { Key::root() } else { Key::entry(parent, b"unknown") };
        self.put(parent, name, 0o755, Body::Directory { id, parent: key });
        id
    }

    /// A frame that holds `parts`, as chunks.
    pub(super) fn frame(&mut self, parts: &[&[u8]]) -> Vec<ChunkRef> {
        let raw = parts.concat();
        let mut start = 0;
        let chunks: Vec<PackedChunk> = parts
            .iter()
            .map(|part| {
                let bytes = part.len() as u32;
                start += bytes;
                let hash = ChunkHash(*blake3::hash(part).as_bytes());
                PackedChunk { hash, start: start - bytes, bytes }
            })
            .collect();
        let frame = frame::encode(FrameKind::Data, &raw, chunks.len() as u32);
        let frame = self.session.append(frame, &chunks).unwrap();
        chunks.iter().map(|chunk| ChunkRef { frame, start: chunk.start, bytes: chunk.bytes }).collect()
    }

    /// A regular file of one piece.
    pub(super) fn file(&mut self, directory: FileId, name: &str, content: &[u8]) {
        let entry = self.regular(content);
        self.entry(directory, name.as_bytes(), entry);
    }

    pub(super) fn regular(&mut self, content: &[u8]) -> Entry {
        let chunk = self.frame(&[content])[0];
        self.sparse(content.len() as u64, &[(0, chunk)])
    }

    pub(super) fn sparse(&self, size: u64, extents: &[(u64, ChunkRef)]) -> Entry {
        let extents = extents.iter().map(|(offset, chunk)| Extent { offset: *offset, chunk: *chunk }).collect();
        Entry { meta: Meta { size, ..meta(0o644) }, xattrs: Vec::new(), body: Body::File(Content::Extents(extents)) }
    }

    /// A file whose extents stand in the map tree.
    pub(super) fn mapped(&mut self, size: u64, extents: &[(u64, ChunkRef)]) -> Entry {
        let id = self.id();
        for page in extents.chunks(2) {
            let extents: Vec<MapExtent> = page
                .iter()
                .map(|(offset, chunk)| MapExtent { offset: *offset, chunk: *chunk, hash: [1; 16] })
                .collect();
            self.pages.insert(Key::page(id, page[0].0), MapPage { extents });
        }
        let data_bytes = extents.iter().map(|(_, chunk)| u64::from(chunk.bytes)).sum();
        Entry {
            meta: Meta { size, ..meta(0o644) },
            xattrs: Vec::new(),
            body: Body::File(Content::Mapped { id, data_bytes }),
        }
    }

    /// The names of one inode.
    pub(super) fn hard_links(&mut self, names: &[(FileId, &str)], mut entry: Entry) {
        let id = self.id();
        entry.meta.links = names.len() as u32;
        self.entries.insert(Key::inode(id), entry);
        for (directory, name) in names {
            let link = Entry { meta: Meta::default(), xattrs: Vec::new(), body: Body::Link(id) };
            self.entry(*directory, name.as_bytes(), link);
        }
    }

    pub(super) fn view(self) -> PointView {
        let mut entries = TreeWriter::<Entries>::new(&self.session, None);
        entries.apply(self.entries.into_iter().map(|(key, entry)| (key, Some(entry))).collect()).unwrap();
        let entries = entries.finish().unwrap().unwrap();
        let mut maps = TreeWriter::<Maps>::new(&self.session, None);
        maps.apply(self.pages.into_iter().map(|(key, page)| (key, Some(page))).collect()).unwrap();
        let maps = maps.finish().unwrap();
        self.session.finish().unwrap();
        PointView::new(&self.repo, SourceId(1), &Roots { entries, maps, usage: None })
    }
}

/// A repository whose clock stands still.
pub(super) fn repo_over(store: Store) -> Arc<Repo> {
    Repo::init(store, Env::seeded(1, Instant::from_nanos(0))).unwrap()
}
