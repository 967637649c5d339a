//! What the control file accepts and refuses.

use super::*;

/// A job that runs until it is ended.
const ENDLESS: &str = "echo $* >> $STAGE/runs\nexec sleep 600\n";

fn end_all(desk: &Desk) {
    let cancels: String = desk.jobs().iter().map(|job| format!("cancel {job}\n")).collect();
    submit(desk, &cancels).unwrap();
    eventually("all jobs have ended", || desk.jobs().iter().all(|job| state(desk, &job.0) == "cancelled"));
}

#[test]
fn a_refusal_says_what_is_wrong_and_what_would_be_right() {
    let stage = Stage::new(ENDLESS);
    let desk = stage.desk();
    let (reason, message) = submit(&desk, "capture hom").unwrap_err();
    assert_eq!(reason, Reason::NoSuch);
    assert_eq!(message, "line 1: no source \"hom\" in the configuration; did you mean \"home\"?");
    let (reason, message) = submit(&desk, "capture database").unwrap_err();
    assert_eq!(reason, Reason::NoSuch);
    assert!(message.contains("amberfs source add database PATH"), "{message}");
    assert_eq!(refused(&desk, "capture home\nnonsense"), Reason::Syntax);
    assert_eq!(refused(&desk, &"x".repeat(4096)), Reason::TooLong);
    assert_eq!(refused(&desk, &"#\n".repeat(40_000)), Reason::TooLong);
    assert_eq!(refused(&desk, "cancel nobody"), Reason::NoSuch);
    *stage.site.trouble.lock() = Some("the configuration can be written by others".to_owned());
    let (reason, message) = submit(&desk, "capture home").unwrap_err();
    assert_eq!((reason, message.as_str()), (Reason::Io, "the configuration can be written by others"));
    assert_eq!(desk.jobs(), []);
    assert_eq!(stage.runs(), [""; 0]);
    assert_eq!(submit(&desk, "# nothing\n").unwrap(), "ok nothing to do\n");
}

#[test]
fn only_the_owner_and_root_may_and_each_reads_their_own_reply() {
    let stage = Stage::new(ENDLESS);
    let desk = stage.desk();
    let refusal = desk.submit(STRANGER, b"capture home").unwrap_err();
    assert_eq!(refusal.reason, Reason::Access);
    assert!(!desk.permits(STRANGER) && desk.permits(OWNER) && desk.permits(ROOT));
    assert_eq!(desk.reply(STRANGER), b"");
    desk.submit(ROOT, b"capture home job=r").unwrap();
    submit(&desk, "capture etc job=o").unwrap();
    assert_eq!(desk.reply(ROOT), b"ok capture home job=r\n");
    assert_eq!(desk.reply(OWNER), b"ok capture etc job=o\n");
    end_all(&desk);
}

#[test]
fn a_batch_is_accepted_whole_or_not_at_all() {
    let stage = Stage::new(ENDLESS);
    let desk = stage.desk();
    assert_eq!(refused(&desk, "capture home job=a\ncapture etc job=b\ncapture nowhere"), Reason::NoSuch);
    assert_eq!(refused(&desk, "capture home job=a\ncapture home job=b"), Reason::Busy);
    assert_eq!(refused(&desk, "capture home job=a\ncapture etc job=a"), Reason::Taken);
    assert_eq!(desk.jobs(), []);
    let reply = submit(&desk, "capture home job=a\n\n# and\ncapture etc job=b\ncapture home job=a").unwrap();
    assert_eq!(reply, "ok capture home job=a\nok capture etc job=b\nok capture home job=a (known already: queued)\n");
    assert_eq!(desk.jobs(), [id("a"), id("b")]);
    end_all(&desk);
}

#[test]
fn repeating_a_command_with_its_id_is_harmless() {
    let stage = Stage::new(&format!("echo $* >> $STAGE/runs\n{}\n", summary(0)));
    let desk = stage.desk();
    submit(&desk, "capture home label=x job=n-1").unwrap();
    await_state(&desk, "n-1", "committed");
    let reply = submit(&desk, "capture home job=n-1 label=x").unwrap();
    assert_eq!(reply, "ok capture home label=x job=n-1 (known already: committed)\n");
    let (reason, message) = submit(&desk, "capture home job=n-1").unwrap_err();
    assert_eq!(reason, Reason::Taken);
    assert_eq!(message, "line 1: job n-1 stands for `capture home label=x`; choose another id");
    drop(desk);
    let desk = stage.desk();
    submit(&desk, "capture home label=x job=n-1").unwrap();
    assert_eq!(stage.runs(), ["capture --json --label=x --job n-1 -- home"]);
}

#[test]
fn one_capture_of_a_source_at_a_time() {
    let stage = Stage::new(ENDLESS);
    let desk = stage.desk();
    submit(&desk, "capture home job=a").unwrap();
    let (reason, message) = submit(&desk, "capture home full=yes job=b").unwrap_err();
    assert_eq!(reason, Reason::Busy);
    assert_eq!(message, "line 1: job a (`capture home`) is under way; await or cancel it");
    submit(&desk, "verify home job=v").unwrap();
    submit(&desk, "capture etc job=c").unwrap();
    end_all(&desk);
    submit(&desk, "capture home job=b").unwrap();
    end_all(&desk);
}

#[test]
fn a_desk_invents_ids_that_are_file_names_and_sort_by_time() {
    let stage = Stage::new(ENDLESS);
    let desk = stage.desk();
    submit(&desk, "capture home\ncapture etc").unwrap();
    let jobs = desk.jobs();
    assert_eq!(jobs.len(), 2);
    for job in &jobs {
        amberfs::job::request::check_job(&job.0).unwrap();
        assert!(job.0.starts_with("20") && job.0.contains("Z-") && job.0.len() == 29, "{job}");
    }
    end_all(&desk);
}

