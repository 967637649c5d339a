//! What becomes of a job's process, and what its folder shows meanwhile.

use super::*;

#[test]
fn a_capture_is_followed_from_step_to_step() {
    let stage = Stage::new(&format!(
        "read x < $STAGE/one\n{}\nread x < $STAGE/two\n{}\necho '{{\"message_type\":\"problem\",\"path\":\"a\",\"kind\":\"vanished\",\"detail\":\"it was gone\"}}'\nread x < $STAGE/three\necho some warning >&2\n{}\nexit 3\n",
        progress("captured"),
        progress("uploading"),
        summary(1)
    ));
    let gates = ["one", "two", "three"].map(|name| stage.gate(name));
    let desk = stage.desk();
    submit(&desk, "capture home job=n").unwrap();
    await_state(&desk, "n", "quiescing");
    gates[0].open();
    await_state(&desk, "n", "captured");
    gates[1].open();
    await_state(&desk, "n", "uploading");
    let progress: serde_json::Value = serde_json::from_str(&text(&desk, "n", JobFile::Progress)).unwrap();
    assert_eq!((progress["phase"].as_str(), progress["files"].as_u64()), (Some("uploading"), Some(3)));
    assert!(stage.site.refreshed.lock().is_empty());
    gates[2].open();
    await_state(&desk, "n", "partial");
    assert_eq!(*stage.site.refreshed.lock(), ["home"]);
    assert_eq!(text(&desk, "n", JobFile::Result), "2026-11-20T12-00-00Z");
    let error = "1 file could not be captured exactly; `amberfs points home --problems` names it";
    assert_eq!(text(&desk, "n", JobFile::Error), error);
    let log = text(&desk, "n", JobFile::Log);
    assert!(log.contains("vanished: a: it was gone\n") && log.contains("some warning"), "{log}");
    assert!(log.contains("of home (full: first capture of this source): "), "{log}");
    let events: Vec<serde_json::Value> =
        page(&desk, DeskFile::Events).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<&str> = events.iter().filter_map(|event| event["state"].as_str()).collect();
    assert_eq!(states, ["queued", "quiescing", "captured", "uploading", "partial"]);
    assert_eq!(events.last().unwrap()["result"], "2026-11-20T12-00-00Z");
    assert_eq!(entries(&stage.path("state").join("05050505050505050505050505050505/running")), 0);
}

#[test]
fn a_process_gets_its_arguments_a_clean_environment_and_no_input() {
    let stage = Stage::new(&format!("echo \"$*\"\npwd\nenv\nwc -c\n{}\n", summary(0)));
    let desk = stage.desk();
    submit(&desk, "capture home 'label=a b' full=yes job=n").unwrap();
    await_state(&desk, "n", "committed");
    let log = text(&desk, "n", JobFile::Log);
    let mut lines = log.lines();
    // The job with the instant at which it was accepted: an id alone may have been used before.
    let first = lines.next().unwrap();
    let accepted = first.strip_prefix("capture --json --full --label=a b --job n@").unwrap();
    assert!(accepted.strip_suffix(" -- home").is_some_and(|at| at.parse::<i64>().is_ok()), "{first}");
    assert_eq!(lines.next(), Some("/"));
    assert!(!log.contains("HOME=") && !log.contains("CARGO"), "{log}");
    assert!(log.lines().any(|line| line == "0"), "{log}");
}

#[test]
fn a_failure_is_told_in_the_words_of_the_process() {
    let stage = Stage::new(
        "echo '{\"message_type\":\"error\",\"class\":\"denied\",\"message\":\"cannot read /home: no permission\"}'\nexit 1\n",
    );
    let desk = stage.desk();
    submit(&desk, "capture home job=n").unwrap();
    await_state(&desk, "n", "failed");
    assert_eq!(text(&desk, "n", JobFile::Error), "cannot read /home: no permission");
    assert_eq!(text(&desk, "n", JobFile::Result), "");
}

#[test]
fn garbage_is_kept_as_text_within_bounds_and_is_no_success() {
    let stage = Stage::new(
        "printf '\\377\\000\\033[31m{\"message_type\":\\n'\nhead -c 3000000 /dev/zero | tr '\\0' x\necho\nyes garbage | head -n 20000\necho '{\"message_type\":\"summary\"}'\n",
    );
    let desk = stage.desk();
    submit(&desk, "capture home job=n").unwrap();
    await_state(&desk, "n", "failed");
    assert!(text(&desk, "n", JobFile::Error).contains("without a word about the result"));
    let log = desk.job_file(&id("n"), JobFile::Log).unwrap();
    assert!(log.bytes.len() <= 64 << 10 && !log.bytes.contains(&0x1b));
}

#[test]
fn a_running_job_that_is_cancelled_ends_by_sigterm() {
    let stage = Stage::new("trap 'echo leaving; exit 130' TERM\necho up\nread x < $STAGE/never\n");
    let _gate = stage.gate("never");
    let mut options = stage.options();
    options.grace = Duration::from_secs(600);
    let desk = stage.desk_with(options);
    submit(&desk, "capture home job=n").unwrap();
    eventually("the trap is set", || text(&desk, "n", JobFile::Log) == "up");
    submit(&desk, "cancel n").unwrap();
    await_state(&desk, "n", "cancelled");
    // Whether the shell could still say so is its own affair; that it ended is ours.
    assert_eq!(text(&desk, "n", JobFile::Error), "cancelled");
    let reply = submit(&desk, "cancel n").unwrap();
    assert_eq!(reply, "ok cancel n (ended already: cancelled)\n");
}

