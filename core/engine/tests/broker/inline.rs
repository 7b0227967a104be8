//! Inline subscriptions: on the publishing thread, nested up to 16 deep, free to publish, subscribe
//! and unsubscribe, at rest after unsubscribe, and no danger when they panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::steps::*;
use fastmq_engine::memory::Policy;
use fastmq_engine::{Broker, Delivery, Message, Publisher, Status, Subscription};

#[test]
fn a_handler_has_run_on_this_thread_when_publish_returns() {
    let broker = open();
    let seen: Arc<Mutex<Vec<(Seen, std::thread::ThreadId)>>> = Arc::default();
    let seen_in = seen.clone();
    let subscription = handle(&broker, "in.*", Delivery::Inline, move |view| {
        seen_in
            .lock()
            .unwrap()
            .push((Seen::of(view), std::thread::current().id()));
    });
    assert!(subscription.queue().is_none());
    let mut publisher = Publisher::open(&broker, b"in.handle").unwrap();
    for number in 0..100u64 {
        publish_number(&broker, "in.string", number).unwrap();
        publisher.publish(&number.to_le_bytes()).unwrap();
        let calls = seen.lock().unwrap();
        assert_eq!(calls.len() as u64, 2 * number + 2);
        let last = &calls[calls.len() - 1];
        assert_eq!((last.0.number(), last.0.sequence), (number, number + 1));
        assert_eq!(last.0.subject, "in.handle");
        assert_eq!(last.1, std::thread::current().id());
    }
    let statistics = broker.statistics();
    assert_eq!(
        (
            statistics.published,
            statistics.delivered,
            statistics.threads
        ),
        (200, 200, 0)
    );
    assert_eq!(subscription.counts(), (200, 0));
    assert_eq!(statistics.memory, 0);
}

#[test]
fn handlers_nest_sixteen_deep_and_the_seventeenth_is_misuse() {
    let broker = open();
    let there = Arc::downgrade(&broker);
    let calls = Arc::new(AtomicU64::new(0));
    let refused = Arc::new(AtomicU64::new(0));
    let (calls_in, refused_in) = (calls.clone(), refused.clone());
    let subscription = handle(&broker, "deep", Delivery::Inline, move |_| {
        calls_in.fetch_add(1, Ordering::SeqCst);
        let broker = there.upgrade().unwrap();
        let nested = publish(&broker, "deep", b"");
        if status(&nested) == Status::Misuse {
            assert!(nested.unwrap_err().text().contains("16"));
            refused_in.fetch_add(1, Ordering::SeqCst);
        }
    });
    for round in 1..=50 {
        publish(&broker, "deep", b"").unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 16 * round);
        assert_eq!(refused.load(Ordering::SeqCst), round);
    }
    subscription.unsubscribe();
    publish(&broker, "deep", b"").unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 800);
}

#[test]
fn a_handler_may_publish_to_new_subjects_and_the_routes_are_kept() {
    let broker = open();
    let there = Arc::downgrade(&broker);
    let sink = subscribe(&broker, "sink.>");
    let _relay = handle(&broker, "source.*", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        let number = number_of(view.payload());
        for step in 0..3 {
            publish_number(&broker, &format!("sink.{}", (number + step) % 40), number).unwrap();
        }
    });
    for number in 0..2000 {
        publish_number(&broker, &format!("source.{}", number % 50), number).unwrap();
        let numbers = take_numbers(&broker, queue_of(&sink));
        assert_eq!(numbers, [number; 3]);
    }
}

#[test]
fn a_handler_may_subscribe_and_unsubscribe_itself_and_others() {
    let broker = open();
    let there = Arc::downgrade(&broker);
    let open_now: Arc<Mutex<Vec<Subscription>>> = Arc::default();
    let calls = Arc::new(AtomicU64::new(0));
    let (open_in, calls_in) = (open_now.clone(), calls.clone());
    let count_calls = calls.clone();
    let driver = handle(&broker, "change", Delivery::Inline, move |view| {
        let broker = there.upgrade().unwrap();
        let calls = calls_in.clone();
        let mut open_now = open_in.lock().unwrap();
        if number_of(view.payload()) % 3 == 2 {
            for subscription in open_now.drain(..) {
                subscription.unsubscribe();
            }
        } else {
            open_now.push(handle(&broker, "changed", Delivery::Inline, move |_| {
                calls.fetch_add(1, Ordering::SeqCst);
            }));
        }
    });
    let mut expected = 0;
    for number in 0..300 {
        publish_number(&broker, "change", number).unwrap();
        publish_number(&broker, "changed", number).unwrap();
        expected += [1, 2, 0][number as usize % 3];
        assert_eq!(count_calls.load(Ordering::SeqCst), expected, "{number}");
    }
    driver.unsubscribe();

    let own: Arc<Mutex<Option<Subscription>>> = Arc::default();
    let own_in = own.clone();
    let once = Arc::new(AtomicU64::new(0));
    let once_in = once.clone();
    let subscription = handle(&broker, "once", Delivery::Inline, move |_| {
        once_in.fetch_add(1, Ordering::SeqCst);
        if let Some(me) = own_in.lock().unwrap().take() {
            me.unsubscribe();
        }
    });
    *own.lock().unwrap() = Some(subscription);
    for number in 0..10 {
        publish_number(&broker, "once", number).unwrap();
    }
    assert_eq!(once.load(Ordering::SeqCst), 1);
}

