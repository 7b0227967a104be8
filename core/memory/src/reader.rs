//! Reading a queue: batches of views in place.
//!
//! A [`ReaderGuard`] is the right to read, one at a time; it fills the queue's list of views from
//! all lanes round robin and becomes a [`Batch`]. Bytes stay in place until the batch is dropped,
//! which gives the room back. Lanes whose policy evicts are copied out instead, so that their
//! writer can evict while the batch is open.

use std::sync::Arc;

use crate::block::{BlockRef, Descriptor};
use crate::lane::{Consumer, PlainTaken, Taken};
use crate::queue::{Queue, ReadEnd};
use crate::record::{DESCRIPTOR_BYTES, Kind, Parsed, RecordError, flag};
use crate::sync::{Ordering, lock};
use crate::view::{Field, Numbers, View, Visit, view_flag};

/// Most messages in one batch.
pub const BATCH_MESSAGES_MAX: usize = 4096;
/// Bytes copied out of evicting lanes for one batch, unless one record is larger.
const COPY_BYTES: u64 = 64 << 10;
/// Views by which a full list grows at least.
const VIEWS_MORE: usize = 16;
/// Looks of one `fill` at lanes whose records all give no view.
const LOOKS_MAX: u32 = 4096;
/// Looks at several lanes after which the shared one is given back if it is idle.
const FILLS_BEFORE_TRIM: u32 = 1024;
/// Empty looks after which the shared lane's memory is given back.
const EMPTIES_BEFORE_TRIM: u32 = 64;

/// The reader's state; owned by the queue, used by whoever holds the right to read.
#[derive(Default)]
pub(crate) struct Reader {
    lanes: Vec<ReadEnd>,
    start: usize,
    pub(crate) views: Vec<View>,
    blocks: Vec<BlockRef>,
    /// Copies of records from evicting lanes; never grown while a view points into it.
    copies: Vec<u64>,
    incoming_seen: u32,
    empties: u32,
    fills: u32,
    /// The last look found an empty lane whose writer is gone.
    has_orphan: bool,
}

/// The right to read a queue.
#[derive(Debug)]
pub struct ReaderGuard<'q> {
    queue: &'q Queue,
    is_kept: bool,
}

/// What a look at the lanes found.
struct Fill<'a, V> {
    limit: usize,
    clock: &'a dyn Fn() -> u64,
    visit: &'a mut V,
    expired: u64,
    /// Records taken that gave no view.
    skipped: u64,
    waiting: u64,
    /// Where the view stands, or will, that tells the losses which the lane has not told.
    gap_at: usize,
}

impl<'q> ReaderGuard<'q> {
    pub(crate) fn new(queue: &'q Queue) -> Self {
        Self {
            queue,
            is_kept: false,
        }
    }

    fn state(&mut self) -> &mut Reader {
        // SAFETY: this guard is the proof that `is_reading` is ours, and `&mut self` that no other
        // reference from here is alive.
        unsafe { self.queue.reader_state() }
    }

