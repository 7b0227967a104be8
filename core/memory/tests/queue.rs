//! Promises of [`fastmq_memory::Queue`] against a model, several writers on one thread: order per
//! writer, nothing lost or doubled under backpressure, every drop counted and told, room that was
//! promised is there, and memory that comes back.

#![cfg(not(loom))]

mod fixture;

use std::sync::Arc;

use fastmq_memory::record::{Draft, Plain, flag};
use fastmq_memory::writer::HOT_MESSAGES;
use fastmq_memory::{Batch, Detached, Label, LaneWriter, Policy, Pushed, Refused, Tried};

use fixture::{Owned, Place, Random, message, request, with_seeds};

const POLICIES: [Policy; 3] = [Policy::Backpressure, Policy::DropOldest, Policy::DropNewest];

/// A queue, its writers, and what each has written and been told.
struct Model {
    place: Place,
    writers: Vec<Writer>,
    next_id: u32,
    /// By id of writer: the sequence of its last message that was read.
    read: Vec<u64>,
    written: u64,
    dropped: u64,
    evicted: u64,
    delivered: u64,
    told: u64,
}

struct Writer {
    lane: LaneWriter,
    id: u32,
    sequence: u64,
}

impl Model {
    fn new(policy: Policy, capacity: u64) -> Self {
        Self {
            place: Place::new(policy, capacity),
            writers: Vec::new(),
            next_id: 0,
            read: Vec::new(),
            written: 0,
            dropped: 0,
            evicted: 0,
            delivered: 0,
            told: 0,
        }
    }

    fn add_writer(&mut self) {
        // As a thread that publishes by subject, and as a handle: that one may claim.
        let label = (self.next_id % 2 == 1).then(|| fixture::label(b"subject"));
        let lane = LaneWriter::new(self.place.queue.clone(), label.as_ref());
        self.writers.push(Writer {
            lane,
            id: self.next_id,
            sequence: 0,
        });
        self.read.push(0);
        self.next_id += 1;
    }

    fn push(&mut self, at: usize, random: &mut Random, size_max: u64) {
        let writer = &mut self.writers[at];
        let payload = random.bytes(random.clone().below(size_max) as usize);
        let sequence = writer.sequence + 1;
        let (subject, id) = (b"subject".as_slice(), writer.id);
        let result = match random.below(4) {
            0 => writer.lane.push(&message(subject, &payload, sequence), id),
            1 => writer
                .lane
                .push_plain(&plain(subject, &payload, sequence), id),
            2 => {
                let result = writer
                    .lane
                    .push_quiet(&message(subject, &payload, sequence), id);
                writer.lane.publish().unwrap();
                result
            }
            _ => {
                let result = writer
                    .lane
                    .push_plain_quiet(&plain(subject, &payload, sequence), id);
                writer.lane.publish().unwrap();
                result
            }
        };
        match result {
            Ok(Pushed::Written) => {
                writer.sequence = sequence;
                self.written += 1;
            }
            Ok(Pushed::Dropped) => {
                assert_eq!(
                    self.place.queue.policy(),
                    Policy::DropNewest,
                    "there is room to make"
                );
                writer.sequence = sequence;
                self.dropped += 1;
            }
            Err(refused) => {
                assert_eq!(refused, Refused::Full);
                assert_eq!(self.place.queue.policy(), Policy::Backpressure);
            }
        }
        self.evicted += writer.lane.take_evicted().len() as u64;
    }

    /// Claims room, lets others write and read, and then commits or abandons.
    fn push_claimed(&mut self, at: usize, random: &mut Random, size_max: u64) {
        let payload = random.bytes(random.clone().below(size_max) as usize);
        let claimed = payload.len() + random.below(30) as usize;
        let empty = plain(b"subject", &[], self.writers[at].sequence + 1);
        match self.writers[at].lane.claim(&empty, claimed) {
            Ok(true) => {}
            Ok(false) => return,
            Err(refused) => {
                assert!(matches!(refused, Refused::Full | Refused::TooLarge));
                return;
            }
        }
        let writer = &mut self.writers[at].lane;
        writer.claimed(&empty, claimed)[..payload.len()].copy_from_slice(&payload);
        for _ in 0..random.below(4) {
            let other = random.below(self.writers.len() as u64) as usize;
            if other != at {
                self.push(other, random, size_max);
            }
        }
        if random.one_in(2) {
            let seen = self.place.read(3);
            self.see(&seen);
        }
        if random.one_in(4) {
            return;
        }
        let writer = &mut self.writers[at];
        let pushed = writer.lane.commit(&empty, payload.len(), writer.id);
        assert_eq!(
            pushed,
            Tried::Written,
            "nobody sleeps, and room was claimed"
        );
        writer.sequence += 1;
        self.written += 1;
    }

