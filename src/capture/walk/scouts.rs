//! Threads that look ahead of the walk.
//!
//! The walk asks for what it will need next and takes it when it gets there. What no scout has begun by
//! then, the walk does itself, so it never waits for a turn, and without scouts all of it works the
//! same. What was found too long ago is dropped and asked again: a walk that is held back by the reading of
//! files must not tell of names that are gone since.
//!
//! Invariant: at most [`ERRANDS_MAX`] errands are asked for and not yet taken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Errands under way, found or waiting: bounds what they hold in memory and in descriptors.
const ERRANDS_MAX: usize = 256;
/// Bytes of names that one system call may yield.
pub(super) const LISTING_BYTES: usize = 64 << 10;
/// How old an answer may be when it is taken.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// When an errand is needed: what is deeper comes first, then what was asked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Urgency {
    depth: usize,
    number: Reverse<u64>,
}

/// The scouts of one walk; they end with it.
pub(super) struct Scouts {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    asked: u64,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    errands: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    waiting: BinaryHeap<Waiting>,
    closed: bool,
}

struct Waiting {
    urgency: Urgency,
    errand: Arc<dyn Errand>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.urgency == other.urgency
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> std::cmp::Ordering {
        self.urgency.cmp(&other.urgency)
    }
}

/// Something a scout can do.
trait Errand: Send + Sync {
    /// Does it, unless somebody else has begun.
    fn run(&self, buffer: &mut [u8]);
}

type Task<T> = Box<dyn FnOnce(&mut [u8]) -> T + Send>;

/// Where an errand stands.
enum State<T> {
    Waiting(Task<T>),
    Running,
    Found(T, Instant),
    /// Taken, given up, or its scout has panicked.
    Over,
}

struct Slot<T> {
    state: Mutex<State<T>>,
    found: Condvar,
}

impl<T: Send> Errand for Slot<T> {
    fn run(&self, buffer: &mut [u8]) {
        let task = {
            let mut state = self.state.lock();
            match std::mem::replace(&mut *state, State::Running) {
                State::Waiting(task) => task,
                other => {
                    *state = other;
                    return;
                }
            }
        };
        // Whatever happens in the task, nobody waits for it for ever.
        let mut end = End { slot: self, state: State::Over };
        let found = task(buffer);
        end.state = State::Found(found, Instant::now());
    }
}

struct End<'a, T> {
    slot: &'a Slot<T>,
    state: State<T>,
}

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        *self.slot.state.lock() = std::mem::replace(&mut self.state, State::Over);
        self.slot.found.notify_all();
    }
}

/// Something that was asked for; dropped, it is given up.
pub(super) struct Ahead<T> {
    slot: Arc<Slot<T>>,
    shared: Arc<Shared>,
}

impl<T> Ahead<T> {
    /// What was found, waited for if a scout is at it; none when it is too old or must be asked again.
    pub(super) fn take(self, buffer: &mut [u8]) -> Option<T> {
        let mut state = self.slot.state.lock();
        loop {
            match std::mem::replace(&mut *state, State::Over) {
                State::Waiting(task) => {
                    drop(state);
                    return Some(task(buffer));
                }
                State::Running => {
                    *state = State::Running;
                    self.slot.found.wait(&mut state);
                }
                State::Found(found, at) => return Some(found).filter(|_| at.elapsed() < FRESH),
                State::Over => return None,
            }
        }
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        let mut state = self.slot.state.lock();
        // One that runs is left to its scout.
        if !matches!(*state, State::Running) {
            *state = State::Over;
        }
        drop(state);
        self.shared.errands.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Scouts {
    /// `count` scouts, or as many of them as the system gives threads.
    pub(super) fn new(count: usize) -> Scouts {
        let shared = Arc::new(Shared::default());
        let scout = |number: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("scout-{number}")).spawn(move || scout(&shared)).ok()
        };
        let threads = (0..count).map_while(scout).collect();
        Scouts { shared, threads, asked: 0 }
    }

