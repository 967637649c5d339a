//! The store itself: what it is made of, how it is opened, how requests are run, counted and ended.
//! What can be asked of it is in `requests.rs`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;

use crate::base::{Env, limits};
use crate::format::RepoId;
use crate::format::object::ObjectName;

use super::address::{Address, Place, Scheme};
use super::backend::{self, Access, Opened};
use super::disk_cache::DiskCache;
use super::error::StoreError;
use super::intercept::{Gate, GatedParts, Intercepted};
use super::lease::SingleWriter;
use super::local::LocalDir;
use super::meter::{Meter, Operation};
use super::parts::Numbered;
use super::proof::Proof;
use super::remote::{Remote, Request};
use super::tasks::{Running, Stopped, Tasks};

/// Requests over a network end by themselves, and are given so much more time to say why.
const GRACE: Duration = Duration::from_millis(500);

/// How long a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Sizes, deletions and each page of a listing.
    pub metadata: Duration,
    /// Reads, and each part of an upload.
    pub data: Duration,
    /// Writes that end durable: creations and the end of an upload.
    pub durable: Duration,
    /// What each MiB that is written over a network adds.
    pub per_mib_written: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            metadata: limits::METADATA_DEADLINE,
            data: limits::DATA_DEADLINE,
            durable: limits::DURABLE_DEADLINE,
            per_mib_written: limits::WRITE_TIME_PER_MIB,
        }
    }
}

impl Deadlines {
    /// The usual ones, but for what somebody has chosen. What ends durable may take four times as long as data.
    pub fn chosen(metadata: Option<Duration>, data: Option<Duration>) -> Deadlines {
        let usual = Deadlines::default();
        Deadlines {
            metadata: metadata.unwrap_or(usual.metadata),
            data: data.unwrap_or(usual.data),
            durable: data.map_or(usual.durable, |data| 4 * data),
            ..usual
        }
    }

    /// The same deadline for everything, however much is written.
    pub fn all(deadline: Duration) -> Deadlines {
        Deadlines { metadata: deadline, data: deadline, durable: deadline, per_mib_written: Duration::ZERO }
    }

    /// How much longer a request may take that writes so many bytes over a network.
    pub(super) fn allowance(&self, bytes: u64) -> Duration {
        self.per_mib_written.mul_f64(bytes as f64 / f64::from(1 << 20))
    }

    /// How long a request of this kind may take.
    pub(super) fn of(&self, operation: Operation) -> Duration {
        match operation {
            Operation::Size | Operation::List | Operation::Delete | Operation::Abort => self.metadata,
            // The beginning of an upload has a capture of hours behind it, as its parts have.
            Operation::Get | Operation::Range | Operation::Tail | Operation::Begin | Operation::Part => self.data,
            Operation::Create | Operation::Finish => self.durable,
        }
    }
}

/// What became of [`Store::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is new and holds the given bytes.
    New,
    /// The name was taken; the object is as it was.
    Exists,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, relative to the store.
    pub name: ObjectName,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A place that holds named, immutable objects. Cheap to clone; clones share connections and counts.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
    deadlines: Deadlines,
}

#[derive(Debug)]
struct Inner {
    objects: Arc<dyn ObjectStore>,
    /// Uploads in parts by their numbers, where the backend has them.
    numbered: Option<Numbered>,
    /// The way past `object_store` for reads; absent when the store is wrapped or not local.
    direct: Option<Arc<LocalDir>>,
    root: Option<PathBuf>,
    description: String,
    /// What tells a store over a network from any other ([`backend::Opened`]).
    identity: Option<String>,
    /// Whether listings come sorted by name.
    ordered: bool,
    tasks: Tasks,
    meter: Arc<Meter>,
    proof: Proof,
    single_writer: SingleWriter,
    /// How requests are made over a network; absent when there is none.
    remote: Option<Arc<Remote>>,
    /// Where fetched blocks are kept, and how many bytes of them.
    kept_in: OnceLock<(PathBuf, u64)>,
    /// Where this machine remembers the heads of logs.
    heads_in: OnceLock<PathBuf>,
    /// How long requests for metadata and for data may take at least.
    at_least: OnceLock<(Duration, Duration)>,
}

impl Store {
    /// The store in the existing directory `root`.
    ///
    /// # Errors
    /// [`StoreError::Root`] when it is no directory or cannot be opened.
    pub fn local(root: &Path) -> Result<Store, StoreError> {
        Store::in_directory(LocalDir::open(root)?)
    }

