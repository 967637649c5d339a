//! Writing a tree: batches of edits over a parent, in bounded memory.
//!
//! Nodes that an edit touches are taken into memory and written once at the end, leaves first. When
//! changed leaves outgrow their budget, the ones that were not touched lately are written early; one
//! that is needed again is read back and written anew, which costs a little garbage and no more.
//! Inner nodes on the way to changed leaves stay in memory: about a five-hundredth of the leaves.
//!
//! Shape: a leaf that overflows at its end is cut so that the left part stays full, because then keys
//! arrive in order; one that overflows elsewhere is cut evenly. A changed leaf that has become small
//! joins a neighbour when it is written. Of one that has changed little, what it has kept stays where it is: see [`parts`](super::parts).

use crate::base::limits;
use crate::format::Key;
use crate::format::frame;
use crate::format::log::NodeRef;
use crate::format::node::{Branch, Child, Node, TreeKind};
use crate::repo::{Reader, RepoError, Session};

/// What an edit makes of the value under its key.
pub trait Edit<V> {
    /// The new value, or none to remove the item.
    ///
    /// # Errors
    /// [`RepoError::Inconsistent`] when the edit cannot apply to this value.
    fn edit(self, old: Option<&V>) -> Result<Option<V>, RepoError>;
}

/// Puts the value, or removes the item.
impl<V> Edit<V> for Option<V> {
    fn edit(self, _old: Option<&V>) -> Result<Option<V>, RepoError> {
        Ok(self)
    }
}

/// Adds to a count; a count of 0 is no item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta(pub i64);

impl Edit<u64> for Delta {
    fn edit(self, old: Option<&u64>) -> Result<Option<u64>, RepoError> {
        let old = old.copied().unwrap_or(0);
        match old.checked_add_signed(self.0) {
            Some(0) => Ok(None),
            Some(new) => Ok(Some(new)),
            None => Err(RepoError::Inconsistent { what: format!("a count of {old} cannot change by {}", self.0) }),
        }
    }
}

/// Items with their keys, in ascending order.
pub(super) type Items<K> = Vec<(Key, <K as TreeKind>::Value)>;

/// What a tree is made of while it is written, with their smallest keys.
pub(super) type Slots<K> = Vec<(Key, Slot<K>)>;

pub(super) enum Slot<K: TreeKind> {
    Stored(Branch),
    Leaf(Leaf<K>),
    Inner(Inner<K>),
}

pub(super) struct Leaf<K: TreeKind> {
    pub(super) items: Items<K>,
    /// What it was made from, where a part of a leaf may be referred to.
    pub(super) origin: Option<Branch>,
    /// Of each item, its index in the leaf that it was made from, or [`NEW`].
    pub(super) from: Vec<u32>,
    /// Raw bytes that it takes when it is written.
    pub(super) weight: usize,
    /// Bytes that it takes in memory.
    pub(super) held: usize,
    pub(super) touched: u64,
}

/// Of an item that no stored leaf has.
pub(super) const NEW: u32 = u32::MAX;

pub(super) struct Inner<K: TreeKind> {
    pub(super) level: u8,
    pub(super) children: Slots<K>,
}

impl<K: TreeKind> Leaf<K> {
    fn of((items, from): (Items<K>, Vec<u32>), origin: Option<Branch>, touched: u64) -> Leaf<K> {
        let sum = |of: fn(&Key, &K::Value) -> usize| items.iter().map(|(key, value)| of(key, value)).sum::<usize>();
        let (weight, held) = (sum(K::weight), sum(K::held) + size_of_val(from.as_slice()));
        Leaf { items, origin, from, weight, held, touched }
    }

    /// Of these items, all new.
    fn new(items: Items<K>, touched: u64) -> Leaf<K> {
        let from = vec![NEW; items.len()];
        Leaf::of((items, from), None, touched)
    }
}

impl<K: TreeKind> Slot<K> {
    fn level(&self) -> u8 {
        match self {
            Slot::Stored(branch) => branch.node.level,
            Slot::Leaf(_) => 0,
            Slot::Inner(inner) => inner.level,
        }
    }
}

/// Builds a tree from a parent and edits.
pub struct TreeWriter<'s, K: TreeKind> {
    session: &'s Session,
    reader: Reader,
    root: Option<Slot<K>>,
    budget: usize,
    /// Bytes that changed leaves take in memory.
    dirty: usize,
    /// Counts batches: tells how long ago a leaf was touched.
    batches: u64,
}

