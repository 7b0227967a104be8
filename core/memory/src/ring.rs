//! The rings of a connection in shared memory (`docs/protocol.md` §10): frames in place of records.
//!
//! [`Rings`] is what one side has of both: it reads the one and writes the other. It moves bytes,
//! and knows of a frame its length only; what a frame says is decoded from the copy that
//! [`receive`](Rings::receive) makes.
//!
//! **The other side is hostile.** It may write anything at any time. So the cursors that count are
//! ours, in memory of our own; the other's is read once and its range is checked; bytes are copied
//! first and looked at afterwards; all shared memory is reached by atomics. The worst that it can
//! do is to send garbage, or nothing.
//!
//! **Waking.** Who is about to sleep says so by [`announce_sleep`](Rings::announce_sleep) and looks
//! again; who has moved a cursor looks, in [`publish`](Rings::publish), whether the other sleeps.
//! Between the store and the look of each there is a full fence, so one of them sees the other.
//!
//! Invariants: `head ≤ tail ≤ head + capacity` of our own cursors; all are multiples of 8; frames
//! that we write do not wrap. Not here: sockets and eventfds, and how long to spin.

use crate::sync::{AtomicU64, Ordering, fence_full};
use crate::words::MAGIC;

/// Smallest and largest capacity of a ring.
pub const CAPACITY_MIN: u64 = if cfg!(loom) { 16 } else { 4096 };
/// See [`CAPACITY_MIN`].
pub const CAPACITY_MAX: u64 = 1 << 30;

/// Places in a ring; loom has small ones, because each word costs it something.
mod place {
    pub(super) const CAPACITY: usize = 8;
    pub(super) const TAIL: usize = if cfg!(loom) { 16 } else { 128 };
    pub(super) const WRITER_SLEEPS: usize = if cfg!(loom) { 24 } else { 136 };
    pub(super) const HEAD: usize = if cfg!(loom) { 32 } else { 256 };
    pub(super) const READER_SLEEPS: usize = if cfg!(loom) { 40 } else { 264 };
    pub(super) const DATA: usize = if cfg!(loom) { 48 } else { 384 };
    /// What the second ring starts at a multiple of.
    pub(super) const PAGE: u64 = if cfg!(loom) { 8 } else { 4096 };
}

/// The kind of a frame that fills a ring to its end.
const SKIP: u64 = 4;
/// The part of a frame's first word that is its kind.
const KIND_SHIFT: u32 = 32;

#[cfg(not(loom))]
type Memory = fastmq_driver::shared::SharedMemory;
#[cfg(loom)]
pub use modelled::Memory;

/// The other side has written what it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hostile;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that has made the memory.
    Server,
    /// The other.
    Client,
}

/// Sizes of the two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    to_server: u64,
    to_client: u64,
}

impl Capacities {
    /// `None`: they are no powers of two from [`CAPACITY_MIN`] to [`CAPACITY_MAX`].
    #[must_use]
    pub fn new(to_server: u64, to_client: u64) -> Option<Self> {
        let is_fine =
            |size: u64| size.is_power_of_two() && (CAPACITY_MIN..=CAPACITY_MAX).contains(&size);
        (is_fine(to_server) && is_fine(to_client)).then_some(Self {
            to_server,
            to_client,
        })
    }

    /// Of the rings to the server and to the client.
    #[must_use]
    pub fn both(self) -> (u64, u64) {
        (self.to_server, self.to_client)
    }

    /// Bytes of memory that both take.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.second() + (place::DATA as u64 + self.to_client).next_multiple_of(place::PAGE) as usize
    }

    /// Where the second ring starts.
    fn second(self) -> usize {
        (place::DATA as u64 + self.to_server).next_multiple_of(place::PAGE) as usize
    }
}

/// The ring that this side reads.
#[derive(Debug)]
struct Incoming {
    base: usize,
    capacity: u64,
    head: u64,
    /// What the other side knows of `head`.
    released: u64,
}

/// The ring that this side writes.
#[derive(Debug)]
struct Outgoing {
    base: usize,
    capacity: u64,
    tail: u64,
    /// What the other side knows of `tail`.
    published: u64,
    /// The other's cursor when it was last read.
    head: u64,
}

/// One side's ends of the two rings of a connection. Used by one thread at a time.
#[derive(Debug)]
pub struct Rings {
    memory: Memory,
    incoming: Incoming,
    outgoing: Outgoing,
}

