//! The claim: a directory in the target that proves which restore it belongs to while that is unfinished.
//!
//! ```text
//! TARGET/.amberfs-restore-<id>/   0700
//!   lock     held by the restoring process
//!   state    what is being restored, as JSON; replaced by renaming
//!   tick     rewritten to ask the filesystem what time it is
//!   i<id>    the inode of a hard-linked file that is complete, until all is
//! TARGET/…/.amberfs-restore-<id>-<n>   a file that is being written
//! ```
//!
//! A name in the target is taken for finished by an earlier run only if its metadata are as they must
//! be, which is done last, and it was changed after the restore began: what was there before is never
//! trusted. After the machine was started anew, it must also have been on disk by the last
//! synchronisation that the state tells of, because file systems may keep a name and lose its content.
//!
//! Crash behaviour: until `state` stands, the target is as before but for an empty claim, which the
//! next run removes. The claim goes last, after everything is durable. A claim that belongs to another
//! restore, or to another user, is never used.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::directory::{Directory, Name};
use super::error::RestoreError;
use super::sys::{self, Stat};
use crate::base::{Env, FileTime, hex, sys::effective_uid};
use crate::format::FileId;

/// What the names of claims and of files that are being written begin with.
const PREFIX: &str = ".amberfs-restore-";
const LOCK: &str = "lock";
const STATE: &str = "state";
const STATE_NEW: &str = "state.new";
const TICK: &str = "tick";
/// What the names of kept inodes begin with.
const INODE: &[u8] = b"i";
/// Bytes of the largest state that is read.
const STATE_BYTES_MAX: u64 = 64 << 10;
/// The version of the state.
const VERSION: u32 = 1;

/// What is restored: the same value means that an interrupted restore can be continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The repository.
    pub(super) repository: String,
    /// The source.
    pub(super) source: u64,
    /// The root of the point's tree, by its hash.
    pub(super) tree: String,
    /// The entry in it, by its place.
    pub(super) entry: u64,
    /// The name that a single file gets in the target; empty for a directory.
    pub(super) name: String,
}

/// A moment as the target's filesystem has it.
type Moment = (i64, u32);

/// A moment before which everything was changed.
const NEVER: Moment = (i64::MAX, 0);

fn moment(time: FileTime) -> Moment {
    (time.seconds, time.nanos)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    version: u32,
    identity: Identity,
    /// For people: the selector that names it.
    title: String,
    /// Whether names that were there before may be replaced.
    force: bool,
    /// Everything is in place and on disk; only the claim is to be removed.
    complete: bool,
    /// In which start of the machine the work goes on.
    boot: String,
    /// Since when it does.
    since: Moment,
    /// What was changed between `since` and this was on disk then.
    synced: Option<Moment>,
    /// The same of earlier starts of the machine: after, and before.
    durable: Vec<(Moment, Moment)>,
}

impl State {
    /// Whether what this restore changed last at `when` still has its content.
    fn trusts(&self, when: Moment) -> bool {
        self.since < when || self.durable.iter().any(|(after, before)| *after < when && when < *before)
    }

    /// The work goes on at `now` in the machine's start `boot`.
    fn go_on(&mut self, boot: String, now: Moment) {
        if boot.is_empty() || boot != self.boot {
            self.durable.extend(self.synced.take().map(|synced| (self.since, synced)));
            // With a clock that was set back, nothing tells new changes from old ones.
            let past = self.durable.iter().map(|(_, before)| *before).fold(self.since, Ord::max);
            self.since = if past < now { now } else { NEVER };
            self.boot = boot;
        }
    }
}

/// A target that is ours.
#[derive(Debug)]
pub(super) struct Claim {
    target: Arc<Directory>,
    directory: Directory,
    name: Name,
    /// Held until the end.
    lock: File,
    state: Mutex<State>,
    resumed: bool,
    /// Directories on other filesystems that are mounted below the target, one of each.
    others: Mutex<Vec<Arc<Directory>>>,
}

/// How a target is to be claimed.
#[derive(Debug, Clone)]
pub(super) struct Wish<'a> {
    pub(super) identity: Identity,
    pub(super) title: &'a str,
    pub(super) force: bool,
    /// The target may hold other things: a single file is put beside them.
    pub(super) shared: bool,
    /// For messages.
    pub(super) path: &'a Path,
}

