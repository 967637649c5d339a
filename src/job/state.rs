//! Where a job stands, and the only steps between places.
//!
//! ```text
//! capture  queued → quiescing → captured → uploading → committed | partial
//! verify   queued → verifying → verified
//! delete   queued → writing → deleted
//! undelete queued → writing → undeleted
//! any place that is not an end  → failed | cancelled | timed-out
//! ```
//!
//! Steps go forward only and may skip; a step that is not forward is refused, so an old message
//! that arrives late can never move a job back, and an end is an end for ever. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a job stands. `captured` is the moment from which the source may change again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Accepted and journalled; nothing has been done.
    Queued,
    /// A capture has begun; its source must not be disturbed more than it tolerates.
    Quiescing,
    /// The source may change again.
    Captured,
    /// What was captured is on its way into the repository.
    Uploading,
    /// A verification is under way.
    Verifying,
    /// What is asked for is on its way into the source's log.
    Writing,
    /// The point exists.
    Committed,
    /// The point exists, and some of its files could not be captured exactly.
    Partial,
    /// Nothing is damaged.
    Verified,
    /// The points are in the trash.
    Deleted,
    /// The points are out of the trash.
    Undeleted,
    /// It ended without what it was meant to give.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
    /// It took too long.
    TimedOut,
}

impl State {
    /// All of them, in the order in which they are documented.
    pub const ALL: [State; 14] = [
        State::Queued,
        State::Quiescing,
        State::Captured,
        State::Uploading,
        State::Verifying,
        State::Writing,
        State::Committed,
        State::Partial,
        State::Verified,
        State::Deleted,
        State::Undeleted,
        State::Failed,
        State::Cancelled,
        State::TimedOut,
    ];

    /// The word in `jobs/<id>/state`.
    pub fn word(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Quiescing => "quiescing",
            State::Captured => "captured",
            State::Uploading => "uploading",
            State::Verifying => "verifying",
            State::Writing => "writing",
            State::Committed => "committed",
            State::Partial => "partial",
            State::Verified => "verified",
            State::Deleted => "deleted",
            State::Undeleted => "undeleted",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::TimedOut => "timed-out",
        }
    }

    /// Whether nothing comes after it.
    pub fn is_end(self) -> bool {
        self.rank() == END
    }

    /// Whether other points are shown than before.
    pub fn changed_points(self) -> bool {
        matches!(self, State::Committed | State::Partial | State::Deleted | State::Undeleted)
    }

    /// Whether a job that stands here may step to `next`.
    pub fn may_become(self, next: State) -> bool {
        if self.is_end() {
            return false;
        }
        match next {
            State::Failed | State::Cancelled | State::TimedOut => true,
            // A point or a verdict comes only of work that began.
            State::Committed | State::Partial => {
                matches!(self, State::Quiescing | State::Captured | State::Uploading)
            }
            State::Verified => self == State::Verifying,
            State::Deleted | State::Undeleted => self == State::Writing,
            State::Verifying | State::Writing => self == State::Queued,
            State::Quiescing | State::Captured | State::Uploading => {
                !matches!(self, State::Verifying | State::Writing) && next.rank() > self.rank()
            }
            State::Queued => false,
        }
    }

    fn rank(self) -> u8 {
        match self {
            State::Queued => 0,
            State::Quiescing | State::Verifying | State::Writing => 1,
            State::Captured => 2,
            State::Uploading => 3,
            State::Committed
            | State::Partial
            | State::Verified
            | State::Deleted
            | State::Undeleted
            | State::Failed
            | State::Cancelled
            | State::TimedOut => END,
        }
    }
}

const END: u8 = 4;

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legal_steps_are_these() {
        use State::*;
        let failures = [Failed, Cancelled, TimedOut];
        let table: &[(State, &[State])] = &[
            (Queued, &[Quiescing, Captured, Uploading, Verifying, Writing]),
            (Quiescing, &[Captured, Uploading, Committed, Partial]),
            (Captured, &[Uploading, Committed, Partial]),
            (Uploading, &[Committed, Partial]),
            (Verifying, &[Verified]),
            (Writing, &[Deleted, Undeleted]),
        ];
        for from in State::ALL {
            let forward = table.iter().find(|(state, _)| *state == from).map_or(&[][..], |(_, next)| next);
            for to in State::ALL {
                let legal = !from.is_end() && (forward.contains(&to) || failures.contains(&to));
                assert_eq!(from.may_become(to), legal, "{from} → {to}");
            }
        }
    }

    #[test]
    fn words_are_those_of_the_journal() {
        for state in State::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
    }
}
