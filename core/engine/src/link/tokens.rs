//! The server's tokens and ours.
//!
//! A request that the server delivers has a token of the server's. Its responder gets one of ours
//! in its place, which stops meaning anything when the connection ends, and whose top bit tells it
//! from the tokens of this process.

use std::collections::VecDeque;

use super::TOKENS_MAX;

/// The bit that no token of this process has.
pub(super) const OF_SERVER: u64 = 1 << 63;

/// Requests of the server that may still be answered: the newest ones.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The number of the first; numbers are never used again.
    first: u64,
    tokens: VecDeque<Option<u64>>,
}

impl Tokens {
    /// Our token for one of the server's; `None`: no memory. When there are too many the oldest is
    /// forgotten.
    pub(super) fn give(&mut self, token: u64) -> Option<u64> {
        if self.tokens.len() == TOKENS_MAX {
            self.tokens.pop_front();
            self.first += 1;
        }
        self.tokens.try_reserve(1).ok()?;
        self.tokens.push_back(Some(token));
        Some(OF_SERVER | (self.first + self.tokens.len() as u64 - 1))
    }

    /// The server's token, which stays what it is.
    pub(super) fn get(&self, ours: u64) -> Option<u64> {
        let index = (ours & !OF_SERVER).checked_sub(self.first)?;
        *self.tokens.get(usize::try_from(index).ok()?)?
    }

    /// The oldest of our tokens that still means something.
    pub(super) fn oldest(&self) -> u64 {
        OF_SERVER | self.first
    }

    /// The server's token, once.
    pub(super) fn take(&mut self, ours: u64) -> Option<u64> {
        let index = (ours & !OF_SERVER).checked_sub(self.first)?;
        let token = self.tokens.get_mut(usize::try_from(index).ok()?)?.take();
        while let Some(None) = self.tokens.front() {
            self.tokens.pop_front();
            self.first += 1;
        }
        token
    }

    /// The connection has ended: none means anything any more.
    pub(super) fn forget(&mut self) {
        self.first += self.tokens.len() as u64;
        self.tokens.clear();
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
        assert_eq!(tokens.take(second), Some(80));
        assert_eq!((tokens.take(second), tokens.get(second)), (None, None));
        assert_eq!(tokens.take(first), Some(70));
        let old = tokens.give(90).unwrap();
        tokens.forget();
        let new = tokens.give(91).unwrap();
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
        assert!(tokens.tokens.len() < TOKENS_MAX);
    }
}
