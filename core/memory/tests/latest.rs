//! Promises of a latest queue: the reader sees the newest value of each subject that changed, in
//! the order in which they first did; what was replaced is counted and told; what a batch shows
//! stays as it is; memory does not grow with the updates.

#![cfg(not(loom))]

mod fixture;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastmq_memory::latest::NoSlot;
use fastmq_memory::record::{Draft, Plain, flag};
use fastmq_memory::{Kind, Policy, Pushed, Refused, SlotWriter};

use fixture::{Owned, Place, Random, message, with_seeds};

/// Who counts the sequences.
const PUBLISHER: u64 = 77_000;

fn place() -> Place {
    Place::new(Policy::Latest, 4096)
}

fn slot(place: &Place, subscription: u32, subject: &str) -> SlotWriter {
    place
        .queue
        .latest_slot(subscription, subject.as_bytes(), PUBLISHER)
        .unwrap()
}

fn put(slot: &SlotWriter, payload: &[u8], sequence: u64) {
    let plain = Plain {
        kind: Kind::Message,
        flags: flag::SEQUENCE,
        status: 0,
        word: sequence,
        subject: b"",
        payload,
    };
    assert_eq!(slot.put_plain(&plain), Ok(Pushed::Written));
}

fn subjects(seen: &[Owned]) -> Vec<&str> {
    seen.iter()
        .map(|one| std::str::from_utf8(&one.subject).unwrap())
        .collect()
}

#[test]
fn each_subject_shows_its_newest_value_in_the_order_of_the_first_changes() {
    let place = place();
    let [a, b, c] = ["a", "b", "c"].map(|subject| slot(&place, 7, subject));
    put(&b, b"b1", 1);
    put(&a, b"a1", 1);
    put(&b, b"b2", 2);
    put(&c, b"c1", 1);
    put(&b, b"b3", 3);
    let seen = place.read(100);
    assert_eq!(subjects(&seen), ["b", "a", "c"]);
    let payloads: Vec<_> = seen.iter().map(|one| &one.payload[..]).collect();
    assert_eq!(payloads, [b"b3", b"a1", b"c1"]);
    let told: Vec<_> = seen.iter().map(|one| (one.sequence, one.lost)).collect();
    assert_eq!(told, [(3, 2), (1, 0), (1, 0)]);
    assert!(seen.iter().all(|one| one.subscription == 7));
    assert!(seen.iter().all(|one| one.publisher == PUBLISHER));
    assert_eq!(place.read(100), []);
    // Again: only what has changed since.
    put(&c, b"c2", 2);
    let seen = place.read(100);
    assert_eq!((subjects(&seen), seen[0].lost), (vec!["c"], 0));
}

#[test]
fn a_small_batch_leaves_the_rest_in_order_and_up_to_date() {
    let place = place();
    let slots = ["a", "b", "c", "d"].map(|subject| slot(&place, 1, subject));
    slots.iter().for_each(|slot| put(slot, b"old", 1));
    assert_eq!(subjects(&place.read(2)), ["a", "b"]);
    // `a` changes again: behind those that wait already.
    put(&slots[0], b"new", 2);
    put(&slots[3], b"new", 2);
    let seen = place.read(100);
    assert_eq!(subjects(&seen), ["c", "d", "a"]);
    assert_eq!((&seen[1].payload[..], seen[1].lost), (&b"new"[..], 1));
}

#[test]
fn a_batch_stays_as_it_is_while_writers_go_on() {
    let place = place();
    let slot = slot(&place, 1, "a");
    put(&slot, &[1; 40], 1);
    let mut reader = place.queue.reader().unwrap();
    assert_eq!(reader.fill(10, &|| 0, |_| true), Ok(1));
    let batch = reader.into_batch();
    for round in 2..100 {
        put(&slot, &vec![round as u8; round * 10], round as u64);
    }
    assert_eq!(batch.messages().len(), 1);
    assert_eq!(batch.messages()[0].payload(), [1; 40]);
    assert_eq!(place.queue.statistics().pending, 2);
    drop(batch);
    assert_eq!(place.queue.statistics().pending, 1);
    let seen = place.read(10);
    assert_eq!((&seen[0].payload[..], seen[0].lost), (&[99; 990][..], 97));
}

