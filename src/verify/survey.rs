//! What there is in the store, beside what ought to be: packs of no point, and objects of no kind.
//!
//! A listing is a hint and proves nothing missing: whatever a point needs is asked for by its name.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::findings::Findings;
use super::logs::Logs;
use super::report::{Harm, Leftovers, Touch};
use super::{Options, Progress, VerifyError};
use crate::format::object::{LogId, Object};
use crate::format::{LogNumber, SessionId, SourceId};
use crate::repo::{Repo, RepoError};
use crate::store::Listed;

/// What an object is to the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    Marker,
    Slot,
    Lease,
    /// An entry or a checkpoint of a log that is known.
    Log,
    /// A pack of a point.
    Owned,
    /// A pack of no point.
    Orphan,
    Foreign,
}

/// What the store lists.
pub(super) struct Survey {
    listed: Vec<Listed>,
    /// What was listed, and what the logs make of it.
    pub(super) accounts: Vec<(Listed, Account)>,
    owned_bytes: u64,
    pub(super) orphans: Leftovers,
    pub(super) unknown: Leftovers,
}

impl Survey {
    /// Lists everything, unless single sources are verified.
    pub(super) fn take(repo: &Arc<Repo>, options: &Options, progress: &Progress) -> Result<Survey, VerifyError> {
        progress.check()?;
        progress.at(|| "the list of objects".to_owned());
        let listed = match options.sources {
            Some(_) => Vec::new(),
            None => repo.store().list("", None, None).map_err(RepoError::store("list the objects"))?,
        };
        Ok(Survey {
            listed,
            accounts: Vec::new(),
            owned_bytes: 0,
            orphans: Leftovers::default(),
            unknown: Leftovers::default(),
        })
    }

    /// Tells what is listed apart into what the logs account for and what they do not.
    ///
    /// A source's objects are written after the entry that adds it. Where that entry is the last and lost, they are all
    /// that tells of it.
    pub(super) fn compare(&mut self, logs: &Logs, findings: &Findings<'_>) {
        let known: HashSet<SourceId> = logs.all_sources.iter().copied().collect();
        let mut sessions: HashMap<(SourceId, SessionId), u32> = HashMap::new();
        for subject in &logs.subjects {
            for point in subject.state.committed() {
                sessions.insert((subject.record.id, point.commit.session), point.commit.packs);
            }
        }
        let mut lost = BTreeSet::new();
        for object in std::mem::take(&mut self.listed) {
            let of_known = |log: LogId| match log {
                LogId::Repo => true,
                LogId::Source(id) => known.contains(&id),
            };
            let account = match Object::parse(&object.name) {
                Some(Object::Marker) => Account::Marker,
                Some(Object::Slot(..) | Object::Removal(..)) => Account::Slot,
                Some(Object::Lease(..) | Object::SingleWriter) => Account::Lease,
                Some(Object::Entry(log, _) | Object::Checkpoint(log, _)) if of_known(log) => Account::Log,
                Some(Object::Pack(source, pack)) if known.contains(&source) => {
                    match sessions.get(&(source, pack.session)) {
                        Some(packs) if pack.ordinal.0 < *packs => {
                            self.owned_bytes += object.bytes;
                            Account::Owned
                        }
                        Some(_) | None => {
                            self.orphans.add(object.name.clone(), object.bytes);
                            Account::Orphan
                        }
                    }
                }
                Some(
                    Object::Entry(LogId::Source(source), _)
                    | Object::Checkpoint(LogId::Source(source), _)
                    | Object::Pack(source, _),
                ) if source.0 > logs.last.0 => {
                    let entry = Object::Entry(LogId::Repo, LogNumber(source.0)).name();
                    let what = "it does not exist, though objects of the source that it added do";
                    findings.note(&entry, Harm::Missing, None, what);
                    lost.insert(source);
                    Account::Foreign
                }
                Some(Object::Entry(..) | Object::Checkpoint(..) | Object::Pack(..) | Object::Probe(_)) | None => {
                    self.unknown.add(object.name.clone(), object.bytes);
                    Account::Foreign
                }
            };
            self.accounts.push((object, account));
        }
        for source in lost {
            let entry = Object::Entry(LogId::Repo, LogNumber(source.0)).name();
            let also = vec!["a source with all of its points: its objects are there, its name is lost".to_owned()];
            findings.touch(&entry, vec![Touch { also, ..Touch::default() }]);
        }
    }

    /// Bytes of the packs that points own, as far as listed.
    pub(super) fn pack_bytes(&self) -> u64 {
        self.owned_bytes
    }
}
