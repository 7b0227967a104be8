//! Latest queues: whoever publishes and however it is read, the reader sees the newest message of
//! each subject, in the order in which the subjects first changed; publishing never waits and is
//! never refused for want of room.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::steps::*;
use fastmq_engine::memory::Policy;
use fastmq_engine::memory::view::view_flag;
use fastmq_engine::{
    Broker, Delivery, Message, Options, Place, Publisher, Requester, RequesterOptions, Result,
    Status, SubscribeOptions, Subscription,
};
use fastmq_test_support::readable;

fn is_readable(fd: i32) -> bool {
    readable::is_readable(fd, Duration::ZERO)
}

fn latest(broker: &Arc<Broker>) -> Arc<Place> {
    queue(broker, Policy::Latest, 0)
}

/// Subscribes a handler whose queue keeps the newest of each subject.
fn handle_latest(
    broker: &Arc<Broker>,
    pattern: &str,
    delivery: Delivery,
    heard: &Arc<Mutex<Vec<Seen>>>,
) -> Subscription {
    let heard = heard.clone();
    let options = SubscribeOptions {
        delivery,
        policy: Policy::Latest,
        on_message: Some(Box::new(move |view| {
            heard.lock().unwrap().push(Seen::of(view));
        })),
        ..SubscribeOptions::default()
    };
    broker.subscribe_with(pattern.as_bytes(), options).unwrap()
}

fn subscribe_with(broker: &Arc<Broker>, options: SubscribeOptions<'_>) -> Result<Subscription> {
    broker.subscribe_with(b"a", options)
}

/// Subject, number and losses of what was seen.
fn told(seen: &[Seen]) -> Vec<(&str, u64, u64)> {
    seen.iter()
        .map(|one| (&*one.subject, one.number(), one.lost))
        .collect()
}

#[test]
fn the_newest_of_each_subject_is_received_in_the_order_of_the_first_changes() {
    let broker = open();
    let place = latest(&broker);
    let subscription = subscribe_on(&broker, "board.*", "", &place, 7);
    let mut handle = Publisher::open(&broker, b"board.b").unwrap();
    // More than a route needs to be kept, so that both ways are taken.
    for number in 0..40 {
        publish_number(&broker, "board.c", number).unwrap();
        handle.publish(&number.to_le_bytes()).unwrap();
        publish_number(&broker, "board.a", number).unwrap();
    }
    let figures = place.statistics();
    assert_eq!((figures.published, figures.pending), (120, 3));
    assert_eq!(
        (figures.replaced, figures.dropped, figures.lanes),
        (117, 0, 0)
    );
    let seen = take_all(&broker, &place);
    let expected = [
        ("board.c", 39, 39),
        ("board.b", 39, 39),
        ("board.a", 39, 39),
    ];
    assert_eq!(told(&seen), expected);
    assert_eq!(seen[1].sequence, 40);
    let is_mine = |one: &Seen| one.tag == 7 && one.id == subscription.id();
    assert!(seen.iter().all(is_mine));
    assert_eq!(subscription.counts(), (3, 0));
    publish_number(&broker, "board.a", 40).unwrap();
    assert_eq!(told(&take_all(&broker, &place)), [("board.a", 40, 0)]);
    check(place.receive(&broker, 1, 0), Status::Again);
}

#[test]
fn every_message_of_a_subject_is_one_slot_whoever_publishes_it() {
    let broker = open();
    let place = latest(&broker);
    let _subscription = subscribe_on(&broker, "a", "", &place, 0);
    let _again = subscribe_on(&broker, "*", "", &place, 0);
    let mut handles: Vec<_> = (0..3)
        .map(|_| Publisher::open(&broker, b"a").unwrap())
        .collect();
    for handle in &mut handles {
        handle.publish(&5u64.to_le_bytes()).unwrap();
    }
    publish_number(&broker, "a", 6).unwrap();
    let many = [7u64, 8, 9].map(u64::to_le_bytes);
    let (accepted, sent) = handles[0].publish_batch(many.iter().map(|one| &one[..]));
    assert_eq!((accepted, sent), (3, Ok(())));
    // One for each subscription.
    let seen = take_all(&broker, &place);
    assert_eq!(told(&seen), [("a", 9, 6), ("a", 9, 6)]);
    assert_ne!(seen[0].id, seen[1].id);
}

