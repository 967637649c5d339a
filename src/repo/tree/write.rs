//! Writing a tree: batches of edits over a parent, in bounded memory.
//!
//! Nodes that an edit touches are taken into memory and written once at the end, leaves first. When
//! changed leaves outgrow their budget, the ones that were not touched lately are written early; one
//! that is needed again is read back and written anew, which costs a little garbage and no more.
//! Inner nodes on the way to changed leaves stay in memory: about a five-hundredth of the leaves.
//!
//! Shape: a leaf that overflows at its end is cut so that the left part stays full, because then keys
//! arrive in order; one that overflows elsewhere is cut evenly. A changed leaf that has become small
//! joins a neighbour when it is written.

use crate::base::limits;
use crate::format::Key;
use crate::format::frame;
use crate::format::log::NodeRef;
use crate::format::node::{Child, Node, TreeKind};
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

enum Slot<K: TreeKind> {
    Stored(NodeRef),
    Leaf(Leaf<K>),
    Inner(Inner<K>),
}

struct Leaf<K: TreeKind> {
    items: Vec<(Key, K::Value)>,
    /// Raw bytes that it takes when it is written.
    weight: usize,
    /// Bytes that it takes in memory.
    held: usize,
    touched: u64,
}

struct Inner<K: TreeKind> {
    level: u8,
    children: Vec<(Key, Slot<K>)>,
}

impl<K: TreeKind> Leaf<K> {
    fn of(items: Vec<(Key, K::Value)>, touched: u64) -> Leaf<K> {
        let sum = |of: fn(&Key, &K::Value) -> usize| items.iter().map(|(key, value)| of(key, value)).sum();
        let (weight, held) = (sum(K::weight), sum(K::held));
        Leaf { items, weight, held, touched }
    }
}

