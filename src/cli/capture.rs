//! `amberfs capture`: one point of one source.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write, stderr};
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::context::{Context, Opened, absolute};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, count, printable, size};
use super::points::kind;
use super::progress::{self, Watched, Watcher, duration};
use super::scope::{ScopeArgs, capture_options};
use super::sys;
use crate::base::Class;
use crate::base::suggest::did_you_mean;
use crate::capture::{
    self, Barrier, NotEntered, Options, Outcome, can_capture_disk, capture_disk, capture_stream, capture_tree,
};
use crate::chain::name::{check_label, check_source};
use crate::chain::origin;
use crate::format::log::{DiskFacts, Method, Problem, ProblemKind, SourceKind, SourceRecord, Stillness};
use crate::job::SourceConfig;
use crate::job::protocol::{self, Message, Phase, Summary};
use crate::job::witness::{Witness, job_of};

/// Capture a source: make a point of it as it is now
///
/// The first point of a source is full; later ones are incremental and store what changed. Which, and
/// why, is said. Ends with 3 when a point was made and some files could not be captured exactly, or an image was
/// written to while it was read.
#[derive(Debug, clap::Args)]
pub struct CaptureArgs {
    /// A configured source's name; or NAME=PATH; or a path, whose last component becomes the name
    ///
    /// With --disk the path is a block device or an image: NAME=/dev/X. With --stdin the name of the stream, and
    /// of the file that holds it: NAME, or NAME=FILE.
    #[arg(value_name = "SOURCE")]
    source: OsString,
    /// Start a new chain, which shares nothing with older ones
    #[arg(long)]
    full: bool,
    /// Give the point this label (repeatable)
    #[arg(short, long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Continue a source that was captured from another path or host
    #[arg(long)]
    adopt: bool,
    /// Capture standard input as one file
    #[arg(long, conflicts_with_all = ["exclude", "exclude_file", "exclude_caches", "cross_filesystems"])]
    stdin: bool,
    /// Capture a block device or an image of one
    #[arg(long, conflicts_with_all = ["stdin", "exclude", "exclude_file", "exclude_caches", "cross_filesystems"])]
    disk: bool,
    /// Compare and store a disk in pieces of so many KiB: 16 to 1024, a power of two; another size starts a new chain
    #[arg(long, value_name = "KIB", conflicts_with = "stdin")]
    chunk_kib: Option<u32>,
    /// Start a new chain when the present one has this many points
    #[arg(long, value_name = "POINTS")]
    chain_max_points: Option<NonZeroU32>,
    /// The job that asks for it, as [`Witness`] writes it.
    #[arg(long, hide = true, value_name = "ID")]
    job: Option<String>,
}

/// What is captured.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    /// A directory, with what the configuration says about it.
    Tree(SourceConfig),
    /// A block device or an image, with what the configuration says about it.
    Disk(SourceConfig),
    /// Standard input.
    Stream { name: String, file: String },
}

/// Runs it.
///
/// # Errors
/// When there is no point: the source cannot be read, the repository cannot be written.
pub fn run(args: &CaptureArgs, context: &Context) -> Result<Exit, Failure> {
    for label in &args.labels {
        check_label(label)?;
    }
    if let Some(job) = &args.job {
        Witness::parse(job).map_err(|error| Failure::usage(error.to_string()))?;
    }
    let subject = if args.stdin { stream(&args.source)? } else { tree_or_disk(&args.source, args, context)? };
    let opened = context.open()?;
    let progress = Arc::new(Capturing(capture::Progress::new()));
    let mut watcher = Watcher::start(context, Arc::clone(&progress) as Arc<dyn Watched>)?;
    let (record, outcome) =
        capture_subject(&subject, args, context, &opened, &progress.0).map_err(Failure::unless_stopped)?;
    watcher.end();
    told(&record, &outcome, args, context, &watcher)?;
    let commit = &outcome.point.commit;
    let torn = commit.disk.as_ref().is_some_and(|disk| disk.stillness == Stillness::Changed);
    Ok(if commit.stats.problems == 0 && !torn { Exit::Done } else { Exit::Partial })
}

