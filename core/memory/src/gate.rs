//! Who must be woken: the word between a side that may sleep and the sides that may wake it.
//!
//! The fast side (a writer that has published, or a reader that has released) calls
//! [`Gate::notify`]: a light fence and one load. The slow side says that it will sleep
//! ([`Gate::arm`]: a store and a heavy fence) and then **looks again**. One of the two sees the
//! other: either the second look finds the record, or `notify` finds the bit. The wake itself
//! (futex, eventfd, ready list) is the caller's; the gate only tells which, once per edge.

use crate::sync::{AtomicU32, Ordering, fence_heavy, fence_light};

/// A thread sleeps on the futex.
pub const FUTEX: u32 = 1;
/// A file descriptor of this queue must become readable.
pub const EVENT: u32 = 2;
/// The client's ready list wants this queue.
pub const LIST: u32 = 4;
/// The queue is closed; stays set.
pub const CLOSED: u32 = 8;
/// Of the writers' gate: a loop waits until the reader gives the right to read back.
pub const LEFT: u32 = 16;
/// A task of somebody's executor wants to be polled.
pub const TASK: u32 = 32;

const ARMED: u32 = FUTEX | EVENT | LIST | LEFT | TASK;

/// The word; on cache lines of its own, read by every fast side and rarely written.
#[derive(Debug)]
#[repr(align(128))]
pub struct Gate {
    bits: AtomicU32,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            bits: AtomicU32::new(0),
        }
    }
}

impl Gate {
    /// Says that this side will sleep until one of `bits`; the caller must look again before it
    /// does. Returns the bits that were set already.
    pub fn arm(&self, bits: u32) -> u32 {
        let before = self.bits.fetch_or(bits, Ordering::SeqCst);
        fence_heavy();
        before
    }

    /// Takes back what `arm` said. Bits that a notifier has already taken are not an error.
    pub fn disarm(&self, bits: u32) {
        self.bits.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Marks the gate closed for good and returns the sleepers to wake.
    pub fn close(&self) -> u32 {
        let before = self.bits.fetch_or(CLOSED, Ordering::SeqCst);
        fence_heavy();
        self.bits.fetch_and(!ARMED, Ordering::SeqCst);
        before & ARMED
    }

    /// True after [`Gate::close`].
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.bits.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Which bits are set now; for diagnosis and for arming only what is missing.
    #[inline]
    pub fn bits(&self) -> u32 {
        self.bits.load(Ordering::Relaxed)
    }

    /// Called after a store that a sleeper may wait for. Returns the bits to act on: 0 almost
    /// always; each armed bit goes to exactly one notifier.
    #[inline(always)]
    pub fn notify(&self) -> u32 {
        if self.is_quiet() { 0 } else { self.take() }
    }

    /// The first half of [`Gate::notify`]: true if there is nothing to act on.
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        fence_light();
        self.bits.load(Ordering::Relaxed) == 0
    }

    #[cold]
    fn take(&self) -> u32 {
        self.bits.fetch_and(!ARMED, Ordering::SeqCst)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_armed_bit_goes_to_one_notifier_and_closed_stays() {
        let gate = Gate::default();
        assert_eq!(gate.notify(), 0);
        assert_eq!(gate.arm(FUTEX | LIST), 0);
        assert_eq!(gate.notify(), FUTEX | LIST);
        assert_eq!(gate.notify(), 0);
        gate.arm(EVENT);
        assert_eq!(gate.close(), EVENT);
        assert_eq!(gate.notify(), CLOSED);
        assert_eq!(gate.notify(), CLOSED);
        assert!(gate.is_closed());
    }
}
