//! A world in which writers, fencers and a store that loses answers run the production machine of
//! `chain::protocol`, one step at a time, in whatever order somebody decides.
//!
//! The store keeps one promise, the one that amberfs demands of a store: a Create takes effect once
//! and only where nothing stands. Everything else may go wrong: answers are lost after the effect,
//! requests take effect late or never, lists lag, writers stop for good or for as long as they like.
//! What must hold all the same is in [`World::broken`], told without the code under test: from the
//! entries alone, by a plain reading of the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use amberfs::base::Instant;
use amberfs::chain::protocol::{Answer, Append, Outcome, Step};
use amberfs::chain::state::{Dependents, LogState, SourceGoal, SourceState};
use amberfs::format::author::Author;
use amberfs::format::keyring::{ChunkKeys, EpochKeys, Keyring};
use amberfs::format::log::{Commit, EntryHash, LogEntry, NodeRef, Origin, Roots, SourceBody, Stats, encode_entry};
use amberfs::format::object::LogId;
use amberfs::format::{
    ChainId, Epoch, FileId, FrameHash, FrameOrdinal, FrameRef, LogNumber, Nonce, PackId, PackOrdinal, PointId, Realm,
    RepoId, SessionId, SourceId,
};
use amberfs::seal::{Secret, derive};

use crate::{nonces, world};

const REPO: RepoId = RepoId([3; 16]);
/// Where sealed entries stand: it is watched that no key seals two of them.
static SEALED: LazyLock<Realm> = LazyLock::new(|| {
    nonces::watch();
    let master = Secret::new([8; 32]);
    let epochs = BTreeMap::from([(Epoch(1), EpochKeys::of_master(REPO, &master).unwrap())]);
    let seed = derive::secret(&master, &REPO.0, &[b"amberfs signing"]);
    let chunks = Some(ChunkKeys::of_master(REPO, &master));
    Realm::sealed(Arc::new(Keyring::new(REPO, epochs, chunks, &seed, None).unwrap()))
});

const LOG: LogId = LogId::Source(SourceId(1));

type Entry = LogEntry<SourceBody>;

/// An entry as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    entry: Arc<Entry>,
    hash: EntryHash,
}

/// The hash covers the entry.
impl Hash for Stored {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.hash.hash(hasher);
    }
}

/// What an actor is here to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Commits an incremental point on the first point.
    Incremental,
    /// Opens a chain and commits a full point.
    Full,
    /// Aborts the current session of the actor with this index.
    Abort(usize),
    /// Raises the floor to the number of its own entry, as it takes that to be at first.
    Floor,
    /// Seals the log.
    Seal,
    /// Deletes the first point, unless something depends on it.
    Delete,
}

impl Role {
    fn writes(self) -> bool {
        match self {
            Role::Incremental | Role::Full => true,
            Role::Abort(_) | Role::Floor | Role::Seal | Role::Delete => false,
        }
    }
}

/// A defect that a writer may be given, to show that this world would notice. Each is the production
/// machine behind somebody who lies to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Defect {
    /// None.
    None,
    /// A Create without an answer is taken for done, and not read back.
    TrustsSilence,
    /// Entries of others are counted, not read.
    ReadsNothing,
    /// Aborts are not seen.
    MissesAborts,
    /// The floor is not seen.
    MissesFloors,
    /// Seals are not seen.
    MissesSeals,
    /// Names that others took are not seen.
    MissesNames,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    /// A fencer that waits for somebody to fence.
    Waiting,
    /// Reads the log up to its head.
    Begin(Append<SourceState>),
    Open(SessionId, Append<SourceState>),
    Commit(SessionId, Append<SourceState>),
    Fence(SourceGoal, Append<SourceState>),
    Over(End),
}

/// How an actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Acknowledged,
    Refused,
    Unanswered,
    Crashed,
    /// It takes the log for damaged, which it is not.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Actor {
    role: Role,
    stage: Stage,
    /// Rounds begun, for identities.
    round: u8,
    /// Rounds left when this one is over.
    left: u8,
}

