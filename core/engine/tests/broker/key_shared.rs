//! Key-shared groups: one member for each key, in order, nothing lost and nothing twice, whoever
//! comes, goes and stalls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::steps::*;
use fastmq_engine::memory::Policy;
use fastmq_engine::{
    Broker, Delivery, GroupMode, Message, Place, Publisher, Result, Status, SubscribeOptions,
    Subscription,
};

/// A member by key.
fn by_key<'a>() -> SubscribeOptions<'a> {
    SubscribeOptions {
        group: b"workers",
        group_mode: GroupMode::KeyShared,
        ..SubscribeOptions::default()
    }
}

fn member_on(broker: &Arc<Broker>, queue: &Arc<Place>, weight: u32) -> Result<Subscription> {
    let options = SubscribeOptions {
        queue: Some(queue),
        tag: 7,
        weight,
        ..by_key()
    };
    broker.subscribe_with(b"job.*", options)
}

/// A member with a queue of its own, of the smallest capacity.
fn member(broker: &Arc<Broker>) -> (Arc<Place>, Subscription) {
    member_with(broker, SMALL)
}

/// A member with room for all, whoever has how many of the keys.
fn roomy_member(broker: &Arc<Broker>) -> (Arc<Place>, Subscription) {
    member_with(broker, 64 << 10)
}

fn member_with(broker: &Arc<Broker>, capacity: u64) -> (Arc<Place>, Subscription) {
    let queue = queue(broker, Policy::Backpressure, capacity);
    let subscription = member_on(broker, &queue, 0).unwrap();
    (queue, subscription)
}

fn publish_key(broker: &Arc<Broker>, key: &str, number: u64) -> Result<()> {
    let payload = number.to_le_bytes();
    let message = Message {
        subject: b"job.new",
        key: key.as_bytes(),
        payload: &payload,
        ..Message::default()
    };
    client(broker, |client| client.writer.publish_message(&message))
}

/// The key and the number of each message that waits.
fn take_keys(broker: &Broker, queue: &Place) -> Vec<(String, u64)> {
    let mut seen = Vec::new();
    while let Ok(batch) = queue.receive(broker, 100, 0) {
        for view in batch.messages() {
            let key = String::from_utf8(view.key().to_vec()).unwrap();
            seen.push((key, number_of(view.payload())));
        }
    }
    seen
}

/// Asserts that each key has come to one of the queues, in order.
fn check_keys(all: &[Vec<(String, u64)>], keys: u64, each: u64) {
    let mut owners: HashMap<&str, usize> = HashMap::new();
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for (index, seen) in all.iter().enumerate() {
        for (key, number) in seen {
            assert_eq!(*owners.entry(key).or_insert(index), index, "{key} at two");
            let count = counts.entry(key).or_default();
            assert_eq!(*number, *count, "{key} out of order");
            *count += 1;
        }
    }
    assert_eq!(counts.len() as u64, keys);
    assert!(counts.values().all(|count| *count == each), "{counts:?}");
}

#[test]
fn each_key_goes_to_one_member_in_order_and_the_subject_is_the_key_of_a_message_without() {
    let broker = open();
    let members: Vec<_> = (0..4).map(|_| roomy_member(&broker)).collect();
    for number in 0..5 {
        for key in 0..50 {
            publish_key(&broker, &format!("k{key}"), number).unwrap();
        }
    }
    let take = |(queue, _): &(Arc<Place>, Subscription)| take_keys(&broker, queue);
    let all: Vec<_> = members.iter().map(take).collect();
    check_keys(&all, 50, 5);
    assert!(
        all.iter().all(|seen| !seen.is_empty()),
        "all share the work"
    );

    for number in 0..5 {
        for subject in 0..50 {
            publish_number(&broker, &format!("job.{subject}"), number).unwrap();
        }
    }
    let mut owners = HashMap::new();
    for (index, (queue, subscription)) in members.iter().enumerate() {
        for seen in take_all(&broker, queue) {
            assert_eq!((seen.id, seen.tag), (subscription.id(), 7));
            let owner = owners.entry(seen.subject.clone()).or_insert((index, 0));
            assert_eq!(*owner, (index, seen.number()), "{}", seen.subject);
            owner.1 += 1;
        }
    }
    assert_eq!(owners.len(), 50);
    // As a key, a subject is like any other: the same bytes have the same member.
    publish_key(&broker, "job.0", 0).unwrap();
    let mut handle = Publisher::open(&broker, b"job.0").unwrap();
    handle.publish(&0u64.to_le_bytes()).unwrap();
    let (queue, _) = &members[owners["job.0"].0];
    assert_eq!(take_numbers(&broker, queue), [0, 0]);
}

