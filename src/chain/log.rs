//! A log in a store: reading it, appending to it, sparing readers its past.
//!
//! What is known is an immutable state behind an `Arc`; readers never wait for writers, and a reader
//! that holds a state keeps it as it is.
//!
//! Requests: the first reading lists checkpoints, gets the newest that can be read, lists the entries
//! behind it, gets them side by side, and proves the head by a GET of the number above it, which must
//! be missing. Over a network the entries are listed beside the checkpoints, and behind a checkpoint while it is
//! got, in a directory too: two journeys without a checkpoint and three with one; the repository's log needs no further ones where a [`Survey`]
//! was made while the key was being got. A refresh with nothing new is that one GET.
//! LISTs are hints: an entry that is listed late is found by its number, and an entry that is not there below one
//! that is shows a hole.
//!
//! Consistency: entries are applied in the order of their numbers, each checked against the hash that
//! the next one names. What is missing or unreadable is passed over and remembered (`chain::state`);
//! writers refuse then. What the store does not answer is an error, never absence.
//!
//! What the repository's log pins of a source's ([`super::authority`]) holds for what is known already: once a newer pin is
//! known, all is read anew. So that it gets known, the repository's log is asked before a source's when it was asked last
//! longer than [`limits::PINS_AGE`] ago, and in any case before a checkpoint is signed, which all others will believe.
//!
//! Crash behaviour: entries are created one at a time by [`Append`]; a checkpoint is written after the
//! entry it covers and replaces none, so losing it, or crashing before it, loses time only.

use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::error::ChainError;
use super::heads::Head;
use super::protocol::{Answer, Append, Outcome, Step};
use super::state::{Damage, Fault, LogState, RepoState};
use crate::base::{Class, Classed, Env, Instant, limits};
use crate::format::author::{Author, Role};
use crate::format::log::{
    Checkpoint, EntryHash, LogBody, LogEntry, Pin, decode_checkpoint, decode_entry, encode_checkpoint, encode_entry,
};
use crate::format::object::{LogId, Object, ObjectName};
use crate::format::{Epoch, FormatError, LogNumber, Nonce, Realm};
use crate::store::{CreateSupport, Created, Store, StoreError};

pub use self::stored::Survey;
use self::stored::{Entries, LISTED_CHECKPOINTS, Stored, reachable};

mod stored;
#[cfg(test)]
mod tests;

/// Entries that are read side by side.
const BATCH_ENTRIES: u64 = 256;
/// A writer that is further behind than this catches up as readers do, side by side.
const BEHIND_ENTRIES: u64 = 16;

/// One log, as this process knows it.
#[derive(Debug)]
pub(super) struct Log<S: LogState> {
    store: Store,
    stored: Stored,
    env: Env,
    realm: Realm,
    id: LogId,
    /// The repository's log, which pins entries of this one.
    above: Option<Arc<Log<RepoState>>>,
    known: RwLock<Option<Arc<S>>>,
    /// When it was read last.
    asked: Mutex<Option<Instant>>,
    /// Held while reading, so that readers that come together ask once.
    reading: Mutex<()>,
    /// The newest entry that a checkpoint is known to cover.
    covered: Mutex<LogNumber>,
    /// Up to this entry, the key ring knows from what the secrets of committed sessions follow.
    learnt: Mutex<LogNumber>,
    /// What this host has seen of it, if it remembers such things.
    head: Option<Head>,
}

/// What is at a number.
pub(super) enum Reading<B> {
    Found(Arc<LogEntry<B>>, EntryHash),
    Missing,
    Unreadable(String),
    /// Sealed with keys of an epoch that this process does not have; or junk that says so, which nobody without them can tell.
    Sealed(Epoch),
}

/// How an append ended well.
pub(super) enum Ended<B> {
    /// Our entry stands.
    Appended(Arc<LogEntry<B>>),
    /// What was wanted stood already.
    Held,
}

impl<S: LogState> Log<S> {
    pub(super) fn new(store: Store, env: Env, realm: Realm, id: LogId, above: Option<Arc<Log<RepoState>>>) -> Log<S> {
        let head = store.heads_in().map(|directory| Head::of(directory, realm.id(), id));
        Log {
            head,
            stored: Stored::of(&store, id),
            store,
            env,
            realm,
            id,
            above,
            known: RwLock::new(None),
            asked: Mutex::new(None),
            reading: Mutex::new(()),
            covered: Mutex::new(LogNumber(0)),
            learnt: Mutex::new(LogNumber(0)),
        }
    }

