//! Requests that wait for an answer: their numbers on the connection, and whose they are.

use super::REQUESTS_MAX;

/// Slots to begin with.
const SLOTS_FIRST: usize = 64;

const _: () = assert!(REQUESTS_MAX.is_power_of_two());

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    token: u64,
    /// 0: free.
    number: u32,
}

/// Requests without an answer, by a number of their own.
///
/// Numbers count up, and a number's slot is its lower bits: who asks in a row and is answered in a
/// row goes through memory in a row. A number whose slot is used is passed over.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// A power of two, and twice as many as may be used.
    slots: Vec<Slot>,
    last: u32,
    count: usize,
}

impl Open {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A place for one more; false: there are too many, or there is no memory.
    #[inline(always)]
    pub(super) fn reserve(&mut self) -> bool {
        2 * self.count < self.slots.len() || self.grow()
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) -> bool {
        let count = (2 * self.slots.len()).max(SLOTS_FIRST);
        let mut slots = Vec::new();
        if count > 2 * REQUESTS_MAX || slots.try_reserve_exact(count).is_err() {
            return false;
        }
        slots.resize(count, Slot::default());
        for slot in self.slots.iter().filter(|slot| slot.number != 0) {
            // Numbers that differed in fewer bits differ in more.
            slots[slot.number as usize & (count - 1)] = *slot;
        }
        self.slots = slots;
        true
    }

    #[inline(always)]
    fn slot(&mut self, number: u32) -> Option<&mut Slot> {
        let mask = self.mask();
        self.slots.get_mut(number as usize & mask)
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    /// Enters a request, once `reserve` has found a place, and gives its number; not 0.
    #[inline(always)]
    pub(super) fn put(&mut self, token: u64) -> u32 {
        let mut number = self.last;
        // At most half of the slots are used.
        loop {
            number = number.wrapping_add(1);
            match self.slot(number) {
                Some(slot) if slot.number == 0 && number != 0 => {
                    *slot = Slot { token, number };
                    break;
                }
                Some(_) => {}
                None => return 0,
            }
        }
        self.last = number;
        self.count += 1;
        number
    }

    /// The token of the request with this number, which stays open.
    pub(super) fn get(&self, number: u32) -> Option<u64> {
        let slot = self.slots.get(number as usize & self.mask())?;
        (slot.number == number && number != 0).then_some(slot.token)
    }

    /// The token of the request with this number, once.
    #[inline(always)]
    pub(super) fn take(&mut self, number: u32) -> Option<u64> {
        let slot = self.slot(number)?;
        if slot.number != number || number == 0 {
            return None;
        }
        slot.number = 0;
        let token = slot.token;
        self.count -= 1;
        Some(token)
    }

    /// Takes all that are open. Later ones have other numbers.
    pub(super) fn take_all(&mut self) -> Self {
        let last = self.last;
        let all = std::mem::take(self);
        self.last = last;
        all
    }

    /// All that are open.
    pub(super) fn tokens(self) -> impl Iterator<Item = u64> {
        let open = self.slots.into_iter().filter(|slot| slot.number != 0);
        open.map(|slot| slot.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(open: &mut Open, token: u64) -> u32 {
        assert!(open.reserve());
        open.put(token)
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
        let mut left: Vec<u64> = open.take_all().tokens().collect();
        left.sort_unstable();
        assert_eq!(left, [70, 90]);
        let later = put(&mut open, 100);
        assert!(![first, second, third].contains(&later));
    }

    #[test]
    fn numbers_go_round_past_zero_and_past_those_that_are_open() {
        let mut open = Open::default();
        let first = put(&mut open, 7);
        open.last = u32::MAX - 100;
        let second = put(&mut open, 8);
        for _ in 0..1000 {
            let number = put(&mut open, 9);
            assert!(![0, first, second].contains(&number));
            assert_eq!(open.take(number), Some(9));
        }
        assert_eq!((open.take(second), open.take(first)), (Some(8), Some(7)));
        assert_eq!(open.count(), 0);
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
