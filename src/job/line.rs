//! The language of the control file: bytes of one write to typed commands, or the reason why not.
//!
//! One line is one command: `verb [name] key=value…`, in UTF-8, with values quoted as a shell would;
//! `#` begins a comment; an unterminated last line is a whole command, because a shell's `printf`
//! leaves it so. The whole batch is read before anything is handed out: either all lines mean
//! something or nothing is returned. [`VERBS`] is the grammar; `help` prints it.
//!
//! Pure: what a name refers to is decided by the desk.

use super::control::{JobId, Reason};
use super::request::{Command, Request, check_job};
use crate::base::limits;
use crate::base::suggest::did_you_mean;
use crate::chain::name::{check_label, check_source, parse_point};

/// A verb of the control file.
#[derive(Debug)]
pub struct Verb {
    /// How the line begins.
    pub name: &'static str,
    /// What its second word names.
    pub name_of: &'static str,
    /// Whether that word may be left out.
    pub optional: bool,
    /// The keys that it knows.
    pub keys: &'static [Key],
    /// What it does, for `help`.
    pub help: &'static str,
}

/// A key of a verb.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value looks like, for `help` and refusals.
    pub value: &'static str,
    /// What it does, for `help`.
    pub help: &'static str,
    /// Whether a line may give it more than once.
    pub repeats: bool,
}

const JOB: Key = Key {
    name: "job",
    value: "ID",
    help: "your handle for the job, in jobs/ID/; repeating the same command with it is harmless",
    repeats: false,
};
const TIMEOUT: Key = Key {
    name: "timeout",
    value: "30s|15m|6h|2d",
    help: "give up after this long and end as timed-out (default 7d)",
    repeats: false,
};

const POINT: Key = Key {
    name: "point",
    value: "NAME|#ID",
    help: "which: its name, as in points/, or its number after #",
    repeats: false,
};

/// All that the control file understands.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "capture",
        name_of: "SOURCE",
        optional: false,
        keys: &[
            Key {
                name: "label",
                value: "TEXT",
                help: "a name for the point; may be given several times",
                repeats: true,
            },
            Key {
                name: "full",
                value: "yes|no",
                help: "start a new chain that shares nothing with older ones",
                repeats: false,
            },
            JOB,
            TIMEOUT,
        ],
        help: "make a point of a configured source",
    },
    Verb {
        name: "verify",
        name_of: "SOURCE",
        optional: true,
        keys: &[
            Key {
                name: "read-data",
                value: "yes|no",
                help: "read file content too, not only what describes it",
                repeats: false,
            },
            JOB,
            TIMEOUT,
        ],
        help: "check what is stored of a source, or without one of the whole repository",
    },
    Verb {
        name: "delete",
        name_of: "SOURCE",
        optional: false,
        keys: &[
            POINT,
            Key { name: "cascade", value: "yes|no", help: "delete as well what builds on it", repeats: false },
            Key {
                name: "rebase",
                value: "yes|no",
                help: "delete just it; what builds on it stays whole",
                repeats: false,
            },
            JOB,
            TIMEOUT,
        ],
        help: "put a point into the trash",
    },
    Verb {
        name: "undelete",
        name_of: "SOURCE",
        optional: false,
        keys: &[POINT, JOB, TIMEOUT],
        help: "bring a point back from the trash",
    },
    Verb {
        name: "cancel",
        name_of: "JOB",
        optional: false,
        keys: &[],
        help: "end a job; nothing of it stays visible unless its point was committed already",
    },
];

/// A batch that means nothing; no command of it may be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct LineError {
    /// [`Reason::Syntax`] or [`Reason::TooLong`].
    pub reason: Reason,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

/// The commands of one write, each with its line's number.
///
/// # Errors
/// [`LineError`] for the first line that means nothing.
pub fn parse(batch: &[u8]) -> Result<Vec<(usize, Command)>, LineError> {
    let mut commands = Vec::new();
    for (index, bytes) in batch.split(|byte| *byte == b'\n').enumerate() {
        let line = index + 1;
        let refuse = |(reason, message)| LineError { reason, line, message };
        if let Some(command) = parse_line(bytes).map_err(refuse)? {
            commands.push((line, command));
        }
    }
    Ok(commands)
}

type Refused = (Reason, String);

fn syntax(message: impl Into<String>) -> Refused {
    (Reason::Syntax, message.into())
}