#[test]
fn two_subscriptions_have_a_value_each() {
    let place = place();
    let (one, two) = (slot(&place, 1, "a"), slot(&place, 2, "a"));
    put(&one, b"x", 1);
    put(&two, b"x", 1);
    put(&two, b"y", 2);
    let seen = place.read(10);
    let told: Vec<_> = seen
        .iter()
        .map(|one| (one.subscription, one.lost))
        .collect();
    assert_eq!(told, [(1, 0), (2, 1)]);
    // The same slot again, whoever asks.
    put(&slot(&place, 1, "a"), b"z", 2);
    put(&one, b"z", 3);
    assert_eq!(place.read(10).len(), 1);
}

#[test]
fn all_fields_travel_and_a_plain_message_after_them_has_none() {
    let place = place();
    let slot = slot(&place, 3, "a.b");
    let draft = Draft {
        flags: flag::SEQUENCE | flag::SIZES | flag::TIMESTAMP,
        sequence: 9,
        timestamp: 77,
        subject: b"a.b",
        payload: b"payload",
        reply_to: b"reply",
        key: b"key",
        headers: b"headers",
        ..Draft::default()
    };
    assert_eq!(slot.put(&draft), Ok(Pushed::Written));
    let seen = place.read(1).remove(0);
    assert_eq!(
        (&seen.payload[..], &seen.reply_to[..]),
        (&b"payload"[..], &b"reply"[..])
    );
    assert_eq!(
        (&seen.key[..], &seen.headers[..]),
        (&b"key"[..], &b"headers"[..])
    );
    assert_eq!((seen.sequence, seen.timestamp, seen.token), (9, 77, 0));
    put(&slot, b"", 10);
    let seen = place.read(1).remove(0);
    let fields = [&seen.payload, &seen.reply_to, &seen.key, &seen.headers];
    assert!(fields.iter().all(|field| field.is_empty()));
    assert_eq!((seen.sequence, seen.timestamp), (10, 0));
}

#[test]
fn a_value_that_expired_is_not_shown_and_does_not_hide_the_next() {
    let place = place();
    let slot = slot(&place, 1, "a");
    let mut draft = message(b"a", b"short", 1);
    draft.flags |= flag::EXPIRY;
    draft.expiry = 100;
    for _ in 0..2 {
        assert_eq!(slot.put(&draft), Ok(Pushed::Written));
    }
    assert_eq!(place.read_at(10, 101), []);
    let figures = place.queue.statistics();
    assert_eq!(
        (figures.expired, figures.replaced, figures.pending),
        (1, 1, 0)
    );
    // The one that was replaced is told by the next that is shown.
    put(&slot, b"next", 2);
    assert_eq!(place.read_at(10, 1000)[0].lost, 1);
    assert_eq!(slot.put(&draft), Ok(Pushed::Written));
    assert_eq!(place.read_at(10, 100).len(), 1);
}

#[test]
fn blocks_of_values_that_are_replaced_read_or_dropped_go_back() {
    let place = place();
    let slot = slot(&place, 1, "a");
    let large = |byte: u8| {
        let payload = vec![byte; 10_000];
        let descriptor = place.blocks.write(&payload, 1).unwrap().to_bytes();
        let mut draft = message(b"a", &descriptor, 1);
        draft.flags |= flag::BLOCK;
        assert_eq!(slot.put(&draft), Ok(Pushed::Written));
    };
    large(1);
    large(2);
    assert_eq!(place.blocks.usage().blocks, 1);
    assert_eq!(place.read(1)[0].payload, [2; 10_000]);
    assert_eq!(place.blocks.usage().blocks, 0);
    large(3);
    put(&slot, b"small", 2);
    assert_eq!(place.read(1)[0].payload, b"small");
    large(4);
    place.queue.close();
    assert!(place.queue.purge(|_, _| ()));
    assert_eq!(place.blocks.usage().blocks, 0);
}

#[test]
fn memory_does_not_grow_with_the_updates_and_comes_back() {
    let place = place();
    let slots: Vec<_> = (0..100)
        .map(|at| slot(&place, 1, &format!("s.{at}")))
        .collect();
    let round = |sequence: u64| slots.iter().for_each(|slot| put(slot, &[5; 300], sequence));
    for sequence in 0..4 {
        round(sequence);
        assert_eq!(place.read(1000).len(), 100);
    }
    let used = place.budget.used();
    for sequence in 4..1000 {
        round(sequence);
        if sequence % 10 == 0 {
            assert_eq!(place.read(1000).len(), 100);
        }
    }
    assert_eq!(place.budget.used(), used);
    drop(slots);
    place.queue.close();
    place.queue.purge(|_, _| ());
    assert_eq!(place.budget.used(), 0);
}

