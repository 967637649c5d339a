//! `amberfs init`.

use serde::Serialize;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::base::Class;
use crate::repo::Repo;
use crate::store::Store;

/// Create a repository
///
/// The repository's directory must be empty or not exist yet; its parent must exist.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Store everything unencrypted: whoever can read the repository can read every file in it
    #[arg(long)]
    unencrypted: bool,
}

#[derive(Serialize)]
struct Initialized {
    message_type: &'static str,
    repository: String,
    id: String,
}

/// Runs it.
///
/// # Errors
/// When there is no place for a repository, or something is there already.
pub fn run(args: &InitArgs, context: &Context) -> Result<Exit, Failure> {
    let root = context.repository()?;
    if !args.unencrypted {
        return Err(Failure::new(Class::Unsupported, "init: this amberfs cannot encrypt a repository yet")
            .ending(Exit::Usage)
            .hint("say --unencrypted if whoever can read the repository may read every file in it"));
    }
    let repo = Repo::init(context.remembered(Store::create_local(&root)?), context.env.clone())?;
    let mut out = Output::open();
    if context.global.json {
        out.json(&Initialized {
            message_type: "initialized",
            repository: root.to_string_lossy().into_owned(),
            id: repo.id().to_string(),
        })?;
    } else if !context.global.quiet {
        out.line(format!("repository {} created at {}, unencrypted", repo.id(), root.display()))?;
    }
    out.close()?;
    Ok(Exit::Done)
}
