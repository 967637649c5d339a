//! `amberfs points --trash`: what was deleted, and what collecting it would free.

use serde::Serialize;

use super::context::{Context, Opened};
use super::delete::points as counted;
use super::failure::Failure;
use super::output::{Output, count, printable, size, timestamp};
use super::points::kind;
use crate::chain::Point;
use crate::chain::weight::{Scale, weigh};
use crate::repo::RepoError;

/// A deleted point, as `points --trash --json` prints it.
#[derive(Serialize)]
struct Listed<'a> {
    message_type: &'static str,
    source: &'a str,
    name: &'a str,
    id: u64,
    chain: u32,
    kind: &'static str,
    labels: &'a [String],
    captured: String,
    deleted: String,
    /// The log entry that deleted it: the same for what went together.
    deletion: u64,
    files: u64,
    bytes: u64,
    /// What no living point holds; what several deleted points share counts in each. None where it cannot be told.
    frees: Option<u64>,
}

/// Prints the trash of these sources, or of all.
///
/// # Errors
/// When a log cannot be read.
pub fn list(
    opened: &Opened,
    source: Option<&str>,
    shown: impl Fn(&Point) -> bool,
    last: Option<usize>,
    context: &Context,
) -> Result<(), Failure> {
    let mut out = Output::open();
    let mut rows = Vec::new();
    let mut totals = Vec::new();
    for (record, state) in opened.selected(source)? {
        let mut trash: Vec<_> = state.trash().filter(|(point, _)| shown(point)).collect();
        if let Some(last) = last {
            trash.drain(..trash.len().saturating_sub(last));
        }
        let reader = opened.repo.reader(record.id);
        let mut scale: Option<(_, Result<Scale, RepoError>)> = None;
        for (point, deletion) in &trash {
            if scale.as_ref().is_none_or(|(chain, _)| *chain != point.chain()) {
                let living = state.chain(point.chain()).into_iter().flat_map(|chain| chain.points());
                scale = Some((point.chain(), Scale::of(reader.clone(), living.map(|point| &**point))));
            }
            let frees = match &scale {
                Some((_, Ok(scale))) => scale.weigh([&***point]).ok().map(|weight| weight.bytes()),
                _ => None,
            };
            if context.global.json {
                out.json(&Listed {
                    message_type: "deleted-point",
                    source: &record.name,
                    name: point.name(),
                    id: point.id.0,
                    chain: point.chain().0,
                    kind: kind(point),
                    labels: &point.commit.labels,
                    captured: timestamp(point.commit.captured),
                    deleted: timestamp(deletion.written),
                    deletion: deletion.entry.0,
                    files: point.commit.stats.files,
                    bytes: point.commit.stats.bytes,
                    frees,
                })?;
                continue;
            }
            let labels: Vec<String> = point.commit.labels.iter().map(|label| printable(label.as_bytes())).collect();
            rows.push(vec![
                record.name.clone(),
                format!("#{}", point.id),
                point.name().to_owned(),
                kind(point).to_owned(),
                count(point.commit.stats.files),
                size(point.commit.stats.bytes),
                crate::chain::name::of_instant(deletion.written),
                frees.map_or_else(|| "?".to_owned(), size),
                labels.join(", "),
            ]);
        }
        if !trash.is_empty() {
            let ids: Vec<_> = trash.iter().map(|(point, _)| point.id).collect();
            let number = counted(ids.len());
            totals.push(match weigh(&reader, &state, &ids) {
                Ok(weight) => format!("{}: {number}, of which no other holds {}", record.name, size(weight.bytes())),
                Err(error) => {
                    let why = printable(error.to_string().as_bytes());
                    format!("{}: {number}; what they hold cannot be told: {why}", record.name)
                }
            });
        }
    }
    if !rows.is_empty() {
        out.table(&["SOURCE", "ID>", "POINT", "KIND", "FILES>", "SIZE>", "DELETED", "FREES>", "LABELS"], &rows)?;
    }
    if !context.global.json {
        totals.iter().try_for_each(|total| out.line(total))?;
    }
    out.close()
}
