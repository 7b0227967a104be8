//! Interest: all subscriptions, and which of them match a subject.
//!
//! A tuple-space search. Every pattern has a shape (`pattern`), and one hash table holds them all
//! under the key of (shape, literal tokens). A lookup hashes the tokens of the subject once,
//! probes the table once for each existing shape that can match, and verifies each hit on the
//! text. Patterns without a wildcard are found by the hash of the whole subject, so a broker
//! without wildcard subscriptions does one probe for each lookup.
//!
//! Readers look at immutable snapshots and take no lock. Writers take one mutex, publish their
//! change, and then raise the generations (`stamp` has the argument for this order).
//! A subscription that stays is found by every lookup, exactly once, whatever comes and goes
//! beside it; one that comes or goes during a lookup may be found or not.
//!
//! Memory: some 40 bytes for each subscription beside `S` itself, which holds the pattern. A
//! lookup of a cold subject among a million waits for memory three times: slot, bucket, and `S`
//! (which should keep its pattern in the same allocation, or it is four).
//! What is removed is dropped later and on any thread that uses a snapshot: the destructor of `S`
//! must not lock, wait or call back.
//!
//! Not here: groups, queues and delivery; the caller sorts what a lookup gives.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fastmq_memory::snapshot::{Pin, pin};

use crate::allocation::NoMemory;
use crate::hash::SubjectHash;
use crate::pattern::{Shape, TokenHashes};
use crate::shapes::{Counts, Shapes};
use crate::stamp::{Generations, Stamp};
use crate::table::Table;

/// Changes after which retired memory is handed over, so that it does not wait for long.
const FLUSH_EVERY: u32 = 64;

/// A subscription as the interest table sees it: a cheap handle, such as an `Arc`.
pub trait Subscriber: Clone + Send + Sync + 'static {
    /// The pattern, checked by [`check_pattern`](crate::check_pattern); it never changes.
    fn pattern(&self) -> &[u8];

    /// Whether both are handles of one subscription.
    fn same(&self, other: &Self) -> bool;
}

/// The subscriptions of one broker.
pub struct Interest<S: Subscriber> {
    hash: SubjectHash,
    generations: Generations,
    table: Table<S>,
    shapes: Shapes,
    writer: Mutex<Writer>,
}

struct Writer {
    counts: Counts,
    changes: u32,
}

impl<S: Subscriber> Interest<S> {
    /// An empty table; `seed` should be random. It allocates nothing.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
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
    /// # Errors
    /// There is no memory; nothing has changed.
    pub fn insert(&self, subscription: S) -> Result<(), NoMemory> {
        let shape = Shape::of(subscription.pattern());
        let key = self.key(subscription.pattern(), shape);
        let pin = pin();
        let mut writer = self.lock();
        self.generations.prepare()?;
        if let Some(shape) = shape {
            self.shapes.insert(&mut writer.counts, shape)?;
        }
        if let Err(error) = self.table.insert(key, &subscription, &pin) {
            if let Some(shape) = shape {
                self.shapes.remove(&mut writer.counts, shape);
            }
            return Err(error);
        }
        self.raise(&mut writer, subscription.pattern(), shape, &pin);
        Ok(())
    }

    /// Removes a subscription; false if it is not there. No lookup that starts after the return
    /// finds it. Without memory the handle stays in the table, marked, until its neighbours change.
    pub fn remove(&self, subscription: &S) -> bool {
        let shape = Shape::of(subscription.pattern());
        let key = self.key(subscription.pattern(), shape);
        let pin = pin();
        let mut writer = self.lock();
        if !self.table.remove(key, subscription, &pin) {
            return false;
        }
        if let Some(shape) = shape {
            self.shapes.remove(&mut writer.counts, shape);
        }
        self.raise(&mut writer, subscription.pattern(), shape, &pin);
        true
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
    /// Aborts if `out` cannot grow; [`try_lookup`](Self::try_lookup) does not.
    pub fn lookup(&self, subject: &[u8], out: &mut Vec<S>) -> Stamp {
        let subject_hash = self.hash.hash(subject);
        self.visit(subject, subject_hash, |subscription| {
            out.push(subscription.clone());
        })
    }

    /// The same for a caller that knows the hash of the subject by [`hasher`](Self::hasher) and
    /// must not abort.
    ///
    /// # Errors
    /// There is no memory for `out`; it holds a part of the answer.
    pub fn try_lookup(
        &self,
        subject: &[u8],
        subject_hash: u64,
        out: &mut Vec<S>,
    ) -> Result<Stamp, NoMemory> {
        let mut result = Ok(());
        let stamp = self.visit(subject, subject_hash, |subscription| {
            if result.is_ok() {
                result = out.try_reserve(1).map_err(|_| NoMemory);
            }
            if result.is_ok() {
                out.push(subscription.clone());
            }
        });
        result.map(|()| stamp)
    }

    /// Whether an answer of `lookup` still holds: whether no subscription that could match its
    /// subject has come or gone since. One load, as long as nothing changes at all.
    #[inline(always)]
    pub fn is_current(&self, stamp: &Stamp) -> bool {
        self.generations.is_current(stamp)
    }

    /// Calls `found` for every match.
    #[inline]
    fn visit(&self, subject: &[u8], subject_hash: u64, mut found: impl FnMut(&S)) -> Stamp {
        // Before anything of the table is loaded.
        let stamp = self.generations.stamp(&self.hash, subject, subject_hash);
        let pin = pin();
        self.table
            .probe(subject_hash, &pin, &mut |subscription: &S| {
                if subscription.pattern() == subject {
                    found(subscription);
                }
            });
        if self.shapes.are_any(&pin) {
            let tokens = TokenHashes::of(&self.hash, subject);
            for shape in self.shapes.of(tokens.as_slice().len(), &pin) {
                let key = shape.key(&self.hash, tokens.as_slice());
                self.table.probe(key, &pin, &mut |subscription: &S| {
                    if shape.admits(subscription.pattern(), subject) {
                        found(subscription);
                    }
                });
            }
        }
        stamp
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
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> std::fmt::Debug for Interest<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interest")
            .field("subscriptions", &self.len())
            .finish_non_exhaustive()
    }
}
