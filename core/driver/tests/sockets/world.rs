//! A server and a client on one thread, over any tier, and what happens to them.
//!
//! Both are polled in turn, so a test is a sequence and needs no synchronisation. Bytes are
//! copied out of completions, so that a test may answer at once.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fastmq_driver::sockets::{
    Address, Completion, Config, ConnectionId, ConnectionOptions, Faults, ListenerId, SendMode,
    Sending, SimulatedNetwork, SimulatedSockets, Socket, Sockets, Tier, Waited, WatchId, open_tier,
};
use fastmq_driver::{Driver, NullDriver, SimulatedDriver};

/// A test that waits so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an idle turn sleeps at most: nobody is woken by it, so nothing depends on it.
const IDLE_NS: u64 = 1_000_000;

/// On what a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Uring,
    /// As before Linux 6.12.
    UringOlder,
    /// Small buffers, which are often all full.
    UringFew,
    UringBasic,
    /// As before Linux 5.19.
    UringBasicOlder,
    Epoll,
    Simulated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Unix,
    Tcp,
    Tcp6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Server,
    Client,
}

/// A completion that owns its bytes.
#[derive(Debug)]
pub(crate) enum Happened {
    Accepted(Socket),
    AcceptPaused(io::Error),
    Connected(ConnectionId, io::Result<()>),
    Received(ConnectionId, Vec<u8>),
    Descriptors(ConnectionId, Vec<OwnedFd>),
    Ended(ConnectionId, Option<io::Error>),
    Sent(ConnectionId, Vec<u8>, io::Result<()>),
    Closed(ConnectionId),
    ListenerClosed,
    Signalled(WatchId),
}

pub(crate) struct World {
    pub(crate) server: Box<dyn Sockets>,
    pub(crate) client: Box<dyn Sockets>,
    pub(crate) family: Family,
    simulation: Option<(SimulatedDriver, SimulatedNetwork)>,
    directory: PathBuf,
    started: Instant,
    /// What has happened and nobody has looked at yet.
    seen: Vec<(Side, Happened)>,
}

pub(crate) const PLAIN: ConnectionOptions = ConnectionOptions {
    takes_descriptors: false,
};

impl World {
    /// `None` if this machine cannot have it.
    pub(crate) fn new(kind: Kind, family: Family) -> Option<World> {
        Self::with(kind, family, Config::default())
    }

    pub(crate) fn with(kind: Kind, family: Family, mut config: Config) -> Option<World> {
        let tier = match kind {
            Kind::Uring => Tier::Uring,
            Kind::UringOlder => {
                config.uses_newer_features = false;
                Tier::Uring
            }
            Kind::UringFew => {
                config.receive_bytes = 512;
                config.receive_buffers = 2;
                Tier::Uring
            }
            Kind::UringBasic => Tier::UringBasic,
            Kind::UringBasicOlder => {
                config.uses_newer_features = false;
                Tier::UringBasic
            }
            Kind::Epoll => Tier::Epoll,
            Kind::Simulated => {
                let driver = SimulatedDriver::new(1);
                let network = SimulatedNetwork::new(&driver, 1, Faults::default());
                return Some(Self::simulated(driver, network, family, &config));
            }
        };
        let open = || match open_tier(tier, &config) {
            Ok(opened) => {
                assert_eq!(opened.sockets.tier(), tier);
                assert_eq!(opened.report.tier, tier);
                Some(opened.sockets)
            }
            Err(error) => {
                assert_ne!(tier, Tier::Epoll, "{error}");
                println!("skipped: {error}");
                None
            }
        };
        Some(Self::over(open()?, open()?, family, None))
    }

    pub(crate) fn simulated(
        driver: SimulatedDriver,
        network: SimulatedNetwork,
        family: Family,
        config: &Config,
    ) -> World {
        let shard = || Box::new(SimulatedSockets::new(&network, config));
        let (server, client) = (shard(), shard());
        let simulation = Some((driver, network));
        Self::over(server, client, family, simulation)
    }

