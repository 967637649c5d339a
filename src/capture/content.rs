//! Gathers the chunks of one file into what its entry says of them: a few extents, or pages in the map tree.
//!
//! Pages of a file that is cut at fixed offsets begin at fixed offsets too, so that a page on which
//! nothing changed is the very page of the parent, and its leaf is shared. While pages are made they are
//! compared with the parent's, in order and one at a time: memory does not depend on the file's size.

use std::iter::Peekable;
use std::ops::Range;

use crate::base::limits;
use crate::format::entry::{Content, Extent};
use crate::format::leaf::Maps;
use crate::format::map::{MapExtent, MapPage};
use crate::format::{ChunkRef, FileId, Key};
use crate::repo::RepoError;
use crate::repo::tree::{Scan, Tree};

use super::unit::BeginJob;

/// Where the difference between a file's pages and the parent's goes.
pub(super) trait PageSink {
    /// A page that was not there, or was another.
    fn put(&mut self, key: Key, old: Option<&MapPage>, new: MapPage) -> Result<(), RepoError>;
    /// A page that is there no more.
    fn remove(&mut self, key: Key, old: &MapPage) -> Result<(), RepoError>;
}

/// The pages that the parent keeps of a file, in order.
pub(super) struct OldPages {
    file: FileId,
    scan: Option<Peekable<Scan<Maps>>>,
}

impl OldPages {
    /// None.
    fn none() -> OldPages {
        OldPages { file: FileId::TOP, scan: None }
    }

    /// Of `file` in the parent's `maps`.
    pub(super) fn of(maps: &Tree<Maps>, file: FileId) -> Result<OldPages, RepoError> {
        let scan = maps.scan_from(&Key::page(file, 0))?;
        Ok(OldPages { file, scan: Some(scan.peekable()) })
    }

    /// The next page that begins before `bound`, or at all.
    pub(super) fn next_below(&mut self, bound: Option<&Key>) -> Result<Option<(Key, MapPage)>, RepoError> {
        let Some(scan) = &mut self.scan else { return Ok(None) };
        let file = self.file;
        let fits =
            |key: &Key| key.split_page().is_ok_and(|(of, _)| of == file) && bound.is_none_or(|bound| key < bound);
        match scan.next_if(|item| item.as_ref().map_or(true, |item| fits(item.key()))) {
            None => Ok(None),
            Some(item) => {
                let item = item?;
                Ok(Some((item.key().clone(), item.value().clone())))
            }
        }
    }

    /// The page under `key`, if it is the next one.
    fn next_at(&mut self, key: &Key) -> Result<Option<MapPage>, RepoError> {
        let Some(scan) = &mut self.scan else { return Ok(None) };
        match scan.next_if(|item| item.as_ref().map_or(true, |item| item.key() == key)) {
            None => Ok(None),
            Some(item) => Ok(Some(item?.value().clone())),
        }
    }
}

/// A file whose chunks are being gathered.
pub(super) struct OpenContent {
    begin: BeginJob,
    old: OldPages,
    /// All extents so far, while an entry could hold them; then those of the page under way.
    extents: Vec<MapExtent>,
    paged: bool,
    last_window: Option<u64>,
    data_bytes: u64,
    end: u64,
    /// Where each page begins.
    pages: Vec<u64>,
    differs: bool,
}

/// The content of a file whose chunks have been gathered.
pub(super) struct Gathered {
    /// What its entry says.
    pub(super) content: Content,
    /// Keys of its pages.
    pub(super) pages: Vec<Key>,
    /// Whether a page was written or removed.
    pub(super) differs: bool,
}

impl OpenContent {
    /// A file without chunks so far; `maps` is the parent's map tree.
    pub(super) fn new(begin: BeginJob, maps: &Tree<Maps>) -> Result<OpenContent, RepoError> {
        let old = if begin.mapped { OldPages::of(maps, begin.map)? } else { OldPages::none() };
        Ok(OpenContent {
            begin,
            old,
            extents: Vec::new(),
            // Of a disk, hashes are wanted of the first cell on.
            paged: begin.grid.is_some_and(|grid| grid.whole),
            last_window: None,
            data_bytes: 0,
            end: 0,
            pages: Vec::new(),
            differs: false,
        })
    }

