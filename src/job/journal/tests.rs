use super::*;
use crate::job::record::{Accepted, Ending};
use crate::job::request::Request;
use crate::job::state::State;

fn batch(jobs: &[&str]) -> Entry {
    let request = Request::Verify { source: None, read_data: false, timeout_seconds: None };
    let accepted = jobs
        .iter()
        .map(|job| Accepted { job: JobId((*job).into()), desk: "d".into(), request: request.clone() })
        .collect();
    Entry::Batch { at: 1, uid: 0, accepted, cancelled: vec![] }
}

fn ids(table: &Table) -> Vec<String> {
    table.all().map(|record| record.job.0.clone()).collect()
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    journal.locked().unwrap().append(batch(&["a", "b"])).unwrap();
    assert_eq!(ids(journal.table()), ["a", "b"]);
    drop(journal);
    assert_eq!(ids(Journal::open(dir.path()).unwrap().table()), ["a", "b"]);
    let mode = std::fs::metadata(dir.path().join("journal")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn two_mounts_append_to_one_journal_and_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Journal::open(dir.path()).unwrap();
    let mut two = Journal::open(dir.path()).unwrap();
    one.locked().unwrap().append(batch(&["a"])).unwrap();
    two.locked().unwrap().append(batch(&["b"])).unwrap();
    assert!(one.refresh().unwrap());
    assert!(!one.refresh().unwrap());
    one.locked().unwrap().append(batch(&["c"])).unwrap();
    two.refresh().unwrap();
    for journal in [&one, &two] {
        assert_eq!(ids(journal.table()), ["a", "b", "c"]);
        assert_eq!(journal.damaged(), 0);
    }
}

#[test]
fn a_crash_anywhere_in_the_last_line_loses_that_line_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    journal.locked().unwrap().append(batch(&["a"])).unwrap();
    let before = journal.read_to as usize;
    journal.locked().unwrap().append(batch(&["b", "c"])).unwrap();
    drop(journal);
    let path = dir.path().join("journal");
    let whole = std::fs::read(&path).unwrap();
    for length in before..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        assert_eq!(ids(journal.table()), ["a"], "cut at {length}");
        journal.locked().unwrap().append(batch(&["d"])).unwrap();
        assert_eq!(journal.damaged(), 0);
        drop(journal);
        assert_eq!(ids(Journal::open(dir.path()).unwrap().table()), ["a", "d"], "cut at {length}");
    }
}

#[test]
fn a_reader_without_the_lock_takes_whole_lines_and_leaves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let mut line = Vec::new();
    encode(&batch(&["a"]), &mut line);
    let path = dir.path().join("journal");
    let append = |bytes: &[u8]| OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
    append(&line[..10]);
    assert!(!journal.refresh().unwrap());
    append(&line[10..]);
    assert!(journal.refresh().unwrap());
    assert_eq!(ids(journal.table()), ["a"]);
}

#[test]
fn a_damaged_line_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let at = journal.read_to as usize;
    for job in ["a", "b"] {
        journal.locked().unwrap().append(batch(&[job])).unwrap();
    }
    drop(journal);
    let path = dir.path().join("journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at + 30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!((ids(journal.table()), journal.damaged()), (vec!["b".to_owned()], 1));
}

#[test]
fn a_file_that_is_no_journal_and_one_of_a_newer_version_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    std::fs::write(&path, "hello\n").unwrap();
    assert!(matches!(Journal::open(dir.path()), Err(JobError::Foreign { .. })));
    let mut bytes = Vec::new();
    encode(&Entry::Journal { version: VERSION + 1 }, &mut bytes);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(Journal::open(dir.path()), Err(JobError::Newer { .. })));
}

#[test]
fn a_full_disk_accepts_nothing_and_damages_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    journal.locked().unwrap().append(batch(&["a"])).unwrap();
    let length = journal.read_to;
    // /dev/full: every write fails with ENOSPC, as on a full disk.
    let real =
        std::mem::replace(&mut journal.file, OpenOptions::new().read(true).write(true).open("/dev/full").unwrap());
    let error = journal.append(&[batch(&["b"])], true).unwrap_err();
    assert_eq!(error.reason(), crate::job::control::Reason::NoSpace, "{error}");
    assert_eq!(ids(journal.table()), ["a"]);
    journal.file = real;
    journal.locked().unwrap().append(batch(&["c"])).unwrap();
    assert!(journal.read_to > length);
    drop(journal);
    assert_eq!(ids(Journal::open(dir.path()).unwrap().table()), ["a", "c"]);
}

