//! Keeps what was fetched over a network on this machine's disk.
//!
//! **Never wrong bytes.** Objects in blocks of [`limits::BLOCK_BYTES`], each with a checksum over its bytes, its length, its
//! place and the size of its object, keyed by repository and object. What does not agree with its checksum is not there. So
//! nothing need be synced, nothing locked, and nothing repaired: a process that is killed in the middle, a power cut, two
//! processes that write the same block (the same bytes), a bit that flips, or a file of another repository's leave blocks
//! that are there, or blocks that are not.
//!
//! **Bounded.** A file holds the blocks of [`limits::CACHE_SLAB_BYTES`] of one object. Every so many bytes that a process
//! has written, it adds up the files and removes those that were used longest ago. Other processes may do that at the same
//! time; what they remove under us is not there. Whoever deletes the directory deletes a cache.
//!
//! **No failure is one.** A full disk, a missing permission, a directory that has gone: nothing is kept, and reading goes on
//! over the network. It is told once.
//!
//! **Nobody waits long.** A disk that does not answer is waited for [`limits::CACHE_WAIT`], and not asked again until it has
//! ([`Patience`]); what is fetched then comes over the network. Sizes are added up behind the reader's back.
//!
//! Stored bytes are kept as they are stored: what is sealed stays sealed. Files belong to their owner alone, and where others
//! could have put something, nothing is kept and nothing read ([`Files`]).
//!
//! ```text
//! DIR/counts                                              hits (8), misses (8)
//! DIR/<repository>/<hash of the object's name>/<slab>     256 entries of 32 bytes, then 256 blocks
//! entry: checksum (16), object's bytes (8), block's bytes (4), zero (4)
//! ```

mod files;
mod patience;

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::{Env, Instant, hex, limits};
use crate::format::RepoId;
use crate::format::object::ObjectName;

use files::Files;
use patience::Patience;

const BLOCK: u64 = limits::BLOCK_BYTES as u64;
const BLOCKS: u64 = limits::CACHE_SLAB_BYTES / BLOCK;
const ENTRY: usize = 32;
/// Where a slab's blocks begin.
const TABLE_BYTES: u64 = BLOCKS * ENTRY as u64;
/// A file's time of use is not renewed within this.
const USE_GRAIN: Duration = Duration::from_secs(60);
/// After a failure to write, nothing is written for so long.
const PAUSE: Duration = Duration::from_secs(60);
/// How old the figure may be of what all files have.
const FIGURE_KEPT: Duration = Duration::from_secs(60);

/// Blocks of one repository's objects on this machine's disk. Threads and processes may share one directory.
#[derive(Debug)]
pub struct DiskCache {
    shared: Arc<Shared>,
    patience: Patience,
}

#[derive(Debug)]
struct Shared {
    files: Files,
    key: [u8; 32],
    bytes_max: u64,
    env: Env,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Of these, how many are in the file already.
    counted: Mutex<(u64, u64)>,
    /// Bytes written since the size was looked at; at first as many as make us look.
    written: AtomicU64,
    /// What all files had, and when that was asked for last.
    figure: Mutex<(Option<u64>, Option<Instant>)>,
    looking: Mutex<()>,
    pause_until: Mutex<Option<Instant>>,
    told: AtomicBool,
}

/// What a disk cache holds, and how often it held what was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// Bytes on the disk, of all repositories; none when that is not known yet.
    pub bytes: Option<u64>,
    /// Bytes that it may have.
    pub bytes_max: u64,
    /// Blocks that were there.
    pub hits: u64,
    /// Blocks that were not, and were fetched.
    pub misses: u64,
}

impl CacheUsage {
    /// How many of a hundred blocks were there; none when none was asked for.
    pub fn hit_percent(&self) -> Option<u64> {
        // What is read from a file may be anything.
        let asked = u128::from(self.hits) + u128::from(self.misses);
        u64::try_from((u128::from(self.hits) * 100).checked_div(asked)?).ok()
    }
}

/// A block that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBlock {
    /// Its bytes: a whole block, or the last one's.
    pub bytes: Bytes,
    /// Bytes of the object.
    pub object_bytes: u64,
}

struct Entry {
    checksum: [u8; 16],
    object_bytes: u64,
    bytes: u32,
}

impl DiskCache {
    /// The blocks of repository `repo` in `directory`, which is made when something is written; all repositories' blocks in
    /// it together have at most `bytes_max` bytes.
    pub fn new(directory: &Path, bytes_max: u64, repo: RepoId, env: Env) -> DiskCache {
        let shared = Shared {
            files: Files::new(directory.to_owned(), hex::encode(&repo.0)),
            key: blake3::derive_key("amberfs disk cache 1", &repo.0),
            bytes_max: bytes_max.max(limits::DISK_CACHE_BYTES_MIN),
            env,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            counted: Mutex::new((0, 0)),
            written: AtomicU64::new(limits::DISK_CACHE_LOOK_BYTES),
            figure: Mutex::new((None, None)),
            looking: Mutex::new(()),
            pause_until: Mutex::new(None),
            told: AtomicBool::new(false),
        };
        DiskCache { shared: Arc::new(shared), patience: Patience::new(limits::CACHE_WAIT) }
    }

