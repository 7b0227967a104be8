//! Completions made of readiness: the tiers `epoll` and `uring-basic`.
//!
//! A poller says which sockets are ready, plain non-blocking calls move the bytes, and the result
//! is handed out as if the kernel had done it alone. Each ready socket gets one read a turn, into
//! one buffer that stays in the cache; a send is a call at once, and only what does not fit waits.
//!
//! `uring-basic` moves its bytes this way, too, and not with READV and WRITEV of the ring: these
//! cannot say `MSG_NOSIGNAL`, and a library must not raise SIGPIPE in its host.
//!
//! Invariant: `watch.armed` of a connection is what the poller still knows of it; only when that is
//! nothing the descriptor is closed and the place given back.

mod events;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::accepting::Pause;
use super::slots::{Key, Slots};
use super::socket::{self, Credentials, End, Socket};
use super::waiting::{self, Sleeper, Source, Waited, Waker};
use super::watches::Watches;
use super::{
    Address, Completion, Config, ConnectionId, ConnectionOptions, LISTENERS_MAX, ListenerId, Look,
    SendMode, Sending, Sockets, TURN_ACCEPTS_MAX, TURN_COMPLETIONS_MAX, Tier, WatchId, busy,
    check_descriptors, not_found,
};

/// What a token's key is of.
pub(super) const CONNECTION: u8 = 0;
pub(super) const LISTENER: u8 = 1;
pub(super) const WAKER: u8 = 2;
/// Kinds from here on are the poller's own.
pub(super) const KINDS: u8 = 3;

/// Bits of [`Watch::armed`].
pub(super) const READ: u8 = 1;
pub(super) const WRITE: u8 = 2;

/// Of so many glances at a lone socket one asks the poller.
const GLANCES_PER_POLL: u32 = 8;

/// What is wanted of a descriptor, and what the poller has of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    pub(super) reads: bool,
    pub(super) writes: bool,
    pub(super) armed: u8,
}

/// A descriptor is ready, or a watch has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) token: u64,
    pub(super) reads: bool,
    pub(super) writes: bool,
    /// What the poller has let go of.
    pub(super) fired: u8,
}

/// Who knows which descriptors are ready.
pub(super) trait Poller {
    fn tier(&self) -> Tier;

    /// Connections that it can watch at the same time.
    fn connections_max(&self) -> u32;

    /// Makes what is watched what is wanted. Ready once is ready again at the next poll.
    fn watch(&mut self, fd: RawFd, token: u64, watch: &mut Watch) -> io::Result<()>;

    /// Lets go of a descriptor: of all at once, or an event tells for what is still armed.
    fn forget(&mut self, fd: RawFd, token: u64, watch: &mut Watch);

    /// The next event of the last poll.
    fn next(&mut self) -> Option<Event>;

    fn has_next(&self) -> bool;

    /// Whether a glance is a system call: then a lone connection is read instead.
    const GLANCES_BY_CALL: bool;

    /// Asks the kernel without waiting.
    fn check(&mut self) -> io::Result<()>;

    /// As [`Source::glance`].
    fn glance(&mut self) -> io::Result<bool>;

    /// As [`Source::sleep`].
    fn sleep(&mut self, until_ns: u64) -> io::Result<bool>;

    fn fd(&self) -> RawFd;
}

#[derive(Debug)]
struct Connection {
    fd: OwnedFd,
    watch: Watch,
    sending: Option<Outgoing>,
    options: ConnectionOptions,
    is_connecting: bool,
    is_receiving: bool,
    has_ended: bool,
    is_closing: bool,
}

#[derive(Debug)]
struct Listener {
    fd: OwnedFd,
    watch: Watch,
    is_resting: bool,
    is_closing: bool,
}

/// A send in flight.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: usize,
}

