//! Random histories of a directory and its captures, against a naive memory of what was there.
//!
//! Before each capture the whole directory is read by plain system calls and remembered. In the end
//! every point of the history is read back as a mount would show it, without a kernel, and compared.
//! A failing history prints its seed; `AMBERFS_HISTORIES` sets how many are tried.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use amberfs::base::Env;
use amberfs::capture::Options;
use amberfs::store::Store;
use amberfs::view::namespace::{FileKind, Namespace};

use crate::world::{Manifest, World, later, names, node, real, same, shown};

/// splitmix64: a history is its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.roll(items.len() as u64) as usize) }
    }

    /// Text that compresses somewhat and is not the same twice.
    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let salt = self.roll(u64::MAX);
        (0..length).map(|n| (n.wrapping_mul(salt | 1) >> 57) as u8 ^ (n >> 12) as u8).collect()
    }

    fn length(&mut self) -> u64 {
        match self.roll(12) {
            0 => 0,
            1..=3 => self.roll(128) + 1,
            4..=8 => self.roll(20_000),
            9..=10 => self.roll(400_000),
            _ => (1 << 20) + self.roll(3 << 20),
        }
    }

    fn name(&mut self) -> String {
        const NAMES: [&str; 12] =
            ["a", "b", "long name with spaces", "ünïcode", "-dash", ".hidden", "z.txt", "Z", "0", "~", "latest", "d"];
        format!("{}{}", NAMES[self.roll(12) as usize], self.roll(4))
    }
}

/// Every path of the source by kind, so that operations have something to work on.
fn paths(world: &World, wanted: fn(&fs::Metadata) -> bool) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![world.root()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let stat = fs::symlink_metadata(entry.path()).unwrap();
            if stat.is_dir() {
                open.push(entry.path());
            }
            if wanted(&stat) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// One change of the directory. An operation that the directory does not allow right now is none.
fn change(world: &World, dice: &mut Dice) {
    let files = paths(world, fs::Metadata::is_file);
    let mut dirs = paths(world, fs::Metadata::is_dir);
    dirs.push(world.root());
    let all = paths(world, |_| true);
    let dir = dice.pick(&dirs).unwrap().clone();
    let fresh = dir.join(dice.name());
    let file = dice.pick(&files).cloned();
    let any = dice.pick(&all).cloned();
    let done = match (dice.roll(16), file, any) {
        (0..=3, _, _) => {
            let length = dice.length();
            let bytes = dice.bytes(length);
            fs::write(&fresh, bytes)
        }
        (4, Some(file), _) => {
            let length = dice.roll(3000) + 1;
            let bytes = dice.bytes(length);
            let at = dice.roll(fs::metadata(&file).unwrap().size() + 1);
            OpenOptions::new().write(true).open(file).and_then(|f| f.write_all_at(&bytes, at))
        }
        (5, Some(file), _) => {
            let length = dice.length();
            OpenOptions::new().write(true).open(file).and_then(|f| f.set_len(length))
        }
        // A hole in the middle.
        (6, _, _) => {
            let bytes = dice.bytes(5000);
            let at = dice.roll(4 << 20);
            fs::File::create(&fresh).and_then(|f| f.write_all_at(&bytes, at))
        }
        (7, _, _) => fs::create_dir(&fresh),
        (8, _, Some(any)) if any.is_dir() && !any.is_symlink() => fs::remove_dir_all(any),
        (8, _, Some(any)) => fs::remove_file(any),
        (9 | 10, _, Some(any)) => fs::rename(any, &fresh),
        (11, Some(file), _) => fs::hard_link(file, &fresh),
        (12, _, _) => symlink(dice.name(), &fresh),
        (13, _, Some(any)) if !any.is_symlink() => {
            let mode = 0o700 | (dice.roll(0o100) as u32);
            fs::set_permissions(any, fs::Permissions::from_mode(mode))
        }
        (14, Some(file), _) => OpenOptions::new().write(true).open(file).and_then(|f| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(dice.roll(u64::MAX / 8));
            f.set_modified(time)
        }),
        // The same length and the same time, other bytes: only the change time tells.
        (15, Some(file), _) => {
            let stat = fs::metadata(&file).unwrap();
            let length = stat.size().min(2000);
            let bytes = dice.bytes(length);
            OpenOptions::new().write(true).open(file).and_then(|f| {
                f.write_all_at(&bytes, 0)?;
                f.set_modified(stat.modified()?)
            })
        }
        _ => Ok(()),
    };
    drop(done);
}

