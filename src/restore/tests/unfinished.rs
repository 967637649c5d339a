//! Restores that end before they are through, and what may be done with their targets.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;

/// A target with many small files, and the number of them.
fn many() -> (Builder, u64) {
    let mut b = Builder::new();
    for d in 0..10u8 {
        let dir = b.directory(ROOT, &format!("d{d}"));
        let parts: Vec<Vec<u8>> = (0..20).map(|n| noise(d * 20 + n, 1000)).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        for (n, chunk) in b.frame(&parts).into_iter().enumerate() {
            let entry = b.sparse(1000, &[(0, chunk)]);
            b.entry(dir, format!("f{n}").as_bytes(), entry);
        }
        let shared = b.regular(&noise(250, 1000));
        b.hard_links(&[(dir, "x1"), (dir, "x2")], shared);
        b.put(dir, "s", 0o777, Body::Symlink(b"f1".to_vec()));
        b.change(ROOT, &format!("d{d}"), |entry| entry.meta.permissions = 0o555);
    }
    (b, 10 * 23)
}

/// Stops a restore of `view` into `target` behind so many names.
fn interrupt(view: &PointView, target: &Path, files: u64) {
    let progress = Progress::cancelled_behind(files);
    let result = run_watched(view, target, &Options { workers: Some(1), ..Options::default() }, &progress);
    assert!(matches!(result, Err(RestoreError::Cancelled)), "behind {files}: {result:?}");
}

#[test]
fn an_interrupted_restore_goes_on_where_it_was() {
    let (b, all) = many();
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    for files in [0, 30, 90, 150] {
        interrupt(&view, &target, files);
    }
    // Whoever looks meanwhile cannot mistake it for a whole one, and no other restore may use it.
    let mut other = Builder::new();
    other.file(ROOT, "f", b"something else altogether");
    let other = other.view();
    let refused = run(&other, &target, &Options::default());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("holds an unfinished restore of home#1: finish it"), "{refused}");
    let outcome = run(&view, &target, &Options { verify: true, ..Options::default() }).unwrap();
    clean(&outcome);
    assert!(outcome.resumed && outcome.counts.kept > 0, "{outcome:#?}");
    let counts = &outcome.counts;
    assert_eq!(counts.kept + counts.files + counts.links + counts.symlinks, all);
    assert_eq!(counts.verified, 10 * 22);
    assert_eq!(names(&target).len() as u64, all + 10);
    assert_eq!(fs::metadata(target.join("d3/x1")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(target.join("d3/x1")).unwrap().ino(), fs::metadata(target.join("d3/x2")).unwrap().ino());
    assert_meta(&target.join("d3"), &meta(0o555));
    assert_meta(&target, &view.root().unwrap().entry().meta);
}

#[test]
fn another_restore_by_force_takes_over_without_leavings() {
    let (b, _) = many();
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    interrupt(&view, &target, 40);
    // As a killed process leaves it: with a file half written.
    let claim = names(&target).into_iter().find(|name| name.starts_with(".amberfs-restore-")).unwrap();
    let claim = claim.split('/').next().unwrap().to_owned();
    fs::write(target.join(format!("d0/{claim}-7")), "half").unwrap();
    let mut other = Builder::new();
    other.file(ROOT, "f", b"something else altogether, and long");
    let outcome = run(&other.view(), &target, &Options { force: true, ..Options::default() }).unwrap();
    clean(&outcome);
    assert!(!outcome.resumed);
    assert!(names(&target).iter().all(|name| !name.contains(".amberfs")), "{:?}", names(&target));
}

#[test]
fn what_was_there_before_a_forced_restore_is_not_taken_for_finished() {
    let (b, _) = many();
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    clean(&run(&view, &target, &Options::default()).unwrap());
    // Wrong bytes with the right size and times.
    let victim = target.join("d9/f7");
    fs::write(&victim, [7; 1000]).unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::open(&victim).unwrap();
    sys::set_times(Handle::Open(file.as_fd()), meta(0).atime, meta(0).mtime).unwrap();
    let progress = Progress::new();
    progress.cancel();
    let force = Options { force: true, ..Options::default() };
    assert!(matches!(run_watched(&view, &target, &force, &progress), Err(RestoreError::Cancelled)));
    let outcome = run(&view, &target, &Options::default()).unwrap();
    clean(&outcome);
    assert!(outcome.resumed);
    assert_eq!(fs::read(&victim).unwrap(), noise(9 * 20 + 7, 1000));
}

#[test]
fn only_one_restore_at_a_time_has_a_target() {
    let (b, _) = many();
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    interrupt(&view, &target, 10);
    let claim = names(&target).into_iter().find(|name| name.ends_with("/lock")).unwrap();
    let lock = fs::File::open(target.join(claim)).unwrap();
    lock.try_lock().unwrap();
    for force in [false, true] {
        let error = run(&view, &target, &Options { force, ..Options::default() }).unwrap_err();
        assert!(matches!(error, RestoreError::Busy { .. }), "{error}");
    }
    drop(lock);
    clean(&run(&view, &target, &Options::default()).unwrap());
}

#[test]
fn a_claim_that_never_began_is_cleared_and_a_foreign_one_is_not() {
    let mut b = Builder::new();
    b.file(ROOT, "f", &noise(1, 5000));
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let dead = scratch.path().join(".amberfs-restore-0000");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    clean(&run(&view, scratch.path(), &Options::default()).unwrap());
    assert_eq!(names(scratch.path()), ["f"]);
    let scratch = tempfile::tempdir().unwrap();
    let foreign = scratch.path().join(".amberfs-restore-0000");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("mine"), "").unwrap();
    fs::write(foreign.join("state"), "{}").unwrap();
    assert!(matches!(run(&view, scratch.path(), &Options::default()), Err(RestoreError::NotEmpty { .. })));
    assert!(foreign.join("mine").exists());
}
