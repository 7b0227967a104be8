//! Who drives the link: threads that wait, the link's own thread, and the user's loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fastmq_engine::dispatch::ready;
use fastmq_engine::driver::sockets::Address;
use fastmq_engine::link::{self, ConnectOptions, Event};
use fastmq_engine::memory::Policy;
use fastmq_engine::{Broker, Delivery, Requester, RequesterOptions, Status, any};
use fastmq_test_support::readable::is_readable;

use crate::peer::Manners;
use crate::real::{Server, request};
use crate::steps::{
    PATIENCE, PATIENCE_NS, client, handle, number_of, publish_number, queue, queue_of, subscribe,
    subscribe_on, until, wide,
};

fn serve() -> Server {
    let address = Address::Tcp("127.0.0.1:0".parse().unwrap());
    Server::start(address, Manners::default())
}

fn connect(server: &Server, polled: bool) -> Arc<Broker> {
    let options = ConnectOptions {
        polled,
        ..ConnectOptions::default()
    };
    link::connect(&server.urls, options).unwrap()
}

/// The next message of a subscription as a number.
fn receive(broker: &Broker, subscription: &fastmq_engine::Subscription) -> u64 {
    let batch = queue_of(subscription).receive(broker, 1, PATIENCE_NS);
    number_of(batch.unwrap().messages()[0].payload())
}

/// Asks a window of questions again and again, and checks that each is answered once.
fn ask_many(broker: &Arc<Broker>, window: u64, count: u64) {
    let options = RequesterOptions {
        in_flight_max: window as u32,
        subject: b"echo",
        ..RequesterOptions::default()
    };
    let mut requester = Requester::open(broker, options).unwrap();
    let (mut asked, mut answers) = (0, vec![0_u8; count as usize]);
    let mut answered = 0;
    while answered < count {
        while asked < count && asked - answered < window {
            let payload = asked.to_le_bytes();
            requester.submit(&payload, asked, PATIENCE_NS).unwrap();
            asked += 1;
        }
        let batch = requester.receive(100, PATIENCE_NS).unwrap();
        for view in batch.messages() {
            assert_eq!(view.status, 0);
            assert_eq!(view.payload(), view.token.to_le_bytes());
            answers[view.token as usize] += 1;
            answered += 1;
        }
    }
    assert!(answers.iter().all(|times| *times == 1));
}

fn end(broker: &Broker, server: Server) -> u64 {
    broker.close();
    let record = server.stop();
    assert_eq!((record.faults, record.closes), (Vec::new(), 1));
    record.published
}

#[test]
fn threads_that_wait_for_several_queues_and_answers_all_get_theirs() {
    for polled in [false, true] {
        let server = serve();
        let broker = connect(&server, polled);
        let subjects = ["one", "two"];
        let queues = subjects.map(|subject| subscribe(&broker, subject));
        const COUNT: u64 = 3000;
        thread::scope(|scope| {
            for queue in &queues {
                let broker = &broker;
                scope.spawn(move || {
                    for number in 0..COUNT {
                        assert_eq!(receive(broker, queue), number);
                    }
                });
            }
            scope.spawn(|| ask_many(&broker, 64, COUNT));
            scope.spawn(|| {
                for number in 0..100_u64 {
                    let answer = request(&broker, &number.to_le_bytes()).unwrap();
                    assert_eq!(answer, number.to_le_bytes());
                }
            });
            for subject in subjects {
                let broker = &broker;
                scope.spawn(move || {
                    for number in 0..COUNT {
                        let message = fastmq_engine::Message {
                            subject: subject.as_bytes(),
                            payload: &number.to_le_bytes(),
                            ..Default::default()
                        };
                        client(broker, |client| client.publish_wait(&message, PATIENCE_NS))
                            .unwrap();
                    }
                    // Who has published waits for nothing: others see to it that it goes out.
                });
            }
        });
        assert_eq!(end(&broker, server), 2 * COUNT);
    }
}

