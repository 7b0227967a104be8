//! Drain and close: they end within their deadline from any place, lose nothing that was promised,
//! and give everything back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::steps::*;
use fastmq_engine::driver::Driver;
use fastmq_engine::memory::Policy;
use fastmq_engine::{
    Broker, Delivery, Message, Options, Publisher, QueueOptions, Requester, RequesterOptions,
    Status, SubscribeOptions, Subscription,
};

#[test]
fn drain_refuses_publishes_and_waits_until_all_is_received() {
    let broker = open();
    let subscription = subscribe(&broker, "drain");
    let queue = queue_of(&subscription);
    let mut publisher = Publisher::open(&broker, b"drain").unwrap();
    for number in 0..5 {
        publish_number(&broker, "drain", number).unwrap();
    }
    let error = broker.drain(0).unwrap_err();
    assert_eq!(error.status(), Status::Timeout);
    assert!(error.text().contains("5 messages"), "{error}");
    check(broker.drain(5 * MILLISECOND), Status::Timeout);
    check(publish_number(&broker, "drain", 9), Status::Closed);
    check(publisher.publish(b""), Status::Closed);
    let other = broker.subscribe(b"other", b"", Delivery::Queue, None, 0, None);
    check(other, Status::Closed);
    assert_eq!(take_numbers(&broker, queue), [0, 1, 2, 3, 4]);
    check(broker.drain(PATIENCE_NS), Status::Ok);
    check(broker.drain(0), Status::Ok);
    check(queue.receive(&broker, 1, FOREVER), Status::End);
    broker.close();
    check(broker.drain(0), Status::Closed);
}

#[test]
fn drain_beside_a_reader_that_reads_to_the_end() {
    let broker = open_with(Options {
        queue_capacity: SMALL,
        ..Options::default()
    });
    let subscription = subscribe(&broker, "drain");
    let (there, queue) = (broker.clone(), queue_of(&subscription).clone());
    let reader = std::thread::spawn(move || {
        let mut count = 0;
        loop {
            match queue.receive(&there, 64, FOREVER) {
                Ok(batch) => count += batch.messages().len(),
                Err(error) => return (count, error.status()),
            }
        }
    });
    for number in 0..20_000u64 {
        let message = Message {
            subject: b"drain",
            payload: &number.to_le_bytes(),
            ..Message::default()
        };
        client(&broker, |client| client.publish_wait(&message, PATIENCE_NS)).unwrap();
    }
    check(broker.drain(PATIENCE_NS), Status::Ok);
    assert_eq!(reader.join().unwrap(), (20_000, Status::End));
}

#[test]
fn drain_lets_handlers_finish_and_requests_be_answered() {
    let broker = open();
    let count = Arc::new(AtomicU64::new(0));
    let count_in = count.clone();
    let _handler = handle(&broker, "work", Delivery::Thread, move |_| {
        count_in.fetch_add(1, Ordering::SeqCst);
    });
    let responder = subscribe(&broker, "ask");
    let options = RequesterOptions {
        subject: b"ask",
        ..RequesterOptions::default()
    };
    let mut asker = Requester::open(&broker, options).unwrap();
    asker.submit(b"", 1, FOREVER).unwrap();
    for number in 0..1000 {
        publish_number(&broker, "work", number).unwrap();
    }
    check(broker.drain(0), Status::Timeout);
    let request = take_all(&broker, queue_of(&responder)).pop().unwrap();
    client(&broker, |client| {
        client.writer.reply(request.token, 0, b"", &[])
    })
    .unwrap();
    assert_eq!(
        asker.receive(1, PATIENCE_NS).unwrap().messages()[0].status,
        0
    );
    check(broker.drain(PATIENCE_NS), Status::Ok);
    assert_eq!(count.load(Ordering::SeqCst), 1000);
}

