//! Stored bytes of packs that lie behind a network: fetched once, kept in memory and on disk, fetched ahead.
//!
//! A frame is asked for by its place in a pack; what goes over the network are runs of blocks
//! ([`limits::BLOCK_BYTES`]). A block on its way is waited for and not asked for again, whoever asked first. Reading in order
//! has more fetched ahead of it ([`Streams`]), on other threads; what is not there in time is waited for.
//!
//! **Bounded.** Kept blocks have at most [`limits::BLOCK_CACHE_BYTES`]; on their way ahead are at most
//! [`limits::AHEAD_IN_FLIGHT_BYTES_MAX`] in [`limits::AHEAD_REQUESTS_MAX`] requests. Beyond that nothing is fetched ahead,
//! and reading asks again when it gets there.
//!
//! Nothing here says that bytes are right: whoever decodes a frame checks it, and has what is kept forgotten if it is not.
//! A failure is told to whoever waits for the very request, and not remembered.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use lru::LruCache;
use parking_lot::{Condvar, Mutex};

use super::streams::{Pattern, Streams};
use crate::base::limits;
use crate::format::object::{Object, ObjectName};
use crate::format::{PackId, SourceId};
use crate::store::{DiskCache, Operation, Store, StoreError};

const BLOCK: u64 = limits::BLOCK_BYTES as u64;

/// A pack, among all sources'.
pub(super) type Pack = (SourceId, PackId);

/// The blocks of a repository's packs; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    disk: Option<DiskCache>,
    state: Mutex<State>,
    /// Blocks have come, or will not.
    landed: Condvar,
    at_hand: AtomicU64,
    fetched: AtomicU64,
}

#[derive(Debug)]
struct State {
    kept: LruCache<(Pack, u64), Bytes>,
    kept_bytes: usize,
    on_their_way: HashSet<(Pack, u64)>,
    /// Sizes of packs as far as answers have told them.
    sizes: HashMap<Pack, u64>,
    streams: Streams<Pack>,
    ahead_bytes: u64,
    ahead_requests: usize,
}

/// How often stored bytes were at hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Reads for which every byte was in memory, or on its way.
    pub at_hand: u64,
    /// Reads that waited for the disk or the network.
    pub fetched: u64,
    /// Blocks that are on their way now.
    pub on_their_way: usize,
}

/// Sizes that are remembered; more are forgotten at once.
const SIZES_MAX: usize = 1 << 16;

/// Blocks on their way. Dropped, they are on it no longer, whatever has become of them.
struct Flight {
    shared: Arc<Shared>,
    pack: Pack,
    blocks: Range<u64>,
    ahead: bool,
}

impl Flight {
    fn bytes(&self) -> u64 {
        (self.blocks.end - self.blocks.start) * BLOCK
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        for block in self.blocks.clone() {
            state.on_their_way.remove(&(self.pack, block));
        }
        if self.ahead {
            state.ahead_requests -= 1;
            state.ahead_bytes -= self.bytes();
        }
        drop(state);
        self.shared.landed.notify_all();
    }
}

impl State {
    fn keep(&mut self, pack: Pack, first: u64, bytes: &[u8]) {
        for (block, bytes) in (first..).zip(bytes.chunks(limits::BLOCK_BYTES)) {
            // A copy: a slice would keep all of a large answer for one block.
            self.kept_bytes += bytes.len();
            if let Some(old) = self.kept.put((pack, block), Bytes::copy_from_slice(bytes)) {
                self.kept_bytes -= old.len();
            }
        }
        while self.kept_bytes > limits::BLOCK_CACHE_BYTES {
            match self.kept.pop_lru() {
                Some((_, evicted)) => self.kept_bytes -= evicted.len(),
                None => break,
            }
        }
    }

