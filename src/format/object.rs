//! The one place that builds and parses object names.
//!
//! ```text
//! amberfs                                          marker: makes this prefix a repository
//! log/<number>                                     repository log
//! checkpoint/<number, counted down>                its checkpoints, newest first
//! source/<id>/log/<number>                         a source's log
//! source/<id>/checkpoint/<number, counted down>    its checkpoints, newest first
//! source/<id>/chain/<chain>/<base>-<random>-<ordinal>.pack
//! key/<slot>/<epoch, counted down>                 key slots, newest first
//! key/<slot>/removal-<epoch, counted down>-<random>  that a removal of a slot has begun
//! probe/<random>                                   tests of the store, deleted at once
//! lease/<holder>-<beat>                            a writer's sign of life, in single-writer mode
//! lease/single-writer                              this repository is written to in single-writer mode
//! ```
//! Numbers are decimal, zero-padded to 20 digits, so that names sort as numbers do; sources are
//! padded to 8 digits, chains and pack ordinals to 6.

use std::fmt;

use super::ids::{ChainId, Epoch, LogNumber, Nonce, PackId, PackOrdinal, SessionId, SlotId, SourceId};
use crate::base::hex;

/// A name under the repository's prefix: parts joined by `/`, ASCII only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that a store listed. Any text is a name; [`Object::parse`] says whether it is one of ours.
    pub fn listed(text: &str) -> ObjectName {
        ObjectName(text.to_owned())
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which log: the repository's or a source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogId {
    /// The repository log.
    Repo,
    /// The log of a source.
    Source(SourceId),
}

/// What an object is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// The repository's marker.
    Marker,
    /// A log entry.
    Entry(LogId, LogNumber),
    /// A checkpoint that covers all entries up to and with this number.
    Checkpoint(LogId, LogNumber),
    /// A pack.
    Pack(SourceId, PackId),
    /// A key slot, as of an epoch.
    Slot(SlotId, Epoch),
    /// That a removal of a key slot has begun, as of an epoch: which one.
    Removal(SlotId, Epoch, Nonce),
    /// A store test's object.
    Probe(Nonce),
    /// A writer's sign of life in single-writer mode: whose, and which.
    Lease(Nonce, u64),
    /// That the repository is written to in single-writer mode.
    SingleWriter,
}

/// The prefix of what tests of the store write, with the closing `/`.
pub const PROBES_PREFIX: &str = "probe/";

/// The prefix of all leases, with the closing `/`.
pub const LEASES_PREFIX: &str = "lease/";

fn log_prefix(log: LogId) -> String {
    match log {
        LogId::Repo => String::new(),
        LogId::Source(id) => format!("source/{:08}/", id.0),
    }
}

/// The prefix of all entries of `log`, with the closing `/`.
pub fn entries_prefix(log: LogId) -> String {
    format!("{}log/", log_prefix(log))
}

/// The prefix of all checkpoints of `log`, with the closing `/`.
pub fn checkpoints_prefix(log: LogId) -> String {
    format!("{}checkpoint/", log_prefix(log))
}

/// The prefix of all objects of `source`, with the closing `/`.
pub fn source_prefix(source: SourceId) -> String {
    log_prefix(LogId::Source(source))
}

/// The prefix of all packs of `source`, with the closing `/`.
pub fn packs_prefix(source: SourceId) -> String {
    format!("source/{:08}/chain/", source.0)
}

/// The prefix of all key slots, with the closing `/`.
pub const SLOTS_PREFIX: &str = "key/";

const REMOVAL: &str = "removal-";

/// The prefix of all epochs of a key slot, with the closing `/`.
pub fn slot_prefix(slot: SlotId) -> String {
    format!("{SLOTS_PREFIX}{slot}/")
}

impl Object {
    /// The object's name.
    pub fn name(&self) -> ObjectName {
        ObjectName(match self {
            Object::Marker => "amberfs".to_owned(),
            Object::Entry(log, number) => format!("{}{:020}", entries_prefix(*log), number.0),
            Object::Checkpoint(log, number) => format!("{}{:020}", checkpoints_prefix(*log), u64::MAX - number.0),
            Object::Pack(source, pack) => format!(
                "{}{:06}/{:020}-{}-{:06}.pack",
                packs_prefix(*source),
                pack.chain.0,
                pack.session.base.0,
                pack.session.random,
                pack.ordinal.0
            ),
            Object::Slot(slot, epoch) => format!("{}{:010}", slot_prefix(*slot), u32::MAX - epoch.0),
            Object::Removal(slot, epoch, removal) => {
                format!("{}{REMOVAL}{:010}-{removal}", slot_prefix(*slot), u32::MAX - epoch.0)
            }
            Object::Probe(nonce) => format!("{PROBES_PREFIX}{nonce}"),
            Object::Lease(holder, beat) => format!("{LEASES_PREFIX}{holder}-{beat:020}"),
            Object::SingleWriter => format!("{LEASES_PREFIX}single-writer"),
        })
    }

