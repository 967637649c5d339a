//! Several processes at once on one repository: real ones, as cron, a desk and a person start them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};

use amberfs::base::Env;
use amberfs::repo::Repo;
use amberfs::store::Store;
use amberfs::view::MountView;
use serde_json::Value;

use super::bench::{Bench, Ran, json_lines};
use crate::world::{names, node, real, same, shown, zero_settings};

/// Attempts at having processes meet; each takes a fraction of a second, and nearly every one does.
const ATTEMPTS: usize = 20;

fn bench() -> Bench {
    let bench = Bench::new();
    bench.good(["init", "--unencrypted", "-q"]);
    for n in 0..300 {
        fs::create_dir_all(bench.path(format!("tree/d{}", n % 20))).unwrap();
        fs::write(bench.path(format!("tree/d{}/f{n}", n % 20)), format!("file {n} ").repeat(n)).unwrap();
    }
    bench
}

/// Starts `amberfs --json capture` with these arguments, on behalf of a host.
fn capture(bench: &Bench, host: &str, arguments: &[&str]) -> Child {
    let mut command = bench.command(["--json", "capture"].iter().chain(arguments));
    command.env("AMBERFS_HOST", host);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap())
}

/// The summary of a capture that went well.
fn summary(ran: &Ran) -> Value {
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    json_lines(&ran.out).pop().unwrap()
}

/// The points of `source`, in the order of their names; the last `same_as_now` must show the tree as it is.
fn points(bench: &Bench, source: &str, same_as_now: usize) -> Vec<String> {
    let repo = Repo::open(Store::local(&bench.path("repo")).unwrap(), Env::system()).unwrap();
    let view = MountView::open(repo, zero_settings()).unwrap();
    let expected = real(&bench.path("tree"));
    let points = names(&view, node(&view, &format!("{source}/points")));
    for (name, root) in points.iter().rev().take(same_as_now) {
        same(&expected, &shown(&view, *root, 1 << 20), &name.escape_ascii().to_string());
    }
    points.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect()
}

/// Starts `count` captures of one source at once, until it has happened that all of them began from the same head.
/// Whether they met or not, each must have made its point.
fn meet(bench: &Bench, count: usize, incremental: bool) {
    for attempt in 0..ATTEMPTS {
        let source = format!("s{count}-{attempt}");
        let argument = format!("{source}=tree");
        let mut parent = Value::Null;
        if incremental {
            parent = summary(&ended(capture(bench, "ash", &[&argument])))["point"].clone();
            fs::write(bench.path("tree/d7/changed"), format!("{source} ").repeat(100_000)).unwrap();
        }
        let before = usize::from(incremental);
        let children: Vec<Child> = (0..count).map(|_| capture(bench, "ash", &[&argument])).collect();
        let mut made: Vec<Value> = children.into_iter().map(|child| summary(&ended(child))).collect();

        made.sort_by_key(|point| point["id"].as_u64());
        let listed = bench.run(["points", "--json", &source]).json();
        let told: Vec<&Value> = made.iter().map(|point| &point["point"]).collect();
        let entries: Vec<&Value> = listed.iter().skip(before).map(|point| &point["name"]).collect();
        assert_eq!(entries, told, "the log has them in the order of their entries, and none besides");
        assert_eq!(points(bench, &source, count).len(), before + count);

        if made.iter().all(|point| point["parent"] == parent) {
            let chains: Vec<u64> = made.iter().map(|point| point["chain"].as_u64().unwrap()).collect();
            match incremental {
                true => assert_eq!(chains, vec![0; count]),
                // The one that opened its chain first need not be the first to commit.
                false => assert_eq!(chains.iter().collect::<BTreeSet<_>>().len(), count, "{chains:?}"),
            }
            bench.good(["verify", "--read-data", "-q"]);
            return;
        }
    }
    panic!("{count} captures never met in {ATTEMPTS} attempts");
}

#[test]
fn captures_of_one_source_at_once_each_make_their_point() {
    let bench = bench();
    meet(&bench, 2, true);
    meet(&bench, 3, true);
}

#[test]
fn first_captures_of_one_source_at_once_each_open_a_chain() {
    let bench = bench();
    meet(&bench, 2, false);
    meet(&bench, 3, false);
}

/// Streams meet without chance: each capture has begun before any of them is told the end of its input.
#[test]
fn streams_of_one_source_at_once_are_kept_apart() {
    let bench = bench();
    let content = |n: usize| format!("line of stream {n}\n").repeat(20_000);
    let mut children: Vec<Child> = (0..3).map(|_| capture(&bench, "ash", &["--stdin", "dump"])).collect();
    // More than a pipe holds: what has been taken was taken by a capture under way.
    let inputs: Vec<_> = (children.iter_mut().enumerate())
        .map(|(n, child)| {
            let mut input = child.stdin.take().unwrap();
            input.write_all(content(n).as_bytes()).unwrap();
            input
        })
        .collect();
    drop(inputs);
    for (n, child) in children.into_iter().enumerate() {
        let made = summary(&ended(child));
        assert_eq!(made["kind"], "full");
        assert_eq!(bench.good(["cat", &format!("dump#{}:dump", made["id"])]), content(n));
    }
    bench.good(["verify", "--read-data", "-q"]);
}

#[test]
fn two_hosts_that_race_for_a_name_get_it_once() {
    let bench = bench();
    let hosts = ["ash", "oak"];
    for race in 0..10 {
        let argument = format!("r{race}=tree");
        let children = hosts.map(|host| capture(&bench, host, &[&argument]));
        let ran = children.map(ended);
        let (winner, loser) = match (ran[0].code, ran[1].code) {
            (0, 11) => (0, 1),
            (11, 0) => (1, 0),
            codes => panic!("{codes:?}: {ran:?}"),
        };
        summary(&ran[winner]);
        let told = &json_lines(&ran[loser].out).pop().unwrap()["message"];
        let told = told.as_str().unwrap_or(&ran[loser].err).to_owned();
        assert!(hosts.iter().all(|host| told.contains(host)), "names both: {told}");
        let listed = bench.run(["points", "--json", &format!("r{race}")]).json();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0]["host"], hosts[winner]);
    }
    bench.good(["verify", "-q"]);
}
