//! New passphrases and new keys, and what removed ones are still good for: nothing new.

use amberfs::base::{Class, Classed};
use amberfs::capture::Options;
use amberfs::chain::state::{Dependents, LogState, SourceGoal};
use amberfs::format::log::{Checkpoint, SourceBody, SourceSnapshot, encode_checkpoint};
use amberfs::format::object::{LogId, Object};
use amberfs::format::{ChainId, Epoch};
use amberfs::store::fault::{Fault, Faults};

use super::roles::{author, is_void};
use super::*;

/// As `amberfs key rotate` does it.
pub(super) fn try_rotate(store: &Store, env: &Env, n: u8) -> Result<Epoch, (Class, String)> {
    fn told<E: Classed + std::fmt::Display>(error: E) -> (Class, String) {
        (error.class(), error.to_string())
    }
    let repo = open(store, env, &key(n)).map_err(told)?;
    let counts = sources(&repo).refresh().map_err(told)?.epoch();
    let rotation = repo.begin_rotation(counts).map_err(told)?;
    let repo = open(store, env, &key(n)).map_err(told)?;
    if let Some(unreached) = sources(&repo).raise_epoch(rotation.epoch).map_err(told)?.into_iter().next() {
        return Err(told(unreached.error));
    }
    repo.finish_rotation().map_err(told)?;
    Ok(rotation.epoch)
}

/// A rotation, after which no other key is left.
pub(super) fn rotate_only(bench: &Bench, n: u8) -> Epoch {
    try_rotate(&bench.store, &bench.env, n).unwrap()
}

/// A rotation, after which all other keys are added again, and the writers' sources are handed over to their new keys.
pub(super) fn rotate(bench: &Bench, n: u8) -> Epoch {
    let epoch = rotate_only(bench, n);
    add_others(bench, n);
    epoch
}

fn add_others(bench: &Bench, n: u8) {
    let full = bench.open(n);
    let keys = [
        (FULL, SlotRole::Full, ""),
        (OTHER_FULL, SlotRole::Full, ""),
        (WRITER, SlotRole::Writer, "written"),
        (OTHER_WRITER, SlotRole::Writer, "also"),
        (COLLECTOR, SlotRole::Collector, ""),
    ];
    for (other, role, name) in keys.into_iter().filter(|(other, ..)| *other != n) {
        let slot = full.add_slot(&format!("key {other}"), role, &key(other)).unwrap();
        if let Some(record) = sources(&full).load().unwrap().by_name(name) {
            sources(&full).grant(record.id, slot.key.unwrap()).unwrap();
        }
    }
}

/// The generation of keys with which an object says that it is sealed.
fn epoch(name: &ObjectName, bytes: &[u8]) -> u32 {
    let at = if matches!(Object::parse(name), Some(Object::Pack(..))) { 12 } else { 8 };
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn a_new_passphrase_rewrites_the_slot_and_nothing_else() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    let point = bench.capture(FULL, "full");
    let before = objects(&bench.store);
    let full = bench.open(FULL);
    full.replace_own_slot(&key(50)).unwrap();
    let after = objects(&bench.store);
    let gone: Vec<_> =
        before.iter().filter(|(name, bytes)| after.get(*name) != Some(*bytes)).map(|(name, _)| name).collect();
    let new: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(gone.len() == 1 && gone[0].as_str().starts_with("key/"), "{gone:?}");
    assert!(new.len() == 1 && new[0].as_str().starts_with("key/"), "{new:?}");
    assert!(matches!(bench.try_open(FULL), Err(RepoError::WrongKey { .. })));
    reads(&bench, 50, "full", &point);
    // One that is taken is refused, and nothing is lost by it.
    let full = bench.open(50);
    assert_eq!(full.replace_own_slot(&key(WRITER)).unwrap_err().class(), Class::Conflict);
    assert_eq!(full.add_slot("another", SlotRole::Full, &key(50)).unwrap_err().class(), Class::Conflict);
    assert_eq!(objects(&bench.store), after);
}