/// Closing the client ends its subscriptions, but whoever unsubscribes may free what the handler
/// uses: it must have returned all the same.
#[test]
fn unsubscribe_after_close_waits_for_the_handler_that_runs() {
    for delivery in [Delivery::Inline, Delivery::Thread] {
        for _ in 0..20 {
            let broker = open();
            let there = Arc::downgrade(&broker);
            let steps = Arc::new(AtomicU64::new(0));
            let steps_in = steps.clone();
            let wait_for = |steps: &AtomicU64, step: u64| {
                while steps.load(Ordering::SeqCst) < step {
                    std::thread::yield_now();
                }
            };
            let subscription = handle(&broker, "rest", delivery, move |_| {
                there.upgrade().unwrap().close();
                steps_in.store(1, Ordering::SeqCst);
                wait_for(&steps_in, 2);
                for _ in 0..20 {
                    std::thread::yield_now();
                }
                steps_in.store(3, Ordering::SeqCst);
            });
            let publisher = std::thread::spawn({
                let broker = broker.clone();
                move || publish_number(&broker, "rest", 0)
            });
            wait_for(&steps, 1);
            steps.store(2, Ordering::SeqCst);
            subscription.unsubscribe();
            assert_eq!(steps.load(Ordering::SeqCst), 3, "{delivery:?}");
            let _ = publisher.join().unwrap();
        }
    }
}

#[test]
fn close_wakes_every_waiting_reader_at_once() {
    for _ in 0..50 {
        let broker = open();
        let subscriptions: Vec<_> = (0..4).map(|_| subscribe(&broker, "never")).collect();
        let started = Arc::new(AtomicU64::new(0));
        let readers: Vec<_> = subscriptions
            .iter()
            .map(|subscription| {
                let (broker, queue) = (broker.clone(), queue_of(subscription).clone());
                let started = started.clone();
                std::thread::spawn(move || {
                    started.fetch_add(1, Ordering::SeqCst);
                    queue
                        .receive(&broker, 1, FOREVER)
                        .map(|_| ())
                        .unwrap_err()
                        .status()
                })
            })
            .collect();
        until("all readers run", || started.load(Ordering::SeqCst) == 4);
        broker.close();
        for reader in readers {
            let ended = reader.join().unwrap();
            assert!(matches!(ended, Status::End | Status::Closed), "{ended:?}");
        }
    }
}

#[test]
fn close_wakes_a_waiting_writer_and_a_waiting_asker() {
    let broker = open_with(Options {
        queue_capacity: SMALL,
        ..Options::default()
    });
    let _silent = subscribe(&broker, "silent");
    fill(&broker, "silent");
    let there = broker.clone();
    let writer = std::thread::spawn(move || {
        let message = Message {
            subject: b"silent",
            payload: &wide(1),
            ..Message::default()
        };
        status(&client(&there, |client| {
            client.publish_wait(&message, FOREVER)
        }))
    });
    let there = broker.clone();
    let _mute = handle(&broker, "mute", Delivery::Inline, |_| {});
    let started = Arc::new(AtomicU64::new(0));
    let started_in = started.clone();
    let asker = std::thread::spawn(move || {
        let message = Message {
            subject: b"mute",
            ..Message::default()
        };
        started_in.fetch_add(1, Ordering::SeqCst);
        status(&client(&there, |client| {
            client.request(&message, FOREVER, |_| ())
        }))
    });
    let there = broker.clone();
    let started_in = started.clone();
    let requester = std::thread::spawn(move || {
        let options = RequesterOptions {
            subject: b"mute",
            ..RequesterOptions::default()
        };
        let mut asker = Requester::open(&there, options).unwrap();
        asker.submit(b"", 1, FOREVER).unwrap();
        started_in.fetch_add(1, Ordering::SeqCst);
        let received = asker
            .receive(1, FOREVER)
            .map(|batch| batch.messages()[0].status);
        received.unwrap_or_else(|error| error.status() as u32)
    });
    until("both wait", || started.load(Ordering::SeqCst) == 2);
    until("both have asked", || broker.statistics().requests == 2);
    broker.close();
    // OK: the queue closed under a publish that had found the client open; nobody wants it then.
    let ended = writer.join().unwrap();
    assert!(matches!(ended, Status::Closed | Status::Ok), "{ended:?}");
    let ended = asker.join().unwrap();
    assert!(
        matches!(ended, Status::Closed | Status::Cancelled),
        "{ended:?}"
    );
    let ended = requester.join().unwrap();
    let expected = [Status::Cancelled, Status::Closed, Status::End].map(|one| one as u32);
    assert!(expected.contains(&ended), "{ended}");
}

