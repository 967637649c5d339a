//! When a request that failed is made again, and how often.
//!
//! Tried again is what failed for a reason that passes: no answer, a broken connection, a server that is overloaded. The
//! pause doubles with each failure, and half of it is chance, so that clients that failed together do not come back together.
//! No attempt begins that cannot end within the deadline of the whole request.
//!
//! **No storm.** Each request that is answered earns [`limits::RETRIES_PER_ANSWER`] repetitions for all requests of the store,
//! and no more than [`limits::RETRIES_SAVED_MAX`] are saved: a store that is down gets so many repetitions and no more, besides
//! those that its client makes by itself ([`limits::CLIENT_RETRIES_MAX`]).
//!
//! **Out of reach.** A server that has never answered and cannot be reached most likely has another address: that is
//! told after [`limits::UNREACHED_DEADLINE`], whatever the request's deadline, and from then on at once.
//!
//! **Left alone.** While the store's server has asked for a respite (`respite.rs`), no attempt begins. A request that cannot
//! wait for its end fails at once, and says how long it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::{Class, Classed, Env, limits};

use super::error::StoreError;
use super::meter::{Meter, Operation};
use super::respite::Respite;

/// The pauses and the budget of one store's requests.
#[derive(Debug)]
pub(super) struct Retries {
    env: Env,
    saved: AtomicU64,
    respite: Arc<Respite>,
    /// Whether the server has ever been reached.
    reached: AtomicBool,
    /// Since when it is known to be out of reach.
    unreached: Mutex<Option<Instant>>,
}

impl Retries {
    pub(super) fn new(env: Env, respite: Arc<Respite>) -> Retries {
        Retries {
            env,
            saved: AtomicU64::new(limits::RETRIES_SAVED_MAX),
            respite,
            reached: AtomicBool::new(false),
            unreached: Mutex::default(),
        }
    }

    /// Whether `error` says that a server that has never answered will still be out of reach after `pause`, as it has been
    /// for so long that it is told.
    fn never_reached(&self, error: &StoreError, pause: Duration) -> bool {
        if self.reached.load(Ordering::Relaxed) || !error.is_unreached() {
            return false;
        }
        let now = Instant::now();
        let since = *self.unreached.lock().get_or_insert(now);
        now.duration_since(since) + pause >= limits::UNREACHED_DEADLINE
    }

    fn earn(&self) {
        let more = |saved: u64| Some(saved.saturating_add(limits::RETRIES_PER_ANSWER).min(limits::RETRIES_SAVED_MAX));
        // The closure never declines.
        let _before = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn spend(&self) -> bool {
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(1)).is_ok()
    }

    /// Between a half and the whole of what so many failures call for.
    fn pause(&self, failures: u32) -> Duration {
        let whole = limits::RETRY_PAUSE_MIN
            .saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX))
            .min(limits::RETRY_PAUSE_MAX);
        let chance = u32::from(u16::from_le_bytes(self.env.random()));
        whole / 2 + (whole / 2).saturating_mul(chance) / u32::from(u16::MAX)
    }

    /// How long no attempt may begin, if the server wants to be left alone. Chance keeps those who wait from coming together.
    fn respite(&self) -> Option<Duration> {
        self.respite.left().map(|left| left + self.pause(1))
    }
}

/// The attempts of one request.
#[derive(Debug)]
pub(super) struct Attempts<'r> {
    retries: &'r Retries,
    meter: &'r Meter,
    operation: Operation,
    deadline: Duration,
    patience: Duration,
    begun: Instant,
    end: Instant,
    failures: u32,
    told: bool,
}

