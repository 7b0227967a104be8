//! The tier of current kernels: requests that complete in an io_uring.
//!
//! One request receives for a connection as long as it lives (multishot), out of buffers that all
//! connections share; one accepts for a listener; sends of a turn go with one call. The ring has
//! one issuer and deferred task work: completions are made when this thread asks for them, and a
//! flag in shared memory says that there are some, so spinning makes no system call.
//!
//! Sockets are blocking ones: the ring waits for them in the kernel, and direct calls say
//! `MSG_DONTWAIT`.
//!
//! Invariant: what the kernel may still touch (the bytes of a send, the buffers, the descriptor)
//! lives until the completion of its last request; `in_flight` counts those, per connection. Not
//! here: registered files and SEND_ZC, which brought nothing or less (design notes).

mod completions;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process;
use std::sync::Arc;

use io_uring::{opcode, types};

use crate::clock;

use super::accepting::Pause;
use super::buffers::{Buffers, GROUP, Part};
use super::readiness::Outgoing;
use super::ring::{Kind, Ring, Token};
use super::slots::{Key, Slots};
use super::socket::{self, Credentials, End, Socket};
use super::waiting::{self, Sleeper, Source, Waited, Waker};
use super::watches::Watches;
use super::{
    Address, Completion, Config, ConnectionId, ConnectionOptions, LISTENERS_MAX, ListenerId, Look,
    SendMode, Sending, Sockets, TURN_COMPLETIONS_MAX, Tier, WatchId, busy, check_descriptors,
    not_found,
};

/// The bytes that one send hands to the kernel; more goes with the next request.
const SEND_BYTES_MAX: usize = 1 << 30;
/// How often and how long the end of a shard waits for its requests to be cancelled.
const CANCEL_ROUNDS_MAX: u32 = 100;
const CANCEL_ROUND_NS: u64 = 100_000_000;

#[derive(Debug)]
struct Connection {
    fd: OwnedFd,
    sending: Option<Outgoing>,
    options: ConnectionOptions,
    /// Requests of which completions will come: of receiving, and of everything.
    receives_in_flight: u8,
    in_flight: u8,
    is_connecting: bool,
    is_receiving: bool,
    has_ended: bool,
    is_closing: bool,
}

#[derive(Debug)]
struct Listener {
    fd: OwnedFd,
    is_armed: bool,
    is_resting: bool,
    is_closing: bool,
}

enum Step {
    Received(ConnectionId, Part),
    /// Bytes that came by a call, with or without descriptors.
    Read(ConnectionId, usize),
    Other(Completion<'static>),
}

pub(super) struct UringSockets {
    // Dropped first: afterwards the kernel knows nothing of what follows.
    ring: Ring,
    buffers: Buffers,
    connections: Slots<Connection>,
    listeners: Slots<Listener>,
    sleeper: Arc<Sleeper>,
    watches: Watches,
    done: VecDeque<Completion<'static>>,
    /// What the last completion shows.
    shown: Option<Part>,
    /// For connections that take descriptors, whose bytes come by calls.
    buffer: Vec<u8>,
    behind_descriptors: Option<(ConnectionId, usize)>,
    pause: Pause,
    turn_left: u32,
    process: u32,
}

impl UringSockets {
    pub(super) fn new(config: &Config, entries: u32) -> io::Result<Self> {
        let ring = Ring::new(entries)?;
        let buffers = Buffers::new(
            ring.inner(),
            config.receive_buffers,
            config.receive_bytes,
            config.uses_newer_features,
        )?;
        let sleeper = Sleeper::kernel()?;
        let mut sockets = Self {
            ring,
            buffers,
            connections: Slots::new(config.connections_max, "connections"),
            listeners: Slots::new(LISTENERS_MAX, "listeners"),
            watches: Watches::new(sleeper.event().fd(), config.connections_max)?,
            sleeper,
            done: VecDeque::new(),
            shown: None,
            buffer: Vec::new(),
            behind_descriptors: None,
            pause: Pause::new(),
            turn_left: 0,
            process: process::id(),
        };
        sockets.arm_waker();
        // A filter may allow the setup and nothing else.
        sockets.ring.submit()?;
        Ok(sockets)
    }

    fn arm_waker(&mut self) {
        let request = opcode::PollAdd::new(types::Fd(self.watches.fd()), POLL_READ);
        // SAFETY: a poll request points to no memory.
        unsafe { self.ring.push(request.build(), Token::of(Kind::Waker)) };
    }

