//! Which points and which paths a damaged object touches.
//!
//! A second walk over the points of a chain in which something is lost, again each against the one
//! before. It keeps what paths are made of: the name and place of every directory, the names of every
//! hard link, the entry of every mapped file, and every entry that needs a lost frame. That memory
//! follows the number of directories, linked and mapped files, and is spent only when there is damage.
//!
//! A lost node of the entries tree takes with it a range of keys: names in one or several directories,
//! nobody knows which. It is told as that range; what can be read below a directory whose own name
//! is lost is counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::VerifyError;
use super::compare::{Place, Side, Stop, Walk, compare};
use super::findings::Findings;
use super::report::{Touch, Touched};
use crate::chain::Point;
use crate::format::entry::{Body, Content, Entry};
use crate::format::frame::FrameKind;
use crate::format::leaf::{Entries, Maps, Usage};
use crate::format::log::Roots;
use crate::format::map::MapPage;
use crate::format::node::{Node, TreeKind};
use crate::format::object::Object;
use crate::format::{FileId, FrameRef, Key, PackId};
use crate::repo::Reader;

/// A node that cannot be read, with the keys that are lost with it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hole {
    kind: FrameKind,
    frame: FrameRef,
    from: Key,
    before: Option<Key>,
}

/// The search in one chain.
pub(super) struct PathSearch<'a> {
    reader: Reader,
    findings: &'a Findings<'a>,
    source: &'a str,
    paths_max: usize,
    at: Option<Roots>,
    /// What is heard of in this pass.
    pass: Side,
    /// Where each directory is: the directory that holds it, and its name.
    directories: BTreeMap<FileId, (FileId, Vec<u8>)>,
    /// Entries by directory.
    items: HashMap<FileId, u64>,
    links: BTreeMap<FileId, BTreeSet<Key>>,
    mapped: BTreeMap<FileId, Key>,
    /// Entries, and maps with the count of their extents, that need a lost frame of a pack.
    entries_hit: BTreeMap<PackId, BTreeSet<Key>>,
    maps_hit: BTreeMap<PackId, BTreeMap<FileId, u64>>,
    holes: Vec<Hole>,
    touches: BTreeMap<PackId, Vec<Touch>>,
}

