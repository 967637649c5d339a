//! Single-writer mode: how a store that does not honour "create only if absent" is written to all the same, by one
//! process at a time, because somebody has said so.
//!
//! **A lease is an object of one's own.** Nothing that such a store promises tells two writers of one name apart, so every
//! writer has names of its own: `lease/<holder>-<beat>`. Who sees no lease makes beat 0, and looks again then. Of two that come
//! together at least one sees the other, and who sees another withdraws. Who has seen nobody makes beat 1, and holds the lease: beat 0 is
//! a wish, any later one *established*. A holder makes the next beat every few seconds and deletes the one before.
//!
//! **No clock is compared.** A lease is abandoned when its beat has not changed for as long as *we* have watched it, by our
//! own clock, which goes on while a machine is suspended. Who takes over deletes it.
//!
//! **What was taken away does not come back.** A holder looks before and after each beat, and before each entry that it writes: if its
//! last beat is not listed, or another's established one is, the lease is lost for good. It deletes its names, makes no beat
//! again and writes nothing more. So a holder that was stopped and goes on finds out by the name that its successor has deleted. What
//! it writes, repetitions included, ends within the time that the lease still had when it looked.
//!
//! **What that is not.** A holder that is stopped (a suspended machine) after it looked and before its write arrives may write
//! after another has taken over, and overwrite: no store without conditional writes can keep it from that. A store
//! whose listings lag behind may show two holders to each other too late. Both are why the mode is never entered unasked.
//!
//! **Who came once, stays.** `lease/single-writer` is made with the first lease and removed by nobody: it says to every
//! other host that this repository is written to by leases, also where its own probe passes by chance.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::sys::since_boot;
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

/// The last beat that was acknowledged.
#[derive(Debug)]
struct Beaten {
    number: u64,
    /// [`since_boot`], before it was made.
    at: Duration,
    /// It was taken away, and is never taken up again.
    lost: bool,
}

fn beat(store: &Store, holder: Nonce, number: u64) -> Result<(), StoreError> {
    store.create(&Object::Lease(holder, number).name(), lease::text(holder, number)).map(drop)
}

/// The leases that are listed.
struct Leases(Vec<(Nonce, u64, ObjectName)>);

impl Leases {
    fn of(store: &Store) -> Result<Leases, StoreError> {
        let mut found = Vec::new();
        for object in store.list(LEASES_PREFIX, None, None)? {
            if let Some(Object::Lease(holder, number)) = Object::parse(&object.name) {
                found.push((holder, number, object.name));
            }
        }
        Ok(Leases(found))
    }

    /// The newest beat of each holder but `own`.
    fn others(&self, own: Option<Nonce>) -> BTreeMap<Nonce, u64> {
        let mut newest = BTreeMap::new();
        for (holder, number, _) in self.0.iter().filter(|(holder, ..)| Some(*holder) != own) {
            let known = newest.entry(*holder).or_insert(*number);
            *known = (*number).max(*known);
        }
        newest
    }

    /// Whether `holder` has one of these beats, and nobody else has more than a wish.
    fn belong_to(&self, holder: Nonce, beats: RangeInclusive<u64>) -> bool {
        let (mut own, mut other) = (false, false);
        for (of, number, _) in &self.0 {
            own |= *of == holder && beats.contains(number);
            other |= *of != holder && *number > 0;
        }
        own && !other
    }

    fn names(&self, holder: Nonce) -> impl Iterator<Item = &ObjectName> {
        self.0.iter().filter(move |(of, ..)| *of == holder).map(|(.., name)| name)
    }
}

impl Lease {
    /// Waits for others, and takes the lease.
    pub(super) fn acquire(store: &Store, env: &Env, times: LeaseTimes) -> Result<Lease, StoreError> {
        let store = store.apart().with_deadlines(Deadlines::all(times.valid / 2));
        let began = since_boot();
        let mut watched: BTreeMap<Nonce, (u64, Duration)> = BTreeMap::new();
        loop {
            let looked = since_boot();
            let leases = Leases::of(&store)?;
            let others = leases.others(None);
            if others.is_empty()
                && let Some(lease) = Lease::try_acquire(&store, Nonce(env.random()), times)?
            {
                return Ok(lease);
            }
            watched.retain(|other, _| others.contains_key(other));
            for (other, beat) in others {
                // Counted from when the first look had ended to when this one began: that we were stopped in between
                // says nothing of the other.
                let seen = watched.entry(other).or_insert_with(|| (beat, since_boot()));
                if seen.0 != beat {
                    *seen = (beat, since_boot());
                }
                if looked.saturating_sub(seen.1) >= times.stale {
                    tracing::warn!(lease = %other, "an abandoned lease is taken away: its beat has stopped");
                    for name in leases.names(other) {
                        store.delete(name)?;
                    }
                }
            }
            let waited = since_boot().saturating_sub(began);
            if waited >= times.wait {
                return Err(StoreError::Leased { store: store.describe(), waited });
            }
            // Chance, so that two that withdrew do not come together again.
            let chance = u32::from(u16::from_le_bytes(env.random()));
            std::thread::sleep(times.look / 2 + times.look.saturating_mul(chance) / u32::from(u16::MAX));
        }
    }