    /// Promises room for some copies, lets others write, and then writes or cancels.
    fn push_reserved(&mut self, at: usize, random: &mut Random, size_max: u64) {
        let payload = random.bytes(random.clone().below(size_max) as usize);
        let copies = 1 + random.below(5);
        let draft = message(b"subject", &payload, 0);
        if let Err(refused) = self.writers[at].lane.reserve(&draft, copies) {
            assert!(
                matches!(refused, Refused::Full | Refused::TooLarge),
                "{refused:?}"
            );
            return;
        }
        for _ in 0..random.below(4) {
            let other = random.below(self.writers.len() as u64) as usize;
            if other != at {
                self.push(other, random, size_max);
            }
        }
        let writer = &mut self.writers[at];
        if random.one_in(4) {
            writer.lane.cancel();
            return;
        }
        for _ in 0..copies {
            writer.sequence += 1;
            let draft = message(b"subject", &payload, writer.sequence);
            let pushed = writer.lane.push_reserved(&draft, writer.id);
            assert_eq!(pushed, Ok(Pushed::Written), "room was promised");
            self.written += 1;
        }
    }

    fn see(&mut self, messages: &[Owned]) {
        let policy = self.place.queue.policy();
        for seen in messages {
            let last = &mut self.read[seen.subscription as usize];
            if policy == Policy::Backpressure {
                assert_eq!(seen.sequence, *last + 1, "of writer {}", seen.subscription);
            }
            assert!(seen.sequence > *last, "{} after {last}", seen.sequence);
            *last = seen.sequence;
            self.told += seen.lost;
            self.delivered += 1;
        }
        // Nothing is told that has not been dropped.
        assert!(self.told <= self.dropped + self.evicted);
    }

    /// Reads all, lets every writer say one last word, and balances the books.
    fn finish(mut self) {
        let rest = self.place.read_all();
        self.see(&rest);
        for at in 0..self.writers.len() {
            self.push(at, &mut Random::new(1), 8);
            let rest = self.place.read_all();
            self.see(&rest);
        }
        assert_eq!(self.delivered + self.evicted, self.written);
        assert_eq!(self.told, self.dropped + self.evicted, "every drop is told");
        let statistics = self.place.queue.statistics();
        assert_eq!(statistics.published, self.written);
        assert_eq!(statistics.delivered, self.delivered);
        assert_eq!(statistics.dropped, self.dropped + self.evicted);
        assert_eq!((statistics.pending, statistics.pending_bytes), (0, 0));
        if self.place.queue.policy() == Policy::Backpressure {
            let sequences: Vec<u64> = self.writers.iter().map(|writer| writer.sequence).collect();
            let ids = self.writers.iter().map(|writer| writer.id as usize);
            let read: Vec<u64> = ids.map(|id| self.read[id]).collect();
            assert_eq!(read, sequences);
        }
        self.writers.clear();
        assert!(self.place.read_all().is_empty());
        for _ in 0..100 {
            assert!(self.place.read_all().is_empty());
        }
        assert_eq!(
            self.place.queue.statistics().lanes,
            0,
            "orphaned lanes retire"
        );
        assert_eq!(self.place.budget.used(), 0);
    }
}

fn plain<'a>(subject: &'a [u8], payload: &'a [u8], word: u64) -> Plain<'a> {
    Plain {
        kind: fastmq_memory::Kind::Message,
        flags: flag::SEQUENCE,
        status: 0,
        word,
        subject,
        payload,
    }
}

fn check_policy(test: &str, policy: Policy) {
    with_seeds(test, 120, |random| {
        let capacity = 1 << (12 + random.below(5));
        let mut model = Model::new(policy, capacity);
        let size_max = if random.one_in(2) { 64 } else { capacity / 4 };
        for _ in 0..2 + random.below(3) {
            model.add_writer();
        }
        for _ in 0..600 {
            let at = random.below(model.writers.len() as u64) as usize;
            match random.below(20) {
                0..12 => model.push(at, random, size_max),
                12 if policy == Policy::Backpressure => model.push_reserved(at, random, size_max),
                13 => model.writers[at].lane.sweep(),
                16 => model.push_claimed(at, random, size_max),
                14 if random.one_in(8) && policy == Policy::Backpressure => {
                    // What is in its lane is read; its successor is another writer.
                    model.writers.swap_remove(at);
                    model.add_writer();
                }
                15 => {
                    // A batch stays open while others write.
                    let queue = model.place.queue.clone();
                    let mut reader = queue.reader().unwrap();
                    let limit = 1 + random.below(50) as usize;
                    reader.fill(limit, &|| 0, |_| true).unwrap();
                    let batch = reader.into_batch();
                    let messages = copy(&batch);
                    for _ in 0..random.below(20) {
                        let at = random.below(model.writers.len() as u64) as usize;
                        model.push(at, random, size_max);
                    }
                    assert_eq!(copy(&batch), messages, "a batch in use does not change");
                    drop(batch);
                    model.see(&messages);
                }
                _ => {
                    let messages = model.place.read(1 + random.below(100) as usize);
                    model.see(&messages);
                }
            }
        }
        model.finish();
    });
}

