//! Publishing: by subject, by handle, in batches; order, wildcards, fields, blocks, memory.

use crate::steps::*;
use fastmq_engine::headers::Headers;
use fastmq_engine::memory::Policy;
use fastmq_engine::memory::block::CACHED_BYTES_MAX;
use fastmq_engine::{Message, Options, Publisher, Status};

#[test]
fn a_message_reaches_every_pattern_that_matches_and_no_other() {
    let broker = open();
    let patterns = ["a.b.c", "a.*.c", "*.*.*", "a.>", ">", "a.b.*", "*.b.>"];
    let others = ["a.b", "a.b.c.d", "a.*", "b.>", "*.c.>", "a.b.c.>", "A.b.c"];
    let open: Vec<_> = patterns
        .iter()
        .map(|pattern| subscribe(&broker, pattern))
        .collect();
    let closed: Vec<_> = others
        .iter()
        .map(|pattern| subscribe(&broker, pattern))
        .collect();
    for number in 0..100 {
        publish_number(&broker, "a.b.c", number).unwrap();
    }
    let expected: Vec<u64> = (0..100).collect();
    for subscription in &open {
        let seen = take_all(&broker, queue_of(subscription));
        assert!(
            seen.iter()
                .all(|one| one.subject == "a.b.c" && one.id == subscription.id())
        );
        assert_eq!(seen.iter().map(Seen::number).collect::<Vec<_>>(), expected);
    }
    for subscription in &closed {
        assert_eq!(take_all(&broker, queue_of(subscription)), []);
    }
}

#[test]
fn bad_subjects_patterns_and_payloads_are_refused_by_name() {
    let broker = open_with(Options {
        payload_max: 1000,
        ..Options::default()
    });
    for subject in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", ">", "*"] {
        check(publish(&broker, subject, b""), Status::Invalid);
        check(
            Publisher::open(&broker, subject.as_bytes()),
            Status::Invalid,
        );
    }
    let long = "s".repeat(1025);
    check(publish(&broker, &long, b""), Status::Invalid);
    check(publish(&broker, &"a.".repeat(64), b""), Status::Invalid);
    let error = publish(&broker, "a", &[0; 1001]).unwrap_err();
    assert_eq!(error.status(), Status::TooLarge);
    assert!(
        error.text().contains("1001") && error.text().contains("1000"),
        "{error}"
    );
    let message = Message {
        subject: b"a\xff",
        ..Message::default()
    };
    check(
        client(&broker, |client| client.writer.publish_message(&message)),
        Status::Invalid,
    );
    check(publish(&broker, "a", &[0; 1000]), Status::Ok);
}

#[test]
fn a_handle_keeps_its_order_and_numbers_its_messages() {
    let broker = open();
    let subscription = subscribe(&broker, "handle.*");
    let mut a = Publisher::open(&broker, b"handle.a").unwrap();
    let mut b = Publisher::open(&broker, b"handle.b").unwrap();
    for number in 0..5000u64 {
        a.publish(&number.to_le_bytes()).unwrap();
        if number % 3 == 0 {
            b.publish(&number.to_le_bytes()).unwrap();
        }
    }
    let seen = take_all(&broker, queue_of(&subscription));
    for (subject, step) in [("handle.a", 1), ("handle.b", 3)] {
        let mine: Vec<_> = seen.iter().filter(|one| one.subject == subject).collect();
        assert_eq!(mine.len() as u64, 5000u64.div_ceil(step));
        for (index, one) in mine.iter().enumerate() {
            assert_eq!(one.number(), index as u64 * step);
            assert_eq!(one.sequence, index as u64 + 1);
            assert_eq!(one.lost, 0);
        }
    }
}

#[test]
fn a_batch_is_accepted_up_to_the_first_that_has_no_room() {
    let broker = open();
    let queue = queue(&broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&broker, "batch", "", &queue, 0);
    let payloads: Vec<[u8; 200]> = (0..1000).map(wide).collect();
    let mut publisher = Publisher::open(&broker, b"batch").unwrap();
    let mut sent = 0;
    while sent < payloads.len() {
        let rest = payloads[sent..].iter().map(|one| &one[..]);
        let (accepted, result) = publisher.publish_batch(rest);
        check(
            result,
            if sent + accepted == 1000 {
                Status::Ok
            } else {
                Status::Again
            },
        );
        let seen = take_all(&broker, &queue);
        let numbers: Vec<u64> = seen.iter().map(Seen::number).collect();
        assert_eq!(
            numbers,
            (sent as u64..(sent + accepted) as u64).collect::<Vec<_>>()
        );
        assert!(seen.iter().all(|one| one.sequence == one.number() + 1));
        assert!(accepted > 0);
        sent += accepted;
    }
}

