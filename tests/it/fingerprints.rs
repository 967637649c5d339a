//! Whether the lengths of chunks tell which files are stored.
//!
//! The game: somebody sees the lengths of a file's chunks, holds a file of the same size that may be the one, and says
//! whether it is. He knows every algorithm and not the key; he has seen how that key cuts files which he knows. Half of
//! the time the file is the one. His advantage is the share of files that he recognises less the share of others that he
//! takes for them: all is 1, guessing is 0.
//!
//! Each attack must win against the chunker that it is made for, or it would show nothing: the public FastCDC is played
//! after, the seed of FastCDC is searched bit by bit, and the rolling hash of the keyed chunker, when it decides the
//! cuts itself, is solved for as a system of linear equations. Against the keyed chunker all of them may only guess.
//!
//! `AMBERFS_FINGERPRINTS` sets how many keys are tried, with 1,000 files and 1,000 others each.

use std::collections::BTreeSet;

use amberfs::seal::chunker::{ChunkerKey, KeyedChunker};
use fastcdc::v2020::{FastCDC, Normalization, get_gear_with_seed, select_masks};

use crate::skip::untried;

/// Files that are the one, and as many that are not.
const FILES: usize = 1000;
/// Bytes of a file.
const FILE_BYTES: usize = 8 << 10;
/// Files whose cuts the attacker has seen.
const SEEN_FILES: usize = 300;
/// Small chunks: many cuts from few bytes.
const SIZES: (usize, usize, usize) = (128, 512, 2048);
/// Symbols that files are made of. Fewer make it easier to solve for what they stand for.
const SYMBOLS: &[u8; 8] = b"01234567";

type Cuts = BTreeSet<usize>;

/// A chunker under attack.
trait Chunker {
    fn cut(&mut self, data: &[u8]) -> usize;

    /// Where chunks end, but for the end of the file.
    fn cuts(&mut self, data: &[u8]) -> Cuts {
        let mut at = 0;
        let mut cuts = Cuts::new();
        while at < data.len() {
            at += self.cut(&data[at..]);
            cuts.insert(at);
        }
        cuts.remove(&data.len());
        cuts
    }
}

impl Chunker for &mut KeyedChunker {
    fn cut(&mut self, data: &[u8]) -> usize {
        KeyedChunker::cut(self, data)
    }
}

/// FastCDC with its table changed by a secret; with none, the public one.
struct Seeded(u64);

impl Chunker for Seeded {
    fn cut(&mut self, data: &[u8]) -> usize {
        let (least, usual, most) = SIZES;
        let cdc = FastCDC::with_level_and_seed(data, least, usual, most, Normalization::Level1, self.0);
        cdc.cut(0, data.len()).1
    }
}

/// The rolling hash of the keyed chunker without the cipher behind it: the hash itself decides.
struct Bare {
    entering: [u128; 256],
    leaving: [u128; 256],
}

/// Bits of a hash that must be zero before the usual size of a chunk, and from there on.
const BARE_BITS: (u32, u32) = (11, 7);
const WINDOW_BYTES: usize = 64;

impl Bare {
    fn new(table: impl Fn(u8) -> u128) -> Bare {
        let entering: [u128; 256] = std::array::from_fn(|byte| table(byte as u8));
        let leaving = entering.map(|element| (0..WINDOW_BYTES).fold(element, |moved, _| times_x(moved)));
        Bare { entering, leaving }
    }

    fn random(seed: u64) -> Bare {
        let bytes = random("table", seed, 16 * 256);
        let (elements, _) = bytes.as_chunks();
        Bare::new(|byte| u128::from_le_bytes(elements[usize::from(byte)]))
    }

    fn bits(length: usize) -> u32 {
        if length < SIZES.1 { BARE_BITS.0 } else { BARE_BITS.1 }
    }
}

