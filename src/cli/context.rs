//! What every command knows: the global options, the configuration, the clock.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::Global;
use super::exit::Exit;
use super::failure::Failure;
use crate::base::suggest::did_you_mean;
use crate::base::{Class, Env};
use crate::chain::{Point, RepoLog, SourceLog, SourceState};
use crate::format::log::SourceRecord;
use crate::job::{ConfigFile, Places};
use crate::repo::{Repo, RepoError};
use crate::store::Store;
use crate::view::namespace::ViewError;
use crate::view::{Selector, loss};

/// What every command knows.
pub struct Context {
    /// The options that all commands take.
    pub global: Global,
    /// Clock and randomness.
    pub env: Env,
    /// Where things are on this machine.
    pub places: Places,
}

impl Context {
    /// The configuration file that applies.
    ///
    /// # Errors
    /// When nothing says where it is.
    pub fn config(&self) -> Result<ConfigFile, Failure> {
        match &self.global.config {
            Some(path) => Ok(ConfigFile::at(absolute(path.clone())?)),
            None => Ok(ConfigFile::of(&self.places)?),
        }
    }

    /// The directory of the repository: `-r`, else `AMBERFS_REPOSITORY`, else the configuration.
    ///
    /// # Errors
    /// When none of them names one, or a kind of store that this build does not have.
    pub fn repository(&self) -> Result<PathBuf, Failure> {
        if let Some(text) = self.global.repository.as_deref().filter(|text| !text.is_empty()) {
            return absolute(directory(text)?);
        }
        let config = self.config()?;
        match &config.current()?.repository {
            Some(repository) => {
                let path = directory(OsStr::new(&repository.url))?;
                if path.is_absolute() {
                    return Ok(path);
                }
                Err(Failure::usage(format!("{:?}: the repository {path:?} must be an absolute path", config.path())))
            }
            None => Err(Failure::usage("no repository is given").ending(Exit::NoRepository).hint(format!(
                "name one with -r REPO, AMBERFS_REPOSITORY, or url under [repository] in {:?}",
                config.path()
            ))),
        }
    }
}

/// A repository with the log of its sources.
pub struct Opened {
    /// The repository.
    pub repo: Arc<Repo>,
    /// Which sources it has.
    pub sources: RepoLog,
}

impl Context {
    /// Opens the repository.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(&self) -> Result<Opened, Failure> {
        let root = self.repository()?;
        let absent = || {
            Failure::new(Class::NotFound, format!("there is no repository at {}", root.display()))
                .ending(Exit::NoRepository)
                .hint("amberfs init --unencrypted creates one")
        };
        if !root.exists() {
            return Err(absent());
        }
        let store = self.remembered(Store::local(&root)?);
        let repo = Repo::open(store, self.env.clone()).map_err(|error| match error {
            RepoError::Absent { .. } => absent(),
            error => unopened(error),
        })?;
        let sources = RepoLog::open(repo.store().clone(), self.env.clone(), repo.id());
        Ok(Opened { repo, sources })
    }
}

impl Context {
    /// The store, with this machine's memory of whether it is fit to be written to.
    pub fn remembered(&self, store: Store) -> Store {
        // Without a place for it, each command that writes finds out anew.
        if let Ok(state) = self.places.state() {
            store.keep_proof_in(state.join("proven"));
        }
        store
    }
}

/// Why a repository cannot be opened. Its marker cannot be verified beside anything else: it is what comes first.
fn unopened(error: RepoError) -> Failure {
    let why = match &error {
        RepoError::Missing { .. } => "does not exist".to_owned(),
        RepoError::Damaged { source, .. } => format!("is damaged: {source}"),
        _ => return error.into(),
    };
    Failure::new(Class::Corrupt, format!("the repository's marker, the object `amberfs`, {why}"))
        .hint("nothing can be read without it: restore this small file from a copy of the repository")
}

impl Opened {
    /// The log of a source.
    pub fn log(&self, source: &SourceRecord) -> SourceLog {
        SourceLog::open(self.repo.store().clone(), self.repo.env().clone(), self.repo.id(), source.id)
    }