/// What stands under a claim's name.
enum Seen {
    /// An unfinished restore that nobody works on, now locked.
    Free(Box<Found>),
    /// One that a process works on.
    Busy(Option<Identity>),
    /// One that had not begun, removed by now.
    Removed,
    /// Something else.
    Foreign,
}

/// A claim that was found.
struct Found {
    directory: Directory,
    name: Name,
    lock: File,
    state: State,
}

impl Claim {
    /// Claims `target`, or continues a claim of the same restore.
    ///
    /// # Errors
    /// [`RestoreError::NotEmpty`], [`RestoreError::Unfinished`] or [`RestoreError::Busy`] when it is not to be had.
    pub(super) fn take(target: &Arc<Directory>, wish: &Wish<'_>, env: &Env) -> Result<Claim, RestoreError> {
        let failed = |source| RestoreError::Target { path: wish.path.to_owned(), source };
        let busy = || RestoreError::Busy { path: wish.path.to_owned() };
        let mut abandoned = Vec::new();
        let mut occupied = false;
        for name in target.names().map_err(failed)? {
            if !Claim::is_name(&name) {
                occupied |= !is_lost_and_found(target, &name);
                continue;
            }
            match look(target, name).map_err(failed)? {
                Seen::Free(found) if found.state.identity == wish.identity => {
                    return Claim::resume(target, *found, wish).map_err(failed);
                }
                Seen::Busy(identity) if !wish.shared || identity.as_ref() == Some(&wish.identity) => {
                    return Err(busy());
                }
                Seen::Free(found) => abandoned.push(found),
                Seen::Busy(_) | Seen::Removed => {}
                Seen::Foreign => occupied = true,
            }
        }
        if !wish.shared {
            if !wish.force
                && let Some(found) = abandoned.first()
            {
                return Err(RestoreError::Unfinished { path: wish.path.to_owned(), of: found.state.title.clone() });
            }
            if !wish.force && occupied {
                return Err(RestoreError::NotEmpty { path: wish.path.to_owned() });
            }
            for found in abandoned {
                take_over(target, &found).map_err(failed)?;
            }
        }
        let claim = Claim::make(target, wish, env).map_err(failed)?;
        // Two that begin at the same time see one another here at the latest.
        let is_other = |name: &Name| Claim::is_name(name) && *name != claim.name;
        if !wish.shared && target.names().map_err(failed)?.iter().any(is_other) {
            claim.release().map_err(failed)?;
            return Err(busy());
        }
        Ok(claim)
    }

