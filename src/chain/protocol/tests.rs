use super::*;
use crate::base::{Class, Classed};
use crate::chain::state::{SourceGoal, SourceState, Void};
use crate::chain::testing::{commit, entry, hash, session, tell};
use crate::format::ChainId;
use crate::format::log::{Commit, SourceBody};

type Machine = Append<SourceState>;

const OWN: Nonce = Nonce([0xaa; 16]);

/// A log with chain 0 and points 2 and 3.
fn known() -> SourceState {
    let mut state = SourceState::default();
    tell(&mut state, SourceBody::OpenChain { chain: ChainId(0) }).unwrap();
    tell(&mut state, say(commit(session(0, 1), 0, None, 100))).unwrap();
    tell(&mut state, say(commit(session(2, 2), 0, Some(2), 200))).unwrap();
    state
}

fn say(commit: Commit) -> SourceBody {
    SourceBody::Commit(Arc::new(commit))
}

/// A writer of session (3, 9) that wants a point of second 200, and has been told that nothing is new.
fn writer() -> Machine {
    let goal = SourceGoal::Commit(Box::new(commit(session(3, 9), 0, Some(3), 200)));
    let mut machine = Append::new(known(), Some(goal), OWN, Instant::from_nanos(7));
    assert_eq!(machine.step(), Step::List(LogNumber(3)));
    machine.answer(Answer::Listed(None));
    assert_eq!(machine.step(), Step::Get(LogNumber(4)));
    machine
}

/// The writer, about to create entry 4.
fn creating() -> (Machine, Arc<LogEntry<SourceBody>>) {
    let mut machine = writer();
    machine.answer(Answer::Missing);
    let own = proposed(&machine);
    assert_eq!((own.number, own.previous, own.nonce), (LogNumber(4), hash(3), OWN));
    (machine, own)
}

fn proposed(machine: &Machine) -> Arc<LogEntry<SourceBody>> {
    match machine.step() {
        Step::Create(entry) => entry,
        other => panic!("{other:?}"),
    }
}

/// An entry of somebody else.
fn other(number: u64, body: SourceBody) -> Answer<SourceBody> {
    Answer::Found(Arc::new(entry(number, hash(number - 1), body)), hash(number))
}

fn name_of(entry: &LogEntry<SourceBody>) -> &str {
    match &entry.body {
        SourceBody::Commit(commit) => &commit.name,
        other => panic!("{other:?}"),
    }
}

fn outcome(machine: &Machine) -> Outcome<SourceBody> {
    match machine.step() {
        Step::Done(outcome) => outcome,
        other => panic!("not done: {other:?}"),
    }
}

#[test]
fn a_commit_is_acknowledged_after_it_has_been_read_back() {
    let (mut machine, own) = creating();
    assert_eq!(name_of(&own), "1970-01-01T00-03-20Z+2");
    machine.answer(Answer::Created);
    assert_eq!(machine.step(), Step::Get(LogNumber(4)));
    machine.answer(Answer::Found(Arc::clone(&own), hash(4)));
    assert_eq!(outcome(&machine), Outcome::Appended(own));
    assert_eq!(machine.state().newest().unwrap().id.0, 4);
}

#[test]
fn an_answer_that_is_lost_is_settled_by_the_nonce() {
    for answer in [Answer::Unanswered, Answer::Exists] {
        // A client library that tries again by itself turns its own success into "exists".
        let (mut machine, own) = creating();
        machine.answer(answer);
        machine.answer(Answer::Found(Arc::clone(&own), hash(4)));
        assert_eq!(outcome(&machine), Outcome::Appended(own));
    }
}

#[test]
fn a_create_that_was_lost_is_sent_again_unchanged_and_then_given_up_as_unsettled() {
    let (mut machine, own) = creating();
    for _ in 1..TRIES_MAX {
        machine.answer(Answer::Unanswered);
        machine.answer(Answer::Missing);
        assert_eq!(machine.step(), Step::Create(Arc::clone(&own)));
    }
    machine.answer(Answer::Unanswered);
    machine.answer(Answer::Missing);
    assert_eq!(outcome(&machine), Outcome::Unanswered { in_flight: Some(LogNumber(4)) });
}