#[test]
fn a_member_that_joins_gets_a_key_once_the_other_has_handled_what_it_has() {
    let broker = open();
    let (a, _a) = member(&broker);
    for key in 0..20 {
        publish_key(&broker, &format!("k{key}"), 0).unwrap();
    }
    let (b, _b) = member(&broker);
    let refused: Vec<u64> = (0..20)
        .filter(|key| {
            let result = publish_key(&broker, &format!("k{key}"), 1);
            assert!(matches!(status(&result), Status::Ok | Status::Again));
            result.is_err()
        })
        .collect();
    // Half of the keys have moved; they wait, the others go on.
    assert!((2..19).contains(&refused.len()), "{}", refused.len());
    assert!(take_keys(&broker, &b).is_empty());
    {
        // In an open batch they are not handled yet.
        let batch = a.receive(&broker, 1000, 0).unwrap();
        assert_eq!(batch.messages().len(), 40 - refused.len());
        let key = format!("k{}", refused[0]);
        check(publish_key(&broker, &key, 1), Status::Again);
    }
    for key in &refused {
        publish_key(&broker, &format!("k{key}"), 1).unwrap();
    }
    let came: Vec<_> = take_keys(&broker, &b);
    let expected: Vec<_> = refused.iter().map(|key| (format!("k{key}"), 1)).collect();
    assert_eq!(came, expected);
    assert!(take_keys(&broker, &a).is_empty());
}

#[test]
fn a_stalled_member_keeps_its_keys_and_others_go_on() {
    let broker = open();
    let (a, _a) = member(&broker);
    let (b, _b) = member(&broker);
    let mut counts = [0u64; 40];
    let mut refused = [0u64; 40];
    let mut got = Vec::new();
    for _ in 0..400 {
        for key in 0..40 {
            match publish_key(&broker, &format!("k{key}"), counts[key]) {
                Ok(()) => counts[key] += 1,
                Err(error) => {
                    assert_eq!(error.status(), Status::Again);
                    refused[key] += 1;
                }
            }
        }
        got.extend(take_keys(&broker, &b));
    }
    for (key, refused) in refused.iter().enumerate() {
        let of_a = *refused > 0;
        let is_mine = |(name, _): &&(String, u64)| *name == format!("k{key}");
        let at_b = got.iter().filter(is_mine).count() as u64;
        assert_eq!(at_b, if of_a { 0 } else { 400 });
    }
    let late = take_keys(&broker, &a);
    assert!(!late.is_empty());
    for (key, number) in &late {
        let key: usize = key[1..].parse().unwrap();
        assert!(refused[key] > 0 && *number < counts[key]);
    }
}

