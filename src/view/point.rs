//! One point of a tree or stream: names, inodes and contents, straight from its trees.
//!
//! Holds no state: every answer is a descent through cached nodes, so memory does not depend on what
//! has been walked. A hard link's names all lead to one inode record, whose ordinal is the identity.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::format::entry::{Body, Content};
use crate::format::leaf::{Entries, Maps};
use crate::format::log::Roots;
use crate::format::map::MapExtent;
use crate::format::{ChunkRef, EntryOrdinal, FileId, Key, SourceId};
use crate::repo::tree::{Item, Scan, Tree};
use crate::repo::{Reader, Repo, RepoError};
use crate::view::inode::Inode;
use crate::view::namespace::{SeekTo, ViewError, WrongKind};

/// A point, to be walked and read.
#[derive(Debug, Clone)]
pub struct PointView {
    reader: Reader,
    entries: Tree<Entries>,
    maps: Tree<Maps>,
}

/// A directory's items in order.
#[derive(Debug)]
pub struct Listing<'a> {
    view: &'a PointView,
    id: FileId,
    start: u64,
    scan: Scan<Entries>,
}

/// An item of a directory.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: Vec<u8>,
    /// Items of the directory up to and with this one.
    pub next: u64,
    /// The entry of the name itself, among all of the point.
    pub ordinal: EntryOrdinal,
    /// The file, links followed; or why the inode that the name links to cannot be read, which keeps no other name from
    /// being listed.
    pub inode: Result<Inode, ViewError>,
}

fn fault(context: &str, error: RepoError) -> ViewError {
    ViewError::fault(context, error)
}

fn contradiction(what: String) -> ViewError {
    fault("follow the point's trees", RepoError::Inconsistent { what })
}

impl PointView {
    /// The point with these trees.
    pub fn new(repo: &Arc<Repo>, source: SourceId, roots: &Roots) -> PointView {
        let reader = repo.reader(source);
        PointView {
            entries: Tree::new(reader.clone(), Some(roots.entries)),
            maps: Tree::new(reader.clone(), roots.maps),
            reader,
        }
    }

    /// The tree of names and inodes.
    pub fn entries(&self) -> &Tree<Entries> {
        &self.entries
    }

    /// The inode that `item` stands for.
    fn resolve(&self, item: Item<Entries>) -> Result<Inode, ViewError> {
        let Body::Link(id) = item.value().body else { return Ok(Inode::new(item)) };
        match self.entries.get(&Key::inode(id)).map_err(|e| fault("read a hard link's inode", e))? {
            Some(record) if matches!(record.value().body, Body::Link(_)) => {
                Err(contradiction(format!("inode {id} is a link")))
            }
            Some(record) => Ok(Inode::new(record)),
            None => Err(contradiction(format!("hard link {:?} has no inode {id}", item.key()))),
        }
    }

    /// The root directory (of a stream: the directory that holds its one file).
    ///
    /// # Errors
    /// [`ViewError::Fault`]: a point without a root is damaged, not empty.
    pub fn root(&self) -> Result<Inode, ViewError> {
        match self.entries.get(&Key::root()).map_err(|e| fault("read the root directory", e))? {
            Some(item) => Ok(Inode::new(item)),
            None => Err(contradiction("a point has no root directory".to_owned())),
        }
    }

    /// The file with this ordinal.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] when there is none.
    pub fn inode(&self, ordinal: EntryOrdinal) -> Result<Inode, ViewError> {
        match self.entries.at(ordinal.0).map_err(|e| fault(&format!("read entry {}", ordinal.0), e))? {
            Some(item) => self.resolve(item),
            None => Err(ViewError::NotFound),
        }
    }

    /// The file `name` in `dir`.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] when the directory has no such name.
    pub fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Inode, ViewError> {
        let id = directory(dir)?;
        match self.entries.get(&Key::entry(id, name)).map_err(|e| fault("look up a name", e))? {
            Some(item) => self.resolve(item),
            None => Err(ViewError::NotFound),
        }
    }

