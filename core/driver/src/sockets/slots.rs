//! Numbered places with generations: what a token of the kernel or a caller's id points to.
//!
//! A place is used again at once, with another generation, so an old id finds nobody. Bounded by
//! `count_max`; memory grows with what is open at the same time and is asked for, not taken.

use std::io;

/// Generations have 28 bits, so that a key and a kind fit into 64.
const GENERATION_MASK: u32 = (1 << 28) - 1;

/// A place and which of its tenants is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    count_max: u32,
    what: &'static str,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl Key {
    /// The key in 60 bits: its kind has the upper four.
    pub(crate) fn pack(self, kind: u8) -> u64 {
        debug_assert!(kind < 16 && self.generation <= GENERATION_MASK);
        u64::from(kind) << 60 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn unpack(token: u64) -> (u8, Key) {
        let generation = (token >> 32) as u32 & GENERATION_MASK;
        let index = token as u32;
        ((token >> 60) as u8, Key { index, generation })
    }
}

impl<T> Slots<T> {
    pub(crate) fn new(count_max: u32, what: &'static str) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            count_max,
            what,
        }
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Sees to it that the next insert finds a place.
    pub(crate) fn reserve(&mut self) -> io::Result<()> {
        if !self.free.is_empty() {
            return Ok(());
        }
        if self.entries.len() >= self.count_max as usize {
            let (what, count_max) = (self.what, self.count_max);
            let says = format!("the limit of {count_max} {what} is reached");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, says));
        }
        let no_memory = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        self.entries.try_reserve(1).map_err(no_memory)?;
        // Every place can be freed without asking for memory.
        let missing = self.entries.capacity() - self.free.len();
        self.free.try_reserve(missing).map_err(no_memory)
    }

    /// Takes a place, which [`reserve`](Self::reserve) has found.
    pub(crate) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            debug_assert!(entry.value.is_none());
            entry.value = Some(value);
            let generation = entry.generation;
            return Key { index, generation };
        }
        let index = self.entries.len() as u32;
        let value = Some(value);
        self.entries.push(Entry {
            generation: 0,
            value,
        });
        Key {
            index,
            generation: 0,
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        entry
            .value
            .as_ref()
            .filter(|_| entry.generation == key.generation)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        let is_current = entry.generation == key.generation;
        entry.value.as_mut().filter(|_| is_current)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.free.push(key.index);
        Some(value)
    }

    /// The keys of all that is open.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let open = |(index, entry): (usize, &Entry<T>)| {
            entry.value.as_ref().map(|_| Key {
                index: index as u32,
                generation: entry.generation,
            })
        };
        self.entries.iter().enumerate().filter_map(open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nobody() {
        let mut slots = Slots::new(1, "letters");
        slots.reserve().unwrap();
        let first = slots.insert('a');
        let full = slots.reserve().unwrap_err();
        assert_eq!(full.to_string(), "the limit of 1 letters is reached");
        assert_eq!(slots.remove(first), Some('a'));
        assert_eq!(slots.remove(first), None);
        slots.reserve().unwrap();
        let second = slots.insert('b');
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get(second), Some(&'b'));
        assert_eq!(slots.keys().collect::<Vec<_>>(), [second]);
        assert_eq!(slots.count(), 1);
    }

    #[test]
    fn a_key_survives_its_token() {
        let key = Key {
            index: u32::MAX,
            generation: GENERATION_MASK,
        };
        assert_eq!(Key::unpack(key.pack(15)), (15, key));
        assert_eq!(Key::unpack(key.pack(0)), (0, key));
    }
}
