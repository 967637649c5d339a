//! Files that cannot be read, vanish, are replaced or change while they are captured.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::skip::skipped;
use crate::capture::directory::Directory;
use crate::capture::read::read;
use crate::capture::sys::tests_only::become_user;
use crate::capture::testing::{World, is_root, noise, run, text};
use crate::capture::unit::ReadJob;
use crate::capture::{Progress, capture_tree};
use crate::format::Key;
use crate::format::entry::Body;
use crate::format::log::ProblemKind;

/// A job for `name`, as if it had just been listed.
fn job(world: &World, name: &str) -> ReadJob {
    let directory = Arc::new(Directory::root(world.dir.path()).unwrap());
    let stat = directory.stat_of(name.as_bytes(), crate::capture::sys::Ask::Filesystem).unwrap();
    ReadJob {
        directory,
        name: name.as_bytes().to_vec(),
        position: 0,
        stat,
        key: Key::root(),
        old: None,
        inode: None,
        touched: false,
    }
}

#[test]
fn what_is_replaced_after_it_was_listed_is_captured_as_what_it_is_and_never_followed() {
    let world = World::new();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "secret").unwrap();
    let replace = |with: &dyn Fn(&std::path::Path)| {
        world.write("f", "listed");
        let job = job(&world, "f");
        fs::remove_file(world.path("f")).unwrap();
        with(&world.path("f"));
        let read = read(&job, &mut Vec::new());
        let removed = fs::remove_file(world.path("f"));
        drop(removed.or_else(|_| fs::remove_dir(world.path("f"))));
        read
    };
    let read = replace(&|path| symlink(outside.path(), path).unwrap()).unwrap();
    assert!(matches!(read.entry.body, Body::Symlink(_)), "{read:?}");
    let read = replace(&|path| run("mkfifo", &[text(path)])).unwrap();
    assert_eq!(read.entry.body, Body::Fifo);
    let read = replace(&|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())).unwrap();
    assert_eq!(read.entry.body, Body::Socket);
    let read = replace(&|path| fs::write(path, "another").unwrap()).unwrap();
    assert_eq!((read.entry.meta.size, read.stretches.len()), (7, 1));
    let problem = replace(&|path| fs::create_dir(path).unwrap()).unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Changed);
    let problem = replace(&|_| {}).unwrap_err();
    assert_eq!((problem.kind, problem.path.as_slice()), (ProblemKind::Vanished, &b"f"[..]));
}

#[test]
fn the_record_of_an_inode_is_never_read_from_another_inode() {
    let world = World::new();
    world.write("f", "listed");
    let job = ReadJob { inode: Some(crate::format::FileId(5)), ..job(&world, "f") };
    fs::rename(world.path("f"), world.path("g")).unwrap();
    world.write("f", "another");
    assert_eq!(read(&job, &mut Vec::new()).unwrap_err().kind, ProblemKind::Changed);
}

#[test]
fn a_file_that_grew_beyond_a_chunk_is_kept_as_far_as_it_was_read() {
    let world = World::new();
    world.write("f", "small");
    let job = job(&world, "f");
    world.write("f", noise(3 << 20, 1));
    let mut buffer = Vec::new();
    let read = read(&job, &mut buffer).unwrap();
    assert_eq!(read.problem.unwrap().kind, ProblemKind::Changed);
    assert_eq!((read.entry.meta.size, buffer.len()), (1 << 20, 1 << 20));
}

/// Runs captures while `meddle` does its worst, until one has a problem of `kind`; each is checked.
fn until(world: &World, kind: ProblemKind, meddle: impl Fn(u64) + Sync) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                meddle(round);
                round += 1;
            }
        });
        let found = (0..300).any(|_| {
            // What is committed is consistent in itself, whatever happened to the source.
            let outcome = world.capture();
            assert_eq!(outcome.point.commit.stats.problems, outcome.problems.len() as u64);
            outcome.problems.iter().any(|problem| problem.kind == kind)
        });
        stop.store(true, Ordering::Relaxed);
        assert!(found, "no capture met a file that was {kind:?}");
    });
}

