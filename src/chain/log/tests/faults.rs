//! What the driver makes of a store that fails: at every call, in every way, and at the worst times.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;
use crate::store::fault::{Fault as StoreFault, Faults, Rule};
use crate::store::{Deadlines, StoreError};

/// What a run of [`scenario`] was told.
#[derive(Default)]
struct Told {
    points: Vec<Arc<Point>>,
    source: bool,
    failed: Option<ChainError>,
}

/// A source is claimed, a session begins, a chain is opened, three points are committed; a log of
/// [`BEFORE`] entries stands, so that a checkpoint falls due on the way.
fn scenario(store: &Store) -> Told {
    let mut told = Told::default();
    let outcome = (|| {
        let repo = RepoLog::open(store.clone(), env(50), REPO);
        repo.add_source("home", SourceKind::Tree, origin("ash", "/home"))?;
        told.source = true;
        let log = source_log(store, 51);
        let session = log.begin()?;
        let chain = log.open_chain(&session)?;
        let full = log.commit(commit(session, chain.0, None, 9000))?;
        let id = full.id.0;
        told.points.push(full);
        for second in 9001..9003 {
            let session = log.begin()?;
            told.points.push(log.commit(commit(session, chain.0, Some(id), second))?);
        }
        Ok(())
    })();
    told.failed = outcome.err();
    told
}

const BEFORE: u64 = limits::CHECKPOINT_ENTRIES - 2;

fn prepared() -> Store {
    let store = Store::memory();
    prepare(&store, BEFORE);
    store
}

/// Adds a source, and fills its log.
fn prepare(store: &Store, entries: u64) {
    let repo = RepoLog::open(store.clone(), env(49), REPO);
    assert_eq!(LogId::Source(repo.add_source("filled", SourceKind::Tree, origin("ash", "/")).unwrap().id), LOG);
    fill(store, entries);
}

/// What the store holds after a scenario that was told `told`, behind `before` entries, whatever happened to it.
fn assert_nothing_is_lost(store: &Store, before: u64, told: &Told, what: &str) {
    let log = source_log(store, 60);
    let state = log.load().unwrap();
    assert_eq!(state.tip().damage, [], "{what}");
    for point in &told.points {
        assert_eq!(state.point(point.id), Some(point), "{what}");
    }
    let before = usize::try_from(before).unwrap() - 1;
    let more = state.points().len() - before - told.points.len();
    assert!(more <= usize::from(told.failed.is_some()), "{what}: {more} points that nobody was told of");
    let sources = RepoLog::open(store.clone(), env(61), REPO).sources().unwrap();
    assert!(sources.len() == 2 || !told.source, "{what}");
    assert_same(&log.audit().unwrap().state, &state);
    // And it goes on.
    let session = log.begin().unwrap();
    log.commit(commit(session, 0, Some(2), 9999)).unwrap();
}

#[test]
fn a_crash_at_any_call_loses_nothing_acknowledged() {
    let faults = Faults::new();
    let told = scenario(&faults.around(&prepared()));
    assert!(told.failed.is_none());
    let calls = faults.calls();
    assert!(calls > 20, "{calls} calls are too few to be the scenario");
    for fault in [StoreFault::Before, StoreFault::After, StoreFault::Half] {
        for nth in 1..=calls {
            let (store, faults) = (prepared(), Faults::new());
            faults.crash_at(nth, fault);
            let told = scenario(&faults.around(&store));
            assert!(told.failed.is_some() || told.points.len() == 3);
            assert_nothing_is_lost(&store, BEFORE, &told, &format!("{fault:?} at call {nth}"));
        }
    }
}

#[test]
fn the_rests_that_a_crash_leaves_in_a_local_store_are_not_seen() {
    const BEFORE_LOCAL: u64 = 3;
    let prepared = || {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::local(dir.path()).unwrap();
        prepare(&store, BEFORE_LOCAL);
        (dir, store)
    };
    let faults = Faults::new();
    let (_dir, store) = prepared();
    assert!(scenario(&faults.around(&store)).failed.is_none());
    for nth in 1..=faults.calls() {
        let ((_dir, store), faults) = (prepared(), Faults::new());
        faults.crash_at(nth, StoreFault::Half);
        let told = scenario(&faults.around(&store));
        assert_nothing_is_lost(&store, BEFORE_LOCAL, &told, &format!("half-way through call {nth}"));
    }
}

