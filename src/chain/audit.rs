//! Everything a log has, read and compared: also the entries and checkpoints that a reader can do without.
//!
//! Readers start from the newest checkpoint, so damage below it would be met only when that checkpoint
//! is lost too. An audit folds the log from its first entry and holds each checkpoint against the fold.

use std::collections::BTreeSet;

use super::error::ChainError;
use super::log::{Log, Reading};
use super::state::{Damage, Fault, LogState, Void};
use crate::base::limits;
use crate::format::LogNumber;

/// Entries that are read side by side, and held at once.
const BATCH_ENTRIES: u64 = 256;

/// What an audit found.
#[derive(Debug, Clone)]
pub struct Audit<S> {
    /// The fold of all readable entries, without help of any checkpoint.
    pub state: S,
    /// Entries that were read.
    pub entries: u64,
    /// Checkpoints that were read and agree.
    pub checkpoints: u64,
    /// Entries and checkpoints that are not what they must be.
    pub damage: Vec<Damage>,
    /// Entries that count for nothing, and why. Writers that follow the protocol leave none.
    pub void: Vec<(LogNumber, Void)>,
}

pub(super) fn audit<S: LogState>(log: &Log<S>) -> Result<Audit<S>, ChainError> {
    let mut checkpoints: BTreeSet<LogNumber> = log.list_checkpoints(None, None)?.into_iter().collect();
    let listed = log.list_entries(LogNumber(0)).map_err(|source| log.failed(source))?;
    let mut found = Audit {
        state: S::begin(log.realm(), log.id()),
        entries: 0,
        checkpoints: 0,
        damage: Vec::new(),
        void: Vec::new(),
    };
    // A checkpoint is written after the entry it covers, so entries up to it must exist as well.
    let claimed: BTreeSet<LogNumber> = listed.iter().chain(&checkpoints).copied().collect();
    loop {
        let next = found.state.tip().next();
        let Some(bound) = claimed.range(next..).next().copied() else { break };
        if bound.0 - next.0 >= limits::LOG_GAP_ENTRIES_MAX {
            found.damage.push(Damage { number: next, fault: Fault::Missing });
            break;
        }
        let newest = claimed.last().copied().unwrap_or(bound);
        let last = newest.0.min(next.0.saturating_add(BATCH_ENTRIES - 1)).max(next.0);
        for reading in log.fetch(next.0..=last)? {
            let number = found.state.tip().next();
            take(&mut found, reading);
            if checkpoints.remove(&number) {
                compare(log, &mut found, number)?;
            }
        }
    }
    // A listing is a hint: a directory or a link in place of the last entry is not in it, and readers meet it.
    loop {
        let next = found.state.tip().next();
        match log.fetch(next.0..=next.0)?.pop() {
            None | Some(Reading::Missing) => break,
            Some(reading) => take(&mut found, reading),
        }
    }
    for number in checkpoints {
        let fault = Fault::Checkpoint("it covers entries that do not exist".to_owned());
        found.damage.push(Damage { number, fault });
    }
    let mut damage = found.state.tip().damage.clone();
    damage.append(&mut found.damage);
    found.damage = damage;
    Ok(found)
}

/// Takes in what stands behind the tip.
fn take<S: LogState>(found: &mut Audit<S>, reading: Reading<S::Body>) {
    let number = found.state.tip().next();
    match reading {
        Reading::Found(entry, hash) => {
            found.entries += 1;
            if let Err(void) = found.state.apply(&entry, hash) {
                found.void.push((number, void));
            }
        }
        Reading::Missing => found.state.pass(number, Fault::Missing),
        Reading::Unreadable(why) => found.state.pass(number, Fault::Unreadable(why)),
        Reading::Sealed(epoch) => found.state.pass(number, Fault::NewerKeys(epoch)),
    }
}

/// Holds the checkpoint that covers the tip against the fold.
fn compare<S: LogState>(log: &Log<S>, found: &mut Audit<S>, number: LogNumber) -> Result<(), ChainError> {
    let fault = match log.get_checkpoint(number)? {
        Err(why) => Some(why),
        // Behind a lost entry the fold is the one in doubt.
        Ok((checkpoint, _)) if found.state.tip().obstacle().is_some() => match S::restore(&checkpoint) {
            Err(why) => Some(why),
            Ok(mut state) => {
                let pin = state.told(log.realm(), log.id());
                let stands = |number| found.state.tip().damage.iter().all(|damage| damage.number != number);
                let is_borne_out = pin.is_none_or(|pin| state.agrees_with(&pin) && stands(pin.number));
                (!is_borne_out)
                    .then(|| "it covers what the repository's log contradicts: no reader believes it".to_owned())
            }
        },
        Ok((checkpoint, _)) => {
            let agrees = Some(checkpoint.hash) == found.state.tip().hash && checkpoint.state == found.state.snapshot();
            (!agrees).then(|| "it does not say what the entries below it say".to_owned())
        }
    };
    match fault {
        None => found.checkpoints += 1,
        Some(why) => found.damage.push(Damage { number, fault: Fault::Checkpoint(why) }),
    }
    Ok(())
}
