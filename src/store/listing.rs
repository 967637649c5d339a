//! Listings over a network, page by page.
//!
//! **No page is lost, and none is the last chance.** Where a store lists in order, what breaks off goes on behind the last name,
//! and whatever has come gives the next page attempts and a deadline of its own. Where it does not, a listing that breaks off
//! is begun anew, [`limits::LISTING_RESTARTS_MAX`] times at most, and nothing of a broken one counts. Whoever waits for the whole
//! hears of each page and of each new beginning by a portion without names, so that however long it takes, it is no silence.
//!
//! **Bounded.** A server that answers with pages for ever fills no memory: beyond [`limits::LISTING_NAMES_MAX`] names it is
//! an error. Where pages begin and end is the client's matter; how many there were is told by the number of names.

use std::sync::mpsc::Sender;

use futures::StreamExt;
use object_store::ObjectMeta;
use object_store::path::Path as ObjectPath;

use crate::base::limits;

use super::error::StoreError;
use super::remote::Request;

/// What comes of a listing: portions, and at last an error if there was one. One without names says that the listing goes on.
pub(super) type Portion = Result<Vec<ObjectMeta>, StoreError>;

/// A listing that is yet to be made.
#[derive(Debug)]
pub(super) struct Listing {
    /// Its object is the prefix as the caller knows it; its deadline is a page's.
    pub(super) request: Request,
    /// The whole components of the prefix.
    pub(super) above: Option<ObjectPath>,
    /// Only names behind this one.
    pub(super) after: Option<ObjectPath>,
    /// Whether the store lists in order.
    pub(super) ordered: bool,
    /// More names are too many.
    pub(super) names_max: usize,
}

impl Listing {
    /// Sends what there is, until nobody listens.
    pub(super) async fn send(self, to: Sender<Portion>) {
        if let Err(error) = self.try_send(&to).await {
            // Nobody may listen any more.
            drop(to.send(Err(error)));
        }
    }

    async fn try_send(&self, to: &Sender<Portion>) -> Result<(), StoreError> {
        let request = &self.request;
        let Some(remote) = request.remote.clone() else { return Ok(()) };
        let mut attempts = remote.attempts_of(request);
        let (mut last, mut whole) = (self.after.clone(), Vec::new());
        let (mut seen, mut restarts) = (0, 0);
        loop {
            let listing = match &last {
                Some(last) => request.objects.list_with_offset(self.above.as_ref(), last),
                None => request.objects.list(self.above.as_ref()),
            };
            let mut portions = listing.ready_chunks(limits::LISTING_PAGE_NAMES);
            let error = loop {
                let next = async {
                    let portion = request.patiently(Some(attempts.patience()), portions.next()).await?;
                    match portion {
                        // A page that fails is no answer: it says nothing of whether the store is up.
                        Some(portion) if matches!(portion.first(), Some(Err(_))) => {
                            let error = portion.into_iter().find_map(Result::err);
                            error.map_or(Ok(None), |error| Err(request.reported(error)))
                        }
                        portion => Ok(portion),
                    }
                };
                let portion = match attempts.within(&request.object, next).await {
                    Err(error) => break error,
                    Ok(None) => {
                        for _ in 1..usize::div_ceil(seen, limits::LISTING_PAGE_NAMES) {
                            request.meter.request(request.operation);
                        }
                        // Nobody may listen any more.
                        drop(to.send(Ok(whole)));
                        return Ok(());
                    }
                    Ok(Some(portion)) => portion,
                };
                let mut names = Vec::with_capacity(portion.len());
                let mut failed = None;
                for meta in portion {
                    match meta {
                        Ok(meta) => names.push(meta),
                        Err(error) => {
                            failed = Some(request.reported(error));
                            break;
                        }
                    }
                }
                seen += names.len();
                if seen > self.names_max {
                    let (operation, object, names) = (request.operation, request.object.clone(), self.names_max);
                    return Err(StoreError::Endless { operation, object, names });
                }
                if !names.is_empty() {
                    // Whoever gets on has the time of a page again.
                    attempts = remote.attempts_of(request);
                }
                if self.ordered {
                    // A page that came a second time leads nowhere back.
                    last = last.max(names.last().map(|meta| meta.location.clone()));
                } else {
                    whole.append(&mut names);
                }
                if to.send(Ok(names)).is_err() {
                    return Ok(());
                }
                if let Some(error) = failed {
                    break error;
                }
            };
            if !self.ordered {
                restarts += 1;
                if restarts > limits::LISTING_RESTARTS_MAX {
                    return Err(error);
                }
                whole.clear();
                seen = 0;
                if to.send(Ok(Vec::new())).is_err() {
                    return Ok(());
                }
            }
            attempts.again(&request.object, error).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt};

    use super::*;
    use crate::base::{Class, Classed, Env, Instant};
    use crate::store::Store;
    use crate::store::fault::{Fault, Faults, Rule};
    use crate::store::meter::Operation;

    fn listing(store: &Store, names_max: usize) -> Listing {
        let request = Request {
            objects: Arc::clone(store.objects()),
            meter: Arc::clone(store.shared_meter()),
            remote: store.shared_remote(),
            operation: Operation::List,
            object: "x/".to_owned(),
            path: ObjectPath::default(),
            deadline: Duration::from_secs(3),
            allowance: Duration::ZERO,
        };
        Listing { request, above: Some("x".into()), after: None, ordered: store.lists_in_order(), names_max }
    }

    fn names(listing: Listing) -> Result<Vec<String>, StoreError> {
        let (to, from) = channel();
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(listing.send(to));
        let portions = from.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(portions.into_iter().flatten().map(|meta| meta.location.to_string()).collect())
    }

    fn objects(count: usize) -> Arc<InMemory> {
        let objects = Arc::new(InMemory::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for n in 0..count {
                objects.put(&ObjectPath::from(format!("x/{n:05}")), "".into()).await.unwrap();
            }
        });
        objects
    }

    #[test]
    fn a_listing_that_breaks_off_goes_on_behind_the_last_name() {
        let objects = objects(2500);
        let expected: Vec<String> = (0..2500).map(|n| format!("x/{n:05}")).collect();
        for ordered in [true, false] {
            let env = Env::seeded(1, Instant::from_nanos(0));
            let underneath = Store::over_for_tests(Arc::clone(&objects) as Arc<dyn ObjectStore>, ordered, env);
            let faults = Faults::new();
            let store = faults.around(&underneath);
            // Each time the half of what is left comes, and then an error.
            for nth in 1..=3 {
                faults.plan(Rule::new(Fault::Half).on(Operation::List).nth(nth));
            }
            assert_eq!(names(listing(&store, 10_000)).unwrap(), expected, "{ordered}");
            assert_eq!(faults.hits(), 3, "{ordered}");
            let counts = store.meter().snapshot().of(Operation::List);
            assert_eq!((counts.retries, counts.requests), (3, 3 + 2), "pages count, besides the request itself");
        }
    }

    #[test]
    fn an_endless_listing_is_an_error() {
        let objects = objects(2500);
        let env = Env::seeded(1, Instant::from_nanos(0));
        let store = Store::over_for_tests(objects as Arc<dyn ObjectStore>, true, env);
        let error = names(listing(&store, 2000)).unwrap_err();
        assert_eq!(error.class(), Class::Invalid);
        assert!(error.to_string().contains("more than 2000 names"), "{error}");
    }
}
