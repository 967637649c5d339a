//! Does units: reads, cuts, hashes, looks for what the chain has, and encodes what it has not.
//!
//! A chunk that the chain has is referred to, with one exception, the share rule of
//! `docs/decisions/001-sizes.md`: a small chunk in a frame of an earlier session, of which the files
//! read around here use little else, is stored again. Referring to it would cost a reader a whole
//! frame from somewhere else, and after a thousand captures a directory would be scattered over a
//! thousand frames. What was stored again replaces the old chunk in the index, so that its neighbours
//! find the new frame.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;

use super::ahead::Ahead;
use super::chunk::{Grid, fixed, is_zero, stretches};
use super::claims::{Claimed, Claims};
use super::frames::{Frames, far};
use super::read::{self, Reading, Unread, read_full_at};
use super::unit::{
    Change, Cut, Done, FailedOutcome, FrameId, Job, Outcome, Piece, Place, ReadJob, ReadOutcome, SliceJob, Unit,
    frame_of,
};
use crate::base::limits;
use crate::format::entry::{Body, Content, Entry};
use crate::format::map::MapExtent;
use crate::format::{ChunkHash, ChunkRef, Realm, SessionId};
use crate::repo::Dedup;

/// What all workers share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Worker<'a> {
    /// What the chain has.
    pub(super) dedup: &'a Dedup,
    /// What other units are about to store.
    pub(super) claims: &'a Claims,
    /// What gives chunks their names.
    pub(super) realm: &'a Realm,
    /// The session that is written: hits on its own frames are always taken.
    pub(super) session: SessionId,
}

/// A slice that is cut at fixed offsets, and what has come of it so far.
struct FixedSlice<'a> {
    file: &'a File,
    known: &'a [MapExtent],
    grid: Grid,
    pieces: Vec<Piece>,
    read: u64,
    changed: u64,
}

/// A small chunk that has been read and not yet placed.
struct Waiting {
    result: usize,
    position: u64,
    offset: u64,
    place: Range<usize>,
    hash: ChunkHash,
    found: Option<ChunkRef>,
}

