//! The store as everything above sees it: blocking, counted, with deadlines.
//!
//! **Durable.** What [`Store::create`] and [`Upload::finish`] acknowledge survives a power cut; so does what `create`
//! finds to exist already, whoever wrote it.
//!
//! **Whole or absent.** No object is ever visible in part.
//!
//! **Unknown outcomes.** After an error other than [`Class::Denied`](crate::base::Class::Denied) and its like, a write may
//! have happened, and after [`StoreError::Deadline`] it may still happen later. Whoever needs to know reads it back.
//!
//! Nothing is retried here: a local disk that fails once is not asked again, and remote clients retry by themselves.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{
    GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::base::limits;
use crate::format::object::ObjectName;

use super::error::StoreError;
use super::local::LocalDir;
use super::meter::{Meter, Operation};
use super::tasks::{Running, Stopped, Tasks};
use super::upload::Upload;

/// How long a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Sizes, deletions and each page of a listing.
    pub metadata: Duration,
    /// Reads, and each part of an upload.
    pub data: Duration,
    /// Writes that end durable: creations and the end of an upload.
    pub durable: Duration,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines {
            metadata: limits::METADATA_DEADLINE,
            data: limits::DATA_DEADLINE,
            durable: limits::DURABLE_DEADLINE,
        }
    }
}

impl Deadlines {
    /// The same deadline for everything.
    pub fn all(deadline: Duration) -> Deadlines {
        Deadlines { metadata: deadline, data: deadline, durable: deadline }
    }

