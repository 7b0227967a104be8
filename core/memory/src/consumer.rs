//! The reading end of a lane.
//!
//! It trusts nothing of the memory: cursors are range-checked, headers are read once and checked
//! before use, and after an error the lane gives nothing more. Plain records have a short way of
//! their own ([`Consumer::plain_run`]); everything else goes through [`Consumer::next`].

use std::sync::Arc;

use crate::lane::{LaneState, Link};
use crate::record::{self, Kind, Parsed, RecordError, flag};
use crate::sync::{Ordering, lock};
use crate::words::{Control, HeapWords, Words};

/// A record that the consumer has taken: its header and where its bytes are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// The decoded header.
    pub(crate) parsed: Parsed,
    /// Offset of the record in the data of the current ring.
    pub(crate) offset: usize,
}

/// What a plain record may have in the upper half of its first word: the bits of a kind, no
/// priority, and these flags.
const PLAIN_BITS: u32 =
    3 | ((flag::SEQUENCE | flag::TOKEN | flag::SUBJECT_ID) as u32) << FLAGS_SHIFT;
const FLAGS_SHIFT: u32 = 16;

/// A plain record that the consumer has taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainTaken {
    pub(crate) offset: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u16,
    pub(crate) subscription: u32,
    /// Size of the subject, or its id, or a reply's status.
    pub(crate) subject: u32,
    /// The word of the only flag that has one.
    pub(crate) word: u64,
    pub(crate) payload_at: usize,
    pub(crate) payload_size: usize,
    pub(crate) subject_size: usize,
}

/// Plain records in a row: the cursor in registers, not in memory.
pub(crate) struct PlainRun<'a, W> {
    words: &'a W,
    label: &'a [u8],
    publisher: u64,
    read: u64,
    end: u64,
    stop: u64,
    capacity: u64,
    taken: u64,
}

impl<W: Words> PlainRun<'_, W> {
    /// The next record, if it is a plain one that needs no further look.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<PlainTaken> {
        if self.read >= self.stop {
            return None;
        }
        let offset = (self.read & (self.capacity - 1)) as usize;
        // SAFETY: published and not released, as `stop` is not above `end`; 8 bytes are there, as
        // positions are multiples of 8.
        let first = unsafe { self.words.read(offset) };
        let length = u64::from(first as u32);
        let bits = (first >> 32) as u32;
        let flags = (bits >> FLAGS_SHIFT) as u16;
        let kind = (bits & 3) as u8;
        let step = (length + 7) & !7;
        if bits & !PLAIN_BITS != 0
            || kind == 0
            || length < record::HEADER_BYTES as u64
            || self.read + step > self.end
            || offset as u64 + step > self.capacity
            || step > self.capacity / 2
        {
            return None;
        }
        // SAFETY: the record lies before `end` and in the ring, and has at least 16 bytes.
        let second = unsafe { self.words.read(offset + 8) };
        let subject = (second >> 32) as u32;
        let mut payload_at = record::HEADER_BYTES;
        let mut word = 0;
        if flags & (flag::SEQUENCE | flag::TOKEN) != 0 {
            payload_at += 8;
            if payload_at as u64 > length || flags & (flag::SEQUENCE | flag::TOKEN) == BOTH {
                return None;
            }
            // SAFETY: the word lies inside the record, which is there.
            word = unsafe { self.words.read(offset + record::HEADER_BYTES) };
        }
        let mut subject_size = 0;
        if kind == Kind::Reply as u8 {
            // The field is a status, and there is no subject to have an id.
            if subject > 0xffff || flags & flag::SUBJECT_ID != 0 {
                return None;
            }
        } else if flags & flag::SUBJECT_ID == 0 {
            // An empty subject wraps around and is refused.
            if subject.wrapping_sub(1) >= record::SUBJECT_BYTES_MAX as u32 {
                return None;
            }
            subject_size = subject as usize;
        }
        let others = payload_at + subject_size;
        if others as u64 > length {
            return None;
        }
        self.read += step;
        self.taken += 1;
        Some(PlainTaken {
            offset,
            kind,
            flags,
            subscription: second as u32,
            subject,
            word,
            payload_at,
            subject_size,
            payload_size: length as usize - others,
        })
    }

    /// The lane's own subject, empty if it has none.
    #[inline(always)]
    pub(crate) fn label(&self) -> &[u8] {
        self.label
    }

    /// The lane's own publisher, 0 if it has none.
    #[inline(always)]
    pub(crate) fn publisher(&self) -> u64 {
        self.publisher
    }

    /// What was taken, for [`Consumer::took`].
    #[inline(always)]
    pub(crate) fn end(self) -> (u64, u64) {
        (self.read, self.taken)
    }
}

impl PlainRun<'_, HeapWords> {
    /// Address of a record that the run has taken, valid until the consumer releases it.
    #[inline(always)]
    pub(crate) fn address(&self, taken: &PlainTaken) -> *const u8 {
        self.words.address(taken.offset)
    }
}

