//! What must hold between the entries of a point, kept up from point to point.
//!
//! Every directory is named once and reached from the root, its children know it as their parent, every
//! name of a hard link has its inode's record and every record a name, every mapped file has its pages,
//! and the usage tree counts exactly the references of all leaves.
//!
//! Leaves are told and taken back in any order. What concerns one directory, link or map is kept as
//! sums under its identity, so memory follows their number and not that of entries; references are
//! summed over all as a hash under a random key, so that equal sums mean equal counts for every frame.
//! Only identities that a change concerned are looked at again.

use std::collections::{HashMap, HashSet};

use crate::format::entry::{Body, Content, Entry};
use crate::format::map::MapPage;
use crate::format::{ChunkRef, FileId, Key};

use super::compare::Side;

/// Contradictions that are told of one point.
const TOLD_MAX: usize = 16;

/// A directory; zero throughout when nothing knows it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Directory {
    /// Entries that are this directory.
    named: i64,
    /// Sum of the hashes of those entries' keys.
    place: u64,
    /// Sum of the identities of the directories that hold them.
    above: u64,
    /// Entries in it.
    items: i64,
    /// Directories in it.
    children: i64,
    /// Sum of the hashes of what they say is this directory's key.
    said: u64,
}

/// An inode with several names.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Linked {
    names: i64,
    records: i64,
}

/// A file with a chunk map.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Mapped {
    files: i64,
    pages: i64,
    /// Bytes that the file's entry says its map covers, and those that it covers.
    promised: u64,
    covered: u64,
}

/// A multiset of references, as a sum.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    hash: u128,
    count: u64,
}

impl Sum {
    fn add(&mut self, side: Side, hash: u128, count: u64) {
        let total = hash.wrapping_mul(u128::from(count));
        match side {
            Side::New => {
                self.hash = self.hash.wrapping_add(total);
                self.count = self.count.wrapping_add(count);
            }
            Side::Old => {
                self.hash = self.hash.wrapping_sub(total);
                self.count = self.count.wrapping_sub(count);
            }
        }
    }
}

/// The rules of one chain's points, at one of them.
#[derive(Debug)]
pub(super) struct Rules {
    key: [u8; 32],
    directories: HashMap<FileId, Directory>,
    links: HashMap<FileId, Linked>,
    maps: HashMap<FileId, Mapped>,
    references: Sum,
    usage: Sum,
    touched_directories: HashSet<FileId>,
    touched_links: HashSet<FileId>,
    touched_maps: HashSet<FileId>,
    /// No identity that is in use is larger.
    largest: FileId,
}

fn sign(side: Side) -> i64 {
    match side {
        Side::New => 1,
        Side::Old => -1,
    }
}

/// Adds to a sum, or takes away from it.
fn tally(sum: &mut u64, side: Side, value: u64) {
    *sum = match side {
        Side::New => sum.wrapping_add(value),
        Side::Old => sum.wrapping_sub(value),
    };
}

impl Rules {
    /// The rules of no point; `key` is random.
    pub(super) fn new(key: [u8; 32]) -> Rules {
        Rules {
            key,
            directories: HashMap::new(),
            links: HashMap::new(),
            maps: HashMap::new(),
            references: Sum::default(),
            usage: Sum::default(),
            touched_directories: HashSet::new(),
            touched_links: HashSet::new(),
            touched_maps: HashSet::new(),
            largest: FileId::TOP,
        }
    }

    fn hash(&self, key: &Key) -> u128 {
        let hash = blake3::keyed_hash(&self.key, &key.0);
        let (first, _) = hash.as_bytes().split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        u128::from_le_bytes(*first)
    }

    fn short_hash(&self, key: &Key) -> u64 {
        (self.hash(key) & u128::from(u64::MAX)) as u64
    }

    fn directory(&mut self, id: FileId) -> &mut Directory {
        self.touched_directories.insert(id);
        self.directories.entry(id).or_default()
    }

    fn link(&mut self, id: FileId) -> &mut Linked {
        self.touched_links.insert(id);
        self.links.entry(id).or_default()
    }

    fn map(&mut self, id: FileId) -> &mut Mapped {
        self.touched_maps.insert(id);
        self.maps.entry(id).or_default()
    }

    /// Takes in an entry, or takes it back; keys have been checked by the decoder.
    pub(super) fn entry(&mut self, side: Side, key: &Key, entry: &Entry) {
        let Ok((directory, name)) = key.split() else { return };
        if directory == FileId::HARDLINKS {
            let id: [u8; 8] = name.try_into().unwrap_or_default();
            let id = FileId(u64::from_be_bytes(id));
            self.seen(side, id);
            self.link(id).records += sign(side);
        } else {
            self.directory(directory).items += sign(side);
        }
        match &entry.body {
            Body::Directory { id, parent } => {
                let (place, said) = (self.short_hash(key), self.short_hash(parent));
                self.seen(side, *id);
                let own = self.directory(*id);
                own.named += sign(side);
                tally(&mut own.place, side, place);
                tally(&mut own.above, side, directory.0);
                let above = self.directory(directory);
                above.children += sign(side);
                tally(&mut above.said, side, said);
            }
            Body::Link(id) => self.link(*id).names += sign(side),
            Body::File(Content::Mapped { id, data_bytes }) => {
                self.seen(side, *id);
                let map = self.map(*id);
                map.files += sign(side);
                tally(&mut map.promised, side, *data_bytes);
            }
            Body::File(Content::Extents(extents)) => {
                for extent in extents {
                    self.reference(side, &extent.chunk);
                }
            }
            Body::File(Content::Hole | Content::Inline(_))
            | Body::Symlink(_)
            | Body::BlockDevice(..)
            | Body::CharDevice(..)
            | Body::Fifo
            | Body::Socket => {}
        }
    }