#[test]
fn the_last_full_key_stays() {
    let bench = Bench::new();
    bench.open(FULL).add_slot("w", SlotRole::Writer, &key(WRITER)).unwrap();
    assert_eq!(bench.open(FULL).slot_named("first", Some(Epoch(0))).unwrap_err().class(), Class::Conflict);
    bench.open(FULL).add_slot("second", SlotRole::Full, &key(OTHER_FULL)).unwrap();
    let slot = bench.open(OTHER_FULL).slot_named("first", Some(Epoch(0))).unwrap();
    bench.open(OTHER_FULL).remove_slot(&slot, || None).unwrap();
    assert_eq!(bench.open(OTHER_FULL).slot_named("second", Some(Epoch(0))).unwrap_err().class(), Class::Conflict);
}

#[test]
fn after_a_rotation_old_points_are_read_and_new_ones_are_sealed_anew() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    let first = bench.capture(FULL, "full");
    let written = bench.capture(WRITER, "written");
    let seen = real(&bench.root());
    for round in 2..5 {
        let before = objects(&bench.store);
        assert_eq!(rotate(&bench, if round % 2 == 0 { FULL } else { OTHER_FULL }), Epoch(round));
        bench.write("new", format!("in epoch {round}"));
        let point = bench.capture(FULL, "full");
        assert!(point.commit.parent.is_some(), "a rotation is no reason for a full point");
        let later = bench.capture(WRITER, "written");
        for n in [FULL, OTHER_FULL] {
            reads(&bench, n, "full", &point);
            reads(&bench, n, "written", &later);
            for (name, point) in [("full", &first), ("written", &written)] {
                world::same(&seen, &shown_point(&bench.open(n), name, point.name()), name);
            }
        }
        let after = objects(&bench.store);
        let new: Vec<_> = after.iter().filter(|(name, _)| !before.contains_key(*name)).collect();
        assert!(new.iter().any(|(name, _)| name.as_str().ends_with(".pack")));
        for (name, bytes) in new.iter().filter(|(name, _)| !name.as_str().starts_with("key/")) {
            assert_eq!(epoch(name, bytes), round, "{name}");
        }
        let slots = names_of(&after, |object| matches!(object, Object::Slot(..)));
        assert_eq!(slots.len(), 5, "no old slot is left: {slots:?}");
        assert!(
            slots
                .iter()
                .all(|name| matches!(Object::parse(name), Some(Object::Slot(_, epoch)) if epoch == Epoch(round)))
        );
    }
}

#[test]
fn a_removed_key_opens_nothing_new_and_says_nothing_any_more() {
    for (n, name) in [(OTHER_FULL, "key 2"), (COLLECTOR, "key 5"), (WRITER, "key 3")] {
        let bench = Bench::with_keys();
        fill(&bench.root());
        bench.capture(FULL, "full");
        let removed = bench.open(n);
        let (record, log) = source(&removed, "full");
        log.load().unwrap();
        let slot = bench.open(FULL).slot_named(name, Some(Epoch(0))).unwrap();
        bench.open(FULL).remove_slot(&slot, || None).unwrap();
        assert!(matches!(bench.try_open(n), Err(RepoError::WrongKey { .. })));
        try_rotate(&bench.store, &bench.env, FULL).unwrap();
        for dropped in [OTHER_FULL, WRITER, OTHER_WRITER, COLLECTOR] {
            assert!(matches!(bench.try_open(dropped), Err(RepoError::WrongKey { .. })), "it has to be added again");
        }
        bench.write("new", noise(5000, 42));
        let point = bench.capture(FULL, "full");

        // It has kept all that it had, and can read the store.
        let state = super::log(&removed, &record).load().unwrap();
        assert!(state.by_name(point.name()).is_none());
        assert!(state.read().obstacle().is_some(), "what it cannot read it does not take for absent");
        let all = objects(&bench.store);
        for object in names_of(&all, |object| matches!(object, Object::Pack(..))) {
            let Some(Object::Pack(_, pack)) = Object::parse(&object) else { continue };
            if pack.session != point.commit.session {
                continue;
            }
            let full = bench.open(FULL);
            source(&full, "full").1.load().unwrap();
            for (at, frame) in world::footer(&full, &object, &all[&object]).1.frames.iter().enumerate() {
                let pointer = frame.pointer(pack, amberfs::format::FrameOrdinal(u32::try_from(at).unwrap()));
                assert!(removed.reader(record.id).fetch(&pointer, frame.kind).is_err());
            }
        }
        // What it signs behind the rotation is void, whatever it says.
        let bodies = [
            SourceBody::Delete { points: vec![point.id] },
            SourceBody::Seal,
            SourceBody::OpenChain { chain: ChainId(1) },
            SourceBody::Epoch { epoch: Epoch(3) },
        ];
        for body in bodies {
            is_void(&bench, &removed, &[FULL], "full", body, author(&removed));
        }
        // And nobody believes how it sums up.
        let state = source(&bench.open(FULL), "full").1.load().unwrap();
        let checkpoint = Checkpoint {
            number: state.read().number,
            hash: state.read().hash.unwrap(),
            state: SourceSnapshot::default(),
        };
        let (name, bytes) = encode_checkpoint::<SourceBody>(removed.realm(), LogId::Source(record.id), &checkpoint);
        put(&bench.store, &name, &bytes);
        reads(&bench, FULL, "full", &point);
    }
}

