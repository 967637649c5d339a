//! Disks as points: images, and block devices by loop.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::base::Classed;
use crate::capture::testing::{World, noise, run, text};
use crate::capture::{CaptureError, Outcome, Progress, capture_disk};
use crate::format::log::{DISK_NAME, Method, SourceKind, Stillness};
use crate::store::Store;

const CELL: u64 = 64 << 10;

fn world() -> World {
    World::over(Store::memory(), SourceKind::Disk)
}

fn capture(world: &World, path: &Path) -> Result<Outcome, CaptureError> {
    world.env.advance(std::time::Duration::from_secs(60));
    let outcome = capture_disk(&world.repo, &world.log, &world.source, path, &world.options, &Progress::new())?;
    assert_eq!(world.seen(&outcome.point).paths(), ["", DISK_NAME]);
    Ok(outcome)
}

/// Captures the image and holds the point against it, byte by byte.
fn capture_exactly(world: &World, path: &Path) -> Outcome {
    let outcome = capture(world, path).unwrap();
    let expected = std::fs::read(path).unwrap();
    assert!(content(world, &outcome) == expected, "{}", outcome.point.commit.reason);
    let facts = outcome.point.commit.disk.clone().unwrap();
    assert_eq!((facts.bytes, facts.sector_bytes), (expected.len() as u64, 512));
    outcome
}

/// All bytes of the point's disk; no cell of it is zeros.
fn content(world: &World, outcome: &Outcome) -> Vec<u8> {
    let seen = world.seen(&outcome.point);
    let file = seen.get(DISK_NAME);
    assert_eq!(file.entry.meta.permissions, 0o400);
    let mut whole = vec![0; usize::try_from(file.entry.meta.size).unwrap()];
    let mut rest = file.bytes.as_slice();
    for stretch in &file.data {
        let (start, end) = (usize::try_from(stretch.0).unwrap(), usize::try_from(stretch.1).unwrap());
        let (part, behind) = rest.split_at(end - start);
        whole[start..end].copy_from_slice(part);
        rest = behind;
        let cell = outcome.point.commit.disk.as_ref().unwrap().chunk_bytes as usize;
        assert!(part.chunks(cell).all(|cell| cell.iter().any(|byte| *byte != 0)), "a cell of zeros is a hole");
    }
    whole
}

fn image(world: &World, bytes: u64) -> (PathBuf, File) {
    let path = world.path("disk.img");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.set_len(bytes).unwrap();
    (path, file)
}

#[test]
fn what_changed_is_read_and_stored_and_nothing_else() {
    let world = world();
    let (path, file) = image(&world, 3 * (16 << 20) + 1000);
    file.write_all_at(&noise(5 << 20, 1), 0).unwrap();
    file.write_all_at(&noise(700, 2), 3 * (16 << 20) + 300).unwrap();
    // Allocated zeros are zeros.
    file.write_all_at(&vec![0; 1 << 20], 20 << 20).unwrap();
    let full = capture_exactly(&world, &path);
    let facts = full.point.commit.disk.clone().unwrap();
    assert_eq!((facts.method, facts.stillness), (Method::Everything, Stillness::Still));
    // The last cell is shorter than the others.
    assert_eq!(facts.changed_bytes, (5 << 20) + 1000);
    assert_eq!(full.point.commit.stats.new_bytes, (5 << 20) + 1000);
    assert_eq!(full.point.commit.stats.read_bytes, (6 << 20) + 1000);

    let same = capture_exactly(&world, &path);
    let stats = same.point.commit.stats;
    assert_eq!(same.point.commit.disk.clone().unwrap().method, Method::Untouched);
    assert_eq!((same.changed, stats.read_bytes, stats.new_bytes), (false, 0, 0));
    assert_eq!(same.point.commit.roots, full.point.commit.roots);

    file.write_all_at(b"x", CELL + 5).unwrap();
    file.write_all_at(b"y", 30 << 20).unwrap();
    let incremental = capture_exactly(&world, &path);
    let (stats, facts) = (incremental.point.commit.stats, incremental.point.commit.disk.clone().unwrap());
    assert_eq!((facts.method, facts.changed_bytes, stats.new_bytes), (Method::Compared, 2 * CELL, 2 * CELL));
    assert_eq!(incremental.parent.as_deref(), Some(same.point.name()));
    assert!(stats.stored_bytes < 3 * CELL, "{}", stats.stored_bytes);

    // Written and zeroed again: nothing new, one cell changed.
    file.write_all_at(&vec![0; usize::try_from(CELL).unwrap()], 30 << 20).unwrap();
    let zeroed = capture_exactly(&world, &path);
    let (stats, facts) = (zeroed.point.commit.stats, zeroed.point.commit.disk.clone().unwrap());
    assert_eq!((facts.changed_bytes, stats.new_bytes), (CELL, 0));
}

