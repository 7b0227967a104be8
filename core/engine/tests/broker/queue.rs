//! Queues: all or nothing, what each policy drops and counts, batches, and waiting for room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::steps::*;
use fastmq_engine::memory::Policy;
use fastmq_engine::{Broker, Delivery, Message, Place, Publisher, Status};

/// What a reader of numbered messages saw.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    lost: u64,
    next: u64,
}

impl Tally {
    fn read(&mut self, broker: &Broker, queue: &Place) {
        for one in take_all(broker, queue) {
            assert_eq!(one.number(), self.next + one.lost, "{self:?}");
            self.next = one.number() + 1;
            self.received += 1;
            self.lost += one.lost;
        }
    }
}

#[test]
fn a_publish_reaches_all_backpressure_queues_or_none() {
    let broker = open();
    let small = queue(&broker, Policy::Backpressure, SMALL);
    let large = queue(&broker, Policy::Backpressure, 16 * SMALL);
    let dropping = queue(&broker, Policy::DropOldest, SMALL);
    let grouped = queue(&broker, Policy::Backpressure, 16 * SMALL);
    let _all = [
        subscribe_on(&broker, "full", "", &large, 1),
        subscribe_on(&broker, "full", "", &small, 2),
        subscribe_on(&broker, "full", "", &dropping, 3),
        subscribe_on(&broker, "full", "workers", &grouped, 4),
    ];
    for round in 0..5 {
        let accepted = fill(&broker, "full");
        assert!((1..=40).contains(&accepted), "{accepted} in round {round}");
        check(publish(&broker, "full", &wide(accepted)), Status::Again);
        let expected: Vec<u64> = (0..accepted).collect();
        for queue in [&small, &large, &grouped] {
            assert_eq!(queue.statistics().pending, accepted);
            assert_eq!(take_numbers(&broker, queue), expected);
        }
        let last = take_numbers(&broker, &dropping).pop();
        assert_eq!(
            last,
            Some(accepted - 1),
            "a dropping queue has not seen the refusal"
        );
    }
    assert!(broker.statistics().refused >= 10);
    assert_eq!(small.statistics().dropped + large.statistics().dropped, 0);
}

#[test]
fn a_full_group_refuses_the_message_for_all() {
    let broker = open();
    let members: Vec<_> = (0..3)
        .map(|_| queue(&broker, Policy::Backpressure, SMALL))
        .collect();
    let plain = queue(&broker, Policy::Backpressure, 64 * SMALL);
    let mut all: Vec<_> = members
        .iter()
        .map(|queue| subscribe_on(&broker, "work", "group", queue, 0))
        .collect();
    all.push(subscribe_on(&broker, "work", "", &plain, 0));
    let accepted = fill(&broker, "work");
    // Every member was filled before the group refused.
    assert!(accepted >= 3 * 15, "{accepted}");
    assert_eq!(
        take_numbers(&broker, &plain),
        (0..accepted).collect::<Vec<_>>()
    );
    let mut numbers: Vec<u64> = Vec::new();
    for queue in &members {
        numbers.extend(take_numbers(&broker, queue));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..accepted).collect::<Vec<_>>());
}

#[test]
fn several_targets_on_one_queue_are_all_or_nothing_too() {
    // Plain subscriptions, and members of two groups, share one queue: their copies of a message
    // need room together. Every number of copies and every fill level is met.
    for (plain, groups) in [(2, 0), (7, 0), (0, 2), (1, 1), (3, 3), (1, 5)] {
        let broker = open();
        let queue = queue(&broker, Policy::Backpressure, SMALL);
        let mut all = Vec::new();
        for tag in 0..plain {
            all.push(subscribe_on(&broker, "share", "", &queue, tag));
        }
        for tag in 0..groups {
            let group = format!("g{tag}");
            all.push(subscribe_on(&broker, "share", &group, &queue, 100 + tag));
        }
        let copies = plain + groups;
        let mut publisher = Publisher::open(&broker, b"share").unwrap();
        for round in 0..60 {
            let mut accepted = 0;
            for size in 0..1000 {
                let payload = vec![1; 8 + (size * 7 + round) % 90];
                let sent = match round % 2 {
                    0 => publish(&broker, "share", &payload),
                    _ => publisher.publish(&payload),
                };
                if sent.is_err() {
                    check(sent, Status::Again);
                    break;
                }
                accepted += 1;
            }
            let seen = take_all(&broker, &queue);
            assert_eq!(
                seen.len() as u64,
                accepted * copies,
                "{plain} + {groups}, round {round}"
            );
        }
    }
}

