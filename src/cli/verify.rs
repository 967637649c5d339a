//! `amberfs verify`: whether what is stored can be had, and what cannot.

use std::sync::Arc;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, count, printable, size};
use super::progress::{Watched, Watcher, duration};
use crate::job::protocol::{self, Doubts, Message, Names, Phase, Touches, Verified};
use crate::verify::{self, Doubt, Finding, Leftovers, Options, Report, Touch, Touched, verify};

/// Check that every point can be read, and name what is damaged and which paths it touches
///
/// Reads every log, tree and pack footer; with --read-data every byte of every file as well. Changes
/// nothing. Ends with 13 when something is damaged.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Only these sources (default: all, and the repository's own objects)
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Read the contents of all files too
    #[arg(long)]
    read_data: bool,
    /// List at most N paths for each damaged object and set of points
    #[arg(long, value_name = "N", default_value_t = 20)]
    paths: usize,
}

/// Runs it.
///
/// # Errors
/// When the repository cannot be read to its end.
pub fn run(args: &VerifyArgs, context: &Context) -> Result<Exit, Failure> {
    let opened = context.open()?;
    let options = Options {
        read_data: args.read_data,
        sources: (!args.sources.is_empty()).then(|| args.sources.clone()),
        paths_max: args.paths,
        workers: None,
    };
    let progress = Arc::new(Verifying(verify::Progress::new()));
    let mut watcher = Watcher::start(context, Arc::clone(&progress) as Arc<dyn Watched>)?;
    let report = verify(&opened.repo, &options, &progress.0).map_err(|error| Failure::from(error).unless_stopped())?;
    watcher.end();
    let seconds = watcher.seconds();
    if context.global.json {
        for finding in &report.findings {
            watcher.says().say(&Message::Problem(problem(finding)));
        }
        watcher.says().say(&Message::Verified(verified(&report, args, seconds)));
    } else {
        told(&report, context.global.quiet, seconds)?;
    }
    Ok(if report.damaged() == 0 { Exit::Done } else { Exit::Damage })
}

/// A verification under way.
struct Verifying(verify::Progress);

impl Watched for Verifying {
    fn progress(&self) -> protocol::Progress {
        protocol::Progress {
            phase: Phase::Verifying,
            files: self.0.objects(),
            bytes: self.0.bytes(),
            total_files: self.0.expected_objects(),
            total_bytes: self.0.expected_bytes(),
            problems: self.0.problems(),
            path: Some(self.0.place()).filter(|place| !place.is_empty()),
            ..protocol::Progress::default()
        }
    }

    fn cancel(&self) {
        self.0.cancel();
    }
}

/// What is wrong with an object, in one line.
fn detail(finding: &Finding) -> String {
    let faults = finding.faults.iter().map(|fault| match fault.offset {
        Some(offset) => format!("at byte {offset}: {}", fault.what),
        None => fault.what.clone(),
    });
    let mut detail = faults.collect::<Vec<_>>().join("; ");
    if finding.more_faults > 0 {
        detail += &format!("; and {} more faults", count(finding.more_faults));
    }
    detail
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn problem(finding: &Finding) -> protocol::Problem {
    protocol::Problem {
        path: finding.object.to_string(),
        kind: finding.harm.word().to_owned(),
        detail: detail(finding),
        touches: finding.touches.iter().map(touches).collect(),
    }
}

fn touches(touch: &Touch) -> Touches {
    let mut said = Touches {
        source: touch.source.clone(),
        points: touch.points.clone(),
        more: touch.more_paths,
        unreachable: touch.unreachable,
        also: touch.also.clone(),
        ..Touches::default()
    };
    for touched in &touch.paths {
        match touched {
            Touched::Everything => said.everything = true,
            Touched::Path(path) => said.paths.push(text(path)),
            Touched::Names { directory, from, before } => said.names.push(Names {
                directory: text(directory),
                from: from.as_deref().map(text),
                before: before.as_deref().map(text),
            }),
        }
    }
    said
}

fn verified(report: &Report, args: &VerifyArgs, seconds: f64) -> Verified {
    Verified {
        source: match args.sources.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        },
        points: report.points(),
        sound_points: report.sound_points(),
        objects: report.objects,
        bytes: report.bytes,
        read_data: report.read_data,
        damaged: report.damaged(),
        orphans: report.orphans.objects,
        orphan_bytes: report.orphans.bytes,
        unknown: report.unknown.names.iter().map(ToString::to_string).collect(),
        authenticated: report.authenticated,
        unauthenticated: report.doubtful.values().map(|of| of.objects).sum(),
        doubts: report.doubtful.iter().map(|(why, of)| doubts(*why, of)).collect(),
        notes: report.notes.clone(),
        advice: report.advice.clone(),
        seconds,
    }
}