fn capture_subject(
    subject: &Subject,
    args: &CaptureArgs,
    context: &Context,
    opened: &Opened,
    done: &capture::Progress,
) -> Result<(SourceRecord, Outcome), Failure> {
    let wanted = |options: Options| Options {
        full: args.full,
        labels: merged(&options.labels, &args.labels),
        job: args.job.clone(),
        census: progress::is_watched(context),
        chain_max_points: args.chain_max_points.or(options.chain_max_points),
        disk_chunk_bytes: args.chunk_kib.map(|kib| kib.saturating_mul(1024)).or(options.disk_chunk_bytes),
        ..options
    };
    let configured_options = |source: &SourceConfig| capture_options(source).map(wanted);
    let claim = |name: &str, kind, path: &[u8]| opened.sources.claim_source(name, kind, origin::here(path), args.adopt);
    match subject {
        Subject::Tree(source) => {
            let options = configured_options(source)?;
            if !source.path.is_dir() {
                let text = format!("source {}: {} is no directory", source.name, printable_path(&source.path));
                let failure = Failure::new(Class::NotFound, text);
                let hint = "--disk captures a block device or an image";
                return Err(if source.path.exists() { failure.hint(hint) } else { failure });
            }
            let record = claim(&source.name, SourceKind::Tree, source.path.as_os_str().as_bytes())?;
            let outcome = capture_tree(&opened.repo, &opened.log(&record), &record, &source.path, &options, done)?;
            Ok((record, outcome))
        }
        Subject::Disk(source) => {
            let options = configured_options(source)?;
            if source.path.is_dir() {
                let text = format!("source {}: {} is a directory", source.name, printable_path(&source.path));
                return Err(Failure::new(Class::Invalid, text).hint("capture it without --disk"));
            }
            // Before the source is known to the repository.
            can_capture_disk(&opened.repo, &source.path, &options)?;
            let record = claim(&source.name, SourceKind::Disk, source.path.as_os_str().as_bytes())?;
            let outcome = capture_disk(&opened.repo, &opened.log(&record), &record, &source.path, &options, done)?;
            Ok((record, outcome))
        }
        Subject::Stream { name, file } => {
            let record = claim(name, SourceKind::Stream, file.as_bytes())?;
            let log = opened.log(&record);
            let outcome =
                capture_stream(&opened.repo, &log, &record, file, &mut Stdin, &wanted(Options::default()), done)?;
            Ok((record, outcome))
        }
    }
}

/// The labels of the source, then those of the command, each once.
fn merged(first: &[String], then: &[String]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for label in first.iter().chain(then) {
        if !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    labels
}

/// `NAME`, `NAME=PATH` or a path, with the options of the command added to those of the configuration.
fn tree_or_disk(text: &OsStr, args: &CaptureArgs, context: &Context) -> Result<Subject, Failure> {
    let mut source = match named_or_path(text)? {
        Named::Configured(name) => configured(&name, context)?,
        Named::AdHoc(name, path) => SourceConfig::new(name, path),
    };
    if args.disk || source.disk {
        return Ok(Subject::Disk(SourceConfig { disk: true, ..source }));
    }
    if args.chunk_kib.is_some() {
        return Err(Failure::usage("--chunk-kib is for disks: give --disk as well"));
    }
    args.scope.add_to(&mut source)?;
    Ok(Subject::Tree(source))
}

/// What the argument names.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Configured(String),
    AdHoc(String, PathBuf),
}

fn named_or_path(text: &OsStr) -> Result<Named, Failure> {
    if let Some((name, path)) = assignment(text) {
        if path.is_empty() {
            return Err(Failure::usage(format!("{name}= is followed by the path to capture")));
        }
        return Ok(Named::AdHoc(name, whole(Path::new(path))?));
    }
    let is_path = text.as_bytes().contains(&b'/') || text == "." || text == "..";
    if !is_path {
        let name = text.to_string_lossy().into_owned();
        check_source(&name)?;
        return Ok(Named::Configured(name));
    }
    let path = whole(Path::new(text))?;
    let named = path.file_name().and_then(OsStr::to_str).filter(|name| check_source(name).is_ok());
    match named {
        Some(name) => Ok(Named::AdHoc(name.to_owned(), path)),
        None => Err(Failure::usage(format!("{} has no last component that can name a source", printable_path(&path)))
            .hint(format!("choose a name: amberfs capture NAME={}", printable_path(&path)))),
    }
}

