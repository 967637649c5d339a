//! Keys of encrypted repositories as they are told: through pipes, by people, too short, or for less than is wanted.

use std::process::Command;

use super::bench::{Bench, Ran};
use super::key::{encrypted, good, keyed, private, typed};

#[test]
fn a_key_from_a_pipe_or_a_person_is_taken_once() {
    let bench = Bench::new();
    private(&bench.path("p"), "correct horse\n");
    bench.good(["--password-file", "p", "init", "-q"]);
    assert!(Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap().success());
    let rotated = std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(bench.path("pipe"), "correct horse\n").unwrap());
        let mut command = Command::new("timeout");
        let amberfs = bench.command(["--password-file", "pipe", "--json", "key", "rotate"]);
        command.arg("60").arg(amberfs.get_program()).args(amberfs.get_args()).env_clear().current_dir(bench.path(""));
        command.envs(amberfs.get_envs().filter_map(|(name, value)| Some((name, value?))));
        good(Ran::of(command.output().unwrap()))
    });
    assert_eq!(rotated.json()[0]["epoch"], 2);
    let typed = typed(&bench, &["key", "rotate"], &["correct horse"]);
    assert!(typed.code == 0 && typed.out.contains("epoch 3"), "{typed:?}");
    assert_eq!(typed.out.matches("Passphrase of").count(), 1, "{typed:?}");
    bench.good(["--password-file", "p", "verify", "-q"]);
}

#[test]
fn a_short_passphrase_is_warned_of_when_it_is_made() {
    let bench = Bench::new();
    private(&bench.path("short"), "a\n");
    private(&bench.path("long"), "correct horse\n");
    let ran = bench.run(["--password-file", "short", "init"]);
    assert!(ran.code == 0 && ran.err.contains("the passphrase is short"), "{ran:?}");
    bench.good(["--password-file", "short", "points"]);
    let ran = bench.run(["--password-file", "short", "key", "change", "--new-password-file", "long"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let ran = bench.run(["--password-file", "long", "key", "add", "x", "--new-password-file", "short"]);
    assert!(ran.code == 0 && ran.err.contains("the passphrase is short"), "{ran:?}");
}

#[test]
fn a_key_that_does_not_read_contents_says_so() {
    let bench = encrypted();
    for role in ["writer", "collector"] {
        good(keyed(&bench, "key", &["key", "add", role, "--role", role, "--new-keyfile", &format!("{role}.key")]));
    }
    good(keyed(&bench, "key", &["-q", "capture", "home=tree"]));
    for arguments in [["ls", "home"], ["cat", "home:file"]] {
        let ran = keyed(&bench, "writer.key", &arguments);
        ran.fails(1, "your key is a writer key, which cannot read contents");
        assert!(!ran.err.contains("damaged"), "{ran:?}");
    }
    let ran = keyed(&bench, "collector.key", &["cat", "home:file"]);
    ran.fails(1, "your key is a collector key, which cannot read contents");
    assert!(!ran.err.contains("damaged"), "{ran:?}");
}
