//! The server: connections of the native protocol over the engine (`docs/protocol.md`).
//!
//! A server is a user of its broker. What a connection subscribes feeds queues, what it asks goes
//! through a requester, and what it publishes through one writer of its shard: so policies, groups,
//! fates and deadlines are those of every other user, and remote and local users see one another.
//!
//! | file | role |
//! |---|---|
//! | `session.rs` | one connection without I/O: bytes in, bytes out; the states of §9 |
//! | `commands.rs` | control frames of a ready connection |
//! | `publishing.rs` | what it publishes, and publishes that wait for room |
//! | `asking.rs` | what it asks and answers |
//! | `feed.rs`, `delivering.rs` | its subscriptions, and what they bring |
//! | `outlets.rs` | what goes to them past their queues |
//! | `parts.rs` | what the sessions of a shard share |
//! | `inbox.rs` | what comes to a shard from other threads |
//! | `many.rs` | requests for several answers, and reply streams |
//! | `owed.rs` | the requests that it has to answer |
//! | `connection.rs` | a connection as its shard knows it |
//! | `shard.rs` | sockets, sessions and the turn of the loop |
//! | `stats.rs` | what a server says of itself |
//! | `listen.rs` | a thread for each shard, their addresses, their end |
//!
//! **Bounds.** Everything a connection can make this side keep has a limit below. Not here:
//! the frame PRESENCE, whose capability is not offered.

mod asking;
mod commands;
mod connection;
mod delivering;
mod feed;
mod inbox;
mod listen;
mod many;
mod outlets;
mod owed;
mod parts;
mod publishing;
mod rows;
mod session;
mod shard;
mod stats;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fastmq_driver::scheduling::ThreadOptions;

pub use inbox::{Inbox, SessionKey};
pub use listen::Server;
pub use parts::Parts;
pub use session::Session;
pub use shard::Shard;
pub use stats::{Board, SUBJECT_STATS};

use crate::wait::Profile;

/// Shards of one server.
pub const SHARDS_MAX: u32 = 64;
/// Connections of one server.
pub const CONNECTIONS_MAX_DEFAULT: u32 = 65_536;
/// Connections above the limit that are told so; what comes beyond them is closed without a word.
pub const CONNECTIONS_REFUSED_MAX: u32 = 64;
/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX_DEFAULT: u32 = 4096;
/// Bytes that may wait for one connection that is slow.
pub const OUTGOING_BYTES_MAX: usize = 8 << 20;
/// Bytes of messages that a connection may send ahead of what was dealt with.
pub const CREDIT_BYTES: u64 = 2 << 20;
/// Aliases that are kept of one connection, and the sum of their subjects' sizes.
pub const ALIASES_MAX: u32 = 4096;
/// The sum of the sizes of an [alias table's](ALIASES_MAX) subjects; also of those that we send.
pub const ALIAS_BYTES_MAX: u64 = 256 << 10;
/// Publishers of one connection whose sequences are passed on.
pub const PUBLISHERS_MAX: usize = 1024;
/// Requests of one connection without a final answer.
pub const REQUESTS_MAX: u32 = crate::flight::IN_FLIGHT_MAX;
/// Requests that one connection was given and has not answered; the first gives way to one more.
pub const REQUESTS_OWED_MAX: u32 = 1 << 18;
/// How long a request that names no time to live may be open.
pub const REQUEST_NS_MAX: u64 = 600_000_000_000;
/// How long a connection may take for its HELLO.
pub const HANDSHAKE_NS: u64 = 10_000_000_000;
/// How long a publish waits for room.
pub const PARKED_NS: u64 = 10_000_000_000;
/// How long the other side may take to close after our last word.
pub const LINGER_NS: u64 = 2_000_000_000;
/// Messages that one connection gets in one turn before the others have theirs.
pub const TURN_MESSAGES: usize = 256;
/// Connections that are served in one turn. What they are sent goes with the next wait: so the
/// first of thousands do not wait for the last ones, and memory is used again while it is near.
pub const TURN_SESSIONS: usize = 128;

/// How a server is opened. `ServerOptions::default()` is what most want.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// What clients must know; empty: nothing.
    pub token: Vec<u8>,
    /// Its name, at most 255 bytes.
    pub name: String,
    /// Where else its clients may connect: URLs with commas between them, at most 4,096 bytes.
    /// They are told when they connect and when this one drains.
    pub servers: String,
    /// Whether it may listen beyond this machine, where its bytes can be read by others.
    pub is_insecure_allowed: bool,
    /// Threads that serve connections, at most [`SHARDS_MAX`]; each connection has one of them.
    pub shards: u32,
    /// Connections at once, of all shards together.
    pub connections_max: u32,
    /// Subscriptions of one connection.
    pub subscriptions_max: u32,
    /// How its threads wait.
    pub wait: Profile,
    /// What its threads are.
    pub thread: ThreadOptions,
    /// Sockets that listen already, which a service manager has made, to accept at beside the
    /// addresses. Their files are left alone.
    pub sockets: Vec<Arc<OwnedFd>>,
}

/// What a server that runs takes over.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// As [`ServerOptions::token`], for those who connect from now on.
    pub token: Vec<u8>,
    /// As [`ServerOptions::subscriptions_max`], for what is subscribed from now on.
    pub subscriptions_max: u32,
}

impl Changes {
    /// What there is to begin with.
    fn of(options: &ServerOptions) -> Self {
        Self {
            token: options.token.clone(),
            subscriptions_max: options.subscriptions_max,
        }
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            token: Vec::new(),
            name: String::new(),
            servers: String::new(),
            is_insecure_allowed: false,
            shards: 1,
            connections_max: CONNECTIONS_MAX_DEFAULT,
            subscriptions_max: SUBSCRIPTIONS_MAX_DEFAULT,
            wait: Profile::default(),
            thread: ThreadOptions::default(),
            sockets: Vec::new(),
        }
    }
}
