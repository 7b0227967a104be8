//! Promises of [`fastmq_memory::lane`] against a model: what was pushed comes out, whole, once and
//! in order, through every ring size; what does not fit is refused and changes nothing.

#![cfg(not(loom))]

mod fixture;

use std::collections::VecDeque;
use std::sync::Arc;

use fastmq_memory::budget::Budget;
use fastmq_memory::consumer::Consumer;
use fastmq_memory::lane::{NoRoom, Producer, RING_BYTES_MIN, lane};
use fastmq_memory::record::{Draft, Kind, Plain, flag};
use fastmq_memory::words::HeapWords;

use fixture::{Random, message, parts, with_seeds, word};

const LABEL: &[u8] = b"label.of.the.lane";

/// A draft with memory of its own, and what the record says beside it.
#[derive(Clone, Debug, Default)]
struct Sent {
    kind: Kind,
    flags: u16,
    status: u16,
    numbers: [u64; 5],
    fields: [Vec<u8>; 5],
    subscription: u32,
    lost: u64,
}

impl Sent {
    fn random(random: &mut Random, size_max: u64) -> Self {
        let kind = [Kind::Message, Kind::Request, Kind::Reply][random.below(3) as usize];
        let words = flag::SEQUENCE
            | flag::TOKEN
            | flag::EXPIRY
            | flag::TIMESTAMP
            | flag::SIZES
            | flag::PUBLISHER;
        let mut flags = random.word() as u16 & words;
        if random.one_in(2) {
            // The usual ones, so that the plain paths are walked too.
            flags = [0, flag::SEQUENCE, flag::TOKEN][random.below(3) as usize];
        }
        if kind == Kind::Reply && random.one_in(4) {
            flags |= flag::MORE;
        }
        let mut field = |max: u64| {
            let size = if random.one_in(3) {
                0
            } else {
                random.below(max + 1)
            };
            random.bytes(size as usize)
        };
        let mut fields = [field(size_max), field(40), field(20), field(20), field(60)];
        if kind == Kind::Reply {
            fields[1].clear();
        } else if fields[1].is_empty() {
            fields[1] = b"s".to_vec();
        }
        if flags & flag::SIZES == 0 {
            fields[2..].iter_mut().for_each(Vec::clear);
        }
        Self {
            kind,
            flags,
            status: random.word() as u16,
            numbers: std::array::from_fn(|_| random.word()),
            fields,
            subscription: random.word() as u32,
            lost: 0,
        }
    }

    fn draft(&self) -> Draft<'_> {
        let [sequence, token, expiry, timestamp, publisher] = self.numbers;
        let [payload, subject, reply_to, key, headers] = &self.fields;
        Draft {
            kind: self.kind,
            flags: self.flags,
            status: self.status,
            sequence,
            token,
            expiry,
            timestamp,
            publisher,
            subject,
            payload,
            reply_to,
            key,
            headers,
        }
    }

    /// The same as a plain message, if it is one.
    fn plain(&self) -> Option<Plain<'_>> {
        let word = match self.flags {
            0 => 0,
            flag::SEQUENCE => self.numbers[0],
            flag::TOKEN => self.numbers[1],
            _ => return None,
        };
        Some(Plain {
            kind: self.kind,
            flags: self.flags,
            status: self.status,
            word,
            subject: &self.fields[1],
            payload: &self.fields[0],
        })
    }

    fn check(&self, parsed: &fastmq_memory::record::Parsed, record: &[u8], is_labelled: bool) {
        assert_eq!(parsed.kind, self.kind);
        assert_eq!(parsed.subscription, self.subscription);
        let found = parts(parsed, record);
        let [payload, subject, reply_to, key, headers] = &self.fields;
        assert_eq!(found.payload, payload);
        assert_eq!(
            (found.reply_to, found.key, found.headers),
            (&reply_to[..], &key[..], &headers[..])
        );
        match (self.kind, is_labelled) {
            (Kind::Reply, _) => assert_eq!(parsed.subject, u32::from(self.status)),
            (_, true) => assert_eq!((found.subject, parsed.subject), (&[][..], 0)),
            (_, false) => assert_eq!(found.subject, subject),
        }
        let flags = [
            flag::SEQUENCE,
            flag::TOKEN,
            flag::EXPIRY,
            flag::TIMESTAMP,
            flag::PUBLISHER,
        ];
        for (flag, number) in flags.into_iter().zip(self.numbers) {
            let expected = (self.flags & flag != 0).then_some(number);
            assert_eq!(word(parsed, record, flag), expected, "flag {flag}");
        }
        assert_eq!(word(parsed, record, flag::LOST).unwrap_or(0), self.lost);
        assert_eq!(parsed.flags & flag::MORE, self.flags & flag::MORE);
    }
}

