//! The log of a mount in the background: what its processes say once nobody reads their standard error.
//!
//! Standard error becomes the file, so that everything gets there that is said at all, a panic's last words
//! included. Server and supervisor append to the same file.
//!
//! Bound: a file that has reached its bound becomes `NAME.old`, in place of the one before, so there are two at
//! most. Who still writes to the old one notices by its inode and follows. A panic's words are not counted
//! until the next message.
//!
//! Logs of jobs are the desk's (`job/page.rs`), and faults of readers stand in `.amberfs/errors`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::sys;
use crate::base::limits;

/// The file that this process's standard error is, once it is one.
static TAKEN: Mutex<Option<LogFile>> = Mutex::new(None);

/// A file for the words of a mount's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    path: PathBuf,
    bytes_max: u64,
}

impl LogFile {
    /// The log at `path`.
    pub fn at(path: impl Into<PathBuf>) -> LogFile {
        LogFile { path: path.into(), bytes_max: limits::MOUNT_LOG_BYTES_MAX }
    }

    /// The log of the mount at `place`, in the directory for state: named as `systemd-escape --path` would.
    pub fn of_mount(state: &Path, place: &Path) -> LogFile {
        let path = place.as_os_str().as_bytes();
        let trimmed = path.strip_prefix(b"/").unwrap_or(path);
        let escaped: Vec<u8> = trimmed
            .iter()
            .flat_map(|byte| match byte {
                b'/' => vec![b'-'],
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b':' | b'_' | b'.' => vec![*byte],
                other => format!("\\x{other:02x}").into_bytes(),
            })
            .collect();
        // The end of a long path tells more.
        let end = escaped.get(escaped.len().saturating_sub(200)..).unwrap_or_default();
        LogFile::at(state.join("mounts").join(format!("{}.log", String::from_utf8_lossy(end))))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it to append, and creates it and its directory for their owner alone.
    ///
    /// # Errors
    /// As open(2) and mkdir(2) have them.
    pub fn open(&self) -> io::Result<File> {
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)
    }

    /// Makes it the standard error of this process.
    pub(crate) fn take_over(&self) -> io::Result<()> {
        sys::replace_descriptor(self.open()?.as_fd(), libc::STDERR_FILENO)?;
        *TAKEN.lock() = Some(self.clone());
        Ok(())
    }

    /// The file to go on with when `file`, which was this log, has reached its bound.
    fn turned(&self, file: &File) -> io::Result<Option<File>> {
        let now = file.metadata()?;
        if now.len() < self.bytes_max {
            return Ok(None);
        }
        // Another process of the mount may have put it aside.
        let named = self.path.metadata().ok();
        if named.is_some_and(|named| (named.dev(), named.ino()) == (now.dev(), now.ino())) {
            let mut old = self.path.clone().into_os_string();
            old.push(".old");
            std::fs::rename(&self.path, old)?;
        }
        self.open().map(Some)
    }
}

/// To be called after each message to standard error: keeps the log within its bound, if that is where it went.
pub fn keep_log_bounded() {
    let taken = TAKEN.lock();
    let Some(log) = &*taken else { return };
    let turn = || {
        let file = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        match log.turned(&file)? {
            Some(next) => sys::replace_descriptor(next.as_fd(), libc::STDERR_FILENO),
            None => Ok(()),
        }
    };
    // Where it cannot be told that the log cannot be kept short, it grows.
    let _nobody_to_tell: io::Result<()> = turn();
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_mounts_log_is_named_after_its_place() {
        let name = |place: &str| LogFile::of_mount(Path::new("/state"), Path::new(place)).path.display().to_string();
        assert_eq!(name("/mnt/my-backup/ü"), "/state/mounts/mnt-my\\x2dbackup-\\xc3\\xbc.log");
        assert!(name(&"/x".repeat(3000)).len() < 230);
    }

    #[test]
    fn all_who_write_go_on_in_a_new_file_when_one_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile { bytes_max: 100, ..LogFile::at(dir.path().join("private/m.log")) };
        let mut writers = [log.open().unwrap(), log.open().unwrap()];
        for n in 0..50 {
            for (at, writer) in writers.iter_mut().enumerate() {
                writeln!(writer, "writer {at} says {n}").unwrap();
                if let Some(next) = log.turned(writer).unwrap() {
                    *writer = next;
                }
            }
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let both = read("private/m.log.old") + &read("private/m.log");
        assert!(both.len() < 300, "{both}");
        assert!(both.contains("writer 0 says 49\nwriter 1 says 49\n"), "{both}");
        assert_eq!(std::fs::read_dir(dir.path().join("private")).unwrap().count(), 2);
        let mode = dir.path().join("private/m.log").metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
