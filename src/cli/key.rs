//! `amberfs key`: who may open an encrypted repository, and as what.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::context::{Context, Opened};
use super::credential::{KeyOptions, of_options};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, printable, timestamp};
use crate::chain::state::{LogState, RepoGoal, SourceGoal};
use crate::chain::{ChainError, SourceLog};
use crate::format::KeyId;
use crate::repo::{Credential, SlotInfo, SlotRole};
use crate::seal::Secret;

/// Manage the keys of an encrypted repository
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the keys, oldest first
    List,
    /// Add a key: another passphrase, or a key file
    Add(AddArgs),
    /// Remove a key. Who has had it may have kept what it gave: `key rotate` keeps him from what is written later
    Remove(RemoveArgs),
    /// Let a writer key add points to a source, and no other writer key
    Grant(GrantArgs),
    /// Replace the passphrase or key file that the repository was opened with; nothing that is stored is rewritten
    Change(NewKey),
    /// Give the repository new keys. What is written from then on is sealed with these; of the keys that are listed, only
    /// the one that was given knows them, and the others have to be added again
    Rotate,
}

/// How a new key is told.
#[derive(Debug, Clone, Args)]
pub struct NewKey {
    /// Make FILE, a new key file; it must not exist
    #[arg(long, value_name = "FILE")]
    new_keyfile: Option<PathBuf>,
    /// Take the first line of FILE for the new passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "new_keyfile")]
    new_password_file: Option<PathBuf>,
    /// Run COMMAND, and take the first line that it prints for the new passphrase
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["new_keyfile", "new_password_file"])]
    new_password_command: Option<String>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Everything
    Full,
    /// Delete points and bring them back; read names and attributes, no contents; not capture
    Collector,
    /// Capture: add points to the sources that it makes; not read, not delete
    Writer,
}

impl From<RoleName> for SlotRole {
    fn from(role: RoleName) -> SlotRole {
        match role {
            RoleName::Full => SlotRole::Full,
            RoleName::Collector => SlotRole::Collector,
            RoleName::Writer => SlotRole::Writer,
        }
    }
}

/// `amberfs key add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its name, for people
    name: String,
    /// What it is for
    #[arg(long, value_enum, default_value = "full")]
    role: RoleName,
    #[command(flatten)]
    new: NewKey,
}

/// `amberfs key grant`.
#[derive(Debug, Args)]
pub struct GrantArgs {
    /// The key's name, or its id
    name: String,
    /// The source
    source: String,
}

/// `amberfs key remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Its name, or its id
    name: String,
}

#[derive(Serialize)]
struct Listed<'a> {
    message_type: &'static str,
    id: String,
    name: Option<&'a str>,
    role: Option<&'static str>,
    created: Option<String>,
    epoch: u32,
    own: bool,
}

