//! What can be asked of amberfs: the same typed request from the control file and the command line.
//!
//! A request only names things: sources that a configuration file defines, never a path, a flag or
//! a program. Whoever may write to the control file can therefore start what its owner has set up
//! and nothing else.
//!
//! Invariant: a [`Request`] that exists has been checked by the rules below; [`Request::to_line`]
//! gives the control line that [`super::line::parse`] turns back into it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::JobId;
use super::witness::Witness;
use crate::base::limits;

/// One command of the control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a job.
    Run {
        /// Which.
        request: Request,
        /// The handle that the client chose.
        job: Option<JobId>,
    },
    /// End a job before its time.
    Cancel {
        /// Which.
        job: JobId,
    },
}

/// Work that becomes a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Make a point of a source.
    Capture {
        /// A configured source.
        source: String,
        /// Labels for the point.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        labels: Vec<String>,
        /// Start a new chain.
        #[serde(default)]
        full: bool,
        /// Give up after this many seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<u64>,
    },
    /// Put a point into the trash.
    Delete {
        /// A configured source.
        source: String,
        /// `#` and the point's number, or its name.
        point: String,
        /// What descends from it goes as well.
        #[serde(default)]
        cascade: bool,
        /// What descends from it stays.
        #[serde(default)]
        rebase: bool,
        /// Give up after this many seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<u64>,
    },
    /// Bring a point back from the trash.
    Undelete {
        /// A configured source.
        source: String,
        /// `#` and the point's number, or its name.
        point: String,
        /// Give up after this many seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<u64>,
    },
    /// Check that what was stored is there and intact.
    Verify {
        /// A configured source; without one, the whole repository.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// Read file content too, not only what describes it.
        #[serde(default)]
        read_data: bool,
        /// Give up after this many seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<u64>,
    },
}

impl Request {
    /// The verb of the control file and of the command line.
    pub fn verb(&self) -> &'static str {
        match self {
            Request::Capture { .. } => "capture",
            Request::Verify { .. } => "verify",
            Request::Delete { .. } => "delete",
            Request::Undelete { .. } => "undelete",
        }
    }

    /// Whether it writes to the repository.
    pub fn writes(&self) -> bool {
        match self {
            Request::Capture { .. } | Request::Delete { .. } | Request::Undelete { .. } => true,
            Request::Verify { .. } => false,
        }
    }

    /// The point that is deleted or brought back.
    pub fn point(&self) -> Option<&str> {
        match self {
            Request::Delete { point, .. } | Request::Undelete { point, .. } => Some(point),
            Request::Capture { .. } | Request::Verify { .. } => None,
        }
    }

    /// The source that it concerns; none means all.
    pub fn source(&self) -> Option<&str> {
        match self {
            Request::Capture { source, .. } | Request::Delete { source, .. } | Request::Undelete { source, .. } => {
                Some(source)
            }
            Request::Verify { source, .. } => source.as_deref(),
        }
    }

    /// After how long it is given up.
    pub fn timeout(&self) -> Duration {
        match self {
            Request::Capture { timeout_seconds, .. }
            | Request::Verify { timeout_seconds, .. }
            | Request::Delete { timeout_seconds, .. }
            | Request::Undelete { timeout_seconds, .. } => {
                timeout_seconds.map_or(limits::JOB_TIMEOUT, Duration::from_secs)
            }
        }
    }

    /// Whether the two must not be under way at once: the same kind of work on the same thing, or a point that
    /// is to go and to come back.
    pub fn conflicts(&self, other: &Request) -> bool {
        let same_work = self.verb() == other.verb() || (self.point().is_some() && other.point().is_some());
        same_work && self.source() == other.source() && self.point() == other.point()
    }

    /// The selector of the point that is deleted or brought back.
    fn selector(source: &str, point: &str) -> String {
        if point.starts_with('#') { format!("{source}{point}") } else { format!("{source}@{point}") }
    }

    /// The arguments of the command that does this work as a job, after the global options.
    pub fn arguments(&self, job: &Witness) -> Vec<String> {
        let mut arguments = vec![self.verb().to_owned(), "--json".to_owned()];
        match self {
            Request::Capture { source, labels, full, timeout_seconds: _ } => {
                if *full {
                    arguments.push("--full".to_owned());
                }
                arguments.extend(labels.iter().map(|label| format!("--label={label}")));
                arguments.extend(["--job".to_owned(), job.to_string(), "--".to_owned(), source.clone()]);
            }
            Request::Verify { source, read_data, timeout_seconds: _ } => {
                if *read_data {
                    arguments.push("--read-data".to_owned());
                }
                if let Some(source) = source {
                    arguments.extend(["--".to_owned(), source.clone()]);
                }
            }
            Request::Delete { source, point, cascade, rebase, timeout_seconds: _ } => {
                arguments.push("--yes".to_owned());
                for (given, option) in [(cascade, "--cascade"), (rebase, "--rebase")] {
                    if *given {
                        arguments.push(option.to_owned());
                    }
                }
                arguments.extend(["--".to_owned(), Request::selector(source, point)]);
            }
            Request::Undelete { source, point, timeout_seconds: _ } => {
                arguments.extend(["--".to_owned(), Request::selector(source, point)]);
            }
        }
        arguments
    }

    /// The control line that asks for this.
    pub fn to_line(&self) -> String {
        let mut line = self.verb().to_owned();
        let mut word = |text: &str| {
            line.push(' ');
            line.push_str(text);
        };
        let timeout = match self {
            Request::Capture { source, labels, full, timeout_seconds } => {
                word(source);
                for label in labels {
                    word(&format!("label={}", quoted(label)));
                }
                if *full {
                    word("full=yes");
                }
                timeout_seconds
            }
            Request::Verify { source, read_data, timeout_seconds } => {
                if let Some(source) = source {
                    word(source);
                }
                if *read_data {
                    word("read-data=yes");
                }
                timeout_seconds
            }
            Request::Delete { source, point, cascade, rebase, timeout_seconds } => {
                word(source);
                word(&format!("point={}", quoted(point)));
                for (given, key) in [(cascade, "cascade=yes"), (rebase, "rebase=yes")] {
                    if *given {
                        word(key);
                    }
                }
                timeout_seconds
            }
            Request::Undelete { source, point, timeout_seconds } => {
                word(source);
                word(&format!("point={}", quoted(point)));
                timeout_seconds
            }
        };
        if let Some(seconds) = timeout {
            word(&format!("timeout={seconds}s"));
        }
        line
    }
}

