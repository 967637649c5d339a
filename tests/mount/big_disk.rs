//! A disk of 2 TiB that is nearly empty: a capture reads its data and nothing else, memory stays within bounds that do
//! not depend on the disk's size, and its mount is right to the last byte. `AMBERFS_DISK_MIB` sets how much data it has.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use amberfs::base::limits;

use crate::walk_in::WalkIn;
use crate::{disks, memory, sys};

const DISK_BYTES: u64 = 2 << 40;
const PIECE_BYTES: u64 = 1 << 20;
const DATA_MIB: u64 = 24;
const CHUNK_BYTES: u64 = limits::FIXED_CHUNK_BYTES as u64;
/// Where the disk is written to between its two captures.
const CHANGED_AT: u64 = DISK_BYTES / 2 + 7;

/// Most that a capture may have in memory, in KiB: what the limits give to files on their way, to caches, to changed
/// leaves and to open packs; and the program itself, with its threads and their buffers.
const CAPTURE_KIB_MAX: u64 = {
    let program = 60 << 20;
    let caches = limits::FRAME_CACHE_BYTES + limits::NODE_CACHE_BYTES;
    let packs = limits::UPLOAD_PART_BYTES + limits::META_PACK_BYTES as usize;
    (program + limits::CAPTURE_UNITS_BYTES + caches + limits::DIRTY_LEAF_BYTES + packs) as u64 >> 10
};

/// Writes noise all over the disk, from its first byte to its last; returns where, in order.
fn fill(disk: &File, mib: u64) -> Vec<Range<u64>> {
    disk.set_len(DISK_BYTES).unwrap();
    let mut noise = File::open("/dev/urandom").unwrap();
    let mut piece = vec![0; PIECE_BYTES as usize];
    let between = (DISK_BYTES - PIECE_BYTES) / (mib - 1) / PIECE_BYTES * PIECE_BYTES;
    let places = (0..mib - 1).map(|piece| piece * between).chain([DISK_BYTES - PIECE_BYTES]);
    let places: Vec<_> = places.map(|at| at..at + PIECE_BYTES).collect();
    for place in &places {
        noise.read_exact(&mut piece).unwrap();
        disk.write_all_at(&piece, place.start).unwrap();
    }
    places
}

/// Where the file has data, as it says itself.
fn data(file: &File) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(start) = sys::seek(file, at, libc::SEEK_DATA) {
        at = sys::seek(file, start, libc::SEEK_HOLE).unwrap();
        found.push(start as u64..at as u64);
    }
    found
}

/// The ranges, which are in order, without borders between neighbours.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range.clone()),
        }
    }
    joined
}

/// Both files have the same bytes around `at`, and end at the same place.
#[track_caller]
fn same(one: &File, other: &File, at: u64) {
    let read = |file: &File| {
        let mut bytes = vec![0xaa; 2 * PIECE_BYTES as usize];
        let from = at.saturating_sub(PIECE_BYTES / 2);
        let mut count = 0;
        while let Ok(more @ 1..) = file.read_at(&mut bytes[count..], from + count as u64) {
            count += more;
        }
        bytes.truncate(count);
        bytes
    };
    assert!(read(one) == read(other), "at {at}");
}

#[test]
fn a_disk_of_two_tebibytes_costs_what_is_on_it() {
    if !disks::has_tools(&["qemu-img", "jq"]) {
        return;
    }
    let mib = std::env::var("AMBERFS_DISK_MIB").map_or(DATA_MIB, |n| n.parse().expect("a number of MiB"));
    assert!(mib >= 2, "the disk has data at its beginning and at its end: AMBERFS_DISK_MIB must be at least 2");
    let walk_in = WalkIn::new();
    let mut options = OpenOptions::new();
    let disk = options.read(true).write(true).create_new(true).open(walk_in.path("disk.img")).unwrap();
    let places = fill(&disk, mib);
    let bounded = |arguments: &[&str]| {
        let (said, peak) = memory::run_counted(&walk_in.command(arguments));
        assert!(peak < CAPTURE_KIB_MAX, "{arguments:?} had {peak} KiB in memory, of {CAPTURE_KIB_MAX}");
        println!("{arguments:?} had {peak} KiB in memory");
        said
    };
    let capture = |data: u64, changed: u64| {
        let said = bounded(&["capture", "--json", "--disk", "vm=disk.img"]);
        let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!((&last["disk"]["bytes"], &last["read_bytes"]), (&DISK_BYTES.into(), &data.into()), "{said}");
        assert_eq!(last["disk"]["changed_bytes"], changed, "{said}");
    };
    capture(mib * PIECE_BYTES, mib * PIECE_BYTES);
    // A few bytes in the middle, and the last that there are.
    for at in [CHANGED_AT, DISK_BYTES - 4] {
        disk.write_all_at(b"next", at).unwrap();
    }
    let changed = [CHANGED_AT, DISK_BYTES - 4].map(|at| at / CHUNK_BYTES * CHUNK_BYTES);
    let mut places: Vec<_> = places.into_iter().chain(changed.map(|at| at..at + CHUNK_BYTES)).collect();
    places.sort_by_key(|place| place.start);
    let places = joined(&places);
    capture(places.iter().map(|place| place.end - place.start).sum(), 2 * CHUNK_BYTES);

    walk_in.mount();
    let raw = File::open(walk_in.path("mnt/vm/latest/disk.raw")).unwrap();
    assert_eq!(raw.metadata().unwrap().len(), DISK_BYTES);
    assert_eq!(data(&raw), places);
    assert_eq!(sys::seek(&raw, DISK_BYTES as i64, libc::SEEK_DATA), Err(libc::ENXIO));
    for place in &places {
        same(&raw, &disk, place.start);
        same(&raw, &disk, place.end);
    }
    drop(raw);
    walk_in.sh(&format!(
        "p=mnt/vm/latest
         qemu-img compare -q -f raw -F raw disk.img $p/disk.raw
         qemu-img check -q -f qcow2 $p/disk.qcow2
         qemu-img compare -q -f raw -F qcow2 disk.img $p/disk.qcow2
         cp --sparse=always $p/disk.raw copy.raw; qemu-img compare -q -f raw -F raw disk.img copy.raw
         jq -e '.bytes == {DISK_BYTES} and .granularity == {CHUNK_BYTES} and ([.extents[].bytes] | add) == .bytes
           and [.extents[] | select(.changed) | .offset, .bytes] == [{0}, {CHUNK_BYTES}, {1}, {CHUNK_BYTES}]' \
           $p/map.json >/dev/null",
        changed[0], changed[1]
    ));
    bounded(&["restore", "vm", "--to", "out.raw", "--verify"]);
    walk_in.sh("qemu-img compare -q -f raw -F raw disk.img out.raw");
    memory::mount_is_bounded(&walk_in.path(""));
    walk_in.unmount();
}
