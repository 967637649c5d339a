//! What a key that is not a full one can do, by trying: first as the program lets it, then by writing into the store what
//! the program would never write. Whoever has a writer's key has its signing key, and may have the store's.

use amberfs::base::{Class, Classed, limits};
use amberfs::capture::Options;
use amberfs::chain::state::{Dependents, RepoGoal, SourceGoal};
use amberfs::chain::{SourceState, origin};
use amberfs::format::author::{Author, Role};
use amberfs::format::log::{
    Checkpoint, LogBody, LogEntry, RepoBody, SourceBody, SourceKind, SourceSnapshot, encode_checkpoint, encode_entry,
};
use amberfs::format::object::{LogId, Object};
use amberfs::format::{ChainId, Epoch, KeyId, LogNumber, Nonce, SessionId};
use amberfs::repo::Repo;
use amberfs::store::Operation;
use amberfs::view::namespace::Namespace;
use amberfs::view::{MountSettings, MountView};

use super::*;

/// What this key's holder writes as the next entry of a log, with a valid signature of his own.
pub(super) fn forge<B: LogBody>(
    bench: &Bench,
    by: &Arc<Repo>,
    at: LogId,
    tip: (LogNumber, [u8; 16]),
    body: B,
    as_whom: Author,
) {
    let entry = LogEntry {
        number: LogNumber(tip.0.0 + 1),
        nonce: Nonce(by.env().random()),
        previous: amberfs::format::log::EntryHash(tip.1),
        written: by.env().now(),
        author: as_whom,
        body,
    };
    let (name, bytes, _) = encode_entry(by.realm(), at, &entry);
    bench.store.create(&name, bytes).unwrap();
}

pub(super) fn author(repo: &Arc<Repo>) -> Author {
    repo.realm().keys().unwrap().author()
}

/// Forges an entry of a source's log, and sees that it changes nothing for anybody but that its number is taken.
#[track_caller]
pub(super) fn is_void(bench: &Bench, by: &Arc<Repo>, readers: &[u8], name: &str, body: SourceBody, as_whom: Author) {
    let what = format!("{body:?}");
    let told = |state: &SourceState| {
        let names = |points: &[Arc<Point>]| points.iter().map(|point| point.name().to_owned()).collect::<Vec<_>>();
        let chains = state.chains().count();
        let head = state.head().map(|point| point.id);
        (
            names(state.points()),
            names(state.committed()),
            chains,
            head,
            state.floor(),
            state.is_sealed(),
            state.writer(),
        )
    };
    let before = source(&bench.open(FULL), name).1.load().unwrap();
    let id = source(&bench.open(FULL), name).0.id;
    let tip = (before.read().number, before.read().hash.unwrap().0);
    forge(bench, by, LogId::Source(id), tip, body, as_whom);
    for reader in readers {
        let after = source(&bench.open(*reader), name).1.load().unwrap();
        assert_eq!(after.read().number.0, tip.0.0 + 1, "key {reader}: {what} has its number");
        assert_eq!(told(&after), told(&before), "key {reader}: {what}");
        assert!(after.aborted().is_empty(), "key {reader}: {what}");
        assert!(after.read().obstacle().is_none(), "key {reader}: {what} is in nobody's way");
    }
}

/// That the program refuses, says so as a matter of permission, and has written nothing.
#[track_caller]
fn refused<T: std::fmt::Debug, E: Classed + std::fmt::Display>(
    bench: &Bench,
    what: &str,
    tried: impl FnOnce() -> Result<T, E>,
) {
    let before = objects(&bench.store);
    match tried() {
        Ok(done) => panic!("{what} was done: {done:?}"),
        Err(error) => assert_eq!(error.class(), Class::Denied, "{what}: {error}"),
    }
    let after: Vec<_> = objects(&bench.store).into_keys().filter(|name| !before.contains_key(name)).collect();
    assert_eq!(after, Vec::new(), "{what} left something");
}