    /// `range` put together from kept blocks; none when one is not kept, or too short.
    fn assemble(&mut self, pack: Pack, range: &Range<u64>) -> Option<Bytes> {
        let length = usize::try_from(range.end - range.start).ok()?;
        let mut whole = BytesMut::with_capacity(length);
        for block in blocks_of(range) {
            let kept = self.kept.get(&(pack, block))?;
            let from = usize::try_from(range.start.saturating_sub(block * BLOCK)).ok()?;
            let upto = usize::try_from((range.end - block * BLOCK).min(BLOCK)).ok()?;
            let part = kept.get(from..upto)?;
            whole.extend_from_slice(part);
        }
        Some(whole.freeze())
    }

    fn is_here(&self, pack: Pack, block: u64) -> bool {
        self.kept.contains(&(pack, block)) || self.on_their_way.contains(&(pack, block))
    }

    /// `blocks` without those at both ends for which `here` says so.
    fn missing(&self, blocks: Range<u64>, here: impl Fn(&State, u64) -> bool) -> Option<Range<u64>> {
        let first = blocks.clone().find(|block| !here(self, *block))?;
        let last = blocks.rev().find(|block| !here(self, *block))?;
        Some(first..last + 1)
    }

    /// The blocks of `range` that the pack has, as far as that is known.
    fn existing(&self, pack: Pack, range: &Range<u64>) -> Range<u64> {
        let blocks = blocks_of(range);
        let end = self.sizes.get(&pack).map_or(u64::MAX, |size| size.div_ceil(BLOCK));
        blocks.start.min(end)..blocks.end.min(end)
    }

    fn know_size(&mut self, pack: Pack, bytes: u64) {
        if self.sizes.len() >= SIZES_MAX {
            self.sizes.clear();
        }
        self.sizes.insert(pack, bytes);
    }
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

fn name_of(pack: Pack) -> ObjectName {
    Object::Pack(pack.0, pack.1).name()
}

impl Blocks {
    pub(super) fn new(store: Store, disk: Option<DiskCache>) -> Blocks {
        let state = State {
            kept: LruCache::unbounded(),
            kept_bytes: 0,
            on_their_way: HashSet::new(),
            sizes: HashMap::new(),
            streams: Streams::default(),
            ahead_bytes: 0,
            ahead_requests: 0,
        };
        let (at_hand, fetched) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Shared { store, disk, state: Mutex::new(state), landed: Condvar::new(), at_hand, fetched };
        Blocks { shared: Arc::new(shared) }
    }

    /// The disk cache, if there is one.
    pub(super) fn disk(&self) -> Option<&DiskCache> {
        self.shared.disk.as_ref()
    }

    pub(super) fn counts(&self) -> BlockCounts {
        BlockCounts {
            at_hand: self.shared.at_hand.load(Ordering::Relaxed),
            fetched: self.shared.fetched.load(Ordering::Relaxed),
            on_their_way: self.shared.state.lock().on_their_way.len(),
        }
    }

    /// Bytes in memory.
    pub(super) fn weight(&self) -> usize {
        self.shared.state.lock().kept_bytes
    }

