//! Who has lost his key and can write to the store: he takes away the entries that say so, or puts his own in their place, and
//! goes on from there. What is pinned in the repository's log gives him nothing back, and what he took away is named.

use amberfs::base::limits;
use amberfs::chain::origin;
use amberfs::chain::state::{Damage, Fault, LogState, SourceGoal};
use amberfs::chain::{ChainError, RepoLog, SourceState};
use amberfs::format::log::{Checkpoint, Commit, RepoBody, SourceBody, SourceKind, SourceSnapshot, encode_checkpoint};
use amberfs::format::object::{LogId, Object};
use amberfs::format::{KeyId, LogNumber, Nonce, SessionId};
use amberfs::store::Operation;
use amberfs::view::MountSettings;

use super::roles::{author, forge, names_in};
use super::*;

/// A true commit, as one that somebody forges would like to have it: it counts if he may add points.
fn forged(point: &Point, n: u8) -> SourceBody {
    let session = SessionId { base: LogNumber(1), random: Nonce([n; 16]) };
    SourceBody::Commit(Arc::new(Commit {
        session,
        parent: Some(point.id),
        name: format!("2033-01-01T00-00-{:02}Z+{}", n % 60, n / 60 + 2),
        labels: Vec::new(),
        ..(*point.commit).clone()
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

/// The hash that the entry behind this one names.
fn hash(bench: &Bench, at: LogId, number: LogNumber) -> [u8; 16] {
    let bytes = bench.store.get(&Object::Entry(at, number).name(), 1 << 20).unwrap();
    *<&[u8; 16]>::try_from(&blake3::hash(&bytes).as_bytes()[..16]).unwrap()
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
    let hash = hash(&bench, at, below);
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

/// A writer with a source and a point in it, who is revoked later.
struct Revoked {
    bench: Bench,
    writer: Arc<Repo>,
    key: KeyId,
    point: Arc<Point>,
    at: LogId,
    record: SourceRecord,
}

impl Revoked {
    fn soon() -> Revoked {
        let bench = Bench::with_keys();
        fill(&bench.root());
        let point = bench.capture(WRITER, "written");
        let (writer, record) = (bench.open(WRITER), source(&bench.open(FULL), "written").0);
        let key = seen(&bench, "written").writer().unwrap();
        Revoked { bench, writer, key, point, at: LogId::Source(record.id), record }
    }

    /// The log, as a process with the full key has it that stays open.
    fn stays_open(&self) -> SourceLog {
        let sources = sources(&self.bench.open(FULL));
        sources.load().unwrap();
        let log = sources.source_log(self.record.id);
        assert_eq!(log.load().unwrap().writer(), Some(self.key));
        log
    }

    /// Another process revokes the key; in the place of the entry that says so its holder puts a point, and more behind it. What
    /// he took away.
    fn revoke_and_replace(&self, points: u8) -> (ObjectName, Vec<u8>) {
        assert!(self.sources().revoke(self.key).unwrap().is_empty());
        let says_so = seen(&self.bench, "written").read().number;
        let name = Object::Entry(self.at, says_so).name();
        let bytes = self.bench.store.get(&name, 1 << 20).unwrap().to_vec();
        self.bench.store.delete(&name).unwrap();
        for n in 0..points {
            let below = LogNumber(says_so.0 - 1 + u64::from(n));
            let tip = (below, hash(&self.bench, self.at, below));
            forge(&self.bench, &self.writer, self.at, tip, forged(&self.point, n + 1), author(&self.writer));
        }
        (name, bytes)
    }

    /// The repository's log, in another process.
    fn sources(&self) -> RepoLog {
        sources(&self.bench.open(FULL))
    }

    fn later(&self) {
        self.bench.env.advance(limits::PINS_AGE + Duration::from_secs(1));
    }

    fn checkpoints(&self) -> Vec<ObjectName> {
        names_of(&objects(&self.bench.store), |object| matches!(object, Object::Checkpoint(of, _) if of == self.at))
    }

    /// That his points count for nothing, and that he was shut out, and that something is amiss is said.
    #[track_caller]
    fn has_nothing(&self, state: &SourceState) {
        assert_eq!((names(state), state.writer()), (vec![self.point.name()], None));
        assert_eq!(state.read().obstacle().map(|damage| &damage.fault), Some(&Fault::Replaced));
    }
}

#[test]
fn a_process_that_stays_open_believes_whoever_was_shut_out_for_as_long_as_it_does_not_ask_and_no_longer() {
    let case = Revoked::soon();
    let [deceived, reads, appends] = [0; 3].map(|_| case.stays_open());
    case.revoke_and_replace(3);
    // Not longer than a minute: what it knows of the repository's log is older than the removal.
    assert_eq!(deceived.refresh().unwrap().points().len(), 4);
    case.later();
    case.has_nothing(&deceived.refresh().unwrap());
    case.has_nothing(&deceived.load().unwrap());
    case.has_nothing(&reads.refresh().unwrap());
    match appends.append(SourceGoal::Writer(None)) {
        Err(ChainError::Damaged { fault, .. }) => assert!(fault.contains("was replaced"), "{fault}"),
        other => panic!("{other:?}"),
    }
    case.has_nothing(&appends.load().unwrap());
}

#[test]
fn a_pin_that_a_process_knows_of_is_not_taken_away_from_it() {
    let case = Revoked::soon();
    let repo = case.bench.open(FULL);
    let log = sources(&repo).source_log(case.record.id);
    sources(&repo).load().unwrap();
    log.load().unwrap();
    case.revoke_and_replace(1);
    let pins = sources(&repo).load().unwrap().read().number;
    case.has_nothing(&log.refresh().unwrap());
    remove(&case.bench, LogId::Repo, pins.0);
    assert_eq!(sources(&repo).load().unwrap().by_id(case.record.id).unwrap().pin, None);
    case.has_nothing(&super::log(&repo, &case.record).load().unwrap());
    case.has_nothing(&log.refresh().unwrap());
}

#[test]
fn a_process_that_stays_open_does_not_go_back_when_a_pinned_log_is_cut_short() {
    let case = Revoked::soon();
    let log = case.stays_open();
    case.revoke_and_replace(0);
    case.later();
    let state = log.refresh().unwrap();
    assert_eq!(fault(&state), Some(&Fault::Shortened(state.read().next())));
}

#[test]
fn a_pin_of_what_is_known_is_no_damage_and_what_is_open_goes_on() {
    let case = Revoked::soon();
    let log = case.stays_open();
    let full = case.sources();
    assert!(full.revoke(case.key).unwrap().is_empty());
    case.later();
    let state = log.refresh().unwrap();
    assert_eq!((state.writer(), &state.read().damage[..]), (None, &[][..]));
    // Given to him again, and taken again: the log goes on, and what is pinned is what stands.
    for _ in 0..2 {
        full.grant(case.record.id, case.key).unwrap();
        assert!(full.revoke(case.key).unwrap().is_empty());
    }
    log.append(SourceGoal::Head(case.point.id)).unwrap();
    case.later();
    let state = log.refresh().unwrap();
    assert_eq!((state.writer(), &state.read().damage[..]), (None, &[][..]));
    log.begin().unwrap();
}

#[test]
fn nobody_sums_up_what_whoever_was_shut_out_has_written() {
    let many = u8::try_from(limits::CHECKPOINT_ENTRIES).unwrap() + 2;
    let case = Revoked::soon();
    let log = case.stays_open();
    case.revoke_and_replace(many);
    assert_eq!(log.refresh().unwrap().points().len(), 1 + usize::from(many), "no minute has passed");
    log.sum_up();
    assert_eq!(case.checkpoints(), []);
    case.has_nothing(&log.refresh().unwrap());
    log.sum_up();
    assert_eq!(case.checkpoints(), []);

    // Nor does whoever appends behind it before he has heard of it.
    let case = Revoked::soon();
    let log = case.stays_open();
    case.revoke_and_replace(many);
    log.append(SourceGoal::Floor(LogNumber(2))).unwrap();
    assert_eq!(case.checkpoints(), []);

    // Nor a mount, which shows no more of it than that.
    let case = Revoked::soon();
    let repo = case.bench.open(FULL);
    let view = MountView::open(repo, MountSettings { sum_up: true, ..zero_settings() }).unwrap();
    assert_eq!(names_in(&view, "written/points"), [case.point.name()]);
    case.revoke_and_replace(many);
    case.later();
    let points = node(&view, "written/points");
    let mut shown = Vec::new();
    let doubt = view.read_dir(points, 0, &mut |item| {
        shown.push(String::from_utf8(item.name).unwrap());
        true
    });
    assert_eq!(shown, [case.point.name()]);
    assert!(doubt.unwrap_err().to_string().contains("was replaced"));
    assert_eq!(case.checkpoints(), []);
}

/// What is known to somebody, as he would sum it up.
fn sum_up(case: &Revoked, state: &SourceState, writer: Option<KeyId>) {
    let read = state.read();
    let state = SourceSnapshot { writer, ..state.snapshot() };
    let checkpoint = Checkpoint { number: read.number, hash: read.hash.unwrap(), state };
    let (name, bytes) = encode_checkpoint::<SourceBody>(case.bench.open(FULL).realm(), case.at, &checkpoint);
    put(&case.bench.store, &name, &bytes);
}

#[test]
fn a_checkpoint_of_whoever_had_not_heard_of_a_pin_is_not_believed() {
    let case = Revoked::soon();
    // On its own it hears of nothing.
    let unaware = source(&case.bench.open(FULL), "written").1;
    unaware.load().unwrap();
    let (name, taken) = case.revoke_and_replace(5);
    let state = unaware.refresh().unwrap();
    assert_eq!((state.writer(), state.points().len()), (Some(case.key), 6));
    sum_up(&case, &state, Some(case.key));
    case.has_nothing(&seen(&case.bench, "written"));
    let audit = source(&case.bench.open(FULL), "written").1.audit().unwrap();
    let is_named =
        |damage: &Damage| matches!(&damage.fault, Fault::Checkpoint(why) if why.contains("no reader believes it"));
    assert!(audit.damage.iter().any(is_named) && audit.checkpoints == 0, "{:?}", audit.damage);
    // Nor when what he took away is there again, so that the entry that is pinned stands.
    put(&case.bench.store, &name, &taken);
    let state = seen(&case.bench, "written");
    assert_eq!((names(&state), state.writer()), (vec![case.point.name()], None));
    // Nor one that knows that he may nothing, and has his points.
    let case = Revoked::soon();
    let unaware = source(&case.bench.open(FULL), "written").1;
    unaware.load().unwrap();
    case.revoke_and_replace(5);
    sum_up(&case, &unaware.refresh().unwrap(), None);
    case.has_nothing(&seen(&case.bench, "written"));
}

#[test]
fn a_pin_below_a_checkpoint_costs_one_request_more() {
    let case = Revoked::soon();
    let full = case.sources();
    let log = case.stays_open();
    let load = || {
        let repo = case.bench.open(FULL);
        let (_, log) = source(&repo, "written");
        let before = repo.store().meter().snapshot();
        let state = log.load().unwrap();
        assert_eq!(state.read().damage, []);
        let spent = repo.store().meter().snapshot().since(&before);
        assert_eq!(spent.requests(), spent.of(Operation::List).requests + spent.of(Operation::Get).requests);
        assert_eq!(spent.of(Operation::List).requests, 2);
        (state.read().number.0, spent.of(Operation::Get).requests)
    };
    let abort = |n: u64| {
        let random = Nonce(u128::from(n).to_le_bytes());
        log.append(SourceGoal::Abort(SessionId { base: LogNumber(1), random })).unwrap();
    };
    let first = log.load().unwrap().read().number.0;
    for n in first..limits::CHECKPOINT_ENTRIES {
        abort(n);
    }
    assert_eq!(case.checkpoints().len(), 1);
    // The checkpoint, and the proof of the head.
    assert_eq!(load(), (limits::CHECKPOINT_ENTRIES, 2));
    assert!(full.revoke(case.key).unwrap().is_empty());
    case.later();
    // What is behind the checkpoint is read in any case.
    assert_eq!(load(), (limits::CHECKPOINT_ENTRIES + 1, 3));
    for n in 1..limits::CHECKPOINT_ENTRIES {
        abort(1000 + n);
    }
    assert_eq!(case.checkpoints().len(), 2);
    assert_eq!(load(), (2 * limits::CHECKPOINT_ENTRIES, 3));
}
