//! What can be seen of stored objects by whoever has no key.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;

use bytes::Bytes;

use amberfs::base::Env;
use amberfs::capture::{Excludes, Options, Progress, capture_tree};
use amberfs::chain::state::{Dependents, SourceGoal};
use amberfs::chain::{RepoLog, SourceLog};
use amberfs::format::log::{Origin, SourceKind};
use amberfs::format::object::{Object, ObjectName};
use amberfs::format::{envelope, frame, pack, sealed};
use amberfs::repo::{Credential, Repo, SlotRole};
use amberfs::seal::derive::Cost;
use amberfs::seal::padme::padded_len;
use amberfs::store::fault::{Fault, Faults, Rule};
use amberfs::store::{Operation, Store};

use super::{Bench, FULL, OTHER_WRITER, WRITER, fill, key, noise, objects, open};
use crate::world::later;

const SOURCE: &str = "payroll-of-executives";
const HOST: &str = "hemlock-mainframe";
const MACHINE: &str = "c0ffee00machineidentity00c0ffee";
const PLACE: &str = "/srv/whistleblower-archive";
const LABEL: &str = "before-the-audit";
const JOB: &str = "job-quarterly-shredding";
const FILE: &str = "offshore-accounts.ods";
const FOLDER: &str = "board-minutes-unredacted";
const TARGET: &str = "../../elsewhere/swiss-vault";
const ATTRIBUTE: &str = "user.classification-level";
const VALUE: &str = "top-secret-cosmic";
const CONTENT: &str = "the merger with Initrode will be announced on Thursday";
const EXCLUDED: &str = "scratch-of-the-auditors";
const PASSPHRASE: &str = "correct horse battery staple";
const SLOT: &str = "laptop-of-the-treasurer";
const WRITER_SLOT: &str = "till-number-seventeen";

/// What nobody is to see. The first are of what is stored in every repository, the others only of encrypted ones.
fn secrets() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let stored = [SOURCE, HOST, MACHINE, PLACE, LABEL, JOB, FILE, FOLDER, TARGET, ATTRIBUTE, VALUE, CONTENT, EXCLUDED];
    let mut stored: Vec<Vec<u8>> = stored.iter().map(|text| text.as_bytes().to_vec()).collect();
    stored.push(noise(300_000, 7)[1000..1032].to_vec());
    (stored, [PASSPHRASE, SLOT, WRITER_SLOT].iter().map(|text| text.as_bytes().to_vec()).collect())
}

/// Fills a repository through the code that fills everybody's.
fn captured(repo: &std::sync::Arc<Repo>, env: &Env) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(FOLDER);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join(FILE), CONTENT).unwrap();
    std::fs::write(folder.join("long"), CONTENT.repeat(2000)).unwrap();
    std::fs::write(folder.join("noise"), noise(300_000, 7)).unwrap();
    std::fs::write(folder.join(EXCLUDED), "left out").unwrap();
    std::os::unix::fs::symlink(TARGET, folder.join("link")).unwrap();
    let set = Command::new("setfattr").args(["-n", ATTRIBUTE, "-v", VALUE]).arg(folder.join(FILE)).status().unwrap();
    assert!(set.success(), "the temporary directory takes no extended attributes");
    let logs = RepoLog::open(repo.store().clone(), env.clone(), repo.realm());
    let origin = Origin { machine: MACHINE.into(), host: HOST.into(), path: PLACE.into() };
    let source = logs.add_source(SOURCE, SourceKind::Tree, origin).unwrap();
    let log = SourceLog::open(repo.store().clone(), env.clone(), repo.realm(), source.id);
    let options = Options {
        labels: vec![LABEL.to_owned()],
        job: Some(JOB.to_owned()),
        excludes: Excludes::new(&[EXCLUDED.to_owned()], &[]).unwrap(),
        ..Options::default()
    };
    for n in 0..3 {
        std::fs::write(folder.join("changing"), n.to_string()).unwrap();
        env.advance(std::time::Duration::from_secs(60));
        let outcome = capture_tree(repo, &log, &source, dir.path(), &options, &Progress::new()).unwrap();
        assert_eq!(outcome.problems, Vec::new());
    }
    let point = log.load().unwrap().points()[1].id;
    log.append(SourceGoal::Delete(vec![point], Dependents::Keep)).unwrap();
    // Enough entries for a checkpoint.
    for n in 0..70 {
        let goal = if n % 2 == 0 {
            SourceGoal::Undelete(vec![point])
        } else {
            SourceGoal::Delete(vec![point], Dependents::Keep)
        };
        log.append(goal).unwrap();
    }
}

