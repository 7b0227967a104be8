//! Which sockets are ready, by epoll: the tier that every kernel and container has.
//!
//! Level-triggered: what was not read stays ready, so a turn may stop anywhere. A descriptor of
//! which nothing is wanted is taken out, because epoll tells of errors and hang-ups unasked.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::event::own;
use crate::{FOREVER_NS, clock};

use super::Tier;
use super::readiness::{Event, Poller, READ, WRITE, Watch};

/// Events taken by one call; more come with the next.
const EVENTS_MAX: usize = 256;
const MILLISECOND_NS: u64 = 1_000_000;

pub(super) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
    at: usize,
    count: usize,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
            at: 0,
            count: 0,
        })
    }

    /// True if there are events, or a signal came.
    fn poll(&mut self, timeout_ms: libc::c_int) -> io::Result<bool> {
        debug_assert!(!self.has_next(), "events would be lost");
        let (events, count_max) = (self.events.as_mut_ptr(), self.events.len() as libc::c_int);
        // SAFETY: `events` is `count_max` writable events.
        let count = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events, count_max, timeout_ms) };
        self.at = 0;
        self.count = usize::try_from(count).unwrap_or(0);
        if count >= 0 {
            return Ok(count > 0);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            error => Err(error),
        }
    }
}

impl Poller for Epoll {
    const GLANCES_BY_CALL: bool = true;

    fn tier(&self) -> Tier {
        Tier::Epoll
    }

    fn connections_max(&self) -> u32 {
        u32::MAX
    }

    fn watch(&mut self, fd: RawFd, token: u64, watch: &mut Watch) -> io::Result<()> {
        let wanted = if watch.reads { READ } else { 0 } | if watch.writes { WRITE } else { 0 };
        if wanted == watch.armed {
            return Ok(());
        }
        let operation = match (watch.armed, wanted) {
            (0, _) => libc::EPOLL_CTL_ADD,
            (_, 0) => libc::EPOLL_CTL_DEL,
            _ => libc::EPOLL_CTL_MOD,
        };
        let mut events = 0;
        if watch.reads {
            events |= libc::EPOLLIN as u32;
        }
        if watch.writes {
            events |= libc::EPOLLOUT as u32;
        }
        let mut interest = libc::epoll_event { events, u64: token };
        // SAFETY: both descriptors are open and `interest` is alive for the call.
        let result =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &raw mut interest) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        watch.armed = wanted;
        Ok(())
    }

    fn forget(&mut self, fd: RawFd, token: u64, watch: &mut Watch) {
        watch.reads = false;
        watch.writes = false;
        // Taking out what is in cannot fail; closing the descriptor would take it out, too.
        let _ = self.watch(fd, token, watch);
        watch.armed = 0;
    }

    fn next(&mut self) -> Option<Event> {
        let event = self.events[..self.count].get(self.at)?;
        self.at += 1;
        let (ready, token) = (event.events, event.u64);
        // The call that follows finds out what an error or a hang-up is.
        let has_failed = ready & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
        Some(Event {
            token,
            reads: has_failed || ready & libc::EPOLLIN as u32 != 0,
            writes: has_failed || ready & libc::EPOLLOUT as u32 != 0,
            fired: 0,
        })
    }

    fn has_next(&self) -> bool {
        self.at < self.count
    }

    fn check(&mut self) -> io::Result<()> {
        self.poll(0).map(|_| ())
    }

    fn glance(&mut self) -> io::Result<bool> {
        self.poll(0)
    }

    fn sleep(&mut self, until_ns: u64) -> io::Result<bool> {
        if until_ns == FOREVER_NS {
            return self.poll(-1);
        }
        let rest_ns = until_ns.saturating_sub(clock::monotonic_ns());
        // Rounded up: a wait ends at its deadline or after it.
        let rest_ms = rest_ns.div_ceil(MILLISECOND_NS);
        let timeout_ms = libc::c_int::try_from(rest_ms).unwrap_or(libc::c_int::MAX);
        self.poll(timeout_ms)
    }

    fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
