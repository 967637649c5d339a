//! A tree in memory with one of everything, and a desk that knows one source.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use amberfs::base::{Class, Classed, FileTime, Instant};
use amberfs::job::control::{Caller, Content, Control, DeskFile, JobFile, JobId, Reason, Refusal};
use amberfs::view::namespace::{Attr, DirEntry, FileKind, Found, Namespace, NodeId, SeekTo, ViewError, WrongKind};

/// Files in `tree/many`.
pub(crate) const MANY: u64 = 3000;
/// Files in `trouble/hangs` whose contents hang, each by itself: the kernel asks once for what several wait for.
pub(crate) const HANGS: u64 = 100;
/// Size of `tree/sparse`, whose data are two blocks of 4 KiB: at 0 and in the middle.
pub(crate) const SPARSE: u64 = 8 << 20;

#[derive(Clone)]
struct Node {
    attr: Attr,
    data: Vec<u8>,
    children: Vec<(Vec<u8>, NodeId)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    parent: NodeId,
}

/// See the head of this file.
pub(crate) struct ToyTree {
    nodes: HashMap<NodeId, Node>,
    /// `count` has another content each time its name is asked for.
    asked: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
#[error("pack 7 of chain 2 {0}")]
struct Damage(&'static str, Class);

impl Classed for Damage {
    fn class(&self) -> Class {
        self.1
    }
}

const COUNT: u64 = NodeId::GENERATED | 1 << 32;

/// Threads that hang, as `metrics` tells.
static HANGING: AtomicU64 = AtomicU64::new(0);

fn hang() -> ! {
    HANGING.fetch_add(1, Ordering::SeqCst);
    loop {
        std::thread::park();
    }
}

struct Builder {
    nodes: HashMap<NodeId, Node>,
    next: u64,
}

impl Builder {
    fn add(&mut self, parent: NodeId, name: &[u8], kind: FileKind, permissions: u16, data: &[u8]) -> NodeId {
        self.next += 1;
        let generated = parent == NodeId::ROOT && kind != FileKind::Directory;
        let node = NodeId(if generated { NodeId::GENERATED } else { 1 << 52 | 1 << 32 } | self.next);
        let mut attr = plain(node, kind, permissions);
        attr.size = data.len() as u64;
        attr.blocks = attr.size.div_ceil(4096) * 8;
        let xattrs = BTreeMap::new();
        self.nodes.insert(node, Node { attr, data: data.to_vec(), children: Vec::new(), xattrs, parent });
        self.nodes.get_mut(&parent).unwrap().children.push((name.to_vec(), node));
        node
    }
}

fn plain(node: NodeId, kind: FileKind, permissions: u16) -> Attr {
    let time = FileTime { seconds: 1_600_000_000, nanos: 123_456_789 };
    let links = if kind == FileKind::Directory { 2 } else { 1 };
    Attr {
        node,
        kind,
        permissions,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        links,
        device: (0, 0),
        mtime: time,
        atime: time,
        ctime: time,
    }
}

impl ToyTree {
    pub(crate) fn new() -> ToyTree {
        let root = Node {
            attr: plain(NodeId::ROOT, FileKind::Directory, 0o755),
            data: Vec::new(),
            children: Vec::new(),
            xattrs: BTreeMap::new(),
            parent: NodeId::ROOT,
        };
        let mut build = Builder { nodes: HashMap::from([(NodeId::ROOT, root)]), next: 1 };
        let tree = build.add(NodeId::ROOT, b"tree", FileKind::Directory, 0o755, b"");
        let hello = build.add(tree, b"hello", FileKind::Regular, 0o644, b"hello\n");
        let node = build.nodes.get_mut(&hello).unwrap();
        node.attr.mtime = FileTime { seconds: -2, nanos: 500_000_000 };
        (node.attr.uid, node.attr.gid) = (1234, 5678);
        node.xattrs.insert(b"user.empty".to_vec(), Vec::new());
        node.xattrs.insert(b"user.comment".to_vec(), b"a\0b".to_vec());
        // Owner rw, user 65534 r, group r, mask r, other nothing; see acl(5) and linux/posix_acl_xattr.h.
        let acl = build.add(tree, b"acl", FileKind::Regular, 0o640, b"for one user\n");
        let entries: [(u16, u16, u32); 5] =
            [(1, 6, u32::MAX), (2, 4, 65534), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        build.nodes.get_mut(&acl).unwrap().xattrs.insert(b"system.posix_acl_access".to_vec(), bytes);
        let sparse = build.add(tree, b"sparse", FileKind::Regular, 0o644, b"");
        let node = build.nodes.get_mut(&sparse).unwrap();
        (node.attr.size, node.attr.blocks) = (SPARSE, 16);
        build.add(tree, b"secret", FileKind::Regular, 0o600, b"only root\n");
        build.add(tree, b"script", FileKind::Regular, 0o755, b"#!/bin/sh\necho ran\n");
        build.add(tree, b"link", FileKind::Symlink, 0o777, b"hello");
        build.add(tree, b"pipe", FileKind::Fifo, 0o644, b"");
        build.add(tree, b"\xff\xfe", FileKind::Regular, 0o644, b"no UTF-8\n");
        let null = build.add(tree, b"null", FileKind::CharDevice, 0o666, b"");
        build.nodes.get_mut(&null).unwrap().attr.device = (259, 0x1_2345);
        let many = build.add(tree, b"many", FileKind::Directory, 0o755, b"");
        for at in 0..MANY {
            build.add(many, format!("file-{at:05}").as_bytes(), FileKind::Regular, 0o644, b"x");
        }
        let trouble = build.add(NodeId::ROOT, b"trouble", FileKind::Directory, 0o755, b"");
        for name in ["hang", "panic", "damaged", "lost"] {
            build.add(trouble, name.as_bytes(), FileKind::Regular, 0o644, &[b'x'; 4096]);
        }
        let hangs = build.add(trouble, b"hangs", FileKind::Directory, 0o755, b"");
        for at in 0..HANGS {
            build.add(hangs, format!("hang-{at}").as_bytes(), FileKind::Regular, 0o644, &[b'x'; 4096]);
        }
        build.add(NodeId::ROOT, b"latest", FileKind::Symlink, 0o777, b"tree");
        build.add(NodeId::ROOT, b"info.json", FileKind::Regular, 0o444, b"{\"points\": 1}\n");
        ToyTree { nodes: build.nodes, asked: AtomicU64::new(0) }
    }

    fn node(&self, node: NodeId) -> Result<&Node, ViewError> {
        self.nodes.get(&node).ok_or(ViewError::NotFound)
    }

    fn found(node: &Node) -> Found {
        Found { attr: node.attr, immutable: node.attr.node.is_content() && node.parent != NodeId::ROOT }
    }

    fn name(&self, node: NodeId) -> &[u8] {
        let parent = &self.nodes[&self.nodes[&node].parent];
        parent.children.iter().find(|(_, child)| *child == node).map_or(b"", |(name, _)| name)
    }

    fn count(version: u64) -> Found {
        let mut attr = plain(NodeId(COUNT | version), FileKind::Regular, 0o444);
        attr.size = version.to_string().len() as u64;
        Found { attr, immutable: false }
    }
}

fn counted(node: NodeId) -> Option<u64> {
    (node.0 & !0xFFFF_FFFF == COUNT).then_some(node.0 & 0xFFFF_FFFF)
}

impl Namespace for ToyTree {
    fn attr(&self, node: NodeId) -> Result<Found, ViewError> {
        match counted(node) {
            Some(version) => Ok(Self::count(version)),
            None => Ok(Self::found(self.node(node)?)),
        }
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Found, ViewError> {
        let node = self.node(dir)?;
        if node.attr.kind != FileKind::Directory {
            return Err(ViewError::WrongKind(WrongKind::NotDirectory));
        }
        match name {
            b"count" if dir == NodeId::ROOT => return Ok(Self::count(self.asked.fetch_add(1, Ordering::SeqCst))),
            name if name.starts_with(b"hang-name") => hang(),
            b"panic-name" => panic!("a name that panics"),
            b"lost-name" => {
                return Err(ViewError::fault("read node 5 of tree/lost-name", Damage("is gone", Class::NotFound)));
            }
            _ => {}
        }
        let found = node.children.iter().find(|(child, _)| child == name).ok_or(ViewError::NotFound)?;
        self.attr(found.1)
    }

    fn read_dir(&self, dir: NodeId, after: u64, take: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), ViewError> {
        let node = self.node(dir)?;
        for (at, (name, child)) in node.children.iter().enumerate().skip(after as usize) {
            let found = Ok(self.attr(*child)?);
            if !take(DirEntry { name: name.clone(), next: at as u64 + 1, found }) {
                break;
            }
        }
        Ok(())
    }

    fn parent(&self, dir: NodeId) -> Result<NodeId, ViewError> {
        Ok(self.node(dir)?.parent)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>, ViewError> {
        let node = self.node(node)?;
        if node.attr.kind == FileKind::Symlink {
            Ok(node.data.clone())
        } else {
            Err(ViewError::WrongKind(WrongKind::NotSymlink))
        }
    }

    fn read(&self, node: NodeId, offset: u64, bytes: usize) -> Result<Bytes, ViewError> {
        if let Some(version) = counted(node) {
            return Ok(version.to_string().into());
        }
        let found = self.node(node)?;
        match self.name(node) {
            name if name.starts_with(b"hang") => hang(),
            b"panic" => panic!("a read that panics"),
            b"damaged" => {
                return Err(ViewError::fault("read frame 3 of trouble/damaged", Damage("is damaged", Class::Corrupt)));
            }
            b"lost" => {
                return Err(ViewError::fault("read frame 4 of trouble/lost", Damage("is gone", Class::NotFound)));
            }
            _ => {}
        }
        let end = found.attr.size.min(offset.saturating_add(bytes as u64));
        if found.attr.size == SPARSE {
            let letter = |at: u64| {
                if at < 4096 {
                    b'a'
                } else if (SPARSE / 2..SPARSE / 2 + 4096).contains(&at) {
                    b'b'
                } else {
                    0
                }
            };
            return Ok((offset.min(end)..end).map(letter).collect());
        }
        Ok(Bytes::copy_from_slice(&found.data[offset.min(end) as usize..end as usize]))
    }

    fn seek(&self, node: NodeId, offset: u64, to: SeekTo) -> Result<u64, ViewError> {
        let size = self.node(node)?.attr.size;
        if offset >= size {
            return Err(ViewError::NoSuchOffset);
        }
        let data: Vec<(u64, u64)> =
            if size == SPARSE { vec![(0, 4096), (SPARSE / 2, SPARSE / 2 + 4096)] } else { vec![(0, size)] };
        match to {
            SeekTo::Data => data
                .iter()
                .find(|(_, end)| offset < *end)
                .map(|(start, _)| offset.max(*start))
                .ok_or(ViewError::NoSuchOffset),
            SeekTo::Hole => {
                Ok(data.iter().find(|(start, end)| (*start..*end).contains(&offset)).map_or(offset, |(_, end)| *end))
            }
        }
    }

    fn xattr_names(&self, node: NodeId) -> Result<Vec<Vec<u8>>, ViewError> {
        Ok(self.node(node)?.xattrs.keys().cloned().collect())
    }

    fn xattr(&self, node: NodeId, name: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        Ok(self.node(node)?.xattrs.get(name).cloned())
    }
}

/// A desk that captures the source `home` and nothing else.
pub(crate) struct ToyControl {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    replies: HashMap<u32, Vec<u8>>,
    events: Vec<u8>,
    errors: Vec<u8>,
    jobs: Vec<(JobId, &'static str)>,
    version: u64,
    asked: u64,
}

impl ToyControl {
    pub(crate) fn new() -> ToyControl {
        ToyControl { state: Mutex::default() }
    }
}

fn content(version: u64, bytes: Vec<u8>) -> Content {
    Content { version, bytes: bytes.into(), gone: 0, changed: Instant::from_nanos(1_700_000_000_000_000_000) }
}

impl Control for ToyControl {
    fn submit(&self, caller: Caller, batch: &[u8]) -> Result<(), Refusal> {
        let mut state = self.state.lock().unwrap();
        let text = String::from_utf8_lossy(batch).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let refusal = lines.iter().find_map(|line| {
            let refuse = |reason, message: &str| Some(Refusal { reason, message: message.to_owned() });
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                _ if line.len() > 4095 => refuse(Reason::TooLong, "a line is too long"),
                ["capture", "home", ..] => None,
                ["capture", "busy", ..] => refuse(Reason::Busy, "busy is being captured"),
                ["capture", other, ..] => {
                    refuse(Reason::NoSuch, &format!("no source \"{other}\"; did you mean \"home\"?"))
                }
                _ => refuse(Reason::Syntax, &format!("\"{line}\" means nothing")),
            }
        });
        let reply = match &refusal {
            Some(refusal) => format!("{}\n", refusal.message),
            None => format!("accepted {} for {}\n", lines.len(), caller.uid),
        };
        state.replies.insert(caller.uid, reply.into_bytes());
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        for line in lines {
            let job = line.split("job=").nth(1).map_or_else(|| format!("j{}", state.jobs.len()), str::to_owned);
            state.events.extend(format!("{{\"line\": \"{line}\"}}\n").bytes());
            state.jobs.push((JobId(job), "committed\n"));
            state.version += 1;
        }
        Ok(())
    }

    fn reply(&self, caller: Caller) -> Vec<u8> {
        self.state.lock().unwrap().replies.get(&caller.uid).cloned().unwrap_or_default()
    }

    fn permits(&self, caller: Caller) -> bool {
        caller.uid == 0 || caller.uid == own_uid()
    }

    fn file(&self, file: DeskFile) -> Content {
        let mut state = self.state.lock().unwrap();
        match file {
            DeskFile::Help => content(0, b"capture home\n".to_vec()),
            DeskFile::Status => content(state.version, format!("{{\"jobs\": {}}}\n", state.jobs.len()).into_bytes()),
            DeskFile::Events => content(state.version, state.events.clone()),
            DeskFile::Metrics => {
                state.asked += 1;
                content(
                    state.asked,
                    format!("asked {}\nhanging {}\n", state.asked, HANGING.load(Ordering::SeqCst)).into_bytes(),
                )
            }
            DeskFile::Errors => content(0, state.errors.clone()),
        }
    }

    fn jobs(&self) -> Vec<JobId> {
        self.state.lock().unwrap().jobs.iter().map(|(job, _)| job.clone()).collect()
    }

    fn job_file(&self, job: &JobId, file: JobFile) -> Option<Content> {
        let state = self.state.lock().unwrap();
        let (_, word) = state.jobs.iter().find(|(id, _)| id == job)?;
        Some(content(
            1,
            match file {
                JobFile::State => word.as_bytes().to_vec(),
                JobFile::Result => b"2026-11-20T12-00-00Z\n".to_vec(),
                JobFile::Progress | JobFile::Log | JobFile::Error => Vec::new(),
            },
        ))
    }

    fn fault(&self, node: u64, message: &str) {
        self.state.lock().unwrap().errors.extend(format!("{node} {message}\n").bytes());
    }
}

/// The user of this process, by the owner of what the kernel shows of it.
fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(u32::MAX, |metadata| metadata.uid())
}
