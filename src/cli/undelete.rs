//! `amberfs undelete`: points out of the trash again.

use std::collections::BTreeMap;
use std::ffi::OsString;

use jiff::tz::TimeZone;

use super::context::Context;
use super::delete::{point_selector, points};
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::base::Class;
use crate::chain::state::SourceGoal;
use crate::format::PointId;
use crate::format::log::SourceRecord;
use crate::job::protocol::{Message, Undeleted};

/// Bring deleted points back, as they were
///
/// They are in all listings and mounts again, under their names and with their labels. What is not deleted
/// stays as it is. `amberfs points --trash` lists what can be brought back.
#[derive(Debug, clap::Args)]
pub struct UndeleteArgs {
    /// The points, by number or name: SOURCE#ID or SOURCE@NAME
    #[arg(value_name = "SELECTOR", required = true)]
    selectors: Vec<OsString>,
}

/// Runs it.
///
/// # Errors
/// When there is no such point, or the log cannot be read or written.
pub fn run(args: &UndeleteArgs, context: &Context) -> Result<Exit, Failure> {
    let opened = context.open()?;
    let mut sources: BTreeMap<String, (SourceRecord, Vec<PointId>)> = BTreeMap::new();
    for text in &args.selectors {
        let selector = point_selector(text)?;
        let record = opened.source(&selector.source)?;
        let state = opened.log(&record).load()?;
        let found = selector.pick.ever(&state, context.env.now(), &TimeZone::system());
        let point = found.map_err(|error| Failure::from(error).during(format!("source {}", record.name)))?;
        let point = point.ok_or_else(|| {
            Failure::new(Class::NotFound, format!("no point was ever {text:?}"))
                .hint(format!("amberfs points --trash {} lists what is deleted", record.name))
        })?;
        let id = point.id;
        sources.entry(record.name.clone()).or_insert_with(|| (record, Vec::new())).1.push(id);
    }
    let mut out = Output::open();
    for (record, ids) in sources.into_values() {
        let log = opened.log(&record);
        let before = log.refresh()?;
        log.append(SourceGoal::Undelete(ids.clone()))
            .map_err(|error| Failure::from(error).during(format!("source {}", record.name)))?;
        let mut back: Vec<_> =
            ids.iter().filter(|id| before.is_deleted(**id)).filter_map(|id| before.ever(*id)).collect();
        back.sort_by_key(|point| point.id);
        back.dedup_by_key(|point| point.id);
        if context.global.json {
            out.json(&Message::Undeleted(Undeleted {
                source: record.name.clone(),
                points: back.iter().map(|point| point.name().to_owned()).collect(),
                ids: back.iter().map(|point| point.id.0).collect(),
            }))?;
        } else if !context.global.quiet {
            let names: Vec<String> = back.iter().map(|point| format!("#{} {}", point.id, point.name())).collect();
            out.line(match names.as_slice() {
                [] => format!("nothing of this is deleted in {}", record.name),
                names => format!("brought back {} of {}: {}", points(names.len()), record.name, names.join(", ")),
            })?;
        }
    }
    out.close()?;
    Ok(Exit::Done)
}