fn check_dropping(policy: Policy, by_handle: bool) {
    const SENT: u64 = 1000;
    let broker = open();
    let queue = queue(&broker, policy, SMALL);
    let subscription = subscribe_on(&broker, "drop", "", &queue, 0);
    let mut publisher = Publisher::open(&broker, b"drop").unwrap();
    let mut send = |number| match by_handle {
        true => publisher.publish(&wide(number)).unwrap(),
        false => publish(&broker, "drop", &wide(number)).unwrap(),
    };
    let mut tally = Tally::default();
    for round in 0..6 {
        for number in round * SENT..(round + 1) * SENT {
            send(number);
        }
        let figures = queue.statistics();
        assert_eq!(
            figures.pending + figures.dropped + tally.received,
            (round + 1) * SENT
        );
        tally.read(&broker, &queue);
        if policy == Policy::DropOldest {
            assert_eq!(tally.next, (round + 1) * SENT, "the newest are kept");
        }
    }
    send(6 * SENT);
    tally.read(&broker, &queue);
    let dropped = queue.statistics().dropped;
    assert_eq!(
        tally.received + tally.lost,
        6 * SENT + 1,
        "{policy:?} {by_handle}"
    );
    assert_eq!(tally.lost, dropped);
    assert_eq!(broker.statistics().dropped, dropped);
    assert_eq!(subscription.counts(), (tally.received, dropped));
    assert_eq!(broker.statistics().published, 6 * SENT + 1);
    assert!(tally.received >= 6 * 15 && dropped > 0);
}

#[test]
fn drop_oldest_counts_what_it_drops_and_tells_the_next_message() {
    check_dropping(Policy::DropOldest, false);
    check_dropping(Policy::DropOldest, true);
}

#[test]
fn drop_newest_counts_what_it_drops_and_tells_the_next_message() {
    check_dropping(Policy::DropNewest, false);
    check_dropping(Policy::DropNewest, true);
}

#[test]
fn each_subscription_of_a_dropping_queue_counts_its_own_drops() {
    for policy in [Policy::DropOldest, Policy::DropNewest] {
        let broker = open();
        let queue = queue(&broker, policy, SMALL);
        let subscriptions: Vec<_> = (0..4)
            .map(|tag| subscribe_on(&broker, "many.>", "", &queue, tag))
            .collect();
        for number in 0..500 {
            publish(&broker, "many.x", &wide(number)).unwrap();
        }
        let received = take_all(&broker, &queue);
        let mut dropped = 0;
        for subscription in &subscriptions {
            let mine = received
                .iter()
                .filter(|one| one.id == subscription.id())
                .count() as u64;
            assert_eq!(subscription.counts(), (mine, 500 - mine), "{policy:?}");
            dropped += 500 - mine;
        }
        assert_eq!(queue.statistics().dropped, dropped);
    }
}

#[test]
fn messages_of_an_open_batch_stay_while_others_are_dropped() {
    for policy in [Policy::DropOldest, Policy::DropNewest] {
        let broker = open();
        let queue = queue(&broker, policy, SMALL);
        let _subscription = subscribe_on(&broker, "held", "", &queue, 0);
        for number in 0..10 {
            publish(&broker, "held", &wide(number)).unwrap();
        }
        let batch = queue.receive(&broker, 4, 0).unwrap();
        for number in 10..400 {
            publish(&broker, "held", &wide(number)).unwrap();
        }
        let held: Vec<u64> = batch
            .messages()
            .iter()
            .map(|view| Seen::of(view).number())
            .collect();
        assert_eq!(held, [0, 1, 2, 3]);
        drop(batch);
        let mut tally = Tally {
            received: 4,
            lost: 0,
            next: 4,
        };
        tally.read(&broker, &queue);
        publish(&broker, "held", &wide(400)).unwrap();
        tally.read(&broker, &queue);
        assert_eq!(tally.received + tally.lost, 401, "{policy:?}");
        assert_eq!(queue.statistics().dropped, tally.lost);
    }
}

