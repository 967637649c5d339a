//! What to do about damage. Nothing is done here: a wrong repair destroys what could still be had.

use super::logs::Subject;
use super::report::{Finding, Report};
use crate::format::object::{LogId, Object};

/// The steps that are worth taking, in words; `lacks_keys` when entries say that they are sealed with keys that are not there.
pub(super) fn of(report: &Report, subjects: &[Subject], lacks_keys: bool) -> Vec<String> {
    let mut advice = Vec::new();
    if report.damaged() == 0 {
        return advice;
    }
    advice.push("look at the disk before anything else: damage that has begun goes on".to_owned());
    let objects: Vec<(&Finding, Object)> =
        report.findings.iter().filter_map(|finding| Some((finding, Object::parse(&finding.object)?))).collect();
    if objects.iter().any(|(_, object)| matches!(object, Object::Marker)) {
        advice
            .push("the marker cannot be made again: restore the object `amberfs` from a copy of the repository".into());
    }
    if lacks_keys {
        advice.push(
            "if somebody has run `amberfs key rotate`, what is sealed with keys that the key in use does not have is no \
             damage: verify with a key that was added since. If nobody has, somebody has put junk there"
                .to_owned(),
        );
    }
    let log_damaged = |log: LogId| objects.iter().any(|(_, object)| matches!(object, Object::Entry(l, _) if *l == log));
    if log_damaged(LogId::Repo) {
        advice.push(
            "nothing is added to a log that is damaged: no source can be added here, and those that were added before \
             the damage take no capture; restore the log's entries from a copy of the repository, or begin a new one"
                .to_owned(),
        );
    }
    for subject in subjects {
        let (id, name) = (subject.record.id, &subject.record.name);
        if log_damaged(LogId::Source(id)) {
            advice.push(format!(
                "source {name}: nothing is added to a log that is damaged; restore its entries from a copy of the \
                 repository, or capture under another name. Its other points stay as they are"
            ));
            continue;
        }
        let in_newest_chain = |object: &Object| match object {
            Object::Pack(source, pack) => {
                *source == id && subject.state.newest().is_some_and(|newest| newest.chain() == pack.chain)
            }
            Object::Marker | Object::Entry(..) | Object::Checkpoint(..) | Object::Slot(..) | Object::Probe(_) => false,
            Object::Removal(..) | Object::Lease(..) | Object::SingleWriter => false,
        };
        if objects.iter().any(|(_, object)| in_newest_chain(object)) {
            advice.push(format!(
                "source {name}: `amberfs capture --full {name}` begins a chain that needs nothing of the damaged one; \
                 incremental captures would inherit what is lost"
            ));
        }
        let touched = report.sources.iter().find(|source| source.name == *name).map_or(0, |s| s.touched.len());
        if touched > 0 {
            advice.push(format!(
                "source {name}: {touched} of {} points are touched; in them everything but what is listed can be had",
                subject.state.committed().len()
            ));
        }
    }
    let harmless = |finding: &&(&Finding, Object)| {
        finding.0.touches.is_empty() && matches!(finding.1, Object::Pack(..) | Object::Checkpoint(..))
    };
    if objects.iter().any(|finding| harmless(&finding)) {
        advice.push(
            "objects under which no point is named are needed by no file: their damage costs time, or space".to_owned(),
        );
    }
    advice
}
