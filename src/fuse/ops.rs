//! What each operation of a mount answers, without a kernel: the namespace's nodes, the mount's own
//! `.amberfs/` in the root, and "read-only file system" to everything that would change either.
//! `docs/semantics.md` says the same for users.
//!
//! Invariants:
//! - What the kernel may remember for ever is exactly what can never change: attributes of content,
//!   names that the namespace calls immutable, and the absence of a name in a directory of content.
//!   Everything else is asked for every time.
//! - The kernel may keep the listing of any directory for as long as its modification time is the same, and asks for that
//!   before it lists. So that a generated directory is never listed from memory, its time moves on by a nanosecond whenever
//!   one is listed.
//! - An open generated file keeps the content and size that it had at open.
//! - The control file answers only whom the desk permits, for opener and writer alike.
//!
//! This file takes no decision about threads and deadlines (`dispatch.rs`) and knows nothing of the
//! kernel's message format (`adapter.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::desk::{DESK_NAME, Desk};
use super::desk_node::DeskNode;
use super::detach::SERVER_ATTRIBUTE;
use super::errno::{Errno, Failure};
use super::handles::{Conversation, Handle, HandleId, Handles};
use crate::base::limits;
use crate::job::control::Caller;
use crate::view::namespace::{Attr, DirEntry, FileKind, Found, Namespace, NodeId, SeekTo};

/// How long the kernel may keep what cannot change: a year.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(365 * 86400);

/// A name's node, with how long the kernel may keep the name and the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) attr: Attr,
    pub(crate) name_ttl: Duration,
    pub(crate) attr_ttl: Duration,
}

/// How an open file behaves in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenAs {
    /// Pages stay valid for ever.
    Cached,
    /// Every read comes to us, at its offset.
    Direct,
    /// Every read and write comes to us, and there are no offsets.
    Stream,
}

/// One item of a listing, with the offset that continues behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) next: u64,
    pub(crate) entry: Entry,
    /// Only name and node mean anything: `.`, `..`, and what cannot be read.
    pub(crate) bare: bool,
}

/// Up to `size` bytes at `offset`, shared.
fn part(bytes: &Bytes, offset: u64, size: usize) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = start.saturating_add(size).min(bytes.len());
    bytes.slice(start..end)
}

/// Offsets of a listing: 1 is behind `.`, 2 behind `..`, 3 behind the mount's own directory; those of
/// the directory itself follow.
const OWN_OFFSETS: u64 = 3;

/// See the head of this file.
pub(crate) struct Ops {
    namespace: Arc<dyn Namespace>,
    desk: Option<Desk>,
    handles: Handles,
    /// How often a generated directory was listed from its beginning.
    listings: AtomicU64,
    /// User and group that everything is shown to belong to.
    shown_owner: Option<(u32, u32)>,
}

impl Ops {
    pub(crate) fn new(namespace: Arc<dyn Namespace>, desk: Option<Desk>, shown_owner: Option<(u32, u32)>) -> Ops {
        Ops { namespace, desk, handles: Handles::default(), listings: AtomicU64::new(0), shown_owner }
    }

    /// What it shows.
    pub(crate) fn namespace(&self) -> &Arc<dyn Namespace> {
        &self.namespace
    }

    /// Records a fault, for `.amberfs/errors`; without one, in the log.
    pub(crate) fn record_fault(&self, node: u64, message: &str) {
        match &self.desk {
            Some(desk) => desk.control().fault(node, message),
            None => tracing::warn!(node, "a reader met a fault: {message}"),
        }
    }

    /// Whether the desk answers for `name` in `dir`, whatever the namespace does.
    pub(crate) fn is_of_desk(&self, dir: NodeId, name: &[u8]) -> bool {
        self.desk.is_some() && (dir.is_desk() || dir == NodeId::ROOT && name == DESK_NAME)
    }

    pub(crate) fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Entry, Failure> {
        if name.len() > limits::NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        if let Some(desk) = &self.desk {
            if dir.is_desk() {
                return Ok(self.entry(desk.lookup(dir, name)?));
            }
            if dir == NodeId::ROOT && name == DESK_NAME {
                return Ok(self.entry(desk.directory()));
            }
        }
        self.namespace.lookup(dir, name).map(|found| self.entry(found)).map_err(|e| Failure::by_name(&e))
    }

    /// Whether a name that `dir` does not have will never be there.
    pub(crate) fn absence_is_final(dir: NodeId) -> bool {
        dir.is_content()
    }

