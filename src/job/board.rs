//! What the mount shows of the desk: the job folders, `events`, `errors`, the last replies.
//!
//! Held under a lock of its own, which nobody holds while waiting for a disk or a process, so that
//! reading a status file never blocks. It follows the journal's table ([`Board::follow`]) and adds
//! what only we hear: the progress and the words of processes that we started.

use std::collections::HashMap;

use serde_json::json;

use super::control::{Content, JobFile, JobId};
use super::page::{Faults, Lines, Log, Page};
use super::protocol::{Message, Progress};
use super::record::{Record, Table};
use super::state::State;
use crate::base::Instant;

#[derive(Debug)]
pub(super) struct Board {
    pub(super) events: Lines,
    pub(super) faults: Faults,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    replies: HashMap<u32, Vec<u8>>,
    order: Vec<JobId>,
    sheets: HashMap<JobId, Sheet>,
    pub(super) damaged: u64,
    pub(super) status: Page,
    pub(super) metrics: Page,
    pub(super) help: Page,
}

/// One job as its folder shows it.
#[derive(Debug)]
struct Sheet {
    state: State,
    progress: Option<Progress>,
    log: Log,
    result: Option<String>,
    error: Option<String>,
    changed: Instant,
    pages: [Page; 5],
}

impl Board {
    pub(super) fn new(now: Instant) -> Board {
        Board {
            events: Lines::new(now),
            faults: Faults::new(now),
            accepted: 0,
            refused: 0,
            replies: HashMap::new(),
            order: Vec::new(),
            sheets: HashMap::new(),
            damaged: 0,
            status: Page::new(now),
            metrics: Page::new(now),
            help: Page::new(now),
        }
    }

    /// Makes the board show what the table holds, and tells of each step in `events`. Steps that
    /// were taken before this mount began are history and told of by their folders only.
    pub(super) fn follow(&mut self, table: &Table, now: Instant, history: bool) {
        self.order = table.all().map(|record| record.job.clone()).collect();
        self.sheets.retain(|job, _| table.get(job).is_some());
        for record in table.all() {
            let known = self.sheets.contains_key(&record.job);
            let sheet = self.sheets.entry(record.job.clone()).or_insert_with(|| Sheet {
                state: record.state,
                progress: None,
                log: Log::default(),
                result: None,
                error: None,
                changed: if history { record.accepted_at() } else { now },
                pages: std::array::from_fn(|_| Page::new(now)),
            });
            if !known || sheet.state != record.state {
                sheet.show(record, now, history);
                if !history {
                    self.events.add(now, told(record));
                }
            }
        }
    }

    /// Takes in what a job's process said.
    pub(super) fn hear(&mut self, job: &JobId, message: Message, now: Instant) {
        let Some(sheet) = self.sheets.get_mut(job) else { return };
        sheet.changed = now;
        match message {
            Message::Progress(progress) => sheet.progress = Some(progress),
            Message::Problem(problem) => {
                sheet.log.add(&format!("{}: {}: {}", problem.kind, problem.path, problem.detail));
            }
            Message::Summary(summary) => sheet.log.add(&format!(
                "point {} of {} ({}): {} files, {} bytes, {} stored, {} problems",
                summary.point,
                summary.source,
                summary.reason,
                summary.files,
                summary.bytes,
                summary.stored_bytes,
                summary.problems
            )),
            Message::Verified(verified) => sheet.log.add(&format!(
                "checked {} points, {} objects, {} bytes: {} damaged",
                verified.points, verified.objects, verified.bytes, verified.damaged
            )),
            Message::Deleted(deleted) => {
                sheet.log.add(&format!("deleted from {}: {}", deleted.source, deleted.points.join(", ")));
            }
            Message::Undeleted(back) => {
                sheet.log.add(&format!("brought back in {}: {}", back.source, back.points.join(", ")));
            }
            Message::Error(error) => sheet.log.add(&format!("error ({}): {}", error.class, error.message)),
        }
    }

