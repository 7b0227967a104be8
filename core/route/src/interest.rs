//! Interest: all subscriptions, and which of them match a subject.
//!
//! A tuple-space search. Every pattern has a shape (`pattern`), and one hash table holds them all
//! under the key of (shape, literal tokens). A lookup hashes the tokens of the subject once,
//! probes the table once for each existing shape that can match, and verifies each hit on the
//! text. Patterns without a wildcard are found by the hash of the whole subject, so a broker
//! without wildcard subscriptions does one probe for each lookup.
//!
//! Readers look at snapshots, in which entries are written once, and take no lock. Writers take one
//! mutex, publish their change, and then raise the generations (`stamp` has the argument for this
//! order).
//! A subscription that stays is found by every lookup, exactly once, whatever comes and goes
//! beside it; one that comes or goes during a lookup may be found or not.
//!
//! Memory: some 85 bytes for each subscription, with its pattern if that is short (`text`) and 16
//! bytes of `V`. A lookup of a cold subject among a million waits for memory once.
//! What is removed is dropped later and on any thread that uses a snapshot, and one for each eight
//! that stay may wait for a change near it: the destructor of `V` must not lock, wait or call back.
//!
//! Not here: groups, queues and delivery; the caller sorts what a lookup gives.

use fastmq_memory::snapshot::{Pin, pin};
use fastmq_memory::sync::{Mutex, MutexGuard, lock};

use crate::allocation::NoMemory;
use crate::entry::{Entry, Value};
use crate::hash::{SubjectHash, is_same};
use crate::pattern::{Shape, TokenHashes};
use crate::shapes::{Counts, Shapes};
use crate::stamp::{Generations, Stamp};
use crate::table::{Probe, Table};

/// Changes after which retired memory is handed over, so that it does not wait for long.
const FLUSH_EVERY: u32 = 64;

/// The subscriptions of one broker.
pub struct Interest<V: Value> {
    hash: SubjectHash,
    generations: Generations,
    table: Table<V>,
    shapes: Shapes,
    writer: Mutex<Writer>,
}

struct Writer {
    counts: Counts,
    changes: u32,
}