/// `secret` in the forms in which it might lie about.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = |upper: bool| -> Vec<u8> {
        let digit = |byte: &u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
        secret.iter().map(digit).collect::<String>().into_bytes()
    };
    let mut forms = vec![
        ("as it is", secret.to_vec()),
        ("reversed", secret.iter().rev().copied().collect()),
        ("in UTF-16", secret.iter().flat_map(|byte| [*byte, 0]).collect()),
        ("in big-endian UTF-16", secret.iter().flat_map(|byte| [0, *byte]).collect()),
        ("in hexadecimal digits", hex(false)),
        ("in upper-case hexadecimal digits", hex(true)),
        ("in upper case", secret.to_ascii_uppercase()),
    ];
    // At each of the three places in which it can begin within base64's groups, without the digits that depend on
    // what is around it.
    for skipped in 0..3 {
        let whole = &secret[skipped..skipped + (secret.len() - skipped) / 3 * 3];
        forms.push(("in base64", base64(whole)));
    }
    forms
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let number = group.iter().fold(0usize, |number, byte| number << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| DIGITS[number >> shift & 63])
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

/// An object's name and bytes, and what somebody finds in them who knows the format and has no key.
fn visible(name: &ObjectName, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = vec![name.as_str().as_bytes().to_vec(), bytes.to_vec()];
    for (at, head) in pack::scan(bytes).into_iter().flatten() {
        let from = usize::try_from(at).unwrap() + frame::HEADER_BYTES;
        let body = Bytes::copy_from_slice(&bytes[from..from + head.stored_bytes as usize]);
        found.extend(frame::open(&head, body).map(Vec::from));
    }
    // Whatever looks like zstd, with an end that is the object's.
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    for at in bytes.windows(4).enumerate().filter(|(_, window)| *window == magic).map(|(at, _)| at) {
        found.extend(frame::decompress("object", &bytes[at..], 64 << 20));
    }
    found
}

/// Which secrets can be seen, and how.
fn seen(store: &Store, secrets: &[Vec<u8>]) -> BTreeMap<String, String> {
    let texts: Vec<(ObjectName, Vec<Vec<u8>>)> =
        objects(store).iter().map(|(name, bytes)| (name.clone(), visible(name, bytes))).collect();
    let mut found = BTreeMap::new();
    for secret in secrets {
        for (form, pattern) in forms(secret) {
            // Bytes of a table are faster to find than windows to compare.
            let first = pattern[0];
            let has = |text: &Vec<u8>| {
                text.iter().enumerate().any(|(at, byte)| *byte == first && text[at..].starts_with(&pattern))
            };
            if let Some((name, _)) = texts.iter().find(|(_, texts)| texts.iter().any(has)) {
                found.entry(secret.escape_ascii().to_string()).or_insert_with(|| format!("{form} in {name}"));
            }
        }
    }
    found
}

#[test]
fn nothing_that_was_captured_can_be_seen_in_any_object_or_name() {
    let (stored, of_keys) = secrets();
    let env = Env::seeded(1, later());
    // The scan finds all of it where nothing is encrypted, so it would find it here.
    let plain = Repo::init(Store::memory(), env.clone()).unwrap();
    captured(&plain, &env);
    let found = seen(plain.store(), &stored);
    let missed: Vec<String> = stored
        .iter()
        .map(|secret| secret.escape_ascii().to_string())
        .filter(|secret| !found.contains_key(secret))
        .collect();
    assert_eq!(missed, Vec::<String>::new(), "the scan sees what is not encrypted");

    let store = Store::memory();
    let passphrase = Credential::passphrase(PASSPHRASE);
    let repo = Repo::init_encrypted(store.clone(), env.clone(), &passphrase, SLOT, Cost::STANDARD).unwrap();
    repo.add_slot(WRITER_SLOT, SlotRole::Writer, &key(WRITER)).unwrap();
    captured(&repo, &env);
    let all = objects(&store);
    for sort in ["checkpoint/", ".pack", "log/", "key/"] {
        assert!(all.keys().any(|name| name.as_str().contains(sort)), "there is a {sort}");
    }
    let secrets = [stored, of_keys, vec![[WRITER; 32].to_vec()]].concat();
    assert_eq!(seen(&store, &secrets), BTreeMap::new());
    // Nor when a point was made: names of points are times.
    let times: Vec<Vec<u8>> = points(&repo).into_iter().map(String::into_bytes).collect();
    assert_eq!(times.len(), 3);
    assert_eq!(seen(&store, &times), BTreeMap::new());
    assert_eq!(seen(plain.store(), &points(&plain).into_iter().map(String::into_bytes).collect::<Vec<_>>()).len(), 3);
}

