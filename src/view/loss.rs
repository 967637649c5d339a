//! What a damaged log leaves unsure: whether something exists that nothing known tells of.
//!
//! Readers go on past a lost entry and show what the others say. But nobody knows what it said, so a
//! name that is not among what is known may exist, and what is newest may not be the newest. Where that
//! matters the answer is a fault: it never looks like absence.

use crate::chain::state::{Damage, Fault, Tip};
use crate::chain::{ChainError, Point, SourceState};
use crate::format::object::LogId;
use crate::format::{LogNumber, SourceId};
use crate::view::moment::Moment;
use crate::view::namespace::ViewError;
use crate::view::selector::Pick;

/// The fault that an entry is lost which could have changed the answer, if one is.
pub(super) fn doubt(tip: &Tip, log: LogId, matters: impl Fn(LogNumber) -> bool) -> Option<ViewError> {
    let lost = |damage: &&Damage| match damage.fault {
        Fault::Missing
        | Fault::Unreadable(_)
        | Fault::RolledBack(_)
        | Fault::Replaced
        | Fault::Shortened(_)
        | Fault::NewerKeys(_) => matters(damage.number),
        Fault::Discontinuous | Fault::Checkpoint(_) | Fault::Forked | Fault::Withheld(_) => false,
    };
    let damage = tip.damage.iter().find(lost)?;
    Some(ViewError::fault("tell whether it exists", ChainError::damaged(log, damage)))
}

/// The fault that `point` may not be what `pick` means: a lost entry may hold a point that is. What is picked
/// by its own name or number is never in doubt.
pub fn of_answer(pick: &Pick, state: &SourceState, source: SourceId, point: &Point) -> Option<ViewError> {
    let behind = |lost: LogNumber| lost.0 > point.id.0;
    let matters = |lost: LogNumber| match pick {
        Pick::Id(_) => false,
        Pick::Newest | Pick::Back(_) | Pick::Label(_) | Pick::At(Moment::Latest { .. }) => behind(lost),
        Pick::At(moment) => {
            // Whatever stands behind the next point was captured later still.
            let next = state.points().iter().find(|next| next.id > point.id);
            moment.to_string() != point.name() && behind(lost) && next.is_none_or(|next| lost.0 < next.id.0)
        }
    };
    doubt(state.read(), LogId::Source(source), matters)
}

/// The fault that what a source does not have may be lost, if anything is.
pub fn of_absence(state: &SourceState, source: SourceId) -> Option<ViewError> {
    doubt(state.read(), LogId::Source(source), |_| true)
}

/// Why a name is not among what is known: it does not exist, unless an entry is lost that may have named it.
pub(super) fn absence(tip: &Tip, log: LogId) -> ViewError {
    doubt(tip, log, |_| true).unwrap_or(ViewError::NotFound)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{Class, Classed};
    use crate::chain::state::LogState;
    use crate::chain::testing::{commit, session, tell};
    use crate::format::ChainId;
    use crate::format::log::SourceBody;

    /// A chain, a point on each of three days, and a lost entry before the third.
    fn holed() -> SourceState {
        let mut state = SourceState::default();
        tell(&mut state, SourceBody::OpenChain { chain: ChainId(0) }).unwrap();
        for (number, parent) in [(1, None), (2, Some(2))] {
            let commit = commit(session(number, 1), 0, parent, number.cast_signed() * 86_400);
            tell(&mut state, SourceBody::Commit(Arc::new(commit))).unwrap();
        }
        let next = state.tip().next();
        state.pass(next, Fault::Missing);
        let last = commit(session(4, 1), 0, Some(3), 5 * 86_400);
        tell(&mut state, SourceBody::Commit(Arc::new(last))).unwrap();
        state
    }

    #[test]
    fn an_answer_is_in_doubt_where_a_lost_entry_may_have_held_a_better_one() {
        let state = holed();
        let doubted = |text: &str| {
            let pick = format!("home{text}").parse::<crate::view::Selector>().unwrap().pick;
            let now = crate::base::Instant::from_nanos(6 * 86_400_000_000_000);
            let point = pick.resolve(&state, now, &jiff::tz::TimeZone::UTC).unwrap();
            of_answer(&pick, &state, SourceId(1), point).is_some()
        };
        for (text, doubt) in [
            ("", false),
            ("~1", true),
            ("#3", false),
            ("@1970-01-02T00-00-00Z", false),
            ("@1970-01-03T00-00-00Z", false),
            ("@1970-01-02T12-00Z", false),
            ("@1970-01-04T12-00Z", true),
            ("@latest~2", true),
            ("@now", false),
        ] {
            assert_eq!(doubted(text), doubt, "{text}");
        }
        assert!(of_absence(&state, SourceId(1)).is_some());
        assert!(of_absence(&SourceState::default(), SourceId(1)).is_none());
    }

    #[test]
    fn only_a_lost_entry_leaves_doubt() {
        let damage = |number, fault| Damage { number: LogNumber(number), fault };
        let tip = |damage| Tip { damage, ..Tip::default() };
        let whole = tip(vec![damage(64, Fault::Checkpoint("short".into())), damage(3, Fault::Discontinuous)]);
        assert_eq!(absence(&whole, LogId::Repo).class(), Class::NotFound);
        let holed = tip(vec![damage(3, Fault::Missing), damage(5, Fault::Unreadable("short".into()))]);
        let fault = absence(&holed, LogId::Repo);
        assert_eq!(fault.class(), Class::Corrupt);
        assert!(fault.to_string().contains("log/00000000000000000003"), "{fault}");
        assert!(doubt(&holed, LogId::Repo, |lost| lost.0 > 5).is_none());
        assert!(doubt(&holed, LogId::Repo, |lost| lost.0 > 4).unwrap().to_string().contains("0005"));
    }
}
