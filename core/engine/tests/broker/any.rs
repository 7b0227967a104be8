//! One wait over many queues: which one has something, in turn, and who wakes it.

use std::sync::Arc;

use fastmq_engine::any::{QUEUES_MAX, wait_any};
use fastmq_engine::driver::{Driver, SimulatedDriver};
use fastmq_engine::wait::Profile;
use fastmq_engine::{Broker, Delivery, Options, Place, QueueOptions, Result, Status, Subscription};

use crate::steps::{MILLISECOND, PATIENCE_NS, open_with, publish};

/// Queues of one client; queue n is fed by the subject `q.n`.
struct World {
    broker: Arc<Broker>,
    queues: Vec<Arc<Place>>,
    _subscriptions: Vec<Subscription>,
}

impl World {
    fn new(broker: Arc<Broker>, count: usize) -> Self {
        let mut subscriptions = Vec::new();
        let queues = (0..count).map(|number| {
            let queue = broker.open_queue(QueueOptions::default()).unwrap();
            let pattern = format!("q.{number}");
            let subscription = broker.subscribe(
                pattern.as_bytes(),
                b"",
                Delivery::Queue,
                Some(&queue),
                0,
                None,
            );
            subscriptions.push(subscription.unwrap());
            queue
        });
        let queues = queues.collect();
        Self {
            broker,
            queues,
            _subscriptions: subscriptions,
        }
    }

    fn publish(&self, number: usize) {
        publish(&self.broker, &format!("q.{number}"), b"x").unwrap();
    }

    fn wait(&self, timeout_ns: u64) -> Result<usize> {
        let queues = &self.queues;
        wait_any(queues.len(), timeout_ns, |index, look| {
            look(&queues[index], &self.broker)
        })
    }

    fn take(&self, number: usize) -> usize {
        let batch = self.queues[number].receive(&self.broker, 64, 0);
        batch.unwrap().messages().len()
    }
}

fn check(said: Result<usize>, expected: std::result::Result<usize, Status>) {
    assert_eq!(said.map_err(|error| error.status()), expected);
}

fn low_power() -> Options {
    Options {
        wait: Profile::LowPower,
        ..Options::default()
    }
}

#[test]
fn the_queue_that_has_something_is_named_and_queues_take_turns() {
    let world = World::new(open_with(low_power()), 5);
    check(world.wait(0), Err(Status::Again));
    world.publish(3);
    check(world.wait(0), Ok(3));
    check(world.wait(PATIENCE_NS), Ok(3));
    for number in 0..5 {
        world.publish(number);
    }
    for number in [4, 0, 1, 2, 3, 4, 0] {
        check(world.wait(0), Ok(number));
    }
    for number in 0..5 {
        assert!(world.take(number) >= 1);
    }
    check(world.wait(0), Err(Status::Again));
}

#[test]
fn a_wait_sleeps_once_until_its_deadline() {
    let driver = Arc::new(SimulatedDriver::new(1));
    let world = World::new(Broker::open(low_power(), driver.clone()).unwrap(), 100);
    let start_ns = driver.monotonic_ns();
    check(world.wait(7 * MILLISECOND), Err(Status::Timeout));
    assert_eq!(driver.monotonic_ns() - start_ns, 7 * MILLISECOND);
    assert_eq!(driver.counters().parks, 1);
    // For ever, where nobody is left who could publish.
    check(world.wait(u64::MAX), Err(Status::Timeout));
    // Armed queues report whoever came meanwhile.
    world.publish(99);
    assert_eq!(driver.counters().wakes, 1);
    world.publish(99);
    assert_eq!(driver.counters().wakes, 1, "a writer wakes once");
    check(world.wait(MILLISECOND), Ok(99));
}

#[test]
fn a_message_wakes_who_waits_wherever_it_comes() {
    for wait in [Profile::LowPower, Profile::Balanced, Profile::BusyPoll] {
        let options = Options {
            wait,
            ..Options::default()
        };
        let world = World::new(open_with(options), 40);
        std::thread::scope(|scope| {
            let (ask, asked) = std::sync::mpsc::channel::<usize>();
            let world = &world;
            let publisher = scope.spawn(move || {
                for number in asked {
                    world.publish(number);
                }
            });
            for turn in 0..2_000 {
                let number = turn * 7 % 40;
                ask.send(number).unwrap();
                check(world.wait(PATIENCE_NS), Ok(number));
                assert_eq!(world.take(number), 1);
            }
            drop(ask);
            // ThreadSanitizer sees a join, not the end of a scope.
            publisher.join().unwrap();
        });
    }
}

#[test]
fn the_end_of_a_queue_ends_the_wait() {
    let world = World::new(open_with(low_power()), 3);
    std::thread::scope(|scope| {
        let (begun, begin) = std::sync::mpsc::channel();
        let world = &world;
        let waiting = scope.spawn(move || {
            begun.send(()).unwrap();
            world.wait(PATIENCE_NS)
        });
        begin.recv().unwrap();
        world.broker.close_queue(&world.queues[1]);
        check(waiting.join().unwrap(), Err(Status::End));
    });
    world.publish(2);
    check(world.wait(0), Err(Status::End));
    world.broker.close();
    check(world.wait(PATIENCE_NS), Err(Status::End));
}

#[test]
fn an_open_batch_is_misuse_and_so_are_too_many_queues() {
    let world = World::new(open_with(low_power()), 2);
    world.publish(0);
    let batch = world.queues[0].receive(&world.broker, 64, 0).unwrap();
    check(world.wait(0), Err(Status::Misuse));
    drop(batch);
    check(world.wait(0), Err(Status::Again));
    let queue = &world.queues[0];
    for count in [0, QUEUES_MAX + 1] {
        let said = wait_any(count, 0, |_, look| look(queue, &world.broker));
        check(said, Err(Status::Invalid));
    }
    let said = wait_any(QUEUES_MAX, 0, |_, look| look(queue, &world.broker));
    check(said, Err(Status::Again));
}