fn copy(batch: &Batch<'_>) -> Vec<Owned> {
    batch.messages().iter().map(Owned::of).collect()
}

#[test]
fn backpressure_neither_loses_nor_doubles_and_keeps_the_order() {
    check_policy("backpressure_neither", Policy::Backpressure);
}

#[test]
fn drop_newest_counts_and_tells_every_drop() {
    check_policy("drop_newest_counts", Policy::DropNewest);
}

#[test]
fn drop_oldest_counts_and_tells_every_drop() {
    check_policy("drop_oldest_counts", Policy::DropOldest);
}

/// With one writer the gap is known: it is between the sequences.
fn check_gaps(policy: Policy, is_own: bool, is_held: bool) {
    let place = Place::new(policy, 4096);
    let mut writer = place.writer();
    let mut sequence = 0;
    let mut last = 0;
    let mut told = 0;
    let see = |messages: &[Owned], last: &mut u64, told: &mut u64| {
        for seen in messages {
            assert_eq!(
                seen.lost,
                seen.sequence - *last - 1,
                "before {}",
                seen.sequence
            );
            *last = seen.sequence;
            *told += seen.lost;
        }
    };
    if is_own {
        for _ in 0..=HOT_MESSAGES {
            sequence += 1;
            let _ = writer.push(&message(b"s", b"", sequence), 0).unwrap();
            see(&place.read_all(), &mut last, &mut told);
        }
        assert!(writer.is_own());
    }
    let payload = [1; 100];
    for round in 0..20 {
        let mut reader = place.queue.reader().unwrap();
        reader
            .fill(if is_held { 7 } else { 1000 }, &|| 0, |_| true)
            .unwrap();
        let batch = reader.into_batch();
        let messages = copy(&batch);
        let open = is_held.then_some(batch);
        for _ in 0..50 + round {
            sequence += 1;
            let _ = writer.push(&message(b"s", &payload, sequence), 0).unwrap();
            writer.sweep();
        }
        drop(open);
        see(&messages, &mut last, &mut told);
        if round % 3 == 0 {
            see(&place.read_all(), &mut last, &mut told);
        }
    }
    see(&place.read_all(), &mut last, &mut told);
    // DropOldest keeps the newest; DropNewest says with the next one what is missing.
    if policy == Policy::DropOldest {
        assert_eq!(last, sequence);
    }
    sequence += 1;
    let _ = writer.push(&message(b"s", b"", sequence), 0).unwrap();
    see(&place.read_all(), &mut last, &mut told);
    assert_eq!(last, sequence);
    assert_eq!(told, place.queue.statistics().dropped);
    assert!(told > 100, "{told} dropped: the queue was not full");
}

#[test]
fn a_gap_is_told_by_the_first_message_after_it() {
    for policy in [Policy::DropOldest, Policy::DropNewest] {
        for (is_own, is_held) in [(false, false), (false, true), (true, false), (true, true)] {
            check_gaps(policy, is_own, is_held);
        }
    }
}