#[test]
fn a_resized_disk_goes_on_in_its_chain() {
    let world = world();
    let (path, file) = image(&world, 40 * CELL + 10);
    file.write_all_at(&noise(usize::try_from(40 * CELL + 10).unwrap(), 1), 0).unwrap();
    let full = capture_exactly(&world, &path);
    for (bytes, new) in [(60 * CELL, CELL), (20 * CELL + 7, 7), (20 * CELL + 7, 0), (0, 0), (50 * CELL, 0), (CELL, 0)] {
        file.set_len(bytes).unwrap();
        let outcome = capture_exactly(&world, &path);
        assert_eq!(outcome.point.chain(), full.point.chain());
        assert_eq!(outcome.point.commit.stats.new_bytes, new, "{bytes}");
    }
}

#[test]
fn a_chain_has_one_size_of_chunks_and_as_many_points_as_it_may() {
    let mut world = world();
    let (path, file) = image(&world, 10 << 20);
    file.write_all_at(&noise(3 << 20, 1), 1 << 20).unwrap();
    for (chunk_bytes, reason) in [
        (1 << 20, "full: first capture"),
        (1 << 20, "incremental: parent "),
        (16 << 10, "full: the chunks of point "),
        (16 << 10, "incremental: parent "),
    ] {
        world.options.disk_chunk_bytes = Some(chunk_bytes);
        let outcome = capture_exactly(&world, &path);
        assert!(outcome.point.commit.reason.starts_with(reason), "{}", outcome.point.commit.reason);
    }
    world.options.chain_max_points = std::num::NonZeroU32::new(3);
    let reasons = [0; 4].map(|_| capture_exactly(&world, &path).point.commit.reason.clone());
    let full: Vec<bool> = reasons.iter().map(|reason| reason.starts_with("full: chain ")).collect();
    assert_eq!(full, [false, true, false, false], "{reasons:?}");
    for wrong in [0, 4096, 65_537, 2 << 20] {
        world.options.disk_chunk_bytes = Some(wrong);
        let error = capture(&world, &path).unwrap_err();
        assert!(matches!(error, CaptureError::ChunkBytes { given } if given == wrong), "{error}");
    }
}

#[test]
fn a_disk_of_two_tebibytes_with_little_in_it_is_captured_at_once() {
    let world = world();
    let (path, file) = image(&world, 2 << 40);
    for (at, seed) in [(0, 1), (1 << 40, 2), ((2 << 40) - CELL, 3)] {
        file.write_all_at(&noise(usize::try_from(CELL).unwrap(), seed), at).unwrap();
    }
    for (method, new_bytes) in [(Method::Everything, 3 * CELL), (Method::Compared, CELL)] {
        let outcome = capture(&world, &path).unwrap();
        let commit = &outcome.point.commit;
        assert_eq!(commit.disk.as_ref().unwrap().method, method);
        assert_eq!((commit.stats.bytes, commit.stats.new_bytes), (2 << 40, new_bytes));
        let seen = world.seen(&outcome.point);
        let file_seen = seen.get(DISK_NAME);
        for (at, bytes) in file_seen.data.iter().zip(file_seen.bytes.chunks(usize::try_from(CELL).unwrap())) {
            let mut expected = vec![0; bytes.len()];
            file.read_exact_at(&mut expected, at.0).unwrap();
            assert!(bytes == expected);
        }
        file.write_all_at(&noise(usize::try_from(CELL).unwrap(), 9), 3 << 39).unwrap();
    }
}

