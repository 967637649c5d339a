//! What is known of a job, and the entries of the journal from which it is known.
//!
//! Invariant: a [`Table`] is what its entries, applied in order, amount to, and nothing else; two
//! mounts that read the same journal have equal tables. An entry that makes no sense where it
//! stands (an unknown job, a step backwards) changes nothing. Pure.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::control::JobId;
use super::protocol::Progress;
use super::request::Request;
use super::state::State;
use super::witness::Witness;
use crate::base::{Instant, limits};

/// The journal's version, in its first entry.
pub(super) const VERSION: u32 = 1;

/// One line of the journal. Instants are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub(super) enum Entry {
    /// The first line of a journal.
    Journal {
        /// [`VERSION`].
        version: u32,
    },
    /// One batch of commands: all of it or, in a torn line, none.
    Batch {
        /// When.
        at: i64,
        /// By whom.
        uid: u32,
        /// New jobs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        accepted: Vec<Accepted>,
        /// Jobs to be ended.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cancelled: Vec<JobId>,
    },
    /// The desk that had accepted a job is gone; another looks after it.
    Taken {
        /// The job.
        job: JobId,
        /// The desk.
        desk: String,
    },
    /// It begins. Written before its process exists, so that no crash can make it run twice.
    Started {
        /// The job.
        job: JobId,
        /// When.
        at: i64,
    },
    /// Its process runs.
    Runs {
        /// The job.
        job: JobId,
        /// The process.
        process: Process,
    },
    /// It stands elsewhere.
    Stepped {
        /// The job.
        job: JobId,
        /// Where.
        state: State,
    },
    /// It has ended.
    Ended {
        /// The job.
        job: JobId,
        /// How.
        ending: Ending,
    },
    /// All about one job: what a rewritten journal consists of.
    Job {
        /// All of it.
        record: Box<Record>,
    },
}

/// A new job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) job: JobId,
    pub(super) desk: String,
    pub(super) request: Request,
}

/// A process, so named that a later one with the same number is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number, which is its group's number too.
    pub pid: u32,
    /// When it started, in the clock ticks of `/proc/<pid>/stat`.
    pub ticks: u64,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// When, in nanoseconds since 1970.
    pub at: i64,
    /// An end.
    pub state: State,
    /// The name of the point that came of it; of a verification, what it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why it failed, or why the point is partial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The last that it said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// How far it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// All that the journal says about a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its handle.
    pub job: JobId,
    /// What it is to do.
    pub request: Request,
    /// Who asked.
    pub uid: u32,
    /// When, in nanoseconds since 1970.
    pub accepted: i64,
    /// The desk that looks after it.
    pub desk: String,
    /// Where it stands.
    pub state: State,
    /// When its process started, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<i64>,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Whether somebody asked for its end while it ran.
    #[serde(default)]
    pub cancelled: bool,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

impl Record {
    /// When it was accepted.
    pub fn accepted_at(&self) -> Instant {
        Instant::from_nanos(self.accepted)
    }

    /// How its point names it.
    pub fn witness(&self) -> Witness {
        Witness::new(&self.job, self.accepted)
    }
}

/// All jobs that the journal knows, in the order in which they were accepted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Table {
    jobs: BTreeMap<u64, Record>,
    index: HashMap<JobId, u64>,
    next: u64,
}

impl Table {
    /// Applies one entry; the jobs that it touched.
    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<JobId> {
        match entry {
            Entry::Journal { .. } => Vec::new(),
            Entry::Batch { at, uid, accepted, cancelled } => {
                for new in accepted {
                    self.insert(Record {
                        job: new.job.clone(),
                        request: new.request.clone(),
                        uid: *uid,
                        accepted: *at,
                        desk: new.desk.clone(),
                        state: State::Queued,
                        started: None,
                        process: None,
                        cancelled: false,
                        ending: None,
                    });
                }
                for job in cancelled {
                    self.cancel(job, *at);
                }
                accepted.iter().map(|new| new.job.clone()).chain(cancelled.iter().cloned()).collect()
            }
            Entry::Taken { job, desk } => self.change(job, |record| record.desk.clone_from(desk)),
            Entry::Started { job, at } => {
                let first = |record: &mut Record| {
                    let state = match record.request {
                        Request::Capture { .. } => State::Quiescing,
                        Request::Verify { .. } => State::Verifying,
                        Request::Delete { .. } | Request::Undelete { .. } => State::Writing,
                    };
                    if record.state.may_become(state) {
                        record.state = state;
                        record.started = Some(*at);
                    }
                };
                self.change(job, first)
            }
            Entry::Runs { job, process } => self.change(job, |record| record.process = Some(*process)),
            Entry::Stepped { job, state } => self.change(job, |record| {
                if !state.is_end() && record.state.may_become(*state) {
                    record.state = *state;
                }
            }),
            Entry::Ended { job, ending } => {
                let touched = self.change(job, |record| {
                    if ending.state.is_end() && record.state.may_become(ending.state) {
                        record.state = ending.state;
                        record.ending = Some(ending.clone());
                    }
                });
                self.prune();
                touched
            }
            Entry::Job { record } => {
                let job = record.job.clone();
                self.insert((**record).clone());
                self.prune();
                vec![job]
            }
        }
    }

