//! The sizes of block memory: powers of two from 1 KiB to 64 MiB.
//!
//! Few sizes, so that freed memory fits the next payload; the price is up to half of a block. Pages
//! that a payload does not reach are never touched.

/// The largest payload of a block: 64 MiB.
pub const BLOCK_BYTES_MAX: usize = 1 << (CLASS_BITS_MIN + CLASS_COUNT as u32 - 1);

/// The smallest class is 1 KiB.
const CLASS_BITS_MIN: u32 = 10;
/// The classes: powers of two from 1 KiB to 64 MiB.
pub(super) const CLASS_COUNT: usize = 17;
/// A payload starts on a cache line.
pub(super) const ALIGN: usize = 64;

/// The smallest class that holds `size` bytes.
pub(super) fn class_of(size: usize) -> Option<usize> {
    let bits = size.max(1).checked_next_power_of_two()?.ilog2();
    let class = bits.saturating_sub(CLASS_BITS_MIN) as usize;
    (class < CLASS_COUNT).then_some(class)
}

pub(super) fn class_bytes(class: usize) -> u64 {
    1 << (CLASS_BITS_MIN + class as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_next_power_of_two() {
        let check = |size: usize, class: Option<usize>| assert_eq!(class_of(size), class, "{size}");
        check(0, Some(0));
        check(1024, Some(0));
        check(1025, Some(1));
        check(BLOCK_BYTES_MAX, Some(16));
        check(BLOCK_BYTES_MAX + 1, None);
        check(usize::MAX, None);
        assert_eq!(class_bytes(16), BLOCK_BYTES_MAX as u64);
    }
}
