//! Reads the repository's marker, its log and the logs of its sources, with all checkpoints.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::findings::{Findings, diagnose};
use super::report::{Harm, Touch};
use super::{Options, Progress, VerifyError};
use crate::base::limits;
use crate::base::suggest::did_you_mean;
use crate::chain::state::{Damage, Fault, LogState};
use crate::chain::{Audit, RepoLog, SourceLog, SourceState};
use crate::format::log::SourceRecord;
use crate::format::marker::Marker;
use crate::format::object::{LogId, Object};
use crate::format::{LogNumber, PointId, SourceId};
use crate::repo::{Repo, RepoError};

/// A source that is verified.
pub(super) struct Subject {
    pub(super) record: SourceRecord,
    /// What readers know: also what only a checkpoint still says.
    pub(super) state: Arc<SourceState>,
    /// Whether no entry of its log is lost.
    pub(super) log_is_whole: bool,
}

/// What the logs say.
pub(super) struct Logs {
    pub(super) subjects: Vec<Subject>,
    /// Every source that ever was.
    pub(super) all_sources: Vec<SourceId>,
    /// The last entry of the repository's log that anything tells of.
    pub(super) last: LogNumber,
    pub(super) notes: Vec<String>,
    /// How far each log was read.
    pub(super) read: HashMap<LogId, Read>,
    /// Whether an entry says that it is sealed with keys that are not there.
    pub(super) lacks_keys: bool,
}

/// How far a log was read.
pub(super) struct Read {
    /// The last entry that was read or found missing.
    pub(super) last: LogNumber,
    /// Those that count for nothing.
    pub(super) void: BTreeSet<LogNumber>,
    /// Whether one says that it is sealed with keys that are not there.
    lacks_keys: bool,
}

/// Checks marker and logs, and yields what is to be checked next.
pub(super) fn check(
    repo: &Arc<Repo>,
    options: &Options,
    findings: &Findings<'_>,
    progress: &Progress,
) -> Result<Logs, VerifyError> {
    marker(repo, findings, progress)?;
    slots(repo, findings, progress)?;
    let log = RepoLog::open(repo.store().clone(), repo.env().clone(), repo.realm());
    progress.at(|| "the repository's log".to_owned());
    let audit = log.audit()?;
    let (mut notes, mut read) = (Vec::new(), HashMap::new());
    account(&audit, LogId::Repo, "the repository's log", progress, (&mut notes, &mut read));
    for damage in &audit.damage {
        let also =
            matches!(damage.fault, Fault::Missing | Fault::Unreadable(_) | Fault::Replaced | Fault::NewerKeys(_))
                .then(|| "a source, its place or its removal, as far as no checkpoint says it".to_owned());
        note(findings, LogId::Repo, damage, "", also.into_iter().collect());
    }
    let state = log.load()?;
    let wanted: Vec<SourceRecord> = match &options.sources {
        // Logs stay when a source is removed, and must stay sealed.
        None => state.records().to_vec(),
        Some(names) => names
            .iter()
            .map(|name| {
                state.by_name(name).cloned().ok_or_else(|| VerifyError::NoSource {
                    name: name.clone(),
                    suggestion: did_you_mean(name, state.sources().map(|record| record.name.as_str())),
                })
            })
            .collect::<Result<_, _>>()?,
    };
    let mut subjects = Vec::with_capacity(wanted.len());
    for record in wanted {
        progress.check()?;
        subjects.push(source(repo, record, findings, progress, (&mut notes, &mut read))?);
    }
    let all_sources = state.records().iter().map(|record| record.id).collect();
    let last = audit.state.tip().number.max(state.tip().number);
    let lacks_keys = read.values().any(|read| read.lacks_keys);
    Ok(Logs { subjects, all_sources, last, notes, read, lacks_keys })
}

fn marker(repo: &Arc<Repo>, findings: &Findings<'_>, progress: &Progress) -> Result<(), VerifyError> {
    let name = Object::Marker.name();
    let read = repo.store().get(&name, limits::LOG_ENTRY_BYTES_MAX as u64);
    let read = read.map_err(|source| RepoError::reading(&name, source));
    match read.and_then(|bytes| Marker::decode(&bytes).map_err(RepoError::object(&name))) {
        Ok(marker) if marker == *repo.marker() => {}
        Ok(_) => findings.note(&name, Harm::Damaged, None, "it is another repository's"),
        Err(error) => {
            let (harm, what) = diagnose(error)?;
            findings.note(&name, harm, None, what);
        }
    }
    progress.expect(1, 0);
    progress.add_objects(1);
    Ok(())
}