impl<'r> Attempts<'r> {
    /// Of a request that begins now and has so long.
    pub(super) fn new(
        retries: &'r Retries,
        meter: &'r Meter,
        operation: Operation,
        deadline: Duration,
    ) -> Attempts<'r> {
        let (begun, patience) = (Instant::now(), deadline / limits::ATTEMPTS_PER_DEADLINE);
        let end = begun + deadline;
        Attempts { retries, meter, operation, deadline, patience, begun, end, failures: 0, told: false }
    }

    /// The same with so much more time, for each attempt and for all of them: nothing comes while a request is sent.
    pub(super) fn longer_by(mut self, allowance: Duration) -> Attempts<'r> {
        self.deadline += allowance;
        self.patience += allowance;
        self.end += allowance;
        self
    }

    /// The result of one attempt, which begins when the server lets it and must have one by the request's end.
    pub(super) async fn within<T>(
        &self,
        object: &str,
        attempt: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (operation, after) = (self.operation, self.deadline);
        while let Some(wait) = self.respite(object)? {
            tokio::time::sleep(wait).await;
        }
        let result = tokio::time::timeout_at(self.end, attempt)
            .await
            .unwrap_or_else(|_| Err(StoreError::Deadline { operation, object: object.to_owned(), after }));
        self.answered(&result);
        result
    }

    /// Takes note of the result of one attempt: an answer, also one that refuses, says that the store is up.
    fn answered<T>(&self, result: &Result<T, StoreError>) {
        if result.as_ref().err().is_none_or(|error| !passes(error.class())) {
            self.retries.earn();
        }
        if result.as_ref().err().is_none_or(|error| error.class() != Class::Timeout && !error.is_unreached()) {
            self.retries.reached.store(true, Ordering::Relaxed);
        }
    }

    /// How long an attempt waits for something to come, before it counts as lost.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// After an attempt failed: the next one's time has come.
    ///
    /// # Errors
    /// That of the request, when there is no next attempt.
    pub(super) async fn again(&mut self, object: &str, error: StoreError) -> Result<StoreError, StoreError> {
        let (pause, error) = self.pause(object, error)?;
        tokio::time::sleep(pause).await;
        Ok(error)
    }

    /// How long until the next attempt.
    fn pause(&mut self, object: &str, error: StoreError) -> Result<(Duration, StoreError), StoreError> {
        self.failures += 1;
        let mut pause = self.retries.pause(self.failures);
        if !passes(error.class()) {
            return Err(error);
        }
        if let Some(wait) = self.respite(object)? {
            pause = pause.max(wait);
        }
        if Instant::now() + pause >= self.end || self.retries.never_reached(&error, pause) || !self.retries.spend() {
            return Err(error);
        }
        // Silence for longer looks like a hang.
        if !self.told && self.begun.elapsed() + pause >= limits::RETRY_TOLD_AFTER {
            self.told = true;
            tracing::warn!(%error, "the store does not do what it is asked, trying again …");
        } else {
            tracing::debug!(%error, ?pause, "try a request again");
        }
        self.meter.retry(self.operation);
        Ok((pause, error))
    }

    /// How long the server wants no attempt to begin.
    ///
    /// # Errors
    /// When the request does not have the time.
    fn respite(&self, object: &str) -> Result<Option<Duration>, StoreError> {
        let (operation, object) = (self.operation, object.to_owned());
        match self.retries.respite() {
            Some(wait) if Instant::now() + wait >= self.end => Err(StoreError::Respite { operation, object, wait }),
            wait => Ok(wait),
        }
    }
}

/// Whether a failure of this class may be another answer's next time.
pub(super) fn passes(class: Class) -> bool {
    match class {
        Class::Transient | Class::Timeout => true,
        Class::NotFound
        | Class::Corrupt
        | Class::Conflict
        | Class::Denied
        | Class::Unsupported
        | Class::Invalid
        | Class::Exhausted
        | Class::Cancelled => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries() -> Retries {
        Retries::new(Env::seeded(1, crate::base::Instant::from_nanos(0)), Arc::default())
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_half_of_each_is_chance() {
        let retries = retries();
        for (failures, whole) in [(1, 100), (2, 200), (3, 400), (6, 3200), (7, 5000), (90, 5000)] {
            let pauses: Vec<u128> = (0..64).map(|_| retries.pause(failures).as_millis()).collect();
            assert!(pauses.iter().all(|pause| (whole / 2..=whole).contains(pause)), "{failures}: {pauses:?}");
            let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
            assert!(most - least > whole / 4, "{failures}: {least}..{most} is no chance");
        }
    }

    #[test]
    fn attempts_wait_for_the_end_of_a_respite_or_fail_at_once() {
        let (respite, meter) = (Arc::<Respite>::default(), Meter::default());
        let retries = Retries::new(Env::seeded(1, crate::base::Instant::from_nanos(0)), Arc::clone(&respite));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let lost = || StoreError::Deadline {
                operation: Operation::Get,
                object: "x".to_owned(),
                after: Duration::from_secs(1),
            };
            respite.ask(Duration::from_millis(300));
            let begun = Instant::now();
            let mut attempts = Attempts::new(&retries, &meter, Operation::Get, Duration::from_secs(60));
            attempts.within("x", async { Ok(()) }).await.unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(300), "the first attempt, too");
            respite.ask(Duration::from_secs(2));
            let (pause, _) = attempts.pause("x", lost()).unwrap();
            assert!(pause > Duration::from_millis(1900), "{pause:?}");

            respite.ask(Duration::from_secs(90));
            let (begun, spent) = (Instant::now(), retries.saved.load(Ordering::Relaxed));
            for error in [
                attempts.within("x", async { Ok(()) }).await.unwrap_err(),
                attempts.again("x", lost()).await.unwrap_err(),
            ] {
                assert!(matches!(error, StoreError::Respite { .. }), "{error}");
                assert!(error.to_string().contains("for 9"), "the wait is named: {error}");
                assert_eq!(error.class(), Class::Transient);
            }
            assert!(begun.elapsed() < Duration::from_secs(1));
            assert_eq!(retries.saved.load(Ordering::Relaxed), spent, "what is not sent costs nothing");
        });
    }

    #[test]
    fn repetitions_never_exceed_what_answers_earned_and_what_was_saved() {
        let retries = retries();
        let mut spent = 0;
        for _ in 0..1000 {
            retries.earn();
            spent += (0..10).filter(|_| retries.spend()).count() as u64;
        }
        assert_eq!(spent, limits::RETRIES_SAVED_MAX + 999 * limits::RETRIES_PER_ANSWER);
    }
}
