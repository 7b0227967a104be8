//! Requests that wait for an answer: their numbers on the connection, and whose they are.

use super::REQUESTS_MAX;

/// Bits of a number that are its place; the others tell it from earlier ones of the place.
const PLACE_BITS: u32 = 20;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;
const GENERATION_MAX: u32 = (1 << (32 - PLACE_BITS)) - 1;
/// No place.
const NONE: u32 = u32::MAX;

const _: () = assert!(REQUESTS_MAX == 1 << PLACE_BITS);

#[derive(Debug)]
struct Slot {
    /// The asker's token; of a free slot the next one that is free.
    token: u64,
    /// 0: free. It never comes again before 4,095 others.
    generation: u32,
    last_generation: u32,
}

impl Slot {
    #[inline(always)]
    fn next_generation(&self) -> u32 {
        match self.last_generation {
            GENERATION_MAX => 1,
            last => last + 1,
        }
    }
}

/// Requests without an answer, by a number of their own.
#[derive(Debug)]
pub(super) struct Open {
    slots: Vec<Slot>,
    free: u32,
    count: usize,
}

impl Default for Open {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            count: 0,
        }
    }
}

impl Open {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A place for one more; false: there are too many, or there is no memory.
    #[inline(always)]
    pub(super) fn reserve(&mut self) -> bool {
        self.free != NONE || self.grow()
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let count = self.slots.len();
        let more = count.clamp(64, 4096).min(REQUESTS_MAX - count);
        if more == 0 || self.slots.try_reserve(more).is_err() {
            return false;
        }
        for place in count..count + more {
            let next = match place + 1 == count + more {
                true => NONE,
                false => place as u32 + 1,
            };
            self.slots.push(Slot {
                token: u64::from(next),
                generation: 0,
                last_generation: 0,
            });
        }
        self.free = count as u32;
        true
    }

    /// The number that the next request gets, once `reserve` has found a place; not 0.
    #[inline(always)]
    pub(super) fn next(&self) -> u32 {
        let slot = self.slots.get(self.free as usize);
        slot.map_or(0, |slot| slot.next_generation() << PLACE_BITS | self.free)
    }

    /// Enters a request with that number.
    #[inline(always)]
    pub(super) fn put(&mut self, token: u64) {
        let Some(slot) = self.slots.get_mut(self.free as usize) else {
            return;
        };
        self.free = slot.token as u32;
        let generation = slot.next_generation();
        *slot = Slot {
            token,
            generation,
            last_generation: generation,
        };
        self.count += 1;
    }

    /// The token of the request with this number, which stays open.
    pub(super) fn get(&self, number: u32) -> Option<u64> {
        let slot = self.slots.get((number & PLACE_MASK) as usize)?;
        let is_it = slot.generation == number >> PLACE_BITS && slot.generation != 0;
        is_it.then_some(slot.token)
    }

    /// The token of the request with this number, once.
    #[inline(always)]
    pub(super) fn take(&mut self, number: u32) -> Option<u64> {
        let place = number & PLACE_MASK;
        let slot = self.slots.get_mut(place as usize)?;
        if slot.generation != number >> PLACE_BITS || slot.generation == 0 {
            return None;
        }
        slot.generation = 0;
        self.count -= 1;
        Some(std::mem::replace(
            &mut slot.token,
            u64::from(std::mem::replace(&mut self.free, place)),
        ))
    }

    /// All that are open.
    pub(super) fn tokens(self) -> impl Iterator<Item = u64> {
        let open = self.slots.into_iter().filter(|slot| slot.generation != 0);
        open.map(|slot| slot.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(open: &mut Open, token: u64) -> u32 {
        assert!(open.reserve());
        let number = open.next();
        open.put(token);
        number
    }

    #[test]
    fn a_number_is_answered_once_and_does_not_come_again_soon() {
        let mut open = Open::default();
        let first = put(&mut open, 70);
        let second = put(&mut open, 80);
        assert_ne!(first, second);
        assert_eq!((open.get(second), open.get(second)), (Some(80), Some(80)));
        assert_eq!(open.take(second), Some(80));
        assert_eq!((open.take(second), open.get(second)), (None, None));
        let third = put(&mut open, 90);
        assert_ne!(third, second);
        assert_eq!(open.take(second), None);
        assert_eq!((open.take(0), open.take(u32::MAX)), (None, None));
        assert_eq!(open.count(), 2);
        let mut left: Vec<u64> = open.tokens().collect();
        left.sort_unstable();
        assert_eq!(left, [70, 90]);
    }

    #[test]
    fn there_are_as_many_as_may_be() {
        let mut open = Open::default();
        let numbers: Vec<u32> = (0..REQUESTS_MAX as u64)
            .map(|token| put(&mut open, token))
            .collect();
        assert!(!open.reserve());
        assert_eq!(open.take(numbers[77]), Some(77));
        assert!(open.reserve());
        for (token, number) in numbers.iter().enumerate() {
            let expected = (token != 77).then_some(token as u64);
            assert_eq!(open.take(*number), expected);
        }
        assert_eq!(open.count(), 0);
    }
}
