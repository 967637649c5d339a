//! `amberfs chains`: which points stand on which.

use serde::Serialize;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, size};

/// List the chains: each is a full point and the incremental points that build on it
#[derive(Debug, clap::Args)]
pub struct ChainsArgs {
    /// Of this source only
    source: Option<String>,
}

/// A chain, as `chains --json` prints it.
#[derive(Serialize)]
struct Listed<'a> {
    message_type: &'static str,
    source: &'a str,
    chain: u32,
    points: Vec<&'a str>,
    stored_bytes: u64,
    head: bool,
}

/// Runs it.
///
/// # Errors
/// When the repository or the source cannot be read.
pub fn run(args: &ChainsArgs, context: &Context) -> Result<Exit, Failure> {
    let opened = context.open()?;
    let mut out = Output::open();
    let mut rows = Vec::new();
    for (record, state) in opened.selected(args.source.as_deref())? {
        // A chain that a capture opened and never committed to is nobody's business.
        for chain in state.chains().filter(|chain| !chain.is_empty()) {
            let points: Vec<&str> = chain.points().map(|point| point.name()).collect();
            let stored_bytes = chain.points().map(|point| point.commit.stats.stored_bytes).sum();
            let head = state.head().is_some_and(|head| head.chain() == chain.id);
            if context.global.json {
                let source = &record.name;
                out.json(&Listed { message_type: "chain", source, chain: chain.id.0, points, stored_bytes, head })?;
                continue;
            }
            rows.push(vec![
                record.name.clone(),
                chain.id.to_string(),
                points.len().to_string(),
                size(stored_bytes),
                points.first().copied().unwrap_or_default().to_owned(),
                points.last().copied().unwrap_or_default().to_owned(),
                if head { "goes on".to_owned() } else { String::new() },
            ]);
        }
    }
    if !rows.is_empty() {
        out.table(&["SOURCE", "CHAIN>", "POINTS>", "STORED>", "FULL", "NEWEST", ""], &rows)?;
    }
    out.close()?;
    Ok(Exit::Done)
}
