//! A pointer that many threads read without a lock while one replaces what it points to.
//!
//! This is the one reclamation scheme of the engine: interest tables, routes and lane lists are
//! immutable values behind a [`Snapshot`]; a reader holds a [`Pin`] and sees either the old value
//! or the new one, whole, and neither is freed while a pin that could have seen it lives.
//! `crossbeam-epoch` does the work and is hidden completely, so that it can be replaced.
//!
//! Invariant: the pointer is null or owns one `Box<T>`; a value leaves it only by `store` or by
//! the drop of the snapshot, and then belongs to the collector.
//! Not here: compare and swap, and any order between several writers. Writers hold a lock of
//! their own, because a table is made from the one before it.
//!
//! Checked by `tests/snapshot.rs` (threads, canaries; also the test for the sanitizers). There is
//! no loom model, because `crossbeam-epoch` carries its own.

use core::fmt;
use core::sync::atomic::Ordering;

use crossbeam_epoch::{Atomic, Guard, Owned, Shared};

/// The current version of an immutable value, or nothing; one pointer in size.
///
/// Reading costs one load. What is replaced is dropped later, on any thread that pins, so `T` is
/// `Send`, `Sync` and `'static`; nothing may rely on *when* it is dropped.
pub struct Snapshot<T: Send + Sync + 'static> {
    current: Atomic<T>,
}

const _: () = assert!(size_of::<Snapshot<[u64; 8]>>() == size_of::<usize>());

/// Keeps alive every value that this thread loads while it exists.
///
/// Cheap to make (cheaper still inside another pin of the same thread), not free: take one per
/// call or per batch, not one per message. A pin held for long holds back all reclamation of the
/// process, so never sleep with one.
pub struct Pin {
    guard: Guard,
}

/// Pins the calling thread: what it loads from now on stays valid until the pin is dropped.
#[inline]
#[must_use = "values are only kept alive while the pin exists"]
pub fn pin() -> Pin {
    Pin {
        guard: crossbeam_epoch::pin(),
    }
}

impl<T: Send + Sync + 'static> Snapshot<T> {
    /// A snapshot that holds `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self {
            current: Atomic::new(value),
        }
    }

    /// A snapshot that holds nothing; it does not allocate.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            current: Atomic::null(),
        }
    }

    /// The current value, or `None`.
    ///
    /// The reference outlives later stores, and even the snapshot itself, for as long as `pin`.
    #[inline]
    pub fn load<'g>(&self, pin: &'g Pin) -> Option<&'g T> {
        let current = self.current.load(Ordering::Acquire, &pin.guard);
        // SAFETY: the pointer is null or came from a `Box<T>` in `new` or `store`. It is freed
        // only by `defer_destroy` after it was swapped out, hence after `pin` is gone; nobody has
        // a `&mut` to it before that. Acquire pairs with the release of the swap (or with how
        // `&self` itself was shared, for the value of `new`).
        unsafe { current.as_ref() }
    }

    /// Replaces the value; the old one is dropped when no pin can see it any more.
    ///
    /// Retired values wait in a small buffer of the calling thread. Call [`Pin::flush`] after
    /// retiring something large, or as the last store for a long time.
    pub fn store(&self, value: Option<Box<T>>) {
        let guard = crossbeam_epoch::pin();
        let old = match value {
            Some(value) => self
                .current
                .swap(Owned::from(value), Ordering::AcqRel, &guard),
            None => self.current.swap(Shared::null(), Ordering::AcqRel, &guard),
        };
        if !old.is_null() {
            // SAFETY: the swap made this thread the only one to take `old` out, and no later load
            // can return it, so it is destroyed once, after every pin of today. `T: Send` lets
            // another thread do it, `T: 'static` lets it happen late.
            unsafe { guard.defer_destroy(old) };
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

impl Pin {
    /// Hands what this thread has retired to the collector and frees some of what is due.
    ///
    /// What this pin itself protects stays. A value is due after two more turns of the epoch, so
    /// dropping everything takes a few calls, each under a fresh pin.
    pub fn flush(&self) {
        self.guard.flush();
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}
