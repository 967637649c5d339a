//! The repository's log: which sources there are, and where each is captured from.

use std::sync::Arc;

use super::audit::{self, Audit};
use super::error::ChainError;
use super::log::{Log, Survey};
use super::source_log::SourceLog;
use super::state::{Refusal, RepoGoal, RepoState, SourceGoal, Void};
use crate::base::Env;
use crate::format::log::{Origin, SourceKind, SourceRecord};
use crate::format::object::{LogId, Object, source_prefix};
use crate::format::{Realm, SourceId};
use crate::store::Store;

/// The log of a repository, cheap to clone.
#[derive(Debug, Clone)]
pub struct RepoLog {
    log: Arc<Log<RepoState>>,
}

impl RepoLog {
    /// The log of the repository `realm`; makes no request.
    pub fn open(store: Store, env: Env, realm: impl Into<Realm>) -> RepoLog {
        RepoLog::surveyed(store, env, realm, None)
    }

    /// The same, with what was asked for before `realm` was known.
    pub fn surveyed(store: Store, env: Env, realm: impl Into<Realm>, survey: Option<Survey>) -> RepoLog {
        RepoLog { log: Arc::new(Log::new(store, env, realm.into(), LogId::Repo, None).surveyed(survey)) }
    }

    /// What is known of the log; the first call reads it.
    ///
    /// # Errors
    /// [`ChainError::Store`]. Damage is no error to a reader: see [`RepoState::read`].
    pub fn load(&self) -> Result<Arc<RepoState>, ChainError> {
        self.log.load()
    }

    /// What is known, with all that has been appended since; one request when that is nothing.
    ///
    /// # Errors
    /// [`ChainError::Store`].
    pub fn refresh(&self) -> Result<Arc<RepoState>, ChainError> {
        self.log.refresh()
    }

    /// The sources as known, in the order in which they were added.
    ///
    /// # Errors
    /// [`ChainError::Store`].
    pub fn sources(&self) -> Result<Vec<SourceRecord>, ChainError> {
        Ok(self.load()?.sources().cloned().collect())
    }

    /// The source `name` that is captured from `origin`; added if there is none of that name.
    ///
    /// # Errors
    /// As [`RepoLog::claim_source`].
    pub fn add_source(&self, name: &str, kind: SourceKind, origin: Origin) -> Result<SourceRecord, ChainError> {
        self.claim_source(name, kind, origin, false)
    }

    /// The source `name`, captured from `origin` henceforth: the existing one, a new one, or with
    /// `adopt` the one that was captured from elsewhere.
    ///
    /// Of two hosts that race for one name, one gets it.
    ///
    /// # Errors
    /// [`ChainError::Refused`] when the name belongs to another origin, naming both, to another kind,
    /// or breaks its rule; the store; a damaged log.
    pub fn claim_source(
        &self,
        name: &str,
        kind: SourceKind,
        origin: Origin,
        adopt: bool,
    ) -> Result<SourceRecord, ChainError> {
        // Not what this process happens to know: a source may have been removed since, and another added and lost. Whoever
        // knows nothing yet pays no more for that.
        if self.refresh()?.by_name(name).is_none() {
            self.expect_nothing_of_the_next()?;
        }
        let goal = RepoGoal::Claim { name: name.to_owned(), kind, origin, adopt };
        let (state, _) = self.log.append(Some(goal))?;
        // The state may be newer than our entry: somebody may have removed the source since.
        state.by_name(name).cloned().ok_or_else(|| {
            let gone = state.records().iter().rev().find(|record| record.name == name).map_or(SourceId(0), |r| r.id);
            ChainError::Refused { log: LogId::Repo, refusal: Refusal::Void(Void::NoSource(gone)) }
        })
    }

    /// A source's number is that of its entry. If the log's last entries were lost, and with them all word of a source, the
    /// next one must not get that source's number, and its points.
    fn expect_nothing_of_the_next(&self) -> Result<(), ChainError> {
        loop {
            let next = self.log.load()?.read().next();
            let prefix = source_prefix(SourceId(next.0));
            let found = self.log.store().list(&prefix, None, Some(1)).map_err(|error| self.log.failed(error))?;
            let Some(found) = found.first() else { return Ok(()) };
            // Whoever makes an object of a source has made the source's entry before.
            if self.refresh()?.read().next() == next {
                return Err(ChainError::Damaged {
                    log: LogId::Repo,
                    object: Object::Entry(LogId::Repo, next).name(),
                    fault: format!("it is missing: {} belongs to the source that it added", found.name),
                });
            }
        }
    }

    /// Ends the source: seals its log, then frees its name. Its objects stay until they are collected.
    ///
    /// Seal first: a crash in between leaves a source that takes no captures and can be removed again.
    ///
    /// # Errors
    /// [`ChainError`]: no such source, the store, a damaged log.
    pub fn remove_source(&self, source: SourceId) -> Result<(), ChainError> {
        let known = self.refresh()?;
        if known.by_id(source).is_none() {
            return Err(ChainError::Refused { log: LogId::Repo, refusal: Refusal::Void(Void::NoSource(source)) });
        }
        self.source_log(source).append(SourceGoal::Seal)?;
        self.log.append(Some(RepoGoal::Remove(source)))?;
        Ok(())
    }

    /// The log of one of the sources; makes no request. It sees to it that this log is read again from time to time.
    pub fn source_log(&self, source: SourceId) -> SourceLog {
        SourceLog::below(&self.log, source)
    }

    /// Makes `goal` true: revokes a key, or goes on to a generation of keys.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn append(&self, goal: RepoGoal) -> Result<(), ChainError> {
        self.log.append(Some(goal)).map(drop)
    }

    /// Reads every entry and every checkpoint, also those that no reader needs, and says what is wrong.
    ///
    /// # Errors
    /// [`ChainError::Store`] when the store does not answer.
    pub fn audit(&self) -> Result<Audit<RepoState>, ChainError> {
        audit::audit(&self.log)
    }
}