#[test]
fn a_large_file_that_grows_while_it_is_read_is_recorded_as_changed() {
    let world = World::new();
    world.write("log", noise(6 << 20, 1));
    let mut file = fs::File::options().append(true).open(world.path("log")).unwrap();
    let file = parking_lot::Mutex::new(&mut file);
    until(&world, ProblemKind::Changed, |_| file.lock().write_all(b"one more line\n").unwrap());
    // When it holds still again, the next point is exact: nothing of the torn one is believed.
    world.capture_exactly();
}

#[test]
fn a_file_that_is_cut_short_and_written_again_while_it_is_read_is_recorded_as_changed() {
    let world = World::new();
    world.write("f", noise(6 << 20, 1));
    world.write("small", noise(900_000, 2));
    until(&world, ProblemKind::Changed, |round| {
        fs::write(world.path("f"), noise(2 << 20, round % 3)).unwrap();
        fs::write(world.path("small"), noise(500_000, round % 5)).unwrap();
    });
    world.capture_exactly();
}

#[test]
fn files_that_vanish_between_listing_and_reading_are_recorded() {
    let world = World::new();
    for i in 0..400 {
        world.write(&format!("d/f{i}"), noise(300, i));
    }
    until(&world, ProblemKind::Vanished, |round| {
        let name = format!("d/f{}", round * 37 % 400);
        drop(fs::remove_file(world.path(&name)));
        fs::write(world.path(&name), noise(400, round)).unwrap();
    });
    world.capture_exactly();
}

#[test]
fn what_may_not_be_read_is_not_in_the_point_and_the_rest_is() {
    if !is_root() {
        return skipped("only root can make files that another may not read: run the tests as root");
    }
    let world = World::new();
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for file in ["a", "secret", "z", "closed/inner", "open/inner", "linked"] {
        world.write(file, noise(2000, 1));
    }
    world.write("secret-large", noise(2 << 20, 2));
    fs::hard_link(world.path("linked"), world.path("linked2")).unwrap();
    world.capture_exactly();
    let mode = |name: &str, mode: u32| fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
    for name in ["secret", "closed", "secret-large", "linked"] {
        mode(name, 0);
    }
    // Threads take the identity of the one that starts them.
    let outcome = std::thread::scope(|scope| {
        let captured = scope.spawn(|| {
            become_user(65534).unwrap();
            world.env.advance(std::time::Duration::from_secs(60));
            let progress = Progress::new();
            let outcome =
                capture_tree(&world.repo, &world.log, &world.source, world.dir.path(), &world.options, &progress);
            assert_eq!(progress.problems(), 5);
            outcome.unwrap()
        });
        captured.join().unwrap()
    });
    let mut problems: Vec<String> = outcome
        .problems
        .iter()
        .map(|problem| format!("{} {:?}", String::from_utf8_lossy(&problem.path), problem.kind))
        .collect();
    problems.sort();
    assert_eq!(
        problems,
        [
            "closed Unreadable",
            "linked Unreadable",
            "linked2 Unreadable",
            "secret Unreadable",
            "secret-large Unreadable"
        ]
    );
    let seen = world.seen(&outcome.point);
    assert_eq!(seen.paths(), ["", "a", "open", "open/inner", "z"]);
    let stats = outcome.point.commit.stats;
    assert_eq!((stats.files, stats.directories, stats.bytes, stats.problems), (3, 2, 6000, 5));
    // The list is in the repository too.
    let frame = outcome.point.commit.problems.unwrap();
    let reader = world.repo.reader(world.source.id);
    let listed = reader.fetch(&frame, crate::format::frame::FrameKind::Problems).unwrap();
    assert_eq!(crate::format::problems::decode(&listed).unwrap(), outcome.problems);
    // Readable again, they are back.
    for (name, bits) in [("secret", 0o644), ("closed", 0o755), ("secret-large", 0o644), ("linked", 0o644)] {
        mode(name, bits);
    }
    world.capture_exactly();
}
