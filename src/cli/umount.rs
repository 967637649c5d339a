//! `amberfs umount`.

use std::path::PathBuf;

use serde_json::json;

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::fuse;

/// Take a mount away, and wait until its server has ended
///
/// A dead mount, left by a server that was killed, is cleared too.
#[derive(Debug, clap::Args)]
pub struct UmountArgs {
    /// Where it is mounted
    mountpoint: PathBuf,
    /// Take it away even if it is in use: who has files of it open keeps them
    #[arg(short = 'z', long)]
    lazy: bool,
}

/// Runs it.
///
/// # Errors
/// When nothing of ours is mounted there, or it is in use.
pub fn run(args: &UmountArgs, context: &Context) -> Result<Exit, Failure> {
    fuse::unmount(&args.mountpoint, args.lazy)?;
    if context.global.json {
        let place = absolute(args.mountpoint.clone())?.to_string_lossy().into_owned();
        let mut out = Output::open();
        out.json(&json!({ "message_type": "unmounted", "mountpoint": place }))?;
        out.close()?;
    }
    Ok(Exit::Done)
}
