//! Shards and their clients over a simulated network: a seed decides how bytes are cut and delayed,
//! who reads slowly, who breaks, and what everybody does.
//!
//! A failure names its seed; `FASTMQ_SEED` repeats that one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastmq_engine::driver::sockets::{
    Address, Completion, Config, ConnectionId, ConnectionOptions, Faults, SendMode, Sending,
    SimulatedNetwork, SimulatedSockets, Sockets,
};
use fastmq_engine::driver::{Driver, SimulatedDriver, SplitMix64};
use fastmq_engine::memory::Policy;
use fastmq_engine::server::{self, ServerOptions, Shard};
use fastmq_engine::{Broker, Subscription};
use fastmq_wire::{ControlDraft, Draft, Kind, Limits, Subject};

use crate::peer::{Heard, Peer};
use crate::steps::*;

const SEEDS: u64 = 60;
const STEPS: u64 = 1500;
const SECOND: u64 = 1_000_000_000;
const BACKPRESSURE: u64 = 1;
/// What a shard may keep for each connection here: its vector, a copy of the largest frame.
const BUFFERED_MAX: usize = 8 << 20;

/// A client, its model, and what it has seen.
struct Client {
    name: u64,
    id: ConnectionId,
    peer: Peer,
    is_sending: bool,
    is_connected: bool,
    /// Its connection has ended, by whatever.
    is_gone: bool,
    is_slow: bool,
    /// It has said that it ends.
    is_leaving: bool,
    next_number: u64,
    next_operation: u32,
    /// Publishes that were not answered: operation and number.
    open: BTreeMap<u32, u64>,
    acknowledged: BTreeSet<u64>,
    asked: BTreeMap<u32, u32>,
    /// Since when its subscription has been acknowledged: the first number of each publisher that
    /// was published after that.
    sees_from: Option<BTreeMap<u64, u64>>,
    /// What it has received of each publisher.
    seen: BTreeMap<u64, Vec<u64>>,
}

struct World {
    random: SplitMix64,
    driver: Arc<SimulatedDriver>,
    network: SimulatedNetwork,
    broker: Arc<Broker>,
    /// The first one accepts.
    shards: Vec<Shard>,
    address: Address,
    sockets: SimulatedSockets,
    clients: Vec<Client>,
    gone: Vec<Client>,
    local: Subscription,
    local_seen: BTreeMap<u64, u64>,
    next_name: u64,
    /// When something last moved.
    active_ns: u64,
}

fn faults(random: &mut SplitMix64) -> Faults {
    let mut pick = |choices: &[u64]| choices[random.next_u64() as usize % choices.len()];
    Faults {
        delay_ns_max: pick(&[0, 1000, 50_000_000]),
        chunk_bytes_max: pick(&[3, 40, 1000, usize::MAX as u64]) as usize,
        capacity_bytes: pick(&[64, 2000, 64 * 1024]) as usize,
        resets_per_million: pick(&[0, 0, 3000]),
    }
}

