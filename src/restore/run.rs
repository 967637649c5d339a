//! A restore from the claim on its target to the last synchronisation.
//!
//! ```text
//! claim the target → make directories and files → [read back] → directories' metadata from below
//!   → synchronise → mark complete → the target's own metadata, but writable → release the claim
//!   → the target's permissions and times
//! ```
//!
//! Crash behaviour: killed at any moment before the claim is released, the same restore continues.
//! Success is told only after everything is on disk.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::attributes;
use super::claim::{Claim, Identity, Wish};
use super::compare::Comparer;
use super::content::Contents;
use super::directory::{Directory, Name};
use super::error::RestoreError;
use super::finish::Finisher;
use super::links::Turns;
use super::options::{Options, Policy};
use super::outcome::{Outcome, Report, count};
use super::plan::{Aim, Job, Planner, Unit};
use super::progress::Progress;
use super::sys::{self, Handle};
use super::walk::{Place, Visitor, walk};
use super::write::Writer;
use crate::format::entry::Body;
use crate::repo::RepoError;
use crate::view::namespace::{FileKind, ViewError};
use crate::view::{Inode, PointView};

/// Threads that a restore uses unless told otherwise.
const WORKERS: (usize, usize) = (2, 8);
/// Descriptors that a restore may need at once: each name that waits can be in a directory of its own.
const DESCRIPTORS: u64 = 8192;

/// What is to be restored.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The point.
    pub view: &'a PointView,
    /// A directory of it, which the target shall be equal to, or a file, which shall be in the target.
    pub inode: &'a Inode,
    /// The name that a file gets; of no meaning for a directory.
    pub name: &'a [u8],
    /// The selector that means exactly this, for whoever finds it unfinished.
    pub title: &'a str,
}

/// Makes `target` equal to the directory `wanted`, or puts the file `wanted` into it.
///
/// The target is made if it is missing; the directory that holds it must exist. What could not be restored is told in
/// [`Outcome::problems`], all else is restored.
///
/// # Errors
/// [`RestoreError`] when the target is not to be had or nothing more can be restored. The same call continues then.
pub fn restore(
    wanted: &Wanted<'_>,
    target: &Path,
    options: &Options,
    progress: &Progress,
) -> Result<Outcome, RestoreError> {
    let report = Report::new(progress);
    if options.dry_run {
        return dry_run(wanted, target, options, &report);
    }
    sys::allow_descriptors(DESCRIPTORS);
    let failed = |source| RestoreError::Target { path: target.to_owned(), source };
    let directory = Arc::new(open_target(target).map_err(failed)?);
    refuse_repository(wanted.view, &directory, target)?;
    let policy = Policy::of_process(options);
    let shared = wanted.inode.kind() != FileKind::Directory;
    let wish = Wish { identity: identity(wanted)?, title: wanted.title, force: options.force, shared, path: target };
    let claim = Claim::take(&directory, &wish, wanted.view.reader().repo().env())?;
    let run = Run { wanted, directory: &directory, claim: &claim, policy, report: &report, options };
    let done = if claim.is_complete() {
        Ok(())
    } else if shared {
        run.file(target)
    } else {
        run.tree()
    };
    let resumed = claim.is_resumed();
    if done.is_err() && shared && !resumed {
        // There is little to continue in a directory that is not ours; what stays would only be in the way.
        drop(claim.release());
        return done.map(|()| Outcome::default());
    }
    done?;
    let failed = |source| RestoreError::Write { action: "synchronise", path: String::new(), source };
    claim.synchronise().map_err(failed)?;
    if report.may_succeed_later() {
        return Ok(report.outcome(resumed, false));
    }
    claim.complete().map_err(failed)?;
    // Whoever is not root can remove the claim only out of a directory that its owner may write to.
    let open =
        (!shared).then(|| attributes::set_open(Handle::Open(directory.fd()), wanted.inode.entry(), &policy, &report));
    claim.release().map_err(|source| RestoreError::Write {
        action: "remove the claim from",
        path: String::new(),
        source,
    })?;
    if let Some(open) = open {
        open.close(&report);
        count(&report.directories);
    }
    directory.sync().map_err(failed)?;
    report.check()?;
    Ok(report.outcome(resumed, true))
}

/// A restore under way.
struct Run<'a> {
    wanted: &'a Wanted<'a>,
    directory: &'a Arc<Directory>,
    claim: &'a Claim,
    policy: Policy,
    report: &'a Report<'a>,
    options: &'a Options,
}

