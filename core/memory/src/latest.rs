//! A queue of latest values: one slot for each subject of a subscription, and a list of those that
//! have changed.
//!
//! A writer puts its update into the slot, in place of one that nobody has read; the reader takes
//! the slots that changed since it last looked, in the order in which they first did. What a batch
//! shows is the reader's: a writer never waits for one that is open.
//! Memory does not grow with the updates: a slot has two buffers, each as large as the largest
//! value it ever had. Slots that nobody uses are dropped when there are twice as many as last time.
//!
//! Invariant: a value that waits is in a slot that stands in the list, once. Both change under the
//! slot's lock, so that a put which has returned is found by every look that starts afterwards.

mod changed;
mod slot;

use std::collections::HashMap;
use std::sync::Arc;

use crate::allocation::try_arc;
use crate::budget::Budget;
use crate::fill::more_views;
use crate::queue::{Policy, Queue};
use crate::reader::{FillError, Reader};
use crate::record::{Draft, Plain};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::view::{View, Visit};
use crate::writer::{Pushed, Refused};

pub(crate) use changed::{Changed, Row};
pub(crate) use slot::LatestSlot;
use slot::{Figures, Taken, Tally};

/// Slots that a queue may have.
pub const SUBJECTS_MAX: u64 = if cfg!(test) { 4096 } else { 1 << 20 };
/// Slots that a queue has before it first looks for unused ones.
const SWEEP_FIRST: u64 = 1024;
/// Refusals between two looks for unused slots.
const REFUSALS_PER_SWEEP: u64 = 1024;
/// Views by which a list that is full grows.
const VIEWS_MORE: usize = 64;
/// Looks of one `fill` at slots whose values all give no view.
const LOOKS_MAX: u32 = 64;

/// Why a subject has no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// The queue has [`SUBJECTS_MAX`] already.
    TooMany,
    /// The memory cap does not allow it.
    OverBudget,
    /// The allocator had no memory.
    NoMemory,
}

/// The slots of a queue.
pub(crate) struct Latest {
    index: Mutex<Index>,
    changed: Changed,
    /// Values in the open batch.
    shown: AtomicU64,
}

/// The slots by subscription and subject.
#[derive(Default)]
struct Index {
    slots: HashMap<u32, HashMap<Arc<[u8]>, Arc<LatestSlot>>>,
    /// There once there was a slot.
    tally: Option<Arc<Tally>>,
    sweep_at: u64,
    refusals: u64,
    /// What slots that are gone have counted.
    retired: Figures,
}

/// A writer's way to one slot.
#[derive(Clone, Debug)]
pub struct SlotWriter {
    slot: Arc<LatestSlot>,
    queue: Arc<Queue>,
    /// Who counts the sequences; 0: nobody.
    publisher: u64,
}

impl Default for Latest {
    fn default() -> Self {
        Self {
            index: Mutex::new(Index::default()),
            changed: Changed::default(),
            shown: AtomicU64::new(0),
        }
    }
}

impl Latest {
    fn slot(
        &self,
        budget: &Arc<Budget>,
        subscription: u32,
        subject: &[u8],
    ) -> Result<Arc<LatestSlot>, NoSlot> {
        let mut index = lock(&self.index);
        let known = index.slots.get(&subscription);
        if let Some(slot) = known.and_then(|slots| slots.get(subject)) {
            return Ok(slot.clone());
        }
        let tally = match &index.tally {
            Some(tally) => tally.clone(),
            None => {
                let tally = try_arc(Tally::new(budget.clone()));
                let tally = tally.map_err(|_| NoSlot::NoMemory)?;
                index.tally.insert(tally).clone()
            }
        };
        if tally.count() >= index.sweep_at.clamp(SWEEP_FIRST, SUBJECTS_MAX) {
            index.make_room(&tally)?;
        }
        let slot = LatestSlot::new(&tally, subscription, subject)?;
        index.add(slot.clone())?;
        Ok(slot)
    }

    /// Forgets the slots of a subscription.
    fn forget(&self, subscription: u32) {
        let mut index = lock(&self.index);
        let gone = index.slots.remove(&subscription);
        for slot in gone.iter().flat_map(HashMap::values) {
            index.retired.retire(&slot.figures());
        }
        drop(index);
        drop(gone);
    }

    /// Forgets all slots.
    pub(crate) fn forget_all(&self) {
        let mut index = lock(&self.index);
        let gone = std::mem::take(&mut index.slots);
        for slot in gone.values().flat_map(HashMap::values) {
            index.retired.retire(&slot.figures());
        }
        drop(index);
        drop(gone);
    }

    pub(crate) fn figures(&self) -> Figures {
        let index = lock(&self.index);
        let mut figures = index.retired;
        for slot in index.slots.values().flat_map(HashMap::values) {
            figures.add(&slot.figures());
        }
        figures.pending += self.shown.load(Ordering::Relaxed);
        figures
    }