/// A source of a full key with two points, one of a writer with one.
fn filled() -> (Bench, [Arc<Point>; 3]) {
    let bench = Bench::with_keys();
    fill(&bench.root());
    let first = bench.capture(FULL, "full");
    let written = bench.capture(WRITER, "written");
    let second = bench.capture(FULL, "full");
    (bench, [first, second, written])
}

#[test]
fn a_writer_captures_and_reads_nothing_back() {
    let (bench, [_, second, written]) = filled();
    assert!(written.commit.parent.is_none() && second.commit.parent.is_some());
    reads(&bench, FULL, "written", &written);
    reads(&bench, OTHER_FULL, "written", &written);
    reads(&bench, FULL, "full", &second);
    for name in ["full", "written"] {
        let all = |counts: [(usize, usize); 2]| counts.map(|(read, of)| read == of);
        assert_eq!(all(readable(&bench, OTHER_FULL, name)), [true, true]);
        let [trees, data] = readable(&bench, COLLECTOR, name);
        assert_eq!((trees.0, data.0), (trees.1, 0), "a collector reads names and no content of {name}");
        for writer in [WRITER, OTHER_WRITER] {
            let [trees, data] = readable(&bench, writer, name);
            assert_eq!((trees.0, data.0), (0, 0), "key {writer} of {name}");
        }
        // What a collector sees of a point are names, sizes and times; not the smallest file.
        let view = MountView::open(bench.open(COLLECTOR), zero_settings()).unwrap();
        let points = names_in(&view, &format!("{name}/points"));
        let short = node(&view, &format!("{name}/points/{}/short", points[0]));
        assert!(view.attr(short).unwrap().attr.size > 0);
        assert!(view.read(short, 0, 100).is_err(), "a collector read content of {name}");
        // Nor does a mount show it to a writer.
        let view = MountView::open(bench.open(WRITER), zero_settings()).unwrap();
        let points = node(&view, &format!("{name}/points"));
        let mut shown = Vec::new();
        let listed = view.read_dir(points, 0, &mut |item| {
            shown.push(item.name);
            true
        });
        for name in &shown {
            let within = view.lookup(points, name).and_then(|point| view.lookup(point.attr.node, b"short"));
            assert_ne!(within.unwrap_err().class(), Class::NotFound, "what cannot be read is not absent");
        }
        assert!(!shown.is_empty() || listed.is_err());
    }
}

#[test]
fn what_only_a_writer_appends_to_is_summed_up_by_a_mount_with_a_full_key() {
    let bench = Bench::with_keys();
    let kept = tempfile::tempdir().unwrap();
    let repo = bench.open(WRITER);
    repo.keep_sessions_in(kept.path().to_owned());
    for n in 0..limits::CHECKPOINT_ENTRIES {
        bench.write("file", n.to_string());
        bench.try_capture(&repo, "written", &Options { workers: Some(1), ..Options::default() }).unwrap();
    }
    let checkpoints = || names_of(&objects(&bench.store), |object| matches!(object, Object::Checkpoint(..))).len();
    let look = |n: u8, sum_up: bool| {
        let repo = bench.open(n);
        let before = repo.store().meter().snapshot();
        let view = MountView::open(Arc::clone(&repo), MountSettings { sum_up, ..zero_settings() }).unwrap();
        assert_eq!(names_in(&view, "written/points").len() as u64, limits::CHECKPOINT_ENTRIES);
        repo.store().meter().snapshot().since(&before).of(Operation::Get).requests
    };
    for (n, sum_up) in [(FULL, false), (WRITER, true), (COLLECTOR, true)] {
        assert!(look(n, sum_up) > limits::CHECKPOINT_ENTRIES, "key {n}");
        assert_eq!(checkpoints(), 0, "key {n}");
    }
    look(FULL, true);
    // Nobody who looks waits for it.
    let began = std::time::Instant::now();
    while checkpoints() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was summed up");
        std::thread::yield_now();
    }
    for n in [FULL, WRITER, COLLECTOR] {
        let gets = look(n, true);
        assert!(gets < 20, "key {n}: {gets} requests");
        assert_eq!(checkpoints(), 1, "key {n}");
    }
}

