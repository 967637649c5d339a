mod faults;
mod survey;

use std::sync::Arc;

use crate::base::{Class, Classed, Env, Instant, limits};
use crate::chain::state::{Damage, Fault, LogState, SourceGoal};
use crate::chain::testing::{commit, origin};
use crate::chain::{ChainError, Point, RepoLog, SourceLog, SourceState};
use crate::format::log::SourceKind;
use crate::format::object::{LogId, Object, ObjectName, checkpoints_prefix, entries_prefix};
use crate::format::{ChainId, Epoch, LogNumber, PointId, RepoId, SourceId, envelope};
use crate::seal::Secret;
use crate::store::fault::Faults;
use crate::store::record::Recorder;
use crate::store::{Operation, Store};

const REPO: RepoId = RepoId([9; 16]);
const SOURCE: SourceId = SourceId(1);
const LOG: LogId = LogId::Source(SOURCE);

fn env(seed: u64) -> Env {
    Env::seeded(seed, Instant::from_nanos(1_795_176_000_000_000_000))
}

fn source_log(store: &Store, seed: u64) -> SourceLog {
    SourceLog::open(store.clone(), env(seed), REPO, SOURCE)
}

/// Appends a full point and incrementals until the log has `entries` entries.
fn fill(store: &Store, entries: u64) -> SourceLog {
    let log = source_log(store, 1);
    let session = log.begin().unwrap();
    let chain = log.open_chain(&session).unwrap();
    let mut point = log.commit(commit(session, chain.0, None, 0)).unwrap();
    for second in 3..=entries {
        let session = log.begin().unwrap();
        point = log.commit(commit(session, chain.0, Some(point.id.0), second as i64)).unwrap();
    }
    assert_eq!(log.load().unwrap().tip().number, LogNumber(entries));
    log
}

fn entry_name(number: u64) -> ObjectName {
    Object::Entry(LOG, LogNumber(number)).name()
}

/// Both know the same, however they came to know it.
fn assert_same(a: &SourceState, b: &SourceState) {
    assert_eq!(a.snapshot(), b.snapshot());
    assert_eq!((a.tip().number, a.tip().hash), (b.tip().number, b.tip().hash));
}

#[test]
fn points_committed_through_one_log_are_read_through_another() {
    let dir = tempfile::tempdir().unwrap();
    for store in [Store::memory(), Store::local(dir.path()).unwrap()] {
        let log = source_log(&store, 1);
        let session = log.begin().unwrap();
        assert_eq!(session.base, LogNumber(0));
        assert_eq!(log.open_chain(&session).unwrap(), ChainId(0));
        let full = log.commit(commit(session, 0, None, 0)).unwrap();
        assert_eq!((full.id, full.position, full.name()), (PointId(2), 0, "1970-01-01T00-00-00Z"));
        let session = log.begin().unwrap();
        let next = log.commit(commit(session, 0, Some(2), 0)).unwrap();
        assert_eq!((next.id, next.position, next.name()), (PointId(3), 1, "1970-01-01T00-00-00Z+2"));

        let other = source_log(&store, 2).load().unwrap();
        assert_same(&other, &log.load().unwrap());
        assert_eq!(other.points().len(), 2);
        assert_eq!(other.tip().damage, []);
    }
}

/// Requests that `act` makes: LIST, GET, Create.
fn requests(store: &Store, act: impl FnOnce()) -> (u64, u64, u64) {
    let before = store.meter().snapshot();
    act();
    let spent = store.meter().snapshot().since(&before);
    let of = |operation| spent.of(operation).requests;
    let counted = (of(Operation::List), of(Operation::Get), of(Operation::Create));
    assert_eq!(spent.requests(), counted.0 + counted.1 + counted.2, "requests of another kind");
    counted
}