/// What somebody was told stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Acknowledged {
    pub(crate) actor: usize,
    pub(crate) number: u64,
    /// Of a point: its name and session.
    pub(crate) point: Option<(String, SessionId)>,
    /// Of a fence: what it says.
    pub(crate) fence: Option<SourceGoal>,
}

/// What the store does with the request that an actor is about to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// It does it and says so.
    Honest,
    /// It does it; the answer is lost. Creates only.
    Lost,
    /// It does not answer; it may do it later. Creates only.
    Late,
    /// It does not answer. Reads only.
    Silent,
    /// It lists nothing new. Lists only.
    Stale,
}

/// One step of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The actor makes its next request, and the store deals with it so.
    Ask(usize, Reply),
    /// A late Create arrives.
    Land(usize),
    /// The actor is gone.
    Crash(usize),
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    log: BTreeMap<u64, Stored>,
    late: Vec<Arc<Entry>>,
    actors: Vec<Actor>,
    acknowledged: Vec<Acknowledged>,
    /// Faults that may still happen.
    faults: u16,
    defect: Defect,
    /// A late Create took effect.
    landed: bool,
    /// Its entries are sealed.
    sealed: bool,
}

fn session(actor: usize, round: u8, base: LogNumber) -> SessionId {
    SessionId { base, random: Nonce([actor as u8, round, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]) }
}

/// A commit, always under the same name, so that names collide.
fn commit(session: SessionId, chain: ChainId, parent: Option<PointId>) -> Commit {
    let pack = PackId { chain, session, ordinal: PackOrdinal(0) };
    let frame = FrameRef {
        pack,
        ordinal: FrameOrdinal(0),
        offset: 32,
        stored_bytes: 1,
        raw_bytes: 1,
        hash: FrameHash([0; 16]),
    };
    Commit {
        session,
        chain,
        parent,
        name: "2026-11-20T12-00-00Z".to_owned(),
        labels: Vec::new(),
        started: Instant::from_nanos(0),
        captured: Instant::from_nanos(0),
        origin: Origin { machine: "m".into(), host: "h".into(), path: b"/".to_vec() },
        writer: String::new(),
        reason: String::new(),
        job: None,
        roots: Roots { entries: NodeRef { frame, level: 0, items: 1 }, maps: None, usage: None },
        next_file: FileId(2),
        packs: 1,
        stats: Stats::default(),
        problems: None,
        disk: None,
        scope: None,
        seal: None,
    }
}

/// The first point, on which incrementals build.
const FIRST_POINT: PointId = PointId(2);

impl World {
    /// A log with one chain and one point in it, and actors that know it. Each goes about its role
    /// `rounds` times; `faults` things may go wrong.
    pub(crate) fn new(roles: &[Role], rounds: u8, faults: u16, defect: Defect) -> World {
        World::with(roles, rounds, faults, defect, false)
    }

    /// The same, with entries that are sealed if the repositories of these tests are: that takes too long for every state
    /// that a model checker visits.
    pub(crate) fn sealed(roles: &[Role], rounds: u8, faults: u16, defect: Defect) -> World {
        World::with(roles, rounds, faults, defect, world::is_encrypted())
    }

    fn with(roles: &[Role], rounds: u8, faults: u16, defect: Defect, sealed: bool) -> World {
        let mut world = World {
            log: BTreeMap::new(),
            late: Vec::new(),
            actors: Vec::new(),
            acknowledged: Vec::new(),
            faults,
            defect,
            landed: false,
            sealed,
        };
        let first = session(200, 0, LogNumber(0));
        let mut state = SourceState::default();
        for body in
            [SourceBody::OpenChain { chain: ChainId(0) }, SourceBody::Commit(Arc::new(commit(first, ChainId(0), None)))]
        {
            let entry = Arc::new(LogEntry {
                number: state.tip().next(),
                nonce: first.random,
                previous: state.tip().hash.unwrap(),
                written: Instant::from_nanos(0),
                author: Author::default(),
                body,
            });
            assert!(world.create(&entry));
            state.apply(&entry, world.log[&entry.number.0].hash).unwrap();
        }
        for (index, role) in roles.iter().enumerate() {
            let actor = Actor { role: *role, stage: Stage::Waiting, round: 0, left: rounds };
            world.actors.push(actor);
            world.next_round(index, state.clone());
        }
        world
    }

