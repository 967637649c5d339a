//! Notes in the state directory: what is unfinished where there is no room to say so.
//!
//! Crash behaviour: a note is there whole or not at all, and on disk before [`write()`] returns.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the largest note that is read.
const NOTE_BYTES_MAX: u64 = 64 << 10;

/// The note at `path`; none when there is none, or none that makes sense.
pub(super) fn read<N: DeserializeOwned>(path: &Path) -> Option<N> {
    let mut text = String::new();
    File::open(path).ok()?.take(NOTE_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Writes the note at `path`, over an older one.
///
/// # Errors
/// Those of the filesystem; the older note is still there then, or the new one.
pub(super) fn write(path: &Path, note: &impl Serialize) -> io::Result<()> {
    let above = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(above)?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(serde_json::to_string(note)?.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(above)?.sync_all()
}

/// Takes the note at `path` away, if there is one; it does not come back after a power failure.
///
/// # Errors
/// Those of the filesystem.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
    }
}
