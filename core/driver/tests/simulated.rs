//! Promises of the simulated driver: a seed and the calls decide everything, and nothing blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fastmq_driver::{Driver, FOREVER_NS, Parked, SimulatedDriver, SplitMix64};

/// Plays a fixed game and writes down every answer of the driver.
fn play(seed: u64) -> Vec<u64> {
    let driver = SimulatedDriver::new(seed);
    let word = AtomicU32::new(0);
    let mut answers = Vec::new();
    for turn in 0..100 {
        let random = driver.random();
        answers.push(random);
        match random % 4 {
            0 => driver.advance(random % 1000),
            1 => driver.set_clock_step(random % 10),
            2 => {
                let deadline_ns = driver.monotonic_ns() + random % 1000;
                answers.push(driver.park(&word, 0, deadline_ns) as u64);
            }
            _ => driver.wake(&word, turn),
        }
        answers.push(driver.monotonic_ns());
        answers.push(driver.unix_ns());
    }
    answers
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    assert_eq!(play(42), play(42));
    assert_ne!(play(42), play(43));
}

#[test]
fn its_random_numbers_are_those_of_the_seed() {
    let driver = SimulatedDriver::new(7);
    let mut expected = SplitMix64::new(7);
    for _ in 0..100 {
        assert_eq!(driver.random(), expected.next_u64());
    }
}

#[test]
fn time_moves_only_when_told_to() {
    let driver = SimulatedDriver::new(0);
    let start_ns = driver.monotonic_ns();
    let unix_ns = driver.unix_ns();
    assert_eq!(driver.monotonic_ns(), start_ns);
    driver.advance(5);
    assert_eq!(driver.monotonic_ns(), start_ns + 5);
    assert_eq!(driver.unix_ns(), unix_ns + 5);
    driver.set_clock_step(2);
    assert_eq!(driver.monotonic_ns(), start_ns + 5);
    assert_eq!(driver.unix_ns(), unix_ns + 7);
    assert_eq!(driver.monotonic_ns(), start_ns + 9);
    driver.set_clock_step(0);
    driver.advance(u64::MAX);
    assert_eq!(
        driver.monotonic_ns(),
        u64::MAX,
        "time ends, and does not begin again"
    );
    assert_eq!(driver.unix_ns(), u64::MAX);
}

#[test]
fn a_park_never_blocks() {
    let driver = SimulatedDriver::new(0);
    let word = AtomicU32::new(3);
    let start_ns = driver.monotonic_ns();
    assert_eq!(driver.park(&word, 4, FOREVER_NS), Parked::Changed);
    assert_eq!(driver.park(&word, 3, start_ns + 100), Parked::TimedOut);
    assert_eq!(driver.monotonic_ns(), start_ns + 100);
    assert_eq!(driver.park(&word, 3, start_ns), Parked::TimedOut);
    assert_eq!(
        driver.monotonic_ns(),
        start_ns + 100,
        "the clock never goes back"
    );
    assert_eq!(driver.park(&word, 3, FOREVER_NS), Parked::Deadlock);
    word.store(4, Ordering::Relaxed);
    assert_eq!(driver.counters().parks, 4);
    assert!(!driver.may_spin());
}

#[test]
fn events_and_loops_have_no_descriptor_and_tell_the_truth() {
    let driver: Arc<SimulatedDriver> = Arc::new(SimulatedDriver::new(0));
    let world: Arc<dyn Driver> = driver.clone();
    let event = world.event().unwrap();
    assert_eq!(event.fd(), -1);
    event.signal();
    assert!(event.is_signalled());
    let loop_fd = world.loop_fd().unwrap();
    assert_eq!(loop_fd.fd(), -1);
    assert!(!loop_fd.is_ready());
    loop_fd.signal();
    assert!(loop_fd.is_ready());
    loop_fd.clear();
    assert!(!loop_fd.is_ready());
    let start_ns = driver.monotonic_ns();
    loop_fd.set_deadline(Some(start_ns + 10));
    driver.advance(9);
    assert!(!loop_fd.is_ready());
    loop_fd.clear();
    driver.advance(1);
    assert!(
        loop_fd.is_ready(),
        "a clear before the deadline does not take it back"
    );
    loop_fd.clear();
    assert!(!loop_fd.is_ready());
    loop_fd.set_deadline(Some(start_ns));
    assert!(loop_fd.is_ready());
    loop_fd.set_deadline(None);
    assert!(!loop_fd.is_ready());
}

#[test]
fn threads_are_refused() {
    let driver = SimulatedDriver::new(0);
    let error = driver.spawn("deliver", Box::new(|| {})).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert_eq!(driver.counters().threads, 0);
}
