//! Which point is built on, what is left out, and what refuses to be captured.

use std::fs;

use crate::base::{Class, Classed};
use crate::capture::testing::{World, noise, run, text};
use crate::capture::{CaptureError, Excludes, Options, Phase, Progress, capture_tree};
use crate::format::log::SourceKind;
use crate::format::object::Object;
use crate::store::Store;

#[test]
fn the_choice_of_the_parent_is_told_in_words() {
    let mut world = World::new();
    world.write("f", noise(1000, 1));
    let first = world.capture_exactly();
    assert_eq!(first.commit.reason, "full: first capture of this source");
    assert!(first.is_full());
    let second = world.capture_exactly();
    let newest = format!("incremental: parent {}, the newest point of chain 0", first.name());
    assert_eq!((second.commit.reason.as_str(), second.commit.parent), (newest.as_str(), Some(first.id)));
    world.options =
        Options { full: true, labels: vec!["a".into(), "b".into()], job: Some("j1".into()), ..world.options };
    let third = world.capture_exactly();
    assert_eq!(third.commit.reason, "full: asked for by --full");
    assert_eq!((third.commit.chain.0, third.commit.parent), (1, None));
    assert_eq!(third.commit.labels, ["a", "b"]);
    assert_eq!(third.commit.job.as_deref(), Some("j1"));
    assert_eq!(third.commit.stats.new_bytes, 1000, "a new chain shares nothing with older ones");
    world.options.full = false;
    let fourth = world.capture_exactly();
    assert_eq!((fourth.commit.chain.0, fourth.commit.parent), (1, Some(third.id)));
}

#[test]
fn a_damaged_parent_is_not_built_on() {
    let world = World::new();
    for i in 0..50 {
        world.write(&format!("d{i}/f"), noise(1000, i));
    }
    let first = world.capture_exactly();
    let pack = first.commit.roots.entries.frame.pack;
    world.repo.store().delete(&Object::Pack(world.source.id, pack).name()).unwrap();
    // Another process, which has nothing of it in memory.
    let repo = crate::repo::Repo::open(world.repo.store().clone(), world.env.clone()).unwrap();
    let world = World { repo, ..world };
    let second = world.capture_exactly();
    assert!(second.commit.reason.starts_with("full: the previous point"), "{}", second.commit.reason);
    assert_eq!((second.commit.chain.0, second.commit.parent), (1, None));
}

#[test]
fn what_is_excluded_leaves_the_point_and_comes_back() {
    let mut world = World::new().excluding(&["*.o", "/target/"]);
    for file in ["a.c", "a.o", "target/x", "src/target/y"] {
        world.write(file, file);
    }
    let paths = |world: &World| world.seen(&world.capture_cleanly()).paths();
    assert_eq!(paths(&world), ["", "a.c", "src", "src/target", "src/target/y"]);
    world = world.excluding(&[]);
    world.capture_exactly();
    world = world.excluding(&["/src/"]);
    assert_eq!(paths(&world), ["", "a.c", "a.o", "target", "target/x"]);
}

#[test]
fn tagged_caches_are_kept_unless_told_otherwise() {
    let mut world = World::new();
    world.write("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# more");
    world.write("cache/deep/data", "x");
    world.capture_exactly();
    world.options.exclude_caches = true;
    assert_eq!(world.seen(&world.capture_cleanly()).paths(), ["", "cache", "cache/CACHEDIR.TAG"]);
}

#[test]
fn the_repository_in_its_own_source_is_an_empty_directory() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::create_local(&place.path().join("repo")).unwrap();
    let world = World::over(store, SourceKind::Tree);
    let source = place.path();
    fs::write(source.join("file"), "x").unwrap();
    let capture = |path: &std::path::Path| {
        world.env.advance(std::time::Duration::from_secs(60));
        capture_tree(&world.repo, &world.log, &world.source, path, &world.options, &Progress::new())
    };
    let first = capture(source).unwrap();
    assert_eq!(world.seen(&first.point).paths(), ["", "file", "repo"]);
    assert_eq!(first.not_entered.first, [(b"repo".to_vec(), crate::capture::Barrier::Repository)]);
    let second = capture(source).unwrap();
    assert!(!second.changed, "writing to the repository changes nothing that is captured");
    let error = capture(&source.join("repo/source")).unwrap_err();
    assert!(matches!(error, CaptureError::InsideRepository { .. }), "{error}");
}

