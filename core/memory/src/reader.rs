//! Reading a queue: batches of views in place.
//!
//! A [`ReaderGuard`] is the right to read, one at a time; it fills the queue's list of views from
//! all lanes round robin and becomes a [`Batch`]. Bytes stay in place until the batch is dropped,
//! which gives the room back. Lanes whose policy evicts are copied out instead, so that their
//! writer can evict while the batch is open.

use std::sync::Arc;

use crate::batch::Batch;
use crate::block::BlockRef;
use crate::consumer::Consumer;
use crate::fill::{Fill, expiry_of, fill_copies, fill_plain, view_of};
use crate::handed::Handed;
use crate::latest::{LatestSlot, Row, fill_latest, purge_latest};
use crate::queue::{Policy, Queue, ReadEnd};
use crate::record::RecordError;
use crate::replay::{KeptMessage, fill_replays};
use crate::sync::{Ordering, lock};
use crate::view::{Numbers, View, Visit};

/// Most messages in one batch.
pub const BATCH_MESSAGES_MAX: usize = 4096;
/// Looks of one `fill` at lanes whose records all give no view.
const LOOKS_MAX: u32 = 4096;
/// Looks at several lanes after which the shared one is given back if it is idle.
const FILLS_BEFORE_TRIM: u32 = 1024;
/// Empty looks after which the shared lane's memory is given back.
const EMPTIES_BEFORE_TRIM: u32 = 64;

/// The reader's state; owned by the queue, used by whoever holds the right to read.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) lanes: Vec<ReadEnd>,
    pub(crate) start: usize,
    pub(crate) views: Vec<View>,
    pub(crate) blocks: Vec<BlockRef>,
    /// Slots of a latest queue that have changed and are not yet in a batch.
    pub(crate) changed: Row,
    /// Those that the views show.
    pub(crate) shown: Vec<Arc<LatestSlot>>,
    /// Last values that the views show.
    pub(crate) kept: Vec<Arc<KeptMessage>>,
    /// Messages from other queues that the views show.
    pub(crate) handed: Vec<Handed>,
    /// Copies of records from evicting lanes; never grown while a view points into it.
    pub(crate) copies: Vec<u64>,
    pub(crate) incoming_seen: u32,
    pub(crate) empties: u32,
    pub(crate) fills: u32,
    /// The last look found an empty lane whose writer is gone.
    pub(crate) has_orphan: bool,
}

/// Why there is no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillError {
    /// The memory of a lane is damaged.
    Damaged(RecordError),
    /// Messages wait, and there is no memory for their views; they stay.
    NoMemory,
}

/// The right to read a queue.
#[derive(Debug)]
pub struct ReaderGuard<'q> {
    queue: &'q Queue,
    is_kept: bool,
}

impl<'q> ReaderGuard<'q> {
    pub(crate) fn new(queue: &'q Queue) -> Self {
        Self {
            queue,
            is_kept: false,
        }
    }

    pub(crate) fn state(&mut self) -> &mut Reader {
        // SAFETY: this guard is the proof that the right to read is ours, and `&mut self` that no
        // other reference from here is alive.
        unsafe { self.queue.reader_state() }
    }