impl<K: TreeKind> Slot<K> {
    fn level(&self) -> u8 {
        match self {
            Slot::Stored(pointer) => pointer.level,
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
        TreeWriter { session, reader, root: parent.map(Slot::Stored), budget, dirty: 0, batches: 0 }
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
        let root = self.root.take().unwrap_or(Slot::Leaf(Leaf::of(Vec::new(), self.batches)));
        let mut level = root.level();
        let mut pieces = self.edit(Key::default(), root, batch)?;
        while pieces.len() > 1 {
            level += 1;
            pieces = split_children(level, pieces);
        }
        self.root = pieces.pop().map(|(_, slot)| slot);
        self.collapse();
        if self.dirty > self.budget {
            self.write_coldest()?;
        }
        Ok(())
    }

    /// A root with one child is not needed.
    fn collapse(&mut self) {
        while let Some(Slot::Inner(inner)) = &mut self.root {
            if inner.children.len() > 1 {
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
    ) -> Result<Vec<(Key, Slot<K>)>, RepoError> {
        match slot {
            Slot::Stored(pointer) => match &*self.reader.node::<K>(&pointer)? {
                Node::Leaf(items) => {
                    let (edited, at_end, changed) = merge(items.clone(), batch)?;
                    if !changed {
                        return Ok(vec![(first, Slot::Stored(pointer))]);
                    }
                    Ok(self.split_leaf(edited, at_end))
                }
                Node::Inner(stored) => {
                    let children = stored.iter().map(|child| (child.first.clone(), Slot::Stored(child.node))).collect();
                    let pieces = self.edit_inner(Inner { level: pointer.level, children }, batch)?;
                    Ok(if unchanged(&pieces, stored) { vec![(first, Slot::Stored(pointer))] } else { pieces })
                }
            },
            Slot::Leaf(leaf) => {
                self.dirty -= leaf.held;
                let (edited, at_end, _) = merge(leaf.items, batch)?;
                Ok(self.split_leaf(edited, at_end))
            }
            Slot::Inner(inner) => self.edit_inner(inner, batch),
        }
    }

    fn edit_inner<E: Edit<K::Value>>(
        &mut self,
        inner: Inner<K>,
        batch: Vec<(Key, E)>,
    ) -> Result<Vec<(Key, Slot<K>)>, RepoError> {
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

    fn split_leaf(&mut self, items: Vec<(Key, K::Value)>, at_end: bool) -> Vec<(Key, Slot<K>)> {
        let weights: Vec<usize> = items.iter().map(|(key, value)| K::weight(key, value)).collect();
        let total: usize = weights.iter().sum();
        let target =
            if at_end { limits::LEAF_BYTES } else { total.div_ceil(total.div_ceil(limits::LEAF_BYTES).max(1)) };
        let mut pieces: Vec<(Key, Slot<K>)> = Vec::new();
        let (mut items, mut weights) = (items.into_iter(), weights.into_iter().peekable());
        while items.len() > 0 {
            let (mut count, mut weight) = (0, 0);
            while let Some(next) = weights.next_if(|next| count == 0 || weight + next <= target) {
                (count, weight) = (count + 1, weight + next);
            }
            // As large as it needs to be: most are never touched again.
            let mut share = Vec::with_capacity(count);
            share.extend(items.by_ref().take(count));
            let leaf = Leaf::of(share, self.batches);
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
        self.write_leaves(&mut root, until)?;
        self.root = Some(root);
        Ok(())
    }

    /// Writes the changed leaves below `slot` that were last touched at or before `until`.
    fn write_leaves(&mut self, slot: &mut Slot<K>, until: u64) -> Result<(), RepoError> {
        match slot {
            Slot::Stored(_) => {}
            Slot::Leaf(leaf) if leaf.touched > until => {}
            Slot::Leaf(leaf) => {
                self.dirty -= leaf.held;
                let pointer = self.write(0, Node::Leaf(std::mem::take(&mut leaf.items)))?;
                *slot = Slot::Stored(pointer);
            }
            Slot::Inner(inner) => {
                for (_, child) in &mut inner.children {
                    self.write_leaves(child, until)?;
                }
            }
        }
        Ok(())
    }

    fn write(&self, level: u8, node: Node<K>) -> Result<NodeRef, RepoError> {
        let items = match &node {
            Node::Leaf(items) => items.len() as u64,
            Node::Inner(children) => children.iter().map(|child| child.node.items).sum(),
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
        self.write_leaves(&mut root, u64::MAX)?;
        self.write_inner(root).map(Some)
    }

    fn write_inner(&self, slot: Slot<K>) -> Result<NodeRef, RepoError> {
        match slot {
            Slot::Stored(pointer) => Ok(pointer),
            Slot::Leaf(leaf) => self.write(0, Node::Leaf(leaf.items)),
            Slot::Inner(inner) => {
                let mut children = Vec::with_capacity(inner.children.len());
                for (first, child) in inner.children {
                    children.push(Child { first, node: self.write_inner(child)? });
                }
                self.write(inner.level, Node::Inner(children))
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
        let mut joined: Vec<(Key, Slot<K>)> = Vec::with_capacity(inner.children.len());
        for (first, child) in std::mem::take(&mut inner.children) {
            match joined.pop() {
                Some((before_first, before)) if self.worth_joining(&before, &child) => {
                    let mut left = self.take_leaf(before)?;
                    let right = self.take_leaf(child)?;
                    left.weight += right.weight;
                    left.held += right.held;
                    left.items.extend(right.items);
                    self.dirty += left.held;
                    joined.push((before_first, Slot::Leaf(left)));
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

    /// Two leaves, at least one changed and small, that fit into one.
    fn worth_joining(&self, left: &Slot<K>, right: &Slot<K>) -> bool {
        fn size<K: TreeKind>(slot: &Slot<K>) -> Option<(usize, bool)> {
            match slot {
                Slot::Stored(pointer) if pointer.level == 0 => Some((pointer.frame.raw_bytes as usize, false)),
                Slot::Leaf(leaf) => Some((leaf.weight, leaf.weight < limits::LEAF_BYTES / 4)),
                Slot::Stored(_) | Slot::Inner(_) => None,
            }
        }
        match (size(left), size(right)) {
            (Some((a, small_a)), Some((b, small_b))) => (small_a || small_b) && a + b <= limits::LEAF_BYTES,
            _ => false,
        }
    }

    fn take_leaf(&mut self, slot: Slot<K>) -> Result<Leaf<K>, RepoError> {
        match slot {
            Slot::Leaf(leaf) => {
                self.dirty -= leaf.held;
                Ok(leaf)
            }
            Slot::Stored(pointer) => match &*self.reader.node::<K>(&pointer)? {
                Node::Leaf(items) => Ok(Leaf::of(items.clone(), self.batches)),
                Node::Inner(_) => Err(RepoError::Inconsistent { what: "an inner node among leaves".to_owned() }),
            },
            Slot::Inner(_) => Err(RepoError::Defect { what: "an inner node among leaves".to_owned() }),
        }
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
            .all(|((_, slot), child)| matches!(slot, Slot::Stored(pointer) if *pointer == child.node))
}

fn leaf_slot<K: TreeKind>(leaf: Leaf<K>) -> Option<(Key, Slot<K>)> {
    let first = leaf.items.first()?.0.clone();
    Some((first, Slot::Leaf(leaf)))
}

/// Children as one node of `level`, or as several when there are too many for one.
fn split_children<K: TreeKind>(level: u8, children: Vec<(Key, Slot<K>)>) -> Vec<(Key, Slot<K>)> {
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

type Merged<V> = (Vec<(Key, V)>, bool, bool);

/// The items with the edits applied; whether all new ones came behind the old; whether anything changed.
fn merge<V: PartialEq, E: Edit<V>>(items: Vec<(Key, V)>, batch: Vec<(Key, E)>) -> Result<Merged<V>, RepoError> {
    let at_end = match (items.last(), batch.first()) {
        (Some((last, _)), Some((first, _))) => last < first,
        (None, _) | (_, None) => true,
    };
    let mut merged = Vec::with_capacity(items.len() + batch.len());
    let mut changed = false;
    let mut items = items.into_iter().peekable();
    for (key, edit) in batch {
        while let Some(item) = items.next_if(|(old, _)| *old < key) {
            merged.push(item);
        }
        let old = items.next_if(|(old, _)| *old == key);
        let new = edit.edit(old.as_ref().map(|(_, value)| value))?;
        changed |= match (&old, &new) {
            (Some((_, old)), Some(new)) => old != new,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        merged.extend(new.map(|value| (key, value)));
    }
    merged.extend(items);
    Ok((merged, at_end, changed))
}
