//! When a request that failed is made again, and how often.
//!
//! Tried again is what failed for a reason that passes: no answer, a broken connection, a server that is overloaded. The
//! pause doubles with each failure, and half of it is chance, so that clients that failed together do not come back together.
//! No attempt begins that cannot end within the deadline of the whole request.
//!
//! **No storm.** Each request that is answered earns [`limits::RETRIES_PER_ANSWER`] repetitions for all requests of the store,
//! and no more than [`limits::RETRIES_SAVED_MAX`] are saved: a store that is down gets so many repetitions and no more, besides
//! those that its client makes by itself ([`limits::CLIENT_RETRIES_MAX`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::{Class, Classed, Env, limits};

use super::error::StoreError;
use super::meter::{Meter, Operation};

/// The pauses and the budget of one store's requests.
#[derive(Debug)]
pub(super) struct Retries {
    env: Env,
    saved: AtomicU64,
}

impl Retries {
    pub(super) fn new(env: Env) -> Retries {
        Retries { env, saved: AtomicU64::new(limits::RETRIES_SAVED_MAX) }
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
}

/// The attempts of one request.
#[derive(Debug)]
pub(super) struct Attempts<'r> {
    retries: &'r Retries,
    meter: &'r Meter,
    operation: Operation,
    deadline: Duration,
    end: Instant,
    failures: u32,
}

impl<'r> Attempts<'r> {
    /// Of a request that begins now and has so long.
    pub(super) fn new(
        retries: &'r Retries,
        meter: &'r Meter,
        operation: Operation,
        deadline: Duration,
    ) -> Attempts<'r> {
        Attempts { retries, meter, operation, deadline, end: Instant::now() + deadline, failures: 0 }
    }

    /// The result of one attempt, which must have one by the request's end.
    pub(super) async fn within<T>(
        &self,
        object: &str,
        attempt: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (operation, after) = (self.operation, self.deadline);
        let result = tokio::time::timeout_at(self.end, attempt)
            .await
            .unwrap_or_else(|_| Err(StoreError::Deadline { operation, object: object.to_owned(), after }));
        self.answered(&result);
        result
    }

    /// Takes note of the result of one attempt: an answer, also one that refuses, says that the store is up.
    pub(super) fn answered<T>(&self, result: &Result<T, StoreError>) {
        if result.as_ref().err().is_none_or(|error| !passes(error.class())) {
            self.retries.earn();
        }
    }

    /// How long an attempt waits for something to come, before it counts as lost.
    pub(super) fn patience(&self) -> Duration {
        self.deadline / limits::ATTEMPTS_PER_DEADLINE
    }

    /// After an attempt failed: false when `error` is the request's. Otherwise the pause is over, and the next attempt's
    /// time has come.
    pub(super) async fn again(&mut self, error: &StoreError) -> bool {
        match self.pause(error) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                true
            }
            None => false,
        }
    }

    /// As [`Attempts::again`], for whoever pauses without the runtime.
    pub(super) fn pause(&mut self, error: &StoreError) -> Option<Duration> {
        self.failures += 1;
        let pause = self.retries.pause(self.failures);
        if !passes(error.class()) || Instant::now() + pause >= self.end || !self.retries.spend() {
            return None;
        }
        tracing::debug!(%error, ?pause, "try a request again");
        self.meter.retry(self.operation);
        Some(pause)
    }
}

/// Whether a failure of this class may be another answer's next time.
fn passes(class: Class) -> bool {
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
        Retries::new(Env::seeded(1, crate::base::Instant::from_nanos(0)))
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