#[test]
fn what_a_member_that_leaves_has_not_read_comes_first_at_the_new_owner() {
    for how in ["close", "unsubscribe", "batch"] {
        let broker = open();
        let (a, subscription) = roomy_member(&broker);
        let (b, _b) = roomy_member(&broker);
        for number in 0..3 {
            for key in 0..32 {
                publish_key(&broker, &format!("k{key}"), number).unwrap();
            }
        }
        let mut at_a = Vec::new();
        let mut refused = 0;
        match how {
            "close" => broker.close_queue(&a),
            "unsubscribe" => {
                subscription.unsubscribe();
                // The queue stays; whoever reads it meets them.
                assert!(take_keys(&broker, &a).is_empty());
            }
            _ => {
                let batch = a.receive(&broker, 5, 0).unwrap();
                at_a.extend(batch.messages().iter().map(|view| {
                    let key = String::from_utf8(view.key().to_vec()).unwrap();
                    (key, number_of(view.payload()))
                }));
                broker.close_queue(&a);
                // Shown and not handled, or not yet handed over.
                for (key, _) in &at_a {
                    check(publish_key(&broker, key, 9), Status::Again);
                    refused += 1;
                }
            }
        }
        // As whoever ends a batch does; `receive` does it too.
        a.finish(&broker);
        // Not before the copies were handled.
        let mut waiting = 0;
        for key in 0..32 {
            let result = publish_key(&broker, &format!("k{key}"), 3);
            waiting += u64::from(result.is_err());
        }
        assert!(
            (4..28).contains(&waiting),
            "{how}: {waiting} keys have moved"
        );
        let mut at_b = take_keys(&broker, &b);
        for key in 0..32 {
            let name = format!("k{key}");
            if !at_b.contains(&(name.clone(), 3)) {
                waiting -= 1;
                publish_key(&broker, &name, 3).unwrap();
            }
        }
        assert_eq!(waiting, 0);
        at_b.extend(take_keys(&broker, &b));
        let mut next = HashMap::new();
        for (key, number) in at_a.iter().chain(&at_b) {
            let expected = next.entry(key.clone()).or_insert(0);
            assert_eq!(number, expected, "{how}: {key}");
            *expected += 1;
        }
        assert_eq!(next.values().sum::<u64>(), 32 * 4, "{how}");
        assert_eq!(refused, at_a.len());
        assert_eq!(broker.statistics().dropped, 0);
    }
}

#[test]
fn what_is_handed_over_expires_when_it_would_have() {
    const TTL_NS: u64 = 10 * MILLISECOND;
    let (broker, driver) = open_simulated(4);
    let publish = |number: u64, ttl_ns| {
        let message = Message {
            subject: b"job.new",
            payload: &number.to_le_bytes(),
            ttl_ns,
            ..Message::default()
        };
        client(&broker, |client| client.writer.publish_message(&message)).unwrap();
    };
    let numbers = |queue: &Place| {
        let taken = take_keys(&broker, queue).into_iter();
        taken.map(|(_, number)| number).collect::<Vec<_>>()
    };
    let (first, leaving) = roomy_member(&broker);
    // One that lives long enough, one that does not, and one that lives for ever.
    publish(1, 3 * TTL_NS);
    publish(2, TTL_NS);
    publish(3, 0);
    let (second, next) = roomy_member(&broker);
    leaving.unsubscribe();
    broker.close_queue(&first);
    driver.advance(TTL_NS + MILLISECOND);
    let (third, last) = roomy_member(&broker);
    // Handed over again, by a member that has not read them either.
    next.unsubscribe();
    broker.close_queue(&second);
    assert_eq!(numbers(&third), [1, 3]);
    assert_eq!(third.statistics().expired, 1);
    // Those that the reader of a queue finds which stays open.
    publish(4, TTL_NS);
    publish(5, 0);
    let (fourth, _staying) = roomy_member(&broker);
    last.unsubscribe();
    assert_eq!(numbers(&third), []);
    assert_eq!(numbers(&third), []);
    driver.advance(2 * TTL_NS);
    assert_eq!(numbers(&fourth), [5]);
    assert_eq!(broker.statistics().dropped, 0);
}

#[test]
fn what_was_handed_over_goes_on_when_its_new_owner_leaves_too() {
    let broker = open();
    let mut members: Vec<_> = (0..5).map(|_| roomy_member(&broker)).collect();
    for number in 0..4 {
        for key in 0..40 {
            publish_key(&broker, &format!("k{key}"), number).unwrap();
        }
    }
    while members.len() > 1 {
        let (queue, subscription) = members.remove(0);
        subscription.unsubscribe();
        broker.close_queue(&queue);
    }
    let (queue, subscription) = &members[0];
    assert_eq!(queue.statistics().pending, queue.statistics().published);
    let seen = take_keys(&broker, queue);
    check_keys(std::slice::from_ref(&seen), 40, 4);
    assert_eq!(subscription.counts().0, 160);
    // Without members they are gone, like what is published then.
    publish_key(&broker, "k", 0).unwrap();
    subscription.unsubscribe();
    assert!(take_keys(&broker, queue).is_empty());
    publish_key(&broker, "k", 1).unwrap();
    let again = member_on(&broker, queue, 0).unwrap();
    publish_key(&broker, "k", 2).unwrap();
    assert_eq!(take_keys(&broker, queue), [("k".into(), 2)]);
    again.unsubscribe();
}

