//! A subscription as the interest table holds it.

use crate::allocation::NoMemory;
use crate::text::Text;

/// A pattern that somebody has subscribed to, and what the caller keeps with it.
///
/// A value, cheap to copy: with 16 bytes of `V` it fits into a cache line beside what the table
/// needs.
#[derive(Clone, Debug)]
pub struct Entry<V> {
    /// The low bits of the key that it is found by.
    pub(crate) tag: u32,
    id: u32,
    pattern: Text,
    value: V,
}

/// What an entry may hold: something that a copy of the table may copy, and drop on any thread.
pub trait Value: Clone + Send + Sync + 'static {}

impl<V: Clone + Send + Sync + 'static> Value for V {}

impl<V> Entry<V> {
    pub(crate) fn new(tag: u32, id: u32, pattern: &[u8], value: V) -> Result<Self, NoMemory> {
        let pattern = Text::new(pattern)?;
        Ok(Self {
            tag,
            id,
            pattern,
            value,
        })
    }

    /// Names it among the entries of its table.
    #[inline]
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The pattern.
    #[inline]
    #[must_use]
    pub fn pattern(&self) -> &Text {
        &self.pattern
    }

    /// What the caller keeps with it.
    #[inline]
    #[must_use]
    pub fn value(&self) -> &V {
        &self.value
    }
}
