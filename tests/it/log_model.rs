//! The log's promises, checked in every order of events for two writers and a fencer.
//!
//! The model checker (stateright) runs the production machine of `chain::protocol` in [`World`], so
//! what is checked is what runs. A writer that stalls, or stops for good, is one that is never
//! scheduled again: every prefix of every run is visited, so each property is checked there too.
//! The number of things that the store does wrong in one run is bounded.

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::log_world::{Action, Defect, End, Role, World};

#[derive(Clone)]
struct Scenario {
    roles: Vec<Role>,
    faults: u16,
    defect: Defect,
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.roles, 1, self.faults, self.defect)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(world.actions(false));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        world.act(action);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXIST, |_, world: &World| world.acknowledged_points_exist()),
            Property::always(DIFFER, |_, world: &World| world.acknowledged_points_differ()),
            Property::always(FENCED, |_, world: &World| world.no_fenced_session_is_acknowledged()),
            Property::always(FENCES, |_, world: &World| world.acknowledged_fences_hold()),
            Property::always(DELETIONS, |_, world: &World| world.deletions_are_as_planned()),
            Property::always(AGREE, |_, world: &World| world.readers_agree()),
            Property::always("every entry continues the log", |_, world: &World| world.every_entry_continues_the_log()),
            Property::always("nobody is stopped", |_, world: &World| world.nobody_is_stopped()),
            Property::always("no commit is void", |_, world: &World| world.no_commit_is_void()),
            Property::always("nobody waits for ever", |_, world: &World| {
                // An aborter has nothing to do when its writer was done before it looked.
                let over = |(role, end): (Role, Option<End>)| end.is_some() || matches!(role, Role::Abort(_));
                !world.actions(false).is_empty() || world.ends().all(over)
            }),
            Property::sometimes(BOTH, |_, world: &World| writers(world, End::Acknowledged) == 2),
            Property::sometimes(REFUSED, |_, world: &World| writers(world, End::Refused) > 0),
            Property::sometimes(LANDED, |scenario, world: &World| scenario.faults == 0 || world.landed()),
            Property::sometimes(SUFFIX, |_, world: &World| {
                let suffix = |name: &str| name.ends_with("+3");
                world.acknowledged().iter().any(|told| told.point.as_ref().is_some_and(|(name, _)| suffix(name)))
            }),
        ]
    }
}

const EXIST: &str = "acknowledged points exist";
const DIFFER: &str = "acknowledged points differ";
const FENCED: &str = "no fenced session is acknowledged";
const FENCES: &str = "acknowledged fences hold";
const DELETIONS: &str = "deletions are as planned";
const AGREE: &str = "readers agree";
const BOTH: &str = "both writers are acknowledged";
const REFUSED: &str = "a writer is refused";
const LANDED: &str = "a late Create lands";
const SUFFIX: &str = "a name gets a suffix because others were faster";

fn writers(world: &World, end: End) -> usize {
    let writes = |role| matches!(role, Role::Incremental | Role::Full);
    world.ends().filter(|(role, how)| writes(*role) && *how == Some(end)).count()
}

/// Every property holds, and what is to happen sometimes does. A deletion refuses no writer anything: a point whose parent is
/// deleted meanwhile is complete in itself.
fn check(roles: &[Role], faults: u16) {
    let scenario = Scenario { roles: roles.to_vec(), faults, defect: Defect::None };
    let checker = scenario.checker().threads(2).spawn_bfs().join();
    println!("{roles:?} with {faults} faults: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    for Property { name, expectation, .. } in checker.model().properties() {
        let is_wanted = matches!(expectation, stateright::Expectation::Sometimes)
            && !(name == REFUSED && roles.contains(&Role::Delete));
        assert_eq!(checker.discovery(name).is_some(), is_wanted, "{roles:?} with {faults} faults: {name}");
    }
}

#[test]
fn two_writers_and_an_abort() {
    check(&[Role::Incremental, Role::Incremental, Role::Abort(0)], 2);
    check(&[Role::Full, Role::Incremental, Role::Abort(0)], 0);
}

