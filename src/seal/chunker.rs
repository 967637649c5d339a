//! Where data is cut by content when nobody without the key may foretell the cuts.
//!
//! A rolling hash over the last [`WINDOW_BYTES`] bytes is almost universal for whoever does not know its table; the
//! hash goes through AES, and what comes out decides. Whoever sees cuts sees a pseudo-random function of the windows
//! (Truong et al., *Breaking and Fixing Content-Defined Chunking*, CCS 2025, eprint 2025/558: hash, then encrypt), so
//! cuts of known data tell nothing of the cuts of other data. Cuts that are decided by the hash itself do: each is a
//! linear equation on the table, and enough of them give the table away.
//!
//! The hash is Toeplitz's by table (Krawczyk, CRYPTO 1994): `sum of x^(63-j) T[byte j]` in `GF(2)[x]` modulo
//! `x^128 + x^7 + x^2 + x + 1`, with 256 secret random elements T. Two different windows differ by a sum of `T[v]` with
//! coefficients of degree below 64, of which one is not zero and so has an inverse: they collide with probability
//! 2^-128, and fill one block of AES. The window must not be longer than the table's powers of x are distinct, nor be
//! left to age out of a shift register.
//!
//! Tables are looked up by bytes of the data, never by a secret, and only what AES yields is branched upon: how long it
//! takes tells no more than the cuts do.
//!
//! What equal content gives away stays: equal windows are decided equally, so equal files have equal cuts under one
//! key. Figures, and what else was tried: `docs/decisions/087-keyed-chunking.md`.

use std::fmt;

use aes::Aes128;
use aes::cipher::array::Array;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use element::{Element, Field};

mod element;
#[cfg(target_arch = "x86_64")]
mod sys;

/// Bytes that a cut is decided by: those before it.
const WINDOW_BYTES: usize = 64;
/// Bytes of a block of AES.
const BLOCK_BYTES: usize = 16;
/// Positions that are hashed before AES is called for all of them.
const BATCH_BLOCKS: usize = 1024;
/// Runs of positions that are hashed side by side: each step waits for the one before it in its own run only.
const LANES: usize = 4;
/// Blocks that are looked at together for one that cuts.
const GROUP_BLOCKS: usize = 16;
/// How many times rarer a cut is before the usual size, and more frequent behind it (FastCDC's normalisation): sizes
/// lie closer together, and more chunks are found again after a change.
const NORMALIZATION: u64 = 4;
/// What the secrets are derived for.
const CONTEXT: &str = "amberfs keyed chunker: AES-128 key, then table of the rolling hash, version 1";

/// The secret that a repository's cuts depend on.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ChunkerKey([u8; 32]);

impl ChunkerKey {
    /// A key of uniformly random, or so derived, bytes that serve nothing else.
    pub fn new(bytes: [u8; 32]) -> ChunkerKey {
        ChunkerKey(bytes)
    }
}

impl fmt::Debug for ChunkerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkerKey(secret)")
    }
}

/// Cuts data into chunks of bounded sizes, by content and a key.
pub struct KeyedChunker {
    tables: Box<Tables>,
    cipher: Aes128,
    /// Hashes, and then what AES makes of them.
    blocks: Zeroizing<Vec<[u8; BLOCK_BYTES]>>,
    least: usize,
    usual: usize,
    most: usize,
    /// The first eight bytes of a block, as a number, lie below this where a chunk is cut before its usual size.
    rare: u64,
    /// The same from the usual size on.
    frequent: u64,
}

/// The secret of the rolling hash.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Tables {
    /// What a byte adds when it enters the window.
    entering: [u128; 256],
    /// What takes it away again when it leaves: the same, moved through the window.
    leaving: [u128; 256],
}

impl KeyedChunker {
    /// Cuts into chunks of `sizes`: the smallest (not below the window), the usual and the largest, in bytes.
    pub fn new(key: &ChunkerKey, sizes: (usize, usize, usize)) -> KeyedChunker {
        let mut secrets = Zeroizing::new([[0; BLOCK_BYTES]; 257]);
        blake3::Hasher::new_derive_key(CONTEXT).update(&key.0).finalize_xof().fill(secrets.as_flattened_mut());
        let [cipher_key, elements @ ..] = &*secrets;
        let mut tables = Box::new(Tables { entering: [0; 256], leaving: [0; 256] });
        for (byte, element) in elements.iter().enumerate() {
            let moved =
                (0..WINDOW_BYTES).fold(Element::from(u128::from_le_bytes(*element)), |moved, _| moved.times_x());
            tables.entering[byte] = u128::from_le_bytes(*element);
            tables.leaving[byte] = u128::from_le_bytes(moved.into());
        }
        let (least, usual, most) = sizes;
        let per = u64::MAX / (usual as u64).max(1);
        KeyedChunker {
            tables,
            cipher: Aes128::new(&Array(*cipher_key)),
            blocks: Zeroizing::new(vec![[0; BLOCK_BYTES]; BATCH_BLOCKS]),
            least: least.max(WINDOW_BYTES),
            usual,
            most,
            rare: per / NORMALIZATION,
            frequent: per.saturating_mul(NORMALIZATION),
        }
    }

