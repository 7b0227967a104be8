//! A lane: a single-producer single-consumer ring of records that grows by linking a larger ring.
//!
//! Invariants: only the producer writes `tail`, only the consumer writes `head`; the bytes in
//! `[head, tail)` belong to the consumer, the rest to the producer. A ring that was left behind by
//! the producer gets no more records once `next` is set; the consumer goes on when it is drained.
//! Nothing here waits or wakes: that is `queue`.

mod claim;

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::allocation::{NoMemory, try_arc};
use crate::budget::{Budget, Reservation};
use crate::consumer::Consumer;
use crate::record::{self, Draft, Plain};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, lock};
use crate::words::{Control, HeapWords, Words, prefetch};

/// Capacity of the first ring of a lane; a ring that is full is followed by one eight times as
/// large.
pub const RING_BYTES_MIN: u64 = 4 << 10;
const GROWTH: u64 = 8;
/// The largest capacity a lane may be given.
pub const LANE_BYTES_MAX: u64 = 1 << 30;

/// Why a lane has no room for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The lane is at its capacity.
    Full,
    /// The lane may grow, but the memory cap does not allow it.
    OverBudget,
    /// The lane may grow, but the allocator had no memory.
    NoMemory,
    /// The record is larger than half of the lane's capacity: it never fits.
    TooLarge,
}

impl From<NoMemory> for NoRoom {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

/// One ring of a lane; on cache lines of its own, as both ends read it for every record.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Link<W> {
    pub(crate) words: W,
    pub(crate) has_next: AtomicBool,
    pub(crate) next: Mutex<Option<Arc<Link<W>>>>,
    pub(crate) _reservation: Option<Reservation>,
}

impl<W: Words> Link<W> {
    pub(crate) fn allocate(
        capacity: u64,
        budget: Option<&Arc<Budget>>,
    ) -> Result<Arc<Self>, NoRoom> {
        let reserved = budget.map(|budget| Reservation::new(budget, capacity));
        let reservation = reserved.transpose().map_err(|_| NoRoom::OverBudget)?;
        let arena = budget.and_then(|budget| budget.arena());
        let words = W::allocate(capacity as usize, arena).map_err(|NoMemory| match arena {
            Some(_) => NoRoom::OverBudget,
            None => NoRoom::NoMemory,
        })?;
        Ok(try_arc(Self {
            words,
            has_next: AtomicBool::new(false),
            next: Mutex::new(None),
            _reservation: reservation,
        })?)
    }
}

/// What all records of a lane have in common: then they need not say it.
#[derive(Clone, Debug)]
pub struct Label {
    /// The subject.
    pub subject: Arc<[u8]>,
    /// The publisher that counts their sequences; 0: none.
    pub publisher: u64,
}