fn doubts(why: Doubt, of: &Leftovers) -> Doubts {
    let names = of.names.iter().map(ToString::to_string).collect();
    Doubts { why: why.word().to_owned(), objects: of.objects, names }
}

/// What the verification can answer for, and what it cannot.
fn authenticity(report: &Report) -> String {
    let doubtful: u64 = report.doubtful.values().map(|of| of.objects).sum();
    let reasons: Vec<String> =
        report.doubtful.iter().map(|(why, of)| format!("{} {}", count(of.objects), why.words())).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    format!("{} objects authenticated, {} not{why}", count(report.authenticated), count(doubtful))
}

fn told(report: &Report, quiet: bool, seconds: f64) -> Result<(), Failure> {
    let mut out = Output::open();
    for finding in &report.findings {
        out.line(format!("{}: {}: {}", finding.harm.word(), finding.object, printable(detail(finding).as_bytes())))?;
        for touch in &finding.touches {
            told_touch(&mut out, touch)?;
        }
        if finding.touches.is_empty() {
            out.line("  no file needs what is damaged, as far as it was read")?;
        }
    }
    if report.more_findings > 0 {
        out.line(format!("and {} more damaged objects", count(report.more_findings)))?;
    }
    if !quiet {
        for note in &report.notes {
            out.line(format!("note: {}", printable(note.as_bytes())))?;
        }
        if report.orphans.objects > 0 {
            out.line(format!(
                "note: {} packs of no point, {}: of captures under way, of ones that did not come to their end, or of a point \
                 whose entry was the last of its log and is gone",
                count(report.orphans.objects),
                size(report.orphans.bytes)
            ))?;
        }
        for name in &report.unknown.names {
            out.line(format!("note: {} is no object of this repository", printable(name.as_str().as_bytes())))?;
        }
        let more = report.unknown.objects.saturating_sub(report.unknown.names.len() as u64);
        if more > 0 {
            out.line(format!("note: and {} more objects that are not this repository's", count(more)))?;
        }
        let what = if report.read_data { "all contents read" } else { "contents not read: --read-data does" };
        out.line(format!(
            "checked {} points, {} objects, {} in {} ({what})",
            count(report.points()),
            count(report.objects),
            size(report.bytes),
            duration(seconds),
        ))?;
    }
    if !quiet && report.authenticated + report.doubtful.len() as u64 > 0 {
        out.line(authenticity(report))?;
    }
    if report.damaged() > 0 {
        out.line(format!(
            "{} damaged objects; {} of {} points are touched",
            count(report.damaged()),
            count(report.points() - report.sound_points()),
            count(report.points()),
        ))?;
        for advice in &report.advice {
            out.line(format!("hint: {}", printable(advice.as_bytes())))?;
        }
    } else if !quiet {
        out.line("no damage")?;
    }
    out.close()
}

fn told_touch(out: &mut Output, touch: &Touch) -> Result<(), Failure> {
    let whose = match touch.points.as_slice() {
        [] if touch.source.is_empty() => "  touches:".to_owned(),
        [] => format!("  touches source {}:", touch.source),
        [only] => format!("  touches {}@{only}:", touch.source),
        [first, .., last] => {
            format!("  touches {} points of {}, {first} to {last}:", touch.points.len(), touch.source)
        }
    };
    out.line(whose)?;
    for touched in &touch.paths {
        let shown = |path: &[u8]| if path.is_empty() { "/".to_owned() } else { printable(path) };
        out.line(match touched {
            Touched::Everything => "    everything".to_owned(),
            Touched::Path(path) => format!("    {}", shown(path)),
            Touched::Names { directory, from: None, before: None } => {
                format!("    all names in {}, whichever they are", shown(directory))
            }
            Touched::Names { directory, from, before } => {
                let from = from.as_deref().map_or_else(String::new, |name| format!(" from {}", printable(name)));
                let to =
                    before.as_deref().map_or_else(String::new, |name| format!(" up to before {}", printable(name)));
                format!("    names in {}{from}{to}, whichever they are", shown(directory))
            }
        })?;
    }
    if touch.more_paths > 0 {
        out.line(format!("    and {} more", count(touch.more_paths)))?;
    }
    if touch.unreachable > 0 {
        out.line(format!("    {} entries below directories whose names are lost", count(touch.unreachable)))?;
    }
    for also in &touch.also {
        out.line(format!("    {}", printable(also.as_bytes())))?;
    }
    Ok(())
}
