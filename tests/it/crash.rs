//! A crash at every single call to the store, and single calls whose answer is lost.
//!
//! One scenario, captures of a directory that changes in between and a verification at the end, is run as
//! often as it makes calls, for each way in which a call can fail; and a shorter one, whose packs are
//! large enough to be uploaded in parts. Then the store is opened anew, without faults: everything
//! acknowledged must be there and read back as it was, at most the point in flight may be there
//! besides, complete, and the next capture must work without any repair.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use amberfs::base::{Class, Classed, Env};
use amberfs::capture::{Options, Progress, capture_tree};
use amberfs::chain::{RepoLog, SourceLog, origin};
use amberfs::format::log::SourceKind;
use amberfs::repo::Repo;
use amberfs::store::fault::{Fault, Faults, Rule};
use amberfs::store::{Operation, Store};
use amberfs::verify;
use amberfs::view::MountView;
use amberfs::view::namespace::Namespace;

use crate::world::{self, Manifest, later, names, node, real, same, shown, zero_settings};

/// What the directory looked like at each step of the scenario.
struct Scenario {
    dir: tempfile::TempDir,
    states: Vec<Manifest>,
    plan: Plan,
}

/// What the scenario does.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Captures, each of the next state of the directory.
    steps: usize,
    /// Bytes of a file that does not compress.
    noise: usize,
}

/// A full capture, two incrementals, and another full one.
const ALL: Plan = Plan { steps: 4, noise: 1_500_000 };
/// A full capture whose pack is uploaded in parts, and an incremental behind it.
const IN_PARTS: Plan = Plan { steps: 2, noise: 11 << 20 };
/// A full capture that completes a pack while it goes on to write the next.
const SEVERAL_PACKS: Plan = Plan { steps: 1, noise: 80 << 20 };

/// Brings the directory into the state of a step. Each is captured once; the third is as the second.
fn arrange(root: &Path, step: usize, noise: usize) {
    match step {
        0 => {
            std::fs::create_dir_all(root.join("d/sub")).unwrap();
            for n in 0..12 {
                std::fs::write(root.join(format!("d/f{n}")), format!("file {n} ").repeat(n * 60)).unwrap();
            }
            let mut big = vec![0; noise];
            blake3::Hasher::new().finalize_xof().fill(&mut big);
            std::fs::write(root.join("d/sub/big"), big).unwrap();
            std::fs::hard_link(root.join("d/f3"), root.join("d/sub/link")).unwrap();
        }
        1 => {
            std::fs::write(root.join("d/f5"), "changed").unwrap();
            std::fs::write(root.join("d/new"), "new ".repeat(500)).unwrap();
            std::fs::remove_file(root.join("d/f7")).unwrap();
        }
        2 => {}
        _ => std::fs::write(root.join("d/last"), "last").unwrap(),
    }
}

/// Runs the scenario until a call fails; returns the names of the acknowledged points, one a step.
fn run(scenario: &mut Scenario, store: Store, env: &Env) -> Vec<String> {
    let root = scenario.dir.path().to_owned();
    let mut acknowledged = Vec::new();
    let Ok(repo) = world::init(store.clone(), env.clone()) else { return acknowledged };
    let sources = RepoLog::open(store.clone(), env.clone(), repo.realm());
    let Ok(source) = sources.claim_source("home", SourceKind::Tree, origin::here(b"/home"), false) else {
        return acknowledged;
    };
    let log = SourceLog::open(store, env.clone(), repo.realm(), source.id);
    for step in 0..scenario.plan.steps {
        arrange(&root, step, scenario.plan.noise);
        scenario.states.push(real(&root));
        env.advance(std::time::Duration::from_secs(60));
        let options = Options { full: step == 3, workers: Some(1), ..Options::default() };
        match capture_tree(&repo, &log, &source, &root, &options, &Progress::new()) {
            Ok(outcome) => acknowledged.push(outcome.point.name().to_owned()),
            Err(_) => return acknowledged,
        }
    }
    verified(&repo);
    acknowledged
}

/// Verifies what was captured. A store that fails meanwhile keeps it from its end, and is not taken for damage.
fn verified(repo: &Arc<Repo>) {
    let written =
        || Operation::ALL.iter().filter(|o| o.writes()).map(|o| repo.store().meter().snapshot().of(*o).requests);
    let before: Vec<u64> = written().collect();
    let options = verify::Options { read_data: true, workers: Some(1), ..verify::Options::default() };
    match verify::verify(repo, &options, &verify::Progress::new()) {
        Ok(report) => {
            assert!(report.findings.iter().all(|f| f.harm == verify::Harm::Unreadable), "{:?}", report.findings)
        }
        Err(error) => assert_ne!(error.class(), Class::Corrupt, "{error}"),
    }
    assert_eq!(before, written().collect::<Vec<_>>(), "a verification writes nothing");
}