impl<V: Value> Interest<V> {
    /// An empty table; `seed` should be random. It allocates nothing.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            hash: SubjectHash::new(seed),
            generations: Generations::new(),
            table: Table::new(),
            shapes: Shapes::new(),
            writer: Mutex::new(Writer {
                counts: Counts::new(),
                changes: 0,
            }),
        }
    }

    /// The hash of this table, for route caches: one hash of the subject then serves both.
    #[inline]
    #[must_use]
    pub fn hasher(&self) -> SubjectHash {
        self.hash
    }

    /// Adds a subscription. It is found by every lookup that starts after the return.
    ///
    /// `pattern` was checked by [`check_pattern`](crate::check_pattern); `id` names the
    /// subscription among those of this table.
    ///
    /// # Errors
    /// There is no memory; nothing has changed.
    pub fn insert(&self, id: u32, pattern: &[u8], value: V) -> Result<(), NoMemory> {
        let shape = Shape::of(pattern);
        let key = self.key(pattern, shape);
        let mut writer = self.lock();
        // Not while waiting for the lock: a pin holds back what others have retired.
        let pin = pin();
        self.generations.prepare()?;
        if let Some(shape) = shape {
            self.shapes.insert(&mut writer.counts, shape)?;
        }
        if let Err(error) = self.table.insert(key, id, pattern, value, &pin) {
            if let Some(shape) = shape {
                self.shapes.remove(&mut writer.counts, shape);
            }
            return Err(error);
        }
        self.raise(&mut writer, pattern, shape, &pin);
        Ok(())
    }

    /// Removes the subscription `id` to `pattern` and gives it, or `None` if it is not there. No
    /// lookup that starts after the return finds it.
    pub fn remove(&self, pattern: &[u8], id: u32) -> Option<Entry<V>> {
        let shape = Shape::of(pattern);
        let key = self.key(pattern, shape);
        let mut writer = self.lock();
        let pin = pin();
        let removed = self.table.remove(key, id, &pin)?;
        if let Some(shape) = shape {
            self.shapes.remove(&mut writer.counts, shape);
        }
        self.raise(&mut writer, pattern, shape, &pin);
        Some(removed)
    }

    /// Calls `visit` with every subscription, in no particular order. It must not change this
    /// table: that would wait for itself.
    pub fn for_each(&self, mut visit: impl FnMut(&Entry<V>)) {
        let _writer = self.lock();
        self.table.for_each(&pin(), &mut |entry| visit(entry));
    }

    /// Calls `visit` with every subscription to exactly this pattern. It must not change the table.
    pub fn for_pattern(&self, pattern: &[u8], mut visit: impl FnMut(&Entry<V>)) {
        let key = self.key(pattern, Shape::of(pattern));
        let pin = pin();
        self.table.probe(key, &pin).visit(&pin, |entry| {
            if entry.pattern().as_bytes() == pattern {
                visit(entry);
            }
        });
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends every subscription whose pattern matches `subject` (checked by
    /// [`check_subject`](crate::check_subject)) to `out`, in no particular order.
    ///
    /// The stamp says for how long the answer holds: see [`is_current`](Self::is_current).
    /// Aborts if `out` cannot grow; a [`search`](Self::search) allocates nothing.
    pub fn lookup(&self, subject: &[u8], out: &mut Vec<Entry<V>>) -> Stamp {
        let subject_hash = self.hash.hash(subject);
        let stamp = self.stamp(subject, subject_hash);
        let pin = pin();
        let search = self.search(subject_hash, &pin);
        search.visit(subject, |entry| out.push(entry.clone()));
        stamp
    }

    /// The stamp of an answer that is asked for after this call: see
    /// [`is_current`](Self::is_current). `subject_hash` is by [`hasher`](Self::hasher).
    #[must_use]
    pub fn stamp(&self, subject: &[u8], subject_hash: u64) -> Stamp {
        self.generations.stamp(&self.hash, subject, subject_hash)
    }

    /// Begins to look a subject up that has this hash by [`hasher`](Self::hasher): what the lookup
    /// will wait for is on its way from memory while the caller does something else.
    #[inline]
    pub fn search<'a>(&'a self, subject_hash: u64, pin: &'a Pin) -> Search<'a, V> {
        Search {
            interest: self,
            probe: self.table.probe(subject_hash, pin),
            pin,
        }
    }

    /// Whether an answer of `lookup` still holds: whether no subscription that could match its
    /// subject has come or gone since. One load, as long as nothing changes at all.
    #[inline(always)]
    pub fn is_current(&self, stamp: &Stamp) -> bool {
        self.generations.is_current(stamp)
    }

    fn key(&self, pattern: &[u8], shape: Option<Shape>) -> u64 {
        shape.map_or_else(
            || self.hash.hash(pattern),
            |shape| {
                let tokens = TokenHashes::of(&self.hash, pattern);
                shape.key(&self.hash, tokens.as_slice())
            },
        )
    }

    fn raise(&self, writer: &mut Writer, pattern: &[u8], shape: Option<Shape>, pin: &Pin) {
        self.generations.raise(&self.hash, pattern, shape.is_none());
        writer.changes = writer.changes.wrapping_add(1);
        if writer.changes.is_multiple_of(FLUSH_EVERY) {
            pin.flush();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // Nothing panics with the lock held but a destructor or `pattern` of the caller's.
        lock(&self.writer)
    }
}

/// A lookup that has begun.
#[must_use = "a search finds nothing before `visit`"]
pub struct Search<'a, V: Value> {
    interest: &'a Interest<V>,
    probe: Probe<'a, V>,
    pin: &'a Pin,
}

impl<V: Value> Search<'_, V> {
    /// Calls `found` with every subscription whose pattern matches `subject` (checked by
    /// [`check_subject`](crate::check_subject)), in no particular order.
    #[inline]
    pub fn visit(self, subject: &[u8], mut found: impl FnMut(&Entry<V>)) {
        let (interest, pin) = (self.interest, self.pin);
        self.probe.visit(pin, |entry| {
            if is_same(entry.pattern().as_bytes(), subject) {
                found(entry);
            }
        });
        if interest.shapes.are_any(pin) {
            let tokens = TokenHashes::of(&interest.hash, subject);
            for shape in interest.shapes.of(tokens.as_slice().len(), pin) {
                let key = shape.key(&interest.hash, tokens.as_slice());
                interest.table.probe(key, pin).visit(pin, |entry| {
                    if shape.admits(entry.pattern().as_bytes(), subject) {
                        found(entry);
                    }
                });
            }
        }
    }
}

impl<V: Value> std::fmt::Debug for Search<'_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").finish_non_exhaustive()
    }
}

impl<V: Value> std::fmt::Debug for Interest<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interest")
            .field("subscriptions", &self.len())
            .finish_non_exhaustive()
    }
}
