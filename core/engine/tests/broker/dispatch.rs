//! Foreign loops: descriptors that are readable exactly while there is something to do, a dispatch
//! that keeps to its budget, and deadlines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::steps::*;
use fastmq_engine::dispatch::ready;
use fastmq_engine::memory::Policy;
use fastmq_engine::{Broker, Delivery, Options, Requester, RequesterOptions, Status};
use fastmq_test_support::readable::is_readable;

fn is_ready(fd: i32) -> bool {
    is_readable(fd, Duration::ZERO)
}

/// Dispatches until nothing more is ready, taking all from `queues`; returns all that was.
fn settle(broker: &Arc<Broker>, queues: &[&fastmq_engine::Place]) -> u32 {
    let mut all = 0;
    for _ in 0..100 {
        let now = broker.dispatch(0, 0).unwrap();
        all |= now;
        // A deadline that has passed stays reported until its owner receives.
        if now == 0 || now & ready::DEADLINE != 0 {
            return all;
        }
        for queue in queues {
            take_all(broker, queue);
        }
    }
    panic!("never quiet: {all:#b}");
}

/// A loop only looks whether a pulled queue holds something: its reader, on another thread, must
/// not notice.
#[test]
fn a_dispatch_beside_a_reader_is_no_misuse() {
    const MESSAGES: u64 = 30_000;
    let broker = open();
    let subscription = subscribe(&broker, "beside");
    broker.dispatch(0, 0).unwrap();
    let there = broker.clone();
    let reader = std::thread::spawn(move || {
        let mut next = 0;
        while next < MESSAGES {
            let batch = queue_of(&subscription)
                .receive(&there, 16, PATIENCE_NS)
                .unwrap();
            for message in batch.messages() {
                assert_eq!(message.payload(), next.to_le_bytes());
                next += 1;
            }
        }
    });
    for number in 0..MESSAGES {
        publish_number(&broker, "beside", number).unwrap();
        broker.dispatch(0, 0).unwrap();
    }
    reader.join().unwrap();
}

#[test]
fn a_queue_is_readable_while_it_holds_something() {
    let broker = open();
    let subscription = subscribe(&broker, "fd");
    let queue = queue_of(&subscription);
    publish_number(&broker, "fd", 0).unwrap();
    let fd = queue.fd().unwrap();
    assert_eq!(queue.fd(), Ok(fd));
    assert!(is_ready(fd), "asked for late, it knows what came before");
    assert_eq!(take_numbers(&broker, queue), [0]);
    assert!(!is_ready(fd));
    for number in 0..10 {
        publish_number(&broker, "fd", number).unwrap();
    }
    assert!(is_ready(fd) && is_ready(fd), "level-triggered");
    drop(queue.receive(&broker, 9, 0).unwrap());
    assert!(is_ready(fd), "one is left");
    assert_eq!(take_numbers(&broker, queue), [9]);
    for number in 0..1000 {
        publish_number(&broker, "fd", number).unwrap();
        assert!(is_ready(fd), "{number}");
        assert_eq!(take_numbers(&broker, queue), [number]);
        assert!(!is_ready(fd), "{number}");
    }
    subscription.unsubscribe();
    assert!(is_ready(fd), "closed: a receive says END");
}

#[test]
fn a_waiting_loop_is_woken_by_another_thread_without_a_lost_edge() {
    let broker = open();
    let subscription = subscribe(&broker, "edge");
    let queue = queue_of(&subscription);
    let fd = queue.fd().unwrap();
    let there = broker.clone();
    let worker = std::thread::spawn(move || {
        for number in 0..20_000 {
            publish_number(&there, "edge", number).unwrap();
        }
    });
    let mut next = 0;
    while next < 20_000 {
        assert!(is_readable(fd, PATIENCE), "no edge after {next}");
        for number in take_numbers(&broker, queue) {
            assert_eq!(number, next);
            next += 1;
        }
    }
    worker.join().unwrap();
}

