//! Proves that promises still hold, and proposes what to do where they do not.
//!
//! ```text
//!  logs      every entry and checkpoint, read and held against one another
//!  packs     header, footer, and with contents every frame and chunk, against their hashes
//!  points    every node of every point once; references against footers; what entries say of each other
//!  paths     only where something is lost: which points and paths that touches
//! ```
//! Verification writes nothing. It goes past all caches, reads what points share once, and works on
//! several packs and chains at a time. Memory is bounded by the number of objects in the repository, of
//! directories, hard-linked and mapped files in a point, and by the damage found; not by the number
//! of points, files or bytes.
//!
//! What cannot be read is a finding, and the work goes on; it ends early only when the store does not
//! answer, since nothing could be said about what it holds, or when somebody asks for it.

mod advice;
mod authenticity;
mod compare;
mod error;
mod findings;
mod footers;
mod logs;
mod packs;
mod paths;
mod points;
mod progress;
mod report;
mod rules;
mod survey;
#[cfg(test)]
mod tests;
mod workers;

use std::sync::Arc;

pub use error::VerifyError;
pub use progress::Progress;
pub use report::{Doubt, Fault, Finding, Harm, Leftovers, Report, SourceReport, Touch, Touched};

use crate::chain::Point;
use crate::chain::state::source::Chain;
use crate::format::slot::role_name;
use crate::format::{PackId, PackOrdinal};
use crate::repo::{Repo, RepoError};
use findings::Findings;
use logs::Subject;
use packs::PackCheck;
use paths::PathSearch;
use points::PointCheck;
use survey::Survey;

/// What is verified, and how far it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Read file contents too, not only what leads to them.
    pub read_data: bool,
    /// The names of the sources; none: all of them, and the repository's own objects.
    pub sources: Option<Vec<String>>,
    /// Paths that are listed for each damaged object and each set of points that it touches.
    pub paths_max: usize,
    /// Packs and chains that are read at once; none lets the machine's size decide.
    pub workers: Option<usize>,
}

impl Default for Options {
    fn default() -> Options {
        Options { read_data: false, sources: None, paths_max: 100, workers: None }
    }
}

/// Refuses whoever has a key that cannot read what is to be verified: to him, all of it would look damaged.
fn may_verify(repo: &Arc<Repo>, options: &Options) -> Result<(), RepoError> {
    let (Some(keys), Some(slot)) = (repo.realm().keys(), repo.slot()) else { return Ok(()) };
    if keys.reads_trees() && (keys.reads_content() || !options.read_data) {
        return Ok(());
    }
    let what = if options.read_data { "a verification of all data" } else { "a verification" };
    Err(RepoError::KeyRole { what, role: role_name(&slot.access) })
}

/// Reads the repository as it is stored, and tells what is wrong with it.
///
/// # Errors
/// [`VerifyError`] when it could not be read to its end: nothing is known about the rest then. Damage is no
/// error: see [`Report::findings`].
pub fn verify(repo: &Arc<Repo>, options: &Options, progress: &Progress) -> Result<Report, VerifyError> {
    may_verify(repo, options)?;
    let findings = Findings::new(progress);
    // Listed before the logs are read: a pack of a capture that commits meanwhile is not taken for an orphan.
    let mut survey = Survey::take(repo, options, progress)?;
    let logs = logs::check(repo, options, &findings, progress)?;
    survey.compare(&logs, &findings);
    authenticity::leases(repo, &survey, &findings)?;
    let unopened = authenticity::orphans(repo, &survey, options, progress)?;
    let workers = workers::count(options.workers);

    let packs: Vec<(&Subject, PackId)> =
        logs.subjects.iter().flat_map(|subject| owned(subject).map(move |pack| (subject, pack))).collect();
    progress.expect(packs.len() as u64, if options.read_data { survey.pack_bytes() } else { 0 });
    workers::each(workers, packs, |(subject, pack)| {
        let reader = &repo.reader(subject.record.id);
        PackCheck { reader, pack, read_data: options.read_data, findings: &findings, progress }.run()
    })?;

    let chains: Vec<(&Subject, Chain<'_>)> =
        logs.subjects.iter().flat_map(|subject| subject.state.chains().map(move |chain| (subject, chain))).collect();
    let key = repo.env().random();
    let touched = workers::each(workers, chains, |(subject, chain)| {
        let reader = repo.reader(subject.record.id);
        let mut check = PointCheck::new(reader.clone(), &findings, progress, key, subject.log_is_whole);
        let mut touched: Vec<Arc<Point>> = Vec::new();
        for point in chain.committed() {
            if !check.check(point)? {
                touched.push(Arc::clone(point));
            }
        }
        if check.is_harmed() {
            let mut search = PathSearch::new(reader, &findings, &subject.record.name, options.paths_max);
            for point in chain.committed() {
                progress.check()?;
                search.look(point)?;
            }
            search.finish();
        }
        Ok((subject.record.id, touched))
    })?;

    let (orphans, unknown) = (std::mem::take(&mut survey.orphans), std::mem::take(&mut survey.unknown));
    let judged = authenticity::judge(repo, survey, &logs, &unopened, &findings);
    let mut notes = logs.notes;
    notes.extend(authenticity::notes(&unopened));
    for subject in &logs.subjects {
        let of_source = touched.iter().filter(|(id, _)| *id == subject.record.id).flat_map(|(_, points)| points);
        let mut deleted: Vec<_> = of_source.filter(|point| subject.state.is_deleted(point.id)).collect();
        deleted.sort_by_key(|point| point.id);
        if let Some(note) = deleted_note(&subject.record.name, &deleted) {
            notes.push(note);
        }
    }
    let sources = logs.subjects.iter().filter(|subject| !subject.record.removed).map(|subject| {
        let mut of_source: Vec<&Arc<Point>> =
            touched.iter().filter(|(id, _)| *id == subject.record.id).flat_map(|(_, points)| points).collect();
        of_source.sort_by_key(|point| point.id);
        SourceReport {
            name: subject.record.name.clone(),
            points: subject.state.committed().len() as u64,
            touched: of_source.iter().map(|point| point.name().to_owned()).collect(),
        }
    });
    let sources: Vec<SourceReport> = sources.collect();
    let (findings, more_findings) = findings.finish();
    let mut report = Report {
        read_data: options.read_data,
        sources,
        objects: progress.objects(),
        bytes: progress.bytes(),
        findings,
        more_findings,
        orphans,
        unknown,
        authenticated: judged.authenticated,
        doubtful: judged.doubtful,
        notes,
        advice: Vec::new(),
    };
    report.advice = advice::of(&report, &logs.subjects, logs.lacks_keys);
    Ok(report)
}

/// Says which touched points are in the trash: what is damaged of them nobody may want.
fn deleted_note(source: &str, deleted: &[&Arc<Point>]) -> Option<String> {
    const NAMED_MAX: usize = 8;
    if deleted.is_empty() {
        return None;
    }
    let named: Vec<&str> = deleted.iter().take(NAMED_MAX).map(|point| point.name()).collect();
    let more = if deleted.len() > NAMED_MAX { ", …" } else { "" };
    Some(format!("of the touched points of {source}, these are deleted, in the trash: {}{more}", named.join(", ")))
}

/// The packs that the points of a source have written, those in the trash included.
fn owned(subject: &Subject) -> impl Iterator<Item = PackId> {
    subject.state.committed().iter().flat_map(|point| {
        let commit = &point.commit;
        (0..commit.packs).map(|ordinal| PackId {
            chain: commit.chain,
            session: commit.session,
            ordinal: PackOrdinal(ordinal),
        })
    })
}
