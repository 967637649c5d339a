//! Changed leaves that leave where it is what they have kept.
//!
//! ```text
//!  before   [ a b c d e f g h i j k l m ]          a leaf, as it is stored
//!  after    [ a b c d e ] F [ g h i j k l m ]      f has changed: two parts of that leaf, and between them
//!                         |                        an item of a new leaf, the patch, which holds
//!           patch: [ F . . . . ]                   what has changed in all leaves of one inner node
//! ```
//! So a capture stores the entries that have changed, and not three hundred neighbours of each. What that must not become is an
//! inner node whose items are scattered over a hundred leaves: whoever reads them would read them all. Two rules see to that:
//!
//! - What is kept of a leaf is left there where it is [`limits::PART_ITEMS_MIN`] neighbours or more. Fewer go into the patch, and so does all of
//!   a leaf of which most has changed.
//! - An inner node's items are in at most half as many leaves again as they would fill, and [`limits::SPARE_LEAVES`]. When they are in more, those
//!   leaves of which it has least go into the patch, until a quarter of that is free again.

use std::collections::{HashMap, HashSet};

use super::write::{Inner, Items, Leaf, NEW, Slot, Slots, TreeWriter, Which, even_share, shares};
use crate::base::limits;
use crate::format::node::{Branch, Node, TreeKind};
use crate::format::{FrameRef, Key};
use crate::repo::RepoError;

/// What becomes of a child.
enum Piece<K: TreeKind> {
    /// It stays, or is stored.
    Slot(Key, Slot<K>),
    /// It goes into the patch.
    Patched(Items<K>),
}

impl<K: TreeKind> TreeWriter<'_, K> {
    /// Writes changed leaves that are children of `inner`, which may come to have more children than it should.
    pub(super) fn write_parts(&mut self, inner: &mut Inner<K>, which: Which) -> Result<(), RepoError> {
        let mut pieces = Vec::with_capacity(inner.children.len());
        for (first, child) in std::mem::take(&mut inner.children) {
            match child {
                Slot::Leaf(leaf) if which.includes(leaf.touched) => match (leaf.origin, stretches(&leaf)) {
                    (Some(origin), stretches) if is_worth_cutting(&leaf, &stretches) => {
                        self.release(&leaf);
                        pieces.extend(cut(leaf, &origin, &stretches));
                    }
                    (Some(_) | None, _) => pieces.push(Piece::Slot(first, Slot::Stored(self.write_leaf(leaf)?))),
                },
                child => pieces.push(Piece::Slot(first, child)),
            }
        }
        if which == Which::All {
            self.gather(&mut pieces)?;
        }
        inner.children = self.put_together(pieces)?;
        Ok(())
    }

    /// Has leaves of which little is left go into the patch, when the items are in too many leaves.
    fn gather(&self, pieces: &mut [Piece<K>]) -> Result<(), RepoError> {
        let mut held: HashMap<FrameRef, u64> = HashMap::new();
        // What a leaf takes that is full by the weight of its items, of which a weight is no more than a guess.
        let (mut bytes, mut full) = (0, limits::LEAF_BYTES as u64 / 4);
        for piece in pieces.iter() {
            match piece {
                Piece::Slot(_, Slot::Stored(branch)) => {
                    let share = share_of(branch);
                    full = full.max(u64::from(branch.node.frame.raw_bytes));
                    *held.entry(branch.node.frame).or_default() += share;
                    bytes += share;
                }
                Piece::Slot(_, _) => {}
                Piece::Patched(items) => {
                    bytes += items.iter().map(|(key, value)| K::weight(key, value) as u64).sum::<u64>()
                }
            }
        }
        let needed = usize::try_from(bytes.div_ceil(full)).unwrap_or(usize::MAX);
        let most = needed.saturating_mul(3).div_ceil(2).saturating_add(limits::SPARE_LEAVES);
        if held.len() <= most {
            return Ok(());
        }
        let mut by_share: Vec<(u64, FrameRef)> = held.into_iter().map(|(frame, share)| (share, frame)).collect();
        // Of equals, the same ones whatever the order of a map.
        by_share.sort_unstable_by_key(|(share, frame)| {
            (*share, frame.pack.session.base, frame.pack.ordinal, frame.ordinal)
        });
        by_share.truncate(by_share.len() - most / 4 * 3);
        let gone: HashSet<FrameRef> = by_share.into_iter().map(|(_, frame)| frame).collect();
        for piece in pieces {
            if let Piece::Slot(_, Slot::Stored(branch)) = piece
                && gone.contains(&branch.node.frame)
            {
                *piece = Piece::Patched(self.stored_items(branch)?);
            }
        }
        Ok(())
    }

    /// The children that come of these pieces; writes the patch.
    fn put_together(&self, pieces: Vec<Piece<K>>) -> Result<Slots<K>, RepoError> {
        let (mut children, mut patch): (Vec<Place<K>>, Items<K>) = (Vec::with_capacity(pieces.len()), Vec::new());
        for piece in pieces {
            match (piece, children.last_mut()) {
                (Piece::Patched(items), Some(Place::Patch(count))) => {
                    *count += items.len();
                    patch.extend(items);
                }
                (Piece::Patched(items), _) => {
                    children.push(Place::Patch(items.len()));
                    patch.extend(items);
                }
                (Piece::Slot(_, Slot::Stored(next)), Some(Place::Slot(_, Slot::Stored(last))))
                    if continues(last, &next) =>
                {
                    last.items += next.items;
                }
                (Piece::Slot(first, slot), _) => children.push(Place::Slot(first, slot)),
            }
        }
        let mut patched = self.write_patch(patch)?.into_iter();
        let mut slots = Slots::with_capacity(children.len());
        let mut open: Option<Patched> = None;
        for place in children {
            let mut count = match place {
                Place::Slot(first, slot) => {
                    slots.push((first, slot));
                    continue;
                }
                Place::Patch(count) => count,
            };
            // A patch of several leaves may end one within a run.
            while count > 0 {
                let Some(mut leaf) = open.take().or_else(|| patched.next()) else { break };
                let taken = count.min(leaf.keys.len());
                let Some(first) = leaf.keys.next() else { continue };
                leaf.keys.by_ref().take(taken - 1).for_each(drop);
                slots.push((first, Slot::Stored(Branch { items: taken as u64, ..leaf.branch })));
                leaf.branch.skip += taken as u64;
                count -= taken;
                open = Some(leaf).filter(|leaf| leaf.keys.len() > 0);
            }
        }
        Ok(slots)
    }

    /// Writes leaves of these items, which are in order.
    fn write_patch(&self, items: Items<K>) -> Result<Vec<Patched>, RepoError> {
        let weights: Vec<usize> = items.iter().map(|(key, value)| K::weight(key, value)).collect();
        let mut items = items.into_iter();
        let shares = shares(&weights, even_share(weights.iter().sum()));
        let write = |count| {
            let share: Items<K> = items.by_ref().take(count).collect();
            let keys: Vec<Key> = share.iter().map(|(key, _)| key.clone()).collect();
            let branch = Branch::whole(self.write(0, Node::Leaf(share))?);
            Ok(Patched { branch, keys: keys.into_iter() })
        };
        shares.into_iter().map(write).collect()
    }
}