#[test]
fn the_client_is_readable_while_any_queue_holds_something() {
    let broker = open();
    let a = subscribe(&broker, "fd.a");
    let fd = broker.fd().unwrap();
    let b = subscribe(&broker, "fd.b");
    let shared = queue(&broker, Policy::Backpressure, 0);
    let _c = subscribe_on(&broker, "fd.c", "", &shared, 0);
    assert!(!is_ready(fd));
    assert_eq!(broker.dispatch(100, 0), Ok(0));
    for round in 0..50 {
        for (subject, queue) in [
            ("fd.a", queue_of(&a)),
            ("fd.b", queue_of(&b)),
            ("fd.c", &shared),
        ] {
            publish_number(&broker, subject, round).unwrap();
            assert!(is_ready(fd), "{subject}, round {round}");
            assert_eq!(broker.dispatch(0, 0), Ok(ready::MESSAGES));
            assert!(is_ready(fd), "still there");
            assert_eq!(take_numbers(&broker, queue), [round]);
            assert_eq!(settle(&broker, &[]) & !ready::MESSAGES, 0);
            assert!(!is_ready(fd), "{subject}, round {round}");
        }
    }
    assert_eq!(broker.statistics().threads, 0);
}

#[test]
fn a_dispatch_without_a_descriptor_reports_too() {
    let broker = open();
    let subscription = subscribe(&broker, "poll");
    publish_number(&broker, "poll", 1).unwrap();
    assert_eq!(broker.dispatch(0, 0), Ok(ready::MESSAGES));
    assert_eq!(take_numbers(&broker, queue_of(&subscription)), [1]);
    assert_eq!(settle(&broker, &[]) & !ready::MESSAGES, 0);
    publish_number(&broker, "poll", 2).unwrap();
    assert_eq!(broker.dispatch(0, 0), Ok(ready::MESSAGES));
}

#[test]
fn dispatch_calls_handlers_within_its_budget_and_in_order() {
    let broker = open();
    let next = Arc::new(AtomicU64::new(0));
    let next_in = next.clone();
    let _subscription = handle(&broker, "budget", Delivery::Dispatch, move |view| {
        assert_eq!(
            number_of(view.payload()),
            next_in.fetch_add(1, Ordering::SeqCst)
        );
    });
    let fd = broker.fd().unwrap();
    for number in 0..1000 {
        publish_number(&broker, "budget", number).unwrap();
    }
    assert_eq!(next.load(Ordering::SeqCst), 0);
    for budget in [1, 7, 100, 500] {
        let before = next.load(Ordering::SeqCst);
        let found = broker.dispatch(budget, 0).unwrap();
        assert_eq!(found, ready::MESSAGES | ready::MORE);
        assert_eq!(next.load(Ordering::SeqCst) - before, u64::from(budget));
        assert!(is_ready(fd));
    }
    assert_eq!(broker.dispatch(0, 0), Ok(ready::MESSAGES));
    assert_eq!(next.load(Ordering::SeqCst), 1000);
    assert_eq!(settle(&broker, &[]), 0);
    assert!(!is_ready(fd));
}

#[test]
fn a_budget_of_time_ends_a_dispatch() {
    let (broker, driver) = open_simulated(9);
    let count = Arc::new(AtomicU64::new(0));
    let (count_in, driver_in) = (count.clone(), driver.clone());
    let _subscription = handle(&broker, "time", Delivery::Dispatch, move |_| {
        driver_in.advance(1000);
        count_in.fetch_add(1, Ordering::SeqCst);
    });
    for number in 0..1000 {
        publish_number(&broker, "time", number).unwrap();
    }
    let found = broker.dispatch(0, 100_000).unwrap();
    assert_eq!(found, ready::MESSAGES | ready::MORE);
    // The clock is looked at every 16 messages.
    let first = count.load(Ordering::SeqCst);
    assert!((100..100 + 16).contains(&first), "{first}");
    assert_eq!(broker.dispatch(0, 0), Ok(ready::MESSAGES));
    assert_eq!(count.load(Ordering::SeqCst), 1000);
}

