//! What can be asked of a store.
//!
//! **Durable.** What [`Store::create`] and [`Upload::finish`] acknowledge survives a power cut; so does what
//! `create` finds to exist already, whoever wrote it.
//!
//! **Whole or absent.** No object is ever visible in part.
//!
//! **Unknown outcomes.** After an error other than [`Class::Denied`] and its
//! like, a write may have happened, and after [`StoreError::Deadline`] it may still happen later. Whoever
//! needs to know reads it back.
//!
//! **Again.** Over a network, what fails for a reason that passes is tried again within its deadline (`remote.rs`). A local
//! disk that fails once is not asked again.

use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{GetRange, ObjectMeta, PutPayload};

use crate::base::{Class, Classed, limits};
use crate::format::object::{Object, ObjectName};

use super::error::StoreError;
use super::listing::{Listing, Portion};
use super::meter::Operation;
use super::remote::Request;
use super::store::{Created, Listed, Store};
use super::tasks::Running;
use super::upload::Upload;

impl Store {
    /// Writes `bytes` as `name`, durably, unless an object of this name exists.
    ///
    /// Of any number of concurrent creations of one name, one is told [`Created::New`] and the others
    /// [`Created::Exists`], wherever they run, if the store honours it ([`Store::probe`]).
    ///
    /// After an error the object may exist, or may come to exist. [`Store::get`] tells: what it finds is
    /// durable, if this store or a clone of it made the attempt.
    pub fn create(&self, name: &ObjectName, bytes: Vec<u8>) -> Result<Created, StoreError> {
        let created = self.create_guarded(name, |most| self.create_payload(name, bytes.into(), most))?;
        Ok(created.unwrap_or(Created::Exists))
    }

