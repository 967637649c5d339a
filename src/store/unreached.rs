//! A server that no connection can be made to: what it is called and why.
//!
//! It does not tell why for certain: a name that nobody knows may be a mistake, or a network that is down.

use std::error::Error;
use std::io::ErrorKind;

/// No connection could be made.
#[cfg_attr(not(any(feature = "s3", feature = "gcs", feature = "azure")), allow(dead_code))]
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot reach {server}: {cause}; check the endpoint, http or https, and the network")]
pub(super) struct Unreached {
    /// As the user or the backend names it, `https://host:port`.
    pub(super) server: String,
    /// What the network or the other side said.
    pub(super) cause: String,
}

/// Whether `error` means that the server was not reached at all.
pub(super) fn is_unreached(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        cause.is::<Unreached>()
            || cause.downcast_ref::<std::io::Error>().is_some_and(|io| {
                matches!(
                    io.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
                )
            })
    })
}

/// What `error` says, and what its deepest cause says where it keeps that to itself.
pub(super) fn told(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    match causes(error).last().map(ToString::to_string) {
        Some(deepest) if !text.contains(&deepest) => format!("{text}: {deepest}"),
        Some(_) | None => text,
    }
}

/// What the deepest cause of `error` says.
#[cfg_attr(not(any(feature = "s3", feature = "gcs", feature = "azure")), allow(dead_code))]
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// `error`, what caused it, what caused that, and so on.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| (*error).source())
}
