//! What can go wrong between objects and their meaning.

use crate::base::{Class, Classed};
use crate::format::FormatError;
use crate::format::object::ObjectName;
use crate::store::StoreError;

/// A failure to read or write a repository.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// The store failed.
    #[error("cannot {context}: {source}")]
    Store {
        /// What was being done, as a verb phrase.
        context: &'static str,
        /// The store's error.
        source: StoreError,
    },
    /// An object that must exist does not.
    #[error("object {object} is missing: run `amberfs verify` to see which points need it")]
    Missing {
        /// The object.
        object: ObjectName,
    },
    /// An object's bytes are not what they must be.
    #[error("object {object} {}: {source}", what_of(source))]
    Damaged {
        /// The object.
        object: ObjectName,
        /// What is wrong with it.
        source: FormatError,
    },
    /// There is no repository.
    #[error("no amberfs repository at {store}: create one with `amberfs init`")]
    Absent {
        /// Where it was looked for.
        store: String,
    },
    /// There is a repository already.
    #[error("there is an amberfs repository at {store} already")]
    Exists {
        /// Where.
        store: String,
    },
    /// It is encrypted, and no key was given.
    #[error("the repository at {store} is encrypted, and no key was given")]
    Locked {
        /// Where.
        store: String,
    },
    /// No slot opens with the key that was given.
    #[error("no key slot of the repository at {store} opens with this {given}")]
    WrongKey {
        /// Where.
        store: String,
        /// What was given: a passphrase or a key file.
        given: &'static str,
    },
    /// A key was given for a repository that is not encrypted.
    #[error("a key was given, but the repository at {store} is not encrypted")]
    NotEncrypted {
        /// Where.
        store: String,
    },
    /// What this key does not allow.
    #[error("{what}: it needs a full key of the repository, and this is a {role} key")]
    KeyRole {
        /// What was wanted, as a noun.
        what: &'static str,
        /// The role of the key.
        role: &'static str,
    },
    /// A key slot that is not there, or must not go, or is there already.
    #[error("key {name:?} {why}")]
    Slot {
        /// Its name.
        name: String,
        /// What is the matter.
        why: &'static str,
        /// What class of failure that is.
        class: Class,
    },
    /// A key slot that may have been written, and may open.
    #[error("whether key {name:?} opens the repository now is not known: {source}")]
    SlotInDoubt {
        /// Its name.
        name: String,
        /// Why it is not known.
        source: Box<RepoError>,
    },
    /// A key slot that was deleted, if one believes what answered.
    #[error(
        "the key slot {object} still stands, though the store said that it was deleted: whoever has its key opens the repository; \
         check the endpoint in the repository's URL and whether a proxy is on the way, and remove it again"
    )]
    NotRemoved {
        /// The object.
        object: ObjectName,
    },
    /// Commits would not be safe on this store.
    #[error(
        "{store} does not honour conditional creation: two writers could overwrite one another's commits; choose another \
         store, or see docs/stores.md about --single-writer"
    )]
    Unsafe {
        /// The store.
        store: String,
    },
    /// A pack's name is taken: by chance impossible, so something replays a session.
    #[error("pack {object} exists already: another process uses this session's identity")]
    PackTaken {
        /// The pack.
        object: ObjectName,
    },
    /// What is stored contradicts itself.
    #[error("the repository contradicts itself: {what}; run `amberfs verify`")]
    Inconsistent {
        /// How.
        what: String,
    },
    /// The writer contradicts itself: what is stored may be sound, so no conclusion about it is drawn from this.
    #[error("amberfs has a defect: {what}; nothing was committed. Please report it")]
    Defect {
        /// How.
        what: String,
    },
    /// An earlier failure left the session unusable.
    #[error("the capture's writer has failed before: {why}")]
    Poisoned {
        /// The earlier failure.
        why: String,
    },
}

/// What is said of an object that does not decode: one that is for others is no damage.
fn what_of(source: &FormatError) -> &'static str {
    match source {
        FormatError::NoKey { .. } => "cannot be read",
        _ => "is damaged",
    }
}

impl RepoError {
    /// For `map_err`: a store's failure while doing `context`; a missing object keeps its name.
    pub(crate) fn store(context: &'static str) -> impl Fn(StoreError) -> RepoError {
        move |source| RepoError::Store { context, source }
    }

    /// For `map_err`: `object` does not decode.
    pub(crate) fn object(object: &ObjectName) -> impl Fn(FormatError) -> RepoError + use<> {
        let object = object.clone();
        move |source| RepoError::Damaged { object: object.clone(), source }
    }

    /// A store's failure to read `object`, which must exist: absence is damage here, never "not found".
    pub(crate) fn reading(object: &ObjectName, source: StoreError) -> RepoError {
        if source.class() == Class::NotFound {
            RepoError::Missing { object: object.clone() }
        } else {
            RepoError::Store { context: "read stored data", source }
        }
    }
}

impl Classed for RepoError {
    fn class(&self) -> Class {
        match self {
            RepoError::Store { source, .. } => source.class(),
            RepoError::Missing { .. } | RepoError::Inconsistent { .. } => Class::Corrupt,
            RepoError::Damaged { source, .. } => source.class(),
            RepoError::Absent { .. } => Class::NotFound,
            RepoError::Exists { .. } | RepoError::PackTaken { .. } => Class::Conflict,
            RepoError::Locked { .. } | RepoError::WrongKey { .. } | RepoError::KeyRole { .. } => Class::Denied,
            RepoError::NotEncrypted { .. } => Class::Invalid,
            RepoError::Slot { class, .. } => *class,
            RepoError::SlotInDoubt { source, .. } => source.class(),
            RepoError::Unsafe { .. } | RepoError::NotRemoved { .. } => Class::Unsupported,
            RepoError::Poisoned { .. } | RepoError::Defect { .. } => Class::Transient,
        }
    }
}