    /// With what was asked for ahead of the first reading.
    pub(super) fn surveyed(mut self, survey: Option<Survey>) -> Log<S> {
        self.stored.expect(survey);
        self
    }

    pub(super) fn id(&self) -> LogId {
        self.id
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn realm(&self) -> &Realm {
        &self.realm
    }

    /// The newest generation of keys that this process has.
    fn epoch(&self) -> Epoch {
        self.realm.keys().map(|keys| keys.current()).unwrap_or_default()
    }

    /// As whom this process writes.
    fn author(&self) -> Author {
        self.realm.keys().map(|keys| keys.author()).unwrap_or_default()
    }

    /// What is known, read if nothing is.
    pub(super) fn load(&self) -> Result<Arc<S>, ChainError> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let _reading = self.reading.lock();
        match self.known() {
            Some(known) => Ok(known),
            None => self.read_anew(),
        }
    }

    /// What is known, with every entry that has appeared since.
    pub(super) fn refresh(&self) -> Result<Arc<S>, ChainError> {
        self.hear()?;
        let _reading = self.reading.lock();
        let now = self.env.now();
        // What was damaged may have been repaired, or only its reading was: look again.
        let is_sound = |known: &Arc<S>| known.tip().obstacle().is_none() && !self.is_outdated(known);
        let Some(mut state) = self.known().filter(is_sound) else {
            return self.read_anew();
        };
        self.read_on(&mut state, LogNumber(0))?;
        *self.asked.lock() = Some(now);
        Ok(self.publish(state))
    }

    fn read_anew(&self) -> Result<Arc<S>, ChainError> {
        let now = self.env.now();
        let asked = self.stored.await_survey(now).unwrap_or(now);
        let state = self.read_all();
        self.stored.forget_survey();
        let state = state?;
        *self.asked.lock() = Some(asked);
        Ok(self.publish(Arc::new(state)))
    }

    /// Sees to it that what the repository's log pins is known, as of not long ago.
    fn hear(&self) -> Result<(), ChainError> {
        let Some(above) = self.above() else { return Ok(()) };
        let now = self.env.now();
        // A clock that went backwards makes the last reading lie in the future: ask again then, too.
        let is_fresh = |asked: Instant| now.minus(limits::PINS_AGE) <= asked && asked <= now;
        if above.asked.lock().is_some_and(is_fresh) { Ok(()) } else { above.refresh().map(drop) }
    }

    /// The repository's log, if it can pin anything.
    fn above(&self) -> Option<&Log<RepoState>> {
        self.above.as_deref().filter(|_| self.realm.keys().is_some())
    }

    /// Whether the repository's log has pinned something since `state` was begun: what it was made of may not have been true.
    fn is_outdated(&self, state: &S) -> bool {
        let (Some(keys), LogId::Source(source)) = (self.realm.keys(), self.id) else { return false };
        keys.told_of(source).pin.is_some_and(|pin| pin.number > state.pinned())
    }

