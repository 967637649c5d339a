//! The writer's knowledge of chunks that its chain has already.
//!
//! Filled from the footers of packs of committed points, newest first, at the first question:
//! a capture that finds nothing changed never asks, and pays nothing. Bounded; what does not fit,
//! or cannot be read, is stored again: losing the index loses dedup and nothing else.

mod chunks;

use chunks::Chunks;
use parking_lot::Mutex;

use super::{Reader, RepoError};
use crate::base::limits;
use crate::format::object::Object;
use crate::format::pack::{self, Footer};
use crate::format::{ChunkHash, ChunkRef, FrameOrdinal, PackId};

/// The end of a pack that is read at first: holds most footers whole.
const TAIL_BYTES: u64 = 64 << 10;

/// Chunks that may be referred to instead of stored again.
#[derive(Debug)]
pub struct Dedup {
    reader: Reader,
    chunks_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Packs whose footers are yet to be read, oldest first.
    unread: Option<Vec<PackId>>,
    chunks: Chunks,
    unreadable: u64,
}

impl Dedup {
    /// An index over `packs`: those of committed points of the chain, oldest first.
    pub fn over(reader: Reader, packs: Vec<PackId>) -> Dedup {
        Dedup::over_at_most(reader, packs, limits::DEDUP_CHUNKS_MAX)
    }

    /// As [`Dedup::over`], of at most `chunks_max` chunks.
    pub fn over_at_most(reader: Reader, packs: Vec<PackId>, chunks_max: usize) -> Dedup {
        Dedup { reader, chunks_max, state: Mutex::new(State { unread: Some(packs), ..State::default() }) }
    }

    /// Where the chain has this chunk: where it was stored last.
    pub fn lookup(&self, hash: &ChunkHash) -> Option<ChunkRef> {
        self.lookup_among(hash, std::iter::empty())
    }

    /// As [`Dedup::lookup`], but one of `places` when the chain has it at one of them.
    pub fn lookup_among(&self, hash: &ChunkHash, places: impl IntoIterator<Item = ChunkRef>) -> Option<ChunkRef> {
        let mut state = self.state.lock();
        if let Some(packs) = state.unread.take() {
            self.fill(&mut state, &packs);
        }
        let newest = state.chunks.get(hash)?;
        Some(places.into_iter().find(|place| state.chunks.has(hash, place)).unwrap_or(newest))
    }

    /// Remembers a chunk that this session has stored; one that it stored again is found there from now on.
    pub fn insert(&self, hash: ChunkHash, chunk: ChunkRef) {
        let mut state = self.state.lock();
        if state.chunks.len() < self.chunks_max || state.chunks.get(&hash).is_some() {
            state.chunks.insert(hash, chunk);
        }
    }

    /// Packs whose footers could not be read: their chunks were not found.
    pub fn unreadable(&self) -> u64 {
        self.state.lock().unreadable
    }

    fn fill(&self, state: &mut State, packs: &[PackId]) {
        let at_once = if self.reader.repo().store().is_remote() { limits::DEDUP_PARALLEL_PACKS } else { 1 };
        for packs in packs.rchunks(at_once) {
            if state.chunks.len() >= self.chunks_max {
                return;
            }
            for (pack, footer) in packs.iter().zip(read_footers(&self.reader, packs)).rev() {
                match footer {
                    Ok(footer) => take(&mut state.chunks, *pack, &footer),
                    Err(error) => {
                        tracing::warn!(%error, "leave a pack out of deduplication");
                        state.unreadable += 1;
                    }
                }
            }
        }
    }
}

fn take(chunks: &mut Chunks, pack: PackId, footer: &Footer) {
    for (index, frame) in footer.frames.iter().enumerate() {
        let ordinal = FrameOrdinal(u32::try_from(index).unwrap_or(u32::MAX));
        let pointer = frame.pointer(pack, ordinal);
        for chunk in &frame.chunks {
            let place = ChunkRef { frame: pointer, start: chunk.start, bytes: chunk.bytes };
            chunks.insert_behind(chunk.hash, place);
        }
    }
}

/// The footers of these packs, all at the same time.
fn read_footers(reader: &Reader, packs: &[PackId]) -> Vec<Result<Footer, RepoError>> {
    match packs {
        [pack] => vec![read_footer(reader, *pack)],
        packs => std::thread::scope(|scope| {
            let reads: Vec<_> = packs.iter().map(|pack| scope.spawn(|| read_footer(reader, *pack))).collect();
            let ended = |_| RepoError::Defect { what: "a thread that reads a footer has ended".to_owned() };
            reads.into_iter().map(|read| read.join().map_err(ended).flatten()).collect()
        }),
    }
}

/// The footer of `pack`: one request, two when it is large.
///
/// # Errors
/// [`RepoError`] when the pack is missing, cut off or damaged.
pub fn read_footer(reader: &Reader, pack: PackId) -> Result<Footer, RepoError> {
    locate_footer(reader, pack).map(|(footer, _, _)| footer)
}

/// As [`read_footer`], with the offset of the footer's frame and the bytes of the pack.
///
/// # Errors
/// As [`read_footer`].
pub fn locate_footer(reader: &Reader, pack: PackId) -> Result<(Footer, u64, u64), RepoError> {
    let object = Object::Pack(reader.source(), pack).name();
    let store = reader.repo().store();
    let (tail, pack_bytes) = store.tail(&object, TAIL_BYTES).map_err(|source| RepoError::reading(&object, source))?;
    let damaged = RepoError::object(&object);
    let keys = reader.pack_keys(pack)?;
    let located = match &keys {
        Some(keys) => Footer::locate_sealed(keys, &tail, pack_bytes),
        None => Footer::locate(&tail, pack_bytes),
    };
    let (offset, _) = located.map_err(&damaged)?;
    let tail_from = pack_bytes - tail.len() as u64;
    let decode = |bytes: &[u8]| {
        let footer = match &keys {
            Some(keys) => Footer::decode_sealed(keys, bytes),
            None => Footer::decode(&pack::header(reader.repo().id(), reader.source(), pack), bytes),
        };
        footer.map(|footer| (footer, offset, pack_bytes)).map_err(&damaged)
    };
    if let Some(begin) = offset.checked_sub(tail_from) {
        let bytes = usize::try_from(begin).ok().and_then(|begin| tail.get(begin..)).unwrap_or_default();
        return decode(bytes);
    }
    if pack_bytes - offset > limits::FOOTER_BYTES_MAX as u64 {
        let source = crate::format::FormatError::TooLarge {
            what: "pack footer",
            size: pack_bytes - offset,
            limit: limits::FOOTER_BYTES_MAX as u64,
        };
        return Err(RepoError::Damaged { object, source });
    }
    let bytes = store.get_range(&object, offset..pack_bytes).map_err(|source| RepoError::reading(&object, source))?;
    decode(&bytes)
}
