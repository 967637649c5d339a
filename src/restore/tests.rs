use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::directory::{Directory, Name};
use super::sys::{self, Handle};
use super::testing::{Builder, meta, repo_over, xattr};
use super::*;
use crate::base::skip::skipped;
use crate::base::sys::effective_uid;
use crate::base::{Class, Classed};
use crate::format::entry::{Body, Content, Entry, Meta};
use crate::format::log::Roots;
use crate::format::{ChunkRef, FileId, Key, SourceId};
use crate::repo::Repo;
use crate::store::Store;
use crate::view::PointView;

mod unfinished;

const ROOT: FileId = FileId::ROOT;

fn run(view: &PointView, target: &Path, options: &Options) -> Result<Outcome, RestoreError> {
    run_watched(view, target, options, &Progress::new())
}

fn run_watched(
    view: &PointView,
    target: &Path,
    options: &Options,
    progress: &Progress,
) -> Result<Outcome, RestoreError> {
    let root = view.root().unwrap();
    let wanted = Wanted { view, inode: &root, name: b"", title: "home#1" };
    restore(&wanted, target, options, progress)
}

#[track_caller]
fn clean(outcome: &Outcome) {
    assert_eq!(outcome.problems, [], "{outcome:#?}");
    assert!(outcome.complete);
    assert_eq!(outcome.failure(), None);
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// All names below `path`, relative to it, sorted.
fn names(path: &Path) -> Vec<String> {
    fn add(path: &Path, above: &str, into: &mut Vec<String>) {
        for item in fs::read_dir(path).unwrap() {
            let item = item.unwrap();
            let name = format!("{above}{}", item.file_name().to_string_lossy());
            if item.file_type().unwrap().is_dir() {
                add(&item.path(), &format!("{name}/"), into);
            }
            into.push(name);
        }
    }
    let mut all = Vec::new();
    add(path, "", &mut all);
    all.sort();
    all
}

#[track_caller]
fn assert_meta(path: &Path, entry: &Meta) {
    let found = fs::symlink_metadata(path).unwrap();
    if !found.is_symlink() {
        assert_eq!(found.mode() & 0o7777, u32::from(entry.permissions), "{path:?}");
    }
    assert_eq!((found.uid(), found.gid()), (entry.uid, entry.gid), "{path:?}");
    assert_eq!((found.mtime(), found.mtime_nsec()), (entry.mtime.seconds, i64::from(entry.mtime.nanos)), "{path:?}");
    // Whoever lists a directory, such as a test, changes when it was last accessed.
    if !found.is_dir() {
        assert_eq!(atime(path), (entry.atime.seconds, i64::from(entry.atime.nanos)), "{path:?}");
    }
}

fn atime(path: &Path) -> (i64, i64) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.atime(), found.atime_nsec())
}

/// Where `path` has data, by SEEK_DATA only.
fn data_at(path: &Path) -> Vec<u64> {
    let file = fs::File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        match sys::seek_data(&file, at).unwrap() {
            Some(data) => {
                found.push(data / 4096 * 4096);
                at = data / 4096 * 4096 + 4096;
            }
            None => break,
        }
    }
    found
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let above = Directory::at(path.parent().unwrap()).unwrap();
    let inode =
        sys::open_beneath(above.fd(), &sys::c_string(path.file_name().unwrap().as_bytes()).unwrap(), sys::INODE);
    sys::attribute(Handle::Path(inode.unwrap().as_fd()), &sys::c_string(name.as_bytes()).unwrap()).ok()
}

