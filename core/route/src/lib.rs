//! Where a message goes: subjects, patterns, interest, route cache and balance.
//!
//! This crate answers one question, "which subscriptions match this subject?", and keeps the
//! answer cheap while subscriptions come and go. It does not deliver, does not know queues and
//! reads neither a clock nor a random source: both come with the call.
//!
//! | module | answers |
//! |---|---|
//! | [`subject`] | is this text a subject, a pattern? |
//! | [`pattern`] | does this pattern match this subject? |
//! | [`hash`] | a seeded hash that sequential names do not defeat |
//! | [`interest`] | all subscriptions that match a subject, without a lock |
//! | [`stamp`] | is a route that was computed earlier still right? |
//! | [`cache`] | the routes that one writer computed earlier |
//! | [`entry`] | what does the table hold? |
//! | [`text`] | where does a short pattern lie? |
//! | [`balance`] | which member of a group takes the next run of messages? |
//! | [`shares`] | which member of a key-shared group has which keys? |
//!
//! Inside: `table` finds the `page` of an entry by its hash, `crowd` holds those that share one,
//! `shapes` says which probes a lookup needs, `allocation` turns a failed allocation into an error.
//! `models` has the interleavings of the table and the stamps that loom walks through.

#![forbid(unsafe_code)]

mod allocation;
pub mod balance;
pub mod cache;
mod crowd;
pub mod entry;
pub mod hash;
pub mod interest;
#[cfg(all(test, loom))]
mod models;
mod page;
pub mod pattern;
mod shapes;
pub mod shares;
pub mod stamp;
pub mod subject;
mod table;
pub mod text;

pub use allocation::NoMemory;
pub use balance::Run;
pub use cache::{CachedRoute, RouteCache};
pub use entry::Entry;
pub use hash::SubjectHash;
pub use interest::Interest;
pub use pattern::matches;
pub use shares::Shares;
pub use stamp::Stamp;
pub use subject::{
    SUBJECT_BYTES_MAX, SUBJECT_TOKENS_MAX, SubjectError, check_pattern, check_subject,
};
pub use text::Text;