#[test]
fn unsubscribe_wakes_a_reader_of_its_own_queue() {
    for _ in 0..100 {
        let broker = open();
        let subscription = subscribe(&broker, "never");
        let (there, queue) = (broker.clone(), queue_of(&subscription).clone());
        let reader = std::thread::spawn(move || {
            queue
                .receive(&there, 1, FOREVER)
                .map(|_| ())
                .unwrap_err()
                .status()
        });
        subscription.unsubscribe();
        assert_eq!(reader.join().unwrap(), Status::End);
    }
}

/// Publishes one message to a handler that does `act`, and returns what that said.
fn inside(delivery: Delivery, act: fn(&Broker) -> Status) -> (Arc<Broker>, Status) {
    let broker = open_with(Options {
        close_timeout_ns: PATIENCE_NS,
        ..Options::default()
    });
    let outcome = Arc::new(AtomicU64::new(u64::MAX));
    let outcome_in = outcome.clone();
    let there = Arc::downgrade(&broker);
    let subscription = handle(&broker, "inside", delivery, move |_| {
        let status = act(&there.upgrade().unwrap());
        outcome_in.store(status as u64, Ordering::SeqCst);
    });
    let _ = publish(&broker, "inside", b"");
    if delivery == Delivery::Dispatch {
        let _ = broker.dispatch(0, 0);
    }
    until("the handler has returned", || {
        outcome.load(Ordering::SeqCst) != u64::MAX
    });
    drop(subscription);
    let number = outcome.load(Ordering::SeqCst) as u32;
    (broker, Status::from_number(number).unwrap())
}

#[test]
fn drain_and_close_inside_any_handler_return() {
    for delivery in [Delivery::Inline, Delivery::Thread, Delivery::Dispatch] {
        let (broker, drained) = inside(delivery, |broker| status(&broker.drain(PATIENCE_NS)));
        assert_eq!(
            drained,
            Status::Ok,
            "{delivery:?}: its own message is left out"
        );
        check(publish(&broker, "inside", b""), Status::Closed);
        broker.close();

        let (broker, _) = inside(delivery, |broker| {
            broker.close();
            Status::Ok
        });
        assert!(broker.is_closed());
        check(publish(&broker, "inside", b""), Status::Closed);
        broker.close();
        assert_eq!(broker.statistics().subscriptions, 0, "{delivery:?}");
    }
}

/// Two handlers that run at the same time, on two threads, act when both run; what came of it.
fn beside_each_other(
    options: Options,
    deliveries: [Delivery; 2],
    act: fn(&Broker, &Subscription) -> Status,
) -> [Status; 2] {
    let broker = open_with(options);
    let meeting = Arc::new(std::sync::Barrier::new(2));
    let open: Arc<[OnceLock<Subscription>; 2]> = Arc::default();
    let outcomes = Arc::new([AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)]);
    let subjects = ["beside.0", "beside.1"];
    for at in [0, 1] {
        let there = Arc::downgrade(&broker);
        let (meeting, open_in, outcomes) = (meeting.clone(), open.clone(), outcomes.clone());
        let subscription = handle(&broker, subjects[at], deliveries[at], move |_| {
            meeting.wait();
            let other = open_in[1 - at].get().unwrap();
            let status = act(&there.upgrade().unwrap(), other);
            outcomes[at].store(status as u64, Ordering::SeqCst);
        });
        assert!(open[at].set(subscription).is_ok());
    }
    let threads = [0, 1].map(|at| {
        let broker = broker.clone();
        std::thread::spawn(move || publish(&broker, subjects[at], b"").unwrap())
    });
    for thread in threads {
        thread.join().unwrap();
    }
    let outcomes = [0, 1].map(|at| {
        let outcome = || outcomes[at].load(Ordering::SeqCst);
        until("the handler has returned", || outcome() != u64::MAX);
        Status::from_number(outcome() as u32).unwrap()
    });
    broker.close();
    outcomes
}

