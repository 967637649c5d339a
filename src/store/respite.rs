//! How long a server has asked to be left alone, by `Retry-After` with an answer 429 or 503.
//!
//! All requests to a store share one respite. Until it is over, none leaves (`backend/connector.rs`), whoever makes it: not
//! the first attempts of requests that begin meanwhile, and not what a client would try again by itself. Who tries again
//! above waits within the deadline of the request, and outside the patience of an attempt (`retry.rs`). What nobody tries
//! again above, the parts of an upload, waits in the client ([`in_client`]).
//!
//! A respite is no more than what it says: it does not tell when the store answers again, and it does not know which of
//! several servers asked. Credentials that come from a server that asks for one delay all that needs them.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::limits;

tokio::task_local! {
    /// Until when the request of this task may wait in the client.
    static UNTIL: Instant;
}

/// `request`, which waits for the end of a respite by itself if that comes before `until`.
pub(super) async fn in_client<T>(until: Instant, request: impl Future<Output = T>) -> T {
    UNTIL.scope(until, request).await
}

/// A request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not sent: the server has asked to be left alone, for {} s from now", left.as_secs_f32().ceil())]
pub(super) struct LeftAlone {
    /// How long the respite still is.
    pub(super) left: Duration,
}

/// When requests to one store may be sent again.
#[derive(Debug, Default)]
pub(super) struct Respite {
    over: Mutex<Option<Instant>>,
}

#[cfg_attr(not(any(feature = "s3", feature = "gcs", feature = "azure")), allow(dead_code))]
impl Respite {
    /// The server asks for so long from now on. What it asked for before, and is longer, stands.
    pub(super) fn ask(&self, wait: Duration) {
        let asked = Instant::now() + wait.min(limits::RESPITE_MAX);
        let mut over = self.over.lock();
        *over = (*over).max(Some(asked));
    }

    /// How long it still is; none when requests may be sent.
    pub(super) fn left(&self) -> Option<Duration> {
        let over = (*self.over.lock())?;
        over.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Returns when a request may be sent.
    ///
    /// # Errors
    /// At once, when the respite is too long for who waits in the client, and for whoever does not.
    pub(super) async fn over(&self) -> Result<(), LeftAlone> {
        while let Some(left) = self.left() {
            match UNTIL.try_with(|until| *until) {
                Ok(until) if Instant::now() + left < until => tokio::time::sleep(left).await,
                Ok(_) | Err(_) => return Err(LeftAlone { left }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocking<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    #[test]
    fn the_longest_respite_counts_and_none_is_endless() {
        let respite = Respite::default();
        assert_eq!(respite.left(), None);
        respite.ask(Duration::ZERO);
        assert_eq!(respite.left(), None);
        respite.ask(Duration::from_secs(30));
        respite.ask(Duration::from_secs(1));
        assert!(respite.left().unwrap() > Duration::from_secs(25));
        respite.ask(Duration::from_secs(u64::MAX));
        assert!(respite.left().unwrap() <= limits::RESPITE_MAX);
    }

    #[test]
    fn only_who_may_waits_in_the_client_and_only_where_it_helps() {
        let respite = Respite::default();
        respite.ask(Duration::from_millis(300));
        let begun = Instant::now();
        assert!(blocking(respite.over()).is_err());
        assert!(blocking(in_client(begun + Duration::from_millis(100), respite.over())).is_err());
        assert!(begun.elapsed() < Duration::from_millis(250), "at once");
        blocking(in_client(begun + Duration::from_secs(60), respite.over())).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
}
