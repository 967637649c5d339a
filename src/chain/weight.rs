//! What points hold in the store that other points do not: the bytes that come back when they are gone.
//!
//! A point holds the frames of its trees' nodes, found by following node pointers, the data frames that
//! its usage tree counts, and its list of problems. [`Scale::of`] marks all that the points hold that
//! stay; [`Scale::weigh`] adds up what others hold beside that. A subtree whose root is marked already is
//! marked as a whole, and is passed over, so points that share nearly all of their nodes cost little more
//! than what they differ in. Leaves of names and maps are marked and not read: usage says what they refer to.
//!
//! Memory is a bit for each frame of the packs that are met, below [`limits::WEIGHT_MARKS_BYTES`] for each
//! of three sets of marks; a chain that would need more is refused. Points of different chains share no
//! frame, so each chain is weighed alone. Nothing is written, and damage is an error: what cannot be read
//! cannot be weighed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::AddAssign;

use super::{Point, SourceState};
use crate::base::limits;
use crate::format::leaf::{Entries, Maps, Usage};
use crate::format::log::NodeRef;
use crate::format::node::{Node, TreeKind};
use crate::format::object::Object;
use crate::format::{ChainId, FrameOrdinal, FrameRef, Key, PackId, PointId, frame};
use crate::repo::{Reader, RepoError, read_footer};

/// Frames that no other point holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// How many.
    pub frames: u64,
    /// Bytes of those that hold file content, headers included.
    pub data_bytes: u64,
    /// Bytes of all others, headers included.
    pub metadata_bytes: u64,
}

impl Weight {
    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        self.data_bytes.saturating_add(self.metadata_bytes)
    }
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Weight) {
        self.frames = self.frames.saturating_add(other.frames);
        self.data_bytes = self.data_bytes.saturating_add(other.data_bytes);
        self.metadata_bytes = self.metadata_bytes.saturating_add(other.metadata_bytes);
    }
}

/// What the store would hold no more if `points` of the source were gone as if they had never been, and with
/// them all that is in the trash.
///
/// # Errors
/// [`RepoError`] when a tree or a footer cannot be read, or there are too many frames.
pub fn weigh(reader: &Reader, state: &SourceState, points: &[PointId]) -> Result<Weight, RepoError> {
    let gone: BTreeSet<PointId> = points.iter().copied().collect();
    let mut chains: BTreeMap<ChainId, Vec<&Point>> = BTreeMap::new();
    for point in gone.iter().filter_map(|point| state.ever(*point)) {
        chains.entry(point.chain()).or_default().push(point);
    }
    let mut weight = Weight::default();
    for (chain, points) in chains {
        let stay = state.chain(chain).into_iter().flat_map(|chain| chain.points());
        let scale = Scale::of(reader.clone(), stay.filter(|point| !gone.contains(&point.id)).map(|point| &**point))?;
        weight += scale.weigh(points)?;
    }
    Ok(weight)
}

/// Points of a chain, against which others of it are weighed.
#[derive(Debug)]
pub struct Scale {
    reader: Reader,
    held: Marks,
}

impl Scale {
    /// Marks all that `points` hold.
    ///
    /// # Errors
    /// As [`weigh`].
    pub fn of<'a>(reader: Reader, points: impl IntoIterator<Item = &'a Point>) -> Result<Scale, RepoError> {
        let mut held = Marks::default();
        for point in points {
            walk_point(&reader, point, &mut Holding(&mut held))?;
        }
        Ok(Scale { reader, held })
    }

    /// What `points` hold and those of the scale do not.
    ///
    /// # Errors
    /// As [`weigh`].
    pub fn weigh<'a>(&self, points: impl IntoIterator<Item = &'a Point>) -> Result<Weight, RepoError> {
        let mut alone =
            Alone { held: &self.held, nodes: Marks::default(), data: Marks::default(), weight: Weight::default() };
        for point in points {
            walk_point(&self.reader, point, &mut alone)?;
        }
        let Alone { data, mut weight, .. } = alone;
        // A usage tree names data frames and not their sizes; the footers know those.
        for (pack, marks) in &data.packs {
            let footer = read_footer(&self.reader, *pack)?;
            for ordinal in marks.ordinals() {
                let frame = footer.frames.get(ordinal).ok_or_else(|| {
                    let object = Object::Pack(self.reader.source(), *pack).name();
                    inconsistent(format!("the footer of {object} does not list frame {ordinal}, which a point uses"))
                })?;
                weight.frames += 1;
                weight.data_bytes = weight.data_bytes.saturating_add(stored(frame.stored_bytes));
            }
        }
        Ok(weight)
    }
}

/// Bytes of a frame in its pack.
fn stored(body_bytes: u32) -> u64 {
    frame::HEADER_BYTES as u64 + u64::from(body_bytes)
}

fn inconsistent(what: String) -> RepoError {
    RepoError::Inconsistent { what }
}

/// Some frames of a pack: a bit for each.
#[derive(Debug, Default)]
struct Frames(Vec<u64>);

impl Frames {
    fn place(frame: FrameOrdinal) -> (usize, u64) {
        (frame.0 as usize / 64, 1 << (frame.0 % 64))
    }

