//! Requests that a connection was given and has not answered.
//!
//! A connection is given a number for each: what it answers to is looked up among its own, so a
//! made-up number, one that was answered, and one of another connection lead nowhere. When the
//! connection ends, those who asked are told.

use fastmq_wire::NoMemory;

use super::REQUESTS_OWED_MAX;

const NONE: u32 = u32::MAX;

/// One request, or a place for one.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The engine's token; 0: free.
    token: u64,
    /// How often the place was given away.
    generation: u32,
    /// The next free place.
    next: u32,
}

/// A request that has to give way to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    /// What the connection calls it.
    pub(super) number: u64,
    /// The engine's token.
    pub(super) token: u64,
}

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Owed {
    slots: Vec<Slot>,
    free: u32,
    /// Where the next one is dropped when there are too many.
    hand: u32,
}

impl Default for Owed {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            hand: 0,
        }
    }
}

impl Owed {
    /// Enters a request: its number, and the one that has to give way. Many of those were answered
    /// by others: a connection may only listen.
    #[inline(always)]
    pub(super) fn enter(&mut self, token: u64) -> Result<(u64, Option<Before>), NoMemory> {
        let mut before = None;
        if self.free == NONE {
            before = self.make_room()?;
        }
        let index = self.free;
        let slot = self.slots.get_mut(index as usize).ok_or(NoMemory)?;
        self.free = slot.next;
        slot.token = token;
        slot.generation = slot.generation.wrapping_add(1);
        Ok((u64::from(index) | u64::from(slot.generation) << 32, before))
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self) -> Result<Option<Before>, NoMemory> {
        let count = self.slots.len() as u32;
        if count < REQUESTS_OWED_MAX {
            self.slots.try_reserve(1).map_err(|_| NoMemory)?;
            self.slots.push(Slot {
                token: 0,
                generation: 0,
                next: NONE,
            });
            self.free = count;
            return Ok(None);
        }
        let hand = self.hand;
        self.hand = (hand + 1) % count;
        let slot = self.slots.get_mut(hand as usize).ok_or(NoMemory)?;
        slot.next = NONE;
        self.free = hand;
        Ok(Some(Before {
            number: u64::from(hand) | u64::from(slot.generation) << 32,
            token: std::mem::take(&mut slot.token),
        }))
    }

    /// Takes the token of a request by its number.
    #[inline(always)]
    pub(super) fn take(&mut self, number: u64) -> Option<u64> {
        let index = number as u32;
        let slot = self.slots.get_mut(index as usize)?;
        if slot.token == 0 || slot.generation != (number >> 32) as u32 {
            return None;
        }
        slot.next = self.free;
        self.free = index;
        Some(std::mem::take(&mut slot.token))
    }

    /// Takes all of them.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = u64> + use<> {
        let slots = std::mem::take(self).slots.into_iter();
        slots.map(|slot| slot.token).filter(|token| *token != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_leads_to_its_request_once() {
        let mut owed = Owed::default();
        let (first, _) = owed.enter(11).unwrap();
        let (second, _) = owed.enter(22).unwrap();
        assert_ne!(first, second);
        assert_eq!(owed.take(first), Some(11));
        assert_eq!(owed.take(first), None, "it was answered");
        let (third, _) = owed.enter(33).unwrap();
        assert_eq!(third as u32, first as u32, "its place is used again");
        assert_eq!(owed.take(first), None, "the place has another request");
        for made_up in [0, 1, 7, third ^ 1 << 32, u64::MAX] {
            assert_eq!(owed.take(made_up), None);
        }
        assert_eq!(owed.take(third), Some(33));
        assert_eq!(owed.take(second), Some(22));
        assert_eq!(owed.take_all().count(), 0);
    }

    #[test]
    fn of_too_many_the_first_gives_way() {
        let mut owed = Owed::default();
        let numbers: Vec<u64> = (1..=u64::from(REQUESTS_OWED_MAX))
            .map(|token| {
                let (number, before) = owed.enter(token).unwrap();
                assert_eq!(before, None);
                number
            })
            .collect();
        let (last, before) = owed.enter(1 << 40).unwrap();
        let gone = |at: usize, token| {
            Some(Before {
                number: numbers[at],
                token,
            })
        };
        assert_eq!(before, gone(0, 1));
        assert_eq!(owed.take(numbers[0]), None);
        assert_eq!(owed.enter(1 << 41).unwrap().1, gone(1, 2));
        assert_eq!(owed.take(numbers[2]), Some(3));
        assert_eq!(
            owed.enter(1 << 42).unwrap().1,
            None,
            "there is a free place"
        );
        assert_eq!(owed.take(last), Some(1 << 40));
        assert_eq!(owed.take_all().count() as u32, REQUESTS_OWED_MAX - 1);
    }
}
