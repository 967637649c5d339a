//! What a deletion would take, before it is asked of the log.
//!
//! A plan is made from the log as somebody has read it, shown, and carried out as it was shown: the log is
//! asked to delete exactly its points and to refuse if another one descends from them by then. So a point
//! that is committed between the look and the deed is neither deleted unseen nor left without notice.
//! With [`Dependents::Keep`] no other point is touched, so there is nothing to refuse.

use std::sync::Arc;

use super::state::{Dependents, Refusal, SourceGoal, Void};
use super::{ChainError, Point, SourceLog, SourceState};
use crate::format::PointId;

/// Points that are to be deleted, and what that means for others.
#[derive(Debug, Clone)]
pub struct DeletionPlan {
    /// The points that were named, in log order.
    pub named: Vec<Arc<Point>>,
    /// The points that descend from them and are not named, in log order.
    pub dependents: Vec<Arc<Point>>,
    /// What becomes of those.
    pub mode: Dependents,
}

impl DeletionPlan {
    /// The plan to delete `points`; what is in the trash already is left out.
    ///
    /// # Errors
    /// [`Void::UnknownPoint`] for what never was a point.
    pub fn plan(state: &SourceState, points: &[PointId], mode: Dependents) -> Result<DeletionPlan, Void> {
        if let Some(unknown) = points.iter().find(|point| state.ever(**point).is_none()) {
            return Err(Void::UnknownPoint(*unknown));
        }
        let mut named: Vec<Arc<Point>> = points.iter().filter_map(|point| state.point(*point).cloned()).collect();
        named.sort_by_key(|point| point.id);
        named.dedup_by_key(|point| point.id);
        let ids: Vec<PointId> = named.iter().map(|point| point.id).collect();
        let dependents = state.dependents(&ids).into_iter().cloned().collect();
        Ok(DeletionPlan { named, dependents, mode })
    }

    /// Whether dependents are in its way.
    pub fn is_refused(&self) -> bool {
        self.mode == Dependents::Refuse && !self.dependents.is_empty()
    }

    /// The points that it deletes, in log order.
    pub fn points(&self) -> Vec<&Arc<Point>> {
        let below = if self.mode == Dependents::Cascade { self.dependents.as_slice() } else { &[] };
        let mut points: Vec<&Arc<Point>> = self.named.iter().chain(below).collect();
        points.sort_by_key(|point| point.id);
        points
    }

    /// Deletes the points: none of them is shown once this returns. Given again, it holds already.
    ///
    /// # Errors
    /// [`ChainError::Refused`] with [`Refusal::Dependents`] where others descend from them by now, or did
    /// before and were to be respected; nothing is deleted then. After [`ChainError::InFlight`] all or none may be.
    pub fn carry_out(&self, log: &SourceLog) -> Result<(), ChainError> {
        if self.points().is_empty() {
            return Ok(());
        }
        let mode = match self.mode {
            Dependents::Keep => Dependents::Keep,
            Dependents::Refuse | Dependents::Cascade => Dependents::Refuse,
        };
        log.append(SourceGoal::Delete(self.points().iter().map(|point| point.id).collect(), mode)).map(drop)
    }

    /// Whether a plan failed because others descend from its points.
    pub fn is_outdated_by(error: &ChainError) -> bool {
        matches!(error, ChainError::Refused { refusal: Refusal::Dependents { .. }, .. })
    }
}