#[test]
fn a_handler_that_leaves_gives_the_copies_that_it_was_shown_back_in_their_place() {
    for limit in [2, 3, 100] {
        let broker = open();
        let (a, _a) = member(&broker);
        let seen: Arc<Mutex<Vec<(String, u64)>>> = Arc::default();
        let leaver: Arc<Mutex<Option<Subscription>>> = Arc::default();
        let (see, leave) = (seen.clone(), leaver.clone());
        let options = SubscribeOptions {
            delivery: Delivery::Dispatch,
            on_message: Some(Box::new(move |view| {
                let key = String::from_utf8(view.key().to_vec()).unwrap();
                see.lock().unwrap().push((key, number_of(view.payload())));
                let left = leave.lock().unwrap().take();
                left.unwrap().unsubscribe();
            })),
            ..by_key()
        };
        for number in 0..5 {
            for key in 0..4 {
                publish_key(&broker, &format!("k{key}"), number).unwrap();
            }
        }
        *leaver.lock().unwrap() = Some(broker.subscribe_with(b"job.*", options).unwrap());
        broker.close_queue(&a);
        let (b, _b) = member(&broker);
        broker.dispatch(limit, 0).unwrap();
        broker.dispatch(0, 0).unwrap();
        let mut all = seen.lock().unwrap().clone();
        assert_eq!(all.len(), 1, "it is not called again");
        all.extend(take_keys(&broker, &b));
        let mut next = HashMap::new();
        for (key, number) in &all {
            let expected = next.entry(key.clone()).or_insert(0);
            assert_eq!(number, expected, "limit {limit}: {key}");
            *expected += 1;
        }
        assert_eq!(all.len(), 20);
    }
}

#[test]
fn a_request_that_its_member_has_not_read_is_cancelled() {
    use fastmq_engine::{Requester, RequesterOptions};
    let broker = open();
    let (a, subscription) = member(&broker);
    let (_b, _other) = member(&broker);
    let mut requesters: Vec<_> = (0..20)
        .map(|number| {
            let subject = format!("job.{number}");
            let options = RequesterOptions {
                subject: subject.as_bytes(),
                ..RequesterOptions::default()
            };
            Requester::open(&broker, options).unwrap()
        })
        .collect();
    for requester in &mut requesters {
        requester.submit(b"", 1, FOREVER).unwrap();
    }
    let asked = a.statistics().pending;
    assert!((1..20).contains(&asked));
    subscription.unsubscribe();
    broker.close_queue(&a);
    let mut cancelled = 0;
    for requester in &mut requesters {
        if let Ok(batch) = requester.receive(1, 0) {
            assert_eq!(batch.messages()[0].status, Status::Cancelled as u32);
            cancelled += 1;
        }
    }
    assert_eq!(cancelled, asked);
}

#[test]
fn members_have_keys_by_weight() {
    let broker = open();
    let queues: Vec<_> = [1, 2, 5]
        .iter()
        .map(|weight| {
            let queue = queue(&broker, Policy::Backpressure, 0);
            let subscription = member_on(&broker, &queue, *weight).unwrap();
            (queue, subscription)
        })
        .collect();
    for number in 0..8000 {
        publish_key(&broker, &format!("k{number}"), number).unwrap();
    }
    let counts: Vec<_> = queues
        .iter()
        .map(|(queue, _)| take_keys(&broker, queue).len())
        .collect();
    for (count, due) in counts.iter().zip([1000, 2000, 5000]) {
        assert!(count.abs_diff(due) < due / 4, "{counts:?}");
    }
}

