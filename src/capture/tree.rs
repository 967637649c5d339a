//! Captures a directory tree.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::attempt::{Capture, Outcome, Plan};
use super::boundary::Boundary;
use super::census;
use super::directory::Directory;
use super::error::CaptureError;
use super::merge::Merge;
use super::options::Options;
use super::progress::Progress;
use super::stat::Identity;
use super::sys;
use super::walk::{Rules, Walk};
use crate::base::limits;
use crate::chain::SourceLog;
use crate::format::log::{SourceKind, SourceRecord};
use crate::repo::Repo;

/// Descriptors that a capture may need at once.
const DESCRIPTORS: u64 = 4096;

/// Captures the tree at `root` as a point of `source`.
///
/// The point is committed although files vanish, change or cannot be read: those are told in
/// [`Outcome::problems`], and what could not be read is not in the point.
///
/// # Errors
/// [`CaptureError`], and no point, when the root is missing or unreadable, lies in an amberfs mount or in the
/// repository, when the repository cannot be written, or when `progress` was told to cancel.
pub fn capture_tree(
    repo: &Arc<Repo>,
    log: &SourceLog,
    source: &SourceRecord,
    root: &Path,
    options: &Options,
    progress: &Progress,
) -> Result<Outcome, CaptureError> {
    super::must_be(source, SourceKind::Tree)?;
    sys::allow_descriptors(DESCRIPTORS);
    let open = || {
        let failed = |source| CaptureError::Root { path: root.as_os_str().as_bytes().to_vec(), source };
        Directory::root(root).map_err(failed)
    };
    // Refused before anything is written.
    drop(boundary(repo, &open()?, options)?);
    let place = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let capture = Capture { repo, log, source, place: place.as_os_str().as_bytes(), options, progress };
    let walk = |scouts: usize| -> Result<Walk, CaptureError> {
        let root = open()?;
        let boundary = boundary(repo, &root, options)?;
        let rules = Rules { excludes: options.excludes.clone(), skip_caches: options.exclude_caches };
        Ok(Walk::new(root, boundary, rules, scouts))
    };
    capture.run(&|plan: Plan<'_>| {
        let (over, progress) = (AtomicBool::new(false), plan.progress);
        std::thread::scope(|scope| {
            if options.census && progress.expected().is_none() {
                let walk = walk(0)?;
                let over = || over.load(Ordering::Relaxed) || progress.is_cancelled();
                scope.spawn(move || census::count(walk, progress, over));
            }
            let _over = Over(&over);
            let walk = walk(limits::CAPTURE_SCOUTS)?;
            Merge::new(walk, plan.planner, plan.parent, plan.identities, plan.counts, progress)?.run()
        })
    })
}

/// Says that the capture's own walk is over, however it ended.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The boundary of the source at `root`: the repository's own directory is never entered.
fn boundary(repo: &Repo, root: &Directory, options: &Options) -> Result<Boundary, CaptureError> {
    let own = repo.store().local_root().and_then(|path| Directory::root(path).ok());
    let refused: Vec<Identity> = own.map(|directory| directory.stat().identity).into_iter().collect();
    Boundary::new(root, options.cross_filesystems, refused)
}
