//! Why an entry counts for nothing, and why a writer is not even to write it.

use crate::base::{Class, Classed};
use crate::chain::name::NameError;
use crate::chain::origin::describe;
use crate::format::log::{Origin, SourceKind};
use crate::format::{ChainId, LogNumber, PointId, SessionId, SourceId};

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
            | Void::FloorAhead(_) => Class::Invalid,
            Void::Name(error) => error.class(),
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