    /// Adds up to `limit` waiting messages to the batch being made and returns how many it has now.
    ///
    /// `clock` gives monotonic nanoseconds; it is asked only for a message that can expire. `visit` may
    /// change a message's numbers, and leaves it out by returning false. An error names damaged lane memory; the messages before it stay.
    #[inline(always)]
    pub fn fill(
        &mut self,
        limit: usize,
        clock: &dyn Fn() -> u64,
        mut visit: impl FnMut(&mut Visit<'_>) -> bool,
    ) -> Result<usize, RecordError> {
        let queue = self.queue;
        let reader = self.state();
        queue.adopt(&mut reader.incoming_seen, &mut reader.lanes);
        let limit = limit.clamp(1, BATCH_MESSAGES_MAX);
        let before = reader.views.len();
        let mut fill = Fill {
            limit,
            clock,
            visit: &mut visit,
            expired: 0,
            skipped: 0,
            waiting: 0,
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
            reader.release(queue);
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
        result.map(|()| total)
    }

    /// Adds a message that never was in a lane, such as the fate of a request.
    pub fn push_local(&mut self, numbers: Numbers) {
        let reader = self.state();
        if reader.views.try_reserve(1).is_err() {
            return;
        }
        let mut view = View::EMPTY;
        view.token = numbers.token;
        view.status = numbers.status;
        view.flags = numbers.flags;
        view.tag = numbers.tag;
        reader.views.push(view);
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
        queue.adopt(&mut reader.incoming_seen, &mut reader.lanes);
        reader.lanes.iter_mut().any(|lane| match lane {
            ReadEnd::Plain { consumer, .. } => !matches!(consumer.peek_step(), Ok(None)),
            ReadEnd::Evicting { consumer, .. } => !matches!(lock(consumer).peek_step(), Ok(None)),
        })
    }

    /// The batch of what was found.
    #[inline(always)]
    pub fn into_batch(mut self) -> Batch<'q> {
        self.is_kept = true;
        Batch { queue: self.queue }
    }

    /// Drops all lanes; `visit` sees each message in them first.
    pub(crate) fn purge(&mut self, mut visit: impl FnMut(&View)) {
        let queue = self.queue;
        loop {
            let found = self.fill(BATCH_MESSAGES_MAX, &|| 0, |_| true);
            let reader = self.state();
            for view in &reader.views {
                visit(view);
            }
            let count = reader.views.len() as u64;
            reader.release(queue);
            // What is thrown away was not delivered.
            let counters = queue.counters();
            let delivered = counters
                .delivered
                .load(Ordering::Relaxed)
                .saturating_sub(count);
            counters.delivered.store(delivered, Ordering::Relaxed);
            if found != Ok(0) && count > 0 {
                continue;
            }
            break;
        }
        let reader = self.state();
        reader.lanes = Vec::new();
        reader.views = Vec::new();
        reader.copies = Vec::new();
        reader.blocks = Vec::new();
    }
}

impl Drop for ReaderGuard<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let queue = self.queue;
            self.state().release(queue);
            queue.end_reading();
        }
    }
}

