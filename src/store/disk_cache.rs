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
//! Stored bytes are kept as they are stored: what is sealed stays sealed. Files belong to their owner alone.
//!
//! ```text
//! DIR/<repository>/<hash of the object's name>/<slab>     256 entries of 32 bytes, then 256 blocks
//! entry: checksum (16), object's bytes (8), block's bytes (4), zero (4)
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::{Env, Instant, hex, limits};
use crate::format::RepoId;
use crate::format::object::ObjectName;

const BLOCK: u64 = limits::BLOCK_BYTES as u64;
const BLOCKS: u64 = limits::CACHE_SLAB_BYTES / BLOCK;
const ENTRY: usize = 32;
/// Where a slab's blocks begin.
const TABLE_BYTES: u64 = BLOCKS * ENTRY as u64;
/// A file's time of use is not renewed within this.
const USE_GRAIN: Duration = Duration::from_secs(60);
/// After a failure to write, nothing is written for so long.
const PAUSE: Duration = Duration::from_secs(60);

/// Blocks of one repository's objects on this machine's disk. Threads and processes may share one directory.
#[derive(Debug)]
pub struct DiskCache {
    /// Of all repositories.
    directory: PathBuf,
    place: PathBuf,
    key: [u8; 32],
    bytes_max: u64,
    env: Env,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Bytes written since the size was looked at; at first as many as make us look.
    written: AtomicU64,
    looking: Mutex<()>,
    pause_until: Mutex<Option<Instant>>,
    told: AtomicBool,
}

