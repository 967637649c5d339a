//! `amberfs key`: who may open an encrypted repository, and as what.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write, stderr, stdin};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::context::{Context, Opened};
use super::credential::{KeyOptions, of_options, sync_name, warn_of_short};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, printable, timestamp};
use super::rotation::{RotateArgs, named, rotate};
use crate::base::{Class, Classed, hex};
use crate::chain::RepoState;
use crate::chain::state::LogState;
use crate::format::KeyId;
use crate::format::slot::Removal;
use crate::repo::{Credential, RepoError, SlotInfo, SlotRole};
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
    Rotate(RotateArgs),
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
    /// Its name, its id, or the id of the key that it gives
    name: String,
    /// Do not ask before the key in use is removed
    #[arg(short, long)]
    yes: bool,
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
    /// The id of the key that signs, where it is not the repository's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Whether its holder can open the repository.
    sound: bool,
    /// When its removal was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    removal_begun: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged_objects: Vec<String>,
}

#[derive(Serialize)]
struct Revoked {
    message_type: &'static str,
    key: String,
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
            let slot = made.map_err(|error| new.failed(error))?;
            tell(context, &mut out, "added", &slot)?;
        }
        KeyCommand::Remove(args) => remove(args, &opened, context, &mut out)?,
        KeyCommand::Grant(args) => {
            let slots = opened.repo.slots()?;
            let named = |slot: &&SlotInfo| slot.name.as_deref() == Some(&args.name) || slot.id.to_string() == args.name;
            let slot = slots.iter().find(named);
            let slot = slot.ok_or_else(|| Failure::usage(format!("there is no key {:?}", args.name)))?;
            let key = slot.key.filter(|_| slot.role == Some("writer"));
            let key =
                key.ok_or_else(|| Failure::usage(format!("key {:?} is no writer key: it needs no grant", args.name)))?;
            opened.sources.grant(opened.source(&args.source)?.id, key)?;
            tell(context, &mut out, "granted", slot)?;
        }
        KeyCommand::Change(new) => {
            let name = opened.repo.slot().map(|slot| slot.name.clone()).unwrap_or_default();
            let new = new.obtain(context, &name)?;
            let changed = opened.repo.replace_own_slot(&new.credential);
            let changed = changed.map_err(|error| new.failed(error))?;
            for fault in &changed.left {
                tracing::warn!(
                    object = %fault.object,
                    "the old key may still open the repository: its slot could not be removed: {}; once it can, \
                     `amberfs key list` shows the id to give to `amberfs key remove`",
                    fault.why
                );
            }
            tell(context, &mut out, "changed", &changed.slot)?;
        }
        KeyCommand::Rotate(args) => rotate(args, &opened, context, &mut out)?,
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

/// Revokes a key and removes its slot, in this order: whatever is left undone, the key is known by its name or id, and
/// the same command goes on.
fn remove(args: &RemoveArgs, opened: &Opened, context: &Context, out: &mut Output) -> Result<(), Failure> {
    let counts = |state: &RepoState| state.read().obstacle().is_none().then(|| state.epoch());
    let known = counts(&*opened.sources.refresh()?);
    let wanted = hex::decode(&args.name).map(KeyId);
    let of_key = match wanted {
        Some(key) => opened.repo.slots()?.into_iter().find(|slot| slot.key == Some(key)),
        None => None,
    };
    let slot = match opened.repo.slot_named(&of_key.map_or(args.name.clone(), |slot| slot.id.to_string()), known) {
        Ok(slot) => Some(slot),
        // A slot that is gone, whose key was not revoked everywhere.
        Err(error) if error.class() == Class::NotFound && wanted.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(slot) = slot.as_ref().filter(|slot| slot.own) {
        let refused = format!("key {}, which is in use, would be removed", called(slot));
        agree(context, args.yes, &format!("remove key {}, which is in use?", called(slot)), &refused)?;
    }
    let key = slot.as_ref().map_or(wanted, |slot| slot.key);
    let unreached = match key {
        Some(key) => named(opened.sources.revoke(key)?),
        None => Vec::new(),
    };
    match &slot {
        Some(slot) => {
            opened.repo.remove_slot(slot, || opened.sources.refresh().ok().and_then(|state| counts(&state)))?;
            tell(context, out, "removed", slot)?;
        }
        None if context.global.json => out.json(&Revoked { message_type: "revoked", key: args.name.clone() })?,
        None if context.global.quiet => {}
        None => out.line(format!("no slot gives key {}: it is revoked", args.name))?,
    }
    if slot.is_some() && !context.global.quiet && !context.global.json {
        out.line("Whoever has had it may have kept what it opens: `amberfs key rotate` seals what is written later")?;
    }
    match (unreached.into_iter().next(), key) {
        (Some((_, failure)), Some(key)) => Err(failure.hint(format!(
            "the key is revoked in all other logs; once this one is repaired, run `amberfs key remove {key}`"
        ))),
        _ => Ok(()),
    }
}

/// Whether somebody says yes to `question`. Without anybody to ask, `refused` is why nothing is done.
///
/// # Errors
/// [`Failure::usage`] when nobody can be asked, a cancellation when the answer is no.
pub fn agree(context: &Context, yes: bool, question: &str, refused: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if context.global.json || !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(
            Failure::usage(format!("{refused}, and there is nobody to ask")).hint("--yes does it without asking")
        );
    }
    let mut err = stderr();
    let mut answer = String::new();
    (err.write_all(format!("{question} [y/N] ").as_bytes()).and_then(|()| err.flush()))
        .and_then(|()| stdin().read_line(&mut answer).map(drop))
        .map_err(|error| Failure::io("ask", &error))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Class::Cancelled, "nothing was done")),
    }
}

