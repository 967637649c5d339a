//! `amberfs rollback`: a source itself, back at one of its points.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use serde::Serialize;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, count, printable, size};
use super::progress::{Watched, Watcher, duration};
use super::restore::left_out;
use super::scope::{ScopeArgs, capture_options};
use super::sys;
use crate::base::Class;
use crate::chain::{Point, origin};
use crate::format::log::{SourceKind, SourceRecord};
use crate::job::SourceConfig;
use crate::job::protocol::{self, Message, Phase, class_word};
use crate::restore::rollback::{
    DiskRolled, HOOK_LIMIT, RollbackOptions, RollbackProgress, Rolled, TreeRolled, Unfinished, WantedRollback,
    rollback, unfinished,
};
use crate::view::Selector;

/// Put a source itself back to one of its points
///
/// The source is captured first, as a point with the label before-rollback; then only what differs is written. A disk:
/// device or image, in place; it must not be in use, and nothing is written unless all that is needed can be read. A
/// directory: what came since the point goes, what changed is replaced file by file. What is excluded now, or was when
/// the point was captured, is left alone; what has no copy in the safety point, or may have been in the point although
/// its capture could not read it, is left alone and named.
///
/// The next incremental point builds on the one that was rolled back to; later points stay as they are, and can be
/// rolled back to as well. Killed or stopped, the same command continues, without another safety point unless the
/// source was used meanwhile.
///
/// The hooks stop and start of the configured source are run before and after; start is not run while the source is
/// half rolled back. Ends with 3 when something was left alone or the start hook did not run or failed, and with 13 when
/// stored content is damaged; all else of a directory is rolled back then.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// The point: SOURCE[@TIME|%LABEL|#ID|~N]
    #[arg(value_name = "SELECTOR")]
    selector: OsString,
    /// Do not ask for the source's name; needed where there is no terminal
    #[arg(long)]
    yes: bool,
    /// Do not keep a point of what the source is now
    #[arg(long)]
    no_safety_point: bool,
    /// Also replace and remove what the safety point has no copy of; take a device of another size for the source
    #[arg(long)]
    force: bool,
    /// Say how much would be written, and change nothing; of a directory at most, and since its newest point
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Read back what was written and compare it with the point
    #[arg(long)]
    verify: bool,
    /// Kill a hook that takes longer
    #[arg(long, value_name = "SECONDS", default_value_t = HOOK_LIMIT.as_secs())]
    hook_timeout: u64,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Runs it.
///
/// # Errors
/// When nothing was done, or it could not go on.
pub fn run(args: &RollbackArgs, context: &Context) -> Result<Exit, Failure> {
    let selector = Selector::parse(args.selector.as_encoded_bytes())?;
    if selector.path.is_some() {
        return Err(Failure::usage("a source is rolled back as a whole: name a point without a path")
            .hint("amberfs restore SELECTOR:PATH --to DIRECTORY brings back a part"));
    }
    let opened = context.open()?;
    let (record, mut point) = opened.resolve(&selector)?;
    if record.kind == SourceKind::Stream {
        let text = format!("source {} is a stream, which has no place to go back to", record.name);
        return Err(Failure::new(Class::Unsupported, text).hint("amberfs cat and amberfs restore give its content"));
    }
    let source = place(&record, context)?;
    let state = context.places.state()?;
    let asked = args.selector.to_string_lossy();
    let before = unfinished(&state, opened.repo.id(), record.id);
    if let Some(before) = before.as_ref().filter(|before| before.asked == asked) {
        // Its safety point may have given the words another meaning.
        (_, point) = opened.resolve(&Selector::parse(before.title.as_bytes())?)?;
    }
    let told = Told { args, context, record: &record, point: &point, place: &source.path };
    if !args.dry_run {
        told.unfinished(before.as_ref());
        confirm(args, &told)?;
    }
    let options = options(args, source.clone(), state)?;
    let work =
        Arc::new(Rolling { progress: RollbackProgress::new(), expected: point.commit.disk.as_ref().map(|f| f.bytes) });
    let mut watcher = Watcher::start(context, Arc::clone(&work) as Arc<dyn Watched>)?;
    let wanted = WantedRollback {
        repo: &opened.repo,
        log: &opened.log(&record),
        source: &record,
        point: &point,
        place: &source.path,
        asked: &asked,
    };
    let rolled = rollback(&wanted, &options, &work.progress).map_err(|error| Failure::from(error).unless_stopped());
    let rolled = rolled.map_err(|failure| match unfinished(&options.state, opened.repo.id(), record.id) {
        Some(_) if failure.advice().is_none() => {
            let stopped = if options.start.is_empty() { "" } else { "; until then what uses it is left stopped" };
            failure.hint(format!(
                "it has begun: amberfs rollback {}#{} --yes continues it{stopped}",
                record.name, point.id
            ))
        }
        _ => failure,
    })?;
    watcher.end();
    if context.global.json {
        told.to_programs(&rolled, &watcher)?;
    } else {
        told.to_people(&rolled, watcher.seconds())?;
    }
    let whole = rolled.complete && rolled.not_started.is_none() && rolled.safety_problems == 0;
    Ok(match rolled.tree.as_ref().and_then(TreeRolled::failure) {
        Some(Class::Corrupt) => Exit::Damage,
        None if whole && rolled.tree.as_ref().is_none_or(|tree| left_out(&tree.counts).is_empty()) => Exit::Done,
        None | Some(_) => Exit::Partial,
    })
}