    /// The file at `path`, names from the root down. Symbolic links are not followed.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] when a name on the way does not exist.
    pub fn walk<'a>(&self, path: impl IntoIterator<Item = &'a [u8]>) -> Result<Inode, ViewError> {
        path.into_iter().try_fold(self.root()?, |inode, name| self.lookup(&inode, name))
    }

    /// The items of `dir` behind the first `skip`.
    ///
    /// # Errors
    /// [`ViewError`] when it is no directory or cannot be read.
    pub fn list(&self, dir: &Inode, skip: u64) -> Result<Listing<'_>, ViewError> {
        let id = directory(dir)?;
        let start = self.entries.rank(&Key::entry(id, b"")).map_err(|e| fault("list a directory", e))?;
        let scan = self.entries.scan(start.saturating_add(skip)).before(Key::after(id));
        Ok(Listing { view: self, id, start, scan })
    }

    /// The directory that holds the directory `dir`; of the root, itself.
    ///
    /// # Errors
    /// [`ViewError`] when it is no directory or cannot be read.
    pub fn parent(&self, dir: &Inode) -> Result<Inode, ViewError> {
        let Body::Directory { parent, .. } = &dir.entry().body else {
            return Err(ViewError::WrongKind(WrongKind::NotDirectory));
        };
        match self.entries.get(parent).map_err(|e| fault("read a parent directory", e))? {
            Some(item) => self.resolve(item),
            None => Err(contradiction(format!("parent {parent:?} does not exist"))),
        }
    }

    /// Up to `bytes` bytes of `file` from `offset`; fewer only at its end.
    ///
    /// # Errors
    /// [`ViewError::Fault`] when a byte of the range cannot be had: never zeros instead.
    pub fn read(&self, file: &Inode, offset: u64, bytes: usize) -> Result<Bytes, ViewError> {
        let content = content(file)?;
        let size = file.entry().meta.size;
        let end = size.min(offset.saturating_add(bytes as u64));
        let Some(length) = end.checked_sub(offset).and_then(|n| usize::try_from(n).ok()) else {
            return Ok(Bytes::new());
        };
        if let Content::Inline(inline) = content {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let part = inline.get(start..start.saturating_add(length));
            let short = || contradiction(format!("{} bytes stand for a file of {size}", inline.len()));
            return part.map(Bytes::copy_from_slice).ok_or_else(short);
        }
        self.expect(content, offset..end)?;
        let mut read = Gathered { whole: None, parts: Vec::new(), length };
        self.extents::<ViewError>(content, offset, |at, chunk| {
            if at >= end {
                return Ok(false);
            }
            let skip = offset.saturating_sub(at);
            let into = usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
            let frame = self.frame(chunk)?;
            let from = chunk.start as usize + usize::try_from(skip).unwrap_or(usize::MAX);
            let upto = chunk.start as usize + chunk.bytes as usize;
            // A chunk that its frame does not hold must never become zeros.
            let outside = || contradiction(format!("a chunk of bytes {from} to {upto} is not in its frame"));
            if from > upto || upto > frame.len() {
                return Err(outside());
            }
            read.put(into, frame.slice(from..upto));
            // The page behind may be another leaf, which this range does not need.
            Ok(at.saturating_add(u64::from(chunk.bytes)) < end)
        })?;
        Ok(read.finish())
    }

    /// Has the frames of `range` fetched together where that saves journeys.
    fn expect(&self, content: &Content, range: Range<u64>) -> Result<(), ViewError> {
        if !self.reader.repo().store().is_remote() {
            return Ok(());
        }
        let mut frames = Vec::new();
        self.extents::<ViewError>(content, range.start, |at, chunk| {
            if at < range.end && frames.last() != Some(&chunk.frame) {
                frames.push(chunk.frame);
            }
            Ok(at.saturating_add(u64::from(chunk.bytes)) < range.end)
        })?;
        self.reader.expect(frames.iter());
        Ok(())
    }

    /// The first offset of data or hole at or behind `offset` in `file`.
    ///
    /// # Errors
    /// [`ViewError::NoSuchOffset`] as `lseek` has it: past the end, or no data behind.
    pub fn seek(&self, file: &Inode, offset: u64, to: SeekTo) -> Result<u64, ViewError> {
        let content = content(file)?;
        let size = file.entry().meta.size;
        if offset >= size {
            return Err(ViewError::NoSuchOffset);
        }
        if let Content::Inline(_) = content {
            return Ok(match to {
                SeekTo::Data => offset,
                SeekTo::Hole => size,
            });
        }
        let mut found = None;
        let mut at = offset;
        self.extents::<ViewError>(content, offset, |start, chunk| match to {
            SeekTo::Data => {
                found = Some(start.max(offset));
                Ok(false)
            }
            SeekTo::Hole if start > at => {
                found = Some(at);
                Ok(false)
            }
            SeekTo::Hole => {
                at = start + u64::from(chunk.bytes);
                Ok(true)
            }
        })?;
        match (found, to) {
            (Some(found), _) => Ok(found),
            (None, SeekTo::Hole) => Ok(at.min(size)),
            (None, SeekTo::Data) => Err(ViewError::NoSuchOffset),
        }
    }

    /// Hands over the extents of `file` in order, until `take` returns false: where each begins and the chunk that
    /// holds it. Small contents that stand in the entry itself have none.
    ///
    /// # Errors
    /// [`ViewError`] when its map cannot be read, and those of `take`.
    pub fn each_chunk<E: From<ViewError>>(
        &self,
        file: &Inode,
        take: impl FnMut(u64, &ChunkRef) -> Result<bool, E>,
    ) -> Result<(), E> {
        self.extents(content(file)?, 0, take)
    }

    /// As [`PointView::each_chunk`], from the extent on that ends behind `offset`.
    ///
    /// # Errors
    /// As [`PointView::each_chunk`].
    pub fn each_chunk_from<E: From<ViewError>>(
        &self,
        file: &Inode,
        offset: u64,
        take: impl FnMut(u64, &ChunkRef) -> Result<bool, E>,
    ) -> Result<(), E> {
        self.extents(content(file)?, offset, take)
    }

    /// The frame that holds a chunk, decoded.
    ///
    /// # Errors
    /// [`ViewError::Fault`] when it cannot be had.
    pub fn frame(&self, chunk: &ChunkRef) -> Result<Bytes, ViewError> {
        self.reader.data(&chunk.frame).map_err(|e| fault("read file content", e))
    }

    /// The repository and source that it belongs to.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Hands over the extents that end behind `offset`, in order, until `take` returns false.
    fn extents<E: From<ViewError>>(
        &self,
        content: &Content,
        offset: u64,
        mut take: impl FnMut(u64, &ChunkRef) -> Result<bool, E>,
    ) -> Result<(), E> {
        match content {
            Content::Hole | Content::Inline(_) => Ok(()),
            Content::Extents(extents) => {
                for extent in extents.iter().filter(|e| e.offset + u64::from(e.chunk.bytes) > offset) {
                    if !take(extent.offset, &extent.chunk)? {
                        break;
                    }
                }
                Ok(())
            }
            Content::Mapped { id, .. } => self.mapped(*id, offset, |extent| take(extent.offset, &extent.chunk)),
        }
    }

    /// Hands over the extents of a chunk map that end behind `offset`, in order, until `take` returns false.
    fn mapped<E: From<ViewError>>(
        &self,
        id: FileId,
        offset: u64,
        mut take: impl FnMut(&MapExtent) -> Result<bool, E>,
    ) -> Result<(), E> {
        let reading = |e| fault("read a chunk map", e);
        let first = match self.maps.floor(&Key::page(id, offset)).map_err(reading)? {
            Some(item) => item.rank(),
            None => 0,
        };
        for item in self.maps.scan(first).before(Key::after(id)) {
            let item = item.map_err(reading)?;
            let (file, _) = item.key().split_page().map_err(ViewError::from)?;
            if file < id {
                continue;
            }
            if file > id {
                break;
            }
            let extents = &item.value().extents;
            let from = extents.partition_point(|e| e.offset + u64::from(e.chunk.bytes) <= offset);
            for extent in extents.get(from..).unwrap_or_default() {
                if !take(extent)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Hands over the extents of `file`'s chunk map in order, with hashes, until `take` returns false. Contents without a
    /// chunk map have none.
    ///
    /// # Errors
    /// As [`PointView::each_chunk`].
    pub fn each_mapped<E: From<ViewError>>(
        &self,
        file: &Inode,
        take: impl FnMut(&MapExtent) -> Result<bool, E>,
    ) -> Result<(), E> {
        match content(file)? {
            Content::Mapped { id, .. } => self.mapped(*id, 0, take),
            Content::Hole | Content::Inline(_) | Content::Extents(_) => Ok(()),
        }
    }

    /// All extents of `file` in order, with the chunks that hold them.
    ///
    /// # Errors
    /// [`ViewError`] when its map cannot be read.
    pub fn chunks(&self, file: &Inode) -> Result<Vec<(u64, ChunkRef)>, ViewError> {
        let mut chunks = Vec::new();
        self.extents::<ViewError>(content(file)?, 0, |at, chunk| {
            chunks.push((at, *chunk));
            Ok(true)
        })?;
        Ok(chunks)
    }
}

/// What one read has found so far: parts of frames in ascending order, and zeros between them. A read that one frame
/// answers shares its bytes.
struct Gathered {
    whole: Option<Bytes>,
    parts: Vec<u8>,
    length: usize,
}

impl Gathered {
    fn put(&mut self, at: usize, part: Bytes) {
        let part = part.slice(..part.len().min(self.length.saturating_sub(at)));
        if part.len() == self.length {
            self.whole = Some(part);
            return;
        }
        if self.parts.capacity() == 0 {
            self.parts.reserve_exact(self.length);
        }
        self.parts.resize(at.max(self.parts.len()), 0);
        self.parts.extend_from_slice(&part);
    }

    fn finish(mut self) -> Bytes {
        match self.whole {
            Some(whole) => whole,
            // A hole: zeros that nobody has to write, and without the pages to hold them where the piece is a large one.
            None if self.parts.is_empty() => vec![0; self.length].into(),
            None => {
                self.parts.resize(self.length, 0);
                self.parts.into()
            }
        }
    }
}

fn directory(inode: &Inode) -> Result<FileId, ViewError> {
    match inode.entry().body {
        Body::Directory { id, .. } => Ok(id),
        _ => Err(ViewError::WrongKind(WrongKind::NotDirectory)),
    }
}

fn content(inode: &Inode) -> Result<&Content, ViewError> {
    match &inode.entry().body {
        Body::File(content) => Ok(content),
        Body::Directory { .. } => Err(ViewError::WrongKind(WrongKind::IsDirectory)),
        _ => Err(ViewError::WrongKind(WrongKind::NotRegular)),
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<Listed, ViewError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = match self.scan.next()? {
            Ok(item) => item,
            Err(error) => return Some(Err(fault("list a directory", error))),
        };
        let name = match item.key().split() {
            Ok((id, name)) if id == self.id => name.to_vec(),
            Ok(_) => return None,
            Err(error) => return Some(Err(error.into())),
        };
        let (next, ordinal) = (item.rank() + 1 - self.start, EntryOrdinal(item.rank()));
        Some(Ok(Listed { name, next, ordinal, inode: self.view.resolve(item) }))
    }
}