#[test]
fn requests_are_as_few_as_promised() {
    let store = Store::memory();
    let load = |seed| requests(&store, || drop(source_log(&store, seed).load().unwrap()));
    // Checkpoints, entries, proof of the head.
    assert_eq!(load(2), (2, 1, 0));

    let log = fill(&store, 10);
    assert_eq!(load(3), (2, 10 + 1, 0));
    assert_eq!(requests(&store, || drop(log.load().unwrap())), (0, 0, 0));
    assert_eq!(requests(&store, || drop(log.refresh().unwrap())), (0, 1, 0));

    let session = log.begin().unwrap();
    // See that nobody was faster, write, read back.
    assert_eq!(requests(&store, || drop(log.commit(commit(session, 0, Some(10), 90)).unwrap())), (1, 2, 1));
    let other = source_log(&store, 4);
    drop(other.load().unwrap());
    let session = log.begin().unwrap();
    drop(log.commit(commit(session, 0, Some(11), 91)).unwrap());
    // The new entry, and proof that it is the last.
    assert_eq!(requests(&store, || drop(other.refresh().unwrap())), (0, 3, 0));

    let store = Store::memory();
    let claim = |seed| {
        let log = RepoLog::open(store.clone(), env(seed), REPO);
        drop(log.add_source("home", SourceKind::Tree, origin("ash", "/home")).unwrap());
    };
    claim(5);
    // Of a source that is there, as each capture does: the log is read, and seen to go no further.
    assert_eq!(requests(&store, || claim(6)), (2 + 1, 1 + 1 + 1, 0));
}

#[test]
fn a_long_log_is_read_from_its_newest_checkpoint() {
    let store = Store::memory();
    let log = fill(&store, 3 * limits::CHECKPOINT_ENTRIES + 5);
    let checkpoints = store.list(&checkpoints_prefix(LOG), None, None).unwrap();
    assert_eq!(checkpoints.len(), 3);
    let mut loaded = None;
    let spent = requests(&store, || loaded = Some(source_log(&store, 2).load().unwrap()));
    assert_eq!(spent, (2, 1 + 5 + 1, 0));
    assert_same(&loaded.unwrap(), &log.load().unwrap());
}

#[test]
fn over_a_network_a_log_is_read_in_two_journeys_and_in_three_behind_a_checkpoint() {
    let recorder = Recorder::new();
    let store = recorder.around(&Store::memory_as_remote(env(49)));
    let log = fill(&store, limits::CHECKPOINT_ENTRIES - 1);
    let load = || source_log(&store, 2).load().unwrap();
    recorder.take();
    recorder.expect_together((Operation::List, "checkpoint"), (Operation::List, "/log"), 1);
    assert_same(&load(), &log.load().unwrap());
    assert_eq!(recorder.take().iter().filter(|call| call.operation == Operation::List).count(), 2);

    fill_on(&store, limits::CHECKPOINT_ENTRIES + 5);
    recorder.take();
    // The first was made beside the list of checkpoints.
    recorder.expect_together((Operation::Get, "checkpoint"), (Operation::List, "/log"), 2);
    let loaded = load();
    // The list beside the checkpoints is of no use here.
    assert_eq!(recorder.take().iter().filter(|call| call.operation == Operation::List).count(), 3);
    log.refresh().unwrap();
    assert_same(&loaded, &log.load().unwrap());
}

#[test]
fn junk_beside_the_first_page_of_entries_hides_none() {
    let store = Store::memory_as_remote(env(50));
    let log = fill(&store, 5);
    // A page that sorts before the entries, so that the page shows none of them; and none is proved missing.
    for n in 0..limits::LISTING_PAGE_NAMES {
        let name = ObjectName::listed(&format!("{}!{n}", entries_prefix(LOG)));
        store.create(&name, b"junk".to_vec()).unwrap();
    }
    store.delete(&entry_name(3)).unwrap();
    let state = source_log(&store, 2).load().unwrap();
    assert_eq!(state.tip().number, LogNumber(5), "a hole with entries behind it is seen by a list of all");
    assert_eq!(log.load().unwrap().tip().number, LogNumber(5));
}

#[test]
fn a_writer_that_is_far_behind_catches_up_side_by_side() {
    let store = Store::memory();
    let behind = source_log(&store, 7);
    drop(behind.load().unwrap());
    fill(&store, 40);
    let session = behind.begin().unwrap();
    assert_eq!(session.base, LogNumber(40));
    assert_eq!(behind.load().unwrap().points().len(), 39);
}

