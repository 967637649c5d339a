//! What programs read from a mount: metadata, contents, listings, and that nothing can be changed.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::process::Command;

use crate::processes::{Toy, shell};
use crate::sys;
use crate::toy::{MANY, SPARSE};

#[test]
fn metadata_is_what_the_view_says() {
    let toy = Toy::mounted("");
    let hello = toy.join("tree/hello").metadata().unwrap();
    assert_eq!((hello.len(), hello.uid(), hello.gid(), hello.permissions().mode()), (6, 1234, 5678, 0o100_644));
    assert_eq!((hello.mtime(), hello.mtime_nsec()), (-2, 500_000_000), "half a second and a bit before 1970");
    assert_eq!((hello.atime(), hello.atime_nsec()), (1_600_000_000, 123_456_789));
    let null = toy.join("tree/null").metadata().unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((libc::major(null.rdev()), libc::minor(null.rdev())), (259, 0x1_2345));
    assert!(toy.join("tree/pipe").metadata().unwrap().file_type().is_fifo());
    assert_eq!(std::fs::read_link(toy.join("tree/link")).unwrap(), OsStr::new("hello"));
    assert_eq!(std::fs::read(toy.join("latest/link")).unwrap(), b"hello\n");
    assert_eq!(std::fs::read(toy.join("tree").join(OsStr::from_bytes(b"\xff\xfe"))).unwrap(), b"no UTF-8\n");
    // The parent of a directory is the directory above it.
    assert_eq!(toy.join("tree/many/..").metadata().unwrap().ino(), toy.join("tree").metadata().unwrap().ino());
}

#[test]
fn attributes_beside_the_inode_are_exact() {
    let toy = Toy::mounted("");
    let hello = toy.join("tree/hello");
    assert_eq!(sys::getxattr(&hello, "user.comment", 0), Ok(3));
    assert_eq!(sys::getxattr(&hello, "user.comment", 3), Ok(3));
    assert_eq!(sys::getxattr(&hello, "user.comment", 2), Err(libc::ERANGE));
    assert_eq!(sys::getxattr(&hello, "user.empty", 9), Ok(0));
    // Twice: an ENOSYS would show only in what the kernel makes of the next call.
    for _ in 0..2 {
        assert_eq!(sys::getxattr(&hello, "user.missing", 9), Err(libc::ENODATA));
    }
    assert_eq!(sys::getxattr(&toy.join(".amberfs/help"), "user.missing", 9), Err(libc::ENODATA));
    let (text, code) = shell("bash", "getfattr -d -m - -e hex tree/hello && getfacl -n tree/acl", &toy);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("user.comment=0x610062\nuser.empty=0x\n"), "{text}");
    assert!(text.contains("user:65534:r--"), "{text}");
}

#[test]
fn holes_are_holes() {
    let toy = Toy::mounted("");
    let path = toy.join("tree/sparse");
    assert_eq!(path.metadata().unwrap().blocks(), 16);
    let mut file = std::fs::File::open(&path).unwrap();
    let (end, middle) = (SPARSE as i64, SPARSE as i64 / 2);
    assert_eq!(sys::seek(&file, 0, libc::SEEK_HOLE), Ok(4096));
    assert_eq!(sys::seek(&file, 4096, libc::SEEK_DATA), Ok(middle));
    assert_eq!(sys::seek(&file, middle + 1, libc::SEEK_HOLE), Ok(middle + 4096));
    assert_eq!(sys::seek(&file, middle + 4096, libc::SEEK_DATA), Err(libc::ENXIO));
    assert_eq!(sys::seek(&file, end, libc::SEEK_HOLE), Err(libc::ENXIO));
    assert_eq!(sys::seek(&file, 0, libc::SEEK_SET), Ok(0));
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, SPARSE);
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 8192);
}

#[test]
fn listings_are_whole_and_positions_in_them_stay() {
    let toy = Toy::mounted("");
    for dir in ["tree/many", ".", ".amberfs", "tree"] {
        let (names, again) = sys::names_by_position(&toy.join(dir));
        assert_eq!(names, again, "{dir}");
    }
    let (names, _) = sys::names_by_position(&toy.join("tree/many"));
    assert_eq!(names.len() as u64, MANY + 2);
    assert_eq!(names[0], b".");
    let (root, _) = sys::names_by_position(&toy.path());
    assert_eq!(root.iter().filter(|name| *name == b".amberfs").count(), 1);
    let (text, code) = shell("bash", "find . -xdev | wc -l; find . -xdev | wc -l", &toy);
    assert_eq!(code, 0);
    let counts: Vec<&str> = text.lines().collect();
    assert_eq!(counts[0], counts[1], "the second walk reads the kernel's memory");
}