    /// Appends what `goal` takes, if anything; without a goal, catches up as a writer must.
    pub(super) fn append(&self, goal: Option<S::Goal>) -> Result<(Arc<S>, Ended<S::Body>), ChainError> {
        self.prove_store()?;
        self.hear()?;
        let nonce = Nonce(self.env.random());
        let start = |state: &S| Append::new(state.clone(), goal.clone(), nonce, self.env.now()).by(self.author());
        let known = self.load()?;
        let is_sound = known.tip().obstacle().is_none() && !self.is_outdated(&known);
        let known = if is_sound { known } else { self.refresh()? };
        let mut append = start(&known);
        let mut last_error = None;
        // Whether a Create was sent that may have had its effect, or may have it yet.
        let mut sent = false;
        let outcome = loop {
            let answer = match append.step() {
                Step::Done(outcome) => break outcome,
                Step::List(after) => match self.list_entries(after) {
                    Ok(listed) => {
                        let highest = listed.last().copied();
                        if highest.is_some_and(|highest| highest.0 > after.0.saturating_add(BEHIND_ENTRIES)) {
                            let state = self.refresh()?;
                            if state.tip().number > after {
                                append = start(&state);
                                continue;
                            }
                        }
                        Answer::Listed(highest)
                    }
                    Err(error) => unanswered(&mut last_error, error),
                },
                Step::Get(number) => match self.get(number) {
                    Ok(Reading::Found(entry, hash)) => Answer::Found(entry, hash),
                    Ok(Reading::Missing) => Answer::Missing,
                    Ok(Reading::Unreadable(why)) => Answer::Unreadable(why),
                    Ok(Reading::Sealed(epoch)) => {
                        return Err(self.damaged(&Damage { number, fault: Fault::NewerKeys(epoch) }));
                    }
                    Err(error) => unanswered(&mut last_error, error),
                },
                Step::Create(entry) => {
                    let (name, bytes, _) = encode_entry(&self.realm, self.id, &entry);
                    // What no reader could read back must not be written: the log could never go on.
                    decode_entry::<S::Body>(&self.realm, self.id, entry.number, &bytes)
                        .map_err(|source| ChainError::Unwritable { log: self.id, source })?;
                    let created = self.store.create(&name, bytes);
                    sent |= created.as_ref().map_or_else(|error| !refused(error.class()), |_| true);
                    match created {
                        Ok(Created::New) => Answer::Created,
                        Ok(Created::Exists) => Answer::Exists,
                        Err(error) => unanswered(&mut last_error, error),
                    }
                }
            };
            append.answer(answer);
        };
        let state = self.publish(Arc::new(append.into_state()));
        if state.epoch() > known.epoch() {
            // Checkpoints of older generations count no more: until there is a new one, all entries are read.
            *self.covered.lock() = LogNumber(0);
        }
        match outcome {
            Outcome::Appended(entry) if self.is_outdated(&state) || state.tip().number < entry.number => {
                // Meanwhile more was said of who may append than was known when this was begun.
                let state = self.refresh()?;
                if let Some(damage) = state.tip().obstacle() {
                    return Err(self.damaged(damage));
                }
                match state.authorize(&entry.author, &entry.body) {
                    Ok(()) => Ok((state, Ended::Appended(entry))),
                    Err(void) => Err(ChainError::Refused { log: self.id, refusal: void.into() }),
                }
            }
            Outcome::Appended(entry) => {
                self.write_checkpoint(&state);
                Ok((state, Ended::Appended(entry)))
            }
            Outcome::Holds | Outcome::CaughtUp => Ok((state, Ended::Held)),
            Outcome::Refused(refusal) => Err(ChainError::Refused { log: self.id, refusal }),
            Outcome::Damaged(damage) => Err(self.damaged(&damage)),
            Outcome::NotKept(number) => Err(ChainError::NotKept { object: self.entry_name(number) }),
            Outcome::Crowded => Err(ChainError::Crowded { log: self.id }),
            Outcome::Unanswered { in_flight } => Err(match (last_error, in_flight.filter(|_| sent)) {
                (None, _) => ChainError::Crowded { log: self.id },
                (Some(source), Some(number)) => ChainError::InFlight { log: self.id, number, source },
                (Some(source), None) => ChainError::Store { doing: "append to", log: self.id, source },
            }),
        }
    }

    /// Sees that the store honours what an append rests on, before the first one of this process.
    fn prove_store(&self) -> Result<(), ChainError> {
        match self.store.create_support(&self.env) {
            Ok(CreateSupport::Honoured | CreateSupport::Leased) => Ok(()),
            Ok(CreateSupport::Ignored) => Err(ChainError::Unsafe { store: self.store.describe() }),
            Err(source) => Err(ChainError::Store { doing: "prepare to append to", log: self.id, source }),
        }
    }

    fn known(&self) -> Option<Arc<S>> {
        self.known.read().clone()
    }

    /// Keeps the newer of `state` and what is known, and returns it. What was begun under a newer pin is newer, however short
    /// the log is by now.
    fn publish(&self, state: Arc<S>) -> Arc<S> {
        let before = self.known().map_or(state.pinned(), |known| known.pinned());
        if state.pinned() < before {
            return self.known().unwrap_or(state);
        }
        if let Some(keys) = self.realm.keys() {
            let mut learnt = self.learnt.lock();
            if state.pinned() > before {
                // What was learnt may have been another's.
                *learnt = LogNumber(0);
            }
            if let LogId::Source(source) = self.id {
                for (session, seal) in state.seals(*learnt) {
                    keys.learn(source, session, seal);
                }
            }
            state.tell(keys);
            *learnt = state.tip().number.max(*learnt);
        }
        let tip = state.tip();
        if let (Some(head), Some(hash), None) = (&self.head, tip.hash, tip.obstacle()) {
            head.remember(tip.number, hash);
        }
        let mut known = self.known.write();
        match &*known {
            Some(old) if old.pinned() > state.pinned() => Arc::clone(old),
            Some(old)
                if old.pinned() == state.pinned()
                    && (old.tip().number > state.tip().number || old.tip() == state.tip()) =>
            {
                Arc::clone(old)
            }
            _ => {
                *known = Some(Arc::clone(&state));
                state
            }
        }
    }

