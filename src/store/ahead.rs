//! Where the readers of an object in a directory are, so that the kernel fetches what comes next.
//!
//! It does not see by itself that a pack is read in order: reads come from several threads, and most take only what is in memory
//! already. So whoever has to wait for the disk asks it for what lies behind, once for many reads, and whoever follows asks on
//! before the next one has to wait. Nothing is asked for an object that is in memory.

use std::ops::Range;

use parking_lot::Mutex;

use crate::base::limits;

/// How far the readers of one object have come.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    /// Where the last read in order ended.
    end: u64,
    /// Reads that were in order, one behind the other.
    in_order: u32,
    /// Up to where the kernel has been asked.
    asked: u64,
}

/// Reads in order, before anything is fetched ahead of the next.
const CERTAIN: u32 = 2;

impl Ahead {
    /// Notes that `range` is read.
    pub(super) fn note(&self, range: &Range<u64>) {
        let mut place = self.place.lock();
        let behind = range.start <= place.end.saturating_add(limits::STREAM_STEP_BYTES);
        // Two requests of one reader may overtake one another.
        if behind && range.start.saturating_add(limits::STREAM_SLACK_BYTES) >= place.end {
            place.in_order = place.in_order.saturating_add(1);
            place.end = place.end.max(range.end);
        } else {
            *place = Place { end: range.end, ..Place::default() };
        }
    }

    /// What the kernel is to fetch now of an object of `size` bytes, for a reader who has to wait for the disk; it counts as asked for.
    pub(super) fn wanted(&self, size: u64) -> Option<Range<u64>> {
        Self::next(&mut self.place.lock(), size)
    }

    /// The same for a reader who had not to wait: only if what he reads has been asked for. What was in memory all along is not.
    pub(super) fn going_on(&self, size: u64) -> Option<Range<u64>> {
        let mut place = self.place.lock();
        if place.asked < place.end { None } else { Self::next(&mut place, size) }
    }

    fn next(place: &mut Place, size: u64) -> Option<Range<u64>> {
        let upto = place.end.saturating_add(limits::LOCAL_AHEAD_BYTES).min(size);
        let from = place.asked.max(place.end);
        // Half of it is left to be read: no need yet.
        let enough = place.asked >= place.end.saturating_add(limits::LOCAL_AHEAD_BYTES / 2);
        if place.in_order < CERTAIN || enough || from >= upto {
            return None;
        }
        place.asked = upto;
        Some(from..upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 256 << 10;
    const SIZE: u64 = 64 << 20;

    #[test]
    fn what_is_read_in_order_is_asked_for_once_and_ahead_of_the_reader() {
        let ahead = Ahead::default();
        let mut asked: Vec<Range<u64>> = Vec::new();
        for at in (72..SIZE).step_by(usize::try_from(FRAME).unwrap()) {
            ahead.note(&(at..(at + FRAME).min(SIZE)));
            asked.extend(ahead.wanted(SIZE));
        }
        assert_eq!(asked.first().unwrap().start, 72 + FRAME * u64::from(CERTAIN));
        assert_eq!(asked.last().unwrap().end, SIZE);
        assert!(asked.windows(2).all(|pair| pair[0].end == pair[1].start), "{asked:?}");
        let most = SIZE / (limits::LOCAL_AHEAD_BYTES / 2) + 2;
        assert!(asked.len() as u64 <= most, "{} requests", asked.len());
    }

    #[test]
    fn requests_of_one_reader_may_overtake_one_another() {
        let ahead = Ahead::default();
        let asked = [1, 0, 3, 2, 5, 4].map(|frame| {
            ahead.note(&(frame * FRAME..(frame + 1) * FRAME));
            ahead.wanted(SIZE).is_some()
        });
        // The first of them begins too far behind the start.
        assert_eq!(asked.iter().filter(|asked| **asked).count(), 0, "{asked:?}");
        let small: u64 = 8 << 10;
        let asked = [1, 0, 3, 2, 5, 4].map(|frame| {
            ahead.note(&(frame * small..(frame + 1) * small));
            ahead.wanted(SIZE).is_some()
        });
        assert_eq!(asked.iter().filter(|asked| **asked).count(), 1, "{asked:?}");
    }

    #[test]
    fn who_need_not_wait_asks_on_where_somebody_has_waited() {
        let (warm, cold) = (Ahead::default(), Ahead::default());
        let mut asked: Vec<Range<u64>> = Vec::new();
        for frame in 0..SIZE / FRAME {
            let range = frame * FRAME..(frame + 1) * FRAME;
            warm.note(&range);
            assert_eq!(warm.going_on(SIZE), None);
            cold.note(&range);
            // Only the first reads find nothing in memory.
            asked.extend(if frame < 2 { cold.wanted(SIZE) } else { cold.going_on(SIZE) });
        }
        assert_eq!((asked.first().unwrap().start, asked.last().unwrap().end), (2 * FRAME, SIZE));
        assert!(asked.windows(2).all(|pair| pair[0].end == pair[1].start), "{asked:?}");
        // Somewhere else, it was not asked for.
        cold.note(&(0..FRAME));
        assert_eq!(cold.going_on(SIZE), None);
    }

    #[test]
    fn nothing_is_fetched_ahead_of_who_reads_here_and_there() {
        let ahead = Ahead::default();
        for at in [5, 3, 9, 1, 7, 2, 8].map(|place| place * (4 << 20)) {
            ahead.note(&(at..at + 4096));
            assert_eq!(ahead.wanted(SIZE), None);
        }
    }
}
