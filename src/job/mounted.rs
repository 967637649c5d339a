//! The desk's surroundings in a real mount: the configuration file, the sources' logs, the view.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::child::Program;
use super::config::ConfigFile;
use super::control::Reason;
use super::desk::{Desk, DeskOptions, Site};
use super::error::JobError;
use super::outcome::Testimony;
use super::page::timestamp;
use super::request::Request;
use super::witness::Witness;
use crate::base::sys;
use crate::chain::{ChainError, RepoLog};
use crate::format::PointId;
use crate::store::{Count, Operation};
use crate::view::MountView;

/// What a mount tells its desk, and learns from it.
#[derive(Debug)]
pub struct MountSite {
    view: Arc<MountView>,
    sources: RepoLog,
    config: Arc<ConfigFile>,
    log: Option<PathBuf>,
}

impl MountSite {
    /// The surroundings of a desk in the mount that shows `view`.
    pub fn new(view: Arc<MountView>, config: Arc<ConfigFile>) -> MountSite {
        let repo = view.repo();
        let sources = RepoLog::open(repo.store().clone(), repo.env().clone(), repo.realm());
        if repo.store().is_remote() {
            // So that it is known when somebody asks.
            let _not_yet = repo.store().is_single_writer();
        }
        MountSite { view, sources, config, log: None }
    }

    fn look_up(&self, source: &str, job: &Witness) -> Result<Option<Testimony>, ChainError> {
        let state = self.sources.refresh()?;
        let Some(record) = state.by_name(source) else { return Ok(None) };
        let points = self.view.source_log(record.id).refresh()?;
        // The newest first: an orphan's point is among the last.
        // One that was deleted since was made all the same.
        let point = points.committed().iter().rev().find(|point| point.commit.job.as_deref() == Some(job.text()));
        Ok(point.map(|point| Testimony { point: point.name().to_owned(), problems: point.commit.stats.problems }))
    }
}

/// The desk of a mount that `owner` made and that shows `view`. `program` is what the processes of its jobs are; `log` is where the
/// mount's own diagnostics go, if to a file.
///
/// # Errors
/// [`JobError`] when the journal in `state_dir` cannot be opened.
pub fn open_desk(
    view: Arc<MountView>,
    config: Arc<ConfigFile>,
    state_dir: &Path,
    program: Program,
    owner: u32,
    log: Option<&Path>,
) -> Result<Desk, JobError> {
    let (repo, env) = (view.repo().id(), view.repo().env().clone());
    let options = DeskOptions::new(repo, state_dir, owner, program);
    let site = MountSite { log: log.map(Path::to_owned), ..MountSite::new(view, config) };
    Desk::open(options, Arc::new(site), env)
}

impl Site for MountSite {
    fn sources(&self) -> Result<Vec<String>, String> {
        let config = self.config.current().map_err(|error| error.to_string())?;
        Ok(config.sources.iter().map(|source| source.name.clone()).collect())
    }

    fn read_only(&self) -> Option<String> {
        let root = self.view.repo().store().local_root()?;
        let error = sys::may_write(root).err()?;
        match error.raw_os_error() {
            Some(libc::EROFS | libc::EACCES | libc::EPERM) => Some(format!("{}: {error}", root.display())),
            // Anything else is for the capture to meet and to name.
            _ => None,
        }
    }

    fn testimony(&self, source: &str, job: &Witness) -> Result<Option<Testimony>, String> {
        self.look_up(source, job).map_err(|error| error.to_string())
    }

    fn judge(&self, request: &Request) -> Result<(), (Reason, String)> {
        let (Some(source), Some(called)) = (request.source(), request.point()) else { return Ok(()) };
        let failed = |error: ChainError| (Reason::Io, format!("{source}: {error}"));
        let absent = |why: String| (Reason::NoSuch, format!("source {source}: {why}"));
        let known = self.sources.refresh().map_err(failed)?;
        let record = known.by_name(source).ok_or_else(|| absent("it has no point yet".to_owned()))?;
        let state = self.view.source_log(record.id).refresh().map_err(failed)?;
        let point = match called.strip_prefix('#').and_then(|digits| digits.parse().ok()) {
            Some(id) => state.ever(PointId(id)),
            None => state.ever_by_name(called),
        };
        let point = point.ok_or_else(|| match state.read().obstacle() {
            None => absent(format!("it has no point {called}")),
            Some(damage) => (Reason::Io, format!("source {source}: entry {} of its log cannot be read", damage.number)),
        })?;
        match request {
            Request::Undelete { .. } if !state.is_deleted(point.id) => {
                Err(absent(format!("its point {called} is not deleted")))
            }
            Request::Delete { .. } if state.is_deleted(point.id) => {
                Err(absent(format!("its point {called} is deleted already; undelete brings it back")))
            }
            Request::Delete { cascade: false, rebase: false, .. } => match state.dependents(&[point.id]).len() {
                0 => Ok(()),
                number => {
                    let points =
                        if number == 1 { "1 point depends".to_owned() } else { format!("{number} points depend") };
                    let text = format!(
                        "source {source}: {points} on its point {called}; cascade=yes deletes them as well, \
                         rebase=yes keeps them"
                    );
                    Err((Reason::Dependents, text))
                }
            },
            _ => Ok(()),
        }
    }