#[test]
fn what_a_batch_shows_stays_while_its_subjects_change() {
    let broker = open();
    let place = latest(&broker);
    let _subscription = subscribe_on(&broker, "a.*", "", &place, 0);
    publish_number(&broker, "a.x", 1).unwrap();
    let batch = place.receive(&broker, 10, 0).unwrap();
    for number in 2..50 {
        publish(&broker, "a.x", &wide(number)).unwrap();
        publish_number(&broker, "a.y", number).unwrap();
    }
    assert_eq!(batch.messages().len(), 1);
    assert_eq!(batch.messages()[0].payload(), 1u64.to_le_bytes());
    drop(batch);
    let seen = take_all(&broker, &place);
    assert_eq!(told(&seen), [("a.x", 49, 47), ("a.y", 49, 47)]);
}

#[test]
fn all_fields_large_payloads_and_times_to_live_are_those_of_the_newest() {
    let (broker, driver) = open_simulated(1);
    let place = latest(&broker);
    let _subscription = subscribe_on(&broker, "a", "", &place, 0);
    let send = |message: &Message<'_>| {
        client(&broker, |client| client.writer.publish_message(message)).unwrap();
    };
    let large = vec![3; 100_000];
    let message = Message {
        subject: b"a",
        payload: &large,
        reply_to: b"back",
        key: b"key",
        ..Message::default()
    };
    publish_number(&broker, "a", 1).unwrap();
    send(&message);
    send(&message);
    {
        let batch = place.receive(&broker, 10, 0).unwrap();
        let [view] = batch.messages() else {
            panic!("one message")
        };
        assert_eq!((view.payload(), view.lost_before), (&large[..], 2));
        assert_eq!((view.reply_to(), view.key()), (&b"back"[..], &b"key"[..]));
        send(&message);
        assert_eq!(view.payload(), large);
    }
    publish_number(&broker, "a", 2).unwrap();
    assert_eq!(told(&take_all(&broker, &place)), [("a", 2, 1)]);
    send(&Message {
        subject: b"a",
        payload: &3u64.to_le_bytes(),
        ttl_ns: 1000,
        ..Message::default()
    });
    driver.advance(2000);
    assert_eq!(take_all(&broker, &place), []);
    assert_eq!(place.statistics().expired, 1);
    let memory = broker.statistics().memory;
    for _ in 0..20 {
        send(&message);
        assert_eq!(take_all(&broker, &place).len(), 1);
    }
    assert!(broker.statistics().memory <= memory);
}

#[test]
fn what_is_committed_to_a_claim_reaches_slots_alone_and_beside_queues() {
    let broker = open();
    let place = latest(&broker);
    let _subscription = subscribe_on(&broker, "a", "", &place, 0);
    let mut publisher = Publisher::open(&broker, b"a").unwrap();
    let mut commit = |size: usize| {
        let mut claim = publisher.claim(size).unwrap();
        claim.bytes().fill(size as u8);
        claim.commit(size).unwrap();
    };
    let received = || {
        let seen = take_all(&broker, &place);
        assert_eq!(seen.len(), 1);
        seen[0].payload.clone()
    };
    for has_others in [false, true] {
        let others = [(); 2].map(|()| has_others.then(|| subscribe(&broker, "a")));
        for size in [16, 1000, 20_000] {
            commit(size);
            assert_eq!(received(), vec![size as u8; size]);
            for other in others.iter().flatten() {
                assert_eq!(take_all(&broker, queue_of(other))[0].payload.len(), size);
            }
        }
    }
}

