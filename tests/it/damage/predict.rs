//! Which files need which bytes, from the pointers of the undamaged trees alone; nothing of the reading
//! code under test is used but the decoding of single nodes.
//!
//! A lookup needs the nodes from the root to the leaf in which the key is or would be. A listing needs the
//! one for its first possible key, and every leaf with an entry of the directory, but not the inodes that hard links
//! lead to: names without those are names. A file's content needs
//! the frames of its chunks, and if it is mapped, the nodes to its pages. A frame is lost when a byte of
//! it is not what it was.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use amberfs::format::entry::{Body, Content, Entry};
use amberfs::format::frame::{self, FrameKind};
use amberfs::format::leaf::{Entries, Maps, Usage};
use amberfs::format::log::NodeRef;
use amberfs::format::map::MapPage;
use amberfs::format::node::{Branch, Node, TreeKind};
use amberfs::format::object::{LogId, Object, ObjectName};
use amberfs::format::{FileId, FrameRef, Key, SourceId};
use amberfs::repo::Reader;

use super::actions::Damage;
use super::repository::{Repository, Truth};

/// A leaf: the frames from the root to it, the first key that belongs there, its items.
type Leaf<V> = (HashSet<FrameRef>, Key, Vec<(Key, V)>);
/// The leaves of a tree, in order.
type Leaves<V> = Vec<Leaf<V>>;

/// What one path needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Needs {
    attributes: HashSet<FrameRef>,
    content: HashSet<FrameRef>,
    listing: HashSet<FrameRef>,
}

/// What each path of each point needs.
pub(super) struct Model {
    points: Vec<BTreeMap<Vec<u8>, Needs>>,
    /// Every frame that a point refers to, with its source and kind.
    pub(super) frames: Vec<(SourceId, FrameRef, FrameKind)>,
}

/// What a point will show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PointPrediction {
    /// The point itself cannot be told from one that never was.
    pub(super) in_doubt: bool,
    /// Paths of which not even the attributes can be had.
    pub(super) unreachable: BTreeSet<Vec<u8>>,
    /// Paths whose content cannot be had; those above included.
    pub(super) unreadable: BTreeSet<Vec<u8>>,
    /// Directories that cannot be listed; those above included.
    pub(super) unlistable: BTreeSet<Vec<u8>>,
}

/// What a damaged repository will show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prediction {
    /// Whether it can be opened.
    pub(super) opens: bool,
    /// By point, in the repository's order; empty means that nothing is touched.
    pub(super) points: Vec<PointPrediction>,
    /// The objects that a verification must name, and no others.
    pub(super) objects: BTreeSet<ObjectName>,
}

impl Prediction {
    pub(super) fn nothing() -> Prediction {
        Prediction { opens: true, points: Vec::new(), objects: BTreeSet::new() }
    }

    pub(super) fn point(&self, index: usize) -> PointPrediction {
        self.points.get(index).cloned().unwrap_or_default()
    }
}

fn leaves<K: TreeKind>(reader: &Reader, root: Option<NodeRef>) -> Leaves<K::Value> {
    fn visit<K: TreeKind>(
        reader: &Reader,
        branch: &Branch,
        above: &HashSet<FrameRef>,
        first: Key,
        into: &mut Leaves<K::Value>,
    ) {
        let mut path = above.clone();
        path.insert(branch.node.frame);
        let payload = reader.fetch(&branch.node.frame, K::FRAME).unwrap();
        match Node::<K>::decode(&payload, &branch.node).unwrap() {
            Node::Leaf(items) => into.push((path, first, branch.of(&items).to_vec())),
            Node::Inner(children) => {
                for (index, child) in children.iter().enumerate() {
                    let first = if index == 0 { first.clone() } else { child.first.clone() };
                    visit::<K>(reader, &child.branch, &path, first, into);
                }
            }
        }
    }
    let mut found = Vec::new();
    if let Some(root) = root {
        visit::<K>(reader, &Branch::whole(root), &HashSet::new(), Key::default(), &mut found);
    }
    found
}

/// The leaf in which `key` is or would be.
fn leaf_of<'a, V>(leaves: &'a Leaves<V>, key: &Key) -> Option<&'a Leaf<V>> {
    leaves.iter().rfind(|(_, first, _)| first <= key)
}

struct PointTrees {
    entries: Leaves<Entry>,
    maps: Leaves<MapPage>,
}

