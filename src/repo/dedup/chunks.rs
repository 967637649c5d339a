//! Chunks by their hash, in little memory: a million of them in 64 MB.
//!
//! A reference to a frame is larger than all else that is kept of a chunk, and neighbours share it: each frame stands once, in the
//! order in which chunks came, and a chunk says which it is.

use hashbrown::HashTable;

use crate::format::{ChunkHash, ChunkRef, FrameRef};

/// Where chunks are, by their hashes.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Indexes of `places`.
    index: HashTable<u32>,
    /// As `index`, of places of chunks that stand there with another one: few.
    others: HashTable<u32>,
    places: Vec<Place>,
    frames: Vec<FrameRef>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    hash: ChunkHash,
    frame: u32,
    start: u32,
    bytes: u32,
}

/// A chunk's hash is as good as random: its first bytes are where it goes.
fn spread(hash: &ChunkHash) -> u64 {
    hash.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Chunks {
    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Where this one is.
    pub(super) fn get(&self, hash: &ChunkHash) -> Option<ChunkRef> {
        self.places.get(self.find(hash)?).and_then(|place| self.chunk(place))
    }

    /// Whether this one is there, too.
    pub(super) fn has(&self, hash: &ChunkHash, chunk: &ChunkRef) -> bool {
        let is_there = |index: &u32| {
            let place = self.places.get(*index as usize).filter(|place| place.hash == *hash);
            place.and_then(|place| self.chunk(place)).is_some_and(|other| other == *chunk)
        };
        [&self.index, &self.others].into_iter().any(|table| table.find(spread(hash), is_there).is_some())
    }

    fn chunk(&self, place: &Place) -> Option<ChunkRef> {
        let frame = *self.frames.get(place.frame as usize)?;
        Some(ChunkRef { frame, start: place.start, bytes: place.bytes })
    }

    fn find(&self, hash: &ChunkHash) -> Option<usize> {
        let same = |index: &u32| self.places.get(*index as usize).is_some_and(|place| place.hash == *hash);
        self.index.find(spread(hash), same).map(|index| *index as usize)
    }

    /// Puts it there, wherever it was.
    pub(super) fn insert(&mut self, hash: ChunkHash, chunk: ChunkRef) {
        let place = self.place(hash, chunk);
        if let Some(old) = self.find(&hash).and_then(|at| self.places.get_mut(at)) {
            *old = place;
        } else {
            self.put(place, true);
        }
    }

    /// Puts it there; one that is somewhere is found there before it is found here.
    pub(super) fn insert_behind(&mut self, hash: ChunkHash, chunk: ChunkRef) {
        let (place, is_first) = (self.place(hash, chunk), self.find(&hash).is_none());
        self.put(place, is_first);
    }

    fn place(&mut self, hash: ChunkHash, chunk: ChunkRef) -> Place {
        if self.frames.last() != Some(&chunk.frame) {
            self.frames.push(chunk.frame);
        }
        // Places are counted by the caller, and each brings one frame at most.
        let frame = u32::try_from(self.frames.len().saturating_sub(1)).unwrap_or(u32::MAX);
        Place { hash, frame, start: chunk.start, bytes: chunk.bytes }
    }

    fn put(&mut self, place: Place, is_first: bool) {
        let Chunks { index, others, places, .. } = self;
        let at = u32::try_from(places.len()).unwrap_or(u32::MAX);
        places.push(place);
        let again = |index: &u32| places.get(*index as usize).map_or(0, |place| spread(&place.hash));
        let table = if is_first { index } else { others };
        table.insert_unique(spread(&place.hash), at, again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{ChainId, FrameHash, FrameOrdinal, LogNumber, Nonce, PackId, PackOrdinal, SessionId};

    fn chunk(frame: u32, start: u32) -> ChunkRef {
        let session = SessionId { base: LogNumber(1), random: Nonce([3; 16]) };
        let pack = PackId { chain: ChainId(0), session, ordinal: PackOrdinal(0) };
        let ordinal = FrameOrdinal(frame);
        let frame = FrameRef { pack, ordinal, offset: 9, stored_bytes: 5, raw_bytes: 100, hash: FrameHash([1; 16]) };
        ChunkRef { frame, start, bytes: 10 }
    }

    #[test]
    fn each_chunk_is_where_it_was_put_last() {
        let mut chunks = Chunks::default();
        let hash = |n: u32| ChunkHash(*blake3::hash(&n.to_le_bytes()).as_bytes());
        for n in 0..10_000 {
            chunks.insert(hash(n), chunk(n / 40, n % 40));
        }
        for n in (0..10_000).step_by(7) {
            chunks.insert(hash(n), chunk(1_000_000 + n, 1));
        }
        assert_eq!(chunks.len(), 10_000);
        for n in 0..10_000 {
            let expected = if n % 7 == 0 { chunk(1_000_000 + n, 1) } else { chunk(n / 40, n % 40) };
            assert_eq!(chunks.get(&hash(n)), Some(expected), "{n}");
        }
        assert_eq!(chunks.get(&hash(10_000)), None);
    }

    #[test]
    fn a_chunk_of_several_places_is_found_at_the_first_and_known_at_all() {
        let mut chunks = Chunks::default();
        let hash = |n: u32| ChunkHash(*blake3::hash(&n.to_le_bytes()).as_bytes());
        for time in 0..3 {
            (0..1_000).for_each(|n| chunks.insert_behind(hash(n), chunk(time, n)));
        }
        assert_eq!(chunks.len(), 3_000);
        for n in 0..1_000 {
            assert_eq!(chunks.get(&hash(n)), Some(chunk(0, n)));
            (0..3).for_each(|time| assert!(chunks.has(&hash(n), &chunk(time, n))));
            assert!(!chunks.has(&hash(n), &chunk(3, n)) && !chunks.has(&hash(n), &chunk(0, n + 1)));
            assert!(!chunks.has(&hash(n + 1_000), &chunk(0, n)));
        }
        chunks.insert(hash(5), chunk(9, 9));
        assert_eq!(chunks.get(&hash(5)), Some(chunk(9, 9)));
        assert!(chunks.has(&hash(5), &chunk(2, 5)) && !chunks.has(&hash(5), &chunk(0, 5)));
    }

    #[test]
    fn hashes_that_begin_alike_are_told_apart() {
        let mut chunks = Chunks::default();
        let hash = |last: u8| {
            let mut bytes = [7; 32];
            bytes[31] = last;
            ChunkHash(bytes)
        };
        (0..200).for_each(|n| chunks.insert(hash(n), chunk(u32::from(n), 0)));
        (0..200).for_each(|n| assert_eq!(chunks.get(&hash(n)), Some(chunk(u32::from(n), 0))));
        assert_eq!(chunks.get(&hash(201)), None);
    }
}
