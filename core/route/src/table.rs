//! Entries by hash: a table that readers probe without a lock while it grows and shrinks.
//!
//! Extendible hashing (Fagin et al.): an entry is in a page with all others that have the low bits
//! of its key. A page that is full is split by one more bit, alone; two half empty pages that
//! differ in their last bit are merged. So no change copies more than two pages, there is no pause
//! while a million entries are moved, and memory follows the number of entries both ways.
//!
//! The slots of the pages lie in one array, indexed by those low bits. A slot is empty until its
//! page was split off the one whose index lacks the highest bit, so a reader begins with as many
//! bits as the deepest page has, and leaves out the highest bit until it finds a page. The list of
//! slots is small enough for a cache; what a probe waits for is a cell of the page.
//!
//! A page knows how many bits its keys have in common. *Split:* the upper page is stored, then the
//! lower one is replaced. *Merge:* the lower page is replaced, then the upper slot is emptied. So
//! a page that a reader loads while it is the page for its key has all that stays; one that no
//! longer is says so, and the reader looks again. It is sent round only by a split that it meets.
//!
//! Changes are made under the writers' lock of the interest table.
//! Not here: how a page finds its entries (`page`), and whether a hit matches (`interest`).

use std::array;
use std::sync::atomic::Ordering;

use fastmq_memory::snapshot::{Pin, Snapshot};
use fastmq_memory::sync::{AtomicU32, AtomicUsize, OnceLock};

use crate::allocation::{NoMemory, filled};
use crate::entry::{Entry, Value};
use crate::page::{Boxed, CELLS, Home, Inserted, Page, home_of, low_bits, tag_of};

/// Segments of the array of slots: the first has one slot, each other as many as all before it.
const SEGMENTS: usize = if cfg!(loom) { 4 } else { 27 };
const DEPTH_MAX: u32 = SEGMENTS as u32 - 1;
/// Two pages with fewer entries together are merged.
const MERGE_BELOW: usize = CELLS / 2;

type Slot<V> = Snapshot<[Page<V>; 1]>;

/// All entries of one interest table.
pub(crate) struct Table<V: Value> {
    /// The depth of the deepest page, and how many pages have each.
    depth: AtomicU32,
    pages: [AtomicU32; SEGMENTS],
    segments: [OnceLock<Box<[Slot<V>]>>; SEGMENTS],
    entries: AtomicUsize,
}

