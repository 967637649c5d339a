//! A new generation of keys for an encrypted repository.
//!
//! The new keys go into the slot that the rotation was begun with, before anything is sealed with them; then the logs say
//! from which generation on entries count, which is the caller's part; at the end no older slot is left.
//!
//! Two that rotate at once see one another and give way. That is a courtesy: what decides is the repository's log, where
//! the first that says so has the generation, and whoever has drawn other keys cannot read on and writes nothing. Only
//! what somebody with the full key has written counts as his beginning; a store cannot keep a rotation from being begun
//! by putting junk where slots are. Junk in the place of the next generation is deleted, for there are not so many numbers
//! that it could be passed over: no log tells of keys that it may have been, or the caller would not have come this far.
//!
//! Crash behaviour: one that was interrupted is taken up by whoever has the key that it was begun with. One that finds its
//! new keys gone from the slot at the end, because another process took them for junk, puts them back.

use crate::base::{Class, Classed, limits};
use crate::format::Epoch;
use crate::format::object::{Object, SLOTS_PREFIX, slot_prefix};
use crate::format::slot::{At, Mark, Masters, Slot};
use crate::seal::Secret;
use crate::store::Created;

use super::open::OpenedBy;
use super::removal::Marks;
use super::slots::{Listing, SlotInfo, create, is_plausible};
use super::{Repo, RepoError};

/// A rotation that has begun: the new keys are in the slot that it was begun with.
#[derive(Debug)]
pub struct Rotation {
    /// The new generation of keys.
    pub epoch: Epoch,
}

impl Repo {
    /// Whether [`Repo::begin_rotation`] would take up a rotation that was interrupted.
    pub fn resumes_rotation(&self, counts: Epoch) -> bool {
        let current = self.realm().keys().map_or(Epoch(0), |keys| keys.current());
        current > Epoch(1) && counts < current
    }

    /// Begins a rotation: puts a new generation of keys into the slot that this repository was opened with, or takes up
    /// one that was interrupted, `counts` being the generation that counts in every log. What follows is done with the
    /// repository opened anew; [`Repo::finish_rotation`] ends it.
    ///
    /// # Errors
    /// [`RepoError::KeyRole`]; [`RepoError::Slot`] when somebody else rotates; the store.
    pub fn begin_rotation(&self, counts: Epoch) -> Result<Rotation, RepoError> {
        let masters = self.masters("a rotation")?;
        self.prove_store()?;
        let opened = self.opened_by.as_ref().ok_or_else(|| RepoError::Locked { store: self.store().describe() })?;
        let current = masters.epoch();
        // Whoever removes our slot meanwhile would remove the only one with the new keys.
        let Marks { made, .. } = self.mark_others(|slot| slot.epoch <= current)?;
        if self.resumes_rotation(counts) {
            return Ok(Rotation { epoch: current });
        }
        let begun = self.begin_epoch(&masters, opened);
        if matches!(begun, Err(RepoError::Slot { .. })) {
            self.withdraw(&made);
        }
        begun
    }

    /// Puts the next generation of keys into the slot that this repository was opened with.
    fn begin_epoch(&self, masters: &Masters, opened: &OpenedBy) -> Result<Rotation, RepoError> {
        let left = masters.directory(self.id()).map_err(RepoError::object(&Object::Marker.name()))?;
        let taken = || RepoError::Slot {
            name: opened.slot.name.clone(),
            why: "cannot be rotated: somebody else is rotating, or was interrupted; let him finish, or remove his key",
            class: Class::Conflict,
        };
        let masters = self.next_masters(masters, opened)?.ok_or_else(taken)?;
        let at = At { repo: self.id(), slot: opened.id, epoch: masters.epoch() };
        let slot = masters.full(&opened.slot.name, opened.slot.created);
        match create(self.store(), at, &opened.key, &masters, &slot, Some(&left))? {
            Created::New => {}
            Created::Exists => return Err(taken()),
        }
        // Two that begin at once see one another, and both give way.
        if self.others_rotate(at, &left)? {
            self.store().delete(&at.name()).map_err(RepoError::store("remove a key slot"))?;
            return Err(taken());
        }
        Ok(Rotation { epoch: masters.epoch() })
    }