/// An ACL as the kernel takes it: owner, a named user, group, mask, others.
fn acl(user: u32, permissions: u16) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 6u16, u32::MAX), (2, permissions, user), (4, 4, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)]
    {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[test]
fn every_kind_of_file_comes_back_with_all_that_stat_shows() {
    let mut b = Builder::new();
    let data = noise(1, 8192);
    b.file(ROOT, "whole", &data);
    b.put(ROOT, "empty", 0o600, Body::File(Content::Hole));
    let inline = Body::File(Content::Inline(b"inline".to_vec()));
    b.entry(ROOT, b"inline", Entry { meta: Meta { size: 6, ..meta(0o444) }, xattrs: vec![], body: inline });
    let hole = Body::File(Content::Hole);
    b.entry(ROOT, b"hole", Entry { meta: Meta { size: 1 << 20, ..meta(0o644) }, xattrs: vec![], body: hole });
    let chunks = b.frame(&[&data[..4096], &data[4096..]]);
    let sparse = b.sparse(1 << 20, &[(8192, chunks[1]), (65536, chunks[0])]);
    b.entry(ROOT, b"sparse", sparse);
    let extents: Vec<(u64, ChunkRef)> = (0..7).map(|n| (n * 16384, chunks[(n % 2) as usize])).collect();
    let mapped = b.mapped(7 * 16384, &extents);
    b.entry(ROOT, b"mapped", mapped);
    let below = b.directory(ROOT, "below");
    b.put(below, "fifo", 0o640, Body::Fifo);
    b.put(below, "socket", 0o755, Body::Socket);
    b.put(below, "dangling", 0o777, Body::Symlink(b"/nowhere/\xff".to_vec()));
    b.entry(below, b"not \xff utf-8\n", Entry { meta: meta(0o4711), xattrs: vec![], body: Body::File(Content::Hole) });
    b.change(ROOT, "below", |entry| {
        entry.meta.permissions = 0o3555;
        entry.xattrs = vec![xattr("user.colour", b"red")];
    });
    b.change(ROOT, "whole", |entry| {
        entry.meta.permissions = 0o400;
        entry.meta.mtime.seconds = -5;
        entry.xattrs = vec![xattr("user.big", &noise(3, 300)), xattr("user.empty", b"")];
    });
    let root = effective_uid() == 0;
    if root {
        b.put(below, "null", 0o666, Body::CharDevice(1, 3));
        b.put(below, "disk", 0o660, Body::BlockDevice(259, 70_000));
        b.change(below, "fifo", |entry| (entry.meta.uid, entry.meta.gid) = (4242, 4343));
        b.change(below, "dangling", |entry| {
            (entry.meta.uid, entry.meta.gid) = (4242, 4343);
            entry.xattrs = vec![xattr("trusted.mark", b"on a link")];
        });
        // A program that may open raw sockets, and belongs to somebody.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        b.change(ROOT, "inline", |entry| {
            (entry.meta.uid, entry.meta.gid) = (4242, 4343);
            entry.meta.permissions = 0o6755;
            entry.xattrs = vec![xattr("security.capability", &capability)];
        });
    }
    b.change(ROOT, "sparse", |entry| {
        entry.meta.permissions = 0o670;
        entry.xattrs = vec![xattr("system.posix_acl_access", &acl(4242, 6))];
    });
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("target");
    let options = Options { verify: true, set_id: Some(true), ..Options::default() };
    let outcome = run(&view, &target, &options).unwrap();
    clean(&outcome);
    assert_eq!(outcome.counts.files, 7);
    assert_eq!(outcome.counts.verified, 7);
    assert_eq!(outcome.counts.directories, 2);

    for directory in [target.clone(), target.join("below")] {
        assert_eq!(atime(&directory), (1_000_000_002, 123_456_789));
    }
    let same = |name: &str, inode: &crate::view::Inode| assert_meta(&target.join(name), &inode.entry().meta);
    let all = names(&target);
    assert_eq!(all.len(), if root { 13 } else { 11 }, "{all:?}");
    let top = view.root().unwrap();
    assert_meta(&target, &top.entry().meta);
    for listed in view.list(&top, 0).unwrap() {
        let listed = listed.unwrap();
        same(std::str::from_utf8(&listed.name).unwrap(), &listed.inode.unwrap());
    }
    let below = view.lookup(&top, b"below").unwrap();
    for listed in view.list(&below, 0).unwrap() {
        let listed = listed.unwrap();
        let path = target.join("below").join(std::ffi::OsStr::from_bytes(&listed.name));
        assert_meta(&path, &listed.inode.unwrap().entry().meta);
    }
    assert_eq!(fs::read(target.join("whole")).unwrap(), data);
    assert_eq!(fs::read(target.join("inline")).unwrap(), b"inline");
    assert_eq!(data_at(&target.join("hole")), [0; 0]);
    assert_eq!(fs::metadata(target.join("hole")).unwrap().len(), 1 << 20);
    assert_eq!(data_at(&target.join("sparse")), [8192, 65536]);
    let read = fs::read(target.join("sparse")).unwrap();
    assert_eq!((&read[8192..12288], &read[65536..69632]), (&data[4096..], &data[..4096]));
    assert!(read[..8192].iter().all(|byte| *byte == 0) && read.len() == 1 << 20);
    assert_eq!(data_at(&target.join("mapped")), (0..7).map(|n| n * 16384).collect::<Vec<_>>());
    assert_eq!(fs::read_link(target.join("below/dangling")).unwrap().as_os_str().as_bytes(), b"/nowhere/\xff");
    assert!(fs::symlink_metadata(target.join("below/fifo")).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(target.join("below/socket")).unwrap().file_type().is_socket());
    assert_eq!(attribute(&target.join("whole"), "user.big").unwrap(), noise(3, 300));
    assert_eq!(attribute(&target.join("whole"), "user.empty").unwrap(), b"");
    assert_eq!(attribute(&target.join("below"), "user.colour").unwrap(), b"red");
    assert_eq!(attribute(&target.join("sparse"), "system.posix_acl_access").unwrap(), acl(4242, 6));
    if root {
        let null = fs::symlink_metadata(target.join("below/null")).unwrap();
        assert_eq!(null.rdev(), libc::makedev(1, 3));
        let disk = fs::symlink_metadata(target.join("below/disk")).unwrap();
        assert!(disk.file_type().is_block_device() && disk.rdev() == libc::makedev(259, 70_000));
        assert_eq!(attribute(&target.join("inline"), "security.capability").unwrap().len(), 20);
        assert_eq!(attribute(&target.join("below/dangling"), "trusted.mark").unwrap(), b"on a link");
    } else {
        skipped("device nodes, owners and capabilities need root");
    }
}

