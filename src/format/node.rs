//! Nodes of the counted B+tree: leaves of items, inner nodes of children with their counts.
//!
//! A node is the payload of one frame: a level byte (0: leaf), then the columns. Items are kept by
//! column and keys front-coded, because zstd finds far more in a column of modes than in rows; the
//! pack of a frame reference is an index into a table, because a leaf refers to few packs.
//! Three kinds of tree share all of this and differ in their leaf's columns only ([`TreeKind`]).
//!
//! A child may be a part of a leaf: some of its items, one behind the other. So what changes little shares with its parent what
//! it keeps of a leaf, and stores no more than what has changed (`docs/decisions/106-parts-of-leaves.md`).

use std::ops::Range;

use bincode::{Decode, Encode};

use super::codec;
use super::error::{FormatError, malformed};
use super::frame::FrameKind;
use super::ids::{FrameHash, FrameOrdinal, FrameRef, PackId};
use super::key::{KEY_BYTES_MAX, Key};
use super::log::NodeRef;
use crate::base::limits;

/// A kind of tree: what its leaves hold.
pub trait TreeKind: Sized + Send + Sync + 'static {
    /// What stands under a key.
    type Value: Clone + Send + Sync + PartialEq + std::fmt::Debug + 'static;
    /// The kind of its frames.
    const FRAME: FrameKind;
    /// Its name in errors.
    const WHAT: &'static str;
    /// Whether a child may be a part of a leaf. Whoever asks which frames a tree holds alone must not have to look into leaves
    /// that others hold, so trees whose leaves are asked that have none.
    const HAS_PARTS: bool = false;

    /// About how many raw bytes the item takes in a leaf.
    fn weight(key: &Key, value: &Self::Value) -> usize;

    /// Bytes that stand behind the value in memory, in allocations of their own.
    fn behind(value: &Self::Value) -> usize;

    /// About how many bytes the item takes in memory: several times its weight.
    fn held(key: &Key, value: &Self::Value) -> usize {
        let behind = Self::behind(value);
        let allocations = 1 + usize::from(behind > 0);
        size_of::<(Key, Self::Value)>() + key.0.len() + behind + allocations * ALLOCATION_BYTES
    }

    /// The columns of the items, in ascending order of keys.
    fn encode_leaf(items: &[(Key, Self::Value)]) -> Vec<u8>;

    /// The items of these columns; their keys are strictly ascending and plausible.
    ///
    /// # Errors
    /// [`FormatError`] for anything that `encode_leaf` does not yield.
    fn decode_leaf(columns: &[u8]) -> Result<Vec<(Key, Self::Value)>, FormatError>;
}

/// In an inner node's level byte: some of its children are parts of leaves, and say so behind the other columns.
const HAS_PARTS: u8 = 0x80;

/// What an allocation takes beside its bytes, about.
const ALLOCATION_BYTES: usize = 16;

/// A node, or some neighbours among the items of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// The node, with all of its items.
    pub node: NodeRef,
    /// Items of the leaf before the first that is meant.
    pub skip: u64,
    /// Items that are meant: below the node, or of the leaf.
    pub items: u64,
}

impl Branch {
    /// All of a node.
    pub fn whole(node: NodeRef) -> Branch {
        Branch { node, skip: 0, items: node.items }
    }

    /// Whether it is all of its node.
    pub fn is_whole(&self) -> bool {
        *self == Branch::whole(self.node)
    }

    /// The indexes of what is meant, of the items of the leaf.
    pub fn range(&self) -> Range<usize> {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        index(self.skip)..index(self.skip.saturating_add(self.items))
    }

    /// What is meant, of the items of the leaf.
    pub fn of<'i, T>(&self, items: &'i [T]) -> &'i [T] {
        // A child is held against the count of its leaf when it is decoded, and the leaf against that as well.
        items.get(self.range()).unwrap_or_default()
    }
}

/// A child of an inner node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The smallest key below; of the leftmost child, at most that.
    pub first: Key,
    /// What is below.
    pub branch: Branch,
}

