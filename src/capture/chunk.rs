//! Where files are cut into chunks.
//!
//! Up to [`limits::WHOLE_FILE_BYTES_MAX`] a stretch of data is one chunk: files have natural borders.
//! Longer ones are cut by content (FastCDC, Xia et al., USENIX ATC 2016 and IEEE TPDS 2020; under a key
//! [`KeyedChunker`]), so that an insertion moves no borders behind it. Files from [`limits::FIXED_FILE_BYTES_MIN`] on are taken to be
//! updated in place (disk images, databases) and cut at multiples of [`limits::FIXED_CHUNK_BYTES`]:
//! a write then changes one small chunk, and none is searched for.
//!
//! A chunk never reaches into a hole: what the filesystem reports as a hole is not read and stays one,
//! and zeros that are allocated stay data, so `SEEK_HOLE` gives the same answers in a point.

use std::fs::File;
use std::io;
use std::ops::Range;

use fastcdc::v2020::FastCDC;

use super::sys;
use crate::base::limits;
use crate::seal::chunker::{ChunkerKey, KeyedChunker};

/// How a file of some size is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cutting {
    /// Each stretch of data is one chunk.
    Whole,
    /// By content.
    Content,
    /// At fixed offsets.
    Fixed,
}

impl Cutting {
    /// For a file of `size` bytes.
    pub(super) fn of(size: u64) -> Cutting {
        if size <= limits::WHOLE_FILE_BYTES_MAX {
            Cutting::Whole
        } else if size < limits::FIXED_FILE_BYTES_MIN {
            Cutting::Content
        } else {
            Cutting::Fixed
        }
    }
}

/// Cuts by content.
#[derive(Debug)]
pub(super) enum Cutter {
    /// At places that whoever has the data can compute, too.
    Plain,
    /// At places that follow from a secret, so that they tell nobody else what the data is.
    Keyed(Box<KeyedChunker>),
}

impl Cutter {
    /// Of a repository with this key, or without one.
    pub(super) fn new(key: Option<&ChunkerKey>) -> Cutter {
        key.map_or(Cutter::Plain, |key| Cutter::Keyed(Box::new(KeyedChunker::new(key, limits::CDC_BYTES))))
    }

    /// The length of the first chunk of `data`; none when more of the stretch must be seen first. With `last`,
    /// nothing follows `data`, and only empty data yields none.
    pub(super) fn cut(&mut self, data: &[u8], last: bool) -> Option<usize> {
        let (least, usual, most) = limits::CDC_BYTES;
        if data.is_empty() || (data.len() < most && !last) {
            return None;
        }
        Some(match self {
            Cutter::Plain => FastCDC::new(data, least, usual, most).cut(0, data.len()).1,
            Cutter::Keyed(chunker) => chunker.cut(data),
        })
    }
}

/// The grid on which something is cut at fixed offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    /// Bytes of a cell.
    pub(super) cell: u64,
    /// Whether a cell is read whole, holes in it as zeros, and is nothing when it is all zeros. Of a file, a
    /// hole ends a chunk and zeros are data; of a disk, nobody can tell one from the other.
    pub(super) whole: bool,
}

impl Grid {
    /// For files that are updated in place.
    pub(super) const FILE: Grid = Grid { cell: limits::FIXED_CHUNK_BYTES as u64, whole: false };

    /// The last border at or before `at`.
    pub(super) fn down(&self, at: u64) -> u64 {
        at / self.cell * self.cell
    }

    /// The first border at or behind `at`.
    pub(super) fn up(&self, at: u64) -> u64 {
        at.div_ceil(self.cell).saturating_mul(self.cell)
    }
}

/// Whether all of `data` is zero.
pub(super) fn is_zero(data: &[u8]) -> bool {
    // Whole blocks without a branch for each byte, so that the compiler can use wide registers.
    data.chunks(1024).all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
}

/// `stretch` cut at the borders of `grid`.
pub(super) fn fixed(stretch: Range<u64>, grid: Grid) -> impl Iterator<Item = Range<u64>> {
    let step = grid.cell;
    let mut at = stretch.start;
    std::iter::from_fn(move || {
        if at >= stretch.end {
            return None;
        }
        let end = ((at / step + 1) * step).min(stretch.end);
        let piece = at..end;
        at = end;
        Some(piece)
    })
}

/// The stretches of data in the part `within` of `file`, in order; what lies between them are holes.
///
/// # Errors
/// Those of `lseek`. A filesystem that cannot tell data from holes has data only.
pub(super) fn stretches(file: &File, within: Range<u64>) -> impl Iterator<Item = io::Result<Range<u64>>> + '_ {
    let mut at = within.start;
    let end = within.end;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let found = next_stretch(file, at, end);
        at = match &found {
            Ok(Some(stretch)) => stretch.end,
            Ok(None) | Err(_) => end,
        };
        found.transpose()
    })
}

