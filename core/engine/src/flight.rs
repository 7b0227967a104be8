//! Requests in flight: which answers are expected, for whom, and until when.
//!
//! A request's number is a slot with a generation, so that an answer that comes late or twice
//! finds nobody. Deadlines are set when the clock is read next after a submit, never earlier than
//! asked, so that a submit reads no clock.

/// Most requests in flight of one requester.
pub const IN_FLIGHT_MAX: u32 = 65_535;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Odd while the slot is used. One word for both, and all of it: a part that is stored on its
    /// own and then loaded with its neighbours would make every submit wait for its own store.
    /// The lower 16 bits travel.
    generation: u32,
    user_token: u64,
    /// Nanoseconds: relative until stamped, then a monotonic deadline; `u64::MAX`: none.
    deadline_ns: u64,
}

impl Slot {
    #[inline(always)]
    fn is_used(&self) -> bool {
        self.generation & 1 != 0
    }
}

/// The requests of one requester.
#[derive(Debug)]
pub(crate) struct Flight {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Slots whose deadline is still relative.
    unstamped: Vec<u16>,
    /// No deadline is earlier than this; `u64::MAX`: none.
    deadline_ns: u64,
    max: u32,
}

impl Flight {
    pub(crate) fn new(max: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            unstamped: Vec::new(),
            deadline_ns: u64::MAX,
            max,
        }
    }

    /// Requests that wait for an answer.
    pub(crate) fn count(&self) -> u32 {
        (self.slots.len() - self.free.len()) as u32
    }

    /// A lower bound of the next deadline.
    #[inline(always)]
    pub(crate) fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// True if a deadline waits for the clock to be read.
    #[inline(always)]
    pub(crate) fn has_unstamped(&self) -> bool {
        !self.unstamped.is_empty()
    }

    /// Takes a place; `None` when the window is full or there is no memory.
    #[inline(always)]
    pub(crate) fn take(&mut self, user_token: u64, timeout_ns: u64) -> Option<u32> {
        if self.free.is_empty() && !self.grow() {
            return None;
        }
        let index = self.free.pop()?;
        let slot = &mut self.slots[index as usize];
        let generation = slot.generation.wrapping_add(1);
        slot.generation = generation;
        slot.user_token = user_token;
        slot.deadline_ns = timeout_ns;
        if timeout_ns != u64::MAX {
            self.stamp_later(index);
        }
        Some(u32::from(index) | generation << 16)
    }

    #[inline(always)]
    fn stamp_later(&mut self, index: u16) {
        if self.unstamped.len() == self.unstamped.capacity() {
            self.compact();
        }
        self.unstamped.push(index);
    }

    /// Entries whose request was answered before the clock was read are useless.
    #[cold]
    fn compact(&mut self) {
        let mut seen = vec![false; self.slots.len()];
        let slots = &self.slots;
        self.unstamped.retain(|index| {
            let index = *index as usize;
            let is_first = !std::mem::replace(&mut seen[index], true);
            is_first && slots[index].is_used()
        });
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let before = self.slots.len();
        let after = (before * 2).max(64).min(self.max as usize);
        let by = after.saturating_sub(before);
        if by == 0
            || self.slots.try_reserve(by).is_err()
            || self.free.try_reserve(after).is_err()
            || self.unstamped.try_reserve(2 * after).is_err()
        {
            return false;
        }
        for index in before..after {
            self.slots.push(Slot {
                generation: 0,
                user_token: 0,
                deadline_ns: u64::MAX,
            });
            self.free.push(index as u16);
        }
        true
    }

    /// The user's token of a request that is in flight; ends the request unless `has_more`.
    #[inline(always)]
    pub(crate) fn answer(&mut self, number: u32, has_more: bool) -> Option<u64> {
        let slot = self.slots.get_mut((number & 0xffff) as usize)?;
        if !slot.is_used() || slot.generation as u16 != (number >> 16) as u16 {
            return None;
        }
        let user_token = slot.user_token;
        if !has_more {
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(number as u16);
            if self.free.len() == self.slots.len() {
                // Nothing is in flight: no deadline is left, stamped or not.
                self.deadline_ns = u64::MAX;
                self.unstamped.clear();
            }
        }
        Some(user_token)
    }

    /// Makes relative deadlines absolute.
    pub(crate) fn stamp(&mut self, now_ns: u64) {
        for index in self.unstamped.drain(..) {
            let slot = &mut self.slots[index as usize];
            // An index may stand here twice, or its slot be free again: stamp each once.
            if slot.is_used() && slot.deadline_ns < STAMPED {
                slot.deadline_ns = now_ns.saturating_add(slot.deadline_ns) | STAMPED;
                self.deadline_ns = self.deadline_ns.min(slot.deadline_ns & !STAMPED);
            }
        }
    }

    /// Ends the requests whose time is up; `ended` gets each user token.
    pub(crate) fn expire(&mut self, now_ns: u64, mut ended: impl FnMut(u64)) {
        if now_ns < self.deadline_ns {
            return;
        }
        self.deadline_ns = u64::MAX;
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if !slot.is_used() || slot.deadline_ns == u64::MAX || slot.deadline_ns < STAMPED {
                continue;
            }
            let deadline_ns = slot.deadline_ns & !STAMPED;
            if deadline_ns > now_ns {
                self.deadline_ns = self.deadline_ns.min(deadline_ns);
                continue;
            }
            let number = index as u32 | slot.generation << 16;
            if let Some(token) = self.answer(number, false) {
                ended(token);
            }
        }
    }

    /// The number of a request with this user token.
    pub(crate) fn find(&self, user_token: u64) -> Option<u32> {
        let index = self
            .slots
            .iter()
            .position(|slot| slot.is_used() && slot.user_token == user_token)?;
        Some(index as u32 | self.slots[index].generation << 16)
    }
}