#[test]
fn a_writer_builds_on_what_it_keeps_and_says_so_when_that_is_lost() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    let kept = tempfile::tempdir().unwrap();
    let place = |n: u8| kept.path().join(n.to_string());
    let capture = |n: u8, from: u8| {
        let repo = bench.open(n);
        repo.keep_sessions_in(place(from));
        bench.try_capture(&repo, "written", &Options::default()).unwrap().point
    };
    let mut points = vec![capture(WRITER, WRITER)];
    for round in 0..3 {
        bench.write("sub/3", format!("changed {round}"));
        let stored: usize = objects(&bench.store).values().map(Vec::len).sum();
        let point = capture(WRITER, WRITER);
        assert_eq!(point.commit.parent, Some(points.last().unwrap().id), "{}", point.commit.reason);
        let more = objects(&bench.store).values().map(Vec::len).sum::<usize>() - stored;
        assert!(more < 40_000, "an incremental stored {more} bytes");
        reads(&bench, FULL, "written", &point);
        points.push(point);
    }
    // What it keeps opens its trees, and not one byte of content; others' trees stay closed.
    bench.capture(FULL, "full");
    let repo = bench.open(WRITER);
    repo.keep_sessions_in(place(WRITER));
    for (name, own) in [("written", true), ("full", false)] {
        let (record, log) = source(&repo, name);
        let state = log.load().unwrap();
        repo.recall_sessions(record.id);
        let all = objects(&bench.store);
        let full = bench.open(FULL);
        source(&full, name).1.load().unwrap();
        for object in names_of(&all, |object| matches!(object, Object::Pack(of, _) if of == record.id)) {
            let Some(Object::Pack(_, pack)) = Object::parse(&object) else { continue };
            for (at, frame) in world::footer(&full, &object, &all[&object]).1.frames.iter().enumerate() {
                let pointer = frame.pointer(pack, amberfs::format::FrameOrdinal(u32::try_from(at).unwrap()));
                let read = repo.reader(record.id).fetch(&pointer, frame.kind).is_ok();
                assert_eq!(read, own && frame.kind != FrameKind::Data, "{:?} of {object}", frame.kind);
            }
        }
        assert!(!state.points().is_empty());
    }
    // On disk it is for the owner alone, and sealed.
    let files = String::from_utf8(
        std::process::Command::new("find")
            .arg(kept.path())
            .args(["-type", "f", "-perm", "600"])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    assert_eq!(files.lines().count(), 1, "{files}");
    let file = std::path::PathBuf::from(files.trim());
    let bytes = std::fs::read(&file).unwrap();

    let is_full = |point: &Point| {
        assert_eq!(point.commit.parent, None, "{}", point.commit.reason);
        assert!(
            point.commit.reason.contains("lost") || point.commit.reason.contains("cannot be read"),
            "{}",
            point.commit.reason
        );
    };
    // Lost; and not to be had from another place.
    let point = capture(WRITER, OTHER_WRITER);
    is_full(&point);
    reads(&bench, FULL, "written", &point);
    // Damaged at some places, and of another time.
    for at in [0, 20, 50, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, damaged).unwrap();
        is_full(&capture(WRITER, WRITER));
    }
    std::fs::write(&file, &bytes).unwrap();
    is_full(&capture(WRITER, WRITER));
    let last = capture(WRITER, WRITER);
    assert!(last.commit.parent.is_some(), "{}", last.commit.reason);
    for point in source(&bench.open(FULL), "written").1.load().unwrap().points() {
        assert!(shown_point(&bench.open(FULL), "written", point.name()).len() > 20);
    }
}

