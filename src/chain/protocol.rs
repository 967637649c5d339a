//! How an entry comes to stand in a log: the writer's side, as a machine that does nothing itself.
//!
//! [`Append`] says the next [`Step`] against the store and takes its [`Answer`]; whoever drives it does
//! the requests (`chain::log` in production, a model checker and random schedules in tests).
//!
//! Invariants, each held by construction here:
//! - Entry *n* is only ever asked for after every entry below *n* has been read and applied, and its
//!   `previous` is the hash of *n*−1 as read. So commits and fences contend for one number, and
//!   whoever wins has seen all that the others did.
//! - Nothing is acknowledged that has not been read back at its number, with our nonce. A Create that
//!   was answered, refused or left unanswered leads to the same reading: ours, another's, or nothing.
//! - After an entry of somebody else the goal is proposed anew from the state as it is then: a session
//!   that was aborted, fell below the floor or met a seal is refused; a name that was taken gets the
//!   next suffix.
//! - Where an entry is missing below one that exists, or cannot be read, nothing is appended. A goal that
//!   stands whatever that entry said takes no append, and is reached all the same.
//!
//! Crash behaviour: a writer that stops anywhere leaves at most one entry of its own, whole. A Create
//! that was left unanswered may still land, as long as its number is free; it then counts like any
//! other, unless a fence got in before it.

use std::sync::Arc;

use super::state::{Damage, Fault, LogState, Proposal, Refusal};
use crate::base::Instant;
use crate::format::author::Author;
use crate::format::log::{EntryHash, LogEntry};
use crate::format::{LogNumber, Nonce};

/// How often one step is repeated when the store does not answer.
pub const TRIES_MAX: u8 = 4;
/// How many lost races for a number end an attempt.
pub const RACES_MAX: u32 = 10_000;

/// The next request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<B> {
    /// List the entries above this number. Shows holes; a list that lags does no harm.
    List(LogNumber),
    /// Read this entry.
    Get(LogNumber),
    /// Create this entry under its number, unless one exists.
    Create(Arc<LogEntry<B>>),
    /// No request: this is the result.
    Done(Outcome<B>),
}

/// What the store said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<B> {
    /// To [`Step::List`]: the highest number listed, if any.
    Listed(Option<LogNumber>),
    /// To [`Step::Get`]: the entry, and the hash over its object.
    Found(Arc<LogEntry<B>>, EntryHash),
    /// To [`Step::Get`]: no such object.
    Missing,
    /// To [`Step::Get`]: its bytes are not that entry; in words.
    Unreadable(String),
    /// To [`Step::Create`]: done.
    Created,
    /// To [`Step::Create`]: the number is taken.
    Exists,
    /// To any step: an error, or no answer in time. A Create may have taken effect, or may later.
    Unanswered,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome<B> {
    /// Our entry stands at its number, counts, and has been read back.
    Appended(Arc<LogEntry<B>>),
    /// What was wanted stood already.
    Holds,
    /// Without a goal: every entry has been read, and a writer could go on.
    CaughtUp,
    /// The log rules the goal out.
    Refused(Refusal),
    /// The log is damaged; nothing may be appended.
    Damaged(Damage),
    /// The store accepted this entry and does not have it, or has another's in its place.
    NotKept(LogNumber),
    /// The store does not answer. If `in_flight`, our entry may stand, or may appear, at this number.
    Unanswered {
        /// The number that was tried last, if a Create was sent and not settled.
        in_flight: Option<LogNumber>,
    },
    /// Others won every race.
    Crowded,
}

/// What led to reading an entry back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Cause {
    Created,
    Exists,
    Unanswered,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase<B> {
    /// Ask which entries are listed.
    List,
    /// See that the entry at the tip exists, which only a checkpoint has told of.
    Prove {
        listed: LogNumber,
    },
    /// Read entries until one is missing above all that were listed.
    Read {
        listed: LogNumber,
    },
    /// Create the entry.
    Create(Arc<LogEntry<B>>),
    /// See what stands at the entry's number.
    Settle(Arc<LogEntry<B>>, Cause),
    Done(Outcome<B>),
}

