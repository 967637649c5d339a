//! Damage to every frame of a repository of disks: what cannot be had is an I/O error on exactly the bytes that the
//! frame held, in `disk.raw`, in the partition and in the qcow2 image; all other bytes are right, and a
//! verification names the object and the points.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use amberfs::base::{Class, Classed, Env};
use amberfs::capture::Options;
use amberfs::format::frame::{self, FrameKind};
use amberfs::format::object::{Object, ObjectName};
use amberfs::format::pack::PackedFrame;
use amberfs::store::Store;
use amberfs::verify;
use amberfs::view::MountView;
use amberfs::view::namespace::{Namespace, NodeId, ViewError};

use super::{CELL, DiskWorld, content, shown};
use crate::history::Dice;
use crate::world::{self, later, zero_settings};

/// A point as it must be.
struct Kept {
    name: String,
    bytes: Vec<u8>,
    image: Vec<u8>,
    /// Each chunk: its place on the disk, and its frame's pack and offset.
    chunks: Vec<(Range<u64>, ObjectName, u64)>,
}

const CELLS: u64 = 24;
/// Where the one partition begins and ends: on no border of a cell.
const PARTITION: Range<u64> = 5 * 512..20 * CELL + 3 * 512;

/// A disk of which some is captured in each of three points.
fn build(root: &Path) -> (DiskWorld, Vec<Kept>) {
    let world = DiskWorld::new(Store::create_local(root).unwrap(), Env::seeded(3, later()));
    let (file, mut dice) = (world.file(), Dice(5));
    file.set_len(CELLS * CELL + 100).unwrap();
    let mut record = [0; 512];
    record[446 + 4] = 0x83;
    record[446 + 8..][..4].copy_from_slice(&u32::try_from(PARTITION.start / 512).unwrap().to_le_bytes());
    let sectors = (PARTITION.end - PARTITION.start) / 512;
    record[446 + 12..][..4].copy_from_slice(&u32::try_from(sectors).unwrap().to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&record, 0).unwrap();
    file.write_all_at(&dice.bytes(7 * CELL), 4 * CELL).unwrap();
    file.write_all_at(&dice.bytes(90), CELLS * CELL).unwrap();
    let mut kept = Vec::new();
    for round in 0..3 {
        file.write_all_at(&dice.bytes(CELL), (6 + 6 * round) * CELL + 9).unwrap();
        let options = Options { disk_chunk_bytes: Some(16 << 10), workers: Some(1), ..Options::default() };
        let point = world.capture(&options).unwrap().point;
        let mut chunks = Vec::new();
        let each = |extent: &amberfs::format::map::MapExtent| {
            let place = extent.offset..extent.offset + u64::from(extent.chunk.bytes);
            let frame = extent.chunk.frame;
            chunks.push((place, Object::Pack(world.source.id, frame.pack).name(), frame.offset));
            Ok::<bool, ViewError>(true)
        };
        world.disk(&point).each_chunk(each).unwrap();
        let view = world.mount();
        let image = content(&view, shown(&view, point.name(), "disk.qcow2"), 1 << 20);
        let bytes = std::fs::read(world.path()).unwrap();
        kept.push(Kept { name: point.name().to_owned(), bytes, image, chunks });
    }
    (world, kept)
}

/// The frames of a pack: where each begins and ends, and what it is.
fn frames(world: &DiskWorld, pack: &ObjectName, bytes: &[u8]) -> Vec<(Range<usize>, FrameKind)> {
    let (_, footer) = world::footer(&world.repo, pack, bytes);
    let place = |packed: &PackedFrame| {
        let start = usize::try_from(packed.offset).unwrap();
        start..start + frame::HEADER_BYTES + packed.stored_bytes as usize
    };
    footer.frames.iter().map(|packed| (place(packed), packed.kind)).collect()
}

/// Reads a file in small pieces; each is right or an I/O error. The pieces that were errors.
fn read(view: &dyn Namespace, file: NodeId, expected: &[u8], what: &str) -> Vec<Range<u64>> {
    let mut failed = Vec::new();
    // No border of pieces but every fourth is one of cells.
    for (at, piece) in (0..).step_by(4096).zip(expected.chunks(4096)) {
        match view.read(file, at, piece.len()) {
            Ok(bytes) => assert!(bytes == piece, "{what}: wrong bytes at {at}"),
            Err(error) => {
                assert_eq!(error.class(), Class::Corrupt, "{what}: {error}");
                failed.push(at..at + piece.len() as u64);
            }
        }
    }
    failed
}

/// The pieces of a file of `bytes` bytes that have any of `lost`, which stands `shift` bytes further on in it.
fn pieces(bytes: usize, lost: &[Range<u64>], shift: i64) -> Vec<Range<u64>> {
    let place = |at: u64| at.saturating_add_signed(shift);
    let meets =
        |piece: &Range<u64>| lost.iter().any(|lost| place(lost.start) < piece.end && piece.start < place(lost.end));
    let bytes = bytes as u64;
    (0..bytes).step_by(4096).map(|at| at..(at + 4096).min(bytes)).filter(meets).collect()
}

