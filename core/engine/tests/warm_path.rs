//! Warm paths cost nothing but the work: no allocation, no clock, no lock, no park and no system
//! call per message. And when memory is refused, a publish says so and nothing is broken.

#![forbid(unsafe_code)]
// The thread sanitizer allocates and calls the kernel itself.
#![cfg(not(fastmq_tsan))]

mod steps;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastmq_engine::driver::{Counters, Driver, NullDriver};
use fastmq_engine::memory::allocation::Allocator;
use fastmq_engine::memory::{Policy, View};
use fastmq_engine::{
    Broker, Delivery, Message, Options, Place, Publisher, Requester, RequesterOptions, Status,
    Subscription,
};
use fastmq_test_support::allocation::{self, Counting};
use fastmq_test_support::child::{Ended, without_system_calls};
use steps::*;

#[global_allocator]
static ALLOCATOR: Allocator<Counting> = Allocator::over(Counting);

/// Operations that must cost nothing.
const WARM: u64 = 1_000_000;
/// Operations before, in which routes are cached, lanes grow and vectors find their size.
const COLD: u64 = 20_000;
/// Messages between two receives.
const BURST: u64 = 50;
/// Held by each test: a child of a fork must not find a lock of ours that another test's thread
/// held at that moment.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A broker with all that the warm paths use, and the work on each.
struct Stage {
    broker: Arc<Broker>,
    driver: Arc<NullDriver>,
    queue: Arc<Place>,
    responder: Arc<Place>,
    publisher: Publisher,
    caller: Publisher,
    latest: Arc<Place>,
    latest_publisher: Publisher,
    asker: Requester,
    calls: Arc<AtomicU64>,
    _subscriptions: Vec<Subscription>,
}

#[derive(Clone, Copy, Debug)]
enum Path {
    ByString,
    ByHandle,
    InBatches,
    Claimed,
    ClaimedInline,
    InlineByString,
    InlineAnswer,
    Requests,
    LatestByString,
    LatestByHandle,
}

const PATHS: [Path; 10] = [
    Path::ByString,
    Path::ByHandle,
    Path::InBatches,
    Path::Claimed,
    Path::ClaimedInline,
    Path::InlineByString,
    Path::InlineAnswer,
    Path::Requests,
    Path::LatestByString,
    Path::LatestByHandle,
];

impl Stage {
    fn new() -> Self {
        let driver = Arc::new(NullDriver::new());
        let broker = Broker::open(Options::default(), driver.clone()).unwrap();
        let messages = subscribe(&broker, "warm.message");
        let requests = subscribe(&broker, "warm.request");
        let calls = Arc::new(AtomicU64::new(0));
        let calls_in = calls.clone();
        let inline = handle(&broker, "warm.inline", Delivery::Inline, move |_| {
            calls_in.fetch_add(1, Ordering::Relaxed);
        });
        let there = Arc::downgrade(&broker);
        let answer = handle(&broker, "warm.answer", Delivery::Inline, move |view| {
            let broker = there.upgrade().unwrap();
            client(&broker, |client| {
                client.writer.reply(view.token, 0, b"yes", &[])
            })
            .unwrap();
        });
        let latest = queue(&broker, Policy::Latest, 0);
        let newest = subscribe_on(&broker, "warm.latest", "", &latest, 0);
        let options = RequesterOptions {
            subject: b"warm.request",
            ..RequesterOptions::default()
        };
        Self {
            queue: queue_of(&messages).clone(),
            responder: queue_of(&requests).clone(),
            publisher: Publisher::open(&broker, b"warm.message").unwrap(),
            caller: Publisher::open(&broker, b"warm.inline").unwrap(),
            latest,
            latest_publisher: Publisher::open(&broker, b"warm.latest").unwrap(),
            asker: Requester::open(&broker, options).unwrap(),
            calls,
            _subscriptions: vec![messages, requests, inline, answer, newest],
            broker,
            driver,
        }
    }

    /// Does `count` operations, a multiple of `BURST`.
    fn work(&mut self, path: Path, count: u64) {
        for round in 0..count / BURST {
            self.burst(path, round);
        }
    }

