//! Sockets of a simulated network: the same promises without a kernel, decided by a seed.
//!
//! Everything runs on the one thread of the test. A wait with a deadline moves the virtual clock
//! to the next arrival or the deadline, as a park of the simulated driver does; one without a
//! deadline that nothing can end is an error. Which of several ready connections comes first is
//! the network's seed's choice.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::FOREVER_NS;

use super::network::{SimulatedNetwork, Stream};
use super::readiness::Outgoing;
use super::slots::{Key, Slots};
use super::socket::{self, Credentials, Socket};
use super::waiting::{Sleeper, Waited, Waker};
use super::{
    Address, Completion, Config, ConnectionId, ConnectionOptions, LISTENERS_MAX, ListenerId, Look,
    SendMode, Sending, Sockets, TURN_COMPLETIONS_MAX, Tier, WatchId, busy, check_descriptors,
    not_found,
};

/// Who everybody is in a simulation.
const CREDENTIALS: Credentials = Credentials {
    process: 1,
    user: 1000,
    group: 1000,
};

/// The sockets of one shard of a simulation.
#[derive(Debug)]
pub struct SimulatedSockets {
    network: SimulatedNetwork,
    connections: Slots<Connection>,
    listeners: Slots<Address>,
    done: VecDeque<Completion<'static>>,
    /// Connections whose turn is still to come in this one, the next at the end.
    order: Vec<Key>,
    buffer: Vec<u8>,
    behind_descriptors: Option<(ConnectionId, usize)>,
    sleeper: Arc<Sleeper>,
    turn_left: u32,
}

#[derive(Debug)]
struct Connection {
    /// Not there if the connect was refused.
    stream: Option<Stream>,
    /// When a connect that is under way ends.
    connected_ns: Option<u64>,
    peer: Address,
    sending: Option<Outgoing>,
    options: ConnectionOptions,
    is_receiving: bool,
    has_ended: bool,
}

enum Step {
    Received(ConnectionId, usize),
    Other(Completion<'static>),
}

impl SimulatedSockets {
    /// The sockets of one more shard on a network.
    #[must_use]
    pub fn new(network: &SimulatedNetwork, config: &Config) -> Self {
        Self {
            network: network.clone(),
            connections: Slots::new(config.connections_max, "connections"),
            listeners: Slots::new(LISTENERS_MAX, "listeners"),
            done: VecDeque::new(),
            order: Vec::new(),
            buffer: vec![0; config.receive_bytes as usize],
            behind_descriptors: None,
            sleeper: Sleeper::simulated(),
            turn_left: 0,
        }
    }

    fn get(&self, id: ConnectionId) -> io::Result<&Connection> {
        self.connections.get(id.0).ok_or_else(not_found)
    }

    fn sender(&mut self, id: ConnectionId) -> io::Result<&mut Connection> {
        let connection = self.connections.get_mut(id.0).ok_or_else(not_found)?;
        if connection.connected_ns.is_some() || connection.stream.is_none() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        match connection.sending {
            Some(_) => Err(busy()),
            None => Ok(connection),
        }
    }

    fn step(&mut self) -> Option<Step> {
        if let Some((id, count)) = self.behind_descriptors.take() {
            return Some(Step::Received(id, count));
        }
        if let Some(done) = self.done.pop_front() {
            return Some(Step::Other(done));
        }
        let listeners: Vec<Key> = self.listeners.keys().collect();
        for key in listeners {
            if let Some(stream) = self
                .listeners
                .get(key)
                .and_then(|address| self.network.accept(address))
            {
                return Some(Step::Other(Completion::Accepted {
                    listener: ListenerId(key),
                    socket: Socket(socket::Kind::Simulated(stream)),
                }));
            }
        }
        while let Some(key) = self.order.last() {
            let step = self.on_connection(ConnectionId(*key));
            if step.is_some() {
                return step;
            }
            self.order.pop();
        }
        None
    }

    /// Decides whose turn it is: everybody's once, from a place that the seed chooses.
    fn draw_order(&mut self) {
        self.order.clear();
        self.order.extend(self.connections.keys());
        let count = self.order.len();
        if count > 0 {
            let first = self.network.lock().below(count as u64 - 1);
            self.order.rotate_left(first as usize);
        }
    }