#[test]
fn a_large_file_is_written_by_several_threads() {
    let mut b = Builder::new();
    let parts: Vec<ChunkRef> = (0..8).map(|n| b.frame(&[&noise(n, 1 << 20)])[0]).collect();
    // Seven in eight of its stretches, and a hole at the end.
    let extents: Vec<(u64, ChunkRef)> =
        (0..80u64).filter(|n| n % 8 != 5).map(|n| (n << 20, parts[(n % 8) as usize])).collect();
    let large = b.mapped((80 << 20) + 5, &extents);
    b.entry(ROOT, b"large", large);
    let mut broken = extents.clone();
    broken[50].1.frame.hash.0[0] ^= 1;
    let broken = b.mapped(80 << 20, &broken);
    b.entry(ROOT, b"broken", broken);
    let mut crossed = extents.clone();
    // Into the next page, which begins where it should.
    crossed[41].0 += 1 << 19;
    let crossed = b.mapped(80 << 20, &crossed);
    b.entry(ROOT, b"crossed", crossed);
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    let options = Options { verify: true, workers: Some(3), ..Options::default() };
    let outcome = run(&b.view(), &target, &options).unwrap();
    let mut bad: Vec<_> = outcome.problems.iter().map(|problem| problem.path.clone()).collect();
    bad.sort();
    assert_eq!(bad, [b"broken".to_vec(), b"crossed".to_vec()], "{outcome:#?}");
    assert_eq!((outcome.counts.damaged, outcome.counts.verified, outcome.counts.bytes), (2, 1, 70 << 20));
    assert_eq!(names(&target), ["large"]);
    let read = fs::read(target.join("large")).unwrap();
    assert_eq!(read.len(), (80 << 20) + 5);
    assert!(read[77 << 20..78 << 20].iter().all(|byte| *byte == 0));
    assert!(read[78 << 20..79 << 20] == noise(6, 1 << 20));
    assert_eq!(data_at(&target.join("large")).len(), 70 << 8);
}