    /// Adds a line to a job's log.
    pub(super) fn remark(&mut self, job: &JobId, line: &str, now: Instant) {
        if let Some(sheet) = self.sheets.get_mut(job) {
            sheet.changed = now;
            sheet.log.add(line);
        }
    }

    /// What an ended job keeps: the end of its log, and how far it came.
    pub(super) fn kept(&self, job: &JobId) -> (String, Option<Progress>) {
        self.sheets.get(job).map_or_else(Default::default, |sheet| (sheet.log.tail(), sheet.progress.clone()))
    }

    /// Where a job stands as far as this mount knows.
    pub(super) fn state(&self, job: &JobId) -> Option<State> {
        self.sheets.get(job).map(|sheet| sheet.state)
    }

    pub(super) fn set_reply(&mut self, uid: u32, reply: String) {
        self.replies.insert(uid, reply.into_bytes());
    }

    pub(super) fn reply(&self, uid: u32) -> Vec<u8> {
        self.replies.get(&uid).cloned().unwrap_or_default()
    }

    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.order.clone()
    }

    pub(super) fn job_file(&mut self, job: &JobId, file: JobFile) -> Option<Content> {
        let sheet = self.sheets.get_mut(job)?;
        let line =
            |text: &Option<String>| text.as_ref().map(|text| format!("{text}\n").into_bytes()).unwrap_or_default();
        let (at, bytes) = match file {
            JobFile::State => (0, format!("{}\n", sheet.state).into_bytes()),
            JobFile::Progress => {
                let json = sheet.progress.as_ref().and_then(|progress| serde_json::to_string(progress).ok());
                (1, line(&json))
            }
            JobFile::Log => (2, sheet.log.bytes()),
            JobFile::Result => (3, line(&sheet.result)),
            JobFile::Error => (4, line(&sheet.error)),
        };
        let changed = sheet.changed;
        let gone = if file == JobFile::Log { sheet.log.gone() } else { 0 };
        sheet.pages.get_mut(at).map(|page| Content { gone, ..page.become_bytes(bytes, changed) })
    }

    /// How many jobs stand in each state.
    pub(super) fn census(&self) -> [(State, u64); State::ALL.len()] {
        State::ALL.map(|state| (state, self.sheets.values().filter(|sheet| sheet.state == state).count() as u64))
    }

    /// Jobs that have begun and not ended, oldest first, each with its state and progress.
    pub(super) fn under_way(&self) -> Vec<(&JobId, State, Option<&Progress>)> {
        let stands = |job| self.sheets.get(job).map(|sheet| (job, sheet.state, sheet.progress.as_ref()));
        let open = |(_, state, _): &(&JobId, State, Option<&Progress>)| !state.is_end() && *state != State::Queued;
        self.order.iter().filter_map(stands).filter(open).collect()
    }
}

impl Sheet {
    fn show(&mut self, record: &Record, now: Instant, history: bool) {
        self.state = record.state;
        self.changed = now;
        let Some(ending) = &record.ending else { return };
        if history {
            self.changed = Instant::from_nanos(ending.at);
        }
        self.result.clone_from(&ending.result);
        self.error.clone_from(&ending.error);
        if self.progress.is_none() {
            self.progress.clone_from(&ending.progress);
        }
        if self.log.is_empty() {
            self.log = Log::of(&ending.log);
        }
    }
}

/// The event of a job's step.
fn told(record: &Record) -> serde_json::Value {
    let mut members =
        json!({ "event": "job", "job": record.job, "state": record.state, "command": record.request.to_line() });
    if let (Some(ending), Some(members)) = (&record.ending, members.as_object_mut()) {
        for (name, text) in [("result", &ending.result), ("error", &ending.error)] {
            if let Some(text) = text {
                members.insert(name.to_owned(), text.as_str().into());
            }
        }
    }
    members
}
