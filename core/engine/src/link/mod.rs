//! A remote client: a broker of this process whose messages come from and go to a server.
//!
//! To the application it is a broker as any other. What differs: a route of its writers leads to
//! the [`Uplink`], which encodes frames into one buffer; a subscription is asked of the server; and
//! the *link* sends that buffer, reads what comes and writes deliveries into the queues as their
//! only writer. The link is driven by whoever waits, else by a thread of its own. So queues,
//! handlers, waits, requesters and time-outs are the engine's, and the embedded paths do not know
//! of any of this.
//!
//! | file | role |
//! |---|---|
//! | `uplink.rs` | what any thread does: answer, wait for room, close |
//! | `state.rs` | the state behind one lock |
//! | `remote.rs` | publishing and asking |
//! | `asked.rs` | subscribing, and what waits for a server's answer |
//! | `names.rs`, `tokens.rs` | numbers for subjects; the server's tokens and ours |
//! | `session.rs` | one connection, without I/O: bytes and the time in, bytes out |
//! | `control.rs` | what it does with control frames |
//! | `deliver.rs`, `replies.rs` | a delivery into its queue or handler, replies to their askers |
//! | `many.rs` | several answers to one request |
//! | `streams.rs` | reply streams of responders of this process |
//! | `run.rs` | frames in a row that are dealt with together |
//! | `draining.rs` | the server's part of a drain |
//! | `drive.rs` | the link's turns over `Sockets`: connecting, sending, backing off, ending |
//! | `helm.rs` | which thread drives |
//! | `waiting.rs` | waiting for a queue, for room or for one of many, and driving meanwhile |
//! | `open.rs` | requests without an answer |
//!
//! **Lock.** `Uplink::state`, for one frame or one turn's hand-over; nothing is called under it. It
//! may be taken while a queue is locked (a request is evicted), never the other way round.
//!
//! **What is kept when a connection breaks.** Publishes made while there is none wait, up to
//! `store_max`. What had been accepted before and had not left is lost, counted and reported, since
//! nobody knows how much of it the server has read. Open requests end as DISCONNECTED.

mod asked;
mod control;
mod deliver;
mod draining;
mod drive;
mod helm;
mod many;
mod names;
mod open;
mod remote;
mod replies;
mod rest;
mod run;
mod session;
mod state;
mod streams;
mod tokens;
mod uplink;
mod waiting;

use std::fmt;
use std::sync::Arc;

use fastmq_driver::{Driver, sockets};
use fastmq_memory::allocation::try_arc;

use crate::broker::{Broker, Options};
use crate::error::{Error, Fault, Result, Status};

pub use drive::{Drive, config};
pub(crate) use many::Far;
pub(crate) use remote::Remote;
pub(crate) use streams::FarStream;
pub use uplink::Uplink;

/// Bytes of frames that may wait for the socket: beyond it publishers get AGAIN.
pub const OUTGOING_BYTES_MAX: usize = 8 << 20;
/// Default bytes of publishes that wait while there is no connection.
pub const STORE_BYTES_DEFAULT: u64 = 1 << 20;
/// Requests that may be open at once; one more is answered BUSY.
pub const REQUESTS_MAX: usize = 1 << 20;
/// Requests to be answered of which the client knows the server's token; the oldest is forgotten.
pub const TOKENS_MAX: usize = 1 << 16;
/// Numbers for subjects that each side gives at most, and their subjects' bytes.
pub const ALIASES_MAX: u32 = 1 << 14;
/// See [`ALIASES_MAX`].
pub const ALIAS_BYTES_MAX: u64 = 1 << 20;
/// How long a handshake may take.
pub const HANDSHAKE_NS: u64 = 10_000_000_000;
/// Silence after which the server is asked whether it is there.
pub const PING_NS: u64 = 10_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// Bytes that are sent and received at a time: as many as the loopback device takes in one segment.
/// Of 64 KiB a few bytes would be left for a second one, which has a cost of its own.
const SEGMENT_BYTES: usize = 60 << 10;

/// What happens to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// There is a connection; all subscriptions were asked for again.
    Connected {
        /// The server's name.
        server: &'a str,
        /// Not the first one: what was published since the last one broke has not come.
        is_again: bool,
        /// The server is not the one of the last connection, or was restarted.
        is_other_instance: bool,
        /// Subscriptions that were asked for again.
        subscriptions: usize,
    },
    /// The connection broke, or could not be made.
    Disconnected {
        /// Why.
        status: Status,
        /// The same for people.
        why: &'a str,
        /// Accepted publishes that had not left, and are lost.
        unsent: u64,
    },
    /// The server has refused a publish, or would: one that waited for a connection is larger than
    /// it takes.
    Refused {
        /// Its subject.
        subject: &'a [u8],
        /// Why.
        status: Status,
        /// The same for people.
        why: &'a str,
    },
    /// The server refuses a subscription that it had taken on an earlier connection.
    Unsubscribed {
        /// Which.
        subscription: u32,
        /// Why.
        status: Status,
        /// The same for people.
        why: &'a str,
    },
    /// Messages of a subscription were lost at the server; its next message's `lost_before` counts
    /// them.
    Gap {
        /// Which.
        subscription: u32,
        /// How many.
        messages: u64,
    },
    /// The server has to keep much for this client, which reads too slowly.
    Slow {
        /// Bytes.
        bytes: u64,
    },
    /// The server will refuse something soon.
    Limit {
        /// What, for people.
        why: &'a str,
    },
    /// The server will close; the client goes to another one, or comes back.
    Draining,
}

