//! Single-writer mode: how a store that does not honour "create only if absent" is written to all the same, by one
//! process at a time, because somebody has said so.
//!
//! **A lease is an object of one's own.** Nothing that such a store promises tells two writers of one name apart, so every
//! writer has names of its own: `lease/<holder>-<beat>`. Who wants to write makes its lease first and looks for others'
//! then. Of two that come together at least one sees the other, and who sees another withdraws. A holder makes the
//! next beat every few seconds and deletes the one before.
//!
//! **No clock is compared.** A lease is abandoned when its beat has not changed for as long as *we* have watched it, by our
//! own clock. Who takes over deletes it, and a holder looks for its own lease before each entry that it writes.
//!
//! **What that is not.** A holder that is stopped (a suspended machine) after it looked and before its write arrives may write
//! after another has taken over, and overwrite: no store without conditional writes can keep it from that. A store
//! whose listings lag behind may show two holders to each other too late. Both are why the mode is never entered unasked.
//!
//! **Who came once, stays.** `lease/single-writer` is made with the first lease and removed by nobody: it says to every
//! other host that this repository is written to by leases, also where its own probe passes by chance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::{Class, Classed, Env, limits};
use crate::format::ids::Nonce;
use crate::format::lease;
use crate::format::object::{LEASES_PREFIX, Object, ObjectName};

use super::error::StoreError;
use super::meter::Operation;
use super::store::{Deadlines, Store};

/// The times of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Between two beats.
    pub beat: Duration,
    /// After its last beat that was acknowledged, a holder writes nothing more.
    pub valid: Duration,
    /// A beat that has not changed for so long is abandoned.
    pub stale: Duration,
    /// How long to wait for another's end.
    pub wait: Duration,
    /// Between two looks at others' leases.
    pub look: Duration,
}

impl Default for LeaseTimes {
    fn default() -> LeaseTimes {
        LeaseTimes {
            beat: limits::LEASE_BEAT,
            valid: limits::LEASE_VALID,
            stale: limits::LEASE_STALE,
            wait: limits::LEASE_WAIT,
            look: limits::LEASE_LOOK,
        }
    }
}

/// A lease that this process holds until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    holder: Nonce,
    times: LeaseTimes,
    /// The same objects, with requests of its own: the holder of the lease may be the last that knows its store.
    store: Store,
    beaten: Arc<Mutex<Beaten>>,
    stop: Option<Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Held while an entry is looked for and written.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Beaten {
    number: u64,
    at: Instant,
}

fn beat(store: &Store, holder: Nonce, number: u64) -> Result<(), StoreError> {
    store.create(&Object::Lease(holder, number).name(), lease::text(holder, number)).map(drop)
}

/// The newest beat of each lease.
type Newest = BTreeMap<Nonce, u64>;
/// All names of leases.
type Names = Vec<(Nonce, ObjectName)>;

/// The leases that are listed, each with its newest beat, and all their names.
fn listed(store: &Store) -> Result<(Newest, Names), StoreError> {
    let (mut newest, mut names) = (Newest::new(), Names::new());
    for object in store.list(LEASES_PREFIX, None, None)? {
        if let Some(Object::Lease(holder, number)) = Object::parse(&object.name) {
            let known = newest.entry(holder).or_insert(number);
            *known = number.max(*known);
            names.push((holder, object.name));
        }
    }
    Ok((newest, names))
}

impl Lease {
    /// Waits for others, and takes the lease.
    pub(super) fn acquire(store: &Store, env: &Env, times: LeaseTimes) -> Result<Lease, StoreError> {
        let store = store.apart().with_deadlines(Deadlines::all(times.valid / 2));
        let (holder, began) = (Nonce(env.random()), Instant::now());
        let mut watched: BTreeMap<Nonce, (u64, Instant)> = BTreeMap::new();
        let mut number = 0;
        loop {
            let at = Instant::now();
            beat(&store, holder, number)?;
            let (mut others, names) =
                listed(&store).inspect_err(|_| drop(store.delete(&Object::Lease(holder, number).name())))?;
            others.remove(&holder);
            if others.is_empty() {
                return Ok(Lease::held(store, holder, times, Beaten { number, at }));
            }
            // Two that wait for one another would wait for ever.
            store.delete(&Object::Lease(holder, number).name())?;
            number += 1;
            watched.retain(|other, _| others.contains_key(other));
            for (other, beat) in others {
                let seen = watched.entry(other).or_insert((beat, at));
                if seen.0 != beat {
                    *seen = (beat, at);
                }
                if seen.1.elapsed() >= times.stale {
                    tracing::warn!(lease = %other, "an abandoned lease is taken away: its beat has stopped");
                    for (_, name) in names.iter().filter(|(holder, _)| *holder == other) {
                        store.delete(name)?;
                    }
                }
            }
            if began.elapsed() >= times.wait {
                return Err(StoreError::Leased { store: store.describe(), waited: began.elapsed() });
            }
            // Chance, so that two that withdrew do not come together again.
            let chance = u32::from(u16::from_le_bytes(env.random()));
            std::thread::sleep(times.look / 2 + times.look.saturating_mul(chance) / u32::from(u16::MAX));
        }
    }