impl Child {
    /// About how many bytes it takes in memory.
    pub fn held(&self) -> usize {
        size_of::<Child>() + self.first.0.len() + ALLOCATION_BYTES
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<K: TreeKind> {
    /// Items in ascending order of keys.
    Leaf(Vec<(Key, K::Value)>),
    /// Children in ascending order of keys, all of the level below.
    Inner(Vec<Child>),
}

impl<K: TreeKind> Node<K> {
    /// The payload of the node's frame. `level` is 0 for a leaf.
    pub fn encode(&self, level: u8) -> Vec<u8> {
        let (flag, columns) = match self {
            Node::Leaf(items) => (0, K::encode_leaf(items)),
            Node::Inner(children) => {
                let columns = InnerColumns::new(children);
                match PartColumns::new(children) {
                    None => (0, codec::encode(&columns)),
                    Some(parts) => (HAS_PARTS, codec::encode(&(columns, parts))),
                }
            }
        };
        let mut payload = Vec::with_capacity(1 + columns.len());
        payload.push(level | flag);
        payload.extend_from_slice(&columns);
        payload
    }

    /// The node that `payload` holds, read through `pointer`.
    ///
    /// # Errors
    /// [`FormatError`] when it is not a node, or not the one that the pointer counts.
    pub fn decode(payload: &[u8], pointer: &NodeRef) -> Result<Node<K>, FormatError> {
        let (first, columns) = payload.split_first().ok_or_else(|| malformed(K::WHAT, "empty"))?;
        let (level, has_parts) = (first & !HAS_PARTS, first & HAS_PARTS != 0);
        if has_parts && (level != 1 || !K::HAS_PARTS) {
            return Err(malformed(K::WHAT, "a part of what has no parts"));
        }
        if level != pointer.level || level >= limits::TREE_LEVELS_MAX {
            return Err(malformed(K::WHAT, format!("level {level} where {} was expected", pointer.level)));
        }
        let (node, items) = if level == 0 {
            let items = K::decode_leaf(columns)?;
            let count = items.len() as u64;
            (Node::Leaf(items), count)
        } else {
            let children = if has_parts {
                let (columns, parts): (InnerColumns, PartColumns) =
                    codec::decode(K::WHAT, columns, limits::FRAME_RAW_BYTES_MAX)?;
                let mut children = columns.children(K::WHAT, level - 1)?;
                parts.apply(K::WHAT, &mut children)?;
                children
            } else {
                let columns: InnerColumns = codec::decode(K::WHAT, columns, limits::FRAME_RAW_BYTES_MAX)?;
                columns.children(K::WHAT, level - 1)?
            };
            // Readers add these up: a node whose counts do not fit must never reach them.
            let count = children.iter().try_fold(0u64, |sum, child| sum.checked_add(child.branch.items));
            (Node::Inner(children), count.ok_or_else(|| malformed(K::WHAT, "more items than can be counted"))?)
        };
        if items != pointer.items || items == 0 {
            return Err(malformed(K::WHAT, format!("{items} items where {} were expected", pointer.items)));
        }
        Ok(node)
    }
}

/// Keys, each as the part that differs from the one before.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
pub(crate) struct KeyColumn {
    shared: Vec<u16>,
    rest: Vec<u16>,
    bytes: Vec<u8>,
}

impl KeyColumn {
    pub(crate) fn new<'a>(keys: impl Iterator<Item = &'a Key>) -> KeyColumn {
        let mut column = KeyColumn::default();
        let mut last: &[u8] = &[];
        for Key(key) in keys {
            let shared = key.iter().zip(last).take_while(|(a, b)| a == b).count();
            let (_, rest) = key.split_at(shared);
            // Keys are at most KEY_BYTES_MAX bytes, so both lengths fit.
            column.shared.push(u16::try_from(shared).unwrap_or(u16::MAX));
            column.rest.push(u16::try_from(rest.len()).unwrap_or(u16::MAX));
            column.bytes.extend_from_slice(rest);
            last = key;
        }
        column
    }

    /// The keys; refused unless strictly ascending, of possible length and front-coded fully.
    pub(crate) fn keys(&self, what: &'static str) -> Result<Vec<Key>, FormatError> {
        if self.shared.len() != self.rest.len() {
            return Err(malformed(what, "key columns differ in length"));
        }
        let mut keys: Vec<Key> = Vec::with_capacity(self.shared.len());
        let mut bytes = self.bytes.as_slice();
        for (shared, rest) in self.shared.iter().zip(&self.rest) {
            let (rest, behind) =
                bytes.split_at_checked(usize::from(*rest)).ok_or_else(|| malformed(what, "key bytes are missing"))?;
            bytes = behind;
            let last = keys.last().map_or(&[] as &[u8], |key| key.0.as_slice());
            let (common, tail) =
                last.split_at_checked(usize::from(*shared)).ok_or_else(|| malformed(what, "key shares too much"))?;
            if tail.first().is_some_and(|byte| rest.first() == Some(byte)) {
                return Err(malformed(what, "key shares too little"));
            }
            let mut key = Vec::with_capacity(common.len() + rest.len());
            key.extend_from_slice(common);
            key.extend_from_slice(rest);
            if key.len() > KEY_BYTES_MAX {
                return Err(malformed(what, "key is too long"));
            }
            let key = Key(key);
            if keys.last().is_some_and(|last| *last >= key) {
                return Err(malformed(what, "keys are not ascending"));
            }
            keys.push(key);
        }
        if !bytes.is_empty() {
            return Err(malformed(what, "key bytes are left over"));
        }
        Ok(keys)
    }
}

/// References to frames by column, each pack named once.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
pub(crate) struct FrameColumns {
    packs: Vec<PackId>,
    pack: Vec<u32>,
    ordinal: Vec<u32>,
    offset: Vec<u64>,
    stored_bytes: Vec<u32>,
    raw_bytes: Vec<u32>,
    hash: Vec<u8>,
}

impl FrameColumns {
    pub(crate) fn push(&mut self, frame: &FrameRef) {
        // References come in storage order: the pack is nearly always the last one named.
        let pack = match self.packs.iter().rposition(|pack| *pack == frame.pack) {
            Some(index) => index,
            None => {
                self.packs.push(frame.pack);
                self.packs.len() - 1
            }
        };
        self.pack.push(u32::try_from(pack).unwrap_or(u32::MAX));
        self.ordinal.push(frame.ordinal.0);
        self.offset.push(frame.offset);
        self.stored_bytes.push(frame.stored_bytes);
        self.raw_bytes.push(frame.raw_bytes);
        self.hash.extend_from_slice(&frame.hash.0);
    }

