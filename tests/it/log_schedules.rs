//! The log's promises in larger mixes than can be checked exhaustively: four writers, two fencers,
//! several rounds each, in random order, with a store that does many things wrong.
//!
//! Every schedule follows from its seed, which a failure names. `AMBERFS_SCHEDULES` sets how many run.

use std::collections::BTreeMap;

use amberfs::base::{Env, Instant};

use crate::log_world::{Action, Defect, End, Reply, Role, World};
use crate::nonces;

const SCHEDULES: u64 = 2_000;
const STEPS_MAX: usize = 20_000;

fn below(env: &Env, bound: usize) -> usize {
    usize::try_from(u64::from_le_bytes(env.random()) % bound as u64).unwrap()
}

fn roles(env: &Env) -> Vec<Role> {
    let mut roles: Vec<Role> =
        (0..4).map(|_| if below(env, 3) == 0 { Role::Full } else { Role::Incremental }).collect();
    for _ in 0..2 {
        roles.push(match below(env, 16) {
            0 => Role::Seal,
            1..6 => Role::Floor,
            _ => Role::Abort(below(env, 4)),
        });
    }
    roles
}

/// Runs one schedule to its end. Faults are rarer than good answers, or nobody would get anywhere.
fn run(seed: u64, defect: Defect) -> World {
    let env = Env::seeded(seed, Instant::from_nanos(0));
    let mut world = World::sealed(&roles(&env), 4, 40, defect);
    for step in 0..STEPS_MAX {
        let actions = world.actions(true);
        if actions.is_empty() {
            return world;
        }
        let wanted = |action: &Action| match action {
            Action::Ask(_, Reply::Honest) => true,
            Action::Ask(..) => below(&env, 8) == 0,
            Action::Land(_) => below(&env, 4) == 0,
            Action::Crash(_) => below(&env, 150) == 0,
        };
        let likely: Vec<Action> = actions.iter().copied().filter(wanted).collect();
        let choices = if likely.is_empty() { &actions } else { &likely };
        world.act(choices[below(&env, choices.len())]);
        if step % 16 == 0 && !world.readers_agree() {
            return world;
        }
    }
    panic!("schedule {seed} does not end");
}

#[test]
fn promises_hold_in_random_schedules() {
    let schedules = std::env::var("AMBERFS_SCHEDULES").map_or(SCHEDULES, |n| n.parse().expect("a number of schedules"));
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let (mut points, mut landed, mut entries) = (0, 0, 0);
    for seed in 0..schedules {
        let world = run(seed, Defect::None);
        assert_eq!(world.broken(), None, "AMBERFS_SCHEDULES seed {seed}");
        nonces::judge();
        for (_, end) in world.ends() {
            *ends.entry(format!("{end:?}")).or_default() += 1;
        }
        points += world.acknowledged().iter().filter(|told| told.point.is_some()).count();
        landed += usize::from(world.landed());
        entries += world.entries();
    }
    println!("{schedules} schedules: {entries} entries, {points} points, {landed} late landings, {ends:?}");
    // The mix is no use when it never comes to what it is for.
    for end in [End::Acknowledged, End::Refused, End::Unanswered, End::Crashed] {
        assert!(ends.contains_key(&format!("{:?}", Some(end))), "no actor ended {end:?}");
    }
    assert!(points > 0 && landed > 0, "{points} points, {landed} landings");
}

#[test]
fn random_schedules_catch_every_defect() {
    for defect in [
        Defect::TrustsSilence,
        Defect::ReadsNothing,
        Defect::MissesAborts,
        Defect::MissesFloors,
        Defect::MissesNames,
        Defect::MissesSeals,
    ] {
        let mut caught = false;
        for seed in 0..100 {
            let world = run(seed, defect);
            caught |= world.broken().is_some();
            assert!(world.acknowledged_fences_hold(), "{defect:?} gets past a fence in schedule {seed}");
        }
        assert!(caught, "{defect:?} goes unnoticed");
    }
}
