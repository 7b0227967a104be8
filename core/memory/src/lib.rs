//! Lanes and queues on any memory, the block pool, and reclamation.
//!
//! This crate owns the places where messages wait between a writer and a reader. It knows records
//! (`docs/formats.md`), not subjects; it does no input or output, reads no clock and parks no
//! thread: a [`gate::Gate`] says who must be woken, and the owner of the queue wakes them.
//!
//! Callers: `engine` (queues, blocks), `route` (snapshots), later the shared-memory listener.

#![warn(missing_docs)]

pub mod allocation;
pub mod appending;
pub mod arena;
pub mod batch;
pub mod block;
pub mod budget;
pub mod consumer;
mod fill;
pub mod gate;
pub mod handed;
pub mod lane;
pub mod latest;
pub mod queue;
pub mod reader;
pub mod record;
pub mod replay;
pub mod reply;
pub mod ring;
pub mod snapshot;
mod spare;
pub mod sync;
mod value;
pub mod view;
pub mod words;
pub mod writer;

pub use batch::{Batch, Detached};
pub use handed::Handed;
pub use lane::Label;
pub use latest::SlotWriter;
pub use queue::{Policy, Queue, QueueOptions};
pub use reader::ReaderGuard;
pub use record::{Draft, Kind, Plain};
pub use replay::KeptMessage;
pub use reply::ReplyBuffer;
pub use view::View;
pub use writer::{Evicted, LaneWriter, Mark, Pushed, Refused, Tried};
