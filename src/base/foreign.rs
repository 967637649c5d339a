//! Programs of others: hooks, password commands, credential processes, helpers of the system.
//!
//! They are started here and nowhere else, so that none gets what opens a repository. The rest of the environment they
//! have as it is: hooks and helpers are found and configured by it.

use std::ffi::OsStr;
use std::process::Command;

/// The variables that tell a key, or where it is.
pub const KEY_VARIABLES: [&str; 4] =
    ["AMBERFS_PASSWORD", "AMBERFS_PASSWORD_FILE", "AMBERFS_PASSWORD_COMMAND", "AMBERFS_KEYFILE"];

/// A command that runs `name` without [`KEY_VARIABLES`].
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    for variable in KEY_VARIABLES {
        command.env_remove(variable);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_tells_a_key_is_in_the_environment_of_others() {
        let command = program("true");
        let removed: Vec<&OsStr> =
            command.get_envs().filter_map(|(name, value)| value.is_none().then_some(name)).collect();
        for variable in KEY_VARIABLES {
            assert!(removed.contains(&OsStr::new(variable)), "{variable}");
        }
    }
}
