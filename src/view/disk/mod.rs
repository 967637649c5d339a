//! What a point of a disk shows beside `disk.raw`, all made of the same chunks while it is read.
//!
//! ```text
//!  disk.qcow2          the disk as a virtual machine's image
//!  map.json            which parts hold data, and which changed since the parent
//!  partitions/<n>.raw  the parts of it that its partition table names
//! ```
//!
//! Their ordinals stand behind those of the point's two entries, so their node ids are as stable as any content's.
//! No state is kept but the text of the map that was made last: what a request needs is a descent through cached
//! nodes. Facts and maps are whatever somebody wrote: what contradicts itself is an error, never another disk.

mod map;
mod partitions;
mod qcow2;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use self::partitions::{Partition, partitions};
use self::qcow2::{Clusters, Layout};
use crate::format::entry::{Body, Content};
use crate::format::log::{DISK_NAME, DiskFacts};
use crate::format::map::MapExtent;
use crate::format::{ChunkRef, EntryOrdinal};
use crate::view::inode::Inode;
use crate::view::namespace::{Attr, FileKind, NodeId, SeekTo, ViewError, WrongKind};
use crate::view::point::PointView;

/// Entries of a point of a disk: its directory and `disk.raw`. What is shown beside them is numbered from here on.
const ENTRIES: u64 = 2;

/// Something that a point of a disk shows beside what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// `disk.qcow2`.
    Qcow2,
    /// `map.json`.
    Map,
    /// `partitions`.
    Partitions,
    /// `partitions/<n>.raw`.
    Partition(u32),
}

impl Shown {
    /// What the point's directory shows beside its entries.
    pub(super) const ROOT: [(&str, Shown); 3] =
        [("disk.qcow2", Shown::Qcow2), ("map.json", Shown::Map), ("partitions", Shown::Partitions)];

    /// What `name` in the point's directory is, beside its entries.
    pub(super) fn in_root(name: &[u8]) -> Option<Shown> {
        Shown::ROOT.into_iter().find(|(shown, _)| shown.as_bytes() == name).map(|(_, shown)| shown)
    }

    /// What this ordinal of a point of a disk stands for; none for an entry.
    pub(super) fn at(ordinal: EntryOrdinal) -> Option<Shown> {
        Some(match ordinal.0.checked_sub(ENTRIES)? {
            0 => Shown::Qcow2,
            1 => Shown::Map,
            2 => Shown::Partitions,
            number => Shown::Partition(u32::try_from(number - 2).ok()?),
        })
    }

    /// Its ordinal.
    pub(super) fn ordinal(self) -> EntryOrdinal {
        EntryOrdinal(
            ENTRIES
                + match self {
                    Shown::Qcow2 => 0,
                    Shown::Map => 1,
                    Shown::Partitions => 2,
                    Shown::Partition(number) => 2 + u64::from(number),
                },
        )
    }
}

/// The shape of a disk as a qcow2 image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2Shape {
    /// Bytes of the image.
    pub bytes: u64,
    /// Where the disk's byte 0 stands in it; all before is tables.
    pub disk_start: u64,
}

/// The `map.json` that was made last: it is read piece by piece, and one piece costs a walk of all of the disk's map.
#[derive(Debug, Default)]
pub(super) struct LastMap(Mutex<Option<(String, Arc<String>)>>);

/// A point of a disk.
#[derive(Debug)]
pub struct DiskView {
    point: PointView,
    parent: Option<PointView>,
    facts: DiskFacts,
    raw: Inode,
    last_map: Arc<LastMap>,
}

impl DiskView {
    /// Whether `content` is what the map says of `extent`.
    pub fn is_chunk(&self, content: &[u8], extent: &MapExtent) -> bool {
        self.point.reader().repo().realm().chunk_hash(content).0.starts_with(&extent.hash)
    }

