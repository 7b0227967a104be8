//! Unix time by the processor's counter: x86-64 with an invariant TSC only.
//!
//! A reading is the counter, a multiplication and an anchor: a pair of counter and clock that are
//! read together at most a second ago. So it follows what the host does to its clock, and the error
//! of the calibration cannot grow: it is below a few microseconds, as is the step that a new anchor
//! makes. Whoever finds the anchor old makes a new one; who comes meanwhile asks the clock.
//! Not here: other processors. There the caller takes the clock.

use core::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::OnceLock;

use crate::clock;

/// How long the first calibration takes.
const FIRST_NS: u64 = 1_000_000;
/// How old an anchor becomes at most; the first ones less, each eight times as old as the last.
const ANCHOR_NS_MAX: u64 = 1_000_000_000;
const GROWTH: u64 = 8;
/// A clock that differs by more than this part from the counter was set by somebody.
const STEP_PART: u64 = 256;

/// The counter of the process.
#[derive(Debug)]
pub struct Tsc {
    /// Odd while an anchor is made.
    version: AtomicU64,
    ticks: AtomicU64,
    unix_ns: AtomicU64,
    /// Nanoseconds a tick, in units of 2^-32.
    ratio: AtomicU64,
    /// Ticks after which another anchor is made.
    ticks_max: AtomicU64,
}

impl Tsc {
    /// The counter, calibrated when first asked for: that takes a millisecond. `None`: there is
    /// none that can be a clock.
    pub fn get() -> Option<&'static Self> {
        static TSC: OnceLock<Option<Tsc>> = OnceLock::new();
        TSC.get_or_init(|| has_counter().then(Self::calibrate))
            .as_ref()
    }

    /// Nanoseconds since the Unix epoch.
    #[inline]
    pub fn unix_ns(&self) -> u64 {
        let version = self.version.load(Ordering::Acquire);
        let ticks = self.ticks.load(Ordering::Relaxed);
        let unix_ns = self.unix_ns.load(Ordering::Relaxed);
        let ratio = self.ratio.load(Ordering::Relaxed);
        let ticks_max = self.ticks_max.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if version & 1 == 1 || self.version.load(Ordering::Relaxed) != version {
            return clock::unix_ns();
        }
        // A core whose counter is a little behind that of the anchor's: no time has passed.
        let since = counter().saturating_sub(ticks);
        if since > ticks_max {
            return self.renew(version);
        }
        unix_ns + scaled(since, ratio)
    }

    fn calibrate() -> Self {
        let (ticks, unix_ns) = pair();
        let start_ns = clock::monotonic_ns();
        while clock::monotonic_ns() - start_ns < FIRST_NS {
            core::hint::spin_loop();
        }
        let (ticks_now, unix_ns_now) = pair();
        let spent_ns = unix_ns_now.saturating_sub(unix_ns).max(FIRST_NS);
        let ratio = ratio_of(spent_ns, ticks_now - ticks);
        Self {
            version: AtomicU64::new(0),
            ticks: AtomicU64::new(ticks_now),
            unix_ns: AtomicU64::new(unix_ns_now),
            ratio: AtomicU64::new(ratio),
            ticks_max: AtomicU64::new((ticks_now - ticks) * GROWTH),
        }
    }

    /// Makes a new anchor, unless another thread does; gives its time.
    #[cold]
    fn renew(&self, version: u64) -> u64 {
        let (order, failed) = (Ordering::Acquire, Ordering::Relaxed);
        let begun = self
            .version
            .compare_exchange(version, version + 1, order, failed);
        if begun.is_err() {
            return clock::unix_ns();
        }
        // Before what follows, for those who read it.
        fence(Ordering::Release);
        let (ticks_now, unix_ns_now) = pair();
        let ticks = ticks_now
            .saturating_sub(self.ticks.load(Ordering::Relaxed))
            .max(1);
        let spent_ns = unix_ns_now.saturating_sub(self.unix_ns.load(Ordering::Relaxed));
        let before = self.ratio.load(Ordering::Relaxed);
        let ratio = ratio_of(spent_ns, ticks);
        if ratio.abs_diff(before) < before / STEP_PART {
            self.ratio.store(ratio, Ordering::Relaxed);
        }
        self.ticks.store(ticks_now, Ordering::Relaxed);
        self.unix_ns.store(unix_ns_now, Ordering::Relaxed);
        let second = (u128::from(ANCHOR_NS_MAX) << 32) / u128::from(before.max(1));
        let ticks_max = self
            .ticks_max
            .load(Ordering::Relaxed)
            .saturating_mul(GROWTH);
        self.ticks_max
            .store(ticks_max.min(second as u64), Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
        unix_ns_now
    }
}

/// Nanoseconds of so many ticks.
#[inline]
fn scaled(ticks: u64, ratio: u64) -> u64 {
    ((u128::from(ticks) * u128::from(ratio)) >> 32) as u64
}

fn ratio_of(spent_ns: u64, ticks: u64) -> u64 {
    ((u128::from(spent_ns) << 32) / u128::from(ticks.max(1))) as u64
}

/// Counter and clock at one moment: the closest of a few tries.
fn pair() -> (u64, u64) {
    let tries = (0..5).map(|_| {
        let before = counter();
        let unix_ns = clock::unix_ns();
        let after = counter();
        (
            after.saturating_sub(before),
            before + after.saturating_sub(before) / 2,
            unix_ns,
        )
    });
    let (_, ticks, unix_ns) = tries.min().unwrap_or_default();
    (ticks, unix_ns)
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

/// Whether the counter ticks at one rate on all cores, whatever they do.
#[cfg(target_arch = "x86_64")]
fn has_counter() -> bool {
    const POWER: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    let highest = core::arch::x86_64::__cpuid(0x8000_0000).eax;
    highest >= POWER && core::arch::x86_64::__cpuid(POWER).edx & INVARIANT != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn has_counter() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_tells_the_time_of_the_clock() {
        let Some(tsc) = Tsc::get() else { return };
        let mut anchors = 0;
        let mut version = tsc.version.load(Ordering::Relaxed);
        // Until a few anchors were made: by the counter's own time, not by a number of turns.
        while anchors < 3 {
            let before = clock::unix_ns();
            let ours = tsc.unix_ns();
            let after = clock::unix_ns();
            let slack = 1_000_000;
            // A step of the host clock in between would void the comparison.
            let is_right = before <= ours + slack && ours <= after + slack;
            assert!(before > after || is_right, "{before} {ours} {after}");
            let now = tsc.version.load(Ordering::Relaxed);
            anchors += u32::from(now != version);
            version = now;
        }
    }

    #[test]
    fn ticks_become_nanoseconds() {
        let ratio = ratio_of(1_000_000, 2_500_000);
        // The ratio has 32 bits behind the point.
        let check = |ticks, ns: u64| {
            assert!(
                scaled(ticks, ratio).abs_diff(ns) <= 1 + (ns >> 31),
                "{ticks}"
            );
        };
        check(0, 0);
        check(5, 2);
        check(2_500_000_000, 1_000_000_000);
        check(u64::MAX / 4, u64::MAX / 10);
    }
}
