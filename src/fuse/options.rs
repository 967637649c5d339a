//! The options of a mount, as `-o a,b=c` has them.

use std::str::FromStr;
use std::time::Duration;

use crate::base::{limits, time};

/// How a mount behaves. `nosuid` and `nodev` always hold and are not options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// What the table of mounts shows as its source: the repository.
    pub source: String,
    /// Without control files, and read-only for the kernel too.
    pub read_only: bool,
    /// Other users get in; the kernel then checks modes, owners and ACLs.
    pub allow_other: bool,
    /// Everything is shown as owned by the mounter.
    pub owner_me: bool,
    /// The mountpoint may hide files.
    pub nonempty: bool,
    /// Nothing in it may be executed.
    pub no_exec: bool,
    /// Deadline of a request for names and attributes.
    pub metadata_deadline: Duration,
    /// Deadline of a request for content.
    pub data_deadline: Duration,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions {
            source: "amberfs".to_owned(),
            read_only: false,
            allow_other: false,
            owner_me: false,
            nonempty: false,
            no_exec: false,
            metadata_deadline: limits::METADATA_DEADLINE,
            data_deadline: limits::DATA_DEADLINE,
        }
    }
}

/// An option that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such option.
    #[error(
        "no mount option \"{0}\"; there are ro, rw, allow_other, owner=me, nonempty, exec, noexec, \
         metadata_timeout=SECONDS and read_timeout=SECONDS"
    )]
    Unknown(String),
    /// A value that the option does not take.
    #[error("mount option \"{option}\" takes {expected}, not \"{given}\"")]
    Value {
        /// Its name.
        option: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What was given.
        given: String,
    },
    /// It would let a backup of a setuid file or a device take effect.
    #[error("mount option \"{0}\" is refused: files in a backup must not gain privileges; restore them to use them")]
    Unsafe(&'static str),
}

impl MountOptions {
    /// Applies a comma-separated list; the last of two that disagree wins, as with mount(8).
    ///
    /// # Errors
    /// [`OptionError`], naming the option.
    pub fn apply(&mut self, list: &str) -> Result<(), OptionError> {
        for option in list.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "ro" => self.read_only = true,
                "rw" => self.read_only = false,
                "allow_other" => self.allow_other = true,
                "nonempty" => self.nonempty = true,
                "noexec" => self.no_exec = true,
                "exec" => self.no_exec = false,
                // They hold anyway.
                "nosuid" | "nodev" => {}
                "suid" => return Err(OptionError::Unsafe("suid")),
                "dev" => return Err(OptionError::Unsafe("dev")),
                "owner" if value == "me" => self.owner_me = true,
                "owner" => {
                    return Err(OptionError::Value { option: "owner", expected: "\"me\"", given: value.to_owned() });
                }
                "metadata_timeout" => self.metadata_deadline = seconds("metadata_timeout", value)?,
                "read_timeout" => self.data_deadline = seconds("read_timeout", value)?,
                _ => return Err(OptionError::Unknown(option.to_owned())),
            }
        }
        Ok(())
    }
}

impl FromStr for MountOptions {
    type Err = OptionError;

    fn from_str(list: &str) -> Result<MountOptions, OptionError> {
        let mut options = MountOptions::default();
        options.apply(list)?;
        Ok(options)
    }
}

fn seconds(option: &'static str, value: &str) -> Result<Duration, OptionError> {
    let refused = || OptionError::Value { option, expected: time::TIMEOUT, given: value.to_owned() };
    value.parse().ok().and_then(time::timeout).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_applied_in_order() {
        let options: MountOptions = "ro,allow_other,,owner=me,read_timeout=2.5,rw,nosuid".parse().unwrap();
        assert!(!options.read_only && options.allow_other && options.owner_me && !options.nonempty);
        assert_eq!(options.data_deadline, Duration::from_millis(2500));
        assert_eq!(options.metadata_deadline, limits::METADATA_DEADLINE);
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let refused = |list: &str| list.parse::<MountOptions>().unwrap_err().to_string();
        assert!(refused("ro,alow_other").contains("\"alow_other\""));
        assert!(refused("owner=you").contains("\"me\""));
        assert!(refused("suid").contains("privileges"));
        for value in ["", "0", "-1", "NaN", "1e9", "soon"] {
            assert!(refused(&format!("read_timeout={value}")).contains("seconds"), "{value}");
        }
    }
}
