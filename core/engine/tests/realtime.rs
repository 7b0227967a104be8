//! What real-time programs ask for: threads that are what their options say, and spinning that
//! leaves the core to others now and then.
//!
//! No test spins under a real-time priority: where the pauses are tested the thread is only said to
//! be a real-time thread, in a simulation.

use std::sync::Arc;
use std::sync::mpsc::channel;

use fastmq_engine::driver::scheduling::{
    Scheduling, ThreadName, ThreadOptions, assume_realtime, current_cores, is_realtime,
};
use fastmq_engine::driver::{Driver, SimulatedDriver};
use fastmq_engine::wait::Profile;
use fastmq_engine::{Broker, Delivery, Options, QueueOptions, Status};

mod steps;
use steps::{MILLISECOND, handle, open_with, publish};

/// Says of the test's thread that it is a real-time thread, until the test ends.
struct Realtime;

impl Realtime {
    fn new() -> Self {
        assume_realtime(true);
        Self
    }
}

impl Drop for Realtime {
    fn drop(&mut self) {
        assume_realtime(false);
    }
}

/// A queue in a world where a reading of the clock takes a microsecond, with this profile.
fn simulated(wait: Profile) -> (Arc<Broker>, Arc<SimulatedDriver>, Arc<fastmq_engine::Place>) {
    let driver = Arc::new(SimulatedDriver::new(1));
    driver.set_clock_step(1_000);
    let broker = Broker::open(Options::default(), driver.clone()).unwrap();
    let queue = broker.open_queue(QueueOptions {
        wait: Some(wait),
        ..QueueOptions::default()
    });
    (broker, driver, queue.unwrap())
}

#[test]
fn a_spinning_real_time_thread_pauses_after_each_10_ms() {
    let _realtime = Realtime::new();
    let (broker, driver, queue) = simulated(Profile::BusyPoll);
    let start_ns = driver.monotonic_ns();
    let error = queue.receive(&broker, 1, 105 * MILLISECOND).unwrap_err();
    assert_eq!(error.status(), Status::Timeout);
    assert_eq!(driver.counters().parks, 10);
    // The pauses count as time: the wait ends when it was to end.
    let spent_ns = driver.monotonic_ns() - start_ns;
    assert!(
        (105 * MILLISECOND..106 * MILLISECOND).contains(&spent_ns),
        "{spent_ns}"
    );
}

#[test]
fn short_waits_of_a_real_time_thread_add_up() {
    let _realtime = Realtime::new();
    let (broker, driver, queue) = simulated(Profile::BusyPoll);
    for _ in 0..105 {
        assert!(queue.receive(&broker, 1, MILLISECOND).is_err());
    }
    let parks = driver.counters().parks;
    assert!((9..=10).contains(&parks), "{parks}");
}

#[test]
fn another_thread_spins_without_a_pause() {
    let (broker, driver, queue) = simulated(Profile::BusyPoll);
    assert!(queue.receive(&broker, 1, 105 * MILLISECOND).is_err());
    assert_eq!(driver.counters().parks, 0);
}

fn options(threads: ThreadOptions) -> Options {
    Options {
        threads,
        threads_max: 2,
        ..Options::default()
    }
}

#[test]
fn library_threads_have_their_name_and_cores_and_the_options_of_their_scheduling() {
    let all = current_cores().unwrap();
    let last = 1 << (63 - all.leading_zeros());
    let broker = open_with(options(ThreadOptions {
        name: ThreadName::new("desk").unwrap(),
        cores: last,
        scheduling: Scheduling::Other,
        priority: 0,
    }));
    let (send, seen) = channel();
    let mut subscriptions = Vec::new();
    for number in 0..2 {
        let send = send.clone();
        let subscription = broker.subscribe(
            format!("number.{number}").as_bytes(),
            b"",
            Delivery::Thread,
            None,
            0,
            Some(Box::new(move |_| {
                let comm = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
                let _ = send.send((comm.trim_end().to_owned(), current_cores(), is_realtime()));
            })),
        );
        subscriptions.push(subscription.unwrap());
    }
    publish(&broker, "number.0", b"").unwrap();
    let (name, cores, is_realtime) = seen.recv().unwrap();
    assert!(name == "desk-0" || name == "desk-1", "{name}");
    assert_eq!(cores, Ok(last));
    assert!(!is_realtime);
    assert_eq!(
        current_cores(),
        Ok(all),
        "the thread that asked is as it was"
    );
    broker.close();
}

/// Threads of this process with a name that begins like this, and the cores that each may use.
fn threads_named(prefix: &str) -> Vec<(String, String)> {
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread that ends meanwhile has no status.
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).ok()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let name = field("Name:")?.trim();
        let cores = field("Cpus_allowed_list:")?.trim();
        let is_one = name.starts_with(prefix);
        is_one.then(|| (name.to_owned(), cores.to_owned()))
    };
    let mut threads: Vec<_> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(of)
        .collect();
    threads.sort();
    threads
}

#[test]
fn no_thread_of_the_library_may_use_a_core_that_was_kept() {
    let last = 63 - current_cores().unwrap().leading_zeros();
    let broker = open_with(Options {
        threads_max: 3,
        ..options(ThreadOptions {
            name: ThreadName::new("kept").unwrap(),
            cores: 1 << last,
            ..ThreadOptions::default()
        })
    });
    assert_eq!(
        threads_named("kept-"),
        [],
        "the one that tried the options has ended"
    );
    let subscriptions: Vec<_> = (0..5)
        .map(|number| handle(&broker, &format!("kept.{number}"), Delivery::Thread, |_| {}))
        .collect();
    let expected = ["kept-0", "kept-1", "kept-2"];
    let expected = expected.map(|name| (name.to_owned(), last.to_string()));
    assert_eq!(threads_named("kept-"), expected);
    drop(subscriptions);
    broker.close();
}

#[test]
fn a_core_that_is_not_there_is_refused_when_the_client_opens() {
    let all = current_cores().unwrap();
    if all == u64::MAX {
        return;
    }
    let threads = ThreadOptions {
        cores: all | 1 << (63 - (!all).leading_zeros()),
        ..ThreadOptions::default()
    };
    let driver = Arc::new(fastmq_engine::driver::NullDriver::new());
    let error = Broker::open(options(threads), driver.clone()).unwrap_err();
    assert_eq!(error.status(), Status::Invalid);
    assert!(
        error.text().contains("Cpus_allowed_list"),
        "{}",
        error.text()
    );
    assert_eq!(driver.counters().threads, 0);
}

#[test]
fn a_world_without_threads_says_so_when_the_client_opens() {
    let threads = ThreadOptions {
        cores: 1,
        ..ThreadOptions::default()
    };
    let driver = Arc::new(SimulatedDriver::new(1));
    let error = Broker::open(options(threads), driver).unwrap_err();
    assert_eq!(error.status(), Status::Unsupported);
}
