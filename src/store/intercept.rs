//! An `ObjectStore` that asks a [`Gate`] what becomes of each call: what [`record`](super::record) and
//! [`fault`](super::fault) have in common.
//!
//! It sits below [`Store`](super::Store), so it sees what really goes out, also a request that the layers
//! above believe to be another. Calls that this crate never makes (copies, listings by delimiter) go through
//! unasked.

use std::fmt;
use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::meter::Operation;

/// Decides about calls, and is told of them.
#[async_trait]
pub(super) trait Gate: fmt::Debug + Send + Sync + 'static {
    /// A call is made. It may wait here; `bytes` is what it would write.
    async fn pass(&self, operation: Operation, object: &Path, bytes: u64) -> Verdict;

    /// A read that passed is answered with so many bytes.
    fn answered(&self, _operation: Operation, _object: &Path, _bytes: u64) {}

    /// Whether to overwrite where the caller wants to create.
    fn ignores_create(&self) -> bool {
        false
    }

    /// Leaves in a local store what a crash in the middle of writing `object` leaves there.
    fn leave_rest(&self, _object: &Path, _half: &[u8]) {}

    /// Takes over a creation that is to happen later, if ever.
    fn postpone(&self, _object: Path, _payload: PutPayload, _options: PutOptions) {}
}

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is made.
    Pass,
    /// It fails and has no effect.
    Before(object_store::Error),
    /// It has its effect, and then fails.
    After(object_store::Error),
    /// It has part of its effect, or of its answer, and then fails. No object ever becomes visible in part.
    Half(object_store::Error),
    /// Its answer ends early, without a word. Not for writes.
    Short,
    /// A bit of its answer is wrong. Not for writes.
    Flipped,
    /// It is answered as if it had been made. Only for deletions.
    Feigned,
    /// It is never answered; a creation may happen later.
    Late,
}

/// A store behind a gate.
#[derive(Debug)]
pub(super) struct Intercepted<G> {
    inner: Arc<dyn ObjectStore>,
    gate: Arc<G>,
}

impl<G> Intercepted<G> {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, gate: Arc<G>) -> Intercepted<G> {
        Intercepted { inner, gate }
    }
}

impl<G> fmt::Display for Intercepted<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

fn first_half(bytes: &Bytes) -> Bytes {
    bytes.slice(..bytes.len() / 2)
}

fn whole(payload: &PutPayload) -> Vec<u8> {
    payload.iter().map(AsRef::<[u8]>::as_ref).collect::<Vec<_>>().concat()
}