impl PointTrees {
    /// Frames of a lookup, and what it finds.
    fn lookup(&self, key: &Key) -> (HashSet<FrameRef>, Option<Entry>) {
        let Some((frames, _, items)) = leaf_of(&self.entries, key) else { return Default::default() };
        (frames.clone(), items.iter().find(|(own, _)| own == key).map(|(_, entry)| entry.clone()))
    }

    fn content(&self, entry: &Entry) -> HashSet<FrameRef> {
        match &entry.body {
            Body::File(Content::Extents(extents)) => extents.iter().map(|extent| extent.chunk.frame).collect(),
            Body::File(Content::Mapped { id, .. }) => {
                let mut frames = leaf_of(&self.maps, &Key::page(*id, 0)).map(|leaf| leaf.0.clone()).unwrap_or_default();
                for (path, _, items) in &self.maps {
                    for (_, page) in items.iter().filter(|(key, _)| key.split_page().unwrap().0 == *id) {
                        frames.extend(path);
                        frames.extend(page.extents.iter().map(|extent| extent.chunk.frame));
                    }
                }
                frames
            }
            _ => HashSet::new(),
        }
    }

    fn listing(&self, directory: FileId) -> HashSet<FrameRef> {
        let (mut frames, _) = self.lookup(&Key::entry(directory, b""));
        for (path, _, items) in &self.entries {
            if items.iter().any(|(key, _)| key.split().unwrap().0 == directory) {
                frames.extend(path);
            }
        }
        frames
    }

    /// What every path needs, from the root down.
    fn needs(&self) -> BTreeMap<Vec<u8>, Needs> {
        let mut found = BTreeMap::new();
        let (frames, root) = self.lookup(&Key::root());
        let mut open = vec![(Vec::new(), frames, root.expect("a root"))];
        while let Some((path, mut attributes, mut entry)) = open.pop() {
            if let Body::Link(id) = entry.body {
                let (frames, record) = self.lookup(&Key::inode(id));
                attributes.extend(frames);
                entry = record.expect("a record");
            }
            let mut needs =
                Needs { content: self.content(&entry), attributes: attributes.clone(), listing: HashSet::new() };
            if let Body::Directory { id, .. } = &entry.body {
                needs.listing = self.listing(*id);
                for (_, _, items) in &self.entries {
                    for (key, entry) in items.iter().filter(|(key, _)| key.split().unwrap().0 == *id) {
                        let name = key.split().unwrap().1;
                        let below =
                            if path.is_empty() { name.to_vec() } else { [&path, b"/".as_slice(), name].concat() };
                        let frames = attributes.iter().copied().chain(self.lookup(key).0).collect();
                        open.push((below, frames, entry.clone()));
                    }
                }
            }
            assert!(found.insert(path, needs).is_none());
        }
        found
    }
}

impl Model {
    pub(super) fn of(repository: &Repository) -> Model {
        let mut model = Model { points: Vec::new(), frames: Vec::new() };
        let mut known = HashSet::new();
        for truth in &repository.truths {
            let reader = repository.repo().reader(truth.source);
            let trees = PointTrees {
                entries: leaves::<Entries>(&reader, Some(truth.roots.entries)),
                maps: leaves::<Maps>(&reader, truth.roots.maps),
            };
            let needs = trees.needs();
            let names = |paths: Vec<&Vec<u8>>| paths.iter().map(|p| p.escape_ascii().to_string()).collect::<Vec<_>>();
            assert_eq!(names(needs.keys().collect()), names(truth.manifest.keys().collect()));
            let mut note = |frames: &HashSet<FrameRef>, kind| {
                for frame in frames {
                    if known.insert((truth.source, *frame)) {
                        model.frames.push((truth.source, *frame, kind));
                    }
                }
            };
            for (path, _, _) in &trees.maps {
                note(path, FrameKind::Maps);
            }
            for (path, _, items) in &trees.entries {
                note(path, FrameKind::Entries);
                for (_, entry) in items {
                    let maps: HashSet<FrameRef> = trees.maps.iter().flat_map(|(path, _, _)| path.clone()).collect();
                    note(&trees.content(entry).difference(&maps).copied().collect(), FrameKind::Data);
                }
            }
            for (path, _, _) in leaves::<Usage>(&reader, truth.roots.usage) {
                note(&path, FrameKind::Usage);
            }
            model.points.push(needs);
        }
        model
    }