#[test]
fn nothing_can_be_changed() {
    let toy = Toy::mounted("");
    let attempts = r#"
import errno, os, stat
def attempt(name, f, *args, **kw):
    try:
        f(*args, **kw)
        print(name, "went through")
    except OSError as e:
        if e.errno != errno.EROFS:
            print(name, errno.errorcode[e.errno])
for d in ("tree/", "", ".amberfs/", ".amberfs/jobs/"):
    attempt(d + " create", os.open, d + "new", os.O_CREAT | os.O_WRONLY)
    attempt(d + " mkdir", os.mkdir, d + "new")
    attempt(d + " mknod", os.mknod, d + "new", stat.S_IFIFO | 0o600)
    attempt(d + " symlink", os.symlink, "x", d + "new")
    attempt(d + " link", os.link, "tree/hello", d + "new")
    attempt(d + " rename", os.rename, "tree/hello", d + "new")
for f in ("tree/hello", "info.json", ".amberfs/status.json"):
    attempt(f + " write", os.open, f, os.O_WRONLY)
    attempt(f + " append", os.open, f, os.O_RDWR | os.O_APPEND)
    attempt(f + " truncate", os.truncate, f, 0)
    attempt(f + " chmod", os.chmod, f, 0o777)
    attempt(f + " chown", os.chown, f, 1, 1)
    attempt(f + " utime", os.utime, f)
    attempt(f + " setxattr", os.setxattr, f, "user.a", b"b")
    attempt(f + " removexattr", os.removexattr, f, "user.comment")
    attempt(f + " unlink", os.unlink, f)
    if os.access(f, os.W_OK):
        print(f, "seems writable")
attempt("control unlink", os.unlink, ".amberfs/control")
attempt("rmdir", os.rmdir, "tree/many")
attempt("rmdir", os.rmdir, "tree")
"#;
    assert_eq!(shell("python3", attempts, &toy), (String::new(), 0));
    // Without control files there is nothing in which one could even try.
    let read_only = Toy::mounted("ro");
    let attempts = attempts
        .replace(".amberfs/status.json", "trouble/lost")
        .replace(".amberfs/control", "trouble/lost")
        .replace(".amberfs/jobs/", "trouble/")
        .replace(".amberfs/", "tree/many/");
    assert_eq!(shell("python3", &attempts, &read_only), (String::new(), 0));
}

#[test]
fn a_read_only_mount_has_no_control_files() {
    let toy = Toy::mounted("ro");
    assert!(!toy.join(".amberfs").exists());
    assert_eq!(std::fs::read(toy.join("tree/hello")).unwrap(), b"hello\n");
    let (root, _) = sys::names_by_position(&toy.path());
    assert!(!root.iter().any(|name| name == b".amberfs"), "{root:?}");
}

#[test]
fn programs_run_unless_told_otherwise() {
    let toy = Toy::mounted("");
    assert_eq!(shell("bash", "tree/script", &toy), ("ran\n".to_owned(), 0));
    assert_eq!(shell("bash", "test -x tree/script && ! test -x tree/hello && ! test -w tree/hello", &toy).1, 0);
    let toy = Toy::mounted("noexec");
    assert_eq!(shell("bash", "tree/script", &toy).1, 126);
    let (table, _) = shell("bash", "grep amberfs-mount /proc/self/mountinfo", &toy);
    assert!(table.contains("nosuid,nodev,noexec"), "{table}");
    assert!(table.contains("- fuse.amberfs toy,\\040with\\040a\\040comma "), "{table}");
}

#[test]
fn generated_files_have_their_true_size_at_every_version() {
    let toy = Toy::mounted("");
    let mut seen = Vec::new();
    for _ in 0..12 {
        let mut file = std::fs::File::open(toy.join("count")).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text.len() as u64, file.metadata().unwrap().len());
        seen.push(text.parse::<u64>().unwrap());
    }
    assert!(seen.is_sorted() && seen.first() != seen.last(), "{seen:?}");
    // rsync copies as much as the size says, and a copy of a mount is a copy.
    let to = toy.beside("copy");
    let output = Command::new("rsync").arg("-a").arg(toy.join("info.json")).arg(toy.join(".amberfs")).arg(&to).output();
    assert!(output.unwrap().status.success());
    assert_eq!(std::fs::read(to.join("info.json")).unwrap(), b"{\"points\": 1}\n");
    assert_eq!(std::fs::read(to.join(".amberfs/status.json")).unwrap(), b"{\"jobs\": 0}\n");
}

#[test]
fn the_filesystem_says_that_it_is_full() {
    let toy = Toy::mounted("");
    let (text, code) = shell("bash", "stat -f -c '%b %f %a %l' . && df . >/dev/null", &toy);
    assert_eq!((text.as_str(), code), ("0 0 0 255\n", 0));
}