/// Is told what happens, on the thread that drives the link; must not block, ask or subscribe.
pub type OnEvent = dyn Fn(&Event<'_>) + Send + Sync;

/// How a client connects. `ConnectOptions::default()` is what most want.
#[derive(Clone)]
pub struct ConnectOptions {
    /// As of an embedded broker: queues, payloads, threads, waiting.
    pub broker: Options,
    /// The client's name, at most 255 bytes of text.
    pub name: String,
    /// Its secret, at most 4,096 bytes.
    pub token: Vec<u8>,
    /// How long to wait for the first connection, in nanoseconds; 0: not at all.
    pub connect_timeout_ns: u64,
    /// How long subscribing waits for the server's answer, in nanoseconds; 0: not at all, and a
    /// refusal is an event.
    pub operation_timeout_ns: u64,
    /// Bytes of publishes that wait while there is no connection; beyond it they get AGAIN.
    pub store_max: u64,
    /// The shortest pause before the servers are tried again, in nanoseconds.
    pub backoff_min_ns: u64,
    /// The longest.
    pub backoff_max_ns: u64,
    /// The client has no thread for its connection: it sends and receives only inside calls that
    /// wait, ask or receive, and inside `dispatch`, which its `fd` tells when to call. Such a
    /// client is to be closed: without that its connection stays.
    pub polled: bool,
    /// Is told what happens.
    pub on_event: Option<Arc<OnEvent>>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            broker: Options::default(),
            name: String::new(),
            token: Vec::new(),
            connect_timeout_ns: 5 * SECOND,
            operation_timeout_ns: 5 * SECOND,
            store_max: STORE_BYTES_DEFAULT,
            backoff_min_ns: 20_000_000,
            backoff_max_ns: 5 * SECOND,
            polled: false,
            on_event: None,
        }
    }
}

impl fmt::Debug for ConnectOptions {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn check(options: &ConnectOptions) -> Result<()> {
    let wrong = |fault| Err(Error::new(fault));
    if options.name.len() > 255 || options.name.chars().any(char::is_control) {
        return wrong(&Fault(
            Status::Invalid,
            "the client's name has at most 255 bytes without control characters",
        ));
    }
    if options.token.len() > 4096 {
        return wrong(&Fault(Status::Invalid, "the token has at most 4,096 bytes"));
    }
    if options.backoff_min_ns == 0 || options.backoff_max_ns < options.backoff_min_ns {
        return wrong(&Fault(
            Status::Invalid,
            "backoff_min is above 0, and backoff_max not below it",
        ));
    }
    Ok(())
}

/// A broker whose link somebody drives, and what drives it: whoever waits and a thread of its own
/// after [`connect`], turn by turn in a simulation.
pub fn open(
    urls: &str,
    options: ConnectOptions,
    driver: Arc<dyn Driver>,
) -> Result<(Arc<Broker>, Drive)> {
    check(&options)?;
    let servers = crate::url::servers(urls)?;
    let uplink = try_arc(Uplink::new(options, driver.clone()))?;
    let broker = Broker::open_linked(uplink.options.broker, driver, Some(uplink.clone()))?;
    let drive = Drive::new(&broker, uplink, servers)?;
    Ok((broker, drive))
}

/// Opens a broker of this process that is a client of the first of the servers that answers. Its
/// link gets a thread of its own, which ends with the broker, unless it is `polled`.
///
/// INVALID: a URL or an option. UNAVAILABLE, DENIED, UNSUPPORTED: all servers were tried once, and
/// that is what the last one said. TIMEOUT: none has answered within `connect_timeout`. IO,
/// UNSUPPORTED: no thread or socket can be had. NO_MEMORY.
pub fn connect(urls: &str, options: ConnectOptions) -> Result<Arc<Broker>> {
    let timeout_ns = options.connect_timeout_ns;
    let (broker, drive) = open(urls, options, Broker::system_driver()?)?;
    let opened = sockets::open_movable(&config()).map_err(|error| {
        let fault = &Fault(Status::Io, "cannot open sockets for the link");
        Error::with_io(fault, fault.1, &error)
    })?;
    if let Some(uplink) = &broker.uplink {
        uplink.launch(drive, opened)?;
        let connected = match timeout_ns {
            0 => Ok(()),
            timeout_ns => uplink.wait_connected(timeout_ns),
        };
        connected.inspect_err(|_| broker.close())?;
    }
    Ok(broker)
}