    /// The object that `name` names, if it is exactly one of ours.
    pub fn parse(name: &ObjectName) -> Option<Object> {
        let parts: Vec<&str> = name.0.split('/').collect();
        let object = match *parts.as_slice() {
            ["amberfs"] => Object::Marker,
            ["probe", random] => Object::Probe(Nonce(hex::decode(random)?)),
            ["key", slot, last] => {
                let slot = SlotId(hex::decode(slot)?);
                match last.strip_prefix(REMOVAL).map(|removal| removal.split_once('-')) {
                    None => Object::Slot(slot, epoch_counted_down(last)?),
                    Some(removal) => {
                        let (epoch, random) = removal?;
                        Object::Removal(slot, epoch_counted_down(epoch)?, Nonce(hex::decode(random)?))
                    }
                }
            }
            ["lease", "single-writer"] => Object::SingleWriter,
            ["lease", lease] => {
                let (holder, beat) = lease.split_once('-')?;
                Object::Lease(Nonce(hex::decode(holder)?), decimal(beat)?)
            }
            ["log", number] => Object::Entry(LogId::Repo, LogNumber(decimal(number)?)),
            ["checkpoint", number] => Object::Checkpoint(LogId::Repo, counted_down(number)?),
            ["source", id, "log", number] => {
                Object::Entry(LogId::Source(SourceId(decimal(id)?)), LogNumber(decimal(number)?))
            }
            ["source", id, "checkpoint", number] => {
                Object::Checkpoint(LogId::Source(SourceId(decimal(id)?)), counted_down(number)?)
            }
            ["source", id, "chain", chain, pack] => {
                let mut fields = pack.strip_suffix(".pack")?.split('-');
                let (base, random, ordinal) = (fields.next()?, fields.next()?, fields.next()?);
                if fields.next().is_some() {
                    return None;
                }
                let session = SessionId { base: LogNumber(decimal(base)?), random: Nonce(hex::decode(random)?) };
                let ordinal = PackOrdinal(u32::try_from(decimal(ordinal)?).ok()?);
                let chain = ChainId(u32::try_from(decimal(chain)?).ok()?);
                Object::Pack(SourceId(decimal(id)?), PackId { chain, session, ordinal })
            }
            _ => return None,
        };
        (object.name() == *name).then_some(object)
    }
}

fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn epoch_counted_down(text: &str) -> Option<Epoch> {
    Some(Epoch(u32::MAX - u32::try_from(decimal(text)?).ok()?))
}

fn counted_down(text: &str) -> Option<LogNumber> {
    Some(LogNumber(u64::MAX - decimal(text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_parses_back_and_nothing_else_does() {
        let session = SessionId { base: LogNumber(17), random: Nonce([0xab; 16]) };
        let pack = PackId { chain: ChainId(3), session, ordinal: PackOrdinal(9) };
        for object in [
            Object::Marker,
            Object::Entry(LogId::Repo, LogNumber(1)),
            Object::Entry(LogId::Source(SourceId(2)), LogNumber(u64::MAX)),
            Object::Checkpoint(LogId::Repo, LogNumber(64)),
            Object::Checkpoint(LogId::Source(SourceId(123_456_789)), LogNumber(0)),
            Object::Pack(SourceId(2), pack),
            Object::Slot(SlotId([0xcd; 16]), Epoch(1)),
            Object::Slot(SlotId([2; 16]), Epoch(u32::MAX)),
            Object::Removal(SlotId([2; 16]), Epoch(3), Nonce([4; 16])),
            Object::Probe(Nonce([1; 16])),
            Object::Lease(Nonce([2; 16]), 17),
            Object::SingleWriter,
        ] {
            assert_eq!(Object::parse(&object.name()), Some(object));
        }
        for name in
            ["", "amberfs/", "log/1", "log/00000000000000000001#1", "source/2/log/00000000000000000001", "probe/xy"]
        {
            assert_eq!(Object::parse(&ObjectName::listed(name)), None, "{name}");
        }
    }

    #[test]
    fn newer_checkpoints_sort_first() {
        let name = |n| Object::Checkpoint(LogId::Repo, LogNumber(n)).name();
        assert!(name(128) < name(64));
    }
}
