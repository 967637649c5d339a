//! Requests over a network: made again when they fail for a reason that passes, and reads a second time when they are
//! slow, all within the deadline of the request.
//!
//! **A creation is never blindly repeated.** When its outcome is not known, what stands under the name is read first: our
//! bytes say that it happened, others' that the name was taken. Only where nothing stands is it sent again. Should the first
//! one arrive after all, it finds the name taken. Bytes tell whose an object is because all that is created holds something
//! random of its writer: a nonce, a session's id. What refuses a later attempt says nothing of the first: a creation in doubt
//! ends with the error that raised the doubt.
//!
//! A store that is not over a network makes each request once.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::{Either, select};
use object_store::path::Path as ObjectPath;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};
use tokio::time::{Instant, timeout};

use crate::base::{Class, Classed, Env, limits};

use super::error::StoreError;
use super::hedge::Hedges;
use super::meter::{Meter, Operation};
use super::respite::Respite;
use super::retry::{Attempts, Retries, passes};
use super::store::Created;

/// What all requests to a store over a network share.
#[derive(Debug)]
pub(super) struct Remote {
    retries: Retries,
    hedges: Hedges,
}

impl Remote {
    pub(super) fn new(env: Env, respite: Arc<Respite>) -> Remote {
        Remote { retries: Retries::new(env, respite), hedges: Hedges::default() }
    }

    /// The attempts of `request`, which begins now.
    pub(super) fn attempts_of<'r>(&'r self, request: &'r Request) -> Attempts<'r> {
        Attempts::new(&self.retries, &request.meter, request.operation, request.deadline).longer_by(request.allowance)
    }
}

/// One request: what it is, of what, and how long it may take.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) meter: Arc<Meter>,
    pub(super) remote: Option<Arc<Remote>>,
    pub(super) operation: Operation,
    pub(super) object: String,
    pub(super) path: ObjectPath,
    pub(super) deadline: Duration,
    /// How much longer than its deadline it may take for what it writes.
    pub(super) allowance: Duration,
}

impl Request {
    /// The same, within `most` at most, whatever it writes.
    pub(super) fn within(self, most: Duration) -> Request {
        let deadline = self.deadline.min(most);
        Request { deadline, allowance: self.allowance.min(most - deadline), ..self }
    }

    pub(super) fn reported(&self, error: object_store::Error) -> StoreError {
        StoreError::reported(self.operation, &self.object, error)
    }

    fn lost(&self, after: Duration) -> StoreError {
        StoreError::Deadline { operation: self.operation, object: self.object.clone(), after }
    }

