//! The two rings of a connection: bytes come out as they went in, whatever the sizes; and a side
//! that scribbles over all of the memory gets an error or garbage, never more.

#![cfg(not(loom))]

mod fixture;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use fastmq_driver::shared::SharedMemory;
use fastmq_memory::ring::{Capacities, Hostile, Rings};
use fixture::with_seeds;
use proptest::prelude::*;

const CAPACITY: u64 = 4096;
const TAIL: usize = 128;
const WRITER_SLEEPS: usize = 136;
const HEAD: usize = 256;
const READER_SLEEPS: usize = 264;
const DATA: usize = 384;
/// Where the ring to the client starts.
const SECOND: usize = 8192;

/// Both ends, and a third look at the memory.
struct Pair {
    server: Rings,
    client: Rings,
    view: SharedMemory,
    _fd: OwnedFd,
}

fn pair() -> Pair {
    let capacities = Capacities::new(CAPACITY, CAPACITY).unwrap();
    assert_eq!(capacities.bytes(), 2 * SECOND);
    let (made, fd) = SharedMemory::create(capacities.bytes()).unwrap();
    let open = || SharedMemory::open(fd.as_fd(), capacities.bytes()).unwrap();
    let server = Rings::make(made, capacities);
    let client = Rings::join(open(), capacities).unwrap();
    let view = open();
    Pair {
        server,
        client,
        view,
        _fd: fd,
    }
}

impl Pair {
    fn load(&self, at: usize) -> u64 {
        self.view.words(at, 1)[0].load(Ordering::Relaxed)
    }

    fn store(&self, at: usize, value: u64) {
        self.view.words(at, 1)[0].store(value, Ordering::Relaxed);
    }
}

/// A frame of `length` bytes, which occupies the next multiple of 8.
fn frame(length: usize, fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; length.next_multiple_of(8)];
    bytes[..8].copy_from_slice(&(length as u64 | 1 << 32).to_le_bytes());
    bytes
}

#[test]
fn the_memory_is_laid_out_as_the_format_says() {
    let mut pair = pair();
    for base in [0, SECOND] {
        assert_eq!(pair.load(base), 0x314C_514D_5453_4146);
        assert_eq!(pair.load(base + 8), CAPACITY);
    }
    let (up, down) = (frame(20, 7), frame(32, 9));
    assert_eq!(pair.client.send(&up), Ok(24));
    assert_eq!(pair.load(TAIL), 0, "it is not published yet");
    assert!(!pair.client.publish());
    assert_eq!(pair.server.send(&down), Ok(32));
    assert!(!pair.server.publish());
    assert_eq!((pair.load(TAIL), pair.load(SECOND + TAIL)), (24, 32));
    assert_eq!(pair.load(DATA), 20 | 1 << 32);
    assert_eq!(pair.load(SECOND + DATA), 32 | 1 << 32);
    assert_eq!(pair.load(DATA + 16), 0x0707_0707_0707_0707);
    let mut bytes = Vec::new();
    assert!(pair.server.has_arrived());
    assert_eq!(pair.server.receive(&mut bytes, 4096), Ok(24));
    assert!(!pair.server.has_arrived());
    assert_eq!((bytes, pair.load(HEAD)), (up, 0));
    assert!(!pair.server.publish());
    assert_eq!((pair.load(HEAD), pair.load(SECOND + HEAD)), (24, 0));
}

#[test]
fn a_skip_fills_the_ring_to_its_end_and_is_not_received() {
    let mut pair = pair();
    let mut bytes = Vec::new();
    for _ in 0..2 {
        pair.client.send(&frame(2040, 1)).unwrap();
        assert!(!pair.client.publish());
        assert_eq!(pair.server.receive(&mut bytes, 4096), Ok(2040));
        assert!(!pair.server.publish());
    }
    bytes.clear();
    // 16 bytes are left to the end.
    assert_eq!(pair.client.send(&frame(24, 2)), Ok(24));
    assert_eq!(pair.load(DATA + 4080), 16 | 4 << 32);
    assert!(!pair.client.publish());
    assert_eq!(pair.load(TAIL), 4096 + 24);
    assert_eq!(pair.server.receive(&mut bytes, 4096), Ok(24));
    assert_eq!(bytes, frame(24, 2));
}

