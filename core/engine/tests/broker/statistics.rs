//! Statistics: what was published is delivered, dropped, expired or pending, also by who is gone.

use crate::steps::*;
use fastmq_engine::memory::Policy;
use fastmq_engine::{Delivery, Message, Publisher, Status};

#[test]
fn the_figures_of_queues_subscriptions_and_client_add_up() {
    let (broker, driver) = open_simulated(4);
    let policies = [Policy::Backpressure, Policy::DropOldest, Policy::DropNewest];
    let queues: Vec<_> = policies
        .map(|policy| queue(&broker, policy, 8 * SMALL))
        .into();
    let subscriptions: Vec<_> = queues
        .iter()
        .map(|queue| subscribe_on(&broker, "sum.>", "", queue, 0))
        .collect();
    let _inline = handle(&broker, "sum.>", Delivery::Inline, |_| {});
    let mut publisher = Publisher::open(&broker, b"sum.handle").unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for number in 0..5000u64 {
        let payload = wide(number);
        let ttl_ns = if number % 7 == 0 { 1 } else { 0 };
        let sent = match number % 2 {
            0 => publisher.publish(&payload),
            _ => {
                let message = Message {
                    subject: b"sum.string",
                    payload: &payload,
                    ttl_ns,
                    ..Message::default()
                };
                client(&broker, |client| client.writer.publish_message(&message))
            }
        };
        match status(&sent) {
            Status::Ok => accepted += 1,
            Status::Again => refused += 1,
            other => panic!("{other:?}"),
        }
        driver.advance(10);
        if number % 400 == 399 {
            for queue in &queues {
                take_all(&broker, queue);
            }
        }
    }
    assert!(refused > 0);
    let mut totals = (0, 0, 0, 0);
    for (queue, subscription) in queues.iter().zip(&subscriptions) {
        let figures = queue.statistics();
        let (delivered, dropped) = subscription.counts();
        assert_eq!((figures.delivered, figures.dropped), (delivered, dropped));
        assert!(figures.pending > 0 && figures.pending_bytes >= figures.pending * 200);
        assert!(figures.high_water_bytes > 0);
        assert!(figures.expired > 0);
        let all = figures.delivered + figures.dropped + figures.expired + figures.pending;
        assert_eq!(all, accepted, "{:?}", queue.lanes().policy());
        totals.0 += figures.delivered;
        totals.1 += figures.dropped;
        totals.2 += figures.expired;
        totals.3 += figures.pending;
    }
    let figures = broker.statistics();
    assert_eq!((figures.published, figures.refused), (accepted, refused));
    assert_eq!(
        figures.delivered,
        totals.0 + accepted,
        "the inline one got all"
    );
    assert_eq!((figures.dropped, figures.expired), (totals.1, totals.2));
    assert_eq!((figures.queues, figures.subscriptions), (3, 4));
    assert!(figures.memory > 0 && figures.memory_high >= figures.memory);

    // What is gone stays counted.
    drop(publisher);
    for queue in &queues {
        take_all(&broker, queue);
    }
    let before = broker.statistics();
    for queue in &queues {
        broker.close_queue(queue);
    }
    let after = broker.statistics();
    assert_eq!(
        (after.published, after.delivered),
        (before.published, before.delivered)
    );
    assert_eq!(
        (after.dropped, after.expired),
        (before.dropped, before.expired)
    );
    assert_eq!((after.queues, after.subscriptions), (0, 1));
}

#[test]
fn waits_and_wakes_are_counted_when_they_happen() {
    let broker = open();
    let subscription = subscribe(&broker, "wake");
    let queue = queue_of(&subscription).clone();
    let there = broker.clone();
    let reader = std::thread::spawn(move || {
        queue.receive(&there, 1, PATIENCE_NS).unwrap();
    });
    until("the reader sleeps", || {
        queue_of(&subscription).waits().0 > 0
    });
    publish(&broker, "wake", b"").unwrap();
    reader.join().unwrap();
    let (waits, wakes) = queue_of(&subscription).waits();
    assert!(waits >= 1 && wakes >= 1);
    assert!(broker.statistics().parks >= 1 && broker.statistics().wakes >= 1);
}
