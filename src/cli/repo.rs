//! `amberfs repo`: what concerns the repository's place and not what is in it.

use clap::Subcommand;
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::sys;
use crate::chain::heads;
use crate::store::Store;
use crate::store::conformance::{self, Extent, Finding};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum RepoCommand {
    /// Try out whether a store keeps what amberfs relies on
    Check(CheckArgs),
    /// Forget which entries of its logs this host has seen, and take the repository for what it shows now
    AcceptHistory,
}

/// Try out whether a store keeps what amberfs relies on
///
/// Writes, reads, lists and deletes some thousand small objects and a few large ones below `probe/` in the place that -r names,
/// where there need not be a repository, and may be one in use. Takes a minute, and some 3,500 requests. One check of a place at a
/// time: it begins by deleting what others have left there.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// MiB of the object that goes up in parts
    #[arg(long, value_name = "MIB", default_value_t = 20, value_parser = clap::value_parser!(u16).range(9..=4096))]
    large: u16,
}

/// After a repository was put back to an older state on purpose.
fn accept_history(context: &Context) -> Result<Exit, Failure> {
    context.forget_known(&context.repository()?)?;
    let opened = context.open()?;
    let directory = context.places.state()?.join("heads");
    heads::forget(&directory, opened.repo.id())
        .map_err(|error| Failure::io(format!("forget what is remembered in {directory:?}"), &error))?;
    if !context.global.quiet {
        let mut out = Output::open();
        match context.global.json {
            true => out.json(&json!({ "message_type": "accepted", "id": opened.repo.id().to_string() }))?,
            false => out.line("this host takes the repository for what it shows now")?,
        }
        out.close()?;
    }
    Ok(Exit::Done)
}

/// Runs it.
///
/// # Errors
/// When the store cannot be reached or written to.
pub fn run(command: &RepoCommand, context: &Context) -> Result<Exit, Failure> {
    let args = match command {
        RepoCommand::Check(args) => args,
        RepoCommand::AcceptHistory => return accept_history(context),
    };
    let address = context.repository()?;
    let store = Store::open(&address, &context.access(&address)?)?.with_deadlines(context.deadlines(&address)?);
    let extent = Extent { parts_bytes: usize::from(args.large) << 20, ..Extent::default() };
    let mut out = Output::open();
    let mut told = Ok(());
    let stop = || sys::asked_to_stop().is_some();
    let findings = conformance::check(&store, &context.env, extent, &stop, |finding| {
        if !context.global.json && !context.global.quiet && told.is_ok() {
            told = tell(&mut out, finding);
        }
    })?;
    told?;
    if stop() {
        let failure =
            Failure::new(crate::base::Class::Cancelled, "the check was ended early; what it had written is deleted");
        return Err(failure.unless_stopped());
    }
    let broken = findings.iter().filter(|finding| finding.broken.is_some()).count();
    let creates = findings.iter().filter(|finding| finding.name.starts_with("create-"));
    let commits = creates.clone().count() > 0 && creates.clone().all(|finding| finding.broken.is_none());
    if context.global.json {
        let rows = findings.iter().map(|finding| {
            json!({ "name": finding.name, "promise": finding.promise, "kept": finding.broken.is_none(), "broken": finding.broken })
        });
        out.json(&json!({
            "message_type": "checked",
            "store": store.describe(),
            "kept": broken == 0,
            "several_writers": commits,
            "findings": rows.collect::<Vec<_>>(),
        }))?;
    } else if broken == 0 {
        out.line(format!("{} keeps all that amberfs relies on", store.describe()))?;
    }
    out.close()?;
    if broken == 0 {
        return Ok(Exit::Done);
    }
    let failure = Failure::new(
        crate::base::Class::Unsupported,
        format!("{} breaks {broken} of {} promises", store.describe(), findings.len()),
    );
    Err(match commits {
        true => failure.hint("what is broken is named above; amberfs should not be used on it"),
        false => failure
            .hint("it does not honour \"create only if absent\": two writers could overwrite one another's commits"),
    })
}

fn tell(out: &mut Output, finding: &Finding) -> Result<(), Failure> {
    match &finding.broken {
        None => out.line(format!("kept    {:<20} {}", finding.name, finding.promise))?,
        Some(why) => out.line(format!("BROKEN  {:<20} {}: {why}", finding.name, finding.promise))?,
    }
    out.flush()
}
