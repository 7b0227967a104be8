//! The time of the bench: the driver's monotonic clock.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use fastmq::{Driver, NullDriver};

fn driver() -> &'static NullDriver {
    static DRIVER: OnceLock<NullDriver> = OnceLock::new();
    DRIVER.get_or_init(NullDriver::new)
}

/// Nanoseconds of the monotonic clock, which is that of the sockets' deadlines.
pub(super) fn now_ns() -> u64 {
    driver().monotonic_ns()
}

/// Sleeps until then.
pub(super) fn rest_until(due_ns: u64) {
    // Nobody has the word to wake it.
    let word = AtomicU32::new(0);
    while now_ns() < due_ns {
        driver().park(&word, 0, due_ns);
    }
}

/// When something began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch {
    started_ns: u64,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self {
            started_ns: now_ns(),
        }
    }

    pub(super) fn elapsed_ns(self) -> u64 {
        now_ns() - self.started_ns
    }

    pub(super) fn elapsed(self) -> Duration {
        Duration::from_nanos(self.elapsed_ns())
    }
}
