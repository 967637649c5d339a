//! `amberfs source`: the sources that can be captured by name alone, also through a mount's control file.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, printable};
use super::scope::ScopeArgs;
use super::status::kind;
use crate::format::log::SourceRecord;
use crate::job::line::words_of;
use crate::job::{ConfigFile, SourceConfig};

/// What to do with configured sources.
#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Configure a source
    Add(AddArgs),
    /// List the configured sources, and those that only the repository has
    #[command(visible_alias = "ls")]
    List,
    /// Remove a source from the configuration; its points stay in the repository
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        name: String,
    },
}

/// Configure a source
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its name: letters, digits, `.`, `_` and `-`
    name: String,
    /// The directory to capture, or with --disk the block device or image
    path: PathBuf,
    /// A block device or an image of one, not a directory
    #[arg(long, conflicts_with_all = ["exclude", "exclude_file", "exclude_caches", "cross_filesystems"])]
    disk: bool,
    /// Compare and store the disk in pieces of so many KiB: 16 to 1024, a power of two
    #[arg(long, value_name = "KIB", requires = "disk")]
    chunk_kib: Option<u32>,
    /// Start a new chain when one has this many points
    #[arg(long, value_name = "POINTS")]
    chain_max_points: Option<NonZeroU32>,
    /// The command that makes whatever uses the source stop before a rollback; run without a shell
    #[arg(long, value_name = "COMMAND")]
    stop: Option<String>,
    /// The command that lets it go on after a rollback, unless that left the source half rolled back; run without a shell
    #[arg(long, value_name = "COMMAND")]
    start: Option<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Give each point this label (repeatable)
    #[arg(short, long = "label", value_name = "LABEL")]
    labels: Vec<String>,
}

/// A configured source, as `source list --json` prints it.
#[derive(Serialize)]
struct Listed<'a> {
    message_type: &'static str,
    name: &'a str,
    path: String,
    disk: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_kib: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chain_max_points: Option<NonZeroU32>,
    stop: &'a [String],
    start: &'a [String],
    exclude: &'a [String],
    exclude_file: Vec<String>,
    exclude_caches: bool,
    one_file_system: bool,
    labels: &'a [String],
    configured: bool,
}

/// Runs it.
///
/// # Errors
/// When the configuration cannot be read or changed.
pub fn run(command: SourceCommand, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    match command {
        SourceCommand::Add(args) => {
            let mut source = SourceConfig {
                disk: args.disk,
                chunk_kib: args.chunk_kib,
                chain_max_points: args.chain_max_points,
                stop: words(args.stop)?,
                start: words(args.start)?,
                labels: args.labels,
                ..SourceConfig::new(args.name, absolute(args.path)?)
            };
            args.scope.add_to(&mut source)?;
            if source.path.is_dir() == source.disk || !source.path.exists() {
                let (what, hint) = if source.disk {
                    (
                        "neither a block device nor an image",
                        "a disk is a block device or a file; a directory is captured without --disk",
                    )
                } else {
                    (
                        "no directory",
                        "a source is a directory that exists, or with --disk a block device or an image; check the path",
                    )
                };
                return Err(Failure::usage(format!("{:?} is {what}", source.path)).hint(hint));
            }
            config.add_source(&source)?;
            let text = format!("source {} = {:?} added to {:?}", source.name, source.path, config.path());
            told("source-added", &source.name, &config, text, context)?;
        }
        SourceCommand::Remove { name } => {
            config.remove_source(&name)?;
            let text = format!("source {name} removed from {:?}; its points stay in the repository", config.path());
            told("source-removed", &name, &config, text, context)?;
        }
        SourceCommand::List => {
            let sources = &config.current()?.sources;
            let (others, failed) = match others(sources, context) {
                Ok(others) => (others, None),
                Err(failure) => (Vec::new(), Some(failure)),
            };
            // What is configured can be told in any case.
            list(sources, &others, context)?;
            if let Some(failure) = failed {
                return Err(failure.during("look for sources that only the repository has"));
            }
        }
    }
    Ok(Exit::Done)
}

/// Tells what was done to the configuration.
fn told(what: &str, name: &str, config: &ConfigFile, text: String, context: &Context) -> Result<(), Failure> {
    let mut out = Output::open();
    if context.global.json {
        let path = config.path().to_string_lossy();
        out.json(&json!({ "message_type": what, "name": name, "configuration": path }))?;
    } else if !context.global.quiet {
        out.line(text)?;
    }
    out.close()
}

/// Sources of the repository that are not configured; none where no repository is named or it does not exist.
fn others(configured: &[SourceConfig], context: &Context) -> Result<Vec<SourceRecord>, Failure> {
    let opened = match context.open() {
        Err(failure) if failure.exit() == Exit::NoRepository => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut sources = opened.sources.sources()?;
    sources.retain(|record| configured.iter().all(|source| source.name != record.name));
    Ok(sources)
}

fn list(sources: &[SourceConfig], others: &[SourceRecord], context: &Context) -> Result<(), Failure> {
    let mut out = Output::open();
    if context.global.json {
        for source in sources {
            out.json(&Listed {
                message_type: "source",
                name: &source.name,
                path: source.path.to_string_lossy().into_owned(),
                disk: source.disk,
                chunk_kib: source.chunk_kib,
                chain_max_points: source.chain_max_points,
                stop: &source.stop,
                start: &source.start,
                exclude: &source.exclude,
                exclude_file: source.exclude_file.iter().map(|file| file.to_string_lossy().into_owned()).collect(),
                exclude_caches: source.exclude_caches,
                one_file_system: source.one_file_system,
                labels: &source.labels,
                configured: true,
            })?;
        }
        for source in others {
            out.json(&json!({
                "message_type": "source",
                "name": source.name,
                "path": String::from_utf8_lossy(&source.origin.path),
                "host": source.origin.host,
                "kind": kind(source.kind),
                "configured": false,
            }))?;
        }
    } else if !sources.is_empty() || !others.is_empty() {
        let mut rows: Vec<Vec<String>> = (sources.iter())
            .map(|source| {
                vec![source.name.clone(), printable(source.path.as_os_str().as_encoded_bytes()), notes(source)]
            })
            .collect();
        rows.extend(others.iter().map(|source| {
            let place = format!("{}:", source.origin.host).into_bytes();
            let place = printable(&[place, source.origin.path.clone()].concat());
            vec![source.name.clone(), place, format!("not configured: a {} of the repository", kind(source.kind))]
        }));
        out.table(&["NAME", "PATH", "NOTES"], &rows)?;
    }
    out.close()
}

/// A command's words, quoted as for a shell.
fn words(command: Option<String>) -> Result<Vec<String>, Failure> {
    let Some(command) = command else { return Ok(Vec::new()) };
    let unbalanced = || Failure::usage(format!("{command:?} has a quote without its other half"));
    words_of(&command).ok_or_else(unbalanced)
}

/// What is special about a source, in a few words.
fn notes(source: &SourceConfig) -> String {
    let mut notes = Vec::new();
    if source.disk {
        notes.push("disk".to_owned());
    }
    match source.exclude.len() + source.exclude_file.len() {
        0 => {}
        1 => notes.push("1 exclude".to_owned()),
        more => notes.push(format!("{more} excludes")),
    }
    if source.exclude_caches {
        notes.push("no caches".to_owned());
    }
    if !source.one_file_system {
        notes.push("across filesystems".to_owned());
    }
    notes.extend(source.labels.iter().map(|label| format!("%{label}")));
    notes.join(", ")
}
