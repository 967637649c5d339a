//! The key slots of an encrypted repository: who else may open it, and as what.
//!
//! A store may hold anything under the names of slots. What does not authenticate is listed as such, and is in nobody's
//! way: neither in that of whoever lists, adds, changes or removes keys, nor of whoever rotates ([`super::rotation`]).
//!
//! Crash behaviour: a slot is one object, created whole, and read back and opened before anything rests on it. A removal
//! ([`super::removal`]) deletes a slot's objects, newest last, so that one that was interrupted leaves the slot as it was. A change writes
//! the new slot first: at every moment one of the two opens all that the old one did.
//!
//! What was deleted over a network counts as removed when it is listed no more: to a deletion, any page of a gateway's that says
//! 200 looks like the store's answer, and who was to be kept out would not be.

use std::collections::BTreeMap;

use crate::base::{Class, Classed, Instant, limits};
use crate::format::author::Grade;
use crate::format::marker::Encryption;
use crate::format::object::{Object, ObjectName, SLOTS_PREFIX, slot_prefix};
use crate::format::slot::{About, At, Listed, Mark, Masters, Removal, Slot, role_name};
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
    /// Its name; none if nothing of it authenticates.
    pub name: Option<String>,
    /// `full`, `collector` or `writer`.
    pub role: Option<&'static str>,
    /// When it was made.
    pub created: Option<Instant>,
    /// The newest generation of keys that it has, as far as that authenticates.
    pub epoch: Epoch,
    /// The signing key of a lesser role.
    pub key: Option<KeyId>,
    /// Whether it is the one that this repository was opened with.
    pub own: bool,
    /// Whether what it gives in that generation is what was sealed, so that its holder can open the repository.
    pub is_sound: bool,
    /// Its removal, if that has begun: nobody relies on it any more.
    pub removal: Option<Removal>,
    /// What else stands under its name.
    pub faults: Vec<SlotFault>,
}

/// An object of a slot that is not what was sealed, as far as anybody can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFault {
    /// The object.
    pub object: ObjectName,
    /// Of which generation of keys its name says that it is.
    pub epoch: Epoch,
    /// What is the matter, in words.
    pub why: String,
}

impl SlotFault {
    pub(super) fn new(at: At, why: impl ToString) -> SlotFault {
        SlotFault { object: at.name(), epoch: at.epoch, why: why.to_string() }
    }
}

/// A slot in the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The new one.
    pub slot: SlotInfo,
    /// Objects of the old one that are still there, and why.
    pub left: Vec<SlotFault>,
}

/// The slot that `credential` opens, if there is one, and that slot's key.
pub(super) fn unlock(
    repo: RepoId,
    encryption: &Encryption,
    credential: &Credential,
) -> Result<(SlotId, Secret), RepoError> {
    let name = Object::Marker.name();
    let sealing = |source| FormatError::Seal { what: "repository marker", source };
    let unlock = credential.unlock(encryption).map_err(sealing).map_err(RepoError::object(&name))?;
    Ok((unlock.slot(repo), unlock.key(repo)))
}

/// Creates the object of `slot`, whose place is free, and opens it.
pub(super) fn write(store: &Store, at: At, key: &Secret, masters: &Masters, slot: &Slot) -> Result<(), RepoError> {
    match create(store, at, key, masters, slot, None)? {
        Created::New => Ok(()),
        Created::Exists => Err(taken(slot)),
    }
}

fn taken(slot: &Slot) -> RepoError {
    RepoError::Slot {
        name: slot.name.clone(),
        why: "would open with a passphrase or key file that opens another slot already",
        class: Class::Conflict,
    }
}