#[test]
fn hard_links_are_one_inode_again() {
    let mut b = Builder::new();
    let below = b.directory(ROOT, "below");
    let entry = b.regular(&noise(2, 9000));
    b.hard_links(&[(ROOT, "a"), (ROOT, "b"), (below, "c")], entry);
    let symlink = Entry { meta: meta(0o777), xattrs: vec![], body: Body::Symlink(b"x".to_vec()) };
    b.hard_links(&[(ROOT, "l1"), (below, "l2")], symlink);
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    let outcome = run(&view, &target, &Options { workers: Some(4), ..Options::default() }).unwrap();
    clean(&outcome);
    assert_eq!((outcome.counts.files, outcome.counts.links, outcome.counts.symlinks), (1, 3, 1));
    let inode = |name: &str| fs::symlink_metadata(target.join(name)).unwrap();
    assert_eq!(inode("a").nlink(), 3);
    assert!(inode("a").ino() == inode("b").ino() && inode("a").ino() == inode("below/c").ino());
    assert_eq!((inode("l1").nlink(), inode("l1").ino()), (2, inode("below/l2").ino()));
    assert_eq!(names(&target), ["a", "b", "below", "below/c", "below/l2", "l1"]);
    assert_meta(&target, &view.root().unwrap().entry().meta);
}

#[test]
fn a_target_with_other_things_in_it_is_refused() {
    let mut b = Builder::new();
    b.file(ROOT, "f", b"data that is long enough for a chunk of its own");
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("mine"), "mine").unwrap();
    let error = run(&view, scratch.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, RestoreError::NotEmpty { .. }), "{error}");
    assert_eq!(error.class(), Class::Conflict);
    let dry = Options { dry_run: true, ..Options::default() };
    assert!(matches!(run(&view, scratch.path(), &dry), Err(RestoreError::NotEmpty { .. })));
    assert_eq!(names(scratch.path()), ["mine"]);
    let error = run(&view, &scratch.path().join("no/such"), &Options::default()).unwrap_err();
    assert!(matches!(error, RestoreError::Target { .. }), "{error}");
    let error = run(&view, &scratch.path().join("mine"), &Options::default()).unwrap_err();
    assert!(matches!(error, RestoreError::Target { .. }), "{error}");
    // A new filesystem is not empty either, and counts as such.
    fs::remove_file(scratch.path().join("mine")).unwrap();
    fs::create_dir(scratch.path().join("lost+found")).unwrap();
    clean(&run(&view, scratch.path(), &Options::default()).unwrap());
    assert_eq!(names(scratch.path()), ["f", "lost+found"]);
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let mut b = Builder::new();
    b.file(ROOT, "f", &noise(1, 5000));
    b.directory(ROOT, "d");
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    let outcome = run(&view, &target, &Options { dry_run: true, ..Options::default() }).unwrap();
    assert_eq!((outcome.counts.files, outcome.counts.bytes, outcome.counts.directories), (1, 5000, 2));
    assert!(!target.exists());
}

#[test]
fn force_replaces_what_has_the_same_names_and_follows_no_link() {
    let mut b = Builder::new();
    for name in ["plain", "link", "full", "hollow"] {
        b.file(ROOT, name, &noise(1, 5000));
    }
    for name in ["dir", "dirlink", "dirfile"] {
        let id = b.directory(ROOT, name);
        b.file(id, "in", &noise(2, 5000));
    }
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    let target = scratch.path().join("t");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    for name in ["dir", "full", "hollow"] {
        fs::create_dir_all(target.join(name)).unwrap();
    }
    fs::write(target.join("plain"), "old").unwrap();
    fs::write(target.join("dir/other"), "kept").unwrap();
    fs::write(target.join("full/other"), "kept").unwrap();
    fs::write(target.join("dirfile"), "old").unwrap();
    symlink(outside.join("victim"), target.join("link")).unwrap();
    symlink(&outside, target.join("dirlink")).unwrap();
    let outcome = run(&view, &target, &Options { force: true, verify: true, ..Options::default() }).unwrap();
    // A directory with something in it is nobody's to remove.
    let told: Vec<_> = outcome.problems.iter().map(|p| (p.path.as_slice(), p.class)).collect();
    assert!(told.contains(&(b"full".as_slice(), Class::Conflict)), "{outcome:#?}");
    assert!(told.iter().all(|(path, _)| *path == b"full"), "{outcome:#?}");
    let expected = [
        "dir",
        "dir/in",
        "dir/other",
        "dirfile",
        "dirfile/in",
        "dirlink",
        "dirlink/in",
        "full",
        "full/other",
        "hollow",
        "link",
        "plain",
    ];
    assert_eq!(names(&target), expected);
    assert_eq!(names(&outside), ["victim"]);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"untouched");
    for name in ["plain", "link", "hollow"] {
        assert!(fs::symlink_metadata(target.join(name)).unwrap().is_file());
        assert_eq!(fs::read(target.join(name)).unwrap(), noise(1, 5000));
    }
    assert_meta(&target.join("dir"), &meta(0o755));
}

