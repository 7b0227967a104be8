//! Numbers for subjects, on both ends (`docs/protocol.md` §5).
//!
//! The receiver keeps [`Aliases`] with whatever its side wants to know of a subject (its route,
//! say). The sender keeps [`Numbers`]: which are free. Both are bounded by what the receiver has
//! said, and grow as numbers come into use.

use crate::NoMemory;
use crate::control::ControlDraft;
use crate::fault::Fault;
use crate::field::Field;
use crate::kind::Kind;

/// Entries that one growth adds at most beyond the alias that asked for it.
const GROWTH: usize = 64;

/// What a number stands for.
#[derive(Debug)]
pub struct Entry<T> {
    /// The publisher whose sequence messages of this alias carry; 0: none.
    pub publisher: u64,
    /// What the receiver knows of the subject.
    pub value: T,
    size: u16,
}

/// The receiver's table.
#[derive(Debug)]
pub struct Aliases<T> {
    entries: Vec<Option<Entry<T>>>,
    bytes: u64,
    alias_max: u32,
    bytes_max: u64,
}

impl<T> Aliases<T> {
    /// An empty table of at most `alias_max` aliases, whose subjects have at most `bytes_max`
    /// bytes together.
    pub fn new(alias_max: u32, bytes_max: u64) -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            alias_max,
            bytes_max,
        }
    }

    /// What a message's alias stands for.
    #[inline(always)]
    pub fn get(&mut self, alias: u32) -> Result<&mut Entry<T>, Fault> {
        match self.entries.get_mut(alias as usize) {
            Some(Some(entry)) => Ok(entry),
            _ => Err(unknown(alias, self.alias_max)),
        }
    }

    /// As [`get`](Self::get), to look at.
    #[inline(always)]
    pub fn find(&self, alias: u32) -> Option<&Entry<T>> {
        self.entries.get(alias as usize)?.as_ref()
    }

    /// Carries out an ALIAS for a `subject`: `value` is called unless it is empty, which forgets
    /// the alias. Gives what the number stood for before.
    pub fn define(
        &mut self,
        alias: u32,
        subject: &[u8],
        publisher: u64,
        value: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<Option<Entry<T>>, Fault> {
        if alias >= self.alias_max {
            return Err(unknown(alias, self.alias_max));
        }
        let index = alias as usize;
        let before = match self.entries.get(index) {
            Some(Some(entry)) => u64::from(entry.size),
            _ => 0,
        };
        let size = self.bytes - before + subject.len() as u64;
        if size > self.bytes_max {
            let max = self.bytes_max;
            return Err(Fault::AliasBytes { size, max });
        }
        if subject.is_empty() && index >= self.entries.len() {
            return Ok(None);
        }
        if index >= self.entries.len() {
            let missing = index + 1 - self.entries.len();
            let spare = GROWTH.min(self.alias_max as usize - 1 - index);
            self.entries
                .try_reserve(missing + spare)
                .map_err(|_| Fault::NoMemory)?;
        }
        let entry = match subject.is_empty() {
            true => None,
            false => Some(Entry {
                publisher,
                value: value()?,
                size: subject.len() as u16,
            }),
        };
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        self.bytes = size;
        Ok(std::mem::replace(&mut self.entries[index], entry))
    }
}

#[cold]
fn unknown(alias: u32, max: u32) -> Fault {
    if alias >= max {
        return Fault::AliasNumber { alias, max };
    }
    Fault::AliasUnknown(alias)
}

/// The sender's view of the receiver's table: which numbers are free, and how many bytes.
#[derive(Debug)]
pub struct Numbers {
    /// Sizes of the subjects by number; 0: free.
    sizes: Vec<u16>,
    free: Vec<u32>,
    bytes: u64,
    alias_max: u32,
    bytes_max: u64,
}

impl Numbers {
    /// All numbers below `alias_max` are free, and `bytes_max` bytes.
    pub fn new(alias_max: u32, bytes_max: u64) -> Self {
        Self {
            sizes: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            alias_max,
            bytes_max,
        }
    }

    /// A number for a subject of `size` bytes (1 to 1,024), which an ALIAS is to be sent for.
    /// `None`: the table is full, or there is no memory to note it; the subject goes as text.
    pub fn take(&mut self, size: usize) -> Option<u32> {
        let known = u16::try_from(size).ok().filter(|size| *size > 0)?;
        if size as u64 > self.bytes_max - self.bytes {
            return None;
        }
        let alias = match self.free.pop() {
            Some(alias) => alias,
            None => {
                let alias = u32::try_from(self.sizes.len()).ok()?;
                if alias >= self.alias_max {
                    return None;
                }
                // Room in the list of free ones now, so that giving back cannot fail.
                self.sizes.try_reserve(1).ok()?;
                self.free.try_reserve(self.sizes.len() + 1).ok()?;
                self.sizes.push(0);
                alias
            }
        };
        self.sizes[alias as usize] = known;
        self.bytes += size as u64;
        Some(alias)
    }

