//! Records what is asked of a store, in order, for tests that promise which requests are made.
//!
//! ```
//! use amberfs::format::object::ObjectName;
//! use amberfs::store::{Operation, Store, record::Recorder};
//!
//! let recorder = Recorder::new();
//! let store = recorder.around(&Store::memory());
//! store.create(&ObjectName::listed("log/1"), b"entry".to_vec())?;
//! store.get(&ObjectName::listed("log/1"), 100)?;
//! let operations: Vec<Operation> = recorder.take().iter().map(|call| call.operation).collect();
//! assert_eq!(operations, [Operation::Create, Operation::Get]);
//! # Ok::<(), amberfs::store::StoreError>(())
//! ```
//!
//! A wrapped local store takes no short cuts, so every request is seen; how many there are is the same.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::path::Path;
use parking_lot::Mutex;

use super::intercept::{Gate, Verdict};
use super::meter::Operation;
use super::store::Store;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What was asked.
    pub operation: Operation,
    /// The object's name, or the directory that was listed.
    pub object: String,
    /// Bytes sent or answered; of a failed write, those that it would have sent.
    pub bytes: u64,
}

/// The record of one or several stores. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    gate: Arc<Record>,
}

#[derive(Debug, Default)]
struct Record {
    calls: Mutex<Vec<Recorded>>,
    pairs: Mutex<Vec<(Kind, Kind, usize)>>,
}

/// An operation, and what the object's name contains.
type Kind = (Operation, &'static str);

/// Whoever waits longer for the other request of a pair waits for one that is never made.
const PAIR_PATIENCE: Duration = Duration::from_secs(20);

impl Recorder {
    /// An empty record.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// `store`, with everything that is asked of it put on record.
    pub fn around(&self, store: &Store) -> Store {
        store.gated(&self.gate)
    }

    /// From now on a request of the kind `first` is answered when the `nth` of the kind `second` since the last [`Recorder::take`]
    /// has been made, and fails if it is not: who asks for one after the other, and not side by side, is found out.
    pub fn expect_together(&self, first: (Operation, &'static str), second: (Operation, &'static str), nth: usize) {
        self.gate.pairs.lock().push((first, second, nth));
    }

    /// What was asked so far, in order.
    pub fn calls(&self) -> Vec<Recorded> {
        self.gate.calls.lock().clone()
    }

    /// What was asked since the last time, in order; forgotten here.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut *self.gate.calls.lock())
    }
}

#[async_trait]
impl Gate for Record {
    async fn pass(&self, operation: Operation, object: &Path, bytes: u64) -> Verdict {
        self.calls.lock().push(Recorded { operation, object: object.to_string(), bytes });
        let is = |kind: &Kind, operation, object: &str| kind.0 == operation && object.contains(kind.1);
        let pairs = self.pairs.lock().clone();
        for (_, second, nth) in pairs.iter().filter(|(first, ..)| is(first, operation, object.as_ref())) {
            let made =
                || self.calls.lock().iter().filter(|call| is(second, call.operation, &call.object)).count() >= *nth;
            let waiting = async {
                while !made() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            if tokio::time::timeout(PAIR_PATIENCE, waiting).await.is_err() {
                let source =
                    format!("{} {object} was not asked beside a {} of {}", operation.name(), second.0.name(), second.1);
                return Verdict::Before(object_store::Error::NotSupported { source: source.into() });
            }
        }
        Verdict::Pass
    }

    fn answered(&self, operation: Operation, object: &Path, bytes: u64) {
        let mut calls = self.calls.lock();
        let asked = calls.iter_mut().rev().find(|call| call.operation == operation && call.object == object.as_ref());
        if let Some(asked) = asked {
            asked.bytes = bytes;
        }
    }
}
