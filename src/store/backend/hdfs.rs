//! Hadoop's filesystem, by a client of its own that needs no Java.
//!
//! **Create** writes `.<name>.tmp.<number>` beside the object's place and renames it without overwriting, which the NameNode
//! does atomically; "exists" is what it answers then. Multipart uploads are such a file too, and their renaming
//! overwrites: their names are random. What a killed writer leaves of such files is no object and is not listed.
//! A file is closed and not synced: what is acknowledged is in the memory of its DataNodes, as Hadoop has it.
//!
//! Configuration: `core-site.xml` and `hdfs-site.xml` in `HADOOP_CONF_DIR` (name services, security); the user is
//! `HADOOP_USER_NAME`, or the ticket of Kerberos.

use std::sync::Arc;

use hdfs_native_object_store::HdfsObjectStoreBuilder;
use object_store::path::Path as ObjectPath;

use super::adapted::Adapted;
use super::{Made, Request};
use crate::store::error::StoreError;

pub(super) fn open(request: &Request<'_>) -> Result<Made, StoreError> {
    if request.credentials.is_some() {
        return Err(request.unusable("HDFS knows no credentials_file; set HADOOP_CONF_DIR and HADOOP_USER_NAME"));
    }
    let url = format!("hdfs://{}", request.place.container);
    let objects = HdfsObjectStoreBuilder::new().with_url(url).build().map_err(|error| request.unusable(error))?;
    let adapted = Adapted { hides: Some(is_unfinished), ..Adapted::new(Arc::new(objects)) };
    Ok(Made {
        objects: Arc::new(adapted),
        numbered: None,
        ordered: false,
        resolved: vec![("configuration", configuration())],
    })
}

/// What stands for the files that say which servers a name service is. They may hold passwords, so it is a hash.
fn configuration() -> Option<String> {
    let directory = std::path::PathBuf::from(std::env::var_os("HADOOP_CONF_DIR")?);
    let mut hasher = blake3::Hasher::new();
    for name in ["core-site.xml", "hdfs-site.xml"] {
        let file = std::fs::read(directory.join(name)).unwrap_or_default();
        hasher.update(&(file.len() as u64).to_le_bytes()).update(&file);
    }
    Some(hasher.finalize().to_hex().to_string())
}

/// Whether it is the name that the client gives a file until it is whole: `.<name>.tmp.<number>`.
fn is_unfinished(path: &ObjectPath) -> bool {
    let name = path.filename().unwrap_or_default();
    let number = name.rsplit_once(".tmp.").map(|(_, number)| number);
    name.starts_with('.') && number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
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
