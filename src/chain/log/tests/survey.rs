//! The repository's log, fetched before there is a key to read it with.

use std::io::ErrorKind;

use super::*;
use crate::chain::{RepoState, Survey};
use crate::store::fault::{Fault, Rule};

/// Adds sources until there are `count`.
fn add(store: &Store, count: u64) {
    let log = RepoLog::open(store.clone(), env(1), REPO);
    for n in log.sources().unwrap().len() as u64..count {
        log.add_source(&format!("source-{n}"), SourceKind::Tree, origin("ash", &format!("/{n}"))).unwrap();
    }
}

fn surveyed(store: &Store, survey: Option<Survey>) -> RepoLog {
    RepoLog::surveyed(store.clone(), env(2), REPO, survey)
}

fn same(a: &RepoState, b: &RepoState) {
    assert_eq!(a.snapshot(), b.snapshot());
    assert_eq!(a.tip(), b.tip());
}

/// A survey of which all answers are there.
fn finished(store: &Store) -> Survey {
    let survey = Survey::begin(store, &env(2)).unwrap();
    while !survey.is_finished() {
        std::thread::yield_now();
    }
    survey
}

#[test]
fn the_repository_log_is_fetched_beside_the_key() {
    let few = 9;
    // Without a checkpoint; with one, and nothing behind it; with entries behind it.
    for sources in [0, few, limits::CHECKPOINT_ENTRIES, limits::CHECKPOINT_ENTRIES + few] {
        let store = Store::memory_as_remote(env(49));
        add(&store, sources);
        let without = |log: RepoLog| requests(&store, || drop(log.load().unwrap()));
        let all = without(surveyed(&store, None));
        let mut survey = None;
        assert_eq!(requests(&store, || survey = Some(finished(&store))), all, "the same requests");
        let log = surveyed(&store, survey);
        assert_eq!(without(log.clone()), (0, 0, 0), "{sources} sources");
        same(&log.load().unwrap(), &surveyed(&store, None).load().unwrap());
        // Later looks are requests as ever.
        add(&store, sources + 1);
        assert_eq!(log.refresh().unwrap().sources().count() as u64, sources + 1);
    }
}

#[test]
fn a_local_log_is_not_fetched_ahead() {
    assert!(Survey::begin(&Store::memory(), &env(2)).is_none());
}

#[test]
fn what_came_after_a_survey_is_found_by_the_next_look() {
    let store = Store::memory_as_remote(env(49));
    add(&store, 3);
    let survey = finished(&store);
    add(&store, 5);
    let log = surveyed(&store, Some(survey));
    assert_eq!(log.load().unwrap().sources().count(), 3);
    assert_eq!(log.refresh().unwrap().sources().count(), 5);
    // A writer finds what stands in its way.
    let survey = finished(&store);
    add(&store, 6);
    let log = surveyed(&store, Some(survey));
    let added = log.add_source("mine", SourceKind::Tree, origin("oak", "/mine")).unwrap();
    assert_eq!(added.id, SourceId(7));
    assert_eq!(log.sources().unwrap().len(), 7);
}

#[test]
fn a_survey_that_waited_for_a_passphrase_counts_for_nothing() {
    let store = Store::memory_as_remote(env(49));
    add(&store, 3);
    let now = env(2).now();
    let age = limits::SURVEY_AGE.as_nanos() as i64;
    // Old enough, too old, and of a clock that has gone back since.
    for (nanos, known) in [(-age, 3), (-age - 1, 4), (1, 4)] {
        let then = Env::seeded(3, Instant::from_nanos(now.nanos() + nanos));
        let survey = Survey::begin(&store, &then);
        while !survey.as_ref().unwrap().is_finished() {
            std::thread::yield_now();
        }
        let add_one = RepoLog::open(store.clone(), env(4), REPO);
        let added = add_one.add_source("late", SourceKind::Tree, origin("ash", "/late")).unwrap();
        assert_eq!(surveyed(&store, survey).load().unwrap().sources().count(), known, "{nanos}");
        add_one.remove_source(added.id).unwrap();
    }
}

#[test]
fn what_a_survey_could_not_get_fails_the_first_reading_and_no_other() {
    let store = Store::memory_as_remote(env(49));
    add(&store, limits::CHECKPOINT_ENTRIES + 3);
    let known = surveyed(&store, None).load().unwrap();
    for operation in [Operation::List, Operation::Get] {
        // What passes is tried again below.
        for nth in 1..=5 {
            let faults = Faults::new();
            let faulty = faults.around(&store);
            faults.plan(Rule::new(Fault::Before).on(operation).nth(nth));
            same(&surveyed(&faulty, Some(finished(&faulty))).load().unwrap(), &known);
        }
        // What lasts is told by the survey's own request: nobody waits for it twice.
        let faults = Faults::new();
        let faulty = faults.around(&store);
        faults.plan(Rule::new(Fault::Before).on(operation).lasting().reported_as(ErrorKind::PermissionDenied));
        let log = surveyed(&faulty, Some(finished(&faulty)));
        faults.clear();
        assert_eq!(log.load().unwrap_err().class(), Class::Denied, "{operation:?}");
        same(&log.load().unwrap(), &known);
    }
    // An entry that is lost afterwards is there for who has it, and missing for the next.
    let survey = finished(&store);
    store.delete(&Object::Entry(LogId::Repo, known.tip().number).name()).unwrap();
    same(&surveyed(&store, Some(survey)).load().unwrap(), &known);
    assert_eq!(surveyed(&store, Some(finished(&store))).load().unwrap().tip().number.0, known.tip().number.0 - 1);
}