#[test]
fn what_the_point_links_to_is_not_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut b = Builder::new();
    b.put(ROOT, "a", 0o777, Body::Symlink(outside.as_os_str().as_bytes().to_vec()));
    b.put(ROOT, "up", 0o777, Body::Symlink(b"..".to_vec()));
    let below = b.directory(ROOT, "b");
    b.put(below, "c", 0o777, Body::Symlink(b"../../outside/new".to_vec()));
    let view = b.view();
    let target = scratch.path().join("t");
    clean(&run(&view, &target, &Options::default()).unwrap());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let before = fs::symlink_metadata(&outside).unwrap();
    assert_ne!(before.mtime(), 1_000_000_000);
    // Once more, over the links that are there now.
    let mut b = Builder::new();
    let a = b.directory(ROOT, "a");
    b.file(a, "f", &noise(1, 5000));
    b.file(ROOT, "up", &noise(1, 5000));
    clean(&run(&b.view(), &target, &Options { force: true, ..Options::default() }).unwrap());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(names(&target), ["a", "a/f", "b", "b/c", "up"]);
}

#[test]
fn damage_costs_the_damaged_file_and_no_other() {
    let mut b = Builder::new();
    b.file(ROOT, "good", &noise(1, 5000));
    let mut chunk = b.frame(&[&noise(2, 5000)])[0];
    chunk.frame.hash.0[3] ^= 1;
    let bad = b.sparse(5000, &[(0, chunk)]);
    b.entry(ROOT, b"bad", bad.clone());
    b.hard_links(&[(ROOT, "bad1"), (ROOT, "bad2")], bad);
    let mut chunk = b.frame(&[&noise(3, 5000)])[0];
    // Pages that contradict one another: each of them is as it may be.
    let overlap = b.mapped(14_000, &[(0, chunk), (5000, chunk), (9000, chunk)]);
    b.entry(ROOT, b"overlap", overlap);
    chunk.frame.pack.ordinal.0 += 1;
    let gone = b.sparse(5000, &[(0, chunk)]);
    b.entry(ROOT, b"gone", gone);
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let outcome = run(&view, &scratch.path().join("t"), &Options { verify: true, ..Options::default() }).unwrap();
    let mut bad: Vec<_> = outcome.problems.iter().map(|p| (String::from_utf8_lossy(&p.path), p.class)).collect();
    bad.sort_by(|a, b| a.0.cmp(&b.0));
    let corrupt = |name: &'static str| (name.into(), Class::Corrupt);
    assert_eq!(bad, ["bad", "bad1", "bad2", "gone", "overlap"].map(corrupt), "{outcome:#?}");
    assert_eq!(outcome.failure(), Some(Class::Corrupt));
    assert_eq!((outcome.counts.damaged, outcome.counts.verified), (5, 1));
    assert_eq!(names(&scratch.path().join("t")), ["good"]);
    let told = outcome.problems.iter().find(|problem| problem.path == b"bad").unwrap();
    assert!(told.detail.contains(".pack"), "{outcome:#?}");
}

