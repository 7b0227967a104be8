//! Entries by hash: a table that readers probe without a lock while it grows and shrinks.
//!
//! Linear hashing: slots never move, and the table grows by one slot at a time, by splitting the
//! one bucket whose entries belong to the new slot (and shrinks by the reverse). So no change
//! copies more than two buckets, there is no pause while a million entries are moved, and memory
//! follows the number of entries both ways. Slots live in segments, each as large as all before
//! it; the segment of a slot follows from its index.
//!
//! A reader computes the slot from the size it saw, loads the bucket and looks at the size again.
//! The writer's order makes this enough. *Split:* the new slot is filled, the size published,
//! then the old slot trimmed. *Merge:* the entries are added to the lower slot, the size
//! published, then the upper slot emptied. A bucket that lacks an entry which moved is published
//! after the size was, so whoever loads it sees the new size, and probes again. The size carries
//! a version, because it could have gone and come back. A reader is sent round again only by a
//! change of size in the two loads between, so it makes progress as long as the writers do not
//! resize faster than it can load one pointer.
//!
//! Changes are made under the writers' lock of the interest table.
//! Not here: what a tag is made of, and whether a hit matches.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fastmq_memory::snapshot::{Pin, Snapshot};

use crate::allocation::{NoMemory, boxed, filled};
use crate::bucket::{Bucket, Change};
use crate::interest::Subscriber;

/// Slots of the first segment, the smallest size.
const SLOTS_MIN: u64 = 16;
/// The largest size; beyond it buckets get longer.
const SLOTS_MAX: u64 = SLOTS_MIN << (SEGMENTS - 1);
const SEGMENTS: usize = 25;

/// A split when there are more than 5 entries for 2 slots, a merge below 3 for 5. Fewer entries
/// for each slot, and buckets of six, made no measurable difference among a million entries.
const SPLIT_ABOVE: (u64, u64) = (5, 2);
const MERGE_BELOW: (u64, u64) = (3, 5);
/// Merges after one removal: enough to keep up with it.
const MERGES_MAX: u32 = 2;

const SIZE_BITS: u32 = 32;

type Slot<S> = Snapshot<[Bucket<S>; 1]>;
type Segment<S> = Snapshot<[Box<[Slot<S>]>; 1]>;

/// All entries of one interest table.
pub(crate) struct Table<S: Subscriber> {
    /// Size in the low half, version in the high half.
    state: AtomicU64,
    segments: [Segment<S>; SEGMENTS],
    entries: AtomicUsize,
}

