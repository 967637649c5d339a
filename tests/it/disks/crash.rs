//! A crash at every single call to the store while disks are captured, and single calls whose answer is lost.
//!
//! As `crash.rs` does for trees: what was acknowledged is there with its bytes, at most the point in flight is
//! there besides, and the next capture needs no repair.

use std::os::unix::fs::FileExt;

use amberfs::base::Env;
use amberfs::capture::{Options, Progress, capture_disk};
use amberfs::chain::{RepoLog, SourceLog, origin};
use amberfs::format::log::{Method, SourceKind};
use amberfs::store::Store;
use amberfs::store::fault::{Fault, Faults, Rule};
use amberfs::view::MountView;
use amberfs::view::namespace::NodeId;

use super::{CELL, content, data, shown};
use crate::history::{Dice, next_tick_in};
use crate::world::{self, later, names, node, zero_settings};

/// Full, incremental, untouched, grown, shrunk, full again.
const STEPS: usize = 6;

struct Scenario {
    dir: tempfile::TempDir,
    states: Vec<Vec<u8>>,
}

impl Scenario {
    fn new() -> (Scenario, Env) {
        (Scenario { dir: tempfile::tempdir().unwrap(), states: Vec::new() }, Env::seeded(7, later()))
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("disk.img")
    }

    /// Brings the image into the state of a step.
    fn arrange(&mut self, step: usize) {
        let open = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(self.path());
        let (file, mut dice) = (open.unwrap(), Dice(step as u64));
        match step {
            0 => {
                file.set_len(40 * CELL + 700).unwrap();
                file.write_all_at(&dice.bytes(9 * CELL), 3 * CELL).unwrap();
                file.write_all_at(&dice.bytes(100), 40 * CELL + 300).unwrap();
            }
            1 => {
                file.write_all_at(&dice.bytes(300), 5 * CELL + 17).unwrap();
                file.write_all_at(&vec![0; usize::try_from(2 * CELL).unwrap()], 7 * CELL).unwrap();
            }
            2 => {}
            3 => {
                file.set_len(70 * CELL).unwrap();
                file.write_all_at(&dice.bytes(CELL), 66 * CELL).unwrap();
            }
            4 => file.set_len(10 * CELL + 5).unwrap(),
            _ => file.write_all_at(&dice.bytes(CELL), 0).unwrap(),
        }
        self.states.push(std::fs::read(self.path()).unwrap());
        // What follows changes bytes and not the size: it must have another change time.
        if matches!(step, 0 | 4) {
            next_tick_in(self.dir.path());
        }
    }
}

fn options(step: usize) -> Options {
    Options { full: step == 5, disk_chunk_bytes: Some(16 << 10), workers: Some(1), ..Options::default() }
}

/// Runs the scenario until a call fails; returns the names of the acknowledged points, one a step, and how each was made.
fn run(scenario: &mut Scenario, store: Store, env: &Env) -> Vec<(String, Method)> {
    let mut acknowledged = Vec::new();
    let Ok(repo) = world::init(store.clone(), env.clone()) else { return acknowledged };
    let sources = RepoLog::open(store.clone(), env.clone(), repo.realm());
    let Ok(source) = sources.claim_source("vm", SourceKind::Disk, origin::here(b"/dev/vm"), false) else {
        return acknowledged;
    };
    let log = SourceLog::open(store, env.clone(), repo.realm(), source.id);
    for step in 0..STEPS {
        scenario.arrange(step);
        env.advance(std::time::Duration::from_secs(60));
        match capture_disk(&repo, &log, &source, &scenario.path(), &options(step), &Progress::new()) {
            Ok(outcome) => {
                let method = outcome.point.commit.disk.as_ref().unwrap().method;
                acknowledged.push((outcome.point.name().to_owned(), method));
            }
            Err(_) => return acknowledged,
        }
    }
    acknowledged
}

