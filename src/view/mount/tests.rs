//! Generated directories and files while points come.

use super::*;
use crate::base::Env;
use crate::base::limits;
use crate::chain::testing::{commit, origin};
use crate::format::log::SourceKind;
use crate::format::object::checkpoints_prefix;
use crate::store::fault::{Fault, Faults, Rule};
use crate::store::{Operation, Store};

struct Stage {
    view: MountView,
    log: SourceLog,
    points: i64,
}

impl Stage {
    /// A mount that asks the log whenever it is looked at, of a source `home` without points.
    fn new() -> Stage {
        let repo = Arc::new(Repo::init(Store::memory(), Env::seeded(1, Instant::from_nanos(1))).unwrap());
        let zone = || jiff::tz::TimeZone::UTC;
        let settings = MountSettings { owner: (0, 0), own_all: false, refresh: Duration::ZERO, zone, sum_up: false };
        let view = MountView::open(Arc::clone(&repo), settings).unwrap();
        let record = view.sources.add_source("home", SourceKind::Tree, origin("ash", "/home")).unwrap();
        let log = SourceLog::open(repo.store().clone(), repo.env().clone(), repo.realm(), record.id);
        Stage { view, log, points: 0 }
    }

    fn commit(&mut self, label: &str) {
        self.points += 1;
        let session = self.log.begin().unwrap();
        let chain = self.log.open_chain(&session).unwrap();
        let mut commit = commit(session, chain.0, None, self.points);
        commit.labels = vec![label.to_owned()];
        self.log.commit(commit).unwrap();
        self.view.nudge();
    }

    fn node(&self, names: &[&str]) -> NodeId {
        let step = |dir, name: &&str| self.view.lookup(dir, name.as_bytes()).unwrap().attr.node;
        names.iter().fold(NodeId::ROOT, step)
    }

    fn list(&self, dir: NodeId, after: u64, count: usize) -> Vec<(String, u64)> {
        let mut items = Vec::new();
        let mut take = |item: DirEntry| {
            items.push((String::from_utf8(item.name).unwrap(), item.next));
            items.len() < count
        };
        self.view.read_dir(dir, after, &mut take).unwrap();
        items
    }
}

#[test]
fn a_version_of_info_that_is_gone_is_not_answered_with_another() {
    let mut stage = Stage::new();
    stage.commit("one");
    let first = stage.node(&["home", "info.json"]);
    let text = stage.view.read_generated(first).unwrap();
    assert_eq!(stage.view.attr(first).unwrap().attr.size, text.len() as u64);
    assert_eq!(text.as_ptr(), stage.view.read_generated(first).unwrap().as_ptr(), "shared, not copied");
    stage.commit("two");
    assert!(matches!(stage.view.attr(first), Err(ViewError::NotFound)));
    assert!(matches!(stage.view.read(first, 0, 10), Err(ViewError::NotFound)));
    assert!(matches!(stage.view.read_generated(first), Err(ViewError::NotFound)));
    let second = stage.node(&["home", "info.json"]);
    assert_ne!(first, second);
    assert!(stage.view.read_generated(second).unwrap().len() > text.len());
}

#[test]
fn a_label_that_comes_during_a_listing_shifts_no_other() {
    let mut stage = Stage::new();
    stage.commit("m");
    stage.commit("n");
    let labels = stage.node(&["home", "labels"]);
    let begun = stage.list(labels, 0, 1);
    assert_eq!(begun[0].0, "m");
    stage.commit("a");
    let rest: Vec<String> = stage.list(labels, begun[0].1, 9).into_iter().map(|(name, _)| name).collect();
    assert_eq!(rest, ["n", "a"]);
    assert_eq!(stage.list(labels, 0, 9).len(), 3);
}

/// A first look, and one that finds much that is new.
#[test]
fn nobody_who_looks_waits_for_a_log_to_be_summed_up() {
    let (faults, patience) = (Faults::new(), Duration::from_secs(30));
    let env = Env::seeded(1, Instant::from_nanos(1));
    let repo = Arc::new(Repo::init(faults.around(&Store::memory()), env).unwrap());
    let zone = || jiff::tz::TimeZone::UTC;
    let settings = MountSettings { owner: (0, 0), own_all: false, refresh: Duration::ZERO, zone, sum_up: true };
    let view = MountView::open(Arc::clone(&repo), settings).unwrap();
    let record = view.sources.add_source("home", SourceKind::Tree, origin("ash", "/home")).unwrap();
    let log = SourceLog::open(repo.store().clone(), repo.env().clone(), repo.realm(), record.id);
    let mut stage = Stage { view, log, points: 0 };
    let checkpoints = || repo.store().list(&checkpoints_prefix(LogId::Source(record.id)), None, None).unwrap().len();
    for round in 1..3 {
        // Whoever appends does not get to sum up what he appends.
        faults.plan(Rule::new(Fault::Before).on(Operation::Create).within("checkpoint").lasting());
        for _ in 0..limits::CHECKPOINT_ENTRIES {
            stage.commit("label");
        }
        faults.clear();
        faults.plan(Rule::new(Fault::Hang).on(Operation::Create).within("checkpoint"));
        let (tell, told) = std::sync::mpsc::channel();
        let looked = std::thread::scope(|scope| {
            scope.spawn(|| tell.send(stage.node(&["home", "latest"])));
            faults.wait_for_stuck(1);
            let looked = told.recv_timeout(patience).is_ok() && stage.view.stale_since().is_none();
            faults.release();
            looked
        });
        assert!(looked, "round {round}: whoever looks waits for the upload");
        faults.clear();
        let began = std::time::Instant::now();
        while checkpoints() < round {
            assert!(began.elapsed() < patience, "round {round}: nothing is summed up");
            std::thread::yield_now();
        }
    }
}