#[test]
fn memory_that_is_refused_leaves_the_value_that_waits() {
    let place = Place::with_memory_max(Policy::Latest, 4096, 4096);
    let slot = slot(&place, 1, "a");
    put(&slot, b"small", 1);
    let large = message(b"a", &[0; 5000], 2);
    assert_eq!(slot.put(&large), Err(Refused::OverBudget));
    slot.count_dropped();
    let seen = place.read(1);
    assert_eq!((&seen[0].payload[..], seen[0].lost), (&b"small"[..], 1));
    let more = (0..100).find_map(|at| place.queue.latest_slot(1, &[b'x', at], 0).err());
    assert_eq!(more, Some(NoSlot::OverBudget));
    let figures = place.queue.statistics();
    assert_eq!((figures.published, figures.dropped), (1, 1));
}

#[test]
fn what_a_subscription_leaves_when_it_ends_goes_at_once_or_when_the_batch_does() {
    let place = place();
    let (one, two) = (slot(&place, 1, "a"), slot(&place, 2, "a"));
    put(&one, b"x", 1);
    put(&two, b"x", 1);
    place.queue.forget_latest(1);
    assert_eq!(place.queue.statistics().pending, 1);
    drop(one);
    let seen = place.read(10);
    assert_eq!((seen.len(), seen[0].subscription), (1, 2));
    put(&two, b"y", 2);
    let mut reader = place.queue.reader().unwrap();
    assert_eq!(reader.fill(10, &|| 0, |_| true), Ok(1));
    let batch = reader.into_batch();
    put(&two, b"z", 3);
    place.queue.forget_latest(2);
    drop(two);
    assert_eq!(batch.messages()[0].payload(), b"y");
    drop(batch);
    // The reader finds it, and the engine knows that nobody wants it.
    let mut reader = place.queue.reader().unwrap();
    assert_eq!(reader.fill(10, &|| 0, |_| false), Ok(0));
    drop(reader);
    assert_eq!(place.budget.used(), 0);
}

#[test]
fn a_closed_queue_tells_its_writers_and_is_emptied_again() {
    let place = place();
    let slot = slot(&place, 1, "a");
    put(&slot, b"x", 1);
    place.queue.close();
    assert!(place.queue.purge(|_, _| ()));
    assert_eq!(slot.put(&message(b"a", b"late", 2)), Err(Refused::Unread));
    assert!(place.queue.purge(|_, _| ()));
    assert_eq!(place.read(10), []);
    drop(slot);
    assert_eq!(place.budget.used(), 0);
}

/// What a model knows of a slot.
#[derive(Default)]
struct Model {
    /// When it first changed, and what waits: payload, sequence, expiry.
    waiting: Option<(u64, Vec<u8>, u64, u64)>,
    lost: u64,
}

