//! What a source's log amounts to: its chains and points.
//!
//! An entry is void, to every reader, when
//! - a seal stands below it;
//! - it opens a chain whose id is not the next, or sets a floor above its own number;
//! - it commits for a session that was aborted, or whose base is below the floor or not below the
//!   entry, or that has committed before;
//! - it commits into a chain that is not open, with a parent that is no point of that chain, or a
//!   second full point; or under a name that is taken, or with names that break their rules.
//!
//! A void entry changes nothing; all that is said about numbers, names and sessions counts the others
//! only. Whether an entry is void depends on the entries below it alone, so it never changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{LogState, Proposal, Refusal, Tip, Void};
use crate::base::Instant;
use crate::chain::name;
use crate::chain::point::Point;
use crate::format::log::{Checkpoint, Commit, LogEntry, SourceBody, SourceSnapshot};
use crate::format::{ChainId, LogNumber, PointId, SessionId};

/// The chains and points of a source.
///
/// A reader shares it by `Arc`; points are shared between versions, so a new version costs a few
/// words for each point.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceState {
    tip: Tip,
    /// Chains opened.
    opened: u32,
    floor: LogNumber,
    /// Sorted, none below the floor.
    aborted: Vec<SessionId>,
    sealed: bool,
    /// In log order, which is the order of ids.
    points: Vec<Arc<Point>>,
    /// Indexes of `points`, sorted by name.
    by_name: Vec<u32>,
    /// Indexes of `points`, sorted by session.
    by_session: Vec<u32>,
    /// Indexes of each chain's points, in log order. A chain without points has no item.
    by_chain: BTreeMap<ChainId, Vec<u32>>,
    /// Index of the newest point with each label.
    by_label: BTreeMap<String, u32>,
}

/// The tip names everything below it by hash, so it stands for the whole state.
impl std::hash::Hash for SourceState {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.tip.hash(hasher);
    }
}

/// What a writer may want of a source's log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SourceGoal {
    /// A point; its name is a wish, which gets a suffix when it is taken.
    Commit(Box<Commit>),
    /// A chain for the session to write to.
    OpenChain(SessionId),
    /// That commits of the session be void.
    Abort(SessionId),
    /// That commits of sessions with a base below this be void.
    Floor(LogNumber),
    /// That the log end.
    Seal,
}

/// A chain, as a reader sees it.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    /// Its identity.
    pub id: ChainId,
    state: &'a SourceState,
    points: &'a [u32],
}

impl<'a> Chain<'a> {
    /// Its points in log order; the first is the full point.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &'a Arc<Point>> + use<'a> {
        let state = self.state;
        self.points.iter().filter_map(|at| state.at_index(*at))
    }

    /// How many points it has.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether nothing was ever committed to it.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

impl SourceState {
    /// How far the log has been read, and what was wrong on the way.
    pub fn read(&self) -> &Tip {
        &self.tip
    }

    /// Whether the log has ended: the source was removed.
    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Commits of sessions with a base below this are void.
    pub fn floor(&self) -> LogNumber {
        self.floor
    }

    /// Aborted sessions at or above the floor, sorted.
    pub fn aborted(&self) -> &[SessionId] {
        &self.aborted
    }

    /// The points in log order.
    pub fn points(&self) -> &[Arc<Point>] {
        &self.points
    }

    /// The point with this identity.
    pub fn point(&self, id: PointId) -> Option<&Arc<Point>> {
        self.points.binary_search_by_key(&id, |point| point.id).ok().and_then(|at| self.points.get(at))
    }

