//! Why the points of a source, or the sources of a repository, could not be read or added to.

use crate::base::{Class, Classed};
use crate::format::object::{LogId, Object, ObjectName};
use crate::format::{Epoch, FormatError, LogNumber};
use crate::store::StoreError;

use super::state::{Damage, Fault, Refusal};

/// A log that could not be read or appended to.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The store failed; nothing was appended.
    #[error("cannot {doing} {}: {source}", describe(*log))]
    Store {
        /// What was tried, as a verb phrase.
        doing: &'static str,
        /// The log.
        log: LogId,
        /// What the store said.
        source: StoreError,
    },
    /// The store failed while an entry was under way.
    #[error(
        "cannot tell whether entry {number} of {} was written: {source}; look at the log again before trying again",
        describe(*log)
    )]
    InFlight {
        /// The log.
        log: LogId,
        /// Where our entry may stand, or may yet appear.
        number: LogNumber,
        /// What the store said.
        source: StoreError,
    },
    /// An object of the log is missing or is not what it must be, so nothing may be appended.
    #[error("{object} of {} is damaged: {fault}; nothing is written behind it; {} (`amberfs verify` tells \
             more)", describe(*log), way_out(*log))]
    Damaged {
        /// The log.
        log: LogId,
        /// The object.
        object: ObjectName,
        /// What is wrong with it, in words.
        fault: String,
    },
    /// An entry cannot be read without keys that somebody has made since, if it is one.
    #[error("{object} of {} is sealed with keys of epoch {epoch}, which this process does not have, or is junk: after \
             `amberfs key rotate`, start it again (a mount: mount again), and if that does not help, have this key added \
             again with `amberfs key add`; if keys were not rotated, somebody has put it there (`amberfs verify` \
             tells more)", describe(*log))]
    NewerKeys {
        /// The log.
        log: LogId,
        /// The object.
        object: ObjectName,
        /// The generation of keys.
        epoch: Epoch,
    },
    /// What the log says rules it out.
    #[error("{refusal}")]
    Refused {
        /// The log.
        log: LogId,
        /// Why.
        refusal: Refusal,
    },
    /// Appending would not be safe on this store.
    #[error(
        "{store} does not honour conditional creation: two writers could overwrite one another's commits, so nothing \
         is written; move the repository to a store that does, or see docs/stores.md about --single-writer"
    )]
    Unsafe {
        /// The store.
        store: String,
    },
    /// The store does not keep what it accepted.
    #[error(
        "the store accepted {object} and has something else in its place: it does not honour conditional writes, \
         or several programs write to it by other means"
    )]
    NotKept {
        /// The object.
        object: ObjectName,
    },
    /// Others won every race for the next number.
    #[error("too many writers append to {}: try again later", describe(*log))]
    Crowded {
        /// The log.
        log: LogId,
    },
    /// The entry exceeds what the format can hold.
    #[error("cannot append to {}: {source}", describe(*log))]
    Unwritable {
        /// The log.
        log: LogId,
        /// What is wrong with it.
        source: FormatError,
    },
}

impl Classed for ChainError {
    fn class(&self) -> Class {
        match self {
            // An object that is gone while its log is being read is damage, not an answer to what was asked.
            ChainError::Store { source, .. } | ChainError::InFlight { source, .. } => match source.class() {
                Class::NotFound => Class::Corrupt,
                class => class,
            },
            ChainError::Damaged { .. } => Class::Corrupt,
            ChainError::NewerKeys { .. } => Class::Denied,
            ChainError::Refused { refusal, .. } => refusal.class(),
            ChainError::Unsafe { .. } | ChainError::NotKept { .. } => Class::Unsupported,
            ChainError::Crowded { .. } => Class::Conflict,
            ChainError::Unwritable { .. } => Class::Invalid,
        }
    }
}

impl ChainError {
    /// Of an object of `log` that cannot be read, or is not what it should be.
    pub fn damaged(log: LogId, damage: &Damage) -> ChainError {
        let object = match damage.fault {
            Fault::Checkpoint(_) => Object::Checkpoint(log, damage.number),
            _ => Object::Entry(log, damage.number),
        };
        match damage.fault {
            Fault::NewerKeys(epoch) => ChainError::NewerKeys { log, object: object.name(), epoch },
            ref fault => ChainError::Damaged { log, object: object.name(), fault: fault.to_string() },
        }
    }
}

/// What somebody who meets damage in the log can do.
fn way_out(log: LogId) -> &'static str {
    match log {
        LogId::Repo => {
            "restore it from a copy of the repository; until then sources that were added later are captured as \
             before, and all others only into a new repository"
        }
        LogId::Source(_) => "restore it from a copy of the repository, or capture under another name",
    }
}

/// The log, for messages.
pub(super) fn describe(log: LogId) -> String {
    match log {
        LogId::Repo => "the repository's log".to_owned(),
        LogId::Source(source) => format!("the log of source {source}"),
    }
}
