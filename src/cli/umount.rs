//! `amberfs umount`.

use std::path::PathBuf;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
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
pub fn run(args: &UmountArgs, _: &Context) -> Result<Exit, Failure> {
    fuse::unmount(&args.mountpoint, args.lazy)?;
    Ok(Exit::Done)
}
