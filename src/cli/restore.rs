//! `amberfs restore`: a directory or file of a point, back on disk.

use std::ffi::OsString;
use std::io::{Write, stderr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::ls::reading;
use super::output::{Output, count, printable, size};
use super::progress::{Watched, Watcher, duration};
use crate::base::Class;
use crate::format::log::{SourceKind, SourceRecord};
use crate::job::protocol::{self, Message, Phase, class_word};
use crate::restore::{self, Counts, Options, Outcome, Wanted};
use crate::view::disk::DiskView;
use crate::view::{Inode, PointView, Selector};

mod disk;

/// Restore a directory or a file as it was captured
///
/// A directory: the target becomes that directory, with owners, permissions, times, attributes, links and
/// holes; it is made if it is missing, and must be empty otherwise. A file is put into the target. Killed
/// or stopped, the same command continues where it ended; when a newer point has come since, it says which
/// selector does. Symbolic links are restored and never followed.
///
/// A disk: the target is a block device that is large enough, unused and empty, or a new image file, in QEMU's format
/// if its name ends with .qcow2 and raw otherwise.
///
/// Root gets owners, set-id bits, capabilities and device nodes as they were. Anybody else becomes the owner
/// and gets files without set-id bits. Ends with 3 when something asked for could not be restored, and with 13
/// when stored content is damaged; all else is restored then.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// What to restore: SOURCE[@TIME|%LABEL|#ID|~N][:PATH]
    #[arg(value_name = "SELECTOR")]
    selector: OsString,
    /// The directory to restore to; of a disk, the block device or image file
    #[arg(short, long, value_name = "TARGET")]
    to: PathBuf,
    /// Restore into a directory that is not empty: replace what has the same names, leave everything else alone;
    /// overwrite a device that is not empty, or an image file that exists
    #[arg(long)]
    force: bool,
    /// Say how much would be restored, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Read everything back from the disk and compare it with the repository
    #[arg(long)]
    verify: bool,
    /// Set owners and groups, also when not root
    #[arg(long, overrides_with = "no_owner")]
    owner: bool,
    /// Do not set owners and groups
    #[arg(long, overrides_with = "owner")]
    no_owner: bool,
    /// Keep set-id bits and capabilities of files whose owner is as it was, also when not root
    #[arg(long, overrides_with = "no_set_id")]
    set_id: bool,
    /// Drop set-id bits and capabilities
    #[arg(long, overrides_with = "set_id")]
    no_set_id: bool,
    /// Leave out device nodes
    #[arg(long)]
    no_devices: bool,
    /// Leave out device nodes, pipes and sockets
    #[arg(long)]
    no_special: bool,
}

impl RestoreArgs {
    fn options(&self) -> Options {
        let choice = |yes: bool, no: bool| (yes || no).then_some(yes);
        Options {
            force: self.force,
            dry_run: self.dry_run,
            verify: self.verify,
            owner: choice(self.owner, self.no_owner),
            set_id: choice(self.set_id, self.no_set_id),
            no_devices: self.no_devices,
            no_special: self.no_special,
            workers: None,
        }
    }
}

