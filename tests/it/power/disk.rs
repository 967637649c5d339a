//! What a power cut may leave of a directory tree, by what POSIX promises and not by what some filesystem does.
//!
//! A file's data are certain once an `fsync` that began after the write has ended; before, each write may be
//! there, be missing, end anywhere or be zeros. An entry of a directory is certain once an `fsync` of that
//! directory has; before, each of the entries that the name has had since the last one may be there, or none
//! if there was none, whatever became of other names. So a file with a certain name may be empty, and a
//! renamed one have both names or neither.

use std::collections::{BTreeMap, HashMap};

use super::trace::{Event, Thread};
use crate::history::Dice;

/// A whole tree: path to content, `None` of directories.
pub(super) type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// What becomes of all that is not certain.
pub(super) enum Cut {
    /// Nothing of it is there.
    Loses,
    /// All of it is.
    Keeps,
    Random(Dice),
}

impl Cut {
    /// One of `count` states, from the oldest to the newest.
    fn pick(&mut self, count: usize) -> usize {
        match self {
            Cut::Loses => 0,
            Cut::Keeps => count - 1,
            Cut::Random(dice) => usize::try_from(dice.roll(count as u64)).unwrap(),
        }
    }
}

type Inode = usize;

/// Changes that are not certain, each with the time at which it was made.
enum Node {
    Directory { certain: BTreeMap<String, Inode>, since: Vec<(u64, String, Option<Inode>)> },
    File { certain: Vec<u8>, since: Vec<(u64, usize, Vec<u8>)> },
}

pub(super) struct Disk {
    nodes: Vec<Node>,
    positions: HashMap<String, usize>,
    removing: HashMap<Thread, (String, Option<Inode>)>,
    syncing: HashMap<Thread, (Inode, u64)>,
    now: u64,
}

impl Disk {
    /// An empty directory, which is certain.
    pub(super) fn new() -> Disk {
        let root = Node::Directory { certain: BTreeMap::new(), since: Vec::new() };
        Disk { nodes: vec![root], positions: HashMap::new(), removing: HashMap::new(), syncing: HashMap::new(), now: 0 }
    }

    /// Whether anything is different now.
    pub(super) fn apply(&mut self, event: &Event) -> bool {
        self.now += 1;
        match event {
            Event::MakeDirectory(path) => {
                self.nodes.push(Node::Directory { certain: BTreeMap::new(), since: Vec::new() });
                self.name(path, Some(self.nodes.len() - 1));
            }
            Event::MakeFile(path) => {
                self.nodes.push(Node::File { certain: Vec::new(), since: Vec::new() });
                self.name(path, Some(self.nodes.len() - 1));
                self.positions.insert(path.clone(), 0);
            }
            Event::Open(path) => {
                self.positions.insert(path.clone(), 0);
                return false;
            }
            Event::Seek(path, to) => {
                self.positions.insert(path.clone(), *to);
                return false;
            }
            Event::Write(path, bytes) => {
                let (inode, now) = (self.find(path).unwrap(), self.now);
                let position = self.positions.get_mut(path).unwrap();
                let Node::File { since, .. } = &mut self.nodes[inode] else { panic!("{path} is no file") };
                since.push((now, *position, bytes.clone()));
                *position += bytes.len();
            }
            Event::Link(from, to) => self.name(to, self.find(from)),
            Event::Rename(from, to) => {
                let inode = self.find(from);
                self.name(from, None);
                self.name(to, inode);
            }
            Event::RemoveBegins(thread, path) => {
                self.removing.insert(*thread, (path.clone(), self.find(path)));
                return false;
            }
            Event::RemoveEnds(thread) => {
                let (path, inode) = self.removing.remove(thread).unwrap();
                // Another thread may have made it anew before this one was seen to end.
                if self.find(&path) == inode {
                    self.name(&path, None);
                }
            }
            Event::SyncBegins(thread, path) => {
                let inode = self.find(path).unwrap_or_else(|| panic!("{path} is synced and does not exist"));
                self.syncing.insert(*thread, (inode, self.now));
                return false;
            }
            Event::SyncEnds(thread) => {
                let (inode, until) = self.syncing.remove(thread).unwrap();
                self.settle(inode, until);
            }
            Event::Told => return false,
        }
        true
    }

    /// Makes certain what was done to `inode` before `until`.
    fn settle(&mut self, inode: Inode, until: u64) {
        match &mut self.nodes[inode] {
            Node::Directory { certain, since } => {
                let behind = since.partition_point(|(at, ..)| *at < until);
                for (_, name, inode) in since.drain(..behind) {
                    match inode {
                        Some(inode) => certain.insert(name, inode),
                        None => certain.remove(&name),
                    };
                }
            }
            Node::File { certain, since } => {
                let behind = since.partition_point(|(at, ..)| *at < until);
                for (_, at, bytes) in since.drain(..behind) {
                    put(certain, at, &bytes);
                }
            }
        }
    }

    fn find(&self, path: &str) -> Option<Inode> {
        path.split('/').filter(|part| !part.is_empty()).try_fold(0, |at, part| {
            let Node::Directory { certain, since } = &self.nodes[at] else { return None };
            let last = since.iter().rev().find(|(_, name, _)| name == part);
            last.map_or_else(|| certain.get(part).copied(), |(_, _, inode)| *inode)
        })
    }