    /// Takes the lease if nobody else wants it.
    fn try_acquire(store: &Store, holder: Nonce, times: LeaseTimes) -> Result<Option<Lease>, StoreError> {
        let at = since_boot();
        let withdraw = || store.delete(&Object::Lease(holder, 0).name());
        let first = || -> Result<bool, StoreError> {
            beat(store, holder, 0)?;
            if !Leases::of(store)?.others(Some(holder)).is_empty() {
                // Two that wait for one another would wait for ever.
                withdraw()?;
                return Ok(false);
            }
            beat(store, holder, 1)?;
            Ok(true)
        };
        match first() {
            Ok(true) => {
                // What stays is one name more for others to see, and no harm.
                drop(withdraw());
                Ok(Some(Lease::held(store.clone(), holder, times, Beaten { number: 1, at, lost: false })))
            }
            Ok(false) => Ok(None),
            Err(error) => {
                drop(withdraw());
                drop(store.delete(&Object::Lease(holder, 1).name()));
                Err(error)
            }
        }
    }

    fn held(store: Store, holder: Nonce, times: LeaseTimes, first: Beaten) -> Lease {
        let beaten = Arc::new(Mutex::new(first));
        let (stop, stopped) = mpsc::channel::<()>();
        let (own, shared) = (store.clone(), Arc::clone(&beaten));
        let spawned = std::thread::Builder::new().name("amberfs-lease".to_owned()).spawn(move || {
            while stopped.recv_timeout(times.beat) == Err(RecvTimeoutError::Timeout) {
                match prolong(&own, holder, &shared) {
                    Ok(true) => {}
                    Ok(false) => return give_up(&own, holder, &shared),
                    Err(error) => tracing::warn!(%error, "the lease of single-writer mode could not be prolonged"),
                }
            }
        });
        let thread = spawned.inspect_err(|error| tracing::warn!(%error, "the lease cannot be prolonged")).ok();
        Lease { holder, times, store, beaten, stop: Some(stop), thread, writing: Mutex::new(()) }
    }

    /// Runs `write` if nothing stands under `name` and the lease is ours; `None` when something does. It is told how long it
    /// may take: as long as the lease is sure to be ours.
    pub(super) fn guarded<T>(
        &self,
        name: &ObjectName,
        write: impl FnOnce(Duration) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let _one_at_a_time = self.writing.lock();
        let lost = || StoreError::LeaseLost { operation: Operation::Create, object: name.to_string() };
        if self.beaten.lock().lost {
            return Err(lost());
        }
        match self.store.size(name) {
            Ok(_) => return Ok(None),
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => return Err(error),
        }
        let before = self.beaten.lock().number;
        let leases = Leases::of(&self.store)?;
        let mut beaten = self.beaten.lock();
        // A beat may have come meanwhile, and the one before it have been deleted.
        if !leases.belong_to(self.holder, before..=beaten.number) {
            beaten.lost = true;
        }
        let left = self.times.valid.saturating_sub(since_boot().saturating_sub(beaten.at));
        if beaten.lost || left.is_zero() {
            return Err(lost());
        }
        drop(beaten);
        write(left).map(Some)
    }
}

/// Makes the next beat; `false` when the lease is not ours any more.
fn prolong(store: &Store, holder: Nonce, beaten: &Mutex<Beaten>) -> Result<bool, StoreError> {
    let at = since_boot();
    let last = match &*beaten.lock() {
        Beaten { lost: true, .. } => return Ok(false),
        beaten => beaten.number,
    };
    let is_ours = || Leases::of(store).map(|leases| leases.belong_to(holder, last..=last));
    if !is_ours()? {
        return Ok(false);
    }
    beat(store, holder, last + 1)?;
    // We may have been stopped before it arrived: then somebody has deleted the last one.
    if !is_ours()? {
        return Ok(false);
    }
    {
        let mut beaten = beaten.lock();
        if beaten.lost {
            return Ok(false);
        }
        (beaten.number, beaten.at) = (last + 1, at);
    }
    // What stays is one name more for others to see, and no harm.
    drop(store.delete(&Object::Lease(holder, last).name()));
    Ok(true)
}