fn parse_line(bytes: &[u8]) -> Result<Option<Command>, Refused> {
    if bytes.len() > limits::CONTROL_LINE_BYTES_MAX {
        return Err((
            Reason::TooLong,
            format!("{} bytes long; a line has at most {}", bytes.len(), limits::CONTROL_LINE_BYTES_MAX),
        ));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| syntax(format!("not UTF-8 from byte {} on", error.valid_up_to() + 1)))?;
    if let Some(c) = text.chars().find(|c| c.is_control() && *c != '\t') {
        return Err(syntax(format!("holds the control character {c:?}")));
    }
    let words = words_of(text).ok_or_else(|| syntax("a quote is opened and not closed, or a `\\` ends the line"))?;
    let mut words = words.iter().map(String::as_str);
    let Some(verb) = words.next() else { return Ok(None) };
    let Some(verb) = VERBS.iter().find(|known| known.name == verb) else {
        let known = VERBS.iter().map(|known| known.name);
        let list = known.clone().collect::<Vec<_>>().join(", ");
        return Err(syntax(format!("unknown verb {verb:?} (known: {list}){}", did_you_mean(verb, known))));
    };

    let mut name = None;
    let mut values: Vec<(&Key, &str)> = Vec::new();
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            if name.is_some() || !values.is_empty() {
                return Err(syntax(format!("{word:?} is unexpected: after the name come key=value pairs")));
            }
            name = Some(word);
            continue;
        };
        let Some(known) = verb.keys.iter().find(|known| known.name == key) else {
            let names = || verb.keys.iter().map(|known| known.name);
            let list = names().collect::<Vec<_>>().join(", ");
            let list = if list.is_empty() { "none".to_owned() } else { list };
            return Err(syntax(format!(
                "{} has no key {key:?} (known: {list}){}",
                verb.name,
                did_you_mean(key, names())
            )));
        };
        if !known.repeats && values.iter().any(|(given, _)| given.name == known.name) {
            return Err(syntax(format!("{}= is given twice", known.name)));
        }
        values.push((known, value));
    }
    if name.is_none() && !verb.optional {
        return Err(syntax(format!("{} needs a {}", verb.name, verb.name_of)));
    }
    build(verb, name, &Values(&values)).map(Some)
}

struct Values<'a>(&'a [(&'a Key, &'a str)]);

impl Values<'_> {
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key.name == name).map(|(_, value)| *value)
    }

    fn yes(&self, name: &str) -> Result<bool, Refused> {
        match self.all(name).next() {
            None | Some("no") => Ok(false),
            Some("yes") => Ok(true),
            Some(other) => Err(syntax(format!("{name}={other:?} must be yes or no"))),
        }
    }

    fn job(&self) -> Result<Option<JobId>, Refused> {
        self.all("job").next().map(job).transpose()
    }

    fn timeout(&self) -> Result<Option<u64>, Refused> {
        self.all("timeout").next().map(seconds).transpose()
    }
}

fn job(name: &str) -> Result<JobId, Refused> {
    check_job(name).map_err(|bad| syntax(bad.0))?;
    Ok(JobId(name.to_owned()))
}

fn source(name: &str) -> Result<String, Refused> {
    check_source(name).map_err(|bad| syntax(bad.to_string()))?;
    Ok(name.to_owned())
}

fn point(values: &Values<'_>, verb: &Verb) -> Result<String, Refused> {
    let point = values.all("point").next();
    let point = point.ok_or_else(|| syntax(format!("{} needs point={}", verb.name, POINT.value)))?;
    let is_number = point.strip_prefix('#').is_some_and(|digits| {
        digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u64>().is_ok() && !digits.starts_with('0')
    });
    if !is_number {
        parse_point(point).map_err(|bad| syntax(format!("{bad}; or give its number after #")))?;
    }
    Ok(point.to_owned())
}

fn seconds(text: &str) -> Result<u64, Refused> {
    let bad = || syntax(format!("timeout={text:?} must be a number with s, m, h or d, such as {}", TIMEOUT.value));
    let unit = text.chars().next_back().ok_or_else(bad)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        _ => return Err(bad()),
    };
    let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit())).ok_or_else(bad)?;
    let seconds = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(bad)?;
    if seconds == 0 || seconds > limits::JOB_TIMEOUT_MAX.as_secs() {
        return Err(syntax(format!(
            "timeout={text:?} must be between 1s and {}d",
            limits::JOB_TIMEOUT_MAX.as_secs() / 86400
        )));
    }
    Ok(seconds)
}

