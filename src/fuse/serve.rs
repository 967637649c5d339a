//! One mount in this process: mounts, connects, serves.
//!
//! [`Mounted::make`] returns once the mount answers; from then on other threads serve it, until it is
//! unmounted by whomever. It does not unmount by itself when it is dropped or when this process dies: that is the
//! supervisor's work (`supervise.rs`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::adapter::{Served, Tuning};
use super::attach;
use super::desk::Desk;
use super::detach::{detach, take_away};
use super::dispatch::{Bounds, SPARE_RECEIVERS};
use super::error::MountError;
use super::mountinfo::{self, DeviceId};
use super::ops::Ops;
use super::options::MountOptions;
use super::sys;
use crate::base::{Env, limits};
use crate::job::control::Control;
use crate::view::namespace::Namespace;

/// What a mount shows.
pub struct Contents {
    /// The directories.
    pub namespace: Arc<dyn Namespace>,
    /// What stands behind `.amberfs/`; without it, and with `-o ro`, there is no such directory.
    pub control: Option<Arc<dyn Control>>,
}

/// A mount that is being served by threads of this process.
pub(crate) struct Mounted {
    place: PathBuf,
    device: DeviceId,
    ended: Receiver<io::Result<()>>,
}

/// Mounts at `mountpoint` and serves it until it is unmounted. Installs no signal handlers and no
/// supervisor: [`super::mount`] does.
///
/// # Errors
/// When the place will not do, or the mount cannot be made, or its connection breaks.
pub fn serve(
    namespace: Arc<dyn Namespace>,
    control: Option<Arc<dyn Control>>,
    mountpoint: &Path,
    options: &MountOptions,
) -> Result<(), MountError> {
    let place = super::place::prepare(mountpoint, None, options.nonempty)?;
    Mounted::make(Contents { namespace, control }, &place, options)?.wait()
}

impl Mounted {
    /// Mounts at `place`, which [`super::place::prepare`] has found fit, and returns once it answers.
    pub(crate) fn make(contents: Contents, place: &Path, options: &MountOptions) -> Result<Mounted, MountError> {
        let owner = sys::real_ids();
        let control = contents.control.filter(|_| !options.read_only);
        let desk = control.map(|control| Desk::new(control, owner, Env::system().now()));
        let ops = Ops::new(contents.namespace, desk, options.owner_me.then_some(owner));

        let channel = attach::attach(place, options)?;
        let broken = |cause| MountError::Session { path: place.to_owned(), cause };
        let receivers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8) + SPARE_RECEIVERS;
        let tuning = Tuning {
            receivers,
            // Each further channel needs the device; without it they share the first.
            own_channels: attach::open_device().is_ok(),
            kernel_checks: options.allow_other,
            bounds: Bounds::for_receivers(receivers, options.metadata_deadline, options.data_deadline),
        };
        // What fails from here on must not leave the mount behind.
        let result = Mounted::start(channel, ops, tuning, place).map_err(broken);
        match result {
            Ok(mounted) => Ok(mounted),
            Err(error) => {
                if let Ok(Some(entry)) = mountinfo::topmost(place) {
                    let _best_effort = detach(place, entry.device);
                }
                Err(error)
            }
        }
    }

    fn start(channel_fd: std::os::fd::OwnedFd, ops: Ops, tuning: Tuning, place: &Path) -> io::Result<Mounted> {
        let entry = mountinfo::topmost(place)?
            .filter(mountinfo::MountEntry::is_ours)
            .ok_or_else(|| io::Error::other("the mount is not in the table of mounts"))?;
        let session = Served::connect(channel_fd, ops, tuning)?;
        let (tell, ended) = channel();
        std::thread::Builder::new().name("session".into()).spawn(move || {
            // Nobody may be waiting any more.
            let _told = tell.send(session.run());
        })?;
        raise_read_ahead(entry.device);
        Ok(Mounted { place: place.to_owned(), device: entry.device, ended })
    }

    /// Which mount it is.
    pub(crate) fn device(&self) -> DeviceId {
        self.device
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Gives the channel that says when it is unmounted.
    pub(crate) fn ended(self) -> Receiver<io::Result<()>> {
        self.ended
    }

    fn wait(self) -> Result<(), MountError> {
        match self.ended.recv() {
            Ok(outcome) => outcome.map_err(|cause| MountError::Session { path: self.place, cause }),
            Err(_) => Err(MountError::Protocol("the session thread ended without a word".to_owned())),
        }
    }
}

/// Unmounts the mount `device` at `place`; takes it out of the tree if it is in use.
pub(crate) fn end(place: &Path, device: DeviceId) -> Result<(), MountError> {
    let top = mountinfo::topmost(place).map_err(|cause| MountError::Unmount { path: place.to_owned(), cause })?;
    if top.is_none_or(|entry| entry.device != device) {
        return Ok(());
    }
    match take_away(place, false) {
        Err(MountError::Busy { .. }) => take_away(place, true),
        outcome => outcome,
    }
}

/// Lets the kernel read further ahead; only root may, and without it reads are correct and slower.
fn raise_read_ahead(device: DeviceId) {
    let setting = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&setting, limits::MOUNT_READ_AHEAD_KIB.to_string()) {
        tracing::debug!("cannot write {setting}: {error}");
    }
}
