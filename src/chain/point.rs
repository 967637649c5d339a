//! A point: a commit that counts.

use std::sync::Arc;

use crate::base::Instant;
use crate::format::log::Commit;
use crate::format::{ChainId, PointId};

/// A point of a source; immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its identity: the number of its commit entry.
    pub id: PointId,
    /// When the commit entry was written, by the writer's clock.
    pub committed: Instant,
    /// Its place in its chain in log order; 0 is the full point.
    pub position: u32,
    /// What its capture recorded.
    pub commit: Arc<Commit>,
}

impl Point {
    /// Its name in the mount.
    pub fn name(&self) -> &str {
        &self.commit.name
    }

    /// The chain it belongs to.
    pub fn chain(&self) -> ChainId {
        self.commit.chain
    }

    /// Whether it is self-sufficient.
    pub fn is_full(&self) -> bool {
        self.commit.parent.is_none()
    }

    /// Whether it carries `label`.
    pub fn has_label(&self, label: &str) -> bool {
        self.commit.labels.iter().any(|own| own == label)
    }
}
