//! The sockets of one shard, completion-shaped: what is asked for is done by the kernel, and
//! [`next`](Sockets::next) tells when.
//!
//! Called after what it hands out; beside it a trait for files will stand, on the same loop. Three
//! tiers implement it, chosen by trying ([`open`]): `uring` (requests complete in the ring),
//! `uring-basic` and `epoll` (readiness, and plain calls that move the bytes), and a simulated
//! network ([`SimulatedSockets`]). The shape is the ring's, because readiness can be
//! made to look like completions at no cost, and not the other way round.
//!
//! **A turn** of the caller's loop is: [`wait`](Sockets::wait), then `next` until it says `None`
//! (received bytes are decoded where they lie), then one [`send`](Sockets::send) for each
//! connection that has something to say. `wait` submits what was asked for in the turn.
//!
//! **Buffers.** Received bytes are the driver's and are shown until the next call; what is left of
//! a frame the caller copies. Bytes to send are the caller's vector, which changes hands: the
//! driver keeps it until [`Completion::Sent`] gives it back, so a caller needs one pool of them,
//! and an idle connection none. One send of a connection is in flight at a time.
//!
//! **Ends.** [`close`](Sockets::close) cancels; [`Completion::Closed`] says that the kernel has let
//! go of everything, and only then is the place of the connection used again. Both sides of a
//! connection end by themselves: the peer's by [`Completion::Ended`], ours by
//! [`finish`](Sockets::finish), so a half-closed peer still gets its answers.
//!
//! Bounded: connections and listeners by [`Config`], completions of a turn by
//! [`TURN_COMPLETIONS_MAX`], received bytes by the driver's buffers. Not here: what the bytes
//! mean, which connection belongs to which shard, reconnecting, and how long to spin.

mod accepting;
mod address;
mod buffers;
mod epoll;
mod network;
mod readiness;
mod ring;
mod ring_poll;
mod simulated;
mod slots;
mod socket;
mod tier;
mod uring;
mod waiting;
mod watches;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

pub use address::Address;
pub use network::{Faults, SimulatedNetwork};
pub use simulated::SimulatedSockets;
pub use socket::{Credentials, Socket, is_answered};
pub use tier::{Opened, PassedOver, Report, Tier, VARIABLE, open, open_movable, open_tier};
pub use waiting::{Waited, Waker};

/// Completions that [`Sockets::next`] gives between two waits; the rest waits for the next turn.
pub const TURN_COMPLETIONS_MAX: u32 = 1024;
/// Accepts that one turn calls for, in the tiers that accept by a call; those of the ring are
/// completions like others.
pub const TURN_ACCEPTS_MAX: u32 = 64;
/// Connections that wait for an accept in the kernel, for each listener.
pub const BACKLOG: i32 = 1024;
/// How long a listener that has run out of descriptors or memory rests, unless a connection of
/// its shard closes before.
pub const ACCEPT_PAUSE_NS: u64 = 100_000_000;
/// Listeners of one shard.
pub const LISTENERS_MAX: u32 = 64;
/// Descriptors that travel with one message.
pub const DESCRIPTORS_MAX: usize = 8;
/// What one read takes from a connection that takes descriptors, in the `uring` tier.
const DESCRIPTORS_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes that descriptors travel with.
pub const DESCRIPTORS_BYTES_MAX: usize = 4096;

/// What one shard may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Connections; one more is refused.
    pub connections_max: u32,
    /// Requests that the ring takes between two submissions: a power of two. A ring that does not
    /// fit into the memory of the process is tried again with half of them, down to 64.
    pub ring_entries: u32,
    /// Bytes of one receive buffer: what one read can take.
    pub receive_bytes: u32,
    /// Receive buffers of the `uring` tier: a power of two. The other tiers have one.
    pub receive_buffers: u16,
    /// Whether a tier may use what is newer than the kernel that it needs: parts of buffers in
    /// `uring` (Linux 6.12), cooperative task work in `uring-basic` (5.19). Off to test without.
    pub uses_newer_features: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 65_536,
            ring_entries: 1024,
            receive_bytes: 256 * 1024,
            receive_buffers: 8,
            uses_newer_features: true,
        }
    }
}

/// A connection of one shard; never used again for another one of the same shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(slots::Key);

impl ConnectionId {
    /// The place of the connection in its shard, below [`Config::connections_max`]: for tables
    /// beside it. Used again after [`Completion::Closed`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0.index as usize
    }
}

/// A listener of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(slots::Key);

/// An eventfd that one shard watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchId(slots::Key);

/// How a connection is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// Whether descriptors may come with its bytes (Unix sockets). Costs a call for each read;
    /// without it the kernel drops them.
    pub takes_descriptors: bool,
}

/// When bytes leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendMode {
    /// With everything else of the turn, by the submission of the next wait.
    Batched,
    /// By a call now, what is left by the next submission: for a message that is alone.
    Direct,
}

