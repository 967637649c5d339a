//! What every command knows: the global options, the configuration, the clock.

use std::ffi::OsStr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::Global;
use super::credential::Given;
use super::exit::Exit;
use super::failure::Failure;
use crate::base::suggest::did_you_mean;
use crate::base::{Class, Env, hex, limits};
use crate::chain::state::{Fault, Tip};
use crate::chain::{ChainError, Point, RepoLog, RepoState, SourceLog, SourceState, Survey};
use crate::format::log::SourceRecord;
use crate::format::marker::Marker;
use crate::format::object::{LogId, Object};
use crate::format::slot;
use crate::job::config::RepositoryConfig;
use crate::job::{ConfigFile, Places, credentials};
use crate::repo::{CacheSizes, Closed, Repo, RepoError};
use crate::store::{Access, Address, Deadlines, LeaseTimes, Store};
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

    /// Where the repository is: `-r`, else `AMBERFS_REPOSITORY`, else the configuration.
    ///
    /// # Errors
    /// When none of them names one, or what they name is no place for one.
    pub fn repository(&self) -> Result<Address, Failure> {
        if let Some(text) = self.global.repository.as_deref().filter(|text| !text.is_empty()) {
            return absolute_address(Address::parse(text)?);
        }
        let config = self.config()?;
        match &config.current()?.repository {
            Some(repository) => configured(repository, &config),
            None => Err(Failure::usage("no repository is given").ending(Exit::NoRepository).hint(format!(
                "name one with -r REPO, AMBERFS_REPOSITORY, or url under [repository] in {:?}",
                config.path()
            ))),
        }
    }

    /// What the configuration says of the repository at `address`, if it speaks of that place.
    fn said_of(&self, address: &Address) -> Result<Option<RepositoryConfig>, Failure> {
        let config = self.config()?;
        match &config.current()?.repository {
            Some(repository) if configured(repository, &config)?.is_place_of(address) => Ok(Some(repository.clone())),
            Some(_) | None => Ok(None),
        }
    }

    /// What is known of the store at `address` beside that: the configuration's word, if it speaks of this place.
    ///
    /// # Errors
    /// When the configuration or the file with the keys makes no sense, or others could read the keys.
    pub fn access(&self, address: &Address) -> Result<Access, Failure> {
        let Address::Remote(place) = address else { return Ok(Access::default()) };
        let Some(repository) = self.said_of(address)? else { return Ok(Access::default()) };
        let options = repository.options.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        let file = repository.credentials_file.as_deref();
        let credentials = file.map(|path| credentials::read(path, place.scheme)).transpose()?;
        Ok(Access { options, credentials })
    }
}

/// The place that the configuration names.
fn configured(repository: &RepositoryConfig, config: &ConfigFile) -> Result<Address, Failure> {
    let address = Address::parse(OsStr::new(&repository.url))?;
    match address.directory() {
        Some(path) if !path.is_absolute() => {
            Err(Failure::usage(format!("{:?}: the repository {path:?} must be an absolute path", config.path())))
        }
        _ => Ok(address),
    }
}

/// A repository with the log of its sources.
pub struct Opened {
    /// The repository.
    pub repo: Arc<Repo>,
    /// Which sources it has.
    pub sources: RepoLog,
    /// The key that it was opened with, if it is encrypted.
    pub given: Option<Given>,
}