#[test]
fn the_largest_frame_gets_through_from_every_place() {
    let mut pair = pair();
    for before in (16..2048).step_by(8) {
        for size in [before, 2048] {
            let sent = frame(size, size as u8);
            let mut bytes = Vec::new();
            assert_eq!(pair.client.send(&sent), Ok(size), "{before}");
            assert!(!pair.client.publish());
            assert_eq!(pair.server.receive(&mut bytes, 64), Ok(size));
            assert_eq!(bytes, sent);
            assert!(!pair.server.publish());
        }
    }
}

#[test]
fn who_says_that_it_sleeps_is_woken_once() {
    let mut pair = pair();
    pair.server.announce_sleep(false);
    assert_eq!(pair.view.flag(READER_SLEEPS).load(Ordering::Relaxed), 1);
    assert!(!pair.client.publish(), "nothing has happened");
    pair.client.send(&frame(16, 0)).unwrap();
    assert!(pair.client.publish());
    pair.client.send(&frame(16, 0)).unwrap();
    assert!(!pair.client.publish());
    // The other way: a writer that waits for room.
    while pair.client.send(&frame(1024, 0)).unwrap() > 0 {}
    assert!(!pair.client.publish());
    pair.client.announce_sleep(true);
    assert_eq!(pair.view.flag(WRITER_SLEEPS).load(Ordering::Relaxed), 1);
    assert!(!pair.client.has_moved());
    let mut bytes = Vec::new();
    pair.server.receive(&mut bytes, 4096).unwrap();
    assert!(pair.server.publish());
    assert!(pair.client.has_moved());
    pair.client.awake();
    pair.server.send(&frame(16, 0)).unwrap();
    assert!(!pair.server.publish(), "it is awake");
}

#[test]
fn memory_of_something_else_is_not_joined() {
    let capacities = Capacities::new(CAPACITY, CAPACITY).unwrap();
    for (at, value) in [(0, 1), (8, 2 * CAPACITY), (SECOND, 0), (SECOND + 8, 0)] {
        let (made, fd) = SharedMemory::create(capacities.bytes()).unwrap();
        let _server = Rings::make(made, capacities);
        let view = SharedMemory::open(fd.as_fd(), capacities.bytes()).unwrap();
        view.words(at, 1)[0].store(value, Ordering::Relaxed);
        assert_eq!(Rings::join(view, capacities).unwrap_err(), Hostile);
    }
    for wrong in [0, 1, 2048, 4097, 6144, 1 << 31, u64::MAX] {
        assert_eq!(Capacities::new(CAPACITY, wrong), None);
        assert_eq!(Capacities::new(wrong, CAPACITY), None);
    }
}

#[test]
fn cursors_out_of_range_are_refused() {
    for tail in [8192 + 8, 4104, 1, 4095, u64::MAX, u64::MAX - 7, 1 << 63] {
        let mut pair = pair();
        pair.store(TAIL, tail);
        assert!(pair.server.has_arrived());
        let mut bytes = Vec::new();
        assert_eq!(
            pair.server.receive(&mut bytes, 4096),
            Err(Hostile),
            "{tail}"
        );
        assert_eq!(bytes, []);
    }
    // One that goes back.
    let mut pair = pair();
    pair.client.send(&frame(64, 0)).unwrap();
    assert!(!pair.client.publish());
    pair.server.receive(&mut Vec::new(), 4096).unwrap();
    pair.store(TAIL, 8);
    assert_eq!(pair.server.receive(&mut Vec::new(), 4096), Err(Hostile));
    for head in [4104, u64::MAX, 1 << 63] {
        let mut pair = self::pair();
        for _ in 0..4 {
            assert_eq!(pair.server.send(&frame(1024, 0)), Ok(1024));
        }
        pair.store(SECOND + HEAD, head);
        assert_eq!(pair.server.send(&frame(1024, 0)), Err(Hostile), "{head}");
    }
}