/// Runs it.
///
/// # Errors
/// When there is no such point or path, the target is not to be had, or nothing more can be restored.
pub fn run(args: &RestoreArgs, context: &Context) -> Result<Exit, Failure> {
    let selector = Selector::parse(args.selector.as_encoded_bytes())?;
    let opened = context.open()?;
    let (record, point) = opened.resolve(&selector)?;
    let view = PointView::new(&opened.repo, record.id, &point.commit.roots);
    let names = selector.names()?;
    if let (Some(facts), []) = (&point.commit.disk, names.as_slice()) {
        let disk = DiskView::new(view, None, facts).map_err(|error| reading("find the disk".to_owned(), error))?;
        return disk::run(args, context, &record, &point, &disk);
    }
    let whole = || format!("{}@{}:{}", record.name, point.name(), printable(&names.join(&b'/')));
    let (inode, name) = match (record.kind, names.as_slice()) {
        (SourceKind::Stream, []) => only_file(&view)?,
        _ => {
            let inode = view.walk(names.iter().copied()).map_err(|error| reading(whole(), error))?;
            (inode, names.last().copied().unwrap_or_default().to_vec())
        }
    };
    // The number, so that it means the same point when there are newer ones.
    let title = match names.as_slice() {
        [] => format!("{}#{}", record.name, point.id),
        names => format!("{}#{}:{}", record.name, point.id, printable(&names.join(&b'/'))),
    };
    let stats = &point.commit.stats;
    let expected = names.is_empty().then_some((stats.files + stats.others, stats.bytes));
    let work = Arc::new(Restoring { progress: restore::Progress::new(), expected });
    let mut watcher = Watcher::start(context, Arc::clone(&work) as Arc<dyn Watched>)?;
    let wanted = Wanted { view: &view, inode: &inode, name: &name, title: &title };
    let outcome = restore::restore(&wanted, &args.to, &args.options(), &work.progress)
        .map_err(|error| Failure::from(error).unless_stopped())?;
    watcher.end();
    let told = Told { record: &record, point: point.name(), title: &title, outcome: &outcome, args };
    if context.global.json {
        told.to_programs(&watcher)?;
    } else {
        told.to_people(context.global.quiet, watcher.seconds())?;
    }
    Ok(match outcome.failure() {
        None if outcome.complete => Exit::Done,
        Some(Class::Corrupt) => Exit::Damage,
        None | Some(_) => Exit::Partial,
    })
}

/// The file of a stream, with its name.
fn only_file(view: &PointView) -> Result<(Inode, Vec<u8>), Failure> {
    let reading = |error| reading("read the stream's directory", error);
    let root = view.root().map_err(reading)?;
    match view.list(&root, 0).map_err(reading)?.next() {
        Some(item) => item.and_then(|listed| Ok((listed.inode?, listed.name))).map_err(reading),
        None => Err(Failure::new(Class::Corrupt, "the stream's point holds no file")),
    }
}

/// A restore under way.
struct Restoring {
    progress: restore::Progress,
    /// Names and bytes in all, where the point as a whole is restored.
    expected: Option<(u64, u64)>,
}

impl Watched for Restoring {
    fn progress(&self) -> protocol::Progress {
        protocol::Progress {
            phase: if self.progress.is_verifying() { Phase::Verifying } else { Phase::Restoring },
            files: self.progress.files(),
            bytes: self.progress.bytes(),
            total_files: self.expected.map(|(files, _)| files),
            total_bytes: self.expected.map(|(_, bytes)| bytes),
            stored_bytes: 0,
            problems: self.progress.problems(),
            seconds: 0.0,
            seconds_left: None,
            path: Some(String::from_utf8_lossy(&self.progress.path()).into_owned()).filter(|path| !path.is_empty()),
        }
    }

    fn cancel(&self) {
        self.progress.cancel();
    }
}

/// A restore that is through, as `restore --json` prints it last.
#[derive(Serialize)]
struct Restored<'a> {
    message_type: &'static str,
    source: &'a str,
    point: &'a str,
    /// Bytes that are not UTF-8 are replaced.
    target: String,
    dry_run: bool,
    /// If not, the same command makes up for the rest.
    complete: bool,
    resumed: bool,
    files: u64,
    directories: u64,
    symlinks: u64,
    specials: u64,
    links: u64,
    kept: u64,
    bytes: u64,
    verified: u64,
    left_owners: u64,
    left_set_ids: u64,
    left_attributes: u64,
    left_specials: u64,
    problems: u64,
    damaged: u64,
    seconds: f64,
}

/// Problems that are told one by one to a person.
const PROBLEMS_SHOWN: usize = 100;

/// What is said of a restore that is through.
struct Told<'a> {
    record: &'a SourceRecord,
    point: &'a str,
    title: &'a str,
    outcome: &'a Outcome,
    args: &'a RestoreArgs,
}

