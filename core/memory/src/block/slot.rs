//! One place of a pool's table: the reference counts, and where the memory is.
//!
//! The word of a slot holds two counts and the low bits of the generation, so that one compare and
//! swap checks and changes them together. Here is the word and its rules; who may write the other
//! fields, and when, is said in the doc of [`block`](super).

use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicPtr;

use super::BlockUsage;
use super::class::CLASS_COUNT;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// References to one block, pending and held, at most.
pub const REFERENCES_MAX: u32 = COUNT_MASK as u32;

/// The table grows by chunks, the first of 64 slots, each of twice the last: 67 million in all.
pub(super) const CHUNK_BITS_MIN: u32 = 6;
pub(super) const CHUNK_COUNT: usize = 20;
/// The end of a free list.
const NIL: u32 = u32::MAX;

// The word of a slot: held references, pending references, low bits of the generation.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const HELD_ONE: u64 = 1;
const PENDING_ONE: u64 = 1 << COUNT_BITS;
const TAG_SHIFT: u32 = 2 * COUNT_BITS;

/// One place of the table, on its own cache line since its references are counted by many.
#[repr(align(64))]
pub(super) struct Slot {
    state: AtomicU64,
    pub(super) generation: AtomicU64,
    pub(super) size: AtomicU64,
    pub(super) memory: AtomicPtr<u8>,
    pub(super) class: AtomicU32,
    pub(super) next: AtomicU32,
    /// The memory may have bytes that nobody has ever given a value.
    pub(super) is_raw: AtomicBool,
}

const _: () = assert!(size_of::<Slot>() == 64 || cfg!(loom));

/// The free slots: with memory by class, and bare ones. Lists run through `Slot::next`, so giving
/// back never allocates.
pub(super) struct Lists {
    pub(super) cached: [u32; CLASS_COUNT],
    pub(super) counts: [u32; CLASS_COUNT],
    pub(super) bare: u32,
    /// Slots from here on have never been used.
    pub(super) unused: u32,
    pub(super) slots: u32,
    pub(super) usage: BlockUsage,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            size: AtomicU64::new(0),
            memory: AtomicPtr::new(ptr::null_mut()),
            class: AtomicU32::new(0),
            next: AtomicU32::new(NIL),
            is_raw: AtomicBool::new(true),
        }
    }

    /// Gives the slot, with what its owner has written, to whoever holds its descriptor.
    pub(super) fn publish(&self, generation: u64, pending: u32, held: u32) {
        let counts = u64::from(pending) * PENDING_ONE + u64::from(held) * HELD_ONE;
        let state = (generation << TAG_SHIFT) | counts;
        // Nobody changes a word whose counts are 0, so a store cannot lose an update.
        self.state.store(state, Ordering::Release);
    }

    /// Changes the counts (pending, held) by `change` and returns the new ones; `None`, and
    /// nothing is changed, if `change` says so or the slot has another generation by now.
    ///
    /// A turn of the loop that fails is one in which another thread succeeded.
    #[inline]
    pub(super) fn update(
        &self,
        generation: u64,
        change: impl Fn(u64, u64) -> Option<(u64, u64)>,
    ) -> Option<(u64, u64)> {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let tag = state >> TAG_SHIFT;
            if tag != generation << TAG_SHIFT >> TAG_SHIFT {
                return None;
            }
            let (pending, held) = change((state >> COUNT_BITS) & COUNT_MASK, state & COUNT_MASK)?;
            let next = (tag << TAG_SHIFT) | (pending << COUNT_BITS) | held;
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            match self
                .state
                .compare_exchange_weak(state, next, success, failure)
            {
                Ok(_) => return Some((pending, held)),
                Err(current) => state = current,
            }
        }
    }

    /// Gives the next generation to a slot whose only reference is the caller's; false: there are
    /// more.
    pub(super) fn renew(&self, generation: u64) -> bool {
        let (old, new) = (generation << TAG_SHIFT, (generation + 1) << TAG_SHIFT);
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        self.state
            .compare_exchange(old | HELD_ONE, new | HELD_ONE, success, failure)
            .is_ok()
    }

    /// Turns a held reference back into the pending one that it was.
    pub(super) fn put_back(&self) {
        self.state
            .fetch_add(PENDING_ONE - HELD_ONE, Ordering::AcqRel);
    }

    /// Drops a held reference; true if it was the last of any kind, and the slot is the caller's.
    #[inline]
    pub(super) fn drop_held(&self) -> bool {
        // Release: our reads come before the memory is used again. Acquire: so do all others'.
        let before = self.state.fetch_sub(HELD_ONE, Ordering::AcqRel);
        debug_assert!(before & COUNT_MASK > 0, "held by the caller");
        before & !(u64::MAX << TAG_SHIFT) == HELD_ONE
    }

    /// Takes the memory out of a slot that belongs to nobody, and puts the slot on the bare list.
    pub(super) fn strip(&self, lists: &mut Lists, index: u32) -> Option<NonNull<u8>> {
        let memory = self.memory.swap(ptr::null_mut(), Ordering::Relaxed);
        self.next.store(lists.bare, Ordering::Relaxed);
        lists.bare = index;
        NonNull::new(memory)
    }
}

impl Lists {
    pub(super) fn new() -> Self {
        Self {
            cached: [NIL; CLASS_COUNT],
            counts: [0; CLASS_COUNT],
            bare: NIL,
            unused: 0,
            slots: 0,
            usage: BlockUsage::default(),
        }
    }
}

/// Chunk and offset of a slot. `NIL` and other indices beyond the table have a chunk beyond it.
#[inline]
pub(super) fn place_of(index: u32) -> (usize, usize) {
    let place = u64::from(index) + (1 << CHUNK_BITS_MIN);
    let bits = place.ilog2();
    (
        (bits - CHUNK_BITS_MIN) as usize,
        (place - (1 << bits)) as usize,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_its_own_place() {
        let check = |index: u32, place: (usize, usize)| assert_eq!(place_of(index), place);
        check(0, (0, 0));
        check(63, (0, 63));
        check(64, (1, 0));
        check(191, (1, 127));
        check(192, (2, 0));
        assert!(place_of(NIL).0 >= CHUNK_COUNT);
    }
}
