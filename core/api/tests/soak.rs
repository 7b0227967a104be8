//! The long run of a server: `make soak`. Its clients ask, answer, publish and come and go until
//! 10^9 messages have passed and the time is up. Every request has its own answer, every
//! subscriber every message in order, and the memory of the server stays what it was.

mod process;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fastmq::{Client, ConnectOptions, RequesterOptions, Status, Subscription};

use process::{PATIENCE_NS, Process, echoes};

const MESSAGES: &str = "FASTMQ_SOAK_MESSAGES";
const SECONDS: &str = "FASTMQ_SOAK_SECONDS";
/// Requests that an asker has outstanding.
const IN_FLIGHT: u32 = 4096;
/// Messages that a publisher is ahead of its subscriber.
const AHEAD: u64 = 16_384;
/// What the server's memory may differ by, from when it is warm.
const GROWTH_MAX: u64 = 8 << 20;

fn number(variable: &str, usual: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(usual, |text| text.parse().expect(variable))
}

/// What the clients share.
#[derive(Default)]
struct Work {
    is_over: AtomicBool,
    messages: AtomicU64,
    connections: AtomicU64,
}

impl Work {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn count(&self, messages: usize) {
        let messages = messages as u64;
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }
}

fn connect(url: &str) -> Client {
    Client::connect(url, ConnectOptions::default()).unwrap()
}

/// A client, and its subscription that the server has.
fn subscribed(url: &str, subject: &str) -> (Client, Subscription) {
    let client = connect(url);
    let subscription = client.subscribe(subject).unwrap();
    echoes(&client, b"after the subscription");
    (client, subscription)
}

/// Requests to `subject`, each of which gets its own answer; `hops` messages a pair.
fn ask(url: &str, subject: &str, hops: usize, work: &Work) {
    let client = connect(url);
    let mut requester = client
        .requester(RequesterOptions {
            in_flight_max: IN_FLIGHT,
            subject: subject.as_bytes(),
            ..RequesterOptions::default()
        })
        .unwrap();
    let (mut next, mut open) = (1u64, 0);
    while work.goes_on() || open > 0 {
        while work.goes_on() && open < IN_FLIGHT {
            match requester.submit(&next.to_le_bytes(), next, PATIENCE_NS) {
                Ok(()) => {}
                Err(error) if error.status() == Status::Again => break,
                Err(error) => panic!("{subject}: {error:?}"),
            }
            next += 1;
            open += 1;
        }
        let batch = requester.receive(1024, PATIENCE_NS).unwrap();
        for view in batch.messages() {
            assert_eq!(view.status, 0, "{subject}: an answer");
            assert_eq!(view.payload(), view.token.to_le_bytes(), "{subject}");
        }
        open -= batch.messages().len() as u32;
        work.count(batch.messages().len() * hops);
    }
    client.close();
}

/// Answers `far` from a process that is not the server's, until nobody is `asking`.
fn answer((client, requests): (Client, Subscription), asking: Weak<()>) {
    while asking.strong_count() > 0 {
        match requests.receive(256, 100_000_000) {
            Ok(batch) => {
                for view in batch.messages() {
                    client.reply(view.token, view.payload()).unwrap();
                }
            }
            Err(error) => assert_eq!(error.status(), Status::Timeout),
        }
    }
    client.drain(PATIENCE_NS).unwrap();
    client.close();
}

/// Publishes numbers, never further than [`AHEAD`] of who counts them.
fn publish(url: &str, heard: &AtomicU64, work: &Work) {
    let client = connect(url);
    let mut publisher = client.publisher("numbers").unwrap();
    let mut next = 0u64;
    while work.goes_on() {
        if next - heard.load(Ordering::Acquire) >= AHEAD {
            thread::yield_now();
            continue;
        }
        match publisher.publish(&next.to_le_bytes()) {
            Ok(()) => next += 1,
            Err(error) => assert_eq!(error.status(), Status::Again),
        }
    }
    client.drain(PATIENCE_NS).unwrap();
    client.close();
}

