//! Amazon S3, and what speaks its language: MinIO, Ceph, Cloudflare, Wasabi and others.
//!
//! **Create** is `If-None-Match: *`; 412 is "exists". A 409 says that another request for the name is under way
//! (`ConditionalRequestConflict`), which `object_store` reports as "exists" as well: [`StoreError::exists`] tells
//! them apart. Servers that ignore the header answer 200 and overwrite, which only the probe finds out.
//! Large objects go up in parts of 8 MiB (the least that S3 takes is 5 MiB) and appear by `CompleteMultipartUpload`, without a
//! condition: their names are random.
//!
//! Credentials, the first that there are: the file of the configuration, as it is now; the option `profile`; the environment's keys;
//! a web identity; the profile that `AWS_PROFILE` names, or `default`; the container's role; the instance's role.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential, AwsCredentialProvider};

use super::adapted::Adapted;
use super::aws_profile::{Files, Profile, ProfileProvider};
use super::connector::Connector;
use super::keys_file::KeysFile;
use super::{Made, Request, client};
use crate::store::error::StoreError;

/// The region that is assumed where nothing names one; most compatible stores take any.
const REGION: &str = "us-east-1";

pub(super) fn open(request: &Request<'_>) -> Result<Made, StoreError> {
    request.check_secrets(&["access_key_id", "secret_access_key", "session_token"])?;
    let environment = AmazonS3Builder::from_env();
    let files = Files::of_process();
    let named = request.option("profile");
    let wanted = named.map(str::to_owned).or_else(|| set("AWS_PROFILE")).unwrap_or_else(|| "default".to_owned());
    // A profile that nobody has named need not exist.
    let must_exist = named.is_some() || set("AWS_PROFILE").is_some();
    let profile = files.profile(&wanted, must_exist).map_err(|error| request.unusable(error))?;

    let region = request
        .option("region")
        .map(str::to_owned)
        .or_else(|| environment.get_config_value(&Key::Region))
        .or_else(|| set("AWS_DEFAULT_REGION"))
        .or_else(|| profile.region.clone())
        .unwrap_or_else(|| REGION.to_owned());
    let endpoint = request
        .option("endpoint")
        .map(str::to_owned)
        .or_else(|| set("AWS_ENDPOINT_URL_S3"))
        .or_else(|| set("AWS_ENDPOINT_URL"))
        .or_else(|| profile.endpoint.clone());
    let directory = request.is_set("directory_bucket");
    let bucket = &request.place.container;
    // A bucket's name with a dot in it fits no certificate.
    let path_style = match request.option("path_style") {
        Some(said) => said == "true",
        None => endpoint.is_some() || bucket.contains('.'),
    };
    let mut builder = environment
        .with_bucket_name(bucket)
        .with_region(&region)
        .with_virtual_hosted_style_request(!path_style && !directory)
        .with_s3_express(directory)
        .with_client_options(client::options(endpoint.as_deref()))
        .with_http_connector(Connector::new(&request.respite))
        .with_retry(client::retries())
        // One name at a time is deleted, and not every server knows the other request.
        .with_disable_bulk_delete(true)
        .with_skip_signature(request.is_set("anonymous"));
    if let Some(endpoint) = endpoint {
        let endpoint = if path_style { endpoint } else { with_bucket(&endpoint, bucket) };
        builder = builder.with_config(Key::S3Endpoint, endpoint);
    }
    if let Some(checksum) = request.option("checksum") {
        builder = builder.with_config(Key::Checksum, checksum);
    }
    let unusable = |error: object_store::Error| request.unusable(error);
    builder = match credentials(request, &builder, named.is_some(), profile, files).map_err(unusable)? {
        Some(provider) => builder.with_credentials(provider),
        None => {
            let found = builder.clone().build().map_err(unusable)?;
            builder.with_credentials(Arc::new(Told(Arc::clone(found.credentials()))))
        }
    };
    let resolved = vec![
        ("endpoint", builder.get_config_value(&Key::S3Endpoint).or_else(|| builder.get_config_value(&Key::Endpoint))),
        ("region", Some(region)),
        ("path_style", Some(path_style.to_string())),
        ("conditional_put", builder.get_config_value(&Key::ConditionalPut)),
    ];
    let objects = Arc::new(builder.build().map_err(unusable)?);
    let adapted = Adapted { tags: true, ..Adapted::new(Arc::clone(&objects) as Arc<dyn object_store::ObjectStore>) };
    Ok(Made { objects: Arc::new(adapted), numbered: Some(objects), ordered: !directory, resolved })
}

/// Credentials of our own finding; none where the environment's are to be used.
fn credentials(
    request: &Request<'_>,
    builder: &AmazonS3Builder,
    named: bool,
    profile: Profile,
    files: Files,
) -> object_store::Result<Option<AwsCredentialProvider>> {
    if let Some(credentials) = request.credentials {
        return Ok(Some(Arc::new(KeysFile::new(credentials)?)));
    }
    let set = |key: Key| builder.get_config_value(&key).is_some();
    let environment = set(Key::AccessKeyId) || (set(Key::WebIdentityTokenFile) && set(Key::RoleArn));
    if (named || !environment) && profile.has_credentials() {
        return Ok(Some(Arc::new(ProfileProvider::new(profile, files))));
    }
    if named {
        return Err(object_store::Error::Unauthenticated {
            path: profile.name,
            source: "this profile has neither keys nor a credential_process".into(),
        });
    }
    Ok(None)
}

fn set(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// `https://host` as `https://bucket.host`.
fn with_bucket(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{bucket}.{rest}"),
        None => endpoint.to_owned(),
    }
}

/// Credentials of the environment or of a role, whose absence is told as what it is.
#[derive(Debug)]
struct Told(AwsCredentialProvider);

#[async_trait]
impl CredentialProvider for Told {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.0.get_credential().await.map_err(|error| object_store::Error::Unauthenticated {
            path: "credentials".to_owned(),
            source: format!(
                "no AWS credentials were found: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in \
                 ~/.aws/credentials, or a file by credentials_file (docs/stores.md); the last place asked says: {error}"
            )
            .into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_goes_before_the_host() {
        assert_eq!(with_bucket("https://s3.example.org:9000", "b"), "https://b.s3.example.org:9000");
    }
}
