//! The reference of the command line, `docs/cli.md`, from the definitions themselves.

use std::fmt::Write;

use clap::{Arg, Command};

use super::ENVIRONMENT;
use super::exit::MEANINGS;

/// The whole reference in Markdown.
pub fn markdown(command: Command) -> String {
    let mut command = command.disable_help_subcommand(true).term_width(0);
    command.build();
    let mut text = String::from(
        "# The command line\n\n\
         Written by `amberfs completion reference` from the definitions that parse the arguments; a test compares.\n\n",
    );
    let global: Vec<&Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).collect();
    section(&mut text, &command, "amberfs", &global);
    text += "## Global options\n\n";
    for arg in &global {
        item(&mut text, arg);
    }
    text += "\n## Selectors\n\n";
    text += SELECTORS;
    text += "\n## Configuration\n\n";
    write_line(&mut text, &format!("```toml\n{SAMPLE}```\n"));
    text += "`amberfs source add` appends to it and `amberfs source remove` cuts out of it; both leave the rest as it is.\n";
    text += "A mount sees a change at once.\n";
    text += "\n## Environment\n\n";
    for line in ENVIRONMENT.lines().skip(1) {
        let (name, meaning) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
        write_line(&mut text, &format!("- `{name}`: {}", meaning.trim()));
    }
    text += "\n## Exit codes\n\n| code | meaning |\n|---|---|\n";
    for (code, meaning) in MEANINGS {
        write_line(&mut text, &format!("| {code} | {meaning} |"));
    }
    text
}

/// The sample configuration.
const SAMPLE: &str = include_str!("../../docs/config.toml");

const SELECTORS: &str = "\
A selector names a source, one of its points and a path in it: `SOURCE[@TIME|%LABEL|#ID|~N][:PATH]`.

- `home`: the newest point of home
- `home@yesterday:etc`: etc as it was at the end of yesterday
- `home@2026-11-20T12-00:etc`: at that minute, in the local time zone; with `Z` or an offset elsewhere. A date alone means its end
- `home@3h`, `home@2D`, `home@1w`, `home@1D12h`: so long ago (`Y M W D h m s`; `M` is a month, `m` a minute)
- `home@2026-11-20T12-00-00Z`: the point of that name; when there is none, the newest at or before that time
- `home%before-upgrade`: the newest point with that label; `\\:` and `\\\\` stand for `:` and `\\` in it
- `home#17`: the point with that number
- `home~2`: the second point before the newest, in the order in which points were made
";

fn section(text: &mut String, command: &Command, path: &str, global: &[&Arg]) {
    write_line(text, &format!("## `{path}`\n"));
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        write_line(text, &format!("{}\n", about.to_string().trim()));
    }
    let aliases: Vec<String> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        write_line(text, &format!("Also known as {}.\n", aliases.join(", ")));
    }
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    write_line(text, &format!("```text\n{}\n```\n", with_path(usage, path)));
    let mut any = false;
    for arg in command.get_arguments() {
        let named = |id: &str| arg.get_id() == id;
        if arg.is_hide_set() || named("help") || named("version") || global.iter().any(|g| g.get_id() == arg.get_id()) {
            continue;
        }
        item(text, arg);
        any = true;
    }
    if any {
        text.push('\n');
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        section(text, sub, &format!("{path} {}", sub.get_name()), global);
    }
}

/// Clap's usage line names the innermost command only, unless the whole was built.
fn with_path(usage: &str, path: &str) -> String {
    if usage.starts_with(path) {
        return usage.to_owned();
    }
    let last = path.rsplit(' ').next().unwrap_or(path);
    usage.strip_prefix(last).map_or_else(|| usage.to_owned(), |rest| format!("{path}{rest}"))
}

fn item(text: &mut String, arg: &Arg) {
    let mut names: Vec<String> = Vec::new();
    names.extend(arg.get_short().map(|short| format!("-{short}")));
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    let takes = arg.get_action().takes_values();
    let values: Vec<String> = match arg.get_value_names() {
        Some(values) if takes => values.iter().map(ToString::to_string).collect(),
        _ if takes && arg.is_positional() => vec![arg.get_id().as_str().to_uppercase()],
        _ => Vec::new(),
    };
    let name = format!("{} {}", names.join(", "), values.join(" "));
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    write_line(text, &format!("- `{}`: {}", name.trim(), help.replace('\n', " ").trim()));
}

fn write_line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}
