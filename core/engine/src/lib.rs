//! The engine: publishers, queues, subscriptions, requests, callbacks and statistics of one broker.
//!
//! It joins `route` (who wants a subject) with `memory` (where messages wait) over a `driver` (all
//! that is outside of the process's memory). Users see it through the crate `fastmq`.
//!
//! Life of a message: [`writer::Writer`] looks its subject up in the writer's own route cache,
//! writes one record into each target's lane, and wakes a reader only if it said that it sleeps.

#![forbid(unsafe_code)]

pub mod answers;
pub mod any;
pub mod asking;
pub mod broker;
mod by_key;
pub mod call;
pub mod claim;
mod closing;
pub mod connections;
mod credit;
pub mod delivery;
pub mod dispatch;
pub(crate) mod ended;
pub mod error;
pub mod flight;
mod frames;
mod gather;
pub mod headers;
mod kept;
mod key_groups;
mod keyed;
mod latest;
pub mod link;
mod liveness;
pub mod log;
mod many;
pub mod message;
pub mod options;
mod page_options;
pub mod place;
pub mod presence;
mod promise;
pub mod publisher;
pub mod ready;
mod register;
pub mod reply_stream;
pub mod request;
mod rings;
pub mod route;
pub mod routing;
mod runs;
pub mod server;
pub mod slots;
mod socket_path;
pub mod statistics;
pub mod subscription;
pub mod survey;
mod task;
pub mod thread_client;
pub mod thread_options;
pub mod threads;
pub mod timestamps;
pub mod url;
pub mod wait;
mod watch;
mod wide;
pub mod writer;

// The layers below, for the crate `fastmq`: it may depend on this crate only.
pub use {fastmq_driver as driver, fastmq_memory as memory};

pub use broker::{Broker, Options};
pub use claim::Claim;
pub use error::{Error, Fault, Result, Status};
pub use options::ManyOptions;
pub use options::SubscribeOptions;
pub use place::{Place, QueueOptions};
pub use publisher::Publisher;
pub use reply_stream::ReplyStream;
pub use request::{Requester, RequesterOptions};
pub use socket_path::name_root;
pub use subscription::{Delivery, GroupMode, Subscription};
pub use survey::{ANSWERS_ALL, CREDIT_MAX};
pub use task::Ready;
pub use thread_client::{ThreadClient, with_thread_client};
pub use timestamps::Timestamps;
pub use writer::{Message, Writer};
