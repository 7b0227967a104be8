//! How the link's thread rests while other threads drive.

use std::sync::atomic::{Ordering, fence};

use fastmq_driver::FOREVER_NS;
use fastmq_memory::sync::try_lock;

use super::uplink::Uplink;
use crate::broker::Broker;

/// How soon the link's thread looks whether anybody drives: after twice as long each time while
/// somebody does, as each look may take the core away from him, up to [`REST_NS_MAX`]. A publish,
/// and another thread that waits, has it look after this time again.
pub(super) const REST_NS: u64 = 500_000;
/// See [`REST_NS`].
const REST_NS_MAX: u64 = 8_000_000;
/// For how long no publish has it look, after one had in vain: who publishes and then waits sends
/// it himself, and each look may take the core away from him.
const IN_VAIN_NS: u64 = 32_000_000;
/// For how long nobody has driven at most when it drives again; less, if it has just let go.
const IDLE_NS: u64 = 2_000_000;

/// How the link's thread rests: it looks when its time comes, or does not rest.
const LOOKS_SOON: u8 = 0;
/// The same, unless it is called.
const NAPS: u8 = 1;
/// As before: whoever drives calls it if he leaves something to be sent.
const NAPS_ON: u8 = 2;
/// Until whoever drives lets go.
const SLEEPS: u8 = 3;

impl Broker {
    /// Says that whoever has waited here will not again for a while: the link's thread drives at
    /// once, and not when it would have looked. Does not block.
    pub fn hand_over(&self) {
        if let Some(uplink) = &self.uplink {
            uplink.helm.turned_ns.store(0, Ordering::SeqCst);
            uplink.wake_resting();
        }
    }
}

impl Uplink {
    /// Until nobody drives any more.
    pub(super) fn rest(&self) {
        let helm = &self.helm;
        let mut rest_ns = REST_NS;
        let mut looked_ns = self.driver.monotonic_ns();
        let mut until_ns = looked_ns + rest_ns;
        let (mut looks_as_called, mut deaf_until_ns) = (false, 0);
        while helm.is_open() && !self.is_closing.load(Ordering::SeqCst) {
            let is_long = until_ns > looked_ns + REST_NS;
            let naps = is_long && looked_ns >= deaf_until_ns;
            let was_called = self.park_until(until_ns, is_long, naps);
            let now_ns = self.driver.monotonic_ns();
            // Nobody would drive for those who park if whoever does let go now.
            let is_needed = helm.parked.load(Ordering::SeqCst) > 0;
            if was_called || is_long && is_needed {
                // Whoever has published may drive himself; if not, it is sent then.
                (rest_ns, looked_ns) = (REST_NS, now_ns);
                until_ns = now_ns + rest_ns;
                looks_as_called = was_called;
                continue;
            }
            let turned_ns = helm.turned_ns.load(Ordering::Relaxed);
            if now_ns.saturating_sub(turned_ns) < (now_ns - looked_ns).min(IDLE_NS) {
                looked_ns = now_ns;
                rest_ns = match is_needed {
                    true => REST_NS,
                    false => (2 * rest_ns).min(REST_NS_MAX),
                };
                if std::mem::take(&mut looks_as_called) && !is_needed {
                    rest_ns = REST_NS_MAX;
                    deaf_until_ns = now_ns + IN_VAIN_NS;
                }
                until_ns = (now_ns + rest_ns).min(turned_ns + REST_NS_MAX);
                continue;
            }
            if try_lock(&helm.running).is_some() {
                return;
            }
            // Whoever drives sleeps: he says so when he lets go.
            helm.resting.store(SLEEPS, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let seen = helm.rest.load(Ordering::SeqCst);
            if try_lock(&helm.running).is_none() {
                self.driver.park(&helm.rest, seen, FOREVER_NS);
            }
            helm.resting.store(LOOKS_SOON, Ordering::SeqCst);
            // It looks at once.
            until_ns = looked_ns;
        }
        // The end is not to wait: whoever drives now is woken, and lets go.
        if helm.is_open() {
            let seen = helm.rest.load(Ordering::SeqCst);
            let until_ns = self.driver.monotonic_ns() + REST_NS;
            if try_lock(&helm.running).is_none() {
                self.driver.park(&helm.rest, seen, until_ns);
            }
        }
    }

    /// Rests until the time has come, or a thread parks while this one would rest for long; true:
    /// it was called, as something was published.
    fn park_until(&self, until_ns: u64, is_long: bool, naps: bool) -> bool {
        let helm = &self.helm;
        let seen = helm.rest.load(Ordering::SeqCst);
        helm.rests_long.store(is_long, Ordering::SeqCst);
        if naps {
            helm.resting.store(NAPS, Ordering::SeqCst);
        }
        // Who publishes says that there is work, and who parks that he does, before he looks who
        // rests how.
        fence(Ordering::SeqCst);
        let has_work = naps && self.has_work();
        if !(has_work || is_long && helm.parked.load(Ordering::SeqCst) > 0) {
            self.driver.park(&helm.rest, seen, until_ns);
        }
        helm.rests_long.store(false, Ordering::Relaxed);
        naps && (helm.resting.swap(LOOKS_SOON, Ordering::SeqCst) == LOOKS_SOON || has_work)
    }

    /// After a publish that was the first one to be sent, behind the fence of the waker: if nobody
    /// drives, the link's thread looks [`REST_NS`] later whether it was.
    #[inline(always)]
    pub(super) fn call_napping(&self) {
        if matches!(self.helm.resting.load(Ordering::SeqCst), NAPS | NAPS_ON) {
            self.call();
        }
    }

    #[cold]
    #[inline(never)]
    fn call(&self) {
        // Whoever drives sends it, or sees that when he lets go.
        let _is_known = self.rests_on(NAPS, NAPS_ON);
        if self.helm.thread.load(Ordering::SeqCst) == 0 {
            self.end_nap();
        }
    }

    /// Behind the word that a thread parks: the link's thread is not to rest for long.
    pub(super) fn call_for_parked(&self) {
        if self.helm.rests_long.swap(false, Ordering::SeqCst) {
            self.wake_resting();
        }
    }

    fn end_nap(&self) {
        if self.rests_on(NAPS_ON, LOOKS_SOON) {
            self.wake_resting();
        }
    }

    /// The way of resting changes, if it is the one.
    fn rests_on(&self, before: u8, after: u8) -> bool {
        let (done, failed) = (Ordering::SeqCst, Ordering::SeqCst);
        let changed = self
            .helm
            .resting
            .compare_exchange(before, after, done, failed);
        changed.is_ok()
    }

    /// Whoever drove has let go, and a fence is behind that.
    #[inline]
    pub(super) fn let_go(&self, is_over: bool) {
        let resting = self.helm.resting.load(Ordering::SeqCst);
        if resting == NAPS_ON && self.has_work() {
            self.end_nap();
        }
        if resting == SLEEPS || is_over {
            self.wake_resting();
        }
    }

    /// Wakes the thread that rests.
    pub(super) fn wake_resting(&self) {
        self.helm.rest.fetch_add(1, Ordering::SeqCst);
        self.driver.wake(&self.helm.rest, u32::MAX);
    }
}
