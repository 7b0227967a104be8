//! Being asked to end or to look at the configuration again: signals that are waited for in place
//! of a handler. And ending others.
//!
//! For programs of our own, whose main thread has nothing else to do. A library in somebody else's
//! process leaves signals alone.

use core::mem::MaybeUninit;
use std::io;

/// Kills a process with all that it has started in its group, of which it is the leader.
///
/// The caller has started it and not waited for it yet: else the number may be somebody else's.
///
/// # Errors
/// `InvalidInput`: no number of a process that anybody starts. `NotFound`: there is no such group.
pub fn kill_group(leader: u32) -> io::Result<()> {
    // 0 and 1 would mean our own group, and everybody.
    let leader = i32::try_from(leader).ok().filter(|leader| *leader > 1);
    let leader = leader.ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: no pointer is passed.
    match unsafe { libc::kill(-leader, libc::SIGKILL) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => {
                Err(io::ErrorKind::NotFound.into())
            }
            error => Err(error),
        },
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM, SIGINT.
    End,
    /// SIGHUP.
    Reload,
}

/// The three signals, held back from this thread and those that it starts afterwards.
#[derive(Debug)]
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// Holds them back; call it before other threads are started.
    ///
    /// # Errors
    /// What `pthread_sigmask` says, which is nothing here.
    pub fn hold_back() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `set` has room for a set, which `sigemptyset` makes an empty one; it cannot fail.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: `sigemptyset` has made it a set.
        let mut set = unsafe { set.assume_init() };
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            // SAFETY: `set` is a set, and the number is a signal's.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: `set` is a set; the old one is not asked for.
        let error = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, core::ptr::null_mut())
        };
        match error {
            0 => Ok(Self { set }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Waits until one of them comes to the process, and takes it.
    ///
    /// # Errors
    /// What `sigwait` says, which is nothing here.
    pub fn wait(&self) -> io::Result<Wish> {
        let mut signal = 0;
        // SAFETY: `set` is a set, and `signal` is written to by the call alone.
        let error = unsafe { libc::sigwait(&raw const self.set, &raw mut signal) };
        match (error, signal) {
            (0, libc::SIGHUP) => Ok(Wish::Reload),
            (0, _) => Ok(Wish::End),
            (error, _) => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_kills_everybody() {
        for leader in [0, 1, u32::MAX, 1 << 31] {
            let error = kill_group(leader).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{leader}");
        }
    }
}