/// Creates the object of `slot` at `at`, reads it back and opens it. After an error it may exist.
pub(super) fn create(
    store: &Store,
    at: At,
    key: &Secret,
    masters: &Masters,
    slot: &Slot,
    left: Option<&Secret>,
) -> Result<Created, RepoError> {
    let name = at.name();
    let directory = masters.directory(at.repo).map_err(RepoError::object(&name))?;
    let bytes = slot.encode(at, key, &directory, left);
    let in_doubt = |source| RepoError::SlotInDoubt { name: slot.name.clone(), source: Box::new(source) };
    let created = store.create(&name, bytes.clone());
    let created = created.map_err(RepoError::store("write a key slot")).map_err(in_doubt)?;
    let found = store.get(&name, limits::KEY_SLOT_BYTES_MAX as u64);
    let found = found.map_err(|source| in_doubt(RepoError::reading(&name, source)))?;
    // Whoever has asked twice, because the first answer was lost, is told that it exists; it is the same then.
    if created == Created::Exists && found != bytes {
        return Ok(Created::Exists);
    }
    let opened = Slot::decode(at, key, &found).map_err(RepoError::object(&name)).map_err(in_doubt)?;
    if opened != *slot {
        let what = format!("the key slot {name} is another than was written");
        return Err(in_doubt(RepoError::Inconsistent { what }));
    }
    Ok(Created::New)
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
        let Listing { slots, marks } = self.listing(SLOTS_PREFIX)?;
        let mut marked = self.marked(&marks)?;
        for (id, objects) in slots {
            let Some(mut slot) = self.slot_of(id, &objects, own == Some(id))? else { continue };
            let marked = marked.remove(&id).unwrap_or_default();
            slot.removal = marked.removal;
            slot.faults.extend(marked.faults);
            found.push(slot);
        }
        found.sort_by_key(|slot| (slot.created, slot.id));
        Ok(found)
    }

    /// What `objects`, newest first, amount to: the newest that its holder can open; none if they are gone.
    fn slot_of(&self, id: SlotId, objects: &[At], own: bool) -> Result<Option<SlotInfo>, RepoError> {
        let mut shown: Option<(Epoch, Listed)> = None;
        let (mut faults, mut newest) = (Vec::new(), None);
        for at in objects.iter().copied() {
            let Some(listed) = self.listed(at)? else { continue };
            newest = newest.or(Some(at.epoch));
            match listed {
                Ok(listed) => {
                    if !listed.is_whole {
                        let why = "what its holder's key opens is not what was sealed: he cannot open the repository";
                        faults.push(SlotFault::new(at, why));
                    }
                    if shown.as_ref().is_none_or(|(_, shown)| !shown.is_whole && listed.is_whole) {
                        shown = Some((at.epoch, listed));
                    }
                }
                Err(fault) => faults.push(fault),
            }
        }
        let Some(newest) = newest else { return Ok(None) };
        let (epoch, is_sound, about) = match shown {
            Some((epoch, Listed { about, is_whole })) => (epoch, is_whole, Some(about)),
            None => (newest, false, None),
        };
        Ok(Some(SlotInfo { faults, is_sound, ..info(id, epoch, about, own) }))
    }

    /// What whoever has the full key sees of an object; none if it is gone.
    fn listed(&self, at: At) -> Result<Option<Result<Listed, SlotFault>>, RepoError> {
        let fault = |why: String| Ok(Some(Err(SlotFault::new(at, why))));
        if !is_plausible(at.epoch) {
            return fault(NO_EPOCH.to_owned());
        }
        let bytes = match self.store().get(&at.name(), limits::KEY_SLOT_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.class() == Class::NotFound => return Ok(None),
            Err(error) if error.class() == Class::Corrupt => return fault(error.to_string()),
            Err(source) => return Err(RepoError::Store { context: "read a key slot", source }),
        };
        let Some(keys) = self.directory(at.epoch) else {
            let current = self.realm().keys().and_then(|keys| self.directory(keys.current()));
            return fault(match current.is_some_and(|left| Slot::begins_rotation(at, &left, &bytes)) {
                true => format!("a rotation to epoch {} was begun with it, and is not ended", at.epoch),
                false => format!("it is of epoch {}, of which the key in use knows nothing", at.epoch),
            });
        };
        match Slot::listed(at, &keys, &bytes) {
            Ok(listed) => Ok(Some(Ok(listed))),
            Err(error) => fault(error.to_string()),
        }
    }

    /// What seals the names of slots in an epoch.
    pub(super) fn directory(&self, epoch: Epoch) -> Option<Secret> {
        self.realm().keys()?.epoch(epoch)?.directory.clone()
    }

    /// A new slot, named `name`, that `credential` opens.
    ///
    /// # Errors
    /// [`RepoError::Slot`] when the name or the credential is taken; [`RepoError::SlotInDoubt`] when it may be there all
    /// the same; [`RepoError::KeyRole`]; the store.
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
        let (id, key) = self.free_place(credential)?;
        write(self.store(), At { repo, slot: id, epoch: masters.epoch() }, &key, &masters, &slot)?;
        Ok(info(id, masters.epoch(), Some(slot.about()), false))
    }

    /// Gives what the slot gives that this repository was opened with to `credential` instead. Once the new slot is
    /// there nothing fails any more: what could not be deleted of the old one is told.
    ///
    /// # Errors
    /// [`RepoError::Slot`] when the credential is taken; [`RepoError::SlotInDoubt`] when the new slot may be there, the
    /// old one being as it was; [`RepoError::KeyRole`]; the store.
    pub fn replace_own_slot(&self, credential: &Credential) -> Result<Changed, RepoError> {
        let masters = self.masters("the change of a key")?;
        self.prove_store()?;
        let opened = self.opened_by.as_ref().ok_or_else(|| RepoError::Locked { store: self.store().describe() })?;
        let Listing { slots: old, marks } = self.listing(&slot_prefix(opened.id))?;
        let (id, key) = self.free_place(credential)?;
        if id == opened.id {
            return Err(taken(&opened.slot));
        }
        write(self.store(), At { repo: self.id(), slot: id, epoch: masters.epoch() }, &key, &masters, &opened.slot)?;
        let slot = info(id, masters.epoch(), Some(opened.slot.about()), false);
        // Oldest first: whatever is left opens all that it ever did.
        let old: Vec<At> = old.into_values().flatten().rev().collect();
        let made = match self.mark_in_favour_of(id) {
            Ok(marks) => marks.made,
            Err(error) => {
                let left = old.into_iter().map(|at| SlotFault::new(at, &error)).collect();
                return Ok(Changed { slot, left });
            }
        };
        let (mut left, mut deleted) = (Vec::new(), Vec::new());
        for at in old {
            if at.epoch > masters.epoch() {
                // It could not be opened, and may be mended: what it holds is not in the new slot.
                left.push(SlotFault::new(at, "it was not what was sealed when the repository was opened"));
            } else if let Err(error) = self.store().delete(&at.name()) {
                left.push(SlotFault::new(at, error));
            } else {
                deleted.push(at);
            }
        }
        match self.still_there(&slot_prefix(opened.id), &deleted) {
            Ok(still) => left.extend(still.into_iter().map(|at| {
                let object = at.name();
                SlotFault::new(at, RepoError::NotRemoved { object })
            })),
            Err(error) => {
                let why = format!("whether it was is not known: {error}");
                left.extend(deleted.into_iter().map(|at| SlotFault::new(at, &why)));
            }
        }
        // Those of others who began to remove it, too: it is gone.
        if left.is_empty() {
            self.withdraw(&[marks, made].concat());
        }
        Ok(Changed { slot, left })
    }

    /// The slot that `credential` is to open, and its key. What a removal has left of one that was there before is taken away.
    fn free_place(&self, credential: &Credential) -> Result<(SlotId, Secret), RepoError> {
        let (id, key) = unlock(self.id(), self.encryption()?, credential)?;
        let listing = self.listing(&slot_prefix(id))?;
        if listing.slots.is_empty() {
            self.unmark(&listing.marks).map_err(RepoError::store("remove the mark of a removal"))?;
        }
        Ok((id, key))
    }

    fn encryption(&self) -> Result<&Encryption, RepoError> {
        let absent =
            || RepoError::Inconsistent { what: "the repository is not encrypted, so it has no keys".to_owned() };
        self.marker().encryption.as_ref().ok_or_else(absent)
    }

    pub(super) fn masters(&self, what: &'static str) -> Result<Masters, RepoError> {
        self.encryption()?;
        let slot = self.slot().ok_or_else(|| RepoError::Locked { store: self.store().describe() })?;
        Masters::of(slot).ok_or(RepoError::KeyRole { what, role: role_name(&slot.access) })
    }

    /// What is listed below `prefix`.
    pub(super) fn listing(&self, prefix: &str) -> Result<Listing, RepoError> {
        listing(self.store(), self.id(), prefix)
    }

    /// The objects of each slot below `prefix`, newest first.
    pub(super) fn slot_objects(&self, prefix: &str) -> Result<BTreeMap<SlotId, Vec<At>>, RepoError> {
        Ok(self.listing(prefix)?.slots)
    }
}