    /// As [`Store::create`], under no lease; within `most`, if that is less than a creation may take.
    pub(super) fn create_payload(
        &self,
        name: &ObjectName,
        payload: PutPayload,
        most: Option<Duration>,
    ) -> Result<Created, StoreError> {
        let operation = Operation::Create;
        self.counted(operation, || {
            let path = object_path(operation, name)?;
            self.prepare(operation, name)?;
            let bytes = payload.content_length() as u64;
            let request = self.write_request(operation, name, path, bytes).within(most.unwrap_or(Duration::MAX));
            let deadline = request.deadline + request.allowance;
            let put = self
                .start(operation, name, async move { request.create(payload).await })
                .and_then(|putting| self.wait_within(operation, name, deadline, putting));
            let created = put.and_then(|created| {
                match (&created, self.direct()) {
                    (Ok(Created::New), _) => self.meter().moved(operation, bytes),
                    (Ok(Created::Exists), Some(direct)) => {
                        let at = name.clone();
                        self.run_blocking(operation, name, move || direct.settle(operation, &at))??;
                    }
                    (Ok(Created::Exists), None) | (Err(_), _) => {}
                }
                created
            });
            if let (Err(_), Some(direct)) = (&created, self.direct()) {
                direct.doubt(name);
            }
            created
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
                    Err(StoreError::Oversized { operation, object: object.clone(), most: bytes_max, actual: size })
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
                if let Some((bytes, next)) = direct.range_at_hand(name, &range) {
                    if let Some(next) = next {
                        // Not here: asking may have to wait for the disk, and has no deadline.
                        self.run_behind(std::future::ready(Ok(())), move |_| next.ask());
                    }
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
                    size if size < end => {
                        Err(StoreError::Truncated { operation, object: object.clone(), expected: end, actual: size })
                    }
                    _ => Ok(wanted),
                });
            match fetched {
                Ok((bytes, _)) => Ok(bytes),
                // Stores report a range behind the end in ways of their own; the size tells, and over a network has told.
                Err(error @ StoreError::Failed { .. }) if !self.is_remote() => match self.size(name) {
                    Ok(size) if size < end => {
                        Err(StoreError::Truncated { operation, object: name.to_string(), expected: end, actual: size })
                    }
                    _ => Err(error),
                },
                Err(error) => Err(error),
            }
        })
    }

    /// The bytes of `range`, or fewer where the object ends inside it, and the object's size.
    ///
    /// # Errors
    /// [`StoreError::Truncated`] when the object ends before `range` begins.
    pub fn get_range_to_end(&self, name: &ObjectName, range: Range<u64>) -> Result<(Bytes, u64), StoreError> {
        let operation = Operation::Range;
        self.counted(operation, || {
            let request = self.request(operation, name, object_path(operation, name)?);
            let (bytes, size) = self.run(operation, name, async move { request.read_to_end(range).await })??;
            self.meter().moved(operation, bytes.len() as u64);
            Ok((bytes, size))
        })
    }

    /// Begins [`Store::get_range_to_end`] and does not wait: `done` gets the answer on a thread that may block. It is
    /// dropped when the store is closed meanwhile.
    pub fn get_range_behind(
        &self,
        name: &ObjectName,
        range: Range<u64>,
        done: impl FnOnce(Result<(Bytes, u64), StoreError>) + Send + 'static,
    ) {
        let operation = Operation::Range;
        let path = match object_path(operation, name) {
            Ok(path) => path,
            Err(error) => return done(Err(error)),
        };
        let (request, meter) = (self.request(operation, name, path), Arc::clone(self.shared_meter()));
        let read = async move {
            let (deadline, object) = (request.deadline, request.object.clone());
            meter.request(operation);
            match tokio::time::timeout(deadline, request.read_to_end(range)).await {
                Ok(read) => read,
                Err(_) => Err(StoreError::Deadline { operation, object, after: deadline }),
            }
            .inspect(|(bytes, _)| meter.moved(operation, bytes.len() as u64))
            .inspect_err(|_| meter.failure(operation))
        };
        self.run_behind(read, done);
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
            self.meter().moved(operation, tail.len() as u64);
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
            let request = self.request(operation, name, path);
            self.run(operation, name, async move { request.size().await })?
        })
    }

    /// `now`, and beside it what is asked for next in all likelihood, if requests make a journey: they make one together then.
    pub fn beside<N, T: Send>(&self, now: impl FnOnce() -> N, next: impl FnOnce() -> T + Send) -> (N, Option<T>) {
        if !self.is_remote() {
            return (now(), None);
        }
        let (now, next) = at_once(now, next);
        (now, Some(next))
    }

    /// As [`Store::beside`], where `now` and `next` take so long that a thread pays in a directory, too.
    pub fn beside_long<N, T: Send>(&self, now: impl FnOnce() -> N, next: impl FnOnce() -> T + Send) -> (N, Option<T>) {
        if self.local_root().is_none() {
            return self.beside(now, next);
        }
        let (now, next) = at_once(now, next);
        (now, Some(next))
    }

    /// The objects whose names begin with `prefix`, sorted by name; with `after`, only those behind it; with
    /// `most`, no more than so many. Nothing that is still being written is among them. An unknown prefix is
    /// an empty list.
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
            self.list_persistently(prefix, above.as_ref(), after, most)
        })
    }

    /// As [`Store::list_objects`], over a network.
    fn list_persistently(
        &self,
        prefix: &str,
        above: Option<&ObjectPath>,
        after: Option<&ObjectName>,
        most: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        if !self.is_remote() {
            return self.list_objects(prefix, above, after, most);
        }
        let operation = Operation::List;
        let place = ObjectName::listed(prefix);
        // Each page has the deadline of a few requests for metadata, and each of its attempts that of one.
        let deadline = self.deadlines().metadata * limits::ATTEMPTS_PER_DEADLINE;
        let listing = Listing {
            request: Request { deadline, ..self.request(operation, &place, ObjectPath::default()) },
            above: above.cloned(),
            after: after.map(|after| object_path(operation, after)).transpose()?,
            ordered: self.lists_in_order(),
            names_max: limits::LISTING_NAMES_MAX,
        };
        let portions: Running<Portion> = self.stream(operation, &place, move |to| listing.send(to))?;
        let mut found = Vec::new();
        while let Some(portion) = self.next_within(operation, &place, deadline, &portions)? {
            found.extend(portion?.into_iter().filter_map(|meta| listed(prefix, after, meta)));
            if self.lists_in_order() && most.is_some_and(|most| found.len() >= most) {
                break;
            }
        }
        Ok(in_order(found, most))
    }

    fn list_objects(
        &self,
        prefix: &str,
        above: Option<&ObjectPath>,
        after: Option<&ObjectName>,
        most: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        let operation = Operation::List;
        let above = above.cloned();
        let place = ObjectName::listed(prefix);
        let after_path = after.map(|after| object_path(operation, after)).transpose()?;
        let objects = Arc::clone(self.objects());
        let pages: Running<Page> = self.stream(operation, &place, move |to| async move {
            let listing = match &after_path {
                Some(after) => objects.list_with_offset(above.as_ref(), after),
                None => objects.list(above.as_ref()),
            };
            send_pages(listing, to).await;
        })?;
        let mut found = Vec::new();
        while let Some(page) = self.next(operation, &place, &pages)? {
            for meta in page {
                let meta = meta.map_err(|error| StoreError::reported(operation, prefix, error))?;
                found.extend(listed(prefix, after, meta));
            }
            if self.lists_in_order() && most.is_some_and(|most| found.len() >= most) {
                break;
            }
        }
        Ok(in_order(found, most))
    }

    /// Begins to write `name` in parts, for objects too large to hold in memory. Nobody else may write this
    /// name.
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
            let request = self.request(operation, name, path);
            self.run(operation, name, async move { request.delete().await })??;
            // A key that was taken back must not come back with a power cut. What else is deleted may.
            if matches!(Object::parse(name), Some(Object::Slot(..)))
                && let Some(direct) = self.direct()
            {
                let at = name.clone();
                self.run_blocking(operation, name, move || match direct.settle(operation, &at) {
                    // Where there is no directory, there was nothing to delete.
                    Err(error) if error.class() == Class::NotFound => Ok(()),
                    settled => settled,
                })??;
            }
            Ok(())
        })
    }

    /// One GET, read to its end; `accept` sees what the store says of the object and tells how many bytes
    /// must come.
    fn fetch(
        &self,
        operation: Operation,
        name: &ObjectName,
        path: ObjectPath,
        range: Option<GetRange>,
        accept: impl Fn(&ObjectMeta) -> Result<u64, StoreError> + Send + Sync + 'static,
    ) -> Result<(Bytes, u64), StoreError> {
        let request = self.request(operation, name, path);
        self.run(operation, name, async move { request.read(range, accept).await })?
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

/// What both come to, `next` on a thread of its own.
fn at_once<N, T: Send>(now: impl FnOnce() -> N, next: impl FnOnce() -> T + Send) -> (N, T) {
    std::thread::scope(|scope| {
        let next = scope.spawn(next);
        let now = now();
        (now, next.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// What is listed for `meta`, if it is asked for.
fn listed(prefix: &str, after: Option<&ObjectName>, meta: ObjectMeta) -> Option<Listed> {
    let name = ObjectName::listed(meta.location.as_ref());
    let asked = name.as_str().starts_with(prefix) && after.is_none_or(|after| name > *after);
    asked.then_some(Listed { name, bytes: meta.size })
}

fn in_order(mut found: Vec<Listed>, most: Option<usize>) -> Vec<Listed> {
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    // A page that is asked for again may begin elsewhere than the first time.
    found.dedup_by(|a, b| a.name == b.name);
    found.truncate(most.unwrap_or(usize::MAX));
    found
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