    /// The disk that `point` holds; `parent` is the point that it was compared with.
    ///
    /// # Errors
    /// [`ViewError`] when the point's trees cannot be read, or what they hold is not the disk of `facts`.
    pub fn new(point: PointView, parent: Option<PointView>, facts: &DiskFacts) -> Result<DiskView, ViewError> {
        let raw = point.walk([DISK_NAME.as_bytes()])?;
        let is_disk = matches!(raw.entry().body, Body::File(Content::Mapped { .. } | Content::Hole));
        if !is_disk || !facts.is_possible() || raw.entry().meta.size != facts.bytes {
            return Err(ViewError::contradiction("a point of a disk holds none, or another than it says"));
        }
        Ok(DiskView { point, parent, facts: facts.clone(), raw, last_map: Arc::default() })
    }

    /// The same, with the map that another view of a disk may have made already.
    pub(super) fn with_last_map(self, last_map: &Arc<LastMap>) -> DiskView {
        DiskView { last_map: Arc::clone(last_map), ..self }
    }

    /// Bytes of the disk.
    pub fn bytes(&self) -> u64 {
        self.raw.entry().meta.size
    }

    /// Bytes of the disk that are stored; all others are zeros.
    pub fn data_bytes(&self) -> u64 {
        self.raw.entry().data_bytes()
    }

    /// Hands over the disk's chunks in order, until `take` returns false.
    ///
    /// # Errors
    /// [`ViewError`] when its map cannot be read, and those of `take`.
    pub fn each_chunk<E: From<ViewError>>(&self, take: impl FnMut(&MapExtent) -> Result<bool, E>) -> Result<(), E> {
        self.point.each_mapped(&self.raw, take)
    }

    /// The frame that holds a chunk, decoded.
    ///
    /// # Errors
    /// As [`PointView::frame`].
    pub fn frame(&self, chunk: &ChunkRef) -> Result<Bytes, ViewError> {
        self.point.frame(chunk)
    }

    /// What tells it from every other disk of every repository.
    pub fn identity(&self) -> String {
        identity(&self.point)
    }

    /// The shape of the disk as a qcow2 image.
    pub fn qcow2_shape(&self) -> Qcow2Shape {
        let layout = self.layout();
        Qcow2Shape { bytes: layout.bytes(), disk_start: layout.disk_start() }
    }

    /// Up to `bytes` bytes of the disk as a qcow2 image, from `offset`; fewer only at its end.
    ///
    /// # Errors
    /// [`ViewError::Fault`] when a byte cannot be had.
    pub fn read_qcow2(&self, offset: u64, bytes: usize) -> Result<Bytes, ViewError> {
        self.read(Shown::Qcow2, offset, bytes)
    }

    /// Up to `bytes` bytes of the disk, from `offset`; fewer only at its end.
    ///
    /// # Errors
    /// [`ViewError::Fault`] when a byte cannot be had.
    pub fn read_raw(&self, offset: u64, bytes: usize) -> Result<Bytes, ViewError> {
        self.point.read(&self.raw, offset, bytes)
    }

    fn layout(&self) -> Layout {
        Layout::new(self.bytes(), u64::from(self.facts.chunk_bytes))
    }

    fn partitions(&self) -> Result<Vec<Partition>, ViewError> {
        let read = |at, bytes| self.point.read(&self.raw, at, bytes).map(Vec::from);
        partitions(self.bytes(), self.facts.sector_bytes, read)
    }

    fn partition(&self, number: u32) -> Result<Range<u64>, ViewError> {
        let found = self.partitions()?.into_iter().find(|partition| partition.number == number);
        found.map(|partition| partition.place).ok_or(ViewError::NotFound)
    }

    /// The point's directory.
    ///
    /// # Errors
    /// As [`PointView::root`].
    pub(super) fn root(&self) -> Result<Inode, ViewError> {
        self.point.root()
    }

    /// What is in `dir`, with its name.
    ///
    /// # Errors
    /// [`ViewError`] when it is no directory, or the disk's tables cannot be read.
    pub(super) fn list(&self, dir: Shown) -> Result<Vec<(String, Shown)>, ViewError> {
        match dir {
            Shown::Partitions => {
                let named = |partition: Partition| (format!("{}.raw", partition.number), partition.number);
                let all = self.partitions()?.into_iter().map(named);
                Ok(all.map(|(name, number)| (name, Shown::Partition(number))).collect())
            }
            Shown::Qcow2 | Shown::Map | Shown::Partition(_) => Err(ViewError::WrongKind(WrongKind::NotDirectory)),
        }
    }

