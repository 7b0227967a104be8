//! The memory of a client that wants all of it from the start: one piece, cut into regions.
//!
//! First fit over a map with a bit for each 128 bytes. Regions are taken and given back where
//! queues open, grow and close, never for a message, so that a search of some microseconds is cheap
//! enough; and no region has a header, so that nothing lies between those that writers fill.
//! Not here: the cap. A client's [`Budget`](crate::budget::Budget) has been asked before.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::sync::Arc;

use fastmq_driver::pages::Pages;

use crate::sync::{Mutex, lock};
use crate::words::NoMemory;

/// Regions begin at multiples of this, and a bit of the map stands for so much.
const UNIT: usize = 128;
const BITS: usize = u64::BITS as usize;

/// Pages, and which parts of them are taken.
#[derive(Debug)]
pub struct Arena {
    pages: Pages,
    map: Mutex<Map>,
}

/// A bit is set where memory is taken.
#[derive(Debug)]
struct Map {
    words: Box<[u64]>,
    /// All units before this one are taken.
    first: usize,
    /// How many units there are; the last word may have more bits.
    count: usize,
}

/// Memory of an arena, or of the allocator if there is none; none by default. Given back when
/// dropped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
    arena: Option<Arc<Arena>>,
}

// SAFETY: it owns its range; what is done with the bytes is the owner's to protect.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Arena {
    /// An arena of these pages.
    ///
    /// # Errors
    /// There is no memory for the map.
    pub fn new(pages: Pages) -> Result<Self, NoMemory> {
        let count = pages.bytes() / UNIT;
        let mut words = Vec::new();
        words
            .try_reserve_exact(count.div_ceil(BITS))
            .map_err(|_| NoMemory)?;
        words.resize(count.div_ceil(BITS), 0);
        Ok(Self {
            pages,
            map: Mutex::new(Map {
                words: words.into_boxed_slice(),
                first: 0,
                count,
            }),
        })
    }

    /// Takes `bytes`, at a multiple of 128. They hold what was there before.
    fn take(&self, bytes: usize) -> Option<NonNull<u8>> {
        let at = lock(&self.map).take(bytes.div_ceil(UNIT))?;
        NonNull::new(self.pages.base().as_ptr().wrapping_add(at * UNIT))
    }

    /// Gives back what `take` gave for `bytes`.
    fn give(&self, base: NonNull<u8>, bytes: usize) {
        let at = (base.as_ptr() as usize - self.pages.base().as_ptr() as usize) / UNIT;
        lock(&self.map).give(at, bytes.div_ceil(UNIT));
    }
}

impl Map {
    /// The first run of `units` free ones.
    fn take(&mut self, units: usize) -> Option<usize> {
        let mut start = self.next(self.first, false);
        self.first = start;
        while start + units <= self.count {
            let end = self.next(start, true);
            if end - start >= units {
                self.mark(start, units, true);
                return Some(start);
            }
            start = self.next(end, false);
        }
        None
    }

    fn give(&mut self, start: usize, units: usize) {
        self.mark(start, units, false);
        self.first = self.first.min(start);
    }

    /// The first unit at or after `from` that is taken, or that is free; else the end.
    fn next(&self, from: usize, is_taken: bool) -> usize {
        let mut at = from;
        while at < self.count {
            let word = self.words[at / BITS];
            let wanted = if is_taken { word } else { !word } >> (at % BITS);
            if wanted != 0 {
                return self.count.min(at + wanted.trailing_zeros() as usize);
            }
            at += BITS - at % BITS;
        }
        self.count
    }

    fn mark(&mut self, start: usize, units: usize, is_taken: bool) {
        let (mut at, end) = (start, start + units);
        while at < end {
            let bits = (end - at).min(BITS - at % BITS);
            let mask = (u64::MAX >> (BITS - bits)) << (at % BITS);
            let word = &mut self.words[at / BITS];
            if is_taken {
                assert!(*word & mask == 0, "a unit is taken twice");
                *word |= mask;
            } else {
                assert!(*word & mask == mask, "a unit is given back twice");
                *word &= !mask;
            }
            at += bits;
        }
    }
}

/// Takes `bytes` (not 0) at a multiple of `align` (at most 128); if they are from the allocator,
/// their content is nothing unless `is_zeroed`.
pub(crate) fn take(
    arena: Option<&Arc<Arena>>,
    bytes: usize,
    align: usize,
    is_zeroed: bool,
) -> Result<NonNull<u8>, NoMemory> {
    debug_assert!(bytes > 0 && align <= UNIT);
    let Some(arena) = arena else {
        let layout = Layout::from_size_align(bytes, align).map_err(|_| NoMemory)?;
        let allocate = if is_zeroed { alloc_zeroed } else { alloc };
        // SAFETY: the size is not 0.
        return NonNull::new(unsafe { allocate(layout) }).ok_or(NoMemory);
    };
    let base = arena.take(bytes).ok_or(NoMemory)?;
    if is_zeroed {
        // SAFETY: the range was just taken, so that it is inside the pages and nobody else's.
        unsafe { base.write_bytes(0, bytes) };
    }
    Ok(base)
}

