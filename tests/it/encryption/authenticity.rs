//! A verification answers for every object: it has opened it with the repository's keys, or it says that it has not, and why.

use amberfs::format::envelope::{self, Kind, With};
use amberfs::format::ids::Nonce;
use amberfs::format::object::LogId;
use amberfs::format::{Epoch, LogNumber, PackId, PackOrdinal};
use amberfs::store::Operation;
use amberfs::store::fault::{Fault, Faults, Rule};
use amberfs::verify::{self, Doubt, Report};

use super::*;

fn verified(store: &Store, env: &Env) -> Result<Report, String> {
    let repo = open(store, env, &key(FULL)).map_err(|error| error.to_string())?;
    let options = verify::Options { read_data: true, workers: Some(1), ..verify::Options::default() };
    verify::verify(&repo, &options, &verify::Progress::new()).map_err(|error| error.to_string())
}

/// Why an object was not authenticated, as the report names it.
fn doubt(report: &Report, name: &ObjectName) -> Option<Doubt> {
    let mut of_it = report.doubtful.iter().filter(|(_, of)| of.names.contains(name)).map(|(why, _)| *why);
    let first = of_it.next();
    assert_eq!(of_it.next(), None, "{name} has one reason");
    first
}

/// That the two counts are those of all objects.
#[track_caller]
fn adds_up(report: &Report, store: &Store) {
    let doubtful: u64 = report.doubtful.values().map(|of| of.objects).sum();
    assert_eq!(report.authenticated + doubtful, objects(store).len() as u64, "{:?}", report.doubtful);
}

/// A repository with keys of each sort, points of two sources, one of them removed, a pack of a capture that came to
/// nothing, and leases. The name of that pack.
fn everything() -> (Bench, ObjectName) {
    let bench = Bench::with_keys();
    fill(&bench.root());
    bench.capture(FULL, "home");
    bench.write("more", noise(5000, 7));
    bench.capture(WRITER, "written");
    bench.write("more", noise(5000, 8));
    let before = objects(&bench.store);
    let is_new_pack =
        |name: &ObjectName| !before.contains_key(name) && matches!(Object::parse(name), Some(Object::Pack(..)));
    let orphan = (1..200).find_map(|nth| {
        let faults = Faults::new();
        let repo = open(&faults.around(&bench.store), &bench.env, &key(FULL)).ok()?;
        faults.crash_at(faults.calls() + nth, Fault::Before);
        let failed = bench.try_capture(&repo, "home", &Options { workers: Some(1), ..Options::default() }).is_err();
        assert!(failed, "a capture came to its end before a pack was left");
        objects(&bench.store).into_keys().find(is_new_pack)
    });
    // A removal that has only begun.
    let faults = Faults::new();
    let repo = open(&faults.around(&bench.store), &bench.env, &key(FULL)).unwrap();
    let other = repo.slot_named("key 2", None).unwrap();
    faults.plan(Rule::new(Fault::Before).on(Operation::Delete).then_crash());
    repo.remove_slot(&other, || None).unwrap_err();
    let lease = Object::Lease(Nonce([1; 16]), 3).name();
    put(&bench.store, &lease, format!("{} 3\n", Nonce([1; 16])).as_bytes());
    put(&bench.store, &Object::SingleWriter.name(), b"written to in single-writer mode\n");
    (bench, orphan.unwrap())
}

#[test]
fn every_object_is_authenticated_or_named_with_the_reason_why_not() {
    let (bench, orphan) = everything();
    let report = verified(&bench.store, &bench.env).unwrap();
    assert_eq!(report.findings, []);
    adds_up(&report, &bench.store);
    let (mut own, mut marks) = (0, 0);
    for name in objects(&bench.store).keys() {
        let expected = match Object::parse(name).unwrap() {
            Object::Marker => Some(Doubt::Marker),
            Object::Lease(..) | Object::SingleWriter => Some(Doubt::Lease),
            Object::Slot(..) if doubt(&report, name).is_none() => {
                own += 1;
                None
            }
            Object::Slot(..) => Some(Doubt::Slot),
            Object::Removal(..) => {
                marks += 1;
                Some(Doubt::Slot)
            }
            _ => None,
        };
        assert_eq!(doubt(&report, name), expected, "{name}");
    }
    assert_eq!((own, marks), (1, 1), "the slot that it was opened with, and a mark");
    assert_eq!(report.orphans.names, [orphan], "an honest pack of no point opens");
}

#[test]
fn what_somebody_plants_is_named() {
    let (bench, orphan) = everything();
    let Some(Object::Pack(source, pack)) = Object::parse(&orphan) else { panic!("{orphan}") };
    let bytes = objects(&bench.store)[&orphan].clone();
    let beside = PackId { ordinal: PackOrdinal(77), ..pack };
    let (moved, junk) = (
        Object::Pack(source, beside).name(),
        Object::Pack(source, PackId { chain: amberfs::format::ChainId(9), ..pack }).name(),
    );
    put(&bench.store, &moved, &bytes);
    put(&bench.store, &junk, &[0x5a; 4000]);
    let probe = Object::Probe(Nonce([9; 16])).name();
    let extra = ObjectName::listed("extra/x");
    put(&bench.store, &probe, b"x");
    put(&bench.store, &extra, b"x");
    let lease = Object::Lease(Nonce([2; 16]), 8).name();
    put(&bench.store, &lease, b"junk");
    let notice = Object::SingleWriter.name();
    put(&bench.store, &notice, &[b'x'; 5000]);
    let report = verified(&bench.store, &bench.env).unwrap();
    adds_up(&report, &bench.store);
    for (name, why) in [
        (&moved, Doubt::Unopened),
        (&junk, Doubt::Unopened),
        (&probe, Doubt::Foreign),
        (&extra, Doubt::Foreign),
        (&lease, Doubt::Damaged),
        (&notice, Doubt::Damaged),
    ] {
        assert_eq!(doubt(&report, name), Some(why), "{name}");
    }
    let named: Vec<&ObjectName> = report.findings.iter().map(|finding| &finding.object).collect();
    assert_eq!(named, [&lease, &notice]);
    for name in [&moved, &junk] {
        let note = report.notes.iter().find(|note| note.contains(name.as_str()));
        assert!(note.is_some_and(|note| note.contains("does not open")), "{name}: {:?}", report.notes);
    }
}