    fn committed(&self, _source: &str) {
        self.view.nudge();
    }

    fn metrics(&self) -> Vec<(String, u64)> {
        let counts = self.view.repo().store().meter().snapshot();
        let mut metrics = vec![
            ("amberfs_store_read_bytes_total".to_owned(), counts.bytes_read()),
            ("amberfs_store_written_bytes_total".to_owned(), counts.bytes_written()),
        ];
        let sum = |of: fn(&Count) -> u64| Operation::ALL.iter().map(|operation| of(&counts.of(*operation))).sum();
        metrics.push(("amberfs_store_retries_total".to_owned(), sum(|count| count.retries)));
        metrics.push(("amberfs_store_hedges_total".to_owned(), sum(|count| count.hedges)));
        if let Some((hits, misses)) = self.view.repo().disk_cache_hits() {
            metrics.push(("amberfs_disk_cache_hits_total".to_owned(), hits));
            metrics.push(("amberfs_disk_cache_misses_total".to_owned(), misses));
        }
        for operation in Operation::ALL {
            let (count, name) = (counts.of(operation), operation.name().replace('-', "_"));
            metrics.push((format!("amberfs_store_{name}_total"), count.requests));
            metrics.push((format!("amberfs_store_{name}_failures_total"), count.failures));
        }
        metrics
    }

    fn status(&self) -> Map<String, Value> {
        let mut status = Map::new();
        status.insert("store".into(), self.view.repo().store().describe().into());
        let store = self.view.repo().store();
        let single_writer = if store.is_remote() { store.is_single_writer() } else { Some(false) };
        status.insert("single_writer".into(), single_writer.into());
        status.insert("configuration".into(), self.config.path().to_string_lossy().into_owned().into());
        status.insert("log".into(), self.log.as_ref().map(|log| log.to_string_lossy()).into());
        let stale = self.view.stale_since();
        status.insert("refresh_failed_since".into(), stale.as_ref().map(|(since, _)| timestamp(*since)).into());
        status.insert("refresh_error".into(), stale.map(|(_, why)| why).into());
        if let Some(usage) = self.view.repo().disk_cache_usage() {
            let cache = serde_json::json!({
                "bytes": usage.bytes,
                "bytes_max": usage.bytes_max,
                "hits": usage.hits,
                "misses": usage.misses,
                "hit_percent": usage.hit_percent().unwrap_or(0),
            });
            status.insert("disk_cache".into(), cache);
        }
        match self.sources() {
            Ok(sources) => status.insert("sources".into(), sources.into()),
            Err(why) => status.insert("configuration_error".into(), why.into()),
        };
        status
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::{Env, Instant};
    use crate::chain::SourceLog;
    use crate::chain::testing::{commit, origin};
    use crate::format::log::SourceKind;
    use crate::job::control::JobId;
    use crate::repo::Repo;
    use crate::store::Store;
    use crate::store::fault::{Fault, Faults, Rule};
    use crate::view::MountSettings;
    use crate::view::namespace::{Namespace, NodeId};

    fn mount(repo: &Arc<Repo>) -> Arc<MountView> {
        let zone = || jiff::tz::TimeZone::UTC;
        let settings = MountSettings { owner: (0, 0), own_all: false, refresh: Duration::ZERO, zone, sum_up: false };
        Arc::new(MountView::open(Arc::clone(repo), settings).unwrap())
    }

    #[test]
    fn the_log_testifies_to_the_point_of_a_job() {
        let repo = Repo::init(Store::memory(), Env::seeded(1, Instant::from_nanos(1))).unwrap();
        let site = MountSite::new(mount(&repo), Arc::new(ConfigFile::at("/nonexistent/config.toml")));
        let of = |job: &str, accepted| Witness::new(&JobId(job.into()), accepted);
        let job = of("n-1", 7);
        assert_eq!(site.testimony("home", &job), Ok(None));
        let (store, env) = (repo.store().clone(), repo.env().clone());
        let record = RepoLog::open(store.clone(), env.clone(), repo.realm())
            .add_source("home", SourceKind::Tree, origin("ash", "/home"))
            .unwrap();
        assert_eq!(site.testimony("home", &job), Ok(None));
        let log = SourceLog::open(store, env, repo.realm(), record.id);
        for (second, job) in [(1, None), (2, Some(of("n-1", 7))), (3, Some(of("n-2", 8)))] {
            let session = log.begin().unwrap();
            let chain = log.open_chain(&session).unwrap();
            let mut commit = commit(session, chain.0, None, second);
            commit.job = job.map(|job| job.to_string());
            commit.stats.problems = 4;
            log.commit(commit).unwrap();
        }
        let point = "1970-01-01T00-00-02Z".to_owned();
        assert_eq!(site.testimony("home", &job), Ok(Some(Testimony { point, problems: 4 })));
        assert_eq!(site.testimony("home", &of("n-3", 9)), Ok(None));
        // The id again, when nobody remembers the first.
        assert_eq!(site.testimony("home", &of("n-1", 9)), Ok(None));
        assert_eq!(site.testimony("other", &job), Ok(None));
    }

    #[test]
    fn the_disk_cache_of_a_remote_store_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let env = Env::seeded(1, Instant::from_nanos(1));
        for (store, cached) in [(Store::memory(), false), (Store::memory_as_remote(env.clone()), true)] {
            store.keep_blocks_in(directory.path().to_owned(), 0);
            let repo = Repo::init(store, env.clone()).unwrap();
            let site = MountSite::new(mount(&repo), Arc::new(ConfigFile::at("/nonexistent/config.toml")));
            assert_eq!(site.status().contains_key("disk_cache"), cached);
            assert_eq!(
                site.metrics().iter().filter(|(name, _)| name.starts_with("amberfs_disk_cache")).count() > 0,
                cached
            );
            if cached {
                assert_eq!(site.status()["disk_cache"]["bytes_max"], crate::base::limits::DISK_CACHE_BYTES_MIN);
            }
        }
    }