    fn over(
        server: Box<dyn Sockets>,
        client: Box<dyn Sockets>,
        family: Family,
        simulation: Option<(SimulatedDriver, SimulatedNetwork)>,
    ) -> World {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("fastmq-sockets-{}-{number}", process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        World {
            server,
            client,
            family,
            simulation,
            directory,
            started: Instant::now(),
            seen: Vec::new(),
        }
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.simulation.is_some()
    }

    /// A place to listen at.
    pub(crate) fn address(&self) -> Address {
        match self.family {
            Family::Unix => Address::Unix(self.directory.join("s")),
            Family::Tcp => Address::Tcp("127.0.0.1:0".parse().unwrap()),
            Family::Tcp6 => Address::Tcp("[::1]:0".parse().unwrap()),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        match &self.simulation {
            Some((driver, _)) => driver.monotonic_ns(),
            None => NullDriver::new().monotonic_ns(),
        }
    }

    pub(crate) fn side(&mut self, side: Side) -> &mut dyn Sockets {
        match side {
            Side::Server => self.server.as_mut(),
            Side::Client => self.client.as_mut(),
        }
    }

    /// Lets the server listen; where.
    pub(crate) fn listen(&mut self) -> (ListenerId, Address) {
        let address = self.address();
        let listener = self.server.listen(&address).unwrap();
        (listener, self.server.local_address(listener).unwrap())
    }

    pub(crate) fn connect(&mut self, to: &Address) -> ConnectionId {
        self.client.connect(to, PLAIN).unwrap()
    }

    /// A connection: the server's end and the client's.
    pub(crate) fn pair(&mut self) -> (ConnectionId, ConnectionId) {
        self.pair_with(PLAIN)
    }

    /// As [`pair`](Self::pair); the client's end has these options.
    pub(crate) fn pair_with(&mut self, options: ConnectionOptions) -> (ConnectionId, ConnectionId) {
        let (listener, address) = self.listen();
        let client = self.client.connect(&address, options).unwrap();
        let (mut server, mut is_connected) = (None, false);
        while server.is_none() || !is_connected {
            for (side, happened) in self.turn() {
                match (side, happened) {
                    (Side::Server, Happened::Accepted(socket)) => {
                        server = Some(self.server.adopt(socket, PLAIN).unwrap());
                    }
                    (Side::Client, Happened::Connected(id, result)) => {
                        assert_eq!(id, client);
                        result.unwrap();
                        is_connected = true;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        self.server.close_listener(listener);
        self.until(|side, happened| {
            matches!(happened, Happened::ListenerClosed) && side == Side::Server
        });
        if let Address::Unix(path) = &address
            && !self.is_simulated()
        {
            fs::remove_file(path).unwrap();
        }
        (server.unwrap(), client)
    }

    /// What has happened; if that is nothing, one turn of both.
    pub(crate) fn turn(&mut self) -> Vec<(Side, Happened)> {
        if self.seen.is_empty() {
            self.poll();
        }
        mem::take(&mut self.seen)
    }

    /// One turn of both; moves time on if there is nothing.
    fn poll(&mut self) {
        assert!(self.started.elapsed() < PATIENCE, "the test hangs");
        let count = self.seen.len();
        for side in [Side::Server, Side::Client] {
            let sockets = match side {
                Side::Server => self.server.as_mut(),
                Side::Client => self.client.as_mut(),
            };
            let waited = sockets.wait(0, 0, &mut |_| false).unwrap();
            assert!(
                matches!(waited, Waited::Ready | Waited::TimedOut),
                "{waited:?}"
            );
            take_all(sockets, &mut |it| self.seen.push((side, it)));
        }
        if self.seen.len() == count {
            self.idle();
        }
    }

    fn idle(&mut self) {
        if let Some((driver, network)) = &self.simulation {
            let now_ns = driver.monotonic_ns();
            let next_ns = network.next_arrival_ns();
            driver.advance(next_ns.unwrap_or(now_ns + IDLE_NS) - now_ns);
            return;
        }
        let until_ns = self.now_ns() + IDLE_NS;
        self.server.wait(until_ns, 0, &mut |_| false).unwrap();
    }

    /// Turns until something happens that `is_it`; what that is. The rest stays to be looked at.
    pub(crate) fn until(&mut self, mut is_it: impl FnMut(Side, &Happened) -> bool) -> Happened {
        let mut looked_at = 0;
        loop {
            let mut rest = self.seen[looked_at..].iter();
            if let Some(at) = rest.position(|(side, happened)| is_it(*side, happened)) {
                return self.seen.remove(looked_at + at).1;
            }
            looked_at = self.seen.len();
            self.poll();
        }
    }

    /// Receives so many bytes at one end.
    pub(crate) fn receive(
        &mut self,
        side: Side,
        connection: ConnectionId,
        count: usize,
    ) -> Vec<u8> {
        let mut received = Vec::new();
        while received.len() < count {
            let bytes = self.until(|at, happened| {
                matches!(happened, Happened::Received(id, _) if *id == connection) && at == side
            });
            if let Happened::Received(_, bytes) = bytes {
                received.extend(bytes);
            }
        }
        received
    }

    /// Sends all the bytes and waits until they are sent.
    pub(crate) fn send(&mut self, side: Side, connection: ConnectionId, bytes: &[u8]) {
        let mut buffer = bytes.to_vec();
        let sockets = self.side(side);
        let sending = sockets.send(connection, &mut buffer, SendMode::Batched);
        if sending.unwrap() == Sending::Started {
            self.until(|at, happened| {
                matches!(happened, Happened::Sent(id, _, Ok(())) if *id == connection) && at == side
            });
        }
    }

    /// Closes one end and waits until it is closed.
    pub(crate) fn close(&mut self, side: Side, connection: ConnectionId) {
        self.side(side).close(connection);
        self.until(|at, happened| {
            matches!(happened, Happened::Closed(id) if *id == connection) && at == side
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Takes everything of a turn.
pub(crate) fn take_all(sockets: &mut dyn Sockets, on: &mut dyn FnMut(Happened)) {
    while let Some(completion) = sockets.next() {
        on(match completion {
            Completion::Accepted { socket, .. } => Happened::Accepted(socket),
            Completion::AcceptPaused { error, .. } => Happened::AcceptPaused(error),
            Completion::Connected { connection, result } => Happened::Connected(connection, result),
            Completion::Received { connection, bytes } => {
                assert!(!bytes.is_empty());
                Happened::Received(connection, bytes.to_vec())
            }
            Completion::Descriptors {
                connection,
                descriptors,
            } => Happened::Descriptors(connection, descriptors),
            Completion::Ended { connection, error } => Happened::Ended(connection, error),
            Completion::Sent {
                connection,
                buffer,
                result,
            } => {
                assert!(buffer.is_empty(), "a buffer comes back empty");
                Happened::Sent(connection, buffer, result)
            }
            Completion::Closed { connection } => Happened::Closed(connection),
            Completion::ListenerClosed { .. } => Happened::ListenerClosed,
            Completion::Signalled { watch } => Happened::Signalled(watch),
            other => panic!("{other:?}"),
        });
    }
}