/// A child to be.
enum Place<K: TreeKind> {
    Slot(Key, Slot<K>),
    /// So many of the patch's next items.
    Patch(usize),
}

/// A leaf of the patch, and the keys of its items from `branch.skip` on.
struct Patched {
    branch: Branch,
    keys: std::vec::IntoIter<Key>,
}

/// Whether the part `next` of a leaf begins where `last` ends.
fn continues(last: &Branch, next: &Branch) -> bool {
    last.node == next.node && last.skip + last.items == next.skip
}

/// The raw bytes of a leaf that a part of it stands for.
fn share_of(branch: &Branch) -> u64 {
    u64::from(branch.node.frame.raw_bytes).saturating_mul(branch.items) / branch.node.items.max(1)
}

/// Neighbours in a leaf: the index at which they end, and whether they are neighbours where they come from as well and stay there.
type Stretch = (usize, bool);

/// The stretches that a leaf is cut into.
fn stretches<K: TreeKind>(leaf: &Leaf<K>) -> Vec<Stretch> {
    let from = leaf.from.as_slice();
    let follows = |a: &u32, b: &u32| *a != NEW && *b != NEW && *b == *a + 1;
    let mut found: Vec<Stretch> = Vec::new();
    let mut end = 0;
    for run in from.chunk_by(follows) {
        end += run.len();
        let is_kept = run.len() >= limits::PART_ITEMS_MIN && run.first() != Some(&NEW);
        match found.last_mut() {
            Some((last, false)) if !is_kept => *last = end,
            _ => found.push((end, is_kept)),
        }
    }
    found
}

/// Whether less is stored when the leaf is cut: a small one in any case, because its new items then share a leaf with others.
fn is_worth_cutting<K: TreeKind>(leaf: &Leaf<K>, stretches: &[Stretch]) -> bool {
    let mut start = 0;
    let mut patched = 0;
    for &(end, is_kept) in stretches {
        if !is_kept {
            let items = leaf.items.get(start..end).unwrap_or_default();
            patched += items.iter().map(|(key, value)| K::weight(key, value)).sum::<usize>();
        }
        start = end;
    }
    leaf.weight < limits::LEAF_BYTES / 2 || patched * 2 <= leaf.weight
}

/// The parts of `origin` that a leaf has kept, and between them what is new.
fn cut<K: TreeKind>(leaf: Leaf<K>, origin: &Branch, stretches: &[Stretch]) -> Vec<Piece<K>> {
    let mut items = leaf.items.into_iter();
    let mut start = 0;
    let mut pieces = Vec::with_capacity(stretches.len());
    for &(end, is_kept) in stretches {
        let skip = leaf.from.get(start).copied().map(u64::from);
        let count = end - start;
        start = end;
        let share: Items<K> = items.by_ref().take(count).collect();
        match (share.first(), skip) {
            (Some((first, _)), Some(skip)) if is_kept => {
                let part = Branch { node: origin.node, skip, items: count as u64 };
                pieces.push(Piece::Slot(first.clone(), Slot::Stored(part)));
            }
            _ => pieces.push(Piece::Patched(share)),
        }
    }
    pieces
}
