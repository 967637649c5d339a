//! What a mount knows of the logs, and when it asks what is new in them.

use std::sync::Arc;

use super::fresh::{Asked, aside};
use super::{MountView, chain_fault};
use crate::base::{Env, Instant, limits};
use crate::chain::{ChainError, RepoState, SourceLog, SourceState};
use crate::format::SourceId;
use crate::format::object::LogId;
use crate::view::namespace::ViewError;

impl MountView {
    /// Reads what a first look will want, with nobody waiting for it: over a network, and of a repository with few sources,
    /// their logs and the tops of their newest points.
    pub fn look_ahead(self: &Arc<Self>) {
        if !self.repo.store().is_remote() {
            return;
        }
        let Ok(state) = self.sources.load() else { return };
        let sources: Vec<SourceId> = state.sources().map(|record| record.id).collect();
        if sources.len() > limits::MOUNT_SOURCES_AHEAD {
            return;
        }
        for source in sources {
            let view = Arc::clone(self);
            aside(move || {
                // Whoever looks meets the error by himself.
                if let Ok(state) = view.source_state(source)
                    && let Some(newest) = state.newest()
                    && let Err(error) = view.point_root(source, newest)
                {
                    tracing::debug!(%error, "the newest point could not be looked at ahead");
                }
            });
        }
    }

    /// Lets the next look at any log ask the store, whatever its age: something was committed here.
    pub fn nudge(&self) {
        let long_ago = Instant::from_nanos(i64::MIN);
        let mut open = self.open.lock();
        open.asked = Some(long_ago);
        for asked in open.logs.values_mut().filter_map(|(_, asked)| asked.as_mut()) {
            *asked = long_ago;
        }
    }

    /// Since when what is shown may be older than it should, because a log could not be read, and why.
    pub fn stale_since(&self) -> Option<(Instant, String)> {
        self.open.lock().failing.values().min_by_key(|(since, _)| *since).cloned()
    }

    /// Asks a log of which something is known what is new in it, and does `then` behind the answer, with nobody waiting. What is
    /// known afterwards is to be shown, be it new or not.
    fn refresh(
        &self,
        log: LogId,
        ask: impl FnOnce() -> Result<(), ChainError> + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) {
        let why = match self.fresh.ask(log, ask, then) {
            Asked::Answered => {
                self.open.lock().failing.remove(&log);
                return;
            }
            Asked::Waiting => "the store has not answered yet".to_owned(),
            Asked::Failed(why) => why,
        };
        let now = self.repo.env().now();
        let mut open = self.open.lock();
        let (_, told) = open.failing.entry(log).or_insert((now, String::new()));
        if *told != why {
            tracing::warn!("show what was known before: {why}");
            *told = why;
        }
    }

    fn stale(&self, asked: Option<Instant>, env: &Env) -> bool {
        let oldest = env.now().minus(self.settings.refresh);
        // A clock that went backwards makes `asked` lie in the future: ask again then, too.
        asked.is_none_or(|asked| asked < oldest || asked > env.now())
    }

    pub(super) fn repo_state(&self) -> Result<Arc<RepoState>, ViewError> {
        let env = self.repo.env();
        let ask = {
            let mut open = self.open.lock();
            let stale = self.stale(open.asked, env);
            if stale {
                open.asked = Some(env.now());
            }
            stale
        };
        if ask && self.sources.load().is_ok() {
            let sources = self.sources.clone();
            self.refresh(LogId::Repo, move || sources.refresh().map(drop), || {});
        }
        self.sources.load().map_err(chain_fault)
    }

    /// The log of a source, for callers that read or write beside the mount.
    pub fn source_log(&self, source: SourceId) -> Arc<SourceLog> {
        let mut open = self.open.lock();
        let (log, _) = open.logs.entry(source).or_insert_with(|| (Arc::new(self.sources.source_log(source)), None));
        Arc::clone(log)
    }

    pub(super) fn source_state(&self, source: SourceId) -> Result<Arc<SourceState>, ViewError> {
        let log = self.source_log(source);
        let env = self.repo.env();
        let (first, ask) = {
            let mut open = self.open.lock();
            match open.logs.get_mut(&source) {
                Some((_, asked)) => {
                    let (first, stale) = (asked.is_none(), self.stale(*asked, env));
                    if stale {
                        *asked = Some(env.now());
                    }
                    (first, stale)
                }
                None => (true, true),
            }
        };
        // Whoever used the log beside the mount may have read it long ago: the first look asks, too.
        let known = match if first { log.refresh() } else { log.load() } {
            Ok(known) => known,
            Err(error) => {
                if let Some((_, asked)) = self.open.lock().logs.get_mut(&source) {
                    *asked = None;
                }
                return Err(chain_fault(error));
            }
        };
        let sums_up = self.settings.sum_up;
        if first {
            if sums_up && log.is_long() {
                aside(move || log.sum_up());
            }
            return Ok(known);
        }
        if !ask {
            return Ok(known);
        }
        let (asked, summed) = (Arc::clone(&log), Arc::clone(&log));
        let then = move || {
            if sums_up {
                summed.sum_up()
            }
        };
        self.refresh(LogId::Source(source), move || asked.refresh().map(drop), then);
        log.load().map_err(chain_fault)
    }
}
