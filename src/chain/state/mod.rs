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

use crate::format::LogNumber;
use crate::format::log::{Checkpoint, EntryHash, LogBody, LogEntry};

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
        self.tip_mut().advance(entry.number, entry.previous, hash);
        self.judge(entry)
    }

    /// Passes over entry `number`, which is the next, because of `fault`.
    fn pass(&mut self, number: LogNumber, fault: Fault) {
        self.tip_mut().pass(number, fault);
    }
}