#[test]
fn a_single_fault_at_any_call_of_a_commit_is_ridden_out() {
    let commit_one = |log: &SourceLog, session| log.commit(commit(session, 0, Some(2), 9000));
    let calls = {
        let (store, faults) = (prepared(), Faults::new());
        let log = source_log(&faults.around(&store), 51);
        let session = log.begin().unwrap();
        faults.clear();
        commit_one(&log, session).unwrap();
        faults.calls()
    };
    for fault in [StoreFault::Before, StoreFault::After, StoreFault::Half] {
        for nth in 1..=calls {
            let (store, faults) = (prepared(), Faults::new());
            let log = source_log(&faults.around(&store), 51);
            let session = log.begin().unwrap();
            faults.clear();
            faults.plan(Rule::new(fault).nth(nth));
            let point = commit_one(&log, session).unwrap();
            assert_eq!(faults.hits(), 1);
            let state = source_log(&store, 52).load().unwrap();
            assert_eq!(state.points().last(), Some(&point), "{fault:?} at call {nth}");
            assert_eq!(state.tip().number, LogNumber(BEFORE + 1), "{fault:?} at call {nth}: one entry, once");
        }
    }
}

#[test]
fn an_entry_whose_answer_was_lost_may_stand_though_all_that_follows_is_refused() {
    let (store, faults) = (Store::memory_as_remote(env(48)), Faults::new());
    prepare(&store, 3);
    let log = source_log(&faults.around(&store), 51);
    let session = log.begin().unwrap();
    faults.plan(Rule::new(StoreFault::After).on(Operation::Create));
    // The first look is for the place of the entry.
    let denied = Rule::new(StoreFault::Before).on(Operation::Get).reported_as(ErrorKind::PermissionDenied);
    faults.plan(denied.nth(2).lasting());
    let error = log.commit(commit(session, 0, Some(2), 9000)).unwrap_err();
    assert!(matches!(error, ChainError::InFlight { number: LogNumber(4), .. }), "{error:?}");
    assert_eq!(source_log(&store, 52).load().unwrap().points().last().unwrap().id, PointId(4));
}

#[test]
fn a_read_that_fails_is_neither_absence_nor_damage_and_is_not_remembered() {
    let store = Store::memory();
    let whole = fill(&store, limits::CHECKPOINT_ENTRIES + 5).load().unwrap();
    let faults = Faults::new();
    let faulty = faults.around(&store);
    drop(source_log(&faulty, 2).load().unwrap());
    for nth in 1..=faults.calls() {
        faults.clear();
        faults.plan(Rule::new(StoreFault::Before).nth(nth).reported_as(ErrorKind::PermissionDenied));
        let log = source_log(&faulty, 2);
        let error = log.load().unwrap_err();
        assert_eq!(error.class(), Class::Denied, "call {nth}: {error}");
        assert_same(&log.load().unwrap(), &whole);
    }
}

#[test]
fn bytes_that_arrive_wrong_once_are_read_again_before_anybody_is_refused() {
    let store = Store::memory();
    let whole = fill(&store, 7).load().unwrap();
    let entries = || Rule::new(StoreFault::Flipped).on(Operation::Get).within("/log/");
    for number in 1..=7 {
        let faults = Faults::new();
        // By its name: entries are asked for side by side, and the one behind the last with them.
        let name = entry_name(number);
        faults.plan(entries().within(name.as_str()));
        let log = source_log(&faults.around(&store), 2);
        assert!(log.load().unwrap().tip().obstacle().is_some());
        assert_same(&log.refresh().unwrap(), &whole);
        assert_eq!(log.load().unwrap().tip().damage, []);
    }
    let faults = Faults::new();
    faults.plan(entries());
    let log = source_log(&faults.around(&store), 2);
    drop(log.load().unwrap());
    assert_eq!(log.begin().unwrap().base, LogNumber(7));
}

