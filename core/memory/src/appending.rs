//! Bytes that are written where they will lie.

use crate::words::NoMemory;

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