    fn on_connection(&mut self, id: ConnectionId) -> Option<Step> {
        let now_ns = self.network.now_ns();
        let connection = self.connections.get_mut(id.0)?;
        if let Some(connected_ns) = connection.connected_ns {
            let is_due = connected_ns <= now_ns;
            return is_due.then(|| {
                connection.connected_ns = None;
                let result = match connection.stream {
                    Some(_) => Ok(()),
                    None => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
                };
                let connection = id;
                Step::Other(Completion::Connected { connection, result })
            });
        }
        let stream = connection.stream.as_ref()?;
        if let Some(outgoing) = &mut connection.sending
            && let Some(result) = pump(stream, outgoing)
        {
            let mut buffer = mem::take(&mut outgoing.bytes);
            buffer.clear();
            connection.sending = None;
            return Some(Step::Other(Completion::Sent {
                connection: id,
                buffer,
                result,
            }));
        }
        if !connection.is_receiving || connection.has_ended {
            return None;
        }
        let mut descriptors = Vec::new();
        let error = match stream.receive(&mut self.buffer, &mut descriptors) {
            Ok(0) => None,
            Ok(count) if descriptors.is_empty() || !connection.options.takes_descriptors => {
                return Some(Step::Received(id, count));
            }
            Ok(count) => {
                self.behind_descriptors = Some((id, count));
                let connection = id;
                return Some(Step::Other(Completion::Descriptors {
                    connection,
                    descriptors,
                }));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => Some(error),
        };
        connection.has_ended = true;
        let connection = id;
        Some(Step::Other(Completion::Ended { connection, error }))
    }

    /// Whether `next` would say something now.
    fn is_ready(&self) -> bool {
        let now_ns = self.network.now_ns();
        if self.behind_descriptors.is_some() || !self.done.is_empty() {
            return true;
        }
        let is_connection_ready = |key| {
            let Some(connection) = self.connections.get(key) else {
                return false;
            };
            if let Some(connected_ns) = connection.connected_ns {
                return connected_ns <= now_ns;
            }
            let Some(stream) = &connection.stream else {
                return false;
            };
            let receives = connection.is_receiving && !connection.has_ended;
            (receives && stream.is_readable())
                || (connection.sending.is_some() && stream.is_writable())
        };
        let has_accepts = |key| {
            let address = self.listeners.get(key);
            address.is_some_and(|address| self.network.has_arrived(address))
        };
        self.connections.keys().any(is_connection_ready) || self.listeners.keys().any(has_accepts)
    }

    /// When something may be ready that is not now.
    fn next_ns(&self) -> Option<u64> {
        let connects = self.connections.keys().filter_map(|key| {
            let connection = self.connections.get(key)?;
            connection.connected_ns
        });
        connects.chain(self.network.next_arrival_ns()).min()
    }
}

/// Moves what there is room for; the result when it is all.
fn pump(stream: &Stream, outgoing: &mut Outgoing) -> Option<io::Result<()>> {
    loop {
        match stream.send(&outgoing.bytes[outgoing.sent..], &mut Vec::new()) {
            Ok(0) => return None,
            Ok(count) => outgoing.sent += count,
            Err(error) => return Some(Err(error)),
        }
        if outgoing.sent == outgoing.bytes.len() {
            return Some(Ok(()));
        }
    }
}

impl Sockets for SimulatedSockets {
    fn tier(&self) -> Tier {
        Tier::Simulated
    }

    fn listen(&mut self, address: &Address) -> io::Result<ListenerId> {
        self.listeners.reserve()?;
        let address = self.network.listen(address)?;
        Ok(ListenerId(self.listeners.insert(address)))
    }

    fn adopt_listener(&mut self, _socket: OwnedFd) -> io::Result<ListenerId> {
        let says = "a simulated network has no descriptors";
        Err(io::Error::new(io::ErrorKind::Unsupported, says))
    }

    fn local_address(&self, listener: ListenerId) -> io::Result<Address> {
        self.listeners
            .get(listener.0)
            .cloned()
            .ok_or_else(not_found)
    }

    fn close_listener(&mut self, listener: ListenerId) {
        if let Some(address) = self.listeners.remove(listener.0) {
            self.network.close_listener(&address);
            self.done.push_back(Completion::ListenerClosed { listener });
        }
    }

    fn connect(
        &mut self,
        address: &Address,
        options: ConnectionOptions,
    ) -> io::Result<ConnectionId> {
        self.connections.reserve()?;
        let (stream, connected_ns) = match self.network.connect(address) {
            Ok((stream, ready_ns)) => (Some(stream), ready_ns),
            // TCP says so later, as a Unix socket would not.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                (None, self.network.now_ns())
            }
            Err(error) => return Err(error),
        };
        let connection = Connection {
            connected_ns: Some(connected_ns),
            peer: address.clone(),
            ..Connection::new(stream, options)
        };
        Ok(ConnectionId(self.connections.insert(connection)))
    }