#[test]
fn losses_told_by_a_record_that_is_not_read_are_told_by_the_next() {
    for policy in [Policy::DropNewest, Policy::DropOldest] {
        let place = Place::new(policy, 4096);
        let mut writer = place.writer();
        let payload = [0; 200];
        for sequence in 1..=60 {
            let _ = writer.push(&message(b"s", &payload, sequence), 0).unwrap();
        }
        let mut told: u64 = place.read(1).iter().map(|seen| seen.lost).sum();
        // One that is expired, and one that its visitor leaves out.
        let mut expired = message(b"s", &payload, 61);
        expired.flags |= flag::EXPIRY;
        expired.expiry = 5;
        let _ = writer.push(&expired, 0).unwrap();
        for sequence in 62..=120 {
            let _ = writer.push(&message(b"s", &payload, sequence), 0).unwrap();
        }
        loop {
            let seen = place.read_at(1000, 10);
            if seen.is_empty() {
                break;
            }
            told += seen.iter().map(|seen| seen.lost).sum::<u64>();
        }
        let mut late = message(b"s", &payload, 121);
        late.flags |= flag::EXPIRY;
        late.expiry = 5;
        let _ = writer.push(&late, 0).unwrap();
        assert_eq!(place.read_at(10, 10), []);
        let _ = writer.push(&message(b"s", &payload, 122), 9).unwrap();
        let mut reader = place.queue.reader().unwrap();
        let found = reader.fill(10, &|| 0, |visit| visit.view().subscription_id != 9);
        assert_eq!(found, Ok(0));
        drop(reader);
        let _ = writer.push(&message(b"s", &payload, 123), 0).unwrap();
        told += place.read_all().iter().map(|seen| seen.lost).sum::<u64>();
        let dropped = place.queue.statistics().dropped;
        assert!(dropped > 50, "{dropped}");
        assert_eq!(told, dropped, "{policy:?}");
    }
}

#[test]
fn losses_that_nobody_was_told_outlive_their_lane() {
    for policy in [Policy::DropNewest, Policy::DropOldest] {
        let place = Place::new(policy, 4096);
        let mut writer = place.writer();
        let payload = [0; 200];
        for sequence in 1..=61 {
            let mut brief = message(b"s", &payload, sequence);
            brief.flags |= flag::EXPIRY;
            brief.expiry = 5;
            // The last one, when there is room again, tells what was lost before it.
            if sequence == 61 {
                assert_eq!(place.read_at(1000, 10), []);
            }
            let _ = writer.push(&brief, 0).unwrap();
        }
        assert_eq!(place.read_at(1000, 10), []);
        assert!(writer.is_own());
        drop(writer);
        for _ in 0..100 {
            assert_eq!(place.read_all(), []);
        }
        assert_eq!(place.queue.statistics().lanes, 0);
        let mut other = place.writer();
        let _ = other.push(&message(b"s", &payload, 62), 0).unwrap();
        let told: u64 = place.read_all().iter().map(|seen| seen.lost).sum();
        let dropped = place.queue.statistics().dropped;
        assert!(dropped > 10, "{dropped}");
        assert_eq!(told, dropped, "{policy:?}");
    }
}

#[test]
fn drop_oldest_keeps_the_newest_across_every_growth() {
    for bits in 12..=17 {
        let place = Place::new(Policy::DropOldest, 1 << bits);
        let mut writer = place.writer();
        // Its own lane from here on: what waits in the shared one is not its to evict.
        let before = u64::from(HOT_MESSAGES) + 1;
        for sequence in 1..=before {
            let _ = writer.push(&message(b"s", b"", sequence), 0).unwrap();
            assert_eq!(place.read_all().len(), 1);
        }
        let payload = vec![3; 500];
        let count = before + (4 << bits) / 500_u64;
        for sequence in before + 1..=count {
            let pushed = writer.push(&message(b"s", &payload, sequence), 0);
            assert_eq!(pushed, Ok(Pushed::Written), "{sequence} in {bits} bits");
        }
        let seen: Vec<u64> = place.read_all().iter().map(|seen| seen.sequence).collect();
        let first = seen[0];
        assert_eq!(
            seen,
            (first..=count).collect::<Vec<u64>>(),
            "the newest, without a hole"
        );
        let kept = seen.len() as u64 * 536;
        assert!(kept > (1 << bits) / 2, "{kept} bytes kept of {}", 1 << bits);
    }
}

#[test]
fn a_large_message_makes_its_own_room() {
    let place = Place::new(Policy::DropOldest, 1 << 16);
    let mut writer = place.writer();
    for sequence in 1..=5000 {
        let _ = writer.push(&message(b"s", b"small", sequence), 0).unwrap();
    }
    let payload = vec![1; (1 << 15) - 40];
    let pushed = writer.push(&message(b"s", &payload, 5001), 0);
    assert_eq!(pushed, Ok(Pushed::Written));
    let seen = place.read_all();
    assert_eq!(seen.last().unwrap().payload, payload);
    let told: u64 = seen.iter().map(|seen| seen.lost).sum();
    assert_eq!(told, writer.take_evicted().len() as u64);
}

