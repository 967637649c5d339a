//! How a job ended, from what its process said, how the process ended, and what the source's log holds.
//!
//! Invariant: a point that exists is never called a failure, and nothing but a point that exists is
//! called `committed`: where the process did not say, the log is asked. Pure.

use super::protocol::{Deleted, Failure, Message, Summary, Undeleted, Verified};
use super::request::Request;
use super::state::State;

/// What a process said of its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Said {
    pub(super) summary: Option<Summary>,
    pub(super) verified: Option<Verified>,
    pub(super) deleted: Option<Deleted>,
    pub(super) undeleted: Option<Undeleted>,
    pub(super) error: Option<Failure>,
}

impl Said {
    pub(super) fn hear(&mut self, message: Message) {
        match message {
            Message::Summary(summary) => self.summary = Some(summary),
            Message::Verified(verified) => self.verified = Some(verified),
            Message::Deleted(deleted) => self.deleted = Some(deleted),
            Message::Undeleted(undeleted) => self.undeleted = Some(undeleted),
            Message::Error(error) => self.error = Some(error),
            Message::Progress(_) | Message::Problem(_) => {}
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
    /// It was not our child, or it cannot be waited for.
    Unseen,
}

/// Why the desk ended a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    TimedOut,
}

/// A point in the source's log that a job made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testimony {
    /// The point's name.
    pub point: String,
    /// Files that could not be captured exactly.
    pub problems: u64,
}

/// State, result and error of a job that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: State,
    pub(super) result: Option<String>,
    pub(super) error: Option<String>,
}

/// The exit code of a capture whose point has problems.
const EXIT_PARTIAL: i32 = 3;

/// Judges; `ask` looks into the source's log and is called only where that can change the verdict.
pub(super) fn judge(
    request: &Request,
    said: &Said,
    exit: Exit,
    stop: Option<Stop>,
    ask: impl FnOnce() -> Result<Option<Testimony>, String>,
) -> Verdict {
    let mut doubt = String::new();
    match request {
        Request::Capture { source, .. } => {
            if let Some(summary) = &said.summary {
                let problems = summary.problems.max(u64::from(exit == Exit::Code(EXIT_PARTIAL)));
                return point(source, &summary.point, problems);
            }
            match ask() {
                Ok(Some(testimony)) => return point(source, &testimony.point, testimony.problems),
                Ok(None) => {}
                Err(why) => {
                    doubt = format!("; whether its point exists could not be found out ({why}): look at the points");
                }
            }
        }
        Request::Verify { .. } => {
            if let Some(verified) = &said.verified {
                let checked =
                    format!("{} points, {} objects, {} bytes", verified.points, verified.objects, verified.bytes);
                if verified.damaged == 0 {
                    return Verdict {
                        state: State::Verified,
                        result: Some(format!("no damage in {checked}")),
                        error: None,
                    };
                }
                let error = format!("{} damaged things in {checked}; the log names them", verified.damaged);
                return Verdict { state: State::Failed, result: None, error: Some(error) };
            }
        }
        // Without a word the entry may stand or not. Asking again is harmless, so nobody needs to find out.
        Request::Delete { .. } => {
            if let Some(deleted) = &said.deleted {
                return Verdict { state: State::Deleted, result: Some(listed(&deleted.points)), error: None };
            }
        }
        Request::Undelete { .. } => {
            if let Some(back) = &said.undeleted {
                return Verdict { state: State::Undeleted, result: Some(listed(&back.points)), error: None };
            }
        }
    }
    let (state, why) = match (stop, &said.error, exit) {
        (Some(Stop::Cancelled), _, _) => (State::Cancelled, "cancelled".to_owned()),
        (Some(Stop::TimedOut), _, _) => {
            (State::TimedOut, format!("not done within {} seconds", request.timeout().as_secs()))
        }
        (None, Some(error), _) if error.class == "cancelled" => (State::Cancelled, error.message.clone()),
        (None, Some(error), _) => (State::Failed, error.message.clone()),
        (None, None, Exit::Code(0)) => {
            (State::Failed, "its process ended without a word about the result; its log may tell more".to_owned())
        }
        (None, None, Exit::Code(code)) => {
            (State::Failed, format!("its process ended with exit code {code}; its log may tell more"))
        }
        (None, None, Exit::Signal(signal)) => {
            (State::Failed, format!("interrupted: its process was ended by signal {signal} from outside"))
        }
        (None, None, Exit::Unseen) => (
            State::Failed,
            "interrupted: its process ended while no mount looked after it, without a result; ask again".to_owned(),
        ),
    };
    Verdict { state, result: None, error: Some(why + &doubt) }
}

/// The names of points, each on a line of its own; of very many the first ones.
fn listed(points: &[String]) -> String {
    const LISTED_MAX: usize = 1000;
    let mut lines: Vec<&str> = points.iter().take(LISTED_MAX).map(String::as_str).collect();
    if points.len() > LISTED_MAX {
        lines.push("…");
    }
    lines.join("\n")
}

