//! A queue: the lanes of its writers, drained by one reader.
//!
//! Every writer starts on the **shared lane** (a short lock) and moves to a lane of its own when it
//! has proved hot and its earlier records have left the shared lane, so that its order is kept.
//! The reader drains all lanes round robin. Nothing here sleeps: [`Gate`]s say who must be woken,
//! and the owner's [`Wake`] does it.

use std::cell::UnsafeCell;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::allocation::{NoMemory, try_arc};
use crate::batch::Batch;
use crate::block::BlockPool;
use crate::budget::Budget;
use crate::consumer::Consumer;
use crate::gate::{CLOSED, Gate};
use crate::lane::{LANE_BYTES_MAX, Label, LaneState, NoRoom, Producer, RING_BYTES_MIN, lane};
use crate::latest::Latest;
use crate::reader::{Reader, ReaderGuard};
use crate::replay::Replays;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, lock, try_lock, yield_now};
use crate::view::View;
use crate::words::{HeapWords, prefetch};

/// How many lanes of their own the writers of one queue may have at once.
pub const OWN_LANES_MAX: u32 = 64;

/// What happens to a message when its lane is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The publish is refused.
    #[default]
    Backpressure,
    /// The oldest messages of the writer's lane are dropped and counted.
    DropOldest,
    /// The new message is dropped and counted.
    DropNewest,
    /// One message for each subject of a subscription waits: the newest ([`crate::latest`]).
    Latest,
}

/// Wakes whoever sleeps at a queue; the bits are those of [`crate::gate`].
pub trait Wake: Send + Sync {
    /// Records have come, or the queue was closed.
    fn wake_reader(&self, bits: u32);
    /// Room has come, or the queue was closed.
    fn wake_writers(&self, bits: u32);
}

/// What a queue is made of.
pub struct QueueOptions {
    /// What happens when a lane is full.
    pub policy: Policy,
    /// Bytes per lane at most; rounded up to a power of two.
    pub capacity: u64,
    /// The memory cap.
    pub budget: Arc<Budget>,
    /// Where large payloads lie.
    pub blocks: Arc<BlockPool>,
    /// Who is woken.
    pub wake: Box<dyn Wake>,
}

/// Who has the right to read: nobody; a reader; somebody who only looks whether there is something.
const FREE: u32 = 0;
const READING: u32 = 1;
const PEEKING: u32 = 2;

/// Another thread is receiving from this queue, or a batch of it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderBusy;

/// Figures of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatistics {
    /// Lanes that exist now.
    pub lanes: u32,
    /// Messages written, those dropped at the door not counted.
    pub published: u64,
    /// Messages given to the reader.
    pub delivered: u64,
    /// Messages dropped: refused at the door by `drop_newest`, or evicted.
    pub dropped: u64,
    /// Messages that expired before they were read.
    pub expired: u64,
    /// Messages that wait or are in an open batch.
    pub pending: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// The largest number of bytes that the reader has seen waiting.
    pub high_water_bytes: u64,
    /// Times that a lock was taken for the shared lane.
    pub locks: u64,
    /// Messages of a latest queue in whose place a newer one came before they were read.
    pub replaced: u64,
}

/// The shared lane: a lane whose producer is behind a lock.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) end: Option<WriteEnd>,
    /// Bytes promised to all-or-nothing publishes that have not written yet.
    pub(crate) reserved: u64,
    /// Losses of writers that are gone; the next record tells them.
    pub(crate) lost: u64,
    pub(crate) locks: u64,
}

/// A lane seen from its writer; an evicting policy needs the other end too.
pub(crate) struct WriteEnd {
    pub(crate) producer: Producer,
    pub(crate) evict: Option<Arc<Mutex<Consumer>>>,
}

/// A lane seen from the reader; on cache lines of its own.
#[repr(align(128))]
pub(crate) enum ReadEnd {
    /// Records are read in place.
    Plain {
        /// The consumer.
        consumer: Consumer,
        /// The writer's earlier records, which must leave first.
        after: Option<After>,
    },
    /// Records may be evicted by the writer: the reader locks, copies out, and lets go.
    Evicting {
        /// The consumer, shared with the evicting writer.
        consumer: Arc<Mutex<Consumer>>,
        /// The writer's earlier records, which must leave first.
        after: Option<After>,
    },
}

/// A lane and how many of its records must have left it.
#[derive(Clone, Debug)]
pub(crate) struct After {
    pub(crate) state: Arc<LaneState>,
    pub(crate) count: u64,
}

impl ReadEnd {
    /// True while the lane must wait for its writer's earlier records elsewhere.
    #[inline(always)]
    pub(crate) fn is_early(&mut self) -> bool {
        let (Self::Plain { after, .. } | Self::Evicting { after, .. }) = self;
        let Some(condition) = after else { return false };
        if condition.state.gone() < condition.count {
            return true;
        }
        *after = None;
        false
    }
}