#[test]
fn a_request_is_refused_rather_than_dropped() {
    for policy in POLICIES {
        let place = Place::new(policy, 4096);
        let mut writer = place.writer();
        let payload = [0; 1000];
        let mut waiting = 0;
        let refused = loop {
            match writer.push(&request(b"s", &payload, waiting + 1), 0) {
                Ok(pushed) => assert_eq!(pushed, Pushed::Written),
                Err(refused) => break refused,
            }
            waiting += 1;
        };
        assert_eq!(refused, Refused::Full);
        let tokens: Vec<u64> = place.read_all().iter().map(|seen| seen.token).collect();
        assert_eq!(tokens, (1..=waiting).collect::<Vec<u64>>());
        assert_eq!(place.queue.statistics().dropped, 0);
    }
}

#[test]
fn an_evicted_request_names_its_token() {
    let place = Place::new(Policy::DropOldest, 4096);
    let mut writer = place.writer();
    let payload = [0; 1000];
    let _ = writer.push(&request(b"s", &payload, 77), 5).unwrap();
    for sequence in 1..=4 {
        let _ = writer.push(&message(b"s", &payload, sequence), 6).unwrap();
    }
    assert!(writer.has_evicted());
    let evicted = writer.take_evicted();
    assert_eq!((evicted[0].subscription, evicted[0].token), (5, 77));
    assert!(
        evicted[1..]
            .iter()
            .all(|record| (record.subscription, record.token) == (6, 0))
    );
    assert!(!writer.has_evicted());
}

#[test]
fn a_hot_writer_moves_at_once_and_its_order_is_kept_while_the_reader_is_behind() {
    for policy in POLICIES {
        let place = Place::new(policy, 1 << 20);
        let mut writers = [place.writer(), place.writer(), place.writer()];
        let count = u64::from(HOT_MESSAGES) * 4;
        for sequence in 1..=count {
            for (id, writer) in writers.iter_mut().enumerate() {
                let _ = writer
                    .push(&message(b"s", b"", sequence), id as u32)
                    .unwrap();
            }
        }
        assert!(
            writers.iter().all(LaneWriter::is_own),
            "{policy:?}: nobody has read yet"
        );
        let mut last = [0; 3];
        // The shared lane's last records are in the open batch while the own lanes hold more.
        loop {
            let mut reader = place.queue.reader().unwrap();
            let found = reader.fill(7, &|| 0, |_| true).unwrap();
            let found_more = reader.fill(20, &|| 0, |_| true).unwrap();
            assert!(found <= found_more);
            let batch = reader.into_batch();
            for seen in copy(&batch) {
                let last = &mut last[seen.subscription as usize];
                assert_eq!(seen.sequence, *last + 1);
                *last = seen.sequence;
            }
            if batch.messages().is_empty() {
                break;
            }
        }
        assert_eq!(last, [count; 3]);
    }
}

#[test]
fn a_label_stands_for_subject_and_publisher_in_the_own_lane_and_in_the_shared_one() {
    for policy in POLICIES {
        let place = Place::new(policy, 1 << 16);
        let label = b"flight.LAX.JFK";
        let publisher = 0x0123_4567_89ab_cdef;
        let mine = Label {
            subject: Arc::from(&label[..]),
            publisher,
        };
        let mut writer = LaneWriter::new(place.queue.clone(), Some(&mine));
        for sequence in 1..=100 {
            let _ = writer
                .push(&message(label, b"delayed", sequence), 3)
                .unwrap();
            if sequence % 5 == 0 {
                for seen in place.read_all() {
                    assert_eq!(
                        (&seen.subject[..], &seen.payload[..]),
                        (&label[..], &b"delayed"[..])
                    );
                    assert_eq!(seen.publisher, publisher);
                }
            }
        }
        assert!(writer.is_own());
    }
}