#[test]
fn a_handler_that_publishes_into_a_queue_of_the_same_message_takes_no_promised_room() {
    // The message goes to a group whose member is inline and to queues; the handler publishes into
    // the same queues while the outer message is on its way.
    for round in 0..60usize {
        let broker = open();
        let queue = queue(&broker, Policy::Backpressure, SMALL);
        let there = Arc::downgrade(&broker);
        let on_message = Box::new(move |_: &fastmq_engine::memory::View| {
            let broker = there.upgrade().unwrap();
            while publish(&broker, "inner", &[0; 100]).is_ok() {}
        });
        let _inline = broker
            .subscribe(b"outer", b"a", Delivery::Inline, None, 0, Some(on_message))
            .unwrap();
        let _all = [
            subscribe_on(&broker, "outer", "b", &queue, 1),
            subscribe_on(&broker, "outer", "c", &queue, 2),
            subscribe_on(&broker, "outer", "", &queue, 3),
            subscribe_on(&broker, "inner", "", &queue, 4),
        ];
        for number in 0..20 {
            let size = 1 + (round * 13 + number * 29) % 300;
            let sent = publish(&broker, "outer", &vec![1; size]);
            assert!(
                matches!(status(&sent), Status::Ok | Status::Again),
                "{sent:?}"
            );
            let outer = take_all(&broker, &queue)
                .iter()
                .filter(|one| one.tag < 4)
                .count();
            assert_eq!(outer, if sent.is_ok() { 3 } else { 0 });
        }
    }
}

#[test]
fn a_handler_that_panics_leaves_the_engine_usable() {
    let broker = open();
    let calls = Arc::new(AtomicU64::new(0));
    let calls_in = calls.clone();
    let there = Arc::downgrade(&broker);
    let subscription = handle(&broker, "panic.*", Delivery::Inline, move |view| {
        calls_in.fetch_add(1, Ordering::SeqCst);
        let broker = there.upgrade().unwrap();
        match view.subject() {
            b"panic.now" => std::panic::resume_unwind(Box::new("on purpose")),
            b"panic.nested" => publish(&broker, "panic.now", b"").unwrap(),
            _ => {}
        }
    });
    for round in 0..100 {
        for subject in ["panic.now", "panic.nested"] {
            let result = catch_unwind(AssertUnwindSafe(|| publish(&broker, subject, b"")));
            assert!(result.is_err(), "{subject}");
        }
        publish(&broker, "panic.not", b"").unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 4 * (round + 1));
    }
    // Nothing was left announced: unsubscribe does not wait for a handler that is gone.
    let there = std::thread::spawn(move || subscription.unsubscribe());
    there.join().unwrap();
    publish(&broker, "panic.now", b"").unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 400);
}

#[test]
fn after_unsubscribe_no_handler_runs_on_any_thread() {
    let broker = open();
    let is_over = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (broker, is_over) = (broker.clone(), is_over.clone());
            std::thread::spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    publish(&broker, "rest", b"").unwrap();
                }
            })
        })
        .collect();
    for _ in 0..300 {
        let is_dead = Arc::new(AtomicBool::new(false));
        let violations = Arc::new(AtomicU64::new(0));
        let calls = Arc::new(AtomicU64::new(0));
        let (is_dead_in, violations_in, calls_in) =
            (is_dead.clone(), violations.clone(), calls.clone());
        let subscription = handle(&broker, "rest", Delivery::Inline, move |_| {
            let is_dead = || is_dead_in.load(Ordering::SeqCst);
            let before = is_dead();
            calls_in.fetch_add(1, Ordering::SeqCst);
            violations_in.fetch_add(u64::from(before || is_dead()), Ordering::SeqCst);
        });
        until("the handler has run", || calls.load(Ordering::SeqCst) > 10);
        subscription.unsubscribe();
        is_dead.store(true, Ordering::SeqCst);
        let seen = calls.load(Ordering::SeqCst);
        // Others have published since when the next one has had its calls.
        assert_eq!(violations.load(Ordering::SeqCst), 0);
        assert_eq!(calls.load(Ordering::SeqCst), seen);
    }
    is_over.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.join().unwrap();
    }
}

#[test]
fn closing_the_broker_inside_a_handler_returns_and_later_publishes_are_closed() {
    let broker = open();
    let there = Arc::downgrade(&broker);
    let _subscription = handle(&broker, "close", Delivery::Inline, move |_| {
        there.upgrade().unwrap().close();
    });
    let other = subscribe(&broker, "close");
    let sent: Result<(), _> = publish(&broker, "close", b"");
    assert!(matches!(status(&sent), Status::Ok | Status::Closed));
    check(publish(&broker, "close", b""), Status::Closed);
    check(queue_of(&other).receive(&broker, 1, FOREVER), Status::End);
    fn is_shared<T: Send + Sync>(_: &T) {}
    is_shared::<Arc<Broker>>(&broker);
}

/// Two clients of one process may have equal tokens: an answer in place goes to its own asker.
#[test]
fn an_answer_in_place_is_for_the_client_that_asked() {
    let (ours, theirs) = (open(), open());
    let there = Arc::downgrade(&theirs);
    // The first request of a thread has the same token everywhere: this one answers the other.
    let _responder = handle(&ours, "ask", Delivery::Inline, move |message| {
        let theirs = there.upgrade().unwrap();
        let answered = client(&theirs, |client| client.reply(message.token, 0, b"theirs"));
        assert!(answered.is_err(), "nobody asks there");
    });
    let message = Message {
        subject: b"ask",
        ..Message::default()
    };
    let asked = client(&ours, |client| {
        client.request(&message, 0, |view| view.payload().to_vec())
    });
    assert_eq!(asked.unwrap_err().status(), Status::Timeout);
}
