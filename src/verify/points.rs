//! Walks the points of a chain, each against the one before: what is new is read and checked.
//!
//! What is known of a node that cannot be read stays known for the points that share it, so that each
//! point is told apart into sound and touched, at a cost that follows the changes.

use std::collections::HashSet;
use std::sync::Arc;

use super::compare::{Place, Side, Stop, Walk, compare};
use super::findings::Findings;
use super::footers::Footers;
use super::report::Harm;
use super::rules::Rules;
use super::{Progress, VerifyError};
use crate::chain::Point;
use crate::format::entry::{Body, Content};
use crate::format::frame::FrameKind;
use crate::format::leaf::{Entries, Maps, Usage};
use crate::format::log::Roots;
use crate::format::node::{Node, TreeKind};
use crate::format::object::{LogId, Object};
use crate::format::{ChunkRef, FrameRef, Key, LogNumber, PackId, SessionId, problems};
use crate::repo::{Reader, RepoError};

/// The walk over a chain's points.
pub(super) struct PointCheck<'a> {
    reader: Reader,
    findings: &'a Findings<'a>,
    progress: &'a Progress,
    footers: Footers<'a>,
    rules: Rules,
    key: [u8; 32],
    /// The point that `rules` stand at.
    at: Option<Roots>,
    lost_nodes: HashSet<FrameRef>,
    /// Nodes of names and maps of the present point that cannot be read.
    holes: i64,
    /// Nodes of its usage tree that cannot be read: no file needs them.
    usage_holes: i64,
    /// Chunks of the present point that cannot be read.
    lost_chunks: i64,
    /// Whether anything of any point so far cannot be read.
    harmed: bool,
    /// Sessions of points of this chain so far, with the packs of each; none when entries of the log are lost.
    owners: Option<HashSet<(SessionId, u32)>>,
}

impl<'a> PointCheck<'a> {
    /// `log_is_whole`: whether every point that ever was can be known.
    pub(super) fn new(
        reader: Reader,
        findings: &'a Findings<'a>,
        progress: &'a Progress,
        key: [u8; 32],
        log_is_whole: bool,
    ) -> PointCheck<'a> {
        PointCheck {
            footers: Footers::new(reader.clone(), findings),
            reader,
            findings,
            progress,
            rules: Rules::new(key),
            key,
            at: None,
            lost_nodes: HashSet::new(),
            holes: 0,
            usage_holes: 0,
            lost_chunks: 0,
            harmed: false,
            owners: log_is_whole.then(HashSet::new),
        }
    }

    /// Whether anything that a point refers to cannot be read.
    pub(super) fn is_harmed(&self) -> bool {
        self.harmed
    }

    /// Checks the next point of the chain; says whether all of its files can be had.
    pub(super) fn check(&mut self, point: &Arc<Point>) -> Result<bool, VerifyError> {
        self.progress.check()?;
        self.progress.at(|| format!("point {}", point.name()));
        let commit = &point.commit;
        if let Some(owners) = &mut self.owners {
            owners.extend((0..commit.packs).map(|pack| (commit.session, pack)));
        }
        let mut sound = true;
        match self.walk(&commit.roots) {
            Ok(()) => {
                self.at = Some(commit.roots);
                if self.holes == 0 && self.usage_holes == 0 {
                    for what in self.rules.broken(commit.next_file) {
                        self.contradiction(point, what);
                        sound = false;
                    }
                }
                if commit.disk.as_ref().is_some_and(|facts| !facts.is_possible()) {
                    self.contradiction(point, "there is no such disk as it says".to_owned());
                    sound = false;
                }
                sound &= self.holes == 0 && self.lost_chunks == 0;
            }
            Err(Stop::Contradiction(place, what)) => {
                let object = Object::Pack(self.reader.source(), place.branch.node.frame.pack).name();
                let what = format!("point {} contradicts itself at this node: {what}", point.name());
                self.findings.note(&object, Harm::Contradiction, Some(place.branch.node.frame.offset), what);
                self.start_over();
                sound = false;
            }
            Err(Stop::Failed(error)) => return Err(error),
        }
        if let Some(frame) = &commit.problems {
            self.problems(frame)?;
        }
        self.progress.add_point();
        Ok(sound)
    }

    /// Forgets the point at hand, of which only a part is known.
    fn start_over(&mut self) {
        self.rules = Rules::new(self.key);
        (self.at, self.holes, self.usage_holes, self.lost_chunks) = (None, 0, 0, 0);
    }

    fn contradiction(&self, point: &Point, what: String) {
        let object = Object::Entry(LogId::Source(self.reader.source()), LogNumber(point.id.0)).name();
        self.findings.note(&object, Harm::Contradiction, None, format!("point {}: {what}", point.name()));
    }

    fn problems(&mut self, frame: &FrameRef) -> Result<(), VerifyError> {
        let object = Object::Pack(self.reader.source(), frame.pack).name();
        let read = self.reader.fetch(frame, FrameKind::Problems);
        let read = read.and_then(|payload| problems::decode(&payload).map_err(RepoError::object(&object)));
        match read {
            Ok(_) => self.footers.expect_listed(frame, FrameKind::Problems),
            Err(error) => {
                self.harmed = true;
                self.findings.lose_frame(self.reader.source(), frame.pack, frame.ordinal);
                self.findings.note_error(&object, Some(frame.offset), error)
            }
        }
    }

    fn walk(&mut self, roots: &Roots) -> Result<(), Stop> {
        let at = self.at;
        let old = at.as_ref();
        compare::<Entries>(old.map(|old| old.entries), Some(roots.entries), self)?;
        compare::<Maps>(old.and_then(|old| old.maps), roots.maps, self)?;
        compare::<Usage>(old.and_then(|old| old.usage), roots.usage, self)
    }

    fn node<K: TreeKind>(&mut self, side: Side, place: &Place) -> Result<Option<Node<K>>, VerifyError> {
        self.progress.check()?;
        let pointer = &place.branch.node.frame;
        if self.lost_nodes.contains(pointer) {
            self.count_hole(K::FRAME, if side == Side::New { 1 } else { -1 });
            return Ok(None);
        }
        let object = Object::Pack(self.reader.source(), pointer.pack).name();
        let read = self.reader.fetch(pointer, K::FRAME);
        let node =
            read.and_then(|payload| Node::decode(&payload, &place.branch.node).map_err(RepoError::object(&object)));
        match node {
            Ok(node) => {
                if side == Side::New {
                    self.progress.add_bytes(u64::from(pointer.stored_bytes));
                    self.check_owner(&pointer.pack);
                    self.footers.expect_listed(pointer, K::FRAME)?;
                }
                Ok(Some(node))
            }
            Err(error) => {
                self.findings.note_error(&object, Some(pointer.offset), error)?;
                self.findings.lose_frame(self.reader.source(), pointer.pack, pointer.ordinal);
                self.lost_nodes.insert(*pointer);
                // One that could be read a moment ago has been taken in, and cannot be taken back now.
                self.count_hole(K::FRAME, 1);
                Ok(None)
            }
        }
    }

    fn count_hole(&mut self, kind: FrameKind, change: i64) {
        self.harmed = true;
        if kind == FrameKind::Usage {
            self.usage_holes += change;
        } else {
            self.holes += change;
        }
    }

    fn chunk(&mut self, side: Side, chunk: &ChunkRef, hash: Option<&[u8; 16]>) -> Result<(), VerifyError> {
        if side == Side::New {
            self.check_owner(&chunk.frame.pack);
        }
        if !self.footers.has_chunk(chunk, hash)? {
            self.harmed = true;
            self.lost_chunks += if side == Side::New { 1 } else { -1 };
        }
        Ok(())
    }

    fn check_owner(&self, pack: &PackId) {
        let Some(owners) = &self.owners else { return };
        if !owners.contains(&(pack.session, pack.ordinal.0)) {
            let object = Object::Pack(self.reader.source(), *pack).name();
            let what = "a point refers to this pack, which neither it nor an older point of its chain has written";
            self.findings.note(&object, Harm::Contradiction, None, what);
        }
    }
}