    /// Whether the frame is not what it was.
    pub(super) fn is_lost(repository: &Repository, damage: &Damage, source: SourceId, frame: &FrameRef) -> bool {
        let object = Object::Pack(source, frame.pack).name();
        let Some((_, bytes)) = damage.changes.iter().find(|(changed, _)| *changed == object) else { return false };
        let start = usize::try_from(frame.offset).unwrap();
        let range = start..start + frame::HEADER_BYTES + frame.stored_bytes as usize;
        let now = bytes.as_ref().and_then(|bytes| bytes.get(range.clone()));
        now != repository.objects[&object].get(range)
    }

    pub(super) fn predict(&self, repository: &Repository, damage: &Damage) -> Prediction {
        let mut prediction = Prediction::nothing();
        for (object, bytes) in &damage.changes {
            match Object::parse(object).unwrap() {
                // The only slot of an encrypted repository: without it there are no keys.
                Object::Marker | Object::Slot(..) => prediction.opens = false,
                // That it was there, nobody knows but who has seen it.
                Object::Checkpoint(..) if bytes.is_none() => {}
                Object::Entry(..) if bytes.is_none() && repository.is_newest_entry(object) => {}
                _ => drop(prediction.objects.insert(object.clone())),
            }
        }
        let lost: HashSet<(SourceId, FrameRef)> = self
            .frames
            .iter()
            .filter(|(source, frame, _)| Model::is_lost(repository, damage, *source, frame))
            .map(|(source, frame, _)| (*source, *frame))
            .collect();
        for (truth, needs) in repository.truths.iter().zip(&self.points) {
            let mut point = PointPrediction { in_doubt: in_doubt(repository, damage, truth), ..Default::default() };
            let is_lost = |frames: &HashSet<FrameRef>| {
                lost.iter().any(|(source, frame)| *source == truth.source && frames.contains(frame))
            };
            for (path, needs) in needs {
                let unreachable = is_lost(&needs.attributes);
                if unreachable {
                    point.unreachable.insert(path.clone());
                }
                if unreachable || is_lost(&needs.content) {
                    point.unreadable.insert(path.clone());
                }
                if unreachable || is_lost(&needs.listing) {
                    point.unlistable.insert(path.clone());
                }
            }
            prediction.points.push(point);
        }
        prediction
    }

    /// A bit of the content of a file of a point.
    pub(super) fn damage_to_content_of(&self, repository: &Repository, point: usize, path: &[u8]) -> Damage {
        let truth = &repository.truths[point];
        let frame = *self.points[point][path].content.iter().next().unwrap();
        Damage::new("a bit of the content of a file in", vec![flipped(repository, truth, &frame)])
    }

    /// A bit of the leaf with the inode of a hard link in the root of a point, which holds nothing that its name needs.
    pub(super) fn damage_to_inode_of(&self, repository: &Repository, point: usize, name: &[u8]) -> Damage {
        let (truth, needs) = (&repository.truths[point], &self.points[point]);
        let mut own = needs[name].attributes.difference(&needs[b"".as_slice()].listing);
        let frame = own.next().expect("a leaf without names of the root");
        Damage::new("a bit of the leaf of an inode in", vec![flipped(repository, truth, frame)])
    }
}

/// The pack with a bit of a frame changed.
fn flipped(repository: &Repository, truth: &Truth, frame: &FrameRef) -> (ObjectName, Option<Vec<u8>>) {
    let object = Object::Pack(truth.source, frame.pack).name();
    let mut bytes = repository.objects[&object].clone();
    bytes[usize::try_from(frame.offset).unwrap() + frame::HEADER_BYTES + 5] ^= 1;
    (object, Some(bytes))
}

/// Whether the entry that made the point, or its source, is lost to readers.
fn in_doubt(repository: &Repository, damage: &Damage, truth: &Truth) -> bool {
    let changed = |name: &ObjectName| damage.changes.iter().find(|(object, _)| object == name);
    let lost = |log: LogId, number: u64| {
        let entry = Object::Entry(log, amberfs::format::LogNumber(number)).name();
        let covered = repository
            .checkpoint(log)
            .is_some_and(|(checkpoint, covered)| number <= covered.0 && changed(&checkpoint).is_none());
        changed(&entry).is_some() && !covered
    };
    lost(LogId::Source(truth.source), truth.id.0) || lost(LogId::Repo, truth.source.0)
}
