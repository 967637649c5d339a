//! Writes a disk's chunks and zeros to their places, and reads them back.
//!
//! One thread goes over the map and hands out stretches, several do them in any order: a chunk is written whole,
//! and nothing depends on another. Memory is bounded by the stretches under way.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::super::content::chunk_of;
use super::super::error::RestoreError;
use super::super::progress::Progress;
use super::super::sys;
use crate::format::map::MapExtent;
use crate::view::disk::DiskView;
use crate::view::namespace::ViewError;

/// Bytes of chunks in a stretch.
const STRETCH_BYTES: u64 = 4 << 20;
/// Bytes of zeros in a stretch: between two stretches a restore can be stopped.
const ZEROS_BYTES: u64 = 256 << 20;
/// Bytes that are looked at or filled at once where zeros belong.
const STEP_BYTES: usize = 1 << 20;
/// Threads that a restore uses unless told otherwise.
const WORKERS: (usize, usize) = (2, 8);

/// A disk and where in the target it stands.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Image<'a> {
    /// The disk.
    pub(in super::super) disk: &'a DiskView,
    /// Where in the target its byte 0 stands.
    pub(in super::super) shift: u64,
    /// Bytes of the target.
    pub(in super::super) bytes: u64,
}

/// What is known of what a target holds before it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum How {
    /// Nothing but zeros: they need not be written.
    OverZeros,
    /// Nothing: all is written.
    OverAnything,
    /// Much may be as it must be: it is read, and what differs is written.
    Differing,
}

/// What was done to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Bytes of chunks that were written.
    pub written_bytes: u64,
    /// Bytes of chunks that were there already.
    pub kept_bytes: u64,
    /// Bytes that were made zeros.
    pub zeroed_bytes: u64,
}

/// Writes one disk to one target.
pub(in super::super) struct Engine<'a> {
    image: Image<'a>,
    file: &'a File,
    how: How,
    workers: usize,
    progress: &'a Progress,
    written: AtomicU64,
    kept: AtomicU64,
    zeroed: AtomicU64,
}

/// A part of a disk that one thread does.
enum Stretch {
    Chunks(Vec<MapExtent>),
    Zeros(Range<u64>),
}

