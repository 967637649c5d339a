//! Who may append to which source's log: generations of keys, keys that are revoked, sources that are handed over.
//!
//! Each is said in the logs of the sources concerned and then **pinned** in the repository's log ([`Pin`]): which entry stands
//! there, and what holds behind it. Whoever can write to the store and has lost his key could otherwise take the
//! entry away that says so, and go on from the one before it.
//!
//! Crash behaviour: what is interrupted is asked for again; what stands by then is not written twice. A log that is
//! damaged keeps nobody from the others: it is [`Unreached`], and named.

use super::error::ChainError;
use super::repo_log::RepoLog;
use super::source_log::SourceLog;
use super::state::{RepoGoal, SourceGoal, SourceState};
use crate::base::limits;
use crate::format::log::{Pin, SourceRecord};
use crate::format::{Epoch, KeyId, SourceId};

/// A source in whose log something could not be said.
#[derive(Debug)]
pub struct Unreached {
    /// The source.
    pub source: SourceRecord,
    /// Why.
    pub error: ChainError,
}

/// What is to be done with a log that is concerned.
enum Deed {
    /// Append this if it does not hold, and pin the log.
    Say(SourceGoal),
    /// Pin it: an earlier attempt may have appended what there was to say.
    Pin,
}

impl RepoLog {
    /// Has older generations of keys count for nothing, in the repository's log and in that of every source.
    ///
    /// # Errors
    /// [`ChainError`], of the repository's log. What failed in a source's own log is returned.
    pub fn raise_epoch(&self, epoch: Epoch) -> Result<Vec<Unreached>, ChainError> {
        self.append(RepoGoal::Epoch(epoch))?;
        self.in_each_log(|_, state| (!state.is_sealed()).then_some(Deed::Say(SourceGoal::Epoch(epoch))))
    }

    /// Has what this key writes count for nothing, in the repository's log and in those of its sources.
    ///
    /// # Errors
    /// As [`RepoLog::raise_epoch`].
    pub fn revoke(&self, key: KeyId) -> Result<Vec<Unreached>, ChainError> {
        self.append(RepoGoal::Revoke(key))?;
        self.in_each_log(|record, state| {
            if state.writer() == Some(key) {
                return Some(Deed::Say(SourceGoal::Writer(None)));
            }
            let may_have = record.owner == Some(key) || record.pin.is_some_and(|pin| pin.writer == Some(key));
            may_have.then_some(Deed::Pin)
        })
    }

    /// Lets this writer key add points to the source, and no other.
    ///
    /// # Errors
    /// [`ChainError`], of either log.
    pub fn grant(&self, source: SourceId, key: KeyId) -> Result<(), ChainError> {
        let log = self.source_log(source);
        log.append(SourceGoal::Writer(Some(key)))?;
        self.pin(log.refresh()?.pin().map(|pin| (source, pin)).into_iter().collect())
    }

    fn in_each_log(
        &self,
        concerns: impl Fn(&SourceRecord, &SourceState) -> Option<Deed>,
    ) -> Result<Vec<Unreached>, ChainError> {
        let (mut pins, mut unreached) = (Vec::new(), Vec::new());
        for record in self.refresh()?.sources() {
            let log = self.source_log(record.id);
            match act(&log, record, &concerns) {
                Ok(pin) => pins.extend(pin.map(|pin| (record.id, pin))),
                Err(error) => unreached.push(Unreached { source: record.clone(), error }),
            }
        }
        self.pin(pins)?;
        Ok(unreached)
    }

    fn pin(&self, pins: Vec<(SourceId, Pin)>) -> Result<(), ChainError> {
        pins.chunks(limits::PINS_PER_ENTRY).try_for_each(|pins| self.append(RepoGoal::Pin(pins.to_vec())))
    }
}

fn act(
    log: &SourceLog,
    record: &SourceRecord,
    concerns: impl Fn(&SourceRecord, &SourceState) -> Option<Deed>,
) -> Result<Option<Pin>, ChainError> {
    match concerns(record, &*log.load()?) {
        None => return Ok(None),
        Some(Deed::Pin) => {}
        Some(Deed::Say(goal)) => drop(log.append(goal)?),
    }
    Ok(log.load()?.pin())
}