    fn realm(&self) -> Realm {
        if self.sealed { SEALED.clone() } else { Realm::from(REPO) }
    }

    /// The store's one promise. Says whether it took effect.
    fn create(&mut self, entry: &Arc<Entry>) -> bool {
        if self.log.contains_key(&entry.number.0) {
            return false;
        }
        let (_, _, hash) = encode_entry(&self.realm(), LOG, entry);
        self.log.insert(entry.number.0, Stored { entry: Arc::clone(entry), hash });
        true
    }

    fn append(&self, index: usize, state: SourceState, goal: Option<SourceGoal>, step: u8) -> Append<SourceState> {
        let nonce = Nonce([index as u8, self.actors[index].round, step, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
        Append::new(state, goal, nonce, Instant::from_nanos(0))
    }

    fn next_round(&mut self, index: usize, state: SourceState) {
        let actor = &mut self.actors[index];
        actor.left -= 1;
        actor.round += 1;
        let stage = match actor.role {
            Role::Abort(_) => Stage::Waiting,
            Role::Incremental | Role::Full | Role::Floor | Role::Seal | Role::Delete => {
                Stage::Begin(self.append(index, state, None, 0))
            }
        };
        self.actors[index].stage = stage;
    }

    /// The session of the writer `index`, once it has begun.
    fn session_of(&self, index: usize) -> Option<SessionId> {
        match &self.actors.get(index)?.stage {
            Stage::Open(session, _) | Stage::Commit(session, _) => Some(*session),
            Stage::Waiting | Stage::Begin(_) | Stage::Fence(..) | Stage::Over(_) => None,
        }
    }

    /// All that may happen next.
    pub(crate) fn actions(&self, crashes: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        for (index, actor) in self.actors.iter().enumerate() {
            let append = match &actor.stage {
                Stage::Over(_) => continue,
                Stage::Waiting => {
                    // Sessions are seen in the names of their packs.
                    if matches!(actor.role, Role::Abort(target) if self.session_of(target).is_some()) {
                        actions.push(Action::Ask(index, Reply::Honest));
                    }
                    continue;
                }
                Stage::Begin(append) | Stage::Open(_, append) | Stage::Commit(_, append) | Stage::Fence(_, append) => {
                    append
                }
            };
            actions.push(Action::Ask(index, Reply::Honest));
            if self.faults > 0 {
                let replies: &[Reply] = match append.step() {
                    Step::List(_) => &[Reply::Silent, Reply::Stale],
                    Step::Get(_) => &[Reply::Silent],
                    Step::Create(_) => &[Reply::Lost, Reply::Late],
                    Step::Done(_) => &[],
                };
                actions.extend(replies.iter().map(|reply| Action::Ask(index, *reply)));
                if crashes {
                    actions.push(Action::Crash(index));
                }
            }
        }
        actions.extend((0..self.late.len()).map(Action::Land));
        actions
    }

    /// Lets `action` happen.
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Land(which) => {
                let entry = self.late.remove(which);
                self.landed |= self.create(&entry);
            }
            Action::Crash(index) => {
                self.faults -= 1;
                self.actors[index].stage = Stage::Over(End::Crashed);
            }
            Action::Ask(index, reply) => {
                if reply != Reply::Honest {
                    self.faults -= 1;
                }
                self.ask(index, reply);
            }
        }
    }