#[test]
fn a_tree_that_leads_in_circles_ends() {
    let mut b = Builder::new();
    let dir = b.directory(ROOT, "d");
    b.put(dir, "again", 0o755, Body::Directory { id: dir, parent: Key::root() });
    b.put(dir, "top", 0o755, Body::Directory { id: ROOT, parent: Key::root() });
    let scratch = tempfile::tempdir().unwrap();
    let error = run(&b.view(), &scratch.path().join("t"), &Options::default()).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt, "{error}");
    assert!(error.to_string().contains("circles"), "{error}");
}

#[test]
fn a_link_to_a_missing_inode_is_told_by_its_name() {
    let mut b = Builder::new();
    let dir = b.directory(ROOT, "d");
    b.entry(dir, b"lost", Entry { meta: Meta::default(), xattrs: vec![], body: Body::Link(FileId(999)) });
    b.file(dir, "a", &noise(1, 5000));
    b.file(dir, "z", &noise(2, 5000));
    let scratch = tempfile::tempdir().unwrap();
    let outcome = run(&b.view(), &scratch.path().join("t"), &Options::default()).unwrap();
    assert_eq!(outcome.problems.len(), 1, "{outcome:#?}");
    assert_eq!(outcome.problems[0].path, b"d/lost");
    assert_eq!(outcome.failure(), Some(Class::Corrupt));
    assert_eq!(names(&scratch.path().join("t")), ["d", "d/a", "d/z"]);
}

#[test]
fn paths_of_any_depth_are_restored() {
    let mut b = Builder::new();
    let mut dir = ROOT;
    let name = "n".repeat(255);
    for _ in 0..120 {
        dir = b.directory(dir, &name);
    }
    b.file(dir, "f", &noise(1, 5000));
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    clean(&run(&b.view(), &target, &Options { verify: true, ..Options::default() }).unwrap());
    let mut here = Directory::at(&target).unwrap();
    let name = Name::new(name.as_bytes()).unwrap();
    for _ in 0..120 {
        here = here.open_dir(&name).unwrap();
    }
    assert_eq!(here.stat(&Name::new(b"f").unwrap()).unwrap().unwrap().size, 5000);
    // std cannot remove what it cannot name.
    assert!(std::process::Command::new("rm").arg("-rf").arg(&target).status().unwrap().success());
}

#[test]
fn a_default_acl_of_the_target_is_not_inherited() {
    let mut b = Builder::new();
    let dir = b.directory(ROOT, "d");
    b.file(dir, "f", &noise(1, 5000));
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    fs::create_dir(&target).unwrap();
    let open = Directory::at(&target).unwrap();
    let name = sys::c_string(b"system.posix_acl_default").unwrap();
    sys::set_attribute(Handle::Open(open.fd()), &name, &acl(4242, 7)).unwrap();
    clean(&run(&view, &target, &Options::default()).unwrap());
    for path in ["", "d", "d/f"] {
        for acl in ["system.posix_acl_access", "system.posix_acl_default"] {
            assert_eq!(attribute(&target.join(path), acl), None, "{path} {acl}");
        }
    }
    assert_meta(&target.join("d/f"), &Meta { size: 5000, ..meta(0o644) });
}

#[test]
fn set_id_bits_and_special_files_are_left_out_as_asked() {
    let mut b = Builder::new();
    b.put(ROOT, "program", 0o6755, Body::File(Content::Hole));
    b.change(ROOT, "program", |entry| entry.meta.uid = 4242);
    b.put(ROOT, "fifo", 0o644, Body::Fifo);
    b.put(ROOT, "null", 0o644, Body::CharDevice(1, 3));
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("t");
    let options = Options { owner: Some(false), no_special: true, ..Options::default() };
    let outcome = run(&view, &target, &options).unwrap();
    clean(&outcome);
    let counts = &outcome.counts;
    assert_eq!((counts.left_owners, counts.left_set_ids, counts.left_specials), (1, 1, 2));
    let program = fs::metadata(target.join("program")).unwrap();
    assert_eq!((program.mode() & 0o7777, program.uid()), (0o755, effective_uid()));
    assert_eq!(names(&target), ["program"]);
}