fn build(verb: &Verb, name: Option<&str>, values: &Values<'_>) -> Result<Command, Refused> {
    let needed = || name.ok_or_else(|| syntax(format!("{} needs a {}", verb.name, verb.name_of)));
    match verb.name {
        "capture" => {
            let labels: Vec<String> = values.all("label").map(str::to_owned).collect();
            for (at, label) in labels.iter().enumerate() {
                check_label(label).map_err(|bad| syntax(bad.to_string()))?;
                if labels.iter().take(at).any(|earlier| earlier == label) {
                    return Err(syntax(format!("label={label:?} is given twice")));
                }
            }
            let request = Request::Capture {
                source: source(needed()?)?,
                labels,
                full: values.yes("full")?,
                timeout_seconds: values.timeout()?,
            };
            Ok(Command::Run { request, job: values.job()? })
        }
        "verify" => {
            let request = Request::Verify {
                source: name.map(source).transpose()?,
                read_data: values.yes("read-data")?,
                timeout_seconds: values.timeout()?,
            };
            Ok(Command::Run { request, job: values.job()? })
        }
        "delete" => {
            let request = Request::Delete {
                source: source(needed()?)?,
                point: point(values, verb)?,
                cascade: values.yes("cascade")?,
                rebase: values.yes("rebase")?,
                timeout_seconds: values.timeout()?,
            };
            if matches!(request, Request::Delete { cascade: true, rebase: true, .. }) {
                return Err(syntax("cascade=yes and rebase=yes exclude each other"));
            }
            Ok(Command::Run { request, job: values.job()? })
        }
        "undelete" => {
            let request = Request::Undelete {
                source: source(needed()?)?,
                point: point(values, verb)?,
                timeout_seconds: values.timeout()?,
            };
            Ok(Command::Run { request, job: values.job()? })
        }
        "cancel" => Ok(Command::Cancel { job: job(needed()?)? }),
        other => Err(syntax(format!("{other} is not available in this version"))),
    }
}

