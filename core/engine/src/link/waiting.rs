//! Waiting for a queue of a remote client: the thread drives the link meanwhile, if it can.

use std::sync::atomic::Ordering;

use fastmq_memory::gate::{FUTEX, TASK};
use fastmq_memory::{Batch, ReaderGuard};

use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::place::{Place, closed_and_drained, no_message};
use crate::wait::{Pace, Profile};

use super::Uplink;
use super::helm::AtHelm;

/// How long a thread spins at the helm without looking at anything but the connection.
const SPIN_SLICE_NS: u64 = 20_000;

/// How a thread's time at the helm has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driven {
    /// The batch has something.
    Found,
    /// The time is over, something is to be looked at again, or nothing more will come.
    Over,
    /// The link has ended.
    Ended,
}

/// Looks at a queue: how many messages the batch has.
type Look<'a, 'q> = dyn FnMut(&mut ReaderGuard<'q>) -> Result<usize> + 'a;

impl Place {
    /// As [`Place::wait`], of a remote client: the time-out is counted from now.
    #[inline(never)]
    pub(crate) fn wait_linked<'q>(
        &'q self,
        broker: &Broker,
        uplink: &Uplink,
        mut guard: ReaderGuard<'q>,
        timeout_ns: u64,
        look: &mut Look<'_, 'q>,
    ) -> Result<Batch<'q>> {
        if timeout_ns == 0 {
            let found = match uplink.try_helm() {
                Some(mut held) => {
                    held.turn(0, 0);
                    look(&mut guard)?
                }
                None => 0,
            };
            if found > 0 {
                return Ok(guard.into_batch());
            }
            let nothing = Error::new(&Fault(Status::Again, "no message is waiting"));
            return self.settle(broker, guard, look, nothing);
        }
        let mut now_ns = broker.driver.monotonic_ns();
        let deadline_ns = now_ns.saturating_add(timeout_ns);
        loop {
            let free = uplink.try_helm();
            let was_free = free.is_some();
            if let Some(mut held) = free.or_else(|| uplink.take_helm(deadline_ns)) {
                // Whoever answers can work while this thread says that it sleeps.
                held.send_added();
                if !was_free {
                    // The link's thread may have taken a while to let go.
                    now_ns = broker.driver.monotonic_ns();
                }
                let times = (now_ns, deadline_ns);
                match self.drive_until(broker, &mut held, &mut guard, times, look)? {
                    Driven::Found => {
                        drop(held);
                        return Ok(guard.into_batch());
                    }
                    Driven::Over => {}
                    Driven::Ended => {
                        now_ns = broker.driver.monotonic_ns();
                        continue;
                    }
                }
            } else {
                self.park_linked(broker, uplink, &mut guard, deadline_ns, look)?;
            }
            if look(&mut guard)? > 0 {
                return Ok(guard.into_batch());
            }
            if self.is_over(broker) {
                return Err(closed_and_drained());
            }
            now_ns = broker.driver.monotonic_ns();
            if now_ns >= deadline_ns {
                return self.settle(broker, guard, look, no_message());
            }
        }
    }

    /// Drives until there is something, or the time is over, or nothing more will come.
    fn drive_until<'q>(
        &'q self,
        broker: &Broker,
        held: &mut AtHelm<'_>,
        guard: &mut ReaderGuard<'q>,
        (start_ns, deadline_ns): (u64, u64),
        look: &mut Look<'_, 'q>,
    ) -> Result<Driven> {
        let driver = &broker.driver;
        let profile = self.profile();
        let mut now_ns = start_ns;
        let budget_ns = match driver.may_spin() || profile == Profile::BusyPoll {
            true => self.spin.budget_ns(profile),
            false => 0,
        };
        let mut pace = Pace::default();
        while now_ns - start_ns < budget_ns {
            let slice_ns = SPIN_SLICE_NS.min(deadline_ns.saturating_sub(now_ns));
            if !held.turn(slice_ns, slice_ns) {
                return Ok(Driven::Ended);
            }
            if look(guard)? > 0 {
                self.spin.learn(true);
                return Ok(Driven::Found);
            }
            now_ns = driver.monotonic_ns();
            pace.spin_on(&**driver, now_ns, deadline_ns);
            if now_ns >= deadline_ns || self.is_over(broker) {
                return Ok(Driven::Over);
            }
        }
        let (caller, task) = held.caller()?;
        loop {
            // In this order: whoever has something for the queue calls, or it is seen here.
            caller.listen();
            self.sleepers.set_task(task);
            self.lanes.readers().arm(TASK);
            let has_found = look(guard)? > 0;
            if has_found || self.is_over(broker) || now_ns >= deadline_ns {
                self.lanes.readers().disarm(TASK);
                if budget_ns > 0 {
                    self.spin.learn_late(now_ns - start_ns);
                }
                return Ok(if has_found {
                    Driven::Found
                } else {
                    Driven::Over
                });
            }
            guard.trim();
            let wake_ns = deadline_ns.min(self.deadline_ns.load(Ordering::Relaxed));
            self.sleepers.waits.fetch_add(1, Ordering::Relaxed);
            if !held.turn(wake_ns.saturating_sub(now_ns).max(1), 0) {
                self.lanes.readers().disarm(TASK);
                return Ok(Driven::Ended);
            }
            now_ns = driver.monotonic_ns();
        }
    }

    /// Parks until there is something, while another thread drives; for a while.
    fn park_linked<'q>(
        &'q self,
        broker: &Broker,
        uplink: &Uplink,
        guard: &mut ReaderGuard<'q>,
        deadline_ns: u64,
        look: &mut Look<'_, 'q>,
    ) -> Result<()> {
        // Read before arming: a wake after this changes it, and the park returns at once.
        let seen = self.sleepers.reader_word.load(Ordering::Acquire);
        self.lanes.readers().arm(FUTEX);
        let found = look(guard);
        if matches!(found, Ok(0)) && !self.is_over(broker) {
            guard.trim();
            let wake_ns = deadline_ns.min(self.deadline_ns.load(Ordering::Relaxed));
            self.sleepers.waits.fetch_add(1, Ordering::Relaxed);
            uplink.park(&self.sleepers.reader_word, seen, wake_ns);
        }
        self.lanes.readers().disarm(FUTEX);
        found.map(|_| ())
    }
}