    fn ask(&mut self, index: usize, reply: Reply) {
        let stage = std::mem::replace(&mut self.actors[index].stage, Stage::Waiting);
        let stage = match stage {
            Stage::Waiting => self.wake(index),
            Stage::Begin(mut append) => {
                self.request(index, &mut append, reply);
                Stage::Begin(append)
            }
            Stage::Open(session, mut append) => {
                self.request(index, &mut append, reply);
                Stage::Open(session, append)
            }
            Stage::Commit(session, mut append) => {
                self.request(index, &mut append, reply);
                Stage::Commit(session, append)
            }
            Stage::Fence(goal, mut append) => {
                self.request(index, &mut append, reply);
                Stage::Fence(goal, append)
            }
            Stage::Over(end) => Stage::Over(end),
        };
        self.actors[index].stage = stage;
        self.advance(index);
    }

    fn wake(&self, index: usize) -> Stage {
        let Role::Abort(target) = self.actors[index].role else { return Stage::Waiting };
        let Some(session) = self.session_of(target) else { return Stage::Waiting };
        let goal = SourceGoal::Abort(session);
        Stage::Fence(goal.clone(), self.append(index, SourceState::default(), Some(goal), 2))
    }

    /// Makes the machine's next request and gives it the store's answer.
    fn request(&mut self, index: usize, append: &mut Append<SourceState>, reply: Reply) {
        let role = self.actors[index].role;
        let lies = (role.writes() || role == Role::Delete).then_some(self.defect);
        let answer = match (append.step(), reply) {
            (Step::Done(_), _) => return,
            (Step::List(_), Reply::Stale) => Answer::Listed(None),
            (Step::List(_) | Step::Get(_), Reply::Silent) => Answer::Unanswered,
            (Step::List(after), _) => {
                Answer::Listed(self.log.range(after.0 + 1..).next_back().map(|(number, _)| LogNumber(*number)))
            }
            (Step::Get(number), _) => match self.log.get(&number.0) {
                None => Answer::Missing,
                Some(stored) => Answer::Found(seen(lies, index, &stored.entry), stored.hash),
            },
            (Step::Create(entry), reply) => {
                let answer = match reply {
                    Reply::Late => {
                        self.late.push(Arc::clone(&entry));
                        Answer::Unanswered
                    }
                    reply => {
                        let created = self.create(&entry);
                        match reply {
                            Reply::Lost => Answer::Unanswered,
                            _ if created => Answer::Created,
                            _ => Answer::Exists,
                        }
                    }
                };
                if answer == Answer::Unanswered && lies == Some(Defect::TrustsSilence) {
                    append.answer(Answer::Created);
                    let (_, _, hash) = encode_entry(&self.realm(), LOG, &*entry);
                    Answer::Found(entry, hash)
                } else {
                    answer
                }
            }
        };
        append.answer(answer);
    }

    /// What follows when a machine is done.
    fn advance(&mut self, index: usize) {
        let stage = self.actors[index].stage.clone();
        let outcome = |append: &Append<SourceState>| match append.step() {
            Step::Done(outcome) => Some(outcome),
            Step::List(_) | Step::Get(_) | Step::Create(_) => None,
        };
        let known = match &stage {
            Stage::Waiting | Stage::Over(_) => return,
            Stage::Begin(append) | Stage::Open(_, append) | Stage::Commit(_, append) | Stage::Fence(_, append) => {
                append.state().clone()
            }
        };
        let next = match stage {
            Stage::Waiting | Stage::Over(_) => return,
            Stage::Begin(append) => match outcome(&append) {
                None => return,
                Some(Outcome::CaughtUp) => self.begun(index, append.into_state()),
                Some(other) => end(&other),
            },
            Stage::Open(session, append) => match outcome(&append) {
                None => return,
                Some(Outcome::Appended(entry)) => {
                    let SourceBody::OpenChain { chain } = entry.body else { unreachable!("asked for a chain") };
                    let goal = SourceGoal::Commit(Box::new(commit(session, chain, None)));
                    Stage::Commit(session, self.append(index, append.into_state(), Some(goal), 2))
                }
                Some(other) => end(&other),
            },
            Stage::Commit(session, append) => match outcome(&append) {
                None => return,
                Some(Outcome::Appended(_) | Outcome::Holds) => {
                    let point = append.state().by_session(&session).expect("the machine's state has its point");
                    self.acknowledged.push(Acknowledged {
                        actor: index,
                        number: point.id.0,
                        point: Some((point.name().to_owned(), session)),
                        fence: None,
                    });
                    end(&Outcome::Holds)
                }
                Some(other) => end(&other),
            },
            Stage::Fence(goal, append) => match outcome(&append) {
                None => return,
                Some(Outcome::Appended(_) | Outcome::Holds) => {
                    let number = append.state().tip().number.0;
                    self.acknowledged.push(Acknowledged { actor: index, number, point: None, fence: Some(goal) });
                    end(&Outcome::Holds)
                }
                Some(other) => end(&other),
            },
        };
        self.actors[index].stage = next;
        if let Stage::Over(_) = self.actors[index].stage
            && self.actors[index].left > 0
        {
            self.next_round(index, known);
        }
    }