    fn name(&mut self, path: &str, inode: Option<Inode>) {
        let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
        let (above, now) = (self.find(above).unwrap_or_else(|| panic!("{path} is in no directory")), self.now);
        let Node::Directory { since, .. } = &mut self.nodes[above] else { panic!("{path} is in no directory") };
        since.push((now, last.to_owned(), inode));
    }

    /// The tree as a power cut leaves it now.
    pub(super) fn after(&self, cut: &mut Cut) -> Tree {
        let (mut tree, mut contents) = (Tree::new(), HashMap::new());
        self.walk(0, "", cut, &mut contents, &mut tree);
        tree
    }

    fn walk(&self, at: Inode, path: &str, cut: &mut Cut, contents: &mut HashMap<Inode, Vec<u8>>, tree: &mut Tree) {
        let Node::Directory { certain, since } = &self.nodes[at] else { return };
        let mut names: BTreeMap<&str, Vec<Option<Inode>>> =
            certain.iter().map(|(name, inode)| (name.as_str(), vec![Some(*inode)])).collect();
        for (_, name, inode) in since {
            names.entry(name).or_insert_with(|| vec![None]).push(*inode);
        }
        for (name, states) in names {
            let Some(inode) = states[cut.pick(states.len())] else { continue };
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            match &self.nodes[inode] {
                Node::Directory { .. } => {
                    tree.insert(path.clone(), None);
                    self.walk(inode, &path, cut, contents, tree);
                }
                Node::File { certain, since } => {
                    let content = contents.entry(inode).or_insert_with(|| content(certain, since, cut));
                    tree.insert(path, Some(content.clone()));
                }
            }
        }
    }
}

/// A file's content, of which the writes in `since` are not certain.
fn content(certain: &[u8], since: &[(u64, usize, Vec<u8>)], cut: &mut Cut) -> Vec<u8> {
    let mut content = certain.to_vec();
    for (_, at, bytes) in since {
        match cut.pick(4) {
            0 => {}
            1 => put(&mut content, *at, &vec![0; bytes.len()]),
            2 => {
                let length = cut.pick(bytes.len() + 1);
                put(&mut content, *at, &bytes[..length]);
            }
            _ => put(&mut content, *at, bytes),
        }
    }
    content
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The tree that `events` and a power cut leave.
fn left(events: &[Event], cut: &mut Cut) -> Vec<(String, Option<String>)> {
    let mut disk = Disk::new();
    for event in events {
        disk.apply(event);
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    disk.after(cut).into_iter().map(|(path, content)| (path, content.map(text))).collect()
}

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.to_owned(), Some(content.to_owned()))
}

#[test]
fn what_is_not_synced_is_lost_by_a_power_cut_and_what_is_stays() {
    let name = || "file".to_owned();
    let write = [Event::MakeFile(name()), Event::Write(name(), b"content".into())];
    let sync = |path: &str| [Event::SyncBegins(1, path.to_owned()), Event::SyncEnds(1)];
    assert_eq!(left(&write, &mut Cut::Loses), []);
    assert_eq!(left(&write, &mut Cut::Keeps), [file("file", "content")]);
    let only_directory = [&write[..], &sync("")].concat();
    assert_eq!(left(&only_directory, &mut Cut::Loses), [file("file", "")]);
    let only_file = [&write[..], &sync("file")].concat();
    assert_eq!(left(&only_file, &mut Cut::Loses), []);
    let both = [&write[..], &sync("file"), &sync("")].concat();
    assert_eq!(left(&both, &mut Cut::Loses), [file("file", "content")]);

    let linked = [&both[..], &[Event::Link(name(), "other".to_owned()), Event::RemoveBegins(1, name())]].concat();
    let linked = [&linked[..], &[Event::RemoveEnds(1)]].concat();
    assert_eq!(left(&linked, &mut Cut::Loses), [file("file", "content")]);
    assert_eq!(left(&linked, &mut Cut::Keeps), [file("other", "content")]);
    // A sync that began before the change says nothing about it.
    let too_early = [&[Event::SyncBegins(2, String::new())][..], &write, &sync("file"), &[Event::SyncEnds(2)]].concat();
    assert_eq!(left(&too_early, &mut Cut::Loses), []);
}

#[test]
fn a_power_cut_may_leave_any_mixture_of_what_is_not_certain() {
    let name = |name: &str| name.to_owned();
    let events = [
        Event::MakeFile(name("a")),
        Event::Write(name("a"), b"xy".into()),
        Event::SyncBegins(1, String::new()),
        Event::SyncEnds(1),
        Event::Rename(name("a"), name("b")),
    ];
    let trees: std::collections::BTreeSet<_> =
        (0..500).map(|seed| left(&events, &mut Cut::Random(Dice(seed)))).collect();
    let contents = ["", "x", "xy", "\0\0"];
    let one = contents.iter().flat_map(|content| [vec![file("a", content)], vec![file("b", content)]]);
    let both = contents.iter().map(|content| vec![file("a", content), file("b", content)]);
    assert_eq!(trees, one.chain(both).chain([Vec::new()]).collect());
}
