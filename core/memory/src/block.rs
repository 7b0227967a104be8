//! The block pool: a payload is written once, and any number of lanes carry 32 bytes that name it.
//!
//! For large payloads and wide fan-out. A [`Descriptor`] is plain bytes and may be stale, doubled
//! or forged; it is checked against a table and never followed as an address. Memory comes in
//! powers of two, is kept for the next payload up to a bound, and is counted by the client's
//! budget.
//!
//! # References
//! A block has two counts in one word. *Pending* references belong to descriptors in lanes; *held*
//! ones to a [`BlockRef`]. `get` turns one pending reference into a held one, `release` takes
//! pending ones away, and memory is recycled when both counts are 0. So no descriptor, however
//! wrong, can free what a `BlockRef` reads: the worst a forged one does is to use up a pending
//! reference, for which a later `get` answers `None`.
//!
//! Invariants: a slot with both counts at 0 belongs to whoever brought them there, then to the free
//! lists (under the lock), then to the writer that took it; only that owner writes `memory`, `size`
//! and `generation`, and hands them on by `Slot::publish`. Slots never move.
//!
//! Checked by `tests/block.rs` (threads, canaries), which also runs under the sanitizers. There is
//! no loom model: the table holds more words than loom can explore.

mod claim;
mod class;
mod descriptor;
mod slot;

use core::fmt;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::slice;
use std::sync::Arc;

use self::class::{ALIGN, CLASS_COUNT, class_bytes, class_of};
use self::slot::{CHUNK_BITS_MIN, CHUNK_COUNT, Lists, Slot, place_of};
use crate::arena;
use crate::budget::Budget;
use crate::spare::Spares;
use crate::sync::{Mutex, MutexGuard, OnceLock, Ordering, lock};

pub use self::claim::{BlockClaim, SharedBlock};
pub use self::class::BLOCK_BYTES_MAX;
pub use self::descriptor::Descriptor;
pub use self::slot::REFERENCES_MAX;

/// Free memory that a pool keeps, at most; an eighth of the memory cap if that is less.
pub const CACHED_BYTES_MAX: u64 = 8 << 20;

/// How many cached blocks one miss gives back, at most.
const EVICTED_MAX: u32 = 64;

/// Payloads that are shared by descriptor. Share it as `Arc<BlockPool>`.
pub struct BlockPool {
    id: u32,
    cached_bytes_max: u64,
    budget: Arc<Budget>,
    table: [OnceLock<Box<[Slot]>>; CHUNK_COUNT],
    lists: Mutex<Lists>,
    pub(crate) spares: Spares,
}

/// One reference to a block: reads its payload, and gives the reference back when dropped.
pub struct BlockRef {
    pool: Arc<BlockPool>,
    index: u32,
    data: NonNull<u8>,
    size: usize,
}

/// Why a payload was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockError {
    /// The client's memory cap is reached.
    OverBudget,
    /// The allocator said no, or the table is full.
    NoMemory,
    /// The payload is larger than [`BLOCK_BYTES_MAX`].
    TooLarge,
    /// More than [`REFERENCES_MAX`] references were asked for.
    TooManyReferences,
}

/// What a pool holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockUsage {
    /// Blocks that somebody refers to.
    pub blocks: u64,
    /// Their memory, which is up to twice their payloads.
    pub live_bytes: u64,
    /// Memory kept for the next payloads.
    pub cached_bytes: u64,
    /// Memory of the table; it grows with the most blocks ever live and does not shrink.
    pub table_bytes: u64,
}

