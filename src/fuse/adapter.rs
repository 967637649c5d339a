//! The kernel's requests, translated to [`Ops`] and back. The only file that names `fuser`.
//!
//! It decides nothing about what a mount shows. What it does decide is which requests may be answered on the
//! spot (those that ask neither namespace nor desk) and which go through the [`Dispatcher`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, Config, CopyFileRangeFlags, Errno as KernelErrno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session, SessionACL, TimeOrNow,
    WriteFlags,
};

use super::beside::Beside;
use super::dispatch::{Bounds, Budget, Dispatcher, OnFault, Pending, Reply};
use super::errno::{Errno, Failure};
use super::handles::HandleId;
use super::ops::{Entry, FOR_EVER, OpenAs, Ops};
use crate::base::{FileTime, limits};
use crate::job::control::Caller;
use crate::view::namespace::{Attr, FileKind, NodeId, SeekTo};

/// How a session talks to the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// Threads that read requests.
    pub(crate) receivers: usize,
    /// Give each of them a channel of its own.
    pub(crate) own_channels: bool,
    /// The kernel checks permissions by mode, owner and ACL; otherwise it lets in nobody but the mounter.
    pub(crate) kernel_checks: bool,
    /// Deadlines and bounds of the work.
    pub(crate) bounds: Bounds,
}

/// A connected session that has not begun to serve.
pub(crate) struct Served(Session<Adapter>);

impl Served {
    /// Greets the kernel over `device`, which a mount has been made with.
    ///
    /// # Errors
    /// When the kernel hangs up or speaks a protocol that we do not.
    pub(crate) fn connect(device: OwnedFd, ops: Ops, tuning: Tuning) -> io::Result<Served> {
        let ops = Arc::new(ops);
        let recorder = Arc::clone(&ops);
        let on_fault: OnFault = Arc::new(move |node, message| recorder.record_fault(node, message));
        let dispatcher = Dispatcher::start(tuning.bounds, on_fault)?;
        let namespace = Arc::clone(ops.namespace());
        let (beside, giver) = Beside::new();
        let adapter =
            Adapter { ops, dispatcher, beside, kernel_checks: tuning.kernel_checks, opens_directories_alone: false };
        let mut config = Config::default();
        config.n_threads = Some(tuning.receivers);
        config.clone_fd = tuning.own_channels;
        // Who gets in is the kernel's decision, by the mount's owner and `allow_other`.
        let session = Session::from_fd(adapter, device, SessionACL::All, config)?;
        let notifier = session.notifier();
        // A file that the kernel does not know (any more) is passed over without an error.
        giver.start(namespace, move |node, content| notifier.store(INodeNo(node.0), 0, content).is_ok())?;
        Ok(Served(session))
    }

    /// Serves until the mount is gone.
    ///
    /// # Errors
    /// When the channel to the kernel breaks otherwise.
    pub(crate) fn run(self) -> io::Result<()> {
        self.0.run()
    }
}

struct Adapter {
    ops: Arc<Ops>,
    dispatcher: Dispatcher,
    beside: Beside,
    kernel_checks: bool,
    /// The kernel can do without us to open a directory and to close it, and asks for its time before it lists it from
    /// memory.
    opens_directories_alone: bool,
}

/// The kind of a request about `node`, which is of kind `inside` in a point.
fn kind(node: NodeId, inside: Budget) -> Budget {
    match node {
        node if node.is_desk() || node == NodeId::ROOT => Budget::Desk,
        node if node.is_content() => inside,
        _ => Budget::Points,
    }
}

/// The kind of a request for names in `dir`: the names in the root are those of sources.
fn kind_of_names(dir: NodeId) -> Budget {
    if dir == NodeId::ROOT { Budget::Points } else { kind(dir, Budget::Metadata) }
}

impl Adapter {
    /// Does `work` under a deadline and hands its result to `answer` with the reply.
    fn run<R: Reply, T>(
        &self,
        budget: Budget,
        node: NodeId,
        reply: R,
        work: impl FnOnce(&Ops) -> Result<T, Failure> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        let ops = Arc::clone(&self.ops);
        self.dispatcher.run(budget, node.0, reply, move |pending: &Pending<R>| match work(&ops) {
            Ok(value) => pending.answer(|reply| answer(reply, value)),
            Err(failure) => pending.fail(failure),
        });
    }