/// One writer's attempt to reach one goal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Append<S: LogState> {
    state: S,
    goal: Option<S::Goal>,
    nonce: Nonce,
    written: Instant,
    author: Author,
    phase: Phase<S::Body>,
    tries: u8,
    races: u32,
    in_flight: Option<LogNumber>,
}

impl<S: LogState> Append<S> {
    /// From `state` on, which may be as old as it likes. Without a goal, it catches up as a writer
    /// must: damage stops it. `nonce` is used by this attempt alone.
    pub fn new(state: S, goal: Option<S::Goal>, nonce: Nonce, written: Instant) -> Append<S> {
        let phase = match state.tip().obstacle() {
            Some(_) if goal.as_ref().is_some_and(|goal| state.stands_for_sure(goal)) => Phase::Done(Outcome::Holds),
            Some(damage) => Phase::Done(Outcome::Damaged(damage.clone())),
            None => Phase::List,
        };
        Append { state, goal, nonce, written, author: Author::default(), phase, tries: 0, races: 0, in_flight: None }
    }

    /// The same attempt by `author`; without, by whoever may do everything.
    #[must_use]
    pub fn by(self, author: Author) -> Append<S> {
        Append { author, ..self }
    }

    /// All that has been read.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// All that has been read, to keep.
    pub fn into_state(self) -> S {
        self.state
    }

    /// What to do now. Asking again changes nothing.
    pub fn step(&self) -> Step<S::Body> {
        match &self.phase {
            Phase::List => Step::List(self.state.tip().number),
            Phase::Prove { .. } => Step::Get(self.state.tip().number),
            Phase::Read { .. } => Step::Get(self.state.tip().next()),
            Phase::Create(entry) => Step::Create(Arc::clone(entry)),
            Phase::Settle(entry, _) => Step::Get(entry.number),
            Phase::Done(outcome) => Step::Done(outcome.clone()),
        }
    }

    /// Takes the answer to [`Append::step`].
    ///
    /// # Panics
    /// On an answer that belongs to another kind of step: a defect of the driver.
    pub fn answer(&mut self, answer: Answer<S::Body>) {
        if answer == Answer::Unanswered && !matches!(self.phase, Phase::Create(_)) {
            return self.retry();
        }
        let phase = std::mem::replace(&mut self.phase, Phase::List);
        self.phase = match (phase, answer) {
            (Phase::List, Answer::Listed(highest)) => {
                let listed = highest.unwrap_or_default();
                if self.state.tip().seen { Phase::Read { listed } } else { Phase::Prove { listed } }
            }
            (Phase::Prove { listed }, Answer::Found(_, hash)) if self.state.tip().hash == Some(hash) => {
                self.state.tip_mut().mark_seen();
                Phase::Read { listed }
            }
            (Phase::Prove { .. }, Answer::Found(..)) => self.damaged(self.state.tip().number, Fault::Discontinuous),
            (Phase::Prove { .. }, Answer::Missing) => self.damaged(self.state.tip().number, Fault::Missing),
            (Phase::Prove { .. }, Answer::Unreadable(why)) => {
                self.damaged(self.state.tip().number, Fault::Unreadable(why))
            }
            (Phase::Read { listed }, Answer::Found(entry, hash)) => self.read(&entry, hash, listed),
            (Phase::Read { listed }, Answer::Missing) if self.state.tip().next() <= listed => {
                self.damaged(self.state.tip().next(), Fault::Missing)
            }
            (Phase::Read { .. }, Answer::Missing) => self.propose(),
            (Phase::Read { .. }, Answer::Unreadable(why)) => {
                self.damaged(self.state.tip().next(), Fault::Unreadable(why))
            }
            (Phase::Create(entry), Answer::Created) => self.settle(entry, Cause::Created),
            (Phase::Create(entry), Answer::Exists) => self.settle(entry, Cause::Exists),
            (Phase::Create(entry), Answer::Unanswered) => self.settle(entry, Cause::Unanswered),
            (Phase::Settle(own, cause), Answer::Found(entry, hash)) => self.settled(&own, cause, &entry, hash),
            (Phase::Settle(own, cause), Answer::Missing) => self.vanished(own, cause),
            (Phase::Settle(own, _), Answer::Unreadable(why)) => self.damaged(own.number, Fault::Unreadable(why)),
            (phase, answer) => panic!("{answer:?} is no answer in {phase:?}"),
        };
    }

