//! Single-writer mode on a store that overwrites where it should refuse.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use object_store::memory::InMemory;

use super::*;
use crate::format::LogNumber;
use crate::format::ids::{Epoch, Nonce, SlotId};
use crate::format::object::{LEASES_PREFIX, LogId, Object};
use crate::store::fault::{Fault, Faults, Rule};
use crate::store::{LeaseTimes, Listed};

const TIMES: LeaseTimes = LeaseTimes {
    beat: Duration::from_millis(50),
    valid: Duration::from_secs(10),
    stale: Duration::from_millis(1500),
    wait: Duration::from_millis(600),
    look: Duration::from_millis(20),
};

fn quietly(_: &str) {}

/// Another process's view of objects in a store that ignores the condition.
fn deaf(objects: &Arc<InMemory>) -> Store {
    deaf_and_faulty(objects).0
}

fn deaf_and_faulty(objects: &Arc<InMemory>) -> (Store, Faults) {
    let faults = Faults::new();
    let store = faults.around(&Store::over(Arc::clone(objects) as Arc<dyn object_store::ObjectStore>));
    faults.ignore_create(true);
    (store, faults)
}

/// Waits for what another thread brings about.
fn until(mut it_is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !it_is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "it never comes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn holders(store: &Store) -> BTreeSet<Nonce> {
    let listed = store.list(LEASES_PREFIX, None, None).unwrap();
    let holder = |object: &Listed| match Object::parse(&object.name) {
        Some(Object::Lease(holder, _)) => Some(holder),
        _ => None,
    };
    listed.iter().filter_map(holder).collect()
}

fn env(seed: u64) -> Env {
    Env::seeded(seed, Instant::from_nanos(0))
}

/// How many have a lease; between two beats of one there are both.
fn leases(store: &Store) -> usize {
    let listed = store.list(LEASES_PREFIX, None, None).unwrap();
    let holder = |object: &Listed| match Object::parse(&object.name) {
        Some(Object::Lease(holder, _)) => Some(holder),
        _ => None,
    };
    listed.iter().filter_map(holder).collect::<BTreeSet<_>>().len()
}

fn entry(number: u64) -> ObjectName {
    Object::Entry(LogId::Repo, LogNumber(number)).name()
}

#[test]
fn a_store_that_overwrites_is_written_to_by_one_who_was_told_to() {
    let objects = Arc::new(InMemory::new());
    let store = deaf(&objects);
    assert_eq!(store.create_support(&env(1)).unwrap(), CreateSupport::Ignored, "never unasked");
    assert_eq!(leases(&store), 0);
    store.allow_single_writer(TIMES, quietly);
    assert_eq!(store.create_support(&env(2)).unwrap(), CreateSupport::Leased);
    assert!(store.wants_single_writer().unwrap());
    // What the store does not do is done for it.
    assert_eq!(store.create(&entry(1), b"first".to_vec()).unwrap(), Created::New);
    assert_eq!(store.create(&entry(1), b"second".to_vec()).unwrap(), Created::Exists);
    assert_eq!(store.get(&entry(1), 99).unwrap(), "first");
    let slot = Object::Slot(SlotId([1; 16]), Epoch(1)).name();
    assert_eq!(store.create(&slot, b"first".to_vec()).unwrap(), Created::New);
    assert_eq!(store.create(&slot, b"second".to_vec()).unwrap(), Created::Exists);

    let other = deaf(&objects);
    other.allow_single_writer(TIMES, quietly);
    let refused = other.create_support(&env(3)).unwrap_err();
    assert_eq!(refused.class(), Class::Conflict, "{refused}");
    assert_eq!(leases(&store), 1, "who is refused leaves nothing");
    drop(store);
    assert_eq!(other.create_support(&env(4)).unwrap(), CreateSupport::Leased, "a lease is given back");
    drop(other);
    assert_eq!(leases(&deaf(&objects)), 0);
}

#[test]
fn a_beat_that_stopped_is_taken_away_and_one_that_goes_on_is_not() {
    let objects = Arc::new(InMemory::new());
    let store = deaf(&objects);
    let gone = Object::Lease(Nonce([7; 16]), 3).name();
    store.create(&gone, b"killed".to_vec()).unwrap();
    store.allow_single_writer(LeaseTimes { wait: Duration::from_secs(20), ..TIMES }, quietly);
    let began = std::time::Instant::now();
    assert_eq!(store.create_support(&env(1)).unwrap(), CreateSupport::Leased);
    assert!(began.elapsed() >= TIMES.stale, "it was watched first");
    // Beats go on while it is held, for longer than abandoned ones are watched.
    let other = deaf(&objects);
    other.allow_single_writer(LeaseTimes { wait: 2 * TIMES.stale, ..TIMES }, quietly);
    assert_eq!(other.create_support(&env(2)).unwrap_err().class(), Class::Conflict);
    assert_eq!(store.create(&entry(1), b"mine".to_vec()).unwrap(), Created::New);
}