/// The names in a directory of a mount.
pub(super) fn names_in(view: &MountView, path: &str) -> Vec<String> {
    let names = world::names(view, node(view, path));
    names.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect()
}

/// What only a collector or a full key may want of a log.
fn forbidden(point: &Point) -> Vec<(SourceGoal, SourceBody)> {
    let session = SessionId { base: LogNumber(1), random: Nonce([9; 16]) };
    let points = vec![point.id];
    vec![
        (SourceGoal::Delete(points.clone(), Dependents::Keep), SourceBody::Delete { points: points.clone() }),
        (SourceGoal::Abort(session), SourceBody::Abort { session }),
        (SourceGoal::Floor(LogNumber(2)), SourceBody::Floor { floor: LogNumber(2) }),
        (SourceGoal::Head(point.id), SourceBody::Head { point: point.id }),
        (SourceGoal::Writer(Some(KeyId([8; 16]))), SourceBody::Writer { key: Some(KeyId([8; 16])) }),
        (SourceGoal::Epoch(Epoch(2)), SourceBody::Epoch { epoch: Epoch(2) }),
        (SourceGoal::Seal, SourceBody::Seal),
    ]
}

#[test]
fn a_writer_does_nothing_but_add_points() {
    let (bench, [first, _, written]) = filled();
    let writer = bench.open(WRITER);
    let readers = [FULL, OTHER_FULL, WRITER, OTHER_WRITER, COLLECTOR];
    for (name, point) in [("full", &first), ("written", &written)] {
        for (goal, body) in forbidden(point) {
            // A head that is the head already holds without an entry.
            if !(name == "written" && matches!(goal, SourceGoal::Head(_))) {
                refused(&bench, &format!("{goal:?} of {name}"), || source(&writer, name).1.append(goal.clone()));
            }
            is_void(&bench, &writer, &readers, name, body.clone(), author(&writer));
            // With another's name under it, the signature is not valid.
            for role in [Role::Full, Role::Collector(KeyId([1; 16]))] {
                let forged = Author { epoch: Epoch(1), role };
                is_void(&bench, &writer, &readers, name, body.clone(), forged);
            }
        }
    }
    // To bring back is as little a writer's business as to delete.
    let full = bench.open(FULL);
    source(&full, "written").1.append(SourceGoal::Delete(vec![written.id], Dependents::Keep)).unwrap();
    refused(&bench, "undelete", || source(&writer, "written").1.append(SourceGoal::Undelete(vec![written.id])));
    let body = SourceBody::Undelete { points: vec![written.id] };
    is_void(&bench, &writer, &readers, "written", body, author(&writer));
    // Whoever may goes on behind all of that.
    source(&full, "written").1.append(SourceGoal::Undelete(vec![written.id])).unwrap();
    let last = bench.capture(WRITER, "written");
    reads(&bench, FULL, "written", &last);
    reads(&bench, FULL, "full", &bench.capture(FULL, "full"));
}

