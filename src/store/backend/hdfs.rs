//! Hadoop's filesystem, by a client of its own that needs no Java.
//!
//! **Create** writes `.<name>.tmp.<number>` beside the object's place and renames it without overwriting, which the NameNode
//! does atomically; "exists" is what it answers then. Multipart uploads are such a file too, and their renaming
//! overwrites: their names are random. What a killed writer leaves of such files is no object and is not listed.
//! A file is closed and not synced: what is acknowledged is in the memory of its DataNodes, as Hadoop has it.
//!
//! Configuration: `core-site.xml` and `hdfs-site.xml` in `HADOOP_CONF_DIR` (name services, security); the user is
//! `HADOOP_USER_NAME`, or the ticket of Kerberos.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future};
use hdfs_native_object_store::HdfsObjectStoreBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use super::{Made, Request};
use crate::store::error::StoreError;

pub(super) fn open(request: &Request<'_>) -> std::result::Result<Made, StoreError> {
    if request.credentials.is_some() {
        return Err(request.unusable("HDFS knows no credentials_file; set HADOOP_CONF_DIR and HADOOP_USER_NAME"));
    }
    let url = format!("hdfs://{}", request.place.container);
    let objects = HdfsObjectStoreBuilder::new().with_url(url).build().map_err(|error| request.unusable(error))?;
    Ok(Made { objects: Arc::new(Whole(Arc::new(objects))), ordered: false })
}

/// The filesystem without the files that are not objects yet.
#[derive(Debug)]
struct Whole(Arc<dyn ObjectStore>);

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether it is the name that the client gives a file until it is whole: `.<name>.tmp.<number>`.
fn is_unfinished(path: &ObjectPath) -> bool {
    let name = path.filename().unwrap_or_default();
    let number = name.rsplit_once(".tmp.").map(|(_, number)| number);
    name.starts_with('.') && number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn whole(listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    listing.try_filter(|meta| future::ready(!is_unfinished(&meta.location))).boxed()
}

#[async_trait]
impl ObjectStore for Whole {
    async fn put_opts(&self, object: &ObjectPath, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(object, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        object: &ObjectPath,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(object, options).await
    }

    async fn get_opts(&self, object: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(object, options).await
    }

    fn delete_stream(&self, objects: BoxStream<'static, Result<ObjectPath>>) -> BoxStream<'static, Result<ObjectPath>> {
        self.0.delete_stream(objects)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        whole(self.0.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&ObjectPath>,
        offset: &ObjectPath,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        whole(self.0.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &ObjectPath, to: &ObjectPath, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_under_way_are_told_from_objects() {
        for (name, unfinished) in [
            ("a/.00000000000000000001.tmp.1", true),
            ("a/.x.pack.tmp.12", true),
            ("a/00000000000000000001", false),
            ("a/.hidden", false),
            ("a/x.tmp.1", false),
        ] {
            assert_eq!(is_unfinished(&ObjectPath::from(name)), unfinished, "{name}");
        }
    }
}
