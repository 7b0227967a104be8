//! Many subscriptions under one hash: usually the same pattern, subscribed to again and again.
//!
//! A page has few cells, and entries of one key cannot be split between two pages. A `Crowd` holds
//! them in chunks: a change copies one chunk. Its *rows* have a fixed number of chunks and are made
//! anew, twice as large or a quarter full, as a vector would be. Members never move between the
//! chunks of one set of rows, so a reader that looks at them while others come and go misses none
//! that stays and sees none twice.
//!
//! Removal looks from both ends at once: first in first out and last in first out find their
//! member in the first chunk looked at. Any other order costs a scan of the members.
//!
//! Changes are made under the writers' lock of the interest table.

use std::sync::atomic::Ordering;

use fastmq_memory::snapshot::{Pin, Snapshot};
use fastmq_memory::sync::{AtomicU64, AtomicUsize};

use crate::allocation::{NoMemory, boxed, filled, vector};
use crate::entry::{Entry, Value};

/// Members of a chunk at most; also the bits of its `gone` mask.
const CHUNK_MEMBERS: usize = 64;
/// Chunks of the smallest rows.
const CHUNKS_MIN: usize = 4;

/// A set of subscriptions that share their hash.
pub(crate) struct Crowd<V: Value> {
    rows: Snapshot<[Rows<V>; 1]>,
    count: AtomicUsize,
}

struct Rows<V: Value> {
    chunks: Box<[Snapshot<[Chunk<V>; 1]>]>,
    /// For the writer: chunks outside `first..end` are empty.
    first: AtomicUsize,
    end: AtomicUsize,
}

struct Chunk<V> {
    members: Vec<Entry<V>>,
    /// Bit `i`: member `i` was removed when there was no memory for a copy without it.
    gone: AtomicU64,
}

