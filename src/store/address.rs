//! Where a repository is: a directory, or a prefix in a bucket, a container or a cluster, as a URL.
//!
//! ```text
//! /srv/backup  file:///srv/backup                  a directory
//! s3://bucket/prefix?endpoint=…&region=…           Amazon S3 and what speaks its language
//! gs://bucket/prefix                               Google Cloud Storage
//! az://container/prefix?account=…                  Azure Blob Storage
//! hdfs://host:port/prefix                          Hadoop's filesystem
//! oss://bucket/prefix?endpoint=…                   Alibaba Cloud's object store
//! cos://bucket/prefix?endpoint=…                   Tencent Cloud's object store
//! memory://name                                    the memory of this process, for tests
//! ```
//!
//! **An address holds no secret.** It is written into logs, tables of mounts and command lines of jobs, so a URL with a
//! password or with a parameter that is one is refused, by an error that does not repeat it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use object_store::path::Path as ObjectPath;
use url::Url;

use crate::base::suggest::did_you_mean;
use crate::base::{Class, Classed};

/// What kind of store an address names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// A directory.
    File,
    /// Amazon S3 and what speaks its language.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// Hadoop's filesystem.
    Hdfs,
    /// Alibaba Cloud's object store.
    Oss,
    /// Tencent Cloud's object store.
    Cos,
    /// The memory of this process.
    Memory,
}

impl Scheme {
    const ALL: [Scheme; 8] =
        [Scheme::File, Scheme::S3, Scheme::Gcs, Scheme::Azure, Scheme::Hdfs, Scheme::Oss, Scheme::Cos, Scheme::Memory];

    /// As it stands before `://`.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::File => "file",
            Scheme::S3 => "s3",
            Scheme::Gcs => "gs",
            Scheme::Azure => "az",
            Scheme::Hdfs => "hdfs",
            Scheme::Oss => "oss",
            Scheme::Cos => "cos",
            Scheme::Memory => "memory",
        }
    }

    /// The cargo feature that has it; none where every build has it.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Scheme::File | Scheme::Memory => None,
            Scheme::S3 => Some("s3"),
            Scheme::Gcs => Some("gcs"),
            Scheme::Azure => Some("azure"),
            Scheme::Hdfs => Some("hdfs"),
            Scheme::Oss => Some("oss"),
            Scheme::Cos => Some("cos"),
        }
    }

    /// Options that a URL or the configuration may give. None of them is a secret.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Scheme::File | Scheme::Memory | Scheme::Hdfs => &[],
            Scheme::S3 => &["endpoint", "region", "path_style", "profile", "checksum", "anonymous", "directory_bucket"],
            Scheme::Gcs => &["endpoint", "anonymous"],
            Scheme::Azure => &["account", "endpoint", "emulator", "anonymous", "azure_cli"],
            Scheme::Oss => &["endpoint", "region", "path_style", "anonymous"],
            Scheme::Cos => &["endpoint", "region"],
        }
    }

    /// What stands after `://`.
    fn container(self) -> &'static str {
        match self {
            Scheme::Azure => "container",
            Scheme::Hdfs => "host:port or name service",
            Scheme::Memory => "name",
            Scheme::File | Scheme::S3 | Scheme::Gcs | Scheme::Oss | Scheme::Cos => "bucket",
        }
    }
}

/// Options by name.
pub(super) type Options = BTreeMap<String, String>;

/// Where a repository is. [`fmt::Display`] gives what [`Address::parse`] reads back, and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A directory's path, as it was given.
    Directory(PathBuf),
    /// A place in another kind of store.
    Remote(Place),
}

/// A place in a store that is no directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The kind of store.
    pub scheme: Scheme,
    /// The bucket, the container, or the host and its port.
    pub container: String,
    /// What all names of objects begin with: parts joined by `/`, or nothing.
    pub prefix: String,
    /// What the URL says beside that.
    pub options: BTreeMap<String, String>,
}

