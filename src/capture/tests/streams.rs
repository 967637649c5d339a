//! Streams as points.

use std::io::{self, Read};

use crate::base::Classed;
use crate::capture::testing::{World, noise};
use crate::capture::{CaptureError, Outcome, Progress, capture_stream};
use crate::format::frame;
use crate::format::log::{NodeRef, Roots, SourceKind};
use crate::format::object::Object;
use crate::repo::{CacheSizes, Repo};
use crate::store::Store;

fn world() -> World {
    World::over(Store::memory(), SourceKind::Stream)
}

fn capture(world: &World, name: &str, mut stream: impl Read + Send) -> Result<Outcome, CaptureError> {
    world.env.advance(std::time::Duration::from_secs(60));
    let (options, progress) = (&world.options, Progress::new());
    let outcome = capture_stream(&world.repo, &world.log, &world.source, name, &mut stream, options, &progress)?;
    assert_eq!(world.seen(&outcome.point).paths(), ["", name]);
    Ok(outcome)
}

#[test]
fn streams_of_all_sizes_come_back() {
    let world = world();
    for size in [0, 1, 128, 129, 5000, 70_000, 1 << 20, (5 << 20) + 1, 20 << 20, 3] {
        let data = noise(size, size as u64);
        // A pipe yields pieces of any length.
        let pieces = Pieces { left: &data, interrupted: false };
        let outcome = capture(&world, "dump.sql", pieces).unwrap();
        let seen = world.seen(&outcome.point);
        let file = seen.get("dump.sql");
        assert!(file.bytes == data, "{size}");
        assert_eq!(file.entry.meta.size, size as u64);
        let stats = outcome.point.commit.stats;
        assert_eq!((stats.files, stats.directories, stats.bytes), (1, 1, size as u64));
    }
}

/// Yields at most 30,000 bytes at a time, and is interrupted before each.
struct Pieces<'a> {
    left: &'a [u8],
    interrupted: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = space.len().min(30_000);
        self.left.read(&mut space[..most])
    }
}

#[test]
fn a_stream_that_resembles_the_last_costs_its_difference() {
    let world = world();
    let mut data = noise(20 << 20, 1);
    let first = capture(&world, "dump", data.as_slice()).unwrap();
    assert_eq!(first.point.commit.stats.new_bytes, 20 << 20);
    data.splice(5_000_000..5_000_010, *b"INSERT INTO t");
    let second = capture(&world, "dump", data.as_slice()).unwrap();
    assert!(second.point.commit.stats.new_bytes < 3 << 20);
    assert_eq!(second.point.commit.chain, first.point.commit.chain);
    // Under another name the old one is gone, and nothing is stored again.
    let third = capture(&world, "other", data.as_slice()).unwrap();
    assert_eq!(third.point.commit.stats.new_bytes, 0);
}

#[test]
fn half_a_stream_is_no_point() {
    struct Broken(u64);
    impl Read for Broken {
        fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            self.0 -= 1;
            space.fill(7);
            Ok(space.len())
        }
    }
    let world = world();
    for reads in [0, 1, 100] {
        let error = capture(&world, "dump", Broken(reads)).unwrap_err();
        assert!(matches!(error, CaptureError::Stream { .. }), "{error}");
    }
    assert!(world.log.refresh().unwrap().points().is_empty());
}

#[test]
fn names_and_kinds_are_checked() {
    let world = world();
    for name in ["", ".", "..", "a/b", "a\0b", &"n".repeat(256)] {
        let error = capture(&world, name, io::empty()).unwrap_err();
        assert!(matches!(error, CaptureError::StreamName { .. }), "{name:?}: {error}");
    }
    let tree = World::new();
    let error = capture(&tree, "x", io::empty()).unwrap_err();
    assert!(matches!(error, CaptureError::Kind { .. }), "{error} {:?}", error.class());
}

/// Turns one bit of the node behind `pointer`.
fn damage(world: &World, pointer: NodeRef) {
    let store = world.repo.store();
    let name = Object::Pack(world.source.id, pointer.frame.pack).name();
    let mut bytes = store.get(&name, 1 << 30).unwrap().to_vec();
    bytes[usize::try_from(pointer.frame.offset).unwrap() + frame::HEADER_BYTES] ^= 1;
    store.delete(&name).unwrap();
    store.create(&name, bytes).unwrap();
}

/// The same repository in another process, which keeps nothing in memory.
fn reopened(world: World) -> World {
    let sizes = CacheSizes { frames: 0, nodes: 0 };
    let repo = Repo::open_with(world.repo.store().clone(), world.env.clone(), sizes).unwrap();
    World { repo, ..world }
}

#[test]
fn a_stream_falls_back_to_a_full_point_whatever_node_of_its_parent_is_damaged() {
    let nodes: [fn(&Roots) -> NodeRef; 3] =
        [|roots| roots.entries, |roots| roots.maps.unwrap(), |roots| roots.usage.unwrap()];
    for node in nodes {
        let world = world();
        let mut data = noise(12 << 20, 1);
        let first = capture(&world, "dump", data.as_slice()).unwrap();
        damage(&world, node(&first.point.commit.roots));
        let world = reopened(world);
        data.splice(5_000_000..5_000_010, *b"INSERT INTO t");
        let second = capture(&world, "dump", data.as_slice()).unwrap();
        let reason = &second.point.commit.reason;
        assert!(reason.starts_with(&format!("full: the previous point {}", first.point.name())), "{reason}");
        assert!(world.seen(&second.point).get("dump").bytes == data);
    }
}

#[test]
fn a_parent_that_is_damaged_while_the_stream_is_read_is_told_with_the_way_out() {
    /// Damages the parent when it is first read.
    struct Meanwhile<'a>(&'a [u8], Option<(&'a World, NodeRef)>);
    impl Read for Meanwhile<'_> {
        fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
            if let Some((world, node)) = self.1.take() {
                damage(world, node);
            }
            self.0.read(space)
        }
    }
    let mut world = reopened(world());
    let data = noise(12 << 20, 1);
    let first = capture(&world, "dump", data.as_slice()).unwrap();
    let maps = first.point.commit.roots.maps.unwrap();
    let error = capture(&world, "dump", Meanwhile(&data, Some((&world, maps)))).unwrap_err();
    assert!(matches!(error, CaptureError::StreamSpent { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(first.point.name()) && text.contains("send it again with --full"), "{text}");
    world.options.full = true;
    let second = capture(&world, "dump", data.as_slice()).unwrap();
    assert!(world.seen(&second.point).get("dump").bytes == data);
}
