//! How a command ends, as a number that scripts go by. The numbers are restic's where it has one.

use std::process::ExitCode;

use crate::base::Class;

/// The end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All that was asked for has been done.
    Done = 0,
    /// It failed for a reason that has no number of its own.
    Failed = 1,
    /// The command line, the configuration or a selector makes no sense.
    Usage = 2,
    /// It was done except for some files, which were named.
    Partial = 3,
    /// There is no repository where it was looked for.
    NoRepository = 10,
    /// Something is in the way: a job under way, a name taken, a directory in use.
    InTheWay = 11,
    /// The key is wrong, or missing.
    WrongKey = 12,
    /// Stored bytes are missing or wrong.
    Damage = 13,
    /// It was stopped by a signal or by request.
    Cancelled = 130,
    /// Whoever read the output closed it; as if killed by SIGPIPE.
    Unheard = 141,
}

/// The ends that scripts can meet, for the reference.
pub const MEANINGS: &[(u8, &str)] = &[
    (Exit::Done as u8, "all that was asked for has been done"),
    (Exit::Failed as u8, "it failed: the message says why"),
    (Exit::Usage as u8, "the command line, the configuration or a selector makes no sense"),
    (Exit::Partial as u8, "done, except for some files that could not be read or changed meanwhile; they are named"),
    (Exit::NoRepository as u8, "there is no repository where it was looked for"),
    (Exit::InTheWay as u8, "something is in the way: a job under way, a name taken, a directory in use"),
    (Exit::WrongKey as u8, "no key was given, or one that does not open the repository"),
    (Exit::Damage as u8, "stored bytes are missing or wrong"),
    (Exit::Cancelled as u8, "stopped by a signal or by request"),
    (Exit::Unheard as u8, "whoever read the output closed it"),
];

impl Exit {
    /// How a command ends that failed in this way.
    pub fn of(class: Class) -> Exit {
        match class {
            Class::NotFound
            | Class::Transient
            | Class::Timeout
            | Class::Denied
            | Class::Unsupported
            | Class::Exhausted => Exit::Failed,
            Class::Corrupt => Exit::Damage,
            Class::Conflict => Exit::InTheWay,
            Class::Invalid => Exit::Usage,
            Class::Cancelled => Exit::Cancelled,
        }
    }
}

impl Exit {
    /// The end that another process of ours had; an unknown number is a failure.
    pub fn of_code(code: u8) -> Exit {
        let known = [
            Exit::Usage,
            Exit::Partial,
            Exit::NoRepository,
            Exit::InTheWay,
            Exit::WrongKey,
            Exit::Damage,
            Exit::Cancelled,
        ];
        known.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Exit::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_scripts_know() {
        for (class, code) in [
            (Class::NotFound, 1),
            (Class::Invalid, 2),
            (Class::Conflict, 11),
            (Class::Corrupt, 13),
            (Class::Cancelled, 130),
        ] {
            assert_eq!(Exit::of(class) as u8, code);
        }
        assert!(MEANINGS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