    /// A new store in `root`, which is made for its owner alone (its parent must exist) or exists and is empty; one that others
    /// could write to is taken away from them.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] when something is there, [`StoreError::OpenToOthers`] when others could put something there,
    /// [`StoreError::Root`] when it cannot be made or opened.
    pub fn create_local(root: &Path) -> Result<Store, StoreError> {
        Store::in_directory(LocalDir::create(root)?)
    }

    fn in_directory(directory: LocalDir) -> Result<Store, StoreError> {
        let root = directory.root().to_owned();
        let objects = LocalFileSystem::new_with_prefix(&root).map_err(|error| StoreError::Root {
            what: "open the directory",
            root: root.clone(),
            source: std::io::Error::other(error),
        })?;
        Ok(Store::from_inner(Inner {
            objects: Arc::new(objects.with_fsync(true)),
            numbered: None,
            direct: Some(Arc::new(directory)),
            description: format!("file://{}", root.display()),
            identity: None,
            root: Some(root),
            ordered: false,
            tasks: Tasks::new(false),
            meter: Arc::default(),
            proof: Proof::default(),
            single_writer: SingleWriter::default(),
            remote: None,
            kept_in: OnceLock::new(),
            heads_in: OnceLock::new(),
            at_least: OnceLock::new(),
        }))
    }

    /// The store at `address`, whose directory must exist. Nothing is asked of a store that is no directory.
    ///
    /// # Errors
    /// As [`Store::local`]; [`StoreError::Unusable`] when what is known does not suffice, [`StoreError::Feature`] when
    /// this build lacks the backend.
    pub fn open(address: &Address, access: &Access) -> Result<Store, StoreError> {
        match address {
            Address::Directory(root) => Store::local(root),
            Address::Remote(place) => Store::in_place(place, access),
        }
    }

    /// A new store at `address`. A bucket must exist.
    ///
    /// # Errors
    /// As [`Store::create_local`] and [`Store::open`].
    pub fn create_at(address: &Address, access: &Access) -> Result<Store, StoreError> {
        match address {
            Address::Directory(root) => Store::create_local(root),
            Address::Remote(place) => Store::in_place(place, access),
        }
    }

    fn in_place(place: &Place, access: &Access) -> Result<Store, StoreError> {
        let Opened { objects, numbered, ordered, identity, respite } = backend::open(place, access)?;
        let in_memory = place.scheme == Scheme::Memory;
        Ok(Store::from_inner(Inner {
            objects,
            numbered: numbered.map(Numbered),
            direct: None,
            root: None,
            description: place.name(),
            identity: (!in_memory).then_some(identity),
            ordered,
            tasks: Tasks::new(in_memory),
            meter: Arc::default(),
            remote: (!in_memory).then(|| Arc::new(Remote::new(Env::system(), respite))),
            proof: Proof::given(in_memory),
            single_writer: SingleWriter::default(),
            kept_in: OnceLock::new(),
            heads_in: OnceLock::new(),
            at_least: OnceLock::new(),
        }))
    }

    /// A store in this process's memory, for tests.
    pub fn memory() -> Store {
        // A map behind a lock has nothing to prove.
        Store::asynchronous(Arc::new(InMemory::new()), None, true, Proof::given(true), None)
    }

    /// A store in this process's memory that is treated as one over a network, for tests.
    pub fn memory_as_remote(env: Env) -> Store {
        let remote = Some(Arc::new(Remote::new(env, Arc::default())));
        let objects = Arc::new(InMemory::new());
        let numbered = Numbered(Arc::clone(&objects) as Arc<dyn MultipartStore>);
        Store::asynchronous(objects, Some(numbered), true, Proof::given(true), remote)
    }