    /// Takes in a page of a map, or takes it back.
    pub(super) fn page(&mut self, side: Side, key: &Key, page: &MapPage) {
        let Ok((file, _)) = key.split_page() else { return };
        let bytes = page.extents.iter().map(|extent| u64::from(extent.chunk.bytes)).fold(0, u64::wrapping_add);
        let map = self.map(file);
        map.pages += sign(side);
        tally(&mut map.covered, side, bytes);
        for extent in &page.extents {
            self.reference(side, &extent.chunk);
        }
    }

    /// Takes in a count of the usage tree, or takes it back.
    pub(super) fn usage(&mut self, side: Side, key: &Key, count: u64) {
        let hash = self.hash(key);
        self.usage.add(side, hash, count);
    }

    fn reference(&mut self, side: Side, chunk: &ChunkRef) {
        let hash = self.hash(&Key::usage(chunk.frame.pack, chunk.frame.ordinal));
        self.references.add(side, hash, 1);
    }

    fn seen(&mut self, side: Side, id: FileId) {
        if side == Side::New && id != FileId::HARDLINKS {
            self.largest = self.largest.max(id);
        }
    }

    /// What does not hold of the point that all leaves make together, in words. To be asked only when
    /// every leaf could be read; otherwise what was touched is remembered until then.
    pub(super) fn broken(&mut self, next_file: FileId) -> Vec<String> {
        let mut broken = Vec::new();
        if self.references != self.usage {
            broken.push(format!(
                "its usage tree counts {} references, its files make {}, or they are to other frames",
                self.usage.count, self.references.count
            ));
        }
        if self.largest >= next_file {
            // Points of another branch may have used more; what counts is what this one uses.
            self.largest = self.in_use();
        }
        if self.largest >= next_file {
            broken.push(format!(
                "it uses identity {}, its commit says that {next_file} is the first unused",
                self.largest
            ));
        }
        // What is broken stays so until something about it changes: it is told of every point that has it.
        let directories = std::mem::take(&mut self.touched_directories);
        for id in directories {
            if let Err(what) = self.check_directory(id) {
                self.touched_directories.insert(id);
                broken.push(what);
            }
        }
        for id in std::mem::take(&mut self.touched_links) {
            match self.links.get(&id).copied().unwrap_or_default() {
                Linked { names: 0, records: 0 } => drop(self.links.remove(&id)),
                Linked { names, records: 1 } if names > 0 => {}
                Linked { names, records } => {
                    self.touched_links.insert(id);
                    broken.push(format!("inode {id} has {names} names and {records} records"));
                }
            }
        }
        for id in std::mem::take(&mut self.touched_maps) {
            match self.maps.get(&id).copied().unwrap_or_default() {
                map if map == Mapped::default() => drop(self.maps.remove(&id)),
                Mapped { files: 1, pages, promised, covered } if pages > 0 && promised == covered => {}
                Mapped { files, pages, promised, covered } => {
                    self.touched_maps.insert(id);
                    broken.push(format!(
                        "map {id} belongs to {files} files and has {pages} pages, of {covered} bytes where {promised} \
                         are recorded"
                    ));
                }
            }
        }
        broken.sort();
        broken.truncate(TOLD_MAX);
        broken
    }

    /// The largest identity that anything has now.
    fn in_use(&self) -> FileId {
        let directories = self.directories.iter().filter(|(_, directory)| directory.named > 0).map(|(id, _)| id);
        let links = self.links.iter().filter(|(_, link)| link.records > 0).map(|(id, _)| id);
        let maps = self.maps.iter().filter(|(_, map)| map.files > 0).map(|(id, _)| id);
        let used = directories.chain(links).chain(maps).filter(|id| **id != FileId::HARDLINKS);
        used.max().copied().unwrap_or(FileId::TOP)
    }

    fn check_directory(&mut self, id: FileId) -> Result<(), String> {
        let Some(directory) = self.directories.get(&id).copied() else { return Ok(()) };
        if directory == Directory::default() {
            self.directories.remove(&id);
            return Ok(());
        }
        if id == FileId::TOP {
            let one_root = directory.items == 1 && directory.children == 1;
            return if one_root { Ok(()) } else { Err(format!("it has {} roots", directory.items)) };
        }
        if directory.named != 1 {
            return Err(format!("directory {id} with {} entries has {} names", directory.items, directory.named));
        }
        if directory.said != directory.place.wrapping_mul(directory.children.cast_unsigned()) {
            return Err(format!("not all directories in directory {id} know it as their parent"));
        }
        // Up to the root; a step for each directory there is, and it is a circle.
        let mut at = id;
        for _ in 0..=self.directories.len() {
            if at == FileId::ROOT {
                let root = self.short_hash(&Key::root());
                let stands = self.directories.get(&at).is_some_and(|root_of| root_of.place == root);
                return if stands { Ok(()) } else { Err("its root directory stands elsewhere".to_owned()) };
            }
            match self.directories.get(&at) {
                Some(directory) if directory.named == 1 => at = FileId(directory.above),
                Some(_) | None => break,
            }
        }
        Err(format!("directory {id} cannot be reached from the root"))
    }
}
