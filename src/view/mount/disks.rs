//! The nodes that points of disks have beside their entries.

use super::{MountView, chain_fault};
use crate::format::{PointId, SourceId};
use crate::view::disk::{DiskView, Shown};
use crate::view::namespace::{Attr, Found, NodeId, ViewError};

/// Something that a disk shows beside what its point holds.
pub(super) struct OfDisk {
    pub(super) source: SourceId,
    pub(super) point: PointId,
    pub(super) disk: DiskView,
    pub(super) shown: Shown,
}

impl MountView {
    /// The disk that a point holds; none if it holds anything else.
    pub(super) fn disk(&self, source: SourceId, point: PointId) -> Result<Option<DiskView>, ViewError> {
        let known = self.known_point(source, point)?;
        let Some(facts) = &known.commit.disk else { return Ok(None) };
        let parent = known.commit.parent.map(|parent| self.source_log(source).load().map(|state| (state, parent)));
        let parent = parent.transpose().map_err(chain_fault)?;
        let parent = parent.and_then(|(state, parent)| state.ever(parent).map(|point| self.point_view(source, point)));
        match DiskView::new(self.point_view(source, &known), parent, facts) {
            Ok(disk) => Ok(Some(disk.with_last_map(&self.last_map))),
            // Whoever wrote that commit lied: it holds no disk.
            Err(ViewError::NotFound) => Ok(None),
            Err(error) => Err(self.located(error, source, point)),
        }
    }

    /// What a node of content is that a disk shows beside what its point holds; none if it is no such.
    pub(super) fn shown(&self, node: NodeId) -> Result<Option<OfDisk>, ViewError> {
        let (source, point, ordinal) = self.nodes.place(node).ok_or(ViewError::NotFound)?;
        let Some(shown) = Shown::at(ordinal) else { return Ok(None) };
        let Some(disk) = self.disk(source, point)? else { return Ok(None) };
        Ok(Some(OfDisk { source, point, disk, shown }))
    }

    pub(super) fn shown_found(&self, of: &OfDisk, shown: Shown) -> Result<Found, ViewError> {
        self.shown_as(of, shown, |node| Ok((of.disk.attr(shown, node)?, true)))
    }

    /// As a listing tells of it: what is not final is asked for again.
    pub(super) fn shown_listed(&self, of: &OfDisk, shown: Shown) -> Result<Found, ViewError> {
        self.shown_as(of, shown, |node| of.disk.listed(shown, node))
    }

    fn shown_as(
        &self,
        of: &OfDisk,
        shown: Shown,
        ask: impl FnOnce(NodeId) -> Result<(Attr, bool), ViewError>,
    ) -> Result<Found, ViewError> {
        let node = self.nodes.content((of.source, of.point, shown.ordinal()));
        let node =
            node.ok_or_else(|| ViewError::Invalid("this disk has more partitions than a mount can number".into()))?;
        let (mut attr, immutable) = ask(node).map_err(|error| self.located(error, of.source, of.point))?;
        if self.settings.own_all {
            (attr.uid, attr.gid) = self.settings.owner;
        }
        Ok(Found { attr, immutable })
    }
}