#[track_caller]
fn same(view: &MountView, point: &str, expected: &[u8], what: &str) {
    let file = shown(view, point, "disk.raw");
    assert!(content(view, file, 1 << 20) == expected, "{what}: {point} has other bytes");
    let holes = data(view, file).windows(2).map(|pair| (pair[0].1, pair[1].0)).collect::<Vec<_>>();
    for (start, end) in holes {
        assert!(expected[start as usize..end as usize].iter().all(|byte| *byte == 0), "{what}: data in a hole");
    }
}

/// Opens what is left and holds it to its promises.
fn check(scenario: &Scenario, store: &Store, env: &Env, acknowledged: &[(String, Method)], what: &str) {
    let Ok(repo) = world::open(store.clone(), env.clone()) else {
        return assert!(acknowledged.is_empty(), "{what}: the repository is gone");
    };
    let view = MountView::open(repo.clone(), zero_settings()).unwrap_or_else(|error| panic!("{what}: {error}"));
    if names(&view, NodeId::ROOT).is_empty() {
        assert!(acknowledged.is_empty(), "{what}: the source is gone");
    } else {
        let points = names(&view, node(&view, "vm/points"));
        let visible: Vec<String> = points.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect();
        assert!(acknowledged.iter().zip(&visible).all(|(a, b)| a.0 == *b), "{what}: {acknowledged:?}, {visible:?}");
        let counts = acknowledged.len()..=acknowledged.len() + 1;
        assert!(counts.contains(&visible.len()), "{what}: {visible:?} of {acknowledged:?}");
        for (point, expected) in visible.iter().zip(&scenario.states) {
            same(&view, point, expected, what);
        }
    }
    let logs = RepoLog::open(store.clone(), env.clone(), repo.realm());
    let source = logs.claim_source("vm", SourceKind::Disk, origin::here(b"/dev/vm"), false).unwrap();
    let log = SourceLog::open(store.clone(), env.clone(), repo.realm(), source.id);
    env.advance(std::time::Duration::from_secs(60));
    let path = scenario.path();
    if !path.exists() {
        std::fs::write(&path, b"never arranged").unwrap();
    }
    let outcome = capture_disk(&repo, &log, &source, &path, &options(1), &Progress::new())
        .unwrap_or_else(|error| panic!("{what}: the next capture: {error}"));
    let view = MountView::open(world::open(store.clone(), env.clone()).unwrap(), zero_settings()).unwrap();
    same(&view, outcome.point.name(), &std::fs::read(&path).unwrap(), &format!("{what}: the next point"));
}

/// Runs the scenario once for each call that it makes, with a fault at it.
fn campaign(kind: &str, fault: impl Fn(&Faults, u64)) -> usize {
    let (mut scenario, env) = Scenario::new();
    let faults = Faults::new();
    let whole = run(&mut scenario, faults.around(&Store::memory()), &env);
    let methods: Vec<Method> = whole.iter().map(|(_, method)| *method).collect();
    let expected = [
        Method::Everything,
        Method::Compared,
        Method::Untouched,
        Method::Compared,
        Method::Compared,
        Method::Everything,
    ];
    assert_eq!(methods, expected);
    let mut cut_short = 0;
    for nth in 1..=faults.calls() {
        let (mut scenario, env) = Scenario::new();
        let (store, faults) = (Store::memory(), Faults::new());
        fault(&faults, nth);
        let acknowledged = run(&mut scenario, faults.around(&store), &env);
        assert!(faults.hits() > 0, "{kind} at call {nth} never happened");
        cut_short += usize::from(acknowledged.len() < STEPS);
        check(&scenario, &store, &env, &acknowledged, &format!("{kind} at call {nth}"));
    }
    cut_short
}

#[test]
fn no_acknowledged_disk_is_lost_by_a_crash_at_any_call() {
    for fault in [Fault::Before, Fault::After, Fault::Half] {
        let cut_short = campaign(&format!("crash {fault:?}"), |faults, nth| faults.crash_at(nth, fault));
        assert!(cut_short > 20, "{fault:?} cut only {cut_short} runs short");
    }
}

#[test]
fn one_lost_answer_anywhere_is_survived_by_disks() {
    campaign("lost answer", |faults, nth| faults.plan(Rule::new(Fault::After).nth(nth)));
}