#[test]
fn a_writer_adds_no_points_to_anothers_source() {
    let (bench, [first, ..]) = filled();
    for (n, name) in [(OTHER_WRITER, "written"), (WRITER, "full"), (COLLECTOR, "written"), (COLLECTOR, "full")] {
        let repo = bench.open(n);
        refused(&bench, &format!("a capture of {name} by key {n}"), || {
            bench.try_capture(&repo, name, &Options::default()).map(|outcome| outcome.point)
        });
        refused(&bench, "a full capture", || {
            let options = Options { full: true, ..Options::default() };
            bench.try_capture(&repo, name, &options).map(|outcome| outcome.point)
        });
        let readers = [FULL, WRITER, OTHER_WRITER, COLLECTOR];
        let chain = ChainId(u32::try_from(source(&repo, name).1.load().unwrap().chains().count()).unwrap());
        is_void(&bench, &repo, &readers, name, SourceBody::OpenChain { chain }, author(&repo));
        // A copy of a true commit, as if by a new session.
        let session = SessionId { base: LogNumber(1), random: Nonce([n; 16]) };
        let commit =
            amberfs::format::log::Commit { session, name: "2001-01-01T000000Z".into(), ..(*first.commit).clone() };
        is_void(&bench, &repo, &readers, name, SourceBody::Commit(Arc::new(commit)), author(&repo));
    }
    // Only a full key hands it over; then the one may and the other may not.
    let slots = bench.open(FULL).slots().unwrap();
    let of = |n: u8| slots.iter().find(|slot| slot.name == Some(format!("key {n}"))).unwrap().key;
    source(&bench.open(FULL), "written").1.append(SourceGoal::Writer(of(OTHER_WRITER))).unwrap();
    let point = bench.capture(OTHER_WRITER, "written");
    reads(&bench, FULL, "written", &point);
    let repo = bench.open(WRITER);
    refused(&bench, "a capture of what was handed over", || {
        bench.try_capture(&repo, "written", &Options::default()).map(|outcome| outcome.point)
    });
}

#[test]
fn a_writer_changes_nothing_about_sources_and_keys() {
    let (bench, _) = filled();
    let writer = bench.open(WRITER);
    let (full, written) = (source(&writer, "full").0, source(&writer, "written").0);
    let victim =
        bench.open(FULL).slots().unwrap().into_iter().find(|slot| slot.name.as_deref() == Some("key 4")).unwrap();
    refused(&bench, "removing a source", || sources(&writer).remove_source(full.id));
    refused(&bench, "removing its own source", || sources(&writer).remove_source(written.id));
    refused(&bench, "moving a source", || {
        sources(&writer).claim_source("full", SourceKind::Tree, origin::here(b"/y"), true)
    });
    refused(&bench, "revoking a key", || sources(&writer).append(RepoGoal::Revoke(victim.key.unwrap())));
    refused(&bench, "a new epoch", || sources(&writer).append(RepoGoal::Epoch(Epoch(2))));
    refused(&bench, "a list of the keys", || writer.slots());
    refused(&bench, "a new key", || writer.add_slot("mine", SlotRole::Full, &key(99)));
    refused(&bench, "removing a key", || writer.remove_slot(&victim, || None));
    refused(&bench, "changing its key", || writer.replace_own_slot(&key(99)));
    refused(&bench, "a rotation", || writer.begin_rotation(Epoch(1)));
    let bodies = [
        RepoBody::RemoveSource { source: full.id },
        RepoBody::RemoveSource { source: written.id },
        RepoBody::MoveSource { source: full.id, origin: origin::here(b"/y") },
        RepoBody::RevokeKey { key: victim.key.unwrap() },
        RepoBody::Epoch { epoch: Epoch(2) },
    ];
    for body in bodies {
        for as_whom in [author(&writer), Author { epoch: Epoch(1), role: Role::Full }] {
            let before = sources(&bench.open(FULL)).load().unwrap();
            let tip = (before.read().number, before.read().hash.unwrap().0);
            forge(&bench, &writer, LogId::Repo, tip, body.clone(), as_whom);
            for reader in [FULL, WRITER, COLLECTOR] {
                let after = sources(&bench.open(reader)).load().unwrap();
                assert_eq!(after.read().number.0, tip.0.0 + 1);
                assert_eq!(after.records(), before.records(), "{body:?}");
                assert!(!after.is_revoked(victim.key.unwrap()), "{body:?}");
                assert!(after.read().obstacle().is_none());
            }
        }
    }
    bench.capture(OTHER_WRITER, "behind");
}