/// Shards of one server on a simulated network, which listens.
fn open_shards(
    broker: &Arc<Broker>,
    network: &SimulatedNetwork,
    config: &Config,
    options: &ServerOptions,
    count: u64,
    address: &Address,
) -> Vec<Shard> {
    let open = |_| {
        let sockets = SimulatedSockets::new(network, config);
        Shard::new(broker, Box::new(sockets), options.clone()).unwrap()
    };
    let mut shards: Vec<Shard> = (0..count).map(open).collect();
    let others: Vec<_> = shards[1..].iter().map(Shard::inbox).collect();
    shards[0].spread_over(&others);
    shards[0].listen(address).unwrap();
    shards
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let (broker, driver) = open_simulated(seed);
        let faults = faults(&mut random);
        let network = SimulatedNetwork::new(&driver, seed, faults);
        let config = Config {
            connections_max: 32,
            ..Config::default()
        };
        let options = ServerOptions {
            connections_max: 16,
            ..ServerOptions::default()
        };
        let address = Address::Unix("/simulated".into());
        let count = 1 + seed % 3;
        let shards = open_shards(&broker, &network, &config, &options, count, &address);
        let sockets = SimulatedSockets::new(&network, &config);
        let local = subscribe(&broker, "n.*");
        Self {
            random,
            driver,
            network,
            broker,
            shards,
            address,
            sockets,
            clients: Vec::new(),
            gone: Vec::new(),
            local,
            local_seen: BTreeMap::new(),
            next_name: 1,
            active_ns: 0,
        }
    }

    fn below(&mut self, max: u64) -> u64 {
        self.random.next_u64() % max
    }

    fn connect(&mut self) {
        let limits = Limits {
            alias_max: self.below(3) as u32,
            alias_bytes_max: 100,
            frame_max: 8192,
            credit: 8192 << self.below(4),
            ..Limits::default()
        };
        self.connect_with(limits);
    }

    fn connect_with(&mut self, limits: Limits) {
        let mut peer = Peer::with(limits);
        peer.hello();
        let options = ConnectionOptions::default();
        let id = self.sockets.connect(&self.address, options).unwrap();
        let name = self.next_name;
        self.next_name += 1;
        self.clients.push(Client {
            name,
            id,
            peer,
            is_sending: false,
            is_connected: false,
            is_gone: false,
            is_slow: false,
            is_leaving: false,
            next_number: 0,
            next_operation: 10,
            open: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            asked: BTreeMap::new(),
            sees_from: None,
            seen: BTreeMap::new(),
        });
    }

    /// One thing that some client does.
    fn act(&mut self) {
        if self.clients.len() < 6 && self.below(8) == 0 {
            self.connect();
        }
        if self.clients.is_empty() {
            return;
        }
        let at = self.below(self.clients.len() as u64) as usize;
        let what = self.below(100);
        let size = self.below(300) as usize;
        let client = &mut self.clients[at];
        if client.is_gone || client.is_leaving {
            return;
        }
        match what {
            0..50 => {
                let number = client.next_number;
                client.next_number += 1;
                let operation = if what < 40 { client.next_operation } else { 0 };
                client.next_operation += 1;
                if operation > 0 {
                    client.open.insert(operation, number);
                }
                let mut payload = number.to_le_bytes().to_vec();
                payload.resize(8 + size, 0);
                let subject = format!("n.{}", client.name);
                if what.is_multiple_of(2) {
                    client.peer.publish(operation, &subject, &payload);
                    return;
                }
                // By an alias that stood for a subject which nobody is to see anything of.
                client.peer.alias(0, &format!("void.{}", client.name));
                let void = u64::MAX.to_le_bytes();
                let by_alias = |payload| Draft::message(0, Subject::Alias(0), payload);
                client.peer.say(&by_alias(&void));
                client.peer.alias(0, &subject);
                let publish = Draft::message(operation, Subject::Alias(0), &payload);
                client.peer.say(&publish);
            }
            50..60 => {
                let correlation = client.next_operation;
                client.next_operation += 1;
                client.asked.insert(correlation, 0);
                let subjects: [&[u8]; 3] = [b"echo", b"nobody", b"deaf"];
                let subject = Subject::Text(subjects[what as usize % 3]);
                let mut draft = Draft::request(correlation, subject, b"?");
                draft.ttl_ns = Some(2 * SECOND);
                client.peer.say(&draft);
            }
            60..66 if client.sees_from.is_none() => {
                client.peer.subscribe_as(1, "n.*", BACKPRESSURE, 0);
                client.sees_from = Some(BTreeMap::new());
            }
            66..72 => client.peer.join(20 + what as u32, 5, "echo", "g"),
            72..74 => client.peer.subscribe(30 + what as u32, 6, "deaf"),
            74..80 => {
                let is_slow = !client.is_slow;
                client.is_slow = is_slow;
                let _ = self.sockets.set_receiving(client.id, !is_slow);
            }
            80 => {
                client.is_leaving = true;
                client.peer.pair(Kind::Drain, 0, 1);
            }
            // Says no more, in the middle of whatever it is.
            81 if !client.is_sending && client.is_connected => {
                client.is_gone = true;
                let _ = self.sockets.finish(client.id);
            }
            82 => {
                client.is_gone = true;
                self.sockets.close(client.id);
            }
            83 => client.peer.out.extend([0xff; 40]),
            _ => {}
        }
    }

    /// Moves bytes, and time if nothing else moves.
    fn turn(&mut self, may_wait: bool) {
        for shard in &mut self.shards {
            shard.turn(0, &|| false).unwrap();
        }
        let waited = self.sockets.wait(0, 0, &mut |_| false);
        waited.unwrap();
        let mut is_quiet = true;
        while let Some(completion) = self.sockets.next() {
            is_quiet = false;
            match completion {
                Completion::Connected { connection, result } => {
                    let client = known(&mut self.clients, connection);
                    client.is_connected = result.is_ok();
                    client.is_gone |= result.is_err();
                }
                Completion::Received { connection, bytes } => {
                    known(&mut self.clients, connection).peer.hear(bytes);
                }
                Completion::Ended { connection, .. } => {
                    known(&mut self.clients, connection).is_gone = true;
                    self.sockets.close(connection);
                }
                Completion::Sent {
                    connection, result, ..
                } => {
                    let client = known(&mut self.clients, connection);
                    client.is_sending = false;
                    client.is_gone |= result.is_err();
                }
                Completion::Closed { connection } => {
                    let at = self
                        .clients
                        .iter()
                        .position(|it| it.id == connection)
                        .unwrap();
                    let mut client = self.clients.swap_remove(at);
                    client.is_gone = true;
                    self.gone.push(client);
                }
                other => panic!("{other:?}"),
            }
        }
        self.listen_to_clients();
        for client in &mut self.clients {
            let may_send = client.is_connected && !client.is_sending && !client.is_gone;
            if !may_send || client.peer.out.is_empty() {
                continue;
            }
            is_quiet = false;
            let mut bytes = std::mem::take(&mut client.peer.out);
            match self.sockets.send(client.id, &mut bytes, SendMode::Batched) {
                Ok(Sending::Started) => client.is_sending = true,
                Ok(Sending::Done) => {}
                Err(_) => client.is_gone = true,
            }
        }
        self.look_at_local();
        let most = BUFFERED_MAX * 32;
        for shard in &mut self.shards {
            assert!(shard.buffered_bytes() < most, "memory is bounded");
        }
        let now_ns = self.driver.monotonic_ns();
        if !is_quiet {
            self.active_ns = now_ns;
        } else if may_wait {
            let next_ns = self.network.next_arrival_ns().unwrap_or(now_ns + 1_000_000);
            self.driver.advance((next_ns - now_ns).clamp(1, 10_000_000));
        }
    }

    fn listen_to_clients(&mut self) {
        let numbers: BTreeMap<u64, u64> = self
            .clients
            .iter()
            .chain(&self.gone)
            .map(|client| (client.name, client.next_number))
            .collect();
        for client in self.clients.iter_mut().chain(&mut self.gone) {
            while let Some(heard) = client.peer.heard.pop_front() {
                match heard {
                    Heard::Message(got) if got.subscription == 1 => {
                        let name: u64 = text(&got.subject)[2..].parse().unwrap();
                        let number = number_in(&got.payload);
                        assert_ne!(number, u64::MAX, "another subject's");
                        let seen = client.seen.entry(name).or_default();
                        assert!(seen.last().is_none_or(|last| *last < number), "order");
                        assert_eq!(got.lost, 0);
                        seen.push(number);
                    }
                    Heard::Request(got) if got.subject == b"echo" => {
                        client.peer.reply(got.token, b"!");
                    }
                    Heard::Reply {
                        correlation,
                        status,
                        ..
                    } => {
                        let ends = client.asked.get_mut(&correlation).unwrap();
                        *ends += 1;
                        assert_eq!(*ends, 1, "one answer for {correlation}, {status}");
                    }
                    Heard::Ack(1_000_001) => client.sees_from = Some(numbers.clone()),
                    Heard::Ack(1) => {
                        client.peer.pair(Kind::Close, 0, 0);
                    }
                    Heard::Ack(operation) => {
                        client.acknowledged.extend(client.open.remove(&operation));
                    }
                    Heard::Ping(value) => {
                        drop(ControlDraft::whole(&mut client.peer.out, Kind::Pong, value));
                    }
                    Heard::Error(refusal) if refusal.is_fatal => client.is_leaving = true,
                    Heard::Error(refusal) => {
                        client.open.remove(&refusal.operation);
                    }
                    _ => {}
                }
            }
        }
    }

    fn look_at_local(&mut self) {
        let place = self.local.queue().unwrap();
        while let Ok(batch) = place.receive(&self.broker, 64, 0) {
            for view in batch.messages() {
                let name: u64 = text(view.subject())[2..].parse().unwrap();
                let number = number_in(view.payload());
                let last = self.local_seen.insert(name, number);
                assert!(
                    last.is_none_or(|last| last < number),
                    "order in the process"
                );
            }
        }
    }

    /// Everybody reads, and nobody does anything new, until all is still.
    fn settle(&mut self) {
        for client in &mut self.clients {
            let _ = self.sockets.set_receiving(client.id, true);
        }
        // Longer than a publish waits, shorter than the silence that a PING breaks.
        self.active_ns = self.driver.monotonic_ns();
        while self.driver.monotonic_ns() < self.active_ns + 12 * SECOND {
            self.turn(true);
        }
    }

    /// What must hold of those who are still there.
    fn check(&self) {
        let all = || self.clients.iter().chain(&self.gone);
        for client in self
            .clients
            .iter()
            .filter(|it| !it.is_gone && !it.is_leaving)
        {
            assert!(
                client.open.is_empty(),
                "client {} waits for acks",
                client.name
            );
            let open = client.asked.iter().find(|(_, ends)| **ends != 1);
            assert_eq!(open, None, "each request of client {} ends", client.name);
            let Some(from) = &client.sees_from else {
                continue;
            };
            assert!(!from.is_empty(), "its subscription is acknowledged");
            for publisher in all() {
                // Who came later is seen from its first.
                let first = from.get(&publisher.name).copied();
                let is_later = from.keys().all(|name| *name < publisher.name);
                let Some(first) = first.or(is_later.then_some(0)) else {
                    continue;
                };
                let seen = client.seen.get(&publisher.name);
                let seen: BTreeSet<u64> = seen.into_iter().flatten().copied().collect();
                for number in publisher.acknowledged.range(first..) {
                    let says = "acknowledged, and not delivered";
                    assert!(
                        seen.contains(number),
                        "{} of {} {says}",
                        number,
                        publisher.name
                    );
                }
            }
        }
    }
}

