//! A bare echo server on epoll, one connection: what the sockets of the product are compared with.
//!
//! One read into a large buffer, one write of all of it, `epoll_wait` without a time-out while it
//! spins and with one when it sleeps. No part of the product: the unsafe code is its own.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::echo::{BUFFER_BYTES, Wait};

/// How long a sleep lasts at most: it looks whether it should stop.
const SLEEP_MS: i32 = 50;

/// Echoes until the peer ends or `stop` is set.
pub(crate) fn serve<S: Read + Write + AsRawFd>(
    mut stream: S,
    wait: Wait,
    stop: &AtomicBool,
) -> io::Result<()> {
    let epoll = watch(&stream)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut idle_since: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let may_spin = match (wait, idle_since) {
            (Wait::Sleep, _) => false,
            (Wait::Spin(_), None) => true,
            (Wait::Spin(spin), Some(since)) => since.elapsed() < spin,
        };
        let timeout_ms = if may_spin { 0 } else { SLEEP_MS };
        if !is_ready(&epoll, timeout_ms)? {
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

fn watch(stream: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut interest = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 0,
    };
    let (add, stream) = (libc::EPOLL_CTL_ADD, stream.as_raw_fd());
    // SAFETY: both descriptors are open and `interest` is alive for the call.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), add, stream, &raw mut interest) } {
        0 => Ok(epoll),
        _ => Err(io::Error::last_os_error()),
    }
}

fn is_ready(epoll: &OwnedFd, timeout_ms: i32) -> io::Result<bool> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: `event` is one writable event, as the count says.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, timeout_ms) };
    if count >= 0 {
        return Ok(count > 0);
    }
    match io::Error::last_os_error() {
        error if error.kind() == ErrorKind::Interrupted => Ok(false),
        error => Err(error),
    }
}

/// The time a spinning server looks before it sleeps.
pub(crate) const SPIN: Duration = Duration::from_micros(50);