fn next_stretch(file: &File, at: u64, end: u64) -> io::Result<Option<Range<u64>>> {
    match sys::seek_data(file, at) {
        Ok(Some(start)) if start < end => {
            let hole = sys::seek_hole(file, start)?.unwrap_or(end);
            // A hole that was punched between the two questions leaves a stretch of no length: it is one byte
            // of data then, so that the search moves on and the reader sees what is there.
            Ok(Some(start..hole.clamp(start + 1, end)))
        }
        Ok(_) => Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOTTY)) => {
            Ok(Some(at..end))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Reproducible bytes that do not repeat.
    fn noise(bytes: usize, seed: u8) -> Vec<u8> {
        let mut data = vec![0u8; bytes];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut data);
        data
    }

    /// Of both kinds.
    fn cutters() -> [Cutter; 2] {
        [Cutter::new(None), Cutter::new(Some(&ChunkerKey::new([1; 32])))]
    }

    fn cut_all(cutter: &mut Cutter, data: &[u8]) -> Vec<usize> {
        let mut rest = data;
        let mut lengths = Vec::new();
        while let Some(length) = cutter.cut(rest, true) {
            lengths.push(length);
            rest = &rest[length..];
        }
        lengths
    }

    #[test]
    fn size_decides_how_a_file_is_cut() {
        let (mib, fixed) = (limits::WHOLE_FILE_BYTES_MAX, limits::FIXED_FILE_BYTES_MIN);
        for (size, cutting) in [
            (0, Cutting::Whole),
            (mib, Cutting::Whole),
            (mib + 1, Cutting::Content),
            (fixed - 1, Cutting::Content),
            (fixed, Cutting::Fixed),
            (u64::MAX, Cutting::Fixed),
        ] {
            assert_eq!(Cutting::of(size), cutting, "{size}");
        }
    }

    #[test]
    fn chunks_have_their_sizes_and_survive_an_insertion() {
        let data = noise(8 << 20, 1);
        let mut longer = b"inserted".to_vec();
        longer.extend_from_slice(&data);
        let (least, _, most) = limits::CDC_BYTES;
        for mut cutter in cutters() {
            let lengths = cut_all(&mut cutter, &data);
            assert_eq!(lengths.iter().sum::<usize>(), data.len());
            assert!(lengths.iter().rev().skip(1).all(|length| (least..=most).contains(length)), "{lengths:?}");

            let mut hashes = |data: &[u8]| {
                let mut rest = data;
                cut_all(&mut cutter, data)
                    .into_iter()
                    .map(|length| {
                        let (chunk, tail) = rest.split_at(length);
                        rest = tail;
                        blake3::hash(chunk)
                    })
                    .collect::<Vec<_>>()
            };
            let (before, after) = (hashes(&data), hashes(&longer));
            let kept = after.iter().filter(|hash| before.contains(hash)).count();
            assert!(kept + 3 >= after.len(), "{cutter:?}: {kept} of {} chunks kept", after.len());
        }
    }

    #[test]
    fn borders_do_not_depend_on_how_much_was_seen_at_once() {
        let data = noise(5 << 20, 2);
        let (_, _, most) = limits::CDC_BYTES;
        let wholes = cutters().map(|mut cutter| cut_all(&mut cutter, &data));
        assert_ne!(wholes[0], wholes[1]);
        for (mut cutter, whole) in cutters().into_iter().zip(wholes) {
            let mut piecewise = Vec::new();
            let mut at = 0;
            while at < data.len() {
                // Exactly as much as a streaming reader must have, no more.
                let end = (at + most).min(data.len());
                let length = cutter.cut(&data[at..end], end == data.len()).unwrap();
                piecewise.push(length);
                at += length;
            }
            assert_eq!(piecewise, whole);
            assert_eq!(cutter.cut(&data[..most - 1], false), None);
            assert_eq!(cutter.cut(&[], true), None);
        }
    }

    #[test]
    fn fixed_chunks_lie_on_the_grid() {
        let step = limits::FIXED_CHUNK_BYTES as u64;
        let fixed = |stretch| fixed(stretch, Grid::FILE);
        assert_eq!(fixed(5..2 * step + 1).collect::<Vec<_>>(), [5..step, step..2 * step, 2 * step..2 * step + 1]);
        assert_eq!(fixed(step..step).count(), 0);
        assert!(fixed(0..step).eq(std::iter::once(0..step)));
    }

    #[test]
    fn holes_are_not_data_and_zeros_are() {
        let file = tempfile::tempfile().unwrap();
        let step = 1 << 16;
        file.write_all_at(&[0; 100], 2 * step).unwrap();
        file.write_all_at(b"x", 9 * step).unwrap();
        file.set_len(20 * step).unwrap();
        let found: Vec<_> = stretches(&file, 0..20 * step).map(Result::unwrap).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains(&(2 * step)) && found[1].contains(&(9 * step)), "{found:?}");
        assert_eq!(stretches(&file, 12 * step..20 * step).count(), 0);
        // A part of the file gives its share only.
        let part: Vec<_> = stretches(&file, 2 * step + 10..2 * step + 20).map(Result::unwrap).collect();
        assert!(part.iter().eq(std::iter::once(&(2 * step + 10..2 * step + 20))));
    }
}
