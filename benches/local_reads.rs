//! What one read of a frame from a local store costs: straight from the file, and by way of `object_store`.
//!
//! `cargo bench --bench local_reads`; the figures in `docs/decisions/010-local-reads.md` come from here. It
//! prints microseconds a read and asserts nothing. A read is cold when the pack's pages have been dropped, by
//! `dd`, before the run.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use amberfs::format::object::ObjectName;
use amberfs::store::Store;

const PACK_BYTES: u64 = 64 << 20;

fn main() {
    let place = std::env::var_os("AMBERFS_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let guard = tempfile::tempdir_in(place).expect("make a directory");
    let root = guard.path().join("store");
    let direct = Store::create_local(&root).expect("make a store");
    let layered = direct.wrapped(|objects| objects);
    let pack = ObjectName::listed("pack");
    let bytes: Vec<u8> = (0..PACK_BYTES).map(|at| (at ^ (at >> 9)) as u8).collect();
    direct.create(&pack, bytes).expect("write a pack");

    println!("{:>8} {:>8} {:>6} {:>12} {:>16}", "bytes", "order", "pages", "straight us", "object_store us");
    for size in [4 << 10, 64 << 10, 256 << 10, 1 << 20] {
        for (order, ranges) in [("forward", forward(size)), ("random", random(size))] {
            for cold in [false, true] {
                let [straight, round] = [&direct, &layered].map(|store| {
                    // The best of three: the machine does other things, too.
                    let runs = (0..3).map(|_| run(store, &pack, &root.join("pack"), &ranges, cold));
                    runs.fold(f64::INFINITY, f64::min)
                });
                let pages = if cold { "cold" } else { "warm" };
                println!("{size:>8} {order:>8} {pages:>6} {straight:>12.1} {round:>16.1}");
            }
        }
    }
}

fn forward(size: u64) -> Vec<Range<u64>> {
    (0..(PACK_BYTES / size).min(1024)).map(|n| n * size..(n + 1) * size).collect()
}

fn random(size: u64) -> Vec<Range<u64>> {
    let places = PACK_BYTES / size;
    let place = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % places;
    (0..places.min(512)).map(|n| place(n) * size..(place(n) + 1) * size).collect()
}

/// Microseconds per read.
fn run(store: &Store, pack: &ObjectName, file: &Path, ranges: &[Range<u64>], cold: bool) -> f64 {
    if cold {
        let mut input = OsString::from("if=");
        input.push(file);
        let dropped = Command::new("dd").arg(input).args(["iflag=nocache", "count=0", "status=none"]).status();
        assert!(dropped.is_ok_and(|status| status.success()), "dd drops the pages");
    } else {
        store.get(pack, PACK_BYTES).expect("warm up");
    }
    let start = Instant::now();
    for range in ranges {
        store.get_range(pack, range.clone()).expect("read");
    }
    start.elapsed().as_secs_f64() * 1e6 / ranges.len() as f64
}
