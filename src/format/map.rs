//! Pages of chunk maps: where the bytes of a large file are.

use super::ids::ChunkRef;

/// A stretch of a file, with the identity of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapExtent {
    /// First byte in the file.
    pub offset: u64,
    /// The chunk.
    pub chunk: ChunkRef,
    /// First 16 bytes of the chunk's hash: lets the next capture compare without an index.
    pub hash: [u8; 16],
}

/// Up to [`crate::base::limits::MAP_PAGE_EXTENTS`] extents, ascending and disjoint; gaps are holes.
/// Keyed by the file and the offset at which the page begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MapPage {
    /// The extents.
    pub extents: Vec<MapExtent>,
}
