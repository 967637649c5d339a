use aws_lc_rs::cipher::{AES_128, EncryptingKey, UnboundCipherKey};
use proptest::prelude::*;

use super::*;

const SIZES: (usize, usize, usize) = (256, 1024, 4096);

fn chunker(key: u8) -> KeyedChunker {
    KeyedChunker::new(&ChunkerKey::new([key; 32]), SIZES)
}

fn noise(bytes: usize, seed: u8) -> Vec<u8> {
    let mut data = vec![0; bytes];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut data);
    data
}

fn cut_all(chunker: &mut KeyedChunker, data: &[u8]) -> Vec<usize> {
    let mut rest = data;
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        let length = chunker.cut(rest);
        assert!(length > 0 && length <= rest.len());
        lengths.push(length);
        rest = &rest[length..];
    }
    lengths
}

/// The product of two elements, bit by bit.
fn product(a: u128, b: u128) -> u128 {
    let mut power = a;
    let mut sum = 0;
    for bit in 0..128 {
        if (b >> bit) & 1 == 1 {
            sum ^= power;
        }
        let carry = power >> 127;
        power = (power << 1) ^ (carry * 0x87);
    }
    sum
}

/// The same cuts by the definition: each window hashed as a sum of products, and encrypted by itself.
fn defined(key: u8, data: &[u8]) -> Vec<usize> {
    let mut secrets = [0; 16 * 257];
    blake3::Hasher::new_derive_key(CONTEXT).update(&[key; 32]).finalize_xof().fill(&mut secrets);
    let element = |byte: u8| {
        let at = 16 * (1 + usize::from(byte));
        u128::from_le_bytes(secrets[at..at + 16].try_into().unwrap())
    };
    let cipher = EncryptingKey::ecb(UnboundCipherKey::new(&AES_128, &secrets[..16]).unwrap()).unwrap();
    let (least, usual, most) = SIZES;
    let per = u64::MAX / usual as u64;
    let mut lengths = Vec::new();
    let mut start = 0;
    while start < data.len() {
        let rest = &data[start..data.len().min(start + most)];
        let cuts = |length: &usize| {
            let window = rest[length - 64..*length].iter().enumerate();
            let hash = window.fold(0, |sum, (j, byte)| sum ^ product(element(*byte), 1 << (63 - j)));
            let mut block = hash.to_le_bytes();
            cipher.encrypt(&mut block).unwrap();
            let value = u64::from_le_bytes(block[..8].try_into().unwrap());
            value < if *length < usual { per / 4 } else { per * 4 }
        };
        let length = (least..rest.len()).find(cuts).unwrap_or(rest.len());
        lengths.push(length);
        start += length;
    }
    lengths
}

#[test]
fn cuts_are_those_of_the_definition() {
    for (key, data) in [(1, noise(20_000, 1)), (2, b"a line of text that repeats, \n".repeat(300)), (3, noise(1000, 3))]
    {
        assert_eq!(cut_all(&mut chunker(key), &data), defined(key, &data), "key {key}");
    }
}

/// Cuts decide which chunks a repository finds again: they may never change for a key.
#[test]
fn cuts_of_a_known_key() {
    let sizes = crate::base::limits::CDC_BYTES;
    let key = ChunkerKey::new(std::array::from_fn(|at| at as u8));
    let lengths = cut_all(&mut KeyedChunker::new(&key, sizes), &noise(2 << 20, 9));
    assert_eq!(lengths, [395_401, 404_594, 283_044, 310_428, 274_129, 296_052, 133_504]);
}

#[test]
fn sizes_keep_their_bounds_and_lie_around_the_usual() {
    let lengths = cut_all(&mut chunker(1), &noise(1 << 20, 1));
    let (least, usual, most) = SIZES;
    assert!(lengths.iter().rev().skip(1).all(|length| (least..=most).contains(length)));
    let mean = (1 << 20) / lengths.len();
    assert!((usual * 4 / 5..usual * 3 / 2).contains(&mean), "mean {mean}");
    let largest = lengths.iter().filter(|length| **length == most).count();
    assert!(largest * 100 < lengths.len(), "{largest} of {}", lengths.len());
    // Where all windows are equal, all are decided equally: to cut at none, but for one key in thousands.
    assert_eq!(cut_all(&mut chunker(1), &[0; 10_000]), [4096, 4096, 1808]);
}

#[test]
fn keys_cut_at_places_of_their_own() {
    let data = noise(1 << 18, 5);
    let places = |key| {
        let ends = cut_all(&mut chunker(key), &data).into_iter();
        ends.scan(0, |at, length| {
            *at += length;
            Some(*at)
        })
        .collect::<std::collections::BTreeSet<_>>()
    };
    let (a, b) = (places(1), places(2));
    assert!(a.len() > 150 && b.len() > 150);
    // The end, and by chance one place in a thousand.
    assert!(a.intersection(&b).count() <= 5);
    assert_eq!(places(1), a);
}

#[test]
fn cuts_meet_again_behind_an_insertion() {
    let data = noise(1 << 18, 6);
    let tails = |data: &[u8]| {
        let mut left = data.len();
        cut_all(&mut chunker(1), data)
            .into_iter()
            .map(|length| {
                left -= length;
                left
            })
            .collect::<Vec<_>>()
    };
    let mut longer = data[..5000].to_vec();
    longer.extend_from_slice(b"inserted");
    longer.extend_from_slice(&data[5000..]);
    let (before, after) = (tails(&data), tails(&longer));
    let kept = after.iter().filter(|tail| before.contains(tail)).count();
    assert!(kept + 8 >= after.len(), "{kept} of {} places kept", after.len());
}

#[test]
fn nothing_secret_is_printed() {
    let key = ChunkerKey::new([0xA5; 32]);
    let printed = format!("{key:?} {:?}", KeyedChunker::new(&key, SIZES));
    assert_eq!(printed, "ChunkerKey(secret) KeyedChunker { sizes: (256, 1024, 4096), .. }");
}

#[test]
fn secrets_are_wiped() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<ChunkerKey>();
    wiped::<Tables>();
    wiped::<Aes128>();
}

proptest! {
    /// A cut depends on the chunk and nothing behind it, nor on what was cut before.
    #[test]
    fn a_cut_needs_no_more_than_its_chunk(seed: u8, period in 1usize..5000, bytes in 0usize..20_000, more in 0usize..3000) {
        let data: Vec<u8> = noise(period, seed).into_iter().cycle().take(bytes).collect();
        let (_, _, most) = SIZES;
        let (mut one, mut other) = (chunker(1), chunker(1));
        let mut at = 0;
        while at < data.len() {
            let length = one.cut(&data[at..]);
            let end = data.len().min(at + most + more);
            prop_assert_eq!(other.cut(&data[at..end]), length);
            at += length;
        }
    }
}
