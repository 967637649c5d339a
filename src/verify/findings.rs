//! Collects what is wrong while many threads look, object by object, in bounded memory.
//!
//! Beside the faults that a report lists, it knows which frames cannot be read: what the walk of the
//! trees and the search for paths go by. That set grows with the damage and with nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};

use parking_lot::Mutex;

use super::report::{Fault, Finding, Harm, Touch};
use super::{Progress, VerifyError};
use crate::base::{Class, Classed};
use crate::format::object::ObjectName;
use crate::format::{FrameOrdinal, PackId, SourceId};
use crate::repo::RepoError;

/// Damaged objects that a report lists.
const OBJECTS_MAX: usize = 10_000;
/// Faults of one object that a report lists.
const FAULTS_MAX: usize = 16;

/// The frames of a pack that cannot be read.
#[derive(Debug, Default)]
struct Unreadable {
    all: bool,
    frames: HashSet<FrameOrdinal>,
}

#[derive(Debug)]
struct Entry {
    harm: Harm,
    faults: Vec<Fault>,
    more: u64,
    touches: Vec<Touch>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectName, Entry>,
    /// Those of which the report tells no more than how many they are.
    beyond: HashSet<ObjectName>,
    unreadable: HashMap<(SourceId, PackId), Unreadable>,
}

/// What is wrong.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    progress: &'a Progress,
    state: Mutex<State>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(progress: &'a Progress) -> Findings<'a> {
        Findings { progress, state: Mutex::default() }
    }

    /// Notes a fault, once for each place in an object.
    pub(super) fn note(&self, object: &ObjectName, harm: Harm, offset: Option<u64>, what: impl Into<String>) {
        let fault = Fault { offset, what: what.into() };
        let mut state = self.state.lock();
        if let Some(entry) = state.objects.get_mut(object) {
            entry.harm = entry.harm.max(harm);
            let known = |known: &Fault| known.offset == fault.offset && (offset.is_some() || known.what == fault.what);
            if entry.faults.iter().any(known) {
                return;
            }
            if entry.faults.len() < FAULTS_MAX {
                entry.faults.push(fault);
            } else {
                entry.more += 1;
            }
            return;
        }
        if state.objects.len() >= OBJECTS_MAX {
            if state.beyond.insert(object.clone()) {
                self.progress.add_problem();
            }
            return;
        }
        self.progress.add_problem();
        state.objects.insert(object.clone(), Entry { harm, faults: vec![fault], more: 0, touches: Vec::new() });
    }

    /// Notes that an object could not be read at `offset`; no damage, but an end, when the store does not answer.
    pub(super) fn note_error(
        &self,
        object: &ObjectName,
        offset: Option<u64>,
        error: RepoError,
    ) -> Result<(), VerifyError> {
        let (harm, what) = diagnose(error)?;
        self.note(object, harm, offset, what);
        Ok(())
    }

    /// A frame that cannot be read.
    pub(super) fn lose_frame(&self, source: SourceId, pack: PackId, frame: FrameOrdinal) {
        self.state.lock().unreadable.entry((source, pack)).or_default().frames.insert(frame);
    }

    /// A pack that does not exist.
    pub(super) fn lose_pack(&self, source: SourceId, pack: PackId) {
        self.state.lock().unreadable.entry((source, pack)).or_default().all = true;
    }

    /// Whether the frame is known to be unreadable.
    pub(super) fn is_lost(&self, source: SourceId, pack: PackId, frame: FrameOrdinal) -> bool {
        let state = self.state.lock();
        state.unreadable.get(&(source, pack)).is_some_and(|lost| lost.all || lost.frames.contains(&frame))
    }

    /// Whether anything is wrong with an object.
    pub(super) fn has(&self, object: &ObjectName) -> bool {
        let state = self.state.lock();
        state.objects.contains_key(object) || state.beyond.contains(object)
    }

    /// Says what an object's damage touches.
    pub(super) fn touch(&self, object: &ObjectName, touches: Vec<Touch>) {
        if let Some(entry) = self.state.lock().objects.get_mut(object) {
            entry.touches.extend(touches);
        }
    }

    /// The findings by name, and the count of damaged objects beyond them.
    pub(super) fn finish(self) -> (Vec<Finding>, u64) {
        let state = self.state.into_inner();
        let findings = state.objects.into_iter().map(|(object, mut entry)| {
            entry.faults.sort_by_key(|fault| fault.offset);
            Finding { object, harm: entry.harm, faults: entry.faults, more_faults: entry.more, touches: entry.touches }
        });
        (findings.collect(), state.beyond.len() as u64)
    }
}

/// What an error says about the object that was read.
///
/// # Errors
/// The error itself, when it says nothing about any object.
pub(super) fn diagnose(error: RepoError) -> Result<(Harm, String), VerifyError> {
    match &error {
        RepoError::Missing { .. } => return Ok((Harm::Missing, "it does not exist".to_owned())),
        RepoError::Damaged { source, .. } => return Ok((Harm::Damaged, source.to_string())),
        _ => {}
    }
    match error.class() {
        Class::Corrupt => Ok((Harm::Damaged, cause(&error))),
        // A bad sector or a lost permission concerns this object; that others can be read is worth knowing.
        Class::Transient | Class::Denied | Class::NotFound => Ok((Harm::Unreadable, cause(&error))),
        Class::Timeout
        | Class::Conflict
        | Class::Unsupported
        | Class::Invalid
        | Class::Exhausted
        | Class::Cancelled => Err(error.into()),
    }
}

fn cause(error: &RepoError) -> String {
    match error {
        RepoError::Store { source, .. } => source.to_string(),
        error => error.to_string(),
    }
}
