//! Writes an object in parts that go up while the next ones are made.
//!
//! **Whole or absent.** The object appears when [`Upload::finish`] makes it, or not at all. An upload that is
//! dropped is given up, and what it sent is removed; only a crash leaves rests: an unnamed multipart upload
//! in a remote store, or a `<name>#<number>` beside the object's place in a local one, which no listing
//! shows.
//!
//! **Bounded.** At most [`PARTS_IN_FLIGHT_MAX`] parts are under way and one is being gathered.
//!
//! **Again.** Over a network, the beginning, each part and the end are tried again as other requests are, where the backend
//! numbers parts (`parts.rs`); elsewhere a part is repeated by its client, or not at all.
//!
//! An object that fits into one part is created by a single request.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use object_store::multipart::PartId;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartId, MultipartUpload, PutPayload};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::base::limits;
use crate::format::object::ObjectName;

use super::error::StoreError;
use super::meter::Operation;
use super::parts::Numbered;
use super::remote::Request;
use super::respite;
use super::store::{Created, Store};
use super::tasks::Running;

/// Parts that may be on their way at once.
const PARTS_IN_FLIGHT_MAX: usize = 2;

/// An object that is being written.
#[derive(Debug)]
pub struct Upload {
    store: Store,
    name: ObjectName,
    path: ObjectPath,
    gathered: VecDeque<Bytes>,
    gathered_bytes: usize,
    /// Of the whole object so far.
    bytes: u64,
    way: Option<Way>,
    in_flight: VecDeque<Sending>,
    failed: bool,
}

/// How the parts go up.
#[derive(Debug)]
enum Way {
    /// By their numbers; what has arrived, in that order.
    Numbered { parts: Numbered, id: MultipartId, begun: usize, arrived: Vec<PartId> },
    /// As they come. Whoever completes it may be cut off, and then it is given up by somebody else.
    InOrder(Arc<Mutex<Box<dyn MultipartUpload>>>),
}

/// A part under way.
#[derive(Debug)]
struct Sending {
    part: Running<Result<Option<PartId>, StoreError>>,
    bytes: u64,
}

impl Upload {
    pub(super) fn new(store: Store, name: ObjectName, path: ObjectPath) -> Upload {
        Upload {
            store,
            name,
            path,
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            bytes: 0,
            way: None,
            in_flight: VecDeque::new(),
            failed: false,
        }
    }

