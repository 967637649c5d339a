//! What commands say with `--json` while they work, one JSON object a line.
//!
//! The command line prints these types and the desk reads them, so that a script that follows
//! `amberfs capture --json` and a mount that runs the same command see the same words. As in
//! restic, `message_type` tells what a line is. Unknown members are ignored and unknown lines are
//! kept as text, so that either side may be newer.
//!
//! Crash behaviour: whoever listens may die first. [`Emitter`] then drops what it is given, because
//! a capture outlives the mount that started it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::state::State;
use crate::base::Class;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message_type", rename_all = "kebab-case")]
pub enum Message {
    /// How far the work is; said a few times a second at most.
    Progress(Progress),
    /// One file could not be captured exactly, or one thing is damaged.
    Problem(Problem),
    /// A capture committed a point. The last line of a successful capture.
    Summary(Summary),
    /// A verification is through. The last line of one, whatever it found.
    Verified(Verified),
    /// Points were deleted, or would be. The last line of a deletion.
    Deleted(Deleted),
    /// Points were brought back. The last line of that.
    Undeleted(Undeleted),
    /// The work failed. The last line then.
    Error(Failure),
}

/// How far the work is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it stands.
    pub phase: Phase,
    /// Files dealt with.
    #[serde(default)]
    pub files: u64,
    /// Bytes dealt with.
    #[serde(default)]
    pub bytes: u64,
    /// Files in all, once known or estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_files: Option<u64>,
    /// Bytes in all, once known or estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Bytes written to the repository.
    #[serde(default)]
    pub stored_bytes: u64,
    /// Problems so far.
    #[serde(default)]
    pub problems: u64,
    /// Seconds since the start.
    #[serde(default)]
    pub seconds: f64,
    /// Seconds to go, as far as one can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
    /// What is being worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Where the work stands, as its process sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// A capture has begun.
    #[default]
    Quiescing,
    /// The source may change again.
    Captured,
    /// What was captured is on its way into the repository.
    Uploading,
    /// A verification reads.
    Verifying,
    /// A restore writes.
    Restoring,
}

impl Phase {
    /// The job's state that it stands for.
    pub fn state(self) -> State {
        match self {
            Phase::Quiescing => State::Quiescing,
            Phase::Captured => State::Captured,
            Phase::Uploading => State::Uploading,
            Phase::Verifying => State::Verifying,
            // No job restores, so this moves none.
            Phase::Restoring => State::Queued,
        }
    }
}

/// One file that could not be captured exactly, or one thing that is damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its path in the source, or the object's name; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// One word: `unreadable`, `vanished`, `changed`, `unsupported`, `damaged`.
    pub kind: String,
    /// In words.
    pub detail: String,
    /// What cannot be had because of a damaged thing; empty when nothing needs it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<Touches>,
}

/// What cannot be had, because of one damaged thing, in points that are alike in that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touches {
    /// The source.
    pub source: String,
    /// The points' names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<String>,
    /// Whether nothing of these points can be had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
    /// Files that cannot be had, at least in part; bytes that are not UTF-8 are replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Ranges of names that are lost, so that nobody knows which there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Names>,
    /// Paths and ranges beyond those listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    /// Entries that are not reached because the name of a directory above them is lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreachable: u64,
    /// What else is touched, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
}

/// A range of names in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The directory; empty for the source itself.
    pub directory: String,
    /// From this name on; none: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Up to before this name; none: to the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a capture of a disk says besides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes of the disk.
    pub bytes: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
    /// How it was found out what had changed: `everything`, `compared` or `untouched`.
    pub method: String,
    /// What could write to it: `still`, `mounted-read-only`, `mounted-read-write` or `changed`.
    pub stillness: String,
    /// Bytes that are not as the parent has them.
    pub changed_bytes: u64,
}

/// A committed point.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Of a disk: what only a disk has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// The source.
    pub source: String,
    /// The point's name.
    pub point: String,
    /// Its number in the source's log.
    #[serde(default)]
    pub id: u64,
    /// Its chain.
    #[serde(default)]
    pub chain: u32,
    /// `full` or `incremental`.
    pub kind: String,
    /// Why, in words.
    pub reason: String,
    /// The parent's name; none for a full point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The job that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Regular files in the point.
    #[serde(default)]
    pub files: u64,
    /// Directories in the point.
    #[serde(default)]
    pub directories: u64,
    /// Entries of any other type.
    #[serde(default)]
    pub others: u64,
    /// Bytes of its regular files.
    #[serde(default)]
    pub bytes: u64,
    /// Directories that were not entered: other filesystems, mounts of amberfs, the repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_entered: Vec<String>,
    /// How many there were; only the first are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_entered_count: u64,
    /// Files that were read because they are new or changed.
    #[serde(default)]
    pub changed_files: u64,
    /// Bytes read from the source.
    #[serde(default)]
    pub read_bytes: u64,
    /// Bytes of chunks that the chain did not have.
    #[serde(default)]
    pub new_bytes: u64,
    /// Bytes written to the repository.
    #[serde(default)]
    pub stored_bytes: u64,
    /// Files that could not be captured exactly; more than 0 makes the point partial.
    #[serde(default)]
    pub problems: u64,
    /// How long it took.
    #[serde(default)]
    pub seconds: f64,
}