/// Both ends of a lane and what must be in it.
struct Pair {
    producer: Producer,
    consumer: Consumer,
    capacity_max: u64,
    is_labelled: bool,
    waiting: VecDeque<Sent>,
    taken: u64,
    lost: u64,
    record: Vec<u8>,
}

impl Pair {
    fn new(capacity_max: u64, label: Option<&[u8]>, budget: Option<Arc<Budget>>) -> Self {
        let (producer, consumer) =
            lane::<HeapWords>(capacity_max, label.map(fixture::label), budget).unwrap();
        Self {
            producer,
            consumer,
            capacity_max,
            is_labelled: label.is_some(),
            waiting: VecDeque::new(),
            taken: 0,
            lost: 0,
            record: Vec::new(),
        }
    }

    /// Pushes one record and checks a refusal against what the lane promises.
    fn push(&mut self, random: &mut Random, mut sent: Sent) -> bool {
        // An answer has no subject for a label to stand for.
        if self.is_labelled && sent.kind == Kind::Reply {
            sent.kind = Kind::Message;
            sent.flags &= !flag::MORE;
        }
        sent.lost = self.lost;
        let step = self.producer.step(&sent.draft());
        let was_empty = self.producer.is_drained();
        if let Some(plain) = sent.plain()
            && random.one_in(3)
            && self.push_claimed(random, &plain, sent.subscription)
        {
            assert_eq!(self.lost, 0, "a claim cannot tell a loss");
        } else if let Some(plain) = sent.plain()
            && random.one_in(2)
            && self.producer.try_plain(&plain, sent.subscription)
        {
            assert_eq!(self.lost, 0, "a plain record cannot tell a loss");
            self.producer.publish();
        } else {
            match self.producer.push(&sent.draft(), sent.subscription) {
                Ok(()) => self.lost = 0,
                Err(NoRoom::TooLarge) => {
                    assert!(step > self.capacity_max / 2, "{step} is not too large");
                    return false;
                }
                Err(NoRoom::Full) => {
                    assert!(step <= self.capacity_max / 2);
                    assert!(
                        !was_empty,
                        "a drained lane takes every record of half its capacity"
                    );
                    return false;
                }
                Err(other) => panic!("{other:?} without a budget"),
            }
        }
        assert!(step <= self.capacity_max / 2);
        self.waiting.push_back(sent);
        true
    }

    /// Writes a record in place, after claims that came to nothing; false if there is no room for
    /// what was claimed, which may be more than what is committed.
    fn push_claimed(&mut self, random: &mut Random, sent: &Plain<'_>, subscription: u32) -> bool {
        let empty = Plain {
            payload: &[],
            ..*sent
        };
        let size = sent.payload.len();
        while random.one_in(2) {
            // Abandoned: what was written there is nobody's, and nothing has to be given back.
            let abandoned = random.below(2 * size as u64 + 40) as usize;
            if self.producer.claim(&empty, abandoned) == Ok(true) {
                self.producer.claimed(&empty, abandoned).fill(0xaa);
            }
        }
        let claimed = size + random.below(40) as usize;
        if self.producer.claim(&empty, claimed) != Ok(true) {
            return false;
        }
        let bytes = self.producer.claimed(&empty, claimed);
        assert_eq!((bytes.len(), bytes.as_ptr().addr() % 8), (claimed, 0));
        bytes.fill(0xbb);
        bytes[..size].copy_from_slice(sent.payload);
        self.producer.commit(&empty, size, subscription);
        self.producer.publish();
        true
    }

    /// Writes as many of some plain records as have room at once.
    fn push_row(&mut self, random: &mut Random, size_max: u64) {
        let mut row: Vec<Sent> = (0..random.below(20))
            .map(|_| Sent::random(random, size_max))
            .filter(|sent| sent.plain().is_some() && sent.flags & flag::MORE == 0)
            .collect();
        let subscription = random.word() as u32;
        for sent in &mut row {
            sent.subscription = subscription;
        }
        let plains = row.iter().filter_map(Sent::plain);
        let count = self.producer.try_plains(plains, subscription);
        if count > 0 {
            self.producer.publish();
        }
        if self.is_labelled || self.lost > 0 {
            assert_eq!(count, 0, "neither a label nor a loss is told");
        }
        self.waiting.extend(row.into_iter().take(count));
    }

