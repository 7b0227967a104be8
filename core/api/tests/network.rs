//! What a network does to a connection: a partition that heals, and a reset.
//!
//! The tests run inside a network namespace whose other end is another one, both made by
//! `tests/stages/58-network.sh`, which says in the environment what they are called.

mod process;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastmq::{Client, ConnectOptions, Event, RequesterOptions, Status};

use process::{PATIENCE_NS, Process, echoes};

/// A server on the other side, and a client here that counts its connections and their ends.
struct World {
    process: Process,
    client: Client,
    connected: Arc<AtomicU64>,
    broken: Arc<AtomicU64>,
}

impl World {
    fn new() -> Self {
        let variable = |name| std::env::var(name).expect("58-network.sh runs this");
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &variable("FASTMQ_TEST_NETNS")]);
        there.arg(std::env::current_exe().unwrap());
        let url = format!("tcp://{}:0", variable("FASTMQ_TEST_ADDRESS"));
        let process = Process::run(there, &url, &[]);
        let (connected, broken) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counts = (connected.clone(), broken.clone());
        let options = ConnectOptions {
            backoff_min_ns: 1_000_000,
            on_event: Some(Arc::new(move |event| {
                let count = match event {
                    Event::Connected { .. } => &counts.0,
                    Event::Disconnected { .. } => &counts.1,
                    _ => return,
                };
                count.fetch_add(1, Ordering::SeqCst);
            })),
            ..ConnectOptions::default()
        };
        Self {
            client: Client::connect(&process.urls[0], options).unwrap(),
            process,
            connected,
            broken,
        }
    }
}

fn network(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

#[test]
#[ignore = "needs a network of its own: tests/stages/58-network.sh"]
fn nothing_is_lost_in_a_partition_that_heals() {
    let world = World::new();
    let link = std::env::var("FASTMQ_TEST_LINK").unwrap();
    let heard = world.client.subscribe("numbers").unwrap();
    let options = RequesterOptions {
        in_flight_max: 1000,
        subject: b"echo",
        ..RequesterOptions::default()
    };
    let mut requester = world.client.requester(options).unwrap();
    for round in 0..3u64 {
        network(&["link", "set", &link, "down"]);
        for number in 0..1000u64 {
            let payload = (1000 * round + number).to_le_bytes();
            requester.submit(&payload, number, PATIENCE_NS).unwrap();
            world.client.publish("numbers", payload).unwrap();
        }
        // What is sent meanwhile goes nowhere.
        let nothing = requester.receive(1, 300_000_000).unwrap_err();
        assert_eq!(nothing.status(), Status::Timeout);
        network(&["link", "set", &link, "up"]);
        let mut answered = 0;
        while answered < 1000 {
            let batch = requester.receive(1000, PATIENCE_NS).unwrap();
            for view in batch.messages() {
                assert_eq!(view.status, 0);
                assert_eq!(view.payload(), (1000 * round + view.token).to_le_bytes());
            }
            answered += batch.messages().len();
        }
        let mut next = 1000 * round;
        while next < 1000 * (round + 1) {
            for view in heard.receive(1000, PATIENCE_NS).unwrap().messages() {
                assert_eq!(view.payload(), next.to_le_bytes());
                next += 1;
            }
        }
    }
    assert_eq!(world.connected.load(Ordering::SeqCst), 1);
    assert_eq!(world.broken.load(Ordering::SeqCst), 0);
    drop(requester);
    world.client.close();
}

#[test]
#[ignore = "needs a network of its own: tests/stages/58-network.sh"]
fn a_reset_is_told_and_connected_again() {
    let world = World::new();
    let heard = world.client.subscribe("numbers").unwrap();
    let port = world.process.address(0).port().to_string();
    for round in 1..=5u64 {
        echoes(&world.client, b"before");
        let killed = Command::new("ss")
            .args(["-K", "dport", "=", &port])
            .output();
        assert!(killed.unwrap().status.success());
        // One that is heard shows that the subscription is there again.
        let mut is_heard = false;
        while !is_heard {
            world
                .client
                .publish("numbers", round.to_le_bytes())
                .unwrap();
            match heard.receive(16, 10_000_000) {
                Ok(batch) => {
                    let last = batch.messages().last().unwrap();
                    is_heard = last.payload() == round.to_le_bytes()
                        && world.broken.load(Ordering::SeqCst) >= round;
                }
                Err(error) => assert_eq!(error.status(), Status::Timeout),
            }
        }
        assert!(world.connected.load(Ordering::SeqCst) > round);
    }
    world.client.close();
}
