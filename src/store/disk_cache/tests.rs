use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use super::*;

const REPO: RepoId = RepoId([7; 16]);

/// A directory as a cache wants it.
fn private() -> tempfile::TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

fn cache_in(directory: &Path) -> DiskCache {
    DiskCache::new(directory, 0, REPO, Env::system())
}

fn slab_of(cache: &DiskCache, object: &ObjectName, slab: u64) -> PathBuf {
    let shared = &cache.shared;
    shared.files.directory().join(hex::encode(&REPO.0)).join(shared.object(object)).join(slab.to_string())
}

fn bytes_of(cache: &DiskCache) -> u64 {
    cache.patience.settle();
    cache.measured().bytes.unwrap()
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
    let directory = private();
    // Over the border of two files, and with the object's short end.
    let end = run(1, 254..259);
    let object_bytes = 258 * BLOCK + 100;
    cache_in(directory.path()).write(
        &pack(1),
        254,
        end[..end.len() - limits::BLOCK_BYTES + 100].to_vec(),
        object_bytes,
    );
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
    let usage = other.measured();
    let bytes = usage.bytes.unwrap();
    assert!(bytes > 4 * BLOCK && bytes < 40 * BLOCK, "{usage:?}");
    stranger.write(&pack(1), 0, run(3, 0..2), LARGE);
    // Those of a process that has ended are counted as well.
    drop(stranger);
    assert_eq!((other.hits(), usage.hits, usage.misses), ((5, 0), 5, 5));
    let usage = other.measured();
    assert_eq!((usage.hits, usage.misses, usage.hit_percent()), (5, 7, Some(41)));
    other.forget(&pack(1), 255..257);
    let kept: Vec<bool> = other.read(&pack(1), 253..260).iter().map(Option::is_some).collect();
    assert_eq!(kept, [false, true, false, false, true, true, false], "and no other block");
}

#[test]
fn what_is_neither_whole_nor_the_end_is_not_kept() {
    let directory = private();
    let cache = cache_in(directory.path());
    cache.write(&pack(1), 0, run(1, 0..2)[..limits::BLOCK_BYTES + 5].to_vec(), LARGE);
    assert!(bytes(&cache.read(&pack(1), 0..2)) == [Some(block(1, 0)), None]);
}

#[test]
fn it_is_its_owner_s_alone() {
    let directory = private();
    let place = directory.path().join("new");
    let cache = cache_in(&place);
    cache.write(&pack(1), 0, block(1, 0), LARGE);
    let slab = slab_of(&cache, &pack(1), 0);
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
    let (object, repository) = (slab.parent().unwrap(), slab.parent().unwrap().parent().unwrap());
    assert_eq!((mode(&place), mode(repository), mode(object), mode(&slab)), (0o700, 0o700, 0o700, 0o600));
    // What others can use, or could have filled, is used for nothing.
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(right_or_absent(&cache, 0..1), 0);
    assert!(cache.shared.told.load(Ordering::Relaxed));
    let open = directory.path().join("open");
    DirBuilder::new().mode(0o755).create(&open).unwrap();
    let cache = cache_in(&open);
    cache.write(&pack(1), 0, block(1, 0), LARGE);
    assert_eq!((right_or_absent(&cache, 0..1), std::fs::read_dir(&open).unwrap().count()), (0, 0));
    assert!(cache.shared.told.load(Ordering::Relaxed));
    if crate::base::sys::effective_uid() == 0 {
        let other = directory.path().join("other");
        DirBuilder::new().mode(0o700).create(&other).unwrap();
        std::os::unix::fs::chown(&other, Some(65534), None).unwrap();
        let cache = cache_in(&other);
        cache.write(&pack(1), 0, block(1, 0), LARGE);
        assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0);
    }
}

#[test]
fn no_link_is_followed_and_no_fifo_waited_for() {
    let directory = private();
    let elsewhere = private();
    let place = directory.path().join("cache");
    let cache = cache_in(&place);
    let slab = slab_of(&cache, &pack(1), 0);
    let object = slab.parent().unwrap().to_owned();
    let repository = object.parent().unwrap().to_owned();
    let precious = elsewhere.path().join("0");
    let fresh = || {
        drop(std::fs::remove_dir_all(&place));
        std::fs::write(&precious, "precious").unwrap();
        DirBuilder::new().mode(0o700).recursive(true).create(&object).unwrap();
        *cache.shared.pause_until.lock() = None;
    };
    let link = |at: &Path, to: &Path| std::os::unix::fs::symlink(to, at).unwrap();
    let began = std::time::Instant::now();
    for attack in 0..5 {
        fresh();
        match attack {
            0 => link(&slab, &precious),
            1 => {
                std::fs::remove_dir(&object).unwrap();
                link(&object, elsewhere.path());
            }
            2 => {
                std::fs::remove_dir_all(&repository).unwrap();
                link(&repository, directory.path());
            }
            3 => {
                let made = std::process::Command::new("mkfifo").arg(&slab).status().unwrap();
                assert!(made.success());
            }
            _ => {
                std::fs::remove_dir_all(&place).unwrap();
                link(&place, elsewhere.path());
            }
        }
        cache.write(&pack(1), 0, block(1, 0), LARGE);
        assert_eq!(right_or_absent(&cache, 0..1), 0, "attack {attack}");
        cache.forget(&pack(1), 0..1);
        cache.shared.shrink(0);
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious", "attack {attack}");
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1, "attack {attack}");
    }
    assert!(began.elapsed() < limits::CACHE_WAIT, "nothing was waited for");
}