impl Reader {
    /// Looks at every lane once, round robin.
    #[inline(always)]
    fn look<V: FnMut(&mut Visit<'_>) -> bool>(
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

    /// Gives back all that the views pointed at.
    #[inline(always)]
    fn release(&mut self, queue: &Queue) {
        self.views.clear();
        if !self.blocks.is_empty() {
            self.blocks.clear();
        }
        for lane in &mut self.lanes {
            if let ReadEnd::Plain { consumer, .. } = lane {
                consumer.release();
            }
        }
        queue.notify_writers();
    }

    #[cold]
    fn retire_orphans(&mut self, queue: &Queue) {
        if !self.views.is_empty() {
            return;
        }
        self.has_orphan = false;
        self.lanes.retain_mut(|lane| {
            let (state, is_finished) = match lane {
                ReadEnd::Plain { consumer, .. } => {
                    consumer.release();
                    let is_finished = consumer.is_finished();
                    (consumer.state().clone(), is_finished)
                }
                ReadEnd::Evicting { consumer, .. } => {
                    let mut consumer = lock(consumer);
                    let is_finished = consumer.is_finished();
                    (consumer.state().clone(), is_finished)
                }
            };
            if is_finished {
                queue.retire(&state);
            }
            !is_finished
        });
        self.start = 0;
    }
}

#[inline(always)]
fn fill_plain<V: FnMut(&mut Visit<'_>) -> bool>(
    queue: &Queue,
    consumer: &mut Consumer,
    views: &mut Vec<View>,
    blocks: &mut Vec<BlockRef>,
    fill: &mut Fill<'_, V>,
) -> Result<(), RecordError> {
    // A batch covers at most half of a ring, so that its writer can go on meanwhile.
    let half = consumer.capacity() / 2;
    let mut result = Ok(());
    fill.gap_at = views.len();
    while views.len() < fill.limit && consumer.held_bytes() < half {
        if views.len() == views.capacity() && views.try_reserve(VIEWS_MORE).is_err() {
            break;
        }
        if let Some(plain) = consumer.next_plain() {
            add_plain(consumer, &plain, views, fill);
            continue;
        }
        if consumer.is_empty() {
            break;
        }
        match next_unusual(queue, consumer, views, blocks, fill) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    tell_lost(consumer, views, fill.gap_at);
    fill.waiting += consumer.waiting_bytes();
    result
}

/// Takes a record that is not a plain one, or follows to the next ring; false: there is none.
#[inline(never)]
fn next_unusual<V: FnMut(&mut Visit<'_>) -> bool>(
    queue: &Queue,
    consumer: &mut Consumer,
    views: &mut Vec<View>,
    blocks: &mut Vec<BlockRef>,
    fill: &mut Fill<'_, V>,
) -> Result<bool, RecordError> {
    let Some(taken) = consumer.next()? else {
        return Ok(false);
    };
    let address = consumer.address(&taken);
    add_view(queue, consumer, &taken, address, views, blocks, fill)?;
    Ok(true)
}

/// Losses that no record has told are told by the first message after the gap, if it is there yet.
#[inline(always)]
fn tell_lost(consumer: &mut Consumer, views: &mut [View], gap_at: usize) {
    if consumer.untold > 0
        && let Some(view) = views.get_mut(gap_at)
    {
        let untold = u32::try_from(std::mem::take(&mut consumer.untold)).unwrap_or(u32::MAX);
        view.lost_before = view.lost_before.saturating_add(untold);
    }
}

/// A record that gives no view leaves the losses that it tells to the next one.
#[cold]
fn pass_lost<V>(
    consumer: &mut Consumer,
    taken: &Taken,
    views: &mut [View],
    fill: &mut Fill<'_, V>,
) {
    fill.skipped += 1;
    let lost = consumer.word(taken, flag::LOST);
    if lost > 0 {
        tell_lost(consumer, views, fill.gap_at);
        consumer.untold = consumer.untold.saturating_add(lost);
        fill.gap_at = views.len();
    }
}

/// Adds the view of a plain record, made where it stays: a copy of a view would wait for its
/// stores.
#[inline(always)]
fn add_plain<V: FnMut(&mut Visit<'_>) -> bool>(
    consumer: &Consumer,
    taken: &PlainTaken,
    views: &mut Vec<View>,
    fill: &mut Fill<'_, V>,
) {
    let count = views.len();
    let Some(slot) = views.spare_capacity_mut().first_mut() else {
        return;
    };
    let payload = consumer.plain_address(taken).wrapping_add(taken.payload_at);
    let is_reply = taken.kind == Kind::Reply as u8;
    let subject = if is_reply {
        Field::EMPTY
    } else if taken.flags & flag::SUBJECT_ID != 0 {
        let label = consumer.state().label().unwrap_or(&[]);
        Field {
            data: label.as_ptr(),
            size: label.len(),
        }
    } else {
        Field {
            data: payload.wrapping_add(taken.payload_size),
            size: taken.subject_size,
        }
    };
    let has_token = taken.flags & flag::TOKEN != 0;
    // One literal with every field: a constant that is then changed would be copied by a call.
    let view = slot.write(View {
        subject,
        payload: Field {
            data: payload,
            size: taken.payload_size,
        },
        reply_to: Field::EMPTY,
        headers: Field::EMPTY,
        key: Field::EMPTY,
        sequence: if has_token { 0 } else { taken.word },
        timestamp_ns: 0,
        token: if has_token { taken.word } else { 0 },
        delivery_count: 1,
        lost_before: 0,
        status: if is_reply { taken.subject } else { 0 },
        subscription_id: taken.subscription,
        flags: if taken.kind == Kind::Request as u8 {
            view_flag::REQUEST
        } else {
            0
        },
        reserved0: 0,
        tag: 0,
        reserved1: 0,
    });
    if (fill.visit)(&mut Visit(view)) {
        // SAFETY: the element at `count` is within the capacity and was written above.
        unsafe { views.set_len(count + 1) };
    } else {
        fill.skipped += 1;
    }
}

/// As `fill_plain`, but the records are copied and given back at once.
#[inline(never)]
fn fill_copies<V: FnMut(&mut Visit<'_>) -> bool>(
    queue: &Queue,
    consumer: &mut Consumer,
    (views, blocks, copies): (&mut Vec<View>, &mut Vec<BlockRef>, &mut Vec<u64>),
    fill: &mut Fill<'_, V>,
) -> Result<(), RecordError> {
    let mut result = Ok(());
    fill.gap_at = views.len();
    while views.len() < fill.limit {
        if views.len() == views.capacity() && views.try_reserve(VIEWS_MORE).is_err() {
            break;
        }
        let step = match consumer.peek_step() {
            Ok(Some(step)) => step,
            Ok(None) => break,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        if views.is_empty() && blocks.is_empty() {
            // No view points into the copies: they may move.
            let room = (step.max(COPY_BYTES) / 8) as usize;
            copies.clear();
            if copies.try_reserve(room).is_err() {
                break;
            }
        }
        let words = (step / 8) as usize;
        if copies.capacity() - copies.len() < words {
            break;
        }
        let Ok(Some(taken)) = consumer.next() else {
            break;
        };
        let at = copies.len();
        copies.resize(at + words, 0);
        let address = copies[at..].as_mut_ptr().cast::<u8>();
        // SAFETY: `words` words were just added at `at`; u8 has no alignment or validity needs.
        let target = unsafe { std::slice::from_raw_parts_mut(address, words * 8) };
        consumer.copy_record(&taken, target);
        if let Err(error) = add_view(queue, consumer, &taken, address, views, blocks, fill) {
            result = Err(error);
            break;
        }
    }
    tell_lost(consumer, views, fill.gap_at);
    fill.waiting += consumer.waiting_bytes();
    consumer.release();
    result
}

/// Adds the view of a record whose bytes start at `address`.
#[inline(always)]
fn add_view<V: FnMut(&mut Visit<'_>) -> bool>(
    queue: &Queue,
    consumer: &mut Consumer,
    taken: &Taken,
    address: *const u8,
    views: &mut Vec<View>,
    blocks: &mut Vec<BlockRef>,
    fill: &mut Fill<'_, V>,
) -> Result<(), RecordError> {
    let parsed = &taken.parsed;
    let mut view = View::EMPTY;
    let payload = address.wrapping_add(parsed.payload_at as usize);
    let subject = payload.wrapping_add(parsed.payload_size as usize);
    view.payload = Field {
        data: payload,
        size: parsed.payload_size as usize,
    };
    view.subscription_id = parsed.subscription;
    if parsed.kind as u8 == Kind::Reply as u8 {
        view.status = parsed.subject;
    } else {
        view.subject = Field {
            data: subject,
            size: parsed.subject_size as usize,
        };
        if parsed.flags & flag::SUBJECT_ID != 0 {
            let label = consumer.state().label().unwrap_or(&[]);
            view.subject = Field {
                data: label.as_ptr(),
                size: label.len(),
            };
        }
        if parsed.kind as u8 == Kind::Request as u8 {
            view.flags = view_flag::REQUEST;
        }
    }
    if parsed.flags & flag::SEQUENCE != 0 {
        view.sequence = consumer.word(taken, flag::SEQUENCE);
    }
    if parsed.flags & flag::TOKEN != 0 {
        view.token = consumer.word(taken, flag::TOKEN);
    }
    const RARE: u16 =
        flag::EXPIRY | flag::TIMESTAMP | flag::LOST | flag::SIZES | flag::BLOCK | flag::MORE;
    if parsed.flags & RARE != 0 && !add_rare(queue, consumer, taken, &mut view, blocks, fill.clock)?
    {
        fill.expired += 1;
        pass_lost(consumer, taken, views, fill);
        return Ok(());
    }
    if (fill.visit)(&mut Visit(&mut view)) {
        views.push(view);
    } else {
        pass_lost(consumer, taken, views, fill);
    }
    Ok(())
}

/// The fields that few messages have. False: the message has expired.
#[inline(never)]
fn add_rare(
    queue: &Queue,
    consumer: &Consumer,
    taken: &Taken,
    view: &mut View,
    blocks: &mut Vec<BlockRef>,
    clock: &dyn Fn() -> u64,
) -> Result<bool, RecordError> {
    let parsed: &Parsed = &taken.parsed;
    let lost = consumer.word(taken, flag::LOST);
    view.lost_before = u32::try_from(lost).unwrap_or(u32::MAX);
    view.timestamp_ns = consumer.word(taken, flag::TIMESTAMP);
    if parsed.flags & flag::MORE != 0 {
        view.flags |= view_flag::MORE;
    }
    let mut at = view
        .payload
        .data
        .wrapping_add((parsed.payload_size + parsed.subject_size) as usize);
    let mut field = |size: u32| {
        let field = Field {
            data: at,
            size: size as usize,
        };
        at = at.wrapping_add(size as usize);
        if size == 0 { Field::EMPTY } else { field }
    };
    view.reply_to = field(parsed.reply_to_size);
    view.key = field(parsed.key_size);
    view.headers = field(parsed.headers_size);
    let block = if parsed.flags & flag::BLOCK != 0 {
        let bytes: [u8; DESCRIPTOR_BYTES] =
            view.payload().try_into().map_err(|_| RecordError::Block)?;
        Some(
            queue
                .blocks()
                .get(&Descriptor::from_bytes(&bytes))
                .ok_or(RecordError::Block)?,
        )
    } else {
        None
    };
    if parsed.flags & flag::EXPIRY != 0 && consumer.word(taken, flag::EXPIRY) < clock() {
        // Dropping the block gives its reference back.
        return Ok(false);
    }
    if let Some(block) = block {
        view.payload = Field {
            data: block.as_ptr(),
            size: block.len(),
        };
        blocks.push(block);
    }
    Ok(true)
}

/// An open batch: messages in place. One per queue; dropping it gives the room back.
#[derive(Debug)]
pub struct Batch<'q> {
    queue: &'q Queue,
}

impl<'q> Batch<'q> {
    pub(crate) fn resume(queue: &'q Queue) -> Self {
        Self { queue }
    }

    /// The messages.
    #[inline(always)]
    pub fn messages(&self) -> &[View] {
        // SAFETY: an open batch holds the right to read, so nobody changes the views.
        unsafe { self.queue.open_views() }
    }

    /// A copy of the messages that outlives the batch, or `None` without memory for it.
    pub fn detach(&self) -> Option<Detached> {
        Detached::copy(self.messages())
    }

    /// Leaves the batch open without a guard: `Queue::open_views` and `Queue::open_batch` reach it.
    pub fn keep_open(self) {
        std::mem::forget(self);
    }
}

impl Drop for Batch<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the batch holds the right to read; its views are borrowed from it and gone.
        let reader = unsafe { self.queue.reader_state() };
        reader.release(self.queue);
        self.queue.end_reading();
    }
}