impl BlockPool {
    /// An empty pool whose memory `budget` counts; it allocates at the first payload.
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Self {
        static NEXT_ID: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(1);
        let share = if budget.max() == 0 {
            u64::MAX
        } else {
            budget.max() / 8
        };
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            cached_bytes_max: CACHED_BYTES_MAX.min(share),
            budget,
            table: core::array::from_fn(|_| OnceLock::new()),
            lists: Mutex::new(Lists::new()),
            spares: Spares::new(),
        }
    }

    /// Copies `payload` into a block with `references` pending references, and names it.
    ///
    /// With 0 references nothing is written, and the descriptor names no block.
    ///
    /// # Errors
    /// [`BlockError`]; nothing is held then.
    pub fn write(&self, payload: &[u8], references: u32) -> Result<Descriptor, BlockError> {
        let size = payload.len() as u64;
        if references == 0 {
            return Ok(Descriptor {
                pool: self.id,
                index: 0,
                generation: 0,
                size,
            });
        }
        if references > REFERENCES_MAX {
            return Err(BlockError::TooManyReferences);
        }
        let class = class_of(payload.len()).ok_or(BlockError::TooLarge)?;
        let index = self.take(class, false)?;
        let slot = self
            .slot(index)
            .expect("a slot that was taken is in the table");
        let memory = slot.memory.load(Ordering::Relaxed);
        // SAFETY: the slot is ours alone (both counts are 0, and it is on no list), and its memory
        // is of `class`, which is no smaller than the payload; the payload is the caller's, so
        // the two cannot overlap.
        unsafe { ptr::copy_nonoverlapping(payload.as_ptr(), memory, payload.len()) };
        let generation = slot.generation.load(Ordering::Relaxed) + 1;
        slot.generation.store(generation, Ordering::Relaxed);
        slot.size.store(size, Ordering::Relaxed);
        slot.publish(generation, references, 0);
        Ok(Descriptor {
            pool: self.id,
            index,
            generation,
            size,
        })
    }

    /// Adds `count` pending references; false, and nothing is added, if the descriptor names no
    /// living block or the block would have more than [`REFERENCES_MAX`].
    ///
    /// Hold a reference of one's own meanwhile, else the block may be gone.
    #[must_use = "descriptors without a reference name nothing"]
    pub fn add_references(&self, descriptor: &Descriptor, count: u32) -> bool {
        let Some(slot) = self.named(descriptor) else {
            return false;
        };
        let added = slot.update(descriptor.generation, |pending, held| {
            let sum = pending + held + u64::from(count);
            let is_alive = pending + held > 0;
            (is_alive && sum <= u64::from(REFERENCES_MAX))
                .then(|| (pending + u64::from(count), held))
        });
        added.is_some()
    }

    /// Turns one pending reference into a [`BlockRef`]; `None` if the descriptor names no living
    /// block of this pool, or no reference is pending.
    #[must_use]
    pub fn get(self: &Arc<Self>, descriptor: &Descriptor) -> Option<BlockRef> {
        let slot = self.named(descriptor)?;
        slot.update(descriptor.generation, |pending, held| {
            Some((pending.checked_sub(1)?, held + 1))
        })?;
        // From here on the slot keeps its memory and size, because a reference is held.
        if slot.generation.load(Ordering::Relaxed) != descriptor.generation {
            // The slot was reused between the look and the update, 2^16 generations on, so that
            // the tags agree. The reference was another's: it gets it back.
            slot.put_back();
            return None;
        }
        let data = NonNull::new(slot.memory.load(Ordering::Relaxed));
        let data = data.expect("a slot with references has memory");
        let size = usize::try_from(slot.size.load(Ordering::Relaxed)).ok();
        let size = size.expect("a size that was a usize when it was written");
        Some(BlockRef {
            pool: Arc::clone(self),
            index: descriptor.index,
            data,
            size,
        })
    }

    /// Gives back `count` pending references, as when lanes are dropped or evicted.
    ///
    /// False, and nothing is given back, if the descriptor names no living block or fewer are
    /// pending.
    pub fn release(&self, descriptor: &Descriptor, count: u32) -> bool {
        if count == 0 {
            return true;
        }
        let Some(slot) = self.named(descriptor) else {
            return false;
        };
        let left = slot.update(descriptor.generation, |pending, held| {
            Some((pending.checked_sub(u64::from(count))?, held))
        });
        if left == Some((0, 0)) {
            self.recycle(descriptor.index, slot);
        }
        left.is_some()
    }

    /// Frees the memory that is kept for the next payloads.
    pub fn trim(&self) {
        // No more than there are now: others may go on giving back.
        let cached: u32 = lock(&self.lists).counts.iter().sum();
        for _ in 0..cached {
            let evicted = self.evict(&mut lock(&self.lists));
            let Some((memory, class)) = evicted else {
                return;
            };
            self.deallocate(memory, class);
        }
    }

    /// What the pool holds now.
    #[must_use]
    pub fn usage(&self) -> BlockUsage {
        lock(&self.lists).usage
    }

    /// The slot that a descriptor names, if the descriptor is right at this moment.
    #[inline]
    fn named(&self, descriptor: &Descriptor) -> Option<&Slot> {
        if descriptor.pool != self.id || descriptor.generation == 0 {
            return None;
        }
        let slot = self.slot(descriptor.index)?;
        let is_same = slot.generation.load(Ordering::Relaxed) == descriptor.generation
            && slot.size.load(Ordering::Relaxed) == descriptor.size;
        is_same.then_some(slot)
    }

    /// A slot of the table; no lock.
    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot> {
        let (chunk, offset) = place_of(index);
        self.table.get(chunk)?.get()?.get(offset)
    }

    /// A free slot with memory of `class`, the caller's alone; new memory is zeroed if asked for.
    fn take(&self, class: usize, is_zeroed: bool) -> Result<u32, BlockError> {
        if let Some(index) = self.pop_cached(&mut lock(&self.lists), class) {
            return Ok(index);
        }
        self.make_room(class);
        let memory = self.allocate(class, is_zeroed).or_else(|_| {
            // What is kept for other sizes may be what is missing.
            self.trim();
            self.allocate(class, is_zeroed)
        })?;
        let index = match self.pop_bare(&mut lock(&self.lists), class) {
            Ok(index) => index,
            Err(error) => {
                self.deallocate(memory, class);
                return Err(error);
            }
        };
        let slot = self
            .slot(index)
            .expect("a slot that was taken is in the table");
        slot.class.store(class as u32, Ordering::Relaxed);
        slot.memory.store(memory.as_ptr(), Ordering::Relaxed);
        slot.is_raw.store(!is_zeroed, Ordering::Relaxed);
        Ok(index)
    }

    /// Takes back a slot whose counts have both become 0 by the caller's doing.
    #[cold]
    #[inline(never)]
    fn recycle(&self, index: u32, slot: &Slot) {
        let class = slot.class.load(Ordering::Relaxed) as usize;
        let bytes = class_bytes(class);
        let mut lists = lock(&self.lists);
        lists.usage.blocks -= 1;
        lists.usage.live_bytes -= bytes;
        if lists.usage.cached_bytes + bytes <= self.cached_bytes_max {
            slot.next.store(lists.cached[class], Ordering::Relaxed);
            lists.cached[class] = index;
            lists.counts[class] += 1;
            lists.usage.cached_bytes += bytes;
            return;
        }
        let memory = slot.strip(&mut lists, index);
        drop(lists);
        if let Some(memory) = memory {
            self.deallocate(memory, class);
        }
    }

    /// A miss while the cache is full means that it holds the wrong sizes: gives back about as
    /// much as the new block takes, so that the cache follows the traffic.
    fn make_room(&self, class: usize) {
        let bytes = class_bytes(class);
        let mut freed_bytes = 0;
        for _ in 0..EVICTED_MAX {
            let mut lists = lock(&self.lists);
            let is_room = lists.usage.cached_bytes + bytes <= self.cached_bytes_max;
            if is_room || freed_bytes >= bytes {
                return;
            }
            let evicted = self.evict(&mut lists);
            drop(lists);
            let Some((memory, evicted_class)) = evicted else {
                return;
            };
            self.deallocate(memory, evicted_class);
            freed_bytes += class_bytes(evicted_class);
        }
    }

    /// Takes the memory of one cached slot, from the class that holds most.
    fn evict(&self, lists: &mut Lists) -> Option<(NonNull<u8>, usize)> {
        let held_bytes = |class: &usize| u64::from(lists.counts[*class]) * class_bytes(*class);
        let class = (0..CLASS_COUNT).max_by_key(held_bytes)?;
        let index = lists.cached[class];
        let slot = self.slot(index)?;
        self.unlink_cached(lists, class, slot);
        Some((slot.strip(lists, index)?, class))
    }

    /// The first cached slot of a class becomes the caller's.
    fn pop_cached(&self, lists: &mut Lists, class: usize) -> Option<u32> {
        let index = lists.cached[class];
        let slot = self.slot(index)?;
        self.unlink_cached(lists, class, slot);
        lists.usage.blocks += 1;
        lists.usage.live_bytes += class_bytes(class);
        Some(index)
    }

    fn unlink_cached(&self, lists: &mut Lists, class: usize, first: &Slot) {
        lists.cached[class] = first.next.load(Ordering::Relaxed);
        lists.counts[class] -= 1;
        lists.usage.cached_bytes -= class_bytes(class);
    }

    /// A slot without memory becomes the caller's, who puts memory of `class` into it.
    fn pop_bare(&self, lists: &mut MutexGuard<'_, Lists>, class: usize) -> Result<u32, BlockError> {
        let index = if let Some(slot) = self.slot(lists.bare) {
            let index = lists.bare;
            lists.bare = slot.next.load(Ordering::Relaxed);
            index
        } else {
            if lists.unused == lists.slots {
                self.grow(lists)?;
            }
            lists.unused += 1;
            lists.unused - 1
        };
        lists.usage.blocks += 1;
        lists.usage.live_bytes += class_bytes(class);
        Ok(index)
    }

    /// Adds a chunk to the table. Under the lock, which is held this long some twenty times in the
    /// life of the largest pool.
    fn grow(&self, lists: &mut Lists) -> Result<(), BlockError> {
        let (chunk, _) = place_of(lists.slots);
        let place = self.table.get(chunk).ok_or(BlockError::NoMemory)?;
        let count = 1_usize << (CHUNK_BITS_MIN + chunk as u32);
        let bytes = (count * size_of::<Slot>()) as u64;
        self.budget
            .reserve(bytes)
            .map_err(|_| BlockError::OverBudget)?;
        let mut slots = Vec::new();
        if slots.try_reserve_exact(count).is_err() {
            self.budget.release(bytes);
            return Err(BlockError::NoMemory);
        }
        slots.resize_with(count, Slot::new);
        let is_new = place.set(slots.into_boxed_slice()).is_ok();
        assert!(is_new, "chunk {chunk} is added once, under the lock");
        lists.slots += count as u32;
        lists.usage.table_bytes += bytes;
        Ok(())
    }

    fn allocate(&self, class: usize, is_zeroed: bool) -> Result<NonNull<u8>, BlockError> {
        let bytes = class_bytes(class);
        self.budget
            .reserve(bytes)
            .map_err(|_| BlockError::OverBudget)?;
        let arena = self.budget.arena();
        arena::take(arena, bytes as usize, ALIGN, is_zeroed).map_err(|_| {
            self.budget.release(bytes);
            match arena {
                Some(_) => BlockError::OverBudget,
                None => BlockError::NoMemory,
            }
        })
    }

    /// Frees memory that `allocate` gave for the same class, and that no slot holds any more.
    fn deallocate(&self, memory: NonNull<u8>, class: usize) {
        let arena = self.budget.arena();
        // SAFETY: the memory left its slot by `Slot::strip` or never was in one, so this is its
        // only owner; it was taken for this class.
        unsafe { arena::give(arena, memory, class_bytes(class) as usize, ALIGN) };
        self.budget.release(class_bytes(class));
    }
}