impl<'a> PathSearch<'a> {
    pub(super) fn new(reader: Reader, findings: &'a Findings<'a>, source: &'a str, paths_max: usize) -> PathSearch<'a> {
        PathSearch {
            reader,
            findings,
            source,
            paths_max,
            at: None,
            pass: Side::Old,
            directories: BTreeMap::new(),
            items: HashMap::new(),
            links: BTreeMap::new(),
            mapped: BTreeMap::new(),
            entries_hit: BTreeMap::new(),
            maps_hit: BTreeMap::new(),
            holes: Vec::new(),
            touches: BTreeMap::new(),
        }
    }

    /// Looks at the next point of the chain.
    pub(super) fn look(&mut self, point: &Arc<Point>) -> Result<(), VerifyError> {
        let roots = &point.commit.roots;
        let mut contradicts = false;
        // What the point before had goes first: an entry may move from a leaf to one that is met earlier.
        for pass in [Side::Old, Side::New] {
            self.pass = pass;
            match self.walk(roots) {
                Ok(()) => {}
                Err(Stop::Contradiction(..)) => contradicts = true,
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        self.at = Some(*roots);
        if contradicts {
            // Only a part of it is known. The check has named it; the next point begins from nothing.
            let touches = std::mem::take(&mut self.touches);
            *self = PathSearch {
                touches,
                ..PathSearch::new(self.reader.clone(), self.findings, self.source, self.paths_max)
            };
            return Ok(());
        }
        for (pack, touch) in self.touched(point) {
            let told = self.touches.entry(pack).or_default();
            match told.last_mut() {
                Some(last) if same(last, &touch) => last.points.extend(touch.points),
                _ => told.push(touch),
            }
        }
        Ok(())
    }

    /// Tells the findings.
    pub(super) fn finish(self) {
        for (pack, touches) in self.touches {
            self.findings.touch(&Object::Pack(self.reader.source(), pack).name(), touches);
        }
    }

    fn walk(&mut self, roots: &Roots) -> Result<(), Stop> {
        let at = self.at;
        let old = at.as_ref();
        compare::<Entries>(old.map(|old| old.entries), Some(roots.entries), self)?;
        compare::<Maps>(old.and_then(|old| old.maps), roots.maps, self)?;
        compare::<Usage>(old.and_then(|old| old.usage), roots.usage, self)
    }

    fn is_lost(&self, frame: &FrameRef) -> bool {
        self.findings.is_lost(self.reader.source(), frame.pack, frame.ordinal)
    }

    fn node<K: TreeKind>(&mut self, side: Side, place: &Place) -> Result<Option<Node<K>>, VerifyError> {
        let pointer = &place.branch.node.frame;
        if !self.is_lost(pointer)
            && let Ok(payload) = self.reader.fetch(pointer, K::FRAME)
            && let Ok(node) = Node::decode(&payload, &place.branch.node)
        {
            return Ok(Some(node));
        }
        if side == self.pass {
            let hole = Hole { kind: K::FRAME, frame: *pointer, from: place.from.clone(), before: place.before.clone() };
            match side {
                Side::New => self.holes.push(hole),
                Side::Old => self.holes.retain(|known| *known != hole),
            }
        }
        Ok(None)
    }

    /// What of the point cannot be had, by pack.
    fn touched(&self, point: &Point) -> Vec<(PackId, Touch)> {
        let mut packs: BTreeSet<PackId> = self.entries_hit.keys().chain(self.maps_hit.keys()).copied().collect();
        packs.extend(self.holes.iter().map(|hole| hole.frame.pack));
        let problems = point.commit.problems.filter(|frame| self.is_lost(frame));
        packs.extend(problems.iter().map(|frame| frame.pack));
        let mut told = Vec::new();
        for pack in packs {
            let holes = || self.holes.iter().filter(|hole| hole.frame.pack == pack);
            let mut touched = BTreeSet::new();
            let mut keys: BTreeSet<Key> = self.entries_hit.get(&pack).cloned().unwrap_or_default();
            let maps = self.maps_hit.get(&pack).into_iter().flat_map(BTreeMap::keys);
            keys.extend(maps.filter_map(|file| self.mapped.get(file).cloned()));
            for hole in holes() {
                match hole.kind {
                    FrameKind::Maps => keys.extend(self.mapped_within(hole)),
                    FrameKind::Entries => touched.extend(self.names_within(hole, &mut keys)),
                    FrameKind::Usage
                    | FrameKind::Data
                    | FrameKind::Problems
                    | FrameKind::Footer
                    | FrameKind::Padding => {}
                }
            }
            let everything = touched.contains(&Touched::Everything);
            if everything {
                touched = BTreeSet::from([Touched::Everything]);
            } else {
                touched.extend(keys.iter().flat_map(|key| self.paths(key)).map(Touched::Path));
            }
            let mut also = Vec::new();
            if problems.is_some_and(|frame| frame.pack == pack) {
                also.push("the list of what its capture could not read".to_owned());
            }
            if holes().any(|hole| hole.kind == FrameKind::Usage) {
                also.push("its count of references, which no file needs; the next incremental capture does".to_owned());
            }
            let entries_lost = !everything && holes().any(|hole| hole.kind == FrameKind::Entries);
            let touch = Touch {
                source: self.source.to_owned(),
                points: vec![point.name().to_owned()],
                more_paths: touched.len().saturating_sub(self.paths_max) as u64,
                paths: touched.into_iter().take(self.paths_max).collect(),
                unreachable: if entries_lost { self.unreachable() } else { 0 },
                also,
            };
            if !touch.paths.is_empty() || !touch.also.is_empty() {
                told.push((pack, touch));
            }
        }
        told
    }

    /// The entries of files of which the hole takes a page.
    fn mapped_within(&self, hole: &Hole) -> BTreeSet<Key> {
        let first = hole.from.split_page().map_or(FileId::TOP, |(file, _)| file);
        let last = hole.before.as_ref().and_then(|key| key.split_page().ok());
        let files = self.mapped.range(first..);
        // The hole ends before `last`: with its first page, it takes none of that file.
        let within = files.take_while(|(file, _)| match last {
            None => true,
            Some((bound, offset)) => **file < bound || (**file == bound && offset > 0),
        });
        within.map(|(_, key)| key.clone()).collect()
    }

    /// The names that the hole takes, as ranges; `keys` gets the names of links whose inodes it takes.
    fn names_within(&self, hole: &Hole, keys: &mut BTreeSet<Key>) -> Vec<Touched> {
        if hole.from <= Key::root() {
            return vec![Touched::Everything];
        }
        let from = hole.from.split().unwrap_or((FileId::TOP, &[]));
        let before = hole.before.as_ref().and_then(|key| key.split().ok());
        let mut ranges = Vec::new();
        for id in self.directories.range(from.0..).map(|(id, _)| *id) {
            let name = |bound: &[u8]| Some(bound.to_vec()).filter(|name| !name.is_empty());
            let end = match before {
                Some((last, _)) if id > last => break,
                Some((last, name)) if id == last && name.is_empty() => break,
                Some((last, bound)) if id == last => name(bound),
                Some(_) | None => None,
            };
            let start = if id == from.0 { name(from.1) } else { None };
            if let Some(directory) = self.path(id) {
                ranges.push(Touched::Names { directory, from: start, before: end });
            }
        }
        for (id, names) in &self.links {
            let record = Key::inode(*id);
            if record >= hole.from && hole.before.as_ref().is_none_or(|before| record < *before) {
                keys.extend(names.iter().cloned());
            }
        }
        ranges
    }

    /// The paths of what stands under `key`: of an inode record, all of its names. None that is known when a
    /// directory above has lost its name.
    fn paths(&self, key: &Key) -> Vec<Vec<u8>> {
        let of_name = |key: &Key| {
            let (directory, name) = key.split().ok()?;
            let mut path = self.path(directory)?;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            Some(path)
        };
        match key.split() {
            Ok((FileId::HARDLINKS, _)) => {
                let names = |names: &BTreeSet<Key>| names.iter().filter_map(of_name).collect();
                self.links
                    .iter()
                    .find(|(id, _)| Key::inode(**id) == *key)
                    .map(|(_, keys)| names(keys))
                    .unwrap_or_default()
            }
            Ok((FileId::TOP, _)) => vec![Vec::new()],
            Ok(_) | Err(_) => of_name(key).into_iter().collect(),
        }
    }

    /// The path of a directory.
    fn path(&self, directory: FileId) -> Option<Vec<u8>> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = directory;
        while at != FileId::ROOT {
            let (above, name) = self.directories.get(&at)?;
            names.push(name);
            at = *above;
            if names.len() > self.directories.len() {
                return None;
            }
        }
        names.reverse();
        self.directories.contains_key(&FileId::ROOT).then(|| names.join(&b'/'))
    }

    /// Entries in directories that have no path.
    fn unreachable(&self) -> u64 {
        let lost = self.items.iter().filter(|(id, _)| **id != FileId::TOP && **id != FileId::HARDLINKS);
        lost.filter(|(id, _)| self.path(**id).is_none()).map(|(_, items)| items).sum()
    }
}

/// Whether two points are alike in what they lack.
fn same(a: &Touch, b: &Touch) -> bool {
    a.source == b.source
        && a.paths == b.paths
        && a.more_paths == b.more_paths
        && a.unreachable == b.unreachable
        && a.also == b.also
}

impl Walk<Entries> for PathSearch<'_> {
    fn read(&mut self, side: Side, place: &Place) -> Result<Option<Node<Entries>>, VerifyError> {
        self.node(side, place)
    }

    fn leaf(&mut self, side: Side, _place: &Place, items: &[(Key, Entry)]) -> Result<(), Stop> {
        if side != self.pass {
            return Ok(());
        }
        for (key, entry) in items {
            let Ok((directory, name)) = key.split() else { continue };
            let count = self.items.entry(directory).or_default();
            *count = if side == Side::New { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.items.remove(&directory);
            }
            match (&entry.body, side) {
                (Body::Directory { id, .. }, Side::New) => {
                    self.directories.insert(*id, (directory, name.to_vec()));
                }
                (Body::Directory { id, .. }, Side::Old) => {
                    self.directories.remove(id);
                }
                (Body::Link(id), Side::New) => {
                    self.links.entry(*id).or_default().insert(key.clone());
                }
                (Body::Link(id), Side::Old) => {
                    if let Some(names) = self.links.get_mut(id) {
                        names.remove(key);
                    }
                    if self.links.get(id).is_some_and(BTreeSet::is_empty) {
                        self.links.remove(id);
                    }
                }
                (Body::File(Content::Mapped { id, .. }), Side::New) => {
                    self.mapped.insert(*id, key.clone());
                }
                (Body::File(Content::Mapped { id, .. }), Side::Old) => {
                    self.mapped.remove(id);
                }
                (Body::File(Content::Extents(extents)), _) => {
                    for frame in extents.iter().map(|extent| extent.chunk.frame) {
                        if !self.is_lost(&frame) {
                            continue;
                        }
                        let hit = self.entries_hit.entry(frame.pack).or_default();
                        if side == Side::New {
                            hit.insert(key.clone());
                        } else {
                            hit.remove(key);
                        }
                        if hit.is_empty() {
                            self.entries_hit.remove(&frame.pack);
                        }
                    }
                }
                (
                    Body::File(Content::Hole | Content::Inline(_))
                    | Body::Symlink(_)
                    | Body::BlockDevice(..)
                    | Body::CharDevice(..)
                    | Body::Fifo
                    | Body::Socket,
                    _,
                ) => {}
            }
        }
        Ok(())
    }
}

impl Walk<Maps> for PathSearch<'_> {
    fn read(&mut self, side: Side, place: &Place) -> Result<Option<Node<Maps>>, VerifyError> {
        self.node(side, place)
    }

    fn leaf(&mut self, side: Side, _place: &Place, items: &[(Key, MapPage)]) -> Result<(), Stop> {
        if side != self.pass {
            return Ok(());
        }
        for (key, page) in items {
            let Ok((file, _)) = key.split_page() else { continue };
            for frame in page.extents.iter().map(|extent| extent.chunk.frame) {
                if !self.is_lost(&frame) {
                    continue;
                }
                let hit = self.maps_hit.entry(frame.pack).or_default();
                let count = hit.entry(file).or_default();
                *count = if side == Side::New { *count + 1 } else { count.saturating_sub(1) };
                if *count == 0 {
                    hit.remove(&file);
                }
                if hit.is_empty() {
                    self.maps_hit.remove(&frame.pack);
                }
            }
        }
        Ok(())
    }
}

impl Walk<Usage> for PathSearch<'_> {
    fn read(&mut self, side: Side, place: &Place) -> Result<Option<Node<Usage>>, VerifyError> {
        self.node(side, place)
    }

    fn leaf(&mut self, _side: Side, _place: &Place, _items: &[(Key, u64)]) -> Result<(), Stop> {
        Ok(())
    }
}
