//! `amberfs init`.

use std::path::PathBuf;

use serde::Serialize;

use super::context::Context;
use super::credential::warn_of_short;
use super::exit::Exit;
use super::failure::Failure;
use super::key::{New, check_name, make_key_file};
use super::output::Output;
use crate::base::Class;
use crate::repo::{Repo, nested};
use crate::seal::Secret;
use crate::seal::derive::Cost;
use crate::store::{Access, Address, Deadlines, Store};

/// Create a repository
///
/// A directory must be empty or not exist yet; its parent must exist; others must not be able to write to it. Of s3://, gs://
/// and az:// the bucket or container must exist, and nothing else below the prefix. No repository lies inside another.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Store everything unencrypted: whoever can read the repository can read every file in it
    #[arg(long, conflicts_with_all = ["new_keyfile", "key_name", "password_file", "password_command", "keyfile"])]
    unencrypted: bool,
    /// Make FILE, a key file that opens the repository; keep a copy of it elsewhere
    #[arg(long, value_name = "FILE", conflicts_with_all = ["password_file", "password_command", "keyfile"])]
    new_keyfile: Option<PathBuf>,
    /// The name of its first key, for people
    #[arg(long, value_name = "NAME", default_value = "first")]
    key_name: String,
}

#[derive(Serialize)]
struct Initialized {
    message_type: &'static str,
    repository: String,
    id: String,
    encrypted: bool,
}

/// Runs it.
///
/// # Errors
/// When there is no place for a repository, or something is there already.
pub fn run(args: &InitArgs, context: &Context) -> Result<Exit, Failure> {
    let address = context.repository()?;
    check_name(&args.key_name)?;
    let access = context.access(&address)?;
    refuse_inside(&address, &access, context.deadlines(&address)?)?;
    // Before anything is made: whoever has no key, or mistypes it, finds nothing half-done.
    let new = if args.unencrypted { None } else { Some(key(args, context)?) };
    let place = || -> Result<_, Failure> {
        let store = context.remembered(Store::create_at(&address, &access)?, &address)?;
        // A directory was found empty.
        if let Some(stranger) = address.directory().is_none().then(|| nested::stranger(&store)).transpose()?.flatten() {
            return Err(Failure::new(Class::Conflict, format!("{address} is not empty: it holds {stranger}"))
                .hint("give a prefix below which there is nothing"));
        }
        Ok(store)
    };
    let store = place().map_err(|failure| match &new {
        Some(new) => new.useless(failure),
        None => failure,
    })?;
    let env = context.env.clone();
    let repo = match &new {
        Some(new) => Repo::init_encrypted(store, env, &new.credential, &args.key_name, Cost::STANDARD)
            .map_err(|error| new.failed(error))?,
        None => Repo::init(store, env)?,
    };
    context.make_known(&address, &repo);
    let mut out = Output::open();
    if context.global.json {
        out.json(&Initialized {
            message_type: "initialized",
            repository: address.to_string(),
            id: repo.id().to_string(),
            encrypted: new.is_some(),
        })?;
    } else if !context.global.quiet {
        let how = if new.is_some() { "encrypted" } else { "unencrypted" };
        out.line(format!("repository {} created at {}, {how}", repo.id(), address))?;
        if new.is_some() {
            out.line("Without its passphrase or key file nothing in it can ever be read: keep a copy elsewhere")?;
        }
    }
    out.close()?;
    Ok(Exit::Done)
}

/// Refuses a place inside a repository.
fn refuse_inside(address: &Address, access: &Access, deadlines: Deadlines) -> Result<(), Failure> {
    for above in address.above() {
        let Ok(store) = Store::open(&above, access) else { continue };
        if nested::is_repository(&store.with_deadlines(deadlines))? {
            return Err(Failure::new(Class::Conflict, format!("{address} lies inside the repository at {above}"))
                .hint("one repository takes any number of sources; a second one needs a place of its own"));
        }
    }
    Ok(())
}

/// The key of a new repository: a file that is made, what was given, or what is typed twice.
fn key(args: &InitArgs, context: &Context) -> Result<New, Failure> {
    if let Some(path) = &args.new_keyfile {
        return make_key_file(path, Secret::new(context.env.random()));
    }
    let given = match context.given()? {
        Some(given) => given,
        None => context.ask_new("Passphrase of the new repository").map_err(|failure| match failure.exit() {
            Exit::WrongKey => failure.hint(
                "give a key with --new-keyfile, --password-file, --password-command or --keyfile; or say --unencrypted \
                 if whoever can read the repository may read every file in it",
            ),
            _ => failure,
        })?,
    };
    warn_of_short(&given.credential);
    Ok(New::of(given.credential))
}
