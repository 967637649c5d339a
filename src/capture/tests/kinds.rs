//! Every kind of file, name, attribute and size comes back exactly.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};

use crate::base::skip::skipped;
use crate::capture::testing::{World, is_root, noise, run, text};
use crate::capture::{Barrier, NotEntered};
use crate::format::entry::{Body, Content};
use crate::format::log::ProblemKind;

#[test]
fn every_kind_of_file_is_captured_exactly() {
    let world = World::new();
    let at = |name: &str| world.path(name);
    world.write("file", "content");
    world.write("dir/inner/file", "");
    symlink("dir/inner", at("link")).unwrap();
    symlink(OsStr::from_bytes(&[b'x'; 4095]), at("long link")).unwrap();
    symlink("/etc/shadow", at("link out")).unwrap();
    run("mkfifo", &[text(&at("fifo"))]);
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    run("chmod", &["4751", text(&at("file"))]);
    run("chmod", &["1777", text(&at("dir"))]);
    run("touch", &["-d", "1901-02-03 04:05:06.123456789", text(&at("dir/inner"))]);
    run("touch", &["-hd", "2201-02-03 04:05:06.987654321", text(&at("link"))]);
    if is_root() {
        run("mknod", &[text(&at("null")), "c", "1", "3"]);
        run("mknod", &[text(&at("block")), "b", "259", "70000"]);
        run("chown", &["-h", "1234:5678", text(&at("link")), text(&at("fifo"))]);
    } else {
        skipped("only root may make device nodes and give files away: run the tests as root");
    }
    let point = world.capture_exactly();
    let stats = point.commit.stats;
    assert_eq!((stats.files, stats.directories), (2, 3));
    assert_eq!(stats.others, if is_root() { 7 } else { 5 });
    assert_eq!(stats.bytes, 7);
    assert_eq!(world.capture_exactly().commit.roots, point.commit.roots, "and nothing of it changes by itself");
}

#[test]
fn attributes_acls_and_capabilities_are_captured() {
    let world = World::new();
    let at = |name: &str| world.path(name);
    world.write("file", "x");
    world.write("dir/file", "y");
    run("setfattr", &["-n", "user.colour", "-v", "amber", text(&at("file"))]);
    run("setfattr", &["-n", "user.empty", text(&at("file"))]);
    run("setfattr", &["-n", "user.big", "-v", &"v".repeat(2000), text(&at("dir"))]);
    run("setfacl", &["-m", "u:1234:rw,g:99:r", text(&at("file"))]);
    run("setfacl", &["-d", "-m", "u:1234:rwx", text(&at("dir"))]);
    if is_root() {
        symlink("nowhere", at("link")).unwrap();
        run("mkfifo", &[text(&at("fifo"))]);
        run("setcap", &["cap_net_raw+ep", text(&at("dir/file"))]);
        run("setfattr", &["-h", "-n", "trusted.on", "-v", "a link", text(&at("link"))]);
        run("setfattr", &["-n", "trusted.on", "-v", "a fifo", text(&at("fifo"))]);
    } else {
        skipped("only root may set capabilities and trusted attributes: run the tests as root");
    }
    let point = world.capture_exactly();
    // A change of attributes moves ctime alone, and is seen.
    run("setfattr", &["-n", "user.colour", "-v", "green", text(&at("file"))]);
    run("setfattr", &["-x", "user.big", text(&at("dir"))]);
    let next = world.capture_exactly();
    assert_eq!(next.commit.stats.new_bytes, 0);
    assert_ne!(next.commit.roots, point.commit.roots);
}

#[test]
fn names_are_bytes() {
    let world = World::new();
    for name in [&b"\xff\xfe"[..], b"new\nline", b" ", b"-rf", b"\\", &[b'n'; 255], "größe".as_bytes(), b"\x01"] {
        fs::write(world.root().join(OsStr::from_bytes(name)), name).unwrap();
        let dir = [b"d".as_slice(), &name[..name.len().min(254)]].concat();
        fs::create_dir(world.root().join(OsStr::from_bytes(&dir))).unwrap();
    }
    world.capture_exactly();
    world.capture_exactly();
}

#[test]
fn paths_beyond_path_max_are_captured_and_their_loss_too() {
    let world = World::new();
    let name = "n".repeat(250);
    let script = format!(
        "cd '{}' && for i in $(seq 30); do mkdir {name}; cd {name}; echo $i > file; mkdir side; echo $i > side/x; done",
        text(&world.root())
    );
    run("bash", &["-c", &script]);
    let point = world.capture_cleanly();
    let seen = world.seen(&point);
    let deepest = [vec![name.as_str(); 30], vec!["side", "x"]].concat().join("/");
    assert!(deepest.len() > 4096);
    assert_eq!(seen.get(&deepest).bytes, b"30\n");
    assert_eq!(point.commit.stats.files, 60);
    run("rm", &["-rf", text(&world.path(&name))]);
    let after = world.capture_exactly();
    assert_eq!((after.commit.stats.files, after.commit.stats.directories), (0, 1));
}

