//! What tests need of the operating system and the allocator, and safe Rust cannot do.
//!
//! The only place where tests may use unsafe code: a counting and refusing allocator
//! ([`allocation`]), a child process that dies of its first system call ([`child`]), and
//! `poll(2)` on a descriptor ([`readable`]).
//! Not here: anything about messages; that is `core/engine/tests/steps`.

pub mod allocation;
pub mod child;
pub mod readable;
