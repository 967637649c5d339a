//! What a directory holds, asked of the system in the simplest way, to hold points against.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use crate::base::FileTime;
use crate::capture::testing::SeenFile;
use crate::format::entry::Body;

/// A file of the source.
pub(in crate::capture) struct Expected {
    meta: fs::Metadata,
    path: std::path::PathBuf,
}

/// Everything below `root`, the root included, by relative path.
pub(in crate::capture) fn tree(root: &Path) -> BTreeMap<Vec<u8>, Expected> {
    let mut found = BTreeMap::new();
    let mut open = vec![(Vec::new(), root.to_owned())];
    while let Some((relative, path)) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            for item in fs::read_dir(&path).unwrap() {
                let name = item.unwrap().file_name();
                let below = [relative.as_slice(), name.as_bytes()].join(&b'/');
                let below = if relative.is_empty() { name.clone().into_vec() } else { below };
                open.push((below, path.join(name)));
            }
        }
        found.insert(relative, Expected { meta, path });
    }
    found
}

/// Asserts that the point has what the source has.
pub(in crate::capture) fn same(path: &[u8], expected: &Expected, seen: &SeenFile) {
    let shown = path.escape_ascii().to_string();
    let (meta, entry) = (&expected.meta, &seen.entry);
    let time = |seconds: i64, nanos: i64| FileTime { seconds, nanos: u32::try_from(nanos).unwrap() };
    assert_eq!(u32::from(entry.meta.permissions), meta.mode() & 0o7777, "{shown}: mode");
    assert_eq!((entry.meta.uid, entry.meta.gid), (meta.uid(), meta.gid()), "{shown}: owner");
    assert_eq!(entry.meta.size, meta.size(), "{shown}: size");
    assert_eq!(entry.meta.mtime, time(meta.mtime(), meta.mtime_nsec()), "{shown}: mtime");
    assert_eq!(entry.meta.ctime, time(meta.ctime(), meta.ctime_nsec()), "{shown}: ctime");
    assert_eq!(u64::from(entry.meta.links), meta.nlink(), "{shown}: links");
    assert_eq!(entry.meta.inode, meta.ino(), "{shown}: inode");
    let kind = meta.file_type();
    match &entry.body {
        Body::Directory { .. } => assert!(kind.is_dir(), "{shown}"),
        Body::Symlink(target) => {
            assert!(kind.is_symlink(), "{shown}");
            assert_eq!(fs::read_link(&expected.path).unwrap().as_os_str().as_bytes(), target, "{shown}: target");
        }
        Body::BlockDevice(major, minor) | Body::CharDevice(major, minor) => {
            assert!(kind.is_block_device() || kind.is_char_device(), "{shown}");
            assert_eq!(libc::makedev(*major, *minor), meta.rdev(), "{shown}: device");
        }
        Body::Fifo => assert!(kind.is_fifo(), "{shown}"),
        Body::Socket => assert!(kind.is_socket(), "{shown}"),
        Body::Link(_) => panic!("{shown}: a link that was not followed"),
        Body::File(_) => {
            assert!(kind.is_file(), "{shown}");
            let bytes = fs::read(&expected.path).unwrap();
            assert!(bytes == seen.bytes, "{shown}: content");
            assert_eq!(data(&expected.path), seen.data, "{shown}: data and holes");
        }
    }
    let xattrs: Vec<String> =
        entry.xattrs.iter().map(|x| format!("{}={}", x.name.escape_ascii(), x.value.escape_ascii())).collect();
    assert_eq!(xattrs, attributes(&expected.path), "{shown}: attributes");
}

/// Stretches of data as the filesystem tells them.
fn data(path: &Path) -> Vec<(u64, u64)> {
    let file = fs::File::open(path).unwrap();
    let size = file.metadata().unwrap().size();
    crate::capture::chunk::stretches(&file, 0..size).map(|stretch| stretch.unwrap()).map(|s| (s.start, s.end)).collect()
}

/// `name=value` for each attribute, by `getfattr`.
fn attributes(path: &Path) -> Vec<String> {
    let output = Command::new("getfattr")
        .args(["--no-dereference", "--dump", "--match=-", "--encoding=hex", "--absolute-names", "--"])
        .arg(path)
        .output()
        .expect("getfattr (package attr) is installed");
    let hex = |text: &str| -> Vec<u8> {
        let digits = text.trim_start_matches("0x").as_bytes();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    };
    let mut found: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| match line.split_once('=') {
            Some((name, value)) => format!("{name}={}", hex(value).escape_ascii()),
            None => format!("{line}="),
        })
        .collect();
    found.sort();
    found
}
