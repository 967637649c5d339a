//! Histories: what changes between captures is what the next point shows, and nothing else is stored.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::sync::Arc;

use crate::base::limits;
use crate::capture::Options;
use crate::capture::testing::{World, noise, run, text};
use crate::chain::Point;
use crate::format::entry::{Body, Content};
use crate::store::Operation;

/// Requests that write, since `before`.
fn writes(world: &World, before: &crate::store::Snapshot) -> u64 {
    let since = world.repo.store().meter().snapshot().since(before);
    Operation::ALL.iter().filter(|operation| operation.writes()).map(|operation| since.of(*operation).requests).sum()
}

#[test]
fn an_unchanged_source_costs_one_write_and_shares_its_parents_trees() {
    let world = World::new();
    for i in 0..500 {
        world.write(&format!("d{}/f{i}", i % 20), noise(100 + i * 7, i as u64));
    }
    world.write("large", noise(5 << 20, 9));
    fs::hard_link(world.path("large"), world.path("d3/link")).unwrap();
    let first = world.capture_exactly();
    let before = world.repo.store().meter().snapshot();
    let second = world.capture();
    assert!(!second.changed);
    assert_eq!(second.point.commit.roots, first.commit.roots);
    assert_eq!(second.point.commit.packs, 0);
    assert_eq!(writes(&world, &before), 1, "the log entry and nothing else");
    let (a, b) = (first.commit.stats, second.point.commit.stats);
    assert_eq!((a.files, a.directories, a.bytes), (b.files, b.directories, b.bytes));
    assert_eq!((b.changed_files, b.read_bytes, b.new_bytes, b.stored_bytes), (0, 0, 0, 0));
    assert_eq!(second.parent.as_deref(), Some(first.name()));
}

#[test]
fn a_file_modified_within_two_seconds_of_the_capture_is_read_again_and_not_stored_again() {
    let world = World::new();
    world.write("f", noise(50_000, 1));
    let first = world.capture_exactly();
    // The clock says that this happened just before the first capture began.
    let started = first.commit.started;
    let behind = std::time::Duration::from_nanos(u64::try_from(started.nanos()).unwrap());
    let file = fs::File::options().write(true).open(world.path("f")).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + behind)).unwrap();
    drop(file);
    let second = world.capture_exactly();
    assert_eq!((second.commit.stats.read_bytes, second.commit.stats.new_bytes), (50_000, 0));
}

/// It is in two places: with its first neighbours, and with those of a copy that was made later.
#[test]
fn a_file_whose_content_a_later_point_stored_again_is_not_stored_once_more() {
    let world = World::new();
    for i in 0..20 {
        world.write(&format!("a/f{i:02}"), noise(3000, i));
    }
    world.capture_exactly();
    world.write("b/f00", noise(3000, 0));
    for i in 1..20 {
        world.write(&format!("b/f{i:02}"), noise(3000, 100 + i));
    }
    let copied = world.capture_exactly();
    assert_eq!(copied.commit.stats.new_bytes, 60_000, "the copy is with its neighbours");
    // Rewritten with what it was.
    world.write("a/f00", noise(3000, 0));
    let touched = world.capture_exactly();
    assert_eq!((touched.commit.stats.read_bytes, touched.commit.stats.new_bytes), (3000, 0));
    let content = |point: &Point, path: &str| world.seen(point).get(path).entry.body.clone();
    assert_eq!(content(&touched, "a/f00"), content(&copied, "a/f00"), "it stays with its own");
    assert_ne!(content(&touched, "a/f00"), content(&touched, "b/f00"));
}