    /// Does `work` with the files; none when the disk does not answer.
    fn wait<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> T + Send + 'static) -> Option<T> {
        let shared = Arc::clone(&self.shared);
        let done = self.patience.wait(move || work(&shared));
        if done.is_none() {
            self.shared.tell(&"the disk does not answer");
        }
        done
    }

    fn behind(&self, work: impl FnOnce(&Shared) + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.patience.behind(move || work(&shared));
    }

    /// Those of the object's `blocks` that are kept, in order.
    pub fn read(&self, object: &ObjectName, blocks: Range<u64>) -> Vec<Option<KeptBlock>> {
        let count = usize::try_from(blocks.end.saturating_sub(blocks.start)).unwrap_or(0);
        let object = object.clone();
        let mut found = self.wait(move |shared| shared.read(&object, blocks)).unwrap_or_default();
        found.resize(count, None);
        self.shared.hits.fetch_add(found.iter().flatten().count() as u64, Ordering::Relaxed);
        found
    }

    /// Which of `blocks` seem to be kept; their bytes have not been looked at.
    pub fn holds(&self, object: &ObjectName, blocks: Range<u64>) -> Vec<bool> {
        let count = usize::try_from(blocks.end.saturating_sub(blocks.start)).unwrap_or(0);
        let object = object.clone();
        let mut found = self.wait(move |shared| shared.holds(&object, blocks)).unwrap_or_default();
        found.resize(count, false);
        found
    }

    /// Keeps what is read from `block` on of an object of `object_bytes` bytes: whole blocks, and its last one.
    pub fn write(&self, object: &ObjectName, block: u64, bytes: impl Into<Bytes>, object_bytes: u64) {
        let (shared, object, bytes) = (&self.shared, object.clone(), bytes.into());
        shared.misses.fetch_add(bytes.len().div_ceil(limits::BLOCK_BYTES) as u64, Ordering::Relaxed);
        if shared.pause_until.lock().is_some_and(|until| shared.env.now() < until) {
            return;
        }
        let count = bytes.len() as u64;
        match self.wait(move |shared| shared.write(&object, block, &bytes, object_bytes)) {
            None => {}
            Some(Ok(())) => {
                let written = shared.written.fetch_add(count, Ordering::Relaxed) + count;
                if let (Some(figure), _) = &mut *shared.figure.lock() {
                    *figure += count;
                }
                if written >= limits::DISK_CACHE_LOOK_BYTES {
                    shared.written.store(0, Ordering::Relaxed);
                    self.behind(|shared| shared.shrink(shared.bytes_max - limits::DISK_CACHE_LOOK_BYTES * 2));
                }
            }
            Some(Err(error)) => {
                *shared.pause_until.lock() = Some(shared.env.now().plus(PAUSE));
                shared.tell(&error);
                if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
                    // Others need the space more than we do.
                    self.behind(|shared| {
                        let half = shared.measure() / 2;
                        shared.shrink(half);
                    });
                }
            }
        }
    }

    /// Forgets what is kept of these blocks of `object`.
    pub fn forget(&self, object: &ObjectName, blocks: Range<u64>) {
        let object = object.clone();
        // What cannot be removed is overwritten by what is read next.
        let _forgotten = self.wait(move |shared| shared.forget(&object, blocks));
    }

    /// Blocks that were there, and that had to be fetched, since this process began.
    pub fn hits(&self) -> (u64, u64) {
        (self.shared.hits.load(Ordering::Relaxed), self.shared.misses.load(Ordering::Relaxed))
    }

    /// What it holds, by a figure that is about a minute old, and this process's hits. Waits for nothing.
    pub fn usage(&self) -> CacheUsage {
        let mut figure = self.shared.figure.lock();
        let now = self.shared.env.now();
        if figure.1.is_none_or(|asked| now < asked || now >= asked.plus(FIGURE_KEPT)) {
            figure.1 = Some(now);
            self.behind(|shared| {
                let _bytes = shared.measure();
                shared.keep_counts();
            });
        }
        let (hits, misses) = self.hits();
        CacheUsage { bytes: figure.0, bytes_max: self.shared.bytes_max, hits, misses }
    }

    /// What it holds now, and the hits of all processes for as long as there has been a cache. Looks at every file.
    pub fn measured(&self) -> CacheUsage {
        let bytes_max = self.shared.bytes_max;
        let measured = self.wait(move |shared| {
            let bytes = Some(shared.measure());
            shared.keep_counts();
            let (hits, misses) = shared.files.counts().unwrap_or_default();
            CacheUsage { bytes, bytes_max, hits, misses }
        });
        measured.unwrap_or(CacheUsage { bytes_max, ..CacheUsage::default() })
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        if *self.shared.counted.lock() != self.hits() {
            let _kept = self.wait(Shared::keep_counts);
        }
    }
}

