//! Keys of encrypted repositories when something goes wrong: nobody is asked, a log is damaged, the store holds junk.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use amberfs::base::Env;
use amberfs::repo::{CacheSizes, Closed, Credential};
use amberfs::store::fault::{Fault, Faults, Rule};
use amberfs::store::{Operation, Store};
use serde_json::Value;

use super::bench::{Bench, Ran};
use super::key::{encrypted, good, keyed, private};

/// The newest entry of the log of the repository's first source, and a broken one behind it.
fn break_log(bench: &Bench) -> PathBuf {
    let source = std::fs::read_dir(bench.path("repo/source")).unwrap().next().unwrap().unwrap().path();
    let log = source.join("log");
    let newest = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().file_name()).max().unwrap();
    let next = newest.to_str().unwrap().parse::<u64>().unwrap() + 1;
    let broken = log.join(format!("{next:020}"));
    private(&broken, "broken");
    broken
}

fn list(bench: &Bench) -> Vec<Value> {
    good(keyed(bench, "key", &["key", "list", "--json"])).json()
}

fn names(bench: &Bench) -> Vec<String> {
    list(bench).iter().map(|key| key["name"].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn keys_are_not_removed_by_the_way() {
    let bench = encrypted();
    let run = |arguments: &[&str]| keyed(&bench, "key", arguments);
    good(run(&["key", "add", "other", "--new-keyfile", "other.key"]));
    good(run(&["key", "add", "web1", "--role", "writer", "--new-keyfile", "web1.key"]));
    for arguments in [&["key", "rotate"][..], &["--json", "key", "rotate"]] {
        let ran = run(arguments);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("other, web1") && ran.err.contains("--yes"), "{ran:?}");
    }
    run(&["key", "remove", "mine"]).fails(2, "which is in use");
    assert_eq!(names(&bench), ["mine", "other", "web1"]);
    assert!(list(&bench).iter().all(|key| key["epoch"] == 1));
    // Others than the one in use are named by whoever removes them.
    good(run(&["key", "remove", "web1"]));
    good(run(&["key", "remove", "mine", "--yes"]));
    run(&["points"]).fails(12, "no key");
    std::fs::rename(bench.path("other.key"), bench.path("key")).unwrap();
    let told = good(run(&["key", "rotate", "--yes"])).out;
    assert!(told.contains("epoch 2"), "{told}");
    good(run(&["key", "add", "again", "--new-keyfile", "again.key"]));
    let told = good(run(&["key", "rotate", "--yes"])).out;
    assert!(told.contains("are removed, and have to be added again: again"), "{told}");
}

#[test]
fn a_damaged_log_keeps_no_old_key_in_and_makes_no_new_keys_each_time() {
    let bench = encrypted();
    let run = |arguments: &[&str]| keyed(&bench, "key", arguments);
    let rotate = |arguments: &[&str]| run(&[&["--json", "key", "rotate", "--yes"], arguments].concat());
    let epoch = || list(&bench)[0]["epoch"].clone();
    good(run(&["-q", "capture", "home=tree"]));
    good(run(&["-q", "capture", "two=tree"]));
    good(run(&["key", "add", "other", "--new-keyfile", "other.key"]));
    let broken = break_log(&bench);
    for n in 0..2 {
        let ran = rotate(&[]);
        assert!(ran.code == 13 && ran.err.contains("source home") && ran.err.contains("--anew"), "{ran:?}");
        let told = ran.json().remove(0);
        assert_eq!((&told["epoch"], &told["resumed"]), (&Value::from(2), &Value::from(n > 0)), "{told}");
        assert_eq!(told["unreached"], serde_json::json!(["home"]));
        assert_eq!((names(&bench), epoch()), (vec!["mine".to_owned()], Value::from(2)));
        keyed(&bench, "other.key", &["points"]).fails(12, "no key");
    }
    let ran = rotate(&["--anew"]);
    assert!(ran.code == 13 && epoch() == 3, "{ran:?}");
    std::fs::remove_file(broken).unwrap();
    let told = good(rotate(&[])).json().pop().unwrap();
    assert_eq!((&told["epoch"], &told["resumed"]), (&Value::from(3), &Value::from(true)), "{told}");
    let told = good(rotate(&[])).json().pop().unwrap();
    assert_eq!((&told["epoch"], &told["resumed"]), (&Value::from(4), &Value::from(false)), "{told}");
    for name in ["home=tree", "two=tree"] {
        good(run(&["-q", "capture", name]));
    }
    good(run(&["verify", "--read-data", "-q"]));
    // Where the repository's own log cannot say it, no keys are made.
    let newest = std::fs::read_dir(bench.path("repo/log")).unwrap().map(|entry| entry.unwrap().file_name()).max();
    let next = newest.unwrap().to_str().unwrap().parse::<u64>().unwrap() + 1;
    private(&bench.path(format!("repo/log/{next:020}")), "broken");
    let ran = rotate(&[]);
    assert!(ran.code == 13 && ran.err.contains("the repository's log is damaged"), "{ran:?}");
    assert_eq!(epoch(), 4);
}

#[test]
fn a_removal_that_was_interrupted_is_finished_by_the_id_of_the_key() {
    let bench = encrypted();
    let run = |arguments: &[&str]| keyed(&bench, "key", arguments);
    good(run(&["key", "add", "web1", "--role", "writer", "--new-keyfile", "web1.key"]));
    good(keyed(&bench, "web1.key", &["-q", "capture", "web1=tree"]));
    std::fs::copy(bench.path("web1.key"), bench.path("kept.key")).unwrap();
    let key = list(&bench).into_iter().find(|key| key["name"] == "web1").unwrap()["key"].as_str().unwrap().to_owned();
    let broken = break_log(&bench);
    let ran = run(&["key", "remove", "web1"]);
    assert!(ran.code == 13 && ran.err.contains(&format!("amberfs key remove {key}")), "{ran:?}");
    keyed(&bench, "web1.key", &["points"]).fails(12, "no key");
    std::fs::remove_file(broken).unwrap();
    for _ in 0..2 {
        let told = good(run(&["--json", "key", "remove", &key])).json().pop().unwrap();
        assert_eq!((&told["message_type"], &told["key"]), (&Value::from("revoked"), &Value::from(key.as_str())));
    }
    run(&["key", "remove", "web1"]).fails(1, "does not exist");
    // While its slot is there, the key's id is as good as its name.
    good(run(&["key", "add", "web2", "--role", "writer", "--new-keyfile", "web2.key"]));
    let key = list(&bench).into_iter().find(|key| key["name"] == "web2").unwrap()["key"].as_str().unwrap().to_owned();
    assert!(good(run(&["key", "remove", &key])).out.contains("writer key web2 removed"));
    assert_eq!(names(&bench), ["mine"]);
}

#[test]
fn a_removal_that_has_only_begun_is_listed_and_ends_when_it_is_given_again() {
    let bench = encrypted();
    let run = |arguments: &[&str]| keyed(&bench, "key", arguments);
    good(run(&["key", "add", "other", "--new-keyfile", "other.key"]));
    let faults = Faults::new();
    let store = faults.around(&Store::local(&bench.path("repo")).unwrap());
    let credential = Credential::of_key_file(&std::fs::read_to_string(bench.path("key")).unwrap()).unwrap();
    let closed = Closed::find(store).unwrap();
    let repo = closed.open(Env::system(), CacheSizes::default(), Some(&credential)).unwrap();
    let other = repo.slot_named("other", None).unwrap();
    faults.plan(Rule::new(Fault::Before).on(Operation::Delete).within("key/").then_crash());
    repo.remove_slot(&other, || None).unwrap_err();

    let table = good(run(&["key", "list"])).out;
    assert!(table.contains("its removal was begun, ") && table.contains("with key mine"), "{table}");
    let begun: Vec<String> = list(&bench)
        .into_iter()
        .filter(|key| key.get("removal_begun").is_some())
        .map(|key| key["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(begun, ["other"]);
    let theirs = |arguments: &[&str]| keyed(&bench, "other.key", arguments);
    theirs(&["key", "remove", "mine"]).fails(11, "the removal of every other one that gives everything has begun");
    theirs(&["key", "rotate", "--yes"]).fails(11, "is being removed, or was");
    good(theirs(&["points"]));
    good(run(&["key", "remove", "other"]));
    assert_eq!(names(&bench), ["mine"]);
    good(run(&["verify"]));
}

#[test]
fn junk_in_the_place_of_slots_is_told_and_in_nobodys_way() {
    let bench = encrypted();
    let run = |arguments: &[&str]| keyed(&bench, "key", arguments);
    let own = list(&bench)[0]["id"].as_str().unwrap().to_owned();
    let junk = |slot: &str, name: &str| {
        let directory = bench.path("repo/key").join(slot);
        std::fs::create_dir_all(&directory).unwrap();
        private(&directory.join(name), &"\u{1}".repeat(32));
    };
    let stranger = "00000000000000000000000000000001";
    junk(stranger, "4294967294");
    let table = good(run(&["key", "list"])).out;
    assert!(table.contains("(damaged)") && table.contains("cannot open the repository"), "{table}");
    let damaged = list(&bench).into_iter().find(|key| key["sound"] == false).unwrap();
    assert_eq!((&damaged["id"], &damaged["name"]), (&Value::from(stranger), &Value::Null));
    good(run(&["key", "add", "other", "--new-keyfile", "other.key"]));
    good(run(&["key", "change", "--new-keyfile", "key2"]));
    std::fs::rename(bench.path("key2"), bench.path("key")).unwrap();
    good(run(&["key", "remove", "other"]));
    assert_eq!(run(&["verify"]).code, 13);
    good(run(&["key", "remove", stranger]));
    good(run(&["verify"]));
    // In the place of the newest keys: it opens, and says what is amiss; the marker is not to blame.
    let own = list(&bench).iter().find(|key| key["own"] == true).map_or(own, |key| key["id"].as_str().unwrap().into());
    junk(&own, "0000000000");
    let ran = run(&["points"]);
    assert!(ran.code == 0 && ran.err.contains(&format!("key/{own}/0000000000")), "{ran:?}");
    std::fs::remove_file(bench.path("repo/key").join(&own).join("4294967294")).unwrap();
    let ran = run(&["points"]);
    assert!(ran.code == 13 && ran.err.contains(&format!("key/{own}/0000000000")), "{ran:?}");
    assert!(!ran.err.contains("marker"), "{ran:?}");
}

#[test]
fn a_key_file_whose_slot_may_exist_is_kept() {
    let bench = encrypted();
    // Whoever may write no slot finds out in the middle of it.
    let slots = bench.path("repo/key");
    std::fs::set_permissions(&slots, std::fs::Permissions::from_mode(0o500)).unwrap();
    let mut command = bench.unprivileged(["--keyfile", "key", "key", "change", "--new-keyfile", "key2"]);
    std::fs::set_permissions(&slots, std::fs::Permissions::from_mode(0o500)).unwrap();
    let ran = Ran::of(command.output().unwrap());
    assert!(ran.code != 0 && ran.err.contains("keep "), "{ran:?}");
    assert!(bench.path("key2").exists() && bench.path("key").exists());
}
