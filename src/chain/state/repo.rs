//! What the repository log amounts to: the sources.

use std::collections::BTreeSet;

use super::{Damage, LogState, Proposal, Refusal, Tip, Void, check_author, check_epoch};
use crate::chain::name;
use crate::chain::origin::same_place;
use crate::format::author::{Author, Role};
use crate::format::keyring::{Keyring, Told};
use crate::format::log::{Checkpoint, LogEntry, Origin, Pin, RepoBody, RepoSnapshot, SourceKind, SourceRecord};
use crate::format::{Epoch, KeyId, SourceId};

/// The sources of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepoState {
    tip: Tip,
    /// All that were ever added, in that order, so sorted by id.
    records: Vec<SourceRecord>,
    /// Keys that may write here no more.
    revoked: BTreeSet<KeyId>,
    /// Older generations of keys count for nothing.
    epoch: Epoch,
}

/// What a writer may want of the repository log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RepoGoal {
    /// A source of this name that is captured from this origin.
    Claim {
        /// The name.
        name: String,
        /// The kind.
        kind: SourceKind,
        /// Where it is captured from.
        origin: Origin,
        /// Whether a source of that name may be moved here.
        adopt: bool,
    },
    /// That the source be gone.
    Remove(SourceId),
    /// That this key write here no more.
    Revoke(KeyId),
    /// That older generations of keys count for nothing.
    Epoch(Epoch),
    /// That these entries of sources' logs be known to stand there; by source, ascending.
    Pin(Vec<(SourceId, Pin)>),
}

impl RepoState {
    /// How far the log has been read, and what was wrong on the way.
    pub fn read(&self) -> &Tip {
        &self.tip
    }

    /// Every source that was ever added, removed ones included, in that order.
    pub fn records(&self) -> &[SourceRecord] {
        &self.records
    }

    /// The sources, in the order in which they were added.
    pub fn sources(&self) -> impl Iterator<Item = &SourceRecord> {
        self.records.iter().filter(|record| !record.removed)
    }

    /// Whether this key may write here no more.
    pub fn is_revoked(&self, key: KeyId) -> bool {
        self.revoked.contains(&key)
    }

    /// The source with this name.
    pub fn by_name(&self, name: &str) -> Option<&SourceRecord> {
        self.sources().find(|record| record.name == name)
    }

    /// The source with this id, removed or not.
    pub fn by_id(&self, id: SourceId) -> Option<&SourceRecord> {
        self.records.binary_search_by_key(&id, |record| record.id).ok().and_then(|at| self.records.get(at))
    }

    fn live(&mut self, id: SourceId) -> Result<&mut SourceRecord, Void> {
        let at = self.records.binary_search_by_key(&id, |record| record.id);
        at.ok().and_then(|at| self.records.get_mut(at)).filter(|record| !record.removed).ok_or(Void::NoSource(id))
    }
}

impl LogState for RepoState {
    type Body = RepoBody;
    type Goal = RepoGoal;

    fn tip(&self) -> &Tip {
        &self.tip
    }

