//! The point that a capture is compared with, as the walk needs it: directory by directory, in order.

use std::collections::HashMap;
use std::iter::Peekable;

use crate::base::Instant;
use crate::format::entry::{Body, Entry};
use crate::format::leaf::{Entries, Maps, Usage};
use crate::format::log::Roots;
use crate::format::{FileId, Key};
use crate::repo::tree::{Scan, Tree};
use crate::repo::{Reader, RepoError};

/// The parent's trees; empty ones for a full point.
#[derive(Debug)]
pub(super) struct Parent {
    /// When its capture began.
    pub(super) started: Instant,
    /// Names and inodes.
    pub(super) entries: Tree<Entries>,
    /// Chunk maps.
    pub(super) maps: Tree<Maps>,
    /// What refers to which frame.
    usage: Tree<Usage>,
}

impl Parent {
    /// The point with these roots, whose capture began at `started`; none is the empty point.
    pub(super) fn new(reader: &Reader, point: Option<(Roots, Instant)>) -> Parent {
        let roots = point.map(|(roots, _)| roots);
        Parent {
            started: point.map_or(Instant::from_nanos(i64::MIN), |(_, started)| started),
            entries: Tree::new(reader.clone(), roots.map(|roots| roots.entries)),
            maps: Tree::new(reader.clone(), roots.and_then(|roots| roots.maps)),
            usage: Tree::new(reader.clone(), roots.and_then(|roots| roots.usage)),
        }
    }

    /// Reads all of its trees, so that damage shows now and not when it is too late to do without them.
    ///
    /// # Errors
    /// As [`Parent::get`].
    pub(super) fn prove(&self) -> Result<(), RepoError> {
        self.entries.scan(0).try_for_each(|item| item.map(drop))?;
        self.maps.scan(0).try_for_each(|item| item.map(drop))?;
        self.usage.scan(0).try_for_each(|item| item.map(drop))
    }

    /// The entry under `key`.
    ///
    /// # Errors
    /// [`RepoError`] when it cannot be read.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Entry>, RepoError> {
        Ok(self.entries.get(key)?.map(|item| item.value().clone()))
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// As [`Parent::get`].
    pub(super) fn names(&self, directory: FileId) -> Result<OldNames, RepoError> {
        let scan = self.entries.scan_from(&Key::entry(directory, b""))?;
        Ok(OldNames { directory, scan: Some(scan.peekable()) })
    }

    /// The identities of its hard-linked inodes, by inode number.
    ///
    /// # Errors
    /// As [`Parent::get`].
    pub(super) fn inodes(&self) -> Result<HashMap<u64, FileId>, RepoError> {
        let mut inodes = HashMap::new();
        for item in self.entries.scan_from(&Key::entry(FileId::HARDLINKS, b""))? {
            let item = item?;
            // One with a problem has kept no number.
            if let Some(file) = inode_of(item.key()).filter(|_| item.value().meta.inode != 0) {
                inodes.entry(item.value().meta.inode).or_insert(file);
            }
        }
        Ok(inodes)
    }

    /// The identities of all its hard-linked inodes that are not in `but`.
    ///
    /// # Errors
    /// As [`Parent::get`].
    pub(super) fn inode_records(
        &self,
    ) -> Result<impl Iterator<Item = Result<(Key, FileId, Entry), RepoError>>, RepoError> {
        let scan = self.entries.scan_from(&Key::entry(FileId::HARDLINKS, b""))?;
        Ok(scan.filter_map(|item| match item {
            Ok(item) => inode_of(item.key()).map(|file| Ok((item.key().clone(), file, item.value().clone()))),
            Err(error) => Some(Err(error)),
        }))
    }
}

/// The inode whose record stands under `key`.
fn inode_of(key: &Key) -> Option<FileId> {
    let (directory, rest) = key.split().ok()?;
    let file: [u8; 8] = rest.try_into().ok()?;
    (directory == FileId::HARDLINKS).then_some(FileId(u64::from_be_bytes(file)))
}

/// The names in one directory of the parent, in order.
#[derive(Debug)]
pub(super) struct OldNames {
    directory: FileId,
    scan: Option<Peekable<Scan<Entries>>>,
}

impl OldNames {
    /// None: the parent has no such directory.
    pub(super) fn none() -> OldNames {
        OldNames { directory: FileId::TOP, scan: None }
    }

    /// The next entry whose key is below `bound`, or any of the directory.
    ///
    /// # Errors
    /// As [`Parent::get`].
    pub(super) fn next_below(&mut self, bound: Option<&Key>) -> Result<Option<(Key, Entry)>, RepoError> {
        let directory = self.directory;
        self.next_if(|key| key.split().is_ok_and(|(of, _)| of == directory) && bound.is_none_or(|bound| key < bound))
    }

    /// The next entry, if it is the one under `key`.
    ///
    /// # Errors
    /// As [`Parent::get`].
    pub(super) fn next_at(&mut self, key: &Key) -> Result<Option<Entry>, RepoError> {
        Ok(self.next_if(|next| next == key)?.map(|(_, entry)| entry))
    }

    fn next_if(&mut self, wanted: impl Fn(&Key) -> bool) -> Result<Option<(Key, Entry)>, RepoError> {
        let Some(scan) = &mut self.scan else { return Ok(None) };
        match scan.next_if(|item| item.as_ref().map_or(true, |item| wanted(item.key()))) {
            None => Ok(None),
            Some(item) => {
                let item = item?;
                Ok(Some((item.key().clone(), item.value().clone())))
            }
        }
    }
}

/// The identity of a directory's entry.
pub(super) fn directory_id(entry: &Entry) -> Option<FileId> {
    match &entry.body {
        Body::Directory { id, .. } => Some(*id),
        _ => None,
    }
}