    /// Attributes, of the open file where there is one, and how long they stay true.
    pub(crate) fn attr(&self, node: NodeId, handle: HandleId) -> Result<Entry, Failure> {
        if let Some(Handle::Snapshot { attr, .. }) = self.handles.get(handle) {
            return Ok(self.entry(Found { attr, immutable: false }));
        }
        match self.found(node) {
            // Gone from the names, and still open: whoever has it open may ask without saying so.
            Err(failure) if failure.errno == Errno::ESTALE => match self.handles.snapshot_of(node) {
                Some(attr) => Ok(self.entry(Found { attr, immutable: false })),
                None => Err(failure),
            },
            found => found.map(|found| self.entry(found)),
        }
    }

    /// What a change of attributes answers: nothing can be changed, but a shell truncates the control
    /// file before it writes, and that must not be an error.
    pub(crate) fn set_attr(&self, node: NodeId) -> Result<Entry, Failure> {
        if self.is_control(node) { self.attr(node, HandleId(0)) } else { Err(Errno::EROFS.into()) }
    }

    /// Whether access(2) with `mask` is granted, where the kernel does not decide by the mode alone.
    pub(crate) fn access(&self, node: NodeId, mask: i32) -> Result<(), Failure> {
        if mask & libc::W_OK != 0 && !self.is_control(node) {
            return Err(Errno::EROFS.into());
        }
        if mask & libc::X_OK != 0 {
            let attr = self.found(node)?.attr;
            if attr.kind != FileKind::Directory && attr.permissions & 0o111 == 0 {
                return Err(Errno::EACCES.into());
            }
        }
        Ok(())
    }