#[test]
fn too_many_waiting_jobs_are_refused() {
    let stage = Stage::new(ENDLESS);
    let mut options = stage.options();
    options.at_once = 1;
    let desk = stage.desk_with(options);
    submit(&desk, "capture home job=a").unwrap();
    await_state(&desk, "a", "quiescing");
    let captures = |range: std::ops::Range<usize>| range.map(|n| format!("capture s{n}\n")).collect::<String>();
    assert_eq!(refused(&desk, &captures(0..257)), Reason::QueueFull);
    submit(&desk, &captures(0..256)).unwrap();
    let (reason, message) = submit(&desk, "capture etc").unwrap_err();
    assert_eq!((reason, message.as_str()), (Reason::QueueFull, "line 1: 256 jobs wait already; try again later"));
    end_all(&desk);
}

#[test]
fn a_read_only_repository_is_verified_and_not_captured_into() {
    let stage = Stage::new(ENDLESS);
    let desk = stage.desk();
    *stage.site.read_only.lock() = Some("/r: read-only file system".to_owned());
    assert_eq!(refused(&desk, "capture home"), Reason::ReadOnly);
    assert!(page(&desk, DeskFile::Status).contains("\"read_only\":true"));
    submit(&desk, "verify home").unwrap();
    *stage.site.read_only.lock() = None;
    submit(&desk, "capture home").unwrap();
    end_all(&desk);
}

#[test]
fn many_writers_at_once_get_one_job_between_them() {
    let stage = Stage::new(ENDLESS);
    let desk = stage.desk();
    let accepted = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..16)
            .map(|n| {
                let desk = &desk;
                scope.spawn(move || desk.submit(OWNER, format!("capture home job=w{n}").as_bytes()))
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).filter(Result::is_ok).count()
    });
    assert_eq!(accepted, 1);
    assert_eq!(desk.jobs().len(), 1);
    end_all(&desk);
}

#[test]
fn files_have_a_number_that_changes_with_their_bytes_and_only_then() {
    let stage = Stage::new(ENDLESS);
    let desk = stage.desk();
    for file in [DeskFile::Help, DeskFile::Status, DeskFile::Events, DeskFile::Metrics, DeskFile::Errors] {
        assert_eq!(desk.file(file), desk.file(file), "{file:?}");
    }
    let before = desk.file(DeskFile::Errors);
    desk.fault(7, "frame 3 of pack x is gone (home/points/y/a)");
    let after = desk.file(DeskFile::Errors);
    assert!(after.version > before.version);
    assert!(page(&desk, DeskFile::Errors).contains("frame 3 of pack x is gone"));
    submit(&desk, "capture home job=a").unwrap();
    await_state(&desk, "a", "quiescing");
    let metrics = page(&desk, DeskFile::Metrics);
    for line in ["amberfs_jobs_quiescing 1", "amberfs_faults_total 1", "amberfs_store_gets_total 7"] {
        assert!(metrics.lines().any(|l| l == line), "{line} in {metrics}");
    }
    let status: serde_json::Value = serde_json::from_str(&page(&desk, DeskFile::Status)).unwrap();
    assert_eq!(status["jobs"]["quiescing"], 1);
    assert_eq!(status["under_way"][0]["job"], "a");
    assert!(desk.job_file(&id("nobody"), JobFile::State).is_none());
    assert_eq!(text(&desk, "a", JobFile::Result), "");
    end_all(&desk);
}

#[test]
fn a_deletion_is_judged_before_it_is_accepted_and_a_repeat_is_not_judged_again() {
    let deleted = r#"echo '{"message_type":"deleted","source":"home","points":["p","q"],"ids":[3,4]}'"#;
    let stage = Stage::new(&format!("echo $* >> $STAGE/runs\n{deleted}\n"));
    let desk = stage.desk();
    *stage.site.judgement.lock() = Some((Reason::Dependents, "2 points depend on it".to_owned()));
    let (reason, message) = submit(&desk, "capture etc job=c\ndelete home point=#3 job=d").unwrap_err();
    assert_eq!((reason, message.as_str()), (Reason::Dependents, "line 2: 2 points depend on it"));
    assert_eq!(refused(&desk, "delete nowhere point=#3"), Reason::NoSuch);
    assert_eq!(desk.jobs(), []);
    *stage.site.judgement.lock() = None;
    assert_eq!(refused(&desk, "delete home point=#3 job=d\nundelete home point=#3"), Reason::Busy);
    submit(&desk, "delete home point=#3 cascade=yes job=d").unwrap();
    await_state(&desk, "d", "deleted");
    assert_eq!(text(&desk, "d", JobFile::Result), "p\nq");
    assert!(text(&desk, "d", JobFile::Log).contains("deleted from home: p, q"));
    assert_eq!(*stage.site.refreshed.lock(), ["home"], "the mount looks at the log again");
    *stage.site.judgement.lock() = Some((Reason::NoSuch, "it is deleted".to_owned()));
    let reply = submit(&desk, "delete home point=#3 cascade=yes job=d").unwrap();
    assert!(reply.ends_with("job=d (known already: deleted)\n"), "{reply}");
    assert_eq!(stage.runs(), ["delete --json --yes --cascade -- home#3"]);
    *stage.site.read_only.lock() = Some("it is".to_owned());
    assert_eq!(refused(&desk, "undelete home point=#3"), Reason::ReadOnly);
}
