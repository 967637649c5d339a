//! The kinds of stores that are no directory, each behind a cargo feature of its own.
//!
//! A backend turns a [`Place`] address and what may be known beside it ([`Access`]) into an `ObjectStore` whose
//! names are relative to the repository's prefix. Nothing is asked of the store meanwhile. What each kind does with
//! "create only if absent", on which every commit rests, is said in its file, and found out again by the probe.

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure", feature = "hdfs"))]
mod adapted;
#[cfg(feature = "s3")]
mod aws_profile;
#[cfg(feature = "azure")]
mod azure;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod client;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod connector;
#[cfg(feature = "cos")]
mod cos;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(feature = "s3")]
mod keys_file;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod listing;
#[cfg(any(feature = "oss", feature = "cos"))]
pub(super) mod opendal_kind;
#[cfg(feature = "oss")]
mod oss;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod retry_after;
#[cfg(feature = "s3")]
mod s3;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::address::{Options, Place, Scheme, check_option, checked_value};
use super::error::StoreError;
use super::parts::Below;
use super::respite::Respite;

/// What is known of a store beside its address.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Options that hold where the address says nothing else.
    pub options: BTreeMap<String, String>,
    /// Keys and passwords out of a file; without one, the conventions of the ecosystem hold.
    pub credentials: Option<Credentials>,
}

/// What a file with credentials holds.
#[derive(Clone)]
pub struct Credentials {
    /// The file.
    pub path: PathBuf,
    /// Its pairs; none where it is in a format of its ecosystem ([`Credentials::of_ecosystem`]).
    pub pairs: Pairs,
    /// Reads it again, where that is possible: keys with a session's token are replaced while a mount lives.
    pub again: Option<ReadAgain>,
}

/// Names of keys and what they are.
pub type Pairs = BTreeMap<String, Zeroizing<String>>;

/// Reads the pairs in a file with credentials.
pub type ReadAgain = fn(&Path) -> Result<Pairs, Box<dyn std::error::Error + Send + Sync>>;

impl Credentials {
    /// Whether the file for `scheme` is one that its ecosystem has: the JSON of a Google service account.
    pub fn of_ecosystem(scheme: Scheme) -> bool {
        scheme == Scheme::Gcs
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("path", &self.path).field("keys", &self.pairs.keys()).finish()
    }
}

/// A store that was made ready.
pub(super) struct Opened {
    /// Objects by their names in the repository.
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The same, for uploads whose parts have numbers, where the backend has those.
    pub(super) numbered: Option<Arc<dyn MultipartStore>>,
    /// Whether listings come sorted by name.
    pub(super) ordered: bool,
    /// The address with all options that hold, and what they and the environment come to: where the requests really go.
    /// No secret is in it.
    pub(super) identity: String,
    /// How long its server has asked to be left alone.
    pub(super) respite: Arc<Respite>,
}

/// What a backend has made.
struct Made {
    objects: Arc<dyn ObjectStore>,
    numbered: Option<Arc<dyn MultipartStore>>,
    ordered: bool,
    resolved: Resolved,
}

/// Where requests go, by name: the server, the region, the account, as far as the environment or files have a say in it.
type Resolved = Vec<(&'static str, Option<String>)>;

/// The text that tells `place` from any other.
fn identity(place: &Place, options: Options, resolved: Resolved) -> String {
    let mut text = Place { options, ..place.clone() }.to_string();
    for (name, value) in resolved {
        if let Some(value) = value {
            // No value could be taken for another name.
            text.push_str(&format!(" {name}={value:?}"));
        }
    }
    text
}

/// What a backend works with: the address with all that is known.
#[cfg_attr(not(feature = "s3"), allow(dead_code))]
struct Request<'r> {
    place: &'r Place,
    options: Options,
    credentials: Option<&'r Credentials>,
    respite: Arc<Respite>,
}

#[cfg_attr(
    not(any(feature = "s3", feature = "gcs", feature = "azure", feature = "oss", feature = "cos")),
    allow(dead_code)
)]
impl Request<'_> {
    fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    #[cfg_attr(not(any(feature = "s3", feature = "gcs", feature = "azure", feature = "oss")), allow(dead_code))]
    fn is_set(&self, name: &str) -> bool {
        self.option(name) == Some("true")
    }

    #[cfg_attr(not(any(feature = "azure", feature = "oss", feature = "cos")), allow(dead_code))]
    fn secret(&self, name: &str) -> Option<&str> {
        self.credentials.and_then(|credentials| credentials.pairs.get(name)).map(|secret| secret.as_str())
    }

    /// Refuses keys in the file of credentials that nothing asks for.
    fn check_secrets(&self, known: &[&str]) -> Result<(), StoreError> {
        let Some(credentials) = self.credentials else { return Ok(()) };
        let known_here = known.join(", ");
        match credentials.pairs.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(self.unusable(format!(
                "credentials file {:?}: unknown key {key:?}; known here: {known_here}",
                credentials.path
            ))),
            None => Ok(()),
        }
    }

    fn unusable(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Unusable { place: self.place.name(), source: why.into() }
    }
}

/// Makes the store at `place` ready.
pub(super) fn open(place: &Place, access: &Access) -> Result<Opened, StoreError> {
    let mut options = access.options.clone();
    options.extend(place.options.clone());
    let respite = Arc::default();
    let credentials = access.credentials.as_ref();
    let mut request = Request { place, options: Options::new(), credentials, respite: Arc::clone(&respite) };
    for (option, value) in options {
        check_option(place.scheme, &option).map_err(|error| request.unusable(error))?;
        let value = checked_value(place.scheme, &option, &value).map_err(|error| request.unusable(error))?;
        request.options.insert(option, value);
    }
    let Made { objects, numbered, ordered, resolved } = match place.scheme {
        Scheme::File => Err(request.unusable("a directory is no store over a network")),
        Scheme::Memory => {
            Ok(Made { objects: memory(&place.container), numbered: None, ordered: true, resolved: Vec::new() })
        }
        #[cfg(feature = "s3")]
        Scheme::S3 => s3::open(&request),
        #[cfg(feature = "gcs")]
        Scheme::Gcs => gcs::open(&request),
        #[cfg(feature = "azure")]
        Scheme::Azure => azure::open(&request),
        #[cfg(feature = "hdfs")]
        Scheme::Hdfs => hdfs::open(&request),
        #[cfg(feature = "oss")]
        Scheme::Oss => oss::open(&request),
        #[cfg(feature = "cos")]
        Scheme::Cos => cos::open(&request),
        #[allow(unreachable_patterns)]
        scheme => Err(StoreError::Feature {
            place: place.name(),
            scheme: scheme.name(),
            feature: scheme.feature().unwrap_or_default(),
        }),
    }?;
    let (objects, numbered) = match &*place.prefix {
        "" => (objects, numbered),
        prefix => {
            let prefix = ObjectPath::parse(prefix).map_err(|error| request.unusable(error))?;
            let numbered = numbered.map(|parts| Arc::new(Below::new(parts, &prefix)) as Arc<dyn MultipartStore>);
            (Arc::new(PrefixStore::new(objects, prefix)) as Arc<dyn ObjectStore>, numbered)
        }
    };
    let identity = identity(place, request.options, resolved);
    Ok(Opened { objects, numbered, ordered, identity, respite })
}

/// The store of that name in this process's memory.
fn memory(name: &str) -> Arc<dyn ObjectStore> {
    static STORES: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
    let mut stores = STORES.lock();
    Arc::clone(stores.entry(name.to_owned()).or_default()) as Arc<dyn ObjectStore>
}
