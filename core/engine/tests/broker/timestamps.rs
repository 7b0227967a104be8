//! Time stamps: of each way to publish where the client asked for them, and of none where not.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use fastmq_engine::driver::{Driver, NullDriver, SimulatedDriver};
use fastmq_engine::memory::View;
use fastmq_engine::memory::sync::Mutex;
use fastmq_engine::{
    Broker, Delivery, Message, Options, Publisher, QueueOptions, Requester, RequesterOptions,
    Timestamps,
};

use crate::steps::{client, publish};

/// A world whose clock moves a microsecond with each reading.
fn simulated(timestamps: Timestamps) -> (Arc<Broker>, Arc<SimulatedDriver>) {
    let driver = Arc::new(SimulatedDriver::new(1));
    driver.set_clock_step(1_000);
    let options = Options {
        timestamps,
        ..Options::default()
    };
    (Broker::open(options, driver.clone()).unwrap(), driver)
}

/// Publishes in every way there is and gives the times of the messages and of their batch.
fn times(broker: &Arc<Broker>) -> (Vec<u64>, u64) {
    let queue = broker.open_queue(QueueOptions::default()).unwrap();
    let subscription = broker.subscribe(b"t", b"", Delivery::Queue, Some(&queue), 0, None);
    let _subscription = subscription.unwrap();
    let mut publisher = Publisher::open(broker, b"t").unwrap();
    let mut requester = Requester::open(
        broker,
        RequesterOptions {
            subject: b"t",
            ..RequesterOptions::default()
        },
    )
    .unwrap();
    let large = vec![7; 100_000];
    publish(broker, "t", b"by subject").unwrap();
    publish(broker, "t", b"").unwrap();
    publish(broker, "t", &large).unwrap();
    let message = Message {
        subject: b"t",
        payload: b"with a key",
        key: b"k",
        ..Message::default()
    };
    client(broker, |client| client.writer.publish_message(&message)).unwrap();
    // More than a writer sends through the lane of all.
    for _ in 0..20 {
        publisher.publish(b"by handle").unwrap();
    }
    let batch: [&[u8]; 3] = [b"a", b"b", &large];
    assert_eq!(publisher.publish_batch(batch.into_iter()).0, 3);
    requester.submit(b"a request", 1, 1_000_000_000).unwrap();
    let (mut times, mut received_ns) = (Vec::new(), 0);
    // A lane of its own waits until the lane of all has let the writer's earlier messages go.
    while let Ok(batch) = queue.receive(broker, 64, 0) {
        let time_of = |view: &View| view.timestamp_ns;
        let copy = batch.detach().unwrap();
        assert!(
            copy.messages()
                .iter()
                .map(time_of)
                .eq(batch.messages().iter().map(time_of))
        );
        assert_eq!(copy.received_ns, batch.received_ns());
        received_ns = batch.received_ns();
        times.extend(batch.messages().iter().map(time_of));
    }
    assert_eq!(times.len(), 28);
    (times, received_ns)
}

#[test]
fn each_message_has_the_time_of_its_publish_and_each_batch_that_of_its_receive() {
    // A simulation has no counter: the clock takes its place.
    for timestamps in [Timestamps::Clock, Timestamps::Tsc] {
        let (broker, driver) = simulated(timestamps);
        let before = driver.unix_ns();
        let (times, received_ns) = times(&broker);
        let after = driver.unix_ns();
        // Each lane in its own order; a later publish has a later time.
        assert!(
            times
                .iter()
                .all(|time| before < *time && *time < received_ns)
        );
        let mut sorted = times.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), times.len(), "no two have the same time");
        assert!(received_ns < after);
    }
}

#[test]
fn who_does_not_ask_gets_none() {
    let (broker, _) = simulated(Timestamps::None);
    let (times, received_ns) = times(&broker);
    assert!(times.iter().all(|time| *time == 0));
    assert_eq!(received_ns, 0);
}

#[test]
fn inline_handlers_and_responders_see_the_time() {
    let (broker, driver) = simulated(Timestamps::Clock);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = seen.clone();
    let handler = move |message: &View| {
        inner.lock().unwrap().push(message.timestamp_ns);
    };
    let subscription = broker.subscribe(
        b"t",
        b"",
        Delivery::Inline,
        None,
        0,
        Some(Box::new(handler)),
    );
    let _subscription = subscription.unwrap();
    let before = driver.unix_ns();
    publish(&broker, "t", b"x").unwrap();
    let asked = Rc::new(Cell::new(false));
    let message = Message {
        subject: b"t",
        ..Message::default()
    };
    let answered = client(&broker, |client| {
        client.request(&message, 1, |_| asked.set(true)).is_ok()
    });
    assert!(!answered && !asked.get(), "nobody answers");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert!(before < seen[0] && seen[0] < seen[1] && seen[1] < driver.unix_ns());
}

#[test]
fn the_counter_and_the_clock_agree() {
    let driver = Arc::new(NullDriver::new());
    for timestamps in [Timestamps::Clock, Timestamps::Tsc] {
        let options = Options {
            timestamps,
            ..Options::default()
        };
        let broker = Broker::open(options, driver.clone()).unwrap();
        // The counter may be off by a few microseconds.
        let before = driver.unix_ns() - 1_000_000;
        let (times, received_ns) = times(&broker);
        let after = driver.unix_ns() + 1_000_000;
        // A step of the host clock in between would void the comparison.
        let is_right = |time: u64| before > after || (before <= time && time <= after);
        assert!(times.iter().all(|time| is_right(*time)) && is_right(received_ns));
    }
}