#[test]
fn one_batch_is_open_at_a_time_and_a_copy_outlives_it() {
    let broker = open();
    let subscription = subscribe(&broker, "batch");
    let queue = queue_of(&subscription);
    for number in 0..3 {
        publish_number(&broker, "batch", number).unwrap();
    }
    let batch = queue.receive(&broker, 1, 0).unwrap();
    let error = queue.receive(&broker, 1, 0).unwrap_err();
    assert_eq!(error.status(), Status::Misuse);
    assert!(error.text().contains("batch"), "{error}");
    let copy = batch.detach().unwrap();
    drop(batch);
    let held = queue.receive(&broker, 1, 0).unwrap();
    subscription.unsubscribe();
    broker.close();
    assert_eq!(
        Seen::of(&held.messages()[0]).number(),
        1,
        "in place, although closed"
    );
    drop(held);
    assert_eq!(Seen::of(&copy.messages()[0]).number(), 0);
    assert_eq!(copy.messages()[0].subject(), b"batch");
    check(queue.receive(&broker, 1, FOREVER), Status::End);
}

/// Payloads around half of the smallest lane, and those that go by block anyway.
const WIDE: [usize; 8] = [1300, 1900, 2000, 2048, 3000, 4096, 8192, 100_000];

#[test]
fn what_no_lane_of_a_target_can_hold_goes_by_block() {
    for policy in [Policy::Backpressure, Policy::DropOldest, Policy::DropNewest] {
        let broker = open();
        let small = queue(&broker, policy, SMALL);
        let large = queue(&broker, Policy::Backpressure, 1 << 20);
        let _one = subscribe_on(&broker, "one", "", &small, 0);
        let _both = [&small, &large].map(|queue| subscribe_on(&broker, "both", "", queue, 0));
        let _group = subscribe_on(&broker, "group", "team", &small, 0);
        let mut publisher = Publisher::open(&broker, b"one").unwrap();
        for round in 0..30 {
            for size in WIDE {
                let payload = vec![round; size];
                for subject in ["one", "both", "group"] {
                    check(publish(&broker, subject, &payload), Status::Ok);
                    let seen = take_all(&broker, &small);
                    assert_eq!(seen.len(), 1, "{policy:?} {subject} {size}");
                    assert_eq!(seen[0].payload, payload);
                }
                assert_eq!(take_all(&broker, &large)[0].payload, payload);
                // A batch goes on behind it.
                let two = [&payload[..], b"small"];
                let (accepted, result) = publisher.publish_batch(two.into_iter());
                check(result, Status::Ok);
                assert_eq!(accepted, 2);
                let seen = take_all(&broker, &small);
                assert_eq!([&seen[0].payload[..], &seen[1].payload], two);
                assert_eq!(seen[1].sequence, seen[0].sequence + 1);
            }
        }
        let figures = broker.statistics();
        assert_eq!((figures.dropped, figures.refused), (0, 0));
    }
}

#[test]
fn several_copies_that_no_lane_can_hold_together_go_by_block() {
    let broker = open();
    let small = queue(&broker, Policy::Backpressure, SMALL);
    let _twice = [1, 2].map(|tag| subscribe_on(&broker, "twice", "", &small, tag));
    let _teams = ["team", "other"].map(|team| subscribe_on(&broker, "teams", team, &small, 0));
    for round in 0..30 {
        for size in [500, 700, 1000].iter().chain(&WIDE) {
            let payload = vec![round; *size];
            for subject in ["twice", "teams"] {
                check(publish(&broker, subject, &payload), Status::Ok);
                let seen = take_all(&broker, &small);
                assert_eq!(seen.len(), 2, "{subject} {size}");
                assert!(seen.iter().all(|one| one.payload == payload));
            }
        }
    }
}

#[test]
fn a_record_that_no_descriptor_makes_short_enough_is_too_large() {
    let broker = open();
    let queue = queue(&broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&broker, "wide", "", &queue, 0);
    let message = Message {
        subject: b"wide",
        payload: &[0; 3000],
        headers: &[0; 3000],
        ..Message::default()
    };
    let sent = client(&broker, |client| client.writer.publish_message(&message));
    check(sent, Status::TooLarge);
    assert!(take_all(&broker, &queue).is_empty());
    assert_eq!(broker.statistics().refused, 0);
}

#[test]
fn an_empty_queue_says_again_or_timeout() {
    let (broker, driver) = open_simulated(3);
    let subscription = subscribe(&broker, "empty");
    let queue = queue_of(&subscription);
    check(queue.receive(&broker, 1, 0), Status::Again);
    let before = fastmq_engine::driver::Driver::monotonic_ns(&*driver);
    check(queue.receive(&broker, 1, 5 * MILLISECOND), Status::Timeout);
    let after = fastmq_engine::driver::Driver::monotonic_ns(&*driver);
    assert_eq!(after - before, 5 * MILLISECOND);
    // With one thread and nobody to wake it, for ever is not an option.
    check(queue.receive(&broker, 1, FOREVER), Status::Timeout);
}

