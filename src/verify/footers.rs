//! Holds references against the footers of the packs that they lead into.
//!
//! References come in storage order, so few footers are looked at at a time: a bounded number of bytes
//! of them is kept, and one that was dropped is read again when it is needed again. Where a pack has no
//! footer, or one that does not list the frame, the frame itself is read: damage to a footer alone must
//! not make files look lost, nor hide that they are.

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;

use super::VerifyError;
use super::findings::{Findings, diagnose};
use super::report::Harm;
use crate::format::frame::FrameKind;
use crate::format::object::{Object, ObjectName};
use crate::format::pack::Footer;
use crate::format::{ChunkRef, FrameHash, FrameRef, PackId, frame};
use crate::repo::{Reader, read_footer};

/// Bytes of footers that are kept.
const TABLE_BYTES_MAX: usize = 64 << 20;

/// What references are held against: a footer without what they do not say.
#[derive(Debug)]
struct Table {
    frames: Vec<Frame>,
    chunks: Vec<Chunk>,
}

#[derive(Debug)]
struct Frame {
    kind: FrameKind,
    offset: u64,
    stored_bytes: u32,
    raw_bytes: u32,
    hash: FrameHash,
    /// Where its chunks begin in the table.
    chunks: usize,
}

#[derive(Debug)]
struct Chunk {
    start: u32,
    bytes: u32,
    hash: [u8; 16],
}

impl Table {
    fn of(footer: &Footer) -> Table {
        let mut table = Table { frames: Vec::with_capacity(footer.frames.len()), chunks: Vec::new() };
        for packed in &footer.frames {
            table.frames.push(Frame {
                kind: packed.kind,
                offset: packed.offset,
                stored_bytes: packed.stored_bytes,
                raw_bytes: packed.raw_bytes,
                hash: frame::short_hash(&packed.hash),
                chunks: table.chunks.len(),
            });
            table.chunks.extend(packed.chunks.iter().map(|chunk| Chunk {
                start: chunk.start,
                bytes: chunk.bytes,
                hash: frame::short_hash(&chunk.hash.0).0,
            }));
        }
        table
    }

    fn weight(&self) -> usize {
        self.frames.len() * size_of::<Frame>() + self.chunks.len() * size_of::<Chunk>()
    }

    fn lists(&self, pointer: &FrameRef, kind: FrameKind) -> Option<usize> {
        let index = pointer.ordinal.0 as usize;
        let frame = self.frames.get(index)?;
        let same = frame.kind == kind
            && frame.offset == pointer.offset
            && frame.stored_bytes == pointer.stored_bytes
            && frame.raw_bytes == pointer.raw_bytes
            && frame.hash == pointer.hash;
        same.then_some(index)
    }

    fn has_chunk(&self, index: usize, chunk: &ChunkRef, hash: Option<&[u8; 16]>) -> bool {
        let end = self.frames.get(index + 1).map_or(self.chunks.len(), |next| next.chunks);
        let begin = self.frames.get(index).map_or(end, |frame| frame.chunks);
        let chunks = self.chunks.get(begin..end).unwrap_or_default();
        chunks.iter().any(|known| {
            known.start == chunk.start && known.bytes == chunk.bytes && hash.is_none_or(|h| *h == known.hash)
        })
    }
}

/// The footers of a source's packs.
#[derive(Debug)]
pub(super) struct Footers<'a> {
    reader: Reader,
    findings: &'a Findings<'a>,
    tables: LruCache<PackId, Option<Arc<Table>>>,
    weight: usize,
    /// Frames that were read because no footer speaks for them.
    read: HashMap<FrameRef, bool>,
}

impl<'a> Footers<'a> {
    pub(super) fn new(reader: Reader, findings: &'a Findings<'a>) -> Footers<'a> {
        Footers { reader, findings, tables: LruCache::unbounded(), weight: 0, read: HashMap::new() }
    }

    /// Whether the chunk can be had, and is where its pack's footer has it; `hash` is what a map says of it.
    pub(super) fn has_chunk(&mut self, chunk: &ChunkRef, hash: Option<&[u8; 16]>) -> Result<bool, VerifyError> {
        let table = self.table(chunk.frame.pack)?;
        let readable = self.has_frame_in(table.as_deref(), &chunk.frame, FrameKind::Data)?;
        if let Some(table) = &table
            && let Some(index) = table.lists(&chunk.frame, FrameKind::Data)
            && !table.has_chunk(index, chunk, hash)
        {
            let what =
                format!("a file refers to bytes {}+{} of this frame, which are no chunk", chunk.start, chunk.bytes);
            self.findings.note(&self.object(chunk.frame.pack), Harm::Contradiction, Some(chunk.frame.offset), what);
        }
        Ok(readable)
    }

    /// Notes it when a pack's footer does not list a frame that has been read.
    pub(super) fn expect_listed(&mut self, pointer: &FrameRef, kind: FrameKind) -> Result<(), VerifyError> {
        if let Some(table) = self.table(pointer.pack)?
            && table.lists(pointer, kind).is_none()
        {
            self.note_unlisted(pointer);
        }
        Ok(())
    }

    fn has_frame_in(
        &mut self,
        table: Option<&Table>,
        pointer: &FrameRef,
        kind: FrameKind,
    ) -> Result<bool, VerifyError> {
        if self.findings.is_lost(self.reader.source(), pointer.pack, pointer.ordinal) {
            return Ok(false);
        }
        if let Some(table) = table {
            if table.lists(pointer, kind).is_some() {
                return Ok(true);
            }
            self.note_unlisted(pointer);
        }
        if let Some(readable) = self.read.get(pointer) {
            return Ok(*readable);
        }
        let readable = match self.reader.fetch(pointer, kind) {
            Ok(_) => true,
            Err(error) => {
                self.findings.note_error(&self.object(pointer.pack), Some(pointer.offset), error)?;
                self.findings.lose_frame(self.reader.source(), pointer.pack, pointer.ordinal);
                false
            }
        };
        self.read.insert(*pointer, readable);
        Ok(readable)
    }

    fn note_unlisted(&self, pointer: &FrameRef) {
        let what = "its footer does not list this frame as a point refers to it";
        self.findings.note(&self.object(pointer.pack), Harm::Contradiction, Some(pointer.offset), what);
    }

    fn object(&self, pack: PackId) -> ObjectName {
        Object::Pack(self.reader.source(), pack).name()
    }

    /// The footer; none when it cannot be read, which has been noted then.
    fn table(&mut self, pack: PackId) -> Result<Option<Arc<Table>>, VerifyError> {
        if let Some(table) = self.tables.get(&pack) {
            return Ok(table.clone());
        }
        let table = match read_footer(&self.reader, pack) {
            Ok(footer) => Some(Arc::new(Table::of(&footer))),
            Err(error) => {
                let (harm, what) = diagnose(error)?;
                self.findings.note(&self.object(pack), harm, None, what);
                None
            }
        };
        self.weight += table.as_ref().map_or(0, |table| table.weight());
        self.tables.put(pack, table.clone());
        while self.weight > TABLE_BYTES_MAX && self.tables.len() > 1 {
            if let Some((_, Some(dropped))) = self.tables.pop_lru() {
                self.weight -= dropped.weight();
            }
        }
        Ok(table)
    }
}
