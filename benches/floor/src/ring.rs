//! A byte ring between two threads, with the record bytes of `docs/formats.md` §1.
//!
//! The limit that the lanes of FAST MQ are compared with: one producer, one consumer, cursors
//! cached on both sides and padded apart, `tail` published whenever the producer says so.
//! Invariant: bytes between `head` and `tail` belong to the consumer, all others to the producer.
//! Not here: validation of hostile bytes, policies, blocks, waiting. Also here, because it is the
//! other thing that needs unsafe code: [`pin`] and [`thread_time`].

use std::cell::UnsafeCell;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

/// Record kinds and flags, as `docs/formats.md` §1 numbers them.
pub(crate) const MESSAGE: u8 = 1;
pub(crate) const REQUEST: u8 = 2;
pub(crate) const REPLY: u8 = 3;
const SKIP: u8 = 4;
pub(crate) const SEQUENCE: u16 = 1 << 0;
pub(crate) const TOKEN: u16 = 1 << 1;
pub(crate) const SUBJECT_ID: u16 = 1 << 7;

const HEADER_BYTES: usize = 16;
const WORD_BYTES: usize = 8;
/// Payloads up to this size are copied in words, larger ones with memcpy.
const WORD_COPY_BYTES_MAX: usize = 128;

/// The fixed part of a record. `word` is written when `flags` has SEQUENCE or TOKEN (one of them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) flags: u16,
    pub(crate) subscription: u32,
    /// The subject's id; ignored when the record carries the subject's text.
    pub(crate) subject: u32,
    pub(crate) word: u64,
}

impl Head {
    fn has_word(&self) -> bool {
        self.flags & (SEQUENCE | TOKEN) != 0
    }
}

/// A record in place.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) head: Head,
    pub(crate) payload: &'a [u8],
    pub(crate) subject: &'a [u8],
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned(u64);

struct Shared {
    data: Box<[UnsafeCell<u64>]>,
    tail: CachePadded<AtomicU64>,
    head: CachePadded<AtomicU64>,
}

// SAFETY: `data` is written by the one `Producer` and read by the one `Consumer`, never the same
// bytes at the same time: `tail` and `head`, stored with Release and read with Acquire, hand each
// range from one to the other.
unsafe impl Sync for Shared {}

/// The writing end.
pub(crate) struct Producer {
    shared: Arc<Shared>,
    base: *mut u8,
    mask: u64,
    tail: u64,
    head_cached: u64,
}

/// The reading end.
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    base: *const u8,
    mask: u64,
    head: u64,
    tail_cached: u64,
}

// SAFETY: `base` points into `shared.data`, which the Arc keeps alive and at the same place.
unsafe impl Send for Producer {}
// SAFETY: as for `Producer`.
unsafe impl Send for Consumer {}

/// Makes a ring of `capacity` bytes, a power of two.
pub(crate) fn ring(capacity: usize) -> (Producer, Consumer) {
    assert!(
        capacity.is_power_of_two() && capacity >= 4096,
        "capacity is {capacity}"
    );
    let data: Box<[UnsafeCell<u64>]> = (0..capacity / WORD_BYTES)
        .map(|_| UnsafeCell::new(0))
        .collect();
    let shared = Arc::new(Shared {
        data,
        tail: CachePadded::default(),
        head: CachePadded::default(),
    });
    let base = shared.data.as_ptr().cast::<u8>().cast_mut();
    let mask = capacity as u64 - 1;
    let producer = Producer {
        shared: Arc::clone(&shared),
        base,
        mask,
        tail: 0,
        head_cached: 0,
    };
    (
        producer,
        Consumer {
            shared,
            base,
            mask,
            head: 0,
            tail_cached: 0,
        },
    )
}