/// Why a wait calls its `look`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It spins, and calls again and again: a few loads are all it should cost.
    Spinning,
    /// It is about to sleep, and calls once: whoever makes work by other ways than a [`Waker`]
    /// (shared memory, lanes with gates of their own) is to be told that it must be woken, and
    /// then looked at.
    Sleeping,
}

/// Where the bytes of a send are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// In the kernel, all of them. The vector is the caller's, empty, with its capacity.
    Done,
    /// On their way. The vector is the driver's until [`Completion::Sent`].
    Started,
}

/// What has happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Completion<'a> {
    /// Somebody has connected. [`Sockets::adopt`] it here, or hand it to another shard.
    Accepted {
        /// Where.
        listener: ListenerId,
        /// The new connection, of which nothing was read yet.
        socket: Socket,
    },
    /// No connection can be accepted now: out of descriptors or memory. The listener rests for
    /// [`ACCEPT_PAUSE_NS`] or until a connection closes; clients wait in its backlog.
    AcceptPaused {
        /// Which listener.
        listener: ListenerId,
        /// Why.
        error: io::Error,
    },
    /// A connect has ended. With an error nothing but [`Sockets::close`] is left to do.
    Connected {
        /// Which connection.
        connection: ConnectionId,
        /// Whether there is a peer.
        result: io::Result<()>,
    },
    /// Bytes have arrived.
    Received {
        /// Which connection.
        connection: ConnectionId,
        /// At least one byte; the driver's, valid until the next call.
        bytes: &'a [u8],
    },
    /// Descriptors have arrived; the bytes that they came with follow.
    Descriptors {
        /// Which connection.
        connection: ConnectionId,
        /// At least one; [`DESCRIPTORS_MAX`] at most.
        descriptors: Vec<OwnedFd>,
    },
    /// Nothing more will arrive. What was sent to the peer is not concerned.
    Ended {
        /// Which connection.
        connection: ConnectionId,
        /// Why, if it is not that the peer has said all (`ECONNRESET`, for one).
        error: Option<io::Error>,
    },
    /// A send that was `Started` has ended; the next may start.
    Sent {
        /// Which connection.
        connection: ConnectionId,
        /// The vector, empty, with its capacity.
        buffer: Vec<u8>,
        /// An error (`EPIPE`, `ECONNRESET`) says that nothing can be sent any more. What has
        /// arrived before can still be received.
        result: io::Result<()>,
    },
    /// The connection is gone, with whatever was in flight.
    Closed {
        /// Which connection; the id means nothing from now on.
        connection: ConnectionId,
    },
    /// A watched eventfd was written to, once or more often.
    Signalled {
        /// Which.
        watch: WatchId,
    },
    /// The listener is gone, its address free.
    ListenerClosed {
        /// Which listener; the id means nothing from now on.
        listener: ListenerId,
    },
}

/// The sockets of one shard. Made and used by one thread, but for its [`Waker`].
///
/// Nothing but `wait` blocks. An id that is not open (any more) is `NotFound`.
pub trait Sockets {
    /// Which tier this is.
    fn tier(&self) -> Tier;

    /// Starts to accept connections at an address. A Unix path must not exist; the caller
    /// removes stale ones, and this one in the end. TCP port 0 takes a free one.
    ///
    /// # Errors
    /// `AddrInUse`, `PermissionDenied`, a path that is too long, or no place for a listener.
    fn listen(&mut self, address: &Address) -> io::Result<ListenerId>;

    /// Accepts connections of a socket that listens already: one that the service manager made.
    ///
    /// # Errors
    /// No place for a listener. `InvalidInput`: it is no stream socket that listens.
    fn adopt_listener(&mut self, socket: OwnedFd) -> io::Result<ListenerId>;

    /// Where a listener listens; tells the port that was free.
    ///
    /// # Errors
    /// `NotFound`.
    fn local_address(&self, listener: ListenerId) -> io::Result<Address>;

    /// Stops to accept; [`Completion::ListenerClosed`] follows.
    fn close_listener(&mut self, listener: ListenerId);

    /// Starts to connect; [`Completion::Connected`] follows.
    ///
    /// # Errors
    /// What can be known at once: a path that is too long, no descriptors, no place for a
    /// connection, no such path; `WouldBlock` for a Unix listener whose backlog is full.
    fn connect(
        &mut self,
        address: &Address,
        options: ConnectionOptions,
    ) -> io::Result<ConnectionId>;

    /// Makes an accepted socket a connection of this shard and starts to receive.
    ///
    /// # Errors
    /// No place for a connection: `socket` is closed then.
    fn adopt(&mut self, socket: Socket, options: ConnectionOptions) -> io::Result<ConnectionId>;

