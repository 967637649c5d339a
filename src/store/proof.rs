//! Remembers that a store honours "create only if absent", so that it is probed once and not by each command.
//!
//! Whoever appends to a log rests on it, and a repository can be copied or mounted elsewhere after it was
//! made. So every process has the proof before it appends for the first time ([`Store::create_support`]), and a
//! local store's proof is kept in the machine's state directory for the commands that follow. It holds for
//! one directory (device, inode and type of its filesystem) and until the machine starts anew: after that a
//! number of a device may stand for another one.
//!
//! A store over a network is no directory of this machine, and whoever administers it may change what it does: switch
//! versioning on, put another server behind its name. So its proof holds for one address with its options, and for
//! [`limits::REMOTE_PROOF_KEPT`] only (`docs/decisions/088-remote-proofs.md`).
//!
//! What is kept is a hint about two dozen requests. A file that is lost, torn or unreadable has them made again.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::error::StoreError;
use super::probe::CreateSupport;
use super::store::Store;
use crate::base::{Env, Instant, hex, limits};

/// What is different after each start of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Whether a store is known to honour "create only if absent".
#[derive(Debug, Default)]
pub(super) struct Proof {
    proven: Mutex<bool>,
    kept_in: OnceLock<PathBuf>,
}

impl Proof {
    /// Of a store that needs none, or has it already.
    pub(super) fn given(proven: bool) -> Proof {
        Proof { proven: Mutex::new(proven), kept_in: OnceLock::new() }
    }

    /// Whether it is known by now.
    pub(super) fn is_given(&self) -> bool {
        *self.proven.lock()
    }

    /// The file for the store of that name.
    fn file(&self, of: &[u8]) -> Option<PathBuf> {
        let mut name = hex::encode(blake3::hash(of).as_bytes());
        name.truncate(32);
        Some(self.kept_in.get()?.join(name))
    }
}

/// A file with a proof, and what is in it while the proof is good.
enum Kept {
    /// Exactly this.
    Text(PathBuf, String),
    /// This, and the moment of the proof, in nanoseconds since 1970.
    Since(PathBuf, String),
}

impl Kept {
    fn holds(&self, now: Instant) -> bool {
        match self {
            Kept::Text(file, text) => std::fs::read_to_string(file).is_ok_and(|read| read == *text),
            Kept::Since(file, text) => {
                let read = std::fs::read_to_string(file).unwrap_or_default();
                let since =
                    read.strip_prefix(&**text).and_then(|rest| rest.trim().parse().ok()).map(Instant::from_nanos);
                // A clock that was set back makes it no younger.
                since.is_some_and(|since| since <= now && now < since.plus(limits::REMOTE_PROOF_KEPT))
            }
        }
    }

    fn keep(&self, now: Instant) -> io::Result<()> {
        let (file, text) = match self {
            Kept::Text(file, text) => (file, text.clone()),
            Kept::Since(file, text) => (file, format!("{text}{}\n", now.nanos())),
        };
        if let Some(directory) = file.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        std::fs::write(file, text)
    }
}

impl Store {
    /// Keeps the proof of a local store in `directory`, which is made when there is one to keep.
    pub fn keep_proof_in(&self, directory: PathBuf) {
        // Whoever came first has the same state directory.
        drop(self.proof().kept_in.set(directory));
    }

    /// Whether it honours [`Store::create`]: probed at most once in this process, and not at all where this machine
    /// remembers the answer.
    ///
    /// # Errors
    /// As [`Store::probe`].
    pub fn create_support(&self, env: &Env) -> Result<CreateSupport, StoreError> {
        // Held meanwhile: who comes second needs the answer as well.
        let mut proven = self.proof().proven.lock();
        if *proven {
            return Ok(CreateSupport::Honoured);
        }
        if self.lease().is_some() {
            return Ok(CreateSupport::Leased);
        }
        // A probe may pass by chance: whom another host has found out, nobody believes.
        if self.identity().is_some() && self.wants_single_writer()? {
            return self.ignored(env);
        }
        if !*proven {
            *proven = self.kept_proof().is_some_and(|kept| kept.holds(env.now()));
        }
        if *proven { Ok(CreateSupport::Honoured) } else { self.prove(&mut proven, env) }
    }

    /// As [`Store::probe`]; the answer is remembered.
    ///
    /// # Errors
    /// As [`Store::probe`].
    pub fn probe_anew(&self, env: &Env) -> Result<CreateSupport, StoreError> {
        self.prove(&mut self.proof().proven.lock(), env)
    }

    fn prove(&self, proven: &mut bool, env: &Env) -> Result<CreateSupport, StoreError> {
        let support = self.probe(env)?;
        *proven = support == CreateSupport::Honoured;
        if *proven {
            self.keep_proof(env);
            return Ok(support);
        }
        self.ignored(env)
    }

    /// What a store that does not honour creations is good for: single-writer mode, where that is allowed.
    fn ignored(&self, env: &Env) -> Result<CreateSupport, StoreError> {
        Ok(if self.take_lease(env)? { CreateSupport::Leased } else { CreateSupport::Ignored })
    }

    fn kept_proof(&self) -> Option<Kept> {
        if let Some(identity) = self.identity() {
            return Some(Kept::Since(self.proof().file(identity.as_bytes())?, format!("{identity}\n")));
        }
        let directory = self.direct()?;
        let boot = std::fs::read_to_string(BOOT).ok()?;
        let file = self.proof().file(directory.root().as_os_str().as_encoded_bytes())?;
        Some(Kept::Text(file, format!("{} {}\n", boot.trim(), directory.identity()?)))
    }

    fn keep_proof(&self, env: &Env) {
        let Some(kept) = self.kept_proof() else { return };
        if let Err(error) = kept.keep(env.now()) {
            tracing::debug!(%error, "the proof of a store could not be kept; the next command probes again");
        }
    }
}