    fn tip_mut(&mut self) -> &mut Tip {
        &mut self.tip
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn judge(&mut self, entry: &LogEntry<RepoBody>) -> Result<(), Void> {
        match &entry.body {
            RepoBody::AddSource { name, kind, origin } => {
                name::check_source(name)?;
                if let Some(older) = self.by_name(name).map(|record| record.id) {
                    // A lost entry may have removed the older one; hiding the newer would hide all its points. Whoever has a
                    // lesser key is not believed that: with it, damage would give him the names of others.
                    let may = entry.author.role == Role::Full;
                    if !may || !self.tip.lost_entries().any(|lost| lost.0 > older.0) {
                        return Err(Void::SourceTaken(name.clone()));
                    }
                    self.live(older)?.removed = true;
                }
                self.records.push(SourceRecord {
                    id: SourceId(entry.number.0),
                    name: name.clone(),
                    kind: *kind,
                    origin: origin.clone(),
                    removed: false,
                    owner: match entry.author.role {
                        Role::Writer(key) => Some(key),
                        Role::Full | Role::Collector(_) | Role::Nobody => None,
                    },
                    epoch: self.epoch,
                    pin: None,
                });
            }
            RepoBody::MoveSource { source, origin } => self.live(*source)?.origin = origin.clone(),
            RepoBody::RemoveSource { source } => self.live(*source)?.removed = true,
            RepoBody::RevokeKey { key } => drop(self.revoked.insert(*key)),
            RepoBody::Epoch { epoch } => {
                check_epoch(&entry.author, *epoch, self.epoch)?;
                self.epoch = *epoch;
            }
            RepoBody::Pin { pins } => {
                for (source, pin) in pins {
                    // A source whose own entry is lost has nothing to be pinned to.
                    if let Ok(record) = self.live(*source)
                        && record.pin.is_none_or(|known| known.number < pin.number)
                    {
                        record.pin = Some(*pin);
                    }
                }
            }
        }
        Ok(())
    }

    fn authorize(&self, author: &Author, body: &RepoBody) -> Result<(), Void> {
        check_author(author, self.epoch)?;
        match author.role {
            Role::Full => Ok(()),
            Role::Collector(key) | Role::Writer(key) if self.revoked.contains(&key) => Err(Void::Revoked(key)),
            Role::Writer(key) => match body {
                RepoBody::AddSource { .. } => Ok(()),
                RepoBody::MoveSource { source, .. } if self.by_id(*source).and_then(writer) == Some(key) => Ok(()),
                RepoBody::MoveSource { .. } => Err(Void::NotOwner(key)),
                RepoBody::RemoveSource { .. }
                | RepoBody::RevokeKey { .. }
                | RepoBody::Epoch { .. }
                | RepoBody::Pin { .. } => Err(Void::NotAllowed(author.role)),
            },
            Role::Collector(_) | Role::Nobody => Err(Void::NotAllowed(author.role)),
        }
    }

    fn tell(&self, keys: &Keyring) {
        for record in &self.records {
            keys.tell(record.id, Told { owner: record.owner, epoch: record.epoch, pin: record.pin });
        }
    }

    fn propose(&self, goal: &RepoGoal) -> Result<Proposal<RepoBody>, Refusal> {
        match goal {
            RepoGoal::Claim { name, kind, origin, adopt } => {
                name::check_source(name).map_err(Void::Name)?;
                let Some(record) = self.by_name(name) else {
                    let body = RepoBody::AddSource { name: name.clone(), kind: *kind, origin: origin.clone() };
                    return Ok(Proposal::Write(body));
                };
                if record.kind != *kind {
                    return Err(Refusal::OtherKind { name: name.clone(), recorded: record.kind, wanted: *kind });
                }
                if same_place(&record.origin, origin) {
                    return Ok(Proposal::Holds);
                }
                if !adopt {
                    return Err(Refusal::OtherOrigin {
                        name: name.clone(),
                        recorded: Box::new(record.origin.clone()),
                        wanted: Box::new(origin.clone()),
                    });
                }
                Ok(Proposal::Write(RepoBody::MoveSource { source: record.id, origin: origin.clone() }))
            }
            RepoGoal::Remove(id) => match self.by_id(*id) {
                None => Err(Void::NoSource(*id).into()),
                Some(record) if record.removed => Ok(Proposal::Holds),
                Some(_) => Ok(Proposal::Write(RepoBody::RemoveSource { source: *id })),
            },
            RepoGoal::Revoke(key) if self.revoked.contains(key) => Ok(Proposal::Holds),
            RepoGoal::Revoke(key) => Ok(Proposal::Write(RepoBody::RevokeKey { key: *key })),
            RepoGoal::Epoch(epoch) if *epoch <= self.epoch => Ok(Proposal::Holds),
            RepoGoal::Epoch(epoch) => Ok(Proposal::Write(RepoBody::Epoch { epoch: *epoch })),
            RepoGoal::Pin(pins) => {
                let is_news = |(source, pin): &&(SourceId, Pin)| {
                    let record = self.by_id(*source).filter(|record| !record.removed);
                    record.is_some_and(|record| record.pin.is_none_or(|known| known.number < pin.number))
                };
                let pins: Vec<(SourceId, Pin)> = pins.iter().filter(is_news).copied().collect();
                Ok(if pins.is_empty() { Proposal::Holds } else { Proposal::Write(RepoBody::Pin { pins }) })
            }
        }
    }

    /// A claim does if its source was added above all damage: no lost entry can have moved or removed it then.
    fn stands_for_sure(&self, goal: &RepoGoal) -> bool {
        let RepoGoal::Claim { name, .. } = goal else { return false };
        let Some(record) = self.by_name(name) else { return false };
        let below = |damage: &Damage| !damage.stops_writers() || damage.number.0 < record.id.0;
        self.tip.damage.iter().all(below) && matches!(self.propose(goal), Ok(Proposal::Holds))
    }

    fn snapshot(&self) -> RepoSnapshot {
        RepoSnapshot {
            sources: self.records.clone(),
            revoked: self.revoked.iter().copied().collect(),
            epoch: self.epoch,
        }
    }

    fn restore(checkpoint: &Checkpoint<RepoSnapshot>) -> Result<RepoState, String> {
        let records = &checkpoint.state.sources;
        let mut below = SourceId(0);
        let mut names = std::collections::HashSet::new();
        for record in records {
            if record.id <= below || record.id.0 > checkpoint.number.0 {
                return Err(format!("source {} is out of order", record.id));
            }
            below = record.id;
            name::check_source(&record.name).map_err(|error| error.to_string())?;
            if !record.removed && !names.insert(record.name.as_str()) {
                return Err(format!("two sources are named {}", record.name));
            }
        }
        let revoked = &checkpoint.state.revoked;
        if revoked.iter().zip(revoked.iter().skip(1)).any(|(a, b)| a >= b) {
            return Err("its removed keys are out of order".to_owned());
        }
        Ok(RepoState {
            tip: Tip::covered(checkpoint.number, checkpoint.hash),
            records: records.clone(),
            revoked: revoked.iter().copied().collect(),
            epoch: checkpoint.state.epoch,
        })
    }
}

/// The writer key to which the source belongs: whose it was last made, as far as that is pinned, or else the one that added it.
fn writer(record: &SourceRecord) -> Option<KeyId> {
    record.pin.map_or(record.owner, |pin| pin.writer)
}

#[cfg(test)]
mod tests;