/// What a step has found; received bytes are borrowed when it is handed out.
enum Step {
    Received(ConnectionId, usize),
    Other(Completion<'static>),
}

/// The sockets of a shard over a poller.
pub(super) struct ReadinessSockets<P> {
    poller: P,
    connections: Slots<Connection>,
    listeners: Slots<Listener>,
    buffer: Vec<u8>,
    sleeper: Arc<Sleeper>,
    watches: Watches,
    waker_watch: Watch,
    /// What is known without the poller.
    done: VecDeque<Completion<'static>>,
    /// An event that is not dealt with yet, or not wholly.
    current: Option<Event>,
    /// Bytes in the buffer that are handed out next: they were read by a glance, or have come with
    /// descriptors.
    read: Option<(ConnectionId, usize)>,
    glances: u32,
    pause: Pause,
    turn_left: u32,
    accepts_left: u32,
}

impl<P: Poller> ReadinessSockets<P> {
    pub(super) fn new(mut poller: P, config: &Config) -> io::Result<Self> {
        let sleeper = Sleeper::kernel()?;
        let mut waker_watch = Watch {
            reads: true,
            ..Watch::default()
        };
        let token = waker_key().pack(WAKER);
        let watches = Watches::new(sleeper.event().fd(), config.connections_max)?;
        poller.watch(watches.fd(), token, &mut waker_watch)?;
        let connections_max = config.connections_max.min(poller.connections_max());
        Ok(Self {
            poller,
            connections: Slots::new(connections_max, "connections"),
            listeners: Slots::new(LISTENERS_MAX, "listeners"),
            buffer: vec![0; config.receive_bytes as usize],
            sleeper,
            watches,
            waker_watch,
            done: VecDeque::new(),
            current: None,
            read: None,
            glances: 0,
            pause: Pause::new(),
            turn_left: 0,
            accepts_left: 0,
        })
    }

    fn add(&mut self, connection: Connection) -> io::Result<ConnectionId> {
        self.connections.reserve()?;
        self.reserve_done()?;
        let key = self.connections.insert(connection);
        match self.rewatch(key) {
            Ok(()) => Ok(ConnectionId(key)),
            Err(error) => {
                self.connections.remove(key);
                Err(error)
            }
        }
    }

    fn add_listener(&mut self, fd: OwnedFd) -> io::Result<ListenerId> {
        self.listeners.reserve()?;
        socket::set_blocking(&fd, false)?;
        let key = self.listeners.insert(Listener {
            fd,
            watch: Watch::default(),
            is_resting: false,
            is_closing: false,
        });
        match self.rewatch_listener(key) {
            Ok(()) => Ok(ListenerId(key)),
            Err(error) => {
                self.listeners.remove(key);
                Err(error)
            }
        }
    }

    /// Tells the poller what the state of a connection calls for.
    fn rewatch(&mut self, key: Key) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(key) else {
            return Ok(());
        };
        let watch = &mut connection.watch;
        watch.reads = connection.is_receiving && !connection.has_ended && !connection.is_connecting;
        watch.writes = connection.is_connecting || connection.sending.is_some();
        let token = key.pack(CONNECTION);
        self.poller.watch(connection.fd.as_raw_fd(), token, watch)
    }

    fn rewatch_listener(&mut self, key: Key) -> io::Result<()> {
        let Some(listener) = self.listeners.get_mut(key) else {
            return Ok(());
        };
        listener.watch.reads = !listener.is_resting;
        let token = key.pack(LISTENER);
        self.poller
            .watch(listener.fd.as_raw_fd(), token, &mut listener.watch)
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

    /// As [`connection`](Self::connection), and able to send.
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

    /// Reads the only socket that there is, which finds bytes by one call in place of two. False:
    /// the poller is to be asked.
    fn has_read_alone(&mut self) -> bool {
        self.glances = self.glances.wrapping_add(1);
        let is_alone = P::GLANCES_BY_CALL
            && self.connections.count() == 1
            && self.listeners.count() == 0
            && !self.glances.is_multiple_of(GLANCES_PER_POLL);
        if !is_alone {
            return false;
        }
        let key = self.connections.keys().next();
        let Some((key, connection)) = key.and_then(|key| Some((key, self.connections.get(key)?)))
        else {
            return false;
        };
        if !connection.watch.reads
            || connection.watch.writes
            || connection.is_closing
            || connection.options.takes_descriptors
        {
            return false;
        }
        match socket::receive(&connection.fd, &mut self.buffer) {
            // The poller tells of the end, too, and then it is dealt with.
            Ok(0) => return false,
            Ok(count) => self.read = Some((ConnectionId(key), count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The kernel says it once.
            Err(error) => self.end_receiving(key, error),
        }
        true
    }

    /// A read has failed.
    #[cold]
    fn end_receiving(&mut self, key: Key, error: io::Error) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.has_ended = true;
        }
        self.done.push_back(Completion::Ended {
            connection: ConnectionId(key),
            error: Some(error),
        });
        // It watches less.
        let _ = self.rewatch(key);
    }

    fn wake_listeners(&mut self) {
        let keys: Vec<Key> = self.listeners.keys().collect();
        for key in keys {
            if let Some(listener) = self.listeners.get_mut(key)
                && !listener.is_closing
            {
                listener.is_resting = false;
                if self.rewatch_listener(key).is_err() {
                    self.pause.start();
                }
            }
        }
    }
}

/// The waker's key: there is one.
pub(super) fn waker_key() -> Key {
    Key {
        index: 0,
        generation: 0,
    }
}

impl<P: Poller> Source for ReadinessSockets<P> {
    fn is_ready(&self) -> bool {
        self.poller.has_next()
            || self.current.is_some()
            || self.read.is_some()
            || !self.done.is_empty()
    }