    /// Asks for what `task` finds, for a directory at `depth`; none when there is nobody to ask or too much asked for.
    pub(super) fn ask<T, F>(&mut self, depth: usize, task: F) -> Option<Ahead<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut [u8]) -> T + Send + 'static,
    {
        // Only the walk's thread asks, so the number cannot rise in between.
        if self.threads.is_empty() || self.shared.errands.load(Ordering::Relaxed) >= ERRANDS_MAX {
            return None;
        }
        self.shared.errands.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot { state: Mutex::new(State::Waiting(Box::new(task))), found: Condvar::new() });
        self.asked += 1;
        let urgency = Urgency { depth, number: Reverse(self.asked) };
        let errand: Arc<dyn Errand> = Arc::clone(&slot) as Arc<dyn Errand>;
        self.shared.queue.lock().waiting.push(Waiting { urgency, errand });
        self.shared.wake.notify_one();
        Some(Ahead { slot, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Scouts {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        queue.waiting.clear();
        drop(queue);
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked has left its errand to the walk.
            drop(thread.join());
        }
    }
}

fn scout(shared: &Shared) {
    let mut buffer = vec![0; LISTING_BYTES];
    let mut queue = shared.queue.lock();
    while !queue.closed {
        match queue.waiting.pop() {
            Some(Waiting { errand, .. }) => {
                drop(queue);
                errand.run(&mut buffer);
                // What nobody wants any more is dropped before the lock is taken again.
                drop(errand);
                queue = shared.queue.lock();
            }
            None => shared.wake.wait(&mut queue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_begun_is_done_by_who_needs_it() {
        let mut none = Scouts::new(0);
        assert!(none.ask(0, |_| 1).is_none());
        let mut one = Scouts::new(1);
        let (hold, held) = crossbeam_channel::bounded::<()>(0);
        let busy = one.ask(9, move |_| held.recv().is_err()).unwrap();
        while !one.shared.queue.lock().waiting.is_empty() {
            std::thread::yield_now();
        }
        let behind = one.ask(9, |buffer| buffer.len()).unwrap();
        assert_eq!(behind.take(&mut [0; 3]), Some(3));
        drop(hold);
        assert_eq!(busy.take(&mut []), Some(true));
    }

    #[test]
    fn what_is_deeper_is_found_first_and_what_is_given_up_never() {
        let mut one = Scouts::new(1);
        let (hold, held) = crossbeam_channel::bounded::<()>(0);
        let (tell, told) = crossbeam_channel::unbounded();
        let _busy = one.ask(9, move |_| held.recv().is_err()).unwrap();
        let mut ask = |depth, number| {
            let tell = tell.clone();
            one.ask(depth, move |_| tell.send(number)).unwrap()
        };
        let kept = [ask(1, 1), ask(1, 2), ask(3, 3), ask(2, 5)];
        drop(ask(5, 4));
        drop(hold);
        let order: Vec<i32> = told.iter().take(4).collect();
        assert_eq!(order, [3, 5, 1, 2]);
        drop(kept);
        assert_eq!(one.shared.errands.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_answer_that_is_old_or_never_came_is_asked_again() {
        let mut one = Scouts::new(1);
        let lost = one.ask(0, |_| -> u8 { std::panic::resume_unwind(Box::new("on purpose")) }).unwrap();
        while !matches!(*lost.slot.state.lock(), State::Over) {
            std::thread::yield_now();
        }
        assert_eq!(lost.take(&mut []), None);
        let mut other = Scouts::new(1);
        let old = other.ask(0, |_| 1).unwrap();
        loop {
            if let State::Found(_, at) = &mut *old.slot.state.lock() {
                *at = at.checked_sub(FRESH).unwrap();
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(old.take(&mut []), None);
    }

    #[test]
    fn only_so_much_is_asked_ahead() {
        let mut one = Scouts::new(1);
        let asked: Vec<_> = (0..ERRANDS_MAX).map(|_| one.ask(0, |_| ()).unwrap()).collect();
        assert!(one.ask(0, |_| ()).is_none());
        drop(asked);
        assert!(one.ask(0, |_| ()).is_some());
    }
}
