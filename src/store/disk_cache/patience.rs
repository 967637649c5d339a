//! Waits for work that may hang in the operating system, and no longer than a bound.
//!
//! A disk that does not answer holds whoever asks it, and nothing can be taken back. So work runs on threads of its own, and
//! who has waited long enough goes on without it. While such work has not ended, no more is begun: as many threads hang as
//! waited at that moment, and not one for every request since.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::store::tasks::{Running, Stopped, Tasks};

#[derive(Debug)]
pub(super) struct Patience {
    tasks: Tasks,
    bound: Duration,
    /// Work that was not waited for to its end, and has not ended.
    stuck: Arc<AtomicUsize>,
    behind: Mutex<Option<Running<()>>>,
}

/// Work under way. Dropped when it has ended, or will never begin.
struct End {
    /// By whoever waits, or by the work: who comes second knows of the other.
    over: Arc<AtomicBool>,
    stuck: Arc<AtomicUsize>,
}

impl Drop for End {
    fn drop(&mut self) {
        if self.over.swap(true, Ordering::SeqCst) {
            self.stuck.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Patience {
    pub(super) fn new(bound: Duration) -> Patience {
        Patience { tasks: Tasks::new(false), bound, stuck: Arc::default(), behind: Mutex::new(None) }
    }

    /// Whether something does not end.
    pub(super) fn is_over(&self) -> bool {
        self.stuck.load(Ordering::SeqCst) > 0
    }

    /// What `work` gives; none when it takes too long, or something does that was begun before.
    pub(super) fn wait<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if self.is_over() {
            return None;
        }
        let over = Arc::new(AtomicBool::new(false));
        let end = End { over: Arc::clone(&over), stuck: Arc::clone(&self.stuck) };
        let running = self.tasks.start_blocking(move || {
            let _end = end;
            work()
        });
        match running.ok()?.wait(self.bound) {
            Ok(value) => Some(value),
            Err(Stopped::Lost(_)) => None,
            Err(Stopped::Deadline) => {
                self.stuck.fetch_add(1, Ordering::SeqCst);
                if over.swap(true, Ordering::SeqCst) {
                    // It has ended just now.
                    self.stuck.fetch_sub(1, Ordering::SeqCst);
                }
                None
            }
        }
    }

    /// Has `work` done and does not wait. One such work at a time: what has not begun when the next comes is left.
    pub(super) fn behind(&self, work: impl FnOnce() + Send + 'static) {
        if !self.is_over() {
            *self.behind.lock() = self.tasks.start_blocking(work).ok();
        }
    }

    /// Waits for what is done behind.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        if let Some(running) = self.behind.lock().take() {
            drop(running.wait(Duration::from_secs(60)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_waits_goes_on_and_nothing_more_is_begun_until_the_work_has_ended() {
        let patience = Patience::new(Duration::from_millis(100));
        assert_eq!(patience.wait(|| 1), Some(1));
        let (release, released) = mpsc::channel::<()>();
        assert_eq!(patience.wait(move || released.recv()), None);
        assert!(patience.is_over());
        let begun = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&begun);
        assert_eq!(patience.wait(move || seen.store(true, Ordering::SeqCst)), None);
        assert!(!begun.load(Ordering::SeqCst));
        release.send(()).unwrap();
        let began = std::time::Instant::now();
        while patience.is_over() {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
        assert_eq!(patience.wait(|| 2), Some(2));
    }
}
