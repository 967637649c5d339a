//! Node ids: how a point's file becomes 64 bits and back, and the ids of generated nodes.
//!
//! The layout is documented at [`crate::view::namespace`]. Sources, points and ordinals that exceed
//! the stable layout get a slot for the life of the mount: their numbers then differ from mount to
//! mount, which is the price of two thousand sources or a million log entries.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::RwLock;

use crate::format::{EntryOrdinal, PointId, SourceId};
use crate::view::namespace::NodeId;

const SOURCE_BITS: u32 = 11;
const POINT_BITS: u32 = 20;
const ORDINAL_BITS: u32 = 32;
const SLOT_ORDINAL_BITS: u32 = 40;
const SLOT_BITS: u32 = 22;
const SLOT: u64 = 0b10 << 62;

/// A file of a point.
pub(super) type Place = (SourceId, PointId, EntryOrdinal);

/// Things that get a number when they are first seen and keep it.
#[derive(Debug)]
struct Numbered<T> {
    numbers: HashMap<T, u64>,
    things: Vec<T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { numbers: HashMap::new(), things: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    fn number(&mut self, thing: &T) -> u64 {
        if let Some(number) = self.numbers.get(thing) {
            return *number;
        }
        let number = self.things.len() as u64;
        self.numbers.insert(thing.clone(), number);
        self.things.push(thing.clone());
        number
    }

    fn thing(&self, number: u64) -> Option<&T> {
        self.things.get(usize::try_from(number).ok()?)
    }
}

/// The ids of one mount; `G` names a generated node.
#[derive(Debug)]
pub(super) struct Nodes<G> {
    slots: RwLock<Numbered<(SourceId, PointId)>>,
    generated: RwLock<Numbered<G>>,
    labels: RwLock<Numbered<(SourceId, String)>>,
}

impl<G: Clone + Eq + Hash> Nodes<G> {
    pub(super) fn new() -> Nodes<G> {
        Nodes { slots: RwLock::default(), generated: RwLock::default(), labels: RwLock::default() }
    }

    /// The id of a point's file; none beyond 2^40 entries in a point or 4 million slots.
    pub(super) fn content(&self, (source, point, ordinal): Place) -> Option<NodeId> {
        if source.0 >> SOURCE_BITS == 0 && point.0 >> POINT_BITS == 0 && ordinal.0 >> ORDINAL_BITS == 0 {
            let id = source.0 << (POINT_BITS + ORDINAL_BITS) | point.0 << ORDINAL_BITS | ordinal.0;
            return Some(NodeId(id));
        }
        let slot = self.slots.write().number(&(source, point));
        (slot >> SLOT_BITS == 0 && ordinal.0 >> SLOT_ORDINAL_BITS == 0)
            .then_some(NodeId(SLOT | slot << SLOT_ORDINAL_BITS | ordinal.0))
    }

    /// The file that an id of content stands for.
    pub(super) fn place(&self, node: NodeId) -> Option<Place> {
        let mask = |bits: u32| (1u64 << bits) - 1;
        if !node.is_content() {
            return None;
        }
        if node.0 >> 63 == 0 {
            let source = SourceId(node.0 >> (POINT_BITS + ORDINAL_BITS));
            let point = PointId(node.0 >> ORDINAL_BITS & mask(POINT_BITS));
            return Some((source, point, EntryOrdinal(node.0 & mask(ORDINAL_BITS))));
        }
        let (source, point) = *self.slots.read().thing(node.0 >> SLOT_ORDINAL_BITS & mask(SLOT_BITS))?;
        Some((source, point, EntryOrdinal(node.0 & mask(SLOT_ORDINAL_BITS))))
    }

    /// The id of a generated node.
    pub(super) fn generated(&self, thing: &G) -> NodeId {
        if let Some(number) = self.generated.read().numbers.get(thing) {
            return NodeId(NodeId::GENERATED | *number);
        }
        NodeId(NodeId::GENERATED | self.generated.write().number(thing))
    }

    /// A label's number, which it keeps for the life of the mount; one seen later has a larger one.
    pub(super) fn label(&self, source: SourceId, label: &str) -> u64 {
        self.labels.write().number(&(source, label.to_owned()))
    }

    /// The generated node that an id stands for.
    pub(super) fn thing(&self, node: NodeId) -> Option<G> {
        let number = node.0.checked_sub(NodeId::GENERATED)?;
        self.generated.read().thing(number).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_one_id_and_every_id_its_place() {
        let nodes: Nodes<&str> = Nodes::new();
        let mut seen = std::collections::HashSet::new();
        for source in [1, 2, 2047, 2048, 1 << 40] {
            for point in [1, 2, (1 << 20) - 1, 1 << 20, 1 << 50] {
                for ordinal in [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 40) - 1] {
                    let place = (SourceId(source), PointId(point), EntryOrdinal(ordinal));
                    let node = nodes.content(place).unwrap();
                    assert!(node.is_content(), "{node:?}");
                    assert!(seen.insert(node), "{place:?} shares {node:?}");
                    assert_eq!(nodes.place(node), Some(place));
                    assert_eq!(nodes.thing(node), None);
                }
            }
        }
        assert!(nodes.content((SourceId(1), PointId(1), EntryOrdinal(1 << 40))).is_none());
        let generated = nodes.generated(&"latest");
        assert!(!generated.is_content() && !generated.is_desk());
        assert_eq!(nodes.generated(&"latest"), generated);
        assert_eq!(nodes.thing(generated), Some("latest"));
        assert_eq!(nodes.place(generated), None);
        assert_eq!(nodes.place(NodeId::ROOT), None);
    }
}
