//! Records that their writer makes where they will be read.
//!
//! A claim is the room behind the lane's last record, which is the producer's anyway. Invariant:
//! nothing is committed beyond the room that was made for the claim.

use super::{LANE_BYTES_MAX, NoRoom, Producer};
use crate::record::{self, Plain};
use crate::words::{HeapWords, Words};

impl<W: Words> Producer<W> {
    /// Makes room for a plain record whose payload of `size` bytes is written in place: `claimed`
    /// lends the bytes, `commit` makes them a record. Nothing has to be given back: the room is the
    /// producer's anyway, and the next record takes it.
    ///
    /// `plain` says the rest of the record. False: the lane has no subject of its own, or a loss
    /// has to be told first, which a plain record cannot.
    pub fn claim(&mut self, plain: &Plain<'_>, size: usize) -> Result<bool, NoRoom> {
        let step = claim_step(plain, size);
        if self.lost > 0 || !self.is_labelled {
            return Ok(false);
        }
        if !self.make_way(step) {
            self.reserve_slow(step, 0)?;
            return Ok(self.make_way(step));
        }
        Ok(true)
    }

    /// Writes what surrounds the first `size` bytes of a claimed payload, without publishing the
    /// record. `claim` has said yes for the same `plain` and at least as many bytes, and nothing
    /// was written since.
    #[inline(always)]
    pub fn commit(&mut self, plain: &Plain<'_>, size: usize, subscription: u32) {
        let step = claim_step(plain, size);
        assert!(
            self.is_labelled && self.has_way(step),
            "a commit without a claim"
        );
        // SAFETY: `[tail, tail + step)` is free and contiguous (checked above), and the producer's.
        unsafe {
            record::encode_around(
                &self.link.words,
                (self.tail & self.mask) as usize,
                plain,
                size,
                subscription,
            );
        }
        self.tail += step;
        self.pushed += 1;
    }

    /// Copies bytes to the start of a claimed payload, for memory that cannot be lent. For tests.
    #[doc(hidden)]
    pub fn fill_claimed(&mut self, plain: &Plain<'_>, bytes: &[u8]) {
        assert!(self.has_way(claim_step(plain, bytes.len())));
        let at = (self.tail & self.mask) as usize + plain.payload_at();
        // SAFETY: inside `[tail, tail + step)`, which is free (checked above) and the producer's.
        unsafe { self.link.words.copy_in(at, bytes) };
    }
}

/// Bytes that a plain record occupies whose payload has `size` bytes, where the lane has its
/// subject.
#[inline(always)]
fn claim_step(plain: &Plain<'_>, size: usize) -> u64 {
    // What is too large for a record is still too large.
    let size = size.min(LANE_BYTES_MAX as usize);
    ((plain.payload_at() + size) as u64 + 7) & !7
}

impl Producer<HeapWords> {
    /// As `claim` and `claimed`, if the room is known to be free.
    #[inline(always)]
    pub fn try_claim(&mut self, plain: &Plain<'_>, size: usize) -> Option<&mut [u8]> {
        if !self.is_labelled || !self.has_way(claim_step(plain, size)) {
            return None;
        }
        let at = (self.tail & self.mask) as usize + plain.payload_at();
        let data = self.link.words.data(at);
        // SAFETY: the bytes lie inside `[tail, tail + step)`, which is free (checked above) and
        // belongs to the producer, who is borrowed exclusively as long as the slice; a ring's
        // memory is zeroed when it is mapped or made, so all bytes have a value.
        Some(unsafe { std::slice::from_raw_parts_mut(data, size) })
    }

    /// The payload of a record for which `claim` has just made room, in place: what was written
    /// there stays until something else is written to the lane.
    ///
    /// # Panics
    /// There is no such room.
    pub fn claimed(&mut self, plain: &Plain<'_>, size: usize) -> &mut [u8] {
        self.try_claim(plain, size).expect("a claim has made room")
    }
}
