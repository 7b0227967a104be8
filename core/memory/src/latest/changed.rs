//! Slots that have changed: a list that any writer adds to, and the row in which the reader serves
//! them.
//!
//! The list is a stack that the reader takes whole, so that no slot is taken off while another is
//! added, and turned round, so that what changed first comes first. Slots know the next one: adding
//! needs no memory. Each slot in here is one reference to it.

use std::ptr;
use std::sync::Arc;

use super::slot::LatestSlot;
use crate::sync::{AtomicPtr, Ordering};

/// The list; the last added is the first in it.
pub(crate) struct Changed {
    newest: AtomicPtr<LatestSlot>,
}

impl Default for Changed {
    fn default() -> Self {
        Self {
            newest: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl Changed {
    /// Adds a slot that is in no list and no row.
    #[inline]
    pub(super) fn push(&self, slot: Arc<LatestSlot>) {
        let slot = Arc::into_raw(slot).cast_mut();
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            // SAFETY: the reference that `into_raw` gave up keeps it.
            unsafe { &*slot }.next.store(newest, Ordering::Relaxed);
            let (order, failed) = (Ordering::Release, Ordering::Relaxed);
            match self
                .newest
                .compare_exchange_weak(newest, slot, order, failed)
            {
                Ok(_) => return,
                Err(other) => newest = other,
            }
        }
    }

    /// Moves all slots to the end of a row, the oldest first.
    #[inline]
    pub(super) fn take(&self, row: &mut Row) {
        if self.is_empty() {
            return;
        }
        let newest = self.newest.swap(ptr::null_mut(), Ordering::Acquire);
        let (mut at, mut before) = (newest, ptr::null_mut());
        while !at.is_null() {
            // SAFETY: the list's reference keeps it, and is ours now.
            let slot = unsafe { &*at };
            let next = slot.next.load(Ordering::Relaxed);
            slot.next.store(before, Ordering::Relaxed);
            (before, at) = (at, next);
        }
        if !before.is_null() {
            row.append(before, newest);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.load(Ordering::Acquire).is_null()
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // The row drops them.
        self.take(&mut Row::default());
    }
}

/// Slots in the order in which they are served.
pub(crate) struct Row {
    first: *mut LatestSlot,
    /// Means something while there is a first.
    last: *mut LatestSlot,
}

// SAFETY: a row owns references to slots, as a list of `Arc`s would; slots are Send and Sync.
unsafe impl Send for Row {}

impl Default for Row {
    fn default() -> Self {
        Self {
            first: ptr::null_mut(),
            last: ptr::null_mut(),
        }
    }
}

impl Row {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Adds slots that are linked from `first` to `last`, whose `next` is null, with a reference to
    /// each.
    fn append(&mut self, first: *mut LatestSlot, last: *mut LatestSlot) {
        if self.first.is_null() {
            self.first = first;
        } else {
            // SAFETY: the row's reference keeps it.
            unsafe { &*self.last }.next.store(first, Ordering::Relaxed);
        }
        self.last = last;
    }

    /// Adds a slot that is in no list and no row.
    pub(super) fn push(&mut self, slot: Arc<LatestSlot>) {
        slot.next.store(ptr::null_mut(), Ordering::Relaxed);
        let slot = Arc::into_raw(slot).cast_mut();
        self.append(slot, slot);
    }

    /// Takes the first slot.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Arc<LatestSlot>> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: what is in the row came from `into_raw`, whose reference becomes this one.
        let slot = unsafe { Arc::from_raw(self.first) };
        self.first = slot.next.load(Ordering::Relaxed);
        Some(slot)
    }
}

impl Drop for Row {
    /// One after another: a long row must not use up the stack.
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}