impl Chunker for Bare {
    fn cut(&mut self, data: &[u8]) -> usize {
        let (least, _, most) = SIZES;
        let end = data.len().min(most);
        let enters = |hash: u128, byte: u8| times_x(hash) ^ self.entering[usize::from(byte)];
        let Some(window) = data.get(least - WINDOW_BYTES..least) else { return end };
        let mut hash = window.iter().fold(0, |hash, byte| enters(hash, *byte));
        for length in least..end {
            if hash.trailing_zeros() >= Bare::bits(length) {
                return length;
            }
            hash = enters(hash, data[length]) ^ self.leaving[usize::from(data[length - WINDOW_BYTES])];
        }
        end
    }
}

fn times_x(element: u128) -> u128 {
    (element << 1) ^ ((element >> 127) * 0x87)
}

/// How somebody decides from cuts that he has seen.
trait Attack {
    /// How much speaks for these being the cuts of `file`.
    fn score(&mut self, file: &[u8], cuts: &Cuts) -> f64;
}

/// Cuts the file himself, with what he takes for the chunker.
struct Replay<C>(C);

impl<C: Chunker> Attack for Replay<C> {
    fn score(&mut self, file: &[u8], cuts: &Cuts) -> f64 {
        self.0.cuts(file).intersection(cuts).count() as f64
    }
}

/// Counts which symbols stand before cuts, and goes by that.
struct Frequencies {
    /// For each of the last places before a cut and each byte, how much it speaks for a cut.
    weights: Vec<[f64; 256]>,
}

impl Frequencies {
    const PLACES: usize = 64;

    fn learn(seen: &[(Vec<u8>, Cuts)]) -> Frequencies {
        let mut counts = vec![[1.0f64; 256]; Frequencies::PLACES];
        let mut all = 0.0;
        for (file, cut) in seen.iter().flat_map(|(file, cuts)| cuts.iter().map(move |cut| (file, *cut))) {
            all += 1.0;
            for (place, counts) in counts.iter_mut().enumerate() {
                counts[usize::from(file[cut - 1 - place])] += 1.0;
            }
        }
        let usual = (all + 8.0) / 8.0;
        counts.iter_mut().flatten().for_each(|count| *count = (*count / usual).ln());
        Frequencies { weights: counts }
    }
}

impl Attack for Frequencies {
    fn score(&mut self, file: &[u8], cuts: &Cuts) -> f64 {
        let speaks = |cut: &usize| -> f64 {
            let places = self.weights.iter().enumerate();
            places.map(|(place, weights)| weights[usize::from(file[cut - 1 - place])]).sum()
        };
        cuts.iter().map(speaks).sum()
    }
}

/// The seed of [`Seeded`], from cuts that it made: the lower bits of the hash depend on the lower bits of the seed only,
/// and where a chunk ends, those under the mask are zero. None if no seed explains the cuts.
fn seed_of(seen: &[(Vec<u8>, Cuts)]) -> Option<u64> {
    const CANDIDATES_MAX: usize = 1 << 12;
    let (least, usual, most) = SIZES;
    let (gear, _) = get_gear_with_seed(0);
    let (rare, frequent) = select_masks(usual, Normalization::Level1);
    // The bytes that the hash had seen, newest first, and the bits that it must not have.
    let mut equations = Vec::new();
    for (file, cuts) in seen {
        let mut start = 0;
        for cut in cuts {
            let length = cut - start;
            if length < most {
                let bytes: Vec<u64> =
                    file[start + least..=*cut].iter().rev().take(64).map(|byte| gear[usize::from(*byte)]).collect();
                equations.push((bytes, if length < usual { rare } else { frequent }));
            }
            start = *cut;
        }
    }
    let holds = |seed: u64, bit: u32, (bytes, mask): &(Vec<u64>, u64)| {
        let hash = bytes.iter().enumerate().fold(0u64, |sum, (at, gear)| sum.wrapping_add((gear ^ seed) << at));
        (mask >> bit) & 1 == 0 || (hash >> bit) & 1 == 0
    };
    let mut candidates = vec![0u64];
    let mut known_bits = 0;
    for bit in (0..64).filter(|bit| ((rare | frequent) >> bit) & 1 == 1) {
        let fresh = bit + 1 - known_bits;
        let mut longer = Vec::new();
        for candidate in &candidates {
            for more in 0..1u64 << fresh {
                let seed = candidate | (more << known_bits);
                if equations.iter().all(|equation| holds(seed, bit, equation)) {
                    longer.push(seed);
                }
            }
        }
        candidates = longer;
        candidates.truncate(CANDIDATES_MAX);
        known_bits = bit + 1;
    }
    candidates.first().copied()
}