    fn burst(&mut self, path: Path, round: u64) {
        let payload = [7; 16];
        let broker = &self.broker;
        match path {
            Path::ByString => {
                for _ in 0..BURST {
                    publish(broker, "warm.message", &payload).unwrap();
                }
                self.receive();
            }
            Path::ByHandle => {
                for _ in 0..BURST {
                    self.publisher.publish(&payload).unwrap();
                }
                self.receive();
            }
            Path::LatestByString => {
                for _ in 0..BURST {
                    publish(broker, "warm.latest", &payload).unwrap();
                }
                self.receive_latest();
            }
            Path::LatestByHandle => {
                for _ in 0..BURST {
                    self.latest_publisher.publish(&payload).unwrap();
                }
                self.receive_latest();
            }
            Path::InBatches => {
                let many = (0..BURST).map(|_| &payload[..]);
                assert_eq!(self.publisher.publish_batch(many).0 as u64, BURST);
                self.receive();
            }
            Path::Claimed => {
                for _ in 0..BURST {
                    let mut claim = self.publisher.claim(1000).unwrap();
                    claim.bytes()[..16].copy_from_slice(&payload);
                    claim.commit(16).unwrap();
                    drop(self.publisher.claim(10).unwrap());
                }
                self.receive();
            }
            Path::ClaimedInline => {
                let before = self.calls.load(Ordering::Relaxed);
                for _ in 0..BURST {
                    let mut claim = self.caller.claim(1000).unwrap();
                    claim.bytes().fill(7);
                    claim.commit(1000).unwrap();
                }
                assert_eq!(self.calls.load(Ordering::Relaxed) - before, BURST);
            }
            Path::InlineByString => {
                let before = self.calls.load(Ordering::Relaxed);
                for _ in 0..BURST {
                    publish(broker, "warm.inline", &payload).unwrap();
                }
                assert_eq!(self.calls.load(Ordering::Relaxed) - before, BURST);
            }
            Path::InlineAnswer => {
                let message = Message {
                    subject: b"warm.answer",
                    payload: &payload,
                    ..Message::default()
                };
                for _ in 0..BURST {
                    let look = |view: &View| assert_eq!(view.payload(), b"yes");
                    client(broker, |client| client.request(&message, FOREVER, look)).unwrap();
                }
            }
            Path::Requests => {
                for token in 0..BURST {
                    self.asker.submit(&payload, round + token, FOREVER).unwrap();
                }
                let mut left = BURST;
                while left > 0 {
                    let batch = self.responder.receive(broker, left as usize, 0).unwrap();
                    left -= batch.messages().len() as u64;
                    for view in batch.messages() {
                        let (token, payload) = (view.token, view.payload());
                        let answer = |client: &fastmq_engine::ThreadClient| {
                            client.writer.reply(token, 0, payload, &[])
                        };
                        client(broker, answer).unwrap();
                    }
                }
                let mut left = BURST;
                while left > 0 {
                    let batch = self.asker.receive(left as usize, 0).unwrap();
                    left -= batch.messages().len() as u64;
                }
            }
        }
    }

    fn receive(&self) {
        let mut left = BURST;
        while left > 0 {
            let batch = self.queue.receive(&self.broker, left as usize, 0).unwrap();
            left -= batch.messages().len() as u64;
        }
    }

    fn receive_latest(&self) {
        let batch = self.latest.receive(&self.broker, 10, 0).unwrap();
        assert_eq!(batch.messages().len(), 1);
        assert_eq!(u64::from(batch.messages()[0].lost_before), BURST - 1);
    }

    fn asked(&self) -> (Counters, u64) {
        (self.driver.counters(), self.broker.statistics().locks)
    }
}

#[test]
fn a_warm_path_allocates_nothing_and_asks_nobody() {
    let _alone = alone();
    let mut stage = Stage::new();
    for path in PATHS {
        stage.work(path, COLD);
        let asked = stage.asked();
        let allocations = allocation::count();
        stage.work(path, WARM);
        assert_eq!(allocation::count(), allocations, "allocations: {path:?}");
        assert_eq!(
            stage.asked(),
            asked,
            "clock, parks, wakes and locks: {path:?}"
        );
    }
}

#[test]
fn the_counters_would_see_what_the_warm_paths_must_not_do() {
    let _alone = alone();
    let stage = Stage::new();
    let clock_calls = stage.asked().0.clock_calls;
    let allocations = allocation::count();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(allocation::count(), allocations + 1);
    stage.driver.monotonic_ns();
    assert_eq!(stage.asked().0.clock_calls, clock_calls + 1);
}

#[test]
fn a_warm_path_makes_no_system_call() {
    let _alone = alone();
    for path in PATHS {
        let prepare = || {
            let mut stage = Stage::new();
            stage.work(path, COLD);
            stage
        };
        let ended = without_system_calls(prepare, |stage| {
            stage.work(path, WARM);
            7
        });
        assert_eq!(ended.unwrap(), Ended::Exited(7), "{path:?}");
    }
    let ended = without_system_calls(|| (), |()| std::process::id() as i32).unwrap();
    assert!(
        matches!(ended, Ended::Killed(_)),
        "the filter kills: {ended:?}"
    );
}

