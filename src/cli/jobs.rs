//! `amberfs jobs`: what was asked of the mounts of this machine, and what became of it.

use serde::Serialize;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, timestamp};
use crate::base::suggest::did_you_mean;
use crate::base::{Class, Instant};
use crate::job::protocol::Progress;
use crate::job::{Record, is_unjudged, list};

/// List the jobs that mounts on this machine took, oldest first
#[derive(Debug, clap::Args)]
pub struct JobsArgs {
    /// Show this job only, with all that it said
    job: Option<String>,
}

/// The state of a job whose process ended while no mount looked after it.
const UNKNOWN: &str = "unknown";
const UNJUDGED: &str = "its process has ended; the next mount looks for its point and says what became of it";

/// A job, as `jobs --json` prints it.
#[derive(Serialize)]
struct Listed<'a> {
    message_type: &'static str,
    job: &'a str,
    state: &'static str,
    request: String,
    uid: u32,
    accepted: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<&'a Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a str>,
}

/// Runs it.
///
/// # Errors
/// When the journal cannot be read, or has no such job.
pub fn run(args: &JobsArgs, context: &Context) -> Result<Exit, Failure> {
    let opened = context.open()?;
    let (places, repo) = (context.places.state()?, opened.repo.id());
    let mut records = list(&places, repo)?;
    let listed = |record, with_log| listed(record, is_unjudged(&places, repo, record), with_log);
    if let Some(job) = &args.job {
        if !records.iter().any(|record| record.job.0 == *job) {
            let suggestion = did_you_mean(job, records.iter().map(|record| record.job.0.as_str()));
            return Err(Failure::new(Class::NotFound, format!("no job {job:?} on this machine{suggestion}")));
        }
        records.retain(|record| record.job.0 == *job);
    }
    let mut out = Output::open();
    if context.global.json {
        for record in &records {
            out.json(&listed(record, args.job.is_some()))?;
        }
    } else if args.job.is_some() {
        for record in &records {
            details(&listed(record, true), &mut out)?;
        }
    } else if !records.is_empty() {
        let rows: Vec<Vec<String>> = (records.iter())
            .map(|record| {
                let job = listed(record, false);
                let outcome = job.result.or(job.error).unwrap_or_default().to_owned();
                vec![job.job.to_owned(), job.state.to_owned(), job.accepted, job.request, outcome]
            })
            .collect();
        out.table(&["JOB", "STATE", "ACCEPTED", "REQUEST", "OUTCOME"], &rows)?;
    }
    out.close()?;
    Ok(Exit::Done)
}

fn listed(record: &Record, unjudged: bool, with_log: bool) -> Listed<'_> {
    let instant = |nanos: i64| timestamp(Instant::from_nanos(nanos));
    let ending = record.ending.as_ref();
    Listed {
        message_type: "job",
        job: &record.job.0,
        state: if unjudged { UNKNOWN } else { record.state.word() },
        request: record.request.to_line(),
        uid: record.uid,
        accepted: timestamp(record.accepted_at()),
        started: record.started.map(instant),
        ended: ending.map(|ending| instant(ending.at)),
        result: ending.and_then(|ending| ending.result.as_deref()),
        error: ending.and_then(|ending| ending.error.as_deref()).or_else(|| unjudged.then_some(UNJUDGED)),
        progress: ending.and_then(|ending| ending.progress.as_ref()),
        log: ending.map(|ending| ending.log.as_str()).filter(|log| with_log && !log.is_empty()),
    }
}

fn details(job: &Listed<'_>, out: &mut Output) -> Result<(), Failure> {
    let uid = job.uid.to_string();
    for (name, value) in [
        ("job", Some(job.job)),
        ("state", Some(job.state)),
        ("request", Some(job.request.as_str())),
        ("user", Some(uid.as_str())),
        ("accepted", Some(job.accepted.as_str())),
        ("started", job.started.as_deref()),
        ("ended", job.ended.as_deref()),
        ("result", job.result),
        ("error", job.error),
    ] {
        if let Some(value) = value {
            out.line(format!("{name:<9} {value}"))?;
        }
    }
    match job.log {
        Some(log) => out.line(format!("\n{}", log.trim_end())),
        None => Ok(()),
    }
}