/// The source as it is configured here, or as it was captured on this machine.
fn place(record: &SourceRecord, context: &Context) -> Result<SourceConfig, Failure> {
    let disk = record.kind == SourceKind::Disk;
    if let Some(source) = context.config()?.current()?.source(&record.name) {
        if source.disk != disk {
            let (is, was) = if disk { ("a directory", "a disk") } else { ("a disk", "a directory") };
            let text = format!("source {} is configured as {is} and was captured as {was}", record.name);
            return Err(Failure::usage(text).hint("amberfs source remove NAME, then add it as what it is"));
        }
        return Ok(source.clone());
    }
    let path = Path::new(OsStr::from_bytes(&record.origin.path));
    if !origin::same_place(&record.origin, &origin::here(&record.origin.path)) || !path.is_absolute() {
        let text = format!(
            "source {} was captured at {}, which is not this machine",
            record.name,
            origin::describe(&record.origin)
        );
        let hint = format!(
            "amberfs source add {0} PATH says where it is here; amberfs restore {0} --to TARGET makes a copy",
            record.name
        );
        return Err(Failure::new(Class::Conflict, text).hint(hint));
    }
    Ok(SourceConfig { disk, ..SourceConfig::new(record.name.clone(), path) })
}

fn options(args: &RollbackArgs, mut source: SourceConfig, state: PathBuf) -> Result<RollbackOptions, Failure> {
    if source.disk && args.scope.is_given() {
        return Err(Failure::usage(
            "nothing of a disk is left out: --exclude… and --cross-filesystems are for directories",
        ));
    }
    args.scope.add_to(&mut source)?;
    Ok(RollbackOptions {
        safety_point: !args.no_safety_point,
        force: args.force,
        dry_run: args.dry_run,
        verify: args.verify,
        capture: capture_options(&source)?,
        stop: source.stop,
        start: source.start,
        hook_limit: Duration::from_secs(args.hook_timeout),
        state,
        workers: None,
    })
}

/// How often it is asked, while somebody is to answer, whether the command shall stop.
const LOOK: Duration = Duration::from_millis(100);