    fn check(&mut self) -> io::Result<bool> {
        if !self.is_ready() && !self.has_read_alone() {
            self.poller.check()?;
        }
        Ok(self.is_ready())
    }

    fn glance(&mut self) -> io::Result<bool> {
        match self.is_ready() || self.has_read_alone() {
            true => Ok(self.is_ready()),
            false => self.poller.glance(),
        }
    }

    fn sleep(&mut self, until_ns: u64) -> io::Result<bool> {
        self.poller.sleep(until_ns)
    }

    fn due_ns(&self) -> u64 {
        self.pause.due_ns()
    }
}

impl<P: Poller> Sockets for ReadinessSockets<P> {
    fn tier(&self) -> Tier {
        self.poller.tier()
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
        listener.is_closing = true;
        // Clients see the end now, whatever the poller still holds.
        let _ = socket::shutdown(&listener.fd, End::Both);
        let token = key.pack(LISTENER);
        self.poller
            .forget(listener.fd.as_raw_fd(), token, &mut listener.watch);
        self.end_listener(key);
    }

    fn connect(
        &mut self,
        address: &Address,
        options: ConnectionOptions,
    ) -> io::Result<ConnectionId> {
        self.connections.reserve()?;
        let (fd, _) = socket::connect(address)?;
        // One that is connected already is ready for writing at once.
        self.add(Connection {
            is_connecting: true,
            ..Connection::new(fd, options)
        })
    }

    fn adopt(&mut self, socket: Socket, options: ConnectionOptions) -> io::Result<ConnectionId> {
        self.add(Connection::new(socket.kernel()?, options))
    }

    fn set_receiving(&mut self, connection: ConnectionId, is_on: bool) -> io::Result<()> {
        self.connection(connection)?.is_receiving = is_on;
        self.rewatch(connection.0)
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        bytes: &mut Vec<u8>,
        _mode: SendMode,
    ) -> io::Result<Sending> {
        let key = connection.0;
        let connection = self.sender(connection)?;
        if bytes.is_empty() {
            return Ok(Sending::Done);
        }
        let sent = socket::send(&connection.fd, bytes)?;
        if sent == bytes.len() {
            bytes.clear();
            return Ok(Sending::Done);
        }
        let outgoing = mem::take(bytes);
        connection.sending = Some(Outgoing {
            bytes: outgoing,
            sent,
        });
        let result = self.rewatch(key);
        // A socket that the poller cannot watch (no memory) is one that cannot be sent to.
        if result.is_err()
            && let Some(connection) = self.connections.get_mut(key)
            && let Some(outgoing) = connection.sending.take()
        {
            *bytes = outgoing.bytes;
        }
        result.map(|()| Sending::Started)
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
        connection.sending = None;
        // The peer sees the end now, whatever the poller still holds.
        let _ = socket::shutdown(&connection.fd, End::Both);
        let (fd, mut watch) = (connection.fd.as_raw_fd(), connection.watch);
        self.poller.forget(fd, key.pack(CONNECTION), &mut watch);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.watch = watch;
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
        self.turn_left = TURN_COMPLETIONS_MAX;
        self.accepts_left = TURN_ACCEPTS_MAX;
        if self.pause.is_over() {
            self.wake_listeners();
        }
        let sleeper = Arc::clone(&self.sleeper);
        waiting::wait(self, &sleeper, deadline_ns, spin_ns, look)
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
        self.poller.fd()
    }
}

impl Connection {
    fn new(fd: OwnedFd, options: ConnectionOptions) -> Self {
        Self {
            fd,
            watch: Watch::default(),
            sending: None,
            options,
            is_connecting: false,
            is_receiving: true,
            has_ended: false,
            is_closing: false,
        }
    }
}