/// What both ends of a lane and the statistics share.
#[derive(Debug)]
pub struct LaneState {
    pub(crate) capacity_max: u64,
    pub(crate) budget: Option<Arc<Budget>>,
    pub(crate) label: Option<Label>,
    pub(crate) producer: CachePadded<ProducerCounters>,
    pub(crate) consumer: CachePadded<ConsumerCounters>,
    pub(crate) is_orphan: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct ProducerCounters {
    pub(crate) pushed: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct ConsumerCounters {
    pub(crate) gone: AtomicU64,
    pub(crate) gone_bytes: AtomicU64,
    pub(crate) evicted: AtomicU64,
}

impl LaneState {
    /// Records published so far.
    pub fn pushed(&self) -> u64 {
        self.producer.pushed.load(Ordering::Relaxed)
    }

    /// Records released or evicted so far. When it has reached a count of `pushed` that was read
    /// before, all those records have left the lane.
    pub fn gone(&self) -> u64 {
        self.consumer.gone.load(Ordering::Acquire)
    }

    /// Bytes of records that wait or are in an open batch.
    #[inline(always)]
    pub fn pending_bytes(&self) -> u64 {
        let gone = self.consumer.gone_bytes.load(Ordering::Relaxed);
        self.producer
            .bytes
            .load(Ordering::Relaxed)
            .saturating_sub(gone)
    }

    /// Records that the writer dropped (not those evicted).
    pub fn dropped(&self) -> u64 {
        self.producer.dropped.load(Ordering::Relaxed)
    }

    /// Records that the writer evicted.
    pub fn evicted(&self) -> u64 {
        self.consumer.evicted.load(Ordering::Relaxed)
    }

    /// The lane's own subject, if it has one.
    pub fn label(&self) -> Option<&[u8]> {
        self.label.as_ref().map(|label| &*label.subject)
    }

    /// The publisher that counts the sequences, if it is one; else 0.
    pub fn publisher(&self) -> u64 {
        self.label.as_ref().map_or(0, |label| label.publisher)
    }

    /// True when the producer is gone: what is in the lane now is all there will be.
    pub fn is_orphan(&self) -> bool {
        self.is_orphan.load(Ordering::Acquire)
    }

    pub(crate) fn count_dropped(&self, count: u64) {
        let dropped = self.producer.dropped.load(Ordering::Relaxed);
        self.producer
            .dropped
            .store(dropped + count, Ordering::Relaxed);
    }
}

/// Makes a lane of at most `capacity_max` bytes (a power of two) with its first ring.
///
/// With `label`, records carry id 0 instead of the subject text.
pub fn lane<W: Words>(
    capacity_max: u64,
    label: Option<Label>,
    budget: Option<Arc<Budget>>,
) -> Result<(Producer<W>, Consumer<W>), NoRoom> {
    debug_assert!(capacity_max.is_power_of_two() && capacity_max <= LANE_BYTES_MAX);
    let capacity = RING_BYTES_MIN.min(capacity_max);
    let link = Link::allocate(capacity, budget.as_ref())?;
    let state = try_arc(LaneState {
        capacity_max,
        budget,
        label,
        producer: CachePadded::new(ProducerCounters {
            pushed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }),
        consumer: CachePadded::new(ConsumerCounters {
            gone: AtomicU64::new(0),
            gone_bytes: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }),
        is_orphan: AtomicBool::new(false),
    })?;
    let producer = Producer {
        tail: 0,
        free_end: 0,
        half: capacity / 2,
        head_seen: 0,
        mask: capacity - 1,
        pushed: 0,
        behind: 0,
        lost: 0,
        is_labelled: state.label.is_some(),
        link: link.clone(),
        state: state.clone(),
    };
    let consumer = Consumer {
        read: 0,
        tail_seen: 0,
        mask: capacity - 1,
        released: 0,
        taken: 0,
        left_bytes: 0,
        link,
        behind: Vec::new(),
        state,
        error: None,
        untold: 0,
    };
    Ok((producer, consumer))
}

/// The writing end.
#[derive(Debug)]
pub struct Producer<W: Words = HeapWords> {
    tail: u64,
    /// Where the bytes end that are known to be free and do not wrap: what [`Producer::try_plain`]
    /// looks at. Never too far; 0 where it is not known, or where the next record tells a loss.
    free_end: u64,
    /// Half of the ring: the largest record.
    half: u64,
    head_seen: u64,
    mask: u64,
    /// Records written, published or not.
    pushed: u64,
    /// Bytes of the rings that were left behind.
    behind: u64,
    lost: u64,
    is_labelled: bool,
    link: Arc<Link<W>>,
    state: Arc<LaneState>,
}

impl<W: Words> Producer<W> {
    /// What both ends share.
    pub fn state(&self) -> &Arc<LaneState> {
        &self.state
    }

    /// Asks for the lines that lead to those of the next record.
    #[inline(always)]
    pub(crate) fn expect_far(&self) {
        prefetch(Arc::as_ptr(&self.link));
        prefetch(&raw const self.state.producer);
    }

    /// Asks for the lines that the next record is written to; `expect_far` was called a while ago.
    #[inline(always)]
    pub(crate) fn expect_near(&self) {
        self.link
            .words
            .expect_write((self.tail & self.mask) as usize);
    }

    /// Records published so far.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Bytes that `draft` would occupy here, the filler at the ring's end not counted.
    #[inline(always)]
    pub fn step(&self, draft: &Draft<'_>) -> u64 {
        (draft.length(self.is_labelled, self.lost > 0) as u64 + 7) & !7
    }

    /// Makes sure that a record of `step` bytes fits, growing the lane if need be; `spare` more
    /// bytes are kept free for others.
    #[inline(always)]
    pub fn reserve(&mut self, step: u64, spare: u64) -> Result<(), NoRoom> {
        // A record never wraps: in the worst case the rest of the ring is filled first, and that
        // rest is smaller than the record.
        let to_end = self.mask + 1 - (self.tail & self.mask);
        let need = if step <= to_end { step } else { to_end + step };
        if self.tail + need + spare - self.head_seen <= self.mask + 1 && step <= self.half {
            return Ok(());
        }
        self.reserve_slow(step, spare)
    }

    #[cold]
    fn reserve_slow(&mut self, step: u64, spare: u64) -> Result<(), NoRoom> {
        let capacity = self.mask + 1;
        if step > self.state.capacity_max / 2 {
            return Err(NoRoom::TooLarge);
        }
        if step <= capacity / 2 && self.reserve_here(step, spare).is_ok() {
            return Ok(());
        }
        self.grow(step, spare)
    }

    /// Links a ring in which the record and `spare` fit, if the capacity and the memory allow it.
    fn grow(&mut self, step: u64, spare: u64) -> Result<(), NoRoom> {
        let capacity_max = self.state.capacity_max;
        let mut capacity = self.mask + 1;
        if capacity >= capacity_max {
            return Err(NoRoom::Full);
        }
        capacity = (capacity * GROWTH).min(capacity_max);
        while capacity / 2 < step || capacity < step + spare {
            if capacity >= capacity_max {
                return Err(NoRoom::Full);
            }
            capacity *= 2;
        }
        let link = Link::allocate(capacity, self.state.budget.as_ref())?;
        // What was written and not published yet stays in the old ring.
        self.publish();
        *lock(&self.link.next) = Some(link.clone());
        // After this store the old ring gets no more records.
        self.link.has_next.store(true, Ordering::Release);
        self.link = link;
        self.mask = capacity - 1;
        self.half = capacity / 2;
        self.free_end = 0;
        self.behind += self.tail;
        self.tail = 0;
        self.head_seen = 0;
        Ok(())
    }

    /// Writes one record without publishing it. `reserve` has said yes for it.
    #[inline(always)]
    pub fn write(&mut self, draft: &Draft<'_>, subscription: u32) {
        let is_labelled = self.is_labelled;
        let length = draft.length(is_labelled, self.lost > 0);
        let step = (length as u64 + 7) & !7;
        let mut offset = (self.tail & self.mask) as usize;
        let to_end = self.mask + 1 - (self.tail & self.mask);
        if step > to_end {
            // SAFETY: `reserve` has made sure that the rest of the ring and the record are free;
            // at least 8 bytes remain, as everything is 8-aligned.
            unsafe {
                self.link
                    .words
                    .write(offset, record::skip_word(to_end as usize))
            };
            self.tail += to_end;
            offset = 0;
        }
        assert!(
            self.tail + step - self.head_seen <= self.mask + 1,
            "a record without room"
        );
        // SAFETY: `[tail, tail + step)` is free (checked above), contiguous, and the producer's.
        unsafe {
            record::encode(
                &self.link.words,
                offset,
                length,
                draft,
                subscription,
                is_labelled,
                self.lost,
            );
        }
        self.lost = 0;
        self.tail += step;
        self.pushed += 1;
    }

    /// Writes a plain message without publishing it, if that needs nothing unusual; false: use
    /// `reserve` and `write`.
    #[inline(always)]
    pub fn try_plain(&mut self, plain: &Plain<'_>, subscription: u32) -> bool {
        let length = plain.length(self.is_labelled);
        let step = (length as u64 + 7) & !7;
        if !self.has_way(step) && !self.make_way(step) {
            return false;
        }
        // SAFETY: `[tail, tail + step)` is free and contiguous: checked above or by `make_way`.
        unsafe {
            record::encode_plain(
                &self.link.words,
                (self.tail & self.mask) as usize,
                length,
                plain,
                subscription,
                self.is_labelled,
            );
        }
        self.tail += step;
        self.pushed += 1;
        true
    }

    /// As [`try_plain`](Self::try_plain) for one after the other, until one needs more; how many.
    /// None of a lane that has a label.
    #[inline(always)]
    pub fn try_plains<'p>(
        &mut self,
        plains: impl Iterator<Item = Plain<'p>>,
        subscription: u32,
    ) -> usize {
        if self.is_labelled {
            return 0;
        }
        let (mask, half) = (self.mask, self.half);
        // In registers: the compiler must think that each record may change what we own.
        let (mut tail, mut free_end) = (self.tail, self.free_end);
        let mut count = 0;
        for plain in plains {
            let length = plain.length(false);
            let step = (length as u64 + 7) & !7;
            if step > half || tail + step > free_end {
                self.tail = tail;
                if !self.make_way(step) {
                    break;
                }
                (tail, free_end) = (self.tail, self.free_end);
            }
            // SAFETY: `[tail, tail + step)` is free and contiguous: checked above or by `make_way`.
            unsafe {
                record::encode_plain(
                    &self.link.words,
                    (tail & mask) as usize,
                    length,
                    &plain,
                    subscription,
                    false,
                );
            }
            tail += step;
            count += 1;
        }
        self.tail = tail;
        self.pushed += count;
        count as usize
    }

    /// Looks at the reader's progress and fills the rest of the ring if the record does not fit
    /// there. False: the lane must grow, or is full, or a loss has to be told.
    #[cold]
    fn make_way(&mut self, step: u64) -> bool {
        let capacity = self.mask + 1;
        if self.lost > 0 || step > capacity / 2 || self.reserve_here(step, 0).is_err() {
            return false;
        }
        let to_end = capacity - (self.tail & self.mask);
        if step > to_end {
            let offset = (self.tail & self.mask) as usize;
            // SAFETY: `reserve_here` has made sure that the rest of the ring and the record are
            // free; at least 8 bytes remain, as everything is 8-aligned.
            unsafe {
                self.link
                    .words
                    .write(offset, record::skip_word(to_end as usize))
            };
            self.tail += to_end;
        }
        let lap_end = (self.tail & !self.mask) + capacity;
        self.free_end = lap_end.min(self.head_seen + capacity);
        true
    }

    /// Bytes of plain records that fit here for certain, if one of `step` bytes does; else 0.
    pub(crate) fn room(&mut self, step: u64) -> u64 {
        if !self.is_labelled || !(self.has_way(step) || self.make_way(step)) {
            return 0;
        }
        self.free_end - self.tail
    }

    /// Whether the next `step` bytes of the ring are known to be free, in one piece and no more
    /// than a record may have.
    #[inline(always)]
    fn has_way(&self, step: u64) -> bool {
        step <= self.half && self.tail + step <= self.free_end
    }

    /// True if a record of `step` bytes fits into the current ring when that is empty.
    pub(crate) fn fits_ring(&self, step: u64) -> bool {
        step <= self.half
    }

    /// Whether the record and its filler fit into the current ring.
    fn reserve_here(&mut self, step: u64, spare: u64) -> Result<(), ()> {
        let capacity = self.mask + 1;
        let to_end = capacity - (self.tail & self.mask);
        let need = if step <= to_end { step } else { to_end + step } + spare;
        if self.tail + need - self.head_seen <= capacity {
            return Ok(());
        }
        self.head_seen = self.link.words.load(Control::Head, Ordering::Acquire);
        assert!(
            self.head_seen <= self.tail,
            "the head of a lane is past its tail"
        );
        if self.tail + need - self.head_seen <= capacity {
            Ok(())
        } else {
            Err(())
        }
    }

    /// Makes everything written so far visible to the consumer.
    #[inline(always)]
    pub fn publish(&mut self) {
        let counters = &self.state.producer;
        counters.pushed.store(self.pushed, Ordering::Relaxed);
        let bytes = self.behind + self.tail;
        counters.bytes.store(bytes, Ordering::Relaxed);
        self.link
            .words
            .store(Control::Tail, self.tail, Ordering::Release);
    }

    /// Reserves, writes and publishes.
    #[inline(always)]
    pub fn push(&mut self, draft: &Draft<'_>, subscription: u32) -> Result<(), NoRoom> {
        self.reserve(self.step(draft), 0)?;
        self.write(draft, subscription);
        self.publish();
        Ok(())
    }

    /// Takes over losses of a writer that came before; the next record says so.
    pub(crate) fn add_lost(&mut self, lost: u64) {
        self.lost += lost;
        if lost > 0 {
            self.free_end = 0;
        }
    }

    /// The losses that no record has told yet, for another lane of the same writer to tell.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Counts a message that was not written; the next record says so.
    pub fn count_lost(&mut self) {
        self.lost += 1;
        self.free_end = 0;
        self.state.count_dropped(1);
    }

    /// True when the consumer has released everything.
    pub fn is_drained(&self) -> bool {
        self.state.gone() == self.pushed
    }

    /// True if no record has to tell a loss.
    #[inline(always)]
    pub(crate) fn has_told_all(&self) -> bool {
        self.lost == 0
    }

    /// Overwrites data bytes of the ring: what a hostile writer could do. For tests.
    #[doc(hidden)]
    pub fn scribble(&mut self, offset: usize, bytes: &[u8], tail: u64) {
        // SAFETY: the range check is in the words; a test runs both ends on one thread.
        unsafe { self.link.words.copy_in(offset, bytes) };
        self.link
            .words
            .store(Control::Tail, tail, Ordering::Release);
    }
}

impl<W: Words> Drop for Producer<W> {
    fn drop(&mut self) {
        self.state.is_orphan.store(true, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::record::RecordError;

    /// What a reader uses of a record, whichever path took it.
    fn take(consumer: &mut Consumer, with_plain: bool) -> Result<Option<[u64; 9]>, RecordError> {
        let mut run = consumer.plain_run(u64::MAX);
        if with_plain && let Some(plain) = run.next() {
            let taken = run.end();
            consumer.took(taken);
            return Ok(Some([
                plain.offset as u64,
                u64::from(plain.kind),
                u64::from(plain.flags),
                u64::from(plain.subscription),
                u64::from(plain.subject),
                plain.payload_at as u64,
                plain.payload_size as u64,
                plain.subject_size as u64,
                plain.word,
            ]));
        }
        let Some(taken) = consumer.next()? else {
            return Ok(None);
        };
        let parsed = taken.parsed;
        let word = match parsed.flags & (record::flag::SEQUENCE | record::flag::TOKEN) {
            0 => 0,
            flag => consumer.word(&taken, flag & flag.wrapping_neg()),
        };
        Ok(Some([
            taken.offset as u64,
            parsed.kind as u64,
            u64::from(parsed.flags),
            u64::from(parsed.subscription),
            u64::from(parsed.subject),
            u64::from(parsed.payload_at),
            u64::from(parsed.payload_size),
            u64::from(parsed.subject_size),
            word,
        ]))
    }

    #[test]
    fn the_short_path_of_the_reader_sees_what_the_long_one_sees_and_takes_nothing_else() {
        let mut state = 1_u64;
        let mut random = |end: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 33) % end
        };
        let (mut both, mut refused) = (0, 0);
        for _ in 0..20_000 {
            // First words that are nearly right, over bytes that are not.
            let mut ring = [0_u8; 256];
            ring.fill_with(|| random(256) as u8);
            for record in ring.chunks_exact_mut(32) {
                let length = 16 + random(20) as u32 - u32::from(random(8) == 0);
                record[..4].copy_from_slice(&length.to_le_bytes());
                record[4] = 1 + random(3) as u8 + u8::from(random(16) == 0);
                record[5] = u8::from(random(32) == 0);
                let flags = [0, 1, 2, 0x80, 0x81, 0x82, 3, random(0x400)][random(8) as usize];
                record[6..8].copy_from_slice(&(flags as u16).to_le_bytes());
                let subject = [0, 1, 4, 8, 9, 1025][random(6) as usize] as u32;
                record[12..16].copy_from_slice(&subject.to_le_bytes());
            }
            let [short, long] = [true, false].map(|with_plain| {
                let (mut producer, mut consumer) =
                    lane::<HeapWords>(4096, None, None).expect("memory for a ring");
                producer.scribble(0, &ring, 256);
                let mut seen = Vec::new();
                loop {
                    match take(&mut consumer, with_plain) {
                        Ok(Some(record)) => seen.push(record),
                        end => return (seen, end, consumer.held_bytes(), consumer.taken),
                    }
                }
            });
            assert_eq!(short, long);
            both += short.0.len();
            refused += usize::from(short.1.is_err());
        }
        assert!(
            both > 1000 && refused > 1000,
            "{both} taken, {refused} refused"
        );
    }
}
