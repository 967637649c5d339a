//! `amberfs key rotate`: new keys, into our own slot, then into the logs, and at last no older slot is left.
//!
//! A log that cannot be written to keeps nobody in: the other logs and the slots are done all the same, and the command
//! fails in the end and names the source. Given again, it takes up the same generation of keys, and begins another only
//! when that is asked for.

use serde::Serialize;

use super::context::{Context, Opened};
use super::failure::Failure;
use super::key::{agree, called};
use super::output::Output;
use crate::base::Class;
use crate::chain::Unreached;
use crate::chain::state::LogState;
use crate::format::Epoch;
use crate::repo::SlotInfo;

/// `amberfs key rotate`.
#[derive(Debug, clap::Args)]
pub struct RotateArgs {
    /// Do not ask before the other keys are removed
    #[arg(short, long)]
    yes: bool,
    /// Make new keys also where the last rotation could not be ended, because the log of a source is damaged
    #[arg(long)]
    anew: bool,
}

#[derive(Serialize)]
struct Rotated {
    message_type: &'static str,
    epoch: u32,
    /// Whether these keys were made by an earlier call, which did not come to its end.
    resumed: bool,
    /// Keys that have to be added again.
    removed: Vec<String>,
    /// Sources whose logs could not be written to.
    unreached: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// When the key does not allow it, nobody agreed, somebody else rotates, or the log of a source cannot be written to.
pub fn rotate(args: &RotateArgs, opened: &Opened, context: &Context, out: &mut Output) -> Result<(), Failure> {
    let counts = counts(args, opened)?;
    let current = opened.repo.realm().keys().map_or(Epoch(0), |keys| keys.current());
    let resumed = opened.repo.resumes_rotation(counts);
    let goes = |slot: &SlotInfo| !slot.own && if resumed { slot.epoch < current } else { slot.epoch <= current };
    let doomed: Vec<String> = opened.repo.slots()?.iter().filter(|slot| goes(slot)).map(called).collect();
    if !doomed.is_empty() {
        let which = doomed.join(", ");
        if !context.global.json && !context.global.quiet {
            out.line(format!("these keys are removed, and have to be added again: {which}"))?;
            out.flush()?;
        }
        let refused = format!("{} would be removed ({which})", keys(doomed.len()));
        agree(context, args.yes, &format!("rotate, and remove {}?", keys(doomed.len())), &refused)?;
    }
    let rotation = opened.repo.begin_rotation(counts)?;
    // Only who has the new keys can seal with them.
    let opened = context.reopen(opened)?;
    let has = opened.repo.realm().keys().map_or(Epoch(0), |keys| keys.current());
    if has != rotation.epoch {
        let text =
            format!("the keys of epoch {} were written and cannot be opened; nothing else was done", rotation.epoch);
        return Err(Failure::new(Class::Corrupt, text).hint("`amberfs verify` names the damaged key slot"));
    }
    let unreached = named(opened.sources.raise_epoch(rotation.epoch)?);
    let dropped = opened.repo.finish_rotation()?;
    if context.global.json {
        out.json(&Rotated {
            message_type: "rotated",
            epoch: rotation.epoch.0,
            resumed,
            removed: dropped.iter().filter_map(|slot| slot.name.clone()).collect(),
            unreached: unreached.iter().map(|(name, _)| name.clone()).collect(),
        })?;
    } else if !context.global.quiet {
        let how = if resumed { ", which an earlier call had made" } else { "" };
        out.line(format!("what is written from now on is sealed with keys of epoch {}{how}", rotation.epoch))?;
        if !dropped.is_empty() {
            let names: Vec<String> = dropped.iter().map(called).collect();
            out.line(format!(
                "add these keys again, whose passphrases and key files are not known here: {}",
                names.join(", ")
            ))?;
        }
        out.line("mounts that are running must be mounted again")?;
    }
    match unreached.into_iter().next() {
        None => Ok(()),
        Some((_, failure)) => Err(failure.hint(format!(
            "all other logs and the keys are done; `amberfs key rotate` goes on with epoch {} when this log is repaired, \
             and with --anew makes other keys before that",
            rotation.epoch
        ))),
    }
}

/// The generation of keys that counts in every log: what is below our own was interrupted.
fn counts(args: &RotateArgs, opened: &Opened) -> Result<Epoch, Failure> {
    let state = opened.sources.refresh()?;
    // Newer keys would go before those that may be needed to read it, and could not be told of in it.
    if let Some(damage) = state.read().obstacle() {
        let text =
            format!("the repository's log is damaged, at entry {}: {}; nothing was done", damage.number, damage.fault);
        return Err(Failure::new(Class::Corrupt, text).hint("`amberfs verify` tells more"));
    }
    let mut counts = state.epoch();
    if args.anew {
        return Ok(counts);
    }
    for record in state.sources() {
        let state = opened.log(record).load()?;
        if !state.is_sealed() {
            counts = counts.min(state.epoch());
        }
    }
    Ok(counts)
}

/// Names the sources to whose logs something could not be written, and why.
pub fn named(unreached: Vec<Unreached>) -> Vec<(String, Failure)> {
    let named = unreached.into_iter().map(|Unreached { source, error }| {
        let failure = Failure::from(error).during(format!("source {}", source.name));
        tracing::warn!("{}", failure.text());
        (source.name, failure)
    });
    named.collect()
}

fn keys(number: usize) -> String {
    if number == 1 { "1 other key".to_owned() } else { format!("{number} other keys") }
}
