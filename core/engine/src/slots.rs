//! Subscription ids: a table of numbers that any reader may look at without a lock.
//!
//! A slot holds what a reader needs for each message (is it still subscribed, its tag, its
//! counters) in atomics, so nothing is ever freed under a reader. An id is the slot's index with a
//! generation; slots are reused late, so that an id left in a record names nobody else before
//! 262,144 subscriptions have come and gone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use fastmq_memory::sync::{Mutex, OnceLock, lock};

/// Bits of an id that name the slot: 16.7 million subscriptions at once.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
/// Slots of the first chunk. Chunks double in size after every eight, so that little of the
/// last one is unused.
const CHUNK_FIRST: u32 = 64;
const CHUNKS_ALIKE_BITS: u32 = 3;
const CHUNKS: usize = 128;
/// Slots that stay unused before the oldest of them is used again.
const FREE_MIN: usize = 1024;

/// What a reader needs to know of one subscription.
#[derive(Debug, Default)]
pub struct Slot {
    /// In use, and the generation; below them how many messages were dropped, which does not
    /// overflow in ten years of a drop every ten nanoseconds.
    state: AtomicU64,
    tag: AtomicU64,
    delivered: AtomicU64,
}

// A subscription is there without a message, too: bytes count.
const _: () = assert!(size_of::<Slot>() == 24);

const DROPPED_BITS: u32 = u64::BITS - 1 - (u32::BITS - INDEX_BITS);
const USED: u64 = 1 << (u64::BITS - 1);

/// The upper part of the state of a slot that `id` names.
#[inline(always)]
fn state_of(id: u32) -> u64 {
    USED | u64::from(id >> INDEX_BITS) << DROPPED_BITS
}

impl Slot {
    /// True while the subscription with this id, by which the slot was found, exists.
    #[inline(always)]
    pub fn is(&self, id: u32) -> bool {
        (self.state.load(Ordering::Relaxed) ^ state_of(id)) >> DROPPED_BITS == 0
    }

    /// The number given at subscribe.
    #[inline(always)]
    pub fn tag(&self) -> u64 {
        self.tag.load(Ordering::Relaxed)
    }

    /// Counts delivered messages. Called by one reader at a time, so no read-modify-write.
    #[inline(always)]
    pub fn count(&self, messages: u64) {
        let delivered = self.delivered.load(Ordering::Relaxed);
        self.delivered
            .store(delivered + messages, Ordering::Relaxed);
    }

    /// Counts one dropped message; any writer may.
    pub fn count_dropped(&self) {
        self.count_dropped_by(1);
    }

    /// Counts dropped messages: fewer than 2^40, so that their sum does not reach the generation.
    pub(crate) fn count_dropped_by(&self, messages: u64) {
        self.state.fetch_add(messages, Ordering::Relaxed);
    }

    /// Messages delivered and messages dropped.
    pub fn counts(&self) -> (u64, u64) {
        let dropped = self.state.load(Ordering::Relaxed) & ((1 << DROPPED_BITS) - 1);
        (self.delivered.load(Ordering::Relaxed), dropped)
    }
}

#[derive(Debug, Default)]
struct Free {
    next: u32,
    returned: VecDeque<u32>,
}

/// The table.
#[derive(Debug)]
pub struct Slots {
    chunks: [OnceLock<Box<[Slot]>>; CHUNKS],
    free: Mutex<Free>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            // Index 0 is never used: a record of no subscription has id 0.
            free: Mutex::new(Free {
                next: 1,
                returned: VecDeque::new(),
            }),
        }
    }
}

/// Chunk and place of an index.
#[inline(always)]
fn locate(index: u32) -> (usize, usize) {
    // As a floating point number: the exponent and the first bits after it are the chunk.
    let number = index + (CHUNK_FIRST << CHUNKS_ALIKE_BITS);
    let size_bits = number.ilog2() - CHUNKS_ALIKE_BITS;
    let chunk = (size_bits - CHUNK_FIRST.ilog2()) << CHUNKS_ALIKE_BITS;
    let chunk = chunk + (number >> size_bits) - (1 << CHUNKS_ALIKE_BITS);
    (chunk as usize, (number & ((1 << size_bits) - 1)) as usize)
}

