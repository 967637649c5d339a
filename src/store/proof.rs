//! Remembers that a store honours "create only if absent", so that it is probed once and not by each command.
//!
//! Whoever appends to a log rests on it, and a repository can be copied or mounted elsewhere after it was
//! made. So every process has the proof before it appends for the first time ([`Store::create_support`]), and a
//! local store's proof is kept in the machine's state directory for the commands that follow. It holds for
//! one directory (device, inode and type of its filesystem) and until the machine starts anew: after that a
//! number of a device may stand for another one.
//!
//! What is kept is a hint about a dozen requests. A file that is lost, torn or unreadable has them made again.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::error::StoreError;
use super::probe::CreateSupport;
use super::store::Store;
use crate::base::{Env, hex};

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

    /// The file for `root`, and what it holds while the proof is good.
    fn kept(&self, root: &Path, identity: &str) -> Option<(PathBuf, String)> {
        let directory = self.kept_in.get()?;
        let boot = std::fs::read_to_string(BOOT).ok()?;
        let mut name = hex::encode(blake3::hash(root.as_os_str().as_encoded_bytes()).as_bytes());
        name.truncate(32);
        Some((directory.join(name), format!("{} {identity}\n", boot.trim())))
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
        if !*proven {
            let kept = self.kept_proof();
            *proven = kept.is_some_and(|(file, text)| std::fs::read_to_string(file).is_ok_and(|read| read == text));
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
            self.keep_proof();
        }
        Ok(support)
    }

    fn kept_proof(&self) -> Option<(PathBuf, String)> {
        let directory = self.direct()?;
        self.proof().kept(directory.root(), &directory.identity()?)
    }

    fn keep_proof(&self) {
        let Some((file, text)) = self.kept_proof() else { return };
        let write = || -> io::Result<()> {
            if let Some(directory) = file.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            std::fs::write(&file, text)
        };
        if let Err(error) = write() {
            tracing::debug!(?file, %error, "the proof of a store could not be kept; the next command probes again");
        }
    }
}
