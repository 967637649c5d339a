//! Open files that are more than their node: generated content as it was at open, and the
//! conversations on the control file. Content of points needs no handle.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::job::control::Caller;
use crate::view::namespace::{Attr, NodeId};

/// What the kernel sends back with each request on an open file; 0 says that the node tells all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HandleId(pub(crate) u64);

/// An open file.
#[derive(Clone)]
pub(crate) enum Handle {
    /// A generated file, with the content that it had at open.
    Snapshot {
        /// Its attributes then.
        attr: Attr,
        /// Its bytes then.
        bytes: Bytes,
    },
    /// A file that only grows: each read sees what there is by then.
    Growing(NodeId),
    /// `control`.
    Control(Arc<Conversation>),
}

/// One open description of the control file.
pub(crate) struct Conversation {
    /// Who opened it.
    pub(crate) opener: Caller,
    /// The reply that is being read, and how much of it was.
    pub(crate) reply: Mutex<Option<(Bytes, usize)>>,
}

/// All open files with a handle.
#[derive(Default)]
pub(crate) struct Handles {
    open: RwLock<(u64, HashMap<HandleId, Handle>)>,
}

impl Handles {
    /// Remembers an open file.
    pub(crate) fn insert(&self, handle: Handle) -> HandleId {
        let (last, open) = &mut *self.open.write();
        *last += 1;
        open.insert(HandleId(*last), handle);
        HandleId(*last)
    }

    /// An open file; none for handle 0.
    pub(crate) fn get(&self, id: HandleId) -> Option<Handle> {
        if id.0 == 0 {
            return None;
        }
        self.open.read().1.get(&id).cloned()
    }

    /// The attributes of `node` as somebody has it open.
    pub(crate) fn snapshot_of(&self, node: NodeId) -> Option<Attr> {
        self.open.read().1.values().find_map(|handle| match handle {
            Handle::Snapshot { attr, .. } if attr.node == node => Some(*attr),
            _ => None,
        })
    }

    /// Forgets an open file.
    pub(crate) fn remove(&self, id: HandleId) {
        if id.0 != 0 {
            self.open.write().1.remove(&id);
        }
    }
}
