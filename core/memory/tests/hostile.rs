//! A lane whose memory a hostile writer scribbles over: the reader says an error, and never panics,
//! never reads outside the record it was given (the AddressSanitizer stage runs this too).

#![cfg(not(loom))]

mod fixture;

use fastmq_memory::consumer::Consumer;
use fastmq_memory::lane::{Producer, lane};
use fastmq_memory::record::{Draft, Kind, Parsed, RecordError, flag, parse};
use fastmq_memory::words::HeapWords;

use fixture::{Random, parts, with_seeds};

const CAPACITY: u64 = 4096;

/// Takes what the lane gives until it ends or refuses, and checks what every reader relies on.
/// Returns the records taken and the error.
fn drain(consumer: &mut Consumer) -> (u64, Option<RecordError>) {
    let mut record = Vec::new();
    let mut count = 0;
    let mut bytes = consumer.held_bytes();
    // A ring of 4 KiB has room for 512 records of any kind; more would be an endless lane.
    for _ in 0..=CAPACITY / 8 {
        match consumer.next_copied(&mut record) {
            Ok(Some(parsed)) => {
                check_taken(&parsed, &record);
                count += 1;
                assert!(consumer.held_bytes() > bytes);
                bytes = consumer.held_bytes();
                assert!(bytes <= CAPACITY);
            }
            Ok(None) => return (count, None),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!(
                    consumer.next_copied(&mut record),
                    Err(error),
                    "it stays refused"
                );
                assert_eq!(consumer.peek_step(), Err(error));
                assert!(consumer.held_bytes() <= CAPACITY);
                return (count, Some(error));
            }
        }
    }
    panic!("more records than the ring has room for");
}

/// A record that was accepted obeys the format in all that its reader uses.
fn check_taken(parsed: &Parsed, record: &[u8]) {
    assert_eq!(parsed.step, record.len() as u64);
    assert!(
        parsed.step <= CAPACITY / 2,
        "{} above half the ring",
        parsed.step
    );
    assert_ne!(parsed.kind, Kind::Skip);
    assert_eq!(parsed.flags & !flag::KNOWN, 0);
    let found = parts(parsed, record);
    assert!(found.subject.len() <= 1024 && found.reply_to.len() <= 1024);
    assert!(found.headers.len() <= 64 << 10);
    let size = parsed.payload_at as usize
        + found.payload.len()
        + found.subject.len()
        + found.reply_to.len()
        + found.key.len()
        + found.headers.len();
    assert!(size <= record.len() && record.len() < size + 8);
    assert_eq!(parsed.payload_at % 8, 0);
    for flag in [
        flag::SEQUENCE,
        flag::TOKEN,
        flag::EXPIRY,
        flag::TIMESTAMP,
        flag::LOST,
        flag::PUBLISHER,
    ] {
        if parsed.flags & flag != 0 {
            assert!(parsed.word_at(flag) + 8 <= parsed.payload_at as usize);
        }
    }
}

fn fresh() -> (Producer, Consumer) {
    lane::<HeapWords>(CAPACITY, None, None).unwrap()
}

#[test]
fn random_bytes_are_refused_or_read_within_bounds() {
    let refused = std::cell::Cell::new(0);
    with_seeds("random_bytes", 4000, |random| {
        let (mut producer, mut consumer) = fresh();
        let mut bytes = random.bytes(CAPACITY as usize);
        // Mostly small first words, so that some pass the first checks.
        if random.one_in(2) {
            for record in bytes.chunks_exact_mut(32) {
                let length = random.below(64) as u32;
                record[..4].copy_from_slice(&length.to_le_bytes());
                record[4] = random.below(6) as u8;
                record[5] = 0;
                record[6..8].copy_from_slice(&(random.word() as u16 & flag::KNOWN).to_le_bytes());
            }
        }
        producer.scribble(0, &bytes, CAPACITY - 8 * random.below(100));
        let (_, error) = drain(&mut consumer);
        refused.set(refused.get() + u32::from(error.is_some()));
        consumer.release();
    });
    assert!(refused.get() > 0, "random bytes are hardly ever records");
}

#[test]
fn valid_records_with_changed_bits_are_refused_or_read_within_bounds() {
    let outcomes = std::cell::Cell::new((0_u32, 0_u32));
    with_seeds("valid_records", 6000, |random| {
        let (mut producer, mut consumer) = fresh();
        let bytes = valid_ring(random);
        let mut mutated = bytes.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(mutated.len() as u64) as usize;
            // Headers are hit more often than payloads.
            let at = if random.one_in(3) {
                at
            } else {
                at & !31 | (at & 7)
            };
            match random.below(4) {
                0 => mutated[at] ^= 1 << random.below(8),
                1 => mutated[at] = random.word() as u8,
                2 => mutated[at] = 0,
                _ => mutated[at] = 0xff,
            }
        }
        producer.scribble(0, &mutated, bytes.len() as u64);
        let (_, error) = drain(&mut consumer);
        let (good, bad) = outcomes.get();
        outcomes.set((
            good + u32::from(error.is_none()),
            bad + u32::from(error.is_some()),
        ));
    });
    let (good, bad) = outcomes.get();
    if good + bad > 1 {
        assert!(
            good > 100 && bad > 100,
            "{good} read, {bad} refused: the changes test nothing"
        );
    }
}