    /// Fills a listing piece by piece into the pending reply, so that the deadline can still take it.
    fn list<R: Reply>(
        &self,
        dir: INodeNo,
        after: u64,
        reply: R,
        add: impl Fn(&mut R, &super::ops::Item<'_>) -> bool + Send + 'static,
        done: impl FnOnce(R) + Send + 'static,
    ) {
        let ops = Arc::clone(&self.ops);
        let dir = NodeId(dir.0);
        self.dispatcher.run(kind_of_names(dir), dir.0, reply, move |pending: &Pending<R>| {
            let mut taken = false;
            let outcome = ops.read_dir(dir, after, &mut |item| {
                let full = pending.lend(|reply| add(reply, &item)).unwrap_or(true);
                taken |= !full;
                !full
            });
            match outcome {
                // What was read before a fault is worth having; the next call meets the fault at its front.
                Err(failure) if !taken => pending.fail(failure),
                _ => pending.answer(done),
            }
        });
    }
}

macro_rules! refusable {
    ($($reply:ty),*) => {$(
        impl Reply for $reply {
            fn refuse(self, errno: Errno) {
                self.error(kernel(errno));
            }
        }
    )*};
}
refusable!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyWrite,
    ReplyXattr
);

fn kernel(errno: Errno) -> KernelErrno {
    KernelErrno::from_i32(errno.0)
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

fn system_time(time: FileTime) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|at| at.checked_add(Duration::from_nanos(u64::from(time.nanos)))).unwrap_or(UNIX_EPOCH)
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::Regular => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

/// Linux's 32-bit device number: 12 bits of major between the low 8 and the high 12 of minor.
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.node.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.permissions,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device_number(attr.device),
        blksize: 4096,
        flags: 0,
    }
}

/// A reply that says "no such name, and there never will be one" is an entry for node 0.
fn absence() -> FileAttr {
    let mut attr = file_attr(&super::ops::DIRECTORY);
    attr.ino = INodeNo(0);
    attr
}

fn handle(fh: FileHandle) -> HandleId {
    HandleId(fh.0)
}

fn open_flags(open_as: OpenAs) -> FopenFlags {
    match open_as {
        OpenAs::Cached => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
        OpenAs::Direct => FopenFlags::FOPEN_DIRECT_IO,
        OpenAs::Stream => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NONSEEKABLE | FopenFlags::FOPEN_STREAM,
    }
}

fn send_entry(reply: ReplyEntry, entry: &Entry) {
    reply.entry_with_ttls(&entry.attr_ttl, &entry.name_ttl, &file_attr(&entry.attr), Generation(0));
}

