//! Handlers on library threads: in order, one at a time, waking from sleep, and at rest after
//! unsubscribe.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use crate::steps::*;
use fastmq_engine::driver::{Driver, NullDriver};
use fastmq_engine::wait::Profile;
use fastmq_engine::{Broker, Delivery, Options, Status};

#[test]
fn a_thread_starts_with_thefirst_subscription_that_needs_one() {
    let broker = open_with(Options {
        threads_max: 3,
        ..Options::default()
    });
    let _other = handle(&broker, "other", Delivery::Dispatch, |_| {});
    assert_eq!(broker.statistics().threads, 0);
    let mut open = Vec::new();
    for count in 1..=5u32 {
        open.push(handle(&broker, "some", Delivery::Thread, |_| {}));
        assert_eq!(broker.statistics().threads, count.min(3));
    }
    broker.close();
    assert_eq!(broker.statistics().threads, 0);
}

#[test]
fn a_simulated_world_has_no_threads_and_says_so() {
    let (broker, _) = open_simulated(1);
    let on_message: Box<fastmq_engine::subscription::OnMessage> = Box::new(|_| {});
    let failed = broker.subscribe(b"a", b"", Delivery::Thread, None, 0, Some(on_message));
    let error = failed.unwrap_err();
    assert_eq!(error.status(), Status::Unsupported);
    assert_eq!(
        (
            broker.statistics().queues,
            broker.statistics().subscriptions
        ),
        (0, 0)
    );
}

#[test]
fn messages_come_in_order_and_one_at_a_time_under_each_profile() {
    for wait in [Profile::Balanced, Profile::LowPower, Profile::Latency] {
        let broker = open_with(Options {
            wait,
            threads_max: 2,
            queue_capacity: 64 << 10,
            ..Options::default()
        });
        let next = Arc::new(AtomicU64::new(0));
        let is_inside = Arc::new(AtomicBool::new(false));
        let (next_in, is_inside_in) = (next.clone(), is_inside.clone());
        let _a = handle(&broker, "order", Delivery::Thread, move |view| {
            assert!(!is_inside_in.swap(true, Ordering::SeqCst));
            assert_eq!(number_of(view.payload()), next_in.load(Ordering::SeqCst));
            next_in.fetch_add(1, Ordering::SeqCst);
            is_inside_in.store(false, Ordering::SeqCst);
        });
        let other = Arc::new(AtomicU64::new(0));
        let other_in = other.clone();
        let _b = handle(&broker, "order", Delivery::Thread, move |_| {
            other_in.fetch_add(1, Ordering::SeqCst);
        });
        for number in 0..5000u64 {
            let message = fastmq_engine::Message {
                subject: b"order",
                payload: &number.to_le_bytes(),
                ..Default::default()
            };
            client(&broker, |client| client.publish_wait(&message, PATIENCE_NS)).unwrap();
            // Now and then the threads find nothing and sleep.
            if number % 500 == 0 {
                until("all has been handled", || {
                    next.load(Ordering::SeqCst) == number + 1
                });
            }
        }
        until("all has been handled", || {
            next.load(Ordering::SeqCst) == 5000 && other.load(Ordering::SeqCst) == 5000
        });
        until("the figures say so", || {
            broker.statistics().delivered == 10_000
        });
    }
}

#[test]
fn after_unsubscribe_no_handler_runs() {
    let broker = open();
    for _ in 0..200 {
        let is_dead = Arc::new(AtomicBool::new(false));
        let violations = Arc::new(AtomicU64::new(0));
        let calls = Arc::new(AtomicU64::new(0));
        let (dead, wrong, count) = (is_dead.clone(), violations.clone(), calls.clone());
        let subscription = handle(&broker, "rest", Delivery::Thread, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            wrong.fetch_add(u64::from(dead.load(Ordering::SeqCst)), Ordering::SeqCst);
        });
        for _ in 0..200 {
            publish(&broker, "rest", b"").unwrap();
        }
        until("the handler has run", || calls.load(Ordering::SeqCst) > 0);
        subscription.unsubscribe();
        is_dead.store(true, Ordering::SeqCst);
        let seen = calls.load(Ordering::SeqCst);
        publish(&broker, "rest", b"").unwrap();
        assert_eq!(violations.load(Ordering::SeqCst), 0);
        assert_eq!(calls.load(Ordering::SeqCst), seen);
    }
    assert_eq!(broker.statistics().subscriptions, 0);
}