#[test]
fn handlers_that_drain_beside_each_other_do_not_wait_for_each_other() {
    let options = || Options {
        threads_max: 2,
        close_timeout_ns: PATIENCE_NS,
        ..Options::default()
    };
    for deliveries in [
        [Delivery::Inline, Delivery::Inline],
        [Delivery::Thread, Delivery::Thread],
        [Delivery::Inline, Delivery::Thread],
    ] {
        let act = |broker: &Broker, _: &Subscription| status(&broker.drain(PATIENCE_NS));
        let drained = beside_each_other(options(), deliveries, act);
        assert_eq!(drained, [Status::Ok; 2], "{deliveries:?}");
    }
}

#[test]
fn handlers_that_unsubscribe_each_other_wait_for_the_close_timeout() {
    let options = || Options {
        threads_max: 2,
        close_timeout_ns: 5 * MILLISECOND,
        ..Options::default()
    };
    for deliveries in [
        [Delivery::Inline, Delivery::Inline],
        [Delivery::Thread, Delivery::Thread],
    ] {
        let act = |_: &Broker, other: &Subscription| {
            other.unsubscribe();
            Status::Ok
        };
        // Neither can keep its promise that the other does not run: both go on all the same.
        let ended = beside_each_other(options(), deliveries, act);
        assert_eq!(ended, [Status::Ok; 2], "{deliveries:?}");
    }
}

#[test]
fn close_does_not_wait_for_ever_for_a_handler_that_blocks() {
    let broker = open_with(Options {
        close_timeout_ns: 5 * MILLISECOND,
        ..Options::default()
    });
    let gate = Arc::new(std::sync::Barrier::new(2));
    let gate_in = gate.clone();
    let steps = Arc::new(AtomicU64::new(0));
    let steps_in = steps.clone();
    let _blocked = handle(&broker, "block", Delivery::Thread, move |_| {
        steps_in.fetch_add(1, Ordering::SeqCst);
        gate_in.wait();
        steps_in.fetch_add(1, Ordering::SeqCst);
    });
    publish(&broker, "block", b"").unwrap();
    until("the handler runs", || steps.load(Ordering::SeqCst) == 1);
    broker.close();
    assert_eq!(steps.load(Ordering::SeqCst), 1);
    gate.wait();
    until("it ended in peace", || steps.load(Ordering::SeqCst) == 2);
}

#[test]
fn everything_answers_closed_and_memory_returns() {
    let broker = open();
    let mut publisher = Publisher::open(&broker, b"all").unwrap();
    let own = subscribe(&broker, "all");
    let queue = queue(&broker, Policy::DropOldest, 0);
    let shared = subscribe_on(&broker, "all", "", &queue, 0);
    let inline = handle(&broker, "all", Delivery::Inline, |_| {});
    let options = RequesterOptions {
        subject: b"all",
        ..RequesterOptions::default()
    };
    let mut asker = Requester::open(&broker, options).unwrap();
    for number in 0..1000u64 {
        publisher.publish(&number.to_le_bytes()).unwrap();
        publish_number(&broker, "all", number).unwrap();
    }
    asker.submit(b"", 1, FOREVER).unwrap();
    broker.close();
    broker.close();
    assert!(broker.is_closed() && !broker.is_open());
    check(publisher.publish(b""), Status::Closed);
    check(publish(&broker, "all", b""), Status::Closed);
    check(asker.submit(b"", 2, FOREVER), Status::Closed);
    check(Publisher::open(&broker, b"all"), Status::Closed);
    check(Requester::open(&broker, options), Status::Closed);
    check(broker.open_queue(Default::default()), Status::Closed);
    check(broker.dispatch(0, 0), Status::Closed);
    check(broker.fd(), Status::Closed);
    check(queue.receive(&broker, 1, 0), Status::End);
    for subscription in [&own, &shared, &inline] {
        subscription.unsubscribe();
        subscription.unsubscribe();
    }
    drop((publisher, asker));
    let figures = broker.statistics();
    assert_eq!(
        (figures.subscriptions, figures.queues, figures.memory),
        (0, 0, 0)
    );
}