/// Who only writes could leave out what others have written.
#[test]
fn a_checkpoint_by_a_writer_is_not_believed() {
    let (bench, [first, second, _]) = filled();
    let full = bench.open(FULL);
    let (record, log) = source(&full, "full");
    let state = log.load().unwrap();
    let mut snapshot = SourceSnapshot { chains: 1, epoch: Epoch(0), ..SourceSnapshot::default() };
    let at = LogId::Source(record.id);
    let forged = |repo: &Arc<Repo>, snapshot: &SourceSnapshot| {
        let checkpoint =
            Checkpoint { number: state.read().number, hash: state.read().hash.unwrap(), state: snapshot.clone() };
        encode_checkpoint::<SourceBody>(repo.realm(), at, &checkpoint)
    };
    let (name, bytes) = forged(&bench.open(WRITER), &snapshot);
    put(&bench.store, &name, &bytes);
    for reader in [FULL, WRITER, COLLECTOR] {
        let names: Vec<_> =
            source(&bench.open(reader), "full").1.load().unwrap().points().iter().map(|point| point.id).collect();
        assert_eq!(names, [first.id, second.id], "key {reader}");
    }
    // The same by a full key is believed, so the test above could have failed.
    snapshot.chains = 0;
    let (name, bytes) = forged(&full, &snapshot);
    put(&bench.store, &name, &bytes);
    assert!(source(&bench.open(FULL), "full").1.load().unwrap().points().is_empty());
}

#[test]
fn a_collector_deletes_and_neither_reads_content_nor_commits() {
    let (bench, [first, second, written]) = filled();
    let collector = bench.open(COLLECTOR);
    for (name, point) in [("full", &first), ("written", &written)] {
        source(&collector, name).1.append(SourceGoal::Delete(vec![point.id], Dependents::Keep)).unwrap();
        let state = source(&bench.open(FULL), name).1.load().unwrap();
        assert!(state.is_deleted(point.id));
        source(&collector, name).1.append(SourceGoal::Undelete(vec![point.id])).unwrap();
    }
    reads(&bench, FULL, "full", &second);
    let readers = [FULL, COLLECTOR, WRITER];
    for body in [SourceBody::Writer { key: None }, SourceBody::Epoch { epoch: Epoch(2) }] {
        is_void(&bench, &collector, &readers, "written", body, author(&collector));
    }
    refused(&bench, "a new source", || {
        sources(&collector).add_source("mine", SourceKind::Tree, origin::here(b"/m")).map(|source| source.name)
    });
    refused(&bench, "a list of the keys", || collector.slots());
    refused(&bench, "a rotation", || collector.begin_rotation(Epoch(1)));
    refused(&bench, "the end of one", || collector.finish_rotation());
    let [trees, data] = readable(&bench, COLLECTOR, "full");
    assert_eq!((trees.0, data.0), (trees.1, 0));
}

#[test]
fn a_removed_writer_adds_nothing_any_more() {
    let (bench, _) = filled();
    let writer = bench.open(WRITER);
    let full = bench.open(FULL);
    let slot = full.slot_named("key 3", Some(Epoch(0))).unwrap();
    let id = slot.key.unwrap();
    sources(&full).append(RepoGoal::Revoke(id)).unwrap();
    source(&full, "written").1.append(SourceGoal::Writer(None)).unwrap();
    full.remove_slot(&slot, || None).unwrap();
    assert!(matches!(bench.try_open(WRITER), Err(RepoError::WrongKey { .. })));
    // It still has all that it had.
    refused(&bench, "a capture", || {
        bench.try_capture(&writer, "written", &Options::default()).map(|outcome| outcome.point)
    });
    refused(&bench, "a new source", || {
        sources(&writer).add_source("mine", SourceKind::Tree, origin::here(b"/m")).map(|source| source.name)
    });
    let chain = ChainId(1);
    is_void(&bench, &writer, &[FULL, COLLECTOR], "written", SourceBody::OpenChain { chain }, author(&writer));
    reads(&bench, FULL, "written", &bench.capture(FULL, "written"));
}