/// `result` with the payload that `change` makes of its bytes.
async fn changed(result: GetResult, change: impl FnOnce(Bytes) -> Vec<Result<Bytes>> + Send) -> Result<GetResult> {
    let (meta, range) = (result.meta.clone(), result.range.clone());
    let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
    let payload = GetResultPayload::Stream(stream::iter(change(result.bytes().await?)).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

#[async_trait]
impl<G: Gate> ObjectStore for Intercepted<G> {
    async fn put_opts(&self, object: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        if self.gate.ignores_create() && matches!(options.mode, PutMode::Create) {
            options.mode = PutMode::Overwrite;
        }
        match self.gate.pass(Operation::Create, object, payload.content_length() as u64).await {
            Verdict::Before(error) => Err(error),
            Verdict::After(error) => {
                self.inner.put_opts(object, payload, options).await?;
                Err(error)
            }
            Verdict::Half(error) => {
                let bytes = whole(&payload);
                self.gate.leave_rest(object, bytes.get(..bytes.len() / 2).unwrap_or_default());
                Err(error)
            }
            Verdict::Late => {
                self.gate.postpone(object.clone(), payload, options);
                pending().await
            }
            Verdict::Pass | Verdict::Short | Verdict::Flipped | Verdict::Feigned => {
                self.inner.put_opts(object, payload, options).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        object: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let verdict = self.gate.pass(Operation::Begin, object, 0).await;
        match verdict {
            Verdict::Before(error) => return Err(error),
            Verdict::Late => return pending().await,
            Verdict::Half(ref _error) => self.gate.leave_rest(object, &[]),
            Verdict::After(_) | Verdict::Pass | Verdict::Short | Verdict::Flipped | Verdict::Feigned => {}
        }
        let upload = self.inner.put_multipart_opts(object, options).await?;
        match verdict {
            Verdict::After(error) | Verdict::Half(error) => Err(error),
            _ => Ok(Box::new(InterceptedUpload { upload, gate: Arc::clone(&self.gate), object: object.clone() })),
        }
    }

    async fn get_opts(&self, object: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = match (options.head, &options.range) {
            (true, _) => Operation::Size,
            (false, None) => Operation::Get,
            (false, Some(GetRange::Suffix(_))) => Operation::Tail,
            (false, Some(GetRange::Bounded(_) | GetRange::Offset(_))) => Operation::Range,
        };
        let verdict = self.gate.pass(operation, object, 0).await;
        match verdict {
            Verdict::Before(error) | Verdict::After(error) => return Err(error),
            Verdict::Late => return pending().await,
            Verdict::Pass | Verdict::Half(_) | Verdict::Short | Verdict::Flipped | Verdict::Feigned => {}
        }
        let result = self.inner.get_opts(object, options).await?;
        if operation == Operation::Size {
            return match verdict {
                Verdict::Half(error) => Err(error),
                _ => Ok(result),
            };
        }
        self.gate.answered(operation, object, result.range.end - result.range.start);
        match verdict {
            Verdict::Half(error) => changed(result, |bytes| vec![Ok(first_half(&bytes)), Err(error)]).await,
            Verdict::Short => changed(result, |bytes| vec![Ok(first_half(&bytes))]).await,
            Verdict::Flipped => {
                changed(result, |bytes| {
                    let mut bytes = bytes.to_vec();
                    let middle = bytes.len() / 2;
                    if let Some(byte) = bytes.get_mut(middle) {
                        *byte ^= 0x10;
                    }
                    vec![Ok(bytes.into())]
                })
                .await
            }
            Verdict::Pass | Verdict::Before(_) | Verdict::After(_) | Verdict::Late | Verdict::Feigned => Ok(result),
        }
    }

    fn delete_stream(&self, objects: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, gate) = (Arc::clone(&self.inner), Arc::clone(&self.gate));
        objects
            .and_then(move |object| {
                let (inner, gate) = (Arc::clone(&inner), Arc::clone(&gate));
                async move {
                    let verdict = gate.pass(Operation::Delete, &object, 0).await;
                    match verdict {
                        Verdict::Before(error) => return Err(error),
                        Verdict::Late => return pending().await,
                        Verdict::Feigned => return Ok(object),
                        _ => {}
                    }
                    let one = stream::once(async move { Ok(object) }).boxed();
                    let deleted = inner.delete_stream(one).try_next().await?;
                    match verdict {
                        Verdict::After(error) | Verdict::Half(error) => Err(error),
                        _ => Ok(deleted.unwrap_or_default()),
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let inner = Arc::clone(&self.inner);
        let prefix = prefix.cloned();
        let place = prefix.clone().unwrap_or_default();
        self.gated_list(place, move || inner.list(prefix.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let inner = Arc::clone(&self.inner);
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        let place = prefix.clone().unwrap_or_default();
        self.gated_list(place, move || inner.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl<G: Gate> Intercepted<G> {
    fn gated_list(
        &self,
        place: Path,
        list: impl FnOnce() -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let gate = Arc::clone(&self.gate);
        async move {
            let verdict = gate.pass(Operation::List, &place, 0).await;
            let (keep_half, error) = match verdict {
                Verdict::Pass | Verdict::Flipped | Verdict::Feigned => return list(),
                Verdict::Late => return stream::pending().boxed(),
                Verdict::Before(error) | Verdict::After(error) => (false, Some(error)),
                Verdict::Half(error) => (true, Some(error)),
                Verdict::Short => (true, None),
            };
            let mut entries: Vec<_> = if keep_half { list().collect().await } else { Vec::new() };
            entries.truncate(entries.len() / 2);
            entries.extend(error.map(Err));
            stream::iter(entries).boxed()
        }
        .flatten_stream()
        .boxed()
    }
}

/// Uploads in parts by their numbers, behind a gate.
pub(super) struct GatedParts<G> {
    inner: Arc<dyn MultipartStore>,
    gate: Arc<G>,
}

impl<G> GatedParts<G> {
    pub(super) fn new(inner: Arc<dyn MultipartStore>, gate: Arc<G>) -> GatedParts<G> {
        GatedParts { inner, gate }
    }
}

impl<G: Gate> GatedParts<G> {
    /// `call`, as the gate has it. No store over a network keeps a half of anything.
    async fn gated<T>(
        &self,
        operation: Operation,
        object: &Path,
        bytes: u64,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match self.gate.pass(operation, object, bytes).await {
            Verdict::Before(error) | Verdict::Half(error) => Err(error),
            Verdict::After(error) => call.await.and(Err(error)),
            Verdict::Late => pending().await,
            Verdict::Pass | Verdict::Short | Verdict::Flipped | Verdict::Feigned => call.await,
        }
    }
}

#[async_trait]
impl<G: Gate> MultipartStore for GatedParts<G> {
    async fn create_multipart(&self, object: &Path) -> Result<MultipartId> {
        self.gated(Operation::Begin, object, 0, self.inner.create_multipart(object)).await
    }

    async fn put_part(&self, object: &Path, id: &MultipartId, number: usize, part: PutPayload) -> Result<PartId> {
        let bytes = part.content_length() as u64;
        self.gated(Operation::Part, object, bytes, self.inner.put_part(object, id, number, part)).await
    }

    async fn complete_multipart(&self, object: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.gated(Operation::Finish, object, 0, self.inner.complete_multipart(object, id, parts)).await
    }

    async fn abort_multipart(&self, object: &Path, id: &MultipartId) -> Result<()> {
        self.gated(Operation::Abort, object, 0, self.inner.abort_multipart(object, id)).await
    }
}

/// An upload behind a gate.
#[derive(Debug)]
struct InterceptedUpload<G> {
    upload: Box<dyn MultipartUpload>,
    gate: Arc<G>,
    object: Path,
}

#[async_trait]
impl<G: Gate> MultipartUpload for InterceptedUpload<G> {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        let bytes = part.content_length() as u64;
        // Parts are numbered in the order of these calls; only the sending waits for the gate.
        let sending = self.upload.put_part(part);
        let (gate, object) = (Arc::clone(&self.gate), self.object.clone());
        async move {
            match gate.pass(Operation::Part, &object, bytes).await {
                Verdict::Before(error) | Verdict::Half(error) => Err(error),
                Verdict::After(error) => sending.await.and(Err(error)),
                Verdict::Late => pending().await,
                Verdict::Pass | Verdict::Short | Verdict::Flipped | Verdict::Feigned => sending.await,
            }
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        match self.gate.pass(Operation::Finish, &self.object, 0).await {
            Verdict::Before(error) => Err(error),
            Verdict::After(error) => self.upload.complete().await.and(Err(error)),
            Verdict::Half(error) => {
                self.gate.leave_rest(&self.object, b"the first part of an upload");
                Err(error)
            }
            Verdict::Late => pending().await,
            Verdict::Pass | Verdict::Short | Verdict::Flipped | Verdict::Feigned => self.upload.complete().await,
        }
    }

    async fn abort(&mut self) -> Result<()> {
        match self.gate.pass(Operation::Abort, &self.object, 0).await {
            Verdict::Before(error) => Err(error),
            Verdict::After(error) | Verdict::Half(error) => self.upload.abort().await.and(Err(error)),
            Verdict::Late => pending().await,
            Verdict::Pass | Verdict::Short | Verdict::Flipped | Verdict::Feigned => self.upload.abort().await,
        }
    }
}
