//! The note of a rollback under way, in the state directory.
//!
//! It stands from before the first byte is written until after the last one is on disk and the log has
//! the new head. A rollback of the same source to the same point that finds it continues, as long as the
//! log has neither another point nor another head than when writing began: what differs is found out anew,
//! and the safety point is the one it names. While it stands, what uses the source is not started.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::error::RestoreError;
use super::super::note;
use crate::format::{RepoId, SourceId};

/// A rollback that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// The words that it was asked for with. They keep their meaning until it is through, though its own safety
    /// point makes `SOURCE~1` another one.
    pub asked: String,
    /// The selector that means the point for ever.
    pub title: String,
    /// The number of the point.
    pub point: u64,
    /// The selector of the safety point, if it is to stay.
    pub safety: Option<String>,
    /// Selectors of the safety points of rollbacks that had not ended when this one began, oldest first.
    pub earlier: Vec<String>,
    /// The number of the safety point, also of one that goes when all is done. None if there is none, and in the note
    /// of a build that did not write it: another one is captured then before it goes on.
    #[serde(default)]
    pub captured: Option<u64>,
    /// The number of the newest point when writing began, whosever that is.
    pub newest: u64,
    /// The number of the head when writing began.
    pub head: u64,
    /// Where the source is.
    pub place: PathBuf,
}

/// The right to roll back a source, and the place of the note.
#[derive(Debug)]
pub(super) struct Desk {
    path: PathBuf,
    lock: File,
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Closing alone does not release it while a child that is just being started has a copy of the descriptor.
        drop(self.lock.unlock());
    }
}

fn place(state: &Path, repository: RepoId, source: SourceId) -> PathBuf {
    state.join("rollbacks").join(format!("{repository}-{source}.json"))
}

/// The rollback of a source that has begun on this machine and not ended.
pub fn unfinished(state: &Path, repository: RepoId, source: SourceId) -> Option<Unfinished> {
    note::read(&place(state, repository, source))
}

impl Desk {
    /// Takes it.
    ///
    /// # Errors
    /// [`RestoreError::Rolling`] when another process has it.
    pub(super) fn take(state: &Path, repository: RepoId, source: SourceId, of: &Path) -> Result<Desk, RestoreError> {
        let path = place(state, repository, source);
        let failed = |source| RestoreError::Write {
            action: "keep a note of the rollback in",
            path: path.to_string_lossy().into_owned(),
            source,
        };
        std::fs::create_dir_all(path.parent().unwrap_or(state)).map_err(failed)?;
        let lock = path.with_extension("lock");
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Desk { path, lock }),
            Err(TryLockError::WouldBlock) => Err(RestoreError::Rolling { path: of.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// What has begun and not ended.
    pub(super) fn read(&self) -> Option<Unfinished> {
        note::read(&self.path)
    }

    /// From here on the source is not what it was.
    pub(super) fn write(&self, unfinished: &Unfinished) -> Result<(), RestoreError> {
        note::write(&self.path, unfinished).map_err(|error| self.failed("write", error))
    }

    /// The source is as it must be.
    pub(super) fn clear(&self) -> Result<(), RestoreError> {
        note::remove(&self.path).map_err(|error| self.failed("remove", error))
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> RestoreError {
        RestoreError::Write { action, path: self.path.to_string_lossy().into_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::Unfinished;

    #[test]
    fn a_note_that_does_not_say_what_was_captured_is_read() {
        let text = r#"{"asked":"vm~1","title":"vm#3","point":3,"safety":"vm#7","earlier":[],"newest":7,"head":7,
            "place":"/dev/vm"}"#;
        let note: Unfinished = serde_json::from_str(text).unwrap();
        assert_eq!((note.captured, note.newest, note.safety.as_deref()), (None, 7, Some("vm#7")));
    }
}
