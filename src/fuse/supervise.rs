//! The supervisor of a mount: sees to it that a dead server leaves no dead mount.
//!
//! Crash behaviour: the kernel answers ENOTCONN for a mount whose server is gone, until it is unmounted.
//! The supervisor learns of the server's end from the lifeline, whatever ended it, and takes the mount
//! away at once, used or not. It touches only the mount that the server named, by its device number.
//! It holds no lock, opens no repository and allocates next to nothing, so it is a poor target when memory runs out.

use std::io::{self, Stdout};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::detach::detach;
use super::error::MountError;
use super::launch::{Failed, Launch, Role, leave_caller, start};
use super::lifeline::{self, Word};
use super::mountinfo::DeviceId;
use super::place::clear_dead;
use super::sys;

/// How long a server may take to end after it was told to.
const OBEDIENCE: Duration = Duration::from_secs(5);

enum Event {
    Said(Word),
    ServerGone,
    ToldToEnd,
}

/// What the supervisor knows of its server.
#[derive(Default)]
struct Watch {
    device: Option<DeviceId>,
    bye: bool,
    failed: Option<Failed>,
}

/// Starts the server of `launch` at `place` and watches it to its end. Tells `report` when the mount
/// answers.
pub(crate) fn supervise(
    launch: &Launch<'_>,
    place: &Path,
    mut report: Option<Stdout>,
) -> Result<Result<(), Failed>, MountError> {
    let failed = |doing| move |cause| MountError::Process { doing, cause };
    sys::catch_ending_signals().map_err(failed("catch signals"))?;
    if !launch.foreground {
        sys::new_session().map_err(failed("start a session"))?;
        // The directory where somebody happened to type the command must not be kept busy.
        std::env::set_current_dir("/").map_err(failed("change to /"))?;
    }
    let (mut lifeline, theirs) = UnixStream::pair().map_err(failed("make a socket"))?;
    let stdout = if launch.foreground { Stdio::inherit() } else { Stdio::null() };
    let mut server = start(launch, place, Role::Server, Stdio::from(OwnedFd::from(theirs)), stdout)?;
    let events = watch(&lifeline).map_err(failed("start a thread"))?;
    let known = follow(place, &mut lifeline, &events, Watch::default(), Some(&mut server), &mut |device| {
        if let Some(mut report) = report.take() {
            // The command may have been interrupted meanwhile; the mount stays.
            let _heard = Word::ready(device).say(&mut report);
            leave_caller(launch);
        }
    })?;
    let status = server.wait().map_err(failed("wait for the server"))?;
    Ok(match (known.failed, known.bye) {
        (Some(failed), _) => Err(failed),
        (None, true) => Ok(()),
        (None, false) => Err(Failed::unexplained(format!("the server of {} ended: {status}", place.display()))),
    })
}

/// Watches a server that was there before: its supervisor died, and it has started this process.
pub(crate) fn succeed(launch: &Launch<'_>, device: DeviceId) -> Result<(), MountError> {
    let failed = |doing| move |cause| MountError::Process { doing, cause };
    let mut lifeline = lifeline::inherited()?;
    sys::catch_ending_signals().map_err(failed("catch signals"))?;
    sys::new_session().map_err(failed("start a session"))?;
    leave_caller(launch);
    let events = watch(&lifeline).map_err(failed("start a thread"))?;
    let known = Watch { device: Some(device), ..Watch::default() };
    follow(&launch.mountpoint, &mut lifeline, &events, known, None, &mut |_| {})?;
    Ok(())
}

/// Follows the server to its end, and clears up after it.
fn follow(
    place: &Path,
    lifeline: &mut UnixStream,
    events: &Receiver<Event>,
    mut known: Watch,
    mut server: Option<&mut Child>,
    ready: &mut dyn FnMut(DeviceId),
) -> Result<Watch, MountError> {
    let mut ending = false;
    loop {
        let event = if ending { events.recv_timeout(OBEDIENCE) } else { events.recv().map_err(RecvTimeoutError::from) };
        match event {
            Ok(Event::Said(Word::Ready(device))) => {
                let device = device.parse().map_err(|_| MountError::Protocol(format!("no device \"{device}\"")))?;
                known.device = Some(device);
                // It is ready when it answers. Asked from here and not by the server itself: a process that is killed
                // while it waits for its own answer never ends, and neither does its mount.
                if let Err(error) = std::fs::metadata(place) {
                    tracing::warn!("{} was mounted and does not answer: {error}", place.display());
                }
                ready(device);
            }
            Ok(Event::Said(Word::Failed(failed))) => known.failed = Some(failed),
            Ok(Event::Said(Word::Bye)) => known.bye = true,
            Ok(Event::Said(Word::End)) => {}
            Ok(Event::ToldToEnd) => {
                ending = true;
                // If it is gone already its end is the next event.
                let _heard = Word::End.say(lifeline);
            }
            Ok(Event::ServerGone) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!("the server of {} does not end; taking the mount away", place.display());
                if let Some(server) = &mut server {
                    let _already_gone = server.kill();
                }
                break;
            }
        }
    }
    match known.device {
        _ if known.bye => {}
        Some(device) => detach(place, device)?,
        // It may have died after it mounted and before it could say so.
        None => clear_dead(place)?,
    }
    Ok(known)
}

fn watch(lifeline: &UnixStream) -> io::Result<Receiver<Event>> {
    let (tell, events) = channel();
    let lifeline = lifeline.try_clone()?;
    spawn("server", &tell, move |tell| {
        Word::hear_all(lifeline, |word| tell.send(Event::Said(word)).is_ok());
        let _told = tell.send(Event::ServerGone);
    })?;
    spawn("signals", &tell, |tell| while sys::await_signal().is_ok() && tell.send(Event::ToldToEnd).is_ok() {})?;
    Ok(events)
}

fn spawn(name: &str, tell: &Sender<Event>, body: impl FnOnce(Sender<Event>) + Send + 'static) -> io::Result<()> {
    let tell = tell.clone();
    std::thread::Builder::new().name(name.into()).spawn(move || body(tell))?;
    Ok(())
}
