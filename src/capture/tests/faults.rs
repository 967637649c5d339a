//! Files that cannot be read, vanish, are replaced or change while they are captured.

use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::skip::skipped;
use crate::base::{Class, Classed, limits};
use crate::capture::ahead::Ahead;
use crate::capture::boundary::Boundary;
use crate::capture::counts::Counts;
use crate::capture::directory::Directory;
use crate::capture::identities::Identities;
use crate::capture::merge::Merge;
use crate::capture::parent::Parent;
use crate::capture::pipeline::Pipeline;
use crate::capture::planner::{Halt, Planner};
use crate::capture::read::{Reading, Unread, changed, read};
use crate::capture::recorder::Recorded;
use crate::capture::sys::tests_only::become_user;
use crate::capture::testing::{Seen, World, is_root, noise, run, text};
use crate::capture::unit::{Job, ReadJob};
use crate::capture::walk::{Rules, Walk, trouble};
use crate::capture::{Excludes, Progress, capture_tree};
use crate::chain::Point;
use crate::format::entry::Body;
use crate::format::log::{Problem, ProblemKind, Stats};
use crate::format::{FileId, Key};
use crate::repo::{Dedup, Session};

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
        again: false,
    }
}

/// The problem that kept a name from being read.
fn problem(read: Result<Reading, Unread>) -> Problem {
    match read.unwrap_err() {
        Unread::Problem(problem) => problem,
        other => panic!("{other:?}"),
    }
}

/// Captures, beside `parent` if there is one, and meddles with the source when all of it has been walked and
/// little or nothing of it has been read.
fn meddled(world: &World, parent: Option<&Point>, meddle: impl FnOnce() + Send) -> (Recorded, Stats, Seen) {
    let session = world.log.begin().unwrap();
    let chain = parent.map_or_else(|| world.log.open_chain(&session).unwrap(), |point| point.chain());
    let session = Session::begin(&world.repo, world.source.id, chain, session).unwrap();
    let reader = session.reader();
    let dedup = Dedup::over(reader.clone(), Vec::new());
    let identities = Identities::from(parent.map_or(FileId::FIRST, |point| point.commit.next_file));
    let (counts, progress) = (Counts::default(), Progress::new());
    let beside = Parent::new(&reader, parent.map(|point| (point.commit.roots, point.commit.started)));
    let pipeline = Pipeline {
        session: &session,
        parent: parent.map(|point| point.commit.roots),
        dedup: &dedup,
        counts: &counts,
        identities: &identities,
        progress: &progress,
        workers: 2,
    };
    let root = Directory::root(world.dir.path()).unwrap();
    let boundary = Boundary::new(&root, false, Vec::new()).unwrap();
    let walk = Walk::new(root, boundary, Rules { excludes: Excludes::none(), skip_caches: false }, 2);
    let plan = |planner: Planner<'_>| -> Result<(), Halt> {
        let mut merge = Merge::new(walk, planner, &beside, &identities, &counts, &progress)?;
        merge.walk_all()?;
        meddle();
        merge.come_back()
    };
    let (recorded, _) = pipeline.run(plan, || world.env.now()).unwrap();
    let seen = Seen::of(&reader, &recorded.roots.unwrap());
    let stats = counts.stats();
    (recorded, stats, seen)
}

/// What was told: each path with the kind of its problem.
fn told(recorded: &Recorded) -> Vec<String> {
    let line = |problem: &Problem| format!("{} {:?}", problem.path.escape_ascii(), problem.kind);
    recorded.problems.iter().map(line).collect()
}

