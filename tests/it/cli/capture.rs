//! `capture` and the commands that read what it made.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::bench::{Bench, Ran};

/// A repository, and a small tree beside it.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.good(["init", "--unencrypted", "-q"]);
    fs::create_dir_all(bench.path("tree/sub")).unwrap();
    fs::write(bench.path("tree/file"), "first\n").unwrap();
    fs::write(bench.path("tree/sub/deep"), "deep\n").unwrap();
    symlink("file", bench.path("tree/link")).unwrap();
    bench
}

/// Captures and gives the summary.
fn summary(bench: &Bench, arguments: &[&str]) -> serde_json::Value {
    let ran = bench.run(["--json", "capture"].iter().chain(arguments));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let last = ran.json().pop().unwrap();
    assert_eq!(last["message_type"], "summary");
    last
}

#[test]
fn a_tree_is_captured_and_every_point_of_it_is_there() {
    let bench = bench();
    let first = summary(&bench, &["home=tree"]);
    assert_eq!((first["kind"].as_str(), first["files"].as_u64()), (Some("full"), Some(2)));
    fs::write(bench.path("tree/file"), "second\n").unwrap();
    let second = summary(&bench, &["home=tree", "-l", "nightly", "--label", "a b"]);
    assert_eq!(second["kind"], "incremental");
    assert_eq!(second["parent"], first["point"]);
    assert_eq!(second["labels"], serde_json::json!(["nightly", "a b"]));
    let third = summary(&bench, &["home=tree", "--full"]);
    assert_eq!((third["kind"].as_str(), third["chain"].as_u64()), (Some("full"), Some(1)));

    assert_eq!(bench.good(["cat", "home:file"]), "second\n");
    assert_eq!(bench.good(["cat", "home~2:/file", "home%nightly:sub/deep"]), "first\ndeep\n");
    assert_eq!(bench.good(["cat", &format!("home#{}:file", first["id"])]), "first\n");
    assert_eq!(bench.good(["cat", &format!("home@{}:file", first["point"].as_str().unwrap())]), "first\n");
    assert_eq!(bench.good(["ls", "home"]), "file\nlink\nsub\n");
    assert_eq!(bench.good(["ls", "-R", "home"]), "file\nlink\nsub\nsub/deep\n");
    assert_eq!(bench.good(["ls", "home:sub/deep"]), "deep\n");
    let long = bench.good(["ls", "-l", "home:link"]);
    assert!(long.starts_with("lrwxrwxrwx ") && long.ends_with(" link -> file\n"), "{long}");

    let points = bench.run(["points", "--json"]).json();
    assert_eq!(points.len(), 3);
    assert_eq!(points[1]["message_type"], "point");
    assert_eq!(points[1]["parent"], first["point"]);
    assert_eq!(points[0]["path"], bench.path("tree").to_str().unwrap());
    assert_eq!(bench.run(["points", "home", "-n", "1", "--json"]).json()[0]["id"], third["id"]);
    assert_eq!(bench.run(["snapshots", "--label", "nightly", "--json"]).json()[0]["id"], second["id"]);
    let chains = bench.run(["chains", "--json"]).json();
    assert_eq!(chains[0]["points"], serde_json::json!([first["point"], second["point"]]));
    assert_eq!((chains[0]["head"].as_bool(), chains[1]["head"].as_bool()), (Some(false), Some(true)));
    let status = bench.run(["status", "--json"]).json();
    assert_eq!(status[0]["sources"][0]["points"], 3);
    assert_eq!(status[0]["sources"][0]["newest"]["name"], third["point"]);
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let bench = bench();
    let point = summary(&bench, &["home=tree"])["point"].as_str().unwrap().to_owned();
    bench.run(["ls", "hom"]).fails(1, "no source \"hom\" in this repository; did you mean \"home\"?");
    bench.run(["ls", "home~1"]).fails(1, "it has 1 points");
    bench.run(["ls", "home@2001-01-01"]).fails(1, &format!("the first point is {point}"));
    bench.run(["ls", "home%weekly"]).fails(1, "no point has the label");
    bench.run(["ls", "home:nowhere"]).fails(1, ":nowhere: no such file");
    bench.run(["cat", "home:sub"]).fails(2, "is a directory");
    bench.run(["cat", "home:link"]).fails(2, "is a symbolic link to file");
    bench.run(["cat", "home:../x"]).fails(2, "no .. in it");
    bench.run(["cat", "home@nonsense:x"]).fails(2, "is no time");
}

