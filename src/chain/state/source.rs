//! What a source's log amounts to: its chains and points.
//!
//! An entry is void, to every reader, when
//! - a seal stands below it;
//! - it opens a chain whose id is not the next, or sets a floor above its own number;
//! - it commits for a session that was aborted, or whose base is below the floor or not below the
//!   entry, or that has committed before;
//! - it commits into a chain that is not open, with a parent that is no point of that chain, or a
//!   second full point; or under a name that is taken, or with names that break their rules;
//! - it deletes, undeletes or makes the head what is no point, or makes the head what is in the trash;
//! - the repository's log names another entry in its place;
//! - its signature is not valid, or of keys that were replaced; or its author's key may not say it: a collector opens no
//!   chain and commits nothing, and a writer does nothing else, and that only in a source that it added to the
//!   repository, or that a full key has given to it since.
//!
//! A point in the trash keeps its name, its session and its descendants: it is complete in itself, and so
//! are they. It is shown to nobody, is on no list, and nothing new builds on it.
//!
//! A void entry changes nothing; all that is said about numbers, names and sessions counts the others
//! only. Whether an entry is void depends on the entries below it alone, so it never changes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Fault, LogState, Proposal, Refusal, Tip, Void, check_author, check_epoch};
use crate::base::Instant;
use crate::chain::name;
use crate::chain::point::Point;
use crate::format::author::{Author, Role};
use crate::format::keyring::SessionSeal;
use crate::format::log::{Checkpoint, Commit, Deletion, EntryHash, LogEntry, Pin, SourceBody, SourceSnapshot};
use crate::format::object::LogId;
use crate::format::{ChainId, Epoch, KeyId, LogNumber, PointId, Realm, SessionId};

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
    /// All that were ever committed, in log order, which is the order of ids.
    committed: Vec<Arc<Point>>,
    /// Indexes of `committed`, sorted by name.
    by_name: Vec<u32>,
    /// Indexes of `committed`, sorted by session.
    by_session: Vec<u32>,
    /// How many were committed to each chain; a lost full point counts. A chain without points has no item.
    begun: BTreeMap<ChainId, u32>,
    trash: BTreeMap<PointId, Deletion>,
    /// The last point that was committed or made the head.
    head: Option<PointId>,
    /// The one writer key that may add points.
    writer: Option<KeyId>,
    /// Older generations of keys count for nothing.
    epoch: Epoch,
    /// What the repository's log says stands further up, or at the tip.
    pin: Option<Pin>,
    /// The newest entry that the repository's log had pinned when this was begun or restored.
    pinned: LogNumber,
    /// Those of `committed` that are not in the trash.
    points: Vec<Arc<Point>>,
    /// Indexes of each chain's `points`, in log order. A chain without any has no item.
    by_chain: BTreeMap<ChainId, Vec<u32>>,
    /// Index of the newest of `points` with each label.
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
    /// That these points be in the trash.
    Delete(Vec<PointId>, Dependents),
    /// That these points be out of the trash.
    Undelete(Vec<PointId>),
    /// That the next incremental build on this point.
    Head(PointId),
    /// That of all writer keys this one alone may add points, or none.
    Writer(Option<KeyId>),
    /// That older generations of keys count for nothing.
    Epoch(Epoch),
}