#[derive(Serialize)]
struct Rotated {
    message_type: &'static str,
    epoch: u32,
    /// Keys that have to be added again.
    removed: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// When the key that the repository was opened with does not allow it, or there is no such key.
pub fn run(command: &KeyCommand, context: &Context) -> Result<Exit, Failure> {
    let opened = context.open()?;
    if opened.repo.slot().is_none() {
        return Err(Failure::usage("this repository is not encrypted: it has no keys")
            .hint("a new repository is encrypted unless init is told --unencrypted"));
    }
    let mut out = Output::open();
    match command {
        KeyCommand::List => list(&opened, context, &mut out)?,
        KeyCommand::Add(args) => {
            check_name(&args.name)?;
            let new = args.new.obtain(context, &args.name)?;
            let made = opened.repo.add_slot(&args.name, args.role.into(), &new.credential);
            let slot = made.map_err(|error| new.failed(error.into()))?;
            tell(context, &mut out, "added", &slot)?;
        }
        KeyCommand::Remove(args) => {
            let slot = opened.repo.slot_named(&args.name)?;
            opened.repo.remove_slot(&slot)?;
            tell(context, &mut out, "removed", &slot)?;
            if let Some(key) = slot.key {
                revoke(&opened, key)?;
            }
            if !context.global.quiet && !context.global.json {
                out.line(
                    "Whoever has had it may have kept what it opens: `amberfs key rotate` seals what is written later",
                )?;
            }
        }
        KeyCommand::Grant(args) => {
            let slots = opened.repo.slots()?;
            let named = |slot: &&SlotInfo| slot.name.as_deref() == Some(&args.name) || slot.id.to_string() == args.name;
            let slot = slots.iter().find(named);
            let slot = slot.ok_or_else(|| Failure::usage(format!("there is no key {:?}", args.name)))?;
            let key = slot.key.filter(|_| slot.role == Some("writer"));
            let key =
                key.ok_or_else(|| Failure::usage(format!("key {:?} is no writer key: it needs no grant", args.name)))?;
            opened.log(&opened.source(&args.source)?).append(SourceGoal::Writer(Some(key)))?;
            tell(context, &mut out, "granted", slot)?;
        }
        KeyCommand::Change(new) => {
            let name = opened.repo.slot().map(|slot| slot.name.clone()).unwrap_or_default();
            let new = new.obtain(context, &name)?;
            let changed = opened.repo.replace_own_slot(&new.credential);
            let slot = changed.map_err(|error| new.failed(error.into()))?;
            tell(context, &mut out, "changed", &slot)?;
        }
        KeyCommand::Rotate => rotate(&opened, context, &mut out)?,
    }
    out.close()?;
    Ok(Exit::Done)
}

/// Refuses what no list could show.
///
/// # Errors
/// [`Failure::usage`].
pub fn check_name(name: &str) -> Result<(), Failure> {
    let fine = !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control) && name.trim() == name;
    if fine {
        Ok(())
    } else {
        Err(Failure::usage(format!("the name {name:?}: 1 to 64 bytes without control characters")))
    }
}

/// Gives the repository new keys: into our own slot, then into the logs, and at last no other slot is left.
fn rotate(opened: &Opened, context: &Context, out: &mut Output) -> Result<(), Failure> {
    let counts = opened.sources.refresh()?.epoch();
    let rotation = opened.repo.begin_rotation(counts)?;
    // Only who has the new keys can seal with them.
    let opened = context.open_again(opened)?;
    opened.sources.append(RepoGoal::Epoch(rotation.epoch))?;
    each_log(&opened, |log| match log.load()?.is_sealed() {
        true => Ok(()),
        false => log.append(SourceGoal::Epoch(rotation.epoch)).map(drop),
    })?;
    let dropped = opened.repo.finish_rotation()?;
    if context.global.json {
        let removed = dropped.iter().filter_map(|slot| slot.name.clone()).collect();
        return out.json(&Rotated { message_type: "rotated", epoch: rotation.epoch.0, removed });
    }
    if context.global.quiet {
        return Ok(());
    }
    out.line(format!("what is written from now on is sealed with keys of epoch {}", rotation.epoch))?;
    if !dropped.is_empty() {
        let named = |slot: &SlotInfo| printable(slot.name.as_deref().unwrap_or("(damaged)").as_bytes());
        let names: Vec<String> = dropped.iter().map(named).collect();
        out.line(format!(
            "add these keys again, whose passphrases and key files are not known here: {}",
            names.join(", ")
        ))?;
    }
    out.line("mounts that are running must be mounted again")
}

/// Voids what this key would write from now on.
fn revoke(opened: &Opened, key: KeyId) -> Result<(), Failure> {
    opened.sources.append(RepoGoal::Revoke(key))?;
    each_log(opened, |log| match log.load()?.writer() == Some(key) {
        true => log.append(SourceGoal::Writer(None)).map(drop),
        false => Ok(()),
    })
}

