//! Puts the new chunks of a unit into frames.
//!
//! Small chunks share frames in the order in which they come, which is the order in which a directory
//! is read back, and only with neighbours: a frame that spans a sparse incremental would be half read
//! in many places (`docs/decisions/001-sizes.md`). Larger ones have a frame each, and so have those of files that are updated in place,
//! because each of them may be read, or replaced, on its own.

use std::collections::HashMap;

use super::unit::{NewFrame, Place};
use crate::base::limits;
use crate::format::ChunkHash;
use crate::format::frame::{self, FrameKind};
use crate::format::pack::PackedChunk;

/// The frames of one unit.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// None for the group that is still open.
    frames: Vec<Option<NewFrame>>,
    group: Option<Group>,
    placed: HashMap<ChunkHash, (usize, u32)>,
}

#[derive(Debug)]
struct Group {
    index: usize,
    bytes: Vec<u8>,
    chunks: Vec<PackedChunk>,
    /// Where in the walk the last chunk was.
    position: u64,
}

impl Frames {
    /// Where this unit has put the chunk already.
    pub(super) fn find(&self, hash: &ChunkHash) -> Option<Place> {
        self.placed.get(hash).map(|(index, start)| Place::New(*index, *start))
    }

    /// Adds a chunk that the walk has found at `position`, with neighbours if it is small.
    pub(super) fn add(&mut self, hash: ChunkHash, data: &[u8], position: u64) -> Place {
        if data.len() > limits::GROUPED_CHUNK_BYTES_MAX {
            return self.add_alone(hash, data);
        }
        if self.group.as_ref().is_some_and(|group| far(group.position, position)) {
            self.close();
        }
        let frames = &mut self.frames;
        let group = self.group.get_or_insert_with(|| {
            frames.push(None);
            let bytes = Vec::with_capacity(limits::GROUP_FRAME_BYTES);
            Group { index: frames.len() - 1, bytes, chunks: Vec::new(), position }
        });
        group.position = position;
        let start = bytes(group.bytes.len());
        group.bytes.extend_from_slice(data);
        group.chunks.push(PackedChunk { hash, start, bytes: bytes(data.len()) });
        let index = group.index;
        if group.bytes.len() >= limits::GROUP_FRAME_BYTES {
            self.close();
        }
        self.placed.insert(hash, (index, start));
        Place::New(index, start)
    }

    /// Adds a chunk in a frame of its own.
    pub(super) fn add_alone(&mut self, hash: ChunkHash, data: &[u8]) -> Place {
        let index = self.frames.len();
        let chunks = vec![PackedChunk { hash, start: 0, bytes: bytes(data.len()) }];
        self.frames.push(Some(NewFrame { frame: frame::encode(FrameKind::Data, data, 1), chunks }));
        self.placed.insert(hash, (index, 0));
        Place::New(index, 0)
    }

    fn close(&mut self) {
        let Some(group) = self.group.take() else { return };
        let frame = frame::encode(FrameKind::Data, &group.bytes, bytes(group.chunks.len()));
        if let Some(slot) = self.frames.get_mut(group.index) {
            *slot = Some(NewFrame { frame, chunks: group.chunks });
        }
    }

    /// All frames, in the order of their indexes.
    pub(super) fn finish(mut self) -> Vec<NewFrame> {
        self.close();
        self.frames.into_iter().flatten().collect()
    }
}

/// Whether two places of the walk are too far apart to share a frame.
pub(super) fn far(before: u64, after: u64) -> bool {
    after.saturating_sub(before) > limits::GROUP_GAP_ENTRIES
}

/// A length within a frame.
fn bytes(length: usize) -> u32 {
    // Frames are at most limits::FRAME_RAW_BYTES_MAX.
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(data: &[u8]) -> ChunkHash {
        ChunkHash(*blake3::hash(data).as_bytes())
    }

    #[test]
    fn small_chunks_share_frames_and_large_ones_do_not() {
        let mut frames = Frames::default();
        let small = |fill: u8| vec![fill; limits::GROUPED_CHUNK_BYTES_MAX];
        let large = vec![9u8; limits::GROUPED_CHUNK_BYTES_MAX + 1];
        let places: Vec<Place> =
            [small(1), large.clone(), small(2), small(3)].iter().map(|data| frames.add(hash(data), data, 0)).collect();
        let most = u32::try_from(limits::GROUPED_CHUNK_BYTES_MAX).unwrap();
        assert_eq!(places, [Place::New(0, 0), Place::New(1, 0), Place::New(0, most), Place::New(2, 0)]);
        assert_eq!(frames.find(&hash(&large)), Some(Place::New(1, 0)));
        assert_eq!(frames.add_alone(hash(b"x"), b"x"), Place::New(3, 0));
        let frames = frames.finish();
        let shapes: Vec<(usize, u32)> = frames.iter().map(|f| (f.chunks.len(), f.frame.raw_bytes)).collect();
        assert_eq!(shapes, [(2, 2 * most), (1, most + 1), (1, most), (1, 1)]);
    }

    #[test]
    fn only_neighbours_share_a_frame() {
        let mut frames = Frames::default();
        let gap = limits::GROUP_GAP_ENTRIES;
        let places: Vec<Place> = [0, gap, 2 * gap + 1, 2 * gap + 2]
            .iter()
            .map(|at| frames.add(hash(&at.to_le_bytes()), b"x", *at))
            .collect();
        assert_eq!(places, [Place::New(0, 0), Place::New(0, 1), Place::New(1, 0), Place::New(1, 1)]);
        assert_eq!(frames.finish().len(), 2);
    }
}
