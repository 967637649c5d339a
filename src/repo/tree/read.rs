//! Reading a tree: by key, by rank, in order.

use std::ops::Range;
use std::sync::Arc;

use crate::format::Key;
use crate::format::log::NodeRef;
use crate::format::node::{Branch, Child, Node, TreeKind};
use crate::repo::{Reader, RepoError};

/// A tree that does not change; cheap to clone.
#[derive(Debug)]
pub struct Tree<K: TreeKind> {
    reader: Reader,
    root: Option<NodeRef>,
    kind: std::marker::PhantomData<K>,
}

impl<K: TreeKind> Clone for Tree<K> {
    fn clone(&self) -> Tree<K> {
        Tree { reader: self.reader.clone(), root: self.root, kind: std::marker::PhantomData }
    }
}

/// An item of a tree, with its place among all.
#[derive(Debug, Clone)]
pub struct Item<K: TreeKind> {
    leaf: Arc<Node<K>>,
    index: usize,
    rank: u64,
}

impl<K: TreeKind> Item<K> {
    fn pair(&self) -> &(Key, K::Value) {
        match &*self.leaf {
            Node::Leaf(items) => &items[self.index],
            Node::Inner(_) => unreachable!("items are made from leaves only"),
        }
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.pair().0
    }

    /// Its value.
    pub fn value(&self) -> &K::Value {
        &self.pair().1
    }

    /// Items with smaller keys.
    pub fn rank(&self) -> u64 {
        self.rank
    }
}

/// A place in a leaf.
struct Place<K: TreeKind> {
    leaf: Arc<Node<K>>,
    /// The items of the leaf that the tree has.
    part: Range<usize>,
    /// Within them, or behind them.
    index: usize,
    rank: u64,
}

impl<K: TreeKind> Place<K> {
    /// Whether the item with this key is there.
    fn has(&self, key: &Key) -> bool {
        let here = self.part.contains(&self.index);
        here && matches!(&*self.leaf, Node::Leaf(items) if items.get(self.index).is_some_and(|(k, _)| k == key))
    }

    fn item(self) -> Item<K> {
        Item { leaf: self.leaf, index: self.index, rank: self.rank }
    }
}

/// The child under which `key` would be, and the count of items before it.
fn child_for<'a>(children: &'a [Child], key: &Key) -> Option<(&'a Child, u64)> {
    let index = children.partition_point(|child| child.first <= *key).saturating_sub(1);
    let before = children.iter().take(index).map(|child| child.branch.items).sum();
    children.get(index).map(|child| (child, before))
}

impl<K: TreeKind> Tree<K> {
    /// The tree under `root`; none is the empty tree.
    pub fn new(reader: Reader, root: Option<NodeRef>) -> Tree<K> {
        Tree { reader, root, kind: std::marker::PhantomData }
    }

    /// Its root node; none of the empty tree.
    pub fn root(&self) -> Option<&NodeRef> {
        self.root.as_ref()
    }

    /// Count of items.
    pub fn items(&self) -> u64 {
        self.root.map_or(0, |root| root.items)
    }

    /// Where the first item that is not below `key` is or would be, in the leaf in which `key` would be.
    fn seek(&self, key: &Key) -> Result<Option<Place<K>>, RepoError> {
        let Some(mut branch) = self.root.map(Branch::whole) else { return Ok(None) };
        let mut before = 0;
        loop {
            let node = self.reader.node::<K>(&branch.node)?;
            match &*node {
                Node::Leaf(items) => {
                    let part = branch.range();
                    let below = branch.of(items).partition_point(|(k, _)| k < key);
                    let (index, rank) = (part.start + below, before + below as u64);
                    return Ok(Some(Place { leaf: node, part, index, rank }));
                }
                Node::Inner(children) => match child_for(children, key) {
                    Some((child, skipped)) => {
                        before += skipped;
                        branch = child.branch;
                    }
                    None => return Ok(None),
                },
            }
        }
    }

    /// The item under `key`.
    ///
    /// # Errors
    /// [`RepoError`] when a node on the way cannot be read.
    pub fn get(&self, key: &Key) -> Result<Option<Item<K>>, RepoError> {
        Ok(self.seek(key)?.filter(|place| place.has(key)).map(Place::item))
    }

