//! The server process of a mount: opens what it shows, mounts, serves, and ends cleanly.
//!
//! It ends when the mount is gone, or when a signal or the supervisor tells it to: then it unmounts,
//! lazily if the mount is in use, and gives what uses it a moment. When the supervisor dies, it starts a
//! successor.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::error::MountError;
use super::launch::{Failed, Launch, Role, leave_caller, start};
use super::lifeline::{self, Word};
use super::mountinfo::DeviceId;
use super::serve::{Contents, Mounted, end};
use super::sys;
use crate::base::Class;

/// How long those who use a mount may go on after it was told to end.
const LAST_ORDERS: Duration = Duration::from_secs(1);
/// A supervisor that lives for less is not worth another at once.
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// Short lives in a row after which the mount goes on unsupervised.
const SHORT_LIVES_MAX: u32 = 5;

enum Event {
    Unmounted(io::Result<()>),
    ToldToEnd,
    SupervisorGone,
}

/// Plays the server, started by a supervisor.
pub(crate) fn server(
    launch: &Launch<'_>,
    open: impl FnOnce() -> Result<Contents, Failed>,
    code: &impl Fn(Class) -> u8,
) -> Result<(), Failed> {
    let failed = |error: MountError| Failed::of(&error, code);
    let mut lifeline = lifeline::inherited().map_err(failed)?;
    let outcome = serve(launch, open, &mut lifeline, &failed);
    let last = match &outcome {
        Ok(()) => Word::Bye,
        Err(failed) => Word::Failed(failed.clone()),
    };
    // A supervisor that is gone by now has nothing to clear: the mount is gone too.
    let _heard = last.say(&mut lifeline);
    outcome.map_err(Failed::told)
}

fn serve(
    launch: &Launch<'_>,
    open: impl FnOnce() -> Result<Contents, Failed>,
    lifeline: &mut UnixStream,
    failed: &impl Fn(MountError) -> Failed,
) -> Result<(), Failed> {
    let process = |doing| move |cause| failed(MountError::Process { doing, cause });
    sys::catch_ending_signals().map_err(process("catch signals"))?;
    let contents = open()?;
    let mounted = Mounted::make(contents, &launch.mountpoint, &launch.options).map_err(failed)?;
    let (place, device) = (mounted.place().to_owned(), mounted.device());
    Word::ready(device).say(lifeline).map_err(process("tell the supervisor"))?;
    leave_caller(launch);

    let (tell, events) = channel();
    forward(&tell, "unmounted", {
        let ended = mounted.ended();
        move || Some(Event::Unmounted(ended.recv().unwrap_or_else(|_| Err(io::Error::other("the session panicked")))))
    })
    .map_err(process("start a thread"))?;
    forward(&tell, "signals", || sys::await_signal().ok().map(|()| Event::ToldToEnd))
        .map_err(process("start a thread"))?;
    listen(&tell, lifeline, None).map_err(process("start a thread"))?;
    let mut succession = Succession { short_lives: 0, since: Instant::now() };
    loop {
        match events.recv() {
            Ok(Event::Unmounted(outcome)) => {
                return outcome.map_err(|cause| failed(MountError::Session { path: place, cause }));
            }
            Ok(Event::ToldToEnd) => return finish(&place, device, &events).map_err(failed),
            Ok(Event::SupervisorGone) => match succession.next(launch, &place, device) {
                Some((socket, child)) => {
                    *lifeline = socket;
                    listen(&tell, lifeline, Some(child)).map_err(process("start a thread"))?;
                }
                None => tracing::error!("no supervisor can be kept; if this server dies, `amberfs umount` clears up"),
            },
            Err(_) => return Err(failed(MountError::Protocol("all watchers of the mount ended".to_owned()))),
        }
    }
}

fn finish(place: &Path, device: DeviceId, events: &Receiver<Event>) -> Result<(), MountError> {
    end(place, device)?;
    let last = Instant::now() + LAST_ORDERS;
    while let Some(left) = last.checked_duration_since(Instant::now()) {
        match events.recv_timeout(left) {
            Ok(Event::ToldToEnd | Event::SupervisorGone) => {}
            // Those who still use it get errors when this process ends.
            Ok(Event::Unmounted(_)) | Err(_) => break,
        }
    }
    Ok(())
}

struct Succession {
    short_lives: u32,
    since: Instant,
}

impl Succession {
    /// Starts a supervisor in place of the one that is gone.
    fn next(&mut self, launch: &Launch<'_>, place: &Path, device: DeviceId) -> Option<(UnixStream, Child)> {
        self.short_lives = if self.since.elapsed() < SHORT_LIFE { self.short_lives + 1 } else { 1 };
        self.since = Instant::now();
        if self.short_lives > SHORT_LIVES_MAX {
            return None;
        }
        let (ours, theirs) = UnixStream::pair().ok()?;
        let theirs = Stdio::from(OwnedFd::from(theirs));
        let child = start(launch, place, Role::Successor(device), theirs, Stdio::null()).ok()?;
        tracing::warn!("the supervisor of {} is gone; started another", place.display());
        Some((ours, child))
    }
}

/// Reports what the supervisor says, and its end; then reaps it, if it was our child.
fn listen(tell: &Sender<Event>, lifeline: &UnixStream, supervisor: Option<Child>) -> io::Result<()> {
    let (tell, lifeline) = (tell.clone(), lifeline.try_clone()?);
    std::thread::Builder::new().name("supervisor".into()).spawn(move || {
        Word::hear_all(lifeline, |word| word != Word::End || tell.send(Event::ToldToEnd).is_ok());
        // The main thread may have ended with the mount.
        let _told = tell.send(Event::SupervisorGone);
        if let Some(mut supervisor) = supervisor {
            let _reaped = supervisor.wait();
        }
    })?;
    Ok(())
}

fn forward(
    tell: &Sender<Event>,
    name: &str,
    mut next: impl FnMut() -> Option<Event> + Send + 'static,
) -> io::Result<()> {
    let tell = tell.clone();
    std::thread::Builder::new().name(name.into()).spawn(move || {
        while let Some(event) = next() {
            let last = matches!(event, Event::Unmounted(_));
            if tell.send(event).is_err() || last {
                return;
            }
        }
    })?;
    Ok(())
}
