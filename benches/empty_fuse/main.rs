//! A FUSE mount with one file of zeros, whose pages the kernel may keep: what reading through FUSE costs at least.
//!
//! `empty_fuse MOUNTPOINT BYTES` serves it, as `empty`, until it is unmounted; as root. `benches/compare/local` reads it beside what amberfs
//! serves. Run without arguments, as `cargo bench` does, it does nothing.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen, Request, Session,
};

const FOR_EVER: Duration = Duration::from_secs(86_400);
const FILE: INodeNo = INodeNo(2);

struct Empty {
    bytes: u64,
    zeros: Vec<u8>,
}

impl Empty {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let (kind, size, perm) =
            if ino == FILE { (FileType::RegularFile, self.bytes, 0o444) } else { (FileType::Directory, 0, 0o755) };
        let time = UNIX_EPOCH;
        let blocks = size / 512;
        FileAttr {
            ino,
            size,
            blocks,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Empty {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "empty" {
            reply.entry(&FOR_EVER, &self.attr(FILE), Generation(0))
        } else {
            reply.error(Errno::ENOENT)
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.bytes.saturating_sub(offset).min(u64::from(size));
        reply.data(&self.zeros[..usize::try_from(left).unwrap_or(0)]);
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _full = offset == 0 && reply.add(FILE, 1, FileType::RegularFile, "empty");
        reply.ok();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let [mountpoint, bytes] = arguments.as_slice() else { return };
    let empty = Empty { bytes: bytes.parse().expect("a number of bytes"), zeros: vec![0; 1 << 20] };
    let mut config = Config::default();
    config.n_threads = Some(2);
    let session = Session::new(empty, Path::new(mountpoint), &config).expect("mount");
    session.run().expect("serve");
}
