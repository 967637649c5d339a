//! Tells reading in order from reading at random, and says what is worth fetching ahead. Pure.
//!
//! Frames lie in packs in the order of the walk that stored them: a file's chunks, the files of a directory, the leaves of
//! a tree. Whoever reads a large file, copies a directory or walks a tree therefore reads packs in order, and nothing
//! but places in packs is needed to see it. Incrementals scatter that over several packs; each is a stream of its own.
//!
//! Two data frames in a row make a stream: a random read costs its frame and nothing more. A node is fetched with its
//! neighbours from the first, since nodes are small and seldom read alone. What is fetched ahead doubles each time that
//! reading arrives in what was fetched last, so that at most three times what has been read is ever fetched in vain. Reading that
//! has left out most of what it passed is not in order, however it began: reads at random come near one another by accident.

use std::collections::VecDeque;
use std::ops::Range;

use crate::base::limits;

/// What is read, as far as that says what will be read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Contents: large, and read alone as often as in order.
    Data,
    /// Nodes of trees: small, in company.
    Nodes,
}

/// What to do beside what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advice {
    /// Fetch this if anything must be fetched: it contains what was asked.
    pub(super) together: Range<u64>,
    /// Fetch this ahead.
    pub(super) ahead: Option<Range<u64>>,
}

/// The readings in order that are under way, the latest first.
#[derive(Debug)]
pub(super) struct Streams<K> {
    recent: VecDeque<Stream<K>>,
}

#[derive(Debug)]
struct Stream<K> {
    object: K,
    begin: u64,
    /// The end of what has been read.
    next: u64,
    /// The end of what has been fetched.
    fetched: u64,
    /// Reading that arrives here has more fetched.
    mark: u64,
    /// Bytes to fetch then.
    window: u64,
    /// Where reading stood when it last was in order, or begun.
    origin: u64,
    /// Bytes that have been read since then, and behind it.
    read: u64,
    in_order: bool,
}

/// How a reading goes on.
enum Next {
    /// In what has been fetched already.
    Fetched,
    /// Beyond it: fetch this ahead.
    Ahead(Range<u64>),
    /// It was none: most of what it passed was not read.
    AtRandom,
}

impl<K> Default for Streams<K> {
    fn default() -> Streams<K> {
        Streams { recent: VecDeque::new() }
    }
}

impl<K: Copy + Eq> Streams<K> {
    /// `range` of `object` is about to be read.
    pub(super) fn read(&mut self, object: K, range: &Range<u64>, pattern: Pattern) -> Advice {
        let found = self.recent.iter().position(|stream| stream.object == object && stream.takes(range));
        let Some(mut stream) = found.and_then(|at| self.recent.remove(at)) else {
            return self.begin(object, range, pattern);
        };
        let ahead = match stream.go_on(range) {
            Next::Fetched => None,
            Next::Ahead(ahead) => Some(ahead),
            Next::AtRandom => return self.begin(object, range, pattern),
        };
        self.recent.push_front(stream);
        Advice { together: range.clone(), ahead }
    }

    fn begin(&mut self, object: K, range: &Range<u64>, pattern: Pattern) -> Advice {
        let together = match pattern {
            Pattern::Data => range.clone(),
            Pattern::Nodes => {
                let begin = range.start - range.start % limits::NODE_READ_BYTES;
                begin..range.end.max(begin + limits::NODE_READ_BYTES)
            }
        };
        let mark = match pattern {
            Pattern::Data => range.end,
            Pattern::Nodes => together.end - limits::NODE_READ_BYTES / 4,
        };
        self.recent.push_front(Stream {
            object,
            begin: together.start,
            next: range.end,
            fetched: together.end,
            mark,
            window: match pattern {
                Pattern::Data => 0,
                Pattern::Nodes => limits::AHEAD_BYTES_MIN,
            },
            origin: range.start,
            read: range.end - range.start,
            in_order: false,
        });
        self.recent.truncate(limits::STREAMS_MAX);
        Advice { together, ahead: None }
    }