#[test]
fn configured_sources_bring_their_options() {
    let bench = bench();
    fs::write(bench.path("tree/scratch.tmp"), "x").unwrap();
    fs::create_dir(bench.path("tree/cache")).unwrap();
    fs::write(bench.path("tree/cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    fs::write(bench.path("tree/cache/big"), "x").unwrap();
    bench.good(["source", "add", "-q", "home", "tree", "-e", "*.tmp", "--exclude-caches", "-l", "auto"]);
    let point = summary(&bench, &["home", "-l", "by-hand", "-e", "/sub"]);
    assert_eq!(point["labels"], serde_json::json!(["auto", "by-hand"]));
    assert_eq!(bench.good(["ls", "-R", "home"]), "cache\ncache/CACHEDIR.TAG\nfile\nlink\n");
    // A path that leads to the same place continues the same source.
    let tree = bench.path("tree");
    assert_eq!(summary(&bench, &[&format!("home={}/./", tree.display())])["kind"], "incremental");
}

#[test]
fn an_argument_that_means_nothing_is_refused_with_both_ways_out() {
    let bench = bench();
    bench.run(["capture", "home"]).fails(1, "no source \"home\"").fails(1, "hint: amberfs source add home PATH");
    bench.run(["capture", "tree"]).fails(1, "hint: amberfs capture ./tree");
    bench.run(["capture", "/"]).fails(2, "hint: choose a name");
    bench.run(["capture", "home=nowhere"]).fails(1, "is no directory");
    bench.run(["capture", "home=tree", "--label=-x"]).fails(2, "cannot be a label");
    bench.run(["capture", "home=tree", "-e", "{a"]).fails(2, "pattern");
    assert_eq!(bench.good(["points"]), "");
    assert_eq!(summary(&bench, &["./tree"])["source"], "tree");
}

#[test]
fn another_origin_is_refused_unless_adopted() {
    let bench = bench();
    summary(&bench, &["home=tree"]);
    fs::create_dir(bench.path("other")).unwrap();
    let ran = bench.run(["capture", "home=other"]);
    ran.fails(11, "tree").fails(11, "other").fails(11, "--adopt");
    assert_eq!(bench.run(["points", "--json"]).json().len(), 1);
    assert_eq!(summary(&bench, &["--adopt", "home=other"])["files"], 0);
    let elsewhere = bench.command(["capture", "home=other"]).env("AMBERFS_HOST", "oak").output().unwrap();
    Ran::of(elsewhere).fails(11, "oak");
}

#[test]
fn a_stream_is_captured_as_one_file() {
    let bench = bench();
    let stream = |arguments: &[&str], bytes: &[u8]| {
        let mut command = bench.command(["capture", "--stdin", "--json"].iter().chain(arguments));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    };
    assert_eq!(stream(&["db=dump.sql"], b"one\n").code, 0);
    let long: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    let ran = stream(&["db=dump.sql"], &long);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(bench.good(["cat", "db~1"]), "one\n");
    assert_eq!(bench.command(["cat", "db:dump.sql"]).output().unwrap().stdout, long);
    assert_eq!(stream(&["db=dump.sql", "--exclude=x"], b"").code, 2);
    bench.run(["capture", "db=tree"]).fails(11, "db");
}

#[test]
fn names_that_are_not_text_come_through() {
    let bench = bench();
    let name = std::ffi::OsStr::from_bytes(b"tree/not-utf8-\xff");
    fs::write(bench.path(name), "bytes\n").unwrap();
    summary(&bench, &["home=tree"]);
    let entries = bench.run(["ls", "home", "--json"]).json();
    let odd = entries.iter().find(|entry| entry["path_hex"].is_string()).unwrap();
    assert_eq!(odd["path_hex"], "6e6f742d757466382dff");
    let shown = bench.command(["ls", "home"]).output().unwrap().stdout;
    assert!(shown.windows(10).any(|bytes| bytes == b"not-utf8-\xff"));
    let mut selector = b"home:".to_vec();
    selector.extend_from_slice(b"not-utf8-\xff");
    assert_eq!(bench.good([std::ffi::OsStr::new("cat"), std::ffi::OsStr::from_bytes(&selector)]), "bytes\n");
}

#[test]
fn files_that_cannot_be_read_make_the_point_partial() {
    let bench = bench();
    fs::write(bench.path("tree/secret"), "x").unwrap();
    fs::set_permissions(bench.path("tree/secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let run = |arguments: &[&str]| Ran::of(bench.unprivileged(arguments).output().unwrap());
    let ran = run(&["capture", "home=tree"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("amberfs: secret: unreadable: "), "{ran:?}");
    assert!(ran.out.contains("1 problems"), "{ran:?}");
    let ran = run(&["capture", "home=tree", "--json"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let lines = ran.json();
    let problem = lines.iter().find(|line| line["message_type"] == "problem").unwrap();
    assert_eq!((&problem["path"], &problem["kind"]), (&"secret".into(), &"unreadable".into()));
    assert_eq!(lines.last().unwrap()["problems"], 1);
    assert!(run(&["status"]).out.contains("newest is partial"));
    // The point itself keeps what it lacks.
    assert!(run(&["points", "home", "--problems", "--last=1"]).out.contains(": unreadable: secret: "));
    let lines = run(&["points", "home", "--problems", "--json"]).json();
    let named = lines.iter().filter(|line| line["message_type"] == "point-problem" && line["path"] == "secret");
    assert_eq!(named.count(), 2, "{lines:?}");
}

#[test]
fn a_capture_that_has_no_descriptors_left_fails_instead_of_leaving_files_out() {
    let bench = bench();
    fs::create_dir_all(bench.path("tree").join("deep/".repeat(60))).unwrap();
    let mut command = bench.command(["capture", "home=tree"]);
    let (program, arguments) = (command.get_program().to_owned(), vec!["capture", "home=tree"]);
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]).arg(program).args(arguments);
    limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.current_dir(command.get_current_dir().unwrap());
    let ran = Ran::of(limited.output().unwrap());
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("Too many open files") && ran.err.contains("ulimit -n"), "{ran:?}");
    assert!(bench.run(["points", "--json"]).json().is_empty());
    let ran = Ran::of(command.output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_capture_outlives_the_reader_of_its_output() {
    let bench = bench();
    for arguments in [vec!["capture", "home=tree"], vec!["--json", "capture", "home=tree"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = bench.command(&arguments).stdout(writer).status().unwrap();
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    }
    assert_eq!(bench.run(["points", "--json"]).json().len(), 2);
}

/// A capture of a stream that goes on until its writer is dropped, and has caught its signals by now.
fn endless(bench: &Bench) -> (Child, ChildStdin) {
    let mut command = bench.command(["capture", "--stdin", "--json", "db"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"half of ").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("progress"), "{line}");
    (child, stdin)
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_stream_that_a_signal_ends_is_not_committed() {
    let bench = bench();
    for name in ["-INT", "-TERM"] {
        let (child, stdin) = endless(&bench);
        signal(&child, name);
        drop(stdin);
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, 130, "{ran:?}");
        assert!(ran.err.contains("nothing was committed") || ran.err.contains("cancelled"), "{ran:?}");
        assert_eq!(ran.json().pop().unwrap()["class"], "cancelled");
    }
    assert_eq!(bench.good(["points"]), "");
}

#[test]
fn a_second_signal_ends_a_capture_that_cannot_stop() {
    let bench = bench();
    let (mut child, _stdin) = endless(&bench);
    signal(&child, "-INT");
    signal(&child, "-INT");
    // Both may have come as one: then the third is the second.
    while child.try_wait().unwrap().is_none() {
        Command::new("kill").args(["-INT", &child.id().to_string()]).stderr(Stdio::null()).status().unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn sigusr1_shows_how_far_it_is() {
    let bench = bench();
    let (mut child, stdin) = endless(&bench);
    signal(&child, "-USR1");
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("capturing: "), "{line}");
    drop(stdin);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(bench.good(["cat", "db"]), "half of ");
}
