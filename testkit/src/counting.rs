//! An allocator that counts: what a piece of code allocates on its own thread, and what the whole process holds.
//!
//! ```text
//!  #[global_allocator]
//!  static ALLOCATOR: Counting = Counting;      // in the measuring program
//!
//!  counting::start();
//!  let before = counting::made();  work();  counting::made() - before     // of this thread: the same in every run
//! ```
//! Bytes are those that were asked for: what the allocator beneath rounds up to is seen in the process's RSS alone.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

/// Off unless asked for: two cores that count into one number wait for one another more than they allocate.
static COUNTS: AtomicBool = AtomicBool::new(false);
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Nothing in it needs an end, so that it can be used while a thread ends.
    static MADE: Cell<u64> = const { Cell::new(0) };
}

/// Counts from here on. What was allocated before and is freed later makes [`held`] too small: to be called first of all.
pub fn start() {
    COUNTS.store(true, Ordering::Relaxed);
}

/// Allocations of this thread so far; growing one in place or elsewhere counts as one.
#[must_use]
pub fn made() -> u64 {
    MADE.with(Cell::get)
}

/// Bytes that the process holds.
#[must_use]
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// The most that it held at once since [`reset_peak`].
#[must_use]
pub fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// Begins to look for the peak anew.
pub fn reset_peak() {
    PEAK.store(held(), Ordering::Relaxed);
}

fn more(bytes: usize) {
    if !COUNTS.load(Ordering::Relaxed) {
        return;
    }
    MADE.with(|made| made.set(made.get() + 1));
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    // Two threads at once may each miss the other's peak by one allocation.
    if held > PEAK.load(Ordering::Relaxed) {
        PEAK.store(held, Ordering::Relaxed);
    }
}

fn less(bytes: usize) {
    if COUNTS.load(Ordering::Relaxed) {
        HELD.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait; each call is passed on as it came")]
// SAFETY: the system's allocator does the work, with the arguments that our caller vouches for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: as ours.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        less(layout.size());
        // SAFETY: as ours.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        less(layout.size());
        more(size);
        // SAFETY: as ours.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