impl Rings {
    /// The server's end, over memory that it has just made: zeroed, of at least
    /// [`Capacities::bytes`].
    pub fn make(memory: Memory, capacities: Capacities) -> Self {
        for (base, capacity) in [
            (0, capacities.to_server),
            (capacities.second(), capacities.to_client),
        ] {
            word(&memory, base).store(MAGIC, Ordering::Relaxed);
            word(&memory, base + place::CAPACITY).store(capacity, Ordering::Relaxed);
        }
        Self::new(memory, capacities, End::Server)
    }

    /// The client's end, over memory that a server has made for these capacities.
    ///
    /// # Errors
    /// The memory holds something else.
    pub fn join(memory: Memory, capacities: Capacities) -> Result<Self, Hostile> {
        for (base, capacity) in [
            (0, capacities.to_server),
            (capacities.second(), capacities.to_client),
        ] {
            let magic = word(&memory, base).load(Ordering::Relaxed);
            let said = word(&memory, base + place::CAPACITY).load(Ordering::Relaxed);
            if (magic, said) != (MAGIC, capacity) {
                return Err(Hostile);
            }
        }
        Ok(Self::new(memory, capacities, End::Client))
    }

    fn new(memory: Memory, capacities: Capacities, end: End) -> Self {
        assert!(memory.bytes() >= capacities.bytes(), "too little memory");
        let first = (0, capacities.to_server);
        let second = (capacities.second(), capacities.to_client);
        let (incoming, outgoing) = match end {
            End::Server => (first, second),
            End::Client => (second, first),
        };
        Self {
            memory,
            incoming: Incoming {
                base: incoming.0,
                capacity: incoming.1,
                head: 0,
                released: 0,
            },
            outgoing: Outgoing {
                base: outgoing.0,
                capacity: outgoing.1,
                tail: 0,
                published: 0,
                head: 0,
            },
        }
    }

