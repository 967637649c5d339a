//! A file that the processes which this program starts of itself get, and no program of others.
//!
//! A descriptor that outlives an exec reaches every child there is, also those that a library starts. So it is closed on
//! exec everywhere, from the moment that a process knows of it; and [`Heirloom::pass_to`] opens it again in one
//! child, between fork and exec, where nobody else is started.

use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::sys;

/// An open file that is passed on by its descriptor. It stays open until the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heirloom(RawFd);

impl Heirloom {
    /// A file without a name that holds `bytes`.
    ///
    /// # Errors
    /// Those of memfd_create(2) and write(2).
    pub fn holding(bytes: &[u8]) -> io::Result<Heirloom> {
        sys::nameless_file(bytes).map(Heirloom)
    }

    /// The one that `path` names by its descriptor, as [`Heirloom::path`] does; closed on exec from now on. None when
    /// `path` names a file in another way, or a standard stream.
    ///
    /// # Errors
    /// When there is no such descriptor.
    pub fn named(path: &Path) -> io::Result<Option<Heirloom>> {
        let text = path.to_str();
        let number = text.and_then(|text| text.strip_prefix("/proc/self/fd/").or(text.strip_prefix("/dev/fd/")));
        let Some(number) = number.and_then(|number| number.parse::<RawFd>().ok()).filter(|number| *number > 2) else {
            return Ok(None);
        };
        sys::close_on_exec(number)?;
        Ok(Some(Heirloom(number)))
    }

    /// By what a process that has it reads it from its beginning.
    pub fn path(self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0).into()
    }

    /// Has the process that `command` starts get it, under the same number.
    pub fn pass_to(self, command: &mut Command) {
        sys::keep_over_exec(command, self.0);
    }
}

/// With what this program, started once more, comes by what the process that starts it has been told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bequest {
    /// Arguments.
    pub arguments: Vec<OsString>,
    /// What they name by its descriptor.
    pub heirloom: Option<Heirloom>,
}

impl Bequest {
    /// Gives both to the process that `command` starts.
    pub fn pass_to(&self, command: &mut Command) {
        command.args(&self.arguments);
        if let Some(heirloom) = self.heirloom {
            heirloom.pass_to(command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_child_that_is_to_have_it_gets_it() {
        let heirloom = Heirloom::holding(b"hidden").unwrap();
        let reading = |pass: bool| {
            let mut command = Command::new("cat");
            command.arg(heirloom.path());
            if pass {
                heirloom.pass_to(&mut command);
            }
            command.output().unwrap().stdout
        };
        assert_eq!(reading(true), b"hidden");
        assert_eq!(reading(true), b"hidden", "from its beginning each time");
        assert_eq!(reading(false), b"");
    }

    #[test]
    fn what_was_inherited_is_kept_from_children_once_it_is_known() {
        use std::os::fd::{AsRawFd, OwnedFd};
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let path = PathBuf::from(format!("/dev/fd/{}", file.as_raw_fd()));
        let heirloom = Heirloom::named(&path).unwrap().unwrap();
        assert_eq!(heirloom.path(), Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
        for other in ["/proc/self/fd/0", "/dev/fd/2", "/dev/fd/x", "/etc/fd/7", "/dev/fd/-1"] {
            assert_eq!(Heirloom::named(Path::new(other)).unwrap(), None, "{other}");
        }
        assert!(Heirloom::named(Path::new("/proc/self/fd/99999")).is_err());
    }
}
