//! Correctness under load on real threads: order per handle, nothing lost or doubled under
//! backpressure, and drops equal to the counts reported, while subscriptions come and go.
//!
//! Every message says which stream it belongs to (one handle, or one thread and subject) and which
//! number it is there. Ten million deliveries in all; `soak` goes on for as long as it is told.

#![forbid(unsafe_code)]

mod steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastmq_engine::memory::{Policy, View};
use fastmq_engine::{Broker, Delivery, Message, Options, Place, Publisher, Status};
use steps::*;

/// Streams of one publisher: two handles and two subjects.
const STREAMS: usize = 4;
const GROUP_MEMBERS: usize = 2;
/// A sanitizer makes everything some twenty times as slow.
const SLOW: u64 = if cfg!(fastmq_tsan) { 20 } else { 1 };

#[derive(Clone, Copy, Debug)]
struct Load {
    publishers: usize,
    /// Messages of each publisher.
    messages: u64,
    /// Bytes of a lane.
    capacity: u64,
    /// Subscriptions come and go meanwhile.
    has_churn: bool,
    seed: u64,
}

/// The stream of the message that carries the last counts of losses; it is not counted itself.
const MARK: u64 = u64::MAX;

/// What one reader saw of each stream.
#[derive(Clone, Debug)]
struct Watch {
    next: Vec<u64>,
    received: u64,
    lost: u64,
    sum: u64,
}

impl Watch {
    fn new(load: &Load) -> Self {
        Self {
            next: vec![0; load.publishers * STREAMS],
            received: 0,
            lost: 0,
            sum: 0,
        }
    }

    /// Notes one message; with `is_whole`, none may be missing before it.
    fn note(&mut self, view: &View, is_whole: bool) {
        let payload = view.payload();
        self.lost += u64::from(view.lost_before);
        if number_of(payload) == MARK {
            return;
        }
        let stream = number_of(payload) as usize;
        let number = number_of(&payload[8..]);
        let next = &mut self.next[stream];
        if is_whole {
            assert_eq!(number, *next, "stream {stream}");
        } else {
            assert!(number >= *next, "stream {stream}: {number} after {next}");
        }
        *next = number + 1;
        self.received += 1;
        self.sum = self.sum.wrapping_add(mix(stream as u64, number));
    }
}

/// A number whose sum over all messages tells whether each came once.
fn mix(stream: u64, number: u64) -> u64 {
    Dice(stream << 48 ^ number).below(u64::MAX)
}

fn read_to_end(broker: &Broker, queue: &Place, watch: &mut Watch, is_whole: bool) {
    loop {
        match queue.receive(broker, 256, FOREVER) {
            Ok(batch) => batch
                .messages()
                .iter()
                .for_each(|view| watch.note(view, is_whole)),
            Err(error) => {
                assert_eq!(error.status(), Status::End, "{error}");
                return;
            }
        }
    }
}

/// Publishes about `load.messages`; returns how many.
fn publish_all(broker: &Arc<Broker>, load: &Load, index: usize) -> u64 {
    let mut dice = Dice(load.seed ^ index as u64);
    let mut numbers = [0; STREAMS];
    let mut handles: Vec<Publisher> = (0..2)
        .map(|at| Publisher::open(broker, format!("load.handle.{index}.{at}").as_bytes()).unwrap())
        .collect();
    let subjects = [0, 1].map(|at| format!("load.string.{index}.{at}"));
    let mut sent = 0;
    let mut payloads = vec![Vec::new(); 32];
    while sent < load.messages {
        let at = dice.below(STREAMS as u64) as usize;
        let count = if dice.below(8) == 0 {
            1 + dice.below(32) as usize
        } else {
            1
        };
        for payload in &mut payloads[..count] {
            let size = if dice.below(20_000) == 0 { 10_000 } else { 16 };
            payload.clear();
            payload.extend_from_slice(&((index * STREAMS + at) as u64).to_le_bytes());
            payload.extend_from_slice(&u64::to_le_bytes(numbers[at]));
            payload.resize(size, 0);
            numbers[at] += 1;
        }
        if at < 2 {
            let handle = &mut handles[at];
            let many = payloads[..count].iter().map(|one| &one[..]);
            let (accepted, result) = handle.publish_batch(many);
            assert!(
                matches!(status(&result), Status::Ok | Status::Again),
                "{result:?}"
            );
            for payload in &payloads[accepted..count] {
                handle.publish_wait(payload, PATIENCE_NS).unwrap();
            }
        } else {
            for payload in &payloads[..count] {
                let message = Message {
                    subject: subjects[at - 2].as_bytes(),
                    payload,
                    ..Message::default()
                };
                client(broker, |client| client.publish_wait(&message, PATIENCE_NS)).unwrap();
            }
        }
        sent += count as u64;
    }
    sent
}