#[test]
fn an_inode_is_read_through_any_of_its_names_that_still_leads_to_it() {
    // A large file is opened by the walk itself, and needs no name afterwards.
    for size in [100, 5000, 300_000] {
        let world = World::new();
        let content = noise(size, 1);
        // Two inodes of three names, and one of two.
        for name in ["a/first", "a/second", "gone"] {
            world.write(name, &content);
        }
        for (name, of) in [("b/first", "a/first"), ("c/first", "a/first"), ("d/second", "a/second")] {
            world.write(name, "");
            fs::remove_file(world.path(name)).unwrap();
            fs::hard_link(world.path(of), world.path(name)).unwrap();
        }
        fs::hard_link(world.path("gone"), world.path("gone2")).unwrap();
        let meddle = || {
            // Published by link and unlink; replaced by rename; removed for good.
            fs::remove_file(world.path("a/first")).unwrap();
            fs::write(world.path("new"), "another").unwrap();
            fs::rename(world.path("new"), world.path("a/second")).unwrap();
            fs::remove_file(world.path("gone")).unwrap();
            fs::remove_file(world.path("gone2")).unwrap();
        };
        let parent = (size > 100).then(|| world.capture_exactly());
        if parent.is_some() {
            // Read again, beside what the parent has.
            for name in ["a/first", "a/second", "gone"] {
                fs::write(world.path(name), noise(size, 2)).unwrap();
            }
        }
        let content = if parent.is_some() { noise(size, 2) } else { content };
        let (recorded, stats, seen) = meddled(&world, parent.as_deref(), meddle);
        let mut told = told(&recorded);
        told.sort();
        assert_eq!(told, ["a/first Vanished", "a/second Changed", "gone Vanished", "gone2 Vanished"], "{size}");
        assert_eq!(seen.paths(), ["", "a", "b", "b/first", "c", "c/first", "d", "d/second"]);
        for name in ["b/first", "c/first", "d/second"] {
            assert!(seen.get(name).bytes == content, "{name} of {size}");
        }
        assert_eq!(seen.get("b/first").inode, seen.get("c/first").inode);
        assert_eq!((stats.files, stats.directories, stats.bytes), (3, 5, 2 * size as u64));
    }
}

#[test]
fn files_that_grow_beyond_a_chunk_before_they_are_read_are_captured_whole() {
    let world = World::new();
    for name in ["deep/er/log", "linked", "still"] {
        world.write(name, noise(2000, 1));
    }
    fs::hard_link(world.path("linked"), world.path("linked2")).unwrap();
    for round in 0..2u64 {
        let parent = (round == 1).then(|| world.capture_exactly());
        let content = noise(3 << 20, round);
        let meddle = || {
            for name in ["deep/er/log", "linked"] {
                fs::write(world.path(name), &content).unwrap();
            }
        };
        if round == 1 {
            for name in ["deep/er/log", "linked", "still"] {
                fs::write(world.path(name), noise(2000, 7)).unwrap();
            }
        }
        let (recorded, stats, seen) = meddled(&world, parent.as_deref(), meddle);
        assert_eq!(told(&recorded), Vec::<String>::new());
        for name in ["deep/er/log", "linked", "linked2"] {
            assert!(seen.get(name).bytes == content, "{name}, round {round}");
        }
        assert_eq!((stats.files, stats.bytes), (4, 2 * (3 << 20) + 2000));
    }
}

#[test]
fn a_file_whose_length_is_not_known_before_it_is_read_is_read() {
    let directory = Arc::new(Directory::root(std::path::Path::new("/proc/sys/kernel")).unwrap());
    let stat = directory.stat_of(b"ostype", crate::capture::sys::Ask::Filesystem).unwrap();
    assert_eq!(stat.meta.size, 0, "the kernel has learned to tell");
    let world = World::new();
    world.write("ostype", "");
    let job = ReadJob { directory, stat, ..job(&world, "ostype") };
    let mut buffer = b"before".to_vec();
    let read = read(&job, None, &mut buffer).unwrap();
    assert_eq!((read.entry.meta.size, read.stretches.as_slice()), (6, [(0, 6..12)].as_slice()));
    assert_eq!(buffer, b"beforeLinux\n");
    assert_eq!(read.problem, None);
}