#[test]
fn a_single_file_goes_beside_what_is_there() {
    let mut b = Builder::new();
    let dir = b.directory(ROOT, "etc");
    b.file(dir, "passwd", &noise(1, 5000));
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path();
    fs::write(target.join("other"), "kept").unwrap();
    let before = fs::metadata(target).unwrap().mode();
    let inode = view.walk([b"etc".as_slice(), b"passwd"]).unwrap();
    let wanted = Wanted { view: &view, inode: &inode, name: b"passwd", title: "home#1:etc/passwd" };
    let verify = Options { verify: true, ..Options::default() };
    let outcome = restore(&wanted, target, &verify, &Progress::new()).unwrap();
    clean(&outcome);
    assert_eq!((outcome.counts.files, outcome.counts.verified), (1, 1));
    assert_eq!(names(target), ["other", "passwd"]);
    assert_eq!(fs::read(target.join("passwd")).unwrap(), noise(1, 5000));
    assert_eq!(fs::metadata(target).unwrap().mode(), before);
    fs::write(target.join("passwd"), "newer").unwrap();
    let error = restore(&wanted, target, &Options::default(), &Progress::new()).unwrap_err();
    assert!(matches!(error, RestoreError::Exists { .. }), "{error}");
    assert_eq!(names(target), ["other", "passwd"]);
    assert_eq!(fs::read(target.join("passwd")).unwrap(), b"newer");
    let force = Options { force: true, ..Options::default() };
    clean(&restore(&wanted, target, &force, &Progress::new()).unwrap());
    assert_eq!(fs::read(target.join("passwd")).unwrap(), noise(1, 5000));
    // A directory below: the target becomes it.
    let inode = view.walk([b"etc".as_slice()]).unwrap();
    let wanted = Wanted { view: &view, inode: &inode, name: b"etc", title: "home#1:etc" };
    let below = target.join("etc");
    clean(&restore(&wanted, &below, &Options::default(), &Progress::new()).unwrap());
    assert_eq!(names(&below), ["passwd"]);
    assert_meta(&below, &inode.entry().meta);
}

#[test]
fn each_frame_is_read_once() {
    let store = Store::memory();
    let repo = repo_over(store.clone());
    let mut b = Builder::over(&repo);
    // Names whose order is not that of their contents: 40 frames of 50 files each.
    let mut frames = 0;
    for frame in 0..40u8 {
        let parts: Vec<Vec<u8>> = (0..50u8).map(|n| [noise(frame, 100), noise(n, 100)].concat()).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        frames += 1;
        for (n, chunk) in b.frame(&parts).into_iter().enumerate() {
            let entry = b.sparse(200, &[(0, chunk)]);
            b.entry(ROOT, format!("f{n}-{frame}").as_bytes(), entry);
        }
    }
    let view = b.view();
    assert_eq!(view.entries().scan(0).count(), 2001);
    let scratch = tempfile::tempdir().unwrap();
    let before = store.meter().snapshot();
    clean(&run(&view, &scratch.path().join("t"), &Options::default()).unwrap());
    let read = store.meter().snapshot().since(&before);
    assert_eq!(read.requests(), frames);
}

#[test]
fn a_restore_into_the_repository_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("repo");
    let repo = repo_over(Store::create_local(&place).unwrap());
    let mut b = Builder::over(&repo);
    b.file(ROOT, "f", &noise(1, 5000));
    let view = b.view();
    let before = names(&place);
    fs::create_dir(place.join("sub")).unwrap();
    for target in [place.clone(), place.join("sub")] {
        let error = run(&view, &target, &Options { force: true, ..Options::default() }).unwrap_err();
        assert!(matches!(error, RestoreError::InsideRepository { .. }), "{error}");
    }
    fs::remove_dir(place.join("sub")).unwrap();
    assert_eq!(names(&place), before);
}

