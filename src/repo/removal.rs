//! Removes key slots, and sees to it that one stays that gives everything, whoever removes which at the same time.
//!
//! Whoever removes a slot puts a mark of his own beside it first, and looks then which slots stay; one with a mark is not relied on.
//! Of two that remove one another's slots at least one sees the mark of the other: he takes his own back and removes
//! nothing. Of any number of removals that are carried out, consider the one that looked last: the slot that it relied on had no mark
//! then, and whoever had marked it since would have looked later. So that slot is still there. A change of a key and a
//! rotation remove slots, too, and rely on the one that they make. No clocks are compared, and nobody waits.
//!
//! Crash behaviour: a mark is left, and the slot beside it opens what it always did. The same removal goes on when it is
//! given again; whoever has the slot changes his key, or adds another, which has no mark. Nobody but who has the full key
//! of its epoch makes a mark that counts.

use std::collections::BTreeMap;

use crate::base::{Class, Classed, limits};
use crate::format::object::slot_prefix;
use crate::format::slot::{At, Mark, Removal};
use crate::format::{Epoch, Nonce, SlotId};
use crate::store::StoreError;

use super::slots::{SlotFault, SlotInfo, is_plausible};
use super::{Repo, RepoError};

/// What is known of the removal of a slot.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// The mark that counts.
    pub(super) removal: Option<Removal>,
    /// What stands where marks do, and counts for nothing.
    pub(super) faults: Vec<SlotFault>,
}

/// Slots were marked, and one that was to stay has no mark.
pub(super) struct Marks {
    /// The marks.
    pub(super) made: Vec<Mark>,
    /// All slots, as they were seen then.
    pub(super) seen: Vec<SlotInfo>,
}

impl Repo {
    /// What the marks at `places` say, by slot.
    pub(super) fn marked(&self, places: &[Mark]) -> Result<BTreeMap<SlotId, Marked>, RepoError> {
        let mut marked: BTreeMap<SlotId, Marked> = BTreeMap::new();
        for mark in places {
            let of_slot = marked.entry(mark.at.slot).or_default();
            match self.read_mark(*mark)? {
                None => {}
                Some(Ok(removal)) => of_slot.removal = Some(removal),
                Some(Err(why)) => {
                    of_slot.faults.push(SlotFault { object: mark.name(), epoch: mark.at.epoch, why });
                }
            }
        }
        Ok(marked)
    }

    /// What a mark says, or what is wrong with it; none if there is none.
    fn read_mark(&self, mark: Mark) -> Result<Option<Result<Removal, String>>, RepoError> {
        let epoch = mark.at.epoch;
        let Some(directory) = self.directory(epoch).filter(|_| is_plausible(epoch)) else {
            return Ok(Some(Err(format!("it is of epoch {epoch}, of which the key in use knows nothing"))));
        };
        match self.store().get(&mark.name(), limits::KEY_SLOT_BYTES_MAX as u64) {
            Ok(bytes) => Ok(Some(mark.decode(&directory, &bytes).map_err(|error| error.to_string()))),
            Err(error) if error.class() == Class::NotFound => Ok(None),
            Err(error) if error.class() == Class::Corrupt => Ok(Some(Err(error.to_string()))),
            Err(source) => Err(RepoError::Store { context: "read the mark of a removal", source }),
        }
    }