#[test]
fn two_threads_close_the_same_broker() {
    for _ in 0..200 {
        let broker = open();
        let subscription = subscribe(&broker, "twice");
        let there = broker.clone();
        let other = std::thread::spawn(move || there.close());
        broker.close();
        other.join().unwrap();
        assert!(broker.is_closed());
        subscription.unsubscribe();
    }
}

#[test]
fn dropping_the_last_handle_closes_and_ends_the_threads() {
    for _ in 0..20 {
        let driver = Arc::new(fastmq_engine::driver::NullDriver::new());
        let broker = Broker::open(Options::default(), driver.clone()).unwrap();
        let count = Arc::new(AtomicU64::new(0));
        let count_in = count.clone();
        let subscription = handle(&broker, "drop", Delivery::Thread, move |_| {
            count_in.fetch_add(1, Ordering::SeqCst);
        });
        let there = broker.clone();
        let publish_there = move || publish(&there, "drop", b"").unwrap();
        std::thread::spawn(publish_there).join().unwrap();
        until("it was handled", || count.load(Ordering::SeqCst) == 1);
        drop(subscription);
        drop(broker);
        let threads = || fastmq_engine::driver::Driver::counters(&*driver).threads;
        until("the library thread has ended", || threads() == 0);
    }
}

/// How often the tests below let two threads meet.
const MEETINGS: u64 = if cfg!(fastmq_tsan) { 300 } else { 3000 };

/// A queue that is closed while others subscribe to it, publish to it and open new queues: what
/// goes to one subject is never seen by a queue of another.
#[test]
fn a_queue_that_closes_beside_subscribe_leaves_no_subscription_behind() {
    let broker = open();
    let current = Arc::new(Mutex::new(queue(&broker, Policy::Backpressure, SMALL)));
    let is_over = Arc::new(AtomicBool::new(false));
    let subscriber = std::thread::spawn({
        let (broker, current, is_over) = (broker.clone(), current.clone(), is_over.clone());
        move || {
            let mut kept = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let queue = current.lock().unwrap().clone();
                let made = broker.subscribe(b"secret", b"", Delivery::Queue, Some(&queue), 0, None);
                match made {
                    Ok(subscription) => kept.push(subscription),
                    Err(error) => assert_eq!(error.status(), Status::Closed),
                }
                if kept.len() > 4 {
                    kept.remove(0).unsubscribe();
                }
            }
            kept
        }
    });
    for _ in 0..MEETINGS {
        let next = queue(&broker, Policy::Backpressure, SMALL);
        let old = std::mem::replace(&mut *current.lock().unwrap(), next);
        let _ = publish_number(&broker, "secret", 0);
        broker.close_queue(&old);
        let other = queue(&broker, Policy::Backpressure, SMALL);
        let subscription = subscribe_on(&broker, "other", "", &other, 0);
        publish_number(&broker, "other", 1).unwrap();
        let _ = publish_number(&broker, "secret", 0);
        for seen in take_all(&broker, &other) {
            assert_eq!(seen.subject, "other");
        }
        subscription.unsubscribe();
        broker.close_queue(&other);
    }
    is_over.store(true, Ordering::SeqCst);
    let kept = subscriber.join().unwrap();
    broker.close_queue(&current.lock().unwrap());
    assert_eq!(broker.statistics().subscriptions, 0);
    drop(kept);
}

/// Each request ends once, although the queue that has it closes while its reader is inside a
/// receive; alone and in a group.
#[test]
fn requests_end_when_their_queue_closes_beside_its_reader() {
    for group in ["", "workers"] {
        let broker = open();
        let mut asker = Requester::open(&broker, RequesterOptions::default()).unwrap();
        for meeting in 0..MEETINGS {
            let responder = queue(&broker, Policy::Backpressure, SMALL);
            let _subscription = subscribe_on(&broker, "ask", group, &responder, 0);
            let reader = std::thread::spawn({
                let (broker, responder) = (broker.clone(), responder.clone());
                move || match responder.receive(&broker, 1, PATIENCE_NS) {
                    Ok(batch) => {
                        let token = batch.messages()[0].token;
                        let answered = client(&broker, |client| client.reply(token, 0, b""));
                        drop(batch);
                        responder.finish(&broker);
                        usize::from(answered.is_ok())
                    }
                    Err(_) => 0,
                }
            });
            for number in 0..3 {
                asker.submit_to(b"ask", b"", number, FOREVER).unwrap();
            }
            broker.close_queue(&responder);
            let mut ended = 0;
            while ended < 3 {
                ended += asker
                    .receive(8, PATIENCE_NS)
                    .unwrap_or_else(|error| panic!("meeting {meeting}, {ended} ended: {error}"))
                    .messages()
                    .len();
            }
            reader.join().unwrap();
            assert_eq!((ended, asker.in_flight()), (3, 0));
        }
    }
}

