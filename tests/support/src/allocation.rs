//! A global allocator that counts what this thread allocates, and can refuse the k-th request.
//!
//! A test binary names it as its `#[global_allocator]`. Counts and refusals are per thread, so that
//! tests beside each other do not disturb each other. It passes everything on to the system.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// Allocations until one is refused; 0: none is.
    static UNTIL_REFUSAL: Cell<u64> = const { Cell::new(0) };
    static IS_REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// The allocator.
#[derive(Debug)]
pub struct Counting;

/// Allocations of this thread so far, growth of existing ones included.
pub fn count() -> u64 {
    COUNT.with(Cell::get)
}

/// Runs `body` with its `k`-th allocation (from 1) refused; says whether it came to that.
pub fn refusing<R>(k: u64, body: impl FnOnce() -> R) -> (R, bool) {
    IS_REFUSED.set(false);
    UNTIL_REFUSAL.set(k);
    let result = body();
    UNTIL_REFUSAL.set(0);
    (result, IS_REFUSED.get())
}

/// Counts one; true: this one is refused.
fn note() -> bool {
    // A thread that ends has lost its cells: it counts for nobody.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    let is_refused = UNTIL_REFUSAL.try_with(|until| match until.get() {
        0 => false,
        left => {
            until.set(left - 1);
            left == 1
        }
    });
    if is_refused == Ok(true) {
        IS_REFUSED.set(true);
        return true;
    }
    false
}

// SAFETY: every pointer comes from the system's allocator or is null, which means "no memory".
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if note() {
            return ptr::null_mut();
        }
        // SAFETY: the caller's contract is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if note() {
            return ptr::null_mut();
        }
        // SAFETY: the caller's contract is the system's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if note() {
            return ptr::null_mut();
        }
        // SAFETY: the pointer came from the system's allocator, as all of them do.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the system's allocator, as all of them do.
        unsafe { System.dealloc(pointer, layout) }
    }
}