#[test]
fn damage_to_a_frame_costs_exactly_the_bytes_that_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repository");
    let (world, kept) = build(&root);
    let packs: BTreeSet<&ObjectName> = kept.iter().flat_map(|kept| &kept.chunks).map(|(_, pack, _)| pack).collect();
    assert_eq!(packs.len(), 3);
    let (mut of_data, mut of_trees) = (0, 0);
    for pack in packs {
        let path = root.join(pack.as_str());
        let sound = std::fs::read(&path).unwrap();
        for (place, kind) in frames(&world, pack, &sound) {
            let mut damaged = sound.clone();
            damaged[place.end - 1] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let what = format!("{kind:?} frame at {} of {pack}", place.start);
            match kind {
                FrameKind::Data => of_data += 1,
                _ => of_trees += 1,
            }
            let repo = world::open(Store::local(&root).unwrap(), world.env.clone()).unwrap();
            let view = MountView::open(repo.clone(), zero_settings()).unwrap();
            let mut touched = Vec::new();
            for point in &kept {
                let what = format!("{what}: {}", point.name);
                let lost = |(at, of, offset): &(Range<u64>, ObjectName, u64)| {
                    (of == pack && *offset == place.start as u64).then(|| at.clone())
                };
                let lost: Vec<Range<u64>> = point.chunks.iter().filter_map(lost).collect();
                if kind == FrameKind::Data {
                    judge(&view, point, &lost, &what);
                    if !lost.is_empty() {
                        touched.push(point.name.clone());
                    }
                } else {
                    judge_loosely(&view, point, &what);
                }
            }
            let options = verify::Options { read_data: true, workers: Some(1), ..verify::Options::default() };
            let report = verify::verify(&repo, &options, &verify::Progress::new()).unwrap();
            let named: Vec<&ObjectName> = report.findings.iter().map(|finding| &finding.object).collect();
            assert_eq!(named, [pack], "{what}");
            if kind == FrameKind::Data {
                assert_eq!(report.sources[0].touched, touched, "{what}");
            }
        }
        std::fs::write(&path, &sound).unwrap();
    }
    assert!(of_data >= 10 && of_trees >= 6, "only {of_data} frames of data and {of_trees} of trees");
}

/// Holds all that a point shows against what is lost of it.
fn judge(view: &MountView, point: &Kept, lost: &[Range<u64>], what: &str) {
    let raw = shown(view, &point.name, "disk.raw");
    let failed = read(view, raw, &point.bytes, what);
    assert_eq!(failed, pieces(point.bytes.len(), lost, 0), "{what}: disk.raw");
    let disk_start = point.image.len() as u64 - (CELLS + 1) * CELL;
    let qcow2 = shown(view, &point.name, "disk.qcow2");
    let failed = read(view, qcow2, &point.image, what);
    let expected = pieces(point.image.len(), lost, i64::try_from(disk_start).unwrap());
    assert_eq!(failed, expected, "{what}: disk.qcow2");
    // Where the partitions lie stands in the first cell.
    let partitions = shown(view, &point.name, "partitions");
    if lost.iter().any(|lost| lost.start == 0) {
        assert_eq!(view.lookup(partitions, b"1.raw").unwrap_err().class(), Class::Corrupt, "{what}");
    } else {
        let partition = view.lookup(partitions, b"1.raw").unwrap().attr;
        let expected = &point.bytes[PARTITION.start as usize..PARTITION.end as usize];
        assert_eq!(partition.size, expected.len() as u64);
        let failed = read(view, partition.node, expected, what);
        let lost: Vec<Range<u64>> = lost.iter().filter(|lost| lost.end > PARTITION.start).cloned().collect();
        let expected = pieces(expected.len(), &lost, -i64::try_from(PARTITION.start).unwrap());
        assert_eq!(failed, expected, "{what}: the partition");
    }
    content(view, shown(view, &point.name, "map.json"), 1 << 20);
    listed(view, &point.name, what);
}

/// What a tree held is lost in ways that `damage/` predicts for files: here nothing may be wrong.
fn judge_loosely(view: &MountView, point: &Kept, what: &str) {
    let points = crate::world::node(view, "vm/points");
    let sound = |found: Result<_, ViewError>| {
        found.inspect_err(|error| assert_eq!(error.class(), Class::Corrupt, "{what}: {error}")).ok()
    };
    let found = |dir: NodeId, name: &[u8]| sound(view.lookup(dir, name).map(|found| found.attr.node));
    let Some(root) = found(points, point.name.as_bytes()) else { return };
    for (name, expected) in [("disk.raw", &point.bytes), ("disk.qcow2", &point.image)] {
        if let Some(file) = found(root, name.as_bytes()) {
            read(view, file, expected, what);
        }
    }
    found(root, b"map.json");
    // Chunk maps do not weigh on names: only entries do.
    if found(root, b"disk.raw").is_some() {
        listed(view, &point.name, what);
    }
}

#[track_caller]
fn listed(view: &MountView, point: &str, what: &str) {
    let root = crate::world::node(view, &format!("vm/points/{point}"));
    let mut names = BTreeSet::new();
    view.read_dir(root, 0, &mut |item| names.insert(item.name)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(names.len(), 4, "{what}: {names:?}");
}
