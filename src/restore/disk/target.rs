//! What a disk is restored to: a block device, or a file.
//!
//! A file is written under a name that tells which restore it belongs to, `.NAME.amberfs-<id>`, and gets its own when
//! it is complete and on disk: what has the name is whole. A device has no room for such a note, so it is kept in the
//! state directory, from before the first byte is written until after the last one is on disk.
//!
//! Crash behaviour: the same restore finds the file or the note and continues; another one is refused.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::error::RestoreError;
use super::super::{note, sys};
use super::{DiskOptions, WantedDisk};
use crate::base::{hex, sys as base_sys};

/// Bytes at the start and at the end of a device that are looked at to tell whether it is empty: partition tables and the
/// signatures of filesystems, volume managers and RAID are there.
const LOOK_BYTES: u64 = 4 << 20;

/// How an image file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The disk's bytes.
    Raw,
    /// QEMU's.
    Qcow2,
}

impl Format {
    /// The format that the name of `target` asks for; a device is raw whatever it is called.
    pub(super) fn of(target: &Path) -> Format {
        let is_device = std::fs::metadata(target).is_ok_and(|metadata| metadata.file_type().is_block_device());
        match target.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("qcow2") && !is_device => Format::Qcow2,
            Some(_) | None => Format::Raw,
        }
    }
}

/// A target, open.
pub(super) struct Target {
    file: File,
    path: PathBuf,
    kind: Kind,
    resumed: bool,
    behind: u64,
}

enum Kind {
    Device { note: Option<PathBuf>, told: Note },
    File { part: PathBuf, force: bool },
}

/// What is being restored to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Which point, of which repository.
    identity: String,
    /// For people: the selector that names it.
    title: String,
    /// The device, for people.
    target: String,
}