    pub(super) fn damaged(&self, damage: &Damage) -> ChainError {
        ChainError::damaged(self.id, damage)
    }

    fn entry_name(&self, number: LogNumber) -> ObjectName {
        Object::Entry(self.id, number).name()
    }

    pub(super) fn failed(&self, source: StoreError) -> ChainError {
        ChainError::Store { doing: "read", log: self.id, source }
    }

    fn read_all(&self) -> Result<S, ChainError> {
        let mut damage = Vec::new();
        let (checkpoint, listed) = self.read_checkpoint(&mut damage)?;
        let mut state = Arc::new(checkpoint.unwrap_or_else(|| S::begin(&self.realm, self.id)));
        *self.covered.lock() = state.tip().number;
        let listed = match listed {
            Some(listed) => listed,
            None => self.list_entries(state.tip().number).map_err(|source| self.failed(source))?,
        };
        for damage in damage {
            Arc::make_mut(&mut state).tip_mut().note(damage);
        }
        let listed = reachable(state.tip().number, &listed);
        self.read_on(&mut state, listed)?;
        let tip = state.tip().number;
        if let Some(fault) = state.contradiction(LogNumber(tip.0.saturating_add(1)), None) {
            Arc::make_mut(&mut state).tip_mut().note(Damage { number: tip, fault });
        }
        self.hold_against_memory(&mut state)?;
        Ok(Arc::unwrap_or_clone(state))
    }

    /// Notes it when the log is not the one that this host has seen before. One request, if it has grown since.
    fn hold_against_memory(&self, state: &mut Arc<S>) -> Result<(), ChainError> {
        let Some(head) = &self.head else { return Ok(()) };
        let Some((number, _)) = head.seen() else { return Ok(()) };
        let tip = state.tip();
        let there = match tip.hash.filter(|_| tip.number == number) {
            Some(hash) => Ok(hash),
            None if tip.number < number => Err(String::new()),
            None => match self.get(number).map_err(|source| self.failed(source))? {
                Reading::Found(_, hash) => Ok(hash),
                Reading::Missing => Err("it is missing".to_owned()),
                Reading::Unreadable(why) => Err(why),
                // Whoever lacks the keys has been told so by this reading. Else it says so without having them: anybody can.
                Reading::Sealed(_) if tip.damage.iter().any(|damage| matches!(damage.fault, Fault::NewerKeys(_))) => {
                    return Ok(());
                }
                Reading::Sealed(epoch) => Err(Fault::NewerKeys(epoch).to_string()),
            },
        };
        if let Some(damage) = head.judge(tip.number, there) {
            if head.is_news(&damage) {
                tracing::warn!(object = %self.entry_name(damage.number), "{}", damage.fault);
            }
            Arc::make_mut(state).tip_mut().note(damage);
        }
        Ok(())
    }

    /// The state of the newest checkpoint that can be read, if there is one, and the entries behind it if they were
    /// listed beside it.
    fn read_checkpoint(&self, damage: &mut Vec<Damage>) -> Result<(Option<S>, Option<Entries>), ChainError> {
        // Most logs have no checkpoint yet. Where there is one, it is not looked at what else was listed.
        let (numbers, entries) =
            self.store.beside(|| self.list_checkpoints(None, Some(LISTED_CHECKPOINTS)), || self.stored.few_entries());
        let (mut numbers, mut refuted) = (numbers?, None);
        if numbers.is_empty() {
            return Ok((None, entries.and_then(Result::ok).flatten()));
        }
        loop {
            for number in &numbers {
                // A log with checkpoints is long: in a directory too, listing it and decoding the checkpoint take their time.
                let (checkpoint, entries) =
                    self.store.beside_long(|| self.get_checkpoint(*number), || self.list_entries(*number));
                let entries = entries.and_then(Result::ok);
                match checkpoint? {
                    // Whoever has a key that was replaced could have written it since: the entries say what is so.
                    Ok((_, author)) if author.epoch < self.epoch() => {}
                    Ok((checkpoint, _)) => match S::restore(&checkpoint) {
                        Ok(mut state) => match state.told(&self.realm, self.id) {
                            None => return Ok((Some(state), entries)),
                            // Whoever signed it had not heard of the pin: the entries say what is so, and whether one was replaced.
                            Some(pin) if refuted == Some(pin) || !state.agrees_with(&pin) => {}
                            Some(pin) if self.stands(&pin)? => return Ok((Some(state), entries)),
                            Some(pin) => refuted = Some(pin),
                        },
                        Err(why) => damage.push(Damage { number: *number, fault: Fault::Checkpoint(why) }),
                    },
                    Err(why) => damage.push(Damage { number: *number, fault: Fault::Checkpoint(why) }),
                }
            }
            match numbers.last() {
                Some(oldest) if numbers.len() >= LISTED_CHECKPOINTS => {
                    numbers = self.list_checkpoints(Some(*oldest), Some(LISTED_CHECKPOINTS))?;
                }
                _ => return Ok((None, None)),
            }
        }
    }

