//! No key seals two texts under one counter: kept up over whatever the tests of this process do.
//!
//! AES-GCM with a nonce that comes twice gives away both texts and the power to forge, so a retry, a second attempt after a
//! lost answer, a crash and what follows it must all seal the very same bytes again or use another key. Every world
//! of these tests that is encrypted is watched from its beginning ([`watch`]), and wherever a history is
//! judged, so is this ([`judge`]). Two worlds never share a key by their seed: `world::init` sees to that.
//!
//! What it does not see: what the program seals in a process of its own.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use amberfs::seal::Secret;
use amberfs::seal::aead::{Counter, Key};
use amberfs::seal::observe::{Sealing, observe};

/// A key and a counter, and what was sealed with them, each as the beginning of a hash.
type Sealed = HashMap<[u8; 16], [u8; 16]>;

/// Messages after which the older half is forgotten: a world is at work for a time and then never again.
const HALF: usize = 1 << 20;

#[derive(Default)]
struct Ledger {
    young: Sealed,
    old: Sealed,
    /// Of each key that has sealed two texts, the first time.
    broken: Vec<([u8; 32], String)>,
}

static LEDGER: Mutex<Option<Ledger>> = Mutex::new(None);
static MESSAGES: AtomicU64 = AtomicU64::new(0);

fn short(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize().as_bytes()[..16].try_into().unwrap()
}

fn note(sealing: &Sealing<'_>) {
    let Sealing { commitment, counter: Counter { part, ordinal }, place, text } = *sealing;
    let at = short(&[commitment, &part.to_le_bytes(), &ordinal.to_le_bytes()]);
    let what = short(&[place, text]);
    MESSAGES.fetch_add(1, Ordering::Relaxed);
    let mut ledger = LEDGER.lock().unwrap();
    let ledger = ledger.get_or_insert_default();
    match ledger.young.get(&at).or_else(|| ledger.old.get(&at)) {
        Some(known) if *known == what => {}
        Some(_) => {
            let told = format!("part {part}, ordinal {ordinal}: {} bytes bound to {place:02x?}", text.len());
            if ledger.broken.iter().all(|(key, _)| key != commitment) {
                ledger.broken.push((*commitment, told));
            }
        }
        None => {
            if ledger.young.len() >= HALF {
                ledger.old = std::mem::take(&mut ledger.young);
            }
            ledger.young.insert(at, what);
        }
    }
}

/// From now on all that is sealed in this process is noted.
pub(crate) fn watch() {
    observe(note);
}

/// What a key has sealed that it must not have, if anything.
fn broken_by(key: impl Fn(&[u8; 32]) -> bool) -> Option<String> {
    let ledger = LEDGER.lock().unwrap();
    ledger.iter().flat_map(|ledger| &ledger.broken).find(|(broken, _)| key(broken)).map(|(_, told)| told.clone())
}

/// Fails if any key has sealed two texts under one counter.
#[track_caller]
pub(crate) fn judge() {
    let planted = [planted(1), planted(2)].map(|key| *key.commitment());
    if let Some(told) = broken_by(|key| !planted.contains(key)) {
        panic!("a key has sealed two texts under one counter: {told}");
    }
}

/// How many messages were seen.
pub(crate) fn seen() -> u64 {
    MESSAGES.load(Ordering::Relaxed)
}

/// Keys of defects that are planted below; nothing else has them.
fn planted(n: u8) -> Key {
    Key::new(&Secret::new([0xd0 | n; 32]))
}

#[test]
fn a_counter_that_comes_twice_is_noticed() {
    watch();
    let before = seen();
    let seal = |key: &Key, ordinal, place: &[u8], text: &[u8]| {
        key.seal(Counter { part: 1, ordinal }, place, &mut text.to_vec());
    };
    let fine = planted(1);
    for _ in 0..2 {
        // A retry: the same again.
        seal(&fine, 1, b"here", b"text");
        seal(&fine, 2, b"here", b"other");
    }
    assert_eq!(broken_by(|key| key == fine.commitment()), None);
    seal(&fine, 1, b"there", b"text");
    assert!(broken_by(|key| key == fine.commitment()).is_some(), "the same text at another place");
    let other = planted(2);
    seal(&other, 1, b"here", b"text");
    assert_eq!(broken_by(|key| key == other.commitment()), None, "another key may");
    seal(&other, 1, b"here", b"texts");
    assert!(broken_by(|key| key == other.commitment()).is_some());
    assert!(seen() >= before + 7);
    judge();
}