/// Asks for the source's name.
fn confirm(args: &RollbackArgs, told: &Told<'_>) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    let name = &told.record.name;
    if !stdin().is_terminal() || !stderr().is_terminal() {
        let text = format!("{} would be overwritten, and there is no terminal to ask at", told.place());
        return Err(Failure::usage(text).hint("--yes says that it is meant"));
    }
    let mut err = stderr().lock();
    let safety = if args.no_safety_point { "What it is now will be lost" } else { "What it is now is captured first" };
    drop(writeln!(err, "{} goes back to {}#{} ({}). {safety}.", told.place(), name, told.point.id, told.point.name()));
    drop(write!(err, "Type the source's name ({name}) to go on: "));
    drop(err.flush());
    let (send, answer) = channel();
    // Signals are held, so whoever waits for an answer must look for them; a thread that reads cannot.
    let reader = std::thread::Builder::new().name("answer".to_owned()).spawn(move || {
        let mut line = String::new();
        drop(stdin().lock().read_line(&mut line).map(|_| send.send(line)));
    });
    reader.map_err(|error| Failure::io("start a thread", &error))?;
    loop {
        match answer.recv_timeout(LOOK) {
            Ok(line) if line.trim() == name => return Ok(()),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::usage(format!("that is not {name}: nothing was changed")));
            }
            Err(RecvTimeoutError::Timeout) if sys::asked_to_stop().is_some() => {
                return Err(Failure::new(Class::Cancelled, "nothing was changed"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A rollback under way.
struct Rolling {
    progress: RollbackProgress,
    /// Bytes in all, of a disk.
    expected: Option<u64>,
}

impl Watched for Rolling {
    fn progress(&self) -> protocol::Progress {
        let (capture, writing) = (&self.progress.capture, &self.progress.writing);
        let path = |path: Vec<u8>| Some(String::from_utf8_lossy(&path).into_owned()).filter(|path| !path.is_empty());
        if !self.progress.is_captured() {
            let expected = capture.expected();
            return protocol::Progress {
                phase: Phase::Quiescing,
                files: capture.files(),
                bytes: capture.bytes(),
                total_files: expected.map(|(files, _)| files),
                total_bytes: expected.map(|(_, bytes)| bytes),
                stored_bytes: capture.stored_bytes(),
                problems: capture.problems(),
                path: path(capture.path()),
                ..protocol::Progress::default()
            };
        }
        protocol::Progress {
            phase: if writing.is_verifying() { Phase::Verifying } else { Phase::Restoring },
            files: writing.files(),
            bytes: writing.bytes(),
            total_bytes: self.expected,
            problems: writing.problems(),
            path: path(writing.path()),
            ..protocol::Progress::default()
        }
    }

    fn cancel(&self) {
        self.progress.cancel();
    }
}

/// A rollback that is through, as `rollback --json` prints it last.
#[derive(Serialize)]
struct Summary<'a> {
    message_type: &'static str,
    source: &'a str,
    point: &'a str,
    id: u64,
    /// Bytes that are not UTF-8 are replaced.
    place: String,
    dry_run: bool,
    /// If not, the same command makes up for the rest.
    complete: bool,
    resumed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety: Option<&'a str>,
    safety_problems: u64,
    /// What the source was before rollbacks that had not ended.
    earlier: &'a [String],
    written_bytes: u64,
    kept_bytes: u64,
    zeroed_bytes: u64,
    verified_bytes: u64,
    behind_bytes: u64,
    files: u64,
    directories: u64,
    symlinks: u64,
    specials: u64,
    links: u64,
    metadata: u64,
    removed: u64,
    verified: u64,
    left_owners: u64,
    left_set_ids: u64,
    left_attributes: u64,
    problems: u64,
    damaged: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_started: Option<&'a str>,
    seconds: f64,
}

/// Problems that are told one by one to a person.
const PROBLEMS_SHOWN: usize = 100;

/// What is said of a rollback.
struct Told<'a> {
    args: &'a RollbackArgs,
    context: &'a Context,
    record: &'a SourceRecord,
    point: &'a Point,
    place: &'a Path,
}

impl Told<'_> {
    fn place(&self) -> String {
        printable(self.place.as_os_str().as_bytes())
    }

    /// What has begun here and not ended.
    fn unfinished(&self, before: Option<&Unfinished>) {
        let Some(before) = before.filter(|_| !self.context.global.quiet) else { return };
        let then = if before.point == self.point.id.0 { "goes on" } else { "gives way to this one" };
        drop(writeln!(stderr(), "amberfs: an unfinished rollback to {} {then}", before.title));
    }

    fn to_programs(&self, rolled: &Rolled, watcher: &Watcher) -> Result<(), Failure> {
        let tree = rolled.tree.clone().unwrap_or_default();
        for problem in &tree.problems {
            watcher.says().say(&Message::Problem(protocol::Problem {
                path: String::from_utf8_lossy(&problem.path).into_owned(),
                kind: class_word(problem.class).to_owned(),
                detail: problem.detail.clone(),
                touches: Vec::new(),
            }));
        }
        let disk = rolled.disk.unwrap_or_default();
        let counts = &tree.counts;
        let mut out = Output::open();
        out.json(&Summary {
            message_type: "rolled_back",
            source: &self.record.name,
            point: self.point.name(),
            id: self.point.id.0,
            place: self.place.to_string_lossy().into_owned(),
            dry_run: self.args.dry_run,
            complete: rolled.complete && !self.args.dry_run,
            resumed: rolled.resumed,
            safety: rolled.safety.as_deref(),
            safety_problems: rolled.safety_problems,
            earlier: &rolled.earlier,
            written_bytes: disk.written.written_bytes + counts.bytes,
            kept_bytes: disk.written.kept_bytes,
            zeroed_bytes: disk.written.zeroed_bytes,
            verified_bytes: disk.verified_bytes,
            behind_bytes: disk.behind_bytes,
            files: counts.files,
            directories: counts.directories,
            symlinks: counts.symlinks,
            specials: counts.specials,
            links: counts.links,
            metadata: tree.metadata,
            removed: tree.removed,
            verified: counts.verified,
            left_owners: counts.left_owners,
            left_set_ids: counts.left_set_ids,
            left_attributes: counts.left_attributes,
            problems: counts.problems,
            damaged: counts.damaged,
            not_started: rolled.not_started.as_deref(),
            seconds: watcher.seconds(),
        })?;
        out.close()
    }

    fn to_people(&self, rolled: &Rolled, seconds: f64) -> Result<(), Failure> {
        let mut err = stderr().lock();
        // There is nobody left to tell when standard error is gone; the exit code says it too.
        let mut warn = |text: String| drop(writeln!(err, "amberfs: {text}"));
        if let Some(tree) = &rolled.tree {
            for problem in tree.problems.iter().take(PROBLEMS_SHOWN) {
                let path = if problem.path.is_empty() { ".".to_owned() } else { printable(&problem.path) };
                warn(format!("{path}: {}", problem.detail));
            }
            let more = tree.counts.problems.saturating_sub(tree.problems.len().min(PROBLEMS_SHOWN) as u64);
            if more > 0 {
                warn(format!("and {} more problems", count(more)));
            }
        }
        if rolled.safety_problems > 0 {
            let problems = count(rolled.safety_problems);
            let which = "amberfs points --problems says which and why";
            warn(format!("{problems} files are not in the safety point as they were: {which}"));
        }
        if !rolled.complete {
            warn("some files could not be read now; the same command makes up for them".to_owned());
        }
        if let Some(why) = &rolled.not_started {
            let what = if rolled.complete { "the source is back, but" } else { "the source:" };
            warn(format!("{what} {why}: start what uses it by hand once it is as it must be"));
        }
        if let Some(tree) = &rolled.tree {
            left_out(&tree.counts).into_iter().for_each(&mut warn);
        }
        if self.context.global.quiet {
            return Ok(());
        }
        let mut out = Output::open();
        let did = match (self.args.dry_run, rolled.resumed) {
            (true, _) => "would roll back",
            (false, true) => "finished rolling back",
            (false, false) => "rolled back",
        };
        let (name, point) = (&self.record.name, self.point);
        out.line(format!("{did} {} to {name}#{} ({}) in {}", self.place(), point.id, point.name(), duration(seconds)))?;
        if let Some(disk) = &rolled.disk {
            disk_lines(disk, self.args.dry_run).into_iter().try_for_each(|line| out.line(line))?;
        }
        if let Some(tree) = &rolled.tree {
            out.line(tree_line(tree))?;
            if self.args.dry_run {
                out.line("against the newest point: what changed since that would be captured first")?;
            }
        }
        if let Some(safety) = &rolled.safety {
            out.line(format!("what it was before is {safety}"))?;
        }
        for earlier in &rolled.earlier {
            out.line(format!("what it was before a rollback that had not ended is {earlier}"))?;
        }
        out.close()
    }
}

fn disk_lines(disk: &DiskRolled, dry_run: bool) -> Vec<String> {
    let wrote = if dry_run { "would write" } else { "wrote" };
    let written = disk.written;
    let mut lines = vec![format!("a disk of {}: {wrote} {}", size(disk.bytes), size(written.written_bytes))];
    for (what, bytes) in [
        ("were as they must be", written.kept_bytes),
        (if dry_run { "would become zeros" } else { "made zeros" }, written.zeroed_bytes),
        ("read back and equal", disk.verified_bytes),
        ("of the device lie behind the disk's end and were left as they are", disk.behind_bytes),
    ] {
        if bytes > 0 {
            lines.push(format!("{} {what}", size(bytes)));
        }
    }
    lines
}

/// `12 files (1.2 MiB), 3 removed …`: what there is none of is not told.
fn tree_line(tree: &TreeRolled) -> String {
    let counts = &tree.counts;
    let things = [
        (counts.files, "files"),
        (counts.directories, "directories"),
        (counts.symlinks, "symbolic links"),
        (counts.specials, "special files"),
        (counts.links, "hard links"),
        (tree.metadata, "attributes only"),
        (tree.removed, "removed"),
        (counts.verified, "read back and equal"),
    ];
    let parts: Vec<String> = things
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", count(*number)))
        .collect();
    if parts.is_empty() {
        return "nothing differed".to_owned();
    }
    format!("{}; {} of content", parts.join(", "), size(counts.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::Counts;

    #[test]
    fn what_was_done_is_told_in_words() {
        assert_eq!(tree_line(&TreeRolled::default()), "nothing differed");
        let counts = Counts { files: 1200, bytes: 2048, ..Counts::default() };
        let tree = TreeRolled { counts, removed: 3, ..TreeRolled::default() };
        assert_eq!(tree_line(&tree), "1,200 files, 3 removed; 2.0 KiB of content");
    }
}