#[test]
fn handlers_get_their_turns_and_may_publish_and_dispatch() {
    let broker = open();
    let there = Arc::downgrade(&broker);
    let calls = Arc::new(AtomicU64::new(0));
    let calls_in = calls.clone();
    let _first = handle(&broker, "turn.a", Delivery::Dispatch, move |view| {
        calls_in.fetch_add(1, Ordering::SeqCst);
        let broker = there.upgrade().unwrap();
        publish(&broker, "turn.b", view.payload()).unwrap();
        broker.dispatch(10, 0).unwrap();
    });
    let others = Arc::new(AtomicU64::new(0));
    let others_in = others.clone();
    let _second = handle(&broker, "turn.b", Delivery::Dispatch, move |_| {
        others_in.fetch_add(1, Ordering::SeqCst);
    });
    for number in 0..200 {
        publish_number(&broker, "turn.a", number).unwrap();
    }
    settle(&broker, &[]);
    assert_eq!(
        (calls.load(Ordering::SeqCst), others.load(Ordering::SeqCst)),
        (200, 200)
    );
}

#[test]
fn answers_and_deadlines_make_the_client_readable() {
    let broker = open();
    let responder = subscribe(&broker, "ask");
    let options = RequesterOptions {
        subject: b"ask",
        ..RequesterOptions::default()
    };
    let fd = broker.fd().unwrap();
    let mut asker = Requester::open(&broker, options).unwrap();
    asker.submit(b"", 1, FOREVER).unwrap();
    assert!(is_ready(fd), "the request waits at its responder");
    let request = take_all(&broker, queue_of(&responder)).pop().unwrap();
    settle(&broker, &[queue_of(&responder)]);
    assert!(!is_ready(fd));
    client(&broker, |client| {
        client.writer.reply(request.token, 0, b"", &[])
    })
    .unwrap();
    assert!(is_ready(fd));
    assert_eq!(broker.dispatch(0, 0), Ok(ready::ANSWERS));
    assert_eq!(asker.receive(10, 0).unwrap().messages().len(), 1);
    settle(&broker, &[]);
    assert!(!is_ready(fd));

    asker.submit(b"", 2, 2 * MILLISECOND).unwrap();
    take_all(&broker, queue_of(&responder));
    check(asker.receive(10, 0), Status::Again);
    settle(&broker, &[queue_of(&responder)]);
    let left_ns = broker.next_deadline();
    assert!(left_ns <= 2 * MILLISECOND, "{left_ns}");
    assert!(is_readable(fd, PATIENCE), "the deadline makes it readable");
    until("the deadline is reported", || {
        broker.dispatch(0, 0).unwrap() & (ready::DEADLINE | ready::ANSWERS) != 0
    });
    let batch = asker.receive(10, PATIENCE_NS).unwrap();
    let view = &batch.messages()[0];
    assert_eq!((view.token, view.status), (2, Status::Timeout as u32));
}

#[test]
fn next_deadline_counts_down_by_the_clock() {
    let (broker, driver) = open_simulated(2);
    assert_eq!(broker.next_deadline(), FOREVER);
    let _silent = subscribe(&broker, "silent");
    let options = RequesterOptions {
        subject: b"silent",
        ..RequesterOptions::default()
    };
    let mut asker = Requester::open(&broker, options).unwrap();
    asker.submit(b"", 1, 5000).unwrap();
    check(asker.receive(1, 0), Status::Again);
    assert_eq!(broker.next_deadline(), 5000);
    driver.advance(3000);
    assert_eq!(broker.next_deadline(), 2000);
    driver.advance(3000);
    assert_eq!(broker.next_deadline(), 0);
    assert_ne!(broker.dispatch(0, 0).unwrap() & ready::DEADLINE, 0);
    assert_eq!(asker.receive(1, 0).unwrap().messages().len(), 1);
    check(asker.receive(1, 0), Status::Again);
    assert_eq!(broker.next_deadline(), FOREVER);
}

#[test]
fn room_in_a_queue_that_refused_is_reported() {
    let broker = open_with(Options {
        queue_capacity: SMALL,
        ..Options::default()
    });
    let subscription = subscribe(&broker, "room");
    let fd = broker.fd().unwrap();
    for _ in 0..20 {
        fill(&broker, "room");
        take_all(&broker, queue_of(&subscription));
        assert!(is_ready(fd));
        assert_ne!(settle(&broker, &[queue_of(&subscription)]) & ready::ROOM, 0);
        assert!(!is_ready(fd));
    }
}

