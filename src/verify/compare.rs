//! Walks what two trees do not share, in the order of keys.
//!
//! Points of a chain share nearly all of their nodes, and a shared node is equal by definition: its
//! pointer names it by hash. So what a point differs in from another is found by descending both
//! trees side by side and passing over every subtree that both have, which costs as much as they
//! differ in. Against no tree, it is a walk of all nodes. Memory is the height times an inner node, and a few leaves: of those, a tree may
//! have several parts, with parts of others between them.
//!
//! Every node is held against the range of keys that its parent gives it. That also ends what a
//! hostile tree could do: one node under many parents fits the range of one of them only.

use std::cmp::Ordering;
use std::rc::Rc;

use super::VerifyError;
use crate::format::Key;
use crate::format::log::NodeRef;
use crate::format::node::{Branch, Node, TreeKind};

/// A node where a tree has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The node, or the part of a leaf.
    pub(super) branch: Branch,
    /// The first key as its parent says it; empty for a root.
    first: Key,
    /// No key below is smaller.
    pub(super) from: Key,
    /// All keys below are smaller; none: no bound.
    pub(super) before: Option<Key>,
}

/// Which of the two trees something belongs to alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that is left behind.
    Old,
    /// The one that is walked.
    New,
}

/// Why a walk ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The tree contradicts itself at this node.
    Contradiction(Box<Place>, String),
    /// The work as a whole cannot go on.
    Failed(VerifyError),
}

impl From<VerifyError> for Stop {
    fn from(error: VerifyError) -> Stop {
        Stop::Failed(error)
    }
}

/// What is done with the nodes that only one tree has.
pub(super) trait Walk<K: TreeKind> {
    /// The node, or none when it cannot be read, which is then known to the walker.
    fn read(&mut self, side: Side, place: &Place) -> Result<Option<Node<K>>, VerifyError>;

    /// The items of a leaf, as far as the tree has them.
    fn leaf(&mut self, side: Side, place: &Place, items: &[(Key, K::Value)]) -> Result<(), Stop>;
}

/// Walks the nodes that `old` and `new` do not share.
pub(super) fn compare<K: TreeKind>(
    old: Option<NodeRef>,
    new: Option<NodeRef>,
    walk: &mut impl Walk<K>,
) -> Result<(), Stop> {
    let root = |node| Place { branch: Branch::whole(node), first: Key::default(), from: Key::default(), before: None };
    let mut old: Vec<Place> = old.map(root).into_iter().collect();
    let mut new: Vec<Place> = new.map(root).into_iter().collect();
    let mut recent: Vec<(NodeRef, Rc<Node<K>>)> = Vec::new();
    loop {
        let side = match (old.last(), new.last()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Side::Old,
            (None, Some(_)) => Side::New,
            (Some(a), Some(b)) if a == b => {
                old.pop();
                new.pop();
                continue;
            }
            // Whatever begins first cannot be shared by what begins later; of two that begin together the
            // larger is opened, since the smaller may be in it.
            (Some(a), Some(b)) => match a.first.cmp(&b.first).then(b.branch.node.level.cmp(&a.branch.node.level)) {
                Ordering::Less | Ordering::Equal => Side::Old,
                Ordering::Greater => Side::New,
            },
        };
        let stack = match side {
            Side::Old => &mut old,
            Side::New => &mut new,
        };
        let Some(place) = stack.pop() else { return Ok(()) };
        let node = match recent.iter().find(|node| node.0 == place.branch.node) {
            Some((_, node)) => Some(Rc::clone(node)),
            None => walk.read(side, &place)?.map(Rc::new),
        };
        match node.as_deref() {
            None => {}
            Some(Node::Leaf(items)) => {
                let items = place.branch.of(items);
                check_range(side, &place, items.first().map(|(key, _)| key), items.last().map(|(key, _)| key))?;
                walk.leaf(side, &place, items)?;
            }
            Some(Node::Inner(children)) => {
                let ends = (children.first().map(|child| &child.first), children.last().map(|child| &child.first));
                check_range(side, &place, ends.0, ends.1)?;
                let mut before = place.before.clone();
                for (index, child) in children.iter().enumerate().rev() {
                    let from = if index == 0 { place.from.clone() } else { child.first.clone() };
                    let first = child.first.clone();
                    stack.push(Place { branch: child.branch, first, from, before: before.take() });
                    before = Some(child.first.clone());
                }
            }
        }
        if let Some(node) = node.filter(|node| K::HAS_PARTS && matches!(**node, Node::Leaf(_))) {
            recent.retain(|recent| recent.0 != place.branch.node);
            recent.truncate(RECENT_LEAVES - 1);
            recent.insert(0, (place.branch.node, node));
        }
    }
}

/// Leaves that are at hand when the next part of one is met.
const RECENT_LEAVES: usize = 4;

fn check_range(side: Side, place: &Place, first: Option<&Key>, last: Option<&Key>) -> Result<(), Stop> {
    // The old tree has been held against its ranges when it was the new one.
    let fits = first.is_some_and(|key| *key >= place.from)
        && last.is_some_and(|key| place.before.as_ref().is_none_or(|before| key < before));
    if fits || side == Side::Old {
        return Ok(());
    }
    let what = format!("its keys {first:?} to {last:?} are not within {:?} to {:?}", place.from, place.before);
    Err(Stop::Contradiction(Box::new(place.clone()), what))
}
