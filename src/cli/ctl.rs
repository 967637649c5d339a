//! `amberfs ctl`: hands a command to a mount, as `echo … > MOUNT/.amberfs/control` does, and prints its answer.

use std::path::PathBuf;

use serde::Serialize;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::base::{Class, Classed};
use crate::job::{JobError, client};

/// Hand a command to a mount's control file, and print its answer
///
/// What a mount understands is in its file .amberfs/help.
#[derive(Debug, clap::Args)]
pub struct CtlArgs {
    /// Where it is mounted
    mountpoint: PathBuf,
    /// The command, such as: capture home label=nightly job=n1
    #[arg(required = true, value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    message_type: &'static str,
    reply: &'a str,
}

/// Runs it.
///
/// # Errors
/// When there is no such mount, or it refuses.
pub fn run(args: &CtlArgs, context: &Context) -> Result<Exit, Failure> {
    let reply = client::send(&args.mountpoint, &line(&args.words)?).map_err(|error| match error {
        JobError::Io { error, path, .. } if error.kind() == std::io::ErrorKind::NotFound => {
            Failure::new(Class::NotFound, format!("there is no {}", path.display()))
                .hint("give the directory where amberfs is mounted; a mount made with -o ro takes no commands")
        }
        // The mount's own words, without the mark that tells them from a good answer.
        JobError::Refused { ref reply, .. } => {
            Failure::new(error.class(), reply.strip_prefix("err ").unwrap_or(reply).to_owned())
        }
        error => error.into(),
    })?;
    let mut out = Output::open();
    if context.global.json {
        out.json(&Answer { message_type: "reply", reply: reply.trim_end() })?;
    } else {
        out.bytes(reply.as_bytes())?;
    }
    out.close()?;
    Ok(Exit::Done)
}

/// One word is a whole line, quoted as its writer saw fit; of several, each keeps its spaces.
fn line(words: &[String]) -> Result<String, Failure> {
    match words {
        [line] => Ok(format!("{line}\n")),
        words => {
            let line = shlex::try_join(words.iter().map(String::as_str))
                .map_err(|error| Failure::usage(format!("the command cannot be quoted: {error}")))?;
            Ok(format!("{line}\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::line::parse;

    #[test]
    fn words_reach_the_mount_as_the_shell_gave_them() {
        let words = |words: &[&str]| line(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap();
        assert_eq!(words(&["capture home label='a b'"]), "capture home label='a b'\n");
        let spaced = words(&["capture", "home", "label=a b", "job=n1"]);
        assert_eq!(parse(spaced.as_bytes()).unwrap(), parse(b"capture home label='a b' job=n1\n").unwrap());
    }
}