impl Context {
    /// Opens the repository.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(&self) -> Result<Opened, Failure> {
        self.open_with(None, None, true)
    }

    /// The key that opens the repository, for another process to open it with; asked for, and tried, if it needs one and none
    /// was named.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn key(&self) -> Result<Option<Given>, Failure> {
        match self.given()? {
            Some(given) => Ok(Some(given)),
            None => Ok(self.open_with(None, None, false)?.given),
        }
    }

    /// Opens it anew with the key that it was opened with, and in the same store: nobody is asked again, no pipe is read
    /// twice, and what this process holds there, a lease, is its own.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn reopen(&self, opened: &Opened) -> Result<Opened, Failure> {
        self.open_with(opened.given.clone(), Some(opened.repo.store().clone()), true)
    }

    /// `reads` whether the log will be read: then it is fetched beside the key.
    fn open_with(&self, given: Option<Given>, store: Option<Store>, reads: bool) -> Result<Opened, Failure> {
        let address = self.repository()?;
        let absent = || {
            Failure::new(Class::NotFound, format!("there is no repository at {address}"))
                .ending(Exit::NoRepository)
                .hint("amberfs init creates one")
        };
        if address.directory().is_some_and(|root| !root.exists()) {
            return Err(absent());
        }
        let store = match store {
            Some(store) => store,
            None => {
                let store = self.remembered(Store::open(&address, &self.access(&address)?)?, &address)?;
                self.keep_blocks(&store)?;
                store
            }
        };
        let failed = |error| match error {
            RepoError::Absent { .. } => absent(),
            error => unopened(error),
        };
        let survey = if reads { Survey::begin(&store, &self.env) } else { None };
        let closed = Closed::find(store).map_err(failed)?;
        self.recognise(&address, &closed)?;
        let given = match given {
            Some(given) => Some(given),
            None => self.given()?,
        };
        let given = match given {
            Some(given) => Some(given),
            None if closed.is_encrypted() => Some(self.ask(&format!("Passphrase of {address}"))?),
            None => None,
        };
        let credential = given.as_ref().map(|given| &given.credential);
        let repo = closed.open(self.env.clone(), CacheSizes::default(), credential).map_err(failed)?;
        if let Ok(state) = self.places.state() {
            repo.keep_sessions_in(state.join("sessions"));
        }
        self.make_known(&address, &repo);
        let sources = RepoLog::surveyed(repo.store().clone(), self.env.clone(), repo.realm(), survey);
        Ok(Opened { repo, sources, given })
    }

    /// Where this host keeps which repository it has met at `address`: behind a URL, in what the environment makes of it.
    fn known(&self, address: &Address, store: Option<&Store>) -> Option<PathBuf> {
        let place = store.and_then(Store::identity).map_or_else(|| address.to_string(), str::to_owned);
        let mut name = hex::encode(blake3::hash(place.as_bytes()).as_bytes());
        name.truncate(32);
        Some(self.places.state().ok()?.join("known").join(name))
    }

    /// Refuses a repository that somebody has put in the place of the one that this host has met there: what would be
    /// captured into it could be for all to read.
    fn recognise(&self, address: &Address, closed: &Closed) -> Result<(), Failure> {
        let known = self.known(address, Some(closed.store())).and_then(|file| std::fs::read_to_string(file).ok());
        match known {
            Some(known) if known != fingerprint(closed.marker()) => Err(Failure::new(
                Class::Corrupt,
                format!("the repository at {address} is not the one that this host has used there before"),
            )
            .hint("if it was replaced on purpose, `amberfs repo accept-history` accepts it")),
            Some(_) | None => Ok(()),
        }
    }

    /// Remembers which repository is at `address`. Failing to costs the memory and nothing else.
    pub fn make_known(&self, address: &Address, repo: &Repo) {
        let Some(file) = self.known(address, Some(repo.store())) else { return };
        let text = fingerprint(repo.marker());
        if std::fs::read_to_string(&file).is_ok_and(|known| known == text) {
            return;
        }
        let write = || -> std::io::Result<()> {
            if let Some(directory) = file.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            let beside = file.with_extension(std::process::id().to_string());
            std::fs::write(&beside, &text)?;
            std::fs::rename(&beside, &file)
        };
        if let Err(error) = write() {
            tracing::debug!(?file, %error, "which repository is where could not be remembered");
        }
    }

    /// Forgets which repository is at `address`.
    ///
    /// # Errors
    /// When what is known of the place does not suffice to speak with it, or the file cannot be removed.
    pub fn forget_known(&self, address: &Address) -> Result<(), Failure> {
        let remote = address.directory().is_none();
        let store = remote.then(|| Ok::<_, Failure>(Store::open(address, &self.access(address)?)?)).transpose()?;
        let Some(file) = self.known(address, store.as_ref()) else { return Ok(()) };
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::io(format!("forget {file:?}"), &error))
            }
            _ => Ok(()),
        }
    }

    /// Whether the repository is named otherwise than by the configuration.
    pub fn repository_is_named(&self) -> bool {
        self.global.repository.as_deref().is_some_and(|text| !text.is_empty())
    }
}

impl Context {
    /// Has the store keep on this machine's disk what it fetches over a network, as options and configuration say.
    fn keep_blocks(&self, store: &Store) -> Result<(), Failure> {
        if !store.is_remote() || self.global.no_cache {
            return Ok(());
        }
        let mib = match self.global.cache_size {
            Some(mib) => Some(mib),
            None => self.config()?.current()?.cache.mib,
        };
        let bytes = mib.map_or(limits::DISK_CACHE_BYTES, |mib| mib.saturating_mul(1 << 20));
        // Without a place for it, everything is fetched anew.
        if let (Ok(cache), 1..) = (self.places.cache(), bytes) {
            store.keep_blocks_in(cache.join("blocks"), bytes);
        }
        Ok(())
    }

    /// How long the store at `address` is waited for, as options and configuration say.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn deadlines(&self, address: &Address) -> Result<Deadlines, Failure> {
        let configured = match address {
            // A directory can do without the configuration, and without one that is sound.
            Address::Directory(_) => self.said_of(address).unwrap_or_default(),
            Address::Remote(_) => self.said_of(address)?,
        };
        let (metadata, data) = configured.map_or((None, None), |said| (said.metadata_timeout, said.read_timeout));
        Ok(Deadlines::chosen(self.global.metadata_timeout.or(metadata), self.global.read_timeout.or(data)))
    }

    /// The store, with this machine's memory of whether it is fit to be written to, and with what the user allows.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub fn remembered(&self, store: Store, address: &Address) -> Result<Store, Failure> {
        let store = store.with_deadlines(self.deadlines(address)?);
        let configured = match address {
            Address::Directory(_) => false,
            Address::Remote(_) => self.said_of(address)?.is_some_and(|repository| repository.single_writer),
        };
        if self.global.single_writer || configured {
            store.allow_single_writer(LeaseTimes::default(), super::warn_past_filters);
        }
        // Without a place for it, each command that writes finds out anew.
        if let Ok(state) = self.places.state() {
            store.keep_proof_in(state.join("proven"));
            store.remember_heads_in(state.join("heads"));
        }
        Ok(store)
    }
}

