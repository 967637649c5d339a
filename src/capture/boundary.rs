//! Which directories capture does not enter, though they lie in the source.
//!
//! Other filesystems (unless asked for), and always: mounts of amberfs and the repository itself.
//! The mount table tells of mounts before anything is asked of them, so that a dead network or FUSE
//! server below the source cannot make capture wait. Device numbers tell for certain afterwards:
//! whatever path, bind mount or later mount led there, an amberfs device or the repository's own
//! directory is recognised by its identity.
//!
//! What is not entered stands in the point as an empty directory, as `tar --one-file-system` has it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::directory::Directory;
use super::error::CaptureError;
use super::stat::{Identity, Stat};

const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// Why a directory is not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Barrier {
    /// Another filesystem begins there, and only one is wanted.
    Filesystem,
    /// It is a mount of amberfs.
    Amberfs,
    /// It is the repository.
    Repository,
}

/// What is not entered, and how it is recognised.
#[derive(Debug)]
pub(super) struct Boundary {
    cross: bool,
    root_device: (u32, u32),
    root_path: Option<Vec<u8>>,
    refused: Vec<Identity>,
    /// Mountpoints below the root by their path relative to it; whether each is an amberfs.
    mounts: HashMap<Vec<u8>, bool>,
    devices: Mutex<Devices>,
}

/// Devices that the mount table has told of so far.
#[derive(Debug, Default)]
struct Devices {
    known: HashSet<(u32, u32)>,
    amberfs: HashSet<(u32, u32)>,
}

impl Boundary {
    /// The boundary of the source at `root`: `cross` enters other filesystems, `refused` are never
    /// entered (the repository's directory).
    ///
    /// # Errors
    /// [`CaptureError::InsideAmberfs`] and [`CaptureError::InsideRepository`] when the root itself is out of bounds.
    pub(super) fn new(root: &Directory, cross: bool, refused: Vec<Identity>) -> Result<Boundary, CaptureError> {
        let mut boundary = Boundary {
            cross,
            root_device: root.stat().identity.device,
            root_path: root.absolute(),
            refused,
            mounts: HashMap::new(),
            devices: Mutex::default(),
        };
        for mount in mount_table(boundary.devices.get_mut()) {
            let below = boundary.root_path.as_deref().and_then(|root| relative(root, &mount.path));
            if let Some(path) = below {
                // The last mount on a path is the one on top.
                boundary.mounts.insert(path.to_vec(), mount.amberfs);
            }
        }
        let path = || PathBuf::from(std::ffi::OsString::from_vec(boundary.root_path.clone().unwrap_or_default()));
        if boundary.devices.get_mut().amberfs.contains(&boundary.root_device) {
            return Err(CaptureError::InsideAmberfs { path: path() });
        }
        if boundary.holds_refused(root).unwrap_or(false) {
            return Err(CaptureError::InsideRepository { path: path() });
        }
        Ok(boundary)
    }

    /// Whether the root is a refused directory or lies in one.
    fn holds_refused(&self, root: &Directory) -> io::Result<bool> {
        if self.refused.contains(&root.stat().identity) {
            return Ok(true);
        }
        let mut below = root.stat().identity;
        let mut at = root.open(b"..")?;
        while at.stat().identity != below {
            if self.refused.contains(&at.stat().identity) {
                return Ok(true);
            }
            below = at.stat().identity;
            at = at.open(b"..")?;
        }
        Ok(false)
    }

    /// Why, as the mount table already tells, `path` is not to be entered, so that nothing is asked of it.
    pub(super) fn bars_path(&self, path: &[u8]) -> Option<Barrier> {
        match self.mounts.get(path)? {
            true => Some(Barrier::Amberfs),
            false => (!self.cross).then_some(Barrier::Filesystem),
        }
    }

    /// Whether any mountpoint lies below the root, so that [`Boundary::bars_path`] is worth a path.
    pub(super) fn has_mounts(&self) -> bool {
        !self.mounts.is_empty()
    }