impl Drop for BlockPool {
    /// Frees everything. Every [`BlockRef`] holds the pool, so only pending references can be
    /// left, and their descriptors name nothing from now on.
    fn drop(&mut self) {
        let mut lists = lock(&self.lists);
        for index in 0..lists.unused {
            let slot = self
                .slot(index)
                .expect("slots below `unused` are in the table");
            let class = slot.class.load(Ordering::Relaxed) as usize;
            if let Some(memory) = slot.strip(&mut lists, index) {
                self.deallocate(memory, class);
            }
        }
        self.budget.release(lists.usage.table_bytes);
    }
}

impl fmt::Debug for BlockPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = self.usage();
        f.debug_struct("BlockPool")
            .field("id", &self.id)
            .field("usage", &usage)
            .finish()
    }
}

// SAFETY: the reference is held until the drop, wherever that happens; what `data` points to is not
// written while it is held, and counts and lists are made for any thread.
unsafe impl Send for BlockRef {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for BlockRef {}

impl Deref for BlockRef {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `size` bytes at `data` were written before the slot was published, and stay
        // as they are until this reference, which is counted as held, is dropped.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.size) }
    }
}

impl Drop for BlockRef {
    #[inline]
    fn drop(&mut self) {
        let slot = self
            .pool
            .slot(self.index)
            .expect("a slot with references is in the table");
        if slot.drop_held() {
            self.pool.recycle(self.index, slot);
        }
    }
}

