//! A slot: the newest value of one subject for one subscription.
//!
//! Two values, both behind the slot's lock: the *fresh* one, which writers replace, and the *shown*
//! one, whose bytes an open batch points at. Taking swaps them. Nobody but the reader takes, once
//! in a batch, so what it shows stays as it is until the next.

use std::ptr;
use std::sync::Arc;

use super::NoSlot;
use crate::allocation::{try_arc, try_arc_bytes};
use crate::block::BlockRef;
use crate::budget::Budget;
use crate::queue::Queue;
use crate::record::{Draft, Plain};
use crate::sync::{AtomicPtr, AtomicU64, Mutex, Ordering, lock};
use crate::value::Value;
use crate::view::{Field, View};
use crate::writer::Refused;

/// What a slot takes beside its subject and its values: itself, the counts of two `Arc`s, its place
/// in the index.
const SLOT_BYTES: u64 = size_of::<LatestSlot>() as u64 + 64;

/// What a slot has counted, and what waits in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Updates put.
    pub(crate) published: u64,
    /// Updates in whose place a newer one came before they were read.
    pub(crate) replaced: u64,
    /// Updates for which there was no memory.
    pub(crate) dropped: u64,
    /// Values that wait.
    pub(crate) pending: u64,
    /// Their bytes.
    pub(crate) pending_bytes: u64,
}

impl Figures {
    /// Adds those of a slot that is gone: what waits in it is no longer counted.
    pub(super) fn retire(&mut self, gone: &Self) {
        self.add(&Self {
            pending: 0,
            pending_bytes: 0,
            ..*gone
        });
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.replaced += other.replaced;
        self.dropped += other.dropped;
        self.pending += other.pending;
        self.pending_bytes += other.pending_bytes;
    }
}

/// What all slots of a queue share: how many there are, and the budget.
pub(crate) struct Tally {
    budget: Arc<Budget>,
    count: AtomicU64,
}

impl Tally {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            count: AtomicU64::new(0),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A slot.
pub(crate) struct LatestSlot {
    /// The next one of the list or row that this slot is in.
    pub(super) next: AtomicPtr<LatestSlot>,
    state: Mutex<State>,
    subject: Arc<[u8]>,
    subscription: u32,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct State {
    fresh: Value,
    shown: Value,
    /// A fresh value waits, and the slot is in the list or the reader's row.
    is_listed: bool,
    /// Updates replaced or dropped since a value was last taken.
    lost: u64,
    published: u64,
    replaced: u64,
    dropped: u64,
}

/// What was in a slot.
pub(super) enum Taken {
    /// Nothing.
    Nothing,
    /// A value that has expired.
    Expired,
    /// A value of so many bytes, and the block where its payload is, if it is in one.
    Value { bytes: u64, block: Option<BlockRef> },
}

impl std::fmt::Debug for LatestSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatestSlot")
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

impl LatestSlot {
    pub(super) fn new(
        tally: &Arc<Tally>,
        subscription: u32,
        subject: &[u8],
    ) -> Result<Arc<Self>, NoSlot> {
        let refused = |_| NoSlot::NoMemory;
        let bytes = SLOT_BYTES + subject.len() as u64;
        let subject = try_arc_bytes(subject).map_err(refused)?;
        let reserved = tally.budget.reserve(bytes);
        reserved.map_err(|_| NoSlot::OverBudget)?;
        tally.count.fetch_add(1, Ordering::Relaxed);
        // From here on its drop gives both back.
        let slot = Self {
            next: AtomicPtr::new(ptr::null_mut()),
            state: Mutex::new(State::default()),
            subject,
            subscription,
            tally: tally.clone(),
        };
        try_arc(slot).map_err(refused)
    }

    pub(super) fn subject(&self) -> &Arc<[u8]> {
        &self.subject
    }

    pub(super) fn subscription(&self) -> u32 {
        self.subscription
    }

    /// Puts a value in place of the one that waits.
    pub(super) fn put(
        self: &Arc<Self>,
        queue: &Queue,
        draft: &Draft<'_>,
        publisher: u64,
    ) -> Result<(), Refused> {
        let mut state = lock(&self.state);
        state
            .fresh
            .grow(Value::size_of(draft), &self.tally.budget)?;
        self.replace(queue, &mut state);
        state.fresh.set(draft, publisher);
        self.list(queue, &mut state);
        Ok(())
    }