impl Producer {
    /// Writes one record without publishing it; false when there is no room.
    #[inline(always)]
    pub(crate) fn write(&mut self, head: Head, payload: &[u8], subject: &[u8]) -> bool {
        let fixed = HEADER_BYTES + if head.has_word() { WORD_BYTES } else { 0 };
        let length = fixed + payload.len() + subject.len();
        let size = (length + 7) as u64 & !7;
        let capacity = self.mask + 1;
        assert!(size <= capacity / 2);
        let to_end = capacity - (self.tail & self.mask);
        let skip = if size > to_end { to_end } else { 0 };
        if self.tail + skip + size > self.head_cached + capacity {
            self.head_cached = self.shared.head.load(Ordering::Acquire);
            if self.tail + skip + size > self.head_cached + capacity {
                return false;
            }
        }
        if skip != 0 {
            self.store(self.tail, skip | u64::from(SKIP) << 32);
            self.tail += skip;
        }
        let at = self.tail;
        let subject_word = if head.flags & SUBJECT_ID != 0 {
            head.subject
        } else {
            subject.len() as u32
        };
        self.store(
            at,
            length as u64 | u64::from(head.kind) << 32 | u64::from(head.flags) << 48,
        );
        self.store(
            at + 8,
            u64::from(head.subscription) | u64::from(subject_word) << 32,
        );
        if head.has_word() {
            self.store(at + 16, head.word);
        }
        self.copy_in(at + fixed as u64, payload);
        self.copy_in(at + (fixed + payload.len()) as u64, subject);
        self.tail = at + size;
        true
    }

    /// Makes everything written so far visible to the consumer.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        self.shared.tail.store(self.tail, Ordering::Release);
    }

    /// True when the consumer has released everything that was published.
    pub(crate) fn is_drained(&self) -> bool {
        self.shared.head.load(Ordering::Acquire) == self.tail
    }

    #[inline(always)]
    fn store(&mut self, position: u64, word: u64) {
        let offset = (position & self.mask) as usize;
        debug_assert_eq!(offset % WORD_BYTES, 0);
        // SAFETY: the mask keeps `offset` inside the data.
        let target = unsafe { self.base.add(offset) };
        // SAFETY: positions of fixed words are multiples of 8 and `write` has checked that the
        // consumer does not own these bytes.
        unsafe { target.cast::<u64>().write(word) };
    }

    #[inline(always)]
    fn copy_in(&mut self, position: u64, bytes: &[u8]) {
        let offset = (position & self.mask) as usize;
        // SAFETY: the mask keeps `offset` inside the data.
        let target = unsafe { self.base.add(offset) };
        if bytes.len() <= WORD_COPY_BYTES_MAX && bytes.len().is_multiple_of(WORD_BYTES) {
            // Words, for a call to memcpy costs more, and a load of 16 or 32 bytes over a payload
            // that the caller has just stored in words waits for the store buffer. Volatile keeps
            // the compiler from joining the loads.
            let source = bytes.as_ptr().cast::<Unaligned>();
            for index in 0..bytes.len() / WORD_BYTES {
                // SAFETY: `index` counts the words of `bytes`.
                let word_at = unsafe { source.add(index) };
                // SAFETY: as above; `Unaligned` has alignment 1.
                let word = unsafe { word_at.read_volatile() };
                // SAFETY: a record never wraps and `write` has checked that it fits.
                let target_at = unsafe { target.cast::<Unaligned>().add(index) };
                // SAFETY: as above; the range is the producer's.
                unsafe { target_at.write(word) };
            }
        } else if !bytes.is_empty() {
            // SAFETY: as above; the source is a borrowed slice, which cannot overlap the ring.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        }
    }
}

