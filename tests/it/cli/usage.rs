//! Wrong command lines, the environment, and where output goes.

use std::process::Stdio;

use super::bench::{Bench, Ran};

#[test]
fn a_wrong_command_line_ends_with_2_and_a_tip() {
    let bench = Bench::new();
    for (arguments, tip) in [
        (vec![], "Usage: amberfs"),
        (vec!["sorce", "list"], "'source'"),
        (vec!["source", "add", "home"], "<PATH>"),
        (vec!["version", "--jsn"], "'--json'"),
        (vec!["-q", "-v", "version"], "cannot be used with"),
    ] {
        let ran = bench.run(&arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(tip), "{arguments:?}: {ran:?}");
        assert_eq!(ran.out, "");
    }
}

#[test]
fn help_and_version_are_answers() {
    let bench = Bench::new();
    let version = format!("amberfs {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(bench.good(["version"]), version);
    assert_eq!(bench.good(["--version"]), version);
    let json = bench.run(["version", "--json"]).json();
    assert_eq!(json[0]["version"], env!("CARGO_PKG_VERSION"));
    assert!(bench.good(["--help"]).contains("AMBERFS_REPOSITORY"));
    assert!(bench.good(["help", "source", "add"]).contains("--exclude-caches"));
}

#[test]
fn a_reader_that_goes_away_is_met_in_silence() {
    let bench = Bench::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bench.command(["completion", "bash"]);
    let ran = Ran::of(command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (141, ""));
}

#[test]
fn a_full_disk_is_not_met_in_silence() {
    let bench = Bench::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = bench.command(["completion", "bash"]);
    let ran = Ran::of(command.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap());
    ran.fails(1, "write to standard output: No space left on device");
}

#[test]
fn diagnostics_are_asked_for_by_a_variable_that_may_be_wrong() {
    let bench = Bench::new();
    let ran = Ran::of(bench.command(["version"]).env("AMBERFS_LOG", "amberfs=loud").output().unwrap());
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("AMBERFS_LOG is ignored"), "{ran:?}");
}
