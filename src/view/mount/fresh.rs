//! Asks what is new in a log without keeping those waiting who can be shown what is known.
//!
//! One question for each log is under way at a time, on a thread of its own. Whoever comes waits a moment for its answer
//! ([`limits::REFRESH_PATIENCE`]); once somebody has waited in vain, and after a failure, hardly anybody does any more until an
//! answer has come.
//! A question that hangs ends at the store's own deadline. No more than [`limits::REFRESHES_UNDER_WAY`] are under way at
//! once: the others' logs are asked later. What is done once there is an answer is nobody's to wait for.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::base::limits;
use crate::format::object::LogId;

/// What came of asking.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All that was new is known.
    Answered,
    /// No answer yet; what is known is what there is.
    Waiting,
    /// It could not be asked; why, in words.
    Failed(String),
}

/// The questions that are under way.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    logs: Arc<Mutex<HashMap<LogId, Arc<Question>>>>,
}

#[derive(Debug, Default)]
struct Question {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whether somebody has waited for an answer in vain, or the last question failed.
    in_vain: bool,
    under_way: bool,
    outcome: Option<Result<(), String>>,
}

impl State {
    /// How long whoever comes now waits.
    fn patience(&self) -> Duration {
        if self.in_vain { limits::REFRESH_PATIENCE / 20 } else { limits::REFRESH_PATIENCE }
    }
}

impl Fresh {
    /// Has `ask` ask `log`, unless somebody does already, and waits for the answer as long as is reasonable. Behind a good
    /// answer `then` is run, with nobody waiting.
    pub(super) fn ask<E: std::fmt::Display>(
        &self,
        log: LogId,
        ask: impl FnOnce() -> Result<(), E> + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) -> Asked {
        let question = {
            let mut logs = self.logs.lock();
            let under_way = logs.values().filter(|question| question.state.lock().under_way).count();
            let question = Arc::clone(logs.entry(log).or_default());
            let mut state = question.state.lock();
            if !state.under_way {
                if under_way >= limits::REFRESHES_UNDER_WAY {
                    return Asked::Waiting;
                }
                state.under_way = true;
                state.outcome = None;
                let of = Arc::clone(&question);
                let thread = std::thread::Builder::new().name("refresh".to_owned()).spawn(move || {
                    // A defect must not keep the log from being asked again for the life of the mount.
                    let answer = std::panic::catch_unwind(AssertUnwindSafe(ask));
                    let outcome = match answer {
                        Ok(answer) => answer.map_err(|error| error.to_string()),
                        Err(_) => Err("a defect in amberfs: the question ended in a panic".to_owned()),
                    };
                    let answered = outcome.is_ok();
                    let mut state = of.state.lock();
                    state.under_way = false;
                    state.in_vain = outcome.is_err();
                    state.outcome = Some(outcome);
                    of.changed.notify_all();
                    drop(state);
                    if answered {
                        then();
                    }
                });
                if let Err(error) = thread {
                    state.under_way = false;
                    return Asked::Failed(format!("no thread to ask with: {error}"));
                }
            }
            drop(state);
            question
        };
        let mut state = question.state.lock();
        let patience = state.patience();
        let waited = question.changed.wait_while_for(&mut state, |state| state.under_way, patience);
        state.in_vain |= waited.timed_out();
        match &state.outcome {
            Some(Ok(())) => Asked::Answered,
            Some(Err(why)) => Asked::Failed(why.clone()),
            None => Asked::Waiting,
        }
    }
}

/// Does `work` on a thread of its own: nobody waits for it, and nobody needs it.
pub(super) fn aside(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name("aside".to_owned()).spawn(work) {
        tracing::debug!(%error, "no thread for what nobody waits for");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LOG: LogId = LogId::Repo;

    fn ask<E: std::fmt::Display>(
        fresh: &Fresh,
        log: LogId,
        question: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Asked {
        fresh.ask(log, question, || {})
    }

    /// Whether whoever comes now waits only a little.
    fn in_a_hurry(fresh: &Fresh) -> bool {
        fresh.logs.lock()[&LOG].state.lock().patience() < limits::REFRESH_PATIENCE
    }

    #[test]
    fn a_question_that_panics_is_a_failure_and_the_log_is_asked_again() {
        let fresh = Fresh::default();
        let panics = || -> Result<(), String> { panic!("a defect") };
        assert!(matches!(ask(&fresh, LOG, panics), Asked::Failed(why) if why.contains("defect")));
        assert_eq!(ask(&fresh, LOG, || Ok::<_, String>(())), Asked::Answered);
    }

    #[test]
    fn an_answer_is_waited_for_and_a_question_that_hangs_once_only() {
        let fresh = Fresh::default();
        assert_eq!(ask(&fresh, LOG, || Ok::<_, String>(())), Asked::Answered);
        let (release, hold) = channel::<()>();
        let hanging = move || hold.recv().map_err(|_| "nobody");
        assert!(fresh.logs.lock().get(&LOG).is_some() && !in_a_hurry(&fresh));
        assert_eq!(ask(&fresh, LOG, hanging), Asked::Waiting);
        for _ in 0..10 {
            assert!(in_a_hurry(&fresh), "hardly anybody waits behind one who did in vain");
            assert_eq!(ask(&fresh, LOG, || Err("a second question")), Asked::Waiting);
        }
        // Other logs are asked meanwhile.
        assert_eq!(ask(&fresh, LogId::Source(crate::format::SourceId(1)), || Ok::<_, String>(())), Asked::Answered);
        release.send(()).unwrap();
        while fresh.logs.lock()[&LOG].state.lock().under_way {
            std::thread::yield_now();
        }
        assert_eq!(ask(&fresh, LOG, || Ok::<_, String>(())), Asked::Answered);
    }

    #[test]
    fn a_failure_is_told_and_then_tried_again_with_nobody_waiting() {
        let fresh = Fresh::default();
        assert_eq!(ask(&fresh, LOG, || Err::<(), _>("down")), Asked::Failed("down".to_owned()));
        let (release, hold) = channel::<()>();
        assert!(in_a_hurry(&fresh));
        assert_eq!(ask(&fresh, LOG, move || hold.recv().map_err(|_| "nobody")), Asked::Waiting);
        release.send(()).unwrap();
        while fresh.logs.lock()[&LOG].state.lock().under_way {
            std::thread::yield_now();
        }
        assert_eq!(ask(&fresh, LOG, || Ok::<_, String>(())), Asked::Answered);
    }
}
