//! Objects that are not where they belong, and keys that are not the right ones.

use amberfs::base::{Class, Classed};
use amberfs::capture::Options;
use amberfs::chain::state::SourceGoal;
use amberfs::format::log::{LogEntry, SourceBody, encode_entry};
use amberfs::format::object::{LogId, Object};
use amberfs::format::{Epoch, LogNumber, Nonce, Realm, SessionId};
use amberfs::repo::Repo;
use amberfs::verify;

use super::*;

#[test]
fn a_wrong_key_a_missing_one_and_one_too_many_are_told_apart() {
    let bench = Bench::new();
    assert!(matches!(bench.try_open(99), Err(RepoError::WrongKey { .. })));
    let passphrase = open(&bench.store, &bench.env, &Credential::passphrase("x"));
    assert!(matches!(passphrase, Err(RepoError::WrongKey { .. })));
    assert!(matches!(Repo::open(bench.store.clone(), bench.env.clone()), Err(RepoError::Locked { .. })));
    let plain = Store::memory();
    Repo::init(plain.clone(), bench.env.clone()).unwrap();
    assert!(matches!(open(&plain, &bench.env, &key(FULL)), Err(RepoError::NotEncrypted { .. })));

    // Whoever has a key does not take an unencrypted repository that stands in the place of his own.
    let marker = Object::Marker.name();
    let own = objects(&bench.store)[&marker].clone();
    put(&bench.store, &marker, &objects(&plain)[&marker]);
    assert!(matches!(bench.try_open(FULL), Err(RepoError::NotEncrypted { .. })));
    // Nor another encrypted one, although the same key file opens that.
    let other = Bench::new();
    put(&bench.store, &marker, &objects(&other.store)[&marker]);
    assert!(matches!(bench.try_open(FULL), Err(RepoError::WrongKey { .. })));
    // Nor, with its slot, for its own data.
    put(&bench.store, &marker, &own);
    assert!(bench.try_open(FULL).is_ok());
    assert_eq!(Repo::init(bench.store.clone(), bench.env.clone()).unwrap_err().class(), Class::Conflict);
    let again = Repo::init_encrypted(bench.store.clone(), bench.env.clone(), &key(2), "x", Cost::STANDARD);
    assert_eq!(again.unwrap_err().class(), Class::Conflict);
    assert!(matches!(bench.try_open(2), Err(RepoError::WrongKey { .. })), "and it leaves no slot behind");
}