    /// Items with keys below `key`.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn rank(&self, key: &Key) -> Result<u64, RepoError> {
        Ok(self.seek(key)?.map_or(0, |place| place.rank))
    }

    /// The item with `rank` smaller keys.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn at(&self, rank: u64) -> Result<Option<Item<K>>, RepoError> {
        self.scan(rank).next().transpose()
    }

    /// The last item whose key is at most `key`.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn floor(&self, key: &Key) -> Result<Option<Item<K>>, RepoError> {
        let Some(place) = self.seek(key)? else { return Ok(None) };
        if place.has(key) {
            return Ok(Some(place.item()));
        }
        match place.rank.checked_sub(1) {
            Some(rank) if place.index > place.part.start => {
                Ok(Some(Place { index: place.index - 1, rank, ..place }.item()))
            }
            // The key falls before its leaf's first item only in the leftmost leaf.
            before => before.map_or(Ok(None), |rank| self.at(rank)),
        }
    }

    /// All items from `rank` on, in order.
    pub fn scan(&self, rank: u64) -> Scan<K> {
        Scan { tree: self.clone(), rank, before: None, path: Vec::new(), failed: false }
    }

    /// All items from `key` on, in order.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn scan_from(&self, key: &Key) -> Result<Scan<K>, RepoError> {
        Ok(self.scan(self.rank(key)?))
    }
}

/// A node on the way, and the indexes of the children or items that are yet to come: short, because each scan has one of a level.
type Step<K> = (Arc<Node<K>>, Range<u32>);

fn short(range: Range<usize>) -> Range<u32> {
    // No frame holds so many items.
    let index = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    index(range.start)..index(range.end)
}

/// Items in order. Ends after the first error.
#[derive(Debug)]
pub struct Scan<K: TreeKind> {
    tree: Tree<K>,
    rank: u64,
    /// Leaves that begin at or behind this key are not read.
    before: Option<Key>,
    /// From the root to the current leaf.
    path: Vec<Step<K>>,
    failed: bool,
}

/// Whether anything of a child can be below this key.
fn concerns(before: &Option<Key>, child: &Child) -> bool {
    before.as_ref().is_none_or(|before| child.first < *before)
}

impl<K: TreeKind> Scan<K> {
    /// The same items, for somebody whom those from `key` on do not concern: they may be left out, and
    /// no node is read for them. A neighbour's damage then stays the neighbour's.
    #[must_use]
    pub fn before(self, key: Key) -> Scan<K> {
        Scan { before: Some(key), ..self }
    }

    /// Builds the path down to the item at `self.rank`.
    fn descend(&mut self) -> Result<bool, RepoError> {
        let Some(root) = self.tree.root.filter(|root| self.rank < root.items) else { return Ok(false) };
        let (mut branch, mut skip) = (Branch::whole(root), self.rank);
        loop {
            let node = self.tree.reader.node::<K>(&branch.node)?;
            match &*node {
                Node::Leaf(_) => {
                    let part = branch.range();
                    let index = part.start.saturating_add(usize::try_from(skip).unwrap_or(usize::MAX));
                    self.path.push((node, short(index..part.end)));
                    return Ok(true);
                }
                Node::Inner(children) => {
                    let mut index = 0;
                    for child in children {
                        if skip < child.branch.items {
                            break;
                        }
                        skip -= child.branch.items;
                        index += 1;
                    }
                    match children.get(index) {
                        Some(child) if concerns(&self.before, child) => branch = child.branch,
                        Some(_) | None => return Ok(false),
                    }
                    let rest = short(index + 1..children.len());
                    self.path.push((node, rest));
                }
            }
        }
    }

    /// Moves to the first item of the next leaf.
    fn next_leaf(&mut self) -> Result<bool, RepoError> {
        while let Some((node, rest)) = self.path.last_mut() {
            let child = match &**node {
                Node::Leaf(_) => None,
                Node::Inner(children) => children.get(rest.start as usize),
            };
            match child.filter(|child| concerns(&self.before, child)).map(|child| child.branch) {
                Some(branch) => {
                    rest.start += 1;
                    let node = self.tree.reader.node::<K>(&branch.node)?;
                    let (leaf, rest) = match &*node {
                        Node::Leaf(_) => (true, branch.range()),
                        Node::Inner(children) => (false, 0..children.len()),
                    };
                    let rest = short(rest);
                    self.path.push((node, rest));
                    if leaf {
                        return Ok(true);
                    }
                }
                None => {
                    self.path.pop();
                }
            }
        }
        Ok(false)
    }

    fn step(&mut self) -> Result<Option<Item<K>>, RepoError> {
        if self.path.is_empty() && !self.descend()? {
            return Ok(None);
        }
        loop {
            if let Some((leaf, rest)) = self.path.last_mut()
                && matches!(&**leaf, Node::Leaf(_))
                && let Some(index) = rest.next()
            {
                let item = Item { leaf: Arc::clone(leaf), index: index as usize, rank: self.rank };
                self.rank += 1;
                return Ok(Some(item));
            }
            if !self.next_leaf()? {
                return Ok(None);
            }
        }
    }
}

impl<K: TreeKind> Iterator for Scan<K> {
    type Item = Result<Item<K>, RepoError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.step().transpose();
        self.failed = !matches!(item, Some(Ok(_)));
        item
    }
}