    /// The bytes of `range`, from wherever they are.
    pub(super) fn read(&self, pack: Pack, range: &Range<u64>, pattern: Pattern) -> Result<Bytes, StoreError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let mut advice = state.streams.read(pack, range, pattern);
        let mut waited = false;
        loop {
            if let Some(bytes) = state.assemble(pack, range) {
                drop(state);
                if !waited {
                    shared.at_hand.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(ahead) = advice.ahead.take() {
                    self.fetch_ahead(pack, &ahead);
                }
                return Ok(bytes);
            }
            let wanted = blocks_of(range);
            if state.missing(wanted.clone(), |state, block| state.is_here(pack, block)).is_none() {
                if !wanted.clone().any(|block| state.on_their_way.contains(&(pack, block))) {
                    // All are kept, and do not make up the range: the pack ends before it does.
                    let actual = state.sizes.get(&pack).copied().unwrap_or_default();
                    drop(state);
                    return Err(truncated(pack, range, actual));
                }
                if let Some(ahead) = advice.ahead.take() {
                    parking_lot::MutexGuard::unlocked(&mut state, || self.fetch_ahead(pack, &ahead));
                    continue;
                }
                // Every request ends by its own deadline; this one is for a machine that no longer runs anything.
                let deadline = shared.store.deadlines().data * 2;
                if shared.landed.wait_for(&mut state, deadline).timed_out() {
                    let object = name_of(pack).to_string();
                    return Err(StoreError::Deadline { operation: Operation::Range, object, after: deadline });
                }
                continue;
            }
            // What is fetched ahead from the end of this on comes with it while that is little.
            if let Some(ahead) = advice.ahead.take_if(|ahead| {
                ahead.start <= advice.together.end && ahead.end - range.start <= 2 * limits::AHEAD_BYTES_MIN
            }) {
                advice.together.end = ahead.end;
            }
            let together = state.existing(pack, &advice.together);
            let together = together.start.min(wanted.start)..together.end.max(wanted.end);
            let blocks = state.missing(together, |state, block| state.is_here(pack, block)).unwrap_or(wanted);
            let flight = self.depart(&mut state, pack, blocks.clone(), false);
            drop(state);
            waited = true;
            shared.fetched.fetch_add(1, Ordering::Relaxed);
            if let Some(ahead) = advice.ahead.take() {
                self.fetch_ahead(pack, &ahead);
            }
            let bytes = shared.obtain(pack, blocks.clone())?;
            state = shared.state.lock();
            state.keep(pack, blocks.start, &bytes);
            drop(state);
            drop(flight);
            // Memory may be too small to keep it for as long as this takes.
            if blocks.start * BLOCK <= range.start && range.end <= blocks.start * BLOCK + bytes.len() as u64 {
                let from = usize::try_from(range.start - blocks.start * BLOCK).unwrap_or(usize::MAX);
                let upto = usize::try_from(range.end - blocks.start * BLOCK).unwrap_or(usize::MAX);
                return Ok(Bytes::copy_from_slice(bytes.get(from..upto).unwrap_or_default()));
            }
            state = shared.state.lock();
        }
    }

    /// Has all `ranges` of `pack` fetched at the same time, those that lie close together by one request.
    pub(super) fn expect(&self, pack: Pack, mut ranges: Vec<Range<u64>>) {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut runs: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match runs.last_mut() {
                Some(run) if range.start <= run.end.saturating_add(limits::COALESCE_GAP_BYTES) => {
                    run.end = run.end.max(range.end);
                }
                _ => runs.push(range),
            }
        }
        for run in runs {
            self.fetch_ahead(pack, &run);
        }
    }

    /// Forgets what is kept of `range` of `pack`: something in it is wrong.
    pub(super) fn forget(&self, pack: Pack, range: &Range<u64>) {
        let blocks = blocks_of(range);
        let mut state = self.shared.state.lock();
        for block in blocks.clone() {
            state.kept_bytes -= state.kept.pop(&(pack, block)).map_or(0, |bytes| bytes.len());
        }
        // It may be what was wrong; the next answer tells it.
        state.sizes.remove(&pack);
        drop(state);
        if let Some(disk) = &self.shared.disk {
            disk.forget(&name_of(pack), blocks);
        }
    }

    fn depart(&self, state: &mut State, pack: Pack, blocks: Range<u64>, ahead: bool) -> Flight {
        let flight = Flight { shared: Arc::clone(&self.shared), pack, blocks, ahead };
        state.on_their_way.extend(flight.blocks.clone().map(|block| (pack, block)));
        if ahead {
            state.ahead_requests += 1;
            state.ahead_bytes += flight.bytes();
        }
        flight
    }

