//! The configuration file: the repository in use, and the sources that may be captured by name alone.
//!
//! ```toml
//! [repository]
//! url = "s3://bucket/prefix"     # or a directory; used where neither -r nor AMBERFS_REPOSITORY says otherwise
//! options = { region = "eu-central-1" }     # for this place, also where -r names it; the URL's own win
//! credentials_file = "/etc/amberfs/s3.toml" # keys, which only its owner may read; instead of the environment's
//! single_writer = false                     # true: as --single-writer, for stores without conditional creation
//! metadata_timeout = 10                     # seconds; as --metadata-timeout
//! read_timeout = 30                         # seconds; as --read-timeout
//!
//! [cache]
//! mib = 4096                     # what is kept on this machine's disk of what was fetched over a network; 0: nothing
//!
//! [[source]]
//! name = "home"
//! path = "/home/me"
//! exclude = ["*.tmp", "/Downloads/"]        # gitignore patterns, relative to the path
//! exclude_file = ["/home/me/.amberfsignore"]
//! exclude_caches = true          # leave out what a CACHEDIR.TAG marks; default false
//! one_file_system = false        # also capture what is mounted below the path; default true
//! labels = ["nightly"]           # given to each point, besides those of the command
//! chain_max_points = 30          # a chain of so many points is followed by a new full one; default: no limit
//!
//! [[source]]
//! name = "vm"
//! path = "/dev/vg0/vm"
//! disk = true                    # a block device or an image of one, not a directory
//! chunk_kib = 64                 # bytes that are compared and stored at once: 16 to 1024 KiB, a power of two
//! stop = ["virsh", "suspend", "vm"]         # run before `rollback` writes to the source
//! start = ["virsh", "resume", "vm"]         # run after it, also when it failed
//! ```
//!
//! The control file of a mount accepts nothing but names defined here, so whoever can write this file
//! can make the mount's owner read any path. Invariant: a file that another user could have written
//! is refused, never used ([`ConfigFile::current`] checks owner and mode of the file that it has opened,
//! and of its directory). A missing file is an empty configuration.
//!
//! A running mount sees changes: each call of [`ConfigFile::current`] reads the file again, which costs
//! microseconds and cannot be fooled by a clock. Changes are made by `config_edit`.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::places::{Places, PlacesError};
use crate::base::{Class, Classed, limits, suggest, sys, time};
use crate::chain::name::{check_label, check_source};

/// What the configuration file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The repository.
    #[serde(default)]
    pub repository: Option<RepositoryConfig>,
    /// What this machine keeps of what is fetched.
    #[serde(default)]
    pub cache: CacheConfig,
    /// The sources, in the file's order; names are unique.
    #[serde(default, rename = "source")]
    pub sources: Vec<SourceConfig>,
}

/// What this machine keeps of what is fetched over a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// MiB of it; 0: nothing is kept.
    #[serde(default)]
    pub mib: Option<u64>,
}

/// The repository in use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// A directory's absolute path, or a URL ([`Address`](crate::store::Address)).
    pub url: String,
    /// Options of that place, none of them secret, beside those in the URL.
    #[serde(default)]
    pub options: BTreeMap<String, OptionValue>,
    /// The file with the keys for that place; an absolute path ([`credentials`](super::credentials)).
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// The key file that opens it, if it is encrypted; an absolute path.
    #[serde(default)]
    pub keyfile: Option<PathBuf>,
    /// The file whose first line is the passphrase; an absolute path.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The command whose first line is the passphrase, in a shell's words.
    #[serde(default)]
    pub password_command: Option<String>,
    /// Whether that place may be written to by leases, should it not honour conditional creation.
    #[serde(default)]
    pub single_writer: bool,
    /// How long to wait for what it says of names.
    #[serde(default, deserialize_with = "timeout")]
    pub metadata_timeout: Option<Duration>,
    /// How long to wait for its data.
    #[serde(default, deserialize_with = "timeout")]
    pub read_timeout: Option<Duration>,
}

fn timeout<'de, D: Deserializer<'de>>(given: D) -> Result<Option<Duration>, D::Error> {
    let seconds = f64::deserialize(given)?;
    let refused = || D::Error::custom(format!("{seconds} is not {}", time::TIMEOUT));
    time::timeout(seconds).map(Some).ok_or_else(refused)
}

/// The value of an option: text, or true or false.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// `true` or `false`.
    Bool(bool),
    /// Anything else.
    Text(String),
}

impl std::fmt::Display for OptionValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OptionValue::Bool(value) => value.fmt(f),
            OptionValue::Text(value) => value.fmt(f),
        }
    }
}