/// Does the same to the log of each source; one that is damaged keeps nobody from the others.
fn each_log(opened: &Opened, act: impl Fn(&SourceLog) -> Result<(), ChainError>) -> Result<(), Failure> {
    let mut first = None;
    for record in opened.sources.load()?.sources() {
        if let Err(error) = act(&opened.log(record)) {
            let failure = Failure::from(error).during(format!("source {}", record.name));
            tracing::warn!("{}", failure.text());
            first.get_or_insert(failure);
        }
    }
    first.map_or(Ok(()), |failure| {
        Err(failure.hint("the logs of all other sources are done; once this one is repaired, run `amberfs key rotate`"))
    })
}

fn list(opened: &Opened, context: &Context, out: &mut Output) -> Result<(), Failure> {
    let slots = opened.repo.slots()?;
    if context.global.json {
        for slot in &slots {
            out.json(&listed("key", slot))?;
        }
        return Ok(());
    }
    let mut rows = Vec::new();
    for slot in &slots {
        let name = slot.name.as_deref().map_or_else(|| "(damaged)".to_owned(), |name| printable(name.as_bytes()));
        let own = if slot.own { " (in use)" } else { "" };
        rows.push(vec![
            format!("{name}{own}"),
            slot.role.unwrap_or("-").to_owned(),
            slot.created.map_or_else(|| "-".to_owned(), timestamp),
            slot.epoch.to_string(),
            slot.id.to_string(),
        ]);
    }
    out.table(&["NAME", "ROLE", "CREATED", "EPOCH", "ID"], &rows)
}

fn listed<'a>(message_type: &'static str, slot: &'a SlotInfo) -> Listed<'a> {
    Listed {
        message_type,
        id: slot.id.to_string(),
        name: slot.name.as_deref(),
        role: slot.role,
        created: slot.created.map(timestamp),
        epoch: slot.epoch.0,
        own: slot.own,
    }
}

fn tell(context: &Context, out: &mut Output, done: &'static str, slot: &SlotInfo) -> Result<(), Failure> {
    if context.global.json {
        return out.json(&listed(done, slot));
    }
    if context.global.quiet {
        return Ok(());
    }
    let name = printable(slot.name.as_deref().unwrap_or("(damaged)").as_bytes());
    out.line(format!("{} key {name} {done}", slot.role.unwrap_or("damaged")))
}

/// A new key, and the file that was made for it.
pub struct New {
    /// The key.
    pub credential: Credential,
    made: Option<PathBuf>,
}

impl New {
    /// A key that was there before.
    pub fn of(credential: Credential) -> New {
        New { credential, made: None }
    }

    /// `failure`, after which the file that was made is of no use.
    pub fn failed(&self, failure: Failure) -> Failure {
        if let Some(path) = &self.made
            && let Err(error) = std::fs::remove_file(path)
        {
            return failure.hint(format!("{path:?} is a key file that opens nothing: remove it ({error})"));
        }
        failure
    }
}

impl NewKey {
    /// The new key: a file that is made, what options name, or what is typed twice.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn obtain(&self, context: &Context, name: &str) -> Result<New, Failure> {
        if let Some(path) = &self.new_keyfile {
            return make_key_file(path, Secret::new(context.env.random()));
        }
        let named = KeyOptions {
            password_file: self.new_password_file.clone(),
            password_command: self.new_password_command.clone(),
            keyfile: None,
        };
        let given = match of_options(&named)? {
            Some(given) => given,
            None => context.ask_new(&format!("New passphrase for key {name}"))?,
        };
        Ok(New::of(given.credential))
    }
}

/// Makes a key file, for its owner alone, durable before anything rests on it.
///
/// # Errors
/// When it is there already, or cannot be written.
pub fn make_key_file(path: &Path, secret: Secret) -> Result<New, Failure> {
    let failed = |error: &std::io::Error| {
        let failure = Failure::io(format!("make the key file {path:?}"), error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.hint("a key file is never overwritten: choose another name"),
            _ => failure,
        }
    };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| failed(&error))?;
    let written = file.write_all(Credential::key_file(&secret).as_bytes()).and_then(|()| file.sync_all());
    let new = New { credential: Credential::KeyFile(secret), made: Some(path.to_owned()) };
    match written {
        Ok(()) => Ok(new),
        Err(error) => Err(new.failed(failed(&error))),
    }
}
