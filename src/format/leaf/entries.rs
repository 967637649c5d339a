//! Leaves of the entries tree: names with their metadata and where their content is.
//!
//! Common columns first; what only some kinds have (targets, extents, small contents, attributes)
//! follows in columns of its own. Times are kept as differences from the entry before, change and
//! access times from the entry's own modification time, because those are mostly small.

use std::collections::HashMap;

use bincode::{Decode, Encode};

use crate::base::{FileTime, limits};
use crate::format::codec;
use crate::format::entry::{Body, Content, Entry, Extent, Meta, Xattr};
use crate::format::error::{FormatError, malformed};
use crate::format::frame::FrameKind;
use crate::format::ids::{ChunkRef, FileId, FrameRef};
use crate::format::key::Key;
use crate::format::node::{FrameColumns, KeyColumn, TreeKind};

/// The entries tree: [`Key::entry`] and [`Key::inode`] to [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entries;

const WHAT: &str = "entries node";

/// Finds a frame's place in a leaf's table, adding it at first use.
#[derive(Default)]
pub(super) struct FrameTable {
    seen: HashMap<FrameRef, u32>,
}

impl FrameTable {
    pub(super) fn index(&mut self, frame: &FrameRef, columns: &mut FrameColumns) -> u32 {
        let next = u32::try_from(self.seen.len()).unwrap_or(u32::MAX);
        *self.seen.entry(*frame).or_insert_with(|| {
            columns.push(frame);
            next
        })
    }
}

/// A chunk that lies within its frame.
pub(super) fn chunk(what: &'static str, frame: &FrameRef, start: u32, bytes: u32) -> Result<ChunkRef, FormatError> {
    match start.checked_add(bytes) {
        Some(end) if end <= frame.raw_bytes && bytes > 0 => Ok(ChunkRef { frame: *frame, start, bytes }),
        Some(_) | None => Err(malformed(what, "a chunk lies outside its frame")),
    }
}

/// Byte strings by length and bytes.
#[derive(Debug, Default, Encode, Decode)]
struct Strings {
    lengths: Vec<u32>,
    bytes: Vec<u8>,
}

impl Strings {
    fn push(&mut self, string: &[u8]) {
        self.lengths.push(u32::try_from(string.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(string);
    }
}

/// Takes rows out of columns one after the other, refusing when one runs dry.
struct Take<'a, T>(&'a [T]);

impl<'a, T: Copy> Take<'a, T> {
    fn next(&mut self) -> Result<T, FormatError> {
        let (first, rest) = self.0.split_first().ok_or_else(|| malformed(WHAT, "a column is too short"))?;
        self.0 = rest;
        Ok(*first)
    }

    fn end(&self) -> Result<(), FormatError> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed(WHAT, "a column is too long")) }
    }
}

struct TakeStrings<'a> {
    lengths: Take<'a, u32>,
    bytes: &'a [u8],
}

impl<'a> TakeStrings<'a> {
    fn of(strings: &'a Strings) -> TakeStrings<'a> {
        TakeStrings { lengths: Take(&strings.lengths), bytes: &strings.bytes }
    }

    fn next(&mut self) -> Result<&'a [u8], FormatError> {
        let length = self.lengths.next()? as usize;
        let (string, rest) =
            self.bytes.split_at_checked(length).ok_or_else(|| malformed(WHAT, "string bytes are missing"))?;
        self.bytes = rest;
        Ok(string)
    }

    fn end(&self) -> Result<(), FormatError> {
        self.lengths.end()?;
        if self.bytes.is_empty() { Ok(()) } else { Err(malformed(WHAT, "string bytes are left over")) }
    }
}

/// Times: seconds as differences from a reference, nanoseconds as they are.
#[derive(Debug, Default, Encode, Decode)]
struct Times {
    seconds: Vec<i64>,
    nanos: Vec<u32>,
}

impl Times {
    fn push(&mut self, time: FileTime, reference: i64) {
        self.seconds.push(time.seconds.wrapping_sub(reference));
        self.nanos.push(time.nanos);
    }
}

struct TakeTimes<'a>(Take<'a, i64>, Take<'a, u32>);

