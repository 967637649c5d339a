use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use super::*;

const REPO: RepoId = RepoId([7; 16]);

fn cache_in(directory: &Path) -> DiskCache {
    DiskCache::new(directory, 0, REPO, Env::system())
}

fn pack(n: u32) -> ObjectName {
    ObjectName::listed(&format!("source/1/chain/0/{n}"))
}

/// What stands at `block` of object `n`.
fn block(n: u32, block: u64) -> Vec<u8> {
    let mut bytes = vec![0; limits::BLOCK_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&n.to_le_bytes()).update(&block.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn run(n: u32, blocks: Range<u64>) -> Vec<u8> {
    blocks.flat_map(|at| block(n, at)).collect()
}

const LARGE: u64 = 1 << 40;

fn bytes(found: &[Option<KeptBlock>]) -> Vec<Option<Vec<u8>>> {
    found.iter().map(|kept| kept.as_ref().map(|kept| kept.bytes.to_vec())).collect()
}

#[test]
fn what_is_kept_is_found_by_any_process_and_nothing_else_is() {
    let directory = tempfile::tempdir().unwrap();
    // Over the border of two files, and with the object's short end.
    let end = run(1, 254..259);
    let object_bytes = 258 * BLOCK + 100;
    cache_in(directory.path()).write(&pack(1), 254, &end[..end.len() - limits::BLOCK_BYTES + 100], object_bytes);
    let other = cache_in(directory.path());
    let found = other.read(&pack(1), 253..260);
    assert!(found.iter().flatten().all(|kept| kept.object_bytes == object_bytes));
    let expected: Vec<Option<Vec<u8>>> = (253..260)
        .map(|at| match at {
            254..258 => Some(block(1, at)),
            258 => Some(block(1, 258)[..100].to_vec()),
            _ => None,
        })
        .collect();
    assert!(bytes(&found) == expected);
    assert_eq!(other.holds(&pack(1), 253..260), [false, true, true, true, true, true, false]);
    assert!(other.read(&pack(2), 253..260).iter().all(Option::is_none), "another object");
    let stranger = DiskCache::new(directory.path(), 0, RepoId([8; 16]), Env::system());
    assert!(stranger.read(&pack(1), 253..260).iter().all(Option::is_none), "another repository");
    let usage = other.usage();
    assert_eq!((usage.hits, usage.misses), (5, 9));
    assert!(usage.bytes > 4 * BLOCK && usage.bytes < 40 * BLOCK, "{usage:?}");
    other.forget(&pack(1));
    assert!(other.read(&pack(1), 253..260).iter().all(Option::is_none));
}

#[test]
fn what_is_neither_whole_nor_the_end_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache_in(directory.path());
    cache.write(&pack(1), 0, &run(1, 0..2)[..limits::BLOCK_BYTES + 5], LARGE);
    assert!(bytes(&cache.read(&pack(1), 0..2)) == [Some(block(1, 0)), None]);
}

#[test]
fn it_is_its_owner_s_alone() {
    let directory = tempfile::tempdir().unwrap();
    for place in ["new", "open"] {
        let place = directory.path().join(place);
        if place.ends_with("open") {
            DirBuilder::new().mode(0o755).create(&place).unwrap();
        }
        cache_in(&place).write(&pack(1), 0, &block(1, 0), LARGE);
        assert_eq!(place.metadata().unwrap().mode() & 0o777, 0o700);
        for file in files(&place) {
            assert_eq!(file.path.metadata().unwrap().mode() & 0o777, 0o600);
            assert_eq!(file.path.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
        }
        assert_eq!(files(&place).len(), 1);
    }
}

/// Whatever became of its file: a block is right or not there.
fn right_or_absent(cache: &DiskCache, blocks: Range<u64>) -> usize {
    let found = cache.read(&pack(1), blocks.clone());
    for (at, kept) in blocks.zip(&found) {
        assert!(kept.as_ref().is_none_or(|kept| kept.bytes == block(1, at) && kept.object_bytes == LARGE), "{at}");
    }
    found.iter().flatten().count()
}

#[test]
fn a_bit_that_flips_anywhere_costs_a_block_and_never_alters_one() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache_in(directory.path());
    cache.write(&pack(1), 0, &run(1, 0..3), LARGE);
    let path = cache.slab(&pack(1), 0);
    let whole = std::fs::read(&path).unwrap();
    let mut lost = BTreeMap::new();
    // Every byte of the entries, and some of the blocks.
    for at in (0..3 * ENTRY).chain((0..400).map(|n| TABLE_BYTES as usize + n * 122)) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, flipped).unwrap();
        *lost.entry(3 - right_or_absent(&cache, 0..3)).or_insert(0) += 1;
    }
    // The last four bytes of an entry mean nothing.
    assert_eq!(lost, BTreeMap::from([(0, 3 * 4), (1, 3 * 28 + 400)]));
}

