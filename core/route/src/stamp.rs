//! Generations: how a cached route learns that it is out of date, without asking for it again.
//!
//! Every change of interest raises one *detailed* generation, picked by what the pattern can
//! match, and then the *global* one. A [`Stamp`] holds the generations that a lookup read before
//! it looked. As long as the global one is the same nothing has changed at all, and this one load
//! is the whole cost. Otherwise the four detailed ones that could concern the subject decide, so
//! a subscribe elsewhere voids nothing (but one route in some thousands, by a shared slot).
//!
//! The order is the point. A writer (one at a time) publishes its change, raises the detailed
//! generation, then the global one, both with release. A reader loads the global generation, then
//! the detailed ones, both with acquire, and only then looks at the table.
//! - If the reader saw a raised detailed generation, it saw what was published before: the route
//!   contains the change, and the stamp may count it as seen.
//! - If it did not, the stamp holds the older number, and the first check that sees the global
//!   generation of that change (or a later one) also sees the detailed one raised: void.
//! - A check that finds the global generation moved but the details unchanged may move its stamp
//!   to the global value that it loaded *first*: every change up to that value had raised its
//!   detailed generation before, so it was among those compared. A later change has a later
//!   global value and is met by a later check.
//! - A change whose call has returned has raised both; who learned of the return in any way that
//!   synchronises sees them. So no publish that starts after a subscribe returned misses it.
//!
//! Detailed generations are 32 bits wide: a stamp that is not checked during a multiple of 2^32
//! changes of one slot would be taken for current.
//!
//! Not here: what changed, and the lookup itself (`interest`).

use std::cell::Cell;
use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;
use fastmq_memory::sync::{AtomicU32, AtomicU64, OnceLock};

use crate::allocation::{NoMemory, filled};
use crate::hash::SubjectHash;

/// Slots of each kind of detailed generation.
const SLOTS: usize = if cfg!(loom) { 1 } else { 4_096 };

/// Where the slots of one kind start in the array.
const FIRST: usize = 0;
const PAIR: usize = SLOTS;
const LITERAL: usize = 2 * SLOTS;
/// The slot of the patterns whose first token is a wildcard.
const WILD: usize = 3 * SLOTS;
const SLOTS_ALL: usize = WILD + 1;

/// What a lookup saw of the generations; kept beside the route that it found.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Moves on when a change elsewhere was looked at.
    global: Cell<u64>,
    slots: [u16; 3],
    details: [u32; 4],
}

const _: () = assert!(size_of::<Stamp>() == 32);

/// All generations of one interest table.
pub(crate) struct Generations {
    /// Alone on its cache line: every publish loads it.
    global: CachePadded<AtomicU64>,
    /// Made by the first change: an idle broker does not pay for it. Until then all are 0.
    details: OnceLock<Box<[AtomicU32]>>,
}

impl Generations {
    pub(crate) fn new() -> Self {
        Self {
            global: CachePadded::new(AtomicU64::new(0)),
            details: OnceLock::new(),
        }
    }

    /// Makes room for the detailed generations, before the first change.
    pub(crate) fn prepare(&self) -> Result<(), NoMemory> {
        if self.details.get().is_none() {
            let details = filled(SLOTS_ALL, || AtomicU32::new(0))?;
            // Losing a race is fine: the caller holds the writers' lock, so there is none.
            let _ = self.details.set(details);
        }
        Ok(())
    }

    /// A stamp of now, for a lookup of `subject` that starts after this call.
    pub(crate) fn stamp(&self, hash: &SubjectHash, subject: &[u8], subject_hash: u64) -> Stamp {
        let [first, pair] = heads(subject);
        let global = self.global.load(Ordering::Acquire);
        let mut stamp = Stamp {
            global: Cell::new(global),
            slots: [
                (FIRST + slot(hash.hash(first))) as u16,
                (PAIR + slot(hash.hash(pair))) as u16,
                (LITERAL + slot(subject_hash)) as u16,
            ],
            details: [0; 4],
        };
        stamp.details = self.details_of(&stamp);
        stamp
    }

    /// Whether nothing that could concern the stamp's subject has changed since.
    #[inline(always)]
    pub(crate) fn is_current(&self, stamp: &Stamp) -> bool {
        let global = self.global.load(Ordering::Acquire);
        global == stamp.global.get() || self.is_current_in_detail(stamp, global)
    }

