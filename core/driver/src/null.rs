//! The driver of an embedded broker: the real kernel, without sockets and files.
//!
//! "Null" because it moves no bytes; clock, parking, events and threads are Linux's own. Opening
//! one starts no thread and holds no descriptor.

use core::sync::atomic::AtomicU32;
use std::io;
use std::sync::Arc;

use crate::counters::{Counters, Tally, count};
use crate::event::Event;
use crate::loop_fd::LoopFd;
use crate::thread::{self, Thread};
use crate::tsc::Tsc;
use crate::{Driver, Parked, clock, futex, random};

/// The real clock, randomness, parking, events and threads; no I/O.
#[derive(Debug)]
pub struct NullDriver {
    tally: Arc<Tally>,
    may_spin: bool,
}

impl NullDriver {
    /// A driver with its counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tally: Arc::default(),
            may_spin: thread::core_count() > 1,
        }
    }
}

impl Default for NullDriver {
    fn default() -> Self {
        Self::new()
    }
}

impl Driver for NullDriver {
    fn monotonic_ns(&self) -> u64 {
        count(&self.tally.clock_calls);
        clock::monotonic_ns()
    }

    fn unix_ns(&self) -> u64 {
        count(&self.tally.clock_calls);
        clock::unix_ns()
    }

    fn random(&self) -> u64 {
        random::system()
    }

    fn park(&self, word: &AtomicU32, expected: u32, deadline_ns: u64) -> Parked {
        count(&self.tally.parks);
        futex::wait(word, expected, deadline_ns)
    }

    fn wake(&self, word: &AtomicU32, count_max: u32) {
        count(&self.tally.wakes);
        futex::wake(word, count_max);
    }

    fn event(&self) -> io::Result<Event> {
        Event::kernel(Arc::clone(&self.tally))
    }

    fn loop_fd(&self) -> io::Result<LoopFd> {
        LoopFd::kernel(Arc::clone(&self.tally))
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<Thread> {
        Thread::spawn(name, body, Arc::clone(&self.tally))
    }

    fn tsc(&self) -> Option<&'static Tsc> {
        Tsc::get()
    }

    fn may_spin(&self) -> bool {
        self.may_spin
    }

    fn counters(&self) -> Counters {
        self.tally.read()
    }
}
