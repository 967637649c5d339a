use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::base::Instant;
use crate::job::control::{Content, Control, DeskFile, JobFile, JobId, Refusal};
use crate::view::namespace::ViewError;

/// The root holds one live directory, `points`; that holds one immutable tree with a file.
struct Tree;

const POINTS: NodeId = NodeId(NodeId::GENERATED | 1);
const TREE: NodeId = NodeId(1 << 52 | 1 << 32);
const FILE: NodeId = NodeId(1 << 52 | 1 << 32 | 1);

fn found(node: NodeId) -> Found {
    let kind = if node == FILE { FileKind::Regular } else { FileKind::Directory };
    Found { attr: Attr { node, kind, uid: 7, gid: 8, ..DIRECTORY }, immutable: node == FILE }
}

impl Namespace for Tree {
    fn attr(&self, node: NodeId) -> Result<Found, ViewError> {
        if [NodeId::ROOT, POINTS, TREE, FILE].contains(&node) { Ok(found(node)) } else { Err(ViewError::NotFound) }
    }
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Found, ViewError> {
        match (dir, name) {
            (NodeId::ROOT, b"points") => Ok(found(POINTS)),
            (POINTS, b"tree") => Ok(found(TREE)),
            (TREE, b"file") => Ok(found(FILE)),
            _ => Err(ViewError::NotFound),
        }
    }
    fn read_dir(&self, dir: NodeId, after: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), ViewError> {
        if dir == NodeId::ROOT && after == 0 {
            take(DirEntry { name: b"points".to_vec(), next: 1, found: Ok(found(POINTS)) });
        }
        if dir == POINTS {
            take(DirEntry { name: b"tree".to_vec(), next: u64::MAX, found: Ok(found(TREE)) });
        }
        Ok(())
    }
    fn parent(&self, _: NodeId) -> Result<NodeId, ViewError> {
        Ok(NodeId::ROOT)
    }
    fn read_link(&self, _: NodeId) -> Result<Vec<u8>, ViewError> {
        Err(ViewError::NotFound)
    }
    fn read(&self, _: NodeId, _: u64, _: usize) -> Result<Bytes, ViewError> {
        Ok(Bytes::new())
    }
    fn seek(&self, _: NodeId, _: u64, _: SeekTo) -> Result<u64, ViewError> {
        Err(ViewError::NoSuchOffset)
    }
    fn xattr_names(&self, _: NodeId) -> Result<Vec<Vec<u8>>, ViewError> {
        Ok(vec![b"user.a".to_vec(), b"user.b".to_vec()])
    }
    fn xattr(&self, _: NodeId, _: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        Ok(None)
    }
}

/// `status.json` has another content each time it is asked for; user 7 is permitted.
struct Ticking(AtomicU64, Arc<Mutex<Content>>);

impl Control for Ticking {
    fn submit(&self, _: Caller, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }
    fn reply(&self, _: Caller) -> Vec<u8> {
        b"reply\n".to_vec()
    }
    fn permits(&self, caller: Caller) -> bool {
        caller.uid == 7
    }
    fn file(&self, file: DeskFile) -> Content {
        if file == DeskFile::Events {
            return self.1.lock().clone();
        }
        let version = self.0.fetch_add(1, Ordering::SeqCst);
        let bytes = version.to_string().into();
        Content { version, bytes, gone: 0, changed: Instant::from_nanos(0) }
    }
    fn jobs(&self) -> Vec<JobId> {
        Vec::new()
    }
    fn job_file(&self, _: &JobId, _: JobFile) -> Option<Content> {
        None
    }
    fn fault(&self, _: u64, _: &str) {}
}

fn ops() -> Ops {
    ops_and_events().0
}

/// With `events` for the test to change.
fn ops_and_events() -> (Ops, Arc<Mutex<Content>>) {
    let bytes = Bytes::from("one\ntwo\n");
    let events = Arc::new(Mutex::new(Content { version: 1, bytes, gone: 0, changed: Instant::from_nanos(0) }));
    let control = Ticking(AtomicU64::new(0), Arc::clone(&events));
    let desk = Desk::new(Arc::new(control), (7, 8), Instant::from_nanos(0));
    (Ops::new(Arc::new(Tree), Some(desk), None), events)
}

fn caller(uid: u32) -> Caller {
    Caller { uid, gid: 0, pid: 1 }
}