impl Target {
    /// Opens `path` for `bytes` bytes; nothing is written.
    pub(super) fn open(
        wanted: &WantedDisk<'_>,
        path: &Path,
        bytes: u64,
        format: Format,
        options: &DiskOptions,
    ) -> Result<Target, RestoreError> {
        let failed = |source| RestoreError::Target { path: path.to_owned(), source };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.file_type().is_block_device() => Target::device(wanted, path, bytes, options),
            Ok(metadata) if metadata.is_dir() => Err(failed(io::Error::new(
                io::ErrorKind::IsADirectory,
                "a disk is restored to a block device or a file: name one in it, such as disk.raw or disk.qcow2",
            ))),
            Ok(metadata) if !metadata.is_file() => {
                Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a block device nor a file")))
            }
            Ok(_) if !options.force => Err(RestoreError::Exists { path: path.to_owned() }),
            Ok(_) => Target::image(wanted, path, format, options),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Target::image(wanted, path, format, options),
            Err(error) => Err(failed(error)),
        }
    }

    fn device(wanted: &WantedDisk<'_>, path: &Path, bytes: u64, options: &DiskOptions) -> Result<Target, RestoreError> {
        let failed = |source| RestoreError::Target { path: path.to_owned(), source };
        let real = path.canonicalize().map_err(failed)?;
        // The kernel refuses a second exclusive user: mounts, swap, RAID and volume managers are such.
        let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(&real);
        let file = opened.map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => RestoreError::InUse { path: path.to_owned() },
            _ => failed(error),
        })?;
        let has = base_sys::device_bytes(&file).map_err(failed)?;
        if has < bytes {
            return Err(RestoreError::TooSmall { path: path.to_owned(), has, needs: bytes });
        }
        let told = Note {
            identity: identity(wanted, "device"),
            title: wanted.title.to_owned(),
            target: real.to_string_lossy().into_owned(),
        };
        let name = format!("{}.json", short(blake3::hash(real.as_os_str().as_bytes())));
        let note = options.state.as_ref().map(|state| state.join("restores").join(name));
        let before: Option<Note> = note.as_deref().and_then(note::read);
        let resumed = before.as_ref() == Some(&told);
        if let Some(before) = before.filter(|_| !resumed && !options.force) {
            return Err(RestoreError::Unfinished { path: path.to_owned(), of: before.title });
        }
        if !resumed && !options.force && !looks_empty(&file, has).map_err(failed)? {
            return Err(RestoreError::DeviceNotEmpty { path: path.to_owned() });
        }
        let kind = Kind::Device { note, told };
        Ok(Target { file, path: path.to_owned(), kind, resumed, behind: has - bytes })
    }

    fn image(
        wanted: &WantedDisk<'_>,
        path: &Path,
        format: Format,
        options: &DiskOptions,
    ) -> Result<Target, RestoreError> {
        let failed = |source| RestoreError::Target { path: path.to_owned(), source };
        let none = || failed(io::Error::new(io::ErrorKind::InvalidInput, "it has no name"));
        let name = path.file_name().ok_or_else(none)?;
        let format = match format {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        };
        let id = short(blake3::hash(identity(wanted, format).as_bytes()));
        let part = [b".", name.as_bytes(), b".amberfs-", id.as_bytes()].concat();
        let part = path.with_file_name(std::ffi::OsString::from_vec(part));
        let mut open = OpenOptions::new();
        open.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let existed = part.exists();
        if options.dry_run && !existed {
            // Nothing may be made: whether the directory can be written to is all that can be asked.
            let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let file = File::open(above).map_err(failed)?;
            let kind = Kind::File { part, force: options.force };
            return Ok(Target { file, path: path.to_owned(), kind, resumed: false, behind: 0 });
        }
        let file = open.create(!options.dry_run).open(&part).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RestoreError::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let resumed = existed && file.metadata().map_err(failed)?.len() > 0;
        let kind = Kind::File { part, force: options.force };
        Ok(Target { file, path: path.to_owned(), kind, resumed, behind: 0 })
    }

    /// What is written to.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether an earlier run has begun.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Whether it is a block device.
    pub(super) fn is_device(&self) -> bool {
        matches!(self.kind, Kind::Device { .. })
    }

    /// Bytes behind what is restored.
    pub(super) fn behind_bytes(&self) -> u64 {
        self.behind
    }

    /// Leaves word of what is being restored; from here on the target is not what it was.
    pub(super) fn begin(&mut self, bytes: u64) -> Result<(), RestoreError> {
        let failed = |source| RestoreError::Target { path: self.path.clone(), source };
        match &self.kind {
            Kind::Device { note: Some(note), told } => note::write(note, told).map_err(failed),
            Kind::Device { note: None, .. } => Ok(()),
            Kind::File { .. } => self.file.set_len(bytes).map_err(failed),
        }
    }

    /// Brings all that was written to the disk.
    pub(super) fn synchronise(&self) -> Result<(), RestoreError> {
        self.file.sync_all().map_err(|source| self.failed("synchronise", source))
    }

    /// Lets the kernel forget what was written, so that reading asks the disk.
    pub(super) fn forget(&self) {
        use std::os::fd::AsFd;
        sys::forget_content(self.file.as_fd());
    }

    /// Gives the file its name, or takes the note away: all is on disk.
    pub(super) fn complete(self) -> Result<(), RestoreError> {
        match &self.kind {
            Kind::Device { note, .. } => {
                base_sys::reread_partitions(&self.file);
                let removed = note.as_deref().map_or(Ok(()), note::remove);
                removed.map_err(|source| self.failed("remove the note of the restore to", source))
            }
            Kind::File { part, force } => {
                let renamed =
                    if *force { std::fs::rename(part, &self.path) } else { sys::rename_file_new(part, &self.path) };
                renamed.map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => RestoreError::Exists { path: self.path.clone() },
                    _ => self.failed("give its name to", error),
                })?;
                let above = self.path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let synced = File::open(above).and_then(|above| above.sync_all());
                synced.map_err(|source| self.failed("synchronise the directory of", source))
            }
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> RestoreError {
        RestoreError::Write { action, path: self.path.to_string_lossy().into_owned(), source }
    }
}

/// What tells this restore from all others.
fn identity(wanted: &WantedDisk<'_>, format: &str) -> String {
    format!("{format} {}", wanted.disk.identity())
}

fn short(hash: blake3::Hash) -> String {
    hex::encode(hash.as_bytes().get(..6).unwrap_or_default())
}

/// Whether the start and the end of a device are all zeros.
fn looks_empty(device: &File, bytes: u64) -> io::Result<bool> {
    let look = LOOK_BYTES.min(bytes);
    let mut buffer = vec![0; usize::try_from(look).unwrap_or_default()];
    for at in [0, bytes - look] {
        device.read_exact_at(&mut buffer, at)?;
        if buffer.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}
