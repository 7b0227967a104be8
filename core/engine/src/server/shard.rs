//! A shard: the sockets, sessions and writer of one thread, and the turn of its loop.
//!
//! A turn waits, takes what has arrived, takes what the queues of touched connections have, and
//! sends once for each of them. Work per turn is bounded: completions by the driver, messages of
//! one connection by [`TURN_MESSAGES`](super::TURN_MESSAGES), connections by
//! [`TURN_SESSIONS`](super::TURN_SESSIONS).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fastmq_driver::FOREVER_NS;
use fastmq_driver::sockets::{
    Address, Completion, ConnectionId, ConnectionOptions, ListenerId, SendMode, Sending, Socket,
    Sockets, Waited,
};
use fastmq_memory::allocation::try_box;
use fastmq_memory::sync::Mutex;
use fastmq_wire::State;

use crate::broker::Broker;
use crate::error::Result;
use crate::log::{self, Level};
use crate::rings::{self, Offer, Rings};
use crate::wait::{Profile, Spin};

use super::connection::Connection;
use super::inbox::{self, Arrived, Inbox, Nudge, SessionKey, Source};
use super::parts::Parts;
use super::session::Session;
use super::stats::Board;
use super::{CONNECTIONS_REFUSED_MAX, Changes, LINGER_NS, ServerOptions, TURN_SESSIONS};

/// Entries of the list of times beyond four for each connection before it is swept.
const TIMES_SPARE: usize = 64;
/// Connections of a turn, and bytes, up to which each sends by a call: who asks and who answers.
const ALONE_MAX: usize = 2;
const ALONE_BYTES_MAX: usize = 1024;

/// A shard. Made and used by one thread.
pub struct Shard {
    sockets: Box<dyn Sockets>,
    rings: Rings,
    parts: Parts,
    connections: Vec<Option<Connection>>,
    /// All shards of the server, itself first, if this is the one that accepts.
    shards: Vec<Arc<Inbox>>,
    next_serial: u64,
    listeners: Vec<ListenerId>,
    nudges: Vec<Arc<Nudge>>,
    arrived: Vec<Arrived>,
    times: BinaryHeap<Reverse<(u64, u32, u64)>>,
    spin: Spin,
    /// When a drain ends.
    drain_ns: Option<u64>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("connections", &self.connection_count())
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
            shards: vec![inbox.clone()],
            parts: Parts::over(broker, options, inbox)?,
            sockets,
            rings: Rings::default(),
            connections: Vec::new(),
            next_serial: 1,
            listeners: Vec::new(),
            nudges: Vec::new(),
            arrived: Vec::new(),
            times: BinaryHeap::new(),
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

    /// Starts to accept connections of a socket that listens already.
    ///
    /// # Errors
    /// What the driver says.
    pub fn adopt_listener(&mut self, socket: OwnedFd) -> io::Result<Address> {
        let listener = self.sockets.adopt_listener(socket)?;
        self.listeners.push(listener);
        self.sockets.local_address(listener)
    }

    /// Has all shards of a server look at the same place for what may change while it runs.
    pub fn share_changes(&mut self, changes: &Arc<Mutex<Changes>>) {
        self.parts.changes = changes.clone();
    }

    /// Where other threads reach this shard.
    pub fn inbox(&self) -> Arc<Inbox> {
        self.parts.inbox.clone()
    }

    /// Has this shard, which listens, spread connections over others of the same server, too.
    pub fn spread_over(&mut self, others: &[Arc<Inbox>]) {
        self.shards.extend_from_slice(others);
    }

    /// Which run of the server this is: the same for all of its shards.
    pub fn set_instance(&mut self, instance: u64) {
        self.parts.instance = instance;
    }

    /// Has all shards of a server share what is said of it.
    pub fn set_board(&mut self, board: &Arc<Board>) {
        self.parts.board = board.clone();
    }

    /// Connections that are open, or given to this shard.
    pub fn connection_count(&self) -> u32 {
        self.parts.inbox.connection_count()
    }

