//! One message to many queues: all or nothing by the short way too, whichever ways take turns.

use std::sync::Arc;

use crate::steps::*;
use fastmq_engine::memory::Policy;
use fastmq_engine::{Broker, Message, Place, Publisher, Status, Subscription};

/// A queue with the numbers that it still has to show.
struct Reader {
    queue: Arc<Place>,
    subscription: Subscription,
    expected: Vec<u64>,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn join(broker: &Arc<Broker>) -> Reader {
    let queue = queue(broker, Policy::Backpressure, SMALL);
    let subscription = subscribe_on(broker, "wide", "", &queue, 0);
    Reader {
        queue,
        subscription,
        expected: Vec::new(),
    }
}

/// Receives once; what comes is what was accepted next.
fn take(broker: &Arc<Broker>, reader: &mut Reader, limit: usize) {
    let batch = match reader.queue.receive(broker, limit, 0) {
        Ok(batch) => batch,
        Err(error) => {
            assert_eq!(error.status(), Status::Again);
            assert_eq!(reader.expected, [], "messages are missing");
            return;
        }
    };
    let seen: Vec<u64> = batch
        .messages()
        .iter()
        .map(|view| Seen::of(view).number())
        .collect();
    assert!(seen.len() <= reader.expected.len(), "too many: {seen:?}");
    let expected: Vec<u64> = reader.expected.drain(..seen.len()).collect();
    assert_eq!(seen, expected);
}

/// Publishes one message by a way of the dice's choice; true if it was accepted.
fn send(dice: &mut Dice, publisher: &mut Publisher, number: u64) -> bool {
    let small = number.to_le_bytes();
    let large = wide(number);
    let result = match dice.below(24) {
        0 => publisher.publish_message(&Message {
            payload: &small,
            key: b"key",
            ..Message::default()
        }),
        1 => {
            let (count, result) = publisher.publish_batch([&small[..]].into_iter());
            assert_eq!(count == 1, result.is_ok());
            result
        }
        2..6 => publisher.publish(&large),
        _ => publisher.publish(&small),
    };
    match result {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.status(), Status::Again);
            false
        }
    }
}

#[test]
fn every_queue_gets_what_was_accepted_and_nothing_else() {
    let mut refused = 0;
    for seed in 1..60 {
        let broker = open();
        let mut dice = Dice(u64::wrapping_mul(seed, 0x9E37_79B9_7F4A_7C15));
        let mut readers: Vec<_> = (0..2 + dice.below(6)).map(|_| join(&broker)).collect();
        let mut publisher = Publisher::open(&broker, b"wide").unwrap();
        for number in 0..2000 {
            if send(&mut dice, &mut publisher, number) {
                readers
                    .iter_mut()
                    .for_each(|reader| reader.expected.push(number));
            } else {
                refused += 1;
            }
            let index = dice.below(readers.len() as u64) as usize;
            match dice.below(64) {
                0 => readers.push(join(&broker)),
                1 if readers.len() > 2 => {
                    let gone = readers.swap_remove(index);
                    if dice.below(2) == 0 {
                        broker.close_queue(&gone.queue);
                    }
                    drop(gone.subscription);
                }
                2..24 => take(&broker, &mut readers[index], 1 + dice.below(100) as usize),
                _ => {}
            }
        }
        for reader in &mut readers {
            while !reader.expected.is_empty() {
                take(&broker, reader, 1000);
            }
            take(&broker, reader, 1000);
        }
    }
    assert!(refused > 1000, "queues were full {refused} times only");
}

#[test]
fn many_queues_share_the_memory_of_views() {
    let broker = open();
    let mut readers: Vec<_> = (0..100).map(|_| join(&broker)).collect();
    let mut publisher = Publisher::open(&broker, b"wide").unwrap();
    let mut places = Vec::new();
    for number in 0..40u64 {
        publisher.publish(&number.to_le_bytes()).unwrap();
        places.clear();
        for reader in &mut readers {
            let batch = reader.queue.receive(&broker, 10, 0).unwrap();
            places.push(batch.messages().as_ptr() as usize);
            drop(batch);
            take(&broker, reader, 10);
        }
    }
    places.dedup();
    assert_eq!(places.len(), 1, "lists of views: {places:x?}");
}