/// The table of [`Bare`], from cuts that it made: each says of some bits of a hash, which are sums of bits of the table,
/// that they are zero. What contradicts is passed over.
fn table_of(seen: &[(Vec<u8>, Cuts)]) -> Bare {
    const UNKNOWNS: usize = SYMBOLS.len() * 128;
    type Row = [u64; UNKNOWNS / 64];
    let symbol = |byte: u8| SYMBOLS.iter().position(|symbol| *symbol == byte).unwrap();
    // By the first unknown that a row speaks of.
    let mut rows: Vec<Option<Row>> = vec![None; UNKNOWNS];
    let mut rank = 0;
    'all: for (file, cuts) in seen {
        let mut start = 0;
        for cut in cuts {
            let length = cut - start;
            start = *cut;
            if length >= SIZES.2 {
                continue;
            }
            let bits = Bare::bits(length);
            let mut powers = [0u128; SYMBOLS.len()];
            for (place, byte) in file[cut - WINDOW_BYTES..*cut].iter().rev().enumerate() {
                powers[symbol(*byte)] ^= 1 << place;
            }
            let mut equations = vec![[0u64; UNKNOWNS / 64]; bits as usize];
            for (symbol, mut power) in powers.into_iter().enumerate() {
                for unknown in 0..128 {
                    for (bit, row) in equations.iter_mut().enumerate() {
                        let at = symbol * 128 + unknown;
                        row[at / 64] |= (((power >> bit) & 1) as u64) << (at % 64);
                    }
                    power = times_x(power);
                }
            }
            for mut row in equations {
                while let Some(first) = row.iter().position(|word| *word != 0) {
                    let unknown = first * 64 + row[first].trailing_zeros() as usize;
                    match &rows[unknown] {
                        Some(other) => row.iter_mut().zip(other).for_each(|(word, other)| *word ^= other),
                        None => {
                            rows[unknown] = Some(row);
                            rank += 1;
                            break;
                        }
                    }
                }
            }
            // All zero is a solution, too, and the only one at full rank: one unknown stays free.
            if rank + 1 >= UNKNOWNS {
                break 'all;
            }
        }
    }
    // The last unknowns first: each row says what its first one is. Free ones are anything but all zero.
    let mut values = [false; UNKNOWNS];
    for unknown in (0..UNKNOWNS).rev() {
        let set = |row: &Row, at: usize| (row[at / 64] >> (at % 64)) & 1 == 1;
        let odd = |row: &Row| (unknown + 1..UNKNOWNS).filter(|at| set(row, *at) && values[*at]).count() % 2 == 1;
        values[unknown] = rows[unknown].as_ref().is_none_or(odd);
    }
    let bits = |symbol: usize| (0..128).fold(0u128, |sum, bit| sum | (u128::from(values[symbol * 128 + bit]) << bit));
    Bare::new(|byte| SYMBOLS.iter().position(|symbol| *symbol == byte).map_or(0, bits))
}