impl<'a> TakeTimes<'a> {
    fn of(times: &'a Times) -> TakeTimes<'a> {
        TakeTimes(Take(&times.seconds), Take(&times.nanos))
    }

    fn next(&mut self, reference: i64) -> Result<FileTime, FormatError> {
        let time = FileTime { seconds: reference.wrapping_add(self.0.next()?), nanos: self.1.next()? };
        if time.nanos < 1_000_000_000 { Ok(time) } else { Err(malformed(WHAT, "a time has too many nanoseconds")) }
    }

    fn end(&self) -> Result<(), FormatError> {
        self.0.end()?;
        self.1.end()
    }
}

#[derive(Debug, Default, Encode, Decode)]
struct Columns {
    keys: KeyColumn,
    kind: Vec<u8>,
    // Of every entry but links:
    permissions: Vec<u16>,
    uid: Vec<u32>,
    gid: Vec<u32>,
    size: Vec<u64>,
    mtime: Times,
    ctime: Times,
    atime: Times,
    has_btime: Vec<u8>,
    btime: Times,
    links: Vec<u32>,
    inode: Vec<i64>,
    xattrs: Vec<u16>,
    // By kind:
    file_ids: Vec<u64>,
    directory_parent: Vec<u32>,
    parents: Vec<Key>,
    targets: Strings,
    devices: Vec<(u32, u32)>,
    inline: Strings,
    data_bytes: Vec<u64>,
    extents: Vec<u8>,
    extent_gap: Vec<u64>,
    extent_frame: Vec<i64>,
    extent_start: Vec<i64>,
    extent_bytes: Vec<u32>,
    frames: FrameColumns,
    xattr_names: Strings,
    xattr_values: Strings,
}

mod kind {
    pub(super) const DIRECTORY: u8 = 0;
    pub(super) const HOLE: u8 = 1;
    pub(super) const INLINE: u8 = 2;
    pub(super) const EXTENTS: u8 = 3;
    pub(super) const MAPPED: u8 = 4;
    pub(super) const SYMLINK: u8 = 5;
    pub(super) const BLOCK_DEVICE: u8 = 6;
    pub(super) const CHAR_DEVICE: u8 = 7;
    pub(super) const FIFO: u8 = 8;
    pub(super) const SOCKET: u8 = 9;
    pub(super) const LINK: u8 = 10;
}

impl TreeKind for Entries {
    type Value = Entry;
    const FRAME: FrameKind = FrameKind::Entries;
    const WHAT: &'static str = WHAT;
    const HAS_PARTS: bool = true;

    fn weight(key: &Key, entry: &Entry) -> usize {
        let body = match &entry.body {
            Body::Directory { .. } => 12,
            Body::File(Content::Hole) => 0,
            Body::File(Content::Inline(bytes)) => bytes.len(),
            Body::File(Content::Extents(extents)) => extents.len() * 10,
            Body::File(Content::Mapped { .. }) => 12,
            Body::Symlink(target) => target.len(),
            Body::BlockDevice(..) | Body::CharDevice(..) | Body::Fifo | Body::Socket => 4,
            Body::Link(_) => 4,
        };
        let xattrs: usize = entry.xattrs.iter().map(|x| 4 + x.name.len() + x.value.len()).sum();
        key.0.len().saturating_sub(8) + 36 + body + xattrs
    }

    fn behind(entry: &Entry) -> usize {
        let body = match &entry.body {
            Body::File(Content::Inline(bytes)) | Body::Symlink(bytes) => bytes.len(),
            Body::File(Content::Extents(extents)) => size_of_val(extents.as_slice()),
            Body::Directory { parent, .. } => parent.0.len(),
            Body::File(Content::Hole | Content::Mapped { .. })
            | Body::BlockDevice(..)
            | Body::CharDevice(..)
            | Body::Fifo
            | Body::Socket
            | Body::Link(_) => 0,
        };
        let xattrs: usize = entry.xattrs.iter().map(|x| size_of_val(x) + x.name.len() + x.value.len()).sum();
        body + xattrs
    }