/// Slots of a chunk.
fn size_of_chunk(chunk: usize) -> usize {
    (CHUNK_FIRST as usize) << (chunk >> CHUNKS_ALIKE_BITS)
}

impl Slots {
    /// The slot that `id` names or once named.
    #[inline(always)]
    pub fn get(&self, id: u32) -> Option<&Slot> {
        let (chunk, at) = locate(id & INDEX_MASK);
        self.chunks.get(chunk)?.get()?.get(at)
    }

    /// A new id, or `None` when the table or the memory is full.
    pub fn take(&self, tag: u64) -> Option<u32> {
        let mut free = lock(&self.free);
        let id = if free.returned.len() > FREE_MIN || free.next > INDEX_MASK {
            let old = free.returned.pop_front()?;
            // The generation lives above the index and skips 0 of index 0.
            old.wrapping_add(1 << INDEX_BITS)
        } else {
            let (chunk, _) = locate(free.next);
            let chunk_cell = self.chunks.get(chunk)?;
            if chunk_cell.get().is_none() {
                let size = size_of_chunk(chunk);
                // Room for each index, so that giving one back needs no memory.
                let indices = free.next as usize + size - free.returned.len();
                free.returned.try_reserve_exact(indices).ok()?;
                let mut slots = Vec::new();
                slots.try_reserve_exact(size).ok()?;
                slots.resize_with(size, Slot::default);
                let _ = chunk_cell.set(slots.into_boxed_slice());
            }
            free.next += 1;
            free.next - 1
        };
        drop(free);
        let slot = self.get(id)?;
        slot.tag.store(tag, Ordering::Relaxed);
        slot.delivered.store(0, Ordering::Relaxed);
        slot.state.store(state_of(id), Ordering::Release);
        Some(id)
    }

    /// Gives an id back.
    pub fn give(&self, id: u32) {
        if let Some(slot) = self.get(id) {
            slot.state.fetch_and(!USED, Ordering::Release);
        }
        lock(&self.free).returned.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_fill_the_chunks_without_gap() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            let at = locate(index);
            assert_eq!(at, expected, "index {index}");
            expected.1 += 1;
            if expected.1 == size_of_chunk(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(locate(INDEX_MASK).0 < CHUNKS);
    }

    #[test]
    fn a_slot_counts_and_names_its_id_whatever_was_dropped() {
        let slots = Slots::default();
        let id = slots.take(7).unwrap();
        let slot = slots.get(id).unwrap();
        slot.count(3);
        (0..1000).for_each(|_| slot.count_dropped());
        assert!(slot.is(id) && !slot.is(id + (1 << INDEX_BITS)));
        assert_eq!((slot.tag(), slot.counts()), (7, (3, 1000)));
        slots.give(id);
        assert!(!slot.is(id));
    }

    #[test]
    fn the_last_index_is_given_once_and_names_no_other_slot() {
        let slots = Slots::default();
        let first = slots.take(7).unwrap();
        lock(&slots.free).next = INDEX_MASK;
        let last = slots.take(8).unwrap();
        assert_eq!(last, INDEX_MASK);
        assert_eq!(slots.take(9), None);
        assert_eq!(slots.take(9), None);
        assert_eq!(slots.get(first).unwrap().tag(), 7);
        assert_eq!(slots.get(last).unwrap().tag(), 8);
        // What is given back is all that there is.
        slots.give(first);
        assert_eq!(slots.take(9), Some(first + (1 << INDEX_BITS)));
        assert_eq!(slots.take(9), None);
    }

    #[test]
    fn an_id_given_back_names_nobody_and_returns_late_with_another_generation() {
        let slots = Slots::default();
        let first = slots.take(7).unwrap();
        assert_eq!(slots.get(first).unwrap().tag(), 7);
        slots.give(first);
        assert!(!slots.get(first).unwrap().is(first));
        let mut seen = Vec::new();
        for _ in 0..3000 {
            let id = slots.take(0).unwrap();
            assert_ne!(id, first);
            seen.push(id);
            slots.give(id);
        }
        assert!(seen.iter().any(|id| id & INDEX_MASK == first & INDEX_MASK));
    }
}
