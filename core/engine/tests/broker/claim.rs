//! Claims: what is written in place and committed arrives as if it had been published at that
//! moment, and what is abandoned, forgotten or refused leaves no trace.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::steps::*;
use fastmq_engine::memory::Policy;
use fastmq_engine::{
    Broker, Delivery, Message, Options, Place, Publisher, Result, Status, Subscription,
};

/// Messages after which a publisher has lanes of its own.
const HOT: u64 = 40;
const POLICIES: [Policy; 3] = [Policy::Backpressure, Policy::DropOldest, Policy::DropNewest];

/// Writes a payload in place and commits it; `more` bytes are claimed and not used.
fn commit(publisher: &mut Publisher, payload: &[u8], more: usize) -> Result<()> {
    let mut claim = publisher.claim(payload.len() + more)?;
    claim.bytes().fill(0xee);
    claim.bytes()[..payload.len()].copy_from_slice(payload);
    claim.commit(payload.len())
}

/// Opens a claim that nobody closes.
fn leave_open(publisher: &mut Publisher, size: usize, byte: u8) {
    let mut claim = publisher.claim(size).unwrap();
    claim.bytes().fill(byte);
    std::mem::forget(claim);
}

/// A publisher that writes to lanes of its own wherever it can.
fn hot_publisher(broker: &Arc<Broker>, subject: &str, queues: &[&Arc<Place>]) -> Publisher {
    let mut publisher = Publisher::open(broker, subject.as_bytes()).unwrap();
    for _ in 0..HOT {
        publisher.publish(&[0; 8]).unwrap();
        queues
            .iter()
            .for_each(|queue| drop(take_all(broker, queue)));
    }
    publisher
}

/// Payloads of sizes around each limit: nothing, words, what is sent by reference, what a lane
/// carries, and beyond.
fn payloads() -> Vec<Vec<u8>> {
    let sizes = [0, 1, 7, 8, 100, 256, 257, 1024, 4000, 8192, 8193, 100_000];
    let payload = |(at, size): (usize, &usize)| vec![at as u8 + 1; *size];
    sizes.iter().enumerate().map(payload).collect()
}

/// Ways of a subject to go: how many queues, members of a group and handlers, and the policy.
fn check_like_publish(queues: usize, members: usize, handlers: usize, policy: Policy) {
    let broker = open();
    let places: Vec<_> = (0..queues + members)
        .map(|_| queue(&broker, policy, 1 << 20))
        .collect();
    let heard: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let mut subscriptions: Vec<Subscription> = Vec::new();
    for (at, place) in places.iter().enumerate() {
        let group = if at < queues { "" } else { "group" };
        subscriptions.push(subscribe_on(&broker, "way", group, place, at as u64));
    }
    for _ in 0..handlers {
        let heard = heard.clone();
        subscriptions.push(handle(&broker, "way", Delivery::Inline, move |view| {
            heard.lock().unwrap().push(Seen::of(view));
        }));
    }
    let mut publisher = Publisher::open(&broker, b"way").unwrap();
    let mut sequence = 0;
    // The first rounds go by the shared lanes, the others by own ones.
    for round in 0..8 {
        let mut expected = Vec::new();
        for (at, payload) in payloads().into_iter().enumerate() {
            if (at + round) % 3 == 0 {
                publisher.publish(&payload).unwrap();
            } else {
                commit(&mut publisher, &payload, at % 5).unwrap();
            }
            drop(publisher.claim(at * 50).unwrap());
            sequence += 1;
            expected.push((payload, sequence));
        }
        let of = |seen: Vec<Seen>| -> Vec<(Vec<u8>, u64)> {
            assert!(seen.iter().all(|one| one.subject == "way" && one.lost == 0));
            let pairs = seen.into_iter().map(|one| (one.payload, one.sequence));
            pairs.collect()
        };
        for place in &places[..queues] {
            assert_eq!(of(take_all(&broker, place)), expected);
        }
        let mut shared: Vec<_> = (places[queues..].iter())
            .flat_map(|place| of(take_all(&broker, place)))
            .collect();
        shared.sort_by_key(|one| one.1);
        assert_eq!(
            shared,
            if members > 0 {
                expected.clone()
            } else {
                vec![]
            }
        );
        let mut calls = of(std::mem::take(&mut *heard.lock().unwrap()));
        calls.dedup();
        assert_eq!(calls, if handlers > 0 { expected } else { vec![] });
    }
    assert_eq!(broker.statistics().published, sequence);
}

