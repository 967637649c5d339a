//! What `strace` saw a program do to the files below one directory, as events in the order of their ends.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The calls that can change a directory tree, make it durable, or tell somebody about it. `?`: not every
/// architecture has them all.
const CALLS: &str = "trace=?open,openat,?openat2,?creat,write,pwrite64,writev,pwritev,?pwritev2,lseek,ftruncate,\
    truncate,fallocate,copy_file_range,sendfile,splice,fsync,fdatasync,sync_file_range,syncfs,?rename,?renameat,\
    renameat2,?link,linkat,?symlink,symlinkat,?unlink,unlinkat,?mkdir,mkdirat,?rmdir";

/// One of them. Paths are relative to the directory that is watched; it is the empty path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    MakeDirectory(String),
    MakeFile(String),
    /// A file that exists is opened: its position is its start.
    Open(String),
    Seek(String, usize),
    /// At the file's position.
    Write(String, Vec<u8>),
    Link(String, String),
    Rename(String, String),
    /// What had the name when this began loses it when it ends.
    RemoveBegins(Thread, String),
    RemoveEnds(Thread),
    /// What was done before this began is durable when it ends.
    SyncBegins(Thread, String),
    SyncEnds(Thread),
    /// Something was written to standard output.
    Told,
}

/// A thread of the program.
pub(super) type Thread = u32;

/// Why nothing can be traced here, if that is so.
pub(super) fn missing() -> Option<String> {
    let mut trial = Command::new("strace");
    trial.args(["-f", "-qq", "-o", "/dev/null", "-e", CALLS, "true"]).stdin(Stdio::null());
    match trial.output() {
        Err(error) => Some(format!("strace cannot be started ({error}): apt-get install strace")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            Some(format!("strace may not trace here ({said}): allow ptrace, in containers by --cap-add SYS_PTRACE"))
        }
        Ok(_) => None,
    }
}

/// Runs `command`; what it did below `base`, a path without symbolic links, and whether it came to its good end:
/// with `kill` it dies as one of its threads begins its `kill`th sync.
pub(super) fn run(command: &Command, base: &Path, kill: Option<usize>) -> (Vec<Event>, bool) {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qq", "-xx", "-s", "20000000", "-e", CALLS, "-e", "signal=none", "-o"]);
    strace.arg(trace.path());
    if let Some(nth) = kill {
        strace.args(["-e", &format!("inject=fsync:signal=KILL:when={nth}")]);
    }
    strace.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    let output = strace.output().unwrap();
    let killed = kill.is_some() && output.status.signal() == Some(libc::SIGKILL);
    assert!(killed || output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    (read(&std::fs::read_to_string(trace.path()).unwrap(), base.to_str().unwrap()), !killed)
}

/// The events in a trace, those below `base`.
fn read(trace: &str, base: &str) -> Vec<Event> {
    let mut begun: HashMap<Thread, &str> = HashMap::new();
    let mut events = Vec::new();
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let (thread, call) = (thread.parse().unwrap(), call.trim_start());
        if let Some(beginning) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, beginning);
            events.extend(Call::of(beginning, base).beginning(thread));
        } else if let Some((_, end)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
            // What a thread had begun when it was found is no call that concerns us.
            let Some(beginning) = begun.remove(&thread) else { continue };
            events.extend(Call::of(beginning, base).end(thread, result(end)));
        } else if call.starts_with(|first: char| first.is_ascii_lowercase()) {
            // What a killed thread was at has no end and no result.
            let (beginning, _) = call.rsplit_once(") ").unwrap();
            let beginning = beginning.strip_suffix(" <unfinished ...>").unwrap_or(beginning);
            let call_ = Call::of(beginning, base);
            events.extend(call_.beginning(thread));
            events.extend(call_.end(thread, result(call)));
        }
    }
    events
}

/// What a call returned; `None` when it failed.
fn result(call: &str) -> Option<usize> {
    let (_, result) = call.rsplit_once(" = ").unwrap();
    let digits = result.find(|c: char| !c.is_ascii_digit()).unwrap_or(result.len());
    result[..digits].parse().ok()
}

struct Call<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
    base: &'a str,
}

