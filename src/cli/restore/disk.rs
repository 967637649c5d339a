//! `amberfs restore` of a disk.

use std::sync::Arc;

use serde::Serialize;

use super::{RestoreArgs, Restoring};
use crate::chain::Point;
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, printable, size};
use crate::cli::progress::{Watched, Watcher, duration};
use crate::format::log::SourceRecord;
use crate::restore;
use crate::restore::disk::{DiskOptions, DiskOutcome, WantedDisk, restore_disk};
use crate::view::disk::DiskView;

/// A disk that has been restored, as `restore --json` prints it.
#[derive(Serialize)]
struct Restored<'a> {
    message_type: &'static str,
    source: &'a str,
    point: &'a str,
    /// Bytes that are not UTF-8 are replaced.
    target: String,
    dry_run: bool,
    complete: bool,
    resumed: bool,
    bytes: u64,
    written_bytes: u64,
    kept_bytes: u64,
    zeroed_bytes: u64,
    verified_bytes: u64,
    behind_bytes: u64,
    seconds: f64,
}

/// Restores a point of a disk.
///
/// # Errors
/// When the target is not to be had, or a byte cannot be read or written.
pub(super) fn run(
    args: &RestoreArgs,
    context: &Context,
    record: &SourceRecord,
    point: &Point,
    disk: &DiskView,
) -> Result<Exit, Failure> {
    let title = format!("{}#{}", record.name, point.id);
    let work = Arc::new(Restoring { progress: restore::Progress::new(), expected: Some((1, disk.bytes())) });
    let mut watcher = Watcher::start(context, Arc::clone(&work) as Arc<dyn Watched>)?;
    let options = DiskOptions {
        force: args.force,
        dry_run: args.dry_run,
        verify: args.verify,
        workers: None,
        state: context.places.state().ok(),
    };
    let wanted = WantedDisk { disk, title: &title };
    let outcome = restore_disk(&wanted, &args.to, &options, &work.progress)
        .map_err(|error| Failure::from(error).unless_stopped())?;
    watcher.end();
    let told = Told { args, record, point, title: &title, outcome };
    if context.global.json {
        told.to_programs(watcher.seconds())?;
    } else if !context.global.quiet {
        told.to_people(watcher.seconds())?;
    }
    Ok(Exit::Done)
}

struct Told<'a> {
    args: &'a RestoreArgs,
    record: &'a SourceRecord,
    point: &'a Point,
    title: &'a str,
    outcome: DiskOutcome,
}

impl Told<'_> {
    fn to_programs(&self, seconds: f64) -> Result<(), Failure> {
        let DiskOutcome { bytes, written, verified_bytes, resumed, behind_bytes } = self.outcome;
        let mut out = Output::open();
        out.json(&Restored {
            message_type: "restored",
            source: &self.record.name,
            point: self.point.name(),
            target: self.args.to.to_string_lossy().into_owned(),
            dry_run: self.args.dry_run,
            complete: !self.args.dry_run,
            resumed,
            bytes,
            written_bytes: written.written_bytes,
            kept_bytes: written.kept_bytes,
            zeroed_bytes: written.zeroed_bytes,
            verified_bytes,
            behind_bytes,
            seconds,
        })?;
        out.close()
    }

    fn to_people(&self, seconds: f64) -> Result<(), Failure> {
        let DiskOutcome { bytes, written, verified_bytes, resumed, behind_bytes } = self.outcome;
        let mut out = Output::open();
        let did = match (self.args.dry_run, resumed) {
            (true, _) => "would restore",
            (false, true) => "finished restoring",
            (false, false) => "restored",
        };
        let target = printable(self.args.to.as_os_str().as_encoded_bytes());
        out.line(format!("{did} {} ({}) to {target}", self.title, self.point.name()))?;
        if self.args.dry_run {
            out.line(format!("a disk of {}, {} of it data", size(bytes), size(written.written_bytes)))?;
            return out.close();
        }
        let rate = if seconds > 0.0 { (written.written_bytes as f64 / seconds) as u64 } else { 0 };
        out.line(format!(
            "a disk of {}: wrote {} in {} ({}/s)",
            size(bytes),
            size(written.written_bytes),
            duration(seconds),
            size(rate)
        ))?;
        for (what, bytes) in [
            ("was there from before", written.kept_bytes),
            ("made zeros", written.zeroed_bytes),
            ("read back and equal", verified_bytes),
            ("of the device lie behind the disk's end and were left as they are", behind_bytes),
        ] {
            if bytes > 0 {
                out.line(format!("{} {what}", size(bytes)))?;
            }
        }
        out.close()
    }
}