#[test]
fn whatever_is_put_and_read_the_model_agrees() {
    const EXPIRY_NEVER: u64 = u64::MAX;
    with_seeds(
        "whatever_is_put_and_read_the_model_agrees",
        60,
        |random: &mut Random| {
            let place = place();
            let mut slots = BTreeMap::new();
            let mut models: BTreeMap<(u32, u64), Model> = BTreeMap::new();
            let (mut now, mut change, mut sequence) = (0, 0, 0);
            let (mut published, mut delivered, mut told, mut expired) = (0, 0, 0, 0);
            for _ in 0..2000 {
                now += random.below(3);
                match random.below(10) {
                    0 => {
                        let limit = 1 + random.below(20) as usize;
                        let seen = place.read_at(limit, now);
                        // What the model says, up to the limit.
                        let mut due: Vec<_> = models
                            .iter()
                            .filter_map(|(key, model)| Some((model.waiting.as_ref()?.0, *key)))
                            .collect();
                        due.sort_unstable();
                        let mut expected = Vec::new();
                        for (_, key) in due {
                            if expected.len() == limit {
                                break;
                            }
                            let model = models.get_mut(&key).unwrap();
                            let (_, payload, sequence, expiry) = model.waiting.take().unwrap();
                            if expiry < now {
                                expired += 1;
                                continue;
                            }
                            let lost = std::mem::take(&mut model.lost);
                            expected.push((key.0, payload, sequence, lost));
                        }
                        let seen: Vec<_> = seen
                            .into_iter()
                            .map(|one| (one.subscription, one.payload, one.sequence, one.lost))
                            .collect();
                        assert_eq!(seen, expected);
                        delivered += seen.len() as u64;
                        told += seen.iter().map(|one| one.3).sum::<u64>();
                    }
                    _ => {
                        let key = (random.below(2) as u32 + 1, random.below(8));
                        let slot = slots
                            .entry(key)
                            .or_insert_with(|| slot(&place, key.0, &format!("s.{}", key.1)));
                        let size = match random.below(20) {
                            0 => 9000,
                            _ => random.below(200) as usize,
                        };
                        let payload = random.bytes(size);
                        sequence += 1;
                        let mut draft = message(b"", &payload, sequence);
                        let mut expiry = EXPIRY_NEVER;
                        if random.one_in(5) {
                            expiry = now + random.below(30);
                            draft.flags |= flag::EXPIRY;
                            draft.expiry = expiry;
                        }
                        let descriptor;
                        if size == 9000 {
                            descriptor = place.blocks.write(&payload, 1).unwrap().to_bytes();
                            draft.payload = &descriptor;
                            draft.flags |= flag::BLOCK;
                            assert_eq!(slot.put(&draft), Ok(Pushed::Written));
                        } else if expiry == EXPIRY_NEVER {
                            put(slot, &payload, sequence);
                        } else {
                            assert_eq!(slot.put(&draft), Ok(Pushed::Written));
                        }
                        published += 1;
                        let model = models.entry(key).or_default();
                        match &mut model.waiting {
                            Some(waiting) => {
                                model.lost += 1;
                                (waiting.1, waiting.2, waiting.3) = (payload, sequence, expiry);
                            }
                            waiting => {
                                change += 1;
                                *waiting = Some((change, payload, sequence, expiry));
                            }
                        }
                    }
                }
                let figures = place.queue.statistics();
                let waiting = models.values().filter(|one| one.waiting.is_some()).count() as u64;
                let untold: u64 = models.values().map(|one| one.lost).sum();
                assert_eq!(figures.published, published);
                assert_eq!(figures.pending, waiting);
                assert_eq!(figures.replaced, told + untold);
                assert_eq!((figures.delivered, figures.expired), (delivered, expired));
                assert_eq!(published, delivered + figures.replaced + expired + waiting);
            }
            drop(slots);
            place.queue.close();
            place.queue.purge(|_, _| ());
            assert_eq!(place.blocks.usage().blocks, 0);
            place.blocks.trim();
            assert_eq!(place.budget.used(), place.blocks.usage().table_bytes);
        },
    );
}

#[test]
fn with_many_writers_no_value_is_torn_and_each_update_is_shown_or_told() {
    const WRITERS: u64 = 3;
    const ROUNDS: u64 = if cfg!(fastmq_tsan) { 2_000 } else { 50_000 };
    const SUBJECTS: u64 = 4;
    let place = Arc::new(place());
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (place, is_over) = (place.clone(), is_over.clone());
        std::thread::spawn(move || {
            let mut newest = BTreeMap::new();
            let (mut delivered, mut told) = (0, 0);
            loop {
                // Before the look: what was put by then is found by it.
                let is_last = is_over.load(Ordering::Acquire);
                let seen = place.read(3);
                if seen.is_empty() && is_last {
                    return (newest, delivered, told);
                }
                for one in seen {
                    let bytes: Vec<_> = one.payload.chunks_exact(8).collect();
                    let sequence = one.sequence.to_le_bytes();
                    assert!(bytes.iter().all(|word| **word == sequence), "a torn value");
                    // The lower digits name the writer, whose updates never go backwards.
                    let key = (one.subject, one.sequence % WRITERS);
                    let before = newest.insert(key, one.sequence);
                    assert!(before.is_none_or(|before| before < one.sequence));
                    delivered += 1;
                    told += one.lost;
                }
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let place = place.clone();
            std::thread::spawn(move || {
                let slots: Vec<_> = (0..SUBJECTS)
                    .map(|at| slot(&place, 1, &format!("s.{at}")))
                    .collect();
                for round in 0..ROUNDS {
                    let sequence = round * WRITERS + writer;
                    let payload = sequence.to_le_bytes().repeat(1 + (sequence % 30) as usize);
                    put(&slots[(round % SUBJECTS) as usize], &payload, sequence);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    is_over.store(true, Ordering::Release);
    let (newest, delivered, told) = reader.join().unwrap();
    assert_eq!(delivered + told, WRITERS * ROUNDS);
    // Of each subject the very last update, whoever made it, was shown.
    for at in 0..SUBJECTS {
        let subject = format!("s.{at}").into_bytes();
        let last = (ROUNDS - 1) / SUBJECTS * SUBJECTS + at;
        let last_of = |writer: u64| last * WRITERS + writer;
        let is_shown = |writer| newest.get(&(subject.clone(), writer)) == Some(&last_of(writer));
        assert!((0..WRITERS).any(is_shown), "subject {at}");
    }
}