    fn encode_leaf(items: &[(Key, Entry)]) -> Vec<u8> {
        let mut c = Columns { keys: KeyColumn::new(items.iter().map(|(key, _)| key)), ..Columns::default() };
        let mut table = FrameTable::default();
        let mut parents: HashMap<&Key, u32> = HashMap::new();
        let (mut mtime, mut btime, mut inode) = (0i64, 0i64, 0u64);
        let (mut last_frame, mut last_end) = (0i64, 0i64);
        for (_, entry) in items {
            let number = match &entry.body {
                Body::Directory { id, parent } => {
                    c.file_ids.push(id.0);
                    let next = u32::try_from(parents.len()).unwrap_or(u32::MAX);
                    let index = *parents.entry(parent).or_insert_with(|| {
                        c.parents.push(parent.clone());
                        next
                    });
                    c.directory_parent.push(index);
                    kind::DIRECTORY
                }
                Body::File(Content::Hole) => kind::HOLE,
                Body::File(Content::Inline(bytes)) => {
                    c.inline.push(bytes);
                    kind::INLINE
                }
                Body::File(Content::Extents(extents)) => {
                    c.extents.push(u8::try_from(extents.len()).unwrap_or(u8::MAX));
                    let mut at = 0u64;
                    for extent in extents {
                        let frame = i64::from(table.index(&extent.chunk.frame, &mut c.frames));
                        c.extent_gap.push(extent.offset.wrapping_sub(at));
                        c.extent_frame.push(frame - last_frame);
                        // Neighbours in a frame follow one another: the difference is mostly 0.
                        let expected = if frame == last_frame { last_end } else { 0 };
                        c.extent_start.push(i64::from(extent.chunk.start) - expected);
                        c.extent_bytes.push(extent.chunk.bytes);
                        at = extent.offset.wrapping_add(u64::from(extent.chunk.bytes));
                        last_frame = frame;
                        last_end = i64::from(extent.chunk.start) + i64::from(extent.chunk.bytes);
                    }
                    kind::EXTENTS
                }
                Body::File(Content::Mapped { id, data_bytes }) => {
                    c.file_ids.push(id.0);
                    c.data_bytes.push(*data_bytes);
                    kind::MAPPED
                }
                Body::Symlink(target) => {
                    c.targets.push(target);
                    kind::SYMLINK
                }
                Body::BlockDevice(major, minor) => {
                    c.devices.push((*major, *minor));
                    kind::BLOCK_DEVICE
                }
                Body::CharDevice(major, minor) => {
                    c.devices.push((*major, *minor));
                    kind::CHAR_DEVICE
                }
                Body::Fifo => kind::FIFO,
                Body::Socket => kind::SOCKET,
                Body::Link(id) => {
                    c.file_ids.push(id.0);
                    kind::LINK
                }
            };
            c.kind.push(number);
            if number == kind::LINK {
                continue;
            }
            let meta = &entry.meta;
            c.permissions.push(meta.permissions);
            c.uid.push(meta.uid);
            c.gid.push(meta.gid);
            c.size.push(meta.size);
            c.mtime.push(meta.mtime, mtime);
            c.ctime.push(meta.ctime, meta.mtime.seconds);
            c.atime.push(meta.atime, meta.mtime.seconds);
            c.has_btime.push(u8::from(meta.btime.is_some()));
            if let Some(time) = meta.btime {
                c.btime.push(time, btime);
                btime = time.seconds;
            }
            c.links.push(meta.links);
            c.inode.push(meta.inode.wrapping_sub(inode).cast_signed());
            mtime = meta.mtime.seconds;
            inode = meta.inode;
            c.xattrs.push(u16::try_from(entry.xattrs.len()).unwrap_or(u16::MAX));
            for xattr in &entry.xattrs {
                c.xattr_names.push(&xattr.name);
                c.xattr_values.push(&xattr.value);
            }
        }
        codec::encode(&c)
    }

    fn decode_leaf(columns: &[u8]) -> Result<Vec<(Key, Entry)>, FormatError> {
        let c: Columns = codec::decode(WHAT, columns, limits::FRAME_RAW_BYTES_MAX)?;
        let keys = c.keys.keys(WHAT)?;
        if keys.len() != c.kind.len() {
            return Err(malformed(WHAT, "kinds do not match keys"));
        }
        let mut rows = Rows::of(&c)?;
        let mut items = Vec::with_capacity(keys.len());
        for (key, number) in keys.into_iter().zip(&c.kind) {
            check_key(&key)?;
            let entry = rows.entry(*number)?;
            items.push((key, entry));
        }
        rows.end()?;
        Ok(items)
    }
}

/// Names come from a store: one that would lead elsewhere is not a name.
fn check_key(key: &Key) -> Result<(), FormatError> {
    let (dir, name) = key.split()?;
    let plausible = match dir {
        FileId::TOP => name.is_empty(),
        FileId::HARDLINKS => name.len() == 8,
        _ => is_name(name),
    };
    if plausible { Ok(()) } else { Err(malformed(WHAT, format!("{key:?} names nothing"))) }
}

/// Whether a directory can hold this name.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= limits::NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

/// The columns of a leaf, being read row by row.
struct Rows<'a> {
    c: &'a Columns,
    frames: Vec<FrameRef>,
    permissions: Take<'a, u16>,
    uid: Take<'a, u32>,
    gid: Take<'a, u32>,
    size: Take<'a, u64>,
    mtime: TakeTimes<'a>,
    ctime: TakeTimes<'a>,
    atime: TakeTimes<'a>,
    has_btime: Take<'a, u8>,
    btime: TakeTimes<'a>,
    links: Take<'a, u32>,
    inode: Take<'a, i64>,
    xattrs: Take<'a, u16>,
    file_ids: Take<'a, u64>,
    directory_parent: Take<'a, u32>,
    targets: TakeStrings<'a>,
    devices: Take<'a, (u32, u32)>,
    inline: TakeStrings<'a>,
    data_bytes: Take<'a, u64>,
    extents: Take<'a, u8>,
    extent_gap: Take<'a, u64>,
    extent_frame: Take<'a, i64>,
    extent_start: Take<'a, i64>,
    extent_bytes: Take<'a, u32>,
    xattr_names: TakeStrings<'a>,
    xattr_values: TakeStrings<'a>,
    last_mtime: i64,
    last_btime: i64,
    last_inode: u64,
    last_frame: i64,
    last_end: i64,
}