    /// Stops receiving, or goes on. What has reached the driver's buffers may still be shown
    /// after a stop. While stopped, nothing tells that the peer is gone but a send.
    ///
    /// # Errors
    /// `NotFound`.
    fn set_receiving(&mut self, connection: ConnectionId, is_on: bool) -> io::Result<()>;

    /// Sends all of `bytes`, which may be of any size. Empties it either way, or takes it: see
    /// [`Sending`].
    ///
    /// # Errors
    /// `ResourceBusy`: one is in flight, wait for its [`Completion::Sent`]. `NotConnected`: not
    /// connected yet. What the connection says (`EPIPE`, `ECONNRESET`), where that is known at
    /// once; else `Sent` says it. `bytes` is as it was; after the last kind a part of it may have
    /// been sent, and the connection is of no use for sending.
    fn send(
        &mut self,
        connection: ConnectionId,
        bytes: &mut Vec<u8>,
        mode: SendMode,
    ) -> io::Result<Sending>;

    /// Sends descriptors with a few bytes over a Unix socket, by a call: all or nothing.
    ///
    /// # Errors
    /// `ResourceBusy`: a send is in flight. `WouldBlock`: the peer has not read enough; try again
    /// later. `InvalidInput`: none, or more than the limits. Else what the connection says.
    fn send_descriptors(
        &mut self,
        connection: ConnectionId,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()>;

    /// Says to the peer that all was sent: it sees an end after what went before, and its own
    /// bytes still arrive here.
    ///
    /// # Errors
    /// `ResourceBusy`: a send is in flight. `NotConnected`.
    fn finish(&mut self, connection: ConnectionId) -> io::Result<()>;

    /// Ends a connection at once; [`Completion::Closed`] follows and nothing else of it. What the
    /// kernel has to send is sent, unless bytes of the peer were left unread (TCP then resets);
    /// for an end that loses nothing: `finish`, receive until `Ended`, then close.
    fn close(&mut self, connection: ConnectionId);

    /// Who is at the other end of a Unix socket, by the kernel's word at connect time.
    ///
    /// # Errors
    /// `Unsupported` for TCP; `NotFound`.
    fn peer_credentials(&self, connection: ConnectionId) -> io::Result<Credentials>;

    /// The address at the other end; an empty path for most Unix sockets.
    ///
    /// # Errors
    /// `NotFound`, `NotConnected`.
    fn peer_address(&self, connection: ConnectionId) -> io::Result<Address>;

    /// What other threads end a wait with.
    fn waker(&self) -> Waker;

    /// Ends waits when an eventfd is written to, which other processes may have, too: what peers
    /// that share memory wake the shard with. Every write after a [`Completion::Signalled`] is told
    /// by another one. It is never read, so a peer cannot make the shard block.
    ///
    /// # Errors
    /// As many as connections are watched; out of memory; `Unsupported` in a simulation.
    fn watch(&mut self, event: OwnedFd) -> io::Result<WatchId>;

    /// Closes a watched eventfd; nothing more is told of it.
    fn unwatch(&mut self, watch: WatchId);

    /// Starts what was asked for since the last wait, and waits until there is something for
    /// [`next`](Sockets::next), `look` says that there is other work, a [`Waker`] is used, or the
    /// monotonic `deadline_ns` has passed (0: does not wait; [`FOREVER_NS`](crate::FOREVER_NS)).
    ///
    /// First spins for at most `spin_ns`, calling `look` again and again (`uring`: without a system
    /// call), then sleeps. Between the moment when wakers see that it sleeps and the sleep it calls
    /// `look` once more ([`Look::Sleeping`]): whoever makes work first and wakes then is not
    /// missed. May return early for no reason (`EINTR`).
    ///
    /// # Errors
    /// Only what the shard cannot go on with: the ring or epoll itself fails.
    fn wait(
        &mut self,
        deadline_ns: u64,
        spin_ns: u64,
        look: &mut dyn FnMut(Look) -> bool,
    ) -> io::Result<Waited>;

    /// The next thing that has happened; `None` when the turn is over.
    fn next(&mut self) -> Option<Completion<'_>>;

    /// Readable while a wait would find something: for loops of others. −1 in a simulation.
    fn fd(&self) -> RawFd;
}

/// An id that is not open.
fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// A send while another one is in flight.
fn busy() -> io::Error {
    io::ErrorKind::ResourceBusy.into()
}

/// Refuses descriptors that are too many, or bytes that might not go at once.
fn check_descriptors(bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let (bytes, count) = (bytes.len(), descriptors.len());
    if (1..=DESCRIPTORS_BYTES_MAX).contains(&bytes) && (1..=DESCRIPTORS_MAX).contains(&count) {
        return Ok(());
    }
    let says = format!(
        "{count} descriptors with {bytes} bytes; it may be 1 to {DESCRIPTORS_MAX} descriptors \
         with 1 to {DESCRIPTORS_BYTES_MAX} bytes"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, says))
}