impl Run<'_> {
    /// A directory with all below it, but not its own metadata.
    fn tree(&self) -> Result<(), RestoreError> {
        let whole = |planner: &mut Planner<'_>| walk(self.wanted.view, self.wanted.inode, planner);
        self.write(whole)?;
        if self.options.verify {
            self.compare(whole)?;
        }
        let mut finisher = Finisher::new(self.policy, self.report, self.directory);
        walk(self.wanted.view, self.wanted.inode, &mut finisher)?;
        self.report.check()
    }

    /// A single file.
    fn file(&self, target: &Path) -> Result<(), RestoreError> {
        let bad = || RestoreError::View(ViewError::NotFound);
        let name = Name::new(self.wanted.name).ok_or_else(bad)?;
        let exists = self.directory.stat(&name).map_err(|source| self.failed(source))?.is_some();
        if exists && !self.claim.may_replace() {
            use std::os::unix::ffi::OsStrExt;
            let path = target.join(std::ffi::OsStr::from_bytes(name.bytes()));
            return Err(RestoreError::Exists { path });
        }
        let one = |planner: &mut Planner<'_>| {
            let (directory, path) = (Arc::clone(self.directory), name.bytes().to_vec());
            planner.add(Job { directory, name: name.clone(), path, number: 0, inode: self.wanted.inode.clone() })
        };
        self.write(one)?;
        if self.options.verify {
            self.compare(one)?;
        }
        Ok(())
    }

    fn workers(&self) -> usize {
        workers(self.options.workers)
    }

    fn failed(&self, source: io::Error) -> RestoreError {
        RestoreError::Write { action: "look at", path: String::from_utf8_lossy(self.wanted.name).into_owned(), source }
    }

    fn write(&self, plan: impl Fn(&mut Planner<'_>) -> Result<(), RestoreError>) -> Result<(), RestoreError> {
        let writer = Writer {
            contents: Contents { view: self.wanted.view, report: self.report, workers: self.workers() },
            claim: self.claim,
            policy: self.policy,
            report: self.report,
            turns: Turns::default(),
        };
        self.side_by_side(Aim::Make, plan, |unit| writer.unit(unit))
    }

    fn compare(&self, plan: impl Fn(&mut Planner<'_>) -> Result<(), RestoreError>) -> Result<(), RestoreError> {
        let failed = |source| RestoreError::Write { action: "synchronise", path: String::new(), source };
        // Only what is on disk can be read back from it.
        self.claim.synchronise().map_err(failed)?;
        self.report.progress.begin_verifying();
        let comparer = Comparer {
            view: self.wanted.view,
            policy: self.policy,
            report: self.report,
            incomplete: self.report.has_problems(),
        };
        self.side_by_side(Aim::Compare, plan, |unit| comparer.unit(unit))
    }

    /// Plans in this thread and works in others, until all is done or the restore has to end.
    fn side_by_side(
        &self,
        aim: Aim,
        plan: impl Fn(&mut Planner<'_>) -> Result<(), RestoreError>,
        work: impl Fn(Unit) + Sync,
    ) -> Result<(), RestoreError> {
        let workers = self.workers();
        let (send, receive) = crossbeam_channel::bounded::<Unit>(2 * workers);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (receive, work) = (receive.clone(), &work);
                scope.spawn(move || receive.iter().for_each(work));
            }
            drop(receive);
            let mut planner = Planner::new(aim, self.claim, self.report, self.directory, send);
            plan(&mut planner).and_then(|()| planner.flush())
        })?;
        self.report.check()
    }
}

/// So many threads as were asked for, or as suit the machine.
pub(super) fn workers(wanted: Option<usize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(WORKERS.0, NonZeroUsize::get);
    wanted.unwrap_or(cores.clamp(WORKERS.0, WORKERS.1)).max(1)
}

/// What tells this restore from all others.
fn identity(wanted: &Wanted<'_>) -> Result<Identity, RestoreError> {
    let reader = wanted.view.reader();
    let Some(root) = wanted.view.entries().root() else {
        let error = RepoError::Inconsistent { what: "a point has no tree".to_owned() };
        return Err(RestoreError::View(ViewError::fault("read the point", error)));
    };
    let frame = &root.frame;
    let name = match wanted.inode.kind() {
        FileKind::Directory => b"",
        _ => wanted.name,
    };
    Ok(Identity {
        repository: reader.repo().id().to_string(),
        source: reader.source().0,
        tree: format!("{}-{}-{}", frame.pack.session.random, frame.ordinal, frame.hash),
        entry: wanted.inode.ordinal().0,
        name: crate::base::hex::encode(name),
    })
}

