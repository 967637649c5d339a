//! What programs of others get of a key when amberfs starts them: hooks and password commands. They record their
//! environment, their open files, and whether they could look into the process that started them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::bench::{Bench, Ran};

/// A passphrase that nothing else here has.
const PASSPHRASE: &str = "hush-hush-4711";

/// An executable that leaves what it has in `NAME.env` and `NAME.fd`, and who owns what the kernel shows of its parent's
/// environment in `NAME.parent`; then it runs `then`.
fn recorder(bench: &Bench, name: &str, then: &str) -> String {
    let (path, at) = (bench.path(name), bench.path(name).display().to_string());
    let script = format!(
        "#!/bin/sh\nenv >{at}.env\nls -l /proc/$$/fd >{at}.fd\nstat -c %u /proc/$PPID/environ >{at}.parent\n{then}\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    at
}

fn read(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// That the program of this name ran, and saw nothing that opens the repository.
#[track_caller]
fn has_seen_nothing(bench: &Bench, name: &str) {
    let environment = read(bench, &format!("{name}.env"));
    assert!(environment.contains("PATH=") && environment.contains("AMBERFS_CONFIG="), "{environment}");
    let keys = ["AMBERFS_PASSWORD", "AMBERFS_KEYFILE", PASSPHRASE];
    assert!(keys.iter().all(|key| !environment.contains(key)), "{name}: {environment}");
    let files = read(bench, &format!("{name}.fd"));
    // Whoever runs these tests may have left open other files.
    let kept: Vec<&str> = files.lines().filter(|line| line.ends_with("/password") || line.contains("memfd:")).collect();
    assert!(files.contains(" 0 -> ") && kept.is_empty(), "{name} has the passphrase: {kept:?}");
}

/// A repository with a source whose hooks record what they see; its one point.
fn with_hooks() -> (Bench, String) {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("tree")).unwrap();
    std::fs::write(bench.path("tree/file"), "content").unwrap();
    let hooks = ["stop", "start"].map(|name| format!("{name} = [{:?}]\n", recorder(&bench, name, "")));
    let source = format!("[[source]]\nname = \"home\"\npath = {:?}\n{}", bench.path("tree"), hooks.concat());
    std::fs::write(bench.path("config.toml"), source).unwrap();
    good(bench.command(["init", "-q"]).env("AMBERFS_PASSWORD", PASSPHRASE));
    good(bench.command(["capture", "-q", "home"]).env("AMBERFS_PASSWORD", PASSPHRASE));
    let points = good(bench.command(["points", "-q", "--json", "home"]).env("AMBERFS_PASSWORD", PASSPHRASE)).json();
    let name = points[0]["name"].as_str().unwrap().to_owned();
    std::fs::write(bench.path("tree/file"), "changed").unwrap();
    (bench, format!("home@{name}"))
}

#[track_caller]
fn good(command: &mut Command) -> Ran {
    let ran = Ran::of(command.output().unwrap());
    assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
    ran
}

#[test]
fn hooks_get_no_key_from_the_environment() {
    let (bench, point) = with_hooks();
    let mut rollback = bench.command(["rollback", &point, "--yes"]);
    rollback.env("AMBERFS_PASSWORD", PASSPHRASE).env("AMBERFS_PASSWORD_FILE", "/nonexistent");
    rollback.env("AMBERFS_PASSWORD_COMMAND", "false").env("AMBERFS_KEYFILE", "/nonexistent");
    good(&mut rollback);
    assert_eq!(read(&bench, "tree/file"), "content");
    for hook in ["stop", "start"] {
        has_seen_nothing(&bench, hook);
    }
}

/// As the jobs of a mount get it: by the descriptor of a file that they have inherited.
#[test]
fn hooks_get_no_key_by_a_descriptor() {
    let (bench, point) = with_hooks();
    std::fs::write(bench.path("password"), PASSPHRASE).unwrap();
    std::fs::set_permissions(bench.path("password"), std::fs::Permissions::from_mode(0o600)).unwrap();
    for (way, path) in [("option", "/proc/self/fd/7"), ("environment", "/dev/fd/7")] {
        std::fs::write(bench.path("tree/file"), way).unwrap();
        let (own, script) = (bench.command([] as [&str; 0]), "exec 7<password; rm -f *.env *.fd; exec \"$@\"");
        let mut shell = Command::new("bash");
        shell.args(["-c", script, "bash"]).arg(own.get_program());
        shell.env_clear().envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.current_dir(bench.path(""));
        match way {
            "option" => shell.args(["--password-file", path]),
            _ => shell.env("AMBERFS_PASSWORD_FILE", path),
        };
        good(shell.args(["rollback", &point, "--yes"]));
        for hook in ["stop", "start"] {
            has_seen_nothing(&bench, hook);
        }
    }
}

#[test]
fn a_password_command_gets_no_other_key() {
    let (bench, _) = with_hooks();
    let ask = recorder(&bench, "ask", &format!("echo {PASSPHRASE}"));
    let mut points = bench.command(["--password-command", &ask, "points"]);
    good(points.env("AMBERFS_PASSWORD", "wrong").env("AMBERFS_KEYFILE", "/nonexistent"));
    has_seen_nothing(&bench, "ask");
}

/// What the kernel shows of a process belongs to root when nobody else may look into it or have its core.
#[test]
fn a_process_with_a_key_is_closed_to_others_of_its_user() {
    let (bench, _) = with_hooks();
    let ask = recorder(&bench, "ask", &format!("echo {PASSPHRASE}"));
    let owner = |traceable: bool| {
        let mut command = bench.unprivileged(["--password-command", &ask, "points"]);
        if traceable {
            command.env("AMBERFS_TRACEABLE", "1");
        }
        good(&mut command);
        read(&bench, "ask.parent").trim().parse::<u32>().unwrap()
    };
    let user = match std::fs::metadata("/proc/self").unwrap().uid() {
        0 => 65534,
        user => user,
    };
    assert_eq!(owner(true), user, "debuggers may, when they are let");
    assert_eq!(owner(false), 0);
    assert!(Path::new("/proc/self/environ").exists());
}