/// What is listed of slots.
pub(super) struct Listing {
    /// The objects of each, newest first.
    pub(super) slots: BTreeMap<SlotId, Vec<At>>,
    /// Where removals are marked.
    pub(super) marks: Vec<Mark>,
}

/// What is listed below `prefix`.
pub(super) fn listing(store: &Store, repo: RepoId, prefix: &str) -> Result<Listing, RepoError> {
    let listed = store.list(prefix, None, None).map_err(RepoError::store("list the key slots"))?;
    let mut found = Listing { slots: BTreeMap::new(), marks: Vec::new() };
    for object in listed {
        match Object::parse(&object.name) {
            Some(Object::Slot(slot, epoch)) => found.slots.entry(slot).or_default().push(At { repo, slot, epoch }),
            Some(Object::Removal(slot, epoch, removal)) => {
                found.marks.push(Mark { at: At { repo, slot, epoch }, removal });
            }
            _ => {}
        }
    }
    for objects in found.slots.values_mut() {
        objects.sort_by_key(|at| std::cmp::Reverse(at.epoch));
    }
    Ok(found)
}

/// Whether a slot can be of this epoch. Objects that cannot are not even read, so that there are few to read of a slot.
pub(super) fn is_plausible(epoch: Epoch) -> bool {
    epoch > Epoch(0) && epoch.0 as usize <= limits::KEY_EPOCHS_MAX
}

/// What is wrong with an object whose epoch is not plausible.
pub(super) const NO_EPOCH: &str = "no generation of keys has this number";

fn info(id: SlotId, epoch: Epoch, about: Option<About>, own: bool) -> SlotInfo {
    SlotInfo {
        id,
        own,
        epoch,
        role: about.as_ref().map(About::role),
        created: about.as_ref().map(|about| about.created),
        key: about.as_ref().and_then(|about| about.lesser).map(|(_, key)| key),
        name: about.map(|about| about.name),
        is_sound: true,
        removal: None,
        faults: Vec::new(),
    }
}