impl Shared {
    /// Says once why nothing is kept.
    fn tell(&self, why: &dyn std::fmt::Display) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let directory = self.files.directory().display();
            tracing::warn!(%directory, error = %why, "what is fetched cannot be kept on this disk; reading is slower");
        }
    }

    /// A slab, if there is one that can be read.
    fn slab(&self, object: &str, slab: u64) -> Option<File> {
        match self.files.slab(object, slab) {
            Ok(file) => Some(file),
            Err(error) => {
                if error.kind() == ErrorKind::PermissionDenied {
                    self.tell(&error);
                }
                None
            }
        }
    }

    fn read(&self, object: &ObjectName, blocks: Range<u64>) -> Vec<Option<KeptBlock>> {
        let (mut found, place) = (Vec::new(), self.object(object));
        for (slab, part) in slabs(blocks) {
            let before = found.len();
            if let Some(file) = self.slab(&place, slab) {
                self.read_slab(object, &file, part.clone(), &mut found);
                self.renew(&file);
            }
            found.resize(before + usize::try_from(part.end - part.start).unwrap_or(0), None);
        }
        found
    }

    fn read_slab(&self, object: &ObjectName, file: &File, blocks: Range<u64>, found: &mut Vec<Option<KeptBlock>>) {
        let Some(entries) = self.entries(file, &blocks) else { return };
        // One read for all that is there, up to the last block.
        let mut bytes = vec![0; usize::try_from((blocks.end - blocks.start) * BLOCK).unwrap_or(0)];
        let Some(have) = read_at_most(file, &mut bytes, TABLE_BYTES + blocks.start % BLOCKS * BLOCK) else { return };
        bytes.truncate(have);
        let bytes = Bytes::from(bytes);
        for ((block, entry), at) in blocks.zip(entries).zip((0..).step_by(limits::BLOCK_BYTES)) {
            found.push(entry.and_then(|entry| {
                let end = at + entry.bytes as usize;
                let bytes = (end <= bytes.len()).then(|| bytes.slice(at..end))?;
                let agrees = self.checksum(object, block, entry.object_bytes, &bytes) == entry.checksum;
                // A copy: a slice would keep all that was read in memory.
                agrees.then(|| KeptBlock { bytes: Bytes::copy_from_slice(&bytes), object_bytes: entry.object_bytes })
            }));
        }
    }

    fn holds(&self, object: &ObjectName, blocks: Range<u64>) -> Vec<bool> {
        let (mut found, place) = (Vec::new(), self.object(object));
        for (slab, part) in slabs(blocks) {
            let count = found.len() + usize::try_from(part.end - part.start).unwrap_or(0);
            let entries = self.slab(&place, slab).and_then(|file| self.entries(&file, &part));
            found.extend(entries.into_iter().flatten().map(|entry| entry.is_some()));
            found.resize(count, false);
        }
        found
    }

    fn entries(&self, file: &File, blocks: &Range<u64>) -> Option<Vec<Option<Entry>>> {
        let mut table = vec![0; usize::try_from(blocks.end - blocks.start).ok()? * ENTRY];
        file.read_exact_at(&mut table, blocks.start % BLOCKS * ENTRY as u64).ok()?;
        Some(table.as_chunks::<ENTRY>().0.iter().map(decode).collect())
    }

    fn write(&self, object: &ObjectName, block: u64, bytes: &[u8], object_bytes: u64) -> std::io::Result<()> {
        let place = self.object(object);
        let whole =
            |part: &&[u8], at: u64| part.len() as u64 == BLOCK || at * BLOCK + part.len() as u64 == object_bytes;
        let parts: Vec<(u64, &[u8])> =
            (block..).zip(bytes.chunks(limits::BLOCK_BYTES)).filter(|(at, part)| whole(part, *at)).collect();
        for (slab, blocks) in slabs(block..block + parts.len() as u64) {
            let file = self.files.slab_to_write(&place, slab)?;
            let parts = parts.iter().filter(|(at, _)| blocks.contains(at));
            let mut table = Vec::with_capacity(ENTRY * parts.clone().count());
            let mut joined = Vec::new();
            for (at, part) in parts {
                joined.extend_from_slice(part);
                table.extend_from_slice(&self.checksum(object, *at, object_bytes, part));
                table.extend_from_slice(&object_bytes.to_le_bytes());
                table.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
                table.extend_from_slice(&[0; 4]);
            }
            file.write_all_at(&joined, TABLE_BYTES + blocks.start % BLOCKS * BLOCK)?;
            file.write_all_at(&table, blocks.start % BLOCKS * ENTRY as u64)?;
        }
        Ok(())
    }

    fn forget(&self, object: &ObjectName, blocks: Range<u64>) {
        let place = self.object(object);
        for (slab, part) in slabs(blocks) {
            // One that is not there is not made for it.
            if let Some(file) = self.slab(&place, slab).and_then(|_| self.files.slab_to_write(&place, slab).ok()) {
                let entries = usize::try_from(part.end - part.start).unwrap_or(0);
                drop(file.write_all_at(&vec![0; entries * ENTRY], part.start % BLOCKS * ENTRY as u64));
            }
        }
    }

    /// Adds up what all files have.
    fn measure(&self) -> u64 {
        let bytes = self.files.all().iter().map(|slab| slab.bytes).sum();
        *self.figure.lock() = (Some(bytes), Some(self.env.now()));
        bytes
    }

    /// Adds what was counted since the last time to what all processes have counted. What cannot be is not.
    fn keep_counts(&self) {
        let mut counted = self.counted.lock();
        // Not before: whoever waited would have fewer than are counted already.
        let (hits, misses) = (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed));
        if *counted != (hits, misses) && self.files.add_counts(hits - counted.0, misses - counted.1).is_ok() {
            *counted = (hits, misses);
        }
    }

    /// Removes what was used longest ago, until what is left has at most so many bytes.
    fn shrink(&self, bytes_most: u64) {
        // Whoever finds another thread at it need not do it again.
        let Some(_only) = self.looking.try_lock() else { return };
        let mut slabs = self.files.all();
        let mut bytes: u64 = slabs.iter().map(|slab| slab.bytes).sum();
        slabs.sort_unstable_by_key(|slab| slab.used);
        for slab in slabs {
            if bytes <= bytes_most {
                break;
            }
            self.files.remove(&slab);
            bytes = bytes.saturating_sub(slab.bytes);
        }
        *self.figure.lock() = (Some(bytes), Some(self.env.now()));
    }

    /// Notes that a file is in use, now and then.
    fn renew(&self, file: &File) {
        let now = self.env.now();
        let grain = i64::try_from(USE_GRAIN.as_nanos()).unwrap_or(i64::MAX);
        let used = file.metadata().ok().map(|meta| meta.mtime() * 1_000_000_000 + meta.mtime_nsec());
        if used.is_some_and(|used| now.nanos().saturating_sub(used) > grain) {
            let now = std::time::UNIX_EPOCH + Duration::from_nanos(u64::try_from(now.nanos()).unwrap_or(0));
            // It then goes earlier than it might.
            drop(file.set_modified(now));
        }
    }

    /// The name of an object's directory.
    fn object(&self, object: &ObjectName) -> String {
        let hash = blake3::keyed_hash(&self.key, object.as_str().as_bytes());
        let (short, _) = hash.as_bytes().split_at(16);
        hex::encode(short)
    }

    fn checksum(&self, object: &ObjectName, block: u64, object_bytes: u64, bytes: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(object.as_str().len() as u64).to_le_bytes()).update(object.as_str().as_bytes());
        hasher.update(&block.to_le_bytes()).update(&object_bytes.to_le_bytes()).update(bytes);
        let mut checksum = [0; 16];
        hasher.finalize_xof().fill(&mut checksum);
        checksum
    }
}

