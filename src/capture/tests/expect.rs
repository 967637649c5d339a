//! What a directory holds, asked of the system in the simplest way, to hold points against.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use crate::base::FileTime;
use crate::capture::testing::SeenFile;
use crate::format::entry::Body;

/// A file of the source.
pub(in crate::capture) struct Expected {
    meta: fs::Metadata,
    path: std::path::PathBuf,
    attributes: Vec<String>,
}

/// Everything below `root`, the root included, by relative path.
pub(in crate::capture) fn tree(root: &Path) -> BTreeMap<Vec<u8>, Expected> {
    let mut attributes = attributes(root);
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
        let attributes = attributes.remove(path.as_os_str().as_bytes()).unwrap_or_default();
        found.insert(relative, Expected { meta, path, attributes });
    }
    assert!(attributes.is_empty(), "attributes of unknown files: {attributes:?}");
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
            let (data, bytes) = content(&expected.path);
            assert_eq!(data, seen.data, "{shown}: data and holes");
            assert!(bytes == seen.bytes, "{shown}: content");
        }
    }
    let xattrs: Vec<String> =
        entry.xattrs.iter().map(|x| format!("{}={}", x.name.escape_ascii(), x.value.escape_ascii())).collect();
    assert_eq!(xattrs, expected.attributes, "{shown}: attributes");
}

/// Stretches of data as the filesystem tells them, and what is in them.
fn content(path: &Path) -> (Vec<(u64, u64)>, Vec<u8>) {
    let file = fs::File::open(path).unwrap();
    let size = file.metadata().unwrap().size();
    let mut stretches = Vec::new();
    let mut bytes = Vec::new();
    for stretch in crate::capture::chunk::stretches(&file, 0..size) {
        let stretch = stretch.unwrap();
        let start = bytes.len();
        bytes.resize(start + usize::try_from(stretch.end - stretch.start).unwrap(), 0);
        file.read_exact_at(&mut bytes[start..], stretch.start).unwrap();
        stretches.push((stretch.start, stretch.end));
    }
    (stretches, bytes)
}

/// `name=value` for each attribute of each file below `root` that has any, by `getfattr`.
fn attributes(root: &Path) -> BTreeMap<Vec<u8>, Vec<String>> {
    let output = Command::new("getfattr")
        .args(["--recursive", "--physical", "--no-dereference", "--dump", "--match=-", "--encoding=hex"])
        .args(["--absolute-names", "--"])
        .arg(root)
        .output()
        .expect("getfattr (package attr) is installed");
    let hex = |text: &[u8]| -> Vec<u8> {
        let digits = text.strip_prefix(b"0x").unwrap();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    };
    let mut found: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    let mut file = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if let Some(path) = line.strip_prefix(b"# file: ") {
            file = unescape(path);
            continue;
        }
        let split = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
        let (name, value) = line.split_at(split);
        let value = value.get(1..).map(hex).unwrap_or_default();
        let listed = found.entry(file.clone()).or_default();
        listed.push(format!("{}={}", name.escape_ascii(), value.escape_ascii()));
        listed.sort();
    }
    found
}

/// Undoes the octal escapes that `getfattr` writes in names.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        (rest, _) = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                (tail, plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0')))
            }
            _ => (tail, plain.push(*first)),
        };
    }
    plain
}