    /// The source of that name.
    ///
    /// # Errors
    /// When there is none, or the log cannot be read.
    pub fn source(&self, name: &str) -> Result<SourceRecord, Failure> {
        let state = self.sources.load()?;
        state.by_name(name).cloned().ok_or_else(|| {
            let suggestion = did_you_mean(name, state.sources().map(|record| record.name.as_str()));
            Failure::new(Class::NotFound, format!("no source {name:?} in this repository{suggestion}"))
        })
    }

    /// The source of that name, or all of them, each with its points.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn selected(&self, name: Option<&str>) -> Result<Vec<(SourceRecord, Arc<SourceState>)>, Failure> {
        let records = match name {
            Some(name) => vec![self.source(name)?],
            None => self.sources.load()?.sources().cloned().collect(),
        };
        records.into_iter().map(|record| Ok((record.clone(), self.log(&record).load()?))).collect()
    }

    /// The source and the point that a selector means.
    ///
    /// # Errors
    /// When there is none.
    pub fn resolve(&self, selector: &Selector) -> Result<(SourceRecord, Arc<Point>), Failure> {
        let record = self.source(&selector.source)?;
        let state = self.log(&record).load()?;
        let point = selector.pick.resolve(&state, self.repo.env().now(), &TimeZone::system());
        let in_doubt = |doubt: ViewError| {
            Failure::from(doubt)
                .during(format!("source {}", record.name))
                .hint(format!("amberfs points {0} lists what is known; {0}#ID takes one of them as it is", record.name))
        };
        let point = Arc::clone(point.map_err(|error| match loss::of_absence(&state, record.id) {
            Some(doubt) => in_doubt(doubt),
            None => Failure::from(error).during(format!("source {}", record.name)),
        })?);
        match loss::of_answer(&selector.pick, &state, record.id, &point) {
            Some(doubt) => Err(in_doubt(doubt)),
            None => Ok((record, point)),
        }
    }
}

/// A path that means the same whatever the working directory becomes.
///
/// # Errors
/// When the working directory is gone or the path empty.
pub fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path).map_err(|error| Failure::io(format!("make {path:?} absolute"), &error))
}

/// The directory that a repository's name stands for: a path, or `file://` and an absolute path with `%` escapes.
fn directory(text: &OsStr) -> Result<PathBuf, Failure> {
    let bytes = text.as_bytes();
    if let Some(path) = bytes.strip_prefix(b"file://") {
        let path = unescape(path).filter(|path| path.starts_with(b"/")).ok_or_else(|| {
            Failure::usage(format!(
                "repository {text:?}: file:// is followed by an absolute path, with %20 for a space"
            ))
        })?;
        return Ok(PathBuf::from(OsStr::from_bytes(&path)));
    }
    let scheme = bytes.split(|byte| !byte.is_ascii_alphanumeric()).next().unwrap_or_default();
    if scheme.len() > 1 && bytes.get(scheme.len()..).is_some_and(|rest| rest.starts_with(b"://")) {
        return Err(Failure::new(
            Class::Unsupported,
            format!("repository {text:?}: this amberfs keeps repositories in local directories only"),
        )
        .hint("give a path, or file:///and/a/path"));
    }
    Ok(PathBuf::from(text))
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
    use std::path::Path;

    use super::*;

    #[test]
    fn repositories_are_paths_or_file_urls() {
        for (text, path) in [
            ("/srv/backup", "/srv/backup"),
            ("backup", "backup"),
            ("./a:b", "./a:b"),
            ("file:///srv/a%20b", "/srv/a b"),
            ("file:///srv/%2f", "/srv//"),
        ] {
            assert_eq!(directory(OsStr::new(text)).unwrap(), Path::new(path), "{text}");
        }
        for text in ["file://host/srv", "file:///a%2", "file:///a%+f", "file://"] {
            assert_eq!(directory(OsStr::new(text)).unwrap_err().exit(), Exit::Usage, "{text}");
        }
        for text in ["s3://bucket/prefix", "https://x"] {
            assert_eq!(directory(OsStr::new(text)).unwrap_err().class(), Class::Unsupported, "{text}");
        }
    }
}