    /// Begins to fetch what is not here of `range`, and does not wait.
    fn fetch_ahead(&self, pack: Pack, range: &Range<u64>) {
        let shared = &self.shared;
        let name = name_of(pack);
        let mut state = shared.state.lock();
        let missing = |state: &State, blocks| state.missing(blocks, |state, block| state.is_here(pack, block));
        let Some(mut blocks) = missing(&state, state.existing(pack, range)) else { return };
        if let Some(disk) = &shared.disk {
            // What the disk has is read when it is needed.
            let held = parking_lot::MutexGuard::unlocked(&mut state, || disk.holds(&name, blocks.clone()));
            let lacks = |held: &bool| !held;
            let (Some(first), Some(last)) = (held.iter().position(lacks), held.iter().rposition(lacks)) else { return };
            let lacking = blocks.start + first as u64..blocks.start + last as u64 + 1;
            match missing(&state, lacking) {
                Some(left) => blocks = left,
                None => return,
            }
        }
        let bytes = (blocks.end - blocks.start) * BLOCK;
        if state.ahead_requests >= limits::AHEAD_REQUESTS_MAX
            || state.ahead_bytes + bytes > limits::AHEAD_IN_FLIGHT_BYTES_MAX
        {
            state.streams.retract(pack, range);
            return;
        }
        let flight = self.depart(&mut state, pack, blocks.clone(), true);
        drop(state);
        shared.store.get_range_behind(&name, blocks.start * BLOCK..blocks.end * BLOCK, move |answer| {
            let shared = Arc::clone(&flight.shared);
            match answer {
                Ok((bytes, size)) => {
                    let mut state = shared.state.lock();
                    state.know_size(pack, size);
                    state.keep(pack, blocks.start, &bytes);
                    drop(state);
                    shared.landed.notify_all();
                    if let Some(disk) = &shared.disk {
                        disk.write(&name_of(pack), blocks.start, bytes, size);
                    }
                    drop(flight);
                }
                // Whoever needs it asks for itself.
                Err(error) => tracing::debug!(%error, "nothing fetched ahead"),
            }
        });
    }
}

impl Shared {
    /// The bytes of `blocks`, from the disk as far as it has them; fewer only at the end of the pack.
    fn obtain(&self, pack: Pack, blocks: Range<u64>) -> Result<Bytes, StoreError> {
        let name = name_of(pack);
        let held = self.disk.as_ref().map(|disk| disk.read(&name, blocks.clone())).unwrap_or_default();
        let lacking = held.iter().take_while(|block| block.is_some()).count();
        let wanted = usize::try_from(blocks.end - blocks.start).unwrap_or(usize::MAX);
        let mut whole = BytesMut::new();
        if let Some(block) = held.iter().flatten().next() {
            self.state.lock().know_size(pack, block.object_bytes);
        }
        for block in held.iter().take(lacking).flatten() {
            whole.extend_from_slice(&block.bytes);
            if (block.bytes.len() as u64) < BLOCK {
                // The last one of the pack: there is nothing behind it.
                return Ok(whole.freeze());
            }
        }
        if lacking == wanted {
            return Ok(whole.freeze());
        }
        let from = blocks.start + lacking as u64;
        // Some behind may be on the disk as well; a second request would take longer than they do.
        let (bytes, size) = self.store.get_range_to_end(&name, from * BLOCK..blocks.end * BLOCK)?;
        self.state.lock().know_size(pack, size);
        if let Some(disk) = &self.disk {
            disk.write(&name, from, bytes.clone(), size);
        }
        if whole.is_empty() {
            return Ok(bytes);
        }
        whole.extend_from_slice(&bytes);
        Ok(whole.freeze())
    }
}

fn truncated(pack: Pack, range: &Range<u64>, actual: u64) -> StoreError {
    let object = name_of(pack).to_string();
    StoreError::Truncated { operation: Operation::Range, object, expected: range.end, actual }
}

#[cfg(test)]
mod tests;