#[test]
fn two_writers_at_once_both_have_their_points() {
    const EACH: i64 = 20;
    let dir = tempfile::tempdir().unwrap();
    for store in [Store::memory(), Store::local(dir.path()).unwrap()] {
        fill(&store, 2);
        let acknowledged: Vec<Arc<Point>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..2)
                .map(|seed| {
                    let log = source_log(&store, 100 + seed);
                    scope.spawn(move || {
                        let commit_next = |_| {
                            let session = log.begin().unwrap();
                            log.commit(commit(session, 0, Some(2), 77)).unwrap()
                        };
                        (0..EACH).map(commit_next).collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let state = source_log(&store, 3).load().unwrap();
        assert_eq!(state.points().len() as i64, 1 + 2 * EACH);
        for point in &acknowledged {
            assert_eq!(state.point(point.id), Some(point));
        }
        assert_eq!(state.tip().damage, []);
        assert_eq!(source_log(&store, 4).audit().unwrap().void, []);
    }
}

#[test]
fn two_hosts_that_race_for_a_name_do_not_both_get_it() {
    for round in 0..20 {
        let store = Store::memory();
        let claims = std::thread::scope(|scope| {
            let claim = |seed: u64, host: &'static str| {
                let log = RepoLog::open(store.clone(), env(1000 * round + seed), REPO);
                scope.spawn(move || log.add_source("home", SourceKind::Tree, origin(host, "/home")))
            };
            [claim(1, "ash"), claim(2, "oak")].map(|worker| worker.join().unwrap())
        });
        let (won, lost): (Vec<_>, Vec<_>) = claims.into_iter().partition(Result::is_ok);
        let (won, lost) = (won.into_iter().next().unwrap().unwrap(), lost.into_iter().next().unwrap().unwrap_err());
        assert_eq!(lost.class(), Class::Conflict);
        let message = lost.to_string();
        assert!(message.contains("ash:/home") && message.contains("oak:/home"), "{message}");
        let state = RepoLog::open(store, env(3), REPO).load().unwrap();
        assert_eq!(state.sources().collect::<Vec<_>>(), [&won]);
    }
}

#[test]
fn a_source_is_claimed_once_moved_only_when_adopted_and_its_name_freed_by_removal() {
    let store = Store::memory();
    let log = RepoLog::open(store.clone(), env(1), REPO);
    let home = log.add_source("home", SourceKind::Tree, origin("ash", "/home")).unwrap();
    assert_eq!(log.add_source("home", SourceKind::Tree, origin("ash", "/home")).unwrap(), home);
    assert_eq!(log.load().unwrap().tip().number, LogNumber(1), "claiming again writes nothing");

    let elsewhere = origin("oak", "/home");
    assert_eq!(log.add_source("home", SourceKind::Tree, elsewhere.clone()).unwrap_err().class(), Class::Conflict);
    assert_eq!(
        log.add_source("home", SourceKind::Stream, origin("ash", "/home")).unwrap_err().class(),
        Class::Conflict
    );
    assert_eq!(log.add_source("a/b", SourceKind::Tree, elsewhere.clone()).unwrap_err().class(), Class::Invalid);
    let moved = log.claim_source("home", SourceKind::Tree, elsewhere.clone(), true).unwrap();
    assert_eq!((moved.id, &moved.origin), (home.id, &elsewhere));

    let writer = SourceLog::open(store.clone(), env(2), REPO, home.id);
    let session = writer.begin().unwrap();
    log.remove_source(home.id).unwrap();
    log.remove_source(home.id).unwrap();
    assert_eq!(log.sources().unwrap(), []);
    assert_eq!(writer.open_chain(&session).unwrap_err().class(), Class::Conflict);
    assert_eq!(writer.begin().unwrap_err().class(), Class::Conflict);
    assert_eq!(log.remove_source(SourceId(77)).unwrap_err().class(), Class::NotFound);

    let again = log.add_source("home", SourceKind::Tree, elsewhere).unwrap();
    assert!(again.id > home.id);
    assert_eq!(RepoLog::open(store, env(3), REPO).sources().unwrap(), [again]);
}

/// A damaged entry of the repository's log is in the way of the sources that it may have been about, and of no other.
#[test]
fn a_source_that_was_added_above_the_damage_is_captured_as_before() {
    let repo_log = |store: &Store, seed| RepoLog::open(store.clone(), env(seed), REPO);
    let claim = |log: &RepoLog, name: &str, host| log.claim_source(name, SourceKind::Tree, origin(host, "/d"), false);
    for fault in [Harm::Delete, Harm::Flip(70), Harm::Replace(3)] {
        for damaged in 1..=4 {
            let store = Store::memory();
            let log = repo_log(&store, 1);
            let sources: Vec<_> = ["a", "b", "c", "d"].map(|name| claim(&log, name, "ash").unwrap()).into();
            harm_entry(&store, LogId::Repo, damaged, if damaged == 3 { Harm::Zero } else { fault });
            let log = repo_log(&store, 2);
            for (name, source) in ["a", "b", "c", "d"].into_iter().zip(&sources) {
                let what = format!("{fault:?} of {damaged}, {name}");
                let claimed = claim(&log, name, "ash");
                // The last entry's absence shows nowhere.
                let unseen = damaged == 4 && fault == Harm::Delete;
                if source.id.0 > damaged || (unseen && name != "d") {
                    assert_eq!(claimed.unwrap(), *source, "{what}");
                    let points = SourceLog::open(store.clone(), env(3), REPO, source.id);
                    let session = points.begin().unwrap();
                    points.open_chain(&session).unwrap();
                } else if !unseen {
                    let error = claimed.unwrap_err();
                    assert_eq!(error.class(), Class::Corrupt, "{what}: {error}");
                    assert!(error.to_string().contains("restore it from a copy of the repository"), "{what}: {error}");
                }
                if !unseen {
                    // Neither another origin nor a new name gets past the damage.
                    assert_eq!(claim(&log, name, "oak").unwrap_err().class(), Class::Corrupt, "{what}");
                    assert_eq!(claim(&log, "new", "ash").unwrap_err().class(), Class::Corrupt, "{what}");
                    assert!(store.size(&Object::Entry(LogId::Repo, LogNumber(5)).name()).is_err(), "{what}");
                }
            }
        }
    }
}

#[test]
fn the_number_of_a_source_whose_entry_was_lost_goes_to_no_other() {
    let store = Store::memory();
    let claim = |seed, name: &str| {
        let log = RepoLog::open(store.clone(), env(seed), REPO);
        log.claim_source(name, SourceKind::Tree, origin("ash", "/d"), false)
    };
    let lost = claim(1, "a").unwrap();
    harm_entry(&store, LogId::Repo, lost.id.0, Harm::Delete);
    // Nothing was ever captured of it, so nothing is mixed up.
    let second = claim(2, "b").unwrap();
    assert_eq!(second.id, lost.id);
    let points = SourceLog::open(store.clone(), env(3), REPO, second.id);
    points.open_chain(&points.begin().unwrap()).unwrap();
    harm_entry(&store, LogId::Repo, second.id.0, Harm::Delete);
    for name in ["a", "b", "c"] {
        let error = claim(4, name).unwrap_err();
        assert_eq!(error.class(), Class::Corrupt);
        let entry = Object::Entry(LogId::Repo, LogNumber(second.id.0)).name();
        assert!(error.to_string().contains(entry.as_str()), "{error}");
        assert!(error.to_string().contains("restore it from a copy of the repository"), "{error}");
    }
}

/// What somebody else has done to the log since a process read it, does not hide from that process that an entry is lost.
#[test]
fn a_process_that_has_read_the_log_before_notices_a_lost_source_as_well() {
    let store = Store::memory();
    let claim = |log: &RepoLog, name: &str| log.claim_source(name, SourceKind::Tree, origin("ash", "/d"), false);
    let open = |seed| RepoLog::open(store.clone(), env(seed), REPO);
    let (other, before) = (open(1), [open(2), open(3)]);
    let first = claim(&other, "a").unwrap();
    for log in &before {
        assert_eq!(log.sources().unwrap().len(), 1);
    }
    other.remove_source(first.id).unwrap();
    let lost = claim(&other, "b").unwrap();
    let points = SourceLog::open(store.clone(), env(4), REPO, lost.id);
    points.open_chain(&points.begin().unwrap()).unwrap();
    harm_entry(&store, LogId::Repo, lost.id.0, Harm::Delete);
    for (name, log) in ["a", "c"].into_iter().zip(&before) {
        assert_eq!(claim(log, name).unwrap_err().class(), Class::Corrupt, "{name}");
    }
}

/// Each process finds out for itself, before it writes, whether the store is fit for it; readers write nothing.
#[test]
fn nothing_is_appended_to_a_store_that_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    fill(&Store::local(dir.path()).unwrap(), 3);
    let objects = || Store::local(dir.path()).unwrap().list("", None, None).unwrap();
    let before = objects();
    let faults = Faults::new();
    let store = faults.around(&Store::local(dir.path()).unwrap());
    faults.ignore_create(true);
    let log = source_log(&store, 4);
    assert_eq!(log.refresh().unwrap().points().len(), 2);
    let error = log.begin().unwrap_err();
    assert!(matches!(error, ChainError::Unsafe { .. }), "{error}");
    assert_eq!(error.class(), Class::Unsupported);
    assert_eq!(objects(), before);
    // It may have been another mount's fault; asked again, it is probed again.
    faults.ignore_create(false);
    log.begin().unwrap();
}

#[test]
fn a_fenced_session_opens_and_commits_nothing() {
    let store = Store::memory();
    let (log, fencer) = (fill(&store, 3), source_log(&store, 9));
    let (aborted, early) = (log.begin().unwrap(), log.begin().unwrap());
    fencer.append(SourceGoal::Abort(aborted)).unwrap();
    let at = fencer.append(SourceGoal::Abort(aborted)).unwrap();
    assert_eq!(at, LogNumber(4), "aborting again writes nothing");
    let error = log.commit(commit(aborted, 0, Some(3), 9)).unwrap_err();
    assert_eq!(error.class(), Class::Conflict);
    assert_eq!(log.open_chain(&aborted).unwrap_err().class(), Class::Conflict);
    let point = log.commit(commit(early, 0, Some(3), 9)).unwrap();
    let early = log.begin().unwrap();
    fencer.append(SourceGoal::Floor(LogNumber(6))).unwrap();
    assert_eq!(log.commit(commit(early, 0, Some(3), 10)).unwrap_err().class(), Class::Conflict);
    let later = log.begin().unwrap();
    log.commit(commit(later, 0, Some(point.id.0), 11)).unwrap();
    assert_eq!(fencer.refresh().unwrap().points().len(), 4);
}

#[test]
fn a_commit_that_is_given_again_yields_the_first_ones_point() {
    let store = Store::memory();
    let log = fill(&store, 3);
    let session = log.begin().unwrap();
    // The name is taken, so that the point's is not the wish.
    let wish = commit(session, 0, Some(2), 3);
    let first = log.commit(wish.clone()).unwrap();
    assert_eq!(first.name(), "1970-01-01T00-00-03Z+2");
    let again = source_log(&store, 8).commit(wish.clone()).unwrap();
    assert_eq!(again, first);
    let other = crate::format::log::Commit { reason: "another".into(), ..wish };
    assert_eq!(log.commit(other).unwrap_err().class(), Class::Conflict);
}

#[test]
fn an_entry_that_no_reader_would_accept_is_not_written() {
    let store = Store::memory();
    let log = fill(&store, 3);
    let session = log.begin().unwrap();
    let huge = crate::format::log::Commit {
        reason: "x".repeat(limits::LOG_ENTRY_BYTES_MAX + 1),
        ..commit(session, 0, Some(2), 9)
    };
    let error = log.commit(huge).unwrap_err();
    assert!(matches!(error, ChainError::Unwritable { .. }), "{error}");
    assert_eq!(error.class(), Class::Invalid);
    assert_eq!(source_log(&store, 2).load().unwrap().tip().number, LogNumber(3));
}

#[test]
fn a_listing_that_claims_the_end_of_the_world_sends_nobody_there() {
    let store = Store::memory();
    fill(&store, 5);
    let (name, bytes) = (entry_name(u64::MAX), b"x".to_vec());
    store.create(&name, bytes).unwrap();
    let log = source_log(&store, 2);
    assert_eq!(log.load().unwrap().points().len(), 4);
    // A writer cannot tell it from a log whose middle is lost.
    assert_eq!(log.begin().unwrap_err().class(), Class::Corrupt);
    assert_ne!(log.audit().unwrap().damage, []);
}

/// What is done to one object.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    Delete,
    Truncate(usize),
    Flip(usize),
    Zero,
    Replace(u64),
    /// Junk that says it is sealed with keys that nobody has.
    Seal,
}