impl<S: Subscriber> Table<S> {
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            segments: [const { Snapshot::empty() }; SEGMENTS],
            entries: AtomicUsize::new(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Calls `visit` with every entry whose key has the same tag as `key`.
    #[inline]
    pub(crate) fn probe<'g>(&self, key: u64, pin: &'g Pin, visit: &mut impl FnMut(&'g S)) {
        let tag = tag_of(key);
        let mut state = self.state.load(Ordering::Acquire);
        let bucket = loop {
            let slot = self.slot(slot_of(tag, size_of_state(state)), pin);
            let bucket = slot.and_then(|slot| slot.load(pin));
            // Acquire above keeps this load behind the one of the bucket.
            let now = self.state.load(Ordering::Acquire);
            if now == state {
                break bucket;
            }
            state = now;
        };
        if let Some([bucket]) = bucket {
            bucket.probe(tag, pin, visit);
        }
    }

    /// Adds an entry under `key`.
    pub(crate) fn insert(&self, key: u64, member: &S, pin: &Pin) -> Result<(), NoMemory> {
        let tag = tag_of(key);
        if self.size() == 0 {
            self.add_segment(0, SLOTS_MIN)?;
            self.publish_size(SLOTS_MIN);
        }
        let slot = self.slot(slot_of(tag, self.size()), pin).ok_or(NoMemory)?;
        let old = slot.load(pin).map(|[bucket]| bucket);
        apply(slot, Bucket::insert(old, tag, member, pin)?);
        let entries = self.len() + 1;
        self.entries.store(entries, Ordering::Relaxed);
        if entries as u64 * SPLIT_ABOVE.1 > self.size() * SPLIT_ABOVE.0 {
            // Without memory the buckets get longer; the next insert tries again.
            let _ = self.split(pin);
        }
        Ok(())
    }

    /// Removes an entry that was inserted under `key`; false if there is none.
    pub(crate) fn remove(&self, key: u64, member: &S, pin: &Pin) -> bool {
        let tag = tag_of(key);
        let Some(slot) = self.slot(slot_of(tag, self.size()), pin) else {
            return false;
        };
        let bucket = slot.load(pin).map(|[bucket]| bucket);
        let Some(change) = bucket.and_then(|bucket| bucket.remove(tag, member, pin)) else {
            return false;
        };
        apply(slot, change);
        let entries = self.len() - 1;
        self.entries.store(entries, Ordering::Relaxed);
        for _ in 0..MERGES_MAX {
            let size = self.size();
            let is_sparse = entries as u64 * MERGE_BELOW.1 < size * MERGE_BELOW.0;
            // Without memory the table stays as large as it is.
            if size <= SLOTS_MIN || !is_sparse || self.merge(pin).is_err() {
                break;
            }
        }
        true
    }

    /// Grows by one slot.
    fn split(&self, pin: &Pin) -> Result<(), NoMemory> {
        let upper = self.size();
        if upper >= SLOTS_MAX {
            return Ok(());
        }
        let (segment, offset) = place_of(upper);
        if offset == 0 {
            self.add_segment(segment, upper)?;
        }
        let slots = self.slot(lower_of(upper), pin).zip(self.slot(upper, pin));
        let (lower_slot, upper_slot) = slots.ok_or(NoMemory)?;
        let Some([old]) = lower_slot.load(pin) else {
            self.publish_size(upper + 1);
            return Ok(());
        };
        let [moved, kept] = old.split(|tag| slot_of(tag, upper + 1) == upper)?;
        apply(upper_slot, moved);
        self.publish_size(upper + 1);
        apply(lower_slot, kept);
        Ok(())
    }

    /// Shrinks by one slot.
    fn merge(&self, pin: &Pin) -> Result<(), NoMemory> {
        let upper = self.size() - 1;
        let slots = self.slot(lower_of(upper), pin).zip(self.slot(upper, pin));
        let (lower_slot, upper_slot) = slots.ok_or(NoMemory)?;
        if let Some([moved]) = upper_slot.load(pin) {
            let kept = lower_slot.load(pin).map(|[bucket]| bucket);
            apply(lower_slot, Bucket::merge([kept, Some(moved)])?);
        }
        self.publish_size(upper);
        upper_slot.store(None);
        let (segment, offset) = place_of(upper);
        if offset == 0 {
            self.segments[segment].store(None);
        }
        Ok(())
    }

    fn add_segment(&self, segment: usize, slots: u64) -> Result<(), NoMemory> {
        let slots = boxed(filled(slots as usize, Snapshot::empty)?)?;
        self.segments[segment].store(Some(slots));
        Ok(())
    }

    #[inline]
    fn slot<'g>(&self, index: u64, pin: &'g Pin) -> Option<&'g Slot<S>> {
        let (segment, offset) = place_of(index);
        let [slots] = self.segments.get(segment)?.load(pin)?;
        slots.get(offset)
    }

    fn size(&self) -> u64 {
        size_of_state(self.state.load(Ordering::Relaxed))
    }

    fn publish_size(&self, size: u64) {
        let version = (self.state.load(Ordering::Relaxed) >> SIZE_BITS).wrapping_add(1);
        let state = version << SIZE_BITS | size;
        self.state.store(state, Ordering::Release);
    }
}