    fn adopt(&mut self, socket: Socket, options: ConnectionOptions) -> io::Result<ConnectionId> {
        self.connections.reserve()?;
        let socket::Kind::Simulated(stream) = socket.0 else {
            let says = "a socket of the kernel has no place on a simulated network";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, says));
        };
        let connection = Connection::new(Some(stream), options);
        Ok(ConnectionId(self.connections.insert(connection)))
    }

    fn set_receiving(&mut self, connection: ConnectionId, is_on: bool) -> io::Result<()> {
        let connection = self.connections.get_mut(connection.0);
        connection.ok_or_else(not_found)?.is_receiving = is_on;
        Ok(())
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        bytes: &mut Vec<u8>,
        mode: SendMode,
    ) -> io::Result<Sending> {
        let connection = self.sender(connection)?;
        if bytes.is_empty() {
            return Ok(Sending::Done);
        }
        let mut sent = 0;
        if mode == SendMode::Direct
            && let Some(stream) = &connection.stream
        {
            sent = stream.send(bytes, &mut Vec::new())?;
        }
        if sent == bytes.len() {
            bytes.clear();
            return Ok(Sending::Done);
        }
        let bytes = mem::take(bytes);
        connection.sending = Some(Outgoing { bytes, sent });
        Ok(Sending::Started)
    }

    fn send_descriptors(
        &mut self,
        connection: ConnectionId,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        check_descriptors(bytes, descriptors)?;
        let connection = self.sender(connection)?;
        let copies = descriptors.iter().map(|fd| fd.try_clone_to_owned());
        let mut copies = copies.collect::<io::Result<Vec<OwnedFd>>>()?;
        let stream = connection.stream.as_ref().ok_or_else(not_found)?;
        match stream.send(bytes, &mut copies)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, connection: ConnectionId) -> io::Result<()> {
        let connection = self.sender(connection)?;
        if let Some(stream) = &connection.stream {
            stream.finish();
        }
        Ok(())
    }

    fn close(&mut self, connection: ConnectionId) {
        if self.connections.remove(connection.0).is_some() {
            if self
                .behind_descriptors
                .is_some_and(|(id, _)| id == connection)
            {
                self.behind_descriptors = None;
            }
            self.done.push_back(Completion::Closed { connection });
        }
    }

    fn peer_credentials(&self, connection: ConnectionId) -> io::Result<Credentials> {
        self.get(connection).map(|_| CREDENTIALS)
    }

    fn peer_address(&self, connection: ConnectionId) -> io::Result<Address> {
        self.get(connection)
            .map(|connection| connection.peer.clone())
    }

    fn waker(&self) -> Waker {
        Waker::new(&self.sleeper)
    }

    fn watch(&mut self, _event: OwnedFd) -> io::Result<WatchId> {
        let says = "a simulated network has no descriptors";
        Err(io::Error::new(io::ErrorKind::Unsupported, says))
    }

    fn unwatch(&mut self, _watch: WatchId) {}

    fn wait(
        &mut self,
        deadline_ns: u64,
        _spin_ns: u64,
        look: &mut dyn FnMut(Look) -> bool,
    ) -> io::Result<Waited> {
        self.turn_left = TURN_COMPLETIONS_MAX;
        self.draw_order();
        let why = match deadline_ns {
            0 => Look::Spinning,
            _ => Look::Sleeping,
        };
        if self.is_ready() || look(why) {
            return Ok(Waited::Ready);
        }
        if deadline_ns == 0 {
            return Ok(Waited::TimedOut);
        }
        let now_ns = self.network.now_ns();
        let next_ns = self.next_ns().unwrap_or(FOREVER_NS);
        let until_ns = next_ns.min(deadline_ns);
        if until_ns == FOREVER_NS {
            let says = "a simulated wait that nothing can end";
            return Err(io::Error::new(io::ErrorKind::Deadlock, says));
        }
        self.network.clock().advance_to(until_ns.max(now_ns));
        Ok(match next_ns <= deadline_ns {
            true => Waited::Slept,
            false => Waited::TimedOut,
        })
    }

    fn next(&mut self) -> Option<Completion<'_>> {
        self.turn_left = self.turn_left.checked_sub(1)?;
        Some(match self.step()? {
            Step::Received(connection, count) => Completion::Received {
                connection,
                bytes: &self.buffer[..count],
            },
            Step::Other(completion) => completion,
        })
    }

    fn fd(&self) -> RawFd {
        -1
    }
}

impl Drop for SimulatedSockets {
    fn drop(&mut self) {
        let listeners: Vec<Key> = self.listeners.keys().collect();
        for key in listeners {
            self.close_listener(ListenerId(key));
        }
    }
}

impl Connection {
    fn new(stream: Option<Stream>, options: ConnectionOptions) -> Self {
        Self {
            stream,
            connected_ns: None,
            peer: Address::Unix(Default::default()),
            sending: None,
            options,
            is_receiving: true,
            has_ended: false,
        }
    }
}