#[test]
fn a_source_that_is_not_there_yields_no_point() {
    let world = World::new();
    world.write("file", "x");
    let capture = |path: &std::path::Path| {
        capture_tree(&world.repo, &world.log, &world.source, path, &world.options, &Progress::new()).unwrap_err()
    };
    let missing = capture(&world.path("none"));
    assert_eq!(missing.class(), Class::NotFound);
    assert!(missing.to_string().contains("none"), "{missing}");
    assert!(matches!(capture(&world.path("file")), CaptureError::Root { .. }));
    assert!(world.log.load().unwrap().points().is_empty());
}

#[test]
fn a_root_behind_a_symlink_is_followed_because_the_caller_named_it() {
    let world = World::new();
    world.write("real/file", "x");
    std::os::unix::fs::symlink("real", world.path("alias")).unwrap();
    let alias = world.path("alias");
    let outcome = capture_tree(&world.repo, &world.log, &world.source, &alias, &world.options, &Progress::new());
    assert_eq!(world.seen(&outcome.unwrap().point).paths(), ["", "file"]);
}

#[test]
fn a_cancelled_capture_leaves_no_point() {
    let world = World::new();
    world.write("file", noise(3 << 20, 1));
    let progress = Progress::new();
    progress.cancel();
    let error = capture_tree(&world.repo, &world.log, &world.source, world.dir.path(), &world.options, &progress);
    assert_eq!(error.unwrap_err().class(), Class::Cancelled);
    assert!(world.log.refresh().unwrap().points().is_empty());
}

#[test]
fn progress_counts_what_is_there() {
    let world = World::new();
    for i in 0..30 {
        world.write(&format!("d/f{i}"), noise(1000, i));
    }
    world.write("large", noise(2 << 20, 1));
    for round in 0..2 {
        let progress = Progress::new();
        assert_eq!(progress.phase(), Phase::Queued);
        world.env.advance(std::time::Duration::from_secs(60));
        capture_tree(&world.repo, &world.log, &world.source, world.dir.path(), &world.options, &progress).unwrap();
        assert_eq!((progress.files(), progress.bytes()), (31, 30_000 + (2 << 20)), "round {round}");
        assert_eq!(progress.phase(), Phase::Committed);
        assert_eq!(progress.expected(), (round == 1).then_some((31, 30_000 + (2 << 20))));
    }
}

#[test]
fn a_census_tells_of_a_first_capture_what_to_expect() {
    let mut world = World::new();
    for i in 0..30 {
        world.write(&format!("d/f{i}"), noise(1000, i));
    }
    world.write("left.o", noise(5000, 1));
    run("mkfifo", &[text(&world.path("fifo"))]);
    run("ln", &[text(&world.path("d/f0")), text(&world.path("link"))]);
    world.options =
        Options { census: true, full: true, excludes: Excludes::new(&["*.o".into()], &[]).unwrap(), ..world.options };
    // The capture may be through before its census is: then nobody is left to be told.
    let told = (0..100).find_map(|_| {
        world.env.advance(std::time::Duration::from_secs(60));
        let progress = Progress::new();
        capture_tree(&world.repo, &world.log, &world.source, world.dir.path(), &world.options, &progress).unwrap();
        assert_eq!((progress.files(), progress.bytes()), (32, 30_000));
        progress.expected()
    });
    assert_eq!(told, Some((32, 30_000)), "the one file of two names counts once in bytes, twice in names");
}

#[test]
fn one_worker_or_many_capture_the_same() {
    let mut world = World::new();
    for i in 0..400 {
        world.write(&format!("d{}/f{i}", i % 13), noise(500 + i * 31, i as u64));
    }
    world.write("large", noise(9 << 20, 1));
    run("cp", &["-a", text(&world.path("d1")), text(&world.path("d1-copy"))]);
    for workers in [1, 2, 16] {
        world.options = Options { full: true, workers: Some(workers), ..Options::default() };
        let point = world.capture_exactly();
        assert_eq!((point.commit.stats.files, point.commit.stats.directories), (401 + 31, 15));
    }
}
