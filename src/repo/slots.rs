//! The key slots of an encrypted repository: who else may open it, and as what.
//!
//! Crash behaviour: a slot is one object, created whole. A removal deletes a slot's objects, newest last. A rotation writes
//! the new keys into the slot that it was begun with before anything is sealed with them, and only at its end removes all
//! others; one that was interrupted is finished by the next.

use std::collections::BTreeMap;

use crate::base::{Class, Classed, Instant, limits};
use crate::format::author::Grade;
use crate::format::marker::Encryption;
use crate::format::object::{Object, SLOTS_PREFIX};
use crate::format::slot::{About, At, Masters, Slot, role_name};
use crate::format::{Epoch, FormatError, KeyId, RepoId, SlotId};
use crate::seal::Secret;
use crate::store::{Created, Store};

use super::credential::Credential;
use super::{Repo, RepoError};

/// What a new slot gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotRole {
    /// Everything.
    Full,
    /// Reading metadata, deleting, collecting.
    Collector,
    /// Adding points to its own sources.
    Writer,
}

/// A slot in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Its identity.
    pub id: SlotId,
    /// Its name; none if it cannot be opened, which is damage.
    pub name: Option<String>,
    /// `full`, `collector` or `writer`.
    pub role: Option<&'static str>,
    /// When it was made.
    pub created: Option<Instant>,
    /// The newest generation of keys that it has.
    pub epoch: Epoch,
    /// The signing key of a lesser role.
    pub key: Option<KeyId>,
    /// Whether it is the one that this repository was opened with.
    pub own: bool,
}

/// Creates the object of `slot`, for `credential`; the slot's place and key.
pub(super) fn write(
    store: &Store,
    repo: RepoId,
    encryption: &Encryption,
    credential: &Credential,
    masters: &Masters,
    slot: &Slot,
) -> Result<(SlotId, Secret), RepoError> {
    let name = Object::Marker.name();
    let sealing = |source| FormatError::Seal { what: "repository marker", source };
    let unlock = credential.unlock(encryption).map_err(sealing).map_err(RepoError::object(&name))?;
    let (id, key) = (unlock.slot(repo), unlock.key(repo));
    match create(store, At { repo, slot: id, epoch: masters.epoch() }, &key, masters, slot)? {
        Created::New => Ok((id, key)),
        Created::Exists => Err(RepoError::Slot {
            name: slot.name.clone(),
            why: "would open with a passphrase or key file that opens another slot already",
            class: Class::Conflict,
        }),
    }
}

fn create(store: &Store, at: At, key: &Secret, masters: &Masters, slot: &Slot) -> Result<Created, RepoError> {
    let directory = masters.directory(at.repo).map_err(RepoError::object(&at.name()))?;
    store.create(&at.name(), slot.encode(at, key, &directory)).map_err(RepoError::store("write a key slot"))
}

/// A rotation that has begun: the new keys are in the slot that it was begun with.
#[derive(Debug)]
pub struct Rotation {
    /// The new generation of keys.
    pub epoch: Epoch,
}

impl Repo {
    /// Every slot, by what it is called; whoever has a full key can tell.
    ///
    /// # Errors
    /// [`RepoError::KeyRole`] without a full key; the store.
    pub fn slots(&self) -> Result<Vec<SlotInfo>, RepoError> {
        self.masters("a list of the keys")?;
        let own = self.opened_by.as_ref().map(|opened| opened.id);
        let mut found = Vec::new();
        for objects in self.slot_objects()? {
            let Some(at) = objects.first().copied() else { continue };
            let about = match self.about(at) {
                Ok(about) => Some(about),
                Err(error) if matches!(error.class(), Class::Corrupt | Class::Denied) => None,
                Err(error) => return Err(error),
            };
            found.push(SlotInfo {
                id: at.slot,
                own: own == Some(at.slot),
                role: about.as_ref().map(About::role),
                created: about.as_ref().map(|about| about.created),
                epoch: at.epoch,
                key: about.as_ref().and_then(|about| about.lesser).map(|(_, key)| key),
                name: about.map(|about| about.name),
            });
        }
        found.sort_by_key(|slot| (slot.created, slot.id));
        Ok(found)
    }