/// Publishes to three queues on a subject and to a size that are new each time, with the `k`-th
/// allocation refused; returns what became of each message. Panics if one is lost or in part.
fn publish_without_memory(k: u64) -> Vec<Status> {
    let broker = open();
    let subscriptions: Vec<_> = (0..3).map(|_| subscribe(&broker, "k.*")).collect();
    // A thread's first publish makes what it keeps for the client.
    publish(&broker, "first", b"").unwrap();
    let mut statuses = Vec::new();
    for round in 0..30u64 {
        let subject = format!("k.{}", round / 3);
        let payload = vec![round as u8; if round % 3 == 0 { 20_000 } else { 600 }];
        let (sent, is_refused) = allocation::refusing(k, || publish(&broker, &subject, &payload));
        assert!(is_refused || sent.is_ok());
        statuses.push(status(&sent));
        for subscription in &subscriptions {
            let seen = take_all(&broker, queue_of(subscription));
            assert_eq!(seen.len(), usize::from(sent.is_ok()), "all or nothing");
            assert!(seen.iter().all(|one| one.payload == payload));
        }
    }
    statuses
}

#[test]
fn a_refused_allocation_while_publishing_is_an_error_and_nothing_breaks() {
    let _alone = alone();
    let mut refused = 0;
    for k in 1..=60 {
        let statuses = publish_without_memory(k);
        let is_known = |status: &Status| matches!(status, Status::Ok | Status::NoMemory);
        assert!(statuses.iter().all(is_known), "{k}: {statuses:?}");
        refused += statuses
            .iter()
            .filter(|status| **status == Status::NoMemory)
            .count();
    }
    assert!(refused > 20, "{refused} refusals were met");
}

#[test]
fn a_claim_without_memory_is_refused_and_one_that_was_made_is_kept() {
    let _alone = alone();
    let broker = open();
    let mut refused = 0;
    for k in 1..=30 {
        for size in [100, 600, 20_000] {
            let first = subscribe(&broker, "k");
            let mut publisher = Publisher::open(&broker, b"k").unwrap();
            let (claimed, _) = allocation::refusing(k, || publisher.claim(size).map(drop));
            if status(&claimed) == Status::NoMemory {
                refused += 1;
            }
            let mut claim = publisher.claim(size).unwrap();
            claim.bytes().fill(1);
            let second = subscribe(&broker, "k");
            let (committed, _) = allocation::refusing(k, || claim.try_commit(size));
            if status(&committed) == Status::NoMemory {
                refused += 1;
                assert_eq!(take_all(&broker, queue_of(&first)), []);
                claim.try_commit(size).unwrap();
            }
            for subscription in [&first, &second] {
                let seen = take_all(&broker, queue_of(subscription));
                assert_eq!((seen.len(), &seen[0].payload), (1, &vec![1; size]));
            }
        }
    }
    assert!(refused > 20, "{refused} refusals were met");
}

#[test]
fn a_request_without_memory_is_refused_or_ends() {
    let _alone = alone();
    let broker = open();
    let _silent = subscribe(&broker, "silent");
    let options = RequesterOptions {
        subject: b"silent",
        in_flight_max: 8,
        ..RequesterOptions::default()
    };
    let mut asker = Requester::open(&broker, options).unwrap();
    // What a window needs: slots, fates, deadlines.
    for k in 1..=3 {
        let (sent, is_refused) = allocation::refusing(k, || asker.submit(b"", 1, FOREVER));
        assert!(is_refused);
        check(sent, Status::NoMemory);
    }
    for token in 0..8 {
        asker.submit(b"", token, FOREVER).unwrap();
    }
    for token in 0..8 {
        check(
            allocation::refusing(1, || asker.cancel(token)).0,
            Status::Ok,
        );
    }
    // The list of a batch finds no memory: nothing is lost, and nobody waits in vain.
    let (received, is_refused) = allocation::refusing(1, || asker.receive(8, FOREVER).map(drop));
    assert!(is_refused);
    check(received, Status::NoMemory);
    assert_eq!(asker.in_flight(), 8);
    let batch = asker.receive(8, 0).unwrap();
    let is_cancelled = |view: &View| view.status == Status::Cancelled as u32;
    assert!(batch.messages().iter().all(is_cancelled));
    assert_eq!(batch.messages().len(), 8);
    drop(batch);
    assert_eq!(asker.in_flight(), 0);
}

#[test]
fn telling_who_comes_and_goes_allocates_nothing() {
    let _alone = alone();
    let broker = open();
    let queue = queue(&broker, Policy::Backpressure, 0);
    let place = queue.clone();
    let round = |listener: Option<&Place>| {
        for _ in 0..BURST {
            subscribe_on(&broker, "warm.presence", "", &place, 0).unsubscribe();
        }
        let mut heard = 0;
        while let Some(listener) = listener
            && heard < 2 * BURST
        {
            let batch = listener.receive(&broker, 100, 0).unwrap();
            heard += batch.messages().len() as u64;
        }
    };
    let cost = |listener: Option<&Place>| {
        (0..COLD / BURST).for_each(|_| round(listener));
        let before = allocation::count();
        (0..COLD / BURST).for_each(|_| round(listener));
        allocation::count() - before
    };
    let alone = cost(None);
    let listener = subscribe(&broker, "$SYS.>");
    let heard = cost(Some(queue_of(&listener)));
    assert!(heard <= alone, "{heard} allocations instead of {alone}");
}
