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
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey as Key};

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
    let resolved = vec![("endpoint", builder.get_config_value(&Key::BaseUrl).or_else(|| endpoint_of_key(&builder)))];
    let objects = Arc::new(builder.build().map_err(|error| request.unusable(error))?);
    let adapted = Adapted { tags: true, ..Adapted::new(Arc::clone(&objects) as Arc<dyn object_store::ObjectStore>) };
    Ok(Made { objects: Arc::new(adapted), numbered: Some(objects), ordered: true, resolved })
}

/// The server that the key of a service account names; `object_store` goes by it, and does not tell.
fn endpoint_of_key(builder: &GoogleCloudStorageBuilder) -> Option<String> {
    let of_file = |key| std::fs::read_to_string(builder.get_config_value(&key)?).ok();
    let key = builder.get_config_value(&Key::ServiceAccountKey);
    let key = key.or_else(|| of_file(Key::ServiceAccount)).or_else(|| of_file(Key::ApplicationCredentials))?;
    let key: serde_json::Value = serde_json::from_str(&key).ok()?;
    Some(key.get("gcs_base_url")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_in_a_key_is_found() {
        let builder = GoogleCloudStorageBuilder::new();
        assert_eq!(endpoint_of_key(&builder), None);
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("key.json");
        std::fs::write(&file, r#"{"private_key": "hunter2", "gcs_base_url": "https://elsewhere:4443"}"#).unwrap();
        let builder = builder.with_service_account_path(file.to_str().unwrap());
        assert_eq!(endpoint_of_key(&builder).as_deref(), Some("https://elsewhere:4443"));
    }
}