/// What anybody can make, whatever keys there are.
fn junk_that_is_sealed(name: &ObjectName) -> Vec<u8> {
    let kind = match Object::parse(name) {
        Some(Object::Entry(LogId::Repo, _)) => envelope::Kind::RepoEntry,
        _ => envelope::Kind::SourceEntry,
    };
    let (epoch, key) = (Epoch(999), Secret::new([9; 32]));
    envelope::seal(REPO, name, kind, b"junk", Some(envelope::With { epoch, key: &key }))
}

fn harm(store: &Store, number: u64, harm: Harm) {
    harm_entry(store, LOG, number, harm);
}

fn harm_entry(store: &Store, log: LogId, number: u64, harm: Harm) {
    let name = Object::Entry(log, LogNumber(number)).name();
    let mut bytes = store.get(&name, 1 << 20).unwrap().to_vec();
    match harm {
        Harm::Delete => return store.delete(&name).unwrap(),
        Harm::Truncate(to) => bytes.truncate(to.min(bytes.len() - 1)),
        Harm::Flip(at) => {
            let at = at % bytes.len();
            bytes[at] ^= 1;
        }
        Harm::Zero => bytes.fill(0),
        Harm::Seal => bytes = junk_that_is_sealed(&name),
        Harm::Replace(sibling) => {
            let sibling = Object::Entry(log, LogNumber(sibling)).name();
            bytes = store.get(&sibling, 1 << 20).unwrap().to_vec();
        }
    }
    store.delete(&name).unwrap();
    store.create(&name, bytes).unwrap();
}

