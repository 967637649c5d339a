//! Key slots in a store that holds junk, loses answers, or was written to by whoever has no key.

use amberfs::base::{Class, Classed, limits};
use amberfs::format::object::Object;
use amberfs::format::{Epoch, Nonce, SlotId, envelope};
use amberfs::repo::SlotInfo;
use amberfs::store::Operation;
use amberfs::store::fault::{Fault, Faults, Rule};
use amberfs::store::record::Recorder;
use amberfs::verify;

use super::rotation::try_rotate;
use super::*;

/// The key that takes the place of [`FULL`].
const NEW: u8 = 50;

/// An object that a newer amberfs might have written, and nobody has.
fn junk() -> Vec<u8> {
    let mut bytes = vec![0xa5; 32];
    bytes[..8].copy_from_slice(b"AMBR\x06\xff\0\0");
    bytes
}

fn slot_of(bench: &Bench, name: &str) -> SlotInfo {
    bench.open(FULL).slots().unwrap().into_iter().find(|slot| slot.name.as_deref() == Some(name)).unwrap()
}

/// Another text in the place of what the slot's own key opens, with a checksum that fits: anybody can compute it.
fn break_contents(bench: &Bench, slot: SlotId, epoch: u32) -> ObjectName {
    let name = Object::Slot(slot, Epoch(epoch)).name();
    let mut body = objects(&bench.store)[&name][envelope::HEADER_BYTES..].to_vec();
    // The last byte says that no rotation was begun with it.
    let at = body.len() - 20;
    body[at] ^= 1;
    put(&bench.store, &name, &envelope::seal(bench.open(FULL).id(), &name, envelope::Kind::Slot, &body, None));
    name
}

fn named(bench: &Bench, n: u8) -> Vec<ObjectName> {
    let report = verify::verify(&bench.open(n), &verify::Options::default(), &verify::Progress::new()).unwrap();
    report.findings.into_iter().map(|finding| finding.object).collect()
}

#[test]
fn whatever_call_of_a_change_fails_a_key_is_left_that_opens() {
    let base = Bench::with_keys();
    fill(&base.root());
    base.capture(FULL, "full");
    let before = objects(&base.store);
    let own = Object::Slot(slot_of(&base, "first").id, Epoch(1)).name();
    let (mut failed, mut doubtful, mut left) = (0, 0, 0);
    for fault in [Fault::Before, Fault::After] {
        for crashes in [true, false] {
            for nth in 1.. {
                let bench =
                    Bench { dir: tempfile::tempdir().unwrap(), store: super::filled(&before), env: base.env.clone() };
                let faults = Faults::new();
                let repo = open(&faults.around(&bench.store), &bench.env, &key(FULL)).unwrap();
                let rule = Rule::new(fault).nth(nth);
                faults.plan(if crashes { rule.then_crash() } else { rule });
                let changed = repo.replace_own_slot(&key(NEW));
                let what = format!("{fault:?} call {nth}, {crashes}: {changed:?}");
                // Whoever is told that nothing was written throws the new key file away.
                let (old, new) = (bench.try_open(FULL), bench.try_open(NEW));
                let keeps = match &changed {
                    Ok(_) => true,
                    Err(RepoError::SlotInDoubt { .. }) => true,
                    Err(_) => {
                        assert!(new.is_err(), "{what}");
                        false
                    }
                };
                doubtful += u32::from(matches!(changed, Err(RepoError::SlotInDoubt { .. })));
                if let Ok(changed) = &changed {
                    assert!(new.is_ok(), "{what}");
                    assert_eq!(changed.slot.name.as_deref(), Some("first"));
                    left += changed.left.len();
                    // Where only its mark is left, the old key is gone.
                    let is_gone = !objects(&bench.store).contains_key(&own);
                    match faults.hits() {
                        0 => assert_eq!(changed.left, [], "{what}"),
                        _ => assert!(is_gone || !changed.left.is_empty(), "{what}"),
                    }
                } else {
                    assert!(old.is_ok(), "{what}");
                }
                let opened = old.ok().or(new.ok().filter(|_| keeps)).unwrap_or_else(|| panic!("locked out: {what}"));
                assert!(source(&opened, "full").1.load().unwrap().read().obstacle().is_none(), "{what}");
                if faults.hits() == 0 {
                    changed.unwrap();
                    break;
                }
                failed += 1;
            }
        }
    }
    assert!(failed >= 16 && doubtful >= 8 && left >= 4, "{failed} {doubtful} {left}");
}

