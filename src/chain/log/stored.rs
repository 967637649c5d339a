//! What is stored of one log, unread: its listings, and its objects as bytes.
//!
//! None of it needs a key. So what the first reading will ask for can be asked for while the key is still being got: a
//! [`Survey`]. Each of its answers, an error too, is given once, as if it had been asked for then; whatever it lacks, or is asked for
//! again, is a request as ever.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::{Env, Instant, limits};
use crate::format::LogNumber;
use crate::format::object::{LogId, Object, ObjectName, checkpoints_prefix, entries_prefix};
use crate::seal::padme;
use crate::store::{Listed, Store, StoreError};

/// Checkpoints that are listed at once; the first that can be read ends the search.
pub(super) const LISTED_CHECKPOINTS: usize = 8;
/// Requests that are under way at once.
const PARALLEL_GETS: usize = 32;
/// Entries in a directory that one thread reads: to start a thread takes longer than to read a few.
const LOCAL_GETS_EACH: usize = 16;
/// Bytes that an envelope may add, and compression at worst.
const OVERHEAD_BYTES: u64 = 64 << 10;

/// Numbers of entries that a LIST shows.
pub(super) type Entries = BTreeSet<LogNumber>;

/// The objects of one log in a store.
#[derive(Debug)]
pub(super) struct Stored {
    store: Store,
    log: LogId,
    survey: Mutex<Option<Survey>>,
    answers: Mutex<Answers>,
}

/// What the first reading of the repository's log will ask for, being asked for.
#[derive(Debug)]
pub struct Survey {
    begun: Instant,
    asking: JoinHandle<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    checkpoints: Option<Result<Vec<LogNumber>, StoreError>>,
    /// The first page of entries, if that is all.
    few_entries: Option<Result<Option<Entries>, StoreError>>,
    /// The entries behind the newest checkpoint.
    behind: Option<(LogNumber, Entries)>,
    /// Objects; errors may say that nothing stands there.
    objects: HashMap<ObjectName, Result<Bytes, StoreError>>,
}

impl Survey {
    /// Begins to ask, if requests make a journey. Nobody waits for it but who needs the answers.
    pub fn begin(store: &Store, env: &Env) -> Option<Survey> {
        if !store.is_remote() {
            return None;
        }
        let (begun, stored) = (env.now(), Stored::of(store, LogId::Repo));
        let asking = std::thread::Builder::new().name("survey".into()).spawn(move || stored.survey()).ok()?;
        Some(Survey { begun, asking })
    }

    /// Whether all answers are there.
    #[cfg(test)]
    pub(super) fn is_finished(&self) -> bool {
        self.asking.is_finished()
    }
}

impl Stored {
    pub(super) fn of(store: &Store, log: LogId) -> Stored {
        Stored { store: store.clone(), log, survey: Mutex::default(), answers: Mutex::default() }
    }

    /// Takes what `survey` finds for the first answers.
    pub(super) fn expect(&mut self, survey: Option<Survey>) {
        self.survey = Mutex::new(survey);
    }

    /// Waits for what was asked ahead, and says when that was; none if it was too long before `now`.
    pub(super) fn await_survey(&self, now: Instant) -> Option<Instant> {
        let Survey { begun, asking } = self.survey.lock().take()?;
        // A clock that went backwards makes it lie in the future: that is no age, either.
        if begun < now.minus(limits::SURVEY_AGE) || begun > now {
            return None;
        }
        // Whoever panics there is asked again here.
        *self.answers.lock() = asking.join().unwrap_or_default();
        Some(begun)
    }

    /// From here on everything is a request.
    pub(super) fn forget_survey(&self) {
        *self.answers.lock() = Answers::default();
    }

    /// Checkpoints older than the one that covers `after`, newest first.
    pub(super) fn checkpoints(
        &self,
        after: Option<LogNumber>,
        most: Option<usize>,
    ) -> Result<Vec<LogNumber>, StoreError> {
        if after.is_none()
            && most == Some(LISTED_CHECKPOINTS)
            && let Some(answer) = self.answers.lock().checkpoints.take()
        {
            return answer;
        }
        let after = after.map(|number| self.checkpoint_name(number));
        let listed = self.store.list(&checkpoints_prefix(self.log), after.as_ref(), most)?;
        let number = |object: &Listed| match Object::parse(&object.name) {
            Some(Object::Checkpoint(log, number)) if log == self.log => Some(number),
            _ => None,
        };
        Ok(listed.iter().filter_map(number).collect())
    }

    /// The numbers of all entries above `after` that a LIST shows.
    pub(super) fn entries(&self, after: LogNumber) -> Result<Entries, StoreError> {
        if let Some((_, answer)) = self.answers.lock().behind.take_if(|(number, _)| *number == after) {
            return Ok(answer);
        }
        let name = (after.0 > 0).then(|| self.entry_name(after));
        Ok(self.entries_of(&self.store.list(&entries_prefix(self.log), name.as_ref(), None)?))
    }

