//! Whether a file is still what the parent point holds, judged by metadata alone. Pure.
//!
//! A file is unchanged if inode number, size, mtime, ctime, mode and owner are those that the parent
//! recorded, *and* its ctime lies so far before the parent's capture that no later change can have
//! received the same time stamp: the racily clean files of git's index
//! (<https://git-scm.com/docs/racy-git>), with two seconds for the coarsest filesystem.
//!
//! Everything else is read again, and the chain's chunks tell what of it is new. That keeps an answer
//! right where metadata says too much: filesystems whose inode numbers change with every mount, and
//! tools that touch ctime in bulk, cost reading but store nothing twice. Nothing is ever trusted on
//! size and mtime alone, since both can be set back after an edit.

use std::time::Duration;

use super::stat::{Kind, Stat};
use crate::base::{FileTime, Instant};
use crate::format::entry::{Body, Entry, Meta};

/// How much older than the parent's capture a ctime must be to be trusted.
pub const RACY: Duration = Duration::from_secs(2);

/// How a file compares with what the parent point holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The parent's entry holds.
    Unchanged,
    /// Content is likely the same, but only reading can tell: size and mtime are as they were.
    Touched,
    /// Size, mtime or kind differ.
    Changed,
}

/// Compares `stat` with the parent's `entry` (of a hard link: its inode record), whose capture began at `started`.
pub(super) fn compare(entry: &Entry, started: Instant, stat: &Stat) -> Change {
    let (old, new) = (&entry.meta, &stat.meta);
    if !same_kind(&entry.body, stat) || old.size != new.size || old.mtime != new.mtime {
        Change::Changed
    } else if same_inode(old, new) && settled(new.ctime, started) {
        Change::Unchanged
    } else {
        Change::Touched
    }
}

/// Whether all metadata but content's is equal. Link count and times of access do not count: the first
/// cannot change without ctime, the second is nobody's work.
fn same_inode(old: &Meta, new: &Meta) -> bool {
    old.inode == new.inode
        && old.ctime == new.ctime
        && old.permissions == new.permissions
        && old.uid == new.uid
        && old.gid == new.gid
}

fn settled(ctime: FileTime, started: Instant) -> bool {
    ctime < started.minus(RACY).file_time()
}

fn same_kind(body: &Body, stat: &Stat) -> bool {
    match body {
        Body::Directory { .. } => stat.kind == Kind::Directory,
        Body::File(_) => stat.kind == Kind::File,
        Body::Symlink(_) => stat.kind == Kind::Symlink,
        Body::BlockDevice(major, minor) => stat.kind == Kind::BlockDevice && stat.node == (*major, *minor),
        Body::CharDevice(major, minor) => stat.kind == Kind::CharDevice && stat.node == (*major, *minor),
        Body::Fifo => stat.kind == Kind::Fifo,
        Body::Socket => stat.kind == Kind::Socket,
        Body::Link(_) => false,
    }
}

/// Whether storing `new` over `old` would tell a reader anything but another time of access.
pub(super) fn same_entry(old: &Entry, new: &Entry) -> bool {
    old.body == new.body && old.xattrs == new.xattrs && Meta { atime: old.meta.atime, ..new.meta } == old.meta
}

#[cfg(test)]
mod tests {
    use super::super::stat::Identity;
    use super::*;
    use crate::format::entry::Content;
    use crate::format::ids::FileId;

    fn time(seconds: i64, nanos: u32) -> FileTime {
        FileTime { seconds, nanos }
    }

    fn meta() -> Meta {
        Meta {
            permissions: 0o644,
            uid: 1,
            gid: 2,
            size: 10,
            mtime: time(100, 5),
            ctime: time(200, 7),
            atime: time(300, 0),
            btime: Some(time(50, 0)),
            links: 1,
            inode: 77,
        }
    }

    fn stat(kind: Kind, meta: Meta) -> Stat {
        Stat { kind, identity: Identity { device: (8, 1), inode: meta.inode }, node: (1, 3), meta }
    }