    /// The first byte behind the last extent.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds the next extent.
    pub(super) fn push(&mut self, extent: MapExtent, sink: &mut impl PageSink) -> Result<(), RepoError> {
        self.data_bytes += u64::from(extent.chunk.bytes);
        self.end = extent.offset + u64::from(extent.chunk.bytes);
        if !self.paged && self.extents.len() == limits::ENTRY_EXTENTS_MAX {
            self.paged = true;
            for early in std::mem::take(&mut self.extents) {
                self.push_paged(early, sink)?;
            }
        }
        if self.paged {
            self.push_paged(extent, sink)
        } else {
            self.extents.push(extent);
            Ok(())
        }
    }

    fn push_paged(&mut self, extent: MapExtent, sink: &mut impl PageSink) -> Result<(), RepoError> {
        let full = self.extents.len() == limits::MAP_PAGE_EXTENTS;
        let other_window =
            self.extents.first().is_some_and(|first| self.window(first.offset) != self.window(extent.offset));
        if full || other_window {
            self.close_page(sink)?;
        }
        self.extents.push(extent);
        Ok(())
    }

    /// The part of a file cut at fixed offsets that the page of `offset` covers.
    fn window(&self, offset: u64) -> Option<Range<u64>> {
        let bytes = self.begin.grid?.cell * limits::MAP_PAGE_EXTENTS as u64;
        let start = offset / bytes * bytes;
        Some(start..start + bytes)
    }

    fn close_page(&mut self, sink: &mut impl PageSink) -> Result<(), RepoError> {
        let extents = std::mem::take(&mut self.extents);
        let Some(first) = extents.first().map(|extent| extent.offset) else { return Ok(()) };
        // The first page of a window begins where the window does, so that its key does not depend on
        // holes; holes may also cut a window to more pieces than fit, and then further pages follow.
        let start = match self.window(first) {
            Some(window) if self.last_window.replace(window.start) != Some(window.start) => window.start,
            _ => first,
        };
        let key = Key::page(self.begin.map, start);
        self.pages.push(start);
        let new = MapPage { extents };
        while let Some((key, gone)) = self.old.next_below(Some(&key))? {
            self.differs = true;
            sink.remove(key, &gone)?;
        }
        match self.old.next_at(&key)? {
            Some(old) if old == new => Ok(()),
            old => {
                self.differs = true;
                sink.put(key, old.as_ref(), new)
            }
        }
    }

    /// All of it; no chunk follows.
    pub(super) fn finish(mut self, sink: &mut impl PageSink) -> Result<Gathered, RepoError> {
        if self.paged {
            self.close_page(sink)?;
        }
        let content = if !self.pages.is_empty() {
            Content::Mapped { id: self.begin.map, data_bytes: self.data_bytes }
        } else if self.extents.is_empty() {
            Content::Hole
        } else {
            let extents = self.extents.iter().map(|extent| Extent { offset: extent.offset, chunk: extent.chunk });
            Content::Extents(extents.collect())
        };
        while let Some((key, gone)) = self.old.next_below(None)? {
            self.differs = true;
            sink.remove(key, &gone)?;
        }
        let pages = self.pages.iter().map(|start| Key::page(self.begin.map, *start)).collect();
        Ok(Gathered { content, pages, differs: self.differs })
    }
}

/// The extent of `chunk` at `offset`, with the part of its identity that pages keep.
pub(super) fn map_extent(offset: u64, chunk: ChunkRef, hash: &crate::format::ChunkHash) -> MapExtent {
    let mut short = [0u8; 16];
    for (to, from) in short.iter_mut().zip(hash.0) {
        *to = from;
    }
    MapExtent { offset, chunk, hash: short }
}