const BOTH: u16 = flag::SEQUENCE | flag::TOKEN;

/// The reading end.
#[derive(Debug)]
pub struct Consumer<W: Words = HeapWords> {
    pub(crate) read: u64,
    pub(crate) tail_seen: u64,
    pub(crate) mask: u64,
    pub(crate) released: u64,
    pub(crate) taken: u64,
    /// Bytes of the rings that were drained and left.
    pub(crate) left_bytes: u64,
    pub(crate) link: Arc<Link<W>>,
    /// Rings that were drained while a batch was open; freed by `release`.
    pub(crate) behind: Vec<Arc<Link<W>>>,
    pub(crate) state: Arc<LaneState>,
    pub(crate) error: Option<RecordError>,
    /// Messages lost before the next record that no message has told yet: evicted ones, and those
    /// that an evicted or skipped record would have told.
    pub(crate) untold: u64,
}

impl<W: Words> Consumer<W> {
    /// What both ends share.
    pub fn state(&self) -> &Arc<LaneState> {
        &self.state
    }

    /// The plain records that start before `stop` and are there now, to be taken one after another.
    /// Empty when there are
    /// none, or something must be looked at with care: [`Consumer::next`] does that.
    ///
    /// What the caller takes counts once it is given to [`Consumer::took`].
    #[inline(always)]
    pub(crate) fn plain_run(&mut self, stop: u64) -> PlainRun<'_, W> {
        if self.read == self.tail_seen {
            let tail = self.link.words.load(Control::Tail, Ordering::Acquire);
            if tail != self.read {
                // An error is kept, and `next` tells it.
                let _ = self.accept_tail(tail);
            }
        }
        PlainRun {
            words: &self.link.words,
            label: self.state.label().unwrap_or_default(),
            publisher: self.state.publisher(),
            read: self.read,
            end: self.tail_seen,
            stop: stop.min(self.tail_seen),
            capacity: self.mask + 1,
            taken: 0,
        }
    }

    /// Counts what a run has taken: its position and how many records.
    #[inline(always)]
    pub(crate) fn took(&mut self, (read, taken): (u64, u64)) {
        debug_assert!(read >= self.read && read <= self.tail_seen);
        self.taken += taken;
        self.read = read;
    }

    /// The next record, or `None` if there is none now. It stays in place until [`Self::release`].
    ///
    /// After an error the lane gives nothing more: what follows cannot be trusted.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Taken>, RecordError> {
        loop {
            if self.read == self.tail_seen && !self.refill()? {
                return Ok(None);
            }
            let offset = (self.read & self.mask) as usize;
            let to_end = self.mask + 1 - offset as u64;
            let available = (self.tail_seen - self.read).min(to_end);
            let words = &self.link.words;
            let parsed = record::parse(available, (self.mask >> 1) + 1, |at| {
                // SAFETY: `parse` asks only for words below `available`, which are published and
                // not released: they belong to the consumer.
                unsafe { words.read(offset + at) }
            });
            match parsed {
                Ok(parsed) => {
                    self.read += parsed.step;
                    if parsed.kind as u8 == Kind::Skip as u8 {
                        continue;
                    }
                    self.taken += 1;
                    return Ok(Some(Taken { parsed, offset }));
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    #[inline(always)]
    fn refill(&mut self) -> Result<bool, RecordError> {
        let tail = self.link.words.load(Control::Tail, Ordering::Acquire);
        if tail != self.read {
            return self.accept_tail(tail).map(|()| true);
        }
        if !self.link.has_next.load(Ordering::Acquire) {
            return match self.error {
                Some(error) => Err(error),
                None => Ok(false),
            };
        }
        self.follow()
    }

    #[inline(always)]
    fn accept_tail(&mut self, tail: u64) -> Result<(), RecordError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        // A peer's cursor is read once and range-checked.
        if tail < self.read || tail - self.released > self.mask + 1 || !tail.is_multiple_of(8) {
            return Err(self.fail(RecordError::Cursor));
        }
        self.tail_seen = tail;
        Ok(())
    }

    /// Goes on to the next ring, unless a record came into this one meanwhile.
    #[cold]
    fn follow(&mut self) -> Result<bool, RecordError> {
        // `has_next` was set after the last record of this ring was published.
        let tail = self.link.words.load(Control::Tail, Ordering::Acquire);
        if tail != self.read {
            return self.accept_tail(tail).map(|()| true);
        }
        let Some(next) = lock(&self.link.next).clone() else {
            return Ok(false);
        };
        // Without memory to keep the ring for the open batch, it is left once that is gone.
        if self.read != self.released && self.behind.try_reserve(1).is_err() {
            return Ok(false);
        }
        let old = std::mem::replace(&mut self.link, next);
        if self.read != self.released {
            self.behind.push(old);
        }
        self.mask = self.link.words.capacity() as u64 - 1;
        self.left_bytes += self.read;
        self.read = 0;
        self.released = 0;
        self.tail_seen = 0;
        let tail = self.link.words.load(Control::Tail, Ordering::Acquire);
        if tail == 0 {
            return if self.link.has_next.load(Ordering::Acquire) {
                self.follow()
            } else {
                Ok(false)
            };
        }
        self.accept_tail(tail).map(|()| true)
    }

    #[cold]
    fn fail(&mut self, error: RecordError) -> RecordError {
        self.error = Some(error);
        self.tail_seen = self.read;
        error
    }

    /// Size of the next record, if one is there, without taking it.
    pub fn peek_step(&mut self) -> Result<Option<u64>, RecordError> {
        let Some(taken) = self.next()? else {
            return Ok(None);
        };
        // A skipped filler or a followed ring stays skipped; only the record is given back.
        let step = taken.parsed.step;
        self.read -= step;
        self.taken -= 1;
        Ok(Some(step))
    }

    /// Bytes taken and not released in the current ring.
    #[inline(always)]
    pub fn held_bytes(&self) -> u64 {
        self.read - self.released
    }

    /// True if everything that was seen is taken, and neither another ring nor damage is behind
    /// it.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.read == self.tail_seen
            && !self.link.has_next.load(Ordering::Acquire)
            && self.error.is_none()
    }

    /// Bytes seen in the current ring and not released.
    #[inline(always)]
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.tail_seen - self.released
    }

    /// Capacity of the current ring.
    #[inline(always)]
    pub fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Gives everything taken back to the producer.
    #[inline(always)]
    pub fn release(&mut self) {
        if self.read != self.released {
            self.link
                .words
                .store(Control::Head, self.read, Ordering::Release);
            self.released = self.read;
        }
        if !self.behind.is_empty() {
            self.behind.clear();
        }
        let counters = &self.state.consumer;
        counters
            .gone_bytes
            .store(self.left_bytes + self.read, Ordering::Relaxed);
        counters.gone.store(self.taken, Ordering::Release);
    }

    /// Counts records that were taken only to make room; the next message tells them.
    pub(crate) fn count_evicted(&mut self, count: u64) {
        self.untold += count;
        let evicted = self.state.consumer.evicted.load(Ordering::Relaxed);
        self.state
            .consumer
            .evicted
            .store(evicted + count, Ordering::Relaxed);
    }

    /// Records published and not yet taken.
    pub fn pending(&self) -> u64 {
        self.state.pushed().saturating_sub(self.taken)
    }

    /// True when the producer is gone and everything was taken and released.
    pub fn is_finished(&mut self) -> bool {
        // Orphanhood first: what was published before it is seen by the look that follows.
        self.state.is_orphan()
            && matches!(self.peek_step(), Ok(None) | Err(_))
            && self.held_bytes() == 0
    }

    /// Reads one word of a record that `next` gave and `release` has not given back.
    #[inline(always)]
    pub(crate) fn word(&self, taken: &Taken, flag: u16) -> u64 {
        if taken.parsed.flags & flag == 0 {
            return 0;
        }
        let at = taken.offset + taken.parsed.word_at(flag);
        // SAFETY: the record was just taken from the current ring and is not released; the word
        // lies inside it (`parse` has checked the sizes).
        unsafe { self.link.words.read(at) }
    }

    /// Copies a record that `next` gave, whole, into `bytes` (of its rounded size).
    pub(crate) fn copy_record(&self, taken: &Taken, bytes: &mut [u8]) {
        assert_eq!(bytes.len() as u64, taken.parsed.step);
        // SAFETY: the record was just taken from the current ring and is not released.
        unsafe { self.link.words.copy_out(taken.offset, bytes) }
    }

    /// Copies the payload of a record that `next` gave, if it has exactly the size of `bytes`.
    pub(crate) fn copy_payload(&self, taken: &Taken, bytes: &mut [u8]) -> bool {
        let is_same = taken.parsed.payload_size as usize == bytes.len();
        if is_same {
            let at = taken.offset + taken.parsed.payload_at as usize;
            // SAFETY: the record was just taken from the current ring and is not released; its
            // payload lies inside it (`parse` has checked the sizes).
            unsafe { self.link.words.copy_out(at, bytes) };
        }
        is_same
    }

    /// Takes the next record as a copy, header included; for callers without views.
    pub fn next_copied(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Parsed>, RecordError> {
        let Some(taken) = self.next()? else {
            return Ok(None);
        };
        bytes.clear();
        bytes.resize(taken.parsed.step as usize, 0);
        self.copy_record(&taken, bytes);
        Ok(Some(taken.parsed))
    }
}

impl Consumer<HeapWords> {
    /// Address of a taken record, valid until `release`.
    #[inline(always)]
    pub(crate) fn address(&self, taken: &Taken) -> *const u8 {
        self.link.words.address(taken.offset)
    }
}