fn names(ops: &Ops, dir: NodeId, after: u64, count: usize) -> Vec<(String, u64)> {
    let mut names = Vec::new();
    ops.read_dir(dir, after, &mut |item| {
        names.push((String::from_utf8_lossy(item.name).into_owned(), item.next));
        names.len() < count
    })
    .unwrap();
    names
}

#[test]
fn the_kernel_keeps_what_never_changes_and_nothing_else() {
    let ops = ops();
    let times = |entry: Entry| (entry.name_ttl, entry.attr_ttl);
    let (now, ever) = (Duration::ZERO, FOR_EVER);
    assert_eq!(times(ops.lookup(NodeId::ROOT, b"points").unwrap()), (now, now));
    assert_eq!(times(ops.lookup(POINTS, b"tree").unwrap()), (now, ever), "a point may be deleted, but not change");
    assert_eq!(times(ops.lookup(TREE, b"file").unwrap()), (ever, ever));
    assert_eq!(times(ops.lookup(NodeId::ROOT, DESK_NAME).unwrap()), (now, now));
    assert!(Ops::absence_is_final(TREE) && !Ops::absence_is_final(POINTS) && !Ops::absence_is_final(NodeId::ROOT));
    let desk = ops.lookup(NodeId::ROOT, DESK_NAME).unwrap().attr.node;
    assert!(!Ops::absence_is_final(desk));
}

#[test]
fn the_root_joins_view_and_desk_and_continues_anywhere() {
    let ops = ops();
    let all = names(&ops, NodeId::ROOT, 0, 9);
    assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [".", "..", ".amberfs", "points"]);
    for (at, (_, next)) in all.iter().enumerate() {
        assert_eq!(names(&ops, NodeId::ROOT, *next, 9), all[at + 1..]);
        assert_eq!(names(&ops, NodeId::ROOT, 0, at + 1), all[..=at]);
    }
    let plain = Ops::new(Arc::new(Tree), None, None);
    assert_eq!(names(&plain, NodeId::ROOT, 0, 9).len(), 3);
    assert_eq!(plain.lookup(NodeId::ROOT, DESK_NAME).unwrap_err().errno, Errno::ENOENT);
}

#[test]
fn what_the_kernel_remembers_of_a_generated_listing_is_always_out_of_date() {
    let ops = ops();
    let time = |node| ops.attr(node, HandleId(0)).unwrap().attr.mtime;
    let desk = ops.lookup(NodeId::ROOT, DESK_NAME).unwrap().attr.node;
    for dir in [NodeId::ROOT, desk] {
        let before = time(dir);
        assert_eq!(time(dir), before, "time stands still while nobody looks");
        let all = names(&ops, dir, 0, 9);
        let after = time(dir);
        assert_eq!((after.seconds, after.nanos), (before.seconds, before.nanos + 1));
        assert_eq!(names(&ops, dir, all[2].1, 9), all[3..]);
        assert_eq!(time(dir), after, "the rest of a listing is no other");
    }
    let before = time(TREE);
    names(&ops, TREE, 0, 9);
    assert_eq!(time(TREE), before, "what was captured has the time that was captured");
}

#[test]
fn an_impossible_offset_is_a_fault_and_no_endless_listing() {
    let failure = ops().read_dir(POINTS, 0, &mut |_| true).unwrap_err();
    assert_eq!(failure.errno, Errno::EIO);
    assert!(failure.fault.is_some());
}

#[test]
fn a_generated_file_opens_as_the_version_that_was_looked_up() {
    let ops = ops();
    let desk = ops.lookup(NodeId::ROOT, DESK_NAME).unwrap().attr.node;
    let first = ops.lookup(desk, b"status.json").unwrap().attr;
    let second = ops.lookup(desk, b"status.json").unwrap().attr;
    assert_ne!(first.node, second.node);
    let (handle, open_as) = ops.open(caller(7), first.node, libc::O_RDONLY).unwrap();
    assert_eq!(open_as, OpenAs::Direct);
    let bytes = ops.read(caller(7), first.node, handle, 0, 100).unwrap();
    assert_eq!(bytes, "0");
    // So many later versions that the first is forgotten: its path must be looked up again.
    for _ in 0..limits::DESK_RECENT_CONTENTS.get() {
        ops.lookup(desk, b"status.json").unwrap();
    }
    assert_eq!(ops.open(caller(7), first.node, libc::O_RDONLY).unwrap_err().errno, Errno::ESTALE);
    assert_eq!(ops.attr(first.node, handle).unwrap().attr.size, 1, "who has it open keeps it");
    assert_eq!(ops.attr(first.node, HandleId(0)).unwrap().attr.size, 1, "fstat(2) comes without a handle");
    ops.release(handle);
    assert_eq!(ops.attr(first.node, HandleId(0)).unwrap_err().errno, Errno::ESTALE);
}

