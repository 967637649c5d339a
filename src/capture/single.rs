//! A point that holds one file: a stream, or a disk.

use super::attempt::Plan;
use super::parent::directory_id;
use super::planner::Halt;
use super::stat::{Identity, Kind, Stat};
use super::unit::{Change, Job};
use crate::base::{Instant, sys};
use crate::format::entry::{Body, Entry, Meta};
use crate::format::{FileId, Key};

/// The directory that holds the file, and nothing else.
pub(super) fn root(plan: &mut Plan<'_>, file: &Key) -> Result<(), Halt> {
    plan.counts.add_name(Kind::Directory);
    let old = plan.parent.get(&Key::root())?;
    if let Some(id) = old.as_ref().and_then(directory_id) {
        // A stream that had another name before.
        let mut names = plan.parent.names(id)?;
        let mut renamed = false;
        while let Some((key, gone)) = names.next_below(None)? {
            if key != *file {
                renamed = true;
                plan.planner.add(Job::Change(Change { key, old: Some(gone), new: None }))?;
            }
        }
        // Its time is that of its last change, as a directory's is.
        if !renamed {
            return Ok(());
        }
    }
    let meta = Meta { permissions: 0o755, size: 0, links: 2, ..made(plan.started, 0).meta };
    let body = Body::Directory { id: FileId::ROOT, parent: Key::root() };
    let new = Entry { meta, xattrs: Vec::new(), body };
    plan.planner.add(Job::Change(Change { key: Key::root(), old, new: Some(new) }))
}

/// A file of `size` bytes that is made now, by whoever captures.
pub(super) fn made(now: Instant, size: u64) -> Stat {
    let time = now.file_time();
    let meta = Meta {
        permissions: 0o600,
        uid: sys::effective_uid(),
        gid: sys::effective_gid(),
        size,
        mtime: time,
        ctime: time,
        atime: time,
        btime: Some(time),
        links: 1,
        inode: 0,
    };
    Stat { kind: Kind::File, identity: Identity { device: (0, 0), inode: 0 }, node: (0, 0), meta }
}
