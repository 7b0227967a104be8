//! Memory that is there from the start: all of it is taken when the broker opens, whatever queues
//! do gets its part of it and no more, and it goes when the broker does.

#![forbid(unsafe_code)]

mod steps;

use std::fs;
use std::sync::Arc;

use fastmq_engine::driver::NullDriver;
use fastmq_engine::driver::pages::{PageOptions, has_transparent_huge_pages, lock_limit};
use fastmq_engine::memory::Policy;
use fastmq_engine::{Broker, Options, Result, Status};
use steps::*;

const MEMORY: u64 = 16 << 20;
const PREFAULT: PageOptions = PageOptions {
    prefault: true,
    lock: false,
    huge: false,
};

fn try_open(memory_max: u64, memory: PageOptions) -> Result<Arc<Broker>> {
    let options = Options {
        memory_max,
        memory,
        ..Options::default()
    };
    Broker::open(options, Arc::new(NullDriver::new()))
}

/// A figure of the kernel about this process, in bytes.
fn status_bytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.unwrap().split_whitespace().next().unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// Pages that this thread had to wait for so far.
fn faults() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name
        .split_whitespace()
        .nth(7)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn how_much_memory_there_is_from_the_start_must_be_said() {
    let error = try_open(0, PREFAULT).unwrap_err();
    assert_eq!(error.status(), Status::Invalid);
    assert!(error.text().contains("memory_max"), "{}", error.text());
}

#[test]
fn more_memory_than_there_can_be_is_an_error_of_open() {
    for bytes in [1 << 62, u64::MAX] {
        check(try_open(bytes, PREFAULT), Status::NoMemory);
    }
}

#[test]
#[cfg_attr(fastmq_tsan, ignore = "the sanitizer adds pages of its own")]
fn a_lane_that_grows_to_its_capacity_waits_for_no_page() {
    let broker = try_open(MEMORY, PREFAULT).unwrap();
    let subscription = subscribe(&broker, "a");
    publish_number(&broker, "a", 0).unwrap();
    let before = faults();
    let filled = fill(&broker, "a");
    let faults = faults() - before;
    // 8 MiB are 2,048 pages.
    assert!(
        filled > 30_000 && faults < 50,
        "{filled} messages, {faults} faults"
    );
    assert_eq!(
        take_all(&broker, queue_of(&subscription)).len() as u64,
        filled + 1
    );
    broker.close();
}

/// This test alone of this process locks memory.
#[test]
fn locked_memory_is_that_of_the_broker_and_goes_with_it() {
    let lock = PageOptions {
        lock: true,
        ..PageOptions::default()
    };
    let before = status_bytes("VmLck:");
    let broker = match try_open(4 << 20, lock) {
        Ok(broker) => broker,
        Err(error) => {
            // The test runs where 4 MiB are too many.
            assert_eq!(error.status(), Status::Denied);
            assert!(lock_limit().is_some_and(|limit| limit < 4 << 20));
            return;
        }
    };
    assert_eq!(status_bytes("VmLck:"), before + (4 << 20));
    let queue = queue(&broker, Policy::Backpressure, 1 << 20);
    let subscription = subscribe_on(&broker, "a", "", &queue, 0);
    fill(&broker, "a");
    assert_eq!(
        status_bytes("VmLck:"),
        before + (4 << 20),
        "queues lock nothing more"
    );
    let batch = queue.receive(&broker, 1, 0).unwrap();
    broker.close();
    assert_eq!(
        number_of(batch.messages()[0].payload()),
        0,
        "an open batch stays readable"
    );
    assert_eq!(status_bytes("VmLck:"), before + (4 << 20));
    drop(batch);
    drop((subscription, queue, broker));
    // Other threads of this test may look at the tables in which the queue was.
    until("nothing is locked any more", || {
        fastmq_memory::snapshot::flush();
        status_bytes("VmLck:") == before
    });
}