/// Blocks of large messages go back to the pool, whoever comes last to a queue that closes.
#[test]
fn large_messages_to_queues_that_close_leave_no_memory_behind() {
    let broker = open();
    let is_over = Arc::new(AtomicBool::new(false));
    let publisher = std::thread::spawn({
        let (broker, is_over) = (broker.clone(), is_over.clone());
        move || {
            while !is_over.load(Ordering::SeqCst) {
                let _ = publish(&broker, "large", &[1; 20_000]);
            }
        }
    });
    for _ in 0..10 * MEETINGS {
        subscribe(&broker, "large").unsubscribe();
    }
    is_over.store(true, Ordering::SeqCst);
    publisher.join().unwrap();
    // What the pool may keep.
    assert!(
        broker.statistics().memory <= 9 << 20,
        "{:?}",
        broker.statistics()
    );
}

/// A batch goes on when its only subscriber leaves: nobody is left, and that is no error.
#[test]
fn a_batch_to_a_subscriber_that_leaves_is_accepted_whole() {
    let broker = open();
    let is_over = Arc::new(AtomicBool::new(false));
    let publisher = std::thread::spawn({
        let (broker, is_over) = (broker.clone(), is_over.clone());
        move || {
            let mut publisher = fastmq_engine::Publisher::open(&broker, b"leave").unwrap();
            while !is_over.load(Ordering::SeqCst) {
                let payloads = [b"a".as_slice(); 32];
                let (accepted, result) = publisher.publish_batch(payloads.into_iter());
                match result {
                    Ok(()) => assert_eq!(accepted, 32),
                    Err(error) => assert_eq!(error.status(), Status::Again),
                }
            }
        }
    });
    for _ in 0..10 * MEETINGS {
        subscribe(&broker, "leave").unsubscribe();
    }
    is_over.store(true, Ordering::SeqCst);
    publisher.join().unwrap();
}

