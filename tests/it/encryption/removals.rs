//! Whoever removes which keys at the same time: one stays that opens everything.

use amberfs::base::{Class, Classed};
use amberfs::chain::state::LogState;
use amberfs::format::Epoch;
use amberfs::format::object::Object;
use amberfs::store::Operation;
use amberfs::store::fault::{Fault, Faults, Rule};

use super::rotation::{again, begun, goes_on, try_rotate, working};
use super::*;

/// The keys that those who meet change to.
const CHANGED: [u8; 2] = [60, 61];

/// What somebody does who has a full key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Removes the other full key.
    Remove,
    /// Removes the key in use.
    Leave,
    Change,
    Rotate,
}

const DEEDS: [Deed; 4] = [Deed::Remove, Deed::Leave, Deed::Change, Deed::Rotate];

/// What a full key is called.
fn name(n: u8) -> &'static str {
    if n == FULL { "first" } else { "key 2" }
}

/// Does it with key `n`, `other` being the other full one.
fn try_do(deed: Deed, store: &Store, env: &Env, (n, other): (u8, u8)) -> Result<(), (Class, String)> {
    fn told<E: Classed + std::fmt::Display>(error: E) -> (Class, String) {
        (error.class(), error.to_string())
    }
    let open = || open(store, env, &key(n)).map_err(told);
    let remove = |who: &str| -> Result<(), (Class, String)> {
        let repo = open()?;
        let counts = || sources(&repo).refresh().ok().map(|state| state.epoch());
        let slot = repo.slot_named(who, counts()).map_err(told)?;
        repo.remove_slot(&slot, counts).map_err(told)
    };
    match deed {
        Deed::Remove => remove(name(other)),
        Deed::Leave => remove(name(n)),
        Deed::Change => {
            let changed = open()?.replace_own_slot(&key(CHANGED[usize::from(n - 1)])).map_err(told)?;
            match changed.left.first() {
                None => Ok(()),
                Some(left) => Err((Class::Conflict, left.why.clone())),
            }
        }
        Deed::Rotate => try_rotate(store, env, n).map(drop),
    }
}

/// One has come to some call when the other does all that he wants, or is told to wait.
#[test]
fn whatever_two_do_who_have_full_keys_one_key_stays() {
    let (base, before) = begun();
    let (mut met, mut refused) = (0, 0);
    for (first, second) in DEEDS.iter().flat_map(|first| DEEDS.map(|second| (*first, second))) {
        for nth in 1.. {
            let bench = again(&base, &before);
            let faults = Faults::new();
            let store = faults.around(&bench.store);
            faults.plan(Rule::new(Fault::Hang).nth(nth));
            let (met_here, one, other) = std::thread::scope(|scope| {
                let one = scope.spawn(|| try_do(first, &store, &bench.env, (FULL, OTHER_FULL)));
                while faults.hits() == 0 && !one.is_finished() {
                    std::thread::yield_now();
                }
                let met = faults.hits() > 0;
                let other = met.then(|| try_do(second, &bench.store, &bench.env, (OTHER_FULL, FULL)));
                faults.release();
                (met, one.join().unwrap(), other)
            });
            let what = format!("{first:?} at call {nth}: {one:?}; {second:?}: {other:?}");
            let working = working(&bench, &[FULL, OTHER_FULL, CHANGED[0], CHANGED[1]]);
            assert!(!working.is_empty(), "locked out: {what}");
            if !met_here {
                one.unwrap();
                break;
            }
            met += 1;
            // Whoever did what he wanted finds it done.
            for (done, deed, own, theirs) in [(&Some(one), first, FULL, OTHER_FULL), (&other, second, OTHER_FULL, FULL)]
            {
                match (done, deed) {
                    (Some(Ok(())), Deed::Remove) => assert!(!working.contains(&theirs), "{what}"),
                    (Some(Ok(())), Deed::Leave) => assert!(!working.contains(&own), "{what}"),
                    (Some(Err(_)), _) => refused += 1,
                    _ => {}
                }
            }
            // And whoever is left does what he likes.
            let last = working[0];
            let slots = bench.open(last).slots().unwrap();
            let is_marked = |slot: &amberfs::repo::SlotInfo| slot.own && slot.removal.is_some();
            assert!(!slots.iter().any(is_marked) || working.len() > 1, "{what}");
            if working.len() == 1 && last < 60 {
                goes_on(&bench, last, &what);
            }
        }
    }
    assert!(met > 200 && refused > 20, "{met} meetings, {refused} of them refused one");
}