    /// The point with this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Point>> {
        let at = self.name_place(name).ok()?;
        self.by_name.get(at).and_then(|at| self.at_index(*at))
    }

    /// The point that this session committed.
    pub fn by_session(&self, session: &SessionId) -> Option<&Arc<Point>> {
        let at = self.session_place(session).ok()?;
        self.by_session.get(at).and_then(|at| self.at_index(*at))
    }

    /// The newest point, in log order.
    pub fn newest(&self) -> Option<&Arc<Point>> {
        self.points.last()
    }

    /// The `n`th point before the newest, in log order; 0 is the newest.
    pub fn before_newest(&self, n: usize) -> Option<&Arc<Point>> {
        self.points.iter().rev().nth(n)
    }

    /// The newest point that carries `label`.
    pub fn by_label(&self, label: &str) -> Option<&Arc<Point>> {
        self.by_label.get(label).and_then(|at| self.at_index(*at))
    }

    /// Every label, with the newest point that carries it.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &Arc<Point>)> {
        self.by_label.iter().filter_map(|(label, at)| Some((label.as_str(), self.at_index(*at)?)))
    }

    /// The newest point, in log order, that was captured at or before `instant`.
    pub fn at(&self, instant: Instant) -> Option<&Arc<Point>> {
        self.points.iter().rev().find(|point| point.commit.captured <= instant)
    }

    /// The point on which the next incremental builds.
    pub fn head(&self) -> Option<&Arc<Point>> {
        self.newest()
    }

    /// The chains that were opened, those without points included.
    pub fn chains(&self) -> impl DoubleEndedIterator<Item = Chain<'_>> {
        (0..self.opened).filter_map(|id| self.chain(ChainId(id)))
    }

    /// The chain with this identity, if it was opened.
    pub fn chain(&self, id: ChainId) -> Option<Chain<'_>> {
        (id.0 < self.opened).then(|| {
            let points = self.by_chain.get(&id).map_or(&[][..], Vec::as_slice);
            Chain { id, state: self, points }
        })
    }

    /// The points that were captured against `parent`, in log order.
    pub fn children(&self, parent: PointId) -> impl Iterator<Item = &Arc<Point>> {
        let chain = self.point(parent).and_then(|point| self.chain(point.chain()));
        chain.into_iter().flat_map(|chain| chain.points()).filter(move |point| point.commit.parent == Some(parent))
    }

    /// The point with this identity, its parent, and so on up to the full point.
    pub fn lineage(&self, id: PointId) -> impl Iterator<Item = &Arc<Point>> {
        // A parent is always older, so this ends.
        std::iter::successors(self.point(id), |point| point.commit.parent.and_then(|parent| self.point(parent)))
    }

    /// Why a commit of `session` as the next entry would be void, whatever it said.
    ///
    /// # Errors
    /// [`Void`], about the session or the log.
    pub fn check_session(&self, session: &SessionId) -> Result<(), Void> {
        if self.sealed {
            return Err(Void::Sealed);
        }
        if session.base >= self.tip.next() {
            return Err(Void::BaseAhead(*session));
        }
        self.check_fences(session)
    }

    fn check_fences(&self, session: &SessionId) -> Result<(), Void> {
        if session.base < self.floor {
            return Err(Void::BelowFloor { session: *session, floor: self.floor });
        }
        if self.aborted.binary_search(session).is_ok() {
            return Err(Void::Aborted(*session));
        }
        if let Some(point) = self.by_session(session) {
            return Err(Void::Spent { session: *session, point: point.id });
        }
        Ok(())
    }

    /// Why `commit` as entry `number` is void. The log below `number` has been read.
    fn check_commit(&self, number: LogNumber, commit: &Commit) -> Result<(), Void> {
        if commit.session.base >= number {
            return Err(Void::BaseAhead(commit.session));
        }
        self.check_fences(&commit.session)?;
        if commit.chain.0 >= self.opened {
            return Err(Void::UnknownChain(commit.chain));
        }
        match commit.parent {
            None if self.by_chain.contains_key(&commit.chain) => return Err(Void::SecondFull(commit.chain)),
            None => {}
            Some(parent) => match self.point(parent) {
                Some(point) if point.chain() == commit.chain => {}
                Some(point) => return Err(Void::ForeignParent { parent, chain: point.chain() }),
                None if self.tip.lost(LogNumber(parent.0)) => {}
                None => return Err(Void::UnknownParent(parent)),
            },
        }
        name::parse_point(&commit.name)?;
        if self.name_place(&commit.name).is_ok() {
            return Err(Void::NameTaken(commit.name.clone()));
        }
        commit.labels.iter().try_for_each(|label| name::check_label(label))?;
        Ok(())
    }

    /// Counts `commit`, which has been checked.
    fn insert(&mut self, id: PointId, committed: Instant, commit: &Commit) {
        let index = u32::try_from(self.points.len()).unwrap_or(u32::MAX);
        let newest = self.by_chain.get(&commit.chain).and_then(|chain| self.at_index(*chain.last()?));
        // Position 0 is kept for the full point, also where that one is lost.
        let position = newest.map_or(u32::from(commit.parent.is_some()), |point| point.position.saturating_add(1));
        let (Err(name_place), Err(session_place)) =
            (self.name_place(&commit.name), self.session_place(&commit.session))
        else {
            return;
        };
        self.points.push(Arc::new(Point { id, committed, position, commit: commit.clone() }));
        self.by_name.insert(name_place, index);
        self.by_session.insert(session_place, index);
        self.by_chain.entry(commit.chain).or_default().push(index);
        for label in &commit.labels {
            self.by_label.insert(label.clone(), index);
        }
    }

    fn at_index(&self, index: u32) -> Option<&Arc<Point>> {
        self.points.get(index as usize)
    }

    /// Where in `by_name` the name stands, or else belongs.
    fn name_place(&self, name: &str) -> Result<usize, usize> {
        self.by_name.binary_search_by(|at| self.at_index(*at).map_or("", |point| point.name()).cmp(name))
    }

    /// Where in `by_session` the session stands, or else belongs.
    fn session_place(&self, session: &SessionId) -> Result<usize, usize> {
        self.by_session.binary_search_by(|at| self.at_index(*at).map(|point| point.commit.session).cmp(&Some(*session)))
    }

    /// Takes a chain as opened that an entry names although its opening was not seen, when it can have been lost.
    fn excuse_chain(&mut self, named: ChainId) {
        let lost = u32::try_from(self.tip.lost_entries().count()).unwrap_or(u32::MAX);
        if named.0 >= self.opened && named.0 < self.opened.saturating_add(lost) {
            self.opened = named.0.saturating_add(1);
        }
    }
}

