//! The file that `credentials_file` under `[repository]` names: the keys of a store, which nobody else may read.
//!
//! ```toml
//! access_key_id = "AKIA…"
//! secret_access_key = "…"
//! ```
//!
//! Which names there are, the kind of store says (docs/stores.md); for `gs://` the file is what Google gives out, in
//! JSON, and is read by its path. Errors never repeat what the file holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::config::ConfigError;
use crate::base::{limits, sys};
use crate::store::{Credentials, ReadAgain, Scheme};

/// The keys in the file at `path`, for a store of kind `scheme`.
///
/// # Errors
/// [`ConfigError::Exposed`] when others could read or write it; otherwise when it cannot be read or makes no sense.
pub fn read(path: &Path, scheme: Scheme) -> Result<Credentials, ConfigError> {
    let failed = |action| move |cause| ConfigError::Io { action, path: path.to_owned(), cause };
    let value = |why: String| ConfigError::Value { path: path.to_owned(), why };
    let mut file = File::open(path).map_err(failed("open the credentials file"))?;
    let meta = file.metadata().map_err(failed("examine"))?;
    if !meta.is_file() {
        return Err(value("it is not a regular file".to_owned()));
    }
    let exposed = |why: String, remedy: String| ConfigError::Exposed { path: path.to_owned(), why, remedy };
    let user = sys::effective_uid();
    if meta.uid() != user && meta.uid() != 0 {
        let why = format!("it belongs to user {}, not to user {user} or root", meta.uid());
        return Err(exposed(why, format!("chown {user} {path:?}")));
    }
    if meta.mode() & 0o077 != 0 {
        let why = format!("others than its owner have access to it (mode {:04o})", meta.mode() & 0o7777);
        return Err(exposed(why, format!("chmod 600 {path:?}")));
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    if !Credentials::of_ecosystem(scheme) {
        Read::by_ref(&mut file)
            .take(limits::CREDENTIALS_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(failed("read the credentials file"))?;
    }
    let pairs: BTreeMap<String, String> = toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        // The parser's own words show the line.
        ConfigError::Text { path: path.to_owned(), line, why: "expected NAME = \"VALUE\" in TOML".to_owned() }
    })?;
    let pairs = pairs.into_iter().map(|(name, value)| (name, value.into())).collect();
    let again: ReadAgain = |path| Ok(read(path, Scheme::S3)?.pairs);
    // Only S3's keys end with a session.
    Ok(Credentials { path: path.to_owned(), pairs, again: (scheme == Scheme::S3).then_some(again) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::base::{Class, Classed};

    #[test]
    fn keys_are_read_from_a_private_file_only() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("keys.toml");
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::write(&path, "access_key_id = \"AK\"\nsecret_access_key = \"hunter2\"\n").unwrap();
        for open in [0o640, 0o604, 0o620, 0o644] {
            mode(open);
            let error = read(&path, Scheme::S3).unwrap_err();
            assert_eq!(error.class(), Class::Denied);
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        mode(0o400);
        let read_keys = read(&path, Scheme::S3).unwrap();
        assert_eq!(read_keys.pairs["secret_access_key"].as_str(), "hunter2");
        assert!(!format!("{read_keys:?}").contains("hunter2"), "{read_keys:?}");
        mode(0o600);
        std::fs::write(&path, "a = \"b\"\nhunter2\n").unwrap();
        let error = read(&path, Scheme::S3).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
        // Google's is read by Google's client.
        assert!(read(&path, Scheme::Gcs).unwrap().pairs.is_empty());
    }
}
