//! When messages were published and batches received: for clients that ask for it.
//!
//! A client that does not pays nothing: its messages are the usual ones, and those of one that does
//! never are.

use fastmq_driver::Driver;
use fastmq_driver::tsc::Tsc;

use crate::log;

/// Where time stamps come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// There are none.
    #[default]
    None,
    /// The host's clock.
    Clock,
    /// The processor's counter, calibrated by the host's clock; where there is none, that clock.
    Tsc,
}

/// What makes the time stamps of one broker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stamper {
    None,
    Clock,
    Tsc(&'static Tsc),
}

impl Stamper {
    pub(crate) fn new(timestamps: Timestamps, driver: &dyn Driver) -> Self {
        match timestamps {
            Timestamps::None => Self::None,
            Timestamps::Clock => Self::Clock,
            Timestamps::Tsc => driver.tsc().map_or_else(
                || {
                    let text = "no invariant TSC here: time stamps come from the clock";
                    log::write(log::Level::Info, "clock", text);
                    Self::Clock
                },
                Self::Tsc,
            ),
        }
    }

    /// True if there are time stamps.
    #[inline(always)]
    pub(crate) fn is_on(self) -> bool {
        !matches!(self, Self::None)
    }

    /// Unix nanoseconds now; 0: none.
    pub(crate) fn now_ns(self, driver: &dyn Driver) -> u64 {
        match self {
            Self::None => 0,
            Self::Clock => driver.unix_ns(),
            Self::Tsc(tsc) => tsc.unix_ns(),
        }
    }
}
