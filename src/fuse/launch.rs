//! The processes of a mount, and how `amberfs mount` starts them.
//!
//! ```text
//!  amberfs mount ──starts──> supervisor ──starts──> server
//!        <──"ready" or why not──    <──lifeline──>
//! ```
//! - The *command* starts the supervisor and ends with 0 once the mount answers, or passes on message
//!   and exit code of whoever failed. With `--foreground` it is the supervisor itself.
//! - The *supervisor* lives in a session of its own. When the server dies it takes the dead mount away.
//! - The *server* serves. When the supervisor dies it starts a new one (a *successor*).
//!
//! Each is this program, executed anew with the hidden option `--role`; nothing is forked without an
//! exec, so threads and locks of one never reach another.
//!
//! When supervisor and server are killed at once a dead mount stays; the next `amberfs mount` there, or `amberfs umount`,
//! clears it.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use super::error::MountError;
use super::lifeline::{Word, leave_streams};
use super::log_file::LogFile;
use super::mountinfo::DeviceId;
use super::options::MountOptions;
use super::serve::Contents;
use super::{place, server, supervise, sys};
use crate::base::heirloom::Heirloom;
use crate::base::{Class, Classed};

/// Which process of a mount this is; the value of the hidden option `--role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What the user started.
    Command,
    /// Watches the server that it starts.
    Supervisor,
    /// Watches a server that is there already and serves this device.
    Successor(DeviceId),
    /// Serves.
    Server,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Command => f.write_str("command"),
            Role::Supervisor => f.write_str("supervisor"),
            Role::Successor(device) => write!(f, "successor:{device}"),
            Role::Server => f.write_str("server"),
        }
    }
}

impl FromStr for Role {
    type Err = MountError;

    fn from_str(text: &str) -> Result<Role, MountError> {
        match (text, text.strip_prefix("successor:").map(str::parse)) {
            ("command", _) => Ok(Role::Command),
            ("supervisor", _) => Ok(Role::Supervisor),
            ("server", _) => Ok(Role::Server),
            (_, Some(Ok(device))) => Ok(Role::Successor(device)),
            _ => Err(MountError::Protocol(format!("no role \"{text}\" in a mount"))),
        }
    }
}

/// What `amberfs mount` was asked for, in whichever role this process plays.
pub struct Launch<'a> {
    /// This process's role.
    pub role: Role,
    /// Where to mount; in every role but the command's what [`Launch::arguments`] was given.
    pub mountpoint: PathBuf,
    /// The directory of a local repository.
    pub repository: Option<PathBuf>,
    /// How the mount behaves.
    pub options: MountOptions,
    /// Stay attached to the terminal.
    pub foreground: bool,
    /// Where a mount in the background leaves what its processes say.
    pub log: Option<LogFile>,
    /// The arguments with which this program comes back here, for a canonical mountpoint and a role.
    /// They must mean the same in any working directory.
    pub arguments: &'a dyn Fn(&Path, Role) -> Vec<OsString>,
    /// What the arguments name by its descriptor.
    pub heirloom: Option<Heirloom>,
}

/// Why there is no mount, for a command to end with.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failed {
    /// Exit code.
    pub code: u8,
    /// Message; empty when another process of the mount has told it already.
    pub message: String,
    /// What to do about it, if that is known.
    pub advice: Option<String>,
}

impl Failed {
    /// One that nobody has explained.
    pub(super) fn unexplained(message: String) -> Failed {
        Failed { code: 1, message, advice: None }
    }

    /// A failure to mount, with the exit code that `code` has for its class.
    pub fn of(error: &MountError, code: impl Fn(Class) -> u8) -> Failed {
        Failed { code: code(error.class()), message: error.to_string(), advice: None }
    }

    /// The same, for a process whose words another one passes on.
    pub(crate) fn told(self) -> Failed {
        Failed { message: String::new(), advice: None, ..self }
    }
}

