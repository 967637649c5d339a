//! Reads that take long are made a second time, and the first answer counts.
//!
//! Among many reads over a network a few take many times as long as the others, because one server or connection does. A
//! read that has not begun to be answered when 95 of 100 recent ones had is slow; of a hundred reads, five may be repeated
//! for that ([Dean and Barroso, "The Tail at Scale"](https://research.google/pubs/the-tail-at-scale/)).

use std::time::Duration;

use parking_lot::Mutex;

use crate::base::limits;

/// A read earns this many parts of a hedge, which takes a hundred.
const PARTS: u64 = 100;
/// Hedges that may be saved up.
const SAVED_MAX: u64 = 4;

/// How long recent reads took until their answers began, and how many hedges are left.
#[derive(Debug, Default)]
pub(super) struct Hedges {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A ring of the last ones.
    samples: Vec<Duration>,
    next: usize,
    saved: u64,
}

impl Hedges {
    /// A read has begun to be answered after `time`.
    pub(super) fn answered(&self, time: Duration) {
        let mut state = self.state.lock();
        state.saved = (state.saved + limits::HEDGES_PER_HUNDRED).min(SAVED_MAX * PARTS);
        let at = state.next;
        match state.samples.get_mut(at) {
            Some(oldest) => *oldest = time,
            None => state.samples.push(time),
        }
        state.next = (at + 1) % limits::HEDGE_SAMPLES;
    }

    /// After this a read is slow; none while too little is known.
    pub(super) fn slow(&self) -> Option<Duration> {
        let mut samples = self.state.lock().samples.clone();
        if samples.len() < limits::HEDGE_SAMPLES_MIN {
            return None;
        }
        let at = samples.len() * limits::HEDGE_PERCENTILE / 100;
        let (_, slow, _) = samples.select_nth_unstable(at);
        Some((*slow).max(limits::HEDGE_DELAY_MIN))
    }

    /// Whether one more read may be made a second time.
    pub(super) fn spend(&self) -> bool {
        let mut state = self.state.lock();
        match state.saved.checked_sub(PARTS) {
            Some(left) => {
                state.saved = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_what_few_recent_reads_were() {
        let hedges = Hedges::default();
        for n in 0..15 {
            assert_eq!(hedges.slow(), None, "{n} reads tell nothing");
            hedges.answered(Duration::from_millis(30));
        }
        hedges.answered(Duration::from_millis(300));
        assert_eq!(hedges.slow(), Some(Duration::from_millis(300)), "one of 16 is more than 5 of 100");
        (0..40).for_each(|_| hedges.answered(Duration::from_millis(40)));
        assert_eq!(hedges.slow(), Some(Duration::from_millis(40)));
        (0..64).for_each(|_| hedges.answered(Duration::from_micros(5)));
        assert_eq!(hedges.slow(), Some(limits::HEDGE_DELAY_MIN), "what came before is forgotten");
    }

    #[test]
    fn five_of_a_hundred_reads_may_be_repeated() {
        let hedges = Hedges::default();
        let mut repeated = 0;
        for _ in 0..1000 {
            hedges.answered(Duration::from_millis(30));
            repeated += u32::from(hedges.spend());
        }
        assert_eq!(repeated, 50);
        (0..1000).for_each(|_| hedges.answered(Duration::from_millis(30)));
        assert_eq!((0..10).filter(|_| hedges.spend()).count(), 4, "few are saved up");
    }
}