#[test]
fn a_full_store_is_a_clean_error() {
    for (reported, class) in [(ErrorKind::StorageFull, Class::Exhausted), (ErrorKind::PermissionDenied, Class::Denied)]
    {
        let (store, faults) = (prepared(), Faults::new());
        let log = source_log(&faults.around(&store), 51);
        let session = log.begin().unwrap();
        faults.plan(Rule::new(StoreFault::Before).on(Operation::Create).lasting().reported_as(reported));
        let error = log.commit(commit(session, 0, Some(2), 9000)).unwrap_err();
        assert!(matches!(error, ChainError::Store { .. }), "{error}");
        assert_eq!(error.class(), class);
        faults.clear();
        // Space was made: the same commit goes through, once.
        log.commit(commit(session, 0, Some(2), 9000)).unwrap();
        assert_eq!(source_log(&store, 52).load().unwrap().tip().number, LogNumber(BEFORE + 1));
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_fails_no_commit() {
    let (store, faults) = (prepared(), Faults::new());
    faults.plan(Rule::new(StoreFault::Before).on(Operation::Create).within("checkpoint/").lasting());
    let told = scenario(&faults.around(&store));
    assert!(told.failed.is_none() && faults.hits() > 0);
    assert_eq!(store.list(&checkpoints_prefix(LOG), None, None).unwrap().len(), 0);
    assert_nothing_is_lost(&store, BEFORE, &told, "no checkpoint");
}

/// A store that gives up on a call soon; the calls that are made to hang never come back by themselves.
fn impatient(faults: &Faults, store: &Store) -> Store {
    faults.around(store).with_deadlines(Deadlines::all(Duration::from_millis(250)))
}

#[test]
fn a_create_that_arrives_late_finds_its_number_taken_by_its_own_repetition() {
    let (store, faults) = (prepared(), Faults::new());
    let log = source_log(&impatient(&faults, &store), 51);
    let session = log.begin().unwrap();
    faults.plan(Rule::new(StoreFault::Late).on(Operation::Create));
    let point = log.commit(commit(session, 0, Some(2), 9000)).unwrap();
    faults.release();
    let state = source_log(&store, 52).load().unwrap();
    assert_eq!((state.points().last(), state.tip().number), (Some(&point), LogNumber(BEFORE + 1)));
    assert_eq!(source_log(&store, 53).audit().unwrap().damage, []);
}

#[test]
fn a_commit_that_is_left_in_flight_may_appear_until_it_is_fenced() {
    for fenced in [false, true] {
        let (store, faults) = (prepared(), Faults::new());
        let log = source_log(&impatient(&faults, &store), 51);
        let session = log.begin().unwrap();
        faults.plan(Rule::new(StoreFault::Late).on(Operation::Create).lasting());
        let wish = commit(session, 0, Some(2), 9000);
        let error = log.commit(wish.clone()).unwrap_err();
        assert!(matches!(error, ChainError::InFlight { number, .. } if number.0 == BEFORE + 1), "{error}");
        assert!(matches!(error.class(), Class::Timeout | Class::Transient), "{error}");

        let other = source_log(&store, 52);
        if fenced {
            other.append(SourceGoal::Abort(session)).unwrap();
        }
        faults.release();
        faults.clear();
        let appeared = other.refresh().unwrap().by_session(&session).cloned();
        assert_eq!(appeared.is_some(), !fenced);
        // Who asks again learns what became of it.
        match log.commit(wish) {
            Ok(point) => assert_eq!(Some(point), appeared),
            Err(error) => {
                assert!(fenced);
                assert_eq!(error.class(), Class::Conflict);
            }
        }
        assert_eq!(other.refresh().unwrap().tip().number, LogNumber(BEFORE + 1));
    }
}

#[test]
fn errors_name_the_object_and_the_log() {
    let (store, faults) = (prepared(), Faults::new());
    let log = source_log(&faults.around(&store), 51);
    faults.plan(Rule::new(StoreFault::Before).lasting());
    let error = log.load().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("log of source 1") && text.contains("source/00000001/checkpoint"), "{text}");
    let ChainError::Store { source, .. } = error else { panic!("{text}") };
    assert!(matches!(source, StoreError::Failed { .. }));
}