    #[test]
    fn the_table_of_decisions() {
        use Change::{Changed, Touched, Unchanged};
        let entry = Entry { meta: meta(), xattrs: vec![], body: Body::File(Content::Hole) };
        let long_ago = Instant::from_nanos(1_000_000_000_000);
        let cases: [(&str, Meta, Change); 12] = [
            ("nothing", meta(), Unchanged),
            ("access time", Meta { atime: time(999, 0), ..meta() }, Unchanged),
            ("size", Meta { size: 11, ..meta() }, Changed),
            ("mtime by a nanosecond", Meta { mtime: time(100, 6), ..meta() }, Changed),
            ("mtime backwards", Meta { mtime: time(1, 0), ..meta() }, Changed),
            (
                "ctime alone: an edit with mtime set back, an attribute, a new link",
                Meta { ctime: time(201, 7), ..meta() },
                Touched,
            ),
            ("ctime by a nanosecond", Meta { ctime: time(200, 8), ..meta() }, Touched),
            ("inode alone: a remounted vfat, or a file restored by rename", Meta { inode: 78, ..meta() }, Touched),
            ("mode", Meta { permissions: 0o600, ..meta() }, Touched),
            ("owner", Meta { uid: 3, ..meta() }, Touched),
            ("group", Meta { gid: 3, ..meta() }, Touched),
            ("size and inode", Meta { size: 9, inode: 5, ..meta() }, Changed),
        ];
        for (what, meta, expected) in cases {
            assert_eq!(compare(&entry, long_ago, &stat(Kind::File, meta)), expected, "{what}");
        }
    }

    #[test]
    fn a_ctime_within_two_seconds_of_the_parents_capture_is_not_trusted() {
        let entry = Entry { meta: meta(), xattrs: vec![], body: Body::File(Content::Hole) };
        let ctime = 200 * 1_000_000_000 + 7;
        for (started, expected) in [
            (ctime + 2_000_000_001, Change::Unchanged),
            (ctime + 2_000_000_000, Change::Touched),
            (ctime, Change::Touched),
            // A ctime in the future: a clock that was set back, or another machine's.
            (ctime - 5_000_000_000, Change::Touched),
        ] {
            assert_eq!(compare(&entry, Instant::from_nanos(started), &stat(Kind::File, meta())), expected, "{started}");
        }
    }

    #[test]
    fn another_kind_is_another_file() {
        let long_ago = Instant::from_nanos(1_000_000_000_000);
        let bodies = [
            (Body::File(Content::Hole), Kind::File),
            (Body::Symlink(b"x".to_vec()), Kind::Symlink),
            (Body::BlockDevice(1, 3), Kind::BlockDevice),
            (Body::CharDevice(1, 3), Kind::CharDevice),
            (Body::Fifo, Kind::Fifo),
            (Body::Socket, Kind::Socket),
        ];
        for (body, of) in &bodies {
            let entry = Entry { meta: meta(), xattrs: vec![], body: body.clone() };
            for (_, kind) in &bodies {
                let expected = if of == kind { Change::Unchanged } else { Change::Changed };
                assert_eq!(compare(&entry, long_ago, &stat(*kind, meta())), expected, "{body:?} {kind:?}");
            }
        }
        let node = Entry { meta: meta(), xattrs: vec![], body: Body::CharDevice(1, 5) };
        assert_eq!(compare(&node, long_ago, &stat(Kind::CharDevice, meta())), Change::Changed);
        let link = Entry { meta: meta(), xattrs: vec![], body: Body::Link(FileId(9)) };
        assert_eq!(compare(&link, long_ago, &stat(Kind::File, meta())), Change::Changed);
    }

    #[test]
    fn only_a_time_of_access_makes_no_new_entry() {
        let entry = Entry { meta: meta(), xattrs: vec![], body: Body::Fifo };
        let with = |meta| Entry { meta, ..entry.clone() };
        assert!(same_entry(&entry, &with(Meta { atime: time(1, 1), ..meta() })));
        assert!(!same_entry(&entry, &with(Meta { ctime: time(1, 1), ..meta() })));
        assert!(!same_entry(&entry, &Entry { body: Body::Socket, ..entry.clone() }));
    }
}
