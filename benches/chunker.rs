//! What cutting by content under a key costs: the keyed chunker against FastCDC, on the same bytes in one run.
//!
//! `cargo bench --bench chunker [-- FILE…]`; the figures in `docs/decisions/087-keyed-chunking.md` come from here.
//! For each file, or for 256 MiB of noise and of words, it prints the rates in time of the processor, which other load
//! disturbs least, their ratio, the sizes of chunks, and the bytes that are new after fifty insertions. It asserts
//! nothing.

use std::collections::HashSet;
use std::fs;

use amberfs::base::limits;
use amberfs::seal::chunker::{ChunkerKey, KeyedChunker};
use fastcdc::v2020::FastCDC;

const INSERTIONS: usize = 50;
const RUNS: usize = 5;

/// Says how long the first chunk of some data is.
type Cut<'a> = &'a mut dyn FnMut(&[u8]) -> usize;

fn main() {
    // What cargo itself passes begins with a dash.
    let files: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    println!(
        "{:>24} {:>8} {:>6} {:>6} {:>9} {:>12} {:>14}",
        "data", "cutter", "MB/s", "ratio", "mean KiB", "deviation", "KiB/insertion"
    );
    if files.is_empty() {
        run("noise", &noise(256 << 20));
        run("words", &words(256 << 20));
    }
    for file in files {
        run(&file, &fs::read(&file).expect("read the file"));
    }
}

fn run(name: &str, data: &[u8]) {
    let (least, usual, most) = limits::CDC_BYTES;
    let mut keyed = KeyedChunker::new(&ChunkerKey::new([7; 32]), limits::CDC_BYTES);
    let mut plain_cut = |data: &[u8]| FastCDC::new(data, least, usual, most).cut(0, data.len()).1;
    let mut keyed_cut = |data: &[u8]| keyed.cut(data);
    let cutters: [(&str, Cut<'_>); 2] = [("plain", &mut plain_cut), ("keyed", &mut keyed_cut)];
    let edited = edited(data);
    let mut first = None;
    for (cutter, cut) in cutters {
        let mut seconds = f64::INFINITY;
        let mut lengths = Vec::new();
        for _ in 0..RUNS {
            let before = processor_seconds();
            lengths = cut_all(data, cut);
            seconds = seconds.min(processor_seconds() - before);
        }
        let rate = data.len() as f64 / seconds / 1e6;
        let ratio = rate / *first.get_or_insert(rate);
        let mean = data.len() as f64 / lengths.len() as f64;
        let square = |length: &usize| (*length as f64 - mean).powi(2);
        let deviation = (lengths.iter().map(square).sum::<f64>() / lengths.len() as f64).sqrt() / mean;
        let known: HashSet<_> = hashes(data, &lengths).map(|(hash, _)| hash).collect();
        let after = cut_all(&edited, cut);
        let new: usize =
            hashes(&edited, &after).filter(|(hash, _)| !known.contains(hash)).map(|(_, bytes)| bytes).sum();
        println!(
            "{name:>24} {cutter:>8} {rate:>6.0} {ratio:>6.2} {:>9.0} {deviation:>12.2} {:>14.0}",
            mean / 1024.0,
            new as f64 / 1024.0 / INSERTIONS as f64
        );
    }
}

fn cut_all(data: &[u8], cut: Cut<'_>) -> Vec<usize> {
    let mut rest = data;
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        let length = cut(rest);
        lengths.push(length);
        rest = &rest[length..];
    }
    lengths
}

fn hashes(data: &[u8], lengths: &[usize]) -> impl Iterator<Item = (blake3::Hash, usize)> {
    let mut rest = data;
    lengths.iter().map(move |length| {
        let (chunk, tail) = rest.split_at(*length);
        rest = tail;
        (blake3::hash(chunk), *length)
    })
}

/// `data` with a few bytes put in at places that are spread evenly.
fn edited(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + INSERTIONS * 17);
    let mut rest = data;
    for number in 0..INSERTIONS {
        let (before, behind) = rest.split_at((data.len() / (INSERTIONS + 1)).min(rest.len()));
        out.extend_from_slice(before);
        out.extend(std::iter::repeat_n(b'#', 1 + number % 17));
        rest = behind;
    }
    out.extend_from_slice(rest);
    out
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut data);
    data
}

/// Words of a small vocabulary in no order.
fn words(bytes: usize) -> Vec<u8> {
    let mut choice = vec![0; bytes / 4];
    blake3::Hasher::new().update(b"words").finalize_xof().fill(&mut choice);
    let mut data = Vec::with_capacity(bytes + 16);
    for byte in choice {
        data.extend_from_slice(format!("{:x} ", u32::from(byte) * 2_654_435).as_bytes());
    }
    data.truncate(bytes);
    data
}

/// Seconds that this thread has been on a processor.
fn processor_seconds() -> f64 {
    let told = fs::read_to_string("/proc/thread-self/schedstat").expect("read the scheduler's figures");
    let nanoseconds = told.split(' ').next().and_then(|figure| figure.parse::<f64>().ok());
    nanoseconds.expect("nanoseconds on a processor") / 1e9
}