/// Neither its own requests nor those of a store elsewhere may grow with the length of the chain.
#[test]
fn a_long_chain_of_small_points_is_not_looked_through_for_chunks() {
    let world = World::new();
    let large = noise(3 << 20, 1);
    world.write("large", &large);
    world.capture_cleanly();
    let points = limits::DEDUP_SMALL_POINTS as u64 + 40;
    for n in 0..points {
        world.write(&format!("new/{n}"), noise(3000, 100 + n));
        world.capture_cleanly();
    }
    let before = world.repo.store().meter().snapshot();
    // What is in a large pack or in one of the newest points is found, however old or long the chain; and what is not is stored again.
    world.write("copies/large", &large);
    world.write("copies/late", noise(3000, 100 + points - 1));
    let copied = world.capture_exactly();
    assert_eq!(copied.commit.stats.new_bytes, 0);
    let footers = world.repo.store().meter().snapshot().since(&before).of(Operation::Tail).requests;
    assert!(footers > 64 && footers < limits::DEDUP_SMALL_POINTS as u64 + 8, "{footers}");
    world.write("copies/early", noise(3000, 100));
    let copied = world.capture_exactly();
    assert_eq!(copied.commit.stats.new_bytes, 3000);
}

#[test]
fn small_incrementals_are_one_pack_and_one_log_entry() {
    let world = World::new();
    for i in 0..300 {
        world.write(&format!("d{}/f{i}", i % 7), noise(3000, i));
    }
    world.capture_exactly();
    world.write("d3/new", "new content that is longer than what is kept in an entry".repeat(9));
    world.write("d4/f4", noise(9000, 1000));
    let before = world.repo.store().meter().snapshot();
    let point = world.capture_exactly();
    assert_eq!(point.commit.packs, 1);
    assert_eq!(writes(&world, &before), 2);
    assert_eq!(point.commit.stats.changed_files, 2);
    assert_eq!(point.commit.stats.new_bytes, 9000 + 504);
}

#[test]
fn changes_of_all_sorts_show_in_the_next_point() {
    let world = World::new();
    for i in 0..60 {
        world.write(&format!("d{}/sub{}/f{i}", i % 3, i % 5), noise(2000 + 50 * i, i as u64));
    }
    world.write("large", noise(4 << 20, 77));
    symlink("a", world.path("link")).unwrap();
    let first = world.capture_exactly();
    let (d, at) = (world.dir.path(), |name: &str| world.path(name));
    type Step<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let steps: Vec<Step<'_>> = vec![
        ("edit", Box::new(|| world.write("d0/sub0/f0", "edited"))),
        (
            "append",
            Box::new(|| {
                use std::io::Write;
                fs::File::options().append(true).open(at("large")).unwrap().write_all(b"more").unwrap();
            }),
        ),
        ("rename a file", Box::new(|| fs::rename(at("d0/sub3/f3"), at("d0/sub3/renamed")).unwrap())),
        ("rename a directory", Box::new(|| fs::rename(at("d1"), at("d1-renamed")).unwrap())),
        (
            "swap two directories",
            Box::new(|| {
                fs::rename(at("d0/sub0"), at("tmp")).unwrap();
                fs::rename(at("d0/sub1"), at("d0/sub0")).unwrap();
                fs::rename(at("tmp"), at("d0/sub1")).unwrap();
            }),
        ),
        ("delete a file", Box::new(|| fs::remove_file(at("d2/sub2/f2")).unwrap())),
        ("delete a tree", Box::new(|| fs::remove_dir_all(at("d2")).unwrap())),
        ("chmod", Box::new(|| run("chmod", &["-R", "o-r", text(d)]))),
        ("touch", Box::new(|| run("touch", &["-d", "2001-01-01", text(&at("large"))]))),
        (
            "retarget",
            Box::new(|| {
                fs::remove_file(at("link")).unwrap();
                symlink("b", at("link")).unwrap();
            }),
        ),
        (
            "a file becomes a directory",
            Box::new(|| {
                fs::remove_file(at("large")).unwrap();
                world.write("large/inner/file", noise(70_000, 5));
            }),
        ),
        (
            "a directory becomes a file",
            Box::new(|| {
                fs::remove_dir_all(at("large")).unwrap();
                world.write("large", noise(100, 6));
            }),
        ),
        (
            "a directory becomes a symlink",
            Box::new(|| {
                fs::rename(at("d1-renamed/sub0"), at("moved")).unwrap();
                symlink("../moved", at("d1-renamed/sub0")).unwrap();
            }),
        ),
        (
            "all goes",
            Box::new(|| {
                for item in fs::read_dir(d).unwrap() {
                    let path = item.unwrap().path();
                    if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
                        .unwrap();
                }
            }),
        ),
        ("all is new", Box::new(|| world.write("a/b/c", "d"))),
    ];
    let before = world.seen(&first);
    for (what, step) in steps {
        step();
        eprintln!("{what}");
        let point = world.capture_exactly();
        assert_eq!(point.commit.chain, first.commit.chain, "{what}");
        assert_eq!(world.capture_exactly().commit.roots, point.commit.roots, "{what}: and then nothing");
    }
    let after = world.seen(&first);
    assert_eq!(before.paths(), after.paths(), "an old point is what it was");
    assert!(before.files.iter().all(|(path, file)| file.bytes == after.files[path].bytes));
}