    /// Opening this needs neither namespace nor desk.
    pub(crate) fn opens_at_once(&self, node: NodeId, flags: i32) -> Option<Result<OpenAs, Errno>> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY && !self.is_control(node) {
            return Some(Err(Errno::EROFS));
        }
        node.is_content().then_some(Ok(OpenAs::Cached))
    }

    /// Opens a regular file.
    pub(crate) fn open(&self, caller: Caller, node: NodeId, flags: i32) -> Result<(HandleId, OpenAs), Failure> {
        if let Some(at_once) = self.opens_at_once(node, flags) {
            return Ok((HandleId(0), at_once?));
        }
        if let (Some(desk), Some((desk_node, _))) = (&self.desk, DeskNode::of(node)) {
            if desk_node == DeskNode::Control {
                if !desk.control().permits(caller) {
                    return Err(Errno::EACCES.into());
                }
                let conversation = Conversation { opener: caller, reply: Mutex::new(None) };
                return Ok((self.handles.insert(Handle::Control(Arc::new(conversation))), OpenAs::Stream));
            }
            if desk_node.grows() {
                desk.content(node)?.ok_or(Errno::EISDIR)?;
                return Ok((self.handles.insert(Handle::Growing(node)), OpenAs::Direct));
            }
            let content = desk.content(node)?.ok_or(Errno::EISDIR)?;
            let mut attr = desk.attr(node)?.attr;
            attr.size = content.bytes.len() as u64;
            // Not through the page cache: there it would wait behind contents that are read ahead and hang.
            return Ok((self.handles.insert(Handle::Snapshot { attr, bytes: content.bytes }), OpenAs::Direct));
        }
        let attr = self.found(node)?.attr;
        if attr.kind == FileKind::Directory {
            return Err(Errno::EISDIR.into());
        }
        if attr.size > limits::GENERATED_BYTES_MAX {
            return Err(Errno::EFBIG.into());
        }
        let bytes = self.namespace.read_generated(node).map_err(|e| Failure::by_node(&e))?;
        Ok((self.handles.insert(Handle::Snapshot { attr, bytes }), OpenAs::Cached))
    }

    /// Forgets an open file.
    pub(crate) fn release(&self, handle: HandleId) {
        self.handles.remove(handle);
    }

    /// Whether reading this needs neither namespace nor desk.
    pub(crate) fn reads_at_once(&self, handle: HandleId, offset: u64, size: usize) -> Option<Bytes> {
        match self.handles.get(handle)? {
            Handle::Snapshot { bytes, .. } => Some(part(&bytes, offset, size)),
            Handle::Growing(_) | Handle::Control(_) => None,
        }
    }

    pub(crate) fn read(
        &self,
        caller: Caller,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        size: usize,
    ) -> Result<Bytes, Failure> {
        match (self.handles.get(handle), &self.desk) {
            (Some(Handle::Snapshot { bytes, .. }), _) => Ok(part(&bytes, offset, size)),
            (Some(Handle::Growing(node)), Some(desk)) => {
                let (content, gone) = desk.growing(node)?;
                match gone.checked_sub(offset).filter(|lacks| *lacks > 0) {
                    // Only who has fallen far behind reads these: empty lines, so that places stay what they were.
                    Some(lacks) => Ok(vec![b'\n'; usize::try_from(lacks).unwrap_or(usize::MAX).min(size)].into()),
                    None => Ok(part(&content.bytes, offset - gone, size)),
                }
            }
            (Some(Handle::Control(conversation)), Some(desk)) => {
                if !desk.control().permits(caller) {
                    return Err(Errno::EACCES.into());
                }
                let mut reply = conversation.reply.lock();
                let (text, done) = reply.get_or_insert_with(|| (desk.control().reply(conversation.opener).into(), 0));
                let part = part(text, *done as u64, size);
                *done += part.len();
                Ok(part)
            }
            (Some(Handle::Growing(_) | Handle::Control(_)), None) => Err(Errno::EBADF.into()),
            (None, _) => {
                let offset_end = offset.checked_add(size as u64).ok_or(Errno::EINVAL)?;
                if offset_end > i64::MAX as u64 {
                    return Err(Errno::EINVAL.into());
                }
                self.namespace.read(node, offset, size).map_err(|e| Failure::by_node(&e))
            }
        }
    }

    /// Takes one write(2) to the control file as one batch; the offset of a write says nothing there.
    pub(crate) fn write(&self, caller: Caller, handle: HandleId, batch: &[u8]) -> Result<(), Failure> {
        let (Some(Handle::Control(conversation)), Some(desk)) = (self.handles.get(handle), &self.desk) else {
            return Err(Errno::EROFS.into());
        };
        if !desk.control().permits(caller) || !desk.control().permits(conversation.opener) {
            return Err(Errno::EACCES.into());
        }
        let (outcome, reply) = desk.submit(caller, batch);
        *conversation.reply.lock() = Some((reply.into(), 0));
        outcome.map_err(Failure::from)
    }

    /// Hands the items of `dir` behind `after` to `take`, until it returns false.
    pub(crate) fn read_dir(
        &self,
        dir: NodeId,
        after: u64,
        take: &mut dyn FnMut(Item<'_>) -> bool,
    ) -> Result<(), Failure> {
        if after == 0 && !dir.is_content() {
            self.listings.fetch_add(1, Ordering::Relaxed);
        }
        let dots = |name: &'static [u8], next, node| {
            let attr = Attr { node, ..DIRECTORY };
            Item { name, next, entry: self.entry(Found { attr, immutable: false }), bare: true }
        };
        if after < 1 && !take(dots(b".", 1, dir)) {
            return Ok(());
        }
        if after < 2 && !take(dots(b"..", 2, self.parent(dir)?)) {
            return Ok(());
        }
        let mut broken = None;
        let mut pass_on = |item: DirEntry| match item.next.checked_add(OWN_OFFSETS) {
            Some(next) if next <= i64::MAX as u64 => {
                let bare = item.found.is_err();
                let mut entry = self.entry(item.found.unwrap_or_else(unreadable));
                if !dir.is_content() {
                    // Provisional: a namespace need not read every point to list their names.
                    entry.attr_ttl = Duration::ZERO;
                }
                take(Item { name: &item.name, next, entry, bare })
            }
            _ => {
                broken = Some(item.next);
                false
            }
        };
        let inner_after = after.saturating_sub(OWN_OFFSETS);
        match &self.desk {
            Some(desk) if dir.is_desk() => desk.read_dir(dir, inner_after, &mut pass_on)?,
            desk => {
                if let Some(desk) = desk
                    && dir == NodeId::ROOT
                    && after < OWN_OFFSETS
                {
                    let own = DirEntry { name: DESK_NAME.to_vec(), next: 0, found: Ok(desk.directory()) };
                    if !pass_on(own) {
                        return Ok(());
                    }
                }
                self.namespace.read_dir(dir, inner_after, &mut pass_on).map_err(|e| Failure::by_node(&e))?;
            }
        }
        match broken {
            None => Ok(()),
            Some(next) => Err(Failure::fault(Errno::EIO, format!("a listing has the impossible offset {next}"))),
        }
    }

    pub(crate) fn read_link(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        if node.is_desk() {
            return Err(Errno::EINVAL.into());
        }
        self.namespace.read_link(node).map_err(|e| Failure::by_node(&e))
    }

    /// The next data or hole; what we generated is data throughout.
    pub(crate) fn seek(&self, node: NodeId, handle: HandleId, offset: u64, to: SeekTo) -> Result<u64, Failure> {
        let size = match self.handles.get(handle) {
            Some(Handle::Control(_)) => return Err(Errno(libc::ESPIPE).into()),
            Some(Handle::Snapshot { attr, .. }) => attr.size,
            Some(Handle::Growing(node)) => self.found(node)?.attr.size,
            None => return self.namespace.seek(node, offset, to).map_err(|e| Failure::by_node(&e)),
        };
        match to {
            _ if offset >= size => Err(Errno::ENXIO.into()),
            SeekTo::Data => Ok(offset),
            SeekTo::Hole => Ok(size),
        }
    }

    /// The value of an attribute; ENODATA when there is none, never ENOSYS, which would make the kernel
    /// stop asking for the whole mount.
    pub(crate) fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, Failure> {
        if node.is_desk() {
            return Err(Errno::ENODATA.into());
        }
        if node == NodeId::ROOT && name == SERVER_ATTRIBUTE.as_bytes() {
            return Ok(std::process::id().to_string().into_bytes());
        }
        let value = self.namespace.xattr(node, name).map_err(|e| Failure::by_node(&e))?;
        value.ok_or_else(|| Errno::ENODATA.into())
    }

    /// The names of all attributes, each with a final zero byte.
    pub(crate) fn xattr_list(&self, node: NodeId) -> Result<Vec<u8>, Failure> {
        if node.is_desk() {
            return Ok(Vec::new());
        }
        let names = self.namespace.xattr_names(node).map_err(|e| Failure::by_node(&e))?;
        Ok(names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect())
    }

    fn is_control(&self, node: NodeId) -> bool {
        self.desk.is_some() && matches!(DeskNode::of(node), Some((DeskNode::Control, _)))
    }

    fn found(&self, node: NodeId) -> Result<Found, Failure> {
        match &self.desk {
            Some(desk) if node.is_desk() => Ok(desk.attr(node)?),
            _ => self.namespace.attr(node).map_err(|e| Failure::by_node(&e)),
        }
    }

    fn parent(&self, dir: NodeId) -> Result<NodeId, Failure> {
        match &self.desk {
            _ if dir == NodeId::ROOT => Ok(NodeId::ROOT),
            Some(desk) if dir.is_desk() => Ok(desk.parent(dir)),
            _ => self.namespace.parent(dir).map_err(|e| Failure::by_node(&e)),
        }
    }

    fn entry(&self, found: Found) -> Entry {
        let mut attr = found.attr;
        if let Some((uid, gid)) = self.shown_owner {
            (attr.uid, attr.gid) = (uid, gid);
        }
        if attr.kind == FileKind::Directory && !attr.node.is_content() {
            let moved = u64::from(attr.mtime.nanos) + self.listings.load(Ordering::Relaxed);
            attr.mtime.nanos = (moved % 1_000_000_000) as u32;
        }
        let ttl = |keep: bool| if keep { FOR_EVER } else { Duration::ZERO };
        Entry { attr, name_ttl: ttl(found.immutable), attr_ttl: ttl(found.immutable || attr.node.is_content()) }
    }
}

/// What stands for a node that cannot be read until the kernel asks for it, because a listing must name a type: the one
/// that files with several names nearly always have.
fn unreadable(node: NodeId) -> Found {
    Found { attr: Attr { node, kind: FileKind::Regular, ..DIRECTORY }, immutable: false }
}

pub(crate) const DIRECTORY: Attr = Attr {
    node: NodeId::ROOT,
    kind: FileKind::Directory,
    permissions: 0,
    uid: 0,
    gid: 0,
    size: 0,
    blocks: 0,
    links: 1,
    device: (0, 0),
    mtime: crate::base::FileTime { seconds: 0, nanos: 0 },
    atime: crate::base::FileTime { seconds: 0, nanos: 0 },
    ctime: crate::base::FileTime { seconds: 0, nanos: 0 },
};

#[cfg(test)]
mod tests;
