//! What a log amounts to: a pure function of its entries, in order.
//!
//! Every reader and every writer folds the same entries with the same [`LogState::apply`], so all
//! that have read up to the same number agree, and an entry that one of them holds void is void to
//! all. Nothing here reads a clock or a store.
//!
//! An entry that is missing or unreadable is passed over with [`LogState::pass`] and remembered as
//! [`Damage`]. Readers then go on, and a rule that would need the lost entry gives way: a point whose
//! parent is lost is complete in itself and must stay readable. Writers do not go on.

pub mod repo;
pub mod source;
mod tip;
mod void;

pub use repo::{RepoGoal, RepoState};
pub use source::{Chain, Dependents, SourceGoal, SourceState};
pub use tip::{Damage, Fault, Tip};
pub use void::{Refusal, Void};

use crate::format::author::{Author, Role};
use crate::format::keyring::{Keyring, SessionSeal};
use crate::format::log::{Checkpoint, EntryHash, LogBody, LogEntry, Pin};
use crate::format::object::LogId;
use crate::format::{Epoch, LogNumber, Realm, SessionId};

/// What a writer does next about its goal, at the tip it has read up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal<B> {
    /// Append this at the next number.
    Write(B),
    /// Nothing: what is wanted stands already.
    Holds,
}

/// The fold of a log's entries.
pub trait LogState: Clone + Default + std::fmt::Debug + Send + Sync + 'static {
    /// What its entries say.
    type Body: LogBody;
    /// What a writer may want of it. Told in terms that stay valid while others append.
    type Goal: Clone + std::fmt::Debug + Send;

    /// How far the log has been read.
    fn tip(&self) -> &Tip;

    /// For the provided methods only.
    #[doc(hidden)]
    fn tip_mut(&mut self) -> &mut Tip;

    /// Takes the effect of the entry at the tip, or says why it has none.
    ///
    /// # Errors
    /// [`Void`]; the state is then as before.
    #[doc(hidden)]
    fn judge(&mut self, entry: &LogEntry<Self::Body>) -> Result<(), Void>;

    /// A log before its first entry. What the log of an encrypted repository says of a source goes into its own log.
    fn begin(realm: &Realm, log: LogId) -> Self {
        let _ = (realm, log);
        Self::default()
    }

    /// Takes what the repository's log says of a source, which may have been said after the state was stored. Returned is
    /// what it says of an entry that the state covers: the state is nothing if that does not stand.
    fn told(&mut self, realm: &Realm, log: LogId) -> Option<Pin> {
        let _ = (realm, log);
        None
    }

    /// The newest entry that the repository's log had pinned when the state was begun or stored.
    fn pinned(&self) -> LogNumber {
        LogNumber(0)
    }

    /// Whether the state can stand behind the entry that `pin` names.
    fn agrees_with(&self, pin: &Pin) -> bool {
        let _ = pin;
        true
    }

    /// What is wrong with entry `number`, which has this hash, or none at all, according to another log.
    fn contradiction(&self, number: LogNumber, hash: Option<EntryHash>) -> Option<Fault> {
        let _ = (number, hash);
        None
    }

    /// What holds behind the entry at the tip according to another log.
    #[doc(hidden)]
    fn heed(&mut self) {}

    /// What a reader of other logs must know of this one.
    fn tell(&self, keys: &Keyring) {
        let _ = keys;
    }

    /// Whether `author` may say `body` in the next entry.
    ///
    /// # Errors
    /// [`Void`] when such an entry would have no effect.
    fn authorize(&self, author: &Author, body: &Self::Body) -> Result<(), Void>;

    /// The oldest generation of keys that counts.
    fn epoch(&self) -> Epoch;

    /// From what the secrets of committed sessions follow: those of commits that stand behind entry `above`.
    fn seals(&self, above: LogNumber) -> Vec<(SessionId, SessionSeal)> {
        let _ = above;
        Vec::new()
    }

    /// What to append at the next number in order to reach `goal`.
    ///
    /// # Errors
    /// [`Refusal`] when the log as read rules it out.
    fn propose(&self, goal: &Self::Goal) -> Result<Proposal<Self::Body>, Refusal>;

    /// Whether `goal` stands, whatever the entries said that could not be read: then nothing need be
    /// appended, and damage is in nobody's way.
    fn stands_for_sure(&self, goal: &Self::Goal) -> bool {
        let _ = goal;
        false
    }

    /// The state in the form that a checkpoint stores; the same bytes from every reader.
    fn snapshot(&self) -> <Self::Body as LogBody>::Snapshot;

    /// The state that a checkpoint stored.
    ///
    /// # Errors
    /// In words, what no fold of entries can have produced.
    fn restore(checkpoint: &Checkpoint<<Self::Body as LogBody>::Snapshot>) -> Result<Self, String>;

    /// Reads the next entry; `hash` is over its object as stored.
    ///
    /// # Errors
    /// [`Void`] when it has no effect; it has been read all the same.
    fn apply(&mut self, entry: &LogEntry<Self::Body>, hash: EntryHash) -> Result<(), Void> {
        if let Some(fault) = self.contradiction(entry.number, Some(hash)) {
            self.pass(entry.number, fault);
            return Err(Void::Replaced);
        }
        let authorized = self.authorize(&entry.author, &entry.body);
        // What somebody says who may not says nothing about the entry below either.
        let previous = match &authorized {
            Ok(()) => Some(entry.previous),
            Err(_) => None,
        };
        self.tip_mut().advance(entry.number, previous, hash);
        let judged = authorized.and_then(|()| self.judge(entry));
        self.heed();
        judged
    }

    /// Passes over entry `number`, which is the next, because of `fault`.
    fn pass(&mut self, number: LogNumber, fault: Fault) {
        self.tip_mut().pass(number, fault);
        self.heed();
    }
}

/// What holds for authors in every log: the signature is valid, and of a generation of keys that still counts.
fn check_author(author: &Author, epoch: Epoch) -> Result<(), Void> {
    if author.role == Role::Nobody {
        return Err(Void::Unsigned);
    }
    if author.epoch < epoch {
        return Err(Void::OldKeys { signed: author.epoch, epoch });
    }
    Ok(())
}

/// Whether an entry by `author` may say that only keys from `epoch` on count, where `now` do.
fn check_epoch(author: &Author, epoch: Epoch, now: Epoch) -> Result<(), Void> {
    // Who could name an epoch that nobody has would void everything for ever.
    if epoch <= now || epoch > author.epoch { Err(Void::EpochFalls(epoch)) } else { Ok(()) }
}