/// A source that may be captured by name alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name in the repository and in the mount.
    pub name: String,
    /// The directory, or the block device or image; absolute.
    pub path: PathBuf,
    /// Whether it is a disk.
    #[serde(default)]
    pub disk: bool,
    /// KiB of a disk's chunk.
    #[serde(default)]
    pub chunk_kib: Option<u32>,
    /// Points in a chain, from which on a new one is begun.
    #[serde(default)]
    pub chain_max_points: Option<NonZeroU32>,
    /// The program, with its arguments, that makes whatever uses the source stop before a rollback.
    #[serde(default)]
    pub stop: Vec<String>,
    /// The program, with its arguments, that lets it go on.
    #[serde(default)]
    pub start: Vec<String>,
    /// Patterns in gitignore's syntax, relative to the directory, of what is left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Files with such patterns, a line each; absolute paths.
    #[serde(default)]
    pub exclude_file: Vec<PathBuf>,
    /// Whether the content of directories with a `CACHEDIR.TAG` is left out.
    #[serde(default)]
    pub exclude_caches: bool,
    /// Whether what is mounted below the directory is left out.
    #[serde(default = "yes")]
    pub one_file_system: bool,
    /// Labels of each point.
    #[serde(default)]
    pub labels: Vec<String>,
}

fn yes() -> bool {
    true
}

impl SourceConfig {
    /// A source with nothing left out but other filesystems.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> SourceConfig {
        SourceConfig {
            name: name.into(),
            path: path.into(),
            disk: false,
            chunk_kib: None,
            chain_max_points: None,
            stop: Vec::new(),
            start: Vec::new(),
            exclude: Vec::new(),
            exclude_file: Vec::new(),
            exclude_caches: false,
            one_file_system: true,
            labels: Vec::new(),
        }
    }
}

/// Why there is no configuration to go by.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing says where the file is.
    #[error(transparent)]
    Place(#[from] PlacesError),
    /// The file or its directory could not be read or written.
    #[error("cannot {action} {path:?}: {cause}")]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// Another user could have read or written the file with the keys.
    #[error("credentials file {path:?} is not used: {why}; {remedy}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What lets whom read or change it.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// Another user could have written the file.
    #[error("configuration {path:?} is not used: {why}; {remedy}")]
    Untrusted {
        /// The file or its directory.
        path: PathBuf,
        /// What lets whom change it.
        why: String,
        /// The command that mends it.
        remedy: String,
    },
    /// The text is not a configuration.
    #[error("{path:?}, line {line}: {why}")]
    Text {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, with a suggestion.
        why: String,
    },
    /// A value makes no sense.
    #[error("{path:?}: {why}")]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        why: String,
    },
    /// A change that the file's text does not allow.
    #[error("{path:?} was left as it is: {why}")]
    Edit {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The source that is to be added is there already.
    #[error("source {name:?} is already configured in {path:?}, at {at:?}; remove it first, or choose another name")]
    Exists {
        /// The file.
        path: PathBuf,
        /// The source's name.
        name: String,
        /// Its directory.
        at: PathBuf,
    },
    /// There is no such source.
    #[error("no source {name:?} in {path:?}{suggestion}")]
    NoSource {
        /// The file.
        path: PathBuf,
        /// The source's name.
        name: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
    },
}

impl Classed for ConfigError {
    fn class(&self) -> Class {
        match self {
            ConfigError::Place(error) => error.class(),
            ConfigError::Io { cause, .. } => Class::of_io(cause),
            ConfigError::Untrusted { .. } | ConfigError::Exposed { .. } => Class::Denied,
            ConfigError::Text { .. } | ConfigError::Value { .. } | ConfigError::Edit { .. } => Class::Invalid,
            ConfigError::Exists { .. } => Class::Conflict,
            ConfigError::NoSource { .. } => Class::NotFound,
        }
    }
}

impl Config {
    /// From the text of the file at `path`, which is named in errors only.
    ///
    /// # Errors
    /// [`ConfigError::Text`] or [`ConfigError::Value`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
            ConfigError::Text { path: path.to_owned(), line, why: with_suggestion(error.message()) }
        })?;
        config.check().map_err(|why| ConfigError::Value { path: path.to_owned(), why })?;
        Ok(config)
    }

    /// The source of that name.
    pub fn source(&self, name: &str) -> Option<&SourceConfig> {
        self.sources.iter().find(|source| source.name == name)
    }

    fn check(&self) -> Result<(), String> {
        let file = self.repository.as_ref().and_then(|repository| repository.credentials_file.as_ref());
        if let Some(path) = file.filter(|path| !path.is_absolute()) {
            return Err(format!(
                "credentials_file {path:?} must be an absolute path: it has to mean the same everywhere"
            ));
        }
        for (place, source) in self.sources.iter().enumerate() {
            source.check().map_err(|why| format!("source {:?}: {why}", source.name))?;
            if self.sources.iter().take(place).any(|before| before.name == source.name) {
                return Err(format!("source {:?} is configured twice; give one of them another name", source.name));
            }
        }
        Ok(())
    }
}