/// The words of a command, quoted as for a shell; none when a quote is left open.
pub fn words_of(command: &str) -> Option<Vec<String>> {
    shlex::split(command)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(line: &str) -> Result<Command, LineError> {
        parse(line.as_bytes()).map(|mut commands| commands.remove(0).1)
    }

    fn capture(source: &str, labels: &[&str], full: bool, job: Option<&str>) -> Command {
        Command::Run {
            request: Request::Capture {
                source: source.into(),
                labels: labels.iter().map(|&label| label.into()).collect(),
                full,
                timeout_seconds: None,
            },
            job: job.map(|id| JobId(id.into())),
        }
    }

    #[test]
    fn lines_that_mean_something() {
        let table: &[(&str, Command)] = &[
            ("capture home", capture("home", &[], false, None)),
            ("capture home\n", capture("home", &[], false, None)),
            ("  capture\thome  # every night", capture("home", &[], false, None)),
            ("capture home label=nightly job=n-1", capture("home", &["nightly"], false, Some("n-1"))),
            ("capture home label='vor dem Update' full=yes", capture("home", &["vor dem Update"], true, None)),
            ("capture home label=a label=b", capture("home", &["a", "b"], false, None)),
            ("capture home 'label=a # b'", capture("home", &["a # b"], false, None)),
            ("capture home label=a=b full=no", capture("home", &["a=b"], false, None)),
            ("cancel n-1", Command::Cancel { job: JobId("n-1".into()) }),
            (
                "verify",
                Command::Run {
                    request: Request::Verify { source: None, read_data: false, timeout_seconds: None },
                    job: None,
                },
            ),
            (
                "verify home read-data=yes timeout=6h",
                Command::Run {
                    request: Request::Verify {
                        source: Some("home".into()),
                        read_data: true,
                        timeout_seconds: Some(21600),
                    },
                    job: None,
                },
            ),
        ];
        for (line, command) in table {
            assert_eq!(one(line).as_ref(), Ok(command), "{line}");
        }
    }

    #[test]
    fn lines_that_mean_nothing() {
        let table: &[(&str, &str)] = &[
            (
                "captur home",
                "line 1: unknown verb \"captur\" (known: capture, verify, delete, undelete, cancel); did you mean \"capture\"?",
            ),
            ("capture", "line 1: capture needs a SOURCE"),
            ("capture full=yes", "line 1: capture needs a SOURCE"),
            ("capture home extra", "line 1: \"extra\" is unexpected: after the name come key=value pairs"),
            ("capture full=yes home", "line 1: \"home\" is unexpected: after the name come key=value pairs"),
            (
                "capture home lable=x",
                "line 1: capture has no key \"lable\" (known: label, full, job, timeout); did you mean \"label\"?",
            ),
            ("capture home full=yes full=yes", "line 1: full= is given twice"),
            ("capture home label=a label=a", "line 1: label=\"a\" is given twice"),
            ("capture home full=1", "line 1: full=\"1\" must be yes or no"),
            (
                "capture home label=",
                "line 1: \"\" cannot be a label: use 1 to 128 bytes without `/` and control characters, `.` and `-` not first",
            ),
            ("capture home label='x", "line 1: a quote is opened and not closed, or a `\\` ends the line"),
            ("capture home label=x\\", "line 1: a quote is opened and not closed, or a `\\` ends the line"),
            (
                "capture ''",
                "line 1: \"\" cannot name a source: use 1 to 64 letters, digits, `.`, `_` and `-`, a letter or digit first",
            ),
            (
                "capture /etc",
                "line 1: \"/etc\" cannot name a source: use 1 to 64 letters, digits, `.`, `_` and `-`, a letter or digit first",
            ),
            ("delete home", "line 1: delete needs point=NAME|#ID"),
            ("delete point=#3", "line 1: delete needs a SOURCE"),
            (
                "delete home point=yesterday",
                "line 1: \"yesterday\" is not the name of a point: those read 2026-11-20T12-00-00Z, or \
                 2026-11-20T12-00-00Z+2; or give its number after #",
            ),
            ("delete home point=#3 cascade=yes rebase=yes", "line 1: cascade=yes and rebase=yes exclude each other"),
            (
                "undelete home point=#3 rebase=yes",
                "line 1: undelete has no key \"rebase\" (known: point, job, timeout)",
            ),
            ("cancel", "line 1: cancel needs a JOB"),
            ("cancel n-1 job=n-1", "line 1: cancel has no key \"job\" (known: none)"),
            (
                "capture home timeout=6",
                "line 1: timeout=\"6\" must be a number with s, m, h or d, such as 30s|15m|6h|2d",
            ),
            ("capture home timeout=0s", "line 1: timeout=\"0s\" must be between 1s and 365d"),
            (
                "capture home timeout=é",
                "line 1: timeout=\"é\" must be a number with s, m, h or d, such as 30s|15m|6h|2d",
            ),
            (
                "capture home timeout=99999999999999999999d",
                "line 1: timeout=\"99999999999999999999d\" must be a number with s, m, h or d, such as 30s|15m|6h|2d",
            ),
            ("capture home\r\n", "line 1: holds the control character '\\r'"),
            ("capture home\0", "line 1: holds the control character '\\0'"),
            ("capture home\n\n# fine\ncapture", "line 4: capture needs a SOURCE"),
        ];
        for (line, message) in table {
            let error = one(line).unwrap_err();
            assert_eq!((error.reason, error.to_string().as_str()), (Reason::Syntax, *message), "{line}");
        }
        let error = parse(b"capture h\xffme").unwrap_err();
        assert_eq!(error.to_string(), "line 1: not UTF-8 from byte 10 on");
    }

    #[test]
    fn the_longest_line_passes_and_one_byte_more_does_not() {
        let line = format!("capture home # {}", "x".repeat(limits::CONTROL_LINE_BYTES_MAX - 15));
        assert_eq!(line.len(), 4095);
        assert_eq!(parse(line.as_bytes()).unwrap().len(), 1);
        let error = parse(format!("cancel a\n{line}y").as_bytes()).unwrap_err();
        assert_eq!((error.reason, error.line), (Reason::TooLong, 2));
    }

    #[test]
    fn comments_and_blank_lines_are_no_commands() {
        assert_eq!(parse(b"").unwrap(), []);
        assert_eq!(parse(b"\n\n  \t\n# capture home\n").unwrap(), []);
        let numbers: Vec<usize> =
            parse(b"# first\ncapture a\n\ncapture b").unwrap().into_iter().map(|(line, _)| line).collect();
        assert_eq!(numbers, [2, 4]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(batch in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(parse(&batch));
        }

        #[test]
        fn near_commands_never_panic(batch in "(capture|verify|delete|undelete|cancel)( |=|'|\"|#|\\\\|label|full|point|cascade|job|timeout|yes|[a-z0-9.]|\n){0,30}") {
            drop(parse(batch.as_bytes()));
        }

        #[test]
        fn a_request_survives_its_line(
            source in "[A-Za-z0-9][A-Za-z0-9._-]{0,20}",
            labels in proptest::collection::btree_set("[^\\p{C}/.-][^\\p{C}/]{0,20}", 0..3),
            full: bool,
            read_data: bool,
            timeout_seconds in proptest::option::of(1u64..1_000_000),
            all: bool,
            (id, cascade, rebase) in (1u64.., any::<bool>(), any::<bool>()),
        ) {
            let labels = labels.into_iter().collect();
            let capture = Request::Capture { source: source.clone(), labels, full, timeout_seconds };
            let point = if all { format!("#{id}") } else { "2026-11-20T12-00-00Z+2".to_owned() };
            let undelete = Request::Undelete { source: source.clone(), point: point.clone(), timeout_seconds };
            let rebase = rebase && !cascade;
            let delete = Request::Delete { source: source.clone(), point, cascade, rebase, timeout_seconds };
            let verify = Request::Verify { source: (!all).then_some(source), read_data, timeout_seconds };
            for request in [capture, verify, delete, undelete] {
                let line = request.to_line();
                prop_assert_eq!(one(&line).unwrap(), Command::Run { request, job: None }, "{}", line);
            }
        }
    }
}
