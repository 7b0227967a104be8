//! How a shard waits: look, spin, say that it sleeps, look again, sleep.
//!
//! The order of every tier, in one place. Who makes work for the shard and then calls
//! [`Waker::wake`] finds either a shard that has not said yet that it sleeps, and will look, or one
//! that has, and is woken: both sides have a full fence between their store and their load.

use core::hint;
use core::sync::atomic::{AtomicBool, Ordering, fence};
use std::io;
use std::sync::Arc;

use crate::clock;
use crate::event::Event;

use super::Look;

/// Looks between two readings of the clock while spinning.
const LOOKS_PER_READING: u32 = 16;

/// How a wait ended: what an adaptive spin learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There was something already.
    Ready,
    /// Something came while it was spinning: spinning pays.
    Spun,
    /// Something came, or somebody woke it, after it had gone to sleep.
    Slept,
    /// The deadline has passed.
    TimedOut,
}

/// Ends a wait from any thread. Cheap to clone; outlives its shard harmlessly.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Sleeper>,
}

/// What a shard and its wakers share.
#[derive(Debug)]
pub(super) struct Sleeper {
    is_asleep: AtomicBool,
    event: Event,
}

/// Where completions come from.
pub(super) trait Source {
    /// Whether there is something to hand out, by what is known without a call.
    fn is_ready(&self) -> bool;

    /// Submits, asks the kernel without waiting, and says whether there is something.
    fn check(&mut self) -> io::Result<bool>;

    /// One look of a spin, as cheap as there is.
    fn glance(&mut self) -> io::Result<bool>;

    /// Submits and sleeps until the monotonic `until_ns` at the latest; false if that is why it
    /// returned.
    fn sleep(&mut self, until_ns: u64) -> io::Result<bool>;

    /// When something of the source's own is due; `FOREVER_NS` if nothing.
    fn due_ns(&self) -> u64;
}

impl Waker {
    pub(super) fn new(shared: &Arc<Sleeper>) -> Self {
        Self {
            shared: Arc::clone(shared),
        }
    }

    /// Ends the wait of a shard that sleeps; one load if it does not, since it will look. Make the
    /// work visible to its `look` before.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.shared.is_asleep.load(Ordering::Relaxed)
            && self.shared.is_asleep.swap(false, Ordering::AcqRel)
        {
            self.shared.event.signal();
        }
    }
}

impl Sleeper {
    pub(super) fn kernel() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self::over(Event::kernel(Arc::default())?)))
    }

    pub(super) fn simulated() -> Arc<Self> {
        Arc::new(Self::over(Event::simulated(Arc::default())))
    }

    fn over(event: Event) -> Self {
        Self {
            is_asleep: AtomicBool::new(false),
            event,
        }
    }

    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    fn arm(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn disarm(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }
}

/// Waits as [`wait`](super::Sockets::wait) promises.
pub(super) fn wait<S: Source>(
    source: &mut S,
    sleeper: &Sleeper,
    deadline_ns: u64,
    spin_ns: u64,
    look: &mut dyn FnMut(Look) -> bool,
) -> io::Result<Waited> {
    if source.is_ready() {
        source.check()?;
        return Ok(Waited::Ready);
    }
    if deadline_ns == 0 || spin_ns > 0 {
        if source.check()? || look(Look::Spinning) {
            return Ok(Waited::Ready);
        }
        if deadline_ns == 0 {
            return Ok(Waited::TimedOut);
        }
        let now_ns = clock::monotonic_ns();
        let end_ns = now_ns.saturating_add(spin_ns).min(deadline_ns);
        if spin(source, end_ns, look)? {
            return Ok(Waited::Spun);
        }
        if end_ns == deadline_ns {
            // A sleep would set a timer for a time that has passed.
            return Ok(Waited::TimedOut);
        }
    }
    sleeper.arm();
    let result = if look(Look::Sleeping) {
        source.check().map(|_| Waited::Ready)
    } else {
        sleep(source, deadline_ns)
    };
    sleeper.disarm();
    result
}

fn spin<S: Source>(
    source: &mut S,
    end_ns: u64,
    look: &mut dyn FnMut(Look) -> bool,
) -> io::Result<bool> {
    loop {
        for _ in 0..LOOKS_PER_READING {
            if source.glance()? || look(Look::Spinning) {
                return Ok(true);
            }
            hint::spin_loop();
        }
        if clock::monotonic_ns() >= end_ns {
            return Ok(false);
        }
    }
}

fn sleep<S: Source>(source: &mut S, deadline_ns: u64) -> io::Result<Waited> {
    let until_ns = deadline_ns.min(source.due_ns());
    let has_come = source.sleep(until_ns)?;
    // What is due before the deadline is the next wait's to do.
    Ok(match has_come || until_ns < deadline_ns {
        true => Waited::Slept,
        false => Waited::TimedOut,
    })
}
