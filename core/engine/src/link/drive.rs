//! The link's turns: connecting to one server after the other, sending, receiving, waiting, ending.
//!
//! A turn sends what waits, waits for something to happen, and deals with it. `helm.rs` says which
//! thread runs turns; a simulation runs them itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use fastmq_driver::sockets::{
    Completion, Config, ConnectionId, ConnectionOptions, Look, SendMode, Sending, Sockets, Waited,
};
use fastmq_driver::{Driver, FOREVER_NS};

use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::rings::{self, Rings};
use crate::url::{self, Url};

use super::session::{Ending, Farewell, Session, Turn};
use super::uplink::Uplink;
use super::{HANDSHAKE_NS, SEGMENT_BYTES};

/// How long a connection must have lasted for the next pause to be the shortest again.
const LASTING_NS: u64 = 5_000_000_000;
/// Capacity that a buffer for sending keeps.
const SEND_BYTES_KEPT: usize = 1 << 20;

/// A turn that has spun no longer than this goes on with the time that it began with.
const UNREAD_NS: u64 = 20_000;

/// How long before the end of `close_timeout` the link leaves; less if that is short.
const CLOSE_MARGIN_NS: u64 = 10_000_000;

/// Where the link is.
#[derive(Debug)]
enum Where {
    /// Nowhere, until then.
    Pausing(u64),
    Connecting(ConnectionId),
    Connected(ConnectionId),
    /// Everything is over.
    Over,
}

/// What drives the link of a client.
pub struct Drive {
    session: Session,
    driver: Arc<dyn Driver>,
    servers: Vec<Url>,
    /// Which is tried next; how many in a row have failed.
    next: usize,
    failed: usize,
    backoff_ns: u64,
    at: Where,
    connected_ns: u64,
    /// Bytes to send, unless the driver has them.
    buffer: Vec<u8>,
    is_sending: bool,
    rings: Rings,
    /// What shares memory with the server, until its WELCOME is there.
    descriptors: Vec<OwnedFd>,
    /// When saying goodbye has taken long enough.
    give_up_ns: u64,
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// The sockets of a link: one connection, and the last one on its way out.
#[must_use]
pub fn config() -> Config {
    Config {
        connections_max: 8,
        ring_entries: 64,
        receive_bytes: SEGMENT_BYTES as u32,
        receive_buffers: 4,
        ..Config::default()
    }
}

impl Drive {
    pub(super) fn new(
        broker: &Arc<Broker>,
        uplink: Arc<Uplink>,
        servers: Vec<Url>,
    ) -> Result<Self> {
        let backoff_ns = uplink.options.backoff_min_ns;
        let rings = Rings::new(uplink.options.polled);
        Ok(Self {
            session: Session::new(broker, uplink)?,
            driver: broker.driver.clone(),
            servers,
            next: 0,
            failed: 0,
            backoff_ns,
            at: Where::Pausing(0),
            connected_ns: 0,
            buffer: Vec::new(),
            is_sending: false,
            rings,
            descriptors: Vec::new(),
            give_up_ns: FOREVER_NS,
        })
    }

    /// Has `task` called when a queue that was full has room.
    pub(super) fn call_for_room(&mut self, task: &Waker) {
        self.session.writer.shard = Some(task.clone());
    }

    /// The sockets have failed: everything is over.
    pub(super) fn fail_for_good(&mut self, why: &Ending) {
        self.at = Where::Over;
        self.session.end(why, true);
        self.session.over();
    }

    /// Sends what waits now, if it can.
    pub(super) fn send_now(&mut self, sockets: &mut dyn Sockets) {
        self.send(sockets);
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.at, Where::Connected(_))
    }

    /// Whether what waits need not wait for a connection or its socket.
    pub(super) fn can_send(&self) -> bool {
        self.is_connected() && !self.is_sending
    }

    /// When a turn is due, though nothing may have come.
    pub(super) fn due_ns(&self) -> u64 {
        self.deadline_ns(self.driver.monotonic_ns())
    }