    fn make(target: &Arc<Directory>, wish: &Wish<'_>, env: &Env) -> io::Result<Claim> {
        let name = own_name(&format!("{PREFIX}{}", hex::encode(&env.random::<8>())))?;
        let directory = match target.make_dir(&name) {
            // A target that an earlier restore made read-only, as the point has it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && wish.force => {
                target.make_usable()?;
                target.make_dir(&name)?
            }
            made => made?,
        };
        let lock = directory.new_file(&own_name(LOCK)?)?;
        lock.try_lock()?;
        let state = State {
            version: VERSION,
            identity: wish.identity.clone(),
            title: wish.title.to_owned(),
            force: wish.force,
            complete: false,
            boot: boot(),
            since: moment(sys::stat_fd(lock.as_fd())?.ctime),
            synced: None,
            durable: Vec::new(),
        };
        let claim = Claim {
            target: Arc::clone(target),
            directory,
            name,
            lock,
            state: Mutex::new(state),
            resumed: false,
            others: Mutex::default(),
        };
        claim.write()?;
        claim.target.sync()?;
        Ok(claim)
    }

    fn resume(target: &Arc<Directory>, found: Found, wish: &Wish<'_>) -> io::Result<Claim> {
        let Found { directory, name, lock, mut state } = found;
        state.force |= wish.force;
        let claim = Claim {
            target: Arc::clone(target),
            directory,
            name,
            lock,
            state: Mutex::new(state),
            resumed: true,
            others: Mutex::default(),
        };
        let now = claim.tick()?;
        claim.state.lock().go_on(boot(), now);
        claim.write()?;
        for name in claim.directory.names()? {
            let stat = claim.directory.stat(&name)?;
            if name.bytes().starts_with(INODE) && !stat.is_some_and(|stat| claim.trusts(&stat)) {
                claim.directory.unlink(&name)?;
            }
        }
        Ok(claim)
    }

    /// Whether an interrupted restore is continued.
    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Whether a name that is taken may be replaced: by request, or because the target is known to be ours.
    pub(super) fn may_replace(&self) -> bool {
        self.resumed || self.state.lock().force
    }

    /// Whether everything was in place when an earlier run ended.
    pub(super) fn is_complete(&self) -> bool {
        self.state.lock().complete
    }

    /// Whether an earlier run has finished what `stat` shows, provided that its metadata are right.
    pub(super) fn has_finished(&self, stat: &Stat) -> bool {
        self.resumed && self.trusts(stat)
    }

    fn trusts(&self, stat: &Stat) -> bool {
        self.state.lock().trusts(moment(stat.ctime))
    }

    /// The directory in which the inodes of hard-linked files wait for their further names.
    pub(super) fn inodes(&self) -> &Directory {
        &self.directory
    }

    /// The name under which something is written, in the directory in which it is the `place`th item.
    pub(super) fn temporary(&self, place: u64) -> Option<Name> {
        let mut name = self.name.bytes().to_vec();
        name.extend_from_slice(format!("-{place:x}").as_bytes());
        Name::new(&name)
    }

    /// The name of a hard-linked file in [`Claim::inodes`].
    pub(super) fn inode_name(file: FileId) -> Option<Name> {
        let mut name = INODE.to_vec();
        name.extend_from_slice(format!("{:016x}", file.0).as_bytes());
        Name::new(&name)
    }

    /// Whether `name` is a claim's, of whatever restore.
    pub(super) fn is_name(name: &Name) -> bool {
        name.bytes().starts_with(PREFIX.as_bytes())
    }

    /// Whether `name` is one that this restore uses for itself.
    pub(super) fn is_own(&self, name: &Name) -> bool {
        name.bytes().starts_with(self.name.bytes())
    }

    /// Tells of a directory that may lie on another filesystem, which must be made durable too.
    pub(super) fn touches(&self, directory: &Arc<Directory>) {
        let device = directory.identity().0;
        let mut others = self.others.lock();
        if device != self.target.identity().0 && others.iter().all(|other| other.identity().0 != device) {
            others.push(Arc::clone(directory));
        }
    }

    /// Makes what has been written so far durable and remembers it, so that a power cut costs only what comes after.
    ///
    /// # Errors
    /// Those of the target's filesystem.
    pub(super) fn synchronise(&self) -> io::Result<()> {
        let now = self.tick()?;
        sys::sync_filesystem(self.target.fd())?;
        for other in self.others.lock().iter() {
            sys::sync_filesystem(other.fd())?;
        }
        self.state.lock().synced = Some(now);
        self.write()
    }

    /// What time it is for the target's filesystem.
    fn tick(&self) -> io::Result<Moment> {
        let mut file = self.directory.new_file(&own_name(TICK)?)?;
        file.write_all(b"1")?;
        Ok(moment(sys::stat_fd(file.as_fd())?.ctime))
    }

    /// Remembers that everything is in place. It must be on disk.
    ///
    /// # Errors
    /// Those of writing the state.
    pub(super) fn complete(&self) -> io::Result<()> {
        self.state.lock().complete = true;
        self.write()
    }

    /// Removes the claim; the target is a plain directory then.
    ///
    /// # Errors
    /// Those of removing it; it can be tried again.
    pub(super) fn release(self) -> io::Result<()> {
        let last = [own_name(STATE)?, own_name(LOCK)?];
        for name in self.directory.names()? {
            if !last.contains(&name) {
                self.directory.unlink(&name)?;
            }
        }
        for name in &last {
            self.directory.unlink(name)?;
        }
        self.target.remove_dir(&self.name)?;
        drop(self.lock);
        Ok(())
    }

    fn write(&self) -> io::Result<()> {
        let state = serde_json::to_vec(&*self.state.lock()).map_err(io::Error::other)?;
        let new = own_name(STATE_NEW)?;
        let mut file = self.directory.new_file(&new)?;
        file.write_all(&state)?;
        file.sync_all()?;
        self.directory.rename_over(&new, &own_name(STATE)?)?;
        self.directory.sync()
    }
}