impl<'a> Rows<'a> {
    fn of(c: &'a Columns) -> Result<Rows<'a>, FormatError> {
        Ok(Rows {
            c,
            frames: c.frames.frames(WHAT)?,
            permissions: Take(&c.permissions),
            uid: Take(&c.uid),
            gid: Take(&c.gid),
            size: Take(&c.size),
            mtime: TakeTimes::of(&c.mtime),
            ctime: TakeTimes::of(&c.ctime),
            atime: TakeTimes::of(&c.atime),
            has_btime: Take(&c.has_btime),
            btime: TakeTimes::of(&c.btime),
            links: Take(&c.links),
            inode: Take(&c.inode),
            xattrs: Take(&c.xattrs),
            file_ids: Take(&c.file_ids),
            directory_parent: Take(&c.directory_parent),
            targets: TakeStrings::of(&c.targets),
            devices: Take(&c.devices),
            inline: TakeStrings::of(&c.inline),
            data_bytes: Take(&c.data_bytes),
            extents: Take(&c.extents),
            extent_gap: Take(&c.extent_gap),
            extent_frame: Take(&c.extent_frame),
            extent_start: Take(&c.extent_start),
            extent_bytes: Take(&c.extent_bytes),
            xattr_names: TakeStrings::of(&c.xattr_names),
            xattr_values: TakeStrings::of(&c.xattr_values),
            last_mtime: 0,
            last_btime: 0,
            last_inode: 0,
            last_frame: 0,
            last_end: 0,
        })
    }

    fn entry(&mut self, number: u8) -> Result<Entry, FormatError> {
        let body = self.body(number)?;
        if number == kind::LINK {
            return Ok(Entry { meta: Meta::default(), xattrs: Vec::new(), body });
        }
        let permissions = self.permissions.next()?;
        if permissions & !0o7777 != 0 {
            return Err(malformed(WHAT, "permissions with more than twelve bits"));
        }
        let mtime = self.mtime.next(self.last_mtime)?;
        let btime = match self.has_btime.next()? {
            0 => None,
            1 => {
                let time = self.btime.next(self.last_btime)?;
                self.last_btime = time.seconds;
                Some(time)
            }
            _ => return Err(malformed(WHAT, "a flag is neither 0 nor 1")),
        };
        let inode = self.last_inode.wrapping_add(self.inode.next()?.cast_unsigned());
        self.last_mtime = mtime.seconds;
        self.last_inode = inode;
        let meta = Meta {
            permissions,
            uid: self.uid.next()?,
            gid: self.gid.next()?,
            size: self.size.next()?,
            mtime,
            ctime: self.ctime.next(mtime.seconds)?,
            atime: self.atime.next(mtime.seconds)?,
            btime,
            links: self.links.next()?,
            inode,
        };
        if meta.size > i64::MAX.cast_unsigned() {
            return Err(malformed(WHAT, "a file longer than files can be"));
        }
        let count = self.xattrs.next()?;
        let mut xattrs = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let (name, value) = (self.xattr_names.next()?, self.xattr_values.next()?);
            if name.is_empty()
                || name.len() > limits::NAME_BYTES_MAX
                || name.contains(&0)
                || value.len() > limits::XATTR_VALUE_BYTES_MAX
            {
                return Err(malformed(WHAT, "an extended attribute that cannot be"));
            }
            xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() });
        }
        if !xattrs.is_sorted_by(|a, b| a.name < b.name) {
            return Err(malformed(WHAT, "extended attributes out of order"));
        }
        let covered = match &body {
            Body::File(Content::Inline(bytes)) => meta.size == bytes.len() as u64,
            Body::File(Content::Extents(extents)) => {
                extents.last().is_none_or(|last| last.offset.saturating_add(u64::from(last.chunk.bytes)) <= meta.size)
            }
            _ => true,
        };
        if !covered {
            return Err(malformed(WHAT, "content does not fit the file's size"));
        }
        Ok(Entry { meta, xattrs, body })
    }

    fn body(&mut self, number: u8) -> Result<Body, FormatError> {
        Ok(match number {
            kind::DIRECTORY => {
                let id = FileId(self.file_ids.next()?);
                let index = self.directory_parent.next()? as usize;
                let parent =
                    self.c.parents.get(index).ok_or_else(|| malformed(WHAT, "a parent is not in the table"))?;
                if id == FileId::TOP || id == FileId::HARDLINKS {
                    return Err(malformed(WHAT, "a directory with a reserved identity"));
                }
                Body::Directory { id, parent: parent.clone() }
            }
            kind::HOLE => Body::File(Content::Hole),
            kind::INLINE => {
                let bytes = self.inline.next()?;
                if bytes.len() > limits::INLINE_BYTES_MAX {
                    return Err(malformed(WHAT, "inline content is too long"));
                }
                Body::File(Content::Inline(bytes.to_vec()))
            }
            kind::EXTENTS => Body::File(Content::Extents(self.file_extents()?)),
            kind::MAPPED => {
                Body::File(Content::Mapped { id: FileId(self.file_ids.next()?), data_bytes: self.data_bytes.next()? })
            }
            kind::SYMLINK => {
                let target = self.targets.next()?;
                if target.is_empty() || target.len() > limits::SYMLINK_BYTES_MAX || target.contains(&0) {
                    return Err(malformed(WHAT, "a symbolic link's target that cannot be"));
                }
                Body::Symlink(target.to_vec())
            }
            kind::BLOCK_DEVICE => {
                let (major, minor) = self.devices.next()?;
                Body::BlockDevice(major, minor)
            }
            kind::CHAR_DEVICE => {
                let (major, minor) = self.devices.next()?;
                Body::CharDevice(major, minor)
            }
            kind::FIFO => Body::Fifo,
            kind::SOCKET => Body::Socket,
            kind::LINK => Body::Link(FileId(self.file_ids.next()?)),
            _ => return Err(malformed(WHAT, format!("unknown kind of entry {number}"))),
        })
    }

    fn file_extents(&mut self) -> Result<Vec<Extent>, FormatError> {
        let count = usize::from(self.extents.next()?);
        if count == 0 || count > limits::ENTRY_EXTENTS_MAX {
            return Err(malformed(WHAT, format!("a file of {count} extents")));
        }
        let mut extents = Vec::with_capacity(count);
        let mut at = 0u64;
        for _ in 0..count {
            let frame = self.last_frame.saturating_add(self.extent_frame.next()?);
            let pointer = usize::try_from(frame)
                .ok()
                .and_then(|index| self.frames.get(index))
                .ok_or_else(|| malformed(WHAT, "an extent's frame is not in the table"))?;
            let expected = if frame == self.last_frame { self.last_end } else { 0 };
            let start = u32::try_from(expected.saturating_add(self.extent_start.next()?))
                .map_err(|_| malformed(WHAT, "a chunk starts outside its frame"))?;
            let bytes = self.extent_bytes.next()?;
            let chunk = chunk(WHAT, pointer, start, bytes)?;
            let offset =
                at.checked_add(self.extent_gap.next()?).ok_or_else(|| malformed(WHAT, "an offset overflows"))?;
            at = offset.checked_add(u64::from(bytes)).ok_or_else(|| malformed(WHAT, "an offset overflows"))?;
            self.last_frame = frame;
            self.last_end = i64::from(start) + i64::from(bytes);
            extents.push(Extent { offset, chunk });
        }
        Ok(extents)
    }

    fn end(&self) -> Result<(), FormatError> {
        self.permissions.end()?;
        self.uid.end()?;
        self.gid.end()?;
        self.size.end()?;
        self.mtime.end()?;
        self.ctime.end()?;
        self.atime.end()?;
        self.has_btime.end()?;
        self.btime.end()?;
        self.links.end()?;
        self.inode.end()?;
        self.xattrs.end()?;
        self.file_ids.end()?;
        self.directory_parent.end()?;
        self.targets.end()?;
        self.devices.end()?;
        self.inline.end()?;
        self.data_bytes.end()?;
        self.extents.end()?;
        self.extent_gap.end()?;
        self.extent_frame.end()?;
        self.extent_start.end()?;
        self.extent_bytes.end()?;
        self.xattr_names.end()?;
        self.xattr_values.end()
    }
}