#[test]
fn two_writers_and_a_floor() {
    check(&[Role::Incremental, Role::Incremental, Role::Floor], 2);
    check(&[Role::Full, Role::Incremental, Role::Floor], 0);
}

/// Millions of states: minutes. `.ci/long` runs them, by the variable that scales the schedules.
#[test]
fn larger_mixes_in_the_long_campaign() {
    if std::env::var_os("AMBERFS_SCHEDULES").is_none() {
        println!("SKIPPED: set AMBERFS_SCHEDULES to check two full captures and three faults exhaustively");
        return;
    }
    for fencer in [Role::Abort(0), Role::Floor, Role::Seal, Role::Delete] {
        check(&[Role::Full, Role::Incremental, fencer], 1);
        check(&[Role::Full, Role::Full, fencer], 1);
        check(&[Role::Incremental, Role::Incremental, fencer], 3);
    }
}

/// What a fence stops stays stopped, also when the writer does not look: its commit is void to all.
#[test]
fn a_fence_holds_against_writers_that_do_not_look() {
    for (defect, fencer) in [
        (Defect::ReadsNothing, Role::Seal),
        (Defect::MissesAborts, Role::Abort(0)),
        (Defect::MissesFloors, Role::Floor),
        (Defect::MissesSeals, Role::Seal),
    ] {
        let scenario = Scenario { roles: vec![Role::Incremental, Role::Incremental, fencer], faults: 0, defect };
        let checker = scenario.checker().threads(2).spawn_bfs().join();
        assert!(checker.discovery(FENCED).is_some(), "{defect:?} makes no difference");
        assert!(checker.discovery(FENCES).is_none(), "{defect:?} gets past its fence");
    }
}

#[test]
fn two_writers_and_a_seal() {
    check(&[Role::Incremental, Role::Incremental, Role::Seal], 2);
    check(&[Role::Full, Role::Incremental, Role::Seal], 0);
}

#[test]
fn two_writers_and_a_deletion() {
    check(&[Role::Incremental, Role::Incremental, Role::Delete], 2);
    check(&[Role::Full, Role::Incremental, Role::Delete], 0);
}

/// The checker finds the defect: a model that cannot fail proves nothing.
fn is_caught(defect: Defect, fencer: Role, promise: &'static str) {
    let scenario = Scenario { roles: vec![Role::Incremental, Role::Incremental, fencer], faults: 1, defect };
    let found = HasDiscoveries::AnyOf([promise].into());
    let checker = scenario.checker().threads(2).finish_when(found).spawn_bfs().join();
    assert!(checker.discovery(promise).is_some(), "{defect:?} goes unnoticed");
}

#[test]
fn a_writer_that_takes_silence_for_success_is_caught() {
    is_caught(Defect::TrustsSilence, Role::Seal, EXIST);
}

#[test]
fn a_writer_that_goes_on_without_reading_is_caught() {
    is_caught(Defect::ReadsNothing, Role::Seal, EXIST);
    is_caught(Defect::ReadsNothing, Role::Abort(0), FENCED);
    is_caught(Defect::ReadsNothing, Role::Delete, DELETIONS);
}

#[test]
fn a_writer_that_misses_aborts_is_caught() {
    is_caught(Defect::MissesAborts, Role::Abort(0), FENCED);
    is_caught(Defect::MissesAborts, Role::Abort(0), EXIST);
}

#[test]
fn a_writer_that_misses_the_floor_is_caught() {
    is_caught(Defect::MissesFloors, Role::Floor, FENCED);
}

#[test]
fn a_writer_that_misses_a_seal_is_caught() {
    is_caught(Defect::MissesSeals, Role::Seal, FENCED);
}

#[test]
fn a_writer_that_misses_taken_names_is_caught() {
    is_caught(Defect::MissesNames, Role::Floor, DIFFER);
    is_caught(Defect::MissesNames, Role::Floor, AGREE);
}
