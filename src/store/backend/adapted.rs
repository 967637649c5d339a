//! A client's store with what it lacks: ends of objects where the protocol has none, listings without what is no object, and
//! disbelief of answers that are not the store's.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future};
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A store that is adapted.
#[derive(Debug)]
pub(super) struct Adapted {
    /// What the client gives.
    pub(super) inner: Arc<dyn ObjectStore>,
    /// Names that are not listed.
    pub(super) hides: Option<fn(&ObjectPath) -> bool>,
    /// Whether the end of an object is asked for by its size, with a request more: objects never change in between.
    pub(super) ends_by_size: bool,
    /// Whether the store gives each object a tag. What comes without one is the word of somebody on the way, or an error that
    /// says that all is well, whose page would be taken for the object.
    pub(super) tags: bool,
}

impl Adapted {
    /// As it is.
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Adapted {
        Adapted { inner, hides: None, ends_by_size: false, tags: false }
    }

    fn without_hidden(
        &self,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.hides {
            Some(hides) => listing.try_filter(move |meta| future::ready(!hides(&meta.location))).boxed(),
            None => listing,
        }
    }
}

impl fmt::Display for Adapted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Adapted {
    async fn put_opts(&self, object: &ObjectPath, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(object, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        object: &ObjectPath,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(object, options).await
    }

    async fn get_opts(&self, object: &ObjectPath, mut options: GetOptions) -> Result<GetResult> {
        if let (true, Some(GetRange::Suffix(bytes))) = (self.ends_by_size, &options.range) {
            let size = match self.head(object).await {
                Ok(meta) => meta.size,
                // A read says what it is that does not exist.
                Err(object_store::Error::NotFound { .. }) => self.inner.get(object).await?.meta.size,
                Err(error) => return Err(error),
            };
            // No range of an empty object is one.
            options.range = (size > 0).then(|| GetRange::Bounded(size.saturating_sub(*bytes)..size));
        }
        let result = self.inner.get_opts(object, options).await?;
        if self.tags && result.meta.e_tag.is_none() {
            let source = format!("the answer for {object} has no ETag, so it is not the store's").into();
            return Err(object_store::Error::Generic { store: "HTTP", source });
        }
        Ok(result)
    }

    fn delete_stream(&self, objects: BoxStream<'static, Result<ObjectPath>>) -> BoxStream<'static, Result<ObjectPath>> {
        self.inner.delete_stream(objects)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.without_hidden(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&ObjectPath>,
        offset: &ObjectPath,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.without_hidden(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