    /// The batch that showed values has ended.
    #[inline(always)]
    pub(crate) fn end_batch(&self) {
        if self.shown.load(Ordering::Relaxed) > 0 {
            self.shown.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a look would find something.
    pub(crate) fn has_waiting(&self, row: &Row) -> bool {
        !row.is_empty() || !self.changed.is_empty()
    }
}

impl Index {
    fn add(&mut self, slot: Arc<LatestSlot>) -> Result<(), NoSlot> {
        let refused = |_| NoSlot::NoMemory;
        self.slots.try_reserve(1).map_err(refused)?;
        let slots = self.slots.entry(slot.subscription()).or_default();
        let reserved = slots.try_reserve(1).map_err(refused);
        if reserved.is_err() && slots.is_empty() {
            self.slots.remove(&slot.subscription());
        }
        reserved?;
        if let Some(slots) = self.slots.get_mut(&slot.subscription()) {
            slots.insert(slot.subject().clone(), slot);
        }
        Ok(())
    }

    /// Looks for slots that nobody uses; an error if there are as many as there may be after that.
    fn make_room(&mut self, tally: &Tally) -> Result<(), NoSlot> {
        // Many refusals pay for one look.
        if tally.count() < SUBJECTS_MAX || self.refusals.is_multiple_of(REFUSALS_PER_SWEEP) {
            self.sweep();
            self.sweep_at = 2 * tally.count();
        }
        if tally.count() >= SUBJECTS_MAX {
            self.refusals += 1;
            return Err(NoSlot::TooMany);
        }
        Ok(())
    }

    /// Drops the slots that nobody but this index holds.
    fn sweep(&mut self) {
        let retired = &mut self.retired;
        for slots in self.slots.values_mut() {
            slots.retain(|_, slot| {
                // Nobody gets at it without the index, which is locked.
                let is_used = Arc::strong_count(slot) > 1;
                if !is_used {
                    retired.retire(&slot.figures());
                }
                is_used
            });
        }
        self.slots.retain(|_, slots| !slots.is_empty());
    }
}

impl Queue {
    /// The slot of a subject of a subscription, made if there is none, for a writer whose sequences
    /// `publisher` counts.
    ///
    /// # Errors
    /// There are too many, or no memory.
    pub fn latest_slot(
        self: &Arc<Self>,
        subscription: u32,
        subject: &[u8],
        publisher: u64,
    ) -> Result<SlotWriter, NoSlot> {
        debug_assert_eq!(self.policy(), Policy::Latest);
        Ok(SlotWriter {
            slot: self.latest().slot(self.budget(), subscription, subject)?,
            queue: self.clone(),
            publisher,
        })
    }

    /// Drops what a subscription that has ended leaves in slots. While a batch is open the reader
    /// does so when it next looks.
    pub fn forget_latest(&self, subscription: u32) {
        self.latest().forget(subscription);
        self.peek(|reader| {
            let row = &mut reader.changed;
            self.latest().changed.take(row);
            let mut kept = Row::default();
            while let Some(slot) = row.pop() {
                if slot.subscription() == subscription {
                    slot.clear(self);
                } else {
                    kept.push(slot);
                }
            }
            *row = kept;
        });
    }
}

impl SlotWriter {
    /// Puts a message in place of the one that waits, and wakes the reader if it sleeps. The
    /// message's subject is that of the slot.
    ///
    /// # Errors
    /// No memory for a larger value than there ever was: the one that waits stays. `Unread`: the
    /// queue is closed.
    #[inline(never)]
    pub fn put(&self, draft: &Draft<'_>) -> Result<Pushed, Refused> {
        self.slot.put(&self.queue, draft, self.publisher)?;
        self.notify()
    }

    /// As [`SlotWriter::put`] for a plain message.
    #[inline(always)]
    pub fn put_plain(&self, plain: &Plain<'_>) -> Result<Pushed, Refused> {
        self.slot.put_plain(&self.queue, plain, self.publisher)?;
        self.notify()
    }

    /// Counts updates that were replaced before they came here.
    pub fn note_replaced(&self, updates: u64) {
        self.slot.note_replaced(updates);
    }

    /// Counts an update that could not be put.
    pub fn count_dropped(&self) {
        self.slot.count_dropped();
    }

    #[inline(always)]
    fn notify(&self) -> Result<Pushed, Refused> {
        if self.queue.notify_reader() {
            Ok(Pushed::Written)
        } else {
            Err(Refused::Unread)
        }
    }
}

/// What came of a look at the slots that changed.
#[derive(Default)]
pub(crate) struct Looked {
    pub(crate) expired: u64,
    /// Bytes of the values that were taken.
    pub(crate) bytes: u64,
}

/// Adds a view for each slot that changed, up to `limit`, unless the batch shows some already: a
/// slot is in a batch once.
#[inline(never)]
pub(crate) fn fill_latest(
    queue: &Queue,
    reader: &mut Reader,
    limit: usize,
    clock: &dyn Fn() -> u64,
    visit: &mut dyn FnMut(&mut Visit<'_>) -> bool,
) -> (Looked, Result<(), FillError>) {
    let mut looked = Looked::default();
    let mut result = Ok(());
    if !reader.shown.is_empty() {
        return (looked, result);
    }
    for _ in 0..LOOKS_MAX {
        queue.latest().changed.take(&mut reader.changed);
        if reader.changed.is_empty() {
            break;
        }
        result = show(queue, reader, limit, clock, visit, &mut looked);
        if !reader.shown.is_empty() || result.is_err() {
            break;
        }
    }
    let shown = reader.shown.len() as u64;
    queue.latest().shown.store(shown, Ordering::Relaxed);
    (looked, result)
}

fn show(
    queue: &Queue,
    reader: &mut Reader,
    limit: usize,
    clock: &dyn Fn() -> u64,
    visit: &mut dyn FnMut(&mut Visit<'_>) -> bool,
    looked: &mut Looked,
) -> Result<(), FillError> {
    while reader.views.len() < limit && !reader.changed.is_empty() {
        // Before a value is taken, which then has to be shown.
        if reader.shown.len() == reader.shown.capacity()
            && reader.shown.try_reserve(VIEWS_MORE).is_err()
            || reader.views.len() == reader.views.capacity()
                && !more_views(queue, &mut reader.views)
            || reader.blocks.try_reserve(1).is_err()
        {
            return Err(FillError::NoMemory);
        }
        let Some(slot) = reader.changed.pop() else {
            break;
        };
        let mut view = View::EMPTY;
        match slot.take(queue, clock, &mut view) {
            Taken::Nothing => continue,
            Taken::Expired => {
                looked.expired += 1;
                continue;
            }
            Taken::Value { bytes, block } => {
                looked.bytes += bytes;
                reader.blocks.extend(block);
            }
        }
        let (is_expired, expiry_ns) = (false, u64::MAX);
        let view = &mut view;
        if visit(&mut Visit {
            view,
            is_expired,
            expiry_ns,
        }) {
            // What the view points at stays until the slot is taken again, which is after this
            // batch.
            reader.views.push(std::mem::replace(view, View::EMPTY));
            reader.shown.push(slot);
        }
    }
    Ok(())
}

/// Drops all values that wait.
pub(crate) fn purge_latest(queue: &Queue, reader: &mut Reader) {
    queue.latest().changed.take(&mut reader.changed);
    while let Some(slot) = reader.changed.pop() {
        slot.clear(queue);
    }
    reader.shown = Vec::new();
    queue.latest().end_batch();
    queue.latest().forget_all();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::block::BlockPool;
    use crate::queue::{QueueOptions, Wake};

    struct NoWake;

    impl Wake for NoWake {
        fn wake_reader(&self, _bits: u32) {}
        fn wake_writers(&self, _bits: u32) {}
    }

    fn queue() -> Arc<Queue> {
        let budget = Arc::new(Budget::new(0));
        Arc::new(Queue::new(QueueOptions {
            policy: Policy::Latest,
            capacity: 4096,
            blocks: Arc::new(BlockPool::new(budget.clone())),
            budget,
            wake: Box::new(NoWake),
        }))
    }

    fn subject(number: u64) -> [u8; 8] {
        number.to_le_bytes()
    }

    #[test]
    fn a_queue_has_so_many_slots_and_finds_place_for_more_when_some_are_unused() {
        let queue = queue();
        let slot = |number| queue.latest_slot(1, &subject(number), 0);
        let mut slots: Vec<_> = (0..SUBJECTS_MAX)
            .map(|number| slot(number).unwrap())
            .collect();
        assert_eq!(slot(SUBJECTS_MAX).unwrap_err(), NoSlot::TooMany);
        assert!(slot(0).is_ok(), "one that is there");
        slots.truncate(SUBJECTS_MAX as usize / 2);
        // Found by the next look that many refusals pay for.
        let refused = (0..2 * REFUSALS_PER_SWEEP)
            .take_while(|_| slot(SUBJECTS_MAX).is_err())
            .count() as u64;
        assert!(refused < REFUSALS_PER_SWEEP, "{refused}");
    }

    #[test]
    fn slots_that_nobody_uses_do_not_pile_up() {
        let queue = queue();
        for number in 0..10 * SUBJECTS_MAX {
            drop(queue.latest_slot(1, &subject(number), 0).unwrap());
            let index = lock(&queue.latest().index);
            let count: usize = index.slots.values().map(HashMap::len).sum();
            assert!(count as u64 <= SWEEP_FIRST);
        }
    }
}
