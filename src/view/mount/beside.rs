//! The small files that share a frame with one that has been read: what a reader who goes in order asks for next.

use bytes::Bytes;

use super::MountView;
use crate::base::limits;
use crate::format::entry::{Body, Content};
use crate::format::{ChunkRef, EntryOrdinal};
use crate::view::inode::Inode;
use crate::view::namespace::{NodeId, ViewError};
use crate::view::point::PointView;

/// A small file's whole content.
enum Small<'a> {
    /// In its entry.
    Inline(&'a [u8]),
    /// A chunk.
    Chunk(&'a ChunkRef),
}

/// The content of a file that one chunk holds, or the entry itself; none of other files and other inodes.
fn small(body: &Body, size: u64) -> Option<Small<'_>> {
    match body {
        Body::File(Content::Inline(bytes)) if bytes.len() as u64 == size => Some(Small::Inline(bytes)),
        Body::File(Content::Extents(extents)) => match extents.as_slice() {
            [one] if one.offset == 0 && u64::from(one.chunk.bytes) == size => Some(Small::Chunk(&one.chunk)),
            _ => None,
        },
        _ => None,
    }
}

impl MountView {
    /// Hands over what stands behind the file `node` in the tree and has come with it: contents in entries, and in its own frame.
    pub(super) fn small_behind(
        &self,
        node: NodeId,
        take: &mut dyn FnMut(NodeId, Bytes) -> bool,
    ) -> Result<(), ViewError> {
        if !node.is_content() || self.shown(node)?.is_some() {
            return Ok(());
        }
        let (source, point, view, inode) = self.content(node)?;
        let frame = match small(&inode.entry().body, inode.entry().meta.size) {
            Some(Small::Inline(_)) => None,
            // It has just been read, so it is in memory.
            Some(Small::Chunk(chunk)) => Some((chunk.frame, view.frame(chunk)?)),
            None => return Ok(()),
        };
        for item in following(&view, &inode) {
            let item = item?;
            let content = match (small(&item.entry().body, item.entry().meta.size), &frame) {
                (Some(Small::Inline([])) | None, _) => continue,
                (Some(Small::Inline(bytes)), _) => Bytes::copy_from_slice(bytes),
                (Some(Small::Chunk(chunk)), Some((own, bytes))) if chunk.frame == *own => {
                    let start = chunk.start as usize;
                    let part = start..start.saturating_add(chunk.bytes as usize);
                    // Who reads it is told of the contradiction.
                    let Some(_) = bytes.get(part.clone()) else { return Ok(()) };
                    bytes.slice(part)
                }
                (Some(Small::Chunk(_)), _) => return Ok(()),
            };
            match self.nodes.content((source, point, item.ordinal())) {
                Some(node) if take(node, content) => {}
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

/// The entries behind `inode`, as they stand; links are not followed.
fn following<'a>(view: &'a PointView, inode: &Inode) -> impl Iterator<Item = Result<Inode, ViewError>> + 'a {
    let EntryOrdinal(ordinal) = inode.ordinal();
    let behind = view.entries().scan(ordinal + 1).take(limits::MOUNT_BESIDE_ENTRIES_MAX);
    behind.map(|item| item.map(Inode::new).map_err(|error| ViewError::fault("look behind a file", error)))
}