    /// The step got no answer: the same again, a few times.
    fn retry(&mut self) {
        self.tries = self.tries.saturating_add(1);
        if self.tries >= TRIES_MAX {
            self.phase = Phase::Done(Outcome::Unanswered { in_flight: self.in_flight });
        }
    }

    fn damaged(&self, number: LogNumber, fault: Fault) -> Phase<S::Body> {
        Phase::Done(Outcome::Damaged(Damage { number, fault }))
    }

    /// Applies an entry of somebody else and goes on reading.
    fn read(&mut self, entry: &LogEntry<S::Body>, hash: EntryHash, listed: LogNumber) -> Phase<S::Body> {
        self.tries = 0;
        // Void entries are read like others: they take a number.
        let _void = self.state.apply(entry, hash);
        match self.state.tip().obstacle() {
            Some(damage) => Phase::Done(Outcome::Damaged(damage.clone())),
            None => Phase::Read { listed },
        }
    }

    /// Every entry has been read: decide what to append, if anything.
    fn propose(&mut self) -> Phase<S::Body> {
        self.tries = 0;
        let Some(goal) = &self.goal else { return Phase::Done(Outcome::CaughtUp) };
        let tip = self.state.tip();
        let previous = match tip.hash {
            Some(hash) => hash,
            None => return self.damaged(tip.number, Fault::Missing),
        };
        match self.state.propose(goal) {
            Err(refusal) => Phase::Done(Outcome::Refused(refusal)),
            Ok(Proposal::Holds) => Phase::Done(Outcome::Holds),
            Ok(Proposal::Write(body)) => match self.state.authorize(&self.author, &body) {
                Err(void) => Phase::Done(Outcome::Refused(void.into())),
                Ok(()) => Phase::Create(Arc::new(LogEntry {
                    number: tip.next(),
                    nonce: self.nonce,
                    previous,
                    written: self.written,
                    author: self.author,
                    body,
                })),
            },
        }
    }

    fn settle(&mut self, entry: Arc<LogEntry<S::Body>>, cause: Cause) -> Phase<S::Body> {
        self.in_flight = Some(entry.number);
        if cause != Cause::Unanswered {
            self.tries = 0;
        }
        Phase::Settle(entry, cause)
    }

    /// Something stands at our number.
    fn settled(
        &mut self,
        own: &Arc<LogEntry<S::Body>>,
        cause: Cause,
        entry: &LogEntry<S::Body>,
        hash: EntryHash,
    ) -> Phase<S::Body> {
        // Taken for good: a Create of ours that is still under way can no longer take effect.
        self.in_flight = None;
        if entry.nonce != own.nonce {
            if cause == Cause::Created {
                return Phase::Done(Outcome::NotKept(own.number));
            }
            self.races = self.races.saturating_add(1);
            if self.races >= RACES_MAX {
                return Phase::Done(Outcome::Crowded);
            }
            return self.read(entry, hash, own.number);
        }
        if *entry != **own {
            return Phase::Done(Outcome::NotKept(own.number));
        }
        Phase::Done(match self.state.apply(entry, hash) {
            Ok(()) => Outcome::Appended(Arc::clone(own)),
            Err(void) => Outcome::Refused(void.into()),
        })
    }

    /// Nothing stands at our number.
    fn vanished(&mut self, own: Arc<LogEntry<S::Body>>, cause: Cause) -> Phase<S::Body> {
        self.tries = self.tries.saturating_add(1);
        let again = self.tries < TRIES_MAX;
        match cause {
            Cause::Unanswered if again => Phase::Create(own),
            Cause::Unanswered => Phase::Done(Outcome::Unanswered { in_flight: self.in_flight }),
            Cause::Created | Cause::Exists if again => Phase::Settle(own, cause),
            Cause::Created => Phase::Done(Outcome::NotKept(own.number)),
            Cause::Exists => self.damaged(own.number, Fault::Missing),
        }
    }
}

#[cfg(test)]
mod tests;