    /// Whether there is something to receive, or to refuse. One load: to spin on.
    #[inline(always)]
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        let tail = word(&self.memory, self.incoming.base + place::TAIL);
        tail.load(Ordering::Relaxed) != self.incoming.head
    }

    /// Whether the other side has taken something since [`send`](Rings::send) has looked. One load.
    #[inline(always)]
    #[must_use]
    pub fn has_moved(&self) -> bool {
        let head = word(&self.memory, self.outgoing.base + place::HEAD);
        head.load(Ordering::Relaxed) != self.outgoing.head
    }

    /// Appends frames that have arrived to `into`, whole ones, without the SKIPs between them, and
    /// gives how many bytes: not more than `bytes_max`, unless one frame has. 0: nothing is there.
    /// The other side gets the room back by [`publish`](Rings::publish).
    ///
    /// What is appended are the bytes that were there, and nothing else is known of them: a frame
    /// that does not end where they end is the other side's fault. `into` grows if it must, at most
    /// by the capacity; without memory nothing is taken.
    ///
    /// # Errors
    /// A cursor is out of range, or a frame wraps or reaches beyond the cursor.
    pub fn receive(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> Result<usize, Hostile> {
        let ring = &mut self.incoming;
        let tail = word(&self.memory, ring.base + place::TAIL).load(Ordering::Acquire);
        let start = into.len();
        loop {
            let waiting = tail.wrapping_sub(ring.head);
            if waiting > ring.capacity || !tail.is_multiple_of(8) {
                return Err(Hostile);
            }
            if waiting == 0 {
                return Ok(0);
            }
            let offset = ring.head & (ring.capacity - 1);
            let to_end = ring.capacity - offset;
            // A range of memory: what `mmap` gave fits into a size.
            let span = waiting.min(to_end) as usize;
            let mut size = span.min(bytes_max.max(8) & !7);
            let from = ring.base + place::DATA + offset as usize;
            if into.try_reserve(size).is_err() {
                return Ok(0);
            }
            copy_out(self.memory.words(from, size / 8), into);
            let mut is_skipped = false;
            if size < span || size as u64 == to_end {
                let walked = walk(&into[start..], to_end as usize);
                if walked.next > span {
                    into.truncate(start);
                    return Err(Hostile);
                }
                if walked.next > size && walked.whole == 0 && !walked.is_skip {
                    // One frame, and larger than what was wanted.
                    let missing = walked.next - size;
                    if into.try_reserve(missing).is_err() {
                        into.truncate(start);
                        return Ok(0);
                    }
                    copy_out(self.memory.words(from + size, missing / 8), into);
                    size = walked.next;
                } else {
                    into.truncate(start + walked.whole);
                    size = walked.whole;
                    is_skipped = walked.is_skip;
                }
            }
            ring.head = ring.head.wrapping_add(match is_skipped {
                true => to_end,
                false => size as u64,
            });
            if size > 0 {
                return Ok(size);
            }
        }
    }

    /// Writes frames, whole ones from the first on as far as there is room, and gives how many
    /// bytes that was. The other side sees them by [`publish`](Rings::publish).
    ///
    /// # Errors
    /// The other side's cursor is out of range.
    ///
    /// # Panics
    /// `frames` is no row of whole frames of at most half of the capacity.
    pub fn send(&mut self, frames: &[u8]) -> Result<usize, Hostile> {
        let mut sent = 0;
        while sent < frames.len() {
            let rest = &frames[sent..];
            let ring = &mut self.outgoing;
            let offset = ring.tail & (ring.capacity - 1);
            let to_end = ring.capacity - offset;
            let mut fits = ring.room().min(to_end);
            if fits < to_end && (rest.len() as u64) > fits {
                let head = word(&self.memory, ring.base + place::HEAD).load(Ordering::Acquire);
                if ring.tail.wrapping_sub(head) > ring.capacity {
                    return Err(Hostile);
                }
                ring.head = head;
                fits = ring.room().min(to_end);
            }
            let at = ring.base + place::DATA + offset as usize;
            let (mut size, mut next) = (rest.len(), 0);
            if size as u64 > fits {
                (size, next) = whole(rest, fits as usize);
                assert!(next as u64 <= ring.capacity / 2, "a frame of {next} bytes");
            }
            if size > 0 {
                copy_in(&rest[..size], self.memory.words(at, size / 8));
                ring.tail = ring.tail.wrapping_add(size as u64);
                sent += size;
            } else if next as u64 > to_end && fits == to_end {
                let skip = to_end | SKIP << KIND_SHIFT;
                word(&self.memory, at).store(skip, Ordering::Relaxed);
                ring.tail = ring.tail.wrapping_add(to_end);
            } else {
                break;
            }
        }
        Ok(sent)
    }

    /// Shows the other side what was sent, and gives back the room of what was received. True: it
    /// sleeps, and is to be woken.
    #[must_use = "the other side may sleep"]
    pub fn publish(&mut self) -> bool {
        let (incoming, outgoing) = (&mut self.incoming, &mut self.outgoing);
        let is_sent = outgoing.tail != outgoing.published;
        let is_taken = incoming.head != incoming.released;
        if is_sent {
            outgoing.published = outgoing.tail;
            word(&self.memory, outgoing.base + place::TAIL).store(outgoing.tail, Ordering::Release);
        }
        if is_taken {
            incoming.released = incoming.head;
            word(&self.memory, incoming.base + place::HEAD).store(incoming.head, Ordering::Release);
        }
        if !is_sent && !is_taken {
            return false;
        }
        fence_full();
        let is_asleep = |at: usize| {
            let flag = self.memory.flag(at);
            flag.load(Ordering::Relaxed) == 1 && flag.swap(0, Ordering::AcqRel) == 1
        };
        let reads = is_sent && is_asleep(outgoing.base + place::READER_SLEEPS);
        let writes = is_taken && is_asleep(incoming.base + place::WRITER_SLEEPS);
        reads || writes
    }

    /// Says that this side is about to sleep until something arrives and, if it waits for room,
    /// until something is taken. Afterwards look once more ([`has_arrived`](Rings::has_arrived),
    /// [`has_moved`](Rings::has_moved)), and sleep only if there is nothing.
    pub fn announce_sleep(&self, waits_for_room: bool) {
        let reads = self.memory.flag(self.incoming.base + place::READER_SLEEPS);
        reads.store(1, Ordering::Relaxed);
        if waits_for_room {
            let writes = self.memory.flag(self.outgoing.base + place::WRITER_SLEEPS);
            writes.store(1, Ordering::Relaxed);
        }
        fence_full();
    }

    /// Says that this side is awake, so that it is not woken for nothing.
    pub fn awake(&self) {
        for at in [
            self.incoming.base + place::READER_SLEEPS,
            self.outgoing.base + place::WRITER_SLEEPS,
        ] {
            let flag = self.memory.flag(at);
            if flag.load(Ordering::Relaxed) != 0 {
                flag.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Largest frame that the other side takes and we may send.
    #[must_use]
    pub fn frame_max(&self) -> u64 {
        self.outgoing.capacity / 2
    }
}

impl Outgoing {
    fn room(&self) -> u64 {
        self.capacity - self.tail.wrapping_sub(self.head)
    }
}

/// What a walk over copied bytes has found.
struct Walked {
    /// Bytes of whole frames, without a SKIP behind them.
    whole: usize,
    /// Where the frame that is cut ends; as `whole` if none is.
    next: usize,
    /// The last one is a SKIP that ends at the ring's end.
    is_skip: bool,
}

/// Walks over frames that were copied from `to_end` bytes before the ring's end. Bytes that no
/// frame begins with are passed on as if they were whole, for the decoder to refuse.
fn walk(bytes: &[u8], to_end: usize) -> Walked {
    let mut at = 0;
    while let Some(first) = bytes[at..].first_chunk() {
        let first = u64::from_le_bytes(*first);
        let (size, left) = (frame_bytes(first), bytes.len() - at);
        if (1..left).contains(&size) {
            at += size;
            continue;
        }
        if first == (to_end - at) as u64 | SKIP << KIND_SHIFT {
            return Walked {
                whole: at,
                next: at,
                is_skip: true,
            };
        }
        if size > left {
            return Walked {
                whole: at,
                next: at.saturating_add(size),
                is_skip: false,
            };
        }
        // The last one, or none.
        at = bytes.len();
    }
    Walked {
        whole: at,
        next: at,
        is_skip: false,
    }
}

/// Bytes of the frames at the front that fit into `room`, and of the next one.
fn whole(frames: &[u8], room: usize) -> (usize, usize) {
    let mut at = 0;
    loop {
        let Some(first) = frames[at..].first_chunk() else {
            assert!(at == frames.len(), "the begin of a frame was given");
            return (at, 0);
        };
        let size = frame_bytes(u64::from_le_bytes(*first));
        assert!(
            (1..=frames.len() - at).contains(&size),
            "a cut frame was given"
        );
        if at + size > room {
            return (at, size);
        }
        at += size;
    }
}

/// What a frame occupies, by its first word.
fn frame_bytes(first: u64) -> usize {
    (((first & 0xffff_ffff) + 7) & !7) as usize
}

#[inline(always)]
fn word(memory: &Memory, at: usize) -> &AtomicU64 {
    &memory.words(at, 1)[0]
}

/// Appends words to bytes that have room for them.
#[inline]
fn copy_out(words: &[AtomicU64], into: &mut Vec<u8>) {
    let end = into.len() + 8 * words.len();
    let spare = &mut into.spare_capacity_mut()[..8 * words.len()];
    for (word, bytes) in words.iter().zip(spare.as_chunks_mut::<8>().0) {
        let word = word.load(Ordering::Relaxed).to_ne_bytes();
        // One store: a `map` over the bytes became a call for each.
        let place = bytes.as_mut_ptr().cast::<[u8; 8]>();
        // SAFETY: `place` is eight bytes of the vector's spare capacity, borrowed exclusively.
        unsafe { place.write(word) };
    }
    // SAFETY: the bytes up to there were just written, within the capacity.
    unsafe { into.set_len(end) };
}

#[inline]
fn copy_in(bytes: &[u8], words: &[AtomicU64]) {
    for (word, bytes) in words.iter().zip(bytes.as_chunks().0) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
}

/// Memory that loom sees.
#[cfg(loom)]
mod modelled {
    use std::sync::Arc;

    use super::{AtomicU64, Capacities};

    /// Shared words. Clones are the same memory.
    #[derive(Clone, Debug)]
    pub struct Memory(Arc<Vec<AtomicU64>>);

    impl Memory {
        /// Zeroed.
        #[must_use]
        pub fn new(capacities: Capacities) -> Self {
            let words = (0..capacities.bytes() / 8).map(|_| AtomicU64::new(0));
            Self(Arc::new(words.collect()))
        }

        pub(super) fn bytes(&self) -> usize {
            8 * self.0.len()
        }

        pub(super) fn words(&self, at: usize, count: usize) -> &[AtomicU64] {
            &self.0[at / 8..][..count]
        }

        pub(super) fn flag(&self, at: usize) -> &AtomicU64 {
            &self.0[at / 8]
        }
    }
}