impl Walk<Entries> for PointCheck<'_> {
    fn read(&mut self, side: Side, place: &Place) -> Result<Option<Node<Entries>>, VerifyError> {
        self.node(side, place)
    }

    fn leaf(&mut self, side: Side, _place: &Place, items: &[(Key, crate::format::entry::Entry)]) -> Result<(), Stop> {
        for (key, entry) in items {
            self.rules.entry(side, key, entry);
            if let Body::File(Content::Extents(extents)) = &entry.body {
                for extent in extents {
                    self.chunk(side, &extent.chunk, None)?;
                }
            }
        }
        Ok(())
    }
}

impl Walk<Maps> for PointCheck<'_> {
    fn read(&mut self, side: Side, place: &Place) -> Result<Option<Node<Maps>>, VerifyError> {
        self.node(side, place)
    }

    fn leaf(&mut self, side: Side, place: &Place, items: &[(Key, crate::format::map::MapPage)]) -> Result<(), Stop> {
        let ends = items.iter().skip(1).map(|(key, _)| Some(key)).chain([place.before.as_ref()]);
        for ((key, page), behind) in items.iter().zip(ends) {
            self.rules.page(side, key, page);
            for extent in &page.extents {
                self.chunk(side, &extent.chunk, Some(&extent.hash))?;
            }
            let (Ok((file, _)), Some(last)) = (key.split_page(), page.extents.last()) else { continue };
            let end = last.offset.saturating_add(u64::from(last.chunk.bytes));
            if side == Side::New
                && let Some(Ok((next_file, next_start))) = behind.map(Key::split_page)
                && file == next_file
                && end > next_start
            {
                let what = format!("a page of file {file} ends at byte {end}, behind where the next begins");
                return Err(Stop::Contradiction(Box::new(place.clone()), what));
            }
        }
        Ok(())
    }
}

impl Walk<Usage> for PointCheck<'_> {
    fn read(&mut self, side: Side, place: &Place) -> Result<Option<Node<Usage>>, VerifyError> {
        self.node(side, place)
    }

    fn leaf(&mut self, side: Side, _place: &Place, items: &[(Key, u64)]) -> Result<(), Stop> {
        for (key, count) in items {
            self.rules.usage(side, key, *count);
        }
        Ok(())
    }
}
