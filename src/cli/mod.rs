//! Translates arguments to the same requests that the control file makes, and results to text.
//!
//! Each command is a file with its arguments and its `run`. Commands hold no logic of their own that
//! another caller could need: they resolve names, call the layers below, and print. With `--json` a
//! single answer is one object, a stream is one object a line with `message_type`, and a failure ends
//! with such a line of type `error`. Messages for people go to standard error.

// Doc comments of arguments are help texts: brackets in them are syntax, not links.
#![allow(rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::base::{Env, limits, sys as base_sys, time};
use crate::job::Places;
use crate::job::protocol::{Failure as Failed, Message, class_word};

pub mod capture;
pub mod cat;
pub mod chains;
pub mod completion;
pub mod context;
pub mod credential;
pub mod ctl;
pub mod delete;
pub mod demo;
pub mod exit;
pub mod failure;
pub mod init;
pub mod jobs;
pub mod key;
pub mod ls;
pub mod mount;
pub mod output;
pub mod points;
pub mod progress;
pub mod reference;
pub mod repo;
pub mod restore;
pub mod rollback;
pub mod rotation;
pub mod scope;
pub mod source;
pub mod status;
pub mod sys;
pub mod trash;
pub mod umount;
pub mod undelete;
pub mod verify;
pub mod version;

use context::Context;
use exit::Exit;
use failure::Failure;

const ENVIRONMENT: &str = "\
Environment:
  AMBERFS_REPOSITORY  the repository, where -r is not given
  AMBERFS_CONFIG      the configuration file, where --config is not given
  AMBERFS_KEYFILE, AMBERFS_PASSWORD_FILE, AMBERFS_PASSWORD_COMMAND
                      the key of an encrypted repository, where no option gives it
  AMBERFS_PASSWORD    the passphrase itself: other processes of the same user can see it; a file is better
  AMBERFS_STATE_DIR   where journals and remembered heads are kept
  AMBERFS_CACHE_DIR   where stored bytes are kept once they were fetched; may be deleted
  AMBERFS_HOST        the host's name and identity as recorded with points
  AMBERFS_TRACEABLE   any value lets debuggers and strace of this user look into processes that have a key
  AMBERFS_LOG         which diagnostics go to standard error, such as info or amberfs::store=debug
  NO_COLOR            any value turns colours off";

