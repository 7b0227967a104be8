//! Sequences of publishers: whichever way a message goes, it says who published it and the how
//! manyth it is, so that a subscriber can tell what it misses of whom.

use std::collections::HashMap;
use std::sync::Arc;

use crate::steps::*;
use fastmq_engine::memory::Policy;
use fastmq_engine::{Broker, Delivery, Message, Publisher};

/// What a subscriber notes of each publisher.
#[derive(Default)]
struct Gaps {
    newest: HashMap<u64, u64>,
    missing: u64,
    lost: u64,
}

impl Gaps {
    fn note(&mut self, seen: &Seen) {
        assert!(seen.publisher > 0 && seen.sequence > 0);
        let newest = self.newest.entry(seen.publisher).or_insert(0);
        assert!(seen.sequence > *newest, "{seen:?} after {newest}");
        self.missing += seen.sequence - *newest - 1;
        self.lost += seen.lost;
        *newest = seen.sequence;
    }
}

fn open_publisher(broker: &Arc<Broker>) -> Publisher {
    Publisher::open(broker, b"a").unwrap()
}

/// Publishes by each call in turn.
fn publish_by(publisher: &mut Publisher, number: u64) {
    let payload = number.to_le_bytes();
    match number % 4 {
        0 => publisher.publish(&payload).unwrap(),
        1 => publisher
            .publish_batch([&payload[..]].into_iter())
            .1
            .unwrap(),
        2 => publisher
            .publish_message(&Message {
                payload: &payload,
                key: b"k",
                ..Message::default()
            })
            .unwrap(),
        _ => {
            let mut claim = publisher.claim(8).unwrap();
            claim.bytes().copy_from_slice(&payload);
            claim.commit(8).unwrap();
        }
    }
}

#[test]
fn each_handle_counts_for_itself_whichever_way_its_messages_go() {
    let broker = open();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = |delivery| {
        let heard = heard.clone();
        handle(&broker, "a", delivery, move |view| {
            heard.lock().unwrap().push(Seen::of(view));
        })
    };
    let queues = [
        queue(&broker, Policy::Backpressure, 0),
        queue(&broker, Policy::DropOldest, 0),
        queue(&broker, Policy::Latest, 0),
    ];
    let on_queues = || {
        queues
            .each_ref()
            .map(|queue| subscribe_on(&broker, "a", "", queue, 0))
    };
    // One target, several, and a handler at once or later.
    for round in 0..4 {
        let _subscriptions = match round {
            0 => vec![subscribe_on(&broker, "a", "", &queues[0], 0)],
            1 => on_queues().into(),
            2 => vec![hear(Delivery::Inline)],
            _ => vec![hear(Delivery::Dispatch)],
        };
        let mut publishers = [open_publisher(&broker), open_publisher(&broker)];
        // Long enough for lanes of their own.
        for number in 0..60 {
            for publisher in &mut publishers {
                publish_by(publisher, number);
                for queue in &queues {
                    heard.lock().unwrap().extend(take_all(&broker, queue));
                }
            }
        }
        broker.dispatch(0, 0).unwrap();
        let seen = std::mem::take(&mut *heard.lock().unwrap());
        // By queue or handler, as each has all or the newest.
        let mut gaps: HashMap<u32, Gaps> = HashMap::new();
        for one in &seen {
            gaps.entry(one.id).or_default().note(one);
            assert_eq!(one.sequence, one.number() + 1);
        }
        assert!(!gaps.is_empty());
        for gaps in gaps.values() {
            assert_eq!(gaps.newest.len(), 2, "two publishers");
            assert!(gaps.newest.values().all(|newest| *newest == 60));
        }
        for subscription in &_subscriptions {
            subscription.unsubscribe();
        }
    }
}

#[test]
fn what_is_published_by_subject_has_no_publisher() {
    let broker = open();
    let place = queue(&broker, Policy::Backpressure, 0);
    let _subscription = subscribe_on(&broker, "a", "", &place, 0);
    let mut publisher = open_publisher(&broker);
    // In one lane with those that have one, and in a lane of its own.
    for number in 0..100 {
        publish_number(&broker, "a", number).unwrap();
        publisher.publish(&number.to_le_bytes()).unwrap();
    }
    let seen = take_all(&broker, &place);
    let (with, without): (Vec<_>, Vec<_>) = seen.iter().partition(|one| one.sequence > 0);
    assert_eq!((with.len(), without.len()), (100, 100));
    assert!(without.iter().all(|one| one.publisher == 0));
    assert!(with.iter().all(|one| one.publisher == with[0].publisher));
}

#[test]
fn a_gap_is_what_the_queue_says_it_dropped() {
    for policy in [Policy::DropOldest, Policy::DropNewest, Policy::Latest] {
        let broker = open();
        let place = queue(&broker, policy, SMALL);
        let _subscription = subscribe_on(&broker, "a", "", &place, 0);
        let mut publisher = open_publisher(&broker);
        let mut gaps = Gaps::default();
        for number in 0..5000 {
            publisher.publish(&wide(number)).unwrap();
            if number % 700 == 699 || number == 4999 {
                take_all(&broker, &place)
                    .iter()
                    .for_each(|one| gaps.note(one));
            }
        }
        // Whatever was dropped last is told by the next.
        publisher.publish(&wide(5000)).unwrap();
        take_all(&broker, &place)
            .iter()
            .for_each(|one| gaps.note(one));
        assert!(gaps.missing > 0);
        assert_eq!(gaps.missing, gaps.lost, "{policy:?}");
        assert_eq!(gaps.newest.into_values().next(), Some(5001));
    }
}

#[test]
fn messages_that_expire_and_refusals_leave_the_gaps_that_they_should() {
    let (broker, driver) = open_simulated(1);
    let place = queue(&broker, Policy::Backpressure, SMALL);
    let _subscription = subscribe_on(&broker, "a", "", &place, 0);
    let mut publisher = open_publisher(&broker);
    let mut gaps = Gaps::default();
    publisher.publish(b"12345678").unwrap();
    for _ in 0..3 {
        let message = Message {
            payload: b"12345678",
            ttl_ns: 10,
            ..Message::default()
        };
        publisher.publish_message(&message).unwrap();
    }
    driver.advance(1000);
    publisher.publish(b"12345678").unwrap();
    take_all(&broker, &place)
        .iter()
        .for_each(|one| gaps.note(one));
    assert_eq!((gaps.missing, gaps.lost), (3, 0), "expired");
    // What was refused was not published: no gap.
    while publisher.publish(&[0; 200]).is_ok() {}
    take_all(&broker, &place)
        .iter()
        .for_each(|one| gaps.note(one));
    publisher.publish(b"12345678").unwrap();
    take_all(&broker, &place)
        .iter()
        .for_each(|one| gaps.note(one));
    assert_eq!(gaps.missing, 3);
}

#[test]
fn a_detached_batch_still_says_who_published() {
    let broker = open();
    let place = queue(&broker, Policy::Backpressure, 0);
    let _subscription = subscribe_on(&broker, "a", "", &place, 0);
    let mut publisher = open_publisher(&broker);
    publisher.publish(b"x").unwrap();
    let batch = place.receive(&broker, 1, 0).unwrap();
    let copy = batch.detach().unwrap();
    let who = |view: &fastmq_engine::memory::View| (view.publisher, view.sequence);
    assert_eq!(who(&copy.messages()[0]), who(&batch.messages()[0]));
    assert_eq!(copy.messages()[0].sequence, 1);
}