/// Records of all kinds, as a lane writes them, taken from one.
fn valid_ring(random: &mut Random) -> Vec<u8> {
    let (mut producer, mut consumer) = fresh();
    let mut ring = Vec::new();
    let mut record = Vec::new();
    for _ in 0..1 + random.below(20) {
        let payload = random.bytes(random.clone().below(100) as usize);
        let words = flag::SEQUENCE
            | flag::TOKEN
            | flag::EXPIRY
            | flag::TIMESTAMP
            | flag::SIZES
            | flag::PUBLISHER;
        let kind = [Kind::Message, Kind::Request, Kind::Reply][random.below(3) as usize];
        let draft = Draft {
            kind,
            flags: random.word() as u16 & words,
            subject: if kind == Kind::Reply { b"" } else { b"subject" },
            payload: &payload,
            reply_to: b"reply",
            key: b"key",
            headers: b"headers",
            ..Draft::default()
        };
        if random.one_in(5) {
            producer.count_lost();
        }
        producer.push(&draft, 1).unwrap();
        assert!(consumer.next_copied(&mut record).unwrap().is_some());
        ring.extend_from_slice(&record);
    }
    ring
}

#[test]
fn tails_outside_the_possible_are_refused() {
    let check = |tail: u64, expected: Option<RecordError>| {
        let (mut producer, mut consumer) = fresh();
        let mut record = Vec::new();
        let draft = Draft {
            subject: b"subject!",
            ..Draft::default()
        };
        for _ in 0..4 {
            producer.push(&draft, 0).unwrap();
        }
        for _ in 0..2 {
            assert!(consumer.next_copied(&mut record).unwrap().is_some());
        }
        // Two records of 24 bytes are read, and two are seen and not read yet.
        consumer.release();
        for _ in 0..2 {
            assert!(consumer.next_copied(&mut record).unwrap().is_some());
        }
        producer.scribble(0, &[], tail);
        let found = consumer.next_copied(&mut record);
        match expected {
            Some(error) => assert_eq!(found, Err(error), "tail {tail}"),
            None => assert_eq!(found, Ok(None), "tail {tail}"),
        }
    };
    let cursor = Some(RecordError::Cursor);
    check(96, None);
    for tail in [0, 8, 48, 88, 95, 97, 100, 103] {
        check(tail, cursor);
    }
    // 48 bytes are released: the ring reaches to 48 + 4096.
    for tail in [
        48 + CAPACITY + 1,
        48 + CAPACITY + 8,
        1 << 32,
        1 << 63,
        u64::MAX - 7,
        u64::MAX,
    ] {
        check(tail, cursor);
    }
}

#[test]
fn random_tails_never_lead_outside_the_ring() {
    with_seeds("random_tails", 4000, |random| {
        let (mut producer, mut consumer) = fresh();
        let bytes = valid_ring(random);
        producer.scribble(0, &bytes, bytes.len() as u64);
        for _ in 0..8 {
            let tail = match random.below(4) {
                0 => random.word(),
                1 => random.below(2 * CAPACITY),
                2 => bytes.len() as u64 + 8 * random.below(CAPACITY / 8),
                _ => bytes.len() as u64 + random.below(64),
            };
            producer.scribble(0, &[], tail);
            let (_, error) = drain(&mut consumer);
            if error.is_some() {
                break;
            }
            consumer.release();
        }
    });
}

#[test]
fn a_ring_of_zeros_is_refused() {
    for tail in [8, 16, 1024, CAPACITY] {
        let (mut producer, mut consumer) = fresh();
        producer.scribble(0, &[], tail);
        assert_eq!(drain(&mut consumer), (0, Some(RecordError::Kind(0))));
    }
}

#[test]
fn an_endless_chain_of_fillers_ends_with_the_ring() {
    let (mut producer, mut consumer) = fresh();
    let filler = [8, 0, 0, 0, 4, 0, 0, 0].repeat(CAPACITY as usize / 8);
    producer.scribble(0, &filler, CAPACITY);
    let (count, _) = drain(&mut consumer);
    assert_eq!(count, 0);
    assert!(consumer.held_bytes() <= CAPACITY);
}

/// The bytes change between one look and the next: each word is read once, so that what was
/// checked is what is used.
#[test]
fn a_header_is_read_once_word_by_word() {
    use std::cell::RefCell;
    with_seeds("a_header_is_read_once", 3000, |random| {
        let seen = RefCell::new(Vec::new());
        let words = RefCell::new(random.clone());
        let available = 8 * (1 + random.below(64));
        let valid = valid_ring(random);
        let parsed = parse(available, available, |at| {
            assert!(
                at % 8 == 0 && (at as u64) + 8 <= available,
                "{at} of {available}"
            );
            assert!(
                !seen.borrow().contains(&at),
                "the word at {at} is read twice"
            );
            seen.borrow_mut().push(at);
            let mut random = words.borrow_mut();
            match valid.get(at..at + 8) {
                Some(word) if !random.one_in(8) => {
                    u64::from_le_bytes(word.try_into().expect("eight bytes"))
                }
                _ => random.word(),
            }
        });
        if let Ok(parsed) = parsed {
            assert!(parsed.step <= available);
            let others =
                parsed.subject_size + parsed.reply_to_size + parsed.key_size + parsed.headers_size;
            let end = parsed.payload_at + parsed.payload_size + others;
            assert!(u64::from(end) <= parsed.step || parsed.kind == Kind::Skip);
        }
    });
}
