//! Requests that wait for an answer: their numbers on the connection, and whose they are.

use crate::survey::LEG;

use super::REQUESTS_MAX;

/// Slots to begin with.
const SLOTS_FIRST: usize = 64;
/// Slots that one look for requests given up goes through.
const SLOTS_PER_LOOK: usize = 1 << 14;

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
    given_up: GivenUp,
}

/// Requests that their askers have given up, by token. A token says nothing of the slot, and asking
/// is to know nothing of giving up: so the slots are gone through, once for all that were given up
/// until then, and some of them at a time.
#[derive(Debug, Default)]
struct GivenUp {
    /// Those of the next time.
    new: Vec<u64>,
    /// Those that are looked for, in order.
    wanted: Vec<u64>,
    /// Slots that were gone through for these.
    slots: usize,
}

impl GivenUp {
    /// Whether this request was. A token without a number stands for all of its requester.
    fn has(&self, token: u64) -> bool {
        let is_one = token as u32 & LEG == 0;
        let wanted = |token| self.wanted.binary_search(&token).is_ok();
        is_one && (wanted(token) || wanted(token >> 32 << 32))
    }
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

    /// Has a request leave whose asker wants no answer any more; without a number, all requests of
    /// a requester, but for those for many. They do so by `look_for_given_up`. False: none is open.
    pub(super) fn give_up(&mut self, token: u64) -> bool {
        let new = &mut self.given_up.new;
        // Without memory it leaves by its answer, or with the connection.
        let is_noted = self.count > 0 && new.try_reserve(1).is_ok();
        if is_noted {
            new.push(token);
        }
        is_noted
    }

    /// Takes out some of the requests that were given up; true: there may be more.
    #[inline]
    pub(super) fn look_for_given_up(&mut self) -> bool {
        let given_up = &self.given_up;
        (!given_up.new.is_empty() || !given_up.wanted.is_empty()) && self.look_on()
    }

    #[cold]
    #[inline(never)]
    fn look_on(&mut self) -> bool {
        let given_up = &mut self.given_up;
        if given_up.wanted.is_empty() {
            std::mem::swap(&mut given_up.wanted, &mut given_up.new);
            given_up.wanted.sort_unstable();
            given_up.slots = 0;
        }
        // Should they have grown meanwhile: none has moved to where was looked already.
        let end = self.slots.len().min(given_up.slots + SLOTS_PER_LOOK);
        for slot in &mut self.slots[given_up.slots.min(end)..end] {
            if slot.number != 0 && given_up.has(slot.token) {
                slot.number = 0;
                self.count -= 1;
            }
        }
        given_up.slots = end;
        if end == self.slots.len() {
            given_up.wanted = Vec::new();
        }
        !given_up.new.is_empty() || !given_up.wanted.is_empty()
    }

    /// As [`take`](Self::take), of many; 0: none has this number.
    #[inline(always)]
    pub(super) fn taking(&mut self) -> impl FnMut(u32) -> u64 {
        let mask = self.mask();
        let (slots, count) = (&mut *self.slots, &mut self.count);
        move |number| match slots.get_mut(number as usize & mask) {
            Some(slot) if slot.number == number && number != 0 => {
                slot.number = 0;
                *count -= 1;
                slot.token
            }
            _ => 0,
        }
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

    #[test]
    fn what_is_given_up_leaves_also_while_the_slots_grow() {
        const COUNT: u64 = 3 * SLOTS_PER_LOOK as u64;
        let token = |requester: u64, number| requester << 32 | number;
        let mut open = Open::default();
        assert!(!open.give_up(token(1, 1)) && !open.look_for_given_up());
        let numbers: Vec<u32> = (1..=COUNT)
            .map(|number| put(&mut open, token(1 + number % 2, number)))
            .collect();
        // One requester as a whole, each third of the other's, and one that is none of them.
        assert!(open.give_up(token(1, 0)) && open.give_up(token(3, 1)));
        for number in (1..=COUNT).filter(|number| number % 3 == 0) {
            assert!(open.give_up(token(2, number)));
        }
        let many = put(&mut open, token(1, u64::from(LEG) | 1));
        assert!(open.look_for_given_up());
        let slots = open.slots.len();
        let mut later = 0;
        while open.slots.len() == slots {
            later += 1;
            put(&mut open, token(4, later));
        }
        let mut looks = 2;
        while open.look_for_given_up() {
            looks += 1;
        }
        assert_eq!(looks, open.slots.len() / SLOTS_PER_LOOK);
        for (number, correlation) in (1..=COUNT).zip(numbers) {
            let is_left = number % 2 == 1 && number % 3 != 0;
            let expected = is_left.then_some(token(2, number));
            assert_eq!(open.take(correlation), expected);
        }
        assert_eq!(open.take(many), Some(token(1, u64::from(LEG) | 1)));
        assert_eq!(open.count() as u64, later);
    }
}