/// A source's name, a point of it, and what it must hold.
type Kept = (&'static str, Arc<Point>, Manifest);

/// Two sources with two points each, and a checkpoint.
fn filled() -> (Bench, Vec<Kept>) {
    let bench = Bench::new();
    fill(&bench.root());
    let mut points = Vec::new();
    for round in 0..2 {
        for name in ["one", "two"] {
            bench.write("changing", format!("{name} {round}"));
            let point = bench.capture(FULL, name);
            points.push((name, point, real(&bench.root())));
        }
    }
    let log = source(&bench.open(FULL), "one").1;
    for number in 0..70 {
        log.append(SourceGoal::Abort(SessionId { base: LogNumber(1), random: Nonce([number; 16]) })).unwrap();
    }
    (bench, points)
}

/// What a verification of everything names; nothing when it cannot even begin.
fn named(bench: &Bench) -> Option<Vec<ObjectName>> {
    let repo = bench.try_open(FULL).ok()?;
    let options = verify::Options { read_data: true, workers: Some(1), ..verify::Options::default() };
    let report = verify::verify(&repo, &options, &verify::Progress::new()).unwrap();
    Some(report.findings.into_iter().map(|finding| finding.object).collect())
}

/// No point shows anything but what it held: it is right, or an error.
fn lies(bench: &Bench, points: &[Kept]) -> Vec<String> {
    let Ok(repo) = bench.try_open(FULL) else { return Vec::new() };
    let Ok(view) = MountView::open(repo, zero_settings()) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, point, expected) in points {
        let place = format!("{name}/points/{}", point.name());
        let names: Vec<&str> = place.split('/').collect();
        let root = names.iter().try_fold(amberfs::view::namespace::NodeId::ROOT, |dir, name| {
            view.lookup(dir, name.as_bytes()).map(|found| found.attr.node)
        });
        let Ok(root) = root else { continue };
        for (path, seen) in expected.iter().filter(|(path, _)| !path.is_empty()) {
            let at = path
                .split(|byte| *byte == b'/')
                .try_fold(root, |dir, name| view.lookup(dir, name).map(|found| found.attr.node));
            match at.map(|at| (at, view.attr(at).map(|found| found.attr))) {
                Ok((at, Ok(attr)))
                    if attr.kind == amberfs::view::namespace::FileKind::Regular
                        && view.read(at, 0, 1 << 20).is_ok_and(|bytes| bytes[..] != seen.content[..]) =>
                {
                    found.push(format!("{place}/{}", path.escape_ascii()));
                }
                Err(error) if error.class() == Class::NotFound => {
                    found.push(format!("{} is not there", path.escape_ascii()))
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn no_object_passes_for_another() {
    let (bench, points) = filled();
    assert_eq!(named(&bench), Some(Vec::new()));
    let all = objects(&bench.store);
    // Another repository that was made, and filled, in the same way, with the same key files.
    let (other, _) = filled();
    let strangers = objects(&other.store);
    let is_filler = |name: &ObjectName| matches!(Object::parse(name), Some(Object::Entry(_, number)) if number.0 > 6);
    let mut tried = 0;
    for (place, own) in all.iter().filter(|(name, _)| !is_filler(name)) {
        let from = all.iter().chain(&strangers).filter(|(name, bytes)| !is_filler(name) && *bytes != own);
        for (name, bytes) in from {
            put(&bench.store, place, bytes);
            match named(&bench) {
                // A marker or a slot that is not its own opens nothing.
                None => assert!(
                    matches!(Object::parse(place), Some(Object::Marker | Object::Slot(..))),
                    "{name} at {place}"
                ),
                Some(named) => assert!(named.contains(place), "{name} in the place of {place}: {named:?}"),
            }
            assert_eq!(lies(&bench, &points), Vec::<String>::new(), "{name} in the place of {place}");
            tried += 1;
        }
        put(&bench.store, place, own);
    }
    assert!(tried > 300, "{tried} were tried");
    assert_eq!(named(&bench), Some(Vec::new()));
}

/// A key that somebody will need one day is as good as it was, or a verification says that it is not.
#[test]
fn a_damaged_slot_is_named_although_another_key_opens_the_repository() {
    let bench = Bench::with_keys();
    let own = bench.open(FULL).slots().unwrap().into_iter().find(|slot| slot.own).unwrap().id;
    let all = objects(&bench.store);
    let others = names_of(&all, |object| matches!(object, Object::Slot(slot, _) if slot != own));
    assert_eq!((others.len(), named(&bench)), (4, Some(Vec::new())));
    for name in &others {
        let bytes = &all[name];
        for at in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            put(&bench.store, name, &damaged);
            assert_eq!(named(&bench), Some(vec![name.clone()]), "byte {at}");
        }
        put(&bench.store, name, bytes);
    }
    // And of slots that were put in each other's place.
    for (name, other) in others.iter().zip(others.iter().cycle().skip(1)) {
        put(&bench.store, name, &all[other]);
        assert_eq!(named(&bench), Some(vec![name.clone()]));
        put(&bench.store, name, &all[name]);
    }
    assert_eq!(named(&bench), Some(Vec::new()));
}

#[test]
fn what_is_not_sealed_is_not_taken() {
    let (bench, points) = filled();
    let full = bench.open(FULL);
    // What the packs are sealed with stands in the logs.
    source(&full, "one").1.load().unwrap();
    let (record, log) = source(&full, "two");
    let state = log.load().unwrap();
    let at = LogId::Source(record.id);
    // A plain entry, right in every other respect, at the next number: as if nothing were encrypted.
    let plain = Realm::from(full.id());
    let number = LogNumber(state.read().number.0 + 1);
    let entry = |number: LogNumber, previous, body| LogEntry {
        number,
        nonce: Nonce([1; 16]),
        previous,
        written: bench.env.now(),
        author: amberfs::format::author::Author::default(),
        body,
    };
    let (name, bytes, _) = encode_entry(&plain, at, &entry(number, state.read().hash.unwrap(), SourceBody::Seal));
    put(&bench.store, &name, &bytes);
    let after = source(&bench.open(FULL), "two").1.load().unwrap();
    assert!(!after.is_sealed() && after.points().len() == 2);
    assert!(after.read().obstacle().is_some(), "it is damage");
    let tried = bench.try_capture(&bench.open(FULL), "two", &Options::default());
    assert!(tried.is_err(), "nothing is written behind it");
    assert!(named(&bench).unwrap().contains(&name));
    bench.store.delete(&name).unwrap();

    // In the place of one that stands.
    let all = objects(&bench.store);
    for name in names_of(&all, |object| matches!(object, Object::Entry(log, _) if log == at)) {
        let Some(Object::Entry(_, number)) = Object::parse(&name) else { continue };
        let body = SourceBody::Epoch { epoch: Epoch(9) };
        let (_, bytes, _) = encode_entry(&plain, at, &entry(number, Default::default(), body));
        put(&bench.store, &name, &bytes);
        assert!(named(&bench).unwrap().contains(&name));
        assert_eq!(lies(&bench, &points), Vec::<String>::new());
        put(&bench.store, &name, &all[&name]);
    }

    // Packs as an unencrypted repository with the same identity would have them: the same source, chain and session, and
    // frames that are all right.
    for name in names_of(&all, |object| matches!(object, Object::Pack(..))) {
        let Some(Object::Pack(of, pack)) = Object::parse(&name) else { continue };
        let (_, listed) = world::footer(&full, &name, &all[&name]);
        let mut bytes = amberfs::format::pack::header(full.id(), of, pack);
        let head = bytes.clone();
        let mut footer = amberfs::format::pack::Footer::default();
        for (ordinal, packed) in listed.frames.iter().enumerate() {
            let pointer = packed.pointer(pack, amberfs::format::FrameOrdinal(u32::try_from(ordinal).unwrap()));
            let raw = if packed.kind == FrameKind::Padding {
                Vec::new()
            } else {
                full.reader(of).fetch(&pointer, packed.kind).unwrap().to_vec()
            };
            let frame = amberfs::format::frame::encode(packed.kind, &raw, packed.chunks.len() as u32);
            let (offset, stored_bytes) = (bytes.len() as u64, frame.stored_bytes());
            footer.frames.push(amberfs::format::pack::PackedFrame {
                offset,
                stored_bytes,
                hash: frame.hash,
                ..packed.clone()
            });
            bytes.extend_from_slice(&frame.bytes);
        }
        let offset = bytes.len() as u64;
        bytes.extend(footer.encode(&head, offset));
        put(&bench.store, &name, &bytes);
        assert!(named(&bench).unwrap().contains(&name), "{name}");
        assert_eq!(lies(&bench, &points), Vec::<String>::new());
        put(&bench.store, &name, &all[&name]);
    }
    assert_eq!(named(&bench), Some(Vec::new()));
}