/// What a disk cache holds, and how often it held what was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// Bytes on the disk, of all repositories.
    pub bytes: u64,
    /// Bytes that it may have.
    pub bytes_max: u64,
    /// Blocks that were there, since this process began.
    pub hits: u64,
    /// Blocks that were not.
    pub misses: u64,
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
        let name = hex::encode(&repo.0);
        DiskCache {
            directory: directory.to_owned(),
            place: directory.join(&name),
            key: blake3::derive_key("amberfs disk cache 1", &repo.0),
            bytes_max: bytes_max.max(limits::DISK_CACHE_BYTES_MIN),
            env,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            written: AtomicU64::new(limits::DISK_CACHE_LOOK_BYTES),
            looking: Mutex::new(()),
            pause_until: Mutex::new(None),
            told: AtomicBool::new(false),
        }
    }

    /// Those of the object's `blocks` that are kept, in order.
    pub fn read(&self, object: &ObjectName, blocks: Range<u64>) -> Vec<Option<KeptBlock>> {
        let mut found = Vec::new();
        for (slab, part) in slabs(blocks) {
            let before = found.len();
            if let Ok(file) = File::open(self.slab(object, slab)) {
                self.read_slab(object, &file, part.clone(), &mut found);
                self.renew(&file);
            }
            found.resize(before + usize::try_from(part.end - part.start).unwrap_or(0), None);
        }
        let hits = found.iter().flatten().count() as u64;
        self.hits.fetch_add(hits, Ordering::Relaxed);
        self.misses.fetch_add(found.len() as u64 - hits, Ordering::Relaxed);
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

    /// Which of `blocks` seem to be kept; their bytes have not been looked at.
    pub fn holds(&self, object: &ObjectName, blocks: Range<u64>) -> Vec<bool> {
        let mut found = Vec::new();
        for (slab, part) in slabs(blocks) {
            let count = found.len() + usize::try_from(part.end - part.start).unwrap_or(0);
            let entries = File::open(self.slab(object, slab)).ok().and_then(|file| self.entries(&file, &part));
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

    /// Keeps what is read from `block` on of an object of `object_bytes` bytes: whole blocks, and its last one.
    pub fn write(&self, object: &ObjectName, block: u64, bytes: &[u8], object_bytes: u64) {
        if self.pause_until.lock().is_some_and(|until| self.env.now() < until) {
            return;
        }
        match self.try_write(object, block, bytes, object_bytes) {
            Ok(()) => {
                let written = self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
                if written >= limits::DISK_CACHE_LOOK_BYTES {
                    self.written.store(0, Ordering::Relaxed);
                    self.shrink(self.bytes_max - limits::DISK_CACHE_LOOK_BYTES * 2);
                }
            }
            Err(error) => {
                *self.pause_until.lock() = Some(Instant::from_nanos(
                    self.env.now().nanos().saturating_add(i64::try_from(PAUSE.as_nanos()).unwrap_or(i64::MAX)),
                ));
                if !self.told.swap(true, Ordering::Relaxed) {
                    let directory = self.directory.display();
                    tracing::warn!(%directory, %error, "what is fetched cannot be kept on this disk; reading is slower");
                }
                if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
                    // Others need the space more than we do.
                    self.shrink(self.usage().bytes / 2);
                }
            }
        }
    }

    fn try_write(&self, object: &ObjectName, block: u64, bytes: &[u8], object_bytes: u64) -> std::io::Result<()> {
        let whole =
            |part: &&[u8], at: u64| part.len() as u64 == BLOCK || at * BLOCK + part.len() as u64 == object_bytes;
        let parts: Vec<(u64, &[u8])> =
            (block..).zip(bytes.chunks(limits::BLOCK_BYTES)).filter(|(at, part)| whole(part, *at)).collect();
        for (slab, blocks) in slabs(block..block + parts.len() as u64) {
            let file = self.open_to_write(&self.slab(object, slab))?;
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

    fn open_to_write(&self, path: &Path) -> std::io::Result<File> {
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
                    // One that was there may be open to others.
                    if std::fs::metadata(&self.directory)?.mode() & 0o077 != 0 {
                        std::fs::set_permissions(&self.directory, std::fs::Permissions::from_mode(0o700))?;
                    }
                }
                open()
            }
            opened => opened,
        }
    }

    /// Forgets what is kept of `object`.
    pub fn forget(&self, object: &ObjectName) {
        // What cannot be removed is overwritten by what is read next.
        drop(std::fs::remove_dir_all(self.object(object)));
    }

    /// Blocks that were there, and that were not, since this process began.
    pub fn hits(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// What it holds. Looks at every file.
    pub fn usage(&self) -> CacheUsage {
        let bytes = files(&self.directory).iter().map(|file| file.bytes).sum();
        let (hits, misses) = self.hits();
        CacheUsage { bytes, bytes_max: self.bytes_max, hits, misses }
    }

    /// Removes what was used longest ago, until what is left has at most so many bytes.
    fn shrink(&self, bytes_most: u64) {
        // Whoever finds another thread at it need not do it again.
        let Some(_only) = self.looking.try_lock() else { return };
        let mut files = files(&self.directory);
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        if bytes <= bytes_most {
            return;
        }
        files.sort_unstable_by_key(|file| file.used);
        for file in files {
            if bytes <= bytes_most {
                break;
            }
            // Gone already, by another process, is as good.
            drop(std::fs::remove_file(&file.path));
            bytes = bytes.saturating_sub(file.bytes);
            if let Some(object) = file.path.parent() {
                // Succeeds when it was the last one's.
                drop(std::fs::remove_dir(object));
            }
        }
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

    fn object(&self, object: &ObjectName) -> PathBuf {
        let hash = blake3::keyed_hash(&self.key, object.as_str().as_bytes());
        let (short, _) = hash.as_bytes().split_at(16);
        self.place.join(hex::encode(short))
    }

    fn slab(&self, object: &ObjectName, slab: u64) -> PathBuf {
        self.object(object).join(slab.to_string())
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

struct CacheFile {
    path: PathBuf,
    bytes: u64,
    used: (i64, i64),
}

/// All slabs of all repositories. What goes meanwhile is not there.
fn files(directory: &Path) -> Vec<CacheFile> {
    let below = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = Vec::new();
    for repository in below(directory) {
        for path in below(&repository).flat_map(|object| below(&object)) {
            if let Ok(meta) = path.symlink_metadata() {
                found.push(CacheFile { path, bytes: meta.blocks() * 512, used: (meta.mtime(), meta.mtime_nsec()) });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