#[test]
fn a_batch_with_a_large_payload_in_its_middle_stays_in_order() {
    let broker = open();
    let subscription = subscribe(&broker, "mixed");
    let mut publisher = Publisher::open(&broker, b"mixed").unwrap();
    let large = vec![7; 100_000];
    let payloads: Vec<&[u8]> = vec![b"one", b"two", &large, b"three", &large, b"four"];
    for _ in 0..20 {
        let (accepted, result) = publisher.publish_batch(payloads.iter().copied());
        assert_eq!((accepted, status(&result)), (6, Status::Ok));
    }
    let seen = take_all(&broker, queue_of(&subscription));
    assert_eq!(seen.len(), 120);
    for (index, one) in seen.iter().enumerate() {
        assert_eq!(one.sequence, index as u64 + 1);
        assert_eq!(one.payload, payloads[index % 6]);
    }
}

#[test]
fn all_fields_arrive_by_each_way() {
    let broker = open();
    let subscription = subscribe(&broker, "fields");
    let mut headers = Headers::new();
    headers.add(b"Content-Type", b"text/plain").unwrap();
    headers.add(b"Trace", &[0, 255, 1]).unwrap();
    let message = Message {
        subject: b"fields",
        payload: b"body",
        reply_to: b"answers.here",
        key: b"k1",
        headers: headers.as_bytes(),
        ttl_ns: PATIENCE_NS,
        keep_last: false,
    };
    let by_handle = Message {
        subject: b"",
        ..message
    };
    let mut publisher = Publisher::open(&broker, b"fields").unwrap();
    for _ in 0..40 {
        client(&broker, |client| client.writer.publish_message(&message)).unwrap();
        publisher.publish_message(&by_handle).unwrap();
    }
    check(publisher.publish_message(&message), Status::Invalid);
    let mut count = 0;
    while count < 80 {
        let batch = queue_of(&subscription).receive(&broker, 100, 0).unwrap();
        for view in batch.messages() {
            count += 1;
            assert_eq!(view.subject(), b"fields");
            assert_eq!(view.payload(), b"body");
            assert_eq!(view.reply_to(), b"answers.here");
            assert_eq!(view.key(), b"k1");
            assert_eq!(
                fastmq_engine::headers::get(view.headers(), b"trace"),
                Ok(&[0, 255, 1][..])
            );
            assert_eq!(view.payload().as_ptr().align_offset(8), 0);
        }
    }
}

#[test]
fn a_message_past_its_time_to_live_is_not_delivered_and_is_counted() {
    let (broker, driver) = open_simulated(1);
    let subscription = subscribe(&broker, "ttl");
    let send = |ttl_ns, number: u64| {
        let message = Message {
            subject: b"ttl",
            payload: &number.to_le_bytes(),
            ttl_ns,
            ..Message::default()
        };
        client(&broker, |client| client.writer.publish_message(&message)).unwrap();
    };
    for number in 0..30 {
        send(if number % 3 == 0 { 0 } else { 1000 * number }, number);
    }
    driver.advance(10_000);
    let expected: Vec<u64> = (0..30).filter(|n| n % 3 == 0 || *n >= 10).collect();
    assert_eq!(take_numbers(&broker, queue_of(&subscription)), expected);
    assert_eq!(broker.statistics().expired, 30 - expected.len() as u64);
    driver.advance(1_000_000);
    assert_eq!(take_numbers(&broker, queue_of(&subscription)), []);
}

#[test]
fn large_payloads_arrive_whole_and_their_memory_returns() {
    let broker = open();
    let subscriptions: Vec<_> = (0..3).map(|_| subscribe(&broker, "large.*")).collect();
    let mut publisher = Publisher::open(&broker, b"large.x").unwrap();
    let mut after = Vec::new();
    for _ in 0..3 {
        for size in [8 << 10, (8 << 10) + 1, 64 << 10, 1 << 20] {
            let payload: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
            for _ in 0..20 {
                publisher.publish(&payload).unwrap();
            }
            for subscription in &subscriptions {
                let seen = take_all(&broker, queue_of(subscription));
                assert_eq!(seen.len(), 20);
                assert!(
                    seen.iter().all(|one| one.payload == payload),
                    "{size} bytes"
                );
            }
        }
        after.push(broker.statistics().memory);
    }
    // The pool keeps a bounded part for the next payloads; the rest has gone back.
    assert!(broker.statistics().memory_high > 20 << 20);
    assert!(after[2] < CACHED_BYTES_MAX + (2 << 20), "{after:?}");
    assert_eq!(after[1], after[2]);
}

