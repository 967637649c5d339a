//! Chunks that some unit under way is about to store, so that no other does.
//!
//! The chain's index learns of a chunk when its frame has been appended, but units are compressed
//! side by side: twins that stand close together would both be stored. A worker therefore claims what
//! it will store; a later unit that finds the claim relies on it, because results are recorded in the
//! order of units. An earlier unit takes the claim over, and what the later one has encoded in vain is
//! left out when that is recorded.
//!
//! A claim is a promise until it is settled, and knowledge afterwards: then its place is told at once,
//! because the index may be full and never learn of it. It is forgotten when no unit that relies on the
//! promise can be under way any more.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::format::{ChunkHash, ChunkRef};

/// The claims of all units under way.
#[derive(Debug)]
pub(super) struct Claims {
    /// Units that may be under way at once.
    window: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chunks: HashMap<ChunkHash, Claim>,
    /// Claims in the order in which they were settled.
    settled: VecDeque<(u64, ChunkHash)>,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    unit: u64,
    place: Option<ChunkRef>,
}

/// What became of a wish to store a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimed {
    /// It is ours to store: nobody has claimed it, or only a later unit.
    Ours,
    /// An earlier unit stores it, and will have done so when this one is recorded.
    Earlier,
    /// An earlier unit has stored it here.
    Stored(ChunkRef),
}

impl Claims {
    /// No claims, with at most `window` units under way at once.
    pub(super) fn new(window: u64) -> Claims {
        Claims { window, state: Mutex::default() }
    }

    /// Claims a chunk for `unit`.
    pub(super) fn claim(&self, unit: u64, hash: &ChunkHash) -> Claimed {
        let mut state = self.state.lock();
        match state.chunks.get(hash) {
            Some(Claim { place: Some(place), .. }) => Claimed::Stored(*place),
            Some(claim) if claim.unit < unit => Claimed::Earlier,
            _ => {
                state.chunks.insert(*hash, Claim { unit, place: None });
                Claimed::Ours
            }
        }
    }

    /// Says where `unit` has stored a chunk.
    pub(super) fn settle(&self, unit: u64, hash: &ChunkHash, place: ChunkRef) {
        let mut state = self.state.lock();
        if let Some(claim) = state.chunks.get_mut(hash)
            && claim.unit == unit
            && claim.place.is_none()
        {
            claim.place = Some(place);
            state.settled.push_back((unit, *hash));
        }
    }

    /// Where a chunk has been stored by the earliest unit that claimed it.
    pub(super) fn place(&self, hash: &ChunkHash) -> Option<ChunkRef> {
        self.state.lock().chunks.get(hash).and_then(|claim| claim.place)
    }

    /// Forgets what only units before `recorded` could rely on.
    pub(super) fn forget(&self, recorded: u64) {
        // Whoever relies on unit n was under way beside it, so its number is at most n + window: a claim
        // that has been settled is relied on by nobody new.
        let mut state = self.state.lock();
        while let Some((unit, hash)) = state.settled.front().copied() {
            if unit + self.window >= recorded {
                break;
            }
            state.settled.pop_front();
            state.chunks.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{ChainId, FrameHash, FrameOrdinal, FrameRef, LogNumber, Nonce, PackId, PackOrdinal, SessionId};

    fn place(start: u32) -> ChunkRef {
        let session = SessionId { base: LogNumber(1), random: Nonce([0; 16]) };
        let pack = PackId { chain: ChainId(0), session, ordinal: PackOrdinal(0) };
        let frame = FrameRef {
            pack,
            ordinal: FrameOrdinal(0),
            offset: 0,
            stored_bytes: 9,
            raw_bytes: 9,
            hash: FrameHash([0; 16]),
        };
        ChunkRef { frame, start, bytes: 1 }
    }

    #[test]
    fn only_later_units_rely_on_a_claim() {
        let claims = Claims::new(2);
        let hash = ChunkHash([7; 32]);
        assert_eq!(claims.claim(5, &hash), Claimed::Ours);
        assert_eq!(claims.claim(5, &hash), Claimed::Ours);
        assert_eq!(claims.claim(6, &hash), Claimed::Earlier);
        assert_eq!(claims.claim(4, &hash), Claimed::Ours, "taken over");
        assert_eq!(claims.claim(5, &hash), Claimed::Earlier);
        assert_eq!(claims.place(&hash), None);
        claims.settle(5, &hash, place(1));
        assert_eq!(claims.place(&hash), None, "the claimant no more");
        claims.settle(4, &hash, place(2));
        claims.settle(4, &hash, place(3));
        assert_eq!(claims.place(&hash), Some(place(2)));
        assert_eq!(claims.claim(7, &hash), Claimed::Stored(place(2)), "a promise no more");
        claims.forget(6);
        assert_eq!(claims.place(&hash), Some(place(2)), "unit 6 may rely on it");
        claims.forget(7);
        assert_eq!(claims.place(&hash), None);
        assert_eq!(claims.claim(8, &hash), Claimed::Ours);
    }
}