#[test]
fn files_of_all_sizes_are_captured_exactly() {
    let world = World::new();
    let sizes = [0, 1, 127, 128, 129, 4096, 65535, 65536, 65537, 131_073, 1 << 20, (1 << 20) + 1, 3 << 20, 9 << 20];
    for (seed, size) in sizes.into_iter().enumerate() {
        world.write(&format!("noise{size}"), noise(size, seed as u64));
        world.write(&format!("zeros{size}"), vec![0; size]);
    }
    let point = world.capture_exactly();
    let seen = world.seen(&point);
    let content = |name: &str| seen.get(name).entry.body.clone();
    assert!(matches!(content("noise0"), Body::File(Content::Hole)));
    assert!(matches!(content("noise128"), Body::File(Content::Inline(_))));
    assert!(matches!(content("noise129"), Body::File(Content::Extents(e)) if e.len() == 1));
    assert!(matches!(content("noise1048576"), Body::File(Content::Extents(e)) if e.len() == 1));
    assert!(matches!(content("noise9437184"), Body::File(Content::Mapped { .. })));
    assert_eq!(point.commit.stats.bytes, 2 * sizes.iter().sum::<usize>() as u64);
    assert_eq!(world.capture_exactly().commit.roots, point.commit.roots);
}

#[test]
fn holes_stay_holes_and_zeros_stay_data() {
    let world = World::new();
    let sparse = |name: &str, size: u64, data: &[(u64, usize)]| {
        let file = fs::File::create(world.path(name)).unwrap();
        for (offset, bytes) in data {
            file.write_all_at(&noise(*bytes, *offset), *offset).unwrap();
        }
        file.set_len(size).unwrap();
    };
    sparse("all hole, tiny", 100, &[]);
    sparse("all hole", 1 << 30, &[]);
    sparse("tail", 1 << 20, &[(0, 5000)]);
    sparse("head", 40_000, &[(20_000, 20_000)]);
    sparse("comb", 1 << 20, &(0..50).map(|i| (i * 16384, 100)).collect::<Vec<_>>());
    sparse("large comb", 40 << 20, &(0..30).map(|i| (i << 20, 300_000)).collect::<Vec<_>>());
    sparse("image", 3 << 30, &[(0, 70_000), (100 << 20, 1 << 20), ((1 << 30) + 12_288, 4096), (3 << 30, 0)]);
    fs::write(world.path("zeros"), vec![0; 300_000]).unwrap();
    let point = world.capture_exactly();
    let seen = world.seen(&point);
    assert_eq!(seen.get("image").entry.meta.size, 3 << 30);
    assert!(point.commit.stats.read_bytes < 16 << 20, "holes are not read");
    assert_eq!(seen.get("zeros").data, [(0, 300_000)]);
}

#[test]
fn attributes_too_large_to_store_are_told_at_every_capture_and_the_rest_is_kept() {
    if !is_root() {
        return skipped("only root may mount a filesystem that allows it: run the tests as root");
    }
    let world = World::new();
    let mount = world.dir.path().with_extension("mnt");
    fs::create_dir(&mount).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=64m", "tmpfs", text(&mount)]);
    fs::write(mount.join("file"), "x").unwrap();
    fs::write(mount.join("large"), noise(2 << 20, 1)).unwrap();
    fs::write(mount.join("linked"), noise(5000, 1)).unwrap();
    fs::hard_link(mount.join("linked"), mount.join("linked2")).unwrap();
    fs::create_dir(mount.join("dir")).unwrap();
    let script = format!(
        "head -c 60000 /dev/zero | tr '\\0' v > {0}/value; \
         for of in file large linked dir; do \
         for i in $(seq 24); do setfattr -n trusted.a$i -v $(cat {0}/value) {0}/$of || exit 1; done; done",
        text(&mount)
    );
    let made = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    let captured: Vec<_> = (0..3)
        .map(|_| {
            world.env.advance(std::time::Duration::from_secs(60));
            let progress = crate::capture::Progress::new();
            crate::capture::capture_tree(&world.repo, &world.log, &world.source, &mount, &world.options, &progress)
        })
        .collect();
    run("umount", &[text(&mount)]);
    fs::remove_dir(&mount).unwrap();
    if !made.status.success() {
        return skipped("the kernel's tmpfs does not keep a megabyte of attributes");
    }
    for outcome in captured {
        let outcome = outcome.unwrap();
        let mut told: Vec<_> = outcome.problems.iter().map(|problem| problem.path.escape_ascii().to_string()).collect();
        told.sort();
        assert_eq!(told, ["dir", "file", "large", "linked"], "{:?}", outcome.problems);
        assert!(outcome.problems.iter().all(|problem| problem.kind == ProblemKind::Unsupported));
        let seen = world.seen(&outcome.point);
        assert_eq!(seen.get("file").bytes, b"x");
        for path in ["file", "large", "linked2", "dir"] {
            assert!(!seen.get(path).entry.xattrs.is_empty(), "{path}");
        }
    }
}

#[test]
fn directories_that_are_not_entered_are_told() {
    if !is_root() {
        return skipped("only root may mount: run the tests as root");
    }
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        fs::create_dir_all(world.path(&format!("deep/{name}"))).unwrap();
        run("mount", &["-t", "tmpfs", "tmpfs", text(&world.path(&format!("deep/{name}")))]);
    }
    let one = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.capture()));
    world.options.cross_filesystems = true;
    let all = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.capture()));
    for name in ["a", "b", "c"] {
        run("umount", &[text(&world.path(&format!("deep/{name}")))]);
    }
    let other = |path: &[u8]| (path.to_vec(), Barrier::Filesystem);
    let first = vec![other(b"deep/a"), other(b"deep/b"), other(b"deep/c")];
    let one = one.unwrap();
    assert_eq!(one.not_entered, NotEntered { count: 3, first });
    assert_eq!(one.point.commit.stats.problems, 0, "it is what was asked for");
    assert_eq!(all.unwrap().not_entered, NotEntered::default());
}
