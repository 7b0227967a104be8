//! Allocation that answers instead of aborting.
//!
//! `Box::new` ends the process when memory is exhausted; a library must not do that to its host.
//! A vector can be asked (`try_reserve`), and one of length one turns into a box of an array
//! without moving, so this crate keeps its shared values as `[T; 1]` and needs no unsafe code.
//!
//! Not here: `Arc`, for which `fastmq_memory::allocation` takes memory first.

use std::fmt;

/// The allocator had no memory for this call; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

impl From<fastmq_memory::allocation::NoMemory> for NoMemory {
    fn from(_: fastmq_memory::allocation::NoMemory) -> Self {
        Self
    }
}

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory: the allocator refused to grow the table of subscriptions")
    }
}

impl std::error::Error for NoMemory {}

/// Boxes `value`, or says that there is no memory.
pub(crate) fn boxed<T>(value: T) -> Result<Box<[T; 1]>, NoMemory> {
    let mut one = Vec::new();
    one.try_reserve_exact(1).map_err(|_| NoMemory)?;
    one.push(value);
    Ok(one
        .try_into()
        .unwrap_or_else(|_| unreachable!("the vector has exactly one element")))
}

/// An empty vector with room for exactly `count`, or says that there is no memory.
pub(crate) fn vector<T>(count: usize) -> Result<Vec<T>, NoMemory> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(count).map_err(|_| NoMemory)?;
    Ok(vector)
}

/// `count` values made by `make` in a box, or says that there is no memory.
pub(crate) fn filled<T>(count: usize, make: impl FnMut() -> T) -> Result<Box<[T]>, NoMemory> {
    let mut vector = vector(count)?;
    vector.resize_with(count, make);
    Ok(vector.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_made_without_moving_the_reserved_memory() {
        assert_eq!(*boxed(7_u64).unwrap(), [7]);
        assert_eq!(filled(3, || 1_u8).unwrap().as_ref(), [1, 1, 1]);
        assert!(filled(0, || 1_u8).unwrap().is_empty());
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert_eq!(vector::<u64>(usize::MAX).unwrap_err(), NoMemory);
        assert!(NoMemory.to_string().starts_with("out of memory"));
    }
}