    /// The object's name.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// Appends `bytes`, of any length. Waits only while too many parts are under way.
    ///
    /// # Errors
    /// Of an earlier part, too. After an error the upload can only be given up.
    pub fn write(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Broken { operation: Operation::Part, object: self.name.to_string() });
        }
        self.gathered_bytes += bytes.len();
        self.bytes += bytes.len() as u64;
        self.gathered.push_back(Bytes::from(bytes));
        // The last part stays here, so that one that is also the first needs no multipart upload.
        while self.gathered_bytes > limits::UPLOAD_PART_BYTES {
            let part = self.gather(limits::UPLOAD_PART_BYTES);
            self.send(part).inspect_err(|_| self.failed = true)?;
        }
        Ok(())
    }

    /// Makes the object visible, whole and durable.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.try_finish()
    }

    /// Gives the upload up and removes what it sent, as far as the store lets it.
    pub fn abort(self) {}

    fn try_finish(&mut self) -> Result<(), StoreError> {
        let operation = Operation::Finish;
        if self.failed {
            return Err(StoreError::Broken { operation, object: self.name.to_string() });
        }
        let last = self.gather(self.gathered_bytes);
        if self.way.is_none() {
            return match self.store.create_payload(&self.name, last, None)? {
                Created::New => Ok(()),
                Created::Exists => {
                    Err(StoreError::Taken { operation: Operation::Create, object: self.name.to_string() })
                }
            };
        }
        self.send(last)?;
        while let Some(part) = self.in_flight.pop_front() {
            self.settle(part)?;
        }
        let completed = self.store.counted(operation, || match &self.way {
            None => Ok(()),
            Some(Way::Numbered { parts, id, arrived, .. }) => {
                let (request, bytes) = (self.request(operation, 0), self.bytes);
                let (parts, id, arrived) = (parts.clone(), id.clone(), arrived.clone());
                let completing = async move { parts.finish(&request, &id, &arrived, bytes).await };
                self.store.run(operation, &self.name, completing)?
            }
            Some(Way::InOrder(parts)) => {
                let parts = Arc::clone(parts);
                let completing = self.in_client(operation, async move { parts.lock().await.complete().await });
                let completed = self.store.run(operation, &self.name, completing)?;
                completed.map(drop).map_err(|error| StoreError::reported(operation, self.name.as_str(), error))
            }
        });
        completed.or_else(|error| self.completed_all_the_same(error))?;
        // What was not completed is given up when it is dropped, in a request of its own: the completion may have used its time.
        self.way = None;
        Ok(())
    }

    /// Over a network, the answer may be lost of what was done: then the object stands, and nobody else writes its name. What
    /// the last answer says is no matter, for a repetition of what was done is refused in each server's own way.
    fn completed_all_the_same(&self, error: StoreError) -> Result<(), StoreError> {
        if !self.store.is_remote() {
            return Err(error);
        }
        match self.store.size(&self.name) {
            Ok(size) if size == self.bytes => Ok(()),
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// Takes the first `bytes` of what was gathered.
    fn gather(&mut self, bytes: usize) -> PutPayload {
        let mut part = Vec::new();
        let mut left = bytes;
        while left > 0 {
            let Some(mut piece) = self.gathered.pop_front() else { break };
            if piece.len() > left {
                self.gathered.push_front(piece.split_off(left));
            }
            left -= piece.len();
            part.push(piece);
        }
        self.gathered_bytes -= bytes - left;
        part.into_iter().collect()
    }

    /// Starts sending a part, after the oldest one if too many are under way.
    fn send(&mut self, part: PutPayload) -> Result<(), StoreError> {
        if self.way.is_none() {
            self.way = Some(self.begin()?);
        }
        while self.in_flight.len() >= PARTS_IN_FLIGHT_MAX {
            let Some(oldest) = self.in_flight.pop_front() else { break };
            self.settle(oldest)?;
        }
        let (operation, bytes) = (Operation::Part, part.content_length() as u64);
        let meter = self.store.meter();
        meter.request(operation);
        meter.moved(operation, bytes);
        let request = self.request(operation, bytes);
        let part = match self.way.as_mut() {
            None => return Ok(()),
            Some(Way::Numbered { parts, id, begun, .. }) => {
                let (parts, id, number) = (parts.clone(), id.clone(), *begun);
                *begun += 1;
                let sending = async move { parts.send(&request, &id, number, part).await.map(Some) };
                self.store.start(operation, &self.name, sending)?
            }
            Some(Way::InOrder(parts)) => {
                let sending = match parts.try_lock() {
                    Ok(mut parts) => parts.put_part(part),
                    // Nobody else has it before the end.
                    Err(_) => return Err(StoreError::Broken { operation, object: self.name.to_string() }),
                };
                let sending = self.in_client(operation, sending);
                let sending = async move { sending.await.map(|()| None).map_err(|error| request.reported(error)) };
                self.store.start(operation, &self.name, sending)?
            }
        };
        self.in_flight.push_back(Sending { part, bytes });
        Ok(())
    }

    fn request(&self, operation: Operation, bytes: u64) -> Request {
        self.store.write_request(operation, &self.name, self.path.clone(), bytes)
    }

    fn begin(&self) -> Result<Way, StoreError> {
        let operation = Operation::Begin;
        self.store.counted(operation, || {
            self.store.prepare(operation, &self.name)?;
            if let Some(parts) = self.store.numbered().cloned() {
                let (request, beginner) = (self.request(operation, 0), parts.clone());
                let id = self.store.run(operation, &self.name, async move { beginner.begin(&request).await })??;
                return Ok(Way::Numbered { parts, id, begun: 0, arrived: Vec::new() });
            }
            let (objects, path) = (self.store.objects().clone(), self.path.clone());
            let beginning = self.in_client(operation, async move {
                objects.put_multipart_opts(&path, object_store::PutMultipartOptions::default()).await
            });
            self.store
                .run(operation, &self.name, beginning)?
                .map(|parts| Way::InOrder(Arc::new(Mutex::new(parts))))
                .map_err(|error| StoreError::reported(operation, self.name.as_str(), error))
        })
    }

    /// What is not tried again above the client must wait there for the end of a respite of the server.
    fn in_client<F: Future>(&self, operation: Operation, request: F) -> impl Future<Output = F::Output> + use<F> {
        respite::in_client(Instant::now() + self.store.deadlines().of(operation), request)
    }

    fn settle(&mut self, Sending { part, bytes }: Sending) -> Result<(), StoreError> {
        let operation = Operation::Part;
        let sent = self
            .store
            .wait_longer(operation, &self.name, self.store.allowance(bytes), part)
            .flatten()
            .inspect_err(|_| self.store.meter().failure(operation))?;
        if let (Some(Way::Numbered { arrived, .. }), Some(part)) = (&mut self.way, sent) {
            arrived.push(part);
        }
        Ok(())
    }
}

impl Drop for Upload {
    /// Gives an unfinished upload up, and waits for that no longer than the deadline.
    fn drop(&mut self) {
        self.in_flight.clear();
        let Some(way) = self.way.take() else { return };
        let operation = Operation::Abort;
        let given_up = self.store.counted(operation, || match way {
            Way::Numbered { parts, id, .. } => {
                let request = self.request(operation, 0);
                self.store.run(operation, &self.name, async move { parts.abort_once(&request, &id).await })?
            }
            Way::InOrder(parts) => {
                let giving_up = self.in_client(operation, async move { parts.lock().await.abort().await });
                self.store
                    .run(operation, &self.name, giving_up)?
                    .map_err(|error| StoreError::reported(operation, self.name.as_str(), error))
            }
        });
        if let Err(error) = given_up {
            tracing::debug!(%error, "an unfinished upload could not be given up");
        }
        // A local store that cannot complete (no space to sync, say) leaves its file.
        self.store.sweep(&self.name);
    }
}
