//! Puts a disk back: the device or image that is the source is written to where it differs.
//!
//! An image keeps its inode, so whoever knows it by that (a virtual machine, a loop device) still does.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::disk::{Engine, How, Image, Written};
use super::super::error::RestoreError;
use super::super::progress::Progress;
use super::super::sys;
use crate::base::sys as base_sys;
use crate::capture::{CaptureError, loops_over, mounts_of};
use crate::view::disk::DiskView;

/// A source that is a disk.
pub(super) struct Disk {
    real: PathBuf,
    device: bool,
    /// Bytes that it has.
    bytes: u64,
}

/// A disk that is open for nobody else.
pub(super) struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        sys::unlock_whole(&self.0);
    }
}

/// What was done to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskRolled {
    /// Bytes of the disk as it was at the point.
    pub bytes: u64,
    /// What was done to it.
    pub written: Written,
    /// Bytes that were read back and are as they must be.
    pub verified_bytes: u64,
    /// Bytes of a device behind the disk's end, left as they are.
    pub behind_bytes: u64,
}

impl Disk {
    /// The disk at `path`, which `wanted` must fit on; nothing is opened for writing.
    pub(super) fn find(path: &Path, wanted: &DiskView) -> Result<Disk, RestoreError> {
        let failed = |source| RestoreError::Target { path: path.to_owned(), source };
        let real = super::place(path, path.canonicalize())?;
        let kind = real.metadata().map_err(failed)?;
        if kind.is_file() {
            return Ok(Disk { real, device: false, bytes: kind.len() });
        }
        if !kind.file_type().is_block_device() {
            let what = "it is neither a block device nor an image file";
            return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, what)));
        }
        let bytes = base_sys::device_bytes(&File::open(&real).map_err(failed)?).map_err(failed)?;
        if bytes < wanted.bytes() {
            return Err(RestoreError::TooSmall { path: path.to_owned(), has: bytes, needs: wanted.bytes() });
        }
        Ok(Disk { real, device: true, bytes })
    }

    /// Refuses a disk with a mounted filesystem on it, and an image that a loop device shows.
    pub(super) fn refuse_used(&self) -> Result<(), RestoreError> {
        let mounts = mounts_of(&self.real).map_err(|source| self.unusable(source))?;
        if !mounts.is_empty() {
            return Err(RestoreError::InUse { path: self.real.clone() });
        }
        match loops_over(&self.real).pop() {
            Some(device) => Err(RestoreError::Shown { path: self.real.clone(), device }),
            None => Ok(()),
        }
    }

    /// Refuses a device of another size than the source had: it may be another one under the same path.
    pub(super) fn refuse_another(&self, had: u64) -> Result<(), RestoreError> {
        if self.device && self.bytes != had {
            return Err(RestoreError::Another { path: self.real.clone(), has: self.bytes, had });
        }
        Ok(())
    }

    /// Whether `path` leads to what is open.
    pub(super) fn is_open_as(&self, Held(file): &Held, path: &Path) -> bool {
        let (Ok(open), Ok(there)) = (file.metadata(), path.metadata()) else { return false };
        if self.device { open.rdev() == there.rdev() } else { (open.dev(), open.ino()) == (there.dev(), there.ino()) }
    }

    /// Opens it for nobody else: a device exclusively, an image under a lock.
    pub(super) fn open(&self) -> Result<Held, RestoreError> {
        self.refuse_used()?;
        let flags = if self.device { libc::O_EXCL } else { libc::O_NOFOLLOW };
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.real);
        let file = opened.map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => RestoreError::InUse { path: self.real.clone() },
            _ => self.unusable(error),
        })?;
        if !self.device {
            if !sys::lock_whole(&file).map_err(|source| self.unusable(source))? {
                return Err(RestoreError::Locked { path: self.real.clone() });
            }
        } else {
            // A filesystem that was mounted on it has written around its own pages.
            base_sys::forget_pages(&file);
        }
        Ok(Held(file))
    }

    /// Whether all of it is as `wanted` or as `before` has it: see [`Engine::is_on_its_way_from`].
    pub(super) fn is_on_its_way(
        &self,
        before: &DiskView,
        wanted: &DiskView,
        progress: &Progress,
    ) -> Result<bool, RestoreError> {
        if !self.device && self.bytes != wanted.bytes() && self.bytes != before.bytes() {
            return Ok(false);
        }
        let file = File::open(&self.real).map_err(|source| self.unusable(source))?;
        engine(wanted, &file, None, progress).is_on_its_way_from(before)
    }

    /// How much would be written. Nothing need be open; a filesystem may be mounted on it.
    pub(super) fn dry_run(&self, wanted: &DiskView, progress: &Progress) -> Result<DiskRolled, RestoreError> {
        let file = File::open(&self.real).map_err(|source| self.unusable(source))?;
        if self.device {
            // As when it is opened for writing.
            base_sys::forget_pages(&file);
        }
        self.difference(&file, wanted, progress)
    }

    /// Reads all that would be written, so that damage is met before there is any harm.
    pub(super) fn rehearse(
        &self,
        Held(file): &Held,
        wanted: &DiskView,
        progress: &Progress,
    ) -> Result<(), RestoreError> {
        self.difference(file, wanted, progress).map(drop)
    }

    fn difference(&self, file: &File, wanted: &DiskView, progress: &Progress) -> Result<DiskRolled, RestoreError> {
        let written = engine(wanted, file, None, progress).difference()?;
        Ok(DiskRolled { written, ..self.rolled(wanted) })
    }

    /// Makes it what `wanted` is, and brings that to the disk.
    pub(super) fn write(
        &self,
        Held(file): &Held,
        wanted: &DiskView,
        workers: Option<usize>,
        verify: bool,
        progress: &Progress,
    ) -> Result<DiskRolled, RestoreError> {
        if !self.device {
            file.set_len(wanted.bytes()).map_err(|source| self.failed("resize", source))?;
        }
        let engine = engine(wanted, file, workers, progress);
        let mut rolled = DiskRolled { written: engine.write()?, ..self.rolled(wanted) };
        file.sync_all().map_err(|source| self.failed("synchronise", source))?;
        if self.device {
            base_sys::reread_partitions(file);
        }
        if verify {
            progress.begin_verifying();
            sys::forget_content(file.as_fd());
            rolled.verified_bytes = engine.verify()?;
        }
        Ok(rolled)
    }

    fn rolled(&self, wanted: &DiskView) -> DiskRolled {
        let behind_bytes = if self.device { self.bytes.saturating_sub(wanted.bytes()) } else { 0 };
        DiskRolled { bytes: wanted.bytes(), behind_bytes, ..DiskRolled::default() }
    }

    fn unusable(&self, source: std::io::Error) -> RestoreError {
        RestoreError::Target { path: self.real.clone(), source }
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> RestoreError {
        RestoreError::Write { action, path: self.real.to_string_lossy().into_owned(), source }
    }
}

fn engine<'a>(wanted: &'a DiskView, file: &'a File, workers: Option<usize>, progress: &'a Progress) -> Engine<'a> {
    let image = Image { disk: wanted, shift: 0, bytes: wanted.bytes() };
    Engine::new(image, file, How::Differing, workers, progress)
}

/// A safety point that failed, as the end of a rollback.
pub(super) fn no_safety(error: CaptureError) -> RestoreError {
    match error {
        CaptureError::Cancelled => RestoreError::Cancelled,
        error => RestoreError::Safety(error),
    }
}