/// Opens what is left and holds it to its promises.
fn check(scenario: &Scenario, store: &Store, env: &Env, acknowledged: &[String], what: &str) {
    let Ok(repo) = world::open(store.clone(), env.clone()) else {
        assert!(acknowledged.is_empty(), "{what}: the repository is gone");
        return;
    };
    let view = MountView::open(repo.clone(), zero_settings()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let sources = names(&view, amberfs::view::namespace::NodeId::ROOT);
    if sources.is_empty() {
        assert!(acknowledged.is_empty(), "{what}: the source is gone");
    } else {
        let points = names(&view, node(&view, "home/points"));
        let visible: Vec<String> = points.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
        assert!(visible.starts_with(acknowledged), "{what}: acknowledged {acknowledged:?}, visible {visible:?}");
        assert!(visible.len() <= acknowledged.len() + 1, "{what}: {visible:?} of {acknowledged:?}");
        for ((name, root), expected) in points.iter().zip(&scenario.states) {
            same(expected, &shown(&view, *root, 1 << 20), &format!("{what}: {}", name.escape_ascii()));
        }
    }
    // Whatever was interrupted, the next capture needs no repair.
    let logs = RepoLog::open(store.clone(), env.clone(), repo.realm());
    let source = logs.claim_source("home", SourceKind::Tree, origin::here(b"/home"), false).unwrap();
    let log = SourceLog::open(store.clone(), env.clone(), repo.realm(), source.id);
    env.advance(std::time::Duration::from_secs(60));
    let root = scenario.dir.path();
    let before = real(root);
    let outcome = capture_tree(&repo, &log, &source, root, &Options::default(), &Progress::new())
        .unwrap_or_else(|error| panic!("{what}: the next capture: {error}"));
    let view = MountView::open(world::open(store.clone(), env.clone()).unwrap(), zero_settings()).unwrap();
    let shown = shown(&view, node(&view, &format!("home/points/{}", outcome.point.name())), 1 << 20);
    same(&before, &shown, &format!("{what}: the next point"));
}

fn fresh(plan: Plan) -> (Scenario, Env) {
    let scenario = Scenario { dir: tempfile::tempdir().unwrap(), states: Vec::new(), plan };
    (scenario, Env::seeded(7, later()))
}

/// The calls that the scenario makes when nothing fails, and how many of them end an upload.
fn calls(plan: Plan) -> (u64, u64) {
    let (mut scenario, env) = fresh(plan);
    let faults = Faults::new();
    let store = faults.around(&Store::memory());
    let acknowledged = run(&mut scenario, store.clone(), &env);
    assert_eq!(acknowledged.len(), plan.steps);
    (faults.calls(), store.meter().snapshot().of(Operation::Finish).requests)
}

/// Runs the scenario once for each of `at`, and counts those runs that were cut short.
fn campaign(plan: Plan, kind: &str, at: impl Iterator<Item = u64>, fault: impl Fn(&Faults, u64)) -> usize {
    let mut cut_short = 0;
    for nth in at {
        let (mut scenario, env) = fresh(plan);
        let (store, faults) = (Store::memory(), Faults::new());
        fault(&faults, nth);
        let acknowledged = run(&mut scenario, faults.around(&store), &env);
        assert!(faults.hits() > 0, "{kind} at call {nth} never happened");
        cut_short += usize::from(acknowledged.len() < plan.steps);
        check(&scenario, &store, &env, &acknowledged, &format!("{plan:?}: {kind} at call {nth}"));
    }
    cut_short
}

/// Crashes at every call of both scenarios.
fn crashes(kind: &str, fault: Fault) {
    for plan in [ALL, IN_PARTS] {
        let (calls, _) = calls(plan);
        assert!(calls > 30, "the scenario makes only {calls} calls");
        let cut_short = campaign(plan, kind, 1..=calls, |faults, nth| faults.crash_at(nth, fault));
        assert!(cut_short > 0, "no fault had any effect");
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_crash_before_any_call() {
    crashes("crash before", Fault::Before);
}

#[test]
fn nothing_acknowledged_is_lost_by_a_crash_after_any_call() {
    crashes("crash after", Fault::After);
}

#[test]
fn nothing_acknowledged_is_lost_by_a_crash_half_way_through_any_call() {
    crashes("crash half-way", Fault::Half);
}

/// A call that fails once: the capture may fail or go on, but nothing false may come of it.
#[test]
fn one_lost_answer_anywhere_is_survived() {
    for plan in [ALL, IN_PARTS] {
        let (calls, _) = calls(plan);
        campaign(plan, "lost answer", 1..=calls, |faults, nth| faults.plan(Rule::new(Fault::After).nth(nth)));
    }
}

#[test]
fn the_scenarios_upload_in_parts_and_complete_packs_behind_the_scenes() {
    assert_eq!(calls(ALL).1, 0, "small packs are created at once");
    assert_eq!(calls(IN_PARTS).1, 1);
    assert_eq!(calls(SEVERAL_PACKS).1, 2);
    // An upload fails as it begins, in its middle and at its end, and no other call is disturbed.
    for fault in [Fault::Before, Fault::After] {
        for (operation, nth) in
            [(Operation::Begin, 2), (Operation::Part, 9), (Operation::Finish, 1), (Operation::Finish, 2)]
        {
            campaign(SEVERAL_PACKS, &format!("{fault:?} of {operation:?}"), std::iter::once(nth), |faults, nth| {
                faults.plan(Rule::new(fault).on(operation).nth(nth));
            });
        }
    }
}

fn amberfs(repo: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amberfs"));
    command.env("AMBERFS_REPOSITORY", repo).env("AMBERFS_CONFIG", repo.with_file_name("config.toml"));
    command
        .env("AMBERFS_STATE_DIR", repo.with_file_name("state"))
        .env("AMBERFS_CACHE_DIR", repo.with_file_name("cache"));
    world::tell_key(&mut command, repo.parent().unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Files in the repository, unfinished ones as well.
fn written(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { written(&entry.path()) } else { 1 }).sum()
}

/// The real program, killed at random moments of real captures; `AMBERFS_KILLS` sets how often.
#[test]
fn nothing_acknowledged_is_lost_by_sigkill() {
    let kills: u64 = std::env::var("AMBERFS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let dir = tempfile::tempdir().unwrap();
    let (root, repo) = (dir.path().join("source"), dir.path().join("repo"));
    std::fs::create_dir_all(&root).unwrap();
    assert!(amberfs(&repo).args(world::how_to_init()).status().unwrap().success());
    let (mut acknowledged, mut killed, mut late) = (0usize, 0u64, 0u64);
    let mut states: Vec<Manifest> = Vec::new();
    let mut round = 0u64;
    // How long a capture takes on this machine: the first is left alone.
    let mut whole = std::time::Duration::MAX;
    // Kills before anything is written prove little, so some must come later.
    while killed < kills || late == 0 {
        assert!(round < 20 * kills + 100, "of {killed} kills, none came after a capture had begun to write");
        round += 1;
        let salt = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for n in 0..40u64 {
            let length = (salt >> (n % 40)) % 60_000;
            let bytes: Vec<u8> = (0..length).map(|i| ((i ^ salt).wrapping_mul(n | 1) >> 7) as u8).collect();
            std::fs::write(root.join(format!("f{n}")), bytes).unwrap();
        }
        let state = real(&root);
        let before = written(&repo);
        let started = std::time::Instant::now();
        let mut child = amberfs(&repo).arg("capture").arg(format!("home={}", root.display())).spawn().unwrap();
        // Somewhere in the time that a capture takes: by turning, not by sleeping.
        let until = (whole != std::time::Duration::MAX)
            .then(|| started + whole.mul_f64((salt >> 32 & 0xffff) as f64 / 65536.0));
        let mut ended = child.try_wait().unwrap();
        while ended.is_none() && until.is_none_or(|until| std::time::Instant::now() < until) {
            ended = child.try_wait().unwrap();
        }
        if ended.is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        if until.is_none() {
            whole = started.elapsed();
        }
        let status = child.wait().unwrap();
        let opened = world::open(Store::local(&repo).unwrap(), Env::system()).unwrap();
        let view = MountView::open(opened, zero_settings()).unwrap();
        let points = match names(&view, amberfs::view::namespace::NodeId::ROOT).is_empty() {
            true => Vec::new(),
            false => names(&view, node(&view, "home/points")),
        };
        assert!(
            points.len() >= acknowledged + usize::from(status.success()),
            "kill {killed}: an acknowledged point is gone"
        );
        assert!(points.len() <= acknowledged + 1, "kill {killed}: points nobody asked for");
        late += u64::from(ended.is_none() && (points.len() > acknowledged || written(&repo) > before));
        if points.len() > acknowledged {
            states.push(state);
        }
        acknowledged = points.len();
        if let Some((name, root)) = points.last() {
            same(states.last().unwrap(), &shown(&view, *root, 1 << 20), &name.escape_ascii().to_string());
        }
    }
    let view =
        MountView::open(world::open(Store::local(&repo).unwrap(), Env::system()).unwrap(), zero_settings()).unwrap();
    assert!(acknowledged > 0);
    for ((name, root), state) in names(&view, node(&view, "home/points")).iter().zip(&states) {
        same(state, &shown(&view, *root, 1 << 20), &name.escape_ascii().to_string());
        assert!(view.attr(*root).unwrap().immutable);
    }
}