    /// What `attempt` yields, tried again while it fails for a reason that passes. It is told how long to wait for anything.
    pub(super) async fn attempted<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        attempt: impl Fn(Option<Duration>) -> F,
    ) -> Result<T, StoreError> {
        let Some(remote) = &self.remote else { return attempt(None).await };
        let mut attempts = remote.attempts_of(self);
        loop {
            match attempts.within(&self.object, attempt(Some(attempts.patience()))).await {
                Ok(value) => return Ok(value),
                Err(error) => drop(attempts.again(&self.object, error).await?),
            }
        }
    }

    /// As [`Request::attempted`], for requests that `object_store` answers at once.
    pub(super) async fn answered<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        self.attempted(|patience| {
            let attempt = attempt();
            async move { self.patiently(patience, attempt).await?.map_err(|error| self.reported(error)) }
        })
        .await
    }

    pub(super) async fn patiently<T>(
        &self,
        patience: Option<Duration>,
        work: impl Future<Output = T>,
    ) -> Result<T, StoreError> {
        match patience {
            None => Ok(work.await),
            Some(patience) => timeout(patience, work).await.map_err(|_| self.lost(patience)),
        }
    }

    /// One GET, read to its end, and the object's size; `accept` sees what the store says of the object and tells how many
    /// bytes must come.
    pub(super) async fn read(
        &self,
        range: Option<GetRange>,
        accept: impl Fn(&ObjectMeta) -> Result<u64, StoreError>,
    ) -> Result<(Bytes, u64), StoreError> {
        let (range, accept) = (&range, &accept);
        self.attempted(|patience| async move {
            match (self.read_once(range.clone(), accept, patience).await, range) {
                (Err(error), Some(GetRange::Bounded(range)))
                    if self.remote.is_some() && error.may_be_of_the_range() =>
                {
                    Err(self.behind_the_end(range, patience).await.unwrap_or(error))
                }
                (read, _) => read,
            }
        })
        .await
    }

    /// Stores report a range behind the end in ways of their own; the size tells.
    async fn behind_the_end(&self, range: &Range<u64>, patience: Option<Duration>) -> Option<StoreError> {
        self.meter.request(Operation::Size);
        let actual = self.patiently(patience, self.objects.head(&self.path)).await.ok()?.ok()?.size;
        let (operation, object) = (self.operation, self.object.clone());
        (actual <= range.start).then_some(StoreError::Truncated { operation, object, expected: range.end, actual })
    }

    /// The bytes of `range`, or fewer where the object ends inside it, and the object's size.
    pub(super) async fn read_to_end(&self, range: Range<u64>) -> Result<(Bytes, u64), StoreError> {
        let accept = |meta: &ObjectMeta| {
            let (operation, object) = (self.operation, self.object.clone());
            match meta.size.min(range.end).checked_sub(range.start) {
                Some(bytes) if bytes > 0 => Ok(bytes),
                Some(_) | None => {
                    Err(StoreError::Truncated { operation, object, expected: range.end, actual: meta.size })
                }
            }
        };
        self.read(Some(GetRange::Bounded(range.clone())), accept).await
    }

    async fn read_once(
        &self,
        range: Option<GetRange>,
        accept: &impl Fn(&ObjectMeta) -> Result<u64, StoreError>,
        patience: Option<Duration>,
    ) -> Result<(Bytes, u64), StoreError> {
        let options = GetOptions { range, ..GetOptions::default() };
        let result = self.patiently(patience, self.begin(options)).await?.map_err(|error| self.reported(error))?;
        let size = result.meta.size;
        let expected = accept(&result.meta)?;
        let bytes = self.collect(result, expected, patience).await?;
        if bytes.len() as u64 != expected {
            let (operation, object, actual) = (self.operation, self.object.clone(), bytes.len() as u64);
            if self.remote.is_some() {
                // What stands there is long enough, as the store has just said: the answer is not whole.
                let source = format!("{actual} bytes came of {expected}").into();
                return Err(StoreError::Failed { operation, object, class: Class::Transient, source });
            }
            return Err(StoreError::Truncated { operation, object, expected, actual });
        }
        Ok((bytes, size))
    }

    /// The answer to a GET, when it begins; asked for a second time when that takes long.
    async fn begin(&self, options: GetOptions) -> object_store::Result<GetResult> {
        let Some(remote) = &self.remote else { return self.objects.get_opts(&self.path, options).await };
        let begun = Instant::now();
        let result = match remote.hedges.slow() {
            None => self.objects.get_opts(&self.path, options).await,
            Some(slow) => {
                let first = self.objects.get_opts(&self.path, options.clone());
                match select(first, Box::pin(tokio::time::sleep(slow))).await {
                    Either::Left((result, _)) => result,
                    Either::Right(((), first)) if !remote.hedges.spend() => first.await,
                    Either::Right(((), first)) => {
                        self.meter.hedge(self.operation);
                        match select(first, self.objects.get_opts(&self.path, options)).await {
                            Either::Left((Ok(result), _)) | Either::Right((Ok(result), _)) => Ok(result),
                            Either::Left((Err(_), other)) | Either::Right((Err(_), other)) => other.await,
                        }
                    }
                }
            }
        };
        if result.is_ok() {
            remote.hedges.answered(begun.elapsed());
        }
        result
    }

    /// The payload, but little more than `expected`: a store that answers endlessly fills no memory.
    async fn collect(&self, result: GetResult, expected: u64, patience: Option<Duration>) -> Result<Bytes, StoreError> {
        let reported = |error| self.reported(error);
        if let GetResultPayload::File(..) = result.payload {
            // Ends where the file does, and as a stream would change threads every 8 KiB.
            return result.bytes().await.map_err(reported);
        }
        let mut stream = result.into_stream();
        let Some(first) = self.patiently(patience, stream.next()).await?.transpose().map_err(reported)? else {
            return Ok(Bytes::new());
        };
        if first.len() as u64 == expected {
            return Ok(first);
        }
        // What the store says is believed up to here.
        let room = usize::try_from(expected).unwrap_or(usize::MAX).min(2 * limits::UPLOAD_PART_BYTES);
        let mut whole = BytesMut::with_capacity(room.max(first.len()));
        whole.extend_from_slice(&first);
        while whole.len() as u64 <= expected {
            match self.patiently(patience, stream.next()).await?.transpose().map_err(reported)? {
                Some(more) => whole.extend_from_slice(&more),
                None => break,
            }
        }
        Ok(whole.freeze())
    }

    /// Creates the object unless it exists.
    pub(super) async fn create(&self, payload: PutPayload) -> Result<Created, StoreError> {
        let Some(remote) = &self.remote else { return self.create_once(payload).await };
        let mut attempts = remote.attempts_of(self);
        let patience = Some(attempts.patience());
        let mut doubt = None;
        loop {
            let attempt = async {
                if doubt.is_some()
                    && let Some(created) = self.settle(&payload, patience).await?
                {
                    return Ok(created);
                }
                match self.patiently(patience, self.create_once(payload.clone())).await?? {
                    Created::New => Ok(Created::New),
                    // Some client below us may have sent it twice.
                    Created::Exists => match self.settle(&payload, patience).await {
                        Ok(settled) => Ok(settled.unwrap_or(Created::Exists)),
                        Err(error) => Err(self.in_doubt(error)),
                    },
                }
            };
            match attempts.within(&self.object, attempt).await {
                Ok(created) => return Ok(created),
                Err(error) => match (attempts.again(&self.object, error).await, doubt.take()) {
                    (Ok(error), _) => doubt = Some(error),
                    (Err(refusal), Some(doubt)) if !passes(refusal.class()) => {
                        tracing::debug!(error = %refusal, "a creation in doubt is refused");
                        return Err(doubt);
                    }
                    (Err(error), _) => return Err(error),
                },
            }
        }
    }

    async fn create_once(&self, payload: PutPayload) -> Result<Created, StoreError> {
        match self.objects.put_opts(&self.path, payload, PutOptions::from(PutMode::Create)).await {
            Ok(_) => Ok(Created::New),
            Err(error @ object_store::Error::AlreadyExists { .. }) if StoreError::exists(&error) => Ok(Created::Exists),
            Err(error) => {
                let (repeated, error) = (StoreError::was_repeated(&error), self.reported(error));
                // What refuses the last of several says nothing of the others.
                Err(if repeated { self.in_doubt(error) } else { error })
            }
        }
    }

    /// What is told of a creation that may have happened, when `error` came of the last thing that was asked: no refusal.
    fn in_doubt(&self, error: StoreError) -> StoreError {
        if passes(error.class()) {
            return error;
        }
        let (operation, object) = (self.operation, self.object.clone());
        StoreError::Failed { operation, object, class: Class::Transient, source: Box::new(error) }
    }

    /// Whether what stands under the name is `payload`; none when nothing does.
    async fn settle(&self, payload: &PutPayload, patience: Option<Duration>) -> Result<Option<Created>, StoreError> {
        let request = Request { operation: Operation::Get, ..self.clone() };
        self.meter.request(request.operation);
        let expected = payload.content_length() as u64;
        // Of an object of another size nothing more needs to be known.
        let accept = |meta: &ObjectMeta| match meta.size {
            size if size == expected => Ok(size),
            actual => {
                let (operation, object) = (request.operation, request.object.clone());
                Err(StoreError::Oversized { operation, object, most: expected, actual })
            }
        };
        match request.read_once(None, &accept, patience).await {
            Ok((bytes, _)) => {
                self.meter.moved(request.operation, bytes.len() as u64);
                let mut rest = &*bytes;
                let ours = payload.iter().all(|piece| match rest.split_at_checked(piece.len()) {
                    Some((part, behind)) => {
                        rest = behind;
                        part == &**piece
                    }
                    None => false,
                });
                Ok(Some(if ours { Created::New } else { Created::Exists }))
            }
            Err(StoreError::Oversized { .. }) => Ok(Some(Created::Exists)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => {
                self.meter.failure(request.operation);
                Err(error)
            }
        }
    }

    /// The object's size.
    pub(super) async fn size(&self) -> Result<u64, StoreError> {
        let size = || async {
            match self.objects.head(&self.path).await {
                // An answer without a body cannot say what it is that does not exist; a read's can.
                Err(object_store::Error::NotFound { .. }) if self.remote.is_some() => {
                    self.objects.get(&self.path).await.map(|read| read.meta.size)
                }
                answered => answered.map(|meta| meta.size),
            }
        };
        self.answered(size).await
    }

    /// Deletes the object; that it did not exist is no error.
    pub(super) async fn delete(&self) -> Result<(), StoreError> {
        match self.answered(|| self.objects.delete(&self.path)).await {
            Err(StoreError::Missing { .. }) => Ok(()),
            other => other,
        }
    }
}
