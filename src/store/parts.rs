//! The parts of an upload by their numbers, so that each can be sent again by itself.
//!
//! `object_store`'s own uploads number parts in the order in which they are handed over, so that none can be repeated. Where a
//! backend has the numbers (S3, GCS, Azure), a part that is sent twice replaces itself, and the beginning of an upload that is
//! begun twice leaves an unnamed rest at worst, as a crash does. Elsewhere (HDFS, OSS, COS) parts are sent once.
//!
//! **The end is settled whatever is said of it.** A completion whose answer was lost has used the parts up, so that its
//! repetition, which the client below makes as well, is refused in each server's own way (S3: no such upload; Azure: 400, an invalid list
//! of blocks). The object's size says that it happened, as nobody else writes its name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as ObjectPath;
use object_store::{MultipartId, ObjectStoreExt, PutPayload, PutResult, Result};

use super::error::StoreError;
use super::meter::Operation;
use super::remote::Request;

/// A backend's uploads in parts by their numbers.
#[derive(Clone)]
pub(super) struct Numbered(pub(super) Arc<dyn MultipartStore>);

impl fmt::Debug for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbered")
    }
}

impl Numbered {
    /// Begins an upload.
    pub(super) async fn begin(&self, request: &Request) -> std::result::Result<MultipartId, StoreError> {
        request.answered(|| self.0.create_multipart(&request.path)).await
    }

    /// Sends the part with `number`, counted from 0.
    pub(super) async fn send(
        &self,
        request: &Request,
        id: &MultipartId,
        number: usize,
        part: PutPayload,
    ) -> std::result::Result<PartId, StoreError> {
        request.answered(|| self.0.put_part(&request.path, id, number, part.clone())).await
    }

    /// Makes the object of `parts`, which has so many `bytes`.
    pub(super) async fn finish(
        &self,
        request: &Request,
        id: &MultipartId,
        parts: &[PartId],
        bytes: u64,
    ) -> std::result::Result<(), StoreError> {
        request
            .attempted(|patience| async move {
                let completing = self.0.complete_multipart(&request.path, id, parts.to_vec());
                let error = match request.patiently(patience, completing).await {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(error)) => request.reported(error),
                    Err(lost) => lost,
                };
                // A server out of reach cannot be asked, either.
                if !error.is_unreached() && self.stands(request, bytes, patience).await.is_ok_and(|stands| stands) {
                    return Ok(());
                }
                Err(error)
            })
            .await
    }

    /// Gives the upload up, in one attempt: whoever waits has failed already, and a rest only takes space.
    pub(super) async fn abort_once(&self, request: &Request, id: &MultipartId) -> std::result::Result<(), StoreError> {
        self.0.abort_multipart(&request.path, id).await.map_err(|error| request.reported(error))
    }

    async fn stands(
        &self,
        request: &Request,
        bytes: u64,
        patience: Option<Duration>,
    ) -> std::result::Result<bool, StoreError> {
        request.meter.request(Operation::Size);
        match request.patiently(patience, request.objects.head(&request.path)).await? {
            Ok(meta) => Ok(meta.size == bytes),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(request.reported(error)),
        }
    }
}

/// Uploads below a prefix.
pub(super) struct Below {
    inner: Arc<dyn MultipartStore>,
    prefix: ObjectPath,
}

impl Below {
    pub(super) fn new(inner: Arc<dyn MultipartStore>, prefix: &ObjectPath) -> Below {
        Below { inner, prefix: prefix.clone() }
    }

    fn place(&self, object: &ObjectPath) -> ObjectPath {
        self.prefix.parts().chain(object.parts()).collect()
    }
}

#[async_trait]
impl MultipartStore for Below {
    async fn create_multipart(&self, object: &ObjectPath) -> Result<MultipartId> {
        self.inner.create_multipart(&self.place(object)).await
    }

    async fn put_part(&self, object: &ObjectPath, id: &MultipartId, number: usize, part: PutPayload) -> Result<PartId> {
        self.inner.put_part(&self.place(object), id, number, part).await
    }

    async fn complete_multipart(&self, object: &ObjectPath, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.inner.complete_multipart(&self.place(object), id, parts).await
    }

    async fn abort_multipart(&self, object: &ObjectPath, id: &MultipartId) -> Result<()> {
        self.inner.abort_multipart(&self.place(object), id).await
    }
}
