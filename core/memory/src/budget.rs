//! The memory of a client: how many bytes of lanes, blocks and latest values it may hold, and
//! where they are taken.
//!
//! One [`Budget`] is shared by everything of a client that holds memory in proportion to its
//! traffic. Bytes are reserved before they are allocated and released after they are freed, so
//! `used` is never less than what is held. Two relaxed words: they count and order nothing.
//! Not here: who gives way when the cap is reached. The caller turns [`OverBudget`] into its own
//! refusal, and nothing waits.

use core::fmt;
use std::sync::Arc;

use crate::arena::Arena;
use crate::sync::{AtomicU64, Ordering};

/// Bytes used, the most ever used, and the cap.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    used: AtomicU64,
    high: AtomicU64,
    arena: Option<Arc<Arena>>,
}

/// The cap would have been passed; nothing was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBudget {
    /// Bytes asked for.
    pub asked: u64,
    /// Bytes in use at that time.
    pub used: u64,
    /// The cap.
    pub max: u64,
}

/// Bytes of a budget, given back when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `max` bytes; 0: no cap, only counted.
    #[must_use]
    pub fn new(max: u64) -> Self {
        Self {
            max,
            used: AtomicU64::new(0),
            high: AtomicU64::new(0),
            arena: None,
        }
    }

    /// A budget of `max` bytes that are taken from `arena`.
    #[must_use]
    pub fn of_arena(max: u64, arena: Arc<Arena>) -> Self {
        Self {
            arena: Some(arena),
            ..Self::new(max)
        }
    }

    /// Where memory is taken; `None`: from the allocator.
    #[must_use]
    pub fn arena(&self) -> Option<&Arc<Arena>> {
        self.arena.as_ref()
    }

    /// Takes `bytes`, all or nothing. Pair it with [`release`](Self::release), or let a
    /// [`Reservation`] do so.
    ///
    /// # Errors
    /// [`OverBudget`] if less than `bytes` are left.
    pub fn reserve(&self, bytes: u64) -> Result<(), OverBudget> {
        let max = if self.max == 0 { u64::MAX } else { self.max };
        let mut used = self.used.load(Ordering::Relaxed);
        // Not `fetch_add` and undo: the overshoot would refuse others who fit. Each turn of the
        // loop that fails is a turn in which somebody else succeeded.
        loop {
            let sum = used.checked_add(bytes).filter(|sum| *sum <= max);
            let Some(sum) = sum else {
                return Err(OverBudget {
                    asked: bytes,
                    used,
                    max,
                });
            };
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.used.compare_exchange_weak(used, sum, success, failure) {
                Ok(_) => {
                    // A plain load first: in steady state the mark stands and nobody writes it.
                    if self.high.load(Ordering::Relaxed) < sum {
                        self.high.fetch_max(sum, Ordering::Relaxed);
                    }
                    return Ok(());
                }
                Err(current) => used = current,
            }
        }
    }

    /// Gives back `bytes` that were reserved before.
    pub fn release(&self, bytes: u64) {
        let used = self.used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(
            used >= bytes,
            "released {bytes} bytes and only {used} are reserved"
        );
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were ever reserved at one time.
    #[must_use]
    pub fn high(&self) -> u64 {
        self.high.load(Ordering::Relaxed)
    }

    /// The cap; 0: none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }
}

impl Reservation {
    /// Reserves `bytes` until the reservation is dropped.
    ///
    /// # Errors
    /// [`OverBudget`] if less than `bytes` are left.
    pub fn new(budget: &Arc<Budget>, bytes: u64) -> Result<Self, OverBudget> {
        budget.reserve(bytes)?;
        Ok(Self {
            budget: Arc::clone(budget),
            bytes,
        })
    }

    /// How many bytes this reservation holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, used, max } = self;
        write!(
            f,
            "{asked} bytes asked for, {used} of memory_max {max} are in use"
        )
    }
}

impl std::error::Error for OverBudget {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_to_the_last_byte_and_no_further() {
        let budget = Budget::new(100);
        assert_eq!(budget.reserve(60), Ok(()));
        assert_eq!(budget.reserve(40), Ok(()));
        let refused = OverBudget {
            asked: 1,
            used: 100,
            max: 100,
        };
        assert_eq!(budget.reserve(1), Err(refused));
        assert_eq!(
            refused.to_string(),
            "1 bytes asked for, 100 of memory_max 100 are in use"
        );
        assert_eq!(budget.reserve(u64::MAX).unwrap_err().used, 100);
        budget.release(60);
        assert_eq!((budget.used(), budget.high()), (40, 100));
        assert_eq!(budget.reserve(60), Ok(()));
    }

    #[test]
    fn a_budget_without_a_cap_counts_and_does_not_wrap() {
        let budget = Budget::new(0);
        assert_eq!(budget.reserve(u64::MAX - 1), Ok(()));
        assert!(budget.reserve(2).is_err());
        assert_eq!(budget.reserve(1), Ok(()));
        assert_eq!(
            (budget.max(), budget.used(), budget.high()),
            (0, u64::MAX, u64::MAX)
        );
    }

    #[test]
    #[should_panic(expected = "released 2 bytes and only 1 are reserved")]
    fn releasing_what_was_not_reserved_is_our_bug() {
        let budget = Budget::new(0);
        budget.reserve(1).unwrap();
        budget.release(2);
    }

    #[test]
    fn a_reservation_gives_back_when_dropped() {
        let budget = Arc::new(Budget::new(10));
        let reservation = Reservation::new(&budget, 10).unwrap();
        assert_eq!(reservation.bytes(), 10);
        assert!(Reservation::new(&budget, 1).is_err());
        drop(reservation);
        assert_eq!((budget.used(), budget.high()), (0, 10));
    }

    #[test]
    fn racing_threads_never_pass_the_cap_and_leave_nothing_behind() {
        const CAP: u64 = 1000;
        let budget = Arc::new(Budget::new(CAP));
        std::thread::scope(|scope| {
            let threads = [1, 2, 3].map(|thread| {
                let budget = &budget;
                scope.spawn(move || {
                    for round in 0..20_000 {
                        let bytes = (round * thread) % 600;
                        let reservation = Reservation::new(budget, bytes);
                        assert!(budget.used() <= CAP);
                        drop(reservation);
                    }
                })
            });
            // ThreadSanitizer sees a join, not the end of a scope.
            for thread in threads {
                thread.join().unwrap();
            }
        });
        assert_eq!(budget.used(), 0);
        assert!(budget.high() <= CAP);
    }
}