#[test]
fn the_control_file_is_for_opener_and_writer_who_may() {
    let ops = ops();
    let desk = ops.lookup(NodeId::ROOT, DESK_NAME).unwrap().attr.node;
    let control = ops.lookup(desk, b"control").unwrap().attr.node;
    assert_eq!(ops.open(caller(9), control, libc::O_WRONLY).unwrap_err().errno, Errno::EACCES);
    let (handle, open_as) = ops.open(caller(7), control, libc::O_RDWR).unwrap();
    assert_eq!(open_as, OpenAs::Stream);
    // A descriptor that was handed to somebody else does not carry the opener's rights along.
    assert_eq!(ops.write(caller(9), handle, b"capture home").unwrap_err().errno, Errno::EACCES);
    assert!(ops.read(caller(9), control, handle, 0, 9).is_err());
    ops.write(caller(7), handle, b"capture home").unwrap();
    assert_eq!(ops.read(caller(7), control, handle, 12, 4).unwrap(), "repl");
    assert_eq!(ops.read(caller(7), control, handle, 16, 4).unwrap(), "y\n");
    assert!(ops.set_attr(control).is_ok());
    assert_eq!(ops.set_attr(FILE).unwrap_err().errno, Errno::EROFS);
    assert_eq!(ops.write(caller(7), HandleId(0), b"x").unwrap_err().errno, Errno::EROFS);
}

#[test]
fn owners_are_shown_as_asked() {
    let ops = Ops::new(Arc::new(Tree), None, Some((1000, 100)));
    let attr = ops.lookup(TREE, b"file").unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (1000, 100));
}

#[test]
fn lists_of_attributes_end_each_name_in_zero() {
    assert_eq!(ops().xattr_list(FILE).unwrap(), b"user.a\0user.b\0");
    assert_eq!(ops().xattr(FILE, b"user.c").unwrap_err().errno, Errno::ENODATA);
    assert_eq!(ops().xattr(FILE, SERVER_ATTRIBUTE.as_bytes()).unwrap_err().errno, Errno::ENODATA);
}

#[test]
fn names_longer_than_names_can_be_are_refused() {
    assert_eq!(ops().lookup(TREE, &[b'x'; 256]).unwrap_err().errno, Errno::ENAMETOOLONG);
}

#[test]
fn whoever_follows_a_growing_file_reads_on_when_its_older_half_goes() {
    let (ops, events) = ops_and_events();
    let desk = ops.lookup(NodeId::ROOT, DESK_NAME).unwrap().attr.node;
    let node = ops.lookup(desk, b"events").unwrap().attr.node;
    let (handle, open_as) = ops.open(caller(7), node, libc::O_RDONLY).unwrap();
    assert_eq!(open_as, OpenAs::Direct);
    let read = |at| String::from_utf8(ops.read(caller(7), node, handle, at, 100).unwrap().to_vec()).unwrap();
    assert_eq!(read(0), "one\ntwo\n");
    let grow = |gone: u64, bytes: &[u8]| {
        let mut events = events.lock();
        (events.gone, events.bytes) = (gone, Bytes::copy_from_slice(bytes));
    };
    grow(4, b"two\nthree\n");
    assert_eq!(ops.attr(node, HandleId(0)).unwrap().attr.size, 14, "it only grows");
    assert_eq!(read(8), "three\n");
    assert_eq!(read(2), "\n\n", "what is gone is empty lines");
    // By its name it is another file, without what is gone.
    let next = ops.lookup(desk, b"events").unwrap().attr;
    assert_ne!(next.node, node);
    assert_eq!(next.size, 10);
    let (whole, _) = ops.open(caller(7), next.node, libc::O_RDONLY).unwrap();
    assert_eq!(ops.read(caller(7), next.node, whole, 0, 100).unwrap(), "two\nthree\n");
    // Beyond the 32 bits that a node has for it.
    grow((1 << 32) + 2, b"last\n");
    assert_eq!(ops.attr(next.node, HandleId(0)).unwrap().attr.size, (1 << 32) + 2 - 4 + 5);
    let last = ops.read(caller(7), next.node, whole, (1 << 32) + 2 - 4, 100).unwrap();
    assert_eq!(last, "last\n");
}
