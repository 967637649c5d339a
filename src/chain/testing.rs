//! Commits and logs for the unit tests of this layer.

use super::state::LogState;
use crate::base::Instant;
use crate::format::log::{Commit, EntryHash, LogEntry, NodeRef, Origin, Roots, Stats};
use crate::format::{
    ChainId, FileId, FrameHash, FrameOrdinal, FrameRef, LogNumber, Nonce, PackId, PackOrdinal, PointId, SessionId,
};

pub(crate) fn session(base: u64, random: u8) -> SessionId {
    SessionId { base: LogNumber(base), random: Nonce([random; 16]) }
}

pub(crate) fn origin(host: &str, path: &str) -> Origin {
    Origin { machine: format!("machine-of-{host}"), host: host.into(), path: path.as_bytes().to_vec() }
}

/// A commit at the given second after the epoch.
pub(crate) fn commit(session: SessionId, chain: u32, parent: Option<u64>, second: i64) -> Commit {
    let started = Instant::from_nanos(second * 1_000_000_000);
    let pack = PackId { chain: ChainId(chain), session, ordinal: PackOrdinal(0) };
    let frame = FrameRef {
        pack,
        ordinal: FrameOrdinal(0),
        offset: 32,
        stored_bytes: 10,
        raw_bytes: 10,
        hash: FrameHash([7; 16]),
    };
    Commit {
        session,
        chain: ChainId(chain),
        parent: parent.map(PointId),
        name: super::name::of_instant(started),
        labels: Vec::new(),
        started,
        captured: started,
        origin: origin("ash", "/home"),
        writer: "test".into(),
        reason: "test".into(),
        job: None,
        roots: Roots { entries: NodeRef { frame, level: 0, items: 1 }, maps: None, usage: None },
        next_file: FileId(2),
        packs: 1,
        stats: Stats::default(),
        problems: None,
        disk: None,
        scope: None,
        seal: None,
    }
}

pub(crate) fn entry<B>(number: u64, previous: EntryHash, body: B) -> LogEntry<B> {
    LogEntry {
        number: LogNumber(number),
        nonce: Nonce([number as u8; 16]),
        previous,
        written: Instant::from_nanos(number as i64),
        author: Default::default(),
        body,
    }
}

/// A hash that is as good as one over stored bytes, for tests without bytes.
pub(crate) fn hash(number: u64) -> EntryHash {
    let mut bytes = [0xee; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    EntryHash(bytes)
}

/// Appends `body` to the fold, and says whether it counts.
pub(crate) fn tell<S: LogState>(state: &mut S, body: S::Body) -> Result<u64, super::state::Void> {
    let number = state.tip().next().0;
    let previous = state.tip().hash.unwrap_or_default();
    state.apply(&entry(number, previous, body), hash(number)).map(|()| number)
}