    fn add(&mut self, connection: Connection) -> io::Result<ConnectionId> {
        self.connections.reserve()?;
        self.reserve_done()?;
        let key = self.connections.insert(connection);
        self.arm_receive(key);
        Ok(ConnectionId(key))
    }

    fn add_listener(&mut self, fd: OwnedFd) -> io::Result<ListenerId> {
        self.listeners.reserve()?;
        socket::set_blocking(&fd, true)?;
        let key = self.listeners.insert(Listener {
            fd,
            is_armed: false,
            is_resting: false,
            is_closing: false,
        });
        self.arm_accept(key);
        Ok(ListenerId(key))
    }

    /// Starts to accept, unless it does already or should not.
    fn arm_accept(&mut self, key: Key) {
        let Some(listener) = self.listeners.get_mut(key) else {
            return;
        };
        if listener.is_armed || listener.is_resting || listener.is_closing {
            return;
        }
        listener.is_armed = true;
        let fd = types::Fd(listener.fd.as_raw_fd());
        let request = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC);
        // SAFETY: the peer's address is not asked for, so the request points to no memory.
        unsafe {
            self.ring
                .push(request.build(), Token::new(Kind::Accept, key))
        };
    }

    /// Starts to receive, unless it does already or should not.
    fn arm_receive(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let is_wanted = connection.is_receiving
            && !connection.is_connecting
            && !connection.has_ended
            && !connection.is_closing;
        if !is_wanted || connection.receives_in_flight > 0 {
            return;
        }
        connection.receives_in_flight = 1;
        connection.in_flight += 1;
        let fd = types::Fd(connection.fd.as_raw_fd());
        let request = match connection.options.takes_descriptors {
            false => opcode::RecvMulti::new(fd, GROUP).build(),
            true => opcode::PollAdd::new(fd, POLL_READ).build(),
        };
        // SAFETY: what the request writes to are buffers of the group, which outlive the ring.
        unsafe { self.ring.push(request, Token::new(Kind::Receive, key)) };
    }

    fn arm_send(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Some(outgoing) = &connection.sending else {
            return;
        };
        let rest = &outgoing.bytes[outgoing.sent..];
        let count = rest.len().min(SEND_BYTES_MAX) as u32;
        connection.in_flight += 1;
        let fd = types::Fd(connection.fd.as_raw_fd());
        let request = opcode::Send::new(fd, rest.as_ptr(), count)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL);
        // SAFETY: the bytes stay where they are, unchanged, in `sending` until the completion.
        unsafe { self.ring.push(request.build(), Token::new(Kind::Send, key)) };
    }

    /// Ends requests of a kind; their completions say that they have.
    fn cancel(&mut self, token: Token) {
        let request = opcode::AsyncCancel::new(token.bits());
        // SAFETY: a cancellation points to no memory.
        unsafe { self.ring.push(request.build(), Token::of(Kind::Cancel)) };
    }

    /// Sees to it that the end of everything that is open can be noted.
    fn reserve_done(&mut self) -> io::Result<()> {
        let count = self.connections.count() + self.watches.count() + LISTENERS_MAX as usize + 2;
        let more = count.saturating_sub(self.done.len());
        let no_memory = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        self.done.try_reserve(more).map_err(no_memory)
    }

    /// An open connection that is not about to close.
    fn connection(&mut self, id: ConnectionId) -> io::Result<&mut Connection> {
        let connection = self.connections.get_mut(id.0);
        connection
            .filter(|connection| !connection.is_closing)
            .ok_or_else(not_found)
    }

    fn sender(&mut self, id: ConnectionId) -> io::Result<&mut Connection> {
        let connection = self.connection(id)?;
        if connection.is_connecting {
            return Err(io::ErrorKind::NotConnected.into());
        }
        match connection.sending {
            Some(_) => Err(busy()),
            None => Ok(connection),
        }
    }

    /// Takes back what `next` has shown.
    fn end_showing(&mut self) {
        if let Some(part) = self.shown.take() {
            self.buffers.give_back(part);
        }
    }

    fn wake_listeners(&mut self) {
        let keys: Vec<Key> = self.listeners.keys().collect();
        for key in keys {
            if let Some(listener) = self.listeners.get_mut(key) {
                listener.is_resting = false;
            }
            self.arm_accept(key);
        }
    }
}

/// `POLLIN` as the ring takes it.
const POLL_READ: u32 = libc::POLLIN as u32;

impl Source for UringSockets {
    fn is_ready(&self) -> bool {
        self.behind_descriptors.is_some() || !self.done.is_empty() || self.ring.has_completions()
    }

