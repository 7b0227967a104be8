//! Descriptors of the process: how many it may have, and those that it was started with.
//!
//! For programs of our own. A library in somebody else's process leaves its limits alone.

use core::mem::MaybeUninit;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that a service manager passes on, by sd_listen_fds(3).
const FIRST: RawFd = 3;
/// How many it may be.
pub const INHERITED_MAX: u32 = 64;

/// How many descriptors the process may have: the limit that holds, and how far it may be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What holds.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

fn read() -> io::Result<libc::rlimit> {
    let mut limit = MaybeUninit::uninit();
    // SAFETY: `limit` has room for a limit.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr()) } {
        // SAFETY: the call has filled it in.
        0 => Ok(unsafe { limit.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many there may be.
///
/// # Errors
/// What `getrlimit` says, which is nothing here.
pub fn limit() -> io::Result<Limit> {
    let limit = read()?;
    Ok(Limit {
        soft: limit.rlim_cur,
        hard: limit.rlim_max,
    })
}

/// Raises the limit as far as the process may: one that uses `select` should not.
///
/// # Errors
/// What `setrlimit` says, which is nothing here.
pub fn raise_limit() -> io::Result<()> {
    let mut limit = read()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is one, alive for the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the descriptors that a service manager has started this process with, by the variables
/// `LISTEN_FDS` and `LISTEN_PID`; none, if they are for nobody or for another process. They are
/// closed on exec from now on. Once a process: the second time there are none.
///
/// # Errors
/// `InvalidInput`: more than [`INHERITED_MAX`], no number, or one of them is not open.
pub fn take_inherited() -> io::Result<Vec<OwnedFd>> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) || IS_TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(u32::MAX);
    if count > INHERITED_MAX {
        let says = format!("LISTEN_FDS is no number up to {INHERITED_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, says));
    }
    let numbers = FIRST..FIRST + count as RawFd;
    for fd in numbers.clone() {
        // SAFETY: no pointer is passed.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
            let says = format!("descriptor {fd} is not open, though LISTEN_FDS is {count}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, says));
        }
    }
    // SAFETY: it is open, and this very process was started with it, as the variables say: nobody
    // in it has made it, so nobody else closes it, and it is taken once.
    let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(numbers.map(own).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_may_be() {
        raise_limit().unwrap();
        let raised = limit().unwrap();
        assert_eq!(raised.soft, raised.hard);
    }
}
