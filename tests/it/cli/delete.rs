//! `delete`, `undelete` and the trash.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use super::bench::{Bench, Ran};

/// A repository with points of `home`: full, two incrementals, another full one. The numbers of their entries.
fn bench() -> (Bench, Vec<u64>) {
    let bench = Bench::new();
    bench.good(["init", "--unencrypted", "-q"]);
    fs::create_dir(bench.path("tree")).unwrap();
    let ids = ["a", "b", "c", "d"].iter().map(|text| {
        fs::write(bench.path("tree/file"), text.repeat(5000)).unwrap();
        let more: &[&str] = if *text == "d" { &["--full"] } else { &[] };
        let arguments = ["capture", "home=tree", "--json", "--label", text];
        bench.run(arguments.iter().chain(more)).json().pop().unwrap()["id"].as_u64().unwrap()
    });
    let ids: Vec<u64> = ids.collect();
    (bench, ids)
}

fn living(bench: &Bench) -> Vec<u64> {
    bench.run(["points", "--json"]).json().iter().map(|point| point["id"].as_u64().unwrap()).collect()
}

fn trash(bench: &Bench) -> Vec<u64> {
    bench.run(["points", "--trash", "--json"]).json().iter().map(|point| point["id"].as_u64().unwrap()).collect()
}

fn of(id: u64) -> String {
    format!("home#{id}")
}

#[test]
fn a_point_with_dependents_is_refused_with_the_plan_and_nothing_happens() {
    let (bench, ids) = bench();
    for more in [&["--yes"][..], &["--dry-run"]] {
        let ran = bench.run(["delete", &of(ids[0])].iter().chain(more));
        ran.fails(11, "2 points depend on").fails(11, "hint: --cascade deletes them as well; --rebase");
        assert!(ran.out.contains(&format!("depends on #{}", ids[0])) && ran.out.contains("no other point"), "{ran:?}");
    }
    assert_eq!(living(&bench), ids);
    assert_eq!(bench.run(["delete", &of(ids[0]), "--cascade", "--rebase", "--yes"]).code, 2);
}

#[test]
fn a_cascade_takes_all_that_descend_and_undelete_brings_back_what_is_named() {
    let (bench, ids) = bench();
    let dry = bench.run(["delete", &of(ids[1]), "--cascade", "--dry-run", "--json"]).json();
    assert_eq!(dry[0]["ids"], serde_json::json!([ids[1], ids[2]]));
    assert_eq!((dry[0]["dry_run"].as_bool(), living(&bench).len()), (Some(true), 4));
    let done = bench.run(["delete", &of(ids[1]), "--cascade", "--yes", "--json"]).json();
    assert_eq!((&done[0]["message_type"], &done[0]["ids"]), (&"deleted".into(), &dry[0]["ids"]));
    assert_eq!(done[0]["bytes"], dry[0]["bytes"]);
    assert!(done[0]["bytes"].as_u64().unwrap() > 0);
    assert_eq!((living(&bench), trash(&bench)), (vec![ids[0], ids[3]], vec![ids[1], ids[2]]));
    bench.run(["cat", &format!("home#{}:file", ids[2])]).fails(1, "is deleted; `amberfs undelete` brings it back");
    bench.run(["cat", "home%c:file"]).fails(1, "no point has the label");
    assert!(bench.good(["cat", "home~1:file"]).starts_with("aaa"));

    let table = bench.good(["points", "--deleted"]);
    assert!(table.contains("home: 2 points, of which no other holds"), "{table}");
    assert!(bench.good(["undelete", &of(ids[2])]).contains("brought back 1 point of home"));
    assert_eq!(living(&bench), [ids[0], ids[2], ids[3]]);
    assert!(bench.good(["cat", "home%c:file"]).starts_with("ccc"));
    let points = bench.run(["points", "--json"]).json();
    assert_eq!(points[1]["parent"], points[0]["name"], "the nearest ancestor that stays");
    let name = bench.run(["points", "--trash", "--json"]).json()[0]["name"].as_str().unwrap().to_owned();
    let back = bench.run(["undelete", &format!("home@{name}"), "--json"]).json();
    assert_eq!(back[0]["ids"], serde_json::json!([ids[1]]));
    assert_eq!((living(&bench), trash(&bench)), (ids, vec![]));
    assert_eq!(bench.good(["verify", "-q", "--read-data"]), "");
}

#[test]
fn a_rebase_takes_just_the_point_and_the_rest_stays_whole() {
    let (bench, ids) = bench();
    let plan = bench.good(["delete", &of(ids[0]), "--rebase", "-n"]);
    assert!(plan.contains("stays, first of its line") && !plan.contains(&format!("#{}", ids[2])), "{plan}");
    bench.good(["delete", &of(ids[0]), "--rebase", "--yes"]);
    assert_eq!(living(&bench), ids[1..]);
    assert!(bench.good(["cat", "home%b:file"]).starts_with("bbb"));
    assert!(bench.good(["cat", "home%c:file"]).starts_with("ccc"));
    assert_eq!(bench.good(["verify", "-q", "--read-data"]), "");
}