#[derive(Default)]
struct Registry {
    lanes: Vec<Arc<LaneState>>,
    retired_pushed: u64,
    retired_dropped: u64,
}

#[derive(Default)]
pub(crate) struct ReaderCounters {
    pub(crate) delivered: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) high_water: AtomicU64,
    pub(crate) load: AtomicU64,
}

impl ReaderCounters {
    /// Counts; only the reader does.
    pub(crate) fn add(&self, counter: &AtomicU64, by: u64) {
        counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }
}

/// A place where messages wait. Shared by writers ([`crate::LaneWriter`]) and one reader at a time.
pub struct Queue {
    policy: Policy,
    capacity: u64,
    budget: Arc<Budget>,
    blocks: Arc<BlockPool>,
    wake: Box<dyn Wake>,
    readers: Gate,
    writers: Gate,
    shared: Mutex<Shared>,
    incoming: Mutex<Vec<ReadEnd>>,
    incoming_count: AtomicU32,
    own_lanes: AtomicU32,
    registry: Mutex<Registry>,
    latest: Latest,
    /// Its reader writes there whenever it looks.
    replays: CachePadded<Replays>,
    counters: CachePadded<ReaderCounters>,
    reading: AtomicU32,
    /// When the last batch was received, in Unix nanoseconds; 0: nobody asked.
    received_ns: AtomicU64,
    reader: UnsafeCell<Reader>,
}

