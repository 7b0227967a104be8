//! A slot: the newest value of one subject for one subscription.
//!
//! Two values, both behind the slot's lock: the *fresh* one, which writers replace, and the *shown*
//! one, whose bytes an open batch points at. Taking swaps them. Nobody but the reader takes, once
//! in a batch, so what it shows stays as it is until the next.

use std::ptr;
use std::sync::Arc;

use super::NoSlot;
use crate::allocation::{NoMemory, try_arc, try_arc_bytes};
use crate::arena::Region;
use crate::block::{BlockRef, Descriptor};
use crate::budget::Budget;
use crate::queue::Queue;
use crate::record::{Draft, Plain, flag};
use crate::sync::{AtomicPtr, AtomicU64, Mutex, Ordering, lock};
use crate::view::{Field, View};
use crate::words::copy;
use crate::writer::Refused;

/// The smallest buffer of a value that is not empty.
const BUFFER_BYTES_MIN: usize = 64;
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

/// A message without its subject: payload, reply address, key and headers stand one after another
/// in the buffer.
#[derive(Default)]
struct Value {
    /// Grows and never shrinks.
    buffer: Region,
    payload: usize,
    reply_to: usize,
    key: usize,
    headers: usize,
    flags: u16,
    sequence: u64,
    publisher: u64,
    timestamp: u64,
    expiry: u64,
    /// Where the payload is, if not in the buffer; this is a reference to it.
    block: Option<Descriptor>,
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
        let (payload, block) = match draft.payload.try_into() {
            Ok(bytes) if draft.flags & flag::BLOCK != 0 => {
                (&[][..], Some(Descriptor::from_bytes(bytes)))
            }
            _ => (draft.payload, None),
        };
        let parts = [payload, draft.reply_to, draft.key, draft.headers];
        let size = parts.iter().map(|part| part.len()).sum();
        let mut state = lock(&self.state);
        self.make_room(&mut state.fresh, size)?;
        self.replace(queue, &mut state);
        let value = &mut state.fresh;
        let mut at = 0;
        for part in parts {
            value.write(at, part);
            at += part.len();
        }
        value.payload = payload.len();
        value.reply_to = draft.reply_to.len();
        value.key = draft.key.len();
        value.headers = draft.headers.len();
        value.flags = draft.flags;
        value.sequence = draft.sequence;
        value.publisher = publisher;
        value.timestamp = draft.timestamp;
        value.expiry = draft.expiry;
        value.block = block;
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
            self.make_room(&mut state.fresh, size)?;
        }
        self.replace(queue, &mut state);
        let value = &mut state.fresh;
        value.write(0, plain.payload);
        value.payload = size;
        (value.reply_to, value.key, value.headers) = (0, 0, 0);
        value.flags = plain.flags;
        value.sequence = plain.word;
        value.publisher = publisher;
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

    /// Makes the buffer of a value large enough; what is in it may be gone then.
    #[cold]
    fn make_room(&self, value: &mut Value, size: usize) -> Result<(), Refused> {
        if size <= value.capacity() {
            return Ok(());
        }
        let bytes = size.next_power_of_two().max(BUFFER_BYTES_MIN);
        let reserved = self.tally.budget.reserve(bytes as u64);
        reserved.map_err(|_| Refused::OverBudget)?;
        let arena = self.tally.budget.arena();
        let buffer = Region::take(arena, bytes, 0).map_err(|NoMemory| {
            self.tally.budget.release(bytes as u64);
            match arena {
                Some(_) => Refused::OverBudget,
                None => Refused::NoMemory,
            }
        })?;
        let old_bytes = value.capacity() as u64;
        value.buffer = buffer;
        self.tally.budget.release(old_bytes);
        Ok(())
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
        if state.fresh.flags & flag::EXPIRY != 0 && state.fresh.expiry < clock() {
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

impl Value {
    #[inline(always)]
    fn capacity(&self) -> usize {
        self.buffer.bytes()
    }

    fn bytes(&self) -> u64 {
        (self.payload + self.reply_to + self.key + self.headers) as u64
    }

    /// Writes bytes into the buffer, which has room for them.
    #[inline(always)]
    fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.capacity(), "no room was made");
        let target = self.buffer.base().as_ptr().wrapping_add(at);
        // SAFETY: inside the buffer, as asserted, which the caller has exclusively; a slice that is
        // borrowed now lies elsewhere.
        unsafe { copy(bytes.as_ptr(), target, bytes.len()) };
    }

    fn show(&self, view: &mut View) {
        let start = self.buffer.base().as_ptr().cast_const();
        view.payload = Field {
            data: start,
            size: self.payload,
        };
        let mut at = start.wrapping_add(self.payload);
        let mut field = |size: usize| {
            let field = Field { data: at, size };
            at = at.wrapping_add(size);
            if size == 0 { Field::EMPTY } else { field }
        };
        view.reply_to = field(self.reply_to);
        view.key = field(self.key);
        view.headers = field(self.headers);
        if self.flags & flag::SEQUENCE != 0 {
            view.sequence = self.sequence;
            view.publisher = self.publisher;
        }
        if self.flags & flag::TIMESTAMP != 0 {
            view.timestamp_ns = self.timestamp;
        }
    }

    /// Gives the block back where the payload is, if it is in one.
    #[inline(always)]
    fn release_block(&mut self, queue: &Queue) {
        if let Some(descriptor) = self.block.take() {
            queue.blocks().release(&descriptor, 1);
        }
    }

    /// Turns the reference to the block, if there is one, into one that the reader holds.
    fn take_block(&mut self, queue: &Queue) -> Option<BlockRef> {
        let descriptor = self.block.take()?;
        let block = queue.blocks().get(&descriptor);
        Some(block.expect("a block that a slot refers to is there"))
    }
}