    pub(crate) fn frames(&self, what: &'static str) -> Result<Vec<FrameRef>, FormatError> {
        let count = self.pack.len();
        let hashes = self.hash.as_chunks::<16>();
        let lengths =
            [self.ordinal.len(), self.offset.len(), self.stored_bytes.len(), self.raw_bytes.len(), hashes.0.len()];
        if lengths.iter().any(|length| *length != count) || !hashes.1.is_empty() {
            return Err(malformed(what, "frame columns differ in length"));
        }
        let mut frames = Vec::with_capacity(count);
        let mut next_pack = 0;
        let rows = self.pack.iter().zip(&self.ordinal).zip(&self.offset).zip(&self.stored_bytes).zip(&self.raw_bytes);
        for (((((pack, ordinal), offset), stored), raw), hash) in rows.zip(hashes.0) {
            let index = *pack as usize;
            let id = self.packs.get(index).ok_or_else(|| malformed(what, "a frame's pack is not in the table"))?;
            if index > next_pack || (index == next_pack && self.packs.iter().take(index).any(|earlier| earlier == id)) {
                return Err(malformed(what, "the pack table is not in order of use"));
            }
            next_pack = next_pack.max(index + 1);
            if *raw as usize > limits::FRAME_RAW_BYTES_MAX || *stored as usize > limits::FRAME_STORED_BYTES_MAX {
                return Err(malformed(what, "a frame is larger than frames can be"));
            }
            frames.push(FrameRef {
                pack: *id,
                ordinal: FrameOrdinal(*ordinal),
                offset: *offset,
                stored_bytes: *stored,
                raw_bytes: *raw,
                hash: FrameHash(*hash),
            });
        }
        if next_pack != self.packs.len() {
            return Err(malformed(what, "the pack table holds packs that nothing uses"));
        }
        Ok(frames)
    }
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
struct InnerColumns {
    keys: KeyColumn,
    frames: FrameColumns,
    /// Of each child's node.
    items: Vec<u64>,
}

impl InnerColumns {
    fn new(children: &[Child]) -> InnerColumns {
        let mut frames = FrameColumns::default();
        for child in children {
            frames.push(&child.branch.node.frame);
        }
        InnerColumns {
            keys: KeyColumn::new(children.iter().map(|child| &child.first)),
            frames,
            items: children.iter().map(|child| child.branch.node.items).collect(),
        }
    }

    fn children(&self, what: &'static str, level: u8) -> Result<Vec<Child>, FormatError> {
        let keys = self.keys.keys(what)?;
        let frames = self.frames.frames(what)?;
        if keys.len() != frames.len() || keys.len() != self.items.len() {
            return Err(malformed(what, "inner columns differ in length"));
        }
        let child = |((first, frame), items): ((Key, FrameRef), &u64)| Child {
            first,
            branch: Branch::whole(NodeRef { frame, level, items: *items }),
        };
        Ok(keys.into_iter().zip(frames).zip(&self.items).map(child).collect())
    }
}

/// The children that are parts of leaves: which they are, and which items of theirs.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
struct PartColumns {
    child: Vec<u32>,
    skip: Vec<u64>,
    items: Vec<u64>,
}

impl PartColumns {
    /// None when all are whole.
    fn new(children: &[Child]) -> Option<PartColumns> {
        let mut parts = PartColumns::default();
        for (index, Child { branch, .. }) in children.iter().enumerate().filter(|(_, child)| !child.branch.is_whole()) {
            // Children are few.
            parts.child.push(u32::try_from(index).unwrap_or(u32::MAX));
            parts.skip.push(branch.skip);
            parts.items.push(branch.items);
        }
        (!parts.child.is_empty()).then_some(parts)
    }

    fn apply(&self, what: &'static str, children: &mut [Child]) -> Result<(), FormatError> {
        let PartColumns { child, skip, items } = self;
        if child.is_empty() || child.len() != skip.len() || child.len() != items.len() {
            return Err(malformed(what, "columns of parts are empty or differ in length"));
        }
        if !child.is_sorted_by(|a, b| a < b) {
            return Err(malformed(what, "parts are not ascending"));
        }
        for ((child, skip), items) in child.iter().zip(skip).zip(items) {
            let branch = children.get_mut(*child as usize).map(|child| &mut child.branch);
            let branch = branch.ok_or_else(|| malformed(what, "a part of no child"))?;
            (branch.skip, branch.items) = (*skip, *items);
            let is_within = skip.checked_add(*items).is_some_and(|end| end <= branch.node.items);
            if *items == 0 || !is_within || branch.is_whole() {
                return Err(malformed(what, "a part is not a part of its leaf"));
            }
        }
        Ok(())
    }
}
