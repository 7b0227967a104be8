//! A shard: the sockets, sessions and writer of one thread, and the turn of its loop.
//!
//! A turn waits, takes what has arrived, takes what the queues of touched connections have, and
//! sends once for each of them. Work per turn is bounded: completions by the driver, messages of
//! one connection by [`TURN_MESSAGES`](super::TURN_MESSAGES).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use fastmq_driver::FOREVER_NS;
use fastmq_driver::sockets::{
    Address, Completion, ConnectionId, ConnectionOptions, ListenerId, SendMode, Sending, Sockets,
    Waited,
};
use fastmq_wire::State;

use crate::broker::Broker;
use crate::error::Result;
use crate::log::{self, Level};
use crate::wait::Spin;

use super::inbox::{Inbox, Nudge, SessionKey, Source};
use super::parts::Parts;
use super::session::Session;
use super::{LINGER_NS, ServerOptions};

/// Vectors for bytes to send that are kept for the next connection, and the largest of them.
const POOL_MAX: usize = 64;
const POOL_BYTES_MAX: usize = 1 << 20;

/// Entries of the list of times beyond four for each connection before it is swept.
const TIMES_SPARE: usize = 64;

/// One connection.
struct Connection {
    id: ConnectionId,
    session: Session,
    /// The begin of a frame.
    rest: Vec<u8>,
    is_sending: bool,
    is_touched: bool,
    /// Nothing can be sent any more.
    is_broken: bool,
    has_ended: bool,
    is_finished: bool,
    is_closing: bool,
    /// When the other side is waited for no longer, once we have said our last word.
    linger_ns: u64,
    /// The earliest time that the shard looks at it.
    scheduled_ns: u64,
}

/// A shard. Made and used by one thread.
pub struct Shard {
    sockets: Box<dyn Sockets>,
    parts: Parts,
    connections: Vec<Option<Connection>>,
    open: u32,
    next_serial: u64,
    listeners: Vec<ListenerId>,
    touched: Vec<u32>,
    nudges: Vec<Arc<Nudge>>,
    times: BinaryHeap<Reverse<(u64, u32, u64)>>,
    pool: Vec<Vec<u8>>,
    spin: Spin,
    /// When a drain ends.
    drain_ns: Option<u64>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// A shard without listeners. `sockets` has room for more connections than the options allow,
    /// so that those who are too many can be told.
    ///
    /// # Errors
    /// NO_MEMORY.
    pub fn new(
        broker: &Arc<Broker>,
        sockets: Box<dyn Sockets>,
        options: ServerOptions,
    ) -> Result<Self> {
        let inbox = Inbox::new(Some(sockets.waker()));
        Ok(Self {
            parts: Parts::over(broker, options, inbox)?,
            sockets,
            connections: Vec::new(),
            open: 0,
            next_serial: 1,
            listeners: Vec::new(),
            touched: Vec::new(),
            nudges: Vec::new(),
            times: BinaryHeap::new(),
            pool: Vec::new(),
            spin: Spin::default(),
            drain_ns: None,
        })
    }

    /// Starts to accept connections at an address, and gives the one that it is.
    ///
    /// # Errors
    /// What the driver says.
    pub fn listen(&mut self, address: &Address) -> io::Result<Address> {
        let listener = self.sockets.listen(address)?;
        self.listeners.push(listener);
        self.sockets.local_address(listener)
    }

    /// Connections that are open.
    pub fn connection_count(&self) -> u32 {
        self.open
    }

    /// Whether a drain has ended, and every connection.
    pub fn is_done(&self) -> bool {
        self.drain_ns.is_some() && self.open == 0
    }

    /// Takes no more connections, tells those that are there, and closes them at `deadline_ns`.
    pub fn drain(&mut self, deadline_ns: u64) {
        self.parts.read_clock();
        if self.drain_ns.is_none() {
            for listener in self.listeners.drain(..) {
                self.sockets.close_listener(listener);
            }
            self.parts.start_draining();
        }
        self.drain_ns = Some(deadline_ns);
        for index in 0..self.connections.len() as u32 {
            if let Some(connection) = self.connections[index as usize].as_mut() {
                connection
                    .session
                    .announce_drain(&mut self.parts, deadline_ns);
                self.touch(index);
            }
        }
    }

