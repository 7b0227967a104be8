//! Eventfds that wake a shard: its own, and those that it shares with peers in other processes.
//!
//! All of them are in one epoll of their own, edge-triggered, and the shard's loop watches that. So
//! nobody reads them: a peer that shares an eventfd could empty it, or make a read of it block, and
//! neither is of use to him. A write after another one is told again; the counter of one that is
//! never read is full after 2^64.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::event::own;

use super::slots::{Key, Slots};
use super::{Completion, WatchId};

/// The shard's own eventfd: no key is packed like that.
const OWN: u64 = u64::MAX;
/// Signals that are taken by one call; more are left for the next turn.
const SIGNALS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Watches {
    epoll: OwnedFd,
    watched: Slots<OwnedFd>,
}

impl Watches {
    /// Watches the shard's own eventfd, which lives as long as the shard.
    pub(super) fn new(own_event: RawFd, count_max: u32) -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let epoll = own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let watches = Self {
            epoll,
            watched: Slots::new(count_max, "watches"),
        };
        watches.add(own_event, OWN)?;
        Ok(watches)
    }

    fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let mut interest = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLET) as u32,
            u64: token,
        };
        let (epoll, add) = (self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD);
        // SAFETY: both descriptors are open and `interest` is alive for the call.
        match unsafe { libc::epoll_ctl(epoll, add, fd, &raw mut interest) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn watch(&mut self, event: OwnedFd) -> io::Result<WatchId> {
        self.watched.reserve()?;
        let fd = event.as_raw_fd();
        let key = self.watched.insert(event);
        match self.add(fd, key.pack(0)) {
            Ok(()) => Ok(WatchId(key)),
            Err(error) => {
                self.watched.remove(key);
                Err(error)
            }
        }
    }

    /// Closes an eventfd, and forgets what `done` tells of it. Peers have copies, so it is taken
    /// out first.
    pub(super) fn unwatch(&mut self, watch: WatchId, done: &mut VecDeque<Completion<'static>>) {
        if let Some(event) = self.watched.remove(watch.0) {
            let (epoll, take_out) = (self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL);
            // SAFETY: both descriptors are open; taking out reads no interest.
            let result = unsafe {
                libc::epoll_ctl(epoll, take_out, event.as_raw_fd(), core::ptr::null_mut())
            };
            debug_assert_eq!(result, 0, "it was watched");
        }
        done.retain(|it| !matches!(it, Completion::Signalled { watch: id } if *id == watch));
    }

    pub(super) fn count(&self) -> usize {
        self.watched.count()
    }

    /// Readable while there are signals that were not taken.
    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Takes what was signalled. The shard's own is dealt with by having woken it.
    pub(super) fn take(&self, mut on: impl FnMut(Completion<'static>)) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; SIGNALS_MAX];
        let (start, count_max) = (events.as_mut_ptr(), SIGNALS_MAX as libc::c_int);
        // SAFETY: `events` is as many writable events as the count says.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), start, count_max, 0) };
        // An error (a signal came) is as good as none: the epoll stays readable.
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            let token = event.u64;
            let (_, key) = Key::unpack(token);
            if token != OWN && self.watched.get(key).is_some() {
                let watch = WatchId(key);
                on(Completion::Signalled { watch });
            }
        }
    }
}