#[test]
fn promised_room_survives_other_writers_growth_and_several_copies() {
    with_seeds("promised_room", 200, |random| {
        let capacity = 1 << (12 + random.below(4));
        let place = Place::new(Policy::Backpressure, capacity);
        let mut writers: Vec<LaneWriter> = (0..3).map(|_| place.writer()).collect();
        let mut promised: Vec<Option<(Vec<u8>, u64)>> = vec![None; 3];
        let mut written = 0;
        for _ in 0..200 {
            let at = random.below(3) as usize;
            let writer = &mut writers[at];
            match promised[at].take() {
                Some((payload, copies)) if random.one_in(2) => {
                    if random.one_in(3) {
                        writer.cancel();
                        continue;
                    }
                    for _ in 0..copies {
                        let pushed = writer.push_reserved(&message(b"s", &payload, 1), 0);
                        assert_eq!(pushed, Ok(Pushed::Written));
                        written += 1;
                    }
                }
                Some(promise) => promised[at] = Some(promise),
                None if random.one_in(3) => {
                    let size = random.below(capacity / 3) as usize;
                    let payload = random.bytes(size);
                    let copies = 1 + random.below(4);
                    if writer.reserve(&message(b"s", &payload, 1), copies).is_ok() {
                        promised[at] = Some((payload, copies));
                    }
                }
                None => {
                    let size = random.below(100) as usize;
                    let payload = random.bytes(size);
                    written += u64::from(writer.push(&message(b"s", &payload, 1), 0).is_ok());
                }
            }
            if random.one_in(10) {
                written -= place.read(random.below(50) as usize).len() as u64;
            }
        }
        for (writer, promise) in writers.iter_mut().zip(&promised) {
            let Some((payload, copies)) = promise else {
                continue;
            };
            for _ in 0..*copies {
                let pushed = writer.push_reserved(&message(b"s", payload, 1), 0);
                assert_eq!(pushed, Ok(Pushed::Written));
                written += 1;
            }
        }
        assert_eq!(place.read_all().len() as u64, written);
        drop(writers);
    });
}

#[test]
fn copies_that_can_never_fit_together_are_refused_for_good() {
    for is_own in [false, true] {
        let place = Place::new(Policy::Backpressure, 8192);
        let mut writer = place.writer();
        if is_own {
            for sequence in 0..=u64::from(HOT_MESSAGES) {
                let _ = writer.push(&message(b"s", b"", sequence), 0).unwrap();
                assert_eq!(place.read_all().len(), 1);
            }
            assert!(writer.is_own());
        }
        let payload = [0; 2500];
        let refused = writer.reserve(&message(b"s", &payload, 1), 4);
        assert_eq!(refused, Err(Refused::TooLarge), "own: {is_own}");
        assert_eq!(writer.reserve(&message(b"s", &payload, 1), 1), Ok(()));
        writer.cancel();
    }
}

#[test]
fn an_empty_lane_refuses_no_promise_for_now_wherever_it_stands() {
    for is_own in [false, true] {
        let place = Place::new(Policy::Backpressure, 4096);
        let mut writer = place.writer();
        let payload = [0; 2100];
        let (mut kept, mut refused) = (0, 0);
        for sequence in 0..200 {
            for size in (0..payload.len()).step_by(100) {
                for copies in 1..=3 {
                    let draft = message(b"s", &payload[..size], sequence);
                    match writer.reserve(&draft, copies) {
                        Ok(()) => kept += 1,
                        Err(Refused::TooLarge) => refused += 1,
                        other => panic!("{size} {copies} {other:?}"),
                    }
                    writer.cancel();
                }
            }
            if !is_own && sequence % 10 == 0 {
                writer = place.writer();
            }
            let _ = writer
                .push(&message(b"s", &payload[..150], sequence), 0)
                .unwrap();
            assert_eq!(place.read_all().len(), 1);
        }
        assert!(kept > 1000 && refused > 1000, "{kept} {refused}");
    }
}

#[test]
fn expired_messages_are_skipped_counted_and_hide_nothing_behind_them() {
    for policy in POLICIES {
        let place = Place::new(policy, 1 << 16);
        let mut writer = place.writer();
        let mut expired = 0;
        for sequence in 1..=1000 {
            let mut draft = message(b"s", b"0123456789", sequence);
            if sequence % 200 != 0 {
                draft.flags |= flag::EXPIRY;
                draft.expiry = 99;
                expired += 1;
            }
            let _ = writer.push(&draft, 0).unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let found = place.read_at(10, 100);
            assert!(
                !found.is_empty(),
                "{policy:?}: something waits behind what is expired"
            );
            seen.extend(found.iter().map(|seen| seen.sequence));
        }
        assert_eq!(seen, [200, 400, 600, 800, 1000]);
        assert_eq!(place.read_at(10, 100), []);
        let statistics = place.queue.statistics();
        assert_eq!((statistics.expired, statistics.delivered), (expired, 5));
        assert_eq!((statistics.pending, statistics.dropped), (0, 0));
        // A message expires after its nanosecond, not at it.
        let draft = Draft {
            flags: flag::EXPIRY,
            expiry: 100,
            subject: b"s",
            ..Draft::default()
        };
        let _ = writer.push(&draft, 0).unwrap();
        assert_eq!(place.read_at(10, 100).len(), 1);
    }
}

