//! Keys for S3 out of the file of the configuration, as it is now: keys with a session's token last for hours, mounts for
//! months.
//!
//! The file is looked at before each request and read again when it has another time or size. One that cannot be read, or
//! is half written, changes nothing: the store says whether the keys at hand still hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use parking_lot::Mutex;

use super::{Credentials, ReadAgain};

/// Credentials that follow their file.
#[derive(Debug)]
pub(super) struct KeysFile {
    path: PathBuf,
    again: Option<ReadAgain>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    seen: Option<(SystemTime, u64)>,
    keys: Arc<AwsCredential>,
}

impl KeysFile {
    /// # Errors
    /// When a key is missing.
    pub(super) fn new(credentials: &Credentials) -> object_store::Result<KeysFile> {
        // What changes between the two looks is read at the first request.
        let keys = Arc::new(keys(|name| credentials.pairs.get(name).map(|value| value.to_string()))?);
        let held = Mutex::new(Held { seen: None, keys });
        Ok(KeysFile { path: credentials.path.clone(), again: credentials.again, held })
    }

    fn current(&self) -> Arc<AwsCredential> {
        let mut held = self.held.lock();
        if let (Some(again), Some(seen)) = (self.again, seen(&self.path))
            && held.seen != Some(seen)
        {
            let read = again(&self.path).map_err(|error| error.to_string());
            let read = read.and_then(|pairs| {
                keys(|name| pairs.get(name).map(|value| value.to_string())).map_err(|error| error.to_string())
            });
            held.seen = Some(seen);
            match read {
                Ok(keys) => held.keys = Arc::new(keys),
                Err(error) => tracing::warn!(%error, "the keys that were read before are used on"),
            }
        }
        Arc::clone(&held.keys)
    }
}

fn seen(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn keys(secret: impl Fn(&str) -> Option<String>) -> object_store::Result<AwsCredential> {
    let needed = |name: &str| {
        secret(name).ok_or_else(|| object_store::Error::Unauthenticated {
            path: name.to_owned(),
            source: "the file with credentials does not have it".into(),
        })
    };
    Ok(AwsCredential {
        key_id: needed("access_key_id")?,
        secret_key: needed("secret_access_key")?,
        token: secret("session_token"),
    })
}

#[async_trait]
impl CredentialProvider for KeysFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(self.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Result<super::super::Pairs, Box<dyn std::error::Error + Send + Sync>> {
        let text = std::fs::read_to_string(path)?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned().into())).collect())
    }

    #[test]
    fn keys_follow_their_file_and_a_broken_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let write = |token: &str| {
            std::fs::write(&path, format!("access_key_id=A\nsecret_access_key=S\nsession_token={token}\n")).unwrap();
        };
        write("first");
        let pairs = read(&path).unwrap();
        let file = KeysFile::new(&Credentials { path: path.clone(), pairs, again: Some(read) }).unwrap();
        let token = || file.current().token.clone();
        assert_eq!(token().as_deref(), Some("first"));
        write("the second");
        assert_eq!(token().as_deref(), Some("the second"));
        std::fs::write(&path, "access_key_id=A").unwrap();
        assert_eq!(token().as_deref(), Some("the second"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(token().as_deref(), Some("the second"));
        write("third");
        assert_eq!(token().as_deref(), Some("third"));
    }
}