/// The keys that open the repository and read all of its logs.
pub(super) fn working(bench: &Bench, keys: &[u8]) -> Vec<u8> {
    let works = |n: &&u8| match bench.try_open(**n) {
        Ok(repo) => {
            let state = sources(&repo).load().unwrap();
            let whole = |record: &SourceRecord| log(&repo, record).load().unwrap().read().obstacle().is_none();
            state.read().obstacle().is_none() && state.sources().all(whole)
        }
        Err(error) => {
            assert!(matches!(error, RepoError::WrongKey { .. }), "key {n}: {error}");
            false
        }
    };
    keys.iter().filter(works).copied().collect()
}

/// The key rotates, adds all others again, and every point is read; nothing is left over.
pub(super) fn goes_on(bench: &Bench, n: u8, what: &str) {
    let to = try_rotate(&bench.store, &bench.env, n).unwrap_or_else(|error| panic!("{what}: key {n}: {error:?}"));
    add_others(bench, n);
    assert_eq!(working(bench, &[FULL, OTHER_FULL, WRITER, OTHER_WRITER, COLLECTOR]).len(), 5, "{what}");
    let point = bench.capture(WRITER, "written");
    for n in [FULL, OTHER_FULL] {
        reads(bench, n, "written", &point);
        for point in source(&bench.open(n), "written").1.load().unwrap().points() {
            assert!(shown_point(&bench.open(n), "written", point.name()).len() > 20, "{what}");
        }
        assert_eq!(bench.open(n).realm().keys().unwrap().current(), to, "{what}");
    }
    assert!(bench.open(n).slots().unwrap().iter().all(|slot| slot.name.is_some() && slot.epoch == to), "{what}");
    let left = names_of(&objects(&bench.store), |object| matches!(object, Object::Slot(..)));
    assert_eq!(left.len(), 5, "{what}: {left:?}");
}

/// A repository with a point, to begin with in every case.
pub(super) fn begun() -> (Bench, BTreeMap<ObjectName, Vec<u8>>) {
    let bench = Bench::with_keys();
    fill(&bench.root());
    bench.capture(WRITER, "written");
    let all = objects(&bench.store);
    (bench, all)
}

/// The same once more.
pub(super) fn again(base: &Bench, objects: &BTreeMap<ObjectName, Vec<u8>>) -> Bench {
    let bench = Bench { dir: tempfile::tempdir().unwrap(), store: super::filled(objects), env: base.env.clone() };
    std::fs::create_dir(bench.root()).unwrap();
    fill(&bench.root());
    bench
}