#[test]
fn lanes_of_writers_that_left_retire_and_their_memory_comes_back() {
    for policy in POLICIES {
        let place = Place::new(policy, 1 << 20);
        for round in 0..10 {
            let mut writers: Vec<LaneWriter> = (0..5).map(|_| place.writer()).collect();
            for sequence in 1..=100 {
                for writer in &mut writers {
                    let _ = writer.push(&message(b"s", &[7; 200], sequence), 0).unwrap();
                }
                if sequence % 10 == 0 {
                    place.read_all();
                }
            }
            assert!(writers.iter().all(LaneWriter::is_own), "round {round}");
            assert!(place.queue.statistics().lanes >= 5);
            assert!(place.budget.used() > 0);
            // They leave while a batch is open, and with messages in their lanes.
            for writer in &mut writers {
                let _ = writer.push(&message(b"s", b"last", 101), 1).unwrap();
            }
            let mut reader = place.queue.reader().unwrap();
            reader.fill(2, &|| 0, |_| true).unwrap();
            let batch = reader.into_batch();
            drop(writers);
            assert!(
                batch
                    .messages()
                    .iter()
                    .all(|view| view.payload() == b"last")
            );
            drop(batch);
            assert_eq!(place.read_all().len(), 3);
        }
        for _ in 0..100 {
            assert!(place.read_all().is_empty());
        }
        assert_eq!(place.queue.statistics().lanes, 0);
        assert_eq!(place.budget.used(), 0, "{policy:?}");
        assert_eq!(place.queue.statistics().published, 10 * 5 * 101);
    }
}

#[test]
fn lanes_of_writers_that_left_retire_while_others_go_on() {
    let place = Place::new(Policy::Backpressure, 1 << 16);
    let mut steady = place.writer();
    let mut lanes_max = 0;
    for round in 0..500 {
        let mut brief = place.writer();
        for sequence in 1..=u64::from(HOT_MESSAGES) + 2 {
            let _ = brief.push(&message(b"s", b"brief", sequence), 1).unwrap();
            let _ = steady.push(&message(b"s", b"steady", round), 0).unwrap();
            // The reader always finds something.
            assert!(!place.read(1000).is_empty());
        }
        assert!(brief.is_own());
        lanes_max = lanes_max.max(place.queue.statistics().lanes);
    }
    assert!(lanes_max <= 8, "{lanes_max} lanes for two writers");
}

#[test]
fn an_idle_own_lane_is_given_back_and_made_again() {
    let place = Place::new(Policy::Backpressure, 1 << 20);
    let mut writer = place.writer();
    let mut sequence = 0;
    let mut last = 0;
    for _ in 0..5 {
        for _ in 0..40 {
            sequence += 1;
            let _ = writer.push(&message(b"s", b"", sequence), 0).unwrap();
            if sequence % 7 == 0 {
                for seen in place.read_all() {
                    assert_eq!(seen.sequence, last + 1);
                    last = seen.sequence;
                }
            }
        }
        assert!(writer.is_own());
        writer.sweep();
        assert!(writer.is_own(), "it was used since the last sweep");
        writer.sweep();
        assert!(writer.is_own(), "something waits in it");
        for seen in place.read_all() {
            assert_eq!(seen.sequence, last + 1);
            last = seen.sequence;
        }
        writer.sweep();
        assert!(!writer.is_own());
    }
    for _ in 0..100 {
        place.read_all();
    }
    assert_eq!(
        (last, place.queue.statistics().lanes, place.budget.used()),
        (sequence, 0, 0)
    );
}

