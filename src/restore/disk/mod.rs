//! Makes a block device or an image equal to a point of a disk, resumably.
//!
//! ```text
//!  target   what is written to: a device, or a file under a name of its own until it is complete
//!  engine   what differs is written, side by side; what was written is read back
//! ```
//!
//! The map of a point has a hash of every chunk, so what a target holds already is found out by reading the target
//! alone. That is how an interrupted restore continues, and how a rollback writes nothing but the difference:
//! neither needs a journal of what was written.

mod engine;
mod target;

use std::path::{Path, PathBuf};

pub use self::engine::Written;
pub(super) use self::engine::{Engine, How, Image};
use self::target::{Format, Target};
use super::error::RestoreError;
use super::progress::Progress;
use crate::view::disk::DiskView;

/// A disk that is to be restored.
#[derive(Debug, Clone, Copy)]
pub struct WantedDisk<'a> {
    /// The point's disk.
    pub disk: &'a DiskView,
    /// The selector that means exactly this point, for whoever finds it unfinished.
    pub title: &'a str,
}

/// How a disk is to be restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// Overwrite a device that is not empty, or a file that exists.
    pub force: bool,
    /// Count only, change nothing.
    pub dry_run: bool,
    /// Read back what was written and compare it with the point.
    pub verify: bool,
    /// Threads that decode and write; none lets the machine's size decide.
    pub workers: Option<usize>,
    /// Where it is kept what is unfinished on devices.
    pub state: Option<PathBuf>,
}

/// How a restore of a disk went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskOutcome {
    /// Bytes of the disk.
    pub bytes: u64,
    /// What was done for it.
    pub written: Written,
    /// Bytes that were read back and are as they must be, zeros included.
    pub verified_bytes: u64,
    /// Whether it continued an earlier one.
    pub resumed: bool,
    /// Bytes of the target behind the disk's end, which were left as they are.
    pub behind_bytes: u64,
}

/// Makes `target` the disk `wanted`: a block device that exists, or a file that is made, as qcow2 if its name ends
/// with `.qcow2` and raw otherwise.
///
/// # Errors
/// [`RestoreError`] when the target is not to be had, or a byte cannot be read or written; the same call continues.
pub fn restore_disk(
    wanted: &WantedDisk<'_>,
    target: &Path,
    options: &DiskOptions,
    progress: &Progress,
) -> Result<DiskOutcome, RestoreError> {
    let disk = wanted.disk;
    let format = Format::of(target);
    let shape = disk.qcow2_shape();
    let image = match format {
        Format::Raw => Image { disk, shift: 0, bytes: disk.bytes() },
        Format::Qcow2 => Image { disk, shift: shape.disk_start, bytes: shape.bytes },
    };
    let mut opened = Target::open(wanted, target, image.bytes, format, options)?;
    let mut outcome = DiskOutcome {
        bytes: disk.bytes(),
        resumed: opened.is_resumed(),
        behind_bytes: opened.behind_bytes(),
        ..DiskOutcome::default()
    };
    if options.dry_run {
        outcome.written.written_bytes = disk.data_bytes();
        return Ok(outcome);
    }
    opened.begin(image.bytes)?;
    let how = match (outcome.resumed, opened.is_device()) {
        (true, _) => How::Differing,
        (false, true) => How::OverAnything,
        (false, false) => How::OverZeros,
    };
    let engine = Engine::new(image, opened.file(), how, options.workers, progress);
    outcome.written = engine.write()?;
    if format == Format::Qcow2 {
        engine.write_tables()?;
    }
    opened.synchronise()?;
    if options.verify {
        progress.begin_verifying();
        opened.forget();
        outcome.verified_bytes = engine.verify()?;
    }
    opened.complete()?;
    Ok(outcome)
}
