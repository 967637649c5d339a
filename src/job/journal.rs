//! The journal: every job that was accepted, on disk before it is acknowledged.
//!
//! `STATE_DIR/<repository id>/` holds `journal`, its `lock`, and two folders of locks, `desks/` and
//! `running/` (see `desk.rs` and `child.rs`). All mounts of one repository that share a state
//! directory share one journal: whoever appends holds the lock, has read all that stands before,
//! and so sees every job of every other mount. A lock per append is enough: entries are small.
//!
//! A line is `<16 hex digits of BLAKE3 over the JSON> <JSON>`.
//!
//! Invariants: only the holder of the lock changes the file; an entry counts when its line is whole
//! and its checksum right; a batch is one line, so it counts whole or not at all.
//!
//! Crash behaviour: a crash while appending leaves a line without its end; the next writer cuts it
//! off. An append that fails (no space) is cut off at once and the caller is told that nothing was
//! accepted. A line damaged later is skipped and counted: the journal is history and work in hand,
//! never the only witness of a point. A rewrite goes to `journal.new` and is renamed; another mount
//! notices by the inode.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::control::JobId;
use super::error::JobError;
use super::record::{Entry, Record, Table, VERSION};
use super::state::State;
use crate::base::{hex, limits};
use crate::format::ids::RepoId;

const CHECKSUM_DIGITS: usize = 16;
/// How often and for how long a held lock is tried again; another mount holds it for one append.
const LOCK_TRIES: u32 = 400;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Where a repository's jobs are kept on this machine.
pub(super) fn directory(state_dir: &Path, repo: RepoId) -> PathBuf {
    state_dir.join(repo.to_string())
}

/// The journal of one repository, with what it amounts to.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    lock: File,
    file: File,
    inode: u64,
    /// Where the next unread line starts.
    read_to: u64,
    /// The bytes at which a rewrite pays.
    rewrite_at: u64,
    /// An append that failed and could not be cut off ends here.
    cut_at: Option<u64>,
    /// Lines that were skipped because they are damaged.
    damaged: u64,
    table: Table,
}

