//! Commits of disks that contradict themselves: whoever wrote them lied, and what is said of them is an error, never
//! a panic, an endless computation or another disk.

use std::os::unix::fs::FileExt;

use amberfs::base::{Class, Classed, Env};
use amberfs::capture::Options;
use amberfs::format::log::{DISK_NAME, DiskFacts};
use amberfs::store::Store;
use amberfs::verify;
use amberfs::view::PointView;
use amberfs::view::disk::DiskView;
use amberfs::view::namespace::Namespace;

use super::{CELL, DiskWorld, shown};
use crate::history::Dice;
use crate::world::{later, names, node};

fn world(chunk_bytes: u32) -> (DiskWorld, amberfs::format::log::Commit) {
    let world = DiskWorld::new(Store::memory(), Env::seeded(1, later()));
    world.file().write_all_at(&Dice(1).bytes(9 * CELL), 0).unwrap();
    world.file().set_len(20 * CELL).unwrap();
    let options = Options { disk_chunk_bytes: Some(chunk_bytes), ..Options::default() };
    let commit = world.capture(&options).unwrap().point.commit.as_ref().clone();
    (world, commit)
}

#[test]
fn facts_of_no_disk_are_refused() {
    let (world, commit) = world(16 << 10);
    let facts = commit.disk.clone().unwrap();
    let lies = [
        DiskFacts { chunk_bytes: 0, ..facts },
        DiskFacts { chunk_bytes: 7, ..facts },
        DiskFacts { chunk_bytes: 24 << 10, ..facts },
        DiskFacts { chunk_bytes: 1 << 31, ..facts },
        DiskFacts { sector_bytes: 0, ..facts },
        DiskFacts { sector_bytes: 1 << 31, ..facts },
        DiskFacts { bytes: u64::MAX, ..facts },
        DiskFacts { bytes: facts.bytes + 1, ..facts },
    ];
    for lie in lies {
        let view = PointView::new(&world.reopened(), world.source.id, &commit.roots);
        let error = DiskView::new(view, None, &lie).unwrap_err();
        assert_eq!(error.class(), Class::Corrupt, "{lie:?}");
    }
}

/// A point whose commit lies about its chunks: of the disk itself nothing is lost.
#[test]
fn a_commit_that_lies_about_its_chunks_costs_what_is_computed_from_them() {
    for (real, told, refused_at_once) in [(16 << 10, 64 << 10, false), (16 << 10, 0, true), (64 << 10, 16 << 10, false)]
    {
        let (world, commit) = world(real);
        let facts = commit.disk.clone().unwrap();
        let session = world.log.begin().unwrap();
        let chain = world.log.open_chain(&session).unwrap();
        let disk = Some(DiskFacts { chunk_bytes: told, ..facts });
        let lie = amberfs::format::log::Commit { session, chain, packs: 0, disk, ..commit.clone() };
        let point = world.log.commit(lie).unwrap();
        let view = world.mount();
        let expected = std::fs::read(world.path()).unwrap();
        let raw = shown(&view, point.name(), DISK_NAME);
        assert!(view.read(raw, 0, expected.len()).unwrap() == expected);
        let root = node(&view, &format!("vm/points/{}", point.name()));
        if refused_at_once {
            for name in ["disk.qcow2", "map.json", "partitions"] {
                assert_eq!(view.lookup(root, name.as_bytes()).unwrap_err().class(), Class::Corrupt, "{name}");
            }
            let report = verify::verify(&world.reopened(), &verify::Options::default(), &verify::Progress::new());
            let said = format!("{:?}", report.unwrap().findings);
            assert!(said.contains("there is no such disk as it says"), "{said}");
            continue;
        }
        assert_eq!(names(&view, root).len(), 4);
        assert_eq!(view.lookup(root, b"map.json").unwrap_err().class(), Class::Corrupt);
        // Whatever the tables say, no cluster of data is called a hole: the image cannot be read to its end.
        let qcow2 = shown(&view, point.name(), "disk.qcow2");
        let size = usize::try_from(view.attr(qcow2).unwrap().attr.size).unwrap();
        assert_eq!(view.read(qcow2, 0, size).unwrap_err().class(), Class::Corrupt);
    }
}