#[test]
fn a_lost_race_takes_the_next_number_and_the_next_name() {
    let (mut machine, _) = creating();
    machine.answer(Answer::Exists);
    // A void entry, under a name that is taken: it has a number and nothing else.
    machine.answer(other(4, say(commit(session(3, 8), 0, Some(3), 200))));
    assert_eq!(machine.step(), Step::Get(LogNumber(5)));
    let winner = Commit { name: "1970-01-01T00-03-20Z+2".into(), ..commit(session(3, 7), 0, Some(3), 200) };
    machine.answer(other(5, say(winner)));
    machine.answer(Answer::Missing);
    let own = proposed(&machine);
    assert_eq!((own.number, own.previous, name_of(&own)), (LogNumber(6), hash(5), "1970-01-01T00-03-20Z+3"));
}

#[test]
fn whoever_loses_a_race_to_a_fence_is_refused() {
    type Told = fn(&Void) -> bool;
    let fences: [(SourceBody, Told); 3] = [
        (SourceBody::Abort { session: session(3, 9) }, |void| matches!(void, Void::Aborted(_))),
        (SourceBody::Floor { floor: LogNumber(4) }, |void| matches!(void, Void::BelowFloor { .. })),
        (SourceBody::Seal, |void| matches!(void, Void::Sealed)),
    ];
    for (fence, told) in fences {
        for cause in [Answer::Exists, Answer::Unanswered] {
            let (mut machine, _) = creating();
            machine.answer(cause);
            machine.answer(other(4, fence.clone()));
            machine.answer(Answer::Missing);
            match outcome(&machine) {
                Outcome::Refused(ref refusal @ Refusal::Void(ref void)) if told(void) => {
                    assert_eq!(refusal.class(), Class::Conflict);
                }
                other => panic!("{fence:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_create_that_is_still_under_way_cannot_take_effect_once_its_number_is_taken() {
    let (mut machine, _) = creating();
    machine.answer(Answer::Unanswered);
    machine.answer(other(4, SourceBody::OpenChain { chain: ChainId(1) }));
    for _ in 0..TRIES_MAX {
        machine.answer(Answer::Unanswered);
    }
    assert_eq!(outcome(&machine), Outcome::Unanswered { in_flight: None });
}

#[test]
fn a_hole_stops_the_writer() {
    let goal = SourceGoal::OpenChain(session(3, 9));
    let mut machine = Append::new(known(), Some(goal), OWN, Instant::from_nanos(7));
    machine.answer(Answer::Listed(Some(LogNumber(5))));
    machine.answer(Answer::Missing);
    let hole = Damage { number: LogNumber(4), fault: Fault::Missing };
    assert_eq!(outcome(&machine), Outcome::Damaged(hole));
}

#[test]
fn an_entry_that_cannot_be_read_or_continues_another_stops_the_writer() {
    let mut machine = writer();
    machine.answer(Answer::Unreadable("garbage".into()));
    assert!(
        matches!(outcome(&machine), Outcome::Damaged(damage) if damage.fault == Fault::Unreadable("garbage".into()))
    );

    let mut machine = writer();
    machine.answer(Answer::Found(Arc::new(entry(4, hash(77), SourceBody::Seal)), hash(4)));
    assert!(matches!(outcome(&machine), Outcome::Damaged(damage) if damage.fault == Fault::Discontinuous));

    let mut state = known();
    state.pass(LogNumber(4), Fault::Missing);
    let machine = Machine::new(state, None, OWN, Instant::from_nanos(7));
    assert!(matches!(outcome(&machine), Outcome::Damaged(damage) if damage.number == LogNumber(4)));
}

#[test]
fn a_store_that_does_not_keep_what_it_accepts_is_found_out() {
    let (mut machine, _) = creating();
    machine.answer(Answer::Created);
    machine.answer(other(4, SourceBody::OpenChain { chain: ChainId(1) }));
    assert_eq!(outcome(&machine), Outcome::NotKept(LogNumber(4)));

    let (mut machine, own) = creating();
    machine.answer(Answer::Created);
    let altered = LogEntry { written: Instant::from_nanos(8), ..(*own).clone() };
    machine.answer(Answer::Found(Arc::new(altered), hash(4)));
    assert_eq!(outcome(&machine), Outcome::NotKept(LogNumber(4)));

    let (mut machine, _) = creating();
    machine.answer(Answer::Created);
    for _ in 0..TRIES_MAX {
        machine.answer(Answer::Missing);
    }
    assert_eq!(outcome(&machine), Outcome::NotKept(LogNumber(4)));
}

#[test]
fn what_only_a_checkpoint_told_of_is_proved_before_anything_stands_on_it() {
    let whole = known();
    let checkpoint = crate::format::log::Checkpoint { number: LogNumber(3), hash: hash(3), state: whole.snapshot() };
    let start = || {
        let state = SourceState::restore(&checkpoint).unwrap();
        let mut machine = Machine::new(state, None, OWN, Instant::from_nanos(7));
        machine.answer(Answer::Listed(None));
        assert_eq!(machine.step(), Step::Get(LogNumber(3)));
        machine
    };
    let mut machine = start();
    machine.answer(other(3, say(commit(session(2, 2), 0, Some(2), 200))));
    machine.answer(Answer::Missing);
    assert_eq!(outcome(&machine), Outcome::CaughtUp);
    assert_eq!(machine.state(), &whole);
    for (answer, fault) in [
        (Answer::Missing, Fault::Missing),
        (Answer::Unreadable("x".into()), Fault::Unreadable("x".into())),
        (Answer::Found(Arc::new(entry(3, hash(2), SourceBody::Seal)), hash(99)), Fault::Discontinuous),
    ] {
        let mut machine = start();
        machine.answer(answer);
        assert_eq!(outcome(&machine), Outcome::Damaged(Damage { number: LogNumber(3), fault }));
    }
}

#[test]
fn silence_ends_every_step_after_a_few_tries() {
    let mut machine = Machine::new(known(), None, OWN, Instant::from_nanos(7));
    for _ in 0..TRIES_MAX {
        machine.answer(Answer::Unanswered);
    }
    assert_eq!(outcome(&machine), Outcome::Unanswered { in_flight: None });

    let (mut machine, _) = creating();
    machine.answer(Answer::Created);
    for _ in 0..TRIES_MAX {
        machine.answer(Answer::Unanswered);
    }
    // Accepted, but never seen: not to be acknowledged, nor to be taken for absent.
    assert_eq!(outcome(&machine), Outcome::Unanswered { in_flight: Some(LogNumber(4)) });
}

#[test]
fn what_stands_already_is_not_said_again() {
    let mut state = known();
    tell(&mut state, SourceBody::Abort { session: session(3, 9) }).unwrap();
    tell(&mut state, SourceBody::Floor { floor: LogNumber(3) }).unwrap();
    for (sealed, goal) in [
        (false, SourceGoal::Abort(session(3, 9))),
        (false, SourceGoal::Abort(session(2, 9))),
        (false, SourceGoal::Floor(LogNumber(2))),
        (true, SourceGoal::Seal),
        (true, SourceGoal::Abort(session(4, 9))),
        (true, SourceGoal::Floor(LogNumber(5))),
    ] {
        let mut state = state.clone();
        if sealed {
            tell(&mut state, SourceBody::Seal).unwrap();
        }
        let mut machine = Machine::new(state, Some(goal.clone()), OWN, Instant::from_nanos(7));
        machine.answer(Answer::Listed(None));
        machine.answer(Answer::Missing);
        assert_eq!(outcome(&machine), Outcome::Holds, "{goal:?}");
    }
}
