//! What a restore came to: what was done, what was left out on purpose, what could not be done.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::RestoreError;
use super::progress::Progress;
use crate::base::{Class, Classed, limits};
use crate::view::namespace::ViewError;

/// A restore that is through.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether an interrupted restore was continued.
    pub resumed: bool,
    /// Whether it is through. It is not when the repository could not be reached for some files: the same restore,
    /// begun again, makes up for them.
    pub complete: bool,
    /// What was done.
    pub counts: Counts,
    /// What could not be done, at most [`limits::PROBLEMS_MAX`] by name.
    pub problems: Vec<Problem>,
}

/// What was done and left out, in numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Regular files written, each inode once.
    pub files: u64,
    /// Bytes of content written, without holes.
    pub bytes: u64,
    /// Further names of hard-linked files.
    pub links: u64,
    /// Directories, the target itself included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Device nodes, FIFOs and sockets.
    pub specials: u64,
    /// Names that an interrupted restore had finished before.
    pub kept: u64,
    /// Regular files that were read back and found right.
    pub verified: u64,
    /// Device nodes, FIFOs and sockets left out as asked for.
    pub left_specials: u64,
    /// Files whose owner was not asked for and is another one now.
    pub left_owners: u64,
    /// Files whose set-id bits or capabilities were dropped.
    pub left_set_ids: u64,
    /// Attributes that only root can set, not set.
    pub left_attributes: u64,
    /// Problems, those beyond the list included.
    pub problems: u64,
    /// Of these: stored content that is missing or wrong.
    pub damaged: u64,
}

/// Something that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Relative to the target, in bytes; empty for the target itself.
    pub path: Vec<u8>,
    /// What it means: [`Class::Corrupt`] for damaged content.
    pub class: Class,
    /// What happened, in words.
    pub detail: String,
}

impl Outcome {
    /// What the restore means as a whole: none when all that was asked for was done, [`Class::Corrupt`] when
    /// stored content is damaged, else the class of the first problem.
    pub fn failure(&self) -> Option<Class> {
        if self.counts.damaged > 0 {
            return Some(Class::Corrupt);
        }
        self.problems.first().map(|problem| problem.class)
    }
}

/// Failures of the store in a row after which it is taken to be gone: each may have lasted until its deadline.
const UNREACHABLE_AFTER: u64 = 16;

/// Gathers the outcome while many threads work, and the failure that ends the restore.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) progress: &'a Progress,
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) links: AtomicU64,
    pub(super) directories: AtomicU64,
    pub(super) symlinks: AtomicU64,
    pub(super) specials: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) verified: AtomicU64,
    pub(super) left_specials: AtomicU64,
    pub(super) left_owners: AtomicU64,
    pub(super) left_set_ids: AtomicU64,
    pub(super) left_attributes: AtomicU64,
    damaged: AtomicU64,
    unreachable: AtomicU64,
    may_succeed_later: AtomicBool,
    problems: Mutex<(Vec<Problem>, u64)>,
    halted: AtomicBool,
    fatal: Mutex<Option<RestoreError>>,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Whether a failure of the target's filesystem will meet every other file too.
pub(super) fn is_fatal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOSPC
                | libc::EDQUOT
                | libc::EROFS
                | libc::EIO
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENODEV
                | libc::ENOTCONN
                | libc::ESHUTDOWN
        )
    )
}

