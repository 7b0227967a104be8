//! FAST MQ for Rust: a message queue in your process.
//!
//! A [`Client`] holds a broker that lives here, without a thread or a socket. Publish by subject or
//! through a [`Publisher`]; receive from a [`Queue`] in batches that are read in place, or have a
//! handler called; ask with [`Client::request`] or, many at a time, with a [`Requester`].
//!
//! ```
//! # fn main() -> fastmq::Result<()> {
//! let client = fastmq::Client::open(fastmq::Options::default())?;
//! let flights = client.subscribe("flight.*.JFK")?;
//!
//! client.publish("flight.LAX.JFK", "delayed 12 minutes")?;
//!
//! let batch = flights.receive(64, 1_000_000_000)?;
//! assert_eq!(batch.messages().len(), 1);
//! assert_eq!(batch.messages()[0].subject(), b"flight.LAX.JFK");
//! assert_eq!(batch.messages()[0].payload(), b"delayed 12 minutes");
//! # Ok(())
//! # }
//! ```
//!
//! A publisher may write a message where its reader will read it:
//!
//! ```
//! # fn main() -> fastmq::Result<()> {
//! # let client = fastmq::Client::open(fastmq::Options::default())?;
//! # let gates = client.subscribe("gate.*")?;
//! let mut gate = client.publisher("gate.B22")?;
//! let mut claim = gate.claim(64)?;
//! claim.bytes()[..8].copy_from_slice(b"boarding");
//! claim.commit(8)?;
//! # assert_eq!(gates.receive(1, 0)?.messages()[0].payload(), b"boarding");
//! # Ok(())
//! # }
//! ```
//!
//! Who subscribes and who leaves is told on reserved subjects, also to whoever listens late:
//!
//! ```
//! # fn main() -> fastmq::Result<()> {
//! # let client = fastmq::Client::open(fastmq::Options::default())?;
//! use fastmq::{SUBJECT_JOINED, SubscribeOptions};
//!
//! let player = client.subscribe("room.1")?;
//! let options = SubscribeOptions {
//!     replay_last: true,
//!     ..SubscribeOptions::default()
//! };
//! let present = client.subscribe_with(format!("{SUBJECT_JOINED}.room.>"), options)?;
//! assert_eq!(present.receive(1, 0)?.messages()[0].payload(), player.pattern());
//! # Ok(())
//! # }
//! ```
//!
//! This crate owns the types that a Rust user holds and their lifetimes. It has no logic: every
//! call is one call into the engine.

#![forbid(unsafe_code)]

mod client;
mod queue;
mod reply;
mod serving;
mod subscription;

pub use client::Client;
pub use fastmq_engine::connections::{
    HEADER_BROKEN, HEADER_CLIENT, SUBJECT_CONNECTED, SUBJECT_DISCONNECTED,
};
pub use fastmq_engine::dispatch::ready;
pub use fastmq_engine::driver::pages::PageOptions;
pub use fastmq_engine::driver::scheduling::{Scheduling, ThreadName, ThreadOptions};
pub use fastmq_engine::driver::{Driver, NullDriver, SimulatedDriver};
pub use fastmq_engine::headers::{self, Headers};
pub use fastmq_engine::link::{ConnectOptions, Event, OnEvent};
pub use fastmq_engine::log;
pub use fastmq_engine::memory::queue::QueueStatistics;
pub use fastmq_engine::memory::view::view_flag;
pub use fastmq_engine::memory::{Batch, Detached, Policy, ReplyBuffer, View};
pub use fastmq_engine::presence::{HEADER_SUBSCRIPTION, SUBJECT_JOINED, SUBJECT_LEFT};
pub use fastmq_engine::server::{
    Changes as ServerChanges, SHARDS_MAX, SUBJECT_STATS, ServerOptions,
};
pub use fastmq_engine::statistics::Statistics;
pub use fastmq_engine::thread_options::{set_up_thread, thread_name};
pub use fastmq_engine::timestamps::Timestamps;
pub use fastmq_engine::wait::Profile;
pub use fastmq_engine::{
    ANSWERS_ALL, Claim, Delivery, Error, Fault, GroupMode, ManyOptions, Message, Options,
    Publisher, QueueOptions, Ready, ReplyStream, Requester, RequesterOptions, Result, Status,
};
pub use queue::{Queue, wait_any};
pub use reply::Reply;
pub use serving::Server;
pub use subscription::{OnMessage, SubscribeOptions, Subscription};

/// The version of the library.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The C ABI that this version has: `major << 16 | minor`.
pub const ABI: u32 = 1;

/// A time-out that never comes.
pub const FOREVER_NS: u64 = u64::MAX;

/// What the C border and the bindings need and a Rust user does not; no promise is made about it.
#[doc(hidden)]
pub mod border {
    pub use fastmq_engine::any::wait_any;
    pub use fastmq_engine::driver::{
        core_count, descriptors, fence, fork, pages, pin_current_thread, signals, sockets,
    };
    pub use fastmq_engine::memory::allocation::{Allocator, try_arc, try_box};
    pub use fastmq_engine::{Broker, Place, ThreadClient, name_root, with_thread_client};
}