#[test]
fn a_damaged_entry_costs_its_own_point_only_and_stops_writers() {
    let flips = (0..64).map(|at| Harm::Flip(at * 11));
    let kinds =
        [Harm::Delete, Harm::Zero, Harm::Seal, Harm::Truncate(0), Harm::Truncate(100), Harm::Truncate(usize::MAX)];
    for kind in kinds.into_iter().chain([Harm::Replace(6), Harm::Replace(2)]).chain(flips) {
        for number in 1..=5 {
            if kind == Harm::Replace(number) {
                continue;
            }
            let store = Store::memory();
            let whole = fill(&store, 7).load().unwrap();
            harm(&store, number, kind);
            let log = source_log(&store, 2);
            let state = log.load().unwrap();
            let kept: Vec<_> = whole.points().iter().filter(|point| point.id.0 != number).collect();
            let shown: Vec<_> = state.points().iter().collect();
            let ids = |points: &[&Arc<Point>]| points.iter().map(|p| p.id).collect::<Vec<_>>();
            assert_eq!(ids(&shown), ids(&kept), "{kind:?} of entry {number}");
            assert!(shown.iter().zip(&kept).all(|(a, b)| a.commit == b.commit));
            assert_eq!(state.tip().obstacle().map(|damage| damage.number), Some(LogNumber(number)));
            assert_eq!(state.tip().number, LogNumber(7));

            let error = log.begin().unwrap_err();
            assert_eq!(error.class(), if kind == Harm::Seal { Class::Denied } else { Class::Corrupt });
            let message = error.to_string();
            assert!(message.contains(entry_name(number).as_str()) && message.contains("amberfs verify"), "{message}");
            let damage = log.audit().unwrap().damage;
            assert_eq!(damage.iter().map(|d| d.number.0).collect::<Vec<_>>(), [number], "{kind:?}");
        }
    }
}