impl<'a> Call<'a> {
    /// From `name(arguments`. All strings in it are hexadecimal, so nothing in them looks like anything else.
    fn of(text: &'a str, base: &'a str) -> Call<'a> {
        let (name, arguments) = text.split_once('(').unwrap();
        Call { name, arguments: arguments.split(", ").collect(), base }
    }

    /// The path behind the descriptor that is argument `at`.
    fn behind(&self, at: usize) -> String {
        let (_, path) = self.arguments[at].split_once('<').unwrap_or_default();
        text(path.rsplit_once('>').unwrap_or_default().0)
    }

    /// The path of the file that argument `at` is open at, if it is below the base.
    fn open_file(&self, at: usize) -> Option<String> {
        self.below(self.behind(at))
    }

    /// The path that is argument `at`, relative to the descriptor before it.
    fn path_at(&self, at: usize) -> Option<String> {
        let path = text(self.arguments[at].trim_matches('"'));
        self.below(if path.starts_with('/') { path } else { format!("{}/{path}", self.behind(at - 1)) })
    }

    fn path(&self, at: usize) -> Option<String> {
        let path = text(self.arguments[at].trim_matches('"'));
        assert!(path.starts_with('/'), "{}: nothing here is relative to a working directory", self.name);
        self.below(path)
    }

    fn below(&self, path: String) -> Option<String> {
        let below = path.strip_prefix(self.base)?;
        (below.is_empty() || below.starts_with('/'))
            .then(|| below.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/"))
    }

    fn removed(&self) -> Option<String> {
        match self.name {
            "unlink" | "rmdir" => self.path(0),
            "unlinkat" => self.path_at(1),
            _ => None,
        }
    }

    fn synced(&self) -> Option<String> {
        // `fdatasync` writes what is needed to find the data: its size, and no more is modelled.
        matches!(self.name, "fsync" | "fdatasync").then(|| self.open_file(0)).flatten()
    }

    fn beginning(&self, thread: Thread) -> Option<Event> {
        let sync = self.synced().map(|path| Event::SyncBegins(thread, path));
        sync.or_else(|| self.removed().map(|path| Event::RemoveBegins(thread, path)))
    }

    fn end(&self, thread: Thread, result: Option<usize>) -> Option<Event> {
        let result = result?;
        match self.name {
            "fsync" | "fdatasync" => self.synced().map(|_| Event::SyncEnds(thread)),
            "unlink" | "unlinkat" | "rmdir" => self.removed().map(|_| Event::RemoveEnds(thread)),
            "mkdir" => self.path(0).map(Event::MakeDirectory),
            "mkdirat" => self.path_at(1).map(Event::MakeDirectory),
            "open" => self.opened(self.path(0)?, self.arguments[1]),
            "openat" => self.opened(self.path_at(1)?, self.arguments[2]),
            "lseek" => Some(Event::Seek(self.open_file(0)?, result)),
            "write" if self.arguments[0].starts_with("1<") => Some(Event::Told),
            "write" => {
                let path = self.open_file(0)?;
                let bytes = bytes(self.arguments[1].trim_matches('"'));
                Some(Event::Write(path, bytes[..result].to_vec()))
            }
            "link" => Some(Event::Link(self.path(0)?, self.path(1)?)),
            "linkat" => Some(Event::Link(self.path_at(1)?, self.path_at(3)?)),
            "rename" => Some(Event::Rename(self.path(0)?, self.path(1)?)),
            "renameat" | "renameat2" => Some(Event::Rename(self.path_at(1)?, self.path_at(3)?)),
            _ => {
                let base: String = self.base.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
                let ours = self.arguments.iter().any(|argument| argument.contains(&base));
                assert!(!ours, "the model does not know what {}({}) does", self.name, self.arguments.join(", "));
                None
            }
        }
    }

    fn opened(&self, path: String, flags: &str) -> Option<Event> {
        assert!(!flags.contains("O_TRUNC"), "{path}: the model truncates nothing");
        Some(if flags.contains("O_CREAT") { Event::MakeFile(path) } else { Event::Open(path) })
    }
}

fn text(hex: &str) -> String {
    String::from_utf8(bytes(hex)).unwrap()
}

/// The bytes of a string in which each is `\x` and two digits.
fn bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
    hex.as_bytes().chunks(4).map(|byte| digit(byte[2]) << 4 | digit(byte[3])).collect()
}
