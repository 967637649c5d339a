//! `map.json`: which parts of a disk hold data, and which differ from the parent.
//!
//! Made in one pass over both maps, window by window, in memory for one window and the text. A disk with so many
//! pieces that the text would be too long is told in larger grains.

use std::fmt::Write;

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
    let mut open: Option<(u64, State)> = None;
    let mut first = true;
    let mut close = |text: &mut String, start: u64, end: u64, state: State| {
        let kind = if state.data { "data" } else { "zero" };
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{comma}\n{{\"offset\":{start},\"bytes\":{},\"state\":\"{kind}\",\"changed\":{}}}",
            end - start,
            state.changed
        );
    };
    let mut at = 0;
    while at < size {
        let end = at.saturating_add(grain * WINDOW_GRAINS).min(size);
        for (start, state) in
            (at..).step_by(usize::try_from(grain).unwrap_or(usize::MAX)).zip(window(raw, parent, at, end, grain)?)
        {
            match open {
                Some((_, same)) if same == state => {}
                before => {
                    if let Some((since, before)) = before {
                        close(&mut text, since, start, before);
                    }
                    open = Some((start, state));
                }
            }
        }
        if text.len() as u64 > limits::DISK_MAP_BYTES_MAX {
            return Ok(None);
        }
        at = end;
    }
    if let Some((since, state)) = open {
        close(&mut text, since, size, state);
    }
    text.push_str("\n]}\n");
    Ok(Some(text))
}

/// The states of the grains from `at` to `end`.
fn window(raw: Place<'_>, parent: Option<Place<'_>>, at: u64, end: u64, grain: u64) -> Result<Vec<State>, ViewError> {
    let now = chunks(raw, at, end)?;
    let before = parent.map(|parent| chunks(parent, at, end)).transpose()?.unwrap_or_default();
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
fn chunks((view, file): Place<'_>, at: u64, end: u64) -> Result<Vec<(u64, ChunkRef)>, ViewError> {
    let mut chunks = Vec::new();
    view.each_chunk_from::<ViewError>(file, at, |offset, chunk| {
        if (at..end).contains(&offset) {
            chunks.push((offset, *chunk));
        }
        Ok(offset < end)
    })?;
    Ok(chunks)
}