/// What becomes of points that descend from a deleted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dependents {
    /// There must be none.
    Refuse,
    /// They are deleted as well.
    Cascade,
    /// They stay, complete in themselves, and count as children of the nearest ancestor that stays.
    Keep,
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
        self.points.iter().filter_map(|at| state.points.get(*at as usize))
    }

    /// The points that were ever committed to it, those in the trash included, in log order.
    pub fn committed(&self) -> impl DoubleEndedIterator<Item = &'a Arc<Point>> + use<'a> {
        let id = self.id;
        self.state.committed.iter().filter(move |point| point.chain() == id)
    }

    /// How many points it has.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether nothing was committed to it, or all of it is deleted.
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

    /// The one writer key that may add points, if any may.
    pub fn writer(&self) -> Option<KeyId> {
        self.writer
    }

    /// What the repository's log may say of this one from now on; nothing while it is damaged.
    pub fn pin(&self) -> Option<Pin> {
        let hash = self.tip.hash.filter(|_| self.tip.obstacle().is_none())?;
        Some(Pin { number: self.tip.number, hash, writer: self.writer, epoch: self.epoch })
    }

    /// The points in log order. What is in the trash is not among them.
    pub fn points(&self) -> &[Arc<Point>] {
        &self.points
    }

    /// The points that were ever committed, those in the trash included, in log order.
    pub fn committed(&self) -> &[Arc<Point>] {
        &self.committed
    }

    /// The points in the trash, in log order, and how they came there.
    pub fn trash(&self) -> impl DoubleEndedIterator<Item = (&Arc<Point>, &Deletion)> {
        self.trash.values().filter_map(|deletion| Some((self.ever(deletion.point)?, deletion)))
    }

    /// The point with this identity.
    pub fn point(&self, id: PointId) -> Option<&Arc<Point>> {
        self.ever(id).filter(|point| !self.is_deleted(point.id))
    }

    /// The point with this identity, were it in the trash.
    pub fn ever(&self, id: PointId) -> Option<&Arc<Point>> {
        self.committed.binary_search_by_key(&id, |point| point.id).ok().and_then(|at| self.committed.get(at))
    }

    /// Whether the point is in the trash.
    pub fn is_deleted(&self, id: PointId) -> bool {
        self.trash.contains_key(&id)
    }

    /// The point with this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Point>> {
        self.ever_by_name(name).filter(|point| !self.is_deleted(point.id))
    }

    /// The point with this name, were it in the trash.
    pub fn ever_by_name(&self, name: &str) -> Option<&Arc<Point>> {
        let at = self.name_place(name).ok()?;
        self.by_name.get(at).and_then(|at| self.at_index(*at))
    }

    /// The point that this session committed, were it in the trash.
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
        self.by_label.get(label).and_then(|at| self.points.get(*at as usize))
    }

    /// Every label, with the newest point that carries it.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &Arc<Point>)> {
        self.by_label.iter().filter_map(|(label, at)| Some((label.as_str(), self.points.get(*at as usize)?)))
    }

    /// The newest point, in log order, that was captured at or before `instant`.
    pub fn at(&self, instant: Instant) -> Option<&Arc<Point>> {
        self.points.iter().rev().find(|point| point.commit.captured <= instant)
    }

    /// The point on which the next incremental builds: what was committed last, or made the head since, or the
    /// nearest ancestor of it that is not in the trash.
    pub fn head(&self) -> Option<&Arc<Point>> {
        let head = self.ever(self.head?)?;
        if self.is_deleted(head.id) { self.parent(head) } else { Some(head) }
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

    /// The nearest ancestor of `point` that is not in the trash.
    pub fn parent(&self, point: &Point) -> Option<&Arc<Point>> {
        let above = |point: &Point| point.commit.parent.and_then(|parent| self.ever(parent));
        // A parent is always older, so this ends.
        std::iter::successors(above(point), |point| above(point)).find(|point| !self.is_deleted(point.id))
    }

    /// The points whose [`SourceState::parent`] is `parent`, in log order.
    pub fn children(&self, parent: PointId) -> impl Iterator<Item = &Arc<Point>> {
        let chain = self.point(parent).and_then(|point| self.chain(point.chain()));
        let points = chain.into_iter().flat_map(|chain| chain.points());
        points.filter(move |point| self.parent(point).is_some_and(|point| point.id == parent))
    }

    /// The point with this identity, its [`SourceState::parent`], and so on up to the first of its line.
    pub fn lineage(&self, id: PointId) -> impl Iterator<Item = &Arc<Point>> {
        std::iter::successors(self.point(id), |point| self.parent(point))
    }

    /// The points that descend from any of `ancestors`, directly or indirectly, also through points in the
    /// trash, and are not themselves among them; in log order.
    pub fn dependents(&self, ancestors: &[PointId]) -> Vec<&Arc<Point>> {
        let mut line: BTreeSet<PointId> = ancestors.iter().copied().collect();
        let mut dependents = Vec::new();
        // A parent is always older, so one pass in log order meets it first.
        for point in &self.committed {
            let descends = point.commit.parent.is_some_and(|parent| line.contains(&parent));
            if descends && line.insert(point.id) && !self.is_deleted(point.id) {
                dependents.push(point);
            }
        }
        dependents
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
            None if self.begun.contains_key(&commit.chain) => return Err(Void::SecondFull(commit.chain)),
            None => {}
            Some(parent) => match self.ever(parent) {
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
    fn insert(&mut self, id: PointId, committed: Instant, commit: Arc<Commit>) {
        let (Err(name_place), Err(session_place)) =
            (self.name_place(&commit.name), self.session_place(&commit.session))
        else {
            return;
        };
        // Position 0 is kept for the full point, also where that one is lost.
        let next = self.begun.entry(commit.chain).or_insert(u32::from(commit.parent.is_some()));
        let position = *next;
        *next = next.saturating_add(1);
        let index = u32::try_from(self.committed.len()).unwrap_or(u32::MAX);
        let point = Arc::new(Point { id, committed, position, commit });
        self.committed.push(Arc::clone(&point));
        self.by_name.insert(name_place, index);
        self.by_session.insert(session_place, index);
        self.head = Some(id);
        self.show(point);
    }

    /// Adds a point to what is shown, behind all others.
    fn show(&mut self, point: Arc<Point>) {
        let index = u32::try_from(self.points.len()).unwrap_or(u32::MAX);
        self.by_chain.entry(point.chain()).or_default().push(index);
        for label in &point.commit.labels {
            self.by_label.insert(label.clone(), index);
        }
        self.points.push(point);
    }

    /// Shows what is not in the trash, and nothing else.
    fn show_again(&mut self) {
        self.points.clear();
        self.by_chain.clear();
        self.by_label.clear();
        for point in self.committed.clone() {
            if !self.is_deleted(point.id) {
                self.show(point);
            }
        }
    }

    /// Why an entry that names these points is void.
    fn check_named(&self, points: &[PointId]) -> Result<(), Void> {
        if points.is_empty() || points.iter().zip(points.iter().skip(1)).any(|(a, b)| a >= b) {
            return Err(Void::PointsOutOfOrder);
        }
        match points.iter().find(|point| self.ever(**point).is_none() && !self.tip.lost(LogNumber(point.0))) {
            Some(unknown) => Err(Void::UnknownPoint(*unknown)),
            None => Ok(()),
        }
    }

    fn check_head(&self, point: PointId) -> Result<(), Void> {
        self.check_named(&[point])?;
        if self.is_deleted(point) { Err(Void::HeadInTrash(point)) } else { Ok(()) }
    }

    /// The points that must go to the trash for `points` to be there.
    fn to_delete(&self, points: &[PointId], dependents: Dependents) -> Result<Vec<PointId>, Refusal> {
        let mut named: BTreeSet<PointId> = points.iter().copied().collect();
        self.check_named(&Vec::from_iter(named.iter().copied()))?;
        let below = self.dependents(points).into_iter().map(|point| point.id);
        match dependents {
            Dependents::Keep => {}
            Dependents::Cascade => named.extend(below),
            Dependents::Refuse => {
                let below: Vec<PointId> = below.collect();
                if !below.is_empty() {
                    return Err(Refusal::Dependents { points: points.to_vec(), dependents: below });
                }
            }
        }
        Ok(named.into_iter().filter(|point| !self.is_deleted(*point)).collect())
    }

    fn at_index(&self, index: u32) -> Option<&Arc<Point>> {
        self.committed.get(index as usize)
    }

    /// Where in `by_name` the name stands, or else belongs.
    fn name_place(&self, name: &str) -> Result<usize, usize> {
        place(&self.by_name, |at| self.at_index(at).map_or("", |point| point.name()).cmp(name))
    }

    /// Where in `by_session` the session stands, or else belongs.
    fn session_place(&self, session: &SessionId) -> Result<usize, usize> {
        place(&self.by_session, |at| self.at_index(at).map(|point| point.commit.session).cmp(&Some(*session)))
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

    fn epoch(&self) -> Epoch {
        self.epoch
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
                self.insert(PointId(entry.number.0), entry.written, Arc::clone(commit));
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
            SourceBody::Delete { points } => {
                self.check_named(points)?;
                for point in points {
                    if self.ever(*point).is_some() {
                        let deletion = Deletion { point: *point, entry: entry.number, written: entry.written };
                        self.trash.entry(*point).or_insert(deletion);
                    }
                }
                self.show_again();
            }
            SourceBody::Undelete { points } => {
                self.check_named(points)?;
                for point in points {
                    self.trash.remove(point);
                }
                self.show_again();
            }
            SourceBody::Head { point } => {
                self.check_head(*point)?;
                self.head = Some(*point);
            }
            SourceBody::Writer { key } => self.writer = *key,
            SourceBody::Epoch { epoch } => {
                check_epoch(&entry.author, *epoch, self.epoch)?;
                self.epoch = *epoch;
            }
        }
        Ok(())
    }

    fn begin(realm: &Realm, log: LogId) -> SourceState {
        let LogId::Source(source) = log else { return SourceState::default() };
        let told = realm.keys().map(|keys| keys.told_of(source)).unwrap_or_default();
        let pinned = told.pin.map_or(LogNumber(0), |pin| pin.number);
        SourceState { writer: told.owner, epoch: told.epoch, pin: told.pin, pinned, ..SourceState::default() }
    }

    fn told(&mut self, realm: &Realm, log: LogId) -> Option<Pin> {
        let LogId::Source(source) = log else { return None };
        let pin = realm.keys().and_then(|keys| keys.told_of(source).pin)?;
        self.pinned = pin.number;
        if pin.number <= self.tip.number {
            return Some(pin);
        }
        self.pin = Some(pin);
        None
    }

    fn pinned(&self) -> LogNumber {
        self.pinned
    }

    /// What was said behind the pinned entry is pinned as well, unless whoever said it was interrupted: then the entries tell.
    fn agrees_with(&self, pin: &Pin) -> bool {
        self.writer == pin.writer && self.epoch >= pin.epoch
    }

    fn contradiction(&self, number: LogNumber, hash: Option<EntryHash>) -> Option<Fault> {
        let pin = self.pin?;
        match hash {
            Some(hash) if pin.number == number => (pin.hash != hash).then_some(Fault::Replaced),
            Some(_) => None,
            None => (pin.number >= number).then_some(Fault::Shortened(pin.number)),
        }
    }

    fn heed(&mut self) {
        if let Some(pin) = self.pin.filter(|pin| pin.number <= self.tip.number) {
            self.writer = pin.writer;
            self.epoch = self.epoch.max(pin.epoch);
            self.pin = None;
        }
    }

    fn authorize(&self, author: &Author, body: &SourceBody) -> Result<(), Void> {
        check_author(author, self.epoch)?;
        let adds = matches!(body, SourceBody::OpenChain { .. } | SourceBody::Commit(_));
        let tells = matches!(body, SourceBody::Writer { .. } | SourceBody::Epoch { .. });
        match author.role {
            Role::Full => Ok(()),
            Role::Collector(_) if !adds && !tells => Ok(()),
            Role::Writer(_) if !adds => Err(Void::NotAllowed(author.role)),
            Role::Writer(key) if self.writer != Some(key) => Err(Void::NotOwner(key)),
            Role::Writer(_) => Ok(()),
            Role::Collector(_) | Role::Nobody => Err(Void::NotAllowed(author.role)),
        }
    }

    fn seals(&self, above: LogNumber) -> Vec<(SessionId, SessionSeal)> {
        let new = self.committed.partition_point(|point| point.id.0 <= above.0);
        let points = self.committed.iter().skip(new);
        points.filter_map(|point| Some((point.commit.session, point.commit.seal?))).collect()
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
                Ok(Proposal::Write(SourceBody::Commit(Arc::new(commit))))
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
            _ if self.sealed => Err(Void::Sealed.into()),
            SourceGoal::Delete(points, dependents) => Ok(match self.to_delete(points, *dependents)? {
                points if points.is_empty() => Proposal::Holds,
                points => Proposal::Write(SourceBody::Delete { points }),
            }),
            SourceGoal::Undelete(points) => {
                let points = Vec::from_iter(points.iter().copied().collect::<BTreeSet<_>>());
                self.check_named(&points)?;
                let points: Vec<PointId> = points.into_iter().filter(|point| self.is_deleted(*point)).collect();
                Ok(match points.is_empty() {
                    true => Proposal::Holds,
                    false => Proposal::Write(SourceBody::Undelete { points }),
                })
            }
            SourceGoal::Head(point) => {
                self.check_head(*point)?;
                Ok(match self.head == Some(*point) {
                    true => Proposal::Holds,
                    false => Proposal::Write(SourceBody::Head { point: *point }),
                })
            }
            SourceGoal::Writer(key) if self.writer == *key => Ok(Proposal::Holds),
            SourceGoal::Writer(key) => Ok(Proposal::Write(SourceBody::Writer { key: *key })),
            SourceGoal::Epoch(epoch) if *epoch <= self.epoch => Ok(Proposal::Holds),
            SourceGoal::Epoch(epoch) => Ok(Proposal::Write(SourceBody::Epoch { epoch: *epoch })),
        }
    }

    fn snapshot(&self) -> SourceSnapshot {
        SourceSnapshot {
            chains: self.opened,
            floor: self.floor,
            aborted: self.aborted.clone(),
            sealed: self.sealed,
            points: self.committed.iter().map(|point| (point.id, point.committed, Arc::clone(&point.commit))).collect(),
            trash: self.trash.values().copied().collect(),
            head: self.head,
            writer: self.writer,
            epoch: self.epoch,
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
            if id.0 <= state.committed.last().map_or(0, |point| point.id.0) || id.0 > number.0 {
                return Err(format!("point {id} is out of order"));
            }
            state.check_commit(LogNumber(id.0), commit).map_err(|void| format!("point {id} is void: {void}"))?;
            state.insert(*id, *committed, Arc::clone(commit));
        }
        // Only now: points that were committed before a fence stay.
        let ascending = snapshot.aborted.iter().zip(snapshot.aborted.iter().skip(1)).all(|(a, b)| a < b);
        if !ascending || snapshot.aborted.iter().any(|session| session.base < snapshot.floor) {
            return Err("its aborted sessions are out of order".to_owned());
        }
        let ordered = snapshot.trash.iter().zip(snapshot.trash.iter().skip(1)).all(|(a, b)| a.point < b.point);
        let possible = |deletion: &Deletion| deletion.entry <= *number && state.ever(deletion.point).is_some();
        if !ordered || !snapshot.trash.iter().all(possible) {
            return Err("its trash holds what it cannot".to_owned());
        }
        if snapshot.head.is_some_and(|head| head.0 > number.0) {
            return Err("its head is out of order".to_owned());
        }
        state.trash = snapshot.trash.iter().map(|deletion| (deletion.point, *deletion)).collect();
        state.head = snapshot.head;
        state.writer = snapshot.writer;
        state.epoch = snapshot.epoch;
        state.show_again();
        state.floor = snapshot.floor;
        state.aborted = snapshot.aborted.clone();
        state.sealed = snapshot.sealed;
        state.tip = Tip::covered(*number, *hash);
        Ok(state)
    }
}

/// Where in `sorted`, whose items `compare` with what is sought, it stands, or else belongs. Nearly always that is behind all others.
fn place(sorted: &[u32], compare: impl Fn(u32) -> Ordering) -> Result<usize, usize> {
    match sorted.last() {
        Some(last) if compare(*last).is_lt() => Err(sorted.len()),
        _ => sorted.binary_search_by(|at| compare(*at)),
    }
}

/// Whether both say the same, but for the name's suffix.
fn same_commit(stands: &Commit, wish: &Commit) -> bool {
    let named = |commit: &Commit| name::parse_point(&commit.name).map(|(second, _)| second);
    named(stands) == named(wish) && Commit { name: stands.name.clone(), ..wish.clone() } == *stands
}

#[cfg(test)]
mod tests;
