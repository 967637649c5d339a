//! The content of one file of a point, written to an empty file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;

use super::outcome::Report;
use super::write::{Stop, contradiction, refused};
use crate::format::ChunkRef;
use crate::format::entry::Content;
use crate::view::{Inode, PointView};

/// Writes contents. Shared by all workers.
#[derive(Clone, Copy)]
pub(super) struct Contents<'a> {
    pub(super) view: &'a PointView,
    pub(super) report: &'a Report<'a>,
    /// Threads for the content of one large file.
    pub(super) workers: usize,
}

/// Bytes of content from which on a file is written by several threads.
const SIDE_BY_SIDE_BYTES: u64 = 64 << 20;

/// Chunks that one of them takes at once, to wait for the others and for its turn at the file less often.
const TOGETHER: usize = 16;

impl Contents<'_> {
    /// Writes the content of `inode` into the empty `file`, holes as holes; how many bytes that took.
    pub(super) fn write(&self, inode: &Inode, content: &Content, file: &File) -> Result<u64, Stop> {
        let size = inode.entry().meta.size;
        let (written, end) = match content {
            Content::Hole => (0, 0),
            Content::Inline(bytes) if bytes.len() as u64 == size => {
                file.write_all_at(bytes, 0).map_err(refused("write"))?;
                self.report.progress.add_bytes(size);
                (size, size)
            }
            Content::Inline(_) => return Err(contradiction("it is not as long as the file")),
            Content::Mapped { data_bytes, .. } if *data_bytes >= SIDE_BY_SIDE_BYTES => {
                self.write_side_by_side(inode, file)?
            }
            Content::Extents(_) | Content::Mapped { .. } => {
                self.each_chunk(inode, |at, chunk| self.write_chunk(file, at, chunk))?
            }
        };
        if end < size {
            file.set_len(size).map_err(refused("set the size"))?;
            self.report.progress.add_bytes(size - end);
        }
        Ok(written)
    }

    /// Hands over the chunks of `inode` in order, refusing those that contradict one another; how many bytes they
    /// have, and where the last one ends.
    fn each_chunk(
        &self,
        inode: &Inode,
        mut take: impl FnMut(u64, &ChunkRef) -> Result<(), Stop>,
    ) -> Result<(u64, u64), Stop> {
        let size = inode.entry().meta.size;
        let (mut written, mut end) = (0, 0);
        self.view.each_chunk(inode, |at, chunk| {
            if self.report.is_halted() {
                return Err(Stop::Halted);
            }
            let upto = at.checked_add(u64::from(chunk.bytes)).filter(|upto| at >= end && *upto <= size);
            let upto = upto.ok_or_else(|| contradiction("its extents overlap or exceed the file"))?;
            take(at, chunk)?;
            self.report.progress.add_bytes(upto - end);
            written += u64::from(chunk.bytes);
            end = upto;
            Ok(true)
        })?;
        Ok((written, end))
    }

    fn write_chunk(&self, file: &File, at: u64, chunk: &ChunkRef) -> Result<(), Stop> {
        let frame = self.view.frame(chunk)?;
        let data = chunk_of(&frame, chunk).ok_or_else(|| contradiction("a chunk exceeds its frame"))?;
        file.write_all_at(data, at).map_err(refused("write"))
    }

    /// As [`Contents::each_chunk`] with [`Contents::write_chunk`], by several threads: one file can be all there is.
    fn write_side_by_side(&self, inode: &Inode, file: &File) -> Result<(u64, u64), Stop> {
        let (send, receive) = crossbeam_channel::bounded::<Vec<(u64, ChunkRef)>>(2 * self.workers);
        let failed = Mutex::new(None);
        let told = std::thread::scope(|scope| {
            for _ in 0..self.workers {
                let (receive, failed) = (receive.clone(), &failed);
                scope.spawn(move || {
                    for chunks in receive {
                        let written = chunks.iter().try_for_each(|(at, chunk)| self.write_chunk(file, *at, chunk));
                        if let Err(stop) = written {
                            // The others notice when nobody takes what they send.
                            failed.lock().get_or_insert(stop);
                            return;
                        }
                    }
                });
            }
            drop(receive);
            let mut chunks = Vec::with_capacity(TOGETHER);
            let hand_over = |chunks: &mut Vec<_>| {
                // Not asked in the condition itself: whoever waits to send must not hold the lock.
                let ended = failed.lock().is_some();
                let full = std::mem::replace(chunks, Vec::with_capacity(TOGETHER));
                if ended { Err(Stop::Halted) } else { send.send(full).map_err(|_| Stop::Halted) }
            };
            let told = self.each_chunk(inode, |at, chunk| {
                chunks.push((at, *chunk));
                if chunks.len() < TOGETHER { Ok(()) } else { hand_over(&mut chunks) }
            });
            let told = told.and_then(|told| hand_over(&mut chunks).map(|()| told));
            drop(send);
            told
        });
        match failed.into_inner() {
            Some(stop) => Err(stop),
            None => told,
        }
    }
}

/// The bytes of `chunk` in its decoded frame.
pub(super) fn chunk_of<'f>(frame: &'f [u8], chunk: &ChunkRef) -> Option<&'f [u8]> {
    let start = usize::try_from(chunk.start).ok()?;
    frame.get(start..start.checked_add(usize::try_from(chunk.bytes).ok()?)?)
}