/// Opens and closes subscriptions of every kind until told to stop; each keeps its order.
fn churn(broker: &Arc<Broker>, load: &Load, is_over: &AtomicBool) -> u64 {
    let mut dice = Dice(!load.seed);
    let mut delivered = 0;
    let patterns = [
        "load.>",
        "load.*.*.1",
        "load.handle.0.0",
        "load.string.>",
        "*.*.0.*",
    ];
    while !is_over.load(Ordering::Relaxed) {
        let pattern = patterns[dice.below(patterns.len() as u64) as usize];
        let mut watch = Watch::new(load);
        let calls = Arc::new(AtomicU64::new(0));
        let calls_in = calls.clone();
        let count_calls = move |_: &View| {
            calls_in.fetch_add(1, Ordering::Relaxed);
        };
        match dice.below(6) {
            0 | 1 => {
                let policies = [Policy::DropOldest, Policy::DropNewest, Policy::Backpressure];
                let policy = policies[dice.below(3) as usize];
                let queue = queue(broker, policy, SMALL << dice.below(4));
                let group = if dice.below(4) == 0 { "team" } else { "" };
                // A member of the group that leaves takes messages with it: not in this one.
                let group = if group == "team" { "other" } else { group };
                let subscription = subscribe_on(broker, pattern, group, &queue, 1);
                for _ in 0..dice.below(50) {
                    if let Ok(batch) = queue.receive(broker, 64, MILLISECOND) {
                        batch
                            .messages()
                            .iter()
                            .for_each(|view| watch.note(view, false));
                    }
                }
                if dice.below(2) == 0 {
                    subscription.unsubscribe();
                }
                broker.close_queue(&queue);
            }
            2 => {
                let subscription = subscribe(broker, pattern);
                if let Ok(batch) = queue_of(&subscription).receive(broker, 64, MILLISECOND) {
                    batch
                        .messages()
                        .iter()
                        .for_each(|view| watch.note(view, false));
                }
                subscription.unsubscribe();
            }
            3 | 4 => {
                let subscription = handle(broker, pattern, Delivery::Inline, count_calls);
                for _ in 0..dice.below(200) {
                    thread::yield_now();
                }
                subscription.unsubscribe();
            }
            _ => {
                let subscription = handle(broker, pattern, Delivery::Thread, count_calls);
                for _ in 0..dice.below(200) {
                    thread::yield_now();
                }
                subscription.unsubscribe();
            }
        }
        delivered += watch.received + calls.load(Ordering::Relaxed);
    }
    delivered
}