    #[test]
    fn single_writer_mode_is_told_of_and_nobody_waits_for_the_store_to_say_so() {
        let (env, faults) = (Env::seeded(1, Instant::from_nanos(1)), Faults::new());
        let store = faults.around(&Store::memory_as_remote(env.clone()));
        let repo = Repo::init(store.clone(), env).unwrap();
        let view = mount(&repo);
        store.create(&crate::format::object::Object::SingleWriter.name(), b"".to_vec()).unwrap();
        faults.plan(Rule::new(Fault::Hang).on(Operation::List).within("lease"));
        let site = MountSite::new(view, Arc::new(ConfigFile::at("/nonexistent/config.toml")));
        faults.wait_for_stuck(1);
        assert_eq!(site.status()["single_writer"], Value::Null, "not known yet");
        faults.release();
        let began = std::time::Instant::now();
        while site.status()["single_writer"] != Value::Bool(true) {
            assert!(began.elapsed() < Duration::from_secs(30), "{:?}", site.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_deletion_is_judged_by_the_log_as_it_stands() {
        let repo = Repo::init(Store::memory(), Env::seeded(1, Instant::from_nanos(1))).unwrap();
        let site = MountSite::new(mount(&repo), Arc::new(ConfigFile::at("/nonexistent/config.toml")));
        let judge = |line: &str| match crate::job::line::parse(line.as_bytes()).unwrap().remove(0).1 {
            crate::job::request::Command::Run { request, .. } => site.judge(&request),
            other => panic!("{other:?}"),
        };
        let (store, env) = (repo.store().clone(), repo.env().clone());
        let no_such = |line: &str, words: &str| {
            let (reason, message) = judge(line).unwrap_err();
            assert!(reason == Reason::NoSuch && message.contains(words), "{line}: {message}");
        };
        no_such("delete home point=#2", "it has no point yet");
        let sources = RepoLog::open(store.clone(), env.clone(), repo.realm());
        let record = sources.add_source("home", SourceKind::Tree, origin("ash", "/home")).unwrap();
        let log = SourceLog::open(store.clone(), env, repo.realm(), record.id);
        let session = log.begin().unwrap();
        let chain = log.open_chain(&session).unwrap();
        let first = log.commit(commit(session, chain.0, None, 1)).unwrap();
        let second = log.commit(commit(log.begin().unwrap(), chain.0, Some(first.id.0), 2)).unwrap();
        let (first, second) = (format!("#{}", first.id), format!("#{}", second.id));
        let (reason, message) = judge(&format!("delete home point={first}")).unwrap_err();
        assert_eq!(reason, Reason::Dependents);
        assert!(message.contains("1 point depends on its point #2; cascade=yes"), "{message}");
        assert_eq!(judge("delete home point=1970-01-01T00-00-01Z rebase=yes"), Ok(()));
        assert_eq!(judge(&format!("delete home point={first} cascade=yes")), Ok(()));
        assert_eq!(judge(&format!("delete home point={second}")), Ok(()));
        no_such("delete home point=#99", "it has no point #99");
        no_such("delete home point=1970-01-01T00-00-09Z", "it has no point 1970");
        no_such(&format!("undelete home point={second}"), "is not deleted");
        // By another process: the judgement is not by what was known.
        let points = vec![PointId(second[1..].parse().unwrap())];
        log.append(crate::chain::state::SourceGoal::Delete(points, crate::chain::state::Dependents::Refuse)).unwrap();
        no_such(&format!("delete home point={second}"), "is deleted already");
        assert_eq!(judge(&format!("undelete home point={second}")), Ok(()));
        assert_eq!(judge(&format!("delete home point={first}")), Ok(()));
    }

    #[test]
    fn a_point_is_shown_once_it_is_told_of_although_the_log_was_asked_before() {
        let repo = Repo::init(Store::memory(), Env::seeded(1, Instant::from_nanos(1))).unwrap();
        let view = mount(&repo);
        let site = MountSite::new(Arc::clone(&view), Arc::new(ConfigFile::at("/nonexistent/config.toml")));
        let (store, env) = (repo.store().clone(), repo.env().clone());
        let record = RepoLog::open(store.clone(), env.clone(), repo.realm())
            .add_source("home", SourceKind::Tree, origin("ash", "/home"))
            .unwrap();
        let log = SourceLog::open(store, env, repo.realm(), record.id);
        let session = log.begin().unwrap();
        let chain = log.open_chain(&session).unwrap();
        // A capture that was cancelled makes the desk read the log, before anybody looks at the source.
        assert_eq!(site.testimony("home", &Witness::new(&JobId("n".into()), 1)), Ok(None));
        log.commit(commit(session, chain.0, None, 2)).unwrap();
        site.committed("home");
        let source = view.lookup(NodeId::ROOT, b"home").unwrap().attr.node;
        view.lookup(source, b"latest").unwrap();
    }

    #[test]
    fn status_tells_since_when_what_is_shown_may_be_old() {
        let faults = Faults::new();
        let env = Env::seeded(1, Instant::from_nanos(1));
        let repo = Repo::init(faults.around(&Store::memory()), env).unwrap();
        let view = mount(&repo);
        let site = MountSite::new(Arc::clone(&view), Arc::new(ConfigFile::at("/nonexistent/config.toml")));
        let names = || view.read_dir(NodeId::ROOT, 0, &mut |_| true);
        names().unwrap();
        assert_eq!(site.status()["refresh_failed_since"], Value::Null);
        faults.plan(Rule::new(Fault::Before).lasting().reported_as(std::io::ErrorKind::PermissionDenied));
        repo.env().advance(Duration::from_secs(5));
        names().unwrap();
        assert_eq!(site.status()["refresh_failed_since"], "1970-01-01T00:00:05.000Z");
        assert!(site.status()["refresh_error"].is_string());
        faults.clear();
        repo.env().advance(Duration::from_secs(5));
        names().unwrap();
        assert_eq!(site.status()["refresh_failed_since"], Value::Null);
        assert_eq!(site.status()["log"], Value::Null);
    }

    #[test]
    fn the_desk_sees_configuration_store_and_logs() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::seeded(1, Instant::from_nanos(1));
        let repo = Repo::init(Store::memory(), env).unwrap();
        let path = dir.path().join("config.toml");
        let site = MountSite::new(mount(&repo), Arc::new(ConfigFile::at(&path)));
        assert_eq!(site.sources(), Ok(vec![]));
        std::fs::write(&path, "[[source]]\nname = \"home\"\npath = \"/home\"\n").unwrap();
        assert_eq!(site.sources(), Ok(vec!["home".to_owned()]));
        assert_eq!(site.status()["sources"], serde_json::json!(["home"]));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(site.sources().unwrap_err().contains("config.toml"));
        assert!(site.status().contains_key("configuration_error"));
        assert_eq!(site.testimony("home", &Witness::new(&JobId("n".into()), 1)), Ok(None));
        let metrics = site.metrics();
        assert!(metrics.iter().any(|(name, value)| name == "amberfs_store_get_total" && *value > 0), "{metrics:?}");
        site.committed("home");
    }
}