    /// Whether a drain has ended, and every connection.
    pub fn is_done(&self) -> bool {
        self.drain_ns.is_some() && self.connection_count() == 0
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
            if let Some(mut session) = self.parts.take_session(index) {
                session.announce_drain(&mut self.parts, deadline_ns);
                self.parts.touch(&mut session);
                self.parts.put_back(session);
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
        let deadline_ns = match self.parts.touched.is_empty() {
            true => due_ns.min(until_ns),
            false => 0,
        };
        let profile = self.parts.options.wait;
        let may_spin = self.parts.broker.driver().may_spin();
        let spin_ns = match may_spin || profile == Profile::BusyPoll {
            true => self.spin.budget_ns(profile),
            false => 0,
        };
        let before_ns = self.parts.now_ns;
        let has_rings = self.rings.has_lines();
        if has_rings {
            // What is there at once finds the time read.
            self.parts.read_clock();
        }
        let inbox = &*self.parts.inbox;
        let mut look = |_| inbox.is_filled() || look();
        let waited = self
            .rings
            .wait(&mut *self.sockets, deadline_ns, spin_ns, &mut look)?;
        if !has_rings || !self.rings.was_quick() {
            self.parts.read_clock();
        }
        match waited {
            Waited::Spun => self.spin.learn(true),
            Waited::Slept | Waited::TimedOut if spin_ns > 0 => {
                self.spin.learn_late(self.parts.now_ns - before_ns);
            }
            _ => {}
        }
        self.take_completions();
        if self.parts.inbox.is_filled() {
            self.take_inbox();
        }
        self.take_times();
        // What is touched meanwhile is behind them.
        let count = self.parts.touched.len().min(TURN_SESSIONS);
        let is_alone = count <= ALONE_MAX;
        for at in 0..count {
            self.parts.expect_next(at);
            self.serve(self.parts.touched[at], is_alone);
        }
        self.parts.touched.drain(..count);
        self.parts.wake_waiting();
        Ok(())
    }

    fn take_completions(&mut self) {
        loop {
            let Some(completion) = self.rings.next(&mut *self.sockets) else {
                return;
            };
            match completion {
                Completion::Received { connection, bytes } => {
                    let index = connection.index();
                    if let Some(Some(known)) = self.connections.get_mut(index)
                        && known.id == connection
                        && let Some(mut session) = self.parts.take_session(index as u32)
                    {
                        self.parts.touch(&mut session);
                        known.on_received(&mut session, &mut self.parts, bytes);
                        let offer = session.offer.take();
                        self.parts.put_back(session);
                        if let Some(offer) = offer {
                            self.give_rings(connection, *offer);
                        }
                    }
                }
                Completion::Accepted { socket, .. } => self.spread(socket),
                Completion::AcceptPaused { error, .. } => {
                    let text = format!("no connection can be accepted for now: {error}");
                    log::write(Level::Warn, "server", &text);
                }
                Completion::Ended {
                    connection,
                    error: Some(error),
                } if rings::is_hostile(&error) => {
                    self.with(connection, |known, session, parts| {
                        known.is_sending = false;
                        session.refuse_rings(parts);
                    });
                }
                Completion::Ended { connection, .. } => {
                    self.with(connection, |known, session, parts| {
                        known.has_ended = true;
                        session.on_end(parts);
                    });
                }
                Completion::Sent {
                    connection,
                    buffer,
                    result,
                } => {
                    self.parts.pool.keep(buffer);
                    self.on_sent(connection, result.is_ok());
                }
                Completion::Closed { connection } => self.forget(connection),
                _ => {}
            }
        }
    }

    /// What a connection was to send is sent, or cannot be: most have nothing more to say then.
    fn on_sent(&mut self, id: ConnectionId, is_sent: bool) {
        if is_sent
            && let Some(Some(known)) = self.connections.get_mut(id.index())
            && known.id == id
            && !known.waits_for_sent
        {
            known.is_sending = false;
            return;
        }
        self.with(id, |known, session, parts| {
            known.is_sending = false;
            if !is_sent {
                known.is_broken = true;
                session.on_end(parts);
            }
        });
    }

    /// Does something with a connection, which is looked at in this turn.
    fn with(
        &mut self,
        id: ConnectionId,
        body: impl FnOnce(&mut Connection, &mut Session, &mut Parts),
    ) {
        if let Some(Some(known)) = self.connections.get_mut(id.index())
            && known.id == id
            && let Some(mut session) = self.parts.take_session(id.index() as u32)
        {
            body(known, &mut session, &mut self.parts);
            self.parts.touch(&mut session);
            self.parts.put_back(session);
        }
    }

    /// Sends the WELCOME with what shares memory with the client.
    fn give_rings(&mut self, id: ConnectionId, offer: Offer) {
        if let Some(Some(known)) = self.connections.get_mut(id.index())
            && let Some(mut session) = self.parts.take_session(id.index() as u32)
        {
            known.has_rings = true;
            let (rings, sockets) = (&mut self.rings, &mut *self.sockets);
            if rings.give(sockets, id, offer, session.outgoing()).is_err() {
                known.is_broken = true;
                session.on_end(&mut self.parts);
            }
            session.taken();
            self.parts.put_back(session);
        }
    }

    /// Gives an accepted connection to the shard that it is to be one of.
    fn spread(&mut self, socket: Socket) {
        let count: u32 = self.shards.iter().map(|it| it.connection_count()).sum();
        let max = self.parts.options.connections_max;
        if count >= max.saturating_add(CONNECTIONS_REFUSED_MAX) {
            return say_too_many();
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let arrived = Arrived { socket, serial };
        // Who is too many is told here.
        let shard = match count < max {
            true => inbox::place(&self.shards),
            false => None,
        };
        let arrived = match shard {
            Some(shard) if !Arc::ptr_eq(shard, &self.parts.inbox) => {
                match shard.hand_over(arrived) {
                    Ok(()) => return,
                    Err(arrived) => arrived,
                }
            }
            _ => arrived,
        };
        self.parts.inbox.count_in();
        self.adopt(arrived, count >= max);
    }

    /// Takes a connection that was counted.
    fn adopt(&mut self, arrived: Arrived, is_refused: bool) {
        let Arrived { socket, serial } = arrived;
        match self.sockets.adopt(socket, ConnectionOptions::default()) {
            Ok(id) => self.accept(id, serial, is_refused),
            Err(_) => {
                self.parts.inbox.count_out();
                say_too_many();
            }
        }
    }

    fn accept(&mut self, id: ConnectionId, serial: u64, is_refused: bool) {
        let index = id.index();
        if index >= self.connections.len() {
            let missing = index + 1 - self.connections.len();
            if self.connections.try_reserve(missing).is_err() || !self.parts.reserve(index + 1) {
                self.parts.inbox.count_out();
                self.sockets.close(id);
                return;
            }
            self.connections.resize_with(index + 1, || None);
        }
        let key = SessionKey {
            index: index as u32,
            serial,
        };
        let session = match is_refused {
            false => Session::new(&self.parts, key),
            true => Session::refused(&self.parts, key),
        };
        let Ok(mut session) = try_box(session) else {
            self.parts.inbox.count_out();
            self.sockets.close(id);
            return;
        };
        session.may_have_rings = rings::may_have(&*self.sockets, id);
        self.connections[index] = Some(Connection::new(id, key.serial));
        self.parts.touch(&mut session);
        self.parts.put_back(session);
    }

    /// The place of a connection may be used again.
    fn forget(&mut self, id: ConnectionId) {
        let Some(slot) = self.connections.get_mut(id.index()) else {
            return;
        };
        if slot.as_ref().is_some_and(|known| known.id == id)
            && let Some(known) = slot.take()
        {
            self.parts.rings_left += usize::from(known.has_rings);
            if let Some(mut session) = self.parts.take_session(id.index() as u32) {
                session.on_end(&mut self.parts);
            }
            self.parts.inbox.count_out();
        }
    }

    fn take_inbox(&mut self) {
        let mut nudges = std::mem::take(&mut self.nudges);
        let mut arrived = std::mem::take(&mut self.arrived);
        self.parts.inbox.take(&mut nudges, &mut arrived);
        for arrived in arrived.drain(..) {
            self.adopt(arrived, false);
        }
        self.arrived = arrived;
        for (at, nudge) in nudges.iter().enumerate() {
            self.parts.expect_nudged(&nudges, at);
            if nudge.source == Source::Room {
                self.parts.has_room = true;
                continue;
            }
            let SessionKey { index, serial } = nudge.session;
            let Some(mut session) = self.parts.take_session(index) else {
                continue;
            };
            if session.key.serial == serial {
                match nudge.source {
                    Source::Answers => session.answers_ready(),
                    Source::Feed(at) => session.set_ready(at),
                    Source::Stream(number) => session.stream_ready(number),
                    Source::Room => {}
                }
                self.parts.touch(&mut session);
            }
            self.parts.put_back(session);
        }
        nudges.clear();
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
            if known.serial != serial || known.scheduled_ns != ns {
                continue;
            }
            known.scheduled_ns = FOREVER_NS;
            let Some(mut session) = self.parts.take_session(index) else {
                continue;
            };
            if session.deadline_ns() <= now_ns {
                session.on_time(&mut self.parts);
            }
            self.parts.touch(&mut session);
            self.parts.put_back(session);
        }
        if self.drain_ns.is_some_and(|drain_ns| drain_ns <= now_ns) {
            self.drain_ns = Some(FOREVER_NS);
            for index in 0..self.connections.len() as u32 {
                if let Some(mut session) = self.parts.take_session(index) {
                    session.close(&mut self.parts);
                    self.parts.touch(&mut session);
                    self.parts.put_back(session);
                }
            }
        }
    }

    /// Drops entries whose connection has another time by now, once there are many.
    fn sweep_times(&mut self) {
        if self.times.len() <= TIMES_SPARE + 4 * self.connection_count() as usize {
            return;
        }
        let connections = &self.connections;
        self.times.retain(|Reverse((ns, index, serial))| {
            let known = connections.get(*index as usize).and_then(Option::as_ref);
            known.is_some_and(|it| it.serial == *serial && it.scheduled_ns == *ns)
        });
    }

    /// Takes what the queues of a connection have, and sends.
    fn serve(&mut self, index: u32, is_alone: bool) {
        if let Some(mut session) = self.parts.take_session(index) {
            session.is_touched = false;
            self.serve_session(index, &mut session, is_alone);
            self.parts.put_back(session);
        }
    }

    fn serve_session(&mut self, index: u32, session: &mut Session, is_alone: bool) {
        let Some(Some(known)) = self.connections.get_mut(index as usize) else {
            return;
        };
        if known.is_closing {
            return;
        }
        let is_more = session.pull(&mut self.parts);
        let is_slow = session.is_held_up();
        if !known.is_sending && !known.is_broken && !session.outgoing().is_empty() {
            let mut bytes = std::mem::take(session.outgoing());
            session.traffic.sent_bytes += bytes.len() as u64;
            session.taken();
            // A word by a call has no completion. Much goes by the ring: meanwhile more comes, and
            // rounds are fewer and larger.
            let is_word = is_alone && bytes.len() <= ALONE_BYTES_MAX;
            let mode = [SendMode::Batched, SendMode::Direct][usize::from(is_word)];
            let sockets = &mut *self.sockets;
            let sending = self.rings.send(sockets, known.id, &mut bytes, mode);
            match sending {
                Ok(Sending::Started) => known.is_sending = true,
                Ok(Sending::Done) => {}
                Err(_) => {
                    known.is_broken = true;
                    session.on_end(&mut self.parts);
                }
            }
            bytes.clear();
            self.parts.pool.keep(bytes);
        } else if session.outgoing().is_empty() {
            self.parts.pool.keep(std::mem::take(session.outgoing()));
        }
        let now_ns = self.parts.now_ns;
        session.show_figures(now_ns, is_slow);
        let is_over = session.state() != State::Ready && session.state() != State::Waiting;
        known.waits_for_sent = is_slow || is_over || !session.outgoing().is_empty();
        // What was sent at once has no completion that would have it looked at again.
        let is_more = is_more || is_slow && !known.is_sending && !session.is_held_up();
        if is_over {
            let is_said = !known.is_sending && session.outgoing().is_empty();
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
                self.rings.close(&mut *self.sockets, known.id);
                return;
            }
        }
        let at_ns = session.deadline_ns().min(known.linger_ns);
        if at_ns < known.scheduled_ns {
            known.scheduled_ns = at_ns;
            self.times.push(Reverse((at_ns, index, known.serial)));
            self.sweep_times();
        }
        if is_more || is_slow && !session.is_held_up() {
            self.parts.touch(session);
        }
    }

    /// Bytes of the beginnings of frames and of what is to be sent, of all connections.
    pub fn buffered_bytes(&mut self) -> usize {
        let rests = self.connections.iter().flatten();
        let rests: usize = rests.map(|known| known.rest.capacity()).sum();
        let sessions = self.parts.sessions.iter_mut().flatten();
        let outgoing: usize = sessions.map(|it| it.out.size()).sum();
        rests + outgoing
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        for index in 0..self.connections.len() as u32 {
            if let Some(mut session) = self.parts.take_session(index) {
                session.on_end(&mut self.parts);
            }
        }
        self.parts.inbox.close(&mut self.nudges);
    }
}

#[cold]
fn say_too_many() {
    let says = "a connection is closed: there are too many by far";
    log::write(Level::Warn, "server", says);
}
