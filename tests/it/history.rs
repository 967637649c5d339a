//! Random histories of a directory and its captures: a seed decides all that is done.
//!
//! Before each capture the whole directory is read by plain system calls and remembered.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use amberfs::base::Env;
use amberfs::capture::Options;
use amberfs::store::Store;

use crate::world::{Manifest, World, later, real};

/// splitmix64: a history is its seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.roll(items.len() as u64) as usize) }
    }

    /// Text that compresses somewhat and is not the same twice.
    pub(crate) fn bytes(&mut self, length: u64) -> Vec<u8> {
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
pub(crate) fn paths(world: &World, wanted: fn(&fs::Metadata) -> bool) -> Vec<PathBuf> {
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

/// Runs a program on a path; that it may refuse is no failure.
fn run(program: &str, arguments: &[&str], path: &Path) -> io::Result<()> {
    Command::new(program).args(arguments).arg(path).stderr(Stdio::null()).status().map(drop)
}

/// Whether `path` leads to a pipe: who opens one to write waits for a reader.
pub(crate) fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|stat| stat.file_type().is_fifo())
}

/// One change of the directory. An operation that the directory does not allow right now is none.
pub(crate) fn change(world: &World, dice: &mut Dice) {
    let files = paths(world, fs::Metadata::is_file);
    let mut dirs = paths(world, fs::Metadata::is_dir);
    dirs.push(world.root());
    let all = paths(world, |_| true);
    let dir = dice.pick(&dirs).unwrap().clone();
    let fresh = dir.join(dice.name());
    let file = dice.pick(&files).cloned();
    let any = dice.pick(&all).cloned();
    if is_pipe(&fresh) {
        return;
    }
    let done = match (dice.roll(22), file, any) {
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
        (16 | 17, _, Some(any)) => {
            let value = format!("v{}", dice.roll(1000).pow(3));
            run("setfattr", &["-h", "-n", &format!("user.n{}", dice.roll(3)), "-v", &value], &any)
        }
        (18, _, Some(any)) => run("setfattr", &["-h", "-x", &format!("user.n{}", dice.roll(3))], &any),
        // Only root may.
        (19, _, Some(any)) => lchown(any, Some(1000 + dice.roll(3) as u32), Some(2000 + dice.roll(3) as u32)),
        (20, _, _) => run("mkfifo", &[], &fresh),
        // Large enough to be cut at fixed places, and nearly nothing but holes.
        (21, _, _) if dice.roll(4) == 0 => {
            let (bytes, far) = (dice.bytes(5000), (256 << 20) + dice.roll(1 << 20));
            fs::File::create(&fresh).and_then(|f| {
                f.write_all_at(&bytes, dice.roll(200 << 20))?;
                f.write_all_at(&bytes, far)
            })
        }
        _ => Ok(()),
    };
    drop(done);
}

/// Returns once the filesystem's clock has moved: a change after this has another change time.
pub(crate) fn next_tick(world: &World) {
    next_tick_in(world.dir.path());
}

/// The same of the filesystem of a directory.
pub(crate) fn next_tick_in(dir: &Path) {
    let scratch = dir.join("tick");
    let now = |content: &str| {
        fs::write(&scratch, content).unwrap();
        let stat = fs::metadata(&scratch).unwrap();
        (stat.ctime(), stat.ctime_nsec())
    };
    let before = now("a");
    while now("b") == before {}
}

/// Plays one in so many of the histories that `AMBERFS_HISTORIES` asks for, 40 unless it is set, and one in any case; the
/// first is that of `AMBERFS_SEED`. Says which one fails, and otherwise how many were played.
pub(crate) fn each(one_in: u64, mut play: impl FnMut(u64)) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let histories = number("AMBERFS_HISTORIES").unwrap_or(40).div_ceil(one_in);
    let first = number("AMBERFS_SEED").unwrap_or(1);
    for seed in first..first + histories {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(seed))) {
            eprintln!("the history of AMBERFS_SEED={seed} AMBERFS_HISTORIES=1 fails");
            std::panic::resume_unwind(panic);
        }
    }
    histories
}

/// What has been captured, in the order of the points.
pub(crate) struct History {
    pub(crate) world: World,
    pub(crate) dice: Dice,
    /// Each point's name, and what the directory held just before.
    pub(crate) remembered: Vec<(String, Manifest)>,
}

/// Plays the history of `seed` into a new repository in `store`.
pub(crate) fn play(seed: u64, store: Store) -> History {
    let mut dice = Dice(seed);
    // Half of the histories trust files by their times, half run on the real clock, on which all files are too young.
    let trusting = dice.roll(2) == 0;
    let env = if trusting { Env::seeded(seed, later()) } else { Env::system() };
    let world = World::new(store, env);
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
    History { world, dice, remembered }
}
