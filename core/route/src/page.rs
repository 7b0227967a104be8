//! A page of the table: an array of cells that a reader probes without a lock.
//!
//! Hopscotch hashing (Herlihy, Shavit, Tzafrir) with cells that are written once. An entry lies in
//! its home cell, which follows from its key, or in another; the home cell has a bit for each that
//! it is home to. So one cache line tells whether there is an entry, and mostly is the entry: a
//! probe waits for memory once. An entry is a value, not a pointer to one.
//!
//! An insert fills a cell and then sets the bit; a removal takes the bit away. The cell is not
//! used again: a page that is full, or has too many cells of removed entries, is copied. So a
//! reader that holds an old page misses nothing that stays and sees nothing twice.
//!
//! Subscriptions to one pattern that become many move into a `Crowd`, which is shared by all later
//! copies and changes in place.
//!
//! Changes are made under the writers' lock of the interest table.
//! Not here: which page (`table`), and whether the text matches (`interest`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastmq_memory::allocation::try_arc;
use fastmq_memory::snapshot::Pin;
use fastmq_memory::sync::{AtomicU32, AtomicU64, OnceLock};

use crate::allocation::{NoMemory, boxed};
use crate::crowd::Crowd;
use crate::entry::{Entry, Value};

/// Cells of a page: the bits of a word that are not the depth.
pub(crate) const CELLS: usize = if cfg!(loom) { 4 } else { 58 };
const HOPS: u64 = (1 << CELLS) - 1;
/// A full page with fewer entries than this is copied, not split: the others were removed.
const SPLIT_MIN: usize = CELLS * 3 / 4;
/// A page is copied when there is a removed entry for this many that stay.
const ENTRIES_FOR_A_GONE_ONE: usize = 8;
/// Entries of one pattern that stay apart; one more makes them a crowd.
const CROWD_MIN: usize = if cfg!(loom) { 2 } else { 8 };

/// Entries whose keys have their low bits in common.
pub(crate) struct Page<V: Value> {
    counts: Counts,
    cells: [Cell<V>; CELLS],
}

/// For the writer.
struct Counts {
    /// Cells in use, and cells whose entry was removed.
    live: AtomicU32,
    gone: AtomicU32,
}

struct Cell<V: Value> {
    /// Bit `i`: the cell `i` places further on holds an entry that is at home here. Above them,
    /// the same in every cell: the depth of the page, which is how many bits its keys have in
    /// common.
    word: AtomicU64,
    members: OnceLock<Members<V>>,
}

/// What a cell holds.
#[derive(Clone)]
enum Members<V: Value> {
    One(Entry<V>),
    /// With the tag of all.
    Crowd(u32, Arc<Crowd<V>>),
}

/// A page as a slot of the table holds it.
pub(crate) type Boxed<V> = Box<[Page<V>; 1]>;

/// How an insert ended.
pub(crate) enum Inserted<V: Value> {
    InPlace,
    /// With a copy, which is to be put in place of the page.
    Copied(Boxed<V>),
    /// Not at all: there is no free cell.
    Full(Entry<V>),
}

impl<V: Value> Page<V> {
    /// An empty page for keys that have `depth` bits in common.
    pub(crate) fn new(depth: u32) -> Result<Boxed<V>, NoMemory> {
        let word = u64::from(depth) << CELLS;
        boxed(Self {
            counts: Counts {
                live: AtomicU32::new(0),
                gone: AtomicU32::new(0),
            },
            cells: std::array::from_fn(|_| Cell {
                word: AtomicU64::new(word),
                members: OnceLock::new(),
            }),
        })
    }

    /// How many low bits its keys have in common.
    pub(crate) fn depth(&self) -> u32 {
        depth_of(self.cells[0].word.load(Ordering::Relaxed))
    }

    /// Entries; a crowd counts as one.
    pub(crate) fn len(&self) -> usize {
        self.counts.live.load(Ordering::Relaxed) as usize
    }