    /// One turn, which begins with a wait until `until_ns` at the latest; `look` ends it early.
    ///
    /// # Errors
    /// What the shard cannot go on with.
    pub fn turn(&mut self, until_ns: u64, look: &dyn Fn() -> bool) -> io::Result<()> {
        let due_ns = self
            .times
            .peek()
            .map_or(FOREVER_NS, |Reverse((ns, ..))| *ns);
        let due_ns = due_ns.min(self.drain_ns.unwrap_or(FOREVER_NS));
        let deadline_ns = match self.touched.is_empty() {
            true => due_ns.min(until_ns),
            false => 0,
        };
        let profile = self.parts.options.wait;
        let spin_ns = match self.parts.broker.driver().may_spin() {
            true => self.spin.budget_ns(profile),
            false => 0,
        };
        let inbox = self.parts.inbox.clone();
        let mut look = |_| inbox.is_filled() || look();
        match self.sockets.wait(deadline_ns, spin_ns, &mut look)? {
            Waited::Spun => self.spin.learn(true),
            Waited::Slept | Waited::TimedOut if spin_ns > 0 => self.spin.learn(false),
            _ => {}
        }
        self.parts.read_clock();
        self.take_completions();
        self.take_nudges();
        self.take_times();
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            self.serve(index);
        }
        // What was touched meanwhile stands in a list of its own.
        if self.touched.is_empty() {
            self.touched = touched;
        }
        Ok(())
    }

    fn take_completions(&mut self) {
        loop {
            let Some(completion) = self.sockets.next() else {
                return;
            };
            match completion {
                Completion::Received { connection, bytes } => {
                    let index = connection.index();
                    if let Some(Some(known)) = self.connections.get_mut(index)
                        && known.id == connection
                    {
                        if !known.is_touched {
                            known.is_touched = true;
                            self.touched.push(index as u32);
                            known.take_vector(&mut self.pool);
                        }
                        known.on_received(&mut self.parts, bytes);
                    }
                }
                Completion::Accepted { socket, .. } => {
                    let adopted = self.sockets.adopt(socket, ConnectionOptions::default());
                    match adopted {
                        Ok(id) => self.accept(id),
                        Err(_) => {
                            let says = "a connection is closed: there are too many by far";
                            log::write(Level::Warn, "server", says);
                        }
                    }
                }
                Completion::AcceptPaused { error, .. } => {
                    let text = format!("no connection can be accepted for now: {error}");
                    log::write(Level::Warn, "server", &text);
                }
                Completion::Ended { connection, .. } => self.with(connection, |known, parts| {
                    known.has_ended = true;
                    known.session.on_end(parts);
                }),
                Completion::Sent {
                    connection,
                    buffer,
                    result,
                } => {
                    keep(&mut self.pool, buffer);
                    self.with(connection, |known, parts| {
                        known.is_sending = false;
                        if result.is_err() {
                            known.is_broken = true;
                            known.session.on_end(parts);
                        }
                    });
                }
                Completion::Closed { connection } => self.forget(connection),
                _ => {}
            }
        }
    }

    /// Does something with a connection, which is looked at in this turn.
    fn with(&mut self, id: ConnectionId, body: impl FnOnce(&mut Connection, &mut Parts)) {
        if let Some(Some(known)) = self.connections.get_mut(id.index())
            && known.id == id
        {
            body(known, &mut self.parts);
            self.touch(id.index() as u32);
        }
    }

    fn accept(&mut self, id: ConnectionId) {
        let index = id.index();
        if index >= self.connections.len() {
            if self
                .connections
                .try_reserve(index + 1 - self.connections.len())
                .is_err()
            {
                self.sockets.close(id);
                return;
            }
            self.connections.resize_with(index + 1, || None);
        }
        let key = SessionKey {
            index: index as u32,
            serial: self.next_serial,
        };
        self.next_serial += 1;
        let session = match self.open < self.parts.options.connections_max {
            true => Session::new(&self.parts, key),
            false => Session::refused(&self.parts, key),
        };
        self.open += 1;
        self.connections[index] = Some(Connection {
            id,
            session,
            rest: Vec::new(),
            is_sending: false,
            is_touched: false,
            is_broken: false,
            has_ended: false,
            is_finished: false,
            is_closing: false,
            linger_ns: FOREVER_NS,
            scheduled_ns: FOREVER_NS,
        });
        self.touch(index as u32);
    }

    /// The place of a connection may be used again.
    fn forget(&mut self, id: ConnectionId) {
        let Some(slot) = self.connections.get_mut(id.index()) else {
            return;
        };
        if slot.as_ref().is_some_and(|known| known.id == id)
            && let Some(mut known) = slot.take()
        {
            known.session.on_end(&mut self.parts);
            self.open -= 1;
        }
    }

    fn touch(&mut self, index: u32) {
        if let Some(Some(known)) = self.connections.get_mut(index as usize)
            && !known.is_touched
        {
            known.is_touched = true;
            self.touched.push(index);
            known.take_vector(&mut self.pool);
        }
    }

    fn take_nudges(&mut self) {
        let mut nudges = std::mem::take(&mut self.nudges);
        self.parts.inbox.take(&mut nudges);
        for nudge in nudges.drain(..) {
            let SessionKey { index, serial } = nudge.session;
            let Some(Some(known)) = self.connections.get_mut(index as usize) else {
                continue;
            };
            if known.session.key.serial != serial {
                continue;
            }
            match nudge.source {
                Source::Answers => known.session.answers_ready(),
                Source::Feed(at) => known.session.set_ready(at),
            }
            self.touch(index);
        }
        self.nudges = nudges;
    }

    fn take_times(&mut self) {
        let now_ns = self.parts.now_ns;
        while let Some(Reverse((ns, index, serial))) = self.times.peek().copied() {
            if ns > now_ns {
                break;
            }
            self.times.pop();
            let Some(Some(known)) = self.connections.get_mut(index as usize) else {
                continue;
            };
            if known.session.key.serial != serial || known.scheduled_ns != ns {
                continue;
            }
            known.scheduled_ns = FOREVER_NS;
            if known.session.deadline_ns() <= now_ns {
                known.session.on_time(&mut self.parts);
            }
            self.touch(index);
        }
        if self.drain_ns.is_some_and(|drain_ns| drain_ns <= now_ns) {
            self.drain_ns = Some(FOREVER_NS);
            for index in 0..self.connections.len() as u32 {
                if let Some(known) = self.connections[index as usize].as_mut() {
                    known.session.close(&mut self.parts);
                    self.touch(index);
                }
            }
        }
    }

    /// Drops entries whose connection has another time by now, once there are many.
    fn sweep_times(&mut self) {
        if self.times.len() <= TIMES_SPARE + 4 * self.open as usize {
            return;
        }
        let connections = &self.connections;
        self.times.retain(|Reverse((ns, index, serial))| {
            let known = connections.get(*index as usize).and_then(Option::as_ref);
            known.is_some_and(|it| it.session.key.serial == *serial && it.scheduled_ns == *ns)
        });
    }

    /// Takes what the queues of a connection have, and sends.
    fn serve(&mut self, index: u32) {
        let Some(Some(known)) = self.connections.get_mut(index as usize) else {
            return;
        };
        known.is_touched = false;
        if known.is_closing {
            return;
        }
        let is_more = known.session.pull(&mut self.parts);
        if !known.is_sending && !known.is_broken && !known.session.outgoing().is_empty() {
            let mut bytes = std::mem::take(known.session.outgoing());
            known.session.taken();
            match self.sockets.send(known.id, &mut bytes, SendMode::Batched) {
                Ok(Sending::Started) => known.is_sending = true,
                Ok(Sending::Done) => {}
                Err(_) => {
                    known.is_broken = true;
                    known.session.on_end(&mut self.parts);
                }
            }
            bytes.clear();
            keep(&mut self.pool, bytes);
        } else if known.session.outgoing().is_empty() {
            keep(&mut self.pool, std::mem::take(known.session.outgoing()));
        }
        let now_ns = self.parts.now_ns;
        let is_over =
            known.session.state() != State::Ready && known.session.state() != State::Waiting;
        if is_over {
            let is_said = !known.is_sending && known.session.outgoing().is_empty();
            if known.linger_ns == FOREVER_NS {
                known.linger_ns = now_ns.saturating_add(LINGER_NS);
            }
            if is_said && !known.is_finished && !known.is_broken {
                known.is_finished = true;
                let _ = self.sockets.finish(known.id);
            }
            let is_done = known.is_broken || (known.has_ended && is_said);
            if is_done || now_ns >= known.linger_ns {
                known.is_closing = true;
                self.sockets.close(known.id);
                return;
            }
        }
        let at_ns = known.session.deadline_ns().min(known.linger_ns);
        if at_ns < known.scheduled_ns {
            known.scheduled_ns = at_ns;
            let serial = known.session.key.serial;
            self.times.push(Reverse((at_ns, index, serial)));
            self.sweep_times();
        }
        if is_more {
            self.touch(index);
        }
    }

    /// Bytes of the beginnings of frames and of what is to be sent, of all connections.
    pub fn buffered_bytes(&mut self) -> usize {
        let known = self.connections.iter_mut().flatten();
        known
            .map(|known| known.rest.capacity() + known.session.outgoing().capacity())
            .sum()
    }
}