#[test]
fn publish_wait_goes_on_when_a_reader_makes_room() {
    let broker = open();
    let queue = queue(&broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&broker, "wait", "", &queue, 0);
    let there = broker.clone();
    let writer = std::thread::spawn(move || {
        for number in 0..3000 {
            let message = Message {
                subject: b"wait",
                payload: &wide(number),
                ..Message::default()
            };
            client(&there, |client| client.publish_wait(&message, PATIENCE_NS)).unwrap();
        }
        let mut publisher = Publisher::open(&there, b"wait").unwrap();
        for number in 3000..6000 {
            publisher.publish_wait(&wide(number), PATIENCE_NS).unwrap();
        }
    });
    // Two writers: each in its order.
    let (mut by_thread, mut by_handle) = (0, 3000);
    while by_thread < 3000 || by_handle < 6000 {
        let batch = queue.receive(&broker, 7, PATIENCE_NS).unwrap();
        for view in batch.messages() {
            let number = Seen::of(view).number();
            let next = if number < 3000 {
                &mut by_thread
            } else {
                &mut by_handle
            };
            assert_eq!(number, *next);
            *next += 1;
        }
    }
    writer.join().unwrap();
}

#[test]
fn publish_wait_in_vain_says_who_should_have_read() {
    let broker = open();
    let queue = queue(&broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&broker, "vain", "", &queue, 0);
    fill(&broker, "vain");
    let message = Message {
        subject: b"vain",
        payload: &[0; 200],
        ..Message::default()
    };
    let wait = |ns| client(&broker, |client| client.publish_wait(&message, ns));
    check(wait(0), Status::Again);
    let error = wait(5 * MILLISECOND).unwrap_err();
    assert_eq!(error.status(), Status::Timeout);
    assert!(
        !error.text().contains("this thread"),
        "nobody has read: {error}"
    );
    take_all(&broker, &queue);
    fill(&broker, "vain");
    let error = wait(5 * MILLISECOND).unwrap_err();
    assert_eq!(error.status(), Status::Timeout);
    assert!(error.text().contains("this thread"), "{error}");
    let mut publisher = Publisher::open(&broker, b"vain").unwrap();
    while publisher.publish(&[0; 200]).is_ok() {}
    check(publisher.publish_wait(&[0; 200], 0), Status::Again);
    check(
        publisher.publish_wait(&[0; 200], 5 * MILLISECOND),
        Status::Timeout,
    );
}

#[test]
fn publish_wait_inside_a_handler_waits_for_another_queue_that_is_full() {
    let broker = open();
    let full = queue(&broker, Policy::Backpressure, SMALL);
    let _full = subscribe_on(&broker, "both", "", &full, 0);
    fill(&broker, "both");
    let there = Arc::downgrade(&broker);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let outcomes_in = outcomes.clone();
    // The handler's own queue has room for what it publishes; the other one has not.
    let _own = handle(&broker, "*", Delivery::Dispatch, move |message| {
        if message.subject() != b"start" {
            return;
        }
        let broker = there.upgrade().unwrap();
        let message = Message {
            subject: b"both",
            payload: &[1; 200],
            ..Message::default()
        };
        let wait = |ns| client(&broker, |client| client.publish_wait(&message, ns));
        let in_vain = wait(MILLISECOND).map_err(|error| error.status());
        drop(full.receive(&broker, usize::MAX, 0).unwrap());
        let with_room = wait(MILLISECOND).map_err(|error| error.status());
        *outcomes_in.lock().unwrap() = vec![in_vain, with_room];
    });
    publish_number(&broker, "start", 0).unwrap();
    broker.dispatch(1, 0).unwrap();
    assert_eq!(*outcomes.lock().unwrap(), [Err(Status::Timeout), Ok(())]);
}

#[test]
fn publish_wait_inside_a_handler_of_the_full_queue_is_misuse() {
    let broker = open_with(fastmq_engine::Options {
        queue_capacity: SMALL,
        ..Default::default()
    });
    let there = Arc::downgrade(&broker);
    let outcome = Arc::new(AtomicU64::new(0));
    let is_told = Arc::new(AtomicBool::new(false));
    let (outcome_in, is_told_in) = (outcome.clone(), is_told.clone());
    let subscription = handle(&broker, "own", Delivery::Dispatch, move |_| {
        if is_told_in.swap(true, Ordering::SeqCst) {
            return;
        }
        let broker = there.upgrade().unwrap();
        while publish(&broker, "own", &wide(1)).is_ok() {}
        let message = Message {
            subject: b"own",
            payload: &wide(1),
            ..Message::default()
        };
        let result = client(&broker, |client| client.publish_wait(&message, FOREVER));
        outcome_in.store(status(&result) as u64, Ordering::SeqCst);
    });
    publish(&broker, "own", &wide(0)).unwrap();
    broker.dispatch(1, 0).unwrap();
    assert_eq!(outcome.load(Ordering::SeqCst), Status::Misuse as u64);
    subscription.unsubscribe();
}