    /// The length of the first chunk of `data`, which must hold the largest chunk or all that is left.
    pub fn cut(&mut self, data: &[u8]) -> usize {
        let data = data.get(..self.most).unwrap_or(data);
        let mut at = self.least;
        while at < data.len() {
            let blocks = BATCH_BLOCKS.min(data.len() - at);
            let windows = data.get(at - WINDOW_BYTES..at + blocks).unwrap_or_default();
            if let Some(found) = self.search(windows, at, blocks) {
                return at + found;
            }
            at += blocks;
        }
        data.len()
    }

    /// The first of `blocks` positions from `at` on where a chunk ends; `windows` begins a window before them.
    fn search(&mut self, windows: &[u8], at: usize, blocks: usize) -> Option<usize> {
        let blocks = self.blocks.get_mut(..blocks)?;
        self.tables.hash(windows, blocks);
        // Each block is a function of its window alone, wherever it lies in the data.
        self.cipher.encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
        let (rare, frequent, usual) = (self.rare, self.frequent, self.usual);
        let bound = |position: usize| if position < usual { rare } else { frequent };
        // Most groups have no cut even by the wider bound; they are passed without a branch for each block.
        let widest = bound(at + blocks.len());
        blocks.chunks(GROUP_BLOCKS).enumerate().find_map(|(group, blocks)| {
            if !blocks.iter().fold(false, |any, block| any | (value(block) < widest)) {
                return None;
            }
            let first = group * GROUP_BLOCKS;
            let cuts = |(index, block): (usize, &[u8; BLOCK_BYTES])| value(block) < bound(at + first + index);
            blocks.iter().enumerate().position(cuts).map(|index| first + index)
        })
    }
}

impl fmt::Debug for KeyedChunker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyedChunker { least, usual, most, .. } = self;
        f.debug_struct("KeyedChunker").field("sizes", &(least, usual, most)).finish_non_exhaustive()
    }
}

impl Tables {
    /// The hashes of all windows in `data`, which has a byte for each beside the first window.
    fn hash(&self, data: &[u8], hashes: &mut [[u8; BLOCK_BYTES]]) {
        if let (Some(data), Some(hashes)) = (data.first_chunk(), hashes.first_chunk_mut()) {
            return self.hash_batch(data, hashes);
        }
        let bytes = |from: usize| data.get(from..).unwrap_or_default();
        let mut hash = bytes(0).iter().take(WINDOW_BYTES).fold(Element::from(0), |hash, byte| self.enter(hash, *byte));
        for ((place, leaving), entering) in hashes.iter_mut().zip(data).zip(bytes(WINDOW_BYTES)) {
            *place = hash.into();
            hash = self.enter(hash, *entering) ^ self.leaving(*leaving);
        }
    }

    /// The same of a whole batch, in runs side by side: each step waits for the one before it in its own run only.
    fn hash_batch(&self, data: &[u8; BATCH_BLOCKS + WINDOW_BYTES], hashes: &mut [[u8; BLOCK_BYTES]; BATCH_BLOCKS]) {
        const RUN: usize = BATCH_BLOCKS / LANES;
        let mut hash = [Element::from(0); LANES];
        for at in 0..WINDOW_BYTES {
            for (lane, hash) in hash.iter_mut().enumerate() {
                *hash = self.enter(*hash, data[lane * RUN + at]);
            }
        }
        for at in 0..RUN {
            for (lane, hash) in hash.iter_mut().enumerate() {
                let from = lane * RUN + at;
                hashes[from] = (*hash).into();
                *hash = self.enter(*hash, data[from + WINDOW_BYTES]) ^ self.leaving(data[from]);
            }
        }
    }

    #[inline(always)]
    fn enter(&self, hash: Element, byte: u8) -> Element {
        hash.times_x() ^ Element::from(self.entering[usize::from(byte)])
    }

    #[inline(always)]
    fn leaving(&self, byte: u8) -> Element {
        Element::from(self.leaving[usize::from(byte)])
    }
}

/// What a block is judged by.
#[inline(always)]
fn value(block: &[u8; BLOCK_BYTES]) -> u64 {
    block.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
