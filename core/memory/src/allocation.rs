//! Allocation that answers instead of aborting.
//!
//! A vector can be asked whether there is memory (`try_reserve`), and a box can be made by hand
//! ([`try_box`]). `Arc`, `Rc` and what the standard library does inside cannot be asked: they go to
//! the global allocator, and when that has nothing the process ends. So their memory is taken
//! before they need it, which may be refused, and handed to them when they ask ([`with_memory`]).
//!
//! [`Allocator`] hands it out; it is the global allocator of the C library. Where a program has
//! another one, what was taken is given back at the last moment, and only another thread that takes
//! it in between can still end the process.

use std::alloc::{GlobalAlloc, Layout, System, alloc, dealloc};
use std::cell::Cell;
use std::hint::black_box;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use crate::words::NoMemory;

/// Blocks that may be taken at once.
const BLOCKS_MAX: usize = 16;

/// A value on the heap.
///
/// # Errors
/// There is no memory; the value is dropped.
pub fn try_box<T>(value: T) -> Result<Box<T>, NoMemory> {
    const { assert!(size_of::<T>() > 0, "a box of nothing allocates nothing") };
    // SAFETY: the layout has a size, as asserted.
    let memory = unsafe { alloc(Layout::new::<T>()) }.cast::<T>();
    if memory.is_null() {
        return Err(NoMemory);
    }
    // SAFETY: not null, and just allocated for a `T`.
    unsafe { memory.write(value) };
    // SAFETY: it holds a `T`, and was allocated as a box would.
    Ok(unsafe { Box::from_raw(memory) })
}

/// A copy of bytes on the heap.
///
/// # Errors
/// There is no memory.
pub fn try_bytes(bytes: &[u8]) -> Result<Box<[u8]>, NoMemory> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| NoMemory)?;
    copy.extend_from_slice(bytes);
    Ok(copy.into_boxed_slice())
}

/// A value that several owners share.
///
/// # Errors
/// There is no memory; the value is dropped.
pub fn try_arc<T>(value: T) -> Result<Arc<T>, NoMemory> {
    with_memory(&[counted::<T>()], || Arc::new(value))
}

/// A copy of bytes that several owners share.
///
/// # Errors
/// There is no memory.
pub fn try_arc_bytes(bytes: &[u8]) -> Result<Arc<[u8]>, NoMemory> {
    let words = Layout::new::<[usize; 2]>();
    let (layout, _) = words
        .extend(Layout::for_value(bytes))
        .map_err(|_| NoMemory)?;
    with_memory(&[layout.pad_to_align()], || Arc::from(bytes))
}

/// A value that several owners of one thread share.
///
/// # Errors
/// There is no memory; the value is dropped.
pub fn try_rc<T>(value: T) -> Result<Rc<T>, NoMemory> {
    with_memory(&[counted::<T>()], || Rc::new(value))
}

/// A value behind its two counts, as `Arc` and `Rc` allocate it.
const fn counted<T>() -> Layout {
    let Ok((layout, _)) = Layout::new::<[usize; 2]>().extend(Layout::new::<T>()) else {
        panic!("two words more than a value fit into memory");
    };
    layout.pad_to_align()
}

/// Takes memory of these layouts, then runs `body`, whose allocations get it: each the first block
/// that it fits into, and what the system gives when there is none. What is left is given back.
///
/// # Errors
/// There is no memory; `body` was not run.
///
/// # Panics
/// There are more than 16 layouts, or one without a size.
pub fn with_memory<R>(layouts: &[Layout], body: impl FnOnce() -> R) -> Result<R, NoMemory> {
    assert!(layouts.len() <= BLOCKS_MAX, "too many blocks at once");
    let mine = Blocks::none();
    for layout in layouts {
        assert!(layout.size() > 0, "a block without a size");
        // SAFETY: the layout has a size.
        let memory = NonNull::new(unsafe { alloc(*layout) }).ok_or(NoMemory)?;
        // Or the compiler sees that nobody uses the block, and leaves out the question for it.
        mine.put(black_box(memory), *layout);
    }
    if !IS_GLOBAL.load(Ordering::Relaxed) {
        drop(mine);
        return Ok(body());
    }
    TAKEN.with(|taken| taken.swap(&mine));
    /// Puts back what was there before, also when the body unwinds.
    struct Restore(Blocks);
    impl Drop for Restore {
        fn drop(&mut self) {
            TAKEN.with(|taken| taken.swap(&self.0));
        }
    }
    let _restore = Restore(mine);
    Ok(body())
}