/// `NAME=…`, where NAME could be a source's.
fn assignment(text: &OsStr) -> Option<(String, &OsStr)> {
    let bytes = text.as_bytes();
    let place = bytes.iter().position(|byte| *byte == b'=')?;
    let name = std::str::from_utf8(bytes.get(..place)?).ok().filter(|name| check_source(name).is_ok())?;
    Some((name.to_owned(), OsStr::from_bytes(bytes.get(place + 1..)?)))
}

/// The path from the root down, as its owner writes it: links stay, `.`, `..` and final slashes go.
fn whole(path: &Path) -> Result<PathBuf, Failure> {
    let path = absolute(path.to_owned())?;
    if path.components().any(|component| component == std::path::Component::ParentDir) {
        // Where `..` leads is known only when links have been followed.
        return path.canonicalize().map_err(|error| Failure::io(format!("find {}", printable_path(&path)), &error));
    }
    Ok(path.components().collect())
}

fn configured(name: &str, context: &Context) -> Result<SourceConfig, Failure> {
    let config = context.config()?;
    let sources = config.current()?;
    if let Some(source) = sources.source(name) {
        return Ok(source.clone());
    }
    let suggestion = did_you_mean(name, sources.sources.iter().map(|source| source.name.as_str()));
    let failure = Failure::new(Class::NotFound, format!("no source {name:?} in {:?}{suggestion}", config.path()));
    Err(if Path::new(name).is_dir() {
        failure.hint(format!("amberfs capture ./{name} captures the directory of that name"))
    } else {
        failure.hint(format!("amberfs source add {name} PATH configures it; {name}=PATH captures without"))
    })
}

/// `NAME`, or `NAME=FILE`.
fn stream(text: &OsStr) -> Result<Subject, Failure> {
    let (name, file) = match assignment(text) {
        Some((name, file)) => (name, file.to_string_lossy().into_owned()),
        None => (text.to_string_lossy().into_owned(), text.to_string_lossy().into_owned()),
    };
    check_source(&name)?;
    Ok(Subject::Stream { name, file })
}

/// Standard input. After a signal it fails instead of ending: the program that feeds it has had the
/// same signal, and what it managed to write must not pass for the whole.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = io::stdin().lock().read(buffer)?;
        match sys::asked_to_stop() {
            Some(signal) => Err(io::Error::other(format!("stopped by signal {signal}"))),
            None => Ok(bytes),
        }
    }
}

/// A capture under way.
struct Capturing(capture::Progress);

impl Watched for Capturing {
    fn progress(&self) -> protocol::Progress {
        let expected = self.0.expected();
        protocol::Progress {
            phase: match self.0.phase() {
                capture::Phase::Queued | capture::Phase::Quiescing => Phase::Quiescing,
                capture::Phase::Captured => Phase::Captured,
                capture::Phase::Uploading | capture::Phase::Committed => Phase::Uploading,
            },
            files: self.0.files(),
            bytes: self.0.bytes(),
            total_files: expected.map(|(files, _)| files),
            total_bytes: expected.map(|(_, bytes)| bytes),
            stored_bytes: self.0.stored_bytes(),
            problems: self.0.problems(),
            seconds: 0.0,
            seconds_left: None,
            path: Some(String::from_utf8_lossy(&self.0.path()).into_owned()).filter(|path| !path.is_empty()),
        }
    }

    fn cancel(&self) {
        self.0.cancel();
    }
}

/// The word for a kind of problem.
pub fn problem_kind(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Unreadable => "unreadable",
        ProblemKind::Vanished => "vanished",
        ProblemKind::Changed => "changed",
        ProblemKind::Unsupported => "unsupported",
    }
}