    /// Whoever drives it turn by turn asks and subscribes on the same thread.
    pub fn attach_simulated(&self, sockets: &dyn Sockets) {
        let _ = self.session.uplink.waker.set(sockets.waker());
    }

    /// Whether the link has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.at, Where::Over)
    }

    /// Sends, waits for something to happen, for at most `max_ns`, and deals with it.
    ///
    /// # Errors
    /// As `Sockets::wait`.
    pub fn turn(
        &mut self,
        sockets: &mut dyn Sockets,
        max_ns: u64,
        spin_ns: u64,
    ) -> std::io::Result<Waited> {
        let now_ns = self.driver.monotonic_ns();
        let has_delivered = self.before(sockets, now_ns);
        let uplink = &*self.session.uplink;
        let deadline_ns = match max_ns {
            0 => 0,
            _ if has_delivered => 0,
            max_ns => self.deadline_ns(now_ns).min(now_ns.saturating_add(max_ns)),
        };
        // Whoever adds something wakes the link only if it could send that.
        let can_send = self.can_send();
        let is_told = self.give_up_ns != FOREVER_NS;
        let mut look = |_: Look| {
            can_send && uplink.has_work.load(Ordering::SeqCst)
                || !is_told && uplink.is_closing.load(Ordering::SeqCst)
                || uplink.helm.has_called()
        };
        let rings = &mut self.rings;
        let waited = rings.wait(sockets, deadline_ns, spin_ns, &mut look)?;
        let now_ns = match waited {
            Waited::Ready | Waited::Spun if spin_ns <= UNREAD_NS => now_ns,
            _ => self.driver.monotonic_ns(),
        };
        uplink.helm.turned_ns.store(now_ns, Ordering::Relaxed);
        let mut rings = std::mem::take(&mut self.rings);
        while let Some(completion) = rings.next(sockets) {
            if let Some(ending) = self.on(completion, now_ns) {
                self.rings = rings;
                self.leave(sockets, &ending, now_ns);
                rings = std::mem::take(&mut self.rings);
            }
            if let Some(capacities) = self.session.rings.take()
                && let Where::Connected(connection) = self.at
            {
                let descriptors = std::mem::take(&mut self.descriptors);
                let taken = rings.take(sockets, connection, capacities, descriptors);
                self.rings = rings;
                if let Err(error) = taken {
                    self.leave(sockets, &broken(&error), now_ns);
                }
                rings = std::mem::take(&mut self.rings);
            }
        }
        self.rings = rings;
        self.session.retry(now_ns);
        if let Turn::Ended(ending) = self.session.tick(now_ns) {
            self.leave(sockets, &ending, now_ns);
        }
        Ok(waited)
    }

    /// What a turn begins with; true: a queue has got something.
    fn before(&mut self, sockets: &mut dyn Sockets, now_ns: u64) -> bool {
        let uplink = &*self.session.uplink;
        let writer = &self.session.writer;
        self.session.deliveries.forget_gone(uplink, writer);
        if Arc::strong_count(writer.broker()) == 1 {
            // Nobody but the link holds the client.
            writer.broker().close();
        }
        if self.session.uplink.is_closing.load(Ordering::SeqCst) {
            self.close(sockets, now_ns);
        }
        match self.at {
            Where::Pausing(until_ns) if now_ns >= until_ns => self.connect(sockets, now_ns),
            Where::Connecting(_) if now_ns >= self.connected_ns + HANDSHAKE_NS => {
                self.leave(sockets, &TOO_LATE, now_ns);
            }
            _ => {}
        }
        // Who made room before this turn began has called in vain.
        let has_delivered = self.session.retry(now_ns);
        self.send(sockets);
        has_delivered
    }

    fn deadline_ns(&self, now_ns: u64) -> u64 {
        let own_ns = match self.at {
            Where::Pausing(until_ns) => until_ns.min(self.session.retry_at_ns(now_ns)),
            Where::Connecting(_) => {
                let late_ns = self.connected_ns + HANDSHAKE_NS;
                late_ns.min(self.session.retry_at_ns(now_ns))
            }
            Where::Connected(_) => self.session.deadline_ns(now_ns),
            Where::Over => 0,
        };
        own_ns.min(self.give_up_ns)
    }

    fn connect(&mut self, sockets: &mut dyn Sockets, now_ns: u64) {
        let server = &self.servers[self.next];
        let address = server.address();
        let has_rings = matches!(server, Url::Shared(..));
        let options = ConnectionOptions {
            takes_descriptors: has_rings,
        };
        self.session.wants_rings = has_rings;
        self.descriptors.clear();
        match address.and_then(|address| sockets.connect(&address, options)) {
            Ok(connection) => {
                self.at = Where::Connecting(connection);
                self.connected_ns = now_ns;
            }
            Err(error) => {
                let why = self.cannot_connect(&error);
                self.fail(&why, now_ns);
            }
        }
    }

    #[cold]
    fn cannot_connect(&self, error: &std::io::Error) -> Ending {
        let server = &self.servers[self.next];
        Error::made(
            Status::Unavailable,
            format_args!("cannot connect to {server}: {error}"),
        )
    }

    fn send(&mut self, sockets: &mut dyn Sockets) {
        let Where::Connected(connection) = self.at else {
            return;
        };
        let uplink = &self.session.uplink;
        if self.is_sending || !uplink.take_output(&mut self.buffer) {
            return;
        }
        let (rings, buffer) = (&mut self.rings, &mut self.buffer);
        match rings.send(sockets, connection, buffer, SendMode::Batched) {
            Ok(Sending::Done) => self.keep_buffer(),
            Ok(Sending::Started) => self.is_sending = true,
            Err(error) => {
                let why = broken(&error);
                self.leave(sockets, &why, self.driver.monotonic_ns());
            }
        }
    }

    fn keep_buffer(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(SEND_BYTES_KEPT);
    }

    /// Deals with one thing that has happened; `Some`: it was the end of the connection.
    fn on(&mut self, completion: Completion<'_>, now_ns: u64) -> Option<Ending> {
        let is_ours = |id: ConnectionId| match self.at {
            Where::Connecting(ours) | Where::Connected(ours) => id == ours,
            _ => false,
        };
        match completion {
            Completion::Connected { connection, result } if is_ours(connection) => match result {
                Ok(()) => {
                    self.at = Where::Connected(connection);
                    self.connected_ns = now_ns;
                    self.session.start(now_ns).err()
                }
                Err(error) => Some(self.cannot_connect(&error)),
            },
            Completion::Received { connection, bytes } if is_ours(connection) => {
                match self.session.receive(bytes, now_ns) {
                    Turn::On => None,
                    Turn::Ended(ending) => Some(ending),
                }
            }
            Completion::Descriptors {
                connection,
                descriptors,
            } if is_ours(connection) && self.session.is_waiting() => {
                self.descriptors = descriptors;
                None
            }
            Completion::Ended {
                connection,
                error: Some(error),
            } if is_ours(connection) && rings::is_hostile(&error) => {
                self.is_sending = false;
                Some(self.session.refuse_rings())
            }
            Completion::Ended { connection, error } if is_ours(connection) => Some(match error {
                Some(error) => broken(&error),
                None => Error::new(&ENDED),
            }),
            Completion::Sent {
                connection,
                buffer,
                result,
            } if is_ours(connection) => {
                self.buffer = buffer;
                self.keep_buffer();
                self.is_sending = false;
                result.err().map(|error| broken(&error))
            }
            _ => None,
        }
    }

    /// Ends the connection, and goes on to the next server.
    fn leave(&mut self, sockets: &mut dyn Sockets, why: &Ending, now_ns: u64) {
        if let Where::Connecting(connection) | Where::Connected(connection) = self.at {
            let uplink = &self.session.uplink;
            let has_words = !self.is_sending
                && match self.session.farewell {
                    Farewell::Nothing => false,
                    Farewell::Refusal => uplink.take_urgent(&mut self.buffer),
                    Farewell::Everything => uplink.take_output(&mut self.buffer),
                };
            if has_words {
                let (rings, buffer) = (&mut self.rings, &mut self.buffer);
                let _ = rings.send(sockets, connection, buffer, SendMode::Direct);
            }
            self.rings.close(sockets, connection);
        }
        self.buffer = Vec::new();
        self.is_sending = false;
        self.fail(why, now_ns);
    }

    fn fail(&mut self, why: &Ending, now_ns: u64) {
        if self.session.uplink.is_closing.load(Ordering::SeqCst) {
            self.over();
            return;
        }
        let has_lasted = matches!(self.at, Where::Connected(_))
            && now_ns.saturating_sub(self.connected_ns) >= LASTING_NS;
        let options = &self.session.uplink.options;
        if has_lasted {
            self.failed = 0;
            self.backoff_ns = options.backoff_min_ns;
        }
        self.failed += 1;
        let is_round = self.failed.is_multiple_of(self.servers.len());
        self.next = (self.next + 1) % self.servers.len();
        let mut pause_ns = 0;
        if is_round {
            let half_ns = self.backoff_ns / 2;
            pause_ns = half_ns + self.driver.random() % (half_ns + 1);
            self.backoff_ns = (2 * self.backoff_ns).min(options.backoff_max_ns);
        }
        self.at = Where::Pausing(now_ns + pause_ns);
        let has_failed = self.failed >= self.servers.len();
        if let Some(urls) = self.session.others.take() {
            let _first = self.learn_servers(&urls);
        }
        if let Some(urls) = self.session.elsewhere.take()
            && let Some(first) = self.learn_servers(&urls)
        {
            self.next = first;
        }
        self.session.end(why, has_failed);
    }

    /// Adds servers that the last one has named; where the first of them is.
    fn learn_servers(&mut self, urls: &str) -> Option<usize> {
        // What is no URL is the server's mistake: there are others.
        let named = url::servers(urls).ok()?;
        let first = named.first().cloned()?;
        for server in named {
            if self.servers.len() < url::SERVERS_MAX && !self.servers.contains(&server) {
                self.servers.push(server);
            }
        }
        self.servers.iter().position(|server| *server == first)
    }

    /// The client is closed: says goodbye, for as long as `close_timeout`.
    fn close(&mut self, sockets: &mut dyn Sockets, now_ns: u64) {
        if self.give_up_ns == FOREVER_NS {
            let until_ns = self.session.uplink.close_until_ns.load(Ordering::SeqCst);
            let left_ns = until_ns.saturating_sub(now_ns);
            // Before whoever closes goes on: he hears of nothing afterwards.
            let left_ns = left_ns - (left_ns / 8).min(CLOSE_MARGIN_NS);
            // FOREVER_NS: the drive has not been told.
            self.give_up_ns = now_ns.saturating_add(left_ns).min(FOREVER_NS - 1);
            self.session.say_goodbye(self.give_up_ns);
        }
        let is_going = matches!(self.at, Where::Connected(_)) && self.session.is_going();
        if !self.is_over() && (!is_going || now_ns >= self.give_up_ns) {
            self.leave(sockets, &Error::CLOSED, now_ns);
        }
    }

    fn over(&mut self) {
        self.at = Where::Over;
        self.session.end(&Error::CLOSED, true);
        self.session.over();
    }
}

static ENDED: Fault = Fault(
    Status::Disconnected,
    "the server has ended the connection without a word",
);

const TOO_LATE: Error = Error::new(&Fault(
    Status::Timeout,
    "the connection was not made in time",
));

#[cold]
fn broken(error: &std::io::Error) -> Ending {
    Error::made(
        Status::Disconnected,
        format_args!("the connection broke: {error}"),
    )
}
