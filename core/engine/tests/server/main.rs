//! Servers and their shards: over simulated sockets step by step and by seed, and over the
//! kernel's; the clients are scripted.

#![forbid(unsafe_code)]

#[path = "../steps/mod.rs"]
mod steps;

mod asking;
mod many;
mod peer;
mod presence;
mod real;
mod session;
mod shard;