fn own_name(text: &str) -> io::Result<Name> {
    Name::new(text.as_bytes()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Which start of the machine this is; empty when the system does not say.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The directory that a new filesystem has in its root.
fn is_lost_and_found(target: &Directory, name: &Name) -> bool {
    name.bytes() == b"lost+found"
        && target.open_dir(name).and_then(|directory| directory.names()).is_ok_and(|names| names.is_empty())
}

/// What stands under `name` in `target`. A claim that was never finished is removed.
fn look(target: &Directory, name: Name) -> io::Result<Seen> {
    let Ok(directory) = target.open_dir(&name) else { return Ok(Seen::Foreign) };
    if directory.stat_self()?.uid != effective_uid() {
        return Ok(Seen::Foreign);
    }
    let open = |text: &str| Ok::<_, io::Error>(directory.open_file(&own_name(text)?).ok().map(|(file, _)| file));
    let state = open(STATE)?.and_then(read_state);
    if let Some(lock) = open(LOCK)? {
        match (lock.try_lock(), state) {
            (Err(TryLockError::WouldBlock), state) => return Ok(Seen::Busy(state.map(|state| state.identity))),
            (Err(TryLockError::Error(error)), _) => return Err(error),
            (Ok(()), Some(state)) => return Ok(Seen::Free(Box::new(Found { directory, name, lock, state }))),
            (Ok(()), None) => {}
        }
    }
    // Killed while it was made: nothing has been restored under it. Anything else in it is not ours.
    for part in [LOCK, STATE_NEW] {
        drop(directory.unlink(&own_name(part)?));
    }
    Ok(if target.remove_dir(&name).is_ok() { Seen::Removed } else { Seen::Foreign })
}

fn read_state(file: File) -> Option<State> {
    let mut text = Vec::new();
    file.take(STATE_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice::<State>(&text).ok().filter(|state| state.version == VERSION)
}

/// Removes what an unfinished restore has left besides finished files.
fn take_over(target: &Directory, found: &Found) -> io::Result<()> {
    sweep(target, &found.name, 0)?;
    for name in found.directory.names()? {
        found.directory.unlink(&name)?;
    }
    target.remove_dir(&found.name)
}

/// Directories below which nothing is swept: deeper than any restore would be abandoned for long.
const SWEEP_DEPTH_MAX: u32 = 512;

/// Removes the temporary names of the claim `claim` in `directory` and below.
fn sweep(directory: &Directory, claim: &Name, depth: u32) -> io::Result<()> {
    for name in directory.names()? {
        if name.bytes().starts_with(claim.bytes()) && name != *claim {
            directory.unlink(&name)?;
        } else if depth < SWEEP_DEPTH_MAX
            && name != *claim
            && directory.stat(&name)?.is_some_and(|stat| stat.is_dir())
            && let Ok(below) = directory.open_dir(&name)
        {
            sweep(&below, claim, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_restore_is_known_to_have_on_disk_is_trusted() {
        let at = |second| (second, 0);
        let identity =
            Identity { repository: String::new(), source: 1, tree: String::new(), entry: 0, name: String::new() };
        let mut state = State {
            version: VERSION,
            identity,
            title: String::new(),
            force: false,
            complete: false,
            boot: "first".to_owned(),
            since: at(10),
            synced: Some(at(20)),
            durable: Vec::new(),
        };
        // What stood there when the restore began is not its own.
        assert!(!state.trusts(at(9)) && !state.trusts(at(10)) && state.trusts(at(11)) && state.trusts(at(30)));
        // Killed and continued: nothing was lost.
        state.go_on("first".to_owned(), at(40));
        assert!(state.trusts(at(11)) && state.trusts(at(30)));
        // After a power cut, what came after the last synchronisation may be lost.
        state.go_on("second".to_owned(), at(50));
        assert!(!state.trusts(at(9)) && state.trusts(at(11)) && state.trusts(at(19)));
        assert!(!state.trusts(at(20)) && !state.trusts(at(30)) && !state.trusts(at(50)) && state.trusts(at(51)));
        // And again, without a synchronisation in between and with a clock that was set back.
        state.go_on("third".to_owned(), at(15));
        assert!(state.trusts(at(19)) && !state.trusts(at(45)) && !state.trusts(at(51)) && !state.trusts(at(999)));
        state.since = at(52);
        // A system that does not say when it was started might have been.
        state.synced = Some(at(60));
        state.go_on(String::new(), at(70));
        assert!(state.trusts(at(55)) && !state.trusts(at(65)) && state.trusts(at(71)));
        state.go_on(String::new(), at(80));
        assert!(state.trusts(at(55)) && !state.trusts(at(75)));
    }
}
