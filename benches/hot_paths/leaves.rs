//! Leaves of the tree of names: from bytes to entries and back.

use amberfs::format::frame::FrameKind;
use amberfs::format::leaf::Entries;
use amberfs::format::log::NodeRef;
use amberfs::format::node::Node;

use bytes::Bytes;

use crate::fixture::{World, words};
use crate::measure;

/// All leaves under `node`, as payloads with their references.
fn leaves(world: &World, node: NodeRef, found: &mut Vec<(NodeRef, Bytes)>) {
    let payload = world.repo.reader(world.source.id).fetch(&node.frame, FrameKind::Entries).expect("read a node");
    match Node::<Entries>::decode(&payload, &node).expect("decode a node") {
        Node::Leaf(_) => found.push((node, payload)),
        Node::Inner(children) => children.iter().for_each(|child| leaves(world, child.branch.node, found)),
    }
}

pub(crate) fn run() {
    let world = World::new(false);
    for n in 0..20_000 {
        world.write(&format!("d{}/a-name-as-files-have-{n:05}.c", n / 200), &words(n, 500 + n % 999));
    }
    world.capture();
    let mut found = Vec::new();
    leaves(&world, world.commit().roots.entries, &mut found);
    let entries = found.iter().map(|(node, _)| node.items as usize).sum();
    measure("decode a leaf, each entry", entries, || {
        for (node, payload) in &found {
            std::hint::black_box(Node::<Entries>::decode(payload, node).expect("decode"));
        }
    });
    let decoded: Vec<_> =
        found.iter().map(|(node, payload)| Node::<Entries>::decode(payload, node).expect("decode")).collect();
    measure("encode a leaf, each entry", entries, || {
        for leaf in &decoded {
            std::hint::black_box(leaf.encode(0));
        }
    });
}