#[test]
fn a_requesters_descriptor_tells_of_fates_and_deadlines() {
    let broker = open();
    let options = RequesterOptions {
        subject: b"fates",
        ..RequesterOptions::default()
    };
    let mut asker = Requester::open(&broker, options).unwrap();
    let fd = asker.place().fd().unwrap();
    assert!(!is_ready(fd));
    asker.submit(b"", 1, FOREVER).unwrap();
    assert!(is_ready(fd), "NO_RESPONDER is an answer");
    assert_eq!(asker.receive(10, 0).unwrap().messages().len(), 1);
    check(asker.receive(10, 0), Status::Again);
    assert!(!is_ready(fd));
    let _silent = subscribe(&broker, "fates");
    asker.submit(b"", 2, MILLISECOND).unwrap();
    assert!(is_readable(fd, PATIENCE));
    let status = asker.receive(10, PATIENCE_NS).unwrap().messages()[0].status;
    assert_eq!(status, Status::Timeout as u32);
    check(asker.receive(10, 0), Status::Again);
    assert!(!is_ready(fd));
}

fn asker(broker: &Arc<Broker>, subject: &[u8]) -> Requester {
    let options = RequesterOptions {
        subject,
        ..RequesterOptions::default()
    };
    Requester::open(broker, options).unwrap()
}

/// Only the client's descriptor was asked for, and no record tells these fates.
#[test]
fn fates_without_a_record_make_the_client_readable() {
    let broker = open();
    let fd = broker.fd().unwrap();
    let mut asker = asker(&broker, b"nobody");
    for token in 0..3 {
        asker.submit(b"", token, FOREVER).unwrap();
    }
    assert!(is_ready(fd), "NO_RESPONDER is an answer");
    assert_eq!(broker.dispatch(0, 0), Ok(ready::ANSWERS));
    for _ in 0..3 {
        assert!(is_ready(fd), "until the last is received");
        assert_eq!(broker.dispatch(0, 0), Ok(ready::ANSWERS));
        assert_eq!(asker.receive(1, 0).unwrap().messages().len(), 1);
    }
    assert_eq!(broker.dispatch(0, 0), Ok(0));
    assert!(!is_ready(fd));
    let silent = subscribe(&broker, "nobody");
    asker.submit(b"", 7, FOREVER).unwrap();
    take_all(&broker, queue_of(&silent));
    assert_eq!(settle(&broker, &[]) & ready::ANSWERS, 0);
    assert!(!is_ready(fd));
    asker.cancel(7).unwrap();
    assert!(is_ready(fd), "CANCELLED is an answer too");
    assert_eq!(broker.dispatch(0, 0), Ok(ready::ANSWERS));
}

#[test]
fn a_deadline_is_known_from_the_submit_on() {
    let (broker, driver) = open_simulated(3);
    let _silent = subscribe(&broker, "silent");
    let mut asker = asker(&broker, b"silent");
    broker.dispatch(0, 0).unwrap();
    asker.submit(b"", 1, 5000).unwrap();
    asker.submit(b"", 2, 5000).unwrap();
    assert_eq!(broker.next_deadline(), 5000);
    driver.advance(5000);
    let found = broker.dispatch(0, 0).unwrap();
    assert_ne!(found & ready::DEADLINE, 0, "{found:#b}");
    for _ in 0..2 {
        assert_ne!(broker.dispatch(0, 0).unwrap() & ready::ANSWERS, 0);
        let batch = asker.receive(1, 0).unwrap();
        assert_eq!(batch.messages()[0].status, Status::Timeout as u32);
    }
    assert_eq!(broker.dispatch(0, 0).unwrap() & ready::ANSWERS, 0);
}

#[test]
fn a_deadline_makes_the_client_readable_without_a_receive() {
    let broker = open();
    let silent = subscribe(&broker, "silent");
    let fd = broker.fd().unwrap();
    let mut asker = asker(&broker, b"silent");
    asker.submit(b"", 1, 2 * MILLISECOND).unwrap();
    take_all(&broker, queue_of(&silent));
    assert_eq!(settle(&broker, &[]) & ready::MESSAGES, 0);
    assert!(is_readable(fd, PATIENCE));
    until("the deadline is reported", || {
        broker.dispatch(0, 0).unwrap() & ready::DEADLINE != 0
    });
    assert_eq!(asker.receive(1, 0).unwrap().messages()[0].token, 1);
}