#[test]
fn beside_a_full_queue_a_refused_message_changes_no_value() {
    let broker = open();
    let place = latest(&broker);
    let other = latest(&broker);
    let _latest = [
        subscribe_on(&broker, "a", "", &place, 0),
        subscribe_on(&broker, "a", "", &other, 0),
    ];
    let strict = queue(&broker, Policy::Backpressure, SMALL);
    let _strict = subscribe_on(&broker, "a", "", &strict, 0);
    let accepted = fill(&broker, "a");
    check(publish(&broker, "a", &wide(accepted)), Status::Again);
    let expected = [("a", accepted - 1, accepted - 1)];
    assert_eq!(told(&take_all(&broker, &place)), expected);
    assert_eq!(told(&take_all(&broker, &other)), expected);
    assert_eq!(take_all(&broker, &strict).len() as u64, accepted);
    // A payload that goes by block reaches them all.
    publish(&broker, "a", &[9; 20_000]).unwrap();
    for place in [&place, &other, &strict] {
        let seen = take_all(&broker, place);
        assert_eq!((seen.len(), &seen[0].payload[..]), (1, &[9; 20_000][..]));
    }
}

#[test]
fn a_latest_queue_answers_no_requests_and_hides_nobody_who_does() {
    let broker = open();
    let place = latest(&broker);
    let _watching = subscribe_on(&broker, ">", "", &place, 0);
    let ask = |subject: &str| {
        let message = Message {
            subject: subject.as_bytes(),
            ..Message::default()
        };
        client(&broker, |client| {
            client.request(&message, PATIENCE_NS, |view| view.status)
        })
    };
    check(ask("q"), Status::NoResponder);
    let options = RequesterOptions {
        subject: b"q",
        ..RequesterOptions::default()
    };
    let mut asker = Requester::open(&broker, options).unwrap();
    asker.submit(b"", 1, FOREVER).unwrap();
    {
        let batch = asker.receive(1, 0).unwrap();
        assert_eq!(batch.messages()[0].status, Status::NoResponder as u32);
    }
    let there = Arc::downgrade(&broker);
    let _responder = handle(&broker, "q", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        assert_eq!(view.flags, view_flag::REQUEST);
        client(&broker, |client| {
            client.writer.reply(view.token, 0, b"", &[])
        })
        .unwrap();
    });
    assert_eq!(ask("q"), Ok(0));
    assert_eq!(take_all(&broker, &place), []);
}

#[test]
fn a_group_or_a_policy_without_a_queue_of_its_own_is_refused() {
    let broker = open();
    let place = latest(&broker);
    let (pattern, group) = (b"a", b"g");
    let grouped = broker.subscribe(pattern, group, Delivery::Queue, Some(&place), 0, None);
    check(grouped, Status::Invalid);
    let policy = Policy::Latest;
    let options = || SubscribeOptions {
        policy,
        ..SubscribeOptions::default()
    };
    let wrong = [
        SubscribeOptions { group, ..options() },
        SubscribeOptions {
            queue: Some(&place),
            ..options()
        },
        SubscribeOptions {
            delivery: Delivery::Inline,
            on_message: Some(Box::new(|_| ())),
            ..options()
        },
    ];
    for options in wrong {
        check(subscribe_with(&broker, options), Status::Invalid);
    }
    assert_eq!(broker.statistics().subscriptions, 0);
    let subscription = subscribe_with(&broker, options()).unwrap();
    publish_number(&broker, "a", 1).unwrap();
    publish_number(&broker, "a", 2).unwrap();
    assert_eq!(
        told(&take_all(&broker, queue_of(&subscription))),
        [("a", 2, 1)]
    );
}

