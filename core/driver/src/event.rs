//! A flag that a foreign event loop can wait for.
//!
//! A kernel event is an eventfd: level-triggered, readable from `signal` until `clear`. A simulated
//! one is a flag without a kernel object. Signalling twice before a clear is signalling once; who
//! calls decides when a signal is worth a system call.

use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::counters::{Tally, count};

/// A descriptor that is readable exactly while it is signalled. Closed when dropped.
#[derive(Debug)]
pub struct Event {
    flag: Flag,
    tally: Arc<Tally>,
}

#[derive(Debug)]
enum Flag {
    Kernel(OwnedFd),
    Simulated(AtomicBool),
}

impl Event {
    pub(crate) fn kernel(tally: Arc<Tally>) -> io::Result<Self> {
        Ok(Self {
            flag: Flag::Kernel(eventfd()?),
            tally,
        })
    }

    pub(crate) fn simulated(tally: Arc<Tally>) -> Self {
        Self {
            flag: Flag::Simulated(AtomicBool::new(false)),
            tally,
        }
    }

    /// Makes the descriptor readable. Never blocks.
    pub fn signal(&self) {
        count(&self.tally.wakes);
        match &self.flag {
            Flag::Kernel(fd) => add_one(fd),
            Flag::Simulated(flag) => flag.store(true, Ordering::SeqCst),
        }
    }

    /// Makes the descriptor unreadable until the next signal. Look for work again afterwards: a
    /// signal from before is gone.
    pub fn clear(&self) {
        match &self.flag {
            Flag::Kernel(fd) => {
                take(fd);
            }
            Flag::Simulated(flag) => flag.store(false, Ordering::SeqCst),
        }
    }

    /// Whether the descriptor is readable now. A system call: for tests and diagnosis.
    #[must_use]
    pub fn is_signalled(&self) -> bool {
        match &self.flag {
            Flag::Kernel(fd) => is_readable(fd),
            Flag::Simulated(flag) => flag.load(Ordering::SeqCst),
        }
    }

    /// The descriptor to wait on; −1 in a simulation. Borrowed: it closes with the event.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        match &self.flag {
            Flag::Kernel(fd) => fd.as_raw_fd(),
            Flag::Simulated(_) => -1,
        }
    }
}

/// Owns the descriptor that a system call returned, or the error that it left.
pub(crate) fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor to us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A new eventfd, which never blocks.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    own(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

/// Adds one to an eventfd. A full counter (`EAGAIN`) is readable already.
pub(crate) fn add_one(fd: &OwnedFd) {
    let one = 1_u64;
    // SAFETY: the buffer is eight readable bytes.
    let size = unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    debug_assert!(
        size == 8 || last_error_is(libc::EAGAIN),
        "an eventfd takes eight bytes"
    );
}

/// Empties an eventfd or timerfd; true if there was something in it.
pub(crate) fn take(fd: &OwnedFd) -> bool {
    let mut counter = 0_u64;
    // SAFETY: the buffer is eight writable bytes.
    let size = unsafe { libc::read(fd.as_raw_fd(), (&raw mut counter).cast(), size_of::<u64>()) };
    debug_assert!(
        size == 8 || last_error_is(libc::EAGAIN),
        "the descriptor is a counter"
    );
    size == 8
}

/// Asks `poll` whether a read would return something.
pub(crate) fn is_readable(fd: &OwnedFd) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: `poll` is one live `pollfd`, and one is what the count says.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLIN != 0
}

fn last_error_is(expected: i32) -> bool {
    io::Error::last_os_error().raw_os_error() == Some(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: &Event, tally: &Tally) {
        assert!(!event.is_signalled());
        event.signal();
        event.signal();
        assert!(event.is_signalled());
        event.clear();
        assert!(!event.is_signalled());
        event.clear();
        event.signal();
        assert!(event.is_signalled());
        assert_eq!(tally.read().wakes, 3);
    }

    #[test]
    fn an_event_is_readable_from_signal_to_clear() {
        let tally = Arc::new(Tally::default());
        let event = Event::kernel(Arc::clone(&tally)).unwrap();
        assert!(event.fd() >= 0);
        check(&event, &tally);
    }

    #[test]
    fn a_simulated_event_does_the_same_without_a_descriptor() {
        let tally = Arc::new(Tally::default());
        let event = Event::simulated(Arc::clone(&tally));
        assert_eq!(event.fd(), -1);
        check(&event, &tally);
    }

    #[test]
    fn an_event_does_not_leak_into_programs_that_the_host_runs() {
        let event = Event::kernel(Arc::default()).unwrap();
        // SAFETY: the descriptor is open; F_GETFD takes no pointer.
        let flags = unsafe { libc::fcntl(event.fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}
