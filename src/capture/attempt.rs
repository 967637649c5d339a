//! One attempt at a point: chooses the parent, runs the pipeline, commits.
//!
//! A capture is incremental whenever there is a point to build on. It is full when there is none, when
//! one is asked for, and when the previous point cannot be read: then a new chain owes nothing to the
//! damaged one. The reason is kept in the point in words.
//!
//! Crash behaviour: nothing of an attempt is visible before the commit entry stands, which is the last
//! thing written; packs of an attempt that ends earlier are orphans. A new chain whose first point never
//! came is an empty chain and harms nobody.

use std::sync::Arc;

use super::counts::{Counts, NotEntered};
use super::error::CaptureError;
use super::identities::Identities;
use super::options::Options;
use super::parent::Parent;
use super::pipeline::Pipeline;
use super::planner::{Halt, Planner};
use super::progress::{Phase, Progress};
use super::recorder::Recorded;
use crate::base::{Class, Classed, Instant, limits};
use crate::chain::{Point, SourceLog, SourceState, name, origin};
use crate::format::log::{Commit, DiskFacts, Problem, SourceKind, SourceRecord, Stats};
use crate::format::{ChainId, FileId, FormatError, Key, PackId, PackOrdinal};
use crate::repo::{Dedup, Repo, RepoError, Session};

/// A capture that came to a point.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The point.
    pub point: Arc<Point>,
    /// Its parent's name, if it is incremental.
    pub parent: Option<String>,
    /// What could not be captured exactly: the first ones; `point.commit.stats.problems` counts all.
    pub problems: Vec<Problem>,
    /// Directories of the source that were not entered. That is no problem: it is what was asked for, or never done.
    pub not_entered: NotEntered,
    /// Whether anything differs from the parent.
    pub changed: bool,
}

/// What a plan is made with.
pub(super) struct Plan<'a> {
    pub(super) planner: Planner<'a>,
    pub(super) parent: &'a Parent,
    pub(super) identities: &'a Identities,
    pub(super) counts: &'a Counts,
    pub(super) progress: &'a Progress,
    pub(super) started: Instant,
    /// Why the point is full or incremental.
    pub(super) reason: &'a str,
}

/// What a capture is of.
pub(super) trait Subject: Sync {
    /// Plans all that is to be done; called again for a full point if the parent turns out damaged.
    ///
    /// # Errors
    /// [`Halt`].
    fn plan(&self, plan: Plan<'_>) -> Result<(), Halt>;

    /// Why nothing can be built on `parent`, if so.
    fn unfit(&self, _parent: &Point) -> Option<String> {
        None
    }

    /// What the point says of a disk; asked when all has been read.
    ///
    /// # Errors
    /// Why there must be no point after all.
    fn facts(&self, _recorded: &Recorded, _counts: &Counts) -> Result<Option<DiskFacts>, CaptureError> {
        Ok(None)
    }
}

impl<P: Fn(Plan<'_>) -> Result<(), Halt> + Sync> Subject for P {
    fn plan(&self, plan: Plan<'_>) -> Result<(), Halt> {
        self(plan)
    }
}

/// A capture of one source, before its attempts.
pub(super) struct Capture<'a> {
    pub(super) repo: &'a Arc<Repo>,
    pub(super) log: &'a SourceLog,
    pub(super) source: &'a SourceRecord,
    /// The place that is captured, in bytes.
    pub(super) place: &'a [u8],
    pub(super) options: &'a Options,
    pub(super) progress: &'a Progress,
}

/// On what a point is built.
struct Base {
    parent: Option<Arc<Point>>,
    reason: String,
}