/// Keeps an empty vector for whoever needs one next.
fn keep(pool: &mut Vec<Vec<u8>>, buffer: Vec<u8>) {
    if pool.len() < POOL_MAX && (1..=POOL_BYTES_MAX).contains(&buffer.capacity()) {
        pool.push(buffer);
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        for known in self.connections.iter_mut().flatten() {
            known.session.on_end(&mut self.parts);
        }
        // Queues that are listed know the list.
        self.parts.inbox.take(&mut self.nudges);
    }
}

impl Connection {
    /// Gives it a vector for what it is about to say; an idle connection has none.
    fn take_vector(&mut self, pool: &mut Vec<Vec<u8>>) {
        let out = self.session.outgoing();
        if out.capacity() == 0
            && let Some(vector) = pool.pop()
        {
            *out = vector;
        }
    }

    fn on_received(&mut self, parts: &mut Parts, bytes: &[u8]) {
        if self.rest.is_empty() {
            let consumed = self.session.on_bytes(parts, bytes);
            self.keep(parts, &bytes[consumed..]);
            return;
        }
        // Only the frame that is cut is completed in the copy; what follows is taken in place.
        let mut bytes = bytes;
        while !self.rest.is_empty() && !bytes.is_empty() {
            let wanted = self.session.frame_bytes(&self.rest);
            let missing = wanted.saturating_sub(self.rest.len()).clamp(1, bytes.len());
            let (now, later) = bytes.split_at(missing);
            self.keep(parts, now);
            bytes = later;
            let rest = std::mem::take(&mut self.rest);
            let consumed = self.session.on_bytes(parts, &rest);
            if consumed < rest.len() {
                self.rest = rest;
                self.rest.drain(..consumed);
            }
        }
        if !bytes.is_empty() {
            let consumed = self.session.on_bytes(parts, bytes);
            self.keep(parts, &bytes[consumed..]);
        }
    }

    /// Keeps the begin of a frame; it is bounded, as a larger one than may come is refused by its
    /// first bytes.
    fn keep(&mut self, parts: &mut Parts, bytes: &[u8]) {
        if self.rest.try_reserve(bytes.len()).is_err() {
            self.is_broken = true;
            self.session.on_end(parts);
            return;
        }
        self.rest.extend_from_slice(bytes);
    }
}