/// Opens the target, or makes it in a directory that exists.
fn open_target(target: &Path) -> io::Result<Directory> {
    match Directory::at(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            use std::os::unix::ffi::OsStrExt;
            let name = target.file_name().and_then(|name| Name::new(name.as_bytes())).ok_or(error)?;
            let above = match target.parent() {
                Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
                _ => PathBuf::from("."),
            };
            Directory::at(&above)?.make_dir(&name)
        }
        other => other,
    }
}

/// Directories above a target that are looked at: no real path has more.
const ABOVE_MAX: usize = 4096;

/// Refuses to restore into the repository that is restored from.
fn refuse_repository(view: &PointView, target: &Arc<Directory>, path: &Path) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::Target { path: path.to_owned(), source };
    let Some(repository) = view.reader().repo().store().local_root() else { return Ok(()) };
    let repository = Directory::at(repository).map_err(failed)?.identity();
    let mut here = Arc::clone(target);
    for _ in 0..ABOVE_MAX {
        if here.identity() == repository {
            return Err(RestoreError::InsideRepository { path: path.to_owned() });
        }
        // Who may not look further up has not got the repository there either.
        let Ok(above) = here.above() else { return Ok(()) };
        if above.identity() == here.identity() {
            return Ok(());
        }
        here = Arc::new(above);
    }
    Ok(())
}

/// Counts what a restore would do.
struct Counter<'a> {
    report: &'a Report<'a>,
    policy: Policy,
}

impl Counter<'_> {
    fn count(&self, inode: &Inode) {
        let report = self.report;
        match &inode.entry().body {
            Body::File(_) => {
                count(&report.files);
                let bytes = inode.entry().data_bytes();
                report.bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
                report.progress.add_bytes(bytes);
            }
            Body::Symlink(_) => count(&report.symlinks),
            Body::BlockDevice(..) | Body::CharDevice(..) if !self.policy.devices => count(&report.left_specials),
            Body::Fifo | Body::Socket if !self.policy.special => count(&report.left_specials),
            Body::BlockDevice(..) | Body::CharDevice(..) | Body::Fifo | Body::Socket => count(&report.specials),
            Body::Directory { .. } | Body::Link(_) => {}
        }
        if !self.policy.keeps_owner(&inode.entry().meta) {
            count(&report.left_owners);
        }
        report.progress.add_file();
    }
}

impl Visitor for Counter<'_> {
    fn enter(&mut self, place: Place<'_>, directory: &Inode) -> Result<bool, RestoreError> {
        self.report.progress.at(place.path);
        self.count(directory);
        count(&self.report.directories);
        self.report.check().map(|()| true)
    }

    fn file(&mut self, _: Place<'_>, inode: Inode) -> Result<(), RestoreError> {
        self.count(&inode);
        self.report.check()
    }

    fn leave(&mut self, _: &[u8], _: &Inode) -> Result<(), RestoreError> {
        Ok(())
    }

    fn fault(&mut self, path: &[u8], what: &str, error: &ViewError) -> Result<(), RestoreError> {
        self.report.fault(path, what, error);
        self.report.check()
    }
}

fn dry_run(
    wanted: &Wanted<'_>,
    target: &Path,
    options: &Options,
    report: &Report<'_>,
) -> Result<Outcome, RestoreError> {
    let mut counter = Counter { report, policy: Policy::of_process(options) };
    if wanted.inode.kind() == FileKind::Directory {
        match Directory::at(target).and_then(|directory| directory.names()) {
            Ok(names) if !names.is_empty() && !options.force => {
                // An unfinished restore of the same is no obstacle, but whether it is that only the real one tells.
                let claimed = names.iter().any(Claim::is_name);
                if !claimed {
                    return Err(RestoreError::NotEmpty { path: target.to_owned() });
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(RestoreError::Target { path: target.to_owned(), source }),
        }
        count(&report.directories);
        walk(wanted.view, wanted.inode, &mut counter)?;
    } else {
        counter.count(wanted.inode);
    }
    Ok(report.outcome(false, true))
}
