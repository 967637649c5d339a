//! Paths of a point's files, for messages: an entry knows the identity of its directory, not the name.
//!
//! A directory knows where its parent's entry stands, so a path is found from the first directory's entry
//! upwards. That one, and a name of a hard-linked file, has to be searched for, from the point's first entry on.
//! What the search passes is remembered for the points that were asked about last: ten thousand faults in one
//! point cost one walk of its names, and not one each.
//!
//! Bounds: so many entries are passed for one message, and so many names remembered; what is not found by then is
//! shown as `…/name`. Damaged leaves are stepped over.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::format::entry::Body;
use crate::format::leaf::Entries;
use crate::format::{FileId, Key, PointId, SourceId};
use crate::repo::tree::Item;
use crate::view::inode::Inode;
use crate::view::point::PointView;

/// Entries that are passed to name a file in one message.
const SEARCHED_MAX: usize = 200_000;
/// Names that are remembered of one point.
const REMEMBERED_MAX: usize = 50_000;
/// Points that are remembered.
const POINTS_MAX: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");
/// Directories that a path goes through. No real tree is deeper; a damaged one may lead in circles.
const DEPTH_MAX: usize = 4096;
/// How far behind an entry that cannot be read the search goes on.
const STEP: u64 = 64;
/// How often it does.
const STEPS_MAX: u32 = 256;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Paths {
    points: Mutex<LruCache<(SourceId, PointId), SharedIndex>>,
}

/// What has to be searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sought {
    /// The entry of a directory.
    Directory(FileId),
    /// A name of a hard-linked file.
    Link(FileId),
}

type SharedIndex = Arc<Mutex<Index>>;

/// What a search of one point's entries has passed.
#[derive(Debug, Default)]
struct Index {
    keys: HashMap<Sought, Key>,
    /// Entries before this one have been passed.
    passed: u64,
    steps: u32,
    ended: bool,
    /// Some that were passed are not remembered.
    forgot: bool,
}

impl Paths {
    pub(super) fn new() -> Paths {
        Paths { points: Mutex::new(LruCache::new(POINTS_MAX)) }
    }

    /// The path of `inode` in the point `of` that `view` shows.
    pub(super) fn path(&self, of: (SourceId, PointId), view: &PointView, inode: &Inode) -> String {
        let index = Arc::clone(self.points.lock().get_or_insert(of, Arc::default));
        index.lock().path(view, inode)
    }
}

impl Index {
    fn path(&mut self, view: &PointView, inode: &Inode) -> String {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut key = inode.key().clone();
        let mut above = parent(&inode.entry().body);
        for _ in 0..DEPTH_MAX {
            let next = match key.split() {
                Ok((FileId::TOP, _)) => return format!("/{}", shown(names)),
                Ok((FileId::HARDLINKS, id)) => match <[u8; 8]>::try_from(id) {
                    Ok(id) => self.find(view, Sought::Link(FileId(u64::from_be_bytes(id)))),
                    Err(_) => None,
                },
                Ok((dir, name)) => {
                    names.push(name.to_vec());
                    above.take().or_else(|| self.find(view, Sought::Directory(dir)))
                }
                Err(_) => None,
            };
            let Some(next) = next else { break };
            above = view.entries().get(&next).ok().flatten().and_then(|item| parent(&item.value().body));
            key = next;
        }
        if names.is_empty() { "(a file whose names are not known)".to_owned() } else { format!("…/{}", shown(names)) }
    }

    fn find(&mut self, view: &PointView, sought: Sought) -> Option<Key> {
        if let Some(key) = self.keys.get(&sought) {
            return Some(key.clone());
        }
        if self.ended && self.forgot {
            *self = Index { keys: std::mem::take(&mut self.keys), ..Index::default() };
        }
        let mut left = SEARCHED_MAX;
        while !self.ended && left > 0 {
            for item in view.entries().scan(self.passed) {
                left = left.saturating_sub(1);
                let Ok(item) = item else {
                    self.passed += STEP;
                    self.steps += 1;
                    self.ended = self.steps > STEPS_MAX;
                    break;
                };
                self.passed = item.rank() + 1;
                self.ended = self.passed >= view.entries().items();
                if let Some(found) = self.pass(&item, sought) {
                    return Some(found);
                }
                if left == 0 {
                    break;
                }
            }
            self.ended |= self.passed >= view.entries().items();
        }
        None
    }

    /// Remembers what `item` tells; its key, if that is what is sought.
    fn pass(&mut self, item: &Item<Entries>, sought: Sought) -> Option<Key> {
        let told = match item.value().body {
            Body::Directory { id, .. } => Sought::Directory(id),
            Body::Link(id) => Sought::Link(id),
            _ => return None,
        };
        if self.keys.len() >= REMEMBERED_MAX {
            self.keys.clear();
            self.forgot = true;
        }
        self.keys.entry(told).or_insert_with(|| item.key().clone());
        (told == sought).then(|| item.key().clone())
    }
}

fn parent(body: &Body) -> Option<Key> {
    match body {
        Body::Directory { parent, .. } => Some(parent.clone()),
        _ => None,
    }
}

fn shown(mut names: Vec<Vec<u8>>) -> String {
    names.reverse();
    String::from_utf8_lossy(&names.join(&b'/')).into_owned()
}