    fn held(store: Store, holder: Nonce, times: LeaseTimes, first: Beaten) -> Lease {
        let beaten = Arc::new(Mutex::new(first));
        let (stop, stopped) = mpsc::channel::<()>();
        let (own, shared) = (store.clone(), Arc::clone(&beaten));
        let spawned = std::thread::Builder::new().name("amberfs-lease".to_owned()).spawn(move || {
            while stopped.recv_timeout(times.beat) == Err(RecvTimeoutError::Timeout) {
                let (at, number) = (Instant::now(), shared.lock().number + 1);
                match beat(&own, holder, number) {
                    Ok(()) => {
                        *shared.lock() = Beaten { number, at };
                        // What stays is one name more for others to see, and no harm.
                        drop(own.delete(&Object::Lease(holder, number - 1).name()));
                    }
                    Err(error) => tracing::warn!(%error, "the lease of single-writer mode could not be prolonged"),
                }
            }
        });
        let thread = spawned.inspect_err(|error| tracing::warn!(%error, "the lease cannot be prolonged")).ok();
        Lease { holder, times, store, beaten, stop: Some(stop), thread, writing: Mutex::new(()) }
    }

    /// Runs `write` if nothing stands under `name` and the lease is ours; `None` when something does.
    pub(super) fn guarded<T>(
        &self,
        name: &ObjectName,
        write: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let _one_at_a_time = self.writing.lock();
        let lost = || StoreError::LeaseLost { operation: Operation::Create, object: name.to_string() };
        match self.store.size(name) {
            Ok(_) => return Ok(None),
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => return Err(error),
        }
        let (others, _) = listed(&self.store)?;
        if !others.contains_key(&self.holder) || self.beaten.lock().at.elapsed() >= self.times.valid {
            return Err(lost());
        }
        write().map(Some)
    }
}

impl Drop for Lease {
    /// Gives the lease back, so that nobody has to wait until it is abandoned.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        for (holder, name) in listed(&self.store).map(|(_, names)| names).unwrap_or_default() {
            if holder == self.holder
                && let Err(error) = self.store.delete(&name)
            {
                tracing::debug!(%error, "a lease could not be given back; others wait until it is abandoned");
            }
        }
    }
}

/// Whether a store may be, and is, written to in single-writer mode.
#[derive(Debug, Default)]
pub(super) struct SingleWriter {
    allowed: Mutex<Option<LeaseTimes>>,
    held: Mutex<Option<Arc<Lease>>>,
}

impl Store {
    /// Allows single-writer mode, should the store not honour [`Store::create`]. Whoever allows it sees to it that all
    /// others do: a writer that does not look for leases is kept out by nothing.
    pub fn allow_single_writer(&self, times: LeaseTimes) {
        *self.single_writer().allowed.lock() = Some(times);
    }

    /// The lease, while this process holds it.
    pub(super) fn lease(&self) -> Option<Arc<Lease>> {
        self.single_writer().held.lock().clone()
    }

    /// Whether somebody has written here in single-writer mode, so that all must.
    pub(super) fn wants_single_writer(&self) -> Result<bool, StoreError> {
        let notice = Object::SingleWriter.name();
        Ok(self.list(LEASES_PREFIX, None, None)?.iter().any(|object| object.name == notice))
    }

    /// Takes the lease if that is allowed; says whether it is held now.
    pub(super) fn take_lease(&self, env: &Env) -> Result<bool, StoreError> {
        let Some(times) = *self.single_writer().allowed.lock() else { return Ok(false) };
        let mut held = self.single_writer().held.lock();
        if held.is_none() {
            tracing::warn!(
                store = %self.describe(),
                "SINGLE-WRITER MODE: this store does not honour conditional creation. A lease keeps other processes out \
                 as far as it can; a machine that is suspended while it writes can still overwrite another's commit. \
                 Move the repository to a store that keeps its promises (amberfs repo check)"
            );
            let lease = Lease::acquire(self, env, times)?;
            // Whether it was there before, nobody needs to know.
            self.create_payload(&Object::SingleWriter.name(), lease::notice().into())?;
            *held = Some(Arc::new(lease));
        }
        Ok(true)
    }

    /// Runs the creation of `name` under the lease, if there is one and the name could be another's, too.
    pub(super) fn create_guarded<T>(
        &self,
        name: &ObjectName,
        write: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let shared = matches!(Object::parse(name), Some(Object::Marker | Object::Entry(..) | Object::Checkpoint(..)));
        match self.lease().filter(|_| shared) {
            Some(lease) => lease.guarded(name, write),
            None => write().map(Some),
        }
    }
}