impl<V: Value> Crowd<V> {
    /// A crowd of `members`.
    pub(crate) fn new<'m>(members: impl Iterator<Item = &'m Entry<V>>) -> Result<Self, NoMemory> {
        let crowd = Self {
            rows: Snapshot::empty(),
            count: AtomicUsize::new(0),
        };
        let (rows, count) = Rows::new(CHUNKS_MIN, members)?;
        crowd.rows.store(Some(boxed(rows)?));
        crowd.count.store(count, Ordering::Relaxed);
        Ok(crowd)
    }

    /// Members, for the writer.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Calls `visit` with every member.
    pub(crate) fn for_each<'g>(&self, pin: &'g Pin, visit: &mut impl FnMut(&'g Entry<V>)) {
        let Some([rows]) = self.rows.load(pin) else {
            return;
        };
        rows.members(pin).for_each(visit);
    }

    /// Adds one member.
    pub(crate) fn insert(&self, member: &Entry<V>, pin: &Pin) -> Result<(), NoMemory> {
        let mut rows = self.rows.load(pin);
        if rows.is_none_or(|[rows]| rows.is_full(pin)) {
            self.rebuild(self.len() + 1, pin)?;
            rows = self.rows.load(pin);
        }
        if let Some([rows]) = rows {
            rows.insert(member, pin)?;
            self.count.store(self.len() + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes the member `id` and gives it; without memory for a copy it is marked, and dropped
    /// later.
    pub(crate) fn remove(&self, id: u32, pin: &Pin) -> Option<Entry<V>> {
        let [rows] = self.rows.load(pin)?;
        let member = rows.remove(id, pin)?;
        let count = self.len() - 1;
        self.count.store(count, Ordering::Relaxed);
        let capacity = rows.chunks.len() * CHUNK_MEMBERS;
        if rows.chunks.len() > CHUNKS_MIN && count < capacity / 8 {
            // Without memory the rows stay as large as they are.
            let _ = self.rebuild(count, pin);
        }
        Some(member)
    }

    /// Copies all members into fresh rows, with room for twice `count`.
    fn rebuild(&self, count: usize, pin: &Pin) -> Result<(), NoMemory> {
        let chunks = (2 * count).div_ceil(CHUNK_MEMBERS).max(CHUNKS_MIN);
        let old = self.rows.load(pin);
        let members = old.into_iter().flat_map(|[rows]| rows.members(pin));
        let (rows, _) = Rows::new(chunks, members)?;
        self.rows.store(Some(boxed(rows)?));
        Ok(())
    }
}

impl<V: Value> Rows<V> {
    /// Rows of `chunks` chunks, filled with `members`, and how many those are.
    fn new<'m>(
        chunks: usize,
        members: impl Iterator<Item = &'m Entry<V>>,
    ) -> Result<(Self, usize), NoMemory> {
        let rows = Self {
            chunks: filled(chunks, Snapshot::empty)?,
            first: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
        };
        let mut members = members.peekable();
        let mut count = 0;
        for (index, slot) in rows.chunks.iter().enumerate() {
            if members.peek().is_none() {
                break;
            }
            let mut chunk = vector(CHUNK_MEMBERS)?;
            chunk.extend(members.by_ref().take(CHUNK_MEMBERS).cloned());
            count += chunk.len();
            slot.store(Some(boxed(Chunk::new(chunk))?));
            rows.end.store(index + 1, Ordering::Relaxed);
        }
        debug_assert!(members.peek().is_none(), "the rows hold all members");
        Ok((rows, count))
    }

    fn members<'g>(&'g self, pin: &'g Pin) -> impl Iterator<Item = &'g Entry<V>> {
        let chunks = self.chunks.iter().filter_map(|slot| slot.load(pin));
        chunks.flat_map(|[chunk]| chunk.members())
    }

    fn last_len(&self, pin: &Pin) -> Option<usize> {
        let last = self.end.load(Ordering::Relaxed).checked_sub(1)?;
        let chunk = self.chunks[last].load(pin);
        Some(chunk.map_or(0, |[chunk]| chunk.members().count()))
    }

    fn is_full(&self, pin: &Pin) -> bool {
        self.end.load(Ordering::Relaxed) == self.chunks.len()
            && self.last_len(pin).is_none_or(|len| len >= CHUNK_MEMBERS)
    }

    /// Adds a member to the last chunk, or to a new one; there is room.
    fn insert(&self, member: &Entry<V>, pin: &Pin) -> Result<(), NoMemory> {
        let end = self.end.load(Ordering::Relaxed);
        let has_room = self.last_len(pin).is_some_and(|len| len < CHUNK_MEMBERS);
        let index = if has_room { end - 1 } else { end };
        let slot = &self.chunks[index];
        let old = slot.load(pin).map(|[chunk]| chunk);
        let mut members = vector(old.map_or(0, |chunk| chunk.members.len()) + 1)?;
        members.extend(old.into_iter().flat_map(Chunk::members).cloned());
        members.push(member.clone());
        slot.store(Some(boxed(Chunk::new(members))?));
        self.end.store(index + 1, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, id: u32, pin: &Pin) -> Option<Entry<V>> {
        let first = self.first.load(Ordering::Relaxed);
        let end = self.end.load(Ordering::Relaxed);
        let mut ends = first..end;
        while let Some(front) = ends.next() {
            let back = ends.next_back();
            for index in std::iter::once(front).chain(back) {
                if let Some(member) = self.remove_from(index, id, pin) {
                    self.narrow(first, end, pin);
                    return Some(member);
                }
            }
        }
        None
    }

    fn remove_from(&self, index: usize, id: u32, pin: &Pin) -> Option<Entry<V>> {
        let slot = &self.chunks[index];
        let [chunk] = slot.load(pin)?;
        let place = chunk.place(id)?;
        let member = chunk.members[place].clone();
        match chunk.without(place) {
            Ok(rest) if rest.members.is_empty() => slot.store(None),
            Ok(rest) => match boxed(rest) {
                Ok(rest) => slot.store(Some(rest)),
                Err(NoMemory) => chunk.mark(place),
            },
            Err(NoMemory) => chunk.mark(place),
        }
        Some(member)
    }

    /// Leaves out the empty chunks at both ends.
    fn narrow(&self, mut first: usize, mut end: usize, pin: &Pin) {
        while end > first && self.chunks[end - 1].load(pin).is_none() {
            end -= 1;
        }
        while first < end && self.chunks[first].load(pin).is_none() {
            first += 1;
        }
        if first == end {
            (first, end) = (0, 0);
        }
        self.first.store(first, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
    }
}

impl<V: Value> Chunk<V> {
    fn new(members: Vec<Entry<V>>) -> Self {
        let gone = AtomicU64::new(0);
        Self { members, gone }
    }

    fn is_gone(&self, place: usize) -> bool {
        self.gone.load(Ordering::Acquire) >> place & 1 != 0
    }

    fn mark(&self, place: usize) {
        self.gone.fetch_or(1 << place, Ordering::Release);
    }

    fn members(&self) -> impl Iterator<Item = &Entry<V>> {
        let members = self.members.iter().enumerate();
        members.filter_map(|(place, member)| (!self.is_gone(place)).then_some(member))
    }

    fn place(&self, id: u32) -> Option<usize> {
        // The scan that a removal in any order costs; `gone` is not in its loop.
        let place = self.members.iter().position(|other| other.id() == id)?;
        if !self.is_gone(place) {
            return Some(place);
        }
        // Marked, and since then perhaps inserted again.
        let mut later = place + 1..self.members.len();
        later.find(|&later| self.members[later].id() == id && !self.is_gone(later))
    }

    fn without(&self, place: usize) -> Result<Self, NoMemory> {
        let mut members = vector(self.members.len() - 1)?;
        for (other, member) in self.members.iter().enumerate() {
            if other != place && !self.is_gone(other) {
                members.push(member.clone());
            }
        }
        Ok(Self::new(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastmq_memory::snapshot::pin;
    use std::sync::Arc;

    type Member = Entry<Arc<()>>;

    fn members(count: usize) -> Vec<Member> {
        (0..count)
            .map(|i| Entry::new(1, i as u32, b"p", Arc::default()).unwrap())
            .collect()
    }

    fn check(crowd: &Crowd<Arc<()>>, expected: &[Member]) {
        let pin = pin();
        let mut seen = Vec::new();
        crowd.for_each(&pin, &mut |member| seen.push(member.id()));
        seen.sort_unstable();
        let mut expected: Vec<u32> = expected.iter().map(Entry::id).collect();
        expected.sort_unstable();
        assert_eq!(seen, expected);
        assert_eq!(crowd.len(), seen.len());
    }

    fn is_removed(crowd: &Crowd<Arc<()>>, member: &Member) -> bool {
        let removed = crowd.remove(member.id(), &pin());
        removed.is_some_and(|removed| Arc::ptr_eq(removed.value(), member.value()))
    }

    fn full(all: &[Member]) -> Crowd<Arc<()>> {
        let crowd = Crowd::new(all[..3].iter()).unwrap();
        for member in &all[3..] {
            crowd.insert(member, &pin()).unwrap();
        }
        crowd
    }

    #[test]
    fn members_go_first_in_first_out() {
        let all = members(1_000);
        let crowd = full(&all);
        check(&crowd, &all);
        for (i, member) in all.iter().enumerate() {
            assert!(is_removed(&crowd, member));
            assert!(!is_removed(&crowd, member));
            if i % 97 == 0 {
                check(&crowd, &all[i + 1..]);
            }
        }
        check(&crowd, &[]);
    }

    #[test]
    fn members_go_last_in_first_out() {
        let all = members(1_000);
        let crowd = full(&all);
        for i in (0..all.len()).rev() {
            assert!(is_removed(&crowd, &all[i]));
            if i % 97 == 0 {
                check(&crowd, &all[..i]);
            }
        }
        assert!(!is_removed(&crowd, &all[0]));
        crowd.insert(&all[7], &pin()).unwrap();
        check(&crowd, &all[7..8]);
    }

    #[test]
    fn a_queue_of_members_does_not_grow_the_rows() {
        let all = members(20_000);
        let crowd = full(&all[..100]);
        for i in 100..all.len() {
            crowd.insert(&all[i], &pin()).unwrap();
            assert!(is_removed(&crowd, &all[i - 100]));
        }
        check(&crowd, &all[all.len() - 100..]);
        let pin = pin();
        let [rows] = crowd.rows.load(&pin).unwrap();
        assert!(rows.chunks.len() <= 2 * CHUNKS_MIN);
    }

    #[test]
    fn a_marked_member_is_gone_and_is_left_out_of_the_next_copy() {
        let all = members(10);
        let crowd = full(&all);
        {
            let pin = pin();
            let [rows] = crowd.rows.load(&pin).unwrap();
            let [chunk] = rows.chunks[0].load(&pin).unwrap();
            chunk.mark(chunk.place(4).unwrap());
            crowd.count.store(9, Ordering::Relaxed);
        }
        let rest = [&all[..4], &all[5..]].concat();
        check(&crowd, &rest);
        assert!(!is_removed(&crowd, &all[4]));
        assert!(is_removed(&crowd, &all[9]));
        check(&crowd, &rest[..8]);
        let pin = pin();
        let [rows] = crowd.rows.load(&pin).unwrap();
        let [chunk] = rows.chunks[0].load(&pin).unwrap();
        assert_eq!(chunk.members.len(), 8);
    }
}