    fn begun(&self, index: usize, state: SourceState) -> Stage {
        let actor = &self.actors[index];
        let session = session(index, actor.round, state.tip().number);
        let floor = state.tip().next();
        let with = |goal: &SourceGoal| self.append(index, state, Some(goal.clone()), 1);
        match actor.role {
            Role::Incremental => {
                let goal = SourceGoal::Commit(Box::new(commit(session, ChainId(0), Some(FIRST_POINT))));
                Stage::Commit(session, with(&goal))
            }
            Role::Full => Stage::Open(session, with(&SourceGoal::OpenChain(session))),
            Role::Floor => Stage::Fence(SourceGoal::Floor(floor), with(&SourceGoal::Floor(floor))),
            Role::Seal | Role::Abort(_) => Stage::Fence(SourceGoal::Seal, with(&SourceGoal::Seal)),
            Role::Delete => {
                let goal = SourceGoal::Delete(vec![FIRST_POINT], Dependents::Refuse);
                Stage::Fence(goal.clone(), with(&goal))
            }
        }
    }

    /// The rules, read plainly off the entries: the points that count, by number.
    fn counted(&self) -> BTreeMap<u64, &Commit> {
        let mut counted: BTreeMap<u64, &Commit> = BTreeMap::new();
        let (mut chains, mut floor, mut aborted) = (0, LogNumber(0), BTreeSet::new());
        for (number, stored) in &self.log {
            match &stored.entry.body {
                SourceBody::Seal => break,
                SourceBody::OpenChain { chain } => chains += u32::from(chain.0 == chains),
                SourceBody::Floor { floor: raised } if raised.0 <= *number => floor = floor.max(*raised),
                SourceBody::Floor { .. } => {}
                SourceBody::Abort { session } => {
                    aborted.insert(*session);
                }
                SourceBody::Commit(commit) => {
                    let parent = match commit.parent {
                        None => counted.values().all(|other| other.chain != commit.chain),
                        Some(parent) => counted.get(&parent.0).is_some_and(|parent| parent.chain == commit.chain),
                    };
                    let fresh =
                        counted.values().all(|other| other.name != commit.name && other.session != commit.session);
                    let fenced = aborted.contains(&commit.session) || commit.session.base < floor;
                    if parent && fresh && !fenced && commit.chain.0 < chains && commit.session.base.0 < *number {
                        counted.insert(*number, commit);
                    }
                }
                SourceBody::Delete { .. }
                | SourceBody::Undelete { .. }
                | SourceBody::Head { .. }
                | SourceBody::Writer { .. }
                | SourceBody::Epoch { .. } => {}
            }
        }
        counted
    }

    /// Whether every acknowledged point exists, under the name and for the session that was told.
    ///
    /// What counts is a matter of the entries below alone and entries never change, so a point that
    /// exists in one state of the world exists in all that follow, for every reader that has read so far.
    pub(crate) fn acknowledged_points_exist(&self) -> bool {
        let counted = self.counted();
        self.acknowledged.iter().all(|told| match &told.point {
            None => true,
            Some((name, session)) => {
                counted.get(&told.number).is_some_and(|commit| commit.name == *name && commit.session == *session)
            }
        })
    }