#[test]
fn a_change_to_the_same_key_is_refused_and_loses_nothing() {
    let bench = Bench::with_keys();
    let before = objects(&bench.store);
    assert_eq!(bench.open(FULL).replace_own_slot(&key(FULL)).unwrap_err().class(), Class::Conflict);
    assert_eq!(objects(&bench.store), before);
    // One that was written and not answered for is taken up.
    let faults = Faults::new();
    let repo = open(&faults.around(&bench.store), &bench.env, &key(FULL)).unwrap();
    faults.plan(Rule::new(Fault::After).on(Operation::Create).then_crash());
    assert!(matches!(repo.replace_own_slot(&key(NEW)), Err(RepoError::SlotInDoubt { .. })));
    let changed = bench.open(FULL).replace_own_slot(&key(NEW)).unwrap();
    assert_eq!(changed.left, []);
    assert!(bench.try_open(FULL).is_err() && bench.try_open(NEW).is_ok());
}

#[test]
fn junk_among_the_slots_is_named_and_in_nobodys_way() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    bench.capture(FULL, "full");
    let mut stranger = [0; 16];
    stranger[15] = 1;
    let (own, other) = (slot_of(&bench, "first").id, slot_of(&bench, "key 2").id);
    let places = [
        Object::Slot(SlotId(stranger), Epoch(1)),
        Object::Slot(SlotId([7; 16]), Epoch(u32::MAX)),
        Object::Slot(SlotId([8; 16]), Epoch(0)),
        Object::Slot(SlotId([9; 16]), Epoch(2)),
        Object::Slot(other, Epoch(2)),
        Object::Slot(other, Epoch(u32::MAX)),
        Object::Removal(other, Epoch(1), Nonce([1; 16])),
        Object::Removal(other, Epoch(2), Nonce([2; 16])),
        Object::Removal(own, Epoch(1), Nonce([3; 16])),
    ];
    let mut all: Vec<ObjectName> = places.iter().map(Object::name).collect();
    let (empty, long) = (Vec::new(), vec![1; 300 << 10]);
    let contents = [junk(), junk(), empty, long.clone(), junk(), junk(), junk(), junk(), long];
    assert_eq!(contents.len(), all.len());
    for (place, bytes) in all.iter().zip(contents) {
        put(&bench.store, place, &bytes);
    }
    all.sort();
    let listed = bench.open(FULL).slots().unwrap();
    let mut bad: Vec<ObjectName> = listed.iter().flat_map(|slot| &slot.faults).map(|at| at.object.clone()).collect();
    bad.sort();
    assert_eq!(bad, all);
    assert_eq!(listed.iter().filter(|slot| slot.name.is_none() && !slot.is_sound).count(), 4);
    assert_eq!(listed.iter().filter(|slot| slot.name.is_some() && slot.is_sound).count(), 5);
    assert_eq!(named(&bench, FULL), all);

    let full = bench.open(FULL);
    full.add_slot("more", SlotRole::Full, &key(60)).unwrap();
    full.replace_own_slot(&key(NEW)).unwrap();
    bench.open(NEW).replace_own_slot(&key(FULL)).unwrap();
    let full = bench.open(FULL);
    full.remove_slot(&full.slot_named("more", Some(Epoch(0))).unwrap(), || None).unwrap();
    assert!(matches!(bench.try_open(60), Err(RepoError::WrongKey { .. })));
    // Junk is removed by its id, and so is what it is mixed with.
    let id = SlotId(stranger).to_string();
    full.remove_slot(&full.slot_named(&id, Some(Epoch(0))).unwrap(), || None).unwrap();
    assert!(full.slots().unwrap().iter().all(|slot| slot.id.to_string() != id));
    // While newer keys may be in it, the log must say that they do not count.
    assert_eq!(full.slot_named("key 2", None).unwrap_err().class(), Class::Conflict);
    assert_eq!(full.slot_named("key 2", Some(Epoch(2))).unwrap_err().class(), Class::Conflict);
    full.slot_named("key 2", Some(Epoch(1))).unwrap();
    // Its holder is not kept out.
    assert_eq!(bench.open(OTHER_FULL).realm().keys().unwrap().current(), Epoch(1));
}