#[test]
fn what_is_committed_arrives_like_what_is_published_whichever_way_it_goes() {
    for policy in POLICIES {
        for (queues, members, handlers) in [
            (0, 0, 0),
            (1, 0, 0),
            (2, 0, 0),
            (20, 0, 0),
            (0, 3, 0),
            (2, 2, 0),
            (0, 0, 1),
            (0, 0, 2),
            (1, 0, 2),
            (3, 2, 1),
        ] {
            check_like_publish(queues, members, handlers, policy);
        }
    }
}

#[test]
fn a_full_queue_refuses_the_claim_and_one_that_was_made_has_its_room() {
    for is_hot in [false, true] {
        let broker = open();
        let queue = queue(&broker, Policy::Backpressure, SMALL);
        let _subscription = subscribe_on(&broker, "full", "", &queue, 0);
        let mut publisher = Publisher::open(&broker, b"full").unwrap();
        if is_hot {
            publisher = hot_publisher(&broker, "full", &[&queue]);
        }
        let mut sent = 0;
        loop {
            let refused = publisher.claim(200).map(drop);
            if refused.is_err() {
                check(refused, Status::Again);
                break;
            }
            commit(&mut publisher, &wide(sent), 0).unwrap();
            sent += 1;
        }
        assert!(sent > 5);
        assert!(broker.statistics().refused > 0);
        if is_hot {
            check(publisher.publish(&wide(sent)), Status::Again);
        }
        assert_eq!(take_numbers(&broker, &queue), (0..sent).collect::<Vec<_>>());
        let mut claim = publisher.claim(200).unwrap();
        claim.bytes().copy_from_slice(&wide(7));
        // Others fill what room they have; the room of an own lane is nobody else's.
        let others = fill(&broker, "full");
        let committed = claim.try_commit(200);
        if !is_hot && committed.is_err() {
            check(committed, Status::Again);
            take_all(&broker, &queue);
            claim.commit(200).unwrap();
            assert_eq!(take_numbers(&broker, &queue), [7]);
        } else {
            committed.unwrap();
            assert_eq!(take_all(&broker, &queue).len() as u64, others + 1);
        }
    }
}

#[test]
fn all_targets_have_room_or_none_is_claimed() {
    let broker = open();
    let wide_queue = queue(&broker, Policy::Backpressure, 1 << 20);
    let narrow = queue(&broker, Policy::Backpressure, SMALL);
    let _wide = subscribe_on(&broker, "many", "", &wide_queue, 0);
    let _narrow = subscribe_on(&broker, "many", "", &narrow, 1);
    let mut publisher = hot_publisher(&broker, "many", &[&wide_queue, &narrow]);
    let mut sent = 0;
    while let Ok(mut claim) = publisher.claim(600) {
        claim.bytes()[..8].copy_from_slice(&u64::to_le_bytes(sent));
        claim.commit(600).unwrap();
        sent += 1;
    }
    // A claimed payload goes by reference: many fit into a small queue.
    assert!(sent > 30, "{sent}");
    check(publisher.claim(600).map(drop), Status::Again);
    let numbers: Vec<u64> = (0..sent).collect();
    assert_eq!(take_numbers(&broker, &narrow), numbers);
    commit(&mut publisher, &wide(sent), 0).unwrap();
    assert_eq!(take_numbers(&broker, &narrow), [sent]);
    assert_eq!(take_all(&broker, &wide_queue).len() as u64, sent + 1);
}

#[test]
fn a_policy_drops_at_the_commit_and_an_abandoned_claim_drops_nothing() {
    for policy in [Policy::DropOldest, Policy::DropNewest] {
        let broker = open();
        let queue = queue(&broker, policy, SMALL);
        let subscription = subscribe_on(&broker, "drop", "", &queue, 0);
        let mut publisher = hot_publisher(&broker, "drop", &[&queue]);
        let mut sent = 0;
        while subscription.counts().1 == 0 {
            publisher.publish(&wide(sent)).unwrap();
            sent += 1;
        }
        let dropped = subscription.counts().1;
        for _ in 0..1000 {
            drop(publisher.claim(200).unwrap());
        }
        assert_eq!(subscription.counts().1, dropped);
        for _ in 0..100 {
            commit(&mut publisher, &wide(sent), 10).unwrap();
            sent += 1;
        }
        let dropped = subscription.counts().1 - dropped;
        assert!(dropped > 50, "{dropped}");
        let mut seen = take_all(&broker, &queue);
        commit(&mut publisher, &wide(sent), 0).unwrap();
        seen.extend(take_all(&broker, &queue));
        let told: u64 = seen.iter().map(|one| one.lost).sum();
        assert_eq!(seen.len() as u64 + told, sent + 1);
        assert_eq!(told, subscription.counts().1);
        // A dropped message has its number, an abandoned one has none.
        assert_eq!(seen.last().unwrap().sequence, HOT + sent + 1);
    }
}