#[test]
fn what_is_no_disk_is_refused() {
    let world = world();
    std::fs::create_dir(world.path("dir")).unwrap();
    run("mkfifo", &[text(&world.path("fifo"))]);
    for name in ["dir", "fifo", "none", "/dev/null"] {
        let error = capture(&world, &world.path(name)).unwrap_err();
        assert!(matches!(error, CaptureError::Disk { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(world.log.refresh().unwrap().points().is_empty());
    let tree = World::new();
    let (path, _) = image(&tree, 100);
    let error = capture_disk(&tree.repo, &tree.log, &tree.source, &path, &tree.options, &Progress::new()).unwrap_err();
    assert_eq!(error.class(), crate::base::Class::Invalid);
    assert!(error.to_string().contains("is a tree: capture it without --disk"), "{error}");
}

/// A loop device over an image, and what is mounted from it; both end with the test.
struct Loop {
    device: PathBuf,
    mounted: Option<PathBuf>,
}

impl Loop {
    fn new(image: &Path) -> Loop {
        let made = Command::new("losetup").args(["--find", "--show", text(image)]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Loop { device: PathBuf::from(String::from_utf8(made.stdout).unwrap().trim()), mounted: None }
    }

    fn mount(&mut self, at: &Path, options: &str) {
        std::fs::create_dir_all(at).unwrap();
        run("mount", &["-o", options, text(&self.device), text(at)]);
        self.mounted = Some(at.to_owned());
    }

    fn umount(&mut self) {
        if let Some(at) = self.mounted.take() {
            run("umount", &[text(&at)]);
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.umount();
        run("losetup", &["--detach", text(&self.device)]);
    }
}

/// Whether there are loop devices; says loudly when there are not.
#[track_caller]
fn has_loops() -> bool {
    let root = crate::base::sys::effective_uid() == 0;
    let found = root && Command::new("losetup").arg("--find").output().is_ok_and(|out| out.status.success());
    if !found {
        crate::base::skip::skipped("there are no loop devices: run the tests as root on a machine that has them");
    }
    found
}

#[test]
fn a_mounted_device_is_captured_as_it_is_and_the_point_says_so() {
    if !has_loops() {
        return;
    }
    let world = world();
    let (path, _) = image(&world, 48 << 20);
    run("mkfs.ext4", &["-q", "-F", text(&path)]);
    let mut device = Loop::new(&path);
    let at = world.path("mnt");
    for (round, options) in ["rw", "rw", "ro"].into_iter().enumerate() {
        device.mount(&at, options);
        if options == "rw" {
            // Not synchronised by whoever wrote it; and in the second round the device has pages of the first.
            std::fs::write(at.join(format!("file{round}")), noise(1 << 20, round as u64)).unwrap();
        }
        for (place, image) in [(&device.device, false), (&path, true)] {
            let outcome = capture(&world, place).unwrap();
            let facts = outcome.point.commit.disk.clone().unwrap();
            let expected = if options == "rw" { Stillness::MountedReadWrite } else { Stillness::MountedReadOnly };
            assert_eq!(facts.stillness, expected, "round {round}, image: {image}");
            assert_eq!(facts.bytes, 48 << 20);
            // Whoever looks at the point sees what was written.
            let copy = world.path("copy.img");
            std::fs::write(&copy, content(&world, &outcome)).unwrap();
            let mut again = Loop::new(&copy);
            again.mount(&world.path("again"), "ro,noload");
            for file in 0..=round.min(1) {
                let written = std::fs::read(world.path("again").join(format!("file{file}"))).unwrap();
                assert!(written == noise(1 << 20, file as u64), "round {round}, image: {image}, file {file}");
            }
        }
        device.umount();
    }
    let outcome = capture(&world, &device.device).unwrap();
    assert_eq!(outcome.point.commit.disk.as_ref().unwrap().stillness, Stillness::Still);
    let same = capture(&world, &device.device).unwrap();
    assert_eq!((same.changed, same.point.commit.disk.as_ref().unwrap().changed_bytes), (false, 0));
    drop(device);
    let judged = world.path("judged.img");
    std::fs::write(&judged, content(&world, &same)).unwrap();
    run("e2fsck", &["-fn", text(&judged)]);
}