#[test]
fn junk_keeps_nobody_from_rotating() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    bench.capture(FULL, "full");
    let (own, other) = (slot_of(&bench, "first").id, slot_of(&bench, "key 2").id);
    for (slot, epoch) in [(SlotId([7; 16]), u32::MAX), (SlotId([7; 16]), 2), (other, 2), (other, u32::MAX), (own, 2)] {
        put(&bench.store, &Object::Slot(slot, Epoch(epoch)).name(), &junk());
    }
    // What an older rotation began with is no beginning of this one, wherever it stands.
    assert_eq!(try_rotate(&bench.store, &bench.env, FULL).unwrap(), Epoch(2));
    let begun = objects(&bench.store)[&Object::Slot(own, Epoch(2)).name()].clone();
    put(&bench.store, &Object::Slot(other, Epoch(3)).name(), &begun);
    assert_eq!(try_rotate(&bench.store, &bench.env, FULL).unwrap(), Epoch(3));
    let point = bench.capture(FULL, "full");
    reads(&bench, FULL, "full", &point);
}

#[test]
fn junk_uses_up_no_generations_of_keys() {
    let bench = Bench::new();
    let own = slot_of(&bench, "first").id;
    for epoch in 2..=u32::try_from(limits::KEY_EPOCHS_MAX).unwrap() {
        bench.store.create(&Object::Slot(own, Epoch(epoch)).name(), junk()).unwrap();
    }
    put(&bench.store, &Object::Slot(own, Epoch(3)).name(), &vec![1; 300 << 10]);
    for epoch in 2..5 {
        assert_eq!(try_rotate(&bench.store, &bench.env, FULL).unwrap(), Epoch(epoch));
    }
    // What opens with our key is another's rotation, and stays.
    let begun = bench.open(FULL);
    try_rotate(&bench.store, &bench.env, FULL).unwrap();
    let before = objects(&bench.store);
    assert_eq!(begun.begin_rotation(Epoch(4)).unwrap_err().class(), Class::Conflict);
    assert_eq!(objects(&bench.store), before);
}

#[test]
fn new_keys_that_were_taken_for_junk_are_put_back_before_no_others_are_left() {
    for there in [None, Some(junk())] {
        let bench = Bench::with_keys();
        fill(&bench.root());
        let rotation = bench.open(FULL).begin_rotation(Epoch(1)).unwrap();
        let repo = bench.open(FULL);
        assert!(sources(&repo).raise_epoch(rotation.epoch).unwrap().is_empty());
        let place = Object::Slot(slot_of(&bench, "first").id, rotation.epoch).name();
        match there {
            None => bench.store.delete(&place).unwrap(),
            Some(junk) => put(&bench.store, &place, &junk),
        }
        repo.finish_rotation().unwrap();
        assert_eq!(bench.open(FULL).realm().keys().unwrap().current(), rotation.epoch);
        reads(&bench, FULL, "full", &bench.capture(FULL, "full"));
    }
}