#[test]
fn what_the_machine_lacks_is_no_fault_of_a_file() {
    for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
        let error = trouble(b"file".to_vec(), &std::io::Error::from_raw_os_error(code)).unwrap_err();
        assert_eq!(error.class(), Class::Exhausted, "{error}");
    }
    let error = std::io::Error::from_raw_os_error(libc::EACCES);
    assert_eq!(trouble(b"file".to_vec(), &error).unwrap().kind, ProblemKind::Unreadable);
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
        let read = read(&job, None, &mut Vec::new());
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
    let problem = problem(replace(&|path| fs::create_dir(path).unwrap()));
    assert_eq!(problem.kind, ProblemKind::Changed);
    let problem = self::problem(replace(&|_| {}));
    assert_eq!((problem.kind, problem.path.as_slice()), (ProblemKind::Vanished, &b"f"[..]));
}

#[test]
fn the_record_of_an_inode_is_never_read_from_another_inode() {
    let world = World::new();
    world.write("f", "listed");
    let job = ReadJob { inode: Some(crate::format::FileId(5)), ..job(&world, "f") };
    fs::rename(world.path("f"), world.path("g")).unwrap();
    world.write("f", "another");
    assert_eq!(problem(read(&job, None, &mut Vec::new())).kind, ProblemKind::Changed);
}

#[test]
fn a_file_that_keeps_growing_beyond_a_chunk_is_kept_as_far_as_it_was_read() {
    let world = World::new();
    world.write("f", "small");
    let job = ReadJob { again: true, ..job(&world, "f") };
    world.write("f", noise(3 << 20, 1));
    let mut buffer = Vec::new();
    let read = read(&job, None, &mut buffer).unwrap();
    assert_eq!(read.problem.unwrap().kind, ProblemKind::Changed);
    assert_eq!((read.entry.meta.size, buffer.len()), (1 << 20, 1 << 20));
}

#[test]
fn a_file_that_is_open_before_its_turn_is_captured_as_it_is_in_its_turn() {
    let world = World::new();
    let names: Vec<String> = (0..2 * limits::CAPTURE_FILES_AHEAD).map(|number| format!("f{number}")).collect();
    for name in &names {
        world.write(name, name.as_bytes());
    }
    let mut jobs: VecDeque<Job> = names.iter().map(|name| Job::Read(Box::new(job(&world, name)))).collect();
    jobs.insert(1, Job::Problem(changed(b"between".to_vec())));
    let mut ahead = Ahead::default();
    let (first, opened) = ahead.next(&mut jobs).unwrap();
    assert!(matches!(first, Job::Read(_)) && opened.is_some());
    assert!(matches!(ahead.next(&mut jobs), Some((Job::Problem(_), None))));

    // These are open by now: one is written to, one makes room for another, one goes, one becomes a link.
    world.write("f1", "longer than it was");
    world.write("another", "moved here");
    fs::rename(world.path("another"), world.path("f2")).unwrap();
    fs::remove_file(world.path("f3")).unwrap();
    fs::remove_file(world.path("f4")).unwrap();
    symlink("f5", world.path("f4")).unwrap();
    let mut seen = 0;
    while let Some((job, opened)) = ahead.next(&mut jobs) {
        assert!(ahead.open() <= limits::CAPTURE_FILES_AHEAD);
        let (Job::Read(job), Some(_)) = (&job, &opened) else { panic!("{job:?} is not open") };
        let mut buffer = Vec::new();
        let read = read(job, opened, &mut buffer);
        match job.name.as_slice() {
            b"f1" => assert_eq!((buffer.as_slice(), read.unwrap().problem), (&b"longer than it was"[..], None)),
            b"f2" => assert_eq!((buffer.as_slice(), read.unwrap().problem), (&b"moved here"[..], None)),
            b"f3" => assert_eq!(problem(read).kind, ProblemKind::Vanished),
            b"f4" => assert!(matches!(read.unwrap().entry.body, Body::Symlink(_))),
            name => assert_eq!((buffer.as_slice(), read.unwrap().problem), (name, None)),
        }
        seen += 1;
    }
    assert_eq!(seen, names.len() - 1);
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
