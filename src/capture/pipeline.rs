//! The threads of a capture: one plans, several work, one records.
//!
//! ```text
//!  planner (walk, or stream) --units--> workers (read, hash, compress) --results--> recorder (packs, trees)
//!                ^------------------------- gate: units and bytes under way -------------------'
//! ```
//!
//! Every queue is bounded by the gate. Units are numbered by the planner and recorded in that order.
//! Whoever fails closes the gate, which ends the others; nothing has been committed then, and what was
//! written is an orphan that no reader sees.

use std::collections::BTreeMap;

use super::claims::Claims;
use super::counts::Counts;
use super::error::CaptureError;
use super::identities::Identities;
use super::later::Later;
use super::planner::{CloseOnPanic, Gate, Halt, Planner};
use super::progress::Progress;
use super::recorder::{Recorded, Recorder, Shared};
use super::unit::{Done, Unit};
use super::worker::Worker;
use crate::base::{Instant, limits};
use crate::format::log::Roots;
use crate::repo::{Dedup, RepoError, Session};

/// What a capture's threads share.
pub(super) struct Pipeline<'a> {
    /// What is written to.
    pub(super) session: &'a Session,
    /// The trees that are written over.
    pub(super) parent: Option<Roots>,
    /// What the chain has.
    pub(super) dedup: &'a Dedup,
    /// What is counted.
    pub(super) counts: &'a Counts,
    /// Identities that are handed out.
    pub(super) identities: &'a Identities,
    /// Who watches.
    pub(super) progress: &'a Progress,
    /// Threads that read and compress.
    pub(super) workers: usize,
}

impl Pipeline<'_> {
    /// Runs `plan` and all that follows from it; `captured` is called when the source has been read.
    ///
    /// # Errors
    /// The first failure. Failures of single files are no errors.
    pub(super) fn run(
        &self,
        plan: impl FnOnce(Planner<'_>) -> Result<(), Halt> + Send,
        captured: impl FnOnce() -> Instant,
    ) -> Result<(Recorded, Instant), CaptureError> {
        let window = 2 * self.workers + 2;
        let gate = Gate::new(window, limits::CAPTURE_UNITS_BYTES);
        let claims = Claims::new(window as u64);
        let later = Later::default();
        let worker =
            Worker { dedup: self.dedup, claims: &claims, realm: self.session.realm(), session: self.session.id() };
        let mut recorder = Recorder::new(
            Shared {
                session: self.session,
                dedup: self.dedup,
                claims: &claims,
                counts: self.counts,
                progress: self.progress,
                identities: self.identities,
                later: &later,
            },
            self.parent,
        );
        std::thread::scope(|scope| {
            // The gate bounds both queues.
            let (units_in, units_out) = crossbeam_channel::unbounded::<Unit>();
            let (results_in, results_out) = crossbeam_channel::unbounded::<Done>();
            let gate = &gate;
            let planner = Planner::new(gate, units_in, self.progress, &later, self.session.realm().cuts());
            let planning = scope.spawn(move || {
                let _guard = CloseOnPanic(gate);
                plan(planner)
            });
            for _ in 0..self.workers {
                let (units, results) = (units_out.clone(), results_in.clone());
                scope.spawn(move || {
                    let _guard = CloseOnPanic(gate);
                    for unit in units {
                        if results.send(worker.work(unit)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop((units_out, results_in));
            let recorded = record_in_order(results_out, gate, |done| recorder.record(done));
            if recorded.is_err() {
                gate.close();
            }
            match planning.join() {
                Ok(Ok(())) => recorded,
                Ok(Err(Halt::Failed(error))) => Err(error),
                Ok(Err(Halt::Elsewhere)) => recorded
                    .and_then(|()| Err(RepoError::Poisoned { why: "a capture thread has ended".to_owned() }.into())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        let captured = captured();
        Ok((recorder.finish()?, captured))
    }
}

/// Records results in the order of their units, until there are no more.
fn record_in_order(
    results: crossbeam_channel::Receiver<Done>,
    gate: &Gate,
    mut record: impl FnMut(Done) -> Result<(), CaptureError>,
) -> Result<(), CaptureError> {
    let _guard = CloseOnPanic(gate);
    let mut early: BTreeMap<u64, Done> = BTreeMap::new();
    let mut next = 0;
    for done in results {
        early.insert(done.number, done);
        while let Some(done) = early.remove(&next) {
            let weight = done.weight;
            record(done)?;
            gate.leave(weight);
            next += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_that_panics_leaves_nobody_waiting_at_the_gate() {
        let gate = Gate::new(1, 1);
        let (results_in, results_out) = crossbeam_channel::unbounded();
        results_in
            .send(Done {
                number: 0,
                weight: 0,
                frames: Vec::new(),
                results: Vec::new(),
                read_bytes: 0,
                changed_bytes: 0,
            })
            .unwrap();
        std::thread::scope(|scope| {
            let recorder = scope.spawn(|| {
                record_in_order(results_out, &gate, |_| -> Result<(), CaptureError> {
                    std::panic::resume_unwind(Box::new("on purpose"))
                })
            });
            assert!(recorder.join().is_err());
        });
        assert!(gate.is_closed());
    }
}
