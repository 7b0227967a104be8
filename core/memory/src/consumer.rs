//! The reading end of a lane.
//!
//! It trusts nothing of the memory: cursors are range-checked, headers are read once and checked
//! before use, and after an error the lane gives nothing more. Plain records have a short way of
//! their own ([`Consumer::next_plain`]); everything else goes through [`Consumer::next`].

use std::sync::Arc;

use crate::lane::{LaneState, Link};
use crate::record::{self, Kind, Parsed, RecordError};
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

/// Flags of a record that `next_plain` understands.
const PLAIN_FLAGS: u16 = record::flag::SEQUENCE | record::flag::TOKEN | record::flag::SUBJECT_ID;
/// The priority byte in a record's first word.
const PRIORITY: u64 = 0xff << 40;

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

/// The reading end.
#[derive(Debug)]
pub struct Consumer<W: Words = HeapWords> {
    pub(crate) read: u64,
    pub(crate) tail_seen: u64,
    pub(crate) mask: u64,
    pub(crate) released: u64,
    pub(crate) taken: u64,
    pub(crate) taken_bytes: u64,
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

    /// The next record, if it is a plain one that needs no further look: its offset, first two
    /// words and size. `None`: ask `next`.
    #[inline(always)]
    pub(crate) fn next_plain(&mut self) -> Option<PlainTaken> {
        if self.read == self.tail_seen {
            let tail = self.link.words.load(Control::Tail, Ordering::Acquire);
            // Nothing, or something that must be looked at with care: `next` does that.
            if tail == self.read || self.accept_tail(tail).is_err() {
                return None;
            }
        }
        let offset = (self.read & self.mask) as usize;
        let words = &self.link.words;
        // SAFETY: published, not released, 8-aligned: positions are multiples of 8, so 8 bytes
        // are there.
        let first = unsafe { words.read(offset) };
        let length = u64::from(first as u32);
        let kind = (first >> 32) as u8;
        let flags = (first >> 48) as u16;
        let step = (length + 7) & !7;
        let available = (self.tail_seen - self.read).min(self.mask + 1 - offset as u64);
        let is_plain = flags & !PLAIN_FLAGS == 0
            && kind.wrapping_sub(1) < 3
            && first & PRIORITY == 0
            && length >= record::HEADER_BYTES as u64
            && step <= available.min((self.mask >> 1) + 1);
        if !is_plain {
            return None;
        }
        // SAFETY: the record has at least 16 bytes.
        let second = unsafe { words.read(offset + 8) };
        let payload_at = record::HEADER_BYTES
            + 8 * usize::from(flags & (record::flag::SEQUENCE | record::flag::TOKEN) != 0);
        let subject = (second >> 32) as usize;
        let is_reply = kind == Kind::Reply as u8;
        let subject_size = if is_reply || flags & record::flag::SUBJECT_ID != 0 {
            0
        } else {
            // An empty subject wraps around and is refused.
            if subject.wrapping_sub(1) >= record::SUBJECT_BYTES_MAX {
                return None;
            }
            subject
        };
        let others = payload_at + subject_size;
        if others as u64 > length || (is_reply && subject > 0xffff) {
            return None;
        }
        let has_both = flags & (record::flag::SEQUENCE | record::flag::TOKEN)
            == record::flag::SEQUENCE | record::flag::TOKEN;
        if has_both || (is_reply && flags & record::flag::SUBJECT_ID != 0) {
            return None;
        }
        let word = if payload_at > record::HEADER_BYTES {
            // SAFETY: the word lies inside the record, as `others` does.
            unsafe { words.read(offset + 16) }
        } else {
            0
        };
        self.read += step;
        self.taken += 1;
        self.taken_bytes += step;
        Some(PlainTaken {
            offset,
            kind,
            flags,
            subscription: second as u32,
            subject: subject as u32,
            word,
            payload_at,
            subject_size,
            payload_size: length as usize - others,
        })
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
                    self.taken_bytes += parsed.step;
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
        let old = std::mem::replace(&mut self.link, next);
        self.behind.push(old);
        self.mask = self.link.words.capacity() as u64 - 1;
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
        self.taken_bytes -= step;
        Ok(Some(step))
    }

    /// Bytes taken and not released in the current ring.
    #[inline(always)]
    pub fn held_bytes(&self) -> u64 {
        self.read - self.released
    }

    /// True if a look has just found nothing, and nothing unusual is the reason.
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
            .store(self.taken_bytes, Ordering::Relaxed);
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
    /// Address of a plain record just taken, valid until `release`.
    #[inline(always)]
    pub(crate) fn plain_address(&self, taken: &PlainTaken) -> *const u8 {
        self.link.words.address(taken.offset)
    }

    /// Address of a taken record, valid until `release`.
    #[inline(always)]
    pub(crate) fn address(&self, taken: &Taken) -> *const u8 {
        self.link.words.address(taken.offset)
    }
}
