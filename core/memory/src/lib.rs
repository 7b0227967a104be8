//! To be written.

pub mod snapshot;
