//! Reads large files and streams slice by slice, with memory for a few slices whatever their size.

use std::io;

use super::chunk::Cutter;
use super::planner::Halt;
use super::unit::Cut;
use crate::seal::chunker::ChunkerKey;

/// Bytes of a slice, about.
pub(super) const SLICE_BYTES: usize = 4 << 20;
/// Bytes that are asked for at once.
const READ_BYTES: usize = 256 << 10;

/// Gathers bytes and cuts them by content.
#[derive(Debug)]
pub(super) struct Slicer {
    cutter: Cutter,
    data: Vec<u8>,
    cuts: Vec<Cut>,
    /// Bytes of `data` that have been cut.
    done: usize,
}

/// How reading went.
#[derive(Debug)]
pub(super) struct Ran {
    /// Bytes read.
    pub(super) bytes: u64,
    /// Why not more.
    pub(super) failed: Option<io::Error>,
}

impl Slicer {
    /// For a repository with this key for its cuts, or without one.
    pub(super) fn new(key: Option<&ChunkerKey>) -> Slicer {
        Slicer { cutter: Cutter::new(key), data: Vec::new(), cuts: Vec::new(), done: 0 }
    }

    /// Reads one stretch of data that begins at `offset`: at most `most` bytes, until `read` yields none.
    /// Full slices go to `emit`.
    ///
    /// # Errors
    /// Those of `emit`; a failure to read is told, and what was read before it is kept.
    pub(super) fn run(
        &mut self,
        offset: u64,
        most: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
        mut emit: impl FnMut(Vec<u8>, Vec<Cut>) -> Result<(), Halt>,
    ) -> Result<Ran, Halt> {
        let mut ran = Ran { bytes: 0, failed: None };
        // Where in the file the first byte that is not cut yet lies.
        let mut at = offset;
        loop {
            let wanted = usize::try_from(most - ran.bytes).unwrap_or(usize::MAX).min(READ_BYTES);
            let filled = self.data.len();
            self.data.resize(filled + wanted, 0);
            let got = match self.data.get_mut(filled..) {
                Some(space) if !space.is_empty() => read(offset + ran.bytes, space),
                _ => Ok(0),
            };
            let got = got.unwrap_or_else(|error| {
                ran.failed = Some(error);
                0
            });
            self.data.truncate(filled + got);
            ran.bytes += got as u64;
            let last = got == 0;
            while let Some(bytes) = self.cutter.cut(self.data.get(self.done..).unwrap_or_default(), last) {
                self.cuts.push(Cut { offset: at, place: self.done..self.done + bytes });
                self.done += bytes;
                at += bytes as u64;
            }
            if self.done >= SLICE_BYTES {
                let rest = self.data.split_off(self.done);
                self.done = 0;
                emit(std::mem::replace(&mut self.data, rest), std::mem::take(&mut self.cuts))?;
            }
            if last {
                return Ok(ran);
            }
        }
    }

    /// What has been cut and not been given away.
    pub(super) fn finish(self) -> (Vec<u8>, Vec<Cut>) {
        (self.data, self.cuts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a read yields at most.
    const STEPS: [usize; 3] = [usize::MAX, 1 << 20, 77_777];

    #[test]
    fn slices_join_to_what_was_read_whatever_the_reads_yield() {
        let mut data = vec![0u8; 11 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        let secret = ChunkerKey::new([1; 32]);
        let mut cuts_seen: Vec<Vec<(u64, usize)>> = Vec::new();
        for (key, step) in [None, Some(&secret)].into_iter().flat_map(|key| STEPS.map(|step| (key, step))) {
            let mut slicer = Slicer::new(key);
            let mut slices: Vec<(Vec<u8>, Vec<Cut>)> = Vec::new();
            // Two stretches with a hole between them.
            for (from, to) in [(0usize, 9 << 20), (10 << 20, 11 << 20)] {
                let ran = slicer
                    .run(
                        from as u64,
                        (to - from) as u64,
                        |at, space| {
                            let at = usize::try_from(at).unwrap();
                            let bytes = space.len().min(step).min(data.len() - at);
                            space[..bytes].copy_from_slice(&data[at..at + bytes]);
                            Ok(bytes)
                        },
                        |bytes, cuts| {
                            slices.push((bytes, cuts));
                            Ok(())
                        },
                    )
                    .unwrap();
                assert!(ran.failed.is_none() && ran.bytes == (to - from) as u64);
            }
            slices.push(slicer.finish());
            let mut cuts = Vec::new();
            for (bytes, of) in &slices {
                assert!(bytes.len() <= SLICE_BYTES + 2 * crate::base::limits::CDC_BYTES.2);
                assert_eq!(of.iter().map(|cut| cut.place.len()).sum::<usize>(), bytes.len());
                for cut in of {
                    let at = usize::try_from(cut.offset).unwrap();
                    assert_eq!(bytes[cut.place.clone()], data[at..at + cut.place.len()]);
                    cuts.push((cut.offset, cut.place.len()));
                }
            }
            assert_eq!(cuts.iter().map(|(_, bytes)| bytes).sum::<usize>(), 10 << 20);
            assert!(cuts.iter().any(|(offset, _)| *offset == 10 << 20), "a hole ends a chunk");
            cuts_seen.push(cuts);
        }
        let (plain, keyed) = cuts_seen.split_at(STEPS.len());
        for cuts in [plain, keyed] {
            assert!(cuts.windows(2).all(|pair| pair[0] == pair[1]), "borders do not depend on the reads");
        }
        assert_ne!(plain[0], keyed[0]);
    }

    #[test]
    fn a_failure_to_read_is_told_and_what_was_read_is_kept() {
        let mut slicer = Slicer::new(None);
        let mut reads = 0;
        let ran = slicer
            .run(
                0,
                u64::MAX,
                |_, space| {
                    reads += 1;
                    if reads > 1 {
                        return Err(io::Error::from_raw_os_error(libc::EIO));
                    }
                    space[..10].fill(1);
                    Ok(10)
                },
                |_, _| panic!("too little for a slice"),
            )
            .unwrap();
        assert_eq!((ran.bytes, ran.failed.and_then(|error| error.raw_os_error())), (10, Some(libc::EIO)));
        assert_eq!(slicer.finish().0, [1; 10]);
    }
}
