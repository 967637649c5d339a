use super::*;
use crate::chain::state::Fault;
use crate::chain::testing::{hash, origin, tell};
use crate::format::LogNumber;

fn add(name: &str) -> RepoBody {
    RepoBody::AddSource { name: name.into(), kind: SourceKind::Tree, origin: origin("ash", "/home") }
}

#[test]
fn a_name_belongs_to_one_source_until_that_is_removed() {
    let mut state = RepoState::default();
    tell(&mut state, add("home")).unwrap();
    assert_eq!(tell(&mut state, add("home")), Err(Void::SourceTaken("home".into())));
    assert!(matches!(tell(&mut state, add("../x")), Err(Void::Name(_))));
    let moved = origin("oak", "/srv");
    tell(&mut state, RepoBody::MoveSource { source: SourceId(1), origin: moved.clone() }).unwrap();
    assert_eq!(state.by_name("home").map(|record| &record.origin), Some(&moved));
    tell(&mut state, RepoBody::RemoveSource { source: SourceId(1) }).unwrap();
    let gone = RepoBody::RemoveSource { source: SourceId(1) };
    assert_eq!(tell(&mut state, gone), Err(Void::NoSource(SourceId(1))));
    tell(&mut state, add("home")).unwrap();
    assert_eq!(state.by_name("home").map(|record| record.id), Some(SourceId(7)));
    assert_eq!(state.by_id(SourceId(1)).map(|record| record.removed), Some(true));
    assert_eq!(state.sources().count(), 1);

    let checkpoint = Checkpoint { number: state.tip().number, hash: hash(7), state: state.snapshot() };
    assert_eq!(RepoState::restore(&checkpoint).unwrap().records(), state.records());
    for change in [
        |records: &mut Vec<SourceRecord>| records.reverse(),
        |records: &mut Vec<SourceRecord>| records[0].removed = false,
        |records: &mut Vec<SourceRecord>| records[1].id = SourceId(8),
        |records: &mut Vec<SourceRecord>| records[1].name = "a/b".into(),
    ] {
        let mut changed = checkpoint.clone();
        change(&mut changed.state.sources);
        assert!(RepoState::restore(&changed).is_err());
    }
}

#[test]
fn a_source_is_not_hidden_because_the_removal_of_an_older_one_is_lost() {
    let mut state = RepoState::default();
    tell(&mut state, add("home")).unwrap();
    state.pass(LogNumber(2), Fault::Missing);
    tell(&mut state, add("home")).unwrap();
    assert_eq!(state.by_name("home").map(|record| record.id), Some(SourceId(3)));
}