fn points(repo: &std::sync::Arc<Repo>) -> Vec<String> {
    let (_, log) = super::source(repo, SOURCE);
    log.load().unwrap().committed().iter().map(|point| point.name().to_owned()).collect()
}

/// A history with all that writes: captures by several keys, deletions, new passphrases, rotations, keys that come
/// and go. Every object that was ever stored, also under a name that was used twice.
fn history() -> (Bench, Vec<(ObjectName, Vec<u8>)>) {
    let bench = Bench::with_keys();
    let mut ever: BTreeSet<(ObjectName, Vec<u8>)> = BTreeSet::new();
    let mut look = |bench: &Bench| ever.extend(objects(&bench.store));
    look(&bench);
    fill(&bench.root());
    for round in 0..4u64 {
        bench.capture(FULL, "full");
        bench.write("sub/changing", noise(900 + round as usize * 37, 1000 + round));
        bench.capture(WRITER, "written");
        bench.capture(OTHER_WRITER, "also");
        look(&bench);
        let full = bench.open(FULL);
        // The same passphrase for one slot after another.
        for (name, role) in [("comes", SlotRole::Full), ("and goes", SlotRole::Writer), ("again", SlotRole::Collector)]
        {
            let slot = full.add_slot(&format!("{name} {round}"), role, &key(77)).unwrap();
            look(&bench);
            // One that breaks off leaves its mark.
            let faults = Faults::new();
            let breaks = open(&faults.around(&bench.store), &bench.env, &key(FULL)).unwrap();
            faults.plan(Rule::new(Fault::Before).on(Operation::Delete).then_crash());
            breaks.remove_slot(&slot, || None).unwrap_err();
            look(&bench);
            full.remove_slot(&slot, || None).unwrap();
        }
        full.replace_own_slot(&key(78)).unwrap();
        look(&bench);
        bench.open(78).replace_own_slot(&key(FULL)).unwrap();
        look(&bench);
        if round % 2 == 1 {
            super::rotation::rotate(&bench, FULL);
            look(&bench);
        }
    }
    (bench, ever.into_iter().collect())
}

#[test]
fn no_two_texts_share_a_key_and_a_place() {
    let (_, ever) = history();
    let mut packs: HashMap<&ObjectName, &[u8]> = HashMap::new();
    let mut keys: HashMap<Vec<u8>, &[u8]> = HashMap::new();
    let (mut frames, mut salts, mut marks) = (0, 0, 0);
    for (name, bytes) in &ever {
        match Object::parse(name).unwrap() {
            Object::Pack(..) => {
                // A pack's frames are counted, so two packs of one name would seal two texts at each place.
                assert!(packs.insert(name, bytes).is_none(), "two packs were ever called {name}");
                // And its keys follow from its name and its session's: no two packs commit to the same.
                for commitment in [&bytes[pack::HEADER_BYTES + 32..][..32], &bytes[pack::HEADER_BYTES + 64..][..32]] {
                    assert!(keys.insert(commitment.to_vec(), bytes).is_none(), "{name} shares a key");
                }
                frames += 1;
            }
            Object::Entry(..) | Object::Checkpoint(..) => {
                let (salt, commitment) =
                    (&bytes[envelope::HEADER_BYTES..][..32], &bytes[envelope::HEADER_BYTES + 32..][..32]);
                for part in [salt, commitment] {
                    assert!(keys.insert(part.to_vec(), bytes).is_none(), "{name} shares a salt or a key");
                }
                salts += 1;
            }
            // Its sealed parts: of each, its salt and its commitment, then the bytes that no other may have.
            Object::Slot(..) => {
                for (part, text) in slot_parts(bytes) {
                    if let Some(other) = keys.insert(part, text) {
                        assert_eq!(other, text, "two texts of {name} share a key");
                    }
                }
                salts += 1;
            }
            Object::Removal(..) => {
                let (part, text) = sealed_part(&bytes[envelope::HEADER_BYTES..]);
                assert!(keys.insert(part, text).is_none(), "{name} shares a key");
                marks += 1;
            }
            Object::Marker | Object::Probe(_) | Object::Lease(..) | Object::SingleWriter => {}
        }
    }
    assert!(marks >= 4, "{marks} marks were compared");
    assert!(frames >= 12 && salts >= 60, "{frames} packs and {salts} small objects were compared");
}