    /// Whether a page without a free cell is to be split: else a copy of it has room.
    pub(crate) fn is_dense(&self) -> bool {
        self.len() >= SPLIT_MIN
    }

    /// Whether so many entries were removed that the page is to be copied, to drop them.
    pub(crate) fn is_worn(&self) -> bool {
        let gone = self.counts.gone.load(Ordering::Relaxed) as usize;
        gone * ENTRIES_FOR_A_GONE_ONE > self.len()
    }

    /// Begins to look for the entries of `key` in a page that was found at `index`. Nothing that
    /// comes from the page decides anything yet, so that the caller need not wait for it.
    #[inline]
    pub(crate) fn home(&self, index: u32, key: u64) -> Home<'_, V> {
        let home = home_of(key);
        let cell = &self.cells[home];
        let word = cell.word.load(Ordering::Acquire);
        // Most entries are in their home cell, which may lie in two cache lines.
        let first = cell.members.get();
        Home {
            page: self,
            index,
            home,
            tag: tag_of(key),
            word,
            first,
            first_tag: first.map_or(0, Members::tag),
        }
    }

    /// Calls `visit` with every entry, for the writer.
    pub(crate) fn for_each<'g>(&'g self, pin: &'g Pin, visit: &mut impl FnMut(&'g Entry<V>)) {
        for (_, members) in self.entries() {
            members.for_each(pin, visit);
        }
    }

    /// Adds an entry whose key has this home.
    pub(crate) fn insert(
        &self,
        home: usize,
        entry: Entry<V>,
        pin: &Pin,
    ) -> Result<Inserted<V>, NoMemory> {
        let tag = entry.tag;
        let mut same = 0;
        for (_, members) in self.at_home(home, self.word(home)) {
            match members {
                Members::Crowd(other, crowd) if *other == tag => {
                    crowd.insert(&entry, pin)?;
                    return Ok(Inserted::InPlace);
                }
                Members::One(other) => same += usize::from(other.tag == tag),
                Members::Crowd(..) => {}
            }
        }
        if same < CROWD_MIN {
            return Ok(match self.put(home, Members::One(entry)) {
                None => Inserted::InPlace,
                Some(Members::One(entry)) => Inserted::Full(entry),
                Some(Members::Crowd(..)) => unreachable!("what comes back is what was put"),
            });
        }
        let is_same = |other: usize, members: &Members<V>| match members {
            Members::One(entry) => other == home && entry.tag == tag,
            Members::Crowd(..) => false,
        };
        let together = self.at_home(home, self.word(home));
        let together = together.filter_map(|(_, members)| match members {
            Members::One(entry) if entry.tag == tag => Some(entry),
            _ => None,
        });
        let crowd = try_arc(Crowd::new(together.chain([&entry]))?)?;
        let others = self.which(|home, members| !is_same(home, members));
        let page = Self::copy_of(self, others, self.depth())?;
        page[0].put(home, Members::Crowd(tag, crowd));
        Ok(Inserted::Copied(page))
    }

    /// Removes the entry `id` of `key` and gives it, or `None` if there is none.
    pub(crate) fn remove(&self, key: u64, id: u32, pin: &Pin) -> Option<Entry<V>> {
        let (home, tag) = (home_of(key), tag_of(key));
        let word = self.word(home);
        let mut members = self.at_home(home, word);
        let (distance, entry, is_last) = members.find_map(|(distance, members)| match members {
            Members::One(entry) => (entry.id() == id).then(|| (distance, entry.clone(), true)),
            Members::Crowd(other, crowd) if *other == tag => {
                let entry = crowd.remove(id, pin)?;
                Some((distance, entry, crowd.len() == 0))
            }
            Members::Crowd(..) => None,
        })?;
        if is_last {
            let word = word & !(1 << distance);
            self.cells[home].word.store(word, Ordering::Release);
            self.count(-1, 1);
        }
        Some(entry)
    }

    /// The entries whose tag has this bit, as `copy_of` takes them.
    pub(crate) fn upper(&self, bit: u32) -> u64 {
        self.which(|_, members| members.tag() >> bit & 1 != 0)
    }

    /// Bit `i`: the answer for the entry that `entries` gives as its `i`-th.
    fn which(&self, is_one: impl Fn(usize, &Members<V>) -> bool) -> u64 {
        let entries = self.entries().enumerate();
        entries.fold(0, |which, (at, (home, members))| {
            which | u64::from(is_one(home, members)) << at
        })
    }

    /// A page with some of the entries of `old`; all bits: with all of them.
    pub(crate) fn copy_of(old: &Self, which: u64, depth: u32) -> Result<Boxed<V>, NoMemory> {
        let page = Self::new(depth)?;
        page[0].add(old, which);
        Ok(page)
    }

    /// Adds some of the entries of `old` to a page that has room for them.
    pub(crate) fn add(&self, old: &Self, which: u64) {
        let entries = old.entries().enumerate();
        let entries = entries.filter(|(at, _)| which >> at & 1 != 0);
        // Whoever can be at home is, whatever order they come in.
        let mut homeless = [const { None }; CELLS];
        let mut places = homeless.iter_mut();
        for (_, (home, members)) in entries {
            if self.cells[home].members.get().is_none() {
                self.put(home, members.clone());
            } else if let Some(place) = places.next() {
                *place = Some((home, members));
            }
        }
        for (home, members) in homeless.into_iter().flatten() {
            let refused = self.put(home, members.clone());
            assert!(refused.is_none(), "a page that is copied into has room");
        }
    }

    /// Puts an entry into a free cell, or gives it back.
    fn put(&self, home: usize, members: Members<V>) -> Option<Members<V>> {
        let mut distances = 0..CELLS;
        let is_free = |&distance: &usize| self.cell(home, distance).members.get().is_none();
        let Some(distance) = distances.find(is_free) else {
            return Some(members);
        };
        if let Err(members) = self.cell(home, distance).members.set(members) {
            return Some(members);
        }
        // Who sees the bit sees the cell.
        let word = self.word(home) | 1 << distance;
        self.cells[home].word.store(word, Ordering::Release);
        self.count(1, 0);
        None
    }

    fn count(&self, live: i32, gone: i32) {
        for (count, change) in [(&self.counts.live, live), (&self.counts.gone, gone)] {
            let now = count.load(Ordering::Relaxed).wrapping_add_signed(change);
            count.store(now, Ordering::Relaxed);
        }
    }

    /// The word of a cell, for the writer.
    fn word(&self, home: usize) -> u64 {
        self.cells[home].word.load(Ordering::Relaxed)
    }

    #[inline]
    fn cell(&self, home: usize, distance: usize) -> &Cell<V> {
        let at = home + distance;
        &self.cells[if at < CELLS { at } else { at - CELLS }]
    }

    /// The entries that are at home in the cell with this word, and how far from it they are.
    #[inline]
    fn at_home(
        &self,
        home: usize,
        word: u64,
    ) -> impl Iterator<Item = (usize, &Members<V>)> + Clone {
        let mut hops = word & HOPS;
        let distances = std::iter::from_fn(move || {
            let distance = hops.trailing_zeros() as usize;
            hops &= hops.wrapping_sub(1);
            (distance < CELLS).then_some(distance)
        });
        distances.filter_map(move |distance| {
            let members = self.cell(home, distance).members.get()?;
            Some((distance, members))
        })
    }

    /// All entries, with their homes; for the writer.
    fn entries(&self) -> impl Iterator<Item = (usize, &Members<V>)> + Clone {
        (0..CELLS).flat_map(move |home| {
            let members = self.at_home(home, self.word(home));
            members.map(move |(_, members)| (home, members))
        })
    }
}