fn known(clients: &mut [Client], id: ConnectionId) -> &mut Client {
    clients.iter_mut().find(|client| client.id == id).unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn number_in(payload: &[u8]) -> u64 {
    u64::from_le_bytes(*payload.first_chunk().unwrap())
}

fn run(seed: u64) -> (u64, u64) {
    let mut world = World::new(seed);
    for _ in 0..4 {
        world.connect();
    }
    for _ in 0..STEPS {
        world.act();
        let may_wait = world.below(4) == 0;
        world.turn(may_wait);
    }
    world.settle();
    world.check();
    let now_ns = world.driver.monotonic_ns();
    for shard in &mut world.shards {
        shard.drain(now_ns + SECOND);
    }
    let end_ns = now_ns + SECOND + 3 * server::LINGER_NS;
    while !world.shards.iter().all(Shard::is_done) {
        assert!(world.driver.monotonic_ns() < end_ns, "the drain ends");
        world.turn(true);
    }
    let statistics = world.broker.statistics();
    assert_eq!(statistics.subscriptions, 1, "that of this process");
    let delivered = world.clients.iter().chain(&world.gone);
    let delivered = delivered
        .flat_map(|it| it.seen.values())
        .map(|seen| seen.len() as u64);
    (delivered.sum(), world.gone.len() as u64)
}

#[test]
fn whatever_the_network_does_promises_hold() {
    let only = std::env::var("FASTMQ_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let seeds = only.map_or(1..SEEDS + 1, |seed: u64| seed..seed + 1);
    let (mut delivered, mut gone) = (0, 0);
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| run(seed));
        match ran {
            Ok((more, broken)) => (delivered, gone) = (delivered + more, gone + broken),
            Err(_) => panic!("FASTMQ_SEED={seed} cargo test -p fastmq-engine --test server shard"),
        }
    }
    if only.is_none() {
        assert!(
            delivered > 1000 && gone > 50,
            "{delivered} deliveries, {gone} ends"
        );
    }
}

