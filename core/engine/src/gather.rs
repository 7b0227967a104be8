//! Letting a stream gather before it is taken.
//!
//! A reader that is faster than its writer finds a few messages at each look, and each look takes
//! the line of the lane's tail away from the writer, who waits for it to come back: both are slower
//! than they need be. So a reader that finds a little again and again looks a second time, some
//! pauses later, if that brings about a message for each pause: the rate of a saturated writer.
//! Whoever waits for single messages, or keeps a window of a few requests in flight, never pauses.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Result;

/// A batch of as many needs no more.
const ENOUGH: usize = 128;
/// Looks in a row that found a little, before a pause is tried.
const STREAK: u32 = 64;
/// Pauses at first, and at most: with 25 ns for each, below 1 µs.
const PAUSES_FIRST: u32 = 8;
const PAUSES_MAX: u32 = 48;

/// What a reader has learned; written by it alone.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    /// Up to `STREAK` a count of looks, above it the pauses.
    state: AtomicU32,
}

impl Gather {
    /// After a look that found nothing.
    #[inline(always)]
    pub(crate) fn starve(&self) {
        self.state.store(0, Ordering::Relaxed);
    }

    /// After a look that found `count` messages at once: looks again if that is worth the time.
    /// `look` returns how many there are then; its error is met again by the next receive.
    #[inline(always)]
    pub(crate) fn more(&self, count: usize, limit: usize, look: impl FnOnce() -> Result<usize>) {
        if count >= ENOUGH || count >= limit {
            return;
        }
        let state = self.state.load(Ordering::Relaxed);
        if state < STREAK || count < 2 {
            let next = if count < 2 { 0 } else { state + 1 };
            self.state.store(next, Ordering::Relaxed);
            return;
        }
        self.look_again(count, state - STREAK + PAUSES_FIRST, look);
    }

    #[inline(never)]
    fn look_again(&self, count: usize, pauses: u32, look: impl FnOnce() -> Result<usize>) {
        for _ in 0..pauses {
            std::hint::spin_loop();
        }
        let found = look().unwrap_or(count);
        let gained = found.saturating_sub(count) as u32;
        let next = if 4 * gained < 3 * pauses {
            0
        } else if found < ENOUGH && pauses < PAUSES_MAX {
            STREAK + pauses + 4 - PAUSES_FIRST
        } else {
            STREAK + pauses - PAUSES_FIRST
        };
        self.state.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many looks in a row find `count` at once, and a second one `more` besides; how many
    /// second looks there were.
    fn second_looks(gather: &Gather, rounds: u32, count: usize, more: usize) -> u32 {
        let mut looks = 0;
        for _ in 0..rounds {
            gather.more(count, 256, || {
                looks += 1;
                Ok(count + more)
            });
        }
        looks
    }

    #[test]
    fn a_stream_is_gathered_after_a_streak() {
        let gather = Gather::default();
        assert_eq!(second_looks(&gather, STREAK, 5, 60), 0);
        assert_eq!(second_looks(&gather, 100, 5, 60), 100);
        let pauses = gather.state.load(Ordering::Relaxed) - STREAK + PAUSES_FIRST;
        assert_eq!(pauses, PAUSES_MAX);
    }

    #[test]
    fn pauses_that_bring_little_are_given_up() {
        let gather = Gather::default();
        second_looks(&gather, STREAK, 5, 0);
        assert_eq!(
            second_looks(&gather, STREAK, 5, 5),
            1,
            "8 pauses for 5 messages"
        );
        let gather = Gather::default();
        second_looks(&gather, STREAK, 5, 0);
        // 8 pauses for 6 messages are worth it, 12 for 8 are not.
        assert_eq!(second_looks(&gather, 1, 5, 6), 1);
        assert_eq!(second_looks(&gather, 9, 5, 8), 1);
    }

    #[test]
    fn who_waits_or_gets_one_at_a_time_or_has_enough_never_pauses() {
        let gather = Gather::default();
        for round in 0..10 * STREAK {
            assert_eq!(
                second_looks(&gather, 1, if round % 8 == 0 { 1 } else { 7 }, 50),
                0
            );
        }
        assert_eq!(second_looks(&gather, 10 * STREAK, ENOUGH, 50), 0);
        second_looks(&gather, STREAK, 7, 50);
        gather.starve();
        assert_eq!(second_looks(&gather, STREAK, 7, 50), 0);
        // A batch as large as was asked for.
        gather.more(7, 7, || unreachable!("there is no room for more"));
    }

    #[test]
    fn an_error_of_the_second_look_is_left_to_the_next_receive() {
        let gather = Gather::default();
        second_looks(&gather, STREAK, 7, 50);
        gather.more(7, 256, || Err(crate::error::Error::NO_MEMORY));
        assert_eq!(gather.state.load(Ordering::Relaxed), 0);
    }
}