/// Each removes the next one's, as fast as they can.
#[test]
fn removals_in_a_circle_leave_a_key() {
    const KEYS: [u8; 3] = [71, 72, 73];
    let base = Bench::new();
    for n in KEYS {
        base.open(FULL).add_slot(&format!("key {n}"), SlotRole::Full, &key(n)).unwrap();
    }
    let first = base.open(FULL).slot_named("first", None).unwrap();
    base.open(71).remove_slot(&first, || None).unwrap();
    let before = objects(&base.store);
    let (mut removed, mut refused) = (0, 0);
    for _ in 0..60 {
        let bench = Bench { dir: tempfile::tempdir().unwrap(), store: super::filled(&before), env: base.env.clone() };
        let doomed: Vec<_> = (0..3).map(|at| (bench.open(KEYS[at]), format!("key {}", KEYS[(at + 1) % 3]))).collect();
        let start = std::sync::Barrier::new(3);
        let done: Vec<Result<(), RepoError>> = std::thread::scope(|scope| {
            let remove = |(repo, name): &(Arc<Repo>, String)| {
                start.wait();
                let slot = repo.slot_named(name, None)?;
                repo.remove_slot(&slot, || None)
            };
            let threads: Vec<_> = doomed.iter().map(|doomed| scope.spawn(move || remove(doomed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(KEYS.iter().any(|n| bench.try_open(*n).is_ok()), "locked out: {done:?}");
        removed += done.iter().filter(|done| done.is_ok()).count();
        refused += done.iter().filter(|done| done.is_err()).count();
    }
    assert!(removed > 0 && refused > 0, "{removed} removals, {refused} refused");
}

/// Whatever call a removal breaks off at: the same goes on, the key works until then, and its holder has a way out.
#[test]
fn a_removal_that_broke_off_goes_on_and_its_victim_has_a_way_out() {
    let (base, before) = begun();
    let mut marked = 0;
    for fault in [Fault::Before, Fault::After] {
        for nth in 1.. {
            let interrupted = || {
                let bench = again(&base, &before);
                let faults = Faults::new();
                let repo = open(&faults.around(&bench.store), &bench.env, &key(FULL)).unwrap();
                let slot = repo.slot_named("key 2", None).unwrap();
                faults.plan(Rule::new(fault).nth(nth).then_crash());
                let removed = repo.remove_slot(&slot, || None);
                assert_eq!(removed.is_ok(), faults.hits() == 0, "{fault:?} call {nth}");
                (bench, faults.hits() == 0)
            };
            let (bench, is_whole) = interrupted();
            let what = format!("{fault:?} call {nth}");
            if is_whole {
                assert_eq!(working(&bench, &[FULL, OTHER_FULL]), [FULL]);
                break;
            }
            let slots = bench.open(FULL).slots().unwrap();
            let victim = slots.iter().find(|slot| slot.name.as_deref() == Some("key 2"));
            if let Some(removal) = victim.and_then(|victim| victim.removal.as_ref()) {
                assert_eq!(removal.by, "first");
                marked += 1;
                // It opens all that it ever did, but nobody relies on it.
                assert_eq!(working(&bench, &[OTHER_FULL]), [OTHER_FULL], "{what}");
                for deed in [Deed::Remove, Deed::Rotate] {
                    let (class, text) = try_do(deed, &bench.store, &bench.env, (OTHER_FULL, FULL)).unwrap_err();
                    assert!(class == Class::Conflict && text.contains("key list"), "{what}: {text}");
                }
                assert_eq!(working(&bench, &[FULL, OTHER_FULL]), [FULL, OTHER_FULL], "{what}");
                // The way out.
                let (bench, _) = interrupted();
                try_do(Deed::Change, &bench.store, &bench.env, (OTHER_FULL, FULL)).unwrap();
                let changed = bench.open(CHANGED[1]);
                let first = changed.slot_named("first", Some(Epoch(1))).unwrap();
                changed.remove_slot(&first, || Some(Epoch(1))).unwrap();
                assert_eq!(working(&bench, &[FULL, OTHER_FULL, CHANGED[1]]), [CHANGED[1]], "{what}");
                assert_eq!(names_of(&objects(&bench.store), is_mark), [], "{what}");
            }
            // The same once more ends it, and leaves nothing, whether or not the slot was gone.
            let repo = bench.open(FULL);
            if let Ok(slot) = repo.slot_named("key 2", None) {
                repo.remove_slot(&slot, || None).unwrap();
            }
            let again = repo.add_slot("key 2", SlotRole::Full, &key(OTHER_FULL)).unwrap();
            let mark = |object| matches!(object, Object::Removal(slot, ..) if slot == again.id);
            assert_eq!(names_of(&objects(&bench.store), mark), [], "{what}");
            goes_on(&bench, FULL, &what);
        }
    }
    assert!(marked >= 4, "{marked} left a mark");
}

fn is_mark(object: Object) -> bool {
    matches!(object, Object::Removal(..))
}

/// Another who removes the same slot, and has looked already, relies on his mark until the slot is gone.
#[test]
fn whatever_fails_in_a_removal_the_mark_of_another_stays_as_long_as_the_slot() {
    let base = Bench::with_keys();
    base.open(FULL).add_slot("third", SlotRole::Full, &key(70)).unwrap();
    let faults = Faults::new();
    let third = open(&faults.around(&base.store), &base.env, &key(70)).unwrap();
    let victim = third.slot_named("key 2", None).unwrap();
    faults.plan(Rule::new(Fault::Before).on(Operation::Delete).then_crash());
    third.remove_slot(&victim, || None).unwrap_err();
    let before = objects(&base.store);
    let theirs = names_of(&before, is_mark);
    assert_eq!(theirs.len(), 1);
    let slot = Object::Slot(victim.id, Epoch(1)).name();
    let mut failed = 0;
    for fault in [Fault::Before, Fault::After] {
        for nth in 1.. {
            let bench =
                Bench { dir: tempfile::tempdir().unwrap(), store: super::filled(&before), env: base.env.clone() };
            let faults = Faults::new();
            let repo = open(&faults.around(&bench.store), &bench.env, &key(FULL)).unwrap();
            faults.plan(Rule::new(fault).nth(nth));
            let removed = repo.remove_slot(&victim, || None);
            let left = objects(&bench.store);
            let stands = left.contains_key(&slot);
            assert!(!stands || left.contains_key(&theirs[0]), "{fault:?} call {nth}: {removed:?}");
            if faults.hits() == 0 {
                removed.unwrap();
                assert!(!stands && names_of(&left, is_mark).is_empty());
                break;
            }
            failed += u32::from(stands);
        }
    }
    assert!(failed >= 8, "{failed} calls failed before the slot was gone");
}

/// Who is told that nothing was removed finds nothing marked.
#[test]
fn a_removal_that_is_refused_takes_its_mark_back() {
    let bench = Bench::with_keys();
    let faults = Faults::new();
    let store = faults.around(&bench.store);
    let repo = open(&store, &bench.env, &key(FULL)).unwrap();
    let other = repo.slot_named("key 2", None).unwrap();
    // Somebody else has begun to remove the key in use, in between.
    let second = Faults::new();
    let theirs = open(&second.around(&bench.store), &bench.env, &key(OTHER_FULL)).unwrap();
    let first = theirs.slot_named("first", None).unwrap();
    second.plan(Rule::new(Fault::Before).on(Operation::Delete).then_crash());
    theirs.remove_slot(&first, || None).unwrap_err();

    let before = objects(&bench.store);
    let error = repo.remove_slot(&other, || None).unwrap_err();
    assert!(matches!(&error, RepoError::Slot { class: Class::Conflict, .. }), "{error}");
    assert_eq!(objects(&bench.store), before);
    let (class, _) = try_rotate(&bench.store, &bench.env, FULL).unwrap_err();
    assert_eq!((class, objects(&bench.store)), (Class::Conflict, before));
}