/// An address that names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// `file://` with something else behind it than a path.
    #[error("repository {text:?}: file:// is followed by an absolute path, with %20 for a space")]
    File {
        /// What was given.
        text: String,
    },
    /// A scheme that no amberfs knows.
    #[error("repository {scheme}://…: no such kind of store{suggestion}; there are a path, {known}")]
    Scheme {
        /// What stands before `://`.
        scheme: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
        /// All that there are.
        known: String,
    },
    /// Something that must not stand in a URL, because URLs are shown.
    #[error("repository {scheme}://…: {what} does not belong into a URL, which logs and other users see; {remedy}")]
    Secret {
        /// What stands before `://`.
        scheme: &'static str,
        /// What was found, without its value.
        what: String,
        /// Where it belongs.
        remedy: &'static str,
    },
    /// An option that this kind of store does not have.
    #[error("repository {scheme}://…: no option {option:?}{suggestion}; there are: {known}")]
    Option {
        /// What stands before `://`.
        scheme: &'static str,
        /// The option's name.
        option: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
        /// All that there are.
        known: String,
    },
    /// An option's value makes no sense.
    #[error("repository {scheme}://…: {option}={value:?}: {why}")]
    Value {
        /// What stands before `://`.
        scheme: &'static str,
        /// The option's name.
        option: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Anything else.
    #[error("repository {scheme}://…: {why}")]
    Malformed {
        /// What stands before `://`.
        scheme: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl Classed for AddressError {
    fn class(&self) -> Class {
        match self {
            AddressError::Scheme { .. } => Class::Unsupported,
            AddressError::File { .. }
            | AddressError::Secret { .. }
            | AddressError::Option { .. }
            | AddressError::Value { .. }
            | AddressError::Malformed { .. } => Class::Invalid,
        }
    }
}

const REMEDY: &str =
    "give it by the environment or in a file that credentials_file under [repository] names (docs/stores.md)";

impl Address {
    /// The place that `text` names.
    ///
    /// # Errors
    /// [`AddressError`], which repeats nothing that could be a secret.
    pub fn parse(text: &OsStr) -> Result<Address, AddressError> {
        let bytes = text.as_bytes();
        if let Some(path) = bytes.strip_prefix(b"file://") {
            let path = unescape(path).filter(|path| path.starts_with(b"/"));
            let path = path.ok_or_else(|| AddressError::File { text: text.to_string_lossy().into_owned() })?;
            return Ok(Address::Directory(PathBuf::from(OsString::from_vec(path))));
        }
        let end = bytes.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"+-.".contains(byte)));
        let word = end.and_then(|end| bytes.split_at_checked(end));
        match word.filter(|(scheme, rest)| scheme.len() > 1 && rest.starts_with(b"://")) {
            Some((scheme, _)) => remote(&String::from_utf8_lossy(scheme), text).map(Address::Remote),
            None => Ok(Address::Directory(PathBuf::from(text))),
        }
    }

    /// The path of a directory.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Address::Directory(path) => Some(path),
            Address::Remote(_) => None,
        }
    }

    /// As an argument that [`Address::parse`] reads back, and as what messages show.
    pub fn to_os_string(&self) -> OsString {
        match self {
            Address::Directory(path) => path.clone().into(),
            Address::Remote(remote) => remote.to_string().into(),
        }
    }

    /// Whether both name one place, whatever their options.
    pub fn is_place_of(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Directory(one), Address::Directory(other)) => one == other,
            (Address::Remote(one), Address::Remote(other)) => {
                (one.scheme, &one.container, &one.prefix) == (other.scheme, &other.container, &other.prefix)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Directory(path) => write!(f, "{}", path.display()),
            Address::Remote(remote) => remote.fmt(f),
        }
    }
}

impl Place {
    /// Without its options: what people recognise it by.
    pub fn name(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}", self.scheme.name(), self.container, self.prefix)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.options);
        match query.finish() {
            query if query.is_empty() => Ok(()),
            query => write!(f, "?{query}"),
        }
    }
}

/// Refuses options that `scheme` does not have, and those that are secrets.
///
/// # Errors
/// [`AddressError::Secret`] or [`AddressError::Option`].
pub(super) fn check_option(scheme: Scheme, option: &str) -> Result<(), AddressError> {
    let known = scheme.options();
    if known.contains(&option) {
        return Ok(());
    }
    const SECRETS: [&str; 8] = ["secret", "password", "passwd", "token", "key", "sas", "credential", "sig"];
    let lower = option.to_ascii_lowercase();
    if SECRETS.iter().any(|secret| lower.contains(secret)) {
        let what = format!("the parameter {option:?}");
        return Err(AddressError::Secret { scheme: scheme.name(), what, remedy: REMEDY });
    }
    Err(AddressError::Option {
        scheme: scheme.name(),
        option: option.to_owned(),
        suggestion: did_you_mean(option, known.iter().copied()),
        known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
    })
}