/// A world without faults and clients.
fn still(options: &ServerOptions, shards: u64) -> World {
    still_over(Faults::default(), options, shards)
}

fn still_over(network: Faults, options: &ServerOptions, shards: u64) -> World {
    let mut world = World::new(1);
    world.network = SimulatedNetwork::new(&world.driver, 1, network);
    let config = Config {
        connections_max: 512,
        ..Config::default()
    };
    let (broker, network) = (&world.broker, &world.network);
    world.shards = open_shards(broker, network, &config, options, shards, &world.address);
    world.sockets = SimulatedSockets::new(network, &config);
    world
}

impl World {
    fn counts(&self) -> Vec<u32> {
        self.shards.iter().map(Shard::connection_count).collect()
    }
}

#[test]
fn one_connection_too_many_is_told_and_the_others_go_on() {
    for shards in 1..=3 {
        one_too_many(shards);
    }
}

fn one_too_many(shards: u64) {
    let options = ServerOptions {
        connections_max: 2,
        ..ServerOptions::default()
    };
    let mut world = still(&options, shards);
    for _ in 0..2 {
        world.connect();
    }
    (0..20).for_each(|_| world.turn(true));
    world.connect();
    (0..20).for_each(|_| world.turn(true));
    assert!(
        world
            .clients
            .iter()
            .chain(&world.gone)
            .any(|it| it.name == 3 && it.is_leaving)
    );
    world.clients[0]
        .peer
        .publish(40, "n.1", &7_u64.to_le_bytes());
    world.clients[0].open.insert(40, 7);
    (0..20).for_each(|_| world.turn(true));
    assert!(world.clients[0].acknowledged.contains(&7));
    let until_ns = world.driver.monotonic_ns() + 2 * server::LINGER_NS;
    while world.driver.monotonic_ns() < until_ns {
        world.turn(true);
    }
    assert_eq!(world.counts().iter().sum::<u32>(), 2);
    // Far too many are closed without a word.
    for _ in 0..2 + server::CONNECTIONS_REFUSED_MAX {
        world.connect();
    }
    (0..20).for_each(|_| world.turn(true));
    let told = |it: &&Client| it.name > 3 && it.is_leaving;
    let told = world.clients.iter().chain(&world.gone).filter(told).count();
    assert_eq!(told as u32, server::CONNECTIONS_REFUSED_MAX);
    let speechless = |it: &&Client| it.name > 3 && !it.is_leaving;
    assert_eq!(world.gone.iter().filter(speechless).count(), 2);
}

