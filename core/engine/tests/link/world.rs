//! One client and one peer on a simulated network, on one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastmq_engine::driver::sockets::{Address, Config, Faults, SimulatedNetwork, SimulatedSockets};
use fastmq_engine::driver::{Driver, SimulatedDriver};
use fastmq_engine::link::{self, ConnectOptions, Drive, Event};
use fastmq_engine::{Broker, Status};

use crate::peer::Peer;
use crate::steps::{MILLISECOND, Mutex};

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Connected {
        is_again: bool,
        is_other_instance: bool,
        subscriptions: usize,
    },
    Disconnected(Status, String, u64),
    Refused(String, Status),
    Unsubscribed(u32, Status),
    Gap(u32, u64),
    Slow(u64),
    Limit(String),
    Draining,
}

impl Told {
    /// Publishes that are lost by this.
    pub(crate) fn unsent(&self) -> u64 {
        match self {
            Self::Disconnected(_, _, unsent) => *unsent,
            _ => 0,
        }
    }
}

pub(crate) struct World {
    pub(crate) driver: Arc<SimulatedDriver>,
    pub(crate) network: SimulatedNetwork,
    pub(crate) broker: Arc<Broker>,
    pub(crate) drive: Drive,
    pub(crate) sockets: SimulatedSockets,
    pub(crate) peers: Vec<Peer>,
    told: Arc<Mutex<Vec<Told>>>,
    pub(crate) disconnected: Arc<AtomicU64>,
}

/// What most tests have.
pub(crate) fn options() -> ConnectOptions {
    ConnectOptions {
        operation_timeout_ns: 0,
        ..ConnectOptions::default()
    }
}

fn told_of(event: &Event<'_>) -> Option<Told> {
    Some(match event {
        Event::Connected {
            is_again,
            is_other_instance,
            subscriptions,
            ..
        } => Told::Connected {
            is_again: *is_again,
            is_other_instance: *is_other_instance,
            subscriptions: *subscriptions,
        },
        Event::Disconnected {
            status,
            why,
            unsent,
        } => Told::Disconnected(*status, (*why).to_owned(), *unsent),
        Event::Refused {
            subject, status, ..
        } => Told::Refused(String::from_utf8_lossy(subject).into_owned(), *status),
        Event::Unsubscribed {
            subscription,
            status,
            ..
        } => Told::Unsubscribed(*subscription, *status),
        Event::Gap {
            subscription,
            messages,
        } => Told::Gap(*subscription, *messages),
        Event::Slow { bytes } => Told::Slow(*bytes),
        Event::Limit { why } => Told::Limit((*why).to_owned()),
        Event::Draining => Told::Draining,
        _ => return None,
    })
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, Faults::default(), options(), 1)
    }

    pub(crate) fn with(
        seed: u64,
        faults: Faults,
        mut options: ConnectOptions,
        peers: usize,
    ) -> Self {
        let driver = Arc::new(SimulatedDriver::new(seed));
        let network = SimulatedNetwork::new(&driver, seed, faults);
        let sockets = || SimulatedSockets::new(&network, &Config::default());
        let (mut all, mut urls) = (Vec::new(), Vec::new());
        for _ in 0..peers {
            let address = Address::Tcp("127.0.0.1:0".parse().unwrap());
            let (peer, address) = Peer::new(Box::new(sockets()), &address);
            all.push(peer);
            urls.push(address.to_string());
        }
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let disconnected = Arc::new(AtomicU64::new(0));
        let (tell, count) = (told.clone(), disconnected.clone());
        options.on_event = Some(Arc::new(move |event| {
            if let Event::Disconnected { .. } = event {
                count.fetch_add(1, Ordering::Relaxed);
            }
            tell.lock().unwrap().extend(told_of(event));
        }));
        let (broker, drive) = link::open(&urls.join(","), options, driver.clone()).unwrap();
        let sockets = sockets();
        drive.attach_simulated(&sockets);
        Self {
            driver,
            broker,
            drive,
            sockets,
            peers: all,
            told,
            disconnected,
            network,
        }
    }

    /// One more server on the network, and where.
    pub(crate) fn add_peer(&mut self) -> String {
        let sockets = SimulatedSockets::new(&self.network, &Config::default());
        let address = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let (peer, address) = Peer::new(Box::new(sockets), &address);
        self.peers.push(peer);
        address.to_string()
    }

    /// A world whose client is connected.
    pub(crate) fn connected(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.until("connected", |world| world.peers[0].current().is_some());
        world.settle();
        world
    }

    pub(crate) fn peer(&mut self) -> &mut Peer {
        &mut self.peers[0]
    }

    /// Everybody has a turn; nobody waits.
    pub(crate) fn step(&mut self) {
        self.drive.turn(&mut self.sockets, 0, 0).unwrap();
        for peer in &mut self.peers {
            peer.turn(0);
        }
    }

    /// The same, and time goes on to the next arrival, a millisecond at most.
    pub(crate) fn step_on(&mut self) {
        self.step();
        let now_ns = self.driver.monotonic_ns();
        let next_ns = self.network.next_arrival_ns().unwrap_or(u64::MAX);
        let until_ns = next_ns.clamp(now_ns + 1, now_ns + MILLISECOND);
        self.driver.advance(until_ns - now_ns);
    }

    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        for _ in 0..200_000 {
            if is_so(self) {
                return;
            }
            self.step_on();
        }
        panic!("never {what}; told {:?}", self.told());
    }

    /// Lets everything arrive.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20 {
            self.step_on();
        }
    }

    /// Lets time go by, in steps of which each is looked at.
    pub(crate) fn pass(&mut self, ns: u64) {
        let end_ns = self.driver.monotonic_ns() + ns;
        while self.driver.monotonic_ns() < end_ns {
            self.driver.advance(50 * MILLISECOND);
            self.step();
        }
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}