#[test]
fn an_interrupted_rotation_is_finished_and_locks_nobody_out() {
    let (base, before) = begun();
    let mut crashes = 0;
    for fault in [Fault::Before, Fault::After] {
        for next in [FULL, OTHER_FULL] {
            for nth in 1.. {
                let bench = again(&base, &before);
                let faults = Faults::new();
                let store = faults.around(&bench.store);
                faults.crash_at(nth, fault);
                let rotated = try_rotate(&store, &bench.env, FULL);
                if faults.hits() == 0 {
                    rotated.unwrap();
                    break;
                }
                crashes += 1;
                let what = format!("{fault:?} call {nth}, then key {next}");
                // With the key that it was begun with, all is there.
                assert_eq!(working(&bench, &[FULL]), [FULL], "{what}");
                let mut goes = FULL;
                if next == OTHER_FULL {
                    // Another key is told, or does it all itself if nothing had begun.
                    match try_rotate(&bench.store, &bench.env, OTHER_FULL) {
                        Ok(_) => goes = OTHER_FULL,
                        Err((class, error)) => {
                            let told = [Class::Conflict, Class::Denied, Class::Corrupt];
                            assert!(told.contains(&class), "{what}: {class:?} {error}");
                        }
                    }
                }
                assert_eq!(working(&bench, &[goes]), [goes], "{what}");
                goes_on(&bench, goes, &what);
            }
        }
    }
    assert!(crashes > 60, "{crashes} crashes were tried");
}

/// One has come to some call when the other does all of it, or is told to wait. Whatever they were told, there is one
/// repository, and one of them has all of it.
#[test]
fn rotations_that_meet_leave_one_repository() {
    let (base, before) = begun();
    let mut both = 0;
    for nth in 1.. {
        let bench = again(&base, &before);
        let faults = Faults::new();
        let store = faults.around(&bench.store);
        faults.plan(amberfs::store::fault::Rule::new(Fault::Hang).nth(nth));
        let (met, first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| try_rotate(&store, &bench.env, FULL));
            while faults.hits() == 0 && !first.is_finished() {
                std::thread::yield_now();
            }
            let met = faults.hits() > 0;
            let second = if met { try_rotate(&bench.store, &bench.env, OTHER_FULL) } else { Ok(Epoch(0)) };
            faults.release();
            (met, first.join().unwrap(), second)
        });
        if !met {
            first.unwrap();
            break;
        }
        let what = format!("at call {nth}: {first:?}, {second:?}");
        both += u32::from(second.is_ok());
        let working = working(&bench, &[FULL, OTHER_FULL]);
        assert!(first.is_ok() || second.is_ok(), "{what}");
        assert!(!(first.is_ok() && second.is_ok()) || nth < 3, "{what}: one of them locked the other out");
        if first.is_ok() {
            assert!(working.contains(&FULL), "{what}");
        }
        if second.is_ok() {
            assert!(working.contains(&OTHER_FULL), "{what}");
        }
        goes_on(&bench, working[0], &what);
    }
    assert!(both > 0, "the second was never first");
}

/// A slot of before the rotation in the place of the new one: its holder is told that something is amiss, and writes
/// nothing.
#[test]
fn an_old_slot_in_the_place_of_a_new_one_shows_no_older_repository() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    bench.capture(OTHER_FULL, "full");
    let before = objects(&bench.store);
    rotate(&bench, FULL);
    let point = bench.capture(FULL, "full");
    let after = objects(&bench.store);
    for name in names_of(&after, |object| matches!(object, Object::Slot(..))) {
        bench.store.delete(&name).unwrap();
    }
    for name in names_of(&before, |object| matches!(object, Object::Slot(..))) {
        put(&bench.store, &name, &before[&name]);
    }
    for n in [FULL, OTHER_FULL, COLLECTOR, WRITER] {
        let repo = bench.open(n);
        let state = sources(&repo).load().unwrap();
        assert!(state.read().obstacle().is_some(), "key {n} sees that it cannot read all");
        let captured = bench.try_capture(&repo, "full", &Options::default()).map(|outcome| outcome.point);
        assert!(captured.is_err(), "key {n}: {captured:?}");
        let goal = SourceGoal::Delete(vec![point.id], Dependents::Keep);
        assert!(source(&repo, "full").1.append(goal).is_err(), "key {n}");
    }
    // With the new slots back all is as it was.
    for name in names_of(&after, |object| matches!(object, Object::Slot(..))) {
        put(&bench.store, &name, &after[&name]);
    }
    reads(&bench, FULL, "full", &point);
}