fn remote(word: &str, text: &OsStr) -> Result<Place, AddressError> {
    let scheme = Scheme::ALL.into_iter().find(|scheme| scheme.name() == word).ok_or_else(|| AddressError::Scheme {
        scheme: word.to_owned(),
        suggestion: did_you_mean(word, Scheme::ALL.map(Scheme::name)),
        known: Scheme::ALL.map(|scheme| format!("{}://", scheme.name())).join(", "),
    })?;
    let malformed = |why: String| AddressError::Malformed { scheme: scheme.name(), why };
    let text = text.to_str().ok_or_else(|| malformed("it is not UTF-8".to_owned()))?;
    let url = Url::parse(text).map_err(|error| malformed(error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        let what = "a user or password".to_owned();
        return Err(AddressError::Secret { scheme: scheme.name(), what, remedy: REMEDY });
    }
    if url.fragment().is_some() {
        return Err(malformed("nothing may follow a #; write %23".to_owned()));
    }
    let missing = || malformed(format!("a {} is expected after ://", scheme.container()));
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(missing)?;
    let container = match (scheme, url.port()) {
        (Scheme::Hdfs, Some(port)) => format!("{host}:{port}"),
        (_, None) => host.to_owned(),
        (_, Some(_)) => return Err(malformed("a bucket has no port; give endpoint=http://host:port".to_owned())),
    };
    // The parser of URLs walks up at "..", and would name another place without a word.
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let raw = text.get(..end).unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
    if raw.split('/').any(|part| part == "." || part == "..") {
        return Err(malformed("the prefix has \".\" or \"..\" in it".to_owned()));
    }
    let prefix = unescape(url.path().trim_matches('/').as_bytes()).and_then(|prefix| String::from_utf8(prefix).ok());
    let prefix = prefix.ok_or_else(|| malformed("the prefix is not UTF-8 with % escapes".to_owned()))?;
    let parsed = ObjectPath::parse(&prefix).map_err(|error| malformed(error.to_string()))?;
    if parsed.as_ref() != prefix || prefix.contains(['?', '#', '%']) {
        return Err(malformed(format!("the prefix {prefix:?} has parts that cannot be names in every store")));
    }
    let mut options = Options::new();
    for (option, value) in url.query_pairs() {
        check_option(scheme, &option)?;
        check_value(scheme, &option, &value)?;
        if options.insert(option.clone().into_owned(), value.into_owned()).is_some() {
            return Err(malformed(format!("{option} is given twice")));
        }
    }
    Ok(Place { scheme, container, prefix, options })
}

/// An endpoint is a URL itself, and shown as well.
///
/// # Errors
/// [`AddressError::Value`], or [`AddressError::Secret`].
pub(super) fn check_value(scheme: Scheme, option: &str, value: &str) -> Result<(), AddressError> {
    let wrong = |why: &str| {
        let (option, value) = (option.to_owned(), value.to_owned());
        Err(AddressError::Value { scheme: scheme.name(), option, value, why: why.to_owned() })
    };
    match option {
        "endpoint" => match Url::parse(value) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() || url.query().is_some() => {
                let what = "a password or parameter in the endpoint".to_owned();
                Err(AddressError::Secret { scheme: scheme.name(), what, remedy: REMEDY })
            }
            Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(()),
            _ => wrong("an endpoint begins with https:// or http://"),
        },
        "path_style" | "anonymous" | "emulator" | "directory_bucket" | "azure_cli"
            if !["true", "false"].contains(&value) =>
        {
            wrong("say true or false")
        }
        "checksum" if !["sha256", "crc64nvme"].contains(&value) => wrong("there are sha256 and crc64nvme"),
        _ if value.is_empty() => wrong("it is empty"),
        _ => Ok(()),
    }
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Address, AddressError> {
        Address::parse(OsStr::new(text))
    }

    #[test]
    fn repositories_are_paths_or_file_urls() {
        for (text, path) in [
            ("/srv/backup", "/srv/backup"),
            ("backup", "backup"),
            ("./a:b", "./a:b"),
            ("./s3://x", "./s3://x"),
            ("file:///srv/a%20b", "/srv/a b"),
            ("file:///srv/%2f", "/srv//"),
        ] {
            assert_eq!(parsed(text).unwrap().directory(), Some(Path::new(path)), "{text}");
        }
        for text in ["file://host/srv", "file:///a%2", "file:///a%+f", "file://"] {
            assert_eq!(parsed(text).unwrap_err().class(), Class::Invalid, "{text}");
        }
    }

    #[test]
    fn urls_are_taken_apart_and_put_together_again() {
        for (text, container, prefix) in [
            ("s3://bucket", "bucket", ""),
            ("s3://My.bucket_1/", "My.bucket_1", ""),
            ("s3://bucket/a/b%20c/", "bucket", "a/b c"),
            ("s3://b/p?endpoint=http%3A%2F%2F127.0.0.1%3A9000%2Fx&path_style=true&region=r", "b", "p"),
            ("s3://b/p?endpoint=http://127.0.0.1:9000", "b", "p"),
            ("gs://b/p", "b", "p"),
            ("az://c/p?account=acc", "c", "p"),
            ("hdfs://namenode:8020/user/me", "namenode:8020", "user/me"),
            ("hdfs://nameservice1/x", "nameservice1", "x"),
            ("oss://b/p?endpoint=https://oss-cn-hangzhou.aliyuncs.com", "b", "p"),
            ("cos://b-125/p", "b-125", "p"),
            ("memory://name/p", "name", "p"),
        ] {
            let address = parsed(text).unwrap();
            let Address::Remote(remote) = &address else { panic!("{text} is no directory") };
            assert_eq!((&*remote.container, &*remote.prefix), (container, prefix), "{text}");
            assert_eq!(Address::parse(&address.to_os_string()).unwrap(), address, "{text}");
        }
    }

    #[test]
    fn secrets_are_refused_and_not_repeated() {
        for text in [
            "s3://AKIA:hunter2@bucket/p",
            "s3://hunter2@bucket/p",
            "s3://b/p?secret_access_key=hunter2",
            "s3://b/p?AWS_SESSION_TOKEN=hunter2",
            "az://c/p?sas_token=hunter2",
            "az://c/p?sig=hunter2",
            "s3://b/p?endpoint=https://me:hunter2@host",
            "s3://b/p?endpoint=https://host/%3Ftoken=hunter2",
            "gs://b/p?password=hunter2",
        ] {
            let error = parsed(text).unwrap_err();
            assert!(matches!(error, AddressError::Secret { .. }), "{text}: {error}");
            assert!(
                !error.to_string().contains("hunter2") && error.to_string().contains("credentials_file"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_names_no_place_is_refused_with_a_remedy() {
        for (text, words) in [
            ("https://x", "no such kind of store"),
            ("s4://bucket", "did you mean \"s3\"?"),
            ("s3://", "a bucket is expected"),
            ("s3:///prefix", "a bucket is expected"),
            ("s3://bucket:9000/x", "endpoint=http://host:port"),
            ("s3://b/p?regoin=x", "did you mean \"region\"?"),
            ("s3://b/p?region=a&region=b", "given twice"),
            ("s3://b/p?endpoint=host:9000", "begins with https://"),
            ("s3://b/p?path_style=yes", "true or false"),
            ("s3://b/p?region=", "empty"),
            ("s3://b/p#x", "%23"),
            ("s3://b/a//b", "empty"),
            ("s3://b/a/%2e%2e/b", ".."),
            ("memory://a?region=x", "there are: none"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn options_do_not_make_another_place() {
        let at = |text| parsed(text).unwrap();
        assert!(at("s3://b/p?region=a").is_place_of(&at("s3://b/p/")));
        assert!(!at("s3://b/p").is_place_of(&at("s3://b/q")));
        assert!(!at("s3://b/p").is_place_of(&at("gs://b/p")));
        assert!(at("/a").is_place_of(&at("file:///a")));
    }
}
