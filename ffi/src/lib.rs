//! The C ABI: `libfastmq.so`, `libfastmq.a` and `include/fastmq.h`.
//!
//! Each entry refuses a forked child, stops panics, checks its arguments and makes one call into
//! the crate `fastmq`. Handles are numbers that are looked up ([`handle`]), so a value that was
//! closed or never was a handle is refused and not followed.
//!
//! This crate owns the border alone: conversions, handles, the thread's last error. It has no
//! queue, no protocol and no policy.

#![allow(non_camel_case_types)]

/// Hands out memory that was taken for what cannot be refused: no call ends the process for want of
/// memory.
#[global_allocator]
static ALLOCATOR: fastmq::border::Allocator = fastmq::border::Allocator::new();

pub mod batch;
pub mod bytes;
pub mod client;
pub mod connect;
pub mod error;
pub mod handle;
pub mod headers;
pub mod log;
pub mod loops;
pub mod many;
pub mod message;
pub mod options;
pub mod publish;
pub mod queue;
pub mod request;
pub mod server;
pub mod statistics;
pub mod status;
pub mod subscription;
pub mod threads;