impl Capture<'_> {
    /// Captures `subject`.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing is committed then.
    pub(super) fn run(&self, subject: &dyn Subject) -> Result<Outcome, CaptureError> {
        let state = self.log.refresh()?;
        self.repo.recall_sessions(self.source.id);
        let base = self.choose(&state, subject);
        let parent = base.parent.clone();
        match self.attempt(&state, base, subject) {
            Err(error) if parent.is_some() && (is_damage(&error) || is_sealed(&error)) => {
                tracing::warn!(%error, "the previous point cannot be read: start a new chain");
                self.progress.restart();
                let name = parent.as_ref().map_or("", |point| point.name());
                let reason = format!("full: the previous point {name} cannot be read ({error})");
                self.attempt(&state, Base { parent: None, reason }, subject)
            }
            other => other,
        }
    }

    fn choose(&self, state: &SourceState, subject: &dyn Subject) -> Base {
        let full = |reason: &str| Base { parent: None, reason: reason.to_owned() };
        if self.options.full {
            return full("full: asked for by --full");
        }
        match state.head() {
            Some(point) => {
                let (name, chain) = (point.name(), point.chain());
                let points = || state.chain(chain).into_iter().flat_map(|chain| chain.points());
                if let Some(most) = self.options.chain_max_points.filter(|most| points().count() >= most.get() as usize)
                {
                    return full(&format!("full: chain {chain} has its {most} points"));
                }
                if !self.repo.may_build_on(self.source.id, point.commit.session) {
                    return full(
                        "full: this key cannot read the points before, and what this host kept of them is lost",
                    );
                }
                if let Some(why) = subject.unfit(point) {
                    return full(&format!("full: {why}"));
                }
                let is_newest = points().next_back().is_some_and(|newest| newest.id == point.id);
                let which = match state.committed().last() {
                    Some(last) if is_newest && state.is_deleted(last.id) => {
                        format!("the newest point of chain {chain} that is not deleted")
                    }
                    _ if is_newest => format!("the newest point of chain {chain}"),
                    _ => format!("the head, in chain {chain}"),
                };
                Base { parent: Some(Arc::clone(point)), reason: format!("incremental: parent {name}, {which}") }
            }
            None if state.committed().is_empty() => full("full: first capture of this source"),
            None if state.points().is_empty() => full("full: all points of this source are deleted"),
            None => full("full: the point to build on is deleted, with all that it built on"),
        }
    }

    fn attempt(&self, state: &SourceState, base: Base, subject: &dyn Subject) -> Result<Outcome, CaptureError> {
        let Base { parent, reason } = base;
        let env = self.repo.env();
        let started = env.now();
        self.progress.enter(Phase::Quiescing);
        if let Some(stats) = parent.as_ref().map(|point| point.commit.stats) {
            self.progress.expect(stats.files + stats.others, stats.bytes);
        }
        let session_id = self.log.begin()?;
        let chain = match &parent {
            Some(point) => point.chain(),
            None => self.log.open_chain(&session_id)?,
        };
        let session = Session::begin(self.repo, self.source.id, chain, session_id)?;
        let seal = session.seal();
        let reader = self.repo.reader(self.source.id);
        let dedup = Dedup::over(reader.clone(), packs(state, chain));
        let roots = parent.as_ref().map(|point| point.commit.roots);
        let beside = Parent::new(&reader, parent.as_ref().map(|point| (point.commit.roots, point.commit.started)));
        if parent.is_some() && beside.get(&Key::root())?.is_none() {
            return Err(RepoError::Inconsistent { what: "a point has no root directory".to_owned() }.into());
        }
        let identities = Identities::from(parent.as_ref().map_or(FileId::FIRST, |point| point.commit.next_file));
        let counts = Counts::default();
        let pipeline = Pipeline {
            session: &session,
            parent: roots,
            dedup: &dedup,
            counts: &counts,
            identities: &identities,
            progress: self.progress,
            workers: self.workers(),
        };
        let (beside, identities_of, counts_of, reason_of) = (&beside, &identities, &counts, reason.as_str());
        let (recorded, captured) = pipeline.run(
            move |planner| {
                subject.plan(Plan {
                    planner,
                    parent: beside,
                    identities: identities_of,
                    counts: counts_of,
                    progress: self.progress,
                    started,
                    reason: reason_of,
                })
            },
            || {
                self.progress.enter(Phase::Captured);
                env.now()
            },
        )?;
        let Some(roots) = recorded.roots else {
            return Err(RepoError::Defect { what: "a capture without a root directory".to_owned() }.into());
        };
        let disk = subject.facts(&recorded, &counts)?;
        self.progress.enter(Phase::Uploading);
        let totals = session.finish()?;
        if self.progress.is_cancelled() {
            return Err(CaptureError::Cancelled);
        }
        let commit = Commit {
            session: session_id,
            chain,
            parent: parent.as_ref().map(|point| point.id),
            name: name::of_instant(started),
            labels: self.options.labels.clone(),
            started,
            captured,
            origin: origin::here(self.place),
            writer: concat!("amberfs ", env!("CARGO_PKG_VERSION")).to_owned(),
            reason,
            job: self.options.job.clone(),
            roots,
            next_file: identities.next(),
            packs: totals.packs,
            stats: Stats { stored_bytes: totals.stored_bytes, ..recorded.stats },
            problems: recorded.problems_frame,
            disk,
            seal,
            scope: (self.source.kind == SourceKind::Tree).then(|| self.options.scope()),
        };
        let point = self.log.commit(commit)?;
        self.repo.keep_session(self.source.id, chain, session_id);
        self.progress.enter(Phase::Committed);
        let parent = parent.map(|point| point.name().to_owned());
        let not_entered = counts.not_entered();
        Ok(Outcome { point, parent, problems: recorded.problems, not_entered, changed: recorded.changed })
    }

    fn workers(&self) -> usize {
        let machine = || std::thread::available_parallelism().map_or(1, usize::from);
        self.options.workers.unwrap_or_else(machine).clamp(1, limits::CAPTURE_WORKERS_MAX)
    }
}

/// Whether the error says that stored bytes are missing or wrong, as opposed to being out of reach.
pub(super) fn is_damage(error: &CaptureError) -> bool {
    matches!(error, CaptureError::Repo(error) if error.class() == Class::Corrupt)
}

/// Whether the error says that stored bytes are sealed with a key that is not at hand.
fn is_sealed(error: &CaptureError) -> bool {
    matches!(
        error,
        CaptureError::Repo(RepoError::Damaged { source: FormatError::NoKey { .. } | FormatError::NoEpoch { .. }, .. })
    )
}

/// The packs of a chain's points in which to look for chunks, oldest first: all large ones, and of small ones those of the newest
/// points. Whoever captures for the thousandth time would otherwise ask for a thousand footers to store one file.
fn packs(state: &SourceState, chain: ChainId) -> Vec<PackId> {
    let with_chunks =
        state.committed().iter().filter(|point| point.chain() == chain && point.commit.stats.new_bytes > 0);
    let mut small = 0;
    let mut packs: Vec<PackId> = with_chunks
        .rev()
        .filter(|point| {
            let each = point.commit.stats.new_bytes / u64::from(point.commit.packs.max(1));
            let is_small = each < limits::DEDUP_SMALL_PACK_BYTES;
            small += usize::from(is_small);
            !is_small || small <= limits::DEDUP_SMALL_POINTS
        })
        .flat_map(|point| {
            let session = point.commit.session;
            (0..point.commit.packs).rev().map(move |ordinal| PackId { chain, session, ordinal: PackOrdinal(ordinal) })
        })
        .take(limits::DEDUP_PACKS_MAX)
        .collect();
    packs.reverse();
    packs
}