    fn insert(&mut self, record: Record) {
        if self.index.contains_key(&record.job) {
            return;
        }
        self.index.insert(record.job.clone(), self.next);
        self.jobs.insert(self.next, record);
        self.next += 1;
    }

    fn cancel(&mut self, job: &JobId, at: i64) {
        self.change(job, |record| {
            if record.state == State::Queued {
                record.state = State::Cancelled;
                record.ending = Some(Ending {
                    at,
                    state: State::Cancelled,
                    result: None,
                    error: Some("cancelled before it began".to_owned()),
                    log: String::new(),
                    progress: None,
                });
            } else if !record.state.is_end() {
                record.cancelled = true;
            }
        });
        self.prune();
    }

    fn change(&mut self, job: &JobId, change: impl FnOnce(&mut Record)) -> Vec<JobId> {
        let Some(record) = self.index.get(job).and_then(|at| self.jobs.get_mut(at)) else { return Vec::new() };
        change(record);
        vec![job.clone()]
    }

    /// Forgets the oldest of too many ended jobs.
    fn prune(&mut self) {
        let ended = self.jobs.values().filter(|record| record.state.is_end()).count();
        let surplus = ended.saturating_sub(limits::JOBS_ENDED_MAX);
        let oldest = |(at, record): (&u64, &Record)| record.state.is_end().then(|| (*at, record.job.clone()));
        for (at, job) in self.jobs.iter().filter_map(oldest).take(surplus).collect::<Vec<_>>() {
            self.jobs.remove(&at);
            self.index.remove(&job);
        }
    }

    pub(super) fn get(&self, job: &JobId) -> Option<&Record> {
        self.index.get(job).and_then(|at| self.jobs.get(at))
    }

    /// Oldest first.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.jobs.values()
    }

    /// Those that have not ended, oldest first.
    pub(super) fn open(&self) -> impl Iterator<Item = &Record> {
        self.all().filter(|record| !record.state.is_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> JobId {
        JobId(name.to_owned())
    }

    fn batch(jobs: &[&str]) -> Entry {
        let request = Request::Capture { source: "home".into(), labels: vec![], full: false, timeout_seconds: None };
        let accepted =
            jobs.iter().map(|job| Accepted { job: id(job), desk: "d".into(), request: request.clone() }).collect();
        Entry::Batch { at: 1, uid: 0, accepted, cancelled: vec![] }
    }

    fn cancel(job: &str) -> Entry {
        Entry::Batch { at: 2, uid: 0, accepted: vec![], cancelled: vec![id(job)] }
    }

    fn started(job: &str) -> Entry {
        Entry::Started { job: id(job), at: 3 }
    }

    fn ended(job: &str, state: State) -> Entry {
        let ending = Ending { at: 4, state, result: None, error: None, log: String::new(), progress: None };
        Entry::Ended { job: id(job), ending }
    }

    #[test]
    fn a_cancelled_job_ends_at_once_when_it_waits_and_is_marked_when_it_runs() {
        let mut table = Table::default();
        for entry in [batch(&["a", "b"]), started("b"), cancel("a"), cancel("b"), cancel("nobody")] {
            table.apply(&entry);
        }
        assert_eq!(table.get(&id("a")).unwrap().state, State::Cancelled);
        let b = table.get(&id("b")).unwrap();
        assert!(b.cancelled && b.state == State::Quiescing);
        // Too late to start what was cancelled.
        table.apply(&started("a"));
        assert_eq!(table.get(&id("a")).unwrap().started, None);
    }

    #[test]
    fn an_end_is_an_end() {
        let mut table = Table::default();
        for entry in [batch(&["a"]), started("a"), ended("a", State::Committed), ended("a", State::Failed), cancel("a")]
        {
            table.apply(&entry);
        }
        let a = table.get(&id("a")).unwrap();
        assert_eq!((a.state, a.cancelled), (State::Committed, false));
        assert_eq!(table.open().count(), 0);
    }

    #[test]
    fn the_oldest_ended_jobs_are_forgotten_and_open_ones_never() {
        let mut table = Table::default();
        table.apply(&batch(&["open"]));
        for n in 0..limits::JOBS_ENDED_MAX + 5 {
            table.apply(&batch(&[&format!("j{n}")]));
            table.apply(&ended(&format!("j{n}"), State::Failed));
        }
        assert_eq!(table.all().count(), limits::JOBS_ENDED_MAX + 1);
        assert!(table.get(&id("open")).is_some() && table.get(&id("j4")).is_none() && table.get(&id("j5")).is_some());
    }
}