    /// What `stat` says of it, under the node id `node`.
    ///
    /// # Errors
    /// [`ViewError`] when the disk's tables or map cannot be read; [`ViewError::NotFound`] for a partition that is none.
    pub(super) fn attr(&self, shown: Shown, node: NodeId) -> Result<Attr, ViewError> {
        let raw = self.raw.attr(node);
        let file = |size: u64, data: u64| Attr { size, blocks: data.div_ceil(512), ..raw };
        let data = self.raw.entry().data_bytes();
        Ok(match shown {
            Shown::Qcow2 => {
                let layout = self.layout();
                file(layout.bytes(), layout.disk_start() + data)
            }
            Shown::Map => {
                let size = self.map()?.len() as u64;
                file(size, size)
            }
            Shown::Partition(number) => {
                let place = self.partition(number)?;
                let size = place.end - place.start;
                // How much of the disk's data is this partition's would take a walk of its map: an upper bound will do.
                file(size, size.min(data))
            }
            Shown::Partitions => Attr {
                kind: FileKind::Directory,
                // Who may read the disk may look.
                permissions: raw.permissions | (raw.permissions & 0o444) >> 2,
                links: 2,
                size: 0,
                blocks: 0,
                ..raw
            },
        })
    }

    /// What a listing says of it: as [`DiskView::attr`], but it costs no map, whose damage or size must not
    /// weigh on the names beside it. Whether it is final.
    ///
    /// # Errors
    /// As [`DiskView::attr`].
    pub(super) fn listed(&self, shown: Shown, node: NodeId) -> Result<(Attr, bool), ViewError> {
        match shown {
            Shown::Map => Ok((Attr { size: 0, blocks: 0, ..self.raw.attr(node) }, false)),
            Shown::Qcow2 | Shown::Partitions | Shown::Partition(_) => Ok((self.attr(shown, node)?, true)),
        }
    }

    /// Up to `bytes` bytes of it from `offset`; fewer only at its end.
    ///
    /// # Errors
    /// [`ViewError::Fault`] when a byte cannot be had.
    pub(super) fn read(&self, shown: Shown, offset: u64, bytes: usize) -> Result<Bytes, ViewError> {
        let within = |size: u64| {
            let end = size.min(offset.saturating_add(bytes as u64));
            end.checked_sub(offset).and_then(|length| usize::try_from(length).ok()).unwrap_or(0)
        };
        match shown {
            Shown::Qcow2 => {
                let layout = self.layout();
                let mut buffer = vec![0; within(layout.bytes())];
                layout.read(offset, &mut buffer, self)?;
                Ok(buffer.into())
            }
            Shown::Map => {
                let text = self.map()?;
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                Ok(text
                    .as_bytes()
                    .get(start..start + within(text.len() as u64))
                    .map_or_else(Bytes::new, Bytes::copy_from_slice))
            }
            Shown::Partition(number) => {
                let place = self.partition(number)?;
                let length = within(place.end - place.start);
                self.point.read(&self.raw, place.start.saturating_add(offset), length)
            }
            Shown::Partitions => Err(ViewError::WrongKind(WrongKind::IsDirectory)),
        }
    }

