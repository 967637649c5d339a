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
/// A directory must be empty or not exist yet; its parent must exist. Of s3://, gs:// and az:// the bucket or container
/// must exist, and nothing below the prefix that another program wrote.
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
    let address = context.repository()?;
    if !args.unencrypted {
        return Err(Failure::new(Class::Unsupported, "init: this amberfs cannot encrypt a repository yet")
            .ending(Exit::Usage)
            .hint("say --unencrypted if whoever can read the repository may read every file in it"));
    }
    let store = Store::create_at(&address, &context.access(&address)?)?;
    let repo = Repo::init(context.remembered(store, &address)?, context.env.clone())?;
    let mut out = Output::open();
    if context.global.json {
        out.json(&Initialized {
            message_type: "initialized",
            repository: address.to_string(),
            id: repo.id().to_string(),
        })?;
    } else if !context.global.quiet {
        out.line(format!("repository {} created at {}, unencrypted", repo.id(), address))?;
    }
    out.close()?;
    Ok(Exit::Done)
}
