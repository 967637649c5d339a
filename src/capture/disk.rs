//! Captures a disk, a block device or an image of one, as the one file of a point.
//!
//! A disk is cut into cells of a fixed size. A cell of zeros is a hole, so an image gives the same point
//! whether its zeros are allocated or not. What may have changed since the parent is a question to
//! [`Changes`]; today its one answer is to read all data and to compare hashes with the parent's map,
//! which needs no index and no memory. A disk that cannot be read to its end yields no point: half a disk
//! looks like a whole one.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::attempt::{Capture, Outcome, Plan, Subject};
use super::boundary::Boundary;
use super::change::{Change as Verdict, compare};
use super::chunk::Grid;
use super::counts::Counts;
use super::device::Device;
use super::directory::Directory;
use super::error::CaptureError;
use super::known::Known;
use super::large::SLICE_BYTES;
use super::options::Options;
use super::planner::Halt;
use super::progress::Progress;
use super::recorder::{Recorded, mapped};
use super::stat::{Identity, Kind, Stat};
use super::unit::{BeginJob, EndJob, Job, SliceJob};
use super::{single, sys};
use crate::base::limits;
use crate::chain::{Point, SourceLog};
use crate::format::entry::Meta;
use crate::format::log::{DISK_NAME, DiskFacts, Method, SourceKind, SourceRecord, Stillness};
use crate::format::{FileId, Key};
use crate::repo::Repo;

/// What has to be done about a stretch of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It may differ from the parent: read it up to this byte.
    Read(u64),
    /// It is all zeros up to this byte.
    Zero(u64),
    /// It is as the parent has it up to this byte. Never said without a parent.
    Kept(u64),
}

/// Knows which parts of a disk may differ from what the parent point holds.
///
/// Dirty bitmaps of virtual machines, differences of snapshots and the like are further members.
pub(super) trait Changes {
    /// What it goes by.
    fn method(&self) -> Method;

    /// What is to be done from `at` on, which is a border of the grid before the disk's end. What it answers
    /// ends behind `at`, at a border of the grid or at the disk's end.
    ///
    /// # Errors
    /// When it cannot tell; the capture fails then.
    fn next(&mut self, at: u64) -> io::Result<Part>;
}

/// Knows nothing but what the filesystem says of holes: all else is read and compared.
struct Comparison<'a> {
    file: &'a File,
    bytes: u64,
    grid: Grid,
    method: Method,
}

impl Changes for Comparison<'_> {
    fn method(&self) -> Method {
        self.method
    }

    fn next(&mut self, at: u64) -> io::Result<Part> {
        let data = match sys::seek_data(self.file, at) {
            Ok(Some(data)) if data < self.bytes => data,
            Ok(_) => return Ok(Part::Zero(self.bytes)),
            // Devices, and filesystems that cannot tell data from holes.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOTTY)) => {
                return Ok(Part::Read(self.bytes));
            }
            Err(error) => return Err(error),
        };
        let start = self.grid.down(data);
        if start > at {
            return Ok(Part::Zero(start));
        }
        let hole = sys::seek_hole(self.file, data)?.unwrap_or(self.bytes).max(data + 1);
        Ok(Part::Read(self.grid.up(hole).min(self.bytes)))
    }
}

/// Knows by the image's inode that nothing was written.
struct Untouched {
    bytes: u64,
}

impl Changes for Untouched {
    fn method(&self) -> Method {
        Method::Untouched
    }

    fn next(&mut self, _at: u64) -> io::Result<Part> {
        Ok(Part::Kept(self.bytes))
    }
}

/// Captures the disk at `path` as a point of `source`.
///
/// # Errors
/// As `capture_tree`; [`CaptureError::Disk`] when the disk is none, or cannot be read to its end.
pub fn capture_disk(
    repo: &Arc<Repo>,
    log: &SourceLog,
    source: &SourceRecord,
    path: &Path,
    options: &Options,
    progress: &Progress,
) -> Result<Outcome, CaptureError> {
    super::must_be(source, SourceKind::Disk)?;
    let (device, chunk_bytes) = open(repo, path, options)?;
    let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let subject = Disk { device, chunk_bytes, seen: Mutex::new(None) };
    let place = place.as_os_str().as_bytes();
    Capture { repo, log, source, place, options, progress }.run(&subject)
}