fn point(source: &str, name: &str, problems: u64) -> Verdict {
    // The log of a job is cut when it ends; the point keeps them all.
    let names = format!("`amberfs points {source} --problems` names");
    let (state, error) = match problems {
        0 => (State::Committed, None),
        1 => (State::Partial, Some(format!("1 file could not be captured exactly; {names} it"))),
        n => (State::Partial, Some(format!("{n} files could not be captured exactly; {names} them"))),
    };
    Verdict { state, result: Some(name.to_owned()), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture() -> Request {
        Request::Capture { source: "home".into(), labels: vec![], full: false, timeout_seconds: Some(9) }
    }

    fn summary(problems: u64) -> Said {
        Said { summary: Some(Summary { point: "p".into(), problems, ..Default::default() }), ..Default::default() }
    }

    fn error(class: &str) -> Said {
        Said { error: Some(Failure { class: class.into(), message: "no".into() }), ..Default::default() }
    }

    fn unasked() -> Result<Option<Testimony>, String> {
        panic!("the log need not be asked")
    }

    #[test]
    fn a_point_that_was_told_of_exists_whatever_came_after() {
        for stop in [None, Some(Stop::Cancelled), Some(Stop::TimedOut)] {
            for exit in [Exit::Code(0), Exit::Code(1), Exit::Signal(9)] {
                let verdict = judge(&capture(), &summary(0), exit, stop, unasked);
                assert_eq!((verdict.state, verdict.result.as_deref()), (State::Committed, Some("p")));
            }
        }
        assert_eq!(judge(&capture(), &summary(2), Exit::Code(3), None, unasked).state, State::Partial);
        assert_eq!(judge(&capture(), &summary(0), Exit::Code(3), None, unasked).state, State::Partial);
    }

    #[test]
    fn where_nothing_was_said_the_log_decides() {
        let committed = || Ok(Some(Testimony { point: "p".into(), problems: 0 }));
        for (said, exit) in [
            (Said::default(), Exit::Signal(9)),
            (Said::default(), Exit::Code(0)),
            (Said::default(), Exit::Unseen),
            (error("timeout"), Exit::Code(1)),
        ] {
            assert_eq!(judge(&capture(), &said, exit, Some(Stop::Cancelled), committed).state, State::Committed);
            assert_eq!(judge(&capture(), &said, exit, None, || Ok(None)).state, State::Failed);
            let doubtful = judge(&capture(), &said, exit, None, || Err("store is away".into()));
            assert!(doubtful.error.unwrap().contains("store is away"));
        }
    }

    #[test]
    fn without_a_point_the_reason_is_named() {
        let table = [
            (Said::default(), Exit::Signal(15), Some(Stop::Cancelled), State::Cancelled, "cancelled"),
            (Said::default(), Exit::Signal(9), Some(Stop::TimedOut), State::TimedOut, "not done within 9 seconds"),
            (error("denied"), Exit::Code(1), None, State::Failed, "no"),
            (error("cancelled"), Exit::Code(130), None, State::Cancelled, "no"),
            (Said::default(), Exit::Code(7), None, State::Failed, "exit code 7"),
            (Said::default(), Exit::Signal(11), None, State::Failed, "signal 11"),
            (Said::default(), Exit::Unseen, None, State::Failed, "interrupted"),
        ];
        for (said, exit, stop, state, words) in table {
            let verdict = judge(&capture(), &said, exit, stop, || Ok(None));
            assert_eq!(verdict.state, state);
            assert!(verdict.error.as_deref().unwrap().contains(words), "{verdict:?}");
        }
    }

    #[test]
    fn a_deletion_is_told_by_its_process_alone() {
        let point = || "p".to_owned();
        let (source, timeout_seconds) = ("home".to_owned(), None);
        let undelete = Request::Undelete { source: source.clone(), point: point(), timeout_seconds };
        let delete = Request::Delete { source, point: "#3".into(), cascade: false, rebase: false, timeout_seconds };
        let deleted = Deleted { points: vec![point(), "q".into()], ..Default::default() };
        let deleted = Said { deleted: Some(deleted), ..Default::default() };
        let back = Undeleted { points: vec![point()], ..Default::default() };
        let back = Said { undeleted: Some(back), ..Default::default() };
        for exit in [Exit::Code(0), Exit::Signal(9), Exit::Unseen] {
            let verdict = judge(&delete, &deleted, exit, Some(Stop::Cancelled), unasked);
            assert_eq!((verdict.state, verdict.result.as_deref()), (State::Deleted, Some("p\nq")));
            assert_eq!(judge(&undelete, &back, exit, None, unasked).state, State::Undeleted);
            for (request, said) in [(&delete, &back), (&undelete, &deleted), (&delete, &Said::default())] {
                assert_eq!(judge(request, said, exit, None, unasked).state, State::Failed);
            }
        }
        assert_eq!(listed(&vec![point(); 2000]).lines().count(), 1001);
    }

    #[test]
    fn a_verification_that_finds_damage_fails() {
        let verify = Request::Verify { source: None, read_data: false, timeout_seconds: None };
        let said = |damaged| Said { verified: Some(Verified { damaged, ..Default::default() }), ..Default::default() };
        assert_eq!(judge(&verify, &said(0), Exit::Code(0), None, unasked).state, State::Verified);
        assert_eq!(judge(&verify, &said(1), Exit::Code(13), None, unasked).state, State::Failed);
        assert_eq!(judge(&verify, &Said::default(), Exit::Code(0), None, unasked).state, State::Failed);
    }
}