/// Marks a deadline as absolute; monotonic nanoseconds and time-outs stay below it for 292 years.
const STAMPED: u64 = 1 << 63;

/// Time-outs at or above this mean "for ever".
pub(crate) fn timeout_of(timeout_ns: u64) -> u64 {
    if timeout_ns >= STAMPED >> 1 {
        u64::MAX
    } else {
        timeout_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_its_request_once() {
        let mut flight = Flight::new(4);
        let number = flight.take(77, u64::MAX).unwrap();
        assert_eq!(flight.count(), 1);
        assert_eq!(flight.answer(number, true), Some(77));
        assert_eq!(flight.answer(number, false), Some(77));
        assert_eq!(flight.answer(number, false), None);
        assert_eq!(flight.count(), 0);
    }

    #[test]
    fn the_window_is_bounded() {
        let mut flight = Flight::new(3);
        let numbers: Vec<_> = (0..3).map(|token| flight.take(token, 5).unwrap()).collect();
        assert_eq!(flight.take(3, 5), None);
        assert_eq!(flight.answer(numbers[1], false), Some(1));
        assert!(flight.take(4, 5).is_some());
    }

    #[test]
    fn time_runs_from_the_first_reading_of_the_clock() {
        let mut flight = Flight::new(64);
        flight.take(1, 100).unwrap();
        flight.take(2, 50).unwrap();
        let answered = flight.take(3, 10).unwrap();
        assert_eq!(flight.answer(answered, false), Some(3));
        flight.stamp(1000);
        assert_eq!(flight.deadline_ns(), 1050);
        let mut ended = Vec::new();
        flight.expire(1049, |token| ended.push(token));
        assert!(ended.is_empty());
        flight.expire(1050, |token| ended.push(token));
        assert_eq!(ended, [2]);
        assert_eq!(flight.deadline_ns(), 1100);
        flight.expire(5000, |token| ended.push(token));
        assert_eq!(ended, [2, 1]);
        assert_eq!(flight.deadline_ns(), u64::MAX);
    }

    #[test]
    fn many_requests_between_two_readings_of_the_clock_stay_bounded() {
        let mut flight = Flight::new(64);
        for round in 0..10_000 {
            let number = flight.take(round, 10).unwrap();
            assert_eq!(flight.answer(number, false), Some(round));
        }
        assert!(flight.unstamped.len() <= 4 * 64);
    }
}
