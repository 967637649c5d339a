//! Lets ordinary threads wait for asynchronous requests, never longer than a deadline.
//!
//! Each store has a small runtime of its own, started by the first request that needs it, so that a
//! store that hangs uses up its own threads and nobody else's. The waiting thread waits on a channel and not
//! in `block_on`: it gets away at the deadline even when a request blocks its runtime thread, and
//! calling from a thread of another runtime is no panic (it blocks that thread, as any blocking call does).
//!
//! What is abandoned at its deadline may still happen: a cancelled write counts as "unknown".
//! A process must not fork and go on using a store in the child: the runtime's threads do not follow.

use std::future::Future;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that drive requests.
const DRIVERS: usize = 2;
/// Threads that may be inside the operating system at once; beyond it, requests queue until their deadline.
const BLOCKING_THREADS_MAX: usize = 64;

/// Why no result came.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The deadline passed.
    Deadline,
    /// The request ended without a result.
    Lost(std::io::Error),
}

/// Runs requests.
#[derive(Debug)]
pub(super) struct Tasks {
    runtime: Mutex<Option<Runtime>>,
    /// Poll once on the calling thread, which saves memory stores two thread switches per request.
    /// Only for stores that never block in a poll.
    at_once: bool,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Running<T> {
    answer: Receiver<T>,
    task: Option<tokio::task::AbortHandle>,
}

impl Tasks {
    /// With `at_once`, requests are polled once on the calling thread before a runtime thread takes them over.
    pub(super) fn new(at_once: bool) -> Tasks {
        Tasks { runtime: Mutex::new(None), at_once }
    }

    /// Starts `future` and does not wait for it.
    pub(super) fn start<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<Running<T>, Stopped> {
        let handle = self.handle()?;
        let (answer_to, answer) = mpsc::sync_channel(1);
        let mut future = Box::pin(future);
        if self.at_once {
            let _inside = handle.enter();
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                // The channel has room for one and its receiver is right here.
                drop(answer_to.send(value));
                return Ok(Running { answer, task: None });
            }
        }
        let task = handle.spawn(async move {
            let value = future.await;
            // Nobody is waiting any more: the deadline has passed.
            drop(answer_to.send(value));
        });
        Ok(Running { answer, task: Some(task.abort_handle()) })
    }

    /// Starts `work`, which may block in the operating system, on a thread of its own.
    pub(super) fn start_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Running<T>, Stopped> {
        let (answer_to, answer) = mpsc::sync_channel(1);
        let task = self.handle()?.spawn_blocking(move || {
            drop(answer_to.send(work()));
        });
        Ok(Running { answer, task: Some(task.abort_handle()) })
    }

    /// Starts `future`, which sends batches as they come.
    pub(super) fn stream<T, F>(&self, produce: impl FnOnce(mpsc::Sender<T>) -> F) -> Result<Running<T>, Stopped>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (answer_to, answer) = mpsc::channel();
        let task = self.handle()?.spawn(produce(answer_to));
        Ok(Running { answer, task: Some(task.abort_handle()) })
    }

    /// Runs `future` to its end, whoever waits or not, and then `done` with its result, on a thread that may block. Where no
    /// thread can be had, or the store is closed meanwhile, `done` is dropped.
    pub(super) fn detach<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) {
        let Ok(handle) = self.handle() else { return };
        let _task = handle.spawn(async move {
            let value = future.await;
            // What it does is the caller's matter, and a panic in it is reported by its thread.
            let _done = tokio::task::spawn_blocking(move || done(value)).await;
        });
    }

    fn handle(&self) -> Result<Handle, Stopped> {
        let mut runtime = self.runtime.lock();
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let started = Builder::new_multi_thread()
            .worker_threads(DRIVERS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("amberfs-store")
            // Time, and what networks need where a backend is built in.
            .enable_all()
            .build()
            .map_err(Stopped::Lost)?;
        let handle = started.handle().clone();
        *runtime = Some(started);
        Ok(handle)
    }
}

impl Drop for Tasks {
    /// Never waits: a thread that hangs in the operating system would hang its owner.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl<T> Running<T> {
    /// The next result, or `None` when a stream has ended.
    pub(super) fn next(&self, deadline: Duration) -> Result<Option<T>, Stopped> {
        match self.answer.recv_timeout(deadline) {
            Ok(value) => Ok(Some(value)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Stopped::Deadline),
        }
    }

    /// The result.
    pub(super) fn wait(self, deadline: Duration) -> Result<T, Stopped> {
        self.next(deadline)?.ok_or_else(|| Stopped::Lost(std::io::Error::other("the request ended without a result")))
    }
}

impl<T> Drop for Running<T> {
    /// Whoever stops waiting gives up the request; after a result this does nothing.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
