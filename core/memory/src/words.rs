//! The memory under a ring: control words with an ordering, and data bytes without one.
//!
//! [`Words`] is small so that a test type can stand in for it: loom's checks that the two sides
//! never touch the same data byte at once, copies included. [`HeapWords`] is the real one.
//! The layout is that of `docs/formats.md` §2.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::arena::{Arena, Region};
use crate::sync::{AtomicU64, Ordering};

/// Where the data of a ring start, in bytes from its control block.
pub const DATA_OFFSET: usize = 384;
/// "FASTMQL1", little-endian.
pub const MAGIC: u64 = 0x314C_514D_5453_4146;

/// The control words that change after a ring was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Control {
    /// Position after the last published record; written by the producer.
    Tail = 128,
    /// Position of the first record not yet released; written by the consumer.
    Head = 256,
}

/// The allocator had no memory for a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// Asks for a cache line that will soon be written or read; does nothing where the compiler has no
/// word for it.
#[inline(always)]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults, whatever the address; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    let _ = address;
}

/// Asks for the cache lines of something that will soon be used.
#[inline(always)]
pub fn expect<T>(it: &T) {
    let address = (&raw const *it).cast::<u8>();
    for line in (0..size_of::<T>()).step_by(64) {
        prefetch(address.wrapping_add(line));
    }
}

/// The same, and for the line with its counts, which are before it.
#[inline(always)]
pub fn expect_shared<T>(it: &Arc<T>) {
    expect(&**it);
    let counts = align_of::<T>().max(2 * size_of::<usize>());
    prefetch(Arc::as_ptr(it).cast::<u8>().wrapping_sub(counts));
}

/// Memory for one ring.
///
/// # Safety
/// `capacity` is a power of two and constant; the data functions reach exactly the bytes
/// `[offset, offset + size)` of the data, which stay allocated as long as `self`; `load` and
/// `store` of one control word are atomic and obey the given ordering.
pub unsafe trait Words: Send + Sync + Sized {
    /// Memory for `capacity` bytes of data and its control block, which is zeroed; from the arena
    /// if there is one.
    fn allocate(capacity: usize, arena: Option<&Arc<Arena>>) -> Result<Self, NoMemory>;
    /// Size of the data in bytes.
    fn capacity(&self) -> usize;
    /// Reads a control word.
    fn load(&self, word: Control, order: Ordering) -> u64;
    /// Writes a control word.
    fn store(&self, word: Control, value: u64, order: Ordering);
    /// Says that a record will soon be written at `offset`.
    fn expect_write(&self, offset: usize) {
        let _ = offset;
    }
    /// Reads 8 bytes of data.
    ///
    /// # Safety
    /// `offset` is a multiple of 8 and below the capacity; nobody writes these bytes meanwhile.
    unsafe fn read(&self, offset: usize) -> u64;
    /// Writes 8 bytes of data.
    ///
    /// # Safety
    /// As [`Words::read`], and nobody reads these bytes meanwhile.
    unsafe fn write(&self, offset: usize, value: u64);
    /// Copies bytes into the data.
    ///
    /// # Safety
    /// `offset + bytes.len()` is at most the capacity; nobody else touches that range meanwhile.
    unsafe fn copy_in(&self, offset: usize, bytes: &[u8]);
    /// Writes words and, behind them, the bytes of `parts`, one after the other.
    ///
    /// # Safety
    /// `offset` is a multiple of 8; all that lies below the capacity, and nobody else touches it
    /// meanwhile.
    #[inline(always)]
    unsafe fn write_all<const N: usize, const P: usize>(
        &self,
        offset: usize,
        words: [u64; N],
        parts: [&[u8]; P],
    ) {
        let mut at = offset;
        for word in words {
            // SAFETY: by the contract.
            unsafe { self.write(at, word) };
            at += 8;
        }
        for part in parts {
            // SAFETY: by the contract.
            unsafe { self.copy_in(at, part) };
            at += part.len();
        }
    }
    /// Copies bytes out of the data.
    ///
    /// # Safety
    /// `offset + bytes.len()` is at most the capacity; nobody writes that range meanwhile.
    unsafe fn copy_out(&self, offset: usize, bytes: &mut [u8]);
}

/// A ring's memory on the heap, or in an arena.
#[derive(Debug)]
pub struct HeapWords {
    base: NonNull<u8>,
    _region: Region,
    capacity: usize,
    /// Tail and head where loom can see them; it knows only atomics of its own.
    #[cfg(loom)]
    modelled: [AtomicU64; 2],
}

/// Control words sit on lines of their own; two, because the prefetcher takes pairs.
const LINE_PAIR: usize = 128;

// SAFETY: the type owns its allocation; access is by atomics or under the contract of `Words`.
unsafe impl Send for HeapWords {}
// SAFETY: as above.
unsafe impl Sync for HeapWords {}

