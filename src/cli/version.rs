//! `amberfs version`.

use serde::Serialize;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;

/// `amberfs` and its version, as points record it.
pub const VERSION: &str = concat!("amberfs ", env!("CARGO_PKG_VERSION"));

/// Print the version
#[derive(Debug, clap::Args)]
pub struct VersionArgs {}

#[derive(Serialize)]
struct Version {
    message_type: &'static str,
    version: &'static str,
}

/// Runs it.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(_: &VersionArgs, context: &Context) -> Result<Exit, Failure> {
    let mut out = Output::open();
    if context.global.json {
        out.json(&Version { message_type: "version", version: env!("CARGO_PKG_VERSION") })?;
    } else {
        out.line(VERSION)?;
    }
    out.close()?;
    Ok(Exit::Done)
}
