//! Bytes that are written where they will lie.

use crate::words::{NoMemory, copy};

/// Appends words and bytes behind them, and zeros up to a multiple of 8.
///
/// # Errors
/// There is no memory: nothing was appended.
#[inline(always)]
pub fn append_rounded<const N: usize>(
    out: &mut Vec<u8>,
    words: [u64; N],
    bytes: &[u8],
) -> Result<(), NoMemory> {
    let before = out.len();
    let size = (8 * N + bytes.len() + 7) & !7;
    if out.capacity() - before < size {
        out.try_reserve(size).map_err(|_| NoMemory)?;
    }
    let start = out.as_mut_ptr().wrapping_add(before);
    let behind = start.wrapping_add(8 * N);
    if size > 8 * N {
        // SAFETY: the last 8 of `size` bytes, which the capacity has room for; a packed word may
        // lie anywhere.
        unsafe {
            start
                .wrapping_add(size - 8)
                .cast::<u64>()
                .write_unaligned(0)
        };
    }
    for (index, word) in words.into_iter().enumerate() {
        let at = start.wrapping_add(8 * index).cast::<u64>();
        // SAFETY: within the first `8 * N` bytes, as above.
        unsafe { at.write_unaligned(word.to_le()) };
    }
    // SAFETY: room for the bytes is behind the words; a slice cannot lie in spare capacity.
    unsafe { copy(bytes.as_ptr(), behind, bytes.len()) };
    // SAFETY: words and bytes were written, and so was what is behind them: part of the last word.
    unsafe { out.set_len(before + size) };
    Ok(())
}

/// Room behind the end of a vector. As `N` is known, what is stored there needs neither call nor
/// check.
#[derive(Debug)]
pub struct Behind<'a, const N: usize> {
    /// Has `N` bytes behind its end that have values.
    bytes: &'a mut Vec<u8>,
}

impl<'a, const N: usize> Behind<'a, N> {
    /// Makes room for `N` bytes, which are zeroed.
    ///
    /// # Errors
    /// There is no memory.
    #[inline(always)]
    pub fn new(bytes: &'a mut Vec<u8>) -> Result<Self, NoMemory> {
        if bytes.capacity() - bytes.len() < N {
            bytes.try_reserve(N).map_err(|_| NoMemory)?;
        }
        let behind = bytes.spare_capacity_mut().as_mut_ptr().cast::<[u8; N]>();
        // SAFETY: the vector has room for `N` bytes behind its end, which are its own; an array of
        // bytes may lie anywhere.
        unsafe { behind.write([0; N]) };
        Ok(Self { bytes })
    }

    /// The room.
    #[inline(always)]
    pub fn room(&mut self) -> &mut [u8; N] {
        let behind = self.bytes.spare_capacity_mut().as_mut_ptr();
        // SAFETY: `new` has made sure of these bytes and given them values, and nobody has used the
        // vector since, which is borrowed exclusively.
        unsafe { &mut *behind.cast::<[u8; N]>() }
    }

    /// Has the first `size` bytes of the room appended, at most all of them.
    #[inline(always)]
    pub fn append(self, size: usize) {
        let length = self.bytes.len() + size.min(N);
        // SAFETY: at most the `N` bytes of the room more, which have values.
        unsafe { self.bytes.set_len(length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_bytes_are_rounded_up_by_zeros() {
        let source: Vec<u8> = (0..200).map(|byte| byte ^ 0x5a).collect();
        for size in 0..=200 {
            let mut bytes = Vec::with_capacity(400);
            bytes.resize(400, 0xee);
            bytes.truncate(3);
            append_rounded(&mut bytes, [1, 2], &source[..size]).unwrap();
            append_rounded(&mut bytes, [], &source[..size]).unwrap();
            let mut expected = vec![0xee; 3];
            expected.extend([1u64.to_le_bytes(), 2u64.to_le_bytes()].as_flattened());
            for _ in 0..2 {
                expected.extend(&source[..size]);
                expected.resize((expected.len() - 3).next_multiple_of(8) + 3, 0);
            }
            assert_eq!(bytes, expected, "{size}");
        }
    }

    #[test]
    fn only_what_counts_is_appended() {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for size in [3, 0, 16, 1, 7].into_iter().cycle().take(1000) {
            let number = expected.len() as u8;
            let mut behind = Behind::<16>::new(&mut bytes).unwrap();
            assert_eq!(*behind.room(), [0; 16]);
            behind.room().fill(number);
            behind.append(size);
            expected.resize(expected.len() + size, number);
            assert_eq!(bytes, expected);
        }
        let _dropped = Behind::<16>::new(&mut bytes).unwrap();
        assert_eq!(bytes, expected);
        Behind::<16>::new(&mut bytes).unwrap().append(usize::MAX);
        assert_eq!(bytes.len(), expected.len() + 16, "never more than there is");
    }
}