/// What a slot is called, for people; one that cannot be opened has an id only.
pub fn called(slot: &SlotInfo) -> String {
    match &slot.name {
        Some(name) => printable(name.as_bytes()),
        None => format!("(damaged) {}", slot.id),
    }
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
        let note = match (slot.is_sound, slot.faults.len()) {
            (true, 0) => String::new(),
            (true, n) => format!("{n} damaged objects beside it: amberfs verify names them"),
            (false, _) => "cannot open the repository: amberfs verify says why".to_owned(),
        };
        let note = match &slot.removal {
            Some(Removal { by, begun }) => {
                format!("its removal was begun, {}, with key {}", timestamp(*begun), printable(by.as_bytes()))
            }
            None => note,
        };
        let own = if slot.own { " (in use)" } else { "" };
        rows.push(vec![
            format!("{name}{own}"),
            slot.role.unwrap_or("-").to_owned(),
            slot.created.map_or_else(|| "-".to_owned(), timestamp),
            slot.epoch.to_string(),
            slot.id.to_string(),
            note,
        ]);
    }
    out.table(&["NAME", "ROLE", "CREATED", "EPOCH", "ID", ""], &rows)
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
        key: slot.key.map(|key| key.to_string()),
        sound: slot.is_sound,
        removal_begun: slot.removal.as_ref().map(|removal| timestamp(removal.begun)),
        damaged_objects: slot.faults.iter().map(|fault| fault.object.to_string()).collect(),
    }
}

fn tell(context: &Context, out: &mut Output, done: &'static str, slot: &SlotInfo) -> Result<(), Failure> {
    if context.global.json {
        return out.json(&listed(done, slot));
    }
    if context.global.quiet {
        return Ok(());
    }
    out.line(format!("{} key {} {done}", slot.role.unwrap_or("damaged"), called(slot)))
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

    /// What `error` means to whoever has the file that was made: unless nothing can have been written that it opens, it
    /// stays.
    pub fn failed(&self, error: RepoError) -> Failure {
        match (&error, &self.made) {
            (RepoError::SlotInDoubt { .. }, Some(path)) => Failure::from(error)
                .hint(format!("keep {path:?}, which may open the repository now: `amberfs status` with it tells")),
            (RepoError::SlotInDoubt { .. }, None) => {
                Failure::from(error).hint("`amberfs status` with the new passphrase tells")
            }
            _ => self.useless(error.into()),
        }
    }

    /// `failure`, after which the file that was made is of no use.
    pub fn useless(&self, failure: Failure) -> Failure {
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
        warn_of_short(&given.credential);
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
    let written = file
        .write_all(Credential::key_file(&secret).as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_name(path));
    let new = New { credential: Credential::KeyFile(secret), made: Some(path.to_owned()) };
    match written {
        Ok(()) => Ok(new),
        Err(error) => Err(new.useless(failed(&error))),
    }
}