    /// A store over a network, by any implementation that does not block in its polls and lists in any order. What it
    /// does by itself about failures must be little: they are tried again here.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Store {
        let remote = Remote::new(Env::system(), Arc::default());
        Store::asynchronous(objects, None, false, Proof::default(), Some(Arc::new(remote)))
    }

    #[cfg(test)]
    pub(super) fn over_for_tests(objects: Arc<dyn ObjectStore>, ordered: bool, env: Env) -> Store {
        let remote = Some(Arc::new(Remote::new(env, Arc::default())));
        Store::asynchronous(objects, None, ordered, Proof::given(true), remote)
    }

    fn asynchronous(
        objects: Arc<dyn ObjectStore>,
        numbered: Option<Numbered>,
        ordered: bool,
        proof: Proof,
        remote: Option<Arc<Remote>>,
    ) -> Store {
        Store::from_inner(Inner {
            description: objects.to_string(),
            identity: None,
            objects,
            numbered,
            direct: None,
            root: None,
            ordered,
            tasks: Tasks::new(true),
            meter: Arc::default(),
            proof,
            single_writer: SingleWriter::default(),
            remote,
            kept_in: OnceLock::new(),
            heads_in: OnceLock::new(),
            at_least: OnceLock::new(),
        })
    }

    /// This store behind a wrapper, with counts of its own. Reads of a local store then take the long way, so
    /// that the wrapper sees them, and parts of uploads are numbered by it.
    pub fn wrapped(&self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Store {
        self.with_objects(wrap(Arc::clone(&self.inner.objects)), None, self.inner.proof.is_given())
    }

    /// This store behind `gate`, with counts of its own.
    pub(super) fn gated<G: Gate>(&self, gate: &Arc<G>) -> Store {
        let objects = Arc::new(Intercepted::new(Arc::clone(&self.inner.objects), Arc::clone(gate)));
        let numbered = self.inner.numbered.clone();
        let numbered = numbered.map(|Numbered(parts)| Numbered(Arc::new(GatedParts::new(parts, Arc::clone(gate)))));
        self.with_objects(objects, numbered, self.inner.proof.is_given())
    }

    /// The same objects by requests of their own, which nothing that this store waits for holds up.
    pub(super) fn apart(&self) -> Store {
        self.with_objects(Arc::clone(&self.inner.objects), self.inner.numbered.clone(), false)
    }

    fn with_objects(&self, objects: Arc<dyn ObjectStore>, numbered: Option<Numbered>, proven: bool) -> Store {
        let wrapped = Store::from_inner(Inner {
            objects,
            numbered,
            direct: None,
            root: self.inner.root.clone(),
            description: self.inner.description.clone(),
            identity: None,
            ordered: self.inner.ordered,
            tasks: Tasks::new(self.inner.root.is_none()),
            meter: Arc::default(),
            proof: Proof::given(proven),
            single_writer: SingleWriter::default(),
            remote: self.inner.remote.clone(),
            kept_in: self.inner.kept_in.clone(),
            heads_in: self.inner.heads_in.clone(),
            at_least: OnceLock::new(),
        });
        wrapped.with_deadlines(self.deadlines)
    }

    fn from_inner(inner: Inner) -> Store {
        Store { inner: Arc::new(inner), deadlines: Deadlines::default() }
    }

    /// The same store with other deadlines.
    pub fn with_deadlines(self, deadlines: Deadlines) -> Store {
        Store { deadlines, ..self }
    }

    /// The store's place, for messages: `file:///path`.
    pub fn describe(&self) -> String {
        self.inner.description.clone()
    }

    /// The directory of a local store, without symbolic links: a capture must not enter it.
    pub fn local_root(&self) -> Option<&Path> {
        self.inner.root.as_deref()
    }

    /// The counts of this store's requests.
    pub fn meter(&self) -> &Meter {
        &self.inner.meter
    }

    pub(super) fn shared_meter(&self) -> &Arc<Meter> {
        &self.inner.meter
    }

    #[cfg(test)]
    pub(super) fn shared_remote(&self) -> Option<Arc<Remote>> {
        self.inner.remote.clone()
    }

    /// Whether each request costs a journey over a network.
    pub fn is_remote(&self) -> bool {
        self.inner.remote.is_some()
    }

    /// Keeps what is fetched over a network in `directory`, at most so many bytes. Nothing is kept of another store.
    pub fn keep_blocks_in(&self, directory: PathBuf, bytes_max: u64) {
        // Whoever came first has the same configuration.
        drop(self.inner.kept_in.set((directory, bytes_max)));
    }

    /// Remembers in `directory` what this host has seen of the logs in this store.
    pub fn remember_heads_in(&self, directory: PathBuf) {
        // Whoever came first has the same state directory.
        drop(self.inner.heads_in.set(directory));
    }

    /// Where this host remembers what it has seen of the logs, if it does.
    pub fn heads_in(&self) -> Option<&Path> {
        self.inner.heads_in.get().map(PathBuf::as_path)
    }

    /// The disk cache of repository `repo`, if one was asked for.
    pub fn disk_cache(&self, repo: RepoId, env: &Env) -> Option<DiskCache> {
        let (directory, bytes_max) = self.inner.kept_in.get().filter(|_| self.is_remote())?;
        Some(DiskCache::new(directory, *bytes_max, repo, env.clone()))
    }

    /// How long requests may take.
    pub fn deadlines(&self) -> Deadlines {
        let own = self.deadlines;
        match self.inner.at_least.get() {
            Some((metadata, data)) => {
                Deadlines { metadata: own.metadata.max(*metadata), data: own.data.max(*data), ..own }
            }
            None => own,
        }
    }

    /// Lets requests for metadata and for data take so long at least, by all clones of this store: whoever waits for them has
    /// been told to wait as long.
    pub fn allow(&self, metadata: Duration, data: Duration) {
        // Whoever came first has the same options.
        let _set = self.inner.at_least.set((metadata, data));
    }

    /// A request that is yet to be made.
    pub(super) fn request(&self, operation: Operation, name: &ObjectName, path: object_store::path::Path) -> Request {
        Request {
            objects: Arc::clone(&self.inner.objects),
            meter: Arc::clone(&self.inner.meter),
            remote: self.inner.remote.clone(),
            operation,
            object: name.to_string(),
            path,
            deadline: self.deadlines().of(operation),
            allowance: Duration::ZERO,
        }
    }

    /// A request that is yet to be made, and writes so many bytes.
    pub(super) fn write_request(
        &self,
        operation: Operation,
        name: &ObjectName,
        path: object_store::path::Path,
        bytes: u64,
    ) -> Request {
        Request { allowance: self.allowance(bytes), ..self.request(operation, name, path) }
    }

    /// How much longer a request may take that writes so many bytes.
    pub(super) fn allowance(&self, bytes: u64) -> Duration {
        if self.is_remote() { self.deadlines().allowance(bytes) } else { Duration::ZERO }
    }

    /// Uploads in parts by their numbers, where parts that fail are sent again.
    pub(super) fn numbered(&self) -> Option<&Numbered> {
        self.inner.numbered.as_ref().filter(|_| self.is_remote())
    }

    /// What tells a store over a network from any other: its address, and what options, configuration and environment make
    /// of it. None where there is no network.
    pub fn identity(&self) -> Option<&str> {
        self.inner.identity.as_deref()
    }

    pub(super) fn single_writer(&self) -> &SingleWriter {
        &self.inner.single_writer
    }

    /// Whether it is known to honour "create only if absent".
    pub(super) fn proof(&self) -> &Proof {
        &self.inner.proof
    }

    /// The way past `object_store` for reads, if there is one.
    pub(super) fn direct(&self) -> Option<Arc<LocalDir>> {
        self.inner.direct.clone()
    }

    /// Readies a local directory for a write into it.
    pub(super) fn prepare(&self, operation: Operation, name: &ObjectName) -> Result<(), StoreError> {
        match self.direct() {
            Some(direct) => {
                let at = name.clone();
                self.run_blocking(operation, name, move || direct.prepare(operation, &at))?
            }
            None => Ok(()),
        }
    }

    /// Removes what a failed upload left in a local directory; failing that, it only takes space.
    pub(super) fn sweep(&self, name: &ObjectName) {
        if let Some(direct) = self.direct() {
            let at = name.clone();
            let swept = self.run_blocking(Operation::Abort, name, move || direct.sweep(&at));
            if let Ok(Err(error)) = swept {
                tracing::debug!(object = %name, %error, "an unfinished upload's file could not be removed");
            }
        }
    }

    /// Takes an object in a local directory away from everybody but its owner. Failing to leaves it as others were let read
    /// what is in the directory.
    pub fn make_private(&self, name: &ObjectName) {
        if let Some(direct) = self.direct() {
            let (operation, at) = (Operation::Create, name.clone());
            let made = self.run_blocking(operation, name, move || direct.make_private(operation, &at));
            if let Err(error) | Ok(Err(error)) = made {
                tracing::debug!(object = %name, %error, "an object can be read by others");
            }
        }
    }

    /// Removes the directory `path` of a local store and those below it, as far as they are empty but for what killed writers had
    /// not completed: no other store has any.
    pub(super) fn remove_empty(&self, path: &str) {
        if let Some(direct) = self.direct() {
            let at = path.to_owned();
            let place = ObjectName::listed(path);
            let removed = self.run_blocking(Operation::Delete, &place, move || direct.remove_empty(&at));
            if let Ok(Err(error)) = removed {
                tracing::debug!(path, %error, "empty directories could not be removed");
            }
        }
    }

    /// How many files a local directory holds of objects that were never completed, and their bytes: those of
    /// writers under way, and of writers that were killed. No other store shows what it has of them.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn unfinished(&self) -> Result<(u64, u64), StoreError> {
        let Some(direct) = self.direct() else { return Ok((0, 0)) };
        let root = direct.root().to_owned();
        let name = ObjectName::listed("");
        let counted =
            self.counted(Operation::List, || self.run_blocking(Operation::List, &name, move || direct.unfinished()))?;
        counted.map_err(|source| StoreError::Root { what: "look for unfinished files", root, source })
    }

    pub(super) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.objects
    }

    /// Whether listings come sorted by name, so that one can stop early.
    pub(super) fn lists_in_order(&self) -> bool {
        self.inner.ordered
    }

    /// Counts one request and its failure.
    pub(super) fn counted<T>(
        &self,
        operation: Operation,
        request: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.inner.meter.request(operation);
        request().inspect_err(|_| self.inner.meter.failure(operation))
    }

    /// Counts one read, its failure and its bytes.
    pub(super) fn counted_read(
        &self,
        operation: Operation,
        request: impl FnOnce() -> Result<Bytes, StoreError>,
    ) -> Result<Bytes, StoreError> {
        let bytes = self.counted(operation, request)?;
        self.inner.meter.moved(operation, bytes.len() as u64);
        Ok(bytes)
    }

    /// Runs `request` and waits for it until the operation's deadline.
    pub(super) fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        name: &ObjectName,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.wait(operation, name, self.start(operation, name, request)?)
    }

    /// Runs `work`, which may block in the operating system, and waits for it until the operation's deadline.
    pub(super) fn run_blocking<T: Send + 'static>(
        &self,
        operation: Operation,
        name: &ObjectName,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let running = self.inner.tasks.start_blocking(work);
        self.wait(operation, name, running.map_err(|stopped| self.stopped(operation, name, stopped))?)
    }

    /// Starts `request` and does not wait for it.
    pub(super) fn start<T: Send + 'static>(
        &self,
        operation: Operation,
        name: &ObjectName,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Result<Running<T>, StoreError> {
        self.inner.tasks.start(request).map_err(|stopped| self.stopped(operation, name, stopped))
    }

    /// Waits for what was started, until the operation's deadline.
    pub(super) fn wait<T>(
        &self,
        operation: Operation,
        name: &ObjectName,
        running: Running<T>,
    ) -> Result<T, StoreError> {
        self.wait_longer(operation, name, Duration::ZERO, running)
    }

    /// Waits for what was started, for so much longer than the operation's deadline.
    pub(super) fn wait_longer<T>(
        &self,
        operation: Operation,
        name: &ObjectName,
        allowance: Duration,
        running: Running<T>,
    ) -> Result<T, StoreError> {
        self.wait_within(operation, name, self.deadlines().of(operation) + allowance, running)
    }

    /// Waits for what was started, and ends within `deadline`.
    pub(super) fn wait_within<T>(
        &self,
        operation: Operation,
        name: &ObjectName,
        deadline: Duration,
        running: Running<T>,
    ) -> Result<T, StoreError> {
        let grace = if self.is_remote() { GRACE } else { Duration::ZERO };
        running.wait(deadline + grace).map_err(|stopped| self.stopped(operation, name, stopped))
    }

    /// Starts `request` and hands what it yields to `done`, on a thread that may block.
    pub(super) fn run_behind<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T, StoreError>> + Send + 'static,
        done: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) {
        self.inner.tasks.detach(request, done);
    }

    /// Starts what `produce` makes, which sends portions as they come.
    pub(super) fn stream<T, F: Future<Output = ()> + Send + 'static>(
        &self,
        operation: Operation,
        name: &ObjectName,
        produce: impl FnOnce(mpsc::Sender<T>) -> F,
    ) -> Result<Running<T>, StoreError> {
        self.inner.tasks.stream(produce).map_err(|stopped| self.stopped(operation, name, stopped))
    }

    /// The next portion of a stream, until the operation's deadline; `None` at its end.
    pub(super) fn next<T>(
        &self,
        operation: Operation,
        name: &ObjectName,
        running: &Running<T>,
    ) -> Result<Option<T>, StoreError> {
        running.next(self.deadlines().of(operation)).map_err(|stopped| self.stopped(operation, name, stopped))
    }

    /// The next portion of a stream whose requests end by themselves within `deadline`; `None` at its end.
    pub(super) fn next_within<T>(
        &self,
        operation: Operation,
        name: &ObjectName,
        deadline: Duration,
        running: &Running<T>,
    ) -> Result<Option<T>, StoreError> {
        running.next(deadline + GRACE).map_err(|stopped| self.stopped(operation, name, stopped))
    }

    fn stopped(&self, operation: Operation, name: &ObjectName, stopped: Stopped) -> StoreError {
        let object = name.to_string();
        match stopped {
            Stopped::Deadline => StoreError::Deadline { operation, object, after: self.deadlines().of(operation) },
            Stopped::Lost(error) => {
                StoreError::Failed { operation, object, class: crate::base::Class::Transient, source: Box::new(error) }
            }
        }
    }
}