#[test]
fn a_frame_that_wraps_or_reaches_beyond_the_cursor_is_refused() {
    // It would end behind the ring's end.
    let mut pair = pair();
    let mut bytes = Vec::new();
    pair.store(DATA, 4080 | 1 << 32);
    pair.store(DATA + 4080, 24 | 1 << 32);
    pair.store(TAIL, 4096);
    assert_eq!(pair.server.receive(&mut bytes, 4096), Err(Hostile));
    // A SKIP of which only the begin was published.
    let mut pair = self::pair();
    pair.store(DATA, 4096 | 4 << 32);
    pair.store(TAIL, 16);
    assert_eq!(pair.server.receive(&mut bytes, 8), Err(Hostile));
    // A length that no frame has: whoever decodes refuses it.
    let mut pair = self::pair();
    pair.store(TAIL, 4096);
    assert_eq!(pair.server.receive(&mut bytes, 4096), Ok(4096));
    assert_eq!(bytes, [0; 4096]);
}

#[test]
fn whatever_a_hostile_side_writes_there_is_an_error_or_bytes() {
    let test = "whatever_a_hostile_side_writes_there_is_an_error_or_bytes";
    with_seeds(test, 64, |random| {
        let mut pair = pair();
        let mut has_refused = false;
        for _ in 0..400 {
            let base = [0, SECOND][random.below(2) as usize];
            match random.below(6) {
                0 => pair.store(base + TAIL, random.below(3 * CAPACITY)),
                1 => pair.store(base + HEAD, random.below(3 * CAPACITY)),
                2 => {
                    let word = random.below(CAPACITY) | random.below(6) << 32;
                    pair.store(base + DATA + 8 * random.below(CAPACITY / 8) as usize, word);
                }
                3 => pair.store(base + 8 * random.below(48) as usize, random.word()),
                4 => {
                    let size = 16 + random.below(2000) as usize;
                    has_refused |= pair.server.send(&frame(size, 1)).is_err();
                }
                _ => {
                    let mut bytes = Vec::new();
                    match pair.server.receive(&mut bytes, random.below(5000) as usize) {
                        Ok(size) => assert_eq!(size, bytes.len()),
                        Err(Hostile) => has_refused = true,
                    }
                    assert!(bytes.len() <= CAPACITY as usize);
                }
            }
            let _ = pair.server.publish();
        }
        assert!(has_refused, "a ring of garbage is refused sooner or later");
    });
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<usize>),
    Receive(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 16usize..200, 1 => 16usize..=2048];
    prop_oneof![
        prop::collection::vec(size, 1..12).prop_map(Step::Send),
        prop_oneof![Just(usize::MAX), 0usize..3000].prop_map(Step::Receive),
    ]
}

proptest! {
    #[test]
    fn bytes_come_out_as_they_went_in(steps in prop::collection::vec(step(), 1..200)) {
        let mut pair = pair();
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        let (mut unsent, mut fill) = (Vec::new(), 0u8);
        for step in steps {
            match step {
                Step::Send(sizes) => {
                    if unsent.is_empty() {
                        for size in sizes {
                            fill = fill.wrapping_add(1);
                            unsent.extend(frame(size, fill));
                        }
                    }
                    let size = pair.client.send(&unsent).unwrap();
                    sent.extend(unsent.drain(..size));
                    prop_assert!(!pair.client.publish());
                }
                Step::Receive(max) => {
                    let before = received.len();
                    let size = pair.server.receive(&mut received, max).unwrap();
                    prop_assert_eq!(received.len(), before + size);
                    prop_assert!(size > 0 || received == sent);
                    prop_assert!(!pair.server.publish());
                }
            }
            prop_assert!(sent.starts_with(&received));
        }
        while pair.server.receive(&mut received, usize::MAX).unwrap() > 0 {}
        prop_assert_eq!(received, sent);
    }
}