#[test]
fn members_of_a_group_agree_on_its_mode_and_have_a_queue_with_backpressure() {
    let broker = open();
    let subscribe =
        |pattern: &[u8], options: SubscribeOptions<'_>| broker.subscribe_with(pattern, options);
    let by_load = || SubscribeOptions {
        group: b"workers",
        ..SubscribeOptions::default()
    };
    let first = subscribe(b"job.*", by_load()).unwrap();
    check(subscribe(b"job.*", by_key()), Status::Conflict);
    // Another pattern is another group.
    let _other = subscribe(b"job.>", by_key()).unwrap();
    check(subscribe(b"job.>", by_load()), Status::Conflict);
    first.unsubscribe();
    let keyed = subscribe(b"job.*", by_key()).unwrap();
    check(subscribe(b"job.*", by_load()), Status::Conflict);
    keyed.unsubscribe();
    let _first = subscribe(b"job.*", by_load()).unwrap();

    let refuse = |options| check(subscribe(b"a", options), Status::Invalid);
    let group = b"";
    refuse(SubscribeOptions { group, ..by_key() });
    let weight = 1001;
    refuse(SubscribeOptions { weight, ..by_key() });
    let weight = 1000;
    drop(subscribe(b"a", SubscribeOptions { weight, ..by_key() }).unwrap());
    refuse(SubscribeOptions {
        delivery: Delivery::Inline,
        on_message: Some(Box::new(|_| ())),
        ..by_key()
    });
    for policy in [Policy::DropOldest, Policy::DropNewest, Policy::Latest] {
        refuse(SubscribeOptions { policy, ..by_key() });
        let queue = queue(&broker, policy, 0);
        check(member_on(&broker, &queue, 0), Status::Invalid);
    }
}

#[test]
fn a_message_goes_to_a_group_by_key_and_to_all_others_or_to_nobody() {
    let broker = open();
    let plain = queue(&broker, Policy::Backpressure, 0);
    let _plain = subscribe_on(&broker, "job.>", "", &plain, 0);
    let _load = subscribe_on(&broker, "job.*", "others", &plain, 1);
    let (a, _a) = member(&broker);
    let mut accepted = 0;
    while publish_key(&broker, "k", accepted).is_ok() {
        accepted += 1;
        assert!(accepted < 1000);
    }
    assert_eq!(take_all(&broker, &plain).len() as u64, 2 * accepted);
    assert_eq!(take_keys(&broker, &a).len() as u64, accepted);
    // A payload that goes by block.
    let payload = vec![7; 100_000];
    let message = Message {
        subject: b"job.new",
        key: b"k",
        payload: &payload,
        ..Message::default()
    };
    client(&broker, |client| client.writer.publish_message(&message)).unwrap();
    assert_eq!(take_all(&broker, &plain)[1].payload, payload);
    // Handed over, it is the same.
    let (b, _b) = member(&broker);
    broker.close_queue(&a);
    let seen = take_all(&broker, &b);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].payload, payload);
}

/// Readers that come, go and stall, and writers that never give up: what a key got, by writer.
struct Crowd {
    broker: Arc<Broker>,
    /// The next number of each (writer, key).
    next: Vec<AtomicU64>,
    keys: u64,
    is_over: AtomicBool,
    delivered: AtomicU64,
}

