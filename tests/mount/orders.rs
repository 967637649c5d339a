//! Points ordered through the control file of a real mount, as scripts and people do it.

use std::fs;

use crate::processes::{eventually, shell};
use crate::real::Real;

/// A mounted repository and a tree beside it, not yet configured.
fn mounted() -> Real {
    let real = Real::new();
    fs::create_dir(real.toy.beside("tree")).unwrap();
    fs::write(real.toy.beside("tree/file"), "first\n").unwrap();
    real.mount();
    real
}

fn configure(real: &Real) {
    real.succeeds(&["source", "add", "-q", "home", real.toy.beside("tree").to_str().unwrap()]);
}

/// Waits for the job's end and gives its last state.
fn state(real: &Real, job: &str) -> String {
    let file = real.toy.join(&format!(".amberfs/jobs/{job}/state"));
    let mut state = String::new();
    eventually("the job ends", || {
        state = fs::read_to_string(&file).unwrap().trim().to_owned();
        ["committed", "partial", "failed", "cancelled", "timed-out"].contains(&state.as_str())
    });
    state
}

fn points(real: &Real) -> Vec<String> {
    let items = fs::read_dir(real.toy.join("home/points")).unwrap();
    let mut names: Vec<String> = items.map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_source_that_is_configured_while_mounted_can_be_captured_at_once() {
    let real = mounted();
    for program in ["bash", "dash"] {
        let (_, code) = shell(program, "echo 'capture home job=early' > .amberfs/control 2>/dev/null", &real.toy);
        assert_ne!(code, 0, "{program}");
        let (reply, _) = shell(program, "cat .amberfs/control", &real.toy);
        assert!(reply.contains("no source \"home\"") && reply.contains("amberfs source add"), "{reply}");
    }
    configure(&real);
    let (_, code) = shell("bash", "echo 'capture home job=n1 label=nightly' > .amberfs/control", &real.toy);
    assert_eq!(code, 0);
    assert_eq!(state(&real, "n1"), "committed");
    let result = fs::read_to_string(real.toy.join(".amberfs/jobs/n1/result")).unwrap();
    assert_eq!(points(&real), [result.trim()]);
    for path in ["home/latest/file", "home/labels/nightly/file", "home/at/now/file", "home/chains/0/000-full/file"] {
        assert_eq!(fs::read_to_string(real.toy.join(path)).unwrap(), "first\n", "{path}");
    }
    let jobs = real.run(&["jobs", "--json"]);
    let job: serde_json::Value = serde_json::from_slice(&jobs.stdout).unwrap();
    assert_eq!(
        (&job["job"], &job["state"], &job["result"]),
        (&"n1".into(), &"committed".into(), &result.trim().into())
    );
}

#[test]
fn a_repeated_order_is_harmless_and_another_under_its_name_is_refused() {
    let real = mounted();
    configure(&real);
    let place = real.place();
    for _ in 0..2 {
        real.succeeds(&["ctl", &place, "capture", "home", "job=n1"]);
        assert_eq!(state(&real, "n1"), "committed");
    }
    assert_eq!(points(&real).len(), 1);
    let other = real.run(&["ctl", &place, "capture home full=yes job=n1"]);
    assert_eq!(other.status.code(), Some(11), "{other:?}");
    assert_eq!(points(&real).len(), 1);
}

#[test]
fn python_and_tee_order_points_and_points_of_the_command_line_appear() {
    let real = mounted();
    configure(&real);
    let python = "python3 -c 'open(\".amberfs/control\", \"w\").write(\"capture home job=p\\n\")'";
    assert_eq!(shell("bash", python, &real.toy).1, 0);
    assert_eq!(state(&real, "p"), "committed");
    assert_eq!(shell("bash", "echo capture home job=t | tee .amberfs/control >/dev/null", &real.toy).1, 0);
    assert_eq!(state(&real, "t"), "committed");
    assert_eq!(points(&real).len(), 2);

    fs::write(real.toy.beside("tree/file"), "second\n").unwrap();
    real.succeeds(&["capture", "home"]);
    eventually("the mount shows the point", || points(&real).len() == 3);
    assert_eq!(fs::read_to_string(real.toy.join("home/latest/file")).unwrap(), "second\n");
    assert_eq!(fs::read_to_string(real.toy.join("home/at/latest~1/file")).unwrap(), "first\n");
}

#[test]
fn a_source_that_fails_is_a_failed_job_with_the_reason() {
    let real = mounted();
    configure(&real);
    fs::remove_dir_all(real.toy.beside("tree")).unwrap();
    real.succeeds(&["ctl", &real.place(), "capture home job=gone"]);
    assert_eq!(state(&real, "gone"), "failed");
    let error = fs::read_to_string(real.toy.join(".amberfs/jobs/gone/error")).unwrap();
    assert!(error.contains("is no directory"), "{error}");
}