impl Journal {
    /// Opens or begins the journal in `dir`, which is created with everything in it private.
    pub(super) fn open(dir: &Path) -> Result<Journal, JobError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(JobError::io("create the state directory", dir))?;
        let path = dir.join("journal");
        let lock_path = dir.join("lock");
        let lock = open_private(&lock_path).map_err(JobError::io("open", &lock_path))?;
        let file = open_private(&path).map_err(JobError::io("open", &path))?;
        let mut journal = Journal {
            path,
            lock,
            file,
            inode: 0,
            read_to: 0,
            rewrite_at: limits::JOURNAL_BYTES_MIN,
            cut_at: None,
            damaged: 0,
            table: Table::default(),
        };
        journal.locked()?;
        Ok(journal)
    }

    /// What the journal amounts to, as far as it has been read.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Lines that were skipped because they are damaged.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Makes the folders of locks, clears those of desks that are gone, and takes one for `desk`, to
    /// be held for as long as it lives.
    pub(super) fn attend(&mut self, desk: &str) -> Result<File, JobError> {
        let locked = self.locked()?;
        let dir = locked.journal.path.with_file_name("desks");
        for dir in [&dir, &dir.with_file_name("running")] {
            let making = JobError::io("create the state directory", dir);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(making)?;
        }
        let attending = || JobError::io("attend in", &dir);
        for entry in std::fs::read_dir(&dir).map_err(attending())? {
            let path = entry.map_err(attending())?.path();
            if !is_held(&path) {
                std::fs::remove_file(&path).map_err(attending())?;
            }
        }
        let presence = open_private(&dir.join(desk)).map_err(attending())?;
        // Others ask for a moment only whether it is held, so this never waits for long.
        presence.lock().map_err(attending())?;
        Ok(presence)
    }

    /// Reads what others have appended, without the lock: whole lines only. True when there was any.
    pub(super) fn refresh(&mut self) -> Result<bool, JobError> {
        let reopened = self.reopen_if_replaced()?;
        Ok(self.read()? || reopened)
    }

    /// Holds the journal: all that stands in it has been read, and nobody else appends.
    pub(super) fn locked(&mut self) -> Result<Locked<'_>, JobError> {
        let mut tries = 0;
        loop {
            match self.lock.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(JobError::Held { path: self.path.with_file_name("lock") });
                }
                Err(std::fs::TryLockError::Error(error)) => {
                    return Err(JobError::io("lock", &self.path.with_file_name("lock"))(error));
                }
            }
        }
        // From here on the guard lets go of the lock, whatever happens.
        let locked = Locked { journal: self };
        let journal = &mut *locked.journal;
        journal.reopen_if_replaced()?;
        if let Some(end) = journal.cut_at {
            journal.cut(end)?;
        }
        journal.read()?;
        let length = journal.file.metadata().map_err(JobError::io("examine", &journal.path))?.len();
        if length > journal.read_to {
            tracing::warn!(path = %journal.path.display(), bytes = length - journal.read_to, "the journal's last line was torn by a crash; it was never acknowledged and is cut off");
            journal.cut(journal.read_to)?;
        }
        if journal.read_to == 0 {
            journal.append(&[Entry::Journal { version: VERSION }], true)?;
            journal.sync_directory()?;
        }
        Ok(locked)
    }

    fn cut(&mut self, end: u64) -> Result<(), JobError> {
        self.cut_at = Some(end);
        self.file.set_len(end).map_err(JobError::io("cut a torn line off", &self.path))?;
        self.file.sync_data().map_err(JobError::io("cut a torn line off", &self.path))?;
        self.cut_at = None;
        Ok(())
    }

    /// Makes the file's name durable.
    fn sync_directory(&self) -> Result<(), JobError> {
        let Some(dir) = self.path.parent() else { return Ok(()) };
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(JobError::io("sync", dir))
    }

    fn reopen_if_replaced(&mut self) -> Result<bool, JobError> {
        let now = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata.ino(),
            // Somebody removed it under us: what we know is all there is; a new one is begun.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(JobError::io("examine", &self.path)(error)),
        };
        if now == self.inode && now != 0 {
            return Ok(false);
        }
        let file = open_private(&self.path).map_err(JobError::io("open", &self.path))?;
        let opened = file.metadata().map_err(JobError::io("examine", &self.path))?;
        self.file = file;
        self.inode = opened.ino();
        self.read_to = 0;
        self.cut_at = None;
        self.damaged = 0;
        self.rewrite_at = limits::JOURNAL_BYTES_MIN.max(opened.len().saturating_mul(2));
        self.table = Table::default();
        Ok(true)
    }

    /// Reads whole lines from where the last reading ended.
    fn read(&mut self) -> Result<bool, JobError> {
        let reading = || JobError::io("read", &self.path);
        let length = self.file.metadata().map_err(reading())?.len();
        let shrunk = length < self.read_to;
        if shrunk {
            // A reader without the lock saw an entry that its writer then had to take back.
            self.table = Table::default();
            self.read_to = 0;
        }
        if length == self.read_to {
            return Ok(shrunk);
        }
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(self.read_to)).map_err(reading())?;
        (&self.file).take(length - self.read_to).read_to_end(&mut bytes).map_err(reading())?;
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(shrunk) };
        let whole = bytes.get(..end).unwrap_or_default();
        for (number, line) in whole.split(|byte| *byte == b'\n').enumerate() {
            let first = self.read_to == 0 && number == 0;
            match decode(line) {
                Some(Entry::Journal { version }) if version > VERSION => {
                    return Err(JobError::Newer { path: self.path.clone(), found: version, newest: VERSION });
                }
                Some(entry) => {
                    self.table.apply(&entry);
                }
                None if first => return Err(JobError::Foreign { path: self.path.clone() }),
                None => {
                    tracing::warn!(path = %self.path.display(), "a line of the journal is damaged; it is skipped");
                    self.damaged += 1;
                }
            }
        }
        self.read_to += end as u64 + 1;
        Ok(true)
    }

    /// Appends entries in one write; with `durable` they are on disk when this returns.
    fn append(&mut self, entries: &[Entry], durable: bool) -> Result<(), JobError> {
        let mut bytes = Vec::new();
        for entry in entries {
            encode(entry, &mut bytes);
        }
        let end = self.read_to;
        let written = self
            .file
            .seek(SeekFrom::Start(end))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| if durable { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            if let Err(cut) = self.cut(end) {
                tracing::warn!(error = %cut, "a refused entry could not be taken back yet; the next writer does it");
            }
            return Err(JobError::io("write", &self.path)(error));
        }
        self.read_to = end + bytes.len() as u64;
        for entry in entries {
            self.table.apply(entry);
        }
        Ok(())
    }
}

