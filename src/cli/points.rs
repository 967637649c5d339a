//! `amberfs points`: what was captured when.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::capture::problem_kind;
use super::context::{Context, Opened};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, count, printable, size, timestamp};
use crate::base::Class;
use crate::chain::{Point, SourceState};
use crate::format::frame::FrameKind;
use crate::format::log::{Problem, SourceRecord};
use crate::format::problems;
use crate::job::witness::job_of;

/// List the points, oldest first
#[derive(Debug, clap::Args)]
pub struct PointsArgs {
    /// Of this source only
    source: Option<String>,
    /// Only those with this label
    #[arg(short, long)]
    label: Option<String>,
    /// Only the newest N of each source
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Also name what each of them could not capture exactly
    #[arg(long)]
    problems: bool,
    /// Those that were deleted and can be brought back, with what collecting them would free
    #[arg(long, visible_alias = "deleted")]
    trash: bool,
}

/// A point, as `points --json` prints it.
#[derive(Serialize)]
struct Listed<'a> {
    message_type: &'static str,
    source: &'a str,
    name: &'a str,
    id: u64,
    chain: u32,
    position: u32,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<&'a str>,
    labels: &'a [String],
    started: String,
    captured: String,
    committed: String,
    host: &'a str,
    path: String,
    reason: &'a str,
    writer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a str>,
    files: u64,
    directories: u64,
    others: u64,
    bytes: u64,
    changed_files: u64,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    problems: u64,
}

/// Runs it.
///
/// # Errors
/// When the repository or the source cannot be read.
pub fn run(args: &PointsArgs, context: &Context) -> Result<Exit, Failure> {
    let opened = context.open()?;
    if args.trash {
        let shown = |point: &Point| args.label.as_ref().is_none_or(|label| point.has_label(label));
        super::trash::list(&opened, args.source.as_deref(), shown, args.last, context)?;
        return Ok(Exit::Done);
    }
    let mut out = Output::open();
    let (mut rows, mut lacking) = (Vec::new(), Vec::new());
    for (record, state) in opened.selected(args.source.as_deref())? {
        let all = state.points().iter();
        let with_label = all.filter(|point| args.label.as_ref().is_none_or(|label| point.has_label(label)));
        let mut points: Vec<_> = with_label.collect();
        if let Some(last) = args.last {
            points.drain(..points.len().saturating_sub(last));
        }
        for point in points {
            if context.global.json {
                out.json(&listed(&record.name, &state, point))?;
            } else {
                rows.push(row(&record.name, point));
            }
            if args.problems {
                let of_point = problems(&opened, &record, point)?;
                lacking.extend(of_point.into_iter().map(|problem| (record.name.clone(), Arc::clone(point), problem)));
            }
        }
    }
    if context.global.json {
        for (source, point, problem) in &lacking {
            out.json(&json!({
                "message_type": "point-problem",
                "source": source,
                "point": point.name(),
                "path": String::from_utf8_lossy(&problem.path),
                "kind": problem_kind(problem.kind),
                "detail": problem.detail,
            }))?;
        }
    } else if !rows.is_empty() {
        out.table(
            &["SOURCE", "ID>", "POINT", "CHAIN>", "KIND", "FILES>", "SIZE>", "STORED>", "PROBLEMS>", "LABELS"],
            &rows,
        )?;
        for (source, point, problem) in &lacking {
            let (path, detail) = (printable(&problem.path), printable(problem.detail.as_bytes()));
            out.line(format!("{source}@{}: {}: {path}: {detail}", point.name(), problem_kind(problem.kind)))?;
        }
    }
    out.close()?;
    Ok(Exit::Done)
}

/// What a point could not capture exactly.
fn problems(opened: &Opened, source: &SourceRecord, point: &Point) -> Result<Vec<Problem>, Failure> {
    let Some(frame) = &point.commit.problems else { return Ok(Vec::new()) };
    let during = |failure: Failure| failure.during(format!("the problems of {}@{}", source.name, point.name()));
    let payload = opened.repo.reader(source.id).fetch(frame, FrameKind::Problems);
    let payload = payload.map_err(|error| during(error.into()))?;
    problems::decode(&payload).map_err(|error| during(Failure::new(Class::Corrupt, error.to_string())))
}

/// `full` or `incremental`.
pub fn kind(point: &Point) -> &'static str {
    if point.is_full() { "full" } else { "incremental" }
}

fn row(source: &str, point: &Point) -> Vec<String> {
    let stats = &point.commit.stats;
    vec![
        source.to_owned(),
        format!("#{}", point.id),
        point.name().to_owned(),
        point.chain().to_string(),
        kind(point).to_owned(),
        count(stats.files),
        size(stats.bytes),
        size(stats.stored_bytes),
        if stats.problems == 0 { "-".to_owned() } else { count(stats.problems) },
        point.commit.labels.iter().map(|label| printable(label.as_bytes())).collect::<Vec<_>>().join(", "),
    ]
}

fn listed<'a>(source: &'a str, state: &'a SourceState, point: &'a Point) -> Listed<'a> {
    let commit = &point.commit;
    Listed {
        message_type: "point",
        source,
        name: point.name(),
        id: point.id.0,
        chain: point.chain().0,
        position: point.position,
        kind: kind(point),
        parent: state.parent(point).map(|parent| parent.name()),
        labels: &commit.labels,
        started: timestamp(commit.started),
        captured: timestamp(commit.captured),
        committed: timestamp(point.committed),
        host: &commit.origin.host,
        path: String::from_utf8_lossy(&commit.origin.path).into_owned(),
        reason: &commit.reason,
        writer: &commit.writer,
        job: commit.job.as_deref().map(job_of),
        files: commit.stats.files,
        directories: commit.stats.directories,
        others: commit.stats.others,
        bytes: commit.stats.bytes,
        changed_files: commit.stats.changed_files,
        read_bytes: commit.stats.read_bytes,
        new_bytes: commit.stats.new_bytes,
        stored_bytes: commit.stats.stored_bytes,
        problems: commit.stats.problems,
    }
}
