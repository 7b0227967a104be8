//! The least that "by subject string" can cost: one hash, one probe, one comparison.
//!
//! 1,024 sequential names of 16 bytes, used in turn. The hash is a seeded folded multiply, as
//! strong as the one of the engine has to be: sequential names must not collide.
//! Not here: tokens, wildcards, groups, generations.

use std::hint::black_box;

/// How many subjects the table holds and a run cycles through.
pub(crate) const SUBJECT_COUNT: usize = 1024;
/// Size of each subject.
pub(crate) const SUBJECT_BYTES: usize = 16;

const SLOT_COUNT: usize = 4 * SUBJECT_COUNT;
const EMPTY: u32 = u32::MAX;

/// The names, in the order in which a run uses them.
pub(crate) fn names() -> Vec<String> {
    (0..SUBJECT_COUNT)
        .map(|index| format!("player.{index:09}"))
        .collect()
}

#[derive(Clone)]
struct Slot {
    hash: u32,
    id: u32,
    text: [u8; SUBJECT_BYTES],
}

/// An open table from subject to id.
pub(crate) struct Table {
    seeds: [u64; 3],
    slots: Vec<Slot>,
}

impl Table {
    pub(crate) fn new(names: &[String]) -> Table {
        let seeds = black_box([
            0x9E37_79B9_7F4A_7C15,
            0xD6E8_FEB8_6659_FD93,
            0xA076_1D64_78BD_642F,
        ]);
        let empty = Slot {
            hash: 0,
            id: EMPTY,
            text: [0; SUBJECT_BYTES],
        };
        let mut table = Table {
            seeds,
            slots: vec![empty; SLOT_COUNT],
        };
        for (id, name) in names.iter().enumerate() {
            let hash = table.hash(name.as_bytes());
            let mut at = hash as usize % SLOT_COUNT;
            while table.slots[at].id != EMPTY {
                at = (at + 1) % SLOT_COUNT;
            }
            let text = name.as_bytes().try_into().expect("every name has 16 bytes");
            table.slots[at] = Slot {
                hash: (hash >> 32) as u32,
                id: id as u32,
                text,
            };
        }
        table
    }

    /// The id of a subject.
    #[inline(always)]
    pub(crate) fn find(&self, subject: &[u8]) -> Option<u32> {
        let hash = self.hash(subject);
        let mut at = hash as usize % SLOT_COUNT;
        loop {
            let slot = &self.slots[at];
            if slot.id == EMPTY {
                return None;
            }
            if slot.hash == (hash >> 32) as u32 && slot.text == subject {
                return Some(slot.id);
            }
            at = (at + 1) % SLOT_COUNT;
        }
    }

    #[inline(always)]
    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut state = self.seeds[2] ^ bytes.len() as u64;
        let mut rest = bytes;
        while rest.len() > 16 {
            state = fold(word(rest, 0) ^ self.seeds[0], word(rest, 8) ^ state);
            rest = &rest[16..];
        }
        if rest.len() >= 8 {
            let last = word(rest, rest.len() - 8);
            state = fold(word(rest, 0) ^ self.seeds[0], last ^ state);
        } else {
            for &byte in rest {
                state = fold(u64::from(byte) ^ self.seeds[0], state);
            }
        }
        fold(state, self.seeds[1])
    }
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the range has 8 bytes"))
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        let names = names();
        let table = Table::new(&names);
        for (id, name) in names.iter().enumerate() {
            assert_eq!(name.len(), SUBJECT_BYTES);
            assert_eq!(table.find(name.as_bytes()), Some(id as u32));
        }
        assert_eq!(table.find(b"player.000001024"), None);
        assert_eq!(table.find(b"short"), None);
    }
}