// SAFETY: `reader` is only touched by whoever has taken `reading` from FREE; all else is Sync.
unsafe impl Sync for Queue {}
// SAFETY: a reader's views point into lanes and buffers that the queue owns and moves with.
unsafe impl Send for Queue {}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// Makes a queue; no lane exists before the first message.
    pub fn new(options: QueueOptions) -> Self {
        let capacity = options
            .capacity
            .clamp(RING_BYTES_MIN, LANE_BYTES_MAX)
            .next_power_of_two();
        Self {
            policy: options.policy,
            capacity,
            budget: options.budget,
            blocks: options.blocks,
            wake: options.wake,
            readers: Gate::default(),
            writers: Gate::default(),
            shared: Mutex::new(Shared::default()),
            incoming: Mutex::new(Vec::new()),
            incoming_count: AtomicU32::new(0),
            own_lanes: AtomicU32::new(0),
            registry: Mutex::new(Registry::default()),
            latest: Latest::default(),
            replays: CachePadded::new(Replays::default()),
            counters: CachePadded::new(ReaderCounters::default()),
            reading: AtomicU32::new(FREE),
            received_ns: AtomicU64::new(0),
            reader: UnsafeCell::new(Reader::default()),
        }
    }

    /// The policy.
    #[inline(always)]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Bytes per lane at most.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The block pool of this queue's payloads.
    #[inline(always)]
    pub fn blocks(&self) -> &Arc<BlockPool> {
        &self.blocks
    }

    /// When the last batch was received, in Unix nanoseconds; 0 if nobody noted it.
    pub fn received_ns(&self) -> u64 {
        self.received_ns.load(Ordering::Relaxed)
    }

    /// Notes when a batch was received; its receiver calls this.
    pub fn note_received(&self, unix_ns: u64) {
        self.received_ns.store(unix_ns, Ordering::Relaxed);
    }

    /// The gate where the reader sleeps.
    pub fn readers(&self) -> &Gate {
        &self.readers
    }

    /// The gate where writers wait for room.
    pub fn writers(&self) -> &Gate {
        &self.writers
    }

    /// True after [`Queue::close`].
    pub fn is_closed(&self) -> bool {
        self.readers.is_closed()
    }

    /// The reader's estimate of the bytes that waited when it last looked.
    #[inline(always)]
    pub fn load_hint(&self) -> u64 {
        self.counters.load.load(Ordering::Relaxed)
    }

    pub(crate) fn counters(&self) -> &ReaderCounters {
        &self.counters
    }

    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The slots, for the policy that has them.
    #[inline(always)]
    pub(crate) fn latest(&self) -> &Latest {
        &self.latest
    }

    /// Last values on their way.
    #[inline(always)]
    pub(crate) fn replays(&self) -> &Replays {
        &self.replays
    }

    pub(crate) fn shared(&self) -> &Mutex<Shared> {
        &self.shared
    }

    /// Makes a lane and hands its reading end to the reader, who reads it only `after`.
    pub(crate) fn new_lane(
        &self,
        label: Option<Label>,
        after: Option<After>,
    ) -> Result<WriteEnd, NoRoom> {
        let (producer, consumer) =
            lane::<HeapWords>(self.capacity, label, Some(self.budget.clone()))?;
        let (read, evict) = match self.policy {
            Policy::DropOldest => {
                let consumer = try_arc(Mutex::new(consumer))?;
                let read = ReadEnd::Evicting {
                    consumer: consumer.clone(),
                    after,
                };
                (read, Some(consumer))
            }
            _ => (ReadEnd::Plain { consumer, after }, None),
        };
        let mut incoming = lock(&self.incoming);
        let mut registry = lock(&self.registry);
        if registry.lanes.try_reserve(1).is_err() || incoming.try_reserve(1).is_err() {
            return Err(NoRoom::NoMemory);
        }
        registry.lanes.push(producer.state().clone());
        drop(registry);
        incoming.push(read);
        // Under the lock, so that the reader never sees a count without its lane.
        let count = self.incoming_count.load(Ordering::Relaxed);
        self.incoming_count
            .store(count.wrapping_add(1), Ordering::Release);
        Ok(WriteEnd { producer, evict })
    }

    /// Takes one of the places for own lanes.
    pub(crate) fn take_own_place(&self) -> bool {
        let taken = self
            .own_lanes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < OWN_LANES_MAX).then_some(count + 1)
            });
        taken.is_ok()
    }

    pub(crate) fn give_own_place(&self) {
        self.own_lanes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Moves new lanes to the reader.
    #[inline(always)]
    pub(crate) fn adopt(&self, seen: &mut u32, lanes: &mut Vec<ReadEnd>) -> Result<(), NoMemory> {
        let count = self.incoming_count.load(Ordering::Acquire);
        if count != *seen {
            let mut incoming = lock(&self.incoming);
            lanes.try_reserve(incoming.len()).map_err(|_| NoMemory)?;
            lanes.append(&mut incoming);
            *seen = count;
        }
        Ok(())
    }

    /// Keeps those of the new lanes that `keep` says yes to, where there is no memory to move them.
    pub(crate) fn retain_incoming(&self, keep: impl FnMut(&mut ReadEnd) -> bool) {
        lock(&self.incoming).retain_mut(keep);
    }

    /// Takes a finished lane out of the statistics' list.
    pub(crate) fn retire(&self, state: &Arc<LaneState>) {
        let mut registry = lock(&self.registry);
        registry.lanes.retain(|lane| !Arc::ptr_eq(lane, state));
        registry.retired_pushed += state.pushed();
        registry.retired_dropped += state.dropped() + state.evicted();
    }

    /// Gives the shared lane's memory back if nothing waits in it.
    pub(crate) fn trim_shared(&self) {
        let Some(mut shared) = try_lock(&self.shared) else {
            return;
        };
        if shared.reserved == 0
            && shared
                .end
                .as_ref()
                .is_some_and(|end| end.producer.is_drained())
        {
            // The reader finds an orphan and drops the other end.
            shared.end = None;
        }
    }

    /// After records were published: wakes the reader if it sleeps.
    ///
    /// Returns false if the queue is closed: what was written may never be read.
    #[inline(always)]
    pub fn notify_reader(&self) -> bool {
        let bits = self.readers.notify();
        bits == 0 || self.wake_reader(bits)
    }

    /// Asks for the line that is looked at after a record was published.
    #[inline(always)]
    pub(crate) fn expect_notice(&self) {
        prefetch(&raw const self.readers);
    }

    /// After a record was published: true if the reader is awake and the queue open, so that there
    /// is nothing more to do. Else [`Queue::notify_reader`] comes next.
    #[inline(always)]
    pub(crate) fn needs_no_notice(&self) -> bool {
        self.readers.is_quiet()
    }

    #[cold]
    fn wake_reader(&self, bits: u32) -> bool {
        if bits & !CLOSED != 0 {
            self.wake.wake_reader(bits & !CLOSED);
        }
        bits & CLOSED == 0
    }

    /// After records were released: wakes writers that wait for room, and loops that wait for the
    /// reader.
    #[inline(always)]
    pub(crate) fn notify_writers(&self) {
        let bits = self.writers.notify();
        if bits & !CLOSED != 0 {
            self.wake.wake_writers(bits & !CLOSED);
        }
    }

    /// Takes the right to read; one at a time.
    #[inline]
    pub fn reader(&self) -> Result<ReaderGuard<'_>, ReaderBusy> {
        loop {
            let taken =
                self.reading
                    .compare_exchange(FREE, READING, Ordering::Acquire, Ordering::Relaxed);
            match taken {
                Ok(_) => return Ok(ReaderGuard::new(self)),
                // A few instructions, none of them the user's.
                Err(PEEKING) => yield_now(),
                Err(_) => return Err(ReaderBusy),
            }
        }
    }

    /// Whether a reader would find something, expired messages included; `None` while somebody
    /// reads. Disturbs no reader: one that comes meanwhile waits for the end of the look.
    pub fn has_waiting(&self) -> Option<bool> {
        self.peek_as_guard().map(|mut guard| guard.has_waiting())
    }

    fn peek_as_guard(&self) -> Option<ReaderGuard<'_>> {
        let (order, failed) = (Ordering::Acquire, Ordering::Relaxed);
        let taken = self.reading.compare_exchange(FREE, PEEKING, order, failed);
        taken.ok().map(|_| ReaderGuard::new(self))
    }

    /// Runs `body` on the reader's state, unless somebody reads. A reader that comes meanwhile
    /// waits.
    pub(crate) fn peek(&self, body: impl FnOnce(&mut Reader)) {
        if let Some(mut guard) = self.peek_as_guard() {
            body(guard.state());
        }
    }

    /// The reader's state.
    ///
    /// # Safety
    /// The caller has taken the right to read (through [`Queue::reader`]) and not yet given it
    /// back, and holds no other reference from this function.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn reader_state(&self) -> &mut Reader {
        // SAFETY: exclusive by the contract.
        unsafe { &mut *self.reader.get() }
    }

    /// Gives the right to read back, then wakes who waits for that or for the room.
    #[inline(always)]
    pub(crate) fn end_reading(&self) {
        self.latest.end_batch();
        self.reading.store(FREE, Ordering::Release);
        self.notify_writers();
    }

    /// The views of the batch that [`Batch::keep_open`] left open.
    ///
    /// # Safety
    /// A batch of this queue is open, and [`Queue::close_batch`] is not called while the returned
    /// slice is in use.
    pub unsafe fn open_views(&self) -> &[View] {
        // SAFETY: an open batch holds the right to read; nobody changes it before `close_batch`.
        unsafe { &(*self.reader.get()).views }
    }

    /// The batch that [`Batch::keep_open`] left open, as a guard again.
    ///
    /// # Safety
    /// A batch of this queue is open, nobody else turns it into a guard, and nobody uses its views
    /// after the guard is dropped.
    pub unsafe fn open_batch(&self) -> Batch<'_> {
        Batch::resume(self)
    }

    /// Closes the queue: writers find it closed, sleepers wake. Returns true the first time.
    pub fn close(&self) -> bool {
        if self.is_closed() {
            return false;
        }
        let readers = self.readers.close();
        let writers = self.writers.close();
        if readers != 0 {
            self.wake.wake_reader(readers);
        }
        if writers != 0 {
            self.wake.wake_writers(writers);
        }
        true
    }

    /// Drops what is in the lanes of a closed queue, and the lanes whose writers are gone; `visit`
    /// sees each message that is lost so. Does nothing and returns false while somebody reads or a
    /// batch is open: its holder calls again. So does a writer that was told [`Refused::Unread`],
    /// and one that goes.
    ///
    /// [`Refused::Unread`]: crate::Refused::Unread
    pub fn purge(&self, visit: impl FnMut(&View, u64)) -> bool {
        let Ok(mut reader) = self.reader() else {
            return false;
        };
        lock(&self.shared).end = None;
        reader.purge(visit);
        let mut registry = lock(&self.registry);
        let lanes = std::mem::take(&mut registry.lanes);
        for lane in lanes {
            registry.retired_pushed += lane.pushed();
            registry.retired_dropped += lane.dropped() + lane.evicted();
        }
        true
    }

    /// Figures of this queue; consistent only when nobody publishes.
    pub fn statistics(&self) -> QueueStatistics {
        let locks = lock(&self.shared).locks;
        let registry = lock(&self.registry);
        let counters = &self.counters;
        let mut statistics = QueueStatistics {
            lanes: registry.lanes.len() as u32,
            published: registry.retired_pushed,
            delivered: counters.delivered.load(Ordering::Relaxed),
            dropped: registry.retired_dropped,
            expired: counters.expired.load(Ordering::Relaxed),
            pending: 0,
            pending_bytes: 0,
            high_water_bytes: counters.high_water.load(Ordering::Relaxed),
            locks,
            replaced: 0,
        };
        if self.policy == Policy::Latest {
            let figures = self.latest.figures();
            statistics.published = figures.published;
            statistics.dropped = figures.dropped;
            statistics.replaced = figures.replaced;
            statistics.pending = figures.pending;
            statistics.pending_bytes = figures.pending_bytes;
        }
        statistics.pending += self.replays.count();
        for lane in &registry.lanes {
            // `gone` first: a record that leaves in between must not make the difference negative.
            let gone = lane.gone();
            let pushed = lane.pushed();
            statistics.published += pushed;
            statistics.pending += pushed.saturating_sub(gone);
            statistics.pending_bytes += lane.pending_bytes();
            statistics.dropped += lane.dropped() + lane.evicted();
        }
        statistics
    }
}