/// Gives back.
///
/// # Safety
/// `take` gave this for the same arena, bytes and alignment, and nobody uses it any more.
pub(crate) unsafe fn give(
    arena: Option<&Arc<Arena>>,
    base: NonNull<u8>,
    bytes: usize,
    align: usize,
) {
    match arena {
        Some(arena) => arena.give(base, bytes),
        None => {
            // SAFETY: `take` has made a layout of these.
            let layout = unsafe { Layout::from_size_align_unchecked(bytes, align) };
            // SAFETY: allocated with this layout, by the contract.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
    }
}

/// What a region of the allocator is aligned to.
const REGION_ALIGN: usize = 16;

impl Region {
    /// Takes `bytes` (not 0) at a multiple of 16, from the arena if there is one. Of memory from
    /// an arena only the first `zeroed` bytes are made 0, and the others have whatever value;
    /// all of the allocator's is 0.
    ///
    /// # Errors
    /// There is no memory.
    pub fn take(arena: Option<&Arc<Arena>>, bytes: usize, zeroed: usize) -> Result<Self, NoMemory> {
        debug_assert!(zeroed <= bytes);
        let base = take(arena, bytes, REGION_ALIGN, arena.is_none())?;
        if arena.is_some() {
            // SAFETY: the range has `bytes` bytes and is nobody else's.
            unsafe { base.write_bytes(0, zeroed) };
        }
        Ok(Self {
            base,
            bytes,
            arena: arena.cloned(),
        })
    }

    /// The first byte.
    #[inline(always)]
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How many bytes.
    #[inline(always)]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Default for Region {
    fn default() -> Self {
        Self {
            base: NonNull::<u128>::dangling().cast(),
            bytes: 0,
            arena: None,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        // SAFETY: it was taken like this, and this is its only owner.
        unsafe { give(self.arena.as_ref(), self.base, self.bytes, REGION_ALIGN) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use fastmq_driver::SplitMix64;
    use fastmq_driver::pages::PageOptions;

    use super::*;

    fn arena(bytes: usize) -> Arc<Arena> {
        let options = PageOptions {
            prefault: true,
            ..PageOptions::default()
        };
        Arc::new(Arena::new(Pages::map(bytes, options).unwrap()).unwrap())
    }

    #[test]
    fn regions_are_cut_from_the_front_and_come_back() {
        let arena = arena(8192);
        let take = |bytes| Region::take(Some(&arena), bytes, 0);
        let first = take(4096).unwrap();
        assert_eq!(first.base(), arena.pages.base());
        let second = take(1).unwrap();
        assert_eq!(
            second.base().as_ptr() as usize,
            first.base().as_ptr() as usize + 4096
        );
        assert!(take(4096).is_err(), "3,968 bytes are left in one piece");
        let third = take(3968).unwrap();
        assert!(take(1).is_err());
        drop(second);
        assert!(take(129).is_err());
        let again = take(128).unwrap();
        drop((first, third, again));
        assert_eq!(take(8192).unwrap().base(), arena.pages.base());
    }

    #[test]
    fn only_what_was_asked_for_is_zeroed() {
        let arena = arena(4096);
        let region = Region::take(Some(&arena), 4096, 4096).unwrap();
        // SAFETY: the region has so many bytes, and nobody else has them.
        unsafe { region.base().write_bytes(0xee, 4096) };
        drop(region);
        let region = Region::take(Some(&arena), 4096, 100).unwrap();
        // SAFETY: as above; all of them have a value.
        let bytes = unsafe { core::slice::from_raw_parts(region.base().as_ptr(), 4096) };
        assert_eq!((bytes[99], bytes[100]), (0, 0xee));
    }

    /// Takes and gives at random; a model that knows the owner of each unit checks each step.
    #[test]
    fn no_two_regions_overlap_and_nothing_gets_lost() {
        const UNITS: usize = 1000;
        let arena = arena(UNITS * UNIT);
        let count = arena.pages.bytes() / UNIT;
        let base = arena.pages.base().as_ptr() as usize;
        let mut random = SplitMix64::new(7);
        let mut owned = vec![false; count];
        let mut regions: Vec<Region> = Vec::new();
        for _ in 0..20_000 {
            let number = random.next_u64() as usize;
            if number.is_multiple_of(2) && !regions.is_empty() {
                let region = regions.swap_remove(number / 2 % regions.len());
                let at = (region.base().as_ptr() as usize - base) / UNIT;
                owned[at..at + region.bytes().div_ceil(UNIT)].fill(false);
                continue;
            }
            let bytes = 1 + number / 2 % (150 * UNIT);
            let units = bytes.div_ceil(UNIT);
            match Region::take(Some(&arena), bytes, 0) {
                Ok(region) => {
                    let at = (region.base().as_ptr() as usize - base) / UNIT;
                    assert!(owned[at..at + units].iter().all(|is_owned| !is_owned));
                    owned[at..at + units].fill(true);
                    regions.push(region);
                }
                Err(NoMemory) => {
                    let is_free = |part: &[bool]| part.iter().all(|is_owned| !is_owned);
                    assert!(!owned.windows(units).any(is_free), "there was room");
                }
            }
        }
        drop(regions);
        assert!(Region::take(Some(&arena), count * UNIT, 0).is_ok());
    }
}
