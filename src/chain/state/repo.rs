//! What the repository log amounts to: the sources.

use super::{Damage, LogState, Proposal, Refusal, Tip, Void};
use crate::chain::name;
use crate::chain::origin::same_place;
use crate::format::SourceId;
use crate::format::log::{Checkpoint, LogEntry, Origin, RepoBody, RepoSnapshot, SourceKind, SourceRecord};

/// The sources of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepoState {
    tip: Tip,
    /// All that were ever added, in that order, so sorted by id.
    records: Vec<SourceRecord>,
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

    fn judge(&mut self, entry: &LogEntry<RepoBody>) -> Result<(), Void> {
        match &entry.body {
            RepoBody::AddSource { name, kind, origin } => {
                name::check_source(name)?;
                if let Some(older) = self.by_name(name).map(|record| record.id) {
                    // A lost entry may have removed the older one; hiding the newer would hide all its points.
                    if !self.tip.lost_entries().any(|lost| lost.0 > older.0) {
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
                });
            }
            RepoBody::MoveSource { source, origin } => self.live(*source)?.origin = origin.clone(),
            RepoBody::RemoveSource { source } => self.live(*source)?.removed = true,
        }
        Ok(())
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
        RepoSnapshot { sources: self.records.clone() }
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
        Ok(RepoState { tip: Tip::covered(checkpoint.number, checkpoint.hash), records: records.clone() })
    }
}

#[cfg(test)]
mod tests;