/// Messages copied out of a batch, with memory of their own.
#[derive(Debug)]
pub struct Detached {
    views: Vec<View>,
    _bytes: Vec<u8>,
}

impl Detached {
    /// Copies messages, or says that there is no memory.
    pub fn copy(messages: &[View]) -> Option<Self> {
        let size = |view: &View| {
            // Payloads stay 8-aligned.
            view.payload.size.next_multiple_of(8)
                + (view.subject.size + view.reply_to.size + view.key.size + view.headers.size)
                    .next_multiple_of(8)
        };
        let total: usize = messages.iter().map(size).sum::<usize>() + 8;
        let mut bytes: Vec<u8> = Vec::new();
        bytes.try_reserve_exact(total).ok()?;
        let mut views = Vec::new();
        views.try_reserve_exact(messages.len()).ok()?;
        bytes.resize(bytes.as_ptr().align_offset(8).min(8), 0);
        for message in messages {
            let mut view = View::EMPTY;
            view.payload = append(&mut bytes, message.payload());
            bytes.resize(bytes.len() + pad(&bytes), 0);
            view.subject = append(&mut bytes, message.subject());
            view.reply_to = append(&mut bytes, message.reply_to());
            view.key = append(&mut bytes, message.key());
            view.headers = append(&mut bytes, message.headers());
            bytes.resize(bytes.len() + pad(&bytes), 0);
            view.sequence = message.sequence;
            view.timestamp_ns = message.timestamp_ns;
            view.token = message.token;
            view.delivery_count = message.delivery_count;
            view.lost_before = message.lost_before;
            view.status = message.status;
            view.subscription_id = message.subscription_id;
            view.flags = message.flags;
            view.tag = message.tag;
            views.push(view);
        }
        Some(Self {
            views,
            _bytes: bytes,
        })
    }

    /// The messages.
    pub fn messages(&self) -> &[View] {
        &self.views
    }
}

fn pad(bytes: &[u8]) -> usize {
    let end = bytes.as_ptr() as usize + bytes.len();
    end.next_multiple_of(8) - end
}

fn append(bytes: &mut Vec<u8>, field: &[u8]) -> Field {
    if field.is_empty() {
        return Field::EMPTY;
    }
    // `copy` reserved the whole size: a vector that grew would move what views point at.
    assert!(
        bytes.capacity() - bytes.len() >= field.len(),
        "a detached batch outgrew its size"
    );
    let at = bytes.len();
    bytes.extend_from_slice(field);
    Field {
        data: bytes.as_ptr().wrapping_add(at),
        size: field.len(),
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
