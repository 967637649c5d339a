//! Why a command failed: one line for people, a class for scripts, and where possible what to do.

use std::fmt;
use std::io;

use super::exit::Exit;
use crate::base::{Class, Classed};

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    class: Class,
    exit: Exit,
    text: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure of its class's exit code.
    pub fn new(class: Class, text: impl Into<String>) -> Failure {
        Failure { class, exit: Exit::of(class), text: text.into(), hint: None }
    }

    /// A request that makes no sense.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::new(Class::Invalid, text)
    }

    /// The system refused to do `what`.
    pub fn io(what: impl fmt::Display, cause: &io::Error) -> Failure {
        Failure::new(Class::of_io(cause), format!("{what}: {cause}"))
    }

    /// Standard output could not be written. A reader that has gone away is nothing to talk about.
    pub fn output(cause: &io::Error) -> Failure {
        let failure = Failure::io("write to standard output", cause);
        match cause.kind() {
            io::ErrorKind::BrokenPipe => failure.ending(Exit::Unheard),
            _ => failure,
        }
    }

    /// One that has been told already, by another process of the same command.
    pub fn told(exit: Exit) -> Failure {
        Failure { class: Class::Transient, exit, text: String::new(), hint: None }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// The same, while doing `what`.
    #[must_use]
    pub fn during(self, what: impl fmt::Display) -> Failure {
        Failure { text: format!("{what}: {}", self.text), ..self }
    }

    /// The same, with an exit code of its own.
    #[must_use]
    pub fn ending(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }

    /// The same, if somebody asked for the end: then that is why, whatever broke on the way out.
    #[must_use]
    pub fn unless_stopped(self) -> Failure {
        match super::sys::asked_to_stop() {
            Some(_) => Failure { class: Class::Cancelled, exit: Exit::Cancelled, ..self },
            None => self,
        }
    }

    /// What it means.
    pub fn class(&self) -> Class {
        self.class
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// In words, without the hint.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl<E: Classed> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::new(error.class(), error.to_string())
    }
}

/// `amberfs: what: why`, and `hint: what to do` on a second line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path or an answer of the system may hold anything; the message stays one line.
        write!(f, "amberfs: {}", self.text.trim_end().replace('\n', " "))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Selector;

    #[test]
    fn a_failure_is_a_line_and_a_hint() {
        let failure = Failure::from("home@".parse::<Selector>().unwrap_err()).during("ls").hint("try home");
        assert_eq!(failure.exit(), Exit::Usage);
        let text = failure.to_string();
        assert!(text.starts_with("amberfs: ls: selector \"home@\": a time is expected after @"), "{text}");
        assert!(text.ends_with("\nhint: try home"), "{text}");
        assert_eq!(Failure::new(Class::Transient, "a\nb\n").to_string(), "amberfs: a b");
    }

    #[test]
    fn a_reader_that_went_away_is_told_from_a_full_disk() {
        assert_eq!(Failure::output(&io::ErrorKind::BrokenPipe.into()).exit(), Exit::Unheard);
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).exit(), Exit::Failed);
    }
}
