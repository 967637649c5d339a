//! Puts, gets and lists named objects with honest error classes and counted requests.
//!
//! The only home of `object_store` and of what its backends need; an [`Address`] says which one a repository is in.
//! Everything above sees [`Store`]: blocking calls on ordinary
//! threads, each with a deadline, each counted, each failing with a [`StoreError`] whose class says
//! what it means. [`record`] and [`fault`] wrap a store for the tests of every layer.

mod address;
mod ahead;
mod backend;
pub mod conformance;
mod disk_cache;
mod error;
pub mod fault;
mod hedge;
mod intercept;
mod lease;
mod listing;
mod local;
pub mod meter;
mod parts;
mod probe;
mod proof;
pub mod record;
mod remote;
mod requests;
mod respite;
mod retry;
#[allow(clippy::module_inception)]
mod store;
mod sys;
mod tasks;
mod unreached;
mod upload;

#[cfg(test)]
mod tests;

pub use address::{Address, AddressError, Place, Scheme};
pub use backend::{Access, Credentials, Pairs, ReadAgain};
pub use disk_cache::{CacheUsage, DiskCache, KeptBlock};
pub use error::StoreError;
pub use lease::LeaseTimes;
pub use meter::{Count, Meter, Operation, Snapshot};
pub use probe::CreateSupport;
pub use store::{Created, Deadlines, Listed, Store};
pub use upload::Upload;
