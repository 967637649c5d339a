//! Keeps, on a host that only captures, what it needs to build on its own points: see `format::kept`.
//!
//! One file for each source, in the machine's state directory. Losing it loses no data: the next capture is full, and
//! says so. It is written beside the old one and renamed, after the point was acknowledged; a crash in between costs a full
//! capture as well.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use super::Repo;
use crate::format::kept::Kept;
use crate::format::{ChainId, SessionId, SourceId};

impl Repo {
    /// Keeps what this host needs of its own sessions in `directory`, if it has a key that only writes.
    pub fn keep_sessions_in(&self, directory: PathBuf) {
        // Whoever came first has the same state directory.
        drop(self.kept_in.set(directory));
    }

    fn kept_file(&self, source: SourceId) -> Option<PathBuf> {
        Some(self.kept_in.get()?.join(self.id().to_string()).join(source.to_string()))
    }

    /// Whether the trees of this session can be read, so that a point can be compared with what it committed.
    pub fn may_build_on(&self, source: SourceId, session: SessionId) -> bool {
        let Some(keys) = self.realm().keys() else { return true };
        keys.reads_trees() || keys.session(source, session).is_ok_and(|secrets| secrets.tree.is_some())
    }

    /// Takes up what was kept of this source's sessions.
    pub fn recall_sessions(&self, source: SourceId) {
        if let Some(kept) = self.kept(source)
            && let Some(keys) = self.realm().keys()
        {
            kept.admit(keys, source);
        }
    }

    fn kept(&self, source: SourceId) -> Option<Kept> {
        let keys = self.realm().keys().filter(|keys| !keys.reads_trees())?;
        let file = self.kept_file(source)?;
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(?file, %error, "what this host kept of its captures cannot be read");
                }
                return None;
            }
        };
        match Kept::decode(keys, source, &bytes) {
            Ok(kept) => Some(kept),
            Err(error) => {
                tracing::warn!(?file, %error, "what this host kept of its captures cannot be used");
                None
            }
        }
    }

    /// Keeps what opens the trees of `session`, which has committed to `chain`, beside those of the same chain.
    pub fn keep_session(&self, source: SourceId, chain: ChainId, session: SessionId) {
        let Some(keys) = self.realm().keys().filter(|keys| !keys.reads_trees()) else { return };
        let Some(file) = self.kept_file(source) else {
            tracing::warn!("there is no place to keep what the next capture needs: it will be full");
            return;
        };
        let mut kept = self.kept(source).filter(|kept| kept.chain == chain).unwrap_or_default();
        kept.chain = chain;
        match keys.session(source, session) {
            Ok(secrets) => kept.sessions.extend(secrets.tree.map(|tree| (session, (secrets.seal, tree)))),
            Err(error) => tracing::warn!(%error, "a session's keys are gone: the next capture will be full"),
        }
        let bytes = kept.encode(keys, source, self.env().random());
        let write = || -> io::Result<()> {
            let directory = file.parent().unwrap_or(&file);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let beside = file.with_extension(std::process::id().to_string());
            let mut new =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            new.write_all(&bytes)?;
            new.sync_all()?;
            std::fs::rename(&beside, &file)
        };
        if let Err(error) = write() {
            tracing::warn!(?file, %error, "what the next capture needs could not be kept: it will be full");
        }
    }
}