impl<'s, K: TreeKind> TreeWriter<'s, K> {
    /// Starts from `parent`; none is the empty tree.
    pub fn new(session: &'s Session, parent: Option<NodeRef>) -> TreeWriter<'s, K> {
        TreeWriter::with_budget(session, parent, limits::DIRTY_LEAF_BYTES)
    }

    /// As [`TreeWriter::new`], holding changed leaves that take at most about `budget` bytes of memory.
    pub fn with_budget(session: &'s Session, parent: Option<NodeRef>, budget: usize) -> TreeWriter<'s, K> {
        let reader = session.reader();
        TreeWriter {
            session,
            reader,
            root: parent.map(|root| Slot::Stored(Branch::whole(root))),
            budget,
            dirty: 0,
            batches: 0,
        }
    }

    /// Applies `batch`, whose keys are strictly ascending.
    ///
    /// # Errors
    /// [`RepoError`] when a node cannot be read or written; the writer is unusable then.
    pub fn apply<E: Edit<K::Value>>(&mut self, batch: Vec<(Key, E)>) -> Result<(), RepoError> {
        debug_assert!(batch.is_sorted_by(|a, b| a.0 < b.0), "a batch's keys ascend");
        if batch.is_empty() {
            return Ok(());
        }
        self.batches += 1;
        let root = self.root.take().unwrap_or(Slot::Leaf(Leaf::new(Vec::new(), self.batches)));
        let level = root.level();
        let pieces = self.edit(Key::default(), root, batch)?;
        self.root = under_one_root(level, pieces);
        self.collapse();
        if self.dirty > self.budget {
            self.write_coldest()?;
        }
        Ok(())
    }

    /// A root with one child is not needed, unless that is a part of a leaf.
    fn collapse(&mut self) {
        while let Some(Slot::Inner(inner)) = &mut self.root {
            let is_part = |slot: &Slot<K>| matches!(slot, Slot::Stored(branch) if !branch.is_whole());
            if inner.children.len() > 1 || inner.children.iter().any(|(_, slot)| is_part(slot)) {
                return;
            }
            self.root = inner.children.pop().map(|(_, slot)| slot);
        }
    }

    /// What `slot` becomes: pieces of the same level, none if nothing is left.
    fn edit<E: Edit<K::Value>>(
        &mut self,
        first: Key,
        slot: Slot<K>,
        batch: Vec<(Key, E)>,
    ) -> Result<Slots<K>, RepoError> {
        match slot {
            Slot::Stored(branch) => match &*self.reader.node::<K>(&branch.node)? {
                Node::Leaf(items) => {
                    let from = branch.range().map(|index| u32::try_from(index).unwrap_or(NEW)).collect();
                    let Merged { items, from, at_end, changed } = merge(branch.of(items).to_vec(), from, batch)?;
                    if !changed {
                        return Ok(vec![(first, Slot::Stored(branch))]);
                    }
                    Ok(self.split_leaf((items, from), K::HAS_PARTS.then_some(branch), at_end))
                }
                Node::Inner(stored) => {
                    let children =
                        stored.iter().map(|child| (child.first.clone(), Slot::Stored(child.branch))).collect();
                    let pieces = self.edit_inner(Inner { level: branch.node.level, children }, batch)?;
                    Ok(if unchanged(&pieces, stored) { vec![(first, Slot::Stored(branch))] } else { pieces })
                }
            },
            Slot::Leaf(leaf) => {
                self.dirty -= leaf.held;
                let Merged { items, from, at_end, .. } = merge(leaf.items, leaf.from, batch)?;
                Ok(self.split_leaf((items, from), leaf.origin, at_end))
            }
            Slot::Inner(inner) => self.edit_inner(inner, batch),
        }
    }

    fn edit_inner<E: Edit<K::Value>>(&mut self, inner: Inner<K>, batch: Vec<(Key, E)>) -> Result<Slots<K>, RepoError> {
        let mut batch = batch.into_iter().peekable();
        let mut old = inner.children.into_iter().peekable();
        let mut children = Vec::new();
        while let Some((first, slot)) = old.next() {
            let mut share = Vec::new();
            let bound = old.peek().map(|(next, _)| next);
            while let Some(edit) = batch.next_if(|(key, _)| bound.is_none_or(|bound| key < bound)) {
                share.push(edit);
            }
            if share.is_empty() {
                children.push((first, slot));
            } else {
                children.extend(self.edit(first, slot, share)?);
            }
        }
        if children.is_empty() {
            return Ok(Vec::new());
        }
        Ok(split_children(inner.level, children))
    }

    fn split_leaf(&mut self, (items, from): (Items<K>, Vec<u32>), origin: Option<Branch>, at_end: bool) -> Slots<K> {
        let weights: Vec<usize> = items.iter().map(|(key, value)| K::weight(key, value)).collect();
        let total: usize = weights.iter().sum();
        let target = if at_end { limits::LEAF_BYTES } else { even_share(total) };
        let mut pieces = Slots::new();
        let (mut items, mut from) = (items.into_iter(), from.into_iter());
        for count in shares(&weights, target) {
            // As large as it needs to be: most are never touched again.
            let mut share = (Vec::with_capacity(count), Vec::with_capacity(count));
            share.0.extend(items.by_ref().take(count));
            share.1.extend(from.by_ref().take(count));
            let leaf = Leaf::of(share, origin, self.batches);
            self.dirty += leaf.held;
            pieces.extend(leaf_slot(leaf));
        }
        pieces
    }

    fn write_coldest(&mut self) -> Result<(), RepoError> {
        fn ages<K: TreeKind>(slot: &Slot<K>, into: &mut Vec<(u64, usize)>) {
            match slot {
                Slot::Stored(_) => {}
                Slot::Leaf(leaf) => into.push((leaf.touched, leaf.held)),
                Slot::Inner(inner) => inner.children.iter().for_each(|(_, child)| ages(child, into)),
            }
        }
        let Some(mut root) = self.root.take() else { return Ok(()) };
        let mut touched = Vec::new();
        ages(&root, &mut touched);
        touched.sort_unstable();
        // Enough of the oldest to get down to half of the budget, so that this is not done every time.
        let mut excess = self.dirty.saturating_sub(self.budget / 2);
        let mut until = 0;
        for (age, held) in touched {
            until = age;
            if excess <= held {
                break;
            }
            excess -= held;
        }
        self.write_leaves(&mut root, Which::Untouched(until))?;
        self.root = Some(root);
        Ok(())
    }

    /// Writes changed leaves below `slot`.
    fn write_leaves(&mut self, slot: &mut Slot<K>, which: Which) -> Result<(), RepoError> {
        match slot {
            Slot::Leaf(leaf) if which.includes(leaf.touched) => {
                let leaf = std::mem::replace(leaf, Leaf::new(Vec::new(), 0));
                *slot = Slot::Stored(self.write_leaf(leaf)?);
            }
            Slot::Stored(_) | Slot::Leaf(_) => {}
            Slot::Inner(inner) if inner.level == 1 && K::HAS_PARTS => self.write_parts(inner, which)?,
            Slot::Inner(inner) => {
                for (_, child) in &mut inner.children {
                    self.write_leaves(child, which)?;
                }
            }
        }
        Ok(())
    }

    /// Writes a leaf by itself.
    pub(super) fn write_leaf(&mut self, leaf: Leaf<K>) -> Result<Branch, RepoError> {
        self.release(&leaf);
        self.write(0, Node::Leaf(leaf.items)).map(Branch::whole)
    }

    /// A leaf is changed no further.
    pub(super) fn release(&mut self, leaf: &Leaf<K>) {
        self.dirty -= leaf.held;
    }

    /// Writes a node.
    pub(super) fn write(&self, level: u8, node: Node<K>) -> Result<NodeRef, RepoError> {
        let items = match &node {
            Node::Leaf(items) => items.len() as u64,
            Node::Inner(children) => children.iter().map(|child| child.branch.items).sum(),
        };
        let payload = node.encode(level);
        let frame = frame::encode(K::FRAME, &payload, 0);
        let pointer = NodeRef { frame: self.session.append(frame, &[])?, level, items };
        // What no reader would accept must not be acknowledged.
        Node::<K>::decode(&payload, &pointer)
            .map_err(|error| RepoError::Defect { what: format!("a node was written that cannot be read: {error}") })?;
        Ok(pointer)
    }

    /// Writes what has changed and returns the new root; none if the tree is empty.
    ///
    /// # Errors
    /// As [`TreeWriter::apply`].
    pub fn finish(mut self) -> Result<Option<NodeRef>, RepoError> {
        let Some(mut root) = self.root.take() else { return Ok(None) };
        self.join_small(&mut root)?;
        self.root = Some(root);
        self.collapse();
        let Some(mut root) = self.root.take() else { return Ok(None) };
        // Leaves in key order first, so that a scan reads them in storage order; inner nodes behind.
        self.write_leaves(&mut root, Which::All)?;
        let level = root.level();
        let Some(root) = under_one_root(level, fitted(Key::default(), root)) else { return Ok(None) };
        // A root is a node of its own, and never a part of one.
        self.write_inner(root).map(|branch| Some(branch.node))
    }

    fn write_inner(&mut self, slot: Slot<K>) -> Result<Branch, RepoError> {
        match slot {
            Slot::Stored(branch) => Ok(branch),
            Slot::Leaf(leaf) => self.write_leaf(leaf),
            Slot::Inner(inner) => {
                let mut children = Vec::with_capacity(inner.children.len());
                for (first, child) in inner.children {
                    children.push(Child { first, branch: self.write_inner(child)? });
                }
                self.write(inner.level, Node::Inner(children)).map(Branch::whole)
            }
        }
    }

    /// Lets changed leaves that have become small join the leaf before them.
    fn join_small(&mut self, slot: &mut Slot<K>) -> Result<(), RepoError> {
        let Slot::Inner(inner) = slot else { return Ok(()) };
        if inner.level > 1 {
            for (_, child) in &mut inner.children {
                self.join_small(child)?;
            }
            return Ok(());
        }
        let mut joined: Slots<K> = Vec::with_capacity(inner.children.len());
        for (first, child) in std::mem::take(&mut inner.children) {
            match joined.pop() {
                Some((before_first, before)) if self.worth_joining(&before, &child) => {
                    let mut items = self.take_leaf(before)?;
                    items.extend(self.take_leaf(child)?);
                    let leaf = Leaf::new(items, self.batches);
                    self.dirty += leaf.held;
                    joined.push((before_first, Slot::Leaf(leaf)));
                }
                Some(before) => {
                    joined.push(before);
                    joined.push((first, child));
                }
                None => joined.push((first, child)),
            }
        }
        inner.children = joined;
        Ok(())
    }

    /// Two leaves, at least one changed and small, that fit into one. Parts of leaves are looked after elsewhere.
    fn worth_joining(&self, left: &Slot<K>, right: &Slot<K>) -> bool {
        fn size<K: TreeKind>(slot: &Slot<K>) -> Option<(usize, bool)> {
            match slot {
                Slot::Stored(branch) if branch.node.level == 0 && branch.is_whole() => {
                    Some((branch.node.frame.raw_bytes as usize, false))
                }
                Slot::Leaf(leaf) if leaf.origin.is_none_or(|origin| origin.is_whole()) => {
                    Some((leaf.weight, leaf.weight < limits::LEAF_BYTES / 4))
                }
                Slot::Stored(_) | Slot::Leaf(_) | Slot::Inner(_) => None,
            }
        }
        match (size(left), size(right)) {
            (Some((a, small_a)), Some((b, small_b))) => (small_a || small_b) && a + b <= limits::LEAF_BYTES,
            _ => false,
        }
    }

    fn take_leaf(&mut self, slot: Slot<K>) -> Result<Items<K>, RepoError> {
        match slot {
            Slot::Leaf(leaf) => {
                self.dirty -= leaf.held;
                Ok(leaf.items)
            }
            Slot::Stored(branch) => self.stored_items(&branch),
            Slot::Inner(_) => Err(RepoError::Defect { what: "an inner node among leaves".to_owned() }),
        }
    }

    /// The items of a stored leaf, or of a part of one.
    pub(super) fn stored_items(&self, branch: &Branch) -> Result<Items<K>, RepoError> {
        match &*self.reader.node::<K>(&branch.node)? {
            Node::Leaf(items) => Ok(branch.of(items).to_vec()),
            Node::Inner(_) => Err(RepoError::Inconsistent { what: "an inner node among leaves".to_owned() }),
        }
    }
}

/// Which changed leaves are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that were last touched by this batch or one before it, to have room for others.
    Untouched(u64),
    /// Whatever is there, at the end.
    All,
}

impl Which {
    pub(super) fn includes(self, touched: u64) -> bool {
        match self {
            Which::Untouched(until) => touched <= until,
            Which::All => true,
        }
    }
}

/// What of so many bytes goes into a leaf when all are to be alike.
pub(super) fn even_share(bytes: usize) -> usize {
    bytes.div_ceil(bytes.div_ceil(limits::LEAF_BYTES).max(1))
}

/// How many items of these weights go into each leaf, when none is to be heavier than `most` unless by a single item.
pub(super) fn shares(weights: &[usize], most: usize) -> Vec<usize> {
    let mut counts = Vec::new();
    let mut weights = weights.iter().peekable();
    while weights.peek().is_some() {
        let (mut count, mut weight) = (0, 0);
        while let Some(next) = weights.next_if(|next| count == 0 || weight + **next <= most) {
            (count, weight) = (count + 1, weight + next);
        }
        counts.push(count);
    }
    counts
}

/// These nodes of `level` below one root; none if there are none.
fn under_one_root<K: TreeKind>(mut level: u8, mut pieces: Slots<K>) -> Option<Slot<K>> {
    while pieces.len() > 1 {
        level += 1;
        pieces = split_children(level, pieces);
    }
    pieces.pop().map(|(_, slot)| slot)
}

/// The slot, with inner nodes that have come to have too many children split.
fn fitted<K: TreeKind>(first: Key, slot: Slot<K>) -> Slots<K> {
    match slot {
        Slot::Inner(Inner { level, children }) => {
            let children = children.into_iter().flat_map(|(first, child)| fitted(first, child)).collect();
            split_children(level, children)
        }
        slot @ (Slot::Stored(_) | Slot::Leaf(_)) => vec![(first, slot)],
    }
}

/// Whether editing the children of a stored node has left every one of them as it was.
fn unchanged<K: TreeKind>(pieces: &[(Key, Slot<K>)], stored: &[Child]) -> bool {
    let [(_, Slot::Inner(inner))] = pieces else { return false };
    inner.children.len() == stored.len()
        && inner
            .children
            .iter()
            .zip(stored)
            .all(|((_, slot), child)| matches!(slot, Slot::Stored(branch) if *branch == child.branch))
}

fn leaf_slot<K: TreeKind>(leaf: Leaf<K>) -> Option<(Key, Slot<K>)> {
    let first = leaf.items.first()?.0.clone();
    Some((first, Slot::Leaf(leaf)))
}

/// Children as one node of `level`, or as several when there are too many for one.
fn split_children<K: TreeKind>(level: u8, children: Slots<K>) -> Slots<K> {
    let nodes = children.len().div_ceil(limits::INNER_CHILDREN_MAX).max(1);
    let share = children.len().div_ceil(nodes).max(1);
    let mut pieces = Vec::with_capacity(nodes);
    let mut rest = children.into_iter().peekable();
    while rest.peek().is_some() {
        let children: Vec<_> = rest.by_ref().take(share).collect();
        if let Some((first, _)) = children.first() {
            pieces.push((first.clone(), Slot::Inner(Inner { level, children })));
        }
    }
    pieces
}

/// A leaf's items after a batch.
struct Merged<V> {
    items: Vec<(Key, V)>,
    /// Of each, its index in the leaf that was.
    from: Vec<u32>,
    /// Whether all new ones came behind the old.
    at_end: bool,
    /// Whether anything changed.
    changed: bool,
}

/// The items, each from its place in a stored leaf, with the edits applied.
fn merge<V: PartialEq, E: Edit<V>>(
    items: Vec<(Key, V)>,
    from: Vec<u32>,
    batch: Vec<(Key, E)>,
) -> Result<Merged<V>, RepoError> {
    let at_end = match (items.last(), batch.first()) {
        (Some((last, _)), Some((first, _))) => last < first,
        (None, _) | (_, None) => true,
    };
    let most = items.len() + batch.len();
    let mut merged = Merged { items: Vec::with_capacity(most), from: Vec::with_capacity(most), at_end, changed: false };
    let mut old = items.into_iter().zip(from).peekable();
    let put = |merged: &mut Merged<V>, item, from| {
        merged.items.push(item);
        merged.from.push(from);
    };
    for (key, edit) in batch {
        while let Some((item, from)) = old.next_if(|((old, _), _)| *old < key) {
            put(&mut merged, item, from);
        }
        let (old, from) = old.next_if(|((old, _), _)| *old == key).unzip();
        let new = edit.edit(old.as_ref().map(|(_, value)| value))?;
        let changed = match (&old, &new) {
            (Some((_, old)), Some(new)) => old != new,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        merged.changed |= changed;
        if let Some(value) = new {
            put(&mut merged, (key, value), from.filter(|_| !changed).unwrap_or(NEW));
        }
    }
    old.for_each(|(item, from)| put(&mut merged, item, from));
    Ok(merged)
}