impl Consumer {
    /// The next record, or None when the ring is empty.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Record<'_>> {
        loop {
            if self.head == self.tail_cached {
                self.tail_cached = self.shared.tail.load(Ordering::Acquire);
                if self.head == self.tail_cached {
                    return None;
                }
            }
            let at = self.head;
            let first = self.load(at);
            let length = first as u32 as usize;
            let kind = (first >> 32) as u8;
            if kind == SKIP {
                self.head += length as u64;
                continue;
            }
            let flags = (first >> 48) as u16;
            let second = self.load(at + 8);
            let mut head = Head {
                kind,
                flags,
                subscription: second as u32,
                subject: (second >> 32) as u32,
                word: 0,
            };
            let mut fixed = HEADER_BYTES;
            if head.has_word() {
                head.word = self.load(at + 16);
                fixed += WORD_BYTES;
            }
            let has_text = kind != REPLY && flags & SUBJECT_ID == 0;
            let subject_size = if has_text { head.subject as usize } else { 0 };
            assert!(
                fixed + subject_size <= length,
                "a record of {length} bytes is torn"
            );
            let payload_size = length - fixed - subject_size;
            self.head = at + ((length as u64 + 7) & !7);
            return Some(Record {
                head,
                payload: self.bytes(at + fixed as u64, payload_size),
                subject: self.bytes(at + (fixed + payload_size) as u64, subject_size),
            });
        }
    }

    /// Gives the bytes of all records read so far back to the producer.
    #[inline(always)]
    pub(crate) fn release(&mut self) {
        self.shared.head.store(self.head, Ordering::Release);
    }

    #[inline(always)]
    fn load(&self, position: u64) -> u64 {
        let offset = (position & self.mask) as usize;
        // SAFETY: the mask keeps `offset` inside the data.
        let source = unsafe { self.base.add(offset) };
        // SAFETY: fixed words lie at multiples of 8 inside a published record.
        unsafe { source.cast::<u64>().read() }
    }

    #[inline(always)]
    fn bytes(&self, position: u64, size: usize) -> &[u8] {
        let offset = (position & self.mask) as usize;
        // SAFETY: the mask keeps `offset` inside the data.
        let source = unsafe { self.base.add(offset) };
        // SAFETY: the only writer is `Producer::write`, whose records never wrap, so the range is
        // inside the data; it is the consumer's until `release`, which needs `&mut self`.
        unsafe { slice::from_raw_parts(source, size) }
    }
}

/// How long the calling thread has run.
pub(crate) fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is ours to write; this clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Keeps the calling thread on one core. Returns false when the system refuses.
pub(crate) fn pin(core: usize) -> bool {
    // SAFETY: an all-zero `cpu_set_t` is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return false;
    }
    // SAFETY: `core` is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a valid set of the size given; 0 means the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(word: u64) -> Head {
        Head {
            kind: MESSAGE,
            flags: SEQUENCE,
            subscription: 7,
            subject: 16,
            word,
        }
    }

    #[test]
    fn records_come_out_as_they_went_in_across_the_wrap() {
        let (mut producer, mut consumer) = ring(4096);
        let subject = b"orders.eu.000001";
        for round in 0..1_000u64 {
            let payload = vec![round as u8; (round % 300) as usize];
            assert!(producer.write(message(round), &payload, subject));
            assert!(consumer.next().is_none(), "nothing is seen before publish");
            producer.publish();
            let record = consumer.next().expect("one record was published");
            assert_eq!(record.head, message(round));
            assert_eq!(record.payload, payload);
            assert_eq!(record.subject, subject);
            consumer.release();
            assert!(producer.is_drained());
        }
    }

    #[test]
    fn record_sizes_are_those_of_the_format() {
        let (mut producer, _consumer) = ring(4096);
        let text = Head {
            kind: MESSAGE,
            flags: 0,
            subscription: 1,
            subject: 0,
            word: 0,
        };
        let mut used = |head: Head, payload: &[u8], subject: &[u8]| {
            let before = producer.tail;
            assert!(producer.write(head, payload, subject));
            producer.tail - before
        };
        assert_eq!(used(text, &[0; 16], &[b'a'; 16]), 48);
        assert_eq!(
            used(
                Head {
                    flags: SEQUENCE | SUBJECT_ID,
                    ..text
                },
                &[0; 16],
                &[]
            ),
            40
        );
        assert_eq!(
            used(
                Head {
                    kind: REQUEST,
                    flags: TOKEN,
                    ..text
                },
                &[0; 16],
                &[b'a'; 16]
            ),
            56
        );
        assert_eq!(
            used(
                Head {
                    kind: REPLY,
                    flags: TOKEN,
                    ..text
                },
                &[0; 16],
                &[]
            ),
            40
        );
    }

    #[test]
    fn a_full_ring_refuses_and_takes_again_after_release() {
        let (mut producer, mut consumer) = ring(4096);
        let mut written = 0;
        while producer.write(message(written), &[1; 16], &[]) {
            written += 1;
        }
        assert_eq!(written, 4096 / 40);
        producer.publish();
        while consumer.next().is_some() {}
        assert!(!producer.write(message(0), &[1; 16], &[]));
        consumer.release();
        assert!(producer.write(message(0), &[1; 16], &[]));
    }
}
