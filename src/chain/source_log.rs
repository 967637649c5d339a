//! The log of one source: begin a session, open a chain, commit a point; fence and seal.

use std::sync::Arc;

use super::error::ChainError;
use super::log::{Ended, Log};
use super::point::Point;
use super::state::{LogState, Refusal, RepoState, SourceGoal, SourceState, Void};
use super::{audit, audit::Audit};
use crate::base::Env;
use crate::format::log::{Commit, SourceBody};
use crate::format::object::LogId;
use crate::format::{ChainId, LogNumber, Nonce, Realm, SessionId, SourceId};
use crate::store::Store;

/// The log of a source, cheap to clone; see `chain::protocol` for what it promises.
#[derive(Debug, Clone)]
pub struct SourceLog {
    log: Arc<Log<SourceState>>,
}

impl SourceLog {
    /// The log of `source` in the repository `realm`; makes no request. Of what the repository's log pins it knows what the
    /// keys have been told: whoever keeps it for long takes [`super::RepoLog::source_log`].
    pub fn open(store: Store, env: Env, realm: impl Into<Realm>, source: SourceId) -> SourceLog {
        SourceLog { log: Arc::new(Log::new(store, env, realm.into(), LogId::Source(source), None)) }
    }

    /// The log of `source`, which the repository's log `above` pins.
    pub(super) fn below(above: &Arc<Log<RepoState>>, source: SourceId) -> SourceLog {
        let (store, env, realm) = (above.store().clone(), above.env().clone(), above.realm().clone());
        SourceLog { log: Arc::new(Log::new(store, env, realm, LogId::Source(source), Some(Arc::clone(above)))) }
    }

    /// What is known of the log; the first call reads it.
    ///
    /// # Errors
    /// [`ChainError::Store`]. Damage is no error to a reader: see [`SourceState::read`].
    pub fn load(&self) -> Result<Arc<SourceState>, ChainError> {
        self.log.load()
    }

    /// What is known, with all that has been appended since; one request when that is nothing. Of an encrypted repository's,
    /// one more when the repository's log was not read for [`crate::base::limits::PINS_AGE`].
    ///
    /// # Errors
    /// [`ChainError::Store`].
    pub fn refresh(&self) -> Result<Arc<SourceState>, ChainError> {
        self.log.refresh()
    }

    /// Writes a checkpoint if this process, whose key is believed, has read many entries that none covers.
    pub fn sum_up(&self) {
        self.log.sum_up();
    }

    /// Whether [`SourceLog::sum_up`] would write one now; makes no request.
    pub fn is_long(&self) -> bool {
        self.log.is_long()
    }

    /// A new session, based on the newest entry that exists now.
    ///
    /// # Errors
    /// [`ChainError`]: the store, a damaged log, a sealed one.
    pub fn begin(&self) -> Result<SessionId, ChainError> {
        let (state, _) = self.log.append(None)?;
        if state.is_sealed() {
            return Err(ChainError::Refused { log: self.log.id(), refusal: Refusal::Void(Void::Sealed) });
        }
        Ok(SessionId { base: state.tip().number, random: Nonce(self.log.env().random()) })
    }

    /// A new chain for the session to write its full point to.
    ///
    /// # Errors
    /// [`ChainError`]: the store, a damaged log, a fenced session.
    pub fn open_chain(&self, session: &SessionId) -> Result<ChainId, ChainError> {
        match self.log.append(Some(SourceGoal::OpenChain(*session)))? {
            (_, Ended::Appended(entry)) => match entry.body {
                SourceBody::OpenChain { chain } => Ok(chain),
                ref body => unreachable!("an open-chain goal appended {body:?}"),
            },
            (_, Ended::Held) => unreachable!("a new chain never stands already"),
        }
    }

    /// Makes the point exist. When this returns, it exists for every reader and for ever.
    ///
    /// `commit.name` is a wish: when another point has it, the point gets `+2`, `+3`, … A commit that is
    /// given again, because its first answer was lost, yields the point of the first.
    ///
    /// # Errors
    /// [`ChainError`]: the store, a damaged log, a fenced session, a parent that is no point of the
    /// chain, a name or label that breaks its rule. After [`ChainError::InFlight`] the point may exist.
    pub fn commit(&self, commit: Commit) -> Result<Arc<Point>, ChainError> {
        let session = commit.session;
        let (state, _) = self.log.append(Some(SourceGoal::Commit(Box::new(commit))))?;
        match state.by_session(&session) {
            Some(point) => Ok(Arc::clone(point)),
            // It was applied and read back; then the log was read anew, because more was pinned.
            None => Err(ChainError::Refused { log: self.log.id(), refusal: Refusal::Void(Void::Replaced) }),
        }
    }

    /// Makes `goal` true: aborts a session, raises the floor, seals. Returns the number of an entry at
    /// or below which it is true; when it was true already, nothing is appended.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn append(&self, goal: SourceGoal) -> Result<LogNumber, ChainError> {
        Ok(match self.log.append(Some(goal))? {
            (_, Ended::Appended(entry)) => entry.number,
            (state, Ended::Held) => state.tip().number,
        })
    }

    /// Reads every entry and every checkpoint, also those that no reader needs, and says what is wrong.
    ///
    /// # Errors
    /// [`ChainError::Store`] when the store does not answer.
    pub fn audit(&self) -> Result<Audit<SourceState>, ChainError> {
        audit::audit(&self.log)
    }
}