#[test]
fn descriptors_and_dispatch_report_a_change_once_and_again_after_it_was_read() {
    let broker = open();
    let place = latest(&broker);
    let _subscription = subscribe_on(&broker, "a.*", "", &place, 0);
    let (own, all) = (place.fd().unwrap(), broker.fd().unwrap());
    for number in 0..3 {
        assert!(!is_readable(own) && !is_readable(all));
        publish_number(&broker, "a.x", number).unwrap();
        publish_number(&broker, "a.y", number).unwrap();
        assert!(is_readable(own) && is_readable(all));
        let found = broker.dispatch(0, 0).unwrap();
        assert_eq!(found, fastmq_engine::dispatch::ready::MESSAGES);
        // A part of it is not all.
        drop(place.receive(&broker, 1, 0).unwrap());
        assert!(is_readable(own) && is_readable(all));
        assert_eq!(take_all(&broker, &place).len(), 1);
        check(place.receive(&broker, 1, 0), Status::Again);
        assert_eq!(broker.dispatch(0, 0), Ok(0));
    }
}

#[test]
fn handlers_in_dispatch_and_on_threads_get_the_newest() {
    let broker = open();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let dispatched = handle_latest(&broker, "a.*", Delivery::Dispatch, &heard);
    for number in 0..10 {
        publish_number(&broker, "a.x", number).unwrap();
        publish_number(&broker, "a.y", number).unwrap();
    }
    broker.dispatch(0, 0).unwrap();
    let seen = std::mem::take(&mut *heard.lock().unwrap());
    assert_eq!(told(&seen), [("a.x", 9, 9), ("a.y", 9, 9)]);
    dispatched.unsubscribe();
    publish_number(&broker, "a.x", 10).unwrap();
    broker.dispatch(0, 0).unwrap();
    assert_eq!(*heard.lock().unwrap(), []);

    let threaded = handle_latest(&broker, "a.*", Delivery::Thread, &heard);
    for number in 1..=1000 {
        publish_number(&broker, "a.x", number).unwrap();
    }
    until("the last one is heard", || {
        let heard = heard.lock().unwrap();
        heard.last().is_some_and(|one| one.number() == 1000)
    });
    threaded.unsubscribe();
    let seen = std::mem::take(&mut *heard.lock().unwrap());
    assert!(seen.is_sorted_by_key(Seen::number));
    let counted: u64 = seen.iter().map(|one| 1 + one.lost).sum();
    assert_eq!(counted, 1000);
}

#[test]
fn unsubscribing_leaves_nothing_and_other_subscriptions_alone() {
    let broker = open();
    let place = latest(&broker);
    let one = subscribe_on(&broker, "a", "", &place, 1);
    let _two = subscribe_on(&broker, "a", "", &place, 2);
    let mut publisher = Publisher::open(&broker, b"a").unwrap();
    publisher.publish(&1u64.to_le_bytes()).unwrap();
    one.unsubscribe();
    assert_eq!(place.statistics().pending, 1);
    publisher.publish(&2u64.to_le_bytes()).unwrap();
    let seen = take_all(&broker, &place);
    assert_eq!((told(&seen), seen[0].tag), (vec![("a", 2, 1)], 2));
}

#[test]
fn drain_waits_for_what_waits_and_close_empties() {
    let broker = open();
    let place = latest(&broker);
    let _subscription = subscribe_on(&broker, "a", "", &place, 0);
    let mut publisher = Publisher::open(&broker, b"a").unwrap();
    publisher.publish(&[1; 9000]).unwrap();
    check(broker.drain(0), Status::Timeout);
    check(publisher.publish(b"late"), Status::Closed);
    let batch = place.receive(&broker, 1, 0).unwrap();
    check(broker.drain(0), Status::Timeout);
    drop(batch);
    check(broker.drain(0), Status::Ok);
    check(place.receive(&broker, 1, 0), Status::End);

    let broker = open();
    let place = latest(&broker);
    let _subscription = subscribe_on(&broker, "a", "", &place, 0);
    let mut publisher = Publisher::open(&broker, b"a").unwrap();
    publisher.publish(&1u64.to_le_bytes()).unwrap();
    publisher.publish(&[2; 9000]).unwrap();
    let batch = place.receive(&broker, 1, 0).unwrap();
    publisher.publish(&[3; 9000]).unwrap();
    broker.close();
    assert_eq!(batch.messages()[0].payload(), [2; 9000]);
    drop(batch);
    check(place.receive(&broker, 1, 0), Status::End);
    check(publisher.publish(b"late"), Status::Closed);
}