#[test]
fn a_queue_that_keeps_the_latest_message_has_what_was_committed_last() {
    for others in 0..2 {
        let broker = open();
        let latest = queue(&broker, Policy::Latest, SMALL);
        let _latest = subscribe_on(&broker, "now", "", &latest, 0);
        let beside: Vec<_> = (0..others).map(|_| subscribe(&broker, "now")).collect();
        let mut publisher = Publisher::open(&broker, b"now").unwrap();
        for size in [8, 300, 2000] {
            for byte in 0..5 {
                commit(&mut publisher, &vec![byte; size], 1).unwrap();
                drop(publisher.claim(size).unwrap());
            }
            let seen = take_all(&broker, &latest);
            assert_eq!((seen.len(), &seen[0].payload), (1, &vec![4; size]));
            for subscription in &beside {
                assert_eq!(take_all(&broker, queue_of(subscription)).len(), 5);
            }
        }
    }
}

#[test]
fn an_unsubscribe_or_close_in_between_is_one_target_less() {
    for is_closed in [false, true] {
        for size in [100, 100_000] {
            for others in 0..3 {
                let broker = open();
                let leaving = queue(&broker, Policy::Backpressure, 1 << 20);
                let staying: Vec<_> = (0..others).map(|_| subscribe(&broker, "leave")).collect();
                let subscription = subscribe_on(&broker, "leave", "", &leaving, 0);
                let mut queues: Vec<_> = staying.iter().map(queue_of).collect();
                queues.push(&leaving);
                let mut publisher = hot_publisher(&broker, "leave", &queues);
                let mut claim = publisher.claim(size).unwrap();
                claim.bytes().fill(5);
                if is_closed {
                    broker.close_queue(&leaving);
                } else {
                    subscription.unsubscribe();
                }
                // The bytes are still there to be written.
                claim.bytes()[0] = 6;
                claim.commit(size).unwrap();
                assert_eq!(take_all(&broker, &leaving), []);
                for subscription in &staying {
                    let seen = take_all(&broker, queue_of(subscription));
                    assert_eq!((seen.len(), seen[0].payload.len()), (1, size));
                    assert_eq!((seen[0].payload[0], seen[0].payload[size - 1]), (6, 5));
                }
                publisher.publish(b"again").unwrap();
            }
        }
    }
}

#[test]
fn who_subscribes_before_the_commit_gets_the_message() {
    for size in [10, 1000, 10_000] {
        let broker = open();
        let first = subscribe(&broker, "join");
        let mut publisher = hot_publisher(&broker, "join", &[queue_of(&first)]);
        let mut claim = publisher.claim(size).unwrap();
        claim.bytes().fill(1);
        let second = subscribe(&broker, "join");
        claim.commit(size).unwrap();
        for subscription in [&first, &second] {
            let seen = take_all(&broker, queue_of(subscription));
            assert_eq!((seen.len(), &seen[0].payload), (1, &vec![1; size]));
            assert_eq!(seen[0].sequence, HOT + 1);
        }
    }
}

#[test]
fn a_commit_that_is_refused_keeps_the_claim_and_reaches_nobody() {
    for size in [200, 1000] {
        let broker = open();
        let first = subscribe(&broker, "keep");
        let mut publisher = hot_publisher(&broker, "keep", &[queue_of(&first)]);
        let full = queue(&broker, Policy::Backpressure, SMALL);
        let _other = subscribe_on(&broker, "other", "", &full, 0);
        fill(&broker, "other");
        let mut claim = publisher.claim(size).unwrap();
        claim.bytes().copy_from_slice(&vec![3; size]);
        // A full queue becomes a target.
        let _second = subscribe_on(&broker, "keep", "", &full, 0);
        for _ in 0..3 {
            check(claim.try_commit(size), Status::Again);
            assert_eq!(take_all(&broker, queue_of(&first)), []);
        }
        assert_eq!(claim.bytes(), vec![3; size]);
        claim.bytes()[size - 1] = 4;
        take_all(&broker, &full);
        claim.try_commit(size).unwrap();
        assert!(claim.bytes().is_empty());
        for queue in [queue_of(&first), &full] {
            let seen = take_all(&broker, queue);
            assert_eq!((seen.len(), seen[0].sequence), (1, HOT + 1));
            assert_eq!((seen[0].payload[0], seen[0].payload[size - 1]), (3, 4));
        }
    }
}