#[test]
fn junk_in_the_place_of_newer_keys_locks_nobody_out() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    bench.capture(WRITER, "written");
    for (n, name) in [(FULL, "first"), (OTHER_FULL, "key 2"), (WRITER, "key 3"), (COLLECTOR, "key 5")] {
        let id = slot_of(&bench, name).id;
        let good = bench.open(n).realm().keys().unwrap().current();
        for epoch in [2, 3, u32::MAX] {
            put(&bench.store, &Object::Slot(id, Epoch(epoch)).name(), &junk());
            assert_eq!(bench.open(n).realm().keys().unwrap().current(), good);
        }
        // What its own key sealed at another place is not taken either.
        let own = objects(&bench.store)[&Object::Slot(id, Epoch(1)).name()].clone();
        put(&bench.store, &Object::Slot(id, Epoch(2)).name(), &own);
        assert_eq!(bench.open(n).realm().keys().unwrap().current(), good);
        // Where nothing opens, the newest is named.
        bench.store.delete(&Object::Slot(id, Epoch(1)).name()).unwrap();
        match bench.try_open(n) {
            Err(RepoError::Damaged { object, .. }) => assert_eq!(object, Object::Slot(id, Epoch(u32::MAX)).name()),
            other => panic!("{other:?}"),
        }
        put(&bench.store, &Object::Slot(id, Epoch(1)).name(), &own);
    }
    reads(&bench, FULL, "written", &bench.capture(WRITER, "written"));
    // A change keeps what it could not open, which may be mended.
    let id = slot_of(&bench, "first").id;
    let left = bench.open(FULL).replace_own_slot(&key(NEW)).unwrap().left;
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(objects(&bench.store).contains_key(&Object::Slot(id, Epoch(2)).name()));
    assert!(!objects(&bench.store).contains_key(&Object::Slot(id, Epoch(1)).name()));
}

#[test]
fn a_key_that_cannot_open_is_named_and_does_not_count_as_one_that_does() {
    let bench = Bench::new();
    bench.open(FULL).add_slot("spare", SlotRole::Full, &key(OTHER_FULL)).unwrap();
    let spare = slot_of(&bench, "spare");
    assert!(spare.is_sound && bench.open(FULL).slot_named("first", Some(Epoch(0))).is_ok());
    let bad = break_contents(&bench, spare.id, 1);
    assert!(matches!(bench.try_open(OTHER_FULL), Err(RepoError::Damaged { .. })));
    assert_eq!(named(&bench, FULL), [bad]);
    let spare = slot_of(&bench, "spare");
    assert!(!spare.is_sound && spare.faults.len() == 1 && spare.name.is_some());
    assert_eq!(bench.open(FULL).slot_named("first", Some(Epoch(0))).unwrap_err().class(), Class::Conflict);
    bench.open(FULL).slot_named("spare", Some(Epoch(0))).unwrap();
}

#[test]
fn a_key_that_opens_nothing_new_does_not_count_as_one_that_does() {
    let bench = Bench::new();
    bench.open(FULL).add_slot("spare", SlotRole::Full, &key(OTHER_FULL)).unwrap();
    let before = objects(&bench.store);
    try_rotate(&bench.store, &bench.env, FULL).unwrap();
    // As a store brings it back, or a rotation leaves it that has not come to its end.
    let spare = names_of(&before, |object| matches!(object, Object::Slot(..)));
    for name in spare.iter().filter(|name| !objects(&bench.store).contains_key(*name)) {
        put(&bench.store, name, &before[name]);
    }
    let full = bench.open(FULL);
    assert_eq!((full.realm().keys().unwrap().current(), slot_of(&bench, "spare").epoch), (Epoch(2), Epoch(1)));
    assert_eq!(full.slot_named("first", Some(Epoch(2))).unwrap_err().class(), Class::Conflict);
    full.slot_named("spare", Some(Epoch(2))).unwrap();
    // Two of one name are told apart by their ids.
    full.add_slot("again", SlotRole::Full, &key(NEW)).unwrap();
    full.slot_named("first", Some(Epoch(2))).unwrap();
}