    /// Adds up to `limit` waiting messages to the batch being made and returns how many it has now.
    ///
    /// `clock` gives monotonic nanoseconds; it is asked only for a message that can expire. `visit`
    /// may change a message's numbers, and leaves it out by returning false; it sees requests that
    /// have expired, too, which are left out whatever it returns.
    ///
    /// # Errors
    /// A lane is damaged: the messages before it stay. Or there is no memory to make a batch.
    #[inline(always)]
    pub fn fill(
        &mut self,
        limit: usize,
        clock: &dyn Fn() -> u64,
        mut visit: impl FnMut(&mut Visit<'_>) -> bool,
    ) -> Result<usize, FillError> {
        let limit = limit.clamp(1, BATCH_MESSAGES_MAX);
        let replays = self.queue.replays();
        let result = if replays.begin_look() {
            self.fill_replays(limit, clock, &mut visit)
        } else if self.queue.policy() == Policy::Latest {
            self.fill_latest(limit, clock, &mut visit)
        } else {
            self.fill_lanes(limit, clock, &mut visit)
        };
        replays.end_look();
        result
    }

    /// As `fill`, from the lanes.
    #[inline(always)]
    fn fill_lanes<V: FnMut(&mut Visit<'_>) -> bool>(
        &mut self,
        limit: usize,
        clock: &dyn Fn() -> u64,
        visit: &mut V,
    ) -> Result<usize, FillError> {
        let queue = self.queue;
        let reader = self.state();
        let adopted = queue.adopt(&mut reader.incoming_seen, &mut reader.lanes);
        let before = reader.views.len();
        let mut fill = Fill {
            limit,
            clock,
            visit,
            expired: 0,
            skipped: 0,
            waiting: 0,
            is_refused: adopted.is_err(),
            gap_at: 0,
        };
        let mut result = Ok(());
        if reader.has_orphan {
            reader.retire_orphans(queue);
        }
        for _ in 0..LOOKS_MAX {
            let skipped = fill.skipped;
            let looked = reader.look(queue, &mut fill);
            result = result.and(looked);
            // Records that gave no view must not keep the room, nor hide what waits behind them.
            if fill.skipped == skipped || !reader.views.is_empty() {
                break;
            }
            reader.release();
            queue.notify_writers();
        }
        let count = reader.lanes.len();
        if count > 1 {
            // A shared lane that everybody has left costs a look each time.
            reader.fills = reader.fills.wrapping_add(1);
            if reader.fills.is_multiple_of(FILLS_BEFORE_TRIM) {
                queue.trim_shared();
            }
            reader.start = if reader.start + 1 < count {
                reader.start + 1
            } else {
                0
            };
        }
        let total = reader.views.len();
        if total == before {
            if reader.has_orphan {
                reader.retire_orphans(queue);
            }
            reader.empties = reader.empties.saturating_add(1);
            if reader.empties == EMPTIES_BEFORE_TRIM {
                queue.trim_shared();
            }
        } else {
            reader.empties = 0;
        }
        let counters = queue.counters();
        counters.load.store(fill.waiting, Ordering::Relaxed);
        let delivered = counters.delivered.load(Ordering::Relaxed) + (total - before) as u64;
        counters.delivered.store(delivered, Ordering::Relaxed);
        if fill.waiting > counters.high_water.load(Ordering::Relaxed) {
            counters.high_water.store(fill.waiting, Ordering::Relaxed);
        }
        if fill.expired > 0 {
            let expired = counters.expired.load(Ordering::Relaxed) + fill.expired;
            counters.expired.store(expired, Ordering::Relaxed);
        }
        if fill.is_refused && total == 0 {
            return Err(FillError::NoMemory);
        }
        result.map(|()| total).map_err(FillError::Damaged)
    }

    /// As `fill`, first from the last values.
    #[cold]
    #[inline(never)]
    fn fill_replays(
        &mut self,
        limit: usize,
        clock: &dyn Fn() -> u64,
        visit: &mut dyn FnMut(&mut Visit<'_>) -> bool,
    ) -> Result<usize, FillError> {
        let queue = self.queue;
        let reader = self.state();
        let before = reader.views.len();
        let (expired, result) = fill_replays(queue, reader, limit, clock, visit);
        let total = reader.views.len();
        let counters = queue.counters();
        counters.add(&counters.delivered, (total - before) as u64);
        counters.add(&counters.expired, expired);
        if let Err(error) = result {
            return if total == 0 { Err(error) } else { Ok(total) };
        }
        // What is left of them comes before all else in the next batch, too.
        if total >= limit {
            Ok(total)
        } else if queue.policy() == Policy::Latest {
            self.fill_latest(limit, clock, visit)
        } else {
            self.fill_lanes(limit, clock, &mut |seen| visit(seen))
        }
    }

    #[inline(never)]
    fn fill_latest(
        &mut self,
        limit: usize,
        clock: &dyn Fn() -> u64,
        visit: &mut dyn FnMut(&mut Visit<'_>) -> bool,
    ) -> Result<usize, FillError> {
        let queue = self.queue;
        let reader = self.state();
        let before = reader.views.len();
        let (looked, result) = fill_latest(queue, reader, limit, clock, visit);
        let total = reader.views.len();
        let counters = queue.counters();
        counters.add(&counters.delivered, (total - before) as u64);
        counters.add(&counters.expired, looked.expired);
        if looked.bytes > counters.high_water.load(Ordering::Relaxed) {
            counters.high_water.store(looked.bytes, Ordering::Relaxed);
        }
        match result {
            Err(error) if total == 0 => Err(error),
            _ => Ok(total),
        }
    }

    /// Makes room for a view without a record; false: no memory.
    pub fn reserve_local(&mut self) -> bool {
        self.state().views.try_reserve(1).is_ok()
    }

    /// Adds a message that never was in a lane, such as the fate of a request. False: there is no
    /// memory for it.
    #[must_use]
    pub fn push_local(&mut self, numbers: Numbers) -> bool {
        let reader = self.state();
        if reader.views.try_reserve(1).is_err() {
            return false;
        }
        let mut view = View::EMPTY;
        view.token = numbers.token;
        view.status = numbers.status;
        view.flags = numbers.flags;
        view.subscription_id = numbers.subscription_id;
        view.tag = numbers.tag;
        reader.views.push(view);
        true
    }

    /// Adds a message from another queue, or gives it back if there is no memory.
    pub fn push_handed(&mut self, handed: Handed, id: u32, tag: u64) -> Result<(), Handed> {
        let queue = self.queue;
        let reader = self.state();
        if reader.views.try_reserve(1).is_err() || reader.handed.try_reserve(1).is_err() {
            return Err(handed);
        }
        reader.views.push(handed.view(id, tag));
        reader.handed.push(handed);
        let delivered = &queue.counters().delivered;
        delivered.store(delivered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Counts a message from another queue that has expired.
    pub fn count_expired(&mut self) {
        let expired = &self.queue.counters().expired;
        expired.store(expired.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// How many messages the batch being made has.
    pub fn count(&mut self) -> usize {
        self.state().views.len()
    }

    /// Gives the shared lane's memory back if it is idle; called before sleeping.
    pub fn trim(&mut self) {
        self.queue.trim_shared();
    }

    /// True if a look at the lanes would find something; expired messages count.
    pub fn has_waiting(&mut self) -> bool {
        let queue = self.queue;
        let reader = self.state();
        let adopted = queue.adopt(&mut reader.incoming_seen, &mut reader.lanes);
        // A lane for which there is no memory has something, or it would not be there.
        if adopted.is_err() {
            return true;
        }
        queue.replays().is_any()
            || queue.latest().has_waiting(&reader.changed)
            || reader.lanes.iter_mut().any(|lane| match lane {
                ReadEnd::Plain { consumer, .. } => !matches!(consumer.peek_step(), Ok(None)),
                ReadEnd::Evicting { consumer, .. } => {
                    !matches!(lock(consumer).peek_step(), Ok(None))
                }
            })
    }

    /// The batch of what was found.
    #[inline(always)]
    pub fn into_batch(mut self) -> Batch<'q> {
        self.is_kept = true;
        Batch::resume(self.queue)
    }

    /// Empties all lanes; `visit` sees each message, one at a time: this needs no memory. Lanes
    /// whose writer is gone are dropped.
    pub(crate) fn purge(&mut self, mut visit: impl FnMut(&View, u64)) {
        let queue = self.queue;
        let reader = self.state();
        let adopted = queue.adopt(&mut reader.incoming_seen, &mut reader.lanes);
        // A lane whose writer is still there may get one more record, and somebody must find it.
        let mut has_writer = |lane: &mut ReadEnd| match lane {
            ReadEnd::Plain { consumer, .. } => purge_lane(queue, consumer, &mut visit),
            ReadEnd::Evicting { consumer, .. } => {
                purge_lane(queue, &mut lock(consumer), &mut visit)
            }
        };
        reader.lanes.retain_mut(&mut has_writer);
        if adopted.is_err() {
            queue.retain_incoming(has_writer);
        }
        if reader.lanes.is_empty() {
            reader.lanes = Vec::new();
        }
        purge_latest(queue, reader);
        queue.replays().forget(|_| true);
        reader.kept = Vec::new();
        reader.start = 0;
        reader.views = Vec::new();
        reader.handed = Vec::new();
        reader.copies = Vec::new();
        reader.blocks = Vec::new();
        queue.notify_writers();
    }
}

/// Throws away what is in a lane; says whether more may come.
fn purge_lane(queue: &Queue, consumer: &mut Consumer, visit: &mut impl FnMut(&View, u64)) -> bool {
    while let Ok(Some(taken)) = consumer.next() {
        let address = consumer.address(&taken);
        let mut block = None;
        // A bad descriptor is an error, but not the end: behind it there may be requests.
        if let Ok((view, _)) = view_of(queue, consumer, &taken, address, &mut block, &|| 0) {
            visit(&view, expiry_of(consumer, &taken));
        }
        consumer.release();
    }
    !consumer.is_finished()
}

impl Drop for ReaderGuard<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let spares = &self.queue.blocks().spares;
            let reader = self.state();
            reader.release();
            if reader.views.capacity() > 0 {
                spares.give(&mut reader.views);
            }
            self.queue.end_reading();
        }
    }
}

impl Reader {
    /// Looks at every lane once, round robin.
    #[inline(always)]
    pub(crate) fn look<V: FnMut(&mut Visit<'_>) -> bool>(
        &mut self,
        queue: &Queue,
        fill: &mut Fill<'_, V>,
    ) -> Result<(), RecordError> {
        let count = self.lanes.len();
        let mut result = Ok(());
        self.has_orphan = false;
        fill.waiting = 0;
        for step in 0..count {
            let mut index = self.start + step;
            if index >= count {
                index -= count;
            }
            if self.views.len() >= fill.limit {
                break;
            }
            let seen = self.views.len();
            let lane = &mut self.lanes[index];
            if lane.is_early() {
                continue;
            }
            let outcome = match lane {
                ReadEnd::Plain { consumer, .. } => {
                    let outcome =
                        fill_plain(queue, consumer, &mut self.views, &mut self.blocks, fill);
                    self.has_orphan |= self.views.len() == seen && consumer.state().is_orphan();
                    outcome
                }
                ReadEnd::Evicting { consumer, .. } => {
                    let mut consumer = lock(consumer);
                    let target = (&mut self.views, &mut self.blocks, &mut self.copies);
                    let outcome = fill_copies(queue, &mut consumer, target, fill);
                    self.has_orphan |= self.views.len() == seen && consumer.state().is_orphan();
                    outcome
                }
            };
            result = result.and(outcome);
        }
        result
    }

    /// Gives back all that the views pointed at; writers hear of it by [`Queue::end_reading`].
    #[inline(always)]
    pub(crate) fn release(&mut self) {
        self.views.clear();
        if !self.shown.is_empty() {
            self.shown.clear();
        }
        if !self.kept.is_empty() {
            self.kept.clear();
        }
        if !self.handed.is_empty() {
            self.handed.clear();
        }
        if !self.blocks.is_empty() {
            self.blocks.clear();
        }
        for lane in &mut self.lanes {
            if let ReadEnd::Plain { consumer, .. } = lane {
                consumer.release();
            }
        }
    }

    #[cold]
    pub(crate) fn retire_orphans(&mut self, queue: &Queue) {
        if !self.views.is_empty() {
            return;
        }
        self.has_orphan = false;
        self.lanes.retain_mut(|lane| {
            let (state, is_finished, untold) = match lane {
                ReadEnd::Plain { consumer, .. } => {
                    consumer.release();
                    let is_finished = consumer.is_finished();
                    (consumer.state().clone(), is_finished, consumer.untold)
                }
                ReadEnd::Evicting { consumer, .. } => {
                    let mut consumer = lock(consumer);
                    let is_finished = consumer.is_finished();
                    (consumer.state().clone(), is_finished, consumer.untold)
                }
            };
            if is_finished {
                queue.retire(&state);
                if untold > 0 {
                    lock(queue.shared()).lost += untold;
                }
            }
            !is_finished
        });
        self.start = 0;
    }
}

/// Keeps the reader's lanes out of sight of the rest of the crate.
impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("lanes", &self.lanes.len())
            .finish_non_exhaustive()
    }
}

// The queue moves a reader between threads together with all that its views point at.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Arc<Queue>>();
};