/// Runs one load and checks it; returns how many messages were delivered.
fn run(load: Load) -> u64 {
    let broker = open_with(Options {
        queue_capacity: 256 << 10,
        ..Options::default()
    });
    let policies = [Policy::Backpressure, Policy::DropOldest, Policy::DropNewest];
    let plain: Vec<_> = policies
        .iter()
        .map(|policy| {
            let queue = queue(&broker, *policy, load.capacity);
            let subscription = subscribe_on(&broker, "load.>", "", &queue, 0);
            (queue, subscription, *policy)
        })
        .collect();
    let members: Vec<_> = (0..GROUP_MEMBERS)
        .map(|_| {
            let queue = queue(&broker, Policy::Backpressure, load.capacity);
            let subscription = subscribe_on(&broker, "load.>", "team", &queue, 0);
            (queue, subscription)
        })
        .collect();
    let is_over = AtomicBool::new(false);
    let mut delivered = 0;
    thread::scope(|scope| {
        let start = |queue: &Arc<Place>, is_whole: bool| {
            let (queue, broker) = (queue.clone(), broker.clone());
            let mut watch = Watch::new(&load);
            scope.spawn(move || {
                read_to_end(&broker, &queue, &mut watch, is_whole);
                watch
            })
        };
        let plain_readers: Vec<_> = plain
            .iter()
            .map(|(queue, _, policy)| start(queue, *policy == Policy::Backpressure))
            .collect();
        let member_readers: Vec<_> = members
            .iter()
            .map(|(queue, _)| start(queue, false))
            .collect();
        let writers: Vec<_> = (0..load.publishers)
            .map(|index| {
                let broker = &broker;
                scope.spawn(move || publish_all(broker, &load, index))
            })
            .collect();
        let changer = load
            .has_churn
            .then(|| scope.spawn(|| churn(&broker, &load, &is_over)));
        let sent: u64 = writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum();
        is_over.store(true, Ordering::Relaxed);
        if let Some(changer) = changer {
            delivered += changer.join().unwrap();
        }
        // What the writers that are gone have not told yet, the next one tells.
        for (queue, ..) in &plain {
            until("all is read", || queue.statistics().pending == 0);
            subscribe_on(&broker, "mark", "", queue, 0);
        }
        publish_number(&broker, "mark", MARK).unwrap();
        check(broker.drain(PATIENCE_NS), Status::Ok);
        let watches: Vec<Watch> = plain_readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect();
        for (watch, (queue, subscription, policy)) in watches.iter().zip(&plain) {
            let figures = queue.statistics();
            assert_eq!(
                figures.dropped,
                sent - watch.received,
                "{policy:?}: {load:?}"
            );
            assert_eq!(subscription.counts(), (watch.received, figures.dropped));
            assert_eq!(figures.delivered, watch.received + 1);
            assert_eq!(watch.lost, figures.dropped, "{policy:?}: as told");
            delivered += watch.received;
        }
        assert_eq!(watches[0].received, sent);
        let shared: Vec<Watch> = member_readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect();
        let received: u64 = shared.iter().map(|watch| watch.received).sum();
        let sum = shared
            .iter()
            .fold(0u64, |sum, watch| sum.wrapping_add(watch.sum));
        assert_eq!(
            (received, sum),
            (sent, watches[0].sum),
            "each once in the group"
        );
        delivered += received;
        assert_eq!(broker.statistics().published, sent + 1);
    });
    broker.close();
    delivered
}

#[test]
fn nothing_is_lost_or_doubled_and_every_drop_is_counted() {
    let mut delivered = 0;
    for (seed, publishers) in [(1, 1), (2, 2), (3, 4)] {
        delivered += run(Load {
            publishers,
            messages: 1_400_000 / SLOW / publishers as u64,
            capacity: 64 << 10,
            has_churn: false,
            seed,
        });
    }
    assert!(delivered >= 8_400_000 / SLOW, "{delivered}");
}

#[test]
fn subscriptions_come_and_go_under_load() {
    let mut delivered = 0;
    for seed in 0..4 {
        delivered += run(Load {
            publishers: 2,
            messages: 200_000 / SLOW,
            capacity: 16 << 10 << seed,
            has_churn: true,
            seed,
        });
    }
    assert!(delivered >= 2 * 1_600_000 / SLOW, "{delivered}");
}

#[test]
#[ignore = "runs for FASTMQ_SOAK_SECONDS; make soak"]
fn soak() {
    let seconds = std::env::var("FASTMQ_SOAK_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    let (mut delivered, mut seed) = (0, 0);
    while Instant::now() < end {
        seed += 1;
        let mut dice = Dice(seed);
        let publishers = 1 + dice.below(6) as usize;
        delivered += run(Load {
            publishers,
            messages: 2_000_000 / publishers as u64,
            capacity: SMALL << dice.below(10),
            has_churn: dice.below(2) == 0,
            seed,
        });
        println!("soak: {delivered} messages delivered, seed {seed}");
    }
}