/// Four handlers that do not return cost a close one time-out, not four.
#[test]
fn a_close_has_one_deadline() {
    let (broker, driver) = open_simulated(5);
    let gate = Arc::new(Mutex::new(()));
    let entered = Arc::new(AtomicU64::new(0));
    let block = || {
        let (gate, entered) = (gate.clone(), entered.clone());
        move |_: &fastmq_engine::memory::View| {
            entered.fetch_add(1, Ordering::SeqCst);
            drop(gate.lock().unwrap());
        }
    };
    let closed = gate.lock().unwrap();
    let mut threads = Vec::new();
    let mut subscriptions = Vec::new();
    for subject in ["inline.0", "inline.1", "dispatched"] {
        let delivery = match subject {
            "dispatched" => Delivery::Dispatch,
            _ => Delivery::Inline,
        };
        subscriptions.push(handle(&broker, subject, delivery, block()));
        let there = broker.clone();
        threads.push(std::thread::spawn(move || {
            publish(&there, subject, b"").unwrap();
            if delivery == Delivery::Dispatch {
                there.dispatch(0, 0).unwrap();
            }
        }));
    }
    until("the handlers run", || entered.load(Ordering::SeqCst) == 3);
    let before_ns = driver.monotonic_ns();
    broker.close();
    let waited_ns = driver.monotonic_ns() - before_ns;
    assert_eq!(waited_ns, broker.options().close_timeout_ns);
    drop(closed);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn drain_waits_for_inline_handlers_on_other_threads() {
    let broker = open();
    let gate = Arc::new(Mutex::new(()));
    let entered = Arc::new(AtomicU64::new(0));
    let (gate_in, entered_in) = (gate.clone(), entered.clone());
    let _subscription = handle(&broker, "inline", Delivery::Inline, move |_| {
        entered_in.fetch_add(1, Ordering::SeqCst);
        drop(gate_in.lock().unwrap());
    });
    let closed = gate.lock().unwrap();
    let there = broker.clone();
    let publisher = std::thread::spawn(move || publish(&there, "inline", b"").unwrap());
    until("the handler runs", || entered.load(Ordering::SeqCst) == 1);
    let error = broker.drain(0).unwrap_err();
    assert_eq!(error.status(), Status::Timeout);
    assert!(error.text().contains("1 handlers"), "{error}");
    drop(closed);
    publisher.join().unwrap();
    check(broker.drain(0), Status::Ok);
}

/// Whatever the queue of a handler has given away when that runs: copies of an evicting queue, and
/// last values, which wait beside it.
#[test]
fn drain_waits_for_the_handlers_of_queues() {
    for (policy, replay_last) in [(Policy::DropOldest, false), (Policy::Backpressure, true)] {
        let broker = open();
        let gate = Arc::new(Mutex::new(()));
        let entered = Arc::new(AtomicU64::new(0));
        let (gate_in, entered_in) = (gate.clone(), entered.clone());
        let closed = gate.lock().unwrap();
        let send = || {
            let message = Message {
                subject: b"work",
                keep_last: replay_last,
                ..Message::default()
            };
            client(&broker, |client| client.writer.publish_message(&message)).unwrap();
        };
        if replay_last {
            send();
        }
        let options = SubscribeOptions {
            delivery: Delivery::Thread,
            policy,
            replay_last,
            on_message: Some(Box::new(move |_| {
                entered_in.fetch_add(1, Ordering::SeqCst);
                drop(gate_in.lock().unwrap());
            })),
            ..SubscribeOptions::default()
        };
        let _subscription = broker.subscribe_with(b"work", options).unwrap();
        if !replay_last {
            send();
        }
        until("the handler runs", || entered.load(Ordering::SeqCst) == 1);
        let error = broker.drain(0).unwrap_err();
        assert_eq!(error.status(), Status::Timeout);
        assert!(error.text().contains("1 handlers"), "{error}");
        drop(closed);
        check(broker.drain(PATIENCE_NS), Status::Ok);
    }
}

/// The handler's own run does not keep its drain.
#[test]
fn an_inline_handler_may_drain() {
    let broker = open();
    let there = Arc::downgrade(&broker);
    let _subscription = handle(&broker, "inline", Delivery::Inline, move |_| {
        check(there.upgrade().unwrap().drain(0), Status::Ok);
    });
    publish(&broker, "inline", b"").unwrap();
}

/// Whatever is opened beside the close of its broker is refused, or closed with it: nobody would
/// wake who waits there.
#[test]
fn what_opens_beside_a_close_is_closed() {
    for _ in 0..MEETINGS / 10 {
        let broker = open();
        let opener = std::thread::spawn({
            let broker = broker.clone();
            move || {
                let (mut queues, mut subscriptions) = (Vec::new(), Vec::new());
                loop {
                    let queue = broker.open_queue(QueueOptions::default());
                    let own = broker.subscribe(b"own", b"", Delivery::Queue, None, 0, None);
                    let call = Box::new(|_: &fastmq_engine::memory::View| ());
                    let inline =
                        broker.subscribe(b"in", b"", Delivery::Inline, None, 0, Some(call));
                    let is_over = inline.is_err();
                    queues.extend(queue);
                    subscriptions.extend(own);
                    subscriptions.extend(inline);
                    if is_over {
                        return (queues, subscriptions);
                    }
                }
            }
        });
        until("something is open", || {
            broker.statistics().subscriptions > 0
        });
        broker.close();
        let (queues, subscriptions) = opener.join().unwrap();
        let own = subscriptions.iter().filter_map(Subscription::queue);
        for queue in queues.iter().chain(own) {
            check(queue.receive(&broker, 1, PATIENCE_NS), Status::End);
        }
        assert_eq!(broker.statistics().subscriptions, 0);
    }
}
