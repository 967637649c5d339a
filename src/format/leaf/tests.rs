use proptest::prelude::*;

use super::{Entries, Maps, Usage};
use crate::base::FileTime;
use crate::format::entry::{Body, Content, Entry, Extent, Meta, Xattr};
use crate::format::log::NodeRef;
use crate::format::map::{MapExtent, MapPage};
use crate::format::node::{Branch, Child, Node, TreeKind};
use crate::format::{
    ChainId, ChunkRef, FileId, FormatError, FrameHash, FrameOrdinal, FrameRef, Key, LogNumber, Nonce, PackId,
    PackOrdinal, SessionId,
};

fn frame_ref() -> impl Strategy<Value = FrameRef> {
    (0u32..3, 0u64..3, 0u32..4, 0u32..2000, any::<u64>(), 1u32..100_000, any::<[u8; 16]>()).prop_map(
        |(chain, base, pack, ordinal, offset, raw_bytes, hash)| FrameRef {
            pack: PackId {
                chain: ChainId(chain),
                session: SessionId { base: LogNumber(base), random: Nonce([base as u8; 16]) },
                ordinal: PackOrdinal(pack),
            },
            ordinal: FrameOrdinal(ordinal),
            offset,
            stored_bytes: raw_bytes / 2,
            raw_bytes,
            hash: FrameHash(hash),
        },
    )
}

fn chunk_ref() -> impl Strategy<Value = ChunkRef> {
    (frame_ref(), any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(frame, a, b)| {
        let (a, b) = (a.index(frame.raw_bytes as usize) as u32, b.index(frame.raw_bytes as usize) as u32);
        let start = a.min(b);
        ChunkRef { frame, start, bytes: a.max(b) - start + 1 }
    })
}

/// Chunks with gaps, as ascending, disjoint extents.
fn placed(chunks: Vec<(u64, ChunkRef)>) -> Vec<(u64, ChunkRef)> {
    let mut at = 0;
    chunks
        .into_iter()
        .map(|(gap, chunk)| {
            let offset = at + gap;
            at = offset + u64::from(chunk.bytes);
            (offset, chunk)
        })
        .collect()
}

fn time() -> impl Strategy<Value = FileTime> {
    (prop_oneof![any::<i64>(), 1_600_000_000i64..1_800_000_000], 0u32..1_000_000_000)
        .prop_map(|(seconds, nanos)| FileTime { seconds, nanos })
}

fn meta(size: u64) -> impl Strategy<Value = Meta> {
    (0u16..=0o7777, any::<[u32; 3]>(), time(), time(), time(), prop::option::of(time()), any::<u64>()).prop_map(
        move |(permissions, [uid, gid, links], mtime, ctime, atime, btime, inode)| Meta {
            permissions,
            uid,
            gid,
            size,
            mtime,
            ctime,
            atime,
            btime,
            links,
            inode,
        },
    )
}

fn body() -> impl Strategy<Value = (u64, Body)> {
    let id = || (2u64..u64::MAX).prop_map(FileId);
    let extents = prop::collection::vec((0u64..1 << 30, chunk_ref()), 1..=8).prop_map(|chunks| {
        let extents: Vec<Extent> = placed(chunks).into_iter().map(|(offset, chunk)| Extent { offset, chunk }).collect();
        let end = extents.last().map_or(0, |last| last.offset + u64::from(last.chunk.bytes));
        (end + 7, Body::File(Content::Extents(extents)))
    });
    prop_oneof![
        (id(), prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(id, name)| (4096, Body::Directory { id, parent: Key::entry(FileId(id.0 / 2), &name) })),
        (0u64..1 << 40).prop_map(|size| (size, Body::File(Content::Hole))),
        prop::collection::vec(any::<u8>(), 0..=128)
            .prop_map(|bytes| (bytes.len() as u64, Body::File(Content::Inline(bytes)))),
        extents,
        (id(), any::<u64>()).prop_map(|(id, data_bytes)| (1 << 40, Body::File(Content::Mapped { id, data_bytes }))),
        prop::collection::vec(1u8.., 1..300).prop_map(|target| (target.len() as u64, Body::Symlink(target))),
        any::<(u32, u32)>().prop_map(|(major, minor)| (0, Body::BlockDevice(major, minor))),
        any::<(u32, u32)>().prop_map(|(major, minor)| (0, Body::CharDevice(major, minor))),
        Just((0, Body::Fifo)),
        Just((0, Body::Socket)),
        id().prop_map(|id| (0, Body::Link(id))),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let xattrs = prop::collection::btree_map(
        prop::collection::vec(1u8.., 1..20),
        prop::collection::vec(any::<u8>(), 0..50),
        0..4,
    );
    (body(), xattrs).prop_flat_map(|((size, body), xattrs)| {
        meta(size).prop_map(move |meta| {
            if matches!(body, Body::Link(_)) {
                return Entry { meta: Meta::default(), xattrs: Vec::new(), body: body.clone() };
            }
            let xattrs =
                xattrs.iter().map(|(name, value)| Xattr { name: name.clone(), value: value.clone() }).collect();
            Entry { meta, xattrs, body: body.clone() }
        })
    })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![1u8..47, 48u8..], 1..40)
        .prop_filter("a name", |name| name != b"." && name != b"..")
}

