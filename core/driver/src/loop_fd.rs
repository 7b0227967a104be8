//! One descriptor for a foreign loop: readable when signalled or when a deadline has passed.
//!
//! An epoll descriptor over one eventfd and one timerfd, so that a client shows its host one fd for
//! everything it has. Arming the timer is a system call and deadlines mostly get later, so a later
//! deadline leaves the timer alone: it then fires too early, once, and the dispatch that finds
//! nothing due clears it and arms it anew.
//!
//! Invariant: `armed_ns` is the time the timer is set to or has fired for, `FOREVER_NS` if none;
//! it changes under the lock only. So the timer is never later than the earliest deadline given
//! since the last `clear`.

use core::sync::atomic::{AtomicU64, Ordering, fence};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::counters::Tally;
use crate::event::{Event, is_readable, own, take};
use crate::simulated::VirtualClock;
use crate::{FOREVER_NS, clock};

/// The descriptor that a foreign loop waits on. Closed when dropped.
#[derive(Debug)]
pub struct LoopFd {
    event: Event,
    timer: Timer,
    armed_ns: AtomicU64,
    arming: Mutex<()>,
}

#[derive(Debug)]
enum Timer {
    Kernel { epoll: OwnedFd, timer: OwnedFd },
    Simulated(Arc<VirtualClock>),
}

impl LoopFd {
    pub(crate) fn kernel(tally: Arc<Tally>) -> io::Result<Self> {
        let event = Event::kernel(tally)?;
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointer is passed.
        let timer = own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        // SAFETY: no pointer is passed.
        let epoll = own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        add(&epoll, event.fd())?;
        add(&epoll, timer.as_raw_fd())?;
        Ok(Self::over(event, Timer::Kernel { epoll, timer }))
    }

    pub(crate) fn simulated(tally: Arc<Tally>, clock: Arc<VirtualClock>) -> Self {
        Self::over(Event::simulated(tally), Timer::Simulated(clock))
    }

    fn over(event: Event, timer: Timer) -> Self {
        let armed_ns = AtomicU64::new(FOREVER_NS);
        Self {
            event,
            timer,
            armed_ns,
            arming: Mutex::new(()),
        }
    }

    /// Makes the descriptor readable until [`clear`](Self::clear). Never blocks.
    pub fn signal(&self) {
        self.event.signal();
    }

    /// Takes back the signal, and the deadline if it has passed; one that is to come stays armed.
    ///
    /// For a dispatch that found nothing to do. Afterwards look again, signal if something came
    /// meanwhile, and give the next deadline to [`set_deadline`](Self::set_deadline).
    pub fn clear(&self) {
        self.event.clear();
        if self.armed_ns.load(Ordering::SeqCst) == FOREVER_NS {
            return;
        }
        let _arming = self.lock();
        let has_fired = match &self.timer {
            Timer::Kernel { timer, .. } => take(timer),
            Timer::Simulated(clock) => self.armed_ns.load(Ordering::SeqCst) <= clock.peek_ns(),
        };
        if has_fired {
            self.armed_ns.store(FOREVER_NS, Ordering::SeqCst);
        }
        // Pairs with the fence in `set_deadline`: either that call sees the timer disarmed, or
        // the caller of this one, who looks again, sees the deadline behind it.
        fence(Ordering::SeqCst);
    }

    /// Sees to it that the descriptor is readable at the monotonic `deadline_ns` at the latest;
    /// `None`: never, and a deadline that has passed is forgotten.
    ///
    /// A system call only when the deadline gets earlier or is taken away. A deadline in the past
    /// makes the descriptor readable at once. Enter the deadline where a dispatch looks for it
    /// before this call.
    pub fn set_deadline(&self, deadline_ns: Option<u64>) {
        let deadline_ns = deadline_ns.unwrap_or(FOREVER_NS);
        fence(Ordering::SeqCst);
        if self.is_armed_for(deadline_ns) {
            return;
        }
        let _arming = self.lock();
        if self.is_armed_for(deadline_ns) {
            return;
        }
        if let Timer::Kernel { timer, .. } = &self.timer {
            arm(timer, deadline_ns);
        }
        self.armed_ns.store(deadline_ns, Ordering::SeqCst);
    }

    /// From now on this descriptor is readable, too, while `fd` is, until that is closed.
    ///
    /// # Errors
    /// What `epoll_ctl` says: no memory, or a descriptor that cannot be waited for. Nothing happens
    /// in a simulation.
    pub fn include(&self, fd: RawFd) -> io::Result<()> {
        match &self.timer {
            Timer::Kernel { epoll, .. } => add(epoll, fd),
            Timer::Simulated(_) => Ok(()),
        }
    }

    /// Whether the descriptor is readable now. A system call: for tests and diagnosis.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match &self.timer {
            Timer::Kernel { epoll, .. } => is_readable(epoll),
            Timer::Simulated(clock) => {
                let armed_ns = self.armed_ns.load(Ordering::SeqCst);
                let is_due = armed_ns != FOREVER_NS && armed_ns <= clock.peek_ns();
                is_due || self.event.is_signalled()
            }
        }
    }

    /// The descriptor to wait on; −1 in a simulation. Borrowed: it closes with this object.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        match &self.timer {
            Timer::Kernel { epoll, .. } => epoll.as_raw_fd(),
            Timer::Simulated(_) => -1,
        }
    }

    /// Whether the timer, as it is, serves this deadline: none for none, else no later than it.
    fn is_armed_for(&self, deadline_ns: u64) -> bool {
        let armed_ns = self.armed_ns.load(Ordering::SeqCst);
        armed_ns == deadline_ns || (deadline_ns != FOREVER_NS && armed_ns < deadline_ns)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.arming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches a descriptor for reading, level-triggered.
fn add(epoll: &OwnedFd, fd: RawFd) -> io::Result<()> {
    let mut interest = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 0,
    };
    // SAFETY: both descriptors are open and `interest` is alive for the call.
    let result = unsafe {
        libc::epoll_ctl(
            epoll.as_raw_fd(),
            libc::EPOLL_CTL_ADD,
            fd,
            &raw mut interest,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets a timerfd to an absolute time, or disarms it; either way what had fired is forgotten.
pub(crate) fn arm(timer: &OwnedFd, deadline_ns: u64) {
    // Zero would disarm: the first nanosecond has passed just as well.
    let value_ns = if deadline_ns == FOREVER_NS {
        0
    } else {
        deadline_ns.max(1)
    };
    let setting = libc::itimerspec {
        it_interval: clock::timespec(0),
        it_value: clock::timespec(value_ns),
    };
    // SAFETY: the descriptor is an open timerfd, `setting` is alive for the call, and the old
    // setting is not asked for.
    let result = unsafe {
        libc::timerfd_settime(
            timer.as_raw_fd(),
            libc::TFD_TIMER_ABSTIME,
            &raw const setting,
            ptr::null_mut(),
        )
    };
    debug_assert_eq!(result, 0, "every time below 2^63 seconds is valid");
}
