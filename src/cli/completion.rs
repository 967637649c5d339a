//! `amberfs completion`: what is generated from the definitions of the command line itself.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory, Subcommand};
use clap_complete::Shell;

use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::{Cli, reference};

/// Print completions for a shell, or write the manual pages
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// For what.
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Completions for bash: . <(amberfs completion bash)
    Bash,
    /// Completions for zsh: amberfs completion zsh >"${fpath[1]}/_amberfs"
    Zsh,
    /// Completions for fish: amberfs completion fish >~/.config/fish/completions/amberfs.fish
    Fish,
    /// Write manual pages, amberfs.1 and one for each command, into a directory
    Man {
        /// The directory; it is created if need be
        directory: PathBuf,
    },
    /// Print the reference of the command line in Markdown
    #[command(hide = true)]
    Reference,
}

/// Runs it.
///
/// # Errors
/// When the output cannot be written.
pub fn run(args: &CompletionArgs) -> Result<Exit, Failure> {
    let mut out = Output::open();
    match &args.what {
        What::Bash => out.bytes(&script(Shell::Bash))?,
        What::Zsh => out.bytes(&script(Shell::Zsh))?,
        What::Fish => out.bytes(&script(Shell::Fish))?,
        What::Man { directory } => man(directory)?,
        What::Reference => out.bytes(reference::markdown(Cli::command()).as_bytes())?,
    }
    out.close()?;
    Ok(Exit::Done)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "amberfs", &mut script);
    script
}

fn man(directory: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io(format!("write manual pages to {directory:?}"), &error);
    fs::create_dir_all(directory).map_err(failed)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![(String::from("amberfs"), command)];
    while let Some((name, command)) = pages.pop() {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            pages.push((format!("{name}-{}", sub.get_name()), sub.clone()));
        }
        fs::write(directory.join(format!("{name}.1")), page(&name, command).map_err(failed)?).map_err(failed)?;
    }
    Ok(())
}

fn page(name: &str, command: Command) -> Result<Vec<u8>, std::io::Error> {
    let mut page = Vec::new();
    let manual = clap_mangen::Man::new(command).title(name.to_uppercase()).section("1").source(super::version::VERSION);
    manual.render(&mut page)?;
    Ok(page)
}