fn entries() -> impl Strategy<Value = Vec<(Key, Entry)>> {
    let key = prop_oneof![
        8 => (1u64..6, name()).prop_map(|(dir, name)| Key::entry(FileId(dir), &name)),
        1 => any::<u64>().prop_map(|id| Key::inode(FileId(id))),
        1 => Just(Key::root()),
    ];
    prop::collection::btree_map(key, entry(), 1..60).prop_map(|map| map.into_iter().collect())
}

fn pages() -> impl Strategy<Value = Vec<(Key, MapPage)>> {
    let page = prop::collection::vec((0u64..1 << 20, chunk_ref(), any::<[u8; 16]>()), 1..40);
    prop::collection::btree_map((1u64..9, 0u64..1 << 40), page, 1..4).prop_map(|map| {
        map.into_iter()
            .map(|((file, start), rows)| {
                let hashes: Vec<_> = rows.iter().map(|(_, _, hash)| *hash).collect();
                let chunks = placed(rows.into_iter().map(|(gap, chunk, _)| (gap, chunk)).collect());
                let extents = chunks
                    .into_iter()
                    .zip(hashes)
                    .map(|((offset, chunk), hash)| MapExtent { offset: start + offset, chunk, hash })
                    .collect();
                (Key::page(FileId(file), start), MapPage { extents })
            })
            .collect()
    })
}

