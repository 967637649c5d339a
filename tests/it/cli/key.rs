//! Encrypted repositories on the command line: where keys come from, what they open, who has which.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::bench::{Bench, Ran};

/// A file for its owner alone.
pub(super) fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

/// Runs `amberfs` at a terminal of its own, at which each of `answers` is typed when it is asked for something and does
/// not show what is typed. The terminal's text is the output.
pub(super) fn typed(bench: &Bench, arguments: &[&str], answers: &[&str]) -> Ran {
    const TERMINAL: &str = r#"
import json, os, pty, sys, termios, time
arguments, answers = json.loads(sys.argv[1])
pid, fd = pty.fork()
if pid == 0:
    os.execv(arguments[0], arguments)
shown = b""
def read():
    global shown
    try:
        more = os.read(fd, 4096)
    except OSError:
        more = b""
    shown += more
    return more
for answer in answers:
    asked = len(shown)
    while b": " not in shown[asked:]:
        if not read():
            break
    for _ in range(1000):
        if not termios.tcgetattr(fd)[3] & termios.ECHO:
            break
        time.sleep(0.01)
    os.write(fd, answer.encode() + b"\n")
while read():
    pass
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
    let command = bench.command(arguments);
    let program: Vec<String> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|part| part.to_str().unwrap().into())
        .collect();
    let spec = serde_json::to_string(&(program, answers)).unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", TERMINAL, &spec]).env_clear().current_dir(bench.path(""));
    python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ran::of(python.output().unwrap())
}

/// Runs it with these variables.
fn with(bench: &Bench, environment: &[(&str, &str)], arguments: &[impl AsRef<std::ffi::OsStr>]) -> Ran {
    Ran::of(bench.command(arguments).envs(environment.iter().copied()).output().unwrap())
}

/// A repository that the key file `key` opens, which every command here is told by the configuration.
pub(super) fn encrypted() -> Bench {
    let bench = Bench::new();
    bench.good(["init", "-q", "--new-keyfile", "key", "--key-name", "mine"]);
    std::fs::create_dir_all(bench.path("tree/sub")).unwrap();
    std::fs::write(bench.path("tree/file"), "content").unwrap();
    std::fs::write(bench.path("tree/sub/large"), "line\n".repeat(100_000)).unwrap();
    bench
}

/// The same command with a key file.
pub(super) fn keyed(bench: &Bench, key: &str, arguments: &[&str]) -> Ran {
    bench.run([&["--keyfile", key], arguments].concat())
}

#[track_caller]
pub(super) fn good(ran: Ran) -> Ran {
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    ran
}

#[test]
fn a_repository_is_encrypted_unless_that_is_refused_in_so_many_words() {
    let bench = Bench::new();
    let ran = bench.run(["init"]);
    ran.fails(12, "there is no terminal to ask at");
    assert!(ran.err.contains("--new-keyfile") && ran.err.contains("--unencrypted"), "{ran:?}");
    assert!(!bench.path("repo/amberfs").exists(), "nothing is there yet");
    for option in ["--new-keyfile", "--password-file", "--keyfile", "--password-command"] {
        assert_eq!(bench.run(["init", "--unencrypted", option, "x"]).code, 2, "{option}");
    }
    assert!(!bench.path("repo").exists() && !bench.path("x").exists());
    let told = bench.good(["init", "--unencrypted"]);
    assert!(told.contains("unencrypted"), "{told}");
    private(&bench.path("p"), "secret\n");
    bench.run(["--password-file", "p", "status"]).fails(2, "is not encrypted");
    bench.run(["key", "list"]).fails(2, "not encrypted");
}

