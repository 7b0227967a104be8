//! Everything outside the process's memory: clock, randomness, parking and waking, events, threads.
//!
//! The engine holds one `Arc<dyn Driver>` and calls nothing of the operating system itself, so
//! that the same engine runs on [`NullDriver`] (embedded: the real clock and kernel, no sockets
//! or files) and on [`SimulatedDriver`] (a seed decides everything and a failing run replays).
//! The sockets of a shard are a trait of their own, [`sockets::Sockets`], because a shard has them
//! to itself; files come with streams, in the same way.
//!
//! [`fence`], [`fork`], [`scheduling`], [`pages`] and [`shared`] are no methods: they stand on
//! paths where a virtual call would be felt, or are facts of the process or thread, not of one
//! driver.
//! Not here: what the bytes mean, and any waiting policy. How long to spin is the engine's choice.

mod clock;
mod counters;
pub mod descriptors;
mod event;
pub mod fence;
pub mod fork;
mod futex;
mod loop_fd;
mod null;
pub mod pages;
mod random;
pub mod scheduling;
pub mod shared;
pub mod signals;
mod simulated;
pub mod sockets;
mod thread;
pub mod tsc;

use core::sync::atomic::AtomicU32;
use std::io;

pub use counters::Counters;
pub use event::Event;
pub use loop_fd::LoopFd;
pub use null::NullDriver;
pub use random::SplitMix64;
pub use simulated::SimulatedDriver;
pub use thread::{Thread, core_count, pin_current_thread};

/// A deadline that never comes.
pub const FOREVER_NS: u64 = u64::MAX;

/// What the engine asks of the world.
///
/// Every method may be called from any thread. None is meant for a path taken once per message:
/// the call is virtual and most end in the kernel.
pub trait Driver: Send + Sync + 'static {
    /// Nanoseconds of a clock that never goes back; only differences and deadlines mean anything.
    fn monotonic_ns(&self) -> u64;

    /// Nanoseconds since the Unix epoch, as the host believes; may jump either way.
    fn unix_ns(&self) -> u64;

    /// Sixty-four bits that a peer cannot guess (simulated: that a seed decides).
    fn random(&self) -> u64;

    /// Sleeps while `*word == expected`, until a [`wake`](Driver::wake) or the monotonic
    /// `deadline_ns` ([`FOREVER_NS`]: no deadline).
    ///
    /// May return early for no reason, above all when a signal arrives (`EINTR`), and then says
    /// [`Parked::Woken`]: the caller looks again at what it waits for, in a loop. Whoever wakes
    /// changes `word` first, so that a wake between the caller's look and its sleep is not lost.
    fn park(&self, word: &AtomicU32, expected: u32, deadline_ns: u64) -> Parked;

    /// Wakes at most `count` threads parked on `word`.
    fn wake(&self, word: &AtomicU32, count: u32);

    /// A flag that a foreign event loop can wait for.
    ///
    /// # Errors
    /// What `eventfd` says: the process or the host is out of descriptors or memory.
    fn event(&self) -> io::Result<Event>;

    /// One descriptor that is readable while it is signalled or a deadline has passed.
    ///
    /// # Errors
    /// What `epoll_create1`, `eventfd` and `timerfd_create` say: out of descriptors or memory.
    fn loop_fd(&self) -> io::Result<LoopFd>;

    /// Runs `body` on a thread of its own, called `fmq-` and `name`, cut to 15 bytes.
    ///
    /// The thread has all signals blocked but those of faults and profilers, so the handlers of
    /// the host never run on it.
    ///
    /// # Errors
    /// `Unsupported` from a driver without threads, else what the system says.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<Thread>;

    /// A counter of the processor that tells Unix time; by default there is none.
    fn tsc(&self) -> Option<&'static tsc::Tsc> {
        None
    }

    /// Whether spinning before a park can pay: false with one core, and in a simulation, where
    /// nothing moves while the only thread spins.
    fn may_spin(&self) -> bool;

    /// How often this driver was asked since it was made.
    fn counters(&self) -> Counters;
}

/// Why [`Driver::park`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parked {
    /// Woken, interrupted by a signal, or for no reason at all.
    Woken,
    /// The word did not have the expected value, so the thread did not sleep.
    Changed,
    /// The deadline has passed.
    TimedOut,
    /// Simulated only: no deadline, and nobody left who could wake. The engine makes it an error.
    Deadlock,
}