/// Whatever is done to the bytes, decoding ends without a panic; and what still decodes encodes to them again.
fn survives<K: TreeKind>(bytes: &[u8], flips: &[(prop::sample::Index, u8)], cut: prop::sample::Index) {
    let mut changed = bytes.to_vec();
    for (at, flip) in flips {
        let at = at.index(changed.len());
        changed[at] ^= flip;
    }
    for bytes in [&changed, &bytes[..cut.index(bytes.len())]] {
        if let Ok(items) = K::decode_leaf(bytes) {
            assert!(items.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn entries_come_back_as_they_were(items in entries()) {
        prop_assert_eq!(Entries::decode_leaf(&Entries::encode_leaf(&items)).unwrap(), items);
    }

    #[test]
    fn pages_come_back_as_they_were(items in pages()) {
        prop_assert_eq!(Maps::decode_leaf(&Maps::encode_leaf(&items)).unwrap(), items);
    }

    #[test]
    fn altered_leaves_are_refused_or_plausible(
        entries in entries(), pages in pages(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4), cut in any::<prop::sample::Index>(),
    ) {
        survives::<Entries>(&Entries::encode_leaf(&entries), &flips, cut);
        survives::<Maps>(&Maps::encode_leaf(&pages), &flips, cut);
    }

    #[test]
    fn arbitrary_bytes_are_no_leaf(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(Entries::decode_leaf(&bytes));
        drop(Maps::decode_leaf(&bytes));
        drop(Usage::decode_leaf(&bytes));
    }

    #[test]
    fn inner_nodes_come_back_and_know_their_count(refs in prop::collection::vec((frame_ref(), 1u64..1000), 1..300)) {
        let children: Vec<Child> = refs
            .iter()
            .enumerate()
            .map(|(n, (frame, items))| Child {
                first: Key::inode(FileId(n as u64)),
                branch: Branch::whole(NodeRef { frame: *frame, level: 1, items: *items }),
            })
            .collect();
        let items = refs.iter().map(|(_, items)| items).sum();
        let pointer = NodeRef { frame: refs[0].0, level: 2, items };
        let node = Node::<Usage>::Inner(children);
        let payload = node.encode(2);
        prop_assert_eq!(Node::<Usage>::decode(&payload, &pointer).unwrap(), node);
        let miscounted = NodeRef { items: items + 1, ..pointer };
        prop_assert!(Node::<Usage>::decode(&payload, &miscounted).is_err());
        let misplaced = NodeRef { level: 1, ..pointer };
        prop_assert!(Node::<Usage>::decode(&payload, &misplaced).is_err());
    }
}

/// The node of these counts, encoded at `level`, and a reference to it that claims `items`.
fn inner(level: u8, counts: &[u64], items: u64) -> Result<Node<Usage>, FormatError> {
    let frame = FrameRef {
        pack: PackId {
            chain: ChainId(0),
            session: SessionId { base: LogNumber(0), random: Nonce([1; 16]) },
            ordinal: PackOrdinal(0),
        },
        ordinal: FrameOrdinal(0),
        offset: 32,
        stored_bytes: 10,
        raw_bytes: 10,
        hash: FrameHash([7; 16]),
    };
    let child = |(n, items): (usize, &u64)| Child {
        first: Key::inode(FileId(n as u64)),
        branch: Branch::whole(NodeRef { frame, level: level - 1, items: *items }),
    };
    let node = Node::<Usage>::Inner(counts.iter().enumerate().map(child).collect());
    Node::decode(&node.encode(level), &NodeRef { frame, level, items })
}

/// Children that are parts: which child, items before it in its leaf, items.
type Parts<'a> = &'a [(usize, u64, u64)];

/// A node of `level` with children of these items, some of them parts.
fn with_parts<K: TreeKind>(level: u8, counts: &[u64], parts: Parts<'_>, items: u64) -> Result<Node<K>, FormatError> {
    let Ok(Node::Inner(mut children)) = inner(level, counts, counts.iter().sum()) else { panic!("no such node") };
    for (child, skip, items) in parts {
        let branch = &mut children[*child].branch;
        (branch.skip, branch.items) = (*skip, *items);
    }
    let frame = children[0].branch.node.frame;
    Node::decode(&Node::<K>::Inner(children).encode(level), &NodeRef { frame, level, items })
}

#[test]
fn a_part_of_a_leaf_is_some_of_its_items_and_of_entries_only() {
    let Ok(Node::Inner(children)) = with_parts::<Entries>(1, &[10, 10], &[(1, 3, 4)], 14) else { panic!("refused") };
    assert_eq!((children[0].branch.is_whole(), children[1].branch.range()), (true, 3..7));
    let numbers: Vec<u64> = (0..10).collect();
    assert_eq!(children[1].branch.of(&numbers), [3, 4, 5, 6]);
    assert!(with_parts::<Entries>(1, &[10, 10], &[(1, 6, 4)], 14).is_ok());
    let refused: [(Parts<'_>, u64); 4] =
        [(&[(1, 3, 4)], 20), (&[(1, 7, 4)], 14), (&[(1, 3, 0)], 10), (&[(0, u64::MAX, 2)], 12)];
    for (parts, items) in refused {
        assert!(with_parts::<Entries>(1, &[10, 10], parts, items).is_err(), "{parts:?}");
    }
    assert!(with_parts::<Entries>(2, &[10, 10], &[(1, 3, 4)], 14).is_err(), "of an inner node");
    assert!(with_parts::<Maps>(1, &[10, 10], &[(1, 3, 4)], 14).is_err());
    assert!(with_parts::<Usage>(1, &[10, 10], &[(1, 3, 4)], 14).is_err());
}

#[test]
fn a_tree_has_twelve_levels_at_most() {
    assert!(inner(11, &[1, 2], 3).is_ok());
    assert!(inner(12, &[1, 2], 3).is_err());
}

#[test]
fn counts_that_do_not_add_up_are_refused() {
    assert!(inner(1, &[u64::MAX - 1, 1], u64::MAX).is_ok());
    assert!(inner(1, &[u64::MAX, 1], u64::MAX).is_err());
    assert!(inner(1, &[u64::MAX, 1], 0).is_err());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let file = Entry { meta: Meta::default(), xattrs: Vec::new(), body: Body::File(Content::Hole) };
    for name in [&b"a/b"[..], b"..", b".", b"", b"a\0b", &[b'x'; 256]] {
        let bytes = Entries::encode_leaf(&[(Key::entry(FileId(5), name), file.clone())]);
        assert!(Entries::decode_leaf(&bytes).is_err(), "{}", name.escape_ascii());
    }
    let bytes = Entries::encode_leaf(&[(Key::entry(FileId(5), &[b'x'; 255]), file)]);
    assert!(Entries::decode_leaf(&bytes).is_ok());
}