#[test]
fn memory_max_refuses_one_more_subject_and_the_publish_has_done_nothing() {
    let broker = open_with(Options {
        memory_max: 64 << 10,
        ..Options::default()
    });
    let place = latest(&broker);
    let _subscription = subscribe_on(&broker, "a.*", "", &place, 0);
    let mut kept = 0;
    let refused = loop {
        match publish_number(&broker, &format!("a.{kept}"), kept) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 10_000, "a queue without end");
    };
    assert_eq!(refused.status(), Status::NoSpace, "{refused}");
    assert!(kept > 50, "{kept}");
    // Those that are there go on.
    publish_number(&broker, "a.0", 77).unwrap();
    let seen = take_all(&broker, &place);
    assert_eq!(seen.len() as u64, kept);
    assert_eq!((seen[0].number(), seen[0].lost), (77, 1));
}

#[test]
fn under_load_the_reader_sees_every_subjects_newest_and_memory_stays_flat() {
    const SUBJECTS: u64 = 100;
    const ROUNDS: u64 = if cfg!(fastmq_tsan) { 300 } else { 20_000 };
    let broker = open();
    let place = latest(&broker);
    let _subscription = subscribe_on(&broker, "s.*", "", &place, 0);
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (broker, place, is_over) = (broker.clone(), place.clone(), is_over.clone());
        std::thread::spawn(move || {
            let mut newest: HashMap<String, u64> = HashMap::new();
            let mut counted = 0;
            loop {
                let is_last = is_over.load(Ordering::Acquire);
                let batch = match place.receive(&broker, 64, MILLISECOND) {
                    Ok(batch) => batch,
                    Err(_) if is_last => return (newest, counted),
                    Err(_) => continue,
                };
                for view in batch.messages() {
                    let seen = Seen::of(view);
                    counted += 1 + seen.lost;
                    let (number, sequence) = (seen.number(), seen.sequence);
                    // By string and by handle: two writers, each of which only goes up.
                    let writer = format!("{} {}", seen.subject, sequence > 0);
                    let before = newest.insert(writer, number);
                    assert!(before.is_none_or(|before| before < number));
                }
            }
        })
    };
    let by_handle = {
        let broker = broker.clone();
        std::thread::spawn(move || {
            let open = |at| Publisher::open(&broker, format!("s.{at}").as_bytes()).unwrap();
            let mut publishers: Vec<_> = (0..SUBJECTS).map(open).collect();
            for number in 0..ROUNDS {
                for publisher in &mut publishers {
                    publisher.publish(&number.to_le_bytes()).unwrap();
                }
            }
        })
    };
    let subjects: Vec<_> = (0..SUBJECTS).map(|at| format!("s.{at}")).collect();
    for number in 0..ROUNDS {
        for subject in &subjects {
            publish_number(&broker, subject, number).unwrap();
        }
    }
    by_handle.join().unwrap();
    is_over.store(true, Ordering::Release);
    let (newest, counted) = reader.join().unwrap();
    assert_eq!(counted, 2 * SUBJECTS * ROUNDS);
    for subject in &subjects {
        let last = |by_handle| newest.get(&format!("{subject} {by_handle}"));
        assert!(
            [true, false]
                .iter()
                .any(|way| last(way) == Some(&(ROUNDS - 1)))
        );
    }
    // Two buffers and a slot each, and nothing that grows.
    assert!(broker.statistics().memory_high < SUBJECTS * 1024);
}
