//! A world that a seed decides: virtual clock, counted randomness, no kernel, no threads.
//!
//! Everything runs on the one thread of the test, so nothing can happen while it is parked: a park
//! moves the clock to its deadline, or says that it would never end. Time moves by `advance`, by a
//! park, and by a step per reading if asked; the same calls give the same answers, always.
//! Safe to share between threads, but only one thread at a time gives a run that repeats.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::io;
use std::sync::Arc;

use crate::counters::{Counters, Tally, count};
use crate::event::Event;
use crate::loop_fd::LoopFd;
use crate::random::SplitMix64;
use crate::thread::Thread;
use crate::{Driver, FOREVER_NS, Parked};

/// The reading of the monotonic clock at the start: one second.
const START_NS: u64 = 1_000_000_000;
/// What the Unix clock is ahead of it: 10^9 seconds, a round number.
const UNIX_AHEAD_NS: u64 = 1_000_000_000_000_000_000;

/// A driver without a world: the same seed and calls give the same run.
#[derive(Debug)]
pub struct SimulatedDriver {
    clock: Arc<VirtualClock>,
    random_state: AtomicU64,
    tally: Arc<Tally>,
}

/// Time that moves only when told to.
#[derive(Debug)]
pub(crate) struct VirtualClock {
    now_ns: AtomicU64,
    step_ns: AtomicU64,
}

impl SimulatedDriver {
    /// A world at its fixed start, with the random numbers of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let clock = VirtualClock {
            now_ns: AtomicU64::new(START_NS),
            step_ns: AtomicU64::new(0),
        };
        Self {
            clock: Arc::new(clock),
            random_state: AtomicU64::new(seed),
            tally: Arc::default(),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, ns: u64) {
        self.clock.advance(ns);
    }

    /// The clock itself, for what else is simulated.
    pub(crate) fn clock(&self) -> Arc<VirtualClock> {
        Arc::clone(&self.clock)
    }

    /// Lets every later reading of a clock move it by `step_ns`, after the reading; 0 stops that.
    pub fn set_clock_step(&self, step_ns: u64) {
        self.clock.step_ns.store(step_ns, Ordering::SeqCst);
    }
}

impl Driver for SimulatedDriver {
    fn monotonic_ns(&self) -> u64 {
        count(&self.tally.clock_calls);
        self.clock.read_ns()
    }

    fn unix_ns(&self) -> u64 {
        count(&self.tally.clock_calls);
        self.clock.read_ns().saturating_add(UNIX_AHEAD_NS)
    }

    fn random(&self) -> u64 {
        let state = self
            .random_state
            .fetch_add(SplitMix64::GAMMA, Ordering::SeqCst);
        SplitMix64::mix(state.wrapping_add(SplitMix64::GAMMA))
    }

    fn park(&self, word: &AtomicU32, expected: u32, deadline_ns: u64) -> Parked {
        count(&self.tally.parks);
        if word.load(Ordering::SeqCst) != expected {
            return Parked::Changed;
        }
        if deadline_ns == FOREVER_NS {
            return Parked::Deadlock;
        }
        self.clock.advance_to(deadline_ns);
        Parked::TimedOut
    }

    fn wake(&self, _word: &AtomicU32, _count: u32) {
        count(&self.tally.wakes);
    }

    fn event(&self) -> io::Result<Event> {
        Ok(Event::simulated(Arc::clone(&self.tally)))
    }

    fn loop_fd(&self) -> io::Result<LoopFd> {
        Ok(LoopFd::simulated(
            Arc::clone(&self.tally),
            Arc::clone(&self.clock),
        ))
    }

    fn spawn(&self, name: &str, _body: Box<dyn FnOnce() + Send>) -> io::Result<Thread> {
        let text = format!("a simulation has one thread, and {name} would be another");
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    fn may_spin(&self) -> bool {
        false
    }

    fn counters(&self) -> Counters {
        self.tally.read()
    }
}

impl VirtualClock {
    /// Reads the clock without moving it, as a kernel timer would.
    pub(crate) fn peek_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    /// Moves the clock to a time, unless it is there already.
    pub(crate) fn advance_to(&self, ns: u64) {
        self.now_ns.fetch_max(ns, Ordering::SeqCst);
    }

    /// Reads the clock and moves it by the step.
    fn read_ns(&self) -> u64 {
        match self.step_ns.load(Ordering::SeqCst) {
            0 => self.peek_ns(),
            step_ns => self.advance(step_ns),
        }
    }

    /// Moves the clock and returns what it was. It stops at the end of time, as it must not wrap.
    fn advance(&self, ns: u64) -> u64 {
        let update = |now_ns: u64| Some(now_ns.saturating_add(ns));
        let result = self
            .now_ns
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, update);
        result.unwrap_or_else(|now_ns| now_ns)
    }
}