impl Worker<'_> {
    /// Does a unit.
    pub(super) fn work(&self, unit: Unit) -> Done {
        let mut frames = Frames::default();
        let mut results = Vec::with_capacity(unit.jobs.len());
        let mut buffer = Vec::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        let (mut read_bytes, mut changed_bytes) = (0, 0);
        let (mut jobs, mut ahead) = (VecDeque::from(unit.jobs), Ahead::default());
        while let Some((job, opened)) = ahead.next(&mut jobs) {
            results.push(match job {
                Job::Change(change) => Outcome::Change(change),
                Job::Failed(failed) => Outcome::Failed(failed),
                Job::Problem(problem) => Outcome::Problem(problem),
                Job::Link(link) => Outcome::Link(link),
                Job::Begin(begin) => Outcome::Begin(begin),
                Job::End(end) => Outcome::End(end),
                Job::Slice(SliceJob::Cut { data, cuts }) => {
                    read_bytes += data.len() as u64;
                    Outcome::Slice(self.cut_slice(unit.number, &data, &cuts, &mut frames), None)
                }
                Job::Slice(SliceJob::Fixed { file, part, known, grid }) => {
                    let mut slice =
                        FixedSlice { file: &file, known: &known, grid, pieces: Vec::new(), read: 0, changed: 0 };
                    let failed = self.fixed_slice(unit.number, part, &mut frames, &mut slice).err();
                    read_bytes += slice.read;
                    changed_bytes += slice.changed;
                    Outcome::Slice(slice.pieces, failed)
                }
                Job::Slice(SliceJob::Kept(extents)) => Outcome::Kept(extents),
                Job::Read(job) => match read::read(&job, opened, &mut buffer) {
                    Ok(reading) => {
                        read_bytes += reading.stretches.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
                        self.take(*job, reading, &buffer, results.len(), &mut waiting)
                    }
                    Err(Unread::Grown) => Outcome::Grown(job),
                    Err(Unread::Machine(error)) => Outcome::Halted(error),
                    Err(Unread::Problem(problem)) => {
                        let ReadJob { key, old, inode, stat, .. } = *job;
                        let change = Change { key, old, new: None };
                        Outcome::Failed(FailedOutcome { change, problem, counted: Some(stat), inode })
                    }
                },
            });
        }
        self.place(unit.number, waiting, &buffer, &mut frames, &mut results);
        Done { number: unit.number, weight: unit.weight, frames: frames.finish(), results, read_bytes, changed_bytes }
    }

    /// What was read, as a result; what must be stored is hashed and put in line.
    fn take(
        &self,
        job: ReadJob,
        reading: Reading,
        buffer: &[u8],
        result: usize,
        waiting: &mut Vec<Waiting>,
    ) -> Outcome {
        let Reading { mut entry, stretches, problem } = reading;
        let bytes = |place: &Range<usize>| buffer.get(place.clone()).unwrap_or_default();
        match stretches.as_slice() {
            [(0, place)]
                if self.realm.keys().is_none()
                    && place.len() as u64 == entry.meta.size
                    && place.len() <= limits::INLINE_BYTES_MAX =>
            {
                // In an encrypted repository content is sealed apart from trees, the smallest too.
                entry.body = Body::File(Content::Inline(bytes(place).to_vec()));
            }
            stretches => {
                for (offset, place) in stretches {
                    let hash = self.realm.chunk_hash(bytes(place));
                    let found = self.dedup.lookup_among(&hash, job.old.iter().flat_map(chunks_of));
                    let (position, offset, place) = (job.position, *offset, place.clone());
                    waiting.push(Waiting { result, position, offset, place, hash, found });
                }
            }
        }
        Outcome::Read(Box::new(ReadOutcome { job, entry, pieces: Vec::new(), problem }))
    }

    /// Gives every chunk in line a place, window by window: a window is what would share a frame.
    fn place(&self, unit: u64, waiting: Vec<Waiting>, buffer: &[u8], frames: &mut Frames, results: &mut [Outcome]) {
        let mut rest = waiting.as_slice();
        while !rest.is_empty() {
            let (window, behind) = rest.split_at(window(rest));
            rest = behind;
            let mut shares: HashMap<FrameId, u64> = HashMap::new();
            for chunk in window.iter().filter_map(|waiting| waiting.found) {
                *shares.entry(frame_of(&chunk)).or_default() += u64::from(chunk.bytes);
            }
            for Waiting { result, position, offset, place, hash, found } in window {
                let Some(Outcome::Read(outcome)) = results.get_mut(*result) else { continue };
                let data = buffer.get(place.clone()).unwrap_or_default();
                let place = match found.filter(|chunk| self.accepts(chunk, &outcome.job, &shares)) {
                    Some(chunk) => Place::Known(chunk),
                    None => self.store(unit, *hash, data, frames, *position),
                };
                outcome.pieces.push(Piece { offset: *offset, bytes: length(data), hash: *hash, place });
            }
        }
    }

    /// Whether `chunk`, which the chain has, may be referred to by the file of `job`.
    fn accepts(&self, chunk: &ChunkRef, job: &ReadJob, shares: &HashMap<FrameId, u64>) -> bool {
        let share = || shares.get(&frame_of(chunk)).copied().unwrap_or(0);
        chunk.bytes as usize > limits::GROUPED_CHUNK_BYTES_MAX
            || chunk.frame.pack.session == self.session
            || job.old.iter().flat_map(chunks_of).any(|old| old == *chunk)
            || share().saturating_mul(limits::DEDUP_FRAME_PARTS) >= u64::from(chunk.frame.raw_bytes)
    }

    /// A slice that has been read and cut.
    fn cut_slice(&self, unit: u64, data: &[u8], cuts: &[Cut], frames: &mut Frames) -> Vec<Piece> {
        cuts.iter()
            .map(|cut| {
                let data = data.get(cut.place.clone()).unwrap_or_default();
                let hash = self.realm.chunk_hash(data);
                let place = match self.dedup.lookup(&hash) {
                    Some(chunk) => Place::Known(chunk),
                    None => self.store(unit, hash, data, frames, 0),
                };
                Piece { offset: cut.offset, bytes: length(data), hash, place }
            })
            .collect()
    }

    /// A slice that is cut at fixed offsets: read, and compared with what the parent has there.
    fn fixed_slice(
        &self,
        unit: u64,
        part: Range<u64>,
        frames: &mut Frames,
        slice: &mut FixedSlice<'_>,
    ) -> io::Result<()> {
        let FixedSlice { file, grid, .. } = *slice;
        let mut buffer = vec![0; usize::try_from(grid.cell).unwrap_or_default()];
        if grid.whole {
            return fixed(part, grid)
                .try_for_each(|cell| self.fixed_chunk(unit, cell, &mut buffer, frames, slice).map(drop));
        }
        for stretch in stretches(file, part) {
            for chunk in fixed(stretch?, grid) {
                if !self.fixed_chunk(unit, chunk, &mut buffer, frames, slice)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One chunk of it; whether the file reaches that far.
    fn fixed_chunk(
        &self,
        unit: u64,
        chunk: Range<u64>,
        buffer: &mut [u8],
        frames: &mut Frames,
        slice: &mut FixedSlice<'_>,
    ) -> io::Result<bool> {
        let wanted = usize::try_from(chunk.end - chunk.start).unwrap_or(usize::MAX).min(buffer.len());
        let space = buffer.get_mut(..wanted).unwrap_or_default();
        let at = |error: io::Error| io::Error::new(error.kind(), format!("at byte {}: {error}", chunk.start));
        let got = read_full_at(slice.file, space, chunk.start).map_err(at)?;
        let data = buffer.get(..got).unwrap_or_default();
        slice.read += data.len() as u64;
        if slice.grid.whole && got < wanted {
            let ended = format!("it ends at byte {}, before its size", chunk.start + got as u64);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, ended));
        }
        if data.is_empty() {
            return Ok(false);
        }
        let before = slice.known.binary_search_by_key(&chunk.start, |extent| extent.offset).ok();
        let before = before.and_then(|index| slice.known.get(index));
        if slice.grid.whole && is_zero(data) {
            slice.changed += before.map_or(0, |_| data.len() as u64);
            return Ok(true);
        }
        let hash = self.realm.chunk_hash(data);
        let same =
            before.filter(|extent| extent.chunk.bytes as usize == data.len() && hash.0.starts_with(&extent.hash));
        if same.is_none() {
            slice.changed += data.len() as u64;
        }
        let place = match same.map(|extent| extent.chunk).or_else(|| self.dedup.lookup(&hash)) {
            Some(chunk) => Place::Known(chunk),
            None => self.store_alone(unit, hash, data, frames),
        };
        slice.pieces.push(Piece { offset: chunk.start, bytes: length(data), hash, place });
        Ok(true)
    }

    /// Stores a chunk unless this unit or one before it does already.
    fn store(&self, unit: u64, hash: ChunkHash, data: &[u8], frames: &mut Frames, position: u64) -> Place {
        self.taken(unit, &hash, frames).unwrap_or_else(|| frames.add(hash, data, position))
    }

    /// Stores a chunk in a frame of its own unless this unit or one before it stores it already.
    fn store_alone(&self, unit: u64, hash: ChunkHash, data: &[u8], frames: &mut Frames) -> Place {
        self.taken(unit, &hash, frames).unwrap_or_else(|| frames.add_alone(hash, data))
    }

    /// Where a chunk will be that is being stored; none makes it ours to store.
    fn taken(&self, unit: u64, hash: &ChunkHash, frames: &Frames) -> Option<Place> {
        frames.find(hash).or_else(|| match self.claims.claim(unit, hash) {
            Claimed::Earlier => Some(Place::Claimed),
            Claimed::Stored(chunk) => Some(Place::Known(chunk)),
            Claimed::Ours => None,
        })
    }
}

/// How many of these chunks would share a frame.
fn window(waiting: &[Waiting]) -> usize {
    let mut bytes = 0;
    let mut last = None;
    let outside = waiting.iter().position(|chunk| {
        let ends = bytes >= limits::GROUP_FRAME_BYTES || last.is_some_and(|last| far(last, chunk.position));
        bytes += chunk.place.len();
        last = Some(chunk.position);
        ends
    });
    outside.unwrap_or(waiting.len())
}

/// The chunks of the entry's own extents.
fn chunks_of(entry: &Entry) -> impl Iterator<Item = ChunkRef> {
    let extents = match &entry.body {
        Body::File(Content::Extents(extents)) => extents.as_slice(),
        _ => &[],
    };
    extents.iter().map(|extent| extent.chunk)
}

/// Bytes of a chunk.
fn length(data: &[u8]) -> u32 {
    // Chunks are cut to at most limits::FRAME_RAW_BYTES_MAX.
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}
