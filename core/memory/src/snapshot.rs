//! A pointer that many threads read without a lock while one replaces what it points to.
//!
//! This is the one reclamation scheme of the engine: what readers of the interest table follow
//! (pages, crowds, the list of shapes) is a value behind a [`Snapshot`]; a reader holds a [`Pin`]
//! and sees either the old value or the new one, whole, and neither is freed while a pin that could
//! have seen it lives. Routes and lanes belong to one thread each and need none of this.
//!
//! # Why nothing is freed too early
//! There is one epoch for the process, and two counts of pins: one for even epochs, one for odd
//! ones. A pin counts itself in the count of the epoch that it sees, old or new, and only then
//! loads pointers. The epoch moves on only while the count that the next one will use is 0.
//! A value that was swapped out is noted with the epoch `r`, and freed once that is `r + 2`. The
//! note is made and the epoch moved under one lock, so both moves came after the swap, and one of
//! them has found one count at 0, the other the other.
//!
//! Counting, loading a pointer, swapping it and looking at a count are sequentially consistent, so
//! they happen in one order. A reader that got the old value had counted itself before the swap,
//! so one of the two looks saw it, unless it was gone by then. It leaves with release, which that
//! look acquires: what the reader did comes before the value is freed.
//!
//! No allocation but for the list of what is to be freed, and no thread registers: a thread that
//! ends has nothing to give back. What bounds the list is that pins are short: none is held while
//! a handler runs or while its thread waits for its turn to change the table.
//!
//! Not here: compare and swap, and any order between several writers. Writers hold a lock of
//! their own, because a table is made from the one before it.
//!
//! Checked by a loom model, and by `tests/snapshot.rs` (threads, canaries), which also runs under
//! the sanitizers.

use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use std::cell::Cell;
use std::collections::VecDeque;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Mutex, Ordering, fence_of_model, lock};

/// Counts beside each other, so that threads that pin do not write the same cache line.
pub(crate) const SHARDS: usize = if cfg!(loom) { 1 } else { 16 };
/// Values that one store frees at most: it adds one, so a heap of them gets smaller.
const FREED_MAX: usize = 16;

/// The current version of a value that its readers share, or nothing; one pointer in size.
///
/// Reading costs one load. What is replaced is dropped later, on any thread that stores, so `T` is
/// `Send`, `Sync` and `'static`; nothing may rely on *when* it is dropped.
///
/// Invariant: the pointer is null or owns one `Box<T>`; a value leaves it only by `store` or by
/// the drop of the snapshot, and then belongs to the list of retired values.
pub struct Snapshot<T: Send + Sync + 'static> {
    current: AtomicPtr<T>,
    owned: PhantomData<Box<T>>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Snapshot<[u64; 8]>>() == size_of::<usize>());

/// Keeps alive every value that is loaded with it while it exists.
///
/// Cheap to make, not free: take one per call or per batch, not one per message. A pin held for
/// long holds back all reclamation of the process, so never sleep with one.
pub struct Pin {
    count: &'static AtomicU32,
}

/// What all snapshots of the process share.
struct Domain {
    epoch: CachePadded<AtomicU64>,
    shards: [CachePadded<Shard>; SHARDS],
    retired: Mutex<VecDeque<Retired>>,
}

/// How many are pinned in even epochs, and how many in odd ones.
type Shard = [AtomicU32; 2];

/// A value that no snapshot holds any more.
struct Retired {
    /// The one that was current after it was swapped out.
    epoch: u64,
    value: *mut (),
    free: unsafe fn(*mut ()),
}

// SAFETY: the value is `Send`: it came out of a `Snapshot<T>`, whose `T` is.
unsafe impl Send for Retired {}

#[cfg(not(loom))]
fn domain() -> &'static Domain {
    static DOMAIN: Domain = Domain {
        epoch: CachePadded::new(AtomicU64::new(0)),
        shards: [const { CachePadded::new([const { AtomicU32::new(0) }; 2]) }; SHARDS],
        retired: Mutex::new(VecDeque::new()),
    };
    &DOMAIN
}

#[cfg(loom)]
fn domain() -> &'static Domain {
    loom::lazy_static! {
        static ref DOMAIN: Domain = Domain {
            epoch: CachePadded::new(AtomicU64::new(0)),
            shards: [CachePadded::new([AtomicU32::new(0), AtomicU32::new(0)])],
            retired: Mutex::new(VecDeque::new()),
        };
    }
    &DOMAIN
}

/// The shard of this thread.
#[inline]
pub(crate) fn shard() -> usize {
    static NEXT: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    if cfg!(loom) {
        return 0;
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        mine.get()
    })
}

