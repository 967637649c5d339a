//! Leaves of the map tree: pages of extents of large files.

use bincode::{Decode, Encode};

use crate::base::limits;
use crate::format::codec;
use crate::format::error::{FormatError, malformed};
use crate::format::frame::FrameKind;
use crate::format::ids::ChunkRef;
use crate::format::key::Key;
use crate::format::map::{MapExtent, MapPage};
use crate::format::node::{FrameColumns, KeyColumn, TreeKind};

/// The map tree: [`Key::page`] to a page of extents, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maps;

#[derive(Encode, Decode)]
struct Columns {
    keys: KeyColumn,
    extents: Vec<u32>,
    /// Distance from the end of the extent before (of the first, from the page's start).
    gap: Vec<u64>,
    /// Index into `frames`, counted from the one before.
    frame_step: Vec<i64>,
    start: Vec<u32>,
    bytes: Vec<u32>,
    hash: Vec<u8>,
    frames: FrameColumns,
}

impl TreeKind for Maps {
    type Value = MapPage;
    const FRAME: FrameKind = FrameKind::Maps;
    const WHAT: &'static str = "map node";

    fn weight(_key: &Key, page: &MapPage) -> usize {
        16 + 44 * page.extents.len()
    }

    fn behind(page: &MapPage) -> usize {
        size_of_val(page.extents.as_slice())
    }

    fn encode_leaf(items: &[(Key, MapPage)]) -> Vec<u8> {
        let mut columns = Columns {
            keys: KeyColumn::new(items.iter().map(|(key, _)| key)),
            extents: Vec::with_capacity(items.len()),
            gap: Vec::new(),
            frame_step: Vec::new(),
            start: Vec::new(),
            bytes: Vec::new(),
            hash: Vec::new(),
            frames: FrameColumns::default(),
        };
        let mut table = super::entries::FrameTable::default();
        let mut last_frame = 0i64;
        for (key, page) in items {
            columns.extents.push(u32::try_from(page.extents.len()).unwrap_or(u32::MAX));
            let mut at = key.split_page().map_or(0, |(_, offset)| offset);
            for extent in &page.extents {
                let frame = i64::from(table.index(&extent.chunk.frame, &mut columns.frames));
                columns.gap.push(extent.offset.wrapping_sub(at));
                columns.frame_step.push(frame - last_frame);
                columns.start.push(extent.chunk.start);
                columns.bytes.push(extent.chunk.bytes);
                columns.hash.extend_from_slice(&extent.hash);
                at = extent.offset.wrapping_add(u64::from(extent.chunk.bytes));
                last_frame = frame;
            }
        }
        codec::encode(&columns)
    }

    fn decode_leaf(columns: &[u8]) -> Result<Vec<(Key, MapPage)>, FormatError> {
        let columns: Columns = codec::decode(Self::WHAT, columns, limits::FRAME_RAW_BYTES_MAX)?;
        let keys = columns.keys.keys(Self::WHAT)?;
        let frames = columns.frames.frames(Self::WHAT)?;
        let (hashes, left) = columns.hash.as_chunks::<16>();
        let total = columns.gap.len();
        if keys.len() != columns.extents.len()
            || [columns.frame_step.len(), columns.start.len(), columns.bytes.len(), hashes.len()]
                .iter()
                .any(|n| *n != total)
            || !left.is_empty()
        {
            return Err(malformed(Self::WHAT, "map columns differ in length"));
        }
        let rows = columns.gap.iter().zip(&columns.frame_step).zip(&columns.start).zip(&columns.bytes).zip(hashes);
        let mut rows = rows.map(|((((gap, step), start), bytes), hash)| (*gap, *step, *start, *bytes, *hash));
        let mut items = Vec::with_capacity(keys.len());
        let mut frame = 0i64;
        let mut used = 0usize;
        for (key, count) in keys.into_iter().zip(&columns.extents) {
            let (_, mut at) = key.split_page()?;
            let count = *count as usize;
            if count == 0 || count > limits::MAP_PAGE_EXTENTS {
                return Err(malformed(Self::WHAT, format!("a page of {count} extents")));
            }
            let mut extents = Vec::with_capacity(count);
            for (gap, step, start, bytes, hash) in rows.by_ref().take(count) {
                frame = frame.saturating_add(step);
                let pointer = usize::try_from(frame)
                    .ok()
                    .and_then(|index| frames.get(index))
                    .ok_or_else(|| malformed(Self::WHAT, "an extent's frame is not in the table"))?;
                let offset =
                    at.checked_add(gap).ok_or_else(|| malformed(Self::WHAT, "an extent's offset overflows"))?;
                let chunk = super::entries::chunk(Self::WHAT, pointer, start, bytes)?;
                at = offset
                    .checked_add(u64::from(bytes))
                    .ok_or_else(|| malformed(Self::WHAT, "an extent's end overflows"))?;
                extents.push(MapExtent { offset, chunk, hash });
                used += 1;
            }
            if extents.len() != count {
                return Err(malformed(Self::WHAT, "extents are missing"));
            }
            items.push((key, MapPage { extents }));
        }
        if used != total {
            return Err(malformed(Self::WHAT, "extents are left over"));
        }
        Ok(items)
    }
}

impl MapPage {
    /// The chunk of `hash` at `offset` in the page, if it is exactly that.
    pub fn same_chunk(&self, offset: u64, bytes: u32, hash: &[u8; 16]) -> Option<ChunkRef> {
        let index = self.extents.binary_search_by_key(&offset, |extent| extent.offset).ok()?;
        let extent = self.extents.get(index)?;
        (extent.chunk.bytes == bytes && extent.hash == *hash).then_some(extent.chunk)
    }
}