#[test]
fn subscribing_in_a_loop_gives_all_memory_back() {
    let broker = open();
    let there = broker.clone();
    // On a thread of its own: what its writer keeps returns with it.
    std::thread::spawn(move || subscribe_in_a_loop(&there))
        .join()
        .unwrap();
    let after = broker.statistics();
    assert_eq!((after.memory, after.subscriptions, after.queues), (0, 0, 0));
}

fn subscribe_in_a_loop(broker: &Arc<Broker>) {
    let shared = queue(broker, Policy::Backpressure, 0);
    let mut high = 0;
    for number in 0..100_000u64 {
        let pattern = format!("room.{}.state", number % 1000);
        let subscription = match number % 4 {
            0 => subscribe(broker, &pattern),
            _ => subscribe_on(broker, &pattern, "", &shared, number),
        };
        if number % 16 < 2 {
            publish_number(broker, &pattern, number).unwrap();
            let queue = queue_of(&subscription);
            assert_eq!(take_numbers(broker, queue), [number]);
        }
        subscription.unsubscribe();
        high = high.max(broker.statistics().memory);
    }
    broker.close_queue(&shared);
    // Lanes into queues that are gone may wait to be swept, but not all of them.
    assert!(high < 4 << 20, "{high} bytes of rings at once");
}

#[test]
fn an_unsubscribed_pattern_gets_nothing_more_and_its_queue_lives_on() {
    let broker = open();
    let queue = queue(&broker, Policy::Backpressure, 0);
    let a = subscribe_on(&broker, "on.a", "", &queue, 1);
    let b = subscribe_on(&broker, "on.*", "", &queue, 2);
    publish_number(&broker, "on.a", 1).unwrap();
    a.unsubscribe();
    a.unsubscribe();
    // What waited for it is left out as well: nobody is there to get it.
    let tags: Vec<u64> = take_all(&broker, &queue)
        .iter()
        .map(|one| one.tag)
        .collect();
    assert_eq!(tags, [2]);
    publish_number(&broker, "on.a", 2).unwrap();
    let tags: Vec<u64> = take_all(&broker, &queue)
        .iter()
        .map(|one| one.tag)
        .collect();
    assert_eq!(tags, [2]);
    broker.close_queue(&queue);
    check(publish_number(&broker, "on.a", 3), Status::Ok);
    check(queue.receive(&broker, 1, 0), Status::End);
    b.unsubscribe();
    let options = (b"on.x", b"", Delivery::Queue);
    let again = broker.subscribe(options.0, options.1, options.2, Some(&queue), 0, None);
    check(again, Status::Closed);
}

#[test]
fn polling_an_empty_queue_costs_no_memory() {
    let broker = open();
    let subscription = subscribe(&broker, "poll");
    let queue = queue_of(&subscription);
    let mut locks = 0;
    for number in 0..20_000 {
        publish_number(&broker, "poll", number).unwrap();
        assert_eq!(take_numbers(&broker, queue), [number]);
        if number == 100 {
            locks = Arc::strong_count(queue);
        }
    }
    assert!(
        Arc::strong_count(queue) <= locks + 1,
        "{} holders",
        Arc::strong_count(queue)
    );
}

#[test]
fn a_writer_lets_go_of_queues_that_are_gone() {
    let broker = open();
    let mut gone = Vec::new();
    for number in 0..2000 {
        let subscription = subscribe(&broker, "short.lived");
        publish_number(&broker, "short.lived", number).unwrap();
        gone.push(Arc::downgrade(queue_of(&subscription)));
        subscription.unsubscribe();
    }
    // What the interest table has dropped is freed when no thread looks any more: other tests do.
    let mut kept = usize::MAX;
    for _ in 0..100_000 {
        fastmq_memory::snapshot::pin().flush();
        kept = gone.iter().filter(|queue| queue.strong_count() > 0).count();
        if kept <= 130 {
            break;
        }
        std::thread::yield_now();
    }
    assert!(kept <= 130, "{kept} queues are kept");
}