#[test]
fn content_that_only_moved_is_not_stored_again() {
    let world = World::new();
    for i in 0..200 {
        world.write(&format!("dir/f{i:03}"), noise(1000 + 10 * i, i as u64));
    }
    world.write("large", noise(6 << 20, 1));
    world.capture_exactly();
    fs::rename(world.path("dir"), world.path("renamed")).unwrap();
    fs::rename(world.path("large"), world.path("renamed/large")).unwrap();
    run("bash", &["-c", &format!("touch {}/renamed/f0*; chmod o+w {0}/renamed/f1*", text(&world.root()))]);
    let point = world.capture_exactly();
    assert_eq!(point.commit.stats.new_bytes, 0);
    // An insertion in a large file stores what is around it.
    let mut bytes = fs::read(world.path("renamed/large")).unwrap();
    bytes.splice(3_000_000..3_000_000, *b"inserted");
    world.write("renamed/large", bytes);
    let point = world.capture_exactly();
    assert!(point.commit.stats.new_bytes <= 2 << 20, "{}", point.commit.stats.new_bytes);
}

#[test]
fn twins_are_stored_once_even_if_they_are_read_side_by_side() {
    let mut world = World::new();
    for i in 0..20 {
        world.write(&format!("twin{i:02}"), noise(3 << 20, 1));
        world.write(&format!("z{i:02}/small"), noise(40_000, 2));
        world.write(&format!("z{i:02}/middle"), noise(400_000, 3));
    }
    let once = (3 << 20) + 440_000;
    assert_eq!(world.capture_exactly().commit.stats.new_bytes, once);
    for workers in [1, 2, 8, 16] {
        world.options = Options { workers: Some(workers), full: true, ..Options::default() };
        assert_eq!(world.capture_exactly().commit.stats.new_bytes, once, "{workers} workers");
    }
}

#[test]
fn a_lone_small_chunk_of_an_old_frame_is_stored_again_and_serves_its_neighbours() {
    let world = World::new();
    for i in 0..100 {
        world.write(&format!("old/f{i:02}"), noise(1200, i));
    }
    world.capture_exactly();
    fs::copy(world.path("old/f50"), world.path("copy")).unwrap();
    let again = world.capture_exactly();
    assert_eq!(again.commit.stats.new_bytes, 1200, "one 100th of a frame is not worth reading it");
    fs::copy(world.path("old/f50"), world.path("copy2")).unwrap();
    let third = world.capture_exactly();
    assert_eq!(third.commit.stats.new_bytes, 0, "the frame of the first copy holds nothing else");
}