/// The cell that the entries of a key are at home in, and what was read of it.
pub(crate) struct Home<'a, V: Value> {
    page: &'a Page<V>,
    index: u32,
    home: usize,
    tag: u32,
    word: u64,
    first: Option<&'a Members<V>>,
    first_tag: u32,
}

impl<'a, V: Value> Home<'a, V> {
    /// Whether the page is the one for this key: it is not if it was split meanwhile.
    #[inline]
    pub(crate) fn is_right(&self) -> bool {
        low_bits(self.tag, depth_of(self.word)) == self.index
    }

    /// Calls `visit` with every entry of the same home and tag.
    #[inline]
    pub(crate) fn visit(self, pin: &'a Pin, visit: &mut impl FnMut(&'a Entry<V>)) {
        if self.word & 1 != 0
            && self.first_tag == self.tag
            && let Some(members) = self.first
        {
            members.for_each(pin, visit);
        }
        for (_, members) in self.page.at_home(self.home, self.word & !1) {
            if members.tag() == self.tag {
                members.for_each(pin, visit);
            }
        }
    }
}

impl<V: Value> Members<V> {
    #[inline]
    fn tag(&self) -> u32 {
        match self {
            Self::One(entry) => entry.tag,
            Self::Crowd(tag, _) => *tag,
        }
    }