fn decode(entry: &[u8; ENTRY]) -> Option<Entry> {
    let (checksum, rest) = entry.split_first_chunk::<16>()?;
    let (object_bytes, rest) = rest.split_first_chunk::<8>()?;
    let (bytes, _) = rest.split_first_chunk::<4>()?;
    let bytes = u32::from_le_bytes(*bytes);
    let plausible = bytes > 0 && u64::from(bytes) <= BLOCK;
    plausible.then(|| Entry { checksum: *checksum, object_bytes: u64::from_le_bytes(*object_bytes), bytes })
}

/// `blocks` by the slabs that they are in.
fn slabs(blocks: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    (blocks.start / BLOCKS..blocks.end.div_ceil(BLOCKS)).map(move |slab| {
        let (begin, end) = (slab * BLOCKS, (slab + 1) * BLOCKS);
        (slab, blocks.start.max(begin)..blocks.end.min(end))
    })
}

/// Reads from `at` on until `into` is full or the file ends; none when it cannot be read.
fn read_at_most(file: &File, into: &mut [u8], at: u64) -> Option<usize> {
    let mut have = 0;
    while let Some(rest) = into.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + have as u64) {
            Ok(0) => break,
            Ok(more) => have += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(have)
}

#[cfg(test)]
mod tests;
