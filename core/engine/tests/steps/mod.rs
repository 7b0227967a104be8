//! The steps that most tests of the engine take: open, subscribe, publish a number, take all.
//!
//! A step that must succeed asserts that it does, so that tests read as the promises alone. What
//! must come is waited for with a deadline ([`until`]); nothing sleeps to synchronise.
//! Not here: what is promised.

// Each test binary uses some of the steps.
#![allow(dead_code, unused_imports)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastmq_engine::driver::{NullDriver, SimulatedDriver};
/// Whose order the thread sanitizer sees.
pub(crate) use fastmq_engine::memory::sync::Mutex;
use fastmq_engine::memory::{Policy, View};
use fastmq_engine::{
    Broker, Delivery, Error, Options, Place, QueueOptions, Result, Status, Subscription,
    ThreadClient, with_thread_client,
};

/// How long a test waits for what must come: never reached unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The same for calls that take nanoseconds.
pub(crate) const PATIENCE_NS: u64 = 30_000_000_000;
/// A millisecond in nanoseconds.
pub(crate) const MILLISECOND: u64 = 1_000_000;
/// No time limit.
pub(crate) const FOREVER: u64 = u64::MAX;
/// The smallest capacity of a lane.
pub(crate) const SMALL: u64 = 4096;

/// A broker over the real clock.
pub(crate) fn open() -> Arc<Broker> {
    open_with(Options::default())
}

/// A broker over the real clock, with options.
pub(crate) fn open_with(options: Options) -> Arc<Broker> {
    Broker::open(options, Arc::new(NullDriver::new())).unwrap()
}

/// A broker whose time moves only when it is told to.
pub(crate) fn open_simulated(seed: u64) -> (Arc<Broker>, Arc<SimulatedDriver>) {
    let driver = Arc::new(SimulatedDriver::new(seed));
    let broker = Broker::open(Options::default(), driver.clone()).unwrap();
    (broker, driver)
}

/// This thread's part of the broker.
pub(crate) fn client<R>(broker: &Arc<Broker>, body: impl FnOnce(&ThreadClient) -> R) -> R {
    with_thread_client(broker.id(), || Some(broker.clone()), body).unwrap()
}

/// Publishes by subject.
pub(crate) fn publish(broker: &Arc<Broker>, subject: &str, payload: &[u8]) -> Result<()> {
    client(broker, |client| {
        client.writer.publish(subject.as_bytes(), payload)
    })
}

/// Publishes a number by subject.
pub(crate) fn publish_number(broker: &Arc<Broker>, subject: &str, number: u64) -> Result<()> {
    publish(broker, subject, &number.to_le_bytes())
}

/// Publishes numbers in 200 bytes each until one is refused; returns how many went in.
pub(crate) fn fill(broker: &Arc<Broker>, subject: &str) -> u64 {
    for number in 0..1_000_000 {
        match publish(broker, subject, &wide(number)) {
            Ok(()) => {}
            Err(error) if error.status() == Status::Again => return number,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a queue without end");
}

/// A payload of 200 bytes that begins with a number.
pub(crate) fn wide(number: u64) -> [u8; 200] {
    let mut bytes = [0; 200];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// A queue.
pub(crate) fn queue(broker: &Arc<Broker>, policy: Policy, capacity: u64) -> Arc<Place> {
    let options = QueueOptions {
        policy,
        capacity,
        wait: None,
    };
    broker.open_queue(options).unwrap()
}

/// A subscription with a queue of its own.
pub(crate) fn subscribe(broker: &Arc<Broker>, pattern: &str) -> Subscription {
    broker
        .subscribe(pattern.as_bytes(), b"", Delivery::Queue, None, 0, None)
        .unwrap()
}

/// A subscription on a queue.
pub(crate) fn subscribe_on(
    broker: &Arc<Broker>,
    pattern: &str,
    group: &str,
    queue: &Arc<Place>,
    tag: u64,
) -> Subscription {
    let (pattern, group) = (pattern.as_bytes(), group.as_bytes());
    broker
        .subscribe(pattern, group, Delivery::Queue, Some(queue), tag, None)
        .unwrap()
}

/// A subscription with a handler.
pub(crate) fn handle(
    broker: &Arc<Broker>,
    pattern: &str,
    delivery: Delivery,
    on_message: impl Fn(&View) + Send + Sync + 'static,
) -> Subscription {
    let on_message = Box::new(on_message);
    broker
        .subscribe(pattern.as_bytes(), b"", delivery, None, 0, Some(on_message))
        .unwrap()
}

/// What a reader saw of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) subject: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) sequence: u64,
    pub(crate) publisher: u64,
    pub(crate) token: u64,
    pub(crate) lost: u64,
    pub(crate) tag: u64,
    pub(crate) id: u32,
    pub(crate) status: u32,
    pub(crate) flags: u32,
}

impl Seen {
    pub(crate) fn of(view: &View) -> Self {
        Self {
            subject: String::from_utf8(view.subject().to_vec()).unwrap(),
            payload: view.payload().to_vec(),
            sequence: view.sequence,
            publisher: view.publisher,
            token: view.token,
            lost: u64::from(view.lost_before),
            tag: view.tag,
            id: view.subscription_id,
            status: view.status,
            flags: view.flags,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        number_of(&self.payload)
    }
}

/// The number that a payload begins with.
pub(crate) fn number_of(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

/// Receives until nothing is there.
pub(crate) fn take_all(broker: &Broker, queue: &Place) -> Vec<Seen> {
    let mut seen = Vec::new();
    loop {
        match queue.receive(broker, 100, 0) {
            Ok(batch) => seen.extend(batch.messages().iter().map(Seen::of)),
            Err(error) => {
                let status = error.status();
                assert!(matches!(status, Status::Again | Status::End), "{error}");
                return seen;
            }
        }
    }
}

/// The numbers of all waiting messages.
pub(crate) fn take_numbers(broker: &Broker, queue: &Place) -> Vec<u64> {
    take_all(broker, queue).iter().map(Seen::number).collect()
}

/// The queue that a subscription feeds.
pub(crate) fn queue_of(subscription: &Subscription) -> &Arc<Place> {
    subscription.queue().unwrap()
}

/// The status of a result; `Ok` for success.
pub(crate) fn status<T>(result: &Result<T>) -> Status {
    result.as_ref().map_or_else(Error::status, |_| Status::Ok)
}

/// Asserts on the status, with the sentence when it differs.
#[track_caller]
pub(crate) fn check<T>(result: Result<T>, expected: Status) {
    match result {
        Ok(_) => assert_eq!(Status::Ok, expected),
        Err(error) => assert_eq!(error.status(), expected, "{error}"),
    }
}

/// Waits until a condition holds, which must not take longer than `PATIENCE`.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Numbers that a seed decides (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// The next number below `count`.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % count
    }
}
