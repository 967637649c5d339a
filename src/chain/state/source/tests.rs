use proptest::prelude::*;

use super::*;
use crate::chain::state::Fault;
use crate::chain::testing::{commit, entry, hash, session, tell};
use crate::format::Nonce;

fn say(commit: Commit) -> SourceBody {
    SourceBody::Commit(Arc::new(commit))
}

/// Chain 0 with points 2 (full), 3 and 4, chain 1 with point 6.
fn two_chains() -> SourceState {
    let mut state = SourceState::default();
    tell(&mut state, SourceBody::OpenChain { chain: ChainId(0) }).unwrap();
    tell(&mut state, say(commit(session(0, 1), 0, None, 100))).unwrap();
    tell(&mut state, say(commit(session(2, 2), 0, Some(2), 200))).unwrap();
    tell(&mut state, say(commit(session(3, 3), 0, Some(3), 300))).unwrap();
    tell(&mut state, SourceBody::OpenChain { chain: ChainId(1) }).unwrap();
    tell(&mut state, say(commit(session(4, 4), 1, None, 400))).unwrap();
    state
}

fn ids<'a>(points: impl IntoIterator<Item = &'a Arc<Point>>) -> Vec<u64> {
    points.into_iter().map(|point| point.id.0).collect()
}

#[test]
fn points_are_found_by_every_handle() {
    let state = two_chains();
    assert_eq!(ids(state.points()), [2, 3, 4, 6]);
    assert_eq!(ids(state.point(PointId(3))), [3]);
    assert_eq!(state.point(PointId(5)), None);
    assert_eq!(ids(state.by_name("1970-01-01T00-05-00Z")), [4]);
    assert_eq!(state.by_name("1970-01-01T00-05-01Z"), None);
    assert_eq!(ids(state.by_session(&session(3, 3))), [4]);
    assert_eq!(ids(state.newest()), [6]);
    assert_eq!(ids(state.head()), [6]);
    assert_eq!(ids(state.before_newest(0)), [6]);
    assert_eq!(ids(state.before_newest(3)), [2]);
    assert_eq!(state.before_newest(4), None);
    assert_eq!(ids(state.lineage(PointId(4))), [4, 3, 2]);
    assert_eq!(ids(state.children(PointId(2))), [3]);
    assert_eq!(ids(state.children(PointId(6))), [0; 0]);
    let chains: Vec<_> = state.chains().map(|chain| (chain.id.0, ids(chain.points()))).collect();
    assert_eq!(chains, [(0, vec![2, 3, 4]), (1, vec![6])]);
    let positions: Vec<_> = state.points().iter().map(|point| point.position).collect();
    assert_eq!(positions, [0, 1, 2, 0]);
    assert!(state.chain(ChainId(2)).is_none());
}

#[test]
fn at_an_instant_is_the_newest_in_log_order_that_was_captured_by_then() {
    let at = |state: &SourceState, second: i64| {
        state.at(Instant::from_nanos(second * 1_000_000_000)).map(|point| point.id.0)
    };
    let mut state = two_chains();
    assert_eq!([99, 100, 299, 300, 5000].map(|t| at(&state, t)), [None, Some(2), Some(3), Some(4), Some(6)]);
    // The clock was set back: the newest in log order is older by its clock.
    tell(&mut state, say(commit(session(6, 9), 1, Some(6), 250))).unwrap();
    assert_eq!([249, 250, 299, 5000].map(|t| at(&state, t)), [Some(3), Some(7), Some(7), Some(7)]);
    assert_eq!(ids(state.newest()), [7]);
}

#[test]
fn a_label_names_the_newest_point_that_carries_it() {
    let mut state = two_chains();
    let labelled = |base, second, labels: &[&str]| Commit {
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..commit(session(base, 50), 1, Some(6), second)
    };
    tell(&mut state, say(labelled(6, 500, &["nightly", "before"]))).unwrap();
    tell(&mut state, say(labelled(7, 600, &["nightly"]))).unwrap();
    let labels: Vec<_> = state.labels().map(|(label, point)| (label, point.id.0)).collect();
    assert_eq!(labels, [("before", 7), ("nightly", 8)]);
    assert_eq!(ids(state.by_label("nightly")), [8]);
    assert_eq!(state.by_label("hourly"), None);
}