    fn check(&mut self) -> io::Result<bool> {
        self.ring.submit()?;
        Ok(self.is_ready())
    }

    fn glance(&mut self) -> io::Result<bool> {
        if self.ring.has_completions() {
            return Ok(true);
        }
        if !self.ring.has_task_work() {
            return Ok(false);
        }
        self.check()
    }

    fn sleep(&mut self, until_ns: u64) -> io::Result<bool> {
        self.ring.submit_and_sleep(until_ns)
    }

    fn due_ns(&self) -> u64 {
        self.pause.due_ns()
    }
}

impl Sockets for UringSockets {
    fn tier(&self) -> Tier {
        Tier::Uring
    }

    fn listen(&mut self, address: &Address) -> io::Result<ListenerId> {
        self.listeners.reserve()?;
        self.add_listener(socket::listen(address)?)
    }

    fn adopt_listener(&mut self, socket: OwnedFd) -> io::Result<ListenerId> {
        socket::check_listening(&socket)?;
        self.add_listener(socket)
    }

    fn local_address(&self, listener: ListenerId) -> io::Result<Address> {
        let listener = self.listeners.get(listener.0).ok_or_else(not_found)?;
        socket::local_address(&listener.fd)
    }

    fn close_listener(&mut self, listener: ListenerId) {
        let key = listener.0;
        let Some(listener) = self.listeners.get_mut(key) else {
            return;
        };
        if mem::replace(&mut listener.is_closing, true) {
            return;
        }
        // Clients see the end now, whatever the ring still holds.
        let _ = socket::shutdown(&listener.fd, End::Both);
        if listener.is_armed {
            self.cancel(Token::new(Kind::Accept, key));
        }
        self.end_listener(key);
    }

    fn connect(
        &mut self,
        address: &Address,
        options: ConnectionOptions,
    ) -> io::Result<ConnectionId> {
        self.connections.reserve()?;
        let (fd, _) = socket::connect(address)?;
        let raw = types::Fd(fd.as_raw_fd());
        let mut connection = Connection::new(fd, options);
        connection.is_connecting = true;
        connection.in_flight = 1;
        self.prepare_buffer(options);
        let id = self.add(connection)?;
        // One that is connected already is ready for writing at once.
        let request = opcode::PollAdd::new(raw, libc::POLLOUT as u32);
        // SAFETY: a poll request points to no memory.
        unsafe {
            self.ring
                .push(request.build(), Token::new(Kind::Connect, id.0))
        };
        Ok(id)
    }

    fn adopt(&mut self, socket: Socket, options: ConnectionOptions) -> io::Result<ConnectionId> {
        let fd = socket.kernel()?;
        socket::set_blocking(&fd, true)?;
        self.prepare_buffer(options);
        self.add(Connection::new(fd, options))
    }

    fn set_receiving(&mut self, connection: ConnectionId, is_on: bool) -> io::Result<()> {
        let key = connection.0;
        let connection = self.connection(connection)?;
        let was_on = mem::replace(&mut connection.is_receiving, is_on);
        let is_armed = connection.receives_in_flight > 0;
        if is_on {
            self.arm_receive(key);
        } else if was_on && is_armed {
            self.cancel(Token::new(Kind::Receive, key));
        }
        Ok(())
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        bytes: &mut Vec<u8>,
        mode: SendMode,
    ) -> io::Result<Sending> {
        let key = connection.0;
        let connection = self.sender(connection)?;
        if bytes.is_empty() {
            return Ok(Sending::Done);
        }
        let mut sent = 0;
        if mode == SendMode::Direct {
            sent = socket::send(&connection.fd, bytes)?;
            if sent == bytes.len() {
                bytes.clear();
                return Ok(Sending::Done);
            }
        }
        let bytes = mem::take(bytes);
        connection.sending = Some(Outgoing { bytes, sent });
        self.arm_send(key);
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
        socket::send_descriptors(&connection.fd, bytes, descriptors)
    }

    fn finish(&mut self, connection: ConnectionId) -> io::Result<()> {
        let connection = self.sender(connection)?;
        socket::shutdown(&connection.fd, End::Sending)
    }

