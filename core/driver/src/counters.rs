//! How often the driver was asked: the proof that a warm path asks nothing.
//!
//! Relaxed counters, shared by a driver with the events it made. They order nothing, and a read
//! while others count may be a little old.

use core::sync::atomic::{AtomicU64, Ordering};

/// A reading of a driver's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads of either clock.
    pub clock_calls: u64,
    /// Calls of `park`, slept or not.
    pub parks: u64,
    /// Calls of `wake`, and signals of events and loop descriptors.
    pub wakes: u64,
    /// Threads that run now.
    pub threads: u64,
}

/// The cells behind [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) clock_calls: AtomicU64,
    pub(crate) parks: AtomicU64,
    pub(crate) wakes: AtomicU64,
    pub(crate) threads: AtomicU64,
}

impl Tally {
    pub(crate) fn read(&self) -> Counters {
        Counters {
            clock_calls: self.clock_calls.load(Ordering::Relaxed),
            parks: self.parks.load(Ordering::Relaxed),
            wakes: self.wakes.load(Ordering::Relaxed),
            // Pairs with the release of a thread that ends: what it did is seen by who reads 0.
            threads: self.threads.load(Ordering::Acquire),
        }
    }
}

/// Counts one more; the only thing anybody does to a cell but `threads`.
pub(crate) fn count(cell: &AtomicU64) {
    cell.fetch_add(1, Ordering::Relaxed);
}