#[test]
fn who_has_lost_the_lease_writes_nothing() {
    let objects = Arc::new(InMemory::new());
    let store = deaf(&objects);
    // No beat comes between what follows.
    store.allow_single_writer(LeaseTimes { beat: Duration::from_secs(60), ..TIMES }, quietly);
    assert_eq!(store.create_support(&env(1)).unwrap(), CreateSupport::Leased);
    for object in store.list(LEASES_PREFIX, None, None).unwrap() {
        store.delete(&object.name).unwrap();
    }
    let lost = store.create(&entry(1), b"late".to_vec()).unwrap_err();
    assert!(lost.class() == Class::Conflict && lost.to_string().contains("lease"), "{lost}");
    assert_eq!(store.get(&entry(1), 99).unwrap_err().class(), Class::NotFound);
}

#[test]
fn what_is_written_under_a_lease_is_tried_no_longer_than_the_lease_is_sure() {
    let times = LeaseTimes { beat: Duration::from_secs(60), valid: Duration::from_secs(2), ..TIMES };
    let seconds = Duration::from_secs;
    // By its deadline alone, and by what its bytes add to it: either would be longer than the lease.
    let by_deadline = Deadlines { durable: seconds(10), ..Deadlines::default() };
    let by_bytes = Deadlines { durable: seconds(1), per_mib_written: seconds(9 << 10), ..Deadlines::default() };
    std::thread::scope(|scope| {
        for (what, deadlines) in [("deadline", by_deadline), ("bytes", by_bytes)] {
            scope.spawn(move || {
                let objects = Arc::new(InMemory::new());
                let (store, faults) = deaf_and_faulty(&objects);
                let store = store.with_deadlines(deadlines);
                store.allow_single_writer(times, quietly);
                assert_eq!(store.create_support(&env(1)).unwrap(), CreateSupport::Leased);
                faults.plan(Rule::new(Fault::Before).on(Operation::Create).within("log/").lasting());
                let began = std::time::Instant::now();
                let error = store.create(&entry(1), vec![1; 1 << 10]).unwrap_err();
                assert_eq!(error.class(), Class::Transient, "{what}: {error}");
                assert!(began.elapsed() < times.valid + seconds(1), "{what}: {:?}", began.elapsed());
                assert!(faults.hits() > 2, "{what}: it was tried again");
            });
        }
    });
}

/// A holder is stopped in the middle of a beat for longer than others wait, and goes on.
#[test]
fn a_lease_that_was_taken_away_never_comes_back() {
    let objects = Arc::new(InMemory::new());
    let (store, faults) = deaf_and_faulty(&objects);
    store.allow_single_writer(TIMES, quietly);
    assert_eq!(store.create_support(&env(1)).unwrap(), CreateSupport::Leased);
    faults.plan(Rule::new(Fault::Hang).on(Operation::Create).within(LEASES_PREFIX));
    faults.wait_for_stuck(1);
    let other = deaf(&objects);
    let times = LeaseTimes { stale: Duration::from_millis(300), wait: Duration::from_secs(20), ..TIMES };
    other.allow_single_writer(times, quietly);
    assert_eq!(other.create_support(&env(2)).unwrap(), CreateSupport::Leased);
    assert_eq!(other.create(&entry(1), b"other".to_vec()).unwrap(), Created::New);
    drop(other);
    // Its successor has come and gone: nobody but the missing name tells.
    faults.release();
    until(|| leases(&store) == 0);
    let lost = store.create(&entry(2), b"late".to_vec()).unwrap_err();
    assert!(lost.class() == Class::Conflict && lost.to_string().contains("lease"), "{lost}");
    assert_eq!(store.get(&entry(2), 99).unwrap_err().class(), Class::NotFound);
    std::thread::sleep(4 * TIMES.beat);
    assert_eq!(leases(&store), 0, "and no beat comes any more");
}

#[test]
fn of_two_that_hold_the_lease_the_one_that_was_stopped_gives_way() {
    let objects = Arc::new(InMemory::new());
    let store = deaf(&objects);
    store.allow_single_writer(TIMES, quietly);
    assert_eq!(store.create_support(&env(1)).unwrap(), CreateSupport::Leased);
    let own = holders(&store);
    // Another's wish is none of its business.
    let (wish, established) = (Object::Lease(Nonce([7; 16]), 0).name(), Object::Lease(Nonce([8; 16]), 1).name());
    store.create(&wish, b"0".to_vec()).unwrap();
    assert_eq!(store.create(&entry(1), b"mine".to_vec()).unwrap(), Created::New);
    store.create(&established, b"1".to_vec()).unwrap();
    until(|| holders(&store).is_disjoint(&own));
    store.delete(&established).unwrap();
    let lost = store.create(&entry(2), b"late".to_vec()).unwrap_err();
    assert!(lost.to_string().contains("lease"), "{lost}");
}

#[test]
fn of_many_that_come_at_once_never_two_write() {
    let objects = Arc::new(InMemory::new());
    let (inside, written) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let (objects, inside, written) = (&objects, &inside, &written);
            scope.spawn(move || {
                for round in 0..3 {
                    let store = deaf(objects);
                    let (wait, stale) = (Duration::from_secs(60), Duration::from_secs(50));
                    store.allow_single_writer(LeaseTimes { wait, stale, ..TIMES }, quietly);
                    assert!(store.take_lease(&env(writer * 100 + round)).unwrap());
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold the lease");
                    let number = written.fetch_add(1, Ordering::SeqCst) as u64 + 1;
                    assert_eq!(store.create(&entry(number), vec![writer as u8]).unwrap(), Created::New);
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    drop(store);
                }
            });
        }
    });
    assert_eq!(written.load(Ordering::SeqCst), 18);
}