#[test]
fn handlers_are_served_while_nobody_waits_and_between_waits() {
    let server = serve();
    let broker = connect(&server, false);
    let heard = Arc::new(AtomicU64::new(0));
    let counts = [Delivery::Thread, Delivery::Inline].map(|delivery| {
        let (heard, weak) = (heard.clone(), Arc::downgrade(&broker));
        let subject = format!("{delivery:?}");
        let subscription = handle(&broker, &subject, delivery, move |view| {
            // A handler may publish, whichever thread it runs on.
            let broker = weak.upgrade().unwrap();
            publish_number(&broker, "heard", number_of(view.payload())).unwrap();
            heard.fetch_add(1, Ordering::SeqCst);
        });
        (subject, subscription)
    });
    let back = subscribe(&broker, "heard");
    let mut expected = 0;
    for round in 0..20 {
        for (subject, _) in &counts {
            publish_number(&broker, subject, round).unwrap();
            expected += 1;
            if round % 2 == 0 {
                // This thread drives, and the handlers run meanwhile.
                assert_eq!(receive(&broker, &back), round);
            } else {
                // Nobody waits.
                until("heard", || heard.load(Ordering::SeqCst) == expected);
                assert_eq!(receive(&broker, &back), round);
            }
        }
        let answer = request(&broker, &round.to_le_bytes()).unwrap();
        assert_eq!(answer, round.to_le_bytes());
    }
    assert_eq!(end(&broker, server), 2 * expected);
}

#[test]
fn what_was_published_goes_out_though_nobody_waits() {
    let server = serve();
    let broker = connect(&server, false);
    let heard = Arc::new(AtomicU64::new(0));
    let count = heard.clone();
    let _heard = handle(&broker, "back", Delivery::Thread, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let mut sent = 0;
    // One by one, after a thread has driven, and so many that they are gathered.
    for burst in [1, 1, 5000, 1] {
        ask_many(&broker, 8, 50);
        for number in 0..burst {
            until("accepted", || {
                publish_number(&broker, "out", number).is_ok()
            });
        }
        sent += burst;
        until("heard", || heard.load(Ordering::SeqCst) == sent);
    }
    assert_eq!(end(&broker, server), sent);
}

#[test]
fn whoever_makes_room_in_a_full_queue_has_more_brought_there() {
    let server = serve();
    let broker = connect(&server, false);
    let small = queue(&broker, Policy::Backpressure, 4096);
    let _slow = subscribe_on(&broker, "slow", "", &small, 0);
    let never = subscribe(&broker, "never");
    const COUNT: u64 = 5000;
    thread::scope(|scope| {
        // Some other thread drives, asleep most of the time: the link's own or one that waits.
        let waiting = scope.spawn(|| {
            let batch = queue_of(&never).receive(&broker, 1, PATIENCE_NS);
            assert!(batch.is_ok());
        });
        scope.spawn(|| {
            for number in 0..COUNT {
                let message = fastmq_engine::Message {
                    subject: b"slow",
                    payload: &wide(number),
                    ..Default::default()
                };
                client(&broker, |client| client.publish_wait(&message, PATIENCE_NS)).unwrap();
            }
        });
        for number in 0..COUNT {
            let batch = small.receive(&broker, 1, PATIENCE_NS).unwrap();
            assert_eq!(number_of(batch.messages()[0].payload()), number);
        }
        publish_number(&broker, "never", 0).unwrap();
        waiting.join().unwrap();
    });
    assert_eq!(end(&broker, server), COUNT + 1);
}

#[test]
fn a_wait_for_any_of_several_queues_drives() {
    for polled in [false, true] {
        let server = serve();
        let broker = connect(&server, polled);
        let queues = ["one", "two"].map(|subject| subscribe(&broker, subject));
        let wait = |timeout_ns| {
            any::wait_any(2, timeout_ns, |index, look| {
                look(queue_of(&queues[index]), &broker)
            })
        };
        assert_eq!(wait(0).unwrap_err().status(), Status::Again);
        assert_eq!(wait(1000).unwrap_err().status(), Status::Timeout);
        for number in 0..200_u64 {
            let index = (number % 2) as usize;
            publish_number(&broker, ["one", "two"][index], number).unwrap();
            assert_eq!(wait(PATIENCE_NS).unwrap(), index);
            assert_eq!(receive(&broker, &queues[index]), number);
        }
        end(&broker, server);
    }
}

#[test]
fn closing_ends_the_wait_of_a_thread_that_drives() {
    for polled in [false, true] {
        let server = serve();
        let broker = connect(&server, polled);
        let queue = subscribe(&broker, "back");
        publish_number(&broker, "out", 7).unwrap();
        assert_eq!(receive(&broker, &queue), 7);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let batch = queue_of(&queue).receive(&broker, 1, u64::MAX);
                batch.map(|_| ()).unwrap_err().status()
            });
            until("it waits", || queue_of(&queue).waits().0 > 0);
            broker.close();
            assert_eq!(waiting.join().unwrap(), Status::End);
        });
        let record = server.stop();
        assert_eq!((record.faults, record.closes), (Vec::new(), 1));
    }
}