/// Marks the lease as lost, and deletes what is left of it.
fn give_up(store: &Store, holder: Nonce, beaten: &Mutex<Beaten>) {
    beaten.lock().lost = true;
    tracing::error!(lease = %holder, "the lease of single-writer mode was taken away: this process writes nothing more");
    delete_all(store, holder);
}

/// Deletes all names of `holder`, so that nobody has to wait until they are abandoned.
fn delete_all(store: &Store, holder: Nonce) {
    let deleted = Leases::of(store).and_then(|leases| leases.names(holder).try_for_each(|name| store.delete(name)));
    if let Err(error) = deleted {
        tracing::debug!(%error, "a lease could not be given back; others wait until it is abandoned");
    }
}

impl Drop for Lease {
    /// Gives the lease back, so that nobody has to wait until it is abandoned.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        delete_all(&self.store, self.holder);
    }
}

/// How a lease is taken, and how a person is warned.
type Allowed = (LeaseTimes, fn(&str));

/// Whether a store may be, and is, written to in single-writer mode.
#[derive(Debug, Default)]
pub(super) struct SingleWriter {
    allowed: Mutex<Option<Allowed>>,
    held: Mutex<Option<Arc<Lease>>>,
    seen: Mutex<Seen>,
}

/// What is known of whether a repository is written to in single-writer mode.
#[derive(Debug, Default)]
struct Seen {
    answer: Option<bool>,
    /// [`since_boot`], when it was last asked for.
    asked: Option<Duration>,
}

impl Store {
    /// Allows single-writer mode, should the store not honour [`Store::create`]. Whoever allows it sees to it that all
    /// others do: a writer that does not look for leases is kept out by nothing. `warn` says to a person what the mode means,
    /// whatever else is to be kept quiet.
    pub fn allow_single_writer(&self, times: LeaseTimes, warn: fn(&str)) {
        *self.single_writer().allowed.lock() = Some((times, warn));
    }

    /// The lease, while this process holds it.
    pub(super) fn lease(&self) -> Option<Arc<Lease>> {
        self.single_writer().held.lock().clone()
    }

    /// Whether somebody has written here in single-writer mode, so that all must.
    ///
    /// # Errors
    /// When that cannot be listed.
    pub fn wants_single_writer(&self) -> Result<bool, StoreError> {
        let notice = Object::SingleWriter.name();
        let noticed = self.list(LEASES_PREFIX, None, None)?.iter().any(|object| object.name == notice);
        self.single_writer().seen.lock().answer = Some(noticed);
        Ok(noticed)
    }

    /// What [`Store::wants_single_writer`] last said; does not wait for the store, and has it asked again now and then.
    pub fn is_single_writer(&self) -> Option<bool> {
        let mut seen = self.single_writer().seen.lock();
        let now = since_boot();
        if seen.asked.is_none_or(|asked| now.saturating_sub(asked) >= limits::SINGLE_WRITER_LOOK) {
            seen.asked = Some(now);
            let store = self.clone();
            let look = move || {
                if let Err(error) = store.wants_single_writer() {
                    tracing::debug!(%error, "whether this repository is in single-writer mode is not known");
                }
            };
            // Without a thread it is not known.
            drop(std::thread::Builder::new().name("amberfs-look".to_owned()).spawn(look));
        }
        seen.answer
    }

    /// Takes the lease if that is allowed; says whether it is held now.
    pub(super) fn take_lease(&self, env: &Env) -> Result<bool, StoreError> {
        let Some((times, warn)) = *self.single_writer().allowed.lock() else { return Ok(false) };
        let mut held = self.single_writer().held.lock();
        if held.is_none() {
            warn(&format!(
                "SINGLE-WRITER MODE: {} does not honour conditional creation. A lease keeps other processes out as far as \
                 it can; a machine that is suspended while it writes can still overwrite another's commit. Move the \
                 repository to a store that keeps its promises (amberfs repo check)",
                self.describe()
            ));
            let lease = Lease::acquire(self, env, times)?;
            // Whether it was there before, nobody needs to know.
            self.create_payload(&Object::SingleWriter.name(), lease::notice().into(), None)?;
            *held = Some(Arc::new(lease));
            self.single_writer().seen.lock().answer = Some(true);
        }
        Ok(true)
    }

    /// Runs the creation of `name` under the lease, if there is one and the name could be another's, too; `write` is told how long
    /// it may take then.
    pub(super) fn create_guarded<T>(
        &self,
        name: &ObjectName,
        write: impl FnOnce(Option<Duration>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let shared = matches!(
            Object::parse(name),
            Some(Object::Marker | Object::Entry(..) | Object::Checkpoint(..) | Object::Slot(..) | Object::Removal(..))
        );
        match self.lease().filter(|_| shared) {
            Some(lease) => lease.guarded(name, |left| write(Some(left))),
            None => write(None).map(Some),
        }
    }
}