impl Crowd {
    fn see(&self, writer: u64, key: u64, number: u64) {
        let cell = &self.next[(writer * self.keys + key) as usize];
        // The next one comes only when this one was handled, whoever handles it.
        let next = cell.load(Ordering::Relaxed);
        if number != next {
            self.is_over.store(true, Ordering::Relaxed);
            panic!("writer {writer}, key {key}: {number} instead of {next}");
        }
        cell.store(next + 1, Ordering::Relaxed);
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads as a member until it has had enough, then leaves, with what it has not read.
    fn work(&self, dice: &mut Dice) {
        let capacity = [SMALL, 64 << 10][dice.below(2) as usize];
        let queue = queue(&self.broker, Policy::Backpressure, capacity);
        let weight = dice.below(4) as u32;
        let subscription = member_on(&self.broker, &queue, weight).unwrap();
        let mut left = dice.below(60_000);
        while left > 0 && !self.is_over.load(Ordering::Relaxed) {
            let limit = 1 + dice.below(300) as usize;
            let Ok(batch) = queue.receive(&self.broker, limit, 20 * MILLISECOND) else {
                continue;
            };
            for view in batch.messages() {
                let key = u64::from_le_bytes(view.key().try_into().unwrap());
                let payload = view.payload();
                self.see(number_of(&payload[8..]), key, number_of(payload));
            }
            left = left.saturating_sub(batch.messages().len() as u64);
            if dice.below(400) == 0 {
                // In the middle of a batch.
                subscription.unsubscribe();
                left = 0;
            }
        }
        if dice.below(2) == 0 {
            subscription.unsubscribe();
        }
        self.broker.close_queue(&queue);
    }
}

fn order_survives(messages: u64, keys: u64, seed: u64) {
    const WRITERS: u64 = 2;
    let next = || AtomicU64::new(0);
    let crowd = Crowd {
        broker: open(),
        next: std::iter::repeat_with(next)
            .take((WRITERS * keys) as usize)
            .collect(),
        keys,
        is_over: AtomicBool::new(false),
        delivered: AtomicU64::new(0),
    };
    let broker = &crowd.broker;
    // One who stays, so that nothing is published to nobody.
    let stays = queue(broker, Policy::Backpressure, 64 << 10);
    let subscription = member_on(broker, &stays, 1).unwrap();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for writer in 0..WRITERS {
            let crowd = &crowd;
            threads.push(scope.spawn(move || {
                let mut dice = Dice(seed + writer);
                let mut publisher = Publisher::open(&crowd.broker, b"job.new").unwrap();
                let mut numbers = vec![0u64; keys as usize];
                let mut payload = [0; 16];
                payload[8..].copy_from_slice(&writer.to_le_bytes());
                for _ in 0..messages / WRITERS {
                    loop {
                        let key = dice.below(keys);
                        let number = &mut numbers[key as usize];
                        payload[..8].copy_from_slice(&number.to_le_bytes());
                        let message = Message {
                            key: &key.to_le_bytes(),
                            payload: &payload,
                            ..Message::default()
                        };
                        match publisher.publish_message(&message) {
                            Ok(()) => {
                                *number += 1;
                                break;
                            }
                            // Another key may have room.
                            Err(error) => assert_eq!(error.status(), Status::Again, "{error}"),
                        }
                        if crowd.is_over.load(Ordering::Relaxed) {
                            return;
                        }
                        std::thread::yield_now();
                    }
                }
            }));
        }
        for worker in 0..3 {
            let crowd = &crowd;
            threads.push(scope.spawn(move || {
                let mut dice = Dice(seed ^ (worker + 1) << 32);
                while !crowd.is_over.load(Ordering::Relaxed) {
                    crowd.work(&mut dice);
                }
            }));
        }
        let total = messages / WRITERS * WRITERS;
        let end = std::time::Instant::now() + 10 * PATIENCE;
        while crowd.delivered.load(Ordering::Relaxed) < total {
            if std::time::Instant::now() >= end {
                crowd.is_over.store(true, Ordering::Relaxed);
                panic!("messages are missing");
            }
            if crowd.is_over.load(Ordering::Relaxed) {
                break;
            }
            let Ok(batch) = stays.receive(broker, 256, 20 * MILLISECOND) else {
                continue;
            };
            for view in batch.messages() {
                let key = u64::from_le_bytes(view.key().try_into().unwrap());
                let payload = view.payload();
                crowd.see(number_of(&payload[8..]), key, number_of(payload));
            }
        }
        crowd.is_over.store(true, Ordering::Relaxed);
        // ThreadSanitizer sees a join, not the end of a scope.
        for thread in threads {
            thread.join().unwrap();
        }
    });
    subscription.unsubscribe();
    assert_eq!(
        crowd.delivered.load(Ordering::Relaxed),
        messages / WRITERS * WRITERS
    );
    assert_eq!(broker.statistics().dropped, 0);
}

#[test]
fn the_order_of_a_key_is_never_broken_with_members_coming_and_going() {
    order_survives(300_000, 5, 1);
    order_survives(1_000_000, 1_000, 2);
    order_survives(1_000_000, 200, 4);
}

#[test]
#[ignore = "rounds of ten million messages, ten seconds each; run by make soak"]
fn soak_the_order_of_keys() {
    let seconds = std::env::var("FASTMQ_SOAK_SECONDS");
    let seconds = seconds.map_or(1, |seconds| seconds.parse().unwrap());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let first = std::env::var("FASTMQ_SEED").map_or(3, |seed| seed.parse().unwrap());
    for seed in first.. {
        println!("FASTMQ_SEED={seed} begins with this round");
        order_survives(10_000_000, [7, 200, 10_000][seed as usize % 3], seed);
        if std::time::Instant::now() >= end {
            break;
        }
    }
}