impl<V: Value> Table<V> {
    pub(crate) fn new() -> Self {
        Self {
            depth: AtomicU32::new(0),
            pages: array::from_fn(|_| AtomicU32::new(0)),
            segments: array::from_fn(|_| OnceLock::new()),
            entries: AtomicUsize::new(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Begins to look for the entries of `key`.
    #[inline]
    pub(crate) fn probe<'a>(&'a self, key: u64, pin: &'a Pin) -> Probe<'a, V> {
        Probe {
            table: self,
            key,
            home: self
                .find(key, pin)
                .map(|(index, page)| page.home(index, key)),
        }
    }

    /// Calls `visit` with every entry, for the writer.
    pub(crate) fn for_each<'g>(&self, pin: &'g Pin, visit: &mut impl FnMut(&'g Entry<V>)) {
        let segments = self.segments.iter().filter_map(OnceLock::get);
        for [page] in segments.flatten().filter_map(|slot| slot.load(pin)) {
            page.for_each(pin, visit);
        }
    }

    /// Adds an entry under `key`.
    pub(crate) fn insert(
        &self,
        key: u64,
        id: u32,
        pattern: &[u8],
        value: V,
        pin: &Pin,
    ) -> Result<(), NoMemory> {
        let mut entry = Entry::new(tag_of(key), id, pattern, value)?;
        loop {
            let Some((index, page)) = self.find(key, pin) else {
                self.make_root()?;
                continue;
            };
            match page.insert(home_of(key), entry, pin)? {
                Inserted::InPlace => break,
                Inserted::Copied(copy) => {
                    self.store(index, Some(copy));
                    break;
                }
                Inserted::Full(refused) => entry = refused,
            }
            if page.is_dense() {
                self.split(index, page)?;
            } else {
                self.store(index, Some(Page::copy_of(page, !0, page.depth())?));
            }
        }
        self.entries.store(self.len() + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the entry `id` that was inserted under `key`, and gives it. Never fails: without
    /// memory for a copy the entry stays in its cell, out of sight.
    pub(crate) fn remove(&self, key: u64, id: u32, pin: &Pin) -> Option<Entry<V>> {
        let (index, page) = self.find(key, pin)?;
        let entry = page.remove(key, id, pin)?;
        self.entries.store(self.len() - 1, Ordering::Relaxed);
        // Without memory the table stays as large as it is.
        let _ = self.tidy(index, page, pin);
        Some(entry)
    }

    /// Merges a page with its neighbour, or copies it, after a removal.
    fn tidy(&self, index: u32, page: &Page<V>, pin: &Pin) -> Result<(), NoMemory> {
        let depth = page.depth();
        let Some(last) = depth.checked_sub(1) else {
            if page.len() == 0 {
                self.store(0, None);
                self.count(0, -1);
                return Ok(());
            }
            return self.refresh(index, page);
        };
        let (lower, upper) = (index & !(1 << last), index | 1 << last);
        let neighbour = self.slot(lower + upper - index);
        let neighbour = neighbour.and_then(|slot| slot.load(pin));
        let Some([neighbour]) = neighbour
            .filter(|[other]| other.depth() == depth && other.len() + page.len() < MERGE_BELOW)
        else {
            return self.refresh(index, page);
        };
        let merged = Page::copy_of(page, !0, last)?;
        merged[0].add(neighbour, !0);
        self.store(lower, Some(merged));
        self.store(upper, None);
        self.count(depth, -2);
        self.count(last, 1);
        Ok(())
    }

    fn refresh(&self, index: u32, page: &Page<V>) -> Result<(), NoMemory> {
        if page.is_worn() {
            self.store(index, Some(Page::copy_of(page, !0, page.depth())?));
        }
        Ok(())
    }

    fn make_root(&self) -> Result<(), NoMemory> {
        self.add_segment(0)?;
        self.store(0, Some(Page::new(0)?));
        self.count(0, 1);
        Ok(())
    }

    /// Splits a page by one more bit of the keys.
    fn split(&self, index: u32, page: &Page<V>) -> Result<(), NoMemory> {
        let depth = page.depth();
        if depth == DEPTH_MAX {
            // A billion subscriptions, or a hash that is none.
            return Err(NoMemory);
        }
        self.add_segment(depth as usize + 1)?;
        let which = page.upper(depth);
        let upper = Page::copy_of(page, which, depth + 1)?;
        let lower = Page::copy_of(page, !which, depth + 1)?;
        self.count(depth + 1, 2);
        self.count(depth, -1);
        self.store(index | 1 << depth, Some(upper));
        self.store(index, Some(lower));
        Ok(())
    }

    /// The page that has `key`, or had it a moment ago, and its index.
    #[inline]
    fn find<'g>(&self, key: u64, pin: &'g Pin) -> Option<(u32, &'g Page<V>)> {
        let mut index = low_bits(tag_of(key), self.depth.load(Ordering::Acquire));
        loop {
            let page = self.slot(index).and_then(|slot| slot.load(pin));
            if let Some([page]) = page {
                return Some((index, page));
            }
            if index == 0 {
                return None;
            }
            index &= !(1 << index.ilog2());
        }
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot<V>> {
        let (segment, offset) = place_of(index);
        self.segments[segment].get()?.get(offset)
    }

    fn store(&self, index: u32, page: Option<Boxed<V>>) {
        if let Some(slot) = self.slot(index) {
            slot.store(page);
        }
    }

    fn add_segment(&self, segment: usize) -> Result<(), NoMemory> {
        if self.segments[segment].get().is_none() {
            let slots = filled(1 << segment >> usize::from(segment > 0), Snapshot::empty)?;
            // Losing a race is fine: the caller holds the writers' lock, so there is none.
            let _ = self.segments[segment].set(slots);
        }
        Ok(())
    }

    /// Counts pages of a depth. A deeper page is counted before it is stored: who meets a page
    /// that was split knows where to look.
    fn count(&self, depth: u32, pages: i32) {
        let count = &self.pages[depth as usize];
        let now = count.load(Ordering::Relaxed).wrapping_add_signed(pages);
        count.store(now, Ordering::Relaxed);
        let is_used = |pages: &AtomicU32| pages.load(Ordering::Relaxed) > 0;
        let deepest = self.pages.iter().rposition(is_used).unwrap_or(0);
        self.depth.store(deepest as u32, Ordering::Release);
    }
}

/// A look for the entries of a key that has begun.
pub(crate) struct Probe<'a, V: Value> {
    table: &'a Table<V>,
    key: u64,
    home: Option<Home<'a, V>>,
}

impl<'a, V: Value> Probe<'a, V> {
    /// Calls `visit` with every entry of the key; a few others may have nearly the same one.
    #[inline]
    pub(crate) fn visit(self, pin: &'a Pin, mut visit: impl FnMut(&'a Entry<V>)) {
        let Some(mut home) = self.home else {
            return;
        };
        while !home.is_right() {
            match self.table.find(self.key, pin) {
                Some((index, page)) => home = page.home(index, self.key),
                None => return,
            }
        }
        home.visit(pin, &mut visit);
    }
}

/// The segment of a slot, and its offset there.
#[inline]
fn place_of(index: u32) -> (usize, usize) {
    let segment = u32::BITS - index.leading_zeros();
    let first = if index == 0 { 0 } else { 1 << (segment - 1) };
    (segment as usize, (index - first) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastmq_memory::snapshot::pin;

    fn key(number: u32) -> u64 {
        u64::from(number)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_right(29)
    }

    fn found(table: &Table<u32>, number: u32) -> usize {
        let mut count = 0;
        let pin = pin();
        table.probe(key(number), &pin).visit(&pin, |entry| {
            count += usize::from(entry.id() == number);
        });
        count
    }

    fn is_removed(table: &Table<u32>, number: u32) -> bool {
        let removed = table.remove(key(number), number, &pin());
        removed.is_some_and(|entry| entry.id() == number && *entry.value() == !number)
    }

    #[test]
    fn every_slot_has_its_place() {
        let mut expected = (0, 0);
        for index in 0..4_096 {
            assert_eq!(place_of(index), expected, "slot {index}");
            expected.1 += 1;
            if expected.1 == 1 << expected.0 >> usize::from(expected.0 > 0) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(place_of((1 << DEPTH_MAX) - 1).0, SEGMENTS - 1);
    }

    #[test]
    fn the_table_follows_its_entries_both_ways() {
        const COUNT: u32 = 20_000;
        let table = Table::new();
        assert_eq!(found(&table, 0), 0);
        assert!(!is_removed(&table, 0));
        for i in 0..COUNT {
            table.insert(key(i), i, b"", !i, &pin()).unwrap();
        }
        assert_eq!(table.len(), COUNT as usize);
        assert!((0..COUNT).all(|i| found(&table, i) == 1));
        let pages: u32 = table
            .pages
            .iter()
            .map(|pages| pages.load(Ordering::Relaxed))
            .sum();
        assert!(pages < COUNT / (CELLS as u32 / 2), "{pages} pages");
        let mut seen = vec![0; COUNT as usize];
        table.for_each(&pin(), &mut |entry| seen[entry.id() as usize] += 1);
        assert!(seen.iter().all(|&count| count == 1));
        for i in 0..COUNT {
            assert!(is_removed(&table, i));
            assert!(!is_removed(&table, i));
            if i % 4_000 == 0 {
                assert!((0..=i).all(|i| found(&table, i) == 0));
                assert!((i + 1..COUNT).all(|i| found(&table, i) == 1));
            }
        }
        assert_eq!((table.len(), table.depth.load(Ordering::Relaxed)), (0, 0));
        let slots = table.segments.iter().filter_map(OnceLock::get).flatten();
        assert!(slots.into_iter().all(|slot| slot.load(&pin()).is_none()));
    }
}
