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
//! password or with a parameter that is one is refused, by an error that does not repeat it. Nor does any error repeat an
//! endpoint or the URL of a file: what was mistyped there may be a password all the same.

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
    #[error("repository file://…: file:// is followed by an absolute path, with %20 for a space, and by no host")]
    File,
    /// A kind of store without the slashes behind it.
    #[error("repository {scheme}:…: write {spelling}, or ./{scheme}:… for a directory that is called so")]
    Slashes {
        /// What stands before `:`.
        scheme: &'static str,
        /// How it is written.
        spelling: String,
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
            AddressError::File
            | AddressError::Slashes { .. }
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
        let end = bytes.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"+-.".contains(byte)));
        let Some((word, rest)) = end.and_then(|end| bytes.split_at_checked(end)) else {
            return Ok(Address::Directory(PathBuf::from(text)));
        };
        let word = String::from_utf8_lossy(word).to_ascii_lowercase();
        let scheme = Scheme::ALL.into_iter().find(|scheme| scheme.name() == word);
        match (scheme, rest.strip_prefix(b"://")) {
            (Some(Scheme::File), Some(path)) => {
                let path = unescape(path).filter(|path| path.starts_with(b"/")).ok_or(AddressError::File)?;
                Ok(Address::Directory(PathBuf::from(OsString::from_vec(path))))
            }
            (Some(scheme), Some(rest)) => remote(scheme, rest).map(Address::Remote),
            // The path of a directory that is not meant.
            (Some(scheme), None) if rest.starts_with(b":") => Err(AddressError::Slashes {
                scheme: scheme.name(),
                spelling: match scheme {
                    Scheme::File => "file:///PATH".to_owned(),
                    scheme => format!("{}://{}/PREFIX", scheme.name(), scheme.container().to_ascii_uppercase()),
                },
            }),
            (None, Some(_)) if word.len() > 1 => Err(AddressError::Scheme {
                suggestion: did_you_mean(&word, Scheme::ALL.map(Scheme::name)),
                known: Scheme::ALL.map(|scheme| format!("{}://", scheme.name())).join(", "),
                scheme: word,
            }),
            _ => Ok(Address::Directory(PathBuf::from(text))),
        }
    }

    /// The path of a directory.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Address::Directory(path) => Some(path),
            Address::Remote(_) => None,
        }
    }

    /// The places that hold this one, the nearest first.
    pub fn above(&self) -> Vec<Address> {
        match self {
            Address::Directory(path) => {
                path.ancestors().skip(1).map(|path| Address::Directory(path.to_owned())).collect()
            }
            Address::Remote(place) => {
                let at = |prefix: &str| Address::Remote(Place { prefix: prefix.to_owned(), ..place.clone() });
                let mut above: Vec<Address> =
                    place.prefix.rmatch_indices('/').filter_map(|(end, _)| place.prefix.get(..end)).map(at).collect();
                if !place.prefix.is_empty() {
                    above.push(at(""));
                }
                above
            }
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

/// What `rest` behind `scheme://` names.
fn remote(scheme: Scheme, rest: &[u8]) -> Result<Place, AddressError> {
    let malformed = |why: String| AddressError::Malformed { scheme: scheme.name(), why };
    let rest = std::str::from_utf8(rest).map_err(|_| malformed("it is not UTF-8".to_owned()))?;
    let text = format!("{}://{rest}", scheme.name());
    let url = Url::parse(&text).map_err(|error| malformed(error.to_string()))?;
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
    if !is_container(scheme, host) {
        let what = scheme.container();
        return Err(malformed(format!("no name of a {what} follows ://; it has letters, digits, and then also - . _")));
    }
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
        let value = checked_value(scheme, &option, &value)?;
        if options.insert(option.clone().into_owned(), value).is_some() {
            return Err(malformed(format!("{option} is given twice")));
        }
    }
    Ok(Place { scheme, container, prefix, options })
}

/// Whether something can be called so at all; whether it may, its server knows.
fn is_container(scheme: Scheme, name: &str) -> bool {
    match scheme {
        // A host, or what stands for several.
        Scheme::Hdfs => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte)),
        _ => {
            // Azure has containers that are called $root and $web.
            let name = name.strip_prefix('$').filter(|_| scheme == Scheme::Azure).unwrap_or(name);
            name.starts_with(|first: char| first.is_ascii_alphanumeric())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

/// The value of an option, as it is used. An endpoint is a URL itself, shown in logs as well, and repeated by no error: what
/// is no endpoint may be a password.
///
/// # Errors
/// [`AddressError::Value`], [`AddressError::Malformed`] or [`AddressError::Secret`].
pub(super) fn checked_value(scheme: Scheme, option: &str, value: &str) -> Result<String, AddressError> {
    let wrong = |why: &str| {
        let (option, value) = (option.to_owned(), value.to_owned());
        Err(AddressError::Value { scheme: scheme.name(), option, value, why: why.to_owned() })
    };
    match option {
        "endpoint" => return checked_endpoint(scheme, value),
        "path_style" | "anonymous" | "emulator" | "directory_bucket" | "azure_cli"
            if !["true", "false"].contains(&value) =>
        {
            wrong("say true or false")?;
        }
        "checksum" if !["sha256", "crc64nvme"].contains(&value) => wrong("there are sha256 and crc64nvme")?,
        _ if value.is_empty() => wrong("it is empty")?,
        _ => {}
    }
    Ok(value.to_owned())
}

fn checked_endpoint(scheme: Scheme, value: &str) -> Result<String, AddressError> {
    let secret = |what: &str| AddressError::Secret { scheme: scheme.name(), what: what.to_owned(), remedy: REMEDY };
    if value.contains('@') {
        return Err(secret("a user or password in the endpoint"));
    }
    match Url::parse(value) {
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            Err(secret("a password or parameter in the endpoint"))
        }
        // Written as it was given, but for the scheme, by which it is told what may go unencrypted.
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => match value.split_once(':') {
            Some((_, rest)) => Ok(format!("{}:{rest}", url.scheme())),
            None => Ok(value.to_owned()),
        },
        _ => Err(AddressError::Malformed {
            scheme: scheme.name(),
            why: "endpoint=…: an endpoint begins with https:// or http://".to_owned(),
        }),
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
            ("FILE:///srv", "/srv"),
            ("s4:x", "s4:x"),
            ("s3", "s3"),
            ("c:/x", "c:/x"),
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
            ("S3://bucket/A", "bucket", "A"),
            ("az://$web/p", "$web", "p"),
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
            "s3://amber/x?endpoint=AKIA:hunter2@minio:9000",
            "s3://amber/x?endpoint=https://host/%23hunter2",
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
    fn what_may_be_a_secret_is_repeated_by_no_error() {
        for text in [
            "file://user:hunter2@host/srv",
            "file://hunter2",
            "FILE://hunter2/%2",
            "s3:AKIA:hunter2@bucket/p",
            "file:hunter2",
            "s3://b/p?endpoint=hunter2",
            "s3://b/p?endpoint=hunter2://x",
            "s3://b/p#hunter2",
            "s3://AKIA%3Ahunter2@b/p",
        ] {
            let error = parsed(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn an_endpoint_is_used_as_it_is_written_but_for_its_scheme() {
        let Ok(Address::Remote(place)) = parsed("s3://b/p?endpoint=HTTP://Host:9000/X") else { panic!("no place") };
        assert_eq!(place.options["endpoint"], "http://Host:9000/X");
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
            ("s3://am%20ber", "no name of a bucket"),
            ("s3://[::1]", "no name of a bucket"),
            ("s3://-x/p", "no name of a bucket"),
            ("gs://$web", "no name of a bucket"),
            ("S4://bucket", "did you mean \"s3\"?"),
            ("s3:/b/x", "write s3://BUCKET/PREFIX, or ./s3:"),
            ("s3:b/x", "write s3://BUCKET/PREFIX"),
            ("file:/x", "write file:///PATH"),
            ("GS:x", "write gs://BUCKET/PREFIX"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn places_lie_in_one_another() {
        let above = |text| parsed(text).unwrap().above().iter().map(Address::to_string).collect::<Vec<_>>();
        assert_eq!(above("s3://b/p/q/r?region=x"), ["s3://b/p/q?region=x", "s3://b/p?region=x", "s3://b?region=x"]);
        assert_eq!(above("s3://b/"), [""; 0]);
        assert_eq!(above("/srv/backup"), ["/srv", "/"]);
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