impl<'a> Engine<'a> {
    /// Writes `image` to `file` with so many threads; none lets the machine's size decide.
    pub(in super::super) fn new(
        image: Image<'a>,
        file: &'a File,
        how: How,
        workers: Option<usize>,
        progress: &'a Progress,
    ) -> Engine<'a> {
        let cores = std::thread::available_parallelism().map_or(WORKERS.0, NonZeroUsize::get);
        Engine {
            image,
            file,
            how,
            workers: workers.unwrap_or(cores.clamp(WORKERS.0, WORKERS.1)).max(1),
            progress,
            written: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            zeroed: AtomicU64::new(0),
        }
    }

    /// Makes the target's part that is the disk equal to it.
    ///
    /// # Errors
    /// [`RestoreError`]; what was written stays.
    pub(in super::super) fn write(&self) -> Result<Written, RestoreError> {
        self.each(|stretch| match stretch {
            Stretch::Chunks(chunks) => chunks.iter().try_for_each(|chunk| self.write_chunk(chunk)),
            Stretch::Zeros(range) => self.write_zeros(range),
        })?;
        Ok(self.counted())
    }

    /// What [`Engine::write`] would do to a target that may be partly as it must be; nothing is written, but what would
    /// be is fetched, so damage is met before there is any harm.
    ///
    /// # Errors
    /// [`RestoreError`] when the target or the repository cannot be read.
    pub(in super::super) fn difference(&self) -> Result<Written, RestoreError> {
        self.each(|stretch| {
            match stretch {
                Stretch::Chunks(chunks) => {
                    for chunk in &chunks {
                        let held = self.holds(chunk)?;
                        if !held {
                            self.fetch(chunk)?;
                        }
                        let counter = if held { &self.kept } else { &self.written };
                        counter.fetch_add(u64::from(chunk.chunk.bytes), Ordering::Relaxed);
                        self.progress.add_bytes(u64::from(chunk.chunk.bytes));
                    }
                }
                Stretch::Zeros(mut rest) => {
                    self.progress.add_bytes(rest.end - rest.start);
                    while let Some(found) = self.next_nonzero(rest.clone())? {
                        rest.start = found.end;
                        self.zeroed.fetch_add(found.end - found.start, Ordering::Relaxed);
                    }
                }
            }
            Ok(())
        })?;
        Ok(self.counted())
    }

    /// Whether all that is not as the disk has it is as `before` has it, which is as long as the target is meant to be
    /// or shorter: so nobody has written to the target but who was making it the disk.
    ///
    /// # Errors
    /// [`RestoreError`] when the target or the repository cannot be read.
    pub(in super::super) fn is_on_its_way_from(&self, before: &DiskView) -> Result<bool, RestoreError> {
        let strange = AtomicBool::new(false);
        let compare = |range: Range<u64>| -> Result<(), RestoreError> {
            let mut at = range.start;
            while at < range.end {
                let bytes = usize::try_from(range.end - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
                let mut found = vec![0; bytes];
                self.read(&mut found, at)?;
                let was = before.read_raw(at, bytes)?;
                let (same, beyond) = found.split_at(was.len().min(bytes));
                if *same != was || beyond.iter().any(|byte| *byte != 0) {
                    strange.store(true, Ordering::Relaxed);
                }
                at += bytes as u64;
            }
            Ok(())
        };
        self.each(|stretch| {
            if strange.load(Ordering::Relaxed) {
                return Ok(());
            }
            match stretch {
                Stretch::Chunks(chunks) => chunks.iter().try_for_each(|chunk| {
                    let end = chunk.offset + u64::from(chunk.chunk.bytes);
                    if self.holds(chunk)? { Ok(()) } else { compare(chunk.offset..end) }
                }),
                Stretch::Zeros(mut rest) => {
                    while let Some(found) = self.next_nonzero(rest.clone())? {
                        rest.start = found.end;
                        compare(found)?;
                    }
                    Ok(())
                }
            }
        })?;
        Ok(!strange.into_inner())
    }

    fn counted(&self) -> Written {
        Written {
            written_bytes: self.written.load(Ordering::Relaxed),
            kept_bytes: self.kept.load(Ordering::Relaxed),
            zeroed_bytes: self.zeroed.load(Ordering::Relaxed),
        }
    }

    /// Writes what stands before the disk in an image that has tables.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub(in super::super) fn write_tables(&self) -> Result<(), RestoreError> {
        let mut at = 0;
        while at < self.image.shift {
            let bytes = usize::try_from(self.image.shift - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            let tables = self.image.disk.read_qcow2(at, bytes)?;
            if self.how != How::OverZeros || tables.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(&tables, at).map_err(|source| self.failed("write", at, source))?;
            }
            at += bytes as u64;
        }
        Ok(())
    }

    /// Reads the disk back; how many bytes of it there are, all as they must be.
    ///
    /// # Errors
    /// [`RestoreError::Differs`] at the first byte that is another.
    pub(in super::super) fn verify(&self) -> Result<u64, RestoreError> {
        let verified = AtomicU64::new(0);
        self.each(|stretch| {
            let bytes = match &stretch {
                Stretch::Chunks(chunks) => chunks.iter().map(|chunk| u64::from(chunk.chunk.bytes)).sum(),
                Stretch::Zeros(range) => range.end - range.start,
            };
            let at = match stretch {
                Stretch::Chunks(chunks) => {
                    let mut wrong = None;
                    for chunk in &chunks {
                        if !self.holds(chunk)? {
                            wrong = Some(chunk.offset);
                            break;
                        }
                    }
                    wrong
                }
                Stretch::Zeros(range) => self.next_nonzero(range)?.map(|found| found.start),
            };
            verified.fetch_add(bytes, Ordering::Relaxed);
            self.progress.add_bytes(bytes);
            at.map_or(Ok(()), |at| Err(RestoreError::Differs { at }))
        })?;
        Ok(verified.into_inner())
    }

    /// Hands out all of the disk, in order, to several threads.
    fn each(&self, work: impl Fn(Stretch) -> Result<(), RestoreError> + Sync) -> Result<(), RestoreError> {
        let (send, receive) = crossbeam_channel::bounded::<Stretch>(2 * self.workers);
        let failed: Mutex<Option<RestoreError>> = Mutex::new(None);
        let planned = std::thread::scope(|scope| {
            for _ in 0..self.workers {
                let (receive, failed, work) = (receive.clone(), &failed, &work);
                scope.spawn(move || {
                    for stretch in receive {
                        if let Err(error) = work(stretch) {
                            // The others notice when nobody takes what they send.
                            failed.lock().get_or_insert(error);
                            return;
                        }
                    }
                });
            }
            drop(receive);
            let planned = self.plan(|stretch| {
                if self.progress.is_cancelled() {
                    return Err(RestoreError::Cancelled);
                }
                // Not asked in the condition itself: whoever waits to send must not hold the lock.
                let ended = failed.lock().is_some();
                Ok(!ended && send.send(stretch).is_ok())
            });
            drop(send);
            planned
        });
        failed.into_inner().map_or(planned, Err)
    }

    /// Cuts the disk into stretches, until `take` returns false.
    fn plan(&self, mut take: impl FnMut(Stretch) -> Result<bool, RestoreError>) -> Result<(), RestoreError> {
        let size = self.image.disk.bytes();
        let mut chunks: Vec<MapExtent> = Vec::new();
        let mut end = 0;
        let zeros = |range: Range<u64>, take: &mut dyn FnMut(Stretch) -> Result<bool, RestoreError>| {
            let mut at = range.start;
            while at < range.end {
                let upto = (at + ZEROS_BYTES).min(range.end);
                if !take(Stretch::Zeros(at..upto))? {
                    return Ok(false);
                }
                at = upto;
            }
            Ok::<bool, RestoreError>(true)
        };
        let mut goes_on = true;
        self.image.disk.each_chunk::<RestoreError>(|extent| {
            let bytes = u64::from(extent.chunk.bytes);
            let upto = extent.offset.checked_add(bytes).filter(|upto| extent.offset >= end && *upto <= size);
            let Some(upto) = upto else {
                return Err(RestoreError::View(ViewError::contradiction("a disk's chunks overlap or exceed it")));
            };
            if extent.offset > end || chunks.len() as u64 * bytes >= STRETCH_BYTES {
                goes_on = chunks.is_empty() || take(Stretch::Chunks(std::mem::take(&mut chunks)))?;
                goes_on = goes_on && zeros(end..extent.offset, &mut take)?;
            }
            chunks.push(*extent);
            end = upto;
            Ok(goes_on)
        })?;
        if goes_on && (chunks.is_empty() || take(Stretch::Chunks(chunks))?) {
            zeros(end..size, &mut take)?;
        }
        Ok(())
    }

    /// Whether the target has this chunk where it belongs.
    fn holds(&self, extent: &MapExtent) -> Result<bool, RestoreError> {
        let mut found = vec![0; extent.chunk.bytes as usize];
        self.read(&mut found, extent.offset)?;
        Ok(self.image.disk.is_chunk(&found, extent))
    }

    /// Fills `space` with what the target has at `at` of the disk; behind the end of a file that will be longer are zeros.
    fn read(&self, space: &mut [u8], at: u64) -> Result<(), RestoreError> {
        let mut filled = 0;
        while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, self.image.shift + at + filled as u64) {
                Ok(0) => {
                    rest.fill(0);
                    return Ok(());
                }
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed("read back", at, source)),
            }
        }
        Ok(())
    }

    fn fetch(&self, extent: &MapExtent) -> Result<Bytes, RestoreError> {
        let frame = self.image.disk.frame(&extent.chunk)?;
        match chunk_of(&frame, &extent.chunk) {
            Some(_) => Ok(frame),
            None => Err(RestoreError::View(ViewError::contradiction("a chunk exceeds its frame"))),
        }
    }

    fn write_chunk(&self, extent: &MapExtent) -> Result<(), RestoreError> {
        let bytes = u64::from(extent.chunk.bytes);
        if self.how == How::Differing && self.holds(extent)? {
            self.kept.fetch_add(bytes, Ordering::Relaxed);
        } else {
            let frame = self.fetch(extent)?;
            let data = chunk_of(&frame, &extent.chunk).unwrap_or_default();
            let at = self.image.shift + extent.offset;
            self.file.write_all_at(data, at).map_err(|source| self.failed("write", extent.offset, source))?;
            self.written.fetch_add(bytes, Ordering::Relaxed);
        }
        self.progress.add_bytes(bytes);
        Ok(())
    }

    fn write_zeros(&self, range: Range<u64>) -> Result<(), RestoreError> {
        let bytes = range.end - range.start;
        match self.how {
            How::OverZeros => {}
            How::OverAnything => {
                self.make_zero(range)?;
                self.zeroed.fetch_add(bytes, Ordering::Relaxed);
            }
            How::Differing => {
                let mut rest = range;
                while let Some(found) = self.next_nonzero(rest.clone())? {
                    rest.start = found.end;
                    self.zeroed.fetch_add(found.end - found.start, Ordering::Relaxed);
                    self.make_zero(found)?;
                }
            }
        }
        self.progress.add_bytes(bytes);
        Ok(())
    }

    /// The first step within `range` of the disk that is not all zeros in the target, from the first byte that is not
    /// up to the step's end.
    fn next_nonzero(&self, range: Range<u64>) -> Result<Option<Range<u64>>, RestoreError> {
        let failed = |source| self.failed("read back", range.start, source);
        let (mut at, end) = (self.image.shift + range.start, self.image.shift + range.end);
        let mut buffer = vec![0; STEP_BYTES];
        while at < end {
            match sys::seek_data(self.file, at) {
                Ok(Some(data)) if data < end => at = at.max(data),
                Ok(_) => return Ok(None),
                // A device, or a filesystem that cannot tell.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(failed(error)),
            }
            let bytes = usize::try_from(end - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            let space = buffer.get_mut(..bytes).unwrap_or_default();
            self.read(space, at - self.image.shift)?;
            let next = at + bytes as u64;
            if let Some(place) = space.iter().position(|byte| *byte != 0) {
                return Ok(Some(at + place as u64 - self.image.shift..next - self.image.shift));
            }
            at = next;
        }
        Ok(None)
    }

    /// Makes `range` of the disk zeros in the target: discarded or punched where that gives zeros, written otherwise.
    fn make_zero(&self, range: Range<u64>) -> Result<(), RestoreError> {
        let (start, end) = (self.image.shift + range.start, self.image.shift + range.end);
        let failed = |source| self.failed("make zeros", range.start, source);
        if sys::punch(self.file, start..end).map_err(failed)? {
            return Ok(());
        }
        let zeros = vec![0; STEP_BYTES];
        let mut at = start;
        while at < end {
            let bytes = usize::try_from(end - at).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            self.file.write_all_at(zeros.get(..bytes).unwrap_or_default(), at).map_err(failed)?;
            at += bytes as u64;
        }
        Ok(())
    }

    fn failed(&self, action: &'static str, at: u64, source: io::Error) -> RestoreError {
        RestoreError::Write { action, path: format!("byte {at} of the disk"), source }
    }
}