#[test]
fn a_journal_that_grew_is_rewritten_and_the_other_mount_follows() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Journal::open(dir.path()).unwrap();
    let mut two = Journal::open(dir.path()).unwrap();
    let log = "x".repeat(limits::JOB_LOG_KEPT_BYTES);
    one.locked().unwrap().append(batch(&["open"])).unwrap();
    for n in 0..300 {
        let job = format!("j{n}");
        let ending =
            Ending { at: 2, state: State::Failed, result: None, error: None, log: log.clone(), progress: None };
        let mut locked = one.locked().unwrap();
        locked.note(batch(&[&job])).unwrap();
        locked.note(Entry::Ended { job: JobId(job), ending }).unwrap();
    }
    two.refresh().unwrap();
    let before = (ids(one.table()), one.read_to);
    assert!(before.1 > limits::JOURNAL_BYTES_MIN);
    one.locked().unwrap().tidy().unwrap();
    assert_eq!(ids(one.table()), before.0);
    two.locked().unwrap().append(batch(&["late"])).unwrap();
    one.refresh().unwrap();
    assert_eq!(one.table(), two.table());
    assert_eq!(one.table().all().count(), 302);
    // A second tidy does nothing until it has doubled.
    let length = one.read_to;
    one.locked().unwrap().tidy().unwrap();
    assert_eq!(one.read_to, length);
}

#[test]
fn the_list_needs_no_mount_and_no_journal() {
    let dir = tempfile::tempdir().unwrap();
    let repo = RepoId([7; 16]);
    assert_eq!(list(dir.path(), repo).unwrap(), []);
    let mut journal = Journal::open(&directory(dir.path(), repo)).unwrap();
    journal.locked().unwrap().append(batch(&["a"])).unwrap();
    let jobs = list(dir.path(), repo).unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].state, State::Queued);
}

#[test]
fn an_entry_that_was_taken_back_is_forgotten_by_those_who_saw_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Journal::open(dir.path()).unwrap();
    let mut two = Journal::open(dir.path()).unwrap();
    one.locked().unwrap().append(batch(&["a"])).unwrap();
    let end = one.read_to;
    one.locked().unwrap().append(batch(&["b"])).unwrap();
    two.refresh().unwrap();
    one.cut(end).unwrap();
    assert!(two.refresh().unwrap());
    assert_eq!(ids(two.table()), ["a"]);
}

#[test]
fn what_became_of_a_job_is_unknown_once_neither_its_process_nor_its_desk_is_there() {
    let state_dir = tempfile::tempdir().unwrap();
    let repo = RepoId([5; 16]);
    let dir = directory(state_dir.path(), repo);
    std::fs::create_dir_all(dir.join("running")).unwrap();
    let mut journal = Journal::open(&dir).unwrap();
    journal.locked().unwrap().append(batch(&["waits", "begun"])).unwrap();
    journal.locked().unwrap().append(Entry::Started { job: JobId("begun".into()), at: 2 }).unwrap();
    let unjudged = || -> Vec<String> {
        let records = list(state_dir.path(), repo).unwrap();
        let unjudged = records.iter().filter(|record| is_unjudged(state_dir.path(), repo, record));
        unjudged.map(|record| record.job.0.clone()).collect()
    };
    assert_eq!(unjudged(), ["begun"]);
    let process = File::create(dir.join("running/begun")).unwrap();
    process.lock().unwrap();
    assert_eq!(unjudged(), [""; 0]);
    drop(process);
    std::fs::create_dir_all(dir.join("desks")).unwrap();
    let desk = File::create(dir.join("desks/d")).unwrap();
    desk.lock().unwrap();
    assert_eq!(unjudged(), [""; 0]);
    drop(desk);
    assert_eq!(unjudged(), ["begun"]);
}