    /// Whether no two acknowledged points share a number or a name.
    pub(crate) fn acknowledged_points_differ(&self) -> bool {
        let points = || self.acknowledged.iter().filter_map(|told| Some((told.number, &told.point.as_ref()?.0)));
        let numbers: BTreeSet<_> = points().map(|(number, _)| number).collect();
        let names: BTreeSet<_> = points().map(|(_, name)| name).collect();
        numbers.len() == points().count() && names.len() == points().count()
    }

    /// Whether no point was acknowledged whose session a fence below it had stopped.
    pub(crate) fn no_fenced_session_is_acknowledged(&self) -> bool {
        self.acknowledged.iter().all(|told| {
            let Some((_, session)) = &told.point else { return true };
            self.log.range(..told.number).all(|(number, stored)| match &stored.entry.body {
                SourceBody::Abort { session: aborted } => aborted != session,
                SourceBody::Floor { floor } => floor.0 > *number || session.base >= *floor,
                SourceBody::Seal => false,
                SourceBody::OpenChain { .. }
                | SourceBody::Commit(_)
                | SourceBody::Delete { .. }
                | SourceBody::Undelete { .. }
                | SourceBody::Head { .. }
                | SourceBody::Writer { .. }
                | SourceBody::Epoch { .. } => true,
            })
        })
    }

    /// Whether behind an acknowledged fence no point counts that it stops, committed late or not.
    pub(crate) fn acknowledged_fences_hold(&self) -> bool {
        let counted = self.counted();
        self.acknowledged.iter().all(|told| {
            let mut behind = counted.range(told.number + 1..).map(|(_, commit)| commit.session);
            match &told.fence {
                None
                | Some(
                    SourceGoal::Commit(_)
                    | SourceGoal::OpenChain(_)
                    | SourceGoal::Delete(..)
                    | SourceGoal::Undelete(_)
                    | SourceGoal::Head(_)
                    | SourceGoal::Writer(_)
                    | SourceGoal::Epoch(_),
                ) => true,
                Some(SourceGoal::Abort(aborted)) => behind.all(|session| session != *aborted),
                Some(SourceGoal::Floor(floor)) => behind.all(|session| session.base >= *floor),
                Some(SourceGoal::Seal) => behind.next().is_none(),
            }
        })
    }

    /// Whether nothing that counted depended on what was deleted on the condition that nothing does, and
    /// whether a deletion that was acknowledged stands.
    pub(crate) fn deletions_are_as_planned(&self) -> bool {
        let counted = self.counted();
        let deletes =
            |stored: &Stored| matches!(&stored.entry.body, SourceBody::Delete { points } if *points == [FIRST_POINT]);
        let mut deletions = self.log.iter().filter(|(_, stored)| deletes(stored)).map(|(number, _)| *number);
        let alone = deletions
            .clone()
            .all(|deletion| counted.range(..deletion).all(|(_, commit)| commit.parent != Some(FIRST_POINT)));
        let asked = self.acknowledged.iter().filter(|told| matches!(told.fence, Some(SourceGoal::Delete(..))));
        alone && asked.map(|told| told.number).max().is_none_or(|told| deletions.any(|deletion| deletion <= told))
    }

    /// Whether all that have read up to the same number agree, with each other and with the rules.
    pub(crate) fn readers_agree(&self) -> bool {
        let mut state = SourceState::default();
        let mut states = BTreeMap::from([(0, state.clone())]);
        for stored in self.log.values() {
            let _void = state.apply(&stored.entry, stored.hash);
            states.insert(state.tip().number.0, state.clone());
        }
        let by_rules: Vec<u64> = self.counted().into_keys().collect();
        let by_fold: Vec<u64> = state.committed().iter().map(|point| point.id.0).collect();
        by_rules == by_fold
            && self.actors.iter().all(|actor| match &actor.stage {
                Stage::Waiting | Stage::Over(_) => true,
                Stage::Begin(append) | Stage::Open(_, append) | Stage::Commit(_, append) | Stage::Fence(_, append) => {
                    states.get(&append.state().tip().number.0) == Some(append.state())
                }
            })
    }