fn apply<S: Subscriber>(slot: &Slot<S>, change: Change<S>) {
    match change {
        Change::Made => {}
        Change::Replace(bucket) => slot.store(Some(bucket)),
        Change::Clear => slot.store(None),
    }
}

#[inline]
fn tag_of(key: u64) -> u32 {
    key as u32
}

#[inline]
fn size_of_state(state: u64) -> u64 {
    state & ((1 << SIZE_BITS) - 1)
}

/// The slot of `tag` in a table of `size` slots.
#[inline]
fn slot_of(tag: u32, size: u64) -> u64 {
    let wide = u64::from(tag) & (size.next_power_of_two() - 1);
    if wide < size { wide } else { lower_of(wide) }
}

/// The slot that a slot was split from: its index without the highest bit.
#[inline]
fn lower_of(upper: u64) -> u64 {
    upper & !(1 << upper.max(1).ilog2())
}

/// The segment of a slot, and its offset there.
#[inline]
fn place_of(index: u64) -> (usize, usize) {
    let segment = (index / SLOTS_MIN * 2 + 1).ilog2();
    let start = SLOTS_MIN << segment >> 1;
    if segment == 0 {
        (0, index as usize)
    } else {
        (segment as usize, (index - start) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastmq_memory::snapshot::pin;
    use std::sync::Arc;

    type Member = Arc<(u64, ())>;

    impl Subscriber for Member {
        fn pattern(&self) -> &[u8] {
            b""
        }
        fn same(&self, other: &Self) -> bool {
            Arc::ptr_eq(self, other)
        }
    }

    fn key(number: u64) -> u64 {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_right(29)
    }

    fn found(table: &Table<Member>, number: u64) -> usize {
        let mut count = 0;
        table.probe(key(number), &pin(), &mut |member| {
            count += usize::from(member.0 == number);
        });
        count
    }

    #[test]
    fn every_slot_has_its_place() {
        let mut expected = (0, 0);
        for index in 0..SLOTS_MIN * 64 {
            assert_eq!(place_of(index), expected, "slot {index}");
            let slots = SLOTS_MIN << expected.0 >> usize::from(expected.0 > 0);
            expected.1 += 1;
            if expected.1 as u64 == slots {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(place_of(SLOTS_MAX - 1).0, SEGMENTS - 1);
        assert_eq!(place_of(SLOTS_MAX).0, SEGMENTS);
    }

    #[test]
    fn growing_by_one_moves_only_from_the_lower_slot() {
        for size in SLOTS_MIN..300 {
            for tag in (0..2_000_u32).map(|i| i.wrapping_mul(0x9E37_79B1)) {
                let (before, after) = (slot_of(tag, size), slot_of(tag, size + 1));
                assert!(before < size);
                assert!(after == before || (after == size && before == lower_of(size)));
            }
        }
    }

    #[test]
    fn the_table_follows_its_entries_both_ways() {
        let table = Table::new();
        let all: Vec<Member> = (0..5_000).map(|i| Arc::new((i, ()))).collect();
        assert_eq!(found(&table, 0), 0);
        for member in &all {
            table.insert(key(member.0), member, &pin()).unwrap();
        }
        assert_eq!(table.len(), 5_000);
        assert_eq!(table.size(), 2_000);
        assert!(all.iter().all(|member| found(&table, member.0) == 1));
        for (i, member) in all.iter().enumerate() {
            assert!(table.remove(key(member.0), member, &pin()));
            assert!(!table.remove(key(member.0), member, &pin()));
            if i % 500 == 0 {
                assert!(all[..=i].iter().all(|member| found(&table, member.0) == 0));
                assert!(
                    all[i + 1..]
                        .iter()
                        .all(|member| found(&table, member.0) == 1)
                );
            }
        }
        assert_eq!((table.len(), table.size()), (0, SLOTS_MIN));
        assert!(table.segments[1].load(&pin()).is_none());
        assert!(all.iter().all(|member| found(&table, member.0) == 0));
    }
}