impl<'a> Report<'a> {
    pub(super) fn new(progress: &'a Progress) -> Report<'a> {
        let zero = AtomicU64::default;
        Report {
            progress,
            files: zero(),
            bytes: zero(),
            links: zero(),
            directories: zero(),
            symlinks: zero(),
            specials: zero(),
            kept: zero(),
            verified: zero(),
            left_specials: zero(),
            left_owners: zero(),
            left_set_ids: zero(),
            left_attributes: zero(),
            damaged: zero(),
            unreachable: zero(),
            may_succeed_later: AtomicBool::new(false),
            problems: Mutex::default(),
            halted: AtomicBool::new(false),
            fatal: Mutex::default(),
        }
    }

    /// Notes that something could not be done.
    pub(super) fn problem(&self, path: &[u8], class: Class, detail: String) {
        self.progress.add_problem();
        let mut problems = self.problems.lock();
        problems.1 += 1;
        if problems.0.len() < limits::PROBLEMS_MAX {
            problems.0.push(Problem { path: path.to_vec(), class, detail });
        }
    }

    /// Notes that the target's filesystem refused `action`; ends the restore when it will refuse all else too.
    pub(super) fn refused(&self, path: &[u8], action: &'static str, error: io::Error) {
        if is_fatal(&error) {
            let path = String::from_utf8_lossy(path).into_owned();
            return self.halt(RestoreError::Write { action, path, source: error });
        }
        self.problem(path, Class::of_io(&error), format!("cannot {action}: {error}"));
    }

    /// Notes that the repository could not give something; ends the restore when it gives nothing any more.
    pub(super) fn fault(&self, path: &[u8], what: &str, error: &ViewError) {
        let class = error.class();
        match class {
            Class::Corrupt | Class::NotFound => count(&self.damaged),
            Class::Transient | Class::Timeout => {
                self.may_succeed_later.store(true, Ordering::Relaxed);
                if self.unreachable.fetch_add(1, Ordering::Relaxed) + 1 >= UNREACHABLE_AFTER {
                    return self.halt(RestoreError::Unreachable { why: error.to_string(), class });
                }
            }
            Class::Conflict
            | Class::Denied
            | Class::Unsupported
            | Class::Invalid
            | Class::Exhausted
            | Class::Cancelled => {}
        }
        self.problem(path, class, format!("{what}: {error}"));
    }

    /// Notes that the repository gave something.
    pub(super) fn reached(&self) {
        self.unreachable.store(0, Ordering::Relaxed);
    }

    /// Notes that what was written reads back otherwise.
    pub(super) fn differs(&self, path: &[u8], detail: String) {
        self.problem(path, Class::Transient, detail);
    }

    /// Ends the restore; the first reason stands.
    pub(super) fn halt(&self, error: RestoreError) {
        self.fatal.lock().get_or_insert(error);
        self.halted.store(true, Ordering::Relaxed);
    }

    /// Whether the restore has to end.
    pub(super) fn is_halted(&self) -> bool {
        if self.progress.is_cancelled() {
            self.halt(RestoreError::Cancelled);
        }
        self.halted.load(Ordering::Relaxed)
    }

    /// Goes on unless the restore has to end.
    ///
    /// # Errors
    /// Why it has to.
    pub(super) fn check(&self) -> Result<(), RestoreError> {
        if !self.is_halted() {
            return Ok(());
        }
        Err(self.fatal.lock().take().unwrap_or(RestoreError::Cancelled))
    }

    /// Whether the same restore may get more of what could not be read.
    pub(super) fn may_succeed_later(&self) -> bool {
        self.may_succeed_later.load(Ordering::Relaxed)
    }

    /// Whether anything went wrong so far.
    pub(super) fn has_problems(&self) -> bool {
        self.problems.lock().1 > 0
    }

    /// The outcome.
    pub(super) fn outcome(&self, resumed: bool, complete: bool) -> Outcome {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (problems, all) = std::mem::take(&mut *self.problems.lock());
        Outcome {
            resumed,
            complete,
            counts: Counts {
                files: of(&self.files),
                bytes: of(&self.bytes),
                links: of(&self.links),
                directories: of(&self.directories),
                symlinks: of(&self.symlinks),
                specials: of(&self.specials),
                kept: of(&self.kept),
                verified: of(&self.verified),
                left_specials: of(&self.left_specials),
                left_owners: of(&self.left_owners),
                left_set_ids: of(&self.left_set_ids),
                left_attributes: of(&self.left_attributes),
                problems: all,
                damaged: of(&self.damaged),
            },
            problems,
        }
    }
}
