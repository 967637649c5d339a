//! `amberfs status`: the repository and its sources at a glance.

use serde::Serialize;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, count, printable, size, timestamp};
use crate::format::log::SourceKind;
use crate::repo::RepoError;
use crate::restore::rollback::unfinished;
use crate::store::CacheUsage;

/// Show the repository and its sources
#[derive(Debug, clap::Args)]
pub struct StatusArgs {}

#[derive(Serialize)]
struct Status {
    message_type: &'static str,
    repository: String,
    id: String,
    /// Of an encrypted repository the store is not to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    encrypted: bool,
    /// Whether it is written to in single-writer mode.
    single_writer: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished: Option<Unfinished>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_cache: Option<DiskCacheStatus>,
    sources: Vec<SourceStatus>,
}

/// What writers have not completed: those that are under way, and those that were killed.
#[derive(Serialize)]
struct Unfinished {
    files: u64,
    bytes: u64,
}

/// What this machine keeps of what was fetched over a network, of all repositories.
#[derive(Serialize)]
struct DiskCacheStatus {
    /// Not known of a disk that does not answer.
    bytes: Option<u64>,
    bytes_max: u64,
    hits: u64,
    misses: u64,
    hit_percent: Option<u64>,
}

#[derive(Serialize)]
struct SourceStatus {
    name: String,
    kind: &'static str,
    host: String,
    path: String,
    points: usize,
    chains: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<Newest>,
    stored_bytes: u64,
    damaged_log: bool,
    /// The point that a rollback on this machine has begun to go back to, and not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    rolling_back_to: Option<String>,
}

#[derive(Serialize)]
struct Newest {
    name: String,
    id: u64,
    captured: String,
    files: u64,
    bytes: u64,
    problems: u64,
}

/// Runs it.
///
/// # Errors
/// When the repository cannot be read.
pub fn run(_: &StatusArgs, context: &Context) -> Result<Exit, Failure> {
    let opened = context.open()?;
    let notes = context.places.state().ok();
    let mut sources = Vec::new();
    for (record, state) in opened.selected(None)? {
        sources.push(SourceStatus {
            kind: kind(record.kind),
            host: record.origin.host.clone(),
            path: String::from_utf8_lossy(&record.origin.path).into_owned(),
            points: state.points().len(),
            chains: state.chains().filter(|chain| !chain.is_empty()).count(),
            newest: state.newest().map(|point| Newest {
                name: point.name().to_owned(),
                id: point.id.0,
                captured: timestamp(point.commit.captured),
                files: point.commit.stats.files,
                bytes: point.commit.stats.bytes,
                problems: point.commit.stats.problems,
            }),
            stored_bytes: state.points().iter().map(|point| point.commit.stats.stored_bytes).sum(),
            damaged_log: !state.read().damage.is_empty(),
            rolling_back_to: (notes.as_deref())
                .and_then(|notes| unfinished(notes, opened.repo.id(), record.id))
                .map(|unfinished| unfinished.title),
            name: record.name,
        });
    }
    let store = opened.repo.store();
    let single_writer =
        store.is_remote() && store.wants_single_writer().map_err(RepoError::store("look for leases"))?;
    let damaged = opened.sources.load()?.read().obstacle().is_some() || sources.iter().any(|source| source.damaged_log);
    let (files, bytes) = opened.repo.store().unfinished().map_err(RepoError::store("look for what is unfinished"))?;
    let is_encrypted = opened.repo.marker().encryption.is_some();
    let status = Status {
        message_type: "status",
        repository: opened.repo.store().describe(),
        id: opened.repo.id().to_string(),
        created: (!is_encrypted).then(|| timestamp(opened.repo.marker().created)),
        encrypted: is_encrypted,
        single_writer,
        unfinished: Some(Unfinished { files, bytes }).filter(|unfinished| unfinished.files > 0),
        disk_cache: opened.repo.disk_cache_measured().map(|usage| {
            let CacheUsage { bytes, bytes_max, hits, misses } = usage;
            DiskCacheStatus { bytes, bytes_max, hits, misses, hit_percent: usage.hit_percent() }
        }),
        sources,
    };
    let mut out = Output::open();
    if context.global.json {
        out.json(&status)?
    } else {
        print(&status, &mut out)?
    }
    out.close()?;
    Ok(if damaged { Exit::Damage } else { Exit::Done })
}

/// The word for a kind of source.
pub fn kind(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Tree => "tree",
        SourceKind::Stream => "stream",
        SourceKind::Disk => "disk",
    }
}

fn print(status: &Status, out: &mut Output) -> Result<(), Failure> {
    out.line(format!("repository  {}", status.repository))?;
    out.line(format!("id          {}", status.id))?;
    if let Some(created) = &status.created {
        out.line(format!("created     {created}"))?;
    }
    out.line(format!("encrypted   {}", if status.encrypted { "yes" } else { "no" }))?;
    if status.single_writer {
        out.line(
            "writers     one at a time: SINGLE-WRITER MODE, because the store does not honour conditional creation",
        )?;
    }
    if let Some(Unfinished { files, bytes }) = status.unfinished {
        let of = "of captures under way, or of some that were killed: no point needs them";
        out.line(format!("unfinished  {} files, {}, {of}", count(files), size(bytes)))?;
    }
    if let Some(DiskCacheStatus { bytes, bytes_max, hit_percent, .. }) = status.disk_cache {
        let bytes = bytes.map_or_else(|| "unknown, its disk does not answer".to_owned(), size);
        let hits = hit_percent.map_or_else(String::new, |percent| format!("; had {percent} % of what was asked for"));
        out.line(format!("disk cache  {bytes} of at most {}{hits}", size(bytes_max)))?;
    }
    if status.sources.is_empty() {
        return out.line("sources     none yet: amberfs capture NAME=PATH makes one");
    }
    out.line("")?;
    let rows: Vec<Vec<String>> = (status.sources.iter())
        .map(|source| {
            let newest = source.newest.as_ref();
            let mut notes = Vec::new();
            if newest.is_some_and(|point| point.problems > 0) {
                notes.push("newest is partial".to_owned());
            }
            if let Some(title) = &source.rolling_back_to {
                notes.push(format!("unfinished rollback: amberfs rollback {title} continues it"));
            }
            if source.damaged_log {
                notes.push("log damaged: run amberfs verify".to_owned());
            }
            vec![
                source.name.clone(),
                source.kind.to_owned(),
                printable(format!("{}:{}", source.host, source.path).as_bytes()),
                source.points.to_string(),
                source.chains.to_string(),
                newest.map_or_else(|| "-".to_owned(), |point| point.name.clone()),
                newest.map_or_else(|| "-".to_owned(), |point| size(point.bytes)),
                size(source.stored_bytes),
                notes.join(", "),
            ]
        })
        .collect();
    out.table(&["SOURCE", "KIND", "ORIGIN", "POINTS>", "CHAINS>", "NEWEST", "SIZE>", "STORED>", ""], &rows)
}
