//! The heads of logs that this host has seen, so that nobody shows it an older repository, or another one.
//!
//! A store cannot alter an entry unnoticed, but it can leave out the newest ones, or show one line of entries to one host and
//! another line to another. Whoever has seen an entry recognises that: the log ends before it
//! ([`Fault::RolledBack`]), or it is another one ([`Fault::Forked`]), or cannot be read although the log goes on
//! ([`Fault::Withheld`]). Readers are told, writers stop.
//!
//! One small file for each log in the machine's state directory, written beside the old one and renamed. Losing it
//! loses the memory and nothing else; a repository that was put back on purpose is accepted with
//! `amberfs repo accept-history`, which removes the files.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::state::{Damage, Fault};
use crate::base::hex;
use crate::format::log::EntryHash;
use crate::format::object::LogId;
use crate::format::{LogNumber, RepoId};

/// The newest entry that this host has seen of one log.
#[derive(Debug)]
pub(super) struct Head {
    file: PathBuf,
    seen: Mutex<Option<(LogNumber, EntryHash)>>,
    /// What this process was told of last.
    told: Mutex<Option<Damage>>,
}

/// The directory with what is remembered of a repository.
fn place(directory: &Path, repo: RepoId) -> PathBuf {
    directory.join(repo.to_string())
}

/// Forgets all that was remembered of a repository: what it shows next is taken for what it is.
///
/// # Errors
/// When the files cannot be removed.
pub fn forget(directory: &Path, repo: RepoId) -> io::Result<()> {
    match std::fs::remove_dir_all(place(directory, repo)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Head {
    /// What is remembered of `log`, below `directory`.
    pub(super) fn of(directory: &Path, repo: RepoId, log: LogId) -> Head {
        let name = match log {
            LogId::Repo => "repository".to_owned(),
            LogId::Source(source) => source.to_string(),
        };
        let file = place(directory, repo).join(name);
        let seen = Mutex::new(std::fs::read_to_string(&file).ok().and_then(|text| parse(&text)));
        Head { file, seen, told: Mutex::default() }
    }

    /// The newest entry that was seen, unless it is below what the reader knows by now.
    pub(super) fn seen(&self) -> Option<(LogNumber, EntryHash)> {
        *self.seen.lock()
    }

    /// What is wrong with a log that ends in `tip`, `there` being the hash of the entry that was seen, or why it cannot be had.
    pub(super) fn judge(&self, tip: LogNumber, there: Result<EntryHash, String>) -> Option<Damage> {
        let (number, hash) = self.seen()?;
        let fault = match there {
            _ if tip < number => Fault::RolledBack(number),
            Ok(there) if there != hash => Fault::Forked,
            Ok(_) => return None,
            // Entries are never collected.
            Err(why) => Fault::Withheld(why),
        };
        Some(Damage { number, fault })
    }

    /// Whether `damage` is another than this process was told of last.
    pub(super) fn is_news(&self, damage: &Damage) -> bool {
        let mut told = self.told.lock();
        let news = told.as_ref() != Some(damage);
        *told = Some(damage.clone());
        news
    }

    /// Remembers that entry `number` was seen, if it is newer than what was.
    pub(super) fn remember(&self, number: LogNumber, hash: EntryHash) {
        let mut seen = self.seen.lock();
        // An empty log has no entry to remember.
        if number.0 == 0 || seen.is_some_and(|(known, _)| known >= number) {
            return;
        }
        *seen = Some((number, hash));
        // Another process may have seen more meanwhile.
        let kept = std::fs::read_to_string(&self.file).ok().and_then(|text| parse(&text));
        if kept.is_some_and(|(known, _)| known >= number) {
            return;
        }
        let write = || -> io::Result<()> {
            if let Some(directory) = self.file.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            let beside = self.file.with_extension(std::process::id().to_string());
            std::fs::write(&beside, format!("{number} {}\n", hex::encode(&hash.0)))?;
            std::fs::rename(&beside, &self.file)
        };
        if let Err(error) = write() {
            tracing::debug!(file = ?self.file, %error, "the newest entry that was seen could not be remembered");
        }
    }
}

fn parse(text: &str) -> Option<(LogNumber, EntryHash)> {
    let (number, hash) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((LogNumber(number.parse().ok()?), EntryHash(hex::decode(hash)?))).filter(|(number, _)| number.0 > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPO: RepoId = RepoId([3; 16]);

    #[test]
    fn what_was_seen_is_remembered_and_held_against_what_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let head = || Head::of(dir.path(), REPO, LogId::Repo);
        let hash = |n: u8| EntryHash([n; 16]);
        assert_eq!(head().judge(LogNumber(0), Ok(hash(0))), None);
        head().remember(LogNumber(0), hash(0));
        assert_eq!(head().seen(), None, "an empty log has no entry");
        head().remember(LogNumber(5), hash(5));
        head().remember(LogNumber(4), hash(4));
        assert_eq!(head().seen(), Some((LogNumber(5), hash(5))));
        let fault = |tip, there| head().judge(LogNumber(tip), there).map(|damage| damage.fault);
        assert_eq!(fault(5, Ok(hash(5))), None);
        assert_eq!(fault(9, Ok(hash(5))), None);
        assert_eq!(fault(4, Err("gone".into())), Some(Fault::RolledBack(LogNumber(5))));
        assert_eq!(fault(5, Ok(hash(6))), Some(Fault::Forked));
        assert_eq!(fault(9, Ok(hash(6))), Some(Fault::Forked));
        assert_eq!(fault(9, Err("gone".into())), Some(Fault::Withheld("gone".into())));
        // A torn file is no memory.
        std::fs::write(dir.path().join(REPO.to_string()).join("repository"), "5 05").unwrap();
        assert_eq!(head().seen(), None);
        head().remember(LogNumber(6), hash(6));
        forget(dir.path(), REPO).unwrap();
        forget(dir.path(), REPO).unwrap();
        assert_eq!(head().seen(), None);
    }
}