    /// Takes up to `count` records and checks each.
    fn take(&mut self, count: u64) {
        for _ in 0..count {
            let peeked = self.consumer.peek_step().unwrap();
            let parsed = self.consumer.next_copied(&mut self.record).unwrap();
            assert_eq!(peeked, parsed.map(|parsed| parsed.step));
            let Some(parsed) = parsed else {
                assert!(
                    self.waiting.is_empty(),
                    "{} records are missing",
                    self.waiting.len()
                );
                return;
            };
            let sent = self
                .waiting
                .pop_front()
                .expect("a record that was not pushed");
            sent.check(&parsed, &self.record, self.is_labelled);
            self.taken += 1;
        }
    }

    fn release(&mut self) {
        self.consumer.release();
        let state = self.producer.state();
        assert_eq!(state.gone(), self.taken);
        assert_eq!(state.pushed() - state.gone(), self.waiting.len() as u64);
        assert_eq!(state.pending_bytes() == 0, self.waiting.is_empty());
        assert_eq!(self.producer.is_drained(), self.waiting.is_empty());
    }
}

#[test]
fn random_records_come_out_whole_once_and_in_order() {
    with_seeds("random_records", 150, |random| {
        let capacity_max = 1 << (6 + random.below(12));
        let label = random.one_in(3).then_some(LABEL);
        let budget = Arc::new(Budget::new(0));
        let mut pair = Pair::new(capacity_max, label, Some(budget.clone()));
        let size_max = if random.one_in(2) {
            capacity_max / 2
        } else {
            40
        };
        for _ in 0..400 {
            match random.below(8) {
                0..3 => {
                    let sent = Sent::random(random, size_max);
                    let _ = pair.push(random, sent);
                }
                3 => pair.push_row(random, size_max),
                4..6 => {
                    let count = 1 + random.below(20);
                    pair.take(count);
                }
                6 => pair.release(),
                _ => {
                    for _ in 0..random.below(3) {
                        pair.producer.count_lost();
                        pair.lost += 1;
                    }
                }
            }
            assert!(pair.consumer.held_bytes() <= pair.consumer.capacity());
            assert!(pair.consumer.capacity() <= capacity_max);
        }
        pair.take(u64::MAX);
        pair.release();
        assert_eq!(
            budget.used(),
            pair.consumer.capacity(),
            "only the last ring is held"
        );
        drop(pair);
        assert_eq!(budget.used(), 0);
    });
}

#[test]
fn a_lane_grows_to_its_capacity_and_keeps_the_order_across_rings() {
    for bits in 6..=20 {
        let capacity_max = 1_u64 << bits;
        let mut pair = Pair::new(capacity_max, None, None);
        let mut random = Random::new(bits);
        for round in 0..3 {
            // 24 bytes each: never a divisor of a ring, so that every ring ends with a filler.
            let mut bytes = 0;
            loop {
                let sent = Sent {
                    fields: [Vec::new(), b"subject".to_vec(), vec![], vec![], vec![]],
                    subscription: bytes as u32,
                    ..Sent::default()
                };
                if !pair.push(&mut random, sent) {
                    break;
                }
                bytes += 24;
            }
            assert!(
                bytes > capacity_max - 48,
                "{bytes} of {capacity_max} in round {round}"
            );
            pair.take(u64::MAX);
            assert_eq!(pair.consumer.capacity(), capacity_max);
            pair.release();
        }
    }
}