#[test]
fn a_handler_may_unsubscribe_itself() {
    let broker = open();
    let own: Arc<Mutex<Option<fastmq_engine::Subscription>>> = Arc::default();
    let calls = Arc::new(AtomicU64::new(0));
    let (own_in, calls_in) = (own.clone(), calls.clone());
    let mut slot = own.lock().unwrap();
    let subscription = handle(&broker, "self", Delivery::Thread, move |view| {
        calls_in.fetch_add(1, Ordering::SeqCst);
        assert_eq!(number_of(view.payload()), 0);
        own_in.lock().unwrap().take().unwrap().unsubscribe();
        assert_eq!(number_of(view.payload()), 0, "the message stays readable");
    });
    *slot = Some(subscription);
    drop(slot);
    for number in 0..20 {
        publish_number(&broker, "self", number).unwrap();
    }
    until("it is gone", || broker.statistics().subscriptions == 0);
    broker.close();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn one_thread_serves_many_queues() {
    let broker = open();
    let counts: Vec<_> = (0..50).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let _all: Vec<_> = counts
        .iter()
        .enumerate()
        .map(|(index, count)| {
            let count = count.clone();
            handle(
                &broker,
                &format!("many.{index}"),
                Delivery::Thread,
                move |_| {
                    count.fetch_add(1, Ordering::SeqCst);
                },
            )
        })
        .collect();
    for round in 0..100 {
        for index in 0..50 {
            publish(&broker, &format!("many.{index}"), b"").unwrap();
        }
        if round % 10 == 0 {
            let is_done = || {
                counts
                    .iter()
                    .all(|count| count.load(Ordering::SeqCst) == round + 1)
            };
            until("a round is done", is_done);
        }
    }
    until("all is done", || {
        counts
            .iter()
            .all(|count| count.load(Ordering::SeqCst) == 100)
    });
    assert_eq!(broker.statistics().threads, 1);
}

#[test]
fn a_handler_that_panics_stops_neither_its_thread_nor_others() {
    let broker = open();
    let calls = Arc::new(AtomicU64::new(0));
    let calls_in = calls.clone();
    let _wild = handle(&broker, "wild", Delivery::Thread, move |view| {
        calls_in.fetch_add(1, Ordering::SeqCst);
        if number_of(view.payload()).is_multiple_of(2) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    });
    let tame_calls = Arc::new(AtomicU64::new(0));
    let tame_in = tame_calls.clone();
    let _tame = handle(&broker, "tame", Delivery::Thread, move |_| {
        tame_in.fetch_add(1, Ordering::SeqCst);
    });
    for number in 0..20 {
        publish_number(&broker, "wild", number).unwrap();
        publish_number(&broker, "tame", number).unwrap();
    }
    until("the tame one has all", || {
        tame_calls.load(Ordering::SeqCst) == 20
    });
    // A panic costs the rest of its batch, not the subscription.
    let before = calls.load(Ordering::SeqCst);
    assert!(before >= 1);
    until("the wild one is called again", || {
        publish_number(&broker, "wild", 1).unwrap();
        calls.load(Ordering::SeqCst) > before
    });
    assert_eq!(broker.statistics().threads, 1);
    broker.close();
    assert_eq!(broker.statistics().threads, 0);
}

#[test]
fn a_queue_that_waits_for_its_thread_goes_with_the_broker() {
    let driver: Arc<dyn Driver> = Arc::new(NullDriver::new());
    let broker = Broker::open(Options::default(), driver.clone()).unwrap();
    let (is_inside, may_leave) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
    let (inside, leave) = (is_inside.clone(), may_leave.clone());
    let first = handle(&broker, "first", Delivery::Thread, move |_| {
        inside.store(true, Ordering::SeqCst);
        leave.wait();
    });
    let second = handle(&broker, "second", Delivery::Thread, |_| {
        panic!("nobody is left to call")
    });
    publish(&broker, "first", b"").unwrap();
    until("the only thread is busy", || {
        is_inside.load(Ordering::SeqCst)
    });
    // In the list of the threads, where it stays.
    publish(&broker, "second", b"").unwrap();
    second.unsubscribe();
    drop(second);
    may_leave.wait();
    broker.close();
    drop((first, broker));
    until("nobody holds the driver", || {
        Arc::strong_count(&driver) == 1
    });
}
