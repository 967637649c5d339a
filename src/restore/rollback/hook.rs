//! The programs that a source's owner has for stopping and starting what uses it.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::super::error::RestoreError;
use super::super::sys;
use crate::base::foreign;

/// How often a hook is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A program with its arguments, run without a shell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook<'a> {
    /// `stop` or `start`.
    pub(super) which: &'static str,
    /// None at all is a hook that does nothing.
    pub(super) command: &'a [String],
    /// When it is killed, with all that it started.
    pub(super) limit: Duration,
}

impl Hook<'_> {
    /// Runs it to its end, its output on standard error; `cancelled` ends it early.
    ///
    /// # Errors
    /// [`RestoreError::Hook`] when it does not start, fails or takes too long; [`RestoreError::Cancelled`].
    pub(super) fn run(self, cancelled: impl Fn() -> bool) -> Result<(), RestoreError> {
        let Some((program, arguments)) = self.command.split_first() else { return Ok(()) };
        let failed = |why: String| RestoreError::Hook {
            which: self.which,
            program: format!("{:?}", self.command.join(" ")),
            why,
        };
        let output = std::io::stderr().as_fd().try_clone_to_owned();
        let output = output.map_err(|error| failed(format!("could not get standard error: {error}")))?;
        let mut child = foreign::program(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::from(output))
            .process_group(0)
            .spawn()
            .map_err(|error| failed(format!("could not be started: {error}")))?;
        let began = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(failed(ended(status))),
                Ok(None) => {}
                Err(error) => return Err(failed(format!("could not be waited for: {error}"))),
            }
            let late = began.elapsed() >= self.limit;
            if late || cancelled() {
                sys::kill_group(child.id());
                // It has just been killed, so this does not wait.
                drop(child.wait());
                let limit = self.limit.as_secs();
                let why = format!("did not end within {limit} s and was killed; --hook-timeout gives it more");
                return Err(if late { failed(why) } else { RestoreError::Cancelled });
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with {code}"),
        None => format!("was ended by {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &[&str], limit: Duration, cancelled: bool) -> Result<(), RestoreError> {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        Hook { which: "stop", command: &command, limit }.run(|| cancelled)
    }

    #[test]
    fn a_hook_ends_well_or_says_how_it_ended() {
        let long = Duration::from_secs(60);
        run(&[], long, true).unwrap();
        run(&["true"], long, false).unwrap();
        for (command, words) in [
            (&["sh", "-c", "exit 7"][..], "the stop hook of the source, \"sh -c exit 7\", ended with 7"),
            (&["/nowhere/hook"], "could not be started: No such file"),
            (&["sh", "-c", "kill -9 $$"], "signal: 9"),
        ] {
            let said = run(command, long, false).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_hook_that_does_not_end_is_killed_with_all_that_it_started() {
        let began = Instant::now();
        let said = run(&["sh", "-c", "sleep 600 & sleep 600"], Duration::from_millis(50), false).unwrap_err();
        assert!(said.to_string().contains("did not end within"), "{said}");
        let cancelled = run(&["sleep", "600"], Duration::from_secs(600), true).unwrap_err();
        assert!(matches!(cancelled, RestoreError::Cancelled));
        assert!(began.elapsed() < Duration::from_secs(300));
    }
}