#[test]
fn blocks_that_nobody_reads_return_with_their_queue() {
    let broker = open();
    let payload = vec![1; 100_000];
    for policy in [Policy::Backpressure, Policy::DropOldest, Policy::DropNewest] {
        let queue = queue(&broker, policy, SMALL);
        let subscription = subscribe_on(&broker, "block", "", &queue, 0);
        for _ in 0..500 {
            let _ = publish(&broker, "block", &payload);
        }
        // A descriptor has 32 bytes: a lane of 4 KiB bounds the blocks as well.
        assert!(broker.statistics().memory < 100 * (128 << 10));
        subscription.unsubscribe();
        broker.close_queue(&queue);
        let kept = broker.statistics().memory;
        assert!(kept < CACHED_BYTES_MAX + (64 << 10), "{policy:?}: {kept}");
    }
}

#[test]
fn a_wide_fan_out_shares_one_block() {
    let broker = open();
    let queues: Vec<_> = (0..40).map(|_| subscribe(&broker, "fan.out")).collect();
    let payload = vec![9; 4000];
    let mut publisher = Publisher::open(&broker, b"fan.out").unwrap();
    publisher.publish(&payload).unwrap();
    let used = broker.statistics().memory;
    // 40 copies would need rings of 32 KiB each.
    assert!(used < 40 * (4096 + 512), "{used} bytes");
    for subscription in &queues {
        let seen = take_all(&broker, queue_of(subscription));
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].payload, payload);
    }
    drop(publisher);
    for subscription in &queues {
        subscription.unsubscribe();
    }
    // One block of 4 KiB and the table stay for the next.
    assert!(
        broker.statistics().memory <= 16 << 10,
        "{}",
        broker.statistics().memory
    );
}

#[test]
fn a_thread_that_ends_gives_its_lanes_back() {
    let broker = open();
    let subscription = subscribe(&broker, "thread");
    let queue = queue_of(&subscription);
    for round in 0..200 {
        let there = broker.clone();
        let worker = std::thread::spawn(move || {
            for number in 0..100 {
                publish_number(&there, "thread", number).unwrap();
            }
        });
        worker.join().unwrap();
        assert_eq!(
            take_numbers(&broker, queue),
            (0..100).collect::<Vec<_>>(),
            "round {round}"
        );
    }
    assert!(queue.statistics().lanes <= 2, "{:?}", queue.statistics());
    assert_eq!(broker.statistics().published, 20_000);
    assert_eq!(broker.statistics().delivered, 20_000);
}

#[test]
fn publishing_to_nobody_is_done_and_counted() {
    let broker = open();
    let mut publisher = Publisher::open(&broker, b"nobody.handle").unwrap();
    for number in 0..100 {
        publish_number(&broker, "nobody", number).unwrap();
        publisher.publish(b"").unwrap();
    }
    assert_eq!(broker.statistics().published, 200);
    assert_eq!(broker.statistics().delivered, 0);
    assert_eq!(broker.statistics().memory, 0);
}

#[test]
fn the_memory_cap_is_an_error_and_lets_go_when_there_is_room() {
    let broker = open_with(Options {
        memory_max: 256 << 10,
        ..Options::default()
    });
    let subscription = subscribe(&broker, "cap");
    let mut accepted = 0;
    let refused = loop {
        match publish(&broker, "cap", &wide(accepted)) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.status(), Status::NoSpace, "{refused}");
    assert!(broker.statistics().memory_high <= 256 << 10);
    let large = vec![0; 300 << 10];
    check(publish(&broker, "cap", &large), Status::NoSpace);
    let numbers = take_numbers(&broker, queue_of(&subscription));
    assert_eq!(numbers, (0..accepted).collect::<Vec<_>>());
    check(publish(&broker, "cap", &wide(0)), Status::Ok);
}

#[test]
fn many_subscriptions_on_one_queue_each_get_the_message() {
    let broker = open();
    for count in [10u64, 100, 1000, 10_000] {
        let queue = queue(&broker, Policy::Backpressure, 0);
        let all: Vec<_> = (0..count)
            .map(|tag| subscribe_on(&broker, "over.lap", "", &queue, tag))
            .collect();
        for round in 0..40 {
            publish_number(&broker, "over.lap", round).unwrap();
            let mut tags: Vec<u64> = Vec::new();
            for one in take_all(&broker, &queue) {
                assert_eq!(one.number(), round);
                tags.push(one.tag);
            }
            tags.sort_unstable();
            assert_eq!(tags, (0..count).collect::<Vec<_>>());
        }
        for subscription in &all {
            subscription.unsubscribe();
        }
        broker.close_queue(&queue);
    }
}