impl LogState for SourceState {
    type Body = SourceBody;
    type Goal = SourceGoal;

    fn tip(&self) -> &Tip {
        &self.tip
    }

    fn tip_mut(&mut self) -> &mut Tip {
        &mut self.tip
    }

    fn judge(&mut self, entry: &LogEntry<SourceBody>) -> Result<(), Void> {
        if self.sealed {
            return Err(Void::Sealed);
        }
        match &entry.body {
            SourceBody::OpenChain { chain } => {
                if chain.0 > 0 {
                    self.excuse_chain(ChainId(chain.0 - 1));
                }
                if chain.0 != self.opened {
                    return Err(Void::ChainOutOfTurn { opened: *chain, next: ChainId(self.opened) });
                }
                self.opened = self.opened.saturating_add(1);
            }
            SourceBody::Commit(commit) => {
                self.excuse_chain(commit.chain);
                self.check_commit(entry.number, commit)?;
                self.insert(PointId(entry.number.0), entry.written, commit);
            }
            SourceBody::Abort { session } => {
                if session.base >= self.floor
                    && let Err(place) = self.aborted.binary_search(session)
                {
                    self.aborted.insert(place, *session);
                }
            }
            SourceBody::Floor { floor } => {
                if *floor > entry.number {
                    return Err(Void::FloorAhead(*floor));
                }
                self.floor = self.floor.max(*floor);
                let floor = self.floor;
                self.aborted.retain(|session| session.base >= floor);
            }
            SourceBody::Seal => self.sealed = true,
        }
        Ok(())
    }