    /// The numbers of all entries, if one page of a LIST shows them.
    pub(super) fn few_entries(&self) -> Result<Option<Entries>, StoreError> {
        if let Some(answer) = self.answers.lock().few_entries.take() {
            return answer;
        }
        let listed = self.store.list(&entries_prefix(self.log), None, Some(limits::LISTING_PAGE_NAMES))?;
        Ok((listed.len() < limits::LISTING_PAGE_NAMES).then(|| self.entries_of(&listed)))
    }

    /// The bytes of a checkpoint.
    pub(super) fn checkpoint(&self, number: LogNumber) -> Result<Bytes, StoreError> {
        let bytes_max = padme::padded_len(limits::CHECKPOINT_BYTES_MAX as u64) + OVERHEAD_BYTES;
        self.object(self.checkpoint_name(number), bytes_max)
    }

    /// The bytes of an entry.
    pub(super) fn entry(&self, number: LogNumber) -> Result<Bytes, StoreError> {
        self.object(self.entry_name(number), limits::LOG_ENTRY_BYTES_MAX as u64 + OVERHEAD_BYTES)
    }

    fn object(&self, name: ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        let answer = self.answers.lock().objects.remove(&name);
        answer.unwrap_or_else(|| self.store.get(&name, bytes_max))
    }

    fn entry_name(&self, number: LogNumber) -> ObjectName {
        Object::Entry(self.log, number).name()
    }

    fn checkpoint_name(&self, number: LogNumber) -> ObjectName {
        Object::Checkpoint(self.log, number).name()
    }

    fn entries_of(&self, listed: &[Listed]) -> Entries {
        let number = |object: &Listed| match Object::parse(&object.name) {
            Some(Object::Entry(log, number)) if log == self.log => Some(number),
            _ => None,
        };
        listed.iter().filter_map(number).collect()
    }

    /// Makes the requests of a first reading, in as many journeys.
    fn survey(&self) -> Answers {
        let mut answers = Answers::default();
        let (checkpoints, few) =
            self.store.beside(|| self.checkpoints(None, Some(LISTED_CHECKPOINTS)), || self.few_entries());
        let newest = checkpoints.as_ref().map(|numbers| numbers.first().copied()).ok();
        let all = few.as_ref().and_then(|few| few.as_ref().ok()?.clone());
        (answers.checkpoints, answers.few_entries) = (Some(checkpoints), few);
        let (tip, listed) = match newest {
            None => return answers,
            Some(None) => (LogNumber(0), all),
            Some(Some(newest)) => {
                let (bytes, entries) = self.store.beside(|| self.checkpoint(newest), || self.entries(newest));
                answers.objects.insert(self.checkpoint_name(newest), bytes);
                let entries = entries.and_then(Result::ok);
                answers.behind = entries.clone().map(|entries| (newest, entries));
                (newest, entries)
            }
        };
        let Some(listed) = listed else { return answers };
        // And the one behind the last, whose absence proves the end.
        let wanted = tip.0.saturating_add(1)..=reachable(tip, &listed).0.saturating_add(1);
        if wanted.clone().take(PARALLEL_GETS + 1).count() <= PARALLEL_GETS {
            let get = |number| Ok::<_, Infallible>((self.entry_name(number), self.entry(number)));
            answers.objects.extend(self.side_by_side(wanted, get).unwrap_or_default());
        }
        answers
    }

    /// What `get` finds at each of `numbers`, in order.
    pub(super) fn side_by_side<T: Send, E: Send>(
        &self,
        numbers: RangeInclusive<u64>,
        get: impl Fn(LogNumber) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let numbers: Vec<LogNumber> = numbers.map(LogNumber).collect();
        let least = if self.store.is_remote() { 1 } else { LOCAL_GETS_EACH };
        let share = numbers.len().div_ceil(PARALLEL_GETS).max(least);
        let read = &|share: &[LogNumber]| share.iter().map(|number| get(*number)).collect::<Result<Vec<_>, _>>();
        if numbers.len() <= share {
            return read(&numbers);
        }
        let shares = std::thread::scope(|scope| {
            let workers: Vec<_> = numbers.chunks(share).map(|share| scope.spawn(move || read(share))).collect();
            workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
        });
        let mut all = Vec::with_capacity(numbers.len());
        for share in shares {
            match share {
                Ok(share) => all.extend(share?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    }
}

/// The highest of the `listed` numbers that is not separated from the tip by a gap that no accident
/// makes. A hostile listing must not send us to ask for 2^64 entries.
pub(super) fn reachable(tip: LogNumber, listed: &Entries) -> LogNumber {
    let mut highest = tip;
    for number in listed {
        if number.0 - highest.0 > limits::LOG_GAP_ENTRIES_MAX {
            break;
        }
        highest = *number;
    }
    highest
}
