//! `map.json`: which parts of a disk hold data, and which differ from the parent.
//!
//! Made in one pass over both maps, window by window, in memory for one window and the text. A disk with so many
//! pieces that the text would be too long is told in larger grains.

use std::fmt::Write;

use super::check_cell;
use crate::base::limits;
use crate::format::ChunkRef;
use crate::view::inode::Inode;
use crate::view::namespace::ViewError;
use crate::view::point::PointView;

/// A file of a point.
type Place<'a> = (&'a PointView, &'a Inode);

/// Grains that are looked at in one go.
const WINDOW_GRAINS: u64 = 4096;

/// What is said of a grain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State {
    data: bool,
    changed: bool,
}

/// The map of the disk `raw` in words of JSON; of a point without a parent all data counts as changed.
///
/// # Errors
/// [`ViewError`] when a map cannot be read.
pub(super) fn render(raw: Place<'_>, parent: Option<Place<'_>>, chunk: u64) -> Result<String, ViewError> {
    let mut grain = chunk;
    loop {
        if let Some(text) = render_in(raw, parent, chunk, grain)? {
            return Ok(text);
        }
        grain *= 8;
    }
}

/// The map in grains of `grain` bytes; none if it is too long.
fn render_in(raw: Place<'_>, parent: Option<Place<'_>>, chunk: u64, grain: u64) -> Result<Option<String>, ViewError> {
    let size = raw.1.entry().meta.size;
    let mut text = format!("{{\"bytes\":{size},\"chunk_bytes\":{chunk},\"granularity\":{grain},\"extents\":[");
    let mut extents = Extents { text: &mut text, open: None, first: true };
    let mut at = 0;
    while at < size {
        // A hole is passed at once, however large: a disk of an exbibyte may hold a sector.
        let data = [Some(raw), parent].into_iter().flatten().map(|place| next_chunk(place, at, chunk));
        let data = data.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().min();
        let next = data.map_or(size, |data| data / grain * grain).min(size);
        if next > at {
            extents.tell(at, State::default());
            at = next;
            continue;
        }
        let end = at.saturating_add(grain.saturating_mul(WINDOW_GRAINS)).min(size);
        let mut start = at;
        for state in window(raw, parent, at, end, (chunk, grain))? {
            extents.tell(start, state);
            start = start.saturating_add(grain);
        }
        if extents.text.len() as u64 > limits::DISK_MAP_BYTES_MAX {
            return Ok(None);
        }
        at = end;
    }
    extents.end(size);
    text.push_str("\n]}\n");
    Ok(Some(text))
}

/// What is told, one line an extent.
struct Extents<'a> {
    text: &'a mut String,
    open: Option<(u64, State)>,
    first: bool,
}

impl Extents<'_> {
    /// That it is so from `start` on.
    fn tell(&mut self, start: u64, state: State) {
        if self.open.is_none_or(|(_, same)| same != state) {
            self.end(start);
            self.open = Some((start, state));
        }
    }

    /// That it is so up to `end`.
    fn end(&mut self, end: u64) {
        let Some((start, state)) = self.open.take() else { return };
        let kind = if state.data { "data" } else { "zero" };
        let comma = if std::mem::take(&mut self.first) { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            self.text,
            "{comma}\n{{\"offset\":{start},\"bytes\":{},\"state\":\"{kind}\",\"changed\":{}}}",
            end - start,
            state.changed
        );
    }
}

/// Where the first chunk at or behind `at` begins.
fn next_chunk((view, file): Place<'_>, at: u64, chunk_bytes: u64) -> Result<Option<u64>, ViewError> {
    let mut found = None;
    view.each_chunk_from::<ViewError>(file, at, |offset, chunk| {
        check_cell(offset, chunk, chunk_bytes)?;
        found = Some(offset);
        Ok(offset < at)
    })?;
    Ok(found.filter(|offset| *offset >= at))
}

/// The states of the grains from `at` to `end`.
fn window(
    raw: Place<'_>,
    parent: Option<Place<'_>>,
    at: u64,
    end: u64,
    (chunk, grain): (u64, u64),
) -> Result<Vec<State>, ViewError> {
    let now = chunks(raw, at, end, chunk)?;
    let before = parent.map(|parent| chunks(parent, at, end, chunk)).transpose()?.unwrap_or_default();
    let mut states = vec![State::default(); usize::try_from((end - at).div_ceil(grain)).unwrap_or(0)];
    let mut tell = |offset: u64, data: bool, changed: bool| {
        let index = usize::try_from((offset - at) / grain).unwrap_or(usize::MAX);
        if let Some(state) = states.get_mut(index) {
            state.data |= data;
            state.changed |= changed;
        }
    };
    let find = |chunks: &[(u64, ChunkRef)], offset: u64| {
        chunks.binary_search_by_key(&offset, |(offset, _)| *offset).ok().and_then(|index| chunks.get(index).copied())
    };
    for (offset, chunk) in &now {
        let same = find(&before, *offset).is_some_and(|(_, before)| before == *chunk);
        tell(*offset, true, !same);
    }
    for (offset, _) in &before {
        if find(&now, *offset).is_none() {
            tell(*offset, false, true);
        }
    }
    Ok(states)
}

/// The chunks that begin from `at` on and before `end`.
fn chunks((view, file): Place<'_>, at: u64, end: u64, cell: u64) -> Result<Vec<(u64, ChunkRef)>, ViewError> {
    let mut chunks = Vec::new();
    view.each_chunk_from::<ViewError>(file, at, |offset, chunk| {
        check_cell(offset, chunk, cell)?;
        if (at..end).contains(&offset) {
            chunks.push((offset, *chunk));
        }
        Ok(offset < end)
    })?;
    Ok(chunks)
}