/// Whether [`capture_disk`] can begin, without a trace of the question anywhere.
///
/// # Errors
/// As [`capture_disk`].
pub fn can_capture_disk(repo: &Repo, path: &Path, options: &Options) -> Result<(), CaptureError> {
    open(repo, path, options).map(drop)
}

/// The disk at `path`, and the bytes of its chunks.
fn open(repo: &Repo, path: &Path, options: &Options) -> Result<(Device, u32), CaptureError> {
    let chunk_bytes = options.disk_chunk_bytes.unwrap_or(limits::FIXED_CHUNK_BYTES as u32);
    if !limits::DISK_CHUNK_BYTES.contains(&chunk_bytes) || !chunk_bytes.is_power_of_two() {
        return Err(CaptureError::ChunkBytes { given: chunk_bytes });
    }
    let device = Device::open(path).map_err(|source| CaptureError::Disk { path: path.to_owned(), source })?;
    refuse_own(repo, &device, path)?;
    Ok((device, chunk_bytes))
}

/// Refuses an image that lies in an amberfs mount or in the repository.
fn refuse_own(repo: &Repo, device: &Device, path: &Path) -> Result<(), CaptureError> {
    let Some(above) = device.path().parent().filter(|_| device.is_image()) else { return Ok(()) };
    let failed = |source| CaptureError::Disk { path: path.to_owned(), source };
    let own = repo.store().local_root().and_then(|path| Directory::root(path).ok());
    let refused: Vec<Identity> = own.map(|directory| directory.stat().identity).into_iter().collect();
    Boundary::new(&Directory::root(above).map_err(failed)?, true, refused).map(drop)
}

/// A disk that is being captured.
struct Disk {
    device: Device,
    chunk_bytes: u32,
    /// What it was when its capture began, and how it was gone through.
    seen: Mutex<Option<(Stat, Stillness, Method)>>,
}

impl Subject for Disk {
    fn unfit(&self, parent: &Point) -> Option<String> {
        let before = parent.commit.disk.as_ref().map(|facts| facts.chunk_bytes);
        (before != Some(self.chunk_bytes)).then(|| {
            let (old, new) = (before.unwrap_or(0) >> 10, self.chunk_bytes >> 10);
            format!("the chunks of point {} have {old} KiB, not {new}", parent.name())
        })
    }

    fn plan(&self, plan: Plan<'_>) -> Result<(), Halt> {
        let failed = |source| Halt::Failed(self.failed(source));
        let stillness = self.device.settle().map_err(failed)?;
        let stat = self.stat(&plan).map_err(failed)?;
        let method = self.read(plan, stat)?;
        *self.seen.lock() = Some((stat, stillness, method));
        Ok(())
    }

    fn facts(&self, recorded: &Recorded, counts: &Counts) -> Result<Option<DiskFacts>, CaptureError> {
        if let Some(problem) = recorded.problems.first() {
            return Err(self.failed(io::Error::other(problem.detail.clone())));
        }
        let Some((stat, mut stillness, method)) = *self.seen.lock() else { return Ok(None) };
        let after = self.device.stat().map_err(|source| self.failed(source))?;
        if self.device.is_image() && !stat.same_content(&after) {
            stillness = Stillness::Changed;
        }
        Ok(Some(DiskFacts {
            bytes: stat.meta.size,
            chunk_bytes: self.chunk_bytes,
            sector_bytes: self.device.sector_bytes(),
            method,
            stillness,
            changed_bytes: counts.changed(),
        }))
    }
}

impl Disk {
    fn failed(&self, source: io::Error) -> CaptureError {
        CaptureError::Disk { path: self.device.path().to_owned(), source }
    }

    /// The disk as a file of the point: its owner's alone to read, and as old as its last change, which of a
    /// device nobody knows.
    fn stat(&self, plan: &Plan<'_>) -> io::Result<Stat> {
        let stat = self.device.stat()?;
        if stat.meta.size > limits::DISK_BYTES_MAX {
            let words = format!("it has {} bytes, and a disk may have {}", stat.meta.size, limits::DISK_BYTES_MAX);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
        }
        let made = single::made(plan.started, stat.meta.size).meta;
        let meta = if self.device.is_image() {
            Meta { permissions: 0o400, uid: made.uid, gid: made.gid, links: 1, ..stat.meta }
        } else {
            Meta { permissions: 0o400, ..made }
        };
        Ok(Stat { kind: Kind::File, meta, ..stat })
    }

