//! How requests over HTTP are made: the one place where the clients' options and retries are set.
//!
//! **Whoever waits sets the deadline.** Requests end at the deadlines of [`Store`](crate::store::Store), so the
//! clients have no deadline of their own for a whole request, which would cut off large parts on slow lines, and
//! few retries: enough for a pooled connection that the other side has closed, and nothing that could outlast a deadline
//! unnoticed or multiply the load of a store that is down.

use std::time::Duration;

use object_store::{BackoffConfig, ClientOptions, HeaderValue, RetryConfig};

use crate::base::limits;

/// The options of every client; `endpoint` is where it speaks to, if the user has said so.
pub(super) fn options(endpoint: Option<&str>) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(limits::CONNECT_DEADLINE)
        .with_pool_idle_timeout(limits::IDLE_CONNECTION)
        // Who writes http:// means it; nothing turns https into http.
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")))
        .with_user_agent(HeaderValue::from_static(concat!("amberfs/", env!("CARGO_PKG_VERSION"))))
}

/// What every client tries again by itself.
pub(super) fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            base: 2.,
        },
        max_retries: limits::CLIENT_RETRIES_MAX,
        retry_timeout: limits::METADATA_DEADLINE / 2,
    }
}