#[test]
fn a_record_of_half_the_capacity_fits_and_a_larger_one_never() {
    for bits in 7..=16 {
        let capacity_max = 1_u64 << bits;
        let (mut producer, mut consumer) = lane::<HeapWords>(capacity_max, None, None).unwrap();
        let mut record = Vec::new();
        let payload = vec![9; capacity_max as usize];
        let half = capacity_max as usize / 2 - 16 - 1;
        for shift in [0, 8, 16] {
            // The ends stand at any place when it comes.
            producer
                .push(
                    &Draft {
                        payload: &payload[..shift],
                        subject: b"x",
                        ..Draft::default()
                    },
                    0,
                )
                .unwrap();
            while consumer.next_copied(&mut record).unwrap().is_some() {}
            consumer.release();
            let draft = Draft {
                payload: &payload[..half],
                subject: b"x",
                ..Draft::default()
            };
            producer.push(&draft, 1).unwrap();
            let parsed = consumer.next_copied(&mut record).unwrap().unwrap();
            assert_eq!(parsed.step, capacity_max / 2);
            assert_eq!(parts(&parsed, &record).payload, &payload[..half]);
            consumer.release();
            let draft = Draft {
                payload: &payload[..half + 1],
                subject: b"x",
                ..Draft::default()
            };
            assert_eq!(producer.push(&draft, 1), Err(NoRoom::TooLarge));
        }
    }
}

#[test]
fn reserved_room_holds_for_every_copy_wherever_the_ring_ends() {
    with_seeds("reserved_room", 300, |random| {
        let capacity_max = 1 << (8 + random.below(8));
        let (mut producer, mut consumer) = lane::<HeapWords>(capacity_max, None, None).unwrap();
        let mut record = Vec::new();
        let (mut written, mut read) = (0, 0);
        for _ in 0..60 {
            let payload = random.bytes(random.clone().below(capacity_max / 2) as usize);
            let draft = message(b"copies", &payload, 0);
            let copies = 1 + random.below(6);
            let step = producer.step(&draft);
            // One filler and all copies: what the writer of a queue asks for.
            if producer.reserve(step, step * copies).is_ok() {
                for _ in 0..copies {
                    written += 1;
                    producer.write(&message(b"copies", &payload, written), 0);
                }
                producer.publish();
            }
            while !random.one_in(6) {
                let Some(parsed) = consumer.next_copied(&mut record).unwrap() else {
                    break;
                };
                read += 1;
                assert_eq!(word(&parsed, &record, flag::SEQUENCE), Some(read));
            }
            if random.one_in(2) {
                consumer.release();
            }
        }
        while consumer.next_copied(&mut record).unwrap().is_some() {
            read += 1;
        }
        assert_eq!(read, written);
    });
}

#[test]
fn what_was_written_and_not_published_is_not_seen() {
    let (mut producer, mut consumer) = lane::<HeapWords>(1 << 14, None, None).unwrap();
    let mut record = Vec::new();
    for sequence in 1..=3 {
        producer.reserve(64, 0).unwrap();
        producer.write(&message(b"quiet", b"payload", sequence), 0);
    }
    assert_eq!(consumer.next_copied(&mut record), Ok(None));
    assert_eq!(producer.state().pushed(), 0);
    producer.publish();
    for sequence in 1..=3 {
        let parsed = consumer.next_copied(&mut record).unwrap().unwrap();
        assert_eq!(word(&parsed, &record, flag::SEQUENCE), Some(sequence));
    }
}

#[test]
fn a_claim_is_seen_when_it_is_committed_and_an_abandoned_one_never() {
    let (mut producer, mut consumer) =
        lane::<HeapWords>(1 << 14, Some(fixture::label(LABEL)), None).unwrap();
    let mut record = Vec::new();
    let plain = |sequence| Plain {
        kind: Kind::Message,
        flags: flag::SEQUENCE,
        status: 0,
        word: sequence,
        subject: LABEL,
        payload: &[],
    };
    assert_eq!(producer.claim(&plain(0), 100), Ok(true));
    producer.claimed(&plain(0), 100).fill(1);
    producer.publish();
    assert_eq!(consumer.next_copied(&mut record), Ok(None));
    // The producer goes: its claim goes with it, and what it published stays.
    producer.push(&message(LABEL, b"before", 1), 0).unwrap();
    assert_eq!(producer.claim(&plain(2), 1000), Ok(true));
    producer.claimed(&plain(2), 1000).fill(2);
    assert_eq!(producer.state().pushed(), 1);
    producer.commit(&plain(2), 10, 7);
    assert_eq!(producer.state().pushed(), 1, "not published yet");
    producer.publish();
    assert_eq!(producer.claim(&plain(3), 10), Ok(true));
    producer.claimed(&plain(3), 10).fill(3);
    drop(producer);
    for (sequence, payload) in [(1, &b"before"[..]), (2, &[2; 10])] {
        let parsed = consumer.next_copied(&mut record).unwrap().unwrap();
        assert_eq!(word(&parsed, &record, flag::SEQUENCE), Some(sequence));
        let found = parts(&parsed, &record);
        assert_eq!((found.payload, found.subject), (payload, &b""[..]));
    }
    assert_eq!(consumer.next_copied(&mut record), Ok(None));
    consumer.release();
    assert!(consumer.is_finished());
}