    /// A new slot, named `name`, that `credential` opens.
    ///
    /// # Errors
    /// [`RepoError::Slot`] when the name or the credential is taken; [`RepoError::KeyRole`]; the store.
    pub fn add_slot(&self, name: &str, role: SlotRole, credential: &Credential) -> Result<SlotInfo, RepoError> {
        let masters = self.masters("a new key")?;
        self.prove_store()?;
        if self.slots()?.iter().any(|slot| slot.name.as_deref() == Some(name)) {
            let why = "exists already: choose another name, or remove it first";
            return Err(RepoError::Slot { name: name.to_owned(), why, class: Class::Conflict });
        }
        let (env, repo) = (self.env(), self.id());
        let lesser = |grade| masters.lesser(repo, grade, name, env.now(), env.random());
        let slot = match role {
            SlotRole::Full => Ok(masters.full(name, env.now())),
            SlotRole::Collector => lesser(Grade::Collector),
            SlotRole::Writer => lesser(Grade::Writer),
        };
        let slot = slot.map_err(RepoError::object(&Object::Marker.name()))?;
        let (id, _) = write(self.store(), repo, self.encryption()?, credential, &masters, &slot)?;
        self.listed(id)
    }

    fn listed(&self, id: SlotId) -> Result<SlotInfo, RepoError> {
        let gone = || RepoError::Inconsistent { what: "a key slot that was written is not there".to_owned() };
        self.slots()?.into_iter().find(|slot| slot.id == id).ok_or_else(gone)
    }

    /// The slot named `name`, or with that identity, if it may be removed.
    ///
    /// # Errors
    /// [`RepoError::Slot`] when there is none, or it is the last that gives everything; [`RepoError::KeyRole`]; the store.
    pub fn slot_named(&self, name: &str) -> Result<SlotInfo, RepoError> {
        let all = self.slots()?;
        let named = |slot: &&SlotInfo| slot.name.as_deref() == Some(name) || slot.id.to_string() == name;
        let refused = |why, class| RepoError::Slot { name: name.to_owned(), why, class };
        let slot = all.iter().find(named).cloned();
        let slot = slot.ok_or_else(|| refused("does not exist; `amberfs key list` shows all", Class::NotFound))?;
        let full = |slot: &&SlotInfo| slot.role == Some("full");
        if full(&&slot) && all.iter().filter(full).count() == 1 {
            let why = "is the last that gives everything: add another one first, or nobody could ever open all again";
            return Err(refused(why, Class::Conflict));
        }
        Ok(slot)
    }

    /// Removes a slot. Who has had it may have kept what it gave: only a rotation keeps him from what is written from
    /// then on.
    ///
    /// # Errors
    /// [`RepoError::KeyRole`]; the store.
    pub fn remove_slot(&self, slot: &SlotInfo) -> Result<(), RepoError> {
        self.masters("the removal of a key")?;
        self.prove_store()?;
        for objects in self.slot_objects()? {
            for at in objects.iter().rev().filter(|at| at.slot == slot.id) {
                self.store().delete(&at.name()).map_err(RepoError::store("remove a key slot"))?;
            }
        }
        Ok(())
    }

    /// Gives what the slot gives that this repository was opened with to `credential` instead.
    ///
    /// # Errors
    /// [`RepoError::Slot`] when the credential is taken; [`RepoError::KeyRole`]; the store.
    pub fn replace_own_slot(&self, credential: &Credential) -> Result<SlotInfo, RepoError> {
        let masters = self.masters("the change of a key")?;
        self.prove_store()?;
        let opened = self.opened_by.as_ref().ok_or_else(|| RepoError::Locked { store: self.store().describe() })?;
        let (id, _) = write(self.store(), self.id(), self.encryption()?, credential, &masters, &opened.slot)?;
        for at in self.slot_objects()?.into_iter().flatten().filter(|at| at.slot == opened.id) {
            self.store().delete(&at.name()).map_err(RepoError::store("remove a key slot"))?;
        }
        self.listed(id)
    }

