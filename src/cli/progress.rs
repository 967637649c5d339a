//! How far long work is: a line on a terminal, JSON lines for programs, one line for SIGUSR1.
//!
//! A thread of its own looks a few times a second, so that the work itself never waits for a terminal.
//! It also passes on a request to stop: [`sys::hold_signals`] has been called for a command that is watched, before any other thread began.
//! It ends before the command prints its result.

use std::io::{IsTerminal, Stdout, Write, stderr, stdout};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::context::Context;
use super::failure::Failure;
use super::output::{count, printable, size};
use super::sys;
use crate::job::protocol::{Emitter, Message, Phase, Progress};

/// How often the terminal is drawn and requests are heard.
const LOOK: Duration = Duration::from_millis(200);
/// How often a line of JSON is written, when the phase stays.
const SAY: Duration = Duration::from_millis(500);

/// Work that can be watched and stopped.
pub trait Watched: Send + Sync + 'static {
    /// Where it stands; times are filled in by the watcher.
    fn progress(&self) -> Progress;
    /// Asks it to stop soon.
    fn cancel(&self);
}

/// The watcher of some work.
pub struct Watcher {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    says: Arc<Emitter<Stdout>>,
    began: Instant,
}

impl Watcher {
    /// Watches `work` until [`Watcher::end`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(context: &Context, work: Arc<dyn Watched>) -> Result<Watcher, Failure> {
        let says = Arc::new(Emitter::new(stdout()));
        let look = Look {
            work,
            says: context.global.json.then(|| Arc::clone(&says)),
            bar: shows_bar(context).then(bar),
            began: Instant::now(),
            said: None,
            stopping: false,
        };
        let began = look.began;
        let (end, ended) = channel();
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                let mut look = look;
                while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                    look.once();
                }
                if let Some(bar) = &look.bar {
                    bar.finish_and_clear();
                }
            })
            .map_err(|error| Failure::io("start a thread", &error))?;
        Ok(Watcher { end: Some(end), thread: Some(thread), says, began })
    }

    /// Where lines of JSON go.
    pub fn says(&self) -> &Emitter<Stdout> {
        &self.says
    }

    /// How long the work has taken, in seconds.
    pub fn seconds(&self) -> f64 {
        rounded(self.began.elapsed().as_secs_f64())
    }

    /// Ends the watch and clears the terminal's line.
    pub fn end(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A watcher that panicked has nothing to say about the work.
            drop(thread.join());
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the watching thread knows.
struct Look {
    work: Arc<dyn Watched>,
    says: Option<Arc<Emitter<Stdout>>>,
    bar: Option<ProgressBar>,
    began: Instant,
    said: Option<(Instant, Phase)>,
    stopping: bool,
}

impl Look {
    fn once(&mut self) {
        if !self.stopping && sys::asked_to_stop().is_some() {
            self.stopping = true;
            self.work.cancel();
        }
        let mut progress = self.work.progress();
        complete(&mut progress, self.began.elapsed());
        if let Some(bar) = &self.bar {
            bar.set_message(if self.stopping { "stopping…".to_owned() } else { line(&progress) });
        }
        if sys::asked_to_show() {
            drop(writeln!(stderr(), "{}", line(&progress)));
        }
        if let Some(says) = &self.says {
            let due = self.said.is_none_or(|(when, phase)| when.elapsed() >= SAY || phase != progress.phase);
            if due {
                self.said = Some((Instant::now(), progress.phase));
                says.say(&Message::Progress(progress));
            }
        }
    }
}

/// Whether anybody is told how far work is.
pub fn is_watched(context: &Context) -> bool {
    context.global.json || shows_bar(context)
}

fn shows_bar(context: &Context) -> bool {
    !context.global.json && !context.global.quiet && stderr().is_terminal()
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}

/// Fills in the time that has passed, and the time to go as far as the totals tell.
fn complete(progress: &mut Progress, elapsed: Duration) {
    progress.seconds = rounded(elapsed.as_secs_f64());
    let share = share(progress).filter(|share| *share > 0.0);
    progress.seconds_left =
        share.filter(|_| elapsed.as_secs() > 0).map(|share| rounded(progress.seconds * (1.0 - share) / share));
}

/// How much of the expected work is done, 0 to 1; none when nothing is expected.
fn share(progress: &Progress) -> Option<f64> {
    let part = |done: u64, total: Option<u64>| {
        total.filter(|total| *total > 0).map(|total| (done as f64 / total as f64).min(1.0))
    };
    part(progress.bytes, progress.total_bytes).or_else(|| part(progress.files, progress.total_files))
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Progress in one line: `capturing: 12,345 files, 1.2 GiB at 120.0 MiB/s, 45 %, 0:12 left, photos/2026`.
pub fn line(progress: &Progress) -> String {
    let doing = match progress.phase {
        Phase::Quiescing => "capturing",
        Phase::Captured | Phase::Uploading => "storing",
        Phase::Verifying => "verifying",
        Phase::Restoring => "restoring",
    };
    let things = match progress.phase {
        Phase::Verifying => "objects",
        Phase::Quiescing | Phase::Captured | Phase::Uploading | Phase::Restoring => "files",
    };
    let mut line = format!("{doing}: {} {things}, {}", count(progress.files), size(progress.bytes));
    if progress.seconds >= 1.0 {
        line += &format!(" at {}/s", size((progress.bytes as f64 / progress.seconds) as u64));
    }
    if let Some(share) = share(progress) {
        line += &format!(", {:.0} %", share * 100.0);
    }
    if let Some(left) = progress.seconds_left {
        line += &format!(", {} left", clock(left));
    }
    if progress.problems > 0 {
        line += &format!(", {} problems", count(progress.problems));
    }
    if let Some(path) = progress.path.as_deref().filter(|path| !path.is_empty()) {
        line += &format!(", {}", printable(path.as_bytes()));
    }
    line
}

/// Seconds as `0:12`, `12:34` or `1:02:03`.
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.round().clamp(0.0, 1e9) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// How long something took: `0.25 s`, `12.3 s`, `12:34`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 60.0 => format!("{s:.1} s"),
        s => clock(s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_and_time_to_go() {
        let mut progress = Progress {
            files: 12_345,
            bytes: 1 << 30,
            total_bytes: Some(4 << 30),
            path: Some("a/b\u{1b}".to_owned()),
            ..Progress::default()
        };
        complete(&mut progress, Duration::from_secs(8));
        assert_eq!(progress.seconds_left, Some(24.0));
        assert_eq!(line(&progress), r"capturing: 12,345 files, 1.0 GiB at 128.0 MiB/s, 25 %, 0:24 left, a/b\u{1b}");
    }

    #[test]
    fn nothing_is_guessed_without_totals() {
        let mut progress = Progress { phase: Phase::Verifying, files: 3, problems: 2, ..Progress::default() };
        complete(&mut progress, Duration::from_millis(400));
        assert_eq!(progress.seconds_left, None);
        assert_eq!(line(&progress), "verifying: 3 objects, 0 B, 2 problems");
        // More than was expected is all of it.
        let over = Progress { files: 9, total_files: Some(3), ..Progress::default() };
        assert_eq!(share(&over), Some(1.0));
    }

    #[test]
    fn times_read_like_a_clock() {
        for (seconds, text) in [(0.4, "0:00"), (12.0, "0:12"), (754.0, "12:34"), (3723.0, "1:02:03")] {
            assert_eq!(clock(seconds), text);
        }
        for (seconds, text) in [(0.034, "0.03 s"), (12.34, "12.3 s"), (754.0, "12:34")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