/// Counts them.
fn hear((client, numbers): (Client, Subscription), heard: &AtomicU64, work: &Work) {
    let mut next = 0u64;
    while work.goes_on() {
        match numbers.receive(256, 100_000_000) {
            Ok(batch) => {
                for view in batch.messages() {
                    assert_eq!(view.payload(), next.to_le_bytes());
                    next += 1;
                }
                work.count(2 * batch.messages().len());
                heard.store(next, Ordering::Release);
            }
            Err(error) => assert_eq!(error.status(), Status::Timeout),
        }
    }
    client.close();
}

/// Connects, subscribes, asks, and goes; every other time without a word.
fn come_and_go(url: &str, work: &Work) {
    while work.goes_on() {
        let client = connect(url);
        let subscription = client.subscribe("churn.*.>").unwrap();
        echoes(&client, b"here");
        if work
            .connections
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(2)
        {
            drop(subscription);
            client.drain(PATIENCE_NS).unwrap();
        }
        client.close();
    }
}

#[test]
#[ignore = "runs for FASTMQ_SOAK_SECONDS and FASTMQ_SOAK_MESSAGES; make soak"]
fn soak_a_server() {
    let (messages, seconds) = (number(MESSAGES, 1_000_000_000), number(SECONDS, 60));
    let directory = std::env::temp_dir();
    let path = directory.join(format!("fastmq-soak-{}.sock", std::process::id()));
    let shared = path.with_extension("shm");
    let (at, shared_at) = (path.display(), shared.display());
    let urls = format!("unix:{at},tcp://127.0.0.1:0,shm:{shared_at}");
    let server = Process::start(&urls, &[]);
    let [unix, tcp, shm] = &server.urls[..] else {
        panic!("{:?}", server.urls);
    };
    let work = Work::default();
    let heard = AtomicU64::new(0);
    let (begun, patience) = (Instant::now(), Duration::from_secs(120));
    let mut warm = 0;
    thread::scope(|scope| {
        let (work, heard) = (&work, &heard);
        let (far, numbers) = (subscribed(unix, "far"), subscribed(tcp, "numbers"));
        let asking = Arc::new(());
        let asked = Arc::downgrade(&asking);
        scope.spawn(|| answer(far, asked));
        scope.spawn(|| hear(numbers, heard, work));
        scope.spawn(|| publish(unix, heard, work));
        scope.spawn(|| ask(unix, "echo", 2, work));
        scope.spawn(move || {
            ask(tcp, "far", 4, work);
            drop(asking);
        });
        scope.spawn(|| come_and_go(unix, work));
        scope.spawn(|| come_and_go(tcp, work));
        scope.spawn(|| ask(shm, "echo", 2, work));
        scope.spawn(|| come_and_go(shm, work));
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            thread::park_timeout(Duration::from_secs(1));
            let done = work.messages.load(Ordering::Relaxed);
            if warm == 0 && done >= messages / 10 {
                warm = server.resident();
            }
            if done != last {
                (last, moved) = (done, Instant::now());
            }
            // A client that has panicked leaves the others to end.
            let is_stuck = moved.elapsed() >= patience;
            if is_stuck || (done >= messages && begun.elapsed().as_secs() >= seconds) {
                break;
            }
        }
        work.is_over.store(true, Ordering::Relaxed);
    });
    let done = work.messages.load(Ordering::Relaxed);
    let resident = server.resident();
    println!(
        "soak: {done} messages, {} connections, {:.0} s, {} KiB warm, {} KiB at the end",
        work.connections.load(Ordering::Relaxed),
        begun.elapsed().as_secs_f64(),
        warm >> 10,
        resident >> 10
    );
    assert!(done >= messages, "{done} messages, then none");
    assert!(resident <= warm + GROWTH_MAX, "{resident} bytes");
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_file(&shared);
}