/// Returns once the filesystem's clock has moved: a change after this has another change time.
fn next_tick(world: &World) {
    let scratch = world.dir.path().join("tick");
    let now = |content: &str| {
        fs::write(&scratch, content).unwrap();
        let stat = fs::metadata(&scratch).unwrap();
        (stat.ctime(), stat.ctime_nsec())
    };
    let before = now("a");
    while now("b") == before {}
}

fn history(seed: u64) {
    let mut dice = Dice(seed);
    // Half of the histories trust files by their times, half run on the real clock, on which all files are too young.
    let trusting = dice.roll(2) == 0;
    let env = if trusting { Env::seeded(seed, later()) } else { Env::system() };
    let world = World::new(Store::memory(), env);
    let mut remembered: Vec<(String, Manifest)> = Vec::new();
    for _ in 0..3 + dice.roll(4) {
        for _ in 0..dice.roll(12) {
            change(&world, &mut dice);
        }
        let before = real(&world.root());
        let options = Options {
            full: dice.roll(5) == 0,
            labels: vec![format!("label {}", dice.roll(3))],
            workers: Some(2),
            ..Options::default()
        };
        let outcome = world.capture(&options);
        assert!(outcome.problems.is_empty(), "{:?}", outcome.problems);
        remembered.push((outcome.point.name().to_owned(), before));
        if trusting {
            next_tick(&world);
        }
    }
    let view = world.mount();
    let points = node(&view, "home/points");
    let listed: Vec<String> =
        names(&view, points).into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect();
    assert_eq!(listed, remembered.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    for (name, expected) in &remembered {
        let root = node(&view, &format!("home/points/{name}"));
        let piece = [1 << 20, 70_001, 4096][dice.roll(3) as usize];
        same(expected, &shown(&view, root, piece), name);
        holes_read_as_data_does(&view, root, expected);
    }
    let newest = &remembered.last().unwrap().0;
    let latest = view.read_link(node(&view, "home/latest")).unwrap();
    assert_eq!(latest, format!("points/{newest}").into_bytes());
}

/// Seeking from data to hole to data covers the file, and what lies in holes is zeros.
fn holes_read_as_data_does(view: &dyn Namespace, root: amberfs::view::namespace::NodeId, expected: &Manifest) {
    use amberfs::view::namespace::SeekTo;
    for (path, seen) in expected.iter().filter(|(_, seen)| seen.kind == FileKind::Regular) {
        let file = path.split(|b| *b == b'/').fold(root, |dir, name| view.lookup(dir, name).unwrap().attr.node);
        let mut at = 0;
        while at < seen.size {
            let data = view.seek(file, at, SeekTo::Data).unwrap_or(seen.size);
            let hole = &seen.content[at as usize..data as usize];
            assert!(hole.iter().all(|byte| *byte == 0), "{}: data in a hole at {at}", path.escape_ascii());
            if data == seen.size {
                break;
            }
            at = view.seek(file, data, SeekTo::Hole).unwrap();
            assert!(at > data);
        }
    }
}

#[test]
fn every_point_of_any_history_is_as_the_source_was() {
    let histories = std::env::var("AMBERFS_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let first = std::env::var("AMBERFS_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    for seed in first..first + histories {
        if let Err(panic) = std::panic::catch_unwind(|| history(seed)) {
            eprintln!("the history of AMBERFS_SEED={seed} AMBERFS_HISTORIES=1 fails");
            std::panic::resume_unwind(panic);
        }
    }
}