#[test]
fn a_job_that_ignores_sigterm_is_killed_with_all_that_it_started() {
    let stage = Stage::new("trap '' TERM\nsh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done'\n");
    let desk = stage.desk();
    submit(&desk, "capture home job=n").unwrap();
    eventually("it is up", || !text(&desk, "n", JobFile::Log).is_empty());
    let inner = text(&desk, "n", JobFile::Log);
    submit(&desk, "cancel n").unwrap();
    await_state(&desk, "n", "cancelled");
    eventually("what it started is gone", || {
        std::fs::read_to_string(format!("/proc/{inner}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn a_waiting_job_is_cancelled_without_ever_starting() {
    let stage = Stage::new("echo $* >> $STAGE/runs\nexec sleep 600\n");
    let mut options = stage.options();
    options.at_once = 1;
    let desk = stage.desk_with(options);
    submit(&desk, "capture home job=a\ncapture etc job=b").unwrap();
    await_state(&desk, "a", "quiescing");
    submit(&desk, "cancel b").unwrap();
    await_state(&desk, "b", "cancelled");
    submit(&desk, "cancel a").unwrap();
    await_state(&desk, "a", "cancelled");
    submit(&desk, "capture etc job=c\ncancel c").unwrap();
    await_state(&desk, "c", "cancelled");
    assert!(stage.runs().iter().all(|run| run.contains("--job a")), "{:?}", stage.runs());
}

#[test]
fn a_job_that_takes_too_long_is_timed_out() {
    let stage = Stage::new("exec sleep 600\n");
    let desk = stage.desk();
    submit(&desk, "capture home timeout=1s job=n").unwrap();
    await_state(&desk, "n", "timed-out");
    assert_eq!(text(&desk, "n", JobFile::Error), "not done within 1 seconds");
}

#[test]
fn a_killed_process_failed_unless_its_point_is_in_the_log() {
    let stage = Stage::new("kill -9 $$\n");
    let desk = stage.desk();
    submit(&desk, "capture home job=n").unwrap();
    await_state(&desk, "n", "failed");
    assert!(text(&desk, "n", JobFile::Error).contains("signal 9"));
    stage.site.points.lock().insert("m".into(), Testimony { point: "p".into(), problems: 0 });
    submit(&desk, "capture home job=m").unwrap();
    await_state(&desk, "m", "committed");
    assert_eq!(text(&desk, "m", JobFile::Result), "p");
    *stage.site.trouble.lock() = Some("the store is away".into());
    // The configuration is fine, only the log cannot be asked: so the job is accepted by a repeat.
    submit(&desk, "verify job=v").unwrap();
    await_state(&desk, "v", "failed");
}

#[test]
fn something_that_a_job_leaves_behind_does_not_delay_its_end() {
    let stage = Stage::new(&format!("sleep 600 &\n{}\n", summary(0)));
    let desk = stage.desk();
    submit(&desk, "capture home job=n").unwrap();
    await_state(&desk, "n", "committed");
}

#[test]
fn a_program_that_cannot_be_started_fails_the_job() {
    let stage = Stage::new("");
    let mut options = stage.options();
    options.program.path = stage.path("missing");
    let desk = stage.desk_with(options);
    submit(&desk, "capture home job=n").unwrap();
    await_state(&desk, "n", "failed");
    assert!(text(&desk, "n", JobFile::Error).starts_with("cannot start "), "{}", text(&desk, "n", JobFile::Error));
    // And it does not stand in the way of the next.
    submit(&desk, "capture home job=m").unwrap();
    await_state(&desk, "m", "failed");
}

#[test]
fn waiting_jobs_start_in_their_order_as_others_end() {
    let stage = Stage::new(&format!("echo $* >> $STAGE/runs\nread x < $STAGE/gate\n{}\n", summary(0)));
    let gate = stage.gate("gate");
    let mut options = stage.options();
    options.at_once = 1;
    let desk = stage.desk_with(options);
    submit(&desk, "capture home job=a\ncapture etc job=b\ncapture photos job=c").unwrap();
    for job in ["a", "b", "c"] {
        await_state(&desk, job, "quiescing");
        gate.open();
        await_state(&desk, job, "committed");
    }
    let jobs: Vec<String> = stage.runs().iter().map(|run| run.split(' ').nth(3).unwrap().to_owned()).collect();
    assert_eq!(jobs, ["a", "b", "c"]);
}

#[test]
fn a_verification_says_what_it_found() {
    let stage = Stage::new(
        "echo '{\"message_type\":\"progress\",\"phase\":\"verifying\"}'\ncase \"$*\" in *home*) d=1;; *) d=0;; esac\necho \"{\\\"message_type\\\":\\\"verified\\\",\\\"points\\\":2,\\\"objects\\\":5,\\\"bytes\\\":9,\\\"damaged\\\":$d}\"\nexit $d\n",
    );
    let desk = stage.desk();
    submit(&desk, "verify read-data=yes job=all\nverify home job=one").unwrap();
    await_state(&desk, "all", "verified");
    await_state(&desk, "one", "failed");
    assert_eq!(text(&desk, "all", JobFile::Result), "no damage in 2 points, 5 objects, 9 bytes");
    assert!(text(&desk, "one", JobFile::Error).starts_with("1 damaged things in 2 points"));
}
