//! epoll, and a bare echo server on it for one connection: what the product's sockets are compared
//! with.
//!
//! One read into a large buffer, one write of all of it, `epoll_wait` without a time-out while it
//! spins and with one when it sleeps. No part of the product: the unsafe code is its own.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::echo::{BUFFER_BYTES, Wait};

/// How long a sleep lasts at most: it looks whether it should stop.
pub(crate) const SLEEP_MS: i32 = 50;
/// Events of one call.
const EVENTS_MAX: usize = 256;

/// Echoes until the peer ends or `stop` is set.
pub(crate) fn serve<S: Read + Write + AsRawFd>(
    mut stream: S,
    wait: Wait,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut epoll = Epoll::new()?;
    epoll.add(&stream, 0)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut idle_since: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let may_spin = match (wait, idle_since) {
            (Wait::Sleep, _) => false,
            (Wait::Spin(_), None) => true,
            (Wait::Spin(spin), Some(since)) => since.elapsed() < spin,
        };
        let timeout_ms = if may_spin { 0 } else { SLEEP_MS };
        if epoll.wait(timeout_ms)? == 0 {
            idle_since.get_or_insert_with(Instant::now);
            continue;
        }
        idle_since = None;
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Descriptors that are watched for something to read, level triggered.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: the kernel has just made this descriptor for us.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
        })
    }

    pub(crate) fn add(&mut self, stream: &impl AsRawFd, key: u64) -> io::Result<()> {
        let mut interest = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: key,
        };
        let (add, stream) = (libc::EPOLL_CTL_ADD, stream.as_raw_fd());
        // SAFETY: both descriptors are open and `interest` is alive for the call.
        match unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), add, stream, &raw mut interest) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How many are ready, which [`ready`](Self::ready) names.
    pub(crate) fn wait(&mut self, timeout_ms: i32) -> io::Result<usize> {
        let (events, count) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: so many events are writable there.
        let count = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events, count, timeout_ms) };
        if let Ok(count) = usize::try_from(count) {
            return Ok(count);
        }
        match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        }
    }

    /// The key of one that is ready.
    pub(crate) fn ready(&self, index: usize) -> usize {
        self.events[index].u64 as usize
    }
}

/// The time a spinning server looks before it sleeps.
pub(crate) const SPIN: Duration = Duration::from_micros(50);
