//! What the kernel says of a disk: a block device, or a file that is an image of one.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::boundary::{self, Mount};
use super::stat::{Kind, Stat};
use super::sys;
use crate::base;
use crate::format::log::Stillness;

/// A disk, open to read.
#[derive(Debug)]
pub(super) struct Device {
    file: Arc<File>,
    path: PathBuf,
    image: bool,
    sector_bytes: u32,
}

impl Device {
    /// The disk at `path`, which may lead through symbolic links: it is the caller's word.
    ///
    /// # Errors
    /// Those of opening; a word about it when it is neither a block device nor a file.
    pub(super) fn open(path: &Path) -> io::Result<Device> {
        let path = std::fs::canonicalize(path)?;
        // Asked before it is opened: a FIFO would keep us waiting, and a tape would rewind.
        let kind = std::fs::metadata(&path)?.file_type();
        let image = kind.is_file();
        if !image && !kind.is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a block device nor an image file"));
        }
        let file = File::open(&path)?;
        let sector_bytes = if image { 512 } else { base::sys::sector_bytes(&file)? };
        Ok(Device { file: Arc::new(file), path, image, sector_bytes })
    }

    /// The open disk.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where it really is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a file.
    pub(super) fn is_image(&self) -> bool {
        self.image
    }

    /// Bytes of a logical sector.
    pub(super) fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    /// What it is now; of a device, with its size.
    ///
    /// # Errors
    /// Those of asking.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        let mut stat = Stat::of(self.file.as_fd())?;
        if !self.image {
            stat.meta.size = base::sys::device_bytes(&self.file)?;
        }
        stat.kind = Kind::File;
        Ok(stat)
    }

    /// Brings what filesystems on it hold in memory down to it, and lets the kernel forget what it has read
    /// of it before; says what could write to it.
    ///
    /// # Errors
    /// Those of writing back: what is in memory and cannot come down would be missing.
    pub(super) fn settle(&self) -> io::Result<Stillness> {
        let mounts = self.mounts();
        for mount in mounts.iter().filter(|mount| !mount.read_only) {
            // A mountpoint that was taken away since has been written back by that.
            if let Ok(root) = File::open(OsStr::from_bytes(&mount.path)) {
                sys::sync_filesystem(&root)?;
            }
        }
        if self.image {
            self.file
                .sync_all()
                .or_else(|error| if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) })?;
        } else {
            // A filesystem writes file data around the device's own pages, which would then be old.
            base::sys::forget_pages(&self.file);
        }
        Ok(match mounts.iter().map(|mount| mount.read_only).min() {
            None => Stillness::Still,
            Some(true) => Stillness::MountedReadOnly,
            Some(false) => Stillness::MountedReadWrite,
        })
    }

    /// The mounts of filesystems on it, on its partitions, and on what is built upon them.
    fn mounts(&self) -> Vec<Mount> {
        let mut devices: HashSet<(u32, u32)> = HashSet::new();
        let bases = match self.image {
            true => loops(&self.path).map(|block| number_in(&block)).collect(),
            false => vec![self.number()],
        };
        bases.into_iter().flatten().for_each(|device| gather(device, &mut devices));
        let table = boundary::mounts();
        // Some filesystems (btrfs) give their mounts device numbers of their own; what they are mounted from tells.
        table
            .into_iter()
            .filter(|mount| {
                devices.contains(&mount.device) || rdev(&mount.source).is_some_and(|at| devices.contains(&at))
            })
            .collect()
    }

    fn number(&self) -> Option<(u32, u32)> {
        self.file.metadata().ok().map(|metadata| split(metadata.rdev()))
    }
}

/// Where filesystems are mounted that lie on the disk at `path`, on its partitions, or on what is built upon them.
///
/// # Errors
/// Those of opening the disk.
pub fn mounts_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let place = |mount: Mount| PathBuf::from(OsStr::from_bytes(&mount.path));
    Ok(Device::open(path)?.mounts().into_iter().map(place).collect())
}

/// The loop devices that show the image at `path`, by their paths.
pub fn loops_over(path: &Path) -> Vec<PathBuf> {
    loops(path).map(|block| Path::new("/dev").join(block.file_name().unwrap_or_default())).collect()
}

fn split(device: u64) -> (u32, u32) {
    (libc::major(device), libc::minor(device))
}

/// The number of the device at `path`, if there is one.
fn rdev(path: &[u8]) -> Option<(u32, u32)> {
    let path = Path::new(OsStr::from_bytes(path));
    let metadata = path.is_absolute().then(|| std::fs::metadata(path).ok()).flatten()?;
    metadata.file_type().is_block_device().then(|| split(metadata.rdev()))
}

/// Where `/sys` describes the loop devices that show the image at `path`.
fn loops(path: &Path) -> impl Iterator<Item = PathBuf> {
    let blocks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|block| block.path());
    blocks.filter(move |block| {
        let backing = std::fs::read(block.join("loop/backing_file")).unwrap_or_default();
        backing.strip_suffix(b"\n").unwrap_or(&backing) == path.as_os_str().as_bytes()
    })
}

/// Adds a device, its partitions, and the devices that are built upon any of them.
fn gather(device: (u32, u32), devices: &mut HashSet<(u32, u32)>) {
    if !devices.insert(device) {
        return;
    }
    let place = PathBuf::from(format!("/sys/dev/block/{}:{}", device.0, device.1));
    let below = |place: &Path| std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    let partitions = below(&place).filter(|path| path.join("partition").exists());
    for upon in partitions.chain(below(&place.join("holders"))) {
        if let Some(upon) = number_in(&upon) {
            gather(upon, devices);
        }
    }
}

/// The number of the device that `/sys` describes at `place`.
fn number_in(place: &Path) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(place.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