/// Nobody has read the clock for the earlier submits: the loop hears of them once, and the receive
/// that finds nothing makes their deadlines known.
#[test]
fn who_begins_to_watch_late_knows_the_deadlines_too() {
    let (broker, driver) = open_simulated(4);
    let _silent = subscribe(&broker, "silent");
    let mut first = asker(&broker, b"silent");
    first.submit(b"", 1, 5000).unwrap();
    assert_eq!(broker.next_deadline(), 0);
    check(first.receive(1, 0), Status::Again);
    assert_eq!(broker.next_deadline(), 5000);
    driver.advance(5000);
    let batch = first.receive(1, 0).unwrap();
    assert_eq!(batch.messages()[0].status, Status::Timeout as u32);

    let broker = open();
    let _silent = subscribe(&broker, "silent");
    let mut second = asker(&broker, b"silent");
    second.submit(b"", 1, PATIENCE_NS).unwrap();
    let fd = second.place().fd().unwrap();
    assert!(is_readable(fd, PATIENCE));
    check(second.receive(1, 0), Status::Again);
    assert!(!is_ready(fd));
}

#[test]
fn what_an_open_batch_leaves_is_reported_when_it_is_dropped() {
    let broker = open();
    let subscription = subscribe(&broker, "rest");
    let fd = broker.fd().unwrap();
    for number in 0..3 {
        publish_number(&broker, "rest", number).unwrap();
    }
    for number in 0..3 {
        assert!(is_ready(fd), "round {number}");
        let batch = queue_of(&subscription).receive(&broker, 1, 0).unwrap();
        assert_eq!(number_of(batch.messages()[0].payload()), number);
        broker.dispatch(0, 0).unwrap();
        assert!(!is_ready(fd), "nothing can be done while the batch is open");
        drop(batch);
    }
    assert_eq!(settle(&broker, &[]), 0);
    assert!(!is_ready(fd));
}

/// The queue belongs to a library thread, the room to the user's loop.
#[test]
fn room_in_a_queue_of_a_thread_is_reported() {
    let broker = open_with(Options {
        queue_capacity: SMALL,
        ..Options::default()
    });
    let gate = Arc::new(Mutex::new(()));
    let gate_in = gate.clone();
    let _subscription = handle(&broker, "room", Delivery::Thread, move |_| {
        drop(gate_in.lock().unwrap());
    });
    let fd = broker.fd().unwrap();
    let closed = gate.lock().unwrap();
    fill(&broker, "room");
    assert_eq!(settle(&broker, &[]), 0);
    drop(closed);
    assert!(is_readable(fd, PATIENCE));
    assert_eq!(broker.dispatch(0, 0), Ok(ready::ROOM));
}

#[test]
fn a_receive_that_times_out_leaves_the_descriptor_quiet() {
    let broker = open();
    let subscription = subscribe(&broker, "late");
    let queue = queue_of(&subscription);
    let fd = queue.fd().unwrap();
    for round in 0..3 {
        publish_number(&broker, "late", round).unwrap();
        assert!(is_ready(fd));
        drop(queue.receive(&broker, 10, MILLISECOND).unwrap());
        check(queue.receive(&broker, 10, MILLISECOND), Status::Timeout);
        assert!(!is_ready(fd), "round {round}");
    }
}

#[test]
fn a_responder_that_leaves_makes_its_askers_descriptors_readable() {
    for has_own in [false, true] {
        let broker = open();
        let responder = subscribe(&broker, "leaves");
        let options = RequesterOptions {
            subject: b"leaves",
            ..RequesterOptions::default()
        };
        let mut asker = Requester::open(&broker, options).unwrap();
        let fd = if has_own {
            asker.place().fd().unwrap()
        } else {
            broker.fd().unwrap()
        };
        asker.submit(b"", 1, FOREVER).unwrap();
        responder.unsubscribe();
        assert!(is_ready(fd));
        if !has_own {
            assert_eq!(broker.dispatch(0, 0), Ok(ready::ANSWERS));
            assert!(is_ready(fd), "until it is received");
        }
        let batch = asker.receive(10, 0).unwrap();
        assert_eq!(batch.messages()[0].status, Status::Cancelled as u32);
        drop(batch);
        check(asker.receive(10, 0), Status::Again);
        if !has_own {
            assert_eq!(broker.dispatch(0, 0), Ok(0));
        }
        assert!(!is_ready(fd));
    }
}