/// What tells one repository from every other.
fn fingerprint(marker: &Marker) -> String {
    hex::encode(blake3::hash(&marker.encode()).as_bytes())
}

/// Why a repository cannot be opened. Its marker, and the slot of the key, cannot be verified beside anything else: they
/// are what comes first.
fn unopened(error: RepoError) -> Failure {
    let why = match &error {
        RepoError::WrongKey { .. } => {
            return Failure::from(error)
                .ending(Exit::WrongKey)
                .hint("`amberfs key list`, run with another key, shows which there are");
        }
        RepoError::Locked { .. } => return Failure::from(error).ending(Exit::WrongKey),
        RepoError::NotEncrypted { .. } => {
            return Failure::from(error).hint(
                "if it should be encrypted, somebody has put another one in its place; else open it without a key: \
                 no --keyfile, --password-file or --password-command, and no AMBERFS_KEYFILE or AMBERFS_PASSWORD...",
            );
        }
        RepoError::Damaged { object, source } if matches!(Object::parse(object), Some(Object::Slot(..))) => {
            return Failure::new(
                Class::Corrupt,
                format!("the key slot that this key should open, the object `{object}`, is damaged: {source}"),
            )
            .hint("open the repository with another key, or restore this small file from a copy of the repository");
        }
        RepoError::Missing { .. } => "does not exist".to_owned(),
        RepoError::Damaged { source, .. } => format!("is damaged: {source}"),
        _ => return error.into(),
    };
    Failure::new(Class::Corrupt, format!("the repository's marker, the object `amberfs`, {why}"))
        .hint("nothing can be read without it: restore this small file from a copy of the repository")
}

impl Opened {
    /// `failure` to read what is stored, in the words of whoever has a key that does not read it.
    pub fn explained(&self, failure: Failure) -> Failure {
        let Some(slot) = self.repo.slot().filter(|slot| !matches!(slot.access, slot::Access::Full(_))) else {
            return failure;
        };
        if failure.class() != Class::Denied {
            return failure;
        }
        let role = slot::role_name(&slot.access);
        Failure::new(Class::Denied, format!("your key is a {role} key, which cannot read contents"))
            .hint(format!("open the repository with a full key ({})", failure.text()))
    }

    /// The log of a source.
    pub fn log(&self, source: &SourceRecord) -> SourceLog {
        self.sources.source_log(source.id)
    }

    /// Which sources there are. Where the log that says so is damaged, the user is told: others may be missing.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn known(&self) -> Result<Arc<RepoState>, Failure> {
        let state = self.sources.load()?;
        tell_of_damage(LogId::Repo, state.read(), "sources may be missing, or be others than they seem");
        Ok(state)
    }

    /// What points a source has. Where its log is damaged, the user is told.
    fn state(&self, source: &SourceRecord) -> Result<Arc<SourceState>, Failure> {
        let state = self.log(source).load()?;
        let what = format!("points of {} may be missing", source.name);
        tell_of_damage(LogId::Source(source.id), state.read(), &what);
        Ok(state)
    }

    /// The source of that name.
    ///
    /// # Errors
    /// When there is none, or the log cannot be read.
    pub fn source(&self, name: &str) -> Result<SourceRecord, Failure> {
        let state = self.known()?;
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
            None => self.known()?.sources().cloned().collect(),
        };
        records.into_iter().map(|record| Ok((record.clone(), self.state(&record)?))).collect()
    }

    /// The source and the point that a selector means.
    ///
    /// # Errors
    /// When there is none.
    pub fn resolve(&self, selector: &Selector) -> Result<(SourceRecord, Arc<Point>), Failure> {
        let record = self.source(&selector.source)?;
        let state = self.state(&record)?;
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

/// Whoever reads goes on past damage in a log, and must know.
fn tell_of_damage(log: LogId, tip: &Tip, what: &str) {
    let Some(damage) = tip.obstacle() else { return };
    match damage.fault {
        // What this host remembers is told of where it is found.
        Fault::RolledBack(_) | Fault::Forked | Fault::Withheld(_) => {}
        _ => tracing::warn!("{what}: {}", ChainError::damaged(log, damage)),
    }
}

/// A path that means the same whatever the working directory becomes.
///
/// # Errors
/// When the working directory is gone or the path empty.
pub fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path).map_err(|error| Failure::io(format!("make {path:?} absolute"), &error))
}

fn absolute_address(address: Address) -> Result<Address, Failure> {
    match address {
        Address::Directory(path) => absolute(path).map(Address::Directory),
        remote => Ok(remote),
    }
}