#[test]
fn connections_are_spread_evenly_and_what_they_say_crosses_shards() {
    let mut world = still(&ServerOptions::default(), 3);
    for _ in 0..6 {
        world.connect_with(Limits::default());
        (0..20).for_each(|_| world.turn(true));
    }
    assert_eq!(world.counts(), [2, 2, 2]);
    for client in &mut world.clients {
        client.peer.subscribe_as(1, "n.*", BACKPRESSURE, 0);
    }
    (0..20).for_each(|_| world.turn(true));
    for number in 0..100_u64 {
        for client in &mut world.clients {
            let subject = format!("n.{}", client.name);
            client.peer.publish(0, &subject, &number.to_le_bytes());
        }
    }
    (0..50).for_each(|_| world.turn(true));
    for client in &world.clients {
        assert_eq!(client.seen.len(), 6);
        assert!(
            client
                .seen
                .values()
                .all(|seen| *seen == (0..100).collect::<Vec<_>>())
        );
    }
    let statistics = world.broker.statistics();
    assert_eq!(statistics.published, 600);
    assert_eq!(statistics.delivered, 600 * 7);
    // Whoever comes takes the place of whoever has left.
    let client = &world.clients[1];
    world.sockets.close(client.id);
    (0..20).for_each(|_| world.turn(true));
    assert_eq!(world.counts(), [2, 1, 2]);
    world.connect_with(Limits::default());
    (0..20).for_each(|_| world.turn(true));
    assert_eq!(world.counts(), [2, 2, 2]);
}

#[test]
fn a_shard_that_has_ended_is_given_no_connection() {
    let mut world = still(&ServerOptions::default(), 2);
    let first = world.shards.remove(0);
    drop(std::mem::replace(&mut world.shards, vec![first]));
    for _ in 0..3 {
        world.connect_with(Limits::default());
    }
    (0..20).for_each(|_| world.turn(true));
    assert_eq!(world.counts(), [3]);
    assert!(
        world
            .clients
            .iter()
            .all(|it| !it.is_gone && it.is_connected)
    );
}