#[test]
fn over_budget_refuses_what_needs_memory_and_recovers() {
    let place = Place::with_memory_max(Policy::Backpressure, 1 << 20, 4096 + 32_768);
    let mut writer = place.writer();
    let payload = [0; 500];
    let mut count = 0;
    let refused = loop {
        match writer.push(&message(b"s", &payload, count + 1), 0) {
            Ok(_) => count += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::OverBudget);
    assert!(count > 50, "{count}");
    assert!(place.budget.used() <= place.budget.max());
    // Another queue of the same client has nothing left either.
    let mut second = place.writer();
    assert_eq!(
        second.push(&message(b"s", &payload, 1), 1),
        Err(Refused::OverBudget)
    );
    let seen: Vec<u64> = place
        .read_all()
        .iter()
        .filter(|seen| seen.subscription == 0)
        .map(|s| s.sequence)
        .collect();
    assert_eq!(seen, (1..=count).collect::<Vec<u64>>());
    for sequence in count + 1..=count + 200 {
        let _ = writer.push(&message(b"s", &payload, sequence), 0).unwrap();
        assert_eq!(place.read_all()[0].sequence, sequence);
    }

    let none = Place::with_memory_max(Policy::Backpressure, 1 << 20, 1000);
    let mut writer = none.writer();
    assert_eq!(
        writer.push(&message(b"s", b"", 1), 0),
        Err(Refused::OverBudget)
    );
    assert_eq!(
        writer.reserve(&message(b"s", b"", 1), 1),
        Err(Refused::OverBudget)
    );
    assert_eq!(none.budget.used(), 0);
}

#[test]
fn a_closed_queue_refuses_and_a_purge_waits_for_the_open_batch() {
    for policy in POLICIES {
        let place = Place::new(policy, 1 << 16);
        let mut writer = place.writer();
        let mut hot = place.writer();
        for sequence in 1..=50 {
            let _ = hot.push(&message(b"s", b"hot", sequence), 2).unwrap();
            if sequence % 4 == 0 {
                place.read_all();
            }
        }
        assert!(hot.is_own());
        place.read_all();
        for sequence in 1..=10 {
            let _ = writer.push(&message(b"s", b"open", sequence), 1).unwrap();
            let _ = hot.push(&message(b"s", b"hot", 50 + sequence), 2).unwrap();
        }
        let mut reader = place.queue.reader().unwrap();
        reader.fill(5, &|| 0, |_| true).unwrap();
        let batch = reader.into_batch();
        let messages = copy(&batch);
        assert!(place.queue.reader().is_err(), "one batch at a time");
        assert!(place.queue.close());
        assert!(!place.queue.close(), "once");
        assert_eq!(
            writer.push(&message(b"s", b"", 11), 1),
            Err(Refused::Closed)
        );
        assert_eq!(
            writer.reserve(&message(b"s", b"", 11), 1),
            Err(Refused::Closed)
        );
        let mut purged = 0;
        assert!(!place.queue.purge(|_, _| purged += 1), "a batch is open");
        assert_eq!(purged, 0);
        assert_eq!(copy(&batch), messages, "and stays readable");
        drop(batch);
        assert!(place.queue.purge(|_, _| purged += 1));
        assert_eq!(purged, 15);
        // It may still write into its own lane, and is told that nobody reads.
        assert_eq!(hot.push(&message(b"s", b"", 61), 1), Err(Refused::Unread));
        let statistics = place.queue.statistics();
        assert_eq!((statistics.lanes, statistics.pending), (0, 0));
        drop((writer, hot));
        assert!(place.queue.purge(|_, _| purged += 1));
        assert_eq!(purged, 16, "the last one is found when its writer has gone");
        assert_eq!(place.budget.used(), 0);
        assert_eq!(place.read_all(), []);
    }
}

#[test]
fn a_detached_batch_outlives_the_queue() {
    for policy in POLICIES {
        let place = Place::new(policy, 1 << 16);
        let mut writer = place.writer();
        let mut random = Random::new(3);
        let mut drafts = Vec::new();
        for _ in 0..40 {
            let mut field = |max| random.bytes(random.clone().below(max) as usize);
            drafts.push([field(300), field(50), field(30), field(30), field(30)]);
        }
        for [payload, subject, reply_to, key, headers] in &drafts {
            let draft = Draft {
                flags: flag::SIZES | flag::SEQUENCE | flag::TIMESTAMP,
                sequence: 4,
                timestamp: 5,
                subject: if subject.is_empty() { b"s" } else { subject },
                payload,
                reply_to,
                key,
                headers,
                ..Draft::default()
            };
            let _ = writer.push(&draft, 8).unwrap();
        }
        let mut reader = place.queue.reader().unwrap();
        reader
            .fill(100, &|| 0, |visit| {
                visit.set_tag(6);
                true
            })
            .unwrap();
        let batch = reader.into_batch();
        assert!(batch.messages().len() > 4);
        let before = copy(&batch);
        let detached: Detached = batch.detach().expect("memory");
        drop(batch);
        drop(writer);
        drop(place);
        let after: Vec<Owned> = detached.messages().iter().map(Owned::of).collect();
        assert_eq!(before, after);
        assert!(detached.messages().iter().all(|view| view.tag == 6));
    }
}

#[test]
fn a_waiting_message_is_seen_by_a_look_that_takes_nothing() {
    for policy in POLICIES {
        let place = Place::new(policy, 4096);
        let mut writer = place.writer();
        assert_eq!(place.queue.has_waiting(), Some(false));
        let _ = writer.push(&message(b"s", b"", 1), 0).unwrap();
        assert_eq!(place.queue.has_waiting(), Some(true));
        assert_eq!(place.queue.has_waiting(), Some(true));
        assert_eq!(place.read_all().len(), 1);
        assert_eq!(place.queue.has_waiting(), Some(false));
    }
}