    /// Marks those of `slots` that could be relied on; after an error none is left, if the store allows it.
    fn mark<'a>(&self, slots: impl IntoIterator<Item = &'a SlotInfo>) -> Result<Vec<Mark>, RepoError> {
        let current = self.masters("the removal of a key")?.epoch();
        let by = self.slot().map(|slot| slot.name.clone()).unwrap_or_default();
        let removal = Removal { by, begun: self.env().now() };
        let nonce = Nonce(self.env().random());
        let mut made = Vec::new();
        for slot in slots.into_iter().filter(|slot| slot.role.is_none_or(|role| role == "full")) {
            let at = At { repo: self.id(), slot: slot.id, epoch: slot.epoch.min(current).max(Epoch(1)) };
            let mark = Mark { at, removal: nonce };
            made.push(mark);
            let absent =
                || RepoError::Inconsistent { what: format!("there is no directory key of epoch {}", at.epoch) };
            let created = self.directory(at.epoch).ok_or_else(absent).and_then(|directory| {
                let created = self.store().create(&mark.name(), mark.encode(&removal, &directory));
                created.map_err(RepoError::store("mark a key slot as one that is being removed"))
            });
            // Nobody else has its name, so it can only be there if it is ours.
            if let Err(error) = created {
                self.withdraw(&made);
                return Err(error);
            }
        }
        Ok(made)
    }

    /// Takes marks away.
    pub(super) fn unmark(&self, marks: &[Mark]) -> Result<(), StoreError> {
        marks.iter().try_for_each(|mark| self.store().delete(&mark.name()))
    }

    /// Takes back marks of a removal that is not carried out.
    pub(super) fn withdraw(&self, made: &[Mark]) {
        if let Err(error) = self.unmark(made) {
            tracing::warn!(%error, "a key is still marked as one that is being removed: whoever has it changes it (`amberfs key change`)");
        }
    }

    /// The slot named `name`, or with that identity, if it may be removed. `counts` is the generation of keys that the
    /// repository's log says counts; none when that log cannot be read as a whole.
    ///
    /// # Errors
    /// [`RepoError::Slot`] when there is none, or several, or nobody could open all that is stored without it;
    /// [`RepoError::KeyRole`]; the store.
    pub fn slot_named(&self, name: &str, counts: Option<Epoch>) -> Result<SlotInfo, RepoError> {
        let current = self.masters("the removal of a key")?.epoch();
        let all = self.slots()?;
        let refused = |why| RepoError::Slot { name: name.to_owned(), why, class: Class::Conflict };
        let slot = match all.iter().find(|slot| slot.id.to_string() == name) {
            Some(slot) => slot,
            None => {
                let mut named = all.iter().filter(|slot| slot.name.as_deref() == Some(name));
                let slot = named.next().ok_or_else(|| RepoError::Slot {
                    name: name.to_owned(),
                    why: "does not exist; `amberfs key list` shows all",
                    class: Class::NotFound,
                })?;
                if named.next().is_some() {
                    return Err(refused("is the name of several: give the id of one, as `amberfs key list` shows it"));
                }
                slot
            }
        };
        // Nobody but its holder can tell whether an object of a newer generation is junk. The log tells whether it counts.
        let may_be_newer = slot.faults.iter().any(|fault| fault.epoch > current && is_plausible(fault.epoch));
        if may_be_newer && counts.is_none_or(|counts| counts > current) {
            return Err(refused(
                "may have newer keys than the one in use, which does not open all of the repository's log: open the \
                 repository with that one",
            ));
        }
        // The one in use has been opened, which says more than its listing.
        let gives_all =
            |other: &SlotInfo| other.own || other.role == Some("full") && other.is_sound && other.epoch == current;
        let mut others = all.iter().filter(|other| other.id != slot.id && gives_all(other)).peekable();
        if others.peek().is_none() {
            return Err(refused(
                "is the last that gives everything: add another one first, or nobody could ever open all again",
            ));
        }
        if others.all(|other| other.removal.is_some()) {
            return Err(refused(
                "cannot be removed: the removal of every other one that gives everything has begun (`amberfs key list` \
                 shows since when, and with which key); let that end, or change the key in use first, or add another one",
            ));
        }
        Ok(slot.clone())
    }

    /// Removes a slot, if it may be removed still. `counts` tells what [`Repo::slot_named`] wants to know, as of now. Who has
    /// had the slot may have kept what it gave: only a rotation keeps him from what is written from then on.
    ///
    /// # Errors
    /// [`RepoError::Slot`] when it is not to be removed any more; [`RepoError::NotRemoved`] when it is still there;
    /// [`RepoError::KeyRole`]; the store.
    pub fn remove_slot(&self, slot: &SlotInfo, counts: impl FnOnce() -> Option<Epoch>) -> Result<(), RepoError> {
        self.masters("the removal of a key")?;
        self.prove_store()?;
        let made = self.mark([slot])?;
        match self.slot_named(&slot.id.to_string(), counts()) {
            Ok(_) => {}
            // Somebody else was faster; a mark may be left.
            Err(error) if error.class() == Class::NotFound => {}
            Err(error) => {
                self.withdraw(&made);
                return Err(error);
            }
        }
        let prefix = slot_prefix(slot.id);
        let listing = self.listing(&prefix)?;
        let objects: Vec<At> = listing.slots.into_values().flatten().rev().collect();
        self.remove_objects(&prefix, &objects)?;
        self.unmark(&listing.marks).map_err(RepoError::store("remove the mark of a removal"))
    }

    /// Deletes `objects`, in this order, and sees that none of them is listed below `prefix` any more.
    pub(super) fn remove_objects(&self, prefix: &str, objects: &[At]) -> Result<(), RepoError> {
        for at in objects {
            self.store().delete(&at.name()).map_err(RepoError::store("remove a key slot"))?;
        }
        match self.still_there(prefix, objects)?.first() {
            Some(at) => Err(RepoError::NotRemoved { object: at.name() }),
            None => Ok(()),
        }
    }

    /// Which of the objects that were `deleted` over a network are listed below `prefix` all the same.
    pub(super) fn still_there(&self, prefix: &str, deleted: &[At]) -> Result<Vec<At>, RepoError> {
        if deleted.is_empty() || !self.store().is_remote() {
            return Ok(Vec::new());
        }
        let mut listed: Vec<At> = self.slot_objects(prefix)?.into_values().flatten().collect();
        listed.retain(|at| deleted.iter().any(|deleted| deleted.name() == at.name()));
        Ok(listed)
    }

    /// Marks our own slot, and sees that `other` stays.
    pub(super) fn mark_in_favour_of(&self, other: SlotId) -> Result<Marks, RepoError> {
        self.mark_and_look(
            |slot| slot.own,
            |slot| slot.id == other,
            "is left, because somebody else removes the new one",
        )
    }

    /// Marks all slots that give everything and `go` but our own, and sees that ours stays.
    pub(super) fn mark_others(&self, go: impl Fn(&SlotInfo) -> bool) -> Result<Marks, RepoError> {
        self.mark_and_look(
            |slot| !slot.own && go(slot),
            |slot| slot.own,
            "is being removed, or was: `amberfs key list` shows since when, and with which key; let that end, or change \
             the key first (`amberfs key change`)",
        )
    }

    /// Marks the slots that `go`, and looks whether the one that `stays` has no mark; `why` it cannot be, else.
    fn mark_and_look(
        &self,
        go: impl Fn(&SlotInfo) -> bool,
        stays: impl Fn(&SlotInfo) -> bool,
        why: &'static str,
    ) -> Result<Marks, RepoError> {
        let made = self.mark(self.slots()?.iter().filter(|slot| go(slot)))?;
        let refused = match self.slots() {
            Ok(seen) if seen.iter().any(|slot| stays(slot) && slot.removal.is_none()) => {
                return Ok(Marks { made, seen });
            }
            Ok(_) => {
                let name = self.slot().map(|slot| slot.name.clone()).unwrap_or_default();
                RepoError::Slot { name, why, class: Class::Conflict }
            }
            Err(error) => error,
        };
        self.withdraw(&made);
        Err(refused)
    }
}