    /// Whether each entry names the one below it, so that whoever wrote it had read that, and all below.
    pub(crate) fn every_entry_continues_the_log(&self) -> bool {
        (1..).zip(&self.log).all(|(expected, (number, stored))| {
            let below = self.log.get(&(number - 1)).map_or(EntryHash::default(), |below| below.hash);
            *number == expected && stored.entry.previous == below
        })
    }

    /// Whether nobody took the log for damaged: the store keeps its promise here.
    pub(crate) fn nobody_is_stopped(&self) -> bool {
        self.ends().all(|(_, end)| end != Some(End::Stopped))
    }

    /// The first promise that is broken.
    pub(crate) fn broken(&self) -> Option<&'static str> {
        type Promise = (&'static str, fn(&World) -> bool);
        let promises: [Promise; 9] = [
            ("acknowledged points exist", World::acknowledged_points_exist),
            ("acknowledged points differ", World::acknowledged_points_differ),
            ("no fenced session is acknowledged", World::no_fenced_session_is_acknowledged),
            ("acknowledged fences hold", World::acknowledged_fences_hold),
            ("deletions are as planned", World::deletions_are_as_planned),
            ("readers agree", World::readers_agree),
            ("every entry continues the log", World::every_entry_continues_the_log),
            ("nobody is stopped", World::nobody_is_stopped),
            ("no commit is void", World::no_commit_is_void),
        ];
        promises.into_iter().find(|(_, holds)| !holds(self)).map(|(name, _)| name)
    }

    /// How each actor ended, if it has.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (Role, Option<End>)> + '_ {
        self.actors.iter().map(|actor| match &actor.stage {
            Stage::Over(end) => (actor.role, Some(*end)),
            Stage::Waiting | Stage::Begin(_) | Stage::Open(..) | Stage::Commit(..) | Stage::Fence(..) => {
                (actor.role, None)
            }
        })
    }

    /// What was acknowledged, in order.
    pub(crate) fn acknowledged(&self) -> &[Acknowledged] {
        &self.acknowledged
    }

    /// Whether a Create took effect after its writer had been left without an answer.
    pub(crate) fn landed(&self) -> bool {
        self.landed
    }

    /// Entries in the log.
    pub(crate) fn entries(&self) -> usize {
        self.log.len()
    }

    /// Whether every commit in the log counts. Who writes one has read all that could make it void;
    /// that it would be void is for writers that do not keep to the protocol.
    pub(crate) fn no_commit_is_void(&self) -> bool {
        let commits = self.log.values().filter(|stored| matches!(stored.entry.body, SourceBody::Commit(_))).count();
        commits == self.counted().len()
    }
}

fn end(outcome: &Outcome<SourceBody>) -> Stage {
    Stage::Over(match outcome {
        Outcome::Appended(_) | Outcome::Holds | Outcome::CaughtUp => End::Acknowledged,
        Outcome::Refused(_) => End::Refused,
        Outcome::Unanswered { .. } => End::Unanswered,
        Outcome::Damaged(_) | Outcome::NotKept(_) | Outcome::Crowded => End::Stopped,
    })
}

/// The entry as the writer `index` gets to see it.
fn seen(lies: Option<Defect>, index: usize, entry: &Arc<Entry>) -> Arc<Entry> {
    let own = entry.nonce.0[0] == index as u8;
    let hidden = match (lies, &entry.body) {
        _ if own || entry.number.0 <= FIRST_POINT.0 => false,
        (Some(Defect::ReadsNothing), _)
        | (Some(Defect::MissesAborts), SourceBody::Abort { .. })
        | (Some(Defect::MissesFloors), SourceBody::Floor { .. })
        | (Some(Defect::MissesSeals), SourceBody::Seal)
        | (Some(Defect::MissesNames), SourceBody::Commit(_)) => true,
        (Some(_) | None, _) => false,
    };
    if !hidden {
        return Arc::clone(entry);
    }
    Arc::new(LogEntry { body: SourceBody::Floor { floor: LogNumber(0) }, ..(**entry).clone() })
}