#[test]
fn a_lost_last_entry_is_shown_by_a_list_only_if_it_is_listed() {
    // Nothing is left that tells of entry 7: the log is one that ends at 6.
    let store = Store::memory();
    fill(&store, 7);
    harm(&store, 7, Harm::Delete);
    let log = source_log(&store, 2);
    assert_eq!(log.load().unwrap().tip().damage, []);
    assert_eq!(log.begin().unwrap().base, LogNumber(6));
}

#[test]
fn a_writer_that_read_on_before_the_hole_refuses_behind_it() {
    let store = Store::memory();
    let early = source_log(&store, 5);
    fill(&store, 3);
    drop(early.load().unwrap());
    fill_on(&store, 6);
    harm(&store, 5, Harm::Delete);
    let error = early.begin().unwrap_err();
    assert!(error.to_string().contains(entry_name(5).as_str()), "{error}");
}

/// Appends incrementals on point 2 until the log has `entries` entries.
fn fill_on(store: &Store, entries: u64) {
    let log = source_log(store, 1234);
    while log.refresh().unwrap().tip().number.0 < entries {
        let session = log.begin().unwrap();
        drop(log.commit(commit(session, 0, Some(2), 500)).unwrap());
    }
}

#[test]
fn another_history_is_found_although_the_one_entry_that_was_seen_is_withheld() {
    let heads = tempfile::tempdir().unwrap();
    // As this host meets the store: what it remembers outlives what the store is by then.
    let met = |store: &Store| {
        let met = Store::memory();
        for object in store.list("", None, None).unwrap() {
            met.create(&object.name, store.get(&object.name, 1 << 26).unwrap().to_vec()).unwrap();
        }
        met.remember_heads_in(heads.path().to_owned());
        source_log(&met, 3)
    };
    let store = Store::memory();
    fill(&store, 5);
    assert_eq!(met(&store).load().unwrap().tip().damage, []);
    fill_on(&store, limits::CHECKPOINT_ENTRIES + 2);
    for planted in [false, true] {
        store.delete(&entry_name(5)).unwrap();
        if planted {
            store.create(&entry_name(5), junk_that_is_sealed(&entry_name(5))).unwrap();
        }
        let log = met(&store);
        let state = log.load().unwrap();
        assert!(matches!(state.tip().damage[..], [Damage { fault: Fault::Withheld(_), .. }]), "{:?}", state.tip());
        assert_eq!(state.tip().number.0, limits::CHECKPOINT_ENTRIES + 2, "readers go on");
        assert!(log.begin().unwrap_err().to_string().contains("accept-history"));
        if !planted {
            store.create(&entry_name(5), b"whatever".to_vec()).unwrap();
        }
    }
}

