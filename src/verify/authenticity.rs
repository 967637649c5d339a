//! Of which objects it is certain that a holder of the repository's keys has made them, and of which it is not.
//!
//! Every object that was listed is in exactly one of the two counts: authenticated is what was opened with the repository's keys at
//! its own place, and is not named among the findings. All else has a reason, which is told. That an object is not
//! authenticated is no damage: some cannot be, and what nobody needs does no harm; but whoever reads "no damage" is to
//! know what it does not speak of.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::findings::Findings;
use super::logs::Logs;
use super::packs::PackCheck;
use super::report::{Doubt, Harm, Leftovers};
use super::survey::{Account, Survey};
use super::workers;
use super::{Options, Progress, VerifyError};
use crate::base::{Class, Classed};
use crate::format::lease;
use crate::format::object::{Object, ObjectName};
use crate::format::{PackId, SourceId};
use crate::repo::Repo;

/// Objects that a note names, of each sort.
const NAMED_MAX: usize = 100;

/// The two counts.
#[derive(Debug, Default)]
pub(super) struct Authenticity {
    pub(super) authenticated: u64,
    pub(super) doubtful: BTreeMap<Doubt, Leftovers>,
}

/// Compares what stands in place of leases with what leases hold: nothing is sealed there that could be opened.
pub(super) fn leases(repo: &Arc<Repo>, survey: &Survey, findings: &Findings<'_>) -> Result<(), VerifyError> {
    for (listed, account) in &survey.accounts {
        if *account != Account::Lease {
            continue;
        }
        let expected = match Object::parse(&listed.name) {
            Some(Object::Lease(holder, beat)) => lease::text(holder, beat),
            _ => lease::notice(),
        };
        let what = "it does not hold what amberfs writes there: somebody else has made it, or altered it";
        match repo.store().get(&listed.name, lease::TEXT_BYTES_MAX) {
            Ok(bytes) if bytes == expected => {}
            Ok(_) => findings.note(&listed.name, Harm::Damaged, None, what),
            // A beat is taken away when the next has come.
            Err(error) if error.class() == Class::NotFound => {}
            // Longer than any.
            Err(error) if error.class() == Class::Corrupt => findings.note(&listed.name, Harm::Damaged, None, what),
            Err(error) => findings.note(&listed.name, Harm::Unreadable, None, error.to_string()),
        }
    }
    Ok(())
}

/// Opens the packs that no point owns as far as there are keys for it, and says why not of those that do not open. Nothing
/// needs them, so that is no damage.
pub(super) fn orphans(
    repo: &Arc<Repo>,
    survey: &Survey,
    options: &Options,
    progress: &Progress,
) -> Result<BTreeMap<ObjectName, String>, VerifyError> {
    let packs: Vec<(SourceId, PackId)> = survey
        .accounts
        .iter()
        .filter_map(|(listed, account)| match (account, Object::parse(&listed.name)) {
            (Account::Orphan, Some(Object::Pack(source, pack))) => Some((source, pack)),
            _ => None,
        })
        .collect();
    progress.expect(packs.len() as u64, 0);
    let refused = workers::each(workers::count(options.workers), packs, |(source, pack)| {
        // What is wrong with them is told apart from what is wrong with the repository.
        let apart = Progress::new();
        let findings = Findings::new(&apart);
        let reader = &repo.reader(source);
        let ran = PackCheck { reader, pack, read_data: options.read_data, findings: &findings, progress }.run();
        let name = Object::Pack(source, pack).name();
        match ran {
            Ok(()) => {}
            // What somebody plants must not end the verification of the rest.
            Err(VerifyError::Repo(error)) if matches!(error.class(), Class::Unsupported | Class::Invalid) => {
                return Ok(Some((name, error.to_string())));
            }
            Err(error) => return Err(error),
        }
        let (found, _) = findings.finish();
        Ok(found.into_iter().next().map(|finding| {
            let why = finding.faults.first().map_or_else(String::new, |fault| fault.what.clone());
            (name, why)
        }))
    })?;
    Ok(refused.into_iter().flatten().collect())
}

/// Counts every object that was listed.
pub(super) fn judge(
    repo: &Arc<Repo>,
    survey: Survey,
    logs: &Logs,
    orphans: &BTreeMap<ObjectName, String>,
    findings: &Findings<'_>,
) -> Authenticity {
    let mut found = Authenticity::default();
    let encrypted = repo.realm().keys().is_some();
    for (listed, account) in survey.accounts {
        let number = match Object::parse(&listed.name) {
            Some(Object::Entry(log, number) | Object::Checkpoint(log, number)) => {
                logs.read.get(&log).map(|log| (log, number))
            }
            _ => None,
        };
        let doubt = match account {
            _ if findings.has(&listed.name) => Some(Doubt::Damaged),
            Account::Lease => Some(Doubt::Lease),
            Account::Marker => Some(Doubt::Marker),
            Account::Foreign => Some(Doubt::Foreign),
            Account::Orphan if orphans.contains_key(&listed.name) => Some(Doubt::Unopened),
            _ if !encrypted => Some(Doubt::Unencrypted),
            Account::Slot if repo.own_slot() == Object::parse(&listed.name) => None,
            Account::Slot => Some(Doubt::Slot),
            Account::Log => match number {
                Some((log, number)) if log.void.contains(&number) => Some(Doubt::Void),
                Some((log, number)) if number <= log.last => None,
                // Behind a gap, or come since.
                _ => Some(Doubt::Unread),
            },
            Account::Owned | Account::Orphan => None,
        };
        match doubt {
            None => found.authenticated += 1,
            Some(doubt) => found.doubtful.entry(doubt).or_default().add(listed.name, listed.bytes),
        }
    }
    found
}

/// What is to be said of packs that do not open.
pub(super) fn notes(orphans: &BTreeMap<ObjectName, String>) -> impl Iterator<Item = String> {
    let more = orphans.len().saturating_sub(NAMED_MAX);
    let named = orphans.iter().take(NAMED_MAX);
    named
        .map(|(name, why)| format!("{name} belongs to no point and does not open: {why}"))
        .chain((more > 0).then(|| format!("and {more} more packs of no point do not open")))
}