    fn has(&self, frame: FrameOrdinal) -> bool {
        let (word, bit) = Frames::place(frame);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// The marked ones, ascending.
    fn ordinals(&self) -> impl Iterator<Item = usize> {
        let marked =
            |(word, bits): (usize, u64)| (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |b| word * 64 + b);
        self.0.iter().copied().enumerate().flat_map(marked)
    }
}

/// Some frames of a chain.
#[derive(Debug, Default)]
struct Marks {
    packs: HashMap<PackId, Frames>,
    /// About what they take in memory.
    bytes: usize,
}

/// What a pack without marks takes in memory, about.
const PACK_MARKS_BYTES: usize = 96;

impl Marks {
    fn has(&self, pack: &PackId, frame: FrameOrdinal) -> bool {
        self.packs.get(pack).is_some_and(|frames| frames.has(frame))
    }

    /// Marks a frame; whether it was not marked before.
    fn mark(&mut self, pack: &PackId, frame: FrameOrdinal) -> Result<bool, RepoError> {
        if frame.0 as usize > limits::PACK_ITEMS_MAX {
            return Err(inconsistent(format!("a point refers to frame {frame} of a pack, which has no so many")));
        }
        let frames = match self.packs.get_mut(pack) {
            Some(frames) => frames,
            None => {
                self.bytes += PACK_MARKS_BYTES;
                self.packs.entry(*pack).or_default()
            }
        };
        let (word, bit) = Frames::place(frame);
        if frames.0.len() <= word {
            self.bytes += (word + 1 - frames.0.len()) * size_of::<u64>();
            frames.0.resize(word + 1, 0);
        }
        if self.bytes > limits::WEIGHT_MARKS_BYTES {
            return Err(inconsistent("a chain has more frames than can be weighed".to_owned()));
        }
        let Some(bits) = frames.0.get_mut(word) else { return Ok(false) };
        let new = *bits & bit == 0;
        *bits |= bit;
        Ok(new)
    }
}

/// What a walk over a point's trees is for.
trait Taker {
    /// Takes a frame that holds no file content; whether what is below it is to be taken, too.
    fn node(&mut self, frame: &FrameRef) -> Result<bool, RepoError>;

    /// Takes a frame of file content.
    fn data(&mut self, pack: &PackId, frame: FrameOrdinal) -> Result<(), RepoError>;
}

/// Marks what is held.
struct Holding<'a>(&'a mut Marks);

impl Taker for Holding<'_> {
    fn node(&mut self, frame: &FrameRef) -> Result<bool, RepoError> {
        self.0.mark(&frame.pack, frame.ordinal)
    }

    fn data(&mut self, pack: &PackId, frame: FrameOrdinal) -> Result<(), RepoError> {
        self.0.mark(pack, frame).map(drop)
    }
}

/// Marks what is not held, and adds up what is met for the first time.
struct Alone<'a> {
    held: &'a Marks,
    nodes: Marks,
    data: Marks,
    weight: Weight,
}

impl Taker for Alone<'_> {
    fn node(&mut self, frame: &FrameRef) -> Result<bool, RepoError> {
        if self.held.has(&frame.pack, frame.ordinal) || !self.nodes.mark(&frame.pack, frame.ordinal)? {
            return Ok(false);
        }
        self.weight.frames += 1;
        self.weight.metadata_bytes = self.weight.metadata_bytes.saturating_add(stored(frame.stored_bytes));
        Ok(true)
    }

    fn data(&mut self, pack: &PackId, frame: FrameOrdinal) -> Result<(), RepoError> {
        if !self.held.has(pack, frame) {
            self.data.mark(pack, frame)?;
        }
        Ok(())
    }
}

fn walk_point<T: Taker>(reader: &Reader, point: &Point, taker: &mut T) -> Result<(), RepoError> {
    let roots = &point.commit.roots;
    walk::<Entries, T>(reader, Some(roots.entries), taker, None)?;
    walk::<Maps, T>(reader, roots.maps, taker, None)?;
    let counted = |items: &[(Key, u64)], taker: &mut T| {
        items.iter().try_for_each(|(key, _)| {
            let (pack, frame) = key.split_usage().map_err(|error| inconsistent(error.to_string()))?;
            taker.data(&pack, frame)
        })
    };
    walk::<Usage, T>(reader, roots.usage, taker, Some(&counted))?;
    if let Some(problems) = &point.commit.problems {
        taker.node(problems)?;
    }
    Ok(())
}

/// What is done with a leaf's items.
type OnLeaf<'a, K, T> = &'a dyn Fn(&[(Key, <K as TreeKind>::Value)], &mut T) -> Result<(), RepoError>;

/// Follows all pointers that the taker wants followed; leaves are read for `on_leaf` only.
fn walk<K: TreeKind, T: Taker>(
    reader: &Reader,
    root: Option<NodeRef>,
    taker: &mut T,
    on_leaf: Option<OnLeaf<'_, K, T>>,
) -> Result<(), RepoError> {
    // A leaf is looked into once, and as a whole.
    debug_assert!(on_leaf.is_none() || !K::HAS_PARTS, "only some of a leaf's items may be the point's");
    let mut open: Vec<NodeRef> = root.into_iter().collect();
    while let Some(pointer) = open.pop() {
        if !taker.node(&pointer.frame)? || (pointer.level == 0 && on_leaf.is_none()) {
            continue;
        }
        match &*reader.node::<K>(&pointer)? {
            Node::Leaf(items) => {
                if let Some(on_leaf) = on_leaf {
                    on_leaf(items, taker)?;
                }
            }
            Node::Inner(children) => open.extend(children.iter().map(|child| child.branch.node)),
        }
    }
    Ok(())
}
