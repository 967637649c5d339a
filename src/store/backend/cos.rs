//! Tencent Cloud's object store, by OpenDAL.
//!
//! **Create** is `x-cos-forbid-overwrite: true`; 409 `FileAlreadyExists` is "exists". Tencent documents the header for
//! buckets that **never had versioning** only: others fail the probe.
//! Multipart uploads are completed without a condition: their names are random.
//!
//! Credentials: the file of the configuration; else what Tencent's tools read from the environment
//! (`TENCENTCLOUD_SECRET_ID` and so on), or the role of the machine.

use std::sync::Arc;

use object_store_opendal::OpendalStore;
use opendal::Operator;
use opendal::services::Cos;

use super::{Made, Request};
use crate::store::error::StoreError;

pub(super) fn open(request: &Request<'_>) -> Result<Made, StoreError> {
    request.check_secrets(&["secret_id", "secret_key", "security_token"])?;
    let region = request.option("region").map(|region| format!("https://cos.{region}.myqcloud.com"));
    let endpoint = request.option("endpoint").map(str::to_owned).or(region);
    let endpoint = endpoint.ok_or_else(|| request.unusable("say endpoint=https://… or region=…"))?;
    let mut service = Cos::default().bucket(&request.place.container).endpoint(&endpoint);
    if let Some(id) = request.secret("secret_id") {
        service = service.secret_id(id);
    }
    if let Some(key) = request.secret("secret_key") {
        service = service.secret_key(key);
    }
    if let Some(token) = request.secret("security_token") {
        service = service.security_token(token);
    }
    let operator = Operator::new(service).map_err(|error| request.unusable(error))?;
    Ok(Made {
        objects: Arc::new(OpendalStore::new(operator)),
        numbered: None,
        ordered: true,
        resolved: vec![("endpoint", Some(endpoint))],
    })
}