    #[inline]
    fn for_each<'a>(&'a self, pin: &'a Pin, visit: &mut impl FnMut(&'a Entry<V>)) {
        match self {
            Self::One(entry) => visit(entry),
            Self::Crowd(_, crowd) => crowd.for_each(pin, visit),
        }
    }
}

/// The cell that an entry is at home in.
#[inline]
pub(crate) fn home_of(key: u64) -> usize {
    (((key >> 32) * CELLS as u64) >> 32) as usize
}

/// The other half of the key; its low bits are what the entries of a page have in common.
#[inline]
pub(crate) fn tag_of(key: u64) -> u32 {
    key as u32
}

/// The `count` low bits of a tag.
#[inline]
pub(crate) fn low_bits(tag: u32, count: u32) -> u32 {
    tag & ((1 << count) - 1)
}

#[inline]
fn depth_of(word: u64) -> u32 {
    (word >> CELLS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastmq_memory::snapshot::pin;

    /// A key with this home and tag.
    fn key(home: usize, tag: u32) -> u64 {
        let high = ((home as u64) << 32).div_ceil(CELLS as u64);
        let key = high << 32 | u64::from(tag);
        assert_eq!((home_of(key), tag_of(key)), (home, tag));
        key
    }

    /// A page outside a table, which is replaced by its copies.
    struct Fixture(Boxed<()>);

    impl Fixture {
        fn new() -> Self {
            Self(Page::new(0).unwrap())
        }

        /// False: it is full.
        fn insert(&mut self, home: usize, tag: u32, id: u32) -> bool {
            let entry = Entry::new(tag, id, b"p", ()).unwrap();
            match self.0[0].insert(home, entry, &pin()).unwrap() {
                Inserted::InPlace => true,
                Inserted::Copied(copy) => {
                    self.0 = copy;
                    true
                }
                Inserted::Full(entry) => {
                    assert_eq!(entry.id(), id);
                    false
                }
            }
        }

        fn remove(&self, home: usize, tag: u32, id: u32) -> bool {
            let removed = self.0[0].remove(key(home, tag), id, &pin());
            removed.is_some_and(|entry| entry.id() == id)
        }

        fn check(&self, home: usize, tag: u32, expected: impl IntoIterator<Item = u32>) {
            let (mut seen, pin) = (Vec::new(), pin());
            let found = self.0[0].home(0, key(home, tag));
            assert!(found.is_right());
            found.visit(&pin, &mut |entry| seen.push(entry.id()));
            seen.sort_unstable();
            assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_entry_of_the_engine_fills_one_cache_line() {
        type Handle = Result<Arc<u8>, Arc<u16>>;
        assert_eq!(size_of::<Entry<Handle>>(), 48);
        assert_eq!(size_of::<Cell<Handle>>(), 64);
    }

    #[test]
    fn every_cell_is_used_whatever_the_homes_are() {
        for homes in [1, 2, CELLS / 2, CELLS] {
            let mut page = Fixture::new();
            for i in 0..CELLS {
                assert!(page.insert(i % homes, i as u32, i as u32));
            }
            assert!(!page.insert(0, 999, 999));
            for i in 0..CELLS {
                page.check(i % homes, i as u32, [i as u32]);
                page.check(i % homes, 999, []);
            }
            assert_eq!(page.0[0].len(), CELLS);
            assert!(page.0[0].is_dense());
        }
    }

    #[test]
    fn entries_of_one_tag_become_a_crowd_and_go() {
        let mut page = Fixture::new();
        assert!(page.insert(7, 5, 999) && page.insert(8, 4, 998));
        for id in 0..300 {
            page.check(7, 4, 0..id);
            assert!(page.insert(7, 4, id));
            page.check(7, 5, [999]);
            page.check(8, 4, [998]);
        }
        assert_eq!(page.0[0].len(), 3);
        let copy = Page::copy_of(&page.0[0], !0, 0).unwrap();
        page.0 = copy;
        for id in 0..300 {
            assert!(!page.remove(7, 5, id), "another tag");
            assert!(!page.remove(8, 4, id), "another home");
            assert!(page.remove(7, 4, id));
            assert!(!page.remove(7, 4, id));
            page.check(7, 4, id + 1..300);
        }
        assert_eq!(page.0[0].len(), 2);
        page.check(7, 5, [999]);
        page.check(8, 4, [998]);
    }

    #[test]
    fn a_removed_entry_is_out_of_sight_and_left_out_of_the_copy() {
        let mut page = Fixture::new();
        for i in 0..CELLS as u32 {
            assert!(page.insert(3, i, i));
        }
        for i in 0..CELLS as u32 {
            if i % 3 > 0 {
                assert!(page.remove(3, i, i));
                assert!(!page.remove(3, i, i));
            }
        }
        let rest = |i: u32| i.is_multiple_of(3).then_some(i);
        (0..CELLS as u32).for_each(|i| page.check(3, i, rest(i)));
        assert!(page.0[0].is_worn() && !page.0[0].is_dense());
        assert!(!page.insert(3, 999, 999), "no cell is used twice");
        page.0 = Page::copy_of(&page.0[0], !0, 0).unwrap();
        (0..CELLS as u32).for_each(|i| page.check(3, i, rest(i)));
        assert!(!page.0[0].is_worn());
        assert!(page.insert(3, 999, 999));
    }

    #[test]
    fn a_split_gives_each_entry_to_one_page_and_the_other_refuses_its_key() {
        let mut page = Fixture::new();
        let of = |i: u32| (i as usize * 7 % CELLS, i.wrapping_mul(0x9E37_79B1));
        for i in 0..CELLS as u32 {
            assert!(page.insert(of(i).0, of(i).1, i));
        }
        let which = page.0[0].upper(0);
        let halves = [!which, which].map(|which| Page::copy_of(&page.0[0], which, 1).unwrap());
        let pin = pin();
        for i in 0..CELLS as u32 {
            let (home, tag) = of(i);
            for (index, half) in (0..).zip(&halves) {
                let (mut seen, is_right) = (Vec::new(), tag & 1 == index);
                let found = half[0].home(index, key(home, tag));
                assert_eq!(found.is_right(), is_right);
                found.visit(&pin, &mut |entry| seen.push(entry.id()));
                assert_eq!(seen.contains(&i), is_right);
            }
        }
        let [lower, upper] = halves;
        let merged = Page::copy_of(&lower[0], !0, 0).unwrap();
        merged[0].add(&upper[0], !0);
        page.0 = merged;
        (0..CELLS as u32).for_each(|i| page.check(of(i).0, of(i).1, [i]));
    }
}
