//! A block that is written in place: [`BlockClaim`] is one writer's alone; shared it is a
//! [`SharedBlock`], whose descriptor lanes carry.
//!
//! Invariant: a claim holds the only reference of any kind, and no other can be made: its slot
//! shows generation 0, which no descriptor may have, so even a forged one names nothing. Sharing
//! shows the generation. A claim that is taken back gets the next one, so that whoever has looked
//! at the slot before comes too late.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};
use core::slice;
use std::sync::Arc;

use super::class::{class_bytes, class_of};
use super::slot::{REFERENCES_MAX, Slot};
use super::{BlockError, BlockPool, Descriptor};
use crate::sync::Ordering;

/// Memory for one payload, to be written in place and then shared; recycled when dropped.
pub struct BlockClaim(Held);

/// A claim whose first bytes are a block by now: read by whoever has its descriptor, and kept until
/// this is dropped, too.
pub struct SharedBlock(Held);

/// The generation that a slot shows while it is claimed: no descriptor has it.
const HIDDEN: u64 = 0;

/// One held reference.
struct Held {
    pool: Arc<BlockPool>,
    data: NonNull<u8>,
    size: usize,
    generation: u64,
    index: u32,
}

impl BlockPool {
    /// Memory for a payload of `size` bytes, to be written in place. What it holds at first is
    /// unspecified.
    ///
    /// # Errors
    /// [`BlockError`]; nothing is held then.
    pub fn claim(self: &Arc<Self>, size: usize) -> Result<BlockClaim, BlockError> {
        let class = class_of(size).ok_or(BlockError::TooLarge)?;
        let index = self.take(class, true)?;
        let slot = self
            .slot(index)
            .expect("a slot that was taken is in the table");
        let memory = slot.memory.load(Ordering::Relaxed);
        let data = NonNull::new(memory).expect("a slot that was taken has memory");
        if slot.is_raw.load(Ordering::Relaxed) {
            // SAFETY: the slot is ours alone (both counts are 0, and it is on no list), and its
            // memory has the size of its class.
            unsafe { ptr::write_bytes(memory, 0, class_bytes(class) as usize) };
            slot.is_raw.store(false, Ordering::Relaxed);
        }
        let generation = slot.generation.load(Ordering::Relaxed) + 1;
        slot.generation.store(HIDDEN, Ordering::Relaxed);
        slot.publish(generation, 0, 1);
        Ok(BlockClaim(Held {
            pool: Arc::clone(self),
            data,
            size,
            generation,
            index,
        }))
    }
}

impl BlockClaim {
    /// The same memory for a payload of `size` bytes, if it has room for that. The bytes stay as
    /// they are; what further ones hold is unspecified.
    #[must_use]
    pub fn resized(mut self, size: usize) -> Option<Self> {
        let class = self.0.slot().class.load(Ordering::Relaxed) as usize;
        self.0.size = size;
        (size as u64 <= class_bytes(class)).then_some(self)
    }

    /// Makes a block of the first `size` bytes, with `references` pending references beside the
    /// one that is held here. The claim comes back if that is more than [`REFERENCES_MAX`].
    ///
    /// # Panics
    /// The claim is smaller.
    pub fn share(self, size: usize, references: u32) -> Result<SharedBlock, Self> {
        assert!(size <= self.0.size, "more is shared than was claimed");
        if references >= REFERENCES_MAX {
            return Err(self);
        }
        let Self(mut held) = self;
        held.size = size;
        let slot = held.slot();
        // Before the references, which hand it on.
        slot.size.store(size as u64, Ordering::Relaxed);
        slot.generation.store(held.generation, Ordering::Relaxed);
        let add = |pending, held| Some((pending + u64::from(references), held));
        let shared = slot.update(held.generation, add);
        assert!(shared.is_some(), "nobody else changes a claim's generation");
        Ok(SharedBlock(held))
    }
}

impl SharedBlock {
    /// What lanes carry, once for each reference.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            pool: self.0.pool.id,
            index: self.0.index,
            generation: self.0.generation,
            size: self.0.size as u64,
        }
    }

    /// The claim again, of as many bytes as were shared, if all other references were released;
    /// else this reference is dropped.
    #[must_use]
    pub fn take_back(self) -> Option<BlockClaim> {
        let Self(mut held) = self;
        let slot = held.slot();
        let alone = |pending, held| ((pending, held) == (0, 1)).then_some((pending, held));
        slot.update(held.generation, alone)?;
        slot.generation.store(HIDDEN, Ordering::Relaxed);
        if !slot.renew(held.generation) {
            return None;
        }
        held.generation += 1;
        Some(BlockClaim(held))
    }
}

impl Held {
    fn slot(&self) -> &Slot {
        self.pool
            .slot(self.index)
            .expect("a slot with references is in the table")
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is at least as large, all of it has a value since the claim was made,
        // and stays while this reference is held; only an exclusive claim is written to.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.size) }
    }
}

impl Deref for BlockClaim {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl DerefMut for BlockClaim {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; a claim holds the only reference, so nobody else reads it.
        unsafe { slice::from_raw_parts_mut(self.0.data.as_ptr(), self.0.size) }
    }
}

impl Deref for SharedBlock {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let slot = self.slot();
        // Only who holds the block writes this; the next owner counts on from it.
        slot.generation.store(self.generation, Ordering::Relaxed);
        if slot.drop_held() {
            self.pool.recycle(self.index, slot);
        }
    }
}

// SAFETY: the reference is held until the drop, wherever that happens; the memory is written only
// through an exclusive claim, and counts and lists are made for any thread.
unsafe impl Send for Held {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Held {}

impl fmt::Debug for BlockClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockClaim")
            .field("index", &self.0.index)
            .field("size", &self.0.size)
            .finish()
    }
}

impl fmt::Debug for SharedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBlock")
            .field("index", &self.0.index)
            .field("size", &self.0.size)
            .finish()
    }
}