/// Reads every object of each key slot, and sees whether its holder can open it. Only a full key can.
fn slots(repo: &Arc<Repo>, findings: &Findings<'_>, progress: &Progress) -> Result<(), VerifyError> {
    if !repo.realm().keys().is_some_and(|keys| keys.reads_content()) {
        return Ok(());
    }
    let slots = repo.slots()?;
    progress.expect(slots.len() as u64, 0);
    progress.add_objects(slots.len() as u64);
    for fault in slots.iter().flat_map(|slot| &slot.faults) {
        findings.note(&fault.object, Harm::Damaged, None, fault.why.clone());
    }
    Ok(())
}

fn source(
    repo: &Arc<Repo>,
    record: SourceRecord,
    findings: &Findings<'_>,
    progress: &Progress,
    (notes, read): (&mut Vec<String>, &mut HashMap<LogId, Read>),
) -> Result<Subject, VerifyError> {
    let log = SourceLog::open(repo.store().clone(), repo.env().clone(), repo.realm(), record.id);
    progress.at(|| format!("the log of source {}", record.name));
    let audit = log.audit()?;
    account(&audit, LogId::Source(record.id), &format!("the log of source {}", record.name), progress, (notes, read));
    let state = log.load()?;
    for damage in &audit.damage {
        let lost = match &damage.fault {
            Fault::Discontinuous | Fault::Checkpoint(_) => None,
            Fault::Missing
            | Fault::Unreadable(_)
            | Fault::RolledBack(_)
            | Fault::Forked
            | Fault::Withheld(_)
            | Fault::Replaced
            | Fault::Shortened(_)
            | Fault::NewerKeys(_) => Some(match state.point(PointId(damage.number.0)) {
                Some(point) => format!("nothing: point {} is known from a checkpoint", point.name()),
                None => "a point, unless the entry was of another kind; which, only the entry said".to_owned(),
            }),
        };
        note(findings, LogId::Source(record.id), damage, &record.name, lost.into_iter().collect());
    }
    if record.removed {
        if !state.is_sealed() {
            notes.push(format!("source {} was removed, but its log is not sealed", record.name));
        }
        // Its points are no longer promised.
        return Ok(Subject { record, state: Arc::default(), log_is_whole: true });
    }
    Ok(Subject { record, state, log_is_whole: audit.damage.iter().all(|damage| !damage.stops_writers()) })
}

/// Counts what has been read, and tells of entries that count for nothing.
fn account<S: LogState>(
    audit: &Audit<S>,
    log: LogId,
    name: &str,
    progress: &Progress,
    (notes, read): (&mut Vec<String>, &mut HashMap<LogId, Read>),
) {
    let void = audit.void.iter().map(|(number, _)| *number).collect();
    let lacks_keys = audit.damage.iter().any(|damage| matches!(damage.fault, Fault::NewerKeys(_)));
    read.insert(log, Read { last: audit.state.tip().number, void, lacks_keys });
    let objects = audit.entries + audit.checkpoints + audit.damage.len() as u64;
    progress.expect(objects, 0);
    progress.add_objects(objects);
    for (number, void) in &audit.void {
        notes.push(format!("{} of {name} counts for nothing: {void}", Object::Entry(log, *number).name()));
    }
}

fn note(findings: &Findings<'_>, log: LogId, damage: &Damage, source: &str, also: Vec<String>) {
    let (object, harm) = match &damage.fault {
        Fault::Missing | Fault::RolledBack(_) | Fault::Shortened(_) => {
            (Object::Entry(log, damage.number), Harm::Missing)
        }
        Fault::Unreadable(_) | Fault::Withheld(_) | Fault::NewerKeys(_) => {
            (Object::Entry(log, damage.number), Harm::Damaged)
        }
        Fault::Discontinuous | Fault::Forked | Fault::Replaced => {
            (Object::Entry(log, damage.number), Harm::Contradiction)
        }
        Fault::Checkpoint(_) => (Object::Checkpoint(log, damage.number), Harm::Damaged),
    };
    let object = object.name();
    findings.note(&object, harm, None, damage.fault.to_string());
    if !also.is_empty() {
        let touch = Touch {
            source: source.to_owned(),
            points: Vec::new(),
            paths: Vec::new(),
            more_paths: 0,
            unreachable: 0,
            also,
        };
        findings.touch(&object, vec![touch]);
    }
}
