//! Faults of a mount's view, with where they happened: what `.amberfs/errors` tells.

use super::MountView;
use crate::format::{PointId, SourceId};
use crate::view::inode::Inode;
use crate::view::namespace::ViewError;
use crate::view::point::PointView;

impl MountView {
    /// A fault with the point it happened in, for `.amberfs/errors`.
    pub(super) fn located(&self, error: ViewError, source: SourceId, point: PointId) -> ViewError {
        behind(error, || {
            let source_name = self.record(source).map_or_else(|_| source.to_string(), |record| record.name);
            let point_name =
                self.known_point(source, point).map_or_else(|_| point.to_string(), |p| p.name().to_owned());
            format!("{source_name}@{point_name}")
        })
    }

    /// As [`MountView::located`], with the file's path in front.
    pub(super) fn located_file(
        &self,
        error: ViewError,
        source: SourceId,
        point: PointId,
        view: &PointView,
        inode: &Inode,
    ) -> ViewError {
        let path = || self.paths.path((source, point), view, inode);
        self.located(behind(error, path), source, point)
    }

    /// As [`MountView::located`], with the path of `name` in `directory` in front, whatever it names.
    pub(super) fn located_name(
        &self,
        error: ViewError,
        (source, point): (SourceId, PointId),
        view: &PointView,
        directory: &Inode,
        name: &[u8],
    ) -> ViewError {
        let path = || {
            let above = self.paths.path((source, point), view, directory);
            format!("{}/{}", above.trim_end_matches('/'), String::from_utf8_lossy(name))
        };
        self.located(behind(error, path), source, point)
    }
}

/// A fault with `place` in front; other errors say all that there is to say.
fn behind(error: ViewError, place: impl FnOnce() -> String) -> ViewError {
    match error {
        ViewError::Fault { context, cause } => ViewError::Fault { context: format!("{}: {context}", place()), cause },
        other => other,
    }
}
