use std::path::Path;
use std::time::Duration;

use super::*;
use crate::base::{Class, Classed, Env, Instant};
use crate::format::{ChainId, LogNumber, Nonce, PackOrdinal, RepoId, SessionId};
use crate::store::fault::{Fault, Faults, Rule};
use crate::store::record::Recorder;

const FRAME: u64 = 50_000;

fn pack(n: u32) -> Pack {
    let session = SessionId { base: LogNumber(0), random: Nonce([3; 16]) };
    (SourceId(1), PackId { chain: ChainId(0), session, ordinal: PackOrdinal(n) })
}

fn content(n: u32, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut content);
    content
}

/// A store over a network, with one pack of so many bytes.
fn store_with(bytes: usize) -> (Store, Vec<u8>) {
    let store = Store::memory_as_remote(Env::seeded(1, Instant::from_nanos(0)));
    let content = content(0, bytes);
    let mut upload = store.upload(&name_of(pack(0))).unwrap();
    upload.write(content.clone()).unwrap();
    upload.finish().unwrap();
    (store, content)
}

fn frame(n: u64) -> Range<u64> {
    n * FRAME..(n + 1) * FRAME
}

fn part<'c>(content: &'c [u8], range: &Range<u64>) -> &'c [u8] {
    &content[range.start as usize..range.end as usize]
}

/// A directory as a cache wants it.
fn private() -> tempfile::TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

fn disk(directory: &Path) -> DiskCache {
    DiskCache::new(directory, 0, RepoId([1; 16]), Env::system())
}

/// Waits until nothing is on its way.
fn quiet(blocks: &Blocks) {
    let mut state = blocks.shared.state.lock();
    while !state.on_their_way.is_empty() {
        assert!(!blocks.shared.landed.wait_for(&mut state, Duration::from_secs(60)).timed_out());
    }
    assert_eq!((state.ahead_bytes, state.ahead_requests), (0, 0));
}

#[test]
fn a_pack_that_is_read_in_order_takes_few_requests_and_little_memory() {
    let (store, content) = store_with(60_000_000);
    let recorder = Recorder::new();
    let blocks = Blocks::new(recorder.around(&store), None);
    for n in 0..1200 {
        let bytes = blocks.read(pack(0), &frame(n), Pattern::Data).unwrap();
        assert!(bytes == part(&content, &frame(n)), "frame {n}");
        assert!(blocks.weight() <= limits::BLOCK_CACHE_BYTES);
    }
    quiet(&blocks);
    let calls = recorder.take();
    assert!(calls.len() <= 12, "{} requests", calls.len());
    let fetched: u64 = calls.iter().map(|call| call.bytes).sum();
    assert!(fetched <= 60_000_000 + 2 * BLOCK * calls.len() as u64, "{fetched} bytes");
    assert!(blocks.counts().at_hand > 1100, "{:?}", blocks.counts());
}

#[test]
fn a_random_read_takes_one_request_of_its_frame() {
    let (store, content) = store_with(60_000_000);
    let recorder = Recorder::new();
    let blocks = Blocks::new(recorder.around(&store), None);
    for n in 0..200u64 {
        let frame = frame(n * 611 % 1199);
        assert!(blocks.read(pack(0), &frame, Pattern::Data).unwrap() == part(&content, &frame));
        let calls = recorder.take();
        let [call] = calls.as_slice() else { panic!("{calls:?}") };
        assert!(call.bytes < FRAME + 2 * BLOCK, "{call:?}");
    }
}

#[test]
fn frames_that_are_expected_come_by_one_request_for_each_run() {
    let (store, content) = store_with(8_000_000);
    let recorder = Recorder::new();
    let blocks = Blocks::new(recorder.around(&store), None);
    blocks.expect(pack(0), [3, 1, 2, 4, 90, 92, 91].map(frame).to_vec());
    quiet(&blocks);
    assert_eq!(recorder.take().len(), 2);
    for n in [4, 1, 92, 3, 90] {
        assert!(blocks.read(pack(0), &frame(n), Pattern::Data).unwrap() == part(&content, &frame(n)));
    }
    quiet(&blocks);
    assert_eq!(recorder.take(), []);
}

#[test]
fn what_is_on_its_way_is_waited_for_and_not_asked_for_again() {
    let (store, content) = store_with(1_000_000);
    let recorder = Recorder::new();
    let faults = Faults::new();
    let blocks = Blocks::new(recorder.around(&faults.around(&store)), None);
    faults.plan(Rule::new(Fault::Hang).on(Operation::Range));
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| blocks.read(pack(0), &frame(3), Pattern::Data).unwrap())).collect();
        faults.wait_for_stuck(1);
        faults.release();
        for reader in readers {
            assert!(reader.join().unwrap() == part(&content, &frame(3)));
        }
    });
    assert_eq!(recorder.take().len(), 1);
}