/// Swaps a directory of the target for a link to elsewhere and back, again and again, until told to end.
fn swap_until(end: &std::sync::atomic::AtomicBool, target: &Path, outside: &Path) -> u64 {
    let (real, aside) = (target.join("d"), target.join("d.aside"));
    let mut swaps = 0;
    while !end.load(std::sync::atomic::Ordering::Relaxed) {
        if fs::rename(&real, &aside).is_ok() && symlink(outside, &real).is_ok() {
            swaps += 1;
        }
        // The restore may have been quicker to make a directory here: then that one is used from now on.
        if fs::remove_file(&real).is_ok() {
            drop(fs::rename(&aside, &real));
        } else {
            drop(fs::remove_dir_all(&aside));
        }
    }
    swaps
}

#[test]
fn a_link_that_is_swapped_in_meanwhile_leads_nowhere() {
    let mut b = Builder::new();
    let dir = b.directory(ROOT, "d");
    for n in 0..30u8 {
        b.file(dir, &format!("f{n}"), &noise(n, 500));
        let below = b.directory(dir, &format!("e{n}"));
        b.put(below, "s", 0o777, Body::Symlink(b"/x".to_vec()));
    }
    let view = b.view();
    let scratch = tempfile::tempdir().unwrap();
    let (target, outside) = (scratch.path().join("t"), scratch.path().join("outside"));
    fs::create_dir_all(target.join("d")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f1"), "untouched").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o711)).unwrap();
    let state = |path: &Path| {
        let stat = fs::symlink_metadata(path).unwrap();
        (stat.ino(), stat.mode(), stat.uid(), stat.mtime_nsec(), stat.ctime_nsec())
    };
    let before = (state(&outside), state(&outside.join("f1")));
    let end = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| swap_until(&end, &target, &outside));
        for _ in 0..20 {
            // Whether it succeeds is the swapper's doing.
            drop(run(&view, &target, &Options { force: true, ..Options::default() }));
        }
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(swapper.join().unwrap() > 0);
    });
    assert_eq!(names(&outside), ["f1"]);
    assert_eq!((state(&outside), state(&outside.join("f1"))), before);
}

#[test]
fn names_in_a_damaged_leaf_are_lost_and_those_behind_it_are_not() {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("repo");
    let repo = repo_over(Store::create_local(&place).unwrap());
    let mut b = Builder::over(&repo);
    let all = 3000;
    for n in 0..all {
        // Names that do not compress, so that the pack is mostly leaves.
        let name: String = noise((n % 251) as u8, 40).iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        b.put(ROOT, &format!("{n}-{name}"), 0o644, Body::File(Content::Hole));
    }
    let roots = Roots { entries: *b.view().entries().root().unwrap(), maps: None, usage: None };
    let found = std::process::Command::new("find").arg(&place).args(["-name", "*.pack"]).output().unwrap();
    let pack = String::from_utf8(found.stdout).unwrap();
    let pack = Path::new(pack.trim_end());
    let mut bytes = fs::read(pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(pack, bytes).unwrap();

    let repo = Repo::open(Store::local(&place).unwrap(), repo.env().clone()).unwrap();
    let view = PointView::new(&repo, SourceId(1), &roots);
    let target = scratch.path().join("t");
    let outcome = run(&view, &target, &Options::default()).unwrap();
    assert_eq!(outcome.failure(), Some(Class::Corrupt));
    assert_eq!(outcome.problems.len(), 1, "{outcome:#?}");
    let problem = &outcome.problems[0];
    assert!(problem.path.is_empty() && problem.detail.contains(".pack"), "{outcome:#?}");
    // One leaf of many, from its first name to its last.
    let restored = names(&target);
    assert_eq!(restored.len() as u64, outcome.counts.files);
    assert!(restored.len() < all && restored.len() > all - 600, "{} of {all}", restored.len());
    let mut wanted: Vec<String> = (0..all).map(|n| n.to_string()).collect();
    wanted.sort_by_key(|n| format!("{n}-"));
    let has = |n: &String| restored.iter().any(|name| name.starts_with(&format!("{n}-")));
    assert!(has(&wanted[0]) && has(&wanted[all - 1]));
    let lost: Vec<usize> = (0..all).filter(|place| !has(&wanted[*place])).collect();
    assert_eq!(lost.len(), lost[lost.len() - 1] - lost[0] + 1, "names outside the leaf are missing");
}