impl Told<'_> {
    fn to_programs(&self, watcher: &Watcher) -> Result<(), Failure> {
        for problem in &self.outcome.problems {
            watcher.says().say(&Message::Problem(protocol::Problem {
                path: String::from_utf8_lossy(&problem.path).into_owned(),
                kind: class_word(problem.class).to_owned(),
                detail: problem.detail.clone(),
                touches: Vec::new(),
            }));
        }
        let counts = &self.outcome.counts;
        let mut out = Output::open();
        out.json(&Restored {
            message_type: "restored",
            source: &self.record.name,
            point: self.point,
            target: self.args.to.to_string_lossy().into_owned(),
            dry_run: self.args.dry_run,
            complete: self.outcome.complete,
            resumed: self.outcome.resumed,
            files: counts.files,
            directories: counts.directories,
            symlinks: counts.symlinks,
            specials: counts.specials,
            links: counts.links,
            kept: counts.kept,
            bytes: counts.bytes,
            verified: counts.verified,
            left_owners: counts.left_owners,
            left_set_ids: counts.left_set_ids,
            left_attributes: counts.left_attributes,
            left_specials: counts.left_specials,
            problems: counts.problems,
            damaged: counts.damaged,
            seconds: watcher.seconds(),
        })?;
        out.close()
    }

    fn to_people(&self, quiet: bool, seconds: f64) -> Result<(), Failure> {
        let counts = &self.outcome.counts;
        let mut err = stderr().lock();
        for problem in self.outcome.problems.iter().take(PROBLEMS_SHOWN) {
            // There is nobody left to tell when standard error is gone; the exit code says it too.
            drop(writeln!(err, "amberfs: {}: {}", shown(&problem.path), problem.detail));
        }
        let more = counts.problems.saturating_sub(self.outcome.problems.len().min(PROBLEMS_SHOWN) as u64);
        if more > 0 {
            drop(writeln!(err, "amberfs: and {} more problems", count(more)));
        }
        if counts.damaged > 0 {
            let advice = "amberfs verify tells what else the damage touches; another point may have them whole";
            drop(writeln!(
                err,
                "amberfs: {} files are damaged and were left out\nhint: {advice}",
                count(counts.damaged)
            ));
        }
        if !self.outcome.complete {
            let text = "some files could not be read now; the same command makes up for them";
            drop(writeln!(err, "amberfs: {text}"));
        }
        if quiet {
            return Ok(());
        }
        let mut out = Output::open();
        let did = match (self.args.dry_run, self.outcome.resumed) {
            (true, _) => "would restore",
            (false, true) => "finished restoring",
            (false, false) => "restored",
        };
        out.line(format!("{did} {} ({}) to {}", self.title, self.point, printable(path_bytes(&self.args.to))))?;
        out.line(sums(counts))?;
        if !self.args.dry_run {
            let rate = if seconds > 0.0 { (counts.bytes as f64 / seconds) as u64 } else { 0 };
            out.line(format!("wrote {} in {} ({}/s)", size(counts.bytes), duration(seconds), size(rate)))?;
        }
        for line in left_out(counts) {
            out.line(line)?;
        }
        out.close()
    }
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A path relative to the target, as people read it.
fn shown(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { printable(path) }
}

/// `12 files, 3 directories, 1 symlink …`: what there is none of is not told.
fn sums(counts: &Counts) -> String {
    let parts = [
        (counts.files, "file", "files"),
        (counts.directories, "directory", "directories"),
        (counts.symlinks, "symbolic link", "symbolic links"),
        (counts.links, "further hard link", "further hard links"),
        (counts.specials, "special file", "special files"),
        (counts.kept, "kept from before", "kept from before"),
        (counts.verified, "read back and equal", "read back and equal"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(number, ..)| *number > 0)
        .map(|(number, one, many)| format!("{} {}", count(*number), if *number == 1 { one } else { many }))
        .collect();
    parts.join(", ")
}

/// A line for each thing that was left out on purpose.
pub(super) fn left_out(counts: &Counts) -> Vec<String> {
    let left = [
        (counts.left_owners, "owners were not set: they are yours now (only root can set others)"),
        (counts.left_set_ids, "files lost their set-id bits or capabilities (see --set-id)"),
        (counts.left_attributes, "attributes that only root can set were left out"),
        (counts.left_specials, "device nodes, pipes or sockets were left out"),
    ];
    left.iter().filter(|(number, _)| *number > 0).map(|(number, text)| format!("{} {text}", count(*number))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_and_left_is_told_in_words() {
        let counts = Counts { files: 1, directories: 1200, left_owners: 2, ..Counts::default() };
        assert_eq!(sums(&counts), "1 file, 1,200 directories");
        assert_eq!(left_out(&counts), ["2 owners were not set: they are yours now (only root can set others)"]);
    }
}
