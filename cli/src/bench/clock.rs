//! The time of the bench: the driver's monotonic clock.

use std::sync::OnceLock;
use std::time::Duration;

use fastmq::{Driver, NullDriver};

/// Nanoseconds of the monotonic clock, which is that of the sockets' deadlines.
pub(super) fn now_ns() -> u64 {
    static DRIVER: OnceLock<NullDriver> = OnceLock::new();
    DRIVER.get_or_init(NullDriver::new).monotonic_ns()
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