    fn read(&self, mut plan: Plan<'_>, stat: Stat) -> Result<Method, Halt> {
        let bytes = stat.meta.size;
        let key = Key::entry(FileId::ROOT, DISK_NAME.as_bytes());
        single::root(&mut plan, &key)?;
        let old = plan.parent.get(&key)?;
        plan.counts.add_name(Kind::File);
        plan.counts.add_bytes(&stat);
        plan.progress.at(DISK_NAME.as_bytes());
        let verdict = old.as_ref().map(|old| compare(old, plan.parent.started, &stat));
        plan.planner.flush()?;
        let failed = |source| Halt::Failed(self.failed(source));
        let grid = Grid { cell: u64::from(self.chunk_bytes), whole: true };
        let kept = old.as_ref().and_then(mapped);
        let map = kept.unwrap_or_else(|| plan.identities.fresh());
        let begin = BeginJob { map, grid: Some(grid), mapped: kept.is_some() };
        let mut changes: Box<dyn Changes> = if self.device.is_image() && verdict == Some(Verdict::Unchanged) {
            Box::new(Untouched { bytes })
        } else {
            let method = if old.is_some() { Method::Compared } else { Method::Everything };
            Box::new(Comparison { file: self.device.file(), bytes, grid, method })
        };
        let first = changes.next(0).map_err(failed)?;
        if old.as_ref().is_some_and(|old| old.meta.size == bytes) && first == Part::Kept(bytes) {
            // The parent's entry stands as it is, however large its map.
            plan.progress.add_files(1, bytes);
            return Ok(changes.method());
        }
        plan.planner.send_alone(vec![Job::Begin(begin)], 0)?;
        sys::will_read_on(self.device.file());
        let known = Known::of(&plan.parent.maps, begin)?;
        Reading { plan: &mut plan, disk: self, bytes, grid, known }.run(&mut *changes)?;
        plan.progress.add_files(1, 0);
        let end = EndJob {
            key,
            old,
            file: None,
            stat,
            xattrs: Vec::new(),
            path: DISK_NAME.as_bytes().to_vec(),
            failed: None,
            inode: None,
            touched: verdict == Some(Verdict::Touched),
            only_content: !self.device.is_image(),
        };
        plan.planner.send_alone(vec![Job::End(Box::new(end))], 0)?;
        Ok(changes.method())
    }
}

/// A disk on its way to the workers, part by part.
struct Reading<'a, 'p> {
    plan: &'a mut Plan<'p>,
    disk: &'a Disk,
    bytes: u64,
    grid: Grid,
    known: Known,
}

impl Reading<'_, '_> {
    fn run(&mut self, changes: &mut dyn Changes) -> Result<(), Halt> {
        let mut at = 0;
        while at < self.bytes {
            self.plan.planner.check()?;
            let part = changes.next(at).map_err(|source| Halt::Failed(self.disk.failed(source)))?;
            let (Part::Read(end) | Part::Zero(end) | Part::Kept(end)) = part;
            // A member that stands still would keep everybody waiting.
            let end = self.grid.up(end.max(at + 1)).min(self.bytes);
            while at < end {
                let step = (at / SLICE_BYTES as u64 + 1) * SLICE_BYTES as u64;
                let next = if matches!(part, Part::Read(_)) { step.min(end) } else { self.far(at).min(end) };
                self.part(part, at, next)?;
                at = next;
            }
        }
        Ok(())
    }

    /// How far a part that is not read may reach: what the parent has of it is held in memory.
    fn far(&self, at: u64) -> u64 {
        at + self.grid.cell * (limits::MAP_PAGE_EXTENTS as u64 * 16)
    }

    fn part(&mut self, part: Part, at: u64, end: u64) -> Result<(), Halt> {
        let known = self.known.within(&(at..end))?;
        self.plan.progress.add_files(0, end - at);
        match part {
            Part::Read(_) => {
                let file = Arc::clone(self.disk.device.file());
                let slice = SliceJob::Fixed { file, part: at..end, known, grid: self.grid };
                let weight = usize::try_from(end - at).unwrap_or(usize::MAX);
                self.plan.planner.send_alone(vec![Job::Slice(slice)], weight)?;
            }
            Part::Zero(_) => {
                self.plan.counts.add_changed(known.iter().map(|extent| u64::from(extent.chunk.bytes)).sum());
            }
            Part::Kept(_) => self.plan.planner.send_alone(vec![Job::Slice(SliceJob::Kept(known))], 0)?,
        }
        Ok(())
    }
}
