//! A simulated network with faults: everything arrives or the end is told, and a seed repeats it.

use std::collections::BTreeMap;

use fastmq_driver::sockets::{Config, Faults, SendMode, SimulatedNetwork, SimulatedSockets};
use fastmq_driver::{SimulatedDriver, SplitMix64};

use crate::echo;
use crate::world::{Family, Happened, PLAIN, Side, World};

fn world(seed: u64, faults: Faults) -> World {
    let driver = SimulatedDriver::new(seed);
    let network = SimulatedNetwork::new(&driver, seed, faults);
    World::simulated(driver, network, Family::Tcp, &Config::default())
}

/// Faults that a seed decides.
fn faults(random: &mut SplitMix64) -> Faults {
    Faults {
        delay_ns_max: random.next_u64() % 5_000_000,
        chunk_bytes_max: 1 + (random.next_u64() % 500) as usize,
        capacity_bytes: 1 + (random.next_u64() % 2000) as usize,
        resets_per_million: 0,
    }
}

#[test]
fn delays_and_partial_reads_and_writes_lose_nothing() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = SplitMix64::new(seed);
        let mode = match random.next_u64() % 2 {
            0 => SendMode::Batched,
            _ => SendMode::Direct,
        };
        let mut world = world(seed, faults(&mut random));
        echo::run(&mut world, 1 + seed % 7, 5000, 700, mode);
    }
}

/// What happens to clients that each send a kilobyte in ten sends; as text.
fn run_with_resets(seed: u64) -> (String, u32) {
    let mut random = SplitMix64::new(seed);
    let mut faults = faults(&mut random);
    faults.resets_per_million = 30_000;
    let mut world = world(seed, faults);
    let (_, address) = world.listen();
    let mut left: BTreeMap<_, u32> = BTreeMap::new();
    for _ in 0..10 {
        left.insert(world.connect(&address), 10);
    }
    let (mut open, mut resets, mut log) = (0, 0, String::new());
    while !left.is_empty() || open > 0 {
        for (side, happened) in world.turn() {
            log += &format!("{} {side:?} {happened:?}\n", world.now_ns());
            match (side, happened) {
                (Side::Server, Happened::Accepted(socket)) => {
                    world.server.adopt(socket, PLAIN).unwrap();
                    open += 1;
                }
                (_, Happened::Ended(id, error)) => {
                    resets += u32::from(error.is_some());
                    world.side(side).close(id);
                }
                (Side::Server, Happened::Closed(_)) => open -= 1,
                (Side::Client, Happened::Closed(id)) => {
                    left.remove(&id);
                }
                (Side::Client, Happened::Connected(id, result)) => {
                    result.unwrap();
                    let _ = world.client.send(id, &mut vec![1; 100], SendMode::Batched);
                }
                (Side::Client, Happened::Sent(id, _, Ok(()))) => {
                    let rest = left.get_mut(&id).unwrap();
                    *rest -= 1;
                    match *rest {
                        0 => world.client.close(id),
                        _ => {
                            let _ = world.client.send(id, &mut vec![1; 100], SendMode::Batched);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    (log, resets)
}

#[test]
fn every_connection_ends_whatever_breaks_and_a_seed_repeats_it() {
    let mut resets = 0;
    for seed in 0..40 {
        println!("seed {seed}");
        let (log, count) = run_with_resets(seed);
        assert_eq!(run_with_resets(seed), (log, count));
        resets += count;
    }
    assert!(resets > 0, "the faults never happened");
}

#[test]
fn a_simulated_wait_moves_the_clock_to_the_next_arrival() {
    let driver = SimulatedDriver::new(1);
    let faults = Faults {
        delay_ns_max: 1_000_000,
        ..Faults::default()
    };
    let network = SimulatedNetwork::new(&driver, 3, faults);
    let mut world = World::simulated(driver, network, Family::Unix, &Config::default());
    let (server, client) = world.pair();
    world.send(Side::Client, client, b"slow");
    let sent_ns = world.now_ns();
    let waited = world.server.wait(u64::MAX, 0, &mut |_| false).unwrap();
    assert_ne!(waited, fastmq_driver::sockets::Waited::TimedOut);
    assert_eq!(world.receive(Side::Server, server, 4), b"slow");
    assert!(world.now_ns() <= sent_ns + 2_000_000);
    // Nothing is on its way and nobody could wake it.
    let error = world.server.wait(u64::MAX, 0, &mut |_| false).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Deadlock);
}

#[test]
fn what_nobody_accepts_ends_with_its_listener() {
    let driver = SimulatedDriver::new(1);
    let network = SimulatedNetwork::new(&driver, 3, Faults::default());
    let mut world = World::simulated(driver, network.clone(), Family::Unix, &Config::default());
    let (_, address) = world.listen();
    let client = world.connect(&address);
    let other = SimulatedSockets::new(&network, &Config::default());
    drop(std::mem::replace(&mut world.server, Box::new(other)));
    world.until(|_, happened| matches!(happened, Happened::Ended(id, None) if *id == client));
    // Its address is free again.
    world.server.listen(&address).unwrap();
}
