//! What stands behind the files in `.amberfs/`, as a trait: `fuse` serves it, the job desk implements it.

use bytes::Bytes;

/// Who wrote to the control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User id of the process, as the kernel reports it.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id; 0 where the kernel hides it.
    pub pid: u32,
}

/// Why a batch of commands was refused; each has its errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// EINVAL: the line means nothing.
    Syntax,
    /// ENOENT: no such source or point.
    NoSuch,
    /// EEXIST: the job id or identity is taken.
    Taken,
    /// EBUSY: a job that conflicts is under way.
    Busy,
    /// EAGAIN: too many jobs wait already.
    QueueFull,
    /// ENOTEMPTY: other points depend on it.
    Dependents,
    /// EACCES: not the mount's owner and not root.
    Access,
    /// EROFS: the repository is read-only.
    ReadOnly,
    /// ERANGE: the time is outside every recoverable range.
    Range,
    /// E2BIG: a line is longer than 4,095 bytes.
    TooLong,
    /// ENOSPC: the journal could not be written.
    NoSpace,
    /// EIO: the journal, the configuration or the repository could not be read or written.
    Io,
}

impl Reason {
    /// All of them, in the order in which `help` lists them.
    pub const ALL: [Reason; 12] = [
        Reason::Syntax,
        Reason::NoSuch,
        Reason::Taken,
        Reason::Busy,
        Reason::QueueFull,
        Reason::Dependents,
        Reason::Access,
        Reason::ReadOnly,
        Reason::Range,
        Reason::TooLong,
        Reason::NoSpace,
        Reason::Io,
    ];

    /// The error number that write(2) gives.
    pub fn errno(self) -> i32 {
        self.meaning().0
    }

    /// The error number's name, as in errno(3).
    pub fn name(self) -> &'static str {
        self.meaning().1
    }

    /// What it says, for `help`.
    pub fn help(self) -> &'static str {
        self.meaning().2
    }

    fn meaning(self) -> (i32, &'static str, &'static str) {
        match self {
            Reason::Syntax => (libc::EINVAL, "EINVAL", "the line means nothing"),
            Reason::NoSuch => (libc::ENOENT, "ENOENT", "no such source, point or job"),
            Reason::Taken => (libc::EEXIST, "EEXIST", "the job id stands for another command"),
            Reason::Busy => (libc::EBUSY, "EBUSY", "the same work on the same source is under way"),
            Reason::QueueFull => (libc::EAGAIN, "EAGAIN", "too many jobs wait already; try again later"),
            Reason::Dependents => (libc::ENOTEMPTY, "ENOTEMPTY", "other points depend on it"),
            Reason::Access => (libc::EACCES, "EACCES", "you are neither the mount's owner nor root"),
            Reason::ReadOnly => (libc::EROFS, "EROFS", "the repository is read-only"),
            Reason::Range => (libc::ERANGE, "ERANGE", "the time is outside every recoverable range"),
            Reason::TooLong => (libc::E2BIG, "E2BIG", "a line is longer than 4,095 bytes, or a write than 65,536"),
            Reason::NoSpace => (libc::ENOSPC, "ENOSPC", "no space for the journal"),
            Reason::Io => (libc::EIO, "EIO", "the journal or the configuration cannot be read or written"),
        }
    }
}

/// A refused batch: nothing in it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The errno's reason.
    pub reason: Reason,
    /// In words, with a suggestion.
    pub message: String,
}

/// A generated file's content, with a number that changes whenever the content does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Grows with each change; the same number means the same bytes.
    pub version: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// Of a file that grows: how many bytes stood before these and are gone.
    pub gone: u64,
    /// When it last changed, for `mtime`.
    pub changed: crate::base::Instant,
}

/// The generated files directly in `.amberfs/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeskFile {
    /// How to use the control file.
    Help,
    /// The state of the mount in one JSON object.
    Status,
    /// One JSON line for each event; grows, and at its bound loses its older half.
    Events,
    /// Counters, one `name value` a line.
    Metrics,
    /// One JSON line for each fault that a reader met: object, point, path.
    Errors,
}

/// The files of a job in `.amberfs/jobs/<id>/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobFile {
    /// One word.
    State,
    /// The newest progress as one JSON object.
    Progress,
    /// What the job said so far.
    Log,
    /// The name of the point, once committed.
    Result,
    /// Why it failed.
    Error,
}

/// A job's name in the mount: chosen by the client or by the desk; a valid file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct JobId(pub String);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The desk behind the control file.
pub trait Control: Send + Sync + 'static {
    /// Takes one write(2) to the control file as one batch of lines. Returns within milliseconds: it
    /// validates, journals and queues, and waits for no source and, unless a line deletes a point or
    /// brings it back, for no store.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing in the batch was applied.
    fn submit(&self, caller: Caller, batch: &[u8]) -> Result<(), Refusal>;

    /// The caller's last reply in words, with a final newline; empty before its first command.
    fn reply(&self, caller: Caller) -> Vec<u8>;

    /// Whether this caller may use the control files at all.
    fn permits(&self, caller: Caller) -> bool;

    /// A generated file.
    fn file(&self, file: DeskFile) -> Content;

    /// All jobs that the journal knows, oldest first.
    fn jobs(&self) -> Vec<JobId>;

    /// A job's file; none when there is no such job. Files that do not apply yet are empty.
    fn job_file(&self, job: &JobId, file: JobFile) -> Option<Content>;

    /// Records a fault that a reader met, for `errors`.
    fn fault(&self, node: u64, message: &str);
}