#[test]
fn files_updated_in_place_share_all_but_the_chunks_that_changed() {
    let world = World::new();
    let file = fs::File::create(world.path("image")).unwrap();
    file.set_len(400 << 20).unwrap();
    for window in 0..20u64 {
        file.write_all_at(&noise(256 << 10, window), window * (16 << 20) + (window << 12)).unwrap();
    }
    let first = world.capture_exactly();
    file.write_all_at(b"changed", (5 * (16 << 20)) + 50_000).unwrap();
    file.write_all_at(&noise(4096, 99), 399 << 20).unwrap();
    let second = world.capture_exactly();
    // The data of the first chunk begins behind a hole.
    assert_eq!(second.commit.stats.new_bytes, (65536 - 20480) + 4096);
    let maps = |point: &Point| match world.seen(point).get("image").entry.body {
        Body::File(Content::Mapped { id, .. }) => id,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(maps(&first), maps(&second), "the map keeps its identity");
    // A hole is punched, and the file is cut short so that an entry holds its extents.
    run("fallocate", &["--punch-hole", "-o", "83886080", "-l", "1048576", text(&world.path("image"))]);
    world.capture_exactly();
    file.set_len(100).unwrap();
    world.capture_exactly();
    file.set_len(300 << 20).unwrap();
    world.capture_exactly();
}

#[test]
fn hard_links_share_an_inode_that_keeps_its_identity() {
    let world = World::new();
    let link = |from: &str, to: &str| fs::hard_link(world.path(from), world.path(to)).unwrap();
    world.write("a", noise(5000, 1));
    world.write("d/large", noise(3 << 20, 2));
    symlink("target", world.path("s")).unwrap();
    link("a", "d/a2");
    link("a", "z");
    link("d/large", "large2");
    link("s", "s2");
    world.write("lone", "one name here, one elsewhere");
    fs::hard_link(world.path("lone"), world.dir.path().with_extension("elsewhere")).unwrap();
    let inode = |point: &Arc<Point>, path: &str| world.seen(point).get(path).inode.clone();
    let first = world.capture_exactly();
    assert_eq!(inode(&first, "a"), inode(&first, "d/a2"));
    assert_eq!(inode(&first, "a"), inode(&first, "z"));
    assert_ne!(inode(&first, "a"), inode(&first, "d/large"));
    assert_eq!(first.commit.stats.bytes, 5000 + (3 << 20) + 28, "each inode once");
    assert_eq!(first.commit.stats.files, 6);

    // A new name that comes before all others, and a change through one of them.
    link("z", "0");
    world.write("d/a2", noise(6000, 3));
    let second = world.capture_exactly();
    assert_eq!(inode(&second, "0"), inode(&first, "a"));
    // Names go until one is left, then none.
    fs::remove_file(world.path("0")).unwrap();
    fs::remove_file(world.path("a")).unwrap();
    fs::remove_file(world.path("large2")).unwrap();
    let third = world.capture_exactly();
    assert_eq!(third.commit.stats.new_bytes, 0);
    fs::remove_file(world.path("z")).unwrap();
    fs::remove_dir_all(world.path("d")).unwrap();
    fs::remove_file(world.path("s2")).unwrap();
    world.capture_exactly();
    fs::remove_file(world.dir.path().with_extension("elsewhere")).unwrap();
    world.capture_exactly();
}

#[test]
fn random_histories_are_captured_exactly() {
    for seed in 0..6u64 {
        let world = World::new();
        let mut dice = seed;
        let mut roll = |below: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % below
        };
        for round in 0..12 {
            for _ in 0..roll(25) {
                let path = |n: u64| format!("{}/{}/{}", n % 3, n / 3 % 3, n / 9 % 7);
                let (from, to) = (path(roll(63)), path(roll(63)));
                let size = [5, 100, 200, 3000, 70_000, 1_200_000][usize::try_from(roll(6)).unwrap()];
                // Whatever fails (a name that is not there, a directory in the way) is just not done.
                drop(match roll(9) {
                    0..3 => fs::create_dir_all(world.path(&to).parent().unwrap())
                        .and_then(|()| fs::write(world.path(&to), noise(size, roll(4)))),
                    3 => fs::remove_file(world.path(&from)),
                    4 => fs::remove_dir_all(world.path(&from[..3])),
                    5 => fs::rename(world.path(&from), world.path(&to)),
                    6 => fs::rename(world.path(&from[..3]), world.path(&to[..3])),
                    7 => fs::hard_link(world.path(&from), world.path(&to)),
                    _ => fs::File::options().write(true).open(world.path(&from)).and_then(|f| f.write_all_at(b"x", 3)),
                });
            }
            eprintln!("seed {seed}, round {round}");
            world.capture_exactly();
        }
    }
}
