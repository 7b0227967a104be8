//! A list of what a broker has open, by number: visited one at a time, without holding the lock or
//! memory for a copy of the list, so that closing and counting never fail.

use fastmq_memory::sync::{Mutex, lock};

use crate::error::{Error, Result};

/// Things by number. One that comes during a visit may be left out; one that stays is not.
#[derive(Debug)]
pub(crate) struct Register<T> {
    entries: Mutex<Entries<T>>,
}

#[derive(Debug)]
struct Entries<T> {
    items: Vec<Option<T>>,
    /// Numbers that were given back; there is room for all.
    free: Vec<u32>,
    count: u64,
}

impl<T> Default for Register<T> {
    fn default() -> Self {
        Self {
            entries: Mutex::new(Entries {
                items: Vec::new(),
                free: Vec::new(),
                count: 0,
            }),
        }
    }
}

impl<T: Clone> Register<T> {
    /// A number that nobody has: for [`Register::put`], or to be given back.
    pub(crate) fn number(&self) -> Result<u32> {
        let mut entries = lock(&self.entries);
        if let Some(number) = entries.free.pop() {
            return Ok(number);
        }
        let number = entries.items.len();
        // So that giving it back needs no memory.
        let reserved = entries.free.try_reserve(number + 1);
        reserved.map_err(|_| Error::NO_MEMORY)?;
        let reserved = entries.items.try_reserve(1);
        reserved.map_err(|_| Error::NO_MEMORY)?;
        entries.items.push(None);
        Ok(number as u32)
    }

    /// Gives back a number under which nothing is.
    pub(crate) fn give(&self, number: u32) {
        lock(&self.entries).free.push(number);
    }

    /// Enters something under a number that is the caller's.
    pub(crate) fn put(&self, number: u32, item: T) {
        let mut entries = lock(&self.entries);
        entries.items[number as usize] = Some(item);
        entries.count += 1;
    }

    /// Takes out what is under a number, if it is what is meant, and the number is free again.
    pub(crate) fn take(&self, number: u32, is_meant: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut entries = lock(&self.entries);
        let item = entries
            .items
            .get_mut(number as usize)?
            .take_if(|item| is_meant(item))?;
        entries.count -= 1;
        entries.free.push(number);
        Some(item)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        lock(&self.entries).count
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn all(&self) -> impl Iterator<Item = T> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let entries = lock(&self.entries);
            let rest = entries.items.get(next..)?;
            let found = rest.iter().position(Option::is_some)?;
            let item = rest[found].clone();
            next += found + 1;
            item
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_visited_once_whatever_goes_meanwhile() {
        let register = Register::default();
        for item in 0..100_u32 {
            let number = register.number().unwrap();
            register.put(number, item);
        }
        let mut seen = Vec::new();
        for item in register.all() {
            seen.push(item);
            if item % 2 == 0 {
                assert_eq!(register.take(item, |other| *other == item), Some(item));
                assert_eq!(register.take(item, |other| *other == item), None);
                assert_eq!(register.take(item + 1, |other| *other == item), None);
            }
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!(register.count(), 50);
        let rest: Vec<u32> = register.all().collect();
        assert_eq!(rest, (1..100).step_by(2).collect::<Vec<_>>());
        // A number that was given back is used again.
        assert!(register.number().unwrap() < 100);
    }
}