#[test]
fn a_flipped_bit_in_any_object_is_named() {
    let (bench, _) = everything();
    let all = objects(&bench.store);
    let mut named = [0; 3];
    for (name, bytes) in &all {
        for at in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            let mut altered = all.clone();
            altered.get_mut(name).unwrap()[at] ^= 4;
            let store = filled(&altered);
            match verified(&store, &bench.env) {
                // The marker, and the slot of the key: nothing opens.
                Err(why) => {
                    assert!(matches!(Object::parse(name), Some(Object::Marker | Object::Slot(..))), "{name}: {why}");
                    named[0] += 1;
                }
                Ok(report) => {
                    adds_up(&report, &store);
                    match doubt(&report, name) {
                        Some(Doubt::Damaged) => {
                            assert!(report.findings.iter().any(|finding| finding.object == *name), "{name}");
                            named[1] += 1;
                        }
                        Some(Doubt::Unopened) => named[2] += 1,
                        other => panic!("bit {at}.2 of {name} went unnoticed: {other:?}"),
                    }
                }
            }
        }
    }
    assert!(named.iter().all(|count| *count > 0), "{named:?}");
}

/// What somebody without any key can make, and nobody without those of that epoch can tell from an entry.
fn says_that_it_is_sealed(repo: &Repo, name: &ObjectName, epoch: u32) -> Vec<u8> {
    let kind = match Object::parse(name) {
        Some(Object::Entry(LogId::Repo, _)) => Kind::RepoEntry,
        _ => Kind::SourceEntry,
    };
    let key = Secret::new([9; 32]);
    envelope::seal(repo.id(), name, kind, b"junk", Some(With { epoch: Epoch(epoch), key: &key }))
}

#[test]
fn an_entry_that_says_it_is_sealed_with_other_keys_is_named_and_ends_no_verification() {
    let (bench, _) = everything();
    let repo = bench.open(FULL);
    let (home, written) = (LogId::Source(source(&repo, "home").0.id), source(&repo, "written").0.id);
    let tip = |log: LogId| match log {
        LogId::Repo => sources(&repo).load().unwrap().read().number,
        LogId::Source(_) => source(&repo, "home").1.load().unwrap().read().number,
    };
    let whole = objects(&bench.store);
    for (log, number) in [(home, tip(home).0 + 1), (LogId::Repo, tip(LogId::Repo).0 + 1), (home, 2)] {
        let store = filled(&whole);
        let planted = Object::Entry(log, LogNumber(number)).name();
        put(&store, &planted, &says_that_it_is_sealed(&repo, &planted, 999));
        // What is damaged elsewhere is named as well.
        let (pack, bytes) = whole
            .iter()
            .find(|(name, _)| matches!(Object::parse(name), Some(Object::Pack(of, _)) if of == written))
            .unwrap();
        let mut bytes = bytes.clone();
        *bytes.last_mut().unwrap() ^= 1;
        put(&store, pack, &bytes);
        let report = verified(&store, &bench.env).unwrap();
        adds_up(&report, &store);
        assert_eq!(doubt(&report, &planted), Some(Doubt::Damaged));
        assert_eq!(doubt(&report, pack), Some(Doubt::Damaged));
        let finding = report.findings.iter().find(|finding| finding.object == planted).unwrap();
        let what = &finding.faults[0].what;
        assert!(what.contains("keys of epoch 999, which the key in use does not have, or is junk"), "{what}");
        assert!(report.advice.iter().any(|advice| advice.contains("`amberfs key rotate`")), "{:?}", report.advice);
        assert_eq!(report.sources.len(), 2);
        // What is built on what the entry said is there all the same.
        let points = report.sources.iter().map(|source| source.points).collect::<Vec<_>>();
        assert!(points.iter().all(|points| *points > 0) || number == 2, "{points:?}");
    }
}

/// A key that was not added again after a rotation, in a process that still has it.
#[test]
fn whoever_lacks_the_newest_keys_verifies_what_he_can_and_is_told_what_he_lacks() {
    let bench = Bench::with_keys();
    fill(&bench.root());
    bench.capture(FULL, "full");
    let old = bench.open(OTHER_FULL);
    super::rotation::rotate_only(&bench, FULL);
    bench.write("more", noise(5000, 8));
    bench.capture(FULL, "full");
    let options = verify::Options { workers: Some(1), ..verify::Options::default() };
    let report = verify::verify(&old, &options, &verify::Progress::new()).unwrap();
    let told = "is sealed with keys of epoch 2, which the key in use does not have";
    let lacking = report.findings.iter().filter(|finding| finding.faults[0].what.contains(told)).count();
    assert!(lacking >= 3, "{:?}", report.findings);
    assert!(report.advice.iter().any(|advice| advice.contains("verify with a key that was added since")));
    assert_eq!(report.sources[0].points, 1, "what he can read");
}