#[test]
fn a_failure_is_told_to_who_asked_and_forgotten() {
    let (store, content) = store_with(3_000_000);
    let faults = Faults::new();
    let blocks = Blocks::new(faults.around(&store), None);
    let refused = std::io::ErrorKind::PermissionDenied;
    faults.plan(Rule::new(Fault::Before).on(Operation::Range).reported_as(refused));
    let error = blocks.read(pack(0), &frame(3), Pattern::Data).unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    assert!(blocks.read(pack(0), &frame(3), Pattern::Data).unwrap() == part(&content, &frame(3)));
    // What was to come ahead and does not is nobody's failure.
    faults.plan(Rule::new(Fault::Before).on(Operation::Range).reported_as(refused));
    blocks.expect(pack(0), vec![frame(10), frame(11)]);
    quiet(&blocks);
    assert_eq!(faults.hits(), 2);
    assert!(blocks.read(pack(0), &frame(10), Pattern::Data).unwrap() == part(&content, &frame(10)));
    let error = blocks.read(pack(1), &frame(0), Pattern::Data).unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
}

#[test]
fn a_pack_that_ends_too_early_is_said_to() {
    let (store, content) = store_with(3 * FRAME as usize + 10);
    let directory = private();
    for disk in [None, Some(disk(directory.path())), Some(self::disk(directory.path()))] {
        let blocks = Blocks::new(store.clone(), disk);
        for pattern in [Pattern::Data, Pattern::Nodes] {
            for _ in 0..2 {
                assert!(blocks.read(pack(0), &frame(2), pattern).unwrap() == part(&content, &frame(2)));
                assert_eq!(blocks.read(pack(0), &frame(3), pattern).unwrap_err().class(), Class::Corrupt);
                assert_eq!(blocks.read(pack(0), &frame(9), pattern).unwrap_err().class(), Class::Corrupt);
            }
        }
        quiet(&blocks);
    }
}

#[test]
fn what_the_disk_has_takes_no_request_by_any_process() {
    let (store, content) = store_with(20_000_000);
    let directory = private();
    let read_all = |blocks: &Blocks| {
        for n in 0..400 {
            let bytes = blocks.read(pack(0), &frame(n), Pattern::Data).unwrap();
            assert!(bytes == part(&content, &frame(n)), "frame {n}");
        }
        quiet(blocks);
    };
    read_all(&Blocks::new(store.clone(), Some(disk(directory.path()))));
    let recorder = Recorder::new();
    read_all(&Blocks::new(recorder.around(&store), Some(disk(directory.path()))));
    assert_eq!(recorder.take(), []);
    // Damage to the cache costs a request, and nothing else.
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let slab = entries.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let slab = std::fs::read_dir(slab).unwrap().next().unwrap().unwrap().path().join("0");
    let mut bytes = std::fs::read(&slab).unwrap();
    for at in (0..bytes.len()).step_by(60_000) {
        bytes[at] ^= 4;
    }
    std::fs::write(&slab, bytes).unwrap();
    read_all(&Blocks::new(recorder.around(&store), Some(disk(directory.path()))));
    assert!(!recorder.take().is_empty());
    // And is mended by that.
    read_all(&Blocks::new(recorder.around(&store), Some(disk(directory.path()))));
    assert_eq!(recorder.take(), []);
}

#[test]
fn many_readers_of_many_packs_read_right_bytes() {
    let store = Store::memory_as_remote(Env::seeded(1, Instant::from_nanos(0)));
    let contents: Vec<Vec<u8>> = (0..3).map(|n| content(n, 6_000_000)).collect();
    for (n, content) in (0..).zip(&contents) {
        store.create(&name_of(pack(n)), content.clone()).unwrap();
    }
    let directory = private();
    let blocks = Blocks::new(store, Some(disk(directory.path())));
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let (blocks, contents) = (&blocks, &contents);
            scope.spawn(move || {
                for step in 0..119u64 {
                    let n = ((thread + step / 40) % 3) as u32;
                    // Half of them in order, half anywhere.
                    let at = if thread % 2 == 0 { step } else { (step * 37 + thread) % 119 };
                    let pattern = if thread < 4 { Pattern::Data } else { Pattern::Nodes };
                    let bytes = blocks.read(pack(n), &frame(at), pattern).unwrap();
                    assert!(bytes == part(&contents[n as usize], &frame(at)), "pack {n} frame {at}");
                }
            });
        }
    });
    quiet(&blocks);
}

#[test]
fn what_is_wrong_in_one_frame_costs_no_other() {
    let (store, content) = store_with(10_000_000);
    let directory = private();
    let blocks = Blocks::new(store.clone(), Some(disk(directory.path())));
    for n in [0, 100] {
        assert!(blocks.read(pack(0), &frame(n), Pattern::Data).unwrap() == part(&content, &frame(n)));
    }
    quiet(&blocks);
    blocks.forget(pack(0), &frame(0));
    for (n, most) in [(100, 0), (0, 1)] {
        let recorder = Recorder::new();
        // Another process, which has the disk only.
        let blocks = Blocks::new(recorder.around(&store), Some(disk(directory.path())));
        assert!(blocks.read(pack(0), &frame(n), Pattern::Data).unwrap() == part(&content, &frame(n)));
        assert_eq!(recorder.take().len(), most, "frame {n}");
    }
    assert!(blocks.read(pack(0), &frame(100), Pattern::Data).is_ok());
}
