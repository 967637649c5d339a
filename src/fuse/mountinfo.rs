//! The table of mounts, as proc(5) describes `/proc/self/mountinfo`. Reading it touches no mount, so it
//! is how dead and hanging ones are found.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type that our mounts have in the table.
pub(crate) const FILESYSTEM: &str = "fuse.amberfs";

/// A device number, as `stat` would say it of the mount's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId {
    /// Major number; 0 for all filesystems without a device.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl std::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl std::str::FromStr for DeviceId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<DeviceId, Self::Err> {
        let (major, minor) = text.split_once(':').unwrap_or((text, ""));
        Ok(DeviceId { major: major.parse()?, minor: minor.parse()? })
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// Its filesystem's device number.
    pub(crate) device: DeviceId,
    /// Where it is.
    pub(crate) mountpoint: PathBuf,
    /// Its filesystem's type.
    pub(crate) filesystem: String,
    /// What it shows, in words.
    pub(crate) source: String,
}

impl MountEntry {
    /// Whether amberfs made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.filesystem == FILESYSTEM
    }
}

/// The mount on top at exactly `mountpoint`, which must be canonical.
pub(crate) fn topmost(mountpoint: &Path) -> io::Result<Option<MountEntry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    // Later lines are mounted over earlier ones at the same place.
    Ok(parse(&table).filter(|entry| entry.mountpoint == mountpoint).last())
}

fn parse(table: &[u8]) -> impl Iterator<Item = MountEntry> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line)
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?.parse().ok()?;
    let mountpoint = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    // Optional fields end in a single dash.
    fields.find(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    Some(MountEntry { device, mountpoint, filesystem: text(fields.next()?), source: text(fields.next()?) })
}

/// Space, tab, newline, backslash and `#` stand there as a backslash with three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let value = digits.iter().try_fold(0u32, |value, digit| {
                matches!(digit, b'0'..=b'7').then(|| value * 8 + u32::from(digit - b'0'))
            })?;
            u8::try_from(value).ok()
        });
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_read() {
        let table = b"36 35 98:0 /mnt1 /mnt/a\\040b\\134 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            91 28 0:57 / /m rw,nosuid,nodev,relatime shared:2 propagate_from:1 - fuse.amberfs /srv/repo rw,user_id=0\n\
            nonsense\n";
        let entries: Vec<_> = parse(table).collect();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].mountpoint, Path::new("/mnt/a b\\"));
        assert!(!entries[0].is_ours());
        assert_eq!(entries[1].device, "0:57".parse().unwrap());
        assert_eq!((entries[1].filesystem.as_str(), entries[1].source.as_str()), ("fuse.amberfs", "/srv/repo"));
        assert!(entries[1].is_ours());
    }

    #[test]
    fn the_root_of_this_machine_is_mounted() {
        assert!(topmost(Path::new("/")).unwrap().is_some());
        assert!(topmost(Path::new("/no/such/place")).unwrap().is_none());
    }

    #[test]
    fn odd_escapes_stay_as_they_are() {
        assert_eq!(unescape(b"a\\9\\04"), b"a\\9\\04");
        assert_eq!(unescape(b"\\777"), b"\\777");
    }
}