    /// A number for a subject: its ALIAS is appended to `out`. A `publisher` that is not 0 is the
    /// one whose sequence its messages carry. `None`: see [`take`](Numbers::take).
    pub fn define(
        &mut self,
        out: &mut Vec<u8>,
        subject: &[u8],
        publisher: u64,
    ) -> Result<Option<u32>, NoMemory> {
        let Some(alias) = self.take(subject.len()) else {
            return Ok(None);
        };
        let at = out.len();
        let draft = ControlDraft::pair(out, Kind::Alias, alias, 0);
        let draft = draft.and_then(|draft| draft.bytes(Field::Subject, subject));
        let written = match (draft, publisher) {
            (Ok(draft), 1..) => draft.number(Field::Publisher, publisher).map(drop),
            (draft, _) => draft.map(drop),
        };
        if let Err(error) = written {
            self.give_back(alias);
            out.truncate(at);
            return Err(error);
        }
        Ok(Some(alias))
    }

    /// Gives a number back. The receiver keeps its subject until another one takes the number, or
    /// an ALIAS with an empty subject is sent: without that, `take` may not promise its bytes, so
    /// the caller sends one.
    pub fn give_back(&mut self, alias: u32) {
        if let Some(size) = self.sizes.get_mut(alias as usize)
            && *size > 0
        {
            self.bytes -= u64::from(*size);
            *size = 0;
            self.free.push(alias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_the_subject_that_it_was_given_last() {
        let mut table = Aliases::new(4, 10);
        assert!(table.define(3, b"abc", 7, || Ok("abc")).unwrap().is_none());
        assert_eq!(table.get(3).unwrap().value, "abc");
        assert_eq!(table.get(3).unwrap().publisher, 7);
        let before = table.define(3, b"0123456789", 0, || Ok("ten")).unwrap();
        assert_eq!(before.unwrap().value, "abc");
        let before = table.define(3, b"", 0, || unreachable!()).unwrap();
        assert_eq!(before.unwrap().value, "ten");
        assert_eq!(table.get(3).unwrap_err(), Fault::AliasUnknown(3));
        assert!(
            table
                .define(2, b"", 0, || unreachable!())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn the_table_is_bounded_by_numbers_and_by_bytes() {
        let mut table = Aliases::new(4, 10);
        let beyond = Fault::AliasNumber { alias: 4, max: 4 };
        assert_eq!(table.define(4, b"a", 0, || Ok(())).unwrap_err(), beyond);
        assert_eq!(table.get(4).unwrap_err(), beyond);
        assert!(table.define(0, b"01234567", 0, || Ok(())).is_ok());
        assert!(table.define(1, b"89", 0, || Ok(())).is_ok());
        let full = Fault::AliasBytes { size: 11, max: 10 };
        assert_eq!(table.define(2, b"x", 0, || Ok(())).unwrap_err(), full);
        assert_eq!(table.define(1, b"89x", 0, || Ok(())).unwrap_err(), full);
        assert!(table.define(1, b"8", 0, || Ok(())).is_ok());
        assert!(table.define(2, b"x", 0, || Ok(())).is_ok());
        let refused = table.define(2, b"y", 0, || Err(Fault::NoMemory));
        assert_eq!(refused.unwrap_err(), Fault::NoMemory);
        assert!(table.get(2).is_ok(), "a refused ALIAS changes nothing");
        assert!(Aliases::<()>::new(0, 0).get(0).is_err());
    }

    #[test]
    fn both_ends_agree_about_what_fits() {
        let (mut numbers, mut table) = (Numbers::new(3, 10), Aliases::new(3, 10));
        let mut taken = Vec::new();
        for size in [4, 4, 3, 2, 1] {
            match numbers.take(size) {
                Some(alias) => {
                    let subject = vec![b'a'; size];
                    table.define(alias, &subject, 0, || Ok(())).unwrap();
                    taken.push((alias, size));
                }
                None => assert!(size == 3 || taken.len() == 3),
            }
        }
        assert_eq!(taken, [(0, 4), (1, 4), (2, 2)]);
        numbers.give_back(1);
        numbers.give_back(1);
        table.define(1, b"", 0, || Ok(())).unwrap();
        assert_eq!(numbers.take(5), None);
        assert_eq!(numbers.take(4), Some(1));
        assert!(table.define(1, b"0123", 0, || Ok(())).is_ok());
        assert_eq!(numbers.take(0), None);
        assert_eq!(Numbers::new(0, 10).take(1), None);
    }
}
