//! FAST MQ for Node: the native half of the package `libfastmq`.
//!
//! It translates types, errors, lifetimes and waiting between JavaScript and `fastmq`, one call
//! for one call, and has no queue, retry, protocol or policy of its own. What a user of the
//! package sees is in `lib/`, whose classes call what is exported here; nobody else does.
//!
//! A thread of JavaScript has one [`hub::Hub`]: whatever waits there waits for its one thread-safe
//! function. Received messages are copied into memory of JavaScript's, a batch at a time; see
//! `copy`. Unsafe code is in `view` alone.

mod client;
mod copy;
mod error;
mod headers;
mod held;
mod hub;
mod options;
mod ports;
mod publisher;
mod queue;
mod reply_stream;
mod requester;
mod server;
mod tasks;
mod told;
mod view;