/// The sealed parts of a slot: the commitment to each one's key, and its text.
fn slot_parts(bytes: &[u8]) -> Vec<(Vec<u8>, &[u8])> {
    // Behind the envelope, twice, and perhaps, behind a one, once more: a salt, a commitment, and a text, of which the
    // codec tells the length in three bytes.
    let part = |body: &'_ [u8]| -> usize {
        assert_eq!(body[64], 251, "the layout of a slot has changed: change this as well");
        67 + usize::from(u16::from_le_bytes([body[65], body[66]]))
    };
    let body = &bytes[envelope::HEADER_BYTES..];
    let (first, rest) = body.split_at(part(body));
    let (second, rest) = rest.split_at(part(rest));
    let mut parts = vec![first, second];
    match rest.split_first() {
        Some((0, [])) => {}
        Some((1, third)) => {
            assert_eq!(part(third), third.len());
            parts.push(third);
        }
        other => panic!("the layout of a slot has changed: {other:?}"),
    }
    parts.into_iter().map(sealed_part).collect()
}

/// The commitment to the key of a sealed part, and its text.
fn sealed_part(part: &[u8]) -> (Vec<u8>, &[u8]) {
    (part[32..64].to_vec(), &part[64..])
}

#[test]
fn lengths_are_padded() {
    let (_, ever) = history();
    let (mut packs, mut entries, mut slots, mut marks) = (BTreeSet::new(), 0, BTreeSet::new(), BTreeSet::new());
    for (name, bytes) in &ever {
        let length = bytes.len() as u64;
        match Object::parse(name).unwrap() {
            Object::Pack(..) => {
                assert_eq!(padded_len(length), length, "{name} has {length} bytes");
                packs.insert(length);
            }
            Object::Entry(..) | Object::Checkpoint(..) => {
                let sealed = length - envelope::HEADER_BYTES as u64 - 32 - 32 - 16;
                assert_eq!(padded_len(sealed), sealed, "{name} has {length} bytes");
                entries += 1;
            }
            Object::Slot(..) => drop(slots.insert(length)),
            Object::Removal(..) => drop(marks.insert(length)),
            Object::Marker | Object::Probe(_) | Object::Lease(..) | Object::SingleWriter => {}
        }
    }
    assert!(packs.len() >= 2 && entries >= 30, "{packs:?}, {entries} entries");
    assert!(slots.len() <= 8, "a slot's length tells little: {slots:?}");
    assert_eq!(marks.len(), 1, "that of a mark tells nothing: {marks:?}");
    assert!(packs.iter().all(|length| *length > (sealed::HEADER_BYTES + sealed::TRAILER_BYTES) as u64));
}

/// Equal content gives no equal bytes: neither in one repository nor in two.
#[test]
fn equal_contents_look_different_each_time() {
    let bench = Bench::new();
    fill(&bench.root());
    bench.capture(FULL, "one");
    bench.capture(FULL, "two");
    let other = Bench::new();
    let mut blocks: HashMap<Vec<u8>, ObjectName> = HashMap::new();
    fill(&other.root());
    other.capture(FULL, "one");
    let all = objects(&bench.store).into_iter().chain(objects(&other.store));
    for (name, bytes) in all.filter(|(name, _)| matches!(Object::parse(name), Some(Object::Pack(..)))) {
        for block in bytes[sealed::HEADER_BYTES..].chunks_exact(16) {
            if let Some(same) = blocks.insert(block.to_vec(), name.clone()) {
                panic!("{name} and {same} have 16 bytes in common: {block:?}");
            }
        }
    }
    assert!(blocks.len() > 50_000, "{}", blocks.len());
}