#[test]
fn given_again_nothing_else_is_deleted() {
    let (bench, ids) = bench();
    let name = bench.run(["points", "--json"]).json()[2]["name"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        bench.good(["delete", &format!("home@{name}"), "--yes"]);
        assert_eq!(living(&bench), [ids[0], ids[1], ids[3]]);
    }
    assert!(bench.good(["delete", &of(ids[2]), "--yes"]).contains("deleted already"));
    // A name is a name, and not the time before which the newest is meant.
    bench.run(["delete", "home@2100-01-01T00-00-00Z", "--yes"]).fails(1, "no point 2100-01-01T00-00-00Z");
    bench.run(["delete", "home#99", "--yes"]).fails(1, "no point #99");
    bench.run(["undelete", "home#99"]).fails(1, "no point #99");
    bench.run(["undelete", "home~1"]).fails(1, "no point was ever");
    assert!(bench.good(["undelete", &of(ids[0])]).contains("nothing of this is deleted"));
}

#[test]
fn a_source_is_no_point_and_a_path_is_none_either() {
    let (bench, _) = bench();
    bench.run(["delete", "home", "--yes"]).fails(2, "names a source and none of its points");
    bench.run(["delete", "home~0:file", "--yes"]).fails(2, "only points as a whole");
    bench.run(["delete", "hme~0", "--yes"]).fails(1, "did you mean \"home\"?");
    assert_eq!(bench.run(["delete"]).code, 2);
    assert_eq!(living(&bench).len(), 4);
}

#[test]
fn without_a_terminal_yes_must_be_said() {
    let (bench, ids) = bench();
    bench.run(["delete", "home~0"]).fails(2, "nobody to ask").fails(2, "hint: --yes");
    bench.run(["delete", "home~0", "--json"]).fails(2, "nobody to ask");
    assert_eq!(living(&bench), ids);
}

/// Runs a command on a terminal of its own, where `answer` is typed.
fn on_a_terminal(bench: &Bench, command: &str, answer: &str) -> Ran {
    let line = format!("{} {command}", env!("CARGO_BIN_EXE_amberfs"));
    let mut script = bench.command::<&str>([]);
    let mut shell = std::process::Command::new("script");
    shell.args(["-qec", &line, "/dev/null"]).env_clear().current_dir(bench.path("."));
    shell.envs(script.env("TERM", "dumb").get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(answer.as_bytes()).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn on_a_terminal_it_asks() {
    let (bench, ids) = bench();
    let ran = on_a_terminal(&bench, "delete home~0", "n\n");
    assert!(ran.code == 130 && ran.out.contains("delete 1 point of home? [y/N]"), "{ran:?}");
    assert_eq!(living(&bench), ids);
    let ran = on_a_terminal(&bench, "delete home~0", "y\n");
    assert!(ran.code == 0 && ran.out.contains("deleted 1 point of home"), "{ran:?}");
    assert_eq!(living(&bench), ids[..3]);
}

#[test]
fn an_emptied_source_stays_and_its_next_point_is_full_and_says_why() {
    let (bench, ids) = bench();
    let all: Vec<String> = ids.iter().map(|id| of(*id)).collect();
    let arguments = ["delete", "--yes", "-q"].iter().map(|text| (*text).to_owned()).chain(all.clone());
    assert_eq!(bench.good(arguments), "");
    assert_eq!(living(&bench), Vec::<u64>::new());
    bench.run(["cat", "home:file"]).fails(1, "all its points are deleted; `amberfs points --trash` lists them");
    assert!(bench.good(["status"]).contains("home"));
    let next = bench.run(["capture", "home=tree", "--json"]).json().pop().unwrap();
    assert_eq!((&next["kind"], &next["chain"]), (&"full".into(), &2.into()));
    assert_eq!(next["reason"], "full: all points of this source are deleted");
    bench.good(["undelete", &all[0]]);
    assert_eq!(living(&bench), [ids[0], next["id"].as_u64().unwrap()]);
}

#[test]
fn captures_build_on_the_nearest_ancestor_that_is_left() {
    let (bench, ids) = bench();
    let capture = || {
        let summary = bench.run(["capture", "home=tree", "--json"]).json().pop().unwrap();
        (summary["reason"].as_str().unwrap().to_owned(), summary["chain"].as_u64().unwrap())
    };
    bench.good(["delete", &of(ids[3]), "--yes"]);
    assert_eq!(capture(), ("full: the point to build on is deleted, with all that it built on".to_owned(), 2));
    let (reason, _) = capture();
    assert!(reason.ends_with("the newest point of chain 2"), "{reason}");
    bench.good(["delete", "home~0", "--yes"]);
    let (reason, chain) = capture();
    assert!(reason.ends_with("the newest point of chain 2 that is not deleted"), "{reason}");
    assert_eq!(chain, 2);
    assert_eq!(bench.good(["verify", "-q", "--read-data"]), "");
}