    fn of(&self, operation: Operation) -> Duration {
        match operation {
            Operation::Size | Operation::List | Operation::Delete | Operation::Begin | Operation::Abort => {
                self.metadata
            }
            Operation::Get | Operation::Range | Operation::Tail | Operation::Part => self.data,
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
    /// The way past `object_store` for reads; absent when the store is wrapped or not local.
    direct: Option<Arc<LocalDir>>,
    root: Option<PathBuf>,
    description: String,
    /// Whether listings come sorted by name.
    ordered: bool,
    tasks: Tasks,
    meter: Meter,
}

impl Store {
    /// The store in the existing directory `root`.
    ///
    /// # Errors
    /// [`StoreError::Root`] when it is no directory or cannot be opened.
    pub fn local(root: &Path) -> Result<Store, StoreError> {
        Store::in_directory(LocalDir::open(root)?)
    }

    /// A new store in `root`, which is made for its owner alone (its parent must exist) or exists and is empty.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] when something is there, [`StoreError::Root`] when it cannot be made or opened.
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
            direct: Some(Arc::new(directory)),
            description: format!("file://{}", root.display()),
            root: Some(root),
            ordered: false,
            tasks: Tasks::new(false),
            meter: Meter::default(),
        }))
    }

    /// A store in this process's memory, for tests.
    pub fn memory() -> Store {
        Store::over(Arc::new(InMemory::new()))
    }

    /// A store over any implementation that does not block in its polls and lists in any order.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Store {
        Store::from_inner(Inner {
            description: objects.to_string(),
            objects,
            direct: None,
            root: None,
            ordered: false,
            tasks: Tasks::new(true),
            meter: Meter::default(),
        })
    }

    /// This store behind a wrapper, with counts of its own. Reads of a local store then take the long way, so that the wrapper sees them.
    pub fn wrapped(&self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Store {
        let wrapped = Store::from_inner(Inner {
            objects: wrap(Arc::clone(&self.inner.objects)),
            direct: None,
            root: self.inner.root.clone(),
            description: self.inner.description.clone(),
            ordered: self.inner.ordered,
            tasks: Tasks::new(self.inner.root.is_none()),
            meter: Meter::default(),
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

    /// Writes `bytes` as `name`, durably, unless an object of this name exists.
    ///
    /// Of any number of concurrent creations of one name, one is told [`Created::New`] and the others [`Created::Exists`],
    /// wherever they run, if the store honours it ([`Store::probe`]).
    pub fn create(&self, name: &ObjectName, bytes: Vec<u8>) -> Result<Created, StoreError> {
        self.create_payload(name, bytes.into())
    }

    pub(super) fn create_payload(&self, name: &ObjectName, payload: PutPayload) -> Result<Created, StoreError> {
        let operation = Operation::Create;
        self.counted(operation, || {
            let path = object_path(operation, name)?;
            self.prepare(operation, name)?;
            let bytes = payload.content_length() as u64;
            let objects = Arc::clone(&self.inner.objects);
            let options = PutOptions::from(PutMode::Create);
            let put = self.run(operation, name, async move { objects.put_opts(&path, payload, options).await })?;
            match put {
                Ok(_) => {
                    self.inner.meter.moved(operation, bytes);
                    Ok(Created::New)
                }
                Err(object_store::Error::AlreadyExists { .. }) => {
                    if let Some(direct) = &self.inner.direct {
                        let (direct, name) = (Arc::clone(direct), name.clone());
                        self.run_blocking(operation, &name.clone(), move || direct.settle(operation, &name))??;
                    }
                    Ok(Created::Exists)
                }
                Err(error) => Err(StoreError::reported(operation, name.as_str(), error)),
            }
        })
    }

    /// The whole object, which must not be larger than `bytes_max`.
    ///
    /// # Errors
    /// [`StoreError::Oversized`] before anything is read, if it is.
    pub fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Bytes, StoreError> {
        let operation = Operation::Get;
        self.counted_read(operation, || {
            let path = object_path(operation, name)?;
            if let Some(direct) = self.direct() {
                let at = name.clone();
                return self.run_blocking(operation, name, move || direct.whole(&at, bytes_max))?;
            }
            let object = name.to_string();
            self.fetch(operation, name, path, None, move |meta| match meta.size {
                size if size > bytes_max => {
                    Err(StoreError::Oversized { operation, object, most: bytes_max, actual: size })
                }
                size => Ok(size),
            })
            .map(|(bytes, _)| bytes)
        })
    }

    /// Exactly the bytes of `range`.
    ///
    /// # Errors
    /// [`StoreError::Truncated`] when the object ends before `range` does.
    pub fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let operation = Operation::Range;
        if range.start >= range.end {
            let why = format!("the range {}..{} is empty", range.start, range.end);
            return Err(StoreError::Name { operation, object: name.to_string(), why });
        }
        self.counted_read(operation, || {
            let path = object_path(operation, name)?;
            if let Some(direct) = self.direct() {
                if let Some(bytes) = direct.range_at_hand(name, &range) {
                    return Ok(bytes);
                }
                let at = name.clone();
                return self.run_blocking(operation, name, move || direct.range(&at, &range))?;
            }
            let object = name.to_string();
            let end = range.end;
            let wanted = range.end - range.start;
            let fetched =
                self.fetch(operation, name, path, Some(GetRange::Bounded(range)), move |meta| match meta.size {
                    size if size < end => Err(StoreError::Truncated { operation, object, expected: end, actual: size }),
                    _ => Ok(wanted),
                });
            match fetched {
                Ok((bytes, _)) => Ok(bytes),
                // Stores report a range behind the end in ways of their own; the size tells.
                Err(error @ StoreError::Failed { .. }) => match self.size(name) {
                    Ok(size) if size < end => {
                        Err(StoreError::Truncated { operation, object: name.to_string(), expected: end, actual: size })
                    }
                    _ => Err(error),
                },
                Err(error) => Err(error),
            }
        })
    }

    /// The last `bytes` bytes, or the whole object if it is shorter, and the object's size, in one request.
    pub fn tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let operation = Operation::Tail;
        self.counted(operation, || {
            let path = object_path(operation, name)?;
            let (tail, size) = if let Some(direct) = self.direct() {
                let at = name.clone();
                self.run_blocking(operation, name, move || direct.tail(&at, bytes))??
            } else {
                self.fetch(operation, name, path, Some(GetRange::Suffix(bytes)), move |meta| Ok(meta.size.min(bytes)))?
            };
            self.inner.meter.moved(operation, tail.len() as u64);
            Ok((tail, size))
        })
    }

    /// The object's size in bytes.
    pub fn size(&self, name: &ObjectName) -> Result<u64, StoreError> {
        let operation = Operation::Size;
        self.counted(operation, || {
            let path = object_path(operation, name)?;
            if let Some(direct) = self.direct() {
                let at = name.clone();
                return self.run_blocking(operation, name, move || direct.size(&at))?;
            }
            let objects = Arc::clone(&self.inner.objects);
            let meta = self.run(operation, name, async move { objects.head(&path).await })?;
            meta.map(|meta| meta.size).map_err(|error| StoreError::reported(operation, name.as_str(), error))
        })
    }

    /// The objects whose names begin with `prefix`, sorted by name; with `after`, only those behind it; with `most`, no
    /// more than so many. Nothing that is still being written is among them. An unknown prefix is an empty list.
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectName>,
        most: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let operation = Operation::List;
        self.counted(operation, || {
            // `object_store` lists below whole components only.
            let above = match prefix.rsplit_once('/') {
                Some((above, _)) => Some(object_path(operation, &ObjectName::listed(above))?),
                None => None,
            };
            if let Some(direct) = self.direct() {
                let (at, after) = (prefix.to_owned(), after.cloned());
                let place = ObjectName::listed(prefix);
                return self.run_blocking(operation, &place, move || direct.list(&at, after.as_ref(), most))?;
            }
            self.list_objects(prefix, above, after, most)
        })
    }

    fn list_objects(
        &self,
        prefix: &str,
        above: Option<ObjectPath>,
        after: Option<&ObjectName>,
        most: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let operation = Operation::List;
        let place = ObjectName::listed(prefix);
        let stopped = |stopped| self.stopped(operation, &place, stopped);
        let after_path = after.map(|after| object_path(operation, after)).transpose()?;
        let objects = Arc::clone(&self.inner.objects);
        let pages = self.inner.tasks.stream(move |to| async move {
            let listing = match &after_path {
                Some(after) => objects.list_with_offset(above.as_ref(), after),
                None => objects.list(above.as_ref()),
            };
            send_pages(listing, to).await;
        });
        let pages: Running<Page> = pages.map_err(stopped)?;
        let mut found = Vec::new();
        while let Some(page) = pages.next(self.deadlines.of(operation)).map_err(stopped)? {
            for meta in page {
                let meta = meta.map_err(|error| StoreError::reported(operation, prefix, error))?;
                let name = ObjectName::listed(meta.location.as_ref());
                if name.as_str().starts_with(prefix) && after.is_none_or(|after| name > *after) {
                    found.push(Listed { name, bytes: meta.size });
                }
            }
            if self.inner.ordered && most.is_some_and(|most| found.len() >= most) {
                break;
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        found.truncate(most.unwrap_or(usize::MAX));
        Ok(found)
    }

    /// Begins to write `name` in parts, for objects too large to hold in memory. Nobody else may write this name.
    pub fn upload(&self, name: &ObjectName) -> Result<Upload, StoreError> {
        Ok(Upload::new(self.clone(), name.clone(), object_path(Operation::Begin, name)?))
    }

    /// Deletes the object. That it did not exist is no error.
    pub fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let operation = Operation::Delete;
        self.counted(operation, || {
            let path = object_path(operation, name)?;
            if let Some(direct) = self.direct() {
                direct.forget(name);
            }
            let objects = Arc::clone(&self.inner.objects);
            match self.run(operation, name, async move { objects.delete(&path).await })? {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(StoreError::reported(operation, name.as_str(), error)),
            }
        })
    }

    /// One GET, read to its end; `accept` sees what the store says of the object and tells how many bytes must come.
    fn fetch(
        &self,
        operation: Operation,
        name: &ObjectName,
        path: ObjectPath,
        range: Option<GetRange>,
        accept: impl FnOnce(&ObjectMeta) -> Result<u64, StoreError> + Send + 'static,
    ) -> Result<(Bytes, u64), StoreError> {
        let objects = Arc::clone(&self.inner.objects);
        let object = name.to_string();
        self.run(operation, name, async move {
            let options = GetOptions { range, ..GetOptions::default() };
            let reported = |error| StoreError::reported(operation, &object, error);
            let result = objects.get_opts(&path, options).await.map_err(reported)?;
            let size = result.meta.size;
            let expected = accept(&result.meta)?;
            let bytes = collect(result, expected).await.map_err(reported)?;
            if bytes.len() as u64 != expected {
                return Err(StoreError::Truncated { operation, object, expected, actual: bytes.len() as u64 });
            }
            Ok((bytes, size))
        })?
    }

    fn direct(&self) -> Option<Arc<LocalDir>> {
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

    pub(super) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.objects
    }

    pub(super) fn meter_ref(&self) -> &Meter {
        &self.inner.meter
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

    fn counted_read(
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

    fn run_blocking<T: Send + 'static>(
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
        running.wait(self.deadlines.of(operation)).map_err(|stopped| self.stopped(operation, name, stopped))
    }

    fn stopped(&self, operation: Operation, name: &ObjectName, stopped: Stopped) -> StoreError {
        let object = name.to_string();
        match stopped {
            Stopped::Deadline => StoreError::Deadline { operation, object, after: self.deadlines.of(operation) },
            Stopped::Lost(error) => {
                StoreError::Failed { operation, object, class: crate::base::Class::Transient, source: Box::new(error) }
            }
        }
    }
}

type Page = Vec<object_store::Result<ObjectMeta>>;

/// Sends what `listing` yields, in the portions in which it comes, until nobody listens.
async fn send_pages(
    listing: futures::stream::BoxStream<'static, object_store::Result<ObjectMeta>>,
    to: mpsc::Sender<Page>,
) {
    const PAGE: usize = 1000;
    let mut pages = listing.ready_chunks(PAGE);
    while let Some(page) = pages.next().await {
        if to.send(page).is_err() {
            return;
        }
    }
}

/// The payload, but no more than one byte beyond `expected`: a store that answers endlessly fills no memory.
async fn collect(result: GetResult, expected: u64) -> object_store::Result<Bytes> {
    let mut stream = result.into_stream();
    let Some(first) = stream.next().await.transpose()? else { return Ok(Bytes::new()) };
    if first.len() as u64 == expected {
        return Ok(first);
    }
    let mut whole = BytesMut::from(&*first);
    while whole.len() as u64 <= expected {
        match stream.next().await.transpose()? {
            Some(more) => whole.extend_from_slice(&more),
            None => break,
        }
    }
    Ok(whole.freeze())
}

fn object_path(operation: Operation, name: &ObjectName) -> Result<ObjectPath, StoreError> {
    let refused = |why: String| StoreError::Name { operation, object: name.to_string(), why };
    let path = ObjectPath::parse(name.as_str()).map_err(|error| refused(error.to_string()))?;
    // `parse` drops a leading and a trailing slash; two names for one object would defeat every comparison.
    if path.as_ref() == name.as_str() && !path.is_root() {
        Ok(path)
    } else {
        Err(refused("it is empty or has a superfluous slash".to_owned()))
    }
}
