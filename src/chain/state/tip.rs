//! How far a log has been read, and what was wrong on the way.

use crate::format::log::EntryHash;
use crate::format::{Epoch, LogNumber};

/// What is wrong with an object of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The entry does not exist, though later ones do.
    Missing,
    /// The entry's bytes are not an entry; in words.
    Unreadable(String),
    /// The entry is well-formed, but continues another entry than the one below it.
    Discontinuous,
    /// A checkpoint's bytes are not a checkpoint; in words. The entries have all that it said.
    Checkpoint(String),
    /// The log ends before this entry, which this host has seen.
    RolledBack(LogNumber),
    /// The entry is another one than this host has seen under its number.
    Forked,
    /// This host has seen the entry, which cannot be read any more; why, in words. A checkpoint may have what it said, or have
    /// another's in its place.
    Withheld(String),
    /// The repository's log says that another entry stands here.
    Replaced,
    /// The log ends before this entry, which stands in it according to the repository's log.
    Shortened(LogNumber),
    /// The entry is sealed with keys of this epoch, which this process does not have; or it is junk that says so.
    NewerKeys(Epoch),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Missing => f.write_str("it is missing, though later entries exist"),
            Fault::Unreadable(why) | Fault::Checkpoint(why) => f.write_str(why),
            Fault::Discontinuous => f.write_str("it does not continue the entry below it: one of the two was replaced"),
            Fault::RolledBack(number) => write!(
                f,
                "this host has seen entry {number}, and it is not there any more: the repository was put back to an older \
                 state, or entries were taken away; if that was done on purpose, `amberfs repo accept-history` accepts it"
            ),
            Fault::Forked => f.write_str(
                "this host has seen another entry here: the repository was replaced, or shows different hosts \
                 different histories; if that was done on purpose, `amberfs repo accept-history` accepts it",
            ),
            Fault::Withheld(why) => write!(
                f,
                "this host has seen it, and now {why}: what stands behind it may be another history; if that was done on \
                 purpose, `amberfs repo accept-history` accepts it"
            ),
            Fault::Replaced => f.write_str("it was replaced: the repository's log names another entry in its place"),
            Fault::Shortened(number) => {
                write!(f, "entry {number} is gone, which the repository's log names: entries were taken away")
            }
            Fault::NewerKeys(epoch) => write!(
                f,
                "it is sealed with keys of epoch {epoch}, which the key in use does not have, or is junk: if somebody has run \
                 `amberfs key rotate`, a key that was added since tells which"
            ),
        }
    }
}

/// A damaged object of a log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Damage {
    /// The entry's number, or the newest that the checkpoint covers.
    pub number: LogNumber,
    /// What is wrong.
    pub fault: Fault,
}

impl Damage {
    /// Whether the log itself is in doubt, so that nothing may be appended.
    pub fn stops_writers(&self) -> bool {
        match self.fault {
            Fault::Missing
            | Fault::Unreadable(_)
            | Fault::Discontinuous
            | Fault::RolledBack(_)
            | Fault::Forked
            | Fault::Withheld(_)
            | Fault::Replaced
            | Fault::Shortened(_)
            | Fault::NewerKeys(_) => true,
            Fault::Checkpoint(_) => false,
        }
    }
}

/// How far a log has been read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tip {
    /// The newest entry read; 0 before the first.
    pub number: LogNumber,
    /// That entry's hash, which the next one must name; unknown behind an entry that was passed over.
    pub hash: Option<EntryHash>,
    /// Whether that entry itself has been read, not only a checkpoint that covers it.
    pub seen: bool,
    /// What was wrong with entries and checkpoints, in the order in which it was met.
    pub damage: Vec<Damage>,
}

impl Default for Tip {
    fn default() -> Tip {
        Tip { number: LogNumber(0), hash: Some(EntryHash::default()), seen: true, damage: Vec::new() }
    }
}

impl Tip {
    /// The tip of a state that a checkpoint stored.
    pub(super) fn covered(number: LogNumber, hash: EntryHash) -> Tip {
        Tip { number, hash: Some(hash), seen: number.0 == 0, damage: Vec::new() }
    }

    /// The entry at the tip exists, and is the one that the checkpoint knew.
    pub(in crate::chain) fn mark_seen(&mut self) {
        self.seen = true;
    }

    /// The number of the entry that comes next.
    pub fn next(&self) -> LogNumber {
        LogNumber(self.number.0.saturating_add(1))
    }

    /// The first damage that forbids appending.
    pub fn obstacle(&self) -> Option<&Damage> {
        self.damage.iter().find(|damage| damage.stops_writers())
    }

    /// Whether entry `number` was passed over, so that what it said is unknown.
    pub fn lost(&self, number: LogNumber) -> bool {
        self.lost_entries().any(|lost| lost == number)
    }

    /// Entries that were passed over.
    pub fn lost_entries(&self) -> impl Iterator<Item = LogNumber> {
        self.damage
            .iter()
            .filter(|damage| match damage.fault {
                Fault::Missing | Fault::Unreadable(_) | Fault::Replaced | Fault::NewerKeys(_) => true,
                Fault::Discontinuous | Fault::Checkpoint(_) => false,
                Fault::RolledBack(_) | Fault::Forked | Fault::Withheld(_) | Fault::Shortened(_) => false,
            })
            .map(|damage| damage.number)
    }

    /// On to an entry that has this hash, and names the one below if it says anything that counts.
    pub(super) fn advance(&mut self, number: LogNumber, previous: Option<EntryHash>, hash: EntryHash) {
        debug_assert_eq!(number, self.next(), "entries are read in order");
        if self.hash.zip(previous).is_some_and(|(expected, previous)| expected != previous) {
            self.damage.push(Damage { number, fault: Fault::Discontinuous });
        }
        self.number = number;
        self.hash = Some(hash);
        self.seen = true;
    }

    pub(super) fn pass(&mut self, number: LogNumber, fault: Fault) {
        debug_assert_eq!(number, self.next(), "entries are read in order");
        self.damage.push(Damage { number, fault });
        self.number = number;
        self.hash = None;
        self.seen = false;
    }

    /// Remembers a damaged checkpoint.
    pub(in crate::chain) fn note(&mut self, damage: Damage) {
        self.damage.push(damage);
    }
}
