//! Which sockets are ready, by the poll requests of an io_uring: the tier for old kernels.
//!
//! Needs what Linux 5.1 has: POLL_ADD, POLL_REMOVE, and a timerfd for deadlines. From 5.19 on task
//! work is cooperative: instead of interrupting this thread the kernel sets a flag that a spin
//! looks at, which makes spinning two to three times as fast.
//! A poll request fires once and is made again after its socket was dealt with, so what was not
//! read is found ready again. Reading and writing are watched by two requests, and one that is not
//! wanted any more is left alone until it fires.
//!
//! The kernel holds no memory of ours: a poll request has none. Before Linux 5.5 completions that
//! the ring has no room for are lost, so there connections are bounded by the completion queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::{IoUring, opcode, squeue, types};

use crate::event::{own, take};
use crate::loop_fd::arm;
use crate::{FOREVER_NS, clock};

use super::readiness::{Event, KINDS, Poller, READ, WRITE, Watch};
use super::slots::Key;
use super::{LISTENERS_MAX, Tier};

/// The timer's own kind of token.
const TIMER: u8 = KINDS;
/// What is added to a token: the request watches for writing; the request cancels.
const WRITES: u64 = 4 << 60;
const CANCELS: u64 = 8 << 60;
/// Looks at the completion queue between two calls that let the kernel fill it, where no flag says
/// that it would. Most kernels fill it by an interrupt of this thread, some only when it calls.
const GLANCES_PER_CALL: u32 = 16;

pub(super) struct RingPoll {
    ring: IoUring,
    /// Requests that the ring had no room for.
    backlog: VecDeque<squeue::Entry>,
    events: VecDeque<Event>,
    timer: OwnedFd,
    timer_ns: u64,
    is_timer_watched: bool,
    is_cooperative: bool,
    glances: u32,
}

impl RingPoll {
    pub(super) fn new(entries: u32, uses_newer_features: bool) -> io::Result<Self> {
        let cooperative = || {
            let mut builder = IoUring::builder();
            builder.setup_coop_taskrun().setup_taskrun_flag();
            builder.build(entries).ok().filter(|_| uses_newer_features)
        };
        let (ring, is_cooperative) = match cooperative() {
            Some(ring) => (ring, true),
            None => (IoUring::new(entries)?, false),
        };
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: no pointer is passed.
        let timer = own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        let mut poll = Self {
            ring,
            backlog: VecDeque::new(),
            events: VecDeque::new(),
            timer,
            timer_ns: FOREVER_NS,
            is_timer_watched: false,
            is_cooperative,
            glances: 0,
        };
        // A filter may allow the setup and nothing else.
        poll.enter(0)?;
        Ok(poll)
    }

    fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() && self.try_push(&entry) {
            return;
        }
        self.backlog.push_back(entry);
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: poll requests and their removal point to no memory.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    fn poll_add(&mut self, fd: RawFd, events: libc::c_short, token: u64) {
        let request = opcode::PollAdd::new(types::Fd(fd), events as u32);
        self.push(request.build().user_data(token));
    }

    /// Submits everything and waits for `count` completions; true if a signal came.
    fn enter(&mut self, count: usize) -> io::Result<bool> {
        loop {
            while let Some(entry) = self.backlog.front().cloned() {
                if !self.try_push(&entry) {
                    break;
                }
                self.backlog.pop_front();
            }
            let wait_for = if self.backlog.is_empty() { count } else { 0 };
            let result = self.ring.submit_and_wait(wait_for);
            self.drain()?;
            match result {
                Ok(_) if self.backlog.is_empty() => return Ok(false),
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    // The completion queue was full; now it is not.
                    Some(libc::EBUSY | libc::EAGAIN) => return Ok(true),
                    Some(libc::EINTR) => return Ok(true),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Turns completions into events.
    fn drain(&mut self) -> io::Result<()> {
        let lost = self.ring.completion().overflow();
        if lost > 0 && !self.ring.params().is_feature_nodrop() {
            let says = "the ring has lost completions that it had no room for";
            return Err(io::Error::other(says));
        }
        for completion in self.ring.completion() {
            let token = completion.user_data();
            if token & CANCELS != 0 {
                continue;
            }
            let writes = token & WRITES != 0;
            let token = token & !WRITES;
            if Key::unpack(token).0 == TIMER {
                self.is_timer_watched = false;
                take(&self.timer);
                self.timer_ns = FOREVER_NS;
                continue;
            }
            // The call that follows finds out what an error or a hang-up is.
            let is_ready = completion.result() != -libc::ECANCELED;
            self.events.push_back(Event {
                token,
                reads: is_ready && !writes,
                writes: is_ready && writes,
                fired: if writes { WRITE } else { READ },
            });
        }
        Ok(())
    }

    /// Sees to it that the ring wakes at `until_ns` at the latest; perhaps before.
    fn set_timer(&mut self, until_ns: u64) {
        if until_ns < self.timer_ns {
            arm(&self.timer, until_ns);
            self.timer_ns = until_ns;
        }
        if self.timer_ns != FOREVER_NS && !self.is_timer_watched {
            let key = Key {
                index: 0,
                generation: 0,
            };
            self.is_timer_watched = true;
            self.poll_add(self.timer.as_raw_fd(), libc::POLLIN, key.pack(TIMER));
        }
    }
}

impl Poller for RingPoll {
    const GLANCES_BY_CALL: bool = false;

    fn tier(&self) -> Tier {
        Tier::UringBasic
    }

    fn connections_max(&self) -> u32 {
        if self.ring.params().is_feature_nodrop() {
            return u32::MAX;
        }
        // Two requests and their removals for each, one for each listener, timer and waker.
        (self
            .ring
            .params()
            .cq_entries()
            .saturating_sub(LISTENERS_MAX * 2 + 4))
            / 4
    }

    fn watch(&mut self, fd: RawFd, token: u64, watch: &mut Watch) -> io::Result<()> {
        if watch.reads && watch.armed & READ == 0 {
            watch.armed |= READ;
            self.poll_add(fd, libc::POLLIN, token);
        }
        if watch.writes && watch.armed & WRITE == 0 {
            watch.armed |= WRITE;
            self.poll_add(fd, libc::POLLOUT, token | WRITES);
        }
        Ok(())
    }

    fn forget(&mut self, _fd: RawFd, token: u64, watch: &mut Watch) {
        for (bit, token) in [(READ, token), (WRITE, token | WRITES)] {
            if watch.armed & bit != 0 {
                let request = opcode::PollRemove::new(token).build();
                self.push(request.user_data(token | CANCELS));
            }
        }
    }

    fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn has_next(&self) -> bool {
        !self.events.is_empty()
    }

    fn check(&mut self) -> io::Result<()> {
        self.enter(0).map(|_| ())
    }

    fn glance(&mut self) -> io::Result<bool> {
        self.glances = self.glances.wrapping_add(1);
        let is_time_to_call = match self.is_cooperative {
            true => self.ring.submission().taskrun(),
            false => self.glances.is_multiple_of(GLANCES_PER_CALL),
        };
        if is_time_to_call {
            self.enter(0)?;
        } else {
            self.drain()?;
        }
        Ok(self.has_next())
    }

    fn sleep(&mut self, until_ns: u64) -> io::Result<bool> {
        loop {
            self.set_timer(until_ns);
            if self.enter(1)? || self.has_next() {
                return Ok(true);
            }
            if until_ns != FOREVER_NS && clock::monotonic_ns() >= until_ns {
                return Ok(false);
            }
        }
    }

    fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
