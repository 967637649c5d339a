//! Who has lost his key and can write to the store: he takes away the entries that say so, or puts his own in their place, and
//! goes on from there. What is pinned in the repository's log gives him nothing back, and what he took away is named.

use amberfs::chain::SourceState;
use amberfs::chain::origin;
use amberfs::chain::state::{Damage, Fault};
use amberfs::format::log::{Commit, RepoBody, SourceBody, SourceKind};
use amberfs::format::object::{LogId, Object};
use amberfs::format::{LogNumber, Nonce, SessionId};

use super::roles::{author, forge};
use super::*;

/// A true commit, as one that somebody forges would like to have it.
fn forged(point: &Point, n: u8) -> SourceBody {
    let session = SessionId { base: LogNumber(1), random: Nonce([n; 16]) };
    SourceBody::Commit(Box::new(Commit {
        session,
        name: format!("2033-01-0{n}T00-00-00Z"),
        labels: Vec::new(),
        ..point.commit.clone()
    }))
}

/// The log of a source, as the holder of [`FULL`] sees it now.
fn seen(bench: &Bench, name: &str) -> Arc<SourceState> {
    source(&bench.open(FULL), name).1.load().unwrap()
}

fn names(state: &SourceState) -> Vec<&str> {
    state.points().iter().map(|point| point.name()).collect()
}

/// What the first damage is.
fn fault(state: &SourceState) -> Option<&Fault> {
    state.read().damage.first().map(|Damage { fault, .. }| fault)
}

fn remove(bench: &Bench, at: LogId, number: u64) {
    bench.store.delete(&Object::Entry(at, LogNumber(number)).name()).unwrap();
}

/// A source of a full key with a point, and one more full key, which has been open since before it was shut out.
fn rotated() -> (Bench, Arc<Repo>, Arc<Point>, LogId) {
    let bench = Bench::with_keys();
    fill(&bench.root());
    let point = bench.capture(FULL, "full");
    let removed = bench.open(OTHER_FULL);
    let (record, log) = source(&removed, "full");
    log.load().unwrap();
    super::rotation::rotate_only(&bench, FULL);
    (bench, removed, point, LogId::Source(record.id))
}

#[test]
fn a_key_that_a_rotation_shut_out_gets_nothing_back_by_taking_away_the_entry_that_says_so() {
    let (bench, removed, point, at) = rotated();
    let before = seen(&bench, "full");
    let raised = before.read().number;
    assert_eq!(names(&before), [point.name()]);

    // Taken away, and another behind it.
    remove(&bench, at, raised.0);
    assert_eq!(fault(&seen(&bench, "full")), Some(&Fault::Shortened(raised)), "the log ends before what is pinned");
    forge(&bench, &removed, at, (raised, [0; 16]), forged(&point, 1), author(&removed));
    let state = seen(&bench, "full");
    assert_eq!(names(&state), [point.name()], "what he signs counts for nothing");
    assert_eq!(fault(&state), Some(&Fault::Missing));

    // In its place.
    let (bench, removed, point, at) = rotated();
    let below = LogNumber(raised.0 - 1);
    let name = Object::Entry(at, below).name();
    let hash = {
        let bytes = bench.store.get(&name, 1 << 20).unwrap();
        *<&[u8; 16]>::try_from(&blake3::hash(&bytes).as_bytes()[..16]).unwrap()
    };
    remove(&bench, at, raised.0);
    forge(&bench, &removed, at, (below, hash), forged(&point, 2), author(&removed));
    for n in 3..5 {
        let tip = seen(&bench, "full").read().number;
        forge(&bench, &removed, at, (tip, [0; 16]), forged(&point, n), author(&removed));
    }
    let state = seen(&bench, "full");
    assert_eq!(names(&state), [point.name()]);
    assert_eq!(fault(&state), Some(&Fault::Replaced));
    let refused = bench.try_capture(&bench.open(FULL), "full", &Options::default()).unwrap_err();
    assert!(refused.to_string().contains("was replaced"), "{refused}");
}

#[test]
fn a_writer_that_was_revoked_gets_nothing_back_by_taking_away_the_entry_that_says_so() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    let point = bench.capture(WRITER, "written");
    let writer = bench.open(WRITER);
    let (record, _) = source(&writer, "written");
    let at = LogId::Source(record.id);
    let full = bench.open(FULL);
    let key = seen(&bench, "written").writer().unwrap();
    assert!(sources(&full).revoke(key).unwrap().is_empty());
    // Again, as after an interruption: nothing is written twice.
    let before = objects(&bench.store).len();
    assert!(sources(&bench.open(FULL)).revoke(key).unwrap().is_empty());
    assert_eq!(objects(&bench.store).len(), before);

    let says_so = seen(&bench, "written").read().number;
    remove(&bench, at, says_so.0);
    forge(&bench, &writer, at, (says_so, [0; 16]), forged(&point, 1), author(&writer));
    let state = seen(&bench, "written");
    assert_eq!((names(&state), state.writer()), (vec![point.name()], None));
    assert!(state.read().obstacle().is_some());
}

#[test]
fn whom_a_source_was_given_to_can_take_it_to_another_host_and_who_had_it_cannot() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    bench.capture(WRITER, "written");
    let slots = bench.open(FULL).slots().unwrap();
    let other = slots.iter().find(|slot| slot.name.as_deref() == Some("key 4")).unwrap().key.unwrap();
    let moved = |n: u8, to: &[u8]| {
        sources(&bench.open(n)).claim_source("written", SourceKind::Tree, origin::here(to), true).map(|_| ())
    };
    moved(WRITER, b"/first").unwrap();
    moved(OTHER_WRITER, b"/never").unwrap_err();
    sources(&bench.open(FULL)).grant(source(&bench.open(FULL), "written").0.id, other).unwrap();
    moved(OTHER_WRITER, b"/second").unwrap();
    moved(WRITER, b"/third").unwrap_err();
}

#[test]
fn a_writer_does_not_take_over_the_name_of_a_source_by_damaging_the_repository_s_log() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    let point = bench.capture(FULL, "full");
    bench.capture(WRITER, "written");
    let writer = bench.open(WRITER);
    let log = sources(&writer);
    let tip = log.load().unwrap().read().number;
    bench.store.create(&Object::Entry(LogId::Repo, LogNumber(tip.0 + 1)).name(), b"junk".to_vec()).unwrap();
    let body = RepoBody::AddSource { name: "full".into(), kind: SourceKind::Tree, origin: origin::here(b"/elsewhere") };
    forge(&bench, &writer, LogId::Repo, (LogNumber(tip.0 + 1), [0; 16]), body, author(&writer));
    for n in [FULL, WRITER, COLLECTOR] {
        let state = sources(&bench.open(n)).load().unwrap();
        assert_eq!(state.by_name("full").map(|record| record.id), Some(source(&bench.open(FULL), "full").0.id));
        assert_eq!(state.read().number.0, tip.0 + 2);
    }
    reads(&bench, FULL, "full", &point);
}
