//! Alibaba Cloud's object store, by OpenDAL.
//!
//! **Create** is `x-oss-forbid-overwrite: true`; 409 `FileAlreadyExists` is "exists". Alibaba documents that the header has
//! **no effect in a bucket with versioning**, enabled or suspended: such a bucket fails the probe.
//! Multipart uploads are completed without a condition: their names are random.
//!
//! Credentials: the file of the configuration; else what Alibaba's tools read from the environment
//! (`ALIBABA_CLOUD_ACCESS_KEY_ID` and so on), their files, or the role of the machine.

use std::sync::Arc;

use object_store_opendal::OpendalStore;
use opendal::Operator;
use opendal::services::Oss;

use super::{Made, Request};
use crate::store::error::StoreError;

pub(super) fn open(request: &Request<'_>) -> Result<Made, StoreError> {
    request.check_secrets(&["access_key_id", "access_key_secret", "security_token"])?;
    let region = request.option("region").map(|region| format!("https://oss-{region}.aliyuncs.com"));
    let endpoint = request.option("endpoint").map(str::to_owned).or(region);
    let endpoint = endpoint.ok_or_else(|| request.unusable("say endpoint=https://… or region=…"))?;
    let mut service = Oss::default().bucket(&request.place.container).endpoint(&endpoint);
    if request.is_set("path_style") {
        service = service.addressing_style("path");
    }
    if let Some(id) = request.secret("access_key_id") {
        service = service.access_key_id(id);
    }
    if let Some(secret) = request.secret("access_key_secret") {
        service = service.access_key_secret(secret);
    }
    if let Some(token) = request.secret("security_token") {
        service = service.security_token(token);
    }
    if request.is_set("anonymous") {
        service = service.skip_signature();
    }
    let operator = Operator::new(service).map_err(|error| request.unusable(error))?;
    Ok(Made {
        objects: Arc::new(OpendalStore::new(operator)),
        numbered: None,
        ordered: true,
        resolved: vec![("endpoint", Some(endpoint))],
    })
}