/// A world without faults, and a client for each of `limits`, which are ready.
fn calm(limits: &[Limits]) -> World {
    let mut world = still(&ServerOptions::default(), 1);
    for limits in limits {
        world.connect_with(*limits);
    }
    (0..20).for_each(|_| world.turn(true));
    world
}

#[test]
fn connections_of_a_shard_are_given_messages_past_their_queues() {
    let limits = Limits {
        alias_max: 8,
        alias_bytes_max: 100,
        ..Limits::default()
    };
    let no_aliases = Limits {
        alias_max: 0,
        ..limits
    };
    let mut world = calm(&[limits, limits, no_aliases]);
    for client in &mut world.clients[1..] {
        client.peer.subscribe_as(1, "n.*", BACKPRESSURE, 0);
    }
    (0..20).for_each(|_| world.turn(true));
    // The subscription of the process has a queue that a lock is taken for until the writer has a
    // lane of its own.
    world.clients[0].peer.alias(3, "n.1");
    for number in 0..100_u64 {
        let payload = number.to_le_bytes();
        let draft = Draft::message(0, Subject::Alias(3), &payload);
        world.clients[0].peer.say(&draft);
    }
    (0..20).for_each(|_| world.turn(true));
    let locks = world.broker.statistics().locks;
    let delivered = world.broker.statistics().delivered;
    for number in 100..200_u64 {
        let payload = number.to_le_bytes();
        let draft = Draft::message(0, Subject::Alias(3), &payload);
        world.clients[0].peer.say(&draft);
    }
    (0..20).for_each(|_| world.turn(true));
    let statistics = world.broker.statistics();
    assert_eq!(statistics.locks, locks);
    assert_eq!(statistics.delivered, delivered + 3 * 100);
    assert_eq!(statistics.published, 200);
    for client in &world.clients[1..] {
        assert_eq!(client.seen[&1], (0..200).collect::<Vec<_>>());
    }
    assert_eq!(world.local_seen[&1], 199);
}

#[test]
fn many_connections_have_their_turn_one_after_the_other_and_all_in_time() {
    let mut world = calm(&[]);
    let all = 2 * server::TURN_SESSIONS + 40;
    for _ in 0..all {
        world.connect_with(Limits::default());
        (0..4).for_each(|_| world.turn(true));
    }
    for client in &mut world.clients {
        client.peer.subscribe_as(1, "n.*", BACKPRESSURE, 0);
    }
    (0..50).for_each(|_| world.turn(true));
    let served = |world: &World| {
        world
            .clients
            .iter()
            .filter(|it| !it.seen.is_empty())
            .count()
    };
    world.clients[0]
        .peer
        .publish(0, "n.1", &7_u64.to_le_bytes());
    // No time passes, so nothing but the turns themselves brings the others theirs.
    let mut before = 0;
    let mut turns = 0;
    while before < all {
        world.turn(false);
        let now = served(&world);
        assert!(
            now - before <= server::TURN_SESSIONS,
            "{now} after {before}"
        );
        turns += usize::from(now > before);
        before = now;
    }
    assert_eq!(turns, 3);
    assert!(world.clients.iter().all(|it| it.seen[&1] == [7]));
}

#[test]
fn what_a_queue_has_beyond_one_send_follows_though_that_was_done_at_once() {
    const MESSAGES: u64 = 1000;
    let network = Faults {
        capacity_bytes: 8 << 20,
        ..Faults::default()
    };
    let mut world = still_over(network, &ServerOptions::default(), 1);
    world.connect_with(Limits {
        credit: 8 << 20,
        frame_max: 8192,
        ..Limits::default()
    });
    (0..20).for_each(|_| world.turn(true));
    let client = &mut world.clients[0];
    client.peer.subscribe_as(1, "n.*", BACKPRESSURE, 4 << 20);
    (0..20).for_each(|_| world.turn(true));
    for number in 0..MESSAGES {
        let mut payload = [0; 1024];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        publish(&world.broker, "n.1", &payload).unwrap();
        world.look_at_local();
    }
    // No time passes, so no clock finds the rest.
    (0..20).for_each(|_| world.turn(false));
    let seen = &world.clients[0].seen[&1];
    assert_eq!(*seen, (0..MESSAGES).collect::<Vec<_>>());
}