    #[cold]
    #[inline(never)]
    fn is_current_in_detail(&self, stamp: &Stamp, global: u64) -> bool {
        let is_current = self.details_of(stamp) == stamp.details;
        if is_current {
            stamp.global.set(global);
        }
        is_current
    }

    fn details_of(&self, stamp: &Stamp) -> [u32; 4] {
        let Some(details) = self.details.get() else {
            return [0; 4];
        };
        let load = |slot: usize| details[slot].load(Ordering::Acquire);
        let [first, pair, literal] = stamp.slots.map(|slot| load(usize::from(slot)));
        [first, pair, literal, load(WILD)]
    }

    /// Tells all stamps that `pattern` came or went; the change is published already and the
    /// caller holds the writers' lock.
    pub(crate) fn raise(&self, hash: &SubjectHash, pattern: &[u8], is_literal: bool) {
        let slot = if is_literal {
            LITERAL + slot(hash.hash(pattern))
        } else {
            let is_wildcard = |token: &[u8]| matches!(token, b"*" | b">");
            let mut tokens = pattern.splitn(3, |&byte| byte == b'.');
            let first = tokens.next().unwrap_or_default();
            let second = tokens.next().unwrap_or(b">");
            match (is_wildcard(first), is_wildcard(second)) {
                (true, _) => WILD,
                (false, true) => FIRST + slot(hash.hash(first)),
                (false, false) => PAIR + slot(hash.hash(heads(pattern)[1])),
            }
        };
        if let Some(details) = self.details.get() {
            details[slot].fetch_add(1, Ordering::Release);
        }
        self.global.fetch_add(1, Ordering::Release);
    }
}

/// The first token, and the first two (or the only one).
fn heads(text: &[u8]) -> [&[u8]; 2] {
    let mut dots = text.iter().enumerate().filter(|(_, byte)| **byte == b'.');
    let mut head = || &text[..dots.next().map_or(text.len(), |(at, _)| at)];
    [head(), head()]
}

#[inline]
fn slot(hash: u64) -> usize {
    // Not the bits by which the tables are indexed.
    (hash >> 40) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Shape;

    /// Whether a stamp of `subject` survives a change of `pattern`.
    fn check(subject: &str, pattern: &str, survives: bool) {
        let hash = SubjectHash::new(11);
        let generations = Generations::new();
        generations.prepare().unwrap();
        let subject = subject.as_bytes();
        let stamp = generations.stamp(&hash, subject, hash.hash(subject));
        assert!(generations.is_current(&stamp));
        let is_literal = Shape::of(pattern.as_bytes()).is_none();
        generations.raise(&hash, pattern.as_bytes(), is_literal);
        assert_eq!(generations.is_current(&stamp), survives, "{pattern}");
        assert_eq!(generations.is_current(&stamp), survives, "{pattern}");
    }

    #[test]
    fn a_change_that_can_match_voids_the_stamp() {
        for pattern in [
            "a.b.c", "a.b.*", "a.*.c", "*.b.c", "*.*.*", "a.b.>", "a.>", ">", "*.>",
        ] {
            check("a.b.c", pattern, false);
        }
        check("a", "a", false);
        check("a", "*", false);
        check("a", ">", false);
        check("a.b", "a.b", false);
        check("a.b", "a.*", false);
    }

    #[test]
    fn a_change_elsewhere_does_not() {
        for pattern in ["a.b.d", "a.x.*", "a.x.>", "x.*.c", "x.>", "a", "a.b"] {
            check("a.b.c", pattern, true);
        }
    }

    #[test]
    fn a_stamp_from_before_the_first_change_is_void_after_it() {
        let hash = SubjectHash::new(11);
        let generations = Generations::new();
        let a = generations.stamp(&hash, b"a", hash.hash(b"a"));
        let b = generations.stamp(&hash, b"b", hash.hash(b"b"));
        generations.prepare().unwrap();
        assert!(generations.is_current(&a));
        generations.raise(&hash, b"a", true);
        assert!(!generations.is_current(&a));
        assert!(generations.is_current(&b));
    }

    #[test]
    fn heads_are_the_first_token_and_the_first_two() {
        let check = |text: &'static str, first: &str, pair: &str| {
            assert_eq!(heads(text.as_bytes()), [first.as_bytes(), pair.as_bytes()]);
        };
        check("a", "a", "a");
        check("a.b", "a", "a.b");
        check("a.b.c.d", "a", "a.b");
    }
}
