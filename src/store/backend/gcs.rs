//! Google Cloud Storage, by its XML interface.
//!
//! **Create** is `x-goog-if-generation-match: 0`; 412 is "exists". Large objects go up in parts and appear by the completion of
//! the multipart upload, without a condition: their names are random.
//!
//! Credentials: the file of the configuration, which is the JSON of a service account or of `gcloud`; else
//! `GOOGLE_APPLICATION_CREDENTIALS`, `GOOGLE_SERVICE_ACCOUNT`, what `gcloud auth application-default login` left, or the
//! instance's metadata server. Federated identities (`external_account`) are not supported by `object_store`.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};

use super::adapted::Adapted;
use super::connector::Connector;
use super::{Made, Request, client};
use crate::store::error::StoreError;

pub(super) fn open(request: &Request<'_>) -> Result<Made, StoreError> {
    let endpoint = request.option("endpoint");
    let mut builder = match request.credentials {
        Some(credentials) => {
            GoogleCloudStorageBuilder::new().with_application_credentials(credentials.path.to_str().ok_or_else(
                || request.unusable(format!("credentials file {:?}: its name is not UTF-8", credentials.path)),
            )?)
        }
        None => GoogleCloudStorageBuilder::from_env(),
    };
    builder = builder
        .with_bucket_name(&request.place.container)
        .with_client_options(client::options(endpoint))
        .with_http_connector(Connector::new(&request.respite))
        .with_retry(client::retries())
        .with_skip_signature(request.is_set("anonymous"));
    if request.is_set("anonymous") {
        // Otherwise the machine's role would be asked for a token all the same.
        let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        builder = builder.with_credentials(Arc::new(nobody));
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let objects = Arc::new(builder.build().map_err(|error| request.unusable(error))?);
    let adapted = Adapted { tags: true, ..Adapted::new(Arc::clone(&objects) as Arc<dyn object_store::ObjectStore>) };
    Ok(Made { objects: Arc::new(adapted), numbered: Some(objects), ordered: true })
}
