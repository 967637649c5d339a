//! Why an entry counts for nothing, and why a writer is not even to write it.

use crate::base::{Class, Classed};
use crate::chain::name::NameError;
use crate::chain::origin::describe;
use crate::format::author::Role;
use crate::format::log::{Origin, SourceKind};
use crate::format::{ChainId, Epoch, KeyId, LogNumber, PointId, SessionId, SourceId};

/// Why an entry has no effect, to every reader alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Void {
    /// The log had ended.
    #[error("the source has been removed: its log is sealed")]
    Sealed,
    /// Somebody aborted the session.
    #[error("session {0:?} was aborted because it seemed to have stopped; capture again")]
    Aborted(SessionId),
    /// The session began before the floor.
    #[error("session {session:?} began before entry {floor}, the oldest that may still commit; capture again")]
    BelowFloor {
        /// The session.
        session: SessionId,
        /// The floor.
        floor: LogNumber,
    },
    /// The session claims to have begun where it cannot have been yet.
    #[error("session {0:?} claims a base that is not below its commit")]
    BaseAhead(SessionId),
    /// The session has committed before.
    #[error("session {session:?} has committed already, as point {point}")]
    Spent {
        /// The session.
        session: SessionId,
        /// Its point.
        point: PointId,
    },
    /// No such chain is open.
    #[error("chain {0} has not been opened")]
    UnknownChain(ChainId),
    /// A chain has one full point.
    #[error("chain {0} has a full point already")]
    SecondFull(ChainId),
    /// The parent is no point.
    #[error("the parent, point {0}, does not exist")]
    UnknownParent(PointId),
    /// The parent belongs elsewhere.
    #[error("the parent, point {parent}, belongs to chain {chain}")]
    ForeignParent {
        /// The parent.
        parent: PointId,
        /// Its chain.
        chain: ChainId,
    },
    /// A point of that name exists.
    #[error("a point named {0} exists")]
    NameTaken(String),
    /// A name breaks its rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The chain's id is not the next.
    #[error("chain {opened} was opened where {next} is next")]
    ChainOutOfTurn {
        /// As the entry says.
        opened: ChainId,
        /// As it should be.
        next: ChainId,
    },
    /// A floor above its own entry would void sessions that have not begun.
    #[error("the floor {0} is above its own entry")]
    FloorAhead(LogNumber),
    /// No such point was ever committed.
    #[error("there is no point {0}")]
    UnknownPoint(PointId),
    /// A list of points is empty or not ascending.
    #[error("an entry names no points, or not in their order")]
    PointsOutOfOrder,
    /// Nothing builds on a deleted point.
    #[error("point {0} is deleted: undelete it first")]
    HeadInTrash(PointId),
    /// A source of that name exists.
    #[error("a source named {0} exists")]
    SourceTaken(String),
    /// The source does not exist, or no longer.
    #[error("there is no source {0}")]
    NoSource(SourceId),
    /// Nobody is known to have written it.
    #[error("its signature is not valid")]
    Unsigned,
    /// It was signed with keys that were replaced.
    #[error("it is signed with keys of epoch {signed}, and only epoch {epoch} counts here: use a key of this epoch")]
    OldKeys {
        /// As signed.
        signed: Epoch,
        /// The oldest that counts.
        epoch: Epoch,
    },
    /// The key's role does not allow it.
    #[error("a {} key may not do this: {}", role_name(*.0), may(*.0))]
    NotAllowed(Role),
    /// The source is another writer's, or nobody's who only writes.
    #[error(
        "this key may not add points to this source: it belongs to another key; `amberfs key grant`, run with a full key, hands it over"
    )]
    NotOwner(KeyId),
    /// The key was removed.
    #[error("this key was removed from the repository")]
    Revoked(KeyId),
    /// The repository's log names another entry in its place.
    #[error("the repository's log names another entry in its place")]
    Replaced,
    /// Generations of keys are counted upwards.
    #[error("epoch {0} is not above the one that counts")]
    EpochFalls(Epoch),
}

impl Classed for Void {
    fn class(&self) -> Class {
        match self {
            Void::Sealed
            | Void::Aborted(_)
            | Void::BelowFloor { .. }
            | Void::Spent { .. }
            | Void::NameTaken(_)
            | Void::SecondFull(_)
            | Void::HeadInTrash(_)
            | Void::SourceTaken(_) => Class::Conflict,
            Void::UnknownParent(_) | Void::NoSource(_) | Void::UnknownPoint(_) => Class::NotFound,
            Void::BaseAhead(_)
            | Void::UnknownChain(_)
            | Void::ForeignParent { .. }
            | Void::ChainOutOfTurn { .. }
            | Void::PointsOutOfOrder
            | Void::EpochFalls(_)
            | Void::FloorAhead(_) => Class::Invalid,
            Void::Replaced => Class::Corrupt,
            Void::Name(error) => error.class(),
            Void::Unsigned | Void::OldKeys { .. } | Void::NotAllowed(_) | Void::NotOwner(_) | Void::Revoked(_) => {
                Class::Denied
            }
        }
    }
}

/// Why a writer must give up its goal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The entry would be void.
    #[error(transparent)]
    Void(#[from] Void),
    /// The name belongs to a source that is captured from elsewhere.
    #[error(
        "source {name} is captured from {}, not from {}: choose another name, or move it here with --adopt",
        describe(recorded),
        describe(wanted)
    )]
    OtherOrigin {
        /// The source.
        name: String,
        /// Where it is captured from.
        recorded: Box<Origin>,
        /// Where the caller is.
        wanted: Box<Origin>,
    },
    /// The name belongs to a source of another kind.
    #[error("source {name} is a {}, not a {}: choose another name", kind_name(*recorded), kind_name(*wanted))]
    OtherKind {
        /// The source.
        name: String,
        /// Its kind.
        recorded: SourceKind,
        /// What the caller has.
        wanted: SourceKind,
    },
    /// Points descend from what was to be deleted.
    #[error("{} points depend on it: {}", dependents.len(), listed(dependents))]
    Dependents {
        /// What was to be deleted.
        points: Vec<PointId>,
        /// What descends from it, in log order.
        dependents: Vec<PointId>,
    },
}

impl Classed for Refusal {
    fn class(&self) -> Class {
        match self {
            Refusal::Void(void) => void.class(),
            Refusal::OtherOrigin { .. } | Refusal::OtherKind { .. } | Refusal::Dependents { .. } => Class::Conflict,
        }
    }
}

/// A few points, for messages.
fn listed(points: &[PointId]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = points.iter().take(SHOWN).map(|point| format!("#{point}")).collect();
    let more = if points.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// A kind of source, for messages.
pub(crate) fn kind_name(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Tree => "directory tree",
        SourceKind::Stream => "stream",
        SourceKind::Disk => "disk",
    }
}

/// A role, for messages.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::Full => "full",
        Role::Collector(_) => "collector",
        Role::Writer(_) => "writer",
        Role::Nobody => "foreign",
    }
}

/// What a role may do, for messages.
fn may(role: Role) -> &'static str {
    match role {
        Role::Full => "it may do everything",
        Role::Collector(_) => "it may delete and collect, not capture; use a writer key or a full key",
        Role::Writer(_) => "it may add points to its own sources and nothing else; use a full key",
        Role::Nobody => "it may do nothing",
    }
}
