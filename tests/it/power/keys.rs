//! `key change` and `key rotate`, cut by a power failure after each of their calls, and killed at random moments.
//!
//! A key that is lost loses everything. So, whatever a cut leaves of the repository and of the key files beside it: one of the
//! key files opens the repository, `key rotate` with it comes to its end, and then every point is there and whole. And the key
//! that was changed opens nothing once that was told.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use amberfs::base::Env;
use amberfs::repo::{CacheSizes, Closed, Credential, Repo};
use amberfs::store::Store;
use amberfs::verify;

use super::disk::{Cut, Disk};
use super::trace::{self, Event};
use super::{lay, number};
use crate::history::Dice;
use crate::skip::skipped;

/// The key files that the user has, in the order in which he made them. He tries the newest first.
const KEYS: [&str; 2] = ["old.key", "new.key"];
/// Points of the repository.
const POINTS: u64 = 2;

/// The program, on the repository in `base`, with its state in `state`.
fn amberfs(base: &Path, state: &Path, keyfile: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amberfs"));
    command.env("AMBERFS_REPOSITORY", base.join("repo")).env("AMBERFS_CONFIG", state.join("config.toml"));
    command.env("AMBERFS_STATE_DIR", state.join("state")).env("AMBERFS_CACHE_DIR", state.join("cache"));
    command.env("AMBERFS_TRACEABLE", "1").env_remove("AMBERFS_PASSWORD");
    command.args(["--keyfile", base.join(keyfile).to_str().unwrap()]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn good(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a repository in `base` that the first key file opens, with a source and its points.
fn prepare(base: &Path, state: &Path) {
    let source = state.join("source");
    std::fs::create_dir(&source).unwrap();
    let old = base.join(KEYS[0]);
    std::fs::write(&old, Credential::key_file(&amberfs::seal::Secret::new([5; 32])).as_bytes()).unwrap();
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    good(amberfs(base, state, KEYS[0], &["init"]));
    for n in 0..POINTS {
        std::fs::write(source.join("file"), format!("content {n}")).unwrap();
        good(amberfs(base, state, KEYS[0], &["capture", &format!("home={}", source.display())]));
    }
}

/// The repository in `base`, opened by one of its key files.
fn opened(base: &Path) -> Option<(&'static str, std::sync::Arc<Repo>)> {
    KEYS.into_iter().rev().find_map(|name| Some((name, opened_with(base, name)?)))
}

fn opened_with(base: &Path, key: &str) -> Option<std::sync::Arc<Repo>> {
    let credential = Credential::of_key_file(&std::fs::read_to_string(base.join(key)).ok()?)?;
    let closed = Closed::find(Store::local(&base.join("repo")).ok()?).ok()?;
    closed.open(Env::system(), CacheSizes::default(), Some(&credential)).ok()
}

/// What does not hold of what is left in `base`, if anything; it is rotated once more.
fn broken(base: &Path) -> Result<(), String> {
    let place = tempfile::tempdir().unwrap();
    let (key, _) = opened(base).ok_or("no key file opens the repository")?;
    let output = amberfs(base, place.path(), key, &["key", "rotate", "--yes"]).output().unwrap();
    if !output.status.success() {
        return Err(format!("another rotation: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let (_, repo) = opened(base).ok_or("no key file opens the repository behind another rotation")?;
    let options = verify::Options { read_data: true, ..verify::Options::default() };
    let report = verify::verify(&repo, &options, &verify::Progress::new()).map_err(|error| error.to_string())?;
    match (report.damaged(), report.points()) {
        (0, POINTS) => Ok(()),
        (_, points) => Err(format!("{points} points, {:?}", report.findings)),
    }
}

/// The commands that are cut, each with the key file that it is given.
fn commands(base: &Path) -> [(&'static str, Vec<String>); 2] {
    let new = base.join(KEYS[1]).to_str().unwrap().to_owned();
    [
        (KEYS[0], vec!["key".to_owned(), "change".to_owned(), "--new-keyfile".to_owned(), new]),
        (KEYS[1], vec!["key".to_owned(), "rotate".to_owned(), "--yes".to_owned()]),
    ]
}

/// What the disk holds of `base` at first, as events.
fn as_it_is(base: &Path) -> Disk {
    fn visit(disk: &mut Disk, base: &Path, below: &str) {
        for entry in std::fs::read_dir(base.join(below)).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if entry.file_type().unwrap().is_dir() {
                disk.apply(&Event::MakeDirectory(path.clone()));
                visit(disk, base, &path);
            } else {
                disk.apply(&Event::MakeFile(path.clone()));
                disk.apply(&Event::Write(path.clone(), std::fs::read(base.join(&path)).unwrap()));
            }
            sync(disk, &path);
        }
        sync(disk, below);
    }
    fn sync(disk: &mut Disk, path: &str) {
        disk.apply(&Event::SyncBegins(1, path.to_owned()));
        disk.apply(&Event::SyncEnds(1));
    }
    let mut disk = Disk::new();
    visit(&mut disk, base, "");
    disk
}

#[test]
fn some_key_opens_the_repository_after_a_power_cut_at_any_call() {
    if let Some(why) = trace::missing() {
        return skipped(&why);
    }
    let place = tempfile::tempdir().unwrap();
    let (base, state) = (place.path().join("disk"), place.path().join("state"));
    std::fs::create_dir(&base).unwrap();
    std::fs::create_dir(&state).unwrap();
    let base = base.canonicalize().unwrap();
    prepare(&base, &state);
    let mut disk = as_it_is(&base);
    let (random, seed) = (number("AMBERFS_POWER_CUTS").unwrap_or(1), number("AMBERFS_SEED").unwrap_or(1));
    let (mut tried, mut calls, mut changed) = (HashSet::new(), 0, false);
    for (key, arguments) in commands(&base) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (events, ended) = trace::run(&amberfs(&base, &state, key, &arguments), &base, None);
        assert!(ended && events.len() > 5, "{arguments:?}: {events:?}");
        for (at, event) in events.iter().enumerate() {
            if !disk.apply(event) && *event != Event::Told {
                continue;
            }
            calls += 1;
            changed |= *event == Event::Told;
            let dice = (0..random).map(|n| Cut::Random(Dice(seed.wrapping_mul(1 << 40) ^ (at as u64) << 16 ^ n)));
            for mut cut in [Cut::Loses, Cut::Keeps].into_iter().chain(dice) {
                let tree = disk.after(&mut cut);
                let mut hasher = blake3::Hasher::new();
                hasher.update(&[u8::from(changed)]);
                for (path, content) in &tree {
                    hasher.update(blake3::hash(path.as_bytes()).as_bytes());
                    hasher.update(blake3::hash(content.as_deref().unwrap_or(b"a directory")).as_bytes());
                }
                if !tried.insert(hasher.finalize()) {
                    continue;
                }
                let left = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
                lay(&tree, left.path());
                for name in KEYS.map(|name| left.path().join(name)).iter().filter(|path| path.exists()) {
                    std::fs::set_permissions(name, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                }
                if changed && opened_with(left.path(), KEYS[0]).is_some() {
                    panic!("AMBERFS_SEED={seed}: {arguments:?}, a power cut after {event:?}: the old key is back");
                }
                if let Err(wrong) = broken(left.path()) {
                    panic!("AMBERFS_SEED={seed}: {arguments:?}, a power cut after {event:?}: {wrong}");
                }
            }
        }
    }
    eprintln!("{calls} calls that change the disk, {} states that a power cut may leave", tried.len());
    assert!(calls > 20 && tried.len() > 10, "only {calls} calls and {} states", tried.len());
}

/// Copies what is below a directory.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// `AMBERFS_KILLS` sets how often; the commands take turns.
#[test]
fn some_key_opens_the_repository_after_a_kill_at_any_moment() {
    let kills = number("AMBERFS_KILLS").unwrap_or(20);
    let place = tempfile::tempdir().unwrap();
    let (made, state) = (place.path().join("made"), place.path().join("state"));
    std::fs::create_dir(&made).unwrap();
    std::fs::create_dir(&state).unwrap();
    prepare(&made, &state);
    let mut dice = Dice(number("AMBERFS_SEED").unwrap_or(1));
    let (mut killed, mut whole) = (0, [None::<Duration>; 2]);
    for round in 0..20 * kills + 100 {
        if killed >= kills {
            break;
        }
        let (base, which) = (place.path().join(format!("copy{round}")), (round % 2) as usize);
        copy(&made, &base);
        if which == 1 {
            // A rotation by the key that stands for the new one.
            copy(&base.join(KEYS[0]), &base.join(KEYS[1]));
        }
        let (key, arguments) = commands(&base)[which].clone();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let own = place.path().join(format!("state{round}"));
        let mut command = amberfs(&base, &own, key, &arguments);
        let started = Instant::now();
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        // Somewhere in the time that it takes: by turning, not by sleeping. The first of each is left alone.
        let until = whole[which].map(|whole| started + whole.mul_f64(dice.roll(1 << 16) as f64 / 65536.0));
        let mut ended = child.try_wait().unwrap();
        while ended.is_none() && until.is_none_or(|until| Instant::now() < until) {
            ended = child.try_wait().unwrap();
        }
        if ended.is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        let status = child.wait().unwrap();
        assert!(ended.is_none() || status.success(), "{arguments:?}: {status}");
        whole[which].get_or_insert(started.elapsed());
        broken(&base).unwrap_or_else(|wrong| panic!("{arguments:?}, kill {killed}: {wrong}"));
        std::fs::remove_dir_all(&base).unwrap();
    }
    assert!(killed >= kills, "only {killed} were killed");
}