impl HeapWords {
    /// Address of a data byte, for views in place.
    ///
    /// `offset` is at most the capacity.
    #[inline(always)]
    pub(crate) fn address(&self, offset: usize) -> *const u8 {
        debug_assert!(offset <= self.capacity);
        self.base.as_ptr().wrapping_add(DATA_OFFSET + offset)
    }

    /// The same for the producer, to write in place.
    #[inline(always)]
    pub(crate) fn data(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.capacity);
        self.base.as_ptr().wrapping_add(DATA_OFFSET + offset)
    }

    #[cfg(loom)]
    fn word(&self, word: Control) -> &AtomicU64 {
        &self.modelled[usize::from(word == Control::Head)]
    }

    #[cfg(not(loom))]
    #[inline(always)]
    fn word(&self, word: Control) -> &AtomicU64 {
        let address = self
            .base
            .as_ptr()
            .wrapping_add(word as usize)
            .cast::<AtomicU64>();
        // SAFETY: control words lie inside the allocation, 128-aligned, and are only ever
        // accessed as atomics after construction.
        unsafe { &*address }
    }
}

// SAFETY: the region has DATA_OFFSET + capacity bytes from `base`, and is given back by drop.
unsafe impl Words for HeapWords {
    fn allocate(capacity: usize, arena: Option<&Arc<Arena>>) -> Result<Self, NoMemory> {
        assert!(
            capacity.is_power_of_two(),
            "ring capacity {capacity} is not a power of two"
        );
        // The alignment is made by hand: asking the allocator for 128 would make it clear the
        // pages itself, where a plain zeroed allocation of a large ring touches none.
        let size = DATA_OFFSET + capacity + LINE_PAIR;
        let region = Region::take(arena, size, DATA_OFFSET + LINE_PAIR)?;
        let shift = region.base().as_ptr().align_offset(LINE_PAIR);
        // SAFETY: `shift` < LINE_PAIR, and the region has LINE_PAIR bytes to spare.
        let base = unsafe { region.base().add(shift) };
        let words = Self {
            base,
            _region: region,
            capacity,
            #[cfg(loom)]
            modelled: [AtomicU64::new(0), AtomicU64::new(0)],
        };
        let header = words.base.as_ptr().cast::<u64>();
        // SAFETY: inside the allocation, aligned, and nobody else has it yet.
        unsafe { header.write(MAGIC) };
        // SAFETY: as above; the second word of the control block.
        unsafe { header.wrapping_add(1).write(capacity as u64) };
        Ok(words)
    }

    #[inline(always)]
    fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline(always)]
    fn load(&self, word: Control, order: Ordering) -> u64 {
        self.word(word).load(order)
    }

    #[inline(always)]
    fn store(&self, word: Control, value: u64, order: Ordering) {
        self.word(word).store(value, order);
    }

    #[inline(always)]
    fn expect_write(&self, offset: usize) {
        prefetch(self.base.as_ptr().wrapping_add(Control::Tail as usize));
        prefetch(self.data(offset));
        prefetch(self.data(offset).wrapping_add(64));
    }

    #[inline(always)]
    unsafe fn read(&self, offset: usize) -> u64 {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= self.capacity);
        // SAFETY: in range and aligned (the data start 8-aligned); unshared by the contract.
        unsafe { self.data(offset).cast::<u64>().read() }
    }

    #[inline(always)]
    unsafe fn write(&self, offset: usize, value: u64) {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= self.capacity);
        // SAFETY: as `read`.
        unsafe { self.data(offset).cast::<u64>().write(value) }
    }

    #[inline(always)]
    unsafe fn copy_in(&self, offset: usize, bytes: &[u8]) {
        debug_assert!(offset + bytes.len() <= self.capacity);
        // SAFETY: in range and unshared by the contract; the caller's slice is not our memory.
        unsafe { copy(bytes.as_ptr(), self.data(offset), bytes.len()) }
    }

    /// As the default, with the address taken once: the compiler must think that a store into the
    /// ring may change where the ring is.
    #[inline(always)]
    unsafe fn write_all<const N: usize, const P: usize>(
        &self,
        offset: usize,
        words: [u64; N],
        parts: [&[u8]; P],
    ) {
        debug_assert!(
            offset.is_multiple_of(8)
                && offset + 8 * N + parts.iter().map(|part| part.len()).sum::<usize>()
                    <= self.capacity
        );
        let start = self.data(offset);
        for (index, word) in words.into_iter().enumerate() {
            let at = start.wrapping_add(8 * index).cast::<u64>();
            // SAFETY: in range and aligned by the contract.
            unsafe { at.write(word) };
        }
        let mut at = start.wrapping_add(8 * N);
        for part in parts {
            // SAFETY: in range and unshared by the contract; the slice is not our memory.
            unsafe { copy(part.as_ptr(), at, part.len()) };
            at = at.wrapping_add(part.len());
        }
    }

    #[inline(always)]
    unsafe fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        debug_assert!(offset + bytes.len() <= self.capacity);
        // SAFETY: as `copy_in`, the other way.
        unsafe { copy(self.address(offset), bytes.as_mut_ptr(), bytes.len()) }
    }
}

