//! What is generated from the definitions of the command line: the reference, completions, manual pages.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::bench::Bench;

#[test]
fn the_reference_is_that_of_this_binary() {
    let wanted = Bench::new().good(["completion", "reference"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/cli.md is out of date: amberfs completion reference >docs/cli.md");
}

#[test]
fn completions_exist_for_each_shell_and_bash_takes_them() {
    let bench = Bench::new();
    for (shell, mark) in
        [("bash", "complete -F _amberfs"), ("zsh", "#compdef amberfs"), ("fish", "complete -c amberfs")]
    {
        assert!(bench.good(["completion", shell]).contains(mark), "{shell}");
    }
    fs::write(bench.path("completion"), bench.good(["completion", "bash"])).unwrap();
    let checked = Command::new("bash").arg("-n").arg(bench.path("completion")).status().unwrap();
    assert!(checked.success());
}

#[test]
fn every_command_has_a_manual_page() {
    let bench = Bench::new();
    bench.good(["completion", "man", "deep/man1"]);
    let page = |name: &str| fs::read_to_string(bench.path("deep/man1").join(name)).unwrap();
    assert!(page("amberfs.1").contains(".TH AMBERFS 1"));
    assert!(page("amberfs-source-add.1").contains("exclude"));
    let commands = bench.good(["--help"]);
    let commands = commands.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in commands.filter_map(command).filter(|command| *command != "help") {
        assert!(page(&format!("amberfs-{command}.1")).contains(".SH SYNOPSIS"), "{command}");
    }
}

/// The command that a line of the list in `--help` begins; none in a line that goes on.
fn command(line: &str) -> Option<&str> {
    line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split_whitespace().next())
}
