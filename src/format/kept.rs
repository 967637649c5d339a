//! What a host that only captures keeps of its own sessions, so that it can compare with the points that it made.
//!
//! Only the secrets of *trees*: names, attributes and hashes of what was captured, never content. Sealed with a key that
//! follows from the host's own signing key, and bound to the repository and the source.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use zeroize::Zeroize;

use super::codec;
use super::error::{FormatError, malformed, refused};
use super::ids::{ChainId, RepoId, SessionId, SourceId};
use super::keyring::{Keyring, SessionSeal, SessionSecrets};
use crate::base::limits;
use crate::seal::aead::{Counter, Key};
use crate::seal::{Secret, derive};

const WHAT: &str = "file of kept sessions";
const MAGIC: &[u8; 8] = b"AMBRKEPT";
const SALT_BYTES: usize = 32;
const ONLY: Counter = Counter { part: 0, ordinal: 0 };

/// The sessions of a source's newest chain, as their writer keeps them.
#[derive(Debug, Default)]
pub struct Kept {
    /// The chain.
    pub chain: ChainId,
    /// Its sessions, with what opens their trees.
    pub sessions: BTreeMap<SessionId, (SessionSeal, Secret)>,
}

#[derive(Encode, Decode)]
struct Row {
    session: SessionId,
    seal: SessionSeal,
    tree: [u8; 32],
}

#[derive(Encode, Decode)]
struct Stored {
    chain: ChainId,
    rows: Vec<Row>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.rows.iter_mut().for_each(|row| row.tree.zeroize());
    }
}

fn key(keys: &Keyring, source: SourceId, salt: &[u8]) -> Key {
    let RepoId(repo) = keys.repo();
    Key::new(&derive::secret(keys.local(), salt, &[b"amberfs kept sessions", &repo, &source.0.to_le_bytes()]))
}

impl Kept {
    /// The file's bytes. `salt` is random, and used once.
    pub fn encode(&self, keys: &Keyring, source: SourceId, salt: [u8; SALT_BYTES]) -> Vec<u8> {
        let rows = self.sessions.iter().map(|(session, (seal, tree))| Row {
            session: *session,
            seal: *seal,
            tree: *tree.bytes(),
        });
        let mut text = codec::encode(&Stored { chain: self.chain, rows: rows.collect() });
        let key = key(keys, source, &salt);
        key.seal(ONLY, MAGIC, &mut text);
        [MAGIC.as_slice(), &salt, key.commitment(), &text].concat()
    }

    /// From the file's bytes.
    ///
    /// # Errors
    /// [`FormatError`] when they are another host's, or altered.
    pub fn decode(keys: &Keyring, source: SourceId, bytes: &[u8]) -> Result<Kept, FormatError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| malformed(WHAT, "not such a file"))?;
        let (salt, rest) = rest.split_at_checked(SALT_BYTES).ok_or_else(|| malformed(WHAT, "cut off"))?;
        let (commitment, text) = rest.split_at_checked(32).ok_or_else(|| malformed(WHAT, "cut off"))?;
        let key = key(keys, source, salt);
        if commitment != key.commitment() {
            return Err(refused(WHAT)(crate::seal::SealError::Refused));
        }
        let mut text = text.to_vec();
        key.open(ONLY, MAGIC, &mut text).map_err(refused(WHAT))?;
        let stored: Stored = codec::decode(WHAT, &text, limits::KEPT_SESSIONS_BYTES_MAX)?;
        text.zeroize();
        let rows = stored.rows.iter().map(|row| (row.session, (row.seal, Secret::new(row.tree))));
        Ok(Kept { chain: stored.chain, sessions: rows.collect() })
    }

    /// Puts all of them on the ring.
    pub fn admit(&self, keys: &Keyring, source: SourceId) {
        for (session, (seal, tree)) in &self.sessions {
            keys.admit(source, *session, SessionSecrets { seal: *seal, tree: Some(tree.clone()), data: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Instant;
    use crate::format::author::Grade;
    use crate::format::slot::Masters;
    use crate::format::{Epoch, LogNumber, Nonce};

    const REPO: RepoId = RepoId([3; 16]);

    fn writer(seed: u8) -> Keyring {
        let slot = Masters::first([1; 32]).lesser(REPO, Grade::Writer, "web1", Instant::from_nanos(7), [seed; 32]);
        slot.unwrap().keyring(REPO).unwrap()
    }

    #[test]
    fn what_was_kept_opens_for_the_same_writer_and_source_only() {
        let session = SessionId { base: LogNumber(1), random: Nonce([4; 16]) };
        let seal = SessionSeal { epoch: Epoch(1), public: [9; 32] };
        let sessions = BTreeMap::from([(session, (seal, Secret::new([7; 32])))]);
        let kept = Kept { chain: ChainId(2), sessions };
        let bytes = kept.encode(&writer(5), SourceId(1), [8; 32]);
        let read = Kept::decode(&writer(5), SourceId(1), &bytes).unwrap();
        assert_eq!((read.chain, &read.sessions), (kept.chain, &kept.sessions));
        let keys = writer(5);
        read.admit(&keys, SourceId(1));
        assert_eq!(keys.session(SourceId(1), session).unwrap().tree, Some(Secret::new([7; 32])));
        assert!(keys.session(SourceId(1), session).unwrap().data.is_none());
        assert!(Kept::decode(&writer(6), SourceId(1), &bytes).is_err());
        assert!(Kept::decode(&writer(5), SourceId(2), &bytes).is_err());
        for length in 0..bytes.len() {
            assert!(Kept::decode(&writer(5), SourceId(1), &bytes[..length]).is_err());
        }
    }
}