#[test]
fn a_claim_needs_the_room_of_its_record() {
    let plain = Plain {
        kind: Kind::Message,
        flags: 0,
        status: 0,
        word: 0,
        subject: b"",
        payload: &[],
    };
    let (mut producer, mut consumer) =
        lane::<HeapWords>(4096, Some(fixture::label(LABEL)), None).unwrap();
    assert_eq!(producer.claim(&plain, 2048 - 16 + 1), Err(NoRoom::TooLarge));
    assert_eq!(producer.claim(&plain, usize::MAX), Err(NoRoom::TooLarge));
    for _ in 0..2 {
        assert_eq!(producer.claim(&plain, 2048 - 16), Ok(true));
        producer.commit(&plain, 2048 - 16, 0);
    }
    producer.publish();
    assert_eq!(producer.claim(&plain, 0), Err(NoRoom::Full));
    let mut record = Vec::new();
    assert!(consumer.next_copied(&mut record).unwrap().is_some());
    assert_eq!(producer.claim(&plain, 0), Err(NoRoom::Full));
    consumer.release();
    assert_eq!(producer.claim(&plain, 2048 - 16), Ok(true));
    producer.count_lost();
    assert_eq!(
        producer.claim(&plain, 0),
        Ok(false),
        "a loss has to be told"
    );
    let (mut producer, _consumer) = lane::<HeapWords>(4096, None, None).unwrap();
    assert_eq!(
        producer.claim(&plain, 0),
        Ok(false),
        "no subject of its own"
    );
    assert!(producer.try_claim(&plain, 0).is_none());
}

#[test]
#[should_panic = "a commit without a claim"]
fn a_commit_of_more_than_there_is_room_for_panics() {
    let (mut producer, _consumer) =
        lane::<HeapWords>(4096, Some(fixture::label(LABEL)), None).unwrap();
    let plain = Plain {
        kind: Kind::Message,
        flags: 0,
        status: 0,
        word: 0,
        subject: LABEL,
        payload: &[],
    };
    assert_eq!(producer.claim(&plain, 10), Ok(true));
    producer.commit(&plain, 5000, 0);
}

#[test]
fn growing_stops_at_the_memory_cap_and_goes_on_when_memory_is_back() {
    let budget = Arc::new(Budget::new(RING_BYTES_MIN + 32_000));
    let (mut producer, mut consumer) =
        lane::<HeapWords>(1 << 20, None, Some(budget.clone())).unwrap();
    let payload = [0; 1000];
    let draft = message(b"s", &payload, 1);
    while producer.push(&draft, 0).is_ok() {}
    assert_eq!(producer.push(&draft, 0), Err(NoRoom::OverBudget));
    assert_eq!(budget.used(), RING_BYTES_MIN);
    let mut record = Vec::new();
    assert!(consumer.next_copied(&mut record).unwrap().is_some());
    consumer.release();
    assert_eq!(
        producer.push(&draft, 0),
        Ok(()),
        "room in the ring needs no memory"
    );

    let budget = Arc::new(Budget::new(RING_BYTES_MIN - 1));
    let refused = lane::<HeapWords>(1 << 20, None, Some(budget.clone()));
    assert_eq!(refused.err(), Some(NoRoom::OverBudget));
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_orphan_is_finished_only_when_all_is_taken_and_released() {
    let (mut producer, mut consumer) = lane::<HeapWords>(RING_BYTES_MIN, None, None).unwrap();
    producer.push(&message(b"last", b"words", 1), 0).unwrap();
    assert!(!consumer.is_finished());
    drop(producer);
    assert!(consumer.state().is_orphan());
    assert!(!consumer.is_finished());
    let mut record = Vec::new();
    assert!(consumer.next_copied(&mut record).unwrap().is_some());
    assert!(!consumer.is_finished(), "its bytes are still read in place");
    consumer.release();
    assert!(consumer.is_finished());
}
