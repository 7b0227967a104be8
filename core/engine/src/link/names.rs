//! Numbers that a connection has given to the subjects that it publishes to.

use std::collections::HashMap;

use fastmq_memory::allocation::try_bytes;
use fastmq_wire::{NoMemory, Numbers};

use super::ALIASES_MAX;

/// Subjects that were used once, of which some more uses bring a number.
const ONCE_MAX: usize = 4096;

/// What a subject was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Once,
    Alias(u32),
}

/// The numbers of one connection.
#[derive(Debug)]
pub(super) struct Names {
    numbers: Numbers,
    subjects: HashMap<Box<[u8]>, Use>,
    /// By publisher, each of which has one subject.
    publishers: HashMap<u64, u32>,
    once: usize,
}

impl Names {
    /// Of a connection whose server keeps so many.
    pub(super) fn new(alias_max: u32, bytes_max: u64) -> Self {
        Self {
            numbers: Numbers::new(alias_max.min(ALIASES_MAX), bytes_max),
            subjects: HashMap::new(),
            publishers: HashMap::new(),
            once: 0,
        }
    }

    /// The number of a subject, if it has one or is worth one: then ALIAS is appended to `out`.
    /// A publisher's subject has one from its first use, others from their second.
    pub(super) fn alias(
        &mut self,
        subject: &[u8],
        publisher: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<u32>, NoMemory> {
        if publisher != 0 {
            if let Some(alias) = self.publishers.get(&publisher) {
                return Ok(Some(*alias));
            }
            self.publishers.try_reserve(1).map_err(|_| NoMemory)?;
            let alias = self.numbers.define(out, subject, publisher)?;
            if let Some(alias) = alias {
                self.publishers.insert(publisher, alias);
            }
            return Ok(alias);
        }
        match self.subjects.get(subject) {
            Some(Use::Alias(alias)) => return Ok(Some(*alias)),
            Some(Use::Once) => {
                let alias = self.numbers.define(out, subject, 0)?;
                if let (Some(alias), Some(used)) = (alias, self.subjects.get_mut(subject)) {
                    *used = Use::Alias(alias);
                    self.once -= 1;
                }
                return Ok(alias);
            }
            None => {}
        }
        if self.once >= ONCE_MAX {
            self.subjects.retain(|_, used| *used != Use::Once);
            self.once = 0;
        }
        self.subjects.try_reserve(1).map_err(|_| NoMemory)?;
        let subject = try_bytes(subject).map_err(|_| NoMemory)?;
        self.subjects.insert(subject, Use::Once);
        self.once += 1;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_a_number_from_its_second_use_until_the_table_is_full() {
        let mut names = Names::new(2, 100);
        let mut out = Vec::new();
        assert_eq!(names.alias(b"a", 0, &mut out), Ok(None));
        assert!(out.is_empty());
        assert_eq!(names.alias(b"a", 0, &mut out), Ok(Some(0)));
        let size = out.len();
        assert!(size > 0);
        assert_eq!(names.alias(b"a", 0, &mut out), Ok(Some(0)));
        assert_eq!(out.len(), size);
        assert_eq!(names.alias(b"a", 7, &mut out), Ok(Some(1)));
        assert_eq!(names.alias(b"a", 7, &mut out), Ok(Some(1)));
        assert_eq!(names.alias(b"a", 8, &mut out), Ok(None));
    }

    #[test]
    fn what_is_used_once_does_not_grow_for_ever() {
        let mut names = Names::new(10, 1000);
        let mut out = Vec::new();
        for number in 0..3 * ONCE_MAX {
            let subject = format!("s.{number}");
            assert_eq!(names.alias(subject.as_bytes(), 0, &mut out), Ok(None));
            assert!(names.subjects.len() <= ONCE_MAX);
        }
        assert!(out.is_empty());
    }
}