    /// Begins a rotation: puts a new generation of keys into the slot that this repository was opened with, or takes up
    /// one that was interrupted, `counts` being the generation that the repository's log says counts. What follows is
    /// done with the repository opened anew; [`Repo::finish_rotation`] ends it.
    ///
    /// # Errors
    /// [`RepoError::KeyRole`]; [`RepoError::Slot`] when somebody else rotates; the store.
    pub fn begin_rotation(&self, counts: Epoch) -> Result<Rotation, RepoError> {
        let masters = self.masters("a rotation")?;
        self.prove_store()?;
        let opened = self.opened_by.as_ref().ok_or_else(|| RepoError::Locked { store: self.store().describe() })?;
        if masters.epoch() > Epoch(1) && counts < masters.epoch() {
            return Ok(Rotation { epoch: masters.epoch() });
        }
        let name = Object::Marker.name();
        let masters = masters.rotated(self.env().random()).map_err(RepoError::object(&name))?;
        let at = At { repo: self.id(), slot: opened.id, epoch: masters.epoch() };
        let slot = masters.full(&opened.slot.name, opened.slot.created);
        let taken = || RepoError::Slot {
            name: opened.slot.name.clone(),
            why: "cannot be rotated: somebody else is rotating, or was interrupted; let him finish, or remove his key",
            class: Class::Conflict,
        };
        match create(self.store(), at, &opened.key, &masters, &slot)? {
            Created::New => {}
            Created::Exists => return Err(taken()),
        }
        // Two that begin at once see one another, and both give way.
        let others =
            self.slot_objects()?.into_iter().flatten().any(|other| other.slot != at.slot && other.epoch >= at.epoch);
        if others {
            self.store().delete(&at.name()).map_err(RepoError::store("remove a key slot"))?;
            return Err(taken());
        }
        Ok(Rotation { epoch: masters.epoch() })
    }

    /// Removes every slot, and every generation of this one, that does not have the newest keys; those slots, by what they
    /// were called.
    ///
    /// # Errors
    /// [`RepoError::KeyRole`]; the store.
    pub fn finish_rotation(&self) -> Result<Vec<SlotInfo>, RepoError> {
        let masters = self.masters("a rotation")?;
        self.prove_store()?;
        let mut dropped = self.slots()?;
        dropped.retain(|slot| slot.epoch < masters.epoch() && !slot.own);
        for at in self.slot_objects()?.into_iter().flatten().filter(|at| at.epoch < masters.epoch()) {
            self.store().delete(&at.name()).map_err(RepoError::store("remove a key slot"))?;
        }
        Ok(dropped)
    }

    fn encryption(&self) -> Result<&Encryption, RepoError> {
        let absent =
            || RepoError::Inconsistent { what: "the repository is not encrypted, so it has no keys".to_owned() };
        self.marker().encryption.as_ref().ok_or_else(absent)
    }

    fn masters(&self, what: &'static str) -> Result<Masters, RepoError> {
        self.encryption()?;
        let slot = self.slot().ok_or_else(|| RepoError::Locked { store: self.store().describe() })?;
        Masters::of(slot).ok_or(RepoError::KeyRole { what, role: role_name(&slot.access) })
    }

    /// The objects of each slot, newest first.
    fn slot_objects(&self) -> Result<Vec<Vec<At>>, RepoError> {
        let listed = self.store().list(SLOTS_PREFIX, None, None).map_err(RepoError::store("list the key slots"))?;
        let mut slots: BTreeMap<SlotId, Vec<At>> = BTreeMap::new();
        for object in listed {
            if let Some(Object::Slot(slot, epoch)) = Object::parse(&object.name) {
                slots.entry(slot).or_default().push(At { repo: self.id(), slot, epoch });
            }
        }
        for objects in slots.values_mut() {
            objects.sort_by_key(|at| std::cmp::Reverse(at.epoch));
        }
        Ok(slots.into_values().collect())
    }

    fn about(&self, at: At) -> Result<About, RepoError> {
        let damaged = RepoError::object(&at.name());
        let bytes = self.store().get(&at.name(), limits::KEY_SLOT_BYTES_MAX as u64);
        let bytes = bytes.map_err(RepoError::store("read a key slot"))?;
        let keys = self.realm().keys().and_then(|keys| keys.epoch(at.epoch)).and_then(|keys| keys.directory.clone());
        let no_key = || FormatError::NoKey { what: "key slot", key: format!("the keys of epoch {}", at.epoch) };
        Slot::listed(at, &keys.ok_or_else(no_key).map_err(&damaged)?, &bytes).map_err(&damaged)
    }
}