    /// As [`LatestSlot::put`] for a plain message.
    #[inline(always)]
    pub(super) fn put_plain(
        self: &Arc<Self>,
        queue: &Queue,
        plain: &Plain<'_>,
        publisher: u64,
    ) -> Result<(), Refused> {
        let size = plain.payload.len();
        let mut state = lock(&self.state);
        if size > state.fresh.capacity() {
            state.fresh.grow(size, &self.tally.budget)?;
        }
        self.replace(queue, &mut state);
        state.fresh.set_plain(plain, publisher);
        self.list(queue, &mut state);
        Ok(())
    }

    /// Gives up the value that waits, if one does, for another.
    #[inline(always)]
    fn replace(&self, queue: &Queue, state: &mut State) {
        state.published += 1;
        if state.is_listed {
            state.lost += 1;
            state.replaced += 1;
            state.fresh.release_block(queue);
        }
    }

    /// A value waits: the slot is in the list from now on.
    #[inline(always)]
    fn list(self: &Arc<Self>, queue: &Queue, state: &mut State) {
        if !state.is_listed {
            state.is_listed = true;
            // Under the lock: whoever replaces this value next returns to its caller after it can
            // be found.
            queue.latest().changed.push(self.clone());
        }
    }

    /// Counts updates that were replaced before they came here.
    pub(super) fn note_replaced(&self, updates: u64) {
        let mut state = lock(&self.state);
        state.lost += updates;
        state.replaced += updates;
    }

    /// Counts an update for which there was no memory.
    pub(super) fn count_dropped(&self) {
        let mut state = lock(&self.state);
        state.lost += 1;
        state.dropped += 1;
    }

    /// Takes the value out and points the view at it. What was taken before is gone then: only the
    /// reader calls this, and for a slot that no open batch shows.
    pub(super) fn take(&self, queue: &Queue, clock: &dyn Fn() -> u64, view: &mut View) -> Taken {
        let mut state = lock(&self.state);
        let state = &mut *state;
        if !std::mem::take(&mut state.is_listed) {
            return Taken::Nothing;
        }
        if state.fresh.is_expired(clock) {
            state.fresh.release_block(queue);
            return Taken::Expired;
        }
        std::mem::swap(&mut state.fresh, &mut state.shown);
        let lost = std::mem::take(&mut state.lost);
        let value = &mut state.shown;
        let block = value.take_block(queue);
        value.show(view);
        view.lost_before = u32::try_from(lost).unwrap_or(u32::MAX);
        view.subscription_id = self.subscription;
        view.subject = Field {
            data: self.subject.as_ptr(),
            size: self.subject.len(),
        };
        let mut bytes = value.bytes();
        if let Some(block) = &block {
            view.payload = Field {
                data: block.as_ptr(),
                size: block.len(),
            };
            bytes += block.len() as u64;
        }
        Taken::Value { bytes, block }
    }

    /// Drops the value that waits, and the buffers: the slot has left the list, and no batch is
    /// open.
    pub(super) fn clear(&self, queue: &Queue) {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.is_listed) {
            state.fresh.release_block(queue);
        }
        for value in [
            std::mem::take(&mut state.fresh),
            std::mem::take(&mut state.shown),
        ] {
            self.tally.budget.release(value.capacity() as u64);
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let state = lock(&self.state);
        Figures {
            published: state.published,
            replaced: state.replaced,
            dropped: state.dropped,
            pending: u64::from(state.is_listed),
            pending_bytes: if state.is_listed {
                state.fresh.bytes()
            } else {
                0
            },
        }
    }
}

impl Drop for LatestSlot {
    fn drop(&mut self) {
        let bytes = {
            let state = lock(&self.state);
            state.fresh.capacity() + state.shown.capacity()
        };
        let own = SLOT_BYTES + self.subject.len() as u64;
        self.tally.budget.release(own + bytes as u64);
        self.tally.count.fetch_sub(1, Ordering::Relaxed);
    }
}