/// Plays this process's role: for the command, until the mount answers; otherwise until it has ended.
/// Only the server calls `open`, which makes what the mount shows, before anything is mounted.
/// `code` gives the exit code for a class of failure.
///
/// # Errors
/// [`Failed`], whoever it was that failed.
pub fn mount(
    launch: &Launch<'_>,
    open: impl FnOnce() -> Result<Contents, Failed>,
    code: impl Fn(Class) -> u8,
) -> Result<(), Failed> {
    let failed = |error: MountError| Failed::of(&error, &code);
    match launch.role {
        Role::Command => {
            let prepared = place::prepare(&launch.mountpoint, launch.repository.as_deref(), launch.options.nonempty);
            let place = prepared.map_err(failed)?;
            if launch.foreground {
                supervise::supervise(launch, &place, None).unwrap_or_else(|error| Err(failed(error)))
            } else {
                command(launch, &place).unwrap_or_else(|error| Err(failed(error)))
            }
        }
        Role::Supervisor => {
            let report = Some(io::stdout());
            let outcome = supervise::supervise(launch, &launch.mountpoint, report);
            let outcome = outcome.unwrap_or_else(|error| Err(failed(error)));
            if let Err(failed) = &outcome {
                // After the mount has answered nobody listens any more.
                let _heard = Word::Failed(failed.clone()).say(&mut io::stdout());
            }
            outcome.map_err(Failed::told)
        }
        Role::Successor(device) => supervise::succeed(launch, device).map_err(failed),
        Role::Server => server::server(launch, open, &code),
    }
}

/// The command's part: starts the supervisor and hears from it how it went.
fn command(launch: &Launch<'_>, place: &Path) -> Result<Result<(), Failed>, MountError> {
    let failed = |doing| move |cause| MountError::Process { doing, cause };
    let (report, stdout) = io::pipe().map_err(failed("make a pipe"))?;
    let supervisor = start(launch, place, Role::Supervisor, Stdio::null(), Stdio::from(stdout))?;
    let outcome = hear_report(report);
    if outcome.is_err() {
        // It ends by itself after a failure; its word has been heard.
        let _ended = { supervisor }.wait();
    }
    Ok(outcome)
}

fn hear_report(report: PipeReader) -> Result<(), Failed> {
    let mut outcome = Err(Failed::unexplained("the mount's supervisor ended without a word".to_owned()));
    Word::hear_all(report, |word| {
        match word {
            Word::Ready(_) => outcome = Ok(()),
            Word::Failed(failed) => outcome = Err(failed),
            Word::Bye | Word::End => {}
        }
        false
    });
    outcome
}

/// Executes this program in `role`. Its standard error is ours. Each role but the command's catches the signals that
/// are to end it, and hears those that came before it could.
pub(crate) fn start(
    launch: &Launch<'_>,
    place: &Path,
    role: Role,
    stdin: Stdio,
    stdout: Stdio,
) -> Result<Child, MountError> {
    // The running program itself, also if it has been replaced on disk since.
    let mut command = Command::new("/proc/self/exe");
    command.args((launch.arguments)(place, role)).stdin(stdin).stdout(stdout);
    if let Some(heirloom) = launch.heirloom {
        heirloom.pass_to(&mut command);
    }
    sys::hold_ending_signals(&mut command);
    command.spawn().map_err(|cause| MountError::Process { doing: "start amberfs once more", cause })
}

/// Lets go of terminal and caller, in the background.
pub(crate) fn leave_caller(launch: &Launch<'_>) {
    if !launch.foreground
        && let Err(error) = leave_streams(launch.log.as_ref())
    {
        tracing::warn!("cannot let go of the terminal: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_back() {
        let device: DeviceId = "0:57".parse().unwrap();
        for role in [Role::Command, Role::Supervisor, Role::Successor(device), Role::Server] {
            assert_eq!(role.to_string().parse::<Role>().unwrap(), role);
        }
        assert!("successor:".parse::<Role>().is_err());
        assert!("king".parse::<Role>().is_err());
    }
}
