//! Mounts that end while jobs are in hand, and several mounts at once.

use super::*;

fn waits(rest: &str) -> String {
    format!("echo $* >> $STAGE/runs\n{}\nread x < $STAGE/gate\n{rest}\n", progress("captured"))
}

#[test]
fn a_capture_outlives_its_mount_and_the_next_one_finds_its_point() {
    let stage = Stage::new(&waits("echo done > $STAGE/done"));
    let gate = stage.gate("gate");
    let desk = stage.desk();
    submit(&desk, "capture home job=n").unwrap();
    await_state(&desk, "n", "captured");
    drop(desk);
    let desk = stage.desk();
    assert_eq!(state(&desk, "n"), "captured");
    assert_eq!(refused(&desk, "capture home"), Reason::Busy);
    stage.site.points.lock().insert("n".into(), Testimony { point: "p".into(), problems: 2 });
    gate.open();
    await_state(&desk, "n", "partial");
    assert_eq!(text(&desk, "n", JobFile::Result), "p");
    assert!(stage.path("done").exists());
    assert_eq!(stage.runs().len(), 1);
}

#[test]
fn a_capture_that_left_no_point_was_interrupted() {
    let stage = Stage::new(&waits("exit 1"));
    let gate = stage.gate("gate");
    let desk = stage.desk();
    submit(&desk, "capture home job=n").unwrap();
    await_state(&desk, "n", "captured");
    drop(desk);
    gate.open();
    let desk = stage.desk();
    await_state(&desk, "n", "failed");
    assert!(text(&desk, "n", JobFile::Error).starts_with("interrupted"), "{}", text(&desk, "n", JobFile::Error));
    submit(&desk, "capture home job=m").unwrap();
    await_state(&desk, "m", "captured");
    gate.open();
    await_state(&desk, "m", "failed");
}

#[test]
fn an_orphan_is_cancelled_and_timed_out_like_any_other() {
    let stage = Stage::new(&waits(""));
    let _gate = stage.gate("gate");
    let desk = stage.desk();
    submit(&desk, "capture home job=n\ncapture etc timeout=1s job=t").unwrap();
    await_state(&desk, "n", "captured");
    await_state(&desk, "t", "captured");
    drop(desk);
    let desk = stage.desk();
    submit(&desk, "cancel n").unwrap();
    await_state(&desk, "n", "cancelled");
    await_state(&desk, "t", "timed-out");
}

#[test]
fn a_job_that_waited_is_started_by_the_next_mount() {
    let stage = Stage::new(&waits(&summary(0)));
    let gate = stage.gate("gate");
    let mut options = stage.options();
    options.at_once = 1;
    let desk = stage.desk_with(options.clone());
    submit(&desk, "capture home job=a\ncapture etc job=b").unwrap();
    await_state(&desk, "a", "captured");
    drop(desk);
    let desk = stage.desk_with(options);
    assert_eq!((state(&desk, "a"), state(&desk, "b")), ("captured".into(), "queued".into()));
    stage.site.points.lock().insert("a".into(), Testimony { point: "p".into(), problems: 0 });
    gate.open();
    await_state(&desk, "a", "committed");
    await_state(&desk, "b", "captured");
    gate.open();
    await_state(&desk, "b", "committed");
    assert_eq!(stage.runs().len(), 2);
}

#[test]
fn two_mounts_share_jobs_conflicts_and_cancelling() {
    let stage = Stage::new(&waits(&summary(0)));
    let gate = stage.gate("gate");
    let one = stage.desk();
    let two = stage.desk();
    submit(&one, "capture home job=a").unwrap();
    assert_eq!(refused(&two, "capture home"), Reason::Busy);
    assert_eq!(refused(&two, "capture etc job=a"), Reason::Taken);
    submit(&two, "capture home job=a").unwrap();
    submit(&two, "capture etc job=b").unwrap();
    await_state(&two, "a", "captured");
    await_state(&one, "b", "captured");
    // The process belongs to the other mount, which ends it.
    submit(&two, "cancel a").unwrap();
    await_state(&one, "a", "cancelled");
    await_state(&two, "a", "cancelled");
    // A mount that stays takes over from one that ends.
    drop(two);
    stage.site.points.lock().insert("b".into(), Testimony { point: "p".into(), problems: 0 });
    gate.open();
    await_state(&one, "b", "committed");
    assert_eq!(stage.runs().len(), 2);
}

#[test]
fn what_jobs_left_is_shown_after_a_remount() {
    let stage = Stage::new(&format!("{}\necho 'a line'\n{}\n", progress("uploading"), summary(0)));
    let desk = stage.desk();
    submit(&desk, "capture home job=n").unwrap();
    await_state(&desk, "n", "committed");
    let files = [JobFile::State, JobFile::Progress, JobFile::Log, JobFile::Result, JobFile::Error];
    let before = files.map(|file| text(&desk, "n", file));
    assert!(before[2].contains("a line"));
    drop(desk);
    let desk = stage.desk();
    assert_eq!(files.map(|file| text(&desk, "n", file)), before);
    // What is history is no event.
    assert_eq!(page(&desk, DeskFile::Events).lines().count(), 1);
    let listed = amberfs::job::list(&stage.path("state"), RepoId([5; 16])).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].ending.as_ref().unwrap().result.as_deref(), Some("2026-11-20T12-00-00Z"));
}

#[test]
fn a_killed_desk_leaves_its_lock_free_and_its_presence_is_cleared() {
    let stage = Stage::new("exit 0");
    drop(stage.desk());
    drop(stage.desk());
    let _desk = stage.desk();
    assert_eq!(entries(&stage.path("state").join("05050505050505050505050505050505/desks")), 1);
}
