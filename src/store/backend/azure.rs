//! Azure Blob Storage.
//!
//! **Create** is `Put Blob` with `If-None-Match: *`; 409 `BlobAlreadyExists` or 412 is "exists". Large objects go up as
//! blocks and appear by `Put Block List`, without a condition: their names are random.
//!
//! Azure has no ranges from the end: the end of an object is asked for by its size, which costs a request more.
//!
//! Credentials: the file of the configuration; else `AZURE_STORAGE_CONNECTION_STRING`; else the environment's account key, SAS
//! token, client secret or federated token, by the names of Azure's tools; else the managed identity.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};

use super::adapted::Adapted;
use super::connector::Connector;
use super::{Made, Request, client};
use crate::store::error::StoreError;

pub(super) fn open(request: &Request<'_>) -> Result<Made, StoreError> {
    request.check_secrets(&[
        "account_name",
        "account_key",
        "sas_token",
        "connection_string",
        "client_id",
        "client_secret",
        "tenant_id",
    ])?;
    let from_file = request.credentials.is_some();
    let set = |variable: &str| std::env::var(variable).ok().filter(|value| !from_file && !value.is_empty());
    let connection = match request.secret("connection_string") {
        Some(text) => Some(text.to_owned()),
        None => set("AZURE_STORAGE_CONNECTION_STRING"),
    };
    let connection = match connection {
        Some(text) => Connection::parse(&text).map_err(|why| request.unusable(why))?,
        None => Connection::default(),
    };
    let account = request
        .option("account")
        .map(str::to_owned)
        .or_else(|| request.secret("account_name").map(str::to_owned))
        .or_else(|| connection.account.clone())
        .or_else(|| set("AZURE_STORAGE_ACCOUNT"));
    let endpoint = request.option("endpoint").map(str::to_owned).or_else(|| connection.endpoint.clone());
    let mut builder = if from_file { MicrosoftAzureBuilder::new() } else { MicrosoftAzureBuilder::from_env() };
    builder = builder
        .with_container_name(&request.place.container)
        .with_client_options(client::options(endpoint.as_deref()))
        .with_http_connector(Connector::new(&request.respite))
        .with_retry(client::retries())
        .with_use_emulator(request.is_set("emulator"))
        .with_use_azure_cli(request.is_set("azure_cli"))
        .with_skip_signature(request.is_set("anonymous"));
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let key = request.secret("account_key").map(str::to_owned).or(connection.key).or_else(|| set("AZURE_STORAGE_KEY"));
    if let Some(key) = key {
        builder = builder.with_access_key(key);
    }
    if let Some(token) = request.secret("sas_token").or(connection.sas.as_deref()) {
        builder = builder.with_config(Key::SasKey, token.trim_start_matches('?'));
    }
    if let (Some(client), Some(secret), Some(tenant)) =
        (request.secret("client_id"), request.secret("client_secret"), request.secret("tenant_id"))
    {
        builder = builder.with_client_secret_authorization(client, secret, tenant);
    }
    let resolved = [
        ("account", Key::AccountName),
        ("endpoint", Key::Endpoint),
        ("emulator", Key::UseEmulator),
        ("fabric", Key::UseFabricEndpoint),
    ];
    let resolved = resolved.map(|(name, key)| (name, builder.get_config_value(&key))).into();
    let objects = Arc::new(builder.build().map_err(|error| request.unusable(error))?);
    let adapted = Adapted {
        ends_by_size: true,
        tags: true,
        ..Adapted::new(Arc::clone(&objects) as Arc<dyn object_store::ObjectStore>)
    };
    Ok(Made { objects: Arc::new(adapted), numbered: Some(objects), ordered: true, resolved })
}

/// What a connection string says, by
/// <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>.
#[derive(Default, PartialEq, Eq)]
struct Connection {
    account: Option<String>,
    key: Option<String>,
    sas: Option<String>,
    endpoint: Option<String>,
}

impl Connection {
    fn parse(text: &str) -> Result<Connection, &'static str> {
        let mut found = Connection::default();
        let (mut protocol, mut suffix) = ("https".to_owned(), "core.windows.net".to_owned());
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            // The value of a key ends in signs of equality itself.
            let (name, value) = part.split_once('=').ok_or("the connection string is not of the form Name=value;…")?;
            let value = value.to_owned();
            match &*name.to_ascii_lowercase() {
                "accountname" => found.account = Some(value),
                "accountkey" => found.key = Some(value),
                "sharedaccesssignature" => found.sas = Some(value),
                "blobendpoint" => found.endpoint = Some(value.trim_end_matches('/').to_owned()),
                "defaultendpointsprotocol" => protocol = value,
                "endpointsuffix" => suffix = value,
                // Of queues, tables and files.
                _ => {}
            }
        }
        if let (None, Some(account)) = (&found.endpoint, &found.account) {
            found.endpoint = Some(format!("{protocol}://{account}.blob.{suffix}"));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_understood() {
        let text =
            "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=a2V5==;EndpointSuffix=core.chinacloudapi.cn";
        let found = Connection::parse(text).unwrap_or_default();
        assert_eq!((found.account.as_deref(), found.key.as_deref()), (Some("acc"), Some("a2V5==")));
        assert_eq!(found.endpoint.as_deref(), Some("https://acc.blob.core.chinacloudapi.cn"));
        let text = "BlobEndpoint=http://127.0.0.1:10000/acc/;SharedAccessSignature=sv=2021&sig=x%3D";
        let found = Connection::parse(text).unwrap_or_default();
        assert_eq!(found.endpoint.as_deref(), Some("http://127.0.0.1:10000/acc"));
        assert_eq!(found.sas.as_deref(), Some("sv=2021&sig=x%3D"));
        assert!(Connection::parse("hunter2").is_err_and(|why| !why.contains("hunter2")));
    }
}