/// Objects that were not authenticated, for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubts {
    /// The reason: `unencrypted`, `marker`, `slot`, `lease`, `void`, `unopened`, `unread`, `foreign`, `damaged`.
    pub why: String,
    /// How many.
    pub objects: u64,
    /// The first of them.
    pub names: Vec<String>,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// The source; none for the whole repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Points checked.
    #[serde(default)]
    pub points: u64,
    /// Points of which every file that was checked can be had.
    #[serde(default)]
    pub sound_points: u64,
    /// Objects checked.
    #[serde(default)]
    pub objects: u64,
    /// Bytes read.
    #[serde(default)]
    pub bytes: u64,
    /// Whether file content was read too.
    #[serde(default)]
    pub read_data: bool,
    /// Damaged things found, each told of by a problem before.
    pub damaged: u64,
    /// Packs that no point owns; no damage.
    #[serde(default)]
    pub orphans: u64,
    /// Their bytes.
    #[serde(default)]
    pub orphan_bytes: u64,
    /// Objects that are none of ours, the first of them; no damage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Objects under the repository's prefix that were opened with its keys.
    #[serde(default)]
    pub authenticated: u64,
    /// All others there; some cannot be, and that alone is no damage.
    #[serde(default)]
    pub unauthenticated: u64,
    /// Those, by why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<Doubts>,
    /// What is worth knowing and no damage, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What to do about the damage, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
    /// How long it took.
    #[serde(default)]
    pub seconds: f64,
}

/// Points that were deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// The source.
    pub source: String,
    /// Their names, in log order; none when all were deleted before.
    pub points: Vec<String>,
    /// Their numbers.
    pub ids: Vec<u64>,
    /// The points that descend from those that were named; they are among `points` if they went as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependents: Vec<String>,
    /// Bytes that no other point holds; none where that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether nothing was done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Points that were brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undeleted {
    /// The source.
    pub source: String,
    /// Their names, in log order; none when none was deleted.
    pub points: Vec<String>,
    /// Their numbers.
    pub ids: Vec<u64>,
}

/// Why the work failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The failure's class, in one word; see [`class_word`].
    pub class: String,
    /// What happened, to what, and what to do.
    pub message: String,
}

/// The word for a class in an `error` line.
pub fn class_word(class: Class) -> &'static str {
    match class {
        Class::NotFound => "not-found",
        Class::Corrupt => "corrupt",
        Class::Transient => "transient",
        Class::Timeout => "timeout",
        Class::Conflict => "conflict",
        Class::Denied => "denied",
        Class::Unsupported => "unsupported",
        Class::Invalid => "invalid",
        Class::Exhausted => "exhausted",
        Class::Cancelled => "cancelled",
    }
}

impl Message {
    /// The line, without its newline.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a message has no map with keys other than text")
    }

    /// A line that a process said; none when it is no message of ours.
    pub fn of_line(line: &str) -> Option<Message> {
        serde_json::from_str(line.trim()).ok()
    }
}

/// Writes messages as lines for as long as somebody listens.
///
/// A write that fails silences it: the work goes on, and its end is in the source's log.
#[derive(Debug)]
pub struct Emitter<W> {
    out: Mutex<W>,
    silent: AtomicBool,
}

impl<W: Write> Emitter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Emitter<W> {
        Emitter { out: Mutex::new(out), silent: AtomicBool::new(false) }
    }

    /// Says one line and flushes it.
    pub fn say(&self, message: &Message) {
        if self.silent.load(Ordering::Relaxed) {
            return;
        }
        let mut line = message.to_line();
        line.push('\n');
        let mut out = self.out.lock();
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.silent.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nobody listens any more.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_these() {
        let progress =
            Message::Progress(Progress { phase: Phase::Uploading, files: 3, bytes: 9, ..Default::default() });
        assert_eq!(
            progress.to_line(),
            r#"{"message_type":"progress","phase":"uploading","files":3,"bytes":9,"stored_bytes":0,"problems":0,"seconds":0.0}"#
        );
        let summary = Message::Summary(Summary { source: "home".into(), point: "p".into(), ..Default::default() });
        let error = Message::Error(Failure { class: class_word(Class::Denied).into(), message: "no".into() });
        let problem = Message::Problem(Problem {
            path: "a".into(),
            kind: "vanished".into(),
            detail: "d".into(),
            ..Problem::default()
        });
        let verified = Message::Verified(Verified { damaged: 1, ..Default::default() });
        for message in [progress, summary, error, problem, verified] {
            assert_eq!(Message::of_line(&message.to_line()), Some(message));
        }
    }

    #[test]
    fn a_newer_or_older_speaker_is_understood() {
        let line = r#" {"message_type":"progress","phase":"captured","moons":7} "#;
        assert!(matches!(Message::of_line(line), Some(Message::Progress(p)) if p.phase == Phase::Captured));
        for text in ["", "hello", "{}", r#"{"message_type":"song"}"#, r#"{"message_type":"summary"}"#, "[1]"] {
            assert_eq!(Message::of_line(text), None, "{text}");
        }
    }

    #[test]
    fn a_listener_that_is_gone_silences_the_speaker_and_nothing_else() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let emitter = Emitter::new(Gone);
        assert!(!emitter.is_silent());
        emitter.say(&Message::Progress(Progress::default()));
        assert!(emitter.is_silent());
        emitter.say(&Message::Progress(Progress::default()));
    }
}