#[test]
fn calls_out_of_turn_are_refused_by_name() {
    let broker = open();
    let subscription = subscribe(&broker, "turn");
    for size in [10, 10_000] {
        let mut publisher = hot_publisher(&broker, "turn", &[queue_of(&subscription)]);
        check(publisher.commit(0), Status::Misuse);
        publisher.abandon();
        // As a handle of C does it: the claim is open until it is committed or abandoned.
        leave_open(&mut publisher, size, 1);
        check(publisher.open_claim(1).map(drop), Status::Misuse);
        check(publisher.publish(b"x"), Status::Misuse);
        check(publisher.publish_wait(b"x", FOREVER), Status::Misuse);
        check(
            publisher.publish_message(&Message::default()),
            Status::Misuse,
        );
        let batch = publisher.publish_batch([&b"x"[..]].into_iter());
        assert_eq!(batch.0, 0);
        check(batch.1, Status::Misuse);
        let error = publisher.commit(size + 1).unwrap_err();
        assert_eq!(error.status(), Status::Invalid);
        let text = format!("size is {}, but {size} bytes were claimed", size + 1);
        assert_eq!(error.text(), text);
        publisher.commit(size).unwrap();
        check(publisher.commit(size), Status::Misuse);
        leave_open(&mut publisher, size, 2);
        publisher.abandon();
        check(publisher.commit(0), Status::Misuse);
        let seen = take_all(&broker, queue_of(&subscription));
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].payload, vec![1; size]);
        let mut claim = publisher.claim(1).unwrap();
        claim.try_commit(0).unwrap();
        check(claim.try_commit(0), Status::Misuse);
        drop(claim);
        take_all(&broker, queue_of(&subscription));
    }
    let mut publisher = Publisher::open(&broker, b"turn").unwrap();
    let error = publisher.claim(2 << 20).map(drop).unwrap_err();
    assert_eq!(error.status(), Status::TooLarge);
    assert!(error.text().contains("2097152"), "{error}");
}

#[test]
fn a_claim_that_is_forgotten_loses_nothing_but_itself() {
    let broker = open_with(Options {
        memory_max: 2 << 20,
        ..Options::default()
    });
    let subscription = subscribe(&broker, "forget");
    for size in [100, 300_000] {
        for round in 0..100 {
            let mut publisher = Publisher::open(&broker, b"forget").unwrap();
            for number in 0..20u64 {
                let mut claim = publisher.claim(size).unwrap();
                claim.bytes()[..8].copy_from_slice(&number.to_le_bytes());
                match (number + round) % 3 {
                    0 => claim.commit(8).unwrap(),
                    1 => std::mem::forget(claim),
                    _ => drop(claim),
                }
            }
            // And the handle goes with one that is open.
            std::mem::forget(publisher.claim(size).unwrap());
            drop(publisher);
            let seen = take_numbers(&broker, queue_of(&subscription));
            let sent = (0..20).filter(|number| (number + round) % 3 == 0);
            assert_eq!(seen, sent.collect::<Vec<_>>());
        }
    }
    // Nothing is held that a claim has taken: the cap has room for what it had room for before.
    drop(subscription);
    let mut publisher = Publisher::open(&broker, b"forget").unwrap();
    assert_eq!(publisher.claim(1 << 20).unwrap().bytes().len(), 1 << 20);
}

#[test]
fn an_owner_that_dies_with_an_open_claim_wedges_nobody() {
    for size in [100, 100_000] {
        let broker = open();
        let subscription = subscribe(&broker, "die");
        let publisher = Arc::new(Mutex::new(hot_publisher(
            &broker,
            "die",
            &[queue_of(&subscription)],
        )));
        let mine = publisher.clone();
        let died = std::thread::spawn(move || {
            let mut publisher = mine.lock().unwrap();
            leave_open(&mut publisher, size, 9);
            panic!("the thread dies with its claim");
        });
        died.join().unwrap_err();
        // Neither its reader nor other writers, nor who takes the handle over.
        publish_number(&broker, "die", 1).unwrap();
        assert_eq!(take_numbers(&broker, queue_of(&subscription)), [1]);
        let mut publisher = publisher.lock().unwrap_or_else(|dead| dead.into_inner());
        commit(&mut publisher, &2_u64.to_le_bytes(), 0).unwrap();
        assert_eq!(take_numbers(&broker, queue_of(&subscription)), [2]);
    }
}

