//! Reading a tree: by key, by rank, in order.

use std::sync::Arc;

use crate::format::Key;
use crate::format::log::NodeRef;
use crate::format::node::{Child, Node, TreeKind};
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

/// A leaf, an index into it, and the rank of what is there.
type Place<K> = (Arc<Node<K>>, usize, u64);

/// The child under which `key` would be, and the count of items before it.
fn child_for<'a>(children: &'a [Child], key: &Key) -> Option<(&'a Child, u64)> {
    let index = children.partition_point(|child| child.first <= *key).saturating_sub(1);
    let before = children.iter().take(index).map(|child| child.node.items).sum();
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

    /// The leaf in which `key` would be, the index of the first item not below it, and the rank of that.
    fn seek(&self, key: &Key) -> Result<Option<Place<K>>, RepoError> {
        let Some(mut pointer) = self.root else { return Ok(None) };
        let mut before = 0;
        loop {
            let node = self.reader.node::<K>(&pointer)?;
            match &*node {
                Node::Leaf(items) => {
                    let index = items.partition_point(|(k, _)| k < key);
                    return Ok(Some((Arc::clone(&node), index, before + index as u64)));
                }
                Node::Inner(children) => match child_for(children, key) {
                    Some((child, skipped)) => {
                        before += skipped;
                        pointer = child.node;
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
        let Some((leaf, index, rank)) = self.seek(key)? else { return Ok(None) };
        let found = matches!(&*leaf, Node::Leaf(items) if items.get(index).is_some_and(|(k, _)| k == key));
        Ok(found.then_some(Item { leaf, index, rank }))
    }

    /// Items with keys below `key`.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn rank(&self, key: &Key) -> Result<u64, RepoError> {
        Ok(self.seek(key)?.map_or(0, |(_, _, rank)| rank))
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
        match self.seek(key)? {
            None => Ok(None),
            Some((leaf, index, rank)) => {
                if matches!(&*leaf, Node::Leaf(items) if items.get(index).is_some_and(|(k, _)| k == key)) {
                    return Ok(Some(Item { leaf, index, rank }));
                }
                match index.checked_sub(1) {
                    Some(index) => Ok(Some(Item { leaf, index, rank: rank - 1 })),
                    // The key falls before its leaf's first item only in the leftmost leaf.
                    None => rank.checked_sub(1).map_or(Ok(None), |rank| self.at(rank)),
                }
            }
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

/// Items in order. Ends after the first error.
#[derive(Debug)]
pub struct Scan<K: TreeKind> {
    tree: Tree<K>,
    rank: u64,
    /// Leaves that begin at or behind this key are not read.
    before: Option<Key>,
    /// From the root to the current leaf: each node and the index of the next child or item.
    path: Vec<(Arc<Node<K>>, usize)>,
    failed: bool,
}

impl<K: TreeKind> Scan<K> {
    /// The same items, for somebody whom those from `key` on do not concern: they may be left out, and
    /// no node is read for them. A neighbour's damage then stays the neighbour's.
    #[must_use]
    pub fn before(self, key: Key) -> Scan<K> {
        Scan { before: Some(key), ..self }
    }

    fn concerns(&self, child: &Child) -> bool {
        self.before.as_ref().is_none_or(|before| child.first < *before)
    }

    /// Builds the path down to the item at `self.rank`.
    fn descend(&mut self) -> Result<bool, RepoError> {
        let Some(mut pointer) = self.tree.root.filter(|root| self.rank < root.items) else { return Ok(false) };
        let mut skip = self.rank;
        loop {
            let node = self.tree.reader.node::<K>(&pointer)?;
            match &*node {
                Node::Leaf(_) => {
                    let index = usize::try_from(skip).unwrap_or(usize::MAX);
                    self.path.push((node, index));
                    return Ok(true);
                }
                Node::Inner(children) => {
                    let mut index = 0;
                    for child in children {
                        if skip < child.node.items {
                            break;
                        }
                        skip -= child.node.items;
                        index += 1;
                    }
                    match children.get(index) {
                        Some(child) if self.concerns(child) => pointer = child.node,
                        Some(_) | None => return Ok(false),
                    }
                    self.path.push((node, index + 1));
                }
            }
        }
    }

    /// Moves to the first item of the next leaf.
    fn next_leaf(&mut self) -> Result<bool, RepoError> {
        while let Some((node, next)) = self.path.last() {
            let child = match &**node {
                Node::Leaf(_) => None,
                Node::Inner(children) => children.get(*next),
            };
            match child.filter(|child| self.concerns(child)).map(|child| child.node) {
                Some(pointer) => {
                    if let Some((_, next)) = self.path.last_mut() {
                        *next += 1;
                    }
                    let node = self.tree.reader.node::<K>(&pointer)?;
                    let leaf = matches!(&*node, Node::Leaf(_));
                    self.path.push((node, 0));
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
            if let Some((leaf, index)) = self.path.last_mut()
                && matches!(&**leaf, Node::Leaf(items) if *index < items.len())
            {
                let item = Item { leaf: Arc::clone(leaf), index: *index, rank: self.rank };
                *index += 1;
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