/// Variables and arguments that tell a key.
type Way<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn a_key_comes_from_a_file_a_program_or_the_environment() {
    let bench = Bench::new();
    private(&bench.path("password"), "correct horse\nsecond line\n");
    private(&bench.path("wrong"), "correct  horse\n");
    // Each way to make a repository, and for each of them every way to open it.
    let file = ["--password-file", "password"];
    let command = ["--password-command", "cat password"];
    let ways: [Way<'_>; 6] = [
        (&[], &file),
        (&[], &command),
        (&[("AMBERFS_PASSWORD", "correct horse")], &[]),
        (&[("AMBERFS_PASSWORD_FILE", "password")], &[]),
        (&[("AMBERFS_PASSWORD_COMMAND", "echo correct horse")], &[]),
        // An option is stronger than the environment.
        (&[("AMBERFS_PASSWORD", "wrong")], &file),
    ];
    for (n, way) in ways.iter().enumerate().step_by(2) {
        let place = format!("repo{n}");
        let at = |arguments: &[&str]| -> Vec<String> {
            ["-r", &place].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect()
        };
        let made = good(with(&bench, way.0, &at(&[way.1, &["init", "--json"]].concat())));
        assert_eq!(made.json()[0]["encrypted"], Value::Bool(true));
        for way in &ways {
            good(with(&bench, way.0, &at(&[way.1, &["points"]].concat())));
        }
        bench.run(at(&["points"])).fails(12, "there is no terminal to ask at");
        bench.run(at(&["--password-file", "wrong", "points"])).fails(12, "no key");
        with(&bench, &[("AMBERFS_PASSWORD", "correct")], &at(&["points"])).fails(12, "no key");
        let ran = bench.run(at(&["--password-command", "false", "points"]));
        ran.fails(12, "the password command");
        assert!(!made.out.contains("correct horse") && !made.err.contains("correct horse"));
    }
    std::fs::set_permissions(bench.path("password"), std::fs::Permissions::from_mode(0o644)).unwrap();
    bench.run(["-r", "repo0", "--password-file", "password", "points"]).fails(1, "open to others");
    // The configuration names where the key comes from, for its own repository.
    private(&bench.path("password"), "correct horse\n");
    let config = |line: &str| {
        let text = format!("[repository]\nurl = {:?}\n{line}\n", bench.path("repo0"));
        std::fs::write(bench.path("config.toml"), text).unwrap();
        Ran::of(bench.command(["points"]).env_remove("AMBERFS_REPOSITORY").output().unwrap())
    };
    good(config(&format!("password_file = {:?}", bench.path("password"))));
    good(config("password_command = \"echo correct horse\""));
    config(&format!("password_file = {:?}", bench.path("wrong"))).fails(12, "no key");
    config("").fails(12, "there is no terminal");
    bench.run(["-r", "repo0", "points"]).fails(12, "there is no terminal");
}