/// Copies `size` bytes; short ones without a call, because most messages are short and a call to
/// `memcpy` costs as much as the rest of a record.
///
/// Short copies go in 8-byte moves that the compiler must not merge: a wider load over a payload
/// that the caller has just stored as words waits until the stores have left the core, because it
/// cannot be forwarded from two of them (benches/floor/README.md: a factor of three).
///
/// # Safety
/// As `ptr::copy_nonoverlapping`.
#[inline(always)]
pub(crate) unsafe fn copy(source: *const u8, target: *mut u8, size: usize) {
    /// One unaligned move of a fixed size.
    ///
    /// # Safety
    /// `T`'s size is readable at `source + offset` and writable at `target + offset`.
    #[inline(always)]
    unsafe fn step<T>(source: *const u8, target: *mut u8, offset: usize) {
        let source = source.wrapping_add(offset).cast::<Packed<T>>();
        // SAFETY: by the contract; `Packed` asks for no alignment.
        let value = unsafe { source.read_volatile() };
        // SAFETY: by the contract.
        unsafe { target.wrapping_add(offset).cast::<Packed<T>>().write(value) }
    }
    #[repr(C, packed)]
    struct Packed<T>(T);

    if size > SHORT {
        // SAFETY: the caller's contract.
        unsafe { std::ptr::copy_nonoverlapping(source, target, size) };
    } else if size >= 8 {
        // Whole words in pairs, then two that overlap the end; of a size up to 16 these are the
        // first and the last word. No loop for what is usual: it would be unrolled by hundreds.
        if size > 16 {
            let mut offset = 0;
            while offset + 16 < size {
                // SAFETY: `offset + 16` < size.
                unsafe { step::<u64>(source, target, offset) };
                // SAFETY: as above.
                unsafe { step::<u64>(source, target, offset + 8) };
                offset += 16;
            }
            // SAFETY: 16 of more than 16 bytes.
            unsafe { step::<u64>(source, target, size - 16) };
        } else {
            // SAFETY: size ≥ 8.
            unsafe { step::<u64>(source, target, 0) };
        }
        // SAFETY: the last 8 of at least 8 bytes.
        unsafe { step::<u64>(source, target, size - 8) };
    } else if size >= 4 {
        // SAFETY: size ≥ 4.
        unsafe { step::<u32>(source, target, 0) };
        // SAFETY: the last 4 bytes.
        unsafe { step::<u32>(source, target, size - 4) };
    } else if size > 0 {
        // SAFETY: size ≥ 1.
        unsafe { step::<u8>(source, target, 0) };
        // SAFETY: size / 2 < size.
        unsafe { step::<u8>(source, target, size / 2) };
        // SAFETY: size - 1 < size.
        unsafe { step::<u8>(source, target, size - 1) };
    }
}

/// Adds bytes at the end of a vector that has room for them; short ones word by word, as above.
///
/// # Panics
/// The vector has no room.
#[inline(always)]
pub fn append(target: &mut Vec<u8>, bytes: &[u8]) {
    let before = target.len();
    assert!(
        target.capacity() - before >= bytes.len(),
        "no room was reserved"
    );
    let end = target.as_mut_ptr().wrapping_add(before);
    // SAFETY: the capacity has room for the bytes, and a slice cannot lie in spare capacity.
    unsafe { copy(bytes.as_ptr(), end, bytes.len()) };
    // SAFETY: these bytes were just written, within the capacity.
    unsafe { target.set_len(before + bytes.len()) };
}

/// Longest copy that goes word by word.
const SHORT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_size_is_copied_exactly_and_nothing_beyond_it() {
        let words = HeapWords::allocate(1024, None).unwrap();
        let source: Vec<u8> = (0..200).map(|i| i as u8 ^ 0x5a).collect();
        for size in 0..=200 {
            // SAFETY: inside 1,024 bytes, and no other thread.
            unsafe { words.copy_in(0, &[0xee; 256]) };
            // SAFETY: as above.
            unsafe { words.copy_in(8, &source[..size]) };
            let mut seen = [0u8; 256];
            // SAFETY: as above.
            unsafe { words.copy_out(0, &mut seen) };
            assert_eq!(&seen[8..8 + size], &source[..size], "size {size}");
            assert_eq!(seen[7], 0xee);
            assert_eq!(seen[8 + size], 0xee, "size {size}");
        }
    }

    #[test]
    fn control_words_lie_where_the_format_says() {
        let words = HeapWords::allocate(4096, None).unwrap();
        assert_eq!(words.base.as_ptr() as usize % 128, 0);
        words.store(Control::Tail, 7, Ordering::Relaxed);
        words.store(Control::Head, 9, Ordering::Relaxed);
        let at = |offset: usize| {
            let address = words.base.as_ptr().wrapping_add(offset).cast::<u64>();
            // SAFETY: inside the control block, and no other thread.
            unsafe { address.read() }
        };
        assert_eq!((at(0), at(8), at(128), at(256)), (MAGIC, 4096, 7, 9));
    }
}