/// Pins: what is loaded from now on stays valid until the pin is dropped.
#[inline]
#[must_use = "values are only kept alive while the pin exists"]
pub fn pin() -> Pin {
    let domain = domain();
    let epoch = domain.epoch.load(Ordering::Relaxed);
    let count = &domain.shards[shard()][(epoch & 1) as usize];
    count.fetch_add(1, Ordering::SeqCst);
    fence_of_model();
    Pin { count }
}

impl Drop for Pin {
    #[inline]
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Release);
    }
}

impl<T: Send + Sync + 'static> Snapshot<T> {
    /// A snapshot that holds `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self {
            current: AtomicPtr::new(Box::into_raw(Box::new(value))),
            owned: PhantomData,
        }
    }

    /// A snapshot that holds nothing; it does not allocate.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            owned: PhantomData,
        }
    }

    /// The current value, or `None`.
    ///
    /// The reference outlives later stores, and even the snapshot itself, for as long as `pin`.
    #[inline]
    pub fn load<'g>(&self, _pin: &'g Pin) -> Option<&'g T> {
        let current = self.current.load(Ordering::SeqCst);
        // SAFETY: the pointer is null or came from a `Box<T>` in `new` or `store`. It is freed
        // only after it was swapped out and every pin of that time is gone, hence after `_pin`;
        // nobody has a `&mut` to it before that. The load acquires what the swap (or whoever
        // shared `&self` itself, for the value of `new`) released.
        unsafe { current.as_ref() }
    }

    /// Replaces the value; the old one is dropped when no pin can see it any more.
    ///
    /// Retired values wait for the next stores, or for [`Pin::flush`]. Should there be no memory to
    /// note one, it is never dropped.
    pub fn store(&self, value: Option<Box<T>>) {
        let new = value.map_or(ptr::null_mut(), Box::into_raw);
        let old = self.current.swap(new, Ordering::SeqCst);
        if old.is_null() {
            return;
        }
        fence_of_model();
        domain().retire(old.cast(), free::<T>);
    }
}

/// Drops what `Box::into_raw` gave.
///
/// # Safety
/// `value` is from a `Box<T>`, and nobody uses it any more.
unsafe fn free<T>(value: *mut ()) {
    // SAFETY: by the contract.
    drop(unsafe { Box::from_raw(value.cast::<T>()) });
}

impl Domain {
    fn retire(&self, value: *mut (), free: unsafe fn(*mut ())) {
        let mut retired = lock(&self.retired);
        if retired.try_reserve(1).is_err() {
            return;
        }
        // Under the lock, so that the list is in the order of epochs.
        let epoch = self.epoch.load(Ordering::Relaxed);
        retired.push_back(Retired { epoch, value, free });
        drop(retired);
        self.free_some();
    }

    /// Moves the epoch on if that is possible. Only under the lock of the list.
    fn turn(&self) -> u64 {
        let epoch = self.epoch.load(Ordering::Relaxed);
        let next = ((epoch + 1) & 1) as usize;
        let mut shards = self.shards.iter();
        if shards.any(|shard| shard[next].load(Ordering::SeqCst) != 0) {
            return epoch;
        }
        self.epoch.store(epoch + 1, Ordering::Relaxed);
        epoch + 1
    }

    /// Frees values that nobody can see any more.
    fn free_some(&self) {
        thread_local! {
            static IS_FREEING: Cell<bool> = const { Cell::new(false) };
        }
        // What a value retires when it is dropped waits for the next turn of the loop below:
        // a long chain must not use up the stack.
        if IS_FREEING.replace(true) {
            return;
        }
        struct Done;
        impl Drop for Done {
            fn drop(&mut self) {
                IS_FREEING.set(false);
            }
        }
        let _done = Done;
        for _ in 0..FREED_MAX {
            let mut retired = lock(&self.retired);
            let Some(first) = retired.front() else { return };
            let due = first.epoch + 2;
            // Twice, for a value that was retired just now when nobody is pinned.
            let is_due = self.epoch.load(Ordering::Relaxed) >= due
                || self.turn() >= due
                || self.turn() >= due;
            if !is_due {
                return;
            }
            let Some(first) = retired.pop_front() else {
                return;
            };
            drop(retired);
            // SAFETY: it was swapped out by one `store`, which retired it once, and every pin of
            // that time is gone: see the head of this file.
            unsafe { (first.free)(first.value) };
        }
    }
}

impl<T: Send + Sync + 'static> Default for Snapshot<T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T: Send + Sync + 'static> Drop for Snapshot<T> {
    /// Retires the value. It is not freed on the spot, because a reference from `load` lives as
    /// long as its pin and not as long as the snapshot.
    fn drop(&mut self) {
        self.store(None);
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.load(&pin())).finish()
    }
}

/// Frees some of what is due, of all threads. The caller has no pin, or what it protects stays.
pub fn flush() {
    domain().free_some();
}

impl Pin {
    /// Frees some of what is due, of all threads. What this pin itself protects stays.
    pub fn flush(&self) {
        domain().free_some();
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}