/// Adding up all files is nothing that who reads a status waits for.
#[test]
fn a_figure_is_asked_for_once_a_minute_and_behind() {
    let directory = private();
    let env = Env::seeded(1, Instant::from_nanos(0));
    let cache = DiskCache::new(&directory.path().join("cache"), 0, REPO, env.clone());
    assert_eq!(cache.usage().bytes, None);
    cache.patience.settle();
    assert_eq!(cache.usage().bytes, Some(0));
    let other = cache_in(&directory.path().join("cache"));
    other.write(&pack(1), 0, run(1, 0..8), LARGE);
    assert_eq!(cache.usage().bytes, Some(0), "as it was");
    env.advance(FIGURE_KEPT);
    assert_eq!(cache.usage().bytes, Some(0), "nobody waits");
    cache.patience.settle();
    assert!(cache.usage().bytes.unwrap() >= 8 * BLOCK);
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
    let directory = private();
    let cache = cache_in(directory.path());
    cache.write(&pack(1), 0, run(1, 0..3), LARGE);
    let path = slab_of(&cache, &pack(1), 0);
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
    let directory = private();
    let cache = cache_in(directory.path());
    cache.write(&pack(1), 0, run(1, 0..8), LARGE);
    cache.write(&pack(2), 0, run(2, 0..8), LARGE);
    let (path, other) = (slab_of(&cache, &pack(1), 0), slab_of(&cache, &pack(2), 0));
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
    cache.write(&pack(1), 0, run(1, 0..8), LARGE);
    assert_eq!(right_or_absent(&cache, 0..8), 8);
}

#[test]
fn it_stays_within_its_bytes_and_what_was_used_last_stays_longest() {
    let directory = private();
    let cache = cache_in(directory.path());
    let most = limits::DISK_CACHE_BYTES_MIN;
    let slab = 0..BLOCKS;
    let slabs_of_it = u32::try_from(most / limits::CACHE_SLAB_BYTES).unwrap();
    for n in 0..2 * slabs_of_it {
        cache.write(&pack(n), 0, run(n, slab.clone()), LARGE);
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1000 + u64::from(n));
        File::open(slab_of(&cache, &pack(n), 0)).unwrap().set_modified(long_ago).unwrap();
        assert!(bytes_of(&cache) <= most, "after {n}");
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
    let directory = private();
    let place = directory.path().join("cache");
    let cache = cache_in(&place);
    for _ in 0..3 {
        cache.write(&pack(1), 0, block(1, 0), LARGE);
        assert_eq!(right_or_absent(&cache, 0..1), 1);
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!(right_or_absent(&cache, 0..1), 0);
    }
    std::fs::write(&place, "a file").unwrap();
    cache.write(&pack(1), 0, block(1, 0), LARGE);
    assert_eq!(right_or_absent(&cache, 0..1), 0);
    // It is not tried again for every block, but some time later.
    std::fs::remove_file(&place).unwrap();
    cache.write(&pack(1), 0, block(1, 0), LARGE);
    assert_eq!(right_or_absent(&cache, 0..1), 0);
    *cache.shared.pause_until.lock() = Some(Instant::from_nanos(0));
    cache.write(&pack(1), 0, block(1, 0), LARGE);
    assert_eq!(right_or_absent(&cache, 0..1), 1);
}

#[test]
fn processes_that_write_read_and_remove_at_the_same_time_never_see_wrong_bytes() {
    let directory = private();
    let found = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (cache, found) = (cache_in(directory.path()), &found);
            scope.spawn(move || {
                for round in 0..150u64 {
                    let at = (round * 7 + thread * 3) % 40;
                    cache.write(&pack(1), at, run(1, at..at + 4), LARGE);
                    found.fetch_add(
                        right_or_absent(&cache, (round * 11) % 40..(round * 11) % 40 + 6),
                        Ordering::Relaxed,
                    );
                    match (thread, round % 20) {
                        (0, 0) => cache.forget(&pack(1), 0..20),
                        (1, 10) => cache.shared.shrink(0),
                        _ => {}
                    }
                }
            });
        }
    });
    assert!(found.into_inner() > 100, "most of the time something is there");
}

#[test]
fn counts_that_are_kept_by_several_at_once_are_kept_once() {
    let directory = private();
    let cache = cache_in(directory.path());
    cache.write(&pack(1), 0, run(1, 0..1), LARGE);
    let rounds = 500;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..rounds {
                    cache.shared.hits.fetch_add(1, Ordering::Relaxed);
                    cache.shared.keep_counts();
                }
            });
        }
    });
    assert_eq!(cache.shared.files.counts().unwrap(), (4 * rounds, 1));
}