    /// The first offset of data or hole at or behind `offset`.
    ///
    /// # Errors
    /// As [`PointView::seek`].
    pub(super) fn seek(&self, shown: Shown, offset: u64, to: SeekTo) -> Result<u64, ViewError> {
        let (shift, place) = match shown {
            Shown::Qcow2 => {
                let layout = self.layout();
                let (start, size) = (layout.disk_start(), layout.bytes());
                if offset < start {
                    // Tables are data; the disk may begin with some, too.
                    return match to {
                        SeekTo::Data => Ok(offset),
                        SeekTo::Hole if size == start => Ok(start),
                        SeekTo::Hole => self.seek(shown, start, to),
                    };
                }
                (start, 0..size - start)
            }
            Shown::Partition(number) => (0, self.partition(number)?),
            Shown::Map => {
                let size = self.map()?.len() as u64;
                return match to {
                    _ if offset >= size => Err(ViewError::NoSuchOffset),
                    SeekTo::Data => Ok(offset),
                    SeekTo::Hole => Ok(size),
                };
            }
            Shown::Partitions => return Err(ViewError::WrongKind(WrongKind::IsDirectory)),
        };
        let size = place.end - place.start;
        let asked = offset.checked_sub(shift).filter(|at| *at < size).ok_or(ViewError::NoSuchOffset)?;
        let found = match self.point.seek(&self.raw, place.start + asked, to) {
            // The last cluster of the image may reach behind the disk's end.
            Err(ViewError::NoSuchOffset) if to == SeekTo::Hole => place.start + asked,
            found => found?,
        };
        match found.checked_sub(place.start).filter(|at| *at < size) {
            Some(at) => Ok(at + shift),
            None if to == SeekTo::Hole => Ok(size + shift),
            None => Err(ViewError::NoSuchOffset),
        }
    }

    fn map(&self) -> Result<Arc<String>, ViewError> {
        let parent = self.parent.as_ref().map(identity).unwrap_or_default();
        let key = format!("{} {parent}", self.identity());
        let last = self.last_map.0.lock().clone();
        if let Some((_, text)) = last.filter(|(of, _)| *of == key) {
            return Ok(text);
        }
        let parent = match &self.parent {
            None => None,
            Some(parent) => Some((parent, parent.walk([DISK_NAME.as_bytes()])?)),
        };
        let parent = parent.as_ref().map(|(view, raw)| (*view, raw));
        let text = map::render((&self.point, &self.raw), parent, u64::from(self.facts.chunk_bytes))?;
        let text = Arc::new(text);
        *self.last_map.0.lock() = Some((key, Arc::clone(&text)));
        Ok(text)
    }
}

/// What tells a point's content from that of every other of every repository.
fn identity(point: &PointView) -> String {
    let reader = point.reader();
    let root = point.entries().root().map_or_else(String::new, |root| {
        format!("{}-{}-{}", root.frame.pack.session.random, root.frame.ordinal, root.frame.hash)
    });
    format!("{}-{}-{root}", reader.repo().id(), reader.source())
}

/// That a chunk is a cell of the grid, which all that is computed from the map goes by.
fn check_cell(offset: u64, chunk: &ChunkRef, cell: u64) -> Result<(), ViewError> {
    if offset.is_multiple_of(cell) && u64::from(chunk.bytes) <= cell {
        return Ok(());
    }
    Err(ViewError::contradiction("a chunk of a disk is not one of its cells"))
}

impl Clusters for DiskView {
    type Error = ViewError;

    fn data(&self, clusters: Range<u64>) -> Result<Vec<bool>, ViewError> {
        let cluster = u64::from(self.facts.chunk_bytes);
        let mut data = vec![false; usize::try_from(clusters.end - clusters.start).unwrap_or(0)];
        self.point.each_chunk_from::<ViewError>(&self.raw, clusters.start * cluster, |offset, chunk| {
            check_cell(offset, chunk, cluster)?;
            let number = (offset / cluster).checked_sub(clusters.start).and_then(|number| usize::try_from(number).ok());
            match number.and_then(|number| data.get_mut(number)) {
                Some(data) => {
                    *data = true;
                    Ok(true)
                }
                None => Ok(offset < clusters.start * cluster),
            }
        })?;
        Ok(data)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ViewError> {
        let known = self.point.read(&self.raw, offset, bytes.len())?;
        let (filled, rest) = bytes.split_at_mut(known.len().min(bytes.len()));
        filled.copy_from_slice(known.get(..filled.len()).unwrap_or_default());
        rest.fill(0);
        Ok(())
    }
}