    /// Why the directory that `stat` tells of is not to be entered, if so.
    pub(super) fn bars(&self, stat: &Stat) -> Option<Barrier> {
        let device = stat.identity.device;
        if self.refused.contains(&stat.identity) {
            return Some(Barrier::Repository);
        }
        if device == self.root_device {
            return None;
        }
        let mut devices = self.devices.lock();
        if self.cross && !devices.known.contains(&device) {
            // Mounted after the table was read. Subvolumes have devices that no table lists: remembered too.
            mount_table(&mut devices);
            devices.known.insert(device);
        }
        if devices.amberfs.contains(&device) {
            return Some(Barrier::Amberfs);
        }
        (!self.cross).then_some(Barrier::Filesystem)
    }
}

/// Reads the mount table into `devices`. Without one (no `/proc`), device numbers alone must do.
fn mount_table(devices: &mut Devices) -> Vec<Mount> {
    let mounts = mounts();
    for mount in &mounts {
        devices.known.insert(mount.device);
        if mount.amberfs {
            devices.amberfs.insert(mount.device);
        }
    }
    mounts
}

/// One line of the mount table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) device: (u32, u32),
    pub(super) path: Vec<u8>,
    /// What is mounted, such as a device's path.
    pub(super) source: Vec<u8>,
    /// Whether nothing can be written through any mount of this filesystem.
    pub(super) read_only: bool,
    amberfs: bool,
}

/// All mounts; none where there is no `/proc`.
pub(super) fn mounts() -> Vec<Mount> {
    std::fs::read(MOUNT_TABLE).map(|table| parse(&table).collect()).unwrap_or_default()
}

/// The lines of `/proc/self/mountinfo` (proc_pid_mountinfo(5)) that can be understood.
fn parse(table: &[u8]) -> impl Iterator<Item = Mount> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = fields.nth(2)?;
        let device = std::str::from_utf8(device).ok()?.split_once(':')?;
        let path = unescape(fields.nth(1)?);
        let mut behind = fields.skip_while(|field| *field != b"-");
        let (kind, source) = (behind.nth(1)?, behind.next().unwrap_or_default());
        let read_only = behind.next().is_some_and(|options| options.split(|byte| *byte == b',').any(|o| o == b"ro"));
        let ours = kind == b"fuse.amberfs" || kind == b"amberfs" || kind.starts_with(b"fuse") && source == b"amberfs";
        let device = (device.0.parse().ok()?, device.1.parse().ok()?);
        Some(Mount { device, path, source: unescape(source), read_only, amberfs: ours })
    })
}

/// `\040` and its like, for blank, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// What of `path` lies below `root`, both absolute; none when it does not.
fn relative<'a>(root: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(root)?;
    let rest = if root.ends_with(b"/") { rest } else { rest.strip_prefix(b"/")? };
    (!rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_understood() {
        let table = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            40 35 0:52 / /home/me/my\\040backups ro,nosuid - fuse.amberfs amberfs ro\n\
            41 35 0:53 / /x rw shared:7 - fuse amberfs rw\n\
            42 35 0:54 / /y rw - fuse.sshfs host: rw\n\
            nonsense\n\n";
        let mounts: Vec<Mount> = parse(table).collect();
        let mount = |device, path: &[u8], source: &[u8], read_only, amberfs| Mount {
            device,
            path: path.to_vec(),
            source: source.to_vec(),
            read_only,
            amberfs,
        };
        assert_eq!(
            mounts,
            [
                mount((98, 0), b"/mnt2", b"/dev/root", false, false),
                mount((0, 52), b"/home/me/my backups", b"amberfs", true, true),
                mount((0, 53), b"/x", b"amberfs", false, true),
                mount((0, 54), b"/y", b"host:", false, false),
            ]
        );
    }

    #[test]
    fn only_what_lies_below_is_below() {
        assert_eq!(relative(b"/a", b"/a/b/c"), Some(&b"b/c"[..]));
        assert_eq!(relative(b"/", b"/b"), Some(&b"b"[..]));
        for (root, path) in [(&b"/a"[..], &b"/ab"[..]), (b"/a", b"/a"), (b"/a/b", b"/a"), (b"/", b"/")] {
            assert_eq!(relative(root, path), None);
        }
    }
}
