//! Where amberfs keeps its configuration, its state and its cache on this machine.
//!
//! | | root | users | overridden by |
//! |---|---|---|---|
//! | configuration | `/etc/amberfs/config.toml` | `$XDG_CONFIG_HOME/amberfs/config.toml` | `AMBERFS_CONFIG` |
//! | state (journals, remembered heads) | `/var/lib/amberfs` | `$XDG_STATE_HOME/amberfs` | `AMBERFS_STATE_DIR` |
//! | cache (stored bytes; may be deleted) | `/var/cache/amberfs` | `$XDG_CACHE_HOME/amberfs` | `AMBERFS_CACHE_DIR` |
//!
//! The XDG directories are those of <https://specifications.freedesktop.org/basedir-spec/latest/>: a
//! relative value counts as none. Nothing here creates anything.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::base::{Class, Classed, sys};

/// The environment, as far as it says where things are.
pub struct Places {
    variable: Box<Variables>,
    root: bool,
}

/// Looks up a variable of the environment.
type Variables = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// A place that nothing determines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacesError {
    /// Neither the variable for the place nor a home directory is set.
    #[error("no place for the {what}: neither {variable} nor HOME is set; set {variable} to an absolute path")]
    Homeless {
        /// What would be there.
        what: &'static str,
        /// The variable that sets it.
        variable: &'static str,
    },
    /// The variable for the place is a relative path.
    #[error("{variable} is {value:?}: it must be an absolute path")]
    Relative {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: PathBuf,
    },
}

impl Classed for PlacesError {
    fn class(&self) -> Class {
        match self {
            PlacesError::Homeless { .. } | PlacesError::Relative { .. } => Class::Invalid,
        }
    }
}

impl Places {
    /// As this process's environment and user have it.
    pub fn of_process() -> Places {
        Places { variable: Box::new(|name| std::env::var_os(name)), root: sys::effective_uid() == 0 }
    }

    /// As `variable` answers, for root or for a user.
    pub fn new(root: bool, variable: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Places {
        Places { variable: Box::new(variable), root }
    }

    /// The configuration file.
    ///
    /// # Errors
    /// [`PlacesError`] when nothing says where.
    pub fn config(&self) -> Result<PathBuf, PlacesError> {
        let directory = ("XDG_CONFIG_HOME", ".config");
        match self.find("configuration", "AMBERFS_CONFIG", "/etc/amberfs/config.toml", directory)? {
            (path, true) => Ok(path),
            (path, false) => Ok(path.join("config.toml")),
        }
    }

    /// The directory of journals and remembered heads.
    ///
    /// # Errors
    /// [`PlacesError`] when nothing says where.
    pub fn state(&self) -> Result<PathBuf, PlacesError> {
        let directory = ("XDG_STATE_HOME", ".local/state");
        Ok(self.find("state", "AMBERFS_STATE_DIR", "/var/lib/amberfs", directory)?.0)
    }

    /// The directory of stored bytes that were fetched before.
    ///
    /// # Errors
    /// [`PlacesError`] when nothing says where.
    pub fn cache(&self) -> Result<PathBuf, PlacesError> {
        let directory = ("XDG_CACHE_HOME", ".cache");
        Ok(self.find("cache", "AMBERFS_CACHE_DIR", "/var/cache/amberfs", directory)?.0)
    }

    /// The place, and whether it is complete; otherwise it is the directory `amberfs` in a user's base directory.
    fn find(
        &self,
        what: &'static str,
        variable: &'static str,
        root: &str,
        (xdg, below_home): (&str, &str),
    ) -> Result<(PathBuf, bool), PlacesError> {
        let set = |name: &str| (self.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(value) = set(variable) {
            return if value.is_absolute() {
                Ok((value, true))
            } else {
                Err(PlacesError::Relative { variable, value })
            };
        }
        if self.root {
            return Ok((PathBuf::from(root), true));
        }
        let base = match set(xdg).filter(|path| path.is_absolute()) {
            Some(base) => base,
            None => set("HOME")
                .filter(|path| path.is_absolute())
                .map(|home| home.join(Path::new(below_home)))
                .ok_or(PlacesError::Homeless { what, variable })?,
        };
        Ok((base.join("amberfs"), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: bool, variables: &'static [(&'static str, &'static str)]) -> Places {
        Places::new(root, move |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn each_user_has_places_of_their_own() {
        let root = places(true, &[("HOME", "/root"), ("XDG_CONFIG_HOME", "/root/c")]);
        assert_eq!(root.config().unwrap(), Path::new("/etc/amberfs/config.toml"));
        assert_eq!(root.state().unwrap(), Path::new("/var/lib/amberfs"));
        assert_eq!(root.cache().unwrap(), Path::new("/var/cache/amberfs"));

        let user = places(false, &[("HOME", "/home/me"), ("XDG_STATE_HOME", "relative"), ("XDG_CACHE_HOME", "/c")]);
        assert_eq!(user.config().unwrap(), Path::new("/home/me/.config/amberfs/config.toml"));
        assert_eq!(user.state().unwrap(), Path::new("/home/me/.local/state/amberfs"));
        assert_eq!(user.cache().unwrap(), Path::new("/c/amberfs"));
    }

    #[test]
    fn variables_win_and_must_be_absolute() {
        let set =
            places(true, &[("AMBERFS_CONFIG", "/x/a.toml"), ("AMBERFS_STATE_DIR", "s"), ("AMBERFS_CACHE_DIR", "")]);
        assert_eq!(set.config().unwrap(), Path::new("/x/a.toml"));
        assert!(set.state().unwrap_err().to_string().contains("must be an absolute path"));
        assert_eq!(set.cache().unwrap(), Path::new("/var/cache/amberfs"));
        let homeless = places(false, &[]).config().unwrap_err();
        assert_eq!(homeless.class(), Class::Invalid);
        assert!(homeless.to_string().contains("set AMBERFS_CONFIG"), "{homeless}");
    }
}