fn random(what: &str, seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(what.as_bytes()).update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A file of its own for each number.
fn file(number: u64) -> Vec<u8> {
    let choice = random("file", number, FILE_BYTES);
    choice.iter().map(|byte| SYMBOLS[usize::from(byte % 8)]).collect()
}

/// What somebody has seen of a chunker.
fn seen(chunker: &mut dyn Chunker) -> Vec<(Vec<u8>, Cuts)> {
    let files = (0..SEEN_FILES as u64).map(|number| file((1 << 40) | number));
    files.map(|file| (chunker.cuts(&file), file)).map(|(cuts, file)| (file, cuts)).collect()
}

/// Rounds of the game with one key: a file that the attacker holds, the cuts that he sees, and whether they are its.
fn rounds(chunker: &mut dyn Chunker, key: u64, files: usize) -> Vec<(Vec<u8>, Cuts, bool)> {
    let number = |at: usize| (key << 32) | at as u64;
    let round = |at: usize| {
        let (held, is) = (file(number(2 * at)), at.is_multiple_of(2));
        let cuts = if is { chunker.cuts(&held) } else { chunker.cuts(&file(number(2 * at + 1))) };
        (held, cuts, is)
    };
    (0..2 * files).map(round).collect()
}

/// How many rounds are judged rightly, when the half for which most speaks is taken to be the one.
fn right(attack: &mut dyn Attack, rounds: &[(Vec<u8>, Cuts, bool)]) -> usize {
    let mut scores: Vec<(f64, bool)> = rounds.iter().map(|(file, cuts, is)| (attack.score(file, cuts), *is)).collect();
    // Stable, and rounds alternate: where nothing speaks for either, half of them is right.
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (taken, left) = scores.split_at(scores.len() / 2);
    taken.iter().filter(|(_, is)| *is).count() + left.iter().filter(|(_, is)| !is).count()
}

/// The share of files recognised less the share of others taken for them.
fn advantage(right: usize, rounds: usize) -> f64 {
    2.0 * right as f64 / rounds as f64 - 1.0
}

/// Plays against a chunker that is known to be broken.
#[track_caller]
fn loses(chunker: &mut dyn Chunker, attack: impl FnOnce(&[(Vec<u8>, Cuts)]) -> Box<dyn Attack>) {
    let mut attack = attack(&seen(chunker));
    let rounds = rounds(chunker, 1, 100);
    let advantage = advantage(right(attack.as_mut(), &rounds), rounds.len());
    assert!(advantage > 0.95, "an advantage of {advantage}: the attack has gone blind");
}

#[test]
fn the_public_chunker_tells_what_is_stored() {
    loses(&mut Seeded(0), |_| Box::new(Replay(Seeded(0))));
}

#[test]
fn a_seed_is_found_from_the_cuts_that_it_makes() {
    for seed in [1, 0x5EED_5EED_5EED_5EED, u64::MAX - 7] {
        loses(&mut Seeded(seed), |seen| Box::new(Replay(Seeded(seed_of(seen).expect("a seed")))));
    }
}

#[test]
fn a_hash_that_decides_by_itself_is_solved_for() {
    loses(&mut Bare::random(1), |seen| Box::new(Replay(table_of(seen))));
}

#[test]
fn the_keyed_chunker_tells_nothing() {
    let keys = std::env::var("AMBERFS_FINGERPRINTS").map_or(2, |keys| keys.parse().expect("a number of keys"));
    if keys < 20 {
        untried("more than 2 keys; AMBERFS_FINGERPRINTS=20 tells an advantage of 2 % from chance");
    }
    let mut rights = [0; 4];
    let mut seeds = 0;
    for key in 0..keys {
        let secret = random("key", key, 32);
        let mut chunker = &mut KeyedChunker::new(&ChunkerKey::new(secret.try_into().unwrap()), SIZES);
        let seen = seen(&mut chunker);
        let rounds = rounds(&mut chunker, 1000 + key, FILES);
        let seed = seed_of(&seen);
        seeds += u64::from(seed.is_some());
        let mut other = KeyedChunker::new(&ChunkerKey::new([key as u8; 32]), SIZES);
        let attacks: [&mut dyn Attack; 4] = [
            &mut Replay(Seeded(seed.unwrap_or_default())),
            &mut Replay(&mut other),
            &mut Replay(table_of(&seen)),
            &mut Frequencies::learn(&seen),
        ];
        for (attack, total) in attacks.into_iter().zip(&mut rights) {
            *total += right(attack, &rounds);
        }
    }
    // 2 %, or if that is more, three deviations of what guessing yields.
    let files = FILES as f64 * keys as f64;
    let allowed = (3.0 * (0.5 / files).sqrt()).max(0.02);
    let advantages = rights.map(|right| advantage(right, 2 * FILES * keys as usize));
    println!("{keys} keys, a seed found for {seeds}: advantages {advantages:.4?}, allowed {allowed:.4}");
    assert!(advantages.iter().all(|advantage| advantage.abs() <= allowed), "{advantages:?}, allowed {allowed}");
}