/// A change to a commit that would be fine, and what that makes of it.
type Case = (&'static str, fn(&mut Commit), fn(&Void) -> bool);

#[test]
fn every_rule_makes_its_breach_void_and_leaves_the_state_alone() {
    let cases: &[Case] = &[
        ("base at the entry itself", |c| c.session.base = LogNumber(7), |v| matches!(v, Void::BaseAhead(_))),
        ("session has committed", |c| c.session = session(3, 3), |v| matches!(v, Void::Spent { .. })),
        ("no such chain", |c| c.chain = ChainId(2), |v| matches!(v, Void::UnknownChain(_))),
        ("second full point", |c| c.parent = None, |v| matches!(v, Void::SecondFull(_))),
        ("no such parent", |c| c.parent = Some(PointId(1)), |v| matches!(v, Void::UnknownParent(_))),
        ("itself as parent", |c| c.parent = Some(PointId(7)), |v| matches!(v, Void::UnknownParent(_))),
        ("parent of another chain", |c| c.parent = Some(PointId(4)), |v| matches!(v, Void::ForeignParent { .. })),
        ("name taken", |c| c.name = "1970-01-01T00-05-00Z".into(), |v| matches!(v, Void::NameTaken(_))),
        ("name is a path", |c| c.name = "../../etc".into(), |v| matches!(v, Void::Name(_))),
        ("label is a path", |c| c.labels = vec!["ok".into(), "a/b".into()], |v| matches!(v, Void::Name(_))),
    ];
    for (what, change, expected) in cases {
        let mut state = two_chains();
        let before = state.snapshot();
        let mut changed = commit(session(6, 9), 1, Some(6), 900);
        change(&mut changed);
        let void = tell(&mut state, say(changed)).unwrap_err();
        assert!(expected(&void), "{what}: {void:?}");
        assert_eq!(state.snapshot(), before, "{what}");
        assert_eq!(state.tip().number, LogNumber(7), "{what}: the entry has been read all the same");
        tell(&mut state, say(commit(session(6, 9), 1, Some(6), 900))).unwrap();
    }
}

#[test]
fn a_chain_is_opened_in_turn_and_a_floor_stays_below_its_entry() {
    let mut state = two_chains();
    let late = tell(&mut state, SourceBody::OpenChain { chain: ChainId(3) });
    assert!(matches!(late, Err(Void::ChainOutOfTurn { .. })));
    let again = tell(&mut state, SourceBody::OpenChain { chain: ChainId(1) });
    assert!(matches!(again, Err(Void::ChainOutOfTurn { .. })));
    assert_eq!(tell(&mut state, SourceBody::Floor { floor: LogNumber(10) }), Err(Void::FloorAhead(LogNumber(10))));
    tell(&mut state, SourceBody::Floor { floor: LogNumber(10) }).unwrap();
    assert_eq!(state.floor(), LogNumber(10));
}

#[test]
fn fences_hold_for_what_stands_behind_them_and_the_floor_never_falls() {
    let mut state = two_chains();
    let (early, aborted, good) = (session(4, 20), session(6, 21), session(6, 22));
    tell(&mut state, SourceBody::Abort { session: aborted }).unwrap();
    // Had committed before: its point stays.
    tell(&mut state, SourceBody::Abort { session: session(4, 4) }).unwrap();
    tell(&mut state, SourceBody::Abort { session: aborted }).unwrap();
    tell(&mut state, SourceBody::Floor { floor: LogNumber(5) }).unwrap();
    tell(&mut state, SourceBody::Floor { floor: LogNumber(1) }).unwrap();
    assert_eq!((state.floor(), state.aborted()), (LogNumber(5), &[aborted][..]));
    let by = |who| say(commit(who, 1, Some(6), 900));
    assert!(matches!(tell(&mut state, by(early)), Err(Void::BelowFloor { .. })));
    assert!(matches!(tell(&mut state, by(aborted)), Err(Void::Aborted(_))));
    tell(&mut state, by(good)).unwrap();
    // Below the floor, an abort is not remembered: the floor says it already.
    tell(&mut state, SourceBody::Abort { session: early }).unwrap();
    tell(&mut state, SourceBody::Floor { floor: LogNumber(9) }).unwrap();
    assert_eq!(state.aborted(), []);
    assert_eq!(ids(state.points()), [2, 3, 4, 6, 14]);
}

#[test]
fn behind_a_seal_nothing_counts() {
    let mut state = two_chains();
    tell(&mut state, SourceBody::Seal).unwrap();
    let before = state.snapshot();
    for body in [
        SourceBody::OpenChain { chain: ChainId(2) },
        say(commit(session(7, 9), 1, Some(6), 900)),
        SourceBody::Abort { session: session(7, 9) },
        SourceBody::Floor { floor: LogNumber(3) },
        SourceBody::Seal,
    ] {
        assert_eq!(tell(&mut state, body), Err(Void::Sealed));
    }
    assert_eq!(state.snapshot(), before);
    assert_eq!(state.points().len(), 4);
}

#[test]
fn what_a_lost_entry_may_have_said_is_not_held_against_what_follows() {
    // Entry 1 (open chain 0), 2 (the full point) or both lost: points 3 and 4 stand.
    for lost in [&[1][..], &[2], &[1, 2]] {
        let mut state = SourceState::default();
        let whole = [
            SourceBody::OpenChain { chain: ChainId(0) },
            say(commit(session(0, 1), 0, None, 100)),
            say(commit(session(2, 2), 0, Some(2), 200)),
            say(commit(session(3, 3), 0, Some(3), 300)),
        ];
        for (number, body) in (1..).zip(whole) {
            if lost.contains(&number) {
                state.pass(LogNumber(number), Fault::Missing);
            } else {
                tell(&mut state, body).unwrap();
            }
        }
        let positions: Vec<_> = state.points().iter().rev().take(2).map(|point| (point.id.0, point.position)).collect();
        assert_eq!(positions, [(4, 2), (3, 1)], "{lost:?}");
        assert!(state.chain(ChainId(0)).is_some());
    }
}

#[test]
fn lost_entries_excuse_only_as_many_chains_as_they_can_have_opened() {
    let mut state = SourceState::default();
    state.pass(LogNumber(1), Fault::Missing);
    let far = tell(&mut state, say(commit(session(0, 1), u32::MAX, Some(1), 100)));
    assert!(matches!(far, Err(Void::UnknownChain(_))));
    assert_eq!(state.chains().count(), 0);
}

#[test]
fn a_checkpoint_that_no_fold_can_have_made_is_refused() {
    type Change = fn(&mut Checkpoint<SourceSnapshot>);
    let changes: &[(&str, Change)] = &[
        ("chains beyond entries", |c| c.state.chains = u32::MAX),
        ("a floor ahead", |c| c.state.floor = LogNumber(99)),
        ("points out of order", |c| c.state.points.swap(0, 1)),
        ("a point beyond the end", |c| c.number = LogNumber(5)),
        ("a name twice", |c| Arc::make_mut(&mut c.state.points[1].2).name = c.state.points[0].2.name.clone()),
        ("a session twice", |c| Arc::make_mut(&mut c.state.points[1].2).session = c.state.points[0].2.session),
        ("a parent ahead", |c| Arc::make_mut(&mut c.state.points[1].2).parent = Some(PointId(4))),
        ("a hostile name", |c| Arc::make_mut(&mut c.state.points[1].2).name = "..".into()),
        ("aborted below the floor", |c| {
            c.state.floor = LogNumber(4);
            c.state.aborted = vec![session(3, 1)];
        }),
        ("aborted out of order", |c| c.state.aborted = vec![session(3, 1), session(2, 1)]),
        ("a deletion of no point", |c| c.state.trash = vec![deletion(5, 6)]),
        ("a deletion ahead", |c| c.state.trash = vec![deletion(3, 7)]),
        ("deletions out of order", |c| c.state.trash = vec![deletion(4, 6), deletion(3, 6)]),
        ("a head ahead", |c| c.state.head = Some(PointId(7))),
    ];
    let checkpoint = Checkpoint { number: LogNumber(6), hash: hash(6), state: two_chains().snapshot() };
    assert!(SourceState::restore(&checkpoint).is_ok());
    for (what, change) in changes {
        let mut changed = checkpoint.clone();
        change(&mut changed);
        assert!(SourceState::restore(&changed).is_err(), "{what}");
    }
}

fn deletion(point: u64, entry: u64) -> Deletion {
    Deletion { point: PointId(point), entry: LogNumber(entry), written: Instant::from_nanos(0) }
}

fn delete(points: &[u64]) -> SourceBody {
    SourceBody::Delete { points: points.iter().copied().map(PointId).collect() }
}

/// Chain 0: 2 (full), 3 on 2, 4 on 3, 5 on 3 as a branch; chain 1: 7 (full).
fn a_branch() -> SourceState {
    let mut state = SourceState::default();
    tell(&mut state, SourceBody::OpenChain { chain: ChainId(0) }).unwrap();
    tell(&mut state, say(commit(session(0, 1), 0, None, 100))).unwrap();
    tell(&mut state, say(commit(session(2, 2), 0, Some(2), 200))).unwrap();
    tell(&mut state, say(commit(session(3, 3), 0, Some(3), 300))).unwrap();
    tell(&mut state, say(Commit { labels: vec!["l".into()], ..commit(session(4, 4), 0, Some(3), 400) })).unwrap();
    tell(&mut state, SourceBody::OpenChain { chain: ChainId(1) }).unwrap();
    tell(&mut state, say(Commit { labels: vec!["l".into()], ..commit(session(5, 5), 1, None, 500) })).unwrap();
    state
}

#[test]
fn what_is_deleted_is_out_of_sight_and_comes_back_as_it_was() {
    let mut state = a_branch();
    let before = state.clone();
    tell(&mut state, delete(&[3, 7])).unwrap();
    assert_eq!(ids(state.points()), [2, 4, 5]);
    assert_eq!(ids(state.committed()), [2, 3, 4, 5, 7]);
    assert_eq!(ids(state.trash().map(|(point, _)| point)), [3, 7]);
    assert_eq!((state.point(PointId(3)), state.by_name("1970-01-01T00-03-20Z")), (None, None));
    assert_eq!(ids(state.ever_by_name("1970-01-01T00-03-20Z")), [3]);
    assert_eq!((ids(state.newest()), ids(state.by_label("l"))), (vec![5], vec![5]));
    assert_eq!(ids(state.at(Instant::from_nanos(250_000_000_000))), [2]);
    // Descendants count as children of the nearest ancestor that stays.
    assert_eq!(ids(state.lineage(PointId(4))), [4, 2]);
    assert_eq!(ids(state.children(PointId(2))), [4, 5]);
    assert_eq!(ids(state.chain(ChainId(0)).unwrap().points()), [2, 4, 5]);
    assert!(state.chain(ChainId(1)).unwrap().is_empty());
    // A name, a session and a chain's full point stay taken.
    let taken = commit(session(8, 9), 0, Some(5), 200);
    assert!(matches!(tell(&mut state, say(taken)), Err(Void::NameTaken(_))));
    assert!(matches!(tell(&mut state, say(commit(session(2, 2), 0, Some(5), 900))), Err(Void::Spent { .. })));
    assert!(matches!(tell(&mut state, say(commit(session(8, 8), 1, None, 900))), Err(Void::SecondFull(_))));
    tell(&mut state, SourceBody::Undelete { points: vec![PointId(3), PointId(7)] }).unwrap();
    assert_eq!(ids(state.points()), ids(before.points()));
    assert_eq!((ids(state.newest()), ids(state.by_label("l"))), (vec![7], vec![7]));
    assert_eq!(state.trash().count(), 0);
    for (wrong, void) in [
        (delete(&[6]), Void::UnknownPoint(PointId(6))),
        (delete(&[]), Void::PointsOutOfOrder),
        (delete(&[4, 3]), Void::PointsOutOfOrder),
        (SourceBody::Undelete { points: vec![PointId(1)] }, Void::UnknownPoint(PointId(1))),
        (SourceBody::Head { point: PointId(1) }, Void::UnknownPoint(PointId(1))),
    ] {
        assert_eq!(tell(&mut state, wrong), Err(void));
    }
}

#[test]
fn a_writer_says_what_becomes_of_dependents() {
    let state = a_branch();
    let propose = |points: &[u64], dependents| {
        state.propose(&SourceGoal::Delete(points.iter().copied().map(PointId).collect(), dependents))
    };
    for (points, below) in [(&[2][..], &[3, 4, 5][..]), (&[3], &[4, 5]), (&[3, 4], &[5])] {
        let Err(Refusal::Dependents { dependents, .. }) = propose(points, Dependents::Refuse) else { panic!() };
        assert_eq!(dependents.iter().map(|point| point.0).collect::<Vec<_>>(), below);
        let mut all = [points, below].concat();
        all.sort_unstable();
        assert_eq!(propose(points, Dependents::Cascade), Ok(Proposal::Write(delete(&all))));
        assert_eq!(propose(points, Dependents::Keep), Ok(Proposal::Write(delete(points))));
    }
    assert_eq!(propose(&[7, 4, 4], Dependents::Refuse), Ok(Proposal::Write(delete(&[4, 7]))));
    assert_eq!(propose(&[9], Dependents::Keep), Err(Void::UnknownPoint(PointId(9)).into()));
    // What descends through the trash is met all the same.
    let mut state = state;
    tell(&mut state, delete(&[3])).unwrap();
    let goal = SourceGoal::Delete(vec![PointId(2)], Dependents::Cascade);
    assert_eq!(state.propose(&goal), Ok(Proposal::Write(delete(&[2, 4, 5]))));
    assert_eq!(state.propose(&SourceGoal::Delete(vec![PointId(3)], Dependents::Keep)), Ok(Proposal::Holds));
    assert_eq!(state.propose(&SourceGoal::Undelete(vec![PointId(4)])), Ok(Proposal::Holds));
}

#[test]
fn the_head_is_the_last_commit_or_what_was_made_the_head_since() {
    let mut state = a_branch();
    assert_eq!(ids(state.head()), [7]);
    tell(&mut state, SourceBody::Head { point: PointId(4) }).unwrap();
    assert_eq!((ids(state.head()), ids(state.newest())), (vec![4], vec![7]));
    assert_eq!(state.propose(&SourceGoal::Head(PointId(4))), Ok(Proposal::Holds));
    // Deleted, its nearest ancestor stands in for it, as long as there is one.
    tell(&mut state, delete(&[3, 4])).unwrap();
    assert_eq!(ids(state.head()), [2]);
    assert_eq!(tell(&mut state, SourceBody::Head { point: PointId(4) }), Err(Void::HeadInTrash(PointId(4))));
    tell(&mut state, delete(&[2])).unwrap();
    assert_eq!(state.head(), None);
    tell(&mut state, SourceBody::Undelete { points: vec![PointId(3)] }).unwrap();
    assert_eq!(ids(state.head()), [3]);
    let number = tell(&mut state, say(commit(session(9, 9), 0, Some(3), 900))).unwrap();
    assert_eq!(ids(state.head()), [number]);
}

/// Any body, with small numbers so that references hit.
fn any_body() -> impl Strategy<Value = SourceBody> {
    let session = || {
        (0u64..12, 0u8..4).prop_map(|(base, random)| SessionId { base: LogNumber(base), random: Nonce([random; 16]) })
    };
    prop_oneof![
        3 => (0u32..4).prop_map(|chain| SourceBody::OpenChain { chain: ChainId(chain) }),
        8 => (session(), 0u32..3, proptest::option::of(1u64..12), 0i64..4, any::<bool>()).prop_map(
            |(session, chain, parent, second, labelled)| {
                let mut commit = commit(session, chain, parent, second);
                commit.labels = if labelled { vec!["nightly".into()] } else { Vec::new() };
                SourceBody::Commit(Arc::new(commit))
            }
        ),
        2 => session().prop_map(|session| SourceBody::Abort { session }),
        1 => (0u64..12).prop_map(|floor| SourceBody::Floor { floor: LogNumber(floor) }),
        1 => Just(SourceBody::Seal),
        3 => proptest::collection::vec((1u64..12).prop_map(PointId), 1..4).prop_map(|points| SourceBody::Delete { points }),
        2 => proptest::collection::vec((1u64..12).prop_map(PointId), 1..3).prop_map(|points| SourceBody::Undelete { points }),
        2 => (1u64..12).prop_map(|point| SourceBody::Head { point: PointId(point) }),
    ]
}

proptest! {
    /// A reader that starts from a checkpoint anywhere comes to the same as one that reads all entries.
    #[test]
    fn a_checkpoint_and_the_rest_is_the_same_as_all(bodies in proptest::collection::vec(any_body(), 1..24), cut in 0usize..24) {
        let mut whole = SourceState::default();
        let mut resumed = None;
        for (at, body) in bodies.iter().enumerate() {
            if at == cut {
                let checkpoint = Checkpoint {
                    number: whole.tip().number,
                    hash: whole.tip().hash.unwrap(),
                    state: whole.snapshot(),
                };
                resumed = Some(SourceState::restore(&checkpoint).unwrap());
                prop_assert_eq!(resumed.as_ref().unwrap().snapshot(), whole.snapshot());
            }
            let before = whole.tip().clone();
            let told = entry(before.next().0, before.hash.unwrap(), body.clone());
            let counts = whole.apply(&told, hash(told.number.0));
            if let Some(resumed) = &mut resumed {
                prop_assert_eq!(&counts, &resumed.apply(&told, hash(told.number.0)));
            }
        }
        if let Some(resumed) = resumed.filter(|resumed| resumed.tip().seen) {
            prop_assert_eq!(resumed, whole);
        }
    }
}