#[test]
fn a_key_file_is_made_for_its_owner_and_never_overwritten() {
    let bench = encrypted();
    assert_eq!(mode(&bench.path("key")), 0o600);
    let text = std::fs::read_to_string(bench.path("key")).unwrap();
    good(keyed(&bench, "key", &["points"]));
    bench.run(["-r", "elsewhere", "init", "--new-keyfile", "key"]).fails(11, "key");
    assert_eq!(std::fs::read_to_string(bench.path("key")).unwrap(), text);
    // What is in the way of a repository leaves no key file that opens nothing.
    bench.run(["init", "--new-keyfile", "second"]).fails(11, "is not empty");
    assert!(!bench.path("second").exists());
    bench.run(["-r", "other", "init", "-q", "--new-keyfile", "other.key"]);
    keyed(&bench, "other.key", &["points"]).fails(12, "no key");
    private(&bench.path("none"), "no key\n");
    keyed(&bench, "none", &["points"]).fails(2, "is no key file");
    keyed(&bench, "absent", &["points"]).fails(12, "does not exist");
    std::fs::set_permissions(bench.path("key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    keyed(&bench, "key", &["points"]).fails(1, "chmod 600");
    // In every directory of the repository, too, nobody else looks.
    let found = Command::new("find").arg(bench.path("repo")).args(["-type", "d", "-perm", "/077"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn a_passphrase_is_typed_twice_to_make_a_repository_and_once_to_open_it() {
    let bench = Bench::new();
    let told = typed(&bench, &["init"], &["correct horse", "correct house"]);
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.out.contains("the two passphrases differ"), "{told:?}");
    assert!(!bench.path("repo/amberfs").exists());
    assert_eq!(typed(&bench, &["init"], &["", ""]).code, 2);
    let made = typed(&bench, &["init"], &["correct horse", "correct horse"]);
    assert!(made.code == 0 && made.out.contains("again: ") && made.out.contains("encrypted"), "{made:?}");
    let opened = typed(&bench, &["points"], &["correct horse"]);
    assert!(opened.code == 0 && opened.out.contains("Passphrase of"), "{opened:?}");
    let wrong = typed(&bench, &["points"], &["incorrect"]);
    assert!(wrong.code == 12 && wrong.out.contains("no key"), "{wrong:?}");
    for ran in [told, made, opened, wrong] {
        assert!(
            !ran.out.contains("correct ho") && !ran.out.contains("incorrect"),
            "what is typed is not shown: {ran:?}"
        );
    }
    // A new key, by somebody who types both.
    let changed = typed(&bench, &["key", "change"], &["correct horse", "battery", "battery"]);
    assert_eq!(changed.code, 0, "{changed:?}");
    assert_eq!(typed(&bench, &["points"], &["correct horse"]).code, 12);
    assert_eq!(typed(&bench, &["points"], &["battery"]).code, 0);
}

#[test]
fn everything_works_with_an_encrypted_repository() {
    let bench = encrypted();
    let run = |arguments: &[&str]| good(keyed(&bench, "key", arguments));
    let capture = || run(&["--json", "capture", "home=tree"]).json().pop().unwrap();
    let first = capture();
    std::fs::write(bench.path("tree/file"), "changed").unwrap();
    std::fs::write(bench.path("tree/new"), "new").unwrap();
    let second = capture();
    assert_eq!((&first["kind"], &second["kind"]), (&Value::from("full"), &Value::from("incremental")));
    let points: Vec<Value> = run(&["points", "--json"]).json().iter().map(|point| point["name"].clone()).collect();
    assert_eq!(points, [first["point"].clone(), second["point"].clone()]);
    assert_eq!(run(&["cat", "home:file"]).out, "changed");
    let of_first = format!("home@{}", first["point"].as_str().unwrap());
    assert_eq!(run(&["cat", &format!("{of_first}:file")]).out, "content");
    let listed = run(&["ls", "home"]).out;
    assert!(listed.contains("file") && listed.contains("sub") && listed.contains("new"), "{listed}");
    run(&["restore", &of_first, "--to", "restored"]);
    assert_eq!(std::fs::read_to_string(bench.path("restored/file")).unwrap(), "content");
    assert!(!bench.path("restored/new").exists());
    let verified = run(&["--json", "verify", "--read-data"]).json().pop().unwrap();
    assert_eq!(verified["damaged"], Value::from(0), "{verified}");
    let of_second = format!("home@{}", second["point"].as_str().unwrap());
    run(&["delete", &of_second, "--yes"]);
    assert_eq!(run(&["points", "--json"]).json().len(), 1);
    run(&["undelete", &of_second]);
    run(&["rollback", &of_first, "--yes"]);
    assert_eq!(std::fs::read_to_string(bench.path("tree/file")).unwrap(), "content");
    assert!(!bench.path("tree/new").exists());
    run(&["status"]);
    run(&["source", "list"]);
    // Each of them is refused without the key, in one sentence.
    for arguments in [
        &["capture", "home=tree"][..],
        &["points"],
        &["ls", "home"],
        &["cat", "home:file"],
        &["restore", "home", "--to", "x"],
        &["verify"],
        &["delete", "home@latest", "--yes"],
        &["rollback", "home", "--yes"],
        &["status"],
    ] {
        bench.run(arguments).fails(12, "there is no terminal");
    }
}

#[test]
fn every_byte_of_every_object_is_authenticated_by_verify() {
    let bench = encrypted();
    good(keyed(&bench, "key", &["-q", "capture", "home=tree"]));
    let listed = Command::new("find").arg(bench.path("repo")).args(["-type", "f"]).output().unwrap();
    let mut damaged = 0;
    for path in String::from_utf8(listed.stdout).unwrap().lines() {
        let sound = std::fs::read(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        // Padding as much as anything: the places are all over the object.
        for part in 0..12 {
            let mut bytes = sound.clone();
            let at = (bytes.len() - 1) * part / 11;
            bytes[at] ^= 0x40;
            std::fs::write(path, bytes).unwrap();
            let ran = keyed(&bench, "key", &["verify", "--read-data"]);
            assert_eq!(ran.code, 13, "byte {at} of {path}: {ran:?}");
            damaged += 1;
        }
        std::fs::write(path, sound).unwrap();
    }
    assert!(damaged >= 60, "{damaged}");
    good(keyed(&bench, "key", &["verify", "--read-data", "-q"]));
}

#[test]
fn keys_are_listed_added_changed_removed_and_rotated() {
    let bench = encrypted();
    let run = |arguments: &[&str]| good(keyed(&bench, "key", arguments));
    run(&["-q", "capture", "home=tree"]);
    let list = || run(&["key", "list", "--json"]).json();
    let names = || list().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let only = list();
    assert_eq!((only.len(), &only[0]["role"], &only[0]["own"]), (1, &Value::from("full"), &Value::from(true)));
    assert_eq!((&only[0]["name"], &only[0]["epoch"]), (&Value::from("mine"), &Value::from(1)));

    assert!(run(&["key", "add", "web1", "--role", "writer", "--new-keyfile", "web1.key"]).out.contains("added"));
    assert_eq!(mode(&bench.path("web1.key")), 0o600);
    private(&bench.path("p"), "of the other\n");
    let added = run(&["--json", "key", "add", "other", "--new-password-file", "p"]).json();
    assert_eq!((&added[0]["message_type"], &added[0]["role"]), (&Value::from("added"), &Value::from("full")));
    run(&["key", "add", "gone", "--new-keyfile", "gone.key"]);
    assert_eq!(names(), ["mine", "web1", "other", "gone"]);
    let table = run(&["key", "list"]).out;
    assert!(table.contains("mine (in use)") && table.contains("writer"), "{table}");
    // Taken names, taken passphrases, and key files that would be made for nothing.
    keyed(&bench, "key", &["key", "add", "gone", "--new-keyfile", "second.key"]).fails(11, "exists already");
    assert!(!bench.path("second.key").exists());
    keyed(&bench, "key", &["key", "add", "third", "--new-password-file", "p"]).fails(11, "another slot already");
    keyed(&bench, "key", &["key", "add", "a\nb", "--new-keyfile", "x"]).fails(2, "control characters");
    keyed(&bench, "key", &["key", "remove", "nobody"]).fails(1, "does not exist");
    for arguments in [["key", "list"], ["key", "rotate"]] {
        keyed(&bench, "web1.key", &arguments).fails(1, "writer");
    }

    let at = |repo: &str| {
        let objects = Command::new("find")
            .args([repo, "-type", "f", "-not", "-path", "*/key/*", "-exec", "b2sum", "{}", "+"])
            .current_dir(bench.path(""))
            .output()
            .unwrap();
        let mut lines: Vec<String> = String::from_utf8(objects.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = at("repo");
    run(&["key", "change", "--new-keyfile", "key2"]);
    assert_eq!(at("repo"), before, "a change rewrites nothing");
    keyed(&bench, "key", &["points"]).fails(12, "no key");
    std::fs::rename(bench.path("key2"), bench.path("key")).unwrap();
    run(&["cat", "home:file"]);

    run(&["key", "remove", "other"]);
    bench.run(["--password-file", "p", "points"]).fails(12, "no key");
    run(&["key", "remove", "gone"]);
    keyed(&bench, "key", &["key", "remove", "mine"]).fails(11, "last that gives everything");
    let rotated = run(&["--json", "key", "rotate", "--yes"]).json();
    assert_eq!((&rotated[0]["epoch"], &rotated[0]["removed"]), (&Value::from(2), &serde_json::json!(["web1"])));
    keyed(&bench, "web1.key", &["points"]).fails(12, "no key");
    assert_eq!(names(), ["mine"]);
    run(&["key", "rotate"]);
    assert_eq!(list()[0]["epoch"], Value::from(3));
    std::fs::write(bench.path("tree/file"), "behind a rotation").unwrap();
    run(&["-q", "capture", "home=tree"]);
    assert_eq!(run(&["cat", "home:file"]).out, "behind a rotation");
    assert_eq!(run(&["cat", "home~1:file"]).out, "content");
    run(&["verify", "--read-data", "-q"]);
}

#[test]
fn a_collector_key_deletes_and_that_is_all() {
    let bench = encrypted();
    let admin = |arguments: &[&str]| good(keyed(&bench, "key", arguments));
    admin(&["capture", "home=tree", "-q"]);
    std::fs::write(bench.path("tree/file"), "later").unwrap();
    admin(&["capture", "home=tree", "-q"]);
    admin(&["key", "add", "sweeper", "--role", "collector", "--new-keyfile", "sweeper.key"]);
    let run = |arguments: &[&str]| keyed(&bench, "sweeper.key", arguments);
    assert!(good(run(&["ls", "home"])).out.contains("file"), "names are shown");
    let deleted = good(run(&["delete", "home~1", "--rebase", "--yes"]));
    assert!(deleted.out.contains("1 point"), "{deleted:?}");
    assert_eq!(admin(&["points", "--json", "home"]).json().len(), 1);
    let trash = good(run(&["points", "--trash", "--json", "home"])).json();
    good(run(&["undelete", &format!("home@{}", trash[0]["name"].as_str().unwrap())]));
    assert_eq!(admin(&["points", "--json", "home"]).json().len(), 2);
    for arguments in [
        &["cat", "home:file"][..],
        &["restore", "home", "--to", "r"],
        &["capture", "home=tree"],
        &["capture", "other=tree"],
        &["rollback", "home~1", "--yes"],
        &["source", "remove", "home", "--yes"],
        &["key", "list"],
        &["key", "rotate"],
        &["verify", "--read-data"],
    ] {
        let ran = run(arguments);
        assert!(ran.code != 0 && ran.code != 13 && !ran.out.contains("later"), "{arguments:?}: {ran:?}");
    }
    assert_eq!(admin(&["cat", "home:file"]).out, "later");
    admin(&["key", "remove", "sweeper"]);
    run(&["delete", "home~1", "--rebase", "--yes"]).fails(12, "no key");
    admin(&["verify", "--read-data", "-q"]);
}

#[test]
fn a_host_with_a_writer_key_captures_and_that_is_all() {
    let bench = encrypted();
    let admin = |arguments: &[&str]| good(keyed(&bench, "key", arguments));
    admin(&["key", "add", "web1", "--role", "writer", "--new-keyfile", "web1.key"]);
    let capture = || good(keyed(&bench, "web1.key", &["--json", "capture", "web1=tree"])).json().pop().unwrap();
    assert_eq!(capture()["kind"], "full");
    std::fs::write(bench.path("tree/file"), "later").unwrap();
    assert_eq!(capture()["kind"], "incremental", "it has kept what it needs in its state directory");
    std::fs::remove_dir_all(bench.path("state/sessions")).unwrap();
    let lost = capture();
    assert_eq!(lost["kind"], "full");
    let row = admin(&["points", "--json", "web1"]).json().pop().unwrap();
    assert!(row.to_string().contains("is lost") || lost.to_string().contains("is lost"), "{lost} {row}");
    assert_eq!(capture()["kind"], "incremental");
    assert_eq!(admin(&["cat", "web1:file"]).out, "later");

    for arguments in [&["ls", "web1"][..], &["cat", "web1:file"], &["restore", "web1", "--to", "r"]] {
        let ran = keyed(&bench, "web1.key", arguments);
        assert!(ran.code != 0 && !ran.out.contains("later"), "{arguments:?}: {ran:?}");
        assert!(ran.code != 13, "a key that is not at hand is no damage: {arguments:?}: {ran:?}");
    }
    for arguments in [
        &["delete", "web1@latest", "--yes"][..],
        &["rollback", "web1", "--yes"],
        &["source", "remove", "web1", "--yes"],
        &["key", "rotate"],
        &["key", "list"],
    ] {
        let ran = keyed(&bench, "web1.key", arguments);
        assert!(ran.code != 0, "{arguments:?}: {ran:?}");
    }
    assert_eq!(admin(&["points", "--json", "web1"]).json().len(), 4);
    // Who cannot read all of it does not say that all of it is sound, nor that any of it is damaged.
    for arguments in [&["verify"][..], &["verify", "--read-data"]] {
        let ran = keyed(&bench, "web1.key", arguments);
        assert!(ran.code != 0 && ran.code != 13, "{arguments:?}: {ran:?}");
    }

    admin(&["key", "remove", "web1"]);
    keyed(&bench, "web1.key", &["capture", "web1=tree"]).fails(12, "no key");
    admin(&["verify", "--read-data", "-q"]);
}