#[test]
fn an_entry_from_another_history_is_found_by_the_hash_chain() {
    let (store, other) = (Store::memory(), Store::memory());
    fill(&store, 5);
    let log = source_log(&other, 77);
    let session = log.begin().unwrap();
    log.open_chain(&session).unwrap();
    log.commit(commit(session, 0, None, 4444)).unwrap();
    // Valid in itself, at its own number, in a copy of the repository that has gone another way.
    let foreign = other.get(&entry_name(2), 1 << 20).unwrap().to_vec();
    store.delete(&entry_name(2)).unwrap();
    store.create(&entry_name(2), foreign).unwrap();
    let log = source_log(&store, 2);
    assert!(!log.load().unwrap().tip().damage.is_empty());
    assert_eq!(log.begin().unwrap_err().class(), Class::Corrupt);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_stops_nobody() {
    let entries = 2 * limits::CHECKPOINT_ENTRIES + 3;
    let store = Store::memory();
    let whole = fill(&store, entries).load().unwrap();
    let listed = store.list(&checkpoints_prefix(LOG), None, None).unwrap();
    for checkpoint in listed {
        let mut bytes = store.get(&checkpoint.name, 1 << 26).unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 0x80;
        store.delete(&checkpoint.name).unwrap();
        store.create(&checkpoint.name, bytes).unwrap();
        // The older one first, then none at all.
        let log = source_log(&store, 2);
        let state = log.load().unwrap();
        assert_same(&state, &whole);
        assert!(matches!(state.tip().damage[0].fault, Fault::Checkpoint(_)));
        log.begin().unwrap();
        assert!(!log.audit().unwrap().damage.is_empty());
    }
}

#[test]
fn a_checkpoint_whose_own_entry_is_lost_shows_the_points_and_stops_writers() {
    let entries = limits::CHECKPOINT_ENTRIES;
    let store = Store::memory();
    let whole = fill(&store, entries).load().unwrap();
    harm(&store, entries, Harm::Delete);
    let log = source_log(&store, 2);
    assert_same(&log.load().unwrap(), &whole);
    let error = log.begin().unwrap_err();
    assert!(error.to_string().contains(entry_name(entries).as_str()), "{error}");
    assert!(!log.audit().unwrap().damage.is_empty());
}

#[test]
fn an_audit_of_a_whole_log_finds_nothing_and_agrees_with_every_reader() {
    let store = Store::memory();
    let whole = fill(&store, 2 * limits::CHECKPOINT_ENTRIES + 3).load().unwrap();
    let audit = source_log(&store, 2).audit().unwrap();
    assert_same(&audit.state, &whole);
    assert_eq!((audit.entries, audit.checkpoints), (2 * limits::CHECKPOINT_ENTRIES + 3, 2));
    assert_eq!((audit.damage.len(), audit.void.len()), (0, 0));
}