/// Backups you can walk into: every point of every source is a read-only directory
#[derive(Debug, Parser)]
#[command(name = "amberfs", version, after_long_help = ENVIRONMENT, max_term_width = 100, infer_subcommands = false)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The options that all commands take.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The repository: a directory, or a URL such as s3://bucket/prefix (docs/stores.md)
    #[arg(short, long, global = true, value_name = "REPO", env = "AMBERFS_REPOSITORY", hide_env = true)]
    pub repository: Option<OsString>,
    /// The configuration file (default: /etc/amberfs/config.toml for root, else ~/.config/amberfs/config.toml)
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the key of an encrypted repository comes from.
    #[command(flatten)]
    pub keys: credential::KeyOptions,
    /// Keep at most so many MiB of what is fetched over a network on this machine's disk (default: 4096)
    #[arg(long, global = true, value_name = "MIB")]
    pub cache_size: Option<u64>,
    /// Keep nothing of it, and do not use what was kept
    #[arg(long, global = true, conflicts_with = "cache_size")]
    pub no_cache: bool,
    /// Write to a store that does not honour conditional creation, one process at a time, guarded by a lease: every process
    /// that writes to the repository must say so (docs/stores.md)
    #[arg(long, global = true)]
    pub single_writer: bool,
    /// Wait so many seconds for what a store says of names, and three times as long for a page of a listing (default: 10)
    #[arg(long, global = true, value_name = "SECONDS", value_parser = timeout)]
    pub metadata_timeout: Option<Duration>,
    /// Wait so many seconds for a read or a part of an upload, and four times as long for what ends durable (default: 30)
    #[arg(long, global = true, value_name = "SECONDS", value_parser = timeout)]
    pub read_timeout: Option<Duration>,
    /// Print JSON: one object, or for a stream one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more; twice: diagnostics, three times: all of them
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// The options that say how the repository's place is dealt with, for a process that this one starts for it.
    pub fn options_of_place(&self) -> Vec<OsString> {
        let Global { cache_size, no_cache, single_writer, metadata_timeout, read_timeout, .. } = self;
        let seconds = |name: &str, timeout: &Option<Duration>| {
            timeout.map(|timeout| OsString::from(format!("--{name}={}", timeout.as_secs_f64())))
        };
        [
            single_writer.then(|| "--single-writer".into()),
            cache_size.map(|mib| format!("--cache-size={mib}").into()),
            no_cache.then(|| "--no-cache".into()),
            seconds("metadata-timeout", metadata_timeout),
            seconds("read-timeout", read_timeout),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    text.parse().ok().and_then(time::timeout).ok_or_else(|| format!("it takes {}", time::TIMEOUT))
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a repository
    Init(init::InitArgs),
    /// Manage the keys of an encrypted repository
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Configure the sources that can be captured by name
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// Capture a source: make a point of it as it is now
    #[command(visible_alias = "backup")]
    Capture(capture::CaptureArgs),
    /// List the points, oldest first
    #[command(visible_alias = "snapshots")]
    Points(points::PointsArgs),
    /// List the chains: each is a full point and the incremental points that build on it
    Chains(chains::ChainsArgs),
    /// List a directory as it was captured
    Ls(ls::LsArgs),
    /// Print files as they were captured
    Cat(cat::CatArgs),
    /// Restore a directory or a file as it was captured
    Restore(restore::RestoreArgs),
    /// Put a source itself back to one of its points
    Rollback(rollback::RollbackArgs),
    /// Delete points: they vanish from all listings and mounts, and stay in the trash until collected
    #[command(visible_alias = "forget")]
    Delete(delete::DeleteArgs),
    /// Bring deleted points back, as they were
    Undelete(undelete::UndeleteArgs),
    /// Mount the repository: each source with its points, labels, chains and times as directories
    Mount(mount::MountArgs),
    /// Take a mount away, and wait until its server has ended
    #[command(visible_alias = "unmount")]
    Umount(umount::UmountArgs),
    /// Check that every point can be read, and name what is damaged and which paths it touches
    #[command(visible_alias = "check")]
    Verify(verify::VerifyArgs),
    /// Show the repository and its sources
    Status(status::StatusArgs),
    /// What concerns the repository's place
    #[command(subcommand)]
    Repo(repo::RepoCommand),
    /// List the jobs that mounts on this machine took, oldest first
    Jobs(jobs::JobsArgs),
    /// Hand a command to a mount's control file, and print its answer
    Ctl(ctl::CtlArgs),
    /// Show what amberfs does, on a copy of a real tree in a new temporary directory
    Demo(demo::DemoArgs),
    /// Print completions for a shell, or write the manual pages
    Completion(completion::CompletionArgs),
    /// Print the version
    Version(version::VersionArgs),
}

impl Command {
    /// Whether it is long work that ends in its own way when it is asked to.
    fn is_watched(&self) -> bool {
        match self {
            Command::Capture(_) | Command::Restore(_) | Command::Rollback(_) | Command::Verify(_) => true,
            Command::Repo(command) => matches!(command, repo::RepoCommand::Check(_)),
            Command::Init(_)
            | Command::Key(_)
            | Command::Source(_)
            | Command::Points(_)
            | Command::Chains(_)
            | Command::Ls(_)
            | Command::Cat(_)
            | Command::Delete(_)
            | Command::Undelete(_)
            | Command::Mount(_)
            | Command::Umount(_)
            | Command::Status(_)
            | Command::Jobs(_)
            | Command::Ctl(_)
            | Command::Demo(_)
            | Command::Completion(_)
            | Command::Version(_) => false,
        }
    }
}

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a reader that has gone away is none either.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return match error.print() {
                Ok(()) => exit.into(),
                Err(_) => Exit::Unheard.into(),
            };
        }
    };
    cli.global.keys.keep_to_ourselves();
    start_diagnostics(&cli.global);
    base_sys::bound_heap(limits::HEAP_ARENAS_MAX, limits::HEAP_MAPPED_BYTES, limits::HEAP_TRIMMED_BYTES);
    if cli.command.is_watched()
        && let Err(error) = sys::hold_signals()
    {
        // Without it a signal ends the work at once, which loses nothing that was acknowledged.
        tracing::warn!(%error, "signals end this command at once");
    }
    let context = Context { global: cli.global, env: Env::system(), places: Places::of_process() };
    match run(cli.command, &context) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            report(&failure, context.global.json);
            failure.exit().into()
        }
    }
}

fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Init(args) => init::run(&args, context),
        Command::Points(args) => points::run(&args, context),
        Command::Chains(args) => chains::run(&args, context),
        Command::Capture(args) => capture::run(&args, context),
        Command::Demo(args) => demo::run(&args, context),
        Command::Ls(args) => ls::run(&args, context),
        Command::Cat(args) => cat::run(&args, context),
        Command::Restore(args) => restore::run(&args, context),
        Command::Rollback(args) => rollback::run(&args, context),
        Command::Delete(args) => delete::run(&args, context),
        Command::Undelete(args) => undelete::run(&args, context),
        Command::Mount(args) => mount::run(&args, context),
        Command::Jobs(args) => jobs::run(&args, context),
        Command::Ctl(args) => ctl::run(&args, context),
        Command::Umount(args) => umount::run(&args, context),
        Command::Verify(args) => verify::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Key(command) => key::run(&command, context),
        Command::Repo(command) => repo::run(&command, context),
        Command::Source(command) => source::run(command, context),
        Command::Completion(args) => completion::run(&args),
        Command::Version(args) => version::run(&args, context),
    }
}

/// Says why the command failed, to people and, if asked for, to programs. There is nobody left to tell if that fails.
fn report(failure: &Failure, json: bool) {
    if failure.exit() == Exit::Unheard || failure.text().is_empty() {
        return;
    }
    if json {
        let message = match failure.advice() {
            Some(hint) => format!("{}; hint: {hint}", failure.text()),
            None => failure.text().to_owned(),
        };
        let line = Message::Error(Failed { class: class_word(failure.class()).to_owned(), message }).to_line();
        drop(writeln!(std::io::stdout(), "{line}"));
    }
    drop(writeln!(std::io::stderr(), "{failure}"));
}

/// Standard error, which may be the log of a mount.
struct Diagnostics;

impl Write for Diagnostics {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = std::io::stderr().write(bytes);
        crate::fuse::keep_log_bounded();
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Tells of a danger, whatever options and `AMBERFS_LOG` say: whoever wants to hear errors only must hear of it as well.
fn warn_past_filters(text: &str) {
    drop(writeln!(Diagnostics, "amberfs: warning: {text}"));
}

/// Sends diagnostics to standard error: warnings, unless `AMBERFS_LOG` or the options say otherwise.
fn start_diagnostics(global: &Global) {
    use tracing_subscriber::EnvFilter;
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0 | 1) => "warn",
        (false, 2) => "amberfs=debug,warn",
        (false, _) => "amberfs=trace,info",
    };
    let filter = match std::env::var("AMBERFS_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives).unwrap_or_else(|error| {
            drop(writeln!(std::io::stderr(), "amberfs: AMBERFS_LOG is ignored: {error}"));
            EnvFilter::new(level)
        }),
        _ => EnvFilter::new(level),
    };
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Diagnostics).with_target(false).try_init());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_started_for_the_same_place_gets_the_same_options() {
        let parsed = |options: &[OsString]| {
            let words = [OsString::from("amberfs")].into_iter().chain(options.iter().cloned()).chain(["points".into()]);
            Cli::try_parse_from(words).unwrap().global
        };
        for given in [
            &[][..],
            &["--single-writer", "--cache-size=128", "--metadata-timeout=0.25", "--read-timeout=3600"],
            &["--no-cache", "--read-timeout=2.5"],
        ] {
            let given: Vec<OsString> = given.iter().map(OsString::from).collect();
            let global = parsed(&given);
            let again = parsed(&global.options_of_place());
            assert_eq!(format!("{again:?}"), format!("{global:?}"));
            assert_eq!(global.options_of_place().len(), given.len());
        }
    }
}
