//! Gives the kernel small files before it asks for them, while somebody reads files in their order.
//!
//! Files that follow each other lie in one frame, which is at hand as soon as the first of them has been read. Each of the others
//! would be one request more, for which the reader sleeps and this server is woken, and on the way back the other way round. So when two
//! files have been read one behind the other, the rest of their frame goes to the kernel's memory at once, and reading them asks for nothing.
//!
//! A thread of its own does that. The kernel keeps it waiting while somebody else waits for the same page, so no thread that answers requests
//! may do it. It tells nobody of faults: who reads such a file meets them by himself.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::limits;
use crate::view::namespace::{Namespace, NodeId};

/// Readers that are followed at the same time.
const TRAILS: usize = 8;
/// A reader goes in order as long as it passes over no more than so many entries.
const NEAR: u64 = 64;

/// Where a reader is, and whether what lies before him is being given to the kernel.
#[derive(Debug, Clone, Copy, Default)]
struct Trail {
    at: u64,
    under_way: bool,
}

/// Where readers are.
#[derive(Debug, Default)]
struct Trails {
    trails: [Trail; TRAILS],
    oldest: usize,
}

impl Trails {
    /// The file `node` has been read; the trail that it is on, if what lies behind it is to be given to the kernel now.
    fn saw(&mut self, node: NodeId) -> Option<usize> {
        let near =
            |trail: &Trail| trail.at != 0 && node.0.checked_sub(trail.at).is_some_and(|far| far > 0 && far <= NEAR);
        if let Some(index) = self.trails.iter().position(near) {
            let trail = self.trails.get_mut(index)?;
            trail.at = node.0;
            return (!std::mem::replace(&mut trail.under_way, true)).then_some(index);
        }
        self.oldest = (self.oldest + 1) % TRAILS;
        if let Some(trail) = self.trails.get_mut(self.oldest).filter(|trail| !trail.under_way) {
            trail.at = node.0;
        }
        None
    }

    /// The kernel has all up to `node` on a trail: the next that it asks for lies behind.
    fn reached(&mut self, trail: usize, node: NodeId) {
        if let Some(trail) = self.trails.get_mut(trail) {
            *trail = Trail { at: trail.at.max(node.0), under_way: false };
        }
    }
}

/// See the head of this file.
pub(crate) struct Beside {
    trails: Arc<Mutex<Trails>>,
    queue: SyncSender<(NodeId, usize)>,
}

impl Beside {
    /// To be told what is read; what it wants to give comes out of the receiver.
    pub(crate) fn new() -> (Beside, Giver) {
        // One place for each trail: a trail that is under way is not put in line again.
        let (queue, line) = sync_channel(TRAILS);
        let trails: Arc<Mutex<Trails>> = Arc::default();
        (Beside { trails: Arc::clone(&trails), queue }, Giver { trails, line })
    }

    /// The kernel has asked for the first `asked` bytes of the content `node`.
    pub(crate) fn saw(&self, node: NodeId, asked: usize) {
        if asked > limits::GROUPED_CHUNK_BYTES_MAX {
            return;
        }
        if let Some(trail) = self.trails.lock().saw(node) {
            // Nobody takes it any more when the mount has ended.
            let _taken = self.queue.try_send((node, trail));
        }
    }
}

/// What gives files to the kernel, until its [`Beside`] is gone.
pub(crate) struct Giver {
    trails: Arc<Mutex<Trails>>,
    line: Receiver<(NodeId, usize)>,
}

impl Giver {
    /// Starts the thread, which hands nodes and their whole contents to `give` until that returns false.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(
        self,
        namespace: Arc<dyn Namespace>,
        give: impl Fn(NodeId, &Bytes) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("beside".into());
        thread
            .spawn(move || {
                for (node, trail) in self.line {
                    let mut last = node;
                    let outcome = namespace.beside(node, &mut |beside, content| {
                        last = beside;
                        give(beside, &content)
                    });
                    if let Err(error) = outcome {
                        tracing::debug!(node = node.0, "nothing is given beside it: {error}");
                    }
                    self.trails.lock().reached(trail, last);
                }
            })
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_in_order_is_followed_and_nobody_else() {
        let mut trails = Trails::default();
        let mut saw = |node| trails.saw(NodeId(node));
        assert_eq!([1000, 5000, 3000, 1000].map(&mut saw), [None; 4]);
        // Another reader, somewhere else, changes nothing.
        let trail = saw(1001).unwrap();
        assert_eq!(saw(9000), None);
        assert_eq!(saw(1002), None, "it is under way");
        trails.reached(trail, NodeId(1300));
        assert_eq!(trails.saw(NodeId(1301)), Some(trail));
        trails.reached(trail, NodeId(1301));
        assert_eq!(trails.saw(NodeId(1302 + NEAR)), None);
        assert_eq!(trails.saw(NodeId(1250)), None, "backwards");
    }

    #[test]
    fn a_trail_that_is_under_way_is_not_taken_by_another_reader() {
        let mut trails = Trails::default();
        assert_eq!(trails.saw(NodeId(10)), None);
        let trail = trails.saw(NodeId(11)).unwrap();
        for other in 1..100 {
            assert_eq!(trails.saw(NodeId(other * 1000)), None);
        }
        trails.reached(trail, NodeId(20));
        assert_eq!(trails.saw(NodeId(21)), Some(trail));
    }
}