/// Answers a request for an attribute by its size protocol: asked with 0 it wants to know how much.
fn send_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    if size == 0 {
        reply.size(length);
    } else if size < length {
        reply.refuse(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_AUTO_INVAL_DATA;
        self.opens_directories_alone =
            config.capabilities().contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT | InitFlags::FUSE_AUTO_INVAL_DATA);
        if self.kernel_checks {
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        // Adding is all or nothing, and each is worth having without the others.
        let _added = config.add_capabilities(wanted & config.capabilities());
        let _nearest = config.set_max_write(limits::MOUNT_REQUEST_BYTES);
        let _nearest = config.set_max_background(limits::MOUNT_BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (dir, name) = (NodeId(parent.0), name.as_bytes().to_vec());
        let budget = if self.ops.is_of_desk(dir, &name) { Budget::Desk } else { kind_of_names(dir) };
        self.run(
            budget,
            dir,
            reply,
            move |ops| match ops.lookup(dir, &name) {
                Err(Failure { errno: Errno::ENOENT, fault: None }) if Ops::absence_is_final(dir) => Ok(None),
                found => found.map(Some),
            },
            |reply, entry| match entry {
                Some(entry) => send_entry(reply, &entry),
                None => reply.entry(&FOR_EVER, &absence(), Generation(0)),
            },
        );
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let (node, fh) = (NodeId(ino.0), fh.map_or(HandleId(0), handle));
        self.run(
            kind(node, Budget::Metadata),
            node,
            reply,
            move |ops| ops.attr(node, fh),
            |reply, entry| reply.attr(&entry.attr_ttl, &file_attr(&entry.attr)),
        );
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let node = NodeId(ino.0);
        self.run(
            kind(node, Budget::Metadata),
            node,
            reply,
            move |ops| ops.set_attr(node),
            |reply, entry| reply.attr(&entry.attr_ttl, &file_attr(&entry.attr)),
        );
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let node = NodeId(ino.0);
        let budget = kind(node, Budget::Metadata);
        self.run(budget, node, reply, move |ops| ops.read_link(node), |reply, target| reply.data(&target));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (node, caller, flags) = (NodeId(ino.0), caller(request), flags.0);
        match self.ops.opens_at_once(node, flags) {
            Some(Ok(open_as)) => reply.opened(FileHandle(0), open_flags(open_as)),
            Some(Err(errno)) => reply.refuse(errno),
            None => self.run(
                kind(node, Budget::Data),
                node,
                reply,
                move |ops| ops.open(caller, node, flags),
                |reply, (handle, open_as)| reply.opened(FileHandle(handle.0), open_flags(open_as)),
            ),
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (node, caller, fh) = (NodeId(ino.0), caller(request), handle(fh));
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if let Some(bytes) = self.ops.reads_at_once(fh, offset, size) {
            return reply.data(&bytes);
        }
        self.run(
            kind(node, Budget::Data),
            node,
            reply,
            move |ops| ops.read(caller, node, fh, offset, size),
            |reply, bytes: Bytes| reply.data(&bytes),
        );
        if offset == 0 && node.is_content() {
            self.beside.saw(node, size);
        }
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (caller, fh, batch) = (caller(request), handle(fh), data.to_vec());
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.run(
            kind(NodeId(ino.0), Budget::Metadata),
            NodeId(ino.0),
            reply,
            move |ops| ops.write(caller, fh, &batch),
            move |reply, ()| reply.written(size),
        );
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Comes before the first write too (a shell duplicates and closes), so it must mean nothing.
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.ops.release(handle(fh));
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.opens_directories_alone {
            // Said once, for all directories: from then on the kernel keeps every listing for as long as the directory's time
            // stays the same. That of generated ones never does (`ops.rs`).
            return reply.refuse(Errno::ENOSYS);
        }
        let flags = if NodeId(ino.0).is_content() {
            FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
        } else {
            FopenFlags::empty()
        };
        reply.opened(FileHandle(0), flags);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.list(
            ino,
            offset,
            reply,
            |reply, item| {
                let attr = &item.entry.attr;
                reply.add(INodeNo(attr.node.0), item.next, file_type(attr.kind), OsStr::from_bytes(item.name))
            },
            ReplyDirectory::ok,
        );
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.list(
            ino,
            offset,
            reply,
            |reply, item| {
                let entry = &item.entry;
                // The reply has one time for name and attributes, and no way to leave attributes out. The kernel makes no
                // node of `.` and `..`; what cannot be read it looks up again before it answers anybody.
                let ttl = if item.bare { Duration::ZERO } else { entry.name_ttl.min(entry.attr_ttl) };
                reply.add(
                    INodeNo(entry.attr.node.0),
                    item.next,
                    OsStr::from_bytes(item.name),
                    &ttl,
                    &file_attr(&entry.attr),
                    Generation(0),
                )
            },
            ReplyDirectoryPlus::ok,
        );
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // Nothing can be stored here: no space, no nodes, none free.
        reply.statfs(0, 0, 0, 0, 0, 4096, limits::NAME_BYTES_MAX as u32, 4096);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (node, name) = (NodeId(ino.0), name.as_bytes().to_vec());
        self.run(
            kind(node, Budget::Metadata),
            node,
            reply,
            move |ops| ops.xattr(node, &name),
            move |reply, value| send_xattr(reply, size, &value),
        );
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let node = NodeId(ino.0);
        self.run(
            kind(node, Budget::Metadata),
            node,
            reply,
            move |ops| ops.xattr_list(node),
            move |reply, names| send_xattr(reply, size, &names),
        );
    }

    fn access(&self, _: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (node, mask) = (NodeId(ino.0), mask.bits());
        let budget = kind(node, Budget::Metadata);
        self.run(budget, node, reply, move |ops| ops.access(node, mask), |reply, ()| reply.ok());
    }

    fn lseek(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let (node, fh) = (NodeId(ino.0), handle(fh));
        let to = match whence {
            libc::SEEK_DATA => SeekTo::Data,
            libc::SEEK_HOLE => SeekTo::Hole,
            _ => return reply.refuse(Errno::EINVAL),
        };
        // Before the first byte is as far from data as behind the last.
        let Ok(offset) = u64::try_from(offset) else { return reply.refuse(Errno::ENXIO) };
        self.run(
            kind(node, Budget::Metadata),
            node,
            reply,
            move |ops| ops.seek(node, fh, offset, to),
            |reply, at| match i64::try_from(at) {
                Ok(at) => reply.offset(at),
                Err(_) => reply.refuse(Errno(libc::EOVERFLOW)),
            },
        );
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(kernel(Errno(libc::ENOTTY)));
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.refuse(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.refuse(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.refuse(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.refuse(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.refuse(Errno::EROFS);
    }

    fn rename(&self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty) {
        reply.refuse(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.refuse(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.refuse(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.refuse(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.refuse(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.refuse(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.refuse(Errno::EROFS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = system_time(FileTime { seconds: -2, nanos: 800_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(time).unwrap(), Duration::new(1, 200_000_000));
        let time = system_time(FileTime { seconds: i64::MAX, nanos: 1 });
        assert_eq!(time.duration_since(UNIX_EPOCH).unwrap(), Duration::new(i64::MAX as u64, 1));
        let time = system_time(FileTime { seconds: i64::MIN, nanos: 0 });
        assert_eq!(UNIX_EPOCH.duration_since(time).unwrap(), Duration::new(1 << 63, 0));
    }

    #[test]
    fn device_numbers_are_packed_as_linux_does() {
        assert_eq!(device_number((8, 1)), 0x801);
        assert_eq!(device_number((0xabc, 0x1_2345)), 0x123a_bc45);
    }
}