#[test]
fn a_polled_client_connects_and_subscribes_in_its_loop() {
    let server = serve();
    let connected = Arc::new(AtomicU64::new(0));
    let count = connected.clone();
    let options = ConnectOptions {
        polled: true,
        connect_timeout_ns: 0,
        operation_timeout_ns: 0,
        on_event: Some(Arc::new(move |event| {
            if matches!(event, Event::Connected { .. }) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        })),
        ..ConnectOptions::default()
    };
    let broker = link::connect(&server.urls, options).unwrap();
    let heard = subscribe(&broker, "heard");
    let fd = broker.fd().unwrap();
    assert_eq!(connected.load(Ordering::SeqCst), 0);
    while connected.load(Ordering::SeqCst) == 0 {
        assert!(is_readable(fd, PATIENCE), "what a turn leaves is sent");
        broker.dispatch(0, 0).unwrap();
    }
    publish_number(&broker, "heard", 7).unwrap();
    while broker.dispatch(0, 0).unwrap() & ready::MESSAGES == 0 {
        assert!(is_readable(fd, PATIENCE));
    }
    assert_eq!(receive(&broker, &heard), 7);
    end(&broker, server);
}

#[test]
fn what_a_polled_client_published_before_it_had_a_descriptor_makes_that_readable() {
    let server = serve();
    let broker = connect(&server, true);
    // The welcome is read, and nothing else comes until the time for a PING.
    publish_number(&broker, "early", 7).unwrap();
    let fd = broker.fd().unwrap();
    assert!(is_readable(fd, std::time::Duration::ZERO));
    broker.dispatch(0, 0).unwrap();
    assert_eq!(end(&broker, server), 1);
}

#[test]
fn a_polled_client_that_its_own_handler_closes_says_goodbye() {
    let server = serve();
    let broker = connect(&server, true);
    let weak = Arc::downgrade(&broker);
    let _closes = handle(&broker, "end", Delivery::Inline, move |_| {
        weak.upgrade().unwrap().close();
    });
    let never = subscribe(&broker, "never");
    publish_number(&broker, "end", 1).unwrap();
    let waited = queue_of(&never).receive(&broker, 1, PATIENCE_NS);
    assert_eq!(waited.map(|_| ()).unwrap_err().status(), Status::End);
    let record = server.stop();
    assert_eq!((record.faults, record.closes), (Vec::new(), 1));
}

#[test]
fn nothing_is_heard_of_a_connection_once_close_has_returned() {
    for (polled, close_timeout_ns) in [(false, 200_000_000), (true, 200_000_000), (true, 0)] {
        let manners = Manners {
            ignores_close: true,
            ..Manners::default()
        };
        let address = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let server = Server::start(address, manners);
        let ended = Arc::new(AtomicU64::new(0));
        let count = ended.clone();
        let mut options = ConnectOptions {
            polled,
            on_event: Some(Arc::new(move |event| {
                if matches!(event, Event::Disconnected { .. }) {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })),
            ..ConnectOptions::default()
        };
        options.broker.close_timeout_ns = close_timeout_ns;
        let broker = link::connect(&server.urls, options).unwrap();
        broker.close();
        if polled {
            assert_eq!(ended.load(Ordering::SeqCst), 1);
        }
        until("it has ended", || ended.load(Ordering::SeqCst) == 1);
        server.stop();
    }
}

#[test]
fn a_polled_client_is_driven_by_dispatch_when_its_descriptor_says_so() {
    let server = serve();
    let broker = connect(&server, true);
    let handled = Arc::new(AtomicU64::new(0));
    let count = handled.clone();
    let _handled = handle(&broker, "handled", Delivery::Dispatch, move |view| {
        count.fetch_add(number_of(view.payload()), Ordering::SeqCst);
    });
    let pulled = subscribe(&broker, "pulled");
    let fd = broker.fd().unwrap();
    let dispatch = || {
        assert!(is_readable(fd, PATIENCE));
        broker.dispatch(0, 0).unwrap()
    };
    for round in 1..=50_u64 {
        let before = handled.load(Ordering::SeqCst);
        publish_number(&broker, "handled", round).unwrap();
        publish_number(&broker, "pulled", round).unwrap();
        while handled.load(Ordering::SeqCst) != before + round {
            dispatch();
        }
        loop {
            match queue_of(&pulled).receive(&broker, 1, 0) {
                Ok(batch) => {
                    assert_eq!(number_of(batch.messages()[0].payload()), round);
                    break;
                }
                Err(error) => assert_eq!(error.status(), Status::Again),
            }
            dispatch();
        }
    }
    // Readable means that there is something to do.
    until("nothing is left", || {
        broker.dispatch(0, 0).unwrap();
        !is_readable(fd, std::time::Duration::ZERO)
    });
    assert_eq!(end(&broker, server), 100);
}