    /// What was to be fetched ahead of `object` is not: the next read there asks again.
    pub(super) fn retract(&mut self, object: K, ahead: &Range<u64>) {
        if let Some(stream) = self.recent.iter_mut().find(|s| s.object == object && s.fetched == ahead.end) {
            (stream.fetched, stream.mark) = (ahead.start, ahead.start.min(stream.next));
            stream.window /= 2;
        }
    }
}

impl<K> Stream<K> {
    fn takes(&self, range: &Range<u64>) -> bool {
        let (back, forth) = match self.in_order {
            true => (self.next.saturating_sub(limits::STREAM_SLACK_BYTES), limits::STREAM_SLACK_BYTES),
            false => (self.begin.max(self.next.min(self.mark)), limits::STREAM_STEP_BYTES),
        };
        let inside = self.begin <= range.start && range.end <= self.fetched;
        inside || back <= range.start && range.start <= self.fetched.saturating_add(forth)
    }

    /// Goes on with `range`.
    fn go_on(&mut self, range: &Range<u64>) -> Next {
        if range.start >= self.origin {
            self.read += range.end - range.start;
        }
        self.next = self.next.max(range.end);
        self.fetched = self.fetched.max(range.end);
        if range.end <= self.mark {
            return Next::Fetched;
        }
        let passed = (self.next - self.origin).saturating_sub(limits::COALESCE_GAP_BYTES);
        if self.in_order && self.read.saturating_mul(limits::STREAM_READ_PARTS) < passed {
            return Next::AtRandom;
        }
        if !self.in_order {
            let shown = self.read.saturating_mul(limits::AHEAD_FIRST_TIMES).min(limits::AHEAD_BYTES_MIN);
            self.window = self.window.max(shown);
        }
        self.in_order = true;
        (self.origin, self.read) = (self.next, 0);
        let ahead = self.fetched..self.fetched.saturating_add(self.window);
        (self.mark, self.fetched) = (ahead.start, ahead.end);
        self.window = (self.window * 2).min(limits::AHEAD_BYTES_MAX);
        Next::Ahead(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 50_000;
    const MIB: u64 = 1 << 20;

    fn frame(n: u64) -> Range<u64> {
        n * FRAME..(n + 1) * FRAME
    }

    #[test]
    fn random_reads_fetch_their_frames_and_nothing_else() {
        let mut streams = Streams::default();
        let mut place = 1u64;
        for _ in 0..1000 {
            place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Frames of a pack of 64 MiB that are no neighbours of what was read just before.
            let range = frame(2 * ((place >> 33) % 640));
            assert_eq!(streams.read((), &range, Pattern::Data), Advice { together: range, ahead: None });
        }
    }

    #[test]
    fn reads_at_random_that_come_near_one_another_stay_reads_at_random() {
        // A file that compresses to 38 MB: a few reads in a hundred are beside one of the last 32.
        const SMALL: u64 = 12_000;
        let mut dice = 1u64;
        let (mut read, mut ahead, mut accidents) = (0, 0, 0);
        let mut streams = Streams::default();
        for _ in 0..2000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let n = (dice >> 33) % (38 * MIB / SMALL);
            let range = n * SMALL..(n + 1) * SMALL;
            read += SMALL;
            if let Some(more) = streams.read((), &range, Pattern::Data).ahead {
                (ahead, accidents) = (ahead + more.end - more.start, accidents + 1);
            }
        }
        assert!(
            accidents <= 2000 / 20 && ahead <= 3 * read / 2,
            "{accidents} accidents, {ahead} bytes ahead of {read}"
        );
    }

    #[test]
    fn a_reading_that_leaves_out_most_ends_and_one_that_leaves_out_some_does_not() {
        for (every, in_order) in [(1, true), (2, true), (3, true), (6, false), (10, false)] {
            let mut streams = Streams::default();
            let ahead = (0..4000 / every).filter_map(|n| {
                let n = if n < 2 { n } else { n * every };
                streams.read((), &frame(n), Pattern::Data).ahead
            });
            let last = ahead.last().unwrap();
            assert_eq!(last.end - last.start == limits::AHEAD_BYTES_MAX, in_order, "one frame of {every}");
        }
    }

    #[test]
    fn reading_in_order_is_seen_at_the_second_frame_and_its_window_doubles() {
        let mut streams = Streams::default();
        let mut fetched = Vec::new();
        for n in 0..1300 {
            let advice = streams.read((), &frame(n), Pattern::Data);
            assert_eq!(advice.together, frame(n));
            if let Some(ahead) = advice.ahead {
                let end: u64 = fetched.last().map_or(frame(n).end, |last: &Range<u64>| last.end);
                assert_eq!(ahead.start, end, "nothing twice, nothing left out");
                assert!(ahead.end - frame(n).end <= 2 * limits::AHEAD_BYTES_MAX);
                fetched.push(ahead);
            } else {
                assert!(n == 0 || frame(n).end <= fetched.last().unwrap().end, "never behind");
            }
        }
        let sizes: Vec<u64> = fetched.iter().map(|ahead| (ahead.end - ahead.start) / MIB).collect();
        assert_eq!(sizes, [1, 2, 4, 8, 8, 8, 8, 8, 8, 8, 8], "65 MB in 11 requests and the first frame");
    }

    #[test]
    fn what_is_fetched_in_vain_is_bounded_by_what_was_read() {
        for stop in 2..1000 {
            let mut streams = Streams::default();
            let ahead = (0..stop).filter_map(|n| streams.read((), &frame(n), Pattern::Data).ahead).last();
            let read = stop * FRAME;
            assert!(ahead.unwrap().end - read <= 3 * read + 3 * MIB, "after {stop} frames");
        }
    }

    #[test]
    fn streams_in_several_packs_and_places_do_not_disturb_one_another() {
        let mut streams = Streams::default();
        let mut ahead = [0u64; 4];
        for n in 0..40 {
            for (stream, bytes) in ahead.iter_mut().enumerate() {
                let at = if stream % 2 == 0 { n } else { 600 + n };
                let advice = streams.read(stream / 2, &frame(at), Pattern::Data);
                *bytes += advice.ahead.map_or(0, |ahead| ahead.end - ahead.start);
            }
        }
        assert_eq!(ahead, [7 * MIB; 4]);
    }

    #[test]
    fn reading_in_order_may_skip_and_go_back_a_little() {
        let mut streams = Streams::default();
        let order = [0, 1, 2, 5, 4, 3, 8, 12, 9, 10, 11, 20];
        for n in order {
            streams.read((), &frame(n), Pattern::Data);
        }
        assert_eq!(streams.recent.len(), 1);
        // Far away, another one begins.
        let far = frame(900);
        assert_eq!(streams.read((), &far, Pattern::Data), Advice { together: far, ahead: None });
    }

    #[test]
    fn a_node_comes_with_its_neighbours_and_a_walk_of_nodes_is_a_stream() {
        let mut streams = Streams::default();
        let node = |n: u64| n * 8000..(n + 1) * 8000;
        let mut requests = 0;
        let mut fetched = 0..0;
        for n in 0..600 {
            let advice = streams.read((), &node(n), Pattern::Nodes);
            if node(n).end > fetched.end {
                assert!(n == 0, "only the first node is waited for, not {n}");
                assert_eq!(advice.together, 0..limits::NODE_READ_BYTES);
                requests += 1;
                fetched = advice.together;
            }
            if let Some(ahead) = advice.ahead {
                requests += 1;
                fetched.end = ahead.end;
            }
        }
        assert_eq!(requests, 5, "4.8 MB of nodes");
        // A few nodes here and there in one neighbourhood are none.
        let mut streams = Streams::default();
        for n in [3, 1, 7, 5, 20, 2] {
            assert_eq!(streams.read((), &node(n), Pattern::Nodes).ahead, None);
        }
    }

    #[test]
    fn what_was_not_fetched_is_asked_for_again() {
        let mut streams = Streams::default();
        streams.read((), &frame(0), Pattern::Data);
        let ahead = streams.read((), &frame(1), Pattern::Data).ahead.unwrap();
        streams.retract((), &ahead);
        let again = streams.read((), &frame(2), Pattern::Data).ahead.unwrap();
        assert_eq!(again, frame(2).end..frame(2).end + MIB);
    }
}