#[test]
fn publishes_that_wait_for_a_slow_connection_keep_order_and_subject() {
    const MESSAGES: u64 = 10_000;
    let limits = Limits {
        alias_max: 8,
        alias_bytes_max: 100,
        ..Limits::default()
    };
    let (credit, frame_max) = (100_000, 8192);
    let slow = Limits {
        credit,
        frame_max,
        ..limits
    };
    let mut world = calm(&[limits, slow]);
    let slow = &mut world.clients[1].peer;
    slow.grants = false;
    slow.subscribe_as(1, "n.*", BACKPRESSURE, 64 << 10);
    (0..20).for_each(|_| world.turn(true));
    for number in 0..MESSAGES {
        let peer = &mut world.clients[0].peer;
        if number % 1000 == 0 {
            peer.alias(0, &format!("n.{}", 1 + number / 1000));
        }
        let mut payload = [0; 80];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        peer.say(&Draft::message(0, Subject::Alias(0), &payload));
    }
    (0..20).for_each(|_| world.turn(true));
    let seen = |world: &World| world.clients[1].seen.values().map(Vec::len).sum::<usize>();
    assert!(
        seen(&world) < 1100,
        "{} with credit for 1,000",
        seen(&world)
    );
    // Within its time, as fast as there is credit.
    for step in 2..=20 {
        world.clients[1].peer.grant(step * credit);
        (0..20).for_each(|_| world.turn(true));
    }
    for (name, seen) in &world.clients[1].seen {
        let first = (name - 1) * 1000;
        assert_eq!(*seen, (first..first + 1000).collect::<Vec<_>>());
    }
    assert_eq!(seen(&world), MESSAGES as usize);
}

#[test]
fn a_queue_that_has_room_again_wakes_the_shards_that_wait_for_it() {
    let mut world = still(&ServerOptions::default(), 2);
    let full = queue(&world.broker, Policy::Backpressure, 4096);
    let _subscription = subscribe_on(&world.broker, "full.*", "", &full, 0);
    for _ in 0..2 {
        world.connect_with(Limits::default());
    }
    (0..20).for_each(|_| world.turn(true));
    let each = 1000_u64;
    for number in 0..each {
        for client in &mut world.clients {
            let subject = format!("full.{}", client.name);
            client.peer.publish(0, &subject, &number.to_le_bytes());
        }
    }
    // No time passes from here on, so no clock can help.
    (0..50).for_each(|_| world.turn(false));
    let mut seen: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    let mut rounds = 0;
    while let Ok(batch) = full.receive(&world.broker, 64, 0) {
        for view in batch.messages() {
            let seen = seen.entry(view.subject().to_vec()).or_default();
            seen.push(number_in(view.payload()));
        }
        drop(batch);
        (0..4).for_each(|_| world.turn(false));
        rounds += 1;
    }
    assert!(rounds > 10, "the queue was full: {rounds}");
    assert_eq!(seen.len(), 2);
    assert!(
        seen.values()
            .all(|seen| *seen == (0..each).collect::<Vec<_>>())
    );
}

#[test]
fn large_messages_for_many_subscriptions_of_a_connection_wait_in_their_queues() {
    const SUBSCRIPTIONS: u32 = 50;
    let mut world = still(&ServerOptions::default(), 1);
    for _ in 0..2 {
        world.connect_with(Limits::default());
    }
    (0..20).for_each(|_| world.turn(true));
    for number in 1..=SUBSCRIPTIONS {
        let peer = &mut world.clients[1].peer;
        peer.subscribe_as(10 + number, "large", BACKPRESSURE, 4 << 20);
    }
    (0..20).for_each(|_| world.turn(true));
    let id = world.clients[1].id;
    world.sockets.set_receiving(id, false).unwrap();
    world.clients[0].peer.publish(0, "large", &vec![7; 1 << 20]);
    (0..20).for_each(|_| world.turn(true));
    assert!(world.shards[0].buffered_bytes() < 8 << 20);
    assert_eq!(world.broker.statistics().published, 1);
}