    /// Whether the entry stands that the repository's log pins.
    fn stands(&self, pin: &Pin) -> Result<bool, ChainError> {
        let there = self.get(pin.number).map_err(|source| self.failed(source))?;
        Ok(matches!(there, Reading::Found(_, hash) if hash == pin.hash))
    }

    /// Checkpoints older than the one that covers `after`, newest first.
    pub(super) fn list_checkpoints(
        &self,
        after: Option<LogNumber>,
        most: Option<usize>,
    ) -> Result<Vec<LogNumber>, ChainError> {
        self.stored.checkpoints(after, most).map_err(|source| self.failed(source))
    }

    /// A checkpoint that was listed and by whom it is, or in words why it is none.
    #[allow(clippy::type_complexity)]
    pub(super) fn get_checkpoint(
        &self,
        number: LogNumber,
    ) -> Result<Result<(Checkpoint<<S::Body as LogBody>::Snapshot>, Author), String>, ChainError> {
        match self.stored.checkpoint(number) {
            Ok(bytes) => Ok(match decode_checkpoint::<S::Body>(&self.realm, self.id, number, &bytes) {
                Ok((checkpoint, author)) if sums_up(&author) => Ok((checkpoint, author)),
                // It could leave out what others have written.
                Ok(_) => Err("it is not signed by a key that may sum up a log".to_owned()),
                Err(error) => Err(error.to_string()),
            }),
            Err(error) if matches!(error.class(), Class::NotFound | Class::Corrupt) => Ok(Err(error.to_string())),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The numbers of all entries above `after` that a LIST shows.
    pub(super) fn list_entries(&self, after: LogNumber) -> Result<Entries, StoreError> {
        self.stored.entries(after)
    }

    /// Reads on from the tip until the next entry is missing, and at least up to `listed`.
    fn read_on(&self, state: &mut Arc<S>, listed: LogNumber) -> Result<(), ChainError> {
        let mut width = 1;
        loop {
            let next = state.tip().next();
            let last = if next <= listed {
                // And the one behind: that it is missing proves the end, in the same journey.
                listed.0.saturating_add(1).min(next.0.saturating_add(BATCH_ENTRIES - 1))
            } else {
                next.0.saturating_add(width - 1)
            };
            let mut batch = self.fetch(next.0..=last)?;
            let exists = |reading: &Reading<S::Body>| !matches!(reading, Reading::Missing);
            let known = batch.iter().rposition(exists).map_or(0, |at| at + 1);
            batch.truncate(known);
            for reading in batch {
                let number = state.tip().next();
                // Reads side by side may meet a later entry before an earlier one. Whoever wrote the
                // later one had read the earlier, so a second look tells a hole.
                let reading = if exists(&reading) { reading } else { self.get(number).map_err(|e| self.failed(e))? };
                let state = Arc::make_mut(state);
                match reading {
                    Reading::Found(entry, hash) => {
                        if let Err(void) = state.apply(&entry, hash) {
                            tracing::debug!(object = %self.entry_name(number), %void, "entry is void");
                        }
                    }
                    Reading::Missing => state.pass(number, Fault::Missing),
                    Reading::Unreadable(why) => state.pass(number, Fault::Unreadable(why)),
                    Reading::Sealed(epoch) => state.pass(number, Fault::NewerKeys(epoch)),
                }
            }
            if state.tip().number.0 < last {
                return Ok(());
            }
            if last > listed.0 {
                width = (width * 2).min(BATCH_ENTRIES);
            }
        }
    }

    /// What is at each of `numbers`, in order.
    pub(super) fn fetch(&self, numbers: RangeInclusive<u64>) -> Result<Vec<Reading<S::Body>>, ChainError> {
        self.stored.side_by_side(numbers, |number| self.get(number)).map_err(|error| self.failed(error))
    }

    fn get(&self, number: LogNumber) -> Result<Reading<S::Body>, StoreError> {
        match self.stored.entry(number) {
            Ok(bytes) => Ok(match decode_entry(&self.realm, self.id, number, &bytes) {
                Ok((entry, hash)) => Reading::Found(Arc::new(entry), hash),
                Err(FormatError::NoEpoch { epoch, .. }) => Reading::Sealed(epoch),
                Err(error) => Reading::Unreadable(error.to_string()),
            }),
            Err(error) => match error.class() {
                Class::NotFound => Ok(Reading::Missing),
                Class::Corrupt => Ok(Reading::Unreadable(error.to_string())),
                Class::Transient
                | Class::Timeout
                | Class::Conflict
                | Class::Denied
                | Class::Unsupported
                | Class::Invalid
                | Class::Exhausted
                | Class::Cancelled => Err(error),
            },
        }
    }

    /// Spares the next reader what this process has read, if it is much: those who append to this log may have no key
    /// whose checkpoints are believed. Needs no proof of the store: all that cover the same entry are the same bytes.
    pub(super) fn sum_up(&self) {
        let Some(state) = self.known() else { return };
        if let Err((object, error)) = self.checkpoint(&state) {
            // Whoever only reads may not be allowed to write.
            tracing::debug!(%object, %error, "checkpoint not written");
        }
    }

    /// Writes a checkpoint of `state` if it is due. Failing to is not worth failing for.
    fn write_checkpoint(&self, state: &S) {
        if let Err((object, error)) = self.checkpoint(state) {
            tracing::warn!(%object, %error, "checkpoint not written; reading this log takes longer");
        }
    }

    /// Whether [`Log::sum_up`] would write a checkpoint.
    pub(super) fn is_long(&self) -> bool {
        self.known().is_some_and(|state| self.is_due(&state, self.covered.lock().0))
    }

    fn is_due(&self, state: &S, covered: u64) -> bool {
        let tip = state.tip();
        let is_far = tip.number.0 >= covered.saturating_add(limits::CHECKPOINT_ENTRIES);
        is_far && tip.obstacle().is_none() && sums_up(&self.author())
    }

    fn checkpoint(&self, state: &S) -> Result<(), (ObjectName, Box<dyn std::error::Error>)> {
        let tip = state.tip();
        let (number, Some(hash)) = (tip.number, tip.hash) else { return Ok(()) };
        {
            let mut covered = self.covered.lock();
            if !self.is_due(state, covered.0) {
                return Ok(());
            }
            *covered = number;
        }
        if let Some(above) = self.above() {
            above.refresh().map_err(|error| (Object::Checkpoint(self.id, number).name(), error.into()))?;
            if self.is_outdated(state) {
                return Ok(());
            }
        }
        let checkpoint = Checkpoint { number, hash, state: state.snapshot() };
        let (name, bytes) = encode_checkpoint::<S::Body>(&self.realm, self.id, &checkpoint);
        if let Err(error) = decode_checkpoint::<S::Body>(&self.realm, self.id, number, &bytes) {
            return Err((name, error.into()));
        }
        self.store.create(&name, bytes).map(drop).map_err(|error| (name, error.into()))
    }
}

/// Whether checkpoints by this author are believed.
fn sums_up(author: &Author) -> bool {
    match author.role {
        Role::Full => true,
        Role::Collector(_) | Role::Writer(_) | Role::Nobody => false,
    }
}

fn unanswered<B>(last_error: &mut Option<StoreError>, error: StoreError) -> Answer<B> {
    *last_error = Some(error);
    Answer::Unanswered
}

/// Whether an error of this class says that a Create had no effect and will have none.
fn refused(class: Class) -> bool {
    match class {
        Class::Denied | Class::Unsupported | Class::Invalid | Class::Exhausted => true,
        Class::NotFound | Class::Corrupt | Class::Transient | Class::Timeout | Class::Conflict | Class::Cancelled => {
            false
        }
    }
}