    fn propose(&self, goal: &SourceGoal) -> Result<Proposal<SourceBody>, Refusal> {
        let next = self.tip.next();
        match goal {
            SourceGoal::Commit(commit) => {
                // A commit that was asked for twice, because its answer was lost further up.
                if self.by_session(&commit.session).is_some_and(|point| same_commit(&point.commit, commit)) {
                    return Ok(Proposal::Holds);
                }
                self.check_session(&commit.session)?;
                let free = name::first_free(&commit.name, |taken| self.name_place(taken).is_ok());
                let commit = Commit { name: free.map_err(Void::Name)?, ..(**commit).clone() };
                self.check_commit(next, &commit)?;
                Ok(Proposal::Write(SourceBody::Commit(Box::new(commit))))
            }
            SourceGoal::OpenChain(session) => {
                self.check_session(session)?;
                Ok(Proposal::Write(SourceBody::OpenChain { chain: ChainId(self.opened) }))
            }
            SourceGoal::Abort(session) => {
                if self.sealed || session.base < self.floor || self.aborted.binary_search(session).is_ok() {
                    return Ok(Proposal::Holds);
                }
                Ok(Proposal::Write(SourceBody::Abort { session: *session }))
            }
            SourceGoal::Floor(floor) => {
                if self.sealed || *floor <= self.floor {
                    return Ok(Proposal::Holds);
                }
                if *floor > next {
                    return Err(Void::FloorAhead(*floor).into());
                }
                Ok(Proposal::Write(SourceBody::Floor { floor: *floor }))
            }
            SourceGoal::Seal if self.sealed => Ok(Proposal::Holds),
            SourceGoal::Seal => Ok(Proposal::Write(SourceBody::Seal)),
        }
    }

    fn snapshot(&self) -> SourceSnapshot {
        SourceSnapshot {
            chains: self.opened,
            floor: self.floor,
            aborted: self.aborted.clone(),
            sealed: self.sealed,
            points: self.points.iter().map(|point| (point.id, point.committed, point.commit.clone())).collect(),
        }
    }

    fn restore(checkpoint: &Checkpoint<SourceSnapshot>) -> Result<SourceState, String> {
        let Checkpoint { number, hash, state: snapshot } = checkpoint;
        // Each open chain took an entry, which bounds what `chains` walks.
        if u64::from(snapshot.chains) > number.0 || snapshot.floor > *number {
            return Err("it counts more than there are entries".to_owned());
        }
        let mut state = SourceState { opened: snapshot.chains, ..SourceState::default() };
        for (id, committed, commit) in &snapshot.points {
            if id.0 <= state.points.last().map_or(0, |point| point.id.0) || id.0 > number.0 {
                return Err(format!("point {id} is out of order"));
            }
            state.check_commit(LogNumber(id.0), commit).map_err(|void| format!("point {id} is void: {void}"))?;
            state.insert(*id, *committed, commit);
        }
        // Only now: points that were committed before a fence stay.
        let ascending = snapshot.aborted.iter().zip(snapshot.aborted.iter().skip(1)).all(|(a, b)| a < b);
        if !ascending || snapshot.aborted.iter().any(|session| session.base < snapshot.floor) {
            return Err("its aborted sessions are out of order".to_owned());
        }
        state.floor = snapshot.floor;
        state.aborted = snapshot.aborted.clone();
        state.sealed = snapshot.sealed;
        state.tip = Tip::covered(*number, *hash);
        Ok(state)
    }
}

/// Whether both say the same, but for the name's suffix.
fn same_commit(stands: &Commit, wish: &Commit) -> bool {
    let named = |commit: &Commit| name::parse_point(&commit.name).map(|(second, _)| second);
    named(stands) == named(wish) && Commit { name: stands.name.clone(), ..wish.clone() } == *stands
}

#[cfg(test)]
mod tests;