impl SourceConfig {
    /// What is wrong with it, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        check_source(&self.name).map_err(|bad| bad.to_string())?;
        for label in &self.labels {
            check_label(label).map_err(|bad| bad.to_string())?;
        }
        for path in [&self.path].into_iter().chain(&self.exclude_file) {
            if !path.is_absolute() {
                return Err(format!("{path:?} must be an absolute path: it has to mean the same everywhere"));
            }
        }
        let of_trees = !self.exclude.is_empty() || !self.exclude_file.is_empty() || self.exclude_caches;
        if self.disk && (of_trees || !self.one_file_system) {
            return Err(
                "nothing of a disk can be left out: exclude… and one_file_system are for directories".to_owned()
            );
        }
        match self.chunk_kib {
            Some(_) if !self.disk => return Err("chunk_kib is for disks: add disk = true".to_owned()),
            Some(kib) if !(16..=1024).contains(&kib) || !kib.is_power_of_two() => {
                return Err(format!("chunk_kib = {kib}: give 16, 32, 64, 128, 256, 512 or 1024"));
            }
            Some(_) | None => {}
        }
        Ok(())
    }
}

/// Serde's "unknown field `nmae`, expected one of `name`, `path`" with what was probably meant.
fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(key) if message.starts_with("unknown field") => {
            let known: Vec<&str> = quoted.collect();
            format!(
                "unknown key {key:?}{}; known here: {}",
                suggest::did_you_mean(key, known.iter().copied()),
                known.join(", ")
            )
        }
        _ => message.to_owned(),
    }
}

/// The configuration file, read again whenever it is asked for.
pub struct ConfigFile {
    path: PathBuf,
    user: u32,
    known: Mutex<Option<(String, Arc<Config>)>>,
}

impl std::fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ConfigFile {
    /// The file at `path`, which need not exist; for the user that this process runs as.
    pub fn at(path: impl Into<PathBuf>) -> ConfigFile {
        ConfigFile { path: path.into(), user: sys::effective_uid(), known: Mutex::new(None) }
    }

    /// The file that the environment names.
    ///
    /// # Errors
    /// [`ConfigError::Place`] when it names none.
    pub fn of(places: &Places) -> Result<ConfigFile, ConfigError> {
        Ok(ConfigFile::at(places.config()?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says now; the same `Arc` for as long as it says the same. A missing file says nothing.
    ///
    /// # Errors
    /// [`ConfigError`] when it could have been written by others, cannot be read, or makes no sense.
    pub fn current(&self) -> Result<Arc<Config>, ConfigError> {
        let text = self.read()?.unwrap_or_default();
        let mut known = self.known.lock();
        match &*known {
            Some((before, config)) if *before == text => Ok(Arc::clone(config)),
            _ => {
                let config = Arc::new(Config::parse(&text, &self.path)?);
                *known = Some((text, Arc::clone(&config)));
                Ok(config)
            }
        }
    }

    /// The file's text, after the checks; none when there is no file.
    pub(super) fn read(&self) -> Result<Option<String>, ConfigError> {
        let failed = |action, path: &Path, cause| ConfigError::Io { action, path: path.to_owned(), cause };
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open the configuration", &self.path, error)),
        };
        let meta = file.metadata().map_err(|error| failed("examine", &self.path, error))?;
        if !meta.is_file() {
            return Err(ConfigError::Value { path: self.path.clone(), why: "it is not a regular file".to_owned() });
        }
        self.trust(&self.path, &meta)?;
        // Whoever can write the directory can put another file in this one's place, wherever links lead.
        let real = self.path.canonicalize().map_err(|error| failed("find", &self.path, error))?;
        for directory in [self.path.parent(), real.parent()].into_iter().flatten() {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            let meta = directory.metadata().map_err(|error| failed("examine", directory, error))?;
            self.trust(directory, &meta)?;
        }
        if meta.len() > limits::CONFIG_BYTES_MAX {
            let why = format!("it has {} bytes, at most {} are read", meta.len(), limits::CONFIG_BYTES_MAX);
            return Err(ConfigError::Value { path: self.path.clone(), why });
        }
        let mut text = String::new();
        Read::by_ref(&mut file)
            .take(limits::CONFIG_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| failed("read the configuration", &self.path, error))?;
        Ok(Some(text))
    }

    /// Refuses what somebody else than this user or root may have written.
    fn trust(&self, path: &Path, meta: &Metadata) -> Result<(), ConfigError> {
        let untrusted = |why: String, remedy: String| ConfigError::Untrusted { path: path.to_owned(), why, remedy };
        if meta.uid() != self.user && meta.uid() != 0 {
            let why =
                format!("it belongs to user {}, and only user {} or root may define sources", meta.uid(), self.user);
            return Err(untrusted(why, format!("chown {} {path:?}", self.user)));
        }
        if meta.mode() & 0o022 != 0 {
            let who = if meta.mode() & 0o002 != 0 { "everybody" } else { "its group" };
            let why = format!("{who} can write to it (mode {:04o})", meta.mode() & 0o7777);
            return Err(untrusted(why, format!("chmod go-w {path:?}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
