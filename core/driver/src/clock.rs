//! The two clocks of the kernel, in nanoseconds.
//!
//! `CLOCK_MONOTONIC` is the clock of every deadline, because `futex` and `timerfd` take it as it
//! is. Both reads go through the vDSO and make no system call on the supported hosts.
//! Not here: caching. The engine keeps the last reading itself.

use core::time::Duration;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

pub(crate) fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

pub(crate) fn unix_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// The kernel's form of an absolute time or a length of time.
pub(crate) fn timespec(ns: u64) -> libc::timespec {
    let time = Duration::from_nanos(ns);
    // Bounded by 2^64 ns: 18.4 × 10^9 seconds. A 32-bit `time_t` saturates: a far deadline.
    #[allow(
        deprecated,
        reason = "libc warns that musl's type will be wider; this holds then, too"
    )]
    let seconds = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
    // SAFETY: `timespec` is integers (and padding on some targets), for which zeros are a value.
    let mut spec: libc::timespec = unsafe { core::mem::zeroed() };
    spec.tv_sec = seconds;
    spec.tv_nsec = time.subsec_nanos() as _;
    spec
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut spec = timespec(0);
    // SAFETY: `spec` is a live, writable `timespec`.
    let result = unsafe { libc::clock_gettime(clock, &raw mut spec) };
    assert_eq!(
        result, 0,
        "clock_gettime({clock}) cannot fail on a clock every kernel has"
    );
    // A host clock before the epoch reads as the epoch.
    let seconds = u64::try_from(spec.tv_sec).unwrap_or(0);
    let rest = u64::try_from(spec.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(SECOND_NS).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_never_goes_back() {
        let mut last = 0;
        for _ in 0..10_000 {
            let now = monotonic_ns();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_unix_clock_agrees_with_the_standard_library() {
        let system = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::try_from(now.unwrap().as_nanos()).unwrap()
        };
        let (before, ours, after) = (system(), unix_ns(), system());
        // A step of the host clock in between would void the comparison.
        assert!(before > after || (before <= ours && ours <= after));
    }

    #[test]
    fn a_timespec_splits_at_the_second() {
        let spec = timespec(3 * SECOND_NS + 7);
        assert_eq!((spec.tv_sec, spec.tv_nsec), (3, 7));
        let last = timespec(u64::MAX);
        assert_eq!((last.tv_sec, last.tv_nsec), (18_446_744_073, 709_551_615));
    }
}