#[test]
fn a_client_that_drains_or_closes_refuses_the_commit() {
    for size in [100, 100_000] {
        for is_drained in [false, true] {
            let broker = open();
            let subscription = subscribe(&broker, "end");
            let queue = queue_of(&subscription).clone();
            let mut publisher = hot_publisher(&broker, "end", &[&queue]);
            let mut claim = publisher.claim(size).unwrap();
            if is_drained {
                broker.drain(0).unwrap();
            } else {
                broker.close();
                drop(subscription);
            }
            claim.bytes().fill(1);
            check(claim.try_commit(size), Status::Closed);
            assert_eq!(claim.bytes(), vec![1; size]);
            drop(claim);
            check(publisher.claim(size).map(drop), Status::Closed);
            assert_eq!(take_all(&broker, &queue), []);
        }
    }
}

#[test]
fn memory_that_is_out_refuses_the_claim_and_comes_back() {
    let broker = open_with(Options {
        memory_max: 1 << 20,
        ..Options::default()
    });
    let _subscription = subscribe(&broker, "cap");
    let mut one = Publisher::open(&broker, b"cap").unwrap();
    let mut two = Publisher::open(&broker, b"cap").unwrap();
    let claim = one.claim(500_000).unwrap();
    check(two.claim(500_000).map(drop), Status::NoSpace);
    drop(claim);
    two.claim(500_000).unwrap().commit(10).unwrap();
}

#[test]
fn a_handler_in_a_commit_may_publish_leave_and_unwind() {
    let broker = open();
    let subscription = subscribe(&broker, "echo");
    let calls = Arc::new(AtomicU64::new(0));
    let (calls_in, there) = (calls.clone(), Arc::downgrade(&broker));
    let handler = handle(&broker, "call", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        publish(&broker, "echo", view.payload()).unwrap();
        let mut inner = Publisher::open(&broker, b"echo").unwrap();
        commit(&mut inner, b"inner", 3).unwrap();
        assert!(calls_in.fetch_add(1, Ordering::Relaxed) != 2, "the third");
    });
    let beside = subscribe(&broker, "call");
    let mut publisher = Publisher::open(&broker, b"call").unwrap();
    for size in [100, 1000] {
        commit(&mut publisher, &vec![1; size], 1).unwrap();
        let seen = take_all(&broker, queue_of(&subscription));
        let payloads: Vec<_> = seen.into_iter().map(|one| one.payload).collect();
        assert_eq!(payloads, [vec![1; size], b"inner".to_vec()]);
    }
    let mut claim = publisher.claim(1000).unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(|| claim.try_commit(1000)));
    assert!(unwound.is_err());
    assert!(claim.bytes().is_empty(), "it was published");
    drop(claim);
    drop(handler);
    commit(&mut publisher, b"after", 0).unwrap();
    assert_eq!(take_all(&broker, queue_of(&beside)).len(), 4);
}

#[test]
fn claims_on_real_threads_lose_and_tear_nothing() {
    let broker = open();
    let place = queue(&broker, Policy::Backpressure, 64 << 10);
    let _subscription = subscribe_on(&broker, "real", "", &place, 0);
    const COUNT: u64 = 20_000;
    std::thread::scope(|scope| {
        let writers = [0_u8, 1].map(|writer| {
            let broker = &broker;
            scope.spawn(move || {
                let mut publisher = Publisher::open(broker, b"real").unwrap();
                for number in 0..COUNT {
                    let size = 9 + (number * 7919 % 700) as usize;
                    let mut claim = loop {
                        match publisher.claim(size + 10) {
                            Ok(claim) => break claim,
                            Err(error) => assert_eq!(error.status(), Status::Again),
                        }
                        std::thread::yield_now();
                    };
                    claim.bytes().fill(writer ^ number as u8);
                    claim.bytes()[..8].copy_from_slice(&number.to_le_bytes());
                    claim.bytes()[8] = writer;
                    while let Err(error) = claim.try_commit(size) {
                        assert_eq!(error.status(), Status::Again);
                        std::thread::yield_now();
                    }
                    drop(claim);
                    if number % 3 == 0
                        && let Ok(mut abandoned) = publisher.claim(size)
                    {
                        abandoned.bytes().fill(0xaa);
                    }
                }
            })
        });
        let mut next = [0; 2];
        while next != [COUNT; 2] {
            let batch = place.receive(&broker, 100, PATIENCE_NS).unwrap();
            for view in batch.messages() {
                let payload = view.payload();
                let (number, writer) = (number_of(payload), payload[8]);
                assert_eq!(number, next[writer as usize]);
                assert_eq!(payload.len() as u64, 9 + number * 7919 % 700);
                let is_whole = |byte: &u8| *byte == writer ^ number as u8;
                assert!(payload[9..].iter().all(is_whole), "torn");
                next[writer as usize] += 1;
            }
        }
        // ThreadSanitizer sees a join, not the end of a scope.
        for writer in writers {
            writer.join().unwrap();
        }
    });
}