/// The journal, held.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    journal: &'a mut Journal,
}

impl Locked<'_> {
    pub(super) fn table(&self) -> &Table {
        &self.journal.table
    }

    /// Appends an entry and waits until it is on disk. On failure it does not count.
    pub(super) fn append(&mut self, entry: Entry) -> Result<(), JobError> {
        self.journal.append(&[entry], true)
    }

    /// Appends an entry that may be lost in a crash of the machine.
    pub(super) fn note(&mut self, entry: Entry) -> Result<(), JobError> {
        self.journal.append(&[entry], false)
    }

    /// Rewrites the journal without what is past, if that pays.
    pub(super) fn tidy(&mut self) -> Result<(), JobError> {
        if self.journal.read_to < self.journal.rewrite_at {
            return Ok(());
        }
        let path = self.journal.path.with_file_name("journal.new");
        let writing = || JobError::io("write", &path);
        let mut bytes = Vec::new();
        encode(&Entry::Journal { version: VERSION }, &mut bytes);
        for record in self.journal.table.all() {
            encode(&Entry::Job { record: Box::new(record.clone()) }, &mut bytes);
        }
        let mut file = open_private(&path).map_err(writing())?;
        file.set_len(0).map_err(writing())?;
        file.write_all(&bytes).map_err(writing())?;
        file.sync_all().map_err(writing())?;
        std::fs::rename(&path, &self.journal.path).map_err(JobError::io("rename", &path))?;
        self.journal.sync_directory()?;
        self.journal.reopen_if_replaced()?;
        self.journal.read()?;
        Ok(())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.journal.lock.unlock() {
            tracing::warn!(path = %self.journal.path.display(), %error, "cannot unlock the journal");
        }
    }
}

pub(super) fn open_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn encode(entry: &Entry, bytes: &mut Vec<u8>) {
    let json = serde_json::to_vec(entry).expect("an entry has no map with keys other than text");
    bytes.extend_from_slice(checksum(&json).as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
}

fn decode(line: &[u8]) -> Option<Entry> {
    let (sum, rest) = line.split_at_checked(CHECKSUM_DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    if sum != checksum(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn checksum(json: &[u8]) -> String {
    let mut digits = hex::encode(blake3::hash(json).as_bytes());
    digits.truncate(CHECKSUM_DIGITS);
    digits
}

/// All jobs of a repository that this machine knows, oldest first, without a mount and without
/// changing anything.
///
/// # Errors
/// [`JobError`] when there is a journal and it cannot be read.
pub fn list(state_dir: &Path, repo: RepoId) -> Result<Vec<Record>, JobError> {
    let path = directory(state_dir, repo).join("journal");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(JobError::io("read", &path)(error)),
    };
    let mut table = Table::default();
    for entry in bytes.split(|byte| *byte == b'\n').filter_map(decode) {
        if let Entry::Journal { version } = entry
            && version > VERSION
        {
            return Err(JobError::Newer { path, found: version, newest: VERSION });
        }
        table.apply(&entry);
    }
    Ok(table.all().cloned().collect())
}

/// Whether nobody knows what became of a job of [`list`]: its process has ended, and no mount has judged it yet.
pub fn is_unjudged(state_dir: &Path, repo: RepoId, record: &Record) -> bool {
    let dir = directory(state_dir, repo);
    let begun = !record.state.is_end() && record.state != State::Queued;
    begun && !is_running(&dir, &record.job) && !is_attended(&dir, &record.desk)
}

/// Whether some mount looks after its jobs under this name; see `desk.rs`.
pub(super) fn is_attended(dir: &Path, desk: &str) -> bool {
    is_held(&dir.join("desks").join(desk))
}

/// Whether the process of a job is alive, its desk or not; see `child.rs`.
pub(super) fn is_running(dir: &Path, job: &JobId) -> bool {
    is_held(&dir.join("running").join(&job.0))
}

/// Whether a process holds the lock on this file. A file that cannot be asked counts as held, so
/// that a passing failure never makes a second process start.
fn is_held(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests;