#[test]
fn huge_pages_are_there_or_an_error_of_open() {
    let huge = PageOptions {
        huge: true,
        ..PageOptions::default()
    };
    let opened = try_open(MEMORY, huge);
    let is_there = opened.is_ok();
    match opened {
        Ok(broker) => {
            let subscription = subscribe(&broker, "a");
            let filled = fill(&broker, "a");
            assert_eq!(
                take_all(&broker, queue_of(&subscription)).len() as u64,
                filled
            );
        }
        Err(error) => {
            assert_eq!(error.status(), Status::Unsupported);
            assert!(
                error.text().contains("vm.nr_hugepages=8"),
                "{}",
                error.text()
            );
        }
    }
    assert!(is_there || !has_transparent_huge_pages());
}

/// Publishes until the broker has no memory left; how many went in.
fn exhaust(broker: &Arc<Broker>, payload: &[u8]) -> u64 {
    let mut queues = Vec::new();
    for number in 0..100 {
        let queue = queue(broker, Policy::Backpressure, 8 << 20);
        queues.push((
            subscribe_on(broker, &format!("full.{number}"), "", &queue, 0),
            queue,
        ));
    }
    let mut count = 0;
    for number in 0..100 {
        let subject = format!("full.{number}");
        loop {
            match publish(broker, &subject, payload) {
                Ok(()) => count += 1,
                Err(error) => {
                    let status = error.status();
                    assert!(matches!(status, Status::Again | Status::NoSpace), "{error}");
                    break;
                }
            }
        }
    }
    let memory = broker.statistics().memory;
    assert!(memory <= MEMORY, "{memory} bytes are used");
    let mut taken = 0;
    for (subscription, queue) in queues {
        for seen in take_all(broker, &queue) {
            assert_eq!(seen.payload, payload);
            taken += 1;
        }
        subscription.unsubscribe();
        broker.close_queue(&queue);
    }
    assert_eq!(taken, count);
    count
}

#[test]
fn the_cap_holds_and_what_was_given_back_is_used_again() {
    let broker = try_open(MEMORY, PREFAULT).unwrap();
    // Blocks first: the pool keeps some of their memory.
    let large = exhaust(&broker, &[8; 20_000]);
    let small = exhaust(&broker, &[7; 100]);
    // Of the 16 MiB, of which lanes and blocks leave the last part that is too small for them.
    assert!(small * 100 > MEMORY / 2, "{small} small");
    assert!(large * 20_000 > MEMORY / 3, "{large} large");
    for round in 0..5 {
        let again = exhaust(&broker, &[9; 100]);
        assert!(again >= small * 9 / 10, "round {round}: {again} of {small}");
    }
    assert!(exhaust(&broker, &[8; 20_000]) >= large * 9 / 10);
    broker.close();
}

#[test]
fn every_policy_works_on_memory_that_was_used_before() {
    let broker = try_open(MEMORY, PREFAULT).unwrap();
    let mut dice = Dice(5);
    for round in 0..30 {
        let queues = [
            queue(&broker, Policy::Backpressure, SMALL << dice.below(8)),
            queue(&broker, Policy::DropOldest, SMALL << dice.below(8)),
            queue(&broker, Policy::DropNewest, SMALL << dice.below(8)),
            queue(&broker, Policy::Latest, 0),
        ];
        let subscriptions =
            [0, 1, 2, 3].map(|which| subscribe_on(&broker, "a.*", "", &queues[which], 0));
        let count = 200_u64;
        for number in 0..count {
            let size = 8 + dice.below(if number % 20 == 0 { 60_000 } else { 300 }) as usize;
            let mut payload = vec![(number + round) as u8; size];
            payload[..8].copy_from_slice(&number.to_le_bytes());
            let subject = format!("a.{}", number % 10);
            while publish(&broker, &subject, &payload).is_err() {
                assert!(
                    !take_all(&broker, &queues[0]).is_empty(),
                    "the others refuse nothing"
                );
            }
            if dice.below(10) == 0 {
                check_payloads(&take_all(&broker, &queues[dice.below(4) as usize]), round);
            }
        }
        for queue in &queues {
            check_payloads(&take_all(&broker, queue), round);
            broker.close_queue(queue);
        }
        drop(subscriptions);
    }
    broker.close();
}

fn check_payloads(seen: &[Seen], round: u64) {
    for one in seen {
        let byte = (one.number() + round) as u8;
        assert!(
            one.payload[8..].iter().all(|seen| *seen == byte),
            "{}",
            one.number()
        );
    }
}