/// Problems that are told one by one to a person.
const PROBLEMS_SHOWN: usize = 100;

fn told(
    record: &SourceRecord,
    outcome: &Outcome,
    args: &CaptureArgs,
    context: &Context,
    watcher: &Watcher,
) -> Result<(), Failure> {
    let point = &outcome.point;
    let stats = &point.commit.stats;
    let seconds = watcher.seconds();
    if context.global.json {
        for problem in &outcome.problems {
            watcher.says().say(&Message::Problem(protocol_problem(problem)));
        }
        watcher.says().say(&Message::Summary(Summary {
            source: record.name.clone(),
            point: point.name().to_owned(),
            id: point.id.0,
            chain: point.chain().0,
            kind: kind(point).to_owned(),
            reason: point.commit.reason.clone(),
            parent: outcome.parent.clone(),
            labels: point.commit.labels.clone(),
            job: args.job.as_deref().map(|job| job_of(job).to_owned()),
            files: stats.files,
            directories: stats.directories,
            others: stats.others,
            bytes: stats.bytes,
            not_entered: outcome
                .not_entered
                .first
                .iter()
                .map(|(path, _)| String::from_utf8_lossy(path).into_owned())
                .collect(),
            not_entered_count: outcome.not_entered.count,
            changed_files: stats.changed_files,
            read_bytes: stats.read_bytes,
            new_bytes: stats.new_bytes,
            stored_bytes: stats.stored_bytes,
            disk: point.commit.disk.as_ref().map(disk_summary),
            problems: stats.problems,
            seconds,
        }));
        return Ok(());
    }
    let mut err = stderr().lock();
    for problem in outcome.problems.iter().take(PROBLEMS_SHOWN) {
        let kind = problem_kind(problem.kind);
        // There is nobody left to tell when standard error is gone; the point has the list.
        drop(writeln!(err, "amberfs: {}: {kind}: {}", printable(&problem.path), problem.detail));
    }
    let more = stats.problems.saturating_sub(outcome.problems.len().min(PROBLEMS_SHOWN) as u64);
    if more > 0 {
        drop(writeln!(err, "amberfs: and {} more problems", count(more)));
    }
    if context.global.quiet {
        return Ok(());
    }
    for line in not_entered(&outcome.not_entered) {
        drop(writeln!(err, "amberfs: {line}"));
    }
    let mut out = Output::open();
    out.line(format!("{}@{}  #{}, {}", record.name, point.name(), point.id, point.commit.reason))?;
    match &point.commit.disk {
        Some(disk) => {
            let still = stillness(disk.stillness).1;
            if !still.is_empty() {
                drop(writeln!(err, "amberfs: {still}"));
            }
            let changed = size(disk.changed_bytes);
            out.line(format!("a disk of {}, {}; {changed} changed", size(disk.bytes), method(disk.method).1))?;
        }
        None => {
            let changed = match (outcome.changed, stats.changed_files) {
                (false, _) => "nothing changed".to_owned(),
                (true, files) => format!("{} changed or new", count(files)),
            };
            out.line(format!(
                "{} files, {} directories, {} others, {}; {changed}",
                count(stats.files),
                count(stats.directories),
                count(stats.others),
                size(stats.bytes),
            ))?;
        }
    }
    let rate = if seconds > 0.0 { (stats.read_bytes as f64 / seconds) as u64 } else { 0 };
    out.line(format!(
        "read {} ({}/s), new {}, stored {} in {}",
        size(stats.read_bytes),
        size(rate),
        size(stats.new_bytes),
        size(stats.stored_bytes),
        duration(seconds),
    ))?;
    if stats.problems > 0 {
        out.line(format!("{} problems: those files are not in the point as they are", count(stats.problems)))?;
    }
    // The point exists, whoever still listens.
    match out.close() {
        Err(failure) if failure.exit() == Exit::Unheard => Ok(()),
        other => other,
    }
}

