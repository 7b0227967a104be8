//! The server's tokens and ours.
//!
//! A request that the server delivers has a token of the server's. Its responder gets one of ours
//! in its place, which stops meaning anything when the connection ends, and whose top bit tells it
//! from the tokens of this process.

use super::TOKENS_MAX;

/// The bit that no token of this process has.
pub(super) const OF_SERVER: u64 = 1 << 63;
/// Slots to begin with.
const SLOTS_FIRST: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// 0: free.
    number: u64,
    token: u64,
}

/// Requests of the server that may still be answered: the newest ones.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// By the lower bits of the number; as many as a power of two.
    slots: Vec<Slot>,
    /// The number that was given last; none is given again.
    last: u64,
    /// One of this connection was answered.
    has_answered: bool,
}

impl Tokens {
    /// Our token for one of the server's; `None`: no memory. When there are too many the oldest is
    /// forgotten.
    #[inline(always)]
    pub(super) fn give(&mut self, token: u64) -> Option<u64> {
        let number = self.last + 1;
        match self.slot(number) {
            Some(slot) if slot.number == 0 => *slot = Slot { number, token },
            _ => self.give_by_growing(number, token)?,
        }
        self.last = number;
        Some(OF_SERVER | number)
    }

    #[cold]
    #[inline(never)]
    fn give_by_growing(&mut self, number: u64, token: u64) -> Option<()> {
        if !self.grow() {
            return None;
        }
        *self.slot(number)? = Slot { number, token };
        Some(())
    }

    /// The server's token, which stays what it is.
    pub(super) fn get(&self, ours: u64) -> Option<u64> {
        let number = ours & !OF_SERVER;
        let slot = self.slots.get(number as usize & self.mask())?;
        (slot.number == number && number != 0).then_some(slot.token)
    }

    /// Whether one who answers has not answered all: who never answers may only listen.
    pub(super) fn is_owing(&self) -> bool {
        self.has_answered && self.slots.iter().any(|slot| slot.number != 0)
    }

    /// None of our tokens that is older means something.
    pub(super) fn oldest(&self) -> u64 {
        // A number that comes as many later has its slot, or has had more made.
        let gone = self.last.saturating_sub(self.slots.len() as u64);
        OF_SERVER | (gone + 1)
    }

    /// The server's token, once: it is answered.
    #[inline(always)]
    pub(super) fn take(&mut self, ours: u64) -> Option<u64> {
        let token = self.take_back(ours)?;
        self.has_answered = true;
        Some(token)
    }

    /// The same of one that nobody was shown.
    #[inline(always)]
    pub(super) fn take_back(&mut self, ours: u64) -> Option<u64> {
        let number = ours & !OF_SERVER;
        let slot = self.slot(number)?;
        if slot.number != number || number == 0 {
            return None;
        }
        slot.number = 0;
        Some(slot.token)
    }

    #[inline(always)]
    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let mask = self.mask();
        self.slots.get_mut(number as usize & mask)
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    /// Makes a place for the next number: by more slots, as long as there may be more.
    fn grow(&mut self) -> bool {
        let number = self.last + 1;
        while self.slots.len() < TOKENS_MAX {
            let count = (2 * self.slots.len()).max(SLOTS_FIRST);
            let mut slots = Vec::new();
            if slots.try_reserve_exact(count).is_err() {
                return false;
            }
            slots.resize(count, Slot::default());
            for slot in self.slots.iter().filter(|slot| slot.number != 0) {
                // Numbers that differed in fewer bits differ in more.
                slots[slot.number as usize & (count - 1)] = *slot;
            }
            self.slots = slots;
            if matches!(self.slot(number), Some(slot) if slot.number == 0) {
                return true;
            }
        }
        // The oldest gives its place.
        self.slot(number).is_some()
    }

    /// The connection has ended: none means anything any more.
    pub(super) fn forget(&mut self) {
        self.slots = Vec::new();
        self.has_answered = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_once_and_not_by_a_later_connection() {
        let mut tokens = Tokens::default();
        let (first, second) = (tokens.give(70).unwrap(), tokens.give(80).unwrap());
        assert_eq!((tokens.get(second), tokens.oldest()), (Some(80), first));
        assert!(!tokens.is_owing(), "it has not answered yet");
        assert_eq!(tokens.take(second), Some(80));
        assert!(tokens.is_owing());
        assert_eq!((tokens.take(second), tokens.get(second)), (None, None));
        assert_eq!(tokens.take(first), Some(70));
        assert!(!tokens.is_owing());
        let old = tokens.give(90).unwrap();
        tokens.forget();
        let new = tokens.give(91).unwrap();
        assert!(
            !tokens.is_owing(),
            "what another connection was answered does not count"
        );
        assert_eq!(tokens.take(old), None);
        assert_eq!(tokens.take(new), Some(91));
        assert_eq!(tokens.take(OF_SERVER | u64::MAX >> 1), None);
    }

    #[test]
    fn the_oldest_of_too_many_is_forgotten() {
        let mut tokens = Tokens::default();
        let first = tokens.give(1).unwrap();
        let second = tokens.give(2).unwrap();
        for number in 0..TOKENS_MAX as u64 - 1 {
            tokens.give(number).unwrap();
        }
        assert_eq!(tokens.take(first), None);
        assert_eq!(tokens.take(second), Some(2));
        assert!(tokens.slots.len() <= TOKENS_MAX);
    }
}