/// As by a gateway that answers with a page of its own, and 200.
#[test]
fn a_slot_is_removed_when_it_is_listed_no_more_and_not_when_somebody_says_so() {
    let bench = Bench::with_keys();
    let store = Store::memory_as_remote(bench.env.clone());
    for (name, bytes) in objects(&bench.store) {
        store.create(&name, bytes).unwrap();
    }
    let bench = Bench { store, ..bench };
    let faults = Faults::new();
    let faulty = faults.around(&bench.store);
    let repo = |n| open(&faulty, &bench.env, &key(n)).unwrap();
    let other = slot_of(&bench, "key 2");

    faults.plan(Rule::new(Fault::Feigned).on(Operation::Delete).lasting());
    let error = repo(FULL).remove_slot(&other, || None).unwrap_err();
    let stands = Object::Slot(other.id, Epoch(1)).name();
    assert!(matches!(&error, RepoError::NotRemoved { object } if *object == stands), "{error}");
    bench.open(OTHER_FULL);
    let changed = repo(FULL).replace_own_slot(&key(NEW)).unwrap();
    assert!(changed.left.len() == 1 && changed.left[0].why.contains("still stands"), "{changed:?}");
    bench.open(FULL);
    let (class, text) = try_rotate(&faulty, &bench.env, NEW).unwrap_err();
    assert!(class == Class::Unsupported && text.contains("still stands"), "{text}");
    bench.open(OTHER_FULL);

    faults.clear();
    let before = faulty.meter().snapshot();
    repo(NEW).remove_slot(&slot_of(&bench, "key 3"), || None).unwrap();
    let used = faulty.meter().snapshot().since(&before);
    // To open the repository, to see which slots stay, to find the slot's objects, and to see that they are gone.
    assert_eq!((used.of(Operation::List).requests, used.of(Operation::Delete).requests), (4, 1));
    try_rotate(&faulty, &bench.env, NEW).unwrap();
    assert!(bench.try_open(FULL).is_err() && bench.try_open(OTHER_FULL).is_err());
    // Where it cannot be seen, that is told.
    faults.plan(Rule::new(Fault::Before).on(Operation::List).reported_as(std::io::ErrorKind::PermissionDenied).nth(6));
    let changed = repo(NEW).replace_own_slot(&key(FULL)).unwrap();
    assert_eq!(faults.hits(), 1);
    assert!(!changed.left.is_empty() && changed.left[0].why.contains("not known"), "{changed:?}");
    assert!(bench.try_open(NEW).is_err() && bench.try_open(FULL).is_ok());
}

#[test]
fn keys_of_one_name_are_told_apart_by_their_ids() {
    let bench = Bench::new();
    let faults = Faults::new();
    let repo = open(&faults.around(&bench.store), &bench.env, &key(FULL)).unwrap();
    faults.plan(Rule::new(Fault::Before).on(Operation::Delete).lasting());
    assert_eq!(repo.replace_own_slot(&key(NEW)).unwrap().left.len(), 1);
    let full = bench.open(NEW);
    assert_eq!(full.slot_named("first", Some(Epoch(0))).unwrap_err().class(), Class::Conflict);
    let old = full.slots().unwrap().into_iter().find(|slot| !slot.own).unwrap();
    full.remove_slot(&full.slot_named(&old.id.to_string(), Some(Epoch(0))).unwrap(), || None).unwrap();
    assert!(bench.try_open(FULL).is_err() && bench.try_open(NEW).is_ok());
}

#[test]
fn over_a_network_a_slot_is_read_beside_its_list() {
    let recorder = Recorder::new();
    let env = Env::seeded(0x5107, later());
    let store = recorder.around(&Store::memory_as_remote(env.clone()));
    Repo::init_encrypted(store.clone(), env.clone(), &key(FULL), "mine", Cost::STANDARD).unwrap();
    recorder.take();
    recorder.expect_together((Operation::List, "key"), (Operation::Get, "key"), 1);
    let open = |n| Closed::find(store.clone()).unwrap().open(env.clone(), CacheSizes::default(), Some(&key(n)));
    assert!(open(FULL).is_ok());
    assert_eq!(recorder.take().len(), 3, "marker, list, slot");
    assert!(matches!(open(OTHER_FULL), Err(RepoError::WrongKey { .. })));
}