    fn close(&mut self, connection: ConnectionId) {
        let key = connection.0;
        let Ok(connection) = self.connection(connection) else {
            return;
        };
        connection.is_closing = true;
        // Ends what is in flight, and the peer sees the end now.
        let _ = socket::shutdown(&connection.fd, End::Both);
        let receives = connection.receives_in_flight > 0;
        let (sends, connects) = (connection.sending.is_some(), connection.is_connecting);
        if receives {
            self.cancel(Token::new(Kind::Receive, key));
        }
        if sends {
            self.cancel(Token::new(Kind::Send, key));
        }
        if connects {
            self.cancel(Token::new(Kind::Connect, key));
        }
        self.end(key);
    }

    fn peer_credentials(&self, connection: ConnectionId) -> io::Result<Credentials> {
        let connection = self.connections.get(connection.0).ok_or_else(not_found)?;
        socket::credentials(&connection.fd)
    }

    fn peer_address(&self, connection: ConnectionId) -> io::Result<Address> {
        let connection = self.connections.get(connection.0).ok_or_else(not_found)?;
        socket::peer_address(&connection.fd)
    }

    fn waker(&self) -> Waker {
        Waker::new(&self.sleeper)
    }

    fn watch(&mut self, event: OwnedFd) -> io::Result<WatchId> {
        self.reserve_done()?;
        self.watches.watch(event)
    }

    fn unwatch(&mut self, watch: WatchId) {
        self.watches.unwatch(watch, &mut self.done);
    }

    fn wait(
        &mut self,
        deadline_ns: u64,
        spin_ns: u64,
        look: &mut dyn FnMut(Look) -> bool,
    ) -> io::Result<Waited> {
        self.end_showing();
        self.turn_left = TURN_COMPLETIONS_MAX;
        if self.pause.is_over() {
            self.wake_listeners();
        }
        let sleeper = Arc::clone(&self.sleeper);
        waiting::wait(self, &sleeper, deadline_ns, spin_ns, look)
    }

    fn next(&mut self) -> Option<Completion<'_>> {
        self.end_showing();
        self.turn_left = self.turn_left.checked_sub(1)?;
        Some(match self.step()? {
            Step::Received(connection, part) => {
                self.shown = Some(part);
                let bytes = self.buffers.show(part);
                Completion::Received { connection, bytes }
            }
            Step::Read(connection, count) => Completion::Received {
                connection,
                bytes: &self.buffer[..count],
            },
            Step::Other(completion) => completion,
        })
    }

    fn fd(&self) -> RawFd {
        self.ring.fd()
    }
}

impl UringSockets {
    /// Makes the buffer of calls when the first connection needs it.
    fn prepare_buffer(&mut self, options: ConnectionOptions) {
        if options.takes_descriptors && self.buffer.is_empty() {
            self.buffer = vec![0; super::DESCRIPTORS_BUFFER_BYTES];
        }
    }

    fn in_flight(&self) -> u32 {
        let connections = self.connections.keys().filter_map(|key| {
            let connection = self.connections.get(key)?;
            Some(u32::from(connection.in_flight))
        });
        let listeners = self.listeners.keys().filter_map(|key| {
            let listener = self.listeners.get(key)?;
            Some(u32::from(listener.is_armed))
        });
        connections.sum::<u32>() + listeners.sum::<u32>()
    }
}

impl Drop for UringSockets {
    /// Cancels everything and waits until the kernel has let go of the buffers.
    fn drop(&mut self) {
        // In a forked child the requests are the parent's, and so are the buffers they fill.
        if process::id() != self.process {
            return;
        }
        self.end_showing();
        let connections: Vec<Key> = self.connections.keys().collect();
        for key in connections {
            self.close(ConnectionId(key));
        }
        let listeners: Vec<Key> = self.listeners.keys().collect();
        for key in listeners {
            self.close_listener(ListenerId(key));
        }
        for _ in 0..CANCEL_ROUNDS_MAX {
            let until_ns = clock::monotonic_ns() + CANCEL_ROUND_NS;
            if self.in_flight() == 0 || self.ring.submit_and_sleep(until_ns).is_err() {
                break;
            }
            while self.step().is_some() {}
        }
        if self.in_flight() > 0 {
            // Losing memory is better than the kernel writing into what has another owner.
            for key in self.connections.keys().collect::<Vec<_>>() {
                mem::forget(self.connections.remove(key));
            }
            self.buffers.leak();
        }
    }
}

impl Connection {
    fn new(fd: OwnedFd, options: ConnectionOptions) -> Self {
        Self {
            fd,
            sending: None,
            options,
            receives_in_flight: 0,
            in_flight: 0,
            is_connecting: false,
            is_receiving: true,
            has_ended: false,
            is_closing: false,
        }
    }
}
