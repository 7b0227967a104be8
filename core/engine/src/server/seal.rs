//! Tokens of requests as a connection sees them.
//!
//! A token of the engine names an asker and counts up: who has seen one could make those of others.
//! So a connection is given each token encrypted under a key of its own (Speck with blocks of 64
//! and keys of 128 bits), and what it answers to is decrypted. A made-up token decrypts to noise,
//! which names a request that is open with a chance of about one in 2⁶³ for each of them; one that
//! another connection was given means nothing here.

use fastmq_driver::Driver;

const ROUNDS: usize = 27;

/// The key of one connection.
pub(super) struct Seal {
    keys: [u32; ROUNDS],
}

impl Seal {
    pub(super) fn new(driver: &dyn Driver) -> Self {
        let (low, high) = (driver.random(), driver.random());
        Self::of([
            low as u32,
            (low >> 32) as u32,
            high as u32,
            (high >> 32) as u32,
        ])
    }

    fn of(key: [u32; 4]) -> Self {
        let mut keys = [0; ROUNDS];
        let (mut k, mut l) = (key[0], [key[1], key[2], key[3]]);
        for (round, slot) in keys.iter_mut().enumerate() {
            *slot = k;
            let at = round % 3;
            (l[at], k) = step(l[at], k, round as u32);
        }
        Self { keys }
    }

    /// What the connection is given for a token.
    pub(super) fn close(&self, token: u64) -> u64 {
        let (mut x, mut y) = ((token >> 32) as u32, token as u32);
        for key in self.keys {
            (x, y) = step(x, y, key);
        }
        u64::from(x) << 32 | u64::from(y)
    }

    /// The token behind what the connection answers to.
    pub(super) fn open(&self, sealed: u64) -> u64 {
        let (mut x, mut y) = ((sealed >> 32) as u32, sealed as u32);
        for key in self.keys.iter().rev() {
            y = (y ^ x).rotate_right(3);
            x = (x ^ key).wrapping_sub(y).rotate_left(8);
        }
        u64::from(x) << 32 | u64::from(y)
    }
}

fn step(x: u32, y: u32, key: u32) -> (u32, u32) {
    let x = x.rotate_right(8).wrapping_add(y) ^ key;
    (x, y.rotate_left(3) ^ x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_cipher() {
        let seal = Seal::of([0x0302_0100, 0x0b0a_0908, 0x1312_1110, 0x1b1a_1918]);
        assert_eq!(seal.close(0x3b72_6574_7475_432d), 0x8c6f_a548_454e_028b);
    }

    #[test]
    fn what_was_closed_opens_to_itself_under_its_key_only() {
        let (seal, other) = (Seal::of([1, 2, 3, 4]), Seal::of([1, 2, 3, 5]));
        for token in [1, 0xffff_ffff, 1 << 32 | 7, u64::MAX, 0x7fff_0000_8000_0001] {
            assert_eq!(seal.open(seal.close(token)), token);
            assert_ne!(other.open(seal.close(token)), token);
        }
    }
}