    /// The next generation, whose place in the slot is free then; none if another process has begun a rotation with the
    /// same key.
    fn next_masters(&self, masters: &Masters, opened: &OpenedBy) -> Result<Option<Masters>, RepoError> {
        let next = masters.rotated(self.env().random()).map_err(|_| RepoError::Slot {
            name: opened.slot.name.clone(),
            why: "cannot be rotated: it holds as many generations of keys as there can be; begin a new repository",
            class: Class::Exhausted,
        })?;
        let objects = self.slot_objects(&slot_prefix(opened.id))?;
        let Some(at) = objects.into_values().flatten().find(|at| at.epoch == next.epoch()) else {
            return Ok(Some(next));
        };
        match self.store().get(&at.name(), limits::KEY_SLOT_BYTES_MAX as u64) {
            Ok(bytes) if Slot::decode(at, &opened.key, &bytes).is_ok() => return Ok(None),
            Ok(_) => {}
            Err(error) if error.class() == Class::Corrupt => {}
            Err(error) if error.class() == Class::NotFound => return Ok(None),
            Err(source) => return Err(RepoError::Store { context: "read a key slot", source }),
        }
        tracing::info!(object = %at.name(), "removed what no key opens from the place of the new keys");
        self.store().delete(&at.name()).map_err(RepoError::store("remove what stands in the place of a key slot"))?;
        Ok(Some(next))
    }

    /// Whether somebody who has the full key has begun a rotation with another slot than that of `at`.
    fn others_rotate(&self, at: At, left: &Secret) -> Result<bool, RepoError> {
        let current = self.realm().keys().map_or(Epoch(0), |keys| keys.current());
        for other in self.slot_objects(SLOTS_PREFIX)?.into_values().flatten() {
            if other.slot == at.slot || other.epoch <= current || !is_plausible(other.epoch) {
                continue;
            }
            match self.store().get(&other.name(), limits::KEY_SLOT_BYTES_MAX as u64) {
                Ok(bytes) if Slot::begins_rotation(other, left, &bytes) => return Ok(true),
                Ok(_) => {}
                Err(error) if matches!(error.class(), Class::Corrupt | Class::NotFound) => {}
                Err(source) => return Err(RepoError::Store { context: "read a key slot", source }),
            }
        }
        Ok(false)
    }

    /// Removes every slot, and every generation of this one, that does not have the newest keys; those slots, by what they
    /// were called.
    ///
    /// # Errors
    /// [`RepoError::NotRemoved`] when one is still there; [`RepoError::KeyRole`]; the store.
    pub fn finish_rotation(&self) -> Result<Vec<SlotInfo>, RepoError> {
        let masters = self.masters("a rotation")?;
        self.prove_store()?;
        self.keep_own_slot(&masters)?;
        let goes = |slot: &SlotInfo| slot.epoch < masters.epoch() && !slot.own;
        // Some may have been added since.
        let Marks { seen: mut dropped, .. } = self.mark_others(goes)?;
        dropped.retain(goes);
        let Listing { slots, marks } = self.listing(SLOTS_PREFIX)?;
        let older: Vec<At> = slots.into_values().flatten().filter(|at| at.epoch < masters.epoch()).collect();
        self.remove_objects(SLOTS_PREFIX, &older)?;
        let older: Vec<Mark> = marks.into_iter().filter(|mark| mark.at.epoch < masters.epoch()).collect();
        self.unmark(&older).map_err(RepoError::store("remove the mark of a removal"))?;
        Ok(dropped)
    }

    /// Sees to it that our own slot has these keys, which the logs tell of, before no other is left.
    fn keep_own_slot(&self, masters: &Masters) -> Result<(), RepoError> {
        let opened = self.opened_by.as_ref().ok_or_else(|| RepoError::Locked { store: self.store().describe() })?;
        let at = At { repo: self.id(), slot: opened.id, epoch: masters.epoch() };
        match self.store().get(&at.name(), limits::KEY_SLOT_BYTES_MAX as u64) {
            Ok(bytes) if Slot::decode(at, &opened.key, &bytes).is_ok_and(|slot| slot == opened.slot) => return Ok(()),
            Ok(_) => self.store().delete(&at.name()).map_err(RepoError::store("remove a key slot"))?,
            Err(error) if error.class() == Class::Corrupt => {
                self.store().delete(&at.name()).map_err(RepoError::store("remove a key slot"))?;
            }
            Err(error) if error.class() == Class::NotFound => {}
            Err(source) => return Err(RepoError::Store { context: "read a key slot", source }),
        }
        match create(self.store(), at, &opened.key, masters, &opened.slot, None)? {
            Created::New => Ok(()),
            Created::Exists => Err(RepoError::Slot {
                name: opened.slot.name.clone(),
                why: "was changed by somebody else meanwhile: rotate again",
                class: Class::Conflict,
            }),
        }
    }
}