impl fmt::Debug for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockRef")
            .field("index", &self.index)
            .field("size", &self.size)
            .finish()
    }
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverBudget => f.write_str("no room for a block below memory_max"),
            Self::NoMemory => f.write_str("the allocator has no memory for a block"),
            Self::TooLarge => write!(f, "a block holds {BLOCK_BYTES_MAX} bytes at most"),
            Self::TooManyReferences => {
                write!(f, "a block has {REFERENCES_MAX} references at most")
            }
        }
    }
}

impl std::error::Error for BlockError {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The tag in the word is only 16 bits of the generation; what it lets through is undone.
    #[test]
    fn a_stale_tag_that_fits_takes_no_reference() {
        let pool = Arc::new(BlockPool::new(Arc::new(Budget::new(0))));
        let descriptor = pool.write(b"one", 1).unwrap();
        let slot = pool.slot(descriptor.index).unwrap();
        let generation = descriptor.generation;
        assert!(
            slot.update(generation + 1, |pending, held| Some((pending, held)))
                .is_none()
        );
        assert!(
            slot.update(generation + (1 << 16), |p, h| Some((p, h)))
                .is_some()
        );
        let far = Descriptor {
            generation: generation + (1 << 16),
            ..descriptor
        };
        assert!(pool.get(&far).is_none());
        assert_eq!(&*pool.get(&descriptor).unwrap(), b"one");
    }
}
