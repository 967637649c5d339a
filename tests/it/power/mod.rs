//! A power cut after every single call with which the real program changes a local repository.
//!
//! The program makes a repository, captures, deletes and undeletes under `strace`, and is killed while it does. From the trace and a model of
//! what POSIX promises ([`disk`]) come the trees that a power cut can leave: after every call with all that is not
//! certain lost, with all of it kept, and with random parts of it. In each of them, what the program had told to
//! be done is there, at most what it was about to do as well; every visible point is whole and reads as the source
//! was; and the next capture needs no repair.
//!
//! What it does not see: the states of the mount, of the configuration and of the journal, which are no part of
//! the repository; and what a disk does that loses what it acknowledged as written.

mod disk;
mod keys;
mod trace;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use amberfs::base::Env;
use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::chain::{RepoLog, SourceLog, origin};
use amberfs::format::log::SourceKind;
use amberfs::repo::Repo;
use amberfs::store::Store;
use amberfs::verify;
use amberfs::view::MountView;
use amberfs::view::namespace::NodeId;

use crate::history::Dice;
use crate::skip::skipped;
use crate::world::{self, Manifest, later, names, node, real, same, shown, zero_settings};
use disk::{Cut, Disk, Tree};
use trace::Event;

/// States that were captured into, by all tests of this process.
static STATES: AtomicU64 = AtomicU64::new(7);

/// Of consecutive writes into one file, how many lie between two that are followed by a power cut.
const WRITES_BETWEEN: usize = 24;

/// What the repository shows: none, or its points by name.
type Shown = Option<Vec<(String, Manifest)>>;

/// What was done, call by call, and what it came to.
struct Recording {
    place: tempfile::TempDir,
    events: Vec<Event>,
    runs: Vec<Run>,
}

/// One run of the program.
struct Run {
    first: usize,
    /// The event with which it told that it was done; none if it was killed.
    told: Option<usize>,
    left: Shown,
}

impl Recording {
    fn new() -> Recording {
        let place = tempfile::tempdir().unwrap();
        for directory in ["disk", "source", "source/sub"] {
            std::fs::create_dir(place.path().join(directory)).unwrap();
        }
        Recording { place, events: Vec::new(), runs: Vec::new() }
    }

    fn root(&self) -> PathBuf {
        self.place.path().join("source")
    }

    /// Runs `program`, as one that may be killed, and notes what the repository shows then; whether it was not.
    fn run_killed(&mut self, program: &str, arguments: &[&str], kill: Option<usize>) -> bool {
        let base = self.place.path().join("disk").canonicalize().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).env("AMBERFS_REPOSITORY", base.join("repo"));
        world::tell_key(&mut command, self.place.path());
        // What strace sees of a process with a key, as an ordinary user.
        command.env("AMBERFS_TRACEABLE", "1");
        for (name, file) in
            [("AMBERFS_CONFIG", "config.toml"), ("AMBERFS_STATE_DIR", "state"), ("AMBERFS_CACHE_DIR", "cache")]
        {
            command.env(name, self.place.path().join(file));
        }
        let (events, ended) = trace::run(&command, &base, kill);
        let first = self.events.len();
        let told = events.iter().rposition(|event| *event == Event::Told).unwrap_or(events.len().saturating_sub(1));
        self.events.extend(events);
        let left = Store::local(&base.join("repo")).ok().and_then(|store| world::open(store, Env::system()).ok()).map(
            |repo| {
                let view = MountView::open(repo, zero_settings()).unwrap();
                points(&view).into_iter().map(|(name, root)| (name, shown(&view, root, 1 << 20))).collect()
            },
        );
        self.runs.push(Run { first, told: ended.then_some(first + told), left });
        ended
    }

    fn run(&mut self, program: &str, arguments: &[&str]) {
        assert!(self.run_killed(program, arguments, None));
    }

    /// The names of the points, the newest last.
    fn points(&self) -> Vec<&str> {
        self.runs.last().unwrap().left.iter().flatten().map(|(name, _)| name.as_str()).collect()
    }

    /// The last run that had told to be done when event `at` had happened, and the last that had begun; from 1.
    fn between(&self, at: usize) -> (usize, usize) {
        let acknowledged = self.runs.iter().rposition(|run| run.told.is_some_and(|told| told <= at));
        (acknowledged.map_or(0, |run| run + 1), self.runs.iter().filter(|run| run.first <= at).count())
    }

    fn is_told(&self, at: usize) -> bool {
        self.runs.iter().any(|run| run.told == Some(at))
    }
}

fn points(view: &MountView) -> Vec<(String, NodeId)> {
    if names(view, NodeId::ROOT).is_empty() {
        return Vec::new();
    }
    let points = names(view, node(view, "home/points")).into_iter();
    points.map(|(name, root)| (String::from_utf8(name).unwrap(), root)).collect()
}