/// Memory that was taken and not used.
struct Blocks {
    places: [Place; BLOCKS_MAX],
    count: Cell<usize>,
}

type Place = Cell<Option<(NonNull<u8>, Layout)>>;

impl Blocks {
    const fn none() -> Self {
        Self {
            places: [const { Cell::new(None) }; BLOCKS_MAX],
            count: Cell::new(0),
        }
    }

    fn put(&self, memory: NonNull<u8>, layout: Layout) {
        let count = self.count.get();
        self.places[count].set(Some((memory, layout)));
        self.count.set(count + 1);
    }

    fn swap(&self, other: &Self) {
        for (mine, other) in self.places.iter().zip(&other.places) {
            mine.swap(other);
        }
        self.count.swap(&other.count);
    }

    /// The first block into which the layout fits.
    #[inline(always)]
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        if self.count.get() == 0 {
            return None;
        }
        self.find(layout)
    }

    #[cold]
    fn find(&self, layout: Layout) -> Option<NonNull<u8>> {
        let fits = |place: &&Place| {
            place.get().is_some_and(|(_, block)| {
                block.size() >= layout.size() && block.align() >= layout.align()
            })
        };
        let place = self.places.iter().find(fits)?;
        place.take().map(|(memory, _)| memory)
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for place in &self.places {
            if let Some((memory, layout)) = place.take() {
                // SAFETY: allocated with this layout, and nobody has got it.
                unsafe { dealloc(memory.as_ptr(), layout) };
            }
        }
    }
}

thread_local! {
    // Not dropped with the thread: it is empty outside of `with_memory`, and has to be there for
    // what other values of the thread allocate and free at its end.
    static TAKEN: std::mem::ManuallyDrop<Blocks> =
        const { std::mem::ManuallyDrop::new(Blocks::none()) };
}

/// True once an [`Allocator`] has been asked for memory: it is the global one.
static IS_GLOBAL: AtomicBool = AtomicBool::new(false);

/// The global allocator that hands out what [`with_memory`] has taken; else it asks `A`.
///
/// `A` is the system's, or asks it: a block may be larger than what it is handed out for, and is
/// freed with the smaller layout.
#[derive(Debug)]
pub struct Allocator<A = System>(A);

impl Allocator<System> {
    /// Over the system's allocator.
    #[must_use]
    pub const fn new() -> Self {
        Self(System)
    }
}

impl Default for Allocator<System> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A> Allocator<A> {
    /// Over another allocator, which gets all of its memory from the system's.
    #[must_use]
    pub const fn over(allocator: A) -> Self {
        Self(allocator)
    }
}

#[inline(always)]
fn taken(layout: Layout) -> Option<NonNull<u8>> {
    if !IS_GLOBAL.load(Ordering::Relaxed) {
        IS_GLOBAL.store(true, Ordering::Relaxed);
    }
    TAKEN.with(|taken| taken.take(layout))
}

// SAFETY: memory comes from `A`, directly or through `with_memory`, and goes back to it. A block
// that is larger than what was asked for is freed with the smaller layout: the system's allocator
// is `malloc` on every system that the driver knows, and `free` asks for no size.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Allocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match taken(layout) {
            Some(memory) => memory.as_ptr(),
            // SAFETY: the caller's contract is the other's.
            None => unsafe { self.0.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match taken(layout) {
            Some(memory) => {
                // SAFETY: the block is at least as large as the layout, and nobody else's.
                unsafe { memory.write_bytes(0, layout.size()) };
                memory.as_ptr()
            }
            // SAFETY: the caller's contract is the other's.
            None => unsafe { self.0.alloc_zeroed(layout) },
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the memory came from the other allocator, as all of it does.
        let moved = unsafe { self.0.realloc(memory, layout, size) };
        if !moved.is_null() {
            return moved;
        }
        // SAFETY: by the contract, `size` makes a layout with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let Some(block) = taken(wanted) else {
            return ptr::null_mut();
        };
        let kept = size.min(layout.size());
        // SAFETY: both blocks have so many bytes, and the new one was nobody's.
        unsafe { ptr::copy_nonoverlapping(memory, block.as_ptr(), kept) };
        // SAFETY: the old block was not moved, and nobody uses it any more.
        unsafe { self.0.dealloc(memory, layout) };
        block.as_ptr()
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from the other allocator, as all of it does.
        unsafe { self.0.dealloc(memory, layout) }
    }
}