#[test]
fn a_file_that_was_cut_off_zeroed_or_exchanged_anywhere_holds_right_blocks_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache_in(directory.path());
    cache.write(&pack(1), 0, &run(1, 0..8), LARGE);
    cache.write(&pack(2), 0, &run(2, 0..8), LARGE);
    let (path, other) = (cache.slab(&pack(1), 0), cache.slab(&pack(2), 0));
    let whole = std::fs::read(&path).unwrap();
    for cut in (0..whole.len()).step_by(1021) {
        // What a power cut leaves: a length without the bytes, or bytes without the length.
        std::fs::write(&path, &whole[..cut]).unwrap();
        right_or_absent(&cache, 0..8);
        let mut zeroed = whole[..cut].to_vec();
        zeroed.resize(whole.len(), 0);
        std::fs::write(&path, &zeroed).unwrap();
        right_or_absent(&cache, 0..8);
    }
    std::fs::copy(&other, &path).unwrap();
    assert_eq!(right_or_absent(&cache, 0..8), 0, "another object's file");
    // Two blocks and their entries change places.
    let mut exchanged = whole.clone();
    let (entries, blocks) = exchanged.split_at_mut(TABLE_BYTES as usize);
    let (first, second) = entries.split_at_mut(ENTRY);
    first.swap_with_slice(&mut second[..ENTRY]);
    let (first, second) = blocks.split_at_mut(limits::BLOCK_BYTES);
    first.swap_with_slice(&mut second[..limits::BLOCK_BYTES]);
    std::fs::write(&path, exchanged).unwrap();
    assert_eq!(right_or_absent(&cache, 0..8), 6);
    // And is mended by being written again.
    cache.write(&pack(1), 0, &run(1, 0..8), LARGE);
    assert_eq!(right_or_absent(&cache, 0..8), 8);
}

#[test]
fn it_stays_within_its_bytes_and_what_was_used_last_stays_longest() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache_in(directory.path());
    let most = limits::DISK_CACHE_BYTES_MIN;
    let slab = 0..BLOCKS;
    let slabs_of_it = u32::try_from(most / limits::CACHE_SLAB_BYTES).unwrap();
    for n in 0..2 * slabs_of_it {
        cache.write(&pack(n), 0, &run(n, slab.clone()), LARGE);
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1000 + u64::from(n));
        File::open(cache.slab(&pack(n), 0)).unwrap().set_modified(long_ago).unwrap();
        assert!(cache.usage().bytes <= most, "after {n}");
        // The first one is in use all the time.
        assert!(cache.read(&pack(0), 0..1)[0].is_some(), "after {n}");
    }
    let kept: Vec<u32> = (0..2 * slabs_of_it).filter(|n| cache.read(&pack(*n), 0..1)[0].is_some()).collect();
    let newest = 2 * slabs_of_it - (kept.len() as u32 - 1)..2 * slabs_of_it;
    assert_eq!(kept, std::iter::once(0).chain(newest).collect::<Vec<_>>());
    assert!(kept.len() as u32 >= slabs_of_it / 3);
}

#[test]
fn a_directory_that_goes_is_made_again_and_one_that_cannot_be_made_keeps_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("cache");
    let cache = cache_in(&place);
    for _ in 0..3 {
        cache.write(&pack(1), 0, &block(1, 0), LARGE);
        assert_eq!(right_or_absent(&cache, 0..1), 1);
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!(right_or_absent(&cache, 0..1), 0);
    }
    std::fs::write(&place, "a file").unwrap();
    cache.write(&pack(1), 0, &block(1, 0), LARGE);
    assert_eq!(right_or_absent(&cache, 0..1), 0);
    // It is not tried again for every block, but some time later.
    std::fs::remove_file(&place).unwrap();
    cache.write(&pack(1), 0, &block(1, 0), LARGE);
    assert_eq!(right_or_absent(&cache, 0..1), 0);
    *cache.pause_until.lock() = Some(Instant::from_nanos(0));
    cache.write(&pack(1), 0, &block(1, 0), LARGE);
    assert_eq!(right_or_absent(&cache, 0..1), 1);
}

#[test]
fn processes_that_write_read_and_remove_at_the_same_time_never_see_wrong_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let found = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (cache, found) = (cache_in(directory.path()), &found);
            scope.spawn(move || {
                for round in 0..150u64 {
                    let at = (round * 7 + thread * 3) % 40;
                    cache.write(&pack(1), at, &run(1, at..at + 4), LARGE);
                    found.fetch_add(
                        right_or_absent(&cache, (round * 11) % 40..(round * 11) % 40 + 6),
                        Ordering::Relaxed,
                    );
                    match (thread, round % 20) {
                        (0, 0) => cache.forget(&pack(1)),
                        (1, 10) => cache.shrink(0),
                        _ => {}
                    }
                }
            });
        }
    });
    assert!(found.into_inner() > 100, "most of the time something is there");
}