fn disk_summary(facts: &DiskFacts) -> protocol::Disk {
    protocol::Disk {
        bytes: facts.bytes,
        chunk_bytes: facts.chunk_bytes,
        method: method(facts.method).0.to_owned(),
        stillness: stillness(facts.stillness).0.to_owned(),
        changed_bytes: facts.changed_bytes,
    }
}

/// How a disk was gone through: in a word, and for people.
pub fn method(method: Method) -> (&'static str, &'static str) {
    match method {
        Method::Everything => ("everything", "all data read"),
        Method::Compared => ("compared", "all data read and compared with the parent"),
        Method::Untouched => ("untouched", "not read, as its inode says that nothing was written"),
    }
}

/// What could write to a disk meanwhile: in a word, and for people, who are told nothing of a still one.
pub fn stillness(stillness: Stillness) -> (&'static str, &'static str) {
    match stillness {
        Stillness::Still => ("still", ""),
        Stillness::MountedReadOnly => ("mounted-read-only", ""),
        Stillness::MountedReadWrite => (
            "mounted-read-write",
            "the disk was mounted for writing: the point is what a power cut would have left, at best; \
             stop or freeze what writes to it for a consistent one",
        ),
        Stillness::Changed => (
            "changed",
            "the image was written to while it was read: the point mixes states of different instants; capture it again",
        ),
    }
}

/// What is said of directories that were left out.
fn not_entered(not_entered: &NotEntered) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (path, barrier) in &not_entered.first {
        let why = match barrier {
            Barrier::Filesystem => "another filesystem; --cross-filesystems captures it too",
            Barrier::Amberfs => "a mount of amberfs",
            Barrier::Repository => "the repository itself",
        };
        lines.push(format!("not entered: {} ({why})", printable(path)));
    }
    let more = not_entered.count.saturating_sub(not_entered.first.len() as u64);
    if more > 0 {
        lines.push(format!("not entered: {} more directories", count(more)));
    }
    lines
}

fn protocol_problem(problem: &Problem) -> protocol::Problem {
    protocol::Problem {
        path: String::from_utf8_lossy(&problem.path).into_owned(),
        kind: problem_kind(problem.kind).to_owned(),
        detail: problem.detail.clone(),
        touches: Vec::new(),
    }
}

fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_or_given_with_its_path() {
        let named = |text: &str| named_or_path(OsStr::new(text));
        let ad_hoc = |name: &str, path: &str| Named::AdHoc(name.to_owned(), PathBuf::from(path));
        assert_eq!(named("home").unwrap(), Named::Configured("home".to_owned()));
        assert_eq!(named("home=/home/me/").unwrap(), ad_hoc("home", "/home/me"));
        assert_eq!(named("root=/").unwrap(), ad_hoc("root", "/"));
        assert_eq!(named("a=/b=c").unwrap(), ad_hoc("a", "/b=c"));
        assert_eq!(named("/home/./me//").unwrap(), ad_hoc("me", "/home/me"));
        assert_eq!(named("/usr/bin/../lib").unwrap(), ad_hoc("lib", "/usr/lib"));
        assert_eq!(named("/tmp/x=y").unwrap_err().exit(), Exit::Usage);
        for wrong in ["/", "home=", "ho me", ".hidden", "/tmp/.hidden"] {
            assert_eq!(named(wrong).unwrap_err().exit(), Exit::Usage, "{wrong}");
        }
        assert!(named("/tmp/.x").unwrap_err().advice().unwrap().contains("NAME=/tmp/.x"));
    }

    #[test]
    fn a_stream_has_a_name_and_a_file() {
        let subject = |text: &str| stream(OsStr::new(text));
        let of = |name: &str, file: &str| Subject::Stream { name: name.to_owned(), file: file.to_owned() };
        assert_eq!(subject("db.sql").unwrap(), of("db.sql", "db.sql"));
        assert_eq!(subject("db=dump all.sql").unwrap(), of("db", "dump all.sql"));
        assert!(subject("a b").is_err());
    }

    #[test]
    fn labels_come_once() {
        let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(merged(&labels(&["a", "b"]), &labels(&["b", "c"])), labels(&["a", "b", "c"]));
    }
}