fn quoted(value: &str) -> String {
    // Quoting fails on NUL alone, and no checked value holds one.
    shlex::try_quote(value).map_or_else(|_| String::new(), std::borrow::Cow::into_owned)
}

/// A name or value that breaks its rule, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(pub String);

/// Checks a job's id, which has the same form as a source's name.
///
/// # Errors
/// [`BadName`] says which rule is broken.
pub fn check_job(name: &str) -> Result<(), BadName> {
    let bad = |why: &str| {
        let longest = limits::JOB_ID_BYTES_MAX;
        Err(BadName(format!("{name:?} is no job id: {why} (letters, digits, `.`, `_`, `-`; at most {longest})")))
    };
    let Some(first) = name.bytes().next() else { return bad("it is empty") };
    if name.len() > limits::JOB_ID_BYTES_MAX {
        return bad("it is too long");
    }
    if !first.is_ascii_alphanumeric() {
        return bad("it must begin with a letter or digit");
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        Some(c) => bad(&format!("{c:?} cannot stand in it")),
        None => Ok(()),
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_follow_their_rule() {
        for good in ["home", "a", "0x.y_z-w", &"x".repeat(64)] {
            check_job(good).unwrap();
        }
        for bad in ["", ".hidden", "-x", "a/b", "a b", "é", "..", &"x".repeat(65)] {
            check_job(bad).unwrap_err();
        }
    }

    #[test]
    fn a_label_never_becomes_an_option() {
        let request = Request::Capture {
            source: "home".into(),
            labels: vec!["a b".into(), "c".into()],
            full: true,
            timeout_seconds: None,
        };
        let job = Witness::new(&JobId("n-1".into()), 7);
        assert_eq!(
            request.arguments(&job),
            ["capture", "--json", "--full", "--label=a b", "--label=c", "--job", "n-1@7", "--", "home"]
        );
        assert_eq!(request.to_line(), "capture home label='a b' label=c full=yes");
        let verify = Request::Verify { source: None, read_data: true, timeout_seconds: Some(60) };
        assert_eq!(verify.arguments(&job), ["verify", "--json", "--read-data"]);
        assert_eq!(verify.to_line(), "verify read-data=yes timeout=60s");
    }

    fn delete(point: &str, rebase: bool) -> Request {
        Request::Delete { source: "home".into(), point: point.into(), cascade: false, rebase, timeout_seconds: None }
    }

    #[test]
    fn a_point_is_called_by_number_or_name() {
        let job = Witness::new(&JobId("n-1".into()), 7);
        assert_eq!(delete("#3", true).arguments(&job), ["delete", "--json", "--yes", "--rebase", "--", "home#3"]);
        assert_eq!(delete("#3", true).to_line(), "delete home point='#3' rebase=yes");
        let point = "2026-11-20T12-00-00Z+2".to_owned();
        let undelete = Request::Undelete { source: "home".into(), point: point.clone(), timeout_seconds: Some(9) };
        assert_eq!(undelete.arguments(&job), ["undelete", "--json", "--", &format!("home@{point}")]);
        assert_eq!(undelete.to_line(), format!("undelete home point={point} timeout=9s"));
        assert!(delete("#3", true).conflicts(&delete("#3", false)));
        assert!(!delete("#3", true).conflicts(&delete("#4", true)));
        assert!(delete(&point, true).conflicts(&undelete) && undelete.conflicts(&delete(&point, true)));
    }

    #[test]
    fn only_the_same_work_on_the_same_thing_conflicts() {
        let capture =
            |s: &str| Request::Capture { source: s.into(), labels: vec![], full: false, timeout_seconds: None };
        let verify = Request::Verify { source: Some("home".into()), read_data: false, timeout_seconds: None };
        assert!(capture("home").conflicts(&capture("home")));
        assert!(!capture("home").conflicts(&capture("etc")));
        assert!(!capture("home").conflicts(&verify));
    }
}