/// A directory that nobody has synced is made a repository; then a full capture, an incremental one, one of
/// nothing new, a deletion, an undeletion, and a full capture whose pack goes up in parts.
fn record() -> Recording {
    let mut recording = Recording::new();
    let (program, root) = (env!("CARGO_BIN_EXE_amberfs"), recording.root());
    let write = |name: &str, content: &[u8]| std::fs::write(root.join(name), content).unwrap();
    let source = format!("home={}", root.display());
    let repo = recording.place.path().canonicalize().unwrap().join("disk/repo");

    recording.run("mkdir", &[repo.to_str().unwrap()]);
    recording.run(program, world::how_to_init());
    for name in ["a", "b", "sub/c"] {
        write(name, name.repeat(3000).as_bytes());
    }
    recording.run(program, &["capture", &source]);
    write("a", b"changed");
    write("sub/d", &[7; 20_000]);
    recording.run(program, &["capture", &source]);
    recording.run(program, &["capture", &source]);
    let newest = format!("home@{}", recording.points().last().unwrap());
    recording.run(program, &["delete", &newest, "--yes"]);
    recording.run(program, &["undelete", &newest]);
    let mut noise = vec![0; 9 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    write("noise", &noise);
    recording.run(program, &["capture", &source, "--full"]);
    std::fs::remove_file(root.join("noise")).unwrap();
    let counts: Vec<Option<usize>> = recording.runs.iter().map(|run| Some(run.left.as_ref()?.len())).collect();
    assert_eq!(counts, [None, Some(0), Some(1), Some(2), Some(3), Some(2), Some(3), Some(4)]);
    assert!(recording.events.iter().any(|event| matches!(event, Event::Rename(..))), "nothing went up in parts");
    recording
}

/// Captures that are killed at syncs, later and later, each of something new, until one comes to its end.
fn record_killed() -> Recording {
    let mut recording = Recording::new();
    let (program, root) = (env!("CARGO_BIN_EXE_amberfs"), recording.root());
    let source = format!("home={}", root.display());
    recording.run(program, world::how_to_init());
    for nth in 1..40 {
        std::fs::write(root.join("sub/file"), "content".repeat(nth)).unwrap();
        if recording.run_killed(program, &["capture", &source], Some(nth)) {
            break;
        }
    }
    let run = |told: bool| recording.runs.iter().filter(|run| run.told.is_some() == told).count();
    assert!(run(true) == 2 && run(false) > 2, "{} runs were killed", run(false));
    recording
}

fn lay(tree: &Tree, at: &Path) {
    for (path, content) in tree {
        match content {
            None => std::fs::create_dir(at.join(path)).unwrap(),
            Some(content) => std::fs::write(at.join(path), content).unwrap(),
        }
    }
}

/// Opens what is left, and holds it to what was promised when event `at` had happened; what is wrong, if anything.
fn check(recording: &Recording, tree: &Tree, at: usize) -> Result<(), String> {
    // In memory, if there is a place: hundreds of captures would otherwise wait for a real disk.
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    lay(tree, place.path());
    let (acknowledged, begun) = recording.between(at);
    let promised = |run: usize| recording.runs.get(run.checked_sub(1)?).and_then(|run| run.left.as_ref());
    // Every state is a copy of one repository: captures into two of them with the same dice would seal two texts alike.
    let env = Env::seeded(STATES.fetch_add(1, Ordering::Relaxed), later());
    let opened = Store::local(&place.path().join("repo")).map_err(|error| error.to_string());
    let opened = opened.and_then(|store| world::open(store, env.clone()).map_err(|error| error.to_string()));
    let repo = match opened {
        Ok(repo) => repo,
        Err(error) if promised(acknowledged).is_some() => return Err(format!("the repository is gone: {error}")),
        Err(_) => return Ok(()),
    };
    let options = verify::Options { read_data: true, ..verify::Options::default() };
    let report = verify::verify(&repo, &options, &verify::Progress::new()).map_err(|error| error.to_string())?;
    if report.damaged() > 0 {
        return Err(format!("damage: {:?}", report.findings));
    }
    let view = MountView::open(repo.clone(), zero_settings()).map_err(|error| error.to_string())?;
    let visible = points(&view);
    let as_after = |run: usize| {
        promised(run).filter(|shown| shown.iter().map(|(name, _)| name).eq(visible.iter().map(|(name, _)| name)))
    };
    let Some(expected) = (acknowledged..=begun).find_map(as_after) else {
        return Err(format!("the points are {:?}", visible.iter().map(|(name, _)| name).collect::<Vec<_>>()));
    };
    for ((name, root), (_, manifest)) in visible.iter().zip(expected) {
        same(manifest, &shown(&view, *root, 1 << 20), name);
    }
    next_capture(recording, &repo, &env).map_err(|error| format!("the next capture: {error}"))
}

fn next_capture(
    recording: &Recording,
    repo: &std::sync::Arc<Repo>,
    env: &Env,
) -> Result<(), Box<dyn std::error::Error>> {
    let (store, root) = (repo.store().clone(), recording.root());
    let sources = RepoLog::open(store.clone(), env.clone(), repo.realm());
    let here = origin::here(root.as_os_str().as_encoded_bytes());
    let source = sources.claim_source("home", SourceKind::Tree, here, false)?;
    let log = SourceLog::open(store.clone(), env.clone(), repo.realm(), source.id);
    env.advance(Duration::from_secs(60));
    let options = Options { workers: Some(1), ..Options::default() };
    let outcome = capture_tree(repo, &log, &source, &root, &options, &Progress::new())?;
    let view = MountView::open(world::open(store, env.clone())?, zero_settings())?;
    let at = node(&view, &format!("home/points/{}", outcome.point.name()));
    same(&real(&root), &shown(&view, at, 1 << 20), "the next point");
    Ok(())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut_after_any_call() {
    match trace::missing() {
        Some(why) => skipped(&why),
        None => cut_everywhere(&record()),
    }
}

/// What the dead left visible and not durable is built upon.
#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut_after_kills() {
    match trace::missing() {
        Some(why) => skipped(&why),
        None => cut_everywhere(&record_killed()),
    }
}

/// `AMBERFS_POWER_CUTS` sets how many random states are tried at each call, `AMBERFS_SEED` which.
fn cut_everywhere(recording: &Recording) {
    let (random, seed) = (number("AMBERFS_POWER_CUTS").unwrap_or(1), number("AMBERFS_SEED").unwrap_or(1));
    let (mut disk, mut tried, mut calls, mut writes) = (Disk::new(), HashSet::new(), 0u64, 0usize);
    for (at, event) in recording.events.iter().enumerate() {
        let changed = disk.apply(event);
        let told = recording.is_told(at);
        calls += u64::from(changed);
        writes = if matches!(event, Event::Write(..)) { writes + 1 } else { 0 };
        if !told && (!changed || writes % WRITES_BETWEEN > 1) {
            continue;
        }
        let acknowledged = recording.between(at).0;
        let dice = (0..random).map(|n| Cut::Random(Dice(seed.wrapping_mul(1 << 40) ^ (at as u64) << 16 ^ n)));
        for mut cut in [Cut::Loses, Cut::Keeps].into_iter().chain(dice) {
            let tree = disk.after(&mut cut);
            let mut hasher = blake3::Hasher::new();
            for (path, content) in &tree {
                hasher.update(blake3::hash(path.as_bytes()).as_bytes());
                hasher.update(blake3::hash(content.as_deref().unwrap_or(b"a directory")).as_bytes());
            }
            if !tried.insert((hasher.finalize(), acknowledged)) {
                continue;
            }
            if let Err(wrong) = check(recording, &tree, at) {
                let paths: Vec<_> = tree.iter().map(|(path, content)| (path, content.as_ref().map(Vec::len))).collect();
                panic!(
                    "AMBERFS_SEED={seed}: a power cut after {event:?}, {acknowledged} runs done: {wrong}; {paths:#?}"
                );
            }
        }
    }
    eprintln!("{calls} calls that change the disk, {} states that a power cut may leave", tried.len());
    assert!(calls > 100 && tried.len() > 80, "only {calls} calls and {} states", tried.len());
}

/// The same with a program that forgets some of its syncs: each is found.
#[test]
fn a_sync_that_is_left_out_is_found() {
    if let Some(why) = trace::missing() {
        return skipped(&why);
    }
    let recording = record();
    let found = |forgotten: fn(&str) -> bool| {
        let mut disk = Disk::new();
        let mut left_out = HashSet::new();
        for (at, event) in recording.events.iter().enumerate() {
            match event {
                Event::SyncBegins(thread, path) if forgotten(path) => {
                    left_out.insert(*thread);
                    continue;
                }
                Event::SyncEnds(thread) if left_out.remove(thread) => continue,
                _ => disk.apply(event),
            };
            if recording.is_told(at) {
                let checked = check(&recording, &disk.after(&mut Cut::Loses), at);
                if let Err(wrong) = checked {
                    return wrong;
                }
            }
        }
        "nothing".to_owned()
    };
    assert_eq!(found(|_| false), "nothing");
    let is_pack = |path: &str| path.contains(".pack#");
    assert!(found(is_pack).starts_with("damage"), "{}", found(is_pack));
    let is_log = |path: &str| path.ends_with("source/00000001/log");
    assert!(found(is_log).starts_with("the points are"), "{}", found(is_log));
    let is_above_log = |path: &str| path.ends_with("source/00000001");
    assert!(found(is_above_log) != "nothing");
    let is_root = |path: &str| path == "repo";
    assert!(found(is_root).starts_with("the repository is gone"), "{}", found(is_root));
}
