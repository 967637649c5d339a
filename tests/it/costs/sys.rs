#![allow(unsafe_code)]
//! Counts what each thread of this test binary takes from the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What was taken from the heap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Allocations, growth in place included.
    pub(crate) times: u64,
    /// Bytes; of growth, all of the new size.
    pub(crate) bytes: u64,
}

thread_local! {
    static TAKEN: Cell<Taken> = const { Cell::new(Taken { times: 0, bytes: 0 }) };
}

/// What `work` takes from the heap in this thread, and what it yields.
pub(crate) fn taken<T>(work: impl FnOnce() -> T) -> (Taken, T) {
    let before = TAKEN.get();
    let done = work();
    let after = TAKEN.get();
    (Taken { times: after.times - before.times, bytes: after.bytes - before.bytes }, done)
}

fn note(bytes: usize) {
    // A thread that ends has nothing to note it in any more.
    let _noted = TAKEN.try_with(|taken| {
        let Taken { times, bytes: before } = taken.get();
        taken.set(Taken { times: times + 1, bytes: before + bytes as u64 });
    });
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; counting touches no heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are what the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
